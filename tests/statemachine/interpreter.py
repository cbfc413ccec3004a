"""The state machine's file run by moto's Step Functions interpreter, as the sandbox installs it,
with scripted answers in place of the Lambda functions.
"""

from __future__ import annotations

import inspect
import io
import itertools
import json
import logging
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import moto.stepfunctions.parser.models  # noqa: F401 - loads the interpreter that is restored below
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import (
    WaitFunction,
)

from sandbox import executions
from tests.statemachine.definition import FILE

REGION = "ap-northeast-1"
ACCOUNT = "123456789012"
END_SECONDS = 20.0


@dataclass(frozen=True)
class Raised:
    """What a handler raised, as Lambda returns it. kind None: an error without a type."""

    kind: str | None
    message: str = "as scripted"

    @property
    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = {"errorMessage": self.message}
        if self.kind is not None:
            payload |= {"errorType": self.kind, "stackTrace": ["  File …"]}
        return payload


@dataclass(frozen=True)
class Refused:
    """An error of the Lambda API itself: the function did not run."""

    code: str


@dataclass(frozen=True)
class NoAnswer:
    """The connection to Lambda is lost."""


@dataclass(frozen=True)
class TooSlow:
    """The function does not answer within the Task's TimeoutSeconds."""


Answer = Mapping[str, Any] | Raised | Refused | NoAnswer | TooSlow
Script = Mapping[str, Sequence[Answer] | Callable[[Mapping[str, Any]], Mapping[str, Any]]]
"""State → its function's answers in order, or a function from ``$`` to each answer."""


@dataclass
class Functions:
    """Stands for the Lambda client of the interpreter."""

    script: Script
    invocations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    unscripted: list[str] = field(default_factory=list)

    def invoke(self, **request: Any) -> dict[str, Any]:
        state = request["FunctionName"].rpartition(":function:")[2].removesuffix("Function")
        payload = json.loads(request["Payload"])
        earlier = sum(1 for name, _ in self.invocations if name == state)
        self.invocations.append((state, payload))
        answers = self.script.get(state, [])
        if callable(answers):
            return _returned(answers(payload["data"]))
        if earlier >= len(answers):
            self.unscripted.append(state)
            return _returned({"errorMessage": "unscripted", "errorType": "Unscripted"}, failed=True)
        match answers[earlier]:
            case Raised() as raised:
                return _returned(raised.payload, failed=True)
            case Refused(code):
                raise ClientError({"Error": {"Code": code, "Message": "as scripted"}}, "Invoke")
            case NoAnswer():
                raise ReadTimeoutError(endpoint_url="https://lambda")
            case TooSlow():
                raise TimeoutError
            case answer:
                return _returned(answer)

    def unused(self) -> list[str]:
        """States that were scripted to answer more often than they were asked."""
        asked = [name for name, _ in self.invocations]
        return [
            state
            for state, answers in self.script.items()
            if not callable(answers) and asked.count(state) != len(answers)
        ]


@dataclass(frozen=True)
class Run:
    """One ended execution. slept: every wait of Wait states and before retries, in seconds."""

    status: str
    error: str | None
    cause: str | None
    output: Any
    arn: str
    states: list[str]
    invocations: list[tuple[str, dict[str, Any]]]
    slept: list[float]

    def data(self, state: str) -> list[dict[str, Any]]:
        """``$`` as each invocation of a state's function was given it."""
        return [payload["data"] for name, payload in self.invocations if name == state]


class Interpreter:
    """Runs executions of the state machine one after the other."""

    def __init__(self) -> None:
        self._client = boto3.client("stepfunctions", region_name=REGION)
        self._ended = threading.Event()
        self._slept: list[float] = []
        self._numbers = itertools.count(1)
        definition = FILE.read_text()
        function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:"
        for name in _substitutions(definition):
            arn = function + name.removesuffix("Arn")
            definition = definition.replace(f"${{{name}}}", arn)
        self._arn = self._client.create_state_machine(
            name="BlueGreenDeployment",
            definition=definition,
            roleArn=f"arn:aws:iam::{ACCOUNT}:role/BlueGreenDeployment",
        )["stateMachineArn"]

    def on_status(self, event: Mapping[str, Any]) -> None:
        if event["detail"]["status"] != "RUNNING":
            self._ended.set()

    def sleep(self, seconds: float) -> None:
        """Takes no time, and is remembered."""
        self._slept.append(seconds)

    def run(self, request: Any, script: Script) -> Run:
        """One execution from its start to its end."""
        functions = Functions(script)
        module: Any = lambda_eval_utils
        module.boto_client_for = lambda **_: functions
        self._slept = []
        self._ended.clear()
        arn = self._client.start_execution(
            stateMachineArn=self._arn, name=f"d-{next(self._numbers)}", input=json.dumps(request)
        )["executionArn"]
        assert self._ended.wait(END_SECONDS), f"still running: {self._states(arn)}"
        assert functions.unscripted == [], f"asked too often, at the end of {self._states(arn)}"
        assert functions.unused() == [], f"asked too rarely in {self._states(arn)}"
        ended = self._client.describe_execution(executionArn=arn)
        return Run(
            status=ended["status"],
            error=ended.get("error"),
            cause=ended.get("cause"),
            output=json.loads(ended["output"]) if "output" in ended else None,
            arn=arn,
            states=self._states(arn),
            invocations=functions.invocations,
            slept=self._slept,
        )

    def _states(self, arn: str) -> list[str]:
        history = self._client.get_execution_history(executionArn=arn, maxResults=1000)
        assert "nextToken" not in history
        return [
            event["stateEnteredEventDetails"]["name"]
            for event in history["events"]
            if "stateEnteredEventDetails" in event
        ]


@contextmanager
def interpreter() -> Iterator[Interpreter]:
    """An interpreter that sleeps in no time; at the end moto is what it was before."""
    with _restoring_moto(), mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        started = Interpreter()
        executions.install(publish=started.on_status, endpoint="http://127.0.0.1:1")
        retrier: Any = retrier_decl
        retrier.time = types.SimpleNamespace(sleep=started.sleep)
        wait: Any = WaitFunction
        wait._wait_interval = lambda _self, env, wait_seconds: started.sleep(wait_seconds)  # noqa: ARG005
        yield started


@contextmanager
def _restoring_moto() -> Iterator[None]:
    """Undo whatever is replaced in moto's Step Functions meanwhile: other tests use it plain."""
    before = {scope: dict(vars(scope)) for scope in _scopes()}
    # It logs the whole parsed program at every failure.
    logger = logging.getLogger("moto.stepfunctions")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for scope, names in before.items():
            for name, value in names.items():
                if vars(scope).get(name) is not value:
                    setattr(scope, name, value)


def _scopes() -> list[Any]:
    """The modules of moto's Step Functions and the classes in them."""
    modules = [one for name, one in sys.modules.items() if name.startswith("moto.stepfunctions")]
    classes = [
        one
        for module in modules
        for one in vars(module).values()
        if inspect.isclass(one) and one.__module__ == module.__name__
    ]
    return [*modules, *classes]


def _returned(payload: Mapping[str, Any], failed: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "StatusCode": 200,
        "ExecutedVersion": "$LATEST",
        "Payload": io.BytesIO(json.dumps(payload).encode()),
    }
    return answer | ({"FunctionError": "Unhandled"} if failed else {})


def _substitutions(definition: str) -> list[str]:
    return [part.partition("}")[0] for part in definition.split("${")[1:]]
