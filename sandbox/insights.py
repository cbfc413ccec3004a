"""Container Insights: the performance log of the tasks that run, one event a minute for each
container and task, in the shape of
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-reference-performance-logs-ECS.html

AWS's habits:
  - only clusters with the setting ``containerInsights`` have it: ``enabled``, or ``enhanced``,
    which calls the numbers of a container ``ContainerCpuUtilized`` and so on;
  - the event of a minute comes 80 to 140 s after the beginning of the minute, which is its
    Timestamp, each on its own: a minute is there in parts;
  - CPU is the mean of the minute in units of 1/1024 core, memory is in whole MiB; bytes on disks
    are counted since the container's start, and the network is a rate a second;
  - there is no event for a container that has run for a moment of the minute only, and none from
    an instance whose agent is not heard of;
  - the log group is made with the first event; streams are those of the agents, or of Fargate.
"""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sandbox.ecs.model import ContainerState, LastStatus, State, Task
from sandbox.processes import Container
from sandbox.usage import Usage
from sandbox.world import World

MINUTE = 60
LATE_SECONDS = (80.0, 140.0)
SAMPLE_SECONDS = 2.0
LEAST_SECONDS = 0.2
"""Of what lasted shorter there is no rate."""
CPU_UNITS, MIB = 1024, 1024 * 1024
ON = ("enabled", "enhanced")

LOG = logging.getLogger(__name__)


@dataclass
class _Reading:
    """What a container used, read at a moment (monotonic seconds)."""

    at: float
    usage: Usage


@dataclass
class _Window:
    """What is known of one container since the last event. ``memory``: the samples' sum."""

    task: Task
    container: ContainerState
    first: _Reading
    last: _Reading
    memory: int = 0
    samples: int = 0

    def add(self, reading: _Reading) -> None:
        self.last = reading
        self.memory += reading.usage.memory_bytes
        self.samples += 1

    @property
    def seconds(self) -> float:
        return self.last.at - self.first.at

    def numbers(self) -> dict[str, float]:
        """What the event says."""
        before, now = self.first.usage, self.last.usage
        definition = self.container.definition
        cores = max(0.0, now.cpu_seconds - before.cpu_seconds) / self.seconds
        numbers: dict[str, float] = {
            "CpuUtilized": round(cores * CPU_UNITS, 6),
            "CpuReserved": float(definition.get("cpu") or 0),
            "MemoryUtilized": round(self.memory / self.samples / MIB),
            "MemoryReserved": int(
                definition.get("memoryReservation") or definition.get("memory") or 0
            ),
            "StorageReadBytes": now.read_bytes,
            "StorageWriteBytes": now.written_bytes,
        }
        for name, total in now.network.items():
            grown = max(0, total - before.network.get(name, 0))
            numbers[f"Network{name}"] = round(grown / self.seconds, 6)
        return numbers


