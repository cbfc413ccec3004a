"""Managed scaling: what ECS makes of the groups of capacity providers.

AWS's habits:
  - tasks that find no room launch another host, hosts that have had no task for a while end;
  - both are alarms of the group: nothing happens while AlarmNotification is suspended, and what is
    still so when it is resumed happens then; MinSize and MaxSize are kept;
  - with managed termination protection a host with tasks is protected from scale-in, and one
    without is not when the group is to shrink.

Minutes become seconds (AWS: 1 and 15 minutes), and hosts come one at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.autoscaling.group import Group
    from sandbox.autoscaling.scaler import Scaler
    from sandbox.ecs.instances import Instances
    from sandbox.ecs.model import State
    from sandbox.world import World

TICK_SECONDS = 0.2
HIGH_SECONDS = 0.5
LOW_SECONDS = 1.0

LOG = logging.getLogger(__name__)


class ManagedScaling:
    """The thread that is ECS's alarms on the groups."""

    def __init__(self, world: World, state: State, instances: Instances, scaler: Scaler) -> None:
        self._world = world
        self._state = state
        self._instances = instances
        self._scaler = scaler
        self._since: dict[tuple[str, str], float] = {}
        self._thread = threading.Thread(target=self._run, name="managed-scaling", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end; the world's ``stopping`` has to be set."""
        self._thread.join()

    def _run(self) -> None:
        while not self._world.stopping.wait(TICK_SECONDS):
            for cluster, provider, group in list(self._managed()):
                try:
                    self._tick(cluster, provider, group)
                except Exception:
                    LOG.exception("capacity provider %s", provider.name)

    def _managed(self) -> Iterator[tuple[Any, Any, Group]]:
        """Cluster, provider and group of each that has managed scaling."""
        ecs = self._world.backend("ecs")
        groups = {group.arn: group for group in self._scaler.groups()}
        for cluster in list(ecs.clusters.values()):
            for name in list(cluster.capacity_providers or []):
                provider = ecs.capacity_providers.get(name)
                settings = provider.auto_scaling_group_provider if provider else {}
                group = groups.get(settings.get("autoScalingGroupArn"))
                if group and settings["managedScaling"]["status"] == "ENABLED":
                    yield cluster, provider, group

    def _tick(self, cluster: Any, provider: Any, group: Group) -> None:
        waiting = self._tasks_without_host(cluster, provider.name)
        busy = {one.id for one in list(group.members) if self._instances.tasks_on(one.id)}
        settings = provider.auto_scaling_group_provider
        with self._scaler.lock:
            if settings["managedTerminationProtection"] == "ENABLED":
                for member in group.members:
                    if member.id in busy and member.lifecycle_state == "InService":
                        member.protected_from_scale_in = True
            wanted = group.desired_capacity
            starting = any(
                member.lifecycle_state.startswith("Pending")
                or self._instances.container_instance(member.id) is None
                for member in group.members
                if member.stays
            )
            high = self._lasts(group, "AlarmHigh", bool(waiting) and not starting, HIGH_SECONDS)
            low = self._lasts(group, "AlarmLow", not waiting and len(busy) < wanted, LOW_SECONDS)
            if "AlarmNotification" in group.suspended:
                return
            if high:
                self._want(group, wanted + 1, "AlarmHigh")
            elif low:
                for member in group.members:
                    if member.id not in busy:
                        member.protected_from_scale_in = False
                self._want(group, len(busy), "AlarmLow")

    def _tasks_without_host(self, cluster: Any, provider: str) -> int:
        with self._state.lock:
            services = [
                one
                for one in self._state.services.values()
                if one.cluster_arn == cluster.arn
                and one.status == "ACTIVE"
                and any(
                    used["capacityProvider"] == provider
                    for used in one.settings["capacityProviderStrategy"]
                )
            ]
            return sum(
                max(0, one.desired_count - sum(task.active for task in self._state.tasks_of(one)))
                for one in services
            )

    def _lasts(self, group: Group, alarm: str, holds: bool, seconds: float) -> bool:
        """Whether something has been so for that long."""
        if not holds:
            self._since.pop((group.name, alarm), None)
            return False
        now = time.monotonic()
        return now - self._since.setdefault((group.name, alarm), now) >= seconds

    def _want(self, group: Group, capacity: int, alarm: str) -> None:
        before = group.desired_capacity
        group.want(
            min(max(capacity, group.min_size), group.max_size),
            f"a monitor alarm TargetTracking-{group.name}-{alarm} in state ALARM triggered policy "
            "ECSManagedAutoScalingPolicy",
        )
        if group.desired_capacity != before:
            LOG.info("%s: %s from %s to %s", alarm, group.name, before, group.desired_capacity)
            self._since.pop((group.name, alarm), None)
            self._scaler.wake()
