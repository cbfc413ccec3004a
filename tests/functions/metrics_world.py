"""The small AWS of world.py with what pushes container metrics, and Mackerel as a real server.

Messages are handed on as SQS and Lambda do it, in their order, with the clock going on by what they
are delayed. Instances answer Run Command with what the test says that their program prints.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Self

import requests
import yaml
from moto.backends import get_backend
from moto.logs.models import LogEvent

from containermetrics.store import MetricsStore
from runtime import clients, mackerel
from sandbox.mackerel import MackerelServer
from tests.functions.fleet import AwsError, answering
from tests.functions.world import ACCOUNT, REGION, World

KEY = "a-key-of-mackerel"
METRICS_TABLE, METRICS_PREFIX = "metrics", "/bluegreen/metrics"
BUCKET, DOCUMENT = "long-output", "bluegreen-metrics"
CONFIGURATION = {
    "cluster": "web",
    "source": "cgroups",
    "mackerel": {"service": "shop"},
}


@dataclass
class Instance:
    """A container instance as Run Command sees it. says: what its program prints; state: how the
    invocation stands. registered: with SSM. tagged: as the policy of the functions asks for.
    """

    instance_id: str
    says: str = ""
    state: str = "Success"
    errors: str = ""
    registered: bool = True
    tagged: bool = True


def printed(
    at: float, entries: Sequence[Mapping[str, Any]], problems: Sequence[str] = (), lines: int = 1
) -> str:
    """What the program on an instance prints: hosts/ecs_bluegreen_metrics.py."""
    head = {"v": 1, "at": at, "containers": len(entries), "lines": lines, "problems": problems}
    body = base64.b85encode(zlib.compress(json.dumps(list(entries)).encode())).decode()
    return f"{json.dumps(head)}\n{body}\n"


def entry(
    task: str, at: float, cpu_seconds: float, memory: int = 50_000_000, container: str = "web"
) -> dict[str, Any]:
    """One container in it."""
    return {
        "task": task,
        "family": "web",
        "revision": "1",
        "container": container,
        "id": "0123456789ab",
        "at": at,
        "c": {"cpu.total": cpu_seconds, "cpu.user": cpu_seconds, "cpu.system": 0},
        "g": {"memory.usage": memory, "memory.working_set": memory},
    }


@dataclass
class MetricsWorld(World):
    """mackerel: the stand-in, whose clock is the world's. instances: by id. sent: SendCommand.
    lose: which messages never come. times: how often the others do.
    """

    instances: dict[str, Instance] = field(default_factory=dict)
    sent: list[Mapping[str, Any]] = field(default_factory=list)
    lose: Callable[[Mapping[str, Any]], bool] = lambda _: False
    times: int = 1

    def build(self) -> Self:
        get_backend("sqs")[ACCOUNT][REGION].reset()
        get_backend("s3")[ACCOUNT]["aws"].reset()
        super().build()
        self.mackerel = MackerelServer(api_key=KEY, clock=lambda: self.now).start()
        self._hooks.append(self.mackerel.stop)
        self._resources()
        for instance_id in self.account.instances:
            self.instances[instance_id] = Instance(instance_id)
        for (service, operation), answers in self._run_command().items():
            self._hook("before-call", service, operation, answering(answers), first=False)
        self.set_metrics()
        return self

    def _resources(self) -> None:
        sqs = clients.sqs()
        collect = sqs.create_queue(QueueName="collect")["QueueUrl"]
        deliver = sqs.create_queue(QueueName="deliver.fifo", Attributes={"FifoQueue": "true"})[
            "QueueUrl"
        ]
        clients.dynamodb().create_table(
            TableName=METRICS_TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        )
        clients.s3().create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        clients.ssm().put_parameter(Name="/mackerel/key", Value=KEY, Type="SecureString")
        for name, value in {
            "METRICS_SITE": f"{ACCOUNT}.{REGION}",
            "METRICS_TABLE_NAME": METRICS_TABLE,
            "METRICS_PARAMETER_PREFIX": METRICS_PREFIX,
            "COLLECT_QUEUE_URL": collect,
            "DELIVER_QUEUE_URL": deliver,
            "METRICS_DOCUMENT": DOCUMENT,
            "METRICS_BUCKET": BUCKET,
            "MACKEREL_URL": self.mackerel.url,
            "MACKEREL_KEY_PARAMETER": "/mackerel/key",
            "POWERTOOLS_SERVICE_NAME": "ecs-bluegreen",
        }.items():
            self.monkeypatch.setenv(name, value)
        clock = SimpleNamespace(time=lambda: self.now)
        for module in ("push", "collect", "deliver"):
            self.monkeypatch.setattr(f"{module}_container_metrics.time", clock)
        # Nobody waits for Mackerel here, between attempts that fail.
        self.monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
        self.forget_warm_functions()

    def forget_warm_functions(self) -> None:
        """What an environment of Lambda remembers is gone, as after some time."""
        mackerel.keys.cache_clear()
        import_module("runtime.routers")._listener_of.cache_clear()

    # What people do

    def set_metrics(self, **changes: Any) -> None:
        """Store the metrics configuration of the cluster; changes: keys that differ."""
        clients.ssm().put_parameter(
            Name=f"{METRICS_PREFIX}/web",
            Value=yaml.safe_dump(CONFIGURATION | changes),
            Type="String",
            Overwrite=True,
        )

    def write_insights(self, minute: float, events: Sequence[Mapping[str, Any]]) -> None:
        """Events of Container Insights about a minute."""
        logs, group = clients.logs(), "/aws/ecs/containerinsights/web/performance"
        if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
            logs.create_log_group(logGroupName=group)
            logs.create_log_stream(logGroupName=group, logStreamName="agent")
        # moto refuses what is in the future of the machine's clock, where the world's is.
        stream = get_backend("logs")[ACCOUNT][REGION].groups[group].streams["agent"]
        at = int(minute * 1000)
        stream.events += [
            LogEvent(at, {"timestamp": at, "message": json.dumps({**event, "Timestamp": at})})
            for event in events
        ]

    # What AWS does

    def minute(self) -> None:
        """A schedule, and all that follows from it; then the clock is at the next minute."""
        began = self.now
        self.invoke("push_container_metrics", {})
        self.settle()
        self.now = max(self.now, began + 60)

    def settle(self) -> None:
        """Hand on all messages, the delayed ones when they are due."""
        waiting: list[tuple[float, int, str, str]] = []
        numbers = itertools.count()
        while True:
            for queue, module in (("collect", "collect"), ("deliver.fifo", "deliver")):
                messages = self._sqs.get_queue(queue)._messages
                for message in messages:
                    delay = (message.delayed_until - message.sent_timestamp) / 1000
                    due = self.now + delay
                    waiting.append(
                        (due, next(numbers), f"{module}_container_metrics", message.body)
                    )
                messages.clear()
            if not waiting:
                return
            waiting.sort()
            due, _, module, body = waiting.pop(0)
            self.now = max(self.now, due)
            for _ in range(0 if self.lose(json.loads(body)) else self.times):
                self.invoke(module, {"Records": [{"body": body}]})

    @property
    def _sqs(self) -> Any:
        return get_backend("sqs")[ACCOUNT][REGION]

    def invoke(self, module: str, event: Mapping[str, Any]) -> Any:
        """Invoke a function as Lambda does."""
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)
        return import_module(module).handler(event, context)

    def _run_command(self) -> dict[tuple[str, str], Any]:
        return {
            ("ssm", "DescribeInstanceInformation"): self._known,
            ("ssm", "SendCommand"): self._send,
            ("ssm", "ListCommandInvocations"): self._list,
            ("ssm", "GetCommandInvocation"): self._get,
        }

    def _known(self, body: Mapping[str, Any]) -> dict[str, Any]:
        (chosen,) = (one["Values"] for one in body["Filters"])
        known = [one for one in chosen if self.instances[one].registered]
        return {"InstanceInformationList": [{"InstanceId": one} for one in known]}

    def _send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        for instance_id in body["InstanceIds"]:
            if not self.instances[instance_id].registered:
                raise AwsError("InvalidInstanceId", f"{instance_id} is not in a valid state")
            if not self.instances[instance_id].tagged:
                raise AwsError("AccessDeniedException", f"not authorized on {instance_id}")
        self.sent.append(body)
        return {"Command": {"CommandId": f"00000000-0000-4000-8000-{len(self.sent):012d}"}}

    def _list(self, body: Mapping[str, Any]) -> dict[str, Any]:
        told = self.sent[int(body["CommandId"][-12:]) - 1]["InstanceIds"]
        return {
            "CommandInvocations": [
                {"InstanceId": one, "Status": self.instances[one].state} for one in told
            ]
        }

    def _get(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if body["InstanceId"] not in self.sent[int(body["CommandId"][-12:]) - 1]["InstanceIds"]:
            raise AwsError("InvocationDoesNotExist", "")
        instance = self.instances[body["InstanceId"]]
        return {
            "CommandId": body["CommandId"],
            "InstanceId": instance.instance_id,
            "Status": instance.state,
            "StatusDetails": instance.state,
            "StandardOutputContent": instance.says[:24_000],
            "StandardErrorContent": instance.errors,
        }

    # Looking

    @property
    def kept(self) -> MetricsStore:
        """What the functions have kept."""
        return MetricsStore(clients.dynamodb(), METRICS_TABLE)

    def graph_names(self) -> set[str]:
        """The graph definitions that Mackerel has."""
        return set(self.mackerel.organization.graph_definitions())

    def get(self, path: str, **query: Any) -> Any:
        """Ask Mackerel, as people's programs do."""
        answer = requests.get(
            self.mackerel.url + path, params=query, headers={"X-Api-Key": KEY}, timeout=5
        )
        answer.raise_for_status()
        return answer.json()

    def mackerel_hosts(self) -> dict[str, Any]:
        """Mackerel's hosts by custom identifier, in whatever state."""
        states = ["working", "standby", "maintenance", "poweroff"]
        return {
            host["customIdentifier"]: host
            for host in self.get("/api/v0/hosts", status=states)["hosts"]
        }

    def series(self, service: str, name: str) -> dict[int, float]:
        """Minute → value of a metric of an ECS service's host."""
        host = self.mackerel_hosts()[f"ecs-bluegreen.123456789012.eu-west-1.web.{service}"]
        values = self.get(
            f"/api/v0/hosts/{host['id']}/metrics", name=name, **{"from": 0, "to": int(self.now)}
        )
        return {one["time"]: one["value"] for one in values["metrics"]}

    def totals(self, name: str) -> dict[int, float]:
        """Minute → value of a service metric, once Mackerel has let the last ones come: it takes
        those of a service once a minute.
        """
        for _ in range(2):
            self.now += 61
            body = json.dumps({"cluster": "web"})
            self.invoke("deliver_container_metrics", {"Records": [{"body": body}]})
        values = self.get(
            "/api/v0/services/shop/metrics", name=name, **{"from": 0, "to": int(self.now)}
        )
        return {one["time"]: one["value"] for one in values["metrics"]}
