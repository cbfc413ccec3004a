"""What is watched while a new colour has traffic: it rolls back by itself and says why."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from sandbox.load import PacedLoad, Request
from tests.e2e.running import Ended, Running
from tests.e2e.running_hosts import RunningHosts

ALARM = "web-watched"
REASON = "Threshold Crossed: 3 datapoints were greater than the threshold (1.0)."
# A step that nothing ends but what is watched: no test waits so long.
CANARY = {"strategy": {"type": "canary", "percent": 50, "seconds": 600}}
MINUTE = 60


@contextmanager
def alarm(sandbox: Running, state: str = "OK", reason: str = "as it should be") -> Iterator[None]:
    """A CloudWatch alarm for a while, in this state to begin with."""
    cloudwatch = sandbox.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=ALARM,
        Namespace="Tests",
        MetricName="Watched",
        Statistic="Sum",
        Period=MINUTE,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    set_alarm(sandbox, state, reason)
    try:
        yield
    finally:
        cloudwatch.delete_alarms(AlarmNames=[ALARM])


def set_alarm(sandbox: Running, state: str, reason: str) -> None:
    sandbox.client("cloudwatch").set_alarm_state(
        AlarmName=ALARM, StateValue=state, StateReason=reason
    )


class Mackerel:
    """Hosts of Mackerel, each with a role, as agents on them register them."""

    def __init__(self, sandbox: Running) -> None:
        self._sandbox = sandbox
        key = sandbox.client("ssm").get_parameter(
            Name="/bluegreen/mackerel/api-key", WithDecryption=True
        )
        self._headers = {"X-Api-Key": key["Parameter"]["Value"]}

    def post(self, path: str, body: dict[str, Any]) -> Any:
        url = f"{self._sandbox.about('mackerel_url')}/api/v0/{path}"
        answer = requests.post(url, headers=self._headers, json=body, timeout=5)
        answer.raise_for_status()
        return answer.json()

    @contextmanager
    def host(self, role: str) -> Iterator[str]:
        """A host of ``service:role`` for a while; its custom identifier."""
        identifier = f"tests.{role}"
        host = {"name": "watched", "meta": {}, "customIdentifier": identifier}
        made = self.post("hosts", {**host, "roleFullnames": [role]})
        try:
            yield identifier
        finally:
            self._sandbox.control("DELETE", "mackerel/alerts", {})
            self.post(f"hosts/{made['id']}/retire", {})

    def open_alert(self, identifier: str) -> str:
        """Open an alert of a host; its id."""
        alert = self._sandbox.control(
            "POST", "mackerel/alerts", {"customIdentifier": identifier, "status": "CRITICAL"}
        )
        return str(alert["id"])


def passes(sandbox: Running, arn: str, state: str) -> list[tuple[float, dict[str, Any]]]:
    """When each pass of a state ended (epoch seconds), and the data after it; oldest first."""
    pages = sandbox.client("stepfunctions").get_paginator("get_execution_history")
    return [
        (event["timestamp"].timestamp(), json.loads(event["stateExitedEventDetails"]["output"]))
        for page in pages.paginate(executionArn=arn)
        for event in page["events"]
        if event.get("stateExitedEventDetails", {}).get("name") == state
    ]


def looks(sandbox: Running, arn: str) -> list[dict[str, Any]]:
    """What each pass of CheckBake has answered, oldest first."""
    return [data["shift"] for _, data in passes(sandbox, arn, "CheckBake")]


def wait_for_looks(
    sandbox: Running,
    arn: str,
    enough: Callable[[list[dict[str, Any]]], bool],
    seconds: float = 60,
) -> list[dict[str, Any]]:
    """Until the passes of CheckBake so far are enough; they are answered."""
    deadline = time.monotonic() + seconds
    while not enough(found := looks(sandbox, arn)):
        assert time.monotonic() < deadline, (found[-3:], sandbox.states(arn)[-3:])
        time.sleep(0.1)
    return found


def is_baking(found: Sequence[dict[str, Any]]) -> bool:
    """Whether the switch was proved and what is watched was looked at, three times by now."""
    return len([one for one in found if one["proved_at"] is not None]) >= 3


def start_canary(sandbox: Running, tag: str) -> str:
    """Deploy a version; answers when half of the traffic is on it and it is watched."""
    sandbox.push(tag)
    arn = sandbox.start_execution(sandbox.request(tag))
    wait_for_looks(sandbox, arn, is_baking)
    assert set(sandbox.weights().values()) == {50}
    return arn


@pytest.fixture
def rolls_back(sandbox: Running) -> Iterator[Callable[..., Ended]]:
    with rolling_back(sandbox) as made:
        yield made


@contextmanager
def rolling_back(running: Running) -> Iterator[Callable[..., Ended]]:
    """Waits until an execution has ended as the bake failed; then all is as before."""
    before, version = running.world(), running.answer()["X-Version"]

    def rolls_back(arn: str, seconds: float = 90) -> Ended:
        ended = running.wait(arn, seconds)
        assert (ended.status, ended.error) == ("FAILED", "BakeFailed"), ended
        record = running.record(ended.name)
        assert record["outcome"] == "rolled_back"
        assert running.history()[0]["reason"] == record["reason"] == ended.cause
        return ended

    yield rolls_back
    running.wait_for_world(before)
    assert running.answer()["X-Version"] == version
    assert "held" not in running.lock()


# ------------------------------------------------------------------------------ CloudWatch alarms


def test_an_alarm_takes_a_canary_back(sandbox: Running, rolls_back: Callable[[str], Ended]) -> None:
    settings = {**CANARY, "bake.alarms": [ALARM]}
    with alarm(sandbox), sandbox.configured(settings), sandbox.under_load():
        arn = start_canary(sandbox, "watch-alarm")
        set_alarm(sandbox, "ALARM", REASON)
        ended = rolls_back(arn)
    assert f"alarm {ALARM}: ALARM: {REASON}" in ended.cause
    assert "with 50 % of the traffic on" in ended.cause


def test_an_alarm_that_is_on_before_the_start_refuses(sandbox: Running) -> None:
    sandbox.push("watch-refused")
    before, revisions = sandbox.world(), sandbox.revisions()
    with (
        alarm(sandbox, "ALARM", REASON),
        sandbox.configured({"bake.alarms": [ALARM]}),
        sandbox.under_load(),
    ):
        ended = sandbox.deploy("watch-refused")
        assert (ended.status, ended.error) == ("FAILED", "DeploymentRefused"), ended
        assert f"alarm {ALARM}: ALARM: {REASON}" in ended.cause
        assert sandbox.record(ended.name)["outcome"] == "refused"
        assert (sandbox.world(), sandbox.revisions()) == (before, revisions)
        assert "held" not in sandbox.lock()


def test_an_alarm_that_is_on_before_the_start_only_warns_if_wanted(sandbox: Running) -> None:
    settings = {"bake.alarms": [ALARM], "bake.at_start": "warn"}
    sandbox.push("watch-warned")
    with (
        alarm(sandbox, "ALARM", REASON),
        sandbox.configured(settings),
        sandbox.under_load(),
    ):
        ended = sandbox.deploy("watch-warned")
        assert ended.succeeded, ended.cause
    assert sandbox.answer()["X-Version"] == "watch-warned"


def test_an_alarm_of_before_the_start_counts_once_it_has_changed(
    sandbox: Running, rolls_back: Callable[[str], Ended]
) -> None:
    settings = {**CANARY, "bake.alarms": [ALARM], "bake.at_start": "warn"}
    with (
        alarm(sandbox, "ALARM", "known for days"),
        sandbox.configured(settings),
        sandbox.under_load(),
    ):
        # Looked at while it is on, and left alone.
        arn = start_canary(sandbox, "watch-again")
        set_alarm(sandbox, "OK", "mended")
        set_alarm(sandbox, "ALARM", REASON)
        ended = rolls_back(arn)
    assert f"alarm {ALARM}: ALARM: {REASON}" in ended.cause


# ------------------------------------------------------- 21: throttled DescribeAlarms is not OK


def test_21_throttled_alarms_do_not_let_the_bake_end(
    sandbox: Running, rolls_back: Callable[[str], Ended]
) -> None:
    unknown_seconds = 8
    settings = {"bake.alarms": [ALARM], "bake.seconds": 1, "bake.unknown_seconds": unknown_seconds}
    sandbox.push("watch-throttled")
    with (
        alarm(sandbox),
        sandbox.configured(settings),
        sandbox.faults(
            "api_error",
            operation="cloudwatch:DescribeAlarms",
            kind="throttle",
            times=10_000,
            function="CheckBakeFunction",
        ),
        sandbox.under_load(),
    ):
        arn = sandbox.start_execution(sandbox.request("watch-throttled"))
        ended = rolls_back(arn)
        sandbox.assert_faults_hit()
    assert f"unknown is not OK: with 100 % of the traffic on {idle(sandbox)}" in ended.cause
    assert f"still after {unknown_seconds} s: CloudWatch alarms: " in ended.cause
    assert "Rate exceeded" in ended.cause
    proved = next(one["proved_at"] for one in looks(sandbox, arn) if one["proved_at"] is not None)
    _, first = passes(sandbox, arn, "RollBack")[0]
    assert first["rollback"]["since"] - proved >= unknown_seconds


def test_21_a_short_throttle_does_no_harm(sandbox: Running) -> None:
    settings = {"bake.alarms": [ALARM], "bake.seconds": 4, "bake.unknown_seconds": 60}
    sandbox.push("watch-hiccup")
    with (
        alarm(sandbox),
        sandbox.configured(settings),
        # Two looks: each asks once.
        sandbox.faults(
            "api_error",
            operation="cloudwatch:DescribeAlarms",
            kind="throttle",
            times=2,
            function="CheckBakeFunction",
        ),
        sandbox.under_load(),
    ):
        arn = sandbox.start_execution(sandbox.request("watch-hiccup"))
        ended = sandbox.wait(arn)
        assert ended.succeeded, ended.cause
        sandbox.assert_faults_hit()
    unreadable = [
        one
        for one in looks(sandbox, arn)
        if one["status"] == "waiting" and "Rate exceeded" in one["reason"]
    ]
    assert len(unreadable) == 2
    assert sandbox.answer()["X-Version"] == "watch-hiccup"


# ------------------------------------------------------------------------------ Mackerel's alerts


def test_an_alert_of_the_role_takes_a_canary_back(
    sandbox: Running, rolls_back: Callable[[str], Ended]
) -> None:
    mackerel = Mackerel(sandbox)
    settings = {**CANARY, "bake.mackerel": {"service": "watched", "role": "web"}}
    with (
        mackerel.host("watched:web") as host,
        sandbox.configured(settings),
        sandbox.under_load(),
    ):
        arn = start_canary(sandbox, "watch-alert")
        alert = mackerel.open_alert(host)
        ended = rolls_back(arn)
    assert f"alert {alert}: CRITICAL, host monitor " in ended.cause
    assert "with 50 % of the traffic on" in ended.cause


def test_an_alert_of_another_role_does_not(sandbox: Running) -> None:
    mackerel = Mackerel(sandbox)
    settings = {"bake.seconds": 5, "bake.mackerel": {"service": "watched", "role": "web"}}
    sandbox.push("watch-other-role")
    with (
        mackerel.host("watched:web"),
        mackerel.host("watched:batch") as batch,
        mackerel.host("elsewhere:web") as elsewhere,
        sandbox.configured(settings),
        sandbox.under_load(),
    ):
        mackerel.open_alert(batch)
        arn = sandbox.start_execution(sandbox.request("watch-other-role"))
        wait_for_looks(sandbox, arn, is_baking)
        mackerel.open_alert(elsewhere)
        ended = sandbox.wait(arn)
        assert ended.succeeded, ended.cause
    assert sandbox.answer()["X-Version"] == "watch-other-role"


def test_an_alert_of_the_role_before_the_start_refuses(sandbox: Running) -> None:
    mackerel = Mackerel(sandbox)
    sandbox.push("watch-alerted")
    before, revisions = sandbox.world(), sandbox.revisions()
    with (
        mackerel.host("watched:web") as host,
        sandbox.configured({"bake.mackerel": {"service": "watched", "role": "web"}}),
        sandbox.under_load(),
    ):
        alert = mackerel.open_alert(host)
        ended = sandbox.deploy("watch-alerted")
        assert (ended.status, ended.error) == ("FAILED", "DeploymentRefused"), ended
        assert f"alert {alert}: CRITICAL" in ended.cause
        assert (sandbox.world(), sandbox.revisions()) == (before, revisions)


# --------------------------------------------------------------------- answers of the new colour


def test_a_colour_with_5_percent_of_500s_is_taken_back(
    sandbox: Running, rolls_back: Callable[..., Ended]
) -> None:
    settings = {**CANARY, "bake.errors": {}}
    sandbox.push("watch-errors", fault="errors=5")
    new = idle(sandbox)
    load = PacedLoad(sandbox.url, rate=40)
    load.start()
    try:
        with sandbox.configured(settings):
            arn = sandbox.start_execution(sandbox.request("watch-errors"))
            # A part of a minute until the first whole one, that one, and one until it is judged.
            ended = rolls_back(arn, 6 * MINUTE)
        result = load.stop()
    finally:
        load.kill()

    counts = re.search(
        rf"{new} answered (\d+\.\d) % of ([\d,]+) requests with 5xx, "
        rf"{other(new)} (\d+\.\d) % of ([\d,]+), over (\d+) minutes?; allowed: 1\.0 points more",
        ended.cause,
    )
    assert counts, ended.cause
    percent, requested, usual, asked_of_old, minutes = counts.groups()
    assert 4.5 <= float(percent) <= 5.5
    assert float(usual) == 0
    shifted_at = looks(sandbox, arn)[0]["shifted_at"]
    first = (shifted_at // MINUTE + 1) * MINUTE
    seen = [one for one in result.requests if first <= one.began < first + int(minutes) * MINUTE]
    for color, count in ((new, requested), (other(new), asked_of_old)):
        sent = len([one for one in seen if one.color == color])
        assert int(count.replace(",", "")) == pytest.approx(sent, rel=0.02)

    back_at = next(
        at
        for at, data in passes(sandbox, arn, "RollBack")
        if data["rollback"].get("proved_at") is not None
    )
    assert_only_the_new_color_failed(result.requests, new, back_at)


def assert_only_the_new_color_failed(asked: Sequence[Request], new: str, back_at: float) -> None:
    """By the 5 % of its own answers, and only while it had traffic.

    back_at: when it was proved that the traffic is back, epoch seconds.
    """
    failed = [one for one in asked if one.error is not None]
    assert {(one.error, one.color) for one in failed} == {("status 500", new)}
    of_new = [one for one in asked if one.color == new]
    assert len(failed) / len(of_new) == pytest.approx(0.05, abs=0.01)
    since = [one for one in asked if one.began > back_at]
    assert since
    assert [one for one in since if one.color == new] == []


# ------------------------------------------------------------------------------------------ hosts


@pytest.mark.parametrize("hosts", ["haproxy"], indirect=True)
def test_an_alarm_takes_a_canary_back_on_every_host(hosts: RunningHosts) -> None:
    settings = {**CANARY, "bake.alarms": [ALARM]}
    with (
        alarm(hosts),
        hosts.configured(settings),
        rolling_back(hosts) as rolls_back,
        hosts.hosts_under_load(*hosts.numbers()),
    ):
        arn = start_canary(hosts, "watch-alarm")
        set_alarm(hosts, "ALARM", REASON)
        ended = rolls_back(arn)
    assert f"alarm {ALARM}: ALARM: {REASON}" in ended.cause
    assert "with 50 % of the traffic on" in ended.cause


@pytest.mark.parametrize("hosts", ["nginx"], indirect=True)
def test_an_alert_takes_a_canary_back_on_every_host(hosts: RunningHosts) -> None:
    mackerel = Mackerel(hosts)
    settings = {**CANARY, "bake.mackerel": {"service": "watched", "role": "web"}}
    with (
        mackerel.host("watched:web") as host,
        hosts.configured(settings),
        rolling_back(hosts) as rolls_back,
        hosts.hosts_under_load(*hosts.numbers()),
    ):
        arn = start_canary(hosts, "watch-alert")
        alert = mackerel.open_alert(host)
        ended = rolls_back(arn)
    assert f"alert {alert}: CRITICAL, host monitor " in ended.cause
    assert "with 50 % of the traffic on" in ended.cause


def idle(sandbox: Running) -> str:
    return other(sandbox.live())


def other(color: str) -> str:
    return "green" if color == "blue" else "blue"
