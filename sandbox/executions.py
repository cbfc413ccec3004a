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
- Every status change is an EventBridge event.
"""

from __future__ import annotations

import functools
import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import moto.stepfunctions.parser.models as parser_models
from botocore.exceptions import BotoCoreError, ClientError
from moto.core.responses import ActionResult
from moto.stepfunctions.parser.api import (
    ExecutionAbortedEventDetails,
    ExecutionFailedEventDetails,
    ExecutionStatus,
    ExecutionTimedOutEventDetails,
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
from moto.stepfunctions.parser.asl.component.state.choice import state_choice
from moto.stepfunctions.parser.asl.component.state.exec.state_parallel import branches_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import (
    lambda_eval_utils,
    state_task_lambda,
)
from moto.stepfunctions.parser.asl.component.state.fail import state_fail
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import (
    EventHistoryContext,
    EventManager,
)
from moto.stepfunctions.parser.asl.eval.program_state import ProgramTimedOut
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.backend.execution import Execution
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.responses import StepFunctionResponse

from sandbox.world import Event, make_client

STATUS_AT_END = {
    HistoryEventType.ExecutionSucceeded: ExecutionStatus.SUCCEEDED,
    HistoryEventType.ExecutionFailed: ExecutionStatus.FAILED,
    HistoryEventType.ExecutionAborted: ExecutionStatus.ABORTED,
    HistoryEventType.ExecutionTimedOut: ExecutionStatus.TIMED_OUT,
}
CALLER = "StepFunctions"
"""The access key under which the interpreter invokes functions, as the operation log shows it."""


class History(EventManager):
    """The events of one execution, which nothing follows once one of them has ended it."""

    def __init__(self, on_end: Callable[[ExecutionStatus, dict[str, Any]], None]) -> None:
        super().__init__()
        self._on_end = on_end
        self._end = threading.RLock()
        self.ended = False

    def add_event(
        self,
        context: EventHistoryContext,
        event_type: HistoryEventType,
        event_details: EventDetails | None = None,
        timestamp: datetime | None = None,
        update_source_event_id: bool = True,
    ) -> int:
        """Append an event and return its id, or drop it (0) when nobody waits for it any more."""
        with self._end:
            if self.ended or getattr(context, "closed", False):
                return 0
            number: int = super().add_event(
                context, event_type, event_details, timestamp, update_source_event_id
            )
            status = STATUS_AT_END.get(event_type)
            if status is not None:
                self.ended = True
                details: Any = next(iter((event_details or {}).values()), {})
                self._on_end(status, details)
            return number


class Worker(ExecutionWorker):
    """Runs one execution in a thread; its environment and history exist before that starts."""

    def start(self, on_end: Callable[[ExecutionStatus, dict[str, Any]], None]) -> None:
        """Start with the first state; ``on_end`` is called once, from whichever thread ends it."""
        self.program = _parse(self._evaluation_details.state_machine_details.definition)
        self.env = self._get_evaluation_environment()
        self.env.event_manager = History(on_end)
        execution = self.env.states.context_object.context_object_data["Execution"]
        execution["StartTime"] = _iso(execution["StartTime"])
        self.env.event_manager.add_event(
            context=self.env.event_history_context,
            event_type=HistoryEventType.ExecutionStarted,
            event_details=EventDetails(
                executionStartedEventDetails={
                    "input": json.dumps(self._evaluation_details.execution_details.inpt),
                    "inputDetails": {"truncated": False},
                    "roleArn": self._evaluation_details.aws_execution_details.role_arn,
                }
            ),
            update_source_event_id=False,
        )
        self.env.next_state_name = self.program.start_at.start_at_name
        threading.Thread(target=self._run, name="execution", daemon=True).start()

    def _run(self) -> None:
        if self.env.event_manager.ended:
            return
        self.program.eval(self.env)
        if isinstance(self.env.program_state(), ProgramTimedOut):
            self._end(
                HistoryEventType.ExecutionTimedOut,
                executionTimedOutEventDetails=ExecutionTimedOutEventDetails(),
            )

    def stop(self, stop_date: datetime, error: str | None, cause: str | None) -> None:
        """End the execution now as ABORTED, unless it has ended already."""
        details = ExecutionAbortedEventDetails()
        if error:
            details["error"] = error
        if cause:
            details["cause"] = cause
        self._end(HistoryEventType.ExecutionAborted, executionAbortedEventDetails=details)
        self.env.set_stop(stop_date=stop_date, cause=cause, error=error)

    def _end(self, event_type: HistoryEventType, **details: Any) -> None:
        self.env.event_history_context.source_event_id = 0
        self.env.event_manager.add_event(
            context=self.env.event_history_context,
            event_type=event_type,
            event_details=EventDetails(**details),
        )


class TrackedExecution(Execution):
    """An execution whose status changes are published as EventBridge events."""

    publish: Callable[[Event], None] = staticmethod(lambda _event: None)

    def _get_start_execution_worker(self) -> Worker:
        plain = super()._get_start_execution_worker()
        return Worker(
            evaluation_details=plain._evaluation_details,
            exec_comm=plain._execution_communication,
            cloud_watch_logging_session=None,
            activity_store=self._activity_store,
        )

    def start(self) -> None:
        """Start the execution."""
        self.exec_worker = self._get_start_execution_worker()
        self.exec_status = ExecutionStatus.RUNNING
        self.publish(self.status_change())
        self.exec_worker.start(self._on_end)

    def _on_end(self, status: ExecutionStatus, details: dict[str, Any]) -> None:
        self.stop_date = datetime.now(UTC)
        self.output = details.get("output")
        self.error = details.get("error")
        self.cause = details.get("cause")
        self.exec_status = status
        self.publish(self.status_change())

    def status_change(self) -> Event:
        """The event that Step Functions sends for the present status."""
        running = self.exec_status == ExecutionStatus.RUNNING
        output = self.output if self.exec_status == ExecutionStatus.SUCCEEDED else None
        return {
            "source": "aws.states",
            "detail-type": "Step Functions Execution Status Change",
            "resources": [self.exec_arn],
            "detail": {
                "executionArn": self.exec_arn,
                "stateMachineArn": self.state_machine_arn,
                "name": self.name,
                "status": self.status,
                "startDate": _milliseconds(self.start_date),
                "stopDate": None if running else _milliseconds(self.stop_date),
                "input": self.execution_input,
                "inputDetails": {"included": True},
                "output": output,
                "outputDetails": {"included": True} if output is not None else None,
                "error": self.error,
                "cause": self.cause,
                "stateMachineVersionArn": None,
                "stateMachineAliasArn": None,
                "redriveCount": 0,
                "redriveDate": None,
                "redriveStatus": "NOT_REDRIVABLE",
                "redriveStatusReason": "redrive is not part of the sandbox",
            },
        }


def install(publish: Callable[[Event], None], endpoint: str) -> None:
    """Put all of this into moto; ``endpoint`` is where functions are invoked."""
    TrackedExecution.publish = staticmethod(publish)
    parser_models.Execution = TrackedExecution
    _wrap_start()
    response: Any = StepFunctionResponse
    response.describe_execution = _describe_execution
    response.stop_execution = _stop_execution
    response.get_execution_history = _get_execution_history
    response.list_executions = _list_executions
    for module in (branches_decl, state_fail, state_task_lambda):
        module.CustomErrorName = _error_name
    _wrap_close_frame()
    choice: Any = state_choice.StateChoice
    choice._eval_state = _with_no_choice_matched(choice._eval_state)
    task: Any = state_task_lambda.StateTaskLambda
    task._from_error = _with_service_errors(task._from_error)
    client = make_client("lambda", endpoint, access_key=CALLER, read_timeout=1000)
    lambda_eval_utils.boto_client_for = lambda **_: client


@functools.lru_cache(maxsize=8)
def _parse(definition: str) -> Any:
    return AmazonStateLanguageParser.parse(definition)[0]


def _wrap_start() -> None:
    backend: Any = parser_models.StepFunctionsParserBackend
    plain = backend.start_execution

    def start_execution(
        self: Any,
        state_machine_arn: str,
        name: str | None = None,
        execution_input: str | None = None,
        trace_header: str | None = None,
    ) -> Any:
        if name is not None:
            self._validate_name(name)
        return plain(
            self, state_machine_arn, name or str(uuid.uuid4()), execution_input, trace_header
        )

    backend.start_execution = start_execution


def _wrap_close_frame() -> None:
    """Mark the frame of a state as closed: what a timed-out Task does later is not recorded."""
    environment: Any = Environment
    plain = environment.close_frame

    def close_frame(self: Any, frame: Any) -> None:
        plain(self, frame)
        frame.event_history_context.closed = True

    environment.close_frame = close_frame


def _error_name(error_name: str | None) -> ErrorName:
    """The error's name, also one of the reserved ``States.`` names."""
    try:
        return StatesErrorName.from_name(error_name or "")
    except ValueError:
        name = CustomErrorName(None)
        name.error_name = error_name
        return name


