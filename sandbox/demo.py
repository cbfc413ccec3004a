"""``python -m sandbox.demo``: one full round of deployments under load, and what came of it.

Starts the sandbox, makes the first deployment of a service, puts load on it, deploys three more
versions and counts every request. Writes demo.json; exits with 0 only if every deployment
succeeded and no request failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sandbox.load import Load, LoadError, Result
from sandbox.settings import BUILD_DIRECTORY, PROXIES, SandboxError
from sandbox.stack import StackError
from sandbox.up import Sandbox, terminable

VERSIONS = ("v1", "v2", "v3", "v4")
LEAST_RATE = 500.0
POLL_SECONDS = 0.2
DEADLINE_SECONDS = 120.0
QUICK = {
    "health.interval_seconds": 1,
    "bake.seconds": 3,
    "bake.interval_seconds": 1,
    "drain.seconds": 2,
    "drain.margin_seconds": 1,
    "drain.interval_seconds": 1,
    "infrastructure.DeregistrationDelaySeconds": 2,
}
"""The example's times, shortened: nothing but patience is lost."""

OF_PATTERN = {"host-proxy": {"router.lead_seconds": 3}}


@dataclass(frozen=True)
class Deployment:
    """One deployment, as demo.json tells it; ``reason`` is why it did not succeed."""

    id: str
    service: str
    from_color: str | None
    to_color: str | None
    outcome: str
    seconds: float
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """What demo.json says."""
        return {
            "id": self.id,
            "service": self.service,
            "from_color": self.from_color,
            "to_color": self.to_color,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 2),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__)
    parser.add_argument("--pattern", default="shifted-ports")
    parser.add_argument("--proxy", help=f"for host-proxy, one of {', '.join(PROXIES)}")
    parser.add_argument("--network", default="127.0.1")
    parser.add_argument("--build-dir", type=Path, default=BUILD_DIRECTORY)
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    with terminable():
        try:
            sandbox = Sandbox(
                pattern=options.pattern,
                network=options.network,
                build_dir=options.build_dir,
                overrides={**QUICK, **OF_PATTERN.get(options.pattern, {})},
                proxy=options.proxy,
            )
            return Demo(sandbox, options.pattern, console).run()
        except (SandboxError, StackError, LoadError) as error:
            console.print(f"demo: {error}", style="red", markup=False)
            return 1
        except KeyboardInterrupt:
            console.print("demo: stopped")
            return 130


