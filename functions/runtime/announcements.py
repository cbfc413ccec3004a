"""Sending what people are to be told to the queue of TellPeople."""

from __future__ import annotations

import hashlib
import re
import time

from bluegreen.announcement import Announcement
from bluegreen.errors import AwsRefused, AwsUnavailable
from runtime import clients
from runtime.invocation import logger, translating_aws_errors
from runtime.observability import count
from runtime.settings import Settings

# What SQS takes as an id that tells repetitions:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_DEDUPLICATION_ID = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
# No call is begun later than that after the first one.
_PATIENCE_SECONDS = 5
_PAUSE_SECONDS = 1


def tell(settings: Settings, announcement: Announcement) -> None:
    """Have people told. Nothing happens in a stack that has no queue.

    Told again, the same announcement is the same message. A queue that does not take it fails no
    deployment, and keeps none waiting for long: what is lost is logged, and counted.
    """
    if not settings.announcements_queue:
        return
    began = time.monotonic()
    while (lost := _send(settings.announcements_queue, announcement)) is not None:
        passing = isinstance(lost, AwsUnavailable)
        if not passing or time.monotonic() + _PAUSE_SECONDS > began + _PATIENCE_SECONDS:
            logger().error(
                "nobody is told", extra={"announcement": announcement.key, "reason": str(lost)}
            )
            count("AnnouncementsLost")
            return
        time.sleep(_PAUSE_SECONDS)


def _send(queue: str, announcement: Announcement) -> AwsRefused | AwsUnavailable | None:
    """Why the queue has not taken it; None when it has."""
    try:
        translating_aws_errors(
            lambda: clients.sqs_briefly().send_message(
                QueueUrl=queue,
                MessageBody=announcement.body(),
                MessageGroupId=announcement.service,
                MessageDeduplicationId=_id(announcement.key),
            )
        )
    except (AwsRefused, AwsUnavailable) as error:
        return error
    return None


def _id(key: str) -> str:
    if _DEDUPLICATION_ID.fullmatch(key):
        return key
    return hashlib.sha256(key.encode()).hexdigest()
