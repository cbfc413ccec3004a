"""RecoverDeployment: deployments whose execution was stopped, timed out or lost are taken up again.
Those that had changed nothing yet get their end, which no state has written down.

Invoked by EventBridge when an execution ends badly, and by a schedule that sweeps what no event
told: events are delivered at least once, but not for sure.
"""

from __future__ import annotations

import json
import os
import time
from typing import Annotated, Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bluegreen import history
from bluegreen.configuration import describe
from bluegreen.deployment import NO_LOCK
from bluegreen.errors import InvalidEvent
from bluegreen.store import Lock, Store
from runtime import announcements, clients, unplanned
from runtime.invocation import logger, translating_aws_errors
from runtime.settings import Settings

_SWEEP_SECONDS = 60
# How executions end that may not have come as far as writing it down: FAILED is also one whose
# history is full, or whose RecordOutcome was refused until its retries were used up.
_STOPPED = {"ABORTED": "was stopped", "TIMED_OUT": "timed out", "FAILED": "failed"}
_ENDED = "Step Functions Execution Status Change"


class _Execution(BaseModel):
    """An execution of which an event tells that it has ended.

    https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    arn: Annotated[str, Field(alias="executionArn", pattern=r"^arn:")]
    status: str
    input: str | None = None

    @property
    def was_a_failed_recovery(self) -> bool:
        try:
            request = json.loads(self.input or "{}")
        except (ValueError, RecursionError):
            # It is whatever somebody gave the execution, which then was no recovery of ours.
            return False
        recovers = isinstance(request, dict) and request.get("action") == "recover"
        return recovers and self.status == "FAILED"


class _EndedEvent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    detail: _Execution


def handler(event: Any, _context: object) -> dict[str, Any]:
    """event: a ``Step Functions Execution Status Change`` of a deployment or of a release, or any
    other object for a sweep.

    Answers ``{"started": [deployment ids]}``. Each recovery is an execution of the state machine
    with a name that says for what and when, so that two invocations start it once. Raises
    InvalidEvent.
    """
    ended = _read(event)
    settings = Settings.from_env(os.environ)
    store = Store(clients.dynamodb(), settings.table, settings.lease_seconds)
    return translating_aws_errors(lambda: _recover(ended, settings, store, time.time()))


def _read(event: Any) -> _Execution | None:
    """The execution that has ended; None for a sweep. Raises InvalidEvent, a mistake a line."""
    if not isinstance(event, dict):
        raise InvalidEvent(f"an event of EventBridge is an object, not {type(event).__name__}")
    if event.get("detail-type") != _ENDED:
        return None
    try:
        return _EndedEvent.model_validate(event).detail
    except ValidationError as error:
        raise InvalidEvent(
            f"an event {_ENDED!r}: {error.error_count()} mistake(s)\n" + "\n".join(describe(error))
        ) from error


def _recover(
    execution: _Execution | None, settings: Settings, store: Store, now: float
) -> dict[str, Any]:
    if execution and execution.was_a_failed_recovery:
        # It would fail again at once: the sweep tries it again, with time in between.
        return {"started": []}
    ended = execution.arn if execution else None
    started, failed = [], []
    for lock in store.held_locks():
        if ended and ended not in (lock.execution_arn, lock.held_for):
            continue
        try:
            if _is_lost(lock, ended, now):
                _start(settings.state_machine_arn, lock, "event" if ended else _window(now))
                started.append(lock.deployment_id)
                logger().info("recovering", extra={"deployment": lock.deployment_id})
        except ClientError as error:
            # One lock that cannot be looked up must not keep the others from recovery.
            logger().exception("cannot recover", extra={"deployment": lock.deployment_id})
            failed.append(error)
    if execution and execution.status in _STOPPED:
        _close(execution, settings, store, now)
    if failed:
        raise failed[0]
    return {"started": started}


def _close(execution: _Execution, settings: Settings, store: Store, now: float) -> None:
    """Write down how an execution ended before its first change, if no state has done so."""
    record = store.read(execution.arn.rpartition(":")[2])
    if record is None or record.execution_arn != execution.arn:
        return
    if record.deployment or record.outcome:
        return
    lock = store.lock(record.service)
    if lock and lock.held and lock.deployment_id == record.id:
        # It has come as far as the lock, and is recovered.
        return
    reason = f"its execution {_STOPPED[execution.status]} before anything was changed"
    gone_at = history.expires_at(now, settings.history_days)
    if store.close(record.id, "failed", reason, now, NO_LOCK, expires_at=gone_at):
        announcements.tell(
            settings,
            unplanned.announcement(
                settings,
                record,
                "failed",
                now,
                reason=reason,
                outcome="failed",
                execution_arn=execution.arn,
            ),
        )
        logger().info("closed", extra={"deployment": record.id, "reason": reason})


def _is_lost(lock: Lock, ended: str | None, now: float) -> bool:
    """Whether nobody sees to a lock any more. ended: the execution that an event says has ended.

    What is held for a release waits for its word, however its own execution has ended.
    """
    if lock.held_for and lock.held_for != ended and not _has_ended(lock.held_for, lock, now):
        return False
    return lock.execution_arn == ended or _has_ended(lock.execution_arn, lock, now)


def _has_ended(execution_arn: str, lock: Lock, now: float) -> bool:
    """An execution that is not there any more has ended once the lock's lease is over."""
    client = clients.stepfunctions()
    try:
        return client.describe_execution(executionArn=execution_arn)["status"] != "RUNNING"
    except client.exceptions.ExecutionDoesNotExist:
        return lock.lease_expires_at < now


def _window(now: float) -> str:
    return str(int(now // _SWEEP_SECONDS))


def _start(state_machine_arn: str, lock: Lock, occasion: str) -> None:
    client = clients.stepfunctions()
    try:
        client.start_execution(
            stateMachineArn=state_machine_arn,
            # 80 characters at most; the end of a deployment's id tells it from others.
            name=f"recover-{lock.fencing}-{occasion}-{lock.deployment_id[-45:]}",
            input=json.dumps({"action": "recover", "deployment_id": lock.deployment_id}),
        )
    except client.exceptions.ExecutionAlreadyExists:
        return
