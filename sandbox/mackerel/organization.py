"""What the stand-in keeps: one organisation's hosts, services, values, graphs and annotations."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.mackerel import monitors
from sandbox.mackerel.rules import Refused

_LETTERS = string.ascii_letters + string.digits
_DAY = 86_400
# "roughly 6 to 8 hours" (host-metrics#post-graphdef); the shorter is the stricter.
_WILDCARD_SECONDS = 6 * 3600
_MOST_METADATA = {"host": 50, "service": 50, "role": 10}


def new_id() -> str:
    """As Mackerel's: 11 letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(11))


@dataclass
class Series:
    """Values of one metric: minute (epoch seconds) → value."""

    values: dict[int, float] = field(default_factory=dict)

    def shown(self, start: float, end: float) -> list[dict[str, float]]:
        """In chronological order."""
        return [
            {"time": minute, "value": self.values[minute]}
            for minute in sorted(self.values)
            if start <= minute <= end
        ]

    def latest(self) -> dict[str, float]:
        """The newest by its own time, whenever it came."""
        minute = max(self.values)
        return {"time": minute, "value": self.values[minute]}


@dataclass
class Metadata:
    """namespace → (JSON, when it was written)."""

    kind: str
    items: dict[str, tuple[Any, float]] = field(default_factory=dict)

    def put(self, namespace: str, value: Any, now: float) -> None:
        """Raises Refused past the limit of its kind."""
        if namespace not in self.items and len(self.items) >= _MOST_METADATA[self.kind]:
            raise Refused(400, f"more than {_MOST_METADATA[self.kind]} metadata")
        self.items[namespace] = (value, now)


@dataclass
class Host:
    """given: what its owner said of it last (hosts#create)."""

    id: str
    created_at: int
    given: dict[str, Any]
    roles: set[tuple[str, str]]
    status: str = "working"
    retired_at: int | None = None
    metadata: Metadata = field(default_factory=lambda: Metadata("host"))
    metrics: dict[str, Series] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """As GET answers it (hosts#get)."""
        roles: dict[str, list[str]] = {}
        for service, role in sorted(self.roles):
            roles.setdefault(service, []).append(role)
        body = {
            "createdAt": self.created_at,
            "id": self.id,
            "name": self.given["name"],
            "meta": self.given["meta"],
            "interfaces": self.given.get("interfaces") or [],
            "type": "agent",
            "size": "standard",
            "status": self.status,
            "memo": self.given.get("memo") or "",
            "isRetired": self.retired_at is not None,
            "roles": roles,
        }
        for key in ("displayName", "customIdentifier"):
            if self.given.get(key):
                body[key] = self.given[key]
        if self.retired_at is not None:
            body["retiredAt"] = self.retired_at
        return body


@dataclass
class Role:
    """Of a service."""

    memo: str = ""
    metadata: Metadata = field(default_factory=lambda: Metadata("role"))


@dataclass
class Service:
    """What belongs to a service."""

    memo: str = ""
    roles: dict[str, Role] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=lambda: Metadata("service"))
    metrics: dict[str, Series] = field(default_factory=dict)
    posts: list[float] = field(default_factory=list)


@dataclass
class Graph:
    """A graph definition, and when it was posted."""

    body: dict[str, Any]
    posted_at: float

    @property
    def wild(self) -> bool:
        """Whether it vanishes by itself."""
        return any(sign in metric["name"] for metric in self.body["metrics"] for sign in "*#")

    def matches(self, metric: str) -> bool:
        """A wildcard stands for one part between dots."""
        return any(_pattern(one["name"]).fullmatch(metric) for one in self.body["metrics"])


def _pattern(name: str) -> re.Pattern[str]:
    parts = [
        "[-a-zA-Z0-9_]+" if part in ("*", "#") else re.escape(part) for part in name.split(".")
    ]
    return re.compile(r"\.".join(parts))


