"""A small AWS in process: one service "web" of examples/shifted-ports, blue live with two tasks.

moto answers the calls of real botocore clients. Where it is weaker than AWS, ``_strengthen`` makes
it behave: revisions are listed newest first, tasks belong to a service and stay in the state they
were put in, and a target group's health is what the test says.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Self

import boto3
import pytest
import yaml
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
from moto.backends import get_backend
from moto.core.models import botocore_stubber
from moto.ecs.models import EC2ContainerServiceBackend, Task, ecs_backends
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus
from moto.moto_api import state_manager

from bluegreen.color import Color
from bluegreen.deployment import Deployment
from bluegreen.store import Lock, Record, Store
from runtime import clients

ACCOUNT, REGION = "123456789012", "eu-west-1"
BLUE, GREEN = Color.BLUE, Color.GREEN
EXAMPLE = Path(__file__).parents[2] / "examples" / "shifted-ports" / "service.yaml"
TABLE, PREFIX = "deployments", "/bluegreen/services"
LEASE, SETTLE = 600, 35
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:deployer"
START = 1_800_000_000.0
DEFINITION: dict[str, Any] = {
    "family": "web",
    "containerDefinitions": [
        {
            "name": "web",
            "image": "web:v1",
            "cpu": 128,
            "memory": 256,
            "essential": True,
            "portMappings": [{"containerPort": 8000, "hostPort": 18081, "protocol": "tcp"}],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {"awslogs-group": "/ecs/web", "awslogs-stream-prefix": "web"},
            },
        }
    ],
    "tags": [{"key": "team", "value": "shop"}],
}
_USED: list[Any] = [
    "application-autoscaling",
    "dynamodb",
    "ecr",
    "ecs",
    "elbv2",
    "logs",
    "ssm",
    "stepfunctions",
]
Fault = Literal[
    "throttle",
    "error500",
    "denied",
    "timeout",
    "lost_answer",
    "busy",
    "concurrent_update",
    "concurrent_revision",
    "invalid_document",
]


class Paced:
    """A clock that only pauses move on."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


# What Lambda tells a function of its invocation, as far as functions ask.
CONTEXT: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)


def execution_arn(name: str) -> str:
    return f"{MACHINE.replace(':stateMachine:', ':execution:')}:{name}"


@dataclass(frozen=True)
class Account:
    """What all tests share, because moto takes long to make it and no test changes it."""

    subnets: list[str]
    vpc: str
    instances: list[str]
    role: str

    @classmethod
    def make(cls) -> Account:
        ec2, iam = boto3.client("ec2", region_name=REGION), boto3.client("iam", region_name=REGION)
        made = ec2.run_instances(ImageId="ami-12345678", MinCount=3, MaxCount=3)["Instances"]
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        return cls(
            subnets=[one["SubnetId"] for one in ec2.describe_subnets()["Subnets"][:2]],
            vpc=ec2.describe_vpcs()["Vpcs"][0]["VpcId"],
            instances=[one["InstanceId"] for one in made],
            role=iam.create_role(RoleName="states", AssumeRolePolicyDocument=trust)["Role"]["Arn"],
        )


