"""ShiftTraffic with a proxy on every host: all of them switch at one moment, or none does."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.errors import (
    AwsRefused,
    AwsUnavailable,
    HostNotReady,
    HostNotSwitched,
    LockLost,
)
from runtime import clients
from tests.functions.host_world import ALL_BLUE, ALL_GREEN, HostWorld
from tests.functions.world import BLUE, GREEN, START, execution_arn


@pytest.fixture
def data(hosts: HostWorld) -> dict[str, Any]:
    return hosts.started()


def one_pass(hosts: HostWorld, data: dict[str, Any]) -> dict[str, Any]:
    """One pass, and then the wait of the state machine."""
    data["shift"] = hosts.run("shift_traffic", data)
    answer: dict[str, Any] = data["shift"]
    hosts.now += answer["wait_seconds"]
    return answer


def shift(hosts: HostWorld, data: dict[str, Any]) -> dict[str, Any]:
    return hosts.until_over("shift_traffic", data)


def until_told(hosts: HostWorld, data: dict[str, Any]) -> float:
    """Passes until all hosts have been told, without the wait after that; the moment set."""
    while data.get("shift", {}).get("switch", {}).get("phase") != "set":
        one_pass(hosts, data)
    data["shift"] = hosts.run("shift_traffic", data)
    assert data["shift"]["switch"]["phase"] == "committing"
    return float(data["shift"]["switch"]["at"])


def test_hosts_get_ready_a_moment_is_set_they_are_told_and_have_switched(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    asked = one_pass(hosts, data)
    assert (asked["status"], asked["reason"]) == ("waiting", "3 hosts get ready; asking")
    ready = one_pass(hosts, data)
    assert ready["reason"] == "all hosts are ready"
    assert (hosts.fleet.sent("commit"), hosts.record().intents) == ([], [])
    told = one_pass(hosts, data)
    assert told["reason"] == "3 hosts switch at a set moment"
    assert told["switch"]["at"] == ready["switch"]["at"] == hosts.now, "nothing to see before"
    assert told["wait_seconds"] == 10
    moment = hosts.now
    assert one_pass(hosts, data) == {
        "status": "shifted",
        "generation": told["switch"]["generation"],
        "reason": "3 of 3 hosts have switched, within 0.0 ms of each other",
        "step": 0,
        "percent": 100,
        "weights": {"green": 100, "blue": 0},
        "began_at": moment,
        "shifted_at": moment,
        "proved_at": None,
        "wait_seconds": 1,
    }
    assert hosts.traffic() == [ALL_GREEN] * 3


def test_no_host_switches_before_its_moment(hosts: HostWorld, data: dict[str, Any]) -> None:
    at = until_told(hosts, data)
    hosts.now = at - 0.001
    assert hosts.traffic() == [ALL_BLUE] * 3
    hosts.now = at
    assert hosts.traffic() == [ALL_GREEN] * 3


def test_all_hosts_switch_at_the_same_moment(hosts: HostWorld, data: dict[str, Any]) -> None:
    shift(hosts, data)
    assert len({host.switched_at for host in hosts.hosts}) == 1
    assert len({host.generation for host in hosts.hosts}) == 1


def test_14_the_new_weights_are_for_hosts_to_read_before_any_host_is_told(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """One that boots meanwhile either reads them, or is among those that the next look shows."""
    told: list[int] = []
    hosts.meanwhile("ssm", "PutParameter", lambda: told.append(len(hosts.fleet.sent("commit"))))
    at = until_told(hosts, data)
    assert told == [0], "no host had been told"
    assert hosts.wanted == {
        "generation": data["shift"]["switch"]["generation"],
        "blue": 0,
        "green": 100,
        "at": at,
        "tasks": {},
    }
    assert hosts.record().intents == [{GREEN: 100, BLUE: 0}]


def test_nothing_is_for_hosts_to_read_before_all_are_ready(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    before = hosts.wanted
    hosts.hosts[1].silent = True
    one_pass(hosts, data)
    one_pass(hosts, data)
    assert hosts.wanted == before
    assert hosts.record().intents == []


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"refuses": {"stage": "nginx -t: unexpected end of file"}}, "nginx -t: unexpected end"),
        ({"running": "nginx does not run"}, "nginx does not run"),
        ({"weights": {BLUE: 50, GREEN: 50}}, "the traffic is 50:50 (blue:green), not "),
        ({"answers": {BLUE: "", GREEN: "status 503"}}, "green does not answer on this host: sta"),
        ({"generation": 10**14}, "generation 18000000"),
    ],
    ids=str,
)
def test_one_host_that_cannot_switch_leaves_all_as_they_are(
    hosts: HostWorld, data: dict[str, Any], state: dict[str, Any], says: str
) -> None:
    for name, value in state.items():
        setattr(hosts.hosts[1], name, value)
    before, wanted = hosts.traffic(), hosts.wanted
    with pytest.raises(HostNotReady) as failed:
        shift(hosts, data)
    assert str(failed.value).startswith(f"host i-2: {says}")
    assert str(failed.value).endswith("; no traffic was moved")
    assert hosts.traffic() == before
    assert (hosts.wanted, hosts.record().intents) == (wanted, [])


@pytest.mark.parametrize("state", [{"silent": True}, {"registered": False}], ids=str)
def test_17_a_host_that_does_not_answer_is_named_when_its_time_is_over(
    hosts: HostWorld, data: dict[str, Any], state: dict[str, Any]
) -> None:
    data["deployment"]["configuration"]["router"]["answer_seconds"] = 8
    for name, value in state.items():
        setattr(hosts.hosts[1], name, value)
    began = hosts.now
    with pytest.raises(HostNotReady, match=r"no answer within 8 s: host i-2: .*; no traf"):
        shift(hosts, data)
    assert began + 8 <= hosts.now < began + 12
    assert hosts.traffic() == [ALL_BLUE] * 3


def test_17_a_host_whose_command_was_lost_is_asked_again_and_switches_with_the_others(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """Its agent takes nothing for half a minute: SSM gives the command up, and it comes back."""
    host = hosts.hosts[1]
    host.silent = True
    hosts.fleet.at(hosts.now + 32, lambda _: setattr(host, "silent", False))
    assert shift(hosts, data)["status"] == "shifted"
    assert hosts.traffic() == [ALL_GREEN] * 3
    assert len({one.switched_at for one in hosts.hosts}) == 1


def test_17_commands_that_ssm_lists_late_are_neither_sent_again_nor_taken_for_failed(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    hosts.fleet.listed_after = 2
    data["deployment"]["configuration"]["router"]["lead_seconds"] = 1
    assert shift(hosts, data)["status"] == "shifted"
    assert (len(hosts.fleet.sent("stage")), len(hosts.fleet.sent("commit"))) == (1, 1)


def test_14_a_host_that_appears_while_the_others_get_ready_does_not_hold_them_up(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """It is switched when CheckBake finds it; a fleet that grows must not keep all waiting."""
    one_pass(hosts, data)
    newcomer = hosts.add_host(answering=(BLUE, GREEN))
    shift(hosts, data)
    assert hosts.traffic() == [ALL_GREEN, ALL_GREEN, ALL_GREEN, ALL_BLUE]
    answer = hosts.look("check_bake", data)
    assert answer["status"] == "outgrown"
    hosts.until_over("start_idle_color", data)
    hosts.places_tasks(data)
    hosts.until_over("check_health", data)
    shift(hosts, data)
    assert newcomer.weights == ALL_GREEN


def test_14_a_host_that_boots_after_they_were_told_reads_the_new_weights(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    until_told(hosts, data)
    newcomer = hosts.add_host(answering=(BLUE, GREEN))
    shift(hosts, data)
    assert newcomer.weights == ALL_GREEN
    assert newcomer.told == []


def test_17_a_host_that_ends_before_the_others_are_told_is_not_waited_for(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    one_pass(hosts, data)
    hosts.ends(hosts.hosts[1])
    assert shift(hosts, data)["reason"].startswith("2 of 2 hosts have switched")
    assert hosts.traffic() == [ALL_GREEN] * 2


def test_17_a_host_that_ends_after_it_was_told_is_not_waited_for(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """Its command stays pending for ever."""
    until_told(hosts, data)
    hosts.ends(hosts.hosts[1])
    assert shift(hosts, data)["status"] == "shifted"
    assert hosts.traffic() == [ALL_GREEN] * 2


def test_a_host_that_is_emptied_and_cannot_switch_is_left_out(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    emptied = hosts.hosts[1]
    hosts.empties(emptied)
    emptied.answers = dict.fromkeys((BLUE, GREEN), "connection refused")
    assert shift(hosts, data)["reason"].startswith("2 of 2 hosts")
    assert hosts.traffic() == [ALL_GREEN, ALL_BLUE, ALL_GREEN]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"refuses": {"commit": "too late by 2.100 s"}}, "host i-2: too late by 2.100 s; "),
        ({"silent": True}, "host i-2: SSM says "),
        ({"running": "nginx does not run"}, r"host i-2: generation .* is on disk, but nginx does"),
    ],
    ids=str,
)
def test_a_host_that_does_not_switch_with_the_others_is_named(
    hosts: HostWorld, data: dict[str, Any], state: dict[str, Any], says: str
) -> None:
    until_told(hosts, data)
    for name, value in state.items():
        setattr(hosts.fleet.hosts["i-2"], name, value)
    with pytest.raises(HostNotSwitched, match=says):
        shift(hosts, data)


@pytest.mark.parametrize("state", [{"registered": False}, {"tagged": False}], ids=str)
def test_17_a_host_that_can_no_longer_be_told_is_named_and_the_others_are_told(
    hosts: HostWorld, data: dict[str, Any], state: dict[str, Any]
) -> None:
    """SendCommand refuses all hosts for it; they are told one by one, and RollBack undoes that."""
    data["deployment"]["configuration"]["router"]["lead_seconds"] = 1
    one_pass(hosts, data)
    one_pass(hosts, data)
    for name, value in state.items():
        setattr(hosts.fleet.hosts["i-2"], name, value)
    with pytest.raises(HostNotSwitched, match="host i-2: SSM does not list the command yet; 2 of"):
        shift(hosts, data)
    assert hosts.traffic() == [ALL_GREEN, ALL_BLUE, ALL_GREEN]


def test_50_hosts_are_a_command_and_more_are_more(hosts: HostWorld) -> None:
    for _ in range(57):
        hosts.add_host()
    hosts.scale(BLUE, 60)
    data = hosts.plan()
    data["task_definition"] = hosts.run("register_task_definition", data)
    hosts.until_over("start_idle_color", data)
    assert data["idle"]["desired_count"] == 60
    hosts.runs(GREEN)
    assert shift(hosts, data)["reason"].startswith("60 of 60 hosts have switched")
    assert hosts.traffic() == [ALL_GREEN] * 60
    assert len({host.switched_at for host in hosts.hosts}) == 1
    for verb in ("stage", "commit"):
        told = [list(command.invocations) for command in hosts.fleet.sent(verb)]
        assert [len(ids) for ids in told] == [50, 10]
        assert len({one for ids in told for one in ids}) == 60


# Called again


def test_a_lost_answer_of_the_first_command_makes_the_hosts_ready_twice(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    hosts.fault("ssm", "SendCommand", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        hosts.run("shift_traffic", data)
    hosts.now += 2
    assert shift(hosts, data)["status"] == "shifted"
    assert hosts.traffic() == [ALL_GREEN] * 3


def test_a_lost_answer_of_the_switch_itself_switches_all_at_the_moment_that_was_set(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """Half of a fleet may have been told. The same generation is told again, and the moment."""
    one_pass(hosts, data)
    at = one_pass(hosts, data)["switch"]["at"]
    hosts.fault("ssm", "SendCommand", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        hosts.run("shift_traffic", data)
    hosts.now += 3
    assert shift(hosts, data)["status"] == "shifted"
    assert hosts.traffic() == [ALL_GREEN] * 3
    assert [host.switched_at for host in hosts.hosts] == [at] * 3
    assert len({host.generation for host in hosts.hosts}) == 1


def test_a_fault_between_the_parameter_and_the_command_is_gone_through_again(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    one_pass(hosts, data)
    at = one_pass(hosts, data)["switch"]["at"]
    hosts.fault("ssm", "SendCommand", "throttle")
    with pytest.raises(AwsUnavailable):
        hosts.run("shift_traffic", data)
    assert hosts.wanted["green"] == 100
    hosts.now += 3
    assert shift(hosts, data)["status"] == "shifted"
    assert hosts.wanted["at"] == at
    assert [host.switched_at for host in hosts.hosts] == [at] * 3


def test_17_a_fault_that_lasts_longer_than_the_moment_is_good_for_ends_it(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """No host switches as late as that."""
    one_pass(hosts, data)
    at = one_pass(hosts, data)["switch"]["at"]
    hosts.now = at + 11
    with pytest.raises(HostNotSwitched, match="host i-1: too late by"):
        shift(hosts, data)
    assert hosts.traffic() == [ALL_BLUE] * 3


@pytest.mark.parametrize("operation", ["PutParameter", "ListCommandInvocations"])
def test_a_passing_fault_is_gone_through_again(
    hosts: HostWorld, data: dict[str, Any], operation: str
) -> None:
    one_pass(hosts, data)
    one_pass(hosts, data)
    hosts.fault("ssm", operation, "error500")
    with pytest.raises(AwsUnavailable):
        shift(hosts, data)
    assert shift(hosts, data)["status"] == "shifted"
    assert hosts.traffic() == [ALL_GREEN] * 3


def test_a_deployment_that_was_taken_over_tells_no_host(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    one_pass(hosts, data)
    one_pass(hosts, data)
    hosts.store.take_over(hosts.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        hosts.run("shift_traffic", data)
    assert hosts.fleet.sent("commit") == []
    assert hosts.wanted["green"] == 0


def test_12_scaling_is_kept_once_before_the_first_pass(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    hosts.scalable(BLUE, suspended=False)
    data["deployment"]["snapshot"]["services"]["blue"]["scaling"] = {}
    one_pass(hosts, data)
    assert hosts.suspended(BLUE)
    hosts.record_calls(("application_autoscaling", "RegisterScalableTarget"))
    shift(hosts, data)
    assert hosts.calls == []


def test_a_parameter_that_may_not_be_written_ends_it_before_any_host_is_told(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    one_pass(hosts, data)
    one_pass(hosts, data)
    hosts.fault("ssm", "PutParameter", "denied")
    with pytest.raises(AwsRefused):
        hosts.run("shift_traffic", data)
    assert hosts.fleet.sent("commit") == []
    assert hosts.traffic() == [ALL_BLUE] * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Service", "web'; reboot #"),
        ("Service", "../web"),
        ("Expected", "100:0\nreboot"),
        ("Blue", "$(reboot)"),
        ("Green", '"100"'),
        ("BlueTask", "web:1; reboot"),
        ("At", "now"),
    ],
)
def test_what_a_shell_could_misread_is_refused_by_the_document(
    hosts: HostWorld, name: str, value: str
) -> None:
    """Whatever got past the code. These are the documents that ship."""
    good = {
        "Service": "web",
        "Generation": "7",
        "Blue": "0",
        "Green": "100",
        "Expected": "100:0,none",
        "At": "1763790010.000",
        "NotAfter": "1763790020.000",
    }

    def send(order: dict[str, str]) -> None:
        clients.ssm().send_command(
            DocumentName="bluegreen-commit",
            InstanceIds=[hosts.hosts[0].instance_id],
            Parameters={key: [one] for key, one in order.items()},
            MaxConcurrency="100%",
            MaxErrors="100%",
            TimeoutSeconds=30,
        )

    send(good)
    with pytest.raises(clients.ssm().exceptions.InvalidParameters):
        send(good | {name: value})
