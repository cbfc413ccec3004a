"""What Mackerel accepts, as its API documentation says it. Pure; every function raises Refused.

https://mackerel.io/api-docs/entry/ + hosts, host-metrics, service-metrics, services,
graph-annotations, metadata
"""

from __future__ import annotations

import math
import re
from typing import Any

STATUSES = ("standby", "working", "maintenance", "poweroff")
UNITS = (
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
MOST_HOSTS_AT_ONCE = 30
MOST_ALERTS_AT_ONCE = 100
MOST_TITLE = 250
MOST_DESCRIPTION = 1024
MOST_METADATA_BYTES = 100 * 1024
MOST_MEMO_BYTES = 80 * 1024
# Not documented; smaller than whatever Mackerel's is, so that whoever gets on here gets on there.
MOST_BODY_BYTES = 1024 * 1024
MOST_NAME = 255

_METRIC = re.compile(r"[a-zA-Z0-9._-]+")
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,62}")
_NAMESPACE = re.compile(r"[-a-zA-Z0-9_]+")
_CHECK = re.compile(r"[a-zA-Z0-9_-]+")
_GRAPH = re.compile(r"custom(\.([-a-zA-Z0-9_]+|[*#]))+")
_LAST = re.compile(r"[-a-zA-Z0-9_]+|[*#]")


class Refused(Exception):
    """An answer other than 200, with Mackerel's words for it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _need(condition: object, message: str) -> None:
    if not condition:
        raise Refused(400, message)


def mapping(body: Any, what: str = "the body") -> dict[str, Any]:
    """The body as an object."""
    _need(isinstance(body, dict), f"{what} is not an object")
    found: dict[str, Any] = body
    return found


def listing(body: Any, what: str = "the body") -> list[Any]:
    """The body as an array."""
    _need(isinstance(body, list), f"{what} is not an array")
    found: list[Any] = body
    return found


def text(body: dict[str, Any], key: str, default: str | None = None) -> str:
    """A string of the body; required when there is no default."""
    value = body.get(key, default)
    _need(isinstance(value, str), f"{key} is not a string")
    return str(value)


def number(value: Any, what: str) -> float:
    """A number, and no boolean, NaN or infinity."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    _need(good, f"{what} is not a number")
    return float(value)


def metric_name(value: Any) -> str:
    """``[a-zA-Z0-9._-]+`` (host-metrics#post); a custom one without consecutive dots
    (host-metrics#post-graphdef, "Regarding custom metric names").
    """
    _need(isinstance(value, str) and _METRIC.fullmatch(value), f"metric name is invalid: {value!r}")
    _need(len(value) <= MOST_NAME, f"metric name is too long: {value[:40]}…")
    consecutive = value.startswith("custom.") and (".." in value or value.endswith("."))
    _need(not consecutive, f"metric name is invalid: {value!r}")
    return str(value)


def place_name(value: Any) -> str:
    """Name of a service or role: 2 to 63 characters (services#create, services#rolecreate)."""
    _need(isinstance(value, str) and _PLACE.fullmatch(value), f"name is invalid: {value!r}")
    return str(value)


def role_fullname(value: Any) -> tuple[str, str]:
    """``<service>:<role>`` (hosts#create, roleFullnames)."""
    _need(isinstance(value, str) and value.count(":") == 1, f"roleFullnames is invalid: {value!r}")
    service, role = value.split(":")
    return place_name(service), place_name(role)


def status(value: Any) -> str:
    """One of the four (hosts#update-status)."""
    _need(value in STATUSES, f"status is invalid: {value!r}")
    return str(value)


