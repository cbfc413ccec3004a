"""Who may do what. Operations called and operations allowed are compared in tests/e2e."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from tests.template.model import TEMPLATE, Template

ENI_POLICY = {
    "Fn::Sub": "arn:${AWS::Partition}:iam::aws:policy/service-role/AWSLambdaENIManagementAccess"
}

LOOK_AT_TRAFFIC = {
    f"{state}Function"
    for state in (
        "PlanDeployment",
        "StartIdleColor",
        "CheckHealth",
        "ShiftTraffic",
        "CheckBake",
        "DrainOldColor",
        "RollBack",
    )
}


@pytest.fixture(scope="module")
def knows_resources() -> dict[str, bool]:
    """IAM action in lower case → whether AWS knows resource-level permissions for it.

    From AWS's Service Authorization Reference, as cfn-lint ships it.
    """
    reference = json.loads(
        (files("cfnlint") / "data" / "AdditionalSpecs" / "Policies.json").read_text()
    )
    return {
        f"{service}:{action}".lower(): bool((facts or {}).get("Resources"))
        for service, known in reference.items()
        for action, facts in known["Actions"].items()
    }


def test_every_function_has_a_role_of_its_own(template: Template) -> None:
    roles = {
        logical_id: template.role_of(function)
        for logical_id, function in template.functions().items()
    }
    roles["BlueGreenDeployment"] = template.role_of(template.state_machine())

    assert roles == {logical_id: f"{logical_id}Role" for logical_id in roles}
    assert set(template.of_type("AWS::IAM::Role")) == set(roles.values())


def test_a_role_is_for_its_service_only(template: Template) -> None:
    for logical_id, role in template.of_type("AWS::IAM::Role").items():
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        service = "states" if logical_id == "BlueGreenDeploymentRole" else "lambda"
        assert statement["Principal"] == {"Service": f"{service}.amazonaws.com"}, logical_id


def test_managed_policies_are_the_own_ones_and_lambdas_for_network_interfaces(
    template: Template,
) -> None:
    for logical_id, function in template.functions().items():
        policies = template.resource(template.role_of(function))["Properties"]["ManagedPolicyArns"]
        wanted: list[Any] = [{"Ref": "ObservabilityPolicy"}]
        if logical_id in LOOK_AT_TRAFFIC:
            wanted.append({"Ref": "HostsPolicy"})
        if "VpcConfig" in function:
            wanted.append({"Fn::If": ["ProbesInVpc", ENI_POLICY, {"Ref": "AWS::NoValue"}]})
        assert policies == wanted, logical_id


def test_commands_go_to_instances_that_are_marked_for_it_and_run_our_documents_only(
    template: Template,
) -> None:
    sent = [one for one in template.statements() if "ssm:SendCommand" in one.actions]
    assert {one.where for one in sent} == {
        "CollectContainerMetricsFunctionRole",
        "HostsPolicy",
        "ShiftTrafficFunctionRole",
        "RollBackFunctionRole",
    }
    for statement in sent:
        for resource in statement.resources:
            text = resource["Fn::Sub"]
            if ":instance/" in text:
                assert statement.condition == {
                    "StringEquals": {"ssm:resourceTag/ecs-bluegreen": "host"}
                }
            else:
                assert re.search(
                    r":document/\$\{Host(Report|Stage|Commit|Metrics)Document\}$", text
                )


def test_every_action_exists(template: Template, knows_resources: dict[str, bool]) -> None:
    for statement in template.statements():
        for action in statement.actions:
            assert "*" not in action, statement.where
            assert action.lower() in knows_resources, f"{statement.where}: {action}"


def test_all_resources_only_where_aws_knows_none(
    template: Template, knows_resources: dict[str, bool]
) -> None:
    for statement in template.statements():
        for action in statement.actions:
            wide = "*" in statement.resources
            assert wide != knows_resources[action.lower()], (
                f"{statement.where}: {action} {'can' if wide else 'cannot'} be limited to resources"
            )


def test_all_resources_comes_with_a_reason() -> None:
    stars = [
        line for line in TEMPLATE.read_text().splitlines() if "Resource" in line and '"*"' in line
    ]

    assert stars
    for line in stars:
        assert "no resource for" in line.partition(" # ")[2], line.strip()


def test_arns_name_account_and_region(template: Template) -> None:
    for statement in template.statements():
        for resource in statement.resources:
            arn = resource.get("Fn::Sub", "") if isinstance(resource, dict) else ""
            if not arn.startswith("arn:"):
                continue
            _, partition, service, region, account, _ = arn.replace("AWS::", "AWS.").split(":", 5)
            assert partition == "${AWS.Partition}", arn
            assert region == ("" if service == "iam" else "${AWS.Region}"), arn
            # Images may come from a registry that several accounts share.
            assert account == "${AWS.AccountId}" or (service, account) == ("ecr", "*"), arn


def test_roles_are_passed_to_ecs_only_and_only_those_that_match(template: Template) -> None:
    passing = [one for one in template.statements() if "iam:PassRole" in one.actions]

    (statement,) = passing
    assert statement.where == "RegisterTaskDefinitionFunctionRole"
    assert statement.actions == ["iam:PassRole"]
    assert statement.condition == {
        "StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    }
    assert statement.resources == [
        {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:role/${{{parameter}}}"}
        for parameter in ("TaskRolePattern", "ExecutionRolePattern")
    ]


def test_tags_are_put_on_new_revisions_only(template: Template) -> None:
    (statement,) = (one for one in template.statements() if "ecs:TagResource" in one.actions)

    assert statement.condition == {"StringEquals": {"ecs:CreateAction": "RegisterTaskDefinition"}}


def test_only_these_functions_touch_the_traffic(template: Template) -> None:
    touching = {
        statement.where.removesuffix("FunctionRole")
        for statement in template.statements()
        for action in statement.actions
        if action.startswith("elasticloadbalancing:Modify")
    }

    # StartIdleColor: the test listener.
    assert touching == {"StartIdleColor", "ShiftTraffic", "RollBack"}


def test_the_recovery_touches_nothing_but_executions(template: Template) -> None:
    actions = {
        action
        for statement in template.statements_of("RecoverDeploymentFunctionRole")
        for action in statement.actions
    }

    assert actions == {
        "dynamodb:Query",
        "states:DescribeExecution",
        "states:StartExecution",
        "sqs:SendMessage",
    }
