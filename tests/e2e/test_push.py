"""A push alone leads to a new live version, once, however its events come."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.running import Running

TAGS = {"trigger": {"tags": ["push-*"]}, "notify": {"slack": "deployments"}}
ENDS_SECONDS = 60.0
# Seconds from the first push; ECR knows whole ones, and the last push comes in one of its own.
MOMENTS = (0.0, 0.3, 0.6, 0.9, 2.0)


@pytest.fixture
def pushed(sandbox: Running) -> Iterator[Running]:
    """A sandbox in which pushes of tags push-… are deployed, and nobody may notice."""
    with sandbox.configured(TAGS), sandbox.under_load():
        yield sandbox
        sandbox.wait_until_unlocked()


def kept(sandbox: Running, *tags: str) -> list[dict[str, Any]]:
    """What the history has of pushes of these tags, the oldest first."""
    names = [one["pk"].partition("#")[2] for one in reversed(sandbox.history())]
    # The index has not all of a record.
    found = [{**sandbox.record(name), "id": name} for name in names]
    told = [one | {"started_by": json.loads(one["started_by"])} for one in found]
    return [one for one in told if one["started_by"]["detail"] in tags]


def wait_for(sandbox: Running, *outcomes: str, tags: tuple[str, ...]) -> list[dict[str, Any]]:
    """Until the pushes of these tags have just these outcomes, in any order; "" is none yet."""
    deadline = time.monotonic() + ENDS_SECONDS
    while True:
        found = kept(sandbox, *tags)
        if sorted(one.get("outcome", "") for one in found) == sorted(outcomes):
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    # A record is complete when its execution is; what was superseded has none.
    for one in found:
        if one.get("outcome") and one["execution_arn"]:
            sandbox.wait(one["execution_arn"])
    return kept(sandbox, *tags)


def nothing_more_happens(sandbox: Running, executions: int) -> None:
    """Neither what has been sent nor the schedule starts another execution."""
    assert sandbox.control("POST", "settle", {"seconds": 25})["settled"]
    sandbox.sweep()
    assert sandbox.control("POST", "settle", {"seconds": 25})["settled"]
    assert len(sandbox.executions()) == executions


def live_image(sandbox: Running) -> str:
    """The image that the live colour's task definition names."""
    arn = sandbox.ecs_service(sandbox.live())["taskDefinition"]
    described = sandbox.client("ecs").describe_task_definition(taskDefinition=arn)
    return str(described["taskDefinition"]["containerDefinitions"][0]["image"])


def digest_of(sandbox: Running, tag: str) -> str:
    described = sandbox.client("ecr").describe_images(
        repositoryName="web", imageIds=[{"imageTag": tag}]
    )
    return str(described["imageDetails"][0]["imageDigest"])


def assert_complete(sandbox: Running, one: dict[str, Any], kind: str = "push") -> None:
    """Who, what, when, in which states, and how it ended."""
    assert one["started_by"] == {"kind": kind, "detail": one["started_by"]["detail"], "who": ""}
    digest = digest_of(sandbox, one["started_by"]["detail"])
    assert json.loads(one["images"])["web"].endswith(f"web@{digest}")
    assert float(one["started_at"]) <= float(one["ended_at"])
    if one["outcome"] == "superseded":
        assert sandbox.record(one["superseded_by"])["service"] == one["service"]
        assert one["superseded_by"] in one["reason"] or "pushed later" in one["reason"]
        assert "states" not in one
    else:
        states = [state["state"] for state in json.loads(one["states"])]
        assert states[0] == "PlanDeployment"
        assert {"CheckHealth", "ShiftTraffic", "CheckBake"} <= set(states)


def test_16_a_push_alone_leads_to_a_live_new_version(pushed: Running) -> None:
    executions = len(pushed.executions())
    digest = pushed.push("push-alone")
    [one] = wait_for(pushed, "succeeded", tags=("push-alone",))
    assert_complete(pushed, one)
    assert live_image(pushed).endswith(f"web@{digest}")
    assert pushed.answer()["X-Version"] == "push-alone"
    assert one["id"].startswith(f"web-{digest[7:19]}-")
    nothing_more_happens(pushed, executions + 1)


def test_20_22_the_same_events_three_times_and_five_tags_in_two_seconds(pushed: Running) -> None:
    """One is deployed, the newest waits for it, and those in between never begin."""
    executions = len(pushed.executions())
    tags = tuple(f"push-burst-{number}" for number in range(5))
    began = time.monotonic()
    for tag, moment in zip(tags, MOMENTS, strict=True):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        pushed.push(tag, times="3")
    found = wait_for(pushed, *["succeeded"] * 2, *["superseded"] * 3, tags=tags)
    for one in found:
        assert_complete(pushed, one)
    ran = [one for one in found if one["outcome"] == "succeeded"]
    assert ran[-1]["started_by"]["detail"] == tags[-1]
    assert float(ran[0]["ended_at"]) <= float(ran[-1]["started_at"])
    assert pushed.answer()["X-Version"] == tags[-1]
    instead = {one["id"]: one.get("superseded_by") for one in found}
    for last in instead:
        while instead[last]:
            last = instead[last]
        assert last in {one["id"] for one in ran}
    assert ran[-1]["id"] in instead.values()
    nothing_more_happens(pushed, executions + 2)


