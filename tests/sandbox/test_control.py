"""The control path: pushes, faults, alerts and messages, as people and tests ask for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests

from sandbox.aws import ControlError, Workflow
from sandbox.control import Control
from sandbox.images import Images
from sandbox.mackerel import MackerelServer
from sandbox.slack import SlackServer
from sandbox.world import Faults


class Sandbox:
    """A control path with the real registry, Mackerel and Slack; nothing else is there."""

    def __init__(self, mackerel: MackerelServer, slack: SlackServer) -> None:
        self.events: list[dict[str, Any]] = []
        ecr = SimpleNamespace(repositories={"web": SimpleNamespace(name="web", images=[])})
        world = cast(
            "Any",
            SimpleNamespace(
                account_id="123456789012",
                region="ap-northeast-1",
                backend=lambda _: ecr,
                publish=self.events.append,
                stopping=threading.Event(),
                faults=Faults(),
            ),
        )
        quiet: Any = SimpleNamespace(shown=list, clear=list, add=dict)
        traffic: Any = SimpleNamespace(traffic=SimpleNamespace(publish=lambda *, current: current))
        nothing: Any = None
        self.images = Images(world)
        control = Control(
            world,
            Workflow(),
            nothing,
            self.images,
            traffic,
            nothing,
            quiet,
            quiet,
            {"type": "alb"},
            nothing,
            nothing,
            mackerel,
            slack,
        )
        self.routes = control.routes()

    def ask(self, method: str, path: str, **body: Any) -> Any:
        return self.routes[method, path](body)


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    with SlackServer() as running:
        yield running


@pytest.fixture
def mackerel() -> Iterator[MackerelServer]:
    with MackerelServer() as running:
        yield running


@pytest.fixture
def sandbox(mackerel: MackerelServer, slack: SlackServer) -> Sandbox:
    return Sandbox(mackerel, slack)


def test_a_push_says_how_often_and_for_what(sandbox: Sandbox) -> None:
    answer = sandbox.ask(
        *("POST", "push"), image="web:v1", times=2, platforms=2, findings="HIGH=2", scan_seconds=0
    )
    tags = [event["detail"]["image-tag"] for event in sandbox.events]
    assert tags == ["", "", "", "", "v1", "v1"]
    scan = sandbox.images.scan(sandbox.events[0]["detail"]["image-digest"])
    assert scan is not None
    assert scan.findings == {"HIGH": 2}
    assert answer["digest"] == sandbox.events[-1]["detail"]["image-digest"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"findings": "SEVERE=1"}, "CRITICAL=1,HIGH=3"),
        ({"findings": "HIGH"}, "CRITICAL=1,HIGH=3"),
        ({"scan": "maybe"}, "COMPLETE, FAILED"),
        ({"times": 0}, "1 or more"),
        ({"platforms": 5}, "1 to 4"),
        ({"image": "shop:v1"}, "does not exist"),
    ],
)
def test_a_push_that_makes_no_sense(sandbox: Sandbox, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ControlError, match=message):
        sandbox.ask("POST", "push", **{"image": "web:v1", **more})
    assert sandbox.events == []


def test_faults_are_shown_and_cleared_together(sandbox: Sandbox, slack: SlackServer) -> None:
    sandbox.ask("POST", "faults", name="events", kind="off")
    sandbox.ask("POST", "faults", name="slack", kind="outage")
    shown = sandbox.ask("POST", "faults", name="mackerel", kind="outage")
    assert {(one["name"], one["kind"]) for one in shown} == {
        ("events", "off"),
        ("slack", "outage"),
        ("mackerel", "outage"),
    }
    url = f"{slack.url}/services/T/B/x"
    sandbox.ask("POST", "push", image="web:v1")
    assert sandbox.events == []
    assert requests.post(url, json={"text": "x"}, timeout=5).status_code == 503
    sandbox.ask("DELETE", "faults")
    assert sandbox.ask("GET", "faults") == []
    sandbox.ask("POST", "push", image="web:v1")
    assert len(sandbox.events) == 1
    assert requests.post(url, json={"text": "x"}, timeout=5).status_code == 200


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"name": "events", "kind": "lost"}, "off, late, duplicated"),
        ({"name": "slack", "kind": "lost"}, "outage, throttle"),
        ({"name": "errors"}, "push NAME:TAG --fault errors"),
        ({"name": "weather"}, "events, slack"),
    ],
)
def test_a_fault_that_there_is_not(sandbox: Sandbox, fault: dict[str, Any], message: str) -> None:
    with pytest.raises(ControlError, match=message):
        sandbox.ask("POST", "faults", **fault)
    assert sandbox.ask("GET", "faults") == []


def test_alerts_are_opened_listed_and_closed(sandbox: Sandbox, mackerel: MackerelServer) -> None:
    requests.post(
        f"{mackerel.url}/api/v0/hosts",
        json={"name": "web-blue", "meta": {}, "customIdentifier": "c.web-blue"},
        headers={"X-Api-Key": mackerel.api_key},
        timeout=5,
    )
    given = {"customIdentifier": "c.web-blue", "status": "WARNING", "value": 93}
    alert = sandbox.ask("POST", "mackerel/alerts", **given)
    assert (alert["status"], alert["value"]) == ("WARNING", 93)
    assert sandbox.ask("GET", "mackerel/alerts") == [alert]
    [closed] = sandbox.ask("DELETE", "mackerel/alerts", id=alert["id"])
    assert (closed["status"], closed["reason"]) == ("OK", "closed by hand")
    with pytest.raises(ControlError, match="no host has the customIdentifier"):
        sandbox.ask("POST", "mackerel/alerts", customIdentifier="none")


def test_the_messages_of_slack_are_listed(sandbox: Sandbox, slack: SlackServer) -> None:
    url = f"{slack.url}/services/T/B/x"
    requests.post(url, json={"text": "web: started"}, timeout=5)
    assert [one["text"] for one in sandbox.ask("GET", "slack")] == ["web: started"]
    sandbox.ask("DELETE", "slack")
    assert sandbox.ask("GET", "slack") == []
