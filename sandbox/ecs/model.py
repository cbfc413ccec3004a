"""What the ECS of the sandbox keeps: tasks, services, deployments."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sandbox.processes import Command, Container

MAX_EVENTS = 100  # that DescribeServices shows

Definition = dict[str, Any]
"""A task definition as DescribeTaskDefinition shows it."""


class LastStatus(StrEnum):
    """Where a task is in its life, in the order of the life cycle."""

    PROVISIONING = "PROVISIONING"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DEACTIVATING = "DEACTIVATING"  # its targets drain
    STOPPING = "STOPPING"  # SIGTERM was sent
    DEPROVISIONING = "DEPROVISIONING"
    STOPPED = "STOPPED"


class StopCode(StrEnum):
    """Why a task was stopped, in short."""

    TASK_FAILED_TO_START = "TaskFailedToStart"
    ESSENTIAL_CONTAINER_EXITED = "EssentialContainerExited"
    USER_INITIATED = "UserInitiated"
    SERVICE_SCHEDULER_INITIATED = "ServiceSchedulerInitiated"
    TERMINATION_NOTICE = "TerminationNotice"


@dataclass
class HealthProbe:
    """The health check of a container that is going on, and what came of those before."""

    due: float
    failures: int = 0
    process: Command | None = None
    deadline: float = 0.0


@dataclass
class ContainerState:
    """One container of a task; ``definition`` is its container definition."""

    definition: dict[str, Any]
    arn: str
    bindings: list[dict[str, Any]] = field(default_factory=list)
    image_digest: str | None = None
    status: str = "PENDING"
    exit_code: int | None = None
    reason: str | None = None
    health: str = "UNKNOWN"
    probe: HealthProbe | None = None
    running: Container | None = None
    kill_at: float | None = None

    @property
    def name(self) -> str:
        """The name in the task definition."""
        return str(self.definition["name"])

    @property
    def essential(self) -> bool:
        """Whether the task ends with it."""
        return bool(self.definition.get("essential", True))


@dataclass(frozen=True)
class Registration:
    """A target of a task: where it was registered when the task got RUNNING."""

    group_arn: str
    target_id: str
    port: int

    @property
    def target(self) -> dict[str, Any]:
        """The TargetDescription of ELBv2."""
        return {"Id": self.target_id, "Port": self.port}


@dataclass
class Task:
    """One task. ``instance`` is moto's container instance, None on Fargate."""

    arn: str
    cluster_arn: str
    definition: Definition
    group: str
    started_by: str | None
    launch_type: str
    address: str
    instance: Any | None
    containers: list[ContainerState]
    overrides: dict[str, Any] = field(default_factory=dict)
    tags: list[dict[str, str]] = field(default_factory=list)
    attachments: list[dict[str, Any]] = field(default_factory=list)
    service: Service | None = None
    last_status: LastStatus = LastStatus.PROVISIONING
    desired_status: str = "RUNNING"
    stop_code: StopCode | None = None
    stopped_reason: str | None = None
    registrations: list[Registration] = field(default_factory=list)
    drain_first: bool = False
    times: dict[str, datetime] = field(default_factory=dict)
    running_since: float = 0.0
    stopped_since: float = 0.0
    version: int = 1

    @property
    def id(self) -> str:
        """The last part of the ARN, 32 hexadecimal digits."""
        return self.arn.rsplit("/", 1)[-1]

    @property
    def active(self) -> bool:
        """Whether it counts for its service: nobody wants it to stop."""
        return self.desired_status == "RUNNING"

    @property
    def connected(self) -> bool:
        """Whether the agent that runs it is heard of."""
        return self.instance is None or bool(self.instance.agent_connected)

    @property
    def stopped(self) -> bool:
        """Whether it is over."""
        return self.last_status is LastStatus.STOPPED

    def move(self, status: LastStatus, *stamps: str) -> None:
        """Go to the next status and note the time under the given names of DescribeTasks."""
        self.last_status = status
        self.version += 1
        for stamp in stamps:
            self.times.setdefault(stamp, now())

    def ports(self) -> set[int]:
        """The host ports that it occupies."""
        return {int(b["hostPort"]) for c in self.containers for b in c.bindings}

    def binding(self, container: str, port: int) -> int | None:
        """The host port of a container's port."""
        for state in self.containers:
            for binding in state.bindings:
                if state.name == container and int(binding["containerPort"]) == port:
                    return int(binding["hostPort"])
        return None


@dataclass
class Deployment:
    """One revision of a service on its way in or out.

    ``failures_in_a_row`` and ``start_after`` (monotonic seconds) throttle a crash loop.
    """

    id: str
    definition: Definition
    status: str = "PRIMARY"
    desired_count: int = 0
    failed_tasks: int = 0
    rollout_state: str = "IN_PROGRESS"
    created_at: datetime = field(default_factory=lambda: now())
    updated_at: datetime = field(default_factory=lambda: now())
    failures_in_a_row: int = 0
    start_after: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def rollout_reason(self) -> str:
        """AWS's sentence for the state."""
        ends = "completed" if self.rollout_state == "COMPLETED" else "in progress"
        return f"ECS deployment {self.id} {ends}."


@dataclass
class Service:
    """One service; ``settings`` holds what CreateService and UpdateService were given."""

    arn: str
    name: str
    cluster_arn: str
    desired_count: int
    settings: dict[str, Any]
    deployments: list[Deployment]
    status: str = "ACTIVE"
    steady: bool = False
    created_at: datetime = field(default_factory=lambda: now())
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    silent_until: dict[str, float] = field(default_factory=dict)

    @property
    def primary(self) -> Deployment:
        """The deployment that is wanted."""
        return self.deployments[0]

    def say(self, message: str) -> None:
        """Add a service event; the newest comes first."""
        event = {
            "id": str(uuid.uuid4()),
            "createdAt": now(),
            "message": f"(service {self.name}) {message}",
        }
        self.events.appendleft(event)


class State:
    """All of it, behind one lock; ``wake`` makes the scheduler look at once."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.wake = threading.Event()
        self.tasks: dict[str, Task] = {}
        self.services: dict[str, Service] = {}
        self.tags: dict[str, list[dict[str, str]]] = {}

    def tasks_of(self, service: Service) -> Iterator[Task]:
        """The tasks of a service that are not over."""
        for task in self.tasks.values():
            if task.service is service and not task.stopped:
                yield task

    def tasks_on(self, instance: Any) -> Iterator[Task]:
        """The tasks that occupy a container instance."""
        for task in self.tasks.values():
            if task.instance is instance and not task.stopped:
                yield task


def now() -> datetime:
    """The time as AWS shows it: UTC, to the millisecond."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
