"""A stand-in for Slack's incoming webhooks: takes what Slack would take, and keeps it.

Every path ``/services/T…/B…/…`` is a webhook of its own. Rules and errors, which are plain text:
https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks,
https://docs.slack.dev/reference/block-kit/blocks and https://docs.slack.dev/apis/web-api/rate-limits
(one message a second for each webhook; short bursts over that are allowed). Where the documentation
is silent the stand-in refuses: text over 40,000 characters, which Slack cuts.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self, get_args

WEBHOOK = re.compile(r"/services/[^/]+/[^/]+/[^/]+")
MAX_TEXT = 40_000
MAX_BLOCKS = 50
MAX_ATTACHMENTS = 100
MAX_BLOCK_ID = 255
MAX_HEADER = 150
MAX_SECTION = 3_000
MAX_FIELDS = 10
MAX_FIELD = 2_000
MAX_ELEMENTS = {"context": 10, "actions": 25}
BURST = 5
PER_SECOND = 1.0

FaultKind = Literal[
    "outage", "throttle", "slow", "lost_answer", "forbidden", "unknown", "archived", "revoked"
]
REFUSALS: Mapping[str, tuple[int, str]] = {
    "outage": (503, "service_unavailable"),
    "forbidden": (403, "action_prohibited"),
    "unknown": (404, "channel_not_found"),
    "archived": (410, "channel_is_archived"),
    "revoked": (404, "no_service"),
}


class Refused(Exception):
    """An answer other than 200, with Slack's word for it; ``retry_after`` is in seconds."""

    def __init__(self, status: int, word: str, retry_after: int | None = None) -> None:
        super().__init__(word)
        self.status = status
        self.retry_after = retry_after


@dataclass
class SlackFault:
    """What goes wrong, and how often (None: until it is turned off).

    outage: 503. throttle: 429, again after ``seconds`` (1). slow: each answer takes ``seconds``
    longer. lost_answer: the message is there, and the connection ends without an answer.
    forbidden: 403. unknown: 404, the channel is gone. archived: 410. revoked: 404, the webhook is.
    """

    kind: FaultKind
    times: int | None = None
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"slack kind={self.kind!r}: one of {', '.join(get_args(FaultKind))}")
        if self.times is not None and self.times < 1:
            raise ValueError("times is 1 or more")

    def shown(self) -> dict[str, Any]:
        """For ``GET /_sandbox/faults``."""
        return {"name": "slack", "kind": self.kind, "times": self.times, "seconds": self.seconds}


@dataclass(frozen=True)
class Message:
    """What a webhook has taken; ``at`` is in epoch seconds, ``body`` the JSON that came."""

    at: float
    webhook: str
    body: Mapping[str, Any]

    def shown(self) -> dict[str, Any]:
        """For ``GET /_sandbox/slack``."""
        return {"at": self.at, "webhook": self.webhook, **self.body}


@dataclass
class _Bucket:
    left: float = BURST
    at: float = field(default=-math.inf)


