"""The calls of Mackerel's API: what each does to the organisation, and what it answers.

https://mackerel.io/api-docs/ lists them; each function names its section where a rule is not plain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote

from sandbox.mackerel import monitors, rules
from sandbox.mackerel.organization import Host, Metadata, Organization, new_id
from sandbox.mackerel.rules import Refused

_SUCCESS = {"success": True}


@dataclass(frozen=True)
class Call:
    """path: the parts of the path that vary, decoded. query: name → values. body: parsed JSON;
    None for an empty one.
    """

    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    body: Any

    def one(self, name: str) -> str | None:
        """The only or last value of a query parameter."""
        return self.query[name][-1] if name in self.query else None

    def required(self, name: str) -> str:
        """As ``one``. Raises Refused."""
        value = self.one(name)
        if value is None:
            raise Refused(400, f"{name} is required.")
        return value

    def epoch(self, name: str) -> float:
        """A required time."""
        try:
            return float(self.required(name))
        except ValueError:
            raise Refused(400, f"{name} is not a number.") from None


@dataclass(frozen=True)
class Answer:
    """body: as JSON, unless it is bytes."""

    body: Any
    headers: tuple[tuple[str, str], ...] = ()


Route = Callable[[Call], Answer]


class Api:
    """pause: lets other requests in, between the look and the write of one that is not atomic."""

    def __init__(self, organization: Organization, pause: Callable[[], None]) -> None:
        self._all = organization
        self._pause = pause
        self._routes = [
            (method, template, _compiled(template), route)
            for (method, template), route in self._table().items()
        ]

    def find(self, method: str, path: str) -> tuple[str, dict[str, str], Route] | None:
        """(template, varying parts, what answers) of a request; None when there is none."""
        for known_method, template, pattern, route in self._routes:
            found = pattern.fullmatch(path)
            if known_method == method and found:
                parts = {name: unquote(value) for name, value in found.groupdict().items()}
                return template, parts, route
        return None

    def _table(self) -> dict[tuple[str, str], Route]:
        hosts, services = "/api/v0/hosts", "/api/v0/services"
        table: dict[tuple[str, str], Route] = {
            ("GET", "/api/v0/org"): lambda _: Answer({"name": "sandbox", "displayName": None}),
            ("GET", hosts): self._list_hosts,
            ("GET", f"{hosts}.json"): self._list_hosts,
            ("POST", hosts): self._make_host,
            ("POST", f"{hosts}/bulk-update-statuses"): self._set_statuses,
            ("POST", f"{hosts}/bulk-retire"): self._retire_all,
            ("GET", f"{hosts}/<host>"): self._get_host,
            ("PUT", f"{hosts}/<host>"): self._change_host,
            ("GET", "/api/v0/hosts-by-custom-identifier/<identifier>"): self._by_identifier,
            ("POST", f"{hosts}/<host>/status"): self._set_status,
            ("PUT", f"{hosts}/<host>/role-fullnames"): self._set_roles,
            ("POST", f"{hosts}/<host>/retire"): self._retire,
            ("GET", f"{hosts}/<host>/metric-names"): self._host_metric_names,
            ("GET", f"{hosts}/<host>/metrics"): self._host_metrics,
            ("POST", "/api/v0/tsdb"): self._take_host_values,
            ("GET", "/api/v0/tsdb/latest"): self._latest,
            ("POST", "/api/v0/graph-defs/create"): self._define,
            ("DELETE", "/api/v0/graph-defs"): self._undefine,
            ("GET", services): self._list_services,
            ("POST", services): self._make_service,
            ("DELETE", f"{services}/<service>"): self._remove_service,
            ("GET", f"{services}/<service>/roles"): self._list_roles,
            ("POST", f"{services}/<service>/roles"): self._make_role,
            ("DELETE", f"{services}/<service>/roles/<role>"): self._remove_role,
            ("GET", f"{services}/<service>/metric-names"): self._service_metric_names,
            ("GET", f"{services}/<service>/metrics"): self._service_metrics,
            ("POST", f"{services}/<service>/tsdb"): self._take_service_values,
            ("GET", "/api/v0/graph-annotations"): self._list_annotations,
            ("POST", "/api/v0/graph-annotations"): self._annotate,
            ("PUT", "/api/v0/graph-annotations/<annotation>"): self._change_annotation,
            ("DELETE", "/api/v0/graph-annotations/<annotation>"): self._remove_annotation,
            ("GET", "/api/v0/monitors"): self._list_monitors,
            ("POST", "/api/v0/monitors"): self._make_monitor,
            ("GET", "/api/v0/monitors/<monitor>"): self._get_monitor,
            ("PUT", "/api/v0/monitors/<monitor>"): self._change_monitor,
            ("DELETE", "/api/v0/monitors/<monitor>"): self._remove_monitor,
            ("GET", "/api/v0/alerts"): self._list_alerts,
            ("GET", "/api/v0/alerts/<alert>"): self._get_alert,
            ("PUT", "/api/v0/alerts/<alert>"): self._note_alert,
            ("POST", "/api/v0/alerts/<alert>/close"): self._close_alert,
        }
        owners: dict[str, tuple[Callable[[Call], Metadata], Callable[[Call], None]]] = {
            f"{hosts}/<host>": (self._metadata_of_host, self._refuse_retired),
            f"{services}/<service>": (
                lambda call: self._all.service(call.path["service"]).metadata,
                lambda _: None,
            ),
            f"{services}/<service>/roles/<role>": (
                lambda call: self._all.role(call.path["service"], call.path["role"]).metadata,
                lambda _: None,
            ),
        }
        for path, (owner, refuse) in owners.items():
            table.update(self._metadata_routes(f"{path}/metadata", owner, refuse))
        return table

    # -------------------------------------------------------------------------------------- hosts

    def _list_hosts(self, call: Call) -> Answer:
        statuses = [rules.status(one) for one in call.query.get("status", ("working", "standby"))]
        service, roles = call.one("service"), call.query.get("role", ())
        name, identifier = call.one("name"), call.one("customIdentifier")

        def wanted(host: Host) -> bool:
            belongs = not service or any(
                pair[0] == service and (not roles or pair[1] in roles) for pair in host.roles
            )
            return (
                host.status in statuses
                and belongs
                and name in (None, host.given["name"])
                and identifier in (None, host.given.get("customIdentifier"))
            )

        return Answer({"hosts": [host.shown() for host in self._all.live_hosts() if wanted(host)]})

    def _make_host(self, call: Call) -> Answer:
        given = rules.host(call.body)
        self._all.refuse_taken(given.get("customIdentifier"))
        # Mackerel does not do it atomically: two at a time make two.
        self._pause()
        return Answer({"id": self._all.make_host(given).id})

    def _get_host(self, call: Call) -> Answer:
        return Answer({"host": self._all.host(call.path["host"]).shown()})

    def _by_identifier(self, call: Call) -> Answer:
        any_case = call.one("caseInsensitive") == "true"
        host = self._all.with_identifier(call.path["identifier"], any_case=any_case)
        if host is None:
            raise Refused(404, "Host not found.")
        return Answer({"host": host.shown()})

    def _change_host(self, call: Call) -> Answer:
        given = rules.host(call.body)
        host = self._all.live_host(call.path["host"])
        self._all.refuse_taken(given.get("customIdentifier"), host.id)
        self._all.change_host(host, given)
        return Answer({"id": host.id})

    def _set_status(self, call: Call) -> Answer:
        status = rules.status(rules.mapping(call.body).get("status"))
        self._all.live_host(call.path["host"]).status = status
        return Answer(_SUCCESS)

    def _set_statuses(self, call: Call) -> Answer:
        body = rules.mapping(call.body)
        status, ids = rules.status(body.get("status")), rules.host_ids(body)
        for host in [self._all.live_host(one) for one in ids]:
            host.status = status
        return Answer(_SUCCESS)

    def _set_roles(self, call: Call) -> Answer:
        given = rules.listing(rules.mapping(call.body).get("roleFullnames"), "roleFullnames")
        roles = [rules.role_fullname(one) for one in given]
        self._all.set_roles(self._all.live_host(call.path["host"]), roles)
        return Answer(_SUCCESS)

    def _retire(self, call: Call) -> Answer:
        self._all.retire(self._all.live_host(call.path["host"]))
        return Answer(_SUCCESS)

    def _retire_all(self, call: Call) -> Answer:
        ids = rules.host_ids(rules.mapping(call.body))
        for host in [self._all.live_host(one) for one in ids]:
            self._all.retire(host)
        return Answer(_SUCCESS)

    # ------------------------------------------------------------------------------------- values

    def _take_host_values(self, call: Call) -> Answer:
        self._all.take_host_values(rules.values(call.body, ("hostId", "name")))
        return Answer(_SUCCESS)

    def _take_service_values(self, call: Call) -> Answer:
        values = rules.values(call.body, ("name",))
        self._all.take_service_values(call.path["service"], values)
        return Answer(_SUCCESS)

    def _latest(self, call: Call) -> Answer:
        call.required("hostId"), call.required("name")
        latest = {}
        for host_id in call.query["hostId"]:
            metrics = self._all.host(host_id).metrics
            latest[host_id] = {
                name: metrics[name].latest() for name in call.query["name"] if name in metrics
            }
        return Answer({"tsdbLatest": latest})

    def _host_metrics(self, call: Call) -> Answer:
        return self._metrics(call, self._all.host(call.path["host"]).metrics)

    def _service_metrics(self, call: Call) -> Answer:
        return self._metrics(call, self._all.service(call.path["service"]).metrics)

    @staticmethod
    def _metrics(call: Call, metrics: Mapping[str, Any]) -> Answer:
        name, start, end = call.required("name"), call.epoch("from"), call.epoch("to")
        if name not in metrics:
            raise Refused(404, "Metric not found.")
        return Answer({"metrics": metrics[name].shown(start, end)})

    def _host_metric_names(self, call: Call) -> Answer:
        return Answer({"names": sorted(self._all.host(call.path["host"]).metrics)})

    def _service_metric_names(self, call: Call) -> Answer:
        return Answer({"names": sorted(self._all.service(call.path["service"]).metrics)})

    # ------------------------------------------------------------------------------------- graphs

    def _define(self, call: Call) -> Answer:
        self._all.define([rules.graph_definition(one) for one in rules.listing(call.body)])
        return Answer(_SUCCESS)

    def _undefine(self, call: Call) -> Answer:
        name = rules.text(rules.mapping(call.body), "name")
        if self._all.graphs.pop(name, None) is None:
            raise Refused(404, "Graph definition not found.")
        return Answer(_SUCCESS)

    # ------------------------------------------------------------------------- services and roles

    def _list_services(self, _call: Call) -> Answer:
        return Answer(
            {"services": [self._all.shown_service(name) for name in sorted(self._all.services)]}
        )

    def _make_service(self, call: Call) -> Answer:
        body = rules.mapping(call.body)
        name, memo = rules.place_name(body.get("name")), rules.text(body, "memo", "")
        self._all.make_service(name, memo)
        return Answer(self._all.shown_service(name))

    def _remove_service(self, call: Call) -> Answer:
        before = self._all.shown_service(call.path["service"])
        self._all.remove_service(call.path["service"])
        return Answer(before)

    def _list_roles(self, call: Call) -> Answer:
        roles = self._all.service(call.path["service"]).roles
        return Answer(
            {"roles": [{"name": name, "memo": roles[name].memo} for name in sorted(roles)]}
        )

    def _make_role(self, call: Call) -> Answer:
        body = rules.mapping(call.body)
        name, memo = rules.place_name(body.get("name")), rules.text(body, "memo", "")
        self._all.make_role(call.path["service"], name, memo)
        return Answer({"name": name, "memo": memo})

    def _remove_role(self, call: Call) -> Answer:
        service, name = call.path["service"], call.path["role"]
        memo = self._all.role(service, name).memo
        self._all.remove_role(service, name)
        return Answer({"name": name, "memo": memo})

    # -------------------------------------------------------------------------------- annotations

    def _list_annotations(self, call: Call) -> Answer:
        service, start, end = call.required("service"), call.epoch("from"), call.epoch("to")
        self._all.service(service)
        found = [
            one
            for one in self._all.annotations.values()
            if one["service"] == service and one["from"] <= end and one["to"] >= start
        ]
        return Answer({"graphAnnotations": sorted(found, key=lambda one: one["from"])})

    def _annotate(self, call: Call) -> Answer:
        body = rules.annotation(call.body)
        self._all.check_annotation(body)
        made = {"id": new_id(), **body}
        self._all.annotations[made["id"]] = made
        return Answer(made)

    def _change_annotation(self, call: Call) -> Answer:
        body = rules.annotation(call.body)
        key = self._annotation(call)
        self._all.check_annotation(body)
        self._all.annotations[key] = {"id": key, **body}
        return Answer(self._all.annotations[key])

    def _remove_annotation(self, call: Call) -> Answer:
        return Answer(self._all.annotations.pop(self._annotation(call)))

    def _annotation(self, call: Call) -> str:
        if call.path["annotation"] not in self._all.annotations:
            raise Refused(404, "Graph annotation not found.")
        return call.path["annotation"]

    # ----------------------------------------------------------------------------------- monitors

    def _list_monitors(self, _call: Call) -> Answer:
        return Answer({"monitors": list(self._all.monitors.values())})

    def _make_monitor(self, call: Call) -> Answer:
        return Answer(self._all.make_monitor(self._checked_monitor(call)))

    def _get_monitor(self, call: Call) -> Answer:
        return Answer({"monitor": self._all.monitor(call.path["monitor"])})

    def _change_monitor(self, call: Call) -> Answer:
        known = self._all.monitor(call.path["monitor"])
        given = self._checked_monitor(call)
        if given["type"] != known["type"]:
            raise Refused(400, "type cannot be changed.")
        self._all.monitors[known["id"]] = {**given, "id": known["id"]}
        return Answer(self._all.monitors[known["id"]])

    def _remove_monitor(self, call: Call) -> Answer:
        """Its open alerts are closed (monitors#delete)."""
        known = self._all.monitor(call.path["monitor"])
        self._all.remove_monitor(known["id"])
        return Answer(known)

    def _checked_monitor(self, call: Call) -> dict[str, Any]:
        given = monitors.monitor(call.body)
        if given.get("service") is not None:
            self._all.service(given["service"])
        return given

    # ------------------------------------------------------------------------------------- alerts

    def _list_alerts(self, call: Call) -> Answer:
        wanted = call.one("limit") or str(rules.MOST_ALERTS_AT_ONCE)
        if not wanted.isdigit() or not 1 <= int(wanted) <= rules.MOST_ALERTS_AT_ONCE:
            raise Refused(400, f"limit is not 1 to {rules.MOST_ALERTS_AT_ONCE}.")
        limit = int(wanted)
        alerts = sorted(self._all.alerts, key=lambda one: -one["openedAt"])
        if call.one("withClosed") != "true":
            alerts = [one for one in alerts if "closedAt" not in one]
        after = call.one("nextId")
        if after is not None:
            ids = [one["id"] for one in alerts]
            if after not in ids:
                raise Refused(400, "nextId is invalid.")
            alerts = alerts[ids.index(after) + 1 :]
        body: dict[str, Any] = {"alerts": alerts[:limit]}
        if len(alerts) > limit:
            body["nextId"] = alerts[limit - 1]["id"]
        return Answer(body)

    def _alert(self, call: Call) -> dict[str, Any]:
        for alert in self._all.alerts:
            if alert["id"] == call.path["alert"]:
                return alert
        raise Refused(404, "Alert not found.")

    def _get_alert(self, call: Call) -> Answer:
        return Answer(self._alert(call))

    def _note_alert(self, call: Call) -> Answer:
        memo = rules.text(rules.mapping(call.body), "memo")
        if len(memo.encode()) > rules.MOST_MEMO_BYTES:
            raise Refused(413, "memo is too large.")
        self._alert(call)["memo"] = memo
        return Answer({"id": call.path["alert"], "memo": memo})

    def _close_alert(self, call: Call) -> Answer:
        reason = rules.text(rules.mapping(call.body), "reason")
        return Answer(self._all.close(self._alert(call), reason))

    # ----------------------------------------------------------------------------------- metadata

    def _metadata_of_host(self, call: Call) -> Metadata:
        return self._all.host(call.path["host"]).metadata

    def _refuse_retired(self, call: Call) -> None:
        if self._all.host(call.path["host"]).retired_at is not None:
            raise Refused(400, "Host is retired.")

    def _metadata_routes(
        self, path: str, owner: Callable[[Call], Metadata], refuse: Callable[[Call], None]
    ) -> dict[tuple[str, str], Route]:
        """The four calls on metadata of one kind of owner."""

        def found(call: Call) -> tuple[Any, float]:
            items = owner(call).items
            if call.path["namespace"] not in items:
                raise Refused(404, "Metadata not found.")
            return items[call.path["namespace"]]

        def get(call: Call) -> Answer:
            value, at = found(call)
            return Answer(value, (("Last-Modified", formatdate(at, usegmt=True)),))

        def put(call: Call) -> Answer:
            metadata = owner(call)
            refuse(call)
            name = rules.namespace(call.path["namespace"])
            if len(json.dumps(call.body)) > rules.MOST_METADATA_BYTES:
                raise Refused(413, "metadata exceeds 100KB.")
            metadata.put(name, call.body, self._all.clock())
            return Answer(_SUCCESS)

        def delete(call: Call) -> Answer:
            refuse(call)
            found(call)
            del owner(call).items[call.path["namespace"]]
            return Answer(_SUCCESS)

        def listed(call: Call) -> Answer:
            return Answer({"metadata": [{"namespace": name} for name in sorted(owner(call).items)]})

        return {
            ("GET", f"{path}/<namespace>"): get,
            ("PUT", f"{path}/<namespace>"): put,
            ("DELETE", f"{path}/<namespace>"): delete,
            ("GET", path): listed,
        }


def parsed_query(text: str) -> dict[str, list[str]]:
    """Names → values; empty values count."""
    return parse_qs(text, keep_blank_values=True)


def _compiled(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", template.replace(".", r"\.")))
