"""RollBack with a proxy on every host: all of them end on the old colour, whatever was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bluegreen.deployment import parse
from bluegreen.errors import (
    AwsRefused,
    AwsUnavailable,
    HostNotReady,
    HostNotSwitched,
    LockLost,
    RollBackIncomplete,
)
from tests.functions.host_world import ALL_BLUE, ALL_GREEN, HostWorld
from tests.functions.world import BLUE, GREEN, START, execution_arn

LEAD, GRACE = 10, 10
# Added to the wait after a step, so that half a minute of quiet is not thirty passes.
SLOWLY = 5


def roll_back(hosts: HostWorld, data: dict[str, Any], execution: str = "d-1") -> dict[str, Any]:
    """One pass, and the wait of a state machine that takes its time between passes; what the try
    block has answered is gone.
    """
    lost = ("task_definition", "idle", "health", "shift", "drain")
    kept = {key: value for key, value in data.items() if key not in lost}
    data["rollback"] = hosts.run("roll_back", kept, execution)
    answer: dict[str, Any] = data["rollback"]
    hosts.now += answer.get("wait_seconds", 0) + (SLOWLY if "restored_at" in answer else 0)
    return answer


def until(
    hosts: HostWorld,
    data: dict[str, Any],
    over: Callable[[dict[str, Any]], bool],
    execution: str = "d-1",
) -> dict[str, Any]:
    """Passes until one is as asked; ECS obeys between them."""
    for _ in range(400):
        answer = roll_back(hosts, data, execution)
        if over(answer):
            return answer
        assert answer["status"] == "waiting"
        hosts.obeys()
    raise AssertionError(f"does not end: {answer}")


def until_restored(
    hosts: HostWorld, data: dict[str, Any], execution: str = "d-1"
) -> dict[str, Any]:
    return until(hosts, data, lambda answer: answer["status"] != "waiting", execution)


def everything(hosts: HostWorld) -> dict[str, Any]:
    services = {color: hosts.service(color) for color in (BLUE, GREEN)}
    return {
        "traffic": hosts.traffic(),
        "services": {
            color: (one["taskDefinition"], one["desiredCount"]) for color, one in services.items()
        },
        "for hosts that boot": {color: hosts.wanted[color] for color in ("blue", "green")},
    }


def staged(hosts: HostWorld) -> dict[str, Any]:
    """All hosts are ready, and a moment is set; none was told to switch."""
    data = hosts.started()
    while data.get("shift", {}).get("switch", {}).get("phase") != "set":
        data["shift"] = hosts.run("shift_traffic", data)
        hosts.now += 1
    return data


def told(hosts: HostWorld) -> dict[str, Any]:
    """All hosts were told to switch at a moment that has not come yet."""
    data = staged(hosts)
    data["shift"] = hosts.run("shift_traffic", data)
    assert data["shift"]["switch"]["phase"] == "committing"
    hosts.now += 1
    return data


def mixed(hosts: HostWorld, **state: Any) -> dict[str, Any]:
    """i-2 has not switched with the others, because it is as state says."""
    data = told(hosts)
    for name, value in state.items():
        setattr(hosts.fleet.hosts["i-2"], name, value)
    with pytest.raises(HostNotSwitched):
        hosts.until_over("shift_traffic", data)
    return data


def baking(hosts: HostWorld) -> dict[str, Any]:
    data = hosts.shifted()
    hosts.store.enter(parse(data), "baking")
    return data


@pytest.mark.parametrize("left_at", [HostWorld.plan, HostWorld.started, staged, told, baking])
def test_15_everything_is_put_back_from_wherever_it_stopped(
    hosts: HostWorld, left_at: Callable[[HostWorld], dict[str, Any]]
) -> None:
    before = everything(hosts)
    data = left_at(hosts)
    answer = until_restored(hosts, data)
    assert (answer["status"], answer["as_before"]) == ("restored", True)
    assert everything(hosts) == before
    hosts.now += 60
    assert everything(hosts) == before, "nothing that was under way changes it later"


def test_15_called_again_after_the_end_it_changes_no_traffic(hosts: HostWorld) -> None:
    data = baking(hosts)
    until_restored(hosts, data)
    after = everything(hosts)
    del data["rollback"]
    assert until_restored(hosts, data)["as_before"]
    assert everything(hosts) == after


def test_hosts_that_agree_go_back_together_at_one_moment(hosts: HostWorld) -> None:
    data = baking(hosts)
    until(hosts, data, lambda answer: "restoring" in answer)
    at = data["rollback"]["restoring"]["at"]
    assert at == hosts.now - 1 - SLOWLY + LEAD
    assert hosts.traffic() == [ALL_GREEN] * 3
    until(hosts, data, lambda answer: "restoring" not in answer)
    assert hosts.traffic() == [ALL_BLUE] * 3
    assert {host.switched_at for host in hosts.hosts} == {at}


def test_hosts_that_do_not_agree_go_back_at_once(hosts: HostWorld) -> None:
    data = mixed(hosts, refuses={"commit": "the disk is full"})
    assert hosts.traffic() == [ALL_BLUE, ALL_BLUE, ALL_BLUE]
    hosts.now += LEAD
    assert hosts.traffic() == [ALL_GREEN, ALL_BLUE, ALL_GREEN]
    hosts.fleet.hosts["i-2"].refuses = {}
    until(hosts, data, lambda answer: "restoring" in answer)
    assert hosts.traffic() == [ALL_BLUE] * 3
    assert until_restored(hosts, data)["as_before"]


def test_all_or_none_hosts_that_wait_for_the_moment_do_not_switch_after_it_was_called_off(
    hosts: HostWorld,
) -> None:
    """One host refuses at once; the others have ten seconds left. When RollBack looks, all are as
    before, and would not be for long.
    """
    data = mixed(hosts, refuses={"commit": "the disk is full"})
    at = data["shift"]["switch"]["at"]
    assert hosts.now < at - 1
    hosts.fleet.hosts["i-2"].refuses = {}
    until_restored(hosts, data)
    assert hosts.now > at
    assert hosts.traffic() == [ALL_BLUE] * 3
    assert all(host.switched_at is None or host.switched_at < at for host in hosts.hosts)


def test_all_or_none_a_new_colour_is_not_stopped_before_the_hosts_were_told_to_stay(
    hosts: HostWorld,
) -> None:
    data = told(hosts)
    data["deployment"]["configuration"]["drain"]["seconds"] = 0
    document = hosts.record().deployment
    assert document
    at = data["shift"]["switch"]["at"]
    while hosts.now < at + 2 * GRACE and roll_back(hosts, data)["status"] == "waiting":
        hosts.obeys()
        if ALL_GREEN in hosts.traffic():
            assert hosts.service(GREEN)["desiredCount"] == 3
    assert hosts.traffic() == [ALL_BLUE] * 3


def test_14_a_switch_that_was_only_written_down_is_not_what_hosts_read_at_their_next_boot(
    hosts: HostWorld,
) -> None:
    """The parameter was written, and then the command refused: no host has heard of it."""
    data = staged(hosts)
    hosts.fault("ssm", "SendCommand", "invalid_document")
    with pytest.raises(AwsRefused):
        hosts.run("shift_traffic", data)
    assert hosts.wanted["green"] == 100
    until_restored(hosts, data)
    assert (hosts.wanted["blue"], hosts.wanted["green"]) == (100, 0)
    assert hosts.add_host().weights == ALL_BLUE


def test_14_a_host_that_boots_while_the_others_go_back_goes_with_them(hosts: HostWorld) -> None:
    data = baking(hosts)
    until(hosts, data, lambda answer: "restoring" in answer)
    late = hosts.add_host(ALL_GREEN, answering=(BLUE, GREEN))
    assert until_restored(hosts, data)["as_before"]
    assert late.weights == ALL_BLUE
    assert hosts.traffic() == [ALL_BLUE] * 4


def test_14_a_host_that_is_booting_is_nobody_elses_traffic(hosts: HostWorld) -> None:
    data = baking(hosts)
    booting = hosts.boots()
    until(hosts, data, lambda _: hosts.traffic()[:3] == [ALL_BLUE] * 3)
    booting.restore(hosts.wanted, hosts.now)
    assert until_restored(hosts, data)["as_before"]
    assert hosts.traffic() == [ALL_BLUE] * 4


# Hosts that do not answer


def test_17_a_silent_host_does_not_keep_the_others_from_going_back(hosts: HostWorld) -> None:
    data = mixed(hosts, silent=True)
    until(hosts, data, lambda _: hosts.traffic() == [ALL_BLUE] * 3)
    assert hosts.service(GREEN)["desiredCount"] == 3, "the silent one may send there"


def test_17_a_silent_host_is_waited_for_and_named_at_the_deadline(hosts: HostWorld) -> None:
    """It has switched with the others, and then nothing was heard of it."""
    data = baking(hosts)
    silent = hosts.hosts[1]
    silent.silent = True
    data["deployment"]["configuration"]["health"]["deadline_seconds"] = 20
    data["deployment"]["configuration"]["drain"]["deadline_seconds"] = 30
    began = hosts.now
    with pytest.raises(RollBackIncomplete, match="host i-2 does not say what it does: SSM says"):
        until_restored(hosts, data)
    assert hosts.now - began >= 30
    assert hosts.traffic() == [ALL_BLUE, ALL_GREEN, ALL_BLUE]
    assert hosts.service(GREEN)["desiredCount"] == 3, "it still serves that host's users"
    data |= {"failure": {"Error": "HostNotSwitched", "Cause": "why"}}
    data["rollback_failure"] = {"Error": "RollBackIncomplete", "Cause": "host i-2 does not say"}
    assert hosts.run("record_outcome", data)["outcome"] == "rollback_incomplete"
    assert hosts.lock.held, "nobody deploys to hosts that differ"


def test_17_a_silent_host_that_comes_back_goes_back_too(hosts: HostWorld) -> None:
    data = baking(hosts)
    silent = hosts.hosts[1]
    silent.silent = True
    hosts.fleet.at(hosts.now + 40, lambda _: setattr(silent, "silent", False))
    assert until_restored(hosts, data)["as_before"]
    assert hosts.traffic() == [ALL_BLUE] * 3


def test_17_a_silent_host_that_ec2_ends_is_not_waited_for_any_more(hosts: HostWorld) -> None:
    data = baking(hosts)
    silent = hosts.hosts[1]
    silent.silent = True
    hosts.fleet.at(hosts.now + 20, lambda _: hosts.ends(silent))
    assert until_restored(hosts, data)["as_before"]
    assert hosts.traffic() == [ALL_BLUE] * 2


@pytest.mark.parametrize("left_at", [HostWorld.plan, HostWorld.started, staged])
def test_17_a_silent_host_does_not_matter_when_no_host_was_ever_told(
    hosts: HostWorld, left_at: Callable[[HostWorld], dict[str, Any]]
) -> None:
    data = left_at(hosts)
    wanted, began = hosts.wanted, hosts.now
    hosts.hosts[1].silent = True
    assert until_restored(hosts, data)["as_before"]
    assert hosts.now < began + 60
    assert (hosts.wanted, hosts.fleet.sent("commit")) == (wanted, [])
    assert hosts.service(GREEN)["desiredCount"] == 0


def test_19_a_host_whose_proxy_has_ended_goes_back_on_disk_and_the_others_at_once(
    hosts: HostWorld,
) -> None:
    """It serves neither colour; when its proxy starts, it starts with what is on disk."""
    data = mixed(hosts, running="nginx does not run")
    hosts.now += LEAD
    assert hosts.traffic() == [ALL_GREEN] * 3, "it had come so far, on disk"
    began = hosts.now
    until(hosts, data, lambda _: hosts.traffic() == [ALL_BLUE] * 3)
    assert hosts.now < began + 30
    assert until_restored(hosts, data)["as_before"]


def test_a_host_that_refuses_to_go_back_is_told_again(hosts: HostWorld) -> None:
    data = baking(hosts)
    host = hosts.hosts[1]
    host.refuses = {"commit": "the disk is full"}
    answer = until(hosts, data, lambda answer: bool(answer.get("refused")))
    assert answer["refused"].startswith("host i-2: the disk is full; ")
    host.refuses = {}
    assert until_restored(hosts, data)["as_before"]
    assert hosts.traffic() == [ALL_BLUE] * 3


def test_a_host_that_refuses_for_good_is_named_at_the_deadline(hosts: HostWorld) -> None:
    data = baking(hosts)
    data["deployment"]["configuration"]["health"]["deadline_seconds"] = 20
    data["deployment"]["configuration"]["drain"]["deadline_seconds"] = 30
    hosts.hosts[1].refuses = {"commit": "the disk is full"}
    with pytest.raises(
        RollBackIncomplete, match="the traffic does not go back: host i-2: the disk is full"
    ):
        until_restored(hosts, data)
    assert hosts.traffic() == [ALL_BLUE, ALL_GREEN, ALL_BLUE]
    assert hosts.service(GREEN)["desiredCount"] == 3


def test_17_a_put_back_that_ssm_lists_late_is_not_sent_again(hosts: HostWorld) -> None:
    data = baking(hosts)
    hosts.fleet.listed_after = 2
    before = len(hosts.fleet.sent("commit"))
    until_restored(hosts, data)
    assert len(hosts.fleet.sent("commit")) == before + 1


# The old colour comes first


def by_hand(hosts: HostWorld) -> dict[str, Any]:
    """d-1 has succeeded, its old colour has ended, and a person asks to undo it."""
    data = hosts.baked()
    hosts.scale(BLUE, 0)
    hosts.runs(BLUE, on=[])
    hosts.store.release("web", hosts.lock.fencing)
    hosts.store.close("d-1", "succeeded", "live", hosts.now, data["deployment"]["fencing"])
    asked = {"request": {"action": "rollback", "deployment_id": "d-1"}}
    return hosts.run("plan_roll_back", asked, "undo")


def by_hand_once(hosts: HostWorld, data: dict[str, Any]) -> dict[str, Any]:
    """Passes until the hosts have been looked at; ECS does nothing meanwhile."""
    while True:
        answer = roll_back(hosts, data, "undo")
        if "asked" not in answer:
            return answer


def test_15_by_hand_the_old_colour_answers_on_every_host_before_any_goes_back(
    hosts: HostWorld,
) -> None:
    data = by_hand(hosts)
    assert by_hand_once(hosts, data)["reason"] == "starting 3 tasks of the old colour"
    assert hosts.service(BLUE)["desiredCount"] == 3
    hosts.runs(BLUE, on=hosts.hosts[:2])
    assert by_hand_once(hosts, data)["reason"] == "2 of 3 targets of the old colour healthy"
    assert hosts.traffic() == [ALL_GREEN] * 3
    hosts.runs(BLUE)
    assert until_restored(hosts, data, "undo")["as_before"]
    assert hosts.traffic() == [ALL_BLUE] * 3


def test_15_by_hand_a_host_that_has_come_since_gets_a_task_of_the_old_colour_too(
    hosts: HostWorld,
) -> None:
    data = by_hand(hosts)
    hosts.add_host(answering=(GREEN,))
    assert by_hand_once(hosts, data)["reason"] == "starting 4 tasks of the old colour"


def test_17_by_hand_one_host_that_serves_nobody_does_not_keep_the_others(hosts: HostWorld) -> None:
    """Waiting for it would leave everybody on what was to be undone."""
    data = by_hand(hosts)
    hosts.hosts[1].running = "nginx does not run"
    by_hand_once(hosts, data)
    hosts.runs(BLUE)
    until(hosts, data, lambda _: hosts.traffic() == [ALL_BLUE] * 3, "undo")


def test_17_by_hand_a_task_that_cannot_start_on_one_host_does_not_keep_the_others(
    hosts: HostWorld,
) -> None:
    """ECS takes the instance for one that is there, and its task is pending for ever."""
    data = by_hand(hosts)
    hosts.hosts[1].running = "nginx does not run"
    by_hand_once(hosts, data)
    hosts.backend.services["web:web-blue"].running_count = 2
    hosts.runs(BLUE, on=[hosts.hosts[0], hosts.hosts[2]])
    assert by_hand_once(hosts, data)["reason"] == "traffic back to blue 100, green 0"


def test_15_by_hand_with_dynamic_ports_the_old_colour_gets_all_its_tasks_first(
    hosts: HostWorld,
) -> None:
    """A host answers with one of its tasks; the traffic is for all of them."""
    hosts.makes_ports_dynamic()
    hosts.scale(BLUE, 6)
    data = by_hand(hosts)
    assert by_hand_once(hosts, data)["reason"] == "starting 6 tasks of the old colour"
    hosts.runs(BLUE)
    hosts.backend.services["web:web-blue"].running_count = 3
    assert by_hand_once(hosts, data)["reason"] == "the old colour has fewer tasks than the new one"
    assert hosts.traffic() == [ALL_GREEN] * 3
    hosts.backend.services["web:web-blue"].running_count = 6
    assert by_hand_once(hosts, data)["reason"] == "traffic back to blue 100, green 0"


def test_15_requests_in_flight_end_before_the_new_colour_does(hosts: HostWorld) -> None:
    data = baking(hosts)
    until(hosts, data, lambda _: hosts.traffic() == [ALL_BLUE] * 3)
    back = hosts.now
    until(hosts, data, lambda _: hosts.service(GREEN)["desiredCount"] == 0)
    assert hosts.now >= back + 30


def test_05_weights_of_somebody_else_are_left_on_all_hosts(hosts: HostWorld) -> None:
    data = baking(hosts)
    hosts.hosts[1].weights = {BLUE: 40, GREEN: 60}
    answer = until_restored(hosts, data)
    assert (answer["status"], answer["as_before"]) == ("restored", False)
    assert "changed by somebody else (blue 40, green 60)" in answer["reason"]
    assert hosts.traffic() == [ALL_GREEN, {BLUE: 40, GREEN: 60}, ALL_GREEN]
    assert hosts.service(GREEN)["desiredCount"] == 3


def test_with_dynamic_ports_hosts_keep_the_tasks_of_the_new_colour_that_they_know(
    hosts: HostWorld,
) -> None:
    hosts.makes_ports_dynamic()
    data = baking(hosts)
    assert hosts.wanted["tasks"] == {"blue": "web:2", "green": "web:3"}
    until_restored(hosts, data)
    order = hosts.fleet.sent("commit")[-1].order
    assert (order["BlueTask"], order["GreenTask"]) == ("web:2", "")
    assert hosts.wanted["tasks"] == {"blue": "web:2"}


# Called again


@pytest.mark.parametrize("operation", ["PutParameter", "SendCommand", "ListCommandInvocations"])
def test_a_fault_in_the_middle_is_gone_through_again(hosts: HostWorld, operation: str) -> None:
    before = everything(hosts)
    data = baking(hosts)
    hosts.fault("ssm", operation, "error500")
    with pytest.raises(AwsUnavailable):
        until_restored(hosts, data)
    assert until_restored(hosts, data)["as_before"]
    assert everything(hosts) == before


def test_a_lost_answer_of_the_command_tells_the_hosts_twice(hosts: HostWorld) -> None:
    data = baking(hosts)
    roll_back(hosts, data)
    hosts.fault("ssm", "SendCommand", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        roll_back(hosts, data)
    hosts.now += 2
    assert until_restored(hosts, data)["as_before"]
    assert hosts.traffic() == [ALL_BLUE] * 3


def test_a_rollback_that_lost_its_lock_tells_no_host(hosts: HostWorld) -> None:
    data = baking(hosts)
    wanted = hosts.wanted
    hosts.store.take_over(hosts.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        roll_back(hosts, data)
    assert hosts.traffic() == [ALL_GREEN] * 3
    assert hosts.wanted == wanted


def test_22_the_cause_names_the_host_and_says_that_all_is_as_before(hosts: HostWorld) -> None:
    data = hosts.started()
    hosts.hosts[1].refuses = {"stage": "nginx -t: unexpected end of file"}
    with pytest.raises(HostNotReady) as failed:
        hosts.until_over("shift_traffic", data)
    until_restored(hosts, data)
    data["failure"] = {"Error": "HostNotReady", "Cause": str(failed.value)}
    answer = hosts.run("record_outcome", data)
    assert (answer["outcome"], answer["error"]) == ("rolled_back", "HostNotReady")
    assert answer["cause"] == (
        "host i-2: nginx -t: unexpected end of file; no traffic was moved\n"
        "all as before: blue 100, green 0"
    )
    assert not hosts.lock.held
