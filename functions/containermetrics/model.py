"""What flows from the containers to Mackerel: samples, readings, batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

HostStatus = Literal["working", "standby", "poweroff"]
Aggregate = Literal["sum", "average", "maximum"]

TASK = "task"
"""The container part of what belongs to a task as a whole: the network of an awsvpc task."""


@dataclass(frozen=True, slots=True)
class Source:
    """Whose numbers they are. task: task id, the last part of its ARN. service: ECS service, "" for
    a task that was started by hand. container: its name in the task definition, or TASK.
    """

    task: str
    service: str
    family: str
    revision: str
    container: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What the counters of one source said at a moment. at: seconds of whatever clock the source
    has, to compare with its other samples: epoch, or since the boot of its host.

    counters, gauges: metric id (``cpu.user``; docs/metrics.md lists them) → number, in seconds,
    bytes, percent or pieces.
    """

    source: Source
    at: float
    counters: Mapping[str, float]
    gauges: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one source did: metric id → value in the unit that is published."""

    source: Source
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PluginValue:
    """One line of a plugin. key: as the plugin prints it, without ``custom.``."""

    source: Source
    key: str
    value: float
    aggregate: Aggregate = "sum"


@dataclass(frozen=True, slots=True)
class EcsService:
    """An ECS service as the batch needs it; its Mackerel host has the same life.

    color: of a service configuration that it is a colour of, else "". live: whether that colour has
    the traffic; None when it could not be read or there are no colours. idle: it runs no task now,
    whatever it did in the minute that it is about.
    """

    name: str
    running_tasks: int
    role: str
    color: str = ""
    live: bool | None = None
    idle: bool = False

    @property
    def status(self) -> HostStatus | None:
        """The status of its Mackerel host; None leaves it as it is."""
        if self.idle or self.running_tasks == 0:
            return "poweroff"
        if self.color and self.live is None:
            return None
        return "standby" if self.color and not self.live else "working"


@dataclass(frozen=True)
class HostMetrics:
    """All that one Mackerel host gets of one minute. values: metric name (``custom.…``) → value.
    status None: leave it as it is.
    """

    custom_identifier: str
    name: str
    role_fullname: str
    status: HostStatus | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class Annotation:
    """A deployment in the graphs; the shape of Mackerel's API. from_, to: epoch seconds.

    key: what it must not be posted twice for, the deployment's id; it stands in the description.
    """

    key: str
    title: str
    description: str
    from_: int
    to: int
    service: str
    roles: Sequence[str] = ()


@dataclass(frozen=True)
class Batch:
    """All values of one cluster and minute. minute: epoch seconds, a multiple of 60.

    services: Mackerel service → metric name → value. graphs: graph definitions as Mackerel's API
    takes them (those of plugins; our own are known to delivery).
    """

    cluster: str
    minute: int
    hosts: Sequence[HostMetrics]
    services: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    graphs: Sequence[Mapping[str, Any]] = ()


def custom_identifier(site: str, cluster: str, service: str) -> str:
    """By which Mackerel finds the host of an ECS service again.

    site: ``<account>.<region>``. One organisation of Mackerel may have the same names from several.
    """
    return f"ecs-bluegreen.{site}.{cluster}.{service}"
