"""Every path through the state machine's file, run by an interpreter with scripted functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from bluegreen import outcome
from tests.statemachine.definition import TERMINAL, Transition, load
from tests.statemachine.interpreter import (
    Answer,
    Interpreter,
    NoAnswer,
    Raised,
    Refused,
    Run,
    Script,
    TooSlow,
    interpreter,
)

DEFINITION = load()

DEPLOY_WEB = {"action": "deploy", "service": "web", "images": {"web": "v2"}}
ROLL_BACK = {"action": "rollback", "deployment_id": "d-0"}
RECOVER = {"action": "recover", "deployment_id": "d-0"}

PLANNED = {"id": "d-1", "service": "web", "decision": "deploy", "fencing": 1}
ASKED = {"asked": {"commands": ["c-1"], "at": 1000.0}, "wait_seconds": 1}
ASKING = {**ASKED, "decision": "waiting", "since": 1000.0, "reason": "the hosts are being asked"}
NOTHING_TO_DO = {**PLANNED, "decision": "nothing_to_do"}
REVISION = {"arn": "arn:aws:ecs:ap-northeast-1:123456789012:task-definition/web:2"}
LEFTOVERS = {"status": "waiting", "reason": "2 tasks left are stopping", "wait_seconds": 1}
STARTED = {
    "status": "started",
    "ecs_deployment_id": "ecs-svc/1",
    "desired_count": 2,
    "started_at": 1000.0,
    "wait_seconds": 5,
}
NOT_YET = {"status": "waiting", "reason": "1 of 2 tasks running", "wait_seconds": 7}
HEALTHY = {"status": "healthy", "reason": "2 of 2 tasks and targets healthy", "wait_seconds": 7}
OUTGROWN = {"status": "outgrown", "reason": "the live colour has 3 tasks by now"}
STAGING = {"status": "waiting", "step": 0, "switch": {"phase": "staging"}, "wait_seconds": 2}
COMMITTING = {**STAGING, "switch": {"phase": "committing"}, "wait_seconds": 3}
SHIFTED = {"status": "shifted", "step": 0, "percent": 100, "proved_at": None, "wait_seconds": 1}
BAKING = {**SHIFTED, "status": "waiting", "proved_at": 1010.0, "wait_seconds": 4}
BAKED = {**BAKING, "status": "baked"}
# The same step again, for a host that has come meanwhile; and for one that has no task there yet.
LATE = {**BAKING, "status": "next_step", "reason": "i-4 came later"}
MORE_HOSTS = {**BAKING, "status": "outgrown", "reason": "there are more hosts than tasks by now"}
DRAINING = {"status": "waiting", "reason": "2 targets are draining", "since": 1, "wait_seconds": 6}
DRAINED = {**DRAINING, "status": "done", "reason": "the old colour has ended"}
RESTORING = {"status": "waiting", "reason": "traffic back", "as_before": True, "wait_seconds": 3}
RESTORED = {**RESTORING, "status": "restored", "reason": "all as before"}
NOTHING_RESTORED = {"status": "nothing_to_restore", "reason": "nothing was changed"}

BEGIN = "Begin WhatIsAskedFor"
PLAN = f"{BEGIN} PlanDeployment IsThereAnythingToDo"
REGISTER = f"{PLAN} Deploy RegisterTaskDefinition"
START = "StartIdleColor IsIdleColorStarted"
HEALTH = "CheckHealth IsIdleColorHealthy"
SHIFT = "ShiftTraffic IsShifted"
BAKE = "CheckBake IsBaked"
DRAIN = "DrainOldColor IsOldColorDrained"
LIVE = f"{REGISTER} {START} {HEALTH} {SHIFT} {BAKE} Baked"
UNDO = "RollBack IsRolledBack"
TAKE_OVER = f"{BEGIN} PlanRollBack Settle WhichWay"
SUCCEED = "RecordOutcome HowDidItEnd Succeeded"
FAIL = "RecordOutcome HowDidItEnd Failed"


def record(data: Mapping[str, Any]) -> dict[str, Any]:
    """What RecordOutcome answers: the project's own reading of what the states have left in $."""
    ended = outcome.decide(data)
    return {
        "outcome": ended.word,
        "error": ended.error,
        "cause": ended.reason,
        "execution": "succeed" if ended.good else "fail",
    }


