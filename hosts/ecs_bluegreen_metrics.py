#!/usr/bin/python3
"""The host side of the container statistics: what the kernel says of this machine's containers.

The document metrics.yaml carries it to container instances and runs it there once a minute, as root
(Python 3.9 or later, standard library only). It asks the ECS agent which containers there are,
reads their control groups (cgroup v1, v2, or both on one machine) and the counters of their
network, runs the plugins that are configured, and prints lines of text:

1. JSON: ``{"v": 1, "at", "instance", "containers", "lines", "problems": [...], "unknown"}``. at:
   epoch seconds, which show a wrong clock. lines: how many follow. unknown: containers that the
   agent does not know.
2. and on: base85 of zlib of a JSON list of entries. Cut output loses its last lines only.
   A container, or ``task`` for the network of a whole task::

       {"task", "family", "revision", "container", "id", "at", "c": {...}, "g": {...}}

   at: seconds since the machine was booted (CLOCK_BOOTTIME), as nobody sets that clock: rates come
   from it. c: counters, which only grow: CPU in seconds, the rest in bytes or pieces. g: gauges, in
   bytes, percent or pieces. A plugin, run for one container::

       {"task", "family", "revision", "container", "plugin", "aggregate",
        "values": [[key, value], ...], "graphs": {...} or null}

docs/metrics.md says which file becomes which metric. Counters stay counters here: rates need the
sample before, which the Lambda function keeps.

What is broken loses only itself and is named among the problems. When nothing at all can be said
the exit status is 1, with the reason on standard error.

It runs every minute beside the containers that it measures, so it is careful with time: no module
that is slow to import unless there are plugins, and files are read by bare system calls.
"""

# ruff: noqa: PERF203 - one that cannot be read loses none of the others

from __future__ import annotations

import _socket
import base64
import json
import os
import sys
import time
import zlib

# typing and pathlib each take longer to import than 50 containers to read.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    Parser = Callable[[bytes, dict[str, float], dict[str, float]], None]
    Json = dict[str, Any]

VERSION = 1
INTROSPECTION = "localhost:51678"
AGENT_SECONDS = 5.0
"""How long one answer of the ECS agent may take, to its last byte."""
DOCKER_SECONDS = 2.0
"""How long all answers of the Docker engine may take."""
ANSWER_BYTES = 16 * 1024 * 1024
"""Longer than any answer of theirs: some hundred containers make one megabyte."""
ROOTS = "/host/sys/fs/cgroup:/sys/fs/cgroup:/cgroup"
"""Where control groups may be mounted. The first is the host's as a container sees it (its own
would be next), the last that of old Amazon Linux."""
DEFAULT_HOME = "/var/lib/ecs-bluegreen"
PAUSE = "~internal~ecs~pause"
"""The container of the agent's own that holds the network of an awsvpc task."""
TASK = "task"
LINE_CHARACTERS = 4000
PROBLEMS, PROBLEM_CHARACTERS = 20, 200
NO_LIMIT = 1 << 62
"""What v1 says instead of "none" is the highest number of pages in bytes, about 2**63."""
MANY_BYTES = 2048
"""The kernel gives long lists a page at a time: so much may not be all."""
HEXADECIMAL = "0123456789abcdef"
PROCESSES_TRIED = 8
"""Of so many processes of a container the network is looked for, as each may just have ended."""
PLUGIN_BYTES = 256 * 1024
PLUGINS_AT_A_TIME = 8
PLUGIN_SECONDS, PLUGIN_MOST_SECONDS = 5.0, 45.0
SPARE_SECONDS = 1.0
"""All plugins together may take so much longer than the slowest of them may; what asks for graph
definitions, so much again. The configuration has the function wait 5 s longer than that plugin."""
LATE_SECONDS = 2.0
"""When this program was kept waiting before the plugins, they get less, for the same reason."""
KILLED_SECONDS = 0.5
"""How long all that was killed may take to be gone; a process that waits for a device is not."""
PAUSE_SECONDS, SHORT_PAUSE_SECONDS = 0.05, 0.002
"""How often is looked whether a plugin has ended: usually, and when it prints no more."""
GRAPHS_SECONDS = 3600.0
"""For so long the graph definitions of a plugin are taken to stay as they are."""
PLUGIN_PATHS = "/usr/local/bin:/opt/mackerel-agent/plugins/bin"


class Gone(Exception):
    """A container has ended while it was read."""


class Unreadable(Exception):
    """There is nothing to be said about this machine; the message says why."""


class Problems:
    """What could not be read. The same problem of many containers is said once."""

    def __init__(self) -> None:
        self._whose: dict[str, list[str]] = {}

    def add(self, what: str, whose: str = "") -> None:
        """Note a problem. what: said without the container, which is ``whose``."""
        self._whose.setdefault(what, []).append(whose)

    def said(self) -> list[str]:
        """Return them as lines, not too many and not too long."""
        lines = []
        for what, whose in self._whose.items():
            who = f"{whose[0]}: " if whose[0] else ""
            more = f" (and {len(whose) - 1} more)" if len(whose) > 1 else ""
            lines.append((f"{who}{what}")[:PROBLEM_CHARACTERS] + more)
        left_out = len(lines) - PROBLEMS
        return lines if left_out <= 0 else [*lines[:PROBLEMS], f"{left_out} more problems"]


# ------------------------------------------------------------------------ what a file says: parsers


def _gauge(metric: str) -> Parser:
    def parse(data: bytes, _counters: dict[str, float], gauges: dict[str, float]) -> None:
        gauges[metric] = int(data)

    return parse


def _counter(metric: str) -> Parser:
    def parse(data: bytes, counters: dict[str, float], _gauges: dict[str, float]) -> None:
        counters[metric] = int(data)

    return parse


def _limit(metric: str) -> Parser:
    """A number of bytes; ``max``, or one that no machine has, is none."""

    def parse(data: bytes, _counters: dict[str, float], gauges: dict[str, float]) -> None:
        if not data.startswith(b"max"):
            limit = int(data)
            if limit < NO_LIMIT:
                gauges[metric] = min(limit, gauges.get(metric, limit))

    return parse


def _lines(metric: str) -> Parser:
    def parse(data: bytes, _counters: dict[str, float], gauges: dict[str, float]) -> None:
        gauges[metric] = data.count(b"\n")

    return parse


def _cpuacct_usage(data: bytes, counters: dict[str, float], _gauges: dict[str, float]) -> None:
    counters["cpu.total"] = round(int(data) / 1e9, 6)


def _cpuacct_stat(data: bytes, counters: dict[str, float], _gauges: dict[str, float]) -> None:
    words = data.split()
    for name, ticks in zip(words[::2], words[1::2]):
        if name in (b"user", b"system"):
            counters["cpu." + name.decode()] = int(ticks) / TICKS


def _cpuacct_percpu(data: bytes, counters: dict[str, float], _gauges: dict[str, float]) -> None:
    for core, nanoseconds in enumerate(data.split()):
        # Cores that a virtual machine could have and has not stand here too.
        if core < CORES or nanoseconds != b"0":
            counters[f"cpu_core.{core}"] = round(int(nanoseconds) / 1e9, 6)