@dataclass
class World:
    """example: the service configuration. now: the functions' clock. health: target states per
    colour. target_prefix: of the ids of targets, which are addresses unless it begins with "i-".
    """

    monkeypatch: pytest.MonkeyPatch
    account: Account
    example: ClassVar[Path] = EXAMPLE
    now: float = START
    target_prefix: str = "10.0.0"
    health: dict[Color, list[str]] = field(default_factory=dict)
    groups: dict[Color, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    pushed: list[str] = field(default_factory=list)
    listener: str = ""
    test_listener: str = ""
    calls: list[str] = field(default_factory=list)
    _hooks: list[Callable[[], None]] = field(default_factory=list)

    # Making it

    def build(self) -> Self:
        for service in _USED:
            get_backend(service)[ACCOUNT][REGION].reset()
        self._environment()
        self._strengthen()
        self._network()
        self._cluster()
        for tag in ("v1", "v2"):
            self.push(tag)
        self._table()
        self.configure()
        self._state_machine()
        self.health = {BLUE: ["healthy", "healthy"], GREEN: []}
        return self

    def close(self) -> None:
        for undo in self._hooks:
            undo()

    def _environment(self) -> None:
        for name, value in {
            "TABLE_NAME": TABLE,
            "LEASE_SECONDS": str(LEASE),
            "SETTLE_SECONDS": str(SETTLE),
            "SERVICE_PARAMETER_PREFIX": PREFIX,
            "STATE_MACHINE_ARN": MACHINE,
            "RELEASE_EXECUTIONS": MACHINE.replace(":stateMachine:", ":execution:"),
        }.items():
            self.monkeypatch.setenv(name, value)
        clock = SimpleNamespace(time=lambda: self.now)
        self.monkeypatch.setattr("runtime.invocation.time", clock)
        self.monkeypatch.setattr("recover_deployment.time", clock)
        # Its pauses take no time, and each of them is a second for it.
        self.monkeypatch.setattr("runtime.announcements.time", Paced())
        # botocore waits between its own attempts: not here.
        self.monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))

    def _strengthen(self) -> None:
        state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})
        backend = EC2ContainerServiceBackend
        listed, found = backend.list_task_definitions, backend.list_tasks

        def newest_first(self: Any, *args: Any, **more: Any) -> list[str]:
            arns = listed(self, *args, **more)
            return sorted(arns, key=lambda arn: int(arn.rsplit(":", 1)[1]), reverse=True)

        def of_service(self: Any, *args: Any) -> list[Task]:
            tasks = found(self, *args)
            return [one for one in tasks if not args[4] or one.group == f"service:{args[4]}"]

        def target_health(_: Any, arn: str, _targets: Any) -> list[FakeHealthStatus]:
            return [
                FakeHealthStatus(
                    f"{self.target_prefix}.{number}",
                    "18081",
                    None,
                    state,
                    None if state == "healthy" else "Target.FailedHealthChecks",
                )
                for number, state in enumerate(self.health[self._color(arn)])
            ]

        def deregister(_: Any, arn: str, targets: list[dict[str, Any]]) -> None:
            for target in targets:
                self.health[self._color(arn)][int(target["Id"].rsplit(".", 1)[1])] = "draining"

        def register(_: Any, arn: str, targets: list[dict[str, Any]]) -> None:
            for target in targets:
                number = int(target["Id"].rsplit(".", 1)[1])
                if self.health[self._color(arn)][number] == "draining":
                    assert target["Id"].startswith("i-"), "an address has to wait"
                    self.health[self._color(arn)][number] = "initial"

        self.monkeypatch.setattr(backend, "list_task_definitions", newest_first)
        self.monkeypatch.setattr(backend, "list_tasks", of_service)
        self.monkeypatch.setattr(ELBv2Backend, "describe_target_health", target_health)
        self.monkeypatch.setattr(ELBv2Backend, "deregister_targets", deregister)
        self.monkeypatch.setattr(ELBv2Backend, "register_targets", register)

    def _color(self, group_arn: str) -> Color:
        return next(color for color in Color if self.groups[color] == group_arn)

    def _network(self) -> None:
        elbv2 = clients.elbv2()
        balancer = elbv2.create_load_balancer(Name="web", Subnets=self.account.subnets)[
            "LoadBalancers"
        ][0]
        for color in Color:
            self.groups[color] = elbv2.create_target_group(
                Name=f"web-{color}",
                Protocol="HTTP",
                Port=80,
                VpcId=self.account.vpc,
                TargetType="ip",
            )["TargetGroups"][0]["TargetGroupArn"]
        arn = balancer["LoadBalancerArn"]
        self.listener = self._listener(arn, 8080, {BLUE: 100, GREEN: 0})
        self.test_listener = self._listener(arn, 8081, {BLUE: 0, GREEN: 100})

    def _listener(self, balancer: str, port: int, weights: Mapping[Color, int]) -> str:
        return clients.elbv2().create_listener(
            LoadBalancerArn=balancer,
            Protocol="HTTP",
            Port=port,
            DefaultActions=[self.forward(weights)],
        )["Listeners"][0]["ListenerArn"]

    def forward(self, weights: Mapping[Color, int], **more: Any) -> Any:
        groups = [
            {"TargetGroupArn": self.groups[color], "Weight": weight}
            for color, weight in weights.items()
        ]
        return {"Type": "forward", "ForwardConfig": {"TargetGroups": groups} | more}

    def _cluster(self) -> None:
        ecs = clients.ecs()
        ecs.create_cluster(clusterName="web")
        first = ecs.register_task_definition(**DEFINITION)["taskDefinition"]["taskDefinitionArn"]
        for color in Color:
            ecs.create_service(
                cluster="web",
                serviceName=f"web-{color}",
                taskDefinition=first,
                desiredCount=0,
                launchType="EC2",
                loadBalancers=[{"targetGroupArn": self.groups[color], "containerPort": 8000}],
            )
        for instance in self.account.instances:
            self.backend.register_container_instance("web", instance)
        self.scale(BLUE, 2)

    def _table(self) -> None:
        clients.dynamodb().create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "held", "AttributeType": "S"},
                {"AttributeName": "lease_expires_at", "AttributeType": "N"},
                {"AttributeName": "service", "AttributeType": "S"},
                {"AttributeName": "started_at", "AttributeType": "N"},
            ],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "held-locks",
                    "KeySchema": [
                        {"AttributeName": "held", "KeyType": "HASH"},
                        {"AttributeName": "lease_expires_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                },
                {
                    "IndexName": "by-service",
                    "KeySchema": [
                        {"AttributeName": "service", "KeyType": "HASH"},
                        {"AttributeName": "started_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                },
            ],
        )

    def _state_machine(self) -> None:
        clients.stepfunctions().create_state_machine(
            name="deployer",
            roleArn=self.account.role,
            definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
        )

    # What people and other programs do

    def configure(self, **sections: Any) -> None:
        """Store the example's service configuration, some sections of it merged with others."""
        document = copy.deepcopy(_read(self.example))
        for name, values in sections.items():
            merged = isinstance(values, dict)
            document[name] = document.get(name, {}) | values if merged else values
        clients.ssm().put_parameter(
            Name=f"{PREFIX}/web",
            Value=yaml.safe_dump({key: one for key, one in document.items() if one is not None}),
            Type="String",
            Overwrite=True,
        )

    def push(self, tag: str) -> str:
        """Push an image, another one for every tag and every push; returns its digest."""
        ecr = clients.ecr()
        with contextlib.suppress(ecr.exceptions.RepositoryAlreadyExistsException):
            ecr.create_repository(repositoryName="web")
        self.pushed.append(tag)
        number = len(self.pushed)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {"digest": f"sha256:{number:064x}"},
                "layers": [],
            }
        )
        image = ecr.put_image(
            repositoryName="web",
            imageManifest=manifest,
            imageTag=tag,
            imageDigest=f"sha256:{number:064x}",
        )["image"]
        self.digests[tag] = image["imageId"]["imageDigest"]
        return self.digests[tag]

    def set_weights(self, weights: Mapping[Color, int]) -> None:
        """Another hand on the listener."""
        clients.elbv2().modify_listener(
            ListenerArn=self.listener, DefaultActions=[self.forward(weights)]
        )

    def scale(self, color: Color, count: int) -> None:
        """Set a service's desired count; ECS reaches it at once."""
        cluster, service = self.place(color)
        clients.ecs().update_service(cluster=cluster, service=service, desiredCount=count)

    def scalable(self, color: Color, *, suspended: bool) -> None:
        clients.application_autoscaling().register_scalable_target(
            ServiceNamespace="ecs",
            ResourceId="service/{}/{}".format(*self.place(color)),
            ScalableDimension="ecs:service:DesiredCount",
            MinCapacity=1,
            MaxCapacity=9,
            SuspendedState={
                "DynamicScalingInSuspended": suspended,
                "DynamicScalingOutSuspended": suspended,
                "ScheduledScalingSuspended": suspended,
            },
        )

    def add_task(self, color: Color, *, started_by: str = "other", **state: Any) -> Task:
        """A task of a colour's service; state: attributes of moto's Task."""
        cluster, service = self.place(color)
        [task] = self.backend.run_task(
            cluster_str=cluster,
            task_definition_str=self.service(color)["taskDefinition"],
            count=1,
            overrides=None,
            started_by=started_by,
            tags=None,
            launch_type="FARGATE",
            group=f"service:{service}",
        )
        for name, value in state.items():
            setattr(task, name, value)
        return task

    def add_dead_task(self, color: Color, started_by: str, exit_code: int) -> Task:
        """A task that stopped by itself, with two lines in its log."""
        task = self.add_task(
            color,
            started_by=started_by,
            last_status="STOPPED",
            desired_status="STOPPED",
            stopped_reason="Essential container in task exited",
            stopped_at=datetime.datetime.now(datetime.UTC),
        )
        task.containers[0].exitCode = exit_code
        task.containers[0].name = "web"
        self.write_log(task.id, ["starting", "no database"])
        return task

    def write_log(self, task_id: str, lines: list[str]) -> None:
        logs = clients.logs()
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName="/ecs/web")
        stream = f"web/web/{task_id}"
        logs.create_log_stream(logGroupName="/ecs/web", logStreamName=stream)
        now = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
        logs.put_log_events(
            logGroupName="/ecs/web",
            logStreamName=stream,
            logEvents=[{"timestamp": now + n, "message": line} for n, line in enumerate(lines)],
        )

    # Faults

    def fault(self, service: str, operation: str, kind: Fault, times: int = 1) -> None:
        """An operation's next calls fail: after their effect for lost_answer, else before it.

        botocore tries a call whose answer is lost again, up to three times.
        """
        left = [times]

        def hook(**event: Any) -> Any:
            if left[0] == 0:
                return None
            left[0] -= 1
            if kind == "lost_answer":
                botocore_stubber("before-send", event["request"])
                raise ReadTimeoutError(endpoint_url=event["request"].url)
            if kind == "timeout":
                raise ConnectTimeoutError(endpoint_url="https://aws.example")
            return _refusal(kind)

        self._hook(
            "before-send" if kind == "lost_answer" else "before-call", service, operation, hook
        )

    def meanwhile(self, service: str, operation: str, happens: Callable[[], None]) -> None:
        """Something that happens once, right after the effect of an operation's next call."""
        left = [1]

        def hook(**_: Any) -> None:
            if left[0]:
                left[0] -= 1
                happens()

        self._hook("after-call", service, operation, hook)

    def record_calls(self, *operations: tuple[str, str]) -> None:
        """Note calls of some operations, (service, operation) each, in ``calls``."""

        def hook(model: Any, **_: Any) -> None:
            self.calls.append(model.name)

        for service, operation in operations:
            self._hook("before-call", service, operation, hook)

    def _hook(
        self,
        moment: str,
        service: str,
        operation: str,
        hook: Callable[..., Any],
        *,
        first: bool = True,
    ) -> None:
        names = (service, f"{service}_once", f"{service}_briefly")
        for client in [getattr(clients, name)() for name in names if hasattr(clients, name)]:
            model = client.meta.service_model.service_id.hyphenize()
            event = f"{moment}.{model}.{operation}"
            register = client.meta.events.register_first if first else client.meta.events.register
            register(event, hook)
            self._hooks.append(partial(client.meta.events.unregister, event, hook))

    # Running functions

    def run(
        self, module: str, data: Mapping[str, Any], execution: str = "d-1", **more: Any
    ) -> dict[str, Any]:
        """Invoke a state's function as the state machine does; more: in its event."""
        event = {
            **more,
            "execution": {
                "Id": execution_arn(execution),
                "Name": execution,
                "StartTime": "2026-11-22T00:00:00Z",
            },
            "data": json.loads(json.dumps(data)),
        }
        answer: dict[str, Any] = import_module(module).handler(event, CONTEXT)
        json.dumps(answer)
        return answer

    def plan(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        """The data of an execution after PlanDeployment; by default of image v2."""
        asked = {"service": "web", "images": {"web": "v2"}} | request
        data: dict[str, Any] = {"request": asked}
        if asked.get("started_by", {}).get("kind") == "rollback":
            data["recovery"] = {"direction": "redeploy", "settle_seconds": 0, "reason": "back"}
        return data | {"deployment": self.run("plan_deployment", data, execution)}

    def started(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        """After StartIdleColor: green runs the new revision, healthy."""
        data = self.plan(execution, **request)
        data["task_definition"] = self.run("register_task_definition", data, execution)
        data["idle"] = self.run("start_idle_color", data, execution)
        assert data["idle"]["status"] == "started"
        for _ in range(data["idle"]["desired_count"]):
            self.add_task(GREEN, started_by=data["idle"]["ecs_deployment_id"])
        self.health[GREEN] = ["healthy"] * data["idle"]["desired_count"]
        return data

    def shifted(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        """After ShiftTraffic: all traffic on green, not proved yet."""
        data = self.started(execution, **request)
        data["shift"] = self.run("shift_traffic", data, execution)
        return data

    def baked(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        """After CheckBake, proved and baked just now."""
        data = self.shifted(execution, **request)
        data["shift"] |= {"status": "baked", "proved_at": self.now}
        self.store.enter(Deployment.model_validate(data["deployment"]), "committed")
        return data

    def start_execution(self, name: str) -> str:
        """A running execution of the state machine."""
        answer = clients.stepfunctions().start_execution(stateMachineArn=MACHINE, name=name)
        return answer["executionArn"]

    def stop_execution(self, name: str) -> None:
        clients.stepfunctions().stop_execution(executionArn=execution_arn(name))

    # Looking

    def place(self, color: Color) -> tuple[str, str]:
        """A colour's cluster and service."""
        return "web", f"web-{color}"

    @property
    def backend(self) -> Any:
        return ecs_backends[ACCOUNT][REGION]

    @property
    def store(self) -> Store:
        return Store(clients.dynamodb(), TABLE, LEASE)

    @property
    def lock(self) -> Lock:
        found = self.store.lock("web")
        assert found
        return found

    def record(self, deployment_id: str = "d-1") -> Record:
        found = self.store.read(deployment_id)
        assert found
        return found

    def weights(self, listener: str | None = None) -> dict[Color, int]:
        actions = self.actions(listener)
        forward = next(action for action in actions if action["Type"] == "forward")
        colors = {arn: color for color, arn in self.groups.items()}
        return {
            colors[one["TargetGroupArn"]]: int(one["Weight"])
            for one in forward["ForwardConfig"]["TargetGroups"]
        }

    def actions(self, listener: str | None = None) -> Any:
        arn = listener or self.listener
        return clients.elbv2().describe_listeners(ListenerArns=[arn])["Listeners"][0][
            "DefaultActions"
        ]

    def service(self, color: Color) -> Any:
        cluster, service = self.place(color)
        answer = clients.ecs().describe_services(cluster=cluster, services=[service])
        return answer["services"][0]

    def revisions(self) -> list[str]:
        return clients.ecs().list_task_definitions(familyPrefix="web")["taskDefinitionArns"]

    def suspended(self, color: Color) -> bool:
        [target] = clients.application_autoscaling().describe_scalable_targets(
            ServiceNamespace="ecs", ResourceIds=["service/{}/{}".format(*self.place(color))]
        )["ScalableTargets"]
        state = target["SuspendedState"]
        assert len(set(state.values())) == 1, state
        return state["DynamicScalingInSuspended"]


@cache
def _read(example: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(example.read_text())
    return document


def _refusal(kind: str) -> tuple[SimpleNamespace, dict[str, Any]]:
    """What botocore makes of an error's answer: the response, and the error in it."""
    code, status, message = {
        "throttle": ("ThrottlingException", 400, "Rate exceeded"),
        "error500": ("InternalFailure", 500, "an error of AWS"),
        "denied": ("AccessDeniedException", 400, "not authorized to perform this"),
        "invalid_document": ("InvalidDocument", 400, "the document does not exist"),
        "busy": ("ScalingActivityInProgress", 400, "there are scaling activities in progress"),
        "concurrent_update": ("ConcurrentUpdateException", 400, "there is a pending update"),
        "concurrent_revision": (
            "ClientException",
            400,
            "Too many concurrent attempts to create a new revision of the specified family.",
        ),
    }[kind]
    return SimpleNamespace(status_code=status), {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
