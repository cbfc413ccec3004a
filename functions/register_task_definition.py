"""State RegisterTaskDefinition: the live definition with the new images, as one new revision."""

from __future__ import annotations

from typing import Any

from bluegreen import ecs
from bluegreen.deployment import Deployment, parse
from bluegreen.task_definition import belongs_to, next_revision
from runtime import clients
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers arn, and has_health_check: whether a container of it has one.

    Called again, it finds the revision that it has registered.
    """
    deployment = parse(invocation.data)
    invocation.store.prove(deployment, invocation.now)
    base = deployment.snapshot.services[deployment.from_color or deployment.to_color]
    live, tags = ecs.task_definition(clients.ecs(), base.task_definition)
    revision = next_revision(
        live,
        tags,
        deployment_id=deployment.id,
        images=deployment.images,
        environment=deployment.environment(),
        host_port=deployment.configuration.colors[deployment.to_color].host_port,
        cpu=deployment.overrides.cpu,
        memory=deployment.overrides.memory,
    )
    arn = _registered(deployment, live["family"], base.task_definition) or _register(revision)
    return {
        "arn": arn,
        "has_health_check": any(
            container.get("healthCheck") for container in revision["containerDefinitions"]
        ),
    }


def _register(revision: dict[str, Any]) -> str:
    answer = clients.ecs_once().register_task_definition(**revision)
    return answer["taskDefinition"]["taskDefinitionArn"]


def _registered(deployment: Deployment, family: str, base: str) -> str | None:
    """The revision of this deployment if an earlier attempt got that far.

    RegisterTaskDefinition has no client token: its answer can be lost after its effect.
    """
    for arn in ecs.newest_revisions(clients.ecs(), family):
        if arn == base:
            return None
        _, tags = ecs.task_definition(clients.ecs(), arn)
        if belongs_to(tags, deployment.id):
            return arn
    return None
