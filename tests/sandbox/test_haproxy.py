"""A real HAProxy, without AWS around it: what it was told is what it does, reloaded or not."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import IO, Any

import pytest

from sandbox.alb.configuration import (
    NOWHERE,
    FixedResponse,
    Frontend,
    Group,
    Mode,
    Protocol,
    Rule,
    Slot,
    Structure,
    Weights,
)
from sandbox.alb.haproxy import Haproxy, HaproxyError, slot_commands
from sandbox.processes import start_process

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ADDRESS = f"127.0.9.{200 + _WORKER}"  # where no connection of others takes a free port
LISTENERS = count(20_000)  # below those that the kernel gives to targets
GROUP, OTHER = "web-blue.0a", "web-green.0b"
DEFAULT, RULE = "default", "rule"


@pytest.mark.parametrize(
    ("before", "after", "commands"),
    [
        (None, Slot("a", 1, Mode.EMPTY), ["addr a port 1"]),
        (None, Slot("a", 1, Mode.READY), ["addr a port 1", "state ready"]),
        (Slot("a", 1, Mode.READY), Slot("a", 1, Mode.READY), []),
        (Slot("a", 1, Mode.READY), Slot("a", 1, Mode.DRAIN), ["state drain"]),
        (Slot("a", 1, Mode.DRAIN), Slot("a", 1, Mode.READY), ["state ready"]),
        (Slot("a", 1, Mode.DRAIN), Slot("a", 1, Mode.EMPTY), ["state maint", "shutdown"]),
        (Slot("a", 1, Mode.EMPTY), Slot("a", 1, Mode.READY), ["state ready"]),
        (Slot("a", 1, Mode.EMPTY), Slot("b", 2, Mode.READY), ["addr b port 2", "state ready"]),
        (
            Slot("a", 1, Mode.DRAIN),
            Slot("b", 2, Mode.READY),
            ["state maint", "shutdown", "addr b port 2", "state ready"],
        ),
    ],
)
def test_commands_for_a_server(before: Slot | None, after: Slot, commands: list[str]) -> None:
    expected = [
        "shutdown sessions server g/s3" if text == "shutdown" else f"set server g/s3 {text}"
        for text in commands
    ]
    assert slot_commands(("g", 3), before, after) == expected


class Answer(BaseHTTPRequestHandler):
    """Says on which port it listens."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(0.6)
        body = str(self.server.server_port).encode()  # type: ignore[attr-defined]  # an HTTPServer
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def targets() -> Iterator[list[int]]:
    """The ports of two servers."""
    servers = [ThreadingHTTPServer((ADDRESS, 0), Answer) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield [server.server_port for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass
class Balancer:
    """A load balancer with one listener on ``port``: what it has to be, and how it is asked."""

    haproxy: Haproxy
    port: int
    protocol: Protocol = Protocol.HTTP
    rules: list[Rule] = field(default_factory=lambda: [Rule(DEFAULT, ())])
    weights: dict[str, Weights] = field(default_factory=lambda: {DEFAULT: ((GROUP, 1),)})
    slots: dict[tuple[str, int], Slot] = field(default_factory=dict)
    processes: list[Any] = field(default_factory=list)

    def follow(self, *more: Frontend, listens: bool = True) -> None:
        frontend = Frontend("listener-1", self.port, tuple(self.rules), self.protocol)
        groups = tuple(Group(name, protocol=self.protocol) for name in (GROUP, OTHER))
        frontends = (frontend, *more) if listens else more
        structure = Structure(ADDRESS, frontends, groups)
        self.haproxy.follow(structure, self.weights, self.slots)

    def server(self, group: str, port: int, mode: Mode) -> None:
        self.slots[group, 0] = Slot(ADDRESS, port, mode)

    def add_rule(self, rule: Rule, weights: Weights = ()) -> None:
        self.rules.insert(0, rule)
        self.weights[rule.key] = weights

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(ADDRESS, self.port, timeout=5)

    def get(self) -> tuple[int, str]:
        with closing(self.connect()) as connection:
            return ask(connection)


def ask(connection: http.client.HTTPConnection, path: str = "/") -> tuple[int, str]:
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[Balancer]:
    started: list[Any] = []

    def start(command: Sequence[str], log: IO[bytes]) -> Any:
        started.append(start_process(command, os.environ, log))
        return started[-1]

    haproxy = Haproxy(tmp_path, tmp_path / "haproxy.log", start)
    yield Balancer(haproxy, next(LISTENERS), processes=started)
    haproxy.stop()
    assert all(process.poll() is not None for process in started)


@pytest.mark.parametrize("mode", [Mode.DRAIN, Mode.EMPTY])
def test_a_target_that_was_not_ready_at_a_reload_gets_requests_when_it_is(
    balancer: Balancer, targets: list[int], mode: Mode
) -> None:
    balancer.server(GROUP, targets[0], mode)
    balancer.follow()
    assert balancer.get()[0] == 502
    balancer.server(GROUP, targets[0], Mode.READY)
    balancer.follow()
    assert balancer.get() == (200, str(targets[0]))


def test_a_server_takes_another_target(balancer: Balancer, targets: list[int]) -> None:
    for port in targets:
        balancer.server(GROUP, port, Mode.READY)
        balancer.follow()
        assert balancer.get() == (200, str(port))
    assert len(balancer.processes) == 1


def test_weights_are_followed_without_a_reload(balancer: Balancer, targets: list[int]) -> None:
    balancer.server(GROUP, targets[0], Mode.READY)
    balancer.server(OTHER, targets[1], Mode.READY)
    for blue, green, port in ((1, 0, targets[0]), (0, 1, targets[1]), (1, 0, targets[0])):
        balancer.weights[DEFAULT] = ((GROUP, blue), (OTHER, green))
        balancer.follow()
        assert {balancer.get() for _ in range(5)} == {(200, str(port))}
    assert len(balancer.processes) == 1


def test_an_open_connection_follows_new_rules_and_targets_after_a_reload(
    balancer: Balancer, targets: list[int]
) -> None:
    """Its next request is the last of the old process, which knows nothing any more."""
    balancer.server(GROUP, targets[0], Mode.READY)
    balancer.follow()
    clients = [balancer.connect() for _ in range(3)]
    assert {ask(client) for client in clients} == {(200, str(targets[0]))}

    balancer.add_rule(Rule(RULE, ("path -m beg /",)), ((OTHER, 1),))
    balancer.server(OTHER, targets[1], Mode.READY)
    balancer.follow()
    assert ask(clients[0]) == (200, str(targets[1]))

    fixed = FixedResponse(404, "text/plain", "by $me \"and\" 'you'")
    balancer.rules[0] = Rule(RULE, ("path -m beg /",), fixed)
    balancer.follow()
    assert ask(clients[1]) == (404, fixed.body)

    del balancer.rules[0], balancer.weights[RULE]
    balancer.server(GROUP, targets[1], Mode.READY)
    balancer.follow()
    assert ask(clients[2]) == (200, str(targets[1]))
    for process in balancer.processes[:-1]:
        assert process.wait(5) == 0
    for client in clients:
        client.close()


def test_what_haproxy_does_not_take_is_no_reason_to_stand_still(
    balancer: Balancer, targets: list[int]
) -> None:
    balancer.server(GROUP, targets[0], Mode.READY)
    balancer.follow()
    balancer.add_rule(Rule(RULE, ("nonsense",)))
    balancer.server(GROUP, targets[1], Mode.READY)
    with pytest.raises(HaproxyError):
        balancer.follow()
    assert balancer.get() == (200, str(targets[1]))
    balancer.rules[0] = Rule(RULE, ("path -m beg /x",))
    balancer.follow()
    assert balancer.get() == (200, str(targets[1]))


def test_a_haproxy_that_died_is_started_again(balancer: Balancer, targets: list[int]) -> None:
    balancer.server(GROUP, targets[0], Mode.READY)
    balancer.follow()
    balancer.processes[0].kill()
    balancer.processes[0].wait()
    balancer.follow()
    assert balancer.get() == (200, str(targets[0]))


def test_a_connection_of_a_tcp_listener_stays_where_it_is(
    balancer: Balancer, targets: list[int]
) -> None:
    balancer.protocol = Protocol.TCP
    balancer.server(GROUP, targets[0], Mode.READY)
    balancer.server(OTHER, targets[1], Mode.READY)
    balancer.follow()
    with closing(balancer.connect()) as kept:
        assert ask(kept) == (200, str(targets[0]))
        assert balancer.haproxy.sessions()[GROUP, 0] == 1

        balancer.weights[DEFAULT] = ((GROUP, 0), (OTHER, 1))
        balancer.server(GROUP, targets[0], Mode.DRAIN)
        balancer.follow()
        assert {balancer.get() for _ in range(5)} == {(200, str(targets[1]))}
        assert ask(kept) == (200, str(targets[0]))

        other = Frontend("listener-2", next(LISTENERS), (Rule("other", ()),), Protocol.TCP)
        balancer.weights["other"] = ((OTHER, 1),)
        balancer.follow(other)
        assert len(balancer.processes) == 2
        assert ask(kept) == (200, str(targets[0]))

        balancer.weights[DEFAULT] = ((NOWHERE, 1),)
        balancer.follow(other)
        with pytest.raises(ConnectionResetError):
            balancer.get()


@pytest.mark.parametrize("others", [False, True])
def test_a_listener_that_is_gone_refuses_at_once_and_answers_what_it_has(
    balancer: Balancer, targets: list[int], others: bool
) -> None:
    balancer.server(GROUP, targets[0], Mode.READY)
    other = Frontend("listener-2", next(LISTENERS), (Rule("other", ()),))
    balancer.weights["other"] = ((GROUP, 1),)
    more = (other,) if others else ()
    balancer.follow(*more)
    with ThreadPoolExecutor() as pool, closing(balancer.connect()) as connection:
        slow = pool.submit(ask, connection, "/slow")
        time.sleep(0.2)
        balancer.follow(*more, listens=False)
        with pytest.raises(ConnectionRefusedError):
            balancer.get()
        assert slow.result() == (200, str(targets[0]))
    balancer.follow(*more)
    assert balancer.get() == (200, str(targets[0]))


def test_no_listener_no_process(balancer: Balancer, targets: list[int]) -> None:
    balancer.server(GROUP, targets[0], Mode.READY)
    balancer.follow()
    empty = Structure(ADDRESS, (), (Group(GROUP),))
    for _ in range(2):
        balancer.haproxy.follow(empty, {}, balancer.slots)
    assert balancer.processes[0].poll() is not None
    balancer.follow()
    assert balancer.get() == (200, str(targets[0]))
    assert len(balancer.processes) == 2
