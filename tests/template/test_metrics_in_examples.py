"""What the container metrics need of each example: Container Insights, or commands and a bucket."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.stack import load
from tests.template.model import ROOT, Template

PATTERNS = ("shifted-ports", "host-proxy", "two-clusters")


@pytest.fixture(scope="module", params=PATTERNS)
def infrastructure(request: pytest.FixtureRequest) -> Template:
    return Template(load(ROOT / "examples" / request.param / "infrastructure.yaml"))


def test_container_insights_is_off_unless_it_is_asked_for(infrastructure: Template) -> None:
    assert infrastructure.parameters["ContainerInsights"]["Default"] == "disabled"
    clusters = infrastructure.of_type("AWS::ECS::Cluster")
    assert clusters
    for logical_id, cluster in clusters.items():
        (setting,) = cluster["ClusterSettings"]
        assert setting == {"Name": "containerInsights", "Value": {"Ref": "ContainerInsights"}}, (
            logical_id
        )


def test_every_instance_may_get_the_command_that_reads_cgroups(
    infrastructure: Template, template: Template
) -> None:
    (condition,) = (
        statement.condition
        for statement in template.statements_of("CollectContainerMetricsFunctionRole")
        if statement.actions == ["ssm:SendCommand"] and statement.condition
    )
    ((key, value),) = condition["StringEquals"].items()
    wanted = {"Key": key.removeprefix("ssm:resourceTag/"), "Value": value}

    groups = infrastructure.of_type("AWS::AutoScaling::AutoScalingGroup")
    assert groups
    for logical_id, group in groups.items():
        name = group["LaunchTemplate"]["LaunchTemplateId"]["Ref"]
        data = infrastructure.resource(name)["Properties"]["LaunchTemplateData"]
        assert wanted in tags_of_instances(group, data), logical_id


def tags_of_instances(group: dict[str, Any], data: dict[str, Any]) -> list[dict[str, str]]:
    """What the instances of a group are tagged with, by itself and by its launch template."""
    tags = [tag for tag in group["Tags"] if tag["PropagateAtLaunch"]]
    tags += [
        tag
        for specification in data.get("TagSpecifications", [])
        if specification["ResourceType"] == "instance"
        for tag in specification["Tags"]
    ]
    return [{"Key": tag["Key"], "Value": tag["Value"]} for tag in tags]


def test_instances_may_put_long_output_where_the_function_reads_it(
    infrastructure: Template, template: Template
) -> None:
    (readable,) = (
        statement.resources
        for statement in template.statements_of("CollectContainerMetricsFunctionRole")
        if statement.actions == ["s3:GetObject"]
    )
    below = str(readable[0]["Fn::Sub"]).removeprefix("${MetricsBucket.Arn}")
    role = infrastructure.chosen(MetricsBucket="bucket").resource("InstanceRole")["Properties"]
    statements = [
        statement
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == "s3:PutObject"
    ]

    assert [statement["Resource"]["Fn::Sub"] for statement in statements] == [
        "arn:${AWS::Partition}:s3:::${MetricsBucket}" + below
    ]
    without = infrastructure.chosen().resource("InstanceRole")["Properties"].get("Policies", [])
    assert "metrics" not in [policy["PolicyName"] for policy in without]
