"""Which capacity providers a service may have.

AWS's habits: a service has a launch type or a strategy, or else its cluster's default strategy, and
shows which; UpdateService with an empty strategy goes back to the launch type.
"""

from __future__ import annotations

from typing import Any

from moto.ecs.exceptions import InvalidParameterException

FARGATE = ("FARGATE", "FARGATE_SPOT")


def choose(cluster: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The launch type or the strategy of a service that is created so, or the changes to it by an
    update. cluster: moto's. Raises InvalidParameterException.
    """
    strategy = given.get("capacityProviderStrategy")
    if strategy and given.get("launchType"):
        raise InvalidParameterException(
            "Specifying both a launch type and capacity provider strategy is not supported. "
            "Remove one and try again."
        )
    if given.get("launchType"):
        return {"launchType": given["launchType"], "capacityProviderStrategy": []}
    if strategy is None:
        strategy = cluster.default_capacity_provider_strategy
    for one in strategy or []:
        if one["capacityProvider"] not in (cluster.capacity_providers or []):
            raise InvalidParameterException(
                "The specified capacity provider strategy cannot contain a capacity provider that "
                "is not associated with the cluster. Associate the capacity provider with the "
                "cluster and try again."
            )
    if not strategy:
        return {"launchType": "EC2", "capacityProviderStrategy": []}
    on_fargate = strategy[0]["capacityProvider"] in FARGATE
    shown = [{"weight": 0, "base": 0} | one for one in strategy]
    return {"launchType": "FARGATE" if on_fargate else "EC2", "capacityProviderStrategy": shown}
