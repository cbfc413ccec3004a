"""Requests at full speed: wrk, and a client that counts colours."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

CONNECTIONS = 32
LONGEST_SECONDS = 3600
ANSWER_SECONDS = 5.0
COLORS = ("blue", "green")
MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}


class LoadError(Exception):
    """The load did not do what it should have; the message says what came instead."""


@dataclass(frozen=True)
class Load:
    """What wrk has to say; ``p99`` is in milliseconds, ``errors`` counts by what went wrong."""

    requests: int
    rate: float
    p99: float
    errors: Counter[str]


@dataclass
class Running:
    """A wrk at work; ``load`` is there once it has ended."""

    load: Load | None = None


def slice_of_load(url: str, seconds: int) -> Load:
    """Load for so many seconds. Raises LoadError."""
    done = subprocess.run(
        _command(url, seconds), capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    return _parsed(done.stdout, done.stderr)


@contextlib.contextmanager
def load_on(url: str) -> Iterator[Running]:
    """Load during the body. Raises LoadError."""
    running = Running()
    command = ["setpriv", "--pdeathsig", "KILL", *_command(url, LONGEST_SECONDS)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            time.sleep(0.5)  # all connections are there
            yield running
        except BaseException:
            process.kill()
            raise
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    running.load = _parsed(output, errors)


def _command(url: str, seconds: int) -> list[str]:
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--latency"]
    return [*command, "--duration", f"{seconds}s", url]


def _parsed(output: str, errors: str) -> Load:
    requests = re.search(r"^ +(\d+) requests in ", output, re.MULTILINE)
    rate = re.search(r"^Requests/sec: +([\d.]+)$", output, re.MULTILINE)
    p99 = re.search(r"^ +99% +([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    if requests is None or rate is None or p99 is None or requests[1] == "0":
        raise LoadError(f"wrk: {(errors or output).strip()}")
    counts: Counter[str] = Counter()
    for kind, count in re.findall(r"(connect|read|write|timeout) (\d+)", output):
        counts[kind] += int(count)
    answers = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if answers:
        counts["status"] += int(answers[1])
    return Load(int(requests[1]), float(rate[1]), float(p99[1]) * MILLISECONDS[p99[2]], +counts)


def count_colors(address: tuple[str, int], requests: int) -> Counter[str]:
    """Ask on kept-alive connections, and count by the colour that is the body of the answer.

    Raises LoadError for any other answer.
    """
    request = f"GET / HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n\r\n".encode()
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as closing:
        connections = [
            closing.enter_context(socket.create_connection(address, ANSWER_SECONDS))
            for _ in range(CONNECTIONS)
        ]
        for begin in range(0, requests, CONNECTIONS):
            asked = connections[: requests - begin]
            for connection in asked:
                connection.sendall(request)
            counts.update(_color(connection) for connection in asked)
    return counts


def _color(connection: socket.socket) -> str:
    said = b""
    while True:
        try:
            part = connection.recv(4096)
        except TimeoutError:
            part = b""
        said += part
        for color in COLORS:
            if said.endswith(f"\r\n\r\n{color}".encode()):
                return color
        if not part:
            raise LoadError(f"no colour answers: {said[:200]!r}")