def _throttling_v1(data: bytes, counters: dict[str, float], _gauges: dict[str, float]) -> None:
    words = data.split()
    for name, value in zip(words[::2], words[1::2]):
        if name == b"nr_periods":
            counters["throttling.periods"] = int(value)
        elif name == b"nr_throttled":
            counters["throttling.throttled"] = int(value)
        elif name == b"throttled_time":
            counters["throttling.time"] = round(int(value) / 1e9, 6)


CFS_PERIOD, SWAP_LIMIT = "cpu.period", "memory.swap_limit"
"""Kept with the gauges from one file to the next; never printed."""

CPU_STAT = {
    b"usage_usec": ("cpu.total", 1e6),
    b"user_usec": ("cpu.user", 1e6),
    b"system_usec": ("cpu.system", 1e6),
    b"nr_periods": ("throttling.periods", 1),
    b"nr_throttled": ("throttling.throttled", 1),
    b"throttled_usec": ("throttling.time", 1e6),
}


def _cpu_stat_v2(data: bytes, counters: dict[str, float], _gauges: dict[str, float]) -> None:
    words = data.split()
    for name, value in zip(words[::2], words[1::2]):
        if name in CPU_STAT:
            metric, divisor = CPU_STAT[name]
            counters[metric] = int(value) if divisor == 1 else round(int(value) / divisor, 6)


def _cfs_period(data: bytes, _counters: dict[str, float], gauges: dict[str, float]) -> None:
    gauges[CFS_PERIOD] = int(data)


def _cfs_quota(data: bytes, _counters: dict[str, float], gauges: dict[str, float]) -> None:
    _cpu_limit(gauges, int(data), gauges[CFS_PERIOD])


def _cpu_max(data: bytes, _counters: dict[str, float], gauges: dict[str, float]) -> None:
    quota, period = data.split()
    if quota != b"max":
        _cpu_limit(gauges, int(quota), int(period))


def _cpu_limit(gauges: dict[str, float], quota: int, period: float) -> None:
    if quota > 0:  # v1 says -1 when there is none
        limit = round(quota / period * 100, 6)
        gauges["cpu.limit"] = min(limit, gauges.get("cpu.limit", limit))


# What counts events, among the keys of memory.stat; all others are bytes.
EVENTS = ("pg", "pswp", "swp", "zswpin", "zswpout", "zswpwb", "thp_", "numa_", "workingset_")
# A key of memory.stat → (metric, whether it is a counter, whether it is a limit).
_statistics: dict[bytes, tuple[str, bool, bool]] = {}


def _statistic(key: bytes) -> tuple[str, bool, bool]:
    name = key.decode()
    bare = name[len("total_") :] if name.startswith("total_") else name
    kind = bare.startswith(EVENTS), name.startswith("hierarchical_")
    known = _statistics[key] = ("memory_stat." + name, *kind)
    return known


def _memory_stat(data: bytes, counters: dict[str, float], gauges: dict[str, float]) -> None:
    words = data.split()
    for key, text in zip(words[::2], words[1::2]):
        metric, is_counter, is_limit = _statistics.get(key) or _statistic(key)
        value = int(text)
        if is_counter:
            counters[metric] = value
        elif not is_limit or value < NO_LIMIT:
            gauges[metric] = value


def _memory_stat_v1(data: bytes, counters: dict[str, float], gauges: dict[str, float]) -> None:
    _memory_stat(data, counters, gauges)
    for short in ("rss", "cache", "swap"):
        value = gauges.get("memory_stat.total_" + short, gauges.get("memory_stat." + short))
        if value is not None:
            gauges["memory." + short] = value
    inactive = gauges.get("memory_stat.total_inactive_file")
    _working_set(gauges, gauges["memory_stat.inactive_file"] if inactive is None else inactive)
    # The least of its own limit and those of the groups around it, such as the task's.
    for metric, key in (("limit", "memory"), ("memsw_limit", "memsw")):
        limit = gauges.get(f"memory_stat.hierarchical_{key}_limit")
        if limit is not None:
            gauges["memory." + metric] = min(limit, gauges.get("memory." + metric, limit))


def _memory_stat_v2(data: bytes, counters: dict[str, float], gauges: dict[str, float]) -> None:
    _memory_stat(data, counters, gauges)
    gauges["memory.rss"] = gauges["memory_stat.anon"]
    gauges["memory.cache"] = gauges["memory_stat.file"]
    _working_set(gauges, gauges["memory_stat.inactive_file"])


def _working_set(gauges: dict[str, float], inactive_file: float) -> None:
    """What cannot be had back without work: usage was read a moment before."""
    usage = gauges.get("memory.usage")
    if usage is not None:
        gauges["memory.working_set"] = max(0, usage - inactive_file)


def _swap_current(data: bytes, _counters: dict[str, float], gauges: dict[str, float]) -> None:
    """v1 counts memory and swap together; v2 does not, but the sum is the same."""
    gauges["memory.swap"] = swap = int(data)
    usage = gauges.get("memory.usage")
    if usage is not None:
        gauges["memory.memsw_usage"] = usage + swap


def _memsw_limit(gauges: dict[str, float]) -> None:
    """As v1 has it: what memory and swap may be together. v2 limits each of them, at every level,
    so it is the sum of the least limits.
    """
    swap, memory = gauges.pop(SWAP_LIMIT, None), gauges.get("memory.limit")
    if swap is not None and memory is not None:
        gauges["memory.memsw_limit"] = memory + swap


def _memory_events(data: bytes, counters: dict[str, float], _gauges: dict[str, float]) -> None:
    words = data.split()
    for name, count in zip(words[::2], words[1::2]):
        if name in (b"low", b"high", b"max", b"oom", b"oom_kill"):
            counters["memory_events." + name.decode()] = int(count)


def _blkio(graph: str) -> Parser:
    def parse(data: bytes, counters: dict[str, float], _gauges: dict[str, float]) -> None:
        for line in data.splitlines():
            words = line.split()
            # The last line adds the devices up, and with them a disk and what lies on it.
            if len(words) == 3:
                number, operation, count = words
                metric = f"{graph}.{device(number)}_{operation.decode().lower()}"
                counters[metric] = int(count)

    return parse


IO_STAT = {
    b"rbytes": ("blkio_bytes", "read"),
    b"wbytes": ("blkio_bytes", "write"),
    b"dbytes": ("blkio_bytes", "discard"),
    b"rios": ("blkio_ops", "read"),
    b"wios": ("blkio_ops", "write"),
    b"dios": ("blkio_ops", "discard"),
}


def _io_stat(data: bytes, counters: dict[str, float], _gauges: dict[str, float]) -> None:
    for line in data.splitlines():
        words = line.split()
        for word in words[1:]:
            key, _, count = word.partition(b"=")
            if key in IO_STAT:
                graph, operation = IO_STAT[key]
                counters[f"{graph}.{device(words[0])}_{operation}"] = int(count)


_devices: dict[bytes, str] = {}


