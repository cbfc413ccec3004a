"""The thread that makes the instances of every group what its sizes say.

AWS's habits:
  - an instance is Pending until EC2 says that it runs, then InService; its ECS agent registers
    later, on its own;
  - a launch that fails is tried again, again and again, each time as an activity of its own;
  - an instance that goes is first taken from the load balancers of the group, and ends when its
    connections have drained;
  - fewer are terminated than wanted when the others are protected from scale-in: the group stays
    larger, and an activity says so;
  - an instance that EC2 says is gone is unhealthy, and replaced unless ReplaceUnhealthy is
    suspended; HealthCheck suspended: nobody notices.

Times are shortened: AWS takes minutes for what takes seconds here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from moto.autoscaling.models import LifecycleHook
from moto.core.exceptions import ServiceException

from sandbox.autoscaling.activities import PROTECTED, Activity, chain, sentence
from sandbox.autoscaling.group import Group, Member
from sandbox.settings import SandboxError
from sandbox.world import World

TICK_SECONDS = 0.1
RETRY_SECONDS = 1.0
ATTACH_SECONDS = 0.3
END_SECONDS = 0.5
SETTLE_SECONDS = 60.0
MAX_ACTIVITIES = 500  # AWS: those of six weeks
LAUNCHING, TERMINATING = (
    "autoscaling:EC2_INSTANCE_LAUNCHING",
    "autoscaling:EC2_INSTANCE_TERMINATING",
)

LOG = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who is told of what the scaler does, and may spoil it."""

    def failure(self, group: Group) -> str | None:
        """Why the launch that begins now fails; None when it does not."""

    def launched(self, group: Group, member: Member) -> None:
        """EC2 has launched an instance; it is still Pending."""

    def look(self) -> None:
        """Time has passed."""


