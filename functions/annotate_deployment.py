"""AnnotateDeployment: a deployment that has ended becomes an annotation in Mackerel's graphs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bluegreen.console import link
from bluegreen.store import Record, Store
from containermetrics import services
from containermetrics.model import Annotation
from containermetrics.series import role_name
from containermetrics.store import MetricsStore
from runtime import clients
from runtime.invocation import logger, translating_aws_errors
from runtime.settings import MetricsSettings

_REASON_LENGTH = 400


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """event: ``Step Functions Execution Status Change`` of an execution that has ended:
    https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html

    Answers ``{"annotated": deployment id or null}``: null where there is nothing to show, as the
    deployment changed nothing, its recovery is still to come, or its cluster has no metrics.
    """
    settings = MetricsSettings.from_env(os.environ)
    return translating_aws_errors(lambda: _annotate(event["detail"], settings))


def _annotate(detail: Mapping[str, Any], settings: MetricsSettings) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(detail.get("input") or "{}")
    if request.get("action") == "promote":
        return {"annotated": None}
    # A recovery, or a rollback by hand, changes how the deployment it is about has ended. One that
    # was asked for by service finds out which that is.
    answer: dict[str, Any] = json.loads(detail.get("output") or "{}")
    found = answer.get("recovery", {}).get("deployment_id")
    deployment_id = str(request.get("deployment_id") or found or detail["name"])
    record = Store(clients.dynamodb(), settings.deployments_table, 0).read(deployment_id)
    if record is None or record.deployment is None or record.outcome in (None, "nothing_to_do"):
        return {"annotated": None}
    places = _places(record, settings)
    store = MetricsStore(clients.dynamodb(), settings.table)
    for service, (cluster, role) in places.items():
        store.keep_annotation(cluster, annotation(record, _epoch(detail), service, role))
    if not places:
        return {"annotated": None}
    logger().info("annotated", extra={"deployment": deployment_id})
    return {"annotated": deployment_id}


def _places(record: Record, settings: MetricsSettings) -> dict[str, tuple[str, str]]:
    """Mackerel service → cluster whose backlog the annotation waits in, role: both colours' where
    they have clusters, and Mackerel services, of their own.
    """
    assert record.deployment is not None
    places = {}
    for color in (record.deployment.to_color.other, record.deployment.to_color):
        slot = record.deployment.configuration.colors[color]
        cluster = services.cluster(clients.ssm(), settings.parameter_prefix, slot.cluster)
        if cluster is not None:
            role = cluster.mackerel.roles.get(slot.ecs_service) or record.service
            places[cluster.mackerel.service] = (slot.cluster, role)
    return places


def annotation(record: Record, ended_at: float, service: str, role: str) -> Annotation:
    """What the graphs show of a deployment. service, role: of Mackerel."""
    deployment = record.deployment
    assert deployment is not None
    before = deployment.from_color or "nothing"
    lines = [
        f"deployment {record.id}",
        *(f"{name}: {image}" for name, image in deployment.images.items()),
        *([record.reason[:_REASON_LENGTH]] if record.reason else []),
        link(deployment.execution_arn),
    ]
    return Annotation(
        key=record.id,
        title=f"{record.service}: {before} → {deployment.to_color}, {record.outcome}",
        description="\n".join(lines),
        from_=int(deployment.started_at),
        to=max(int(ended_at), int(deployment.started_at)),
        service=service,
        roles=_roles(role),
    )


def _roles(role: str) -> list[str]:
    """The role as Mackerel has it, none when it cannot be a role there."""
    try:
        return [role_name(role)]
    except ValueError:
        return []


def _epoch(detail: Mapping[str, Any]) -> float:
    """When the execution ended; the event has milliseconds."""
    stopped = detail["stopDate"]
    if isinstance(stopped, str):
        return datetime.fromisoformat(stopped).timestamp()
    return float(stopped) / 1000
