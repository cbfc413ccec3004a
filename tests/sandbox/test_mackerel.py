"""The stand-in for Mackerel speaks the real API's shapes, and refuses what it refuses.

Rules: https://mackerel.io/api-docs/. Two clients from PyPI, which know nothing of this project,
read back what it keeps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from mackerel.api import Client as ApiClient
from mackerel.client import Client as OldClient
from mackerel.client import MackerelClientError

from sandbox.mackerel import Fault, MackerelServer

KEY = "a-key-that-may-write"
READER = "a-key-that-may-read"
NOW = 1_800_000_000  # a whole minute
DAY = 86_400


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[MackerelServer]:
    with MackerelServer(api_key=KEY, read_only_key=READER, clock=clock) as running:
        yield running


class Api:
    """Plain requests, as anybody can make them."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.url = url
        self.headers = {"X-Api-Key": key}

    def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        answer = requests.request(
            method,
            f"{self.url}/api/v0{path}",
            headers=self.headers,
            json=body,
            params=query,
            timeout=5,
        )
        return answer.status_code, answer.json()

    def make(self, name: str = "web-blue", **more: Any) -> str:
        status, body = self("POST", "/hosts", {"name": name, "meta": {}, **more})
        assert status == 200, body
        return str(body["id"])

    def send(self, *values: Any) -> int:
        """values: (host, name, time, value)."""
        keys = ("hostId", "name", "time", "value")
        return self("POST", "/tsdb", [dict(zip(keys, one, strict=True)) for one in values])[0]


@pytest.fixture
def api(server: MackerelServer) -> Api:
    return Api(server.url)


def refusal(answer: tuple[int, Any]) -> tuple[int, str]:
    """Status and message of an error, in the real API's shape."""
    status, body = answer
    assert status != 200, body
    return status, str(body["error"]["message"])


# -------------------------------------------------------------------------- clients of other people


def test_mackerel_client_reads_hosts_and_latest_values_back(
    server: MackerelServer, api: Api
) -> None:
    blue = api.make("web-blue", customIdentifier="c.web-blue", roleFullnames=["shop:web"])
    api.make("batch", roleFullnames=["shop:batch"])
    api.send((blue, "custom.ecs.cpu.app.total", NOW - 60, 12.5))
    api.send((blue, "custom.ecs.cpu.app.total", NOW, 50))
    client = OldClient(mackerel_origin=server.url, mackerel_api_key=KEY)

    assert {host.name for host in client.get_hosts(service="shop")} == {"web-blue", "batch"}
    [host] = client.get_hosts(service="shop", role="web")
    assert (host.id, host.status, host.roles) == (blue, "working", {"shop": ["web"]})
    assert client.get_host(blue).name == "web-blue"
    assert client.get_hosts(customIdentifier="c.web-blue")[0].id == blue
    assert client.get_latest_metrics([blue], ["custom.ecs.cpu.app.total"]) == {
        "tsdbLatest": {blue: {"custom.ecs.cpu.app.total": {"time": NOW, "value": 50}}}
    }


def test_mackerel_client_changes_statuses_posts_and_retires(
    server: MackerelServer, api: Api
) -> None:
    host = api.make(roleFullnames=["shop:web"])
    client = OldClient(mackerel_origin=server.url, mackerel_api_key=KEY)
    client.post_metrics([{"hostId": host, "name": "custom.a.b", "time": NOW, "value": 3}])
    client.post_service_metrics("shop", [{"name": "ecs.web.cpu", "time": NOW, "value": 4}])
    client.update_host_status(host, "poweroff")
    assert client.get_host(host).status == "poweroff"
    assert client.get_hosts() == []
    client.retire_host(host)
    assert client.get_host(host).is_retired
    assert server.organization.services["shop"].metrics["ecs.web.cpu"].values == {NOW: 4}
    with pytest.raises(MackerelClientError, match="401"):
        OldClient(mackerel_origin=server.url, mackerel_api_key="no").get_hosts()


