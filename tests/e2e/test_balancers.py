"""Fixed host ports behind a network and behind a classic load balancer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import end
from tests.e2e.running import Running

PORTS = {"blue": 18081, "green": 18082}


@contextmanager
def started(directory: Path, network: str, balancer: str) -> Iterator[Running]:
    """A sandbox with a live colour, and another version to deploy."""
    running = Running(directory, network, options=["--balancer", balancer])
    running.start()
    try:
        first = running.deploy("v1")
        assert first.succeeded, first.cause
        running.push("v2")
        yield running
    finally:
        end(running, f"{network}-{balancer}")


def test_connections_move_with_the_weights_of_a_network_load_balancer(
    tmp_path: Path, spare_network: str
) -> None:
    with started(tmp_path, spare_network, "nlb") as sandbox:
        live = sandbox.live()
        with sandbox.under_load():
            ended = sandbox.deploy("v2")
        assert ended.succeeded, ended.cause
        assert sandbox.live() != live
        assert sandbox.answer()["X-Version"] == "v2"


@dataclass
class Users:
    """Somebody asks 50 times a second, on a new connection each time."""

    url: str
    lost: list[float] = field(default_factory=list)
    _enough: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._enough.set()
            thread.join()

    def _ask(self) -> None:
        while not self._enough.wait(0.02):
            began = time.monotonic()
            try:
                answered = requests.get(self.url, timeout=5).ok
            except requests.RequestException:
                answered = False
            if not answered:
                self.lost.append(began)

    @property
    def lost_seconds(self) -> float:
        """From the first request that was lost to the last."""
        return self.lost[-1] - self.lost[0] if self.lost else 0.0


def listener(sandbox: Running) -> tuple[int, str]:
    """The port of the instances that the one listener sends to, and what is checked."""
    described = sandbox.client("elb").describe_load_balancers(LoadBalancerNames=["web"])
    (balancer,) = described["LoadBalancerDescriptions"]
    (only,) = balancer["ListenerDescriptions"]
    assert only["Listener"]["LoadBalancerPort"] == 8080
    return only["Listener"]["InstancePort"], balancer["HealthCheck"]["Target"]


def place(color: str) -> tuple[int, str]:
    return PORTS[color], f"HTTP:{PORTS[color]}/healthz"


@pytest.mark.timeout(400)
def test_the_listener_of_a_classic_load_balancer_is_made_anew(
    tmp_path: Path, spare_network: str
) -> None:
    with started(tmp_path, spare_network, "clb") as sandbox:
        live = sandbox.answer()["X-Color"]
        assert listener(sandbox) == place(live)

        _with_a_policy(sandbox)
        _a_switch(sandbox, live)
        _a_way_back(sandbox, live)
        _a_listener_that_cannot_be_made(sandbox)


def policies(sandbox: Running) -> list[str]:
    described = sandbox.client("elb").describe_load_balancers(LoadBalancerNames=["web"])
    (only,) = described["LoadBalancerDescriptions"][0]["ListenerDescriptions"]
    return list(only["PolicyNames"])


def _with_a_policy(sandbox: Running) -> None:
    elb = sandbox.client("elb")
    elb.create_lb_cookie_stickiness_policy(LoadBalancerName="web", PolicyName="sticky")
    elb.set_load_balancer_policies_of_listener(
        LoadBalancerName="web", LoadBalancerPort=8080, PolicyNames=["sticky"]
    )


def _a_way_back(sandbox: Running, live: str) -> None:
    """By hand, and the newer version once more."""
    back = sandbox.roll_back("gap")
    assert back.succeeded, back.cause
    assert sandbox.answer()["X-Color"] == live
    assert (listener(sandbox), policies(sandbox)) == (place(live), ["sticky"])
    again = sandbox.deploy("v2")
    assert again.succeeded, again.cause


def _a_switch(sandbox: Running, live: str) -> None:
    """Requests are lost while there is no listener, and at no other time."""
    users = Users(sandbox.url)
    with users.asking():
        ended = sandbox.wait(sandbox.start_execution(sandbox.request("v2"), name="gap"))
    assert ended.succeeded, ended.cause
    answer = sandbox.answer()
    assert (answer["X-Version"], answer["X-Color"] != live) == ("v2", True)
    assert listener(sandbox) == place(answer["X-Color"])
    assert policies(sandbox) == ["sticky"]
    assert sandbox.mackerel_statuses("web") == {
        f"ecs-bluegreen.123456789012.ap-northeast-1.web.web-{answer['X-Color']}": "working",
        f"ecs-bluegreen.123456789012.ap-northeast-1.web.web-{live}": "poweroff",
    }
    record: dict[str, Any] = sandbox.record("gap")
    assert 0 < float(record["gap_ms"]) < 2000
    assert users.lost
    assert users.lost_seconds < 2


def _a_listener_that_cannot_be_made(sandbox: Running) -> None:
    """The old one is put back, and what was there before goes on."""
    before = listener(sandbox)
    sandbox.push("v3")
    users = Users(sandbox.url)
    operation = "elasticloadbalancing:CreateLoadBalancerListeners"
    with (
        sandbox.faults("api_error", operation=operation, kind="error500", times=1),
        users.asking(),
    ):
        ended = sandbox.deploy("v3")
    answer = sandbox.answer()
    assert answer["X-Version"] == ("v3" if ended.succeeded else "v2"), ended.cause
    assert listener(sandbox) == place(answer["X-Color"])
    assert (listener(sandbox) == before) is not ended.succeeded
    assert users.lost_seconds < 10
