"""The processes of HAProxy: started, told what is new while requests flow, replaced, ended.

New listeners, rules, conditions and fixed responses take a reload: a new process takes the
listening sockets over from the old one (``-x``), which answers one more request on each connection
that it has (``-sf``). A client may send that request minutes later. So a replaced process is told
of weights and targets too, as long as it has connections: over a session of the runtime API that
was opened before, because it accepts no new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from sandbox.alb.configuration import (
    NOWHERE,
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
PROMPT = b"\n> "

Slots = Mapping[tuple[str, int], Slot]
"""The servers by group name and number (from 0)."""

logger = logging.getLogger(__name__)


class HaproxyError(Exception):
    """HAProxy did not start or did not take a command."""


class LostError(HaproxyError):
    """A process does not answer any more."""


class Session:
    """A session of the runtime API; it lasts as long as the process. Errors are OSErrors."""

    def __init__(self, path: Path) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(ANSWER_SECONDS)
        try:
            self._connection.connect(str(path))
            self.ask("prompt")
        except OSError:
            self.close()
            raise

    def ask(self, line: str) -> str:
        """Give one command; returns what HAProxy says."""
        self._connection.sendall(line.encode() + b"\n")
        answer = b""
        while not answer.endswith(PROMPT):
            data = self._connection.recv(65_536)
            if not data:
                raise ConnectionResetError(f"no answer to {line!r}")
            answer += data
        return answer.removesuffix(PROMPT).decode()

    def close(self) -> None:
        self._connection.close()


class Process:
    """One HAProxy and what it was last told: all of it, nothing else."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        session: Session,
        actions: Path,
        structure: Structure,
        weights: Mapping[str, Weights],
        slots: Slots,
    ) -> None:
        self.process = process
        self._session = session
        self._actions = actions  # the map is called as the file that it was read from
        self._groups = {NOWHERE, *(group.name for group in structure.groups)}
        self._defaults = {
            rule.key: frontend.rules[-1].key
            for frontend in structure.frontends
            for rule in frontend.rules
        }
        self._weights = dict(weights)
        self._slots = {
            place: slot if slot.mode is Mode.READY else dataclasses.replace(slot, mode=Mode.EMPTY)
            for place, slot in slots.items()
        }

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self.process.poll() is not None

    def follow(self, weights: Mapping[str, Weights], slots: Slots) -> None:
        """Tell it what is new. Raises HaproxyError.

        Servers become ready before weights send requests to them and stop after that. A rule that
        is gone does as its listener's default action; a group that is new is none of its business.
        """
        changed = [
            (place, slot)
            for place, slot in slots.items()
            if place[0] in self._groups and self._slots.get(place) != slot
        ]
        self._tell_slots([(place, slot) for place, slot in changed if slot.mode is Mode.READY])
        for key, default in self._defaults.items():
            wanted = weights.get(key, weights.get(default, ()))
            known = all(group in self._groups for group, _ in wanted)
            if known and self._weights.get(key) != wanted:
                self._command(f"set map {self._actions} {key} {encode_weights(wanted)}")
                self._weights[key] = wanted
        self._tell_slots([(place, slot) for place, slot in changed if slot.mode is not Mode.READY])

    def _tell_slots(self, changed: Sequence[tuple[tuple[str, int], Slot]]) -> None:
        for place, slot in changed:
            for command in slot_commands(place, self._slots.get(place), slot):
                self._command(command)
            self._slots[place] = slot

    def release(self) -> bool:
        """Let it end if it has no connections left; returns whether it has none."""
        connections = re.search(r"^CurrConns: (\d+)$", self._ask("show info"), re.MULTILINE)
        if connections is None or int(connections[1]):
            return False
        self._session.close()
        return True

    def kill(self) -> None:
        """End it at once."""
        self._session.close()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it, and its connections."""
        self._session.close()
        self.process.terminate()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()

    def _command(self, line: str) -> None:
        answer = self._ask(line)
        complaints = [text for text in answer.splitlines() if text and "changed from" not in text]
        if complaints:
            raise HaproxyError(f"haproxy answered {'; '.join(complaints)} to {line}")

    def _ask(self, line: str) -> str:
        try:
            return self._session.ask(line)
        except OSError as error:
            raise LostError(f"haproxy {self.process.pid} does not answer: {error}") from error


class Haproxy:
    """The process of now and those that it replaced; used by one thread, which outlives them."""

    def __init__(
        self,
        directory: Path,
        log: Path,
        start: Callable[[Sequence[str], IO[bytes]], subprocess.Popen[bytes]],
    ) -> None:
        self._directory = directory
        self._log = log
        self._start = start
        self._count = 0
        self._structure: Structure | None = None
        self._current: Process | None = None
        self._replaced: list[Process] = []

    def follow(self, structure: Structure, weights: Mapping[str, Weights], slots: Slots) -> None:
        """Make the data plane what is given; cheap when nothing changed. Raises HaproxyError.

        After an error, call it again: what is missing then is done then. ``weights`` is by rule
        key.
        """
        try:
            if structure != self._structure or (self._current and self._current.ended):
                self._reload(structure, weights, slots)
                self._structure = structure
        finally:  # a structure that HAProxy does not take is no reason to stand still
            if self._current:
                try:
                    self._current.follow(weights, slots)
                except LostError:
                    self._current.kill()
                    raise
        self._replaced = [old for old in self._replaced if self._keeps(old, weights, slots)]

    def stop(self) -> None:
        """End all processes."""
        for process in (*self._replaced, *([self._current] if self._current else [])):
            process.stop()
        self._current = None
        self._replaced = []

    @staticmethod
    def _keeps(old: Process, weights: Mapping[str, Weights], slots: Slots) -> bool:
        """Whether a replaced process still needs to be told things; tells it."""
        if old.ended:
            return False
        try:
            old.follow(weights, slots)
            return not old.release()
        except HaproxyError as error:
            logger.warning("a process that was replaced ends: %s", error)
            old.kill()
            return False

    def _socket(self, count: int) -> Path:
        return self._directory / f"haproxy-{count}.sock"

    def _reload(self, structure: Structure, weights: Mapping[str, Weights], slots: Slots) -> None:
        if not structure.frontends:
            self.stop()
            return
        configuration = self._directory / "haproxy.cfg"
        actions = self._directory / "actions.map"
        control = self._socket(self._count + 1)
        errors = write_error_pages(self._directory)
        configuration.write_text(
            render(structure, slots, control, actions, errors), encoding="utf-8"
        )
        entries = [f"{key} {encode_weights(value)}\n" for key, value in weights.items()]
        actions.write_text("".join(entries), encoding="utf-8")
        command = ["haproxy", "-db", "-q", "-f", str(configuration)]
        if self._current is not None and not self._current.ended:
            old = self._current.process.pid
            command += ["-x", str(self._socket(self._count)), "-sf", str(old)]
        with self._log.open("ab") as log:
            started = self._start(command, log)
        session = self._session(started, control)
        self._socket(self._count).unlink(missing_ok=True)
        self._count += 1
        if self._current is not None:
            self._replaced.append(self._current)
        self._current = Process(started, session, actions, structure, weights, slots)

    def _session(self, process: subprocess.Popen[bytes], control: Path) -> Session:
        """Wait for a process to answer.

        One that ends leaves the old one in its place. Nobody knows whether one that hangs has ended
        the old one already: then everything ends, and the next try begins anew.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise HaproxyError(f"haproxy ended with {process.returncode}: see {self._log}")
            with contextlib.suppress(OSError):
                return Session(control)
            time.sleep(0.01)
        process.kill()
        process.wait()
        self.stop()
        raise HaproxyError(f"haproxy does not answer on {control}: see {self._log}")


def slot_commands(place: tuple[str, int], before: Slot | None, after: Slot) -> list[str]:
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
