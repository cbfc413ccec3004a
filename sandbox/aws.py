"""The AWS APIs: moto's server in this process, and what stands in front of it.

In front of moto, every request is told apart (who called which operation), recorded, and made to
fail where a fault says so. The caller is the access key of the signature: every function of the
template has its own, and people have others. Paths below ``/_sandbox/`` control the sandbox.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import botocore.session
from moto.core.config import default_user_config
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

LOG = logging.getLogger(__name__)
CONTROL = "/_sandbox/"
IAM_PREFIX = {"monitoring": "cloudwatch"}
"""The signing name of a service, where IAM calls the service by another name."""
IAM_ACTION = {
    ("lambda", "Invoke"): "InvokeFunction",
    ("sqs", "SendMessageBatch"): "SendMessage",
    ("sqs", "DeleteMessageBatch"): "DeleteMessage",
    ("s3", "CopyObject"): "PutObject",  # told apart by a header only
    ("s3", "HeadObject"): "GetObject",
    ("s3", "HeadBucket"): "ListBucket",
    ("s3", "ListObjects"): "ListBucket",
    ("s3", "ListObjectsV2"): "ListBucket",
    ("s3", "DeleteObjects"): "DeleteObject",
}
"""What allows an operation, where it has another name in IAM."""
KINDS = ("throttle", "error500", "lost_answer")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]
Route = Callable[[dict[str, Any]], Any]


class ControlError(ValueError):
    """A control request that makes no sense; the message says what would."""


@dataclass(frozen=True)
class Call:
    """One call of an AWS operation: ``service`` and ``operation`` as IAM names them.

    ``caller`` is the access key: the logical id of a function, ``StepFunctions`` for invocations
    by the state machine, anything else for people. ``at`` is in epoch seconds.
    """

    caller: str
    service: str
    operation: str
    at: float

    @property
    def action(self) -> str:
        """Such as ``ecs:UpdateService``."""
        return f"{self.service}:{self.operation}"


@dataclass
class ApiFault:
    """Calls of the workflow that fail.

    ``operation`` is an IAM action or ``*``; ``function`` limits it to one function; ``times`` is
    how many calls fail; with ``each_once`` the first call of each operation by each function
    fails, and the others do not.
    ``throttle`` and ``error500`` fail before the operation has an effect, ``lost_answer`` after:
    the connection is closed without an answer.
    """

    operation: str
    kind: str
    times: int = 1
    function: str | None = None
    each_once: bool = False
    seen: set[tuple[str, str]] = field(default_factory=set)
    hits: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ControlError(f"api_error kind={self.kind!r}: one of {', '.join(KINDS)}")
        if self.operation != "*" and ":" not in self.operation:
            raise ControlError(
                f"api_error operation={self.operation!r}: write it as in IAM, ecs:UpdateService"
            )

    def strikes(self, call: Call) -> bool:
        """Whether this call fails; counts it."""
        if self.operation not in ("*", call.action):
            return False
        if self.function not in (None, call.caller):
            return False
        if self.each_once:
            key = (call.caller, call.action)
            if key in self.seen:
                return False
            self.seen.add(key)
            self.hits += 1
            return True
        if self.times <= 0:
            return False
        self.times -= 1
        self.hits += 1
        return True


@dataclass
class Interruption:
    """Something that is done once, right before or after a call of the workflow."""

    before: str | None
    after: str | None
    action: Callable[[], None]


class Workflow:
    """The operation log, and the faults that calls run into.

    ``callers`` are the access keys of the workflow: only their calls are recorded and fail.
    """

    def __init__(self) -> None:
        self.callers: set[str] = set()
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._faults: list[ApiFault] = []
        self._interruptions: list[Interruption] = []

    def calls(self) -> list[dict[str, Any]]:
        """Every recorded call, oldest first."""
        with self._lock:
            return [
                {
                    "function": call.caller,
                    "service": call.service,
                    "operation": call.operation,
                    "at": call.at,
                }
                for call in self._calls
            ]

    def add_fault(self, fault: ApiFault) -> None:
        """Turn a fault on."""
        with self._lock:
            self._faults.append(fault)

    def add_interruption(self, interruption: Interruption) -> None:
        """Do something at the next call of an operation."""
        with self._lock:
            self._interruptions.append(interruption)

    def faults(self) -> list[dict[str, Any]]:
        """The API faults that were turned on; hits is how many calls ran into each."""
        with self._lock:
            return [
                {key: value for key, value in asdict(fault).items() if key != "seen"}
                for fault in self._faults
            ]

    def clear(self) -> None:
        """Turn all faults off."""
        with self._lock:
            self._faults.clear()
            self._interruptions.clear()

    def forget_calls(self) -> None:
        """Start the operation log anew."""
        with self._lock:
            self._calls.clear()

    def begin(self, call: Call) -> str | None:
        """Record a call; the kind of failure that it runs into, if any."""
        if call.caller not in self.callers:
            return None
        with self._lock:
            self._calls.append(call)
            due = self._due(call, "before")
            kind = next((fault.kind for fault in self._faults if fault.strikes(call)), None)
        for interruption in due:
            interruption.action()
        if kind:
            LOG.info("fault: %s of %s by %s", kind, call.action, call.caller)
        return kind

    def note(self, caller: str, service: str, operation: str) -> None:
        """Record what AWS itself calls with the role of a function; no fault strikes it."""
        with self._lock:
            self._calls.append(Call(caller, service, operation, time.time()))

    def end(self, call: Call) -> None:
        """Tell that a call had its effect."""
        if call.caller not in self.callers:
            return
        with self._lock:
            due = self._due(call, "after")
        for interruption in due:
            interruption.action()

    def _due(self, call: Call, moment: str) -> list[Interruption]:
        due = [i for i in self._interruptions if getattr(i, moment) == call.action]
        for interruption in due:
            self._interruptions.remove(interruption)
        return due


class Front:
    """The WSGI application in front of moto."""

    def __init__(self, moto: WsgiApp, workflow: Workflow) -> None:
        self._moto = moto
        self._workflow = workflow
        self.routes: dict[tuple[str, str], Route] = {}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if environ["PATH_INFO"].startswith(CONTROL):
            return self._control(environ, start_response, body)
        call = identify(environ, body)
        if call is None:
            return self._moto(environ, start_response)
        failure = self._workflow.begin(call)
        if failure in ("throttle", "error500"):
            status, headers, answer = error_answer(call.service, environ, failure)
            start_response(status, [*headers, ("Content-Length", str(len(answer)))])
            return [answer]
        if failure == "lost_answer":
            for _ in self._moto(environ, lambda *_args: None):
                pass
            self._workflow.end(call)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError(f"the answer of {call.action} is lost")
        answer = b"".join(self._moto(environ, start_response))
        self._workflow.end(call)
        return [answer]

    def _unknown(self, _body: dict[str, Any]) -> None:
        known = ", ".join(f"{method} {CONTROL}{name}" for method, name in self.routes)
        raise ControlError(f"no such request; there is {known}")

    def _control(
        self, environ: Environ, start_response: StartResponse, body: bytes
    ) -> Iterable[bytes]:
        path = environ["PATH_INFO"][len(CONTROL) :]
        route: Route = self.routes.get((environ["REQUEST_METHOD"], path), self._unknown)
        try:
            status, result = "200 OK", route(json.loads(body) if body else {})
        except (ControlError, TypeError) as error:
            status, result = "400 Bad Request", {"error": str(error)}
        except Exception as error:
            LOG.exception("control request %s", path)
            status, result = "500 Internal Server Error", {"error": repr(error)}
        answer = json.dumps(result, default=str).encode()
        start_response(
            status, [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
        )
        return [answer]


class Handler(MotoRequestHandler):
    """Keeps connections open, and keeps quiet."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Requests are in the operation log; only failures of the server itself are told."""
        if type == "error" and "is lost" not in message % args:
            LOG.error(message, *args)


