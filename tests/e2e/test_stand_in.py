"""The sandbox's load balancer does what AWS does: so what is tested on it holds there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from tests.e2e.running import Running

HEADER = "X-Stand-In"


@dataclass
class Balancer:
    """Target groups and rules beside those of the example, on its listener.

    ``target`` is a task of the live colour: an instance and a host port.
    """

    sandbox: Running
    elbv2: Any
    listener: dict[str, Any]
    target: dict[str, Any]
    rules: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def group(self, path: str = "/healthz", delay: int = 0) -> str:
        """A target group without targets; ``delay`` is its deregistration delay in seconds."""
        arn: str = self.elbv2.create_target_group(
            Name=f"stand-in-{len(self.groups)}",
            Protocol="HTTP",
            Port=80,
            VpcId=self._vpc(),
            HealthCheckPath=path,
            HealthCheckIntervalSeconds=5,
            HealthCheckTimeoutSeconds=2,
            HealthyThresholdCount=2,
            UnhealthyThresholdCount=2,
        )["TargetGroups"][0]["TargetGroupArn"]
        self.groups.append(arn)
        self.elbv2.modify_target_group_attributes(
            TargetGroupArn=arn,
            Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": str(delay)}],
        )
        return arn

    def rule(self, *groups: str, priority: int = 50) -> str:
        """A rule for the requests of ``get``: all to the first group."""
        arn: str = self.elbv2.create_rule(
            ListenerArn=self.listener["ListenerArn"],
            Priority=priority,
            Conditions=[
                {
                    "Field": "http-header",
                    "HttpHeaderConfig": {"HttpHeaderName": HEADER, "Values": ["yes"]},
                }
            ],
            Actions=forward({group: int(group == groups[0]) for group in groups}),
        )["Rules"][0]["RuleArn"]
        self.rules.append(arn)
        return arn

    def delete_rule(self, arn: str) -> None:
        self.elbv2.delete_rule(RuleArn=arn)
        self.rules.remove(arn)

    def register(self, group: str) -> None:
        self.elbv2.register_targets(TargetGroupArn=group, Targets=[self.target])

    def deregister(self, group: str) -> None:
        self.elbv2.deregister_targets(TargetGroupArn=group, Targets=[self.target])

    def health(self, group: str) -> dict[str, str]:
        """State, reason and description of its one target; empty when it has none."""
        described = self.elbv2.describe_target_health(TargetGroupArn=group)
        for one in described["TargetHealthDescriptions"]:
            return dict(one["TargetHealth"])
        return {}

    def wait_until_healthy(self, group: str) -> None:
        wait_until(lambda: self.health(group)["State"] == "healthy")

    def get(self, path: str = "") -> requests.Response:
        return requests.get(self.sandbox.url + path, headers={HEADER: "yes"}, timeout=10)

    def _vpc(self) -> str:
        groups = self.elbv2.describe_target_groups(Names=["web-blue"])["TargetGroups"]
        return str(groups[0]["VpcId"])

    def clean(self) -> None:
        for arn in list(self.rules):
            self.delete_rule(arn)
        for arn in self.groups:
            self.elbv2.delete_target_group(TargetGroupArn=arn)


@pytest.fixture
def balancer(sandbox: Running) -> Iterator[Balancer]:
    elbv2 = sandbox.client("elbv2")
    (load_balancer,) = elbv2.describe_load_balancers(Names=["web"])["LoadBalancers"]
    listeners = elbv2.describe_listeners(LoadBalancerArn=load_balancer["LoadBalancerArn"])
    (listener,) = (one for one in listeners["Listeners"] if one["Port"] == 8080)
    live = elbv2.describe_target_health(TargetGroupArn=sandbox.target_group(sandbox.live()))
    made = Balancer(sandbox, elbv2, listener, dict(live["TargetHealthDescriptions"][0]["Target"]))
    yield made
    made.clean()


def forward(weights: dict[str, int]) -> list[dict[str, Any]]:
    groups = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]
    return [{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}]


def wait_until(true: Callable[[], bool], seconds: float = 10) -> float:
    """Seconds until it is true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_group_without_targets_answers_503(balancer: Balancer) -> None:
    balancer.rule(balancer.group())
    wait_until(lambda: balancer.get().status_code != 200)
    answer = balancer.get()
    assert answer.status_code == 503
    assert answer.headers["Server"] == "awselb/2.0"
    assert "503 Service Temporarily Unavailable" in answer.text


def test_with_no_healthy_target_it_fails_open(balancer: Balancer) -> None:
    group = balancer.group(path="/not-there")
    balancer.rule(group)
    balancer.register(group)
    wait_until(lambda: balancer.health(group)["State"] == "unhealthy")
    assert balancer.health(group) == {
        "State": "unhealthy",
        "Reason": "Target.ResponseCodeMismatch",
        "Description": "Health checks failed with these codes: [404]",
    }
    assert balancer.get().status_code == 200


