"""CheckBake and DrainOldColor with a proxy on every host."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.errors import (
    BakeFailed,
    DrainFailed,
    HostNotReady,
    HostNotSwitched,
    IdleColorUnhealthy,
    TrafficChanged,
)
from runtime import clients
from tests.functions.host_world import ALL_BLUE, ALL_GREEN, HostWorld
from tests.functions.site import Site
from tests.functions.watched import Watched
from tests.functions.world import BLUE, GREEN

NO_TASK = "connection refused"


@pytest.fixture
def data(hosts: HostWorld) -> dict[str, Any]:
    return hosts.shifted()


def bake(hosts: HostWorld, data: dict[str, Any]) -> dict[str, Any]:
    """One look."""
    return hosts.look("check_bake", data)


def bring_in(hosts: HostWorld, data: dict[str, Any]) -> None:
    """What the state machine does after "outgrown" and "late"."""
    if data["shift"]["status"] == "outgrown":
        assert hosts.until_over("start_idle_color", data)["status"] == "started"
        hosts.places_tasks(data)
        assert bake(hosts, data)["status"] == "late"
    assert hosts.until_over("shift_traffic", data)["status"] == "shifted"


# CheckBake


def test_hosts_have_said_that_they_switched_so_the_bake_begins_at_once(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    answer = bake(hosts, data)
    assert (answer["status"], answer["proved_at"]) == ("waiting", hosts.now)
    assert answer["reason"] == "baking for another 60 s"
    assert hosts.record().phase == "baking"
    hosts.now += 60
    assert bake(hosts, data)["status"] == "baked"
    assert hosts.record().phase == "committed"


def test_01_a_probe_asks_the_load_balancer_before_the_hosts(hosts: HostWorld, site: Site) -> None:
    clients.elbv2().create_load_balancer(Name="web", Subnets=hosts.account.subnets)
    hosts.configure(
        probe={"path": "/", "header": "X-Color", "value": "{color}", "timeout_seconds": 60},
        router={"load_balancer": {"name": "web", "port": site.port}},
    )
    data = hosts.shifted()
    data["deployment"]["load_balancer_dns"] = "127.0.0.1"
    assert site.asked == [], "no host has a test listener"
    site.colors = ["blue"]
    assert bake(hosts, data)["reason"] == "the switch does not show yet"
    site.colors = ["green"]
    assert bake(hosts, data)["proved_at"] == hosts.now


def test_14_a_host_that_read_the_old_weights_is_found_and_switched(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """It replaced another one; it had read the parameter a moment before that was written."""
    proved_at = bake(hosts, data)["proved_at"]
    hosts.ends(hosts.hosts[2])
    late = hosts.add_host(ALL_BLUE, answering=(BLUE, GREEN))
    answer = bake(hosts, data)
    assert (answer["status"], answer["step"]) == ("late", 0)
    assert answer["reason"] == "i-4 came late"
    bring_in(hosts, data)
    assert hosts.traffic() == [ALL_GREEN] * 3
    assert late.generation == hosts.wanted["generation"]
    assert data["shift"]["proved_at"] == proved_at, "the bake does not begin again"
    hosts.now = proved_at + 60
    assert bake(hosts, data)["status"] == "baked"


def test_14_a_late_host_gets_its_task_before_it_is_switched(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    bake(hosts, data)
    hosts.add_host(ALL_BLUE)
    answer = bake(hosts, data)
    assert (answer["status"], answer["reason"]) == (
        "outgrown",
        "4 tasks are needed by now, green has 3",
    )
    assert hosts.traffic()[3] == ALL_BLUE, "green does not answer there yet"
    bring_in(hosts, data)
    assert hosts.service(GREEN)["desiredCount"] == 4
    assert hosts.traffic() == [ALL_GREEN] * 4
    hosts.now += 60
    assert bake(hosts, data)["status"] == "baked"


def test_14_a_late_host_is_not_switched_before_its_task_answers(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    hosts.ends(hosts.hosts[2])
    late = hosts.add_host(ALL_BLUE, answering=(BLUE,))
    hosts.now += 60
    answer = bake(hosts, data)
    assert answer["status"] == "waiting"
    assert "target i-4 is unhealthy: Host connection refused" in answer["reason"]
    late.answers[GREEN] = ""
    assert bake(hosts, data)["status"] == "late"


def test_14_a_host_that_is_booting_is_waited_for_and_reads_the_new_weights(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    bake(hosts, data)
    hosts.ends(hosts.hosts[2])
    booting = hosts.boots(answering=(BLUE, GREEN))
    hosts.now += 60
    answer = bake(hosts, data)
    assert answer["status"] == "waiting"
    assert "target i-4 is unhealthy: Host nginx does not run" in answer["reason"]
    booting.restore(hosts.wanted, hosts.now)
    assert bake(hosts, data)["status"] == "baked"
    assert hosts.traffic() == [ALL_GREEN] * 3


def test_14_a_host_that_reboots_is_not_late_with_what_it_had_before(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """It was down during the switch, and reads the new weights before its proxy starts."""
    bake(hosts, data)
    rebooting = hosts.hosts[1]
    rebooting.weights, rebooting.generation = dict(ALL_BLUE), 1
    rebooting.restored, rebooting.running = False, "nginx does not run"
    hosts.now += 60
    assert bake(hosts, data)["status"] == "waiting"
    rebooting.restore(hosts.wanted, hosts.now)
    assert bake(hosts, data)["status"] == "baked"
    assert hosts.traffic() == [ALL_GREEN] * 3


def test_14_a_late_host_on_which_nothing_starts_is_named_at_its_own_deadline(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """It serves its users with the old colour all the time: that must not last."""
    data["deployment"]["configuration"]["bake"]["seconds"] = 3600
    bake(hosts, data)
    hosts.now += 1000
    hosts.ends(hosts.hosts[2])
    hosts.add_host(ALL_BLUE, answering=(BLUE,))
    answer = bake(hosts, data)
    since = answer["late_since"]
    hosts.now = since + 595
    assert bake(hosts, data)["late_since"] == since
    hosts.now += 10
    with pytest.raises(HostNotSwitched, match="i-4 came later and still have the old weights: 2"):
        bake(hosts, data)


def test_14_a_host_that_was_late_and_is_not_any_more_gets_the_whole_time_again(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    bake(hosts, data)
    hosts.ends(hosts.hosts[2])
    late = hosts.add_host(ALL_BLUE, answering=(BLUE,))
    assert "late_since" in bake(hosts, data)
    late.answers[GREEN] = ""
    assert bake(hosts, data)["status"] == "late"
    bring_in(hosts, data)
    assert "late_since" not in bake(hosts, data)


def test_14_a_late_host_that_cannot_switch_ends_the_deployment(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    hosts.ends(hosts.hosts[2])
    late = hosts.add_host(ALL_BLUE, answering=(BLUE, GREEN))
    late.refuses = {"stage": "nginx -t: unexpected end of file"}
    bake(hosts, data)
    with pytest.raises(HostNotReady, match="host i-4: nginx -t"):
        hosts.until_over("shift_traffic", data)


def test_05_weights_of_somebody_else_on_one_host_stop_it_and_are_left(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    bake(hosts, data)
    hosts.hosts[1].weights = {BLUE: 50, GREEN: 50}
    with pytest.raises(TrafficChanged) as changed:
        bake(hosts, data)
    assert str(changed.value) == (
        "the traffic was changed by somebody else: found blue 50, green 50 on i-2, "
        "expected blue 0, green 100 or blue 100, green 0; it is left as it is"
    )
    assert hosts.hosts[1].weights == {BLUE: 50, GREEN: 50}


def test_05_hosts_that_somebody_has_put_back_are_not_taken_for_late_ones(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    bake(hosts, data)
    hosts.hosts[1].weights = ALL_BLUE
    hosts.hosts[1].generation = data["shift"]["generation"] + 1
    with pytest.raises(TrafficChanged, match="i-2: switched by somebody else after"):
        bake(hosts, data)
    assert hosts.hosts[1].weights == ALL_BLUE


def test_17_a_silent_host_is_waited_for_past_the_bake_and_then_named(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    bake(hosts, data)
    hosts.hosts[1].silent = True
    hosts.now += 61
    answer = bake(hosts, data)
    assert answer["status"] == "waiting"
    assert "target i-2 is unhealthy: Host does not say what it does" in answer["reason"]
    hosts.now = data["shift"]["ill_since"] + 600
    with pytest.raises(IdleColorUnhealthy, match=r"under traffic: not healthy at the deadline"):
        bake(hosts, data)


def test_17_all_hosts_silent_is_unknown_and_not_yet_unhealthy(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    for host in hosts.hosts:
        host.silent = True
    assert bake(hosts, data)["status"] == "waiting"


def test_no_host_on_which_the_new_colour_answers_ends_it_at_once(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    hosts.runs(GREEN, on=[])
    with pytest.raises(IdleColorUnhealthy, match="no healthy target is left under traffic"):
        bake(hosts, data)


def test_17_a_host_that_ends_under_traffic_is_no_failure(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    bake(hosts, data)
    hosts.ends(hosts.hosts[1])
    hosts.stops(hosts.tasks(GREEN)[0], "Host EC2 (instance i-2) terminated.")
    hosts.now += 60
    assert bake(hosts, data)["status"] == "baked"


def test_a_host_that_is_emptied_while_it_bakes_is_no_failure(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    bake(hosts, data)
    emptied = hosts.hosts[1]
    hosts.empties(emptied)
    emptied.answers = dict.fromkeys((BLUE, GREEN), NO_TASK)
    emptied.weights = dict(ALL_BLUE)
    hosts.stops(hosts.tasks(GREEN)[0], "the instance is draining")
    hosts.now += 60
    assert bake(hosts, data)["status"] == "baked"


def test_a_colour_that_does_not_answer_on_a_host_has_its_deadline_and_not_the_whole_step(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """The proxy there has nobody else to send its requests to."""
    data["deployment"]["configuration"]["bake"]["seconds"] = 3600
    bake(hosts, data)
    hosts.hosts[1].answers[GREEN] = NO_TASK
    since = bake(hosts, data)["ill_since"]
    hosts.now = since + 595
    assert bake(hosts, data)["status"] == "waiting"
    hosts.now += 10
    with pytest.raises(IdleColorUnhealthy, match="not healthy at the deadline: 2 of 3 targets"):
        bake(hosts, data)


def test_an_old_colour_that_keeps_traffic_and_does_not_answer_has_no_whole_step_either(
    hosts: HostWorld,
) -> None:
    hosts.configure(strategy={"type": "canary", "percent": 10, "seconds": 3600})
    data = hosts.started()
    hosts.until_over("shift_traffic", data)
    bake(hosts, data)
    hosts.hosts[1].answers[BLUE] = NO_TASK
    since = bake(hosts, data)["ill_since"]
    hosts.now = since + 605
    with pytest.raises(HostNotReady, match=r"(?s)blue, which keeps a part .*target i-2"):
        bake(hosts, data)


def test_06_an_alarm_is_seen_while_more_hosts_than_tasks_are_there(
    hosts: HostWorld, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Watched(hosts, monkeypatch) as made:
        made.has_alarm("web-5xx")
        data["deployment"]["configuration"]["bake"]["alarms"] = ["web-5xx"]
        hosts.add_host(ALL_BLUE)
        assert bake(hosts, data)["status"] == "outgrown"
        made.alarm_is("ALARM")
        with pytest.raises(BakeFailed, match="alarm web-5xx"):
            bake(hosts, data)


def test_21_alarms_that_cannot_be_read_for_long_while_hosts_come_count_as_bad(
    hosts: HostWorld, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Watched(hosts, monkeypatch):
        assert bake(hosts, data)["proved_at"] == hosts.now
        data["deployment"]["configuration"]["bake"] |= {"alarms": ["gone"], "unknown_seconds": 30}
        hosts.add_host(ALL_BLUE)
        assert bake(hosts, data)["status"] == "outgrown"
        hosts.now += 30
        with pytest.raises(BakeFailed, match="unknown is not OK"):
            bake(hosts, data)


def test_no_host_on_which_the_new_colour_answers_ends_it_when_hosts_come_too(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    hosts.runs(GREEN, on=[])
    hosts.add_host(ALL_BLUE)
    with pytest.raises(IdleColorUnhealthy, match="no healthy target is left under traffic"):
        bake(hosts, data)


# DrainOldColor


@pytest.fixture
def baked(hosts: HostWorld) -> dict[str, Any]:
    return hosts.baked()


def drain(hosts: HostWorld, data: dict[str, Any]) -> dict[str, Any]:
    return hosts.look("drain_old_color", data)


def has_connections(hosts: HostWorld, *numbers: int) -> None:
    for host, number in zip(hosts.hosts, numbers, strict=True):
        host.connections = {BLUE: number, GREEN: 0}


def test_06_the_old_colour_ends_as_soon_as_no_connection_to_it_is_open(
    hosts: HostWorld, baked: dict[str, Any]
) -> None:
    task = hosts.add_task(BLUE)
    has_connections(hosts, 5, 0, 7)
    assert drain(hosts, baked)["reason"] == "12 connections in flight may take another 29 s"
    assert hosts.service(BLUE)["desiredCount"] == 3
    has_connections(hosts, 0, 0, 1)
    assert drain(hosts, baked)["status"] == "waiting"
    assert hosts.service(BLUE)["desiredCount"] == 3
    has_connections(hosts, 0, 0, 0)
    assert drain(hosts, baked)["reason"] == "stopping 1 tasks of the old colour"
    assert hosts.service(BLUE)["desiredCount"] == 0
    assert hosts.now < baked["shift"]["proved_at"] + 30
    hosts.stops(task, "asked to")
    assert drain(hosts, baked)["status"] == "done"
    assert hosts.traffic() == [ALL_GREEN] * 3
    assert hosts.service(GREEN)["desiredCount"] == 3


def test_06_connections_that_do_not_end_are_ended_when_their_time_is_over(
    hosts: HostWorld, baked: dict[str, Any]
) -> None:
    has_connections(hosts, 0, 1, 0)
    hosts.now = baked["shift"]["proved_at"] + 28
    assert drain(hosts, baked)["status"] == "waiting"
    assert hosts.service(BLUE)["desiredCount"] == 3
    hosts.now += 1
    assert drain(hosts, baked)["reason"] == (
        "stopping 0 tasks of the old colour; 1 connections end with them"
    )
    assert hosts.service(BLUE)["desiredCount"] == 0


@pytest.mark.parametrize(
    "state", [{"silent": True}, {"registered": False}, {"refuses": {"report": "gone"}}], ids=str
)
def test_21_a_host_that_may_still_send_to_the_old_colour_keeps_it(
    hosts: HostWorld, baked: dict[str, Any], state: dict[str, Any]
) -> None:
    for name, value in state.items():
        setattr(hosts.hosts[1], name, value)
    hosts.now += 100
    answer = drain(hosts, baked)
    assert answer["status"] == "waiting"
    assert answer["reason"].startswith("host i-2 does not say what it does: ")
    hosts.now += 900
    with pytest.raises(DrainFailed, match="blue: host i-2 does not say what it does"):
        drain(hosts, baked)
    assert hosts.service(BLUE)["desiredCount"] == 3
    assert hosts.traffic() == [ALL_GREEN] * 3


def test_21_connections_that_a_host_cannot_count_are_waited_for_as_long_as_any(
    hosts: HostWorld, baked: dict[str, Any]
) -> None:
    hosts.hosts[1].connections = None
    assert drain(hosts, baked)["reason"] == "requests in flight may take another 29 s"
    hosts.now = baked["shift"]["proved_at"] + 30
    drain(hosts, baked)
    assert hosts.service(BLUE)["desiredCount"] == 0


def test_17_a_host_that_is_gone_keeps_nothing(hosts: HostWorld, baked: dict[str, Any]) -> None:
    host = hosts.hosts[1]
    host.silent, host.connections = True, {BLUE: 9, GREEN: 0}
    hosts.ends(host)
    drain(hosts, baked)
    assert hosts.service(BLUE)["desiredCount"] == 0


def test_05_a_host_that_sends_to_the_old_colour_again_ends_the_drain_and_nothing_else(
    hosts: HostWorld, baked: dict[str, Any]
) -> None:
    hosts.hosts[1].weights = {BLUE: 10, GREEN: 90}
    with pytest.raises(TrafficChanged, match=r"given blue traffic again \(weight 10\)"):
        drain(hosts, baked)
    assert hosts.service(BLUE)["desiredCount"] == 3
    assert hosts.hosts[1].weights == {BLUE: 10, GREEN: 90}


def test_15_the_old_colour_stays_while_the_new_one_answers_on_no_host(
    hosts: HostWorld, baked: dict[str, Any]
) -> None:
    hosts.runs(GREEN, on=[])
    hosts.now += 100
    assert drain(hosts, baked)["reason"] == (
        "the new colour has no healthy target: the old one stays"
    )
    assert hosts.service(BLUE)["desiredCount"] == 3


def test_an_old_colour_without_connections_is_kept_warm_at_once_and_ends_later(
    hosts: HostWorld, baked: dict[str, Any]
) -> None:
    baked["deployment"]["configuration"]["drain"]["keep_warm_seconds"] = 3600
    answer = drain(hosts, baked)
    assert (answer["reason"], answer["wait_seconds"]) == ("the old colour is kept warm", 3600)
    assert hosts.lock.warm
    hosts.now += 3600
    drain(hosts, baked)
    assert hosts.service(BLUE)["desiredCount"] == 0
    assert not hosts.lock.warm


def test_23_a_drain_that_recovery_takes_up_counts_connections_too(
    hosts: HostWorld, baked: dict[str, Any]
) -> None:
    """Nobody knows any more when the hosts have switched."""
    del baked["shift"]
    hosts.now += 1000
    has_connections(hosts, 1, 0, 0)
    assert drain(hosts, baked)["status"] == "waiting"
    has_connections(hosts, 0, 0, 0)
    drain(hosts, baked)
    assert hosts.service(BLUE)["desiredCount"] == 0


def test_12_scaling_goes_with_the_role_at_the_first_look(hosts: HostWorld) -> None:
    hosts.scalable(BLUE, suspended=False)
    hosts.scalable(GREEN, suspended=True)
    data = hosts.baked()
    hosts.look("drain_old_color", data)
    assert (hosts.suspended(BLUE), hosts.suspended(GREEN)) == (True, False)


# Several steps

TENTH = {BLUE: 90, GREEN: 10}
HALF = {BLUE: 50, GREEN: 50}


@pytest.fixture
def stepping(hosts: HostWorld) -> dict[str, Any]:
    """A tenth of the traffic on green, on all hosts; half of it and all of it will follow."""
    steps = [{"percent": 10, "seconds": 30}, {"percent": 50, "seconds": 30}]
    hosts.configure(strategy={"type": "steps", "steps": steps})
    data = hosts.started()
    hosts.until_over("shift_traffic", data)
    assert hosts.traffic() == [TENTH] * 3
    return data


def next_step(hosts: HostWorld, data: dict[str, Any]) -> None:
    answer = hosts.until_over("check_bake", data)
    assert answer["status"] == "next_step"
    assert hosts.until_over("shift_traffic", data)["status"] == "shifted"


def test_all_hosts_take_every_step_together(hosts: HostWorld, stepping: dict[str, Any]) -> None:
    for weights in (HALF, ALL_GREEN):
        next_step(hosts, stepping)
        assert hosts.traffic() == [weights] * 3
        assert len({host.switched_at for host in hosts.hosts}) == 1
    assert hosts.until_over("check_bake", stepping)["status"] == "baked"
    assert hosts.record().intents == [TENTH, HALF, ALL_GREEN]


def test_14_a_host_that_is_late_in_the_middle_takes_the_same_step_and_the_bake_goes_on(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    next_step(hosts, stepping)
    proved_at = bake(hosts, stepping)["proved_at"]
    hosts.ends(hosts.hosts[2])
    hosts.add_host(TENTH, answering=(BLUE, GREEN))
    answer = bake(hosts, stepping)
    assert (answer["status"], answer["step"], answer["percent"]) == ("late", 1, 50)
    bring_in(hosts, stepping)
    assert hosts.traffic() == [HALF] * 3
    assert stepping["shift"]["proved_at"] == proved_at


def test_14_a_host_that_has_missed_several_steps_takes_the_present_one(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    """Somebody had emptied it, and lets it take tasks again."""
    emptied = hosts.hosts[2]
    hosts.empties(emptied)
    emptied.answers = dict.fromkeys((BLUE, GREEN), NO_TASK)
    emptied.weights = dict(ALL_BLUE)
    next_step(hosts, stepping)
    emptied.draining = False
    hosts.runs(BLUE)
    hosts.runs(GREEN)
    assert bake(hosts, stepping)["status"] == "late"
    bring_in(hosts, stepping)
    assert hosts.traffic() == [HALF] * 3


def test_14_a_host_that_boots_in_the_middle_reads_the_weights_of_the_step(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    next_step(hosts, stepping)
    booted = hosts.add_host(answering=(BLUE, GREEN))
    assert booted.weights == HALF


def test_14_a_host_that_appears_in_the_middle_gets_a_task_of_each_colour_with_weight(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    proved_at = bake(hosts, stepping)["proved_at"]
    newcomer = hosts.boots(answering=())
    assert bake(hosts, stepping)["status"] == "outgrown"
    assert hosts.until_over("start_idle_color", stepping)["status"] == "started"
    counts = {color: hosts.service(color)["desiredCount"] for color in (BLUE, GREEN)}
    assert counts == {BLUE: 4, GREEN: 4}
    hosts.places_tasks(stepping)
    assert bake(hosts, stepping)["status"] == "waiting"
    newcomer.answers[BLUE] = ""
    newcomer.restore(hosts.wanted, hosts.now)
    hosts.now = proved_at + 30
    assert bake(hosts, stepping)["status"] == "next_step"
    assert hosts.traffic() == [TENTH] * 4
    assert stepping["shift"]["proved_at"] == proved_at


def test_14_the_old_colour_is_never_made_smaller(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    hosts.scale(BLUE, 6)
    hosts.add_host(answering=(BLUE,))
    assert bake(hosts, stepping)["status"] == "outgrown"
    hosts.until_over("start_idle_color", stepping)
    assert hosts.service(BLUE)["desiredCount"] == 6


def test_14_the_old_colour_gets_no_task_where_it_has_no_traffic(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    hosts.add_host(answering=())
    assert bake(hosts, data)["status"] == "outgrown"
    assert hosts.until_over("start_idle_color", data)["status"] == "started"
    hosts.places_tasks(data)
    assert bake(hosts, data)["reason"].startswith("baking for another")
    assert hosts.service(BLUE)["desiredCount"] == 3
    assert hosts.traffic() == [ALL_GREEN] * 4


def test_14_the_same_step_waits_until_the_old_colour_answers_on_a_late_host(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    hosts.ends(hosts.hosts[2])
    late = hosts.add_host(ALL_BLUE, answering=(GREEN,))
    answer = bake(hosts, stepping)
    assert answer["status"] == "waiting"
    assert answer["reason"].startswith(
        "blue, which keeps a part of the traffic: 2 of 3 targets healthy\n  target i-4"
    )
    late.answers[BLUE] = ""
    assert bake(hosts, stepping)["status"] == "late"
    bring_in(hosts, stepping)
    assert hosts.traffic() == [TENTH] * 3


def test_14_the_next_step_waits_for_the_old_colour_on_every_host(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    bake(hosts, stepping)
    hosts.ends(hosts.hosts[2])
    newcomer = hosts.add_host(answering=(GREEN,))
    hosts.now += 31
    assert bake(hosts, stepping)["status"] == "waiting"
    newcomer.answers[BLUE] = ""
    assert bake(hosts, stepping)["status"] == "next_step"


def test_14_the_old_colour_is_given_up_at_the_deadline_under_traffic_too(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    bake(hosts, stepping)
    hosts.ends(hosts.hosts[2])
    hosts.add_host(answering=(GREEN,))
    hosts.now += 31
    assert bake(hosts, stepping)["status"] == "waiting"
    hosts.now = stepping["shift"]["ill_since"] + 595
    assert bake(hosts, stepping)["status"] == "waiting"
    hosts.now += 10
    with pytest.raises(HostNotReady, match=r"(?s)blue, which keeps a part .*target i-4"):
        bake(hosts, stepping)
    assert hosts.traffic() == [TENTH] * 3


def test_14_a_host_on_which_the_old_colour_does_not_start_is_given_up_at_the_deadline(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    bake(hosts, stepping)
    hosts.add_host(ALL_BLUE, answering=())
    assert bake(hosts, stepping)["status"] == "outgrown"
    hosts.until_over("start_idle_color", stepping)
    hosts.places_tasks(stepping)
    answer = bake(hosts, stepping)
    assert (answer["status"], "target i-4" in answer["reason"]) == ("waiting", True)
    hosts.now = stepping["idle"]["started_at"] + 600
    with pytest.raises(HostNotSwitched, match=r"(?s)i-4 came later and .*blue, .* target i-4"):
        bake(hosts, stepping)
    assert hosts.traffic() == [TENTH] * 3 + [ALL_BLUE]


def test_05_weights_of_a_step_to_come_are_somebody_elses(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    hosts.hosts[1].weights = dict(HALF)
    with pytest.raises(TrafficChanged, match="found blue 50, green 50 on i-2"):
        bake(hosts, stepping)


def test_15_all_hosts_go_back_from_a_step_in_the_middle(
    hosts: HostWorld, stepping: dict[str, Any]
) -> None:
    next_step(hosts, stepping)
    for _ in range(200):
        if hosts.look("roll_back", stepping)["status"] == "restored":
            break
        hosts.obeys()
        hosts.now += stepping["rollback"]["wait_seconds"]
    assert stepping["rollback"]["status"] == "restored"
    assert hosts.traffic() == [ALL_BLUE] * 3
