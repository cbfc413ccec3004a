"""What the program reads: trees of control groups of every kind of machine, and broken ones."""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from containermetrics import metrics
from hosts import ecs_bluegreen_metrics as program
from tests.hosts.machine import ROOT
from tests.hosts.trees import (
    HOST_NETWORK,
    V1,
    V1_LAYOUTS,
    V2,
    V2_LAYOUTS,
    V2_WITHOUT_SWAP,
    ListeningAgent,
    Said,
    Tree,
    ask,
    container_id,
    content_of,
    task,
    task_id,
)

PROGRAM = ROOT / "hosts" / "ecs_bluegreen_metrics.py"
ECS_V1, ECS_V2 = V1_LAYOUTS[0], V2_LAYOUTS[0]


def look(agent: ListeningAgent, tree: Tree, **environment: str) -> Said:
    return ask(tree.environment(agent.where, **environment))


@pytest.mark.parametrize("layout", V1_LAYOUTS)
def test_v1(agent: ListeningAgent, tree: Tree, layout: str) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(V1, layout)
    said = look(agent, tree)
    assert said.problems == []
    assert (said.head["containers"], said.head["unknown"], len(said.entries)) == (1, 0, 1)
    assert said.head["instance"].endswith("container-instance/web/0a")
    entry = said.of("app")
    assert (entry["family"], entry["revision"]) == ("shop", "7")
    assert entry["id"] == container_id(16)[:12]
    assert said.head["at"] == pytest.approx(time.time(), abs=5)
    assert entry["at"] == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=5)
    stat = {f"memory_stat.{k}": v for k, v in numbers(V1, "memory/{group}/memory.stat").items()}
    events = {key for key in stat if "pg" in key or "workingset" in key}
    assert entry["c"] == {
        "cpu.total": 0.996165,
        "cpu.user": 0.85,
        "cpu.system": 0.14,
        "cpu_core.0": 0.317202,
        "cpu_core.1": 0.678962,
        "throttling.periods": 46,
        "throttling.throttled": 27,
        "throttling.time": 0.952722,
        "memory_events.failcnt": 14071,
        "memory_events.memsw_failcnt": 0,
        **{key: stat[key] for key in events},
        **{
            f"blkio_bytes.vda_{operation}": count
            for operation, count in numbers(
                V1, "blkio/{group}/blkio.throttle.io_service_bytes", "254:0 "
            ).items()
        },
        **{
            f"blkio_ops.vda_{operation}": count
            for operation, count in numbers(
                V1, "blkio/{group}/blkio.throttle.io_serviced", "254:0 "
            ).items()
        },
        **network(rx_bytes=916, rx_packets=10),
    }
    assert entry["g"] == {
        "cpu.limit": 50.0,
        "memory.usage": 50143232,
        "memory.peak": 50331648,
        "memory.limit": 48 << 20,
        "memory.memsw_usage": 50143232,
        "memory.memsw_peak": 50593792,
        "memory.memsw_limit": 96 << 20,
        "memory.rss": stat["memory_stat.total_rss"],
        "memory.cache": stat["memory_stat.total_cache"],
        "memory.swap": stat["memory_stat.total_swap"],
        "memory.working_set": 50143232 - stat["memory_stat.total_inactive_file"],
        **{key: value for key, value in stat.items() if key not in events},
        "processes.pids": 5,
        "processes.processes": 2,
        "processes.threads": 5,
    }


