"""kill -9 between any two steps: what is on disk and what requests see is the old or the new."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.hosts.conftest import needs
from tests.hosts.machine import PROGRAM, Machine, moments, next_generation, switch_arguments

# Runs the program and kills it before its n-th step: a system call that others see something of.
KILL = """
import os, runpy, signal, sys
STEPS = {"posix": {"replace", "rename", "mkdir", "symlink", "rmdir", "fsync"}, "fcntl": {"flock"}}
left = int(sys.argv[1])
def count(frame, event, function):
    global left
    if event != "c_call":
        return
    name = function.__name__
    if name in STEPS.get(function.__module__, ()) or name == "sendall":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.argv = sys.argv[2:]
sys.setprofile(count)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SHOWN = {"100:0": "blue", "0:100": "green"}


def killed(host: Machine, script: Path, step: int, arguments: Sequence[str]) -> bool:
    """Run a subcommand that is killed before a step; False when it ends before."""
    command = [sys.executable, "-I", "-S", str(script), str(step), str(PROGRAM)]
    command += [arguments[0], "--service", "web", *arguments[1:]]
    code = subprocess.run(
        command, env=host.environment, capture_output=True, check=False
    ).returncode
    assert code in (0, -9)
    return code == -9


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_commit_can_die_anywhere(proxy: str) -> None:
    needs(proxy)
    with Machine(proxy) as host:
        host.configure()
        host.start_task("blue")
        host.start_task("green")
        host.start_proxy()
        host.switch(100, 0)
        script = host.home / "kill.py"
        script.write_text(KILL)
        old, new = "100:0", "0:100"
        for step in itertools.count(1):
            blue, green = map(int, new.split(":"))
            arguments = switch_arguments(next_generation(), blue, green, old)
            command = ["commit", *arguments, *moments()]
            died = killed(host, script, step, command)
            forwards = host.weights()
            assert host.get() == (200, SHOWN[forwards])
            assert {forwards, on_disk(host)} <= {old, new}
            if on_disk(host) == old:
                # Persisted first: it never forwards by what a restart would not know.
                assert forwards == old
            # Whoever sends it again finds it done, or does it.
            host.do("commit", *arguments, *moments())
            assert (host.weights(), on_disk(host)) == (new, new)
            assert host.get() == (200, SHOWN[new])
            if not died:
                break
            old, new = new, old
        assert step > 10
        assert not leftovers(host)


def on_disk(host: Machine) -> str:
    """The weights that the proxy would start with."""
    weights = json.loads((host.folder / "current" / "state.json").read_text())["weights"]
    return f"{weights['blue']}:{weights['green']}"


def leftovers(host: Machine) -> list[str]:
    """What killed commands have left and nobody has removed."""
    found = [*host.folder.glob(".*"), *(host.folder / "generations").glob(".*")]
    return [path.name for path in found]


def test_stage_can_die_anywhere(host: Machine) -> None:
    host.switch(100, 0)
    script = host.home / "kill.py"
    script.write_text(KILL)
    for step in itertools.count(1):
        arguments = switch_arguments(next_generation(), 0, 100, "100:0")
        died = killed(host, script, step, ["stage", *arguments])
        assert host.get() == (200, "blue")
        assert host.weights() == "100:0"
        # It can be sent again.
        host.do("stage", *arguments)
        if not died:
            break
    host.do("commit", *arguments, *moments())
    assert host.get() == (200, "green")
    assert not leftovers(host)


def test_haproxy_that_was_not_told_reads_it_when_it_restarts() -> None:
    needs("haproxy")
    with Machine("haproxy") as host:
        host.configure()
        host.start_task("blue")
        host.start_task("green")
        host.start_proxy()
        host.switch(100, 0)
        script = host.home / "kill.py"
        script.write_text(KILL)
        # The first step at which the new weights are on disk comes right after the rename.
        for step in itertools.count(1):
            arguments = switch_arguments(next_generation(), 0, 100, "100:0")
            assert killed(host, script, step, ["commit", *arguments, *moments()])
            if on_disk(host) == "0:100":
                break
        assert host.get() == (200, "blue")
        report = host.report()
        assert report["weights"] == {"blue": 100, "green": 0}
        assert "a switch was cut off" in report["running"]
        refusal = host.refused("stage", *switch_arguments(next_generation(), 0, 100, "100:0"))
        assert "a switch was cut off" in refusal
        host.kill_proxy()
        host.start_proxy()
        assert host.get() == (200, "green")
        assert host.report()["weights"] == {"blue": 0, "green": 100}
