"""One invocation of the pusher, in a process of its own: ``python metrics_invocation.py '<JSON>'``.

What it is told: cluster, table, key, start and end (epoch seconds), services, tasks of each, and
``way``: ``push`` for all of it, ``read`` for the least that anybody has to do who reads the log
with boto3: fetch the pages and parse the JSON; ``cgroups`` for all of it with what instances have
answered (then also: command, instances, and ECS service by task id as owners). It prints one JSON
object: seconds of CPU and by the clock for each step, the peak of the process's memory, the largest
item that was written to DynamoDB, and counts.

Both CollectContainerMetrics and DeliverContainerMetrics happen here, one after the other, with
the project's own code for each step; in AWS they are two invocations. Not among it: what ECS and
SSM are asked (some ten calls).
"""

from __future__ import annotations

import time

# Before all other imports, which are the first step.
_BEGAN = (time.process_time(), time.perf_counter())

import json  # noqa: E402 - as above
import os  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Mapping, Sequence  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from containermetrics import rates  # noqa: E402
from containermetrics.delivery import deliver  # noqa: E402
from containermetrics.mackerel import Mackerel  # noqa: E402
from containermetrics.model import Batch, EcsService, Reading  # noqa: E402
from containermetrics.series import Composed, compose  # noqa: E402
from containermetrics.sources import cgroups, container_insights  # noqa: E402
from containermetrics.store import MetricsStore, Part  # noqa: E402
from runtime import clients  # noqa: E402


@dataclass
class Steps:
    """Seconds of CPU and by the clock, step by step."""

    last: tuple[float, float] = _BEGAN
    steps: dict[str, list[float]] = field(default_factory=dict)

    def done(self, name: str) -> None:
        now = (time.process_time(), time.perf_counter())
        self.steps[name] = [end - start for start, end in zip(self.last, now, strict=True)]
        self.last = now


def peak_bytes() -> int:
    """Of this program only: getrusage would begin with what the parent had."""
    [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024


def read_only(told: Mapping[str, Any], steps: Steps) -> dict[str, Any]:
    """Fetch and parse, and keep nothing."""
    count = 0
    for page in (
        clients.logs()
        .get_paginator("filter_log_events")
        .paginate(
            logGroupName=container_insights.log_group(told["cluster"]),
            startTime=(told["start"] - 60) * 1000,
            endTime=told["end"] * 1000 - 1,
        )
    ):
        for event in page["events"]:
            json.loads(event["message"])
            count += 1
    steps.done("read")
    return {"events": count}


def push(told: Mapping[str, Any], steps: Steps) -> dict[str, Any]:
    """From the log to Mackerel."""
    skipped = Counter[str]()
    samples = container_insights.read(
        clients.logs(), told["cluster"], told["start"] - 60, told["end"], skipped
    )
    readings = container_insights.minutes(samples, told["start"], told["end"])
    steps.done("read")
    composed = {minute: composed_of(told, found) for minute, found in readings.items()}
    steps.done("compose")
    store, largest = watched_store(told)
    for minute, one in sorted(composed.items()):
        store.keep(Batch(told["cluster"], minute, one.hosts, one.services))
    steps.done("keep")
    return {
        "minutes": len(readings),
        "readings": sum(map(len, readings.values())),
        "skipped": sum(skipped.values()),
        **outcome(told, steps, store, composed),
        "largest_item_bytes": largest[0],
    }


def by_cgroups(told: Mapping[str, Any], steps: Steps) -> dict[str, Any]:
    """From the answers of all instances to Mackerel, for one minute."""
    store, largest = watched_store(told)
    cluster, minute, names = told["cluster"], told["start"], told["instances"]
    before = store.samples(cluster, names, minute)
    steps.done("samples")
    order = cgroups.Order([told["command"]], names, minute)
    fetched = cgroups.fetch(clients.ssm(), clients.s3(), "no-bucket", order, minute)
    answers = cgroups.name_services(clients.ecs(), cluster, told["owners"], fetched)
    steps.done("read")
    readings = []
    for answer in answers:
        last = {sample.source: sample for sample in before.get(answer.instance_id, ())}
        readings += [rates.reading(last.get(one.source), one) for one in answer.samples]
    steps.done("rates")
    problems = [problem for answer in answers for problem in answer.problems]
    missing = sum(not answer.answered for answer in answers)
    store.keep_part(cluster, minute, Part("0000", readings, [], [], problems, missing), minute)
    for answer in answers:
        place = answer.instance_id
        earlier = before.get(place, [])
        store.keep_samples(cluster, place, answer.samples, earlier, minute, minute)
    steps.done("part")
    found = [reading for one in store.parts(cluster, minute) for reading in one.readings]
    steps.done("combine")
    composed = composed_of(told, found)
    steps.done("compose")
    store.keep(Batch(cluster, minute, composed.hosts, composed.services))
    steps.done("keep")
    return {
        "minutes": 1,
        "readings": len(found),
        "skipped": missing,
        "rates": sum("cpu.total" in reading.values for reading in found),
        **outcome(told, steps, store, {minute: composed}, problems),
        "largest_item_bytes": largest[0],
    }


def watched_store(told: Mapping[str, Any]) -> tuple[MetricsStore, list[int]]:
    """The store, and the size of the largest item that was written so far."""
    client, largest = clients.dynamodb(), [0]

    def look(params: Mapping[str, Any], **_: Any) -> None:
        size = sum(
            len(name) + sum(len(value) for value in typed.values())
            for name, typed in params["Item"].items()
        )
        largest[0] = max(largest[0], size)

    client.meta.events.register("provide-client-params.dynamodb.PutItem", look)
    return MetricsStore(client, told["table"]), largest


def outcome(
    told: Mapping[str, Any],
    steps: Steps,
    store: MetricsStore,
    composed: Mapping[int, Composed],
    problems: Sequence[str] = (),
) -> dict[str, Any]:
    """Deliver what was kept; what came of it all."""
    client = Mackerel(os.environ["MACKEREL_URL"], told["key"], "benchmark")
    delivered = deliver(client, store, told["cluster"], time.time(), lambda: 300.0, 30)
    steps.done("deliver")
    # A service with more than 200 metrics is a figure here, not a failure.
    said = [
        it for one in composed.values() for it in one.problems if "metrics are left out" not in it
    ]
    return {
        "hosts": len(composed[told["start"]].hosts),
        "values": delivered.sent,
        "refused": delivered.refused,
        "left_out": sum(one.left_out for one in composed.values()),
        "problems": [*problems[:3], *said[:3], *delivered.problems[:3]],
    }


WAYS = {"push": push, "read": read_only, "cgroups": by_cgroups}


def composed_of(told: Mapping[str, Any], readings: list[Reading]) -> Composed:
    services = [
        EcsService(name, told["tasks"], name.rsplit("-", 1)[0], "blue", live=True)
        for name in told["services"]
    ]
    return compose("1.here", told["cluster"], services, readings, (), "shop", {}, each_task=False)


def main() -> None:
    """Do it and say what it took."""
    told = json.loads(sys.argv[1])
    steps = Steps()
    steps.done("import")
    counts = WAYS[told["way"]](told, steps)
    print(
        json.dumps(
            {
                "cpu": {name: cpu for name, (cpu, _) in steps.steps.items()},
                "clock": {name: clock for name, (_, clock) in steps.steps.items()},
                "peak_bytes": peak_bytes(),
                **counts,
            }
        )
    )


if __name__ == "__main__":
    main()
