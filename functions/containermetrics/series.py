"""From readings to what Mackerel gets: names, aggregates over tasks, and the limit. Pure.

A Mackerel host is an ECS service. Its tasks come and go; what stays are the names of their
containers, so a series is a container's name: the sum over the tasks, their average and maximum,
and how many there are. docs/metrics.md tells users about it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from containermetrics.metrics import METRICS, Metric, find, part
from containermetrics.model import (
    TASK,
    Aggregate,
    EcsService,
    HostMetrics,
    PluginValue,
    Reading,
    custom_identifier,
)

LIMIT = 200
"""Metrics of a standard host at Mackerel; what is above it is billed as further hosts:
https://support.mackerel.io/hc/en-us/articles/360040109431"""

PREFIX = "custom.ecs"

# Of these the average and the maximum go before everything that is not a key metric.
_SPREAD = ("cpu.total", "memory.usage", "memory.working_set")
# Metric id → what its sum is called as a service metric.
_TOTALS = {"cpu.total": "cpu", "memory.usage": "memory"}
_NAMED = 3
"""So many of what was left out are named; the others are counted."""
_DECIMALS = 4
# In what order the metrics of a host stand, and so which of them are left out above the limit.
_COUNTS, _KEY, _KEY_SPREAD, _PLUGIN, _EACH_TASK, _OTHER, _OTHER_SPREAD = range(7)

Slots = Mapping[str, Mapping[str, int]]
"""``<ecs service>/<container>`` → task id → slot."""


@dataclass(frozen=True)
class Composed:
    """All that Mackerel gets of a cluster and a minute.

    services: Mackerel service → metric name → value. slots: as they are now. left_out: metrics
    above the limit of their host. problems: what was left out or went wrong, for the log.
    """

    hosts: list[HostMetrics]
    services: dict[str, dict[str, float]]
    slots: dict[str, dict[str, int]]
    problems: list[str]
    left_out: int = 0


@dataclass(slots=True)
class _Total:
    """A metric over all tasks."""

    total: float = 0.0
    most: float = -math.inf
    count: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.most = max(self.most, value)
        self.count += 1


@dataclass(slots=True)
class _Task:
    """What is known of a task. containers: name at Mackerel → metric id → value."""

    service: str
    family: str
    containers: dict[str, dict[str, float]] = field(default_factory=dict)


_Tasks = dict[str, _Task]
"""By task id."""


class _Values:
    """The values of a host, in the order in which they count."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, str, float]] = []

    def add(self, group: int, rank: int, name: str, value: float) -> None:
        """Within a group the smaller rank is first, then names go by the alphabet."""
        self._entries.append((group, rank, name, value))

    def first(self, limit: int) -> tuple[dict[str, float], list[str]]:
        """The values that fit, and the names of those that do not."""
        entries = sorted(self._entries)
        values = _tidy({name: value for *_, name, value in entries[:limit]})
        return values, [name for *_, name, _ in entries[limit:]]


def role_name(text: str) -> str:
    """A name that Mackerel takes for a service or role: 2 to 63 of ``[A-Za-z0-9_-]``, the first a
    letter or digit.

    Raises ValueError when nothing of the kind can be made of the text.
    https://mackerel.io/api-docs/entry/services#rolecreate
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "_", text).lstrip("_-")[:63]
    if len(name) < 2:
        raise ValueError(f"{text!r} cannot be made a name of 2 to 63 of A-Z, a-z, 0-9, _ and -")
    return name


def placed(readings: Iterable[Reading], services: Mapping[str, str]) -> list[Reading]:
    """Readings whose source does not know its ECS service get it by their task.

    services: task id → ECS service.
    """
    return [
        one
        if one.source.service or one.source.task not in services
        else Reading(replace(one.source, service=services[one.source.task]), one.values)
        for one in readings
    ]


def compose(
    site: str,
    cluster: str,
    services: Sequence[EcsService],
    readings: Iterable[Reading],
    plugin_values: Iterable[PluginValue],
    mackerel_service: str,
    slots: Slots,
    each_task: bool,
) -> Composed:
    """Everything Mackerel gets of a cluster and a minute. site: ``<account>.<region>``.

    Every ECS service is a host, also one without tasks. Tasks that belong to none are only in the
    service metrics. Of two readings of one container the later holds; else their order does not
    matter.
    """
    problems: list[str] = []
    homes: dict[str, _Tasks] = {service.name: {} for service in services}
    strangers: _Tasks = {}
    for task_id, task in _by_task(readings, problems).items():
        homes.get(task.service, strangers)[task_id] = task
    plugins = _plugins_by_service(plugin_values, homes.keys(), problems)
    totals = _ServiceMetrics(cluster)
    hosts: list[HostMetrics] = []
    now_slots: dict[str, dict[str, int]] = {}
    left_out = 0
    for service in services:
        tasks = homes[service.name]
        values = _Values()
        _add_counts(values, service, tasks)
        _add_aggregates(values, tasks)
        _add_plugins(values, plugins[service.name], service.name, problems)
        if each_task:
            of_service = _slots(service, tasks, slots)
            _add_each_task(values, service, tasks, of_service)
            now_slots.update(of_service)
        kept, left = values.first(LIMIT)
        if left:
            left_out += len(left)
            problems.append(_left_out(service.name, len(kept) + len(left), left))
        hosts.append(
            HostMetrics(
                custom_identifier(site, cluster, service.name),
                f"{part(cluster)}.{part(service.name)}",
                _role(mackerel_service, service, problems),
                service.status,
                kept,
            )
        )
        totals.add(part(service.name), service.running_tasks, tasks.values())
    _add_strangers(totals, strangers, homes.keys(), problems)
    return Composed(
        hosts,
        {mackerel_service: _tidy(totals.values)},
        now_slots if each_task else {key: dict(held) for key, held in slots.items()},
        list(dict.fromkeys(problems)),
        left_out,
    )


