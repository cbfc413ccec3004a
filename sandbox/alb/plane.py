"""The data plane of the load balancers: follows moto's ELBv2 with AWS's habits.

One thread looks at listeners, rules and targets many times a second and tells HAProxy what is new:
  - a changed forward action is followed ``FOLLOW_SECONDS`` plus the fault ``propagation_lag``
    later, as accepted and effective are two moments in AWS too;
  - registered targets, health and draining are followed at once;
  - at the end of its deregistration delay a target is gone, and its connections are cut if it was
    an ALB's; an NLB cuts them only where its group says so, and when a target becomes unhealthy.
"""

from __future__ import annotations

import logging
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from sandbox.alb import network
from sandbox.alb.backend import forward_weights
from sandbox.alb.configuration import (
    NOWHERE,
    SLOTS,
    FixedResponse,
    Frontend,
    Group,
    Mode,
    Protocol,
    Rule,
    Slot,
    Structure,
    Weights,
)
from sandbox.alb.haproxy import Haproxy, HaproxyError
from sandbox.alb.health import MIN_INTERVAL_SECONDS, MIN_TIMEOUT_SECONDS, Check, HealthChecker
from sandbox.alb.targets import FAILED, CheckResult, Target, TargetKey, receiving
from sandbox.alb.traffic import Names, Traffic
from sandbox.world import World

TICK_SECONDS = 0.05
FOLLOW_SECONDS = 0.05
PASS_SECONDS = 10.0  # that a call waits for the data plane, at most

PROTOCOLS = {"HTTP": Protocol.HTTP, "TCP": Protocol.TCP}
"""What is carried: other protocols exist in the API only."""

logger = logging.getLogger(__name__)


@dataclass
class _Followed:
    """A rule's forward action: what the API says last, what the data plane does, what waits (each
    with the moment it was accepted).
    """

    seen: Weights
    effective: Weights
    waiting: deque[tuple[float, Weights]] = field(default_factory=deque)


@dataclass(frozen=True)
class _Cuts:
    """When the connections of a group's targets are cut: of an unhealthy one, of a gone one."""

    unhealthy: bool
    gone: bool


AT_THE_END = _Cuts(unhealthy=False, gone=True)
"""As an ALB does: even an unhealthy target may answer what it was asked already."""


