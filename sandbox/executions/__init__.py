"""Step Functions: moto's interpreter, where it differs from the service.

What is different here from plain moto, each because the service does it so:

- An execution ends exactly once. Whatever ends it first (its last state, StopExecution, its
  TimeoutSeconds) writes the last event of the history, and with it the status; what a Lambda
  function that is still running returns later is dropped. moto waits for that function.
- A Task that timed out adds nothing to the history when its function answers after all.
- StopExecution records the error and cause it is given, and works before the first state too.
- A timed-out execution has a stopDate; GetExecutionHistory can be reversed and paged; an
  execution without a name gets one.
- Errors whose name starts with ``States.`` pass through Parallel and Fail unchanged.
- A Lambda invocation that fails in the API is ``Lambda.<code>``, a lost connection is
  ``Lambda.SdkClientException``, an error without a type is ``Lambda.Unknown``.
- A Choice without a matching rule and Default is ``States.NoChoiceMatched``.
- An iteration of a Map that fails aborts the others; ``$$.Map.Item`` is there in all its states.
- The integrations with Lambda, ECS and Step Functions itself are our own (``integration``), and so
  are task tokens (``tokens``).
- Errors of the API have codes. States.ALL matches neither States.Runtime nor
  States.DataLimitExceeded.
- Two StartExecution with one name at the same moment start one execution.
- Every status change is an EventBridge event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import moto.stepfunctions.parser.models as parser_models
from moto.stepfunctions.parser.asl.component.common.error_name import error_equals_decl
from moto.stepfunctions.parser.asl.component.state.choice import state_choice
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration import iteration_worker
from moto.stepfunctions.parser.asl.component.state.exec.state_parallel import branches_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import (
    lambda_eval_utils,
    state_task_factory,
    state_task_lambda,
)
from moto.stepfunctions.parser.asl.component.state.fail import state_fail
from moto.stepfunctions.responses import StepFunctionResponse

from sandbox.executions import api, frames
from sandbox.executions.ecs_run_task import RunTask
from sandbox.executions.errors import (
    error_named,
    name_api_errors,
    with_no_choice_matched,
    with_service_errors,
    with_terminal_errors,
)
from sandbox.executions.execution import TrackedExecution
from sandbox.executions.integration import CALLER, Clients, Integration
from sandbox.executions.lambda_invoke import Invoke
from sandbox.executions.start_execution import StartExecution
from sandbox.world import Event

__all__ = ["CALLER", "install"]

INTEGRATIONS: dict[str, type[Integration]] = {
    "ecs": RunTask,
    "lambda": Invoke,
    "states": StartExecution,
}


def install(publish: Callable[[Event], None], endpoint: str) -> None:
    """Put all of this into moto; ``endpoint`` is where functions and services are called."""
    TrackedExecution.publish = staticmethod(publish)
    Clients.endpoint = endpoint
    parser_models.Execution = TrackedExecution
    backend: Any = parser_models.StepFunctionsParserBackend
    backend.start_execution = api.with_own_name(backend.start_execution)
    response: Any = StepFunctionResponse
    for operation in (
        api.describe_execution,
        api.stop_execution,
        api.get_execution_history,
        api.list_executions,
        api.send_task_success,
        api.send_task_failure,
        api.send_task_heartbeat,
    ):
        setattr(response, operation.__name__, operation)
    for module in (branches_decl, iteration_worker, state_fail, state_task_lambda):
        module.CustomErrorName = error_named
    frames.install()
    name_api_errors()
    equals: Any = error_equals_decl.ErrorEqualsDecl
    equals._eval_body = with_terminal_errors(equals._eval_body)
    choice: Any = state_choice.StateChoice
    choice._eval_state = with_no_choice_matched(choice._eval_state)
    task: Any = state_task_lambda.StateTaskLambda
    task._from_error = with_service_errors(task._from_error)
    client = Clients.of("lambda")
    lambda_eval_utils.boto_client_for = lambda **_: client
    state_task_factory.state_task_service_for = _integration


def _integration(service_name: str) -> Integration:
    if service_name not in INTEGRATIONS:
        raise ValueError(f"the sandbox has no integration with {service_name}")
    return INTEGRATIONS[service_name]()
