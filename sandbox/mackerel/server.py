"""The stand-in's HTTP server: who may ask, which faults are on, and what was asked.

Error bodies are those of the real API: ``{"error": {"message": …}}``; a path that it does not know
is 404 before the key is looked at, as there.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self, get_args

from sandbox.mackerel import alerts, rules
from sandbox.mackerel.api import Answer, Api, Call, Route, parsed_query
from sandbox.mackerel.organization import Organization, new_id
from sandbox.mackerel.rules import Refused

FaultName = Literal["outage", "refused", "throttle", "slow", "wrong_key", "lost_answer"]
_REMEMBERED_REQUESTS = 50_000


@dataclass
class Fault:
    """What goes wrong, how often (None: until it is turned off), and where.

    outage: 503. refused: nothing listens, for all paths. throttle: 429, with Retry-After when
    seconds are given. slow: each answer takes seconds longer. wrong_key: 401, as if the key had
    been taken back. lost_answer: the call takes effect, and the connection ends without an answer.
    endpoint: only requests whose endpoint (``POST /api/v0/tsdb``) begins so.
    """

    name: FaultName
    seconds: float = 0.0
    times: int | None = None
    endpoint: str = ""

    def __post_init__(self) -> None:
        if self.name not in get_args(FaultName):
            raise ValueError(f"mackerel={self.name!r}: one of {', '.join(get_args(FaultName))}")

    def shown(self) -> dict[str, Any]:
        """For ``GET /_sandbox/faults``."""
        return {"name": "mackerel", "kind": self.name, "seconds": self.seconds, "times": self.times}


@dataclass(frozen=True)
class Request:
    """One request that was answered. endpoint: method and template, ``POST /api/v0/tsdb``.
    values: how many metric values it brought. times: of the first and the last of them.
    """

    at: float
    endpoint: str
    path: str
    status: int
    received_bytes: int
    user_agent: str
    values: int = 0
    times: tuple[float, float] | None = None


@dataclass
class _Exchange:
    """An answer on its way. cut: end the connection instead."""

    status: int
    body: Any
    endpoint: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    cut: bool = False


class MackerelServer:
    """One organisation of Mackerel on ``url``, from ``start`` to ``stop``.

    address, port: 0 takes a free one; it stays the same when the server is started again.
    api_key: may read and write; read_only_key may not write. clock: epoch seconds; the Date of the
    answers is from it. service_posts_per_minute: of one service; one more is 429.
    creation_seconds: how long making a host takes, during which another request can make the same
    one. ``organization`` is what the server keeps.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int = 0,
        api_key: str = "sandbox-mackerel-key",
        *,
        read_only_key: str = "",
        clock: Callable[[], float] = time.time,
        service_posts_per_minute: int = 1,
        creation_seconds: float = 0.0,
    ) -> None:
        self.api_key = api_key
        self.organization = Organization(clock, service_posts_per_minute)
        self.clock = clock
        self._read_only_key = read_only_key
        self._creation_seconds = creation_seconds
        self._place = (address, port)
        self._lock = threading.RLock()
        self._api = Api(self.organization, self._let_others_in)
        self._faults: list[Fault] = []
        self._requests: deque[Request] = deque(maxlen=_REMEMBERED_REQUESTS)
        self._http: _Http | None = None

    # ---------------------------------------------------------------------------------- the server

    def start(self) -> Self:
        """Listen."""
        self._listen()
        return self

    def stop(self) -> None:
        """End every connection, and listen no more; what is kept stays."""
        http, self._http = self._http, None
        if http:
            http.close()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Without a slash at its end; known once it has been started."""
        return f"http://{self._place[0]}:{self._place[1]}"

    def _listen(self) -> None:
        if self._http is None:
            self._http = _Http(self._place, self)
            self._place = (self._place[0], self._http.server_port)

    # -------------------------------------------------------------------------------------- faults

    def turn_on(self, fault: Fault) -> None:
        """Let it go wrong from now on."""
        with self._lock:
            self._faults.append(fault)
        if fault.name == "refused":
            self.stop()

    def turn_off(self) -> None:
        """All faults."""
        with self._lock:
            self._faults.clear()
        self._listen()

    def faults(self) -> list[Fault]:
        """Those that are on."""
        with self._lock:
            return list(self._faults)

    def _strikes(self, name: FaultName, endpoint: str) -> Fault | None:
        """The fault that hits a request, counted."""
        with self._lock:
            for fault in self._faults:
                if fault.name == name and endpoint.startswith(fault.endpoint):
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times <= 0:
                            self._faults.remove(fault)
                    return fault
        return None

    # ------------------------------------------------------------------------------ the request log

    def requests(self, endpoint: str = "") -> list[Request]:
        """What was asked, oldest first; only endpoints that begin so."""
        with self._lock:
            return [one for one in self._requests if one.endpoint.startswith(endpoint)]

    def counts(self) -> Counter[str]:
        """How often each endpoint was asked."""
        return Counter(one.endpoint for one in self.requests())

    def forget_requests(self) -> None:
        """Begin the log anew."""
        with self._lock:
            self._requests.clear()

    # ------------------------------------------------------------------------------------- contents

    def add_alert(self, **given: Any) -> dict[str, Any]:
        """Open an alert (what monitors do at Mackerel); answers it. given: keys of an alert
        (https://mackerel.io/api-docs/entry/alerts#list).
        """
        alert = {
            "id": new_id(),
            "status": "CRITICAL",
            "monitorId": new_id(),
            "type": "host",
            "openedAt": int(self.clock()),
            **given,
        }
        with self._lock:
            self.organization.alerts.append(alert)
        return alert

    def open_alert(
        self,
        *,
        custom_identifier: str | None = None,
        service: str | None = None,
        monitor: str | None = None,
        status: str = "CRITICAL",
        value: float = 1.0,
        message: str = "",
    ) -> dict[str, Any]:
        """Open an alert as a monitor would; answers it.

        On a host, of a host metric monitor; on a service, of a service metric monitor; or of any
        ``monitor`` by its id. Without one the first of that type is taken, or made. value and
        message are in the alerts of the types that have them. Raises Refused.
        """
        with self._lock:
            alert = alerts.opened(
                self.organization,
                alerts.Wanted(custom_identifier, service, monitor, status, value, message),
            )
            self.organization.alerts.append(alert)
            return dict(alert)

    def close_alerts(self, alert_id: str | None = None, reason: str = "") -> list[dict[str, Any]]:
        """Close one open alert, or all; answers what was closed."""
        with self._lock:
            return [
                dict(self.organization.close(alert, reason))
                for alert in self.organization.open_alerts()
                if alert_id in (None, alert["id"])
            ]

    def alerts(self) -> list[dict[str, Any]]:
        """All, oldest first."""
        with self._lock:
            return [dict(alert) for alert in self.organization.alerts]

    def graph_definitions(self) -> dict[str, dict[str, Any]]:
        """By name. The real API has no call that tells."""
        with self._lock:
            return self.organization.graph_definitions()

    # --------------------------------------------------------------------------------- one request

    def _let_others_in(self) -> None:
        """Called with the lock held, once."""
        if self._creation_seconds:
            self._lock.release()
            try:
                time.sleep(self._creation_seconds)
            finally:
                self._lock.acquire()

    def answer(self, handler: _Handler, body: bytes) -> _Exchange:
        """Answer one request, and note it."""
        path, _, query = handler.path.partition("?")
        found = self._api.find(handler.command, path)
        endpoint = f"{handler.command} {found[0] if found else path}"
        slow = self._strikes("slow", endpoint)
        if slow:
            time.sleep(slow.seconds)
        parsed: Any = None
        headers: list[tuple[str, str]] = []
        try:
            self._fail(endpoint, headers)
            route = _known(found)
            self._authenticate(handler)
            parsed = _parsed(handler, body)
            with self._lock:
                answer = route(Call(found[1] if found else {}, parsed_query(query), parsed))
        except Refused as refused:
            answer = Answer({"error": {"message": str(refused)}})
            status = refused.status
        else:
            status = 200
        exchange = _Exchange(status, answer.body, endpoint, [*headers, *answer.headers])
        exchange.cut = self._strikes("lost_answer", endpoint) is not None
        self._note(handler, exchange, parsed, len(body))
        return exchange

    def _fail(self, endpoint: str, headers: list[tuple[str, str]]) -> None:
        if self._strikes("outage", endpoint):
            raise Refused(503, "Service unavailable.")
        throttle = self._strikes("throttle", endpoint)
        if throttle:
            if throttle.seconds:
                headers.append(("Retry-After", f"{throttle.seconds:.0f}"))
            raise Refused(429, "Too many requests.")
        if self._strikes("wrong_key", endpoint):
            raise Refused(401, "Authentication failed. Please try with valid Api Key.")

    def _authenticate(self, handler: _Handler) -> None:
        """https://mackerel.io/api-docs/: X-Api-Key is required; one that may only read does not do
        for calls that write.
        """
        key = handler.headers.get("X-Api-Key", "")
        if not key or key not in (self.api_key, self._read_only_key):
            raise Refused(401, "Authentication failed. Please try with valid Api Key.")
        if key != self.api_key and handler.command != "GET":
            raise Refused(403, "The API key does not have write permission.")

    def _note(
        self, handler: _Handler, exchange: _Exchange, parsed: Any, received_bytes: int
    ) -> None:
        times = []
        if exchange.endpoint.endswith("/tsdb") and isinstance(parsed, list):
            times = [one.get("time", 0) for one in parsed if isinstance(one, dict)]
        entry = Request(
            at=self.clock(),
            endpoint=exchange.endpoint,
            path=handler.path,
            status=exchange.status,
            received_bytes=received_bytes,
            user_agent=handler.headers.get("User-Agent", ""),
            values=len(times),
            times=(times[0], times[-1]) if times else None,
        )
        with self._lock:
            self._requests.append(entry)


def _known(found: tuple[str, dict[str, str], Route] | None) -> Route:
    if found is None:
        raise Refused(404, "Not found.")
    return found[2]


def _parsed(handler: _Handler, body: bytes) -> Any:
    """Input is JSON that is "valid against RFC", as application/json; a GET has none."""
    if len(body) > rules.MOST_BODY_BYTES:
        raise Refused(413, "Request entity too large.")
    if handler.command == "GET" or not body:
        return None
    if handler.headers.get_content_type() != "application/json":
        raise Refused(400, "Content-Type is not application/json.")
    try:
        return json.loads(body, parse_constant=_no_constant)
    except ValueError as error:
        raise Refused(400, f"invalid JSON: {error}") from error


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer leaves in one piece; else its second part waits for the acknowledgement of the
    # first, 40 ms.
    wbufsize = 64 * 1024
    disable_nagle_algorithm = True
    server: _Http

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        exchange = self.server.mackerel.answer(self, self.rfile.read(length))
        if exchange.cut:
            self.close_connection = True
            return
        text = json.dumps(exchange.body).encode()
        self.send_response(exchange.status)
        for name, value in exchange.headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def date_time_string(self, _timestamp: float | None = None) -> str:
        """The Date of an answer, by the server's own clock."""
        return formatdate(self.server.mackerel.clock(), usegmt=True)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Http(ThreadingHTTPServer):
    """Knows its connections, so that it can end them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, place: tuple[str, int], mackerel: MackerelServer) -> None:
        self.mackerel = mackerel
        self._connections: set[socket.socket] = set()
        super().__init__(place, _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.05,), name="mackerel", daemon=True
        )
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is nothing to print."""

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
