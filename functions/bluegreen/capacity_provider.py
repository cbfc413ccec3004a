"""The capacity providers of a service: do its tasks come onto the hosts of its colour? Pure
decisions; bluegreen/ecs.py asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_FARGATE = frozenset({"FARGATE", "FARGATE_SPOT"})


def names_of(service: Mapping[str, Any]) -> list[str]:
    """The providers that a service is placed with, none for one with a launch type.

    A service that was made without either has got its cluster's default strategy, and
    DescribeServices shows it: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/
    API_CreateService.html#ECS-CreateService-request-capacityProviderStrategy
    """
    return [one["capacityProvider"] for one in service.get("capacityProviderStrategy", [])]


def unfit(
    service: Mapping[str, Any], group: str, providers: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """What keeps a service's tasks from the instances of a group, or may do so.

    service: DescribeServices; group: name of the Auto Scaling group; providers: name →
    DescribeCapacityProviders, those that exist.
    """
    names = names_of(service)
    launch_type = service.get("launchType", "EC2")
    if not names and launch_type != "EC2":
        yield f"launch type {launch_type} runs the tasks elsewhere than on the group's instances"
    for name in names:
        found = providers.get(name)
        if name in _FARGATE:
            yield f"capacity provider {name} runs the tasks elsewhere than on the group's instances"
        elif found is None or found["status"] != "ACTIVE":
            status = found["status"] if found else "not there"
            yield f"capacity provider {name} is {status}, so that no task can be placed"
        elif "autoScalingGroupProvider" not in found:
            yield f"capacity provider {name} has instances of its own, not those of the group"
        elif (other := _group_of(found)) != group:
            yield (
                f"capacity provider {name} places the tasks on instances of group {other}, not of "
                f"{group}; give the service a provider of {group}"
            )


def _group_of(provider: Mapping[str, Any]) -> str:
    """Name of the Auto Scaling group of a provider, which has its ARN."""
    arn: str = provider["autoScalingGroupProvider"]["autoScalingGroupArn"]
    return arn.rpartition(":autoScalingGroupName/")[2]
