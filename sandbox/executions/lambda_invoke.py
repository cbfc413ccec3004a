"""``lambda:invoke`` and ``lambda:invoke.waitForTaskToken``.

What the service does (developer guide of Step Functions, connect-lambda): the latter waits for who
answers ``$$.Task.Token``, and its output is the answer. Every attempt has a token of its own.
"""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.stepfunctions.parser.api import HistoryEventType, TaskTimedOutEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import (
    StatesErrorName,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import (
    StatesErrorNameType,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.component.state.exec.state_task.lambda_eval_utils import (
    LambdaFunctionErrorException,
)
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

from sandbox.executions.errors import error_of_lambda
from sandbox.executions.integration import Integration, TaskFailed
from sandbox.executions.tokens import Failure, HeartbeatMissed, Success, Tokens, Waiting

TOKENS = Tokens()
WAITING = "waiting"
"""Where the frame of an attempt keeps what it waits for."""


class HeartbeatTimeout(StatesErrorName):
    """States.Timeout, which catchers and retriers may call States.HeartbeatTimeout too."""

    def __init__(self) -> None:
        super().__init__(typ=StatesErrorNameType.StatesTimeout)

    def matches(self, error_name: str | None) -> bool:
        """Whether it goes by this name."""
        return error_name in ("States.Timeout", "States.HeartbeatTimeout")

    def __eq__(self, other: object) -> bool:
        """Compare as the base class does, by name."""
        return isinstance(other, StatesErrorName) and self.matches(other.error_name)

    __hash__ = None  # type: ignore[assignment] # as the base class


class Invoke(Integration):
    """A Task state that invokes a function by the integration."""

    service = "lambda"
    action = "invoke"
    conditions = (None, "waitForTaskToken")
    fields = frozenset({"ClientContext", "FunctionName", "InvocationType", "Payload", "Qualifier"})
    errors = "Lambda"
    other_error = "AWSLambdaException"

    def _eval_execution(self, env: Environment) -> None:
        if self.resource.condition is None:
            super()._eval_execution(env)
            return
        waiting = TOKENS.issue(env.is_running)
        env.states.context_object.context_object_data["Task"] = {"Token": waiting.token}
        env.heap[WAITING] = waiting
        try:
            super()._eval_execution(env)
        finally:
            TOKENS.close(waiting)

    def submit(self, parameters: dict[str, Any]) -> Any:
        """Invoke the function; an error of it fails the state."""
        client = lambda_eval_utils.boto_client_for()
        payload = json.dumps(parameters.get("Payload", {})).encode()
        try:
            answer = client.invoke(**{**parameters, "Payload": payload})
        except (ClientError, BotoCoreError) as error:
            raise _failure(error) from error
        returned = answer["Payload"].read().decode()
        if answer.get("FunctionError"):
            raise _failure(LambdaFunctionErrorException(answer["FunctionError"], returned))
        shown = {key: answer[key] for key in ("ExecutedVersion", "StatusCode") if key in answer}
        return {**shown, "Payload": json.loads(returned) if returned else None}

    def wait(self, env: Environment, submitted: Any) -> Any:  # noqa: ARG002 - not in the output
        """Wait for the answer to the token."""
        waiting: Waiting = env.heap[WAITING]
        heartbeat = None
        if self.heartbeat is not None:
            self.heartbeat.eval(env=env)
            heartbeat = env.stack.pop()
        match TOKENS.wait(waiting, heartbeat):
            case Success(output):
                return output
            case Failure(error, cause):
                raise TaskFailed(error or "", cause or "")

    def _from_error(self, env: Environment, ex: Exception) -> FailureEvent:
        if not isinstance(ex, HeartbeatMissed):
            return super()._from_error(env, ex)
        return FailureEvent(
            env=env,
            error_name=HeartbeatTimeout(),
            event_type=HistoryEventType.TaskTimedOut,
            event_details=EventDetails(
                taskTimedOutEventDetails=TaskTimedOutEventDetails(
                    resource=self._get_sfn_resource(),
                    resourceType=self._get_sfn_resource_type(),
                    error="States.Timeout",
                )
            ),
        )


def _failure(error: Exception) -> TaskFailed:
    named = error_of_lambda(error)
    if named is not None:
        return TaskFailed(*named)
    assert isinstance(error, LambdaFunctionErrorException)
    return TaskFailed(json.loads(error.payload)["errorType"], error.payload)
