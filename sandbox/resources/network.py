"""Networks and load balancers."""

from __future__ import annotations

from sandbox.resources.api import Creator, Maker, Properties
from sandbox.stack import Created


def _vpc(make: Maker, _logical_id: str, properties: Properties) -> Created:
    names = {key: properties.pop(key, None) for key in ("EnableDnsHostnames", "EnableDnsSupport")}
    tags = properties.pop("Tags", [])
    vpc = make.call("ec2", "CreateVpc", properties)["Vpc"]
    for name, value in names.items():
        if value is not None:
            make.call("ec2", "ModifyVpcAttribute", {"VpcId": vpc["VpcId"], name: {"Value": value}})
    _tag(make, vpc["VpcId"], tags)
    return Created(vpc["VpcId"], {"VpcId": vpc["VpcId"], "CidrBlock": vpc["CidrBlock"]})


def _subnet(make: Maker, _logical_id: str, properties: Properties) -> Created:
    public = properties.pop("MapPublicIpOnLaunch", None)
    tags = properties.pop("Tags", [])
    subnet = make.call("ec2", "CreateSubnet", properties)["Subnet"]
    number = subnet["SubnetId"]
    if public is not None:
        make.call(
            "ec2",
            "ModifySubnetAttribute",
            {"SubnetId": number, "MapPublicIpOnLaunch": {"Value": public}},
        )
    _tag(make, number, tags)
    return Created(number, {"SubnetId": number, "AvailabilityZone": subnet["AvailabilityZone"]})


def _internet_gateway(make: Maker, _logical_id: str, properties: Properties) -> Created:
    tags = properties.pop("Tags", [])
    answer = make.call("ec2", "CreateInternetGateway", properties)
    number = answer["InternetGateway"]["InternetGatewayId"]
    _tag(make, number, tags)
    return Created(number, {"InternetGatewayId": number})


def _gateway_attachment(make: Maker, logical_id: str, properties: Properties) -> Created:
    make.call("ec2", "AttachInternetGateway", properties)
    return Created(make.name(logical_id))


def _route_table(make: Maker, _logical_id: str, properties: Properties) -> Created:
    tags = properties.pop("Tags", [])
    answer = make.call("ec2", "CreateRouteTable", properties)
    number = answer["RouteTable"]["RouteTableId"]
    _tag(make, number, tags)
    return Created(number, {"RouteTableId": number})


def _route(make: Maker, logical_id: str, properties: Properties) -> Created:
    make.call("ec2", "CreateRoute", properties)
    return Created(make.name(logical_id))


def _route_table_association(make: Maker, _logical_id: str, properties: Properties) -> Created:
    return Created(make.call("ec2", "AssociateRouteTable", properties)["AssociationId"])


def _security_group(make: Maker, logical_id: str, properties: Properties) -> Created:
    ingress = properties.pop("SecurityGroupIngress", [])
    egress = properties.pop("SecurityGroupEgress", [])
    tags = properties.pop("Tags", [])
    name = properties.pop("GroupName", make.name(logical_id))
    description = properties.pop("GroupDescription")
    number = make.call(
        "ec2", "CreateSecurityGroup", properties, GroupName=name, Description=description
    )["GroupId"]
    for operation, rules in (
        ("AuthorizeSecurityGroupIngress", ingress),
        ("AuthorizeSecurityGroupEgress", egress),
    ):
        if rules:
            permissions = [_ip_permission(rule) for rule in rules]
            make.call("ec2", operation, {"GroupId": number, "IpPermissions": permissions})
    _tag(make, number, tags)
    return Created(number, {"GroupId": number})


def _tag(make: Maker, resource: str, tags: list[dict[str, str]]) -> None:
    if tags:
        make.call("ec2", "CreateTags", {"Resources": [resource], "Tags": tags})


def _load_balancer(make: Maker, logical_id: str, properties: Properties) -> Created:
    attributes = properties.pop("LoadBalancerAttributes", [])
    name = properties.pop("Name", make.name(logical_id)[:32])
    made = make.call("elbv2", "CreateLoadBalancer", properties, Name=name)["LoadBalancers"][0]
    arn = made["LoadBalancerArn"]
    if attributes:
        make.call(
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


def _target_group(make: Maker, logical_id: str, properties: Properties) -> Created:
    attributes = properties.pop("TargetGroupAttributes", [])
    name = properties.pop("Name", make.name(logical_id)[:32])
    made = make.call("elbv2", "CreateTargetGroup", properties, Name=name)["TargetGroups"][0]
    arn = made["TargetGroupArn"]
    if attributes:
        make.call(
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


def _listener(make: Maker, _logical_id: str, properties: Properties) -> Created:
    arn = make.call("elbv2", "CreateListener", properties)["Listeners"][0]["ListenerArn"]
    return Created(arn, {"ListenerArn": arn})


def _classic_load_balancer(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("LoadBalancerName", make.name(logical_id)[:32])
    check = properties.pop("HealthCheck", None)
    draining = properties.pop("ConnectionDrainingPolicy", None)
    settings = properties.pop("ConnectionSettings", None)
    cross_zone = properties.pop("CrossZone", None)
    attributes: Properties = {
        **({"ConnectionDraining": draining} if draining else {}),
        **({"ConnectionSettings": settings} if settings else {}),
        **({"CrossZoneLoadBalancing": {"Enabled": cross_zone}} if cross_zone is not None else {}),
    }
    given = {"LoadBalancerName": name}
    made = make.call("elb", "CreateLoadBalancer", properties, **given)
    if check:
        make.call("elb", "ConfigureHealthCheck", {"HealthCheck": check}, **given)
    if attributes:
        make.call(
            "elb", "ModifyLoadBalancerAttributes", {"LoadBalancerAttributes": attributes}, **given
        )
    return Created(name, {"DNSName": made["DNSName"]})


def _listener_rule(make: Maker, _logical_id: str, properties: Properties) -> Created:
    arn = make.call("elbv2", "CreateRule", properties)["Rules"][0]["RuleArn"]
    return Created(arn, {"RuleArn": arn})


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


CREATORS: dict[str, Creator] = {
    "AWS::EC2::VPC": _vpc,
    "AWS::EC2::Subnet": _subnet,
    "AWS::EC2::InternetGateway": _internet_gateway,
    "AWS::EC2::VPCGatewayAttachment": _gateway_attachment,
    "AWS::EC2::RouteTable": _route_table,
    "AWS::EC2::Route": _route,
    "AWS::EC2::SubnetRouteTableAssociation": _route_table_association,
    "AWS::EC2::SecurityGroup": _security_group,
    "AWS::ElasticLoadBalancing::LoadBalancer": _classic_load_balancer,
    "AWS::ElasticLoadBalancingV2::LoadBalancer": _load_balancer,
    "AWS::ElasticLoadBalancingV2::TargetGroup": _target_group,
    "AWS::ElasticLoadBalancingV2::Listener": _listener,
    "AWS::ElasticLoadBalancingV2::ListenerRule": _listener_rule,
}