def _by_task(readings: Iterable[Reading], problems: list[str]) -> _Tasks:
    tasks: _Tasks = {}
    for one in readings:
        source, values = one.source, one.values
        if not all(map(math.isfinite, values.values())):
            values = {name: value for name, value in values.items() if math.isfinite(value)}
            missing = ", ".join(sorted(one.values.keys() - values.keys()))
            problems.append(f"task {source.task}/{source.container}: no number for {missing}")
        task = tasks.get(source.task)
        if task is None:
            task = tasks[source.task] = _Task(source.service, source.family)
        # The network of a task and what it may have of a container of that name have no metric in
        # common.
        task.containers.setdefault(part(source.container), {}).update(values)
    return tasks


# --------------------------------------------------------------------- the values of one host


def _add_counts(values: _Values, service: EcsService, tasks: _Tasks) -> None:
    """How many tasks ECS counts, and how many containers were seen."""
    values.add(_COUNTS, 0, f"{PREFIX}.service.running_tasks", service.running_tasks)
    seen = Counter(
        container
        for task in tasks.values()
        for container, found in task.containers.items()
        if container != TASK or not all(name.startswith("network.") for name in found)
    )
    for container, count in seen.items():
        values.add(_COUNTS, 1, f"{PREFIX}.containers.{container}.running", count)


def _add_aggregates(values: _Values, tasks: _Tasks) -> None:
    """Sum, average and maximum over the tasks, of every metric of every container."""
    of_containers: defaultdict[str, dict[str, _Total]] = defaultdict(dict)
    for task in tasks.values():
        for container, found in task.containers.items():
            totals = of_containers[container]
            for metric_id, value in found.items():
                total = totals.get(metric_id)
                if total is None:
                    total = totals[metric_id] = _Total()
                total.add(value)
    for container, totals in of_containers.items():
        for metric_id, total in totals.items():
            metric = find(metric_id)
            if metric is None:
                continue
            rank = len(METRICS) if metric.rank is None else metric.rank
            spread = _KEY_SPREAD if metric_id in _SPREAD else _OTHER_SPREAD
            group = _OTHER if metric.rank is None else _KEY
            for group_, suffix, value in (
                (group, "", total.total),
                (spread, "_avg", total.total / total.count),
                (spread, "_max", total.most),
            ):
                values.add(group_, rank, _name(metric, suffix, container, metric_id), value)


def _add_each_task(values: _Values, service: EcsService, tasks: _Tasks, slots: Slots) -> None:
    """The key metrics of each task as series of their own."""
    for task_id, task in tasks.items():
        for container, found in task.containers.items():
            slot = slots[f"{service.name}/{container}"][task_id]
            for metric_id, value in found.items():
                metric = find(metric_id)
                if metric is not None and metric.rank is not None:
                    name = _name(metric, "_task", f"{container}-{slot}", metric_id)
                    values.add(_EACH_TASK, metric.rank, name, value)


def _slots(service: EcsService, tasks: _Tasks, before: Slots) -> dict[str, dict[str, int]]:
    """The slots of a service now: a task keeps its own, a new one gets the lowest that is free.

    A task that was not seen may just not have answered. It keeps its slot until there are more
    tasks than the service runs, so that one of them must be gone.
    """
    seen: defaultdict[str, list[str]] = defaultdict(list)
    for task_id in sorted(tasks):
        for container in tasks[task_id].containers:
            seen[f"{service.name}/{container}"].append(task_id)
    now: dict[str, dict[str, int]] = {}
    for key in sorted({*seen, *(key for key in before if key.startswith(f"{service.name}/"))}):
        there, held = seen.get(key, []), dict(before.get(key, {}))
        if len({*there, *held}) > service.running_tasks:
            held = {task_id: slot for task_id, slot in held.items() if task_id in there}
        taken = set(held.values())
        free = (slot for slot in itertools.count() if slot not in taken)
        new = (task_id for task_id in there if task_id not in held)
        now_held = held | dict(zip(new, free, strict=False))
        if now_held:
            now[key] = now_held
    return now


# --------------------------------------------------------------------------------- plugins


