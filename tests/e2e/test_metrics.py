"""Container metrics from the containers to Mackerel, with all functions, queues and schedules."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from sandbox.collected import RUNNING_TASKS, MackerelError, gaps
from tests.e2e.conftest import _number, _require, end
from tests.e2e.running_metrics import BUSY, MINUTE, RunningMetrics
from tests.sandbox.docker_engine import control_group, left_of, require_engine

MEBIBYTE = 1 << 20
TASKS = 2
VALUES = 6000
# Numbers that cannot be compressed, so that an instance answers with more than Run Command gives
# back (24,000 characters); the first is known.
NOISE = (
    'python3 -c "import random,time; random.seed(7); t = int(time.time()); '
    "print('noise.first', 21, t, sep=chr(9)); "
    "[print('noise.v%04d' % i, random.randrange(10**15), t, sep=chr(9)) for i in range("
    f'{VALUES})]"'
)
PLUGINS = {"noise": {"container": "web", "command": NOISE}}


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Callable[[str], RunningMetrics]]:
    """A sandbox with metrics and a runtime; it is started when first asked for."""
    started: dict[str, RunningMetrics] = {}

    def start(runtime: str) -> RunningMetrics:
        if runtime not in started:
            number = 190 + 2 * _number(worker_id) + ("process", "docker").index(runtime)
            settings: dict[str, Any] = {"metrics.answer_seconds": 10, "metrics.each_task": True}
            if runtime == "docker":
                settings["metrics.plugins"] = yaml.safe_dump(
                    PLUGINS, default_flow_style=True, width=10_000
                ).strip()
            running = RunningMetrics(
                tmp_path_factory.mktemp(f"sandbox-{runtime}"),
                f"127.0.{number}",
                settings,
                ["--runtime", runtime, "--metrics"],
            )
            running.start()
            started[runtime] = running
        return started[runtime]

    yield start
    for runtime, running in started.items():
        end(running, f"{worker_id}-metrics-{runtime}")
        assert left_of(running.network, []) == []


@pytest.fixture
def processes(start: Callable[[str], RunningMetrics]) -> Iterator[RunningMetrics]:
    """Containers are processes, measured by Container Insights; blue or green is live."""
    _require("haproxy", "wrk")
    yield from _in_order(start("process"))


@pytest.fixture
def containers(start: Callable[[str], RunningMetrics]) -> Iterator[RunningMetrics]:
    """Containers are Docker's, measured by their cgroups; blue or green is live."""
    _require("haproxy", "wrk")
    require_engine()
    yield from _in_order(start("docker"))


def _in_order(running: RunningMetrics) -> Iterator[RunningMetrics]:
    running.control("DELETE", "faults", {})
    if not any(desired for desired, _ in running.counts().values()):
        running.push("busy", command=BUSY)
        ended = running.deploy("busy")
        assert ended.succeeded, ended.cause
    yield running
    running.control("DELETE", "faults", {})
    running.wait_until_unlocked()
    running.stop_idle()


def other(color: str) -> str:
    return "green" if color == "blue" else "blue"


@contextmanager
def looked_at(read: Callable[[], float]) -> Iterator[list[tuple[float, float]]]:
    """(moment, CPU seconds) again and again, while others read them too."""
    moments: list[tuple[float, float]] = []
    ended = threading.Event()

    def look() -> None:
        moments.append((time.monotonic(), read()))

    def go_on() -> None:
        while not ended.wait(0.1):
            look()

    with ThreadPoolExecutor(1) as thread:
        look()
        going_on = thread.submit(go_on)
        try:
            yield moments
        finally:
            ended.set()
            going_on.result()
        look()


def assert_seen(
    percent: float, first: list[tuple[float, float]], second: list[tuple[float, float]]
) -> None:
    """As somebody may see it who has read at one of the first and one of the second moments.

    However long they took for it, and however little of a busy machine the containers got.
    """
    rates = [
        (later - earlier) / (end - begin) * 100 for begin, earlier in first for end, later in second
    ]
    assert min(rates) > 0, "there is nothing to see"
    assert 0.95 * min(rates) <= percent <= 1.05 * max(rates), (min(rates), max(rates))


