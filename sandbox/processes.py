"""The container runtime: a container is a process here, started on the machine itself.

What Docker does is imitated where a program can tell the difference from outside: its own
environment (nothing of the sandbox's leaks in but PATH and HOME), SIGTERM to the first process,
SIGKILL to all of them, exit code 128 + n after signal n, and the end of the first process is the
end of the container. What is not: there is no file system, user or network of its own. So a
program gets HOST and PORT, the address and port to listen on, in its environment, and ``$HOST``,
``$PORT``, ``${HOST}`` and ``${PORT}`` in its command are replaced with them.

``Runtime`` is what ``sandbox.ecs`` needs to know of a container runtime.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from sandbox.usage import Usage, of_session

GUARD = Path(__file__).with_name("guard.py")
LAST_LINES_SECONDS = 0.5
MAX_LINE_BYTES = 262_144 - 26  # an event of CloudWatch Logs holds no more
VARIABLE = re.compile(r"\$(?:\{(HOST|PORT)\}|(HOST|PORT)\b)")

LogSink = Callable[[list[str]], None]


class CannotStartError(Exception):
    """A container could not be started; the message is what ECS puts into ``reason``."""


@dataclass(frozen=True)
class ContainerSpec:
    """One container to start.

    ``host`` is the address of its instance and ``port`` the host port of its first port mapping,
    None when it publishes none. What follows ``log`` is for runtimes that can make use of it:
    ``name``, the task's id (of which the cgroup is made), ``ports`` (host port by container port),
    ``cpu`` (shares), ``memory`` and ``memory_reservation`` (MiB), ``labels``.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    host: str
    port: int | None
    log: LogSink
    name: str = ""
    task: str = ""
    ports: Mapping[int, int] = field(default_factory=dict)
    cpu: int = 0
    memory: int | None = None
    memory_reservation: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class Command(Protocol):
    """Another command in a container: what is used of ``subprocess.Popen``."""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""

    def kill(self) -> None:
        """SIGKILL; does nothing when it has ended."""

    def wait(self) -> int:
        """Wait for its end; its exit code."""


class Container(Protocol):
    """A container that was started."""

    @property
    def runtime_id(self) -> str:
        """The id that the runtime gave it: Docker's long id."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code as Docker reports it, or None while it runs."""

    def terminate(self) -> None:
        """Ask it to stop: SIGTERM to its first process."""

    def kill(self) -> None:
        """End it now: SIGKILL to all of it."""

    def run(self, command: Sequence[str]) -> Command:
        """Start another command in it, as ``docker exec`` does (health checks)."""

    def usage(self) -> Usage | None:
        """What it has used so far; None when nothing of it runs."""


class Runtime(Protocol):
    """What starts containers."""

    def start(self, spec: ContainerSpec) -> Container:
        """Start a container; raises CannotStartError."""

    def close(self) -> None:
        """Kill what still runs."""


