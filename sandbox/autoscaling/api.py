"""The Auto Scaling operations that moto answers wrongly or not at all.

What the sandbox does not do (standby, warm pools, instances that are attached or detached) is
refused instead of faked.
"""

from __future__ import annotations

from typing import cast

from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult

from sandbox.autoscaling.backend import ScalingBackend

MAX_RECORDS = 100


class ScalingResponse(AutoScalingResponse):
    """One request."""

    @property
    def _backend(self) -> ScalingBackend:
        return cast("ScalingBackend", self.autoscaling_backend)

    def describe_scaling_activities(self) -> ActionResult:
        """DescribeScalingActivities, a hundred at a time unless MaxRecords says less."""
        found = self._backend.activities(
            self._get_param("AutoScalingGroupName"), self._get_param("ActivityIds", [])
        )
        token = str(self._get_param("NextToken") or "0")
        most = self._get_int_param("MaxRecords") or MAX_RECORDS
        if not token.isdigit() or not 1 <= most <= MAX_RECORDS:
            raise ValidationError("The token or MaxRecords is not valid.")
        start, end = int(token), int(token) + most
        result = {"Activities": [activity.shape for activity in found[start:end]]}
        return ActionResult(result | ({"NextToken": str(end)} if end < len(found) else {}))

    def delete_auto_scaling_group(self) -> ActionResult:
        force = self._get_bool_param("ForceDelete", False)
        name = self._get_param("AutoScalingGroupName")
        self._backend.delete_auto_scaling_group(name, force=bool(force))
        return EmptyResult()

    def describe_load_balancers(self) -> ActionResult:
        """DescribeLoadBalancers: classic ones; one that is removed is not shown any more."""
        group = self._backend.group(self._get_param("AutoScalingGroupName"))
        return ActionResult(
            {
                "LoadBalancers": [
                    {"LoadBalancerName": name, "State": attachment.state}
                    for name, attachment in sorted(group.attachments.items())
                ]
            }
        )

    def complete_lifecycle_action(self) -> ActionResult:
        """CompleteLifecycleAction, by instance id."""
        self._backend.complete(*self._action(), self._get_param("LifecycleActionResult"))
        return EmptyResult()

    def record_lifecycle_action_heartbeat(self) -> ActionResult:
        """RecordLifecycleActionHeartbeat, by instance id."""
        self._backend.beat(*self._action())
        return EmptyResult()

    def _action(self) -> tuple[str, str, str]:
        return (
            self._get_param("AutoScalingGroupName"),
            self._get_param("LifecycleHookName"),
            self._get_param("InstanceId"),
        )


def _refuse(_: ScalingResponse) -> ActionResult:
    raise AutoscalingClientError("UnsupportedFeature", "The sandbox does not simulate this.")


for _name in (
    "attach_instances",
    "detach_instances",
    "enter_standby",
    "exit_standby",
    "put_warm_pool",
    "start_instance_refresh",
):
    setattr(ScalingResponse, _name, _refuse)
