"""StartIdleColor and CheckHealth with a proxy on every host: a task of the new colour on each."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.errors import AwsUnavailable, IdleColorUnhealthy, TrafficChanged
from tests.functions.host_world import ALL_BLUE, ALL_GREEN, HostWorld
from tests.functions.world import BLUE, GREEN


@pytest.fixture
def planned(hosts: HostWorld) -> dict[str, Any]:
    return hosts.registered()


@pytest.fixture
def data(hosts: HostWorld) -> dict[str, Any]:
    return hosts.started()


def start(hosts: HostWorld, data: dict[str, Any]) -> dict[str, Any]:
    return hosts.look("start_idle_color", data)


def check(hosts: HostWorld, data: dict[str, Any]) -> dict[str, Any]:
    return hosts.look("check_health", data)


# StartIdleColor


def test_there_is_a_task_for_every_host(hosts: HostWorld, planned: dict[str, Any]) -> None:
    hosts.scale(BLUE, 9)
    answer = start(hosts, planned)
    assert (answer["status"], answer["desired_count"]) == ("started", 3)
    assert hosts.service(GREEN)["desiredCount"] == 3
    assert hosts.service(GREEN)["taskDefinition"] == planned["task_definition"]["arn"]
    assert hosts.traffic() == [ALL_BLUE] * 3


def test_a_host_that_is_gone_or_emptied_gets_no_task(
    hosts: HostWorld, planned: dict[str, Any]
) -> None:
    hosts.ends(hosts.hosts[2])
    hosts.empties(hosts.hosts[1])
    assert start(hosts, planned)["desired_count"] == 1


def test_14_a_host_that_has_come_since_the_plan_gets_one_too(
    hosts: HostWorld, planned: dict[str, Any]
) -> None:
    hosts.add_host()
    assert start(hosts, planned)["desired_count"] == 4


def test_14_a_host_that_boots_just_now_is_nobody_elses_traffic(
    hosts: HostWorld, planned: dict[str, Any]
) -> None:
    """Its agents are there, but it has not read the weights, and its proxy does not run yet."""
    hosts.boots()
    assert start(hosts, planned)["desired_count"] == 4


def test_12_dynamic_ports_take_as_many_tasks_as_the_live_colour_has(hosts: HostWorld) -> None:
    hosts.makes_ports_dynamic()
    hosts.scale(BLUE, 5)
    assert hosts.started()["idle"]["desired_count"] == 5


def test_05_a_host_with_other_weights_stops_it_before_anything_is_started(
    hosts: HostWorld, planned: dict[str, Any]
) -> None:
    hosts.hosts[1].weights = dict(ALL_GREEN)
    with pytest.raises(TrafficChanged, match="found blue 0, green 100 on i-2, expected blue 100"):
        start(hosts, planned)
    assert hosts.service(GREEN)["desiredCount"] == 0


def test_13_what_an_earlier_run_left_ends_first(hosts: HostWorld, planned: dict[str, Any]) -> None:
    hosts.scale(GREEN, 1)
    leftover = hosts.add_task(GREEN)
    assert start(hosts, planned)["reason"] == "tasks left from an earlier run are being stopped"
    leftover.last_status = leftover.desired_status = "STOPPED"
    assert start(hosts, planned)["status"] == "started"


def test_13_leftovers_are_not_stopped_while_connections_to_them_are_open(
    hosts: HostWorld, planned: dict[str, Any]
) -> None:
    """No new request gets to them, but a long one of an earlier run may still be answered."""
    hosts.scale(GREEN, 1)
    hosts.hosts[1].connections = {BLUE: 40, GREEN: 2}
    answer = start(hosts, planned)
    assert answer["reason"] == "2 connections to tasks left from an earlier run"
    assert hosts.service(GREEN)["desiredCount"] == 1
    hosts.hosts[1].connections = {BLUE: 40, GREEN: 0}
    assert start(hosts, planned)["reason"] == "tasks left from an earlier run are being stopped"


def test_13_connections_to_leftovers_are_waited_for_as_long_as_a_drain_takes(
    hosts: HostWorld, planned: dict[str, Any]
) -> None:
    hosts.scale(GREEN, 1)
    hosts.hosts[1].connections = {BLUE: 0, GREEN: 2}
    hosts.now += 27
    assert start(hosts, planned)["status"] == "waiting"
    assert hosts.service(GREEN)["desiredCount"] == 1
    hosts.now += 3
    start(hosts, planned)
    assert hosts.service(GREEN)["desiredCount"] == 0


def test_called_again_it_finds_what_it_has_started(
    hosts: HostWorld, planned: dict[str, Any]
) -> None:
    first = start(hosts, planned)
    assert start(hosts, planned) == first


def test_a_lost_answer_starts_it_once(hosts: HostWorld, planned: dict[str, Any]) -> None:
    hosts.fault("ecs", "UpdateService", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        start(hosts, planned)
    assert start(hosts, planned)["desired_count"] == 3


# CheckHealth


def test_a_colour_that_answers_on_every_host_is_ready(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    assert check(hosts, data) == {
        "status": "healthy",
        "reason": "3 of 3 tasks and targets healthy",
        "wait_seconds": 5,
    }


def test_24_a_host_where_it_does_not_answer_is_named_and_waited_for(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    hosts.hosts[1].answers[GREEN] = "GET /healthz: status 503"
    answer = check(hosts, data)
    assert (answer["status"], answer["wait_seconds"]) == ("waiting", 5)
    assert answer["reason"] == (
        "2 of 3 targets healthy\n  target i-2 is unhealthy: Host GET /healthz: status 503"
    )
    hosts.now += 600
    with pytest.raises(IdleColorUnhealthy, match="not healthy at the deadline: 2 of 3 targets"):
        check(hosts, data)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"silent": True}, "target i-2 is unhealthy: Host does not say what it does: SSM says"),
        ({"running": "nginx does not run"}, "target i-2 is unhealthy: Host nginx does not run"),
        ({"registered": False}, "its SSM agent is not registered"),
    ],
    ids=str,
)
def test_21_a_host_that_cannot_be_relied_on_is_not_healthy(
    hosts: HostWorld, data: dict[str, Any], state: dict[str, Any], says: str
) -> None:
    for name, value in state.items():
        setattr(hosts.hosts[1], name, value)
    answer = check(hosts, data)
    assert answer["status"] == "waiting"
    assert says in answer["reason"]


def test_14_a_new_host_outgrows_the_idle_colour_and_gets_its_task(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    newcomer = hosts.add_host(answering=(BLUE, GREEN))
    answer = check(hosts, data)
    assert (answer["status"], answer["reason"]) == (
        "outgrown",
        "4 tasks are needed by now, green has 3",
    )
    assert start(hosts, data)["desired_count"] == 4
    newcomer.answers[GREEN] = "connection refused"
    assert check(hosts, data)["reason"] == "3 of 4 tasks running"
    hosts.places_tasks(data)
    assert check(hosts, data)["status"] == "healthy"


def test_17_a_host_that_is_gone_takes_its_place_with_it(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    """ECS wants three tasks and has room for two."""
    gone = hosts.hosts[2]
    hosts.ends(gone)
    hosts.stops(hosts.tasks(GREEN)[0], f"Host EC2 (instance {gone.instance_id}) terminated.")
    answer = check(hosts, data)
    assert (answer["status"], answer["reason"]) == ("healthy", "2 of 2 tasks and targets healthy")


def test_17_tasks_that_died_with_their_host_say_nothing_about_the_release(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    gone, there = hosts.hosts[2], hosts.hosts[0]
    hosts.ends(gone)
    deployment = data["idle"]["ecs_deployment_id"]
    for host in (gone, gone, gone, there, there):
        hosts.add_dead_task(GREEN, deployment, 1).container_instance_arn = host.arn
    assert check(hosts, data)["status"] == "healthy"
    hosts.add_dead_task(GREEN, deployment, 1).container_instance_arn = there.arn
    with pytest.raises(IdleColorUnhealthy, match="3 tasks died"):
        check(hosts, data)


def test_a_host_that_is_emptied_holds_it_up_as_long_as_it_serves(
    hosts: HostWorld, data: dict[str, Any]
) -> None:
    emptied = hosts.hosts[1]
    emptied.answers[GREEN] = "connection refused"
    hosts.empties(emptied)
    assert "target i-2 is unhealthy" in check(hosts, data)["reason"]
    emptied.answers[BLUE] = "connection refused"
    assert check(hosts, data)["status"] == "healthy"


def test_with_dynamic_ports_hosts_are_asked_about_the_new_revision(hosts: HostWorld) -> None:
    hosts.makes_ports_dynamic()
    data = hosts.started()
    check(hosts, data)
    assert hosts.fleet.sent("report")[-1].order == {
        "Service": "web",
        "BlueTask": "web:2",
        "GreenTask": "web:3",
    }


def test_the_lease_is_renewed_by_every_pass(hosts: HostWorld, data: dict[str, Any]) -> None:
    hosts.now += 500
    hosts.run("check_health", data)
    assert hosts.lock.lease_expires_at == hosts.now + 600
