"""Is the world fit for a deployment? Checked before the first change, all findings at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bluegreen import capacity_provider
from bluegreen.capacity import Needs, tasks_that_fit
from bluegreen.color import Color
from bluegreen.compute import NEEDED, Group
from bluegreen.configuration import Colors, ColorSlot
from bluegreen.errors import DeploymentRefused
from bluegreen.look import some

_LONGEST_STICKINESS = 24 * 60 * 60


def check_services(
    colors: Colors, services: Mapping[Color, Mapping[str, Any]], groups: Mapping[Color, str]
) -> None:
    """Each colour's ECS service has to be one that can be driven here.

    services: DescribeServices per colour; groups: target group ARN per colour, none where tasks are
    reached through a proxy on their host.
    Raises DeploymentRefused with one line per finding.
    """
    findings = []
    for color, service in services.items():
        name = f"{color} ({colors[color].ecs_service})"
        controller = (service.get("deploymentController") or {}).get("type", "ECS")
        if controller != "ECS":
            findings.append(
                f"{name}: its deployment controller is {controller}; it has to be ECS, "
                "or two deployers would move the same tasks"
            )
        strategy = (service.get("deploymentConfiguration") or {}).get("strategy", "ROLLING")
        if strategy != "ROLLING":
            findings.append(
                f"{name}: its deployment strategy is {strategy}: ECS would move the same listener; "
                "set it to ROLLING"
            )
        if service.get("schedulingStrategy", "REPLICA") != "REPLICA":
            findings.append(f"{name}: a daemon service has no desired count to set")
        used = [one.get("targetGroupArn") for one in service.get("loadBalancers", [])]
        if used and not groups:
            findings.append(
                f"{name}: the service registers its tasks with a load balancer by itself, which "
                "would send requests past what is switched here"
            )
        if groups and groups[color] not in used:
            findings.append(
                f"{name}: the service does not register its tasks in target group "
                f"{colors[color].target_group}"
            )
    if findings:
        raise DeploymentRefused("\n".join(findings))


def check_groups(
    groups: Mapping[Color, Group],
    instances: Mapping[Color, Sequence[Mapping[str, Any]]],
    services: Mapping[Color, Mapping[str, Any]],
    providers: Mapping[str, Mapping[str, Any]],
    live: Color | None,
) -> None:
    """Each colour's Auto Scaling group has to be able to bring up and end the colour's hosts.

    All of a group's instances end when its colour does, so they have to be the colour's alone.
    instances: ``containerInstances`` of the colour's cluster; services: DescribeServices of it;
    providers: name → DescribeCapacityProviders of those that the services have.
    Raises DeploymentRefused with one line per finding.
    """
    findings = []
    known = {color: {one["ec2InstanceId"] for one in instances[color]} for color in groups}
    for color, group in groups.items():
        unfit = [
            *group.unfit,
            *capacity_provider.unfit(services[color], group.name, providers),
        ]
        findings += [f"{color} ({group.name}): {one}" for one in unfit]
        if strangers := sorted(known[color.other] & set(group.instances)):
            findings.append(
                f"{color} ({group.name}): instances of it are registered with the cluster of "
                f"{color.other} ({some(strangers)}): are the groups mixed up, or is ECS_CLUSTER "
                "in the launch template's user data wrong?"
            )
        if services[color]["runningCount"] and not known[color] & set(group.instances):
            findings.append(
                f"{color} ({group.name}): tasks run in its cluster, but none of the group's "
                "instances is registered there; is it another group?"
            )
        if stuck := sorted(NEEDED & group.suspended):
            findings.append(
                f"{color} ({group.name}): {', '.join(stuck)} is suspended, so that no host can be "
                "made or ended; resume it"
            )
    if live:
        old, new = groups[live], groups[live.other]
        if new.max_size < old.desired_capacity:
            findings.append(
                f"{live.other} ({new.name}): its maximum is {new.max_size}, but {live} has "
                f"{old.desired_capacity} hosts"
            )
    if findings:
        raise DeploymentRefused("\n".join(findings))


def check_alone(slot: ColorSlot, others: Sequence[str]) -> None:
    """A cluster whose hosts end with its colour can have no other service that needs them.

    others: names of the services with tasks of their own there. Raises DeploymentRefused.
    """
    if others:
        raise DeploymentRefused(
            f"cluster {slot.cluster!r} also runs {some(others)}: with two-clusters its hosts are "
            f"those of {slot.ecs_service} alone, and end with them; give the others a cluster of "
            "their own (a daemon service may stay)"
        )


def check_stickiness(seconds: int) -> None:
    """A drain waits as long as group stickiness keeps users on the old colour.

    Raises DeploymentRefused when that is longer than a day.
    """
    if seconds > _LONGEST_STICKINESS:
        raise DeploymentRefused(
            f"group stickiness keeps users on a colour for {seconds} s, and the old colour would "
            f"have to wait for them; set it to {_LONGEST_STICKINESS} s at most, or off"
        )


def check_capacity(
    instances: Sequence[Mapping[str, Any]], needs: Needs, wanted: int, leftovers: int
) -> None:
    """The idle colour has to fit on the container instances.

    leftovers: tasks of the idle colour that have not stopped yet; they end first and make room.
    Raises DeploymentRefused.
    """
    room = tasks_that_fit(instances, needs) + leftovers
    if room < wanted:
        ports = f", host port {min(needs.ports)}" if needs.ports else ""
        raise DeploymentRefused(
            f"the idle colour does not fit: {wanted} tasks wanted, room for {room} on "
            f"{len(instances)} container instances (a task takes {needs.cpu} CPU units, "
            f"{needs.memory} MiB{ports}); add instances or make room"
        )
