"""RecordOutcome: the end is written down, and the lock given back unless the world is not in
order.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from moto.stepfunctions.models import Execution

from bluegreen.announcement import Announcement
from bluegreen.deployment import StartedBy
from bluegreen.errors import DeploymentRefused
from bluegreen.history import Promotion
from runtime import clients
from tests.functions.announced import announced, queue
from tests.functions.world import PREFIX, START, World, execution_arn

RESTORED = {"status": "restored", "reason": "all as before", "as_before": True}


def record(world: World, data: dict[str, Any], execution: str = "d-1") -> dict[str, Any]:
    return world.run("record_outcome", data, execution)


def failure(error: str) -> dict[str, str]:
    return {"Error": error, "Cause": '{"errorMessage": "why"}'}


def test_a_success_is_recorded_and_the_lock_given_back(world: World) -> None:
    data = world.baked() | {"drain": {"status": "done", "reason": "the old colour has ended"}}
    assert record(world, data) == {
        "outcome": "succeeded",
        "error": "",
        "cause": "the new colour is live; the old colour has ended",
        "execution": "succeed",
        "ours": True,
    }
    assert (world.record().phase, world.record().outcome) == ("committed", "succeeded")
    assert not world.lock.held


def test_22_what_was_undone_is_recorded_as_such_and_fails_the_execution(world: World) -> None:
    data = world.plan() | {"failure": failure("IdleColorUnhealthy"), "rollback": RESTORED}
    answer = record(world, data)
    assert (answer["outcome"], answer["execution"]) == ("rolled_back", "fail")
    assert (answer["error"], answer["cause"]) == ("IdleColorUnhealthy", "why\nall as before")
    assert not world.lock.held


def test_15_the_lock_stays_when_the_rollback_did_not_end(world: World) -> None:
    data = world.plan() | {
        "failure": failure("SwitchNotProved"),
        "rollback_failure": failure("RollBackIncomplete"),
    }
    assert record(world, data)["outcome"] == "rollback_incomplete"
    assert world.lock.held
    assert [lock.deployment_id for lock in world.store.held_locks()] == ["d-1"]


def test_a_refused_deployment_never_held_the_lock(world: World) -> None:
    world.set_weights({"blue": 50, "green": 50})  # type: ignore[dict-item]
    with pytest.raises(DeploymentRefused):
        world.plan()
    data = {
        "request": {"service": "web"},
        "failure": failure("DeploymentRefused"),
        "rollback": {"status": "nothing_to_restore", "reason": "nothing was changed"},
    }
    assert record(world, data)["outcome"] == "refused"
    assert world.store.lock("web") is None
    assert world.record().outcome == "refused"


def test_20_a_second_start_that_was_refused_does_not_give_the_firsts_lock_back(
    world: World,
) -> None:
    world.plan("d-1")
    world.store.open("d-2", "web", execution_arn("d-2"), "then", START)
    data = {"request": {"service": "web"}, "failure": failure("LockHeld")}
    assert record(world, data, "d-2")["outcome"] == "refused"
    assert (world.lock.held, world.lock.deployment_id) == (True, "d-1")


def test_an_execution_that_was_taken_over_does_not_give_the_lock_back(world: World) -> None:
    data = world.plan() | {"failure": failure("LockLost"), "rollback_failure": failure("LockLost")}
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    answer = record(world, data)
    assert (answer["outcome"], answer["error"], answer["execution"]) == (
        "failed",
        "LockLost",
        "fail",
    )
    assert (world.lock.held, world.lock.execution_arn) == (True, execution_arn("recovery"))


def test_a_recovery_records_the_deployment_that_it_recovered(world: World) -> None:
    data = world.plan("d-1")
    fencing = world.store.take_over(world.lock, "d-1", execution_arn("undo"), START, "roll_back")
    data["deployment"]["fencing"] = fencing
    data |= {
        "recovery": {"deployment_id": "d-1", "reason": "rolled back by hand"},
        "rollback": RESTORED,
    }
    answer = record(world, data, "undo")
    assert (answer["outcome"], answer["execution"]) == ("rolled_back", "succeed")
    assert world.record("d-1").outcome == "rolled_back"
    assert world.store.read("undo") is None
    assert not world.lock.held


def test_22_what_the_execution_that_took_over_says_stands(world: World) -> None:
    """Undone by hand while it ran: its own end comes later, and may not overwrite that."""
    data = world.plan("d-1")
    asked = {"request": {"action": "rollback", "deployment_id": "d-1"}}
    undo = world.run("plan_roll_back", asked, "undo") | {"rollback": RESTORED}
    record(world, undo, "undo")
    lost = data | {"failure": failure("LockLost"), "rollback_failure": failure("LockLost")}
    answer = record(world, lost)
    assert (answer["outcome"], answer["error"]) == ("rolled_back", "LockLost")
    assert answer["ours"] is False, "or its hooks would be told another end than it had"
    assert (world.record().outcome, world.record().reason) == (
        "rolled_back",
        "rolled back by hand; all as before",
    )


def test_what_was_undone_leaves_the_deployment_before_as_the_last_one(world: World) -> None:
    """It can be undone in its turn."""
    first = world.plan("d-1")
    record(world, first | {"drain": {"status": "done", "reason": "ended"}})
    assert world.lock.changed_by == "d-1"
    second = world.plan("d-2", images={"web": "v1"})
    assert world.lock.changed_by == "d-2"
    failed = second | {"failure": failure("IdleColorUnhealthy"), "rollback": RESTORED}
    record(world, failed, "d-2")
    assert (world.lock.held, world.lock.changed_by) == (False, "d-1")


def test_what_left_its_traffic_is_the_last_one_itself(world: World) -> None:
    record(world, world.plan("d-1") | {"drain": {"status": "done", "reason": "ended"}})
    second = world.plan("d-2", images={"web": "v1"})
    left = {**RESTORED, "as_before": False}
    record(world, second | {"failure": failure("TrafficChanged"), "rollback": left}, "d-2")
    assert (world.lock.held, world.lock.changed_by) == (False, "d-2")


def warm(world: World) -> dict[str, Any]:
    """d-1 is live, its old colour kept warm; its execution waits."""
    data = world.baked("d-1")
    data["deployment"]["configuration"]["drain"]["keep_warm_seconds"] = 3600
    world.now += 60
    data["drain"] = world.run("drain_old_color", data)
    return data


def wakes_up(world: World, data: dict[str, Any]) -> dict[str, Any]:
    data["drain"] = world.run("drain_old_color", data)
    return record(world, data)


def test_22_a_deployment_rolled_back_while_warm_stays_rolled_back_when_it_wakes_up(
    world: World,
) -> None:
    data = warm(world)
    asked = {"request": {"action": "rollback", "deployment_id": "d-1"}}
    undo = world.run("plan_roll_back", asked, "undo") | {"rollback": RESTORED}
    record(world, undo, "undo")
    answer = wakes_up(world, data)
    assert world.record().outcome == "rolled_back"
    assert (answer["outcome"], answer["error"], answer["execution"]) == (
        "rolled_back",
        "RolledBack",
        "fail",
    )
    assert "the new colour is live" not in answer["cause"]


def test_22_a_deployment_that_wakes_up_in_the_middle_of_its_rollback_does_not_disturb_it(
    world: World,
) -> None:
    """The rollback by hand knows by the phase that it has to bring up all tasks."""
    data = warm(world)
    asked = {"request": {"action": "rollback", "deployment_id": "d-1"}}
    world.run("plan_roll_back", asked, "undo")
    wakes_up(world, data)
    assert world.record().phase == "rolling_back"
    assert world.record().outcome != "succeeded"


def test_a_lost_answer_is_recorded_once(world: World) -> None:
    data = world.plan() | {"drain": {"status": "done", "reason": "ended"}}
    world.fault("dynamodb", "UpdateItem", "lost_answer")
    assert record(world, data)["outcome"] == "succeeded"
    assert not world.lock.held


# What people are told, and what is measured


@pytest.fixture
def told(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ARG001 - it comes first
    """When it is called: what waits in the queue of announcements, but for the beginnings."""
    url = queue(monkeypatch)
    return lambda: [one for one in announced(url) if one.kind != "started"]


def say(one: Announcement) -> tuple[str, str, str]:
    return one.key, one.outcome, one.execution_arn.rpartition(":")[2]


def undo(world: World, deployment: str = "d-1", execution: str = "undo") -> None:
    asked = {"request": {"action": "rollback", "deployment_id": deployment}}
    data = world.run("plan_roll_back", asked, execution) | {"rollback": RESTORED}
    record(world, data, execution)


def test_a_success_is_told(world: World, told: Any) -> None:
    world.configure(notify={"slack": "shop"})
    record(world, world.plan() | {"drain": {"status": "done", "reason": "ended"}})
    [one] = told()
    assert say(one) == ("d-1/succeeded", "succeeded", "d-1")
    assert (one.slack, one.reason) == ("shop", "the new colour is live; ended")


def test_22_a_success_that_is_undone_is_told_as_that_too(world: World, told: Any) -> None:
    record(world, world.baked() | {"drain": {"status": "done", "reason": "ended"}})
    undo(world)
    assert [say(one) for one in told()] == [
        ("d-1/succeeded", "succeeded", "d-1"),
        ("d-1/rolled_back", "rolled_back", "undo"),
    ]


def test_22_an_execution_that_was_taken_over_tells_nothing(
    world: World, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = world.plan()
    world.run("plan_roll_back", {"request": {"action": "rollback", "deployment_id": "d-1"}}, "undo")
    capsys.readouterr()
    record(world, data | {"failure": failure("LockLost"), "rollback_failure": failure("LockLost")})
    assert told() == []
    assert measured(capsys) == []


def test_a_rollback_that_does_not_end_is_told_once_and_its_end_too(world: World, told: Any) -> None:
    data = world.plan() | {"failure": failure("SwitchNotProved")}
    stuck = data | {"rollback_failure": failure("RollBackIncomplete")}
    record(world, stuck)
    record(world, stuck)
    record(world, data | {"rollback": RESTORED})
    assert [one.key for one in told()] == ["d-1/failed/rollback_incomplete", "d-1/rolled_back"]


def test_24_a_refusal_before_there_is_a_plan_is_told_with_who_asked_for_what(
    world: World, told: Any
) -> None:
    world.configure(notify={"slack": "shop"})
    pushed = StartedBy(kind="push", detail="v2")
    world.store.open(
        "d-1", "web", execution_arn("d-1"), "then", START, started_by=pushed, images={"web": "v2"}
    )
    record(world, {"request": {"service": "web"}, "failure": failure("DeploymentRefused")})
    [one] = told()
    assert say(one) == ("d-1/failed/refused", "refused", "d-1")
    assert (one.images, one.started_by, one.slack) == ({"web": "v2"}, pushed, "shop")
    assert one.reason == "why"


@pytest.mark.parametrize("configuration", ["service: web", None])
def test_a_refusal_for_a_wrong_configuration_is_told_without_slack(
    world: World, told: Any, configuration: str | None
) -> None:
    if configuration:
        clients.ssm().put_parameter(
            Name=f"{PREFIX}/web", Value=configuration, Type="String", Overwrite=True
        )
    else:
        clients.ssm().delete_parameter(Name=f"{PREFIX}/web")
    world.store.open("d-1", "web", execution_arn("d-1"), "then", START)
    record(world, {"request": {"service": "web"}, "failure": failure("InvalidConfiguration")})
    [one] = told()
    assert (one.outcome, one.slack) == ("refused", None)


def test_nothing_to_do_and_what_a_release_holds_are_no_news(world: World, told: Any) -> None:
    world.store.open("d-0", "web", execution_arn("d-0"), "then", START)
    record(world, {"deployment": {"decision": "nothing_to_do"}}, "d-0")
    held = {"status": "done", "held": True, "reason": "held until the release has ended"}
    answer = record(world, world.plan() | {"drain": held})
    assert (answer["outcome"], answer["execution"]) == ("held", "succeed")
    assert world.lock.held, "the release says how it ends"
    assert told() == []


def test_24_a_queue_that_cannot_be_reached_fails_no_execution(world: World, told: Any) -> None:
    data = world.plan() | {"drain": {"status": "done", "reason": "ended"}}
    world.fault("sqs", "SendMessage", "timeout", times=99)
    answer = record(world, data)
    assert (answer["outcome"], answer["execution"]) == ("succeeded", "succeed")
    assert not world.lock.held
    assert told() == []


def test_who_let_it_go_on_is_told_with_its_end_and_kept(world: World, told: Any) -> None:
    data = world.baked()
    deployment = world.record().deployment
    assert deployment
    world.store.ask_approval(deployment, "token")
    world.store.note_approved("d-1", "token", "ann")
    world.store.promote("d-1", 0, "bob", None)
    record(world, data | {"drain": {"status": "done", "reason": "ended"}})
    [one] = [one for one in told() if one.kind == "succeeded"]
    assert one.details == ["approved by ann", "bob ended the watching of step 0"]
    [kept] = world.store.history("web", since=0, until=world.now + 1)
    assert (kept.approved_by, kept.promoted_by) == ("ann", [Promotion(step=0, by="bob")])


def test_a_parameter_store_that_is_down_costs_a_refusal_nothing_but_slack(
    world: World, told: Any
) -> None:
    world.store.open("d-1", "web", execution_arn("d-1"), "then", START)
    world.fault("ssm", "GetParameter", "timeout", times=9)
    answer = record(world, {"request": {"service": "web"}, "failure": failure("LockHeld")})
    assert answer["outcome"] == "refused"
    assert [one.key for one in told()] == ["d-1/failed/refused"]


def measured(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, dict[str, Any]]]:
    """Each value that CloudWatch would take from the log: its dimensions and values."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    found = []
    for line in lines:
        [said] = line["_aws"]["CloudWatchMetrics"]
        assert said["Namespace"] == "ecs-bluegreen"
        [names] = said["Dimensions"]
        values = {one["Name"]: line[one["Name"]] for one in said["Metrics"]}
        found.append((" ".join(f"{name}={line[name]}" for name in sorted(names)), values))
    return found


