"""What container instances answer to Run Command, and the part of SSM that hands it over.

The numbers are those of a real container (a fixture of tests/hosts), read and packed by the program
of hosts/ itself; every container and minute has others, drawn at random, so that they compress no
better than real ones.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import checkout  # noqa: F401 - for what follows
from cgroup_reader import agent
from hosts import ecs_bluegreen_metrics as program
from tests.hosts.trees import V1, V1_LAYOUTS, Said, Tree, task

_CONTAINERS = ("app", "envoy")


def command_id(minute: int) -> str:
    """By which a minute is asked for; as long as SSM's."""
    return f"{minute:036d}"


def container() -> Mapping[str, Any]:
    """What the program says of a container on cgroup v1, which has the most metrics."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Tree(Path(directory))
        tree.add(V1, V1_LAYOUTS[0])
        with agent([task(1, "app")]) as where:
            [entry] = Said(program.collect((), tree.environment(where))).entries
    return entry


class Instances:
    """Instances with tasks of two containers each, on a port of this machine. A context manager.

    services: the tasks of each are spread over the instances. tasks: ECS service by task id.
    """

    def __init__(self, services: list[str], instances: int, containers: int) -> None:
        self.names = [f"i-{number:017x}" for number in range(instances)]
        self.tasks: dict[str, str] = {}
        self._tasks: dict[str, list[str]] = {name: [] for name in self.names}
        for number in range(instances * containers // len(_CONTAINERS)):
            task_id = f"{number:032x}"
            self.tasks[task_id] = services[number % len(services)]
            self._tasks[self.names[number % instances]].append(task_id)
        self._template = container()
        self.metrics = len(self._template["c"]) + len(self._template["g"])
        self.characters = 0
        self._answers: dict[tuple[str, str], str] = {}
        instances_ = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.dumps(instances_.answer(asked)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Not on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """For ``AWS_ENDPOINT_URL_SSM``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def read(self, minutes: list[int]) -> None:
        """Have the answers of some minutes (epoch seconds) ready."""
        for name in self.names:
            for minute in minutes:
                entries = list(self._entries(name, minute, minutes[0]))
                lines = list(program.lines_of(entries))
                head = {"v": 1, "at": minute, "instance": name, "containers": len(entries)}
                head |= {"lines": len(lines), "problems": [], "unknown": 0}
                text = "\n".join([json.dumps(head), *lines]) + "\n"
                self._answers[command_id(minute), name] = text
                self.characters = max(self.characters, len(text))

    def answer(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """GetCommandInvocation."""
        text = self._answers[asked["CommandId"], asked["InstanceId"]]
        return {
            "CommandId": asked["CommandId"],
            "InstanceId": asked["InstanceId"],
            "Status": "Success",
            "StatusDetails": "Success",
            "StandardOutputContent": text,
        }

    def _entries(self, name: str, minute: int, first: int) -> Iterator[dict[str, Any]]:
        for task_id in self._tasks[name]:
            for number, container_name in enumerate(_CONTAINERS):
                own = random.Random(f"{task_id}{number}")  # noqa: S311 - no secret
                now = random.Random(f"{task_id}{number}{minute}")  # noqa: S311
                yield {
                    **self._template,
                    "task": task_id,
                    "family": self.tasks[task_id],
                    "revision": "7",
                    "container": container_name,
                    "id": f"{own.getrandbits(48):012x}",
                    "at": minute + round(now.random(), 3),
                    "c": {
                        key: _like(value, own.random() * 1000 + (minute - first) * now.random())
                        for key, value in self._template["c"].items()
                    },
                    "g": {
                        key: _like(value, 0.5 + now.random())
                        for key, value in self._template["g"].items()
                    },
                }


def _like(value: float, factor: float) -> float:
    """Another number of its kind. What is 0 stays so, as it does on most machines."""
    return int(value * factor) if isinstance(value, int) else round(value * factor, 6)
