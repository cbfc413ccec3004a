"""One sandbox of each kind for all tests, and a world in order before each of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import running_groups, running_hosts
from tests.e2e.running import ROOT, Running, left_over
from tests.e2e.running_groups import RunningGroups
from tests.e2e.running_hosts import RunningHosts

CALLS = ROOT / "build" / "calls"
PROXIES = ("nginx", "haproxy")
BALANCERS = ("alb", "nlb", "clb")


@pytest.fixture(scope="session")
def networks(worker_id: str) -> tuple[str, str]:
    """Two loopback networks of this worker: for its sandbox, and for one that a test starts."""
    number = 20 + 2 * _number(worker_id)
    return f"127.0.{number}", f"127.0.{number + 1}"


@pytest.fixture
def spare_network(networks: tuple[str, str]) -> str:
    return networks[1]


@pytest.fixture(scope="session")
def started(
    tmp_path_factory: pytest.TempPathFactory, networks: tuple[str, str], worker_id: str
) -> Iterator[Running]:
    _require("haproxy", "wrk")
    running = Running(tmp_path_factory.mktemp("sandbox"), networks[0])
    running.start()
    yield running
    end(running, worker_id)


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


@pytest.fixture(scope="session")
def started_hosts(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Callable[[str], RunningHosts]]:
    """The sandbox of the pattern host-proxy with a proxy; it is started when first asked for."""
    _require("haproxy", "nginx", "wrk")
    started: dict[str, RunningHosts] = {}

    def start(proxy: str) -> RunningHosts:
        if proxy not in started:
            number = 60 + 2 * _number(worker_id) + PROXIES.index(proxy)
            options = ["--pattern", "host-proxy", "--proxy", proxy]
            options += ["--hosts", str(running_hosts.HOSTS)]
            directory = tmp_path_factory.mktemp(f"sandbox-{proxy}")
            running = RunningHosts(directory, f"127.0.{number}", running_hosts.QUICK, options)
            running.start()
            started[proxy] = running
        return started[proxy]

    yield start
    for proxy, running in started.items():
        end(running, f"{worker_id}-{proxy}")


@pytest.fixture
def hosts(
    started_hosts: Callable[[str], RunningHosts], request: pytest.FixtureRequest
) -> Iterator[RunningHosts]:
    """Hosts with a live colour, nothing wrong and nothing running; nginx unless a test says."""
    running = started_hosts(getattr(request, "param", "nginx"))
    running.put_in_order()
    yield running
    running.mend()
    running.wait_until_unlocked(90)


@pytest.fixture(scope="session")
def started_groups(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Callable[[str], RunningGroups]]:
    """The sandbox of two-clusters with a load balancer; it is started when first asked for."""
    _require("haproxy", "wrk")
    started: dict[str, RunningGroups] = {}

    def start(balancer: str) -> RunningGroups:
        if balancer not in started:
            number = 100 + 3 * _number(worker_id) + BALANCERS.index(balancer)
            settings = running_groups.QUICK | (running_groups.CLASSIC if balancer == "clb" else {})
            directory = tmp_path_factory.mktemp(f"sandbox-{balancer}")
            running = RunningGroups(
                directory,
                f"127.0.{number}",
                settings,
                ["--pattern", "two-clusters", "--balancer", balancer],
            )
            running.start()
            started[balancer] = running
        return started[balancer]

    yield start
    for balancer, running in started.items():
        end(running, f"{worker_id}-{balancer}")


@pytest.fixture
def groups(
    started_groups: Callable[[str], RunningGroups], request: pytest.FixtureRequest
) -> Iterator[RunningGroups]:
    """Groups with a live colour, nothing wrong and nothing running; an ALB unless a test says."""
    running = started_groups(getattr(request, "param", "alb"))
    running.put_in_order()
    yield running
    running.control("DELETE", "faults", {})
    running.wait_until_unlocked(90)


def _number(worker_id: str) -> int:
    return int(worker_id.removeprefix("gw")) if worker_id != "master" else 0


def _require(*programs: str) -> None:
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.fail(f"{' and '.join(missing)} missing: run `make test`, which installs them")


def end(running: Running, name: str) -> None:
    """Stop a sandbox; nothing may be left of it, and what its functions called is kept."""
    # For tests/least_privilege, which looks at the calls of all workers.
    CALLS.mkdir(parents=True, exist_ok=True)
    (CALLS / f"{name}.json").write_text(json.dumps(running.operations()))
    running.stop()
    assert left_over(running.network) == []
