"""HAProxy as the data plane of a load balancer: configuration, process and runtime API.

What changes while requests flow never reloads it:
  - which group a request goes to: one map entry a rule holds its whole forward action, so a change
    of weights is one ``set map`` and every request sees either the old weights or the new ones;
  - the targets of a group: each group has SLOTS servers that are given addresses and states.
New listeners, rules, conditions and fixed responses do reload it: the new process takes the
listening sockets over from the old one (``-x``), which finishes its connections (``-sf``).

As an ALB does, it never repeats a request (retries 0) and reuses its connections to targets.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

SLOTS = 48
NOWHERE = "nowhere"  # the backend that answers 503, as an ALB does for an empty group
MAX_GROUPS_PER_RULE = 5  # of an ALB's forward action
RANDOM_RANGE = 2**32  # of HAProxy's rand()
START_SECONDS = 5.0
OLD_PROCESS_SECONDS = 300  # a process that was replaced is ended for good after that

ERROR_REASONS = {
    400: "Bad Request",
    408: "Request Time-out",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}


class HaproxyError(Exception):
    """HAProxy did not start or did not take a command."""


class Mode(StrEnum):
    """What a server slot does: the words of HAProxy's ``set server … state``."""

    READY = "ready"
    DRAIN = "drain"  # what is in flight goes on, nothing new comes
    EMPTY = "maint"


@dataclass(frozen=True)
class Slot:
    """One server of a group: an address such as ``127.0.1.1`` with its port, and what it does."""

    address: str
    port: int
    mode: Mode


@dataclass(frozen=True)
class FixedResponse:
    """An answer that the load balancer gives itself."""

    status: int
    content_type: str
    body: str


@dataclass(frozen=True)
class Rule:
    """A rule of a listener: ``key`` names it in the map, ``conditions`` are all ACL expressions.

    The rule without conditions is the listener's default action.
    """

    key: str
    conditions: tuple[str, ...]
    fixed: FixedResponse | None = None


@dataclass(frozen=True)
class Frontend:
    """A listener; its rules are in the order in which they are tried, the default one last."""

    name: str
    port: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Group:
    """A target group as HAProxy knows it."""

    name: str
    algorithm: str = "roundrobin"


@dataclass(frozen=True)
class Structure:
    """What only a reload can change."""

    address: str
    frontends: tuple[Frontend, ...]
    groups: tuple[Group, ...]
    idle_timeout: int = 60


Weights = tuple[tuple[str, int], ...]
"""The forward action of a rule: groups with their weights (0 to 999)."""


class Haproxy:
    """One HAProxy and what it was last told; used by one thread, which outlives it."""

    def __init__(
        self,
        directory: Path,
        log: Path,
        start: Callable[[Sequence[str], IO[bytes]], subprocess.Popen[bytes]],
    ) -> None:
        self._directory = directory
        self._log = log
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._replaced: list[subprocess.Popen[bytes]] = []
        self._structure: Structure | None = None
        self._weights: dict[str, Weights] = {}
        self._slots: dict[tuple[str, int], Slot] = {}

    def follow(
        self,
        structure: Structure,
        weights: Mapping[str, Weights],
        slots: Mapping[tuple[str, int], Slot],
    ) -> None:
        """Make the data plane what is given; cheap when nothing changed. Raises HaproxyError.

        ``weights`` is by rule key, ``slots`` by group name and slot number (from 0).
        """
        if structure != self._structure:
            self._weights, self._slots = dict(weights), dict(slots)
            self._reload(structure)
            self._structure = structure
            return
        commands = [
            f"set map {self._map} {key} {encode_weights(value)}"
            for key, value in weights.items()
            if self._weights.get(key) != value
        ]
        for (group, number), slot in slots.items():
            commands += _slot_commands(f"{group}/s{number}", self._slots.get((group, number)), slot)
        if commands and self._process is not None:
            self._command(";".join(commands))
        self._weights, self._slots = dict(weights), dict(slots)

    def close_connections(self, group: str, number: int) -> None:
        """Cut what is still in flight to a server: its deregistration delay is over."""
        if self._process is not None:
            self._command(f"shutdown sessions server {group}/s{number}")

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

    def _reload(self, structure: Structure) -> None:
        if not structure.frontends:
            self.stop()
            return
        configuration = self._directory / "haproxy.cfg"
        errors = _write_error_pages(self._directory)
        configuration.write_text(
            render(structure, self._slots, self._socket, self._map, errors), encoding="utf-8"
        )
        entries = [f"{key} {encode_weights(value)}\n" for key, value in self._weights.items()]
        self._map.write_text("".join(entries), encoding="utf-8")
        command = ["haproxy", "-db", "-q", "-f", str(configuration)]
        if self._process is not None:
            command += ["-x", str(self._socket), "-sf", str(self._process.pid)]
        with self._log.open("ab") as log:
            started = self._start(command, log)
        self._replaced = [p for p in self._replaced if p.poll() is None]
        if self._process is not None:
            self._replaced.append(self._process)
        self._process = started
        self._wait_until_up(started)

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._process = None
                raise HaproxyError(f"haproxy ended with {process.returncode}: see {self._log}")
            with contextlib.suppress(OSError):
                if f"Pid: {process.pid}\n" in self._ask("show info"):
                    return
            time.sleep(0.01)
        raise HaproxyError(f"haproxy does not answer on {self._socket}: see {self._log}")

    def _command(self, line: str) -> None:
        answer = self._ask(line)
        complaints = [text for text in answer.splitlines() if text and "changed from" not in text]
        if complaints:
            raise HaproxyError(f"haproxy answered {'; '.join(complaints)} to {line}")

    def _ask(self, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_SECONDS)
            connection.connect(str(self._socket))
            connection.sendall(line.encode() + b"\n")
            with connection.makefile(encoding="utf-8") as answer:
                return answer.read()


