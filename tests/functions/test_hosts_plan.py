"""PlanDeployment with a proxy on every host: they are asked, and all of them have to answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bluegreen.errors import AwsUnavailable, DeploymentRefused
from runtime import clients
from tests.functions.fleet import Host
from tests.functions.host_world import ALL_BLUE, ALL_GREEN, HostWorld
from tests.functions.world import BLUE, GREEN, START

REQUEST = {"request": {"service": "web", "images": {"web": "v2"}}}


def refused(hosts: HostWorld) -> str:
    with pytest.raises(DeploymentRefused) as failed:
        hosts.plan()
    return str(failed.value)


def test_hosts_are_asked_in_one_pass_and_answer_at_the_next(hosts: HostWorld) -> None:
    first = hosts.run("plan_deployment", REQUEST)
    assert (first["decision"], first["reason"]) == ("waiting", "the hosts are being asked")
    assert hosts.record().deployment is None
    assert hosts.store.lock("web") is None, "looking disturbs nobody"
    hosts.now += first["wait_seconds"]
    plan = hosts.run("plan_deployment", {**REQUEST, "deployment": first})
    assert (plan["decision"], plan["from_color"], plan["to_color"]) == ("deploy", "blue", "green")
    assert plan["snapshot"]["traffic"] == {"blue": 100, "green": 0}
    assert (plan["location"], plan["target_groups"]) == (None, {})
    assert plan["load_balancer_dns"] == "", "there is no probe"
    assert hosts.record().deployment
    assert hosts.lock.deployment_id == "d-1"


def test_nothing_is_changed_by_a_plan(hosts: HostWorld) -> None:
    before = hosts.wanted
    hosts.plan()
    assert hosts.traffic() == [ALL_BLUE] * 3
    assert {verb for host in hosts.hosts for verb in host.told} == {"report"}
    assert hosts.wanted == before


def test_the_roles_alternate(hosts: HostWorld) -> None:
    for host in hosts.hosts:
        host.weights = dict(ALL_GREEN)
    plan = hosts.plan()["deployment"]
    assert (plan["from_color"], plan["to_color"]) == ("green", "blue")


def test_the_very_first_deployment_goes_to_blue(hosts: HostWorld) -> None:
    for host in hosts.hosts:
        host.weights = {}
    hosts.scale(BLUE, 0)
    plan = hosts.plan()["deployment"]
    assert (plan["from_color"], plan["to_color"]) == (None, "blue")
    assert plan["snapshot"]["traffic"] == {"blue": 0, "green": 0}


def all_end(hosts: HostWorld) -> None:
    for host in hosts.hosts:
        hosts.ends(host)


def all_are_emptied(hosts: HostWorld) -> None:
    for host in hosts.hosts:
        hosts.empties(host)
    hosts.runs(BLUE, on=[])


def one(**state: Any) -> Callable[[HostWorld], None]:
    def change(hosts: HostWorld) -> None:
        for name, value in state.items():
            setattr(hosts.hosts[1], name, value)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (all_end, "cluster 'web' has no container instances that take tasks"),
        (all_are_emptied, "cluster 'web' has no container instances that take tasks"),
        (
            one(weights=ALL_GREEN),
            "the hosts do not agree on the traffic: blue 100, green 0 on 2 of them, such as i-1; "
            "blue 0, green 100 on 1 of them, such as i-2. Terminate those that are wrong, or roll "
            "back the deployment that left it so",
        ),
        (
            one(proxy={"proxy": "haproxy", "protocol": "http", "port": 8080, "dynamic": True}),
            "host i-2: proxy is 'haproxy' there, 'nginx' in the service configuration; "
            "configure the host again (docs/hosts.md); "
            "host i-2: dynamic is True there, False in the service configuration; "
            "configure the host again (docs/hosts.md); "
            "host i-2: ports is None there, {'blue': [18081], 'green': [18082]} in the service "
            "configuration; configure the host again (docs/hosts.md)",
        ),
    ],
)
def test_hosts_that_are_not_fit_refuse_it_and_nothing_is_waited_for(
    hosts: HostWorld, change: Callable[[HostWorld], None], says: str
) -> None:
    change(hosts)
    assert refused(hosts) == says
    assert hosts.now == START + 1
    assert hosts.store.lock("web") is None


def test_traffic_that_is_split_on_all_hosts_is_no_beginning(hosts: HostWorld) -> None:
    for host in hosts.hosts:
        host.weights = {BLUE: 90, GREEN: 10}
    assert "the traffic is split between the colours (blue 90, green 10)" in refused(hosts)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one(silent=True), "host i-2 does not say what it does: SSM says "),
        (one(registered=False), "host i-2 does not say what it does: no command reaches it: its"),
        (one(tagged=False), "host i-2 does not say what it does: no command reaches it: its SSM"),
        (one(running="nginx does not run"), "host i-2: nginx does not run"),
        (one(restored=False), "host i-2: it has not read its weights since it booted"),
        (
            one(refuses={"report": "/var/lib/ecs-bluegreen/web/host.json is not there"}),
            "host i-2 does not say what it does: /var/lib/ecs-bluegreen/web/host.json is not there",
        ),
    ],
    ids=["silent", "not registered", "not tagged", "no proxy", "booting", "not installed"],
)
def test_17_a_host_that_may_still_become_fit_is_asked_until_its_time_is_over(
    hosts: HostWorld, change: Callable[[HostWorld], None], says: str
) -> None:
    hosts.configure(router={"answer_seconds": 6})
    change(hosts)
    assert refused(hosts).startswith(says)
    assert START + 6 <= hosts.now < START + 20
    assert hosts.store.lock("web") is None


def test_17_a_host_that_answers_late_is_in_time(hosts: HostWorld) -> None:
    host = hosts.hosts[1]
    host.silent = True
    hosts.fleet.at(START + 25, lambda _: setattr(host, "silent", False))
    assert hosts.plan()["deployment"]["decision"] == "deploy"
    assert hosts.now >= START + 25


def test_17_a_host_that_ec2_has_ended_is_neither_asked_nor_waited_for(hosts: HostWorld) -> None:
    """ECS still lists it, and SSM would leave its command pending for ever."""
    gone = hosts.hosts[1]
    hosts.ends(gone)
    assert hosts.plan()["deployment"]["decision"] == "deploy"
    assert hosts.now == START + 1
    assert gone.told == []


def test_17_a_host_that_ends_after_it_was_asked_is_not_waited_for(hosts: HostWorld) -> None:
    data: dict[str, Any] = {**REQUEST, "deployment": hosts.run("plan_deployment", REQUEST)}
    hosts.ends(hosts.hosts[1])
    assert hosts.until_over("plan_deployment", data)["decision"] == "deploy"
    assert hosts.now < START + 3


def test_17_a_command_that_ssm_does_not_list_at_once_is_not_taken_for_silence(
    hosts: HostWorld,
) -> None:
    hosts.fleet.listed_after = 2
    assert hosts.plan()["deployment"]["decision"] == "deploy"
    assert len(hosts.fleet.sent("report")) == 1


def test_17_one_instance_that_ssm_refuses_does_not_keep_the_others_from_being_asked(
    hosts: HostWorld,
) -> None:
    """InvalidInstanceId, for all of them: one has ended since EC2 and SSM were asked."""
    gone = hosts.hosts[1]
    hosts.meanwhile("ssm", "DescribeInstanceInformation", lambda: hosts.ends(gone))
    assert hosts.plan()["deployment"]["decision"] == "deploy"
    assert hosts.now == START + 1
    asked = {one for command in hosts.fleet.sent("report") for one in command.invocations}
    assert asked == {"i-1", "i-3"}


def test_14_a_host_that_is_booting_is_waited_for(hosts: HostWorld) -> None:
    booting = hosts.boots()
    hosts.fleet.at(START + 20, lambda now: booting.restore(hosts.wanted, now))
    assert hosts.plan()["deployment"]["decision"] == "deploy"
    assert START + 20 <= hosts.now < START + 25


def test_20_what_hosts_said_before_somebody_else_had_the_lock_is_asked_again(
    hosts: HostWorld,
) -> None:
    data: dict[str, Any] = {**REQUEST, "deployment": hosts.run("plan_deployment", REQUEST)}
    other = hosts.plan("d-2")
    for host in hosts.hosts:
        host.weights = dict(ALL_GREEN)
    hosts.store.release("web", other["deployment"]["fencing"])
    hosts.scale(GREEN, 3)
    assert hosts.until_over("plan_deployment", data)["from_color"] == "green"


PUSH = {**REQUEST["request"], "started_by": {"kind": "push"}}


def waits_behind(hosts: HostWorld, **other: Any) -> dict[str, Any]:
    """The data of a push that has waited for twenty minutes for the lock of d-2, which is free."""
    fencing = hosts.plan("d-2", **other)["deployment"]["fencing"]
    data: dict[str, Any] = {"request": PUSH}
    until = hosts.now + 1200
    while hosts.now < until:
        data["deployment"] = hosts.run("plan_deployment", data)
        hosts.now += data["deployment"]["wait_seconds"]
    hosts.store.close("d-2", "rolled_back", "no", hosts.now, fencing)
    hosts.store.release("web", fencing)
    return data


def test_17_hosts_have_all_of_their_time_after_a_wait_for_the_lock(hosts: HostWorld) -> None:
    data = waits_behind(hosts, images={"web": "v1"}, overrides={"cpu": "256"})
    host, free_since = hosts.hosts[1], hosts.now
    host.silent = True
    hosts.fleet.at(free_since + 25, lambda _: setattr(host, "silent", False))
    assert hosts.until_over("plan_deployment", data)["decision"] == "deploy"
    assert hosts.now >= free_since + 25


def test_22_what_was_waited_for_is_remembered_while_hosts_are_asked(hosts: HostWorld) -> None:
    data = waits_behind(hosts)
    with pytest.raises(DeploymentRefused, match=r"d-2, which was waited for, .* as rolled_back"):
        hosts.until_over("plan_deployment", data)
    assert (hosts.lock.held, hosts.record("d-1").deployment) == (False, None)


def test_what_hosts_said_long_ago_is_asked_again(hosts: HostWorld) -> None:
    """A pass that failed may be repeated minutes later."""
    data: dict[str, Any] = {**REQUEST, "deployment": hosts.run("plan_deployment", REQUEST)}
    hosts.now += 60
    for host in hosts.hosts:
        host.weights = dict(ALL_GREEN)
    assert hosts.until_over("plan_deployment", data)["from_color"] == "green"


def test_a_host_that_is_emptied_and_serves_nobody_does_not_matter(hosts: HostWorld) -> None:
    host = hosts.hosts[1]
    hosts.empties(host)
    host.weights, host.answers = {BLUE: 30, GREEN: 70}, dict.fromkeys((BLUE, GREEN), "refused")
    assert hosts.plan()["deployment"]["decision"] == "deploy"


def test_11_the_idle_colour_has_to_fit_on_every_host(hosts: HostWorld) -> None:
    for host in hosts.hosts:
        host.room = 64
    assert refused(hosts).startswith("the idle colour does not fit: 3 tasks wanted, room for 0 on")


def test_a_service_of_which_a_load_balancer_knows_the_tasks_is_refused(hosts: HostWorld) -> None:
    group = clients.elbv2().create_target_group(
        Name="web", Protocol="HTTP", Port=80, VpcId=hosts.account.vpc, TargetType="ip"
    )["TargetGroups"][0]["TargetGroupArn"]
    service = hosts.backend.services["web:web-green"]
    service.load_balancers = [{"targetGroupArn": group, "containerPort": 8000}]
    assert "green (web-green): the service registers its tasks with a load bal" in refused(hosts)


def test_the_load_balancer_that_a_probe_asks_has_to_be_there(hosts: HostWorld) -> None:
    hosts.configure(router={"load_balancer": {"name": "shop", "port": 443}})
    assert refused(hosts) == "there is no load balancer 'shop'"


def test_the_name_of_the_load_balancer_is_what_a_probe_asks(hosts: HostWorld) -> None:
    clients.elbv2().create_load_balancer(Name="web", Subnets=hosts.account.subnets)
    hosts.configure(router={"load_balancer": {"name": "web", "port": 8080}})
    assert hosts.plan()["deployment"]["load_balancer_dns"].startswith("web-1.")


def test_with_dynamic_ports_hosts_are_asked_about_the_tasks_of_each_colour(
    hosts: HostWorld,
) -> None:
    hosts.makes_ports_dynamic()
    hosts.plan()
    [command] = hosts.fleet.sent("report")
    assert command.order == {"Service": "web", "BlueTask": "web:2", "GreenTask": "web:1"}


def test_a_fault_while_hosts_are_asked_passes(hosts: HostWorld) -> None:
    hosts.fault("ssm", "SendCommand", "throttle")
    with pytest.raises(AwsUnavailable):
        hosts.plan()
    hosts.fault("ssm", "ListCommandInvocations", "error500")
    with pytest.raises(AwsUnavailable):
        hosts.plan()
    assert hosts.plan()["deployment"]["decision"] == "deploy"


def test_22_a_plan_that_failed_while_it_waited_was_refused_and_changed_nothing(
    hosts: HostWorld,
) -> None:
    """The key of the plan holds no plan yet: neither RollBack nor RecordOutcome may take it so."""
    hosts.hosts[0].weights = dict(ALL_GREEN)
    data: dict[str, Any] = {**REQUEST, "deployment": hosts.run("plan_deployment", REQUEST)}
    hosts.now += 1
    with pytest.raises(DeploymentRefused) as failed:
        hosts.run("plan_deployment", data)
    data["failure"] = {"Error": "DeploymentRefused", "Cause": str(failed.value)}
    data["rollback"] = hosts.run("roll_back", data)
    assert data["rollback"] == {"status": "nothing_to_restore", "reason": "nothing was changed"}
    answer = hosts.run("record_outcome", data)
    assert answer["outcome"] == "refused"
    assert answer["cause"].startswith("the hosts do not agree on the traffic: ")
    assert hosts.record().outcome == "refused"
    assert hosts.store.lock("web") is None


def test_22_one_that_failed_otherwise_while_it_waited_gives_no_lock_back_of_another(
    hosts: HostWorld,
) -> None:
    waiting = {**REQUEST, "deployment": hosts.run("plan_deployment", REQUEST)}
    hosts.plan("d-2")
    failed = {**waiting, "failure": {"Error": "AwsRefused", "Cause": "AccessDenied"}}
    failed["rollback"] = hosts.run("roll_back", failed)
    assert hosts.run("record_outcome", failed)["outcome"] == "failed"
    assert (hosts.lock.held, hosts.lock.deployment_id) == (True, "d-2")


def test_22_what_is_live_already_is_found_by_asking_too(hosts: HostWorld) -> None:
    data = hosts.baked()
    hosts.store.release("web", hosts.lock.fencing)
    second = hosts.plan("d-2")
    assert second["deployment"]["decision"] == "nothing_to_do"
    assert data["deployment"]["to_color"] == second["deployment"]["from_color"] == "green"


def test_a_host_is_what_it_reports(hosts: HostWorld) -> None:
    """The stand-in's own shape is that of the program (hosts/ecs_bluegreen_host.py)."""
    found: Host = hosts.hosts[0]
    assert set(found.report({}, START)) == {
        *("proxy", "protocol", "port", "ports", "dynamic", "generation", "weights"),
        *("switched_at", "staged", "answers", "connections", "running", "restored", "clock"),
    }
