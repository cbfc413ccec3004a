"""Traffic that moves in steps: each has its share of the real answers, and there is a way back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import pytest

from sandbox.load import PacedLoad, PacedResult, Request
from tests.e2e.conftest import PROXIES
from tests.e2e.running import Running, assert_nothing_lost
from tests.e2e.running_groups import RunningGroups
from tests.e2e.running_hosts import RunningHosts, assert_failed, other

POINTS = 2.0
"""A share may be off by so many percentage points."""
# Routers draw lots for each request: chance alone is off by more than four standard deviations once
# in 16,000 steps. So a step lasts until there are enough answers, however busy the machine is, and
# is promoted then.
DEVIATIONS = 4
RATE = 800.0
LONGEST_STEP_SECONDS = 90.0
CANARY = {"type": "canary", "percent": 10, "seconds": 600}
LINEAR = {"type": "linear", "percent": 40, "seconds": 600}
OWN = {
    "type": "steps",
    "steps": [{"percent": 5, "seconds": 600}, {"percent": 30, "seconds": 600}],
}
STRATEGIES = pytest.mark.parametrize(
    ("strategy", "percents"),
    [
        pytest.param(CANARY, [10, 100], id="canary"),
        pytest.param(LINEAR, [40, 80, 100], id="linear"),
    ],
)
QUARTER = {"type": "canary", "percent": 25, "seconds": 600}


@dataclass(frozen=True)
class Step:
    """A step from its proof to what came next (inf: nothing yet), in epoch seconds."""

    percent: int
    proved: float
    ended: float = float("inf")


@dataclass(frozen=True)
class Sample:
    """The weights of the listener, or of each host's proxy, read between two epoch seconds."""

    began: float
    ended: float
    weights: list[dict[str, int]]


@STRATEGIES
def test_shares_of_each_step_on_an_alb(
    sandbox: Running, strategy: dict[str, Any], percents: list[int]
) -> None:
    deploy_in_steps(sandbox, f"alb-{strategy['type']}", strategy, percents)


@pytest.mark.parametrize("hosts", PROXIES, indirect=True)
@STRATEGIES
def test_shares_of_each_step_on_hosts(
    hosts: RunningHosts, strategy: dict[str, Any], percents: list[int]
) -> None:
    deploy_in_steps(hosts, f"hosts-{strategy['type']}", strategy, percents)


@pytest.mark.parametrize("groups", ["nlb"], indirect=True)
def test_shares_of_own_steps_on_an_nlb(groups: RunningGroups) -> None:
    """There a connection has one colour; each request is on one of its own."""
    deploy_in_steps(groups, "nlb-steps", OWN, [5, 30, 100])


def test_promote_ends_the_watching_of_a_step_and_of_no_other(sandbox: Running) -> None:
    old = sandbox.live()
    sandbox.push("promoted")
    steps = [{"percent": 25, "seconds": 600}, {"percent": 50, "seconds": 3}]
    with sandbox.configured({"strategy": {"type": "steps", "steps": steps}}), sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request("promoted"), name="promoted-in-steps")
        wait_for_step(sandbox, arn, 25)
        promote = {"action": "promote", "deployment_id": "promoted-in-steps"}
        promoted = sandbox.wait(sandbox.start_execution(promote))
        assert promoted.succeeded, promoted.cause
        ended = sandbox.wait(arn)
    assert ended.succeeded, ended.cause
    first, second, last = steps_of(sandbox, arn)
    assert [first.percent, second.percent, last.percent] == [25, 50, 100]
    assert first.ended - first.proved < 60
    assert second.ended - second.proved > 2, "the next step is watched as configured"
    assert sandbox.weights() == {other(old): 100, old: 0}
    assert sandbox.counts()[old] == (0, 0)
    assert sandbox.answer()["X-Version"] == "promoted"


def test_22_a_colour_that_dies_in_the_middle_step_has_no_traffic_afterwards(
    sandbox: Running,
) -> None:
    before, old = sandbox.world(), sandbox.live()
    sandbox.push("dying-midway")
    steps = [{"percent": share, "seconds": watched} for share, watched in ((10, 1), (25, 600))]
    with sandbox.configured({"strategy": {"type": "steps", "steps": steps}}):
        arn = sandbox.start_execution(sandbox.request("dying-midway"))
        wait_for_step(sandbox, arn, 25)
        assert sandbox.weights() == {other(old): 25, old: 75}
        sandbox.push("dying-midway", command="false")
        stop_tasks(sandbox, other(old))
        ended = sandbox.wait(arn)
    assert_failed(ended, "IdleColorUnhealthy", other(old))
    assert [step.percent for step in steps_of(sandbox, arn)] == [10, 25]
    assert sandbox.record(ended.name)["outcome"] == "rolled_back"
    assert sandbox.world() == before
    assert "held" not in sandbox.lock()
    assert {sandbox.answer()["X-Color"] for _ in range(50)} == {old}


