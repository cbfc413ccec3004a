"""Approval: a person is asked once, and says yes, no, or nothing."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

import pytest

from tests.e2e.hook_functions import YES, hook_functions
from tests.e2e.running import Ended, Running
from tests.e2e.test_strategies import wait_for_step

TOLD_SECONDS = 20.0


@pytest.fixture(autouse=True)
def _quiet(sandbox: Running) -> None:
    """Nothing is said in Slack yet."""
    assert sandbox.control("POST", "settle", {"seconds": 20})["settled"]
    sandbox.control("DELETE", "slack")


def asking(seconds: int, on_timeout: str = "reject") -> dict[str, Any]:
    return {
        "approval": {"timeout_seconds": seconds, "on_timeout": on_timeout},
        "notify": {"slack": "deployments"},
    }


def begin(sandbox: Running, tag: str) -> str:
    """Start a deployment of this name, and wait until it asks."""
    sandbox.push(tag)
    arn = sandbox.start_execution(sandbox.request(tag), name=tag)
    sandbox.wait_for_state(arn, "RequestApproval")
    return arn


def requests(sandbox: Running) -> list[str]:
    """What was said in Slack about an approval."""
    said = [one["text"] for one in sandbox.control("GET", "slack")]
    return [text for text in said if "waits for approval" in text]


def request_for_approval(sandbox: Running) -> str:
    """Wait for it; then nothing more comes."""
    deadline = time.monotonic() + TOLD_SECONDS
    while not requests(sandbox):
        assert time.monotonic() < deadline, sandbox.control("GET", "slack")
        time.sleep(0.05)
    assert sandbox.control("POST", "settle", {"seconds": TOLD_SECONDS})["settled"]
    (text,) = requests(sandbox)
    return text


def answer(sandbox: Running, text: str, word: str) -> Ended:
    """Do what the request says: run the command after "yes:" or "no:"."""
    (line,) = (one for one in text.splitlines() if one.startswith(f"{word}: "))
    command = shlex.split(line.removeprefix(f"{word}: "))
    assert command[:3] == ["aws", "stepfunctions", "start-execution"]
    options = dict(zip(command[3::2], command[4::2], strict=True))
    started = sandbox.client("stepfunctions").start_execution(
        stateMachineArn=options["--state-machine-arn"], input=options["--input"]
    )
    return sandbox.wait(started["executionArn"])


def assert_nothing_has_moved(sandbox: Running, before: dict[str, Any], version: str) -> None:
    assert sandbox.weights() == before["weights"]
    assert sandbox.answer()["X-Version"] == version


def test_what_is_promoted_goes_live_and_is_promoted_once(sandbox: Running) -> None:
    before, version, old = sandbox.world(), sandbox.answer()["X-Version"], sandbox.live()
    new = "green" if old == "blue" else "blue"
    # The request is made again, with another token, and told once all the same.
    lost = sandbox.faults(
        "api_error",
        operation="sqs:SendMessage",
        kind="lost_answer",
        function="RequestApprovalFunction",
    )
    # The yes takes effect, and Promote learns of it only when it looks.
    unsure = sandbox.faults(
        "api_error",
        operation="states:SendTaskSuccess",
        kind="lost_answer",
        function="PromoteFunction",
    )
    with lost, hook_functions(sandbox) as hooks:
        # Holds it between the approval and the shift, as long as the test needs.
        gate = hooks.add("before_shift", 'return {"status": "IN_PROGRESS"}', interval_seconds=1)
        with sandbox.configured(asking(120) | {"hooks": hooks.configured}), sandbox.under_load():
            arn = begin(sandbox, "approved")
            text = request_for_approval(sandbox)
            sandbox.assert_faults_hit()
            assert f"{old} → {new}" in text
            assert f"{new} is healthy and has no traffic yet; it waits until " in text
            assert "without an answer it is rolled back then" in text
            token = sandbox.record("approved")["approval"]
            assert len(token) > 20
            assert token not in json.dumps(sandbox.control("GET", "slack"))
            assert sandbox.states(arn)[-1] == "RequestApproval"
            assert sandbox.target_states(new) == {"healthy"}
            assert_nothing_has_moved(sandbox, before, version)
            with unsure:
                yes = answer(sandbox, text, "yes")
                sandbox.assert_faults_hit()
            assert yes.succeeded, yes.cause
            assert sandbox.record("approved")["approved_by"] == f"execution {yes.name}"
            sandbox.wait_for_state(arn, "WaitToShift")
            again = answer(sandbox, text, "yes")
            assert (again.status, again.error) == ("FAILED", "DeploymentRefused")
            assert "nothing to promote: " in again.cause
            assert " has approved it" in again.cause
            assert_nothing_has_moved(sandbox, before, version)
            hooks.change(gate, YES)
            ended = sandbox.wait(arn)
            assert ended.succeeded, ended.cause
            assert sandbox.answer()["X-Version"] == "approved"
    assert sandbox.record("approved")["outcome"] == "succeeded"
    assert "approval" not in sandbox.record("approved")
    assert sandbox.counts() == {new: (2, 2), old: (0, 0)}
    late = answer(sandbox, text, "no")
    assert (late.status, late.error) == ("FAILED", "DeploymentRefused")
    assert "has ended (succeeded)" in late.cause
    assert sandbox.answer()["X-Version"] == "approved"


def test_what_is_aborted_is_taken_back_and_cannot_be_promoted_any_more(sandbox: Running) -> None:
    before, version = sandbox.world(), sandbox.answer()["X-Version"]
    with sandbox.configured(asking(120)), sandbox.under_load():
        arn = begin(sandbox, "not-approved")
        text = request_for_approval(sandbox)
        no = answer(sandbox, text, "no")
        assert no.succeeded, no.cause
        ended = sandbox.wait(arn)
        assert ended.status == "FAILED"
        assert_nothing_has_moved(sandbox, before, version)
        yes = answer(sandbox, text, "yes")
        assert (yes.status, yes.error) == ("FAILED", "DeploymentRefused")
        assert "it has ended: rolled_back" in yes.cause
    assert "ShiftTraffic" not in ended.states
    record = sandbox.record("not-approved")
    assert (record["outcome"], "approval" in record) == ("rolled_back", False)
    assert "aborted by hand" in record["reason"]
    sandbox.wait_for_world(before)
    assert "held" not in sandbox.lock()


def test_without_an_answer_it_is_taken_back(sandbox: Running) -> None:
    before, version = sandbox.world(), sandbox.answer()["X-Version"]
    with sandbox.configured(asking(2)), sandbox.under_load():
        ended = sandbox.wait(begin(sandbox, "unanswered"))
        assert (ended.status, ended.error) == ("FAILED", "NotApproved"), ended.cause
        assert_nothing_has_moved(sandbox, before, version)
    assert "nobody answered the request for approval within 2 s" in ended.cause
    assert "ShiftTraffic" not in ended.states
    assert sandbox.record("unanswered")["outcome"] == "rolled_back"
    sandbox.wait_for_world(before)
    assert "held" not in sandbox.lock()
    # The request still stands in Slack; whoever reads it now learns that it is too late.
    late = answer(sandbox, request_for_approval(sandbox), "yes")
    assert (late.status, late.error) == ("FAILED", "DeploymentRefused")
    assert "it has ended: rolled_back" in late.cause


def test_without_an_answer_it_goes_on_if_that_is_configured(sandbox: Running) -> None:
    """From then on its steps can be promoted, by name, as those of any other deployment."""
    canary = {"strategy": {"type": "canary", "percent": 10, "seconds": 600}}
    with sandbox.configured(asking(2, "approve") | canary), sandbox.under_load():
        arn = begin(sandbox, "approved-by-time")
        wait_for_step(sandbox, arn, 10)
        promote = {"action": "promote", "deployment_id": "approved-by-time", "percent": 10}
        promoted = sandbox.wait(sandbox.start_execution(promote))
        assert promoted.succeeded, promoted.cause
        ended = sandbox.wait(arn)
        assert ended.succeeded, ended.cause
        assert sandbox.answer()["X-Version"] == "approved-by-time"
    assert sandbox.record("approved-by-time")["outcome"] == "succeeded"
    assert "without an answer it goes on then" in request_for_approval(sandbox)
