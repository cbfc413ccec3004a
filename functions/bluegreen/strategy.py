"""How the traffic moves: the share of the new colour at each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluegreen.configuration import AllAtOnce
from bluegreen.deployment import Deployment
from bluegreen.traffic import Weights, weights_for


def steps(strategy: AllAtOnce) -> list[int]:
    """Percent of the traffic that the new colour gets after each step; the last one is 100."""
    match strategy:
        case AllAtOnce():
            return [100]


def taken(deployment: Deployment, data: Mapping[str, Any]) -> list[Weights]:
    """The weights of all steps that a deployment has begun. data: ``$``."""
    if "shift" not in data:
        return []
    begun = steps(deployment.configuration.strategy)[: data["shift"]["step"] + 1]
    return [weights_for(deployment.to_color, percent) for percent in begun]
