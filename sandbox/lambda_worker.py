"""Runs one Lambda handler: the process that the sandbox starts for a function.

It imports nothing of the sandbox. Invocations come in, and answers go out, as JSON lines through
the socket whose file descriptor is the first argument, so that what a handler prints cannot get
between them. It ends when the socket is closed, also when the sandbox was killed.

Request: ``{"request_id", "arn", "deadline": epoch seconds, "event"}``. Answer: ``{"ready": true}``
once, after the import, then per request ``{"payload"}`` or ``{"error": {"errorMessage",
"errorType", "stackTrace"}}``, as Lambda's own runtime for Python words it.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any


@dataclass
class Context:
    """What Lambda passes as second argument."""

    aws_request_id: str
    invoked_function_arn: str
    deadline: float
    function_name: str
    function_version: str
    memory_limit_in_mb: str
    log_group_name: str
    log_stream_name: str
    identity: None = None
    client_context: None = None

    def get_remaining_time_in_millis(self) -> int:
        """How long until Lambda ends this invocation (milliseconds, never negative)."""
        return max(0, int((self.deadline - time.time()) * 1000))


def main() -> None:
    """Import the handler named by ``_HANDLER`` and serve until the socket closes."""
    module_name, _, attribute = os.environ["_HANDLER"].rpartition(".")
    channel = socket.socket(fileno=int(sys.argv[1])).makefile("rw", encoding="utf-8")
    failure: dict[str, Any] | None = None
    handler: Any = None
    try:
        handler = getattr(importlib.import_module(module_name.replace("/", ".")), attribute)
    except Exception as error:  # noqa: BLE001 - whatever the import raises is the answer
        kind = "ImportModuleError" if isinstance(error, ImportError) else "UserCodeError"
        failure = describe(error)
        failure["errorType"] = f"Runtime.{kind}"
        failure["errorMessage"] = f"Unable to import module '{module_name}': {error}"
        print(json.dumps(failure), file=sys.stderr, flush=True)
    send(channel, {"ready": True})
    for line in channel:
        request = json.loads(line)
        context = Context(
            aws_request_id=request["request_id"],
            invoked_function_arn=request["arn"],
            deadline=request["deadline"],
            function_name=os.environ["AWS_LAMBDA_FUNCTION_NAME"],
            function_version=os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
            memory_limit_in_mb=os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"],
            log_group_name=os.environ["AWS_LAMBDA_LOG_GROUP_NAME"],
            log_stream_name=os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
        )
        send(channel, {"error": failure} if failure else answer(handler, request, context))
        sys.stdout.flush()


def answer(handler: Any, request: dict[str, Any], context: Context) -> dict[str, Any]:
    """Call the handler; its result must be JSON, as in Lambda."""
    try:
        payload = handler(request["event"], context)
    except Exception as error:  # noqa: BLE001 - a function's error is its answer
        failure = describe(error)
        print(f"[ERROR] {''.join(traceback.format_exception(error))}", file=sys.stderr, flush=True)
        return {"error": failure}
    try:
        return {"payload": json.dumps(payload)}
    except (TypeError, ValueError) as error:
        message = f"Unable to marshal response: {error}"
        return {"error": {"errorMessage": message, "errorType": "Runtime.MarshalError"}}


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as Lambda returns it."""
    return {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_tb(error.__traceback__)[1:],  # without this file's frame
    }


def send(channel: Any, message: dict[str, Any]) -> None:
    """Write one line."""
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
