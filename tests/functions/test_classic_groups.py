"""Two clusters behind a Classic Load Balancer: groups are attached, then others detached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bluegreen.errors import (
    AwsUnavailable,
    DeploymentRefused,
    DrainFailed,
    IdleColorUnhealthy,
    LockLost,
    RollBackIncomplete,
    TrafficChanged,
)
from runtime import clients
from tests.functions.classic_world import (
    FAILED,
    IN_SERVICE,
    LEAVING,
    NAME,
    PORT,
    REGISTERING,
    ClassicGroupWorld,
)
from tests.functions.world import BLUE, GREEN, START, Account, execution_arn

UNDO: dict[str, Any] = {"request": {"action": "rollback", "deployment_id": "d-1"}}
BOTH = {BLUE: 50, GREEN: 50}


@pytest.fixture
def clb(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClassicGroupWorld]:
    made = ClassicGroupWorld(monkeypatch, account).build()
    yield made
    made.close()


def shift(clb: ClassicGroupWorld, data: dict[str, Any]) -> dict[str, Any]:
    """One pass; its answer is what the next one sees."""
    data["shift"] = clb.run("shift_traffic", data)
    answer: dict[str, Any] = data["shift"]
    return answer


def later(clb: ClassicGroupWorld, seconds: float = 1, rounds: int = 1) -> None:
    for _ in range(rounds):
        clb.goes_on()
    clb.now += seconds


def nothing_live(clb: ClassicGroupWorld) -> None:
    """As before the very first deployment: no hosts, no tasks, nothing attached."""
    clb.detach(BLUE)
    clb.scale(BLUE, 0)
    clb.resize(BLUE, 0)
    later(clb, rounds=3)
    clb.backend.tasks[clb.place(BLUE)[0]].clear()
    assert (clb.attached, clb.shown, clb.instances(BLUE)) == ({}, {}, {})


# PlanDeployment


def test_the_attached_colour_is_the_live_one(clb: ClassicGroupWorld) -> None:
    deployment = clb.plan()["deployment"]
    assert (deployment["from_color"], deployment["to_color"]) == ("blue", "green")
    assert deployment["snapshot"]["traffic"] == {"blue": 100, "green": 0}
    assert deployment["snapshot"]["classic_listener"] is None
    assert deployment["deregistration_seconds"] == 40


def test_without_connection_draining_nothing_is_waited_for(clb: ClassicGroupWorld) -> None:
    clients.elb().modify_load_balancer_attributes(
        LoadBalancerName=NAME, LoadBalancerAttributes={"ConnectionDraining": {"Enabled": False}}
    )
    assert clb.plan()["deployment"]["deregistration_seconds"] == 0


def test_two_attached_groups_are_refused(clb: ClassicGroupWorld) -> None:
    clb.attach(GREEN)
    with pytest.raises(DeploymentRefused, match="split between the colours"):
        clb.plan()
    assert clb.attached_colors() == {BLUE, GREEN}
    assert clb.store.lock("web") is None


def test_a_group_that_is_on_its_way_out_is_not_attached(clb: ClassicGroupWorld) -> None:
    """The last deployment's old colour may still drain."""
    clb.attached[GREEN] = "Removing"
    assert clb.plan()["deployment"]["to_color"] == "green"


def test_a_load_balancer_or_listener_that_is_not_there_is_named(clb: ClassicGroupWorld) -> None:
    clb.configure(router={"load_balancer": "shop"})
    with pytest.raises(DeploymentRefused, match="no Classic Load Balancer 'shop'"):
        clb.plan()
    clb.configure(router={"port": 81})
    with pytest.raises(DeploymentRefused, match="'web' has no listener on port 81"):
        clb.plan()


# StartIdleColor: a task for each host


def test_as_many_tasks_as_hosts(clb: ClassicGroupWorld) -> None:
    """The load balancer sends to a host without a task as well."""
    clb.resize(BLUE, 3)
    later(clb, rounds=3)
    assert clb.service(BLUE)["desiredCount"] == 2
    data = clb.started()
    assert (len(clb.hosts(GREEN)), len(clb.tasks(GREEN))) == (3, 3)
    assert clb.run("check_health", data)["status"] == "healthy", "nobody asks them yet"


