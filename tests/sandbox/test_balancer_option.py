"""``--balancer``: what it makes of the examples, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sandbox.balancers import with_balancer
from sandbox.settings import BALANCERS, ROOT, SandboxError

PATTERNS = ("shifted-ports", "two-clusters")


def text(pattern: str) -> str:
    return (ROOT / "examples" / pattern / "service.yaml").read_text()


def made(pattern: str, balancer: str) -> tuple[dict[str, Any], dict[str, Any]]:
    changed, parameters = with_balancer(text(pattern), pattern, balancer)
    return yaml.safe_load(changed), parameters


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_example_stays_as_it_is_unless_it_has_another_one(pattern: str) -> None:
    for balancer in (None, "alb"):
        assert with_balancer(text(pattern), pattern, balancer) == (text(pattern), {})


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_network_load_balancer_changes_the_type_alone(pattern: str) -> None:
    before = yaml.safe_load(text(pattern))
    configuration, parameters = made(pattern, "nlb")
    assert configuration == {**before, "router": {**before["router"], "type": "nlb"}}
    assert parameters == {"infrastructure.LoadBalancer": "network"}


@pytest.mark.parametrize(
    ("pattern", "more"),
    [("shifted-ports", {"accept_gap": True}), ("two-clusters", {"overlap_seconds": 5})],
)
def test_a_classic_one_has_no_target_groups(pattern: str, more: dict[str, Any]) -> None:
    configuration, parameters = made(pattern, "clb")
    router = {"type": "clb", "load_balancer": "web", "port": 8080, **more}
    assert configuration["router"] == router
    assert not any("target_group" in slot for slot in configuration["colors"].values())
    assert parameters == {"infrastructure.LoadBalancer": "classic"}


@pytest.mark.parametrize(("pattern", "balancer"), [("host-proxy", "nlb"), ("two-clusters", "elb")])
def test_others_are_refused(pattern: str, balancer: str) -> None:
    with pytest.raises(SandboxError, match=f"balancer {balancer}: one of {', '.join(BALANCERS)}"):
        with_balancer(text(pattern), pattern, balancer)
