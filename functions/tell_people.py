"""TellPeople: an announcement becomes an event on EventBridge, a message to the stack's topic, and
one to Slack.

People are told a thing once: who tells it leaves a mark first (bluegreen/told.py). What was
certainly not told is tried again; of what may have been told nobody is told a second time, and it
is counted. EventBridge may get an event twice, which has an id for that.

A channel that does not take it is put back into the queue for itself, in a line of its own, so that
it keeps none of the others waiting.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from bluegreen import slack
from bluegreen.announcement import (
    SOURCE,
    Announcement,
    detail,
    detail_type,
    details,
    headline,
    subject,
)
from bluegreen.errors import AwsRefused, AwsUnavailable
from bluegreen.slack import SlackRefused, SlackUnsure
from bluegreen.told import Told
from runtime import clients
from runtime.invocation import logger, translating_aws_errors
from runtime.observability import count
from runtime.settings import Settings

_FIRST_RETRY_SECONDS = 5
_LONGEST_RETRY_SECONDS = 300
# After that no channel is begun: the function may take 60 s, one that hangs some 25.
_LAST_BEGIN_SECONDS = 20
_SERVER_FAULT = 500


class _NotTold(Exception):
    """A channel did not take it. retry_after: seconds, None if it does not say."""

    def __init__(self, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _Unsure(Exception):
    """A channel may have taken it."""


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """event: messages of the queue of announcements:
    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html

    Answers the messages that have to come again, and all that follow them: what is told of a
    service is told in order, but for what a channel did not take at first. That is told later, in
    order with the rest that this channel did not take.
    """
    settings = Settings.from_env(os.environ)
    records = event["Records"]
    for number, message in enumerate(records):
        if not _tell(settings, message, time.time()):
            left = [{"itemIdentifier": one["messageId"]} for one in records[number:]]
            return {"batchItemFailures": left}
    return {"batchItemFailures": []}


def _tell(settings: Settings, message: Mapping[str, Any], now: float) -> bool:
    """Tell all channels, or the one that the message was put back for. False: it must come again.

    now: epoch seconds.
    """
    announcement = Announcement.model_validate_json(message["body"])
    logger().append_keys(announcement=announcement.key)
    receives = int(message["attributes"]["ApproximateReceiveCount"])
    only, not_before = _put_back_for(message)
    if not_before > now:
        _come_again(settings, message, int(not_before - now) + 1)
        return False
    told = Told(
        clients.dynamodb(),
        settings.table,
        announcement.key,
        f"{message['messageId']}/{receives}",
        now,
    )
    failed: dict[str, _NotTold] = {}
    for channel, send in _channels(settings, announcement).items():
        if only not in ("", channel):
            continue
        if time.time() > now + _LAST_BEGIN_SECONDS:
            failed[channel] = _NotTold("the channels before it took too long")
            continue
        try:
            translating_aws_errors(lambda: _once(told, channel, send))  # noqa: B023
        except _NotTold as error:
            failed[channel] = error
        except (AwsRefused, AwsUnavailable) as error:
            failed[channel] = _NotTold(str(error))
    for channel, why in failed.items():
        logger().error("not told", extra={"channel": channel, "reason": str(why)})
    if only:
        for why in failed.values():
            backoff = min(_FIRST_RETRY_SECONDS * 2**receives, _LONGEST_RETRY_SECONDS)
            _come_again(settings, message, why.retry_after or backoff)
        return not failed
    back = [_put_back(settings, message, channel, why, now) for channel, why in failed.items()]
    return all(back)


def _channels(settings: Settings, announcement: Announcement) -> dict[str, Callable[[], None]]:
    """Who is told, and how."""
    channels = {"events": lambda: _send_event(announcement)}
    if settings.topic:
        channels["topic"] = lambda: _publish(settings.topic, announcement)
    if announcement.slack:
        name = f"{settings.slack_prefix}/{announcement.slack}"
        channels["slack"] = lambda: _post(name, settings.slack_url, announcement)
    return channels


def _once(told: Told, channel: str, send: Callable[[], None]) -> None:
    if channel == "events":
        if not told.is_told(channel):
            send()
            told.confirm(channel)
        return
    claim = told.claim(channel)
    if claim == "unsure":
        _note_unsure(channel, "an earlier attempt has ended while it told it")
    if claim != "ours":
        return
    try:
        send()
    except _Unsure as error:
        _note_unsure(channel, str(error))
    except Exception:
        told.give_back(channel)
        raise
    told.confirm(channel)


def _note_unsure(channel: str, reason: str) -> None:
    logger().error("perhaps not told", extra={"channel": channel, "reason": reason})
    count("AnnouncementsUncertain")


# What is sent


def _send_event(announcement: Announcement) -> None:
    answer = clients.events().put_events(
        Entries=[
            {
                "Time": datetime.fromtimestamp(announcement.at, UTC),
                "Source": SOURCE,
                "DetailType": detail_type(announcement.kind),
                "Detail": detail(announcement).model_dump_json(),
                "Resources": [announcement.execution_arn] if announcement.execution_arn else [],
            }
        ]
    )
    # https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
    if answer["FailedEntryCount"]:
        [entry] = answer["Entries"]
        raise _NotTold(f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}")


def _publish(topic: str, announcement: Announcement) -> None:
    try:
        clients.sns().publish(
            TopicArn=topic,
            Subject=subject(announcement),
            Message="\n".join([headline(announcement), *details(announcement)]),
            MessageAttributes={
                "service": {"DataType": "String", "StringValue": announcement.service},
                "kind": {"DataType": "String", "StringValue": announcement.kind},
            },
        )
    except (EndpointConnectionError, ConnectTimeoutError):
        raise
    except (BotoConnectionError, HTTPClientError) as error:
        # The message may have gone out by then.
        raise _Unsure(str(error)) from error
    except ClientError as error:
        # So it may when SNS itself failed: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= _SERVER_FAULT:
            raise _Unsure(str(error)) from error
        raise


def _post(parameter: str, origin: str, announcement: Announcement) -> None:
    client = clients.ssm_once()
    try:
        webhook = client.get_parameter(Name=parameter, WithDecryption=True)["Parameter"]["Value"]
    except client.exceptions.ParameterNotFound as error:
        raise _NotTold(f"there is no webhook: no SSM parameter {parameter}") from error
    try:
        slack.post(webhook.strip(), origin, announcement)
    except SlackRefused as error:
        raise _NotTold(f"{parameter}: {error}", error.retry_after) from None
    except SlackUnsure as error:
        raise _Unsure(f"{parameter}: {error}") from None


# What comes again


def _put_back_for(message: Mapping[str, Any]) -> tuple[str, float]:
    """The only channel that a message is for, "" for all of them; not before, epoch seconds."""
    attributes = message.get("messageAttributes", {})
    only = attributes.get("channel", {}).get("stringValue", "")
    return only, float(attributes.get("not_before", {}).get("stringValue", "0"))


def _put_back(
    settings: Settings,
    message: Mapping[str, Any],
    channel: str,
    why: _NotTold,
    now: float,
) -> bool:
    """Whether it is in the queue again for that channel alone; otherwise all of it comes again."""
    group = f"{message['attributes']['MessageGroupId']}/{channel}"
    not_before = now + (why.retry_after or _FIRST_RETRY_SECONDS)
    name = hashlib.sha256(f"{message['messageId']}/{channel}".encode()).hexdigest()
    try:
        translating_aws_errors(
            lambda: clients.sqs_briefly().send_message(
                QueueUrl=settings.announcements_queue,
                MessageBody=message["body"],
                MessageGroupId=group,
                MessageDeduplicationId=name,
                MessageAttributes={
                    "channel": {"DataType": "String", "StringValue": channel},
                    "not_before": {"DataType": "Number", "StringValue": f"{not_before:.3f}"},
                },
            )
        )
    except (AwsRefused, AwsUnavailable) as error:
        logger().error("not put back", extra={"channel": channel, "reason": str(error)})
        return False
    return True


def _come_again(settings: Settings, message: Mapping[str, Any], seconds: int) -> None:
    """Have a message come again then, instead of after the queue's visibility timeout."""
    try:
        translating_aws_errors(
            lambda: clients.sqs_briefly().change_message_visibility(
                QueueUrl=settings.announcements_queue,
                ReceiptHandle=message["receiptHandle"],
                VisibilityTimeout=seconds,
            )
        )
    except (AwsRefused, AwsUnavailable) as error:
        # It comes again all the same, only later.
        logger().warning("comes at its own time", extra={"reason": str(error)})
