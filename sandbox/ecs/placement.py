"""Where a task fits: CPU, memory and host ports of the container instances.

AWS's habits: what a task reserves is free again only when the task is STOPPED, so a task that still
drains keeps its host port; dynamic host ports (hostPort 0) come from the ephemeral range.

Placement is always a spread: over zones, then over instances.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.ecs.model import Definition, State

DYNAMIC_PORTS = range(49_153, 60_999)
AGENT_PORTS = ("22", "2375", "2376", "51678", "51679")  # reserved on every instance


@dataclass(frozen=True)
class Needs:
    """What a task definition reserves: CPU units, MiB, fixed TCP host ports."""

    cpu: int
    memory: int
    ports: frozenset[int]


def needs_of(definition: Definition) -> Needs:
    """Add up the containers; what the task level says wins."""
    containers = definition["containerDefinitions"]
    cpu = sum(int(c.get("cpu", 0)) for c in containers)
    memory = sum(int(c.get("memoryReservation") or c.get("memory") or 0) for c in containers)
    bridge = definition.get("networkMode") != "awsvpc"
    ports = {int(m["hostPort"]) for c in containers for m in c["portMappings"] if bridge}
    return Needs(
        cpu=int(definition.get("cpu") or cpu),
        memory=int(definition.get("memory") or memory),
        ports=frozenset(ports - {0}),
    )


def update_resources(instance: Any, state: State) -> None:
    """Write into moto's container instance what is left of it."""
    tasks = list(state.tasks_on(instance))
    used = [needs_of(task.definition) for task in tasks]
    ports = sorted({str(port) for task in tasks for port in task.ports()})
    taken = {"CPU": sum(n.cpu for n in used), "MEMORY": sum(n.memory for n in used)}
    for registered, remaining in zip(
        instance.registered_resources, instance.remaining_resources, strict=True
    ):
        name = registered["name"]
        if name in taken:
            remaining["integerValue"] = registered["integerValue"] - taken[name]
        elif name == "PORTS":
            remaining["stringSetValue"] = [*registered["stringSetValue"], *ports]
    instance.running_tasks_count = sum(task.last_status == "RUNNING" for task in tasks)
    instance.pending_tasks_count = sum(task.last_status == "PENDING" for task in tasks)


class NoRoomError(Exception):
    """A task cannot be placed; the message is the middle of ECS's service event.

    ``reasons`` is what RunTask's failures say of each container instance, by its ARN: RESOURCE:CPU,
    RESOURCE:MEMORY, RESOURCE:PORTS, AGENT and so on (developer guide of ECS,
    api_failures_messages); by "" of none in particular. It is empty when no instance was looked at.
    """

    def __init__(self, message: str, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = reasons or {}


@dataclass(frozen=True)
class Problem:
    """Why a task does not fit on an instance: in a service event, and as a failure of RunTask."""

    words: str
    reason: str


def choose_instance(
    definition: Definition,
    instances: Iterable[Any],
    state: State,
    group: str,
    constraints: Iterable[dict[str, Any]],
) -> Any:
    """Choose a container instance of moto's for one more task of ``group``; raises NoRoomError."""
    active = [i for i in instances if i.status == "ACTIVE"]
    usable = [i for i in active if i.agent_connected]
    reasons = {str(i.container_instance_arn): "AGENT" for i in active if not i.agent_connected}
    if not usable:
        raise NoRoomError("Reason: No Container Instances were found in your cluster.", reasons)
    needs = needs_of(definition)
    distinct = any(c.get("type") == "distinctInstance" for c in constraints)
    complaint = ""
    fitting = []
    for instance in usable:
        problem = _problem(instance, needs, state, group if distinct else None)
        if problem is None:
            fitting.append(instance)
        else:
            reasons[str(instance.container_instance_arn)] = problem.reason
            complaint = f"The closest matching (container-instance {instance.id}) {problem.words}."
    if not fitting:
        raise NoRoomError(complaint, reasons)

    def load(instance: Any) -> tuple[int, int, str]:
        mine = [t for t in state.tasks.values() if t.group == group and t.active]
        zone = _zone(instance)
        in_zone = sum(t.instance is not None and _zone(t.instance) == zone for t in mine)
        return in_zone, sum(t.instance is instance for t in mine), str(instance.id)

    return min(fitting, key=load)


def _zone(instance: Any) -> str:
    return str(instance.attributes["ecs.availability-zone"])


def _problem(
    instance: Any, needs: Needs, state: State, distinct_group: str | None
) -> Problem | None:
    """Why a task does not fit on an instance, None if it does."""
    tasks = list(state.tasks_on(instance))
    if distinct_group and any(task.group == distinct_group and task.active for task in tasks):
        return Problem(
            "doesn't meet the placement constraints",
            "DistinctInstance placement constraint unsatisfied.",
        )
    update_resources(instance, state)
    left = {r["name"]: r for r in instance.remaining_resources}
    if needs.ports & {int(port) for port in left["PORTS"]["stringSetValue"]}:
        return Problem("is already using a port required by your task", "RESOURCE:PORTS")
    if left["CPU"]["integerValue"] < needs.cpu:
        return Problem("has insufficient CPU units available", "RESOURCE:CPU")
    if left["MEMORY"]["integerValue"] < needs.memory:
        return Problem("has insufficient memory available", "RESOURCE:MEMORY")
    return None


def free_port(address: str, taken: set[int]) -> int:
    """Find a dynamic host port on ``address`` that nobody uses; raises NoRoomError."""
    for port in random.sample(DYNAMIC_PORTS, 200):
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise NoRoomError("Reason: no dynamic host port is free.", {"": "RESOURCE:PORTS"})
