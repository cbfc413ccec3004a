"""A state machine's file run by moto's Step Functions interpreter, as the sandbox installs it,
with scripted answers in place of the Lambda functions, of people, and of what other services run.
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
from typing import Any, ClassVar

import boto3
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.validate import validate_parameters
from moto import mock_aws
from moto.core.config import default_user_config
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import (
    lambda_eval_utils,
    state_task_factory,
)
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import (
    WaitFunction,
)
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from sandbox import executions
from sandbox.executions.ecs_run_task import RunTask
from sandbox.executions.integration import Integration, TaskFailed, lowered
from sandbox.executions.lambda_invoke import Invoke
from sandbox.executions.start_execution import StartExecution
from tests.statemachine.definition import SERVICES, Definition

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
    """The Task's time is up before there is an answer."""


@dataclass(frozen=True)
class Said:
    """The function asks a person, who answers its task token: with an output, or with an error."""

    output: Any = None
    error: str | None = None
    cause: str = ""


Answer = Mapping[str, Any] | Raised | Refused | NoAnswer | TooSlow | Said
Script = Mapping[str, Sequence[Answer] | Callable[[Mapping[str, Any]], Mapping[str, Any]]]
"""State → what it is answered, in order, or a function from ``$`` to each answer."""


@dataclass
class Functions:
    """Stands for the Lambda client of the interpreter, and for what other services run.

    names: (logical id of a function, point) → the state that invokes it so.
    """

    script: Script
    names: Mapping[tuple[str, str | None], str] = field(default_factory=dict)
    invocations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    unscripted: list[str] = field(default_factory=list)

    def invoke(self, **request: Any) -> dict[str, Any]:
        payload = json.loads(request["Payload"])
        function = request["FunctionName"].rpartition(":function:")[2]
        state = self.names[function, payload.get("point")]
        match self.answer(state, payload, payload["data"]):
            case Raised() as raised:
                return _returned(raised.payload, failed=True)
            case Refused(code):
                raise ClientError({"Error": {"Code": code, "Message": "as scripted"}}, "Invoke")
            case NoAnswer():
                raise ReadTimeoutError(endpoint_url="https://lambda")
            case TooSlow():
                raise TimeoutError
            case Said() as said:
                _say(payload["token"], said)
                return _returned({"until": 0})
            case answer:
                return _returned(answer)

    def begin(self, state: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """What a service has to say once what a state has begun there has ended."""
        match self.answer(state, parameters, parameters):
            case Raised(kind, message):
                raise TaskFailed(kind or "", message)
            case TooSlow():
                raise TimeoutError
            case answer:
                assert isinstance(answer, Mapping)
                return dict(answer)

    def answer(self, state: str, payload: dict[str, Any], data: Mapping[str, Any]) -> Answer:
        """The next one for a state."""
        earlier = sum(1 for name, _ in self.invocations if name == state)
        self.invocations.append((state, payload))
        answers = self.script.get(state, [])
        if callable(answers):
            return answers(data)
        if earlier >= len(answers):
            self.unscripted.append(state)
            return Raised("Unscripted", "unscripted")
        return answers[earlier]

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
    """One ended execution. slept: every wait of Wait states and before retries, in seconds. events:
    how many its history has.
    """

    status: str
    error: str | None
    cause: str | None
    output: Any
    arn: str
    states: list[str]
    invocations: list[tuple[str, dict[str, Any]]]
    slept: list[float]
    events: int

    def data(self, state: str) -> list[dict[str, Any]]:
        """``$`` as each invocation of a state's function was given it."""
        return [payload["data"] for payload in self.given(state)]

    def given(self, state: str) -> list[dict[str, Any]]:
        """All that each invocation of a state's function, or its service, was given."""
        return [payload for name, payload in self.invocations if name == state]


class _Scripted(Integration):
    """Begins nothing. What it would have begun, its API would have taken."""

    functions: ClassVar[Functions] = Functions({})

    def submit(self, parameters: dict[str, Any]) -> Any:
        service: Any = self.service
        client = boto3.client(service, region_name=REGION)
        operation = self.action[:1].upper() + self.action[1:]
        shape = client.meta.service_model.operation_model(operation).input_shape
        texts = {key: _as_text(value) for key, value in parameters.items() if key == "Input"}
        validate_parameters(lowered({**parameters, **texts}, shape), shape)
        return _Scripted.functions.begin(self.name, parameters)

    def wait(self, env: Environment, submitted: Any) -> Any:  # noqa: ARG002 - nothing to look at
        return submitted


class ScriptedRunTask(_Scripted, RunTask):
    pass


class ScriptedStartExecution(_Scripted, StartExecution):
    pass


SCRIPTED = {"ecs": ScriptedRunTask, "lambda": Invoke, "states": ScriptedStartExecution}


class Interpreter:
    """Runs executions of a state machine one after the other."""

    def __init__(self, definition: Definition) -> None:
        self._client = boto3.client("stepfunctions", region_name=REGION)
        self._ended = threading.Event()
        self._slept: list[float] = []
        self._numbers = itertools.count(1)
        self._names = {
            (function, definition.states[task]["Parameters"].get("point")): task
            for task, function in definition.function_tasks().items()
        }
        text = definition.file.read_text()
        for name in _substitutions(text):
            text = text.replace(f"${{{name}}}", _arn(name))
        self._text, self._name = text, definition.name

    def create(self) -> None:
        """Create the state machine: what the sandbox does to moto has been done by now."""
        self._arn = self._client.create_state_machine(
            name=self._name,
            definition=self._text,
            roleArn=f"arn:aws:iam::{ACCOUNT}:role/{self._name}",
        )["stateMachineArn"]

    def on_status(self, event: Mapping[str, Any]) -> None:
        if event["detail"]["status"] != "RUNNING":
            self._ended.set()

    def sleep(self, seconds: float) -> None:
        """Takes no time, and is remembered."""
        self._slept.append(seconds)

    def run(self, request: Any, script: Script) -> Run:
        """One execution from its start to its end."""
        functions = _Scripted.functions = Functions(script, self._names)
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
            events=len(self._history(arn)),
            invocations=functions.invocations,
            slept=self._slept,
        )

    def _states(self, arn: str) -> list[str]:
        return [
            event["stateEnteredEventDetails"]["name"]
            for event in self._history(arn)
            if "stateEnteredEventDetails" in event
        ]

    def _history(self, arn: str) -> list[Mapping[str, Any]]:
        history = self._client.get_execution_history(executionArn=arn, maxResults=1000)
        assert "nextToken" not in history
        return list(history["events"])


