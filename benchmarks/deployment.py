"""``python benchmarks/deployment.py``: what a deployment costs besides the waiting.

Deployments in the sandbox, of an app that starts within a tenth of a second, without load on it:

- wall: from the start of the execution to its end, as DescribeExecution says.
- waits: from entered to exited, all Wait states together. How long each one is is configured; how
  often CheckHealth and the drain have to wait depends on the app and on ECS too.
- overhead: the rest. Our functions, the calls they make, the probes, the workflow's own time.
- transitions: states entered. AWS bills each retry too; it is not counted here.
- calls: AWS calls of the functions, and the workflow's invocations of them.

The very first deployment, which has nothing to replace, is made before and not counted.

With ``--pattern two-clusters`` there is more: what it costs that both groups have hosts for a
while, in instance-seconds above the minimum, and what they were spent on (``overlap``). A host of
the sandbox boots within a second or two, and all other times are short too: put your own into the
phases. Bake and drain are configured; boot and health are those of your AMI and of your app.

Otherwise follows the import of each handler's module in a fresh Python, with a bare boto3 client
beside it. Both include the start of Python. The bare client is a yardstick, not a part: a handler
makes its clients at its first invocation (here in the deployment that is not counted), so a cold
start takes more than the import. On a machine that does other things too, CPU time says more than
wall time.

What this is not: moto is not AWS. Its calls take milliseconds, have no network in between, and
share the machine's cores with the functions. There are no cold starts: the functions' processes run
before the first deployment. Compiled modules are cached on disk and files in memory, which a cold
start of Lambda does not have. So the figures compare with each other, in one run on one machine.
Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import requests
import yaml

from overlap import PHASES, NotComparableError, Overlap, lives, overlap

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = ROOT / "functions"
BUILD_DIRECTORY = ROOT / "build" / "benchmark"
SERVICE = "web"
TWO_CLUSTERS = "two-clusters"
PATTERNS = ("shifted-ports", TWO_CLUSTERS)
DEADLINE_SECONDS = 120.0
POLL_SECONDS = 0.25
# The example's times, shortened: they are waited for and then taken off.
SETTINGS = {
    "trigger": "null",
    "health.interval_seconds": 1,
    "bake.seconds": 1,
    "bake.interval_seconds": 1,
    "drain.seconds": 1,
    "drain.margin_seconds": 1,
    "drain.interval_seconds": 1,
    "infrastructure.DeregistrationDelaySeconds": 1,
}
BARE_CLIENT = 'import boto3; boto3.client("ecs", region_name="eu-west-1")'
# What Lambda gives every function; without credentials boto3 would look for them in the network.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}

Say = Callable[[str], None]


class BenchmarkError(Exception):
    """There is nothing to measure; the message says why."""


@dataclass(frozen=True)
class Deployment:
    """One deployment. Times are in seconds; ``calls`` counts by (function, operation);
    ``overlap`` is there where each colour has hosts of its own.
    """

    id: str
    wall: float
    waits: float
    transitions: int
    calls: Counter[tuple[str, str]]
    overlap: Overlap | None = None

    @property
    def overhead(self) -> float:
        return self.wall - self.waits

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "wall_seconds": round(self.wall, 3),
            "wait_seconds": round(self.waits, 3),
            "overhead_seconds": round(self.overhead, 3),
            "transitions": self.transitions,
            "calls": self.calls.total(),
            **(self.overlap.as_json() if self.overlap else {}),
        }


@dataclass(frozen=True)
class Spent:
    """What one process took, in seconds."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Import:
    """Medians of a handler's import; the ratios are medians too, each run with the bare client
    that ran right before it.
    """

    module: str
    wall: float
    cpu: float
    wall_ratio: float
    cpu_ratio: float

    def as_json(self) -> dict[str, Any]:
        return {
            "module": self.module,
            "wall_seconds": round(self.wall, 3),
            "cpu_seconds": round(self.cpu, 3),
            "wall_ratio": round(self.wall_ratio, 2),
            "cpu_ratio": round(self.cpu_ratio, 2),
        }


