from __future__ import annotations

import re

import pytest

from tests.template.model import ROOT, Template

FILES = {
    "BlueGreenDeployment": ROOT / "statemachine" / "blue_green_deployment.asl.json",
    "ReleaseServices": ROOT / "statemachine" / "release_services.asl.json",
}
INTEGRATIONS = {
    "BlueGreenDeployment": {
        "RunTaskArn": {"Fn::Sub": "arn:${AWS::Partition}:states:::ecs:runTask.sync"},
        "InvokeAndWaitArn": {
            "Fn::Sub": "arn:${AWS::Partition}:states:::lambda:invoke.waitForTaskToken"
        },
    },
    "ReleaseServices": {
        "StartExecutionArn": {
            "Fn::Sub": "arn:${AWS::Partition}:states:::states:startExecution.sync:2"
        },
        "BlueGreenDeploymentArn": {"Ref": "BlueGreenDeployment"},
    },
}
# Started by events, a schedule or a queue.
BESIDES = {
    "AnnotateDeploymentFunction",
    "CollectContainerMetricsFunction",
    "DeliverContainerMetricsFunction",
    "PushContainerMetricsFunction",
    "RecoverDeploymentFunction",
    "StartDeploymentFunction",
    "TellPeopleFunction",
}
OF_A_RELEASE = {"PlanReleaseFunction", "SettleReleaseFunction"}

of_each = pytest.mark.parametrize("machine", FILES)


def expected(template: Template, machine: str) -> set[str]:
    others = set(template.functions()) - BESIDES - OF_A_RELEASE
    return {"BlueGreenDeployment": others, "ReleaseServices": OF_A_RELEASE}[machine]


def test_there_are_two(template: Template) -> None:
    assert set(template.state_machines()) == set(FILES)


@of_each
def test_every_state_function_is_substituted_into_the_definition(
    template: Template, machine: str
) -> None:
    substitutions = template.state_machines()[machine]["DefinitionSubstitutions"]

    functions = {
        f"{logical_id}Arn": {"Fn::GetAtt": [logical_id, "Arn"]}
        for logical_id in expected(template, machine)
    }
    assert substitutions == {**functions, **INTEGRATIONS[machine]}


@of_each
def test_the_definition_uses_every_substitution(template: Template, machine: str) -> None:
    used = set(re.findall(r"\$\{(\w+)\}", FILES[machine].read_text()))

    assert used == set(template.state_machines()[machine]["DefinitionSubstitutions"])


@of_each
def test_the_workflow_may_invoke_exactly_the_state_functions(
    template: Template, machine: str
) -> None:
    assert template.state_functions(machine) == expected(template, machine)


@of_each
def test_the_workflow_is_traced_and_logs_errors_without_data(
    template: Template, machine: str
) -> None:
    properties = template.state_machines()[machine]

    assert properties["StateMachineType"] == "STANDARD"
    assert properties["TracingConfiguration"] == {"Enabled": True}
    assert properties["LoggingConfiguration"]["Level"] == "ERROR"
    assert properties["LoggingConfiguration"]["IncludeExecutionData"] is False
    (destination,) = properties["LoggingConfiguration"]["Destinations"]
    group, _ = destination["CloudWatchLogsLogGroup"]["LogGroupArn"]["Fn::GetAtt"]
    found = template.resource(group)
    assert found["Type"] == "AWS::Logs::LogGroup"
    # https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html: no limit for its policy.
    name = found["Properties"]["LogGroupName"]["Fn::Sub"]
    assert name.startswith("/aws/vendedlogs/states/")


def test_executions_are_named_in_policies_as_the_state_machines_are(template: Template) -> None:
    names = {one["StateMachineName"]["Fn::Sub"] for one in template.state_machines().values()}
    executions = {
        resource["Fn::Sub"]
        for statement in template.statements()
        if any(
            action.startswith("states:") and "Execution" in action for action in statement.actions
        )
        for resource in statement.resources
        if "Fn::Sub" in resource
    }

    assert executions == {
        f"arn:${{AWS::Partition}}:states:${{AWS::Region}}:${{AWS::AccountId}}:execution:{name}:*"
        for name in names
    }


def test_who_waits_for_a_release_looks_at_releases(template: Template) -> None:
    """And who begins a part of one, or does not, as it has ended."""
    looking = {
        statement.where.removesuffix("FunctionRole")
        for statement in template.statements()
        for resource in statement.resources
        if isinstance(resource, dict) and ":execution:" in resource.get("Fn::Sub", "")
        if "ReleaseServices" in resource["Fn::Sub"]
    }

    assert looking == {"PlanDeployment", "PlanRollBack", "RecoverDeployment"}
