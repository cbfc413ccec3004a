"""A sandbox whose containers are measured, and what its Mackerel has of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from sandbox.collected import Collected, Host, read
from tests.e2e.running import ROOT, Running

BUSY = f"{sys.executable} {ROOT / 'tests' / 'e2e' / 'busy_app.py'}"
MACKEREL_SERVICE = "sandbox"
AGENT_PORT = 51678
MINUTE = 60
SETTLED_SECONDS = 110.0


class RunningMetrics(Running):
    """``collect`` is one round of what the schedule does every minute."""

    def collect(self) -> None:
        """Until all that is to be had is in Mackerel."""
        self.sweep()
        # The schedule may begin rounds of its own meanwhile, and each waits for a Mackerel that is
        # away.
        said = self.control("POST", "settle", {"seconds": SETTLED_SECONDS})
        assert said["settled"], said

    @contextmanager
    def only_rounds_asked_for(self) -> Iterator[None]:
        """None that the schedule begins."""
        events = self.client("events")
        (rule,) = [
            one
            for one in events.list_rules()["Rules"]
            if any(
                "PushContainerMetrics" in target["Arn"]
                for target in events.list_targets_by_rule(Rule=one["Name"])["Targets"]
            )
        ]
        events.put_rule(Name=rule["Name"], ScheduleExpression="rate(1 day)")
        try:
            yield
        finally:
            events.put_rule(Name=rule["Name"], ScheduleExpression=rule["ScheduleExpression"])

    def write_log(self, minute: int) -> int:
        """Container Insights writes what was used since it did so last; how many events."""
        return int(self.control("POST", "insights", {"minute": minute})["events"])

    def collected(self) -> Collected:
        """By color, as far as there are hosts."""
        identifiers = {
            color: f"ecs-bluegreen.123456789012.ap-northeast-1.web.web-{color}"
            for color in ("blue", "green")
        }
        now = int(time.time())
        return read(
            str(self.about("mackerel_url")),
            self._key(),
            MACKEREL_SERVICE,
            identifiers,
            now - 3600,
            now + MINUTE,
        )

    def host(self, color: str) -> Host:
        return self.collected().hosts[color]

    def newest(self, color: str, metric: str) -> float:
        """Without the beginning that all have."""
        values = self.host(color).values(f"custom.ecs.{metric}")
        assert values, f"{color} has no {metric}"
        return values[max(values)]

    def newest_total(self, metric: str) -> float:
        """Of a service metric."""
        now = int(time.time())
        found = self.mackerel(
            f"services/{MACKEREL_SERVICE}/metrics",
            {"name": metric, "from": str(now - 3600), "to": str(now + MINUTE)},
        )["metrics"]
        assert found, f"there is no {metric}"
        return float(found[-1]["value"])

    def mackerel(self, path: str, query: Mapping[str, Any]) -> Any:
        """What Mackerel's API answers."""
        answer = requests.get(
            f"{self.about('mackerel_url')}/api/v0/{path}",
            params=query,
            headers={"X-Api-Key": self._key()},
            timeout=10,
        )
        answer.raise_for_status()
        return answer.json()

    def agent_tasks(self) -> list[dict[str, Any]]:
        """What the ECS agents of all hosts tell of tasks that run."""
        return [
            task
            for address in self.about("hosts")
            for task in requests.get(f"http://{address}:{AGENT_PORT}/v1/tasks", timeout=5).json()[
                "Tasks"
            ]
            if task["KnownStatus"] == "RUNNING"
        ]

    def cpu_seconds_of_processes(self) -> float:
        """Of all processes of busy_app.py in this sandbox, by what the kernel says."""
        ticks = 0
        for process in self._busy():
            fields = (process / "stat").read_text().rpartition(") ")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _busy(self) -> Iterator[Path]:
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                command = (process / "cmdline").read_bytes().decode()
                environment = (process / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "busy_app.py" in command and f"HOST={self.network}." in environment:
                yield process

    def _key(self) -> str:
        answer = self.client("ssm").get_parameter(
            Name="/bluegreen/mackerel/api-key", WithDecryption=True
        )
        return str(answer["Parameter"]["Value"])
