"""``python -m sandbox.metrics_demo``: a deployment as it shows in Mackerel's graphs.

Starts the sandbox with a Docker engine, whose containers are measured once a minute, and puts load
on a service: some minutes for comparison, a deployment from blue to green, some minutes more. Then
reads back what the Mackerel stand-in has and draws it. Writes metrics.png and demo.json; exits with
0 only if no request failed, the deployment is marked and the graphs have no gap.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml
from rich.console import Console

from sandbox import picture
from sandbox.collected import MINUTE, RUNNING_TASKS, Collected, Host, MackerelError, gaps, read
from sandbox.demo import LEAST_SHARE, QUICK, Demo, Deployment
from sandbox.load import Load, LoadError
from sandbox.settings import BUILD_DIRECTORY, SandboxError
from sandbox.stack import StackError
from sandbox.up import MACKEREL_KEY_PARAMETER, PARAMETER_PREFIX, Sandbox, terminable

PICTURE = "metrics.png"
CONTAINER = "web"
RATE = 400.0
"""Requests a second."""
MINUTES_BEFORE, MINUTES_AFTER = 2, 2
LONGEST_SECONDS = 60.0 * 6
"""To wait for that many minutes, at most."""
POLL_SECONDS = 1.0
MEBIBYTE = 1 << 20
TIMES = {**QUICK, "bake.seconds": 1, "metrics.each_task": True, "metrics.answer_seconds": 5}
BAKE_SECONDS = 60
"""Of the deployment that is looked at: so long that the colors are measured side by side. The first
measurement of a container gives no CPU value, so with less there would be a minute without any."""


class NoValuesError(Exception):
    """What was waited for did not come; the message says what and for how long."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.metrics_demo", description=__doc__)
    parser.add_argument("--network", default="127.0.1")
    parser.add_argument("--build-dir", type=Path, default=BUILD_DIRECTORY)
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    with terminable():
        try:
            sandbox = Sandbox(
                runtime="docker",
                metrics=True,
                network=options.network,
                build_dir=options.build_dir,
                overrides=TIMES,
            )
            return MetricsDemo(sandbox, "metrics", console).run()
        except (SandboxError, StackError, LoadError, MackerelError, NoValuesError) as error:
            console.print(f"demo: {error}", style="red", markup=False)
            return 1
        except KeyboardInterrupt:
            console.print("demo: stopped")
            return 130


