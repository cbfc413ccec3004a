"""Every path through a deployment, run by an interpreter with scripted functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from bluegreen import outcome
from tests.statemachine.definition import DEPLOYMENT, Transition
from tests.statemachine.gate_scenarios import (
    AFTER_ASKING,
    AFTER_YES,
    APPROVED,
    ASKING_HOOK,
    BEFORE_ASKING,
    BEFORE_YES,
    GATES,
    MIGRATION,
    NETWORK,
    SAID_YES,
)
from tests.statemachine.interpreter import Interpreter, Raised, Run, interpreter
from tests.statemachine.scenarios import SCENARIOS
from tests.statemachine.scripts import (
    ASKING,
    BAKED,
    BAKING,
    COMMITTING,
    DEPLOY_WEB,
    DRAINED,
    DRAINING,
    HEALTHY,
    MORE_HOSTS,
    NOTHING_RESTORED,
    PLANNED,
    RECOVER,
    RESTORED,
    RESTORING,
    REVISION,
    ROLL_BACK,
    SHIFTED,
    STAGING,
    STARTED,
    Scenario,
    record,
    taken_over,
)
from tests.statemachine.test_rules import HOOKS

BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *GATES)}


@pytest.fixture(scope="module")
def state_machine() -> Iterator[Interpreter]:
    with interpreter(DEPLOYMENT) as started:
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
    known = {(one.source, one.target): one for one in DEPLOYMENT.transitions}
    for before, after in pairwise(states):
        source = before
        if DEPLOYMENT.around.get(after) not in (before, DEPLOYMENT.around.get(before)):
            source = DEPLOYMENT.around[before]
        transition = known[source, after]
        if source != before:
            ended = DEPLOYMENT.states[before]["Type"] == "Succeed"
            assert transition.how == "Next" if ended else transition.how.startswith("Catch")
        yield transition


def _requests(scenario: Scenario, run: Run) -> list[Any]:
    """What is asked for, first by a person and then, perhaps, by PlanRollBack's answer."""
    planned = scenario.script.get("PlanRollBack", [])
    answered = [] if callable(planned) else planned
    others = [one["request"] for one in answered if isinstance(one, dict)]
    assert len(others) == len([one for one in run.states if one == "WhichWay"]) or not others
    return [scenario.request, *others]


@pytest.mark.parametrize("name", BY_NAME)
def test_path(name: str, ran: Callable[[str], Run]) -> None:
    scenario, run = BY_NAME[name], ran(name)
    assert run.states == scenario.path.split()
    assert (run.status, run.error) == (scenario.status, scenario.error)
    assert scenario.cause in (run.cause or "")
    assert run.slept == scenario.slept
    if scenario.output is not None or run.status == "FAILED":
        assert run.output == scenario.output
    else:
        assert run.output["outcome"]["outcome"] == scenario.outcome
        assert run.output["request"] == _requests(scenario, run)[-1]


@pytest.mark.parametrize("name", BY_NAME)
def test_outcome_is_read_from_what_the_states_left(name: str, ran: Callable[[str], Run]) -> None:
    scenario, run = BY_NAME[name], ran(name)
    if scenario.outcome is not None:
        (data,) = run.data("RecordOutcome")
        assert outcome.decide(data).word == scenario.outcome
    else:
        # A dry run, a promotion; or nothing could be recorded.
        assert run.data("RecordOutcome") == [] or run.states[-1] == "RecordOutcome"


@pytest.mark.parametrize("name", BY_NAME)
def test_functions_are_told_the_execution_and_the_request(
    name: str, ran: Callable[[str], Run]
) -> None:
    run, requests = ran(name), list(_requests(BY_NAME[name], ran(name)))
    for state, payload in run.invocations:
        if DEPLOYMENT.function_of(state) is None:
            continue
        more = {"RequestApproval": {"token"}} | {one: {"point"} for one in HOOKS}
        assert set(payload) == {"execution", "data"} | more.get(state, set())
        assert payload["execution"]["Id"] == run.arn
        assert payload["execution"]["Name"] == run.arn.rpartition(":")[2]
        assert payload["data"]["request"] == requests[0]
        if state == "PlanRollBack":
            del requests[:-1]


def test_every_state_and_transition_is_taken_somewhere(ran: Callable[[str], Run]) -> None:
    runs = [ran(name) for name in BY_NAME]
    entered = {state for run in runs for state in run.states}
    assert set(DEPLOYMENT.states) - entered == set()
    found = {transition for run in runs for transition in taken(run.states)}
    assert [str(one) for one in sorted(set(DEPLOYMENT.transitions) - found)] == []


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
    assert run.data("CheckBake")[1]["idle"]["desired_count"] == 3


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


