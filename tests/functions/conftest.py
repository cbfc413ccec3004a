from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.functions.group_world import GroupWorld
from tests.functions.host_world import HostWorld
from tests.functions.metrics_world import MetricsWorld
from tests.functions.site import Site
from tests.functions.world import REGION, Account, World


@pytest.fixture(scope="session")
def account() -> Iterator[Account]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", REGION)
        environment.delenv("AWS_PROFILE", raising=False)
        with mock_aws():
            yield Account.make()


@pytest.fixture
def world(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(monkeypatch, account).build()
    yield made
    made.close()


@pytest.fixture
def hosts(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostWorld]:
    """As world, with a proxy on each of three hosts."""
    made = HostWorld(monkeypatch, account).build()
    yield made
    made.close()


@pytest.fixture
def groups(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[GroupWorld]:
    """As world, with a cluster and an Auto Scaling group for each colour."""
    made = GroupWorld(monkeypatch, account).build()
    yield made
    made.close()


@pytest.fixture
def metrics(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsWorld]:
    """As world, with container metrics of its cluster and a Mackerel to send them to."""
    made = MetricsWorld(monkeypatch, account).build()
    yield made
    made.close()


@pytest.fixture
def site() -> Iterator[Site]:
    """What stands behind the load balancer's name, on a port of its own."""
    with Site() as made:
        yield made