def taken_over(direction: str, settle_seconds: int = 35) -> Callable[[Any], dict[str, Any]]:
    """PlanRollBack: its answer is the new $."""

    def answer(data: Mapping[str, Any]) -> dict[str, Any]:
        recovery = {
            "deployment_id": "d-0",
            "direction": direction,
            "settle_seconds": settle_seconds,
            "reason": "its execution ended",
        }
        return {**data, "recovery": recovery, "deployment": {**PLANNED, "id": "d-0", "fencing": 2}}

    return answer


def deploying(**answers: Sequence[Answer]) -> Script:
    """A deployment in which all goes well, but for the given functions; [] is never asked."""
    return {
        "PlanDeployment": [PLANNED],
        "RegisterTaskDefinition": [REVISION],
        "StartIdleColor": [STARTED],
        "CheckHealth": [HEALTHY],
        "ShiftTraffic": [SHIFTED],
        "CheckBake": [BAKED],
        "DrainOldColor": [DRAINED],
        "RecordOutcome": record,
        **answers,
    }


def failing(state: str, error: Raised, *passes: Answer, before: Sequence[Answer] = ()) -> Script:
    """A deployment in which a function of the try block raises, after some answers perhaps;
    passes: RollBack's answers.
    """
    broken: list[Answer] = [*before, error]
    script = dict(deploying(**{state: broken}))
    states = [name for name in script if name != "RecordOutcome"]
    for later in states[states.index(state) + 1 :]:
        del script[later]
    return {**script, "RollBack": list(passes or [RESTORED])}


@dataclass(frozen=True)
class Scenario:
    """path: the states entered. slept: seconds waited. cause: a part of it."""

    name: str
    request: Any
    script: Script
    path: str
    outcome: str | None
    status: str = "SUCCEEDED"
    error: str | None = None
    cause: str = ""
    slept: list[int] = field(default_factory=list)


