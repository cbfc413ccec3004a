"""CheckBake with alarms, alerts, errors and response times: bad ends it, unknown is not OK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bluegreen.errors import BakeFailed
from containermetrics.mackerel import Mackerel
from sandbox.mackerel import Fault
from tests.functions.host_world import HostWorld
from tests.functions.site import Site
from tests.functions.watched import KEY, Watched
from tests.functions.world import BLUE, GREEN, START, World

MINUTE = 60


@pytest.fixture
def watched(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with Watched(world, monkeypatch) as made:
        made.has_alarm("web-5xx")
        client = Mackerel(made.mackerel.url, KEY, "1.2.3")
        client.create_host("web-green", "web-green", ["shop:web"])
        yield made


@pytest.fixture
def data(world: World, site: Site, watched: Watched) -> dict[str, Any]:
    """All traffic on green since START; the old colour had 1,000 requests a minute before."""
    for minute in range(-5, 0):
        watched.reports(BLUE, START + minute * MINUTE, 1000, errors=1)
    shifted = world.shifted()
    site.serve(shifted)
    return shifted


def bake(world: World, data: dict[str, Any], **what: Any) -> dict[str, Any]:
    """One look; what: to be watched from now on, beside what is."""
    data["deployment"]["configuration"]["bake"] |= what
    data["shift"] = world.run("check_bake", data)
    answer: dict[str, Any] = data["shift"]
    return answer


ALARMS: dict[str, Any] = {"alarms": ["web-5xx"]}
ALERTS: dict[str, Any] = {"mackerel": {"service": "shop", "role": "web"}}
ERRORS: dict[str, Any] = {"errors": {"percentage_points": 1.0, "requests": 20}}
TIMES: dict[str, Any] = {"response_time": {"times": 2.0, "milliseconds": 50, "requests": 20}}


# Alarms


def test_an_alarm_ends_the_bake_and_says_which_and_why(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    assert bake(world, data, **ALARMS)["reason"] == "baking for another 60 s"
    world.now += 10
    watched.alarm_is("ALARM", reason="Threshold Crossed: 3 datapoints")
    with pytest.raises(BakeFailed) as failed:
        bake(world, data)
    assert str(failed.value) == (
        "with 100 % of the traffic on green: alarm web-5xx: ALARM: Threshold Crossed: 3 datapoints"
    )


def test_an_alarm_in_a_step_ends_it_before_all_of_the_traffic_moves(
    world: World, watched: Watched, site: Site
) -> None:
    world.configure(strategy={"type": "canary", "percent": 10, "seconds": 30}, bake=ALARMS)
    data = world.started()
    site.serve(data)
    site.colors = ["blue", "green"]
    data["shift"] = world.run("shift_traffic", data)
    world.now += 20
    watched.alarm_is("ALARM")
    with pytest.raises(BakeFailed, match=r"with 10 % of the traffic on green: alarm web-5xx"):
        bake(world, data)
    assert world.weights() == {BLUE: 90, GREEN: 10}


@pytest.fixture
def canary(world: World, site: Site) -> dict[str, Any]:
    """A tenth of the traffic on green, a moment ago: no probe can tell anything for 20 s."""
    world.configure(
        strategy={"type": "canary", "percent": 10, "seconds": 30},
        bake={**ALARMS, "unknown_seconds": 10},
    )
    data = world.started()
    site.serve(data)
    data["shift"] = world.run("shift_traffic", data)
    return data


def test_an_alarm_is_seen_at_the_first_look_after_a_shift(
    world: World, watched: Watched, site: Site, canary: dict[str, Any]
) -> None:
    """It may have gone on hours ago, while somebody was asked for approval."""
    watched.alarm_is("ALARM")
    with pytest.raises(BakeFailed, match=r"with 10 % of the traffic on green: alarm web-5xx"):
        bake(world, canary)
    assert site.asked == []


def test_21_what_cannot_be_read_before_the_proof_is_not_waited_for_longer_than_after_it(
    world: World, watched: Watched, canary: dict[str, Any]
) -> None:
    watched.alarm_is("INSUFFICIENT_DATA")
    assert bake(world, canary)["reason"] == (
        "the switch does not show yet; alarm web-5xx: INSUFFICIENT_DATA: so it is"
    )
    world.now += 9
    assert bake(world, canary)["status"] == "waiting"
    world.now += 1
    with pytest.raises(BakeFailed, match="unknown is not OK"):
        bake(world, canary)


def test_an_alarm_that_was_on_before_counts_once_it_has_been_off(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    data["deployment"]["known_bad"] = ["alarm web-5xx: ALARM: as it was (for 9 s)"]
    world.now -= 9
    watched.alarm_is("ALARM")
    world.now += 20
    assert bake(world, data, **ALARMS)["status"] == "waiting"
    watched.alarm_is("OK")
    assert bake(world, data)["status"] == "waiting"
    world.now += 5
    watched.alarm_is("ALARM")
    with pytest.raises(BakeFailed, match="alarm web-5xx"):
        bake(world, data)


def test_21_an_alarm_without_data_lets_no_step_end_and_then_ends_the_deployment(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    world.now += 50
    bake(world, data, **ALARMS, unknown_seconds=100)
    watched.alarm_is("INSUFFICIENT_DATA", reason="no data points")
    assert bake(world, data)["reason"] == "alarm web-5xx: INSUFFICIENT_DATA: no data points"
    world.now += 99
    answer = bake(world, data)
    assert (answer["status"], answer["unknown_since"]) == ("waiting", START + 50)
    world.now += 1
    with pytest.raises(BakeFailed) as failed:
        bake(world, data)
    assert str(failed.value) == (
        "unknown is not OK: with 100 % of the traffic on green, still after 100 s: "
        "alarm web-5xx: INSUFFICIENT_DATA: no data points"
    )


def test_21_a_throttled_read_is_unknown_for_one_pass_and_no_crash(
    world: World, data: dict[str, Any]
) -> None:
    bake(world, data, **ALARMS)
    world.now += 60
    world.fault("cloudwatch", "DescribeAlarms", "throttle")
    answer = bake(world, data)
    assert answer["status"] == "waiting"
    assert "Rate exceeded" in answer["reason"]
    answer = bake(world, data)
    assert answer["status"] == "baked"
    assert "unknown_since" not in answer


def test_21_alarms_that_are_throttled_for_long_do_not_let_the_bake_pass(
    world: World, data: dict[str, Any]
) -> None:
    """Failure mode 21: the check was skipped, and so was the rollback."""
    bake(world, data, **ALARMS, unknown_seconds=30)
    world.fault("cloudwatch", "DescribeAlarms", "throttle", times=1000)
    bake(world, data)
    world.now += 30
    with pytest.raises(BakeFailed, match=r"unknown is not OK: .* CloudWatch alarms: .*Throttling"):
        bake(world, data)


def test_21_unknown_again_after_it_was_known_gets_its_time_again(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    bake(world, data, **ALARMS, unknown_seconds=30, seconds=600)
    for _ in range(3):
        watched.alarm_is("INSUFFICIENT_DATA")
        bake(world, data)
        world.now += 29
        assert bake(world, data)["status"] == "waiting"
        watched.alarm_is("OK")
        bake(world, data)


# Alerts


@pytest.mark.parametrize("status", ["CRITICAL", "WARNING", "UNKNOWN"])
def test_an_open_alert_of_the_role_ends_the_bake(
    world: World, watched: Watched, data: dict[str, Any], status: str
) -> None:
    assert bake(world, data, **ALERTS)["status"] == "waiting"
    alert = watched.mackerel.open_alert(custom_identifier="web-green", status=status)
    with pytest.raises(BakeFailed) as failed:
        bake(world, data)
    assert str(failed.value) == (
        f"with 100 % of the traffic on green: alert {alert['id']}: {status}, host monitor "
        f"'opened by hand' on host {alert['hostId']}"
    )


def test_an_alert_that_was_open_before_does_not_count_and_the_next_one_does(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    alert = watched.mackerel.open_alert(custom_identifier="web-green")
    data["deployment"]["known_bad"] = [f"alert {alert['id']}: CRITICAL, as it was"]
    assert bake(world, data, **ALERTS)["status"] == "waiting"
    watched.mackerel.close_alerts()
    watched.mackerel.open_alert(custom_identifier="web-green")
    with pytest.raises(BakeFailed):
        bake(world, data)


def test_21_a_mackerel_that_is_down_lets_no_step_end(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    bake(world, data, **ALERTS)
    world.now += 60
    watched.mackerel.turn_on(Fault("outage"))
    assert bake(world, data)["reason"].startswith("Mackerel: GET /alerts: 503")
    watched.mackerel.turn_off()
    assert bake(world, data)["status"] == "baked"


# Errors and response time


def report(watched: Watched, minutes: int, requests: int = 400, **more: Any) -> None:
    """What green answered in the first minutes after START."""
    for minute in range(minutes):
        watched.reports(GREEN, START + minute * MINUTE, requests, **more)


def test_a_new_colour_that_answers_5_percent_with_500_ends_the_bake(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    bake(world, data, **ERRORS)
    report(watched, 1, errors=20)
    world.now = START + 119
    assert bake(world, data)["status"] == "waiting"
    world.now += 1
    with pytest.raises(BakeFailed) as failed:
        bake(world, data)
    assert str(failed.value) == (
        "with 100 % of the traffic on green: green answered 5.0 % of 400 requests with 5xx over 1 "
        "minute, blue 0.1 % of 1,000 in the 1 minute before the first shift; "
        "allowed: 1.0 points more"
    )


def test_both_colours_are_compared_over_the_same_minutes_while_both_have_traffic(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    """A database that is down lets both fail: that says nothing against the new one."""
    bake(world, data, **ERRORS)
    report(watched, 2, errors=200)
    for minute in range(2):
        watched.reports(BLUE, START + minute * MINUTE, 100, errors=50)
    world.now = START + 180
    assert bake(world, data)["status"] == "baked"


def test_21_a_step_does_not_end_before_there_are_enough_requests(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    bake(world, data, **ERRORS)
    world.now += 60
    assert bake(world, data)["reason"] == (
        "green answered 0 requests over 0 minutes since the shift, 20 are needed to say anything"
    )
    report(watched, 1, requests=19)
    world.now = START + 120
    assert bake(world, data)["status"] == "waiting"
    report(watched, 2, requests=19)
    world.now = START + 180
    assert bake(world, data)["status"] == "baked"


def test_21_a_new_colour_that_gets_no_requests_ends_the_deployment_and_says_so(
    world: World, data: dict[str, Any]
) -> None:
    bake(world, data, **ERRORS, unknown_seconds=300)
    world.now = START + 479
    assert bake(world, data)["status"] == "waiting"
    world.now += 1
    with pytest.raises(
        BakeFailed, match=r"unknown is not OK: .* green answered 0 requests over 7 m"
    ):
        bake(world, data)


def test_a_slow_new_colour_ends_the_bake(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    bake(world, data, **TIMES)
    report(watched, 1, seconds=0.3)
    world.now = START + 120
    # It may be its first minute only.
    assert bake(world, data)["status"] == "waiting"
    report(watched, 2, seconds=0.3)
    world.now = START + 180
    with pytest.raises(BakeFailed, match=r"green took 300 ms on average .*, blue 80 ms of "):
        bake(world, data)


def test_one_that_is_as_good_as_the_old_one_is_baked(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    bake(world, data, **ERRORS, **TIMES, **ALARMS, **ALERTS)
    report(watched, 2, errors=1, seconds=0.1)
    world.now = START + 180
    assert bake(world, data)["status"] == "baked"


# Promoted


def test_a_promoted_step_is_not_waited_for_but_must_not_be_bad(
    world: World, watched: Watched, data: dict[str, Any]
) -> None:
    assert bake(world, data, **ERRORS, **ALARMS)["status"] == "waiting"
    world.store.promote("d-1", 0, "somebody", world.record().watch)
    watched.alarm_is("ALARM")
    with pytest.raises(BakeFailed):
        bake(world, data)
    watched.alarm_is("OK")
    assert bake(world, data)["status"] == "baked", "whatever is not known yet"


# Hosts


def test_alarms_are_watched_where_proxies_on_hosts_are_switched_too(
    hosts: HostWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Watched(hosts, monkeypatch) as made:
        made.has_alarm("web-5xx")
        data = hosts.shifted()
        data["deployment"]["configuration"]["bake"]["alarms"] = ["web-5xx"]
        assert hosts.look("check_bake", data)["reason"] == "baking for another 60 s"
        made.alarm_is("ALARM")
        with pytest.raises(BakeFailed, match="alarm web-5xx"):
            hosts.look("check_bake", data)
