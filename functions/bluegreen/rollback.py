"""Undoing a deployment: one look at the world, one next step towards the snapshot.

Can be asked at any point, as often as wanted, after a failure, by hand or when an execution was
lost: it looks at what is, not at what was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bluegreen.traffic import Weights, show

Step = Literal[
    "wait",
    "start_old",
    "register_old",
    "stop_old",
    "restore_traffic",
    "leave_traffic",
    "restore_services",
    "keep_new",
    "fail",
    "done",
]


@dataclass(frozen=True)
class Facts:
    """The world as it is.

    traffic: weights now; snapshot: weights to restore; ours: every other set of weights that this
    deployment has meant to write. foreign: those now are nobody's that we know. unknown: hosts that
    do not say what theirs are, "" if none. refused: what went wrong when the traffic was to go
    back, "" if nothing. told: false as long as hosts may still carry out that they switch, and have
    not been told otherwise.
    old_*: the colour that was live. old_wanted: tasks it should have; old_targets: healthy targets
    it should have; old_least: as many as it had before; old_was_down: none of its tasks ran then;
    old_starting: it still has fewer tasks than the new one where targets do not tell.
    old_hosts_draining: a drain has closed its hosts to tasks. old_leaving: targets that a drain has
    deregistered and that can still be kept; old_deregistered: its tasks run, but it has no target
    any more. *_healthy: healthy targets. settled: the load balancer shows the restored traffic and
    requests in flight on the new colour have ended. services_restored: both services, their scaling
    and the test listener are as in the snapshot. migrating: a task of the deployment's migration
    has not stopped yet. Times in epoch seconds.
    """

    traffic: Weights
    snapshot: Weights
    ours: Sequence[Weights]
    old_wanted: int
    old_targets: int
    old_least: int
    old_desired: int
    old_healthy: int
    new_healthy: int
    new_weight: int
    settled: bool
    services_restored: bool
    deadline: float
    unknown: str = ""
    old_was_down: bool = False
    old_starting: bool = False
    old_hosts_draining: bool = False
    old_leaving: int = 0
    old_deregistered: bool = False
    refused: str = ""
    told: bool = True
    foreign: bool = False
    migrating: bool = False


@dataclass(frozen=True)
class Decision:
    step: Step
    reason: str


def next_step(facts: Facts, now: float) -> Decision:
    """Old colour up, traffic back, load balancer quiet, then the rest: in this order."""
    decision = _next_step(facts, now)
    if decision.step in ("keep_new", "done") and facts.migrating:
        # The next deployment may bring a migration of its own.
        return Decision(
            "wait" if now < facts.deadline else "fail", "the migration has not stopped yet"
        )
    return decision


def _next_step(facts: Facts, now: float) -> Decision:
    if facts.foreign or facts.traffic not in [facts.snapshot, *facts.ours]:
        return _left_alone(facts, now)
    if facts.old_was_down and not facts.old_healthy and facts.new_healthy and facts.new_weight:
        # Going back would cut everybody off.
        found = "the old colour had no task when the deployment began, and has none now"
        return Decision("keep_new", f"{found}; the new colour keeps its traffic and stays up")
    not_back = _traffic(facts, now)
    if not_back:
        return not_back
    if not facts.settled:
        if now >= facts.deadline:
            return Decision("fail", "the load balancer does not follow the restored weights")
        return Decision("wait", "the load balancer follows, requests in flight end")
    if facts.services_restored:
        return Decision("done", f"all as before: {show(facts.snapshot)}")
    if now >= facts.deadline:
        return Decision("fail", "the services do not come back to what they were")
    return Decision("restore_services", "restoring the services")


def _traffic(facts: Facts, now: float) -> Decision | None:
    """What is left to do until all traffic is back where it was; None when nothing is."""
    if facts.traffic == facts.snapshot and not facts.told:
        # They may be waiting for the moment of the switch, and a host that boots reads of it.
        return Decision("restore_traffic", f"traffic stays at {show(facts.snapshot)}")
    if facts.old_desired < facts.old_wanted or facts.old_hosts_draining:
        return Decision("start_old", f"starting {facts.old_wanted} tasks of the old colour")
    if facts.old_starting and now < facts.deadline:
        return Decision("wait", "the old colour has fewer tasks than the new one")
    if facts.old_leaving:
        return Decision("register_old", f"{facts.old_leaving} targets of the old colour stay")
    if facts.old_deregistered:
        # ECS registers a task when it starts it, and never again.
        return Decision("stop_old", "the old colour has no targets any more: it is started anew")
    if _serves_worse(facts, now):
        found = f"{facts.old_healthy} of {facts.old_targets} targets of the old colour healthy"
        return Decision("wait" if now < facts.deadline else "fail", found)
    if facts.traffic != facts.snapshot:
        if facts.refused and now >= facts.deadline:
            return Decision("fail", f"the traffic does not go back: {facts.refused}")
        return Decision("restore_traffic", f"traffic back to {show(facts.snapshot)}")
    if facts.unknown:
        return Decision("wait" if now < facts.deadline else "fail", facts.unknown)
    return None


def _serves_worse(facts: Facts, now: float) -> bool:
    """Whether going back would make things worse: the new colour serves as well as the old one.

    What had all the traffic before has to do in the end: where the new one has taken the place that
    more of the old one need, they would never come.
    """
    if facts.old_healthy >= facts.old_targets or facts.old_healthy > facts.new_healthy:
        return False
    as_many_as_before = 0 < facts.old_least <= facts.old_healthy
    return not as_many_as_before or (now < facts.deadline and facts.traffic != facts.snapshot)


def _left_alone(facts: Facts, now: float) -> Decision:
    """Somebody else's weights stay. What this deployment started ends, unless it is in use now."""
    found = f"the traffic was changed by somebody else ({show(facts.traffic)}) and is left so"
    if facts.new_weight > 0:
        return Decision("done", f"{found}; the new colour gets traffic and stays up")
    if facts.services_restored:
        return Decision("done", found)
    if now >= facts.deadline:
        return Decision("fail", f"{found}; the new colour does not end")
    if not facts.settled:
        return Decision("wait", f"{found}; requests in flight end")
    return Decision("leave_traffic", f"{found}; the new colour is stopped")
