from __future__ import annotations

import re

from tests.template.model import ROOT, Template

ASL = ROOT / "statemachine" / "blue_green_deployment.asl.json"


BESIDES = {
    "RecoverDeploymentFunction",
    "PushContainerMetricsFunction",
    "CollectContainerMetricsFunction",
    "DeliverContainerMetricsFunction",
    "AnnotateDeploymentFunction",
}


def state_functions(template: Template) -> set[str]:
    return set(template.functions()) - BESIDES


def test_every_state_function_is_substituted_into_the_definition(template: Template) -> None:
    substitutions = template.state_machine()["DefinitionSubstitutions"]

    assert substitutions == {
        f"{logical_id}Arn": {"Fn::GetAtt": [logical_id, "Arn"]}
        for logical_id in state_functions(template)
    }


def test_the_definition_uses_every_substitution(template: Template) -> None:
    used = set(re.findall(r"\$\{(\w+)\}", ASL.read_text()))

    assert used == set(template.state_machine()["DefinitionSubstitutions"])


def test_the_workflow_may_invoke_exactly_the_state_functions(template: Template) -> None:
    role = template.role_of(template.state_machine())
    (statement,) = (
        one for one in template.statements_of(role) if "lambda:InvokeFunction" in one.actions
    )

    assert statement.actions == ["lambda:InvokeFunction"]
    assert {resource["Fn::GetAtt"][0] for resource in statement.resources} == state_functions(
        template
    )


def test_the_workflow_is_traced_and_logs_errors_without_data(template: Template) -> None:
    machine = template.state_machine()

    assert machine["StateMachineType"] == "STANDARD"
    assert machine["TracingConfiguration"] == {"Enabled": True}
    assert machine["LoggingConfiguration"]["Level"] == "ERROR"
    assert machine["LoggingConfiguration"]["IncludeExecutionData"] is False
    (destination,) = machine["LoggingConfiguration"]["Destinations"]
    group, _ = destination["CloudWatchLogsLogGroup"]["LogGroupArn"]["Fn::GetAtt"]
    assert template.resource(group)["Type"] == "AWS::Logs::LogGroup"


def test_executions_are_named_in_policies_as_the_state_machine_is(template: Template) -> None:
    name = template.state_machine()["StateMachineName"]["Fn::Sub"]
    executions = {
        resource["Fn::Sub"]
        for statement in template.statements()
        if statement.actions == ["states:DescribeExecution"]
        for resource in statement.resources
    }

    assert executions == {
        f"arn:${{AWS::Partition}}:states:${{AWS::Region}}:${{AWS::AccountId}}:execution:{name}:*"
    }