def test_05_weights_changed_during_a_canary_are_left(sandbox: Running) -> None:
    old = sandbox.live()
    theirs = {old: 60, other(old): 40}
    sandbox.push("canary-changed")
    with sandbox.configured({"strategy": QUARTER}), sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request("canary-changed"))
        wait_for_step(sandbox, arn, 25)
        sandbox.set_weights(theirs)
        ended = sandbox.wait(arn)
    assert_failed(ended, "TrafficChanged", f"{old} 60")
    assert sandbox.weights() == theirs
    assert sandbox.record(ended.name)["outcome"] == "traffic_left"
    assert all(running > 0 for _, running in sandbox.counts().values()), "both are in use"
    assert "held" not in sandbox.lock()
    sandbox.set_weights({old: 100, other(old): 0})


def test_05_weights_changed_on_one_host_during_a_canary_are_left(hosts: RunningHosts) -> None:
    old, changed = hosts.live(), hosts.numbers()[1]
    theirs = {old: 60, other(old): 40}
    hosts.push("canary-changed")
    with hosts.configured({"strategy": QUARTER}), hosts.under_load():
        arn = hosts.start_execution(hosts.request("canary-changed"))
        wait_for_step(hosts, arn, 25)
        hosts.set_weights(theirs, host=changed)
        ended = hosts.wait(arn)
    assert_failed(ended, "TrafficChanged", hosts.instance(changed))
    assert hosts.weights_by_host()[changed] == theirs
    assert hosts.record(ended.name)["outcome"] == "traffic_left"
    assert all(running > 0 for _, running in hosts.counts().values()), "both are in use"
    assert "held" not in hosts.lock()


def deploy_in_steps(
    running: Running, tag: str, strategy: Mapping[str, Any], percents: list[int]
) -> None:
    """Deploy by a strategy: every step has its weights and its share, and nothing is lost."""
    old = running.live()
    running.push(tag)
    settings = {"strategy": strategy, "bake.seconds": 2}
    samples: list[Sample] = []
    with running.configured(settings), accounted_for(running.url) as relay:
        arn = running.start_execution(running.request(tag), name=tag)
        for percent in percents[:-1]:
            wait_for_step(running, arn, percent)
            samples += weights_until_enough(running, relay, percent)
            promote = {"action": "promote", "deployment_id": tag, "percent": percent}
            promoted = running.wait(running.start_execution(promote))
            assert promoted.succeeded, promoted.cause
        samples += weights_until_the_end(running, arn)
        ended = running.wait(arn)
    assert ended.succeeded, ended.cause
    taken = steps_of(running, arn)
    assert [step.percent for step in taken] == percents
    for step in taken:
        assert_weights(samples, step, other(old))
        assert_share(relay.asked, step, other(old))
    assert_all(weights_of(running), {other(old): 100, old: 0})
    assert running.counts()[old] == (0, 0)
    assert running.answer()["X-Version"] == tag
    assert running.record(ended.name)["outcome"] == "succeeded"
    assert "held" not in running.lock()


@dataclass
class Relay:
    """Requests all the time, by one load after the other: those of a load that has stopped are
    there to be counted.
    """

    url: str
    results: list[PacedResult] = field(default_factory=list)
    _load: PacedLoad | None = None

    def next(self) -> None:
        """Begin, or have another load take over."""
        before, self._load = self._load, PacedLoad(self.url, RATE)
        self._load.start()
        if before:
            # Until the other one sends.
            time.sleep(1)
            self.results.append(before.stop())

    def stop(self) -> None:
        assert self._load
        self.results.append(self._load.stop())

    def kill(self) -> None:
        if self._load:
            self._load.kill()

    @property
    def asked(self) -> list[Request]:
        return [one for result in self.results for one in result.requests]


@contextmanager
def accounted_for(url: str) -> Iterator[Relay]:
    """Requests all the time. None may have failed."""
    relay = Relay(url)
    relay.next()
    try:
        yield relay
        relay.stop()
    finally:
        relay.kill()
    for result in relay.results:
        assert_nothing_lost(replace(result, requests=()))


def enough(percent: int) -> int:
    """Of so many answers chance alone does not take the share POINTS away from a percentage."""
    return ceil(DEVIATIONS**2 * percent * (100 - percent) / POINTS**2)


