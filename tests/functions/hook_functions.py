"""Lambda functions of the user's in the small AWS of world.py: moto passes each call on to a Python
function, and answers as Lambda does. And the queue of what people are told.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda.models import LambdaBackend
from moto.backends import get_backend

from runtime import clients
from tests.functions.world import ACCOUNT, REGION, World

Function = Callable[[dict[str, Any]], Any]


@dataclass
class HookFunctions:
    """log: what every function writes before it answers. events: what they were called with."""

    functions: dict[str, Function] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    queue: str = ""

    def build(self, world: World) -> Self:
        def invoke(
            _backend: Any, name: str, _qualifier: Any, body: Any, _headers: Any, answered: Any
        ) -> bytes:
            return self._invoke(name.rpartition(":function:")[2], json.loads(body), answered)

        world.monkeypatch.setattr(LambdaBackend, "invoke", invoke)
        sqs: Any = "sqs"
        get_backend(sqs)[ACCOUNT][REGION].reset()
        self.queue = clients.sqs().create_queue(
            QueueName="announcements.fifo", Attributes={"FifoQueue": "true"}
        )["QueueUrl"]
        world.monkeypatch.setenv("ANNOUNCEMENTS_QUEUE_URL", self.queue)
        return self

    def answers(self, name: str, *payloads: Any) -> None:
        """A function that answers these in turn, the last one for ever."""
        left = list(payloads)

        def function(_: dict[str, Any]) -> Any:
            return left.pop(0) if len(left) > 1 else left[0]

        self.functions[name] = function

    def told(self, kind: str) -> list[dict[str, Any]]:
        """What people are to be told of a kind by now."""
        found = clients.sqs().receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=10, VisibilityTimeout=0
        )
        bodies = [json.loads(message["Body"]) for message in found.get("Messages", [])]
        return [body for body in bodies if body["kind"] == kind]

    def _invoke(self, name: str, event: dict[str, Any], answered: dict[str, str]) -> bytes:
        if name not in self.functions:
            raise UnknownFunctionException(f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}")
        self.events.append(event)
        log = ["START RequestId: 1 Version: $LATEST", *self.log]
        try:
            answer = self.functions[name](event)
        except Exception as error:  # noqa: BLE001 - as Lambda, whatever it is
            kind = type(error).__name__
            log.append(f"[ERROR] {kind}: {error}")
            answered["x-amz-function-error"] = "Unhandled"
            answer = {"errorMessage": str(error), "errorType": kind, "stackTrace": []}
        text = "\n".join([*log, "END RequestId: 1"])
        answered["x-amz-log-result"] = base64.b64encode(text.encode()[-4096:]).decode()
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()
