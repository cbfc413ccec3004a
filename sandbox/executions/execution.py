"""One execution: a thread that runs the states, and what is told of it."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.stepfunctions.parser.api import (
    ExecutionAbortedEventDetails,
    ExecutionStatus,
    ExecutionTimedOutEventDetails,
    HistoryEventType,
)
from moto.stepfunctions.parser.asl.component.eval_component import EvalComponent
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.backend.execution import Execution
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker

from sandbox.executions.history import History
from sandbox.world import Event


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
        limit = self.program.timeout_seconds
        if limit is None:
            EvalComponent.eval(self.program, self.env)
            return
        clock = threading.Timer(limit.timeout_seconds, self._time_out)
        clock.daemon = True
        clock.start()
        EvalComponent.eval(self.program, self.env)
        clock.cancel()

    def _time_out(self) -> None:
        self._end(
            HistoryEventType.ExecutionTimedOut,
            executionTimedOutEventDetails=ExecutionTimedOutEventDetails(),
        )
        self.env.set_timed_out()

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
                "startDate": milliseconds(self.start_date),
                "stopDate": None if running else milliseconds(self.stop_date),
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


@functools.lru_cache(maxsize=8)
def _parse(definition: str) -> Any:
    return AmazonStateLanguageParser.parse(definition)[0]


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _iso(moment: datetime) -> str:
    return (
        moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06}"[:3] + "Z"
    )
