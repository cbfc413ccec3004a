"""All container instances: they come with EC2's instances and go with them."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sandbox.aws import ControlError
from sandbox.ecs.instances import Instances
from sandbox.hosts.host import Host
from sandbox.hosts.machine import Machine, install_programs
from sandbox.hosts.setup import Setup
from sandbox.processes import ProcessRuntime
from sandbox.settings import MAX_HOSTS, SandboxError
from sandbox.ssm.model import Node
from sandbox.world import World

CLUSTER = re.compile(r"ECS_CLUSTER=(\S+)")
BOOT_SECONDS = 60.0
COLORS = ("blue", "green")


class Fleet:
    """The hosts by EC2 instance id, also those that are over.

    An instance whose user data sets ECS_CLUSTER becomes a host: its agents start as on AWS's
    ECS-optimised images. ``setup`` is what else its boot installs, ``environment`` what programs
    on it find besides.
    """

    def __init__(
        self,
        world: World,
        runtime: ProcessRuntime,
        instances: Instances,
        setup: Setup | None,
        environment: Mapping[str, str],
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._instances = instances
        self._setup = setup
        self._environment = environment
        self._lock = threading.Lock()
        self._hosts: dict[str, Host] = {}
        self._numbers = deque(range(1, MAX_HOSTS + 1))
        install_programs(world.work_directory, with_proxy=setup is not None)

    def hosts(self) -> list[Host]:
        """All of them, in the order in which they were launched."""
        with self._lock:
            return list(self._hosts.values())

    def nodes(self) -> Sequence[Node]:
        """The instances that SSM may know."""
        return self.hosts()

    def on(self, instance_id: str) -> Host | None:
        """The host that an EC2 instance is; None when it is none of ours."""
        return self._hosts.get(instance_id)

    def host(self, number: int) -> Host:
        """The newest host with this last part of its address; raises KeyError."""
        for host in reversed(self.hosts()):
            if host.number == number:
                return host
        raise KeyError(number)

    def launched(self, instance: Any) -> None:
        """EC2 has launched an instance: give it an address, and boot it if it is one of ours."""
        script = base64.b64decode(str(instance.user_data or "")).decode()
        cluster = CLUSTER.search(script)
        if cluster is None:
            return
        with self._lock:
            address = f"{self._world.network}.{self._free_number()}"
            for interface in instance.nics.values():
                interface.private_ip_address = address
                interface.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
            machine = Machine(self._world, self._runtime, instance.id, address, self._environment)
            host = Host(self._world, machine, instance, cluster[1], self._instances, self._setup)
            self._hosts[instance.id] = host
        host.boot()

    def _free_number(self) -> int:
        """One that was never used, then the one that has been free for the longest time."""
        used = {host.number for host in self._hosts.values() if not host.ended}
        for _ in range(MAX_HOSTS):
            self._numbers.rotate(-1)
            if self._numbers[-1] not in used:
                return self._numbers[-1]
        raise SandboxError(f"the network has no room for more than {MAX_HOSTS} hosts")

    def terminated(self, instance_ids: Sequence[str]) -> None:
        """EC2 has ended instances."""
        for instance_id in instance_ids:
            host = self._hosts.get(instance_id)
            if host is not None:
                host.die()
                self._instances.terminated(instance_id)

    def change_weights(self, weights: Mapping[str, int], number: int | None) -> None:
        """Switch all hosts, or one, past the workflow: what somebody at their shells would do.

        Raises ControlError when a host does not take it.
        """
        for host in self.hosts():
            if host.proxy_running and number in (None, host.number):
                self._change_weights(host, weights)

    def _change_weights(self, host: Host, weights: Mapping[str, int]) -> None:
        now = time.time()
        before = self._report(host).get("weights") or {}
        expected = ":".join(str(before[color]) for color in COLORS) if before else "none"
        wanted = [part for color in COLORS for part in (f"--{color}", str(weights.get(color, 0)))]
        result = host.ask(
            *("commit", "--generation", str(int(now * 1000)), *wanted, "--expected", expected),
            *("--at", f"{now:.3f}", "--not-after", f"{now + 10:.3f}"),
        )
        if result is None or result.code != 0:
            answer = result.output.strip() if result is not None else "it is down"
            raise ControlError(f"host {host.number} does not change its weights: {answer}")

    @staticmethod
    def _report(host: Host) -> dict[str, Any]:
        """What the host program reports; empty when there is nobody to ask."""
        result = host.ask("report") if host.proxy_running else None
        return json.loads(result.output) if result is not None and result.output else {}

    def wait_until_booted(self) -> None:
        """Wait for every host that boots now. Raises SandboxError when one does not come up."""
        for host in self.hosts():
            if not host.booted.wait(BOOT_SECONDS) and host.state != "dead":
                raise SandboxError(
                    f"host {host.address} does not boot: {host.problem or host.machine.log}"
                )

    def join(self) -> None:
        """Wait for the end of all; the world's ``stopping`` has to be set."""
        for host in self.hosts():
            host.join()

    def describe(self) -> list[dict[str, Any]]:
        """What ``GET state`` says of the hosts; generation and weights as each proxy says."""
        with ThreadPoolExecutor() as pool:
            return list(pool.map(self._describe, self.hosts()))

    def _describe(self, host: Host) -> dict[str, Any]:
        ec2 = self._world.backend("ec2").get_instance_by_id(host.instance_id)
        facts: dict[str, Any] = {
            "host": host.number,
            "address": host.address,
            "instance": host.instance_id,
            "ec2": ec2.state,
            "state": host.state,
        }
        if self._setup is None:
            return facts
        facts["proxy"] = "running" if host.proxy_running else "stopped"
        report = self._report(host)
        facts["generation"] = report.get("generation")
        facts["weights"] = report.get("weights")
        if "error" in report:
            facts["error"] = report["error"]
        return facts
