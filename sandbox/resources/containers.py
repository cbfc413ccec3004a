"""Clusters, container instances and services."""

from __future__ import annotations

from sandbox.resources.api import Creator, Maker, Properties
from sandbox.stack import Created


def _launch_template(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("LaunchTemplateName", make.name(logical_id))
    made = make.call("ec2", "CreateLaunchTemplate", properties, LaunchTemplateName=name)
    number = made["LaunchTemplate"]["LaunchTemplateId"]
    return Created(number, {"LatestVersionNumber": "1", "DefaultVersionNumber": "1"})


def _auto_scaling_group(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("AutoScalingGroupName", make.name(logical_id))
    properties["VPCZoneIdentifier"] = ",".join(properties["VPCZoneIdentifier"])
    make.call("autoscaling", "CreateAutoScalingGroup", properties, AutoScalingGroupName=name)
    return Created(name)


def _cluster(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("ClusterName", make.name(logical_id))
    if "ClusterSettings" in properties:
        properties["settings"] = properties.pop("ClusterSettings")
    answer = make.call("ecs", "CreateCluster", properties, clusterName=name)
    return Created(name, {"Arn": answer["cluster"]["clusterArn"]})


def _task_definition(make: Maker, logical_id: str, properties: Properties) -> Created:
    family = properties.pop("Family", make.name(logical_id))
    answer = make.call("ecs", "RegisterTaskDefinition", properties, family=family)
    arn = answer["taskDefinition"]["taskDefinitionArn"]
    return Created(arn, {"TaskDefinitionArn": arn})


def _service(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("ServiceName", make.name(logical_id))
    strategies = properties.pop("PlacementStrategies", None)
    more = (
        {
            "placementStrategy": [
                {"type": item["Type"], **({"field": item["Field"]} if "Field" in item else {})}
                for item in strategies
            ]
        }
        if strategies
        else {}
    )
    answer = make.call("ecs", "CreateService", properties, serviceName=name, **more)
    arn = answer["service"]["serviceArn"]
    return Created(arn, {"Name": name, "ServiceArn": arn})


def _scalable_target(make: Maker, _logical_id: str, properties: Properties) -> Created:
    make.call("application-autoscaling", "RegisterScalableTarget", properties)
    parts = ("ResourceId", "ScalableDimension", "ServiceNamespace")
    return Created("|".join(properties[part] for part in parts))


def _scaling_policy(make: Maker, _logical_id: str, properties: Properties) -> Created:
    target = properties.pop("ScalingTargetId", None)
    if target is not None:
        parts = ("ResourceId", "ScalableDimension", "ServiceNamespace")
        properties.update(zip(parts, target.split("|"), strict=True))
    answer = make.call("application-autoscaling", "PutScalingPolicy", properties)
    return Created(answer["PolicyARN"], {"Arn": answer["PolicyARN"]})


CREATORS: dict[str, Creator] = {
    "AWS::EC2::LaunchTemplate": _launch_template,
    "AWS::AutoScaling::AutoScalingGroup": _auto_scaling_group,
    "AWS::ECS::Cluster": _cluster,
    "AWS::ECS::TaskDefinition": _task_definition,
    "AWS::ECS::Service": _service,
    "AWS::ApplicationAutoScaling::ScalableTarget": _scalable_target,
    "AWS::ApplicationAutoScaling::ScalingPolicy": _scaling_policy,
}
