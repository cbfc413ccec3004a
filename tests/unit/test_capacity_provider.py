"""Capacity providers of a service: whose instances they use."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.capacity_provider import names_of, unfit

GROUP = "web-green"


def group_arn(name: str) -> str:
    return (
        "arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:"
        f"6e8d1f0c-0000-4000-8000-000000000000:autoScalingGroupName/{name}"
    )


def provider(name: str, group: str = GROUP, **more: Any) -> dict[str, Any]:
    """As DescribeCapacityProviders shows it."""
    return {
        "name": name,
        "status": "ACTIVE",
        "autoScalingGroupProvider": {
            "autoScalingGroupArn": group_arn(group),
            "managedScaling": {"status": "ENABLED", "targetCapacity": 100},
            "managedTerminationProtection": "DISABLED",
            "managedDraining": "ENABLED",
        },
    } | more


def service(*names: str, **more: Any) -> dict[str, Any]:
    """As DescribeServices shows it: a strategy, or a launch type, and never both."""
    strategy = [{"capacityProvider": name, "weight": 1, "base": 0} for name in names]
    return ({"capacityProviderStrategy": strategy} if names else {}) | more


def known(*providers: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in providers}


def test_the_providers_are_those_of_the_strategy() -> None:
    assert names_of(service("web-a", "web-b")) == ["web-a", "web-b"]
    assert names_of(service(launchType="EC2")) == []
    assert names_of({"capacityProviderStrategy": []}) == []


def test_a_provider_of_the_colours_own_group_fits() -> None:
    assert list(unfit(service("web-green"), GROUP, known(provider("web-green")))) == []


def test_a_service_of_launch_type_ec2_fits_without_providers() -> None:
    assert list(unfit(service(launchType="EC2"), GROUP, {})) == []


@pytest.mark.parametrize("launch_type", ["FARGATE", "EXTERNAL"])
def test_a_launch_type_that_needs_no_group_does_not_fit(launch_type: str) -> None:
    (found,) = unfit(service(launchType=launch_type), GROUP, {})
    assert found == (
        f"launch type {launch_type} runs the tasks elsewhere than on the group's instances"
    )


@pytest.mark.parametrize("name", ["FARGATE", "FARGATE_SPOT"])
@pytest.mark.parametrize("described", [True, False])
def test_fargate_does_not_fit(name: str, described: bool) -> None:
    providers = known({"name": name, "status": "ACTIVE"}) if described else {}
    (found,) = unfit(service(name), GROUP, providers)
    assert found.startswith(f"capacity provider {name} runs the tasks elsewhere")


def test_a_provider_of_another_group_is_named_with_both_groups() -> None:
    (found,) = unfit(service("cp-1"), GROUP, known(provider("cp-1", "web-blue")))
    assert found == (
        "capacity provider cp-1 places the tasks on instances of group web-blue, not of "
        "web-green; give the service a provider of web-green"
    )


@pytest.mark.parametrize("other", ["web-green-2", "x/web-green", "green"])
def test_a_group_whose_name_looks_alike_is_another_one(other: str) -> None:
    (found,) = unfit(service("cp-1"), GROUP, known(provider("cp-1", other)))
    assert f"of group {other}, not of {GROUP}" in found


@pytest.mark.parametrize("status", ["PROVISIONING", "DEPROVISIONING", "INACTIVE"])
def test_a_provider_that_is_not_active_does_not_fit(status: str) -> None:
    (found,) = unfit(service("cp-1"), GROUP, known(provider("cp-1", status=status)))
    assert found == f"capacity provider cp-1 is {status}, so that no task can be placed"


def test_a_provider_that_does_not_exist_does_not_fit() -> None:
    (found,) = unfit(service("cp-1"), GROUP, {})
    assert found == "capacity provider cp-1 is not there, so that no task can be placed"


def test_a_provider_with_instances_of_its_own_does_not_fit() -> None:
    managed = {"name": "cp-1", "status": "ACTIVE", "managedInstancesProvider": {}}
    (found,) = unfit(service("cp-1"), GROUP, known(managed))
    assert found == "capacity provider cp-1 has instances of its own, not those of the group"


def test_every_provider_of_the_strategy_has_to_fit() -> None:
    providers = known(provider("own"), provider("other", "web-blue"))
    found = list(unfit(service("own", "other", "gone"), GROUP, providers))
    assert [line.split()[2] for line in found] == ["other", "gone"]
