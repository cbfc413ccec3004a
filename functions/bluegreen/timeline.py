"""How long an execution was in which state: from the events of its history. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bluegreen.history import StateTime

# A Choice or a Pass takes no time; Parallel is only what is around the others.
_TAKE_TIME = frozenset({"TaskStateEntered", "WaitStateEntered"})
_LEFT = frozenset({"ParallelStateExited", "ParallelStateFailed"})
_ENDED = frozenset(
    {"ExecutionSucceeded", "ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut"}
)


@dataclass
class _Time:
    entered_at: float
    seconds: float = 0.0
    visits: int = 0


def states(execution: str, events: Iterable[Mapping[str, Any]], now: float) -> list[StateTime]:
    """The states of an execution in the order in which they were first entered.

    execution: its name. events: as GetExecutionHistory has them, the oldest first. now: epoch
    seconds, until which the state lasts that the execution is in.
    https://docs.aws.amazon.com/step-functions/latest/apireference/API_GetExecutionHistory.html

    One state at a time: the workflow has no two branches. A state that fails is not said to be
    exited; it has ended when the next one is entered.
    """
    times: dict[str, _Time] = {}
    inside, since = "", 0.0

    def leave(at: float) -> None:
        if inside:
            times[inside].seconds += max(0.0, at - since)

    for event in events:
        kind, at = event["type"], event["timestamp"].timestamp()
        if kind.endswith("StateEntered"):
            leave(at)
            inside, since = "", at
            if kind in _TAKE_TIME:
                inside = event["stateEnteredEventDetails"]["name"]
                times.setdefault(inside, _Time(at)).visits += 1
        elif kind.endswith("StateExited") or kind in _LEFT | _ENDED:
            leave(at)
            inside = ""
    leave(now)
    return [
        StateTime(
            execution=execution,
            state=name,
            entered_at=round(time.entered_at, 3),
            seconds=round(time.seconds, 3),
            visits=time.visits,
        )
        for name, time in times.items()
    ]
