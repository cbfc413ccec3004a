"""One look at the traffic: which colour gets it where, and who stands behind each colour.

A load balancer has one place with weights; with a proxy on every host, each host is one. What is
decided on a look is decided here, without knowing which kind of router was looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bluegreen.color import Color
from bluegreen.errors import DeploymentRefused, TrafficChanged
from bluegreen.traffic import Weights, show

# How long a look waits for the last host; one that has not answered by then is unknown.
LOOK_SECONDS = 10


class Look(Protocol):
    """What a router shows. Reading may call AWS, and raises TrafficChanged for weights that are
    nobody's we know.
    """

    def weights(self) -> Mapping[str, Weights]:
        """The weights at each place that has some of its own."""

    def switched_after(self, generation: int) -> list[str]:
        """Places that somebody has switched after the switch of this generation."""

    def share(self, color: Color) -> int:
        """The largest weight that a colour has at any place, whatever else there is."""

    def targets(self, color: Color) -> list[Mapping[str, Any]]:
        """Who answers for a colour, in the shape of ``TargetHealthDescriptions``."""

    def tasks_for(self, count: int) -> int:
        """How many tasks a colour needs to take over from one with so many."""

    def targets_for(self, color: Color, tasks: int) -> int | None:
        """How many healthy targets so many tasks of a colour can show, wherever anything is healthy
        at all; None where nobody checks that colour now.
        """

    def has_place_of(self, task: Mapping[str, Any]) -> bool:
        """Whether the place that a task ran at is still there. task: as DescribeTasks says."""

    def unknown(self) -> str:
        """Places that do not say what they do, and why; "" if there are none."""

    def connections(self, color: Color) -> int | None:
        """Connections that are open to a colour; None where nobody counts them."""


# What is shown of many: a reason travels in the state machine's data, which holds 262,144 bytes.
_SHOWN = 5


def some(texts: Sequence[str]) -> str:
    """The first of many texts about hosts in one, and how many there are more."""
    more = [f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return "; ".join([*texts[:_SHOWN], *more])


@dataclass(frozen=True)
class Asked:
    """Hosts have been asked for what they see; the answers are there at the next look.

    commands: ids of SSM commands. at: when they were sent, epoch seconds.
    """

    commands: Sequence[str]
    at: float

    def waiting(self, progress: Mapping[str, Any], now: float) -> dict[str, Any]:
        """What a state answers meanwhile: its progress as it is, and what was asked."""
        elapsed = now - self.at
        return {
            **progress,
            "status": "waiting",
            "reason": "the hosts are being asked",
            "asked": {"commands": list(self.commands), "at": self.at},
            # Few passes a look: a history holds 25,000 events, and a bake may take a day. But a
            # rollback waits for nobody longer than it has to.
            "wait_seconds": max(1, min(int(3 * elapsed), math.ceil(LOOK_SECONDS - elapsed))),
        }


def asked_before(progress: Mapping[str, Any]) -> Asked | None:
    """What the last pass has asked, if it waits for that."""
    asked = progress.get("asked")
    return Asked(asked["commands"], asked["at"]) if asked else None


def without_question(progress: Mapping[str, Any]) -> dict[str, Any]:
    """The progress of a state once what it asked has been answered."""
    return {key: value for key, value in progress.items() if key != "asked"}


def agreed(places: Mapping[str, Weights]) -> Weights:
    """The weights that all places have. Raises DeploymentRefused when they differ."""
    by_weights: dict[str, list[str]] = {}
    for place, weights in places.items():
        by_weights.setdefault(show(weights), []).append(place)
    if len(by_weights) > 1:
        raise DeploymentRefused(
            "the hosts do not agree on the traffic: "
            + "; ".join(
                f"{shown} on {len(those)} of them, such as {those[0]}"
                for shown, those in by_weights.items()
            )
            + ". Terminate those that are wrong, or roll back the deployment that left it so"
        )
    return next(iter(places.values()))


def differing(
    places: Mapping[str, Weights], wanted: Weights, known: Sequence[Weights]
) -> list[str]:
    """Places that do not have the wanted weights (yet), but known ones.

    Raises TrafficChanged, which names place and weights, for any others; nothing is overwritten.
    """
    expected = " or ".join(show(one) for one in [wanted, *known])
    for place, weights in places.items():
        if weights != wanted and weights not in known:
            raise TrafficChanged(
                f"the traffic was changed by somebody else: found {show(weights)} on {place}, "
                f"expected {expected}; it is left as it is"
            )
    return [place for place, weights in places.items() if weights != wanted]


def farthest(places: Mapping[str, Weights], snapshot: Weights, ours: Sequence[Weights]) -> Weights:
    """The weights that stand for all places on the way back to the snapshot.

    Somebody else's if there are any, else ours as long as one place has them, else the snapshot.
    """
    found = list(places.values())
    foreign = [one for one in found if one != snapshot and one not in ours]
    not_back = [one for one in found if one != snapshot]
    return next(iter([*foreign, *not_back, snapshot]))