def test_mackerel_api_reads_hosts_and_values_back(server: MackerelServer, api: Api) -> None:
    host = api.make("web-green", roleFullnames=["shop:web"])
    api.send((host, "custom.ecs.service.running_tasks", NOW - 120, 2))
    api.send((host, "custom.ecs.service.running_tasks", NOW, 0))
    client = ApiClient(api_key=KEY)
    client.base_url = f"{server.url}/api/v0"

    [found] = client.get("/hosts").json()["hosts"]
    assert (found["id"], found["name"], found["isRetired"]) == (host, "web-green", False)
    query = {"name": "custom.ecs.service.running_tasks", "from": NOW - 3600, "to": NOW}
    assert client.get(f"/hosts/{host}/metrics", query).json() == {
        "metrics": [{"time": NOW - 120, "value": 2}, {"time": NOW, "value": 0}]
    }
    latest = {"hostId": host, "name": "custom.ecs.service.running_tasks"}
    assert client.get("/tsdb/latest", latest).json()["tsdbLatest"][host] == {
        "custom.ecs.service.running_tasks": {"time": NOW, "value": 0}
    }
    made = client.post("/services", {"name": "other", "memo": "by hand"}).json()
    assert made == {"name": "other", "memo": "by hand", "roles": []}
    assert client.put(f"/hosts/{host}/metadata/owner", {"team": "a"}).json() == {"success": True}
    assert client.get(f"/hosts/{host}/metadata/owner").json() == {"team": "a"}
    assert client.delete("/services/other").status_code == 200
    assert [one["name"] for one in client.get("/services").json()["services"]] == ["shop"]


# ---------------------------------------------------------------------------------- who may do what


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x"])
def test_a_key_that_is_missing_or_wrong_is_401(server: MackerelServer, key: str) -> None:
    assert refusal(Api(server.url, key)("GET", "/org")) == (
        401,
        "Authentication failed. Please try with valid Api Key.",
    )


def test_a_key_that_may_only_read_is_403_for_writes(server: MackerelServer, api: Api) -> None:
    reader = Api(server.url, READER)
    host = api.make()
    assert reader("GET", "/hosts")[0] == 200
    for method, path in (("POST", "/tsdb"), ("PUT", f"/hosts/{host}"), ("DELETE", "/services/a")):
        assert refusal(reader(method, path, []))[0] == 403


def test_a_path_that_does_not_exist_is_404_before_the_key_is_looked_at(
    server: MackerelServer,
) -> None:
    assert refusal(Api(server.url, "")("GET", "/no/such/thing")) == (404, "Not found.")


def test_what_is_no_json_or_not_said_to_be_is_refused(server: MackerelServer, api: Api) -> None:
    def post(body: str, kind: str = "application/json") -> int:
        headers = {**api.headers, "Content-Type": kind}
        return requests.post(
            f"{server.url}/api/v0/tsdb", data=body, headers=headers, timeout=5
        ).status_code

    host = api.make()
    value = f'[{{"hostId": "{host}", "name": "custom.a", "time": {NOW}, "value": %s}}]'
    assert post(value % "1") == 200
    assert [post(value % wrong) for wrong in ("NaN", "Infinity", "-Infinity")] == [400] * 3
    assert post(value % "1", "text/plain") == 400
    assert post("{") == 400
    assert post(" " * 1_100_000) == 413


# ----------------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(
    "body",
    [
        {"meta": {}},
        {"name": "", "meta": {}},
        {"name": "a"},
        {"name": "a", "meta": []},
        {"name": "a", "meta": {}, "roleFullnames": ["web"]},
        {"name": "a", "meta": {}, "roleFullnames": ["shop:w"]},
        {"name": "a", "meta": {}, "roleFullnames": ["shop:-web"]},
        {"name": "a", "meta": {}, "roleFullnames": ["shop:" + "w" * 64]},
        {"name": "a", "meta": {}, "roleFullnames": ["shop:web server"]},
        {"name": "a", "meta": {}, "customIdentifier": 7},
        {"name": "a", "meta": {}, "checks": [{"name": "a b"}]},
        [],
    ],
)
def test_a_host_that_is_no_host_is_refused(api: Api, body: Any) -> None:
    assert refusal(api("POST", "/hosts", body))[0] == 400
    assert api("GET", "/hosts")[1] == {"hosts": []}
    assert api("GET", "/services")[1] == {"services": []}


def test_a_host_makes_the_services_and_roles_it_names(api: Api) -> None:
    host = api.make(roleFullnames=["shop:web", "other:db-master"], displayName="blue")
    assert api("GET", "/services")[1] == {
        "services": [
            {"name": "other", "memo": "", "roles": ["db-master"]},
            {"name": "shop", "memo": "", "roles": ["web"]},
        ]
    }
    found = api("GET", f"/hosts/{host}")[1]["host"]
    assert found == {
        "createdAt": NOW,
        "id": host,
        "name": "web-blue",
        "displayName": "blue",
        "meta": {},
        "interfaces": [],
        "type": "agent",
        "size": "standard",
        "status": "working",
        "memo": "",
        "isRetired": False,
        "roles": {"other": ["db-master"], "shop": ["web"]},
    }