class Site:
    """A running sandbox. ``about`` is its sandbox.json."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self._workflow = self.client("stepfunctions")

    def client(self, service: str) -> Any:
        """A client of its AWS; Any, because its type hangs on the name."""
        make: Any = boto3.client
        return make(
            service,
            endpoint_url=self.about["aws_endpoint"],
            region_name=self.about["region"],
            aws_access_key_id="benchmark",
            aws_secret_access_key="benchmark",  # noqa: S106 the sandbox takes any
        )

    def deploy(self, tag: str, *, own_hosts: bool = False) -> Deployment:
        """Push an image and deploy it; raises BenchmarkError if that does not succeed.

        With ``own_hosts`` the deployment has an overlap to tell of.
        """
        self._control("DELETE", "operations")
        arn = self.start_deployment(tag)
        ended = self.ended(arn)
        if ended["status"] != "SUCCEEDED":
            raise BenchmarkError(
                f"{tag}: {ended['status']} {ended.get('error')}: {ended.get('cause')}"
            )
        pages = self._workflow.get_paginator("get_execution_history").paginate(executionArn=arn)
        events = [event for page in pages for event in page["events"]]
        return Deployment(
            id=tag,
            wall=(ended["stopDate"] - ended["startDate"]).total_seconds(),
            waits=waited(events),
            transitions=sum("stateEnteredEventDetails" in event for event in events),
            calls=Counter(
                (call["function"], f"{call['service']}:{call['operation']}")
                for call in self._control("GET", "operations")
            ),
            overlap=self._overlap(ended, events) if own_hosts else None,
        )

    def start_deployment(self, tag: str) -> str:
        """Push an image and start its deployment; returns the execution's ARN."""
        self._control("POST", "push", {"image": f"{SERVICE}:{tag}"})
        request = {"action": "deploy", "service": SERVICE, "images": {SERVICE: tag}}
        return self.start(request, tag)

    def start(self, request: Mapping[str, Any], name: str | None = None) -> str:
        """Start an execution; returns its ARN."""
        named = {"name": name} if name else {}
        answer = self._workflow.start_execution(
            stateMachineArn=self.about["state_machine_arn"], input=json.dumps(request), **named
        )
        return str(answer["executionArn"])

    def ended(self, arn: str) -> dict[str, Any]:
        """Wait until an execution has ended, and describe it. Raises BenchmarkError."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (found := self._workflow.describe_execution(executionArn=arn))["status"] == "RUNNING":
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{arn} still runs after {DEADLINE_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        return dict(found)

    def states(self, arn: str) -> list[str]:
        """The states that an execution has entered, in their order."""
        pages = self._workflow.get_paginator("get_execution_history").paginate(executionArn=arn)
        return [
            event["stateEnteredEventDetails"]["name"]
            for page in pages
            for event in page["events"]
            if "stateEnteredEventDetails" in event
        ]

    def keep_warm(self, seconds: int) -> None:
        """Change the service configuration: how long an old colour is kept."""
        ssm, name = self.client("ssm"), f"/bluegreen/services/{SERVICE}"
        document = yaml.safe_load(ssm.get_parameter(Name=name)["Parameter"]["Value"])
        document["drain"]["keep_warm_seconds"] = seconds
        ssm.put_parameter(Name=name, Value=yaml.safe_dump(document), Overwrite=True)

    def wait_until_warm(self) -> None:
        """Until the old colour is offered for an instant rollback. Raises BenchmarkError."""
        dynamodb = self.client("dynamodb")
        (table,) = (name for name in dynamodb.list_tables()["TableNames"] if "Deployments" in name)
        deadline = time.monotonic() + DEADLINE_SECONDS
        key = {"pk": {"S": f"lock#{SERVICE}"}}
        while "warm" not in dynamodb.get_item(TableName=table, Key=key).get("Item", {}):
            if time.monotonic() > deadline:
                raise BenchmarkError("the old colour was never kept warm")
            time.sleep(POLL_SECONDS)

    def _overlap(self, ended: Mapping[str, Any], events: Sequence[Any]) -> Overlap:
        """What the hosts of two groups cost while an execution ran, by its events."""
        entered: dict[str, datetime] = {}
        for event in events:
            if details := event.get("stateEnteredEventDetails"):
                entered.setdefault(details["name"], event["timestamp"])
        pages = self.client("autoscaling").get_paginator("describe_scaling_activities").paginate()
        hosts = lives(activity for page in pages for activity in page["Activities"])
        try:
            return overlap(hosts, ended["startDate"], ended["stopDate"], entered)
        except NotComparableError as error:
            raise BenchmarkError(f"{ended['name']}: {error}") from error

    def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        url = self.about["control_url"] + path
        response = requests.request(method, url, json=body, timeout=30)
        response.raise_for_status()
        return response.json()


def waited(events: Sequence[Any]) -> float:
    """Seconds in Wait states, from the events of an execution. No two of them overlap."""
    seconds = 0.0
    since = None
    for event in events:
        if event["type"] == "WaitStateEntered":
            since = event["timestamp"]
        elif event["type"] == "WaitStateExited" and since is not None:
            seconds += (event["timestamp"] - since).total_seconds()
            since = None
    return seconds


@contextmanager
def sandbox(network: str, *options: str) -> Iterator[Site]:
    """A sandbox of our own, ended with us, however we end; ``options`` are of its ``up``."""
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "sandbox", "up"]
    command += ["--network", network, "--build-dir", str(BUILD_DIRECTORY), *options]
    for name, value in SETTINGS.items():
        command += ["--set", f"{name}={value}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            if not process.stdout.readline():  # it says nothing before it is ready
                raise BenchmarkError("the sandbox did not start")
            yield Site(json.loads((BUILD_DIRECTORY / "sandbox.json").read_text()))
        finally:
            process.terminate()
            process.wait()


def measure_imports(rounds: int) -> tuple[Spent, list[Import]]:
    """Medians of the bare client and of each handler, which take turns; the first turn of each
    fills the caches and is not counted.
    """
    environment = {**os.environ, **CREDENTIALS}
    handlers_environment = {**environment, "PYTHONPATH": str(FUNCTIONS)}
    modules = sorted(path.stem for path in FUNCTIONS.glob("*.py"))
    pairs: dict[str, list[tuple[Spent, Spent]]] = {module: [] for module in modules}
    run(BARE_CLIENT, environment)
    for module in modules:
        run(f"import {module}", handlers_environment)
    for _ in range(rounds):
        for module in modules:
            bare = run(BARE_CLIENT, environment)
            pairs[module].append((bare, run(f"import {module}", handlers_environment)))
    bares = [bare for taken in pairs.values() for bare, _ in taken]
    imports = [
        Import(
            module=module,
            wall=median(handler.wall for _, handler in taken),
            cpu=median(handler.cpu for _, handler in taken),
            wall_ratio=median(handler.wall / bare.wall for bare, handler in taken),
            cpu_ratio=median(handler.cpu / bare.cpu for bare, handler in taken),
        )
        for module, taken in pairs.items()
    ]
    return Spent(median(one.wall for one in bares), median(one.cpu for one in bares)), imports


def run(code: str, environment: dict[str, str]) -> Spent:
    """Run code in a fresh Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd="/", env=environment, check=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure_deployments(count: int, network: str, pattern: str, say: Say) -> dict[str, Any]:
    """Deploy, tell of each, and sum up; the report's part on deployments."""
    say(f"{'deployment':<10} {'wall':>9} {'waits':>9} {'overhead':>9} {'transitions':>11} calls")
    deployments = []
    with sandbox(network, "--pattern", pattern) as site:
        site.deploy("first")
        for number in range(1, count + 1):
            one = site.deploy(f"v{number}", own_hosts=pattern == TWO_CLUSTERS)
            deployments.append(one)
            say(_row(one.id, one.wall, one.waits, one.overhead, one.transitions, one.calls.total()))
    medians = {
        "wall_seconds": median(one.wall for one in deployments),
        "wait_seconds": median(one.waits for one in deployments),
        "overhead_seconds": median(one.overhead for one in deployments),
        "transitions": median(one.transitions for one in deployments),
        "calls": median(one.calls.total() for one in deployments),
    }
    say(_row("median", *medians.values()))
    costs = report_overlap(deployments, say)
    names = sorted({name for one in deployments for name in one.calls})
    calls = [
        {
            "function": function,
            "operation": operation,
            "calls": median(one.calls[function, operation] for one in deployments),
        }
        for function, operation in names
    ]
    say(f"\n{'function':<30} {'operation':<50} calls (median)")
    for line in calls:
        say(f"{line['function']:<30} {line['operation']:<50} {line['calls']:>5g}")
    return {
        "deployments": [one.as_json() for one in deployments],
        "median": {name: round(value, 3) for name, value in medians.items()},
        "calls": calls,
        **costs,
    }


