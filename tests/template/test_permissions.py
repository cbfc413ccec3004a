"""Who may do what. Operations called and operations allowed are compared in tests/e2e."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from tests.template.model import ROOT, TEMPLATE, Template

ENI_POLICY = {
    "Fn::Sub": "arn:${AWS::Partition}:iam::aws:policy/service-role/AWSLambdaENIManagementAccess"
}

ECS_ARN = "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}"

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

# AWS takes a narrower scope, and then leaves something out.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html
WIDE_ALL_THE_SAME = {
    "cloudwatch:DescribeAlarms": "with a narrower scope AWS leaves composite alarms out"
}


@pytest.fixture(scope="module")
def knows_resources() -> dict[str, bool]:
    """IAM action in lower case → whether AWS knows resource-level permissions for it.

    From AWS's Service Authorization Reference, as cfn-lint ships it. What it has there for
    GetMetricData, a data set, is not what the metrics of AWS services are:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-access-control-overview-cw.html
    """
    reference = json.loads(
        (files("cfnlint") / "data" / "AdditionalSpecs" / "Policies.json").read_text()
    )
    knows = {
        f"{service}:{action}".lower(): bool((facts or {}).get("Resources"))
        for service, known in reference.items()
        for action, facts in known["Actions"].items()
    }
    return {**knows, "cloudwatch:getmetricdata": False}


def test_every_function_has_a_role_of_its_own(template: Template) -> None:
    roles = {
        logical_id: template.role_of(function)
        for logical_id, function in template.functions().items()
    }
    for logical_id, machine in template.state_machines().items():
        roles[logical_id] = template.role_of(machine)

    assert roles == {logical_id: f"{logical_id}Role" for logical_id in roles}
    assert set(template.of_type("AWS::IAM::Role")) == set(roles.values())


def test_a_role_is_for_its_service_only(template: Template) -> None:
    workflows = {template.role_of(one) for one in template.state_machines().values()}
    for logical_id, role in template.of_type("AWS::IAM::Role").items():
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        service = "states" if logical_id in workflows else "lambda"
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
            if action in WIDE_ALL_THE_SAME:
                assert wide, f"{statement.where}: {action}"
                assert statement.actions == [action]
                continue
            assert wide != knows_resources[action.lower()], (
                f"{statement.where}: {action} {'can' if wide else 'cannot'} be limited to resources"
            )


def test_all_resources_comes_with_a_reason() -> None:
    stars = [
        line for line in TEMPLATE.read_text().splitlines() if "Resource" in line and '"*"' in line
    ]

    assert stars
    reasons = ("no resource for", *WIDE_ALL_THE_SAME.values())
    for line in stars:
        assert any(one in line.partition(" # ")[2] for one in reasons), line.strip()


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

    # The workflow itself runs the migration.
    assert [statement.where for statement in passing] == [
        "BlueGreenDeploymentRole",
        "RegisterTaskDefinitionFunctionRole",
    ]
    for statement in passing:
        assert statement.actions == ["iam:PassRole"]
        assert statement.condition == {
            "StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
        }
        assert statement.resources == [
            {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:role/${{{parameter}}}"}
            for parameter in ("TaskRolePattern", "ExecutionRolePattern")
        ]


def test_tags_are_put_on_what_is_new_only(template: Template) -> None:
    allowed = {
        one.where: one.condition
        for one in template.statements()
        if "ecs:TagResource" in one.actions
    }

    assert allowed == {
        "BlueGreenDeploymentRole": {"StringEquals": {"ecs:CreateAction": "RunTask"}},
        "RegisterTaskDefinitionFunctionRole": {
            "StringEquals": {"ecs:CreateAction": "RegisterTaskDefinition"}
        },
    }


# https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html, connect-stepfunctions
@pytest.mark.parametrize(
    ("machine", "rule"),
    [
        ("BlueGreenDeployment", "StepFunctionsGetEventsForECSTaskRule"),
        ("ReleaseServices", "StepFunctionsGetEventsForStepFunctionsExecutionRule"),
    ],
)
def test_a_workflow_follows_what_it_begins_by_one_rule_of_the_services_own(
    template: Template, machine: str, rule: str
) -> None:
    (statement,) = (
        one for one in template.statements_of(f"{machine}Role") if "events:PutRule" in one.actions
    )

    (resource,) = statement.resources
    assert resource["Fn::Sub"].endswith(f":rule/{rule}")
    others = [one for one in template.statements() if "events:PutRule" in one.actions]
    assert len(others) == len(template.state_machines())


def test_hooks_are_the_only_functions_besides_the_own_ones_that_are_invoked(
    template: Template,
) -> None:
    invoking = {
        one.where: one for one in template.statements() if "lambda:InvokeFunction" in one.actions
    }

    assert set(invoking) == {"RunHooksFunctionRole"} | {
        template.role_of(one) for one in template.state_machines().values()
    }
    hooks = invoking["RunHooksFunctionRole"]
    arn = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:"
    assert [one["Fn::Sub"].removeprefix(arn) for one in hooks.resources] == [
        "${HookFunctionPattern}",
        # With a qualifier.
        "${HookFunctionPattern}:*",
    ]


@pytest.mark.parametrize(
    ("action", "who"),
    [
        ("ecs:RunTask", {"BlueGreenDeployment"}),
        ("ecs:StopTask", {"BlueGreenDeployment", "ExplainMigrationFunction", "RollBackFunction"}),
        ("states:SendTaskSuccess", {"PromoteFunction"}),
        ("states:SendTaskFailure", {"PlanRollBackFunction"}),
        ("states:StopExecution", {"ReleaseServices"}),
        (
            "states:StartExecution",
            {
                "ReleaseServices",
                "RecoverDeploymentFunction",
                "SettleReleaseFunction",
                "StartDeploymentFunction",
            },
        ),
        ("sns:Publish", {"TellPeopleFunction"}),
        ("events:PutEvents", {"TellPeopleFunction"}),
        ("cloudwatch:GetMetricData", {"CheckBakeFunction"}),
        ("cloudwatch:DescribeAlarms", {"CheckBakeFunction", "PlanDeploymentFunction"}),
        ("states:GetExecutionHistory", {"PromoteFunction", "RecordOutcomeFunction"}),
        ("ecr:DescribeImageScanFindings", {"PlanDeploymentFunction"}),
        # ECR asks for these two as well, where it scans with Amazon Inspector:
        # https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-scanning-enhanced-iam.html
        ("inspector2:ListCoverage", {"PlanDeploymentFunction"}),
        ("inspector2:ListFindings", {"PlanDeploymentFunction"}),
    ],
)
def test_who_may_do_what_only_a_few_need(template: Template, action: str, who: set[str]) -> None:
    allowed = {
        one.where.removesuffix("Role") for one in template.statements() if action in one.actions
    }

    assert allowed == who


@pytest.mark.parametrize("resource", ["AnnouncementsQueue", "DeploymentsTopic"])
def test_who_tells_people_does_so_through_one_function(template: Template, resource: str) -> None:
    """A function that says what has happened sends to the queue: whether it imports the module
    that does is whether it may.
    """
    sending = {
        one.where
        for one in template.statements()
        if {"Fn::GetAtt": [resource, "Arn"]} in one.resources and "sqs:SendMessage" in one.actions
    }
    telling = {
        f"{logical_id}Role"
        for logical_id, function in template.functions().items()
        if re.search(
            r"\bannouncements\.tell\(|settings\.announcements_queue",
            (ROOT / "functions" / f"{function['Handler'].split('.')[0]}.py").read_text(),
        )
    }

    assert telling
    assert sending == (telling if resource == "AnnouncementsQueue" else set())


@pytest.mark.parametrize(
    ("prefix", "readers"),
    [
        ("/bluegreen/slack/*", {"TellPeopleFunction"}),
        (
            "${MackerelKeyParameter}",
            {
                "CheckBakeFunction",
                "DeliverContainerMetricsFunction",
                "PlanDeploymentFunction",
            },
        ),
    ],
)
def test_secrets_are_read_by_who_needs_them(
    template: Template, prefix: str, readers: set[str]
) -> None:
    found = {
        one.where.removesuffix("Role")
        for one in template.statements()
        for resource in one.resources
        if isinstance(resource, dict) and resource.get("Fn::Sub", "").endswith(f"parameter{prefix}")
    }

    assert found == readers


def test_only_these_functions_touch_the_traffic(template: Template) -> None:
    touching = {
        statement.where.removesuffix("FunctionRole")
        for statement in template.statements()
        for action in statement.actions
        if action.startswith("elasticloadbalancing:Modify")
    }

    # StartIdleColor: the test listener.
    assert touching == {"StartIdleColor", "ShiftTraffic", "RollBack"}


def test_who_sets_a_scalable_target_may_do_what_scaling_does(template: Template) -> None:
    """https://docs.aws.amazon.com/autoscaling/application/userguide/
    security_iam_permission_validation.html
    """
    registers = "application-autoscaling:RegisterScalableTarget"
    roles = {one.where for one in template.statements() if registers in one.actions}
    assert roles
    for role in roles:
        allowed = {
            action
            for one in template.statements_of(role)
            if one.resources == [{"Fn::Sub": f"{ECS_ARN}:service/*"}]
            for action in one.actions
        }
        assert {"ecs:DescribeServices", "ecs:UpdateService"} <= allowed, role


def test_the_recovery_touches_nothing_but_executions(template: Template) -> None:
    actions = {
        action
        for statement in template.statements_of("RecoverDeploymentFunctionRole")
        for action in statement.actions
    }

    assert actions == {
        # How one has ended that was stopped before its first change.
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "dynamodb:Query",
        "ssm:GetParameter",
        "states:DescribeExecution",
        "states:StartExecution",
        "sqs:SendMessage",
    }
