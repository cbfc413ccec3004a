"""examples/shifted-ports: service.yaml describes what infrastructure.yaml makes, with each of the
three load balancers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from bluegreen.color import Color
from bluegreen.configuration import ColorSlot, ServiceConfiguration, load
from sandbox.balancers import KINDS, with_balancer
from sandbox.stack import load as load_template
from tests.template.model import ROOT, Template

EXAMPLE = ROOT / "examples" / "shifted-ports"
weighted = pytest.mark.parametrize("balancer", ["alb", "nlb"], indirect=True)
classic = pytest.mark.parametrize("balancer", ["clb"], indirect=True)


@pytest.fixture(scope="module", params=["alb", "nlb", "clb"])
def balancer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def infrastructure(balancer: str) -> Template:
    template = Template(load_template(EXAMPLE / "infrastructure.yaml"))
    return template.chosen(LoadBalancer=KINDS[balancer])


@pytest.fixture(scope="module")
def service(balancer: str) -> ServiceConfiguration:
    text = (EXAMPLE / "service.yaml").read_text()
    return load(with_balancer(text, "shifted-ports", balancer)[0], "service.yaml")


def named(infrastructure: Template, kind: str, key: str) -> dict[Any, Any]:
    """The resources of a type by their name property."""
    return {one[key]: one for one in infrastructure.of_type(kind).values()}


def each_color(service: ServiceConfiguration) -> Iterator[tuple[Color, ColorSlot]]:
    return ((color, service.colors[color]) for color in Color)


def weights(listener: dict[str, Any]) -> dict[str, int]:
    (action,) = listener["DefaultActions"]
    assert action["Type"] == "forward"
    return {
        group["TargetGroupArn"]["Ref"]: group["Weight"]
        for group in action["ForwardConfig"]["TargetGroups"]
    }


@weighted
def test_each_color_has_its_cluster_service_and_target_group(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    services = named(infrastructure, "AWS::ECS::Service", "ServiceName")
    groups = named(infrastructure, "AWS::ElasticLoadBalancingV2::TargetGroup", "Name")
    clusters = named(infrastructure, "AWS::ECS::Cluster", "ClusterName")

    for color, slot in each_color(service):
        assert slot.host_port is not None
        assert slot.cluster in clusters, color
        (balancer,) = services[slot.ecs_service]["LoadBalancers"]
        group = infrastructure.resource(balancer["TargetGroupArn"]["Ref"])["Properties"]
        assert group["Name"] == slot.target_group, color
        assert groups[slot.target_group]["Port"] == slot.host_port.host_port, color
        assert balancer["ContainerName"] == slot.host_port.container, color
        assert balancer["ContainerPort"] == slot.host_port.container_port, color


def test_nothing_runs_before_the_first_deployment(infrastructure: Template) -> None:
    for logical_id, service in infrastructure.of_type("AWS::ECS::Service").items():
        assert service["DesiredCount"] == 0, logical_id
    for logical_id, target in infrastructure.of_type(
        "AWS::ApplicationAutoScaling::ScalableTarget"
    ).items():
        assert target["MinCapacity"] == 0, f"{logical_id}: registering it would start tasks"


def test_ecs_does_not_put_back_a_revision_by_itself(infrastructure: Template) -> None:
    for logical_id, service in infrastructure.of_type("AWS::ECS::Service").items():
        breaker = service["DeploymentConfiguration"]["DeploymentCircuitBreaker"]
        assert breaker == {"Enable": False, "Rollback": False}, logical_id


@weighted
def test_the_type_of_the_load_balancer_is_what_the_router_says(
    balancer: str, infrastructure: Template
) -> None:
    (made,) = infrastructure.of_type("AWS::ElasticLoadBalancingV2::LoadBalancer").values()
    assert made["Type"] == KINDS[balancer]
    protocol = {"alb": "HTTP", "nlb": "TCP"}[balancer]
    for kind in ("Listener", "TargetGroup"):
        for one in infrastructure.of_type(f"AWS::ElasticLoadBalancingV2::{kind}").values():
            assert one["Protocol"] == protocol
            assert one.get("HealthCheckProtocol", "HTTP") == "HTTP"


@classic
def test_a_classic_load_balancer_asks_the_instances_at_a_port_of_a_color(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    ((logical_id, made),) = infrastructure.of_type(
        "AWS::ElasticLoadBalancing::LoadBalancer"
    ).items()
    (listener,) = made["Listeners"]
    ports = [slot.host_port.host_port for _, slot in each_color(service) if slot.host_port]

    assert made["LoadBalancerName"] == service.router.load_balancer
    assert int(listener["LoadBalancerPort"]) == service.router.port
    assert int(listener["InstancePort"]) == ports[0]
    assert made["HealthCheck"]["Target"] == f"HTTP:{ports[0]}/healthz"
    (group,) = infrastructure.of_type("AWS::AutoScaling::AutoScalingGroup").values()
    assert group["LoadBalancerNames"] == [{"Ref": logical_id}]
    assert not infrastructure.of_type("AWS::ElasticLoadBalancingV2::LoadBalancer")


@classic
def test_services_behind_a_classic_load_balancer_have_none_of_their_own(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    services = named(infrastructure, "AWS::ECS::Service", "ServiceName")
    for color, slot in each_color(service):
        assert "LoadBalancers" not in services[slot.ecs_service], color
        assert "HealthCheckGracePeriodSeconds" not in services[slot.ecs_service], color


@classic
def test_a_classic_load_balancer_drains_as_long_as_is_waited(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    (made,) = infrastructure.of_type("AWS::ElasticLoadBalancing::LoadBalancer").values()
    assert made["ConnectionDrainingPolicy"] == {
        "Enabled": True,
        "Timeout": {"Ref": "DeregistrationDelaySeconds"},
    }
    default = infrastructure.parameters["DeregistrationDelaySeconds"]["Default"]
    assert service.drain.seconds >= default


@weighted
def test_both_groups_stay_on_both_listeners(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    listeners = named(infrastructure, "AWS::ElasticLoadBalancingV2::Listener", "Port")

    assert set(listeners) == {service.router.port, service.router.test_port}
    assert weights(listeners[service.router.port]) == {
        "BlueTargetGroup": 100,
        "GreenTargetGroup": 0,
    }
    assert weights(listeners[service.router.test_port]) == {
        "BlueTargetGroup": 0,
        "GreenTargetGroup": 100,
    }
    balancers = named(infrastructure, "AWS::ElasticLoadBalancingV2::LoadBalancer", "Name")
    assert service.router.load_balancer in balancers


def test_the_load_balancer_reaches_the_host_ports_and_nobody_else_does(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    (rule,) = infrastructure.resource("InstanceSecurityGroup")["Properties"]["SecurityGroupIngress"]
    ports = [slot.host_port.host_port for _, slot in each_color(service) if slot.host_port]

    assert rule["SourceSecurityGroupId"] == {"Ref": "LoadBalancerSecurityGroup"}
    assert "CidrIp" not in rule
    assert (rule["FromPort"], rule["ToPort"]) == (min(ports), max(ports))


def test_the_containers_take_images_of_the_repository(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    (definition,) = infrastructure.of_type("AWS::ECS::TaskDefinition").values()
    containers = {one["Name"]: one for one in definition["ContainerDefinitions"]}
    repositories = named(infrastructure, "AWS::ECR::Repository", "RepositoryName")

    for container in service.containers:
        assert container.name in containers
        assert container.repository in repositories


def test_the_deployer_may_pass_the_roles_and_read_the_logs(
    infrastructure: Template, template: Template
) -> None:
    (definition,) = infrastructure.of_type("AWS::ECS::TaskDefinition").values()
    for key, parameter in (
        ("TaskRoleArn", "TaskRolePattern"),
        ("ExecutionRoleArn", "ExecutionRolePattern"),
    ):
        role = infrastructure.resource(definition[key]["Fn::GetAtt"][0])["Properties"]
        allowed = "/" + template.parameters[parameter]["Default"]
        assert allowed == role["Path"] + "*", key
    (group,) = infrastructure.of_type("AWS::Logs::LogGroup").values()
    allowed = template.parameters["TaskLogGroupPattern"]["Default"].replace("*", ".*")
    assert re.fullmatch(allowed, group["LogGroupName"])


@weighted
def test_draining_lasts_as_long_as_deregistration(
    infrastructure: Template, service: ServiceConfiguration
) -> None:
    delay = {"Ref": "DeregistrationDelaySeconds"}
    for logical_id, group in infrastructure.of_type(
        "AWS::ElasticLoadBalancingV2::TargetGroup"
    ).items():
        attributes = {one["Key"]: one["Value"] for one in group["TargetGroupAttributes"]}
        assert attributes["deregistration_delay.timeout_seconds"] == delay, logical_id
    default = infrastructure.parameters["DeregistrationDelaySeconds"]["Default"]
    assert service.drain.seconds >= default


def test_a_task_has_time_to_finish_its_requests(infrastructure: Template) -> None:
    (definition,) = infrastructure.of_type("AWS::ECS::TaskDefinition").values()
    for container in definition["ContainerDefinitions"]:
        assert container["StopTimeout"] >= 30, container["Name"]


def test_the_stack_policy_in_the_comments_names_resources_that_exist() -> None:
    text = (EXAMPLE / "infrastructure.yaml").read_text()
    named_there = re.findall(r"LogicalResourceId/(\w+)", text)

    assert named_there
    for logical_id in named_there:
        assert re.search(f"^  {logical_id}:$", text, re.MULTILINE), logical_id


def test_every_parameter_is_described_and_checked(infrastructure: Template) -> None:
    for name, parameter in infrastructure.parameters.items():
        assert parameter["Description"], name
        assert {"AllowedPattern", "MinValue"} & set(parameter), name
