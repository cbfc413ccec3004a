"""Reading what is watched: alarms, alerts and the answers of the target groups."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bluegreen import watch
from bluegreen.configuration import load
from bluegreen.deployment import parse
from bluegreen.gates import Answers, Facts
from containermetrics.mackerel import Mackerel
from runtime import clients, mackerel
from runtime.settings import Settings
from sandbox.mackerel import Fault
from tests.functions.watched import KEY, Watched
from tests.functions.world import BLUE, GREEN, PREFIX, START, World

MINUTE = 60
ALERTS = "GET /api/v0/alerts"


@pytest.fixture
def watched(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with Watched(world, monkeypatch) as made:
        yield made


def settings() -> Settings:
    return Settings.from_env(os.environ)


def at_start(world: World, **bake: Any) -> list[str]:
    """What speaks against a start, with this in the service configuration."""
    world.configure(bake=bake)
    text = clients.ssm().get_parameter(Name=f"{PREFIX}/web")["Parameter"]["Value"]
    return watch.bad_at_start(load(text, "test"), settings(), world.now)


def look(world: World, *, shifted_at: float, began_at: float = START, **bake: Any) -> Facts:
    world.configure(bake=bake)
    shift = {"shifted_at": shifted_at, "began_at": began_at}
    return watch.look(parse(world.plan()), shift, settings(), world.now)


def about(value: float) -> Any:
    return pytest.approx(value)


# Alarms


def test_metric_and_composite_alarms_are_read(world: World, watched: Watched) -> None:
    watched.has_alarm("web-5xx")
    watched.has_alarm("web", composite=True)
    assert at_start(world, alarms=["web-5xx", "web"]) == []
    world.now += 10
    watched.alarm_is("ALARM", "web-5xx", "Threshold Crossed")
    watched.alarm_is("ALARM", "web", "web-5xx is on")
    world.now += 30
    assert at_start(world, alarms=["web-5xx", "web"]) == [
        "alarm web-5xx: ALARM: Threshold Crossed (for 30 s)",
        "alarm web: ALARM: web-5xx is on (for 30 s)",
    ]


def test_as_many_alarms_as_may_be_configured_are_all_read(world: World, watched: Watched) -> None:
    """100 take two pages."""
    names = [f"alarm-{number:03}" for number in range(100)]
    for name in names:
        watched.has_alarm(name)
    watched.alarm_is("ALARM", names[-1])
    assert at_start(world, alarms=names) == ["alarm alarm-099: ALARM: so it is (for 0 s)"]


def test_21_an_alarm_that_does_not_exist_is_named(world: World, watched: Watched) -> None:
    watched.has_alarm("web-5xx")
    assert at_start(world, alarms=["web-5xx", "gone"]) == ["alarm gone: there is no such alarm"]


@pytest.mark.parametrize("kind", ["throttle", "denied", "error500", "timeout"])
def test_21_alarms_that_cannot_be_read_are_unknown_and_no_crash(
    world: World, watched: Watched, kind: Any
) -> None:
    watched.has_alarm("web-5xx")
    world.fault("cloudwatch", "DescribeAlarms", kind)
    [found] = at_start(world, alarms=["web-5xx"])
    assert found.startswith("CloudWatch alarms: ")
    assert at_start(world, alarms=["web-5xx"]) == []


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CloudWatch takes every connection, and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", f"http://127.0.0.1:{port}")
        clients.cloudwatch_once.cache_clear()
        yield
    clients.cloudwatch_once.cache_clear()


@pytest.mark.usefixtures("silent")
def test_21_a_cloudwatch_that_never_answers_is_unknown_long_before_a_function_has_to_end(
    world: World,
) -> None:
    began = time.monotonic()
    world.now = START + 4 * MINUTE
    alarms, answers = look(world, shifted_at=START, alarms=["web-5xx"], **ERRORS).unreadable
    assert time.monotonic() - began < 15
    assert "Read timeout" in alarms
    assert "Read timeout" in answers


# Alerts

ROLE: dict[str, str] = {"service": "shop", "role": "web"}


@pytest.fixture
def shop(watched: Watched) -> Watched:
    """Two hosts of the service: one of the role, one of another."""
    client = Mackerel(watched.mackerel.url, KEY, "1.2.3")
    for name, role in (("web-blue", "shop:web"), ("db", "shop:db")):
        client.create_host(name, name, [role])
    return watched


def test_alerts_of_hosts_with_the_role_count_and_others_do_not(world: World, shop: Watched) -> None:
    shop.mackerel.open_alert(custom_identifier="db")
    assert at_start(world, mackerel=ROLE) == []
    world.now += 5
    alert = shop.mackerel.open_alert(custom_identifier="web-blue", status="WARNING")
    world.now += 7
    assert at_start(world, mackerel=ROLE) == [
        f"alert {alert['id']}: WARNING, host monitor 'opened by hand' on host {alert['hostId']} "
        "(for 7 s)"
    ]
    shop.mackerel.close_alerts()
    assert at_start(world, mackerel=ROLE) == []


@pytest.mark.parametrize("status", ["standby", "maintenance", "poweroff"])
def test_an_alert_of_a_host_that_is_not_working_counts_too(
    world: World, shop: Watched, status: str
) -> None:
    alert = shop.mackerel.open_alert(custom_identifier="web-blue")
    shop.mackerel.organization.hosts[alert["hostId"]].status = status
    assert len(at_start(world, mackerel=ROLE)) == 1


def test_alerts_of_the_services_monitors_count(world: World, shop: Watched) -> None:
    alert = shop.mackerel.open_alert(service="shop")
    [found] = at_start(world, mackerel=ROLE)
    assert found.startswith(f"alert {alert['id']}: CRITICAL, service monitor 'opened by hand'")


def test_more_alerts_than_a_page_holds_are_all_read(world: World, shop: Watched) -> None:
    for _ in range(101):
        shop.mackerel.open_alert(custom_identifier="db")
    world.now -= 10
    alert = shop.mackerel.open_alert(custom_identifier="web-blue")
    [found] = at_start(world, mackerel=ROLE)
    assert alert["id"] in found, "the oldest one is on the last page"


@pytest.mark.parametrize("name", ["outage", "throttle", "refused"])
def test_21_a_mackerel_that_does_not_answer_is_unknown(
    world: World, shop: Watched, name: Any
) -> None:
    shop.mackerel.turn_on(Fault(name))
    [found] = at_start(world, mackerel=ROLE)
    assert found.startswith("Mackerel: GET /alerts: ")


@pytest.mark.usefixtures("shop")
def test_21_without_a_key_mackerel_is_unknown_and_a_wrong_key_is_in_no_text(world: World) -> None:
    clients.ssm().put_parameter(Name="/mackerel/key", Value="wrong", Type="String", Overwrite=True)
    [found] = at_start(world, mackerel=ROLE)
    assert found.startswith("Mackerel: GET /alerts: 401 ")
    assert "wrong" not in found
    clients.ssm().delete_parameter(Name="/mackerel/key")
    mackerel.keys.cache_clear()
    [found] = at_start(world, mackerel=ROLE)
    assert found.startswith("Mackerel: no API key in the SSM parameter /mackerel/key: ")


# Answers

ERRORS: dict[str, Any] = {"errors": {"requests": 20}}


def test_both_colours_are_read_over_the_same_whole_minutes_since_the_shift(
    world: World, watched: Watched
) -> None:
    for minute, requests in enumerate((1000, 30, 40, 1000)):
        watched.reports(GREEN, START + minute * MINUTE, requests, errors=minute, seconds=0.1)
        watched.reports(BLUE, START + minute * MINUTE, 10 * requests, seconds=0.05)
    world.now = START + 4 * MINUTE
    facts = look(world, shifted_at=START + 30, **ERRORS)
    assert facts.new == Answers(2, 70, 3, about(0.1)), "neither the first nor the newest"
    assert facts.old == Answers(2, 700, 0, about(0.05))
    assert not facts.earlier


def test_an_old_colour_without_traffic_is_read_over_as_many_minutes_before_the_first_shift(
    world: World, watched: Watched
) -> None:
    for minute in range(-5, 0):
        watched.reports(BLUE, START + minute * MINUTE, 100 - minute)
    for minute in range(10, 12):
        watched.reports(GREEN, START + minute * MINUTE, 50)
    world.now = START + 14 * MINUTE
    facts = look(world, shifted_at=START + 10 * MINUTE, began_at=START + 65, **ERRORS)
    assert (facts.new, facts.earlier) == (Answers(3, 100, 0, about(0.08)), True)
    assert facts.old == Answers(3, 203, 0, about(0.08)), "the minutes -2, -1 and 0"


def test_a_target_that_was_not_reached_is_an_error_of_its_colour(
    world: World, watched: Watched
) -> None:
    watched.reports(GREEN, START, 100, errors=2, unconnected=5)
    watched.reports(GREEN, START + MINUTE, 3, unconnected=9)
    world.now = START + 4 * MINUTE
    found = look(world, shifted_at=START, **ERRORS).new
    assert found == Answers(3, 103, 10, about(0.08)), "not more errors than requests"


def test_the_last_minutes_of_a_long_step_are_looked_at_by_themselves(
    world: World, watched: Watched
) -> None:
    for minute in range(9):
        watched.reports(GREEN, START + minute * MINUTE, 100, errors=10 if minute > 5 else 0)
        watched.reports(BLUE, START + minute * MINUTE, 10)
    world.now = START + 10 * MINUTE
    facts = look(world, shifted_at=START, **ERRORS)
    assert facts.new == Answers(9, 900, 30, about(0.08))
    assert facts.recent_new == Answers(5, 500, 30, about(0.08))
    assert facts.latest == Answers(1, 100, 10, about(0.08))
    assert facts.old == Answers(9, 90, 0, about(0.08))
    assert facts.recent_old == Answers(5, 50, 0, about(0.08))


def test_before_there_is_a_whole_minute_nothing_was_answered(
    world: World, watched: Watched
) -> None:
    watched.reports(GREEN, START, 500)
    world.now = START + 119
    assert look(world, shifted_at=START, **ERRORS).new == Answers(0, 0, 0, None)


@pytest.mark.parametrize("kind", ["throttle", "denied"])
def test_21_answers_that_cannot_be_read_are_unknown(
    world: World, watched: Watched, kind: Any
) -> None:
    watched.reports(GREEN, START, 500)
    world.now = START + 4 * MINUTE
    world.fault("cloudwatch", "GetMetricData", kind)
    [found] = look(world, shifted_at=START, **ERRORS).unreadable
    assert found.startswith("requests and errors of the target groups: ")


def test_what_is_not_configured_is_not_asked(world: World, watched: Watched) -> None:
    world.record_calls(("cloudwatch", "DescribeAlarms"), ("cloudwatch", "GetMetricData"))
    facts = look(world, shifted_at=START)
    assert [*facts.alarms, *facts.alerts, *facts.unreadable, facts.new] == [None]
    assert (world.calls, watched.mackerel.requests()) == ([], [])
