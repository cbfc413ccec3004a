"""What an earlier deployment ran, to be deployed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bluegreen import ecr, ecs
from bluegreen.configuration import ServiceConfiguration
from bluegreen.errors import DeploymentRefused, InvalidRequest
from bluegreen.image import parse
from bluegreen.store import Record, Store
from bluegreen.task_definition import belongs_to, images_of

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_ecs import ECSClient


@dataclass(frozen=True)
class Earlier:
    """The task definition that a deployment registered. images: container → repository@digest."""

    arn: str
    definition: Mapping[str, Any]
    tags: list[dict[str, str]]
    images: dict[str, str]


def find(
    ecs_client: ECSClient,
    ecr_client: ECRClient,
    store: Store,
    deployment_id: str,
    configuration: ServiceConfiguration,
) -> Earlier:
    """What a deployment registered, with images that are there still.

    Raises InvalidRequest when there is no such deployment of the service, DeploymentRefused when
    it cannot be deployed again.
    """
    record = store.read(deployment_id)
    if record is None or record.service != configuration.service:
        raise InvalidRequest(
            f"service {configuration.service} has no deployment {deployment_id!r} on record; "
            "deploy an image by its digest instead"
        )
    arn = record.revision or _tagged(ecs_client, record)
    if arn is None:
        raise DeploymentRefused(
            f"deployment {deployment_id} registered no task definition that is there still: "
            "deploy an image by its digest instead"
        )
    definition, tags = ecs.task_definition(ecs_client, arn)
    return Earlier(arn, definition, tags, _images(ecr_client, definition, configuration, record.id))


def _tagged(client: ECSClient, record: Record) -> str | None:
    """For deployments of before their revisions were recorded: they have a tag."""
    if record.deployment is None:
        return None
    known = record.deployment.snapshot.services[record.deployment.to_color].task_definition
    family = known.rsplit("/", 1)[-1].rsplit(":", 1)[0]
    for arn in ecs.newest_revisions(client, family):
        _, tags = ecs.task_definition(client, arn)
        if belongs_to(tags, record.id):
            return arn
    return None


def _images(
    client: ECRClient,
    definition: Mapping[str, Any],
    configuration: ServiceConfiguration,
    deployment_id: str,
) -> dict[str, str]:
    """Images that were deployed by digest. Those that no deployment has set stay as they are."""
    ran = images_of(definition)
    try:
        return {
            one.name: ecr.resolve(
                client, one.name, one.repository, parse(one.name, one.repository, ran[one.name])
            )
            for one in configuration.containers
            if "@" in ran.get(one.name, "")
        }
    except InvalidRequest as error:
        raise DeploymentRefused(
            f"deployment {deployment_id} cannot be repeated: {error}"
        ) from error