@pytest.mark.parametrize("layout", V2_LAYOUTS)
def test_v2(agent: ListeningAgent, tree: Tree, layout: str) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(V2, layout)
    said = look(agent, tree)
    assert said.problems == []
    assert (said.head["containers"], said.head["unknown"], len(said.entries)) == (1, 0, 1)
    entry = said.of("app")
    stat = {f"memory_stat.{k}": v for k, v in numbers(V2, "{group}/memory.stat").items()}
    events = {
        key
        for key in stat
        if key.startswith(tuple(f"memory_stat.{it}" for it in ("pg", "workingset", "zswp", "thp")))
    }
    assert entry["c"] == {
        "cpu.total": 123.456789,
        "cpu.user": 100.0,
        "cpu.system": 23.456789,
        "throttling.periods": 6000,
        "throttling.throttled": 450,
        "throttling.time": 31.5,
        "memory_events.low": 0,
        "memory_events.high": 3,
        "memory_events.max": 42,
        "memory_events.oom": 2,
        "memory_events.oom_kill": 1,
        **{key: stat[key] for key in events},
        "blkio_bytes.nvme0n1_read": 20971520,
        "blkio_bytes.nvme0n1_write": 8388608,
        "blkio_bytes.nvme0n1_discard": 4096,
        "blkio_bytes.dm-0_read": 20971520,
        "blkio_bytes.dm-0_write": 8388608,
        "blkio_bytes.dm-0_discard": 0,
        "blkio_ops.nvme0n1_read": 640,
        "blkio_ops.nvme0n1_write": 256,
        "blkio_ops.nvme0n1_discard": 1,
        "blkio_ops.dm-0_read": 660,
        "blkio_ops.dm-0_write": 260,
        "blkio_ops.dm-0_discard": 0,
        **network(rx_bytes=8467231, rx_packets=12904, rx_dropped=3, tx_bytes=1204113)
        | {"network.eth0_tx_packets": 9921, "network.eth0_tx_errors": 1}
        | {"network.eth0_tx_dropped": 2},
    }
    assert entry["g"] == {
        "cpu.limit": 50.0,
        "memory.usage": 130023424,
        "memory.peak": 150994944,
        "memory.limit": 256 << 20,
        "memory.swap": 5 << 20,
        "memory.memsw_usage": 130023424 + (5 << 20),
        "memory.memsw_limit": 512 << 20,
        "memory.rss": stat["memory_stat.anon"],
        "memory.cache": stat["memory_stat.file"],
        "memory.working_set": 130023424 - 62914560,
        **{key: value for key, value in stat.items() if key not in events},
        "processes.pids": 4,
        "processes.processes": 2,
        "processes.threads": 4,
    }


def numbers(fixture: str, path: str, beginning: str = "") -> dict[str, int]:
    """The ``key number`` lines of a file of a fixture that begin so; keys in lower case."""
    lines = content_of(fixture, path).splitlines()
    words = (line.removeprefix(beginning).split() for line in lines if line.startswith(beginning))
    return {key.lower(): int(number) for key, number in words}


def network(**known: int) -> dict[str, int]:
    """All counters of eth0; those that are not named are 0."""
    names = [f"{way}_{what}" for way in ("rx", "tx") for what in NETWORK]
    return {f"network.eth0_{name}": known.get(name, 0) for name in names}


NETWORK = ("bytes", "packets", "errors", "dropped")


