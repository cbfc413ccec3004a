"""The graphs of both state machines: rules for every state, whatever it is for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.statemachine.definition import BOTH, ROOT, TERMINAL, Definition, Transition, branches

State = Mapping[str, Any]


def each(wanted: Callable[[State], bool] = lambda _: True) -> list[Any]:
    """Parameters (definition, name) for the states of both machines."""
    return [
        pytest.param(one, name, id=f"{one}.{name}")
        for one in BOTH
        for name, state in one.states.items()
        if wanted(state)
    ]


@pytest.mark.parametrize("definition", BOTH, ids=str)
def test_state_names_are_unique_across_branches(definition: Definition) -> None:
    names = [name for one in definition.machines for name in one["States"]]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("definition", BOTH, ids=str)
def test_every_start_exists(definition: Definition) -> None:
    assert all(one["StartAt"] in one["States"] for one in definition.machines)


@pytest.mark.parametrize(
    ("definition", "transition"),
    [
        pytest.param(one, transition, id=f"{one}: {transition}")
        for one in BOTH
        for transition in one.transitions
    ],
)
def test_target_exists_on_the_same_level(definition: Definition, transition: Transition) -> None:
    assert transition.target in definition.states
    target_around = definition.around.get(transition.target)
    if transition.how == "StartAt":
        assert target_around == transition.source
    else:
        assert target_around == definition.around.get(transition.source)


@pytest.mark.parametrize(("definition", "name"), each())
def test_state_is_reachable(definition: Definition, name: str) -> None:
    assert name in definition.reachable(definition.start)


@pytest.mark.parametrize(("definition", "name"), each())
def test_state_leads_to_an_end(definition: Definition, name: str) -> None:
    state = definition.states[name]
    around = definition.around.get(name)
    # An execution, and a try block, end with a name that says how; an iteration has no story.
    if not definition.is_of_a_map(name):
        assert "End" not in state
    goes_on = state["Type"] not in (*TERMINAL, "Choice") and "End" not in state
    assert ("Next" in state) == goes_on
    ends = {
        one
        for one, state in definition.states.items()
        if (state["Type"] in TERMINAL or "End" in state) and definition.around.get(one) == around
    }
    assert ends & definition.reachable(name), "a trap: no end can be reached from here"


@pytest.mark.parametrize(("definition", "name"), each(lambda state: state["Type"] == "Choice"))
def test_choice_has_a_default(definition: Definition, name: str) -> None:
    assert "Default" in definition.states[name]


@pytest.mark.parametrize("definition", BOTH, ids=str)
def test_no_state_has_two_transitions_to_the_same_state(definition: Definition) -> None:
    """They could not be told apart in a history, nor by who reads it. A Map says how it ended:
    MapStateSucceeded or MapStateFailed.
    """
    pairs = [
        (one.source, one.target)
        for one in definition.transitions
        if (definition.states[one.source]["Type"], one.how) != ("Map", "Catch[0]")
    ]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(("definition", "name"), each(lambda state: state["Type"] == "Wait"))
def test_wait_states_are_told_how_long(definition: Definition, name: str) -> None:
    assert set(definition.states[name]) - {"Comment"} == {"Type", "SecondsPath", "Next"}


@pytest.mark.parametrize(("definition", "name"), each(lambda state: bool(branches(state))))
def test_nothing_runs_inside_of_something_inside(definition: Definition, name: str) -> None:
    """What fails on one level is undone on the level around it; two of them hold all in view."""
    assert name not in definition.around


@pytest.mark.parametrize("definition", BOTH, ids=str)
def test_file_is_small_enough(definition: Definition) -> None:
    assert len(definition.file.read_bytes()) < 1024 * 1024


@pytest.mark.parametrize("definition", BOTH, ids=str)
def test_file_is_formatted_as_json_is(definition: Definition) -> None:
    """So that a change to one state is a diff of one state."""
    written = json.dumps(definition.document, indent=2, ensure_ascii=False) + "\n"
    assert definition.file.read_text() == written


def test_every_file_is_tested() -> None:
    assert {one.file for one in BOTH} == set((ROOT / "statemachine").iterdir())
