"""State ExplainMigration: why the migration has failed, for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluegreen import ecs
from bluegreen.deployment import parse
from bluegreen.errors import MigrationFailed
from bluegreen.migration import stopped_task, why_not_run
from runtime import clients
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """``$.migration_failure`` is what Step Functions says: Error and Cause.

    Raises MigrationFailed, always. A task whose time was up is stopped before, whoever has the lock
    by now: Step Functions does not promise to do it, and nobody else will.
    """
    failure = invocation.data["migration_failure"]
    migration = invocation.data["task_definition"]["migration"]
    revision = migration["task_definition"]
    container = parse(invocation.data).configuration.migration
    which = f"the migration ({container.container})" if container else "the migration"
    if failure["Error"] == "States.Timeout":
        tails = _stop(migration["cluster"], revision)
        raise MigrationFailed(
            "; ".join(
                [
                    f"{which} did not end within {migration['timeout_seconds']} s "
                    "(timeout_seconds), nothing was shifted",
                    *(tails or ["no task of it is there any more"]),
                ]
            )
        )
    stopped = stopped_task(failure)
    why = _why_stopped(stopped, revision) if stopped else why_not_run(failure)
    raise MigrationFailed(f"{which} failed, nothing was shifted: {why}")


def _stop(cluster: str, revision: str) -> list[str]:
    """Stop the tasks of a revision that belong to no service; what they and those that have stopped
    meanwhile wrote last.
    """
    client, family = clients.ecs(), revision.rsplit("/", 1)[-1].rpartition(":")[0]
    said = []
    for one in ecs.tasks_of_family(client, cluster, family):
        if one["taskDefinitionArn"] == revision and not one.get("group", "").startswith("service:"):
            why: dict[str, str] = {}
            if one["desiredStatus"] != "STOPPED":
                reason = "the time of the migration is up"
                client.stop_task(cluster=cluster, task=one["taskArn"], reason=reason)
                why = {"stoppedReason": f"stopped: {reason}"}
            said.append(_why_stopped({**one, **why}, revision))
    return said


def _why_stopped(stopped: Mapping[str, Any], revision: str) -> str:
    definition, _ = ecs.task_definition(clients.ecs(), revision)
    return ecs.why_stopped(clients.logs(), stopped, definition)