def test_put_never_takes_roles_away_and_role_fullnames_does(api: Api) -> None:
    host = api.make(roleFullnames=["shop:web", "shop:db"])
    body = {"name": "renamed", "meta": {}, "roleFullnames": ["shop:cache"]}
    assert api("PUT", f"/hosts/{host}", body) == (200, {"id": host})
    found = api("GET", f"/hosts/{host}")[1]["host"]
    assert (found["name"], found["roles"]) == ("renamed", {"shop": ["cache", "db", "web"]})

    api("PUT", f"/hosts/{host}/role-fullnames", {"roleFullnames": ["shop:db"]})
    assert api("GET", f"/hosts/{host}")[1]["host"]["roles"] == {"shop": ["db"]}
    for wrong in (["shop:nowhere"], ["nowhere:db"], ["shop"], "shop:db"):
        answer = api("PUT", f"/hosts/{host}/role-fullnames", {"roleFullnames": wrong})
        assert refusal(answer)[0] == 400
    assert api("GET", f"/hosts/{host}")[1]["host"]["roles"] == {"shop": ["db"]}


def test_a_custom_identifier_belongs_to_one_host_that_is_not_retired(api: Api) -> None:
    first = api.make(customIdentifier="c/web blue")
    taken = api("POST", "/hosts", {"name": "b", "meta": {}, "customIdentifier": "c/web blue"})
    assert refusal(taken)[0] == 400
    path = "/hosts-by-custom-identifier/c%2Fweb%20blue"
    assert api("GET", path)[1]["host"]["id"] == first
    assert refusal(api("GET", path.replace("web", "WEB")))[0] == 404
    assert api("GET", path.replace("web", "WEB"), caseInsensitive="true")[0] == 200

    api("POST", f"/hosts/{first}/retire", {})
    assert refusal(api("GET", path))[0] == 404
    assert api.make(customIdentifier="c/web blue") != first


def test_two_at_a_time_make_two_hosts_as_mackerel_is_not_atomic_there(clock: Clock) -> None:
    with MackerelServer(api_key=KEY, clock=clock, creation_seconds=0.3) as server:
        api = Api(server.url)
        with ThreadPoolExecutor(2) as pool:
            ids = list(pool.map(lambda _: api.make(customIdentifier="same"), range(2)))
        assert len(set(ids)) == 2


def test_only_working_and_standby_hosts_are_listed_by_default(api: Api) -> None:
    hosts = {
        status: api.make(status) for status in ("working", "standby", "maintenance", "poweroff")
    }
    for status, host in hosts.items():
        assert api("POST", f"/hosts/{host}/status", {"status": status})[0] == 200

    def names(**query: Any) -> set[str]:
        return {host["name"] for host in api("GET", "/hosts", **query)[1]["hosts"]}

    assert names() == {"working", "standby"}
    assert names(status=list(hosts)) == set(hosts)
    assert names(status="poweroff") == {"poweroff"}
    assert names(name="standby") == {"standby"}
    assert refusal(api("POST", f"/hosts/{hosts['working']}/status", {"status": "off"}))[0] == 400
    assert refusal(api("POST", "/hosts/unknown/status", {"status": "working"}))[0] == 404


def test_statuses_change_together_or_not_at_all(api: Api) -> None:
    hosts = [api.make(f"h{number}") for number in range(31)]
    path = "/hosts/bulk-update-statuses"

    def standby() -> int:
        return len(api("GET", "/hosts", status="standby")[1]["hosts"])

    assert refusal(api("POST", path, {"status": "standby", "ids": hosts}))[0] == 400
    assert refusal(api("POST", path, {"status": "standby", "ids": [*hosts[:2], "no"]}))[0] == 404
    assert standby() == 0
    assert api("POST", path, {"status": "standby", "ids": hosts[:30]}) == (200, {"success": True})
    assert standby() == 30