class Insights:
    """Watches the containers of ``state`` and writes the log.

    ``clock`` gives epoch seconds, ``late`` between how many seconds after the beginning of a minute
    its events come.
    """

    def __init__(
        self,
        world: World,
        state: State,
        clock: Callable[[], float] = time.time,
        late: tuple[float, float] = LATE_SECONDS,
    ) -> None:
        self.late = late
        self._world = world
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], _Window] = {}
        self._minute: int | None = None
        self._waiting: list[tuple[float, int, str, str, dict[str, Any]]] = []
        self._order = itertools.count()

    def start(self) -> None:
        """Watch until the world stops."""
        threading.Thread(target=self._run, name="insights", daemon=True).start()

    def _run(self) -> None:
        while not self._world.stopping.wait(SAMPLE_SECONDS):
            try:
                self.look()
            except Exception:
                LOG.exception("Container Insights")

    def look(self) -> None:
        """Read every container; when a minute is over, its events are on their way."""
        now = self._clock()
        minute = int(now // MINUTE) * MINUTE
        with self._lock:
            self._sample()
            if self._minute is not None and minute != self._minute:
                for cluster, stream, event in self._close(self._minute):
                    due = max(now, self._minute + random.uniform(*self.late))
                    heapq.heappush(self._waiting, (due, next(self._order), cluster, stream, event))
            self._minute = minute
            due_now = []
            while self._waiting and self._waiting[0][0] <= now:
                due_now.append(heapq.heappop(self._waiting)[2:])
        self._put(due_now)

    def write(self, minute: int) -> int:
        """Write at once what was used since the last event, as that of a minute (epoch seconds).

        Returns how many events that were.
        """
        with self._lock:
            self._sample()
            events = list(self._close(minute // MINUTE * MINUTE))
        self._put(events)
        return len(events)

    # ------------------------------------------------------------------------------ the containers

    def _sample(self) -> None:
        seen = set()
        for task, container, running in self._running():
            usage = running.usage()
            if usage is None:
                continue
            key = task.id, container.name
            seen.add(key)
            reading = _Reading(time.monotonic(), usage)
            window = self._windows.get(key)
            if window is None:
                window = self._windows[key] = _Window(task, container, reading, reading)
            window.add(reading)
        for key in set(self._windows) - seen:
            if self._windows[key].task.stopped:
                # It had no event for the minute in which it ended; AWS has one now and then.
                del self._windows[key]

    def _running(self) -> list[tuple[Task, ContainerState, Container]]:
        clusters = {
            cluster.arn: cluster for cluster in self._world.backend("ecs").clusters.values()
        }
        with self._state.lock:
            return [
                (task, container, container.running)
                for task in self._state.tasks.values()
                if task.cluster_arn in clusters and _setting(clusters[task.cluster_arn]) in ON
                if task.connected and task.last_status is not LastStatus.STOPPED
                for container in task.containers
                if container.status == "RUNNING" and container.running is not None
            ]

    # ---------------------------------------------------------------------------------- the events

    def _close(self, minute: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """The events of what the windows hold, as (cluster, stream, event); they begin anew."""
        of_tasks: dict[str, list[_Window]] = {}
        for window in self._windows.values():
            if window.seconds >= LEAST_SECONDS:
                of_tasks.setdefault(window.task.id, []).append(window)
        for windows in of_tasks.values():
            task = windows[0].task
            cluster = task.cluster_arn.rpartition("/")[2]
            stream = _stream(task)
            summed: dict[str, float] = {}
            for window in windows:
                numbers = window.numbers()
                for name, number in numbers.items():
                    summed[name] = summed.get(name, 0) + number
                yield cluster, stream, self._container_event(window, numbers, minute)
                window.first, window.memory, window.samples = window.last, 0, 0
                window.add(window.last)
            yield cluster, stream, self._task_event(task, summed, minute)

    def _container_event(
        self, window: _Window, numbers: Mapping[str, float], minute: int
    ) -> dict[str, Any]:
        task = window.task
        cluster = self._world.backend("ecs").clusters[task.cluster_arn.rpartition("/")[2]]
        prefix = "Container" if _setting(cluster) == "enhanced" else ""
        return {
            "Version": "0",
            "Type": "Container",
            "ContainerName": window.container.name,
            **_place(task),
            "Image": window.container.definition["image"],
            "ContainerKnownStatus": window.container.status,
            "Timestamp": minute * 1000,
            **{f"{prefix}{name}": number for name, number in numbers.items()},
        }

    def _task_event(self, task: Task, numbers: Mapping[str, float], minute: int) -> dict[str, Any]:
        zone = task.instance.attributes["ecs.availability-zone"] if task.instance else None
        times = {
            f"{name[0].upper()}{name[1:]}": _milliseconds(task.times[name])
            for name in ("pullStartedAt", "pullStoppedAt", "createdAt", "startedAt")
            if name in task.times
        }
        fargate = {"EphemeralStorageReserved": 21.47, "EphemeralStorageUtilized": 0.0}
        dimensions = [["ClusterName"], ["ClusterName", "TaskDefinitionFamily"]]
        metrics = [{"Name": name} for name in numbers]
        return {
            "Version": "0",
            "Type": "Task",
            **_place(task),
            "AccountID": self._world.account_id,
            "Region": self._world.region,
            **({"AvailabilityZone": zone} if zone else {}),
            "KnownStatus": str(task.last_status),
            "LaunchType": task.launch_type,
            **times,
            "Timestamp": minute * 1000,
            **numbers,
            **(fargate if task.launch_type == "FARGATE" else {}),
            "CloudWatchMetrics": [
                {
                    "Namespace": "ECS/ContainerInsights",
                    "Metrics": metrics,
                    "Dimensions": dimensions,
                }
            ],
        }

    def _put(self, events: list[tuple[str, str, dict[str, Any]]]) -> None:
        backend = self._world.backend("logs")
        for cluster, stream, event in events:
            group = f"/aws/ecs/containerinsights/{cluster}/performance"
            if group not in backend.groups:
                backend.create_log_group(group, {})
            backend.ensure_log_stream(group, stream)
            line = {"timestamp": event["Timestamp"], "message": json.dumps(event)}
            backend.put_log_events(group, stream, [line])


def _place(task: Task) -> dict[str, Any]:
    """Whose numbers they are."""
    place = {
        "TaskId": task.id,
        "TaskDefinitionFamily": task.definition["family"],
        "TaskDefinitionRevision": str(task.definition["revision"]),
        **({"ServiceName": task.service.name} if task.service else {}),
        "ClusterName": task.cluster_arn.rpartition("/")[2],
    }
    if task.instance is not None:
        place["ContainerInstanceId"] = task.instance.container_instance_arn.rpartition("/")[2]
        place["EC2InstanceId"] = task.instance.ec2_instance_id
    return place


def _stream(task: Task) -> str:
    if task.instance is None:
        return f"FargateTelemetry-{int(task.id, 16) % 10_000}"
    return f"AgentTelemetry-{task.instance.container_instance_arn.rpartition('/')[2]}"


def _setting(cluster: Any) -> str:
    for setting in cluster.settings or []:
        if setting.get("name") == "containerInsights":
            return str(setting.get("value"))
    return "disabled"


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
