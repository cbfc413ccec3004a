"""State RecordOutcome: write down how it ended, and give the lock back."""

from __future__ import annotations

from typing import Any

from bluegreen import outcome
from bluegreen.deployment import parse
from runtime.invocation import Invocation, logger, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers outcome, error, cause and ``execution`` "succeed" or "fail"."""
    data, store = invocation.data, invocation.store
    ended = outcome.decide(data)
    fencing = parse(data).fencing if "deployment" in data else 0
    stands = store.close(
        invocation.deployment_id, ended.word, ended.reason, invocation.now, fencing
    )
    if not ended.lock_stays:
        _release(invocation, undone=ended.word == "rolled_back")
    logger().info("ended", extra={"outcome": stands, "reason": ended.reason})
    return {
        "outcome": stands,
        "error": ended.error,
        "cause": ended.reason,
        "execution": "succeed" if ended.good else "fail",
    }


def _release(invocation: Invocation, undone: bool) -> None:
    """Release the lock if it is this execution's, with or without a plan.

    undone: the deployment before is the last one again, and can be undone in its turn.
    """
    data, store = invocation.data, invocation.store
    if "deployment" in data:
        deployment = parse(data)
        store.release(
            deployment.service, deployment.fencing, deployment.follows if undone else None
        )
        return
    record = store.read(invocation.deployment_id)
    lock = store.lock(record.service) if record else None
    if lock and lock.execution_arn == invocation.execution_arn:
        store.release(lock.service, lock.fencing)
