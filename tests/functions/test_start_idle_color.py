"""StartIdleColor: leftovers end first, then as many tasks start as the live colour runs."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.errors import AwsUnavailable, IdleColorUnhealthy, TrafficChanged
from runtime import clients
from tests.functions.world import BLUE, GREEN, World


def registered(world: World, **request: Any) -> dict[str, Any]:
    data = world.plan(**request)
    return data | {"task_definition": world.run("register_task_definition", data)}


def start(world: World, data: dict[str, Any]) -> dict[str, Any]:
    return world.run("start_idle_color", data)


def test_the_idle_colour_gets_the_new_revision(world: World) -> None:
    data = registered(world)
    answer = start(world, data)
    green = world.service(GREEN)
    assert green["taskDefinition"] == data["task_definition"]["arn"]
    assert (answer["status"], answer["desired_count"], green["desiredCount"]) == ("started", 2, 2)
    assert answer["ecs_deployment_id"] == green["deployments"][0]["id"]
    assert answer["started_at"] == world.now


def test_the_live_colour_is_not_touched(world: World) -> None:
    before = world.service(BLUE)
    start(world, registered(world))
    after = world.service(BLUE)
    for key in ("taskDefinition", "desiredCount"):
        assert after[key] == before[key]
    assert world.weights() == {BLUE: 100, GREEN: 0}


def test_12_as_many_tasks_as_the_live_colour_runs_now(world: World) -> None:
    data = registered(world)
    world.scale(BLUE, 3)
    assert start(world, data)["desired_count"] == 3


def test_the_very_first_deployment_starts_the_configured_count(world: World) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    world.configure(health={"initial_count": 1})
    assert start(world, registered(world))["desired_count"] == 1
    assert world.service(BLUE)["desiredCount"] == 1


def test_12_scaling_of_the_idle_colour_is_suspended_and_that_of_the_live_one_is_not(
    world: World,
) -> None:
    for color in (BLUE, GREEN):
        world.scalable(color, suspended=False)
    start(world, registered(world))
    assert world.suspended(GREEN)
    assert not world.suspended(BLUE)


def test_a_service_that_does_not_scale_gets_no_scalable_target(world: World) -> None:
    start(world, registered(world))
    targets = clients.application_autoscaling().describe_scalable_targets(ServiceNamespace="ecs")
    assert targets["ScalableTargets"] == []


def test_13_what_an_earlier_run_left_on_the_idle_colour_ends_first(world: World) -> None:
    world.scale(GREEN, 1)
    data = registered(world)
    leftover = world.add_task(GREEN)
    world.now += 20
    answer = start(world, data)
    assert answer["reason"] == "tasks left from an earlier run are being stopped"
    assert world.service(GREEN)["desiredCount"] == 0
    leftover.last_status, leftover.desired_status = "STOPPING", "STOPPED"
    answer = start(world, data)
    assert (answer["status"], answer["reason"]) == (
        "waiting",
        "1 tasks left from an earlier run are stopping",
    )
    assert world.service(GREEN)["taskDefinition"] != data["task_definition"]["arn"]
    leftover.last_status = "STOPPED"
    assert start(world, data)["status"] == "started"


def test_13_leftovers_are_not_stopped_while_a_request_may_still_be_on_its_way(
    world: World,
) -> None:
    """Traffic may have left them just before the plan, and the load balancer follows later."""
    world.scale(GREEN, 1)
    data = registered(world)
    world.now += 19.9
    answer = start(world, data)
    assert answer["status"] == "waiting"
    assert answer["reason"] == "tasks left from an earlier run may still get requests"
    assert isinstance(answer["wait_seconds"], int)
    assert world.service(GREEN)["desiredCount"] == 1
    world.now += 0.1
    start(world, data)
    assert world.service(GREEN)["desiredCount"] == 0


def test_12_a_live_colour_that_has_outgrown_the_idle_one_is_followed(world: World) -> None:
    data = registered(world)
    data["idle"] = start(world, data)
    world.scale(BLUE, 5)
    world.now += 60
    again = start(world, data)
    assert again == data["idle"] | {"desired_count": 5}, "its deadline counts from the first start"
    assert world.service(GREEN)["desiredCount"] == 5
    world.scale(BLUE, 1)
    assert start(world, data)["desired_count"] == 5, "never fewer"


def test_13_leftovers_that_do_not_stop_are_given_up_at_the_deadline(world: World) -> None:
    data = registered(world)
    world.add_task(GREEN)
    data["idle"] = start(world, data)
    world.now += 601
    with pytest.raises(IdleColorUnhealthy, match=r"1 tasks left on green .* do not stop"):
        start(world, data)


def test_13_leftovers_have_their_time_however_long_hooks_and_a_migration_took(
    world: World,
) -> None:
    world.scale(GREEN, 1)
    data = registered(world)
    leftover = world.add_task(GREEN)
    world.now += 3600
    data["idle"] = start(world, data)
    assert data["idle"]["reason"] == "tasks left from an earlier run are being stopped"
    leftover.last_status, leftover.desired_status = "DEACTIVATING", "STOPPED"
    world.now += 600
    data["idle"] = start(world, data)
    assert data["idle"]["reason"] == "1 tasks left from an earlier run are stopping"
    world.now += 1
    with pytest.raises(IdleColorUnhealthy, match="do not stop"):
        start(world, data)


def test_called_again_it_finds_what_it_has_started(world: World) -> None:
    data = registered(world)
    first = start(world, data)
    world.add_task(GREEN, started_by=first["ecs_deployment_id"])
    assert start(world, data) == first
    assert world.service(GREEN)["desiredCount"] == 2


def test_a_lost_answer_starts_it_once(world: World) -> None:
    data = registered(world)
    world.fault("ecs", "UpdateService", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        start(world, data)
    assert start(world, data)["desired_count"] == 2


def test_the_test_listener_is_pointed_at_the_idle_colour(world: World) -> None:
    clients.elbv2().modify_listener(
        ListenerArn=world.test_listener, DefaultActions=[world.forward({BLUE: 100, GREEN: 0})]
    )
    start(world, registered(world))
    assert world.weights(world.test_listener) == {BLUE: 0, GREEN: 100}


def test_05_a_test_listener_that_somebody_else_changed_is_not_overwritten(world: World) -> None:
    data = registered(world)
    actions: Any = [world.forward({BLUE: 50, GREEN: 50})]
    clients.elbv2().modify_listener(ListenerArn=world.test_listener, DefaultActions=actions)
    with pytest.raises(TrafficChanged):
        start(world, data)
    assert world.weights(world.test_listener) == {BLUE: 50, GREEN: 50}


def test_05_an_idle_colour_that_somebody_else_gave_the_traffic_is_not_stopped(
    world: World,
) -> None:
    """The plan saw it idle. Meanwhile a person moved the users to it: ending its tasks as
    leftovers would cut them off.
    """
    world.scale(GREEN, 2)
    data = registered(world)
    world.set_weights({BLUE: 0, GREEN: 100})
    with pytest.raises(TrafficChanged):
        start(world, data)
    assert world.service(GREEN)["desiredCount"] == 2
