"""Proxies on one machine, each set up by the host program, and tasks for them.

Every proxy is a service of its own, with a directory below one home. What has no part in the
figures is small and here: tasks that answer as fast as anything can, an ECS agent that knows them,
an `aws` without any parameter.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

PROGRAM = Path(__file__).resolve().parent.parent / "hosts" / "ecs_bluegreen_host.py"
PROXIES = ("nginx", "haproxy")
PORTS = {"blue": 18081, "green": 18082}
TASKS = {"blue": "web:1", "green": "web:2"}
AGENT_PORT = 51678
FIRST_PORT = 20000
CONTAINER_PORT = 8000
START_SECONDS = 20.0
PROGRAM_SECONDS = 60.0
NOT_AFTER_SECONDS = 30.0
# One worker: on two cores, the load and the proxy want the rest.
TASK_SERVERS = """\
worker_processes 1;
pid {home}/tasks.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {home}/tasks;
    proxy_temp_path {home}/tasks;
    fastcgi_temp_path {home}/tasks;
    uwsgi_temp_path {home}/tasks;
    scgi_temp_path {home}/tasks;
    server {{ listen {address}:18081; location / {{ return 200 blue; }} }}
    server {{ listen {address}:18082; location / {{ return 200 green; }} }}
}}
"""
AWS = """\
#!/bin/sh
echo 'An error occurred (ParameterNotFound)' >&2
exit 254
"""


class ProxyError(Exception):
    """A proxy is not what it should be; the message says what came instead."""


class Machine:
    """One container instance; a context manager that leaves nothing behind. Raises ProxyError."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._ports = itertools.count(FIRST_PORT)
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as closing:
            self.home = Path(tempfile.mkdtemp(prefix="ecs-bluegreen-benchmark-"))
            closing.callback(shutil.rmtree, self.home)
            self.home.chmod(0o755)  # workers of nginx are somebody else
            aws = self.home / "aws"
            aws.write_text(AWS)
            aws.chmod(0o755)
            self.environment = {
                **os.environ,
                "PATH": f"{self.home}:{os.environ.get('PATH', os.defpath)}:/usr/sbin",
                "ECS_BLUEGREEN_HOME": str(self.home),
                "ECS_INTROSPECTION": f"{self.address}:{AGENT_PORT}",
            }
            closing.enter_context(_agent(self.address))
            configuration = self.home / "tasks.conf"
            configuration.write_text(TASK_SERVERS.format(home=self.home, address=self.address))
            tasks = self.start(["nginx", "-c", str(configuration), "-g", "daemon off;"])
            closing.callback(_end, tasks)
            for port in PORTS.values():
                await_port((self.address, port), tasks)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program that ends with us."""
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Run the host program; what it answers."""
        done = subprocess.run(
            program(*arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=PROGRAM_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ProxyError(f"{' '.join(arguments)}: {done.stdout.strip()} {done.stderr.strip()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def port(self) -> int:
        """A port that nothing on this machine has yet."""
        return next(self._ports)

    def proxy(
        self,
        kind: str,
        name: str,
        *,
        dynamic: bool = False,
        edit: Callable[[str], str] | None = None,
    ) -> Proxy:
        """Set a proxy up and run it. ``edit`` makes another configuration of what was rendered."""
        proxy = Proxy(self, kind, f"{kind}-{name}", dynamic=dynamic)
        if edit is not None:
            proxy.configuration.write_text(edit(proxy.rendered))
        self._closing.callback(proxy.end)
        proxy.run()
        return proxy


class Proxy:
    """One proxy that forwards to the tasks of both colours; no colour has traffic at first."""

    def __init__(self, machine: Machine, kind: str, service: str, *, dynamic: bool) -> None:
        self.kind = kind
        self.service = service
        self.address = (machine.address, machine.port())
        self._machine = machine
        self._process: subprocess.Popen[bytes] | None = None
        self._now = "none"
        self._generation = time.time_ns() // 1_000_000
        if dynamic:
            where = ["--container", "web", "--container-port", str(CONTAINER_PORT)]
        else:
            where = ["--blue-port", str(PORTS["blue"]), "--green-port", str(PORTS["green"])]
        addresses = ["--address", machine.address, "--bind", machine.address]
        ports = ["--port", str(self.address[1]), "--status-port", str(machine.port())]
        self._ask("configure", "--proxy", kind, *addresses, *ports, *where)
        self.rendered = self.configuration.read_text()

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}/"

    @property
    def configuration(self) -> Path:
        """The file that `configure` has rendered."""
        name = "nginx.conf" if self.kind == "nginx" else "haproxy.cfg"
        return self._machine.home / self.service / name

    def run(self) -> None:
        """Start it as its unit does, and wait until it listens."""
        self._ask("restore")
        self._process = self._machine.start(program("run", "--service", self.service))
        await_port(self.address, self._process)

    def switch(self, blue: int) -> None:
        """Give blue so many percent of the requests, green the rest: stage, then commit."""
        self._generation += 1
        order = ["--generation", str(self._generation), "--expected", self._now]
        order += ["--blue", str(blue), "--green", str(100 - blue)]
        for color, task in TASKS.items():
            order += [f"--{color}-task", task]
        self._ask("stage", *order)
        now = time.time()
        moment = ["--at", f"{now:.3f}", "--not-after", f"{now + NOT_AFTER_SECONDS:.3f}"]
        self._ask("commit", *order, *moment)
        self._now = f"{blue}:{100 - blue}"

    def reload(self, configuration: str) -> None:
        """Have it read another configuration, as an operator would."""
        assert self._process is not None
        self.configuration.write_text(configuration)
        self._process.send_signal(signal.SIGHUP if self.kind == "nginx" else signal.SIGUSR2)

    def cpu_seconds(self) -> float:
        """What all its processes have used so far, those that have ended left out."""
        assert self._process is not None
        return (
            sum(
                int((thread / "schedstat").read_text().split()[0])
                for pid in _family(self._process.pid)
                for thread in Path(f"/proc/{pid}/task").iterdir()
            )
            / 1e9
        )

    def end(self) -> None:
        if self._process is not None:
            _end(self._process)

    def _ask(self, command: str, *arguments: str) -> dict[str, Any]:
        return self._machine.ask(command, "--service", self.service, *arguments)


def plain(kind: str, color: str) -> Callable[[str], str]:
    """Makes the plain static configuration of a switchable one: it forwards to one colour.

    Everything else stays, so that nothing but the switch is compared. Raises ProxyError when there
    is nothing to leave out.
    """

    def nginx(text: str) -> str:
        # The first server's; the second one only says what nginx resolves.
        begin, _, rest = text.partition("        location / {\n")
        end = re.search("^        }\n", rest, re.MULTILINE)
        if end is None or "current/" not in rest[: end.end()]:
            raise ProxyError(f"nginx.conf has no location that looks below current: {text}")
        location = f"        location / {{\n            proxy_pass http://{color};\n        }}\n"
        return begin + location + rest[end.end() :]

    def haproxy(text: str) -> str:
        lines = [line for line in text.splitlines() if "txn.green" not in line]
        shorter = "\n".join(lines) + "\n"
        default = "    default_backend blue\n"
        if shorter == text or default not in shorter:
            raise ProxyError(f"haproxy.cfg does not choose by txn.green: {text}")
        # The listening sockets are handed over at a reload: the best that it can do.
        return shorter.replace(default, f"    default_backend {color}\n").replace(
            " level admin\n", " level admin expose-fd listeners\n"
        )

    return nginx if kind == "nginx" else haproxy


def program(*arguments: str) -> list[str]:
    """The host program as fast as an installed one starts: without the packages of this Python."""
    return [sys.executable, "-I", "-S", str(PROGRAM), *arguments]


def await_port(address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens. Raises ProxyError."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(address, 1).close()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ProxyError(f"nothing listens at {address[0]}:{address[1]}: {error}") from None
            time.sleep(0.02)
        else:
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *itertools.chain.from_iterable(_family(int(child)) for child in children)]


@contextlib.contextmanager
def _agent(address: str) -> Iterator[None]:
    """An ECS agent's introspection API: one task of each colour."""
    tasks = [
        {
            "DesiredStatus": "RUNNING",
            "KnownStatus": "RUNNING",
            "Family": task.partition(":")[0],
            "Version": task.partition(":")[2],
            "Containers": [
                {
                    "Name": "web",
                    "Ports": [{"ContainerPort": CONTAINER_PORT, "HostPort": PORTS[color]}],
                }
            ],
        }
        for color, task in TASKS.items()
    ]
    said = json.dumps({"ContainerInstanceArn": "benchmark", "Tasks": tasks}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((address, AGENT_PORT), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
