"""The demo app on purpose broken: what its users see, and what its health check does not."""

from __future__ import annotations

import pytest

from sandbox.app import App


def app(fail_percent: float = 0, slow: float = 0) -> App:
    return App(never_healthy=False, slow_start=0, fail_percent=fail_percent, slow=slow)


@pytest.mark.parametrize(("percent", "every"), [(5, 20), (10, 10), (50, 2), (100, 1)])
def test_failures_come_evenly(percent: float, every: int) -> None:
    broken = app(fail_percent=percent)
    statuses = [broken.answer("/")[0] for _ in range(10 * every)]
    assert [n for n, status in enumerate(statuses, 1) if status == 500] == [
        every * turn for turn in range(1, 11)
    ]


def test_health_checks_neither_fail_nor_count() -> None:
    broken = app(fail_percent=50)
    assert [broken.answer(path)[0] for path in ("/healthz", "/", "/healthz", "/", "/healthz")] == [
        *(200, 200, 200, 500, 200)
    ]


def test_without_a_fault_nothing_fails() -> None:
    assert {app().answer("/")[0] for _ in range(100)} == {200}
