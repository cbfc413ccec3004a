"""``sandbox up --metrics``: what tasks use comes to the Mackerel stand-in.

Without it nothing does: tests/e2e/test_stand_in.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.e2e.running import Running, left_over

KEY = {"X-Api-Key": "sandbox-mackerel-key"}
STATES = "status=working&status=standby&status=maintenance&status=poweroff"
SETTLE_SECONDS = 25


class WithMetrics(Running):
    """A sandbox whose cluster has a metrics configuration."""

    def mackerel(self, path: str) -> Any:
        answer = requests.get(self._about["mackerel_url"] + path, headers=KEY, timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    def hosts(self) -> dict[str, dict[str, Any]]:
        """What the stand-in knows, by custom identifier."""
        hosts = self.mackerel(f"/api/v0/hosts?{STATES}")["hosts"]
        return {host["customIdentifier"]: host for host in hosts}

    def values(self, host: str, name: str) -> dict[int, float]:
        """What a host has of a metric, by minute."""
        now = int(time.time())
        place = f"/api/v0/hosts/{host}/metrics?name={name}&from={now - 3600}&to={now}"
        return {one["time"]: one["value"] for one in self.mackerel(place)["metrics"]}

    def settle(self) -> None:
        answer = self.control("POST", "settle", {"seconds": SETTLE_SECONDS})
        assert answer["settled"], answer

    def write_insights(self, minute: int) -> int:
        """How many events that made."""
        return int(self.control("POST", "insights", {"minute": minute})["events"])


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[WithMetrics]:
    number = 150 + int(worker_id.removeprefix("gw") if worker_id != "master" else 0)
    settings = {"metrics.mackerel.service": "shop"}
    directory = tmp_path_factory.mktemp("metrics")
    running = WithMetrics(directory, f"127.0.{number}", settings, ["--metrics"])
    try:
        running.start()
        assert running.deploy("v1").succeeded
        yield running
    finally:
        running.stop()
    assert left_over(running.network) == []


def test_what_tasks_use_comes_to_mackerel(sandbox: WithMetrics) -> None:
    # Which of these minutes the function reads depends on when it ran before.
    now = int(time.time()) // 60 * 60
    for minute in range(now - 360, now, 60):
        time.sleep(0.5)
        sandbox.write_insights(minute)

    sandbox.sweep()
    sandbox.settle()

    known = sandbox.hosts()
    live = [host for host in known.values() if host["status"] == "working"]
    site = "ecs-bluegreen.123456789012.ap-northeast-1"
    assert sorted(known) == [f"{site}.web.web-blue", f"{site}.web.web-green"]
    assert len(live) == 1
    assert live[0]["roles"] == {"shop": ["web"]}
    memory = sandbox.values(live[0]["id"], "custom.ecs.memory.web.usage")
    assert {minute % 60 for minute in memory} == {0}
    assert all(value > 1_000_000 for value in memory.values())


def test_faults_of_mackerel_can_be_turned_on_and_off(sandbox: WithMetrics) -> None:
    with sandbox.faults("mackerel", kind="wrong_key"):
        (shown,) = sandbox.control("GET", "faults")
        assert (shown["name"], shown["kind"]) == ("mackerel", "wrong_key")
        with pytest.raises(AssertionError):
            sandbox.hosts()

    assert sandbox.control("GET", "faults") == []
    assert sandbox.hosts()


def test_a_fault_that_mackerel_does_not_have_is_refused(sandbox: WithMetrics) -> None:
    url = sandbox._about["control_url"] + "faults"
    answer = requests.post(url, json={"name": "mackerel", "kind": "earthquake"}, timeout=10)
    assert answer.status_code == 400
    assert "outage" in answer.json()["error"]


def test_the_configuration_of_the_cluster_can_be_overridden(sandbox: WithMetrics) -> None:
    parameters = sandbox.client("ssm").get_parameters_by_path(Path="/bluegreen/metrics")
    (one,) = parameters["Parameters"]
    assert one["Name"] == "/bluegreen/metrics/web"
    assert "service: shop" in one["Value"]
    assert "source: container-insights" in one["Value"]


def test_the_key_of_mackerel_is_a_secret(sandbox: WithMetrics) -> None:
    (parameter,) = sandbox.client("ssm").get_parameters(Names=["/bluegreen/mackerel/api-key"])[
        "Parameters"
    ]
    assert parameter["Type"] == "SecureString"
    assert KEY["X-Api-Key"] != parameter["Value"]
