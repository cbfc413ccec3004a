"""One look at a colour: everything that bluegreen/health.py decides on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bluegreen import ecs, health, strategy
from bluegreen.color import Color
from bluegreen.deployment import Deployment
from bluegreen.look import Look

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_logs import CloudWatchLogsClient

# Stopped tasks whose logs are read: the last ones say what the others said.
_EXPLAINED = 2


def color_health(
    ecs_client: ECSClient,
    logs: CloudWatchLogsClient,
    look: Look,
    deployment: Deployment,
    color: Color,
    data: Mapping[str, Any],
) -> health.Facts:
    """Facts about the tasks that a deployment started.

    data: ``$`` with the answers of RegisterTaskDefinition and StartIdleColor.
    """
    started = data["idle"]
    slot = deployment.configuration.colors[color]
    service = ecs.service(ecs_client, slot)
    ecs_deployment_id = started["ecs_deployment_id"]
    primary = ecs.primary_deployment(service)
    replaced = (
        primary["id"] != ecs_deployment_id
        and primary["createdAt"].timestamp() >= started["started_at"]
    )
    tasks = [
        task
        for task in ecs.tasks(ecs_client, slot)
        # Tasks of a service are started by its deployment; others are not this release's.
        if task.get("startedBy") == ecs_deployment_id
    ]
    # A host that is gone takes its place with it: its task is not missing.
    desired = min(started["desired_count"], look.tasks_for(started["desired_count"]))
    return health.Facts(
        desired=desired,
        wanted_targets=look.targets_for(color, desired),
        deployment=next(
            (one for one in service["deployments"] if one["id"] == ecs_deployment_id), None
        ),
        tasks=tasks,
        targets=look.targets(color),
        has_health_check=data["task_definition"]["has_health_check"],
        replaced_by=primary["taskDefinition"] if replaced else "",
        events=[
            event["message"]
            for event in service.get("events", [])
            if event["createdAt"].timestamp() >= started["started_at"]
        ],
        # Those that went with their host, or left it, say nothing about the release.
        died=_deaths(
            ecs_client,
            logs,
            [task for task in tasks if look.has_place_of(task) and not ecs.was_moved(task)],
        ),
    )


def old_color_missing(look: Look, deployment: Deployment, data: Mapping[str, Any]) -> str:
    """Where the old colour does not answer although a proxy sends it a part of the requests; "" if
    nowhere. data: ``$``.

    A load balancer keeps requests from targets that do not answer; a host's proxy has one for each
    colour, and nobody else to send them to.
    """
    color = deployment.from_color
    if color is None or not deployment.on_hosts or not strategy.keeps_old(deployment, data):
        return ""
    missing = health.unhealthy_targets(look.targets(color))
    return f"{color}, which keeps a part of the traffic: {missing}" if missing else ""


def outgrown(
    ecs_client: ECSClient, deployment: Deployment, look: Look, data: Mapping[str, Any]
) -> str:
    """Why the new colour is too small: for the traffic of the old one, as long as that is still to
    come, and for the hosts that there are. "" if it is not. data: ``$``.
    """
    live, old = 0, deployment.from_color
    if old and ("shift" not in data or strategy.keeps_old(deployment, data)):
        slot = deployment.configuration.colors[old]
        live = deployment.wanted_count(ecs.service(ecs_client, slot))
    wanted, started = look.tasks_for(live), data["idle"]["desired_count"]
    if wanted <= started:
        return ""
    return f"{wanted} tasks are needed by now, {deployment.to_color} has {started}"


def _deaths(
    ecs_client: ECSClient, logs: CloudWatchLogsClient, tasks: Sequence[Mapping[str, Any]]
) -> list[str]:
    dead = sorted(
        (task for task in tasks if task["lastStatus"] == "STOPPED"),
        key=lambda task: task["stoppedAt"],
    )
    if not dead:
        return []
    definition, _ = ecs.task_definition(ecs_client, dead[-1]["taskDefinitionArn"])
    return [
        *(str(task.get("stoppedReason")) for task in dead[:-_EXPLAINED]),
        *(ecs.why_stopped(logs, task, definition) for task in dead[-_EXPLAINED:]),
    ]
