"""How the traffic moves: the share of the new colour at each step, and how long it is watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluegreen.configuration import AllAtOnce, Canary, Linear, OwnSteps
from bluegreen.deployment import Deployment
from bluegreen.traffic import Weights, weights_for


def steps(deployment: Deployment) -> list[int]:
    """Percent of the traffic that the new colour gets after each step; the last one is 100.

    There is one step only when nothing is live, or no task of it runs, as the rest would go to
    nobody; and when nothing is to be watched.
    """
    return [percent for percent, _ in _plan(deployment)]


def seconds(deployment: Deployment, step: int) -> int:
    """How long the new colour is watched after a step, from its proof on."""
    return _plan(deployment)[step][1]


def before(deployment: Deployment, step: int) -> list[Weights]:
    """All weights that there may have been before a step: the snapshot's, then those of the steps
    before it.
    """
    return [deployment.snapshot.traffic, *_weights(deployment, step)]


def taken(deployment: Deployment, data: Mapping[str, Any]) -> list[Weights]:
    """The weights of all steps that a deployment has begun. data: ``$``."""
    if "shift" not in data:
        return []
    return _weights(deployment, data["shift"]["step"] + 1)


def keeps_old(deployment: Deployment, data: Mapping[str, Any]) -> bool:
    """Whether the step that was begun last leaves a part of the traffic on the old colour. data:
    ``$``.
    """
    return "shift" in data and steps(deployment)[data["shift"]["step"]] < 100


def _weights(deployment: Deployment, count: int) -> list[Weights]:
    return [weights_for(deployment.to_color, percent) for percent in steps(deployment)[:count]]


def _plan(deployment: Deployment) -> list[tuple[int, int]]:
    """Percent and seconds of each step."""
    if deployment.skip_bake:
        return [(100, 0)]
    last = (100, deployment.configuration.bake.seconds)
    live = deployment.from_color
    if live is None or not deployment.snapshot.services[live].running_count:
        return [last]
    match deployment.configuration.strategy:
        case AllAtOnce():
            return [last]
        case Canary(percent=percent, seconds=watched):
            return [(percent, watched), last]
        case Linear(percent=percent, seconds=watched):
            return [*((share, watched) for share in range(percent, 100, percent)), last]
        case OwnSteps(steps=own):
            return [*((step.percent, step.seconds) for step in own), last]