def encode_weights(weights: Weights) -> str:
    """Encode a forward action for the map: ``|``-separated pairs of upper bound and group.

    A request with the random number r goes to the first group whose bound is above r. Groups of
    weight 0 have an empty range; no weight at all is ``-``: nowhere to go.
    """
    total = sum(weight for _, weight in weights)
    if not total:
        return "-"
    fields: list[str] = []
    below = 0
    for group, weight in weights:
        below += weight
        fields += [str(RANDOM_RANGE * below // total if weight else 0), group]
    return "|".join(fields)


def _slot_commands(server: str, before: Slot | None, after: Slot) -> list[str]:
    if before == after:
        return []
    commands = []
    here = (after.address, after.port)
    moved = before is None or (before.address, before.port) != here
    if after.mode is not Mode.EMPTY and moved:
        commands.append(f"set server {server} addr {after.address} port {after.port}")
    if before is None or before.mode is not after.mode:
        commands.append(f"set server {server} state {after.mode}")
    return commands


def _write_error_pages(directory: Path) -> dict[int, Path]:
    """Write an ALB's error pages as whole HTTP responses; returns their files by status code."""
    pages = {}
    for status, reason in ERROR_REASONS.items():
        body = (
            f"<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n"
            f"<center><h1>{status} {reason}</h1></center>\r\n</body>\r\n</html>\r\n"
        )
        pages[status] = directory / f"{status}.http"
        head = (
            f"HTTP/1.1 {status} {reason}\r\nServer: awselb/2.0\r\nContent-Type: text/html\r\n"
            f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
        )
        pages[status].write_bytes((head + body).encode())
    return pages


def render(
    structure: Structure,
    slots: Mapping[tuple[str, int], Slot],
    control_socket: Path,
    actions: Path,
    errors: Mapping[int, Path],
) -> str:
    """Render the configuration file."""
    timeout = structure.idle_timeout
    lines = [
        "global",
        f"  stats socket {control_socket} mode 600 level admin expose-fd listeners",
        "  nbthread 1",
        f"  hard-stop-after {OLD_PROCESS_SECONDS}s",
        "defaults",
        "  mode http",
        "  timeout connect 10s",
        f"  timeout client {timeout}s",
        f"  timeout server {timeout}s",
        f"  timeout http-keep-alive {timeout}s",
        "  retries 0",
        "  http-reuse always",
        "  option idle-close-on-response",  # a reload drops no idle connection of a client
        "  option forwardfor",
        *(f"  errorfile {status} {errors[status]}" for status in ERROR_REASONS),
    ]
    for frontend in structure.frontends:
        lines += _render_frontend(frontend, structure.address, actions)
    lines += [f"backend {NOWHERE}", f"  http-request return status 503 errorfile {errors[503]}"]
    for group in structure.groups:
        lines += [
            f"backend {group.name}",
            f"  balance {group.algorithm}",
            # HAProxy says 503 for a target that refuses the connection, an ALB 502. (Nothing is
            # sent to a group without a usable target: NOWHERE takes its place in the map.)
            f"  errorfile 503 {errors[502]}",
        ]
        for number in range(SLOTS):
            slot = slots.get((group.name, number))
            if slot is None or slot.mode is not Mode.READY:
                lines.append(f"  server s{number} 127.0.0.1:1 disabled")
            else:
                lines.append(f"  server s{number} {slot.address}:{slot.port}")
    return "\n".join(lines) + "\n"


def _render_frontend(frontend: Frontend, address: str, actions: Path) -> list[str]:
    lines = [
        f"frontend {frontend.name}",
        f"  bind {address}:{frontend.port}",
        "  http-request set-header X-Forwarded-Proto http",
        f"  http-request set-header X-Forwarded-Port {frontend.port}",
    ]
    # The last rule that matches wins here, so the one to be tried first comes last.
    lines += [
        _line(f"http-request set-var(txn.rule) str({rule.key})", rule.conditions)
        for rule in reversed(frontend.rules)
    ]
    lines += [
        f"  http-request return status {rule.fixed.status} "
        f"content-type {_quoted(rule.fixed.content_type)} string {_quoted(rule.fixed.body)} "
        f"if {{ var(txn.rule) -m str {rule.key} }}"
        for rule in frontend.rules
        if rule.fixed is not None
    ]
    lines += [
        f"  http-request set-var(txn.action) var(txn.rule),map({actions})",
        "  http-request set-var(txn.random) rand()",
    ]
    for place in reversed(range(MAX_GROUPS_PER_RULE)):
        bound, group = 2 * place + 1, 2 * place + 2
        lines.append(
            f"  http-request set-var(txn.group) var(txn.action),field({group},|) "
            f"if {{ var(txn.action),field({bound},|),sub(txn.random) -m int gt 0 }}"
        )
    lines += [
        "  use_backend %[var(txn.group)] if { var(txn.group) -m found }",
        f"  default_backend {NOWHERE}",
    ]
    return lines


def _line(statement: str, conditions: Sequence[str]) -> str:
    if not conditions:
        return f"  {statement}"
    return f"  {statement} if " + " ".join(f"{{ {condition} }}" for condition in conditions)


def _quoted(text: str) -> str:
    """Quote a string for HAProxy's configuration; it cannot hold a line break."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return '"' + escaped.replace("\r", "\\r").replace("\n", "\\n") + '"'
