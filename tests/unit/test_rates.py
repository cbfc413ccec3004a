"""From counters to rates."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from containermetrics.model import Sample, Source
from containermetrics.rates import LARGEST, LONGEST_GAP_SECONDS, reading

WEB = Source("0123", "web-blue", "web", "7", "app")


def sample(at: float, counters: dict[str, float], **gauges: float) -> Sample:
    return Sample(WEB, at, counters, {name.replace("__", "."): gauges[name] for name in gauges})


def values(before: Sample | None, now: Sample) -> dict[str, float]:
    return dict(reading(before, now).values)


def test_one_core_that_was_busy_all_the_time_is_a_hundred_percent() -> None:
    before = sample(1000, {"cpu.total": 5.0, "cpu.user": 4.0, "cpu_core.0": 1.0})
    now = sample(1060, {"cpu.total": 65.0, "cpu.user": 34.0, "cpu_core.0": 61.0})
    assert values(before, now) == {"cpu.total": 100, "cpu.user": 50, "cpu_core.0": 100}


def test_the_scales_of_counters() -> None:
    names = [
        "throttling.periods",
        "throttling.time",
        "memory_events.oom_kill",
        "memory_stat.pgfault",
        "blkio_bytes.sda_read",
        "blkio_ops.sda_read",
        "network.eth0_rx_bytes",
        "network.eth0_rx_packets",
    ]
    before = sample(0, dict.fromkeys(names, 0.0))
    now = sample(30, dict.fromkeys(names, 15.0))
    assert values(before, now) == {
        "throttling.periods": 30,  # a minute
        "throttling.time": 50,  # percent
        "memory_events.oom_kill": 30,  # a minute
        "memory_stat.pgfault": 0.5,
        "blkio_bytes.sda_read": 0.5,
        "blkio_ops.sda_read": 0.5,
        "network.eth0_rx_bytes": 0.5,
        "network.eth0_rx_packets": 0.5,
    }


def test_the_first_sample_has_gauges_only() -> None:
    assert values(None, sample(0, {"cpu.total": 5.0}, memory__usage=7)) == {"memory.usage": 7}


def test_a_counter_that_went_down_has_no_value_and_the_others_do() -> None:
    """memory.stat is added up over processors, and may go back a little."""
    before = sample(0, {"cpu.total": 5.0, "memory_stat.pgfault": 100.0})
    now = sample(10, {"cpu.total": 6.0, "memory_stat.pgfault": 99.0})
    assert values(before, now) == {"cpu.total": 10}


def test_nothing_is_known_of_counters_that_started_anew() -> None:
    """Also of those that have grown past what they were: 3,000 of 4,000 would be wrong."""
    before = sample(0, {"cpu.total": 5.0, "network.eth0_rx_bytes": 1_000.0})
    now = sample(60, {"cpu.total": 0.5, "network.eth0_rx_bytes": 4_000.0}, memory__usage=7)
    assert values(before, now) == {"memory.usage": 7}


@pytest.mark.parametrize("seconds", [-60, 0, 0.2, LONGEST_GAP_SECONDS + 1, math.nan, math.inf])
def test_no_rate_over_too_long_or_no_time(seconds: float) -> None:
    before, now = sample(1000, {"cpu.total": 5.0}), sample(1000 + seconds, {"cpu.total": 6.0})
    assert values(before, now) == {}


@pytest.mark.parametrize("seconds", [1, 60, LONGEST_GAP_SECONDS])
def test_a_missed_minute_is_bridged(seconds: float) -> None:
    before = sample(1000, {"cpu.total": 5.0})
    now = sample(1000 + seconds, {"cpu.total": 5.0 + seconds})
    assert values(before, now) == {"cpu.total": 100}


def test_a_counter_that_is_new_has_no_value_yet() -> None:
    """A device that was attached, say."""
    before = sample(0, {"cpu.total": 5.0})
    now = sample(10, {"cpu.total": 6.0, "blkio_bytes.sdb_read": 4096.0})
    assert values(before, now) == {"cpu.total": 10}


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 10**400])
def test_what_is_no_number_is_no_value(wrong: float) -> None:
    before = sample(0, {"cpu.total": 5.0, "cpu.user": wrong, "cpu.system": 1.0})
    now = sample(10, {"cpu.total": 6.0, "cpu.user": 1.0, "cpu.system": wrong}, memory__usage=wrong)
    assert values(before, now) == {"cpu.total": 10}


def test_unknown_ids_are_left_out_and_a_gauge_is_never_made_a_rate() -> None:
    before = sample(0, {"gpu.total": 5.0, "memory.usage": 5.0})
    now = sample(10, {"gpu.total": 6.0, "memory.usage": 6.0}, gpu__memory=3)
    assert values(before, now) == {}


def test_a_source_may_know_the_rate_itself() -> None:
    """Container Insights does."""
    assert values(None, sample(0, {}, cpu__total=12.5)) == {"cpu.total": 12.5}


numbers = st.integers(-(2**64), 2**64) | st.floats()


@given(numbers, numbers, st.floats(0, 1e10), st.floats(0, 1e10))
def test_a_rate_is_a_number_that_is_not_negative(
    first: float, second: float, began: float, ended: float
) -> None:
    before = sample(began, {"cpu.total": 1.0, "network.eth0_rx_bytes": first})
    now = sample(ended, {"cpu.total": 1.0, "network.eth0_rx_bytes": second})
    rates = values(before, now)
    assert all(0 <= rate < 100 * LARGEST for rate in rates.values())
    if "network.eth0_rx_bytes" in rates:
        assert second >= first
        assert 1 <= ended - began <= LONGEST_GAP_SECONDS


@given(st.lists(st.floats(0, 1000), min_size=2, max_size=20), st.integers(2, 120))
def test_rates_times_time_are_what_was_counted(growth: list[float], seconds: int) -> None:
    """However often the counter is read."""
    assume(math.fsum(growth) > 0)
    counted, samples = 0.0, []
    for number, more in enumerate(growth):
        counted += more
        samples.append(sample(number * seconds, {"cpu.total": counted}))
    rates = [values(before, now)["cpu.total"] for before, now in pairwise(samples)]
    assert math.fsum(rates) * seconds / 100 == pytest.approx(counted - growth[0], abs=1e-6)