def _plugins_by_service(
    plugin_values: Iterable[PluginValue], known: Collection[str], problems: list[str]
) -> dict[str, list[PluginValue]]:
    found: dict[str, list[PluginValue]] = {name: [] for name in known}
    for one in plugin_values:
        if one.source.service in found:
            found[one.source.service].append(one)
        else:
            problems.append(
                f"task {one.source.task}/{one.source.container} belongs to no ECS service: what "
                "its plugins said is left out"
            )
    return found


def _add_plugins(
    values: _Values, said: Iterable[PluginValue], service: str, problems: list[str]
) -> None:
    """What the plugins said, over the tasks as configured."""
    found: defaultdict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    how: dict[str, Aggregate] = {}
    for one in said:
        reason = _wrong(one)
        if reason:
            problems.append(f"{service}: plugin metric {one.key!r} is left out: {reason}")
            continue
        name = ".".join(["custom", *map(part, one.key.split("."))])
        found[name][one.source.task, one.source.container] = one.value
        how.setdefault(name, one.aggregate)
    for name, of_tasks in found.items():
        numbers = list(of_tasks.values())
        values.add(_PLUGIN, 0, name, _aggregate(how[name], numbers))


def _wrong(said: PluginValue) -> str:
    """Why a plugin's value cannot be sent, or ""."""
    if not math.isfinite(said.value):
        return f"{said.value} is no number"
    if not all(said.key.split(".")):
        return "nothing before, after or between dots"
    if said.key.startswith("ecs."):
        return "names that begin with ecs. are those of the containers"
    return ""


def _aggregate(how: Aggregate, numbers: Sequence[float]) -> float:
    match how:
        case "sum":
            return sum(numbers)
        case "average":
            return sum(numbers) / len(numbers)
        case "maximum":
            return max(numbers)
        case _:
            assert_never(how)


# ------------------------------------------------------------------------- service metrics


class _ServiceMetrics:
    """Totals of the cluster and of each ECS service.

    Mackerel makes a graph of all names that differ in their last part: so there is one graph a
    metric with all clusters, and one a metric and cluster with its services.
    """

    def __init__(self, cluster: str) -> None:
        self._cluster = part(cluster)
        self.values: dict[str, float] = {self.name("running_tasks"): 0}

    def name(self, metric: str, service: str = "") -> str:
        """The name of a total of the cluster, or of a service in it."""
        return ".".join(["ecs", metric, self._cluster, *([service] if service else [])])

    def add(self, name: str, running_tasks: int, tasks: Iterable[_Task]) -> None:
        """Count tasks in, under a name and in the cluster. What nobody measured has no total."""
        sums: defaultdict[str, float] = defaultdict(float, running_tasks=running_tasks)
        for task in tasks:
            for found in task.containers.values():
                for metric_id, total in _TOTALS.items():
                    if metric_id in found:
                        sums[total] += found[metric_id]
        for total, value in sums.items():
            everywhere = self.name(total)
            self.values[everywhere] = self.values.get(everywhere, 0) + value
            self.values[self.name(total, name)] = value


def _add_strangers(
    totals: _ServiceMetrics, strangers: _Tasks, known: Collection[str], problems: list[str]
) -> None:
    """Tasks that belong to no ECS service that there is: under their family."""
    families: defaultdict[str, list[_Task]] = defaultdict(list)
    for task in strangers.values():
        families[task.family].append(task)
    services = {part(name) for name in known}
    for family, tasks in sorted(families.items()):
        name = part(family)
        # A service of the name has these metrics already.
        name = f"{name}-tasks" if name in services else name
        totals.add(name, len(tasks), tasks)
        problems.append(
            f"{len(tasks)} task(s) of family {family} belong to no ECS service: they are only in "
            f"the service metrics {totals.name('*', name)}"
        )


# ------------------------------------------------------------------------------ names and text


def _name(metric: Metric, suffix: str, container: str, metric_id: str) -> str:
    return f"{PREFIX}.{metric.graph}{suffix}.{container}.{part(metric_id.partition('.')[2])}"


def _role(mackerel_service: str, service: EcsService, problems: list[str]) -> str:
    """The role of a service's host; "" when it cannot have one."""
    try:
        name = role_name(service.role)
    except ValueError as error:
        problems.append(f"{service.name} is without a role: {error}")
        return ""
    if name != service.role:
        problems.append(f"{service.name}: role {service.role!r} is called {name!r} at Mackerel")
    return f"{mackerel_service}:{name}"


def _left_out(service: str, count: int, left: Sequence[str]) -> str:
    named = ", ".join(left[:_NAMED])
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return (
        f"{service}: {len(left)} of {count} metrics are left out, a Mackerel host has {LIMIT}: "
        f"{named}{more}"
    )


def _tidy(values: Mapping[str, float]) -> dict[str, float]:
    """With as many decimals as say something; without what a sum may have become, infinite."""
    return {name: round(value, _DECIMALS) for name, value in values.items() if math.isfinite(value)}
