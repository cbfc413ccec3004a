"""Lambda functions of the user's, made through the API, and what they were asked."""

from __future__ import annotations

import io
import itertools
import json
import textwrap
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.running import Running

# What it is told, and who answers at that moment at the addresses that it is told, is in its log.
LISTENS = """
import json
import time
import urllib.request


def who(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.headers["X-Color"]


def handler(event, context):
    tests = "test_url" in event and event["point"] == "idle_healthy"
    heard = {
        "at": time.time(),
        "function": context.function_name,
        "event": event,
        "live": who(event["url"]),
        "test": who(event["test_url"]) if tests else None,
    }
    print("heard " + json.dumps(heard), flush=True)
    return answer(event)


def answer(event):
"""
YES = 'return {"status": "SUCCEEDED"}'
numbers = itertools.count(1)


@dataclass
class Hooks:
    """Functions of the user's in Lambda, and the configuration that names them."""

    sandbox: Running
    role: str
    configured: list[dict[str, Any]] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)

    def add(self, point: str, answer: str, **settings: Any) -> str:
        """A function that is asked at a point; answer: what it does with ``event``, as Python.

        The name of the function.
        """
        name = self.named(point, **settings)
        self.sandbox.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=self.role,
            Handler="index.handler",
            Timeout=3,
            Code={"ZipFile": _zipped(answer)},
        )
        self.functions.append(name)
        return name

    def change(self, name: str, answer: str) -> None:
        """From the next call on it answers like this."""
        self.sandbox.client("lambda").update_function_code(
            FunctionName=name, ZipFile=_zipped(answer)
        )

    def named(self, point: str, **settings: Any) -> str:
        """A hook whose function is not there; its name."""
        name = f"bluegreen-hook-{next(numbers)}"
        self.configured.append({"at": point, "function": name, **settings})
        return name

    def heard(self) -> list[dict[str, Any]]:
        """All calls in their order: function, event, and who answered then (live, test)."""
        logs = self.sandbox.client("logs")
        lines = [
            event["message"]
            for name in self.functions
            for event in _events(logs, f"/aws/lambda/{name}")
        ]
        said = [json.loads(one.removeprefix("heard ")) for one in lines if one.startswith("heard ")]
        return sorted(said, key=lambda one: float(one["at"]))

    def wait_until_heard(self, calls: int, seconds: float = 30) -> list[dict[str, Any]]:
        """Log lines come a little later than answers."""
        deadline = time.monotonic() + seconds
        while len(found := self.heard()) < calls:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    def remove(self) -> None:
        for name in self.functions:
            self.sandbox.client("lambda").delete_function(FunctionName=name)


def _zipped(answer: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.py", LISTENS + textwrap.indent(answer, "    ") + "\n")
    return buffer.getvalue()


def _events(logs: Any, group: str) -> list[dict[str, Any]]:
    try:
        return list(logs.filter_log_events(logGroupName=group)["events"])
    except logs.exceptions.ResourceNotFoundException:
        # It is made with the first call.
        return []


@contextmanager
def hook_functions(sandbox: Running) -> Iterator[Hooks]:
    """Functions, and a role for them, for a while."""
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    iam = sandbox.client("iam")
    role = iam.create_role(
        RoleName="hooks",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
    )
    made = Hooks(sandbox, role["Role"]["Arn"])
    try:
        yield made
    finally:
        made.remove()
        iam.delete_role(RoleName="hooks")
