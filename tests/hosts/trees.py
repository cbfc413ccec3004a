"""Trees of control groups in a directory, from fixtures, and what the program says of them.

A fixture is a text of ``==> path <==`` lines with the content of each file below its line, as
``head -v`` prints it. ``{group}`` in a path is the group of a container, ``{parent}`` the group
around it; what begins with ``proc/`` belongs below /proc. What is before the first path is about
the fixture.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hosts import ecs_bluegreen_metrics as program
from tests.hosts.machine import AGENT_PORT, Agent

FIXTURES = Path(__file__).parent / "fixtures"
V1 = "cgroup-v1-linux-6.18"
V2 = "cgroup-v2-linux-6.1"
V2_WITHOUT_SWAP = "cgroup-v2-linux-5.10"
PIDS = {V1: 495, V2: 4242, V2_WITHOUT_SWAP: 977}
"""The first process of each."""
HOST_NETWORK = "net:[4026531840]"

V1_LAYOUTS = (
    "ecs/{task}/{id}",
    "docker/{id}",
    "system.slice/docker-{id}.scope",
    "company/services/{id}",  # a daemon's own cgroup-parent
)
V2_LAYOUTS = (
    "ecstasks.slice/ecstasks-{task}.slice/docker-{id}.scope",
    "ecs/{task}/{id}",
    "docker/{id}",
    "system.slice/docker-{id}.scope",
    "company.slice/company-services.slice/docker-{id}.scope",
)

Task = dict[str, Any]


class ListeningAgent(Agent):
    """An ECS agent; where: its ``host:port``."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.where = f"{address}:{AGENT_PORT}"


def files_of(fixture: str) -> Iterator[tuple[str, str]]:
    """(path, content) of each file."""
    text = (FIXTURES / f"{fixture}.txt").read_text()
    parts = re.split(r"^==> (.+) <==\n", text, flags=re.MULTILINE)[1:]
    for path, content in zip(parts[::2], parts[1::2], strict=True):
        yield path, content.removesuffix("\n")


def content_of(fixture: str, path: str) -> str:
    """The content of one file."""
    return dict(files_of(fixture))[path]


def container_id(number: int) -> str:
    """The long id of a made-up container."""
    return f"{number:012x}".ljust(64, "a")


def task_id(number: int) -> str:
    """The id of a made-up task."""
    return f"{number:x}".rjust(32, "0")


def task(number: int, *names: str, **more: Any) -> Task:
    """A running task as the agent describes it, with containers of the numbers ``number``0, 1, …"""
    containers = [
        {"DockerId": container_id(number * 16 + index), "DockerName": name, "Name": name}
        for index, name in enumerate(names)
    ]
    return {
        "Arn": f"arn:aws:ecs:eu-west-1:123456789012:task/web/{task_id(number)}",
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "Family": "shop",
        "Version": "7",
        "Containers": containers,
    } | more


class Tree:
    """The directories that a machine would have below /sys/fs/cgroup, /proc and /sys/dev/block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "cgroup"
        self.proc = directory / "proc"
        self.block = directory / "block"
        self.block.mkdir(parents=True)
        for number, name in (("259:0", "nvme0n1"), ("253:0", "dm-0"), ("254:0", "vda")):
            (self.block / number).symlink_to(f"../../devices/virtual/block/{name}")
        self.namespace("1", HOST_NETWORK)

    def namespace(self, pid: str, name: str) -> None:
        """Say in which network a process is."""
        link = self.proc / pid / "ns" / "net"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(name)

    def add(
        self,
        fixture: str,
        layout: str,
        number: int = 1,
        index: int = 0,
        *,
        below: Path | None = None,
        only: Sequence[str] = ("",),
        network: str = "",
    ) -> Path:
        """Make the groups of a container of ``task(number)``; gives one of its directories.

        only: beginnings of the paths in the fixture. network: its network namespace, by default
        one of its own. Its processes get numbers of their own.
        """
        root = below or self.root
        group = layout.format(task=task_id(number), id=container_id(number * 16 + index))
        parent = group.rpartition("/")[0]
        pid, own = str(PIDS[fixture]), str(100_000 + number * 16 + index)
        place = root
        for path, content in files_of(fixture):
            if path.startswith("proc/"):
                file = self.directory / path.replace(f"proc/{pid}/", f"proc/{own}/")
            elif path.startswith(tuple(only)):
                file = root / path.format(group=group, parent=parent)
            else:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            if path.endswith("cgroup.procs"):
                content = re.sub(rf"\b{pid}\b", own, content)
                place = file.parent
            file.write_text(content)
        self.namespace(own, network or f"net:[{4026532000 + number * 16 + index}]")
        return place

    def environment(self, agent: str, **more: str) -> dict[str, str]:
        """What tells the program to look here."""
        return {
            "ECS_INTROSPECTION": agent,
            "ECS_BLUEGREEN_CGROUP_ROOT": str(self.root),
            "ECS_BLUEGREEN_PROC_ROOT": str(self.proc),
            "ECS_BLUEGREEN_HOME": str(self.directory / "home"),
        } | more


class Said:
    """What the program has printed, taken apart."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.head: dict[str, Any] = json.loads(lines[0])
        self.entries: list[dict[str, Any]] = [
            entry
            for line in lines[1:]
            for entry in json.loads(zlib.decompress(base64.b85decode(line)))
        ]

    @property
    def problems(self) -> list[str]:
        found: list[str] = self.head["problems"]
        return found

    def of(self, container: str, number: int = 1) -> dict[str, Any]:
        """The entry of a container of ``task(number)``; there has to be one."""
        (entry,) = [
            entry
            for entry in self.entries
            if (entry["container"], entry["task"]) == (container, task_id(number))
            and "plugin" not in entry
        ]
        return entry

    def plugins(self) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if "plugin" in entry]


def ask(environment: dict[str, str], plugins: Sequence[dict[str, Any]] = ()) -> Said:
    """Run the program in this process."""
    return Said(program.collect(plugins, environment))