class AwsServer:
    """moto's server on a free port of 127.0.0.1, started when constructed."""

    def __init__(self) -> None:
        default_user_config["stepfunctions"] = {"execute_state_machine": True}
        default_user_config["lambda"] = {"use_docker": False}
        self.workflow = Workflow()
        self.front = Front(DomainDispatcherApplication(create_backend_app), self.workflow)
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1", 0, self.front, threaded=True, request_handler=Handler
        )
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._server.block_on_close = False  # type: ignore[attr-defined]
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="aws",
            daemon=True,
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def identify(environ: Environ, body: bytes) -> Call | None:
    """Who calls which operation; None for a request that is not signed."""
    match = re.search(r"Credential=([^,\s]+)", environ.get("HTTP_AUTHORIZATION", ""))
    if match is None:
        return None
    caller, _date, _region, signing_name, _ = match[1].rsplit("/", 4)
    operation = _operation(signing_name, environ, body)
    service = IAM_PREFIX.get(signing_name, signing_name)
    return Call(caller, service, IAM_ACTION.get((service, operation), operation), time.time())


def _operation(signing_name: str, environ: Environ, body: bytes) -> str:
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        return str(target.rpartition(".")[2])
    path: str = environ["PATH_INFO"]
    if "/operation/" in path:
        return path.rpartition("/operation/")[2]
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        action = parse_qs(body.decode(errors="replace")).get("Action")
        if action:
            return action[0]
    query = set(environ.get("QUERY_STRING", "").split("&"))
    query |= {part.partition("=")[0] for part in query}
    for method, pattern, needed, name in _rest_operations(signing_name):
        if method == environ["REQUEST_METHOD"] and pattern.fullmatch(path) and needed <= query:
            return name
    return f"{environ['REQUEST_METHOD']} {path}"


