"""The state machine's file by itself, and against the template and the functions."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from samtranslator.yaml_helper import yaml_parse

from bluegreen import errors
from bluegreen.configuration import Bake, Drain, Health, HostRouter, Probe
from bluegreen.deployment import DeployRequest, RollBackRequest
from tests.statemachine.definition import (
    FILE,
    ROOT,
    TERMINAL,
    Definition,
    Transition,
    comparisons,
    load,
)

DEFINITION = load()
TASKS = DEFINITION.of_type("Task")
CHOICES = DEFINITION.of_type("Choice")
WAITS = DEFINITION.of_type("Wait")
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
STATES_ERRORS = {
    "States.ALL",
    "States.BranchFailed",
    "States.HeartbeatTimeout",
    "States.IntrinsicFailure",
    "States.NoChoiceMatched",
    "States.ParameterPathFailure",
    "States.Permissions",
    "States.ResultPathMatchFailure",
    "States.TaskFailed",
    "States.Timeout",
}
# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors: what a function
# in a VPC may meet that passes.
VPC_ERRORS = {
    "Lambda.EC2ThrottledException",
    "Lambda.EC2UnexpectedException",
    "Lambda.ENILimitReachedException",
    "Lambda.ResourceNotReadyException",
    "Lambda.SubnetIPAddressLimitReachedException",
}
# https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html, and what
# Lambda itself reports for a function that timed out or whose process ended.
LAMBDA_ERRORS = VPC_ERRORS | {
    "Lambda.AWSLambdaException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.SdkClientException",
    "Lambda.ServiceException",
    "Lambda.TooManyRequestsException",
    "Lambda.Unknown",
    "Runtime.ExitError",
    "Sandbox.Timedout",
}
# What a handler can answer besides what a Choice names: its Default is meant for these.
BY_DEFAULT = {
    "IsThereAnythingToDo": {"deploy"},
    "IsIdleColorStarted": {"waiting"},
    # CheckHealth raises IdleColorUnhealthy instead of answering "failed".
    "IsIdleColorHealthy": {"waiting", "failed"},
    "IsShifted": {"waiting"},
    "IsBaked": {"waiting"},
    "IsOldColorDrained": {"waiting"},
    "WhichWay": {"roll_back"},
    "IsRolledBack": {"restored", "nothing_to_restore"},
    "HowDidItEnd": {"fail"},
}


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
    return parsed


@pytest.fixture(scope="module")
def machine(template: dict[str, Any]) -> dict[str, Any]:
    """The properties of the only state machine of the template."""
    (found,) = [
        resource["Properties"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::StateMachine"
    ]
    properties: dict[str, Any] = found
    return properties


@pytest.fixture(scope="module")
def functions(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Logical id → properties of the template's functions."""
    return {
        logical_id: resource["Properties"]
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }


# The graph


def test_state_names_are_unique_across_branches() -> None:
    names = [name for one in DEFINITION.machines for name in one["States"]]
    assert sorted(names) == sorted(set(names))


def test_every_start_exists() -> None:
    assert all(one["StartAt"] in one["States"] for one in DEFINITION.machines)


@pytest.mark.parametrize("transition", DEFINITION.transitions, ids=str)
def test_target_exists_on_the_same_level(transition: Transition) -> None:
    assert transition.target in DEFINITION.states
    target_around = DEFINITION.around.get(transition.target)
    if transition.how == "StartAt":
        assert target_around == transition.source
    else:
        assert target_around == DEFINITION.around.get(transition.source)


@pytest.mark.parametrize("name", DEFINITION.states)
def test_state_is_reachable(name: str) -> None:
    assert name in DEFINITION.reachable(DEFINITION.start)


@pytest.mark.parametrize("name", DEFINITION.states)
def test_state_leads_to_an_end(name: str) -> None:
    state = DEFINITION.states[name]
    assert "End" not in state, "the ends are Succeed and Fail states, with names that say so"
    assert ("Next" in state) == (state["Type"] not in (*TERMINAL, "Choice"))
    level = DEFINITION.around.get(name)
    ends = {one for one in DEFINITION.of_type(*TERMINAL) if DEFINITION.around.get(one) == level}
    assert ends & DEFINITION.reachable(name), "a trap: no end can be reached from here"