def host(body: Any) -> dict[str, Any]:
    """What POST and PUT of a host take (hosts#create); roleFullnames as pairs."""
    given = mapping(body)
    _need(text(given, "name"), "name is empty")
    mapping(given.get("meta"), "meta")
    for key in ("displayName", "customIdentifier", "memo"):
        _need(isinstance(given.get(key), str | None), f"{key} is not a string")
    for interface in listing(given.get("interfaces") or [], "interfaces"):
        text(mapping(interface, "an interface"), "name")
    for check in listing(given.get("checks") or [], "checks"):
        name = text(mapping(check, "a check"), "name")
        _need(_CHECK.fullmatch(name), f"name of a check is invalid: {name!r}")
    roles = listing(given.get("roleFullnames") or [], "roleFullnames")
    return {**given, "roleFullnames": [role_fullname(one) for one in roles]}


def host_ids(body: dict[str, Any]) -> list[str]:
    """30 at most (hosts#bulk-update-statuses, hosts#bulk-retire)."""
    ids = listing(body.get("ids"), "ids")
    _need(all(isinstance(one, str) for one in ids), "ids are not strings")
    _need(len(ids) <= MOST_HOSTS_AT_ONCE, f"more than {MOST_HOSTS_AT_ONCE} ids")
    return [str(one) for one in ids]


def values(body: Any, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Metric values (host-metrics#post, service-metrics#post); one that is wrong refuses all."""
    found = []
    for given in listing(body):
        one = mapping(given, "a metric value")
        for key in keys:
            text(one, key)
        metric_name(one["name"])
        number(one.get("value"), f"value of {one['name']}")
        number(one.get("time"), f"time of {one['name']}")
        found.append(one)
    return found


def graph_definition(body: Any) -> dict[str, Any]:
    """One graph (host-metrics#post-graphdef)."""
    given = mapping(body, "a graph definition")
    name = text(given, "name")
    _need(_GRAPH.fullmatch(name), f"name is invalid: {name!r}")
    _need(name.count("#") <= 1, f"# stands more than once in {name!r}")
    text(given, "displayName", "")
    unit = given.get("unit", "float")
    _need(unit in UNITS, f"unit is invalid: {unit!r}")
    metrics = listing(given.get("metrics"), "metrics")
    _need(metrics, f"{name} has no metrics")
    for one in metrics:
        metric = mapping(one, "a metric")
        metric_of = text(metric, "name")
        prefix, _, last = metric_of.rpartition(".")
        _need(
            prefix == name and _LAST.fullmatch(last),
            f"metric {metric_of!r} is not {name!r} with one more part",
        )
        _need(metric_of.count("#") <= 1, f"# stands more than once in {metric_of!r}")
        wildcards = last not in ("*", "#") or "*" in name or "#" in name
        _need(wildcards, f"{metric_of!r} has a wildcard, and {name!r} has none")
        text(metric, "displayName", "")
        _need(
            isinstance(metric.get("isStacked", False), bool),
            f"isStacked of {metric_of!r} is not a boolean",
        )
    return given


def annotation(body: Any) -> dict[str, Any]:
    """A graph annotation (graph-annotations#create)."""
    given = mapping(body)
    title = text(given, "title")
    description = text(given, "description", "")
    _need(len(title) <= MOST_TITLE, f"title exceeds {MOST_TITLE} characters")
    _need(
        len(description) <= MOST_DESCRIPTION, f"description exceeds {MOST_DESCRIPTION} characters"
    )
    start, end = number(given.get("from"), "from"), number(given.get("to"), "to")
    _need(start <= end, "from exceeds to")
    text(given, "service")
    roles = listing(given.get("roles") or [], "roles")
    _need(all(isinstance(one, str) for one in roles), "roles are not strings")
    known = ("title", "description", "from", "to", "service", "roles")
    return {key: given[key] for key in known if given.get(key) is not None}


def namespace(value: str) -> str:
    """Of metadata; those that begin with ``mackerel`` are Mackerel's own (metadata)."""
    _need(
        _NAMESPACE.fullmatch(value) and not value.startswith("mackerel"),
        f"namespace is invalid: {value!r}",
    )
    return value