def settled_minute() -> int:
    """The newest minute that counts as complete in Container Insights, epoch seconds."""
    return int((time.time() - 120) // MINUTE * MINUTE) - MINUTE


# ------------------------------------------------------------------------------ Container Insights


def test_the_performance_log_comes_to_mackerel(processes: RunningMetrics) -> None:
    live, used = processes.live(), processes.cpu_seconds_of_processes
    with looked_at(used) as first:
        processes.write_log(settled_minute() - 5 * MINUTE)  # begins anew
    time.sleep(4)
    minute = settled_minute()
    with looked_at(used) as second:
        events = processes.write_log(minute)
    assert events == 2 * TASKS, "an event for each container and task"
    processes.collect()

    host = processes.host(live)
    assert host.status == "working"
    assert_seen(host.values("custom.ecs.cpu.web.total")[minute], first, second)
    memory = host.values("custom.ecs.memory.web.usage")[minute] / MEBIBYTE
    assert TASKS * 48 < memory < TASKS * (48 + 60)
    assert host.values("custom.ecs.memory.web.limit")[minute] == TASKS * 256 * MEBIBYTE
    assert host.values(RUNNING_TASKS)[minute] == TASKS
    assert host.values("custom.ecs.containers.web.running")[minute] == TASKS
    assert set(host.of_tasks("cpu", "web", "total")) == {"0", "1"}
    idle = processes.host(other(live))
    assert idle.status == "poweroff"
    assert idle.values(RUNNING_TASKS)[minute] == 0
    assert processes.newest_total("ecs.running_tasks.web") == TASKS


def test_statuses_follow_the_traffic_and_the_deployment_is_marked(
    processes: RunningMetrics,
) -> None:
    old = processes.live()
    with processes.configured({"drain.keep_warm_seconds": 12}):
        processes.push("next", command=BUSY)
        began = time.time()
        arn = processes.start_execution(processes.request("next"))
        processes.wait_until_warm()
        processes.collect()
    new = other(old)
    assert processes.live() == new
    assert {color: processes.host(color).status for color in (old, new)} == {
        old: "standby",
        new: "working",
    }
    ended = processes.wait(arn)
    assert ended.succeeded, ended.cause
    processes.collect()
    assert {color: processes.host(color).status for color in (old, new)} == {
        old: "poweroff",
        new: "working",
    }
    marks = [one for one in processes.collected().annotations if ended.name in one["description"]]
    assert len(marks) == 1
    assert began - 1 <= marks[0]["from"] <= marks[0]["to"] <= time.time()
    assert marks[0]["roles"] == ["web"]
    assert all(word in marks[0]["title"] for word in ("web", old, new, "succeeded"))


# ----------------------------------------------------------------------------------------- cgroups


def test_the_cgroups_of_real_containers_come_to_mackerel(containers: RunningMetrics) -> None:
    live = containers.live()
    tasks = containers.agent_tasks()
    assert len(tasks) == TASKS
    assert all("Networks" not in one for task in tasks for one in task["Containers"])
    places = [
        (task["Arn"].rpartition("/")[2], one["DockerId"])
        for task in tasks
        for one in task["Containers"]
    ]
    with containers.only_rounds_asked_for():
        containers.collect()  # and what the schedule has begun
        minute = time.time() // MINUTE
        with looked_at(lambda: _cpu_seconds(places)) as first:
            containers.collect()
        # A minute is compared with the one before it.
        while time.time() // MINUTE == minute or time.monotonic() < first[-1][0] + 20:
            time.sleep(0.2)
        with looked_at(lambda: _cpu_seconds(places)) as second:
            containers.collect()

    assert_seen(containers.newest(live, "cpu.web.total"), first, second)
    memory = sum(_memory(place) for place in places)
    assert containers.newest(live, "memory.web.usage") == pytest.approx(memory, rel=0.15)
    assert memory > TASKS * 48 * MEBIBYTE
    assert containers.newest(live, "memory.web.limit") == TASKS * 256 * MEBIBYTE
    assert containers.newest(live, "containers.web.running") == TASKS
    assert containers.newest(live, "service.running_tasks") == TASKS
    assert containers.newest(live, "network.web.eth0_rx_bytes") > 0, "health checks at least"
    assert containers.newest_total("ecs.running_tasks.web") == TASKS
    assert containers.newest_total("ecs.pusher_hosts_missing.web") == 0

    # Each instance has said more than Run Command gives back: it came by way of S3.
    noise = containers.host(live).values("custom.noise.first")
    assert noise[max(noise)] == 21 * TASKS
    assert containers.newest_total("ecs.pusher_left_out.web") > VALUES - 200
    assert _operations(containers, "CollectContainerMetricsFunction") >= {"GetObject"}


def test_an_outage_of_mackerel_loses_nothing_of_a_deployment(containers: RunningMetrics) -> None:
    old, new = containers.live(), other(containers.live())
    containers.collect()
    containers.fault("mackerel", kind="outage")
    first = int(time.time()) // MINUTE * MINUTE
    containers.collect()
    containers.push("next", command=BUSY)
    with containers.under_load():
        ended = containers.deploy("next")
    assert ended.succeeded, ended.cause
    while time.time() < first + MINUTE:
        time.sleep(0.2)
    containers.collect()
    last = int(time.time()) // MINUTE * MINUTE
    with pytest.raises(MackerelError):
        containers.collected()
    containers.control("DELETE", "faults", {})
    containers.collect()

    collected = containers.collected()
    # The minute of the switch may have CPU of neither: the old tasks have ended, and those that
    # came with it have nothing to be compared with yet.
    assert [one for one in gaps(collected, "web") if "of any color" not in one] == []
    for color in (old, new):
        running = collected.hosts[color].values(RUNNING_TASKS)
        assert set(range(first, last + 1, MINUTE)) <= set(running)
    assert collected.hosts[old].values("custom.ecs.cpu.web.total"), "it is still to be seen"
    assert (collected.hosts[old].status, collected.hosts[new].status) == ("poweroff", "working")
    assert len([one for one in collected.annotations if ended.name in one["description"]]) == 1
    statuses = {"status": ["working", "standby", "maintenance", "poweroff"]}
    assert len(containers.mackerel("hosts", statuses)["hosts"]) == 2, "one a color"
    assert containers.newest_total("ecs.pusher_dropped.web") == 0


def _cpu_seconds(places: list[tuple[str, str]]) -> float:
    total = 0.0
    for place in places:
        group = control_group("cpuacct", *place)
        if (group / "cpuacct.usage").exists():
            total += int((group / "cpuacct.usage").read_text()) / 1e9
        else:
            total += int((group / "cpu.stat").read_text().split()[1]) / 1e6
    return total


def _memory(place: tuple[str, str]) -> int:
    group = control_group("memory", *place)
    v1, v2 = group / "memory.usage_in_bytes", group / "memory.current"
    return int((v1 if v1.exists() else v2).read_text())


def _operations(running: RunningMetrics, function: str) -> set[str]:
    return {one["operation"] for one in running.operations() if one["function"] == function}
