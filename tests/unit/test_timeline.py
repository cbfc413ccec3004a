"""How long an execution was in which state."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bluegreen.history import StateTime, expires_at, merge
from bluegreen.timeline import states

START = 1_800_000_000.0


def entered(name: str, at: float, kind: str = "Task") -> dict[str, Any]:
    return event(f"{kind}StateEntered", at) | {"stateEnteredEventDetails": {"name": name}}


def left(name: str, at: float, kind: str = "Task") -> dict[str, Any]:
    return event(f"{kind}StateExited", at) | {"stateExitedEventDetails": {"name": name}}


def event(kind: str, at: float) -> dict[str, Any]:
    return {"type": kind, "timestamp": datetime.fromtimestamp(START + at, UTC)}


def short(found: list[StateTime]) -> list[tuple[str, float, float, int]]:
    return [(one.state, one.entered_at - START, one.seconds, one.visits) for one in found]


def test_visits_of_a_state_are_added_up_in_the_order_of_the_first() -> None:
    events = [
        event("ExecutionStarted", 0),
        entered("Begin", 0, "Pass"),
        left("Begin", 0, "Pass"),
        entered("Deploy", 0, "Parallel"),
        entered("CheckHealth", 1),
        event("LambdaFunctionScheduled", 1),
        event("LambdaFunctionSucceeded", 2),
        left("CheckHealth", 2),
        entered("WaitForHealth", 2, "Wait"),
        left("WaitForHealth", 7, "Wait"),
        entered("CheckHealth", 7),
        left("CheckHealth", 8.5),
        event("ParallelStateExited", 8.5),
        entered("RecordOutcome", 9),
    ]
    assert short(states("d-1", events, START + 9.25)) == [
        ("CheckHealth", 1, 2.5, 2),
        ("WaitForHealth", 2, 5, 1),
        ("RecordOutcome", 9, 0.25, 1),
    ]


def test_a_state_that_failed_ends_where_the_next_one_begins() -> None:
    """Step Functions says of a failed state in a branch only that its Parallel was left."""
    events = [
        entered("Deploy", 0, "Parallel"),
        entered("CheckBake", 1),
        event("LambdaFunctionFailed", 3),
        event("ParallelStateFailed", 4),
        entered("RollBack", 10),
        left("RollBack", 12),
    ]
    assert short(states("d-1", events, START + 99)) == [
        ("CheckBake", 1, 3, 1),
        ("RollBack", 10, 2, 1),
    ]


def test_23_the_state_in_which_somebody_stopped_it_ends_there() -> None:
    events = [entered("StartIdleColor", 1), event("ExecutionAborted", 5)]
    assert short(states("d-1", events, START + 999)) == [("StartIdleColor", 1, 4, 1)]


def test_nothing_happened_yet() -> None:
    assert states("d-1", [], START) == []


names = st.sampled_from(["A", "B", "C"])


@given(st.lists(st.tuples(names, st.floats(0, 100), st.booleans()), max_size=60))
def test_the_times_of_all_states_are_no_longer_than_the_execution(
    visits: list[tuple[str, float, bool]],
) -> None:
    events, at = [], 0.0
    for name, seconds, fails in visits:
        events.append(entered(name, at))
        at += seconds
        if not fails:
            events.append(left(name, at))
    found = states("d-1", events, START + at)
    assert sum(one.seconds for one in found) <= at + 0.01
    assert sum(one.visits for one in found) == len(visits)
    assert [one.entered_at for one in found] == sorted(one.entered_at for one in found)


def one(execution: str, at: float) -> StateTime:
    return StateTime(execution=execution, state="S", entered_at=at, seconds=1, visits=1)


def test_a_recovery_is_appended_and_what_is_seen_again_replaces_what_was() -> None:
    kept = [one("d-1", 1), one("recover-1", 5)]
    seen = [one("d-1", 1), one("d-1", 2), one("recover-2", 9)]
    assert merge(kept, seen) == [
        one("d-1", 1),
        one("d-1", 2),
        one("recover-1", 5),
        one("recover-2", 9),
    ]
    assert merge(merge(kept, seen), seen) == merge(kept, seen), "a state that is repeated"


def test_a_recovery_that_fails_for_days_does_not_fill_the_item() -> None:
    kept: list[StateTime] = []
    for number in range(3000):
        kept = merge(kept, [one(f"recover-{number}", number)])
    assert len(kept) == 200
    assert (kept[0].execution, kept[-1].execution) == ("recover-0", "recover-2999")


def test_how_long_it_is_kept() -> None:
    assert expires_at(START, 90) == START + 90 * 86_400
    assert expires_at(START, 0) is None, "never"
