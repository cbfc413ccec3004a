"""What processes use is what the kernel counts: for a session, for a cgroup of either version."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox import usage

ID = "a1" * 32
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


@contextmanager
def session(command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that leads a session of its own."""
    process = subprocess.Popen(["sh", "-c", command], start_new_session=True)
    try:
        yield process
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
        process.wait()


def until(leader: int, cpu: float) -> usage.Usage:
    """What a session has used once it has used so much CPU time, or after a minute."""
    deadline = time.monotonic() + 60
    while True:
        found = usage.of_session(leader)
        assert found is not None
        if found.cpu_seconds >= cpu or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_children_count_also_those_that_have_ended() -> None:
    burn = f"{sys.executable} -c '{BURN.format(seconds=1)}'"
    with session(f"{burn}; {burn}; sleep 30") as process:
        used = until(process.pid, 1.5)

        assert 1.5 <= used.cpu_seconds <= 2.5


def test_a_process_group_of_its_own_stays_in_the_session() -> None:
    own = f"import os; os.setpgid(0, 0)\n{BURN.format(seconds=60)}"
    with session(f"{sys.executable} -c '{own}' & sleep 60") as process:
        assert until(process.pid, 0.5).cpu_seconds >= 0.5


def test_memory_is_what_is_resident_and_disks_what_was_written(tmp_path: Path) -> None:
    hold = "import time; held = bytearray(50_000_000); time.sleep(30)"
    write = f"dd if=/dev/zero of={tmp_path / 'file'} bs=1M count=5 conv=fsync 2>/dev/null"
    with session(f"{write}; {sys.executable} -c '{hold}'") as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            used = usage.of_session(process.pid)
            assert used is not None
            if used.memory_bytes > 50_000_000:
                break
            time.sleep(0.2)

        assert used is not None
        assert 50_000_000 < used.memory_bytes < 90_000_000
        assert used.written_bytes >= 5 * 1024 * 1024
        assert used.network == {}


def test_a_session_that_is_over_has_no_usage() -> None:
    with session("true") as process:
        process.wait()
        time.sleep(usage.FRESH_SECONDS)

        assert usage.of_session(process.pid) is None


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trees of /proc and of cgroups that a test fills."""
    monkeypatch.setattr(usage, "PROC", tmp_path / "proc")
    monkeypatch.setattr(usage, "CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc" / "7" / "net").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "net" / "dev").write_text(
        "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop …\n"
        "    lo: 99 9 0 0 0 0 0 0 99 9 0 0 0 0 0 0\n"
        "  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n"
    )
    return tmp_path


NAMES = ("Bytes", "Packets", "Errors", "Dropped")
NETWORK = {
    f"{way}{name}": number
    for way, numbers in (("Rx", (1000, 10, 1, 2)), ("Tx", (2000, 20, 3, 4)))
    for name, number in zip(NAMES, numbers, strict=True)
}


def write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


def test_a_group_of_version_1(trees: Path) -> None:
    (trees / "proc" / "7" / "cgroup").write_text(
        f"4:memory:/ecs/task/{ID}\n3:cpu,cpuacct:/ecs/task/{ID}\n2:blkio:/ecs/task/{ID}/below\n"
        "0::/\n"
    )
    of = {name: trees / "cgroup" / name / "ecs" / "task" / ID for name in ("memory", "blkio")}
    write(
        of["memory"],
        memory__usage_in_bytes="5000\n",
        memory__stat="cache 9\ntotal_inactive_file 1000\n",
        cgroup__procs="7\n",
    )
    write(trees / "cgroup" / "cpu,cpuacct" / "ecs" / "task" / ID, cpuacct__usage="2500000000\n")
    write(
        of["blkio"],
        blkio__throttle__io_service_bytes="8:0 Read 10\n8:0 Write 20\n8:16 Read 5\nTotal 35\n",
    )

    assert usage.of_cgroup(ID) == usage.Usage(2.5, 4000, 15, 20, NETWORK)


def test_a_group_of_version_2(trees: Path) -> None:
    scope = f"ecstasks.slice/ecstasks-task.slice/docker-{ID}.scope"
    (trees / "proc" / "7" / "cgroup").write_text(f"0::/{scope}\n")
    write(
        trees / "cgroup" / scope,
        memory__current="5000\n",
        memory__stat="anon 1\ninactive_file 500\n",
        cpu__stat="usage_usec 1500000\nuser_usec 1\n",
        io__stat="8:0 rbytes=10 wbytes=20 rios=1 wios=1\n253:0 rbytes=1 wbytes=2\n",
        cgroup__procs="7\n",
    )

    assert usage.of_cgroup(ID) == usage.Usage(1.5, 4500, 11, 22, NETWORK)


def test_a_container_without_a_group_has_no_usage(trees: Path) -> None:
    (trees / "proc" / "7" / "cgroup").write_text("0::/\n")

    assert usage.of_cgroup(ID) is None
