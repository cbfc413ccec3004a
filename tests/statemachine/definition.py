"""The state machine's file as a graph: states by name, and every transition between them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "statemachine" / "blue_green_deployment.asl.json"
TERMINAL = ("Succeed", "Fail")


@dataclass(frozen=True, order=True)
class Transition:
    """how: ``StartAt`` (into a branch), ``Next``, ``Choices[0]``, ``Default``, ``Catch[0]``."""

    source: str
    how: str
    target: str

    def __str__(self) -> str:
        return f"{self.source} --{self.how}--> {self.target}"


@dataclass(frozen=True)
class Definition:
    """A state machine, with the states of its Parallel branches beside those around them."""

    document: Mapping[str, Any]

    @cached_property
    def machines(self) -> list[Mapping[str, Any]]:
        """The state machine itself and its branches: what has a StartAt and States."""
        return [self.document, *_branches(self.document)]

    @cached_property
    def states(self) -> dict[str, Mapping[str, Any]]:
        return {name: state for one in self.machines for name, state in one["States"].items()}

    @cached_property
    def around(self) -> dict[str, str]:
        """State in a branch → the Parallel state around it."""
        return {
            inner: name
            for name, state in self.states.items()
            for branch in state.get("Branches", [])
            for inner in branch["States"]
        }

    @cached_property
    def transitions(self) -> list[Transition]:
        return [one for name, state in self.states.items() for one in _transitions(name, state)]

    @property
    def start(self) -> str:
        return str(self.document["StartAt"])

    def of_type(self, *types: str) -> dict[str, Mapping[str, Any]]:
        return {name: state for name, state in self.states.items() if state["Type"] in types}

    def reachable(self, start: str, without: str | None = None) -> set[str]:
        """Every state that can be entered from start, start itself too, without passing one."""
        found: set[str] = set()
        ahead = [start]
        while ahead:
            name = ahead.pop()
            if name not in found and name != without:
                found.add(name)
                ahead += [one.target for one in self.transitions if one.source == name]
        return found

    def writers(self, choice_or_wait: str, path: str) -> set[str]:
        """The Task states whose answer a state reads at path: the last ones before it that can
        have written there.
        """
        found: set[str] = set()
        seen: set[str] = set()
        behind = [choice_or_wait]
        while behind:
            name = behind.pop()
            if name in seen:
                continue
            seen.add(name)
            for source in (one.source for one in self.transitions if one.target == name):
                state = self.states[source]
                written = state.get("ResultPath", "$") if state["Type"] == "Task" else None
                if written == "$" or (written and path.startswith(f"{written}.")):
                    found.add(source)
                else:
                    behind.append(source)
        return found


def load() -> Definition:
    return Definition(json.loads(FILE.read_text()))


def comparisons(rule: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The tests of one Choice rule, out of And, Or and Not."""
    for operator in ("And", "Or"):
        for part in rule.get(operator, []):
            yield from comparisons(part)
    if "Not" in rule:
        yield from comparisons(rule["Not"])
    if "Variable" in rule:
        yield rule


def _branches(machine: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for state in machine["States"].values():
        for branch in state.get("Branches", []):
            yield branch
            yield from _branches(branch)


def _transitions(name: str, state: Mapping[str, Any]) -> Iterator[Transition]:
    for branch in state.get("Branches", []):
        yield Transition(name, "StartAt", branch["StartAt"])
    for field in ("Next", "Default"):
        if field in state:
            yield Transition(name, field, state[field])
    for field in ("Choices", "Catch"):
        for number, rule in enumerate(state.get(field, [])):
            yield Transition(name, f"{field}[{number}]", rule["Next"])