@functools.cache
def _rest_operations(service: str) -> list[tuple[str, re.Pattern[str], set[str], str]]:
    """Method, path, what the query has to contain, and name; the most particular first."""
    session = botocore.session.get_session()
    if service not in session.get_available_services():
        return []
    model = session.get_service_model(service)
    found = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        pattern = re.sub(r"\\{\w+(\\\+)?\\}", lambda m: ".+" if m[1] else "[^/]+", re.escape(path))
        needed = set(query.split("&")) if query else set()
        found.append((http["method"], re.compile(pattern + "/?"), needed, name))
    return sorted(found, key=lambda one: -len(one[2]))


def error_answer(
    service: str, environ: Environ, kind: str
) -> tuple[str, list[tuple[str, str]], bytes]:
    """A failed call in the protocol that it was made in: status line, headers, body."""
    status, code, message = {
        "throttle": ("400 Bad Request", "ThrottlingException", "Rate exceeded"),
        "error500": ("500 Internal Server Error", "InternalFailure", "An internal error occurred"),
    }[kind]
    request_id = str(uuid.uuid4())
    if service == "s3":
        code = {"throttle": "SlowDown", "error500": "InternalError"}[kind]
        status = {"throttle": "503 Slow Down"}.get(kind, status)
        text = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        return status, [("Content-Type", "application/xml")], text.encode()
    form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
    if form and not environ.get("HTTP_X_AMZ_TARGET"):
        code = {"throttle": "Throttling", "error500": "InternalFailure"}[kind]
        sender = "Sender" if kind == "throttle" else "Receiver"
        error = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
        text = (
            f"<ErrorResponse><Error><Type>{sender}</Type>{error}</Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        return (
            status,
            [("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)],
            (text.encode()),
        )
    if service == "lambda" and kind == "throttle":
        status, code = "429 Too Many Requests", "TooManyRequestsException"
    if service == "lambda" and kind == "error500":
        code = "ServiceException"
    headers = [
        ("Content-Type", "application/x-amz-json-1.1"),
        ("x-amzn-RequestId", request_id),
        ("x-amzn-ErrorType", code),
    ]
    return status, headers, json.dumps({"__type": code, "message": message}).encode()
