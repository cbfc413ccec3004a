"""RecordOutcome: the end is written down, and the lock given back unless the world is not in
order.
"""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.errors import DeploymentRefused
from tests.functions.world import START, World, execution_arn

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
