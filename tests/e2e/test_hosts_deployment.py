"""A proxy on every host: all switch together, nothing is lost, and there is a way back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.e2e.conftest import PROXIES
from tests.e2e.running_hosts import RunningHosts, other


@pytest.mark.parametrize("hosts", PROXIES, indirect=True)
def test_18_all_hosts_switch_together_and_nothing_is_lost(hosts: RunningHosts) -> None:
    """Nor are requests that take long: they end on their colour, and the drain waits for them."""
    old, version = hosts.live(), hosts.answer()["X-Version"]
    hosts.push("good")
    with hosts.configured({"drain.seconds": 30}), hosts.under_load(), ThreadPoolExecutor() as pool:
        arn = hosts.start_execution(hosts.request("good"))
        hosts.wait_for_state(arn, "ShiftTraffic")
        long = [
            pool.submit(requests.get, f"http://{host['address']}:8080/?sleep=6000", timeout=20)
            for host in hosts.hosts()
        ]
        began = time.monotonic()
        ended = hosts.wait(arn)
        took = time.monotonic() - began
        answers = [one.result() for one in long]
    assert ended.succeeded, ended.cause
    hosts.assert_all_on(other(old), "good")
    assert [(one.status_code, one.headers["X-Version"]) for one in answers] == [(200, version)] * 3
    assert took < 30, "the drain ends with the last connection, not with its time"
    assert hosts.record(ended.name)["outcome"] == "succeeded"
    assert "held" not in hosts.lock()
    assert hosts.mackerel_statuses("web") == {
        f"ecs-bluegreen.123456789012.ap-northeast-1.web.web-{other(old)}": "working",
        f"ecs-bluegreen.123456789012.ap-northeast-1.web.web-{old}": "poweroff",
    }


def test_nothing_to_do_for_what_is_live_on_all_hosts(hosts: RunningHosts) -> None:
    before = hosts.hosts()
    again = hosts.deploy(hosts.answer()["X-Version"])
    assert again.succeeded
    assert "Deploy" not in again.states
    assert hosts.record(again.name)["outcome"] == "nothing_to_do"
    assert hosts.hosts() == before


def test_all_hosts_go_back_by_hand(hosts: RunningHosts) -> None:
    before, version = hosts.world(), hosts.answer()["X-Version"]
    hosts.push("regretted")
    with hosts.under_load():
        deployed = hosts.deploy("regretted")
        assert deployed.succeeded, deployed.cause
        back = hosts.roll_back(deployed.name)
    assert back.succeeded, back.cause
    hosts.assert_all_on(hosts.live(), version)
    assert hosts.world() == before
    assert hosts.record(deployed.name)["outcome"] == "rolled_back"
    assert "held" not in hosts.lock()
