"""How long the state machine waits between two looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bluegreen.pace import LONGEST_SECONDS, wait_seconds

moments = st.floats(0, 1e7)


@given(st.integers(1, LONGEST_SECONDS), moments, st.none() | st.floats(-1e6, 1e6))
def test_never_less_than_a_second_nor_more_than_the_longest(
    interval: int, elapsed: float, left: float | None
) -> None:
    assert 1 <= wait_seconds(interval, elapsed, left) <= LONGEST_SECONDS


@given(st.integers(1, LONGEST_SECONDS), moments, st.floats(1, 1e6))
def test_a_moment_that_is_known_is_not_slept_through(
    interval: int, elapsed: float, left: float
) -> None:
    assert wait_seconds(interval, elapsed, left) < left + 1


def test_at_the_beginning_the_interval_of_the_configuration_holds() -> None:
    assert [wait_seconds(interval, 0) for interval in (1, 5, 300)] == [1, 5, 300]
    assert wait_seconds(5, 300) == 5
    assert wait_seconds(5, 600) == 10


def test_a_day_of_waiting_fits_into_the_history_of_an_execution() -> None:
    """25,000 events, about nine a look, and a deployment waits in several states."""
    looks, elapsed = 0, 0.0
    while elapsed < 86_400:
        elapsed += wait_seconds(1, elapsed)
        looks += 1
    assert looks * 9 < 25_000 / 3
