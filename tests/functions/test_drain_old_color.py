"""DrainOldColor: the old colour ends in peace, and the traffic is never touched."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.deployment import parse
from bluegreen.errors import (
    AwsUnavailable,
    DeploymentRefused,
    DrainFailed,
    LockHeld,
    LockLost,
    TrafficChanged,
)
from tests.functions.announced import announced, queue
from tests.functions.world import BLUE, GREEN, START, World, execution_arn


@pytest.fixture
def data(world: World) -> dict[str, Any]:
    for color in (BLUE, GREEN):
        world.scalable(color, suspended=color is GREEN)
    return world.baked()


def drain(world: World, data: dict[str, Any]) -> dict[str, Any]:
    """One pass; its answer is what the next one sees."""
    data["drain"] = world.run("drain_old_color", data)
    answer: dict[str, Any] = data["drain"]
    return answer


def keep_warm(data: dict[str, Any], seconds: int) -> None:
    data["deployment"]["configuration"]["drain"]["keep_warm_seconds"] = seconds


def test_06_wait_then_deregister_then_stop(world: World, data: dict[str, Any]) -> None:
    task = world.add_task(BLUE)
    assert drain(world, data)["reason"] == "requests in flight may take another 50 s"
    assert world.health[BLUE] == ["healthy", "healthy"]
    world.now += 50
    assert drain(world, data)["reason"] == "2 targets to deregister"
    assert world.health[BLUE] == ["draining", "draining"]
    assert world.service(BLUE)["desiredCount"] == 2
    assert drain(world, data)["reason"] == "2 targets are draining"
    assert world.service(BLUE)["desiredCount"] == 2
    world.health[BLUE] = []
    assert drain(world, data)["status"] == "waiting"
    assert world.service(BLUE)["desiredCount"] == 0
    task.last_status, task.desired_status = "STOPPING", "STOPPED"
    assert drain(world, data)["reason"] == "1 tasks of the old colour are stopping"
    task.last_status = "STOPPED"
    assert drain(world, data)["status"] == "done"
    assert world.weights() == {BLUE: 0, GREEN: 100}
    assert world.service(GREEN)["desiredCount"] == 2


def test_15_the_old_colour_stays_while_the_new_one_has_no_healthy_target(
    world: World, data: dict[str, Any]
) -> None:
    world.health[GREEN] = ["unhealthy", "initial"]
    world.now += 50
    answer = drain(world, data)
    assert answer["status"] == "waiting"
    assert answer["reason"] == "the new colour has no healthy target: the old one stays"
    assert isinstance(answer["wait_seconds"], int)
    assert world.health[BLUE] == ["healthy", "healthy"]
    world.health[GREEN] = ["healthy", "initial"]
    assert drain(world, data)["reason"] == "2 targets to deregister"


def test_15_and_it_stays_for_good_when_the_new_one_does_not_come_back(
    world: World, data: dict[str, Any]
) -> None:
    world.health[GREEN] = []
    drain(world, data)
    world.now += 50 + 300 + 900
    with pytest.raises(DrainFailed, match="blue: the new colour has no healthy target"):
        drain(world, data)
    assert world.health[BLUE] == ["healthy", "healthy"]
    assert world.service(BLUE)["desiredCount"] == 2


def test_12_scaling_goes_with_the_role(world: World, data: dict[str, Any]) -> None:
    drain(world, data)
    assert world.suspended(BLUE)
    assert not world.suspended(GREEN)


def test_a_fault_in_the_middle_is_gone_through_again(world: World, data: dict[str, Any]) -> None:
    world.fault("application_autoscaling", "RegisterScalableTarget", "error500")
    with pytest.raises(AwsUnavailable):
        world.run("drain_old_color", data)
    drain(world, data)
    assert (world.suspended(BLUE), world.suspended(GREEN)) == (True, False)


def test_12_a_pending_change_of_scaling_passes(world: World, data: dict[str, Any]) -> None:
    """ConcurrentUpdateException: RegisterScalableTarget while another change is pending."""
    world.fault("application_autoscaling", "RegisterScalableTarget", "concurrent_update")
    with pytest.raises(AwsUnavailable):
        world.run("drain_old_color", data)


def test_an_old_colour_that_gets_traffic_again_is_left_alone(
    world: World, data: dict[str, Any]
) -> None:
    world.set_weights({BLUE: 10, GREEN: 90})
    world.now += 100
    with pytest.raises(TrafficChanged, match=r"blue traffic again \(weight 10\)"):
        drain(world, data)
    assert world.health[BLUE] == ["healthy", "healthy"]
    assert world.service(BLUE)["desiredCount"] == 2


def test_22_traffic_that_somebody_put_back_is_no_success_of_the_new_colour(
    world: World, data: dict[str, Any]
) -> None:
    """The outcome must not claim that the new colour is live when the old one has all traffic."""
    world.set_weights({BLUE: 100, GREEN: 0})
    with pytest.raises(TrafficChanged) as failed:
        drain(world, data)
    caught = {"Error": "TrafficChanged", "Cause": str(failed.value)}
    answer = world.run("record_outcome", {**data, "drain_failure": caught})
    assert (answer["outcome"], answer["error"]) == ("traffic_left", "TrafficChanged")
    assert answer["execution"] == "fail"
    assert "the new colour is live" not in answer["cause"]


def test_the_very_first_deployment_has_nothing_to_drain(world: World) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    answer = drain(world, world.plan())
    assert (answer["status"], answer["reason"]) == ("done", "there was no old colour")


def test_an_old_colour_that_is_kept_warm_stays_as_it_is(world: World, data: dict[str, Any]) -> None:
    keep_warm(data, 3600)
    world.now += 50
    answer = drain(world, data)
    assert (answer["status"], answer["wait_seconds"]) == ("waiting", 3600)
    assert world.lock.warm
    assert world.health[BLUE] == ["healthy", "healthy"]
    world.now += 3600
    assert drain(world, data)["reason"] == "2 targets to deregister"
    assert not world.lock.warm


def test_a_success_is_told_when_the_old_colour_is_warm_and_not_once_it_has_ended(
    world: World, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = queue(monkeypatch)
    keep_warm(data, 604_800)
    drain(world, data)
    assert announced(url) == [], "its requests are not over yet"
    world.now += 50
    drain(world, data)
    [one] = announced(url)
    assert (one.key, one.outcome, one.at) == ("d-1/succeeded", "succeeded", world.now)
    assert one.reason.startswith("the new colour is live; the old one is kept warm until 2027-01-2")
    world.now += 604_800
    drain(world, data)
    drained = data | {"drain": {**data["drain"], "status": "done", "reason": "ended"}}
    world.run("record_outcome", drained)
    assert {one.key for one in announced(url)} == {"d-1/succeeded"}, "of which people hear once"


def test_06_a_colour_is_not_left_to_the_next_deployment_before_it_is_quiet(
    world: World, data: dict[str, Any]
) -> None:
    """The next deployment ends what runs on its idle colour at once. Until requests in flight
    and the load balancer's lag are over, that would cut users off.
    """
    keep_warm(data, 3600)
    drain(world, data)
    world.now += 1
    with pytest.raises(LockHeld):
        world.store.acquire("web", "d-2", execution_arn("d-2"), world.now, world.store.lock("web"))


def test_a_warm_colour_that_the_next_deployment_took_is_no_longer_ours(
    world: World, data: dict[str, Any]
) -> None:
    keep_warm(data, 3600)
    world.now += 50
    drain(world, data)
    world.plan("d-2", images={"web": "v1"})
    world.now += 3600
    assert drain(world, data)["reason"] == "the next deployment has taken the old colour over"
    assert world.service(BLUE)["desiredCount"] == 2
    assert world.lock.deployment_id == "d-2"


def test_23_it_is_so_too_when_the_answer_that_it_is_kept_warm_was_lost(
    world: World, data: dict[str, Any]
) -> None:
    """The same pass again, and the next deployment was quicker: this one was baked all the same."""
    keep_warm(data, 3600)
    world.now += 50
    before = dict(data)
    assert drain(world, data)["reason"] == "the old colour is kept warm"
    world.plan("d-2", images={"web": "v1"})
    assert drain(world, before)["reason"] == "the next deployment has taken the old colour over"
    ended = world.run("record_outcome", before)
    assert (ended["outcome"], world.record("d-1").outcome) == ("succeeded", "succeeded")
    assert (world.lock.deployment_id, world.lock.held) == ("d-2", True)


def test_what_was_not_baked_is_no_success_whoever_has_the_lock(
    world: World, data: dict[str, Any]
) -> None:
    world.store.enter(parse(data), "baking")
    world.store.keep_warm(parse(data), START + 3600)
    world.plan("d-2", images={"web": "v1"})
    with pytest.raises(LockLost):
        drain(world, data)


@pytest.mark.parametrize("next_", ["refused", "nothing_to_do"])
def test_a_next_deployment_that_changed_nothing_does_not_leave_the_warm_colour_running(
    world: World, data: dict[str, Any], next_: str
) -> None:
    """It takes the warm lock over, finds nothing to do, and gives the lock back: somebody still
    has to end the old colour.
    """
    keep_warm(data, 3600)
    world.now += 50
    drain(world, data)
    if next_ == "refused":
        world.scale(GREEN, 9)
        with pytest.raises(DeploymentRefused):
            world.plan("d-2", images={"web": "v1"})
        second = {"request": {"service": "web"}, "rollback": {"status": "nothing_to_restore"}}
        second |= {"failure": {"Error": "DeploymentRefused", "Cause": "it does not fit"}}
    else:
        second = world.plan("d-2")
        assert second["deployment"]["decision"] == "nothing_to_do"
    world.run("record_outcome", second, "d-2")
    world.now += 3600
    for _ in range(5):
        if drain(world, data)["status"] == "done":
            break
        if "draining" in world.health[BLUE]:
            world.health[BLUE] = []
    assert world.service(BLUE)["desiredCount"] == 0, data["drain"]["reason"]


def test_a_drain_that_lost_its_lock_touches_nothing(world: World, data: dict[str, Any]) -> None:
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    world.now += 100
    with pytest.raises(LockLost):
        drain(world, data)
    assert world.health[BLUE] == ["healthy", "healthy"]


def test_23_a_drain_that_recovery_takes_up_waits_from_then_on(
    world: World, data: dict[str, Any]
) -> None:
    """Nobody knows any more when the switch was proved."""
    del data["shift"]
    world.now += 1000
    assert drain(world, data)["reason"] == "requests in flight may take another 50 s"
    world.now += 50
    assert drain(world, data)["reason"] == "2 targets to deregister"


# Of a release


@pytest.fixture
def release(world: World) -> str:
    """One that runs."""
    return world.start_execution("spring")


def test_the_old_colour_stays_until_the_release_has_ended(world: World, release: str) -> None:
    answer = drain(world, world.baked(release=release))
    assert (answer["status"], answer["held"]) == ("done", True)
    assert world.lock.held_for == release
    assert world.lock.held
    assert world.health[BLUE] == ["healthy", "healthy"]
    assert world.service(BLUE)["desiredCount"] == 2
    with pytest.raises(LockHeld):
        world.plan("d-2", images={"web": "v1"})


def test_the_very_first_deployment_of_a_service_is_held_too(world: World, release: str) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    assert drain(world, world.plan(release=release))["held"] is True


def test_once_the_release_says_so_it_goes_like_any_other(world: World, release: str) -> None:
    data = world.baked(release=release)
    drain(world, data)
    world.store.decide_release(release, "finish", world.now)
    request = {"action": "finish", "deployment_id": "d-1"}
    after = world.run("plan_roll_back", {"request": request}, "finish-d-1")
    world.now += 100
    after["drain"] = world.run("drain_old_color", after, "finish-d-1")
    world.now += 100
    answer = world.run("drain_old_color", after, "finish-d-1")
    assert answer["reason"] == "2 targets to deregister"
    assert world.lock.held_for is None


def test_a_part_of_a_release_that_lost_its_lock_holds_nothing(world: World, release: str) -> None:
    data = world.baked(release=release)
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        drain(world, data)
    assert world.lock.held_for is None
