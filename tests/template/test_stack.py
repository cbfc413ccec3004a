from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from typing import Any

import pytest

from bluegreen.history import Summary
from bluegreen.pace import LONGEST_SECONDS
from tests.template.model import ROOT, TEMPLATE, Template


def test_the_table(template: Template) -> None:
    resource = template.resource("DeploymentsTable")
    table = resource["Properties"]

    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["DeletionProtectionEnabled"] is True
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert table["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
    assert table["GlobalSecondaryIndexes"] == [
        {
            "IndexName": "held-locks",
            "KeySchema": [
                {"AttributeName": "held", "KeyType": "HASH"},
                {"AttributeName": "lease_expires_at", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "ALL"},
        },
        {
            "IndexName": "by-service",
            "KeySchema": [
                {"AttributeName": "service", "KeyType": "HASH"},
                {"AttributeName": "started_at", "KeyType": "RANGE"},
            ],
            "Projection": {
                "ProjectionType": "INCLUDE",
                "NonKeyAttributes": [
                    "execution_arn",
                    "started_by",
                    "images",
                    "from_color",
                    "to_color",
                    "outcome",
                    "reason",
                    "ended_at",
                    "states",
                    "states_missing",
                    "approved_by",
                    "promoted_by",
                ],
            },
        },
    ]
    assert {
        one["AttributeName"]: one["AttributeType"] for one in table["AttributeDefinitions"]
    } == {
        "pk": "S",
        "held": "S",
        "lease_expires_at": "N",
        "service": "S",
        "started_at": "N",
    }


def test_what_is_old_leaves_the_table_by_itself(template: Template) -> None:
    table = template.resource("DeploymentsTable")["Properties"]

    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def test_the_history_has_room_for_what_is_shown_of_it(template: Template) -> None:
    """A field of a Summary that the index leaves out would always be empty."""
    _, index = template.resource("DeploymentsTable")["Properties"]["GlobalSecondaryIndexes"]
    projected = {*index["Projection"]["NonKeyAttributes"], "service", "started_at"}

    # Its id is the table's own key.
    assert {one.name for one in fields(Summary)} - {"id"} == projected


def test_every_parameter_is_described_and_checked(template: Template) -> None:
    for name, parameter in template.parameters.items():
        assert len(parameter["Description"]) > 20, name
        assert "Default" in parameter, f"{name}: sam deploy asks for nothing that must be known"
        limits = {"AllowedPattern", "AllowedValues", "MinValue"} & set(parameter)
        assert limits, f"{name} takes anything"
        if "AllowedPattern" in parameter:
            assert parameter["ConstraintDescription"], name


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("TaskRolePattern", ["ecs-tasks/*", "team_a/web-task"], ["", "role with spaces", "a:b"]),
        ("ExecutionRolePattern", ["ecsTaskExecutionRole"], ["", "arn:aws:iam::1:role/x"]),
        ("TaskLogGroupPattern", ["/ecs/*", "web"], ["", "a b", "a:b"]),
        ("ProbeSubnetIds", ["", "subnet-0123456789abcdef0"], ["subnet", "sg-01234567"]),
        ("ProbeSecurityGroupIds", ["", "sg-01234567"], ["subnet-01234567", "x"]),
        ("AlarmEmail", ["", "ops@example.com"], ["ops", "a@b@c", "two words@example.com"]),
        (
            "MackerelUrl",
            ["https://api.mackerelio.com", "https://kcps-mackerel.io", "http://127.0.0.1:8065"],
            ["", "http://api.mackerelio.com", "https://api.mackerelio.com/", "https://a@b"],
        ),
        ("MackerelKeyParameter", ["/bluegreen/mackerel/api-key"], ["", "key", "/a b", "/a*"]),
        (
            "SlackUrl",
            ["https://hooks.slack.com", "https://hooks.slack-gov.com", "http://127.0.0.1:8065"],
            [
                "",
                "hooks.slack.com",
                "http://hooks.slack.com",
                "https://hooks.slack.com/",
                "https://hooks.slack.com/services/T0/B0/secret",
                "https://somebody@hooks.slack.com",
                "http://127.0.0.1",
                "http://127.0.0.1:80@example.com",
                "http://127x0.0.1:80",
            ],
        ),
        (
            "HookFunctionPattern",
            ["bluegreen-hook-*", "smoke_test", "*"],
            ["", "a b", "smoke:prod", "arn:aws:lambda:eu-west-1:1:function:x", "${AWS::StackName}"],
        ),
    ],
)
def test_patterns(template: Template, name: str, good: list[str], bad: list[str]) -> None:
    pattern = template.parameters[name]["AllowedPattern"]

    assert [value for value in good if not re.fullmatch(pattern, value)] == []
    assert [value for value in bad if re.fullmatch(pattern, value)] == []
    for item in template.parameters[name]["Default"].split(","):
        assert re.fullmatch(pattern, item), f"{name}: its default"


@pytest.mark.parametrize(("days", "good"), [(-1, False), (0, True), (400, True), (3650, True)])
def test_days_of_history(template: Template, days: int, good: bool) -> None:
    parameter = template.parameters["HistoryDays"]

    assert parameter["Type"] == "Number"
    assert (parameter["MinValue"] <= days <= parameter["MaxValue"]) is good
    assert parameter["Default"] == 400


def test_the_deploy_form_shows_every_parameter(template: Template) -> None:
    groups = template.document["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    shown = [name for group in groups for name in group["Parameters"]]

    assert sorted(shown) == sorted(template.parameters)


def test_the_lease_outlives_the_longest_interval_between_two_checks(template: Template) -> None:
    assert template.parameters["LeaseSeconds"]["MinValue"] >= 2 * LONGEST_SECONDS


def test_outputs(template: Template) -> None:
    outputs = template.document["Outputs"]

    assert outputs["StateMachineArn"]["Value"] == {"Ref": "BlueGreenDeployment"}
    assert outputs["ReleaseStateMachineArn"]["Value"] == {"Ref": "ReleaseServices"}
    assert outputs["DeploymentsTopicArn"]["Value"] == {"Ref": "DeploymentsTopic"}
    for name, output in outputs.items():
        assert output["Description"], name


def test_no_secrets() -> None:
    text = TEMPLATE.read_text()

    assert not re.search(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b", text)
    assert not re.search(r"(?i)\b\w*(password|secret|api_?key|token)\w*\s*:", text)
    assert not re.search(r"\b\d{12}\b", text), "an account id"


def test_samconfig() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    commands: dict[str, Any] = {
        command: options["parameters"] for command, options in config["default"].items()
    }

    assert config["version"] == 0.1
    assert commands["global"]["stack_name"] == "ecs-bluegreen"
    assert commands["build"] == {"cached": True, "parallel": True}
    assert commands["validate"] == {"lint": True}
    assert commands["deploy"] == {
        "capabilities": "CAPABILITY_IAM",
        "confirm_changeset": True,
        "resolve_s3": True,
    }
