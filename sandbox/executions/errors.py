"""The names of errors, as the service gives them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.core.exceptions import AWSError
from moto.stepfunctions.parser import api as parser_api
from moto.stepfunctions.parser.api import (
    ExecutionFailedEventDetails,
    HistoryEventType,
    LambdaFunctionFailedEventDetails,
)
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import (
    CustomErrorName,
)
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import (
    StatesErrorName,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.lambda_eval_utils import (
    LambdaFunctionErrorException,
)
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

TERMINAL = ("States.Runtime", "States.DataLimitExceeded")
"""Errors that a Retry or Catch has to name (developer guide, concepts-error-handling)."""


def error_named(error_name: str | None) -> ErrorName:
    """The error's name, also one of the reserved ``States.`` names."""
    try:
        return StatesErrorName.from_name(error_name or "")
    except ValueError:
        name = CustomErrorName(None)
        name.error_name = error_name
        return name


def with_terminal_errors(plain: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Keep States.ALL from matching what it does not match in the service."""

    @functools.wraps(plain)
    def eval_body(self: Any, env: Any) -> None:
        error = env.stack[-1]
        plain(self, env)
        if error.error_name in TERMINAL and error not in self.error_names:
            env.stack[-1] = False

    return eval_body


def name_api_errors() -> None:
    """Give the errors of moto's interpreter the codes that they have in the API."""
    errors: list[Any] = [one for one in vars(parser_api).values() if isinstance(one, type)]
    for error in errors:
        if issubclass(error, AWSError) and hasattr(error, "status_code"):
            error.TYPE, error.STATUS = error.code, error.status_code


def error_of_lambda(ex: Exception) -> tuple[str, str] | None:
    """Error and cause of an invocation that failed in the API or without an error type.

    None for any other exception.
    """
    if isinstance(ex, ClientError):
        return f"Lambda.{ex.response['Error']['Code']}", str(ex)
    if isinstance(ex, BotoCoreError):
        return "Lambda.SdkClientException", str(ex)
    if isinstance(ex, LambdaFunctionErrorException) and "errorType" not in ex.payload:
        return (
            "Lambda.Unknown",
            "The cause could not be determined because Lambda did not return an error type. "
            f"Returned payload: {ex.payload}",
        )
    return None


def with_service_errors(plain: Callable[..., FailureEvent]) -> Callable[..., FailureEvent]:
    """Name what goes wrong in an invocation as the service does."""

    @functools.wraps(plain)
    def from_error(self: Any, env: Environment, ex: Exception) -> FailureEvent:
        failure = error_of_lambda(ex)
        if failure is None:
            return plain(self, env, ex)
        error, cause = failure
        return FailureEvent(
            env=env,
            error_name=error_named(error),
            event_type=HistoryEventType.LambdaFunctionFailed,
            event_details=EventDetails(
                lambdaFunctionFailedEventDetails=LambdaFunctionFailedEventDetails(
                    error=error, cause=cause
                )
            ),
        )

    return from_error


def with_no_choice_matched(plain: Callable[..., None]) -> Callable[..., None]:
    """Give a Choice without a matching rule and Default its error."""

    @functools.wraps(plain)
    def eval_state(self: Any, env: Environment) -> None:
        try:
            plain(self, env)
        except RuntimeError as error:
            name = "States.NoChoiceMatched"
            details = ExecutionFailedEventDetails(
                error=name, cause=f"No choice matched in the state '{self.name}'"
            )
            raise FailureEventException(
                FailureEvent(
                    env=env,
                    error_name=error_named(name),
                    event_type=HistoryEventType.ExecutionFailed,
                    event_details=EventDetails(executionFailedEventDetails=details),
                )
            ) from error

    return eval_state