class Organization:
    """Not thread-safe by itself: the server lets one request in at a time, except that
    ``make_host`` lets others in between the look and the write, as Mackerel does.

    service_posts_per_minute: how often a service may be posted within 60 s before 429. Mackerel
    does not say how often, only that it may be too often, and that once a minute is right
    (service-metrics#post).
    """

    def __init__(self, clock: Callable[[], float], service_posts_per_minute: int) -> None:
        self.clock = clock
        self.service_posts_per_minute = service_posts_per_minute
        self.hosts: dict[str, Host] = {}
        self.services: dict[str, Service] = {}
        self.graphs: dict[str, Graph] = {}
        self.annotations: dict[str, dict[str, Any]] = {}
        self.monitors: dict[str, dict[str, Any]] = {}
        self.alerts: list[dict[str, Any]] = []
        self.dropped_old = 0
        self.make_monitor(monitors.monitor(monitors.FIRST))

    # -------------------------------------------------------------------------------------- hosts

    def host(self, host_id: str) -> Host:
        """Retired ones too. Raises Refused."""
        if host_id not in self.hosts:
            raise Refused(404, "Host not found.")
        return self.hosts[host_id]

    def live_host(self, host_id: str) -> Host:
        """Raises Refused for one that is retired."""
        host = self.host(host_id)
        if host.retired_at is not None:
            raise Refused(404, "Host not found.")
        return host

    def live_hosts(self) -> list[Host]:
        """Oldest first."""
        return [host for host in self.hosts.values() if host.retired_at is None]

    def with_identifier(self, identifier: str, *, any_case: bool = False) -> Host | None:
        """The oldest that is not retired (hosts#get-by-custom-identifier)."""

        def folded(value: str | None) -> str:
            return (value or "").lower() if any_case else value or ""

        for host in self.live_hosts():
            if identifier and folded(host.given.get("customIdentifier")) == folded(identifier):
                return host
        return None

    def refuse_taken(self, identifier: str | None, host_id: str = "") -> None:
        """A custom identifier is unique in the organisation (hosts#create)."""
        found = self.with_identifier(identifier) if identifier else None
        if found and found.id != host_id:
            raise Refused(400, "customIdentifier is already in use.")

    def make_host(self, given: dict[str, Any]) -> Host:
        """Make a host, and the services and roles that it names and that are missing."""
        host = Host(new_id(), int(self.clock()), given, set())
        self.hosts[host.id] = host
        self.give_roles(host, given["roleFullnames"])
        return host

    def change_host(self, host: Host, given: dict[str, Any]) -> None:
        """PUT: takes no roles away (hosts#update-information)."""
        host.given = given
        self.give_roles(host, given["roleFullnames"])

    def give_roles(self, host: Host, roles: Iterable[tuple[str, str]]) -> None:
        """Add roles to a host; the missing ones are made."""
        for service, role in roles:
            self.services.setdefault(service, Service()).roles.setdefault(role, Role())
            host.roles.add((service, role))

    def set_roles(self, host: Host, roles: list[tuple[str, str]]) -> None:
        """PUT role-fullnames. Nothing says that it makes missing roles, so it does not."""
        for service, role in roles:
            if service not in self.services or role not in self.services[service].roles:
                raise Refused(400, f"Role not found: {service}:{role}")
        host.roles = set(roles)

    def retire(self, host: Host) -> None:
        """It cannot be undone; its values stay, and its open alerts are closed."""
        host.retired_at = int(self.clock())
        for alert in self.open_alerts():
            if alert.get("hostId") == host.id:
                self.close(alert, "the host was retired")

    # ------------------------------------------------------------------------- services and roles

    def service(self, name: str) -> Service:
        """Raises Refused."""
        if name not in self.services:
            raise Refused(404, "Service not found.")
        return self.services[name]

    def role(self, service: str, name: str) -> Role:
        """Raises Refused."""
        roles = self.service(service).roles
        if name not in roles:
            raise Refused(404, "Role not found.")
        return roles[name]

    def make_service(self, name: str, memo: str) -> None:
        """Raises Refused for a name that is taken."""
        if name in self.services:
            raise Refused(400, "Service name is already in use.")
        self.services[name] = Service(memo)

    def make_role(self, service: str, name: str, memo: str) -> None:
        """Raises Refused for a name that is taken."""
        roles = self.service(service).roles
        if name in roles:
            raise Refused(400, "Role name is already in use.")
        roles[name] = Role(memo)

    def shown_service(self, name: str) -> dict[str, Any]:
        """As GET answers it (services#list)."""
        service = self.service(name)
        return {"name": name, "memo": service.memo, "roles": sorted(service.roles)}

    def remove_service(self, name: str) -> None:
        """With its roles, values and annotations (services#delete)."""
        self.service(name)
        del self.services[name]
        self.annotations = {
            key: one for key, one in self.annotations.items() if one["service"] != name
        }
        for host in self.hosts.values():
            host.roles = {pair for pair in host.roles if pair[0] != name}

    def remove_role(self, service: str, name: str) -> None:
        """Takes it from its hosts, too."""
        self.role(service, name)
        del self.services[service].roles[name]
        for host in self.hosts.values():
            host.roles.discard((service, name))

    # ------------------------------------------------------------------------------------- values

    def take_host_values(self, values: list[dict[str, Any]]) -> None:
        """All of them or, with an unknown host among them, none."""
        for host_id in {value["hostId"] for value in values}:
            self.live_host(host_id)
        for value in values:
            self._take(self.hosts[value["hostId"]].metrics, value)

    def take_service_values(self, name: str, values: list[dict[str, Any]]) -> None:
        """Raises Refused for an unknown service, and when it is posted too often."""
        service = self.service(name)
        now = self.clock()
        service.posts = [at for at in service.posts if at > now - 60]
        if len(service.posts) >= self.service_posts_per_minute:
            raise Refused(429, "Too many requests.")
        service.posts.append(now)
        for value in values:
            self._take(service.metrics, value)

    def _take(self, metrics: dict[str, Series], value: Mapping[str, Any]) -> None:
        """A value of the same minute is overwritten; one older than 24 h is not recorded, and
        nobody is told (host-metrics#post).
        """
        if value["time"] < self.clock() - _DAY:
            self.dropped_old += 1
            return
        minute = int(value["time"]) // 60 * 60
        metrics.setdefault(value["name"], Series()).values[minute] = value["value"]

    # ------------------------------------------------------------------------------------- graphs

    def define(self, definitions: list[dict[str, Any]]) -> None:
        """The same name again replaces the definition."""
        for body in definitions:
            self.graphs[body["name"]] = Graph(body, self.clock())

    def graph_definitions(self) -> dict[str, dict[str, Any]]:
        """Those that are left, by name: one with wildcards vanishes some hours after its last
        value, or after it was posted when no value came.
        """
        return {name: graph.body for name, graph in self.graphs.items() if self._alive(graph)}

    def _alive(self, graph: Graph) -> bool:
        since = self.clock() - _WILDCARD_SECONDS
        if not graph.wild or graph.posted_at > since:
            return True
        return any(
            series.latest()["time"] > since
            for host in self.hosts.values()
            for name, series in host.metrics.items()
            if graph.matches(name)
        )

    # -------------------------------------------------------------------------------- annotations

    def check_annotation(self, body: dict[str, Any]) -> None:
        """Service and roles have to exist (graph-annotations#create)."""
        self.service(body["service"])
        for role in body.get("roles", []):
            self.role(body["service"], role)

    # ------------------------------------------------------------------------ monitors and alerts

    def monitor(self, monitor_id: str) -> dict[str, Any]:
        """Raises Refused."""
        if monitor_id not in self.monitors:
            raise Refused(404, "Monitor not found.")
        return self.monitors[monitor_id]

    def make_monitor(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """With an id of its own. given: as ``monitors.monitor`` answers it."""
        made = {**given, "id": new_id()}
        self.monitors[made["id"]] = made
        return made

    def remove_monitor(self, monitor_id: str) -> None:
        """Its open alerts are closed."""
        del self.monitors[monitor_id]
        for alert in self.open_alerts():
            if alert["monitorId"] == monitor_id:
                self.close(alert, "the monitor was deleted")

    def open_alerts(self) -> list[dict[str, Any]]:
        """Oldest first."""
        return [alert for alert in self.alerts if "closedAt" not in alert]

    def close(self, alert: dict[str, Any], reason: str) -> dict[str, Any]:
        """Answers the alert."""
        alert.update(status="OK", reason=reason, closedAt=int(self.clock()))
        return alert
