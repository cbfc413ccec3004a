"""What two groups of hosts cost while both run: instance-seconds above the minimum.

The minimum is what the live group needs, its size, all the time. Above it is every instance of
either group beyond that, from the moment Auto Scaling launched it to the moment that it had
terminated it, as its activities say. That is an upper bound of what is paid for: EC2 bills from
running to shutting-down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

PHASES = {
    "boot": "from the start of the execution until all hosts are registered (CheckHealth begins)",
    "health": "tasks start and become healthy (until ShiftTraffic begins)",
    "switch and bake": "until DrainOldColor begins",
    "drain": "requests end, tasks stop (until the first old host is told to end)",
    "ending": "until the last old host has ended",
}
"""What the time is spent on; each phase begins where the one before has ended."""

STATES = ("CheckHealth", "ShiftTraffic", "DrainOldColor")
DESCRIPTION = re.compile(r"(Launching a new|Terminating) EC2 instance: (i-\w+)")


class NotComparableError(Exception):
    """There is no minimum to compare with; the message says why."""


@dataclass(frozen=True)
class Life:
    """One instance: when its launch began, when it was told to end, when it had ended."""

    launched: datetime
    told: datetime | None = None
    ended: datetime | None = None

    def is_there(self, moment: datetime) -> bool:
        """Whether somebody has to pay for it."""
        return self.launched <= moment and (self.ended is None or moment < self.ended)


@dataclass(frozen=True)
class Overlap:
    """Instance-seconds above ``minimum`` hosts in one deployment, by phase."""

    minimum: int
    by_phase: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.by_phase.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "minimum_hosts": self.minimum,
            "instance_seconds_above": round(self.total, 3),
            "by_phase": {phase: round(seconds, 3) for phase, seconds in self.by_phase.items()},
        }


def lives(activities: Iterable[Mapping[str, Any]]) -> list[Life]:
    """The instances that scaling activities tell of. A launch that failed made none."""
    launches: dict[str, Mapping[str, Any]] = {}
    ends: dict[str, Mapping[str, Any]] = {}
    for activity in activities:
        found = DESCRIPTION.match(activity["Description"])
        if found is not None:
            (launches if found[1].startswith("Launching") else ends)[found[2]] = activity
    return [
        Life(
            launched=launch["StartTime"],
            told=ends.get(instance, {}).get("StartTime"),
            ended=ends.get(instance, {}).get("EndTime"),
        )
        for instance, launch in launches.items()
    ]


def overlap(
    hosts: Sequence[Life], began: datetime, ended: datetime, entered: Mapping[str, datetime]
) -> Overlap:
    """Of a deployment between two moments, with when it first entered which state.

    Raises NotComparableError when the live group is larger or smaller afterwards.
    """
    old = [one for one in hosts if one.is_there(began)]
    told = [one.told for one in old if one.told is not None]
    if not told:
        raise NotComparableError("no old host was told to end")
    ends = [one.ended for one in old if one.ended is not None]
    edges = [began, *(entered[state] for state in STATES), min(told), max(ended, *ends)]
    minimum, after = (sum(one.is_there(moment) for one in hosts) for moment in (began, edges[-1]))
    if minimum != after:
        raise NotComparableError(f"the live group had {minimum} hosts and has {after} now")
    return Overlap(
        minimum,
        {
            phase: _above(hosts, minimum, *edge)
            for phase, edge in zip(PHASES, pairwise(edges), strict=True)
        },
    )


def _above(hosts: Sequence[Life], minimum: int, since: datetime, until: datetime) -> float:
    """Instance-seconds above the minimum between two moments."""
    changes = {moment for one in hosts for moment in (one.launched, one.ended) if moment}
    moments = sorted({since, until, *(one for one in changes if since < one < until)})
    return sum(
        max(0, sum(one.is_there(start) for one in hosts) - minimum) * (end - start).total_seconds()
        for start, end in pairwise(moments)
    )
