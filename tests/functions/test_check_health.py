"""CheckHealth: the facts of a colour as ECS and the load balancer tell them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from bluegreen.errors import AwsUnavailable, IdleColorUnhealthy
from tests.functions.site import Site
from tests.functions.world import BLUE, GREEN, World


def check(world: World, data: dict[str, Any]) -> dict[str, Any]:
    return world.run("check_health", data)


@pytest.fixture
def data(world: World, site: Site) -> dict[str, Any]:
    started = world.started()
    site.serve_test_listener(started)
    return started


def service_event(world: World, message: str, at: float) -> None:
    world.backend.services["web:web-green"].events.append(
        {
            "id": "1",
            "createdAt": datetime.datetime.fromtimestamp(at, datetime.UTC),
            "message": message,
        }
    )


def test_a_colour_that_is_ready(world: World, data: dict[str, Any], site: Site) -> None:
    assert check(world, data) == {
        "status": "healthy",
        "reason": "2 of 2 tasks and targets healthy",
        "wait_seconds": 5,
    }
    assert len(site.asked) == 10


def test_02_an_empty_target_group_is_not_ready(world: World, data: dict[str, Any]) -> None:
    world.health[GREEN] = []
    assert check(world, data)["reason"] == "0 of 2 targets healthy"


def test_03_the_probe_is_not_asked_before_the_targets_are_healthy(
    world: World, data: dict[str, Any], site: Site
) -> None:
    """Without a healthy target the load balancer sends to all of them, and a probe would pass."""
    world.health[GREEN] = ["healthy", "unhealthy"]
    answer = check(world, data)
    assert answer["status"] == "waiting"
    assert "is unhealthy: Target.FailedHealthChecks" in answer["reason"]
    assert site.asked == []


@pytest.mark.parametrize("wrong", ["blue", ""])
def test_a_probe_that_finds_another_colour_keeps_it_waiting(
    world: World, data: dict[str, Any], site: Site, wrong: str
) -> None:
    site.colors = ["green", "green", wrong, "green"]
    answer = check(world, data)
    assert answer["status"] == "waiting"
    assert f"X-Color is {wrong!r}, not 'green'" in answer["reason"]
    assert len(site.asked) == 3, "asks on after a wrong answer"


def test_a_probe_that_gets_an_error_keeps_it_waiting(
    world: World, data: dict[str, Any], site: Site
) -> None:
    site.status = 503
    assert "status 503" in check(world, data)["reason"]


def test_a_probe_that_nobody_answers_keeps_it_waiting(world: World, data: dict[str, Any]) -> None:
    data["deployment"]["configuration"]["router"]["test_port"] = 1
    assert "the probe fails: GET http://127.0.0.1:1/" in check(world, data)["reason"]


def test_without_a_test_listener_health_has_to_be_enough(
    world: World, data: dict[str, Any], site: Site
) -> None:
    data["deployment"]["configuration"]["router"]["test_port"] = None
    assert check(world, data)["status"] == "healthy"
    assert site.asked == []


def test_07_tasks_of_another_ecs_deployment_do_not_count(
    world: World, data: dict[str, Any]
) -> None:
    data["idle"]["ecs_deployment_id"] = world.service(GREEN)["deployments"][0]["id"]
    for task in world.backend.tasks["web"].values():
        task.started_by = "ecs-svc/of-somebody-else"
    assert check(world, data)["reason"] == "0 of 2 tasks running"


def test_07_a_service_that_somebody_else_updated_is_given_up(
    world: World, data: dict[str, Any]
) -> None:
    [deployment] = world.backend.services["web:web-green"].deployments
    made = datetime.datetime.fromtimestamp(world.now + 1, datetime.UTC)
    deployment |= {"id": "ecs-svc/new", "createdAt": made, "taskDefinition": "web:77"}
    with pytest.raises(IdleColorUnhealthy, match=r"updated the service meanwhile: .* web:77"):
        check(world, data)


def test_07_an_ecs_that_still_shows_the_deployment_before_is_waited_for(
    world: World, data: dict[str, Any]
) -> None:
    [deployment] = world.backend.services["web:web-green"].deployments
    made = datetime.datetime.fromtimestamp(world.now - 3600, datetime.UTC)
    deployment |= {"id": "ecs-svc/old", "createdAt": made}
    assert check(world, data)["reason"] == "ECS does not list the deployment yet"


def test_08_slow_is_waited_for_until_the_deadline_of_the_configuration(
    world: World, data: dict[str, Any]
) -> None:
    world.health[GREEN] = ["initial", "initial"]
    world.now += 599
    assert check(world, data)["status"] == "waiting"
    world.now += 1
    with pytest.raises(IdleColorUnhealthy, match="green: not healthy at the deadline: 0 of 2"):
        check(world, data)


def test_09_a_hopeless_event_of_before_does_not_count(world: World, data: dict[str, Any]) -> None:
    service_event(world, "unable to assume the role", world.now - 1)
    assert check(world, data)["status"] == "healthy"
    service_event(world, "unable to assume the role", world.now + 1)
    with pytest.raises(IdleColorUnhealthy, match="unable to assume the role"):
        check(world, data)


def test_24_a_crash_loop_is_given_up_with_exit_code_and_last_log_lines(
    world: World, data: dict[str, Any]
) -> None:
    for exit_code in (1, 1, 137):
        world.add_dead_task(GREEN, data["idle"]["ecs_deployment_id"], exit_code)
    with pytest.raises(IdleColorUnhealthy) as unhealthy:
        check(world, data)
    reason = str(unhealthy.value)
    assert "3 tasks died" in reason
    assert "Essential container in task exited" in reason
    assert "exit code 137" in reason
    assert "starting\n    no database" in reason


@pytest.mark.parametrize(
    ("code", "reason", "counts"),
    [
        ("ServiceSchedulerInitiated", "Scaling activity initiated by (deployment e)", False),
        ("SpotInterruption", "Your Spot Task was interrupted.", False),
        ("ServiceSchedulerInitiated", "Task failed container health checks", True),
        ("ServiceSchedulerInitiated", "Task failed ELB health checks in (target-group t)", True),
        ("EssentialContainerExited", "Essential container in task exited", True),
    ],
)
def test_24_tasks_that_ecs_took_off_a_host_did_not_die(
    world: World, data: dict[str, Any], code: str, reason: str, counts: bool
) -> None:
    """Hosts are drained, and Spot takes them back, while a good release bakes."""
    for _ in range(3):
        task = world.add_dead_task(GREEN, data["idle"]["ecs_deployment_id"], 143)
        task.stop_code, task.stopped_reason = code, reason
    if counts:
        with pytest.raises(IdleColorUnhealthy, match="3 tasks died"):
            check(world, data)
    else:
        assert check(world, data)["status"] == "healthy"


def test_24_the_deaths_of_an_earlier_release_are_not_this_ones(
    world: World, data: dict[str, Any]
) -> None:
    for _ in range(3):
        world.add_dead_task(GREEN, "ecs-svc/earlier", 1)
    assert check(world, data)["status"] == "healthy"


def test_24_a_log_that_may_not_be_read_does_not_hide_the_reason(
    world: World, data: dict[str, Any]
) -> None:
    for _ in range(3):
        world.add_dead_task(GREEN, data["idle"]["ecs_deployment_id"], 1)
    world.fault("logs", "GetLogEvents", "denied", times=9)
    with pytest.raises(IdleColorUnhealthy) as unhealthy:
        check(world, data)
    assert "exit code 1" in str(unhealthy.value)
    assert "log group /ecs/web cannot be read" in str(unhealthy.value)


def test_24_a_task_that_never_wrote_a_log_is_told_too(world: World, data: dict[str, Any]) -> None:
    for _ in range(3):
        world.add_dead_task(GREEN, data["idle"]["ecs_deployment_id"], 1).id = "other"
    with pytest.raises(IdleColorUnhealthy, match="exit code 1"):
        check(world, data)


def test_21_a_health_that_cannot_be_read_is_not_healthy(world: World, data: dict[str, Any]) -> None:
    world.fault("elbv2", "DescribeTargetHealth", "throttle")
    with pytest.raises(AwsUnavailable):
        check(world, data)


def test_the_lease_is_renewed_by_every_look(world: World, data: dict[str, Any]) -> None:
    world.now += 500
    check(world, data)
    assert world.lock.lease_expires_at == world.now + 600


def test_12_a_live_colour_that_scaled_out_meanwhile_is_matched_before_it_loses_its_traffic(
    world: World, data: dict[str, Any]
) -> None:
    """Green was started with as many tasks as blue ran then. While green became healthy, blue's
    autoscaling went on: all its traffic at once would be too much for green.
    """
    world.scale(BLUE, 5)
    assert check(world, data) == {
        "status": "outgrown",
        "reason": "5 tasks are needed by now, green has 2",
    }
    data["idle"] = world.run("start_idle_color", data)
    assert world.service(GREEN)["desiredCount"] == 5
    assert check(world, data)["reason"] == "2 of 5 tasks running"
    world.scale(BLUE, 2)
    for _ in range(3):
        world.add_task(GREEN, started_by=data["idle"]["ecs_deployment_id"])
    world.health[GREEN] = ["healthy"] * 5
    assert check(world, data)["status"] == "healthy", "more than the live one is no matter"


def test_12_an_idle_colour_that_is_not_healthy_yet_is_not_outgrown_either(
    world: World, data: dict[str, Any]
) -> None:
    world.scale(BLUE, 5)
    world.health[GREEN] = ["healthy", "initial"]
    assert check(world, data)["status"] == "waiting"


@pytest.mark.parametrize("gates", [["tested"], ["approval"], ["tested", "approval"]])
def test_08_what_was_waited_for_meanwhile_is_none_of_the_colours_time(
    world: World, data: dict[str, Any], gates: list[str]
) -> None:
    """A person took two hours to approve: one target that flaps just then has its time still."""
    assert check(world, data)["status"] == "healthy"
    for gate in gates:
        world.now += 7200
        data[gate] = {"status": "done"}
        data["health"] = check(world, data)
    world.health[GREEN] = ["healthy", "initial"]
    began = world.now
    for seconds in (0, 300, 599):
        world.now = began + seconds
        data["health"] = check(world, data)
        assert data["health"]["status"] == "waiting"
    world.now = began + 600
    with pytest.raises(IdleColorUnhealthy, match="not healthy at the deadline: 1 of 2"):
        check(world, data)


def test_08_the_time_of_hooks_before_the_first_shift_is_none_of_the_colours(
    world: World, data: dict[str, Any]
) -> None:
    """They are asked between looks, and it was healthy at each of these."""
    for _ in range(10):
        data["health"] = check(world, data)
        assert data["health"]["status"] == "healthy"
        data["hooks"] = {"point": "before_shift", "step": 0, "status": "waiting"}
        world.now += 300
    world.health[GREEN] = ["healthy", "initial"]
    for seconds in (0, 300, 299):
        world.now += seconds
        data["health"] = check(world, data)
        assert data["health"]["status"] == "waiting"
    world.now += 1
    with pytest.raises(IdleColorUnhealthy, match="not healthy at the deadline: 1 of 2"):
        check(world, data)


def test_12_what_was_started_after_the_approval_has_the_whole_time(
    world: World, data: dict[str, Any]
) -> None:
    data["approval"] = {"approved": True}
    data["health"] = check(world, data)
    world.now += 500
    world.scale(BLUE, 5)
    data["health"] = check(world, data)
    assert data["health"]["status"] == "outgrown"
    data["idle"] = world.run("start_idle_color", data) | {"started_at": world.now}
    world.now += 599
    assert check(world, data)["status"] == "waiting"
    world.now += 1
    with pytest.raises(IdleColorUnhealthy):
        check(world, data)
