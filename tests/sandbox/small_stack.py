"""Functions with what calls them, an instance for commands, and nothing else: a template and a
folder of a test's own.

moto's state is global to a process, so they run in one of their own: this module, as a program.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import requests

if TYPE_CHECKING:
    from sandbox.ssm.documents import Script
    from sandbox.ssm.model import Ran

INSTANCE = "i-0123456789abcdef0"
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class SmallStack:
    """``directory`` gets template.yaml and the modules of functions/."""

    directory: Path
    endpoint: str = ""
    _process: subprocess.Popen[str] | None = None

    def start(self, template: str, modules: dict[str, str]) -> None:
        (self.directory / "functions").mkdir()
        (self.directory / "template.yaml").write_text(template)
        for name, text in modules.items():
            (self.directory / "functions" / f"{name}.py").write_text(text)
        with (self.directory / "output.txt").open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.sandbox.small_stack", str(self.directory)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        assert self.endpoint, (self.directory / "output.txt").read_text()

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=20)
            assert self._process.returncode == 0

    def client(self, service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            region_name="ap-northeast-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.request(method, f"{self.endpoint}/_sandbox/{path}", json=body, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    def settle(self, seconds: float = 15) -> dict[str, Any]:
        settled: dict[str, Any] = self.control("POST", "settle", {"seconds": seconds})
        return settled


class Instance:
    """The one instance: this machine."""

    instance_id = INSTANCE
    address = "127.0.0.1"
    online = True
    listening = True
    terminated = False

    def __init__(self) -> None:
        self.registered_at: datetime | None = datetime.now(UTC)
        self.pinged_at = datetime.now(UTC)

    def execute(self, script: Script) -> Ran:
        """Run it with sh."""
        from sandbox.ssm.model import Ran

        ran = subprocess.run(["sh", "-c", script.text], capture_output=True, text=True, check=False)
        return Ran(ran.returncode, ran.stdout, ran.stderr)


class Instances:
    """All instances."""

    def __init__(self) -> None:
        self._nodes = [Instance()]

    def nodes(self) -> Sequence[Instance]:
        return self._nodes


def main(directory: Path) -> None:
    """Run the stack until standard input ends."""
    # moto is slow to load, and the test that imports this module does not need it.
    from sandbox import buckets, cloudwatch, logs, registry, ssm
    from sandbox.aws import AwsServer
    from sandbox.events import EventBus
    from sandbox.functions import LambdaRuntime
    from sandbox.images import Images, scan_of
    from sandbox.queues import EventSources
    from sandbox.resources import Resources
    from sandbox.stack import Stack, load
    from sandbox.world import World

    logging.basicConfig(level=logging.INFO)
    server = AwsServer()
    os.environ["MOTO_PORT"] = str(server.port)
    world = World(
        "127.0.0", server.endpoint, directory, directory, lambda event: bus.publish(event)
    )
    log = (directory / "functions.log").open("w", buffering=1)
    functions = LambdaRuntime(world, directory / "functions", lambda line: print(line, file=log))
    functions.install()
    bus = EventBus(world, functions)
    bus.install()
    sources = EventSources(world, functions, server.workflow.note)
    sources.install()
    logs.install()
    buckets.install()
    ssm.install(world, Instances())
    cloudwatch.install()
    images = Images(world)
    registry.install(images.scan)

    def push(body: dict[str, Any]) -> dict[str, str]:
        scan = scan_of(body.pop("scan", None), body.pop("findings", None), body.pop("seconds", 0))
        return {"digest": images.push(body.pop("image"), **body, scan=scan)}

    stack = Stack("small", load(directory / "template.yaml"), world, {})
    stack.create(Resources(world, functions, "small", directory).create)
    functions.warm()
    server.front.routes = {
        ("POST", "settle"): lambda body: sources.settle(float(body["seconds"])),
        ("POST", "sweep"): lambda _: bus.sweep(),
        ("POST", "push"): push,
        ("GET", "operations"): lambda _: server.workflow.calls(),
    }
    sys.stdout.write(server.endpoint + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    world.stopping.set()
    functions.stop()
    server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
