"""``python benchmarks/metrics.py``: what pushing the statistics of 10,000 containers costs.

A performance log of Container Insights (benchmarks/performance_log.py: half of the tasks with the
standard spelling of the fields, half with that of enhanced observability; two containers a task, 50
tasks an ECS service) is read with boto3 from a server on this machine that answers
FilterLogEvents in pages as CloudWatch Logs does. What comes of it goes through DynamoDB (moto) to
the stand-in for Mackerel (sandbox/mackerel), with the project's own code for every step. Each row
is a process of its own (benchmarks/metrics_invocation.py); CPU and memory are that process's, with
Python's start and all imports.

- read: the pages fetched and parsed by boto3, the events parsed as JSON, and nothing else: the
  least that anybody has to do who reads this log.
- first: the first push of a cluster, for which Mackerel's hosts are made.
- minute: the push of every minute after it. It reads three minutes: the new one, the one before
  once more for late events, and the one before that for the rates.
- pause: the push after a pause of ten minutes.

Then the other source: 1,000 containers on 50 instances, as Run Command gives back what the program
of hosts/ has printed of them (benchmarks/host_answers.py), each with all that the kernel counts on
cgroup v1. Fetched, taken apart, made into rates with the samples of the minute before, kept as
readings, put together, composed, kept for Mackerel and sent:

- cgroups-first: a first minute, in which counters have no rates.
- cgroups: the one after it, and so every other.

item_kb is the largest item that was written to DynamoDB, which takes 400 KB.

What this is not: the servers share the cores of this machine with the process, so that seconds by
the clock are more than CPU; and no network lies between them. Nothing is asserted.

How cgroups are read on an instance is measured by benchmarks/cgroup_reader.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import boto3
from moto.server import ThreadedMotoServer

import checkout
from deployment import BenchmarkError
from host_answers import Instances, command_id
from host_switch import say, show_table
from performance_log import PerformanceLog, event
from sandbox.mackerel import MackerelServer

CLUSTER = "main"
TABLE = "metrics"
TASKS = 50
"""Of each ECS service."""
CONTAINERS = ("app", "envoy")
INSTANCES, CONTAINERS_EACH = 50, 20
INSTANCES_CLUSTER = "instances"
STEPS = ("import", "samples", "read", "rates", "part", "combine", "compose", "keep", "deliver")
PAUSE_MINUTES = 10
SETTLED_MINUTES = 2
ROOT = checkout.ROOT
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class Run:
    """One row. minutes: how many it pushes; it reads one more, for the rates."""

    name: str
    way: str
    minutes: int


RUNS = (
    Run("read", "read", 2),
    Run("first", "push", 2),
    Run("minute", "push", 2),
    Run("pause", "push", PAUSE_MINUTES),
)
CGROUPS_RUNS = (Run("cgroups-first", "cgroups", 1), Run("cgroups", "cgroups", 1))


def services(containers: int) -> list[str]:
    """Names of ECS services for so many containers, at least one."""
    count = max(1, containers // (TASKS * len(CONTAINERS)))
    return [
        f"service-{number // 2:03d}-{'blue' if number % 2 else 'green'}" for number in range(count)
    ]


def events(names: Sequence[str], minute: int) -> Iterator[tuple[int, str]]:
    """What the log has about one minute."""
    for number, name in enumerate(names):
        for task in range(TASKS):
            lively = (number * 31 + task * 7 + minute // 60) % 100
            for container in CONTAINERS:
                numbers = {
                    "CpuUtilized": 10.24 * lively,
                    "CpuReserved": 256.0,
                    "MemoryUtilized": 100 + lively,
                    "MemoryReserved": 512,
                    "StorageReadBytes": 4096 * (minute // 60 % 100_000) * lively,
                    "StorageWriteBytes": 8192 * (minute // 60 % 100_000),
                    "NetworkRxBytes": 1234.5 + lively,
                    "NetworkRxPackets": 17,
                    "NetworkTxBytes": 9876.25 + lively,
                    "NetworkTxPackets": 23,
                }
                shape = event(
                    minute,
                    enhanced=task % 2 == 0,
                    numbers=numbers,
                    ClusterName=CLUSTER,
                    ServiceName=name,
                    ContainerName=container,
                    TaskDefinitionFamily=name,
                    TaskId=f"{number:016x}{task:016x}",
                    Image="123456789012.dkr.ecr.us-east-1.amazonaws.com/shop/" + container,
                )
                yield minute * 1000, json.dumps(shape, separators=(",", ":"))


class Bench:
    """The log, DynamoDB and Mackerel, each on a port of its own."""

    def __init__(self, containers: int) -> None:
        self.names = services(containers)
        # Minutes that have settled, and that Mackerel still takes.
        self.end = int(time.time()) // 60 * 60 - 60 * SETTLED_MINUTES
        self.log = PerformanceLog(CLUSTER)
        # What would be minutes follows each other at once.
        self.mackerel = MackerelServer(service_posts_per_minute=100)
        self.moto = ThreadedMotoServer(port=0, verbose=False)

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        say("writing the log")
        first = self.end - 60 * (PAUSE_MINUTES + 1)
        self.log.write(
            line for minute in range(first, self.end, 60) for line in events(self.names, minute)
        )
        self.log.__enter__()
        self.mackerel.start()
        self.moto.start()
        boto3.client(
            "dynamodb",
            endpoint_url=self.dynamodb,
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
            aws_access_key_id="benchmark",
            aws_secret_access_key="benchmark",  # noqa: S106 - of no account
        ).create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")
            ],
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.moto.stop()
        self.mackerel.stop()
        self.log.__exit__()

    @property
    def dynamodb(self) -> str:
        host, port = self.moto.get_host_and_port()
        return f"http://{host}:{port}"

    def measure(self, run: Run) -> dict[str, Any]:
        """One process; raises BenchmarkError when it did not do its work."""
        say(f"{run.name}: {run.minutes} minutes of {len(self.names)} ECS services")
        self.mackerel.forget_requests()
        pages = self.log.pages
        told = {
            "cluster": CLUSTER,
            "start": self.end - 60 * run.minutes,
            "end": self.end,
            "services": self.names,
            "tasks": TASKS,
        }
        said = self._invoke(run, told, self.log.url)
        if run.way == "push":
            self._check(run, said)
        return {**said, "pages": self.log.pages - pages}

    def measure_cgroups(self, run: Run, instances: Instances, minute: int) -> dict[str, Any]:
        """The same for the other source. minute: epoch seconds; that of the run before, and one."""
        say(f"{run.name}: {len(instances.tasks)} tasks on {len(instances.names)} instances")
        self.mackerel.forget_requests()
        services = sorted(set(instances.tasks.values()))
        told = {
            "cluster": INSTANCES_CLUSTER,
            "start": minute,
            "command": command_id(minute),
            "instances": instances.names,
            "owners": instances.tasks,
            "services": services,
            "tasks": len(instances.tasks) // len(services),
        }
        said = self._invoke(run, told, instances.url)
        readings = len(instances.tasks) * len(CONTAINERS)
        rates = readings if run is CGROUPS_RUNS[1] else 0
        wrong = said["problems"] or said["refused"] or said["skipped"]
        if wrong or (said["readings"], said["rates"]) != (readings, rates):
            raise BenchmarkError(f"{run.name}: {readings} readings were to come: {said}")
        return {**said, "pages": 0}

    def _invoke(self, run: Run, told: Mapping[str, Any], url: str) -> dict[str, Any]:
        """A process of its own. url: of the log or the answers. Raises BenchmarkError."""
        told = {"way": run.way, "table": TABLE, "key": self.mackerel.api_key, **told}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "metrics_invocation", json.dumps(told)],
            env=self._environment(url),
            capture_output=True,
            text=True,
            check=False,
        )
        clock = time.perf_counter() - began
        if done.returncode:
            raise BenchmarkError(f"{run.name}: {done.stderr.strip()[-2000:]}")
        return {**json.loads(done.stdout), "seconds": clock}

    def _check(self, run: Run, said: Mapping[str, Any]) -> None:
        """What is measured has to be the whole of the work."""
        containers = len(self.names) * TASKS * len(CONTAINERS)
        # With a reading of each task's network.
        readings = (containers + len(self.names) * TASKS) * run.minutes
        wrong = said["problems"] or said["refused"] or said["skipped"]
        if wrong or said["readings"] != readings or said["minutes"] != run.minutes:
            raise BenchmarkError(f"{run.name}: {readings} readings were to come: {said}")

    def _environment(self, url: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'functions'}:{ROOT / 'benchmarks'}",
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": url,
            "AWS_ENDPOINT_URL_SSM": url,
            "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb,
            "MACKEREL_URL": self.mackerel.url,
            **CREDENTIALS,
        }


def row(run: Run, containers: int, said: Mapping[str, Any], requests: int) -> dict[str, Any]:
    """For the table."""
    return {
        "run": run.name,
        "containers": containers,
        "events": said.get("events", containers * (run.minutes + 1) if run.way == "push" else 0),
        "cpu_s": round(sum(said["cpu"].values()), 2),
        "seconds": round(said["seconds"], 2),
        "peak_mb": round(said["peak_bytes"] / 1024 / 1024, 1),
        "log_pages": said["pages"],
        "mackerel_requests": requests,
        "values": said.get("values", 0),
        "item_kb": round(said.get("largest_item_bytes", 0) / 1000, 1),
    }


def measure_all(
    options: argparse.Namespace, show: Callable[[str, Any], None]
) -> dict[str, list[dict[str, Any]]]:
    """Every row, and where their time went."""
    rows: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    requests: list[dict[str, Any]] = []

    def note(run: Run, containers: int, said: Mapping[str, Any]) -> None:
        counts = bench.mackerel.counts()
        rows.append(row(run, containers, said, counts.total()))
        steps.append(
            {"run": run.name, **{f"{name}_s": round(said["cpu"].get(name, 0), 2) for name in STEPS}}
        )
        requests.extend(
            {"run": run.name, "request": name, "count": count}
            for name, count in sorted(counts.items())
        )

    with Bench(options.containers) as bench:
        for run in RUNS:
            note(run, len(bench.names) * TASKS * len(CONTAINERS), bench.measure(run))
        minutes = [bench.end - 120, bench.end - 60]
        names = services(INSTANCES * CONTAINERS_EACH)
        with Instances(names, INSTANCES, CONTAINERS_EACH) as instances:
            instances.read(minutes)
            for run, minute in zip(CGROUPS_RUNS, minutes, strict=True):
                said = bench.measure_cgroups(run, instances, minute)
                note(run, INSTANCES * CONTAINERS_EACH, said)
    report = {
        "runs": rows,
        "cpu_by_step": steps,
        "requests": requests,
        "answers": [
            {
                "instances": INSTANCES,
                "containers_each": CONTAINERS_EACH,
                "metrics_each": instances.metrics,
                "longest_characters": instances.characters,
            }
        ],
    }
    for title, part in (
        ("Pushing the statistics of containers (target: 10 s of CPU, 256 MB)", "runs"),
        ("Seconds of CPU by step", "cpu_by_step"),
        ("Requests to Mackerel", "requests"),
        ("What instances answer (Run Command gives back 24,000 characters)", "answers"),
    ):
        show(title, report[part])
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--containers", type=int, default=10_000, metavar="N")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args(arguments)
    if options.containers < 1:
        parser.error("less than one says nothing")

    def show(title: str, rows: Any) -> None:
        if not options.json:
            show_table(title, rows)

    try:
        report = measure_all(options, show)
    except (BenchmarkError, OSError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
