"""Who is told what of a deployment, and what is kept of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from bluegreen.announcement import EventDetail
from tests.e2e.running import Running

ENDS_SECONDS = 40.0
SLACK = {"notify": {"slack": "deployments"}}


class Audience:
    """A rule on the event bus and a subscriber of the topic, each with a queue, and Slack."""

    def __init__(self, sandbox: Running) -> None:
        self._sandbox = sandbox
        self._sqs, self._sns = sandbox.client("sqs"), sandbox.client("sns")
        self._events = sandbox.client("events")
        self._heard: dict[str, list[dict[str, Any]]] = {"rule": [], "mail": []}
        self._queues = {
            name: self._sqs.create_queue(QueueName=f"telling-{name}")["QueueUrl"]
            for name in self._heard
        }
        arns = {
            name: self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])[
                "Attributes"
            ]["QueueArn"]
            for name, url in self._queues.items()
        }
        (topic,) = (
            one["TopicArn"]
            for one in self._sns.list_topics()["Topics"]
            if "DeploymentsTopic" in one["TopicArn"]
        )
        self._subscription = self._sns.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=arns["mail"], ReturnSubscriptionArn=True
        )["SubscriptionArn"]
        pattern = json.dumps({"source": ["ecs-bluegreen"]})
        self._events.put_rule(Name="telling", EventPattern=pattern)
        self._events.put_targets(Rule="telling", Targets=[{"Id": "1", "Arn": arns["rule"]}])
        sandbox.control("DELETE", "slack")

    def close(self) -> None:
        self._events.remove_targets(Rule="telling", Ids=["1"])
        self._events.delete_rule(Name="telling")
        self._sns.unsubscribe(SubscriptionArn=self._subscription)
        for url in self._queues.values():
            self._sqs.delete_queue(QueueUrl=url)

    def details(self) -> list[EventDetail]:
        """What the events say, one for each thing: EventBridge may have some twice."""
        found = [EventDetail.model_validate(one["detail"]) for one in self._listen("rule")]
        return list({one.id: one for one in found}.values())

    def events(self) -> list[str]:
        return [one.id for one in self.details()]

    def mails(self) -> list[str]:
        """The subjects."""
        return [one["Subject"] for one in self._listen("mail")]

    def slack(self) -> list[str]:
        """The first lines."""
        said = self._sandbox.control("GET", "slack")
        return [one["text"].splitlines()[0].strip("*") for one in said]

    def wait_until_told(self, *, slack: int) -> None:
        """Until as many were told in Slack; then nothing more comes, not twice either."""
        deadline = time.monotonic() + ENDS_SECONDS
        while len(self.slack()) < slack:
            assert time.monotonic() < deadline, self.slack()
            time.sleep(0.1)
        assert self._sandbox.control("POST", "settle", {"seconds": 20})["settled"]

    def _listen(self, name: str) -> list[dict[str, Any]]:
        url = self._queues[name]
        while batch := self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in batch:
                self._heard[name].append(json.loads(message["Body"]))
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return self._heard[name]


@pytest.fixture
def audience(sandbox: Running) -> Iterator[Audience]:
    made = Audience(sandbox)
    with sandbox.configured(SLACK):
        yield made
    made.close()


def headline(said: str) -> str:
    """A line of Slack as the subject of a mail."""
    return said.replace("→", "->")


def test_22_a_deployment_is_told_everywhere_and_nothing_twice(
    sandbox: Running, audience: Audience
) -> None:
    before = sandbox.live()
    sandbox.push("told")
    ended = sandbox.deploy("told", started_by={"kind": "hand", "who": "ann"})
    assert ended.succeeded
    audience.wait_until_told(slack=3)
    after = sandbox.live()
    name = f"web: deployment {ended.name}"
    assert audience.slack() == [
        f"{name} started, {before} → {after}",
        f"{name}: 100 % of the traffic is on {after}",
        f"{name} succeeded, {after} is live",
    ]
    assert Counter(audience.mails()) == Counter(map(headline, audience.slack()))
    assert sorted(audience.events()) == sorted(
        f"{ended.name}/{what}" for what in ("started", "shifted/100", "succeeded")
    )
    for detail in audience.details():
        assert detail.started_by.who == "ann"
        assert "@sha256:" in detail.images["web"]
        assert detail.link.endswith(detail.execution_arn)


def test_24_a_rollback_is_told_with_its_reason_and_kept(
    sandbox: Running, audience: Audience
) -> None:
    sandbox.push("never-healthy", fault="never_healthy")
    with sandbox.configured({"health.deadline_seconds": 8}):
        ended = sandbox.deploy("never-healthy")
    assert ended.error == "IdleColorUnhealthy"
    audience.wait_until_told(slack=2)
    assert [one.kind for one in audience.details()] == ["started", "rolled_back"]
    reason = audience.details()[-1].reason
    assert reason.splitlines()[0] in ended.cause
    [_, text] = [one["text"] for one in sandbox.control("GET", "slack")]
    assert "was rolled back" in text
    assert reason[:30] in text
    assert sandbox.history()[0]["outcome"] == "rolled_back"


def test_a_refusal_is_told_although_it_never_began(sandbox: Running, audience: Audience) -> None:
    ended = sandbox.deploy("there-is-no-such-tag")
    assert not ended.succeeded
    audience.wait_until_told(slack=1)
    assert audience.slack() == [f"web: deployment {ended.name} was refused, nothing was changed"]
    assert audience.events() == [f"{ended.name}/failed/refused"]


def test_slack_that_is_down_keeps_nobody_from_being_told_and_is_told_in_the_end(
    sandbox: Running, audience: Audience
) -> None:
    sandbox.push("outage")
    with sandbox.faults("slack", kind="outage"):
        ended = sandbox.deploy("outage")
        assert ended.succeeded
        deadline = time.monotonic() + ENDS_SECONDS
        while not {f"{ended.name}/succeeded"} <= set(audience.events()):
            assert time.monotonic() < deadline, audience.events()
            time.sleep(0.1)
        while len(audience.mails()) < 3:
            assert time.monotonic() < deadline, audience.mails()
            time.sleep(0.1)
        assert audience.slack() == []
    audience.wait_until_told(slack=3)
    assert sorted(map(headline, audience.slack())) == sorted(audience.mails())


def test_the_history_says_who_what_when_and_how_long(sandbox: Running) -> None:
    sandbox.push("kept")
    ended = sandbox.deploy("kept", started_by={"kind": "hand", "who": "ann"})
    assert ended.succeeded
    kept = sandbox.history()[0]
    assert kept["pk"] == f"deployment#{ended.name}"
    assert json.loads(kept["started_by"]) == {"kind": "hand", "detail": "", "who": "ann"}
    assert "@sha256:" in json.loads(kept["images"])["web"]
    assert (kept["to_color"], kept["outcome"]) == (sandbox.live(), "succeeded")
    states = {one["state"]: one for one in json.loads(kept["states"])}
    visited = [name for name in ended.states if name in states]
    assert list(dict.fromkeys(visited)) == list(states), "in the order in which they were entered"
    assert {"PlanDeployment", "StartIdleColor", "CheckHealth", "ShiftTraffic"} <= set(states)
    for name, state in states.items():
        # RecordOutcome is in it, too, as far as it had come.
        assert state["visits"] == ended.states.count(name)
        assert state["execution"] == ended.name
    took = float(kept["ended_at"]) - float(kept["started_at"])
    assert 0 < sum(one["seconds"] for one in states.values()) <= took + 5
    assert "expires_at" not in sandbox.record(ended.name), "it is live"


def test_23_what_was_stopped_by_hand_has_its_states_and_those_of_its_recovery(
    sandbox: Running,
) -> None:
    sandbox.push("stopped", fault="never_healthy")
    arn = sandbox.start_execution(sandbox.request("stopped"))
    sandbox.wait_for_state(arn, "CheckHealth")
    sandbox.stop_execution(arn)
    name = arn.rpartition(":")[2]
    sandbox.wait_until_unlocked()
    [kept] = [one for one in sandbox.history() if one["pk"] == f"deployment#{name}"]
    assert kept["outcome"] == "rolled_back"
    states = json.loads(kept["states"])
    assert [one["state"] for one in states if one["execution"] == name][:2] == [
        "PlanDeployment",
        "RegisterTaskDefinition",
    ]
    recovery = [one["state"] for one in states if one["execution"] != name]
    assert "RollBack" in recovery
    assert "expires_at" in sandbox.record(name)


def test_every_end_is_measured(sandbox: Running) -> None:
    sandbox.push("measured")
    ended = sandbox.deploy("measured")
    assert ended.succeeded
    values: Counter[str] = Counter()
    for line in _log(sandbox, "RecordOutcome"):
        said = json.loads(line) if line.startswith('{"_aws"') else None
        if said and said["service"] == "web":
            at = said["_aws"]["Timestamp"] / 1000
            if at >= float(sandbox.record(ended.name)["ended_at"]) - 1:
                values.update(
                    one["Name"] for one in said["_aws"]["CloudWatchMetrics"][0]["Metrics"]
                )
    assert values["Succeeded"] == values["DeploymentSeconds"] == 1
    assert values["StateSeconds"] >= len({"PlanDeployment", "CheckHealth", "CheckBake"})


def _log(sandbox: Running, function: str) -> list[str]:
    """What a function has printed."""
    logs = sandbox.client("logs")
    (group,) = (
        one["logGroupName"]
        for one in logs.describe_log_groups()["logGroups"]
        if one["logGroupName"].endswith(f"/{function}")
    )
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
    return [event["message"] for page in pages for event in page["events"]]