@pytest.mark.parametrize("name", CHOICES)
def test_choice_has_a_default(name: str) -> None:
    assert "Default" in CHOICES[name]


def test_no_state_has_two_transitions_to_the_same_state() -> None:
    """They could not be told apart in a history, nor by who reads it."""
    pairs = [(one.source, one.target) for one in DEFINITION.transitions]
    assert len(pairs) == len(set(pairs))


def test_wait_states_are_told_how_long() -> None:
    assert WAITS
    for state in WAITS.values():
        assert set(state) - {"Comment"} == {"Type", "SecondsPath", "Next"}


# The rules of the workflow


def test_nothing_ends_without_record_outcome() -> None:
    """The lock is released there."""
    without = DEFINITION.reachable(DEFINITION.start, without="RecordOutcome")
    assert [end for end in ("Succeeded", "Failed") if end in without] == []
    top = {name for name in DEFINITION.of_type(*TERMINAL) if name not in DEFINITION.around}
    assert top == {"Succeeded", "Failed"}


def _catch(state: Mapping[str, Any]) -> Mapping[str, Any]:
    (catcher,) = state["Catch"]
    assert catcher["ErrorEquals"] == ["States.ALL"]
    return dict(catcher)


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"RecordOutcome"}))
def test_whatever_a_task_raises_is_caught(name: str) -> None:
    state = DEFINITION.states[DEFINITION.around.get(name, name)]
    assert _catch(state)["ResultPath"].startswith("$."), "what was known so far has to stay"


def test_everything_that_changes_something_before_the_bake_is_undone() -> None:
    inside = {name for name in TASKS if DEFINITION.around.get(name) == "Deploy"}
    assert inside == {
        "RegisterTaskDefinition",
        "StartIdleColor",
        "CheckHealth",
        "ShiftTraffic",
        "CheckBake",
    }
    assert _catch(DEFINITION.states["Deploy"])["Next"] == "RollBack"
    assert _catch(DEFINITION.states["PlanDeployment"])["Next"] == "RollBack"


def test_a_failed_drain_never_moves_traffic() -> None:
    after = DEFINITION.reachable(_catch(DEFINITION.states["DrainOldColor"])["Next"])
    assert not after & {"RollBack", "ShiftTraffic", "Deploy"}
    assert not DEFINITION.reachable("IsOldColorDrained") & {"RollBack", "ShiftTraffic", "Deploy"}


def test_traffic_is_shifted_only_to_what_was_healthy() -> None:
    without = DEFINITION.reachable(DEFINITION.start, without="CheckHealth")
    assert "ShiftTraffic" not in without


def test_the_execution_outlives_the_longest_wait() -> None:
    """A deployment that is kept warm for a week is not timed out."""

    def most(model: Any, field: str) -> int:
        return int(model.model_json_schema()["properties"][field]["maximum"])

    longest = (
        2 * most(Health, "deadline_seconds")  # leftovers, then health
        + 2 * most(HostRouter, "answer_seconds")  # the plan, then all hosts ready
        + most(HostRouter, "lead_seconds")
        + most(Probe, "timeout_seconds")
        + most(Bake, "seconds")
        + sum(
            most(Drain, field)
            for field in ("keep_warm_seconds", "margin_seconds", "seconds", "deadline_seconds")
        )
    )
    assert DEFINITION.document["TimeoutSeconds"] > longest


# Tasks


@pytest.mark.parametrize("name", TASKS)
def test_task_is_given_the_execution_and_all_data(name: str) -> None:
    assert TASKS[name]["Parameters"] == {"execution.$": "$$.Execution", "data.$": "$"}
    assert set(TASKS[name]) <= {
        "Type",
        "Comment",
        "Resource",
        "Parameters",
        "ResultPath",
        "TimeoutSeconds",
        "Retry",
        "Catch",
        "Next",
    }


@pytest.mark.parametrize("name", TASKS)
def test_task_times_out_later_than_its_function(
    name: str, template: dict[str, Any], functions: dict[str, dict[str, Any]]
) -> None:
    everywhere = template["Globals"]["Function"]["Timeout"]
    timeout = functions[f"{name}Function"].get("Timeout", everywhere)
    assert TASKS[name]["TimeoutSeconds"] > timeout


