"""The configuration of HAProxy: what a reload changes, and the words of its runtime API.

What changes while requests flow is not in it, but told to a running process (``haproxy``):
  - which group a request goes to: one map entry a rule holds its whole forward action, so every
    request (of a TCP listener: every new connection) sees either the old weights or the new ones;
  - the targets of a group: each group has SLOTS servers that are given addresses and states.
Listeners, rules, conditions and fixed responses are in it.

As an ALB does, HAProxy never repeats a request (retries 0) and reuses its connections to targets.
A connection to a TCP listener is an NLB's: it stays with the target that it was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sandbox.alb.traffic import BEGIN, END, LOG_FORMAT

SLOTS = 48
NOWHERE = "nowhere"  # the backend that answers 503, as an ALB does for an empty group
MAX_GROUPS_PER_RULE = 5  # of an ALB's forward action
RANDOM_RANGE = 2**32  # of HAProxy's rand()
OLD_PROCESS_SECONDS = 300  # a process that was replaced is ended for good after that
SESSION_SECONDS = 60  # that a session of the runtime API may be silent: longer than a start takes
HAND_OVER = "hand-over"
"""What the map says of a listener in a process that was replaced: requests go to the new one."""

SUCCESSOR = ".successor"
_LOGGING = ("  log global", f'  log-format "{LOG_FORMAT}"', f"  {BEGIN}", f"  {END}")

LOG_DESCRIPTOR = 5
"""The file descriptor that a process inherits for what it has to log."""

ERROR_REASONS = {
    400: "Bad Request",
    408: "Request Time-out",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}


class Protocol(StrEnum):
    """What a listener and its groups speak: the words of HAProxy's ``mode``."""

    HTTP = "http"
    TCP = "tcp"


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
    protocol: Protocol = Protocol.HTTP


@dataclass(frozen=True)
class Group:
    """A target group as HAProxy knows it."""

    name: str
    algorithm: str = "roundrobin"
    protocol: Protocol = Protocol.HTTP


@dataclass(frozen=True)
class Structure:
    """What only a reload can change; the timeouts, of HTTP and of TCP, are in seconds."""

    address: str
    frontends: tuple[Frontend, ...]
    groups: tuple[Group, ...]
    idle_timeout: int = 60
    tcp_idle_timeout: int = 350  # of an NLB


Weights = tuple[tuple[str, int], ...]
"""The forward action of a rule: groups with their weights (0 to 999)."""


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


def write_error_pages(directory: Path) -> dict[int, Path]:
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
    *,
    log: bool = False,
) -> str:
    """Render the configuration file; with ``log`` each request that was answered is one line.

    Every server has the address of its slot, also one that gets no requests yet: the process is
    told of it later only that it is ready now.
    """
    timeout = structure.idle_timeout
    lines = [
        "global",
        f"  stats socket {control_socket} mode 600 level admin expose-fd listeners",
        f"  stats timeout {SESSION_SECONDS}s",
        "  nbthread 1",
        f"  hard-stop-after {OLD_PROCESS_SECONDS}s",
        *([f"  log fd@{LOG_DESCRIPTOR} len 256 format raw local0"] if log else []),
        "defaults",
        "  mode http",
        "  timeout connect 10s",
        f"  timeout client {timeout}s",
        f"  timeout server {timeout}s",
        f"  timeout http-keep-alive {timeout}s",
        "  retries 0",
        "  http-reuse always",
        "  option idle-close-on-response",  # a reload drops no idle connection of a client
        *(f"  errorfile {status} {errors[status]}" for status in ERROR_REASONS),
    ]
    for frontend in structure.frontends:
        if frontend.protocol is Protocol.TCP:
            lines += _render_tcp_frontend(frontend, structure, actions)
            continue
        lines += _render_frontend(frontend, structure.address, actions, log=log)
        lines += [
            f"backend {_successor(frontend)}",
            f"  server successor {structure.address}:{frontend.port}",
        ]
    lines += [f"backend {NOWHERE}", f"  http-request return status 503 errorfile {errors[503]}"]
    for group in structure.groups:
        lines += [f"backend {group.name}", f"  balance {group.algorithm}"]
        if group.protocol is Protocol.TCP:
            lines += ["  mode tcp", f"  timeout server {structure.tcp_idle_timeout}s"]
        else:
            # HAProxy says 503 for a target that refuses the connection, an ALB 502. (Nothing is
            # sent to a group without a usable target: NOWHERE takes its place in the map.)
            lines.append(f"  errorfile 503 {errors[502]}")
        for number in range(SLOTS):
            slot = slots.get((group.name, number), Slot("127.0.0.1", 1, Mode.EMPTY))
            line = f"  server s{number} {slot.address}:{slot.port}"
            lines.append(line if slot.mode is Mode.READY else f"{line} disabled")
    return "\n".join(lines) + "\n"


