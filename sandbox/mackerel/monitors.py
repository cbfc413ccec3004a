"""Monitor configurations: what Mackerel accepts of each type, and what it fills in. Pure.

https://mackerel.io/api-docs/entry/monitors. Of monitors the stand-in knows what they are, not what
they measure: no monitor opens an alert here, people and tests do. Monitors with anomaly detection
are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sandbox.mackerel import rules
from sandbox.mackerel.rules import Refused

OPERATORS = (">", "<")
METHODS = ("GET", "POST", "PUT", "DELETE")
MOST_MINUTES = 10
MOST_ATTEMPTS = 10
LEAST_MISSING_MINUTES = 10
FIRST = {"type": "connectivity", "name": "connectivity"}
"""The one that every organisation begins with."""


def monitor(body: Any) -> dict[str, Any]:
    """A monitor as it is kept, but for its id. Raises Refused."""
    given = rules.mapping(body)
    kind = str(given.get("type"))
    check = _CHECKS.get(kind)
    if check is None:
        raise Refused(400, f"type is invalid: {kind!r}")
    if not rules.text(given, "name"):
        raise Refused(400, "name is empty")
    rules.text(given, "memo", "")
    if not isinstance(given.get("isMute", False), bool):
        raise Refused(400, "isMute is not a boolean")
    if "notificationInterval" in given:
        rules.number(given["notificationInterval"], "notificationInterval")
    check(given)
    return {**_DEFAULTS[kind], "memo": "", "isMute": False, **given}


def _host(given: Mapping[str, Any]) -> None:
    _metric(given)
    _scopes(given)


def _service(given: Mapping[str, Any]) -> None:
    _metric(given)
    rules.place_name(given.get("service"))
    for key in ("missingDurationWarning", "missingDurationCritical"):
        if given.get(key) is not None:
            minutes = rules.number(given[key], key)
            if minutes < LEAST_MISSING_MINUTES or minutes % LEAST_MISSING_MINUTES:
                raise Refused(400, f"{key} is not a multiple of {LEAST_MISSING_MINUTES}")


def _external(given: Mapping[str, Any]) -> None:
    if not rules.text(dict(given), "url").startswith(("http://", "https://")):
        raise Refused(400, "url is invalid")
    if given.get("method", METHODS[0]) not in METHODS:
        raise Refused(400, f"method is invalid: {given['method']!r}")
    if given.get("service") is not None:
        rules.place_name(given["service"])
    for key in ("responseTimeWarning", "responseTimeCritical"):
        if given.get(key) is not None:
            rules.number(given[key], key)
            if given.get("service") is None or given.get("responseTimeDuration") is None:
                raise Refused(400, f"{key} needs service and responseTimeDuration")
    _attempts(given)


def _expression(given: Mapping[str, Any]) -> None:
    if not rules.text(dict(given), "expression"):
        raise Refused(400, "expression is empty")
    _thresholds(given)


def _query(given: Mapping[str, Any]) -> None:
    if not rules.text(dict(given), "query"):
        raise Refused(400, "query is empty")
    rules.text(dict(given), "legend", "")
    _thresholds(given)


def _metric(given: Mapping[str, Any]) -> None:
    """What host and service metric monitors share."""
    if not rules.text(dict(given), "metric"):
        raise Refused(400, "metric is empty")
    if not 1 <= rules.number(given.get("duration"), "duration") <= MOST_MINUTES:
        raise Refused(400, f"duration is not 1 to {MOST_MINUTES}")
    _thresholds(given)
    _attempts(given)


def _thresholds(given: Mapping[str, Any]) -> None:
    if given.get("operator") not in OPERATORS:
        raise Refused(400, f"operator is invalid: {given.get('operator')!r}")
    for key in ("warning", "critical"):
        if given.get(key) is not None:
            rules.number(given[key], key)


def _attempts(given: Mapping[str, Any]) -> None:
    attempts = rules.number(given.get("maxCheckAttempts", 1), "maxCheckAttempts")
    if not 1 <= attempts <= MOST_ATTEMPTS:
        raise Refused(400, f"maxCheckAttempts is not 1 to {MOST_ATTEMPTS}")


def _scopes(given: Mapping[str, Any]) -> None:
    for key in ("scopes", "excludeScopes"):
        for one in rules.listing(given.get(key, []), key):
            service, colon, role = str(one).partition(":")
            rules.place_name(service)
            if colon:
                rules.place_name(role.strip())


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "host": _host,
    "connectivity": _scopes,
    "service": _service,
    "external": _external,
    "expression": _expression,
    "query": _query,
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "host": {"scopes": [], "excludeScopes": [], "maxCheckAttempts": 1},
    "connectivity": {"scopes": [], "excludeScopes": []},
    "service": {"maxCheckAttempts": 1},
    "external": {"method": METHODS[0], "maxCheckAttempts": 1, "headers": []},
    "expression": {},
    "query": {"legend": ""},
}
