"""The old colour kept warm: an instant way back, and no obstacle for the next deployment."""

from __future__ import annotations

from tests.e2e.running import Running

WARM = {"drain.keep_warm_seconds": 10}


def test_back_while_the_old_colour_is_warm_moves_traffic_at_once(sandbox: Running) -> None:
    before = sandbox.world()
    version = sandbox.answer()["X-Version"]
    sandbox.push("warm-regretted")
    with sandbox.configured(WARM), sandbox.under_load():
        deployment = sandbox.start_execution(sandbox.request("warm-regretted"), name="warm-1")
        sandbox.wait_until_warm()
        assert sandbox.answer()["X-Version"] == "warm-regretted"
        back = sandbox.roll_back("warm-1")
        assert back.succeeded, back.cause
        assert sandbox.answer()["X-Version"] == version
        # The deployment's own execution wakes up later, and must not call it a success.
        ended = sandbox.wait(deployment)
        assert (ended.status, ended.error) == ("FAILED", "RolledBack")
    assert sandbox.record("warm-1")["outcome"] == "rolled_back"
    assert sandbox.world() == before


def test_the_next_deployment_takes_a_warm_lock_over(sandbox: Running) -> None:
    sandbox.push("warm-first")
    sandbox.push("warm-second")
    with sandbox.configured({"drain.keep_warm_seconds": 12}), sandbox.under_load():
        first = sandbox.start_execution(sandbox.request("warm-first"), name="warm-2")
        sandbox.wait_until_warm()
        second = sandbox.start_execution(sandbox.request("warm-second"), name="warm-3")
        assert sandbox.wait(first).succeeded
        assert sandbox.wait(second).succeeded
        assert sandbox.answer()["X-Version"] == "warm-second"
    assert sandbox.record("warm-2")["outcome"] == "succeeded"
    assert "taken the old colour over" in sandbox.record("warm-2")["reason"]
    live = sandbox.live()
    assert sandbox.counts() == {live: (2, 2), "green" if live == "blue" else "blue": (0, 0)}


def test_23_stopped_while_warm_the_old_colour_still_ends(sandbox: Running) -> None:
    sandbox.push("warm-stopped")
    with sandbox.configured(WARM), sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request("warm-stopped"), name="warm-4")
        sandbox.wait_until_warm()
    with sandbox.under_load():
        sandbox.stop_execution(arn)
        sandbox.wait_until_unlocked(seconds=60)
    live = sandbox.live()
    assert sandbox.answer()["X-Version"] == "warm-stopped"
    assert sandbox.counts() == {live: (2, 2), "green" if live == "blue" else "blue": (0, 0)}
    assert sandbox.record("warm-4")["outcome"] == "succeeded"
