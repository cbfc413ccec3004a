"""The container runtime ``docker``: every container of a task is one of a real engine.

What the ECS agent asks Docker for: the task's id is the parent control group (/ecs/<task id>), the
name and the labels are the agent's, ``cpu`` are shares (2 at least), ``memory`` is the limit and
``memoryReservation`` the soft one, ports are published on the address of the instance. In the
container HOST is 0.0.0.0 and PORT the first container port; ``$HOST`` and ``$PORT`` in its command
are replaced with them, as the runtime ``process`` does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, DockerException
from docker.utils.socket import frames_iter

from sandbox.docker.engine import SYSTEM_PATH, Engine
from sandbox.guard import HIERARCHIES, remove_control_group
from sandbox.processes import CannotStartError, ContainerSpec, LogSink, deliver, expand
from sandbox.settings import ROOT
from sandbox.usage import Usage, of_cgroup

LEAST_SHARES = 2
MEBIBYTE = 1 << 20
ATTACHED = {"stdout": 1, "stderr": 1, "stream": 1, "logs": 1}
KILLED = 128 + signal.SIGKILL
POLL_SECONDS = 0.05
GONE = (DockerException, requests.RequestException, OSError)
"""What a call ends with when the container, or the whole engine, is no more."""

LOG = logging.getLogger(__name__)


class DockerRuntime:
    """Containers of an engine that runs; ``close`` ends the engine too."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._tasks: Counter[str] = Counter()
        self._running: set[DockerContainer] = set()

    def start(self, spec: ContainerSpec) -> DockerContainer:
        """Start a container; raises CannotStartError with what Docker says."""
        environment = {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            **spec.environment,
            "HOST": "0.0.0.0",
        }
        if spec.ports:
            environment["PORT"] = str(next(iter(spec.ports)))
        task = spec.task or secrets.token_hex(16)
        with self._lock:
            self._tasks[task] += 1
            parent = self._engine.control_group(task)
        container_id = ""
        try:
            container_id = self._create(spec, environment, parent)
            output = self._engine.client.attach_socket(container_id, ATTACHED)
            try:
                self._engine.client.start(container_id)
            except APIError:
                _close(output)
                raise
        except APIError as error:
            self._remove(container_id, task)
            kind = "Start" if container_id else "Create"
            raise CannotStartError(
                f"Cannot{kind}ContainerError: Error response from daemon: {error.explanation}"
            ) from error
        container = DockerContainer(self._engine, container_id, parent, environment)
        self._running.add(container)

        def ended() -> None:
            self._remove(container_id, task)
            self._running.discard(container)

        container.follow(output, spec.log, ended)
        return container

    def _create(self, spec: ContainerSpec, environment: Mapping[str, str], parent: str) -> str:
        client = self._engine.client
        bindings = {inside: (spec.host, outside) for inside, outside in spec.ports.items()}
        limits: dict[str, Any] = {"cpu_shares": max(LEAST_SHARES, spec.cpu)}
        if spec.memory:
            limits["mem_limit"] = spec.memory * MEBIBYTE
        if spec.memory_reservation:
            limits["mem_reservation"] = spec.memory_reservation * MEBIBYTE
        created = client.create_container(
            image=self._engine.image,
            command=[expand(argument, environment) for argument in spec.command],
            environment=dict(environment),
            name=spec.name or None,
            labels=dict(spec.labels),
            working_dir=str(ROOT),  # as the sandbox has it, so that `python -m sandbox.app` works
            ports=list(spec.ports),
            use_config_proxy=False,
            host_config=client.create_host_config(
                binds=self._engine.binds,
                cgroup_parent=parent,
                network_mode="bridge",
                port_bindings=bindings,
                **limits,
            ),
        )
        return str(created["Id"])

    def _remove(self, container_id: str, task: str) -> None:
        """Forget a container that has ended, and the control group of its task with the last."""
        if container_id and self._engine.running:
            with contextlib.suppress(*GONE):
                self._engine.client.remove_container(container_id, force=True)
        with self._lock:
            self._tasks[task] -= 1
            if self._tasks[task] == 0:
                del self._tasks[task]
                if not remove_control_group(f"/ecs/{task}"):
                    self._engine.forget_control_group(task)

    def close(self) -> None:
        """End the engine, and every container that still runs with it."""
        running = list(self._running)
        self._engine.stop()
        for container in running:
            container.join()


