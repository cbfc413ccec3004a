"""StartIdleColor of two-clusters: old hosts away, new ones there, and only then tasks on them."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.compute import FIGHTING
from bluegreen.errors import AwsUnavailable, IdleColorUnhealthy, TrafficChanged
from tests.functions.group_world import NO_CAPACITY, NO_IMAGE, GroupWorld
from tests.functions.world import BLUE, GREEN


def start(groups: GroupWorld, data: dict[str, Any]) -> dict[str, Any]:
    """One pass; its answer is what the next one sees."""
    data["idle"] = groups.run("start_idle_color", data)
    answer: dict[str, Any] = data["idle"]
    return answer


def until_started(groups: GroupWorld, data: dict[str, Any]) -> dict[str, Any]:
    answer = groups.until_over("start_idle_color", data)
    assert answer["status"] == "started"
    return answer


def until_deadline(groups: GroupWorld, data: dict[str, Any]) -> None:
    """Passes that are far apart."""

    def much_later() -> None:
        groups.now += 100

    groups.until_over("start_idle_color", data, each=much_later)


def with_old_hosts(groups: GroupWorld, **sizes: int) -> set[str]:
    """Two hosts on the idle colour, from before the deployment; their ids."""
    groups.resize(GREEN, 2, **sizes)
    for _ in range(3):
        groups.goes_on()
    assert set(groups.instances(GREEN).values()) == {"InService"}
    return set(groups.instances(GREEN))


def test_as_many_hosts_as_the_live_colour_has_and_then_the_tasks(groups: GroupWorld) -> None:
    data = groups.registered()
    old = groups.service(GREEN)["taskDefinition"]
    assert start(groups, data)["reason"] == "launching 2 hosts for 2 tasks"
    assert groups.sizes(GREEN) == (0, 2)
    groups.goes_on()
    reason = start(groups, data)["reason"]
    assert reason.startswith("0 of 2 hosts ready; i-")
    assert reason.count("is Pending") == 2
    assert (groups.service(GREEN)["desiredCount"], groups.service(GREEN)["taskDefinition"]) == (
        0,
        old,
    )
    groups.goes_on()
    answer = start(groups, data)
    assert (answer["status"], answer["desired_count"]) == ("started", 2)
    assert groups.service(GREEN)["taskDefinition"] == data["task_definition"]["arn"]


def test_the_live_colours_hosts_and_traffic_are_not_touched(groups: GroupWorld) -> None:
    before = groups.instances(BLUE), groups.sizes(BLUE), groups.suspended_processes(BLUE)
    groups.started()
    after = groups.instances(BLUE), groups.sizes(BLUE), groups.suspended_processes(BLUE)
    assert after == before
    assert groups.weights() == {BLUE: 100, GREEN: 0}


@pytest.mark.parametrize("missing", ["registered", "connected", "ACTIVE", "in service"])
def test_no_task_is_started_before_every_host_takes_some(groups: GroupWorld, missing: str) -> None:
    """A host that has booted is not one on which ECS places tasks."""
    data = groups.registered()
    start(groups, data)
    groups.silent = 1 if missing == "registered" else 0
    for _ in range(2):
        groups.goes_on()
    last = groups._group(GREEN).instance_states[-1]
    host = groups.hosts(GREEN)[-1]
    if missing == "connected":
        host.agent_connected = False
    elif missing == "ACTIVE":
        host.status = "DRAINING"
    elif missing == "in service":
        last.lifecycle_state = "Terminating"
    answer = start(groups, data)
    assert answer["status"] == "waiting"
    assert answer["reason"].startswith("1 of 2 hosts ready; ")
    assert groups.service(GREEN)["desiredCount"] == 0
    host.agent_connected, host.status, last.lifecycle_state = True, "ACTIVE", "InService"
    groups.lost.clear()
    groups.goes_on()
    assert start(groups, data)["status"] == "started"


def test_13_hosts_of_an_earlier_run_end_before_any_is_launched(groups: GroupWorld) -> None:
    old = with_old_hosts(groups)
    data = groups.registered()
    reason = start(groups, data)["reason"]
    assert reason.startswith("2 hosts from before the deployment are ending: i-")
    assert groups.sizes(GREEN) == (0, 0)

    def never_both() -> None:
        there = set(groups.instances(GREEN))
        assert not (there & old and there - old), "old hosts beside new ones"

    groups.until_over("start_idle_color", data, each=never_both)
    assert len(groups.instances(GREEN)) == 2
    assert not old & set(groups.instances(GREEN))


def test_13_protected_hosts_and_those_of_a_minimum_end_too(groups: GroupWorld) -> None:
    old = with_old_hosts(groups, MinSize=2)
    groups.protect(GREEN)
    data = groups.registered()
    until_started(groups, data)
    assert len(groups.instances(GREEN)) == 2
    assert not old & set(groups.instances(GREEN))


def test_13_more_protected_hosts_than_one_call_takes_all_end(groups: GroupWorld) -> None:
    groups.resize(GREEN, 51, MaxSize=51)
    groups.silent = 51
    for _ in range(2):
        groups.goes_on()
    groups.protect(GREEN)
    data = groups.registered()
    start(groups, data)
    for _ in range(2):
        groups.goes_on()
    assert groups.instances(GREEN) == {}


def test_13_a_protected_host_that_starts_or_ends_already_does_not_stop_the_deployment(
    groups: GroupWorld,
) -> None:
    """SetInstanceProtection refuses a call that names one."""
    old = with_old_hosts(groups)
    groups.protect(GREEN)
    groups._group(GREEN).instance_states[0].lifecycle_state = "Terminating"
    groups._group(GREEN).instance_states[1].lifecycle_state = "Pending"
    data = groups.registered()
    until_started(groups, data)
    assert not old & set(groups.instances(GREEN))


def test_13_tasks_of_an_earlier_run_end_before_the_hosts_below_them(groups: GroupWorld) -> None:
    old = with_old_hosts(groups)
    groups.scale(GREEN, 2)
    groups.goes_on()
    assert len(groups.tasks(GREEN)) == 2
    data = groups.registered()

    def hosts_stay_while_tasks_run() -> None:
        if groups.tasks(GREEN) and set(groups.instances(GREEN)) & old:
            assert groups.sizes(GREEN) == (0, 2)

    groups.until_over("start_idle_color", data, each=hosts_stay_while_tasks_run)
    assert not old & set(groups.instances(GREEN))


def test_13_old_hosts_that_do_not_end_are_named_at_the_deadline(groups: GroupWorld) -> None:
    old = with_old_hosts(groups)
    groups.stays = {GREEN}
    with pytest.raises(IdleColorUnhealthy) as failed:
        until_deadline(groups, groups.registered())
    assert str(failed.value).startswith("green: 2 hosts from before the deployment are ending: i-")
    assert all(one in str(failed.value) for one in old)
    assert groups.service(GREEN)["desiredCount"] == 0


def test_12_a_group_that_somebody_keeps_filling_is_not_emptied_for_ever(
    groups: GroupWorld,
) -> None:
    with_old_hosts(groups)
    groups.stays = {GREEN}

    def somebody() -> None:
        groups.resize(GREEN, 2)
        groups.now += 100

    with pytest.raises(IdleColorUnhealthy, match="from before the deployment are ending"):
        groups.until_over("start_idle_color", groups.registered(), each=somebody)


def test_13_an_idle_colour_that_got_the_traffic_meanwhile_keeps_its_hosts(
    groups: GroupWorld,
) -> None:
    old = with_old_hosts(groups)
    data = groups.registered()
    groups.set_weights({BLUE: 0, GREEN: 100})
    with pytest.raises(TrafficChanged):
        start(groups, data)
    assert (groups.sizes(GREEN), set(groups.instances(GREEN))) == ((0, 2), old)


def test_11_more_hosts_are_launched_when_the_tasks_do_not_fit(groups: GroupWorld) -> None:
    """Four tasks fit on a host; the live colour has nine on two hosts that are larger."""
    data = groups.registered()
    groups.scale(BLUE, 9)
    sizes: list[int] = []
    groups.until_over("start_idle_color", data, each=lambda: sizes.append(groups.sizes(GREEN)[1]))
    assert sorted(set(sizes)) == [2, 3]
    groups.goes_on()
    assert len(groups.tasks(GREEN)) == 9


def test_11_a_group_too_small_for_the_tasks_is_said_with_its_maximum(groups: GroupWorld) -> None:
    groups.resize(GREEN, 0, MaxSize=2)
    data = groups.registered()
    groups.scale(BLUE, 9)
    expected = "^green: group web-green would need 3 instances, but its maximum is 2$"
    with pytest.raises(IdleColorUnhealthy, match=expected):
        until_started(groups, data)
    assert groups.service(GREEN)["desiredCount"] == 0


def test_the_very_first_deployment_launches_as_many_hosts_as_its_tasks_need(
    groups: GroupWorld,
) -> None:
    groups.set_weights({BLUE: 0, GREEN: 0})
    groups.scale(BLUE, 0)
    groups.resize(BLUE, 0)
    for _ in range(2):
        groups.goes_on()
    groups.configure(health={"initial_count": 5})
    assert until_started(groups, groups.registered())["desired_count"] == 5
    assert len(groups.instances(BLUE)) == 2


def test_12_a_live_colour_that_grew_since_the_plan_is_followed(groups: GroupWorld) -> None:
    data = groups.registered()
    groups.resize(BLUE, 6)
    groups.scale(BLUE, 6)
    assert until_started(groups, data)["desired_count"] == 6
    assert len(groups.instances(GREEN)) == 6


def test_12_a_live_colour_that_grew_after_the_start_is_followed_with_hosts_first(
    groups: GroupWorld,
) -> None:
    data = groups.started()
    first = data["idle"]
    groups.resize(BLUE, 6)
    groups.scale(BLUE, 6)
    assert start(groups, data)["status"] == "waiting"
    assert groups.sizes(GREEN) == (0, 6)
    assert groups.service(GREEN)["desiredCount"] == 2, "no task before its host"
    answer = until_started(groups, data)
    assert answer["desired_count"] == 6
    assert answer["ecs_deployment_id"] == first["ecs_deployment_id"]
    assert len(groups.hosts(GREEN)) == 6


def test_12_nothing_else_scales_the_idle_hosts_from_the_first_pass_on(groups: GroupWorld) -> None:
    groups.suspend(GREEN, "HealthCheck")
    data = groups.registered()
    start(groups, data)
    assert groups.suspended_processes(GREEN) == {*FIGHTING, "HealthCheck"}
    groups.alarm(GREEN, 0)
    until_started(groups, data)
    groups.alarm(GREEN, 0)
    groups.goes_on()
    assert len(groups.instances(GREEN)) == 2


def test_a_host_that_dies_while_others_register_is_replaced_and_waited_for(
    groups: GroupWorld,
) -> None:
    data = groups.registered()
    start(groups, data)
    for _ in range(2):
        groups.goes_on()
    dead = groups._group(GREEN).instance_states[0]
    groups._ends(GREEN, dead)
    assert start(groups, data)["reason"] == "1 of 2 hosts ready"
    until_started(groups, data)
    assert len(groups.hosts(GREEN)) == 2
    assert dead.instance_id not in groups.instances(GREEN)


def test_24_a_host_that_never_registers_is_named_at_the_deadline(groups: GroupWorld) -> None:
    groups.silent = 1
    data = groups.registered()
    with pytest.raises(IdleColorUnhealthy) as failed:
        until_deadline(groups, data)
    [lost] = groups.lost
    assert str(failed.value) == (
        "green: not all hosts are there at the deadline: 1 of 2 hosts ready; "
        f"{lost} is InService but has not registered with the cluster"
    )
    assert groups.service(GREEN)["desiredCount"] == 0


def test_08_hosts_get_the_whole_deadline_from_their_first_pass_on(groups: GroupWorld) -> None:
    data = groups.registered()
    groups.now += 599
    start(groups, data)
    groups.silent = 2
    for _ in range(2):
        groups.goes_on()
    groups.now += 599
    assert start(groups, data)["status"] == "waiting"
    groups.now += 1
    with pytest.raises(IdleColorUnhealthy):
        start(groups, data)


def test_09_a_launch_without_hope_is_given_up_at_once_with_its_activity(
    groups: GroupWorld,
) -> None:
    groups.cannot_launch = {GREEN: NO_IMAGE}
    data = groups.registered()
    start(groups, data)
    groups.goes_on()
    with pytest.raises(IdleColorUnhealthy) as failed:
        start(groups, data)
    assert str(failed.value) == (f"green: group web-green cannot launch: {NO_IMAGE} (activity a-2)")


def test_09_capacity_that_comes_back_in_time_is_used(groups: GroupWorld) -> None:
    groups.cannot_launch = {GREEN: NO_CAPACITY}
    data = groups.registered()
    start(groups, data)
    groups.goes_on()
    answer = start(groups, data)
    assert answer["status"] == "waiting"
    assert f"last failed launch: {NO_CAPACITY} (activity a-2)" in answer["reason"]
    groups.cannot_launch = {}
    until_started(groups, data)


def test_09_capacity_that_does_not_come_is_given_up_after_so_many_launches(
    groups: GroupWorld,
) -> None:
    groups.cannot_launch = {GREEN: NO_CAPACITY}
    data = groups.registered()
    with pytest.raises(IdleColorUnhealthy, match=r"do not have sufficient t3\.small capacity"):
        until_started(groups, data)
    assert len(groups.activities["web-green"]) == 4, "two a round, and three are allowed"


def test_09_launches_that_failed_before_the_deployment_do_not_count(groups: GroupWorld) -> None:
    for _ in range(5):
        groups.note(GREEN, "Launching a new EC2 instance", "Failed", StatusMessage=NO_IMAGE)
    groups.now += 60
    until_started(groups, groups.registered())


def test_09_what_else_fails_in_the_group_is_no_failed_launch(groups: GroupWorld) -> None:
    data = groups.registered()
    start(groups, data)
    for _ in range(3):
        groups.note(GREEN, "Terminating EC2 instance: i-1", "Failed", StatusMessage=NO_IMAGE)
    groups.note(GREEN, "Could not scale to desired capacity because …", "Cancelled")
    until_started(groups, data)


def test_09_a_launch_that_a_lifecycle_hook_abandons_is_a_failed_one(groups: GroupWorld) -> None:
    data = groups.registered()
    start(groups, data)
    text = "Launching a new EC2 instance: i-1. Status Reason: Lifecycle Action was abandoned"
    for _ in range(3):
        groups.note(GREEN, text, "Cancelled")
    with pytest.raises(IdleColorUnhealthy, match=r"was abandoned \(activity a-3\)"):
        start(groups, data)


CALLS = [
    ("autoscaling", "DescribeAutoScalingGroups"),
    ("autoscaling", "SuspendProcesses"),
    ("autoscaling", "DescribeScalingActivities"),
    ("autoscaling", "SetInstanceProtection"),
    ("autoscaling", "UpdateAutoScalingGroup"),
    ("ecs", "ListContainerInstances"),
    ("ecs", "DescribeContainerInstances"),
]


@pytest.mark.parametrize("kind", ["throttle", "busy", "lost_answer"])
@pytest.mark.parametrize(("service", "operation"), CALLS)
def test_a_call_that_fails_is_gone_through_again(
    groups: GroupWorld, service: str, operation: str, kind: Any
) -> None:
    """busy: ScalingActivityInProgress, with which a group refuses a change for the moment."""
    old = with_old_hosts(groups, MinSize=1)
    groups.protect(GREEN)
    data = groups.registered()
    groups.fault(service, operation, kind, times=3 if kind == "lost_answer" else 1)
    with pytest.raises(AwsUnavailable):
        start(groups, data)
    until_started(groups, data)
    assert len(groups.instances(GREEN)) == 2
    assert not old & set(groups.instances(GREEN))
    assert groups.suspended_processes(GREEN) == FIGHTING


def test_a_launch_whose_answer_was_lost_is_not_repeated(groups: GroupWorld) -> None:
    data = groups.registered()
    groups.fault("autoscaling", "UpdateAutoScalingGroup", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        start(groups, data)
    assert groups.sizes(GREEN) == (0, 2)
    until_started(groups, data)
    assert len(groups.activities["web-green"]) == 2
