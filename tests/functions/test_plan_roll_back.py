"""PlanRollBack: who may undo which deployment, and when."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.deployment import parse
from bluegreen.errors import DeploymentRefused, InvalidRequest, LockHeld, LockLost
from tests.functions.world import BLUE, GREEN, SETTLE, START, World, execution_arn


def plan(
    world: World, action: str, deployment_id: str = "d-1", execution: str = "undo"
) -> dict[str, Any]:
    request = {"action": action, "deployment_id": deployment_id}
    return world.run("plan_roll_back", {"request": request}, execution)


def end(world: World, name: str, outcome: str = "succeeded") -> None:
    fencing = world.lock.fencing
    world.store.close(name, outcome, "it ended", world.now, fencing)
    world.store.release("web", fencing)


def test_by_hand_the_last_deployment_is_undone_at_once(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    data = plan(world, "rollback")
    assert data["recovery"] == {
        "deployment_id": "d-1",
        "direction": "roll_back",
        "settle_seconds": 0,
        "reason": "rolled back by hand",
    }
    assert data["deployment"]["fencing"] == world.lock.fencing == 2
    assert (world.lock.held, world.lock.execution_arn) == (True, execution_arn("undo"))
    assert world.record().phase == "rolling_back"


def test_a_deployment_that_is_not_the_latest_is_refused_and_the_latest_is_named(
    world: World,
) -> None:
    world.plan("d-1")
    end(world, "d-1")
    world.plan("d-2")
    end(world, "d-2")
    with pytest.raises(DeploymentRefused, match="d-2 came after it; its snapshot is out of date"):
        plan(world, "rollback", "d-1")
    assert not world.lock.held


def test_by_hand_a_running_deployment_is_undone_once_what_it_still_runs_has_settled(
    world: World,
) -> None:
    world.start_execution("d-1")
    was = parse(world.plan("d-1"))
    data = plan(world, "rollback")
    assert data["recovery"]["settle_seconds"] == SETTLE
    assert data["recovery"]["direction"] == "roll_back"
    assert (world.lock.execution_arn, world.lock.purpose) == (execution_arn("undo"), "roll_back")
    assert (data["deployment"]["fencing"], world.record().phase) == (2, "rolling_back")
    with pytest.raises(LockLost):
        world.store.prove(was, START)
    with pytest.raises(LockLost):
        world.store.intend(was, {BLUE: 0, GREEN: 100})


def test_a_running_deployment_is_nothing_to_recover(world: World) -> None:
    world.start_execution("d-1")
    world.plan("d-1")
    with pytest.raises(LockHeld, match="d-1 still runs"):
        plan(world, "recover")
    assert (world.lock.deployment_id, world.lock.fencing) == ("d-1", 1)


def test_by_hand_also_while_it_drains_and_is_committed(world: World) -> None:
    world.start_execution("d-1")
    world.baked("d-1")
    data = plan(world, "rollback")
    assert (data["recovery"]["direction"], data["recovery"]["settle_seconds"]) == (
        "roll_back",
        SETTLE,
    )
    assert world.record().phase == "rolling_back"


def test_a_deployment_beside_another_running_one_is_refused(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    world.start_execution("d-2")
    world.plan("d-2")
    with pytest.raises(LockHeld, match=r"web is being changed by d-2 \(.*:d-2\)"):
        plan(world, "rollback", "d-1")
    assert (world.lock.deployment_id, world.lock.fencing) == ("d-2", 2)


def test_a_deployment_beside_a_warm_later_one_is_refused(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    world.store.keep_warm(parse(world.plan("d-2")), world.now + 3600)
    with pytest.raises(DeploymentRefused, match="d-2 came after it; its snapshot is out of date"):
        plan(world, "rollback", "d-1")
    assert (world.lock.deployment_id, world.lock.warm) == ("d-2", True)


def test_a_deployment_that_changed_nothing_is_refused_by_hand(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    world.store.open("d-2", "web", execution_arn("d-2"), "then", START)
    with pytest.raises(DeploymentRefused, match="d-2 changed nothing: there is nothing to undo"):
        plan(world, "rollback", "d-2")
    assert not world.lock.held


def test_the_very_first_deployment_is_not_undone_into_nothing(world: World) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    world.plan("d-1")
    end(world, "d-1")
    with pytest.raises(DeploymentRefused, match="nothing ran before deployment d-1"):
        plan(world, "rollback")
    assert not world.lock.held


def test_but_a_very_first_deployment_that_was_lost_is_recovered(world: World) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    world.start_execution("d-1")
    world.plan("d-1")
    world.stop_execution("d-1")
    assert plan(world, "recover")["recovery"]["direction"] == "roll_back"


@pytest.mark.parametrize("action", ["rollback", "recover"])
def test_23_a_stopped_deployment_is_taken_over_after_what_still_runs_has_settled(
    world: World, action: str
) -> None:
    world.start_execution("d-1")
    world.plan("d-1")
    world.stop_execution("d-1")
    data = plan(world, action)
    assert (data["recovery"]["settle_seconds"], data["recovery"]["direction"]) == (
        SETTLE,
        "roll_back",
    )
    assert world.lock.execution_arn == execution_arn("undo")
    assert data["deployment"]["fencing"] == 2


def test_23_a_deployment_that_was_live_and_baked_is_finished(world: World) -> None:
    world.start_execution("d-1")
    world.baked("d-1")
    world.stop_execution("d-1")
    data = plan(world, "recover")
    assert (data["recovery"]["direction"], data["recovery"]["settle_seconds"]) == ("finish", SETTLE)
    assert "drain" not in data, "it has not begun, for all that is known"
    assert (world.record().phase, world.lock.purpose) == ("committed", "deploy")
    world.start_execution("undo")
    world.stop_execution("undo")
    again = plan(world, "recover", execution="again")
    assert again["recovery"]["direction"] == "finish", "however often its recovery is lost"
    by_hand = plan(world, "rollback", execution="by hand")
    assert by_hand["recovery"]["direction"] == "roll_back"
    assert (world.record().phase, world.lock.purpose) == ("rolling_back", "roll_back")


@pytest.mark.parametrize("phase", ["deploying", "baking"])
def test_23_a_deployment_that_was_not_baked_is_undone(world: World, phase: Any) -> None:
    world.start_execution("d-1")
    data = world.shifted("d-1")
    world.store.enter(parse(data), phase)
    world.stop_execution("d-1")
    assert plan(world, "recover")["recovery"]["direction"] == "roll_back"
    assert world.record().phase == "rolling_back"


def test_23_a_success_whose_lock_was_not_given_back_is_finished(world: World) -> None:
    """Lost between close and release: the new colour is live, and nobody asked to go back."""
    world.start_execution("d-1")
    world.baked("d-1")
    world.store.close("d-1", "succeeded", "live", world.now, 1)
    world.stop_execution("d-1")
    assert plan(world, "recover")["recovery"]["direction"] == "finish"
    assert world.record().outcome == "succeeded"


def test_23_a_rollback_that_was_lost_as_it_took_the_lock_is_not_finished(world: World) -> None:
    """The lock says what it was taken for, so that the phase may come later."""
    world.baked("d-1")
    world.start_execution("undo")
    world.store.take_over(world.lock, "d-1", execution_arn("undo"), world.now, "roll_back")
    world.stop_execution("undo")
    assert world.record().phase == "committed"
    assert plan(world, "recover", execution="again")["recovery"]["direction"] == "roll_back"


def test_23_a_warm_deployment_that_was_stopped_is_finished_without_the_rest_of_its_time(
    world: World,
) -> None:
    world.start_execution("d-1")
    world.store.keep_warm(parse(world.baked("d-1")), world.now + 3600)
    world.stop_execution("d-1")
    world.now += 100
    data = plan(world, "recover")
    assert (data["recovery"]["direction"], data["recovery"]["settle_seconds"]) == ("finish", 0)
    assert data["drain"] == {"since": world.now, "warm_until": world.now}


def test_23_a_deployment_lost_before_it_had_a_plan_has_nothing_to_undo(world: World) -> None:
    world.start_execution("d-1")
    world.store.open("d-1", "web", execution_arn("d-1"), "then", START)
    world.store.acquire("web", "d-1", execution_arn("d-1"), START, world.store.lock("web"))
    world.stop_execution("d-1")
    data = plan(world, "recover")
    assert "deployment" not in data
    assert data["recovery"]["direction"] == "roll_back"


def test_a_recovery_that_comes_too_late_is_refused(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    with pytest.raises(DeploymentRefused, match="has ended: there is nothing to recover"):
        plan(world, "recover")
    assert not world.lock.held


def test_a_recovery_of_an_earlier_deployment_than_the_warm_one_is_refused(world: World) -> None:
    """Its snapshot is two deployments old: going back to it would bring a version back that
    nobody asked for.
    """
    world.plan("d-1")
    end(world, "d-1")
    warm = world.plan("d-2")
    world.store.keep_warm(parse(warm), world.now + 3600)
    with pytest.raises(DeploymentRefused):
        plan(world, "recover", "d-1")
    assert world.lock.deployment_id == "d-2"


def test_a_warm_deployment_is_undone_at_once(world: World) -> None:
    world.store.keep_warm(parse(world.plan("d-1")), world.now + 3600)
    data = plan(world, "rollback")
    assert data["recovery"]["settle_seconds"] == 0
    assert not world.lock.warm


def test_a_retry_of_the_same_execution_takes_over_once_more(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    plan(world, "rollback")
    data = plan(world, "rollback")
    assert data["deployment"]["fencing"] == world.lock.fencing
    assert world.lock.execution_arn == execution_arn("undo")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"action": "rollback", "deployment_id": "none"}, "there is no deployment 'none'"),
        ({"action": "rollback"}, "deployment_id: is missing"),
        ({"action": "rollback", "deployment_id": ""}, "deployment_id: String should have at least"),
        ({"action": "rollback", "deployment_id": "d-1", "x": 1}, "x: is not a known key"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    world: World, request_: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        world.run("plan_roll_back", {"request": request_}, "undo")


def test_a_deployment_that_never_got_the_lock_never_began(world: World) -> None:
    world.store.open("d-1", "web", execution_arn("d-1"), "then", START)
    with pytest.raises(DeploymentRefused, match="never began"):
        plan(world, "rollback")