class DockerContainer:
    """One container, with a thread that reads what it prints and waits for its end."""

    def __init__(
        self, engine: Engine, container_id: str, parent: str, environment: Mapping[str, str]
    ) -> None:
        self._engine = engine
        self._id = container_id
        self._parent = parent
        self._environment = environment
        self._exit_code: int | None = None
        self._thread: threading.Thread

    @property
    def runtime_id(self) -> str:
        """Docker's long id."""
        return self._id

    @property
    def exit_code(self) -> int | None:
        """None until it has ended, its last lines are in the log and its ports are free."""
        return self._exit_code

    def follow(self, output: Any, sink: LogSink, ended: Callable[[], None]) -> None:
        """Begin to send its lines to ``sink``; ``ended`` is called once it is over."""
        self._thread = threading.Thread(
            target=self._follow, args=(output, sink, ended), name=f"container-{self._id[:12]}"
        )
        self._thread.daemon = True
        self._thread.start()

    def _follow(self, output: Any, sink: LogSink, ended: Callable[[], None]) -> None:
        code = KILLED
        try:
            rest = b""
            for _, data in frames_iter(output, tty=False):
                rest = deliver(rest + data, sink, last=False)
            deliver(rest, sink, last=True)
            if self._engine.running:
                code = int(self._engine.client.wait(self._id, timeout=None)["StatusCode"])
        except GONE as error:
            if self._engine.running:
                LOG.warning("container %s: %s", self._id[:12], error)
        finally:
            _close(output)
        ended()
        self._exit_code = code

    def join(self) -> None:
        """Wait until it is over; the engine has to be stopped."""
        self._thread.join()

    def terminate(self) -> None:
        """SIGTERM to its first process."""
        self._signal("SIGTERM")

    def kill(self) -> None:
        """SIGKILL to its first process, with which the kernel ends the others."""
        self._signal("SIGKILL")

    def usage(self) -> Usage | None:
        """What its control group has counted."""
        return of_cgroup(self._id)

    def _signal(self, name: str) -> None:
        with contextlib.suppress(*GONE):  # it has ended by itself
            self._engine.client.kill(self._id, name)

    def run(self, command: Sequence[str]) -> DockerCommand:
        """``docker exec``; raises CannotStartError when the container is not there any more."""
        arguments = [expand(argument, self._environment) for argument in command]
        client = self._engine.client
        try:
            exec_id = client.exec_create(self._id, arguments)["Id"]
            client.exec_start(exec_id, detach=True)
        except GONE as error:
            raise CannotStartError(str(error)) from error
        return DockerCommand(self._engine, exec_id, f"{self._parent}/{self._id}")


class DockerCommand:
    """A command that was started with ``docker exec``: ``sandbox.processes.Command``."""

    def __init__(self, engine: Engine, exec_id: str, control_group: str) -> None:
        self._engine = engine
        self._exec_id = exec_id
        self._control_group = control_group
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or None while it runs; that of a kill when the container has ended."""
        if self._code is None:
            try:
                state = self._engine.client.exec_inspect(self._exec_id)
            except GONE:
                self._code = KILLED
            else:
                self._code = None if state["Running"] else state["ExitCode"]
        return self._code

    def kill(self) -> None:
        """SIGKILL, which Docker's API does not have for a command: by its process id."""
        if self.poll() is not None:
            return
        with contextlib.suppress(*GONE):
            number = self._engine.client.exec_inspect(self._exec_id)["Pid"]
            for process in _processes(self._control_group):
                if _number_in_engine(process) == number:
                    os.kill(process, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        while (code := self.poll()) is None:
            time.sleep(POLL_SECONDS)
        return code


def _close(output: Any) -> None:
    """Close the connection of ``attach_socket``, which docker-py keeps open in two places."""
    output._response.close()
    output.close()


def _processes(control_group: str) -> list[int]:
    """The processes of a control group."""
    for hierarchy in ("/pids", "/unified", ""):  # v1, both, v2
        members = Path(f"{HIERARCHIES}{hierarchy}{control_group}/cgroup.procs")
        if members.exists():
            return [int(number) for number in members.read_text().split()]
    return []


def _number_in_engine(process: int) -> int | None:
    """The id of a process in the namespace of dockerd, which is the second of three."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-2])
    return None