class DataPlane:
    """All load balancers of the sandbox, on one address."""

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
        self._targets: dict[TargetKey, Target] = {}
        self._followed: dict[str, _Followed] = {}
        self._slots: dict[tuple[str, int], tuple[TargetKey | None, Slot]] = {}
        self._used: set[str] = set()
        self._cuts: dict[str, _Cuts] = {}
        self._checks: dict[TargetKey, Check] = {}
        self._checker = HealthChecker(self._record)
        requests = world.work_directory / "requests"
        self._haproxy = Haproxy(
            world.work_directory, world.log_directory / "haproxy.log", start_process, requests
        )
        self.traffic = Traffic(world, requests, self._names, self._haproxy.catch_up)
        self._thread = threading.Thread(target=self._run, name="load-balancer", daemon=True)

    def start(self) -> None:
        """Begin to follow, and to publish what is counted."""
        self._thread.start()
        self.traffic.start()

    def join(self) -> None:
        """Wait for the end; the world's ``stopping`` has to be set."""
        self._wake.set()
        self._thread.join()

    def wake(self) -> None:
        """Look now: something has changed."""
        self._wake.set()

    def register(self, key: TargetKey, address: str, *, quick: bool = True) -> None:
        """Register a target (``quick`` as in ``Target``), or take a draining one back."""
        with self._lock:
            known = self._targets.get(key)
            if known is None or known.state == "draining":
                target = self._targets[key] = Target(key, address, quick)
                if key[0] not in self._used:
                    target.use(in_use=False)
        self.wake()

    def deregister(self, key: TargetKey, delay: float) -> None:
        """Drain a target for ``delay`` seconds; one that is unused or unknown is gone at once.

        When this returns, nothing new goes there.
        """
        with self._lock:
            target = self._targets.get(key)
            if target is None or target.state == "draining":
                return
            if target.state == "unused":
                del self._targets[key]
            else:
                target.drain(time.monotonic() + delay)
        self._wait_for_pass()

    def _wait_for_pass(self) -> None:
        """Wait for a pass that began after now: HAProxy is told things by one thread only."""
        with self._passes:
            wanted = self._begun + 1
            self._wake.set()
            self._passes.wait_for(
                lambda: self._done >= wanted or self._world.stopping.is_set(), PASS_SECONDS
            )

    def describe(self, group_arn: str) -> dict[TargetKey, tuple[str, str | None, str | None]]:
        """State, reason and description of the targets of a group."""
        with self._lock:
            return {
                target.key: (target.state, target.reason, target.description)
                for target in self._targets.values()
                if target.key[0] == group_arn
            }

    def effective_weights(self) -> dict[str, dict[str, int]]:
        """What the data plane does now, by listener or rule ARN: weights by group.

        A group is its name with a dot and the last part of its ARN.
        """
        with self._lock:
            return {arn: dict(rule.effective) for arn, rule in self._followed.items()}

    def _names(self) -> Names:
        """What the dimensions of metrics say of HAProxy's frontends and backends."""
        backend = self._world.backend("elbv2")
        return Names(
            {
                _frontend_name(listener): balancer.arn.partition(":loadbalancer/")[2]
                for balancer in list(backend.load_balancers.values())
                for listener in list(balancer.listeners.values())
            },
            {_group_name(arn): arn.rpartition(":")[2] for arn in list(backend.target_groups)},
        )

    def _run(self) -> None:
        while not self._world.stopping.is_set():
            self._wake.wait(TICK_SECONDS)
            with self._passes:
                self._wake.clear()
                self._begun += 1
            try:
                self._tick()
            except (HaproxyError, OSError):
                logger.exception("the load balancer cannot follow; trying again")
                self._world.stopping.wait(1)
            with self._passes:
                self._done = self._begun
                self._passes.notify_all()
        self._checker.stop()
        self._haproxy.stop()

    def _tick(self) -> None:
        now = time.monotonic()
        backend = self._world.backend("elbv2")
        structure, actions, used = self._read(backend)
        with self._lock:
            self._follow_actions(actions, now)
            self._used = used
            self._cuts = {arn: _cuts(group) for arn, group in dict(backend.target_groups).items()}
            for key, target in list(self._targets.items()):
                target.use(in_use=key[0] in used)
                over = target.gone_at is not None and target.gone_at <= now
                if over or key[0] not in backend.target_groups:
                    del self._targets[key]
            self._assign_slots({group.name for group in structure.groups})
            slots = {place: slot for place, (_, slot) in self._slots.items()}
            usable = {group for (group, _), slot in slots.items() if slot.mode is Mode.READY}
            weights = {
                _rule_key(arn): tuple(
                    (group if group in usable else NOWHERE, weight)
                    for group, weight in rule.effective
                )
                for arn, rule in self._followed.items()
            }
            checks = self._wanted_checks(backend)
        self._haproxy.follow(structure, weights, slots)
        if checks != self._checks:
            self._checks = checks
            self._checker.follow(checks)

    def _read(self, backend: Any) -> tuple[Structure, dict[str, Weights], set[str]]:
        """Read what moto holds: the structure, the forward action of each rule, groups in use."""
        frontends: list[Frontend] = []
        actions: dict[str, Weights] = {}
        used: set[str] = set()
        idle_timeout, tcp_idle_timeout = 60, 350
        for balancer in list(backend.load_balancers.values()):
            idle_timeout = int(balancer.attrs.get("idle_timeout.timeout_seconds", idle_timeout))
            for listener in list(balancer.listeners.values()):
                if listener.protocol not in PROTOCOLS:
                    continue
                if listener.protocol == "TCP":
                    tcp_idle_timeout = int(listener.attributes["tcp.idle_timeout.seconds"])
                rules = sorted(listener.rules.values(), key=_priority)
                frontends.append(_frontend(listener, rules))
                for rule in rules:
                    weights = [w for action in rule.actions for w in forward_weights(action.data)]
                    actions[_arn(listener, rule)] = tuple((_group_name(a), w) for a, w in weights)
                    used |= {arn for arn, _ in weights}
        groups = tuple(
            Group(_group_name(group.arn), _algorithm(group), PROTOCOLS[group.protocol])
            for group in list(backend.target_groups.values())
            if group.protocol in PROTOCOLS
        )
        structure = Structure(
            self.address, tuple(frontends), groups, idle_timeout, tcp_idle_timeout
        )
        return structure, actions, used

    def _follow_actions(self, actions: dict[str, Weights], now: float) -> None:
        for arn in set(self._followed) - set(actions):
            del self._followed[arn]
        for arn, weights in actions.items():
            rule = self._followed.get(arn)
            if rule is None:  # a new listener or rule works from the start
                self._followed[arn] = _Followed(weights, weights)
                continue
            if weights != rule.seen:
                rule.seen = weights
                rule.waiting.append((now, weights))
            lag = FOLLOW_SECONDS + self._world.faults.propagation_lag
            while rule.waiting and rule.waiting[0][0] + lag <= now:
                rule.effective = rule.waiting.popleft()[1]

    def _assign_slots(self, groups: set[str]) -> None:
        """Give every target a server of its group.

        A freed server is given to the same address again if it can be, and to another one as late
        as possible: no idle connection to the old target is left then.
        """
        by_group: dict[str, list[Target]] = {}
        for target in self._targets.values():
            by_group.setdefault(target.key[0], []).append(target)
        for place, (key, slot) in list(self._slots.items()):
            if place[0] not in groups:
                del self._slots[place]
            elif key is not None and key not in self._targets:
                mode = Mode.EMPTY if self._cuts.get(key[0], AT_THE_END).gone else Mode.DRAIN
                self._slots[place] = (None, Slot(slot.address, slot.port, mode))
        held = {key: place for place, (key, _) in self._slots.items() if key is not None}
        for arn, targets in by_group.items():
            ready = receiving(targets)
            for target in targets:
                slot_place = held.get(target.key) or self._free_slot(_group_name(arn), target)
                if slot_place is None:
                    logger.error("no more than %d targets in %s", SLOTS, arn)
                    continue
                mode = Mode.READY if target.key in ready else Mode.DRAIN
                cuts = self._cuts.get(arn, AT_THE_END)
                if mode is Mode.DRAIN and target.state == "unhealthy" and cuts.unhealthy:
                    mode = Mode.EMPTY
                self._slots.pop(slot_place, None)  # the dictionary is in the order of last use
                self._slots[slot_place] = (target.key, Slot(target.address, target.port, mode))

    def _free_slot(self, group: str, target: Target) -> tuple[str, int] | None:
        free = [place for place, (key, _) in self._slots.items() if key is None]
        free = [place for place in free if place[0] == group]
        for place in free:
            slot = self._slots[place][1]
            if (slot.address, slot.port) == (target.address, target.port):
                return place
        for number in range(SLOTS):
            if (group, number) not in self._slots:
                return (group, number)
        return free[0] if free else None

    def _wanted_checks(self, backend: Any) -> dict[TargetKey, Check]:
        checks = {}
        for key, target in self._targets.items():
            group = backend.target_groups.get(key[0])
            if target.state not in ("initial", "healthy", "unhealthy") or group is None:
                continue
            port = group.health_check_port
            connects = group.health_check_protocol == "TCP"
            checks[key] = Check(
                address=target.address,
                port=target.port if port in (None, "traffic-port") else int(port),
                path=None if connects else group.health_check_path or "/",
                matcher="" if connects else group.matcher.get("HttpCode", "200"),
                interval=max(
                    MIN_INTERVAL_SECONDS,
                    int(group.health_check_interval_seconds) / self._divisor,
                ),
                timeout=max(
                    MIN_TIMEOUT_SECONDS, int(group.health_check_timeout_seconds) / self._divisor
                ),
            )
        return checks

    def _record(self, key: TargetKey, result: CheckResult) -> None:
        group = self._world.backend("elbv2").target_groups.get(key[0])
        with self._lock:
            target = self._targets.get(key)
            if target is None or group is None:
                return
            before = target.state
            if group.protocol == "TCP" and not result.healthy:
                result = CheckResult(False, *FAILED)
            target.record(
                result, int(group.healthy_threshold_count), int(group.unhealthy_threshold_count)
            )
            if target.state != before:
                self.wake()