SCENARIOS = [
    Scenario(
        "deployed straight",
        DEPLOY_WEB,
        deploying(),
        f"{LIVE} {DRAIN} {SUCCEED}",
        "succeeded",
    ),
    Scenario(
        "deployed without naming the action",
        {"service": "web", "images": {"web": "v2"}},
        deploying(),
        f"{LIVE} {DRAIN} {SUCCEED}",
        "succeeded",
    ),
    Scenario(
        "live already",
        DEPLOY_WEB,
        {"PlanDeployment": [NOTHING_TO_DO], "RecordOutcome": record},
        f"{PLAN} {SUCCEED}",
        "nothing_to_do",
    ),
    Scenario(
        "refused",
        DEPLOY_WEB,
        {
            "PlanDeployment": [Raised("LockHeld", "web is being deployed by d-0")],
            "RollBack": [NOTHING_RESTORED],
            "RecordOutcome": record,
        },
        f"{BEGIN} PlanDeployment {UNDO} {FAIL}",
        "refused",
        "FAILED",
        "LockHeld",
        "web is being deployed by d-0",
    ),
    Scenario(
        "a plan that fails after it was written down is undone",
        DEPLOY_WEB,
        {
            "PlanDeployment": [Raised("AwsRefused", "AccessDenied")],
            "RollBack": [RESTORED],
            "RecordOutcome": record,
        },
        f"{BEGIN} PlanDeployment {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "AwsRefused",
        "AccessDenied\nall as before",
    ),
    Scenario(
        "leftovers are waited for",
        DEPLOY_WEB,
        deploying(StartIdleColor=[LEFTOVERS, LEFTOVERS, STARTED]),
        f"{REGISTER} {START} WaitForIdleColor {START} WaitForIdleColor {START} {HEALTH} "
        f"{SHIFT} {BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[1, 1],
    ),
    Scenario(
        "the live colour scales out meanwhile",
        DEPLOY_WEB,
        deploying(CheckHealth=[OUTGROWN, HEALTHY], StartIdleColor=[STARTED, STARTED]),
        f"{REGISTER} {START} {HEALTH} {START} {HEALTH} {SHIFT} {BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
    ),
    Scenario(
        "health is waited for",
        DEPLOY_WEB,
        deploying(CheckHealth=[NOT_YET, {**NOT_YET, "wait_seconds": 2}, HEALTHY]),
        f"{REGISTER} {START} {HEALTH} WaitForHealth {HEALTH} WaitForHealth {HEALTH} "
        f"{SHIFT} {BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[7, 2],
    ),
    Scenario(
        "the bake is waited for",
        DEPLOY_WEB,
        deploying(CheckBake=[BAKING, BAKING, BAKED]),
        f"{REGISTER} {START} {HEALTH} {SHIFT} {BAKE} WaitForBake {BAKE} WaitForBake {BAKE} "
        f"Baked {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[4, 4],
    ),
    Scenario(
        "a canary goes on step by step",
        DEPLOY_WEB,
        deploying(
            ShiftTraffic=[{**SHIFTED, "percent": 10}, {**SHIFTED, "step": 1}],
            CheckBake=[
                {**BAKING, "percent": 10},
                {**BAKING, "percent": 10, "status": "next_step", "step": 1},
                {**BAKED, "step": 1},
            ],
        ),
        f"{REGISTER} {START} {HEALTH} {SHIFT} {BAKE} WaitForBake {BAKE} "
        f"{SHIFT} {BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[4],
    ),
    Scenario(
        "hosts are asked before there is a plan",
        DEPLOY_WEB,
        deploying(PlanDeployment=[ASKING, {**ASKING, "wait_seconds": 4}, PLANNED]),
        f"{PLAN} WaitForPlan PlanDeployment IsThereAnythingToDo WaitForPlan "
        f"{LIVE.removeprefix(BEGIN + ' ')} {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[1, 4],
    ),
    Scenario(
        "hosts do not answer before there is a plan",
        DEPLOY_WEB,
        {
            "PlanDeployment": [ASKING, Raised("DeploymentRefused", "host i-2 does not say what")],
            "RollBack": [NOTHING_RESTORED],
            "RecordOutcome": record,
        },
        f"{PLAN} WaitForPlan PlanDeployment {UNDO} {FAIL}",
        "refused",
        "FAILED",
        "DeploymentRefused",
        "host i-2 does not say what",
        slept=[1],
    ),
    Scenario(
        "hosts are switched in several passes",
        DEPLOY_WEB,
        deploying(ShiftTraffic=[STAGING, COMMITTING, SHIFTED]),
        f"{REGISTER} {START} {HEALTH} {SHIFT} WaitForShift {SHIFT} WaitForShift {SHIFT} "
        f"{BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[2, 3],
    ),
    Scenario(
        "a host that appears while the others bake is brought in",
        DEPLOY_WEB,
        deploying(ShiftTraffic=[SHIFTED, STAGING, SHIFTED], CheckBake=[LATE, BAKED]),
        f"{REGISTER} {START} {HEALTH} {SHIFT} {BAKE} {SHIFT} WaitForShift {SHIFT} "
        f"{BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[2],
    ),
    Scenario(
        "more hosts than tasks while they bake",
        DEPLOY_WEB,
        deploying(
            StartIdleColor=[STARTED, {**STARTED, "desired_count": 3}],
            CheckHealth=[HEALTHY, HEALTHY],
            ShiftTraffic=[SHIFTED, SHIFTED],
            CheckBake=[MORE_HOSTS, BAKED],
        ),
        f"{REGISTER} {START} {HEALTH} {SHIFT} {BAKE} {START} {HEALTH} {SHIFT} "
        f"{BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
    ),
    Scenario(
        "the drain is waited for",
        DEPLOY_WEB,
        deploying(DrainOldColor=[{**DRAINING, "wait_seconds": 3600}, DRAINING, DRAINED]),
        f"{LIVE} {DRAIN} WaitForDrain {DRAIN} WaitForDrain {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[3600, 6],
    ),
    Scenario(
        "a failed drain is no failed deployment",
        DEPLOY_WEB,
        deploying(DrainOldColor=[DRAINING, Raised("DrainFailed", "2 tasks do not stop")]),
        f"{LIVE} {DRAIN} WaitForDrain DrainOldColor {SUCCEED}",
        "succeeded",
        slept=[6],
    ),
    Scenario(
        "the task definition is refused",
        DEPLOY_WEB,
        failing("RegisterTaskDefinition", Raised("AwsRefused", "iam:PassRole")),
        f"{REGISTER} {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "AwsRefused",
        "iam:PassRole\nall as before",
    ),
    Scenario(
        "leftovers do not stop",
        DEPLOY_WEB,
        failing("StartIdleColor", Raised("IdleColorUnhealthy", "2 tasks do not stop")),
        f"{REGISTER} StartIdleColor {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "IdleColorUnhealthy",
        "2 tasks do not stop\nall as before",
    ),
    Scenario(
        "an unhealthy version is undone in several passes",
        DEPLOY_WEB,
        failing(
            "CheckHealth",
            Raised("IdleColorUnhealthy", "green: 3 tasks died\n  exit code 137"),
            RESTORING,
            {**RESTORING, "wait_seconds": 2},
            RESTORED,
        ),
        f"{REGISTER} {START} CheckHealth {UNDO} WaitForRollBack {UNDO} WaitForRollBack {UNDO} "
        f"{FAIL}",
        "rolled_back",
        "FAILED",
        "IdleColorUnhealthy",
        "green: 3 tasks died\n  exit code 137\nall as before",
        slept=[3, 2],
    ),
    Scenario(
        "the shift finds somebody else's traffic",
        DEPLOY_WEB,
        failing(
            "ShiftTraffic",
            Raised("TrafficChanged", "found blue 50, green 50"),
            {**RESTORED, "as_before": False, "reason": "it is left so"},
        ),
        f"{REGISTER} {START} {HEALTH} ShiftTraffic {UNDO} {FAIL}",
        "traffic_left",
        "FAILED",
        "TrafficChanged",
        "found blue 50, green 50\nit is left so",
    ),
    Scenario(
        "a host is not ready to switch",
        DEPLOY_WEB,
        failing("ShiftTraffic", Raised("HostNotReady", "host i-2: nginx -t failed")),
        f"{REGISTER} {START} {HEALTH} ShiftTraffic {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "HostNotReady",
        "host i-2: nginx -t failed\nall as before",
    ),
    Scenario(
        "a host does not switch with the others",
        DEPLOY_WEB,
        failing(
            "ShiftTraffic",
            Raised("HostNotSwitched", "host i-2: too late"),
            RESTORING,
            RESTORED,
            before=[STAGING, COMMITTING],
        ),
        f"{REGISTER} {START} {HEALTH} {SHIFT} WaitForShift {SHIFT} WaitForShift ShiftTraffic "
        f"{UNDO} WaitForRollBack {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "HostNotSwitched",
        "host i-2: too late\nall as before",
        slept=[2, 3, 3],
    ),
    Scenario(
        "the bake fails",
        DEPLOY_WEB,
        failing("CheckBake", Raised("SwitchNotProved", "the load balancer does not follow")),
        f"{REGISTER} {START} {HEALTH} {SHIFT} CheckBake {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "SwitchNotProved",
        "the load balancer does not follow\nall as before",
    ),
    Scenario(
        "the rollback fails too",
        DEPLOY_WEB,
        failing(
            "CheckBake",
            Raised("IdleColorUnhealthy", "no healthy target is left"),
            RESTORING,
            Raised("RollBackIncomplete", "the services do not come back"),
        ),
        f"{REGISTER} {START} {HEALTH} {SHIFT} CheckBake {UNDO} WaitForRollBack RollBack {FAIL}",
        "rollback_incomplete",
        "FAILED",
        "RollBackIncomplete",
        "no healthy target is left\nthe rollback did not end: the services do not come back",
        slept=[3],
    ),
    Scenario(
        "another execution has taken over",
        DEPLOY_WEB,
        failing("CheckHealth", Raised("LockLost", "d-1 is over"), Raised("LockLost", "it is over")),
        f"{REGISTER} {START} CheckHealth RollBack {FAIL}",
        "failed",
        "FAILED",
        "LockLost",
        "it is over; it says how this ended",
    ),
    Scenario(
        "undone by hand while it drains",
        DEPLOY_WEB,
        deploying(DrainOldColor=[DRAINING, Raised("LockLost", "another one has it")]),
        f"{LIVE} {DRAIN} WaitForDrain DrainOldColor {FAIL}",
        "failed",
        "FAILED",
        "LockLost",
        "another one has it; it says how this ended",
        slept=[6],
    ),
    Scenario(
        "undone by hand while its old colour is warm",
        DEPLOY_WEB,
        deploying(
            DrainOldColor=[
                {**DRAINING, "wait_seconds": 3600},
                {"status": "done", "undone": True, "reason": "it was rolled back since"},
            ]
        ),
        f"{LIVE} {DRAIN} WaitForDrain {DRAIN} {FAIL}",
        "rolled_back",
        "FAILED",
        "RolledBack",
        "it was rolled back since",
        slept=[3600],
    ),
    Scenario(
        "somebody gives the old colour traffic again while it drains",
        DEPLOY_WEB,
        deploying(DrainOldColor=[DRAINING, Raised("TrafficChanged", "blue traffic again")]),
        f"{LIVE} {DRAIN} WaitForDrain DrainOldColor {FAIL}",
        "traffic_left",
        "FAILED",
        "TrafficChanged",
        "blue traffic again",
        slept=[6],
    ),
    Scenario(
        "rolled back by hand",
        ROLL_BACK,
        {
            "PlanRollBack": taken_over("roll_back", settle_seconds=0),
            "RollBack": [RESTORING, RESTORED],
            "RecordOutcome": record,
        },
        f"{TAKE_OVER} {UNDO} WaitForRollBack {UNDO} {SUCCEED}",
        "rolled_back",
        slept=[0, 3],
    ),
    Scenario(
        "a rollback by hand is refused",
        ROLL_BACK,
        {
            "PlanRollBack": [Raised("DeploymentRefused", "d-1 came after it")],
            "RecordOutcome": record,
        },
        f"{BEGIN} PlanRollBack {FAIL}",
        "refused",
        "FAILED",
        "DeploymentRefused",
        "d-1 came after it",
    ),
    Scenario(
        "a lost deployment is undone",
        RECOVER,
        {
            "PlanRollBack": taken_over("roll_back"),
            "RollBack": [RESTORED],
            "RecordOutcome": record,
        },
        f"{TAKE_OVER} {UNDO} {SUCCEED}",
        "rolled_back",
        slept=[35],
    ),
    Scenario(
        "a deployment that was lost while it drained is finished",
        RECOVER,
        {
            "PlanRollBack": taken_over("finish"),
            "DrainOldColor": [DRAINING, DRAINED],
            "RecordOutcome": record,
        },
        f"{TAKE_OVER} {DRAIN} WaitForDrain {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[35, 6],
    ),
    Scenario(
        "the outcome cannot be recorded",
        DEPLOY_WEB,
        deploying(RecordOutcome=[Raised("AwsRefused", "AccessDenied")]),
        f"{LIVE} {DRAIN} RecordOutcome",
        None,
        "FAILED",
        "AwsRefused",
        "AccessDenied",
    ),
]
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.fixture(scope="module")
def state_machine() -> Iterator[Interpreter]:
    with interpreter() as started:
        yield started


