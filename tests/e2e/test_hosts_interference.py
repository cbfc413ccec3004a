"""Other hands on the hosts: what they have changed is found, said and left; what they send is not
taken.
"""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError

from tests.e2e.running_hosts import RunningHosts, assert_failed, other

NASTY = ["'", '"', ";id", "$(id)", "`id`", "\nid", "../web", " --port 1", "|id", "&"]


@pytest.mark.parametrize(
    ("moment", "error"), [("health", "HostNotReady"), ("bake", "TrafficChanged")]
)
def test_05_weights_changed_on_one_host_are_not_overwritten(
    hosts: RunningHosts, moment: str, error: str
) -> None:
    """Before the switch the host refuses to take part; after it the bake finds them."""
    live = hosts.live()
    changed = hosts.numbers()[1]
    theirs = {live: 70, other(live): 30}
    tag = f"changed-{moment}"
    hosts.push(tag)
    with hosts.configured({"bake.seconds": 30, "probe.timeout_seconds": 20}):
        arn = hosts.start_execution(hosts.request(tag), name=tag)
        hosts.wait_for_state(arn, "CheckHealth")
        if moment == "bake":
            hosts.wait_for(lambda: hosts.record(tag)["phase"] == "baking")
        hosts.set_weights(theirs, host=changed)
        ended = hosts.wait(arn)
    assert_failed(ended, error, hosts.instance(changed), "changed by some")
    assert hosts.record(tag)["outcome"] == "traffic_left"
    assert hosts.weights_by_host()[changed] == theirs
    assert all(running > 0 for _, running in hosts.counts().values()), "both are in use"
    assert "held" not in hosts.lock()


def test_hosts_that_disagree_are_not_deployed_to(hosts: RunningHosts) -> None:
    live = hosts.live()
    hosts.set_weights({live: 70, other(live): 30}, host=hosts.numbers()[1])
    before, counts = hosts.hosts(), hosts.counts()
    hosts.push("disagree")
    ended = hosts.deploy("disagree")
    assert_failed(ended, "DeploymentRefused", "do not agree", f"{live} 70")
    assert hosts.record(ended.name)["outcome"] == "refused"
    assert (hosts.hosts(), hosts.counts()) == (before, counts)
    assert "held" not in hosts.lock()


def test_17_a_command_that_is_delivered_late_is_refused(hosts: RunningHosts) -> None:
    before, live = hosts.hosts(), hosts.live()
    host = before[0]
    with hosts.faults("host", kind="silent", host=host["host"]):
        at = time.time()
        command = hosts.send_command("Commit", host["instance"], _order(live, at))
        time.sleep(1.5)
    status, said = hosts.wait_for_command(command, host["instance"])
    assert status == "Failed"
    assert "too late by" in said["error"]
    assert hosts.hosts() == before


def test_what_could_be_code_is_refused_by_the_documents(hosts: RunningHosts) -> None:
    """A document puts its parameters into a shell script: only its patterns stand between."""
    before, live = hosts.hosts(), hosts.live()
    sent = len(hosts.client("ssm").list_commands()["Commands"])
    good = _order(live, time.time())
    names = {
        "Report": ["Service", "BlueTask", "GreenTask"],
        "Stage": [name for name in good if name not in ("At", "NotAfter")],
        "Commit": list(good),
        "Check": ["Service"],
    }
    for document, parameters in names.items():
        for name in parameters:
            for nasty in NASTY:
                given = {one: good[one] for one in parameters} | {name: good[name] + nasty}
                with pytest.raises(ClientError, match=f"parameter {name} does not match"):
                    hosts.send_command(document, before[0]["instance"], given)
    assert len(hosts.client("ssm").list_commands()["Commands"]) == sent
    assert hosts.hosts() == before


def test_what_could_be_code_is_refused_before_anything_is_sent(hosts: RunningHosts) -> None:
    sent = len(hosts.client("ssm").list_commands()["Commands"])
    for nasty in NASTY:
        request = {"action": "deploy", "service": f"web{nasty}", "images": {"web": "v1"}}
        ended = hosts.wait(hosts.start_execution(request))
        assert_failed(ended, "InvalidRequest", "service")
    assert len(hosts.client("ssm").list_commands()["Commands"]) == sent


def _order(color: str, at: float) -> dict[str, str]:
    """Parameters of a commit that changes nothing."""
    return {
        "Service": "web",
        "Generation": str(int(at * 1000)),
        "Blue": "100" if color == "blue" else "0",
        "Green": "100" if color == "green" else "0",
        "Expected": "100:0,0:100",
        "At": f"{at:.3f}",
        "NotAfter": f"{at + 1:.3f}",
        "BlueTask": "web:1",
        "GreenTask": "web:2",
    }
