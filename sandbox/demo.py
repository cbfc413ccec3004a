"""``python -m sandbox.demo``: one full round of deployments under load, and what came of it.

Starts the sandbox, makes the first deployment of a service, puts load on it, deploys three more
versions and counts every request. Writes demo.json; exits with 0 only if every deployment
succeeded and no request failed, and with two-clusters only if each has left nothing but instances
that it has launched itself.

Where the service configuration accepts a gap (router.accept_gap), requests that are lost in it are
told for each deployment and are no failure; those lost at any other time are. The load is paced
there instead of wrk's, and smaller: each request counts once (see ``sandbox.load``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sandbox.gap import Gap, Switch, gap_in, switch_of
from sandbox.load import Load, LoadError, PacedLoad, PacedResult, Result
from sandbox.settings import BALANCERS, BUILD_DIRECTORY, PROXIES, SandboxError
from sandbox.stack import StackError
from sandbox.up import Sandbox, terminable

VERSIONS = ("v1", "v2", "v3", "v4")
LEAST_SHARE = 0.625
"""Of the requests that should have been sent: with fewer, the machine was too slow to tell."""

POLL_SECONDS = 0.2
DEADLINE_SECONDS = 240.0
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
    """One deployment, as demo.json tells it; ``reason`` is why it did not succeed.

    ``hosts`` is how many instances it has launched and left, None when the colors share theirs;
    ``wrong_hosts`` what is wrong with those that are there after it.

    ``gap_ms`` is how long there was no listener, by the deployment's record; ``switch`` is when
    that was, and ``gap`` what was lost in it, None without load. All three are None unless a gap
    is accepted.
    """

    id: str
    service: str
    from_color: str | None
    to_color: str | None
    outcome: str
    seconds: float
    reason: str = ""
    hosts: int | None = None
    wrong_hosts: str = ""
    gap_ms: float | None = None
    switch: Switch | None = None
    gap: Gap | None = None

    def as_json(self) -> dict[str, Any]:
        """What demo.json says."""
        return {
            "id": self.id,
            "service": self.service,
            "from_color": self.from_color,
            "to_color": self.to_color,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 2),
            **({} if self.hosts is None else {"hosts": self.hosts}),
        }

    def gap_as_json(self) -> dict[str, Any]:
        """What demo.json says besides, where a gap is accepted: the gap by the record and as
        clients saw it, in milliseconds, and the requests that they lost in it; null if not known.
        """
        seen = self.gap.milliseconds if self.gap else None
        return {
            "gap_ms": self.gap_ms,
            "gap_seen_ms": None if seen is None else round(seen, 1),
            "lost_in_gap": self.gap.lost if self.gap else None,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__)
    parser.add_argument("--pattern", default="shifted-ports")
    parser.add_argument("--proxy", help=f"for host-proxy, one of {', '.join(PROXIES)}")
    parser.add_argument("--balancer", help=f"one of {', '.join(BALANCERS)}")
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
                balancer=options.balancer,
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
            load = self._load(facts["url"])
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
        if isinstance(result, PacedResult):
            deployments[1:] = [_with_gap(one, result) for one in deployments[1:]]
        self._write(deployments, result)
        asked = load.rate * LEAST_SHARE
        return self._report(deployments, result, asked, time.monotonic() - began)

    def _load(self, url: str) -> Load | PacedLoad:
        if self._sandbox.accepts_gap:
            return PacedLoad(url)
        return Load(url, directory=self._sandbox.world.work_directory)

    def _deploy(self, version: str) -> Deployment:
        """Push an image, which deploys it, and follow the execution, state by state, to its end."""
        facts = self._sandbox.description
        service = facts["service"]
        client = self._sandbox.world.client("stepfunctions")
        digest = self._sandbox.images.push(f"{service}:{version}")
        arn = self._started_by_push(client, digest)
        name = arn.rpartition(":")[2]
        began, began_at = time.monotonic(), datetime.now(UTC)
        self._say(f"Pushed {service}:{version}, which starts {name}")
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
            f"in {deployment.seconds:.1f} s",
            style,
        )
        if self._sandbox.auto_scaling_groups and deployment.to_color is not None:
            deployment = self._with_hosts(deployment, deployment.to_color, began_at)
            self._say(
                f"  {deployment.wrong_hosts or f'hosts: {deployment.hosts}, all of them new'}",
                "red" if deployment.wrong_hosts else None,
            )
        if self._sandbox.accepts_gap:
            deployment = self._with_switch(deployment, client, arn, ended)
        self._say("")
        return deployment

    def _started_by_push(self, client: Any, digest: str) -> str:
        """The execution that the push of an image has started."""
        prefix = f"{self._sandbox.description['service']}-{digest.partition(':')[2][:12]}-"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            for one in client.list_executions(
                stateMachineArn=self._sandbox.description["state_machine_arn"]
            )["executions"]:
                if one["name"].startswith(prefix):
                    return str(one["executionArn"])
            time.sleep(POLL_SECONDS)
        raise SandboxError(f"the push has started no execution {prefix}…; see sandbox.log")

    def _with_switch(
        self, deployment: Deployment, client: Any, arn: str, ended: dict[str, Any]
    ) -> Deployment:
        """Look up when a deployment that has ended switched, and what gap it has recorded."""
        item = (
            self._sandbox.world.client("dynamodb")
            .get_item(
                TableName=self._sandbox.outputs["DeploymentsTableName"],
                Key={"pk": {"S": f"deployment#{deployment.id}"}},
            )
            .get("Item", {})
        )
        proved_at = json.loads(ended.get("output", "{}")).get("shift", {}).get("proved_at")
        events = client.get_execution_history(executionArn=arn)["events"]
        gap_ms = float(item["gap_ms"]["N"]) if "gap_ms" in item else None
        said = "was always there" if gap_ms is None else f"was away for {gap_ms:.0f} ms"
        self._say(f"  the listener {said}, as the record has it")
        return replace(deployment, gap_ms=gap_ms, switch=switch_of(events, proved_at))

    def _with_hosts(self, deployment: Deployment, color: str, began_at: datetime) -> Deployment:
        """Look at the instances that are there after a deployment to ``color``."""
        names = self._sandbox.auto_scaling_groups
        instances = {one["group"]: one["instances"] for one in self._sandbox.groups.describe()}
        new = instances[names[color]]
        older = [one for one in new if datetime.fromisoformat(one["launched_at"]) < began_at]
        left = [one for other in names if other != color for one in instances[names[other]]]
        wrong = [
            f"{one['id']} was there before this deployment ({one['lifecycle']})" for one in older
        ]
        wrong += [f"{one['id']} of the old color is left ({one['lifecycle']})" for one in left]
        if not new:
            wrong.append(f"{names[color]} has no instances")
        return replace(deployment, hosts=len(new) - len(older), wrong_hosts="; ".join(wrong))

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
        requests: dict[str, Any] = {
            "total": result.total,
            "failed": result.failed,
            "by_color": {color: result.by_color.get(color, 0) for color in ("blue", "green")},
        }
        told = [deployment.as_json() for deployment in deployments]
        if self._sandbox.accepts_gap:
            requests["failed_in_gaps"] = _lost_in_gaps(deployments)
            told = [
                {**one, **deployment.gap_as_json()}
                for one, deployment in zip(told, deployments, strict=True)
            ]
        report = {"pattern": self._pattern, "deployments": told, "requests": requests}
        path = self._sandbox.build_dir / "demo.json"
        path.write_text(json.dumps(report, indent=2) + "\n")

    def _report(
        self, deployments: list[Deployment], result: Result, least_rate: float, seconds: float
    ) -> int:
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
        connections = (
            "each on a new connection"
            if isinstance(result, PacedResult)
            else "half of the clients with keep-alive"
        )
        self._say(
            f"{result.total} requests in {result.seconds:.0f} s ({result.rate:.0f}/s, "
            f"{connections}): {colors}; p50 {result.p50:.1f} ms, p99 {result.p99:.1f} ms"
        )
        for deployment in deployments:
            if deployment.gap is not None:
                self._say(f"{deployment.id}: {_gap_in_words(deployment, deployment.gap)}", "yellow")
        wrong = [
            f"{deployment.id} {deployment.outcome}: {deployment.reason}"
            for deployment in deployments
            if deployment.outcome != "succeeded"
        ]
        wrong += [
            f"{deployment.id}: {deployment.wrong_hosts}"
            for deployment in deployments
            if deployment.wrong_hosts
        ]
        lost = _lost_in_gaps(deployments)
        if result.failed > lost:
            kinds = ", ".join(f"{count} {kind}" for kind, count in result.errors.items())
            gaps = f", {lost} of them in a gap that is accepted" if lost else ""
            wrong.append(f"{result.failed} requests failed{gaps}: {kinds}")
        if result.rate < least_rate:
            wrong.append(f"only {result.rate:.0f} requests/s instead of {least_rate:.0f}")
        for line in wrong:
            self._say(line, "red")
        if not wrong:
            outside = " besides those in the gaps" if lost else ""
            self._say(f"0 failed requests{outside}.", "bold green")
        self._say(f"{self._sandbox.build_dir / 'demo.json'} ({seconds:.0f} s in all)")
        return 1 if wrong else 0

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, soft_wrap=True)


def _with_gap(deployment: Deployment, result: PacedResult) -> Deployment:
    """A deployment that was made under load, with what was lost in its gap."""
    if deployment.switch is None:
        return deployment
    return replace(deployment, gap=gap_in(result.requests, deployment.switch))


def _lost_in_gaps(deployments: Sequence[Deployment]) -> int:
    return sum(deployment.gap.lost for deployment in deployments if deployment.gap)


def _gap_in_words(deployment: Deployment, gap: Gap) -> str:
    recorded = "not recorded" if deployment.gap_ms is None else f"{deployment.gap_ms:.0f} ms"
    seen = "" if gap.milliseconds is None else f", {gap.milliseconds:.0f} ms for clients"
    return f"gap {recorded}{seen}, {gap.lost} requests lost in it"


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