@pytest.fixture(scope="module")
def ran(state_machine: Interpreter) -> Callable[[str], Run]:
    """Runs a scenario once, whoever asks for it."""
    runs: dict[str, Run] = {}

    def run(name: str) -> Run:
        if name not in runs:
            runs[name] = state_machine.run(BY_NAME[name].request, BY_NAME[name].script)
        return runs[name]

    return run


def taken(states: list[str]) -> Iterator[Transition]:
    """The transitions between the states that were entered, one after the other."""
    known = {(one.source, one.target): one for one in DEFINITION.transitions}
    for before, after in pairwise(states):
        source = before
        if DEFINITION.around.get(after) not in (before, DEFINITION.around.get(before)):
            source = DEFINITION.around[before]
        transition = known[source, after]
        if source != before:
            ended = DEFINITION.states[before]["Type"] in TERMINAL
            assert transition.how == "Next" if ended else transition.how.startswith("Catch")
        yield transition


@pytest.mark.parametrize("name", BY_NAME)
def test_path(name: str, ran: Callable[[str], Run]) -> None:
    scenario, run = BY_NAME[name], ran(name)
    assert run.states == scenario.path.split()
    assert (run.status, run.error) == (scenario.status, scenario.error)
    assert scenario.cause in (run.cause or "")
    assert run.slept == scenario.slept
    if run.status == "SUCCEEDED":
        assert run.output["outcome"]["outcome"] == scenario.outcome
        assert run.output["request"] == scenario.request
    else:
        assert run.output is None


