"""What a person can ask for by an execution's input: a plan, the way back, an end, a go-ahead."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.running import Running

# The issue asks for it of a warm old colour, in the sandbox.
INSTANT_SECONDS = 3.0


def output(sandbox: Running, arn: str) -> Any:
    described = sandbox.client("stepfunctions").describe_execution(executionArn=arn)
    return json.loads(described["output"])


def items(sandbox: Running) -> list[Any]:
    """All of the deployments table."""
    dynamodb = sandbox.client("dynamodb")
    (table,) = (name for name in dynamodb.list_tables()["TableNames"] if "Deployments" in name)
    found = dynamodb.scan(TableName=table)["Items"]
    return sorted(found, key=lambda item: str(item["pk"]))


def seconds_until(sandbox: Running, arn: str, state: str, key: str) -> tuple[float, Any]:
    """From an execution's start to the end of a state's first pass, and what it answered."""
    events = sandbox.client("stepfunctions").get_execution_history(
        executionArn=arn, maxResults=1000
    )["events"]
    end = next(one for one in events if one.get("stateExitedEventDetails", {}).get("name") == state)
    answer = json.loads(end["stateExitedEventDetails"]["output"])[key]
    return (end["timestamp"] - events[0]["timestamp"]).total_seconds(), answer


def test_a_dry_run_says_all_and_changes_nothing(sandbox: Running) -> None:
    sandbox.push("by-hand-planned")
    version, before = sandbox.answer()["X-Version"], sandbox.world()
    revisions, kept = sandbox.revisions(), items(sandbox)
    arn = sandbox.start_execution(
        sandbox.request("by-hand-planned", dry_run=True), name="by-hand-1"
    )
    ended = sandbox.wait(arn)
    assert ended.succeeded, ended.cause
    plan = output(sandbox, arn)
    live = sandbox.live()
    assert (plan["service"], plan["from_color"]) == ("web", live)
    assert any(one["path"].endswith(".image") for one in plan["task_definition"])
    assert any("UpdateService" in one for one in plan["changes"])
    assert (sandbox.world(), sandbox.revisions(), items(sandbox)) == (before, revisions, kept)
    assert sandbox.answer()["X-Version"] == version


def test_a_dry_run_of_what_cannot_be_deployed_is_refused_and_leaves_nothing(
    sandbox: Running,
) -> None:
    kept = items(sandbox)
    ended = sandbox.deploy("by-hand-nowhere", dry_run=True)
    assert (ended.status, ended.error) == ("FAILED", "InvalidRequest")
    assert "by-hand-nowhere" in ended.cause
    assert items(sandbox) == kept


def test_back_by_service_while_warm_is_instant(sandbox: Running) -> None:
    before, version = sandbox.world(), sandbox.answer()["X-Version"]
    sandbox.push("by-hand-regretted")
    with sandbox.configured({"drain.keep_warm_seconds": 15}), sandbox.under_load():
        deployment = sandbox.start_execution(sandbox.request("by-hand-regretted"), name="by-hand-2")
        sandbox.wait_until_warm()
        said = sandbox.wait(
            sandbox.start_execution({"action": "rollback", "service": "web", "dry_run": True})
        )
        assert said.succeeded, said.cause
        assert sandbox.answer()["X-Version"] == "by-hand-regretted", "nothing was done"
        back = sandbox.start_execution({"action": "rollback", "service": "web"}, name="by-hand-3")
        ended = sandbox.wait(back)
        assert ended.succeeded, ended.cause
        assert sandbox.answer()["X-Version"] == version
        sandbox.wait(deployment)
    # One state puts the traffic back, the first one that writes.
    seconds, first = seconds_until(sandbox, back, "RollBack", "rollback")
    assert first["reason"].startswith("traffic back to"), first
    assert seconds < INSTANT_SECONDS
    assert sandbox.record("by-hand-2")["outcome"] == "rolled_back"
    assert sandbox.world() == before


def test_back_by_service_when_cold_deploys_the_digest_from_before(sandbox: Running) -> None:
    for tag in ("by-hand-good", "by-hand-bad"):
        sandbox.push(tag)
    with sandbox.under_load():
        for tag in ("by-hand-good", "by-hand-bad"):
            arn = sandbox.start_execution(sandbox.request(tag), name=tag)
            assert sandbox.wait(arn).succeeded
        # The tag is moved on: what counts is what ran.
        sandbox.push("by-hand-good", command="false")
        back = sandbox.start_execution(
            {"action": "rollback", "service": "web", "who": "ann"}, name="by-hand-4"
        )
        ended = sandbox.wait(back)
        assert ended.succeeded, ended.cause
        assert "StartIdleColor" in ended.states
        assert sandbox.answer()["X-Version"] == "by-hand-good"
        # Where this would go can be asked first.
        plan = sandbox.start_execution(
            {"action": "rollback", "service": "web", "to": "by-hand-bad", "dry_run": True}
        )
        assert sandbox.wait(plan).succeeded
        assert output(sandbox, plan)["service"] == "web"
    record = sandbox.record("by-hand-4")
    assert record["outcome"] == "succeeded"
    newest = sandbox.history()[0]
    assert json.loads(newest["started_by"]) == {
        "kind": "rollback",
        "detail": "by-hand-good",
        "who": "ann",
    }


def test_abort_takes_a_deployment_back_while_it_bakes(sandbox: Running) -> None:
    before, version = sandbox.world(), sandbox.answer()["X-Version"]
    sandbox.push("by-hand-stopped")
    with sandbox.configured({"bake.seconds": 60}), sandbox.under_load():
        deployment = sandbox.start_execution(sandbox.request("by-hand-stopped"), name="by-hand-5")
        sandbox.wait_for_state(deployment, "WaitForBake")
        request = {"action": "abort", "deployment_id": "by-hand-5", "who": "ann"}
        ended = sandbox.wait(sandbox.start_execution(request))
        assert ended.succeeded, ended.cause
        assert sandbox.wait(deployment).status == "FAILED"
        assert sandbox.answer()["X-Version"] == version
    assert sandbox.record("by-hand-5")["outcome"] == "rolled_back"
    assert "aborted by ann" in sandbox.record("by-hand-5")["reason"]
    sandbox.wait_for_world(before)


def test_abort_answers_who_waits_for_approval(sandbox: Running) -> None:
    before = sandbox.world()
    sandbox.push("by-hand-unapproved")
    with sandbox.configured({"approval": {"timeout_seconds": 120}}), sandbox.under_load():
        deployment = sandbox.start_execution(
            sandbox.request("by-hand-unapproved"), name="by-hand-6"
        )
        sandbox.wait_for_state(deployment, "RequestApproval")
        request = {"action": "abort", "deployment_id": "by-hand-6", "who": "ann"}
        ended = sandbox.wait(sandbox.start_execution(request))
        assert ended.succeeded, ended.cause
        assert sandbox.wait(deployment, seconds=30).status == "FAILED"
    assert sandbox.record("by-hand-6")["outcome"] == "rolled_back"
    sandbox.wait_for_world(before)


def test_promote_ends_the_bake_of_a_deployment(sandbox: Running) -> None:
    sandbox.push("by-hand-hurried")
    with sandbox.configured({"bake.seconds": 600}), sandbox.under_load():
        deployment = sandbox.start_execution(sandbox.request("by-hand-hurried"), name="by-hand-7")
        sandbox.wait_for_state(deployment, "WaitForBake")
        request = {"action": "promote", "deployment_id": "by-hand-7"}
        assert sandbox.wait(sandbox.start_execution(request)).succeeded
        assert sandbox.wait(deployment, seconds=60).succeeded
        assert sandbox.answer()["X-Version"] == "by-hand-hurried"


def test_abort_of_what_has_ended_is_refused(sandbox: Running) -> None:
    sandbox.push("by-hand-done")
    arn = sandbox.start_execution(sandbox.request("by-hand-done"), name="by-hand-8")
    assert sandbox.wait(arn).succeeded
    before = sandbox.world()
    ended = sandbox.wait(sandbox.start_execution({"action": "abort", "deployment_id": "by-hand-8"}))
    assert (ended.status, ended.error) == ("FAILED", "DeploymentRefused")
    assert "use rollback" in ended.cause
    assert sandbox.world() == before
