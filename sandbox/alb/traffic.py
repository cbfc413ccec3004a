"""What went through the Application Load Balancers, as CloudWatch shows it.

Each process of HAProxy writes a line for each request that it has answered into a file of its own,
so that a reload loses nothing; they are read only when something is published. AWS's habits
(https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html):
  - each minute is published some seconds after its end, if there were requests in it; the counts of
    answers by code only where there are some;
  - each metric is there for the load balancer, and for its target group together with it;
  - RequestCount counts requests for which a target was chosen; HTTPCode_Target_… count what targets
    answered, HTTPCode_ELB_5XX_Count what the load balancer answered in their place, which has no
    target group; there it is TargetConnectionErrorCount, here also when the target was reached;
  - TargetResponseTime is in seconds, from when the request leaves until the answer begins.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.world import World

NAMESPACE = "AWS/ApplicationELB"
MINUTE = 60
PUBLISH_SECONDS = 5.0
"""How long after the end of a minute it is published."""
REQUEST = "request"
"""What a line begins with; HAProxy also writes what happens to itself."""

LOG_FORMAT = f"{REQUEST} %ft %b %ST %[date] %[var(txn.took)]"
BEGIN = "http-request set-var(txn.began) date(0,us)"
END = "http-response set-var(txn.took) date(0,us),sub(txn.began)"
MICROSECONDS = 1e6
LEAST_STATUS = 100  # HAProxy says less of a request whose client has gone
NOBODY = "-"

Key = tuple[str, str | None]
"""A load balancer and, for its metrics by target group, a group: as their dimensions name them."""


@dataclass(frozen=True)
class Answered:
    """The requests of one second (epoch seconds) that came in at one place, went to one place and
    whose clients got one status.

    ``times``: how long the target took for each, in seconds; ``others``: how many of them no target
    has answered.
    """

    frontend: str
    backend: str
    status: int
    at: int
    times: Sequence[float]
    others: int = 0

    @property
    def number(self) -> int:
        """How many requests that is."""
        return len(self.times) + self.others


@dataclass(frozen=True)
class Names:
    """What HAProxy's frontends and backends are: dimensions of load balancers and groups."""

    load_balancers: Mapping[str, str]
    groups: Mapping[str, str]


@dataclass
class Count:
    """What there was of one load balancer or group in one minute."""

    requests: int = 0
    by_class: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    refused: int = 0
    times: list[float] = field(default_factory=list)

    def add(self, some: Answered, *, chosen: bool) -> None:
        """Count requests. ``chosen``: whether there was a target for them."""
        self.requests += some.number if chosen else 0
        if some.times:
            self.by_class[f"{some.status // 100}XX"] += len(some.times)
            self.times += some.times
        if some.status >= 500:
            self.refused += some.others


