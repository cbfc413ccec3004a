"""Auto Scaling groups that are attached to a Classic Load Balancer and detached again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.e2e.running import left_over
from tests.sandbox.two_clusters import BLUE, GREEN, TwoClusters, wait_until

BALANCER = "web"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[TwoClusters]:
    """Each group has an instance with a task."""
    number = 130 + int(worker_id.removeprefix("gw") if worker_id != "master" else 0)
    sandbox = TwoClusters(tmp_path_factory.mktemp("classic"), f"127.0.{number}")
    try:
        sandbox.start("--balancer", "clb")
        for name in (BLUE, GREEN):
            sandbox.resize(1, name)
        for name in (BLUE, GREEN):
            sandbox.settle(1, name)
            sandbox.run(1, name)
        for name in (BLUE, GREEN):
            wait_until(lambda name=name: len(sandbox.places(name)) == 1)  # type: ignore[misc]
        yield sandbox
    finally:
        sandbox.stop()
    assert left_over(sandbox.network) == []


def attached(sandbox: TwoClusters, name: str) -> dict[str, str]:
    """State by load balancer."""
    described = sandbox.scaling.describe_load_balancers(AutoScalingGroupName=name)
    return {one["LoadBalancerName"]: one["State"] for one in described["LoadBalancers"]}


def registered(sandbox: TwoClusters) -> dict[str, str]:
    """State by instance."""
    described = sandbox.client("elb").describe_instance_health(LoadBalancerName=BALANCER)
    return {one["InstanceId"]: one["State"] for one in described["InstanceStates"]}


def test_a_group_is_attached_and_another_detached(sandbox: TwoClusters) -> None:
    (blue,), (green,) = sandbox.in_service(BLUE), sandbox.in_service(GREEN)
    names = {"LoadBalancerNames": [BALANCER]}
    assert attached(sandbox, BLUE) == {}

    sandbox.scaling.attach_load_balancers(AutoScalingGroupName=BLUE, **names)
    assert attached(sandbox, BLUE) == {BALANCER: "Adding"}
    wait_until(lambda: attached(sandbox, BLUE) == {BALANCER: "Added"})
    assert sandbox.group(BLUE)["LoadBalancerNames"] == [BALANCER]
    wait_until(lambda: registered(sandbox) == {blue: "InService"})
    wait_until(lambda: requests.get(sandbox.about["url"], timeout=5).ok)

    sandbox.scaling.attach_load_balancers(AutoScalingGroupName=GREEN, **names)
    wait_until(lambda: registered(sandbox) == {blue: "InService", green: "InService"})
    sandbox.scaling.detach_load_balancers(AutoScalingGroupName=BLUE, **names)
    assert sandbox.group(BLUE)["LoadBalancerNames"] == []
    assert set(attached(sandbox, BLUE).values()) <= {"Removing"}
    wait_until(lambda: attached(sandbox, BLUE) == {})
    wait_until(lambda: registered(sandbox) == {green: "InService"})
    assert sandbox.in_service(BLUE) == [blue], "it goes on to run"
    assert requests.get(sandbox.about["url"], timeout=5).ok


def test_instances_come_and_go_at_the_load_balancer_with_their_group(
    sandbox: TwoClusters,
) -> None:
    names = {"LoadBalancerNames": [BALANCER]}
    sandbox.scaling.attach_load_balancers(AutoScalingGroupName=GREEN, **names)
    wait_until(lambda: set(sandbox.in_service(GREEN)) <= set(registered(sandbox)))
    sandbox.resize(2, GREEN)
    sandbox.settle(2, GREEN)
    wait_until(lambda: set(sandbox.in_service(GREEN)) == set(registered(sandbox)))
    sandbox.resize(0, GREEN)
    wait_until(lambda: registered(sandbox) == {})
    wait_until(lambda: sandbox.group(GREEN)["Instances"] == [])
