"""Which requests were lost because a load balancer had no listener for a moment.

That is asked for by the service configuration (router.accept_gap), and nothing else is: so a
request counts as lost in the gap only where the listener explains it. It was sent during the
switch; its connection was refused or cut (an answer, be it a 503, comes from a listener, and where
there is none nothing hangs); and nobody who asked after the gap had begun has been answered yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from sandbox.load import Request

WITHOUT_LISTENER = ("connect", "read", "unanswered")


@dataclass(frozen=True)
class Switch:
    """When a deployment moved the traffic, in epoch seconds: from the beginning of ShiftTraffic
    until CheckBake had seen the new color answer, or until it ended without that.
    """

    since: float
    until: float


@dataclass(frozen=True)
class Gap:
    """What was lost in it, and how long it was for those who asked: from the first request that
    was lost to the first later one that was answered, in milliseconds (None if nothing was lost,
    or nobody was answered again).
    """

    lost: int
    milliseconds: float | None


def switch_of(events: Sequence[Mapping[str, Any]], proved_at: float | None) -> Switch | None:
    """From the events of an execution's history; None when it did not come so far.

    ``proved_at`` is when the CheckBake began that has seen the switch.
    """
    began = [_moment(one) for one in events if _entered(one) == "ShiftTraffic"]
    if not began:
        return None
    proved = [
        _moment(one)
        for one in events
        if one.get("stateExitedEventDetails", {}).get("name") == "CheckBake"
        and proved_at is not None
        and _moment(one) >= proved_at
    ]
    return Switch(began[0], proved[0] if proved else _moment(events[-1]))


def gap_in(requests: Sequence[Request], switch: Switch) -> Gap:
    """What was lost in the gap of one switch."""
    lost = [
        one
        for one in requests
        if one.error in WITHOUT_LISTENER and switch.since <= one.began <= switch.until
    ]
    if not lost:
        return Gap(0, None)
    first = min(lost, key=lambda one: one.ended)
    answered = (one.began for one in requests if _was_answered(one) and one.began > first.ended)
    again = min(answered, default=inf)
    return Gap(
        lost=sum(one.began < again for one in lost),
        milliseconds=None if again == inf else (again - first.began) * 1000,
    )


def _was_answered(request: Request) -> bool:
    return request.error is None or request.error.startswith("status")


def _entered(event: Mapping[str, Any]) -> str | None:
    name: str | None = event.get("stateEnteredEventDetails", {}).get("name")
    return name


def _moment(event: Mapping[str, Any]) -> float:
    return float(event["timestamp"].timestamp())
