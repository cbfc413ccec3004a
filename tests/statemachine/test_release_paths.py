"""Every path through a release, run by an interpreter with scripted functions and deployments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest

from tests.statemachine.definition import RELEASE
from tests.statemachine.interpreter import (
    Answer,
    Interpreter,
    Raised,
    Refused,
    Run,
    Script,
    TooSlow,
    interpreter,
)

REQUEST = {
    "action": "release",
    "services": [{"service": "web", "images": {"web": "v2"}}, {"service": "api", "images": {}}],
}
STARTED = {"Status": "SUCCEEDED", "ExecutionArn": "arn:aws:states:…:execution:…:r-1-web"}
FAILED = Raised("States.TaskFailed", '{"Status": "FAILED", "Error": "BakeFailed"}')
WAITING = {"status": "waiting", "reason": "web goes back", "since": 1.0, "wait_seconds": 3}
SERVICES = {"web": {"deployment_id": "r-1-web", "outcome": "succeeded", "reason": ""}}
ALL_WELL = {"status": "succeeded", "services": SERVICES}
ALL_BACK = {
    "status": "failed",
    "services": SERVICES,
    "error": "ReleaseFailed",
    "cause": "api failed; web is on its old version",
}

PLAN = "Begin PlanRelease InWhichOrder"
SETTLE = "SettleRelease IsReleaseSettled"


def planned(order: str, *services: str) -> dict[str, Any]:
    children = [
        {
            "name": f"r-1-{one}",
            "service": one,
            "input": {"action": "deploy", "service": one, "release": "r-1"},
        }
        for one in services
    ]
    return {"order": order, "children": children}


def together(*ends: Answer, settled: list[Answer]) -> Script:
    services = ["web", "api", "shop"][: len(ends)]
    return {
        "PlanRelease": [planned("parallel", *services)],
        "DeployService": ends,
        "SettleRelease": settled,
    }


def in_order(services: int, *ends: Answer, settled: list[Answer]) -> Script:
    return {
        "PlanRelease": [planned("in_order", *["web", "api", "shop"][:services])],
        "DeployNextService": ends,
        "SettleRelease": settled,
    }


# Those whose states come one after the other: name → script, path, error, seconds waited.
ONE_WAY: dict[str, tuple[Script, str, str | None, list[int]]] = {
    "one service": (
        together(STARTED, settled=[ALL_WELL]),
        f"{PLAN} DeployTogether DeployService {SETTLE} ReleaseSucceeded",
        None,
        [],
    ),
    "one service, which fails": (
        together(FAILED, settled=[WAITING, ALL_BACK]),
        f"{PLAN} DeployTogether DeployService ServiceFailed {SETTLE} WaitForServices {SETTLE} "
        "ReleaseFailed",
        "ReleaseFailed",
        [3],
    ),
    "in order": (
        in_order(2, STARTED, STARTED, settled=[ALL_WELL]),
        f"{PLAN} DeployInOrder DeployNextService DeployNextService {SETTLE} ReleaseSucceeded",
        None,
        [],
    ),
    "in order, and the second of three fails": (
        in_order(3, STARTED, FAILED, settled=[ALL_BACK]),
        f"{PLAN} DeployInOrder DeployNextService DeployNextService {SETTLE} ReleaseFailed",
        "ReleaseFailed",
        [],
    ),
    "in order, and a name was used before": (
        in_order(1, Raised("StepFunctions.ExecutionAlreadyExistsException"), settled=[ALL_BACK]),
        f"{PLAN} DeployInOrder DeployNextService {SETTLE} ReleaseFailed",
        "ReleaseFailed",
        [],
    ),
    "a deployment takes too long": (
        together(TooSlow(), settled=[ALL_BACK]),
        f"{PLAN} DeployTogether DeployService ServiceFailed {SETTLE} ReleaseFailed",
        "ReleaseFailed",
        [],
    ),
    "refused before anything is started": (
        {"PlanRelease": [Raised("InvalidRequest", "service api: no container web")]},
        "Begin PlanRelease",
        "InvalidRequest",
        [],
    ),
    "how it ended cannot be found out": (
        together(STARTED, settled=[Raised("AwsRefused", "AccessDenied")]),
        f"{PLAN} DeployTogether DeployService SettleRelease",
        "AwsRefused",
        [],
    ),
    "a release that the map itself fails": (
        {
            "PlanRelease": [{**planned("parallel", "web"), "children": "no list"}],
            "SettleRelease": [ALL_BACK],
        },
        f"{PLAN} DeployTogether {SETTLE} ReleaseFailed",
        "ReleaseFailed",
        [],
    ),
}


@pytest.fixture(scope="module")
def state_machine() -> Iterator[Interpreter]:
    with interpreter(RELEASE) as started:
        yield started


@pytest.fixture(scope="module")
def runs(state_machine: Interpreter) -> Mapping[str, Run]:
    return {name: state_machine.run(REQUEST, one[0]) for name, one in ONE_WAY.items()}


@pytest.mark.parametrize("name", ONE_WAY)
def test_path(name: str, runs: Mapping[str, Run]) -> None:
    _, path, error, slept = ONE_WAY[name]
    run = runs[name]
    assert run.states == path.split()
    assert (run.status, run.error) == ("FAILED" if error else "SUCCEEDED", error)
    assert run.slept == slept
    assert run.output == (None if error else SERVICES)


def test_every_state_and_transition_is_taken_somewhere(runs: Mapping[str, Run]) -> None:
    entered = {state for run in runs.values() for state in run.states}
    assert set(RELEASE.states) - entered == set()
    found = {
        pair
        for run in runs.values()
        for before, after in pairwise(run.states)
        for pair in (
            (before, after),
            # Out of an iteration: what the Map leads to.
            (RELEASE.around.get(before), after),
        )
    }
    missing = [one for one in RELEASE.transitions if (one.source, one.target) not in found]
    assert [str(one) for one in missing] == []


@pytest.mark.parametrize("ends", [(STARTED, FAILED, STARTED), (FAILED, FAILED, FAILED)], ids=str)
def test_each_service_comes_to_its_own_end(
    ends: tuple[Answer, ...], state_machine: Interpreter
) -> None:
    """One that fails leaves the others alone, until SettleRelease takes all of them back."""
    run = state_machine.run(REQUEST, together(*ends, settled=[ALL_BACK]))
    assert run.states.count("DeployService") == 3
    assert run.states.count("ServiceFailed") == ends.count(FAILED)
    assert run.states[-3:] == [*SETTLE.split(), "ReleaseFailed"]
    assert {given["Name"] for given in run.given("DeployService")} == {
        "r-1-web",
        "r-1-api",
        "r-1-shop",
    }


def test_in_order_is_one_at_a_time_and_together_is_all_at_once() -> None:
    assert RELEASE.states["DeployInOrder"]["MaxConcurrency"] == 1
    assert "MaxConcurrency" not in RELEASE.states["DeployTogether"]


def test_no_service_is_started_after_one_that_failed(runs: Mapping[str, Run]) -> None:
    run = runs["in order, and the second of three fails"]
    assert [given["Name"] for given in run.given("DeployNextService")] == ["r-1-web", "r-1-api"]


def test_a_service_is_started_as_it_was_planned(runs: Mapping[str, Run]) -> None:
    for name, state in (("one service", "DeployService"), ("in order", "DeployNextService")):
        (first, *_) = runs[name].given(state)
        assert first["StateMachineArn"].endswith(":stateMachine:BlueGreenDeployment")
        assert first["Name"] == "r-1-web"
        assert first["Input"] == {"action": "deploy", "service": "web", "release": "r-1"}


def test_functions_are_told_the_execution_and_the_plan(runs: Mapping[str, Run]) -> None:
    """What deployments have answered is not carried on: the data of an execution is limited."""
    run = runs["one service, which fails"]
    for state, payload in run.invocations:
        if RELEASE.function_of(state):
            assert set(payload) == {"execution", "data"}
            assert payload["execution"]["Id"] == run.arn
    first, second = run.data("SettleRelease")
    assert first == {"request": REQUEST, "release": planned("parallel", "web")}
    assert second == {**first, "settled": WAITING}


def test_what_is_sent_cannot_say_what_states_say(state_machine: Interpreter) -> None:
    smuggled = {**REQUEST, "release": planned("parallel", "x"), "settled": ALL_WELL}
    run = state_machine.run(smuggled, {"PlanRelease": [Raised("InvalidRequest", "no such key")]})
    assert run.data("PlanRelease") == [{"request": smuggled}]
    assert (run.status, run.error) == ("FAILED", "InvalidRequest")


@pytest.mark.parametrize("state", ["PlanRelease", "SettleRelease"])
def test_a_passing_error_is_tried_again(state: str, state_machine: Interpreter) -> None:
    script = together(STARTED, settled=[ALL_WELL])
    answer: Any = script[state]
    passing = [Refused("ServiceException"), Raised("AwsUnavailable"), *answer]
    run = state_machine.run(REQUEST, {**script, state: passing})
    assert run.states == ONE_WAY["one service"][1].split()
    assert run.status == "SUCCEEDED"
    assert len(run.data(state)) == 3


@pytest.mark.parametrize("kind", ["StepFunctions.ThrottlingException", "States.Timeout"])
def test_a_deployment_is_started_once(kind: str, state_machine: Interpreter) -> None:
    run = state_machine.run(REQUEST, together(Raised(kind), settled=[ALL_BACK]))
    assert len(run.given("DeployService")) == 1
    assert run.error == "ReleaseFailed"
