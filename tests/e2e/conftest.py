"""One sandbox for all tests of this folder, and a world in order before each of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.running import ROOT, Running, left_over

CALLS = ROOT / "build" / "calls"


@pytest.fixture(scope="session")
def networks(worker_id: str) -> tuple[str, str]:
    """Two loopback networks of this worker: for its sandbox, and for one that a test starts."""
    number = 20 + 2 * int(worker_id.removeprefix("gw") if worker_id != "master" else 0)
    return f"127.0.{number}", f"127.0.{number + 1}"


@pytest.fixture
def spare_network(networks: tuple[str, str]) -> str:
    return networks[1]


@pytest.fixture(scope="session")
def started(
    tmp_path_factory: pytest.TempPathFactory, networks: tuple[str, str], worker_id: str
) -> Iterator[Running]:
    missing = [program for program in ("haproxy", "wrk") if not shutil.which(program)]
    if missing:
        pytest.fail(f"{' and '.join(missing)} missing: run `make test`, which installs them")
    running = Running(tmp_path_factory.mktemp("sandbox"), networks[0])
    running.start()
    yield running
    # For tests/least_privilege, which looks at the calls of all workers.
    CALLS.mkdir(parents=True, exist_ok=True)
    (CALLS / f"{worker_id}.json").write_text(json.dumps(running.operations()))
    running.stop()
    assert left_over(networks[0]) == []


@pytest.fixture
def sandbox(started: Running) -> Iterator[Running]:
    """A sandbox with a live colour, nothing wrong and nothing running."""
    started.control("DELETE", "faults", {})
    if not any(desired for desired, _ in started.counts().values()):
        # Two, so that both colours have a task definition whose image exists.
        started.push("v0")
        assert started.deploy("v0").succeeded
        assert started.deploy("v1").succeeded
    yield started
    started.control("DELETE", "faults", {})
    started.wait_until_unlocked()
    started.stop_idle()
