"""Container Insights: what containers use is in the performance log, as and when AWS has it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox.ecs.model import ContainerState, LastStatus, State, Task
from sandbox.insights import Insights
from sandbox.logs import SandboxLogsBackend
from sandbox.processes import ContainerSpec, ProcessRuntime
from sandbox.usage import Usage

# Not long ago: CloudWatch Logs takes nothing that is older than 14 days.
MINUTE = int(time.time()) // 60 * 60 - 3600
GROUP = "/aws/ecs/containerinsights/web/performance"
MIB = 1024 * 1024


@dataclass
class Running:
    """A container whose usage a test sets."""

    used: Usage | None = field(default_factory=lambda: Usage(0.0, 0, 0, 0))

    def usage(self) -> Usage | None:
        return self.used


class World:
    """One cluster with tasks, and logs; ``now`` is the clock."""

    def __init__(self, setting: str = "enabled", late: tuple[float, float] = (90, 90)) -> None:
        self.account_id, self.region = "123456789012", "ap-northeast-1"
        self.stopping = threading.Event()
        self.now = float(MINUTE)
        self.arn = "arn:aws:ecs:ap-northeast-1:123456789012:cluster/web"
        settings = [{"name": "containerInsights", "value": setting}]
        self.cluster = SimpleNamespace(arn=self.arn, settings=settings)
        self.logs = SandboxLogsBackend(self.region, self.account_id)
        self.state = State()
        self.insights = Insights(self, self.state, lambda: self.now, late)  # type: ignore[arg-type]  # all it needs of a World

    def backend(self, name: str) -> Any:
        return self.logs if name == "logs" else SimpleNamespace(clusters={"web": self.cluster})

    def task(self, number: int = 1, containers: int = 1, *, fargate: bool = False) -> list[Any]:
        """A task that runs; its containers."""
        instance = SimpleNamespace(
            container_instance_arn=f"{self.arn}/c0ffee",
            ec2_instance_id="i-1",
            agent_connected=True,
            attributes={"ecs.availability-zone": "ap-northeast-1a"},
        )
        states = [
            ContainerState(
                {"name": f"app{n}", "image": "repo/app:1", "cpu": 256, "memory": 512},
                f"arn{n}",
                status="RUNNING",
                running=Running(),  # type: ignore[arg-type]  # all that is asked of it
            )
            for n in range(containers)
        ]
        made = Task(
            arn=f"arn:aws:ecs:ap-northeast-1:123456789012:task/web/{number:032x}",
            cluster_arn=self.arn,
            definition={"family": "web", "revision": 3},
            group="service:web-blue",
            started_by=None,
            launch_type="FARGATE" if fargate else "EC2",
            address="127.0.0.1",
            instance=None if fargate else instance,
            containers=states,
            service=SimpleNamespace(name="web-blue"),  # type: ignore[arg-type]  # its name only
            last_status=LastStatus.RUNNING,
            times={"createdAt": datetime.fromtimestamp(MINUTE - 60, UTC)},
        )
        self.state.tasks[made.arn] = made
        return [made, *states]

    def use(self, container: Any, **used: Any) -> None:
        """Set what a container has used."""
        given = {"cpu_seconds": 0.0, "memory_bytes": 0, "read_bytes": 0, "written_bytes": 0}
        container.running.used = Usage(**{**given, **used})

    def look(self, at: float) -> None:
        """The clock says so many seconds after MINUTE."""
        self.now = MINUTE + at
        self.insights.look()

    def events(self, kind: str = "Container") -> list[dict[str, Any]]:
        if GROUP not in self.logs.groups:
            return []
        pattern = f'{{ $.Type = "{kind}" }}'
        found, _, _ = self.logs.filter_log_events(GROUP, [], None, None, None, None, pattern, True)
        return [json.loads(event["message"]) for event in found]


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the seconds of the clock that rates are made with."""
    at = [0.0]
    monkeypatch.setattr("sandbox.insights.time", SimpleNamespace(monotonic=lambda: at[0]))

    def set_to(seconds: float) -> None:
        at[0] = seconds

    return set_to


def test_the_event_of_a_minute_has_awss_shape(monotonic: Callable[[float], None]) -> None:
    world = World()
    task, container = world.task()
    world.look(0)
    monotonic(60)
    world.use(container, cpu_seconds=15, memory_bytes=100 * MIB, read_bytes=10, written_bytes=20)
    world.look(60)
    world.look(91)

    (event,) = world.events()

    assert event == {
        "Version": "0",
        "Type": "Container",
        "ContainerName": "app0",
        "TaskId": task.id,
        "TaskDefinitionFamily": "web",
        "TaskDefinitionRevision": "3",
        "ServiceName": "web-blue",
        "ContainerInstanceId": "c0ffee",
        "EC2InstanceId": "i-1",
        "ClusterName": "web",
        "Image": "repo/app:1",
        "ContainerKnownStatus": "RUNNING",
        "Timestamp": MINUTE * 1000,
        "CpuUtilized": 256.0,
        "CpuReserved": 256.0,
        "MemoryUtilized": 50,
        "MemoryReserved": 512,
        "StorageReadBytes": 10,
        "StorageWriteBytes": 20,
    }
    assert list(world.logs.groups[GROUP].streams) == ["AgentTelemetry-c0ffee"]


def test_it_comes_late_and_each_event_on_its_own() -> None:
    world = World(late=(80, 140))
    for number in range(20):
        world.task(number)
    world.look(0)
    time.sleep(0.25)
    world.look(60)
    seen = {}
    for at in range(61, 150):
        world.look(at)
        seen[at] = len([e for e in world.events() if e["Timestamp"] == MINUTE * 1000])

    assert seen[80] == 0
    assert 0 < seen[110] < 20
    assert seen[141] == 20


