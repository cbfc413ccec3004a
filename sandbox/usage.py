"""What a container has used so far, read from the kernel: of a session, or of a cgroup.

Counters only grow: CPU time, bytes on disks, the network. Only a process that nobody waited for
takes what it has used with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
SESSION, USER_TICKS, CHILD_SYSTEM_TICKS, RESIDENT_PAGES = 3, 11, 14, 21
"""Places in /proc/<pid>/stat after the name of the program; proc(5)."""
NETWORK_COLUMNS = {"Bytes": 0, "Packets": 1, "Errors": 2, "Dropped": 3}
"""Of what was received, in /proc/<pid>/net/dev; of what was sent they begin SENT columns later."""
SENT = 8
FRESH_SECONDS = 0.5


@dataclass(frozen=True)
class Usage:
    """``cpu_seconds``, ``read_bytes``, ``written_bytes`` and ``network`` since the start,
    ``memory_bytes`` now. ``network`` is empty where the container has none of its own; else it has
    RxBytes, RxPackets, RxErrors, RxDropped and the same with Tx.
    """

    cpu_seconds: float
    memory_bytes: int
    read_bytes: int
    written_bytes: int
    network: Mapping[str, int] = field(default_factory=dict)


def of_session(leader: int) -> Usage | None:
    """What the processes of a session have used, by its first process; None when all are gone.

    A shell can make process groups of its own; they stay in the session.
    """
    ticks = pages = read = written = 0
    found = False
    for pid in _sessions.members(leader):
        try:
            fields = _stat(pid)
            moved = _pairs((PROC / pid / "io").read_text().replace(":", ""))
        except (OSError, IndexError):  # it ends while it is read, or io belongs to somebody else
            continue
        found = True
        ticks += sum(map(int, fields[USER_TICKS : CHILD_SYSTEM_TICKS + 1]))
        pages += int(fields[RESIDENT_PAGES])
        read += moved["read_bytes"]
        written += moved["write_bytes"]
    return Usage(ticks / TICKS, pages * PAGE, read, written) if found else None


class _Sessions:
    """Which processes belong to which session; asked for many at a time, /proc is read once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = -FRESH_SECONDS
        self._members: dict[int, list[str]] = {}

    def members(self, leader: int) -> list[str]:
        """The ids of the processes of a session."""
        with self._lock:
            is_new = leader not in self._members and (PROC / str(leader)).exists()
            if is_new or time.monotonic() - self._read_at >= FRESH_SECONDS:
                self._read()
            return self._members.get(leader, [])

    def _read(self) -> None:
        self._members = {}
        for place in PROC.glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                session = int(_stat(place.name)[SESSION])
                self._members.setdefault(session, []).append(place.name)
        self._read_at = time.monotonic()


_sessions = _Sessions()


def _stat(pid: str) -> list[bytes]:
    return (PROC / pid / "stat").read_bytes().rpartition(b") ")[2].split()


def of_cgroup(container_id: str) -> Usage | None:
    """What a container of Docker has used, by its long id; None when it has no group (any more)."""
    try:
        groups = _groups(container_id)
        if groups is None:
            return None
        if (groups["memory"] / "memory.current").exists():
            return _of_v2(groups["memory"])
        return _of_v1(groups)
    except (OSError, KeyError, ValueError):
        return None


def _of_v1(groups: Mapping[str, Path]) -> Usage:
    stat = _pairs((groups["memory"] / "memory.stat").read_text())
    usage = int((groups["memory"] / "memory.usage_in_bytes").read_text())
    moved = {"Read": 0, "Write": 0}
    for line in _lines(groups.get("blkio"), "blkio.throttle.io_service_bytes"):
        parts = line.split()
        if len(parts) == len(("8:0", "Read", "4096")) and parts[1] in moved:
            moved[parts[1]] += int(parts[2])
    return Usage(
        int((groups["cpuacct"] / "cpuacct.usage").read_text()) / 1e9,
        max(0, usage - stat.get("total_inactive_file", 0)),
        moved["Read"],
        moved["Write"],
        _network(groups["memory"]),
    )


def _of_v2(group: Path) -> Usage:
    moved = {"rbytes": 0, "wbytes": 0}
    for line in _lines(group, "io.stat"):
        for pair in line.split()[1:]:
            key, _, value = pair.partition("=")
            if key in moved:
                moved[key] += int(value)
    inactive = _pairs((group / "memory.stat").read_text()).get("inactive_file", 0)
    return Usage(
        _pairs((group / "cpu.stat").read_text())["usage_usec"] / 1e6,
        max(0, int((group / "memory.current").read_text()) - inactive),
        moved["rbytes"],
        moved["wbytes"],
        _network(group),
    )


def _groups(container_id: str) -> Mapping[str, Path] | None:
    """The directories of a container's group by controller; with version 2 it is one for all.

    Found by one of its processes, as /proc/<pid>/cgroup says: so the layout does not matter.
    """
    for place in PROC.glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            text = place.read_text()
            if container_id in text:
                return dict(_directories(text, container_id))
    return None


def _directories(text: str, container_id: str) -> Iterator[tuple[str, Path]]:
    # What a container makes below its own group counts to that.
    own = re.compile(rf"^.*{container_id}(?:\.scope)?")
    for line in sorted(text.splitlines(), key=lambda line: not line.startswith("0::")):
        _, controllers, path = line.split(":", 2)
        match = own.match(path)
        if match is None:
            continue
        for controller in controllers.split(",") if controllers else ["memory"]:
            yield controller, CGROUPS / f"{controllers}{match[0]}".lstrip("/")


def _network(group: Path) -> dict[str, int]:
    """All interfaces but lo of the group's first process."""
    pids = _lines(group, "cgroup.procs")
    totals = {f"{way}{name}": 0 for way in ("Rx", "Tx") for name in NETWORK_COLUMNS}
    for line in _lines(PROC / pids[0] / "net" if pids else None, "dev")[2:]:
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            continue
        columns = [int(number) for number in numbers.split()]
        for column, place in NETWORK_COLUMNS.items():
            totals[f"Rx{column}"] += columns[place]
            totals[f"Tx{column}"] += columns[place + SENT]
    return totals


def _lines(directory: Path | None, name: str) -> list[str]:
    try:
        return (directory / name).read_text().splitlines() if directory else []
    except OSError:
        return []


def _pairs(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in _two(text)}


def _two(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdigit():
            yield key, value
