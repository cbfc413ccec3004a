"""RequestApproval: the token is kept, and people are told once what waits and how to answer."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from bluegreen.announcement import Announcement, details
from bluegreen.deployment import PromoteRequest, RollBackRequest
from bluegreen.errors import LockLost
from tests.functions.hook_functions import HookFunctions
from tests.functions.world import MACHINE, START, World, execution_arn

TOKEN = "AAAAKgAAAAIAAAAA/token+of=the/task"


@pytest.fixture
def functions(world: World) -> HookFunctions:
    return HookFunctions().build(world)


@pytest.fixture
def data(world: World, functions: HookFunctions) -> dict[str, Any]:  # noqa: ARG001 - called by it
    world.configure(approval={"timeout_seconds": 7200, "on_timeout": "reject"})
    return world.plan()


def ask(world: World, data: dict[str, Any], token: str = TOKEN) -> dict[str, Any]:
    return world.run("request_approval", data, token=token)


def test_the_token_is_kept_and_the_lock_held_until_the_time_is_up(
    world: World, data: dict[str, Any]
) -> None:
    ask(world, data)
    assert world.record().approval == TOKEN
    assert world.lock.lease_expires_at == START + 7200 + 600


def test_people_are_told_what_waits_until_when_and_what_happens_then(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    ask(world, data)
    [told] = functions.told("waiting")
    assert (told["from_color"], told["to_color"]) == ("blue", "green")
    assert told["images"]["web"].endswith(world.digests["v2"])
    assert "2027-01-15 10:00:00 UTC" in told["reason"]
    assert "rolled back" in told["reason"]


def test_they_are_told_that_it_goes_on_without_an_answer_where_it_does(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    data["deployment"]["configuration"]["approval"]["on_timeout"] = "approve"
    ask(world, data)
    assert "without an answer it goes on then" in functions.told("waiting")[0]["reason"]


def test_the_commands_to_answer_with_are_the_inputs_that_the_workflow_takes(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    ask(world, data)
    lines = details(Announcement.model_validate(functions.told("waiting")[0]))
    commands = {line.partition(": ")[0]: line for line in lines if ": aws stepfunctions" in line}
    yes, no = (shlex.split(re.sub(r"^\w+: ", "", commands[answer])) for answer in ("yes", "no"))
    assert yes[:5] == ["aws", "stepfunctions", "start-execution", "--state-machine-arn", MACHINE]
    assert PromoteRequest.model_validate(json.loads(yes[-1])).deployment_id == "d-1"
    assert RollBackRequest.model_validate(json.loads(no[-1])).action == "abort"


def test_the_token_is_told_nobody(
    world: World, data: dict[str, Any], functions: HookFunctions, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(world, data)
    assert TOKEN not in json.dumps(functions.told("waiting"))
    assert TOKEN not in capsys.readouterr().out


def test_asked_again_the_new_token_counts_and_nobody_is_told_twice(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    ask(world, data, "the first one, whose invocation failed")
    ask(world, data)
    assert world.record().approval == TOKEN
    assert len(functions.told("waiting")) == 1


def test_24_a_queue_that_is_away_undoes_nothing_and_the_request_waits_all_the_same(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    """That nobody was told rings; the request can be answered, and has its time limit."""
    world.fault("sqs", "SendMessage", "throttle", times=9)
    ask(world, data)
    assert world.record().approval == TOKEN
    assert functions.told("waiting") == []


def test_a_deployment_that_was_taken_over_asks_nobody(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        ask(world, data)
    assert world.record().approval is None
    assert functions.told("waiting") == []
