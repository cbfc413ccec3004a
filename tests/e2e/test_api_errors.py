"""Each AWS call of a deployment fails once: it still succeeds, or is rolled back completely."""

from __future__ import annotations

import pytest

from tests.e2e.running import Running

KINDS = ["throttle", "error500", "lost_answer"]


@pytest.mark.parametrize("kind", KINDS)
def test_21_each_call_of_a_deployment_fails_once(sandbox: Running, kind: str) -> None:
    before, revisions = sandbox.world(), sandbox.revisions()
    tag = f"deploy-{kind.replace('_', '-')}"
    sandbox.push(tag)
    with (
        sandbox.faults("api_error", operation="*", kind=kind, each_once=True),
        sandbox.under_load(),
    ):
        ended = sandbox.deploy(tag)
        sandbox.wait_until_unlocked()
        sandbox.assert_faults_hit()
    made = set(sandbox.revisions()) - set(revisions)
    assert len(made) <= 1, "a task definition was registered twice"
    if ended.succeeded:
        assert sandbox.answer()["X-Version"] == tag
        assert sandbox.counts()[sandbox.live()] == (2, 2)
    else:
        assert sandbox.world() == before


@pytest.mark.parametrize("kind", KINDS)
def test_21_each_call_of_a_failing_deployment_fails_once(sandbox: Running, kind: str) -> None:
    before, revisions = sandbox.world(), sandbox.revisions()
    tag = f"fail-{kind.replace('_', '-')}"
    sandbox.push(tag, fault="crash_loop")
    with (
        sandbox.faults("api_error", operation="*", kind=kind, each_once=True),
        sandbox.under_load(),
    ):
        ended = sandbox.deploy(tag)
        sandbox.wait_until_unlocked()
        sandbox.assert_faults_hit()
    assert ended.status == "FAILED"
    assert sandbox.world() == before
    assert len(set(sandbox.revisions()) - set(revisions)) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_21_each_call_of_a_recovery_fails_once(sandbox: Running, kind: str) -> None:
    before = sandbox.world()
    tag = f"recover-{kind.replace('_', '-')}"
    sandbox.push(tag)
    with sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request(tag), name=tag)
        sandbox.wait_for_state(arn, "WaitForBake")
        with sandbox.faults("api_error", operation="*", kind=kind, each_once=True):
            sandbox.stop_execution(arn)
            sandbox.wait_until_unlocked()
            sandbox.assert_faults_hit()
    assert sandbox.world() == before


@pytest.mark.parametrize("kind", ["throttle", "lost_answer"])
@pytest.mark.parametrize(
    "operation",
    [
        "ecs:RegisterTaskDefinition",
        "ecs:UpdateService",
        "elasticloadbalancing:ModifyListener",
        "elasticloadbalancing:DeregisterTargets",
        "application-autoscaling:RegisterScalableTarget",
        "dynamodb:UpdateItem",
    ],
)
def test_21_a_change_fails_so_often_that_retries_run_out(
    sandbox: Running, operation: str, kind: str
) -> None:
    """Every attempt of the SDK fails; the state machine's retrier has to carry it."""
    before, revisions = sandbox.world(), sandbox.revisions()
    tag = f"{operation.split(':')[1].lower()}-{kind.replace('_', '-')}"
    sandbox.push(tag)
    with sandbox.faults("api_error", operation=operation, kind=kind, times=4), sandbox.under_load():
        ended = sandbox.deploy(tag)
        sandbox.wait_until_unlocked()
        sandbox.assert_faults_hit()
    assert len(set(sandbox.revisions()) - set(revisions)) <= 1
    if ended.succeeded:
        assert sandbox.answer()["X-Version"] == tag
    else:
        assert sandbox.world() == before
