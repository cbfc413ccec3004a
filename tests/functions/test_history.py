"""The history: who started what when, how it ended, and how long that is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from moto.stepfunctions.models import Execution

from bluegreen.deployment import StartedBy
from bluegreen.history import Summary
from bluegreen.store import Store
from runtime import clients
from tests.functions.announced import announced, queue
from tests.functions.world import BLUE, GREEN, START, TABLE, Paced, World, execution_arn

DAYS = 90
ENDED = {"drain": {"status": "done", "reason": "the old colour has ended"}}
RESTORED = {"status": "restored", "reason": "all as before", "as_before": True}
UNHEALTHY = {"Error": "IdleColorUnhealthy", "Cause": '{"errorMessage": "why"}'}


@pytest.fixture(autouse=True)
def _kept_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISTORY_DAYS", str(DAYS))


def history(world: World, **more: Any) -> list[Summary]:
    return world.store.history("web", **{"since": 0, "until": world.now + 1, **more})


def open_(store: Store, name: str, at: float, service: str = "web") -> None:
    pushed = StartedBy(kind="push", detail=name)
    store.open(
        name, service, execution_arn(name), "then", at, started_by=pushed, images={"web": name}
    )


def expiry(name: str) -> float | None:
    """When a record goes, in days from START."""
    item = clients.dynamodb().get_item(TableName=TABLE, Key={"pk": {"S": f"deployment#{name}"}})
    at = item["Item"].get("expires_at", {}).get("N")
    return None if at is None else (int(at) - START) / 86_400


def deploy(world: World, name: str, tag: str) -> None:
    data = world.plan(name, images={"web": tag})
    world.run("record_outcome", data | ENDED, name)


def undo(world: World, name: str) -> None:
    asked = {"request": {"action": "rollback", "deployment_id": name}}
    data = world.run("plan_roll_back", asked, f"undo-{name}")
    world.run("record_outcome", data | {"rollback": RESTORED}, f"undo-{name}")


def test_the_newest_is_first_and_others_services_are_not_there(world: World) -> None:
    for number in range(5):
        open_(world.store, f"d-{number}", START + number)
    open_(world.store, "other", START + 9, service="api")
    assert [one.id for one in history(world, until=START + 99)] == [
        "d-4",
        "d-3",
        "d-2",
        "d-1",
        "d-0",
    ]
    assert [one.id for one in history(world, since=START + 2, until=START + 3)] == ["d-3", "d-2"]
    assert [one.id for one in history(world, until=START + 99, limit=2)] == ["d-4", "d-3"]


def test_a_long_history_comes_in_pages(world: World) -> None:
    """DynamoDB answers 1 MB at a time: with reasons of 24 KB some 40 deployments."""
    for number in range(60):
        open_(world.store, f"d-{number}", START + number)
        world.store.close(f"d-{number}", "failed", "x" * 24_000, START + number, 0)
    found = [one.id for one in history(world, until=START + 99)]
    assert found == [f"d-{number}" for number in reversed(range(60))]


def test_a_deployment_is_in_the_history_from_its_beginning(world: World) -> None:
    open_(world.store, "d-1", START)
    [found] = history(world)
    assert (found.started_by, found.images) == (
        StartedBy(kind="push", detail="d-1"),
        {"web": "d-1"},
    )
    assert (found.outcome, found.ended_at, found.to_color, found.states) == (None, None, None, [])


def test_a_planned_one_has_its_versions_and_colours_and_its_end(world: World) -> None:
    data = world.plan("d-1")
    [found] = history(world)
    assert (found.from_color, found.to_color) == (BLUE, GREEN)
    assert found.images["web"].endswith(world.digests["v2"])
    world.now += 60
    world.run("record_outcome", data | ENDED)
    [found] = history(world)
    assert (found.outcome, found.ended_at) == ("succeeded", START + 60)
    assert found.reason == "the new colour is live; the old colour has ended"


def test_what_was_superseded_is_in_the_history_once(world: World) -> None:
    pushed = StartedBy(kind="push", detail="v3")
    for reason in ("a newer one", "said again"):
        world.store.never_started(
            "p-3", "web", {"web": "v3"}, pushed, "superseded", "p-4", reason, START, START + 9
        )
    [found] = history(world)
    assert (found.outcome, found.reason, found.started_by) == ("superseded", "a newer one", pushed)
    assert (found.execution_arn, found.ended_at) == ("", START)
    record = world.record("p-3")
    assert (record.outcome, record.deployment) == ("superseded", None)


def test_what_has_begun_after_all_is_not_superseded(world: World) -> None:
    world.plan("d-1")
    world.store.never_started("d-1", "web", {}, StartedBy(), "superseded", "", "a newer one", START)
    assert world.record("d-1").outcome is None


# Times of states


def said(kind: str, at: float, name: str = "") -> dict[str, Any]:
    details = {"stateEnteredEventDetails": {"name": name}} if name else {}
    return {
        "id": int(at) + 1,
        "type": kind,
        "timestamp": datetime.fromtimestamp(START + at, UTC),
        **details,
    }


def passed(monkeypatch: pytest.MonkeyPatch, histories: dict[str, list[dict[str, Any]]]) -> None:
    """What Step Functions knows of executions, by name."""

    def events(self: Execution, _role: str) -> list[dict[str, Any]]:
        return histories[self.name]

    monkeypatch.setattr(Execution, "get_execution_history", events)


def test_the_record_has_the_times_of_its_states(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start_execution("d-1")
    passed(monkeypatch, {"d-1": [said("TaskStateEntered", 1, "CheckBake")]})
    data = world.plan("d-1")
    world.now += 11
    world.run("record_outcome", data | ENDED)
    [state] = history(world)[0].states
    assert (state.execution, state.state) == ("d-1", "CheckBake")
    assert (state.entered_at, state.seconds, state.visits) == (START + 1, 10, 1)


def test_23_a_recovery_keeps_the_times_of_what_was_stopped_and_adds_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("d-1", "undo-d-1"):
        world.start_execution(name)
    stopped = [said("TaskStateEntered", 1, "StartIdleColor"), said("ExecutionAborted", 5)]
    passed(monkeypatch, {"d-1": stopped, "undo-d-1": [said("TaskStateEntered", 6, "RollBack")]})
    world.plan("d-1")
    world.stop_execution("d-1")
    world.now += 8
    undo(world, "d-1")
    assert [(one.execution, one.state, one.seconds) for one in history(world)[0].states] == [
        ("d-1", "StartIdleColor", 4),
        ("undo-d-1", "RollBack", 2),
    ]


@pytest.mark.parametrize("kind", ["denied", "throttle", "timeout"])
def test_times_that_cannot_be_read_cost_no_outcome(
    world: World, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world.start_execution("d-1")
    world.fault("stepfunctions", "GetExecutionHistory", kind, times=9)
    deploy(world, "d-1", "v2")
    assert (world.record().outcome, world.record().states) == ("succeeded", [])
    assert not world.lock.held
    assert "no times of states" in caplog.text


def test_a_history_that_hangs_keeps_neither_the_lock_nor_the_news(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda ends the function in the middle of it."""

    def dies(_: Execution, _role: str) -> list[dict[str, Any]]:
        raise SystemExit

    url = queue(monkeypatch)
    world.start_execution("d-1")
    monkeypatch.setattr(Execution, "get_execution_history", dies)
    data = world.plan("d-1")
    with pytest.raises(SystemExit):
        world.run("record_outcome", data | ENDED)
    assert world.record().outcome == "succeeded"
    assert not world.lock.held
    assert [one.kind for one in announced(url)][-1] == "succeeded"


