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
    fencing = store.take_over(lock, record.id, invocation.execution_arn, invocation.now)
    # Committed and not ended: it was lost in its drain. Ended: a rollback of it was lost.
    finish = not by_hand and record.phase == "committed" and record.outcome is None
    back_from_live = by_hand or (record.phase == "committed" and not finish)
    recovery = {
        "deployment_id": record.id,
        "direction": "finish" if finish else "roll_back",
        # What the lost execution had running may write until its function's timeout; after that
        # its fencing number stops it.
        "settle_seconds": invocation.settings.settle_seconds if lock.held and not lock.warm else 0,
        "reason": "rolled back by hand" if by_hand else f"its execution {lock.execution_arn} ended",
    }
    answer: dict[str, Any] = {**invocation.data, "recovery": recovery}
    if record.deployment:
        deployment = record.deployment.model_copy(update={"fencing": fencing})
        store.resume(deployment, "rolling_back" if back_from_live else record.phase)
        answer["deployment"] = deployment.document()
    return answer


def _check(record: Record, lock: Lock, by_hand: bool, execution_arn: str) -> None:
    if lock.execution_arn == execution_arn:
        return
    if by_hand:
        _check_by_hand(record, lock)
    elif not lock.held or lock.deployment_id != record.id:
        raise DeploymentRefused(f"deployment {record.id} has ended: there is nothing to recover")
    if not lock.held or lock.warm:
        return
    if lock.deployment_id != record.id:
        raise LockHeld(
            f"service {record.service} is being changed by {lock.deployment_id} "
            f"({lock.execution_arn})"
        )
    if not _has_ended(lock.execution_arn):
        advice = (
            "it is live and drains its old colour; roll it back when that has ended"
            if record.phase == "committed"
            else "stop that execution, and it is rolled back by itself"
        )
        raise LockHeld(f"deployment {record.id} still runs ({lock.execution_arn}): {advice}")


def _check_by_hand(record: Record, lock: Lock) -> None:
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
