"""Monitors and alerts of the stand-in for Mackerel: what there is of each type, and what not.

Rules: https://mackerel.io/api-docs/entry/monitors, https://mackerel.io/api-docs/entry/alerts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.mackerel import MackerelServer, Refused
from tests.sandbox.test_mackerel import KEY, NOW, Api, Clock, refusal

HOST = {
    "type": "host",
    "name": "memory",
    "duration": 3,
    "metric": "custom.ecs.memory.app.percentage",
    "operator": ">",
    "warning": 80.0,
    "critical": 90,
}
SERVICE = {**HOST, "type": "service", "service": "shop", "metric": "ecs.web.errors"}
MONITORS: list[dict[str, Any]] = [
    {**HOST, "scopes": ["shop", "shop: web"], "excludeScopes": [], "maxCheckAttempts": 3},
    {"type": "connectivity", "name": "alive", "memo": "all of them", "scopes": ["shop:web"]},
    {**SERVICE, "missingDurationWarning": 360, "notificationInterval": 60},
    {
        "type": "external",
        "name": "shop.example",
        "url": "https://shop.example/",
        "service": "shop",
        "responseTimeCritical": 5000,
        "responseTimeDuration": 5,
    },
    {
        "type": "expression",
        "name": "role average",
        "expression": "avg(roleSlots('shop:web', 'loadavg5'))",
        "operator": ">",
        "warning": 5,
        "critical": None,
    },
    {"type": "query", "name": "q", "query": 'x{a="b"}', "operator": "<", "critical": 1},
]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[MackerelServer]:
    with MackerelServer(api_key=KEY, clock=clock) as running:
        yield running


@pytest.fixture
def api(server: MackerelServer) -> Api:
    api = Api(server.url)
    api.make("web-blue", customIdentifier="c.web-blue", roleFullnames=["shop:web"])
    return api


@pytest.mark.parametrize("given", MONITORS, ids=lambda given: str(given["type"]))
def test_a_monitor_is_kept_and_has_an_id(api: Api, given: dict[str, Any]) -> None:
    status, made = api("POST", "/monitors", given)
    assert status == 200
    assert made == {**made, **given}
    assert made["isMute"] is False
    assert made in api("GET", "/monitors")[1]["monitors"]
    assert api("GET", f"/monitors/{made['id']}")[1] == {"monitor": made}
    status, changed = api("PUT", f"/monitors/{made['id']}", {**given, "isMute": True})
    assert (status, changed["id"], changed["isMute"]) == (200, made["id"], True)
    assert api("DELETE", f"/monitors/{made['id']}") == (200, changed)
    assert refusal(api("GET", f"/monitors/{made['id']}"))[0] == 404


def test_an_organization_begins_with_a_monitor_of_connectivity(api: Api) -> None:
    [first] = api("GET", "/monitors")[1]["monitors"]
    assert first["type"] == "connectivity"


@pytest.mark.parametrize(
    "given",
    [
        {"type": "host", "name": "x"},
        {**HOST, "name": ""},
        {**HOST, "type": "weather"},
        {**HOST, "type": ["host"]},
        {**HOST, "operator": ">="},
        {**HOST, "duration": 11},
        {**HOST, "duration": 0},
        {**HOST, "maxCheckAttempts": 11},
        {**HOST, "critical": "90"},
        {**HOST, "isMute": "no"},
        {**HOST, "scopes": ["shop web"]},
        {**HOST, "metric": ""},
        {**SERVICE, "service": None},
        {**SERVICE, "missingDurationWarning": 5},
        {**MONITORS[3], "url": "shop.example"},
        {**MONITORS[3], "method": "BREW"},
        {**MONITORS[3], "service": None},
        {**MONITORS[4], "expression": ""},
        {**MONITORS[5], "query": ""},
        [],
    ],
)
def test_a_monitor_that_is_refused(api: Api, given: Any) -> None:
    assert refusal(api("POST", "/monitors", given))[0] == 400
    assert len(api("GET", "/monitors")[1]["monitors"]) == 1


def test_a_service_monitor_is_of_a_service_that_is_there(api: Api) -> None:
    assert refusal(api("POST", "/monitors", {**SERVICE, "service": "none"}))[0] == 404


def test_an_alert_of_a_host_names_it_and_its_monitor(server: MackerelServer, api: Api) -> None:
    monitor = api("POST", "/monitors", HOST)[1]
    alert = server.open_alert(custom_identifier="c.web-blue", status="WARNING", value=85.5)
    [host] = api("GET", "/hosts", service="shop", role="web")[1]["hosts"]
    assert api("GET", "/alerts")[1] == {"alerts": [alert]}
    assert alert == {
        "id": alert["id"],
        "status": "WARNING",
        "monitorId": monitor["id"],
        "type": "host",
        "hostId": host["id"],
        "value": 85.5,
        "openedAt": NOW,
    }


def test_an_alert_of_a_service_has_a_monitor_that_names_it(
    server: MackerelServer, api: Api
) -> None:
    alert = server.open_alert(service="shop")
    assert (alert["type"], "hostId" in alert) == ("service", False)
    monitor = api("GET", f"/monitors/{alert['monitorId']}")[1]["monitor"]
    assert (monitor["type"], monitor["service"]) == ("service", "shop")
    assert server.open_alert(service="shop")["monitorId"] == monitor["id"]


def test_an_alert_of_an_external_monitor_has_a_message(server: MackerelServer, api: Api) -> None:
    monitor = api("POST", "/monitors", MONITORS[3])[1]
    alert = server.open_alert(monitor=monitor["id"], status="UNKNOWN", message="timeout")
    assert (alert["message"], "value" in alert) == ("timeout", False)


def test_alerts_are_closed_by_the_api_and_by_hand(
    server: MackerelServer, api: Api, clock: Clock
) -> None:
    first = server.open_alert(custom_identifier="c.web-blue")
    second, third = server.open_alert(service="shop"), server.open_alert(service="shop")
    clock.now += 60
    closed = api("POST", f"/alerts/{first['id']}/close", {"reason": "known"})[1]
    expected = {"status": "OK", "reason": "known", "closedAt": NOW + 60}
    assert closed == {**first, **expected}
    assert [one["id"] for one in server.close_alerts(second["id"], "by hand")] == [second["id"]]
    assert [one["id"] for one in api("GET", "/alerts")[1]["alerts"]] == [third["id"]]
    assert [one["id"] for one in server.close_alerts()] == [third["id"]]
    assert api("GET", "/alerts")[1] == {"alerts": []}
    reasons = [one["reason"] for one in api("GET", "/alerts", withClosed="true")[1]["alerts"]]
    assert sorted(reasons) == ["", "by hand", "known"]
    assert len(server.alerts()) == 3


def test_the_alerts_of_a_monitor_that_is_deleted_are_closed(
    server: MackerelServer, api: Api
) -> None:
    monitor = server.open_alert(service="shop")["monitorId"]
    assert api("DELETE", f"/monitors/{monitor}")[0] == 200
    assert api("GET", "/alerts")[1] == {"alerts": []}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"custom_identifier": "c.web-blue", "service": "shop"},
        {"custom_identifier": "none"},
        {"service": "none"},
        {"monitor": "none"},
        {"service": "shop", "status": "OK"},
    ],
)
def test_an_alert_of_nothing(server: MackerelServer, api: Api, given: dict[str, Any]) -> None:
    assert api("GET", "/alerts")[1] == {"alerts": []}
    with pytest.raises(Refused):
        server.open_alert(**given)
    assert server.alerts() == []


@pytest.mark.parametrize("limit", ["0", "101", "-1", "many"])
def test_a_limit_that_is_refused(api: Api, limit: str) -> None:
    assert refusal(api("GET", "/alerts", limit=limit))[0] == 400
