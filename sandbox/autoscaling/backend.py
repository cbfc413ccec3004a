"""The operations on groups, as strict as AWS's; ``scaler.Scaler`` does what follows from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moto.autoscaling import urls
from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.models import AutoScalingBackend
from moto.core.exceptions import ServiceException

from sandbox.autoscaling.activities import Activity, sentence
from sandbox.autoscaling.group import PROCESSES, Attachment, Group
from sandbox.autoscaling.scaler import ATTACH_SECONDS

if TYPE_CHECKING:
    from sandbox.autoscaling.group import Member
    from sandbox.autoscaling.scaler import Scaler

MAX_PROTECTED = 50
PROTECTABLE = ("InService", "EnteringStandby", "Standby")


class ScalingBackend(AutoScalingBackend):
    """Auto Scaling of one account and region."""

    scaler: Scaler
    _url_module = urls  # moto would look for it next to this module

    def group(self, name: str) -> Group:
        """The group with this name; raises ValidationError."""
        group = self.autoscaling_groups.get(name)
        if not isinstance(group, Group):
            raise ValidationError(
                f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found"
            )
        return group

    def create_auto_scaling_group(self, *args: Any, **kwargs: Any) -> Any:
        name = kwargs["name"]
        if name in self.autoscaling_groups:
            raise AutoscalingClientError(
                "AlreadyExists", "AutoScalingGroup by this name already exists"
            )
        with self.scaler.lock:
            group = super().create_auto_scaling_group(*args, **kwargs)
        self.scaler.wake()
        return group

    def update_auto_scaling_group(self, *args: Any, **kwargs: Any) -> Any:
        with self.scaler.lock:
            group = super().update_auto_scaling_group(*args, **kwargs)
        self.scaler.wake()
        return group

    def delete_auto_scaling_group(self, group_name: str, *, force: bool = False) -> None:
        """Refused while there are instances, unless forced: then they are terminated at once."""
        with self.scaler.lock:
            group = self.group(group_name)
            if group.members and not force:
                raise AutoscalingClientError(
                    "ResourceInUse",
                    "You cannot delete an AutoScalingGroup while there are instances or pending "
                    "Spot instance request(s) still in the group.",
                )
            del self.autoscaling_groups[group_name]
            ids = [member.id for member in group.members]
        if ids:
            self.ec2_backend.terminate_instances(ids)

    def set_desired_capacity(self, group_name: str, desired_capacity: int | None) -> None:
        with self.scaler.lock:
            self.group(group_name).set_desired_capacity(desired_capacity)
        self.scaler.wake()

    def suspend_processes(self, group_name: str, scaling_processes: list[str]) -> None:
        with self.scaler.lock:
            group = self.group(group_name)
            wanted = _processes(scaling_processes)
            group.suspended_processes = [*group.suspended, *wanted]

    def resume_processes(self, group_name: str, scaling_processes: list[str]) -> None:
        with self.scaler.lock:
            group = self.group(group_name)
            wanted = _processes(scaling_processes)
            group.suspended_processes = [name for name in group.suspended if name not in wanted]
        self.scaler.wake()

    def set_instance_protection(
        self,
        group_name: str,
        instance_ids: list[str],
        protected_from_scale_in: bool | None,
    ) -> None:
        """All or none of at most fifty; raises ValidationError."""
        if len(instance_ids) > MAX_PROTECTED:
            raise ValidationError(
                f"1 validation error detected: Value '{instance_ids}' at 'instanceIds' failed to "
                "satisfy constraint: Member must have length less than or equal to "
                f"{MAX_PROTECTED}"
            )
        with self.scaler.lock:
            known = {member.id: member for member in self.group(group_name).members}
            for instance_id in instance_ids:
                if instance_id not in known:
                    raise ValidationError(
                        f"The instance {instance_id} is not part of Auto Scaling group "
                        f"{group_name}."
                    )
                if known[instance_id].lifecycle_state not in PROTECTABLE:
                    raise ValidationError(
                        f"The instance {instance_id} is not in InService or EnteringStandby or "
                        "Standby."
                    )
            for instance_id in instance_ids:
                known[instance_id].protected_from_scale_in = protected_from_scale_in
        self.scaler.wake()

    def set_instance_health(self, instance_id: str, health_status: str) -> None:
        with self.scaler.lock:
            self._member(instance_id)[1].health_status = health_status
        self.scaler.wake()

    def terminate_instance(self, instance_id: str, should_decrement: bool) -> Any:
        """TerminateInstanceInAutoScalingGroup; returns the activity in the form of the API."""
        with self.scaler.lock:
            group, member = self._member(instance_id)
            if should_decrement and group.desired_capacity <= group.min_size:
                raise ValidationError(
                    f"Currently, desiredSize equals minSize ({group.min_size}). Terminating "
                    "instance without replacement will violate group's min size constraint. "
                    "Either set shouldDecrementDesiredCapacity flag to false or lower group's min "
                    "size."
                )
            before, change = group.desired_capacity, ""
            if should_decrement:
                group.desired_capacity = before - 1
                change = f", shrinking the capacity from {before} to {before - 1}"
            self.scaler.take_out(
                group,
                member,
                sentence(
                    f"instance {instance_id} was taken out of service in response to a user "
                    f"request{change}"
                ),
            )
            return member.activity.shape

    def activities(self, group_name: str | None, ids: Sequence[str]) -> list[Activity]:
        """Newest first; raises ValidationError for a group that is not there."""
        with self.scaler.lock:
            groups = [self.group(group_name)] if group_name else self.scaler.groups()
            found = [one for group in groups for one in group.activities]
        wanted = [one for one in found if not ids or one.id in ids]
        return sorted(wanted, key=lambda one: one.started_at, reverse=True)

    def complete(self, group_name: str, hook: str, instance_id: str, result: str) -> None:
        """CompleteLifecycleAction."""
        with self.scaler.lock:
            self._waiting(group_name, hook, instance_id).hook_result = result
        self.scaler.wake()

    def beat(self, group_name: str, hook: str, instance_id: str) -> None:
        """RecordLifecycleActionHeartbeat: wait as long again."""
        with self.scaler.lock:
            member = self._waiting(group_name, hook, instance_id)
            assert member.hook is not None
            member.hook_until = time.monotonic() + member.hook.heartbeat_timeout

    # ------------------------------------------------------------------------------ load balancers

    def attach_load_balancers(self, group_name: str, load_balancer_names: list[str]) -> None:
        """The instances are registered a moment later."""
        with self.scaler.lock:
            group = self.group(group_name)
            try:
                self.elb_backend.describe_load_balancers(names=load_balancer_names)
            except ServiceException as error:
                raise ValidationError(
                    "Provided Load Balancers may not be valid. Please ensure they exist and try "
                    "again."
                ) from error
            for name in load_balancer_names:
                if name not in group.load_balancer_names:
                    group.load_balancer_names.append(name)
                    due = time.monotonic() + ATTACH_SECONDS
                    for member in group.members:
                        member.registered.discard(name)  # it was being removed
                    group.attachments[name] = Attachment("Adding", due)
        self.scaler.wake()

    def detach_load_balancers(self, group_name: str, load_balancer_names: list[str]) -> None:
        """The instances are deregistered, and stay until they have drained."""
        with self.scaler.lock:
            group = self.group(group_name)
            if not set(load_balancer_names) <= set(group.load_balancer_names):
                raise ValidationError(
                    "Trying to remove Load Balancers that are not part of the group"
                )
            for name in load_balancer_names:
                group.load_balancer_names.remove(name)
                group.attachments[name] = Attachment("Removing", 0)
                self.scaler.detach(group, name)
        self.scaler.wake()

    def detach_load_balancer_target_groups(
        self, group_name: str, target_group_arns: list[str]
    ) -> None:
        with self.scaler.lock:
            group = self.group(group_name)
            group.target_group_arns = [
                arn for arn in group.target_group_arns if arn not in target_group_arns
            ]
            for arn in target_group_arns:
                self.scaler.detach(group, arn)
                for member in group.members:
                    member.registered.discard(arn)

    def update_attached_elbs(self, group_name: str) -> None:
        """The scaler registers each instance when it serves."""

    def update_attached_target_groups(self, group_name: str) -> None:
        """The scaler registers each instance when it serves."""

    def notify_terminate_instances(self, instance_ids: list[str]) -> None:  # noqa: ARG002
        """Somebody has terminated instances: the scaler sees it for itself."""
        self.scaler.wake()

    def _member(self, instance_id: str) -> tuple[Group, Member]:
        found = self.scaler.member(instance_id)
        if found is None:
            raise ValidationError(
                f"Instance Id not found - No managed instance found for instance ID {instance_id}"
            )
        return found

    def _waiting(self, group_name: str, hook: str, instance_id: str) -> Member:
        for member in self.group(group_name).members:
            if member.id == instance_id and member.hook is not None and member.hook.name == hook:
                return member
        raise ValidationError(f"No active Lifecycle Action found with instance ID {instance_id}")


def _processes(names: Sequence[str]) -> Sequence[str]:
    """The processes that are meant: all, when none is named."""
    unknown = set(names) - set(PROCESSES)
    if unknown:
        raise ValidationError(
            f"1 validation error detected: Value '{sorted(unknown)}' at 'scalingProcesses' failed "
            f"to satisfy constraint: Member must satisfy enum value set: {list(PROCESSES)}"
        )
    return names or PROCESSES
