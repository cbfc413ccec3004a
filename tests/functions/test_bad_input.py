"""Thousands of generated execution inputs: each a clear error, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bluegreen.errors import BlueGreenError
from tests.functions.account_state import account_state, without_wishes
from tests.functions.announced import queue
from tests.functions.generated import EVENTS, INPUTS, WANTED, Kind, documents, for_each
from tests.functions.world import BLUE, GREEN, World, execution_arn

# Every one names something that is not there.
MISSING = "sha256:" + "9" * 64
VALID: dict[str, list[dict[str, Any]]] = {
    "plan_deployment": [
        {"action": "deploy", "service": "web", "images": {"web": "v9"}},
        {"action": "deploy", "service": "web", "images": {"web": f"web@{MISSING}"}},
        {"action": "deploy", "service": "web", "like": "d-9", "skip_bake": True},
        {
            "action": "deploy",
            "service": "web",
            "images": {"web": MISSING},
            "overrides": {"environment": {"web": {"A": "1"}}, "cpu": "256", "memory": "512"},
            "dry_run": True,
            "started_by": {"kind": "push", "detail": "v9", "who": "ann"},
        },
        {
            "action": "deploy",
            "service": "web",
            "images": {"web": "v9"},
            "release": execution_arn("spring"),
            "started_by": {"kind": "release", "detail": "spring", "who": "ann"},
        },
    ],
    "plan_roll_back": [
        {"action": "rollback", "service": "web", "to": "d-9", "skip_bake": True},
        {"action": "rollback", "deployment_id": "d-9", "dry_run": True},
        {"action": "abort", "deployment_id": "d-9", "who": "ann"},
        {"action": "recover", "deployment_id": "d-9"},
        {"action": "finish", "deployment_id": "d-9"},
    ],
    "promote": [{"action": "promote", "deployment_id": "d-9", "who": "ann"}],
    "plan_release": [
        {
            "action": "release",
            "services": [{"service": "gone", "images": {"web": "v9"}}],
            "order": "in_order",
        },
        {"action": "release", "services": [{"service": "gone", "like": "d-9"}], "who": "ann"},
    ],
}


def refused(world: World, module: str, request: Any) -> None:
    """It is one of our errors, with a text that says something and can be passed on."""
    with pytest.raises(BlueGreenError) as caught:
        world.run(module, {"request": request})
    assert str(caught.value).strip()
    json.dumps({"errorMessage": str(caught.value)}).encode()


def test_there_are_as_many_as_were_asked_for() -> None:
    assert sum(sum(one.values()) for one in [*INPUTS.values(), *EVENTS.values()]) >= WANTED
    assert set(VALID) == set(INPUTS)


@pytest.mark.parametrize("kind", ["anything", "mutated"])
@pytest.mark.parametrize("module", INPUTS)
def test_generated_inputs_are_refused_and_change_nothing(
    world: World, module: str, kind: Kind
) -> None:
    queue(world.monkeypatch)
    world.start_execution("spring")
    # Some mutations are right: they are refused for the traffic.
    world.set_weights({BLUE: 90, GREEN: 10})
    before = without_wishes(account_state(world))
    for_each(
        INPUTS[module][kind],
        documents(kind, VALID[module]),
        lambda request: refused(world, module, request),
    )
    assert without_wishes(account_state(world)) == before


@pytest.mark.parametrize("module", VALID)
def test_what_is_mutated_is_valid_but_for_what_it_names(world: World, module: str) -> None:
    """Or the mutations would never get past the first check."""
    for request in VALID[module]:
        with pytest.raises(BlueGreenError) as caught:
            world.run(module, {"request": request})
        assert "the execution input" not in str(caught.value)
