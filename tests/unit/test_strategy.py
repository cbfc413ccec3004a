"""The steps of a shift, and which of them a deployment has begun."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen import strategy
from bluegreen.color import Color
from bluegreen.configuration import AllAtOnce, ServiceConfiguration
from bluegreen.deployment import Deployment, Overrides, ServiceSnapshot, Snapshot

BLUE, GREEN = Color.BLUE, Color.GREEN


@pytest.fixture
def deployment() -> Deployment:
    """From blue to green."""
    slot = {"cluster": "web"}
    configuration = ServiceConfiguration.model_validate(
        {
            "service": "web",
            "pattern": "host-proxy",
            "containers": [{"name": "web", "repository": "web"}],
            "colors": {
                color: slot
                | {
                    "ecs_service": f"web-{color}",
                    "host_port": {"container": "web", "container_port": 8000, "host_port": port},
                }
                for color, port in (("blue", 18081), ("green", 18082))
            },
            "router": {"type": "nginx", "port": 8080},
        }
    )
    service = ServiceSnapshot(task_definition="web:1", desired_count=2, running_count=2)
    return Deployment(
        id="d-1",
        service="web",
        execution_arn="arn",
        fencing=1,
        decision="deploy",
        started_at=0,
        configuration=configuration,
        from_color=BLUE,
        to_color=GREEN,
        images={},
        overrides=Overrides(),
        location=None,
        test_location=None,
        load_balancer_dns="",
        target_groups={},
        stickiness_seconds=0,
        deregistration_seconds=0,
        snapshot=Snapshot(traffic={BLUE: 100, GREEN: 0}, services={BLUE: service, GREEN: service}),
        follows=None,
    )


def test_all_at_once_is_one_step() -> None:
    assert strategy.steps(AllAtOnce()) == [100]


@pytest.mark.parametrize(
    ("shift", "taken"),
    [
        (None, []),
        ({"step": 0, "status": "waiting"}, [{BLUE: 0, GREEN: 100}]),
        ({"step": 0, "status": "shifted", "percent": 100}, [{BLUE: 0, GREEN: 100}]),
    ],
    ids=["before the shift", "in the middle of a step", "after it"],
)
def test_the_weights_of_a_step_are_its_own_from_its_beginning(
    deployment: Deployment, shift: dict[str, Any] | None, taken: list[dict[Color, int]]
) -> None:
    data = {} if shift is None else {"shift": shift}
    assert strategy.taken(deployment, data) == taken


def test_of_several_steps_only_those_are_its_own_that_it_has_begun(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategy, "steps", lambda _: [10, 50, 100])
    assert strategy.taken(deployment, {"shift": {"step": 1}}) == [
        {BLUE: 90, GREEN: 10},
        {BLUE: 50, GREEN: 50},
    ]


def test_a_load_balancer_may_take_its_margin_and_the_proxies_of_hosts_take_none(
    deployment: Deployment,
) -> None:
    assert deployment.configuration.drain.margin_seconds == 20
    assert deployment.margin_seconds == 0
    assert deployment.quiet_seconds == deployment.configuration.drain.seconds
