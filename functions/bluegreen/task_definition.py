"""From the live task definition to the next revision: a pure transformation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from bluegreen.configuration import HostPort
from bluegreen.errors import DeploymentRefused

# Marks the revision of a deployment, so that registering twice finds the first one.
DEPLOYMENT_TAG = "ecs-bluegreen:deployment"

# Fields that DescribeTaskDefinition answers and RegisterTaskDefinition does not take:
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskDefinition.html
_OUTPUT_ONLY = frozenset(
    {
        "taskDefinitionArn",
        "revision",
        "status",
        "requiresAttributes",
        "compatibilities",
        "registeredAt",
        "deregisteredAt",
        "deleteRequestedAt",
        "registeredBy",
    }
)


def next_revision(
    live: Mapping[str, Any],
    tags: Sequence[Mapping[str, str]],
    *,
    deployment_id: str,
    images: Mapping[str, str],
    environment: Mapping[str, Mapping[str, str]],
    host_port: HostPort | None = None,
    cpu: str | None = None,
    memory: str | None = None,
) -> dict[str, Any]:
    """The parameters of RegisterTaskDefinition for a deployment.

    live: ``taskDefinition`` of DescribeTaskDefinition; tags: its ``tags``.
    images: container → ``repository@sha256:…``. environment: container → variables to set.
    host_port: the fixed port of the colour that will run it. cpu, memory: task size, if it changes.
    Everything else stays to the letter. Tags of AWS's own (``aws:``) cannot be set by anyone and
    are left out.
    Raises DeploymentRefused when a container or port is not in the live definition.
    """
    revision = {key: copy.deepcopy(value) for key, value in live.items() if key not in _OUTPUT_ONLY}
    containers = {container["name"]: container for container in revision["containerDefinitions"]}
    for name, image in images.items():
        _container(containers, name)["image"] = image
    for name, variables in environment.items():
        _set_environment(_container(containers, name), variables)
    if host_port:
        _mapping(_container(containers, host_port.container), host_port.container_port)[
            "hostPort"
        ] = host_port.host_port
    if cpu:
        revision["cpu"] = cpu
    if memory:
        revision["memory"] = memory
    revision["tags"] = [
        dict(tag)
        for tag in tags
        if not tag["key"].startswith("aws:") and tag["key"] != DEPLOYMENT_TAG
    ] + [{"key": DEPLOYMENT_TAG, "value": deployment_id}]
    return revision


def images_of(definition: Mapping[str, Any]) -> dict[str, str]:
    """Container → image of a task definition."""
    return {
        container["name"]: container["image"] for container in definition["containerDefinitions"]
    }


def belongs_to(tags: Sequence[Mapping[str, str]], deployment_id: str) -> bool:
    """Whether a revision's tags say that this deployment registered it."""
    return any(tag["key"] == DEPLOYMENT_TAG and tag["value"] == deployment_id for tag in tags)


def render(template: str, *, color: str, deployment_id: str, digest: str) -> str:
    """Fill in {color}, {deployment_id} and {digest}; any other brace stays as it is."""
    return (
        template.replace("{color}", color)
        .replace("{deployment_id}", deployment_id)
        .replace("{digest}", digest)
    )


def _container(containers: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any]:
    if name not in containers:
        raise DeploymentRefused(
            f"the live task definition has no container {name!r}, only {', '.join(containers)}"
        )
    return containers[name]


def _mapping(container: dict[str, Any], container_port: int) -> dict[str, Any]:
    mappings: list[dict[str, Any]] = container.get("portMappings", [])
    for mapping in mappings:
        if mapping.get("containerPort") == container_port:
            return mapping
    ports = ", ".join(str(mapping.get("containerPort")) for mapping in mappings) or "none"
    raise DeploymentRefused(
        f"container {container['name']!r} of the live task definition has no port mapping for "
        f"container port {container_port} (it has: {ports})"
    )


def _set_environment(container: dict[str, Any], variables: Mapping[str, str]) -> None:
    if not variables:
        return
    secrets = {secret["name"] for secret in container.get("secrets", [])}
    if clash := secrets & set(variables):
        raise DeploymentRefused(
            f"container {container['name']!r}: {', '.join(sorted(clash))} is a secret in the live "
            "task definition and cannot be set as plain environment too"
        )
    entries = container.setdefault("environment", [])
    known = {entry["name"]: entry for entry in entries}
    for name, value in variables.items():
        if name in known:
            known[name]["value"] = value
        else:
            entries.append({"name": name, "value": value})