def test_retiring_is_for_good_and_keeps_the_values(server: MackerelServer, api: Api) -> None:
    host = api.make()
    alert = server.add_alert(hostId=host)
    api.send((host, "custom.a.b", NOW, 1))
    assert api("POST", f"/hosts/{host}/retire", {}) == (200, {"success": True})
    found = api("GET", f"/hosts/{host}")[1]["host"]
    assert (found["isRetired"], found["retiredAt"]) == (True, NOW)
    assert api("GET", "/hosts")[1] == {"hosts": []}
    query = {"name": "custom.a.b", "from": NOW, "to": NOW}
    assert api("GET", f"/hosts/{host}/metrics", **query)[0] == 200
    assert alert["status"] == "OK"
    assert refusal(api("POST", f"/hosts/{host}/status", {"status": "working"}))[0] == 404
    assert refusal(api("POST", f"/hosts/{host}/retire", {}))[0] == 404
    assert api.send((host, "custom.a.b", NOW + 60, 1)) == 404


# ----------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "custom.ä"},
        {"name": ""},
        {"name": "a b"},
        {"name": "custom..a"},
        {"name": "custom." + "a" * 250},
        {"value": "1"},
        {"value": None},
        {"value": True},
        {"time": "now"},
        {"hostId": 1},
    ],
)
def test_one_wrong_value_refuses_all_that_came_with_it(api: Api, wrong: dict[str, Any]) -> None:
    host = api.make()
    good = {"hostId": host, "name": "custom.a", "time": NOW, "value": 1}
    assert refusal(api("POST", "/tsdb", [good, {**good, **wrong}]))[0] == 400
    assert api("GET", f"/hosts/{host}/metric-names")[1] == {"names": []}
    assert api("POST", "/tsdb", [good])[0] == 200
    assert api("GET", f"/hosts/{host}/metric-names")[1] == {"names": ["custom.a"]}


def test_an_unknown_host_refuses_all_values(api: Api) -> None:
    host = api.make()
    assert api.send((host, "custom.a", NOW, 1), ("unknown", "custom.a", NOW, 1)) == 404
    assert api("GET", f"/hosts/{host}/metric-names")[1] == {"names": []}


def test_values_older_than_a_day_are_dropped_with_200(server: MackerelServer, api: Api) -> None:
    host = api.make(roleFullnames=["shop:web"])
    assert (
        api.send((host, "custom.old", NOW - DAY - 1, 1), (host, "custom.new", NOW - DAY, 1)) == 200
    )
    assert api("GET", f"/hosts/{host}/metric-names")[1] == {"names": ["custom.new"]}
    old = [{"name": "ecs.old", "time": NOW - DAY - 60, "value": 1}]
    assert api("POST", "/services/shop/tsdb", old) == (200, {"success": True})
    assert api("GET", "/services/shop/metric-names")[1] == {"names": []}
    assert server.organization.dropped_old == 2


def test_the_same_minute_again_overwrites(api: Api) -> None:
    host = api.make()
    api.send((host, "custom.a", NOW + 5, 1), (host, "custom.a", NOW + 40, 2))
    query = {"name": "custom.a", "from": NOW, "to": NOW + 60}
    assert api("GET", f"/hosts/{host}/metrics", **query)[1] == {
        "metrics": [{"time": NOW, "value": 2}]
    }


def test_the_latest_value_is_the_newest_one_not_the_last_that_came(api: Api) -> None:
    host = api.make()
    api.send((host, "custom.a", NOW, 5))
    api.send((host, "custom.a", NOW - 60, 4))
    answer = api("GET", "/tsdb/latest", hostId=host, name=["custom.a", "custom.none"])
    assert answer[1] == {"tsdbLatest": {host: {"custom.a": {"time": NOW, "value": 5}}}}
    assert refusal(api("GET", "/tsdb/latest", hostId=host))[0] == 400
    assert refusal(api("GET", f"/hosts/{host}/metrics", name="custom.b"))[0] == 400
    query = {"name": "custom.b", "from": 0, "to": NOW}
    assert refusal(api("GET", f"/hosts/{host}/metrics", **query))[0] == 404
    assert refusal(api("GET", "/hosts/unknown/metrics", **query))[0] == 404


def test_a_service_is_posted_once_a_minute_unless_told_otherwise(api: Api, clock: Clock) -> None:
    value = [{"name": "ecs.web.cpu", "time": NOW, "value": 1.5}]
    for service in ("shop", "mall"):
        api("POST", "/services", {"name": service, "memo": ""})
    assert api("POST", "/services/shop/tsdb", value)[0] == 200
    clock.now += 59
    assert refusal(api("POST", "/services/shop/tsdb", value)) == (429, "Too many requests.")
    assert api("POST", "/services/mall/tsdb", value)[0] == 200
    clock.now += 1
    assert api("POST", "/services/shop/tsdb", value)[0] == 200


