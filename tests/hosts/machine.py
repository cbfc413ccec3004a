"""A host of the tests: its own loopback address and home, real proxies, real tasks.

Nothing stands in for the proxy or the kernel. What AWS would bring is small and here: tasks that
answer over HTTP and TCP, the introspection API of the ECS agent, an `aws` that knows one parameter,
a `docker` whose containers are the host itself.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from hosts import ecs_bluegreen_host as program

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "hosts" / "ecs_bluegreen_host.py"
DOCUMENTS = ROOT / "hosts" / "documents"
PORT, STATUS_PORT, AGENT_PORT, CLAIM_PORT = 8080, 18080, 51678, 18079
PORTS = {"blue": 18081, "green": 18082}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_generations = itertools.count(time.time_ns() // 1_000_000)


class Task:
    """A task of a colour: says its colour, echoes after an upgrade, counts its requests.

    ``/slow`` is answered when ``release`` is set, ``/healthz`` with ``health``.
    """

    def __init__(self, color: str, address: str, port: int = 0) -> None:
        self.color = color
        self.health = 200
        self.release = threading.Event()
        task = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.headers.get("Upgrade"):
                    self._echo()
                    return
                # Whoever answers and closes before all has come makes a proxy answer 502.
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path == "/slow":
                    task.release.wait(20)
                self.send_response(task.health if self.path == "/healthz" else 200)
                self.send_header("X-Color", task.color)
                seen = {
                    name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers
                }
                self.send_header("X-Seen", json.dumps(seen))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _echo(self) -> None:
                self.send_response(101)
                self.send_header("Upgrade", "echo")
                self.send_header("Connection", "upgrade")
                self.end_headers()
                self.close_connection = True
                while data := self.connection.recv(100):
                    self.connection.sendall(task.color.encode() + b":" + data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                """Connections that the test has cut are no news."""

        self._server = Server((address, port), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class Agent:
    """The introspection API of an ECS agent; ``tasks`` is what /v1/tasks says."""

    def __init__(self, address: str) -> None:
        self.arn: str | None = "arn:aws:ecs:eu-west-1:123456789012:container-instance/web/0a"
        self.tasks: list[dict[str, Any]] = []
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said: dict[str, Any] = {"Cluster": "web", "ContainerInstanceArn": agent.arn}
                if self.path == "/v1/tasks":
                    said = {"Tasks": agent.tasks}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(said).encode())

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((address, AGENT_PORT), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def runs(self, revision: str, *tasks: Task) -> None:
        """Say that these tasks of family:revision run, besides those that it has said before."""
        family, _, version = revision.partition(":")
        for task in tasks:
            ports = [
                {"ContainerPort": 9000, "Protocol": "tcp", "HostPort": 1},
                {"ContainerPort": 8000, "Protocol": "tcp", "HostPort": task.port},
            ]
            self.tasks.append(
                {
                    "Arn": f"arn:aws:ecs:eu-west-1:123456789012:task/web/{task.port}",
                    "DesiredStatus": "RUNNING",
                    "KnownStatus": "RUNNING",
                    "Family": family,
                    "Version": version,
                    "Containers": [
                        {"Name": "~internal~ecs~pause", "DockerId": "1" * 64},
                        {"Name": "web", "DockerId": "2" * 64, "Ports": ports},
                    ],
                }
            )

    def ends(self, *tasks: Task) -> None:
        """Say that ECS wants these tasks to end."""
        ports = {task.port for task in tasks}
        for told in self.tasks:
            if told["Containers"][1]["Ports"][1]["HostPort"] in ports:
                told["DesiredStatus"] = "STOPPED"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Machine:
    """One host; a context manager that leaves nothing behind. There is one at a time."""

    def __init__(self, proxy: str, *, protocol: str = "http", dynamic: bool = False) -> None:
        self.proxy = proxy
        self.protocol = protocol
        self.dynamic = dynamic
        self.address, self._claim = free_address()
        self.home = Path(tempfile.mkdtemp(prefix="ecs-bluegreen-"))
        self.home.chmod(0o755)  # workers of nginx are somebody else
        self.folder = self.home / "web"
        self.tasks: dict[str, Task] = {}
        self.agent: Agent | None = None
        self._proxy: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._closing = contextlib.ExitStack()
        programs = self.home / "bin"
        programs.mkdir()
        (programs / "ecs-bluegreen-host").write_text(
            f'#!/bin/sh\nexec {sys.executable} -I -S {PROGRAM} "$@"\n'
        )
        (programs / "docker").write_text('#!/bin/sh\n[ "$1" = exec ] && shift 2 && exec "$@"\n')
        (programs / "aws").write_text(
            f'#!/bin/sh\necho "$@" >>{self.home}/aws.log\n. {self.home}/aws.sh\n'
        )
        for path in programs.iterdir():
            path.chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:{SYSTEM_PATH}",
            "ECS_BLUEGREEN_HOME": str(self.home),
            "ECS_INTROSPECTION": f"{self.address}:{AGENT_PORT}",
        }

    def __enter__(self) -> Self:
        outside = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        self._closing.callback(restore_environment, outside)
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._watch, self._proxy):
            if process is not None:
                end(process)
        for server in (*self.tasks.values(), self.agent):
            if server is not None:
                server.stop()
        self._closing.close()
        self._claim.close()
        shutil.rmtree(self.home)

    # --------------------------------------------------------------------------- what runs on it

    def start_task(self, color: str) -> Task:
        """Have a task of a colour listen on its fixed port."""
        self.tasks[color] = Task(color, self.address, PORTS[color])
        return self.tasks[color]

    def start_fast_tasks(self) -> None:
        """Have tasks of both colours that keep up with a proxy at full speed."""
        servers = "".join(
            f"server {{ listen {self.address}:{port}; location / {{ add_header X-Color {color};"
            f" return 200; }} }}\n"
            for color, port in PORTS.items()
        )
        configuration = self.home / "tasks.conf"
        configuration.write_text(
            f"pid {self.home}/tasks.pid;\nerror_log stderr;\nevents {{ }}\n"
            "http { access_log off;\n"
            f"client_body_temp_path {self.home}/t;\nproxy_temp_path {self.home}/t;\n"
            f"fastcgi_temp_path {self.home}/t;\nuwsgi_temp_path {self.home}/t;\n"
            f"scgi_temp_path {self.home}/t;\nkeepalive_requests 10000000;\n{servers}}}\n"
        )
        tasks = self.start(["nginx", "-c", str(configuration), "-g", "daemon off;"])
        self._closing.callback(end, tasks)
        wait_for(lambda: all(answers(self.address, port) for port in PORTS.values()))

    def start_agent(self) -> Agent:
        """Have an ECS agent."""
        self.agent = Agent(self.address)
        return self.agent

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program on it; the kernel ends it when the tests are killed."""
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def configure(self, *more: str) -> dict[str, Any]:
        """What the install document does."""
        ports = (
            ["--container", "web", "--container-port", "8000"]
            if self.dynamic
            else ["--blue-port", str(PORTS["blue"]), "--green-port", str(PORTS["green"])]
        )
        return self.do(
            *("configure", "--proxy", self.proxy, "--protocol", self.protocol),
            *("--port", str(PORT), "--health-path", "/healthz", *ports),
            *("--address", self.address, "--bind", self.address, *more),
        )

    def start_proxy(self) -> None:
        """Have the proxy run, as after a boot."""
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
        (self.folder / "restored").write_text(boot_id)
        self._proxy = self.start(["ecs-bluegreen-host", "run", "--service", "web"])
        wait_for(lambda: self.report()["running"] == "")

    def kill_proxy(self) -> None:
        """SIGKILL to all of it."""
        assert self._proxy is not None
        end(self._proxy)
        self._proxy = None

    def run_tasks(self, revision: str, color: str, *, count: int = 1) -> list[Task]:
        """Have tasks run on ports that ECS chose."""
        assert self.agent is not None
        tasks = [Task(color, self.address) for _ in range(count)]
        for task in tasks:
            self._closing.callback(task.stop)
        self.agent.runs(revision, *tasks)
        return tasks

    def start_watch(self) -> None:
        """Have the ports of the tasks followed."""
        self._watch = self.start(["ecs-bluegreen-host", "watch", "--service", "web"])

    def set_parameter(self, **desired: Any) -> None:
        """Have the SSM parameter hold what the deployer wants."""
        (self.home / "parameter").write_text(json.dumps(desired))
        (self.home / "aws.sh").write_text(f"cat {self.home}/parameter\n")

    def fail_parameter(self, error: str) -> None:
        """Have reading the SSM parameter fail."""
        (self.home / "aws.sh").write_text(f"echo '{error}' >&2\nexit 254\n")

    # ------------------------------------------------------------------------- the host program

    def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run a subcommand, in this process: (exit status, what it prints)."""
        status, said = program.answer([arguments[0], "--service", "web", *arguments[1:]])
        assert len(json.dumps(said)) <= 2000
        return status, said

    def do(self, *arguments: str) -> dict[str, Any]:
        """Run a subcommand that has to succeed."""
        code, said = self.run(*arguments)
        assert code == 0, said
        return said

    def refused(self, *arguments: str) -> str:
        """Run a subcommand that has to be refused: why."""
        code, said = self.run(*arguments)
        assert code == 1, said
        return str(said["error"])

    def report(self, *arguments: str) -> dict[str, Any]:
        return self.do("report", *arguments)

    def switch(self, blue: int, green: int, *more: str, expected: str = "") -> int:
        """Stage and commit: the generation."""
        generation = next(_generations)
        arguments = switch_arguments(generation, blue, green, expected or self.weights())
        self.do("stage", *arguments, *more)
        self.do("commit", *arguments, *more, *moments())
        return generation

    def weights(self) -> str:
        """The weights now, as ``--expected`` names them."""
        weights = self.report()["weights"]
        return f"{weights['blue']}:{weights['green']}" if weights else "none"

    # ----------------------------------------------------------------------------- its requests

    def get(self, path: str = "/", **headers: str) -> tuple[int, str]:
        """Ask through the proxy: (status, colour)."""
        answer = self.ask(path, **headers)
        return answer.status, answer.headers.get("X-Color", "")

    def ask(self, path: str = "/", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.address, PORT, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer

    @contextlib.contextmanager
    def upgraded(self) -> Iterator[socket.socket]:
        """A connection that is no HTTP any more; what is sent comes back with the colour."""
        with socket.create_connection((self.address, PORT), timeout=20) as connection:
            connection.sendall(
                b"GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
            )
            said = b""
            while b"\r\n\r\n" not in said:
                said += connection.recv(1000)
            assert said.startswith(b"HTTP/1.1 101")
            yield connection


def free_address() -> tuple[str, socket.socket]:
    """An address that no other test has, in this process or another, while the socket is open."""
    for number in range(1, 255):
        address = f"127.0.30.{number}"
        claim = socket.socket()
        with contextlib.suppress(OSError):
            claim.bind((address, CLAIM_PORT))
            # Tests that were killed may have left a proxy.
            if not any(answers(address, port) for port in (PORT, STATUS_PORT, *PORTS.values())):
                return address, claim
        claim.close()
    raise AssertionError("all addresses are taken")


def restore_environment(outside: Mapping[str, str | None]) -> None:
    for name, value in outside.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def next_generation() -> int:
    """A generation that no host has seen."""
    return next(_generations)


def switch_arguments(generation: int, blue: int, green: int, expected: str) -> list[str]:
    """What stage and commit are given."""
    return [
        *("--generation", str(generation), "--blue", str(blue), "--green", str(green)),
        *("--expected", expected),
    ]


def moments(after: float = 0.0, good_for: float = 20.0) -> list[str]:
    """When to switch: so many seconds from now."""
    at = time.time() + after
    return ["--at", f"{at:.3f}", "--not-after", f"{at + good_for:.3f}"]


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a program and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(address: str, port: int) -> bool:
    """Whether something listens there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)
