"""The life of one container instance: it boots, runs its proxy, reboots, ends.

The order of a boot is AWS's: the SSM agent registers, the host program has been set up (on AWS by
the install document), the ECS agent registers, then the proxy gets what the SSM parameter says
(``restore``) and starts. What systemd does there is done here: a unit that failed is tried again, a
proxy that ended is started again.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.ecs.instances import Instances
from sandbox.hosts.introspection import Introspection
from sandbox.hosts.machine import Machine, Result, end
from sandbox.hosts.setup import Setup
from sandbox.ssm.documents import Script
from sandbox.ssm.model import Ran
from sandbox.world import World

PENDING_SECONDS = 0.8
"""From the launch of an instance to the moment at which EC2 says that it runs."""
REGISTER_SECONDS = 0.2
RETRY_SECONDS = 1.0
POLL_SECONDS = 0.05
REBOOT_SECONDS = 1.0
ONLINE_SECONDS = 20.0
"""How long after its last sign of life an agent counts as online (AWS: five minutes)."""
PROGRAM_SECONDS = 60.0
PENDING, RUNNING = ("pending", 0), ("running", 16)

LOG = logging.getLogger(__name__)


class Host:
    """One container instance; ``boot`` begins its life, in a thread of its own.

    ``instance`` is moto's EC2 instance, ``cluster`` the name of the ECS cluster it belongs to.
    ``silent`` is an SSM agent that does nothing, ``unregistered`` an ECS agent that does not find
    its cluster.
    """

    def __init__(
        self,
        world: World,
        machine: Machine,
        instance: Any,
        cluster: str,
        instances: Instances,
        setup: Setup | None,
    ) -> None:
        self._world = world
        self._machine = machine
        self._instance = instance
        self._cluster = cluster
        self._instances = instances
        self._setup = setup
        self._introspection: Introspection | None = None
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._configured = False
        self._last_ping = datetime.now(UTC)
        self._agent_up = False
        self._over = threading.Event()
        self._rebooting = threading.Event()
        self._lock = threading.RLock()
        self._registered_at: datetime | None = None
        self.silent = False
        self.unregistered = False
        self.problem = ""
        self.booted = threading.Event()
        self._thread = threading.Thread(
            target=self._live, name=f"host-{machine.address}", daemon=True
        )

    # ----------------------------------------------------------------- what SSM knows of a node

    @property
    def instance_id(self) -> str:
        """Of EC2."""
        return str(self._instance.id)

    @property
    def address(self) -> str:
        """Its address, which is also where everything on it listens."""
        return self._machine.address

    @property
    def registered_at(self) -> datetime | None:
        """Since when its SSM agent is known."""
        return self._registered_at

    @property
    def listening(self) -> bool:
        """Whether its SSM agent takes commands."""
        return self._agent_up and not self.silent and not self._over.is_set()

    @property
    def pinged_at(self) -> datetime:
        """When its SSM agent was last heard of."""
        if self.listening:
            self._last_ping = datetime.now(UTC)
        return self._last_ping

    @property
    def online(self) -> bool:
        """Whether SSM believes that the agent is there."""
        return (datetime.now(UTC) - self.pinged_at).total_seconds() < ONLINE_SECONDS

    @property
    def terminated(self) -> bool:
        """Whether EC2 says so."""
        return bool(self._instance.state not in ("pending", "running"))

    def execute(self, script: Script) -> Ran | None:
        """Run a script of a document as the SSM agent does: with sh."""
        result = self._machine.run(["sh", "-c", script.text], script.timeout)
        return None if result is None else Ran(result.code, result.output, result.errors)

    # ---------------------------------------------------------------------------------- its life

    @property
    def number(self) -> int:
        """By which people name it: the last part of its address."""
        return int(self.address.rpartition(".")[2])

    @property
    def machine(self) -> Machine:
        """What its programs run on."""
        return self._machine

    @property
    def place(self) -> Path:
        """The directory of its service."""
        assert self._setup is not None
        return self._machine.home / self._setup.service

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left."""
        return self._over.is_set() and not self._thread.is_alive()

    @property
    def state(self) -> str:
        """``booting``, ``running``, ``rebooting`` or ``dead``."""
        if self._over.is_set():
            return "dead"
        if self._rebooting.is_set():
            return "rebooting"
        return "running" if self.booted.is_set() else "booting"

    @property
    def proxy_running(self) -> bool:
        """Whether there is a process of the proxy."""
        proxy = self._programs.get("run")
        return proxy is not None and proxy.poll() is None

    def boot(self) -> None:
        """Begin to live; EC2 says ``pending`` at first."""
        self._instance._state.name, self._instance._state.code = PENDING
        self._thread.start()

    def die(self) -> None:
        """Everything on it ends at once, and nothing starts any more."""
        with self._lock:
            self._halt()  # before its thread ends, with which the first of its processes would
            self._over.set()

    def reboot(self) -> None:
        """Everything on it ends; it boots again with what its directory holds."""
        with self._lock:
            if self._over.is_set():
                return
            self._rebooting.set()
            self.booted.clear()
            self._halt()

    def restart_proxy(self) -> None:
        """End the proxy as its unit does; ``_keep`` starts it again."""
        if self.proxy_running:
            self._programs["run"].terminate()

    def join(self) -> None:
        """End it and wait for that; the world's ``stopping`` has to be set."""
        self.die()
        self._thread.join()

    def ask(self, *arguments: str) -> Result | None:
        """Run the host program with its service; None when the host is down."""
        assert self._setup is not None
        command = ["ecs-bluegreen-host", arguments[0], "--service", self._setup.service]
        return self._machine.run([*command, *arguments[1:]], PROGRAM_SECONDS)

    def _halt(self) -> None:
        self._agent_up = False
        if self._introspection is not None:
            self._introspection.close()
            self._introspection = None
        self._instances.disconnect(self.instance_id)
        self._machine.halt()

    def _live(self) -> None:
        self._pause(PENDING_SECONDS)
        with self._lock:
            if not self._over.is_set():
                self._instance._state.name, self._instance._state.code = RUNNING
        while not self._over.is_set() and not self._world.stopping.is_set():
            try:
                self._boot()
                self._keep()
            except Exception:
                LOG.exception("host %s", self.address)
                self._pause(RETRY_SECONDS)
            if self._rebooting.is_set():
                self._pause(REBOOT_SECONDS)
                self._rebooting.clear()
        self.die()

    def _boot(self) -> None:
        began = time.monotonic()
        with self._lock:
            if self._over.is_set():
                return
            self._machine.boot()
        if self._setup is not None:
            # It holds the id of the boot, which a reboot here does not change.
            (self.place / "restored").unlink(missing_ok=True)
        self._pause(REGISTER_SECONDS)
        with self._lock:
            self._agent_up = self._lives()
        self._registered_at = self._registered_at or datetime.now(UTC)
        if self._setup is not None and not self._configured:
            self._configure(self._setup)
        if not self.unregistered:
            self._start_ecs_agent()
        if self._setup is not None:
            while self._lives() and not self._succeeds("restore"):
                self._pause(RETRY_SECONDS)
            if self._lives():
                self._start_programs(self._setup)
            while self._lives() and not self._listens(self._setup.port):
                self._pause(POLL_SECONDS)
        if self._lives():
            self.booted.set()
            LOG.info("host %s is up after %.1f s", self.address, time.monotonic() - began)

    def _configure(self, setup: Setup) -> None:
        own = ["--address", self.address, "--bind", self.address]
        while self._lives() and not self._succeeds("configure", *setup.arguments, *own):
            self._pause(RETRY_SECONDS)
        self._configured = True

    def _start_ecs_agent(self) -> None:
        def tasks() -> list[dict[str, Any]]:
            return self._instances.agent_tasks(self.instance_id)

        with self._lock:
            if not self._lives():
                return
            self._introspection = agent = Introspection(self.address, self._cluster, tasks)
        arn = self._instances.register(self._cluster, self.instance_id)
        with self._lock:
            if self._lives():
                agent.registered(arn)
            else:
                self._instances.disconnect(self.instance_id)

    def _start_programs(self, setup: Setup) -> None:
        """Start what is not running of the resident programs."""
        for name in ("run", "watch") if setup.dynamic else ("run",):
            before = self._programs.get(name)
            if before is not None:
                if before.poll() is None:
                    continue
                end(before)  # what it has left behind
            process = self._machine.start(["ecs-bluegreen-host", name, "--service", setup.service])
            if process is not None:
                LOG.info("host %s: %s is started", self.address, name)
                self._programs[name] = process

    def _keep(self) -> None:
        """Start again what ended by itself, until the host is not up any more."""
        while self._lives():
            if self._setup is not None:
                self._start_programs(self._setup)
            if self._introspection is None and not self.unregistered:
                self._start_ecs_agent()
            self._pause(POLL_SECONDS)

    def _listens(self, port: int) -> bool:
        try:
            socket.create_connection((self.address, port), timeout=1).close()
        except OSError:
            return False
        return True

    def _lives(self) -> bool:
        return not (
            self._over.is_set() or self._rebooting.is_set() or self._world.stopping.is_set()
        )

    def _succeeds(self, *arguments: str) -> bool:
        result = self.ask(*arguments)
        if result is not None and result.code != 0:
            self.problem = f"{arguments[0]}: {result.output.strip()}"
            LOG.warning("host %s: %s", self.address, self.problem)
        return result is not None and result.code == 0

    def _pause(self, seconds: float) -> None:
        """Sleep, but not longer than the host lives."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._over.is_set():
            if self._world.stopping.wait(min(POLL_SECONDS, until - time.monotonic())):
                return
