"""RecoverDeployment: deployments whose execution was stopped, timed out or lost are taken up again.

Invoked by EventBridge when an execution ends badly, and by a schedule that sweeps what no event
told: events are delivered at least once, but not for sure.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from bluegreen.store import Lock, Store
from runtime import clients
from runtime.invocation import logger, translating_aws_errors
from runtime.settings import Settings

_SWEEP_SECONDS = 60


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """event: a ``Step Functions Execution Status Change``, or anything else for a sweep.

    Answers ``{"started": [deployment ids]}``. Each recovery is an execution of the state machine
    with a name that says for what and when, so that two invocations start it once.
    """
    settings = Settings.from_env(os.environ)
    store = Store(clients.dynamodb(), settings.table, settings.lease_seconds)
    return translating_aws_errors(lambda: _recover(event, settings, store, time.time()))


def _recover(
    event: Mapping[str, Any], settings: Settings, store: Store, now: float
) -> dict[str, Any]:
    ended = event.get("detail", {}).get("executionArn")
    if ended and _was_a_failed_recovery(event["detail"]):
        # It would fail again at once: the sweep tries it again, with time in between.
        return {"started": []}
    started, failed = [], []
    for lock in store.held_locks():
        if ended and lock.execution_arn != ended:
            continue
        try:
            if ended or _has_ended(lock, now):
                _start(settings.state_machine_arn, lock, "event" if ended else _window(now))
                started.append(lock.deployment_id)
                logger().info("recovering", extra={"deployment": lock.deployment_id})
        except ClientError as error:
            # One lock that cannot be looked up must not keep the others from recovery.
            logger().exception("cannot recover", extra={"deployment": lock.deployment_id})
            failed.append(error)
    if failed:
        raise failed[0]
    return {"started": started}


def _was_a_failed_recovery(detail: Mapping[str, Any]) -> bool:
    request: dict[str, Any] = json.loads(detail.get("input") or "{}")
    return bool(detail["status"] == "FAILED" and request.get("action") == "recover")


def _has_ended(lock: Lock, now: float) -> bool:
    """An execution that is not there any more has ended once its lease is over."""
    client = clients.stepfunctions()
    try:
        return client.describe_execution(executionArn=lock.execution_arn)["status"] != "RUNNING"
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
