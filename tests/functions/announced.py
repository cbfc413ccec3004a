"""What people are told: the queue of announcements, and what listens behind TellPeople."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import Any, Self

import pytest
from moto.backends import get_backend
from moto.sqs.models import Message

import tell_people
from bluegreen.announcement import Announcement
from runtime import clients
from sandbox.slack import SlackServer
from tests.functions.world import ACCOUNT, REGION, START, TABLE, Paced

WEBHOOK = "/services/T01/B01/a-secret-that-nobody-may-see"


def queue(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the queue of announcements, empty; functions find it. Returns its URL."""
    get_backend("sqs")[ACCOUNT][REGION].reset()
    url = clients.sqs().create_queue(
        QueueName="announcements.fifo",
        Attributes={"FifoQueue": "true", "VisibilityTimeout": "180"},
    )["QueueUrl"]
    monkeypatch.setenv("ANNOUNCEMENTS_QUEUE_URL", url)
    return url


def waiting(url: str) -> list[Message]:
    """The messages in a queue, those that nobody may see yet too."""
    return list(get_backend("sqs")[ACCOUNT][REGION].queues[url.rpartition("/")[2]]._messages)


def announced(url: str) -> list[Announcement]:
    """What waits in the queue of announcements, in order."""
    return [Announcement.model_validate_json(one.body) for one in waiting(url)]


class Audience:
    """Everybody who is told: a rule on the event bus, a subscriber of the topic, and Slack."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.now = START
        self.slack = SlackServer(clock=lambda: self.now)
        self._undo: list[Any] = []

    def build(self) -> Self:
        for service in ("dynamodb", "events", "sns", "ssm"):
            get_backend(service)[ACCOUNT][REGION].reset()
        self.queue = queue(self._monkeypatch)
        self._monkeypatch.setattr(tell_people, "time", SimpleNamespace(time=lambda: self.now))
        self.paced = Paced()
        self._monkeypatch.setattr("runtime.announcements.time", self.paced)
        self._monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))
        self.topic = clients.sns().create_topic(Name="deployments")["TopicArn"]
        for name, value in {
            "TABLE_NAME": TABLE,
            "LEASE_SECONDS": "600",
            "SETTLE_SECONDS": "35",
            "SERVICE_PARAMETER_PREFIX": "/bluegreen/services",
            "SLACK_PARAMETER_PREFIX": "/bluegreen/slack",
            "SLACK_URL": self.slack.url,
            "TOPIC_ARN": self.topic,
        }.items():
            self._monkeypatch.setenv(name, value)
        clients.dynamodb().create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        self._heard = {name: self._ear(name) for name in ("mail", "rule")}
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:"
        clients.sns().subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=f"{arn}mail")
        clients.events().put_rule(Name="all", EventPattern='{"source": ["ecs-bluegreen"]}')
        clients.events().put_targets(Rule="all", Targets=[{"Id": "1", "Arn": f"{arn}rule"}])
        self.slack.start()
        self.store_webhook(self.slack.url + WEBHOOK)
        return self

    def close(self) -> None:
        self.slack.stop()
        for undo in self._undo:
            undo()

    def _ear(self, name: str) -> str:
        return clients.sqs().create_queue(QueueName=name)["QueueUrl"]

    def store_webhook(self, url: str) -> None:
        clients.ssm().put_parameter(
            Name="/bluegreen/slack/shop", Value=url, Type="SecureString", Overwrite=True
        )

    def fails(self, service: str, operation: str, error: Exception, times: int = 1) -> None:
        """The next calls of an operation fail with this, before they are sent."""
        left = [times]

        def hook(**_: Any) -> None:
            if left[0]:
                left[0] -= 1
                raise error

        client = getattr(clients, service)()
        event = f"before-send.{client.meta.service_model.service_id.hyphenize()}.{operation}"
        client.meta.events.register_first(event, hook)
        self._undo.append(lambda: client.meta.events.unregister(event, hook))

    # The event source

    def deliver(self, seconds: float = 0) -> None:
        """That time passes, and the queue invokes the function with all that can be seen by then.

        A message that has to come again does so with the next call, once its time has come.
        """
        self.now += seconds
        for message in waiting(self.queue):
            message.visible_at = max(0, message.visible_at - seconds * 1000)
        seen: set[str] = set()
        while True:
            batch = (
                clients.sqs()
                .receive_message(
                    QueueUrl=self.queue, AttributeNames=["All"], MessageAttributeNames=["All"]
                )
                .get("Messages", [])
            )
            if not batch:
                return
            [message] = batch
            seen.add(message["MessageId"])
            if not self.invoke(message)["batchItemFailures"]:
                clients.sqs().delete_message(
                    QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"]
                )

    def invoke(self, message: Any) -> Any:
        attributes = {
            name: {"stringValue": one["StringValue"], "dataType": one["DataType"]}
            for name, one in message.get("MessageAttributes", {}).items()
        }
        record = {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": attributes,
            "eventSource": "aws:sqs",
        }
        return tell_people.handler({"Records": [record]}, None)

    # What was heard

    def events(self) -> list[dict[str, Any]]:
        """The events that a rule has got."""
        return [json.loads(one.body) for one in waiting(self._heard["rule"])]

    def mails(self) -> list[dict[str, Any]]:
        """What the topic has sent its subscriber."""
        return [json.loads(one.body) for one in waiting(self._heard["mail"])]

    def texts(self) -> list[str]:
        """What is to be read in Slack."""
        return [message["text"] for message in self.slack.messages()]

    def mark(self, key: str, channel: str) -> str:
        """What is kept of a thing that was told."""
        with contextlib.suppress(KeyError):
            item = clients.dynamodb().get_item(TableName=TABLE, Key={"pk": {"S": f"told#{key}"}})[
                "Item"
            ]
            return str(item[channel]["S"])
        return ""