def test_targets_of_a_group_on_no_listener_are_unused(balancer: Balancer) -> None:
    group = balancer.group(delay=30)
    balancer.register(group)
    for _ in range(2):
        wait_until(lambda: balancer.health(group)["State"] == "unused")
        assert balancer.health(group)["Reason"] == "Target.NotInUse"
        rule = balancer.rule(group)
        balancer.wait_until_healthy(group)
        assert balancer.get().status_code == 200
        balancer.delete_rule(rule)
    wait_until(lambda: balancer.health(group)["State"] == "unused")
    balancer.deregister(group)
    assert balancer.health(group) == {}  # whatever the delay: nothing can be in flight


def test_a_deregistered_target_drains_for_the_whole_delay(balancer: Balancer) -> None:
    group = balancer.group(delay=3)
    balancer.rule(group)
    balancer.register(group)
    balancer.wait_until_healthy(group)
    with ThreadPoolExecutor() as pool:
        short = pool.submit(balancer.get, "?sleep=1500")
        long = pool.submit(balancer.get, "?sleep=5000")
        time.sleep(0.3)
        balancer.deregister(group)
        assert balancer.get().status_code == 503
        assert balancer.health(group) == {
            "State": "draining",
            "Reason": "Target.DeregistrationInProgress",
            "Description": "Target deregistration is in progress",
        }
        assert short.result().status_code == 200
        took = wait_until(lambda: balancer.health(group) == {})
        assert 1 < took < 3.5
        assert long.result().status_code == 502


def test_a_draining_target_can_be_registered_again(balancer: Balancer) -> None:
    group = balancer.group(delay=60)
    balancer.rule(group)
    balancer.register(group)
    balancer.wait_until_healthy(group)
    balancer.deregister(group)
    balancer.register(group)
    balancer.wait_until_healthy(group)
    assert balancer.get().status_code == 200


@pytest.mark.parametrize("moved", ["rule", "listener"])
def test_accepted_is_not_effective(balancer: Balancer, moved: str) -> None:
    """The API shows new weights at once, of a rule or a listener; requests follow later."""
    target, empty = balancer.group(), balancer.group()
    rule = balancer.rule(target, empty)
    balancer.register(target)
    balancer.wait_until_healthy(target)
    actions = forward({target: 0, empty: 1})
    default = balancer.listener["DefaultActions"]

    def arrived() -> bool:
        if moved == "rule":
            return balancer.get().status_code == 503
        return requests.get(balancer.sandbox.url, timeout=10).status_code == 503

    try:
        with balancer.sandbox.faults("propagation_lag", seconds=1.5):
            if moved == "rule":
                (shown,) = balancer.elbv2.modify_rule(RuleArn=rule, Actions=actions)["Rules"]
            else:
                (listener,) = balancer.elbv2.modify_listener(
                    ListenerArn=balancer.listener["ListenerArn"], DefaultActions=actions
                )["Listeners"]
                shown = {"Actions": listener["DefaultActions"]}
            weights = shown["Actions"][0]["ForwardConfig"]["TargetGroups"]
            assert [group["Weight"] for group in weights] == [0, 1]
            assert 1.4 < wait_until(arrived) < 3
    finally:
        balancer.elbv2.modify_listener(
            ListenerArn=balancer.listener["ListenerArn"], DefaultActions=default
        )
    wait_until(lambda: requests.get(balancer.sandbox.url, timeout=10).status_code == 200)


def test_rules_come_and_go_and_no_request_is_lost(balancer: Balancer) -> None:
    groups = [balancer.group(delay=1) for _ in range(2)]
    kept = requests.Session()
    with balancer.sandbox.under_load():
        for turn in range(6):
            group, other = groups[turn % 2], groups[1 - turn % 2]
            balancer.register(group)
            rule = balancer.rule(group, other, priority=60 + turn)
            balancer.wait_until_healthy(group)
            url = balancer.sandbox.url
            for ask in (requests.get, kept.get):
                assert ask(url, headers={HEADER: "yes"}, timeout=10).status_code == 200
            balancer.elbv2.modify_rule(RuleArn=rule, Actions=forward({group: 0, other: 1}))
            wait_until(lambda: balancer.get().status_code == 503)
            balancer.deregister(group)
            balancer.delete_rule(rule)
            wait_until(lambda: balancer.get().status_code == 200)


def test_nothing_is_collected_without_the_option_metrics(sandbox: Running) -> None:
    """Every sandbox has the functions; what they would call is in the operation log."""
    before = len(sandbox.operations())
    ran = sandbox.control("POST", "sweep", {})
    assert [one["answer"] for one in ran if "PushContainerMetrics" in one["target"]] == [
        {"clusters": []}
    ]
    assert sandbox.control("POST", "settle", {"seconds": 10})["settled"] is True

    new = sandbox.operations()[before:]
    calls = [one for one in new if "ContainerMetrics" in one["function"]]
    assert {f"{one['service']}:{one['operation']}" for one in calls} == {"ssm:GetParametersByPath"}