def test_an_end_is_counted_and_how_long_it_took(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    data = world.baked()
    world.now += 90
    record(world, data | {"drain": {"status": "done", "reason": "ended"}})
    assert measured(capsys) == [("service=web", {"Succeeded": [1.0], "DeploymentSeconds": [90.0]})]
    world.now += 10
    undo(world)
    assert measured(capsys) == [("service=web", {"RolledBack": [1.0]})], "it had ended before"


def test_the_time_that_the_old_colour_is_kept_warm_is_not_what_the_deployment_took(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    data = warm(world)
    world.now += 3600
    record(world, data | {"drain": {**data["drain"], "status": "done", "reason": "ended"}})
    assert measured(capsys) == [("service=web", {"Succeeded": [1.0], "DeploymentSeconds": [60.0]})]


def test_so_it_is_when_the_next_deployment_has_taken_the_warm_colour(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    data = warm(world)
    world.now += 1800
    world.store.acquire("web", "d-2", execution_arn("d-2"), world.now, world.store.lock("web"))
    wakes_up(world, data)
    [(_, values)] = measured(capsys)
    assert values == {"Succeeded": [1.0], "DeploymentSeconds": [60.0]}


def test_the_time_in_every_state_of_this_execution_is_measured(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime.fromtimestamp(START + 1, UTC)
    entered = {
        "id": 1,
        "type": "TaskStateEntered",
        "timestamp": at,
        "stateEnteredEventDetails": {"name": "CheckBake"},
    }
    monkeypatch.setattr(Execution, "get_execution_history", lambda *_: [entered])
    for name in ("d-1", "undo"):
        world.start_execution(name)
    data = world.baked()
    world.now += 11
    record(world, data | {"drain": {"status": "done", "reason": "ended"}})
    [_, state] = measured(capsys)
    assert state == ("service=web state=CheckBake", {"StateSeconds": [10.0]})
    undo(world)
    assert len(measured(capsys)) == 2, "those of the deployment itself are not measured again"
