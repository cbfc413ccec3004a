"""Going back by hand."""

from __future__ import annotations

import pytest

from tests.e2e.running import Running


def test_back_to_the_previous_version_after_its_colour_has_ended(sandbox: Running) -> None:
    sandbox.push("kept")
    assert sandbox.deploy("kept").succeeded
    before = sandbox.world()
    sandbox.push("regretted")
    with sandbox.under_load():
        deployed = sandbox.deploy("regretted")
        assert sandbox.answer()["X-Version"] == "regretted"
        back = sandbox.roll_back(deployed.name)
    assert back.succeeded, back.cause
    assert sandbox.answer()["X-Version"] == "kept"
    assert sandbox.world() == before
    assert sandbox.record(deployed.name)["outcome"] == "rolled_back"
    assert "held" not in sandbox.lock()


def test_only_the_last_deployment_can_be_undone(sandbox: Running) -> None:
    sandbox.push("older")
    older = sandbox.deploy("older")
    sandbox.push("newer")
    newer = sandbox.deploy("newer")
    refused = sandbox.roll_back(older.name)
    assert (refused.status, refused.error) == ("FAILED", "DeploymentRefused")
    assert newer.name in refused.cause
    assert sandbox.record(older.name)["outcome"] == "succeeded"
    assert sandbox.answer()["X-Version"] == "newer"


@pytest.mark.parametrize("state", ["CheckHealth", "WaitForBake", "WaitForDrain"])
def test_a_deployment_is_undone_while_it_still_runs(sandbox: Running, state: str) -> None:
    before = sandbox.world()
    tag = f"undone-{state.lower()}"
    sandbox.push(tag)
    with sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request(tag), name=tag)
        sandbox.wait_for_state(arn, state)
        back = sandbox.roll_back(tag)
        assert back.succeeded, back.cause
        ended = sandbox.wait(arn)
    assert (ended.status, ended.error) == ("FAILED", "LockLost")
    assert sandbox.record(tag)["outcome"] == "rolled_back"
    sandbox.wait_for_world(before)


def test_15_undone_while_the_targets_of_the_old_colour_are_taken_out(sandbox: Running) -> None:
    """Their tasks still run, but nobody sends to them: they are kept, and get the traffic back."""
    before, old = sandbox.world(), sandbox.live()
    sandbox.push("undone-late")
    with sandbox.deregistration_delay(old, 20), sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request("undone-late"), name="undone-late")
        sandbox.wait_for_target_states(old, {"draining"})
        back = sandbox.roll_back("undone-late")
        assert back.succeeded, back.cause
        assert sandbox.wait(arn).error == "LockLost"
    assert sandbox.record("undone-late")["outcome"] == "rolled_back"
    sandbox.wait_for_world(before)


def test_after_a_failed_deployment_the_one_before_can_still_be_undone(sandbox: Running) -> None:
    version = sandbox.answer()["X-Version"]
    sandbox.push("bad-idea")
    first = sandbox.deploy("bad-idea")
    sandbox.push("bad-fix", fault="crash_loop")
    assert sandbox.deploy("bad-fix").error == "IdleColorUnhealthy"
    with sandbox.under_load():
        back = sandbox.roll_back(first.name)
    assert back.succeeded, back.cause
    assert sandbox.answer()["X-Version"] == version


def test_01_a_switch_that_shows_late_is_taken_back_without_loss(sandbox: Running) -> None:
    """Stopped before the load balancer follows: it switches there and back again afterwards."""
    before = sandbox.world()
    sandbox.push("late")
    with (
        sandbox.configured({"probe.timeout_seconds": 10}),
        sandbox.faults("propagation_lag", seconds=5),
        sandbox.under_load(),
    ):
        arn = sandbox.start_execution(sandbox.request("late"), name="late")
        sandbox.wait_for_state(arn, "CheckBake")
        sandbox.stop_execution(arn)
        sandbox.wait_until_unlocked()
    sandbox.wait_for_world(before)


def test_there_is_no_such_deployment(sandbox: Running) -> None:
    refused = sandbox.roll_back("never-heard-of")
    assert (refused.status, refused.error) == ("FAILED", "InvalidRequest")
