"""Load balancers alone: their APIs and what carries the traffic, without clusters or a workflow.

moto's state is global to a process, so they run in one of their own: this module, as a program.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import boto3
import requests

ROOT = Path(__file__).resolve().parents[2]
ZONES = ("ap-northeast-1a", "ap-northeast-1c")


@dataclass
class Balancers:
    """What is made here stays until the end, so tests take names and ports of their own."""

    network: str
    directory: Path
    endpoint: str = ""
    _process: subprocess.Popen[str] | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def address(self) -> str:
        """Where the load balancers listen."""
        return f"{self.network}.200"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sandbox.balancers", self.network, str(self.directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        if not self.endpoint:
            self._process.communicate(timeout=20)
        assert self.endpoint

    def stop(self) -> None:
        assert self._process is not None
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

    @cached_property
    def elbv2(self) -> Any:
        return self.client("elbv2")

    @cached_property
    def elb(self) -> Any:
        return self.client("elb")

    @cached_property
    def ec2(self) -> Any:
        return self.client("ec2")

    @cached_property
    def vpc(self) -> str:
        return str(self.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"])

    @cached_property
    def subnets(self) -> list[str]:
        return [
            self.ec2.create_subnet(
                VpcId=self.vpc, CidrBlock=f"10.1.{number}.0/24", AvailabilityZone=zone
            )["Subnet"]["SubnetId"]
            for number, zone in enumerate(ZONES)
        ]

    def publish(self) -> int:
        """Publish the metrics of the load balancers now; how many requests that is."""
        answer = requests.post(f"{self.endpoint}/_sandbox/traffic", timeout=10)
        return int(answer.json()["requests"])

    def new_name(self) -> str:
        return f"b{next(self._numbers)}"

    def new_port(self) -> int:
        """A port of the load balancers that nobody listens on."""
        with socket.create_server((self.address, 0)) as free:
            return int(free.getsockname()[1])

    def instance(self) -> tuple[str, str]:
        """A running instance: its id and its address."""
        made = self.ec2.run_instances(
            ImageId="ami-12345678", MinCount=1, MaxCount=1, SubnetId=self.subnets[0]
        )["Instances"][0]
        return made["InstanceId"], made["PrivateIpAddress"]


class Program(ThreadingHTTPServer):
    """A web server that says on which address and port it listens.

    ``status`` is what it answers to ``/healthz``; ``/slow`` takes ``slow_seconds``, and ``/500``,
    ``/404`` and the like answer with that status.
    """

    daemon_threads = True

    def __init__(self, address: str, port: int = 0) -> None:
        super().__init__((address, port), _Answers)
        self.status = 200
        self.slow_seconds = 1.0
        self.forwarded: list[str | None] = []
        self._open: list[socket.socket] = []

    @property
    def name(self) -> str:
        host, port = self.server_address[:2]
        return f"{host!s}:{port}"

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.append(connection)
        return connection, address

    def end(self) -> None:
        """End as a killed process does: with all of its connections."""
        self.shutdown()
        self.server_close()
        for connection in self._open:
            with connection:
                connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are what is tested."""


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Program

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(self.server.slow_seconds)
        if self.path == "/":
            self.server.forwarded.append(self.headers.get("X-Forwarded-For"))
        body = self.server.name.encode()
        status = int(self.path[1:]) if self.path[1:].isdigit() else 200
        self.send_response(self.server.status if self.path == "/healthz" else status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def program(address: str, port: int = 0) -> Iterator[Program]:
    """A running ``Program``; it can have ended before."""
    server = Program(address, port)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.end()


def ask(connection: HTTPConnection, path: str = "/") -> str:
    """The body of one answer with 200. Raises OSError or HTTPException when the connection ends."""
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    assert response.status == 200, (response.status, body)
    return body


def get(address: str, port: int, path: str = "/") -> str:
    """Ask on a new connection."""
    with closing(HTTPConnection(address, port, timeout=5)) as connection:
        return ask(connection, path)


def wait_until(true: Callable[[], bool], seconds: float = 10) -> float:
    """Seconds until it is true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def _run(network: str, directory: Path) -> None:
    """Run until nobody writes to standard input any more."""
    from sandbox import alb, clb, cloudwatch
    from sandbox.aws import AwsServer
    from sandbox.hosts import ec2
    from sandbox.processes import start_process
    from sandbox.world import World

    def launch(command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return start_process(command, os.environ, log)

    numbers = itertools.count(1)

    def launched(instance: Any) -> None:
        for interface in instance.nics.values():
            interface.private_ip_address = f"{network}.{next(numbers)}"

    server = AwsServer()
    world = World(
        network=network,
        aws_endpoint=server.endpoint,
        work_directory=directory,
        log_directory=directory,
        publish=lambda _: None,
    )
    planes = (alb.install(world, launch), clb.install(world, launch))
    ec2.install(launched, lambda _: None)
    cloudwatch.install()
    server.front.routes = {
        ("POST", "traffic"): lambda _: {"requests": planes[0].traffic.publish(current=True)}
    }
    sys.stdout.write(server.endpoint + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    world.stopping.set()
    planes[0].join()
    planes[1].join()
    server.stop()


if __name__ == "__main__":
    _run(sys.argv[1], Path(sys.argv[2]))
