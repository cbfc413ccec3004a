"""Hosts with a real nginx or HAProxy on 127.0.30.x."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.hosts.machine import SYSTEM_PATH, Machine


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
