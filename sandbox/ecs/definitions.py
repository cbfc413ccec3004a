"""Task definitions, kept to the letter.

AWS's habits: a revision never changes; what was given comes back as it was, with the defaults
filled in that AWS fills in, and with the fields that only AWS writes.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from moto.ecs.exceptions import (
    EcsClientException,
    TaskDefinitionMemoryError,
    TaskDefinitionMissingPropertyError,
    TaskDefinitionNotFoundException,
)

from sandbox.ecs.model import Definition, now
from sandbox.world import World

CONTAINER_DEFAULTS: dict[str, Any] = {
    "cpu": 0,
    "portMappings": [],
    "essential": True,
    "environment": [],
    "mountPoints": [],
    "volumesFrom": [],
    "systemControls": [],
}
CAPABILITY = "com.amazonaws.ecs.capability"


class TaskDefinitions:
    """All families with their revisions."""

    def __init__(self, world: World) -> None:
        self._prefix = f"arn:aws:ecs:{world.region}:{world.account_id}:task-definition/"
        self._registered_by = f"arn:aws:iam::{world.account_id}:root"
        self._families: dict[str, dict[int, Definition]] = {}

    def register(self, given: dict[str, Any]) -> Definition:
        """Make a new revision of what RegisterTaskDefinition was given (without tags)."""
        family = given.get("family") or ""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", family):
            raise EcsClientException("Family contains invalid characters or is too long.")
        containers = given.get("containerDefinitions") or []
        _check_containers(containers, given)
        definition = copy.deepcopy(given)
        definition["containerDefinitions"] = [_with_defaults(c, given) for c in containers]
        definition.setdefault("volumes", [])
        definition.setdefault("placementConstraints", [])
        wanted = definition.get("requiresCompatibilities", [])
        revisions = self._families.setdefault(family, {})
        revision = max(revisions, default=0) + 1
        definition |= {
            "taskDefinitionArn": f"{self._prefix}{family}:{revision}",
            "revision": revision,
            "status": "ACTIVE",
            "compatibilities": ["EC2", "FARGATE"] if "FARGATE" in wanted else ["EXTERNAL", "EC2"],
            "requiresAttributes": _required_attributes(definition),
            "registeredAt": now(),
            "registeredBy": self._registered_by,
        }
        revisions[revision] = definition
        return definition

    def find(self, reference: str) -> Definition:
        """Return the revision of an ARN, ``family:revision``, or the newest ACTIVE of ``family``.

        Raises moto's TaskDefinitionNotFoundException (a ClientException, as in AWS).
        """
        family, _, revision = reference.removeprefix(self._prefix).partition(":")
        revisions = self._families.get(family, {})
        if not revision:
            active = [n for n, d in revisions.items() if d["status"] == "ACTIVE"]
            revision = str(max(active, default=0))
        if not revision.isdigit() or int(revision) not in revisions:
            raise TaskDefinitionNotFoundException
        return revisions[int(revision)]

    def find_active(self, reference: str) -> Definition:
        """Find a revision that tasks may be started of."""
        definition = self.find(reference)
        if definition["status"] != "ACTIVE":
            raise EcsClientException("TaskDefinition is inactive")
        return definition

    def deregister(self, reference: str) -> Definition:
        """Make a revision INACTIVE; it can still be described."""
        definition = self.find(reference)
        definition["status"] = "INACTIVE"
        definition["deregisteredAt"] = now()
        return definition

    def arns(self, family: str | None, status: str, sort: str) -> list[str]:
        """List ARNs of one family (the whole name, as in AWS) or all, by revision."""
        found = [
            definition["taskDefinitionArn"]
            for name in sorted(self._families)
            for _, definition in sorted(self._families[name].items())
            if family in (None, name) and definition["status"] == status
        ]
        return found[::-1] if sort == "DESC" else found

    def families(self, prefix: str, status: str) -> list[str]:
        """List families by the beginning of their names; ``status`` ACTIVE, INACTIVE or ALL."""
        return [
            name
            for name, revisions in sorted(self._families.items())
            if name.startswith(prefix)
            and (
                status == "ALL"
                or any(d["status"] == "ACTIVE" for d in revisions.values()) == (status == "ACTIVE")
            )
        ]


def _check_containers(containers: list[dict[str, Any]], given: dict[str, Any]) -> None:
    if not containers:
        raise EcsClientException("Container list cannot be empty.")
    names = [container.get("name") for container in containers]
    if len(set(names)) != len(names):
        raise EcsClientException("Container names must be unique.")
    if not any(container.get("essential", True) for container in containers):
        raise EcsClientException("At least one essential container is needed.")
    for container in containers:
        for required in ("name", "image"):
            if not container.get(required):
                raise TaskDefinitionMissingPropertyError(required)
        limits = (container.get("memory"), container.get("memoryReservation"), given.get("memory"))
        if not any(limits):
            raise TaskDefinitionMemoryError(container["name"])
        _check_ports(container, given.get("networkMode"))


def _check_ports(container: dict[str, Any], network_mode: str | None) -> None:
    if network_mode not in ("awsvpc", "host"):
        return
    for mapping in container.get("portMappings", []):
        if mapping.get("hostPort") not in (None, mapping.get("containerPort")):
            raise EcsClientException(
                f"When networkMode={network_mode}, the host ports and container ports in port "
                "mappings must match."
            )


def _with_defaults(container: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    filled = copy.deepcopy(CONTAINER_DEFAULTS) | copy.deepcopy(container)
    for mapping in filled["portMappings"]:
        same = given.get("networkMode") in ("awsvpc", "host")
        mapping.setdefault("hostPort", mapping["containerPort"] if same else 0)
        mapping.setdefault("protocol", "tcp")
    return filled


def _required_attributes(definition: Definition) -> list[dict[str, str]]:
    names = {f"{CAPABILITY}.docker-remote-api.1.18"}
    if definition.get("taskRoleArn"):
        names |= {f"{CAPABILITY}.task-iam-role"}
    for container in definition["containerDefinitions"]:
        driver = container.get("logConfiguration", {}).get("logDriver")
        if driver:
            names |= {f"{CAPABILITY}.logging-driver.{driver}"}
        if ".dkr.ecr." in container["image"]:
            names |= {f"{CAPABILITY}.ecr-auth", "ecs.capability.execution-role-ecr-pull"}
        if container.get("healthCheck"):
            names |= {"ecs.capability.container-health-check"}
    return [{"name": name} for name in sorted(names)]