@contextmanager
def interpreter(definition: Definition) -> Iterator[Interpreter]:
    """An interpreter that sleeps in no time; at the end moto is what it was before."""
    with _restoring_moto(), mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        # A mock_aws within another one begins with what that one has.
        stepfunctions_parser_backends[ACCOUNT][REGION].reset()
        started = Interpreter(definition)
        executions.install(publish=started.on_status, endpoint="http://127.0.0.1:1")
        factory: Any = state_task_factory
        factory.state_task_service_for = lambda service_name: SCRIPTED[service_name]()
        retrier: Any = retrier_decl
        retrier.time = types.SimpleNamespace(sleep=started.sleep)
        wait: Any = WaitFunction
        wait._wait_interval = lambda _self, env, wait_seconds: started.sleep(wait_seconds)  # noqa: ARG005
        started.create()
        yield started


@contextmanager
def _restoring_moto() -> Iterator[None]:
    """Undo whatever is replaced in moto's Step Functions meanwhile: other tests use it plain."""
    before = {scope: dict(vars(scope)) for scope in _scopes()}
    # A mock_aws within another one leaves its configuration behind.
    configured = dict(default_user_config)
    # It logs the whole parsed program at every failure.
    logger = logging.getLogger("moto.stepfunctions")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        default_user_config.clear()
        default_user_config.update(configured)
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


def _say(token: str, said: Said) -> None:
    client = boto3.client("stepfunctions", region_name=REGION)
    if said.error is None:
        client.send_task_success(taskToken=token, output=json.dumps(said.output))
    else:
        client.send_task_failure(taskToken=token, error=said.error, cause=said.cause)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _substitutions(definition: str) -> set[str]:
    return {part.partition("}")[0] for part in definition.split("${")[1:]}


def _arn(substitution: str) -> str:
    if substitution in SERVICES:
        return f"arn:aws:states:::{SERVICES[substitution]}"
    name = substitution.removesuffix("Arn")
    kind = "lambda" if name.endswith("Function") else "states"
    what = "function" if name.endswith("Function") else "stateMachine"
    return f"arn:aws:{kind}:{REGION}:{ACCOUNT}:{what}:{name}"
