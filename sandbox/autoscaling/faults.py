"""What can be broken about Auto Scaling groups.

| kind | what it does |
|---|---|
| cannot_launch | every launch fails, with ``message`` or for lack of capacity, until it is mended |
| never_registers | the ECS agents of the next ``count`` instances do not find their cluster |
| instance_dies | EC2 ends one instance of the group |
| scale_in, scale_out | what an alarm of a scaling policy does, ``by`` so many instances: nothing \
if AlarmNotification is suspended |

| when | the moment | of |
|---|---|---|
| now | | scale_in, scale_out |
| launching | the next instance of any group is launched | scale_in, scale_out |
| shifted | the load balancer changes who gets the traffic | scale_in, scale_out |
| registered | an instance has registered with its cluster | instance_dies |
| starting | a task was placed on an instance | instance_dies |
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.autoscaling.activities import insufficient_capacity
from sandbox.aws import ControlError
from sandbox.settings import BALANCERS

if TYPE_CHECKING:
    from sandbox.autoscaling.group import Group, Member
    from sandbox.autoscaling.scaler import Scaler
    from sandbox.ecs.instances import Instances
    from sandbox.hosts.fleet import Fleet
    from sandbox.world import World

MOMENTS = {
    "cannot_launch": ("now",),
    "never_registers": ("now",),
    "instance_dies": ("registered", "starting"),
    "scale_in": ("now", "launching", "shifted"),
    "scale_out": ("now", "launching", "shifted"),
}
"""The kinds, and when each may come; the first is what it is unless something is said."""

ALARMS = {
    "scale_in": ("cpu-low", "cpu-scale-in", -1),
    "scale_out": ("cpu-high", "cpu-scale-out", 1),
}
"""Alarm, policy and direction."""

LOG = logging.getLogger(__name__)


@dataclass
class GroupFault:
    """One fault; ``hits`` is how often it struck, ``outcome`` what came of an alarm."""

    kind: str
    group: str
    when: str = ""
    message: str | None = None
    count: int = 1
    by: int = 1
    hits: int = field(default=0, init=False)
    outcome: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.kind not in MOMENTS:
            raise ControlError(f"group kind={self.kind!r}: {', '.join(MOMENTS)}")
        moments = MOMENTS[self.kind]
        self.when = self.when or moments[0]
        if self.when not in moments:
            raise ControlError(f"group kind={self.kind} when={self.when!r}: {', '.join(moments)}")
        for name in ("count", "by"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ControlError(f"group {name}={getattr(self, name)!r}: a number from 1 on")


class GroupFaults:
    """The faults that are on or still to come; watches the scaler."""

    def __init__(
        self,
        world: World,
        fleet: Fleet,
        scaler: Scaler,
        instances: Instances,
        router: Mapping[str, Any],
    ) -> None:
        self._world = world
        self._fleet = fleet
        self._scaler = scaler
        self._instances = instances
        self._router = router
        self._lock = threading.RLock()
        self._faults: list[GroupFault] = []
        self._traffic: Hashable = None
        scaler.watcher = self

    def add(self, kind: str, group: str | None = None, **more: Any) -> None:
        """Turn a fault on, or have it come. Raises ControlError for one that makes no sense."""
        known = [one.name for one in self._scaler.groups()]
        if group is None or group not in known:
            raise ControlError(f"group={group!r}: which one? There is {', '.join(known)}")
        fault = GroupFault(kind, group, **more)
        if fault.when == "shifted" and self._router["type"] not in BALANCERS:
            raise ControlError("when=shifted: no load balancer shifts the traffic of this pattern")
        with self._lock:
            self._traffic = self._who_gets_traffic()
            self._faults.append(fault)
        if fault.kind in ALARMS and fault.when == "now":
            self._alarm(fault)

    def shown(self) -> list[dict[str, Any]]:
        """All faults since the last ``clear``."""
        with self._lock:
            return [
                {"name": "group"}
                | {key: value for key, value in asdict(fault).items() if value is not None}
                for fault in self._faults
            ]

    def clear(self) -> None:
        """Mend what can be mended: agents find their cluster, what has ended stays so."""
        with self._lock:
            self._faults.clear()
        for host in self._fleet.hosts():
            host.unregistered = False

    def describe(self) -> list[dict[str, Any]]:
        """What ``GET state`` says of the groups."""
        with self._scaler.lock:
            return [self._describe(group) for group in self._scaler.groups()]

    def _describe(self, group: Group) -> dict[str, Any]:
        return {
            "group": group.name,
            "min": group.min_size,
            "max": group.max_size,
            "desired": group.desired_capacity,
            "suspended": sorted(group.suspended),
            "load_balancers": {name: one.state for name, one in group.attachments.items()},
            "instances": [
                {
                    "id": member.id,
                    "lifecycle": member.lifecycle_state,
                    "health": member.health_status,
                    "protected": bool(member.protected_from_scale_in),
                    "launched_at": member.launched_at.isoformat(),
                    "registered": self._instances.container_instance(member.id) is not None,
                }
                for member in group.members
            ],
        }

    # ---------------------------------------------------------- sandbox.autoscaling.scaler.Watcher

    def failure(self, group: Group) -> str | None:
        """Why the launch that begins now fails."""
        fault = self._due("cannot_launch", group.name)
        if fault is None:
            return None
        with self._lock:
            fault.hits += 1
        return fault.message or insufficient_capacity(
            group.instance_type, str(group.availability_zones[0])
        )

    def launched(self, group: Group, member: Member) -> None:
        """EC2 has launched an instance."""
        fault = self._due("never_registers", group.name)
        if fault is not None and fault.hits < fault.count:
            host = self._fleet.on(member.id)
            if host is not None:
                fault.hits += 1
                host.unregistered = True
                LOG.info("fault: %s never registers", member.id)
        self._moment("launching")

    def look(self) -> None:
        """See what has happened meanwhile."""
        with self._lock:
            if not self._faults:
                return
            waiting = [one for one in self._faults if one.kind == "instance_dies" and not one.hits]
            before, self._traffic = self._traffic, self._who_gets_traffic()
            shifted = before != self._traffic
        if shifted:
            self._moment("shifted")
        for fault in waiting:
            self._kill(fault)

    def _due(self, kind: str, group: str) -> GroupFault | None:
        with self._lock:
            found = (one for one in self._faults if one.kind == kind and one.group == group)
            return next(found, None)

    # ------------------------------------------------------------------------------ what happens

    def _moment(self, when: str) -> None:
        with self._lock:
            due = [one for one in self._faults if one.when == when and not one.hits]
        for fault in due:
            self._alarm(fault)

    def _alarm(self, fault: GroupFault) -> None:
        """An alarm goes off, and its policy changes the group's size."""
        alarm, policy, direction = ALARMS[fault.kind]
        with self._scaler.lock:
            group = self._group(fault.group)
            before = group.desired_capacity
            wanted = before + direction * fault.by
            if "AlarmNotification" in group.suspended:
                fault.outcome = "nothing: AlarmNotification is suspended"
            else:
                group.want(
                    min(max(wanted, group.min_size), group.max_size),
                    f"a monitor alarm {group.name}-{alarm} in state ALARM triggered policy "
                    f"{group.name}-{policy}",
                )
                fault.outcome = f"desired capacity from {before} to {group.desired_capacity}"
            fault.hits += 1
        LOG.info("fault: %s of %s: %s", fault.kind, fault.group, fault.outcome)
        self._scaler.wake()

    def _kill(self, fault: GroupFault) -> None:
        """End one instance of the group, once there is one of which the moment has come."""
        with self._scaler.lock:
            members = list(self._group(fault.group).members)
        for member in members:
            come = (
                self._instances.tasks_on(member.id) > 0
                if fault.when == "starting"
                else self._instances.container_instance(member.id) is not None
            )
            if come and member.stays and member.ec2_state == "running":
                fault.hits += 1
                LOG.info("fault: %s of %s dies", member.id, fault.group)
                self._world.backend("ec2").terminate_instances([member.id])
                self._scaler.wake()
                return

    def _group(self, name: str) -> Group:
        return next(one for one in self._scaler.groups() if one.name == name)

    def _who_gets_traffic(self) -> Hashable:
        """Something that changes when the traffic is shifted: weights, or who is attached."""
        if self._router["type"] == "clb":
            balancer = self._world.backend("elb").load_balancers[self._router["load_balancer"]]
            ports = [int(one.instance_port) for one in list(balancer.listeners)]
            attached = [(one.name, *sorted(one.attachments)) for one in self._scaler.groups()]
            return (*ports, *attached)
        return tuple(
            str(rule.actions[0].data.get("ForwardConfig"))
            for balancer in list(self._world.backend("elbv2").load_balancers.values())
            for listener in list(balancer.listeners.values())
            if int(listener.port) == int(self._router["port"])
            for rule in list(listener.rules.values())
            if rule.actions
        )
