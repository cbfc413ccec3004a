"""State RegisterTaskDefinition: the live definition with the new images, as one new revision."""

from __future__ import annotations

from typing import Any

from bluegreen import ecs, migration
from bluegreen.deployment import Deployment, parse
from bluegreen.task_definition import DEPLOYMENT_TAG, next_revision
from runtime import clients
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers arn, has_health_check (whether a container of it has one), and ``migration`` (what to
    run before the start, bluegreen/migration.py) when there is one.

    Called again, it finds the revisions that it has registered.
    """
    deployment = parse(invocation.data)
    invocation.store.prove(deployment, invocation.now)
    live = deployment.snapshot.services[deployment.from_color or deployment.to_color]
    base, tags = ecs.task_definition(clients.ecs(), deployment.base or live.task_definition)
    revision = next_revision(
        base,
        tags,
        deployment_id=deployment.id,
        images=deployment.images,
        environment=deployment.environment(),
        host_port=deployment.configuration.colors[deployment.to_color].host_port,
        cpu=deployment.overrides.cpu,
        memory=deployment.overrides.memory,
    )
    # Before the deployment's own, which stays the newest of its family.
    own = _own_revision(deployment, revision)
    arn = _register(deployment, revision, DEPLOYMENT_TAG)
    invocation.store.note_revision(deployment, arn)
    answer = {
        "arn": arn,
        "has_health_check": any(
            container.get("healthCheck") for container in revision["containerDefinitions"]
        ),
    }
    wanted = deployment.configuration.migration
    if wanted is None:
        return answer
    slot = deployment.configuration.colors[migration.color_of_hosts(deployment)]
    service = ecs.service(clients.ecs(), slot)
    run = migration.run_task(deployment, wanted, own or arn, revision, service)
    # Nothing renews the lease while it runs.
    invocation.store.prove(deployment, invocation.now + wanted.timeout_seconds)
    return {**answer, "migration": run}


def _own_revision(deployment: Deployment, revision: dict[str, Any]) -> str | None:
    """The ARN of the migration's own revision, None if it has none."""
    wanted = deployment.configuration.migration
    if wanted is None:
        return None
    own = migration.own_revision(wanted, revision, deployment.id)
    return _register(deployment, own, migration.MIGRATION_TAG) if own else None


def _register(deployment: Deployment, revision: dict[str, Any], tag: str) -> str:
    """The revision that carries the deployment's id under this tag, made if need be.

    RegisterTaskDefinition has no client token: its answer can be lost after its effect.
    """
    marked = {"key": tag, "value": deployment.id}
    live = {one.task_definition for one in deployment.snapshot.services.values()}
    for arn in ecs.newest_revisions(clients.ecs(), revision["family"]):
        if arn == deployment.base or arn in live:
            break
        if marked in ecs.task_definition(clients.ecs(), arn)[1]:
            return arn
    answer = clients.ecs_once().register_task_definition(**revision)
    return answer["taskDefinition"]["taskDefinitionArn"]
