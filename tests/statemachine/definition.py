"""The state machines' files as graphs: states by name, and every transition between them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TERMINAL = ("Succeed", "Fail")
# What a Task state has a service do, and waits for: substitution → integration.
# https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html
SERVICES = {
    "RunTaskArn": "ecs:runTask.sync",
    "StartExecutionArn": "states:startExecution.sync:2",
    "InvokeAndWaitArn": "lambda:invoke.waitForTaskToken",
}


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
    """A state machine, with the states of its branches and Maps beside those around them.

    name: logical id of the state machine in the template.
    """

    name: str
    file: Path
    document: Mapping[str, Any]

    def __str__(self) -> str:
        return self.name

    @cached_property
    def machines(self) -> list[Mapping[str, Any]]:
        """The state machine itself and its branches: what has a StartAt and States."""
        return [self.document, *_all_branches(self.document)]

    @cached_property
    def states(self) -> dict[str, Mapping[str, Any]]:
        return {name: state for one in self.machines for name, state in one["States"].items()}

    @cached_property
    def around(self) -> dict[str, str]:
        """State in a branch → the Parallel or Map state around it."""
        return {
            inner: name
            for name, state in self.states.items()
            for branch in branches(state)
            for inner in branch["States"]
        }

    def is_of_a_map(self, name: str) -> bool:
        """Whether a state runs for each item, which is its ``$``."""
        return name in self.around and self.states[self.around[name]]["Type"] == "Map"

    @cached_property
    def transitions(self) -> list[Transition]:
        return [one for name, state in self.states.items() for one in _transitions(name, state)]

    @property
    def start(self) -> str:
        return str(self.document["StartAt"])

    def of_type(self, *types: str) -> dict[str, Mapping[str, Any]]:
        return {name: state for name, state in self.states.items() if state["Type"] in types}

    def function_of(self, task: str) -> str | None:
        """Logical id of the function that a Task invokes, by itself or through an integration."""
        state = self.states[task]
        asked = [state["Resource"], state["Parameters"].get("FunctionName", "")]
        found = [
            one.removeprefix("${").removesuffix("Arn}")
            for one in asked
            if one.startswith("${") and one.endswith("FunctionArn}")
        ]
        return found[0] if found else None

    def function_tasks(self) -> dict[str, str]:
        """Task states that invoke a function → logical id of the function."""
        tasks = self.of_type("Task")
        return {name: function for name in tasks if (function := self.function_of(name))}

    def reachable(self, start: str, *, without: str | None = None) -> set[str]:
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


def load(name: str, file: str) -> Definition:
    path = ROOT / "statemachine" / file
    return Definition(name, path, json.loads(path.read_text()))


DEPLOYMENT = load("BlueGreenDeployment", "blue_green_deployment.asl.json")
RELEASE = load("ReleaseServices", "release_services.asl.json")
BOTH = [DEPLOYMENT, RELEASE]


def comparisons(rule: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The tests of one Choice rule, out of And, Or and Not, from left to right."""
    for operator in ("And", "Or"):
        for part in rule.get(operator, []):
            yield from comparisons(part)
    if "Not" in rule:
        yield from comparisons(rule["Not"])
    if "Variable" in rule:
        yield rule


def branches(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What runs inside of a Parallel or Map state."""
    inside = [state["ItemProcessor"]] if "ItemProcessor" in state else []
    return [*state.get("Branches", []), *inside]


def _all_branches(machine: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for state in machine["States"].values():
        for branch in branches(state):
            yield branch
            yield from _all_branches(branch)


def _transitions(name: str, state: Mapping[str, Any]) -> Iterator[Transition]:
    for branch in branches(state):
        yield Transition(name, "StartAt", branch["StartAt"])
    for field in ("Next", "Default"):
        if field in state:
            yield Transition(name, field, state[field])
    for field in ("Choices", "Catch"):
        for number, rule in enumerate(state.get(field, [])):
            yield Transition(name, f"{field}[{number}]", rule["Next"])
