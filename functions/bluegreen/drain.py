"""Draining the old colour: one look at the world, one next step. Never touches the traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bluegreen.health import LEAVING

Step = Literal["wait", "deregister", "stop", "fail", "done"]


@dataclass(frozen=True)
class Facts:
    """What was seen of the old colour.

    quiet_at: when its last request may end. deadline: until when its targets may take to leave;
    stop_deadline: and its tasks to stop. All in epoch seconds. tasks: those of the service that
    have not stopped yet. new_healthy: healthy targets of the colour that is live. connections: open
    ones to the old colour, None where nobody counts them. unknown: who does not say whether it
    still sends requests to the old colour, "" if nobody.
    """

    quiet_at: float
    deadline: float
    stop_deadline: float
    targets: Sequence[Mapping[str, Any]]
    new_healthy: int
    desired_count: int
    tasks: int
    connections: int | None = None
    unknown: str = ""


@dataclass(frozen=True)
class Decision:
    step: Step
    reason: str


def next_step(facts: Facts, now: float) -> Decision:
    """Wait out the requests in flight, then deregister, then stop: in this order.

    A task that gets its SIGTERM before its target has left the load balancer answers 502
    (containers-roadmap #708), and a target that leaves before the load balancer follows the new
    weights still gets requests (argo-rollouts #4595).
    """
    if facts.desired_count == 0 and facts.tasks == 0:
        return Decision("done", "the old colour has ended")
    if facts.new_healthy == 0:
        # The old colour is the only way back.
        found = "the new colour has no healthy target: the old one stays"
        return Decision("wait" if now < facts.deadline else "fail", found)
    if now < facts.quiet_at:
        open_ones = f"{facts.connections} connections" if facts.connections else "requests"
        left = facts.quiet_at - now
        return Decision("wait", f"{open_ones} in flight may take another {left:.0f} s")
    if facts.unknown and facts.desired_count > 0:
        return Decision("wait" if now < facts.deadline else "fail", facts.unknown)
    if facts.desired_count == 0:
        if now >= facts.stop_deadline:
            return Decision("fail", f"{facts.tasks} tasks of the old colour do not stop")
        return Decision("wait", f"{facts.tasks} tasks of the old colour are stopping")
    registered = len(still_registered(facts.targets))
    # Past the deadline ECS does the rest: scaling in, it deregisters and waits by itself.
    if now < facts.deadline:
        if registered:
            return Decision("deregister", f"{registered} targets to deregister")
        if facts.targets:
            return Decision("wait", f"{len(facts.targets)} targets are draining")
    cut = f"; {facts.connections} connections end with them" if facts.connections else ""
    return Decision("stop", f"stopping {facts.tasks} tasks of the old colour{cut}")


def still_registered(targets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The targets that nobody has deregistered yet."""
    return [target for target in targets if target["TargetHealth"]["State"] not in LEAVING]