@pytest.mark.parametrize("name", TASKS)
def test_task_tries_transient_errors_again_like_every_other(name: str) -> None:
    transient, *more = TASKS[name]["Retry"]
    assert transient == next(iter(TASKS.values()))["Retry"][0]
    assert len(more) <= 1
    assert {
        "AwsUnavailable",
        "Lambda.AWSLambdaException",
        "Lambda.ClientExecutionTimeoutException",
        "Lambda.SdkClientException",
        "Lambda.ServiceException",
        "Lambda.TooManyRequestsException",
        "States.Timeout",
        *VPC_ERRORS,
    } <= set(transient["ErrorEquals"])
    assert (transient["MaxAttempts"], transient["MaxDelaySeconds"]) == (9, 30)
    assert transient["JitterStrategy"] == "FULL"


def test_the_others_are_not_tried_again() -> None:
    """Trying again what was refused, or decided, repeats it; the wildcards would."""
    tried = {
        error
        for state in DEFINITION.states.values()
        for retrier in state.get("Retry", [])
        for error in retrier["ErrorEquals"]
    }
    ours = {error for error in tried if "." not in error}
    assert ours == {"AwsUnavailable"}
    assert not tried & {"States.ALL", "States.TaskFailed", "States.Permissions"}


def _error_names(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _error_names(item)
    elif isinstance(value, dict):
        yield from value.get("ErrorEquals", [])
        for item in value.values():
            yield from _error_names(item)


@pytest.mark.parametrize("name", sorted(set(_error_names(DEFINITION.document))))
def test_error_name_exists(name: str) -> None:
    ours = {
        one.__name__
        for one in vars(errors).values()
        if inspect.isclass(one) and issubclass(one, errors.BlueGreenError)
    }
    assert name in STATES_ERRORS | LAMBDA_ERRORS | ours


# The file, the template and the modules


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def test_file_is_small_enough() -> None:
    assert len(FILE.read_bytes()) < 1024 * 1024


def test_file_is_formatted_as_json_is() -> None:
    """So that a change to one state is a diff of one state."""
    assert FILE.read_text() == json.dumps(DEFINITION.document, indent=2, ensure_ascii=False) + "\n"


def test_only_function_arns_are_substituted() -> None:
    substituted = re.findall(r"\$\{([^}]*)\}", FILE.read_text())
    assert sorted(substituted) == sorted(f"{name}FunctionArn" for name in TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_task_invokes_the_function_of_its_name(
    name: str, functions: dict[str, dict[str, Any]]
) -> None:
    assert TASKS[name]["Resource"] == f"${{{name}FunctionArn}}"
    assert functions[f"{name}Function"]["Handler"] == f"{_snake(name)}.handler"
    assert (ROOT / "functions" / f"{_snake(name)}.py").is_file()
    assert callable(_module(name).handler)


def test_every_function_is_a_task_or_started_by_events(
    functions: dict[str, dict[str, Any]],
) -> None:
    others = {
        logical_id for logical_id in functions if logical_id.removesuffix("Function") not in TASKS
    }
    assert [one for one in others if not functions[one].get("Events")] == []
    tasks = {f"{name}Function" for name in TASKS}
    assert [one for one in tasks if functions[one].get("Events")] == []


def test_every_module_belongs_to_a_function(functions: dict[str, dict[str, Any]]) -> None:
    modules = {path.stem for path in (ROOT / "functions").glob("*.py")}
    assert modules == {one["Handler"].removesuffix(".handler") for one in functions.values()}


def test_template_substitutes_what_the_file_asks_for(machine: dict[str, Any]) -> None:
    assert machine["DefinitionSubstitutions"] == {
        f"{name}FunctionArn": {"Fn::GetAtt": [f"{name}Function", "Arn"]} for name in TASKS
    }


def test_template_uses_the_file_as_a_standard_workflow(machine: dict[str, Any]) -> None:
    assert ROOT / machine["DefinitionUri"] == FILE
    assert machine["Type"] == "STANDARD"
    assert "Definition" not in machine


def test_role_may_invoke_just_the_functions_of_the_tasks(
    template: dict[str, Any], machine: dict[str, Any]
) -> None:
    logical_id, attribute = machine["Role"]["Fn::GetAtt"]
    assert attribute == "Arn"
    role = template["Resources"][logical_id]["Properties"]
    assert "ManagedPolicyArns" not in role
    allowed = [
        (action, resource)
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in _list(statement["Action"])
        if action.startswith(("lambda:", "*"))
        for resource in _list(statement["Resource"])
    ]
    expected = [
        ("lambda:InvokeFunction", {"Fn::GetAtt": [f"{name}Function", "Arn"]}) for name in TASKS
    ]
    assert sorted(allowed, key=str) == sorted(expected, key=str)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_recovery_settles_longer_than_a_function_may_run(
    template: dict[str, Any], functions: dict[str, dict[str, Any]]
) -> None:
    everywhere = template["Globals"]["Function"]
    parameter = everywhere["Environment"]["Variables"]["SETTLE_SECONDS"]["Ref"]
    of_states = [functions[f"{name}Function"] for name in TASKS]
    longest = max(one.get("Timeout", everywhere["Timeout"]) for one in of_states)
    assert template["Parameters"][parameter]["Default"] > longest
    assert template["Parameters"][parameter]["MinValue"] > longest


# What the states say to each other


def _module(task: str) -> ModuleType:
    return importlib.import_module(_snake(task))


def _tree(module: ModuleType) -> ast.AST:
    return ast.parse(inspect.getsource(module))


def _displays(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Every ``"key": value`` written in a dict display."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value, value


def _literals(module: ModuleType, field: str) -> set[str]:
    """The values of a Literal field, of the classes that a handler's module uses."""
    used: list[Any] = [module, *(one for one in vars(module).values() if inspect.ismodule(one))]
    classes = {one for scope in used for one in vars(scope).values() if inspect.isclass(one)}
    found = {
        annotation
        for one in classes
        if one.__module__.startswith("bluegreen.")
        and any(field in vars(base).get("__annotations__", {}) for base in one.__mro__)
        and (annotation := get_type_hints(one).get(field)) is not None
        and get_origin(annotation) is Literal
    }
    return {str(value) for annotation in found for value in get_args(annotation)}


def _values(module: ModuleType, value: ast.expr) -> set[str]:
    match value:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return _values(module, body) | _values(module, orelse)
        case ast.Attribute(attr=field):
            return _literals(module, field)
    raise AssertionError(f"{module.__name__}: what can {ast.unparse(value)} be?")


# What a handler hands on as (a part of) its own answer, and where that is written.
HANDED_ON = {
    "waiting": ("bluegreen.look",),
    "shift": ("bluegreen.routers.listener", "bluegreen.routers.hosts"),
}


def _calls(module: ModuleType) -> set[str]:
    """The methods that a module calls, by their last name."""
    return {
        node.func.attr
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }


def _answering(task: str) -> list[ModuleType]:
    """The modules in which a handler's answers are written, its own first."""
    module = _module(task)
    others = [name for call in HANDED_ON if call in _calls(module) for name in HANDED_ON[call]]
    return [module, *(importlib.import_module(name) for name in others)]


def answers(task: str, field: str) -> set[str]:
    """What a handler can answer under a key: read from the source, or from the type it answers."""
    module = _module(task)
    found = {
        answer
        for one in _answering(task)
        for key, value in _displays(_tree(one))
        if key == field
        for answer in _values(one, value)
    }
    if not found or "document" in _calls(module):
        found |= _literals(module, field)
    return found


def _compared(choice: str) -> dict[str, set[str]]:
    """Path → values that the Choice compares it with."""
    found: dict[str, set[str]] = {}
    for rule in CHOICES[choice]["Choices"]:
        for one in comparisons(rule):
            if "StringEquals" in one:
                found.setdefault(one["Variable"], set()).add(one["StringEquals"])
            else:
                assert set(one) - {"Next"} == {"Variable", "IsPresent"}
    return found


def test_the_request_decides_where_to_begin() -> None:
    (choice,) = [one.source for one in DEFINITION.transitions if one.target == "PlanRollBack"]
    ((path, values),) = _compared(choice).items()
    assert path == "$.request.action"
    assert values == set(get_args(get_type_hints(RollBackRequest)["action"]))
    assert not values & set(get_args(get_type_hints(DeployRequest)["action"]))


def test_the_request_may_lack_what_is_asked_of_it() -> None:
    """A Choice that compares what is not there fails the execution, and no Catch sees that."""
    (choice,) = [one.source for one in DEFINITION.transitions if one.target == "PlanRollBack"]
    for rule in CHOICES[choice]["Choices"]:
        first, *_ = rule["And"]
        assert first == {"Variable": "$.request.action", "IsPresent": True}


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_choice_knows_every_answer(name: str) -> None:
    ((path, compared),) = _compared(name).items()
    tasks = DEFINITION.writers(name, path)
    assert tasks
    answered = {one for task in tasks for one in answers(task, path.rpartition(".")[2])}
    assert compared | BY_DEFAULT[name] == answered
    assert not compared & BY_DEFAULT[name]


def test_every_choice_is_known() -> None:
    assert set(BY_DEFAULT) | {"WhatIsAskedFor"} == set(CHOICES)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, field)
        for name, state in DEFINITION.states.items()
        for field in ("SecondsPath", "ErrorPath", "CausePath")
        if field in state
    ],
)
def test_path_is_answered(name: str, field: str) -> None:
    path = DEFINITION.states[name][field]
    tasks = DEFINITION.writers(name, path)
    assert tasks
    for task in tasks:
        written = {key for one in _answering(task) for key, _ in _displays(_tree(one))}
        assert path.rpartition(".")[2] in written