@pytest.mark.parametrize("name", BY_NAME)
def test_outcome_is_read_from_what_the_states_left(name: str, ran: Callable[[str], Run]) -> None:
    scenario = BY_NAME[name]
    (data,) = ran(name).data("RecordOutcome")
    if scenario.outcome is not None:
        assert outcome.decide(data).word == scenario.outcome


@pytest.mark.parametrize("name", BY_NAME)
def test_functions_are_told_the_execution_and_the_request(
    name: str, ran: Callable[[str], Run]
) -> None:
    run = ran(name)
    for _, payload in run.invocations:
        assert set(payload) == {"execution", "data"}
        assert payload["execution"]["Id"] == run.arn
        assert payload["execution"]["Name"] == run.arn.rpartition(":")[2]
        assert payload["data"]["request"] == BY_NAME[name].request


def test_every_state_and_transition_is_taken_somewhere(ran: Callable[[str], Run]) -> None:
    runs = [ran(name) for name in BY_NAME]
    entered = {state for run in runs for state in run.states}
    assert set(DEFINITION.states) - entered == set()
    found = {transition for run in runs for transition in taken(run.states)}
    assert [str(one) for one in sorted(set(DEFINITION.transitions) - found)] == []


# What functions are given


def test_states_add_up(ran: Callable[[str], Run]) -> None:
    """Every state is given what those before it have answered, each under a key of its own."""
    run = ran("a canary goes on step by step")
    first = {"request": DEPLOY_WEB}
    planned = {**first, "deployment": PLANNED}
    registered = {**planned, "task_definition": REVISION}
    started = {**registered, "idle": STARTED}
    healthy = {**started, "health": HEALTHY}
    ten = {**healthy, "shift": {**SHIFTED, "percent": 10}}
    next_step = {**BAKING, "percent": 10, "status": "next_step", "step": 1}
    baked = {**healthy, "shift": {**BAKED, "step": 1}}
    drained = {**baked, "drain": DRAINED}
    assert run.invocations == [
        (state, {"execution": run.invocations[0][1]["execution"], "data": data})
        for state, data in [
            ("PlanDeployment", first),
            ("RegisterTaskDefinition", planned),
            ("StartIdleColor", registered),
            ("CheckHealth", started),
            ("ShiftTraffic", healthy),
            ("CheckBake", ten),
            ("CheckBake", {**healthy, "shift": {**BAKING, "percent": 10}}),
            ("ShiftTraffic", {**healthy, "shift": next_step}),
            ("CheckBake", {**healthy, "shift": {**SHIFTED, "step": 1}}),
            ("DrainOldColor", baked),
            ("RecordOutcome", drained),
        ]
    ]
    assert run.output == {**drained, "outcome": record(drained)}


