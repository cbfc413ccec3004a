"""Application Auto Scaling: moto's, with AWS's way to suspend scaling."""

from __future__ import annotations

from typing import Any

from moto.applicationautoscaling import urls
from moto.applicationautoscaling.models import ApplicationAutoscalingBackend, FakeScalableTarget

NOT_SUSPENDED = {
    "DynamicScalingInSuspended": False,
    "DynamicScalingOutSuspended": False,
    "ScheduledScalingSuspended": False,
}


class ScalingBackend(ApplicationAutoscalingBackend):
    """Scalable targets; nothing scales by itself in the sandbox."""

    _url_module = urls

    def register_scalable_target(
        self,
        namespace: str,
        r_id: str,
        dimension: str,
        min_capacity: int | None,
        max_capacity: int | None,
        role_arn: str,
        suspended_state: Any,
    ) -> FakeScalableTarget:
        """Register or update: the flags of SuspendedState that are given change, others stay."""
        known = self.targets.get(dimension, {}).get(r_id)
        before: Any = known.suspended_state if known is not None else None
        merged: Any = {**NOT_SUSPENDED, **(before or {}), **(suspended_state or {})}
        return super().register_scalable_target(
            namespace, r_id, dimension, min_capacity, max_capacity, role_arn, merged
        )
