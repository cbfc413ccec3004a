"""What the states say to each other: what is answered, compared, read and handed on."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest

from bluegreen import hooks
from bluegreen.deployment import Deployment, Gates
from bluegreen.outcome import Word
from tests.statemachine.answers import (
    answers,
    field_at,
    keys,
    keys_added,
    keys_read,
    module_of,
)
from tests.statemachine.definition import (
    BOTH,
    DEPLOYMENT,
    RELEASE,
    Definition,
    Transition,
    comparisons,
)
from tests.statemachine.test_rules import HOOKS

# What a handler can answer besides what a Choice names: its Default is meant for these.
BY_DEFAULT = {
    "IsThereAnythingToDo": {"deploy"},
    "MayBegin": {"done"},
    "IsIdleColorStarted": {"waiting"},
    # CheckHealth raises IdleColorUnhealthy instead of answering "failed".
    "IsIdleColorHealthy": {"waiting", "failed"},
    "IsIdleColorTested": {"done"},
    "MayShift": {"done"},
    "IsShifted": {"waiting"},
    "IsBaked": {"waiting"},
    "IsShiftConfirmed": {"done"},
    "IsOldColorDrained": {"waiting"},
    "WhichWay": {"roll_back"},
    "IsRolledBack": {"restored", "nothing_to_restore"},
    "IsAllSaid": {"done"},
    "HowDidItEnd": {"fail"},
    "InWhichOrder": {"parallel"},
    "IsReleaseSettled": {"waiting"},
}
# These look at no answer of a handler's, or not at one only: test_rules.py, and below.
BESIDES = {
    "WhatIsAskedFor",
    "AreHooksFirst",
    "IsThereAMigration",
    "IsApproved",
    "WhatWithoutAnswer",
    "AreHooksLast",
    "LookAgain",
}
# What they look at besides the answer that they are for.
ASIDE = {"IsIdleColorHealthy": {"$.hooks.point", "$.hooks.status"}}
CHOICES = {name: one for one in BOTH for name in one.of_type("Choice")}
# What is there in ``$`` whatever PlanRollBack answers, which is the new ``$``.
ALWAYS = {"PlanRollBack": {"request", "recovery"}}
# The word for a dry run comes with its plan.
WITH_A_WORD = {("WhichWay", "Planned"): {"deployment"}}
# Errors that decide nothing any more: who asks finds them in the execution's history.
FOR_PEOPLE = {"BlueGreenDeployment": {"hooks_failure"}, "ReleaseServices": {"failure"}}


def _stated(state: Mapping[str, Any]) -> Iterator[str]:
    """The paths that a state itself reads, those inside of intrinsic functions too."""
    for field, value in state.items():
        if field in ("Branches", "ItemProcessor", "ResultPath", "ResultSelector"):
            continue
        if isinstance(value, dict):
            yield from _stated(value)
        elif isinstance(value, str) and (field.endswith(("Path", ".$"))):
            yield from re.findall(r"(?<!\$)\$(?:\.\w+)+", value)


def _all_paths(definition: Definition, name: str) -> list[tuple[str, bool]]:
    """(path, whether it has been asked before if it is there) of all that a state reads."""
    state = definition.states[name]
    found = [(path, False) for path in _stated(state)]
    for rule in state.get("Choices", []):
        there: set[str] = set()
        for one in comparisons(rule):
            if one.get("IsPresent"):
                there.add(one["Variable"])
            if "IsPresent" not in one:
                path = one["Variable"]
                found.append((path, any(f"{path}.".startswith(f"{part}.") for part in there)))
    return found


def _known(definition: Definition) -> dict[str, set[str]]:
    """State → keys of ``$`` that are there whichever way it was entered."""
    known: dict[str, set[str]] = {definition.start: set()}
    before: dict[str, set[str]] = {}
    while known != before:
        before = dict(known)
        for one in definition.transitions:
            found = _after(definition, one, known)
            if found is not None:
                known[one.target] = found & known.get(one.target, found)
    return known


def _after(
    definition: Definition, transition: Transition, known: Mapping[str, set[str]]
) -> set[str] | None:
    """What is known once a transition is taken; None while it is not known how that may be."""
    name, state = transition.source, definition.states[transition.source]
    if name not in known:
        return None
    if transition.how == "StartAt":
        return known[name] if state["Type"] == "Parallel" else {"name", "service", "input"}
    if transition.how.startswith("Catch"):
        number = int(transition.how[len("Catch[") : -1])
        return known[name] | _written(state["Catch"][number])
    if state["Type"] == "Parallel":
        (end,) = [
            one for one in definition.of_type("Succeed") if definition.around.get(one) == name
        ]
        return known.get(end)
    if name in ALWAYS:
        return ALWAYS[name]
    if state["Type"] == "Pass" and "ResultPath" not in state:
        return {key.removesuffix(".$") for key in state["Parameters"]}
    said = WITH_A_WORD.get((name, transition.target), set())
    return known[name] | said | (_written(state) if state["Type"] in ("Task", "Pass") else set())


def _written(writer: Mapping[str, Any]) -> set[str]:
    path = writer["ResultPath"]
    return set() if path is None else {path.removeprefix("$.")}


@pytest.mark.parametrize("definition", BOTH, ids=str)
def test_what_a_state_reads_is_there_whichever_way_it_was_entered(definition: Definition) -> None:
    """A path that leads nowhere fails the execution: in a Choice no Catch sees it."""
    known = _known(definition)
    missing = {
        (name, path)
        for name in definition.states
        for path, asked in _all_paths(definition, name)
        if path.split(".")[1] not in known[name] and not asked
    }
    assert missing == set()


@pytest.mark.parametrize(
    "path",
    sorted(
        {
            path
            for name in DEPLOYMENT.states
            for path, _ in _all_paths(DEPLOYMENT, name)
            if path.startswith("$.deployment.")
        }
    ),
)
def test_what_is_read_of_a_deployment_is_one_of_its_fields(path: str) -> None:
    inside = path.removeprefix("$.deployment.")
    if inside in ("wait_seconds", "plan"):
        # Before there is a deployment.
        assert inside in keys("PlanDeploymentFunction")
        return
    field_at(Deployment, inside)


def _compared(choice: str) -> dict[str, set[str]]:
    """Path → words that the Choice compares it with."""
    found: dict[str, set[str]] = {}
    for rule in CHOICES[choice].states[choice]["Choices"]:
        for one in comparisons(rule):
            if "StringEquals" in one:
                found.setdefault(one["Variable"], set()).add(one["StringEquals"])
            else:
                assert set(one) - {"Next"} <= {
                    "Variable",
                    "IsPresent",
                    "IsBoolean",
                    "BooleanEquals",
                }
    return found


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_choice_knows_every_answer(name: str) -> None:
    found = _compared(name)
    ((path, compared),) = ((one, found[one]) for one in found if one not in ASIDE.get(name, ()))
    definition = CHOICES[name]
    tasks = definition.writers(name, path)
    assert tasks
    answered = {
        one
        for task in tasks
        if (function := definition.function_of(task))
        for one in answers(function, path.rpartition(".")[2])
    }
    assert compared | BY_DEFAULT[name] == answered
    assert not compared & BY_DEFAULT[name]


def test_hooks_that_have_said_yes_are_known_by_what_they_answer() -> None:
    compared = _compared("IsIdleColorHealthy")
    assert compared["$.hooks.point"] == {HOOKS["BeforeShift"]}
    assert compared["$.hooks.status"] < answers("RunHooksFunction", "status")
    first = hooks.kept({}, hooks.Moment("before_shift", 0, 10), 0.0)
    assert first["point"] == HOOKS["BeforeShift"]


def test_every_choice_is_known() -> None:
    assert set(BY_DEFAULT) | BESIDES == set(CHOICES)
    assert not set(BY_DEFAULT) & BESIDES


def test_without_an_answer_it_is_as_configured() -> None:
    ((path, compared),) = _compared("WhatWithoutAnswer").items()
    known = get_args(field_at(Deployment, path.removeprefix("$.deployment.")))
    assert compared | {"reject"} == set(known)


def test_what_has_not_ended_a_deployment_has_no_hooks_after_it() -> None:
    compared = _compared("AreHooksLast")
    assert compared == {"$.outcome.outcome": {"nothing_to_do", "held"}}
    assert compared["$.outcome.outcome"] < set(get_args(Word))


@pytest.mark.parametrize(
    "path",
    sorted(
        {
            one["Variable"]
            for choice, definition in CHOICES.items()
            for rule in definition.states[choice]["Choices"]
            for one in comparisons(rule)
            if "BooleanEquals" in one
        }
        - {"$.approval.approved", "$.outcome.ours"}
    ),
)
def test_only_gates_are_yes_or_no(path: str) -> None:
    gate = path.removeprefix("$.deployment.gates.")
    assert Gates.model_fields[gate].annotation is bool
    assert Gates.model_fields[gate].default is False


@pytest.mark.parametrize(
    ("definition", "name", "field"),
    [
        (one, name, field)
        for one in BOTH
        for name, state in one.states.items()
        for field in ("SecondsPath", "ErrorPath", "CausePath", "OutputPath", "TimeoutSecondsPath")
        if field in state and state["Type"] != "Parallel"
    ],
    ids=str,
)
def test_path_is_answered(definition: Definition, name: str, field: str) -> None:
    for path in re.findall(r"\$(?:\.\w+)+", definition.states[name][field]):
        if path.startswith("$.deployment.configuration.") or path.count(".") == 1:
            # A field of the configuration, or the whole of an answer.
            continue
        tasks = definition.writers(name, path)
        assert tasks
        for task in tasks:
            function = definition.function_of(task)
            assert function
            assert path.rpartition(".")[2] in keys(function)


def test_the_migration_is_run_as_it_was_planned() -> None:
    """All that is answered is given to RunTask, and nothing else."""
    read = {
        path.removeprefix("$.task_definition.migration.")
        for name in ("RunMigration", "RunMigrationInVpc")
        for path in _stated(DEPLOYMENT.states[name])
    }
    assert read == {
        "task_definition",
        "cluster",
        "launch_type",
        "overrides",
        "network",
        "timeout_seconds",
    }
    assert read <= keys("RegisterTaskDefinitionFunction")


def test_a_service_of_a_release_is_started_as_it_was_planned() -> None:
    for name, state in RELEASE.of_type("Task").items():
        if RELEASE.function_of(name):
            continue
        assert state["Parameters"] == {
            "StateMachineArn": "${BlueGreenDeploymentArn}",
            "Name.$": "$.name",
            "Input.$": "$.input",
        }
        around = RELEASE.states[RELEASE.around[name]]
        assert around["ItemsPath"] == "$.release.children"
    assert {"name", "service", "input", "children"} <= keys("PlanReleaseFunction")


def _keys_written(definition: Definition) -> set[str]:
    found = {"request"}
    for name, state in definition.states.items():
        if (
            name in definition.around
            and definition.states[definition.around[name]]["Type"] == "Map"
        ):
            continue
        for writer in (state, *state.get("Catch", [])):
            match writer.get("ResultPath"):
                case "$":
                    function = definition.function_of(name)
                    assert function
                    found.update(keys_added(module_of(function)))
                case str(path):
                    found.add(path.removeprefix("$."))
    return found


def _keys_in_paths(definition: Definition) -> Iterator[str]:
    """First keys of the paths that the file itself reads."""
    for name, state in definition.states.items():
        if (
            name in definition.around
            and definition.states[definition.around[name]]["Type"] == "Map"
        ):
            continue
        for path in _stated(state):
            yield path.split(".")[1]
        for rule in state.get("Choices", []):
            for one in comparisons(rule):
                yield one["Variable"].split(".")[1]


@pytest.mark.parametrize(
    ("definition", "shared"),
    [
        (
            DEPLOYMENT,
            [
                "bluegreen.outcome",
                "bluegreen.deployment",
                "bluegreen.hooks",
                "bluegreen.strategy",
                "runtime.invocation",
            ],
        ),
        (RELEASE, []),
    ],
    ids=["BlueGreenDeployment", "ReleaseServices"],
)
def test_functions_read_what_states_write_and_nothing_is_written_for_nobody(
    definition: Definition, shared: list[str]
) -> None:
    modules = [module_of(one) for one in set(definition.function_tasks().values())]
    modules += [importlib.import_module(name) for name in shared]
    read = {key for module in modules for key in keys_read(module)}
    read |= set(_keys_in_paths(definition))
    assert read | FOR_PEOPLE[definition.name] == _keys_written(definition)
    assert not read & FOR_PEOPLE[definition.name]