def report_overlap(deployments: Sequence[Deployment], say: Say) -> dict[str, Any]:
    """Tell what two groups of hosts cost, where there are two; the report's part on it."""
    overlaps = [one.overlap for one in deployments if one.overlap]
    if not overlaps:
        return {}
    minimum = ", ".join(str(hosts) for hosts in sorted({one.minimum for one in overlaps}))
    say(f"\nInstance-seconds above the minimum, the live group's {minimum} hosts:")
    phases = " + ".join(f"{phase:>7}" for phase in PHASES)
    say(f"{'deployment':<10} {'wall':>9} {'above':>7} = {phases}")
    for one in deployments:
        if one.overlap:
            say(_overlap_row(one.id, one.wall, one.overlap.total, one.overlap.by_phase))
    wall = median(one.wall for one in deployments)
    total = median(one.total for one in overlaps)
    by_phase = {phase: median(one.by_phase[phase] for one in overlaps) for phase in PHASES}
    say(_overlap_row("median", wall, total, by_phase))
    for phase, meaning in PHASES.items():
        say(f"  {phase}: {meaning}")
    return {
        "overlap_median": {
            "instance_seconds_above": round(total, 3),
            "by_phase": {phase: round(seconds, 3) for phase, seconds in by_phase.items()},
        }
    }


