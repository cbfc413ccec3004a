"""Other hands on the same service."""

from __future__ import annotations

import pytest

from tests.e2e.running import Running


def test_a_second_start_is_refused_and_names_the_first(sandbox: Running) -> None:
    sandbox.push("first")
    with sandbox.under_load():
        first = sandbox.start_execution(sandbox.request("first"), name="the-first")
        sandbox.wait_for_state(first, "CheckHealth")
        second = sandbox.deploy("v1")
        assert (second.status, second.error) == ("FAILED", "LockHeld")
        assert "the-first" in second.cause
        assert sandbox.record(second.name)["outcome"] == "refused"
        assert sandbox.wait(first).succeeded
    assert sandbox.answer()["X-Version"] == "first"


@pytest.mark.parametrize("before", ["ShiftTraffic", "WaitForBake"])
def test_05_traffic_changed_by_another_hand_is_not_overwritten(
    sandbox: Running, before: str
) -> None:
    sandbox.push(f"changed-{before.lower()}")
    live = sandbox.live()
    idle = "green" if live == "blue" else "blue"
    theirs = {live: 70, idle: 0}
    with sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request(f"changed-{before.lower()}"))
        sandbox.wait_for_state(arn, "CheckHealth" if before == "ShiftTraffic" else "WaitForBake")
        sandbox.set_weights(theirs)
        ended = sandbox.wait(arn)
    assert (ended.status, ended.error) == ("FAILED", "TrafficChanged")
    assert f"{live} 70" in ended.cause
    assert sandbox.weights() == theirs
    assert sandbox.record(ended.name)["outcome"] == "traffic_left"
    assert sandbox.counts()[idle] == (0, 0)
    assert "held" not in sandbox.lock()
    sandbox.set_weights({live: 100, idle: 0})


def test_05_traffic_split_by_others_onto_the_new_colour_keeps_both_up(sandbox: Running) -> None:
    sandbox.push("split")
    live = sandbox.live()
    idle = "green" if live == "blue" else "blue"
    with sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request("split"))
        sandbox.wait_for_state(arn, "WaitForBake")
        sandbox.set_weights({live: 50, idle: 50})
        ended = sandbox.wait(arn)
        assert ended.error == "TrafficChanged"
        assert sandbox.weights() == {live: 50, idle: 50}
        assert all(running > 0 for _, running in sandbox.counts().values())
        refused = sandbox.deploy("v1")
        assert refused.error == "DeploymentRefused"
        assert "split" in refused.cause
        sandbox.set_weights({live: 100, idle: 0})
    sandbox.push("after-split")
    assert sandbox.deploy("after-split").succeeded
