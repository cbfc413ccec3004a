"""RollBack of two-clusters: hosts, sizes and processes are exactly as they were before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bluegreen.compute import FIGHTING
from bluegreen.errors import AwsRefused, AwsUnavailable, RollBackIncomplete
from runtime import clients
from tests.functions.group_world import NO_CAPACITY, GroupWorld
from tests.functions.world import BLUE, GREEN

UNDO: dict[str, Any] = {"request": {"action": "rollback", "deployment_id": "d-1"}}


def everything(groups: GroupWorld) -> dict[str, Any]:
    services = {color: groups.service(color) for color in (BLUE, GREEN)}
    return {
        "traffic": groups.weights(),
        "services": {
            color: (one["taskDefinition"], one["desiredCount"]) for color, one in services.items()
        },
        "sizes": {color: groups.sizes(color) for color in (BLUE, GREEN)},
        "suspended": {color: groups.suspended_processes(color) for color in (BLUE, GREEN)},
        "live hosts": sorted(groups.instances(BLUE)),
        "idle hosts": len(groups.hosts(GREEN)),
        "statuses": {host.status for color in (BLUE, GREEN) for host in groups.hosts(color)},
    }


def planned(groups: GroupWorld) -> dict[str, Any]:
    return groups.registered()


def emptied(groups: GroupWorld) -> dict[str, Any]:
    """The first pass of StartIdleColor is over."""
    data = groups.registered()
    data["idle"] = groups.run("start_idle_color", data)
    return data


def launching(groups: GroupWorld) -> dict[str, Any]:
    """The new hosts are starting."""
    data = groups.registered()
    while "Pending" not in groups.instances(GREEN).values():
        data["idle"] = groups.run("start_idle_color", data)
        groups.goes_on()
    return data


def registered(groups: GroupWorld) -> dict[str, Any]:
    """The new hosts are there, and no task of the new colour is."""
    data = launching(groups)
    groups.goes_on()
    assert len(groups.hosts(GREEN)) == 2
    return data


def started(groups: GroupWorld) -> dict[str, Any]:
    return groups.started()


def shifted(groups: GroupWorld) -> dict[str, Any]:
    return groups.shifted()


def handed_over(groups: GroupWorld) -> dict[str, Any]:
    """The first pass of DrainOldColor is over, then a person asks for the way back."""
    data = groups.baked()
    groups.run("drain_old_color", data)
    return groups.run("plan_roll_back", UNDO, "undo")


POINTS = [planned, emptied, launching, registered, started, shifted, handed_over]


def restore(groups: GroupWorld, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """All passes of RollBack; then the hosts come or go."""
    execution = "undo" if "recovery" in data else "d-1"
    answer = groups.until_over("roll_back", data, execution, **more)
    for _ in range(3):
        groups.goes_on()
    return answer


def by_hand(groups: GroupWorld) -> dict[str, Any]:
    """A deployment that succeeded is to be undone: its old hosts are gone."""
    groups.live_on_green()
    assert groups.instances(BLUE) == {}
    return groups.run("plan_roll_back", UNDO, "undo")


@pytest.mark.parametrize("idle", ["empty", "with hosts"])
@pytest.mark.parametrize("at", POINTS)
def test_15_everything_is_as_before_from_wherever_it_stopped(
    groups: GroupWorld, at: Callable[[GroupWorld], dict[str, Any]], idle: str
) -> None:
    groups.resize(BLUE, 2, MinSize=1)
    groups.suspend(BLUE, "HealthCheck")
    if idle == "with hosts":
        groups.resize(GREEN, 3, MinSize=2)
        groups.suspend(GREEN, "AZRebalance")
        for _ in range(3):
            groups.goes_on()
    before = everything(groups)
    data = at(groups)
    answer = restore(groups, data)
    assert (answer["status"], answer["as_before"]) == ("restored", True)
    assert everything(groups) == before


def test_12_suspended_processes_that_were_all_that_had_changed_are_resumed(
    groups: GroupWorld,
) -> None:
    data = groups.registered()
    groups.fault("autoscaling", "UpdateAutoScalingGroup", "denied")
    with pytest.raises(AwsRefused):
        groups.run("start_idle_color", data)
    assert groups.suspended_processes(GREEN) == FIGHTING
    assert restore(groups, data)["as_before"]
    assert groups.suspended_processes(GREEN) == set()


def test_15_called_again_after_the_end_it_changes_nothing(groups: GroupWorld) -> None:
    data = shifted(groups)
    restore(groups, data)
    after = everything(groups)
    del data["rollback"]
    assert restore(groups, data)["status"] == "restored"
    assert everything(groups) == after


def test_15_the_new_hosts_end_after_the_tasks_on_them(groups: GroupWorld) -> None:
    """Ended below them, the tasks would get no SIGTERM."""
    data = shifted(groups)

    def look() -> None:
        if groups.tasks(GREEN):
            assert groups.sizes(GREEN) == (0, 2)

    restore(groups, data, each=look)
    assert groups.instances(GREEN) == {}


@pytest.mark.parametrize("at", [launching, registered, shifted])
def test_15_new_hosts_that_are_protected_from_scale_in_end_too(
    groups: GroupWorld, at: Callable[[GroupWorld], dict[str, Any]]
) -> None:
    """Those that still start cannot be relieved of it, and SetInstanceProtection says so."""
    groups._group(GREEN).new_instances_protected_from_scale_in = True
    data = at(groups)
    assert restore(groups, data)["as_before"]
    assert (groups.sizes(GREEN), groups.instances(GREEN)) == ((0, 0), {})


def test_12_the_live_hosts_scale_again_after_the_way_back(groups: GroupWorld) -> None:
    data = shifted(groups)
    groups.alarm(BLUE, 1)
    assert groups.sizes(BLUE) == (0, 2)
    restore(groups, data)
    groups.alarm(BLUE, 1)
    assert groups.sizes(BLUE) == (0, 1)


def test_12_how_large_the_live_group_has_become_is_its_own_affair(groups: GroupWorld) -> None:
    data = started(groups)
    groups.resize(BLUE, 4)
    restore(groups, data)
    assert (groups.sizes(BLUE), len(groups.hosts(BLUE))) == ((0, 4), 4)


def test_12_a_minimum_that_somebody_has_changed_since_is_theirs(groups: GroupWorld) -> None:
    groups.resize(BLUE, 2, MinSize=2)
    data = shifted(groups)
    groups.resize(BLUE, 1, MinSize=1)
    assert restore(groups, data)["as_before"]
    assert groups.sizes(BLUE) == (1, 1)


def test_15_hosts_that_do_not_end_are_no_success(groups: GroupWorld) -> None:
    data = shifted(groups)
    groups.stays = {GREEN}

    def much_later() -> None:
        groups.now += 60

    with pytest.raises(RollBackIncomplete, match="do not come back"):
        restore(groups, data, each=much_later)
    assert groups.weights() == {BLUE: 100, GREEN: 0}


# By hand, after the old hosts are gone


def test_15_by_hand_old_hosts_are_launched_again_and_only_then_get_traffic(
    groups: GroupWorld,
) -> None:
    groups.resize(BLUE, 2, MinSize=1)
    before = everything(groups)
    data = by_hand(groups)

    def look() -> None:
        if groups.weights()[BLUE]:
            assert len(groups.hosts(BLUE)) == 2
            assert groups.health[BLUE] == ["healthy", "healthy"]
        else:
            assert len(groups.hosts(GREEN)) == 2
            assert len(groups.tasks(GREEN)) == 2

    answer = restore(groups, data, each=look)
    assert (answer["status"], answer["as_before"]) == ("restored", True)
    after = everything(groups)
    assert set(after["live hosts"]).isdisjoint(before["live hosts"])
    assert {**after, "live hosts": before["live hosts"]} == before


def test_12_by_hand_nothing_scales_the_old_hosts_in_while_they_wait_for_traffic(
    groups: GroupWorld,
) -> None:
    """Whatever somebody has resumed on the empty group since."""
    data = by_hand(groups)
    groups.resume(BLUE, *FIGHTING)

    def alarm() -> None:
        if not groups.weights()[BLUE]:
            groups.alarm(BLUE, 0)

    assert restore(groups, data, each=alarm)["as_before"]
    assert len(groups.hosts(BLUE)) == 2
    assert groups.suspended_processes(BLUE) == set()


def test_15_by_hand_as_many_hosts_as_the_new_colour_has_come_to_need(groups: GroupWorld) -> None:
    data = by_hand(groups)
    groups.resize(GREEN, 5)
    groups.scale(GREEN, 5)
    for _ in range(3):
        groups.goes_on()
    restore(groups, data)
    assert (groups.sizes(BLUE), len(groups.tasks(BLUE))) == ((0, 5), 5)


def test_15_by_hand_a_group_that_cannot_get_as_large_gets_as_large_as_it_can(
    groups: GroupWorld,
) -> None:
    """UpdateAutoScalingGroup refuses more than the maximum; fewer hosts may well have room."""
    data = by_hand(groups)
    groups.resize(BLUE, 0, MaxSize=3)
    groups.resize(GREEN, 5)
    groups.scale(GREEN, 5)
    for _ in range(3):
        groups.goes_on()
    restore(groups, data)
    assert (groups.sizes(BLUE), len(groups.tasks(BLUE))) == ((0, 3), 5)
    assert groups.weights() == {BLUE: 100, GREEN: 0}


def test_15_by_hand_old_hosts_that_were_being_drained_take_tasks_again(
    groups: GroupWorld,
) -> None:
    """The drain had told the tasks to stop, and its hosts to take no more."""
    data = groups.baked()
    while groups.service(BLUE)["desiredCount"]:
        data["drain"] = groups.run("drain_old_color", data)
        groups.now += 10
        if "draining" in groups.health[BLUE]:
            groups.health[BLUE] = []
    groups.goes_on()
    assert [host.status for host in groups.hosts(BLUE)] == ["DRAINING", "DRAINING"]
    assert groups.tasks(BLUE) == []
    undo = groups.run("plan_roll_back", UNDO, "undo")
    assert restore(groups, undo)["as_before"]
    assert [host.status for host in groups.hosts(BLUE)] == ["ACTIVE", "ACTIVE"]
    assert len(groups.tasks(BLUE)) == 2
    assert groups.weights() == {BLUE: 100, GREEN: 0}


def test_15_by_hand_hosts_closed_by_a_drain_that_got_no_further_take_tasks_again(
    groups: GroupWorld,
) -> None:
    """It ended between the two calls: its hosts take no tasks, and the tasks still run."""
    groups.baked()
    clients.ecs().update_container_instances_state(
        cluster="web-blue",
        containerInstances=[host.container_instance_arn for host in groups.hosts(BLUE)],
        status="DRAINING",
    )
    undo = groups.run("plan_roll_back", UNDO, "undo")
    assert restore(groups, undo)["as_before"]
    assert [host.status for host in groups.hosts(BLUE)] == ["ACTIVE", "ACTIVE"]
    assert groups.weights() == {BLUE: 100, GREEN: 0}


def test_15_by_hand_old_hosts_that_are_ending_are_replaced(groups: GroupWorld) -> None:
    data = groups.baked()
    while groups.sizes(BLUE)[1]:
        data["drain"] = groups.run("drain_old_color", data)
        groups.goes_on()
        groups.now += 10
    groups.stays = {BLUE}
    groups.goes_on()
    ending = set(groups.instances(BLUE))
    assert len(ending) == 2
    undo = groups.run("plan_roll_back", UNDO, "undo")
    assert restore(groups, undo)["as_before"]
    serving = {task.container_instance_arn for task in groups.tasks(BLUE)}
    hosts = {host.container_instance_arn: host.ec2_instance_id for host in groups.hosts(BLUE)}
    assert groups.weights() == {BLUE: 100, GREEN: 0}
    assert len(groups.tasks(BLUE)) == 2
    assert groups.sizes(BLUE) == (0, 2)
    assert not {hosts[arn] for arn in serving} & ending


def test_15_by_hand_old_hosts_that_cannot_be_launched_get_no_traffic(groups: GroupWorld) -> None:
    data = by_hand(groups)
    groups.cannot_launch = {BLUE: NO_CAPACITY}

    def much_later() -> None:
        groups.now += 60

    with pytest.raises(RollBackIncomplete, match=r"0 of 2 targets.*last failed launch: We"):
        restore(groups, data, each=much_later)
    assert groups.weights() == {BLUE: 0, GREEN: 100}
    assert (len(groups.hosts(GREEN)), len(groups.tasks(GREEN))) == (2, 2)


# Traffic that is somebody else's


def test_05_somebody_elses_traffic_is_left_with_its_hosts_and_both_groups_scale_again(
    groups: GroupWorld,
) -> None:
    groups.suspend(BLUE, "HealthCheck")
    data = shifted(groups)
    assert groups.suspended_processes(BLUE) >= FIGHTING
    groups.set_weights({BLUE: 60, GREEN: 40})
    answer = restore(groups, data)
    assert (answer["status"], answer["as_before"]) == ("restored", False)
    assert groups.weights() == {BLUE: 60, GREEN: 40}
    assert groups.suspended_processes(BLUE) == {"HealthCheck"}
    assert groups.suspended_processes(GREEN) == set()
    for color in (BLUE, GREEN):
        assert len(groups.hosts(color)) == len(groups.tasks(color)) == 2


def test_05_a_group_that_is_empty_already_gets_its_minimum_and_the_rollback_ends(
    groups: GroupWorld,
) -> None:
    groups.resize(BLUE, 2, MinSize=1)
    data = by_hand(groups)
    groups.set_weights({BLUE: 1, GREEN: 99})
    assert not restore(groups, data)["as_before"]
    assert groups.sizes(BLUE) == (1, 1)
    assert (groups.sizes(GREEN)[1], len(groups.hosts(GREEN))) == (2, 2)


CALLS = [
    "DescribeAutoScalingGroups",
    "UpdateAutoScalingGroup",
    "SuspendProcesses",
    "ResumeProcesses",
    "SetInstanceProtection",
]


@pytest.mark.parametrize("kind", ["throttle", "busy", "lost_answer"])
@pytest.mark.parametrize("operation", CALLS)
def test_15_a_call_that_fails_is_gone_through_again(
    groups: GroupWorld, operation: str, kind: Any
) -> None:
    groups.resize(BLUE, 2, MinSize=1)
    groups.suspend(BLUE, "HealthCheck")
    groups.suspend(GREEN, *FIGHTING, "HealthCheck")
    before = everything(groups)
    data = by_hand(groups)
    groups.protect(GREEN)
    groups.fault("autoscaling", operation, kind, times=3 if kind == "lost_answer" else 1)
    failures = 0
    for _ in range(60):
        try:
            if groups.until_over("roll_back", data, "undo")["status"] == "restored":
                break
        except AwsUnavailable:
            failures += 1
    assert failures == 1
    for _ in range(3):
        groups.goes_on()
    after = everything(groups)
    assert {**after, "live hosts": before["live hosts"]} == before
