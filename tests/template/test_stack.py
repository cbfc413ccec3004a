from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

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
        }
    ]


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
    ],
)
def test_patterns(template: Template, name: str, good: list[str], bad: list[str]) -> None:
    pattern = template.parameters[name]["AllowedPattern"]

    assert [value for value in good if not re.fullmatch(pattern, value)] == []
    assert [value for value in bad if re.fullmatch(pattern, value)] == []
    for item in template.parameters[name]["Default"].split(","):
        assert re.fullmatch(pattern, item), f"{name}: its default"


def test_the_deploy_form_shows_every_parameter(template: Template) -> None:
    groups = template.document["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    shown = [name for group in groups for name in group["Parameters"]]

    assert sorted(shown) == sorted(template.parameters)


def test_the_lease_outlives_the_longest_interval_between_two_checks(template: Template) -> None:
    assert template.parameters["LeaseSeconds"]["MinValue"] >= 2 * LONGEST_SECONDS


def test_outputs(template: Template) -> None:
    outputs = template.document["Outputs"]

    assert outputs["StateMachineArn"]["Value"] == {"Ref": "BlueGreenDeployment"}
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
