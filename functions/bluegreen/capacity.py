"""Does the idle colour fit on the cluster? Asked before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bluegreen.errors import DeploymentRefused

_SIZE = re.compile(r"(?P<number>\d*\.?\d+)\s*(?P<unit>vcpu|gb)?", re.IGNORECASE)


@dataclass(frozen=True)
class Needs:
    """What one task takes: CPU units, memory in MiB, fixed TCP host ports."""

    cpu: int
    memory: int
    ports: frozenset[int]


def needs_of(definition: Mapping[str, Any]) -> Needs:
    """Needs of a task from RegisterTaskDefinition parameters or a described task definition.

    The task's own size counts when it is set, else the sum of its containers (the reservation of
    memory before its limit), as ECS places tasks:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html
    """
    containers = definition["containerDefinitions"]
    cpu = definition.get("cpu")
    memory = definition.get("memory")
    return Needs(
        cpu=_amount(cpu) if cpu else sum(int(one.get("cpu") or 0) for one in containers),
        memory=_amount(memory)
        if memory
        else sum(int(one.get("memoryReservation") or one.get("memory") or 0) for one in containers),
        ports=frozenset(
            int(mapping["hostPort"])
            for one in containers
            for mapping in one.get("portMappings", [])
            if mapping.get("hostPort") and mapping.get("protocol", "tcp") == "tcp"
        ),
    )


def _amount(size: str) -> int:
    """A task's size: CPU units or MiB, or in words, "1 vCPU" or "2 GB".

    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html
    """
    match = _SIZE.fullmatch(size)
    if match is None:
        raise DeploymentRefused(
            f"task size {size!r}: expected CPU units or MiB (512), or words as in 1 vCPU and 2 GB"
        )
    return round(float(match["number"]) * (1024 if match["unit"] else 1))


def tasks_that_fit(instances: Sequence[Mapping[str, Any]], needs: Needs) -> int:
    """How many more such tasks the container instances can take.

    instances: ``containerInstances`` of DescribeContainerInstances. Only ACTIVE instances with a
    connected agent count. A task with a fixed host port fits once on an instance, and not at all
    where the port is taken.
    """
    return sum(
        _fit(instance["remainingResources"], needs)
        for instance in instances
        if takes_tasks(instance)
    )


def takes_tasks(instance: Mapping[str, Any]) -> bool:
    """Whether ECS places tasks on a container instance."""
    return instance["status"] == "ACTIVE" and bool(instance["agentConnected"])


def fit_when_empty(instance: Mapping[str, Any], needs: Needs) -> int:
    """How many such tasks a container instance takes that runs nothing else."""
    return _fit(instance["registeredResources"], needs)


def _fit(resources: Sequence[Mapping[str, Any]], needs: Needs) -> int:
    remaining = {resource["name"]: resource for resource in resources}
    taken = {int(port) for port in remaining["PORTS"].get("stringSetValue", [])}
    if needs.ports & taken:
        return 0
    rooms = [
        remaining[name].get("integerValue", 0) // need
        for name, need in (("CPU", needs.cpu), ("MEMORY", needs.memory))
        if need
    ]
    if needs.ports:
        rooms.append(1)
    return int(min(rooms)) if rooms else 1
