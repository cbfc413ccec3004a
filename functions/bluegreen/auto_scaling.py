"""EC2 Auto Scaling of the hosts of a colour. Thin: it calls, pages and shapes; what to do about it
is decided in bluegreen/compute.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from bluegreen import ecs
from bluegreen.compute import FIGHTING, Group
from bluegreen.deployment import GroupSnapshot
from bluegreen.errors import DeploymentRefused
from bluegreen.look import some

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient

# https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_SetInstanceProtection.html
_PROTECTIONS_PER_CALL = 50
# What the template's policies ask for.
_TAG = ("ecs-bluegreen", "group")
# Not in the group any more for what is decided here, though still shown for a moment.
_GONE = frozenset({"Terminated", "Detached"})
# SetInstanceProtection refuses all others: "The instance i-… is not in InService or EnteringStandby
# or Standby." One that starts can be relieved of its protection later, one that ends goes anyway.
_PROTECTABLE = frozenset({"InService", "EnteringStandby", "Standby"})


def read(client: AutoScalingClient, name: str) -> Group:
    """DescribeAutoScalingGroups of one group. Raises DeploymentRefused when there is none."""
    groups = client.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    if not groups:
        raise DeploymentRefused(f"there is no Auto Scaling group {name!r}")
    [group] = groups
    there = [one for one in group["Instances"] if one["LifecycleState"] not in _GONE]
    return Group(
        name=name,
        min_size=group["MinSize"],
        max_size=group["MaxSize"],
        desired_capacity=group["DesiredCapacity"],
        instances={one["InstanceId"]: one["LifecycleState"] for one in there},
        protected=frozenset(
            one["InstanceId"]
            for one in there
            if one["ProtectedFromScaleIn"] and one["LifecycleState"] in _PROTECTABLE
        ),
        suspended=frozenset(one["ProcessName"] for one in group["SuspendedProcesses"]),
        unfit=tuple(_unfit(group)),
    )


def _unfit(group: Mapping[str, Any]) -> Iterator[str]:
    """What a deployment could not handle, or the policy of the functions does not allow."""
    tags = {(one["Key"], one.get("Value")) for one in group.get("Tags", [])}
    if _TAG not in tags:
        yield "it lacks the tag ecs-bluegreen: group, without which AWS refuses to let us size it"
    overrides = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {}).get("Overrides", [])
    if (
        any("WeightedCapacity" in one for one in overrides)
        or group.get("DesiredCapacityType", "units") != "units"
    ):
        yield "its capacity is not counted in instances (weights, vCPUs or memory)"
    if "WarmPoolConfiguration" in group:
        yield "it has a warm pool, whose instances are not new"
    standby = [
        one["InstanceId"] for one in group["Instances"] if "Standby" in one["LifecycleState"]
    ]
    if standby:
        yield f"in Standby, which no change of its size ends: {some(standby)}"


def snapshot(group: Group) -> GroupSnapshot:
    """What RollBack has to know of a group."""
    return GroupSnapshot(
        min_size=group.min_size,
        desired_capacity=group.desired_capacity,
        suspended=sorted(group.suspended),
        instances=sorted(group.instances),
    )


def resize(
    client: AutoScalingClient,
    group: Group,
    *,
    min_size: int | None = None,
    desired_capacity: int | None = None,
) -> None:
    """UpdateAutoScalingGroup; what is given as it is already is not written again.

    A group that is smaller than its new minimum grows to it, as AWS wants both to fit.
    """
    change: dict[str, Any] = {}
    wanted_min = group.min_size if min_size is None else min_size
    wanted = max(
        group.desired_capacity if desired_capacity is None else desired_capacity, wanted_min
    )
    if wanted_min != group.min_size:
        change["MinSize"] = wanted_min
    # A size that is not to change is not sent: somebody may be changing it.
    if wanted != group.desired_capacity:
        change["DesiredCapacity"] = wanted
    if change:
        client.update_auto_scaling_group(AutoScalingGroupName=group.name, **change)


def empty(client: AutoScalingClient, group: Group) -> None:
    """End all instances of a group, protected ones too; lifecycle hooks run as always."""
    for batch in ecs.batches(sorted(group.protected), _PROTECTIONS_PER_CALL):
        try:
            client.set_instance_protection(
                AutoScalingGroupName=group.name, InstanceIds=batch, ProtectedFromScaleIn=False
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ValidationError":
                raise
            # One has left its state since it was read. The next pass reads it again; whoever asks
            # has a deadline.
            return
    resize(client, group, min_size=0, desired_capacity=0)


def set_suspended(client: AutoScalingClient, group: Group, processes: Collection[str]) -> None:
    """Of the processes that would fight, suspend these and resume the others; what else somebody
    has suspended is theirs.
    """
    wanted = FIGHTING & set(processes)
    if more := sorted(wanted - group.suspended):
        client.suspend_processes(AutoScalingGroupName=group.name, ScalingProcesses=more)
    if fewer := sorted(FIGHTING & group.suspended - wanted):
        client.resume_processes(AutoScalingGroupName=group.name, ScalingProcesses=fewer)


def failed_launches(client: AutoScalingClient, name: str, since: float) -> list[str]:
    """What Auto Scaling says of each launch that has failed since (epoch seconds), newest first.

    https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeScalingActivities.html
    """
    failed: list[str] = []
    pages = client.get_paginator("describe_scaling_activities").paginate(AutoScalingGroupName=name)
    for page in pages:
        for activity in page["Activities"]:
            if activity["StartTime"].timestamp() < since:
                if "EndTime" in activity:
                    return failed
                # Those in progress come first, however old they are.
                continue
            is_launch = activity["Description"].startswith("Launching")
            if is_launch and activity["StatusCode"] in ("Failed", "Cancelled"):
                said = activity.get("StatusMessage") or activity["Description"]
                failed.append(f"{said} (activity {activity['ActivityId']})")
    return failed
