"""The data plane of the classic load balancers: follows moto's ELB with AWS's habits.

One thread looks at listeners, health checks and instances many times a second and tells HAProxy
what is new:
  - a new listener takes connections ``CREATE_SECONDS`` plus the fault ``propagation_lag`` after it
    was accepted; one that is deleted refuses them when the call returns;
  - each port of the instances that a listener sends to is a group of HAProxy's, with all instances
    that are InService;
  - HTTP goes to the instance with the fewest requests in flight, TCP to one after the other.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from moto.elb.models import FakeListener, LoadBalancer

from sandbox.alb.configuration import (
    NOWHERE,
    SLOTS,
    Frontend,
    Group,
    Mode,
    Protocol,
    Rule,
    Slot,
    Structure,
    Weights,
)
from sandbox.alb.haproxy import Haproxy, HaproxyError, Place
from sandbox.alb.health import MIN_INTERVAL_SECONDS, MIN_TIMEOUT_SECONDS, Check, HealthChecker
from sandbox.alb.targets import CheckResult, TargetKey
from sandbox.clb.backend import draining_seconds, parse_target
from sandbox.clb.instances import Instance, Key, Shown, State
from sandbox.world import World

TICK_SECONDS = 0.05
CREATE_SECONDS = 0.2
PASS_SECONDS = 10.0  # that a call waits for the data plane, at most
CARRIED = {("HTTP", "HTTP"): Protocol.HTTP, ("TCP", "TCP"): Protocol.TCP}
"""Protocols, of a listener and towards the instances: others exist in the API only."""

ALGORITHMS = {Protocol.HTTP: "leastconn", Protocol.TCP: "roundrobin"}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Open:
    """A listener that takes connections."""

    balancer: str
    port: int
    instance_port: int
    protocol: Protocol

    @property
    def name(self) -> str:
        """Of the frontend, and of its rule."""
        return f"{self.balancer}-{self.port}-{self.instance_port}"

    @property
    def group(self) -> str:
        return f"{self.balancer}.{self.instance_port}.{self.protocol}"


class DataPlane:
    """All classic load balancers of the sandbox, on one address."""

    def __init__(
        self,
        world: World,
        start_process: Callable[[Sequence[str], IO[bytes]], subprocess.Popen[bytes]],
        interval_divisor: float,
    ) -> None:
        self.address = world.load_balancer_address
        self._world = world
        self._divisor = interval_divisor
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._passes = threading.Condition()
        self._begun = 0
        self._done = 0
        self._instances: dict[Key, Instance] = {}
        self._accepted: dict[int, tuple[FakeListener, float]] = {}  # by id(), with the moment
        self._open: tuple[_Open, ...] = ()
        self._slots: dict[Place, tuple[Key | None, Slot]] = {}
        self._checks: dict[TargetKey, Check] = {}
        self._checker = HealthChecker(self._record)
        directory = world.work_directory / "clb"
        directory.mkdir(exist_ok=True)
        self._haproxy = Haproxy(
            directory, world.log_directory / "haproxy-classic.log", start_process
        )
        self._thread = threading.Thread(target=self._run, name="classic-balancer", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end; the world's ``stopping`` has to be set."""
        self._wake.set()
        self._thread.join()

    def wake(self) -> None:
        """Look now: something has changed."""
        self._wake.set()

    def pass_once(self) -> None:
        """Wait for a pass that began after now: HAProxy is told things by one thread only."""
        with self._passes:
            wanted = self._begun + 1
            self._wake.set()
            self._passes.wait_for(
                lambda: self._done >= wanted or self._world.stopping.is_set(), PASS_SECONDS
            )

    def find_instance(self, instance_id: str) -> Any:
        """The EC2 instance, or None."""
        return self._world.backend("ec2").get_instance_by_id(instance_id)

    def register(self, key: Key, address: str) -> None:
        """Register an instance, or take a draining one back."""
        with self._lock:
            known = self._instances.get(key)
            if known is None or known.state is State.DRAINING:
                self._instances[key] = Instance(key, address)
        self.wake()

    def deregister(self, key: Key, seconds: float) -> None:
        """Drain an instance for at most ``seconds``; one that is not InService is gone at once."""
        with self._lock:
            known = self._instances.get(key)
            if known is None or known.state is State.DRAINING:
                return
            if known.state is State.HEALTHY and seconds:
                known.drain(time.monotonic() + seconds)
            else:
                del self._instances[key]

    def shown(self, key: Key) -> Shown | None:
        """State, reason and description of an instance; None when it is not registered."""
        with self._lock:
            known = self._instances.get(key)
            return known.shown if known else None

    def is_draining(self, key: Key) -> bool:
        """Whether it was deregistered and still has something to finish."""
        with self._lock:
            known = self._instances.get(key)
            return known is not None and known.state is State.DRAINING

    def open_listeners(self) -> dict[str, dict[int, int]]:
        """What takes connections now: ports of the instances by port, by load balancer."""
        result: dict[str, dict[int, int]] = {}
        for listener in self._open:
            result.setdefault(listener.balancer, {})[listener.port] = listener.instance_port
        return result

    def _run(self) -> None:
        while not self._world.stopping.is_set():
            self._wake.wait(TICK_SECONDS)
            with self._passes:
                self._wake.clear()
                self._begun += 1
            try:
                self._tick()
            except (HaproxyError, OSError):
                logger.exception("the classic load balancer cannot follow; trying again")
                self._world.stopping.wait(1)
            with self._passes:
                self._done = self._begun
                self._passes.notify_all()
        self._checker.stop()
        self._haproxy.stop()

    def _tick(self) -> None:
        now = time.monotonic()
        balancers: dict[str, LoadBalancer] = dict(self._world.backend("elb").load_balancers)
        sessions = self._haproxy.sessions() if self._any_draining() else {}
        with self._lock:
            self._open = self._followed(balancers, now)
            for key, instance in list(self._instances.items()):
                if self._has_gone(instance, balancers, sessions, now):
                    del self._instances[key]
            self._assign_slots(balancers)
            slots = {place: slot for place, (_, slot) in self._slots.items()}
            checks = self._wanted_checks(balancers)
        usable = {group for (group, _), slot in slots.items() if slot.mode is Mode.READY}
        weights: dict[str, Weights] = {
            listener.name: ((listener.group if listener.group in usable else NOWHERE, 1),)
            for listener in self._open
        }
        self._haproxy.follow(self._structure(balancers), weights, slots)
        if checks != self._checks:
            self._checks = checks
            self._checker.follow(checks)

    def _followed(self, balancers: dict[str, LoadBalancer], now: float) -> tuple[_Open, ...]:
        """The listeners that have been there for long enough."""
        accepted: dict[int, tuple[FakeListener, float]] = {}
        result = []
        lag = CREATE_SECONDS + self._world.faults.propagation_lag
        for name, balancer in balancers.items():
            for listener in list(balancer.listeners):
                since = self._accepted.get(id(listener), (listener, now))[1]
                accepted[id(listener)] = (listener, since)
                protocol = CARRIED.get((listener.protocol, listener.instance_protocol))
                if protocol is None or now < since + lag:
                    continue
                ports = int(listener.load_balancer_port), int(listener.instance_port)
                result.append(_Open(name, *ports, protocol))
        self._accepted = accepted
        return tuple(result)

    def _structure(self, balancers: dict[str, LoadBalancer]) -> Structure:
        frontends = tuple(
            Frontend(one.name, one.port, (Rule(one.name, ()),), one.protocol) for one in self._open
        )
        groups = {
            one.group: Group(one.group, ALGORITHMS[one.protocol], one.protocol)
            for one in self._open
        }
        timeouts = [_idle_timeout(balancer) for balancer in balancers.values()]
        timeout = max(timeouts, default=60)
        return Structure(self.address, frontends, tuple(groups.values()), timeout, timeout)

    def _any_draining(self) -> bool:
        with self._lock:
            return any(one.state is State.DRAINING for one in self._instances.values())

    def _has_gone(
        self,
        instance: Instance,
        balancers: dict[str, LoadBalancer],
        sessions: dict[Place, int],
        now: float,
    ) -> bool:
        """Whether it has drained, has been terminated, or its load balancer is gone."""
        name, instance_id = instance.key
        if name not in balancers:
            return True
        found = self.find_instance(instance_id)
        if found is None or found.state == "terminated":
            ids = balancers[name].instance_sparse_ids
            if instance_id in ids:
                ids.remove(instance_id)
            return True
        if instance.gone_at is None:
            return False
        mine = [place for place, (key, _) in self._slots.items() if key == instance.key]
        told = all(self._slots[place][1].mode is Mode.DRAIN for place in mine)
        idle = told and not any(sessions.get(place) for place in mine)
        return instance.gone_at <= now or idle

    def _assign_slots(self, balancers: dict[str, LoadBalancer]) -> None:
        """Give every instance a server in each group of its load balancer.

        The server of an instance that has gone is given away as late as possible.
        """
        groups = {one.group: one for one in self._open}
        for place, (key, slot) in list(self._slots.items()):
            if place[0] not in groups:
                del self._slots[place]
            elif key is not None and key not in self._instances:
                self._slots[place] = (None, Slot(slot.address, slot.port, Mode.EMPTY))
        held = {(key, place[0]): place for place, (key, _) in self._slots.items() if key}
        for instance in self._instances.values():
            name = instance.key[0]
            draining = draining_seconds(balancers[name]) > 0
            for group in [group for group, one in groups.items() if one.balancer == name]:
                free = held.get((instance.key, group)) or self._free_place(group)
                if free is None:
                    logger.error("no more than %d instances in %s", SLOTS, name)
                    continue
                slot = Slot(
                    instance.address, groups[group].instance_port, instance.mode(draining=draining)
                )
                self._slots.pop(free, None)  # the dictionary is in the order of last use
                self._slots[free] = (instance.key, slot)

    def _free_place(self, group: str) -> Place | None:
        for number in range(SLOTS):
            if (group, number) not in self._slots:
                return (group, number)
        return next(
            (p for p, (key, _) in self._slots.items() if p[0] == group and key is None), None
        )

    def _wanted_checks(self, balancers: dict[str, LoadBalancer]) -> dict[TargetKey, Check]:
        checks: dict[TargetKey, Check] = {}
        for (name, instance_id), instance in self._instances.items():
            wanted = balancers[name].health_check
            if instance.state is State.DRAINING or wanted is None:
                continue
            port, path = parse_target(wanted.target)
            checks[name, instance_id, 0] = Check(
                address=instance.address,
                port=port,
                path=path,
                matcher="200",
                interval=max(MIN_INTERVAL_SECONDS, int(wanted.interval) / self._divisor),
                timeout=max(MIN_TIMEOUT_SECONDS, int(wanted.timeout) / self._divisor),
            )
        return checks

    def _record(self, key: TargetKey, result: CheckResult) -> None:
        balancer = self._world.backend("elb").load_balancers.get(key[0])
        with self._lock:
            instance = self._instances.get(key[:2])
            if instance is None or balancer is None:
                return
            before = instance.state
            instance.record(
                passed=result.healthy,
                healthy_threshold=int(balancer.health_check.healthy_threshold),
                unhealthy_threshold=int(balancer.health_check.unhealthy_threshold),
            )
            if instance.state is not before:
                self.wake()


def _idle_timeout(balancer: LoadBalancer) -> int:
    settings = balancer.attributes["connection_settings"]
    return int(settings.get("IdleTimeout") or settings.get("idle_timeout") or 60)
