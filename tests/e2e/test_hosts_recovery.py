"""Hosts, when an execution is stopped or AWS calls fail: all are on one colour in the end."""

from __future__ import annotations

import pytest

from tests.e2e.running_hosts import RunningHosts, other

# What only deployments on hosts call; test_api_errors.py has the rest.
CALLS = [
    "ec2:DescribeInstances",
    "ssm:DescribeInstanceInformation",
    "ssm:SendCommand",
    "ssm:ListCommandInvocations",
    "ssm:PutParameter",
]


@pytest.mark.parametrize("state", ["WaitForPlan", "WaitForShift", "WaitForBake", "WaitForDrain"])
def test_23_stopped_by_hand(hosts: RunningHosts, state: str) -> None:
    before, old = hosts.world(), hosts.live()
    tag = f"stopped-{state.lower()}"
    hosts.push(tag)
    with hosts.under_load():
        arn = hosts.start_execution(hosts.request(tag), name=tag)
        hosts.wait_for_state(arn, state)
        hosts.stop_execution(arn)
        assert hosts.wait(arn).status == "ABORTED"
        hosts.sweep()
        hosts.wait_until_unlocked()
    if state == "WaitForDrain":
        hosts.assert_all_on(other(old), tag)
        assert hosts.record(tag)["outcome"] == "succeeded"
    else:
        assert hosts.world() == before
        if state != "WaitForPlan":
            assert hosts.record(tag)["outcome"] == "rolled_back"


def test_23_stopped_between_the_command_to_switch_and_its_moment(hosts: RunningHosts) -> None:
    """The hosts know the moment already: nobody but the recovery can keep them from it."""
    before, wanted = hosts.world(), hosts.wanted()
    hosts.push("stopped-told")
    with hosts.configured({"router.lead_seconds": 4}), hosts.under_load():
        arn = hosts.start_execution(hosts.request("stopped-told"), name="stopped-told")
        hosts.wait_for(lambda: hosts.wanted() != wanted)
        hosts.stop_execution(arn)
        assert hosts.weights_by_host() == before["weights"]
        hosts.wait_until_unlocked()
    assert hosts.world() == before
    assert hosts.wanted()["weights"] == hosts.weights()
    assert hosts.record("stopped-told")["outcome"] == "rolled_back"


@pytest.mark.parametrize("kind", ["throttle", "error500", "lost_answer"])
def test_21_each_call_of_a_deployment_fails_once(hosts: RunningHosts, kind: str) -> None:
    before, old, revisions = hosts.world(), hosts.live(), hosts.revisions()
    tag = f"deploy-{kind.replace('_', '-')}"
    hosts.push(tag)
    for operation in CALLS:
        hosts.fault("api_error", operation=operation, kind=kind, each_once=True)
    with hosts.under_load():
        ended = hosts.deploy(tag)
        hosts.wait_until_unlocked()
        hosts.assert_faults_hit()
    assert len(set(hosts.revisions()) - set(revisions)) <= 1
    if ended.succeeded:
        hosts.assert_all_on(other(old), tag)
    else:
        assert hosts.world() == before