class SlackServer:
    """Slack on ``url``, from ``start`` to ``stop``. ``clock``: epoch seconds."""

    def __init__(self, address: str = "127.0.0.1", clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._faults: list[SlackFault] = []
        self._messages: list[Message] = []
        self._buckets: dict[str, _Bucket] = defaultdict(_Bucket)
        self._http = _Http((address, 0), self)
        self.url = f"http://{address}:{self._http.server_port}"

    def start(self) -> Self:
        """Answer from now on."""
        self._http.start()
        return self

    def stop(self) -> None:
        """Listen no more; what was taken stays."""
        self._http.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def messages(self) -> list[dict[str, Any]]:
        """What was taken, oldest first."""
        with self._lock:
            return [message.shown() for message in self._messages]

    def forget(self) -> None:
        """Start the list anew."""
        with self._lock:
            self._messages.clear()

    def turn_on(self, fault: SlackFault) -> None:
        """Let it go wrong from now on."""
        with self._lock:
            self._faults.append(fault)

    def turn_off(self) -> None:
        """All faults."""
        with self._lock:
            self._faults.clear()

    def faults(self) -> list[dict[str, Any]]:
        """Those that are on."""
        with self._lock:
            return [fault.shown() for fault in self._faults]

    def take(self, method: str, path: str, content_type: str, body: bytes) -> bool:
        """Take a message; whether the answer arrives. Raises Refused."""
        if not WEBHOOK.fullmatch(path):
            raise Refused(404, "no_service")
        slow = self._strikes("slow")
        if slow is not None:
            time.sleep(slow.seconds)
        for kind, (status, word) in REFUSALS.items():
            if self._strikes(kind) is not None:
                raise Refused(status, word)
        throttle = self._strikes("throttle")
        if throttle is not None:
            raise Refused(429, "rate_limited", math.ceil(throttle.seconds))
        if method != "POST":
            raise Refused(400, "invalid_payload")
        given = parsed(content_type, body)
        with self._lock:
            self._spend(path)
            self._messages.append(Message(self._clock(), path, given))
        return self._strikes("lost_answer") is None

    def _spend(self, path: str) -> None:
        """Count a message of a webhook; called with the lock held."""
        bucket, now = self._buckets[path], self._clock()
        bucket.left = min(BURST, bucket.left + (now - bucket.at) * PER_SECOND)
        bucket.at = now
        if bucket.left < 1:
            raise Refused(429, "rate_limited", math.ceil((1 - bucket.left) / PER_SECOND))
        bucket.left -= 1

    def _strikes(self, kind: str) -> SlackFault | None:
        """The fault of a kind that hits a request, counted."""
        with self._lock:
            for fault in self._faults:
                if fault.kind == kind:
                    if fault.times is not None:
                        fault.times -= 1
                        if not fault.times:
                            self._faults.remove(fault)
                    return fault
        return None


def parsed(content_type: str, body: bytes) -> dict[str, Any]:
    """The message in a request. Raises Refused, as Slack does."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refused(400, "invalid_payload")
    try:
        given = json.loads(body)
    except ValueError as error:
        raise Refused(400, "invalid_payload") from error
    if not isinstance(given, dict):
        raise Refused(400, "invalid_payload")
    text, blocks = given.get("text"), given.get("blocks")
    attachments = given.get("attachments")
    if not isinstance(text, str | None) or (text and len(text) > MAX_TEXT):
        raise Refused(400, "invalid_payload")
    for kind, items, most in (
        ("invalid_blocks", blocks, MAX_BLOCKS),
        ("too_many_attachments", attachments, MAX_ATTACHMENTS),
    ):
        if items is not None and (not isinstance(items, list) or len(items) > most):
            raise Refused(400, kind)
    if not text and not blocks and not attachments:
        raise Refused(400, "no_text")
    if not all(_is_block(block) for block in blocks or []):
        raise Refused(400, "invalid_blocks")
    return given


def _is_block(block: Any) -> bool:
    """Whether Slack knows it, with texts of the right length; of other types only the id counts."""
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return False
    if len(str(block.get("block_id", ""))) > MAX_BLOCK_ID:
        return False
    match block["type"]:
        case "header":
            return _is_text(block.get("text"), MAX_HEADER, ("plain_text",))
        case "section":
            return _is_section(block)
        case "context" | "actions" as kind:
            elements = block.get("elements")
            return isinstance(elements, list) and 1 <= len(elements) <= MAX_ELEMENTS[kind]
    return True


def _is_section(block: Mapping[str, Any]) -> bool:
    fields = block.get("fields")
    if "text" not in block and not fields:
        return False
    if "text" in block and not _is_text(block["text"], MAX_SECTION):
        return False
    if fields is None:
        return True
    return (
        isinstance(fields, list)
        and len(fields) <= MAX_FIELDS
        and all(_is_text(one, MAX_FIELD) for one in fields)
    )


def _is_text(value: Any, most: int, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")) -> bool:
    """Whether it is a text object of 1 to ``most`` characters."""
    return (
        isinstance(value, dict)
        and value.get("type") in kinds
        and isinstance(value.get("text"), str)
        and 1 <= len(value["text"]) <= most
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 64 * 1024
    disable_nagle_algorithm = True
    server: _Http

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content_type = self.headers.get("Content-Type", "")
        status, word, retry_after = 200, "ok", None
        try:
            if not self.server.slack.take(self.command, self.path, content_type, body):
                self.close_connection = True
                return
        except Refused as refused:
            status, word, retry_after = refused.status, str(refused), refused.retry_after
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(word)))
        self.end_headers()
        self.wfile.write(word.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, place: tuple[str, int], slack: SlackServer) -> None:
        self.slack = slack
        super().__init__(place, _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.05,), name="slack", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        with suppress(OSError):
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is nothing to print."""