def test_v2_without_limits_swap_and_io(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(V2_WITHOUT_SWAP, ECS_V2)
    said = look(agent, tree)
    assert said.problems == []
    entry = said.of("app")
    absent = {"cpu.limit", "memory.limit", "memory.peak", "memory.swap"}
    absent |= {"memory.memsw_usage", "memory.memsw_limit"}
    assert not absent & set(entry["g"])
    assert entry["g"]["memory.usage"] == 6127616
    assert not [metric for metric in entry["c"] if metric.startswith("blkio")]


def test_v1_without_limits_and_swap_accounting(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    place = tree.add(V1, ECS_V1)
    memory = tree.root / "memory" / place.relative_to(tree.root / place.parts[-4])
    none = "9223372036854771712\n"
    (memory / "memory.limit_in_bytes").write_text(none)
    for file in memory.glob("memory.memsw.*"):
        file.unlink()
    stat = [
        line
        for line in (memory / "memory.stat").read_text().splitlines()
        if "swap" not in line and "memsw" not in line and "hierarchical" not in line
    ]
    stat.append(f"hierarchical_memory_limit {none}")
    (memory / "memory.stat").write_text("\n".join(stat))
    quota = tree.root / "cpu" / memory.relative_to(tree.root / "memory") / "cpu.cfs_quota_us"
    quota.write_text("-1\n")
    said = look(agent, tree)
    assert said.problems == []
    entry = said.of("app")
    assert not [metric for metric in entry["g"] if "limit" in metric or "swap" in metric]
    assert "memory_events.memsw_failcnt" not in entry["c"]
    assert entry["g"]["memory.working_set"] < entry["g"]["memory.usage"]


def test_limits_of_the_task_hold_for_its_containers(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app", "sidecar")]
    place = tree.add(V2, ECS_V2)
    other = tree.add(V2_WITHOUT_SWAP, ECS_V2, index=1)
    (place.parent / "cpu.max").write_text("40000 100000\n")
    (place.parent / "memory.max").write_text(f"{64 << 20}\n")
    (other.parent.parent / "cpu.max").write_text("90000 100000\n")
    said = look(agent, tree)
    for container in ("app", "sidecar"):
        gauges = said.of(container)["g"]
        assert (gauges["cpu.limit"], gauges["memory.limit"]) == (40.0, 64 << 20)


@pytest.mark.parametrize(
    ("task_limits", "expected"),
    [
        ({"memory.max": 64 << 20}, (64 << 20) + (256 << 20)),
        ({"memory.max": 64 << 20, "memory.swap.max": 0}, 64 << 20),
        ({"memory.swap.max": 1 << 20}, (256 << 20) + (1 << 20)),
        ({"memory.swap.max": "max"}, 512 << 20),
        ({}, 512 << 20),
    ],
)
def test_memory_and_swap_of_all_levels(
    agent: ListeningAgent, tree: Tree, task_limits: dict[str, Any], expected: int
) -> None:
    agent.tasks = [task(1, "app")]
    place = tree.add(V2, ECS_V2)
    for file, limit in task_limits.items():
        (place.parent / file).write_text(f"{limit}\n")
    gauges = look(agent, tree).of("app")["g"]
    assert gauges["memory.memsw_limit"] == expected
    assert not [metric for metric in gauges if "swap_limit" in metric]


def test_swap_that_only_the_task_limits(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    place = tree.add(V2, ECS_V2)
    (place / "memory.swap.max").write_text("max\n")
    assert "memory.memsw_limit" not in look(agent, tree).of("app")["g"]
    (place.parent / "memory.swap.max").write_text("4096\n")
    assert look(agent, tree).of("app")["g"]["memory.memsw_limit"] == (256 << 20) + 4096


def test_limits_of_the_task_on_v1(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(V1, ECS_V1)
    parent = tree.root / "cpu" / "ecs" / task_id(1)
    (parent / "cpu.cfs_quota_us").write_text("25000\n")
    assert look(agent, tree).of("app")["g"]["cpu.limit"] == 25.0
    (parent / "cpu.cfs_quota_us").write_text("150000\n")
    assert look(agent, tree).of("app")["g"]["cpu.limit"] == 50.0


def test_both_on_one_machine(agent: ListeningAgent, tree: Tree) -> None:
    """Some controllers in v1, the others in v2 beside them."""
    agent.tasks = [task(1, "app")]
    tree.add(V1, ECS_V1, only=("memory/", "cpu/", "cpuacct/", "proc/"))
    place = tree.add(V2, ECS_V1, below=tree.root / "unified")
    (tree.root / "unified" / "cgroup.controllers").write_text("io pids\n")
    for file in [*place.glob("memory.*"), *place.glob("cpu.*")]:
        file.unlink()  # controllers of v1 have no files here
    said = look(agent, tree)
    assert said.problems == []
    entry = said.of("app")
    assert entry["c"]["cpu.total"] == 0.996165
    assert entry["c"]["blkio_bytes.nvme0n1_read"] == 20971520
    assert "blkio_bytes.vda_read" not in entry["c"]
    assert entry["g"]["memory.memsw_peak"] == 50593792
    assert entry["g"]["processes.pids"] == 4
    assert entry["g"]["cpu.limit"] == 50.0


def test_cpu_and_cpuacct_mounted_together(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(V1, ECS_V1)
    shutil.copytree(tree.root / "cpuacct", tree.root / "cpu", dirs_exist_ok=True)
    shutil.rmtree(tree.root / "cpuacct")
    (tree.root / "cpu").rename(tree.root / "cpu,cpuacct")
    said = look(agent, tree)
    assert said.problems == []
    assert said.of("app")["c"]["cpu.total"] == 0.996165
    assert said.of("app")["g"]["cpu.limit"] == 50.0


@pytest.mark.parametrize("mount", ["host/sys/fs/cgroup", "sys/fs/cgroup", "cgroup"])
def test_where_control_groups_are_mounted(agent: ListeningAgent, tree: Tree, mount: str) -> None:
    roots = [tree.directory / path.lstrip("/") for path in program.ROOTS.split(":")]
    assert tree.directory / mount in roots
    agent.tasks = [task(1, "app")]
    tree.add(V1, "docker/{id}", below=tree.directory / mount)
    said = look(agent, tree, ECS_BLUEGREEN_CGROUP_ROOT=":".join(map(str, roots)))
    assert said.problems == []
    assert said.of("app")["g"]["processes.pids"] == 5


def test_a_machine_without_a_controller(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(V1, ECS_V1)
    shutil.rmtree(tree.root / "blkio")
    shutil.rmtree(tree.root / "pids")
    said = look(agent, tree)
    assert said.problems == [
        "this machine has no control groups for pids",
        "this machine has no control groups for blkio",
    ]
    entry = said.of("app")
    assert entry["g"]["processes.threads"] == 5
    assert entry["c"]["network.eth0_rx_bytes"] == 916


def test_a_file_that_is_missing_or_broken_loses_only_itself(
    agent: ListeningAgent, tree: Tree
) -> None:
    agent.tasks = [task(1, "app"), task(2, "app")]
    whole = tree.add(V2, ECS_V2, 1)
    broken = tree.add(V2, ECS_V2, 2)
    assert whole != broken
    (broken / "memory.current").unlink()
    (broken / "io.stat").write_text("259:0 rbytes=many\n")
    (broken / "cpu.max").write_text("\n")
    said = look(agent, tree)
    name = f"app (task {task_id(2)})"
    assert {problem.partition(" (V")[0].partition(" (K")[0] for problem in said.problems} == {
        f"{name}: memory.current is missing",
        f"{name}: io.stat is not as expected",
        f"{name}: cpu.max is not as expected",
    }
    assert said.of("app", 1)["g"]["memory.usage"] == 130023424
    entry = said.of("app", 2)
    lost = {"memory.usage", "memory.working_set", "memory.memsw_usage", "cpu.limit"}
    assert set(said.of("app", 1)["g"]) - set(entry["g"]) == lost
    assert entry["c"]["cpu.total"] == 123.456789


@pytest.mark.parametrize("files", [0, 1, 3, 9])
def test_a_container_that_ends_while_it_is_read_loses_only_itself(
    agent: ListeningAgent, tree: Tree, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    agent.tasks = [task(number, "app") for number in range(1, 4)]
    for number in range(1, 4):
        tree.add(V2, ECS_V2, number)
    ends = tree.root / ECS_V2.format(task=task_id(2), id=container_id(32))
    end_while_reading(monkeypatch, ends, files)
    said = look(agent, tree)
    assert not ends.exists()
    assert said.problems == [f"app (task {task_id(2)}): ended while it was read"]
    assert said.head["containers"] == 2
    for number in (1, 3):
        assert said.of("app", number)["g"]["memory.usage"] == 130023424


def end_while_reading(monkeypatch: pytest.MonkeyPatch, group: Path, files: int) -> None:
    """Remove a group after so many of its files have been read."""
    read = program.read_file
    seen = 0

    def reading(path: str, directory: int | None = None) -> bytes:
        nonlocal seen
        if directory is not None and Path(f"/proc/self/fd/{directory}").resolve() == group:
            if seen == files:
                shutil.rmtree(group)
            seen += 1
        return read(path, directory)

    monkeypatch.setattr(program, "read_file", reading)


def test_a_process_that_ends_before_its_network_is_read(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app"), task(2, "app")]
    tree.add(V2, ECS_V2, 1)
    tree.add(V2, ECS_V2, 2)
    shutil.rmtree(tree.proc / str(100_000 + 32))
    said = look(agent, tree)
    assert said.problems == [f"app (task {task_id(2)}): its network cannot be seen"]
    assert "network.eth0_rx_bytes" not in said.of("app", 2)["c"]
    assert said.of("app", 2)["c"]["cpu.total"] == 123.456789
    assert said.of("app", 1)["c"]["network.eth0_rx_bytes"] == 8467231


def test_processes_that_have_just_ended(agent: ListeningAgent, tree: Tree) -> None:
    """The network and the address are those of a process that is still there."""
    agent.tasks = [task(1, "app")]
    place = tree.add(V2, ECS_V2)
    living = (place / "cgroup.procs").read_text()
    (place / "cgroup.procs").write_text(f"99998\n0\n99999\n{living}")
    (tree.proc / "99999" / "net").mkdir(parents=True)
    tree.namespace("99999", (tree.proc / living.split()[0] / "ns" / "net").readlink().name)
    said = look(agent, tree)
    assert said.problems == []
    assert said.of("app")["c"]["network.eth0_rx_bytes"] == 8467231
    assert said.of("app")["g"]["processes.processes"] == 5


def test_a_member_of_an_awsvpc_task_that_has_just_ended(agent: ListeningAgent, tree: Tree) -> None:
    described = task(1, "app", "sidecar")
    for container in described["Containers"]:
        container["Networks"] = [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.1.23"]}]
    agent.tasks = [described]
    tree.add(V2, ECS_V2, network="net:[4026532999]")
    tree.add(V2, ECS_V2, index=1, network="net:[4026532999]")
    (tree.proc / str(100_000 + 16) / "net" / "dev").unlink()
    said = look(agent, tree)
    assert said.problems == []
    assert said.of("task")["c"]["network.eth0_rx_bytes"] == 8467231
    (tree.proc / str(100_000 + 17) / "net" / "dev").unlink()
    said = look(agent, tree)
    assert said.problems == [f"app (task {task_id(1)}): net/dev: No such file or directory"]
    assert [entry["container"] for entry in said.entries] == ["app", "sidecar"]


def test_the_network_of_the_task_is_not_looked_for_elsewhere(
    agent: ListeningAgent, tree: Tree
) -> None:
    """A process of a container may have put itself into another network."""
    agent.tasks = [task(1, "app")]
    place = tree.add(V2, ECS_V2)
    tree.add(V2_WITHOUT_SWAP, ECS_V2, 2, network="net:[4026532999]")
    with (place / "cgroup.procs").open("a") as file:
        file.write(f"{100_000 + 32}\n")
    (tree.proc / str(100_000 + 16) / "net" / "dev").unlink()
    said = look(agent, tree)
    assert said.problems == [f"app (task {task_id(1)}): net/dev: No such file or directory"]
    assert not [metric for metric in said.of("app")["c"] if metric.startswith("network")]


def test_the_network_of_an_awsvpc_task_is_the_tasks(agent: ListeningAgent, tree: Tree) -> None:
    described = task(1, "app", "sidecar")
    for container in described["Containers"]:
        container["Networks"] = [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.1.23"]}]
    agent.tasks = [described]
    tree.add(V2, ECS_V2, network="net:[4026532999]")
    tree.add(V2, ECS_V2, index=1, network="net:[4026532999]")
    tree.add(V2_WITHOUT_SWAP, ECS_V2, index=2, network="net:[4026532999]")  # the pause container
    said = look(agent, tree)
    assert said.problems == []
    assert (said.head["containers"], said.head["unknown"]) == (2, 0)
    assert sorted(entry["container"] for entry in said.entries) == ["app", "sidecar", "task"]
    own = said.of("task")
    assert own["c"]["network.eth0_rx_bytes"] == 8467231
    assert (own["g"], own["family"], own["revision"]) == ({}, "shop", "7")
    for container in ("app", "sidecar"):
        assert not [metric for metric in said.of(container)["c"] if metric.startswith("network")]


def test_a_pause_container_that_the_agent_lists(agent: ListeningAgent, tree: Tree) -> None:
    described = task(1, program.PAUSE, "app")
    agent.tasks = [described]
    tree.add(V2_WITHOUT_SWAP, ECS_V2, network="net:[4026532999]")
    tree.add(V2, ECS_V2, index=1, network="net:[4026532999]")
    said = look(agent, tree)
    assert sorted(entry["container"] for entry in said.entries) == ["app", "task"]
    assert said.head["containers"] == 1


def test_the_network_of_the_instance_is_nobodys(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(V2, ECS_V2, network=HOST_NETWORK)
    said = look(agent, tree)
    assert said.problems == []
    assert [entry["container"] for entry in said.entries] == ["app"]
    assert not [metric for metric in said.of("app")["c"] if metric.startswith("network")]


@pytest.mark.parametrize(
    ("fixture", "layouts"), [(V1, V1_LAYOUTS[:3]), (V2, V2_LAYOUTS[:4])], ids=["v1", "v2"]
)
def test_containers_that_the_agent_does_not_know(
    agent: ListeningAgent, tree: Tree, fixture: str, layouts: tuple[str, ...]
) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(fixture, layouts[0])
    for number, layout in enumerate(layouts, start=2):
        tree.add(fixture, layout, number)
    said = look(agent, tree)
    assert said.problems == []
    assert said.head["unknown"] == len(layouts)
    assert len(said.entries) == 1


def test_which_containers_are_missed(agent: ListeningAgent, tree: Tree) -> None:
    """A container may have done its work; that a running task has none is strange."""
    agent.tasks = [
        task(1, "app", "ended"),
        task(2, "app"),
        task(3, "app", KnownStatus="STOPPED"),
        task(4, "app", KnownStatus="PENDING"),
        task(5, "app"),
    ]
    agent.tasks[4]["Containers"][0]["DockerId"] = ""
    tree.add(V2, ECS_V2, 1)
    said = look(agent, tree)
    assert said.problems == [f"app (task {task_id(2)}): has no control group"]
    assert said.head["containers"] == 1


def test_tasks_that_are_not_like_others(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [{"Family": "x"}, {"Arn": "y", "Containers": [{"DockerId": "z"}]}, task(1, "app")]
    tree.add(V2, ECS_V2)
    said = look(agent, tree)
    assert said.problems == ["the agent describes a container unlike others: KeyError('Name')"]
    assert said.head["containers"] == 1


@pytest.mark.parametrize(
    ("garbage", "problem"),
    [
        ("x", "a task unlike others: AttributeError"),
        (5, "a task unlike others: AttributeError"),
        (None, "a task unlike others: AttributeError"),
        (task(2, "app", Containers="app"), ""),
        (task(2, "app", Containers=["app"]), ""),
        (task(2, "app", Containers=[{"DockerId": "../x", "Name": "x"}]), "a container unlike"),
        (task(2, "app", Containers=[{"DockerId": "a\0b", "Name": "x"}]), "a container unlike"),
        (task(2, "app", Arn="a/\0"), "a container unlike others"),
    ],
)
def test_garbage_among_the_tasks_loses_only_itself(
    agent: ListeningAgent, tree: Tree, garbage: Any, problem: str
) -> None:
    agent.tasks = [garbage, task(1, "app")]
    tree.add(V2, ECS_V2)
    said = look(agent, tree)
    assert said.of("app")["g"]["memory.usage"] == 130023424
    assert [problem in line for line in said.problems] == ([True] if problem else [])


@pytest.mark.parametrize("more", [{"Ports": ["80"]}, {"Ports": 5}, {"Networks": ["x", 5]}])
def test_garbage_about_a_container_loses_only_itself(
    agent: ListeningAgent, tree: Tree, more: dict[str, Any]
) -> None:
    agent.tasks = [task(1, "app", "sidecar")]
    agent.tasks[0]["Containers"][0].update(more)
    agent.tasks[0]["Containers"][1].pop("Name")
    tree.add(V2, ECS_V2)
    said = look(agent, tree)
    assert said.of("app")["g"]["memory.usage"] == 130023424
    assert said.problems == ["the agent describes a container unlike others: KeyError('Name')"]


@pytest.mark.parametrize(
    "answer",
    [b'{"Tasks": 5}', b"[" * 100_000, b"[]", b"5", b'{"Tasks": [' + b" " * (17 << 20) + b"]}"],
)
def test_an_agent_that_answers_nonsense(tree: Tree, answer: bytes) -> None:
    tree.add(V2, ECS_V2)
    with answering(answer) as where, pytest.raises(program.Unreadable, match="does not say what"):
        ask(tree.environment(where))


def test_an_answer_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps a connection busy, and no one waits for it."""
    with answering(b'{"Tasks": [', b" " * 100, seconds=0.05) as where:
        began = time.monotonic()
        with pytest.raises(OSError, match=r"did not answer within 0\.5 s|timed out"):
            program.ask(where, "/v1/tasks", 0.5)
        assert 0.4 < time.monotonic() - began < 1
        monkeypatch.setattr(program, "ANSWER_BYTES", 10)
        with pytest.raises(ValueError, match="more than"):
            program.ask(where, "/v1/tasks", 5)


@contextlib.contextmanager
def answering(body: bytes, drops: bytes = b"", *, seconds: float = 0.0) -> Iterator[str]:
    """An agent that answers everything with this, and then drop by drop; gives its host:port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)
                for drop in drops:
                    time.sleep(seconds)
                    self.wfile.write(bytes([drop]))

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_many_containers_with_the_same_problem(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(number, "app") for number in range(1, 31)]
    for number in range(1, 31):
        place = tree.add(V2, ECS_V2, number)
        (place / "io.stat").unlink()
        (place / "pids.current").write_text(f"none of {number}\n")
    said = look(agent, tree)
    assert f"app (task {task_id(1)}): io.stat is missing (and 29 more)" in said.problems
    assert len(said.problems) == program.PROBLEMS + 1
    assert len(json.dumps(said.head)) < 8000


def test_output_that_is_cut_loses_its_last_lines_only(agent: ListeningAgent, tree: Tree) -> None:
    count = 60
    agent.tasks = [task(number, "app") for number in range(1, count + 1)]
    for number in range(1, count + 1):
        place = tree.add(V2, ECS_V2, number)
        (place / "memory.current").write_text(f"{130023424 + number * 4096}\n")
    lines = program.collect([], tree.environment(agent.where))
    assert len(lines) - 1 == Said(lines).head["lines"] > 3
    assert max(map(len, lines)) <= program.LINE_CHARACTERS
    assert len(Said(lines).entries) == count
    part = Said(lines[:3])
    usage = {entry["task"]: entry["g"]["memory.usage"] for entry in part.entries}
    assert 2 < len(usage) < count
    assert all(it == 130023424 + int(name, 16) * 4096 for name, it in usage.items())


def test_metric_ids_are_those_of_the_table(agent: ListeningAgent, tree: Tree) -> None:
    """What is a counter here is one there."""
    agent.tasks = [task(1, "app"), task(2, "app")]
    tree.add(V1, ECS_V1, 1)
    said = look(agent, tree)
    shutil.rmtree(tree.root)
    tree.add(V2, ECS_V2, 2)
    said.entries += look(agent, tree).entries
    assert len(said.entries) == 2
    for entry in said.entries:
        for kind, values in (("counter", entry["c"]), ("gauge", entry["g"])):
            for metric in values:
                known = metrics.find(metric)
                assert known is not None, metric
                assert known.kind == kind, metric


def test_no_agent(tree: Tree) -> None:
    tree.add(V2, ECS_V2)
    done = run(tree.environment("127.0.30.255:9"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "the ECS agent at 127.0.30.255:9 does not say what runs here" in done.stderr


def test_no_control_groups(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    done = run(tree.environment(agent.where))
    assert (done.returncode, done.stdout) == (1, "")
    assert "there are no control groups in" in done.stderr


def test_as_a_program(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(V2, ECS_V2)
    done = run(tree.environment(agent.where))
    assert (done.returncode, done.stderr) == (0, "")
    assert Said(done.stdout.splitlines()).of("app")["g"]["memory.usage"] == 130023424


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(PROGRAM)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_starts_without_slow_modules(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app")]
    tree.add(V2, ECS_V2)
    code = (
        f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import ecs_bluegreen_metrics\n"
        "ecs_bluegreen_metrics.main([])\n"
        "slow = {'asyncio', 'email', 'http', 'pathlib', 'socket', 'subprocess', 'tempfile',"
        " 'threading', 'typing', 'urllib', 'dataclasses', 'inspect', 'selectors'}\n"
        "sys.exit(repr(slow & set(sys.modules)) if slow & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env=tree.environment(agent.where),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["ecs_bluegreen_metrics.py", "mackerel_plugin_memcached.py"])
def test_old_pythons_understand_it(name: str) -> None:
    """Amazon Linux 2023 has Python 3.9."""
    tree = ast.parse((ROOT / "hosts" / name).read_text(), feature_version=(3, 9))
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported <= set(sys.stdlib_module_names)
