"""The migration: a one-off task of the new revision that has to succeed before the idle colour
starts. Pure: which revision it runs, where and how, and what is said when it fails.

It needs room beside what runs, but no port. A fixed host port is free on a host only as long as
no task of the same colour runs there, and at this time one may: the old colour of the deployment
before is still warm, or a Classic Load Balancer has both colours on the same port. And a side
container that ECS ends with the migration would count as failed. So it runs a revision of its own
where the deployment's has either.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bluegreen.capacity_provider import names_of
from bluegreen.color import Color
from bluegreen.configuration import Migration
from bluegreen.deployment import Deployment
from bluegreen.errors import DeploymentRefused
from bluegreen.task_definition import DEPLOYMENT_TAG

# Marks the migration's own revision, so that registering twice finds the first one.
MIGRATION_TAG = "ecs-bluegreen:migration"

_FARGATE = frozenset({"FARGATE", "FARGATE_SPOT"})
_LONGEST_CAUSE = 3_000


def color_of_hosts(deployment: Deployment) -> Color:
    """The colour on whose cluster, and like whose tasks, the migration runs.

    With two-clusters the idle one has no hosts yet: they are made when the idle colour starts.
    """
    if deployment.configuration.pattern == "two-clusters" and deployment.from_color:
        return deployment.from_color
    return deployment.to_color


def own_revision(
    migration: Migration, revision: Mapping[str, Any], deployment_id: str
) -> dict[str, Any] | None:
    """The parameters of RegisterTaskDefinition for the migration's own revision; None when that of
    the deployment will do.

    revision: the parameters for the deployment's. Raises DeploymentRefused when it has no such
    container.
    """
    own = copy.deepcopy(dict(revision))
    names = [container["name"] for container in own["containerDefinitions"]]
    if migration.container not in names:
        raise DeploymentRefused(
            f"migration.container: the task definition has no container {migration.container!r}, "
            f"only {', '.join(names)}"
        )
    for container in own["containerDefinitions"]:
        container["essential"] = container["name"] == migration.container
        if own.get("networkMode") != "awsvpc":
            container.pop("portMappings", None)
    if own["containerDefinitions"] == _with_essential_said(revision):
        return None
    tags = [tag for tag in own.get("tags", []) if tag["key"] != DEPLOYMENT_TAG]
    own["tags"] = [*tags, {"key": MIGRATION_TAG, "value": deployment_id}]
    return own


def _with_essential_said(revision: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Containers are essential by default: https://docs.aws.amazon.com/AmazonECS/latest/
    APIReference/API_ContainerDefinition.html
    """
    return [{"essential": True, **one} for one in revision["containerDefinitions"]]


def run_task(
    deployment: Deployment,
    migration: Migration,
    arn: str,
    revision: Mapping[str, Any],
    service: Mapping[str, Any],
) -> dict[str, Any]:
    """What the state machine gives to ``ecs:runTask.sync``: task_definition, cluster, launch_type,
    overrides, timeout_seconds, and network for awsvpc.

    arn: what it runs. service: DescribeServices of the colour like whose tasks it runs. Raises
    DeploymentRefused.
    https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html
    """
    color = color_of_hosts(deployment)
    answer: dict[str, Any] = {
        "task_definition": arn,
        "cluster": deployment.configuration.colors[color].cluster,
        "launch_type": _launch_type(service),
        "overrides": {
            "ContainerOverrides": [
                {
                    "Name": migration.container,
                    "Command": migration.command,
                    "Environment": [
                        {
                            "Name": name,
                            "Value": deployment.rendered(
                                value, deployment.to_color, migration.container
                            ),
                        }
                        for name, value in migration.environment.items()
                    ],
                }
            ]
        },
        "timeout_seconds": migration.timeout_seconds,
    }
    if revision.get("networkMode") == "awsvpc":
        answer["network"] = _network(deployment, color, service)
    return answer


def _launch_type(service: Mapping[str, Any]) -> str:
    """Of a service that is placed by capacity providers: of what these have."""
    providers = names_of(service)
    if not providers:
        return str(service.get("launchType", "EC2"))
    return "FARGATE" if _FARGATE.issuperset(providers) else "EC2"


def _network(deployment: Deployment, color: Color, service: Mapping[str, Any]) -> dict[str, Any]:
    found = service.get("networkConfiguration", {}).get("awsvpcConfiguration")
    if not found:
        raise DeploymentRefused(
            f"ECS service {deployment.configuration.colors[color].ecs_service!r} has no network "
            "configuration, and the migration's task definition has network mode awsvpc"
        )
    return {
        "AwsvpcConfiguration": {
            "Subnets": found["subnets"],
            "SecurityGroups": found.get("securityGroups", []),
            "AssignPublicIp": found.get("assignPublicIp", "DISABLED"),
        }
    }


def is_run_by(task: Mapping[str, Any], deployment_id: str) -> bool:
    """Whether a task (DescribeTasks, with tags) is the migration of a deployment.

    Its tags are those of its revision, and it belongs to no service.
    """
    marks = {(one["key"], one["value"]) for one in task.get("tags", [])}
    ours = {(tag, deployment_id) for tag in (MIGRATION_TAG, DEPLOYMENT_TAG)}
    return bool(marks & ours) and not task.get("group", "").startswith("service:")


def stopped_task(failure: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ECS task that a failure of ``ecs:runTask.sync`` is about, in the shape of DescribeTasks;
    None when it is about none.

    failure: ``Error`` and ``Cause``. Step Functions writes the task as JSON, all its keys with a
    capital letter: https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html
    """
    cause = _json(failure)
    if not cause or "TaskArn" not in cause:
        return None
    task: dict[str, Any] = _small(cause)
    return task


def why_not_run(failure: Mapping[str, Any]) -> str:
    """Why a failure that is about no task has happened.

    What is JSON is not shown as it is, nor what is cut so that it is none any more: it holds the
    overrides, and they may hold secrets.
    """
    error, cause = str(failure.get("Error", "")), _json(failure)
    if cause is None:
        text = str(failure.get("Cause", ""))
        shown = "" if text.lstrip().startswith(("{", "[")) else text
        return f"{error}: {shown[:_LONGEST_CAUSE] or 'no cause given'}"
    failures: Sequence[Mapping[str, Any]] = cause.get("Failures") or cause.get("failures") or []
    said = [_failure(_small(one)) for one in failures]
    return f"{error}: " + ("; ".join(said)[:_LONGEST_CAUSE] or "no cause given")


def _failure(failure: Mapping[str, Any]) -> str:
    """https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html"""
    parts = [failure.get("reason"), failure.get("detail"), failure.get("arn")]
    return ", ".join(str(part) for part in parts if part)


def _json(failure: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        cause = json.loads(failure.get("Cause", ""))
    except ValueError:
        return None
    return cause if isinstance(cause, dict) else None


def _small(value: Any) -> Any:
    """The same with keys that begin with a small letter, as ECS itself writes them."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _small(one) for key, one in value.items()}
    return [_small(one) for one in value] if isinstance(value, list) else value
