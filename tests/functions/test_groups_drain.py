"""ShiftTraffic and DrainOldColor of two-clusters: the live hosts stay as they are, and end last."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.compute import FIGHTING
from bluegreen.errors import AwsUnavailable, DrainFailed, TrafficChanged
from tests.functions.group_world import GroupWorld
from tests.functions.world import BLUE, GREEN


def drain(groups: GroupWorld, data: dict[str, Any]) -> dict[str, Any]:
    """One pass; its answer is what the next one sees."""
    data["drain"] = groups.run("drain_old_color", data)
    answer: dict[str, Any] = data["drain"]
    return answer


def until_drained(groups: GroupWorld, data: dict[str, Any]) -> dict[str, Any]:
    return groups.until_over("drain_old_color", data)


def statuses(groups: GroupWorld) -> list[str]:
    return [host.status for host in groups.hosts(BLUE)]


# ShiftTraffic


def test_12_the_live_hosts_do_not_scale_in_once_they_lose_their_traffic(
    groups: GroupWorld,
) -> None:
    groups.suspend(BLUE, "HealthCheck")
    data = groups.started()
    groups.alarm(BLUE, 3)
    assert groups.sizes(BLUE) == (0, 3), "until then it scales"
    groups.run("shift_traffic", data)
    assert groups.suspended_processes(BLUE) == {*FIGHTING, "HealthCheck"}
    groups.alarm(BLUE, 0)
    groups.goes_on()
    assert groups.sizes(BLUE) == (0, 3)


def test_12_the_way_back_is_safe_before_the_traffic_moves(groups: GroupWorld) -> None:
    data = groups.started()
    groups.fault("autoscaling", "SuspendProcesses", "throttle")
    with pytest.raises(AwsUnavailable):
        groups.run("shift_traffic", data)
    assert groups.weights() == {BLUE: 100, GREEN: 0}
    assert groups.run("shift_traffic", data)["status"] == "shifted"
    assert groups.suspended_processes(BLUE) == FIGHTING


# DrainOldColor


def test_06_the_hosts_go_after_the_tasks_and_those_after_the_targets(groups: GroupWorld) -> None:
    data = groups.baked()
    seen: list[str] = []

    def look() -> None:
        if groups.tasks(BLUE) or groups.health[BLUE]:
            assert groups.sizes(BLUE) == (0, 2)
            assert set(groups.instances(BLUE).values()) == {"InService"}
        if groups.service(BLUE)["desiredCount"]:
            assert statuses(groups) == ["ACTIVE", "ACTIVE"]
        elif groups.sizes(BLUE)[1]:
            assert statuses(groups) == ["DRAINING", "DRAINING"]
        seen.append(data["drain"]["reason"])

    answer = groups.until_over("drain_old_color", data, each=look)
    assert (answer["status"], answer["reason"]) == ("done", "the old colour has ended")
    assert "2 hosts of the old colour to end" in seen
    assert any("hosts of group web-blue are ending: i-" in one for one in seen)
    assert (groups.instances(BLUE), groups.sizes(BLUE)) == ({}, (0, 0))


def test_the_new_colours_hosts_and_the_traffic_are_not_touched(groups: GroupWorld) -> None:
    data = groups.baked()
    before = groups.instances(GREEN), len(groups.tasks(GREEN))
    until_drained(groups, data)
    assert (groups.instances(GREEN), len(groups.tasks(GREEN))) == before
    assert {host.status for host in groups.hosts(GREEN)} == {"ACTIVE"}
    assert groups.weights() == {BLUE: 0, GREEN: 100}


def test_protected_hosts_and_those_of_a_minimum_end_too(groups: GroupWorld) -> None:
    groups.resize(BLUE, 2, MinSize=2)
    groups.protect(BLUE)
    until_drained(groups, groups.baked())
    assert (groups.instances(BLUE), groups.sizes(BLUE)) == ({}, (0, 0))


def test_more_hosts_than_one_call_takes_are_all_drained_and_ended(groups: GroupWorld) -> None:
    groups.resize(BLUE, 11, MaxSize=11)
    groups.resize(GREEN, 0, MaxSize=11)
    for _ in range(3):
        groups.goes_on()
    data = groups.baked()
    seen: set[tuple[str, ...]] = set()
    groups.until_over(
        "drain_old_color", data, each=lambda: seen.add(tuple(sorted(set(statuses(groups)))))
    )
    assert seen == {("ACTIVE",), ("DRAINING",), ()}
    assert groups.instances(BLUE) == {}


def test_05_a_colour_that_has_got_traffic_again_keeps_its_minimum_and_its_alarms(
    groups: GroupWorld,
) -> None:
    groups.resize(BLUE, 2, MinSize=1)
    data = groups.baked()
    before = groups.sizes(BLUE), groups.suspended_processes(BLUE)
    groups.set_weights({BLUE: 50, GREEN: 50})
    with pytest.raises(TrafficChanged, match="given blue traffic again"):
        groups.run("drain_old_color", data)
    assert (groups.sizes(BLUE), groups.suspended_processes(BLUE)) == before


def test_12_minimum_and_suspended_processes_go_with_the_role(groups: GroupWorld) -> None:
    groups.resize(BLUE, 2, MinSize=1)
    groups.suspend(BLUE, "AZRebalance")
    data = groups.baked()
    assert groups.sizes(GREEN)[0] == 0
    drain(groups, data)
    assert groups.sizes(GREEN) == (1, 2)
    assert groups.suspended_processes(GREEN) == {"AZRebalance"}
    assert groups.sizes(BLUE) == (0, 2), "it may become empty, and is not yet"
    assert groups.suspended_processes(BLUE) == {*FIGHTING, "AZRebalance"}
    groups.alarm(GREEN, 4)
    groups.alarm(BLUE, 4)
    assert (groups.sizes(GREEN), groups.sizes(BLUE)) == ((1, 4), (0, 2))


def test_12_roles_alternate_for_good(groups: GroupWorld) -> None:
    """Two deployments bring everything back to where it was."""
    groups.resize(BLUE, 2, MinSize=1)
    groups.suspend(BLUE, "AZRebalance")
    groups.live_on_green()
    assert groups.sizes(GREEN) == (1, 2)
    data = groups.registered("d-2", images={"web": "v1"})
    assert data["deployment"]["to_color"] == "blue"
    groups.until_over("start_idle_color", data, "d-2")
    groups.goes_on()
    data["shift"] = groups.run("shift_traffic", data, "d-2")
    data["shift"] |= {"status": "baked", "proved_at": groups.now}
    groups.until_over("drain_old_color", data, "d-2")
    assert (groups.sizes(BLUE), groups.suspended_processes(BLUE)) == ((1, 2), {"AZRebalance"})
    assert (groups.sizes(GREEN), groups.instances(GREEN)) == ((0, 0), {})
    assert groups.suspended_processes(GREEN) >= FIGHTING


def test_12_a_first_deployment_gives_a_group_its_minimum_back(groups: GroupWorld) -> None:
    """It needed one host only, and its minimum was taken away to end the old ones."""
    groups.set_weights({BLUE: 0, GREEN: 0})
    groups.scale(BLUE, 0)
    groups.resize(BLUE, 3, MinSize=3)
    for _ in range(3):
        groups.goes_on()
    data = groups.registered()
    groups.until_over("start_idle_color", data)
    assert groups.sizes(BLUE) == (0, 1)
    data["shift"] = groups.run("shift_traffic", data)
    data["shift"] |= {"status": "baked", "proved_at": groups.now}
    assert until_drained(groups, data)["reason"] == "there was no old colour"
    assert groups.sizes(BLUE) == (3, 3)
    assert groups.suspended_processes(BLUE) == set()


def test_hosts_of_a_colour_that_is_kept_warm_stay_until_then(groups: GroupWorld) -> None:
    data = groups.baked()
    data["deployment"]["configuration"]["drain"]["keep_warm_seconds"] = 3600
    groups.now += 50
    assert drain(groups, data)["reason"] == "the old colour is kept warm"
    groups.alarm(BLUE, 0)
    groups.goes_on()
    assert (len(groups.hosts(BLUE)), statuses(groups)) == (2, ["ACTIVE", "ACTIVE"])
    groups.now += 3600
    assert until_drained(groups, data)["status"] == "done"
    assert groups.instances(BLUE) == {}


def test_13_the_next_deployment_replaces_hosts_that_are_kept_warm(groups: GroupWorld) -> None:
    data = groups.baked()
    data["deployment"]["configuration"]["drain"]["keep_warm_seconds"] = 3600
    groups.now += 50
    drain(groups, data)
    warm = set(groups.instances(BLUE))
    groups.now += 60
    following = groups.registered("d-2", images={"web": "v1"})
    groups.until_over("start_idle_color", following, "d-2")
    assert len(groups.hosts(BLUE)) == 2
    assert not warm & set(groups.instances(BLUE))
    groups.now += 3600
    assert drain(groups, data)["reason"] == "the next deployment has taken the old colour over"
    assert len(groups.hosts(BLUE)) == 2


def test_24_hosts_that_do_not_end_are_named_at_the_deadline(groups: GroupWorld) -> None:
    data = groups.baked()
    old = set(groups.instances(BLUE))
    groups.stays = {BLUE}

    def much_later() -> None:
        groups.now += 60

    with pytest.raises(DrainFailed) as failed:
        groups.until_over("drain_old_color", data, each=much_later)
    assert str(failed.value).startswith("blue: 2 hosts of group web-blue are ending: i-")
    assert all(f"{one} (Terminating:Wait)" in str(failed.value) for one in old)
    assert groups.weights() == {BLUE: 0, GREEN: 100}
    assert len(groups.hosts(GREEN)) == 2


def test_12_a_group_that_somebody_keeps_filling_is_not_emptied_for_ever(
    groups: GroupWorld,
) -> None:
    data = groups.baked()
    groups.stays = {BLUE}

    def somebody() -> None:
        groups.resize(BLUE, 2)
        groups.now += 60

    with pytest.raises(DrainFailed, match="hosts of group web-blue are ending"):
        groups.until_over("drain_old_color", data, each=somebody)


def test_the_hosts_get_a_time_of_their_own_once_the_tasks_have_gone(groups: GroupWorld) -> None:
    data = groups.baked()
    while groups.tasks(BLUE):
        drain(groups, data)
        groups.goes_on()
        groups.now += 10
    groups.now += 5000
    groups.stays = {BLUE}
    assert drain(groups, data)["status"] == "waiting"
    groups.now += 899
    assert drain(groups, data)["status"] == "waiting"
    groups.now += 1
    with pytest.raises(DrainFailed):
        drain(groups, data)


def test_hosts_that_got_traffic_again_stay(groups: GroupWorld) -> None:
    data = groups.baked()
    groups.set_weights({BLUE: 10, GREEN: 90})
    groups.now += 100
    with pytest.raises(TrafficChanged):
        drain(groups, data)
    groups.goes_on()
    assert (groups.sizes(BLUE), statuses(groups)) == ((0, 2), ["ACTIVE", "ACTIVE"])


CALLS = [
    ("autoscaling", "DescribeAutoScalingGroups"),
    ("autoscaling", "UpdateAutoScalingGroup"),
    ("autoscaling", "SuspendProcesses"),
    ("autoscaling", "ResumeProcesses"),
    ("autoscaling", "SetInstanceProtection"),
    ("ecs", "UpdateContainerInstancesState"),
    ("ecs", "UpdateService"),
]


@pytest.mark.parametrize("kind", ["throttle", "busy", "lost_answer"])
@pytest.mark.parametrize(("service", "operation"), CALLS)
def test_a_call_that_fails_is_gone_through_again_and_nothing_is_left_out(
    groups: GroupWorld, service: str, operation: str, kind: Any
) -> None:
    groups.resize(BLUE, 2, MinSize=1)
    groups.suspend(BLUE, "AZRebalance")
    data = groups.baked()
    groups.protect(BLUE)
    groups.resume(BLUE, *FIGHTING)
    drained: list[list[str]] = []
    groups.fault(service, operation, kind, times=3 if kind == "lost_answer" else 1)
    failures = 0
    for _ in range(60):
        try:
            if drain(groups, data)["status"] == "done":
                break
        except AwsUnavailable:
            failures += 1
        if not groups.service(BLUE)["desiredCount"] and groups.sizes(BLUE)[1]:
            drained.append(statuses(groups))
        groups.goes_on()
        groups.now += 10
    assert failures == 1
    assert drained
    assert all(one == ["DRAINING", "DRAINING"] for one in drained)
    assert (groups.instances(BLUE), groups.sizes(BLUE)) == ({}, (0, 0))
    assert groups.suspended_processes(BLUE) == {*FIGHTING, "AZRebalance"}
    assert (groups.sizes(GREEN), groups.suspended_processes(GREEN)) == ((1, 2), {"AZRebalance"})
