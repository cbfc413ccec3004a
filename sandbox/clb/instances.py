"""The instances of classic load balancers and what state each is in.

This is the part that decides: bookkeeping without network or clock of its own.

AWS's habits (API_InstanceState, elb-healthchecks, config-conn-drain, troubleshooting of the Classic
Load Balancers guide):
  - an instance is OutOfService because of ELB until it has passed HealthyThreshold checks in a row,
    and because of itself once it has failed UnhealthyThreshold in a row;
  - a deregistered one is still InService while requests are in flight, for as long as connection
    draining allows; without draining its connections are cut at once. The same connections of an
    unhealthy one may end in their own time, or are cut where there is no draining;
  - there is no fail-open: with no instance InService nothing is sent anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sandbox.alb.configuration import Mode

Key = tuple[str, str]
"""Name of the load balancer, instance id."""


class State(StrEnum):
    """What becomes of an instance, from its registration on."""

    REGISTERING = "registering"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


Shown = tuple[str, str, str]
"""State, reason code and description, as DescribeInstanceHealth gives them."""

IN_SERVICE: Shown = ("InService", "N/A", "N/A")
REGISTERING: Shown = ("OutOfService", "ELB", "Instance registration is still in progress.")
FAILED: Shown = (
    "OutOfService",
    "Instance",
    "Instance has failed at least the UnhealthyThreshold number of health checks consecutively.",
)
NOT_YET: Shown = (
    "OutOfService",
    "Instance",
    "Instance has not passed the configured HealthyThreshold number of health checks "
    "consecutively.",
)
DEREGISTERING: Shown = ("InService", "N/A", "Instance deregistration currently in progress.")
NOT_REGISTERED: Shown = (
    "OutOfService",
    "Instance",
    "Instance is not currently registered with the LoadBalancer.",
)


@dataclass
class Instance:
    """An instance of one load balancer; ``gone_at`` is when its draining ends at the latest."""

    key: Key
    address: str
    state: State = State.REGISTERING
    passed: bool | None = None  # the last check
    in_a_row: int = 0  # checks that ended like the last one
    gone_at: float | None = None

    @property
    def shown(self) -> Shown:
        """What DescribeInstanceHealth says of it."""
        match self.state:
            case State.REGISTERING:
                return REGISTERING
            case State.HEALTHY:
                return IN_SERVICE
            case State.UNHEALTHY:
                return NOT_YET if self.passed else FAILED
            case State.DRAINING:
                return DEREGISTERING

    def record(self, *, passed: bool, healthy_threshold: int, unhealthy_threshold: int) -> None:
        """Count one health check."""
        if self.state is State.DRAINING:
            return
        self.in_a_row = self.in_a_row + 1 if passed == self.passed else 1
        self.passed = passed
        if passed and self.in_a_row >= healthy_threshold:
            self.state = State.HEALTHY
        if not passed and self.in_a_row >= unhealthy_threshold:
            self.state = State.UNHEALTHY

    def drain(self, until: float) -> None:
        """It was deregistered; it is gone at ``until``, or when nothing is in flight any more."""
        self.state = State.DRAINING
        self.gone_at = until

    def mode(self, *, draining: bool) -> Mode:
        """What its servers do; ``draining``: whether the load balancer has connection draining."""
        match self.state:
            case State.HEALTHY:
                return Mode.READY
            case State.REGISTERING:
                return Mode.EMPTY
            case State.UNHEALTHY:
                return Mode.DRAIN if draining else Mode.EMPTY
            case State.DRAINING:
                return Mode.DRAIN
