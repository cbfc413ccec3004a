"""The operations that the sandbox answers itself instead of moto."""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult

from sandbox.executions.lambda_invoke import TOKENS
from sandbox.executions.tokens import Failure, Success, parsed


def with_own_name(plain: Callable[..., Any]) -> Callable[..., Any]:
    """StartExecution of moto's backend, for one caller at a time and without a name too."""
    starting = threading.Lock()

    @functools.wraps(plain)
    def start_execution(
        self: Any,
        state_machine_arn: str,
        name: str | None = None,
        execution_input: str | None = None,
        trace_header: str | None = None,
    ) -> Any:
        if name is not None:
            self._validate_name(name)
        with starting:
            return plain(
                self, state_machine_arn, name or str(uuid.uuid4()), execution_input, trace_header
            )

    return start_execution


def send_task_success(self: Any) -> EmptyResult:
    """SendTaskSuccess."""
    output = parsed(self._get_param("output"))
    TOKENS.answer(self._get_param("taskToken"), Success(output))
    return EmptyResult()


def send_task_failure(self: Any) -> EmptyResult:
    """SendTaskFailure."""
    failure = Failure(self._get_param("error"), self._get_param("cause"))
    TOKENS.answer(self._get_param("taskToken"), failure)
    return EmptyResult()


def send_task_heartbeat(self: Any) -> EmptyResult:
    """SendTaskHeartbeat."""
    TOKENS.beat(self._get_param("taskToken"))
    return EmptyResult()


def describe_execution(self: Any) -> ActionResult:
    """DescribeExecution."""
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


def stop_execution(self: Any) -> ActionResult:
    """StopExecution, with its error and cause."""
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    execution.stop(
        stop_date=datetime.now(UTC),
        error=self._get_param("error"),
        cause=self._get_param("cause"),
    )
    return ActionResult({"stopDate": execution.stop_date})


def list_executions(self: Any) -> ActionResult:
    """ListExecutions."""
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


def get_execution_history(self: Any) -> ActionResult:
    """GetExecutionHistory, a thousand events at a time and in either order."""
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
