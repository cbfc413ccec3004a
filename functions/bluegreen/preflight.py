"""Is the world fit for a deployment? Checked before the first change, all findings at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bluegreen.capacity import Needs, tasks_that_fit
from bluegreen.color import Color
from bluegreen.configuration import Colors
from bluegreen.errors import DeploymentRefused

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
                f"{name}: the service registers its tasks with a load balancer, which would send "
                "requests past the proxies on the hosts"
            )
        if groups and groups[color] not in used:
            findings.append(
                f"{name}: the service does not register its tasks in target group "
                f"{colors[color].target_group}"
            )
    if findings:
        raise DeploymentRefused("\n".join(findings))


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
