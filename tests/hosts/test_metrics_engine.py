"""The program against a real Docker engine: real control groups, networks and memcached."""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts import ecs_bluegreen_metrics as program
from sandbox.docker import engine as docker_engine
from sandbox.docker.engine import IMAGE, Engine
from sandbox.settings import SandboxError
from tests.hosts.conftest import needs
from tests.hosts.machine import SYSTEM_PATH, wait_for
from tests.hosts.test_metrics_document import script
from tests.hosts.trees import ListeningAgent, Said, ask

LOG = logging.getLogger(__name__)
BUSY = "while :; do :; done"
LONG = "exec sleep 1000"
SECONDS = float(os.environ.get("COMPARED_SECONDS", "20"))
"""How long CPU is compared; the longer, the less the moments of reading matter."""


class Fleet:
    """Tasks of one container each on an engine, known to an agent."""

    def __init__(self, engine: Engine, agent: ListeningAgent, home: Path) -> None:
        self.engine = engine
        self._agent = agent
        self._containers: list[str] = []
        self.environment = {
            "PATH": SYSTEM_PATH,
            "ECS_INTROSPECTION": agent.where,
            "ECS_BLUEGREEN_HOME": str(home),
            "DOCKER_HOST": engine.host,
        }

    def run(self, command: str, name: str = "app", ports: Any = (), **host: Any) -> str:
        """Start a container as a task of its own; its long id. host: as Docker's HostConfig."""
        task = secrets.token_hex(16)
        self.start(task, command, name, ports, **host)
        return self._containers[-1]

    def start(self, task: str, command: str, name: str, ports: Any = (), **host: Any) -> None:
        """Start a container of a task."""
        client = self.engine.client
        created = client.create_container(
            image=self.engine.image,
            command=["sh", "-c", command],
            host_config=client.create_host_config(
                binds=self.engine.binds, cgroup_parent=self.engine.control_group(task), **host
            ),
        )
        client.start(created["Id"])
        self._containers.append(created["Id"])
        container = {"DockerId": created["Id"], "Name": name, "Ports": list(ports)}
        for known in self._agent.tasks:
            if known["Arn"].endswith(task):
                known["Containers"].append(container)
                return
        self._agent.tasks.append(
            {
                "Arn": f"arn:aws:ecs:eu-west-1:123456789012:task/web/{task}",
                "KnownStatus": "RUNNING",
                "Family": "shop",
                "Version": "1",
                "Containers": [container],
            }
        )

    def end(self) -> None:
        for container in self._containers:
            self.engine.client.remove_container(container, force=True)

    def look(self) -> Said:
        return ask(self.environment)

    def by_document(self, *plugins: dict[str, Any]) -> Said:
        """Run what the Run Command document runs."""
        text = script(base64.b64encode(json.dumps(plugins).encode()).decode())
        done = subprocess.run(
            ["sh", "-c", text], env=self.environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return Said(done.stdout.splitlines())


@pytest.fixture(scope="module")
def engine(worker_id: str) -> Iterator[Engine]:
    """An engine of this worker's own."""
    needs(*docker_engine.PROGRAMS)
    try:
        docker_engine.check()
    except SandboxError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    number = 0 if worker_id == "master" else int(worker_id.removeprefix("gw"))
    with Engine(f"127.0.{200 + number}") as engine:
        yield engine


@pytest.fixture
def fleet(engine: Engine, agent: ListeningAgent, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(engine, agent, tmp_path)
    try:
        yield fleet
    finally:
        fleet.end()


def only(said: Said) -> dict[str, Any]:
    """The entry of the one container."""
    (entry,) = said.entries
    return entry


def disk() -> dict[str, Any]:
    """A limit that nobody reaches, on the disk of the root file system: new kernels count a
    device's I/O in v1 from its first limit on.
    """
    number = Path("/").stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    device = name.resolve().name
    if not Path("/dev", device).is_block_device():
        return {}
    return {"device_read_bps": [{"Path": f"/dev/{device}", "Rate": 10**10}]}


V1_IDS = {
    *("cpu.user", "cpu.system", "cpu.total", "cpu_core.0", "cpu.limit"),
    *("throttling.periods", "throttling.throttled", "throttling.time"),
    *("memory.usage", "memory.working_set", "memory.rss", "memory.cache", "memory.limit"),
    *("memory.peak", "memory_events.failcnt"),
    *(f"memory_stat.{total}{key}" for total in ("", "total_") for key in ("cache", "rss")),
    *("memory_stat.rss_huge", "memory_stat.mapped_file", "memory_stat.pgpgin"),
    *("memory_stat.pgpgout", "memory_stat.pgfault", "memory_stat.inactive_anon"),
    *("memory_stat.active_anon", "memory_stat.active_file", "memory_stat.inactive_file"),
    *("memory_stat.unevictable", "memory_stat.hierarchical_memory_limit"),
    *("processes.processes", "processes.threads", "processes.pids"),
    *("network.eth0_rx_bytes", "network.eth0_tx_packets"),
}
V2_IDS = {
    *("cpu.user", "cpu.system", "cpu.total", "cpu.limit", "throttling.time"),
    *("memory.usage", "memory.working_set", "memory.rss", "memory.cache", "memory.limit"),
    *("memory_events.max", "memory_events.oom_kill", "memory_stat.anon", "memory_stat.file"),
    *("processes.processes", "processes.threads", "processes.pids", "network.eth0_rx_bytes"),
}
MEMSW = {"memory.memsw_usage", "memory.memsw_peak", "memory.memsw_limit", "memory.swap"}
MEMSW |= {"memory_events.memsw_failcnt", "memory_stat.swap"}


def test_every_file_of_a_real_kernel(fleet: Fleet) -> None:
    # It reads and writes past the page cache, and uses more CPU than it may.
    command = (
        "head -c 4194304 /dev/zero >/tmp/zero; "
        "dd if=/tmp/zero of=/tmp/copy bs=64k iflag=direct oflag=direct 2>/dev/null; "
        f"timeout 2 sh -c '{BUSY}'; echo done; {LONG}"
    )
    container = fleet.run(
        command, cpu_period=100_000, cpu_quota=20_000, mem_limit=64 << 20, **disk()
    )
    wait_for(lambda: b"done" in fleet.engine.client.logs(container), 30)
    said = fleet.look()
    assert said.problems == []
    entry = only(said)
    assert entry["id"] == container[:12]
    v1 = Path("/sys/fs/cgroup/memory/tasks").exists()
    found = {**entry["c"], **entry["g"]}
    assert (V1_IDS if v1 else V2_IDS) <= set(found)
    if v1 and Path("/sys/fs/cgroup/memory/memory.memsw.usage_in_bytes").exists():
        assert set(found) >= MEMSW
    assert found["cpu.limit"] == 20
    assert found["memory.limit"] == 64 << 20
    assert found["throttling.periods"] > 0
    assert found["cpu.total"] == pytest.approx(found["cpu.user"] + found["cpu.system"], abs=0.2)
    assert 0 < found["memory.working_set"] <= found["memory.usage"] <= found["memory.peak"]
    assert (found["processes.processes"], found["processes.threads"]) == (1, 1)
    if disk():
        read = {metric: count for metric, count in found.items() if metric.endswith("_read")}
        assert max(count for metric, count in read.items() if "bytes" in metric) >= 4 << 20
        assert max(count for metric, count in read.items() if "ops" in metric) >= 64


def docker_stats(fleet: Fleet, container: str) -> dict[str, Any]:
    stats: dict[str, Any] = fleet.engine.client.stats(container, stream=False, one_shot=True)
    return stats


def cpu_percent(before: dict[str, Any], after: dict[str, Any]) -> float:
    """As the command docker stats computes it (docker/cli, stats_helpers.go)."""
    now, then = after["cpu_stats"], before["cpu_stats"]
    container = now["cpu_usage"]["total_usage"] - then["cpu_usage"]["total_usage"]
    machine = now["system_cpu_usage"] - then["system_cpu_usage"]
    return float(container / machine * now["online_cpus"] * 100)


def memory_usage(stats: dict[str, Any]) -> int:
    """What docker stats shows as memory: usage without the page cache that is not in use."""
    memory = stats["memory_stats"]
    stat = memory["stats"]
    return int(memory["usage"] - stat.get("total_inactive_file", stat.get("inactive_file")))


def idle_and_all() -> tuple[int, int]:
    """What the processors did since the start of the machine: nothing, and all together."""
    times = [int(it) for it in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return times[3] + times[4], sum(times)


def test_agrees_with_docker_stats(fleet: Fleet) -> None:
    """A container that burns half a core, with 50 MB of memory and as much page cache."""
    container = fleet.run(
        f"head -c 50000000 /dev/zero >/tmp/x; cat /tmp/x >/tmp/y; x=$(head -c 30000000 /dev/zero "
        f"| tr '\\0' x); echo done; {BUSY}",
        cpu_period=100_000,
        cpu_quota=50_000,
    )
    wait_for(lambda: b"done" in fleet.engine.client.logs(container), 60)
    theirs, ours, machine = [], [], []
    for pause in (SECONDS, 0.0):
        theirs.append(docker_stats(fleet, container))
        ours.append(only(fleet.look()))
        machine.append(idle_and_all())
        time.sleep(pause)
    seconds = ours[1]["at"] - ours[0]["at"]
    assert seconds == pytest.approx(SECONDS, abs=2)
    percent = (ours[1]["c"]["cpu.total"] - ours[0]["c"]["cpu.total"]) / seconds * 100
    docker = cpu_percent(*theirs)
    idle, of_all = (machine[1][part] - machine[0][part] for part in (0, 1))
    LOG.info("%.1f s: %.3f %%, docker stats %.3f %%", seconds, percent, docker)
    assert percent == pytest.approx(docker, rel=0.05)
    # On a machine with nothing to spare it gets less.
    if idle > of_all * 0.1:
        assert 40 < percent < 55
    working_set = ours[1]["g"]["memory.working_set"]
    assert working_set == pytest.approx(memory_usage(theirs[1]), rel=0.05)
    assert 30_000_000 < working_set < ours[1]["g"]["memory.usage"] - 30_000_000


def test_containers_killed_while_they_are_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers = [fleet.run(LONG) for _ in range(6)]
    wait_for(lambda: fleet.look().head["containers"] == 6)
    read = program.read_file
    killed: list[str] = []

    def reading(path: str, directory: int | None = None) -> bytes:
        """Kill each second container after some of its files were read."""
        if directory is not None:
            group = str(Path(f"/proc/self/fd/{directory}").readlink())
            container = next((it for it in containers[::2] if it in group), "")
            if container and container not in killed and path.startswith("cpu.stat"):
                killed.append(container)
                fleet.engine.client.kill(container)
                fleet.engine.client.wait(container)
                wait_for(lambda: not Path(group).exists())
        return read(path, directory)

    monkeypatch.setattr(program, "read_file", reading)
    said = fleet.look()
    assert sorted(killed) == sorted(containers[::2])
    assert {entry["id"] for entry in said.entries} == {it[:12] for it in containers[1::2]}
    assert all(entry["g"]["memory.usage"] > 0 for entry in said.entries)
    assert len(said.problems) == 1
    assert "ended while it was read (and 2 more)" in said.problems[0]


def test_more_threads_than_fit_on_a_page(fleet: Fleet) -> None:
    code = (
        "import threading, time; threading.stack_size(65536); "
        "[threading.Thread(target=time.sleep, args=(1000,)).start() for _ in range(1500)]; "
        "print('done', flush=True)"
    )
    container = fleet.run(f'exec python3 -c "{code}"')
    wait_for(lambda: b"done" in fleet.engine.client.logs(container), 30)
    gauges = only(fleet.look())["g"]
    assert gauges["processes.threads"] == gauges["processes.pids"] == 1501
    assert gauges["processes.processes"] == 1


def test_containers_that_share_a_network(fleet: Fleet) -> None:
    """As those of an awsvpc task, whose network its pause container holds."""
    task = secrets.token_hex(16)
    fleet.start(task, LONG, "first")
    holder = fleet._containers[-1]
    fleet.start(task, LONG, "second", network_mode=f"container:{holder}")
    fleet.run(LONG, "in-host", network_mode="host")
    said = fleet.look()
    assert said.problems == []
    networks = {
        entry["container"]: {metric for metric in entry["c"] if metric.startswith("network")}
        for entry in said.entries
    }
    assert set(networks) == {"first", "second", "in-host", "task"}
    assert "network.eth0_rx_bytes" in networks.pop("task")
    assert not any(networks.values())


def test_memcached_in_a_container(fleet: Fleet) -> None:
    """By the document: with the plugin that it carries, and the link variables."""
    needs("memcached")
    fleet.run("exec memcached -u root -m 16", "memcached")
    by_name = {
        "name": "memcached",
        "container": "memcached",
        "command": "mackerel-plugin-memcached -host $MEMCACHED_PORT_11211_TCP_ADDR"
        " -port $MEMCACHED_PORT_11211_TCP_PORT",
    }
    repository = IMAGE.partition(":")[0]
    by_image = by_name | {"name": "image", "image": repository, "link": "LINK"}
    del by_image["container"]
    by_image["command"] = "echo reached.$LINK_PORT_11211_TCP_PORT 1 1"
    runs: list[tuple[float, Said, float]] = []

    def run() -> Said:
        began = time.time()
        said = fleet.by_document(by_name, by_image)
        runs.append((began, said, time.time()))
        return said

    wait_for(lambda: "memcached" in {entry["plugin"] for entry in run().plugins()})
    first = runs[-1][1]
    assert first.problems == []
    before = values_of(first, "memcached")
    assert values_of(first, "image") == {"reached.11211": 1}
    container = fleet._containers[-1]
    inspected = fleet.engine.client.inspect_container(container)
    address = inspected["NetworkSettings"]["IPAddress"]
    with socket.create_connection((address, 11211), 5) as client:
        for number in range(50):
            client.sendall(f"set k{number} 0 0 1000\r\n{'v' * 1000}\r\n".encode())
            assert client.recv(100) == b"STORED\r\n"
        for number in range(20):
            client.sendall(f"get none{number}\r\n".encode())
            assert client.recv(100) == b"END\r\n"
        client.sendall(b"get k1\r\n")
        assert client.recv(10)
        # It says nothing about less than five seconds.
        time.sleep(6)
        second = run()
    after = values_of(second, "memcached")
    assert (
        after["memcached.connections.curr_connections"]
        > before["memcached.connections.curr_connections"]
    )
    # The plugin looked at some moment of each run; so much it must be in a minute, no more or less.
    (began, _, ended), (began_again, _, ended_again) = runs[-2:]
    shortest, longest = (began_again - ended) / 60, (ended_again - began) / 60
    assert longest < shortest * 1.5
    for key, count in (
        ("cmd.cmd_set", 50),
        ("cmd.cmd_get", 21),
        ("hitmiss.get_misses", 20),
        ("hitmiss.get_hits", 1),
        ("items.new_items", 50),
        ("evictions.evictions", 0),
    ):
        value = after[f"memcached.{key}"]
        assert count / longest - 1e-5 <= value <= count / shortest + 1e-5, key
    assert after["memcached.items.curr_items"] == 50
    graphs = [entry["graphs"] for entry in second.plugins() if entry["plugin"] == "memcached"]
    assert "memcached.hitmiss" in graphs[0]["graphs"]

    received = [
        next(entry for entry in said.entries if "plugin" not in entry)["c"]["network.eth0_rx_bytes"]
        for said in (first, second)
    ]
    assert received[1] - received[0] > 50 * 1000


def values_of(said: Said, plugin: str) -> dict[str, float]:
    (entry,) = [entry for entry in said.plugins() if entry["plugin"] == plugin]
    return dict(entry["values"])


def test_the_command_docker_stats_shows_the_same_memory(fleet: Fleet) -> None:
    """That the API is compared above means something only if the command shows the same."""
    docker = shutil.which("docker", path=SYSTEM_PATH)
    if docker is None:
        needs("docker")
    container = fleet.run(f"x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo done; {LONG}")
    wait_for(lambda: b"done" in fleet.engine.client.logs(container), 30)
    command = [docker, "stats", "--no-stream", "--format", "{{.MemUsage}}", container]
    shown = subprocess.run(
        [str(part) for part in command],
        env=fleet.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    number, unit = shown.split(" /")[0][:-3], shown.split(" /")[0][-3:]
    size = float(number) * {"KiB": 1 << 10, "MiB": 1 << 20}[unit]
    assert only(fleet.look())["g"]["memory.working_set"] == pytest.approx(size, rel=0.05)


def test_a_plugin_by_image_whose_name_was_given_to_another(fleet: Fleet) -> None:
    """As after docker pull: Docker lists the number of the image then."""
    client, image = fleet.engine.client, fleet.engine.image
    container = fleet.run(LONG)
    repository, _, tag = image.partition(":")
    before = client.inspect_image(image)["Id"]
    newer = client.commit(container, changes=["LABEL is=newer"])["Id"]
    client.tag(newer, repository, tag or "latest", force=True)
    try:
        listed = [one["Image"] for one in client.containers()]
        said = ask(
            fleet.environment, [{"name": "x", "image": repository, "command": "echo found 1 1"}]
        )
    finally:
        client.tag(before, repository, tag or "latest", force=True)
        client.remove_image(newer)
    assert listed == [before]
    assert said.problems == []
    assert values_of(said, "x") == {"found": 1}
