"""What is watched while the new colour has traffic, and what it says about it. Pure.

Unknown is not OK: an alarm that does not exist or lacks data, an alert that cannot be read, too few
requests to say anything. It does not end a deployment at once, but no step ends with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bluegreen.color import Color
from bluegreen.configuration import Bake, Role
from bluegreen.look import some

MINUTE = 60
# ALB reports every minute; what it says of the newest one is not complete yet (Netflix/atlas #1300,
# telegraf #10134).
LATE_SECONDS = 60
# From a shift until the first whole minute after it can be read, at the latest.
_FIRST_SECONDS = MINUTE + MINUTE + LATE_SECONDS
# How far back requests of the old colour are looked for.
BEFORE_MINUTES = 60
# What went wrong late in a long step must not be outweighed by what was fine before.
RECENT_MINUTES = 5
# Of a new colour; less says nothing of response times.
_FEWEST_MINUTES = 2
# How far chance is given credit, in standard deviations (quantiles of the normal distribution):
# what more than one look in a thousand shows by chance is not bad, and what more than one in ten
# does is not waited for. Of two colours that are as good as each other (0.5 to 5 % of errors, 300
# or 1,000 requests a minute, 10, 50 or 90 % of them new) fewer than one in a hundred goes back by
# that, while 5 % instead of none in 100 requests a minute are found in some minutes:
# tests/unit/test_gates.py.
_SURE = 3.090
_LIKELY = 1.282
# From least to worst: https://mackerel.io/api-docs/entry/alerts
_STATUSES = ("WARNING", "UNKNOWN", "CRITICAL")


@dataclass(frozen=True)
class Alarm:
    """A CloudWatch alarm. since: when its state changed last, epoch seconds."""

    name: str
    state: str
    reason: str
    since: float

    @property
    def id(self) -> str:
        """How it is named among what was bad at the start."""
        return f"alarm {self.name}"

    @property
    def text(self) -> str:
        """What a person has to know of it."""
        return f"{self.id}: {self.state}: {self.reason}"


@dataclass(frozen=True)
class Alert:
    """An open alert of Mackerel. monitor: what has raised it, in words. since: epoch seconds."""

    alert_id: str
    status: str
    monitor: str
    message: str
    since: float

    @property
    def id(self) -> str:
        """As of an Alarm; an alert that is closed never opens again."""
        return f"alert {self.alert_id}"

    @property
    def text(self) -> str:
        """What a person has to know of it."""
        said = f": {self.message}" if self.message else ""
        return f"{self.id}: {self.status}, {self.monitor}{said}"


def is_of(
    alert: Mapping[str, Any], monitor: Mapping[str, Any], hosts: Collection[str], role: Role
) -> bool:
    """Whether an open alert of Mackerel's is about a role.

    One about a host is when the host has the role. One about a service metric or an URL is when its
    monitor names the service (``service``); one about an expression when that reads metrics of the
    service or of the role. A query names neither service nor role, so its alerts never count.
    hosts: ids of those of the role. https://mackerel.io/api-docs/entry/alerts, …/monitors
    """
    if "hostId" in alert:
        return alert["hostId"] in hosts
    if monitor.get("service") == role.service:
        return True
    service, name = re.escape(role.service), re.escape(role.role)
    reads = (
        rf"""\b(service\(\s*['"]?{service}|role(Slots)?\(\s*['"]?{service}\s*:\s*{name})['"]?\s*,"""
    )
    return re.search(reads, str(monitor.get("expression", ""))) is not None


@dataclass(frozen=True)
class Minute:
    """What a target group did in a minute. errors: answers with 5xx, and connections that the load
    balancer did not get. seconds: mean response time, None when not reported.
    """

    requests: float = 0
    errors: float = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Answers:
    """What a colour answered over some minutes. errors: with 5xx, or not at all. seconds: mean
    response time, None when that was not reported.
    """

    minutes: int
    requests: int
    errors: int
    seconds: float | None

    @property
    def percent(self) -> float:
        """How many of its answers are errors."""
        return 100 * self.errors / self.requests if self.requests else 0.0

    def percent_between(self, deviations: float) -> tuple[float, float]:
        """Between which percents that share lies, chance taken into account: Wilson's score
        interval, of so many standard deviations. 0 and 0 without requests.

        https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval
        """
        if not self.requests:
            return 0.0, 0.0
        count, share, square = self.requests, self.errors / self.requests, deviations * deviations
        middle = share + square / (2 * count)
        spread = deviations * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
        least, most = max(0.0, middle - spread), min(1 + square / count, middle + spread)
        return 100 * least / (1 + square / count), 100 * most / (1 + square / count)


@dataclass(frozen=True)
class Facts:
    """What one look has shown.

    unreadable: what could not be read, and why. new, old: answers of both colours over the same
    minutes, None where they are not watched. earlier: old is of minutes before the first shift.
    recent_new, recent_old: of the last RECENT_MINUTES, where there are more; old as above when it
    had too few requests in these. latest: of the new colour in the newest minute.
    """

    alarms: Sequence[Alarm] = ()
    alerts: Sequence[Alert] = ()
    unreadable: Sequence[str] = ()
    new: Answers | None = None
    old: Answers | None = None
    earlier: bool = False
    recent_new: Answers | None = None
    recent_old: Answers | None = None
    latest: Answers | None = None

    @property
    def recent(self) -> Facts:
        """The same, of the last minutes only."""
        return replace(self, new=self.recent_new, old=self.recent_old)


@dataclass(frozen=True)
class Verdict:
    """too_few: all could be read, and none is bad, but it is not enough to say that it is good."""

    status: Literal["ok", "bad", "unknown", "too_few"]
    reason: str = ""


def decide(
    facts: Facts, bake: Bake, *, color: Color, known: Sequence[str], began: float
) -> Verdict:
    """color: the new one. known: what was bad when the deployment began (epoch seconds): it counts
    once it has been something else since.
    """
    bad = [
        *(one.text for one in facts.alarms if one.state == "ALARM" and not _old(one, known, began)),
        *(one.text for one in facts.alerts if not _is_excused(one, known)),
        *(_errors(facts, bake, color) or _errors(facts.recent, bake, color)),
        *(_response_time(facts, bake, color) or _response_time(facts.recent, bake, color)),
    ]
    if bad:
        return Verdict("bad", some(bad))
    lacking = [one.text for one in facts.alarms if one.state not in ("OK", "ALARM")]
    if unknown := [*facts.unreadable, *lacking]:
        return Verdict("unknown", some(unknown))
    few = _too_few(facts, bake, color) or _unclear(facts, bake, color)
    return Verdict("too_few", few) if few else Verdict("ok")


def on(facts: Facts, now: float) -> list[str]:
    """What speaks against a start, one text each that begins with its id: what is on, or cannot be
    read. An alarm without data may be about the idle colour, which does not get any requests yet.
    """
    alarms = [one for one in facts.alarms if one.state == "ALARM"]
    return [
        *facts.unreadable,
        *(f"{one.text} (for {now - one.since:.0f} s)" for one in alarms),
        *(f"{one.text} (for {now - one.since:.0f} s)" for one in facts.alerts),
    ]


def gives_up_at(
    verdict: Verdict,
    *,
    unknown_since: float,
    shifted_at: float,
    ends_at: float,
    unknown_seconds: int,
) -> float:
    """Until when a step may go on without a verdict that is ok; epoch seconds.

    ends_at: when it would end. Too few requests are waited for from there on, but not before there
    can be any numbers.
    """
    if verdict.status == "unknown":
        return unknown_since + unknown_seconds
    return max(ends_at, shifted_at + _FIRST_SECONDS) + unknown_seconds


def minutes_since(shifted_at: float, now: float) -> range:
    """Begins (epoch seconds) of the whole minutes since a shift that can be read by now."""
    first = math.ceil(shifted_at / MINUTE) * MINUTE
    end = math.floor((now - LATE_SECONDS) / MINUTE) * MINUTE
    return range(first, max(first, end), MINUTE)


def minutes_before(shifted_at: float) -> range:
    """Begins of the whole minutes before a shift, the last one first."""
    end = math.floor(shifted_at / MINUTE) * MINUTE
    return range(end - MINUTE, end - (BEFORE_MINUTES + 1) * MINUTE, -MINUTE)


def answers(found: Mapping[int, Minute], minutes: Sequence[int]) -> Answers:
    """The sum of some minutes; one that nothing was reported of had no requests."""
    seen = [found.get(minute, Minute()) for minute in minutes]
    timed = [
        (one.requests, one.seconds) for one in seen if one.requests and one.seconds is not None
    ]
    weight = sum(requests for requests, _ in timed)
    return Answers(
        minutes=len(minutes),
        requests=int(sum(one.requests for one in seen)),
        errors=int(sum(one.errors for one in seen)),
        seconds=sum(requests * mean for requests, mean in timed) / weight if weight else None,
    )


def answers_before(
    found: Mapping[int, Minute], shifted_at: float, count: int, bake: Bake
) -> Answers:
    """The answers of so many minutes right before a shift, and of as many more as it takes to have
    enough requests.
    """
    minutes = minutes_before(shifted_at)
    every = (answers(found, minutes[:more]) for more in range(max(1, count), len(minutes)))
    enough = (one for one in every if one.requests >= wanted_requests(bake))
    return next(enough, answers(found, minutes))


def wanted_requests(bake: Bake) -> int:
    """How many requests of a colour tell something; 0 when nobody counts them."""
    return max([one.requests for one in (bake.errors, bake.response_time) if one], default=0)


def _points_more(new: Answers, old: Answers | None, deviations: float) -> float:
    """How many percentage points more of the new colour's answers than of the old one's are errors,
    at least: the lower end of an interval of so many standard deviations for the difference of two
    shares, as both are known from so many requests only.

    Method 10 of R. G. Newcombe, Interval estimation for the difference between independent
    proportions, Statistics in Medicine 17 (1998), 873-890. Without anything to compare with, no
    error is one that the old colour had as well.
    """
    old = old or Answers(0, 0, 0, None)
    least, _ = new.percent_between(deviations)
    _, most = old.percent_between(deviations)
    spread = math.hypot(new.percent - least, most - old.percent)
    return round(new.percent - old.percent - spread, 6)


def _errors(facts: Facts, bake: Bake, color: Color) -> list[str]:
    new, old, limit = facts.new, facts.old, bake.errors
    if limit is None or new is None or new.requests < limit.requests:
        return []
    if _points_more(new, old, _SURE) <= limit.percentage_points:
        return []
    return [f"{_with_5xx(facts, color)}; allowed: {limit.percentage_points:.1f} points more"]


def _with_5xx(facts: Facts, color: Color) -> str:
    new, old = facts.new, facts.old
    assert new
    return f"{color} answered {new.percent:.1f} % of {_requests(new)} with 5xx" + _beside(
        facts, color, f"{old.percent if old else 0.0:.1f} %"
    )


def _unclear(facts: Facts, bake: Bake, color: Color) -> str:
    """Why it takes more to tell a bad colour from bad luck; "" if it does not.

    A new colour may be slow for its first minute, until its caches are filled.
    """
    new, old, limit = facts.new, facts.old, bake.errors
    if limit and new and _points_more(new, old, _LIKELY) > limit.percentage_points:
        return f"{_with_5xx(facts, color)}, which is too few to be sure"
    if bake.response_time and new and new.minutes < _FEWEST_MINUTES:
        return f"{_minutes(new)} of {color} says nothing of its response time yet"
    return ""


def _response_time(facts: Facts, bake: Bake, color: Color) -> list[str]:
    new, old, latest, limit = facts.new, facts.old, facts.latest, bake.response_time
    if limit is None or new is None or old is None or latest is None:
        return []
    if new.seconds is None or old.seconds is None or new.minutes < _FEWEST_MINUTES:
        return []
    if min(new.requests, old.requests) < limit.requests:
        return []
    # Over it all and still: what was slow and has recovered is not.
    slowest = min(new.seconds, latest.seconds if latest.seconds is not None else 0.0)
    slower = round((slowest - old.seconds) * 1000, 3)
    if slowest <= old.seconds * limit.times or slower < limit.milliseconds:
        return []
    return [
        f"{color} took {new.seconds * 1000:.0f} ms on average for {_requests(new)}"
        + _beside(facts, color, f"{old.seconds * 1000:.0f} ms")
        + f"; allowed: {limit.times:g} times as long, or {limit.milliseconds} ms more"
    ]


def _beside(facts: Facts, color: Color, said: str) -> str:
    new, old = facts.new, facts.old
    assert new
    if old is None or not old.requests:
        return f" over {_minutes(new)}, and {color.other} had none to compare with"
    if facts.earlier:
        return (
            f" over {_minutes(new)}, {color.other} {said} of {old.requests:,} in the "
            f"{_minutes(old)} before the first shift"
        )
    return f", {color.other} {said} of {old.requests:,}, over {_minutes(new)}"


def _too_few(facts: Facts, bake: Bake, color: Color) -> str:
    new, old, wanted = facts.new, facts.old, wanted_requests(bake)
    if new is None or not wanted:
        return ""
    if new.requests < wanted:
        return (
            f"{color} answered {_requests(new)} over {_minutes(new)} since the shift, "
            f"{wanted} are needed to say anything"
        )
    if not bake.response_time or old is None:
        return ""
    if old.requests < bake.response_time.requests:
        return (
            f"{color.other} answered {_requests(old)} over {_minutes(old)}, "
            f"{bake.response_time.requests} are needed to compare response times"
        )
    untimed = [one for one, of in ((color, new), (color.other, old)) if of.seconds is None]
    return f"no response time of {untimed[0]} was reported" if untimed else ""


def _requests(of: Answers) -> str:
    return f"{of.requests:,} requests"


def _minutes(of: Answers) -> str:
    return f"{of.minutes} minute{'' if of.minutes == 1 else 's'}"


def _old(alarm: Alarm, known: Sequence[str], began: float) -> bool:
    return _is_known(alarm.id, "ALARM: ", known) and alarm.since <= began


def _is_excused(alert: Alert, known: Sequence[str]) -> bool:
    """Whether it was open before, and as bad as that already."""
    worse = _STATUSES[_STATUSES.index(alert.status) :] if alert.status in _STATUSES else ()
    return any(_is_known(alert.id, f"{status}, ", known) for status in (alert.status, *worse))


def _is_known(what: str, state: str, known: Sequence[str]) -> bool:
    return any(one.startswith(f"{what}: {state}") for one in known)
