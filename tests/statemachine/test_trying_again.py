"""What is tried again and what is not, by an interpreter with scripted functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.statemachine.definition import DEPLOYMENT
from tests.statemachine.gate_scenarios import APPROVED, GATES
from tests.statemachine.interpreter import (
    Answer,
    Interpreter,
    NoAnswer,
    Raised,
    Refused,
    Script,
    TooSlow,
    interpreter,
)
from tests.statemachine.scenarios import SCENARIOS
from tests.statemachine.scripts import (
    DEPLOY_WEB,
    HEALTHY,
    NOT_YET,
    NOTHING_RESTORED,
    RECOVER,
    deploying,
    failing,
    record,
    taken_over,
)

BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *GATES)}


@pytest.fixture(scope="module")
def state_machine() -> Iterator[Interpreter]:
    with interpreter(DEPLOYMENT) as started:
        yield started


@pytest.mark.parametrize(
    "error",
    [
        Refused("ServiceException"),
        Refused("TooManyRequestsException"),
        Refused("AWSLambdaException"),
        NoAnswer(),
        TooSlow(),
        Raised("AwsUnavailable", "ThrottlingException"),
        Raised(None, "no type"),
        Raised("Sandbox.Timedout", "Task timed out after 30.00 seconds"),
        Refused("EC2ThrottledException"),
        Refused("EC2UnexpectedException"),
        Refused("ENILimitReachedException"),
        Refused("ResourceNotReadyException"),
        Refused("SubnetIPAddressLimitReachedException"),
    ],
    ids=str,
)
def test_a_passing_error_is_tried_again(error: Answer, state_machine: Interpreter) -> None:
    run = state_machine.run(DEPLOY_WEB, deploying(CheckHealth=[error, error, HEALTHY]))
    assert run.states == BY_NAME["deployed straight"].path.split()
    assert run.status == "SUCCEEDED"
    first, second, third = run.data("CheckHealth")
    assert first == second == third
    assert len(run.slept) == 2


@pytest.mark.parametrize("state", DEPLOYMENT.function_tasks())
def test_every_function_is_asked_again(state: str, state_machine: Interpreter) -> None:
    """Once the API, once AWS behind the function; then all goes on as if nothing had been."""
    passing: list[Answer] = [Refused("ServiceException"), Raised("AwsUnavailable")]
    scenario = BY_NAME[
        {
            "PlanRollBack": "a lost deployment is undone",
            "RollBack": "the bake fails",
            "ExplainMigration": "a migration fails: by its exit code",
            "Promote": "a step is promoted",
        }.get(state, "every gate is stopped at")
    ]
    undisturbed = state_machine.run(scenario.request, scenario.script)
    answer: Any = {
        **scenario.script,
        "PlanRollBack": [taken_over("roll_back")({"request": RECOVER})],
        "RecordOutcome": [{"outcome": "succeeded", "execution": "succeed", "ours": True}],
    }[state]
    run = state_machine.run(scenario.request, {**scenario.script, state: [*passing, *answer]})
    assert run.states == undisturbed.states
    assert (run.status, run.error, run.cause) == (
        undisturbed.status,
        undisturbed.error,
        undisturbed.cause,
    )
    assert len(run.data(state)) == len(undisturbed.data(state)) + 2


def test_each_request_for_approval_has_a_token_of_its_own(state_machine: Interpreter) -> None:
    """So that the answer to one that was lost is no answer to the next."""
    scenario = BY_NAME["every gate is stopped at"]
    answers: list[Answer] = [Raised("AwsUnavailable"), APPROVED]
    script = {**scenario.script, "RequestApproval": answers}
    run = state_machine.run(scenario.request, script)
    first, second = (given["token"] for given in run.given("RequestApproval"))
    assert first != second
    assert run.status == "SUCCEEDED"


@pytest.mark.parametrize("error", [TooSlow(), Raised("States.Timeout")], ids=str)
def test_a_person_is_not_asked_again(error: Answer, state_machine: Interpreter) -> None:
    scenario = BY_NAME["nobody says anything, and that is no"]
    run = state_machine.run(scenario.request, {**scenario.script, "RequestApproval": [error]})
    assert run.error == "NotApproved"
    assert run.slept == []


@pytest.mark.parametrize(
    "kind", ["States.TaskFailed", "States.Timeout", "ECS.ThrottlingException", "AmazonECS.Unknown"]
)
def test_a_migration_is_not_run_again(kind: str, state_machine: Interpreter) -> None:
    scenario = BY_NAME["a migration fails: by its exit code"]
    run = state_machine.run(scenario.request, {**scenario.script, "RunMigration": [Raised(kind)]})
    assert run.error == "MigrationFailed"
    assert len(run.given("RunMigration")) == 1
    assert run.slept == []


def test_tries_are_spread_and_end(state_machine: Interpreter) -> None:
    gone = Raised("AwsUnavailable", "still throttled")
    script: Script = {
        "PlanDeployment": [gone] * 10,
        "RollBack": [NOTHING_RESTORED],
        "RecordOutcome": record,
    }
    run = state_machine.run(DEPLOY_WEB, script)
    assert (run.status, run.error, run.cause) == ("FAILED", "AwsUnavailable", "still throttled")
    assert len(run.slept) == 9
    for seconds, most in zip(run.slept, [1, 2, 4, 8, 16, 30, 30, 30, 30], strict=True):
        assert 0 <= seconds <= most


def test_each_visit_of_a_state_has_its_own_tries(state_machine: Interpreter) -> None:
    """A long wait for health may meet more passing errors than one visit may."""
    gone = Raised("AwsUnavailable")
    visit: list[Answer] = [gone] * 4
    answers = [*visit, NOT_YET, *visit, NOT_YET, *visit, HEALTHY]
    run = state_machine.run(DEPLOY_WEB, deploying(CheckHealth=answers))
    assert run.status == "SUCCEEDED"


@pytest.mark.parametrize(
    "kind",
    ["AwsRefused", "IdleColorUnhealthy", "LockLost", "SettingsError", "TypeError"],
)
def test_what_will_not_pass_is_not_tried_again(kind: str, state_machine: Interpreter) -> None:
    run = state_machine.run(DEPLOY_WEB, failing("CheckHealth", Raised(kind, "no")))
    assert len(run.data("CheckHealth")) == 1
    assert run.slept == []
    assert (run.status, run.error) == ("FAILED", kind)