def _render_frontend(frontend: Frontend, address: str, actions: Path, *, log: bool) -> list[str]:
    lines = [
        f"frontend {frontend.name}",
        f"  bind {address}:{frontend.port}",
        *(_LOGGING if log else []),
        "  option forwardfor",
        "  http-request set-header X-Forwarded-Proto http",
        f"  http-request set-header X-Forwarded-Port {frontend.port}",
        f"  http-request set-var(txn.listener) str({frontend.name}),map({actions})",
        f"  acl replaced var(txn.listener) -m str {HAND_OVER}",
    ]
    # The last rule that matches wins here, so the one to be tried first comes last.
    lines += [
        _line(f"http-request set-var(txn.rule) str({rule.key})", rule.conditions)
        for rule in reversed(frontend.rules)
    ]
    lines += [
        f"  http-request return status {rule.fixed.status} "
        f"content-type {_quoted(rule.fixed.content_type)} string {_quoted(rule.fixed.body)} "
        f"if {{ var(txn.rule) -m str {rule.key} }} !replaced"
        for rule in frontend.rules
        if rule.fixed is not None
    ]
    lines += [
        f"  http-request set-var(txn.action) var(txn.rule),map({actions})",
        "  http-request set-var(txn.random) rand()",
    ]
    lines += _choice("http-request", "txn")
    lines += [
        f"  use_backend {_successor(frontend)} if replaced",
        "  use_backend %[var(txn.group)] if { var(txn.group) -m found }",
        f"  default_backend {NOWHERE}",
    ]
    return lines


def _render_tcp_frontend(frontend: Frontend, structure: Structure, actions: Path) -> list[str]:
    """A listener of an NLB: it has one rule, and decides once, when the connection comes.

    What has nowhere to go is reset. Nothing is handed over after a reload, as connections are not
    asked anything twice.
    """
    (rule,) = frontend.rules
    return [
        f"frontend {frontend.name}",
        "  mode tcp",
        f"  timeout client {structure.tcp_idle_timeout}s",
        f"  bind {structure.address}:{frontend.port}",
        f"  tcp-request connection set-var(sess.action) str({rule.key}),map({actions})",
        "  tcp-request connection set-var(sess.random) rand()",
        *_choice("tcp-request connection", "sess"),
        "  tcp-request connection reject unless { var(sess.group) -m found } "
        f"!{{ var(sess.group) -m str {NOWHERE} }}",
        "  use_backend %[var(sess.group)]",
    ]


def _choice(statement: str, scope: str) -> list[str]:
    """Set the variable ``group`` by those named action and random; the last match wins."""
    lines = []
    for place in reversed(range(MAX_GROUPS_PER_RULE)):
        bound, group = 2 * place + 1, 2 * place + 2
        lines.append(
            f"  {statement} set-var({scope}.group) var({scope}.action),field({group},|) "
            f"if {{ var({scope}.action),field({bound},|),sub({scope}.random) -m int gt 0 }}"
        )
    return lines


def _successor(frontend: Frontend) -> str:
    """The backend of a listener that is the load balancer itself, as the next process will be."""
    return frontend.name + SUCCESSOR


def _line(statement: str, conditions: Sequence[str]) -> str:
    if not conditions:
        return f"  {statement}"
    return f"  {statement} if " + " ".join(f"{{ {condition} }}" for condition in conditions)


def _quoted(text: str) -> str:
    """Quote a string for HAProxy's configuration; it cannot hold a line break."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return '"' + escaped.replace("\r", "\\r").replace("\n", "\\n") + '"'