def weights_until_enough(running: Running, relay: Relay, percent: int) -> Iterator[Sample]:
    """While a step, which is proved, has not had enough answers."""
    began, proved = time.monotonic(), time.time()
    wanted, missing, rate = enough(percent), float(enough(percent)), RATE
    while missing > 0:
        until = time.monotonic() + missing / rate
        while time.monotonic() < until:
            yield sample(running)
            time.sleep(0.2)
        relay.next()
        count = len([one for one in relay.asked if one.began >= proved])
        seconds = time.monotonic() - began
        assert seconds < LONGEST_STEP_SECONDS, f"inconclusive: {count} answers, not {wanted}"
        missing, rate = wanted - count, max(count / seconds, 1.0)


def steps_of(running: Running, arn: str) -> list[Step]:
    """The steps of an execution that are proved, from its history."""
    found: dict[int, Step] = {}
    history = running.client("stepfunctions").get_execution_history(
        executionArn=arn, maxResults=1000
    )
    for event in history["events"]:
        at = event["timestamp"].timestamp()
        entered = event.get("stateEnteredEventDetails", {}).get("name")
        if entered in ("ShiftTraffic", "DrainOldColor"):
            found = {
                percent: replace(step, ended=min(step.ended, at)) for percent, step in found.items()
            }
        left = event.get("stateExitedEventDetails", {})
        if left.get("name") == "CheckBake":
            shift = json.loads(left["output"])["shift"]
            if shift["proved_at"] is not None:
                found.setdefault(shift["percent"], Step(shift["percent"], at))
    return list(found.values())


def wait_for_step(running: Running, arn: str, percent: int, seconds: float = 60) -> None:
    """Until a step is proved."""
    deadline = time.monotonic() + seconds
    while percent not in [step.percent for step in steps_of(running, arn)]:
        assert time.monotonic() < deadline, running.states(arn)
        time.sleep(0.2)


def weights_until_the_end(running: Running, arn: str) -> Iterator[Sample]:
    while running.client("stepfunctions").describe_execution(executionArn=arn)["status"] == (
        "RUNNING"
    ):
        yield sample(running)
        time.sleep(0.2)


def sample(running: Running) -> Sample:
    began = time.time()
    weights = weights_of(running)
    return Sample(began, time.time(), weights)


def weights_of(running: Running) -> list[dict[str, int]]:
    """Those of the listener, or of each host's proxy."""
    if isinstance(running, RunningHosts):
        return list(running.weights_by_host().values())
    return [running.weights()]


def assert_weights(samples: list[Sample], step: Step, color: str) -> None:
    """While a step lasts they are its own, everywhere."""
    seen = [one for one in samples if step.proved <= one.began and one.ended <= step.ended]
    assert seen
    for one in seen:
        assert_all(one.weights, {color: step.percent, other(color): 100 - step.percent})


def assert_all(weights: list[dict[str, int]], wanted: dict[str, int]) -> None:
    assert weights
    assert weights == [wanted] * len(weights)


def assert_share(asked: Sequence[Request], step: Step, color: str) -> None:
    """Of the answers between the proof of a step and what came next, so many came from a colour."""
    answers = [one.color for one in asked if step.proved <= one.began and one.ended <= step.ended]
    count = len(answers)
    assert count >= max(enough(step.percent), 1), f"inconclusive: {count} answers of {step}"
    share = 100 * answers.count(color) / count
    assert abs(share - step.percent) <= POINTS, (step, share, count)


def stop_tasks(running: Running, color: str) -> None:
    """Those of a colour, and those that ECS starts in their place."""
    ecs = running.client("ecs")
    for _ in range(3):
        for task in ecs.list_tasks(cluster="web", serviceName=f"web-{color}")["taskArns"]:
            ecs.stop_task(cluster="web", task=task, reason="killed by the test")
        time.sleep(0.3)


@pytest.mark.parametrize("hosts", PROXIES, indirect=True)
def test_14_a_host_that_appears_during_a_canary_gets_the_weights_of_its_step(
    hosts: RunningHosts,
) -> None:
    old, numbers = hosts.live(), hosts.numbers()
    quarter = {old: 75, other(old): 25}
    hosts.push("canary-appears")
    with hosts.configured({"strategy": QUARTER}), hosts.under_load():
        arn = hosts.start_execution(hosts.request("canary-appears"), name="canary-appears")
        wait_for_step(hosts, arn, 25)
        assert hosts.weights_by_host() == dict.fromkeys(numbers, quarter)
        hosts.fault("host", kind="appears")
        hosts.wait_for(lambda: len(hosts.numbers()) == len(numbers) + 1)
        hosts.wait_for(lambda: hosts.weights_by_host() == dict.fromkeys(hosts.numbers(), quarter))
        promote = {"action": "promote", "deployment_id": "canary-appears"}
        assert hosts.wait(hosts.start_execution(promote)).succeeded
        ended = hosts.wait(arn)
    assert ended.succeeded, ended.cause
    hosts.assert_all_on(other(old), "canary-appears")
