"""State RecordOutcome: write down how it ended, give the lock back, and have people told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from bluegreen import history, lineage, outcome, timeline
from bluegreen.announcement import Announcement, Kind, allowed_by
from bluegreen.deployment import NO_LOCK, Deployment, is_planned, parse
from bluegreen.errors import AwsRefused, AwsUnavailable
from bluegreen.history import StateTime
from bluegreen.outcome import Outcome, Word
from bluegreen.store import Record, Store
from runtime import announcements, clients, unplanned
from runtime.invocation import Invocation, logger, task, translating_aws_errors
from runtime.observability import measure

_TOLD_AS: dict[Word, Kind] = {
    "succeeded": "succeeded",
    "rolled_back": "rolled_back",
    "traffic_left": "failed",
    "refused": "failed",
    "failed": "failed",
    "rollback_incomplete": "failed",
}
# Nothing live has come of them: nobody goes back to them, or by what they know.
_NOTHING_LIVE: frozenset[Word] = frozenset({"nothing_to_do", "refused", "failed", "rolled_back"})
# No page of an execution's history is asked for later than that; it may have 25,000 events.
_PATIENCE_SECONDS = 8
# The most that GetExecutionHistory takes:
# https://docs.aws.amazon.com/step-functions/latest/apireference/API_GetExecutionHistory.html
_PAGE = 1000


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers outcome, error, cause, ``execution`` "succeed" or "fail", and ours: whether this
    execution is the one that says how the deployment ended.

    The lock is given back before anything is done that may fail or take long.
    """
    data, store, now = invocation.data, invocation.store, invocation.now
    ended = outcome.decide(data)
    deployment, fencing = _held(invocation)
    before = store.read(invocation.deployment_id)
    gone_at = history.expires_at(now, invocation.settings.history_days)
    ours = store.close(
        invocation.deployment_id,
        ended.word,
        ended.reason,
        now,
        fencing,
        expires_at=gone_at if ended.word in _NOTHING_LIVE else None,
    )
    record = store.read(invocation.deployment_id)
    if record and not ended.lock_stays:
        # What is undone hands back to the deployment before, which can be undone in its turn.
        undone = deployment if ended.word == "rolled_back" else None
        store.release(record.service, fencing, undone)
    if record and ours:
        _keep_what_is_needed(store, record, ended.word, gone_at)
        _tell(invocation, record, ended)
        first = record.execution_arn == invocation.execution_arn or not (before and before.outcome)
        _measure(invocation, record, ended.word, first=first)
        _note_states(invocation, record, fencing)
    stands = record.outcome if record and record.outcome else ended.word
    logger().info("ended", extra={"outcome": stands, "reason": ended.reason})
    return {
        "outcome": stands,
        "error": ended.error,
        "cause": ended.reason,
        "execution": "succeed" if ended.good else "fail",
        "ours": ours,
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


def _note_states(invocation: Invocation, record: Record, fencing: int) -> None:
    """Add what Step Functions knows of this execution, and of the one that it has taken over from.

    An outcome without its times is better than none.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    seen: list[StateTime] = []
    missing: list[str] = []
    for arn in dict.fromkeys([record.execution_arn, invocation.execution_arn]):
        name = arn.rpartition(":")[2]
        events, why = _events(arn, deadline)
        until = events[-1]["timestamp"].timestamp() if why and events else invocation.now
        times = timeline.states(name, events, until)
        seen += times
        if why:
            missing.append(f"{name}, after {len(events)} events: {why}")
            logger().error("no times of states", extra={"of": arn, "reason": why})
        elif arn == invocation.execution_arn:
            _measure_states(record, times)
    states = history.merge(record.states, seen)
    try:
        translating_aws_errors(
            lambda: invocation.store.note_states(record.id, fencing, states, "; ".join(missing))
        )
    except (AwsRefused, AwsUnavailable) as error:
        logger().error("no times of states", extra={"of": record.id, "reason": str(error)})


def _events(execution_arn: str, deadline: float) -> tuple[list[Mapping[str, Any]], str]:
    """The events of an execution, as far as they could be read, and why not all of them were.

    deadline: of the monotonic clock.
    """
    events: list[Mapping[str, Any]] = []
    more: dict[str, Any] = {}
    try:
        while True:
            if time.monotonic() > deadline:
                return events, f"it took longer than {_PATIENCE_SECONDS} s"
            answer = translating_aws_errors(
                lambda: clients.stepfunctions_once().get_execution_history(
                    executionArn=execution_arn,
                    includeExecutionData=False,
                    maxResults=_PAGE,
                    **more,  # noqa: B023
                )
            )
            events += answer["events"]
            if "nextToken" not in answer:
                return events, ""
            more = {"nextToken": answer["nextToken"]}
    except (AwsRefused, AwsUnavailable) as error:
        return events, str(error)


def _keep_what_is_needed(store: Store, record: Record, word: Word, gone_at: float | None) -> None:
    """What is live stays in the history, and what a rollback of it needs; what only the other one
    needed may go.
    """
    if record.deployment is None or record.deployment.follows is None:
        return
    ours = _needed(store, record.id)
    before = _needed(store, record.deployment.follows)
    match word:
        case "rolled_back":
            needed, over = before, ours - before
        case "succeeded" | "traffic_left":
            needed, over = ours, before - ours
        case _:
            return
    for one in needed:
        store.keep(one)
    if gone_at:
        for one in over:
            store.expire(one, gone_at)


def _needed(store: Store, live: str) -> set[str]:
    """The records that a rollback of a deployment needs: of what it undoes while that is warm, and
    of what is deployed again later.
    """
    record = store.read(live)
    follows = record.deployment.follows if record and record.deployment else None
    return {*lineage.trace(store, live).read, *([follows] if follows else [])}


def _tell(invocation: Invocation, record: Record, ended: Outcome) -> None:
    """Once for each way in which a deployment ends: a later execution may end it differently."""
    kind = _TOLD_AS.get(ended.word)
    if kind is None:
        return
    step = ended.word if ended.word not in ("failed", kind) else ""
    if record.deployment:
        announcement = Announcement.about(
            record.deployment,
            kind,
            invocation.now,
            reason=ended.reason,
            step=step,
            outcome=ended.word,
            details=allowed_by(record.approved_by, record.promoted_by),
            execution_arn=invocation.execution_arn,
        )
    else:
        announcement = unplanned.announcement(
            invocation.settings,
            record,
            kind,
            invocation.now,
            reason=ended.reason,
            outcome=ended.word,
            execution_arn=invocation.execution_arn,
            step=step,
        )
    announcements.tell(invocation.settings, announcement)


def _measure(invocation: Invocation, record: Record, word: Word, *, first: bool) -> None:
    """first: whether the deployment has not ended before; then this is how long it has taken, but
    for the time that its old colour was kept warm. Who finds it warm does not know since when.
    """
    values = {word.title().replace("_", ""): (MetricUnit.Count, 1.0)}
    drain = invocation.data.get("drain", {})
    ended_at = drain.get("warm_since", None if "warm_until" in drain else invocation.now)
    if first and ended_at is not None:
        values["DeploymentSeconds"] = (MetricUnit.Seconds, ended_at - record.started_at)
    measure(values, service=record.service)


def _measure_states(record: Record, times: Sequence[StateTime]) -> None:
    for one in times:
        seconds = {"StateSeconds": (MetricUnit.Seconds, one.seconds)}
        measure(seconds, service=record.service, state=one.state)
