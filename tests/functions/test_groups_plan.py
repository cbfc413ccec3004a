"""PlanDeployment of two-clusters: the Auto Scaling groups are noted, and fit for a deployment."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from bluegreen.errors import AwsUnavailable, DeploymentRefused
from runtime import clients
from tests.functions.group_world import GroupWorld, group_name
from tests.functions.world import BLUE, GREEN, PREFIX

COLORS = ("blue", "green")


def group_of(data: dict[str, Any], color: str) -> dict[str, Any]:
    found: dict[str, Any] = data["deployment"]["snapshot"]["services"][color]["group"]
    return found


def test_15_sizes_processes_and_instances_of_both_groups_are_noted(groups: GroupWorld) -> None:
    groups.resize(BLUE, 2, MinSize=1)
    groups.suspend(GREEN, "ScheduledActions", "AlarmNotification")
    data = groups.plan()
    assert group_of(data, "blue") == {
        "min_size": 1,
        "desired_capacity": 2,
        "suspended": [],
        "instances": sorted(groups.instances(BLUE)),
    }
    assert group_of(data, "green") == {
        "min_size": 0,
        "desired_capacity": 0,
        "suspended": ["AlarmNotification", "ScheduledActions"],
        "instances": [],
    }


def test_nothing_about_the_hosts_is_changed_by_a_plan(groups: GroupWorld) -> None:
    def everything() -> list[Any]:
        return [
            (groups.sizes(color), groups.instances(color), groups.suspended_processes(color))
            for color in (BLUE, GREEN)
        ]

    before = everything()
    groups.plan()
    assert everything() == before


@pytest.mark.parametrize("process", ["Launch", "Terminate"])
@pytest.mark.parametrize("color", [BLUE, GREEN])
def test_a_group_that_can_make_or_end_no_host_is_refused(
    groups: GroupWorld, color: Any, process: str
) -> None:
    groups.suspend(color, process, "AZRebalance")
    expected = rf"^{color} \(web-{color}\): {process} is suspended, .*resume it$"
    with pytest.raises(DeploymentRefused, match=expected):
        groups.plan()
    assert groups.suspended_processes(color) == {process, "AZRebalance"}


def test_11_an_idle_group_that_cannot_get_as_large_as_the_live_one_is_refused(
    groups: GroupWorld,
) -> None:
    groups.resize(BLUE, 5)
    groups.resize(GREEN, 0, MaxSize=4)
    with pytest.raises(DeploymentRefused, match=r"its maximum is 4, but blue has 5 hosts"):
        groups.plan()
    groups.resize(GREEN, 0, MaxSize=5)
    assert groups.plan()["deployment"]["decision"] == "deploy"


def test_live_hosts_in_another_cluster_are_refused(groups: GroupWorld) -> None:
    groups._registered(BLUE).clear()
    for instance_id in groups.instances(BLUE):
        groups.backend.register_container_instance("web-green", instance_id)
    with pytest.raises(DeploymentRefused, match=r"none of the group's instances is registered"):
        groups.plan()


def test_groups_that_are_mixed_up_are_refused_before_a_live_host_ends(groups: GroupWorld) -> None:
    """The idle slot would name the live hosts' group, whose instances would all be leftovers."""
    text = clients.ssm().get_parameter(Name=f"{PREFIX}/web")["Parameter"]["Value"]
    document = yaml.safe_load(text)
    for color in (BLUE, GREEN):
        document["colors"][color]["auto_scaling_group"] = group_name(color.other)
    clients.ssm().put_parameter(
        Name=f"{PREFIX}/web", Value=yaml.safe_dump(document), Type="String", Overwrite=True
    )
    with pytest.raises(DeploymentRefused) as refused:
        groups.plan()
    assert "green (web-blue): instances of it are registered with the cluster of blue" in str(
        refused.value
    )
    assert "blue (web-green): tasks run in its cluster, but none" in str(refused.value)
    assert len(groups.hosts(BLUE)) == 2