def test_a_history_that_is_too_long_is_kept_as_far_as_it_was_read(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """25,000 events are read in pages of 1000, and not for longer than seconds."""
    clock, asked = Paced(), []

    def page(**request: Any) -> dict[str, Any]:
        clock.sleep(5)
        asked.append((request["maxResults"], request.get("nextToken")))
        number = len(asked)
        entered = said("TaskStateEntered", number * 10, f"State{number}")
        return {"events": [entered], "nextToken": str(number)}

    monkeypatch.setattr("record_outcome.time", clock)
    monkeypatch.setattr(clients.stepfunctions_once(), "get_execution_history", page)
    data = world.plan("d-1")
    world.now += 9999
    world.run("record_outcome", data | ENDED)
    assert asked == [(1000, None), (1000, "1")]
    [found] = history(world)
    assert [(one.state, one.seconds) for one in found.states] == [("State1", 10), ("State2", 0)]
    assert found.states_missing == "d-1, after 2 events: it took longer than 8 s"
    assert "StateSeconds" not in capsys.readouterr().out, "half of a time is none"


def test_all_pages_of_a_long_history_are_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [[said("WaitStateEntered", 1000 * n + m, "Wait") for m in range(1000)] for n in (0, 1)]

    def page(**request: Any) -> dict[str, Any]:
        number = int(request.get("nextToken", 0))
        more = {"nextToken": "1"} if number == 0 else {}
        return {"events": pages[number], **more}

    monkeypatch.setattr(clients.stepfunctions_once(), "get_execution_history", page)
    data = world.plan("d-1")
    world.now += 2000
    world.run("record_outcome", data | ENDED)
    [found] = history(world)
    assert [(one.state, one.visits) for one in found.states] == [("Wait", 2000)]
    assert found.states_missing == ""


# How long it is kept


def test_what_is_live_and_what_a_rollback_goes_back_to_stay_and_the_one_before_goes(
    world: World,
) -> None:
    for day, (name, tag) in enumerate([("d-1", "v2"), ("d-2", "v1"), ("d-3", "v2")]):
        world.now = START + day * 86_400
        deploy(world, name, tag)
    assert [expiry(name) for name in ("d-1", "d-2", "d-3")] == [2 + DAYS, None, None]


def test_a_rollback_makes_what_is_live_again_and_the_one_before_needed_again(world: World) -> None:
    for name, tag in (("d-1", "v2"), ("d-2", "v1"), ("d-3", "v2")):
        deploy(world, name, tag)
    undo(world, "d-3")
    assert [expiry(name) for name in ("d-1", "d-2", "d-3")] == [None, None, DAYS]


def test_what_a_rollback_of_a_redeployed_one_goes_back_to_stays(world: World) -> None:
    """d-4 is d-2 again: the way back from it is that of d-2, to d-1."""
    for name, tag in (("d-1", "v2"), ("d-2", "v1"), ("d-3", "v2")):
        deploy(world, name, tag)
    assert [expiry(name) for name in ("d-1", "d-2", "d-3")] == [DAYS, None, None]
    back = StartedBy(kind="rollback", detail="d-2").model_dump()
    data = world.plan("d-4", images={"web": "v1"}, started_by=back)
    world.run("record_outcome", data | ENDED, "d-4")
    assert [expiry(f"d-{number}") for number in (1, 2, 3, 4)] == [None, None, None, None]
    asked = world.run("plan_roll_back", {"request": {"action": "rollback", "service": "web"}}, "x")
    assert asked["request"]["like"] == "d-1"
    undo(world, "d-4")
    assert [expiry(f"d-{number}") for number in (1, 2, 3, 4)] == [DAYS, None, None, DAYS]


def test_what_changed_nothing_goes_after_its_end(world: World) -> None:
    deploy(world, "d-1", "v2")
    refused = {"request": {"service": "web"}, "failure": {"Error": "LockHeld", "Cause": "busy"}}
    open_(world.store, "refused", START)
    world.run("record_outcome", refused, "refused")
    undone = world.plan("undone", images={"web": "v1"})
    world.run("record_outcome", undone | {"failure": UNHEALTHY, "rollback": RESTORED}, "undone")
    assert [expiry(name) for name in ("d-1", "refused", "undone")] == [None, DAYS, DAYS]


def test_what_was_undone_too_late_goes_and_what_succeeds_in_the_end_stays(world: World) -> None:
    data = world.plan("d-1")
    world.store.close("d-1", "rolled_back", "", START, 1, expires_at=START + 1)
    world.run("record_outcome", data | ENDED, "d-1")
    assert expiry("d-1") is None


def test_with_no_days_nothing_ever_goes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISTORY_DAYS", "0")
    for name, tag in (("d-1", "v2"), ("d-2", "v1"), ("d-3", "v2")):
        deploy(world, name, tag)
    undo(world, "d-3")
    assert [expiry(name) for name in ("d-1", "d-2", "d-3")] == [None, None, None]