class Scaler:
    """Launches and terminates; ``lock`` guards everything about the groups."""

    def __init__(self, world: World) -> None:
        self.lock = threading.RLock()
        self.watcher: Watcher | None = None
        self._world = world
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="auto-scaling", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end; the world's ``stopping`` has to be set."""
        self._wake.set()
        self._thread.join()

    def wake(self) -> None:
        """Something has changed."""
        self._wake.set()

    def groups(self) -> list[Group]:
        """All groups."""
        return list(self._world.backend("autoscaling").autoscaling_groups.values())

    def wait_until_settled(self) -> None:
        """Wait until each group has what it wants. Raises SandboxError when it takes too long."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not all(_settled(group) for group in self.groups()):
            if time.monotonic() > deadline:
                raise SandboxError("the instances of an Auto Scaling group do not come up")
            time.sleep(TICK_SECONDS)

    def member(self, instance_id: str) -> tuple[Group, Member] | None:
        """The group that an instance is in."""
        for group in self.groups():
            for member in group.members:
                if member.id == instance_id:
                    return group, member
        return None

    def forget(self, instance_id: str) -> None:
        """Make a group smaller by an instance that is about to end past it."""
        with self.lock:
            found = self.member(instance_id)
            if found is None:
                return
            group, member = found
            group.members.remove(member)
            group.min_size = min(group.min_size, group.desired_capacity - 1)
            group.desired_capacity = group.desired_capacity - 1

    def take_out(self, group: Group, member: Member, *causes: str) -> None:
        """Begin to terminate an instance; the lock is held."""
        if not member.stays:
            return
        if member.activity.status == "InProgress":
            member.activity.cancel()
        member.activity = self._begin(
            group, f"Terminating EC2 instance: {member.id}", chain(*causes), member
        )
        member.lifecycle_state = "Terminating"
        for place in sorted(member.registered):
            self._deregister(place, member)
        self._wake.set()

    def _run(self) -> None:
        while not self._world.stopping.is_set():
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
            for group in self.groups():
                try:
                    with self.lock:
                        self._tick(group)
                except Exception:
                    LOG.exception("group %s", group.name)
            try:
                if self.watcher is not None:
                    self.watcher.look()
            except Exception:
                LOG.exception("faults of groups")

    def _tick(self, group: Group) -> None:
        for member in list(group.members):
            self._advance(group, member)
        missing = group.desired_capacity - sum(member.stays for member in group.members)
        if missing < 0 and "Terminate" not in group.suspended:
            self._shrink(group, -missing)
        if missing > 0 and "Launch" not in group.suspended:
            self._grow(group, missing)
        self._balance(group)

    # ------------------------------------------------------------------------------ the instances

    def _advance(self, group: Group, member: Member) -> None:
        """Do what is due for one instance."""
        match member.lifecycle_state:
            case "Pending":
                self._start(group, member)
            case "Pending:Wait":
                if member.hook_says == "ABANDON":
                    self.take_out(group, member, sentence(f"instance {member.id} was abandoned"))
                elif member.hook_says == "CONTINUE":
                    self._serve(member)
            case "InService":
                self._examine(group, member)
            case "Terminating":
                self._leave(group, member)
            case "Terminating:Wait":
                if member.hook_says is not None:
                    self._end(group, member)

    def _start(self, group: Group, member: Member) -> None:
        if member.ec2_state == "running":
            hook = self._hook(group, LAUNCHING)
            if hook is not None:
                member.wait_for(hook)
            else:
                self._serve(member)
        elif member.ec2_state != "pending":
            member.activity.fail(
                "Instance became unhealthy while waiting for instance to be in InService state. "
                "Termination Reason: Client.UserInitiatedShutdown: User initiated shutdown"
            )
            self._replace(group, member)

    @staticmethod
    def _serve(member: Member) -> None:
        member.lifecycle_state, member.hook = "InService", None
        member.activity.succeed()

    def _examine(self, group: Group, member: Member) -> None:
        if member.ec2_state != "running" and "HealthCheck" not in group.suspended:
            member.health_status = "Unhealthy"
        if member.health_status == "Unhealthy" and not group.suspended.keys() & {
            "ReplaceUnhealthy",
            "Terminate",
        }:
            self._replace(group, member)

    def _leave(self, group: Group, member: Member) -> None:
        if member.gone_at is not None:
            self._end(group, member)
            return
        if any(self._draining(place, member) for place in member.registered):
            return
        hook = self._hook(group, TERMINATING)
        if hook is not None and member.ec2_state == "running":
            member.wait_for(hook)
        else:
            self._end(group, member)

    def _replace(self, group: Group, member: Member) -> None:
        said = (
            "an EC2 health check indicating it has been terminated or stopped"
            if member.ec2_state != "running"
            else "a user health-check"
        )
        member.health_status = "Unhealthy"
        group.to_replace += 1
        self.take_out(
            group, member, sentence(f"an instance was taken out of service in response to {said}")
        )

    def _end(self, group: Group, member: Member) -> None:
        """Terminate the instance; in the end all that is left of it is its activity."""
        if member.gone_at is None:
            if member.ec2_state in ("pending", "running"):
                self._world.backend("ec2").terminate_instances([member.id])
            member.gone_at = time.monotonic() + END_SECONDS
            member.lifecycle_state = "Terminating"
        if time.monotonic() < member.gone_at:
            return
        group.members.remove(member)
        member.lifecycle_state = "Terminated"
        member.activity.succeed()
        LOG.info("group %s: %s is terminated", group.name, member.id)

    def _hook(self, group: Group, transition: str) -> LifecycleHook | None:
        """The lifecycle hook of a transition; of several, the first counts."""
        hooks = self._world.backend("autoscaling").describe_lifecycle_hooks(group.name)
        return next((hook for hook in hooks if hook.lifecycle_transition == transition), None)

    # --------------------------------------------------------------------------------- the number

    def _grow(self, group: Group, missing: int) -> None:
        if time.monotonic() < group.launch_after:
            return
        for _ in range(missing):
            if not self._launch(group):
                group.launch_after = time.monotonic() + RETRY_SECONDS
                break

    def _launch(self, group: Group) -> bool:
        """Launch one instance; False when it fails."""
        count = sum(member.stays for member in group.members)
        if group.to_replace > 0:
            group.to_replace -= 1
            cause = sentence(
                "an instance was launched in response to an unhealthy instance needing to be "
                "replaced"
            )
        else:
            why = sentence(
                "an instance was started in response to a difference between desired and actual "
                f"capacity, increasing the capacity from {count} to {group.desired_capacity}"
            )
            cause = chain(group.cause, why)
        activity = self._begin(group, "Launching a new EC2 instance", cause, None)
        failure = self.watcher.failure(group) if self.watcher is not None else None
        if failure is None:
            try:
                instance = group.run_instance()
            except ServiceException as error:
                failure = str(error.message).rstrip(".")
            except SandboxError as error:  # the network is full
                failure = str(error)
        if failure is not None:
            message = f"{failure}. Launching EC2 instance failed."
            activity.description += f".  Status Reason: {message}"
            activity.fail(message)
            return False
        activity.description += f": {instance.id}"
        member = Member(instance, group, activity)
        group.members.append(member)
        LOG.info("group %s: %s is launched", group.name, member.id)
        if self.watcher is not None:
            self.watcher.launched(group, member)
        return True

    def _shrink(self, group: Group, surplus: int) -> None:
        stay = [member for member in group.members if member.stays]
        free = [member for member in stay if not member.protected_from_scale_in]
        why = sentence(
            "an instance was taken out of service in response to a difference between desired and "
            f"actual capacity, shrinking the capacity from {len(stay)} to {group.desired_capacity}"
        )
        for member in list(_first_to_go(stay, free))[:surplus]:
            selected = sentence(f"instance {member.id} was selected for termination")
            self.take_out(group, member, group.cause, why, selected)
        if surplus > len(free) and group.protection_told != group.cause:
            group.protection_told = group.cause
            self._begin(group, PROTECTED, chain(group.cause, why), None).fail(PROTECTED)

    def _begin(self, group: Group, description: str, cause: str, member: Member | None) -> Activity:
        zone = member.availability_zone if member is not None else group.availability_zones[0]
        details = f'{{"Availability Zone":"{zone}"}}'
        activity = Activity(group.name, description, cause, details)
        group.activities.insert(0, activity)
        del group.activities[MAX_ACTIVITIES:]
        return activity

    # ------------------------------------------------------------------------- the load balancers

    def _balance(self, group: Group) -> None:
        """Register what serves with what the group is attached to."""
        now = time.monotonic()
        names = [name for name, one in group.attachments.items() if one.state != "Removing"]
        due = [name for name in names if group.attachments[name].due <= now]
        if "AddToLoadBalancer" not in group.suspended:
            for member in group.members:
                if member.lifecycle_state == "InService" and member.ec2_state == "running":
                    for place in {*group.target_group_arns, *due} - member.registered:
                        self._register(place, member)
        for name in due:
            group.attachments[name].state = "Added"
        for name in set(group.attachments) - set(names):
            leaving = [member for member in group.members if name in member.registered]
            if not any(self._draining(name, member) for member in leaving):
                for member in leaving:
                    member.registered.discard(name)
                del group.attachments[name]

    def detach(self, group: Group, place: str) -> None:
        """Take all instances of a group from a load balancer; the lock is held."""
        for member in group.members:
            if place in member.registered:
                self._deregister(place, member)

    def _register(self, place: str, member: Member) -> None:
        if _is_target_group(place):
            self._world.backend("elbv2").register_targets(place, [{"Id": member.id}])
        else:
            backend = self._world.backend("elb")
            backend.register_instances(place, [member.id], from_autoscaling=True)
        member.registered.add(place)

    def _deregister(self, place: str, member: Member) -> None:
        if _is_target_group(place):
            backend = self._world.backend("elbv2")
            if place in backend.target_groups:
                backend.deregister_targets(place, [{"Id": member.id}])
        else:
            backend = self._world.backend("elb")
            if place in backend.load_balancers:
                backend.deregister_instances(place, [member.id], from_autoscaling=True)

    def _draining(self, place: str, member: Member) -> bool:
        if member.ec2_state != "running":
            return False
        if not _is_target_group(place):
            return bool(self._world.backend("elb").is_draining(place, member.id))
        backend = self._world.backend("elbv2")
        if place not in backend.target_groups:
            return False
        (health,) = backend.describe_target_health(place, [{"Id": member.id}])
        return bool(health.status == "draining")


def _is_target_group(place: str) -> bool:
    return place.startswith("arn:")


def _settled(group: Group) -> bool:
    serving = [member for member in group.members if member.lifecycle_state == "InService"]
    return len(serving) == len(group.members) == group.desired_capacity


def _first_to_go(stay: list[Member], free: list[Member]) -> Iterator[Member]:
    """Those that may go, in the order in which they do: from the fullest zone, the oldest first."""
    zones = [member.availability_zone for member in stay]
    left = list(free)
    while left:
        member = max(left, key=lambda one: zones.count(one.availability_zone))
        left.remove(member)
        zones.remove(member.availability_zone)
        yield member
