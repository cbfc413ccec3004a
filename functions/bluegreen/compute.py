"""Auto Scaling groups as the hosts of a colour: how many it needs, whether they are there, and how
they go. Pure decisions; bluegreen/auto_scaling.py asks and obeys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bluegreen.look import some

# What changes the size of a group, or its instances, of its own accord: suspended on a group that
# is idle or about to be. ReplaceUnhealthy goes on, as a host that dies has to be replaced.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html
FIGHTING = frozenset({"AlarmNotification", "AZRebalance", "InstanceRefresh", "ScheduledActions"})
# Without these no deployment can bring hosts up, or end them.
NEEDED = frozenset({"Launch", "Terminate"})
# Launches that waiting will not mend; capacity may come, and quotas are freed by what ends.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/ts-as-instancelaunchfailure.html and
# ts-as-ami.html
_HOPELESS = re.compile(
    r"does not (exist|match)|not authorized|may not be used|invalid"
    # In one zone; the next launch may be in another one.
    r"|(not|no longer) supported(?! in your requested Availability Zone)"
    r"|malformed|have a valid",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Group:
    """An Auto Scaling group as it is. instances: id → lifecycle state. protected: ids of those that
    are protected from scale-in and can be relieved of it. suspended: names of processes.
    unfit: what keeps it from being the hosts of a colour.
    """

    name: str
    min_size: int
    max_size: int
    desired_capacity: int
    instances: Mapping[str, str]
    protected: frozenset[str]
    suspended: frozenset[str]
    unfit: tuple[str, ...] = ()

    @property
    def in_service(self) -> frozenset[str]:
        """Ids of the instances that are neither starting nor on their way out."""
        return frozenset(one for one, state in self.instances.items() if state == "InService")

    @property
    def is_wanted(self) -> bool:
        """Whether anything keeps instances in it."""
        return bool(self.desired_capacity or self.min_size or self.protected)


@dataclass(frozen=True)
class Facts:
    """What was seen of a colour's hosts before its tasks are started.

    stale: instances that were there before the deployment. wanted: hosts, at least. ready: ids of
    instances that are registered with the cluster, ACTIVE and connected. tasks: how many have to
    find room; room: how many do, on the hosts that are ready; per_host: on one more. failures: what
    Auto Scaling says of launches that failed, newest first. deadline: in epoch seconds.
    """

    group: Group
    stale: Collection[str]
    wanted: int
    ready: Collection[str]
    tasks: int
    room: int
    per_host: int
    failures: Sequence[str]
    deadline: float


@dataclass(frozen=True)
class Decision:
    """size: the desired capacity, with "launch"."""

    step: Literal["ready", "wait", "empty", "launch", "fail"]
    reason: str
    size: int = 0


def bring_up(facts: Facts, now: float, max_failures: int) -> Decision:
    """Old hosts away, as many new ones as are needed, all of them in the cluster: in this order.

    max_failures: so many failed launches, and more than one a host, are enough to give up before
    the deadline.
    """
    group = facts.group
    stale = sorted(set(facts.stale) & set(group.instances))
    if stale:
        found = f"{len(stale)} hosts from before the deployment are ending: {some(stale)}"
        if now >= facts.deadline:
            return Decision("fail", found)
        return Decision("empty" if group.is_wanted else "wait", found)
    size = max(facts.wanted, group.desired_capacity)
    ready = set(facts.ready) & group.in_service
    if len(ready) >= size and facts.room < facts.tasks:
        if not facts.per_host:
            return Decision("fail", f"a task does not fit on an instance of group {group.name}")
        size += math.ceil((facts.tasks - facts.room) / facts.per_host)
    if size > group.max_size:
        return Decision(
            "fail",
            f"group {group.name} would need {size} instances, but its maximum is {group.max_size}",
        )
    if group.desired_capacity < size:
        return Decision("launch", f"launching {size} hosts for {facts.tasks} tasks", size)
    missing = _missing(facts, ready, size)
    if not missing:
        return Decision("ready", f"{len(ready)} hosts")
    # All hosts of one moment may have failed for the same passing reason.
    enough = max(max_failures, size + 1)
    if facts.failures and (_HOPELESS.search(facts.failures[0]) or len(facts.failures) >= enough):
        return Decision("fail", f"group {group.name} cannot launch: {facts.failures[0]}")
    if now >= facts.deadline:
        return Decision("fail", f"not all hosts are there at the deadline: {missing}")
    return Decision("wait", missing)


def take_down(group: Group, now: float, deadline: float) -> Decision:
    """End all hosts of a colour whose tasks have gone. "ready": none is left."""
    if not group.instances and not group.is_wanted:
        return Decision("ready", "its hosts have ended")
    left = [f"{name} ({state})" for name, state in sorted(group.instances.items())]
    found = f"{len(left)} hosts of group {group.name} are ending: {some(left)}"
    if now >= deadline:
        return Decision("fail", found)
    if group.is_wanted:
        return Decision("empty", f"{len(group.instances)} hosts of the old colour to end")
    return Decision("wait", found)


def _missing(facts: Facts, ready: Collection[str], size: int) -> str:
    """What keeps the hosts from being all there; "" if nothing does."""
    if len(ready) >= size:
        return ""
    found = f"{len(ready)} of {size} hosts ready"
    outside = [
        f"{name} is {state}"
        + (" but has not registered with the cluster" if state == "InService" else "")
        for name, state in sorted(facts.group.instances.items())
        if name not in ready
    ]
    failed = [f"last failed launch: {facts.failures[0]}"] if facts.failures else []
    return "; ".join([found, *([some(outside)] if outside else []), *failed])