# ShiftTraffic


def test_one_serves_all_the_time_and_both_for_a_while(clb: ClassicGroupWorld) -> None:
    data = clb.started()
    steps: list[tuple[float, dict[Any, int]]] = []
    clb.until_over("shift_traffic", data, each=lambda: steps.append((clb.now, clb.serving())))
    assert [one for _, one in steps if sum(one.values()) < 2] == []
    assert steps[0][1] == {BLUE: 2, GREEN: 0}
    assert steps[-1][1] == {GREEN: 2}
    both = [at for at, one in steps if one == {BLUE: 2, GREEN: 2}]
    assert steps[-1][0] - both[0] == 30, "overlap_seconds"
    assert clb.attached == {BLUE: "Removing", GREEN: "Added"}
    assert data["shift"]["weights"] == {GREEN: 100, BLUE: 0}
    assert clb.record().intents == [BOTH, {GREEN: 100, BLUE: 0}]


def test_the_old_colour_stays_until_every_new_instance_serves(clb: ClassicGroupWorld) -> None:
    data = clb.started()
    ill = min(clb.instances(GREEN))
    clb.ill = {ill: FAILED}
    for _ in range(10):
        assert shift(clb, data)["status"] == "waiting"
        assert clb.attached_colors() >= {BLUE}
        later(clb, 50)
    assert data["shift"]["reason"] == f"1 instances are not InService: {ill}: {FAILED[2]}"
    clb.ill = {}
    assert clb.until_over("shift_traffic", data)["status"] == "shifted"
    assert clb.attached_colors() == {GREEN}


def test_one_that_fails_during_the_overlap_begins_it_anew(clb: ClassicGroupWorld) -> None:
    data = clb.started()
    while clb.serving().get(GREEN) != 2:
        shift(clb, data)
        later(clb)
    shift(clb, data)
    later(clb, 25)
    ill = min(clb.instances(GREEN))
    clb.ill = {ill: FAILED}
    later(clb)
    assert ill in shift(clb, data)["reason"]
    clb.ill = {}
    later(clb, 20)
    assert shift(clb, data)["reason"] == "both colours serve for another 30 s"
    later(clb, 29)
    assert shift(clb, data)["status"] == "waiting"
    assert clb.attached_colors() == {BLUE, GREEN}
    later(clb)
    assert shift(clb, data)["status"] == "shifted"


def test_24_one_that_does_not_serve_until_the_deadline_is_named(clb: ClassicGroupWorld) -> None:
    data = clb.started()
    ill = max(clb.instances(GREEN))
    clb.ill = {ill: REGISTERING}
    with pytest.raises(IdleColorUnhealthy) as failed:
        clb.until_over("shift_traffic", data)
    assert str(failed.value) == (
        f"green, at the load balancer: 1 instances are not InService: {ill}: {REGISTERING[2]}"
    )
    assert 600 < clb.now - START < 680
    assert clb.serving() == {BLUE: 2, GREEN: 1}


def test_24_one_that_auto_scaling_never_registers_is_named(clb: ClassicGroupWorld) -> None:
    data = clb.started()
    shift(clb, data)
    later(clb, 601, rounds=3)
    late = min(clb.instances(GREEN))
    del clb.shown[late]
    with pytest.raises(IdleColorUnhealthy, match=f"{late}: not registered yet"):
        shift(clb, data)


def test_the_first_deployment_attaches_and_detaches_nothing(clb: ClassicGroupWorld) -> None:
    nothing_live(clb)
    data = clb.registered()
    assert (data["deployment"]["from_color"], data["deployment"]["to_color"]) == (None, "blue")
    clb.until_over("start_idle_color", data)
    later(clb)
    answer = clb.until_over("shift_traffic", data)
    assert (answer["status"], clb.attached) == ("shifted", {BLUE: "Added"})
    assert clb.record().intents == [{BLUE: 100, GREEN: 0}]
    assert set(clb.shown.values()) == {IN_SERVICE}
    assert clb.until_over("check_bake", data)["status"] == "baked"


def test_a_repeated_call_changes_nothing(clb: ClassicGroupWorld) -> None:
    data = clb.shifted()
    before = dict(clb.attached)
    clb.record_calls(("autoscaling", "AttachLoadBalancers"), ("autoscaling", "DetachLoadBalancers"))
    assert shift(clb, data)["status"] == "shifted"
    assert (clb.attached, clb.calls) == (before, [])


