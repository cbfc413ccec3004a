"""State PlanRollBack: find the deployment to undo, or to finish, and take its service's lock."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import ClientError
from pydantic import ValidationError

from bluegreen import ecs, lineage, plan
from bluegreen.configuration import describe
from bluegreen.deployment import Deployment, DeployRequest, RollBackRequest, StartedBy
from bluegreen.errors import DeploymentRefused, InvalidRequest, LockHeld
from bluegreen.store import Lock, Record, Store
from bluegreen.task_definition import images_of
from runtime import clients, executions
from runtime.invocation import Invocation, is_passing, logger, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """``$.request`` is a RollBackRequest; the answer is the new ``$``.

    ``recovery`` in it: reason, settle_seconds and direction: "roll_back"; "finish" for a deployment
    that was live and baked when its execution was lost, or that a release has held; "redeploy" when
    what was live before has to be deployed again, with the DeployRequest for it as the new
    ``request``; "dry_run" when nothing is to be done, with the ``plan`` in ``deployment``.
    deployment_id: the deployment in hand, for the first two. ``deployment``: with the new fencing
    number; absent when it was lost before it had a plan.
    Raises InvalidRequest, DeploymentRefused, LockHeld.
    """
    try:
        request = RollBackRequest.model_validate(invocation.data["request"])
    except ValidationError as error:
        raise InvalidRequest("the execution input:\n" + "\n".join(describe(error))) from error
    if request.dry_run and request.action != "rollback":
        raise InvalidRequest(f"dry_run goes with deploy and rollback, not with {request.action}")
    store = invocation.store
    if request.service:
        found = _of_service(invocation, request.service, request.to)
        if isinstance(found, _Redeploy):
            return _redeploy(request, found)
        record, lock = found
    else:
        record, lock = _named(store, request)
    direction = _direction(invocation, request, record, lock)
    if request.dry_run:
        return {**invocation.data, **_dry_run(record)}
    return _take_over(invocation, request, record, lock, direction)


@dataclass(frozen=True)
class _Redeploy:
    """What was live before, and has to be deployed again. undone: what is live now."""

    service: str
    like: str
    undone: str


def _named(store: Store, request: RollBackRequest) -> tuple[Record, Lock]:
    record = store.read(str(request.deployment_id))
    if record is None:
        raise InvalidRequest(f"there is no deployment {request.deployment_id!r}")
    lock = store.lock(record.service)
    if lock is None:
        raise DeploymentRefused(f"deployment {record.id} never began: there is nothing to undo")
    return record, lock


def _of_service(
    invocation: Invocation, service: str, to: str | None
) -> tuple[Record, Lock] | _Redeploy:
    """The last deployment while all that it replaced still runs, if that is what to go back to, or
    when no deployment before it is on record; else what to deploy again. Raises DeploymentRefused,
    LockHeld.
    """
    store = invocation.store
    # Read before the record: what an earlier attempt of this state took is ours.
    lock = store.lock(service)
    if lock and lock.held and lock.execution_arn == invocation.execution_arn:
        taken = store.read(lock.deployment_id)
        assert taken
        return taken, lock
    if lock is None or lock.changed_by is None:
        raise DeploymentRefused(
            f"service {service} has no deployment on record: there is nothing to go back from; "
            "deploy an image by its digest instead"
        )
    record = store.read(lock.changed_by)
    before = lineage.trace(store, lock.changed_by).before
    in_hand = lock.held and lock.deployment_id == lock.changed_by
    if in_hand and record and lock.purpose == "roll_back":
        raise LockHeld(
            f"service {service} is going back from {record.id} already ({lock.execution_arn})"
        )
    if in_hand and record and record.deployment and _is_undone_by(record.deployment, to):
        return record, lock
    if lock.held and not lock.warm:
        raise LockHeld(
            f"service {service} is being changed by {lock.deployment_id} ({lock.execution_arn})"
        )
    if to == lock.changed_by:
        raise DeploymentRefused(f"deployment {to} is what is live: there is nothing to go back to")
    like = to or before
    if like is None and record and record.deployment and _is_undone_by(record.deployment, to):
        # The first one after a service was taken into use here: its snapshot knows what ran.
        return record, lock
    if like is None:
        raise DeploymentRefused(
            f"what was live before deployment {lock.changed_by} of service {service} is not on "
            "record: name a deployment in to, or deploy an image by its digest"
        )
    return _Redeploy(service, like, lock.changed_by)


def _is_undone_by(deployment: Deployment, to: str | None) -> bool:
    """Whether the snapshot of a deployment is where to go. That of one which went back itself is
    what it took back: only who names that wants it.
    """
    if to is None:
        return deployment.started_by.kind != "rollback"
    return to == deployment.follows


def _redeploy(request: RollBackRequest, found: _Redeploy) -> dict[str, Any]:
    """The data of an execution that deploys it, through the gates of any other deployment."""
    deploy = DeployRequest(
        service=found.service,
        like=found.like,
        skip_bake=request.skip_bake,
        dry_run=request.dry_run,
        started_by=StartedBy(kind="rollback", detail=found.like, who=request.who),
    )
    return {
        "request": deploy.model_dump(mode="json"),
        "recovery": {
            "direction": "redeploy",
            "settle_seconds": 0,
            "reason": f"back from {found.undone} to {found.like}",
        },
    }


def _direction(
    invocation: Invocation, request: RollBackRequest, record: Record, lock: Lock
) -> Literal["roll_back", "finish"]:
    """Raises DeploymentRefused, LockHeld."""
    # A lock that was given back still names its last holder, and a name may be used again.
    ours = lock.held and lock.execution_arn == invocation.execution_arn
    match request.action:
        case "rollback":
            if not ours:
                _check_by_hand(record, lock)
            return "roll_back"
        case "abort":
            if not ours:
                _check_runs(record, lock)
                _check_by_hand(record, lock)
            return "roll_back"
        case "finish":
            if not ours:
                _check_held(invocation.store, record, lock, invocation.now)
            return "finish"
        case "recover":
            if not ours:
                _check_lost(record, lock)
            # Committed: lost in its drain, and the new colour is live. Going back is for a person
            # to ask, or for the release that it is a part of.
            committed = lock.purpose == "deploy" and record.phase == "committed"
            stays = committed and _release_lets_stay(invocation, record, lock)
            return "finish" if stays else "roll_back"


def _take_over(
    invocation: Invocation,
    request: RollBackRequest,
    record: Record,
    lock: Lock,
    direction: Literal["roll_back", "finish"],
) -> dict[str, Any]:
    store, finish = invocation.store, direction == "finish"
    fencing = store.take_over(
        lock,
        record.id,
        invocation.execution_arn,
        invocation.now,
        "deploy" if finish else "roll_back",
    )
    # What the execution before had running may write until its function's timeout; after that its
    # fencing number stops it. Warm, or held for a release, it has nothing running.
    sleeps = not lock.held or lock.warm or lock.held_for
    reason = _reason(request, lock)
    recovery = {
        "deployment_id": record.id,
        "direction": direction,
        "settle_seconds": 0 if sleeps else invocation.settings.settle_seconds,
        "reason": reason,
    }
    answer: dict[str, Any] = {**invocation.data, "recovery": recovery}
    if record.deployment:
        deployment = record.deployment.model_copy(update={"fencing": fencing})
        store.save_plan(deployment, record.phase if finish else "rolling_back")
        answer["deployment"] = deployment.document()
    if not finish:
        _reject(store, record.id, reason)
    if finish and lock.warm:
        # Whoever stopped it does not want to wait for the rest of the warm time.
        answer["drain"] = {"since": invocation.now, "warm_until": invocation.now}
    return answer


def _reason(request: RollBackRequest, lock: Lock) -> str:
    who = f" by {request.who}" if request.who else " by hand"
    match request.action:
        case "rollback":
            return "rolled back" + who
        case "abort":
            return "aborted" + who
        case "finish":
            return f"its release {lock.held_for} has succeeded"
        case "recover":
            return f"its execution {lock.execution_arn} ended"


def _reject(store: Store, deployment_id: str, reason: str) -> None:
    """Answer whoever waits for approval, if anybody does. The plan has been taken over: no other
    token comes in the place of this one any more.
    """
    record, client = store.read(deployment_id), clients.stepfunctions()
    if record is None or record.approval is None:
        return
    # Nobody waits any more when it has timed out, or its execution was stopped.
    over = (
        client.exceptions.TaskTimedOut,
        client.exceptions.TaskDoesNotExist,
        client.exceptions.InvalidToken,
    )
    try:
        with contextlib.suppress(*over):
            client.send_task_failure(taskToken=record.approval, error="NotApproved", cause=reason)
    except ClientError as error:
        if is_passing(error):
            raise
        # The lock is taken: what waits there has lost it anyway.
        logger().error("nobody is told no", extra={"reason": str(error)})
    store.forget_approval(deployment_id, record.approval)


def _dry_run(record: Record) -> dict[str, Any]:
    deployment = record.deployment
    assert deployment
    before = deployment.snapshot.services
    ran: dict[str, str] = {}
    if deployment.from_color:
        definition, _ = ecs.task_definition(
            clients.ecs(), before[deployment.from_color].task_definition
        )
        ran = images_of(definition)
    return {
        "recovery": {"direction": "dry_run", "settle_seconds": 0, "reason": "asked for"},
        "deployment": {
            "decision": "dry_run",
            "plan": plan.undo(deployment, ran, record.intents),
        },
    }


def _check_lost(record: Record, lock: Lock) -> None:
    if not lock.held or lock.deployment_id != record.id:
        raise DeploymentRefused(f"deployment {record.id} has ended: there is nothing to recover")
    if not _has_ended(lock.execution_arn):
        raise LockHeld(f"deployment {record.id} still runs ({lock.execution_arn})")
    if lock.held_for and not _has_ended(lock.held_for):
        raise LockHeld(f"deployment {record.id} waits for its release ({lock.held_for})")


def _check_runs(record: Record, lock: Lock) -> None:
    if record.outcome is not None:
        raise DeploymentRefused(
            f"deployment {record.id} has ended ({record.outcome}): it cannot be aborted; use "
            "rollback to go back from it"
        )
    if not lock.held or lock.deployment_id != record.id:
        raise DeploymentRefused(
            f"deployment {record.id} has changed nothing yet: stop its execution "
            f"({record.execution_arn})"
        )


def _check_held(store: Store, record: Record, lock: Lock, now: float) -> None:
    if not lock.held_for or lock.deployment_id != record.id:
        raise DeploymentRefused(
            f"deployment {record.id} is not held for a release: there is nothing to finish"
        )
    if store.release_way(lock.held_for, now) != "finish":
        raise LockHeld(f"deployment {record.id} waits for its release ({lock.held_for})")


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
    ran = old is not None and record.deployment.snapshot.services[old].running_count > 0
    # One that nobody relies on yet may end with nothing live: it was so before.
    in_progress = lock.held_for or (lock.held and record.phase in ("deploying", "rolling_back"))
    if not ran and not in_progress:
        raise DeploymentRefused(
            f"nothing ran before deployment {record.id}: going back would leave nothing live"
        )


def _release_lets_stay(invocation: Invocation, record: Record, lock: Lock) -> bool:
    """Whether what was baked may stay: always, unless it is a part of a release that goes back, or
    has not got further: then all of it goes back.
    """
    release = record.deployment.release if record.deployment else None
    # Whoever has taken it over to finish it did so because it may stay.
    if release is None or lock.execution_arn != record.execution_arn:
        return True
    return invocation.store.decide_release(release, "undo", invocation.now) == "finish"


def _has_ended(execution_arn: str) -> bool:
    return executions.status(execution_arn) != "RUNNING"
