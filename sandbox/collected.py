"""What Mackerel has of a cluster's containers, read back through its API, and whether it is whole.

``read`` asks, ``gaps`` says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import requests

MINUTE = 60
STATUSES = ("working", "standby", "maintenance", "poweroff")
RUNNING_TASKS = "custom.ecs.service.running_tasks"
KEY_METRICS = ("cpu.{}.total", "memory.{}.usage", "memory.{}.working_set")
TIMEOUT = 10.0


class MackerelError(Exception):
    """Mackerel does not answer as it should."""


@dataclass(frozen=True)
class Host:
    """A Mackerel host and its values: metric name → minute (epoch seconds) → value."""

    name: str
    identifier: str
    status: str
    metrics: Mapping[str, Mapping[int, float]]

    def values(self, name: str) -> Mapping[int, float]:
        """Of one metric; empty when there is none."""
        return self.metrics.get(name, {})

    def of_container(self, container: str) -> Mapping[int, float]:
        """CPU of a container, over all tasks, in percent of a core."""
        return self.values(f"custom.ecs.cpu.{container}.total")

    def of_tasks(self, graph: str, container: str, metric: str) -> dict[str, Mapping[int, float]]:
        """A metric of each task's container, by slot."""
        start, end = f"custom.ecs.{graph}_task.{container}-", f".{metric}"
        return {
            name.removeprefix(start).removesuffix(end): values
            for name, values in sorted(self.metrics.items())
            if name.startswith(start) and name.endswith(end)
        }


@dataclass(frozen=True)
class Collected:
    """``hosts`` by color; ``annotations`` as the API shows them, the oldest first."""

    hosts: Mapping[str, Host]
    annotations: list[dict[str, Any]]


def read(
    url: str, key: str, service: str, identifiers: Mapping[str, str], start: int, end: int
) -> Collected:
    """Everything of the hosts (color → custom identifier) from ``start`` to ``end``.

    A color whose host is not there (yet) is not among them. Raises MackerelError.
    """

    def get(path: str, **query: Any) -> Any:
        try:
            answer = requests.get(
                f"{url}/api/v0/{path}", params=query, headers={"X-Api-Key": key}, timeout=TIMEOUT
            )
            answer.raise_for_status()
        except requests.RequestException as error:
            raise MackerelError(f"Mackerel does not answer: {error}") from error
        return answer.json()

    span = {"from": start, "to": end}
    hosts = {}
    known = {one.get("customIdentifier"): one for one in get("hosts", status=STATUSES)["hosts"]}
    for color, identifier in identifiers.items():
        if identifier not in known:
            continue
        host = known[identifier]
        metrics = {}
        for name in get(f"hosts/{host['id']}/metric-names")["names"]:
            found = get(f"hosts/{host['id']}/metrics", name=name, **span)["metrics"]
            metrics[name] = {int(one["time"]): float(one["value"]) for one in found}
        hosts[color] = Host(host["name"], identifier, host["status"], metrics)
    annotations: list[dict[str, Any]] = []
    if any(one["name"] == service for one in get("services")["services"]):
        annotations = get("graph-annotations", service=service, **span)["graphAnnotations"]
    return Collected(hosts, annotations)


def gaps(collected: Collected, container: str) -> list[str]:
    """What is missing, a sentence each.

    Whether tasks run is told every minute from the first to the last. While tasks of a color run,
    its container has values (not in its first minute: there is nothing to compare it with), and
    there is no minute without values of any color.
    """
    found = []
    counted = [host.values(RUNNING_TASKS) for host in collected.hosts.values()]
    end = max((minute for values in counted for minute in values), default=0)
    if not end:
        return ["there are no values at all"]
    for color, host in collected.hosts.items():
        running = host.values(RUNNING_TASKS)
        found += _missing(f"{color}: running tasks", running, min(running, default=end), end)
        for name in KEY_METRICS:
            metric = f"custom.ecs.{name.format(container)}"
            values = host.values(metric)
            if values:
                found += _missing(f"{color}: {metric}", values, min(values), max(values))
    together = {
        minute for host in collected.hosts.values() for minute in host.of_container(container)
    }
    if not together:
        return [*found, f"no color has a CPU value of {container}"]
    return found + _missing(f"CPU of {container}, of any color", together, min(together), end)


def _missing(what: str, minutes: Iterable[int], start: int, end: int) -> list[str]:
    missing = sorted(set(range(start, end + 1, MINUTE)) - set(minutes))
    return [f"{what}: {len(missing)} minutes are missing"] if missing else []
