"""State PlanRollBack: find the deployment to undo, or to finish, and take its service's lock."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from bluegreen.configuration import describe
from bluegreen.deployment import RollBackRequest
from bluegreen.errors import DeploymentRefused, InvalidRequest, LockHeld
from bluegreen.store import Lock, Record
from runtime import clients
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """``$.request`` is a RollBackRequest; the answer is the new ``$``.

    ``recovery`` in it: deployment_id, reason, settle_seconds and direction: "roll_back", or
    "finish" for a deployment that was live and baked when its execution was lost.
    ``deployment``: with the new fencing number; absent when it was lost before it had a plan.
    Raises InvalidRequest, DeploymentRefused, LockHeld.
    """
    try:
        request = RollBackRequest.model_validate(invocation.data["request"])
    except ValidationError as error:
        raise InvalidRequest("the execution input:\n" + "\n".join(describe(error))) from error
    store = invocation.store
    record = store.read(request.deployment_id)
    if record is None:
        raise InvalidRequest(f"there is no deployment {request.deployment_id!r}")
    lock = store.lock(record.service)
    if lock is None:
        raise DeploymentRefused(f"deployment {record.id} never began: there is nothing to undo")
    by_hand = request.action == "rollback"
    _check(record, lock, by_hand, invocation.execution_arn)
    # Committed: lost in its drain, and the new colour is live. Going back is for a person to ask.
    finish = not by_hand and lock.purpose == "deploy" and record.phase == "committed"
    fencing = store.take_over(
        lock,
        record.id,
        invocation.execution_arn,
        invocation.now,
        "deploy" if finish else "roll_back",
    )
    recovery = {
        "deployment_id": record.id,
        "direction": "finish" if finish else "roll_back",
        # What the execution before had running may write until its function's timeout; after that
        # its fencing number stops it.
        "settle_seconds": invocation.settings.settle_seconds if lock.held and not lock.warm else 0,
        "reason": "rolled back by hand" if by_hand else f"its execution {lock.execution_arn} ended",
    }
    answer: dict[str, Any] = {**invocation.data, "recovery": recovery}
    if record.deployment:
        deployment = record.deployment.model_copy(update={"fencing": fencing})
        store.save_plan(deployment, record.phase if finish else "rolling_back")
        answer["deployment"] = deployment.document()
    if finish and lock.warm:
        # Whoever stopped it does not want to wait for the rest of the warm time.
        answer["drain"] = {"since": invocation.now, "warm_until": invocation.now}
    return answer


def _check(record: Record, lock: Lock, by_hand: bool, execution_arn: str) -> None:
    if lock.execution_arn == execution_arn:
        return
    if by_hand:
        _check_by_hand(record, lock)
        return
    if not lock.held or lock.deployment_id != record.id:
        raise DeploymentRefused(f"deployment {record.id} has ended: there is nothing to recover")
    if not _has_ended(lock.execution_arn):
        raise LockHeld(f"deployment {record.id} still runs ({lock.execution_arn})")


def _check_by_hand(record: Record, lock: Lock) -> None:
    """By hand a deployment is undone at any time, also while its execution still runs."""
    if lock.held and not lock.warm and lock.deployment_id != record.id:
        raise LockHeld(
            f"service {record.service} is being changed by {lock.deployment_id} "
            f"({lock.execution_arn})"
        )
    if record.deployment is None:
        raise DeploymentRefused(f"deployment {record.id} changed nothing: there is nothing to undo")
    if lock.changed_by != record.id:
        raise DeploymentRefused(
            f"deployment {record.id} is not the last one of service {record.service}: "
            f"{lock.changed_by} came after it; its snapshot is out of date"
        )
    old = record.deployment.from_color
    if old is None or record.deployment.snapshot.services[old].running_count == 0:
        raise DeploymentRefused(
            f"nothing ran before deployment {record.id}: going back would leave nothing live"
        )


def _has_ended(execution_arn: str) -> bool:
    answer = clients.stepfunctions().describe_execution(executionArn=execution_arn)
    return answer["status"] != "RUNNING"