@pytest.mark.parametrize("color", [BLUE, GREEN])
def test_11_a_cluster_with_another_service_is_refused(groups: GroupWorld, color: Any) -> None:
    """Its hosts end with the colour, and would take the other one's tasks along."""
    clients.ecs().create_service(
        cluster=f"web-{color}", serviceName="api", taskDefinition="web", desiredCount=1
    )
    with pytest.raises(DeploymentRefused, match=f"cluster 'web-{color}' also runs api"):
        groups.plan()
    clients.ecs().update_service(cluster=f"web-{color}", service="api", desiredCount=0)
    assert groups.plan()["deployment"]["decision"] == "deploy"


def test_a_group_without_the_tag_of_the_policies_is_refused(groups: GroupWorld) -> None:
    clients.autoscaling().delete_tags(
        Tags=[
            {
                "Key": "ecs-bluegreen",
                "ResourceId": group_name(BLUE),
                "ResourceType": "auto-scaling-group",
            }
        ]
    )
    with pytest.raises(DeploymentRefused, match=r"^blue \(web-blue\): it lacks the tag"):
        groups.plan()


def test_a_group_that_is_not_there_is_named(groups: GroupWorld) -> None:
    clients.autoscaling().delete_auto_scaling_group(AutoScalingGroupName=group_name(GREEN))
    with pytest.raises(DeploymentRefused, match="no Auto Scaling group 'web-green'"):
        groups.plan()


def test_all_findings_about_the_groups_come_at_once(groups: GroupWorld) -> None:
    groups.suspend(BLUE, "Terminate")
    groups.suspend(GREEN, "Launch", "Terminate")
    groups.resize(GREEN, 0, MaxSize=1)
    with pytest.raises(DeploymentRefused) as refused:
        groups.plan()
    assert [line.partition(" (")[0] for line in str(refused.value).splitlines()] == [
        "blue",
        "green",
        "green",
    ]
    assert "Launch, Terminate is suspended" in str(refused.value)


def test_11_an_idle_cluster_without_hosts_is_no_reason_to_refuse(groups: GroupWorld) -> None:
    assert groups.hosts(GREEN) == []
    assert groups.plan()["deployment"]["decision"] == "deploy"


def test_the_very_first_deployment_needs_no_hosts_anywhere(groups: GroupWorld) -> None:
    groups.set_weights({BLUE: 0, GREEN: 0})
    groups.scale(BLUE, 0)
    groups.resize(BLUE, 0)
    for _ in range(2):
        groups.goes_on()
    data = groups.plan()
    assert (data["deployment"]["from_color"], data["deployment"]["to_color"]) == (None, "blue")
    assert group_of(data, "blue")["instances"] == []


def test_12_hosts_kept_warm_are_not_what_a_rollback_comes_back_to(groups: GroupWorld) -> None:
    """They ran only for a rollback of the deployment before, which this one makes impossible."""
    data = groups.baked()
    data["deployment"]["configuration"]["drain"]["keep_warm_seconds"] = 3600
    for _ in range(20):
        data["drain"] = groups.run("drain_old_color", data)
        if "warm_until" in data["drain"]:
            break
        groups.now += data["drain"]["wait_seconds"]
    assert groups.lock.warm
    assert groups.sizes(BLUE) == (0, 2)
    warm = sorted(groups.instances(BLUE))
    group = group_of(groups.plan("d-2", images={"web": "v1"}), "blue")
    assert (group["min_size"], group["desired_capacity"]) == (0, 0)
    assert group["instances"] == warm, "and they end before its own are launched"


def test_a_retry_of_the_same_execution_notes_the_same(groups: GroupWorld) -> None:
    first = groups.plan()
    again = groups.plan()
    assert [group_of(again, one) for one in COLORS] == [group_of(first, one) for one in COLORS]


@pytest.mark.parametrize("kind", ["throttle", "error500", "lost_answer"])
def test_21_a_group_that_cannot_be_read_is_no_group_without_hosts(
    groups: GroupWorld, kind: Any
) -> None:
    groups.fault(
        "autoscaling", "DescribeAutoScalingGroups", kind, times=3 if kind == "lost_answer" else 1
    )
    with pytest.raises(AwsUnavailable):
        groups.plan()
    assert groups.store.lock("web") is None
    assert groups.plan()["deployment"]["decision"] == "deploy"
