"""The small AWS of world.py with the pattern host-proxy: examples/host-proxy on simulated hosts."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from botocore.exceptions import ReadTimeoutError
from moto.backends import get_backend

from bluegreen.color import Color
from bluegreen.deployment import Deployment
from runtime import clients
from tests.functions.fleet import Command, Fleet, Host, answering
from tests.functions.world import ACCOUNT, BLUE, DEFINITION, GREEN, REGION, START, Fault, World

PROXY = {
    "proxy": "nginx",
    "protocol": "http",
    "port": 8080,
    "ports": {"blue": [18081], "green": [18082]},
    "dynamic": False,
}
PARAMETER = "/bluegreen/hosts"
NO_TASK = "connection refused"
ALL_BLUE = {BLUE: 100, GREEN: 0}
ALL_GREEN = {BLUE: 0, GREEN: 100}
# What the states of a deployment change in moto, besides the parameter.
CHANGED: tuple[Any, ...] = ("ecs", "dynamodb")


@dataclass(frozen=True)
class Reached:
    """All that some states have changed in a world. data: what they have left in ``$``."""

    data: dict[str, Any]
    now: float
    hosts: dict[str, Host]
    commands: dict[str, Command]
    wanted: dict[str, Any]
    backends: dict[str, dict[str, Any]]


# What the first world to get there has kept for all others.
REACHED: dict[str, Reached] = {}


@dataclass
class HostWorld(World):
    """count: hosts at the beginning, all of them blue with a task each."""

    example: ClassVar[Path] = Path(__file__).parents[2] / "examples" / "host-proxy" / "service.yaml"
    count: int = 3
    touched: bool = False

    def build(self) -> Self:
        names = {verb: f"bluegreen-{verb}" for verb in ("report", "stage", "commit")}
        self.fleet = Fleet(lambda: self.now, names)
        for verb, name in names.items():
            self.monkeypatch.setenv(f"HOST_{verb.upper()}_DOCUMENT", name)
        for (service, operation), answers in self.fleet.operations().items():
            # Faults come before it.
            self._hook("before-call", service, operation, answering(answers), first=False)
        super().build()
        self.want(blue=100, green=0, generation=1)
        self._pristine = copy.deepcopy(self.fleet.hosts)
        for service in ("ecs", "dynamodb", "ssm", "ec2", "ecr", "application_autoscaling"):
            events = getattr(clients, service)().meta.events
            events.register("before-call", self._touch)
            self._hooks.append(partial(events.unregister, "before-call", self._touch))
        return self

    def _touch(self, **_: Any) -> None:
        self.touched = True

    def reaches(self, point: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The data that run() leaves in a world that nothing has happened to yet.

        All of these worlds are the same, so the states run in the first one only.
        """
        if self.touched or self.now != START or self.fleet.hosts != self._pristine:
            return run()
        if point not in REACHED:
            REACHED[point] = self._keep(run())
        kept = REACHED[point]
        for service, state in kept.backends.items():
            backend = get_backend(service)[ACCOUNT][REGION]
            backend.__dict__.update(copy.deepcopy(state, {id(backend): backend}))
        self.now = kept.now
        self.fleet.hosts = copy.deepcopy(kept.hosts)
        self.fleet.commands = copy.deepcopy(kept.commands)
        self.want(**kept.wanted)
        return copy.deepcopy(kept.data)

    def _keep(self, data: dict[str, Any]) -> Reached:
        self.fleet.catch_up()
        backends = {service: get_backend(service)[ACCOUNT][REGION] for service in CHANGED}
        return Reached(
            data,
            self.now,
            self.fleet.hosts,
            self.fleet.commands,
            self.wanted,
            {
                service: copy.deepcopy(backend.__dict__, {id(backend): backend})
                for service, backend in backends.items()
            },
        )

    def configure(self, **sections: Any) -> None:
        """Without a probe and what it asks, unless they are asked for."""
        router = {"load_balancer": None} | sections.pop("router", {})
        super().configure(**{"probe": None, "router": router} | sections)

    def fault(self, service: str, operation: str, kind: Fault, times: int = 1) -> None:
        answers = self.fleet.operations().get((service, operation))
        if kind != "lost_answer" or answers is None:
            super().fault(service, operation, kind, times)
            return
        answer, left = answering(answers), [1]

        def hook(**event: Any) -> None:
            """The call has its effect at each attempt of botocore, and no attempt is answered."""
            if left[0]:
                left[0] -= 1
                for _ in range(times):
                    answer(**event)
                raise ReadTimeoutError(endpoint_url="https://aws.example")

        self._hook("before-call", service, operation, hook)

    def _network(self) -> None:
        """Nothing is asked of the load balancer before the hosts, unless there is a probe."""

    def _state_machine(self) -> None:
        """Nobody asks whether an execution still runs."""

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
            )
        for _ in range(self.count):
            self.add_host(ALL_BLUE)
        self.scale(BLUE, self.count)

    # What happens to hosts

    def add_host(
        self, weights: Mapping[Color, int] | None = None, answering: Sequence[Color] = (BLUE,)
    ) -> Host:
        """A host that registers, with the weights of the parameter unless others are given.

        answering: the colours that have a task on it.
        """
        host = Host(
            instance_id=f"i-{len(self.fleet.hosts) + 1}",
            weights=dict(weights or {}),
            proxy=dict(PROXY),
            answers={color: "" if color in answering else NO_TASK for color in Color},
        )
        self.fleet.hosts[host.instance_id] = host
        if weights is None:
            host.generation = 0
            host.restore(self.wanted, self.now)
        return host

    def boots(self, answering: Sequence[Color] = (BLUE,)) -> Host:
        """A host whose agents have registered, and that has not read its weights yet."""
        host = self.add_host({}, answering)
        host.generation, host.restored, host.running = 0, False, "nginx does not run"
        return host

    def ends(self, host: Host) -> None:
        """EC2 terminates it. ECS lists it for a while, and SSM never says how a command ended."""
        host.ec2 = "terminated"

    def empties(self, host: Host) -> None:
        """A person sets it to DRAINING; its tasks are still there."""
        host.draining = True

    def makes_ports_dynamic(self) -> None:
        """ECS chooses the host ports: of the live revision, and of the service configuration."""
        slot = {"cluster": "web"}
        self.configure(
            colors={color: slot | {"ecs_service": f"web-{color}"} for color in ("blue", "green")},
            router={"container": "web", "container_port": 8000},
        )
        definition = copy.deepcopy(DEFINITION)
        definition["containerDefinitions"][0]["portMappings"][0]["hostPort"] = 0
        ecs = clients.ecs()
        made = ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
        ecs.update_service(cluster="web", service="web-blue", taskDefinition=made)
        for host in self.hosts:
            host.proxy |= {"dynamic": True}

    def want(self, **what: Any) -> None:
        """What an earlier deployment has left for hosts that boot."""
        clients.ssm().put_parameter(
            Name=f"{PARAMETER}/web",
            Value=json.dumps({"at": self.now, "tasks": {}} | what),
            Type="String",
            Overwrite=True,
        )

    def runs(self, color: Color, *, on: Sequence[Host] | None = None) -> None:
        """A colour's tasks answer on these hosts, all by default, and nowhere else."""
        there = self.hosts if on is None else on
        for host in self.hosts:
            host.answers[color] = "" if host in there else NO_TASK

    # Running functions

    def look(self, state: str, data: dict[str, Any], execution: str = "d-1") -> dict[str, Any]:
        """Passes of a state until the hosts that it asks have answered; the clock goes on."""
        key = KEYS[state]
        while True:
            data[key] = self.run(state, data, execution)
            answer: dict[str, Any] = data[key]
            if "asked" not in answer or answer["status"] != "waiting":
                return answer
            self.now += answer["wait_seconds"]

    def until_over(
        self, state: str, data: dict[str, Any], execution: str = "d-1"
    ) -> dict[str, Any]:
        """Passes of a state until it does not wait any more."""
        for _ in range(400):
            answer = self.look(state, data, execution)
            if answer.get("status") != "waiting":
                return answer
            self.now += answer["wait_seconds"]
        raise AssertionError(f"does not end: {answer}")

    def plan(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        asked = {"service": "web", "images": {"web": "v2"}} | request
        data: dict[str, Any] = {"request": asked}
        self.until_over("plan_deployment", data, execution)
        return data

    def registered(self) -> dict[str, Any]:
        """After RegisterTaskDefinition."""

        def run() -> dict[str, Any]:
            data = self.plan()
            return data | {"task_definition": self.run("register_task_definition", data)}

        return self.reaches("registered", run)

    def started(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        """After StartIdleColor: green runs on every host, healthy. Of the usual request only."""

        def run() -> dict[str, Any]:
            data = self.registered()
            assert self.until_over("start_idle_color", data)["status"] == "started"
            self.places_tasks(data)
            return data

        assert (execution, request) == ("d-1", {})
        return self.reaches("started", run)

    def places_tasks(self, data: Mapping[str, Any]) -> None:
        """ECS runs as many tasks of green as are wanted, on every host one."""
        started_by = data["idle"]["ecs_deployment_id"]
        there = [one for one in self.tasks(GREEN) if one.started_by == started_by]
        for _ in range(data["idle"]["desired_count"] - len(there)):
            self.add_task(GREEN, started_by=started_by)
        self.runs(GREEN)

    def shifted(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        def run() -> dict[str, Any]:
            data = self.started()
            assert self.until_over("shift_traffic", data)["status"] == "shifted"
            return data

        assert (execution, request) == ("d-1", {})
        return self.reaches("shifted", run)

    def baked(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        data = self.shifted(execution, **request)
        data["shift"] |= {"status": "baked", "proved_at": self.now}
        self.store.enter(Deployment.model_validate(data["deployment"]), "committed")
        return data

    def obeys(self) -> None:
        """ECS does what the services say: tasks are on every host, or stop."""
        for color in Color:
            if self.service(color)["desiredCount"] > 0:
                self.runs(color)
                continue
            self.runs(color, on=[])
            for task in self.tasks(color):
                self.stops(task, "Scaling activity initiated by deployment")

    @staticmethod
    def stops(task: Any, reason: str) -> None:
        task.last_status = task.desired_status = "STOPPED"
        task.stopped_reason, task.stopped_at = reason, datetime.datetime.now(datetime.UTC)

    def tasks(self, color: Color) -> list[Any]:
        tasks = self.backend.tasks.get("web", {}).values()
        return [one for one in tasks if one.group == f"service:web-{color}"]

    # Looking

    @property
    def hosts(self) -> list[Host]:
        """Those that EC2 has not ended."""
        self.fleet.catch_up()
        return [host for host in self.fleet.hosts.values() if not host.gone]

    def traffic(self) -> list[dict[Color, int]]:
        """The weights on each host that is there."""
        return [host.weights for host in self.hosts]

    @property
    def wanted(self) -> dict[str, Any]:
        """The parameter that hosts read when they boot."""
        text = clients.ssm().get_parameter(Name=f"{PARAMETER}/web")["Parameter"]["Value"]
        found: dict[str, Any] = json.loads(text)
        return found


# State → the key of $ that it answers.
KEYS = {
    "plan_deployment": "deployment",
    "start_idle_color": "idle",
    "check_health": "health",
    "shift_traffic": "shift",
    "check_bake": "shift",
    "drain_old_color": "drain",
    "roll_back": "rollback",
}