def test_20_an_event_that_comes_late_and_twice_deploys_nothing_older(pushed: Running) -> None:
    executions = len(pushed.executions())
    pushed.control("DELETE", "slack")
    tags = ("push-late-old", "push-late-new")
    pushed.fault("events", kind="duplicated", times=2)
    with pushed.faults("events", kind="late", seconds=3):
        pushed.push(tags[0])
    # Its event has an earlier second, and arrives before that of the older one.
    time.sleep(1.1)
    pushed.push(tags[1])
    old, new = wait_for(pushed, "succeeded", "superseded", tags=tags)
    if old["outcome"] == "succeeded":
        old, new = new, old
    assert (old["started_by"]["detail"], new["started_by"]["detail"]) == tags
    assert old["superseded_by"] == new["id"]
    assert_complete(pushed, old)
    assert pushed.answer()["X-Version"] == tags[1]
    nothing_more_happens(pushed, executions + 1)
    [told] = [one["text"] for one in pushed.control("GET", "slack") if old["id"] in one["text"]]
    assert "superseded" in told.splitlines()[0]
    assert told.endswith(f"/{new['execution_arn']}"), "its own was never started"


def test_20_a_multi_architecture_push_is_one_deployment(pushed: Running) -> None:
    executions = len(pushed.executions())
    digest = pushed.push("push-platforms", platforms="2")
    [one] = wait_for(pushed, "succeeded", tags=("push-platforms",))
    assert_complete(pushed, one)
    assert live_image(pushed).endswith(f"web@{digest}"), "the index, not one platform"
    nothing_more_happens(pushed, executions + 1)


def test_the_schedule_catches_up_with_a_push_of_which_no_event_told(pushed: Running) -> None:
    executions = len(pushed.executions())
    with pushed.faults("events", kind="off"):
        pushed.push("push-untold")
        assert pushed.control("POST", "settle", {"seconds": 25})["settled"]
        assert len(pushed.executions()) == executions
        pushed.sweep()
        [one] = wait_for(pushed, "succeeded", tags=("push-untold",))
    assert_complete(pushed, one, "schedule")
    assert pushed.answer()["X-Version"] == "push-untold"
    nothing_more_happens(pushed, executions + 1)


def test_22_what_was_rolled_back_by_hand_stays_so(pushed: Running) -> None:
    """Neither the schedule nor its event, which comes again, deploys it another time."""
    version, before = pushed.answer()["X-Version"], pushed.world()
    with pushed.configured({"drain.keep_warm_seconds": 15}):
        pushed.push("push-regretted")
        pushed.wait_until_warm()
        assert pushed.answer()["X-Version"] == "push-regretted"
        back = pushed.wait(pushed.start_execution({"action": "rollback", "service": "web"}))
        assert back.succeeded, back.cause
    [one] = wait_for(pushed, "rolled_back", tags=("push-regretted",))
    pushed.wait_until_unlocked()
    executions = len(pushed.executions())
    pushed.push("push-regretted")
    nothing_more_happens(pushed, executions)
    assert [one["id"]] == [again["id"] for again in kept(pushed, "push-regretted")]
    assert pushed.answer()["X-Version"] == version
    assert pushed.world() == before


def test_20_a_deployment_by_hand_of_what_a_push_deploys_waits_and_ends_well(
    pushed: Running,
) -> None:
    executions = len(pushed.executions())
    pushed.push("push-both")
    deadline = time.monotonic() + ENDS_SECONDS
    while "held" not in pushed.lock():
        assert time.monotonic() < deadline, kept(pushed, "push-both")
        time.sleep(0.05)
    by_hand = pushed.start_execution(pushed.request("push-both"))
    ended = pushed.wait(by_hand)
    assert ended.succeeded, ended.cause
    assert ended.states.count("PlanDeployment") > 1, "it has waited"
    assert "ShiftTraffic" not in ended.states
    [one] = wait_for(pushed, "succeeded", tags=("push-both",))
    assert_complete(pushed, one)
    assert pushed.record(ended.name)["outcome"] == "nothing_to_do"
    assert pushed.answer()["X-Version"] == "push-both"
    nothing_more_happens(pushed, executions + 2)


def test_24_findings_refuse_a_push_and_say_so(pushed: Running) -> None:
    executions, version = len(pushed.executions()), pushed.answer()["X-Version"]
    before = pushed.world()
    with pushed.configured({"scan": {"refuse": "HIGH"}}):
        pushed.push("push-findings", findings="CRITICAL=1,HIGH=2")
        [one] = wait_for(pushed, "refused", tags=("push-findings",))
    assert one["reason"].count("1 CRITICAL, 2 HIGH") == 1, one["reason"]
    assert "scan.refuse is HIGH" in one["reason"]
    assert (pushed.answer()["X-Version"], pushed.world()) == (version, before)
    nothing_more_happens(pushed, executions + 1)


def test_a_scan_that_runs_is_waited_for(pushed: Running) -> None:
    tag, version = "push-scanned", pushed.answer()["X-Version"]
    with pushed.configured({"scan": {"refuse": "HIGH"}}):
        pushed.push(tag, findings="LOW=3", scan_seconds="600")
        name = wait_for(pushed, "", tags=(tag,))[0]["id"]
        [arn] = [one["executionArn"] for one in pushed.executions() if one["name"] == name]
        deadline = time.monotonic() + ENDS_SECONDS
        while pushed.states(arn).count("PlanDeployment") < 2:
            assert time.monotonic() < deadline, pushed.states(arn)
            time.sleep(0.1)
        assert "held" not in pushed.lock(), "it keeps nobody from deploying"
        assert pushed.answer()["X-Version"] == version
        # The same image, whose scan has come to its end.
        pushed.push(tag, findings="LOW=3")
        [one] = wait_for(pushed, "succeeded", tags=(tag,))
    assert_complete(pushed, one)
    assert (one["id"], pushed.answer()["X-Version"]) == (name, tag)
