"""The steps of a shift, and which of them a deployment has begun."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen import strategy
from bluegreen.color import Color
from bluegreen.configuration import ServiceConfiguration
from bluegreen.deployment import Deployment, Overrides, ServiceSnapshot, Snapshot

BLUE, GREEN = Color.BLUE, Color.GREEN


@pytest.fixture
def deployment() -> Deployment:
    return from_blue_to_green()


def from_blue_to_green() -> Deployment:
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


def with_strategy(deployment: Deployment, **strategy: Any) -> Deployment:
    document = deployment.configuration.model_dump(mode="json", exclude_none=True)
    changed = ServiceConfiguration.model_validate({**document, "strategy": strategy})
    return deployment.model_copy(update={"configuration": changed})


def watched(deployment: Deployment) -> list[tuple[int, int]]:
    """Percent and seconds of each step."""
    percents = strategy.steps(deployment)
    return [(one, strategy.seconds(deployment, step)) for step, one in enumerate(percents)]


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ({"type": "all_at_once"}, [(100, 60)]),
        ({"type": "canary", "percent": 10, "seconds": 7}, [(10, 7), (100, 60)]),
        ({"type": "linear", "percent": 25, "seconds": 7}, [(25, 7), (50, 7), (75, 7), (100, 60)]),
        ({"type": "linear", "percent": 40, "seconds": 7}, [(40, 7), (80, 7), (100, 60)]),
        ({"type": "linear", "percent": 99, "seconds": 0}, [(99, 0), (100, 60)]),
        (
            {
                "type": "steps",
                "steps": [{"percent": 1, "seconds": 5}, {"percent": 60, "seconds": 6}],
            },
            [(1, 5), (60, 6), (100, 60)],
        ),
    ],
    ids=str,
)
def test_every_strategy_ends_with_all_of_the_traffic_for_as_long_as_the_bake_takes(
    deployment: Deployment, configured: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    assert watched(with_strategy(deployment, **configured)) == expected


def test_without_a_bake_all_of_the_traffic_moves_at_once_and_nothing_is_waited_for(
    deployment: Deployment,
) -> None:
    canary = with_strategy(deployment, type="canary", percent=10)
    assert watched(canary.model_copy(update={"skip_bake": True})) == [(100, 0)]


def test_where_nothing_is_live_there_is_nobody_for_the_rest(deployment: Deployment) -> None:
    canary = with_strategy(deployment, type="canary", percent=10)
    assert watched(canary.model_copy(update={"from_color": None})) == [(100, 60)]


def test_where_what_is_live_has_no_task_there_is_nobody_for_the_rest_either(
    deployment: Deployment,
) -> None:
    canary = with_strategy(deployment, type="canary", percent=10)
    canary.snapshot.services[BLUE] = canary.snapshot.services[BLUE].model_copy(
        update={"running_count": 0}
    )
    assert watched(canary) == [(100, 60)]


@given(percent=st.integers(1, 99))
def test_the_share_of_the_new_colour_only_grows(percent: int) -> None:
    found = strategy.steps(with_strategy(from_blue_to_green(), type="linear", percent=percent))
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (percent, 100)


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
    deployment: Deployment,
) -> None:
    steps = [{"percent": 10, "seconds": 1}, {"percent": 50, "seconds": 1}]
    several = with_strategy(deployment, type="steps", steps=steps)
    first, second = {BLUE: 90, GREEN: 10}, {BLUE: 50, GREEN: 50}
    assert strategy.taken(several, {"shift": {"step": 1}}) == [first, second]
    assert strategy.before(several, 0) == [{BLUE: 100, GREEN: 0}]
    assert strategy.before(several, 2) == [{BLUE: 100, GREEN: 0}, first, second]


def test_a_load_balancer_may_take_its_margin_and_the_proxies_of_hosts_take_none(
    deployment: Deployment,
) -> None:
    assert deployment.configuration.drain.margin_seconds == 20
    assert deployment.margin_seconds == 0
    assert deployment.quiet_seconds == deployment.configuration.drain.seconds