def _with_service_errors(plain: Callable[..., FailureEvent]) -> Callable[..., FailureEvent]:
    @functools.wraps(plain)
    def from_error(self: Any, env: Environment, ex: Exception) -> FailureEvent:
        if isinstance(ex, ClientError):
            error, cause = f"Lambda.{ex.response['Error']['Code']}", str(ex)
        elif isinstance(ex, BotoCoreError):
            error, cause = "Lambda.SdkClientException", str(ex)
        elif isinstance(ex, lambda_eval_utils.LambdaFunctionErrorException) and (
            "errorType" not in ex.payload
        ):
            error = "Lambda.Unknown"
            cause = (
                "The cause could not be determined because Lambda did not return an error type. "
                f"Returned payload: {ex.payload}"
            )
        else:
            return plain(self, env, ex)
        return FailureEvent(
            env=env,
            error_name=_error_name(error),
            event_type=HistoryEventType.LambdaFunctionFailed,
            event_details=EventDetails(
                lambdaFunctionFailedEventDetails=LambdaFunctionFailedEventDetails(
                    error=error, cause=cause
                )
            ),
        )

    return from_error


def _with_no_choice_matched(plain: Callable[..., None]) -> Callable[..., None]:
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
                    error_name=_error_name(name),
                    event_type=HistoryEventType.ExecutionFailed,
                    event_details=EventDetails(executionFailedEventDetails=details),
                )
            ) from error

    return eval_state


