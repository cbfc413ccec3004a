"""The processes of HAProxy: started, told what is new while requests flow, replaced, ended.

New listeners, rules, conditions and fixed responses take a reload: a new process takes the
listening sockets over from the old one (``-x``), which answers one more request on each connection
that it has (``-sf``). A client may send that request minutes later, and nobody can tell a process
that is about to end of new targets. So its last command is to hand such requests to its successor.
Connections of TCP listeners stay with the old process, and end there. A listener that is gone
refuses connections at once; what was asked before that is still answered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sandbox.alb.configuration import (
    HAND_OVER,
    LOG_DESCRIPTOR,
    SUCCESSOR,
    Mode,
    Slot,
    Structure,
    Weights,
    encode_weights,
    render,
    write_error_pages,
)

START_SECONDS = 10.0
ANSWER_SECONDS = 5.0
IDLE_SECONDS = 0.2  # in which a process ends that nobody is connected to
PROMPT = b"> "
LOGGING = f'PATH="$PATH:/usr/sbin:/sbin" exec haproxy "$@" {LOG_DESCRIPTOR}>"$0"'
"""A shell's command: HAProxy with its log in the file that ``$0`` is."""

Place = tuple[str, int]
"""One server: the name of its group and its number, from 0."""

logger = logging.getLogger(__name__)


class HaproxyError(Exception):
    """HAProxy did not start or did not take a command."""


