"""Hosts with a real nginx or HAProxy on 127.0.30.x, and trees of control groups."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import ecs_bluegreen_metrics
from tests.hosts.machine import SYSTEM_PATH, Machine, free_address
from tests.hosts.trees import ListeningAgent, Tree


def needs(*programs: str) -> None:
    """Skip a test for want of a program; in CI everything has to be there."""
    missing = [name for name in programs if not shutil.which(name, path=SYSTEM_PATH)]
    if missing and "CI" not in os.environ:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(params=["nginx", "haproxy"])
def host(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A configured host with a running proxy and a task of each colour; no traffic yet."""
    needs(request.param)
    with Machine(request.param) as machine:
        machine.configure()
        machine.start_task("blue")
        machine.start_task("green")
        machine.start_proxy()
        yield machine


@pytest.fixture(params=["nginx", "haproxy"])
def dynamic_host(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A host whose tasks have dynamic ports; none runs yet."""
    needs(request.param)
    with Machine(request.param, dynamic=True) as machine:
        machine.configure()
        machine.start_agent()
        machine.start_proxy()
        yield machine


@pytest.fixture
def agent() -> Iterator[ListeningAgent]:
    """An ECS agent on an address of its own."""
    address, claim = free_address()
    agent = ListeningAgent(address)
    yield agent
    agent.stop()
    claim.close()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Where the program finds control groups; none yet."""
    tree = Tree(tmp_path)
    monkeypatch.setattr(ecs_bluegreen_metrics, "BLOCK_ROOT", str(tree.block))
    monkeypatch.setattr(ecs_bluegreen_metrics, "_devices", {})
    monkeypatch.setattr(ecs_bluegreen_metrics, "CORES", 2)
    return tree