def device(number: bytes) -> str:
    """The kernel's name of a block device, by ``major:minor``."""
    name = _devices.get(number)
    if name is None:
        text = number.decode()
        try:
            name = os.path.basename(os.readlink(os.path.join(BLOCK_ROOT, text)))
        except OSError:
            name = text.replace(":", "-")
        name = _devices[number] = plain(name)
    return name


def plain(name: str) -> str:
    """A name as a part of a metric id takes it."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)


# Interfaces that every network namespace is born with where the kernel has tunnels.
BORN_WITH = {
    *(b"lo", b"tunl0", b"gre0", b"gretap0", b"erspan0", b"ip_vti0", b"ip6_vti0"),
    *(b"sit0", b"ip6tnl0", b"ip6gre0"),
}


def _network(data: bytes, counters: dict[str, float]) -> None:
    """/proc/<pid>/net/dev: two lines of headings, then eight numbers received and eight sent."""
    for line in data.splitlines()[2:]:
        name, _, text = line.partition(b":")
        interface = name.strip()
        if interface in BORN_WITH:
            continue
        numbers = text.split()
        for prefix, first in (("rx", 0), ("tx", 8)):
            for offset, what in enumerate(("bytes", "packets", "errors", "dropped")):
                metric = f"network.{plain(interface.decode())}_{prefix}_{what}"
                counters[metric] = int(numbers[first + offset])


# ------------------------------------------------------------------------------------- what is read

# (controller, file, parser, whether every kernel has it). Usage comes before memory.stat, which
# the working set needs too, and limits before what is added to them.
V1: tuple[tuple[str, str, Parser, bool], ...] = (
    ("cpuacct", "cpuacct.usage", _cpuacct_usage, True),
    ("cpuacct", "cpuacct.stat", _cpuacct_stat, True),
    ("cpuacct", "cpuacct.usage_percpu", _cpuacct_percpu, True),
    ("cpu", "cpu.stat", _throttling_v1, True),
    ("cpu", "cpu.cfs_period_us", _cfs_period, True),
    ("cpu", "cpu.cfs_quota_us", _cfs_quota, True),
    ("memory", "memory.usage_in_bytes", _gauge("memory.usage"), True),
    ("memory", "memory.limit_in_bytes", _limit("memory.limit"), True),
    # Without swap accounting there are no memsw files.
    ("memory", "memory.memsw.limit_in_bytes", _limit("memory.memsw_limit"), False),
    ("memory", "memory.stat", _memory_stat_v1, True),
    ("memory", "memory.max_usage_in_bytes", _gauge("memory.peak"), True),
    ("memory", "memory.failcnt", _counter("memory_events.failcnt"), True),
    ("memory", "memory.memsw.usage_in_bytes", _gauge("memory.memsw_usage"), False),
    ("memory", "memory.memsw.max_usage_in_bytes", _gauge("memory.memsw_peak"), False),
    ("memory", "memory.memsw.failcnt", _counter("memory_events.memsw_failcnt"), False),
    ("blkio", "blkio.throttle.io_service_bytes", _blkio("blkio_bytes"), True),
    ("blkio", "blkio.throttle.io_serviced", _blkio("blkio_ops"), True),
    ("pids", "pids.current", _gauge("processes.pids"), True),
)
V2: tuple[tuple[str, str, Parser, bool], ...] = (
    ("cpu", "cpu.stat", _cpu_stat_v2, True),
    ("cpu", "cpu.max", _cpu_max, True),
    ("memory", "memory.current", _gauge("memory.usage"), True),
    ("memory", "memory.max", _limit("memory.limit"), True),
    ("memory", "memory.stat", _memory_stat_v2, True),
    ("memory", "memory.peak", _gauge("memory.peak"), False),  # Linux 5.19
    ("memory", "memory.swap.current", _swap_current, False),
    ("memory", "memory.swap.max", _limit(SWAP_LIMIT), False),
    ("memory", "memory.events", _memory_events, True),
    ("io", "io.stat", _io_stat, True),
    ("pids", "pids.current", _gauge("processes.pids"), True),
)
# Of any group, whichever controllers it has.
PROCESSES = "cgroup.procs"
THREADS = {1: "tasks", 2: "cgroup.threads"}
# What a group gives all groups below it as a limit. v1 has the memory of them all in memory.stat.
LIMITS: dict[int, tuple[tuple[str, Parser], ...]] = {
    1: (("cpu.cfs_period_us", _cfs_period), ("cpu.cfs_quota_us", _cfs_quota)),
    2: (
        ("cpu.max", _cpu_max),
        ("memory.max", _limit("memory.limit")),
        ("memory.swap.max", _limit(SWAP_LIMIT)),
    ),
}
# What a controller of v1 is called in v2.
CONTROLLERS = (
    *(("pids", "pids"), ("cpuacct", "cpu"), ("cpu", "cpu"), ("memory", "memory")),
    ("blkio", "io"),
)

CORES = os.cpu_count() or 1
TICKS = os.sysconf("SC_CLK_TCK")
BLOCK_ROOT = "/sys/dev/block"


def read_file(path: str, directory: int | None = None) -> bytes:
    """All of a small file of the kernel's, with as few system calls as that takes.

    directory: an open one that the path starts from. To find the way from the root for each file
    takes as long as to read it.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        data = os.read(file, 65536)
        if len(data) >= MANY_BYTES:
            more = os.read(file, 65536)
            while more:
                data += more
                more = os.read(file, 65536)
        return data
    finally:
        os.close(file)


class Container:
    """A container as the agent knows it. running: its task has come up. pids: some of its
    processes. Raises KeyError, TypeError, ValueError for what is none.
    """

    __slots__ = (
        *("address", "awsvpc", "counters", "family", "gauges", "id", "image", "name"),
        *("namespace", "pids", "ports", "read_at", "revision", "running", "task"),
    )

    def __init__(self, task: Json, container: Json, awsvpc: bool) -> None:
        self.task = str(task["Arn"]).rsplit("/", 1)[-1]
        self.family = str(task.get("Family", ""))
        self.revision = str(task.get("Version", ""))
        self.running = task.get("KnownStatus") == "RUNNING"
        self.name = str(container["Name"])
        self.id = str(container["DockerId"])
        for part in (self.task, self.id):
            if plain(part) != part:
                raise ValueError(f"{part!r} is no id")
        self.ports = objects(container.get("Ports"))
        self.awsvpc = awsvpc
        self.address = next(
            (
                str(address)
                for network in objects(container.get("Networks"))
                for address in network.get("IPv4Addresses") or []
            ),
            "",
        )
        self.image = ""
        self.pids: list[str] = []
        self.namespace = ""
        self.read_at = 0.0
        self.counters: dict[str, float] = {}
        self.gauges: dict[str, float] = {}

    def __str__(self) -> str:
        return f"{self.name} (task {self.task})"

    def take_processes(
        self, data: bytes, _counters: dict[str, float], gauges: dict[str, float]
    ) -> None:
        """The parser of cgroup.procs, which knows whose processes they are."""
        pids = data.split()
        gauges["processes.processes"] = len(pids)
        # 0 stands for a process of another namespace of process ids.
        self.pids = [pid.decode() for pid in pids[:PROCESSES_TRIED] if pid != b"0"]

    def entry(self) -> Json:
        """What is printed of it."""
        return {
            "task": self.task,
            "family": self.family,
            "revision": self.revision,
            "container": self.name,
            "id": self.id[:12],
            "at": round(self.read_at, 3),
            "c": self.counters,
            "g": self.gauges,
        }


