"""One Auto Scaling group and its instances, as the API shows them.

AWS's habits:
  - a changed size is only noted: instances come and go later;
  - a new MinSize or MaxSize that the desired capacity does not keep moves it;
  - a launch takes the launch template as it is then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import (
    ASG_NAME_TAG,
    FakeAutoScalingGroup,
    InstanceState,
    LifecycleHook,
)
from moto.core.types import Base64EncodedString

from sandbox.autoscaling.activities import Activity, sentence

PROCESSES = (
    *("Launch", "Terminate", "AddToLoadBalancer", "AlarmNotification", "AZRebalance"),
    *("HealthCheck", "InstanceRefresh", "ReplaceUnhealthy", "ScheduledActions"),
)
SET_BY_USER = "a user request explicitly set group desired capacity"


class Member(InstanceState):
    """One instance of a group; ``activity`` is its launch or, later, its termination.

    ``registered`` are the target groups (by ARN) and classic load balancers (by name) that the
    group has registered it with. While a lifecycle hook waits, ``hook`` is which, ``hook_until``
    (monotonic seconds) how long, ``hook_result`` what somebody has said meanwhile. ``gone_at``
    (monotonic seconds too) is when it leaves the group, after EC2 has ended it.
    """

    def __init__(self, instance: Any, group: Group, activity: Activity) -> None:
        instance.autoscaling_group = group
        super().__init__(
            instance,
            lifecycle_state="Pending",
            protected_from_scale_in=group.new_instances_protected_from_scale_in,
        )
        self.activity = activity
        self.launched_at = datetime.now(UTC)
        self.registered: set[str] = set()
        self.hook: LifecycleHook | None = None
        self.hook_until = 0.0
        self.hook_result: str | None = None
        self.gone_at: float | None = None
        self._launch_template: dict[str, Any] | None = super().launch_template
        if self._launch_template is not None:
            self._launch_template["Version"] = str(group.template_version)

    @property
    def launch_template(self) -> dict[str, Any] | None:
        """The version that it was launched from."""
        return self._launch_template

    @property
    def id(self) -> str:
        """The instance id."""
        return str(self.instance.id)

    @property
    def ec2_state(self) -> str:
        """What EC2 says of it."""
        return str(self.instance.state)

    @property
    def stays(self) -> bool:
        """Whether it counts: nobody takes it away."""
        return not str(self.lifecycle_state).startswith("Terminat")

    def wait_for(self, hook: LifecycleHook) -> None:
        """Stop where it is until somebody says how to go on."""
        self.lifecycle_state += ":Wait"
        self.hook, self.hook_result = hook, None
        self.hook_until = time.monotonic() + hook.heartbeat_timeout

    @property
    def hook_says(self) -> str | None:
        """``CONTINUE`` or ``ABANDON`` when the hook is over."""
        if self.hook is None:
            return "CONTINUE"
        if self.hook_result is None and time.monotonic() >= self.hook_until:
            return str(self.hook.default_result)
        return self.hook_result


@dataclass
class Attachment:
    """A classic load balancer of a group: ``Adding`` until ``due``, then ``Added``; ``Removing``
    until the last instance has drained.
    """

    state: str
    due: float


class Group(FakeAutoScalingGroup):
    """moto's group without its way to launch and terminate: ``scaler.Scaler`` does both."""

    min_size: int
    max_size: int
    desired_capacity: int
    instance_states: list[Member]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.suspended: dict[str, str] = {}
        self.activities: list[Activity] = []
        self.attachments: dict[str, Attachment] = {}
        self.cause = ""
        self.to_replace = 0
        self.launch_after = 0.0
        self.protection_told = ""
        super().__init__(*args, **kwargs)
        _check(self.min_size, self.max_size, self.desired_capacity)
        self.attachments = {name: Attachment("Adding", 0) for name in self.load_balancer_names}

    @property
    def members(self) -> list[Member]:
        """Its instances, oldest first."""
        return self.instance_states

    @property
    def template_version(self) -> int | None:
        """The number of the launch template's version that a launch takes now."""
        if self.ec2_launch_template is None:
            return None
        return int(self.ec2_launch_template.get_version(self.launch_template_version).number)

    @property
    def user_data(self) -> Base64EncodedString | None:
        """What an instance gets; moto knows the form of a template's first version only."""
        if self.ec2_launch_template is None:
            return self.launch_config.user_data
        given = self.ec2_launch_template.get_version(self.template_version).data.get("UserData")
        return Base64EncodedString(given) if isinstance(given, str) else given

    @property
    def suspended_processes(self) -> list[dict[str, str]]:
        """SuspendedProcesses of the API."""
        return [
            {"ProcessName": name, "SuspensionReason": reason}
            for name, reason in sorted(self.suspended.items())
        ]

    @suspended_processes.setter
    def suspended_processes(self, processes: list[str]) -> None:
        reason = f"User suspended at {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        self.suspended = {name: self.suspended.get(name, reason) for name in processes}

    def want(self, capacity: int, reason: str) -> None:
        """Note another desired capacity; ``reason`` begins the cause of what follows from it."""
        before, self.desired_capacity = self.desired_capacity, capacity
        if before != capacity:
            self.cause = sentence(
                f"{reason} changing the desired capacity from {before} to {capacity}"
            )

    def set_desired_capacity(self, new_capacity: int | None) -> None:
        """Note it; raises ValidationError when the group's bounds forbid it."""
        if not hasattr(self, "created_time"):  # the group is being made
            self.desired_capacity = 0
            wanted = self.min_size if new_capacity is None else new_capacity
            self.want(wanted, "a user request created an AutoScalingGroup")
            return
        wanted, low, high = int(new_capacity or 0), self.min_size, self.max_size
        if wanted > high:
            raise ValidationError(
                f"New SetDesiredCapacity value {wanted} is above max value {high} for the "
                "AutoScalingGroup."
            )
        if wanted < low:
            raise ValidationError(
                f"New SetDesiredCapacity value {wanted} is below min value {low} for the "
                "AutoScalingGroup."
            )
        self.want(wanted, SET_BY_USER)

    def update(
        self,
        availability_zones: list[str],
        desired_capacity: int | None,
        max_size: int | None,
        min_size: int | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """UpdateAutoScalingGroup: all or nothing; raises ValidationError."""
        low = self.min_size if min_size is None else min_size
        high = self.max_size if max_size is None else max_size
        _check(low, high, desired_capacity)
        super().update(availability_zones, None, None, None, *args, **kwargs)
        self.min_size, self.max_size = low, high
        wanted = self.desired_capacity if desired_capacity is None else desired_capacity
        wanted = min(max(wanted, low), high)
        self.want(
            wanted,
            "a user request update of AutoScalingGroup constraints to "
            f"min: {low}, max: {high}, desired: {wanted}",
        )

    def run_instance(self) -> Any:
        """Have EC2 run one more instance, in the zone with the fewest; raises EC2's errors."""
        subnets = str(self.vpc_zone_identifier).split(",") if self.vpc_zone_identifier else [None]
        used = [member.instance.subnet_id for member in self.members if member.stays]
        subnet = min(subnets, key=used.count)
        zones = dict(zip(subnets, self.availability_zones, strict=False))
        template = self.ec2_launch_template
        reservation = self.ec2_backend.run_instances(
            self.image_id,
            1,
            self.user_data,
            self.security_groups,
            instance_type=self.instance_type,
            tags={
                "instance": {
                    **self.get_propagated_tags(),
                    ASG_NAME_TAG: self.name,
                    **self.instance_tags,
                }
            },
            placement=zones.get(subnet, self.availability_zones[0]),
            launch_config=self.launch_config,
            launch_template=(
                {"LaunchTemplateId": template.id, "Version": self.template_version}
                if template is not None
                else None
            ),
            is_instance_type_default=False,
            associate_public_ip=None,
            subnet_id=subnet,
        )
        return reservation.instances[0]


def _check(low: int, high: int, desired: int | None) -> None:
    if high < low:
        raise ValidationError(
            f"Max bound, {high}, must be greater than or equal to min bound, {low}"
        )
    if desired is not None and not low <= desired <= high:
        raise ValidationError(
            f"Desired capacity:{desired} must be between the specified min size:{low} and max "
            f"size:{high}"
        )
