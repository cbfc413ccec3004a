"""What moves the traffic: one module per kind of router, all with the same three verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bluegreen.color import Color
from bluegreen.deployment import Location
from bluegreen.look import Asked, Look
from bluegreen.traffic import Weights


@dataclass(frozen=True)
class Survey:
    """What a router is found to be when a deployment is planned: the fields of Deployment of the
    same names, the weights as they are, and how many tasks a colour needs to take over from one
    with so many.
    """

    traffic: Weights
    tasks_for: Callable[[int], int]
    load_balancer_dns: str = ""
    location: Location | None = None
    test_location: Location | None = None
    test_traffic: Weights | None = None
    target_groups: dict[Color, str] = field(default_factory=dict)
    stickiness_seconds: int = 0
    deregistration_seconds: int = 0
    classic_listener: dict[str, Any] | None = None


class Router(Protocol):
    """The router of one deployment. What takes longer than a call goes on at the next pass."""

    def look(self, asked: Asked | None, now: float) -> Look | Asked:
        """How the traffic is; Asked when the answer is there at the next pass only."""

    def shift(
        self,
        progress: Mapping[str, Any] | None,
        expected: Sequence[Weights],
        weights: Weights,
        intend: Callable[[Weights], None],
        now: float,
    ) -> dict[str, Any]:
        """Compare with the weights expected, call intend with what comes next, write, verify.

        Answers ``status`` "shifted"; or "waiting", with the ``switch`` that is the next pass's
        progress. Raises TrafficChanged, HostNotReady, HostNotSwitched.
        """

    def put_back(
        self, look: Look, expected: Sequence[Weights], weights: Weights, now: float
    ) -> dict[str, Any] | None:
        """shift() for a rollback. Answers progress to be asked about before the next look, if any.

        Raises TrafficChanged.
        """

    def refused(self, progress: Mapping[str, Any], now: float) -> str | None:
        """What went wrong with put_back(), "" if nothing did; None while it is under way."""
