"""Task tokens: who waits for which, and who answers.

A token is open from the moment that its function is given it until it is answered, its task has
timed out or its execution has ended. It can be answered before the function has returned. Whoever
answers later gets TaskTimedOut, whoever answers what was never a token InvalidToken
(API_SendTaskSuccess, API_SendTaskFailure and API_SendTaskHeartbeat in the API reference).
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moto.stepfunctions.parser.api import InvalidOutput, InvalidToken, TaskTimedOut
from moto.stepfunctions.parser.asl.component.common.timeouts.timeout import EvalTimeoutError

TOKEN_BYTES = 400
LOOK_SECONDS = 0.1


class HeartbeatMissed(TimeoutError):
    """No heartbeat within HeartbeatSeconds."""


@dataclass(frozen=True)
class Success:
    """What SendTaskSuccess said; ``output`` is any JSON value."""

    output: Any


@dataclass(frozen=True)
class Failure:
    """What SendTaskFailure said."""

    error: str | None
    cause: str | None


@dataclass
class Waiting:
    """A token and the task that waits for it; ``running`` says whether it still does."""

    token: str
    running: Callable[[], bool]
    answer: Success | Failure | None = None
    beaten_at: float = field(default_factory=time.monotonic)
    closed: bool = False
    answered: threading.Event = field(default_factory=threading.Event)


class Tokens:
    """All tokens of a sandbox."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Waiting] = {}

    def issue(self, running: Callable[[], bool]) -> Waiting:
        """Make a token; it looks as the service's own do, with characters that URLs escape."""
        token = base64.b64encode(b"\0\0\0*" + secrets.token_bytes(TOKEN_BYTES)).decode()
        waiting = Waiting(token, running)
        with self._lock:
            self._waiting[token] = waiting
        return waiting

    def close(self, waiting: Waiting) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            waiting.closed = True

    def answer(self, token: str, answer: Success | Failure) -> None:
        """Answer; raises InvalidToken or TaskTimedOut."""
        with self._lock:
            waiting = self._open(token)
            waiting.answer = answer
            waiting.answered.set()

    def beat(self, token: str) -> None:
        """Say that the task is alive; raises InvalidToken or TaskTimedOut."""
        with self._lock:
            self._open(token).beaten_at = time.monotonic()

    def wait(self, waiting: Waiting, heartbeat_seconds: float | None) -> Success | Failure:
        """Wait for the answer.

        Raises HeartbeatMissed, or EvalTimeoutError when the task is not to run any longer.
        """
        waiting.beaten_at = time.monotonic()
        while True:
            waiting.answered.wait(LOOK_SECONDS)
            with self._lock:
                if waiting.answer is not None:
                    return waiting.answer
                if not waiting.running():
                    raise EvalTimeoutError
                silent = time.monotonic() - waiting.beaten_at
                if heartbeat_seconds is not None and silent > heartbeat_seconds:
                    waiting.closed = True
                    raise HeartbeatMissed

    def _open(self, token: str) -> Waiting:
        waiting = self._waiting.get(token)
        if waiting is None:
            raise InvalidToken
        if waiting.closed or waiting.answer is not None or not waiting.running():
            raise TaskTimedOut("Task Timed Out: 'Provided task does not exist anymore'")
        return waiting


def parsed(output: str) -> Any:
    """The output of SendTaskSuccess; raises InvalidOutput when it is no JSON."""
    try:
        return json.loads(output)
    except ValueError as error:
        raise InvalidOutput(f"Invalid Output: '{error}'") from error