def _overlap_row(name: str, wall: float, total: float, by_phase: Mapping[str, float]) -> str:
    phases = (f"{seconds:>{max(7, len(phase))}.2f}" for phase, seconds in by_phase.items())
    return f"{name:<10} {wall:>7.2f} s {total:>7.2f}   {'   '.join(phases)}"


def _row(
    name: str, wall: float, waits: float, overhead: float, transitions: float, calls: float
) -> str:
    times = f"{wall:>7.2f} s {waits:>7.2f} s {overhead:>7.2f} s"
    return f"{name:<10} {times} {transitions:>11g} {calls:>5g}"


def report_imports(rounds: int, say: Say) -> dict[str, Any]:
    """Import every handler, and tell; the report's part on imports."""
    bare, imports = measure_imports(rounds)
    say(f"\n{'fresh python -c import':<28} {'wall':>8} {'ratio':>6} {'CPU':>8} {'ratio':>6}")
    say(_import_row("(bare boto3 ECS client)", bare.wall, 1, bare.cpu, 1))
    for one in imports:
        say(_import_row(one.module, one.wall, one.wall_ratio, one.cpu, one.cpu_ratio))
    return {
        "bare_client": {"wall_seconds": round(bare.wall, 3), "cpu_seconds": round(bare.cpu, 3)},
        "imports": [one.as_json() for one in imports],
    }


def _import_row(name: str, wall: float, wall_ratio: float, cpu: float, cpu_ratio: float) -> str:
    return f"{name:<28} {wall:>6.3f} s {wall_ratio:>6.2f} {cpu:>6.3f} s {cpu_ratio:>6.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deployments", type=int, default=5, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of imports")
    parser.add_argument("--pattern", choices=PATTERNS, default=PATTERNS[0])
    parser.add_argument("--network", default="127.0.9", help="as of python -m sandbox up")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args(arguments)
    if options.deployments < 1 or options.rounds < 1:
        parser.error("less than one says nothing")
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))

    def say(line: str) -> None:
        if not options.json:
            print(line, flush=True)

    try:
        report = measure_deployments(options.deployments, options.network, options.pattern, say)
        if options.pattern != TWO_CLUSTERS:  # handlers are the same in every pattern
            report |= report_imports(options.rounds, say)
    except BenchmarkError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
