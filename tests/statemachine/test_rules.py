"""The rules of the workflow, as the graph of its states has to keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import pytest

from bluegreen.configuration import HookPoint
from bluegreen.deployment import DeployRequest, Gates, PromoteRequest, RollBackRequest
from tests.statemachine.definition import DEPLOYMENT, TERMINAL, comparisons

TASKS = DEPLOYMENT.of_type("Task")
INSIDE = {name for name in TASKS if DEPLOYMENT.around.get(name) == "Deploy"}
# State → the point of the user's functions that it asks.
HOOKS = {
    "BeforeDeployment": "before_deployment",
    "TestIdleColor": "idle_healthy",
    "BeforeShift": "before_shift",
    "AfterShift": "after_shift",
    "AfterDeployment": "after_deployment",
}
MIGRATIONS = {"RunMigration", "RunMigrationInVpc"}
MOVES_TRAFFIC = {"ShiftTraffic", "RollBack", "Deploy"}


def _catch(state: Mapping[str, Any]) -> Mapping[str, Any]:
    (catcher,) = state["Catch"]
    assert catcher["ErrorEquals"] == ["States.ALL"]
    return dict(catcher)


def _targets(state: str) -> set[str]:
    return {one.target for one in DEPLOYMENT.transitions if one.source == state}


# How it begins and ends


def test_nothing_ends_without_record_outcome_but_what_changes_nothing() -> None:
    """The lock is released there."""
    without = DEPLOYMENT.reachable(DEPLOYMENT.start, without="RecordOutcome")
    top = {name for name in DEPLOYMENT.of_type(*TERMINAL) if name not in DEPLOYMENT.around}
    assert top == {"Succeeded", "Failed", "Planned", "Promoted"}
    assert top & without == {"Planned", "Promoted"}


def test_a_dry_run_and_a_promotion_are_over_at_once() -> None:
    """Neither holds a lock, and neither has begun anything that would have to be undone."""
    into = {one.source for one in DEPLOYMENT.transitions if one.target == "Planned"}
    assert into == {"IsThereAnythingToDo", "WhichWay"}
    for name in into:
        (rule,) = (one for one in DEPLOYMENT.states[name]["Choices"] if one["Next"] == "Planned")
        assert rule["StringEquals"] == "dry_run"
    assert {one.source for one in DEPLOYMENT.transitions if one.target == "Promoted"} == {"Promote"}
    assert _targets("Promote") == {"Promoted"}
    assert {one.source for one in DEPLOYMENT.transitions if one.target == "Promote"} == {
        "WhatIsAskedFor"
    }


def test_nothing_but_hooks_follows_the_record_of_the_outcome() -> None:
    after = DEPLOYMENT.reachable("RecordOutcome") - {"RecordOutcome"}
    assert after & set(TASKS) == {"AfterDeployment"}
    assert _catch(DEPLOYMENT.states["AfterDeployment"])["Next"] == "HowDidItEnd"


def test_hooks_cannot_change_how_it_ended() -> None:
    without = DEPLOYMENT.reachable(DEPLOYMENT.start, without="HowDidItEnd")
    assert not {"Succeeded", "Failed"} & without
    (rule,) = DEPLOYMENT.states["HowDidItEnd"]["Choices"]
    assert rule["Variable"] == "$.outcome.execution"
    written = {DEPLOYMENT.states[one].get("ResultPath") for one in HOOKS}
    assert written == {"$.hooks", "$.testing"}


def test_the_request_is_kept_apart() -> None:
    begin = DEPLOYMENT.states[DEPLOYMENT.start]
    assert begin["Parameters"] == {"request.$": "$"}
    written = [
        writer.get("ResultPath")
        for state in DEPLOYMENT.states.values()
        for writer in (state, *state.get("Catch", []))
    ]
    assert not [path for path in written if path and path.startswith("$.request")]


def test_the_request_decides_where_to_begin() -> None:
    begins = {
        rule["Next"]: {one["StringEquals"] for one in comparisons(rule) if "StringEquals" in one}
        for rule in DEPLOYMENT.states["WhatIsAskedFor"]["Choices"]
    }
    assert begins == {
        "PlanRollBack": set(get_args(get_type_hints(RollBackRequest)["action"])),
        "Promote": set(get_args(get_type_hints(PromoteRequest)["action"])),
    }
    assert DEPLOYMENT.states["WhatIsAskedFor"]["Default"] == "PlanDeployment"
    known = {action for actions in begins.values() for action in actions}
    assert not known & set(get_args(get_type_hints(DeployRequest)["action"]))


def test_the_request_may_lack_what_is_asked_of_it() -> None:
    """A Choice that compares what is not there fails the execution, and no Catch sees that."""
    for rule in DEPLOYMENT.states["WhatIsAskedFor"]["Choices"]:
        first, *_ = rule["And"]
        assert first == {"Variable": "$.request.action", "IsPresent": True}


# What is undone, and what is not


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"RecordOutcome", "Promote"}))
def test_whatever_a_task_raises_is_caught(name: str) -> None:
    """What is left: nothing can be done about an outcome that cannot be recorded, and a promotion
    has changed nothing.
    """
    state = DEPLOYMENT.states[DEPLOYMENT.around.get(name, name)]
    assert _catch(state)["ResultPath"].startswith("$."), "what was known so far has to stay"


def test_everything_that_changes_something_before_the_bake_is_undone() -> None:
    assert {
        "RegisterTaskDefinition",
        "ExplainMigration",
        "StartIdleColor",
        "CheckHealth",
        "RequestApproval",
        "ShiftTraffic",
        "CheckBake",
        *MIGRATIONS,
        *(set(HOOKS) - {"AfterDeployment"}),
    } == INSIDE
    assert _catch(DEPLOYMENT.states["Deploy"])["Next"] == "RollBack"
    assert _catch(DEPLOYMENT.states["PlanDeployment"])["Next"] == "RollBack"


@pytest.mark.parametrize("name", sorted(DEPLOYMENT.of_type("Fail")))
def test_a_branch_fails_with_an_error_that_is_ours(name: str) -> None:
    if name in DEPLOYMENT.around:
        assert DEPLOYMENT.states[name]["Error"] in ("MigrationFailed", "NotApproved")


@pytest.mark.parametrize("name", sorted(one for one in INSIDE if "Catch" in TASKS[one]))
def test_what_is_caught_inside_is_explained_or_decided_and_goes_no_way_of_its_own(
    name: str,
) -> None:
    caught = {"RequestApproval": "WhatWithoutAnswer"} | dict.fromkeys(
        MIGRATIONS, "ExplainMigration"
    )
    (catcher,) = TASKS[name]["Catch"]
    assert catcher["Next"] == caught[name]


def test_a_failed_drain_never_moves_traffic() -> None:
    after = DEPLOYMENT.reachable(_catch(DEPLOYMENT.states["DrainOldColor"])["Next"])
    assert not after & MOVES_TRAFFIC
    assert not DEPLOYMENT.reachable("IsOldColorDrained") & MOVES_TRAFFIC


def test_a_rollback_never_shifts() -> None:
    """Not even when it fails; a version that is deployed again is a deployment of its own."""
    assert not DEPLOYMENT.reachable("RollBack") & {"ShiftTraffic", "Deploy", "DrainOldColor"}


# The order of things


def test_traffic_is_shifted_only_to_what_was_healthy() -> None:
    looks = {"CheckHealth", "CheckBake"}
    into = {one.source for one in DEPLOYMENT.transitions if one.target == "ShiftTraffic"}
    assert into == {"IsIdleColorHealthy", "IsBaked", "WaitForShift"}
    for name in ("IsIdleColorHealthy", "IsBaked"):
        assert {one.source for one in DEPLOYMENT.transitions if one.target == name} <= looks


@pytest.mark.parametrize("name", ["TestIdleColor", "RequestApproval", "BeforeShift", "AfterShift"])
def test_health_is_looked_at_again_after_what_may_have_taken_long(name: str) -> None:
    """Tests and people take their time; what was healthy before them may not be any more."""
    after = {one.target for one in DEPLOYMENT.transitions if one.source == name}
    assert after
    looks = {"CheckHealth", "CheckBake"}
    for target in after:
        reached, ahead = set[str](), [target]
        while ahead:
            state = ahead.pop()
            if state not in reached | looks:
                reached.add(state)
                ahead += _targets(state)
        assert "ShiftTraffic" not in reached


def test_under_traffic_it_is_bake_that_looks() -> None:
    (rule,) = DEPLOYMENT.states["LookAgain"]["Choices"]
    assert rule == {"Variable": "$.shift", "IsPresent": True, "Next": "CheckBake"}
    assert DEPLOYMENT.states["LookAgain"]["Default"] == "CheckHealth"


def test_what_is_started_under_traffic_is_looked_at_by_bake_and_nothing_else_is() -> None:
    """Only hosts that were asked, for seconds, are waited for without a look between."""
    choice = DEPLOYMENT.states["IsIdleColorStarted"]
    has_traffic = {"Variable": "$.shift", "IsPresent": True}
    assert choice["Choices"] == [
        {
            "And": [{"Variable": "$.idle.status", "StringEquals": "started"}, has_traffic],
            "Next": "CheckBake",
        },
        {"Variable": "$.idle.status", "StringEquals": "started", "Next": "CheckHealth"},
        {
            "And": [has_traffic, {"Variable": "$.idle.asked", "IsPresent": False}],
            "Next": "WaitForMoreHosts",
        },
    ]
    assert DEPLOYMENT.states["WaitForMoreHosts"]["Next"] == "CheckBake"


@pytest.mark.parametrize(
    ("name", "looks"), [("BeforeShift", "LookAgain"), ("AfterShift", "CheckBake")]
)
def test_no_function_is_asked_twice_under_traffic_without_a_look_between(
    name: str, looks: str
) -> None:
    assert name not in DEPLOYMENT.reachable(*_targets(name), without=looks)


def test_the_migration_is_over_before_anything_is_started() -> None:
    for name in MIGRATIONS:
        assert _targets(name) == {"StartIdleColor", "ExplainMigration"}
    assert "StartIdleColor" not in DEPLOYMENT.reachable("ExplainMigration")
    assert "RunMigration" not in DEPLOYMENT.reachable("StartIdleColor")
    assert "RegisterTaskDefinition" not in DEPLOYMENT.reachable("StartIdleColor")


def test_nothing_is_done_twice_for_one_wish() -> None:
    """Tests and approval leave a key behind, and are asked only as long as it is not there. Under
    traffic CheckHealth is not asked, which they follow.
    """
    asked = {
        rule["Next"]: [one["Variable"] for one in rule["And"] if one.get("IsPresent") is False]
        for rule in DEPLOYMENT.states["IsIdleColorHealthy"]["Choices"]
        if "And" in rule
    }
    assert asked == {
        "TestIdleColor": ["$.tested"],
        "RequestApproval": ["$.approval"],
        "BeforeShift": [],
    }
    (rule,) = (
        one
        for one in DEPLOYMENT.states["IsIdleColorHealthy"]["Choices"]
        if one["Next"] == "BeforeShift"
    )
    (done,) = (one["Not"] for one in rule["And"] if "Not" in one)
    assert done == {
        "And": [
            {"Variable": "$.hooks", "IsPresent": True},
            {"Variable": "$.hooks.point", "StringEquals": "before_shift"},
            {"Variable": "$.hooks.status", "StringEquals": "done"},
        ]
    }
    assert DEPLOYMENT.states["NoteTests"]["ResultPath"] == "$.tested"
    approval = DEPLOYMENT.states["RequestApproval"]
    assert approval["ResultPath"] == approval["Catch"][0]["ResultPath"] == "$.approval"


def test_every_gate_is_stopped_at() -> None:
    """Gates that only a handler knows: RegisterTaskDefinition the migration, and CheckBake, which
    answers "proved" for after_shift, and "before_next" for all steps but the first one.
    """
    looked_at = {
        one["Variable"].removeprefix("$.deployment.gates.")
        for state in DEPLOYMENT.of_type("Choice").values()
        for rule in state["Choices"]
        for one in comparisons(rule)
        if one["Variable"].startswith("$.deployment.gates.")
    }
    assert looked_at | {"after_shift", "migration"} == set(Gates.model_fields)
    assert not looked_at & {"after_shift", "migration"}


def test_every_point_of_the_users_functions_is_asked_by_one_state() -> None:
    asked = {
        name: state["Parameters"]["point"]
        for name, state in TASKS.items()
        if "point" in state["Parameters"]
    }
    assert asked == HOOKS
    assert sorted(asked.values()) == sorted(get_args(HookPoint))


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_waited_for(name: str) -> None:
    (choice,) = {
        one.target for one in DEPLOYMENT.transitions if one.source == name and one.how == "Next"
    }
    (rule,) = DEPLOYMENT.states[choice]["Choices"]
    assert (rule["Variable"].rpartition(".")[2], rule["StringEquals"]) == ("status", "waiting")
    # Where there is traffic, or soon, by way of another look.
    back = {"BeforeShift": "LookAgain", "AfterShift": "CheckBake"}
    assert DEPLOYMENT.states[rule["Next"]]["Next"] == back.get(name, name)


def test_a_yes_is_a_yes() -> None:
    """Whatever else is sent as the answer to a request for approval is no approval."""
    (rule,) = DEPLOYMENT.states["IsApproved"]["Choices"]
    variable = "$.approval.approved"
    assert rule == {
        "And": [
            {"Variable": variable, "IsPresent": True},
            {"Variable": variable, "IsBoolean": True},
            {"Variable": variable, "BooleanEquals": True},
        ],
        "Next": "CheckHealth",
    }
    assert DEPLOYMENT.states[DEPLOYMENT.states["IsApproved"]["Default"]]["Type"] == "Fail"
