"""Graph definitions: how Mackerel shows what this project sends. Pure.

https://mackerel.io/api-docs/entry/host-metrics#post-graphdef: a graph is the part of the names
before the last dot, ``#`` (once at most) and ``*`` stand for one part of them, and ``%1`` for what
the first of the two matched. Mackerel forgets a definition with one of them when no value came for
some six hours, so they are posted again and again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from containermetrics.metrics import METRICS
from containermetrics.series import PREFIX

_NAME = re.compile(r"custom(\.([-a-zA-Z0-9_]+|[*#]))+")
_UNITS = (
    "float",
    "integer",
    "percentage",
    "seconds",
    "milliseconds",
    "bytes",
    "bytes/sec",
    "bits/sec",
    "iops",
)


@dataclass(frozen=True)
class _Graph:
    """A graph of the containers. metrics: name → label; ``*`` for all others.

    stacked: of them, those that add up: over the containers of a host, and in the graph of a role
    over its hosts. Whatever has a limit or a part of itself beside it is a line.
    """

    label: str
    metrics: Mapping[str, str]
    stacked: frozenset[str] = frozenset()


_ANY = {"*": "%2"}
_GRAPHS = {
    "cpu": _Graph(
        "CPU",
        {"total": "CPU", "user": "user", "system": "system", "limit": "limit"},
        stacked=frozenset({"total"}),
    ),
    "cpu_core": _Graph("CPU per core", {"*": "core %2"}),
    "throttling": _Graph(
        "CPU throttling per minute", {"periods": "periods", "throttled": "throttled periods"}
    ),
    "throttling_time": _Graph("CPU throttled", {"time": "of the time"}),
    "memory": _Graph(
        "memory",
        {
            "usage": "usage",
            "limit": "limit",
            "working_set": "working set",
            "rss": "rss",
            "cache": "cache",
            "peak": "peak",
            "swap": "swap",
            "memsw_usage": "usage with swap",
            "memsw_peak": "peak with swap",
            "memsw_limit": "limit with swap",
        },
    ),
    "memory_stat": _Graph("memory.stat", _ANY),
    "memory_stat_rate": _Graph("memory.stat events per second", _ANY),
    "memory_events": _Graph("memory events per minute", _ANY),
    "blkio_bytes": _Graph("block I/O bytes", _ANY),
    "blkio_ops": _Graph("block I/O operations", _ANY),
    "network": _Graph("network bytes", _ANY),
    "network_packets": _Graph("network packets per second", _ANY),
    "processes": _Graph(
        "processes", {"processes": "processes", "threads": "threads", "pids": "pids"}
    ),
}
# Ending of the name → what the label says besides.
_VARIANTS = {"": "", "_avg": ", average task", "_max": ", highest task", "_task": ", each task"}


def _definitions() -> Iterator[dict[str, Any]]:
    yield _definition(
        f"{PREFIX}.service", "ECS tasks", "integer", [("running_tasks", "running tasks", True)]
    )
    yield _definition(
        f"{PREFIX}.containers.#", "ECS containers", "integer", [("running", "%1", True)]
    )
    units = {metric.graph: metric.unit for metric in METRICS}
    for name, graph in _GRAPHS.items():
        for ending, more in _VARIANTS.items():
            yield _definition(
                f"{PREFIX}.{name}{ending}.#",
                f"ECS {graph.label}{more}",
                units[name],
                [
                    # Averages and maxima do not add up.
                    (metric, f"%1 {label}", metric in graph.stacked and ending in ("", "_task"))
                    for metric, label in graph.metrics.items()
                ],
            )


def _definition(
    name: str, label: str, unit: str, metrics: list[tuple[str, str, bool]]
) -> dict[str, Any]:
    return {
        "name": name,
        "displayName": label,
        "unit": unit,
        "metrics": [
            {"name": f"{name}.{metric}", "displayName": title, "isStacked": stacked}
            for metric, title, stacked in metrics
        ],
    }


DEFINITIONS: list[dict[str, Any]] = list(_definitions())
"""As the API takes them."""


def of_plugin(meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Graph definitions of a plugin.

    meta: the JSON that it prints with MACKEREL_AGENT_PLUGIN_META: ``{"graphs": {name: {label,
    unit, metrics: [{name, label, stacked}]}}}``. What Mackerel would refuse is left out: one wrong
    definition would cost all that are sent with it. So are graphs of the containers.
    https://mackerel.io/docs/entry/advanced/custom-metrics#graph-schema
    """
    found = []
    for key, graph in _mapping(_mapping(meta).get("graphs")).items():
        name = f"custom.{key}"
        if not _is_name(name) or f"{name}.".startswith(f"{PREFIX}."):
            continue
        unit = _mapping(graph).get("unit")
        metrics = [
            (metric["name"], _label(metric, metric["name"]), metric.get("stacked") is True)
            for metric in _metrics(graph)
            if _is_name(f"{name}.{metric['name']}") and "." not in metric["name"]
        ]
        if metrics:
            label = _label(_mapping(graph), str(key))
            found.append(_definition(name, label, unit if unit in _UNITS else "float", metrics))
    return found


def _metrics(graph: Any) -> list[Mapping[str, Any]]:
    metrics = _mapping(graph).get("metrics")
    if not isinstance(metrics, list):
        return []
    return [one for one in map(_mapping, metrics) if isinstance(one.get("name"), str)]


def _label(thing: Mapping[str, Any], otherwise: str) -> str:
    label = thing.get("label")
    return label if isinstance(label, str) and label else otherwise


def _mapping(thing: Any) -> Mapping[str, Any]:
    return thing if isinstance(thing, dict) else {}


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name.count("#") <= 1
