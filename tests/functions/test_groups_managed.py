"""Two clusters whose services have capacity providers: whose instances they use, and that ECS sizes
no group in the middle of a deployment (managed scaling).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bluegreen.compute import FIGHTING
from bluegreen.errors import AwsRefused, AwsUnavailable, DeploymentRefused
from tests.functions.group_world import GroupWorld
from tests.functions.test_groups_roll_back import POINTS, everything, restore
from tests.functions.world import BLUE, GREEN

# PlanDeployment


@pytest.mark.parametrize("managed", [True, False])
def test_providers_of_the_colours_own_groups_are_fine(groups: GroupWorld, managed: bool) -> None:
    for color in (BLUE, GREEN):
        groups.add_provider(f"cp-{color}", color, managed=managed)
        groups.provide(color, f"cp-{color}")
    assert groups.plan()["deployment"]["decision"] == "deploy"


def test_a_provider_that_no_service_has_says_nothing(groups: GroupWorld) -> None:
    groups.add_provider("cp-blue", BLUE)
    groups.backend.capacity_providers["cp-blue"].status = "INACTIVE"
    assert groups.plan()["deployment"]["decision"] == "deploy"


@pytest.mark.parametrize("color", [BLUE, GREEN])
def test_a_provider_of_the_other_colours_group_is_refused(groups: GroupWorld, color: Any) -> None:
    groups.managed()
    groups.provide(color, f"cp-{color.other}")
    with pytest.raises(DeploymentRefused) as refused:
        groups.plan()
    assert str(refused.value) == (
        f"{color} (web-{color}): capacity provider cp-{color.other} places the tasks on instances "
        f"of group web-{color.other}, not of web-{color}; give the service a provider of "
        f"web-{color}"
    )
    assert groups.store.lock("web") is None


@pytest.mark.parametrize("name", ["FARGATE", "FARGATE_SPOT"])
@pytest.mark.parametrize("color", [BLUE, GREEN])
def test_fargate_is_refused(groups: GroupWorld, color: Any, name: str) -> None:
    groups.provide(color, name)
    expected = rf"^{color} \(web-{color}\): capacity provider {name} runs the tasks elsewhere"
    with pytest.raises(DeploymentRefused, match=expected):
        groups.plan()


def test_a_service_of_launch_type_fargate_is_refused(groups: GroupWorld) -> None:
    groups.backend.services["web-green:web"].launch_type = "FARGATE"
    with pytest.raises(DeploymentRefused, match=r"^green \(web-green\): launch type FARGATE"):
        groups.plan()


@pytest.mark.parametrize("status", ["DEPROVISIONING", "INACTIVE"])
def test_a_provider_that_is_being_deleted_is_refused(groups: GroupWorld, status: str) -> None:
    groups.managed()
    groups.backend.capacity_providers["cp-green"].status = status
    with pytest.raises(DeploymentRefused, match=f"capacity provider cp-green is {status}"):
        groups.plan()
    del groups.backend.capacity_providers["cp-green"]
    with pytest.raises(DeploymentRefused, match="capacity provider cp-green is not there"):
        groups.plan()


def test_more_providers_than_one_answer_has_are_all_looked_at(groups: GroupWorld) -> None:
    """DescribeCapacityProviders shows ten at a time."""
    for color in (BLUE, GREEN):
        names = [f"cp-{color}-{number}" for number in range(6)]
        for name in names:
            groups.add_provider(name, color, managed=False)
        groups.provide(color, *names)
    groups.add_provider("cp-green-6", BLUE)
    groups.provide(GREEN, *(f"cp-green-{number}" for number in range(7)))
    with pytest.raises(DeploymentRefused) as refused:
        groups.plan()
    [line] = str(refused.value).splitlines()
    assert "cp-green-6 places the tasks on instances of group web-blue" in line


def test_findings_about_providers_come_with_those_about_their_groups(groups: GroupWorld) -> None:
    groups.provide(BLUE, "FARGATE", "gone")
    groups.suspend(BLUE, "Launch")
    with pytest.raises(DeploymentRefused) as refused:
        groups.plan()
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("kind", "expected"), [("throttle", AwsUnavailable), ("denied", AwsRefused)]
)
def test_21_a_provider_that_cannot_be_read_is_not_taken_for_a_fit_one(
    groups: GroupWorld, kind: Any, expected: type[Exception]
) -> None:
    groups.managed()
    groups.fault("ecs", "DescribeCapacityProviders", kind)
    with pytest.raises(expected):
        groups.plan()
    assert groups.store.lock("web") is None


# The deployment


def test_managed_scaling_rests_while_the_new_hosts_have_no_tasks(groups: GroupWorld) -> None:
    """Empty hosts are what it ends, and tasks without a host what it launches more for."""
    groups.managed()
    data = groups.registered()
    seen = []

    def alarms() -> None:
        seen.append(groups.suspended_processes(GREEN))
        groups.alarm(GREEN, 0)
        groups.alarm(GREEN, 5)

    groups.until_over("start_idle_color", data, each=alarms)
    assert len(seen) > 2
    assert all(one >= FIGHTING for one in seen)
    assert groups.sizes(GREEN) == (0, 2)


def test_from_the_switch_to_the_drain_it_sizes_neither_group(groups: GroupWorld) -> None:
    groups.managed()
    data = groups.baked()
    for color in (BLUE, GREEN):
        assert groups.suspended_processes(color) == FIGHTING
        groups.alarm(color, 0)
        groups.alarm(color, 5)
        assert groups.sizes(color) == (0, 2)
    groups.run("drain_old_color", data)
    groups.alarm(GREEN, 3)
    groups.alarm(BLUE, 3)
    assert groups.sizes(GREEN) == (0, 3)
    assert groups.suspended_processes(BLUE) == FIGHTING


def test_afterwards_it_sizes_the_live_group_as_the_role_says(groups: GroupWorld) -> None:
    groups.managed()
    groups.resize(BLUE, 2, MinSize=1)
    groups.live_on_green()
    assert (groups.sizes(GREEN), groups.suspended_processes(GREEN)) == ((1, 2), set())
    assert (groups.sizes(BLUE), groups.instances(BLUE)) == ((0, 0), {})
    assert groups.suspended_processes(BLUE) == FIGHTING


# RollBack


@pytest.mark.parametrize("idle", ["empty", "with hosts"])
@pytest.mark.parametrize("at", POINTS)
def test_15_everything_is_as_before_from_wherever_it_stopped(
    groups: GroupWorld, at: Callable[[GroupWorld], dict[str, Any]], idle: str
) -> None:
    groups.managed()
    groups.resize(BLUE, 2, MinSize=1)
    groups.suspend(GREEN, *FIGHTING)
    if idle == "with hosts":
        groups.resize(GREEN, 3, MinSize=2)
        for _ in range(3):
            groups.goes_on()
    before = everything(groups)
    answer = restore(groups, at(groups))
    assert (answer["status"], answer["as_before"]) == ("restored", True)
    assert everything(groups) == before
