"""The runtime docker with a real engine: what containers get, how they end, and what is left."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.docker import DockerRuntime, Engine, bridge
from sandbox.docker import engine as engine_module
from sandbox.docker.runtime import DockerContainer
from sandbox.processes import CannotStartError, ContainerSpec
from sandbox.settings import ROOT, SandboxError
from sandbox.up import Sandbox
from tests.sandbox.docker_engine import control_group, left_of, require_engine

DEMO_APP = [sys.executable, "-m", "sandbox.app"]
SECONDS = 15.0
MEBIBYTE = 1 << 20


@dataclass
class World:
    """A running engine and what was started on it; ``address`` is that of the instance."""

    engine: Engine
    runtime: DockerRuntime
    address: str
    lines: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)

    def start(self, *command: str, **more: Any) -> DockerContainer:
        self.tasks.append(more.setdefault("task", secrets.token_hex(16)))
        port = next(iter(more.get("ports", {}).values()), None)
        spec = ContainerSpec(
            command=command,
            environment=more.pop("environment", {}),
            host=self.address,
            port=port,
            log=self.lines.extend,
            **more,
        )
        return self.runtime.start(spec)


@pytest.fixture(scope="module")
def network(worker_id: str) -> str:
    return _network_of(worker_id)


@pytest.fixture
def spare_network(worker_id: str) -> str:
    """For an engine that a test starts itself."""
    return _network_of(worker_id, 10)


@pytest.fixture(scope="module")
def running(network: str) -> Iterator[tuple[Engine, DockerRuntime]]:
    require_engine()
    with Engine(network) as engine, closing(DockerRuntime(engine)) as runtime:
        yield engine, runtime


@pytest.fixture
def world(running: tuple[Engine, DockerRuntime], network: str) -> World:
    return World(*running, f"{network}.1")


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)
    return value


def end_of(container: DockerContainer) -> int:
    until(lambda: container.exit_code is not None)
    assert container.exit_code is not None
    return container.exit_code


def test_a_container_runs_a_program_of_this_machine_and_its_lines_come(world: World) -> None:
    code = "import os, moto; print(os.getpid()); print(moto.__name__); print('end', end='')"
    assert end_of(world.start(sys.executable, "-c", code)) == 0
    assert world.lines == ["1", "moto", "end"]


def test_lines_come_while_it_runs(world: World) -> None:
    container = world.start("sh", "-c", "echo up; exec sleep 60")
    until(lambda: world.lines == ["up"])
    assert container.exit_code is None
    container.kill()
    end_of(container)


@pytest.mark.parametrize(
    ("program", "code"), [("exit 7", 7), ("kill -TERM $$; sleep 9", 143), ("true", 0)]
)
def test_exit_codes_are_those_of_docker(world: World, program: str, code: int) -> None:
    # A shell of its own, as the kernel protects the first process of a container from signals.
    assert end_of(world.start("sh", "-c", f"sh -c '{program}'; exit $?")) == code


def test_it_listens_inside_and_is_found_at_the_address_of_the_instance(world: World) -> None:
    container = world.start(
        *DEMO_APP,
        environment={"PYTHONPATH": str(ROOT), "COLOR": "blue", "VERSION": "v1"},
        ports={8000: 18_081},
    )
    url = f"http://{world.address}:18081/"
    answer = until(lambda: _answer(url))
    assert answer.headers["X-Color"] == "blue"
    assert "version v1, color blue: listening on 0.0.0.0:8000" in world.lines

    began = time.monotonic()
    container.terminate()
    assert end_of(container) == 0
    assert time.monotonic() - began < 5, "SIGTERM did not reach the program"
    assert "SIGTERM: finishing what is in flight" in world.lines
    assert _answer(url) is None


def test_a_port_is_free_again_when_its_container_has_ended(world: World) -> None:
    for _ in range(3):
        container = world.start("sleep", "60", ports={8000: 18_082})
        container.kill()
        assert end_of(container) == 137


def test_host_and_port_are_replaced_in_the_command(world: World) -> None:
    end_of(world.start("echo", "$HOST:${PORT} $OTHER", ports={8000: 18_083}))
    assert world.lines == ["0.0.0.0:8000 $OTHER"]


def test_nothing_of_the_sandboxs_environment_leaks_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "x")
    end_of(world.start("env", environment={"GIVEN": "y"}))
    assert "GIVEN=y" in world.lines
    assert not [line for line in world.lines if "SECRET_OF_MINE" in line]


def test_the_machine_cannot_be_written_to(world: World) -> None:
    place = ROOT / "build" / "written"
    assert end_of(world.start("touch", str(place))) != 0
    assert end_of(world.start("touch", "/usr/written")) != 0
    assert not place.exists()


def test_secrets_of_etc_stay_outside(world: World) -> None:
    end_of(world.start("sh", "-c", "ls -l /etc/passwd /etc/shadow"))
    assert any(line.endswith("/etc/passwd") for line in world.lines)
    assert not any(line.endswith("root /etc/shadow") for line in world.lines)


def test_limits_are_those_of_the_task_definition_in_the_cgroups_of_ecs(world: World) -> None:
    container = world.start("sleep", "60", cpu=256, memory=64, memory_reservation=32)
    task = world.tasks[-1]
    memory = control_group("memory", task, container.runtime_id)
    cpu = control_group("cpu", task, container.runtime_id)
    found = {
        path.name: path.read_text().strip()
        for path in (
            memory / "memory.limit_in_bytes",
            memory / "memory.soft_limit_in_bytes",
            cpu / "cpu.shares",
            memory / "memory.max",
            memory / "memory.low",
        )
        if path.exists()
    }
    v1 = {
        "memory.limit_in_bytes": str(64 * MEBIBYTE),
        "memory.soft_limit_in_bytes": str(32 * MEBIBYTE),
        "cpu.shares": "256",
    }
    v2 = {"memory.max": str(64 * MEBIBYTE), "memory.low": str(32 * MEBIBYTE)}
    assert found in (v1, v2)
    container.kill()
    end_of(container)
    assert not memory.parent.exists()


def test_more_memory_than_the_limit_ends_it(world: World) -> None:
    code = "x = bytearray(200 << 20); print('never')"
    assert end_of(world.start(sys.executable, "-c", code, memory=32)) == 137
    assert world.lines == []


def test_what_it_uses_is_counted(world: World) -> None:
    container = world.start("sh", "-c", "while :; do :; done")
    before = until(container.usage)
    time.sleep(1)
    usage = container.usage()
    assert usage is not None
    assert usage.cpu_seconds - before.cpu_seconds > 0.2
    container.kill()
    end_of(container)
    assert container.usage() is None


def test_a_health_check_runs_inside_and_can_be_killed(world: World) -> None:
    container = world.start("sh", "-c", "touch /var/ready; exec sleep 60")
    assert until(lambda: container.run(["test", "-e", "/var/ready"]).wait() == 0)
    assert container.run(["sh", "-c", "exit 3"]).wait() == 3

    hanging = container.run(["sleep", "61"])
    assert hanging.poll() is None
    hanging.kill()
    assert hanging.wait() == 137
    assert container.exit_code is None, "the check was killed, not the container"
    container.kill()
    end_of(container)
    with pytest.raises(CannotStartError):
        container.run(["true"])


def test_a_program_that_is_not_there_is_told_as_docker_tells_it(world: World) -> None:
    with pytest.raises(CannotStartError, match=r'exec: "no-such": executable file not found'):
        world.start("no-such")
    assert left_of("127.0.0", world.tasks[-1:]) == [], "its control group is left"


def test_a_container_that_has_ended_is_forgotten_by_the_engine(world: World) -> None:
    name = f"ecs-web-1-web-{secrets.token_hex(4)}"
    for _ in range(2):  # the same name again
        end_of(world.start("true", name=name, labels={"com.amazonaws.ecs.task-arn": "arn"}))
    assert world.engine.client.containers(all=True, filters={"name": name}) == []


def test_an_engine_leaves_nothing(spare_network: str) -> None:
    require_engine()
    rules = _firewall()
    own = spare_network
    with Engine(own) as engine:
        assert bridge.is_there(engine.bridge)
        directory = Path(engine.host.removeprefix("unix://")).parent
        world = World(engine, DockerRuntime(engine), f"{own}.1")
        container = world.start("sh", "-c", "sleep 60 & sleep 61", ports={80: 18_090})
        assert left_of(own, world.tasks, directory), "what is looked for is not there at all"
        assert _firewall() == rules
    until(lambda: container.exit_code == 137)
    assert left_of(own, world.tasks, directory) == []
    assert _firewall() == rules


KILLED = """
import time
from sandbox.docker import DockerRuntime, Engine
from sandbox.processes import ContainerSpec
engine = Engine({network!r})
engine.start()
where = dict(host={address!r}, port=18091, ports={{80: 18091}}, task={task!r})
DockerRuntime(engine).start(ContainerSpec(["sleep", "600"], {{}}, log=print, **where))
print(engine.host, flush=True)
time.sleep(600)
"""


def test_nothing_is_left_after_sigkill_and_the_next_engine_starts(spare_network: str) -> None:
    require_engine()
    own, task = spare_network, secrets.token_hex(16)
    script = KILLED.format(network=own, address=f"{own}.1", task=task)
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().strip().removeprefix("unix://")).parent
        assert left_of(own, [task], directory), "what is looked for is not there at all"
        process.send_signal(signal.SIGKILL)
    with Engine(own):  # at once, while the guard still cleans up
        pass
    until(lambda: left_of(own, [task], directory) == [])


def test_a_network_has_one_engine(world: World, network: str) -> None:
    with pytest.raises(SandboxError, match="another Docker engine"):
        Engine(network).start()
    assert end_of(world.start("true")) == 0


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_module, "SYSTEM_PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"dockerd is missing.*apt-get install docker\.io"):
        Sandbox(runtime="docker")


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for program in engine_module.PROGRAMS:
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.setattr(engine_module, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="needs root"):
        Sandbox(runtime="docker")


def test_an_engine_that_cannot_start_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, spare_network: str
) -> None:
    require_engine()
    own = spare_network
    monkeypatch.setattr(engine_module, "_storage_driver", lambda _: "no-such-driver")
    engine = Engine(own)
    with pytest.raises(SandboxError, match="driver not supported"):
        engine.start()
    assert left_of(own, [], Path(engine.host.removeprefix("unix://")).parent) == []


def _network_of(worker_id: str, offset: int = 0) -> str:
    number = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    return f"127.0.{170 + offset + number}"


def _answer(url: str) -> requests.Response | None:
    try:
        return requests.get(url, timeout=2)
    except requests.ConnectionError:
        return None


def _firewall() -> str:
    if shutil.which("iptables-save") is None:
        return ""
    saved = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    return "\n".join(line for line in saved.splitlines() if not line.startswith("#"))
