"""PlanRollBack: who may undo which deployment, and when."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.deployment import parse
from bluegreen.errors import DeploymentRefused, InvalidRequest, LockHeld
from tests.functions.world import SETTLE, START, World, execution_arn


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


def test_a_running_deployment_is_refused_and_told_how_to_stop_it(world: World) -> None:
    world.start_execution("d-1")
    world.plan("d-1")
    with pytest.raises(LockHeld, match=r"still runs .*: stop that execution"):
        plan(world, "rollback")
    with pytest.raises(LockHeld, match="still runs"):
        plan(world, "recover")
    assert (world.lock.deployment_id, world.lock.fencing) == ("d-1", 1)


def test_a_deployment_beside_another_running_one_is_refused(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    world.start_execution("d-2")
    world.plan("d-2")
    with pytest.raises(DeploymentRefused, match="d-2 came after it"):
        plan(world, "rollback", "d-1")


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
    assert plan(world, "recover")["recovery"]["direction"] == "finish"
    world.start_execution("undo")
    world.stop_execution("undo")
    assert plan(world, "rollback", execution="again")["recovery"]["direction"] == "roll_back"


def test_23_a_deployment_lost_before_it_had_a_plan_has_nothing_to_undo(world: World) -> None:
    world.start_execution("d-1")
    world.store.open("d-1", "web", execution_arn("d-1"), START)
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
    world.store.open("d-1", "web", execution_arn("d-1"), START)
    with pytest.raises(DeploymentRefused, match="never began"):
        plan(world, "rollback")