@pytest.mark.parametrize("kind", ["throttle", "error500", "lost_answer"])
@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("autoscaling", "AttachLoadBalancers"),
        ("autoscaling", "DetachLoadBalancers"),
        ("autoscaling", "DescribeLoadBalancers"),
        ("elb", "DescribeInstanceHealth"),
    ],
)
def test_a_call_that_fails_is_gone_through_again(
    clb: ClassicGroupWorld, service: str, operation: str, kind: Any
) -> None:
    data = clb.started()
    clb.fault(service, operation, kind, times=3 if kind == "lost_answer" else 1)
    failures = 0
    for _ in range(60):
        try:
            if shift(clb, data)["status"] == "shifted":
                break
        except AwsUnavailable:
            failures += 1
        assert sum(clb.serving().values()) >= 2
        later(clb, 5)
    assert failures == 1
    assert (clb.attached_colors(), clb.serving()) == ({GREEN}, {GREEN: 2})


def test_a_detach_whose_answer_was_lost_once_is_no_error(clb: ClassicGroupWorld) -> None:
    """The SDK repeats it, and AWS refuses to remove what is not part of the group any more."""
    data = clb.started()
    clb.fault("autoscaling", "DetachLoadBalancers", "lost_answer")
    assert clb.until_over("shift_traffic", data)["status"] == "shifted"
    assert clb.attached_colors() == {GREEN}


def test_a_detach_that_is_refused_is_told(clb: ClassicGroupWorld) -> None:
    data = clb.started()
    clb.fault("autoscaling", "DetachLoadBalancers", "denied")
    with pytest.raises(Exception, match="not authorized"):
        clb.until_over("shift_traffic", data)
    assert clb.attached_colors() == {BLUE, GREEN}


