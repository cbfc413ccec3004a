"""What the pattern host-proxy puts on its instances, from the service configuration.

On AWS the install document does it, with the same arguments as parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.settings import PROXIES, SandboxError

HEALTH_PATH = "/healthz"  # what the example's target group asks for, too


@dataclass(frozen=True)
class Setup:
    """``arguments`` are those of ``ecs-bluegreen-host configure`` that are the same on all.

    ``port`` is where the proxy listens.
    """

    service: str
    proxy: str
    port: int
    arguments: Sequence[str]
    dynamic: bool


def setup_of(configuration: Mapping[str, Any]) -> Setup | None:
    """What a service configuration asks for; None when no proxy is needed. Raises SandboxError."""
    if configuration["pattern"] != "host-proxy":
        return None
    router, colors = configuration["router"], configuration["colors"]
    if router["type"] not in PROXIES:
        raise SandboxError(f"router.type {router['type']}: {' or '.join(PROXIES)} for host-proxy")
    protocol = router.get("protocol", "http")
    dynamic = router.get("container") is not None
    if dynamic:
        ports = {"container": router["container"], "container-port": router["container_port"]}
    else:
        ports = {f"{color}-port": slot["host_port"]["host_port"] for color, slot in colors.items()}
    options = {
        "proxy": router["type"],
        "protocol": protocol,
        "port": router["port"],
        **ports,
        **({"health-path": HEALTH_PATH} if protocol == "http" else {}),
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    return Setup(
        service=configuration["service"],
        proxy=router["type"],
        port=int(router["port"]),
        arguments=arguments,
        dynamic=dynamic,
    )
