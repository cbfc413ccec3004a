"""The execution inputs under events/ are what the machines take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bluegreen.deployment import DeployRequest, PromoteRequest, RollBackRequest
from bluegreen.release import ReleaseRequest

EVENTS = Path(__file__).parents[2] / "events"
MODELS: dict[str, type[BaseModel]] = {
    "deploy": DeployRequest,
    "rollback": RollBackRequest,
    "abort": RollBackRequest,
    "promote": PromoteRequest,
    "release": ReleaseRequest,
}
INPUTS: dict[str, dict[str, Any]] = {
    path.stem: found
    for path in sorted(EVENTS.glob("*.json"))
    if "action" in (found := json.loads(path.read_text()))
}


def test_there_is_one_for_everything_that_can_be_asked_for() -> None:
    assert set(INPUTS) == {
        "abort",
        "deploy",
        "deploy-digest",
        "deploy-like",
        "deploy-overrides",
        "deploy-several",
        "dry-run",
        "promote",
        "release",
        "release-in-order",
        "rollback",
        "rollback-deployment",
        "rollback-to",
    }


@pytest.mark.parametrize("name", INPUTS)
def test_input_is_valid(name: str) -> None:
    MODELS[INPUTS[name]["action"]].model_validate(INPUTS[name])


@pytest.mark.parametrize("name", INPUTS)
def test_every_key_of_an_input_counts(name: str) -> None:
    """Nothing in it is ignored: what is added is refused."""
    with pytest.raises(ValueError, match="extra"):
        MODELS[INPUTS[name]["action"]].model_validate({**INPUTS[name], "unknown": 1})
