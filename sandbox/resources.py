"""How each type of CloudFormation resource is made in the sandbox: by API calls against moto.

The properties of a resource and the parameters of its API are mostly the same but for the case of
the first letter and for numbers written as text; ``Api.call`` takes care of that with botocore's
own models, and refuses what an API does not know. Only what differs is written out here.

Simplifications, besides those of moto itself:
  - an Auto Scaling group has as many instances as the sandbox has hosts, whatever its sizes say;
    each is a container instance of the cluster that the user data of its launch template names;
  - permissions, policies and subscriptions are stored and not enforced.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore import xform_name
from botocore.model import ListShape, MapShape, Shape, StructureShape

from sandbox.events import check_target, next_run
from sandbox.functions import Function, LambdaRuntime
from sandbox.stack import Created
from sandbox.world import World

INSTANCE_RESOURCES = {"CPU": 2048, "MEMORY": 1953}
"""What an instance offers to tasks (CPU units and MiB): a t3.small without its agent's share."""

Properties = dict[str, Any]


class UnknownResourceError(Exception):
    """A resource type or property that the sandbox does not have."""


class Api:
    """Calls operations of one service with the properties of a resource."""

    def __init__(self, world: World, service: str) -> None:
        self._client = world.client(service)

    def call(self, operation: str, properties: Mapping[str, Any], **more: Any) -> Any:
        """Call an operation such as ``CreateVpc``.

        ``properties`` are converted as the module says, ``more`` is passed on as it is. Raises
        UnknownResourceError for a property that the operation does not have.
        """
        shape = self._client.meta.service_model.operation_model(operation).input_shape
        parameters = {**_convert(shape, dict(properties), operation), **more}
        return getattr(self._client, xform_name(operation))(**parameters)