class Traffic:
    """Reads what HAProxy has written into ``directory`` and publishes it.

    ``catch_up`` waits until everything that was answered is written.
    """

    def __init__(
        self,
        world: World,
        directory: Path,
        names: Callable[[], Names],
        catch_up: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._world = world
        self._directory = directory
        self._names = names
        self._catch_up = catch_up
        self._clock = clock
        self._lock = threading.Lock()
        self._read: dict[Path, int] = defaultdict(int)
        self._waiting: list[Answered] = []
        self._known = Names({}, {})

    def start(self) -> None:
        """Publish each minute from now on, until the world stops."""
        threading.Thread(target=self._run, name="alb-metrics", daemon=True).start()

    def publish(self, *, current: bool) -> int:
        """Publish what has been counted since the last time, each request in its own minute.

        The current minute, too, with ``current``: what is counted in the rest of it is added by
        the next publication. Returns how many requests were published.
        """
        by_minute: dict[int, list[Answered]] = defaultdict(list)
        self._catch_up()
        with self._lock:
            for some in [*self._waiting, *self._new()]:
                by_minute[_minute(some.at)].append(some)
            self._waiting = [] if current else by_minute.pop(_minute(self._clock()), [])
            self._put(by_minute)
        return sum(some.number for answers in by_minute.values() for some in answers)

    def _run(self) -> None:
        while not self._world.stopping.wait(MINUTE - self._clock() % MINUTE + PUBLISH_SECONDS):
            self.publish(current=False)

    def _new(self) -> list[Answered]:
        """What has been written since the last time; a line that is not complete stays."""
        found: list[Answered] = []
        for path in self._directory.glob("*"):
            with path.open("rb") as file:
                file.seek(self._read[path])
                text, newline, _ = file.read().rpartition(b"\n")
            self._read[path] += len(text) + len(newline)
            found.extend(parse(text.decode()))
        return found

    def _put(self, by_minute: Mapping[int, Iterable[Answered]]) -> None:
        names = self._names()
        # Of one that was deleted since then it is known from before.
        self._known = Names(
            {**self._known.load_balancers, **names.load_balancers},
            {**self._known.groups, **names.groups},
        )
        backend = self._world.backend("cloudwatch")
        for minute, answers in by_minute.items():
            data = list(metric_data(counted(answers, self._known), minute))
            backend.put_metric_data(NAMESPACE, data)


def parse(text: str) -> Iterator[Answered]:
    """Lines of LOG_FORMAT, without requests that were not answered, and without other lines."""
    # There are thousands of lines and few beginnings, so that little is done for each line.
    by_beginning: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        beginning, _, took = line.rpartition(" ")
        by_beginning[beginning].append(took)
    for beginning, all_took in by_beginning.items():
        if not beginning.startswith(f"{REQUEST} "):
            continue
        _, frontend, backend, status, at = beginning.split()
        if int(status) >= LEAST_STATUS:
            times = [int(took) / MICROSECONDS for took in all_took if took != NOBODY]
            others = len(all_took) - len(times)
            yield Answered(frontend, backend, int(status), int(at), times, others)


def counted(answers: Iterable[Answered], names: Names) -> dict[Key, Count]:
    """What there was of each load balancer, alone and with each of its groups.

    What was sent on to another process of HAProxy is counted there.
    """
    found: dict[Key, Count] = defaultdict(Count)
    for some in answers:
        balancer = names.load_balancers.get(some.frontend)
        if balancer is None or some.backend.startswith(some.frontend):
            continue
        group = names.groups.get(some.backend)
        found[balancer, None].add(some, chosen=group is not None)
        if group is not None:
            found[balancer, group].add(some, chosen=True)
    return dict(found)


def metric_data(counts: Mapping[Key, Count], minute: int) -> Iterator[dict[str, Any]]:
    """The values of one minute (epoch seconds), as PutMetricData has them."""
    moment = datetime.fromtimestamp(minute, UTC).replace(tzinfo=None)
    for (balancer, group), count in counts.items():
        dimensions = [{"Name": "LoadBalancer", "Value": balancer}]
        if group is not None:
            dimensions.insert(0, {"Name": "TargetGroup", "Value": group})
        for name, unit, values in _values(count, alone=group is None):
            yield {
                "MetricName": name,
                "Dimensions": dimensions,
                "Timestamp": moment,
                "Unit": unit,
                "StatisticValues": values,
            }


def _values(count: Count, *, alone: bool) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Name, unit and statistics of what is not nothing."""
    if count.requests:
        yield "RequestCount", "Count", _ones(count.requests)
    for kind in sorted(count.by_class):
        yield f"HTTPCode_Target_{kind}_Count", "Count", _ones(count.by_class[kind])
    if count.refused:
        name = "HTTPCode_ELB_5XX_Count" if alone else "TargetConnectionErrorCount"
        yield name, "Count", _ones(count.refused)
    if count.times:
        yield (
            "TargetResponseTime",
            "Seconds",
            {
                "SampleCount": len(count.times),
                "Sum": math.fsum(count.times),
                "Minimum": min(count.times),
                "Maximum": max(count.times),
            },
        )


def _ones(number: int) -> dict[str, float]:
    return {"SampleCount": number, "Sum": number, "Minimum": 1, "Maximum": 1}


def _minute(at: float) -> int:
    return int(at) // MINUTE * MINUTE
