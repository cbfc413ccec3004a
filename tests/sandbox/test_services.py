"""The service scheduler's throttle."""

from __future__ import annotations

from sandbox.ecs.services import restart_delay


def test_a_service_that_keeps_failing_is_started_less_and_less_often() -> None:
    delays = [restart_delay(failures) for failures in range(1, 12)]
    assert delays == [1, 1, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_delay_stays_finite() -> None:
    assert restart_delay(10_000) == 60