class Resources:
    """Creates resources of the types that it has a method for."""

    def __init__(
        self,
        world: World,
        runtime: LambdaRuntime,
        stack_name: str,
        root: Path,
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._stack = stack_name
        self._root = root
        self._apis: dict[str, Api] = {}
        self._launch_templates: dict[str, Properties] = {}

    def create(self, logical_id: str, kind: str, properties: Properties) -> Created:
        """Create one resource. Raises UnknownResourceError for a type that is not known."""
        method = CREATORS.get(kind)
        if method is None:
            raise UnknownResourceError("the sandbox does not know this type of resource")
        return method(self, logical_id, properties)

    def _call(self, service: str, operation: str, properties: Properties, **more: Any) -> Any:
        if service not in self._apis:
            self._apis[service] = Api(self._world, service)
        return self._apis[service].call(operation, properties, **more)

    def _name(self, logical_id: str) -> str:
        return f"{self._stack}-{logical_id}"

    # ------------------------------------------------------------------- workflow and functions

    def _function(self, logical_id: str, properties: Properties) -> Created:
        properties.pop("Code")
        properties.pop("LocalPath", None)
        name = properties.pop("FunctionName", self._name(logical_id))
        properties["Tags"] = _tag_map(properties.get("Tags", []))
        answer = self._call(
            "lambda",
            "CreateFunction",
            properties,
            FunctionName=name,
            Code={"ZipFile": _empty_zip()},
        )
        group = properties.get("LoggingConfig", {}).get("LogGroup", f"/aws/lambda/{name}")
        if group not in self._world.backend("logs").groups:
            self._call("logs", "CreateLogGroup", {"LogGroupName": group})
        self._runtime.add(
            Function(
                logical_id=logical_id,
                name=name,
                arn=answer["FunctionArn"],
                handler=properties["Handler"],
                timeout=float(properties.get("Timeout", 3)),
                memory=int(properties.get("MemorySize", 128)),
                environment={
                    key: str(value)
                    for key, value in properties.get("Environment", {}).get("Variables", {}).items()
                },
                log_group=group,
                dead_letter_arn=properties.get("DeadLetterConfig", {}).get("TargetArn"),
            )
        )
        return Created(name, {"Arn": answer["FunctionArn"]})

    def _event_invoke_config(self, _logical_id: str, properties: Properties) -> Created:
        self._call("lambda", "PutFunctionEventInvokeConfig", properties)
        name = properties["FunctionName"]
        known = self._runtime.functions[name]
        destination = (
            properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        )
        self._runtime.add(
            dataclasses.replace(
                known,
                retries=int(properties.get("MaximumRetryAttempts", known.retries)),
                dead_letter_arn=destination or known.dead_letter_arn,
            )
        )
        return Created(f"{name}|{properties['Qualifier']}")

    def _permission(self, logical_id: str, properties: Properties) -> Created:
        self._call("lambda", "AddPermission", properties, StatementId=logical_id)
        return Created(logical_id)

    def _state_machine(self, logical_id: str, properties: Properties) -> Created:
        properties.pop("DefinitionS3Location", None)
        substitutions = properties.pop("DefinitionSubstitutions", {})
        definition = (self._root / properties.pop("LocalPath")).read_text()
        definition = re.sub(r"\$\{(\w+)\}", lambda match: str(substitutions[match[1]]), definition)
        name = properties.pop("StateMachineName", self._name(logical_id))
        kind = properties.pop("StateMachineType", "STANDARD")
        answer = self._call(
            "stepfunctions",
            "CreateStateMachine",
            properties,
            name=name,
            type=kind,
            definition=definition,
        )
        arn = answer["stateMachineArn"]
        return Created(arn, {"Arn": arn, "Name": name})

    def _role(self, logical_id: str, properties: Properties) -> Created:
        policies = properties.pop("Policies", [])
        attached = properties.pop("ManagedPolicyArns", [])
        name = properties.pop("RoleName", self._name(logical_id))
        trust = json.dumps(properties.pop("AssumeRolePolicyDocument"))
        answer = self._call(
            "iam", "CreateRole", properties, RoleName=name, AssumeRolePolicyDocument=trust
        )
        for policy in policies:
            self._call(
                "iam",
                "PutRolePolicy",
                {"RoleName": name, "PolicyName": policy["PolicyName"]},
                PolicyDocument=json.dumps(policy["PolicyDocument"]),
            )
        for arn in attached:
            if ":iam::aws:policy/" not in arn:
                self._call("iam", "AttachRolePolicy", {"RoleName": name, "PolicyArn": arn})
        return Created(name, {"Arn": answer["Role"]["Arn"], "RoleId": answer["Role"]["RoleId"]})

    def _managed_policy(self, logical_id: str, properties: Properties) -> Created:
        name = properties.pop("ManagedPolicyName", self._name(logical_id))
        document = json.dumps(properties.pop("PolicyDocument"))
        answer = self._call(
            "iam", "CreatePolicy", properties, PolicyName=name, PolicyDocument=document
        )
        return Created(answer["Policy"]["Arn"])

    def _instance_profile(self, logical_id: str, properties: Properties) -> Created:
        name = properties.pop("InstanceProfileName", self._name(logical_id))
        roles = properties.pop("Roles", [])
        answer = self._call("iam", "CreateInstanceProfile", properties, InstanceProfileName=name)
        for role in roles:
            self._call(
                "iam", "AddRoleToInstanceProfile", {}, InstanceProfileName=name, RoleName=role
            )
        return Created(name, {"Arn": answer["InstanceProfile"]["Arn"]})

    # ---------------------------------------------------------------- events, queues and alarms

    def _rule(self, logical_id: str, properties: Properties) -> Created:
        targets = properties.pop("Targets", [])
        for target in targets:
            check_target(target["Arn"])
        if "ScheduleExpression" in properties:
            next_run(properties["ScheduleExpression"], datetime.now(UTC))
        if "EventPattern" in properties:
            properties["EventPattern"] = json.dumps(properties["EventPattern"])
        name = properties.pop("Name", self._name(logical_id))
        answer = self._call("events", "PutRule", properties, Name=name)
        self._call("events", "PutTargets", {"Rule": name, "Targets": targets})
        return Created(name, {"Arn": answer["RuleArn"]})

    def _schedule(self, logical_id: str, properties: Properties) -> Created:
        check_target(properties["Target"]["Arn"])
        next_run(properties["ScheduleExpression"], datetime.now(UTC))
        name = properties.pop("Name", self._name(logical_id))
        answer = self._call("scheduler", "CreateSchedule", properties, Name=name)
        return Created(name, {"Arn": answer["ScheduleArn"]})

    def _queue(self, logical_id: str, properties: Properties) -> Created:
        name = properties.pop("QueueName", self._name(logical_id))
        attributes = {
            key: json.dumps(value) if isinstance(value, (dict, bool)) else str(value)
            for key, value in properties.items()
        }
        url = self._call("sqs", "CreateQueue", {}, QueueName=name, Attributes=attributes)[
            "QueueUrl"
        ]
        arn = f"arn:aws:sqs:{self._world.region}:{self._world.account_id}:{name}"
        return Created(url, {"Arn": arn, "QueueName": name, "QueueUrl": url})

    def _queue_policy(self, logical_id: str, properties: Properties) -> Created:
        policy = json.dumps(properties["PolicyDocument"])
        for url in properties["Queues"]:
            self._call("sqs", "SetQueueAttributes", {}, QueueUrl=url, Attributes={"Policy": policy})
        return Created(self._name(logical_id))

    def _topic(self, logical_id: str, properties: Properties) -> Created:
        name = properties.pop("TopicName", self._name(logical_id))
        tags = properties.pop("Tags", [])
        attributes = {key: str(value) for key, value in properties.items()}
        answer = self._call("sns", "CreateTopic", {"Tags": tags}, Name=name, Attributes=attributes)
        return Created(answer["TopicArn"], {"TopicArn": answer["TopicArn"], "TopicName": name})

    def _subscription(self, _logical_id: str, properties: Properties) -> Created:
        return Created(self._call("sns", "Subscribe", properties)["SubscriptionArn"])

    def _alarm(self, logical_id: str, properties: Properties) -> Created:
        name = properties.pop("AlarmName", self._name(logical_id))
        self._call("cloudwatch", "PutMetricAlarm", properties, AlarmName=name)
        arn = f"arn:aws:cloudwatch:{self._world.region}:{self._world.account_id}:alarm:{name}"
        return Created(name, {"Arn": arn})

    # -------------------------------------------------------------------------- logs and storage

    def _log_group(self, logical_id: str, properties: Properties) -> Created:
        days = properties.pop("RetentionInDays", None)
        name = properties.pop("LogGroupName", self._name(logical_id))
        self._call("logs", "CreateLogGroup", properties, logGroupName=name)
        if days:
            self._call(
                "logs", "PutRetentionPolicy", {"LogGroupName": name, "RetentionInDays": days}
            )
        arn = f"arn:aws:logs:{self._world.region}:{self._world.account_id}:log-group:{name}:*"
        return Created(name, {"Arn": arn})

    def _table(self, logical_id: str, properties: Properties) -> Created:
        recovery = properties.pop("PointInTimeRecoverySpecification", None)
        encryption = properties.pop("SSESpecification", {})
        name = properties.pop("TableName", self._name(logical_id))
        more = {"SSESpecification": {"Enabled": encryption["SSEEnabled"]}} if encryption else {}
        answer = self._call("dynamodb", "CreateTable", properties, TableName=name, **more)
        if recovery:
            self._call(
                "dynamodb",
                "UpdateContinuousBackups",
                {"PointInTimeRecoverySpecification": recovery},
                TableName=name,
            )
        return Created(name, {"Arn": answer["TableDescription"]["TableArn"]})

    def _parameter(self, logical_id: str, properties: Properties) -> Created:
        name = properties.pop("Name", self._name(logical_id))
        self._call("ssm", "PutParameter", properties, Name=name)
        return Created(name, {"Type": properties["Type"], "Value": properties["Value"]})

    def _repository(self, logical_id: str, properties: Properties) -> Created:
        properties.pop("EmptyOnDelete", None)
        name = properties.pop("RepositoryName", self._name(logical_id).lower())
        answer = self._call("ecr", "CreateRepository", properties, repositoryName=name)[
            "repository"
        ]
        return Created(
            name, {"Arn": answer["repositoryArn"], "RepositoryUri": answer["repositoryUri"]}
        )

    # ----------------------------------------------------------------------------------- network

    def _vpc(self, _logical_id: str, properties: Properties) -> Created:
        names = {
            key: properties.pop(key, None) for key in ("EnableDnsHostnames", "EnableDnsSupport")
        }
        tags = properties.pop("Tags", [])
        vpc = self._call("ec2", "CreateVpc", properties)["Vpc"]
        for name, value in names.items():
            if value is not None:
                self._call(
                    "ec2", "ModifyVpcAttribute", {"VpcId": vpc["VpcId"], name: {"Value": value}}
                )
        self._tag(vpc["VpcId"], tags)
        return Created(vpc["VpcId"], {"VpcId": vpc["VpcId"], "CidrBlock": vpc["CidrBlock"]})

    def _subnet(self, _logical_id: str, properties: Properties) -> Created:
        public = properties.pop("MapPublicIpOnLaunch", None)
        tags = properties.pop("Tags", [])
        subnet = self._call("ec2", "CreateSubnet", properties)["Subnet"]
        number = subnet["SubnetId"]
        if public is not None:
            self._call(
                "ec2",
                "ModifySubnetAttribute",
                {"SubnetId": number, "MapPublicIpOnLaunch": {"Value": public}},
            )
        self._tag(number, tags)
        return Created(number, {"SubnetId": number, "AvailabilityZone": subnet["AvailabilityZone"]})

    def _internet_gateway(self, _logical_id: str, properties: Properties) -> Created:
        tags = properties.pop("Tags", [])
        answer = self._call("ec2", "CreateInternetGateway", properties)
        number = answer["InternetGateway"]["InternetGatewayId"]
        self._tag(number, tags)
        return Created(number, {"InternetGatewayId": number})

    def _gateway_attachment(self, logical_id: str, properties: Properties) -> Created:
        self._call("ec2", "AttachInternetGateway", properties)
        return Created(self._name(logical_id))

    def _route_table(self, _logical_id: str, properties: Properties) -> Created:
        tags = properties.pop("Tags", [])
        answer = self._call("ec2", "CreateRouteTable", properties)
        number = answer["RouteTable"]["RouteTableId"]
        self._tag(number, tags)
        return Created(number, {"RouteTableId": number})

    def _route(self, logical_id: str, properties: Properties) -> Created:
        self._call("ec2", "CreateRoute", properties)
        return Created(self._name(logical_id))

    def _route_table_association(self, _logical_id: str, properties: Properties) -> Created:
        return Created(self._call("ec2", "AssociateRouteTable", properties)["AssociationId"])

    def _security_group(self, logical_id: str, properties: Properties) -> Created:
        ingress = properties.pop("SecurityGroupIngress", [])
        egress = properties.pop("SecurityGroupEgress", [])
        tags = properties.pop("Tags", [])
        name = properties.pop("GroupName", self._name(logical_id))
        description = properties.pop("GroupDescription")
        number = self._call(
            "ec2", "CreateSecurityGroup", properties, GroupName=name, Description=description
        )["GroupId"]
        for operation, rules in (
            ("AuthorizeSecurityGroupIngress", ingress),
            ("AuthorizeSecurityGroupEgress", egress),
        ):
            if rules:
                permissions = [_ip_permission(rule) for rule in rules]
                self._call("ec2", operation, {"GroupId": number, "IpPermissions": permissions})
        self._tag(number, tags)
        return Created(number, {"GroupId": number})

    def _tag(self, resource: str, tags: list[dict[str, str]]) -> None:
        if tags:
            self._call("ec2", "CreateTags", {"Resources": [resource], "Tags": tags})

    # ------------------------------------------------------------------------------ load balancer

    def _load_balancer(self, logical_id: str, properties: Properties) -> Created:
        attributes = properties.pop("LoadBalancerAttributes", [])
        name = properties.pop("Name", self._name(logical_id)[:32])
        made = self._call("elbv2", "CreateLoadBalancer", properties, Name=name)["LoadBalancers"][0]
        arn = made["LoadBalancerArn"]
        if attributes:
            self._call(
                "elbv2",
                "ModifyLoadBalancerAttributes",
                {"LoadBalancerArn": arn, "Attributes": attributes},
            )
        return Created(
            arn,
            {
                "DNSName": made["DNSName"],
                "LoadBalancerArn": arn,
                "LoadBalancerName": name,
                "LoadBalancerFullName": arn.partition(":loadbalancer/")[2],
            },
        )

    def _target_group(self, logical_id: str, properties: Properties) -> Created:
        attributes = properties.pop("TargetGroupAttributes", [])
        name = properties.pop("Name", self._name(logical_id)[:32])
        made = self._call("elbv2", "CreateTargetGroup", properties, Name=name)["TargetGroups"][0]
        arn = made["TargetGroupArn"]
        if attributes:
            self._call(
                "elbv2",
                "ModifyTargetGroupAttributes",
                {"TargetGroupArn": arn, "Attributes": attributes},
            )
        return Created(
            arn,
            {
                "TargetGroupArn": arn,
                "TargetGroupName": name,
                "TargetGroupFullName": arn.rpartition(":")[2],
            },
        )

    def _listener(self, _logical_id: str, properties: Properties) -> Created:
        arn = self._call("elbv2", "CreateListener", properties)["Listeners"][0]["ListenerArn"]
        return Created(arn, {"ListenerArn": arn})

    def _listener_rule(self, _logical_id: str, properties: Properties) -> Created:
        arn = self._call("elbv2", "CreateRule", properties)["Rules"][0]["RuleArn"]
        return Created(arn, {"RuleArn": arn})

    # ---------------------------------------------------------------------- container instances

    def _launch_template(self, logical_id: str, properties: Properties) -> Created:
        name = properties.pop("LaunchTemplateName", self._name(logical_id))
        made = self._call("ec2", "CreateLaunchTemplate", properties, LaunchTemplateName=name)
        number = made["LaunchTemplate"]["LaunchTemplateId"]
        self._launch_templates[number] = properties["LaunchTemplateData"]
        return Created(number, {"LatestVersionNumber": "1", "DefaultVersionNumber": "1"})

    def _auto_scaling_group(self, logical_id: str, properties: Properties) -> Created:
        hosts = self._world.hosts
        name = properties.pop("AutoScalingGroupName", self._name(logical_id))
        properties["VPCZoneIdentifier"] = ",".join(properties["VPCZoneIdentifier"])
        properties["MinSize"] = min(int(properties["MinSize"]), len(hosts))
        properties["MaxSize"] = max(int(properties["MaxSize"]), len(hosts))
        properties["DesiredCapacity"] = len(hosts)
        template = self._launch_templates[properties["LaunchTemplate"]["LaunchTemplateId"]]
        script = base64.b64decode(template.get("UserData", "")).decode()
        cluster = re.search(r"ECS_CLUSTER=(\S+)", script)
        if cluster is None:
            raise UnknownResourceError("the user data of its launch template sets no ECS_CLUSTER")
        self._call("autoscaling", "CreateAutoScalingGroup", properties, AutoScalingGroupName=name)
        group = self._world.backend("autoscaling").autoscaling_groups[name]
        for state, address in zip(group.instance_states, hosts, strict=True):
            self._start_agent(cluster[1], state.instance, address)
        return Created(name)

    def _start_agent(self, cluster: str, instance: Any, address: str) -> None:
        """Give moto's instance the address of a host and register it with its cluster."""
        for interface in instance.nics.values():
            interface.private_ip_address = address
            interface.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
        self._call(
            "ecs",
            "RegisterContainerInstance",
            {"cluster": cluster},
            instanceIdentityDocument=json.dumps({"instanceId": instance.id}),
            totalResources=[
                {"name": name, "type": "INTEGER", "integerValue": amount}
                for name, amount in INSTANCE_RESOURCES.items()
            ],
        )

    # ---------------------------------------------------------------------------------- services

    def _cluster(self, logical_id: str, properties: Properties) -> Created:
        name = properties.pop("ClusterName", self._name(logical_id))
        answer = self._call("ecs", "CreateCluster", properties, clusterName=name)
        return Created(name, {"Arn": answer["cluster"]["clusterArn"]})

    def _task_definition(self, logical_id: str, properties: Properties) -> Created:
        family = properties.pop("Family", self._name(logical_id))
        answer = self._call("ecs", "RegisterTaskDefinition", properties, family=family)
        arn = answer["taskDefinition"]["taskDefinitionArn"]
        return Created(arn, {"TaskDefinitionArn": arn})

    def _service(self, logical_id: str, properties: Properties) -> Created:
        name = properties.pop("ServiceName", self._name(logical_id))
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
        answer = self._call("ecs", "CreateService", properties, serviceName=name, **more)
        arn = answer["service"]["serviceArn"]
        return Created(arn, {"Name": name, "ServiceArn": arn})

    def _scalable_target(self, _logical_id: str, properties: Properties) -> Created:
        self._call("application-autoscaling", "RegisterScalableTarget", properties)
        parts = ("ResourceId", "ScalableDimension", "ServiceNamespace")
        return Created("|".join(properties[part] for part in parts))

    def _scaling_policy(self, _logical_id: str, properties: Properties) -> Created:
        target = properties.pop("ScalingTargetId", None)
        if target is not None:
            parts = ("ResourceId", "ScalableDimension", "ServiceNamespace")
            properties.update(zip(parts, target.split("|"), strict=True))
        answer = self._call("application-autoscaling", "PutScalingPolicy", properties)
        return Created(answer["PolicyARN"], {"Arn": answer["PolicyARN"]})


CREATORS: dict[str, Callable[[Resources, str, Properties], Created]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": Resources._scalable_target,
    "AWS::ApplicationAutoScaling::ScalingPolicy": Resources._scaling_policy,
    "AWS::AutoScaling::AutoScalingGroup": Resources._auto_scaling_group,
    "AWS::CloudWatch::Alarm": Resources._alarm,
    "AWS::DynamoDB::Table": Resources._table,
    "AWS::EC2::InternetGateway": Resources._internet_gateway,
    "AWS::EC2::LaunchTemplate": Resources._launch_template,
    "AWS::EC2::Route": Resources._route,
    "AWS::EC2::RouteTable": Resources._route_table,
    "AWS::EC2::SecurityGroup": Resources._security_group,
    "AWS::EC2::Subnet": Resources._subnet,
    "AWS::EC2::SubnetRouteTableAssociation": Resources._route_table_association,
    "AWS::EC2::VPC": Resources._vpc,
    "AWS::EC2::VPCGatewayAttachment": Resources._gateway_attachment,
    "AWS::ECR::Repository": Resources._repository,
    "AWS::ECS::Cluster": Resources._cluster,
    "AWS::ECS::Service": Resources._service,
    "AWS::ECS::TaskDefinition": Resources._task_definition,
    "AWS::ElasticLoadBalancingV2::Listener": Resources._listener,
    "AWS::ElasticLoadBalancingV2::ListenerRule": Resources._listener_rule,
    "AWS::ElasticLoadBalancingV2::LoadBalancer": Resources._load_balancer,
    "AWS::ElasticLoadBalancingV2::TargetGroup": Resources._target_group,
    "AWS::Events::Rule": Resources._rule,
    "AWS::IAM::InstanceProfile": Resources._instance_profile,
    "AWS::IAM::ManagedPolicy": Resources._managed_policy,
    "AWS::IAM::Role": Resources._role,
    "AWS::Lambda::EventInvokeConfig": Resources._event_invoke_config,
    "AWS::Lambda::Function": Resources._function,
    "AWS::Lambda::Permission": Resources._permission,
    "AWS::Logs::LogGroup": Resources._log_group,
    "AWS::SNS::Subscription": Resources._subscription,
    "AWS::SNS::Topic": Resources._topic,
    "AWS::SQS::Queue": Resources._queue,
    "AWS::SQS::QueuePolicy": Resources._queue_policy,
    "AWS::SSM::Parameter": Resources._parameter,
    "AWS::Scheduler::Schedule": Resources._schedule,
    "AWS::StepFunctions::StateMachine": Resources._state_machine,
}


def _convert(shape: Shape, value: Any, place: str) -> Any:
    """A property in the form that an API wants.

    ``place`` is named in the UnknownResourceError for what the API does not have.
    """
    if isinstance(shape, StructureShape):
        members = {_first_lower(name): name for name in shape.members}
        result = {}
        for key, item in value.items():
            name = members.get(_first_lower(key))
            if name is None:
                raise UnknownResourceError(
                    f"{place}.{key}: the sandbox does not know this property"
                )
            result[name] = _convert(shape.members[name], item, f"{place}.{key}")
        return result
    if isinstance(shape, ListShape):
        return [_convert(shape.member, item, place) for item in value]
    if isinstance(shape, MapShape):
        return {key: _convert(shape.value, item, f"{place}.{key}") for key, item in value.items()}
    match shape.type_name:
        case "string":
            return str(value)
        case "integer" | "long":
            return int(value)
        case "float" | "double":
            return float(value)
        case "boolean":
            return value if isinstance(value, bool) else str(value).lower() == "true"
    return value


def _first_lower(name: str) -> str:
    return name[:1].lower() + name[1:]


def _tag_map(tags: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}


def _ip_permission(rule: Properties) -> Properties:
    fields = ("IpProtocol", "FromPort", "ToPort")
    permission: Properties = {field: rule[field] for field in fields if field in rule}
    description = {"Description": rule["Description"]} if "Description" in rule else {}
    if "SourceSecurityGroupId" in rule:
        group = {"GroupId": rule["SourceSecurityGroupId"], **description}
        permission["UserIdGroupPairs"] = [group]
    else:
        permission["IpRanges"] = [{"CidrIp": rule["CidrIp"], **description}]
    return permission


def _empty_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("placeholder", "functions run from their folder")
    return buffer.getvalue()
