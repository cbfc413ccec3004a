"""Application and network load balancers: moto's ELBv2 with a real data plane.

``install`` puts ``backend.AlbBackend`` in the place of moto's and starts ``plane.DataPlane``, which
runs HAProxy (``configuration``, ``haproxy``), checks targets (``health``) and decides about them
(``targets``). ``traffic`` tells CloudWatch what went through.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from typing import IO

from moto.elbv2.models import elbv2_backends

from sandbox.alb.backend import AlbBackend
from sandbox.alb.plane import DataPlane
from sandbox.world import World

HEALTH_CHECK_DIVISOR = 10.0
"""Health checks run that much more often than the target group says: 5 s (the least that AWS
allows) become half a second."""


def install(
    world: World,
    start_process: Callable[[Sequence[str], IO[bytes]], subprocess.Popen[bytes]],
    health_check_divisor: float = HEALTH_CHECK_DIVISOR,
) -> DataPlane:
    """Replace moto's ELBv2 before its first use and start the data plane.

    ``start_process`` starts a program that dies with the sandbox, its output in the given file. The
    data plane ends after ``world.stopping`` is set; ``join`` waits for it.
    """
    plane = DataPlane(world, start_process, health_check_divisor)
    backend = type("SandboxElbv2Backend", (AlbBackend,), {"plane": plane})
    elbv2_backends.backend = backend
    plane.start()
    return plane