class Hierarchy:
    """A tree of control groups: one controller of v1, or v2 as a whole.

    directory ends with ``/``; places: container id → its group below it, with ``/`` at the end.
    """

    # Where container runtimes put their groups: by the agent (v1, v2), by Docker's two drivers.
    PATTERNS = (
        "ecs/{task}/{id}/",
        "ecstasks.slice/ecstasks-{task}.slice/docker-{id}.scope/",
        "docker/{id}/",
        "system.slice/docker-{id}.scope/",
    )

    def __init__(self, directory: str, version: int) -> None:
        self.directory = directory
        self.version = version
        self._patterns = list(self.PATTERNS)
        self._walked: dict[str, str] | None = None
        self.places: dict[str, str] = {}

    def open(self, container: Container) -> int | None:
        """Open the directory of a container's group; None when it has none here."""
        for pattern in self._patterns:
            place = pattern.format(task=container.task, id=container.id)
            directory = self._open(place)
            if directory is not None:
                # All are alike, most likely.
                self._patterns.remove(pattern)
                self._patterns.insert(0, pattern)
                break
        else:
            place = self._walk().get(container.id, "")
            directory = self._open(place) if place else None
        if directory is not None:
            self.places[container.id] = place
        return directory

    def _open(self, place: str) -> int | None:
        try:
            return os.open(self.directory + place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None

    def has(self, container: Container) -> bool:
        """Whether the group of a container that was opened is still there."""
        return os.path.isdir(self.directory + self.places[container.id])

    def _walk(self) -> dict[str, str]:
        """All containers of the tree, wherever a daemon's cgroup-parent has put them."""
        if self._walked is None:
            self._walked = {}
            waiting = [("", 0)]
            while waiting:
                place, depth = waiting.pop()
                for name in self.groups(place):
                    found = container_id(name)
                    if found:
                        self._walked[found] = f"{place}{name}/"
                    elif depth < 6:
                        waiting.append((f"{place}{name}/", depth + 1))
        return self._walked

    def groups(self, place: str) -> list[str]:
        """The names of the groups in a group; none when it is not there."""
        try:
            with os.scandir(self.directory + place) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    def others(self, tasks: Iterable[str], ids: Iterable[str]) -> int:
        """How many containers are in the usual places that are neither of these tasks (whose pause
        container the agent does not list) nor among these ids.
        """
        if self._walked is not None:
            found = set(self._walked)
        else:
            known = {*tasks, *(f"ecstasks-{task}.slice" for task in tasks)}
            places = ["docker/", "system.slice/"]
            for parent in ("ecs/", "ecstasks.slice/"):
                names = self.groups(parent)
                places += [f"{parent}{name}/" for name in names if name not in known]
            found = {container_id(name) for place in places for name in self.groups(place)}
        return len(found - set(ids) - {""})


def container_id(name: str) -> str:
    """The container whose group has this name; "" for another group."""
    if name.startswith("docker-") and name.endswith(".scope"):
        name = name[len("docker-") : -len(".scope")]
    return name if len(name) == 64 and not name.strip(HEXADECIMAL) else ""


class Machine:
    """The control groups of this machine, and what is to be read of each container."""

    def __init__(self, roots: Sequence[str], proc: str, problems: Problems) -> None:
        self._proc = proc
        self._problems = problems
        self._limits: dict[str, dict[str, float]] = {}
        unified = self._unified(roots)
        # What is read of a container, where.
        self._rows: dict[Hierarchy, list[tuple[str, Parser, bool]]] = {}
        hierarchies = {}
        for controller, name_in_v2 in CONTROLLERS:
            hierarchy = self._v1(roots, controller)
            if hierarchy is not None:
                hierarchies[controller] = hierarchy
                self._add(hierarchy, V1, controller)
            elif unified is not None and name_in_v2 in unified[1]:
                hierarchies[controller] = unified[0]
                if controller != "cpuacct":  # in v2 the controller cpu does the accounting too
                    self._add(unified[0], V2, name_in_v2)
            else:
                problems.add(f"this machine has no control groups for {controller}")
        if not self._rows:
            raise Unreadable(f"there are no control groups in {', '.join(roots)}")
        # Where containers are looked for, and whether they are still there. Of v1's groups those
        # of pids have the fewest files.
        self.first = next(iter(self._rows))
        self._limiting = {
            hierarchy
            for hierarchy in self._rows
            if hierarchy.version == 2 or hierarchy is hierarchies.get("cpu")
        }
        # Hardened machines show nobody their first process.
        self._host_namespace = self._namespace("1") or self._namespace("self")

    def _add(
        self, hierarchy: Hierarchy, table: Sequence[tuple[str, str, Parser, bool]], controller: str
    ) -> None:
        rows = self._rows.setdefault(hierarchy, [])
        rows += [row[1:] for row in table if row[0] == controller]

    @staticmethod
    def _v1(roots: Sequence[str], controller: str) -> Hierarchy | None:
        """cpu and cpuacct may be mounted together, under both names or under one."""
        names = [controller]
        if controller in ("cpu", "cpuacct"):
            names += ["cpu,cpuacct", "cpuacct,cpu"]
        for root in roots:
            for name in names:
                # Not a group of v2 that happens to have this name.
                if os.path.exists(f"{root}/{name}/tasks"):
                    return Hierarchy(f"{root}/{name}/", 1)
        return None

    @staticmethod
    def _unified(roots: Sequence[str]) -> tuple[Hierarchy, Sequence[str]] | None:
        """v2, alone or beside v1, and its controllers."""
        for root in roots:
            for directory in (root + "/", root + "/unified/"):
                try:
                    controllers = read_file(directory + "cgroup.controllers").decode().split()
                except OSError:
                    continue
                return Hierarchy(directory, 2), controllers
        return None

    def read(self, container: Container) -> bool:
        """Fill in what the files say; False when the container has no group. Raises Gone."""
        container.read_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        for hierarchy, rows in self._rows.items():
            directory = hierarchy.open(container)
            if directory is None:
                if hierarchy is self.first:
                    return False
                self._complain(container, f"has no group in {hierarchy.directory}")
                continue
            try:
                for file, parse, required in rows:
                    self._take(container, directory, file, parse, required)
                if hierarchy is self.first:
                    self._take(container, directory, PROCESSES, container.take_processes, True)
                    threads = THREADS[hierarchy.version]
                    self._take(container, directory, threads, _lines("processes.threads"), True)
            finally:
                os.close(directory)
        for hierarchy in self._limiting:
            around = self._around(hierarchy, hierarchy.places.get(container.id, ""))
            for metric, limit in around.items():
                container.gauges[metric] = min(limit, container.gauges.get(metric, limit))
        container.gauges.pop(CFS_PERIOD, None)
        _memsw_limit(container.gauges)
        return True

    def _take(
        self, container: Container, directory: int, file: str, parse: Parser, required: bool
    ) -> None:
        """Read one file. What goes wrong is noted, unless it is the end of the container."""
        try:
            parse(read_file(file, directory), container.counters, container.gauges)
        except FileNotFoundError:
            self._complain(container, f"{file} is missing" if required else "")
        except OSError as error:
            # Also that of a group which was removed after its file had been opened: ENODEV.
            self._complain(container, f"{file}: {error.strerror}")
        except (ValueError, KeyError, IndexError, ZeroDivisionError) as error:
            self._complain(container, f"{file} is not as expected ({error!r})")

    def _complain(self, container: Container, problem: str) -> None:
        if not self.first.has(container):
            raise Gone
        if problem:
            self._problems.add(problem, str(container))

    def _around(self, hierarchy: Hierarchy, place: str) -> dict[str, float]:
        """The least limits of the groups around one, such as a task's: they hold for it too."""
        parent = place[: place.rstrip("/").rfind("/") + 1]
        if not parent:
            return {}
        limits = self._limits.get(hierarchy.directory + parent)
        if limits is None:
            limits = dict(self._around(hierarchy, parent))
            for file, parse in LIMITS[hierarchy.version]:
                try:
                    parse(read_file(hierarchy.directory + parent + file), {}, limits)
                except (OSError, ValueError, KeyError, ZeroDivisionError):
                    continue  # a group without this controller limits nothing
            limits.pop(CFS_PERIOD, None)
            self._limits[hierarchy.directory + parent] = limits
        return limits

    # -------------------------------------------------------------------------------------- network

    def networks(self, containers: Sequence[Container]) -> list[Json]:
        """Add the counters of the network: to a container that has one of its own; what a whole
        task has together (awsvpc) is returned as entries. The instance's own is nobody's.
        """
        shared: dict[tuple[str, str], list[Container]] = {}
        for container in containers:
            if not container.pids:
                continue
            container.namespace = next(filter(None, map(self._namespace, container.pids)), "")
            if not container.namespace:
                self._problems.add("its network cannot be seen", str(container))
            elif container.namespace != self._host_namespace:
                shared.setdefault((container.task, container.namespace), []).append(container)
        entries = []
        for members in shared.values():
            container = members[0]
            counters = self._traffic(members)
            if len(members) == 1 and not container.awsvpc:
                container.counters.update(counters)
            elif counters:
                network = dict(container.entry(), container=TASK, c=counters, g={})
                entries.append(network)
        return entries

    def _traffic(self, members: Sequence[Container]) -> dict[str, float]:
        """The counters of the network that some containers share, by the first of their processes
        that is still there; none, and a problem, when there is no such.
        """
        problem = ""
        for member in members:
            for pid in member.pids:
                counters: dict[str, float] = {}
                try:
                    # Behind the first that can be seen there may be one with another network.
                    if self._namespace(pid) == member.namespace:
                        _network(read_file(f"{self._proc}/{pid}/net/dev"), counters)
                        return counters
                except OSError as error:
                    problem = problem or f"net/dev: {error.strerror}"
                except (ValueError, IndexError) as error:
                    problem = problem or f"net/dev is not as expected ({error!r})"
        self._problems.add(problem or "its network cannot be seen", str(members[0]))
        return {}

    def in_host_network(self, container: Container) -> bool:
        return bool(container.namespace) and container.namespace == self._host_namespace

    def address(self, container: Container) -> str:
        """The first address of a container's own network that is not a loopback one, else "".

        From the routing table of its network namespace, which lists local addresses as
        ``|-- 172.17.0.2`` and below it ``/32 host LOCAL``.
        """
        address = ""
        for line in self._routes(container).splitlines():
            words = line.split()
            if words[:1] == ["|--"]:
                address = words[1]
            elif words == ["/32", "host", "LOCAL"] and not address.startswith("127."):
                return address
        return ""

    def _routes(self, container: Container) -> str:
        for pid in container.pids:
            try:
                return read_file(f"{self._proc}/{pid}/net/fib_trie").decode()
            except (OSError, ValueError):
                continue
        return ""

    def _namespace(self, pid: str) -> str:
        try:
            return os.readlink(f"{self._proc}/{pid}/ns/net")
        except OSError:
            return ""


# ------------------------------------------------------------------------------------ the ECS agent


def ask(where: str, path: str, seconds: float = AGENT_SECONDS) -> Any:
    """GET some JSON. where: ``host:port``, or ``unix:///path``. seconds: to the last byte.
    Raises OSError, ValueError.

    HTTP/1.0, where an answer ends with its connection: modules that know more of HTTP, and socket
    on top of _socket, take longer to import than everything else here.
    """
    deadline = time.monotonic() + seconds
    target: Any
    if where.startswith("unix://"):
        family, target = _socket.AF_UNIX, where[len("unix://") :]
    else:
        host, _, port = where.rpartition(":")
        family, target = _socket.AF_INET, (host, int(port))
    connection = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        connection.settimeout(max(0.001, seconds))
        connection.connect(target)
        request = f"GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
        connection.send(request.encode())
        answer = bytearray()
        received = connection.recv(65536)
        while received:
            answer += received
            if len(answer) > ANSWER_BYTES:
                raise ValueError(f"{path} answered more than {ANSWER_BYTES >> 20} MB")
            left = deadline - time.monotonic()
            if left <= 0:
                raise OSError(f"{path} did not answer within {seconds:g} s")
            connection.settimeout(left)
            received = connection.recv(65536)
    finally:
        connection.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(None, 2)[1:2]
    if status != [b"200"]:
        raise ValueError("{} answered {!r}".format(path, head[:100].decode("latin-1")))
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError(f"{path} answered nonsense") from None


def objects(found: Any) -> list[Json]:
    """The JSON objects in a list of them; what else is there, or instead of it, is nothing."""
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def known_containers(agent: str, problems: Problems) -> tuple[str, list[Container]]:
    """(the container instance, its containers), as the agent knows them. Raises Unreadable."""
    try:
        instance = str(ask(agent, "/v1/metadata").get("ContainerInstanceArn") or "")
        tasks = list(ask(agent, "/v1/tasks")["Tasks"] or [])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Unreadable(f"the ECS agent at {agent} does not say what runs here: {error}") from None
    containers: list[Container] = []
    for task in tasks:
        try:
            containers += _containers_of(task, problems)
        except (KeyError, TypeError, AttributeError) as error:
            problems.add(f"the agent describes a task unlike others: {error!r}")
    return instance, containers


def _containers_of(task: Json, problems: Problems) -> Iterator[Container]:
    """The containers of a task that were created, without the agent's own."""
    if task.get("KnownStatus") == "STOPPED":
        return
    described = objects(task.get("Containers"))
    awsvpc = any(
        one.get("Name") == PAUSE
        or any(net.get("NetworkMode") == "awsvpc" for net in objects(one.get("Networks")))
        for one in described
    )
    for one in described:
        if one.get("DockerId") and one.get("Name") != PAUSE:
            try:
                yield Container(task, one, awsvpc)
            except (KeyError, TypeError, ValueError) as error:
                problems.add(f"the agent describes a container unlike others: {error!r}")


# ------------------------------------------------------------------------------------------ plugins


class Job:
    """A command that is run, and what it has printed. problem: what went wrong, else ""."""

    def __init__(self, command: str, environment: Mapping[str, str], seconds: float) -> None:
        self.command = command
        self.environment = environment
        self.seconds = seconds
        self.deadline = 0.0
        self.problem = ""
        self.pipes: dict[str, Any] = {}
        self._too_late = f"did not end within {seconds:g} s"
        self._output = {"stdout": b"", "stderr": b""}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def text(self) -> str:
        return self._output["stdout"].decode("utf-8", "replace")

    def start(self, deadline: float) -> bool:
        """Start it; False when that cannot be. deadline: of all jobs, by time.monotonic."""
        import subprocess  # only when there are plugins: it is slow to import

        self.deadline = time.monotonic() + self.seconds
        if deadline < self.deadline:
            self.deadline = deadline
            self._too_late = "was ended before its time: others had taken too much of it"
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", self.command],
                bufsize=0,
                env=dict(self.environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # A group of its own, so that it can be ended with all that it has started.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in the command
            self.problem = f"cannot be started: {error}"
            return False
        self.pipes = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        for pipe in self.pipes.values():
            os.set_blocking(pipe.fileno(), False)
        return True

    def receive(self, stream: str) -> bool:
        """Take some of what it has printed; False when there is no more, now or ever."""
        try:
            data = os.read(self.pipes[stream].fileno(), 65536)
        except BlockingIOError:
            return False
        if not data:
            self.pipes.pop(stream).close()
            return False
        self._output[stream] += data
        if len(self._output[stream]) > PLUGIN_BYTES:
            self.problem = self.problem or f"printed more than {PLUGIN_BYTES // 1024} KB"
        return not self.problem

    def is_over(self, now: float) -> bool:
        """Whether its shell has ended, or it has to end. now: by time.monotonic."""
        if self.problem or self._process is None:
            return True
        pid = self._process.pid
        try:
            # Not waited for yet: until then nobody else's process group can have its number.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return True
        except ChildProcessError:
            return True
        if self.deadline <= now:
            self.problem = self._too_late
            return True
        return False

    def end(self) -> None:
        """End whatever is left of it: also what its shell has started and not waited for."""
        import signal

        if self._process is None:
            return
        try:  # noqa: SIM105 - contextlib takes longer to import
            os.killpg(self._process.pid, signal.SIGKILL)
        except OSError:
            pass  # nobody is left
        # What has left its group may keep a pipe open, and write to it, for ever.
        for stream in list(self.pipes):
            while self.receive(stream):
                pass
        for pipe in self.pipes.values():
            pipe.close()
        self.pipes = {}

    def wait(self, seconds: float) -> None:
        """Wait until a job that was ended is gone."""
        import subprocess

        if self._process is None:
            return
        try:
            status = self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return  # it waits for a device: nothing can be done
        if status and not self.problem:
            lines = self._output["stderr"].decode("utf-8", "replace").strip().splitlines()
            self.problem = f"ended with status {status}" + (f": {lines[-1]}" if lines else "")


def run_together(jobs: Sequence[Job], deadline: float) -> None:
    """Run some jobs at a time, each no longer than it may, and none after the deadline of all, by
    time.monotonic. A job that could not be begun until then has that as its problem.
    """
    waiting = list(reversed(jobs))
    running: list[Job] = []
    try:
        while waiting or running:
            now = time.monotonic()
            for job in [job for job in running if job.is_over(now)]:
                job.end()
                running.remove(job)
            while waiting and len(running) < PLUGINS_AT_A_TIME:
                job = waiting.pop()
                if deadline <= now:
                    job.problem = "was not run: others had taken all the time"
                elif job.start(deadline):
                    running.append(job)
            take_output(running)
    finally:
        for job in running:
            job.end()
    gone = time.monotonic() + KILLED_SECONDS
    for job in jobs:
        job.wait(gone - time.monotonic())


def take_output(running: Sequence[Job]) -> None:
    """Take what jobs print, until one may be over."""
    import select

    pipes = {pipe: (job, stream) for job in running for stream, pipe in job.pipes.items()}
    # A job without pipes is about to end.
    silent = any(not job.pipes for job in running)
    pause = SHORT_PAUSE_SECONDS if silent else PAUSE_SECONDS
    if running:
        for pipe in select.select(list(pipes), [], [], pause)[0]:
            job, stream = pipes[pipe]
            job.receive(stream)


class Plugins:
    """The configured plugins, and the containers that each is run for."""

    def __init__(self, plugins: Sequence[Json], home: str, problems: Problems) -> None:
        self._home = home
        self._problems = problems
        self._plugins = []
        for plugin in plugins:
            if isinstance(plugin["name"], str) and isinstance(plugin["command"], str):
                self._plugins.append(plugin)
            else:
                problems.add(f"{plugin!r} is no plugin")
        self._asked: list[tuple[Json, Container, Job]] = []

    def entries(
        self, machine: Machine, containers: Sequence[Container], engine: str, deadline: float
    ) -> list[Json]:
        """Run them all; return what they say as entries. deadline: of all, by time.monotonic."""
        self._tidy(containers)
        self._name_images(containers, engine)
        pairs = self._pairs(machine, containers)
        jobs = [job for _, _, job in pairs]
        slowest = max((job.seconds for job in jobs), default=0.0)
        deadline = min(time.monotonic() + slowest + SPARE_SECONDS, deadline + slowest)
        run_together(jobs, deadline)
        told: dict[str, Json] = {}
        entries = []
        for plugin, container, job in pairs:
            values = self._values(plugin, container, job)
            if values:
                entry = container.entry()
                for key in ("c", "g", "at", "id"):
                    del entry[key]
                entry["plugin"] = plugin["name"]
                entry["aggregate"] = plugin.get("aggregate", "sum")
                entry["values"] = values
                entry["graphs"] = None
                entries.append(entry)
                # Once is enough: it is the same for all.
                if plugin["name"] not in told:
                    told[plugin["name"]] = entry
                    self._ask_later(plugin, container, job)
        self._ask_graphs(deadline + SPARE_SECONDS)
        for plugin in self._plugins:
            if plugin["name"] in told:
                told[plugin["name"]]["graphs"] = self._graphs(plugin)
        return entries

    def _pairs(
        self, machine: Machine, containers: Sequence[Container]
    ) -> list[tuple[Json, Container, Job]]:
        """What is to be run for which container."""
        pairs = []
        for plugin in self._plugins:
            for container in containers:
                try:
                    if chosen(plugin, container):
                        job = self._job(plugin, container, machine)
                        pairs.append((plugin, container, job))
                except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
                    self._note(plugin, container, f"cannot be run: {error!r}")
        return pairs

    def _note(self, plugin: Json, container: Container, what: str) -> None:
        self._problems.add("plugin {} {}".format(plugin.get("name"), what), str(container))

    def _name_images(self, containers: Sequence[Container], engine: str) -> None:
        """The agent does not say which image a container was made from; Docker does."""
        if not any(plugin.get("image") for plugin in self._plugins):
            return
        deadline = time.monotonic() + DOCKER_SECONDS
        try:
            listed = objects(ask(engine, "/containers/json", DOCKER_SECONDS))
        except (OSError, ValueError) as error:
            self._problems.add(f"Docker at {engine} does not say what runs here: {error}")
            return
        images = {one.get("Id"): str(one.get("Image", "")) for one in listed}
        for container in containers:
            container.image = images.get(container.id, "")
            # Its name was given to another image since; how it was started is kept.
            if container.image.startswith("sha256:"):
                path = f"/containers/{container.id}/json"
                try:
                    described = ask(engine, path, deadline - time.monotonic())
                    container.image = str(described["Config"]["Image"])
                except (OSError, ValueError, KeyError, TypeError) as error:
                    self._problems.add(f"Docker does not name its image: {error}", str(container))

    def _job(self, plugin: Json, container: Container, machine: Machine) -> Job:
        directory = os.path.join(self._home, "state", container.id[:12], file_name(plugin["name"]))
        os.makedirs(directory, exist_ok=True)
        link = plugin.get("link") or container.name
        environment = dict(
            os.environ,
            # What mackerel-agent's plugins keep between two runs is one container's.
            MACKEREL_PLUGIN_WORKDIR=directory,
            MACKEREL_AGENT_PLUGIN_META="",
            PATH=":".join(
                (os.environ.get("PATH", os.defpath), PLUGIN_PATHS, os.path.join(OWN_PLACE, "bin"))
            ),
        )
        variables, unlinked = link_variables(link, plugin["command"], machine, container)
        if unlinked:
            self._note(
                plugin,
                container,
                "asks for a port of a container that has no address and has not published it",
            )
        environment.update(variables)
        seconds = float(plugin.get("timeout_seconds", PLUGIN_SECONDS))
        return Job(plugin["command"], environment, min(PLUGIN_MOST_SECONDS, seconds))

    def _values(self, plugin: Json, container: Container, job: Job) -> list[list[Any]]:
        if job.problem:
            self._note(plugin, container, job.problem)
            return []
        values, garbage = plugin_values(job.text)
        if garbage:
            self._note(plugin, container, "printed {}".format("; ".join(garbage[:3])))
        elif not values:
            self._note(plugin, container, "printed no values")
        return values

    # Graph definitions seldom change: they are asked for once an hour and kept in between.

    def _graph_file(self, plugin: Json) -> str:
        name = file_name(plugin["name"], plugin["command"])
        return os.path.join(self._home, "graphs", f"{name}.json")

    def _ask_later(self, plugin: Json, container: Container, job: Job) -> None:
        """Have a plugin that has printed values asked for its definitions, when that is due."""
        try:
            age = time.time() - os.stat(self._graph_file(plugin)).st_mtime
        except OSError:
            age = -1.0
        if not 0 <= age < GRAPHS_SECONDS:
            # Some keep state whatever they are asked: away from the values'.
            scratch = os.path.join(self._home, "scratch", str(os.getpid()))
            environment = dict(
                job.environment, MACKEREL_AGENT_PLUGIN_META="1", MACKEREL_PLUGIN_WORKDIR=scratch
            )
            asked = Job(plugin["command"], environment, job.seconds)
            self._asked.append((plugin, container, asked))

    def _ask_graphs(self, deadline: float) -> None:
        """Ask for definitions and keep them. Those from before stay when a plugin fails, and it is
        asked again in the next minute.
        """
        if not self._asked:
            return
        import shutil

        scratch = os.path.join(self._home, "scratch", str(os.getpid()))
        try:
            os.makedirs(scratch, exist_ok=True)
            run_together([job for _, _, job in self._asked], deadline)
            for plugin, container, job in self._asked:
                try:
                    graphs = None if job.problem else plugin_graphs(job.text)
                except ValueError as error:
                    job.problem = str(error)
                if job.problem:
                    self._note(plugin, container, f"does not say its graphs: {job.problem}")
                else:
                    self._keep_graphs(plugin, graphs)
        except OSError as error:
            self._problems.add(f"graph definitions cannot be kept: {error}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _keep_graphs(self, plugin: Json, graphs: Json | None) -> None:
        path = self._graph_file(plugin)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        new = f"{path}.{os.getpid()}"
        with open(new, "w", encoding="utf-8") as file:
            json.dump(graphs, file)
        os.replace(new, path)

    def _graphs(self, plugin: Json) -> Any:
        try:
            return json.loads(read_file(self._graph_file(plugin)))
        except (OSError, ValueError):
            return None

    def _tidy(self, containers: Sequence[Container]) -> None:
        """Forget what plugins kept of containers that are gone, and what is left of plugins that
        are not configured any more, and of runs that were ended.
        """
        alive = {container.id[:12] for container in containers}
        names = {file_name(str(plugin["name"])) for plugin in self._plugins}
        graphs = {os.path.basename(self._graph_file(plugin)) for plugin in self._plugins}
        states = os.path.join(self._home, "state")
        for container in names_in(states):
            place = os.path.join(states, container)
            if container not in alive or not names:
                remove(place)
                continue
            for name in names_in(place):
                if name not in names:
                    remove(os.path.join(place, name))
        for folder, wanted in (("graphs", graphs), ("scratch", set())):
            for name in names_in(os.path.join(self._home, folder)):
                path = os.path.join(self._home, folder, name)
                # One that was just made may be another run's, not yet ended.
                if name not in wanted and not is_new(path):
                    remove(path)


def names_in(directory: str) -> list[str]:
    """What is in a directory; nothing when it is none."""
    try:
        return os.listdir(directory)
    except OSError:
        return []


def is_new(path: str) -> bool:
    """Whether something was made or changed within a minute or two."""
    try:
        return abs(time.time() - os.stat(path).st_mtime) < 120
    except OSError:
        return False


def remove(path: str) -> None:
    """Remove a file or a directory with all in it, as far as that is possible."""
    import shutil

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    try:  # noqa: SIM105 - contextlib takes longer to import
        os.unlink(path)
    except OSError:
        pass  # another run has done it


def file_name(name: str, more: str = "") -> str:
    """A name for a file: short, readable, and a different one for all that differs."""
    import hashlib

    sign = hashlib.sha256(f"{name}\0{more}".encode(errors="backslashreplace")).hexdigest()
    return f"{plain(name)[:40]}-{sign[:16]}"


def chosen(plugin: Json, container: Container) -> bool:
    """Whether a plugin is for a container: by its name, or by the repository of its image."""
    import fnmatch

    wanted = plugin.get("container")
    if wanted:
        return fnmatch.fnmatchcase(container.name, wanted)
    repository = repository_of(container.image)
    official = repository[len("library/") :] if repository.startswith("library/") else repository
    return bool(repository) and any(
        fnmatch.fnmatchcase(name, plugin["image"]) for name in {repository, official}
    )


def repository_of(image: str) -> str:
    """An image's name without registry, tag and digest."""
    name = image.partition("@")[0]
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        name = rest
    return name.partition(":")[0]


def link_variables(
    link: str, command: str, machine: Machine, container: Container
) -> tuple[dict[str, str], bool]:
    """What Docker's --link would set for each port: ``MEMCACHED_PORT_11211_TCP_ADDR`` and so on;
    and whether the command asks for one that cannot be set.

    The ports are those of the task definition and those that the command asks for. The address is
    the container's own where it has one; else it is where Docker has published the port.
    """
    import re

    prefix = re.sub("[^A-Z0-9]", "_", link.upper())
    asked = {
        (int(port), protocol.lower())
        for port, protocol in re.findall(prefix + "_PORT_([0-9]{1,5})_(TCP|UDP)", command)
    }
    mapped = {
        (number(port.get("ContainerPort")), str(port.get("Protocol") or "tcp").lower()): port
        for port in container.ports
        if number(port.get("ContainerPort"))
    }
    own = "127.0.0.1" if machine.in_host_network(container) else ""
    own = own or container.address or machine.address(container)
    variables: dict[str, str] = {}
    missing = False
    for port, protocol in sorted({*mapped, *asked}, key=lambda one: (one[1] != "tcp", one[0])):
        place = (own, port) if own else published(mapped.get((port, protocol), {}))
        if not place[1]:
            missing = missing or (port, protocol) in asked
            continue
        url = "{}://{}:{}".format(protocol, *place)
        name = f"{prefix}_PORT_{port}_{protocol.upper()}"
        variables.setdefault(prefix + "_PORT", url)
        variables[name] = url
        variables[name + "_ADDR"], variables[name + "_PORT"] = place[0], str(place[1])
        variables[name + "_PROTO"] = protocol
    return variables, missing


def published(mapping: Json) -> tuple[str, int]:
    """(address, port) on the instance of a port of a container; port 0 when it has none."""
    address = str(mapping.get("HostIp") or "")
    if address in ("", "0.0.0.0", "::"):  # noqa: S104 - where Docker listens, not we
        address = "127.0.0.1"
    return address, number(mapping.get("HostPort"))


def number(found: Any) -> int:
    """A port of the agent's answer; 0 for what is none."""
    return found if isinstance(found, int) else 0


def plugin_values(text: str) -> tuple[list[list[Any]], list[str]]:
    """(``[key, value]`` of each line, what was wrong with others). As mackerel-agent does: lines of
    fewer than three words mean nothing.
    """
    import math
    import re

    values: dict[str, float] = {}
    garbage = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            value = float(words[1])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            garbage.append(f"{words[1][:40]} for {words[0][:60]}")
        elif not re.match(r"[a-zA-Z0-9._-]+\Z", words[0]):
            garbage.append(f"the key {words[0][:60]!r}")
        else:
            values[words[0]] = int(value) if value.is_integer() else round(value, 6)
    return [[key, value] for key, value in values.items()], garbage


def plugin_graphs(text: str) -> Json | None:
    """The graph definitions that a plugin prints for MACKEREL_AGENT_PLUGIN_META; None when it does
    not know of that. Raises ValueError for what should be some and is not.
    """
    first, _, rest = text.partition("\n")
    if "mackerel-agent-plugin" not in first:
        return None
    try:
        graphs = json.loads(rest)
    except RecursionError:
        graphs = None
    if not isinstance(graphs, dict):
        raise ValueError("they are no JSON object")  # noqa: TRY004 - as json.loads says it
    return graphs


# ------------------------------------------------------------------------------------------- output


def lines_of(entries: Sequence[Json]) -> Iterator[str]:
    """Pack entries into lines of about LINE_CHARACTERS, as many in each as have room."""
    at, many = 0, 8
    while at < len(entries):
        taken = entries[at : at + many]
        text = packed(taken)
        if len(text) > LINE_CHARACTERS and len(taken) > 1:
            many = max(1, min(len(taken) - 1, many * LINE_CHARACTERS * 9 // 10 // len(text)))
            continue
        yield text
        at += len(taken)
        many = max(1, many * LINE_CHARACTERS * 9 // 10 // len(text))


def packed(entries: Sequence[Json]) -> str:
    text = json.dumps(entries, separators=(",", ":"))
    return base64.b85encode(zlib.compress(text.encode(), 6)).decode()


def collect(plugins: Sequence[Json], environment: Mapping[str, str]) -> list[str]:
    """Read everything; return the lines to print. Raises Unreadable."""
    began = time.monotonic()
    problems = Problems()
    agent = environment.get("ECS_INTROSPECTION", INTROSPECTION)
    roots = environment.get("ECS_BLUEGREEN_CGROUP_ROOT", ROOTS).split(":")
    at = time.time()
    instance, known = known_containers(agent, problems)
    machine = Machine(roots, environment.get("ECS_BLUEGREEN_PROC_ROOT", "/proc"), problems)
    read = read_all(machine, known, problems)
    entries = machine.networks(read)
    entries = [container.entry() for container in read] + entries
    home = os.path.join(environment.get("ECS_BLUEGREEN_HOME", DEFAULT_HOME), ".metrics")
    # Without plugins there may still be what earlier ones have left.
    if plugins or names_in(os.path.join(home, "state")):
        runner = Plugins(plugins, home, problems)
        engine = environment.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        try:
            entries += runner.entries(machine, read, engine, began + LATE_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is: containers have to be told of
            problems.add(f"the plugins have failed: {error!r}")
    lines = list(lines_of(entries))
    tasks = {container.task for container in known}
    head = {
        "v": VERSION,
        "at": round(at, 3),
        "instance": instance,
        "containers": len(read),
        "lines": len(lines),
        "problems": problems.said(),
        "unknown": machine.first.others(tasks, [container.id for container in known]),
    }
    return [json.dumps(head, separators=(",", ":")), *lines]


def read_all(machine: Machine, known: Sequence[Container], problems: Problems) -> list[Container]:
    """Read those that are there. A container may have ended while others of its task run on; a
    running task without any is a problem.
    """
    read = []
    for container in known:
        try:
            if machine.read(container):
                read.append(container)
        except Gone:
            problems.add("ended while it was read", str(container))
            container.running = False
    there = {container.task for container in read}
    for container in known:
        if container.running and container.task not in there:
            problems.add("has no control group", str(container))
    return read


def parse_plugins(text: str) -> list[Json]:
    """The parameter Plugins of the document: base64 of a JSON list. Raises Unreadable."""
    if not text:
        return []
    try:
        plugins = json.loads(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise Unreadable(f"the plugins are not base64 of JSON: {error}") from None
    for plugin in plugins if isinstance(plugins, list) else [plugins]:
        if not isinstance(plugin, dict) or not {"name", "command"} <= set(plugin):
            raise Unreadable(f"{plugin!r} is not a plugin")
    return list(plugins)


OWN_PLACE = os.path.dirname(os.path.abspath(__file__))
"""Where the document has put this program; in bin/ below it are the plugins that ship with it."""


def main(arguments: Sequence[str]) -> int:
    """Print what there is; return the exit status. arguments: the plugins, or nothing."""
    try:
        lines = collect(parse_plugins(arguments[0] if arguments else ""), os.environ)
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
