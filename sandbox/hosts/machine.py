"""A machine: what the programs of a container instance find, and what ends with it.

Programs on it get the environment of the machine and nothing of the sandbox's: its own credentials
and home, and a PATH whose first directories are the machine's own ``bin`` and the sandbox's. In the
latter are the plugin for memcached and, with a proxy, ``ecs-bluegreen-host`` and the AWS CLI.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.processes import ProcessRuntime, find_program
from sandbox.settings import ROOT
from sandbox.world import World

PROGRAM = ROOT / "hosts" / "ecs_bluegreen_host.py"
MEMCACHED_PLUGIN = ROOT / "hosts" / "mackerel_plugin_memcached.py"
AGENT_PORT = 51678
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """One machine, from its boot to its end; its directory outlives a reboot.

    ``environment`` is what programs on it get besides.
    """

    def __init__(
        self,
        world: World,
        runtime: ProcessRuntime,
        instance_id: str,
        address: str,
        environment: Mapping[str, str],
    ) -> None:
        number = address.rpartition(".")[2]
        self.address = address
        self.home = world.work_directory / f"h{number}"
        self.own_programs = self.home / "bin"
        self.log = world.log_directory / "hosts" / f"{number}.log"
        self._runtime = runtime
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._up = False
        self.environment: Mapping[str, str] = {
            "HOME": str(self.home),
            "PATH": f"{self.own_programs}:{world.work_directory / 'bin'}:{SYSTEM_PATH}",
            "ECS_BLUEGREEN_HOME": str(self.home),
            "ECS_INTROSPECTION": f"{address}:{AGENT_PORT}",
            "AWS_ENDPOINT_URL": world.aws_endpoint,
            "AWS_DEFAULT_REGION": world.region,
            "AWS_REGION": world.region,
            "AWS_ACCESS_KEY_ID": instance_id,
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            **environment,
        }
        shutil.rmtree(self.home, ignore_errors=True)  # of a host before it with this address
        self.home.mkdir(mode=0o755)
        self.own_programs.mkdir()
        self.log.parent.mkdir(exist_ok=True)
        self.log.write_bytes(b"")

    def boot(self) -> None:
        """Programs can be started from now on."""
        with self._lock:
            self._up = True

    def halt(self) -> None:
        """End all that runs on it, at once; nothing can be started then."""
        with self._lock:
            self._up = False
            processes, self._processes = self._processes, set()
        for process in processes:
            if process.poll() is None:
                end(process)

    def start(
        self, command: Sequence[str], output: int | None = None
    ) -> subprocess.Popen[bytes] | None:
        """Start a program; None when the machine is not up.

        Its output goes to the machine's log, or where ``output`` says. Start it from a thread that
        lives as long as the program: the kernel ends it with the thread.
        """
        with self._lock, self.log.open("ab") as log:
            if not self._up:
                return None
            self._processes = {p for p in self._processes if p.poll() is None}
            process = self._runtime.launch(
                command,
                log if output is None else output,
                self.environment,
                subprocess.STDOUT if output is None else output,
            )
            self._processes.add(process)
            return process

    def run(self, command: Sequence[str], timeout: float) -> Result | None:
        """Run a program to its end; None when the machine has ended before."""
        process = self.start(command, subprocess.PIPE)
        if process is None:
            return None
        code: int | None = 0
        try:
            output, errors = process.communicate(timeout=timeout)
            code = process.returncode
        except subprocess.TimeoutExpired:
            end(process)
            output, errors = process.communicate()
            code = None
        with self._lock:
            known = process in self._processes
            self._processes.discard(process)
        if not known and code != 0:
            return None
        result = Result(code, output.decode(errors="replace"), errors.decode(errors="replace"))
        self._write_log(f"{shlex.join(command)}\n→ {code} {result.output}{result.errors}")
        return result

    def _write_log(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(text.rstrip("\n") + "\n")


@dataclass(frozen=True)
class Result:
    """How a program ended; ``code`` is None when it took too long and was killed."""

    code: int | None
    output: str
    errors: str


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a program and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def install_programs(directory: Path, *, with_proxy: bool) -> None:
    """Make the ``bin`` that all machines share, with what a proxy needs where there is one."""
    directory.chmod(0o711)  # workers of nginx that run as nobody have to get through
    programs = directory / "bin"
    programs.mkdir()
    # As fast as an installed program starts: without the packages of the sandbox.
    python = [sys.executable, "-I", "-S"]
    wrappers = {"mackerel-plugin-memcached": [*python, str(MEMCACHED_PLUGIN)]}
    if shutil.which("python3", path=SYSTEM_PATH) is None:
        wrappers["python3"] = python
    if with_proxy:
        program = directory / PROGRAM.name
        program.write_bytes(PROGRAM.read_bytes())
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        wrappers["ecs-bluegreen-host"] = [*python, str(program)]
        wrappers["aws"] = [find_program("aws", path)]
    for name, command in wrappers.items():
        wrapper = programs / name
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        wrapper.chmod(0o755)
