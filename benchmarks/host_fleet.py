"""Switches of a fleet: SSM commands to hosts of a sandbox, all together or one after the other."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from deployment import SERVICE, BenchmarkError, Site, sandbox

LEAD_SECONDS = 3.0
"""From the command to the moment: eight programs have to start on few cores meanwhile."""
ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.1
READY_SECONDS = 60.0


class Fleet:
    """All hosts of a sandbox; blue and green answer on each, one has the traffic."""

    def __init__(self, site: Site, hosts: int) -> None:
        self._ssm = site.client("ssm")
        for tag in ("first", "second"):  # so each colour has a task definition of its own
            site.deploy(tag)
        self._have_both(site.client("ecs"), hosts)
        documents = self._ssm.list_documents(Filters=[{"Key": "Owner", "Values": ["Self"]}])
        names = [document["Name"] for document in documents["DocumentIdentifiers"]]
        self._documents = {
            phase: next(name for name in names if f"Host{phase}Document" in name)
            for phase in ("Report", "Stage", "Commit")
        }
        known = self._ssm.describe_instance_information(MaxResults=50)["InstanceInformationList"]
        self._instances = sorted(instance["InstanceId"] for instance in known)
        said = self._answers("Report", self._instances, {})
        self._now = {one["weights"].get("blue", 0) for one in said}.pop()
        self._generation = max(one["generation"] for one in said)

    def switch_together(self) -> float:
        """Stage on all, commit on all at one moment; milliseconds from first to last."""
        order = self._order()
        self._answers("Stage", self._instances, order)
        at = time.time() + LEAD_SECONDS
        answers = self._answers("Commit", self._instances, order | _moment(at))
        return _spread(answers)

    def switch_in_turn(self) -> float:
        """One host, then the next, as soon as it has answered; milliseconds from first to last."""
        order = self._order()
        answers = []
        for instance in self._instances:
            answers += self._answers("Commit", [instance], order | _moment(time.time()))
        return _spread(answers)

    def _order(self) -> dict[str, str]:
        """The next switch: the other colour gets all."""
        before = self._now
        self._now = 100 - before
        self._generation += 1
        return {
            "Generation": str(self._generation),
            "Blue": str(self._now),
            "Green": str(100 - self._now),
            "Expected": f"{before}:{100 - before}",
        }

    def _answers(
        self, phase: str, instances: list[str], parameters: dict[str, str]
    ) -> list[dict[str, Any]]:
        """Run a document on instances; what the host program answers on each."""
        command = self._ssm.send_command(
            InstanceIds=instances,
            DocumentName=self._documents[phase],
            Parameters={
                name: [value] for name, value in {"Service": SERVICE, **parameters}.items()
            },
            MaxConcurrency="100%",
            MaxErrors="100%",
            TimeoutSeconds=30,
        )["Command"]["CommandId"]
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            invocations = self._ssm.list_command_invocations(CommandId=command, Details=True)
            ended = {
                one["InstanceId"]: one
                for one in invocations["CommandInvocations"]
                if one["Status"] not in ("Pending", "InProgress", "Delayed")
            }
            if set(ended) == set(instances):
                break
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{phase}: {len(ended)} of {len(instances)} hosts answer")
            time.sleep(POLL_SECONDS)
        for instance, one in ended.items():
            if one["Status"] != "Success":
                plugins = [plugin["Output"] for plugin in one["CommandPlugins"]]
                raise BenchmarkError(f"{phase} on {instance}: {one['StatusDetails']} {plugins}")
        return [json.loads(one["CommandPlugins"][0]["Output"]) for one in ended.values()]

    def _have_both(self, ecs: Any, hosts: int) -> None:
        """Run the idle colour too, as during a deployment: a host stages what answers."""
        services = [f"{SERVICE}-{color}" for color in ("blue", "green")]
        for service in services:
            ecs.update_service(cluster=SERVICE, service=service, desiredCount=hosts)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            described = ecs.describe_services(cluster=SERVICE, services=services)["services"]
            counts = [service["runningCount"] for service in described]
            if counts == [hosts, hosts]:
                return
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{counts} tasks run, not {hosts} of each colour")
            time.sleep(0.5)


@contextlib.contextmanager
def fleet(network: str, proxy: str, hosts: int) -> Iterator[Fleet]:
    """A sandbox of our own. Raises BenchmarkError."""
    options = ["--pattern", "host-proxy", "--proxy", proxy, "--hosts", str(hosts)]
    options += ["--set", "router.lead_seconds=3"]
    with sandbox(network, *options) as site:
        yield Fleet(site, hosts)


def _moment(at: float) -> dict[str, str]:
    return {"At": f"{at:.3f}", "NotAfter": f"{at + 30:.3f}"}


def _spread(answers: list[dict[str, Any]]) -> float:
    moments = [answer["switched_at"] for answer in answers]
    return float((max(moments) - min(moments)) * 1000)