def _is_data(node: ast.expr) -> bool:
    """``data``, ``invocation.data`` or ``event["data"]``: what a handler knows as ``$``."""
    match node:
        case ast.Name(id="data") | ast.Attribute(attr="data"):
            return True
        case ast.Subscript(slice=ast.Constant(value="data")):
            return True
    return False


def _keys_read(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=value, slice=ast.Constant(value=str(key))) if _is_data(value):
                yield key
            case ast.Call(
                func=ast.Attribute(value=value, attr="get"),
                args=[ast.Constant(value=str(key)), *_],
            ) if _is_data(value):
                yield key
            case ast.Compare(
                left=ast.Constant(value=str(key)), ops=[ast.In()], comparators=[value]
            ) if _is_data(value):
                yield key


def _keys_added(tree: ast.AST) -> Iterator[str]:
    """Keys written beside ``**invocation.data``: of a new ``$``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict) and any(
            key is None and _is_data(value)
            for key, value in zip(node.keys, node.values, strict=True)
        ):
            for key in node.keys:
                if isinstance(key, ast.Constant):
                    yield str(key.value)


def _keys_written(definition: Definition) -> set[str]:
    found = {"request"}
    for name, state in definition.states.items():
        for writer in (state, *state.get("Catch", [])):
            match writer.get("ResultPath"):
                case "$":
                    found.update(_keys_added(_tree(_module(name))))
                case str(path):
                    found.add(path.removeprefix("$."))
    return found


def _keys_in_paths(value: Any) -> Iterator[str]:
    """First keys of the paths that the file itself reads."""
    if isinstance(value, list):
        for item in value:
            yield from _keys_in_paths(item)
    if isinstance(value, dict):
        for field, item in value.items():
            if field in ("Variable", "SecondsPath", "ErrorPath", "CausePath"):
                yield item.split(".")[1]
            yield from _keys_in_paths(item)


def test_functions_read_what_states_write_and_nothing_is_written_for_nobody() -> None:
    modules = [_module(name) for name in TASKS]
    shared = [
        importlib.import_module(name)
        for name in ("bluegreen.outcome", "bluegreen.deployment", "runtime.invocation")
    ]
    read = {key for module in (*modules, *shared) for key in _keys_read(_tree(module))}
    read |= set(_keys_in_paths(DEFINITION.document))
    assert read == _keys_written(DEFINITION)


def test_the_request_is_kept_apart() -> None:
    begin = DEFINITION.states[DEFINITION.start]
    assert begin["Parameters"] == {"request.$": "$"}
    written = [
        writer.get("ResultPath")
        for state in DEFINITION.states.values()
        for writer in (state, *state.get("Catch", []))
    ]
    assert not [path for path in written if path and path.startswith("$.request")]