class MetricsDemo(Demo):
    """The demonstration in a sandbox that is not started yet."""

    def run(self) -> int:
        """Deploy, wait, read back, draw, report; the exit code."""
        began = time.monotonic()
        self._began_at = int(time.time())
        self._told = 0
        self._say("Starting the sandbox: AWS APIs, the stacks, a Docker engine, Mackerel …")
        with self._sandbox as sandbox:
            facts = sandbox.description
            self._say(f"Ready after {time.monotonic() - began:.1f} s: {facts['url']}\n")
            # Green gets the first revision, blue the second; from there it is blue to green.
            deployments = [self._deploy("v1"), self._deploy("v2")]
            load = Load(facts["url"], rate=RATE, directory=sandbox.world.work_directory)
            try:
                load.start()
                self._say(f"Load on {facts['url']}: {load.rate:.0f} requests/s")
                self._say(
                    f"Waiting for {MINUTES_BEFORE} minutes with values of blue. Mackerel has one a "
                    "minute, and the first measurement has none to compare it with."
                )
                self._wait(lambda seen: self._minutes(seen, "blue", 0) >= MINUTES_BEFORE)
                self._say("")
                self._bake_longer()
                deployments.append(self._deploy("v3"))
                after = int(time.time()) // MINUTE * MINUTE
                self._say(f"Waiting for {MINUTES_AFTER} minutes of green after the deployment.")
                collected = self._wait(
                    lambda seen: (
                        bool(seen.annotations)
                        and self._minutes(seen, "green", after) >= MINUTES_AFTER
                    )
                )
                self._say("")
                result = load.stop()
            finally:
                load.kill()
        self._write(deployments, result)
        path = sandbox.build_dir / PICTURE
        picture.draw(collected, CONTAINER, path)
        code = self._report(deployments, result, load.rate * LEAST_SHARE, time.monotonic() - began)
        wrong = [*gaps(collected, CONTAINER), *_not_shown(collected, deployments[-1])]
        for line in wrong:
            self._say(line, "red")
        if not wrong:
            self._say("No gap in the graphs, and the deployment is marked in them.", "bold green")
        self._say(f"{path}")
        return 1 if wrong else code

    def _bake_longer(self) -> None:
        """Change the service configuration, where everybody would: its SSM parameter."""
        name = f"{PARAMETER_PREFIX}/{self._sandbox.description['service']}"
        client = self._sandbox.world.client("ssm")
        configuration = yaml.safe_load(client.get_parameter(Name=name)["Parameter"]["Value"])
        configuration["bake"]["seconds"] = BAKE_SECONDS
        text = yaml.safe_dump(configuration, sort_keys=False)
        client.put_parameter(Name=name, Value=text, Type="String", Overwrite=True)

    def _wait(self, enough: Callable[[Collected], bool]) -> Collected:
        """Read again and again, say what each new minute brings, until it is enough."""
        deadline = time.monotonic() + LONGEST_SECONDS
        before = None
        with self._console.status("") as status:
            while True:
                seen = self._read()
                # A minute comes in several requests: what has changed may still be under way.
                if seen == before:
                    self._tell(seen)
                    if enough(seen):
                        return seen
                before = seen
                if time.monotonic() > deadline:
                    raise NoValuesError(
                        f"not enough values within {LONGEST_SECONDS / 60:.0f} minutes; see "
                        f"{self._sandbox.build_dir / 'sandbox.log'}"
                    )
                left = MINUTE - time.time() % MINUTE
                status.update(f"the next minute begins in {left:.0f} s")
                time.sleep(POLL_SECONDS)

    def _read(self) -> Collected:
        sandbox = self._sandbox
        key = sandbox.world.client("ssm").get_parameter(
            Name=MACKEREL_KEY_PARAMETER, WithDecryption=True
        )["Parameter"]["Value"]
        return read(
            sandbox.description["mackerel_url"],
            key,
            sandbox.mackerel_service,
            sandbox.mackerel_hosts,
            # The minute in which we began too; and values are never later than now.
            self._began_at - MINUTE,
            int(time.time()) + MINUTE,
        )

    def _tell(self, seen: Collected) -> None:
        """One line for each minute that is new: what Mackerel has of it."""
        minutes = {m for host in seen.hosts.values() for m in host.values(RUNNING_TASKS)}
        for minute in sorted(minutes):
            if minute <= self._told:
                continue
            self._told = minute
            parts = [
                f"{color} {_in_words(host, minute)}" for color, host in sorted(seen.hosts.items())
            ]
            when = datetime.fromtimestamp(minute, UTC).strftime("%H:%M")
            self._say(f"  {when}  {'; '.join(parts)}")

    @staticmethod
    def _minutes(seen: Collected, color: str, start: int) -> int:
        """How many minutes after ``start`` have CPU values of a color."""
        host = seen.hosts.get(color)
        values = host.of_container(CONTAINER) if host else {}
        return sum(minute > start for minute in values)


def _in_words(host: Host, minute: int) -> str:
    """What a host did in a minute."""
    running = host.values(RUNNING_TASKS).get(minute)
    if running is None:
        return "unknown"
    cpu = host.of_container(CONTAINER).get(minute)
    memory = host.values(f"custom.ecs.memory.{CONTAINER}.usage").get(minute)
    words = [f"{running:.0f} tasks"]
    words += [f"CPU {cpu:.1f} %"] if cpu is not None else []
    words += [f"memory {memory / MEBIBYTE:.1f} MiB"] if memory is not None else []
    return f"({host.status}): {', '.join(words)}"


def _not_shown(collected: Collected, deployment: Deployment) -> list[str]:
    """What the graphs do not say of a deployment."""
    wrong = []
    if not any(deployment.id in one["description"] for one in collected.annotations):
        wrong.append(f"there is no annotation of {deployment.id}")
    if deployment.from_color is None or deployment.to_color is None:
        return wrong
    for color, status in ((deployment.from_color, "poweroff"), (deployment.to_color, "working")):
        host = collected.hosts.get(color)
        if host is None:
            wrong.append(f"{color} is not there any more")
        elif host.status != status:
            wrong.append(f"the host of {color} is {host.status}, not {status}")
        elif not host.of_container(CONTAINER):
            wrong.append(f"nothing is seen of {color}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
