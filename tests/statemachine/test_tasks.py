"""Task states against the template, the functions and their modules."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from samtranslator.yaml_helper import yaml_parse

from bluegreen import errors
from sandbox.executions import INTEGRATIONS
from sandbox.executions.integration import lowered
from tests.statemachine.definition import BOTH, DEPLOYMENT, RELEASE, ROOT, SERVICES, Definition

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
# Whose answer is an answer of a person.
WAITING = "RequestApproval"
HOOKS = "RunHooksFunction"
TASKS = [(definition, name) for definition in BOTH for name in definition.of_type("Task")]
FUNCTION_TASKS = [(definition, name) for definition, name in TASKS if definition.function_of(name)]
SERVICE_TASKS = [
    (definition, name) for definition, name in TASKS if not definition.function_of(name)
]
of_each = pytest.mark.parametrize(("definition", "name"), TASKS, ids=str)
of_each_function = pytest.mark.parametrize(("definition", "name"), FUNCTION_TASKS, ids=str)
of_each_service = pytest.mark.parametrize(("definition", "name"), SERVICE_TASKS, ids=str)
of_both = pytest.mark.parametrize("definition", BOTH, ids=str)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
    return parsed


@pytest.fixture(scope="module")
def machines(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Logical id → properties of the template's state machines."""
    return _of_type(template, "AWS::Serverless::StateMachine")


