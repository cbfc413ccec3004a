"""One sandbox for all tests of this folder, and a world in order before each of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.running import Running, left_over

NETWORK = "127.0.11"


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    missing = [program for program in ("haproxy", "wrk") if not shutil.which(program)]
    if missing:
        pytest.fail(f"{' and '.join(missing)} missing: run `make test`, which installs them")
    running = Running(tmp_path_factory.mktemp("sandbox"), NETWORK)
    running.start()
    yield running
    running.stop()
    assert left_over(NETWORK) == []


@pytest.fixture
def sandbox(started: Running) -> Iterator[Running]:
    """A sandbox with a live colour, nothing wrong and nothing running."""
    started.control("DELETE", "faults", {})
    if not any(desired for desired, _ in started.counts().values()):
        assert started.deploy("v1").succeeded
    yield started
    started.control("DELETE", "faults", {})
    started.wait_until_unlocked()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks at all calls of all other tests comes last."""
    items.sort(key=lambda item: "test_least_privilege" in item.nodeid)
