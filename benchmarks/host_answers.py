"""What container instances answer to Run Command, and the part of SSM that hands it over.

The numbers are those of a real container (a fixture of tests/hosts), read and packed by the program
of hosts/ itself; every container and minute has others, drawn at random, so that they compress no
better than real ones.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import checkout  # noqa: F401 - for what follows
from cgroup_reader import agent
from hosts import ecs_bluegreen_metrics as program
from json_api import JsonApi
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


class Instances(JsonApi):
    """Instances with tasks of two containers each, on a port of this machine. A context manager.

    services: the tasks of each are spread over the instances. tasks: ECS service by task id.
    """

    def __init__(self, services: list[str], instances: int, containers: int) -> None:
        super().__init__()
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

    def answer(self, target: str, asked: Mapping[str, Any]) -> tuple[int, bytes]:  # noqa: ARG002
        """GetCommandInvocation, the one call that comes."""
        text = self._answers[asked["CommandId"], asked["InstanceId"]]
        said = {
            "CommandId": asked["CommandId"],
            "InstanceId": asked["InstanceId"],
            "Status": "Success",
            "StatusDetails": "Success",
            "StandardOutputContent": text,
        }
        return 200, json.dumps(said).encode()

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