class Demo:
    """The demonstration in a sandbox that is not started yet."""

    def __init__(self, sandbox: Sandbox, pattern: str, console: Console) -> None:
        self._sandbox = sandbox
        self._pattern = pattern
        self._console = console

    def run(self) -> int:
        """Deploy, count, report; the exit code."""
        began = time.monotonic()
        self._say("Starting the sandbox: AWS APIs, the stacks, a cluster and a load balancer …")
        with self._sandbox as sandbox:
            facts = sandbox.description
            self._say(f"Ready after {time.monotonic() - began:.1f} s: {facts['url']}\n")
            deployments = [self._deploy(VERSIONS[0])]
            load = Load(facts["url"], directory=sandbox.world.work_directory)
            try:
                load.start()
                self._say(f"Load on {facts['url']}: {load.rate:.0f} requests/s\n")
                for version in VERSIONS[1:]:
                    if deployments[-1].outcome == "succeeded":
                        deployments.append(self._deploy(version))
                time.sleep(1)
                result = load.stop()
            finally:
                load.kill()
        self._write(deployments, result)
        return self._report(deployments, result, time.monotonic() - began)

    def _deploy(self, version: str) -> Deployment:
        """Push an image, deploy it and follow the execution, state by state, to its end."""
        facts = self._sandbox.description
        service = facts["service"]
        name = f"{service}-{version}-{int(time.time())}"
        self._sandbox.images.push(f"{service}:{version}")
        client = self._sandbox.world.client("stepfunctions")
        arn = client.start_execution(
            stateMachineArn=facts["state_machine_arn"],
            name=name,
            input=json.dumps(
                {"action": "deploy", "service": service, "images": {service: version}}
            ),
        )["executionArn"]
        began = time.monotonic()
        self._say(f"Deploying {service}:{version}")
        with self._console.status("") as status:
            for state in self._states(client, arn):
                elapsed = f"{time.monotonic() - began:5.1f} s"
                status.update(f"{elapsed}  {state}")
                self._say(f"  {elapsed}  {state}")
        ended = client.describe_execution(executionArn=arn)
        deployment = _outcome(name, service, ended, time.monotonic() - began)
        style = "green" if deployment.outcome == "succeeded" else "red"
        self._say(
            f"  {deployment.outcome}: {deployment.from_color} → {deployment.to_color} "
            f"in {deployment.seconds:.1f} s\n",
            style,
        )
        return deployment

    @staticmethod
    def _states(client: Any, arn: str) -> Iterator[str]:
        """The names of the tasks that an execution enters, each when it does so first."""
        seen: set[str] = set()
        number = 0
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            running = client.describe_execution(executionArn=arn)["status"] == "RUNNING"
            events = client.get_execution_history(executionArn=arn)["events"]
            for event in events[number:]:
                state = event.get("stateEnteredEventDetails", {}).get("name")
                if event["type"] == "TaskStateEntered" and state not in seen:
                    seen.add(state)
                    yield state
            number = len(events)
            if not running:
                return
            time.sleep(POLL_SECONDS)

    def _write(self, deployments: list[Deployment], result: Result) -> None:
        report = {
            "pattern": self._pattern,
            "deployments": [deployment.as_json() for deployment in deployments],
            "requests": {
                "total": result.total,
                "failed": result.failed,
                "by_color": {color: result.by_color.get(color, 0) for color in ("blue", "green")},
            },
        }
        path = self._sandbox.build_dir / "demo.json"
        path.write_text(json.dumps(report, indent=2) + "\n")

    def _report(self, deployments: list[Deployment], result: Result, seconds: float) -> int:
        table = Table("deployment", "from", "to", "outcome", "seconds")
        for deployment in deployments:
            table.add_row(
                deployment.id,
                deployment.from_color or "?",
                deployment.to_color or "?",
                deployment.outcome,
                f"{deployment.seconds:.1f}",
            )
        self._console.print(table)
        colors = ", ".join(f"{count} {color}" for color, count in sorted(result.by_color.items()))
        self._say(
            f"{result.total} requests in {result.seconds:.0f} s ({result.rate:.0f}/s, half of the "
            f"clients with keep-alive): {colors}; p50 {result.p50:.1f} ms, p99 {result.p99:.1f} ms"
        )
        wrong = [
            f"{deployment.id} {deployment.outcome}: {deployment.reason}"
            for deployment in deployments
            if deployment.outcome != "succeeded"
        ]
        if result.failed:
            kinds = ", ".join(f"{count} {kind}" for kind, count in result.errors.items())
            wrong.append(f"{result.failed} requests failed: {kinds}")
        if result.rate < LEAST_RATE:
            wrong.append(f"only {result.rate:.0f} requests/s instead of {LEAST_RATE:.0f}")
        for line in wrong:
            self._say(line, "red")
        if not wrong:
            self._say("0 failed requests.", "bold green")
        self._say(f"{self._sandbox.build_dir / 'demo.json'} ({seconds:.0f} s in all)")
        return 1 if wrong else 0

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, soft_wrap=True)


def _outcome(name: str, service: str, ended: dict[str, Any], seconds: float) -> Deployment:
    """A deployment from the description of its execution."""
    output = json.loads(ended.get("output", "{}"))
    plan = output.get("deployment", {})
    outcome = output.get("outcome", {}).get("outcome", ended["status"].lower())
    reason = " ".join(filter(None, (ended.get("error"), ended.get("cause"))))
    return Deployment(
        id=name,
        service=service,
        from_color=plan.get("from_color"),
        to_color=plan.get("to_color"),
        outcome=outcome,
        seconds=seconds,
        reason=reason,
    )


if __name__ == "__main__":
    sys.exit(main())
