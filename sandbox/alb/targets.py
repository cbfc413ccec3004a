"""The targets of all target groups and what state each is in.

This is the part of a load balancer that decides: bookkeeping without network or clock of its own.

AWS's habits:
  - a target is an id *and* a port: one instance can be registered several times;
  - in a group that no listener or rule uses, a target stays ``unused`` (Target.NotInUse) and is
    never checked;
  - the first successful check makes an ``initial`` target of an ALB healthy; an unhealthy one has
    to succeed HealthyThresholdCount times in a row (AWS does not say how many checks an ``initial``
    target of an NLB has to pass, and takes minutes: here it is the threshold too);
  - a deregistered target is ``draining`` for the whole deregistration delay, also when idle, then
    it is gone; one that was unused is gone at once;
  - with no healthy target the load balancer fails open and sends to every registered one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TargetKey = tuple[str, str, int]
"""Target group ARN, target id (instance id or IP address), port."""

State = Literal["initial", "healthy", "unhealthy", "unused", "draining"]

NOT_IN_USE = (
    "Target.NotInUse",
    "Target group is not configured to receive traffic from the load balancer",
)
CHECKING = ("Elb.InitialHealthChecking", "Initial health checks in progress")
REGISTERING = ("Elb.RegistrationInProgress", "Target registration is in progress")
FAILED = ("Target.FailedHealthChecks", "Health checks failed")
DRAINING = ("Target.DeregistrationInProgress", "Target deregistration is in progress")


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one health check; ``reason`` and ``description`` are ELB's, for a failure."""

    healthy: bool
    reason: str | None = None
    description: str | None = None


@dataclass
class Target:
    """One registered target. ``address`` is where it listens, ``gone_at`` when draining ends.

    ``quick``: whether one successful check is enough at first.
    """

    key: TargetKey
    address: str
    quick: bool = True
    state: State = "initial"
    reason: str | None = REGISTERING[0]
    description: str | None = REGISTERING[1]
    in_a_row: int = 0  # checks that contradict the state; of an initial one those that agree
    passed: bool | None = None  # the last check, of an initial one
    gone_at: float | None = None

    @property
    def port(self) -> int:
        """The port it is registered with."""
        return self.key[2]

    def use(self, *, in_use: bool) -> None:
        """Follow whether any listener or rule uses the group."""
        if self.state == "draining":
            return
        if not in_use and self.state != "unused":
            self._become("unused", *NOT_IN_USE)
        elif in_use and (self.state == "unused" or self.reason == REGISTERING[0]):
            self._become("initial", *CHECKING)

    def record(self, result: CheckResult, healthy_threshold: int, unhealthy_threshold: int) -> None:
        """Count one health check."""
        if self.state not in ("initial", "healthy", "unhealthy"):
            return
        if self.state == "initial" and result.healthy != self.passed:
            self.passed, self.in_a_row = result.healthy, 0
        if result.healthy:
            self._succeeded(healthy_threshold)
        else:
            self._failed(result, unhealthy_threshold)

    def _succeeded(self, threshold: int) -> None:
        if self.state == "healthy":
            self.in_a_row = 0
            return
        self.in_a_row += 1
        if (self.state == "initial" and self.quick) or self.in_a_row >= threshold:
            self._become("healthy", None, None)

    def _failed(self, result: CheckResult, threshold: int) -> None:
        if self.state == "unhealthy":
            self.in_a_row = 0
            self.reason, self.description = result.reason, result.description
            return
        self.in_a_row += 1
        if self.in_a_row >= threshold:
            self._become("unhealthy", result.reason, result.description)

    def drain(self, until: float) -> None:
        """It was deregistered; it is gone at ``until``."""
        self._become("draining", *DRAINING)
        self.gone_at = until

    def _become(self, state: State, reason: str | None, description: str | None) -> None:
        self.state, self.reason, self.description = state, reason, description
        self.in_a_row, self.passed = 0, None


def receiving(targets: list[Target]) -> set[TargetKey]:
    """Which targets of one group get new requests: the healthy, or all when none is (fail-open)."""
    healthy = {target.key for target in targets if target.state == "healthy"}
    return healthy or {t.key for t in targets if t.state in ("initial", "unhealthy")}
