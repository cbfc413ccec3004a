"""Two clusters: a deployment has hosts of its own, and leaves none of the old ones."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.e2e.conftest import BALANCERS
from tests.e2e.running_groups import HOSTS, RunningGroups, other

FIGHTING = ["AZRebalance", "AlarmNotification", "InstanceRefresh", "ScheduledActions"]


@pytest.mark.parametrize("groups", BALANCERS, indirect=True)
def test_13_new_hosts_for_every_deployment_and_none_of_the_old_ones(groups: RunningGroups) -> None:
    old, began = groups.live(), datetime.now(UTC)
    before = groups.group(old)
    groups.push("good")
    with groups.under_load():
        ended = groups.deploy("good")
    assert ended.succeeded, ended.cause
    new = other(old)
    groups.assert_all_new(new, "good", began)
    # What belongs to the role goes with it.
    after = groups.group(new)
    assert {**after, "instances": []} == {**before, "instances": []}
    assert groups.group(old)["suspended"] == sorted({*before["suspended"], *FIGHTING})
    assert groups.record(ended.name)["outcome"] == "succeeded"
    assert "held" not in groups.lock()
    assert groups.mackerel_statuses("web-blue", "web-green") == {
        f"ecs-bluegreen.123456789012.ap-northeast-1.web-{new}.web": "working",
        f"ecs-bluegreen.123456789012.ap-northeast-1.web-{old}.web": "poweroff",
    }


def test_13_hosts_left_on_the_idle_colour_are_not_used(groups: RunningGroups) -> None:
    idle, began = other(groups.live()), datetime.now(UTC)
    groups.resize(idle, 1)
    groups.wait_for(lambda: len(groups.instances(idle)) == 1)
    (left,) = groups.instances(idle)
    groups.protect(idle)
    groups.push("fresh")
    with groups.under_load():
        ended = groups.deploy("fresh")
    assert ended.succeeded, ended.cause
    groups.assert_all_new(idle, "fresh", began)
    assert left not in groups.instances(idle)


def test_12_live_that_scales_out_between_plan_and_switch_is_followed(
    groups: RunningGroups,
) -> None:
    """From 2 to 6, each task on a host of its own: the new colour has 6 before it gets traffic."""
    old = groups.live()
    new = other(old)
    groups.push("grown")
    with groups.under_load():
        arn = groups.start_execution(groups.request("grown"), name="grown")
        groups.wait_for_state(arn, "WaitForIdleColor")
        groups.resize(old, 6)
        groups.client("ecs").update_service(cluster=f"web-{old}", service="web", desiredCount=6)
        groups.wait_for_state(arn, "ShiftTraffic")
        healthy = groups.healthy(new)
        ended = groups.wait(arn)
    assert ended.succeeded, ended.cause
    assert healthy == 6
    assert groups.counts() == {new: (6, 6), old: (0, 0)}
    assert len(groups.instances(new)) == 6


@pytest.mark.parametrize("groups", ["alb", "clb"], indirect=True)
def test_15_by_hand_the_old_colour_comes_back_on_new_hosts(groups: RunningGroups) -> None:
    before, version = groups.live(), groups.answer()["X-Version"]
    groups.push("regretted")
    with groups.under_load():
        deployed = groups.deploy("regretted")
        assert deployed.succeeded, deployed.cause
        began = datetime.now(UTC)
        back = groups.roll_back(deployed.name)
    assert back.succeeded, back.cause
    groups.assert_all_new(before, version, began)
    assert len(groups.instances(before)) == HOSTS
    assert groups.record(deployed.name)["outcome"] == "rolled_back"
    assert "held" not in groups.lock()


def test_15_by_hand_hosts_that_drain_are_used_again(groups: RunningGroups) -> None:
    """The tasks of the old colour have gone, its hosts not yet: it comes back on them."""
    before, version = groups.live(), groups.answer()["X-Version"]
    hosts = groups.instances(before)
    groups.push("hosts-drain")
    groups.fault(
        "api_error",
        operation="autoscaling:UpdateAutoScalingGroup",
        kind="throttle",
        function="DrainOldColorFunction",
        times=100,
    )
    with groups.under_load():
        arn = groups.start_execution(groups.request("hosts-drain"), name="hosts-drain")
        groups.wait_for(lambda: set(groups.host_states(before)) == {"DRAINING"}, seconds=60)
        groups.wait_for(lambda: groups.counts()[before] == (0, 0))
        back = groups.roll_back("hosts-drain")
        assert back.succeeded, back.cause
        assert groups.wait(arn).error == "LockLost"
    assert groups.live() == before
    assert groups.answer()["X-Version"] == version
    assert groups.instances(before) == hosts
    assert set(groups.host_states(before)) == {"ACTIVE"}
    assert groups.instances(other(before)) == []


def test_nothing_to_do_launches_nothing(groups: RunningGroups) -> None:
    before = groups.world()
    again = groups.deploy(groups.answer()["X-Version"])
    assert again.succeeded
    assert groups.record(again.name)["outcome"] == "nothing_to_do"
    assert groups.world() == before
