"""CheckBake: the switch is proved, then the new colour is watched under traffic."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.errors import IdleColorUnhealthy, SwitchNotProved, TrafficChanged
from tests.functions.site import Site
from tests.functions.world import BLUE, GREEN, START, World


@pytest.fixture
def data(world: World, site: Site) -> dict[str, Any]:
    shifted = world.shifted()
    site.serve(shifted)
    return shifted


def bake(world: World, data: dict[str, Any]) -> dict[str, Any]:
    """One look; its answer is the shift that the next one sees."""
    data["shift"] = world.run("check_bake", data)
    answer: dict[str, Any] = data["shift"]
    return answer


def test_a_switch_that_shows_is_proved_and_then_baked(world: World, data: dict[str, Any]) -> None:
    world.now += 3
    answer = bake(world, data)
    assert (answer["status"], answer["proved_at"], answer["wait_seconds"]) == (
        "waiting",
        START + 3,
        5,
    )
    assert answer["reason"] == "baking for another 60 s"
    world.now += 57.5
    assert bake(world, data)["wait_seconds"] == 3
    assert world.record().phase == "baking"
    world.now += 2.5
    assert bake(world, data)["status"] == "baked"
    assert world.record().phase == "committed"


def test_01_the_api_says_switched_but_the_load_balancer_does_not_follow_yet(
    world: World, data: dict[str, Any], site: Site
) -> None:
    site.colors = ["green"] * 9 + ["blue"]
    world.now += 59
    answer = bake(world, data)
    assert (answer["status"], answer["proved_at"]) == ("waiting", None)
    assert answer["reason"] == "the switch does not show yet"
    assert world.record().phase == "deploying"
    site.colors = ["green"]
    assert bake(world, data)["proved_at"] == world.now
    assert world.record().phase == "baking", "a rollback knows that the switch was seen"


def test_01_a_load_balancer_that_never_follows_ends_the_deployment(
    world: World, data: dict[str, Any], site: Site
) -> None:
    site.colors = ["blue"]
    world.now += 60
    with pytest.raises(SwitchNotProved, match=r"60 s later .* X-Color is 'blue', not 'green'"):
        bake(world, data)


def test_01_without_a_probe_the_margin_is_waited(world: World, data: dict[str, Any]) -> None:
    data["deployment"]["configuration"]["probe"] = None
    world.now += 19
    assert bake(world, data)["proved_at"] is None
    world.now += 1
    assert bake(world, data)["proved_at"] == world.now


def test_the_bake_counts_from_the_proof(world: World, data: dict[str, Any], site: Site) -> None:
    site.colors = ["blue"]
    world.now += 50
    bake(world, data)
    site.colors = ["green"]
    bake(world, data)
    world.now += 59
    assert bake(world, data)["status"] == "waiting"


def test_05_weights_put_back_while_baking_stop_the_deployment(
    world: World, data: dict[str, Any]
) -> None:
    bake(world, data)
    world.set_weights({BLUE: 100, GREEN: 0})
    with pytest.raises(TrafficChanged) as changed:
        bake(world, data)
    assert str(changed.value) == (
        "the traffic was changed by somebody else: found blue 100, green 0 on the listener, "
        "expected blue 0, green 100; it is left as it is"
    )
    assert world.weights() == {BLUE: 100, GREEN: 0}


def test_no_healthy_target_under_traffic_ends_it_at_once(
    world: World, data: dict[str, Any]
) -> None:
    world.health[GREEN] = ["unhealthy", "draining"]
    with pytest.raises(IdleColorUnhealthy, match="no healthy target is left under traffic"):
        bake(world, data)


def test_a_crash_loop_under_traffic_ends_it(world: World, data: dict[str, Any]) -> None:
    for _ in range(3):
        world.add_dead_task(GREEN, data["idle"]["ecs_deployment_id"], 1)
    with pytest.raises(IdleColorUnhealthy, match="green, under traffic: 3 tasks died"):
        bake(world, data)


def test_a_task_that_is_replaced_is_waited_for_past_the_bake(
    world: World, data: dict[str, Any]
) -> None:
    bake(world, data)
    world.now += 61
    world.health[GREEN] = ["healthy", "initial"]
    answer = bake(world, data)
    assert answer["status"] == "waiting"
    assert answer["reason"].startswith("1 of 2 targets healthy")
    world.health[GREEN] = ["healthy", "healthy"]
    assert bake(world, data)["status"] == "baked"


def test_an_ill_target_is_not_waited_for_for_ever(world: World, data: dict[str, Any]) -> None:
    bake(world, data)
    world.health[GREEN] = ["healthy", "unhealthy"]
    world.now += 660
    assert bake(world, data)["status"] == "waiting", "it has the whole time, however late"
    world.now += 599
    assert bake(world, data)["status"] == "waiting"
    world.now += 1
    with pytest.raises(IdleColorUnhealthy, match="not healthy at the deadline"):
        bake(world, data)


def test_an_ill_target_behind_a_load_balancer_has_the_rest_of_a_long_step_too(
    world: World, data: dict[str, Any]
) -> None:
    """It gets no requests. Looks are minutes apart there: the next one may see another task that
    has just been started, and must not take both for one that never answers.
    """
    data["deployment"]["configuration"]["bake"]["seconds"] = 3600
    bake(world, data)
    world.health[GREEN] = ["healthy", "initial"]
    bake(world, data)
    world.now += 700
    assert bake(world, data)["status"] == "waiting"