def test_roll_back_is_given_the_error_and_the_plan(ran: Callable[[str], Run]) -> None:
    """What the try block has answered is gone with it."""
    first, second, _ = ran("an unhealthy version is undone in several passes").data("RollBack")
    assert set(first) == {"request", "deployment", "failure"}
    assert first["deployment"] == PLANNED
    assert first["failure"]["Error"] == "IdleColorUnhealthy"
    assert outcome.reason_of(first["failure"]) == "green: 3 tasks died\n  exit code 137"
    assert second == {**first, "rollback": RESTORING}


def test_progress_is_kept_from_pass_to_pass(ran: Callable[[str], Run]) -> None:
    first, second, third = ran("the drain is waited for").data("DrainOldColor")
    assert "drain" not in first
    assert second["drain"] == {**DRAINING, "wait_seconds": 3600}
    assert third["drain"] == DRAINING


def test_a_switch_that_is_under_way_goes_on_from_its_last_pass(ran: Callable[[str], Run]) -> None:
    first, second, third = ran("hosts are switched in several passes").data("ShiftTraffic")
    assert "shift" not in first
    assert (second["shift"], third["shift"]) == (STAGING, COMMITTING)


def test_hosts_that_are_asked_for_a_plan_are_no_plan_yet(ran: Callable[[str], Run]) -> None:
    first, second, third = ran("hosts are asked before there is a plan").data("PlanDeployment")
    assert first == {"request": DEPLOY_WEB}
    assert second == {**first, "deployment": ASKING}
    assert third == {**first, "deployment": {**ASKING, "wait_seconds": 4}}
    run = ran("hosts do not answer before there is a plan")
    (undo,), (record,) = run.data("RollBack"), run.data("RecordOutcome")
    assert undo["deployment"] == record["deployment"] == ASKING


