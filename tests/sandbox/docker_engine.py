"""Docker engines in tests: whether there can be one, and what is left of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.docker import bridge
from sandbox.docker.engine import check
from sandbox.settings import SandboxError

CGROUPS = Path("/sys/fs/cgroup")


def require_engine() -> None:
    """Skip where no engine can be started; in CI everything has to be there."""
    try:
        check()
    except SandboxError as error:
        if "CI" in os.environ:
            pytest.fail(str(error))
        pytest.skip(str(error))


def left_of(network: str, tasks: list[str], directory: Path | None = None) -> list[str]:
    """What an engine that has ended has left behind: processes, mounts, interfaces, groups."""
    found = []
    marks = [bridge.name_of(network), *([str(directory)] if directory else [])]
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if any(mark in command for mark in marks):
                found.append(f"process {process.name}: {command}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if any(mark in line for mark in marks)]
    if bridge.is_there(bridge.name_of(network)):
        found.append(f"interface {bridge.name_of(network)}")
    for name in [*(f"ecs/{task}" for task in tasks), f"ecs-bluegreen/{bridge.name_of(network)}"]:
        found += [
            str(path) for path in (CGROUPS / name, *CGROUPS.glob(f"*/{name}")) if path.exists()
        ]
    if directory is not None and directory.exists():
        found.append(str(directory))
    return found


def control_group(controller: str, task: str, container_id: str) -> Path:
    """The directory of a container's control group."""
    below = Path("ecs", task, container_id)
    return CGROUPS / below if (CGROUPS / below).exists() else CGROUPS / controller / below
