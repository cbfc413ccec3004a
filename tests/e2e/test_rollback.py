"""Going back by hand."""

from __future__ import annotations

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


def test_a_running_deployment_is_not_rolled_back_under_its_own_feet(sandbox: Running) -> None:
    sandbox.push("going-on")
    arn = sandbox.start_execution(sandbox.request("going-on"), name="going-on")
    sandbox.wait_for_state(arn, "CheckHealth")
    refused = sandbox.roll_back("going-on")
    assert refused.error == "LockHeld"
    assert sandbox.wait(arn).succeeded


def test_there_is_no_such_deployment(sandbox: Running) -> None:
    refused = sandbox.roll_back("never-heard-of")
    assert (refused.status, refused.error) == ("FAILED", "InvalidRequest")
