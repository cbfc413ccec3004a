"""Thousands of generated events: each a clear error or nothing, and nothing is changed."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import recover_deployment
from bluegreen.errors import InvalidEvent
from runtime import routers
from tests.functions.account_state import account_state
from tests.functions.announced import queue
from tests.functions.generated import EVENTS, Kind, documents, for_each
from tests.functions.world import CONTEXT, START, World, execution_arn

PAYLOADS = Path(__file__).parents[2] / "events"
VALID: dict[str, list[str]] = {
    "start_deployment": [
        "ecr-push",
        "ecr-push-platform",
        "ecr-push-index",
        "execution-aborted",
        "schedule",
    ],
    "recover_deployment": ["execution-aborted", "execution-aborted", "schedule"],
}
MISTAKE = re.compile(
    r"\d mistake\(s\)\n  .+: |is nothing that starts a deployment: it has to be |is an object, not "
)


def payloads(module: str) -> list[dict[str, Any]]:
    return [json.loads((PAYLOADS / f"{name}.json").read_text()) for name in VALID[module]]


def pushed(world: World) -> dict[str, Any]:
    """Push another image; the event of it."""
    world.push("v3")
    [event, *_] = payloads("start_deployment")
    event["time"] = datetime.fromtimestamp(world.now, UTC).isoformat()
    event["detail"] |= {"image-tag": "v3", "image-digest": world.digests["v3"]}
    return event


@pytest.fixture
def busy(world: World) -> World:
    """A service that is being deployed by hand, with a push that waits for it."""
    clock = SimpleNamespace(time=lambda: world.now)
    world.monkeypatch.setattr("start_deployment.time", clock)
    queue(world.monkeypatch)
    # Names are kept for ten minutes, but every test has a world of its own.
    routers._listener_of.cache_clear()
    world.configure(trigger={"tags": ["v*"]})
    world.start_execution("by-hand")
    world.store.open("by-hand", "web", execution_arn("by-hand"), "then", START)
    lock = world.store.lock("web")
    world.store.acquire("web", "by-hand", execution_arn("by-hand"), START, lock)
    answer = import_module("start_deployment").handler(pushed(world), CONTEXT)
    assert len(answer["waiting"]) == 1
    return world


@pytest.mark.parametrize("kind", ["anything", "mutated"])
@pytest.mark.parametrize("module", EVENTS)
def test_generated_events_are_a_clear_error_or_nothing(
    busy: World, module: str, kind: Kind
) -> None:
    before = account_state(busy)
    handler = import_module(module).handler
    said: set[str] = set()

    def check(event: Any) -> None:
        try:
            answer = handler(event, CONTEXT)
        except InvalidEvent as error:
            said.add("error" if MISTAKE.search(str(error)) else str(error))
            json.dumps({"errorMessage": str(error)}).encode()
        else:
            said.add("quiet" if not answer["started"] else str(answer))

    for_each(EVENTS[module][kind], documents(kind, payloads(module)), check)
    assert account_state(busy) == before
    quiet = kind == "mutated" or module == "recover_deployment"
    assert said == {"error", "quiet"} if quiet else {"error"}


@pytest.mark.parametrize(
    "given", ["[]", '"recover"', "no JSON", "[" * 100_000], ids=["list", "text", "no JSON", "deep"]
)
def test_23_an_execution_that_was_given_anything_is_no_recovery(busy: World, given: str) -> None:
    """It has ended like any other: nobody sees to what it holds."""
    [event, *_] = payloads("recover_deployment")
    event["detail"] |= {
        "executionArn": execution_arn("by-hand"),
        "status": "FAILED",
        "input": given,
    }
    busy.stop_execution("by-hand")
    assert recover_deployment.handler(event, None) == {"started": ["by-hand"]}
