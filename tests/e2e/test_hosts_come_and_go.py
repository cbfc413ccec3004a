"""Hosts that boot, reboot and restart their proxy, between deployments and in the middle of one."""

from __future__ import annotations

import socket

import pytest

from tests.e2e.conftest import PROXIES
from tests.e2e.running_hosts import RunningHosts, other


@pytest.mark.parametrize("when", ["staged", "committing", "committed"])
def test_14_a_host_that_appears_during_the_switch_gets_the_new_colour(
    hosts: RunningHosts, when: str
) -> None:
    old, numbers = hosts.live(), hosts.numbers()
    tag = f"appears-{when}"
    hosts.push(tag)
    # Long enough for a host to boot: what comes after the end is nobody's.
    with hosts.configured({"bake.seconds": 12}), hosts.under_load():
        hosts.fault("host", kind="appears", when=when)
        ended = hosts.deploy(tag)
    assert ended.succeeded, ended.cause
    assert len(hosts.numbers()) == len(numbers) + 1
    # It has a task of the new colour too, for it answers.
    hosts.assert_all_on(other(old), tag)


@pytest.mark.parametrize("hosts", PROXIES, indirect=True)
def test_19_a_restarted_proxy_and_a_rebooted_host_keep_the_colour(hosts: RunningHosts) -> None:
    before, version = hosts.hosts(), hosts.answer()["X-Version"]
    first, second, _ = before
    for host, kind in ((first, "proxy_restarts"), (second, "reboots")):
        with socket.create_connection((host["address"], 8080), timeout=10) as connection:
            hosts.fault("host", kind=kind, host=host["host"])
            assert _ends(connection), "the proxy has not ended"
    hosts.wait_for(lambda: set(hosts.colors("X-Version").values()) == {version})
    assert hosts.hosts() == before


@pytest.mark.parametrize(
    ("hosts", "kind", "when"),
    [
        ("nginx", "reboots", "committed"),
        ("haproxy", "proxy_restarts", "committing"),
    ],
    indirect=["hosts"],
)
def test_19_a_restart_in_the_middle_of_a_switch_leaves_no_mix(
    hosts: RunningHosts, kind: str, when: str
) -> None:
    """What was in flight on the proxy that ended is lost, on no other host anything."""
    before, old = hosts.world(), hosts.live()
    first, restarting, last = hosts.numbers()
    tag = f"{kind.replace('_', '-')}-{when}"
    hosts.push(tag)
    with hosts.hosts_under_load(first, last):
        hosts.fault("host", kind=kind, host=restarting, when=when)
        ended = hosts.deploy(tag)
        hosts.wait_until_unlocked()
    if ended.succeeded:
        # ECS may still be starting the tasks of the host that has rebooted.
        hosts.wait_for(lambda: set(hosts.colors("X-Version").values()) == {tag})
        hosts.assert_all_on(other(old), tag)
    else:
        hosts.wait_for_world(before, seconds=20)


def _ends(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
