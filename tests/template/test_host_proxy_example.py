"""examples/host-proxy: service.yaml describes what infrastructure.yaml makes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from bluegreen.color import Color
from bluegreen.configuration import HostRouter, ServiceConfiguration, load
from sandbox.ssm.documents import resolve
from sandbox.stack import load as load_template
from tests.template.model import ROOT, Template

EXAMPLE = ROOT / "examples" / "host-proxy"
FIXED, DYNAMIC = 2, 1
"""Where the value for fixed host ports, and for dynamic ones, stands in an Fn::If."""


@pytest.fixture(scope="module")
def infrastructure() -> Template:
    return Template(load_template(EXAMPLE / "infrastructure.yaml"))


@pytest.fixture(scope="module")
def service() -> ServiceConfiguration:
    return load((EXAMPLE / "service.yaml").read_text(), "service.yaml")


@pytest.fixture(scope="module")
def router(service: ServiceConfiguration) -> HostRouter:
    assert isinstance(service.router, HostRouter)
    return service.router


def one(infrastructure: Template, kind: str) -> dict[str, Any]:
    (found,) = infrastructure.of_type(kind).values()
    return dict(found)


def chosen(value: Any, ports: int) -> Any:
    """A part of the template for fixed or dynamic host ports, its references by name."""
    if isinstance(value, list):
        return [chosen(item, ports) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Fn::If"}:
        assert value["Fn::If"][0] == "DynamicHostPorts"
        return chosen(value["Fn::If"][ports], ports)
    if set(value) == {"Ref"}:
        return value["Ref"]
    return {key: chosen(item, ports) for key, item in value.items()}


def test_each_color_has_its_cluster_service_and_port(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    services = {
        item["ServiceName"]: item for item in infrastructure.of_type("AWS::ECS::Service").values()
    }
    (container,) = one(infrastructure, "AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    for color in Color:
        slot = service.colors[color]
        assert slot.cluster == one(infrastructure, "AWS::ECS::Cluster")["ClusterName"]
        assert services[slot.ecs_service]["DesiredCount"] == 0, "nothing runs before a deployment"
        assert "LoadBalancers" not in services[slot.ecs_service]
        assert slot.host_port
        assert slot.host_port.container == container["Name"]
        assert slot.host_port.container_port == container["PortMappings"][0]["ContainerPort"]


@pytest.mark.parametrize(
    ("ports", "constraints"), [(FIXED, [{"Type": "distinctInstance"}]), (DYNAMIC, ["AWS::NoValue"])]
)
def test_fixed_ports_leave_room_for_one_task_of_a_color(
    infrastructure: Template, ports: int, constraints: list[Any]
) -> None:
    for service in infrastructure.of_type("AWS::ECS::Service").values():
        assert chosen(service["PlacementConstraints"], ports) == constraints
        assert service["DeploymentConfiguration"]["MaximumPercent"] == 100


def test_ecs_does_not_put_back_a_revision_by_itself(infrastructure: Template) -> None:
    for service in infrastructure.of_type("AWS::ECS::Service").values():
        breaker = service["DeploymentConfiguration"]["DeploymentCircuitBreaker"]
        assert breaker == {"Enable": False, "Rollback": False}


def test_the_load_balancer_reaches_the_proxies_and_nobody_else_does(
    infrastructure: Template, router: HostRouter
) -> None:
    assert router.load_balancer
    listener = one(infrastructure, "AWS::ElasticLoadBalancingV2::Listener")
    balancer = one(infrastructure, "AWS::ElasticLoadBalancingV2::LoadBalancer")
    assert (router.load_balancer.name, router.load_balancer.port) == (
        *(balancer["Name"], listener["Port"]),
    )
    assert listener["DefaultActions"] == [
        {"Type": "forward", "TargetGroupArn": {"Ref": "TargetGroup"}}
    ]
    group = one(infrastructure, "AWS::ElasticLoadBalancingV2::TargetGroup")
    assert (group["Port"], group["TargetType"]) == (router.port, "instance")
    (rule,) = infrastructure.resource("InstanceSecurityGroup")["Properties"]["SecurityGroupIngress"]
    assert rule["SourceSecurityGroupId"] == {"Ref": "LoadBalancerSecurityGroup"}
    assert (rule["FromPort"], rule["ToPort"]) == (router.port, router.port)
    assert "CidrIp" not in rule


def test_the_group_does_not_replace_instances_that_have_nothing_to_forward_to(
    infrastructure: Template,
) -> None:
    group = one(infrastructure, "AWS::AutoScaling::AutoScalingGroup")
    assert group.get("HealthCheckType", "EC2") == "EC2"
    assert group["TargetGroupARNs"] == [{"Ref": "TargetGroup"}]


def test_the_deployer_may_send_commands_to_the_instances(infrastructure: Template) -> None:
    tags = one(infrastructure, "AWS::AutoScaling::AutoScalingGroup")["Tags"]
    assert {"Key": "ecs-bluegreen", "Value": "host", "PropagateAtLaunch": True} in tags


def test_an_instance_may_read_its_weights(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    role = infrastructure.chosen().resource("InstanceRole")["Properties"]
    (policy,) = role["Policies"]
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Action"] == "ssm:GetParameter"
    resource = statement["Resource"]["Fn::Sub"]
    assert resource.endswith(f":parameter/bluegreen/hosts/{service.service}")
    managed = [item["Fn::Sub"].rsplit("/", 1)[1] for item in role["ManagedPolicyArns"]]
    assert "AmazonSSMManagedInstanceCore" in managed


@pytest.mark.parametrize("ports", [FIXED, DYNAMIC])
def test_every_instance_is_installed_as_the_service_says(
    infrastructure: Template, service: ServiceConfiguration, router: HostRouter, ports: int
) -> None:
    association = one(infrastructure, "AWS::SSM::Association")
    assert association["Name"] == {"Ref": "InstallDocument"}
    assert association["Targets"] == [
        {"Key": "tag:aws:autoscaling:groupName", "Values": [{"Ref": "AutoScalingGroup"}]}
    ]
    given = chosen(association["Parameters"], ports)
    given["Proxy"] = [infrastructure.parameters["Proxy"]["Default"]]
    document = yaml.safe_load((ROOT / "hosts" / "documents" / "install.yaml").read_text())
    values = resolve(document, given)

    group = one(infrastructure, "AWS::ElasticLoadBalancingV2::TargetGroup")
    blue, green = (service.colors[color].host_port for color in Color)
    assert blue
    assert green
    where = (
        {"BluePort": str(blue.host_port), "GreenPort": str(green.host_port), "Container": ""}
        if ports == FIXED
        else {
            "BluePort": "0",
            "GreenPort": "0",
            "Container": blue.container,
            "ContainerPort": str(blue.container_port),
        }
    )
    wanted = {
        "Service": service.service,
        "Proxy": router.type,
        "Protocol": router.protocol,
        "Port": str(router.port),
        "HealthPath": group["HealthCheckPath"],
        **where,
    }
    assert wanted.items() <= values.items()


def test_the_containers_take_images_of_the_repository(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    (container,) = one(infrastructure, "AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    (taken,) = service.containers
    assert taken.name == container["Name"]
    assert taken.repository == one(infrastructure, "AWS::ECR::Repository")["RepositoryName"]


def test_the_deployer_may_pass_the_roles_and_read_the_logs(
    infrastructure: Template, template: Template
) -> None:
    definition = one(infrastructure, "AWS::ECS::TaskDefinition")
    for key, parameter in (
        ("TaskRoleArn", "TaskRolePattern"),
        ("ExecutionRoleArn", "ExecutionRolePattern"),
    ):
        role = infrastructure.resource(definition[key]["Fn::GetAtt"][0])["Properties"]
        assert "/" + template.parameters[parameter]["Default"] == role["Path"] + "*", key
    group = one(infrastructure, "AWS::Logs::LogGroup")["LogGroupName"]
    allowed = template.parameters["TaskLogGroupPattern"]["Default"].replace("*", ".*")
    assert re.fullmatch(allowed, group)


def test_what_the_comments_name_exists(infrastructure: Template, template: Template) -> None:
    text = (EXAMPLE / "infrastructure.yaml").read_text()
    for logical_id in re.findall(r"LogicalResourceId/(\w+)", text):
        assert logical_id in infrastructure.document["Resources"]
    (logical_id,) = re.findall(r"--logical-resource-id (\w+)", text)
    assert template.resource(logical_id)["Type"] == "AWS::SSM::Document"


def test_every_parameter_is_described_and_checked(infrastructure: Template) -> None:
    for name, parameter in infrastructure.parameters.items():
        assert parameter["Description"], name
        assert {"AllowedPattern", "MinValue"} & set(parameter), name
