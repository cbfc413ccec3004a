"""State RecordOutcome: write down how it ended, and give the lock back."""

from __future__ import annotations

from typing import Any

from bluegreen import outcome
from bluegreen.deployment import NO_LOCK, Deployment, is_planned, parse
from runtime.invocation import Invocation, logger, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers outcome, error, cause and ``execution`` "succeed" or "fail"."""
    data, store = invocation.data, invocation.store
    ended = outcome.decide(data)
    deployment, fencing = _held(invocation)
    stands = store.close(
        invocation.deployment_id, ended.word, ended.reason, invocation.now, fencing
    )
    record = store.read(invocation.deployment_id)
    if record and not ended.lock_stays:
        # What is undone hands back to the deployment before, which can be undone in its turn.
        undone = deployment if ended.word == "rolled_back" else None
        store.release(record.service, fencing, undone.follows if undone else None)
    logger().info("ended", extra={"outcome": stands, "reason": ended.reason})
    return {
        "outcome": stands,
        "error": ended.error,
        "cause": ended.reason,
        "execution": "succeed" if ended.good else "fail",
    }


def _held(invocation: Invocation) -> tuple[Deployment | None, int]:
    """The deployment, and the fencing number under which this execution holds its lock."""
    if is_planned(invocation.data):
        deployment = parse(invocation.data)
        return deployment, deployment.fencing
    record = invocation.store.read(invocation.deployment_id)
    lock = invocation.store.lock(record.service) if record else None
    if record and lock and lock.execution_arn == invocation.execution_arn:
        return record.deployment, lock.fencing
    return None, NO_LOCK
