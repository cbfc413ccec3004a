"""What ``--balancer`` makes of an example: the router of its service configuration, and a parameter
of its infrastructure, as an override.
"""

from __future__ import annotations

from typing import Any

import yaml

from sandbox.settings import BALANCERS, SandboxError

PARAMETER = "infrastructure.LoadBalancer"
KINDS = {"alb": "application", "nlb": "network", "clb": "classic"}
"""Values of the parameter."""

CLASSIC: dict[str, dict[str, Any]] = {
    "shifted-ports": {"accept_gap": True},
    "two-clusters": {"overlap_seconds": 5},
}
"""What the router clb has to say in each pattern."""


def with_balancer(text: str, pattern: str, balancer: str | None) -> tuple[str, dict[str, Any]]:
    """The service configuration with another load balancer, and the parameters for it.

    None, or what the configuration has already, leaves both alone. Raises SandboxError.
    """
    if balancer is None:
        return text, {}
    if balancer not in BALANCERS or pattern not in CLASSIC:
        raise SandboxError(
            f"balancer {balancer}: one of {', '.join(BALANCERS)}, for {' and '.join(CLASSIC)}"
        )
    configuration: dict[str, Any] = yaml.safe_load(text)
    router = configuration["router"]
    if balancer == router["type"]:
        return text, {}
    if balancer == "clb":
        configuration["router"] = {
            "type": "clb",
            "load_balancer": router["load_balancer"],
            "port": router["port"],
            **CLASSIC[pattern],
        }
        for slot in configuration["colors"].values():
            del slot["target_group"]
    else:
        configuration["router"] = {**router, "type": balancer}
    return yaml.safe_dump(configuration, sort_keys=False), {PARAMETER: KINDS[balancer]}