class ProcessRuntime:
    """Containers as processes; their output is read by one thread.

    ``start`` has to be called from a thread that lives as long as the containers do: the kernel
    kills a process started with PR_SET_PDEATHSIG when the *thread* that started it ends.
    """

    def __init__(self, work_directory: Path) -> None:
        self._guard = Guard(work_directory)
        self._output = OutputReader()
        self._running: set[ProcessContainer] = set()
        self._launched: list[subprocess.Popen[bytes]] = []
        self._launching = threading.Lock()

    def launch(
        self,
        command: Sequence[str],
        output: int | IO[bytes],
        environment: Mapping[str, str] | None = None,
        errors: int = subprocess.STDOUT,
    ) -> subprocess.Popen[bytes]:
        """Start a program that is no container; it ends with the sandbox as containers do.

        It gets the environment that is given, or else the sandbox's own. The caller stops it before
        ``close``. Raises CannotStartError.
        """
        process = start_process(
            command, os.environ if environment is None else environment, output, errors
        )
        with self._launching:
            self._guard.add(process.pid)
            for ended in [p for p in self._launched if p.poll() is not None]:
                self._launched.remove(ended)
                self._guard.remove(ended.pid)
            self._launched.append(process)
        return process

    def start(self, spec: ContainerSpec) -> ProcessContainer:
        """Start the command of ``spec``; raises CannotStartError with Docker's wording."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "HOSTNAME": secrets.token_hex(6),
            **spec.environment,
            "HOST": spec.host,
        }
        if spec.port is not None:
            environment["PORT"] = str(spec.port)
        command = [expand(argument, environment) for argument in spec.command]
        process = start_process(command, environment)
        self._guard.add(process.pid)
        container = ProcessContainer(process, environment, self._forget)
        self._running.add(container)
        assert process.stdout is not None
        self._output.read(process.stdout, spec.log, container.output_ended)
        return container

    def _forget(self, container: ProcessContainer) -> None:
        self._guard.remove(container.process.pid)
        self._running.discard(container)

    def close(self) -> None:
        """Kill every container that still runs, with all its processes."""
        for container in list(self._running):
            container.kill()
        deadline = time.monotonic() + 2
        for container in list(self._running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                container.process.wait(max(0.0, deadline - time.monotonic()))
        self._output.close()
        self._guard.close()


class ProcessContainer:
    """One process group that plays a container."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        environment: Mapping[str, str],
        forget: Callable[[ProcessContainer], None],
    ) -> None:
        self.process = process
        self.output_ended = threading.Event()
        self._environment = environment
        self._forget = forget
        self._runtime_id = secrets.token_hex(32)
        self._ended_at: float | None = None

    @property
    def runtime_id(self) -> str:
        """A made-up id of Docker's length."""
        return self._runtime_id

    @property
    def exit_code(self) -> int | None:
        """None until the process has ended and its last lines are in the log."""
        code = self.process.poll()
        if code is None:
            return None
        if self._ended_at is None:
            self._ended_at = time.monotonic()
            self._signal_group()  # what is left of a container ends with its first process
            self._forget(self)
        late = time.monotonic() - self._ended_at > LAST_LINES_SECONDS
        if not self.output_ended.is_set() and not late:
            return None
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """SIGTERM to the first process only, as Docker does."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self.process.poll() is None:
            self._signal_group()

    def run(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Another command with this container's environment, its output thrown away."""
        return start_process(
            [expand(argument, self._environment) for argument in command],
            self._environment,
            output=subprocess.DEVNULL,
        )

    def usage(self) -> Usage | None:
        """Of all its processes, without health checks and without a network."""
        return of_session(self.process.pid) if self.process.poll() is None else None

    def _signal_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Guard:
    """The process that ends all others when the sandbox dies without a chance to clean up."""

    def __init__(self, *directories: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), *map(str, directories)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._lock = threading.Lock()

    def add(self, thing: int | str) -> None:
        """There is a process group, or something else that ``guard.py`` can remove."""
        self._tell(f"+{thing}\n")

    def remove(self, thing: int | str) -> None:
        """It has ended, or was removed."""
        self._tell(f"-{thing}\n")

    def close(self) -> None:
        """The sandbox ends: the guard kills what is left and ends too."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


class OutputReader:
    """One thread that reads the output of all containers, line by line."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._new: list[tuple[IO[bytes], LogSink, threading.Event]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="container-output", daemon=True)
        self._thread.start()

    def read(self, stream: IO[bytes], sink: LogSink, ended: threading.Event) -> None:
        """Send the lines of ``stream`` to ``sink``; set ``ended`` after the last one."""
        self._new.append((stream, sink, ended))
        os.write(self._wake_write, b"n")

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        os.write(self._wake_write, b"c")
        self._thread.join(2)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        rest: dict[int, bytes] = {}
        while not self._closed:
            for key, _ in self._selector.select():
                if key.fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                    while self._new:
                        stream, sink, ended = self._new.pop()
                        self._selector.register(stream, selectors.EVENT_READ, (sink, ended))
                        rest[stream.fileno()] = b""
                    continue
                sink, ended = key.data
                data = os.read(key.fd, 65_536)
                rest[key.fd] = deliver(rest[key.fd] + data, sink, last=not data)
                if not data:
                    ended.set()
                    del rest[key.fd]
                    self._selector.unregister(key.fileobj)
                    assert not isinstance(key.fileobj, int)
                    key.fileobj.close()  # type: ignore[attr-defined]  # the pipe of a Popen
        self._selector.close()


def start_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: int | IO[bytes] = subprocess.PIPE,
    errors: int = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own; the kernel kills it when the caller's thread ends.

    Raises CannotStartError with Docker's wording when there is no such program.
    """
    # Debian keeps haproxy where only the PATH of root looks.
    path = environment.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    program = find_program(command[0], path)
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", program, *command[1:]],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )


def find_program(name: str, path: str) -> str:
    """The file of a program; raises CannotStartError with Docker's wording."""
    candidates = [Path(name)] if "/" in name else [Path(d) / name for d in path.split(":")]
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return str(candidate)
    raise CannotStartError(
        "CannotStartContainerError: Error response from daemon: failed to create task for "
        f'container: exec: "{name}": executable file not found in $PATH: unknown'
    )


def expand(argument: str, environment: Mapping[str, str]) -> str:
    """Replace ``$HOST``, ``$PORT``, ``${HOST}`` and ``${PORT}``; an unknown one becomes empty."""
    return VARIABLE.sub(lambda match: environment.get(match[1] or match[2], ""), argument)


def deliver(data: bytes, sink: LogSink, *, last: bool) -> bytes:
    """Give the complete lines of ``data`` to ``sink``; returns the rest."""
    *lines, rest = data.split(b"\n")
    if rest and (last or len(rest) > MAX_LINE_BYTES):
        lines.append(rest)
        rest = b""
    if lines:
        sink([line[:MAX_LINE_BYTES].decode(errors="replace").rstrip("\r") for line in lines])
    return rest