def _arn(listener: Any, rule: Any) -> str:
    """The ARN of a rule, or of the listener for its default action."""
    return str(listener.arn if rule.is_default else rule.arn)


def _rule_key(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


def _group_name(arn: str) -> str:
    _, name, identifier = arn.rsplit("/", 2)
    return f"{name}.{identifier}"


def _priority(rule: Any) -> int:
    return 1_000_000 if rule.is_default else int(rule.priority)


def _algorithm(group: Any) -> str:
    kind = group.attributes.get("load_balancing.algorithm.type")
    return "leastconn" if kind == "least_outstanding_requests" else "roundrobin"


def _cuts(group: Any) -> _Cuts:
    if group.protocol not in network.PROTOCOLS:
        return AT_THE_END
    attributes = group.attributes
    return _Cuts(
        unhealthy=attributes["target_health_state.unhealthy.connection_termination.enabled"]
        == "true",
        gone=attributes["deregistration_delay.connection_termination.enabled"] == "true",
    )


def _frontend_name(listener: Any) -> str:
    return f"listener-{_rule_key(listener.arn)}"


def _frontend(listener: Any, rules: list[Any]) -> Frontend:
    return Frontend(
        name=_frontend_name(listener),
        port=int(listener.port),
        rules=tuple(
            Rule(_rule_key(_arn(listener, rule)), _conditions(rule), _fixed_response(rule))
            for rule in rules
        ),
        protocol=PROTOCOLS[listener.protocol],
    )


def _fixed_response(rule: Any) -> FixedResponse | None:
    for action in rule.actions:
        if action.type == "fixed-response":
            config = action.data["FixedResponseConfig"]
            return FixedResponse(
                int(config["StatusCode"]),
                config.get("ContentType", "text/plain"),
                config.get("MessageBody", ""),
            )
    return None


def _conditions(rule: Any) -> tuple[str, ...]:
    """Translate the conditions of a rule into HAProxy's; the values of one condition are ored."""
    return tuple(_condition(condition) for condition in rule.conditions)


def _condition(condition: dict[str, Any]) -> str:
    values = list(condition.get("Values", []))
    for config in ("PathPatternConfig", "HostHeaderConfig", "HttpHeaderConfig"):
        values += condition.get(config, {}).get("Values", [])
    values += condition.get("HttpRequestMethodConfig", {}).get("Values", [])
    patterns = " ".join(f"'{_pattern(value)}'" for value in values)
    match condition["Field"]:
        case "path-pattern":
            return f"path -m reg {patterns}"
        case "host-header":
            return f"hdr(host),field(1,:) -m reg -i {patterns}"
        case "http-header":
            name = condition["HttpHeaderConfig"]["HttpHeaderName"]
            return f"req.hdr({name}) -m reg -i {patterns}"
        case "http-request-method":
            return f"method -m reg {patterns}"
        case other:
            logger.warning("the sandbox does not know the condition %s: it never matches", other)
            return "always_false"


def _pattern(value: str) -> str:
    """Translate ELB's wildcards (``*``, ``?``) into a regular expression without quotes."""
    parts = {"*": ".*", "?": ".", "'": r"\x27"}
    return "^" + "".join(parts.get(c) or re.escape(c) for c in value) + "$"
