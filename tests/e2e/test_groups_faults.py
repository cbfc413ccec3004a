"""Groups and hosts that fail: both groups as before, and the cause names activity or instance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from tests.e2e.running_groups import HOSTS, RunningGroups, other
from tests.e2e.running_hosts import assert_failed

# What only deployments on groups call; test_api_errors.py has the rest.
CALLS = [
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeScalingActivities",
    "autoscaling:ResumeProcesses",
    "autoscaling:SuspendProcesses",
    "autoscaling:UpdateAutoScalingGroup",
    "ecs:UpdateContainerInstancesState",
]
CLASSIC_CALLS = [
    "autoscaling:AttachLoadBalancers",
    "autoscaling:DescribeLoadBalancers",
    "autoscaling:DetachLoadBalancers",
    "elasticloadbalancing:DescribeInstanceHealth",
    "elasticloadbalancing:DescribeLoadBalancerAttributes",
]


@contextmanager
def unchanged(groups: RunningGroups) -> Iterator[None]:
    """The same live hosts, both groups as they were, the lock free, no request lost on the way."""
    before = groups.world()
    with groups.under_load():
        yield
    assert groups.world() == before
    assert "held" not in groups.lock()


@pytest.mark.parametrize("groups", ["alb", "clb"], indirect=True)
def test_24_a_group_that_cannot_launch_says_why(groups: RunningGroups) -> None:
    groups.push("no-capacity")
    idle = other(groups.live())
    with unchanged(groups), groups.faults("group", kind="cannot_launch", group=f"web-{idle}"):
        ended = groups.deploy("no-capacity")
    assert_failed(ended, "IdleColorUnhealthy", f"group web-{idle} cannot launch", "capacity")
    assert "(activity " in ended.cause
    assert groups.record(ended.name)["outcome"] == "rolled_back"


def test_24_an_instance_that_never_registers_is_named(groups: RunningGroups) -> None:
    groups.push("unregistered")
    idle = other(groups.live())
    with (
        unchanged(groups),
        groups.configured({"health.deadline_seconds": 8}),
        groups.faults("group", kind="never_registers", group=f"web-{idle}"),
    ):
        arn = groups.start_execution(groups.request("unregistered"))
        groups.wait_for(lambda: len(groups.instances(idle)) == HOSTS)
        launched = groups.instances(idle)
        ended = groups.wait(arn)
    assert_failed(ended, "IdleColorUnhealthy", "1 of 2 hosts ready", "has not registered")
    assert any(instance in ended.cause for instance in launched)


def test_11_an_instance_that_dies_while_the_service_starts_is_replaced(
    groups: RunningGroups,
) -> None:
    began = datetime.now(UTC)
    idle = other(groups.live())
    groups.push("replaced")
    with groups.under_load():
        groups.fault("group", kind="instance_dies", group=f"web-{idle}", when="starting")
        arn = groups.start_execution(groups.request("replaced"))
        groups.wait_for(lambda: len(groups.instances(idle)) == HOSTS)
        first = groups.instances(idle)
        ended = groups.wait(arn)
    assert ended.succeeded, ended.cause
    groups.assert_all_new(idle, "replaced", began)
    assert groups.instances(idle) != first


def test_12_an_alarm_does_not_end_the_hosts_of_the_way_back(groups: RunningGroups) -> None:
    """Once the traffic has moved the old group has none, which its alarms would take for idle."""
    before = groups.world()
    groups.push("scaled-in")
    with groups.configured({"bake.seconds": 20}), groups.under_load():
        groups.fault("group", kind="scale_in", group=f"web-{groups.live()}", when="shifted")
        arn = groups.start_execution(groups.request("scaled-in"), name="scaled-in")
        groups.wait_for_state(arn, "WaitForBake")
        groups.wait_for(lambda: groups.control("GET", "faults")[0]["hits"])
        # Live by now: its hosts have to end although they are protected.
        groups.protect(groups.live())
        groups.stop_execution(arn)
        groups.wait_until_unlocked()
    assert groups.world() == before
    assert groups.record("scaled-in")["outcome"] == "rolled_back"


def test_12_an_alarm_does_not_size_the_idle_group(groups: RunningGroups) -> None:
    idle, began = other(groups.live()), datetime.now(UTC)
    groups.push("scaled-out")
    with groups.under_load():
        groups.fault("group", kind="scale_out", group=f"web-{idle}", when="launching")
        ended = groups.deploy("scaled-out")
    assert ended.succeeded, ended.cause
    groups.assert_all_new(idle, "scaled-out", began)
    assert len(groups.instances(idle)) == HOSTS


@pytest.mark.parametrize(
    "state", ["WaitForIdleColor", "WaitForHealth", "WaitForBake", "WaitForDrain"]
)
def test_23_stopped_by_hand(groups: RunningGroups, state: str) -> None:
    before, began = groups.world(), datetime.now(UTC)
    idle, tag = other(groups.live()), f"stopped-{state.lower()}"
    groups.push(tag)
    with groups.under_load():
        arn = groups.start_execution(groups.request(tag), name=tag)
        groups.wait_for_state(arn, state)
        groups.stop_execution(arn)
        assert groups.wait(arn).status == "ABORTED"
        groups.sweep()
        groups.wait_until_unlocked()
    if state == "WaitForDrain":
        groups.assert_all_new(idle, tag, began)
        assert groups.record(tag)["outcome"] == "succeeded"
    else:
        assert groups.world() == before
        assert groups.record(tag)["outcome"] == "rolled_back"


@pytest.mark.parametrize("groups", ["clb"], indirect=True)
def test_23_stopped_while_both_groups_are_attached(groups: RunningGroups) -> None:
    before = groups.world()
    groups.push("stopped-both")
    with groups.configured({"router.overlap_seconds": 30}), groups.under_load():
        arn = groups.start_execution(groups.request("stopped-both"), name="stopped-both")
        groups.wait_for(lambda: set(groups.weights().values()) == {50})
        groups.wait_for_state(arn, "WaitForShift")
        groups.stop_execution(arn)
        groups.sweep()
        groups.wait_until_unlocked()
    assert groups.world() == before
    assert groups.record("stopped-both")["outcome"] == "rolled_back"


@pytest.mark.parametrize(
    ("groups", "kind"),
    [("alb", "throttle"), ("alb", "lost_answer"), ("clb", "error500"), ("clb", "lost_answer")],
    indirect=["groups"],
)
def test_21_each_call_of_a_deployment_fails_once(groups: RunningGroups, kind: str) -> None:
    began, idle = datetime.now(UTC), other(groups.live())
    tag = f"calls-{kind.replace('_', '-')}"
    groups.push(tag)
    classic = "clb" in groups.options
    for operation in [*CALLS, *(CLASSIC_CALLS if classic else [])]:
        groups.fault("api_error", operation=operation, kind=kind, each_once=True)
    with groups.under_load():
        ended = groups.deploy(tag)
        groups.wait_until_unlocked()
        assert ended.succeeded, ended.cause
        groups.assert_faults_hit()
    groups.assert_all_new(idle, tag, began)


def test_15_protected_instances_end_too(groups: RunningGroups) -> None:
    """As a capacity provider with managed termination protection leaves them; and an idle group
    stays suspended, though somebody has resumed it since.
    """
    live, began = groups.live(), datetime.now(UTC)
    groups.protect(live)
    groups.push("protected")
    with groups.configured({"bake.seconds": 3}), groups.under_load():
        arn = groups.start_execution(groups.request("protected"))
        groups.wait_for_state(arn, "WaitForBake")
        groups.client("autoscaling").resume_processes(AutoScalingGroupName=f"web-{live}")
        ended = groups.wait(arn)
    assert ended.succeeded, ended.cause
    groups.assert_all_new(other(live), "protected", began)
    assert "AlarmNotification" in groups.group(live)["suspended"]
