"""The demo app on purpose broken: what its users see, and what its health check does not."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time

import pytest

from sandbox.app import App
from sandbox.settings import ROOT


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


def test_a_client_that_pauses_half_a_second_is_told_that_its_connection_closes() -> None:
    """All at once, so that nothing else asks meanwhile."""
    environment = os.environ | {"HOST": "127.0.9.198", "PORT": "20080", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "sandbox.app"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        clients = [http.client.HTTPConnection("127.0.9.198", 20080, timeout=5) for _ in range(12)]
        for moment in range(2):
            if moment:
                process.terminate()
                time.sleep(0.5)
            for client in clients:
                client.request("GET", "/")
            answers = [client.getresponse() for client in clients]
            assert [answer.status for answer in answers] == [200] * 12
            assert {answer.read() != b"" for answer in answers} == {True}
            assert {answer.getheader("Connection") for answer in answers} == {
                "close" if moment else "keep-alive"
            }
        assert process.wait(5) == 0