@pytest.fixture(scope="module")
def functions(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Logical id → properties of the template's functions."""
    return _of_type(template, "AWS::Serverless::Function")


def _of_type(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {
        logical_id: resource["Properties"]
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _module_of(function: str) -> str:
    return _snake(function.removesuffix("Function"))


# What a Task is given, and when it is over


@of_each
def test_task_says_nothing_else(definition: Definition, name: str) -> None:
    assert set(definition.states[name]) <= {
        "Type",
        "Comment",
        "Resource",
        "Parameters",
        "ResultSelector",
        "ResultPath",
        "TimeoutSeconds",
        "TimeoutSecondsPath",
        "Retry",
        "Catch",
        "Next",
        "End",
    }


@of_each_function
def test_task_is_given_the_execution_and_all_data(definition: Definition, name: str) -> None:
    given: Mapping[str, Any] = definition.states[name]["Parameters"]
    whole = {"execution.$": "$$.Execution", "data.$": "$"}
    if name == WAITING:
        whole = {"token.$": "$$.Task.Token", **whole}
        assert set(given) == {"FunctionName", "Payload"}
        given = given["Payload"]
    elif definition.function_of(name) == HOOKS:
        whole = {**whole, "point": given["point"]}
    assert given == whole


@of_each
def test_every_task_ends(definition: Definition, name: str) -> None:
    """Without a time limit it waits for 99,999,999 s."""
    state = definition.states[name]
    assert ("TimeoutSeconds" in state) != ("TimeoutSecondsPath" in state)


@of_each_function
def test_task_times_out_later_than_its_function(
    definition: Definition,
    name: str,
    template: dict[str, Any],
    functions: dict[str, dict[str, Any]],
) -> None:
    function = definition.function_of(name)
    assert function
    timeout = functions[function].get("Timeout", template["Globals"]["Function"]["Timeout"])
    if name == WAITING:
        path = definition.states[name]["TimeoutSecondsPath"]
        assert path == "$.deployment.configuration.approval.timeout_seconds"
    else:
        assert definition.states[name]["TimeoutSeconds"] > timeout


def test_a_deployment_of_a_release_has_all_its_time() -> None:
    for name in RELEASE.of_type("Task"):
        if not RELEASE.function_of(name):
            allowed = RELEASE.states[name]["TimeoutSeconds"]
            assert allowed > DEPLOYMENT.document["TimeoutSeconds"]
            # In order: one after the other, and a release may have several services.
            assert RELEASE.document["TimeoutSeconds"] >= 10 * allowed


# Trying again


@of_each_function
def test_task_tries_transient_errors_again_like_every_other(
    definition: Definition, name: str
) -> None:
    (transient,) = definition.states[name]["Retry"]
    like = DEPLOYMENT.states["PlanDeployment"]["Retry"][0]
    tried = set(transient["ErrorEquals"])
    if name == WAITING:
        # That nobody has answered in time is decided, not asked again.
        assert "States.Timeout" not in tried
        tried.add("States.Timeout")
    assert tried == set(like["ErrorEquals"])
    assert {**transient, "ErrorEquals": ()} == {**like, "ErrorEquals": ()}


def test_what_is_tried_again() -> None:
    transient = DEPLOYMENT.states["PlanDeployment"]["Retry"][0]
    assert set(transient["ErrorEquals"]) == LAMBDA_ERRORS | {"AwsUnavailable", "States.Timeout"}
    assert (transient["MaxAttempts"], transient["MaxDelaySeconds"]) == (9, 30)
    assert transient["JitterStrategy"] == "FULL"


@of_each_service
def test_what_a_service_begins_is_begun_once(definition: Definition, name: str) -> None:
    """A second RunTask would migrate twice, and a second StartExecution is refused by its name."""
    assert "Retry" not in definition.states[name]


@pytest.mark.parametrize("definition", BOTH, ids=str)
def test_the_others_are_not_tried_again(definition: Definition) -> None:
    """Trying again what was refused, or decided, repeats it; the wildcards would."""
    retrying = {name for name, state in definition.states.items() if "Retry" in state}
    assert retrying == set(definition.function_tasks())


def _error_names(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _error_names(item)
    elif isinstance(value, dict):
        yield from value.get("ErrorEquals", [])
        if value.get("Type") == "Fail" and "Error" in value:
            yield value["Error"]
        for item in value.values():
            yield from _error_names(item)


@pytest.mark.parametrize("name", sorted(set(_error_names([one.document for one in BOTH]))))
def test_error_name_exists(name: str) -> None:
    ours = {
        one.__name__
        for one in vars(errors).values()
        if inspect.isclass(one) and issubclass(one, errors.BlueGreenError)
    }
    assert name in STATES_ERRORS | LAMBDA_ERRORS | ours


# The files, the template and the modules


def _substituted(definition: Definition) -> set[str]:
    return set(re.findall(r"\$\{([^}]*)\}", definition.file.read_text()))


@of_both
def test_only_arns_of_functions_integrations_and_the_other_machine_are_substituted(
    definition: Definition,
) -> None:
    functions = {f"{function}Arn" for function in definition.function_tasks().values()}
    others = _substituted(definition) - functions
    assert functions <= _substituted(definition)
    used = {state["Resource"][2:-1] for state in definition.of_type("Task").values()}
    assert others == (used & set(SERVICES)) | (
        {"BlueGreenDeploymentArn"} if definition is RELEASE else set()
    )


@of_both
def test_template_substitutes_what_the_file_asks_for(
    definition: Definition, machines: dict[str, dict[str, Any]]
) -> None:
    expected: dict[str, Any] = {
        f"{function}Arn": {"Fn::GetAtt": [function, "Arn"]}
        for function in definition.function_tasks().values()
    }
    for name in _substituted(definition) - set(expected):
        expected[name] = (
            {"Fn::Sub": f"arn:${{AWS::Partition}}:states:::{SERVICES[name]}"}
            if name in SERVICES
            else {"Ref": name.removesuffix("Arn")}
        )
    assert machines[definition.name]["DefinitionSubstitutions"] == expected


@of_both
def test_template_uses_the_file_as_a_standard_workflow(
    definition: Definition, machines: dict[str, dict[str, Any]]
) -> None:
    machine = machines[definition.name]
    assert ROOT / machine["DefinitionUri"] == definition.file
    assert machine["Type"] == "STANDARD"
    assert "Definition" not in machine


def test_every_state_machine_of_the_template_is_tested(
    machines: dict[str, dict[str, Any]],
) -> None:
    assert set(machines) == {one.name for one in BOTH}


@of_each_function
def test_task_invokes_the_function_of_its_name(
    definition: Definition, name: str, functions: dict[str, dict[str, Any]]
) -> None:
    function = definition.function_of(name)
    assert function == (
        HOOKS if "point" in definition.states[name]["Parameters"] else f"{name}Function"
    )
    module = _module_of(function)
    assert functions[function]["Handler"] == f"{module}.handler"
    assert (ROOT / "functions" / f"{module}.py").is_file()
    assert callable(importlib.import_module(module).handler)


def _of_tasks() -> set[str]:
    return {function for one in BOTH for function in one.function_tasks().values()}


def test_every_function_is_a_task_or_started_by_events(
    functions: dict[str, dict[str, Any]],
) -> None:
    by_events = {name for name, one in functions.items() if one.get("Events")}
    assert by_events == set(functions) - _of_tasks()


def test_every_module_belongs_to_a_function(functions: dict[str, dict[str, Any]]) -> None:
    modules = {path.stem for path in (ROOT / "functions").glob("*.py")}
    assert modules == {one["Handler"].removesuffix(".handler") for one in functions.values()}


def test_recovery_settles_longer_than_a_function_may_run(
    template: dict[str, Any], functions: dict[str, dict[str, Any]]
) -> None:
    everywhere = template["Globals"]["Function"]
    parameter = everywhere["Environment"]["Variables"]["SETTLE_SECONDS"]["Ref"]
    longest = max(functions[name].get("Timeout", everywhere["Timeout"]) for name in _of_tasks())
    assert template["Parameters"][parameter]["Default"] > longest
    assert template["Parameters"][parameter]["MinValue"] > longest


# What a role may do


def _allowed(
    template: dict[str, Any], machines: dict[str, dict[str, Any]], definition: Definition
) -> list[tuple[str, Any]]:
    """(action, resource) of everything that the role of a state machine may do."""
    logical_id, attribute = machines[definition.name]["Role"]["Fn::GetAtt"]
    assert attribute == "Arn"
    role = template["Resources"][logical_id]["Properties"]
    assert "ManagedPolicyArns" not in role
    return [
        (action, resource)
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in _list(statement["Action"])
        for resource in _list(statement["Resource"])
    ]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@of_both
def test_role_may_invoke_just_the_functions_of_the_tasks(
    definition: Definition, template: dict[str, Any], machines: dict[str, dict[str, Any]]
) -> None:
    allowed = [
        one
        for one in _allowed(template, machines, definition)
        if one[0].startswith(("lambda:", "*"))
    ]
    expected = [
        ("lambda:InvokeFunction", {"Fn::GetAtt": [function, "Arn"]})
        for function in set(definition.function_tasks().values())
    ]
    assert sorted(allowed, key=str) == sorted(expected, key=str)


# https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html and connect-stepfunctions:
# what a role needs to start something, to look at it and to stop it; the rule is the service's own.
RULE = ["events:DescribeRule", "events:PutRule", "events:PutTargets"]
OF_SERVICES = {
    "RunTaskArn": [
        "ecs:DescribeTasks",
        "ecs:RunTask",
        "ecs:StopTask",
        "ecs:TagResource",
        "iam:PassRole",
        *RULE,
    ],
    "StartExecutionArn": [
        "states:DescribeExecution",
        "states:StartExecution",
        "states:StopExecution",
        *RULE,
    ],
    # The answer comes by SendTaskSuccess; the role has to invoke, as for every function.
    "InvokeAndWaitArn": [],
}


@of_both
def test_role_may_use_just_the_integrations_of_the_tasks(
    definition: Definition, template: dict[str, Any], machines: dict[str, dict[str, Any]]
) -> None:
    used = {
        state["Resource"][2:-1]
        for state in definition.of_type("Task").values()
        if state["Resource"][2:-1] in SERVICES
    }
    assert used
    needed = {action for name in used for action in OF_SERVICES[name]}
    allowed = {
        action
        for action, _ in _allowed(template, machines, definition)
        if not action.startswith(("lambda:", "logs:", "xray:"))
    }
    assert allowed == needed


@of_each_service
def test_the_parameters_of_an_integration_are_those_of_its_api(
    definition: Definition, name: str
) -> None:
    state = definition.states[name]
    service, _, action = SERVICES[state["Resource"][2:-1]].partition(":")
    integration = INTEGRATIONS[service]
    operation = integration.action[:1].upper() + integration.action[1:]
    assert action.partition(".")[0] == integration.action
    given = {key.removesuffix(".$") for key in state["Parameters"]}
    assert given <= integration.fields
    name_of_api: Any = integration.service
    client = boto3.client(name_of_api, region_name="eu-west-1")
    shape = client.meta.service_model.operation_model(operation).input_shape
    asked = set(lowered(dict.fromkeys(given), shape))
    required = {one for one in shape.required_members if one != "startedBy"}
    assert required <= asked <= set(shape.members)