def test_a_rate_is_of_its_own_minute_and_bytes_are_since_the_start(
    monotonic: Callable[[float], None],
) -> None:
    world = World()
    _, container = world.task()
    network = {"RxBytes": 600, "TxBytes": 0}
    world.use(container, cpu_seconds=100, read_bytes=7, network={"RxBytes": 0, "TxBytes": 0})
    world.look(0)
    for number in (1, 2):
        monotonic(60.0 * number)
        world.use(
            container,
            cpu_seconds=100 + 6 * number,
            read_bytes=7 + number,
            network={name: count * number for name, count in network.items()},
        )
        world.look(60 * number)
    world.look(300)

    events = [e for e in world.events() if e["Timestamp"] < (MINUTE + 120) * 1000]
    assert [e["CpuUtilized"] for e in events] == [102.4, 102.4]
    assert [e["StorageReadBytes"] for e in events] == [8, 9]
    assert [(e["NetworkRxBytes"], e["NetworkTxBytes"]) for e in events] == [(10, 0), (10, 0)]


def test_a_task_has_the_sum_of_its_containers(monotonic: Callable[[float], None]) -> None:
    world = World()
    _, one, two = world.task(containers=2)
    world.look(0)
    monotonic(60)
    world.use(one, cpu_seconds=6, memory_bytes=20 * MIB)
    world.use(two, cpu_seconds=3, memory_bytes=40 * MIB)
    world.look(60)
    world.look(100)

    (task,) = world.events("Task")
    assert len(world.events()) == 2
    assert task["CpuUtilized"] == pytest.approx(9 / 60 * 1024, abs=1e-3)
    assert task["MemoryUtilized"] == 30
    assert task["CpuReserved"] == 512
    assert task["LaunchType"] == "EC2"
    assert task["CreatedAt"] == (MINUTE - 60) * 1000


def test_fargate_has_streams_and_a_disk_of_its_own(monotonic: Callable[[float], None]) -> None:
    world = World()
    world.task(fargate=True)
    world.look(0)
    monotonic(60)
    world.look(60)
    world.look(100)

    (event,), (task,) = world.events(), world.events("Task")
    assert "EC2InstanceId" not in event
    assert task["EphemeralStorageReserved"] > 0
    (stream,) = world.logs.groups[GROUP].streams
    assert stream.startswith("FargateTelemetry-")


def test_enhanced_calls_the_numbers_otherwise(monotonic: Callable[[float], None]) -> None:
    world = World("enhanced")
    _, container = world.task()
    world.look(0)
    monotonic(60)
    world.use(container, cpu_seconds=60, memory_bytes=4 * MIB)
    world.look(60)
    world.look(100)

    (event,) = world.events()
    assert event["ContainerCpuUtilized"] == 1024
    assert "CpuUtilized" not in event


def test_a_cluster_without_the_setting_has_no_log(monotonic: Callable[[float], None]) -> None:
    world = World("disabled")
    world.task()
    world.look(0)
    monotonic(60)
    world.look(60)
    world.look(200)

    assert GROUP not in world.logs.groups


def test_what_has_ended_or_is_not_heard_of_has_no_event(
    monotonic: Callable[[float], None],
) -> None:
    world = World()
    stopped, ended = world.task(1)
    silent, _ = world.task(2)
    _, unborn = world.task(3)
    unborn.running.used = None
    world.look(0)
    monotonic(60)
    stopped.last_status, ended.status = LastStatus.STOPPED, "STOPPED"
    silent.instance.agent_connected = False
    world.look(61)
    world.look(200)

    assert world.events() == []


def test_a_minute_can_be_written_at_once(monotonic: Callable[[float], None]) -> None:
    world = World()
    _, container = world.task()
    assert world.insights.write(MINUTE - 300) == 0, "nothing was seen twice"
    monotonic(10)
    world.use(container, cpu_seconds=5)

    assert world.insights.write(MINUTE - 240) == 2
    monotonic(20)
    assert world.insights.write(MINUTE - 180) == 2

    first, second = world.events()
    assert (first["Timestamp"], first["CpuUtilized"]) == ((MINUTE - 240) * 1000, 512)
    assert (second["Timestamp"], second["CpuUtilized"]) == ((MINUTE - 180) * 1000, 0)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[ProcessRuntime]:
    runtime = ProcessRuntime(tmp_path)
    yield runtime
    runtime.close()


def test_a_real_process_that_computes_shows(runtime: ProcessRuntime) -> None:
    # As much CPU time as it gets: how much that is, the process itself says at the end.
    program = (
        "import sys, time\nwhile time.process_time() < 2: pass\n"
        "print(time.process_time(), flush=True)\ntime.sleep(60)"
    )
    said: list[str] = []
    spec = ContainerSpec(["python3", "-c", program], {}, "127.0.0.1", None, said.extend)
    world = World()
    _, container = world.task()
    container.running = runtime.start(spec)
    began = time.monotonic()
    world.insights.write(MINUTE)
    while not said and time.monotonic() - began < 60:
        time.sleep(0.1)
    world.insights.write(MINUTE + 60)
    took = time.monotonic() - began

    (event,) = world.events()
    assert event["CpuUtilized"] / 1024 * took == pytest.approx(float(said[0]), rel=0.1)
    assert event["MemoryUtilized"] >= 5
