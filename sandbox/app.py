"""The demo web service: what runs on blue and green when nobody brings a program of their own.

``GET /`` answers one line of JSON with the version and the colour, and says both again in the
headers ``X-Version`` and ``X-Color`` (from the environment: VERSION, COLOR). ``GET /healthz``
answers 200 when it is ready. ``?sleep=MILLISECONDS`` makes a request take that long. It listens on
HOST and PORT. Flags break it: the health check does not notice ``--fail-percent`` and ``--slow``.

It stops as a good citizen behind a load balancer does. After SIGTERM it finishes what is in
flight, still answers what the load balancer sends in the last moments, each time with
``Connection: close``, and exits with 0 once nothing has come for LINGER_SECONDS.

Only asyncio and a hand-written HTTP/1.1 loop: it is up within a tenth of a second, and one process
answers more requests than the load generator of ``make demo`` asks for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time

LINGER_SECONDS = 0.3
MAX_HEAD_BYTES = 65_536
ROUNDING = 1e-9
HEALTH_PATH = "/healthz"
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class App:
    """What the service answers, and whether it is stopping."""

    def __init__(
        self, *, never_healthy: bool, slow_start: float, fail_percent: float, slow: float
    ) -> None:
        self.color = os.environ.get("COLOR", "none")
        self.version = os.environ.get("VERSION", "none")
        self.never_healthy = never_healthy
        self.ready_at = time.monotonic() + slow_start
        self.slow = slow
        self._fail_fraction = fail_percent / 100
        self._ordinary = 0
        self.stopping = asyncio.Event()
        self.in_flight = 0
        self.last_request = time.monotonic()
        body = {"service": "demo", "color": self.color, "version": self.version}
        self._body = json.dumps(body).encode() + b"\n"
        self._identity = f"X-Color: {self.color}\r\nX-Version: {self.version}\r\n"

    def answer(self, path: str) -> tuple[int, bytes]:
        """The status code and the body for a request of ``path`` (without its query)."""
        if path == HEALTH_PATH:
            return self._health()
        if path != "/":
            return 404, b'{"error": "there is only / and /healthz"}\n'
        self._ordinary += 1
        # Evenly, not by chance: with 5 percent each 20th.
        failures = int(self._ordinary * self._fail_fraction + ROUNDING)
        if failures > int((self._ordinary - 1) * self._fail_fraction + ROUNDING):
            return 500, b'{"error": "failed on purpose (--fail-percent)"}\n'
        return 200, self._body

    def _health(self) -> tuple[int, bytes]:
        if self.never_healthy:
            return 503, b'{"healthy": false, "reason": "--never-healthy"}\n'
        remaining = self.ready_at - time.monotonic()
        if remaining > 0:
            return 503, b'{"healthy": false, "reason": "starting, ready in %.1f s"}\n' % remaining
        return 200, b'{"healthy": true}\n'

    def response(self, status: int, body: bytes, *, close: bool, head: bool) -> bytes:
        """The bytes of one HTTP/1.1 response."""
        top = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{self._identity}"
            f"{'Connection: close' if close else 'Connection: keep-alive'}\r\n\r\n"
        )
        return top.encode() if head else top.encode() + body


class Connection(asyncio.Protocol):
    """One client connection: reads requests, answers them in order, keeps the connection."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._buffer = b""
        self._busy = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._next_request()

    def _next_request(self) -> None:
        while self._transport is not None and not self._busy:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                if len(head) > MAX_HEAD_BYTES:
                    self._send(400, b"", close=True, head=False)
                return
            lines = head.decode("latin-1").split("\r\n")
            fields = {k.lower(): v.strip() for k, _, v in (i.partition(":") for i in lines[1:])}
            method, _, rest_of_line = lines[0].partition(" ")
            target, _, protocol = rest_of_line.partition(" ")
            length = fields.get("content-length", "0")
            if not protocol.startswith("HTTP/1.") or not length.isdigit():
                self._send(400, b"", close=True, head=False)
                return
            if len(rest) < int(length):
                return  # the body is not complete yet
            self._buffer = rest[int(length) :]
            self._serve(method, target, protocol, fields)

    def _serve(self, method: str, target: str, protocol: str, fields: dict[str, str]) -> None:
        app = self._app
        app.last_request = time.monotonic()
        wants = fields.get("connection", "").lower()
        close = wants == "close" or (protocol == "HTTP/1.0" and wants != "keep-alive")
        path, _, query = target.partition("?")
        status, body = app.answer(path)
        sleep = 0.0 if path == HEALTH_PATH else app.slow
        for item in query.split("&"):
            name, _, value = item.partition("=")
            if name == "sleep" and value.isdigit():
                sleep += int(value) / 1000
        if not sleep:
            self._send(status, body, close=close, head=method == "HEAD")
            return
        self._busy = True
        app.in_flight += 1

        def finish() -> None:
            self._busy = False
            app.in_flight -= 1
            app.last_request = time.monotonic()
            self._send(status, body, close=close, head=method == "HEAD")
            self._next_request()

        asyncio.get_running_loop().call_later(sleep, finish)

    def _send(self, status: int, body: bytes, *, close: bool, head: bool) -> None:
        if self._transport is None:
            return
        close = close or self._app.stopping.is_set()
        self._transport.write(self._app.response(status, body, close=close, head=head))
        if close:
            self._transport.close()
            self._transport = None


async def serve(app: App, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then until nothing has been asked for LINGER_SECONDS."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stopping.set)
    server = await loop.create_server(lambda: Connection(app), host, port, backlog=1024)
    print(f"version {app.version}, color {app.color}: listening on {host}:{port}", flush=True)
    if app.never_healthy:
        print("/healthz will answer 503 for ever: started with --never-healthy", flush=True)
    await app.stopping.wait()
    print("SIGTERM: finishing what is in flight", flush=True)
    stopped_at = time.monotonic()
    while app.in_flight or time.monotonic() - max(app.last_request, stopped_at) < LINGER_SECONDS:
        await asyncio.sleep(0.02)
    server.close()
    print("nothing in flight: bye", flush=True)


def main() -> None:
    """Parse the flags and serve."""
    parser = argparse.ArgumentParser(prog="sandbox.app", description="the demo web service")
    parser.add_argument("--never-healthy", action="store_true", help="/healthz answers 503")
    parser.add_argument("--crash", action="store_true", help="exit with 3 soon after the start")
    parser.add_argument("--slow-start", type=float, default=0, help="seconds until healthy")
    parser.add_argument("--fail-percent", type=float, default=0, help="share of 500s")
    parser.add_argument("--slow", type=float, default=0, help="seconds each answer takes longer")
    flags = parser.parse_args()
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    if flags.crash:
        print("connecting to the database", flush=True)
        print("fatal: cannot reach the database at db.internal:5432", file=sys.stderr, flush=True)
        time.sleep(0.1)
        sys.exit(3)
    app = App(
        never_healthy=flags.never_healthy,
        slow_start=flags.slow_start,
        fail_percent=flags.fail_percent,
        slow=flags.slow,
    )
    asyncio.run(serve(app, host, port))


if __name__ == "__main__":
    main()