@pytest.mark.parametrize("after", ["the attach", "the overlap"])
def test_a_deployment_that_was_taken_over_moves_nothing(clb: ClassicGroupWorld, after: str) -> None:
    data = clb.started()
    if after == "the overlap":
        while "both colours" not in data.get("shift", {}).get("reason", ""):
            shift(clb, data)
            later(clb)
    before = set(clb.attached_colors())
    clb.now += 30
    clb.store.take_over(clb.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        shift(clb, data)
    assert clb.attached_colors() == before


# Somebody else


def test_05_a_live_group_that_somebody_has_detached_is_left_so(clb: ClassicGroupWorld) -> None:
    data = clb.started()
    clb.detach(BLUE)
    with pytest.raises(TrafficChanged, match="found blue 0, green 0"):
        shift(clb, data)
    assert clb.attached_colors() == set()


def test_05_a_new_group_that_somebody_has_detached_again_is_left_so(
    clb: ClassicGroupWorld,
) -> None:
    data = clb.started()
    shift(clb, data)
    clb.detach(GREEN)
    later(clb)
    with pytest.raises(TrafficChanged, match="found blue 100, green 0"):
        shift(clb, data)
    assert clb.attached_colors() == {BLUE}


def test_05_the_first_group_that_somebody_has_detached_again_is_left_so(
    clb: ClassicGroupWorld,
) -> None:
    nothing_live(clb)
    data = clb.registered()
    clb.until_over("start_idle_color", data)
    later(clb)
    shift(clb, data)
    clb.detach(BLUE)
    with pytest.raises(TrafficChanged, match="found blue 0, green 0"):
        shift(clb, data)
    assert clb.attached_colors() == set()


def test_05_another_group_attached_during_the_first_deployment_is_left_so(
    clb: ClassicGroupWorld,
) -> None:
    nothing_live(clb)
    data = clb.registered()
    clb.until_over("start_idle_color", data)
    later(clb)
    shift(clb, data)
    clb.attach(GREEN)
    with pytest.raises(TrafficChanged, match="found blue 50, green 50, expected blue 100, green 0"):
        clb.until_over("shift_traffic", data)
    assert clb.attached_colors() == {BLUE, GREEN}


def test_05_an_idle_group_that_somebody_has_attached_is_not_emptied(
    clb: ClassicGroupWorld,
) -> None:
    data = clb.registered()
    clb.attach(GREEN)
    with pytest.raises(TrafficChanged, match="found blue 50, green 50"):
        clb.run("start_idle_color", data)
    assert clb.attached_colors() == {BLUE, GREEN}


def test_05_a_group_attached_right_after_the_detach_is_seen_and_left(
    clb: ClassicGroupWorld,
) -> None:
    data = clb.started()
    clb.meanwhile("autoscaling", "DetachLoadBalancers", lambda: clb.attach(BLUE))
    with pytest.raises(TrafficChanged, match="detached blue, but read blue 50, green 50"):
        clb.until_over("shift_traffic", data)
    assert clb.attached_colors() == {BLUE, GREEN}


def test_05_an_old_group_attached_again_during_the_bake_is_left_so(clb: ClassicGroupWorld) -> None:
    data = clb.shifted()
    clb.attach(BLUE)
    with pytest.raises(TrafficChanged, match="found blue 50, green 50"):
        clb.run("check_bake", data)
    assert clb.attached_colors() == {BLUE, GREEN}


# CheckBake


def test_an_unhealthy_instance_is_waited_for_until_the_deadline_and_named(
    clb: ClassicGroupWorld,
) -> None:
    data = clb.shifted()
    ill = min(clb.instances(GREEN))
    clb.ill = {ill: FAILED}
    clb.goes_on()
    answer = clb.run("check_bake", data)
    assert answer["status"] == "waiting"
    with pytest.raises(IdleColorUnhealthy) as failed:
        clb.until_over("check_bake", data)
    assert "1 of 2 targets healthy" in str(failed.value)
    assert f"target {ill} is unhealthy: Instance {FAILED[2]}" in str(failed.value)


def test_one_that_is_well_again_is_baked(clb: ClassicGroupWorld) -> None:
    data = clb.shifted()
    clb.ill = dict.fromkeys([min(clb.instances(GREEN))], FAILED)
    clb.goes_on()
    clb.now += 200
    data["shift"] = clb.run("check_bake", data)
    assert data["shift"]["status"] == "waiting"
    clb.ill = {}
    clb.goes_on()
    assert clb.until_over("check_bake", data)["status"] == "baked"


def test_no_instance_in_service_is_given_up_at_once(clb: ClassicGroupWorld) -> None:
    data = clb.shifted()
    clb.ill = dict.fromkeys(clb.instances(GREEN), FAILED)
    clb.goes_on()
    with pytest.raises(IdleColorUnhealthy, match="no healthy target is left under traffic"):
        clb.run("check_bake", data)


# DrainOldColor


def test_06_tasks_end_after_the_instances_have_drained(clb: ClassicGroupWorld) -> None:
    data = clb.baked()
    old = set(clb.instances(BLUE))
    clb.busy = {BLUE}
    for _ in range(6):
        data["drain"] = clb.run("drain_old_color", data)
        later(clb, 15)
        assert {clb.shown[one] for one in old} == {LEAVING}
        assert len(clb.tasks(BLUE)) == 2
    assert data["drain"]["reason"] == "2 targets are draining"
    clb.busy = set()
    assert clb.until_over("drain_old_color", data)["status"] == "done"
    assert (clb.instances(BLUE), clb.sizes(BLUE), len(clb.tasks(BLUE))) == ({}, (0, 0), 0)
    assert clb.serving() == {GREEN: 2}


def test_06_instances_that_do_not_drain_end_at_the_deadline(clb: ClassicGroupWorld) -> None:
    data = clb.baked()
    clb.busy = {BLUE}
    assert clb.until_over("drain_old_color", data)["status"] == "done"
    assert clb.instances(BLUE) == {}


def test_05_an_old_colour_that_somebody_has_attached_again_stays(clb: ClassicGroupWorld) -> None:
    data = clb.baked()
    clb.attach(BLUE)
    clb.now += 100
    with pytest.raises(TrafficChanged, match="given blue traffic again"):
        clb.run("drain_old_color", data)
    later(clb, rounds=2)
    assert (clb.attached_colors(), len(clb.tasks(BLUE))) == ({BLUE, GREEN}, 2)


def test_the_old_colour_stays_while_the_new_one_does_not_serve(clb: ClassicGroupWorld) -> None:
    data = clb.baked()
    clb.ill = dict.fromkeys(clb.instances(GREEN), FAILED)
    clb.goes_on()
    with pytest.raises(DrainFailed, match="the old one stays"):
        clb.until_over("drain_old_color", data)
    assert (len(clb.tasks(BLUE)), clb.sizes(BLUE)) == (2, (0, 2))


# RollBack


def everything(clb: ClassicGroupWorld) -> dict[str, Any]:
    return {
        "attached": dict(clb.attached),
        "services": clb.services(),
        "sizes": {color: clb.sizes(color) for color in (BLUE, GREEN)},
        "suspended": {color: clb.suspended_processes(color) for color in (BLUE, GREEN)},
        "hosts": {color: len(clb.hosts(color)) for color in (BLUE, GREEN)},
        "serving": clb.serving(),
        "registered": len(clb.shown),
        "statuses": {host.status for color in (BLUE, GREEN) for host in clb.hosts(color)},
    }


def planned(clb: ClassicGroupWorld) -> dict[str, Any]:
    return clb.registered()


def started(clb: ClassicGroupWorld) -> dict[str, Any]:
    return clb.started()


def attached(clb: ClassicGroupWorld) -> dict[str, Any]:
    """The new group is attached, and none of its instances serves yet."""
    data = clb.started()
    shift(clb, data)
    return data


def attached_without_an_answer(clb: ClassicGroupWorld) -> dict[str, Any]:
    data = clb.started()
    clb.fault("autoscaling", "AttachLoadBalancers", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        shift(clb, data)
    return data


def overlapping(clb: ClassicGroupWorld) -> dict[str, Any]:
    data = attached(clb)
    while "both colours" not in shift(clb, data)["reason"]:
        later(clb)
    return data


def detached_without_an_answer(clb: ClassicGroupWorld) -> dict[str, Any]:
    data = overlapping(clb)
    clb.now += 30
    clb.fault("autoscaling", "DetachLoadBalancers", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        shift(clb, data)
    return data


def shifted(clb: ClassicGroupWorld) -> dict[str, Any]:
    return clb.shifted()


def drained(clb: ClassicGroupWorld) -> dict[str, Any]:
    """The old instances have left the load balancer, their tasks run; a person asks."""
    data = clb.baked()
    while clb.shown.keys() & clb.instances(BLUE).keys():
        data["drain"] = clb.run("drain_old_color", data)
        clb.goes_on()
    assert len(clb.tasks(BLUE)) == 2
    return clb.run("plan_roll_back", UNDO, "undo")


def ended(clb: ClassicGroupWorld) -> dict[str, Any]:
    """A deployment that succeeded is to be undone: its old hosts are gone."""
    clb.live_on_green()
    assert clb.instances(BLUE) == {}
    return clb.run("plan_roll_back", UNDO, "undo")


POINTS = [
    planned,
    started,
    attached,
    attached_without_an_answer,
    overlapping,
    detached_without_an_answer,
    shifted,
    drained,
    ended,
]


def restore(clb: ClassicGroupWorld, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """All passes of RollBack; then what has begun ends."""
    answer = clb.until_over("roll_back", data, "undo" if "recovery" in data else "d-1", **more)
    later(clb, rounds=3)
    return answer


@pytest.mark.parametrize("at", POINTS)
def test_15_everything_is_as_before_from_wherever_it_stopped(
    clb: ClassicGroupWorld, at: Callable[[ClassicGroupWorld], dict[str, Any]]
) -> None:
    before = everything(clb)
    data = at(clb)

    def look() -> None:
        assert sum(clb.serving().values()) >= 2, "somebody serves all the time"

    answer = restore(clb, data, each=look)
    assert (answer["status"], answer["as_before"]) == ("restored", True)
    assert everything(clb) == before
    assert before["serving"] == {BLUE: 2}


def test_15_a_first_deployment_leaves_nothing_attached(clb: ClassicGroupWorld) -> None:
    nothing_live(clb)
    before = everything(clb)
    data = clb.registered()
    clb.until_over("start_idle_color", data)
    later(clb)
    clb.until_over("shift_traffic", data)
    assert clb.attached_colors() == {BLUE}
    assert restore(clb, data)["as_before"]
    assert everything(clb) == before


def test_15_a_new_colour_that_fails_stays_until_the_old_one_serves(clb: ClassicGroupWorld) -> None:
    data = clb.shifted()
    later(clb, rounds=2)
    clb.ill = dict.fromkeys([min(clb.instances(GREEN))], FAILED)
    clb.goes_on()

    def look() -> None:
        if GREEN not in clb.attached_colors():
            assert clb.serving() == {BLUE: 2}

    assert restore(clb, data, each=look)["as_before"]
    assert clb.serving() == {BLUE: 2}


def test_15_old_instances_that_do_not_serve_again_are_no_success(clb: ClassicGroupWorld) -> None:
    data = clb.shifted()
    clb.ill = dict.fromkeys(clb.instances(BLUE), FAILED)
    with pytest.raises(RollBackIncomplete, match="0 of 2 targets of the old colour healthy"):
        restore(clb, data)
    assert clb.serving() == {BLUE: 0, GREEN: 2}


def test_15_by_hand_the_new_colour_stays_until_all_old_hosts_are_there(
    clb: ClassicGroupWorld,
) -> None:
    """Half the hosts are not enough to take all the traffic."""
    data = ended(clb)
    clb.max_launches = 1
    passes = 0

    def look() -> None:
        nonlocal passes
        passes += 1
        if passes == 40:
            assert clb.serving() == {BLUE: 1, GREEN: 2}
            clb.max_launches = None
        if GREEN not in clb.attached_colors():
            assert clb.serving() == {BLUE: 2}

    assert restore(clb, data, each=look)["as_before"]
    assert passes > 40


def test_15_by_hand_old_hosts_that_are_ending_are_replaced_and_not_waited_for(
    clb: ClassicGroupWorld,
) -> None:
    data = clb.baked()
    while clb.sizes(BLUE)[1]:
        data["drain"] = clb.run("drain_old_color", data)
        later(clb)
    clb.stays = {BLUE}
    clb.goes_on()
    ending = set(clb.instances(BLUE))
    assert len(ending) == 2
    assert restore(clb, clb.run("plan_roll_back", UNDO, "undo"))["as_before"]
    assert clb.serving() == {BLUE: 2}
    assert {one for one, shown in clb.shown.items() if shown == IN_SERVICE}.isdisjoint(ending)


def test_05_somebody_elses_attachments_are_left_alone(clb: ClassicGroupWorld) -> None:
    data = clb.shifted()
    clb.detach(GREEN)
    later(clb, rounds=2)
    answer = restore(clb, data)
    assert (answer["status"], answer["as_before"]) == ("restored", False)
    assert clb.attached_colors() == set()


@pytest.mark.parametrize("kind", ["throttle", "error500", "lost_answer"])
@pytest.mark.parametrize(
    "operation", ["AttachLoadBalancers", "DetachLoadBalancers", "DescribeLoadBalancers"]
)
def test_15_a_call_that_fails_on_the_way_back_is_gone_through_again(
    clb: ClassicGroupWorld, operation: str, kind: Any
) -> None:
    before = everything(clb)
    data = clb.shifted()
    clb.fault("autoscaling", operation, kind, times=3 if kind == "lost_answer" else 1)
    failures = 0
    for _ in range(9):
        try:
            answer = restore(clb, data)
            break
        except AwsUnavailable:
            failures += 1
    assert (failures, answer["as_before"]) == (1, True)
    assert everything(clb) == before


def test_15_a_detach_whose_answer_was_lost_once_does_not_stop_the_way_back(
    clb: ClassicGroupWorld,
) -> None:
    before = everything(clb)
    data = clb.shifted()
    clb.fault("autoscaling", "DetachLoadBalancers", "lost_answer")
    assert restore(clb, data)["as_before"]
    assert everything(clb) == before


def test_the_listener_is_never_touched(clb: ClassicGroupWorld) -> None:
    before = clb.described()["ListenerDescriptions"], clb.described()["HealthCheck"]
    data = ended(clb)
    restore(clb, data)
    after = clb.described()["ListenerDescriptions"], clb.described()["HealthCheck"]
    assert after == before
    assert before[0][0]["Listener"]["LoadBalancerPort"] == PORT
