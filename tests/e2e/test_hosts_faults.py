"""A host that fails, at every moment of a switch: all hosts on one colour afterwards, and a cause
that says which host and why.
"""

from __future__ import annotations

import pytest

from tests.e2e.running_hosts import RunningHosts, assert_failed, other


@pytest.mark.parametrize(
    ("hosts", "kind", "reason"),
    [
        ("nginx", "cannot_stage", "No space left on device"),
        ("haproxy", "broken_configuration", "haproxy.cfg"),
    ],
    indirect=["hosts"],
)
def test_14_one_host_that_is_not_ready_keeps_all_as_they_are(
    hosts: RunningHosts, kind: str, reason: str
) -> None:
    before, generations = hosts.world(), _generations(hosts)
    _, broken, _ = hosts.numbers()
    hosts.push("not-ready")
    with hosts.under_load(), hosts.faults("host", kind=kind, host=broken):
        ended = hosts.deploy("not-ready")
        assert _generations(hosts) == generations, "a host was switched"
    assert_failed(ended, "HostNotReady", hosts.instance(broken), reason, "no traffic was moved")
    assert hosts.record(ended.name)["outcome"] == "rolled_back"
    assert hosts.world() == before
    assert "held" not in hosts.lock()


@pytest.mark.parametrize(
    ("hosts", "when"),
    [("nginx", "staged"), ("nginx", "committing"), ("haproxy", "committed")],
    indirect=["hosts"],
)
def test_17_a_host_that_is_terminated_holds_nobody_up(hosts: RunningHosts, when: str) -> None:
    """Requests in flight on it are lost, and those that the load balancer sends there until its
    health check has noticed; on every other host none is.
    """
    old = hosts.live()
    first, dying, last = hosts.numbers()
    tag = f"terminated-{when}"
    hosts.push(tag)
    with hosts.hosts_under_load(first, last):
        hosts.fault("host", kind="dies", host=dying, when=when)
        ended = hosts.deploy(tag)
    assert ended.succeeded, ended.cause
    assert hosts.numbers() == [first, last]
    hosts.assert_all_on(other(old), tag)
    assert "held" not in hosts.lock()


def test_17_a_crash_that_ec2_does_not_notice_puts_all_others_back(hosts: RunningHosts) -> None:
    old, version = hosts.live(), hosts.answer()["X-Version"]
    first, crashed, last = hosts.numbers()
    instance = hosts.instance(crashed)
    hosts.push("crashed")
    with hosts.hosts_under_load(first, last):
        hosts.fault("host", kind="dies", host=crashed, when="committing", ec2="running")
        arn = hosts.start_execution(hosts.request("crashed"))
        hosts.wait_for_state(arn, "RollBack")
        hosts.wait_for(lambda: set(hosts.colors().values()) == {old}, seconds=25)
        # It cannot say that it has not switched; its end does.
        assert hosts.lock()["held"]
        hosts.terminate(instance)
        ended = hosts.wait(arn)
    assert_failed(ended, "HostNotSwitched", instance)
    assert hosts.record(ended.name)["outcome"] == "rolled_back"
    assert hosts.weights() == {old: 100, other(old): 0}
    assert hosts.colors("X-Version") == {first: version, last: version}
    assert hosts.counts()[other(old)] == (0, 0)
    assert "held" not in hosts.lock()


def test_17_a_host_that_is_silent_from_the_start_refuses_the_deployment(
    hosts: RunningHosts,
) -> None:
    before = hosts.world()
    silent = hosts.numbers()[0]
    hosts.push("silent-now")
    with hosts.under_load(), hosts.faults("host", kind="silent", host=silent):
        ended = hosts.deploy("silent-now")
    assert_failed(ended, "DeploymentRefused", hosts.instance(silent), "does not say what it does")
    assert hosts.world() == before
    assert "held" not in hosts.lock()


def test_17_a_host_that_does_not_answer_in_time_is_not_ready(hosts: RunningHosts) -> None:
    before, generations = hosts.world(), _generations(hosts)
    silent = hosts.numbers()[0]
    hosts.push("silent-staging")
    with hosts.under_load():
        arn = hosts.start_execution(hosts.request("silent-staging"))
        hosts.wait_for_state(arn, "ShiftTraffic")
        hosts.fault("host", kind="silent", host=silent)
        ended = hosts.wait(arn)
        assert _generations(hosts) == generations, "a host was switched"
    assert_failed(ended, "HostNotReady", hosts.instance(silent), "no answer within 5 s")
    assert hosts.world() == before
    assert "held" not in hosts.lock()


def test_17_a_host_that_falls_silent_before_it_switches_is_waited_for(hosts: RunningHosts) -> None:
    """All others go back; the deployment is only over once the silent one has said what it does."""
    before = hosts.world()
    silent = hosts.numbers()[0]
    hosts.push("silent-committing")
    with hosts.configured({"drain.deadline_seconds": 30}), hosts.under_load():
        hosts.fault("host", kind="silent", host=silent, when="committing")
        arn = hosts.start_execution(hosts.request("silent-committing"))
        hosts.wait_for_state(arn, "RollBack")
        hosts.wait_for(lambda: hosts.colors() == before["colors"], seconds=25)
        ended = hosts.wait(arn)
        assert_failed(ended, "RollBackIncomplete", hosts.instance(silent))
        assert hosts.record(ended.name)["outcome"] == "rollback_incomplete"
        assert hosts.lock()["held"], "nobody may deploy on hosts that are not known"
        assert hosts.weights_by_host() == before["weights"]
        hosts.mend()
        hosts.wait_until_unlocked()
    assert hosts.record(ended.name)["outcome"] == "rolled_back"
    assert hosts.world() == before


def _generations(hosts: RunningHosts) -> dict[int, int]:
    return {host["host"]: host["generation"] for host in hosts.hosts()}