def test_service_metrics_want_a_service_and_few_requests(clock: Clock) -> None:
    value = [{"name": "ecs.web.cpu", "time": NOW, "value": 1.5}]
    with MackerelServer(api_key=KEY, clock=clock, service_posts_per_minute=2) as server:
        api = Api(server.url)
        assert refusal(api("POST", "/services/shop/tsdb", value))[0] == 404
        api("POST", "/services", {"name": "shop", "memo": ""})
        statuses = [api("POST", "/services/shop/tsdb", value)[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        clock.now += 61
        assert api("POST", "/services/shop/tsdb", value)[0] == 200
        query = {"name": "ecs.web.cpu", "from": NOW, "to": NOW}
        assert api("GET", "/services/shop/metrics", **query)[1]["metrics"][0]["value"] == 1.5


# ----------------------------------------------------------------------------------- graphs


def definition(name: str = "custom.ecs.cpu.#", last: str = "total", **more: Any) -> dict[str, Any]:
    metric = {"name": f"{name}.{last}", "displayName": "%1", "isStacked": True}
    return {"name": name, "displayName": "CPU", "unit": "percentage", "metrics": [metric], **more}


@pytest.mark.parametrize(
    "body",
    [
        definition("ecs.cpu"),
        definition("custom"),
        definition("custom.a b"),
        definition("custom.a..b"),
        definition("custom.a#"),
        definition("custom.#.#"),
        definition("custom.#", "#"),
        definition("custom.plain", "*"),
        definition(unit="percent"),
        definition(unit="iop"),
        definition(metrics=[]),
        definition(metrics=[{"name": "custom.ecs.memory.#.total"}]),
        definition(metrics=[{"name": "custom.ecs.cpu.#.a.b"}]),
        definition(metrics=[{"name": "custom.ecs.cpu.#.total", "isStacked": "yes"}]),
        {"name": "custom.a"},
    ],
)
def test_a_graph_definition_that_breaks_a_rule_refuses_all(
    server: MackerelServer, api: Api, body: dict[str, Any]
) -> None:
    good = definition("custom.good.#", "*")
    assert refusal(api("POST", "/graph-defs/create", [good, body]))[0] == 400
    assert server.graph_definitions() == {}
    assert api("POST", "/graph-defs/create", [good]) == (200, {"success": True})
    assert list(server.graph_definitions()) == ["custom.good.#"]


@pytest.mark.parametrize(
    "unit",
    ["float", "integer", "percentage", "seconds", "milliseconds", "bytes", "bytes/sec", "bits/sec"],
)
def test_units_of_the_documentation_are_taken(api: Api, unit: str) -> None:
    assert api("POST", "/graph-defs/create", [definition(unit=unit)])[0] == 200


def test_a_definition_with_wildcards_vanishes_without_values(
    server: MackerelServer, api: Api, clock: Clock
) -> None:
    host = api.make()
    wild, used = definition("custom.wild.#"), definition("custom.used.#")
    api("POST", "/graph-defs/create", [wild, used, definition("custom.plain")])
    clock.now += 4 * 3600
    api.send((host, "custom.used.app.total", clock.now, 1))
    assert len(server.graph_definitions()) == 3
    clock.now += 4 * 3600
    assert set(server.graph_definitions()) == {"custom.used.#", "custom.plain"}
    assert api("DELETE", "/graph-defs", {"name": "custom.plain"})[0] == 200
    assert set(server.graph_definitions()) == {"custom.used.#"}


# --------------------------------------------------------------------- services, roles, annotations


@pytest.mark.parametrize("name", ["a", "-ab", "_ab", "a b", "a:b", "x" * 64, ""])
def test_names_of_services_and_roles_have_rules(api: Api, name: str) -> None:
    assert refusal(api("POST", "/services", {"name": name, "memo": ""}))[0] == 400
    api("POST", "/services", {"name": "shop", "memo": ""})
    assert refusal(api("POST", "/services/shop/roles", {"name": name, "memo": ""}))[0] == 400
    assert api("GET", "/services/shop/roles")[1] == {"roles": []}


def test_services_and_roles_come_and_go(api: Api) -> None:
    assert refusal(api("POST", "/services/shop/roles", {"name": "web", "memo": ""}))[0] == 404
    assert api("POST", "/services", {"name": "shop", "memo": "m"})[0] == 200
    assert refusal(api("POST", "/services", {"name": "shop", "memo": "m"}))[0] == 400
    made = api("POST", "/services/shop/roles", {"name": "web", "memo": "front"})
    assert made == (200, {"name": "web", "memo": "front"})
    host = api.make(roleFullnames=["shop:web"])
    assert api("GET", "/services/shop/roles")[1] == {"roles": [{"name": "web", "memo": "front"}]}
    assert api("DELETE", "/services/shop/roles/web")[0] == 200
    assert api("GET", f"/hosts/{host}")[1]["host"]["roles"] == {}
    assert refusal(api("GET", "/services/none/roles"))[0] == 404


@pytest.mark.parametrize(
    ("status", "wrong"),
    [
        (400, {"title": "t" * 251}),
        (400, {"description": "d" * 1025}),
        (400, {"from": NOW + 1}),
        (400, {"title": None}),
        (404, {"service": "nowhere"}),
        (404, {"roles": ["nowhere"]}),
    ],
)
def test_annotations_have_limits(api: Api, status: int, wrong: dict[str, Any]) -> None:
    api.make(roleFullnames=["shop:web"])
    good = {"title": "t" * 250, "description": "d" * 1024, "from": NOW, "to": NOW}
    good |= {"service": "shop", "roles": ["web"]}
    assert refusal(api("POST", "/graph-annotations", {**good, **wrong}))[0] == status
    made = api("POST", "/graph-annotations", good)[1]
    assert {**made, "id": ""} == {**good, "id": ""}
    query = {"service": "shop", "from": NOW - 10, "to": NOW}
    assert api("GET", "/graph-annotations", **query)[1] == {"graphAnnotations": [made]}


def test_annotations_are_found_when_they_touch_the_interval_and_can_be_changed(api: Api) -> None:
    api("POST", "/services", {"name": "shop", "memo": ""})
    body = {"title": "deploy", "from": NOW, "to": NOW + 100, "service": "shop"}
    made = api("POST", "/graph-annotations", body)[1]

    def found(start: int, end: int) -> list[str]:
        query = {"service": "shop", "from": start, "to": end}
        answer = api("GET", "/graph-annotations", **query)[1]
        return [one["title"] for one in answer["graphAnnotations"]]

    assert found(NOW + 100, NOW + 200) == found(NOW - 100, NOW) == ["deploy"]
    assert found(NOW + 101, NOW + 200) == []
    assert refusal(api("GET", "/graph-annotations", service="shop"))[0] == 400
    query = {"service": "none", "from": 0, "to": 1}
    assert refusal(api("GET", "/graph-annotations", **query))[0] == 404
    api("PUT", f"/graph-annotations/{made['id']}", {**body, "title": "rolled back"})
    assert found(NOW, NOW) == ["rolled back"]
    assert refusal(api("PUT", "/graph-annotations/none", body))[0] == 404
    assert api("DELETE", f"/graph-annotations/{made['id']}")[0] == 200
    assert found(NOW, NOW) == []


# ------------------------------------------------------------------------------ alerts and metadata


def test_alerts_come_in_pages_the_newest_first(server: MackerelServer, api: Api) -> None:
    for number in range(5):
        server.add_alert(id=f"a{number}", openedAt=NOW + number)
    api("POST", "/alerts/a2/close", {"reason": "known"})
    first = api("GET", "/alerts", limit=2)[1]
    assert ([one["id"] for one in first["alerts"]], first["nextId"]) == (["a4", "a3"], "a3")
    second = api("GET", "/alerts", limit=2, nextId="a3")[1]
    assert [one["id"] for one in second["alerts"]] == ["a1", "a0"]
    assert "nextId" not in second
    everything = api("GET", "/alerts", withClosed="true")[1]["alerts"]
    assert [one["id"] for one in everything] == ["a4", "a3", "a2", "a1", "a0"]
    assert everything[2]["reason"] == "known"
    assert refusal(api("GET", "/alerts", limit=101))[0] == 400
    assert api("PUT", "/alerts/a1", {"memo": "m"})[1] == {"id": "a1", "memo": "m"}
    assert refusal(api("PUT", "/alerts/a1", {"memo": "m" * 81_921}))[0] == 413
    assert refusal(api("GET", "/alerts/none"))[0] == 404


def test_metadata_has_limits(api: Api) -> None:
    host = api.make(roleFullnames=["shop:web"])
    role = "/services/shop/roles/web/metadata"
    assert api("PUT", f"/hosts/{host}/metadata/a", {"x": "y" * 102_000})[0] == 200
    assert refusal(api("PUT", f"/hosts/{host}/metadata/a", {"x": "y" * 102_500}))[0] == 413
    assert refusal(api("PUT", f"/hosts/{host}/metadata/mackerel-a", 1))[0] == 400
    assert refusal(api("PUT", f"/hosts/{host}/metadata/a%20b", 1))[0] == 400
    assert [api("PUT", f"{role}/n{number}", number)[0] for number in range(11)] == [200] * 10 + [
        400
    ]
    assert api("GET", f"{role}/n3") == (200, 3)
    assert api("DELETE", f"{role}/n3")[0] == 200
    assert refusal(api("GET", f"{role}/n3"))[0] == 404
    assert len(api("GET", role)[1]["metadata"]) == 9
    api("POST", f"/hosts/{host}/retire", {})
    assert refusal(api("PUT", f"/hosts/{host}/metadata/a", 1))[0] == 400


# ----------------------------------------------------------------------------------- faults


def test_faults_hit_what_they_say_and_end(server: MackerelServer, api: Api) -> None:
    host = api.make()
    server.turn_on(Fault("outage", times=2))
    assert [api.send((host, "custom.a", NOW, 1)) for _ in range(3)] == [503, 503, 200]

    server.turn_on(Fault("throttle", seconds=7, endpoint="POST /api/v0/tsdb"))
    answer = requests.post(f"{server.url}/api/v0/tsdb", json=[], headers=api.headers, timeout=5)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert api("GET", "/hosts")[0] == 200

    server.turn_off()
    server.turn_on(Fault("wrong_key"))
    assert api("GET", "/hosts")[0] == 401
    assert [fault.shown()["kind"] for fault in server.faults()] == ["wrong_key"]
    server.turn_off()
    assert api("GET", "/hosts")[0] == 200
    with pytest.raises(ValueError, match="one of outage"):
        Fault("weather")  # type: ignore[arg-type]


def test_a_lost_answer_has_had_its_effect(server: MackerelServer, api: Api) -> None:
    server.turn_on(Fault("lost_answer", times=1))
    with pytest.raises(requests.ConnectionError):
        api.make("made")
    assert [host["name"] for host in api("GET", "/hosts")[1]["hosts"]] == ["made"]


def test_refused_closes_the_port_and_open_connections_and_keeps_what_there_is(
    server: MackerelServer, api: Api
) -> None:
    api.make("kept")
    with requests.Session() as session:
        session.headers.update(api.headers)
        assert session.get(f"{server.url}/api/v0/org", timeout=5).ok
        server.turn_on(Fault("refused"))
        with pytest.raises(requests.ConnectionError):
            session.get(f"{server.url}/api/v0/org", timeout=5)
        server.turn_off()
        assert (
            session.get(f"{server.url}/api/v0/hosts", timeout=5).json()["hosts"][0]["name"]
            == "kept"
        )


def test_slow_is_slow(server: MackerelServer, api: Api) -> None:
    server.turn_on(Fault("slow", seconds=0.3, times=1))
    began = time.monotonic()
    assert api("GET", "/org")[0] == 200
    assert time.monotonic() - began >= 0.3


def test_requests_are_counted_by_endpoint(server: MackerelServer, api: Api) -> None:
    host = api.make()
    api.send((host, "custom.a", NOW - 60, 1), (host, "custom.a", NOW, 1))
    api("GET", f"/hosts/{host}")
    api("GET", "/nowhere")
    assert server.counts() == {
        "POST /api/v0/hosts": 1,
        "POST /api/v0/tsdb": 1,
        "GET /api/v0/hosts/<host>": 1,
        "GET /api/v0/nowhere": 1,
    }
    [posted] = server.requests("POST /api/v0/tsdb")
    assert (posted.values, posted.times, posted.status) == (2, (NOW - 60, NOW), 200)
    assert posted.received_bytes > len(json.dumps({"hostId": host}))
    server.forget_requests()
    assert server.requests() == []
    answer = requests.get(f"{server.url}/api/v0/org", headers=api.headers, timeout=5)
    assert answer.headers["Date"] == "Fri, 15 Jan 2027 08:00:00 GMT"
