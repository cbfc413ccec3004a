"""Is a colour healthy? A pure decision over what ECS and the load balancer say.

Unknown is not healthy, an empty target group is not healthy, slow is not broken; and whatever is
decided comes with a reason that a person can act on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Service events that waiting will not mend. Everything else that keeps ECS from placing a task
# (no room just now, a port still taken, capacity on its way) is waited for until the deadline.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html
_HOPELESS = re.compile(
    r"unable to assume (?:the|role)|"
    r"unable to consistently start tasks successfully|"
    r"target ?group .*(?:does not exist|not found)",
    re.IGNORECASE,
)
# Target states on the way out of the group: https://docs.aws.amazon.com/elasticloadbalancing/
# latest/application/target-group-health-checks.html#target-health-states
LEAVING = frozenset({"draining", "unhealthy.draining"})
# What is shown of many targets, and of a death in words: a cause has room for 32,768 characters.
_SHOWN = 5
_LONGEST_DEATH = 3_000
_NOT_PLACED = re.compile(r"unable to place a task", re.IGNORECASE)


@dataclass(frozen=True)
class Facts:
    """What was seen in one look.

    deployment: the entry of ``deployments`` in DescribeServices with the id that UpdateService
    answered, None when the service does not list it (yet: ECS reads are eventually consistent).
    has_health_check: whether a container of the task definition has one; without, ECS says UNKNOWN.
    replaced_by: task definition of a primary deployment made after that one, "" if there is none.
    wanted_targets: how many targets there have to be, None where nobody checks them yet.
    tasks: DescribeTasks of that deployment's tasks, running and stopped.
    targets: ``TargetHealthDescriptions`` of the colour's target group.
    events: messages of the service's events since the start, newest first.
    died: one text per stopped task that says why (stopped reason, exit code, last log lines).
    probe: None if there is none or it was not asked, "" if it passed, else what was wrong.
    """

    desired: int
    wanted_targets: int | None
    deployment: Mapping[str, Any] | None
    tasks: Sequence[Mapping[str, Any]]
    targets: Sequence[Mapping[str, Any]]
    events: Sequence[str]
    replaced_by: str = ""
    has_health_check: bool = False
    died: Sequence[str] = ()
    probe: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What to do about it. reason: one or more lines of plain text."""

    status: Literal["healthy", "waiting", "failed"]
    reason: str


def decide(facts: Facts, *, now: float, deadline: float, max_failed_tasks: int) -> Verdict:
    """Healthy, wait on, or give up. now and deadline: epoch seconds."""
    if facts.replaced_by:
        return Verdict(
            "failed",
            "somebody else, or ECS itself, has updated the service meanwhile: its primary "
            f"deployment runs {facts.replaced_by} now" + _because(facts),
        )
    if facts.deployment and facts.deployment.get("rolloutState") == "FAILED":
        said = facts.deployment.get("rolloutStateReason", "no reason given")
        return Verdict("failed", f"ECS gave the deployment up: {said}" + _because(facts))
    if len(facts.died) >= max_failed_tasks:
        return Verdict("failed", f"{len(facts.died)} tasks died" + _because(facts))
    hopeless = next((event for event in facts.events if _HOPELESS.search(event)), None)
    if hopeless:
        return Verdict("failed", hopeless + _because(facts))
    missing = what_is_missing(facts)
    if not missing:
        return Verdict("healthy", f"{facts.desired} of {facts.desired} tasks and targets healthy")
    if now >= deadline:
        return Verdict("failed", f"not healthy at the deadline: {missing}" + _because(facts))
    return Verdict("waiting", missing)


def what_is_missing(facts: Facts) -> str:
    """What keeps the colour from being healthy now; "" when nothing does."""
    if facts.deployment is None:
        return "ECS does not list the deployment yet"
    running = [task for task in facts.tasks if task["lastStatus"] == "RUNNING"]
    if len(running) < facts.desired or not running:
        placement = next((event for event in facts.events if _NOT_PLACED.search(event)), "")
        return f"{len(running)} of {facts.desired} tasks running" + (
            f"; {placement}" if placement else ""
        )
    fit = {"HEALTHY"} if facts.has_health_check else {"HEALTHY", "UNKNOWN"}
    ill = [task for task in running if task.get("healthStatus", "UNKNOWN") not in fit]
    if ill:
        return f"{len(ill)} of {len(running)} tasks do not pass their container health check"
    expected = [
        target for target in facts.targets if target["TargetHealth"]["State"] not in LEAVING
    ]
    healthy = [target for target in expected if target["TargetHealth"]["State"] == "healthy"]
    wanted = 0 if facts.wanted_targets is None else max(facts.wanted_targets, 1)
    if len(healthy) < wanted or len(healthy) < len(expected):
        total = max(wanted, len(expected))
        return f"{len(healthy)} of {total} targets healthy" + _targets(expected)
    if facts.probe:
        return f"the probe fails: {facts.probe}"
    return ""


def unhealthy_targets(targets: Sequence[Mapping[str, Any]]) -> str:
    """How many targets are healthy and why the others are not; "" when all of them are."""
    healthy = healthy_targets(targets)
    if healthy == len(targets):
        return ""
    return f"{healthy} of {len(targets)} targets healthy" + _targets(targets)


def healthy_targets(targets: Sequence[Mapping[str, Any]]) -> int:
    """How many targets of a group are healthy."""
    return sum(1 for target in targets if target["TargetHealth"]["State"] == "healthy")


def _targets(targets: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for target in targets:
        health = target["TargetHealth"]
        if health["State"] != "healthy":
            why = " ".join(
                part for part in (health.get("Reason"), health.get("Description")) if part
            )
            lines.append(
                f"\n  target {_name(target['Target'])} is {health['State']}: "
                f"{why or 'no reason given'}"
            )
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"\n  and {len(lines) - _SHOWN} more"]
    return "".join(lines)


def _name(target: Mapping[str, Any]) -> str:
    """An address with its port, or a host: what stands for all its ports."""
    return f"{target['Id']}:{target['Port']}" if "Port" in target else str(target["Id"])


def _because(facts: Facts) -> str:
    """The last deaths and the state of the targets, as lines to append."""
    deaths = [death[:_LONGEST_DEATH] for death in list(facts.died)[-2:]]
    return "".join(f"\n  {line}" for line in deaths) + _targets(facts.targets)
