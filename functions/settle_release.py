"""State SettleRelease: finish all services of a release, or take all of them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from bluegreen.outcome import reason_of
from bluegreen.pace import wait_seconds
from bluegreen.release import Child, settle, way
from bluegreen.store import Record
from runtime import clients
from runtime.invocation import Invocation, task

# More than the clocks of Step Functions and of a function differ.
_CLOCKS_SECONDS = 60


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``status`` "succeeded" when no old colour is held any longer; "waiting" until then,
    as long as it cannot be said which way to go, or as services go back; "failed" with error and
    cause, a line for each service, when they have, or when the old colour of one could not be let
    go. ``services``: service → deployment_id, outcome and reason. since carries over.
    """
    machine, now = invocation.settings.state_machine_arn, invocation.now
    store, release = invocation.store, invocation.execution_arn
    since = invocation.data.get("settled", {}).get("since", now)
    children = [_child(invocation, one) for one in invocation.data["release"]["children"]]
    found = way(children)
    decided = (
        store.decide_release(release, found, now) if found else store.release_way(release, now)
    )
    decision = settle(children, decided)
    answer: dict[str, Any] = {
        "since": since,
        "services": {
            child.service: {
                "deployment_id": child.name,
                "outcome": child.outcome or child.status or "not started",
                "reason": child.reason,
            }
            for child in children
        },
    }
    match decision.step:
        case "succeeded":
            return {**answer, "status": "succeeded"}
        case "finish":
            for name in decision.children:
                _start(machine, "finish", name, {"action": "finish"})
        case "failed":
            return {
                **answer,
                "status": "failed",
                "error": "ReleaseFailed",
                "cause": decision.reason,
            }
        case "undo":
            who = f"release {invocation.execution_name}"
            for name in decision.children:
                _start(machine, "undo", name, {"action": "rollback", "who": who})
    return {
        **answer,
        "status": "waiting",
        "reason": decision.reason,
        "wait_seconds": wait_seconds(1, now - since),
    }


def _child(invocation: Invocation, planned: Mapping[str, Any]) -> Child:
    machine, release = invocation.settings.state_machine_arn, invocation.execution_arn
    store, name, service = invocation.store, planned["name"], planned["service"]
    own_arn = _arn(machine, name)
    own, undo = _described(own_arn), _described(_arn(machine, f"undo-{name}"))
    finish = _described(_arn(machine, f"finish-{name}"))
    lock, record = store.lock(service), store.read(name)
    known = record if record and _is_part(record, invocation, service) else None
    ours = known is not None and lock is not None and lock.held and lock.deployment_id == name
    held = ours and lock is not None and lock.held_for == release
    its_own = ours and lock is not None and lock.execution_arn == own_arn
    return Child(
        name=name,
        service=service,
        status=own.get("status", ""),
        outcome=(known.outcome or "") if known else "",
        reason=(known.reason if known and known.reason else _cause(own)),
        held=held,
        lost=its_own and not held and own.get("status") != "RUNNING",
        taken=ours and not its_own,
        undo=undo.get("status", ""),
        undo_reason=_cause(undo),
        finish=finish.get("status", ""),
        finish_reason=_cause(finish),
    )


def _is_part(record: Record, invocation: Invocation, service: str) -> bool:
    """A record of that name may be somebody else's, or that of an earlier release of the same name,
    if the deployment never came to one of its own: names can be used again after 90 days.
    """
    if record.started_at < datetime.fromisoformat(invocation.began).timestamp() - _CLOCKS_SECONDS:
        return False
    planned = record.deployment
    if planned and planned.release != invocation.execution_arn:
        return False
    return record.service == service


def _arn(machine: str, name: str) -> str:
    """An execution's ARN, which its state machine and its name make."""
    return f"{machine.replace(':stateMachine:', ':execution:', 1)}:{name}"


def _described(arn: str) -> Mapping[str, Any]:
    """DescribeExecution; nothing when there is none."""
    client = clients.stepfunctions()
    try:
        return client.describe_execution(executionArn=arn)
    except client.exceptions.ExecutionDoesNotExist:
        return {}


def _cause(described: Mapping[str, Any]) -> str:
    """Why an execution failed, in its own words; its status when it has said nothing."""
    if described.get("cause") or described.get("error"):
        error = described.get("error", "")
        return reason_of({"Error": error, "Cause": described.get("cause")})
    return str(described.get("status", ""))


def _start(
    machine: str, prefix: Literal["finish", "undo"], name: str, request: dict[str, str]
) -> None:
    """Start what ends a deployment, once: its name says for which."""
    client = clients.stepfunctions()
    try:
        client.start_execution(
            stateMachineArn=machine,
            name=f"{prefix}-{name}",
            input=json.dumps({**request, "deployment_id": name}),
        )
    except client.exceptions.ExecutionAlreadyExists:
        return
