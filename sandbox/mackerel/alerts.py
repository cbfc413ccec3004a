"""Alerts that people and tests open, in the place of monitors.

Which keys an alert of each type has: https://mackerel.io/api-docs/entry/alerts#list
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandbox.mackerel.monitors import monitor as checked
from sandbox.mackerel.organization import Organization, new_id
from sandbox.mackerel.rules import Refused

STATUSES = ("CRITICAL", "WARNING", "UNKNOWN")
OF_HOSTS = ("host", "connectivity")
WITH_VALUE = ("host", "service", "query")
WITH_MESSAGE = ("external",)


@dataclass(frozen=True)
class Wanted:
    """Of a host, by its custom identifier, or of a service, or of a monitor, by its id."""

    custom_identifier: str | None
    service: str | None
    monitor: str | None
    status: str
    value: float
    message: str


def opened(everything: Organization, wanted: Wanted) -> dict[str, Any]:
    """The alert, not kept yet. Raises Refused."""
    if wanted.status not in STATUSES:
        raise Refused(400, f"status is invalid: {wanted.status!r}, one of {', '.join(STATUSES)}")
    monitor = _monitor(everything, wanted)
    alert: dict[str, Any] = {
        "id": new_id(),
        "status": wanted.status,
        "monitorId": monitor["id"],
        "type": monitor["type"],
    }
    if monitor["type"] in OF_HOSTS:
        host = everything.with_identifier(wanted.custom_identifier or "")
        if host is None:
            raise Refused(404, f"no host has the customIdentifier {wanted.custom_identifier!r}")
        alert["hostId"] = host.id
    if monitor["type"] in WITH_VALUE:
        alert["value"] = wanted.value
    if monitor["type"] in WITH_MESSAGE:
        alert["message"] = wanted.message
    return {**alert, "openedAt": int(everything.clock())}


def _monitor(everything: Organization, wanted: Wanted) -> dict[str, Any]:
    if wanted.monitor is not None:
        return everything.monitor(wanted.monitor)
    if (wanted.custom_identifier is None) == (wanted.service is None):
        raise Refused(400, "an alert is of a customIdentifier, a service or a monitor")
    kind = "host" if wanted.service is None else "service"
    if wanted.service is not None:
        everything.service(wanted.service)
    for known in everything.monitors.values():
        if known["type"] == kind and known.get("service") == wanted.service:
            return known
    given = {
        "type": kind,
        "name": "opened by hand",
        "duration": 1,
        "metric": "custom.sandbox.level",
        "operator": ">",
        "critical": 0,
    }
    if wanted.service is not None:
        given["service"] = wanted.service
    return everything.make_monitor(checked(given))
