"""The performance log of CloudWatch Container Insights, for tasks on instances and on Fargate.

The log group ``/aws/ecs/containerinsights/<cluster>/performance`` gets one JSON event a minute for
each container, one to two and a half minutes late:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-reference-performance-logs-ECS.html
With enhanced observability the numbers are called ``ContainerCpuUtilized`` and so on, as its
metrics are: Container-Insights-enhanced-observability-metrics-ECS.html, beside that page.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from containermetrics.errors import SourceUnavailable
from containermetrics.model import TASK, Reading, Sample, Source
from containermetrics.rates import LARGEST, reading

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

_MINUTE = 60
_UNITS_PER_CORE = 1024
# MB to Container Insights is MiB: the agent divides by BytesInMiB (agent/stats/utils.go).
_MIB = 1024 * 1024

_FILTER = '{ $.Type = "Container" }'

# Field → metric id and what its value is multiplied with. CPU is in units of 1/1024 core, storage
# the bytes since the container was started (although its unit is said to be Bytes/Second), and
# the network is in bytes and packets per second already.
_COUNTERS = {
    "StorageReadBytes": ("blkio_bytes.all_read", 1),
    "StorageWriteBytes": ("blkio_bytes.all_write", 1),
}
_GAUGES = {
    "CpuUtilized": ("cpu.total", 100 / _UNITS_PER_CORE),
    "MemoryUtilized": ("memory.usage", _MIB),
    **{
        f"Network{direction}{field}": (f"network.all_{direction.lower()}_{field.lower()}", 1)
        for direction in ("Rx", "Tx")
        for field in ("Bytes", "Packets", "Errors", "Dropped")
    },
}
# What is reserved is 0 or missing where nothing is.
_LIMITS = {
    "CpuReserved": ("cpu.limit", 100 / _UNITS_PER_CORE),
    "MemoryReserved": ("memory.limit", _MIB),
}

# With enhanced observability.
_ENHANCED = {field: f"Container{field}" for field in (*_COUNTERS, *_GAUGES, *_LIMITS)}
# Above zero.
_ANYTHING = 1e-9

Skipped = Counter[str]
"""Reason → events that were left out."""


def log_group(cluster: str) -> str:
    """Where Container Insights writes what it has measured of a cluster."""
    return f"/aws/ecs/containerinsights/{cluster}/performance"


def read(
    logs: CloudWatchLogsClient,
    cluster: str,
    start: int,
    end: int,
    skipped: Skipped | None = None,
) -> Iterator[Sample]:
    """Every event about a container from ``start`` to before ``end`` (epoch seconds).

    Rates of the first minute need the minute before it too. An event may come twice. Those that
    cannot be read are left out and counted in ``skipped``. Raises SourceUnavailable when the
    cluster has no performance log.
    """
    count: Skipped = Counter() if skipped is None else skipped
    sources: dict[Source, Source] = {}
    # The paginator goes on after empty pages, as long as there is a token.
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=log_group(cluster),
        filterPattern=_FILTER,
        startTime=start * 1000,
        # Events at endTime are found too.
        endTime=end * 1000 - 1,
    )
    try:
        for page in pages:
            for event in page["events"]:
                found = sample(event.get("message", ""))
                if isinstance(found, str):
                    count[found] += 1
                else:
                    # One source for all the minutes of a container: they are most of the memory.
                    source = sources.setdefault(found.source, found.source)
                    yield Sample(source, found.at, found.counters, found.gauges)
    except logs.exceptions.ResourceNotFoundException:
        raise SourceUnavailable(
            f"cluster {cluster} has no log group {log_group(cluster)}: turn Container Insights on "
            f"(aws ecs update-cluster-settings --cluster {cluster} --settings "
            "name=containerInsights,value=enabled), or choose source: cgroups"
        ) from None


def sample(message: str) -> Sample | str:
    """One event of the log; or, when it is not what it should be, why not."""
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(event, dict) or event.get("Type") != "Container":
        return "not about a container"
    task, container, at = (event.get(name) for name in ("TaskId", "ContainerName", "Timestamp"))
    if not (isinstance(task, str) and task and isinstance(container, str) and container):
        return "without task or container"
    if not _is_number(at):
        return "without time"
    found = Sample(
        Source(
            task=task.rsplit("/", 1)[-1],
            service=str(event.get("ServiceName") or ""),
            family=str(event.get("TaskDefinitionFamily") or ""),
            revision=str(event.get("TaskDefinitionRevision") or ""),
            container=container,
        ),
        at / 1000,
        counters=_numbers(event, _COUNTERS, least=0),
        gauges=_numbers(event, _GAUGES, least=0) | _numbers(event, _LIMITS, least=_ANYTHING),
    )
    return found if found.gauges or found.counters else "without numbers"


def minutes(samples: Iterable[Sample], start: int, end: int) -> dict[int, list[Reading]]:
    """What every container did in each minute from ``start`` to before ``end``.

    The keys are epoch seconds; a minute of which nothing is known is not there. Samples may come in
    any order and several times; of those of one container and minute the latest holds, and of
    equally late ones the one that came last. What is older than ``start`` serves for rates only.
    """
    series: defaultdict[tuple[str, str], dict[int, Sample]] = defaultdict(dict)
    for one in samples:
        of_container = series[one.source.task, one.source.container]
        minute = int(one.at // _MINUTE) * _MINUTE
        held = of_container.get(minute)
        if held is None or one.at >= held.at:
            of_container[minute] = one
    shared = _shared_networks(series)
    found: defaultdict[int, list[Reading]] = defaultdict(list)
    networks: dict[tuple[int, str], Reading] = {}
    # A long window of a large cluster is much memory: samples go as readings come of them.
    while series:
        (task, _), of_container = series.popitem()
        previous = None
        for minute in sorted(of_container):
            now = of_container[minute]
            if start <= minute < end:
                did = reading(previous, now)
                if task in shared:
                    did, network = _apart(did)
                    networks.setdefault((minute, task), network)
                found[minute].append(did)
            previous = now
    for (minute, _), network in networks.items():
        found[minute].append(network)
    return dict(found)


def _shared_networks(
    series: Mapping[tuple[str, str], Mapping[int, Sample]],
) -> frozenset[str]:
    """Tasks whose containers have one network together, as with awsvpc.

    No event says so, but then all containers of a task have the same numbers: to add them up would
    be to count the network several times. Over all minutes, so that a quiet one changes nothing.
    """
    same: dict[str, bool] = {}
    first: dict[tuple[str, int], Mapping[str, float]] = {}
    for (task, _), of_container in series.items():
        for minute, one in of_container.items():
            other = first.setdefault((task, minute), one.gauges)
            if other is one.gauges:
                continue
            network = _network(one.gauges)
            if network != _network(other):
                same[task] = False
            elif network:
                same.setdefault(task, True)
    return frozenset(task for task, is_same in same.items() if is_same)


def _apart(did: Reading) -> tuple[Reading, Reading]:
    """What a container did, and what its network did, which is that of the task."""
    network = _network(did.values)
    own = {name: value for name, value in did.values.items() if name not in network}
    source = did.source
    of_task = Source(source.task, source.service, source.family, source.revision, TASK)
    return Reading(source, own), Reading(of_task, network)


def _network(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.startswith("network.")}


def _numbers(
    event: Mapping[str, Any], fields: Mapping[str, tuple[str, float]], least: float
) -> dict[str, float]:
    """Metric id → value of the fields that are there, under either spelling."""
    values = {}
    for field, (metric_id, scale) in fields.items():
        value = event.get(field)
        if value is None:
            value = event.get(_ENHANCED[field])
        if _is_number(value) and value >= least:
            values[metric_id] = value * scale
    return values


def _is_number(value: Any) -> TypeGuard[float]:
    # Neither NaN, nor infinity, nor an integer that no float can hold.
    return type(value) in (int, float) and -LARGEST < value < LARGEST
