"""Application Auto Scaling of an ECS service: looking at it, and keeping it from fighting us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bluegreen.configuration import ColorSlot
from bluegreen.deployment import Scaling

if TYPE_CHECKING:
    from mypy_boto3_application_autoscaling import ApplicationAutoScalingClient

_DIMENSION: Final = "ecs:service:DesiredCount"


def read(client: ApplicationAutoScalingClient, slot: ColorSlot) -> Scaling | None:
    """What of the service's scaling is suspended; None when it does not scale by itself."""
    targets = client.describe_scalable_targets(
        ServiceNamespace="ecs", ResourceIds=[_resource(slot)], ScalableDimension=_DIMENSION
    )["ScalableTargets"]
    if not targets:
        return None
    state = targets[0].get("SuspendedState") or {}
    return Scaling(
        dynamic_in=state.get("DynamicScalingInSuspended", False),
        dynamic_out=state.get("DynamicScalingOutSuspended", False),
        scheduled=state.get("ScheduledScalingSuspended", False),
    )


def write(client: ApplicationAutoScalingClient, slot: ColorSlot, scaling: Scaling | None) -> None:
    """Suspend or resume; nothing to do for a service that does not scale by itself (any more).

    A registered target keeps its capacities when only SuspendedState is given:
    https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html
    """
    if scaling is None or read(client, slot) is None:
        return
    client.register_scalable_target(
        ServiceNamespace="ecs",
        ResourceId=_resource(slot),
        ScalableDimension=_DIMENSION,
        SuspendedState={
            "DynamicScalingInSuspended": scaling.dynamic_in,
            "DynamicScalingOutSuspended": scaling.dynamic_out,
            "ScheduledScalingSuspended": scaling.scheduled,
        },
    )


def _resource(slot: ColorSlot) -> str:
    return f"service/{slot.cluster}/{slot.ecs_service}"
