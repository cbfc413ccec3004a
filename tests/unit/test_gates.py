"""What is watched and what it says: tables of facts and verdicts."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen import gates
from bluegreen.color import Color
from bluegreen.configuration import Bake, Role
from bluegreen.gates import Alarm, Alert, Answers, Facts, Minute, Verdict

BEGAN = 1_800_000_000.0
ROLE = Role(service="shop", role="web")
ALARM = Alarm("web-5xx", "ALARM", "Threshold Crossed: 3 datapoints", BEGAN + 5)
ALERT = Alert("2wpLU5fBXbG", "CRITICAL", "host monitor 'CPU' on host 2vJ", "", BEGAN + 5)
ERRORS = Bake.model_validate({"errors": {"percentage_points": 1.0, "requests": 20}})
TIMES = Bake.model_validate({"response_time": {"times": 2, "milliseconds": 50, "requests": 20}})


def decide(facts: Facts, bake: Bake | None = None, *known: str) -> Verdict:
    return gates.decide(facts, bake or Bake(), color=Color.GREEN, known=known, began=BEGAN)


def answered(requests: int, errors: int = 0, ms: float | None = 80, minutes: int = 3) -> Answers:
    return Answers(minutes, requests, errors, None if ms is None else ms / 1000)


# Alarms and alerts


def test_nothing_that_is_watched_is_all_well() -> None:
    assert decide(Facts()) == Verdict("ok")
    assert decide(Facts(alarms=[replace(ALARM, state="OK")])) == Verdict("ok")


def test_an_alarm_that_is_on_is_bad_and_says_why() -> None:
    assert decide(Facts(alarms=[ALARM])) == Verdict(
        "bad", "alarm web-5xx: ALARM: Threshold Crossed: 3 datapoints"
    )


@pytest.mark.parametrize("status", ["CRITICAL", "WARNING", "UNKNOWN"])
def test_every_open_alert_is_bad(status: str) -> None:
    assert decide(Facts(alerts=[replace(ALERT, status=status, message="99 %")])) == Verdict(
        "bad", f"alert 2wpLU5fBXbG: {status}, host monitor 'CPU' on host 2vJ: 99 %"
    )


def test_21_an_alarm_without_data_is_unknown() -> None:
    blind = replace(ALARM, state="INSUFFICIENT_DATA", reason="no data points")
    assert decide(Facts(alarms=[blind])) == Verdict(
        "unknown", "alarm web-5xx: INSUFFICIENT_DATA: no data points"
    )


def test_21_what_cannot_be_read_is_unknown() -> None:
    assert decide(Facts(unreadable=["CloudWatch alarms: Rate exceeded"])) == Verdict(
        "unknown", "CloudWatch alarms: Rate exceeded"
    )


def test_what_is_bad_is_bad_whatever_else_is_unknown() -> None:
    assert decide(Facts(alarms=[ALARM], unreadable=["Mackerel: 503"])).status == "bad"


@pytest.mark.parametrize(
    ("alarm", "known", "status"),
    [
        (replace(ALARM, since=BEGAN - 1), ["alarm web-5xx: ALARM: as it was"], "ok"),
        (replace(ALARM, since=BEGAN + 1), ["alarm web-5xx: ALARM: as it was"], "bad"),
        (replace(ALARM, since=BEGAN - 1), ["alarm web: ALARM: another"], "bad"),
        (replace(ALARM, since=BEGAN - 1), ["alarm web-5xx: latency: ALARM: another"], "bad"),
        (replace(ALARM, since=BEGAN - 1), [], "bad"),
        (
            replace(ALARM, state="INSUFFICIENT_DATA"),
            ["alarm web-5xx: ALARM: as it was"],
            "unknown",
        ),
    ],
    ids=[
        "on since before",
        "off and on again",
        "another one",
        "another one whose name begins like it",
        "nobody knew",
        "unknown",
    ],
)
def test_an_alarm_known_to_be_on_counts_again_once_it_has_changed(
    alarm: Alarm, known: list[str], status: str
) -> None:
    assert decide(Facts(alarms=[alarm]), None, *known).status == status


def test_an_alert_known_at_the_start_does_not_count_and_one_that_opens_later_does() -> None:
    later = replace(ALERT, alert_id="3Xf")
    assert decide(Facts(alerts=[ALERT]), None, ALERT.text) == Verdict("ok")
    assert decide(Facts(alerts=[ALERT, later]), None, ALERT.text).reason == later.text


@pytest.mark.parametrize(
    ("before", "now", "status"),
    [
        ("WARNING", "CRITICAL", "bad"),
        ("WARNING", "WARNING", "ok"),
        ("CRITICAL", "WARNING", "ok"),
        ("CRITICAL", "UNKNOWN", "ok"),
    ],
)
def test_an_alert_that_gets_worse_counts(before: str, now: str, status: str) -> None:
    known = replace(ALERT, status=before).text
    assert decide(Facts(alerts=[replace(ALERT, status=now)]), None, known).status == status


def test_at_the_start_what_is_on_or_unreadable_speaks_against_it_and_no_data_does_not() -> None:
    facts = Facts(
        alarms=[ALARM, replace(ALARM, name="idle", state="INSUFFICIENT_DATA")],
        alerts=[ALERT],
        unreadable=["alarm gone: there is no such alarm"],
    )
    found = gates.on(facts, BEGAN + 65)
    assert found == [
        "alarm gone: there is no such alarm",
        "alarm web-5xx: ALARM: Threshold Crossed: 3 datapoints (for 60 s)",
        "alert 2wpLU5fBXbG: CRITICAL, host monitor 'CPU' on host 2vJ (for 60 s)",
    ]
    still = replace(facts, alarms=[replace(ALARM, since=BEGAN)], unreadable=[])
    assert decide(still, None, *found) == Verdict("ok"), "a warning knows them by these texts"


@pytest.mark.parametrize(
    ("alert", "monitor", "counts"),
    [
        ({"type": "host", "hostId": "h-1"}, {}, True),
        ({"type": "connectivity", "hostId": "h-2"}, {"service": "shop"}, False),
        ({"type": "service"}, {"service": "shop"}, True),
        ({"type": "external"}, {"service": "shop"}, True),
        ({"type": "service"}, {"service": "shopping"}, False),
        ({"type": "external"}, {"url": "https://example.com/"}, False),
        ({"type": "expression"}, {"expression": "avg(role(shop:web, loadavg5))"}, True),
        ({"type": "expression"}, {"expression": "avg(roleSlots('shop: web', loadavg5))"}, True),
        ({"type": "expression"}, {"expression": "sum(service(shop, orders.*))"}, True),
        ({"type": "expression"}, {"expression": "avg(role(shop:web-2, loadavg5))"}, False),
        ({"type": "expression"}, {"expression": "avg(role(shop:db, loadavg5))"}, False),
        ({"type": "query"}, {"query": "up{service='shop'}"}, False),
        ({"type": "service"}, {}, False),
    ],
    ids=str,
)
def test_which_alerts_are_of_a_role(
    alert: dict[str, Any], monitor: dict[str, Any], counts: bool
) -> None:
    assert gates.is_of(alert, monitor, {"h-1"}, ROLE) is counts


# Errors and response time


def test_more_errors_than_the_old_colour_by_more_than_is_allowed_are_bad() -> None:
    facts = Facts(new=answered(412, 21), old=answered(2003, 2))
    assert decide(facts, ERRORS) == Verdict(
        "bad",
        "green answered 5.1 % of 412 requests with 5xx, blue 0.1 % of 2,003, over 3 minutes; "
        "allowed: 1.0 points more",
    )


@pytest.mark.parametrize(
    ("new", "old", "status"),
    [
        (answered(1000, 20), answered(1000, 10), "ok"),
        (answered(1000, 21), answered(1000, 10), "ok"),
        (answered(1000, 31), answered(1000, 10), "too_few"),
        (answered(1000, 50), answered(1000, 10), "bad"),
        (answered(100000, 2200), answered(100000, 1000), "bad"),
        (answered(100000, 2200), answered(1000, 10), "ok"),
        (answered(1000, 50), answered(100, 1), "too_few"),
        (answered(1000, 300), answered(1000, 290), "ok"),
        (answered(20, 1), answered(1000, 0), "too_few"),
        (answered(20, 2), answered(1000, 0), "bad"),
        (answered(19, 19), answered(1000, 0), "too_few"),
        (answered(0), answered(1000, 0), "too_few"),
        (answered(100, 1), answered(0), "ok"),
        (answered(100, 4), answered(0), "too_few"),
        (answered(100, 5), answered(0), "bad"),
        (answered(100, 5), None, "bad"),
    ],
    ids=[
        "as many points more as allowed",
        "more, which is likely to be chance",
        "more, which may be chance",
        "more, which is none",
        "a little more of very many",
        "as little more, than of few",
        "much more, than of very few",
        "the old one is as bad",
        "one error of a few requests",
        "two of as few",
        "too few requests",
        "none",
        "nobody to compare with, few",
        "nobody to compare with, more",
        "nobody to compare with, many",
        "nothing was live",
    ],
)
def test_errors_are_compared(new: Answers, old: Answers | None, status: str) -> None:
    assert decide(Facts(new=new, old=old), ERRORS).status == status


def test_what_was_answered_before_the_shift_is_named_as_such() -> None:
    facts = Facts(new=answered(100, 5, minutes=1), old=answered(2000, 2), earlier=True)
    assert decide(facts, ERRORS).reason == (
        "green answered 5.0 % of 100 requests with 5xx over 1 minute, blue 0.1 % of 2,000 in the "
        "3 minutes before the first shift; allowed: 1.0 points more"
    )
    assert decide(Facts(new=answered(100, 5)), ERRORS).reason == (
        "green answered 5.0 % of 100 requests with 5xx over 3 minutes, and blue had none to "
        "compare with; allowed: 1.0 points more"
    )


def test_too_few_requests_say_how_many_are_needed() -> None:
    assert decide(Facts(new=answered(3), old=answered(900)), ERRORS).reason == (
        "green answered 3 requests over 3 minutes since the shift, 20 are needed to say anything"
    )


@pytest.mark.parametrize(
    ("new", "old", "status"),
    [
        (answered(100, ms=200), answered(100, ms=80), "bad"),
        (answered(100, ms=160), answered(100, ms=80), "ok"),
        (answered(100, ms=161), answered(100, ms=80), "bad"),
        (answered(100, ms=50), answered(100, ms=1), "ok"),
        (answered(100, ms=51), answered(100, ms=1), "bad"),
        (answered(19, ms=900), answered(100, ms=80), "too_few"),
        (answered(100, ms=900), answered(19, ms=80), "too_few"),
        (answered(100, ms=None), answered(100, ms=80), "too_few"),
        (answered(100, ms=900), answered(100, ms=None), "too_few"),
        (answered(100, ms=900), None, "ok"),
    ],
    ids=[
        "slow",
        "so many times as long as allowed",
        "longer",
        "not by enough to matter",
        "by enough to matter",
        "too few requests",
        "too few to compare with",
        "not reported",
        "not reported of the old one",
        "nothing was live",
    ],
)
def test_response_times_are_compared(new: Answers, old: Answers | None, status: str) -> None:
    assert decide(Facts(new=new, old=old, latest=new), TIMES).status == status


@pytest.mark.parametrize(
    ("minutes", "latest", "status"),
    [(2, 300, "bad"), (1, 300, "too_few"), (3, 80, "ok"), (3, None, "ok")],
    ids=["slow and still slow", "its first minute", "it has recovered", "nothing lately"],
)
def test_a_colour_may_be_slow_at_first(minutes: int, latest: float | None, status: str) -> None:
    facts = Facts(
        new=answered(300, ms=200, minutes=minutes),
        old=answered(300, ms=80),
        latest=answered(100, ms=latest, minutes=1),
    )
    assert decide(facts, TIMES).status == status


def test_what_goes_wrong_late_is_not_outweighed_by_what_was_fine() -> None:
    whole, usual = answered(60_000, 450, minutes=59), answered(60_000, 0, minutes=59)
    facts = Facts(new=whole, old=usual, recent_new=answered(5000, 250), recent_old=usual)
    assert decide(replace(facts, recent_new=whole), ERRORS).status == "ok"
    verdict = decide(facts, ERRORS)
    assert verdict.status == "bad"
    assert verdict.reason.startswith("green answered 5.0 % of 5,000 requests with 5xx")


@given(errors=st.integers(0, 400), requests=st.integers(1, 400), deviations=st.floats(0.1, 4))
def test_what_is_behind_a_share_is_on_both_sides_of_it(
    errors: int, requests: int, deviations: float
) -> None:
    found = answered(requests, min(errors, requests))
    least, most = found.percent_between(deviations)
    assert -1e-9 <= least <= found.percent + 1e-9
    assert found.percent - 1e-9 <= most <= 100 + 1e-9


def test_an_unclear_difference_is_told_with_what_it_was_compared_with() -> None:
    assert decide(Facts(new=answered(1000, 50), old=answered(100, 1)), ERRORS).reason == (
        "green answered 5.0 % of 1,000 requests with 5xx, blue 1.0 % of 100, over 3 minutes, which "
        "is too few to be sure"
    )


def errors_of(chance: random.Random, requests: int, share: float) -> int:
    """How many of so many requests fail: from one that fails to the next it is a random way."""
    count, at = 0, 0
    while share:
        at += 1 + int(math.log(1 - chance.random()) / math.log(1 - share))
        if at > requests:
            break
        count += 1
    return count


def verdicts(
    chance: random.Random, new: float, old: float, requests: int, percent: int, minutes: int = 8
) -> list[str]:
    """What is said after each minute. new, old: share of errors of each colour. percent: of so many
    requests a minute on the new one.
    """
    of_new, of_old = requests * percent // 100, requests - requests * percent // 100
    found: list[str] = []
    new_errors = old_errors = 0
    for minute in range(1, minutes + 1):
        new_errors += errors_of(chance, of_new, new)
        old_errors += errors_of(chance, of_old, old)
        facts = Facts(
            new=answered(of_new * minute, new_errors), old=answered(of_old * minute, old_errors)
        )
        found.append(decide(facts, ERRORS).status)
    return found


@pytest.mark.parametrize("percent", [10, 50, 90])
@pytest.mark.parametrize("requests", [300, 1000])
@pytest.mark.parametrize("share", [0.005, 0.02, 0.05])
def test_a_good_colour_is_hardly_ever_taken_for_a_bad_one(
    share: float, requests: int, percent: int
) -> None:
    """Both colours are the same. Neither is one bad in five looks in more than one deployment of a
    hundred; nor is it given up, with a step of 5 minutes and unknown_seconds of 5 more, as unclear.
    """
    chance = random.Random(1)  # noqa: S311
    found = [verdicts(chance, share, share, requests, percent) for _ in range(500)]
    assert sum("bad" in one[:5] for one in found) <= 5
    assert sum("bad" in one or "ok" not in one[2:] for one in found) <= 5


@pytest.mark.parametrize(
    ("new", "old", "requests", "percent", "minutes"),
    [(0.05, 0.0, 1000, 10, 3), (0.05, 0.01, 1000, 50, 3), (0.05, 0.0, 300, 10, 8)],
    ids=["a canary", "half of the traffic", "a canary with 30 requests a minute"],
)
def test_a_bad_colour_is_found_within_minutes(
    new: float, old: float, requests: int, percent: int, minutes: int
) -> None:
    chance = random.Random(1)  # noqa: S311
    found = [verdicts(chance, new, old, requests, percent, minutes) for _ in range(200)]
    assert sum("bad" in one for one in found) > 180


def test_a_slow_colour_is_told_with_both_times() -> None:
    slow = answered(412, ms=320)
    facts = Facts(new=slow, old=answered(2003, ms=80), latest=slow)
    assert decide(facts, TIMES).reason == (
        "green took 320 ms on average for 412 requests, blue 80 ms of 2,003, over 3 minutes; "
        "allowed: 2 times as long, or 50 ms more"
    )


# Minutes


def test_a_minute_counts_that_began_after_the_shift_and_has_been_over_for_a_minute() -> None:
    begin = BEGAN  # a whole minute
    assert list(gates.minutes_since(begin - 30, begin + 119)) == []
    assert list(gates.minutes_since(begin - 30, begin + 120)) == [begin]
    assert list(gates.minutes_since(begin, begin + 180)) == [begin, begin + 60]
    assert list(gates.minutes_since(begin + 1, begin + 180)) == [begin + 60]


@given(shifted_at=st.floats(1e9, 2e9), later=st.floats(0, 1e5))
def test_no_minute_of_before_the_shift_and_none_that_may_be_incomplete_is_read(
    shifted_at: float, later: float
) -> None:
    now = shifted_at + later
    for minute in gates.minutes_since(shifted_at, now):
        assert shifted_at <= minute
        assert minute + 120 <= now
    before = gates.minutes_before(shifted_at)
    assert len(before) == gates.BEFORE_MINUTES
    assert before[0] + 60 <= shifted_at < before[0] + 120


def test_the_mean_is_weighted_by_requests_and_minutes_without_a_report_had_none() -> None:
    found = {0: Minute(90, 1, 0.1), 60: Minute(10, 2, 1.1), 180: Minute(5, 0, None)}
    mean: Any = pytest.approx(0.2)
    assert gates.answers(found, [0, 60, 120, 180]) == Answers(4, 105, 3, mean)
    assert gates.answers({}, [0]) == Answers(1, 0, 0, None)


@pytest.mark.parametrize(
    ("per_minute", "count", "minutes"),
    [(10, 3, 3), (10, 1, 2), (1, 3, 20), (0.1, 3, 60)],
    ids=["as many", "more until enough", "many more", "all there are"],
)
def test_before_the_shift_as_many_minutes_are_taken_as_it_needs(
    per_minute: float, count: int, minutes: int
) -> None:
    found = {minute: Minute(per_minute) for minute in gates.minutes_before(BEGAN)}
    assert gates.answers_before(found, BEGAN, count, ERRORS).minutes == minutes


# Patience


@pytest.mark.parametrize(
    ("status", "expected"),
    [("unknown", 500 + 300), ("too_few", 1000 + 300)],
)
def test_unreadable_is_waited_for_since_it_is_so_and_few_requests_from_the_end_of_the_step(
    status: Any, expected: float
) -> None:
    times = {"unknown_since": 500.0, "shifted_at": 0.0, "ends_at": 1000.0}
    assert gates.gives_up_at(Verdict(status), **times, unknown_seconds=300) == expected


def test_few_requests_are_no_failure_before_any_could_have_been_reported() -> None:
    times = {"unknown_since": 0.0, "shifted_at": 0.0, "ends_at": 10.0}
    assert gates.gives_up_at(Verdict("too_few"), **times, unknown_seconds=0) == 180
