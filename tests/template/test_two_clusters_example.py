"""examples/two-clusters: service.yaml describes what infrastructure.yaml makes, with each of the
three load balancers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from bluegreen.color import Color
from bluegreen.configuration import AlbRouter, ClbRouter, NlbRouter, ServiceConfiguration, load
from sandbox.balancers import KINDS, PARAMETER, with_balancer
from sandbox.stack import load as load_template
from tests.template.model import ROOT, Template

EXAMPLE = ROOT / "examples" / "two-clusters"
WEIGHTED = ("alb", "nlb")


@dataclass(frozen=True)
class Example:
    """The example with one kind of load balancer."""

    balancer: str
    service: ServiceConfiguration
    template: Template

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Those that are made, by logical id; functions stay what they are, but for Fn::If."""
        return {
            logical_id: self.chosen(properties)
            for logical_id, properties in self.template.of_type(kind).items()
            if self.holds(self.template.resource(logical_id).get("Condition"))
        }

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = self.of_type(kind).values()
        return found

    def of_color(self, kind: str, color: Color) -> dict[str, Any]:
        (found,) = (
            properties
            for logical_id, properties in self.of_type(kind).items()
            if logical_id.startswith(color.capitalize())
        )
        return found

    def holds(self, condition: str | None) -> bool:
        values = {
            "Network": self.balancer == "nlb",
            "Classic": self.balancer == "clb",
            "Weighted": self.balancer != "clb",
            "HasMetricsBucket": False,
        }
        return condition is None or values[condition]

    def chosen(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.chosen(item) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Fn::If"}:
            condition, yes, no = value["Fn::If"]
            return self.chosen(yes if self.holds(condition) else no)
        return {key: self.chosen(item) for key, item in value.items()}


def example(balancer: str) -> Example:
    text, parameters = with_balancer(
        (EXAMPLE / "service.yaml").read_text(), "two-clusters", balancer
    )
    template = Template(load_template(EXAMPLE / "infrastructure.yaml"))
    default = template.parameters["LoadBalancer"]["Default"]
    assert parameters.get(PARAMETER, default) == KINDS[balancer]
    return Example(balancer, load(text, "service.yaml"), template)


@pytest.fixture(params=["alb", "nlb", "clb"])
def made(request: pytest.FixtureRequest) -> Example:
    return example(request.param)


@pytest.fixture(params=WEIGHTED)
def weighted(request: pytest.FixtureRequest) -> Example:
    return example(request.param)


@pytest.fixture
def classic() -> Example:
    return example("clb")


def test_the_conditions_are_what_this_test_takes_them_for(made: Example) -> None:
    assert made.template.document["Conditions"] == {
        "HasMetricsBucket": {"Fn::Not": [{"Fn::Equals": [{"Ref": "MetricsBucket"}, ""]}]},
        "Network": {"Fn::Equals": [{"Ref": "LoadBalancer"}, "network"]},
        "Classic": {"Fn::Equals": [{"Ref": "LoadBalancer"}, "classic"]},
        "Weighted": {"Fn::Not": [{"Condition": "Classic"}]},
    }


def test_each_color_has_a_cluster_a_group_and_a_service(made: Example) -> None:
    for color in Color:
        slot = made.service.colors[color]
        assert made.of_color("AWS::ECS::Cluster", color)["ClusterName"] == slot.cluster
        group = made.of_color("AWS::AutoScaling::AutoScalingGroup", color)
        assert group["AutoScalingGroupName"] == slot.auto_scaling_group
        service = made.of_color("AWS::ECS::Service", color)
        assert service["ServiceName"] == slot.ecs_service
        assert service["Cluster"] == {"Ref": f"{color.capitalize()}Cluster"}


def test_the_instances_of_a_color_join_its_cluster(made: Example) -> None:
    for color in Color:
        group = made.of_color("AWS::AutoScaling::AutoScalingGroup", color)
        logical_id = group["LaunchTemplate"]["LaunchTemplateId"]["Ref"]
        assert logical_id == f"{color.capitalize()}LaunchTemplate"
        data = made.of_type("AWS::EC2::LaunchTemplate")[logical_id]["LaunchTemplateData"]
        script = data["UserData"]["Fn::Base64"]["Fn::Sub"]
        assert f"ECS_CLUSTER=${{{color.capitalize()}Cluster}}" in script


def test_there_are_no_hosts_and_no_tasks_before_the_first_deployment(made: Example) -> None:
    for color in Color:
        group = made.of_color("AWS::AutoScaling::AutoScalingGroup", color)
        assert group["MinSize"] == 0
        assert "DesiredCapacity" not in group
        assert made.of_color("AWS::ECS::Service", color)["DesiredCount"] == 0


def test_the_deployer_may_change_the_groups_and_an_update_keeps_their_sizes(made: Example) -> None:
    for logical_id, group in made.of_type("AWS::AutoScaling::AutoScalingGroup").items():
        tag = {"Key": "ecs-bluegreen", "Value": "group", "PropagateAtLaunch": False}
        assert tag in group["Tags"]
        policy = made.template.resource(logical_id)["UpdatePolicy"]
        assert policy["AutoScalingScheduledAction"]["IgnoreUnmodifiedGroupSizeProperties"] is True
        assert group.get("HealthCheckType", "EC2") == "EC2"


def test_ecs_does_not_put_back_a_revision_by_itself(made: Example) -> None:
    for service in made.of_type("AWS::ECS::Service").values():
        breaker = service["DeploymentConfiguration"]["DeploymentCircuitBreaker"]
        assert breaker == {"Enable": False, "Rollback": False}


def test_both_listeners_forward_to_both_groups(weighted: Example) -> None:
    router = weighted.service.router
    assert isinstance(router, AlbRouter | NlbRouter)
    kind = {"alb": ("application", "HTTP"), "nlb": ("network", "TCP")}[weighted.balancer]
    balancer = weighted.one("AWS::ElasticLoadBalancingV2::LoadBalancer")
    assert (balancer["Name"], balancer["Type"]) == (router.load_balancer, kind[0])
    groups = weighted.of_type("AWS::ElasticLoadBalancingV2::TargetGroup")
    listeners = weighted.of_type("AWS::ElasticLoadBalancingV2::Listener").values()
    assert {listener["Port"] for listener in listeners} == {router.port, router.test_port}
    for listener in listeners:
        (action,) = listener["DefaultActions"]
        weights = {
            groups[one["TargetGroupArn"]["Ref"]]["Name"]: one["Weight"]
            for one in action["ForwardConfig"]["TargetGroups"]
        }
        live = "web-blue" if listener["Port"] == router.port else "web-green"
        assert weights == {"web-blue": 0, "web-green": 0} | {live: 100}
        assert listener["Protocol"] == kind[1]
    for color in Color:
        group = weighted.of_color("AWS::ElasticLoadBalancingV2::TargetGroup", color)
        assert group["Name"] == weighted.service.colors[color].target_group
        assert group["Protocol"] == kind[1]
        (used,) = weighted.of_color("AWS::ECS::Service", color)["LoadBalancers"]
        assert used["TargetGroupArn"] == {"Ref": f"{color.capitalize()}TargetGroup"}


def test_dynamic_ports_are_open_to_the_load_balancer_alone(weighted: Example) -> None:
    (container,) = weighted.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    (mapping,) = container["PortMappings"]
    assert mapping["HostPort"] == 0
    rule = ingress(weighted)
    assert (rule["FromPort"], rule["ToPort"]) == (32768, 65535)
    for service in weighted.of_type("AWS::ECS::Service").values():
        (used,) = service["LoadBalancers"]
        assert used["ContainerName"] == container["Name"]
        assert used["ContainerPort"] == mapping["ContainerPort"]


def test_a_classic_load_balancer_has_a_fixed_port_and_no_target_groups(classic: Example) -> None:
    router = classic.service.router
    assert isinstance(router, ClbRouter)
    assert not classic.of_type("AWS::ElasticLoadBalancingV2::TargetGroup")
    balancer = classic.one("AWS::ElasticLoadBalancing::LoadBalancer")
    assert balancer["LoadBalancerName"] == router.load_balancer
    (listener,) = balancer["Listeners"]
    (container,) = classic.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    port = container["PortMappings"][0]["HostPort"]
    assert int(listener["LoadBalancerPort"]) == router.port
    assert int(listener["InstancePort"]) == port
    assert balancer["HealthCheck"]["Target"].startswith(f"HTTP:{port}/")
    assert balancer["ConnectionDrainingPolicy"]["Enabled"] is True
    rule = ingress(classic)
    assert (rule["FromPort"], rule["ToPort"]) == (port, port)
    for service in classic.of_type("AWS::ECS::Service").values():
        assert "LoadBalancers" not in service
        assert service["DeploymentConfiguration"]["MaximumPercent"] == 100
    for group in classic.of_type("AWS::AutoScaling::AutoScalingGroup").values():
        assert "LoadBalancerNames" not in group, "the deployer attaches it"


def ingress(made: Example) -> dict[str, Any]:
    groups = made.of_type("AWS::EC2::SecurityGroup")
    (rule,) = groups["InstanceSecurityGroup"]["SecurityGroupIngress"]
    assert rule["SourceSecurityGroupId"] == {"Ref": "LoadBalancerSecurityGroup"}
    return dict(rule)


def test_the_containers_take_images_of_the_repository(made: Example) -> None:
    (container,) = made.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    (taken,) = made.service.containers
    assert taken.name == container["Name"]
    assert taken.repository == made.one("AWS::ECR::Repository")["RepositoryName"]


def test_the_deployer_may_pass_the_roles_and_read_the_logs(
    made: Example, template: Template
) -> None:
    definition = made.one("AWS::ECS::TaskDefinition")
    for key, parameter in (
        ("TaskRoleArn", "TaskRolePattern"),
        ("ExecutionRoleArn", "ExecutionRolePattern"),
    ):
        role = made.of_type("AWS::IAM::Role")[definition[key]["Fn::GetAtt"][0]]
        assert "/" + template.parameters[parameter]["Default"] == role["Path"] + "*", key
    group = made.one("AWS::Logs::LogGroup")["LogGroupName"]
    allowed = template.parameters["TaskLogGroupPattern"]["Default"].replace("*", ".*")
    assert re.fullmatch(allowed, group)


def test_the_outputs_name_the_load_balancer_that_there_is(made: Example) -> None:
    outputs = made.template.document["Outputs"]
    text, variables = made.chosen(outputs["Url"]["Value"])["Fn::Sub"]
    balancer = "ClassicLoadBalancer" if made.balancer == "clb" else "WeightedLoadBalancer"
    assert variables == {"Name": {"Fn::GetAtt": [balancer, "DNSName"]}}
    assert f":{made.service.router.probe_port}/" in text
    assert outputs["TestUrl"]["Condition"] == "Weighted"


def test_what_the_comments_name_exists() -> None:
    text = (EXAMPLE / "infrastructure.yaml").read_text()
    resources = load_template(EXAMPLE / "infrastructure.yaml")["Resources"]
    for logical_id in re.findall(r"LogicalResourceId/(\w+)", text):
        assert logical_id in resources


def test_every_parameter_is_described_and_checked(made: Example) -> None:
    for name, parameter in made.template.parameters.items():
        assert parameter["Description"], name
        assert {"AllowedPattern", "MinValue"} & set(parameter), name