def _describe_execution(self: Any) -> ActionResult:
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    answer = {
        "executionArn": execution.exec_arn,
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.name,
        "status": execution.status,
        "startDate": execution.start_date,
        "stopDate": execution.stop_date,
        "input": execution.execution_input,
        "inputDetails": {"included": True},
        "output": execution.output,
        "outputDetails": {"included": True} if execution.output is not None else None,
        "error": execution.error,
        "cause": execution.cause,
    }
    return ActionResult({key: value for key, value in answer.items() if value is not None})


def _stop_execution(self: Any) -> ActionResult:
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    execution.stop(
        stop_date=datetime.now(UTC),
        error=self._get_param("error"),
        cause=self._get_param("cause"),
    )
    return ActionResult({"stopDate": execution.stop_date})


def _list_executions(self: Any) -> ActionResult:
    arn = self._get_param("stateMachineArn")
    page, next_token = self.stepfunction_backend.list_executions(
        arn,
        status_filter=self._get_param("statusFilter"),
        max_results=self._get_int_param("maxResults"),
        next_token=self._get_param("nextToken"),
    )
    executions = []
    for execution in page:
        item = {
            "executionArn": execution.exec_arn,
            "stateMachineArn": arn,
            "name": execution.name,
            "status": execution.status,
            "startDate": execution.start_date,
        }
        if execution.stop_date:
            item["stopDate"] = execution.stop_date
        executions.append(item)
    return ActionResult({"executions": executions, "nextToken": next_token})


def _get_execution_history(self: Any) -> ActionResult:
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    events = execution.exec_worker.env.event_manager.get_event_history()
    if self._get_param("reverseOrder"):
        events.reverse()
    start = int(self._get_param("nextToken") or 0)
    end = start + int(self._get_param("maxResults") or 1000)
    answer = {"events": events[start:end]}
    if end < len(events):
        answer["nextToken"] = str(end)
    return ActionResult(answer)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _iso(moment: datetime) -> str:
    return (
        moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06}"[:3] + "Z"
    )
