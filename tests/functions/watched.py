"""What a deployment is watched by, for worlds of world.py: CloudWatch, and Mackerel as a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal, Self

import pytest
from moto.backends import get_backend
from moto.cloudwatch.models import cloudwatch_backends

from bluegreen.color import Color
from runtime import clients, mackerel
from sandbox import cloudwatch
from sandbox.mackerel import MackerelServer
from tests.functions.world import ACCOUNT, REGION, World

KEY = "a-key-of-mackerel"
State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]


class Watched:
    """mackerel: the stand-in, with the world's clock."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._world = world
        cloudwatch.install()
        cloudwatch_backends.pop(ACCOUNT, None)
        for service in ("cloudwatch", "sqs"):
            get_backend(service)[ACCOUNT][REGION].reset()
        clients.cloudwatch.cache_clear()
        clients.cloudwatch_once.cache_clear()
        self.mackerel = MackerelServer(api_key=KEY, clock=lambda: world.now)
        clients.ssm().put_parameter(Name="/mackerel/key", Value=KEY, Type="SecureString")
        self.queue = clients.sqs().create_queue(
            QueueName="announcements.fifo", Attributes={"FifoQueue": "true"}
        )["QueueUrl"]
        monkeypatch.setenv("MACKEREL_KEY_PARAMETER", "/mackerel/key")
        monkeypatch.setenv("ANNOUNCEMENTS_QUEUE_URL", self.queue)
        # Nobody waits for Mackerel here, between attempts that fail.
        monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
        mackerel.keys.cache_clear()
        self._monkeypatch = monkeypatch

    def __enter__(self) -> Self:
        self.mackerel.start()
        self._monkeypatch.setenv("MACKEREL_URL", self.mackerel.url)
        return self

    def __exit__(self, *_: object) -> None:
        self.mackerel.stop()

    # CloudWatch

    def has_alarm(self, name: str, *, composite: bool = False) -> None:
        """A new alarm, which is OK."""
        if composite:
            clients.cloudwatch().put_composite_alarm(AlarmName=name, AlarmRule="ALARM(other)")
        else:
            clients.cloudwatch().put_metric_alarm(
                AlarmName=name,
                Namespace="shop",
                MetricName=name,
                Statistic="Sum",
                Period=60,
                EvaluationPeriods=1,
                Threshold=1,
                ComparisonOperator="GreaterThanThreshold",
            )
        self.alarm_is("OK", name)

    def alarm_is(self, state: State, name: str = "web-5xx", reason: str = "so it is") -> None:
        """Its state changes now, by the world's clock."""
        clients.cloudwatch().set_alarm_state(AlarmName=name, StateValue=state, StateReason=reason)
        alarm: Any = get_backend("cloudwatch")[ACCOUNT][REGION].alarms[name]
        alarm.state_transitioned_timestamp = datetime.fromtimestamp(self._world.now, UTC)

    def reports(
        self,
        color: Color,
        at: float,
        requests: int,
        errors: int = 0,
        seconds: float | None = 0.08,
        unconnected: int = 0,
    ) -> None:
        """What ALB says of a colour's minute that begins then."""
        balancer = self._world.listener.split(":listener/")[1].rsplit("/", 1)[0]
        group = self._world.groups[color].rsplit(":", 1)[1]
        values = {
            "RequestCount": requests,
            "HTTPCode_Target_5XX_Count": errors or None,
            "TargetConnectionErrorCount": unconnected or None,
            "TargetResponseTime": seconds,
        }
        clients.cloudwatch().put_metric_data(
            Namespace="AWS/ApplicationELB",
            MetricData=[
                {
                    "MetricName": name,
                    "Dimensions": [
                        {"Name": "LoadBalancer", "Value": balancer},
                        {"Name": "TargetGroup", "Value": group},
                    ],
                    "Timestamp": datetime.fromtimestamp(at, UTC),
                    "Value": value,
                }
                for name, value in values.items()
                if value is not None
            ],
        )

    # What people are told

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The announcements of a kind that have come to the queue since the last look."""
        answer = clients.sqs().receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10)
        messages = answer.get("Messages", [])
        for message in messages:
            clients.sqs().delete_message(
                QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"]
            )
        found = [json.loads(message["Body"]) for message in messages]
        return [one for one in found if one["kind"] == kind]