# What gates are given, and what they leave behind


def test_the_migration_is_run_as_it_was_planned(ran: Callable[[str], Run]) -> None:
    (plain,) = ran("every gate is stopped at").given("RunMigration")
    assert plain == {
        "Cluster": MIGRATION["cluster"],
        "TaskDefinition": MIGRATION["task_definition"],
        "LaunchType": MIGRATION["launch_type"],
        "Overrides": MIGRATION["overrides"],
        "PropagateTags": "TASK_DEFINITION",
        "StartedBy": "AWS Step Functions",
    }
    (in_vpc,) = ran("a migration in a network of its own").given("RunMigrationInVpc")
    assert in_vpc == {**plain, "NetworkConfiguration": NETWORK}


def test_what_a_migration_has_answered_is_not_carried_on(ran: Callable[[str], Run]) -> None:
    """Its description is long, and the data of an execution is limited."""
    (started,) = ran("every gate is stopped at").data("StartIdleColor")
    assert set(started) == {"request", "deployment", "hooks", "task_definition"}


def test_why_a_migration_failed_is_told_to_who_explains_it(ran: Callable[[str], Run]) -> None:
    (data,) = ran("a migration fails: by its exit code").data("ExplainMigration")
    assert data["migration_failure"] == {
        "Error": "States.TaskFailed",
        "Cause": '{"TaskArn": "…", "StoppedReason": "exit code 1"}',
    }
    assert data["task_definition"]["migration"] == MIGRATION
    (late,) = ran("a migration fails: its time is up").data("ExplainMigration")
    assert late["migration_failure"]["Error"] == "States.Timeout"


def test_each_point_of_the_hooks_has_its_word(ran: Callable[[str], Run]) -> None:
    run = ran("every gate is stopped at")
    for state, point in HOOKS.items():
        assert {payload["point"] for name, payload in run.invocations if name == state} == {point}


def test_a_hook_goes_on_from_its_last_answer(ran: Callable[[str], Run]) -> None:
    run = ran("every gate is stopped at")
    first, second = run.data("BeforeDeployment")
    assert "hooks" not in first
    assert second["hooks"] == ASKING_HOOK
    first, second = run.data("TestIdleColor")
    assert "testing" not in first
    assert second["testing"] == ASKING_HOOK
    # Whose answer that is, its point and step say.
    assert [data["hooks"] for data in run.data("AfterShift")] == [
        BEFORE_YES,
        AFTER_ASKING,
        BEFORE_YES,
    ]


def test_health_is_asked_again_with_what_was_said(ran: Callable[[str], Run]) -> None:
    first, tested, approved, *hooked = ran("every gate is stopped at").data("CheckHealth")
    assert not {"tested", "testing", "approval"} & set(first)
    assert tested["tested"] == SAID_YES
    assert "approval" not in tested
    assert approved["approval"] == APPROVED.output
    assert [data["hooks"] for data in hooked] == [BEFORE_ASKING, BEFORE_YES]


def test_the_new_colour_is_looked_at_after_every_word_of_a_hook(ran: Callable[[str], Run]) -> None:
    looks = ran("every gate is stopped at").data("CheckBake")
    assert [data["hooks"] for data in looks] == [
        BEFORE_YES,
        AFTER_ASKING,
        AFTER_YES,
        BEFORE_ASKING,
        BEFORE_YES,
        BEFORE_YES,
        AFTER_YES,
    ]


def test_the_answer_that_was_no_yes_is_shown(ran: Callable[[str], Run]) -> None:
    run = ran("a person answers something else: {'approved': 'true'}")
    assert '"approved":"true"' in (run.cause or "").replace(" ", "")


def test_hooks_after_the_end_are_told_how_it_ended(ran: Callable[[str], Run]) -> None:
    (data,) = ran("hooks are told of a failure too").data("AfterDeployment")
    assert data["outcome"]["outcome"] == "rolled_back"
    assert data["deployment"]["gates"]["after_deployment"] is True
    run = ran("hooks that fail after the end change nothing")
    assert run.output["hooks_failure"]["Error"] == "AwsRefused"


def test_what_is_deployed_again_is_a_request_like_any_other(ran: Callable[[str], Run]) -> None:
    (data,) = ran("what was live before is deployed again").data("PlanDeployment")
    assert set(data) == {"request", "recovery"}
    assert data["request"] == {"action": "deploy", "service": "web", "like": "d-0"}