class Haproxy:
    """One HAProxy and what it was last told; used by one thread, which outlives it."""

    def __init__(
        self,
        directory: Path,
        log: Path,
        start: Callable[[Sequence[str], IO[bytes]], subprocess.Popen[bytes]],
        requests: Path | None = None,
    ) -> None:
        """``requests``: a directory in which each process logs its requests, in a file of its own,
        as HAProxy does not append; None: nowhere.
        """
        self._requests = requests
        self._started = 0
        self._directory = directory
        self._log = log
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._replaced: list[subprocess.Popen[bytes]] = []
        self._structure: Structure | None = None
        self._weights: dict[str, Weights] = {}
        self._slots: dict[Place, Slot] = {}

    def follow(
        self,
        structure: Structure,
        weights: Mapping[str, Weights],
        slots: Mapping[Place, Slot],
    ) -> None:
        """Make the data plane what is given; cheap when nothing changed. Raises HaproxyError.

        After an error, call it again: what is missing then is done then. ``weights`` is by rule
        key.
        """
        try:
            if structure != self._structure or not self._runs(structure):
                self._reload(structure, weights, slots)
        finally:  # a structure that HAProxy does not take is no reason to stand still
            if self._process is not None:
                self._tell(weights, slots)

    def sessions(self) -> dict[Place, int]:
        """How many requests (of TCP: connections) each server of the present process has."""
        if self._process is None:
            return {}
        lines = self._ask("show stat -1 4 -1").splitlines()
        names = lines[0].removeprefix("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]
        return {
            (row["pxname"], int(row["svname"].removeprefix("s"))): int(row["scur"])
            for row in rows
            if not row["pxname"].endswith(SUCCESSOR)
        }

    def catch_up(self) -> None:
        """Wait until what was answered before now is logged; any thread may ask for it.

        A request is logged right after its answer has left, before anything later is done. Of a
        process that is being replaced nobody can tell: its requests are logged a moment later.
        """
        if self._socket.exists():
            with contextlib.suppress(OSError):
                self._ask("show info")

    def stop(self) -> None:
        """End all processes."""
        processes = [*self._replaced, *([self._process] if self._process else [])]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._process = None
        self._replaced = []

    @property
    def _socket(self) -> Path:
        return self._directory / "haproxy.sock"

    @property
    def _map(self) -> Path:
        return self._directory / "actions.map"

    def _runs(self, structure: Structure) -> bool:
        """Whether there is a process if there has to be one."""
        return self._process.poll() is None if self._process else not structure.frontends

    def _reload(
        self,
        structure: Structure,
        weights: Mapping[str, Weights],
        slots: Mapping[Place, Slot],
    ) -> None:
        self._replaced = [process for process in self._replaced if process.poll() is None]
        if self._process is not None and self._process.poll() is not None:
            logger.warning("haproxy has ended with %s: see %s", self._process.returncode, self._log)
            self._process = None
        old = self._process
        if old is not None:
            self._refuse(structure)
        if not structure.frontends:
            if old is not None:
                self._retire(old)
            self._structure = structure
            return
        with contextlib.nullcontext() if old is None else self._hand_over():
            command = self._prepare(structure, weights, slots)
            if old is not None:
                command += ["-x", str(self._socket), "-sf", str(old.pid)]
            with self._log.open("ab") as log:
                started = self._start(command, log)
            self._wait_until_up(started)
        if old is not None:
            self._replaced.append(old)
        # From here on this is what the process knows: all of it, and nothing of the old one's.
        self._process = started
        self._structure = structure
        self._weights = dict(weights)
        self._slots = {
            place: slot if slot.mode is Mode.READY else dataclasses.replace(slot, mode=Mode.EMPTY)
            for place, slot in slots.items()
        }

    def _refuse(self, structure: Structure) -> None:
        """Stop listening for what the new structure does not have; it may have been said before."""
        assert self._structure is not None
        wanted = {frontend.name for frontend in structure.frontends}
        for frontend in self._structure.frontends:
            if frontend.name not in wanted:
                with contextlib.suppress(OSError):
                    self._ask(f"shutdown frontend {frontend.name}")

    def _retire(self, process: subprocess.Popen[bytes]) -> None:
        """Let a process without listeners end when everybody has their answers."""
        with self._hand_over():
            process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(IDLE_SECONDS)
        self._replaced.append(process)
        self._process = None

    def _prepare(
        self,
        structure: Structure,
        weights: Mapping[str, Weights],
        slots: Mapping[Place, Slot],
    ) -> list[str]:
        """Write what a new process reads; returns its command."""
        configuration = self._directory / "haproxy.cfg"
        errors = write_error_pages(self._directory)
        configuration.write_text(
            render(
                structure, slots, self._socket, self._map, errors, log=self._requests is not None
            ),
            encoding="utf-8",
        )
        entries = [f"{key} {encode_weights(value)}\n" for key, value in weights.items()]
        entries += [f"{frontend.name} -\n" for frontend in structure.frontends]
        self._map.write_text("".join(entries), encoding="utf-8")
        arguments = ["-db", "-q", "-f", str(configuration)]
        if self._requests is None:
            return ["haproxy", *arguments]
        self._requests.mkdir(exist_ok=True)
        self._started += 1
        return ["sh", "-c", LOGGING, str(self._requests / str(self._started)), *arguments]

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a process to answer.

        One that ends leaves the old one in its place. Nobody knows whether one that hangs has ended
        the old one already: then everything ends, and the next try begins anew.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise HaproxyError(f"haproxy ended with {process.returncode}: see {self._log}")
            with contextlib.suppress(OSError):
                if f"Pid: {process.pid}\n" in self._ask("show info"):
                    return
            time.sleep(0.01)
        self._replaced.append(process)
        self.stop()
        raise HaproxyError(f"haproxy does not answer on {self._socket}: see {self._log}")

    @contextmanager
    def _hand_over(self) -> Iterator[None]:
        """Replace the process inside of this; it is told afterwards.

        That takes a connection from before: it accepts no new one then.
        """
        assert self._structure is not None
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            with contextlib.suppress(OSError):
                connection.connect(str(self._socket))
                _converse(connection, "prompt")
            yield
            try:
                for frontend in self._structure.frontends:
                    _converse(connection, f"set map {self._map} {frontend.name} {HAND_OVER}")
            except OSError as error:
                logger.warning("the process that was replaced does not hand over: %s", error)

    def _tell(self, weights: Mapping[str, Weights], slots: Mapping[Place, Slot]) -> None:
        """Say what is new: servers become ready before they get requests and stop after that."""
        changed = {
            place: slot
            for place, slot in slots.items()
            if self._slots.get(place) != slot and self._knows(place)
        }
        ready = {place: slot for place, slot in changed.items() if slot.mode is Mode.READY}
        self._tell_slots(ready)
        for key, value in weights.items():
            if self._weights.get(key) != value and key in self._weights:
                self._command(f"set map {self._map} {key} {encode_weights(value)}")
                self._weights[key] = value
        self._tell_slots({place: slot for place, slot in changed.items() if place not in ready})

    def _knows(self, place: Place) -> bool:
        assert self._structure is not None
        return any(group.name == place[0] for group in self._structure.groups)

    def _tell_slots(self, changed: Mapping[Place, Slot]) -> None:
        for place, slot in changed.items():
            for command in slot_commands(place, self._slots.get(place), slot):
                self._command(command)
            self._slots[place] = slot

    def _command(self, line: str) -> None:
        try:
            answer = self._ask(line)
        except OSError as error:
            assert self._process is not None
            self._process.kill()  # so that the next call starts another
            self._process.wait()
            raise HaproxyError(f"haproxy does not answer to {line}: {error}") from error
        complaints = [text for text in answer.splitlines() if text and "changed from" not in text]
        if complaints:
            raise HaproxyError(f"haproxy answered {'; '.join(complaints)} to {line}")

    def _ask(self, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(self._socket))
            connection.sendall(line.encode() + b"\n")
            with connection.makefile(encoding="utf-8") as answer:
                return answer.read()


def _converse(connection: socket.socket, line: str) -> None:
    """Give one command in a session; raises OSError without an answer."""
    connection.sendall(line.encode() + b"\n")
    answer = b""
    while not answer.endswith(PROMPT):
        data = connection.recv(4096)
        if not data:
            raise ConnectionResetError(f"no answer to {line}")
        answer += data


def slot_commands(place: Place, before: Slot | None, after: Slot) -> list[str]:
    """Commands that make a server what ``after`` says.

    Requests in flight end when the target that they are with is gone: its deregistration delay is
    over.
    """
    if before == after:
        return []
    server = f"{place[0]}/s{place[1]}"
    taken = before is not None and before.mode is not Mode.EMPTY
    moved = before is None or (before.address, before.port) != (after.address, after.port)
    commands = []
    if taken and (moved or after.mode is Mode.EMPTY):
        commands += [f"set server {server} state maint", f"shutdown sessions server {server}"]
    if moved:
        commands.append(f"set server {server} addr {after.address} port {after.port}")
    if after.mode is not Mode.EMPTY and (moved or before is None or before.mode is not after.mode):
        commands.append(f"set server {server} state {after.mode}")
    return commands
