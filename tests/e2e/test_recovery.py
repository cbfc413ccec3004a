"""Failure mode 23: the execution is stopped by hand, in every state in turn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, Running

DEFINITION = json.loads(Path(ROOT / "statemachine" / "blue_green_deployment.asl.json").read_text())[
    "States"
]
IN_THE_TRY_BLOCK = DEFINITION["Deploy"]["Branches"][0]["States"]
# Over before anybody could stop an execution in them; those around them are stopped in.
MOMENTS = {
    name for name, state in IN_THE_TRY_BLOCK.items() if state["Type"] not in ("Task", "Wait")
}
OF_A_DEPLOYMENT = [
    "PlanDeployment",
    *(name for name in IN_THE_TRY_BLOCK if name not in MOMENTS),
    "DrainOldColor",
    "WaitForDrain",
    "RecordOutcome",
]
OF_A_FAILURE = ["RollBack", "WaitForRollBack"]
# Where a deployment stops only if it is configured so: an approval is stopped below, a migration in
# test_migration.py; hooks are asked as often as health is.
AT_GATES = {
    *("BeforeDeployment", "WaitToBegin", "RunMigration", "RunMigrationInVpc", "ExplainMigration"),
    *("TestIdleColor", "WaitForTests", "RequestApproval", "BeforeShift", "WaitToShift"),
    *("AfterShift", "WaitForConfirmation"),
}
# A load balancer shifts at once; hosts take their time: test_hosts_recovery.py. More of them come
# in test_hosts_come_and_go.py.
ONLY_ON_HOSTS = {"WaitForShift", "WaitForMoreHosts"}
ONLY_WITH_LEFTOVERS = "WaitForIdleColor"


def _is_consistent(sandbox: Running, before: dict[str, object], version: str) -> str:
    """All as in the snapshot, or the new colour fully live; returns which."""
    sandbox.wait_until_unlocked()
    if sandbox.answer()["X-Version"] == version:
        live = sandbox.live()
        idle = "green" if live == "blue" else "blue"
        assert sandbox.weights() == {live: 100, idle: 0}
        assert sandbox.counts() == {live: (2, 2), idle: (0, 0)}
        return "new"
    sandbox.wait_for_world(before)
    return "old"


@pytest.mark.parametrize(
    "state", [one for one in OF_A_DEPLOYMENT if one not in AT_GATES | ONLY_ON_HOSTS]
)
def test_23_stopped_by_hand(sandbox: Running, state: str) -> None:
    if state == ONLY_WITH_LEFTOVERS:
        idle = "green" if sandbox.live() == "blue" else "blue"
        ecs = sandbox.client("ecs")
        ecs.update_service(cluster="web", service=f"web-{idle}", desiredCount=2)
        ecs.get_waiter("services_stable").wait(
            cluster="web", services=[f"web-{idle}"], WaiterConfig={"Delay": 1}
        )
    before = sandbox.world()
    tag = f"stopped-{state.lower()}"
    sandbox.push(tag)
    if state == "RecordOutcome":
        # Or it would be over before anybody could stop it.
        sandbox.fault(
            "api_error",
            operation="dynamodb:UpdateItem",
            kind="throttle",
            function="RecordOutcomeFunction",
            times=3,
        )
    with sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request(tag), name=tag)
        sandbox.wait_for_state(arn, state)
        sandbox.stop_execution(arn)
        assert sandbox.wait(arn).status == "ABORTED"
        sandbox.sweep()
        ended = _is_consistent(sandbox, before, tag)
    outcome = sandbox.record(tag).get("outcome")
    if state in ("DrainOldColor", "WaitForDrain", "RecordOutcome"):
        assert (ended, outcome) == ("new", "succeeded")
    elif state != "PlanDeployment":
        assert (ended, outcome) == ("old", "rolled_back")


def test_23_stopped_by_hand_while_it_waits_for_approval(sandbox: Running) -> None:
    before = sandbox.world()
    sandbox.push("stopped-asking")
    with sandbox.configured({"approval": {"timeout_seconds": 600}}), sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request("stopped-asking"), name="stopped-asking")
        sandbox.wait_for_state(arn, "RequestApproval")
        sandbox.stop_execution(arn)
        assert sandbox.wait(arn).status == "ABORTED"
        sandbox.sweep()
        assert _is_consistent(sandbox, before, "stopped-asking") == "old"
    assert sandbox.record("stopped-asking")["outcome"] == "rolled_back"


@pytest.mark.parametrize("state", OF_A_FAILURE)
def test_23_stopped_by_hand_while_rolling_back(sandbox: Running, state: str) -> None:
    before = sandbox.world()
    tag = f"stopped-{state.lower()}"
    sandbox.push(tag, fault="crash_loop")
    with sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request(tag), name=tag)
        sandbox.wait_for_state(arn, state)
        sandbox.stop_execution(arn)
        sandbox.sweep()
        assert _is_consistent(sandbox, before, tag) == "old"
    assert sandbox.record(tag)["outcome"] == "rolled_back"


@pytest.mark.parametrize("state", ["PlanRollBack", "Settle", "RollBack", "WaitForRollBack"])
def test_23_a_recovery_that_is_stopped_is_taken_up_again(sandbox: Running, state: str) -> None:
    before = sandbox.world()
    tag = f"twice-{state.lower()}"
    sandbox.push(tag)
    with sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request(tag), name=tag)
        sandbox.wait_for_state(arn, "WaitForBake")
        sandbox.stop_execution(arn)
        recovery = _recovery(sandbox, tag)
        sandbox.wait_for_state(recovery, state)
        sandbox.stop_execution(recovery)
        sandbox.sweep()
        assert _is_consistent(sandbox, before, tag) == "old"


def test_23_the_sweep_alone_is_enough(sandbox: Running) -> None:
    """Events are not delivered for sure: without the rule, the schedule finds the lost lock."""
    before = sandbox.world()
    events = sandbox.client("events")
    rules = [rule["Name"] for rule in events.list_rules()["Rules"] if "EventPattern" in rule]
    for rule in rules:
        events.disable_rule(Name=rule)
    try:
        sandbox.push("unheard")
        with sandbox.under_load():
            arn = sandbox.start_execution(sandbox.request("unheard"), name="unheard")
            sandbox.wait_for_state(arn, "WaitForBake")
            sandbox.stop_execution(arn)
            assert sandbox.lock()["held"]
            sandbox.sweep()
            assert _is_consistent(sandbox, before, "unheard") == "old"
    finally:
        for rule in rules:
            events.enable_rule(Name=rule)


def _recovery(sandbox: Running, deployment_id: str) -> str:
    for _ in range(200):
        for one in sandbox.executions():
            if one["name"].startswith("recover-") and one["name"].endswith(deployment_id):
                return str(one["executionArn"])
    raise AssertionError(f"no recovery of {deployment_id}: {sandbox.executions()}")
