"""Classic load balancers: moto's ELB with a real data plane.

``install`` puts ``backend.ClassicBackend`` and ``api.ClassicResponse`` in the place of moto's and
starts ``plane.DataPlane``, which runs the HAProxy of ``sandbox.alb``, checks instances with its
health checks, and decides about them (``instances``).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from typing import IO, Any

from moto.elb import urls
from moto.elb.models import elb_backends

from sandbox.alb import HEALTH_CHECK_DIVISOR
from sandbox.clb.api import ClassicResponse
from sandbox.clb.backend import ClassicBackend
from sandbox.clb.plane import DataPlane
from sandbox.world import World


def install(
    world: World,
    start_process: Callable[[Sequence[str], IO[bytes]], subprocess.Popen[bytes]],
    health_check_divisor: float = HEALTH_CHECK_DIVISOR,
) -> DataPlane:
    """Replace moto's ELB before its first use and start the data plane.

    ``start_process`` starts a program that dies with the sandbox, its output in the given file. The
    data plane ends after ``world.stopping`` is set; ``join`` waits for it.
    """
    plane = DataPlane(world, start_process, health_check_divisor)
    backend: Any = type("SandboxElbBackend", (ClassicBackend,), {"plane": plane})
    elb_backends.backend = backend
    urls.ELBResponse = ClassicResponse
    plane.start()
    return plane
