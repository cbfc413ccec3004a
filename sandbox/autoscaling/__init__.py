"""Auto Scaling: moto's groups with instances that come and go as on AWS.

``install`` puts ``backend.ScalingBackend`` and ``api.ScalingResponse`` in the place of moto's and
starts ``scaler.Scaler``, the thread that launches and terminates. ``group`` is what it works on,
``activities`` what DescribeScalingActivities tells of it, ``managed`` what ECS does
to it, ``faults`` what can be broken.
"""

from __future__ import annotations

from typing import Any

from moto.autoscaling import models, urls
from moto.autoscaling.models import autoscaling_backends

from sandbox.autoscaling.api import ScalingResponse
from sandbox.autoscaling.backend import ScalingBackend
from sandbox.autoscaling.group import Group
from sandbox.autoscaling.scaler import Scaler
from sandbox.world import World


def install(world: World) -> Scaler:
    """Replace moto's Auto Scaling before its first use and start the thread.

    It ends after ``world.stopping`` is set; ``join`` waits.
    """
    scaler = Scaler(world)
    models.FakeAutoScalingGroup = Group  # which CreateAutoScalingGroup makes
    backend: Any = type("SandboxScalingBackend", (ScalingBackend,), {"scaler": scaler})
    autoscaling_backends.backend = backend
    urls.url_paths["{0}/$"] = ScalingResponse.dispatch
    scaler.start()
    return scaler