def test_a_host_that_came_late_is_brought_in_by_the_step_that_was_taken(
    ran: Callable[[str], Run],
) -> None:
    _, again, _ = ran("a host that appears while the others bake is brought in").data(
        "ShiftTraffic"
    )
    assert (again["shift"]["step"], again["shift"]["percent"]) == (SHIFTED["step"], 100)
    run = ran("more hosts than tasks while they bake")
    assert run.data("StartIdleColor")[1]["shift"] == MORE_HOSTS
    assert run.data("ShiftTraffic")[1]["idle"]["desired_count"] == 3


def test_failures_are_told_apart(ran: Callable[[str], Run]) -> None:
    (drain,) = ran("a failed drain is no failed deployment").data("RecordOutcome")
    assert drain["drain_failure"]["Error"] == "DrainFailed"
    assert "failure" not in drain
    (undo,) = ran("the rollback fails too").data("RecordOutcome")
    assert undo["failure"]["Error"] == "IdleColorUnhealthy"
    assert undo["rollback_failure"]["Error"] == "RollBackIncomplete"


def test_a_plan_to_roll_back_is_the_new_data(ran: Callable[[str], Run]) -> None:
    (data,) = ran("a lost deployment is undone").data("RollBack")
    assert data == taken_over("roll_back")({"request": RECOVER})


SMUGGLED = {
    "deployment": {**PLANNED, "fencing": 99},
    "recovery": {"deployment_id": "d-9", "direction": "finish", "settle_seconds": 0},
    "failure": {"Error": "LockHeld", "Cause": ""},
    "rollback": RESTORED,
    "drain": DRAINED,
    "shift": BAKED,
    "outcome": {"execution": "succeed"},
}


@pytest.mark.parametrize(
    ("request_", "first"),
    [
        ({**DEPLOY_WEB, **SMUGGLED}, "PlanDeployment"),
        ({**ROLL_BACK, **SMUGGLED}, "PlanRollBack"),
        ({**RECOVER, **SMUGGLED}, "PlanRollBack"),
        ({"request": ROLL_BACK, **SMUGGLED}, "PlanDeployment"),
        ({}, "PlanDeployment"),
        ({"action": None}, "PlanDeployment"),
        ({"action": ["rollback"]}, "PlanDeployment"),
        ({"action": "Rollback"}, "PlanDeployment"),
        ([ROLL_BACK], "PlanDeployment"),
        ("rollback", "PlanDeployment"),
        (None, "PlanDeployment"),
    ],
    ids=str,
)
def test_a_request_cannot_say_what_states_say(
    request_: Any, first: str, state_machine: Interpreter
) -> None:
    """Whatever is sent is under $.request, and only its action decides where to begin."""
    refused = Raised("InvalidRequest", "no such key")
    script: dict[str, Any] = {first: [refused], "RecordOutcome": record}
    if first == "PlanDeployment":
        script["RollBack"] = [NOTHING_RESTORED]
    run = state_machine.run(request_, script)
    assert run.data(first) == [{"request": request_}]
    failure = run.data("RecordOutcome")[0]["failure"]
    for data in run.data("RollBack"):
        assert data == {"request": request_, "failure": failure}
    assert (run.status, run.error, run.cause) == ("FAILED", "InvalidRequest", "no such key")


# Trying again


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


@pytest.mark.parametrize("state", DEFINITION.of_type("Task"))
def test_every_task_tries_again(state: str, state_machine: Interpreter) -> None:
    """Once the API, once AWS behind the function; then all goes on as if nothing had been."""
    passing: list[Answer] = [Refused("ServiceException"), Raised("AwsUnavailable")]
    scenario = BY_NAME[
        {
            "PlanRollBack": "a lost deployment is undone",
            "RollBack": "the bake fails",
        }.get(state, "deployed straight")
    ]
    undisturbed = state_machine.run(scenario.request, scenario.script)
    answer: Any = {
        **scenario.script,
        "PlanRollBack": [taken_over("roll_back")({"request": RECOVER})],
        "RecordOutcome": [{"outcome": "succeeded", "execution": "succeed"}],
    }[state]
    run = state_machine.run(scenario.request, {**scenario.script, state: [*passing, *answer]})
    assert run.states == undisturbed.states
    assert (run.status, run.error, run.cause) == (
        undisturbed.status,
        undisturbed.error,
        undisturbed.cause,
    )
    assert len(run.data(state)) == len(undisturbed.data(state)) + 2


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
