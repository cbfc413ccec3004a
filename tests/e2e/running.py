"""A sandbox in a process of its own, as a test sees it: through AWS APIs and the control path."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import requests
import yaml
from botocore.config import Config

from sandbox.load import Load, Result

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 120.0
# The template says 5 minutes.
SWEEP_SECONDS = 4.0

# The example's times, shortened: what is waited for stays the same.
QUICK = {
    # Tests start their deployments themselves, but for those of the trigger.
    "trigger": "null",
    "health.interval_seconds": 1,
    "health.deadline_seconds": 25,
    "probe.consecutive": 3,
    "probe.timeout_seconds": 4,
    "bake.seconds": 1,
    "bake.interval_seconds": 1,
    "drain.seconds": 1,
    "drain.margin_seconds": 1,
    "drain.interval_seconds": 1,
    "template.SettleSeconds": 2,
    "infrastructure.DeregistrationDelaySeconds": 1,
}


@dataclass(frozen=True)
class Ended:
    """An execution that has ended."""

    name: str
    status: str
    error: str
    cause: str
    states: list[str]

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCEEDED"


@dataclass
class Running:
    """``network`` is its loopback /24; ``settings`` change the service configuration, ``options``
    are further ones of ``sandbox up``.
    """

    build_dir: Path
    network: str
    settings: dict[str, Any] = field(default_factory=dict)
    options: Sequence[str] = ()
    _process: subprocess.Popen[str] | None = None
    _about: dict[str, Any] = field(default_factory=dict)
    _names: int = 0

    def start(self) -> None:
        command = [sys.executable, "-m", "sandbox", "up", "--network", self.network]
        command += ["--build-dir", str(self.build_dir), *self.options]
        for name, value in {**QUICK, **self.settings}.items():
            command += ["--set", f"{name}={value}"]
        self.build_dir.mkdir(parents=True, exist_ok=True)
        with (self.build_dir / "output.txt").open("w") as output:
            temporary = self.build_dir / "tmp"
            temporary.mkdir(exist_ok=True)
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(temporary)},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                # A test run that is killed takes its sandbox with it.
                preexec_fn=_end_with_parent,
            )
        state = self.build_dir / "sandbox.json"
        deadline = time.monotonic() + READY_SECONDS
        while not state.exists():
            said = (self.build_dir / "output.txt").read_text()
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        self._about = json.loads(state.read_text())
        self.push("v1")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self._process
        self._process.send_signal(how)
        return self._process.wait(30)

    # What people and tests do

    def push(self, tag: str, **how: str) -> str:
        """Returns the digest."""
        return str(self.control("POST", "push", {"image": f"web:{tag}", **how})["digest"])

    def deploy(self, tag: str, **request: Any) -> Ended:
        return self.wait(self.start_execution(self.request(tag, **request)))

    def request(self, tag: str, **request: Any) -> dict[str, Any]:
        return {"action": "deploy", "service": "web", "images": {"web": tag}, **request}

    def roll_back(self, deployment_id: str) -> Ended:
        return self.wait(
            self.start_execution({"action": "rollback", "deployment_id": deployment_id})
        )

    def start_execution(self, request: dict[str, Any], name: str | None = None) -> str:
        """Start an execution; returns its ARN."""
        self._names += 1
        answer = self.client("stepfunctions").start_execution(
            stateMachineArn=self._about["state_machine_arn"],
            name=name or f"test-{self._names}",
            input=json.dumps(request),
        )
        return str(answer["executionArn"])

    def wait(self, arn: str, seconds: float = 90) -> Ended:
        """Wait until an execution has ended."""
        deadline = time.monotonic() + seconds
        while True:
            described = self.client("stepfunctions").describe_execution(executionArn=arn)
            if described["status"] != "RUNNING":
                return Ended(
                    name=described["name"],
                    status=described["status"],
                    error=described.get("error", ""),
                    cause=described.get("cause", ""),
                    states=self.states(arn),
                )
            assert time.monotonic() < deadline, f"{arn} still runs: {self.states(arn)[-3:]}"
            time.sleep(0.1)

    def states(self, arn: str) -> list[str]:
        """The states that an execution has entered, in order."""
        events = self.client("stepfunctions").get_execution_history(
            executionArn=arn, maxResults=1000
        )["events"]
        return [
            event["stateEnteredEventDetails"]["name"]
            for event in events
            if "stateEnteredEventDetails" in event
        ]

    def wait_for_state(self, arn: str, state: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while state not in self.states(arn):
            assert time.monotonic() < deadline, f"{state} is not entered: {self.states(arn)}"
            time.sleep(0.02)

    def executions(self) -> list[dict[str, Any]]:
        return list(
            self.client("stepfunctions").list_executions(
                stateMachineArn=self._about["state_machine_arn"], maxResults=1000
            )["executions"]
        )

    def stop_execution(self, arn: str) -> None:
        self.client("stepfunctions").stop_execution(executionArn=arn)

    def wait_until_unlocked(self, seconds: float = 60) -> None:
        """Until nobody holds the lock and no execution runs any more; the schedule goes on."""
        deadline = time.monotonic() + seconds
        next_sweep = time.monotonic() + SWEEP_SECONDS
        while "held" in self.lock() or any(one["status"] == "RUNNING" for one in self.executions()):
            assert time.monotonic() < deadline, (self.lock(), self.executions()[:3])
            if time.monotonic() > next_sweep:
                self.sweep()
                next_sweep = time.monotonic() + SWEEP_SECONDS
            time.sleep(0.1)

    def wait_until_warm(self, seconds: float = 60) -> None:
        """Until the deployment that holds the lock offers its old colour to the next one."""
        deadline = time.monotonic() + seconds
        while "warm" not in self.lock():
            assert time.monotonic() < deadline, self.lock()
            time.sleep(0.05)

    def assert_faults_hit(self) -> None:
        """A fault that nobody ran into would show nothing."""
        faults = [one for one in self.control("GET", "faults") if one["name"] == "api_error"]
        assert faults
        assert [one for one in faults if not one["hits"]] == []

    def sweep(self) -> None:
        self.control("POST", "sweep", {})

    def mackerel_statuses(self, *clusters: str) -> dict[str, str]:
        """Custom identifier → status of the hosts that Mackerel has after a run of the pusher.

        Nothing of it stays but in Mackerel.
        """
        ssm = self.client("ssm")
        names = [f"/bluegreen/metrics/{cluster}" for cluster in clusters]
        for name, cluster in zip(names, clusters, strict=True):
            configuration = {
                "cluster": cluster,
                "source": "container-insights",
                "mackerel": {"service": "tests"},
            }
            ssm.put_parameter(
                Name=name, Value=yaml.safe_dump(configuration), Type="String", Overwrite=True
            )
        try:
            # The same sweep has StartDeployment look at what is live, by every kind of router.
            with self.configured({"trigger": {"tags": ["nobody-pushes-this"]}}):
                self.sweep()
            assert self.control("POST", "settle", {"seconds": 25})["settled"]
        finally:
            ssm.delete_parameters(Names=names)
        key = ssm.get_parameter(Name="/bluegreen/mackerel/api-key", WithDecryption=True)
        found = requests.get(
            f"{self._about['mackerel_url']}/api/v0/hosts",
            params={"status": ["working", "standby", "maintenance", "poweroff"]},
            headers={"X-Api-Key": key["Parameter"]["Value"]},
            timeout=5,
        )
        return {host["customIdentifier"]: host["status"] for host in found.json()["hosts"]}

    def fault(self, name: str, **what: Any) -> None:
        self.control("POST", "faults", {"name": name, **what})

    @contextmanager
    def faults(self, name: str, **what: Any) -> Iterator[None]:
        self.fault(name, **what)
        try:
            yield
        finally:
            self.control("DELETE", "faults", {})

    @contextmanager
    def configured(self, settings: dict[str, Any]) -> Iterator[None]:
        """Another service configuration for a while, by dotted path: {"drain.seconds": 5}."""
        ssm = self.client("ssm")
        name = "/bluegreen/services/web"
        text = ssm.get_parameter(Name=name)["Parameter"]["Value"]
        document = yaml.safe_load(text)
        for path, value in settings.items():
            *sections, key = path.split(".")
            place = document
            for section in sections:
                place = place[section]
            place[key] = value
        ssm.put_parameter(Name=name, Value=yaml.safe_dump(document), Overwrite=True)
        try:
            yield
        finally:
            ssm.put_parameter(Name=name, Value=text, Overwrite=True)

    @contextmanager
    def deregistration_delay(self, color: str, seconds: int) -> Iterator[None]:
        """Targets of a colour take so long to leave, for a while."""
        elbv2, arn = self.client("elbv2"), self.target_group(color)
        key = "deregistration_delay.timeout_seconds"
        before = {
            one["Key"]: one["Value"]
            for one in elbv2.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
        }[key]

        def write(value: str) -> None:
            elbv2.modify_target_group_attributes(
                TargetGroupArn=arn, Attributes=[{"Key": key, "Value": value}]
            )

        write(str(seconds))
        try:
            yield
        finally:
            write(before)

    def wait_for_target_states(self, color: str, states: set[str], seconds: float = 60) -> None:
        """Until the targets of a colour have these states."""
        deadline = time.monotonic() + seconds
        while (found := self.target_states(color)) != states:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def target_states(self, color: str) -> set[str]:
        targets = self.client("elbv2").describe_target_health(
            TargetGroupArn=self.target_group(color)
        )["TargetHealthDescriptions"]
        return {one["TargetHealth"]["State"] for one in targets}

    @contextmanager
    def under_load(self, url: str = "") -> Iterator[None]:
        """Requests all the time, through the load balancer unless a URL is given; at the end none
        may have failed.
        """
        load = Load(url or self.url, rate=100)
        load.start()
        try:
            yield
        finally:
            result = load.stop()
        assert_nothing_lost(result)

    # The state of the world

    @property
    def url(self) -> str:
        return str(self._about["url"])

    @property
    def endpoint(self) -> str:
        return str(self._about["aws_endpoint"])

    def about(self, key: str) -> Any:
        return self._about[key]

    def weights(self, port: int = 8080) -> dict[str, int]:
        """Weight per colour of the listener's default action."""
        elbv2 = self.client("elbv2")
        balancer = elbv2.describe_load_balancers(Names=["web"])["LoadBalancers"][0]
        listeners = elbv2.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])
        action = next(
            listener["DefaultActions"][0]
            for listener in listeners["Listeners"]
            if listener["Port"] == port
        )
        return {
            group["TargetGroupArn"].split("/")[1].removeprefix("web-"): group["Weight"]
            for group in action["ForwardConfig"]["TargetGroups"]
        }

    def set_weights(self, weights: dict[str, int]) -> None:
        """Somebody else moves the traffic."""
        elbv2 = self.client("elbv2")
        balancer = elbv2.describe_load_balancers(Names=["web"])["LoadBalancers"][0]
        listeners = elbv2.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])
        elbv2.modify_listener(
            ListenerArn=next(
                one["ListenerArn"] for one in listeners["Listeners"] if one["Port"] == 8080
            ),
            DefaultActions=[
                {
                    "Type": "forward",
                    "ForwardConfig": {
                        "TargetGroups": [
                            {"TargetGroupArn": self.target_group(color), "Weight": weight}
                            for color, weight in weights.items()
                        ]
                    },
                }
            ],
        )

    def target_group(self, color: str) -> str:
        groups = self.client("elbv2").describe_target_groups(Names=[f"web-{color}"])
        return str(groups["TargetGroups"][0]["TargetGroupArn"])

    def live(self) -> str:
        (color,) = (color for color, weight in self.weights().items() if weight)
        return color

    def ecs_service(self, color: str) -> dict[str, Any]:
        return dict(
            self.client("ecs").describe_services(cluster="web", services=[f"web-{color}"])[
                "services"
            ][0]
        )

    def counts(self) -> dict[str, tuple[int, int]]:
        """Desired and running tasks per colour."""
        services = {color: self.ecs_service(color) for color in ("blue", "green")}
        return {
            color: (service["desiredCount"], service["runningCount"])
            for color, service in services.items()
        }

    def revisions(self) -> list[str]:
        return list(
            self.client("ecs").list_task_definitions(familyPrefix="web")["taskDefinitionArns"]
        )

    def scaling(self) -> dict[str, dict[str, bool]]:
        """What is suspended per colour."""
        targets = self.client("application-autoscaling").describe_scalable_targets(
            ServiceNamespace="ecs"
        )["ScalableTargets"]
        return {
            target["ResourceId"].rpartition("-")[2]: target["SuspendedState"] for target in targets
        }

    def world(self) -> dict[str, Any]:
        """All that a rollback has to restore."""
        services = {color: self.ecs_service(color) for color in ("blue", "green")}
        return {
            "weights": self.weights(),
            "test weights": self.weights(8081),
            "services": {
                color: (one["taskDefinition"], one["desiredCount"], one["runningCount"])
                for color, one in services.items()
            },
            "scaling": self.scaling(),
        }

    def wait_for_world(self, wanted: dict[str, Any], seconds: float = 10) -> None:
        """Tasks that were restored may still be starting."""
        deadline = time.monotonic() + seconds
        while (found := self.world()) != wanted:
            assert time.monotonic() < deadline, (found, wanted)
            time.sleep(0.2)

    def stop_idle(self) -> None:
        """End what a test has left on the idle colour."""
        (idle,) = (color for color, weight in self.weights().items() if not weight)
        ecs = self.client("ecs")
        ecs.update_service(cluster="web", service=f"web-{idle}", desiredCount=0)
        for _ in range(100):
            tasks = [
                arn
                for status in ("RUNNING", "STOPPED")
                for arn in ecs.list_tasks(
                    cluster="web", serviceName=f"web-{idle}", desiredStatus=status
                )["taskArns"]
            ]
            described = ecs.describe_tasks(cluster="web", tasks=tasks)["tasks"] if tasks else []
            if all(task["lastStatus"] == "STOPPED" for task in described):
                return
            time.sleep(0.1)
        raise AssertionError(f"tasks of {idle} do not stop")

    def answer(self) -> Mapping[str, str]:
        """Headers of an answer through the load balancer."""
        response = requests.get(self.url, timeout=5)
        response.raise_for_status()
        return response.headers

    def lock(self) -> dict[str, Any]:
        return self._item("lock#web")

    def record(self, deployment_id: str) -> dict[str, Any]:
        return self._item(f"deployment#{deployment_id}")

    def history(self, service: str = "web") -> list[dict[str, Any]]:
        """The deployments of a service, newest first, as DynamoDB's index has them."""
        found = self.client("dynamodb").query(
            TableName=self._table(),
            IndexName="by-service",
            KeyConditionExpression="service = :service",
            ExpressionAttributeValues={":service": {"S": service}},
            ScanIndexForward=False,
        )["Items"]
        return [{key: _plain(value) for key, value in item.items()} for item in found]

    def operations(self) -> list[dict[str, str]]:
        return list(self.control("GET", "operations"))

    def _item(self, pk: str) -> dict[str, Any]:
        item = (
            self.client("dynamodb")
            .get_item(TableName=self._table(), Key={"pk": {"S": pk}})
            .get("Item", {})
        )
        return {key: next(iter(value.values())) for key, value in item.items()}

    def _table(self) -> str:
        tables = self.client("dynamodb").list_tables()["TableNames"]
        (table,) = (name for name in tables if "DeploymentsTable" in name)
        return str(table)

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        response = requests.request(
            method, f"{self.endpoint}/_sandbox/{path}", json=body, timeout=READY_SECONDS
        )
        response.raise_for_status()
        return response.json()

    def client(self, service: str) -> Any:
        return _client(service, self.endpoint)


@cache
def _client(service: str, endpoint: str) -> Any:
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=endpoint,
        region_name="ap-northeast-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 3}, max_pool_connections=20),
    )


def _plain(value: Mapping[str, Any]) -> Any:
    """An attribute of DynamoDB as Python has it; numbers as texts."""
    ((kind, inner),) = value.items()
    match kind:
        case "L":
            return [_plain(one) for one in inner]
        case "M":
            return {key: _plain(one) for key, one in inner.items()}
        case _:
            return inner


def _end_with_parent() -> None:
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def assert_nothing_lost(result: Result) -> None:
    assert result.total > 0
    assert result.failed == 0, result


def left_over(network: str) -> list[str]:
    """Processes and ports that belong to a sandbox's loopback network."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(entry.name) != os.getpid() and re.search(
            rf"\b{re.escape(network)}\.\d", command + environment
        ):
            found.append(f"process {entry.name}: {command}")
    first = ".".join(network.split("."))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        numbers = [str(int(address[i : i + 2], 16)) for i in (6, 4, 2, 0)]
        if state == "0A" and ".".join(numbers).startswith(first + "."):
            found.append(f"port {'.'.join(numbers)}:{int(address[9:], 16)}")
    return found
