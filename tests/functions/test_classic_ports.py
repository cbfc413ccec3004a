"""Shifted ports behind a Classic Load Balancer: the listener is made anew, with all that it had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bluegreen.errors import (
    AwsRefused,
    AwsUnavailable,
    BlueGreenError,
    DeploymentRefused,
    IdleColorUnhealthy,
    InvalidConfiguration,
    LockLost,
    RollBackIncomplete,
    TrafficChanged,
)
from runtime import clients
from tests.functions.classic_world import (
    CERTIFICATE,
    CIPHERS,
    FAILED,
    IN_SERVICE,
    NAME,
    PORT,
    PORTS,
    STICKY,
    ClassicPortWorld,
)
from tests.functions.world import BLUE, GREEN, START, TABLE, Account, execution_arn

UNDO: dict[str, Any] = {"request": {"action": "rollback", "deployment_id": "d-1"}}
AT_BLUE = (18081, "HTTP:18081/healthz")
AT_GREEN = (18082, "HTTP:18082/healthz")
THIRD = 18083


class LostError(Exception):
    """The function ends there: its time is over, or Lambda has lost it."""


@pytest.fixture
def clb(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClassicPortWorld]:
    made = ClassicPortWorld(monkeypatch, account).build()
    yield made
    made.close()


def shift(clb: ClassicPortWorld, data: dict[str, Any]) -> dict[str, Any]:
    """One pass; its answer is what the next one sees."""
    data["shift"] = clb.run("shift_traffic", data)
    answer: dict[str, Any] = data["shift"]
    return answer


def lost_after(clb: ClassicPortWorld, operation: str, data: dict[str, Any]) -> None:
    """ShiftTraffic ends right after the effect of a call."""

    def ends() -> None:
        raise LostError

    clb.meanwhile("elb", operation, ends)
    with pytest.raises(LostError):
        shift(clb, data)


def nothing_live(clb: ClassicPortWorld) -> None:
    """As before the very first deployment: the listener is there, and no task behind it."""
    clb.scale(BLUE, 0)
    clb.goes_on()
    assert set(clb.shown.values()) == {FAILED}


def gap_ms(deployment_id: str = "d-1") -> float | None:
    """What the record says."""
    item = clients.dynamodb().get_item(
        TableName=TABLE, Key={"pk": {"S": f"deployment#{deployment_id}"}}
    )["Item"]
    return float(item["gap_ms"]["N"]) if "gap_ms" in item else None


# PlanDeployment


def test_the_colour_whose_port_the_listener_has_is_the_live_one(clb: ClassicPortWorld) -> None:
    deployment = clb.plan()["deployment"]
    assert (deployment["from_color"], deployment["to_color"]) == ("blue", "green")
    assert deployment["snapshot"]["traffic"] == {"blue": 100, "green": 0}
    assert deployment["snapshot"]["classic_listener"] == {
        "Listener": {
            "Protocol": "HTTPS",
            "LoadBalancerPort": PORT,
            "InstanceProtocol": "HTTP",
            "InstancePort": PORTS[BLUE],
            "SSLCertificateId": CERTIFICATE,
        },
        "PolicyNames": [STICKY, CIPHERS],
        "HealthCheck": {
            "Target": "HTTP:18081/healthz",
            "Interval": 10,
            "Timeout": 4,
            "UnhealthyThreshold": 3,
            "HealthyThreshold": 2,
        },
    }


def test_a_gap_that_nobody_has_accepted_is_refused_with_what_has_none(
    clb: ClassicPortWorld,
) -> None:
    clb.configure(router={"accept_gap": False})
    before = clb.front()
    with pytest.raises(InvalidConfiguration) as refused:
        clb.plan()
    assert "requests in between are refused" in str(refused.value)
    for way in ("alb", "nlb", "two-clusters", "host-proxy", "accept_gap: true"):
        assert way in str(refused.value)
    assert (clb.front(), clb.store.lock("web")) == (before, None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda clb: clb.forward_to(THIRD), "port 18083, which is neither blue's nor green's"),
        (lambda clb: clb.check("HTTP:18083/healthz"), "asks HTTP:18083/healthz: it has to ask"),
        (
            lambda clb: clb.balancer.listeners.clear(),
            "load balancer 'web' has no listener on port 8080",
        ),
    ],
)
def test_what_cannot_be_moved_is_refused(
    clb: ClassicPortWorld, change: Callable[[ClassicPortWorld], None], expected: str
) -> None:
    change(clb)
    before = clb.front()
    with pytest.raises(DeploymentRefused, match=expected):
        clb.plan()
    assert (clb.front(), clb.store.lock("web")) == (before, None)


def test_back_end_policies_are_refused(clb: ClassicPortWorld) -> None:
    elb = clients.elb()
    elb.create_load_balancer_policy(
        LoadBalancerName=NAME, PolicyName="proxied", PolicyTypeName="ProxyProtocolPolicyType"
    )
    elb.set_load_balancer_policies_for_backend_server(
        LoadBalancerName=NAME, InstancePort=PORTS[BLUE], PolicyNames=["proxied"]
    )
    with pytest.raises(DeploymentRefused, match="back-end policies"):
        clb.plan()
    elb.set_load_balancer_policies_for_backend_server(
        LoadBalancerName=NAME, InstancePort=PORTS[BLUE], PolicyNames=[]
    )
    assert clb.plan()["deployment"]["decision"] == "deploy"


# The idle colour


def test_as_many_tasks_as_instances(clb: ClassicPortWorld) -> None:
    """The load balancer sends to an instance without a task as well."""
    clb.scale(BLUE, 2)
    data = clb.started()
    assert clb.service(GREEN)["desiredCount"] == 3
    assert clb.run("check_health", data)["status"] == "healthy", "nobody asks that port yet"


def test_an_instance_added_meanwhile_needs_a_task_too(clb: ClassicPortWorld) -> None:
    data = clb.started()
    clb.balancer.instance_sparse_ids.append("i-0123456789abcdef0")
    assert clb.run("check_health", data)["status"] == "outgrown"
    assert clb.run("start_idle_color", data)["desired_count"] == 4


# ShiftTraffic


def test_the_listener_is_made_anew_with_all_that_it_had(clb: ClassicPortWorld) -> None:
    data, before = clb.started(), clb.front()
    answer = shift(clb, data)
    assert answer["status"] == "shifted"
    [listener] = before["ListenerDescriptions"]
    assert clb.front() == {
        "ListenerDescriptions": [
            {**listener, "Listener": {**listener["Listener"], "InstancePort": PORTS[GREEN]}}
        ],
        "HealthCheck": {**before["HealthCheck"], "Target": "HTTP:18082/healthz"},
    }
    assert clb.record().intents == [{BLUE: 0, GREEN: 0}, {GREEN: 100, BLUE: 0}]


def test_a_listener_of_connections_has_no_path_no_policy_and_no_certificate(
    clb: ClassicPortWorld,
) -> None:
    elb = clients.elb()
    elb.delete_load_balancer_listeners(LoadBalancerName=NAME, LoadBalancerPorts=[PORT])
    plain: Any = {
        "Protocol": "TCP",
        "LoadBalancerPort": PORT,
        "InstanceProtocol": "TCP",
        "InstancePort": PORTS[BLUE],
    }
    elb.create_load_balancer_listeners(LoadBalancerName=NAME, Listeners=[plain])
    clb.check("TCP:18081")
    shift(clb, clb.started())
    front = clb.front()
    assert front["HealthCheck"]["Target"] == "TCP:18082"
    assert front["ListenerDescriptions"] == [
        {"Listener": plain | {"InstancePort": PORTS[GREEN]}, "PolicyNames": []}
    ]


def test_other_listeners_are_not_touched(clb: ClassicPortWorld) -> None:
    other: Any = {
        "Protocol": "HTTP",
        "LoadBalancerPort": 9090,
        "InstanceProtocol": "HTTP",
        "InstancePort": 9090,
    }
    clients.elb().create_load_balancer_listeners(LoadBalancerName=NAME, Listeners=[other])
    shift(clb, clb.started())
    found = {
        one["Listener"]["LoadBalancerPort"]: one["Listener"]
        for one in clb.front()["ListenerDescriptions"]
    }
    assert found[9090] == other
    assert found[PORT]["InstancePort"] == PORTS[GREEN]


def test_the_gap_is_noted_and_told(clb: ClassicPortWorld) -> None:
    data = clb.started()
    shift(clb, data)
    assert gap_ms() == data["shift"]["gap_ms"]
    assert 0 < data["shift"]["gap_ms"] < 5000
    assert clb.until_over("check_bake", data)["status"] == "baked"
    assert clb.until_over("drain_old_color", data)["status"] == "done"
    told = f"there was no listener for {data['shift']['gap_ms']:.0f} ms"
    assert told in clb.run("record_outcome", data)["cause"]
    assert told in str(clb.record().reason)


def test_a_repeated_call_changes_nothing(clb: ClassicPortWorld) -> None:
    data = clb.started()
    shift(clb, data)
    before = clb.front()
    del data["shift"]
    clb.record_calls(("elb", "DeleteLoadBalancerListeners"), ("elb", "ConfigureHealthCheck"))
    assert shift(clb, data)["status"] == "shifted"
    assert (clb.front(), clb.calls) == (before, [])


@pytest.mark.parametrize("kind", ["throttle", "error500", "denied", "timeout"])
def test_a_listener_that_cannot_be_made_is_put_back_at_once(
    clb: ClassicPortWorld, kind: Any
) -> None:
    data, before = clb.started(), clb.front()
    clb.fault("elb", "CreateLoadBalancerListeners", kind)
    with pytest.raises(AwsRefused if kind == "denied" else AwsUnavailable):
        shift(clb, data)
    assert clb.front() == before
    assert gap_ms() is None


@pytest.mark.parametrize("kind", ["throttle", "denied"])
def test_policies_that_cannot_be_set_put_the_old_listener_back_at_once(
    clb: ClassicPortWorld, kind: Any
) -> None:
    """Without them users would lose their session, or get other ciphers."""
    data, before = clb.started(), clb.front()
    clb.fault("elb", "SetLoadBalancerPoliciesOfListener", kind)
    with pytest.raises(AwsRefused if kind == "denied" else AwsUnavailable):
        shift(clb, data)
    assert clb.front() == before


def test_a_listener_that_cannot_be_made_now_is_made_by_the_next_attempt(
    clb: ClassicPortWorld,
) -> None:
    data = clb.started()
    clb.fault("elb", "CreateLoadBalancerListeners", "throttle")
    with pytest.raises(AwsUnavailable):
        shift(clb, data)
    assert shift(clb, data)["status"] == "shifted"
    assert clb.place_of_users() == AT_GREEN


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    "operation",
    [
        "ConfigureHealthCheck",
        "DeleteLoadBalancerListeners",
        "CreateLoadBalancerListeners",
        "SetLoadBalancerPoliciesOfListener",
    ],
)
def test_a_lost_answer_leaves_users_with_all_of_a_listener(
    clb: ClassicPortWorld, operation: str, times: int
) -> None:
    """What has become of the call is not known; a rollback, if it comes to that, has no gap."""
    data, before = clb.started(), clb.front()
    clb.fault("elb", operation, "lost_answer", times)
    try:
        answer = shift(clb, data)
    except BlueGreenError:
        assert times == 3
        answer = {}
    policies = [one["PolicyNames"] for one in clb.front()["ListenerDescriptions"]]
    if operation == "DeleteLoadBalancerListeners" and times == 3:
        assert policies == [], "RollBack makes it anew"
    else:
        assert policies == [[STICKY, CIPHERS]]
    if answer:
        assert clb.place_of_users() == AT_GREEN
    clb.until_over("roll_back", data)
    assert clb.front() == before


@pytest.mark.parametrize(
    "operation", ["CreateLoadBalancerListeners", "SetLoadBalancerPoliciesOfListener"]
)
def test_what_a_lost_function_has_left_undone_is_done_by_the_next_attempt(
    clb: ClassicPortWorld, operation: str
) -> None:
    data = clb.started()
    lost_after(clb, operation, data)
    assert shift(clb, data)["status"] == "shifted"
    assert clb.place_of_users() == AT_GREEN
    [listener] = clb.front()["ListenerDescriptions"]
    assert listener["PolicyNames"] == [STICKY, CIPHERS]


def test_a_deployment_that_was_taken_over_moves_nothing(clb: ClassicPortWorld) -> None:
    data, before = clb.started(), clb.front()
    clb.store.take_over(clb.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        shift(clb, data)
    assert clb.front() == before


# Somebody else


@pytest.mark.parametrize("change", ["another port", "no listener"])
def test_05_a_listener_that_somebody_has_changed_is_left_so(
    clb: ClassicPortWorld, change: str
) -> None:
    data = clb.started()
    if change == "another port":
        clb.forward_to(THIRD)
    else:
        clb.balancer.listeners.clear()
    before = clb.front()
    with pytest.raises(TrafficChanged):
        shift(clb, data)
    assert clb.front() == before


def test_05_an_idle_colour_that_somebody_has_made_live_is_not_stopped(
    clb: ClassicPortWorld,
) -> None:
    data = clb.plan()
    data["task_definition"] = clb.run("register_task_definition", data)
    clb.scale(GREEN, 2)
    clb.forward_to(PORTS[GREEN])
    with pytest.raises(TrafficChanged, match="found blue 0, green 100"):
        clb.run("start_idle_color", data)
    assert clb.service(GREEN)["desiredCount"] == 2


@pytest.mark.parametrize("port", [PORTS[BLUE], THIRD])
def test_05_a_listener_changed_during_the_bake_is_left_so(clb: ClassicPortWorld, port: int) -> None:
    data = clb.started()
    shift(clb, data)
    clb.forward_to(port)
    before = clb.front()
    with pytest.raises(TrafficChanged):
        clb.run("check_bake", data)
    clb.now += 5
    if port == THIRD:
        assert not clb.until_over("roll_back", data)["as_before"]
        assert clb.front() == before


def test_05_an_old_colour_made_live_again_is_not_drained(clb: ClassicPortWorld) -> None:
    data = clb.started()
    shift(clb, data)
    data["shift"] |= {"status": "baked", "proved_at": clb.now}
    clb.forward_to(PORTS[BLUE])
    clb.now += 100
    with pytest.raises(TrafficChanged, match="given blue traffic again"):
        clb.run("drain_old_color", data)
    assert clb.service(BLUE)["desiredCount"] == 3


# CheckBake


def test_an_unhealthy_instance_is_named_at_the_deadline(clb: ClassicPortWorld) -> None:
    data = clb.started()
    shift(clb, data)
    ill = clb.account.instances[1]
    clb.ill = {ill: FAILED}
    clb.goes_on()
    with pytest.raises(IdleColorUnhealthy) as failed:
        clb.until_over("check_bake", data)
    assert "2 of 3 targets healthy" in str(failed.value)
    assert f"target {ill} is unhealthy: Instance {FAILED[2]}" in str(failed.value)


def test_no_instance_in_service_is_given_up_at_once(clb: ClassicPortWorld) -> None:
    data = clb.started()
    shift(clb, data)
    clb.ill = dict.fromkeys(clb.account.instances, FAILED)
    clb.goes_on()
    with pytest.raises(IdleColorUnhealthy, match="no healthy target is left under traffic"):
        clb.run("check_bake", data)


# The first deployment: no instance serves, whoever is asked


def test_the_health_check_goes_first_where_nobody_serves(clb: ClassicPortWorld) -> None:
    nothing_live(clb)
    data = clb.started()
    assert shift(clb, data)["status"] == "waiting"
    assert clb.place_of_users() == (PORTS[BLUE], "HTTP:18082/healthz")
    assert FAILED[2] in data["shift"]["reason"]
    assert shift(clb, data)["status"] == "waiting", "the checks have not been passed yet"
    assert clb.place_of_users()[0] == PORTS[BLUE]
    assert clb.until_over("shift_traffic", data)["status"] == "shifted"
    assert clb.place_of_users() == AT_GREEN
    assert set(clb.shown.values()) == {IN_SERVICE}
    assert clb.until_over("check_bake", data)["status"] == "baked"


def test_24_instances_that_never_serve_are_named_at_the_deadline(clb: ClassicPortWorld) -> None:
    nothing_live(clb)
    clb.ill = dict.fromkeys(clb.account.instances, FAILED)
    data, before = clb.started(), clb.front()
    with pytest.raises(IdleColorUnhealthy) as failed:
        clb.until_over("shift_traffic", data)
    assert str(failed.value).startswith("green, at the load balancer: no instance is InService: ")
    assert f"{clb.account.instances[0]}: {FAILED[2]}" in str(failed.value)
    assert 600 < clb.now - START < 680
    assert clb.until_over("roll_back", data)["as_before"]
    assert clb.front() == before


def test_a_load_balancer_without_instances_is_told(clb: ClassicPortWorld) -> None:
    clb.balancer.instance_sparse_ids.clear()
    clb.shown.clear()
    data = clb.started()
    shift(clb, data)
    assert shift(clb, data)["reason"] == "it has no instances"


# RollBack


def everything(clb: ClassicPortWorld) -> dict[str, Any]:
    running = {color: clb.service(color)["runningCount"] for color in (BLUE, GREEN)}
    return clb.front() | {"services": clb.services(), "running": running}


def planned(clb: ClassicPortWorld) -> dict[str, Any]:
    data = clb.plan()
    data["task_definition"] = clb.run("register_task_definition", data)
    return data


def started(clb: ClassicPortWorld) -> dict[str, Any]:
    return clb.started()


def lost_with_the_check_ahead(clb: ClassicPortWorld) -> dict[str, Any]:
    data = clb.started()
    lost_after(clb, "ConfigureHealthCheck", data)
    assert clb.place_of_users() == (PORTS[BLUE], "HTTP:18082/healthz")
    return data


def lost_in_the_gap(clb: ClassicPortWorld) -> dict[str, Any]:
    data = clb.started()
    lost_after(clb, "DeleteLoadBalancerListeners", data)
    assert clb.place_of_users() == (None, "HTTP:18082/healthz")
    return data


def lost_before_the_policies(clb: ClassicPortWorld) -> dict[str, Any]:
    data = clb.started()
    lost_after(clb, "CreateLoadBalancerListeners", data)
    [listener] = clb.front()["ListenerDescriptions"]
    assert listener["PolicyNames"] != [STICKY, CIPHERS]
    return data


def refused_policies(clb: ClassicPortWorld) -> dict[str, Any]:
    data = clb.started()
    clb.fault("elb", "SetLoadBalancerPoliciesOfListener", "denied", times=2)
    with pytest.raises(AwsRefused):
        shift(clb, data)
    return data


def shifted(clb: ClassicPortWorld) -> dict[str, Any]:
    data = clb.started()
    shift(clb, data)
    return data


def baked(clb: ClassicPortWorld) -> dict[str, Any]:
    data = shifted(clb)
    clb.until_over("check_bake", data)
    return clb.run("plan_roll_back", UNDO, "undo")


def ended(clb: ClassicPortWorld) -> dict[str, Any]:
    data = shifted(clb)
    clb.until_over("check_bake", data)
    clb.until_over("drain_old_color", data)
    clb.run("record_outcome", data)
    assert clb.service(BLUE)["desiredCount"] == 0
    return clb.run("plan_roll_back", UNDO, "undo")


POINTS = [
    planned,
    started,
    lost_with_the_check_ahead,
    lost_in_the_gap,
    lost_before_the_policies,
    refused_policies,
    shifted,
    baked,
    ended,
]


def restore(clb: ClassicPortWorld, data: dict[str, Any]) -> dict[str, Any]:
    return clb.until_over("roll_back", data, "undo" if "recovery" in data else "d-1")


@pytest.mark.parametrize("at", POINTS)
def test_15_everything_is_as_before_from_wherever_it_stopped(
    clb: ClassicPortWorld, at: Callable[[ClassicPortWorld], dict[str, Any]]
) -> None:
    before = everything(clb)
    data = at(clb)
    answer = restore(clb, data)
    assert (answer["status"], answer["as_before"]) == ("restored", True)
    assert everything(clb) == before
    assert clb.running(GREEN) == []
    assert clb.place_of_users() == AT_BLUE


def test_15_the_health_check_of_a_first_deployment_that_was_stopped_goes_back(
    clb: ClassicPortWorld,
) -> None:
    nothing_live(clb)
    before = everything(clb)
    data = clb.started()
    assert shift(clb, data)["status"] == "waiting"
    assert clb.front() != {key: before[key] for key in ("ListenerDescriptions", "HealthCheck")}
    assert restore(clb, data)["as_before"]
    assert everything(clb) == before


def test_15_a_listener_lost_on_the_way_back_is_made_by_the_next_attempt(
    clb: ClassicPortWorld,
) -> None:
    before = everything(clb)
    data = shifted(clb)

    def ends() -> None:
        raise LostError

    clb.meanwhile("elb", "DeleteLoadBalancerListeners", ends)
    with pytest.raises(LostError):
        restore(clb, data)
    assert clb.place_of_users()[0] is None
    assert restore(clb, data)["as_before"]
    assert everything(clb) == before


def test_15_policies_lost_on_the_way_back_are_set_by_the_next_attempt(
    clb: ClassicPortWorld,
) -> None:
    before = everything(clb)
    data = shifted(clb)

    def ends() -> None:
        raise LostError

    clb.meanwhile("elb", "CreateLoadBalancerListeners", ends)
    with pytest.raises(LostError):
        restore(clb, data)
    assert clb.place_of_users() == AT_BLUE
    assert restore(clb, data)["as_before"]
    assert everything(clb) == before


@pytest.mark.parametrize("kind", ["throttle", "error500", "timeout"])
@pytest.mark.parametrize(
    "operation",
    ["ConfigureHealthCheck", "DeleteLoadBalancerListeners", "CreateLoadBalancerListeners"],
)
def test_15_a_call_that_fails_on_the_way_back_is_gone_through_again(
    clb: ClassicPortWorld, operation: str, kind: Any
) -> None:
    before = everything(clb)
    data = shifted(clb)
    clb.fault("elb", operation, kind)
    with pytest.raises(AwsUnavailable):
        restore(clb, data)
    assert clb.place_of_users()[0] is not None, "one of them is there"
    assert restore(clb, data)["as_before"]
    assert everything(clb) == before


def test_15_by_hand_the_listener_waits_until_the_old_tasks_run(clb: ClassicPortWorld) -> None:
    """Nobody checks their port as long as the new colour is live."""
    data = ended(clb)
    old = next(one for one in clb.backend.services.values() if one.name == "web-blue")
    for _ in range(5):
        data["rollback"] = clb.run("roll_back", data, "undo")
        old.running_count = 0
        clb.now += data["rollback"]["wait_seconds"]
        assert clb.place_of_users() == AT_GREEN
    assert clb.service(BLUE)["desiredCount"] == 3
    old.running_count = 3
    assert restore(clb, data)["as_before"]
    assert clb.place_of_users() == AT_BLUE


def test_15_by_hand_the_new_colour_stays_if_the_old_tasks_never_run(clb: ClassicPortWorld) -> None:
    data = ended(clb)
    old = next(one for one in clb.backend.services.values() if one.name == "web-blue")

    def until_it_fails() -> None:
        for _ in range(2000):
            data["rollback"] = clb.run("roll_back", data, "undo")
            old.running_count = 0
            clb.now += 20

    with pytest.raises(RollBackIncomplete, match="0 of 3 targets of the old colour healthy"):
        until_it_fails()
    assert clb.place_of_users() == AT_GREEN
