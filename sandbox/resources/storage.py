"""Logs, tables, buckets, parameters, SSM documents and image repositories."""

from __future__ import annotations

import json

from sandbox.resources.api import Creator, Maker, Properties
from sandbox.ssm.documents import resolve
from sandbox.stack import Created

BUCKET_SETTINGS = {
    "PublicAccessBlock": "PublicAccessBlockConfiguration",
    "BucketVersioning": "VersioningConfiguration",
    "BucketLifecycleConfiguration": "LifecycleConfiguration",
    "BucketEncryption": "ServerSideEncryptionConfiguration",
    "BucketOwnershipControls": "OwnershipControls",
    "BucketTagging": "Tagging",
}
"""What a bucket is told after it was made: operation without Put → the parameter of it."""


def _log_group(make: Maker, logical_id: str, properties: Properties) -> Created:
    days = properties.pop("RetentionInDays", None)
    name = properties.pop("LogGroupName", make.name(logical_id))
    make.call("logs", "CreateLogGroup", properties, logGroupName=name)
    if days:
        make.call("logs", "PutRetentionPolicy", {"LogGroupName": name, "RetentionInDays": days})
    arn = f"arn:aws:logs:{make.world.region}:{make.world.account_id}:log-group:{name}:*"
    return Created(name, {"Arn": arn})


def _table(make: Maker, logical_id: str, properties: Properties) -> Created:
    recovery = properties.pop("PointInTimeRecoverySpecification", None)
    encryption = properties.pop("SSESpecification", {})
    expiry = properties.pop("TimeToLiveSpecification", None)
    name = properties.pop("TableName", make.name(logical_id))
    more = {"SSESpecification": {"Enabled": encryption["SSEEnabled"]}} if encryption else {}
    answer = make.call("dynamodb", "CreateTable", properties, TableName=name, **more)
    if recovery:
        make.call(
            "dynamodb",
            "UpdateContinuousBackups",
            {"PointInTimeRecoverySpecification": recovery},
            TableName=name,
        )
    if expiry:
        given = {"TimeToLiveSpecification": expiry}
        make.call("dynamodb", "UpdateTimeToLive", given, TableName=name)
    return Created(name, {"Arn": answer["TableDescription"]["TableArn"]})


def _bucket(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("BucketName", make.name(logical_id).lower())
    lifecycle = properties.pop("LifecycleConfiguration", None)
    encryption = properties.pop("BucketEncryption", None)
    ownership = properties.pop("OwnershipControls", None)
    tags = properties.pop("Tags", [])
    settings = {
        "PublicAccessBlock": properties.pop("PublicAccessBlockConfiguration", None),
        "BucketVersioning": properties.pop("VersioningConfiguration", None),
    }
    place = {"LocationConstraint": make.world.region}
    make.call("s3", "CreateBucket", properties, Bucket=name, CreateBucketConfiguration=place)
    if lifecycle:
        rules = [_lifecycle_rule(rule) for rule in lifecycle["Rules"]]
        settings["BucketLifecycleConfiguration"] = {"Rules": rules}
    if encryption:
        rules = [_encryption_rule(rule) for rule in encryption["ServerSideEncryptionConfiguration"]]
        settings["BucketEncryption"] = {"Rules": rules}
    if ownership:
        settings["BucketOwnershipControls"] = ownership
    if tags:
        settings["BucketTagging"] = {"TagSet": tags}
    for kind, value in settings.items():
        if value is not None:
            make.call("s3", f"Put{kind}", {BUCKET_SETTINGS[kind]: value}, Bucket=name)
    domain = f"{name}.s3.amazonaws.com"
    regional = f"{name}.s3.{make.world.region}.amazonaws.com"
    return Created(
        name,
        {"Arn": f"arn:aws:s3:::{name}", "DomainName": domain, "RegionalDomainName": regional},
    )


def _lifecycle_rule(rule: Properties) -> Properties:
    """A rule of CloudFormation as the API has it; what is not known here, the API refuses."""
    converted = {"Filter": {"Prefix": rule.get("Prefix", "")}}
    for key, value in rule.items():
        match key:
            case "Id":
                converted["ID"] = value
            case "Prefix":
                pass
            case "ExpirationInDays":
                converted["Expiration"] = {"Days": value}
            case _:
                converted[key] = value
    return converted


def _encryption_rule(rule: Properties) -> Properties:
    """A rule of CloudFormation as the API has it."""
    renamed = {"ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault"}
    return {renamed.get(key, key): value for key, value in rule.items()}


def _bucket_policy(make: Maker, logical_id: str, properties: Properties) -> Created:
    document = json.dumps(properties["PolicyDocument"])
    make.call("s3", "PutBucketPolicy", {}, Bucket=properties["Bucket"], Policy=document)
    return Created(make.name(logical_id))


def _document(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("Name", make.name(logical_id))
    content = properties.pop("Content")
    kind = properties.pop("DocumentFormat", "JSON")
    if not isinstance(content, str):
        content, kind = json.dumps(content), "JSON"
    properties.pop("UpdateMethod", None)  # there are no updates
    properties.setdefault("DocumentType", "Command")
    make.call("ssm", "CreateDocument", properties, Name=name, Content=content, DocumentFormat=kind)
    return Created(name)


def _association(make: Maker, logical_id: str, properties: Properties) -> Created:
    """Kept, and checked against its document: what it does, ``sandbox.hosts`` does."""
    document = make.world.backend("ssm")._get_documents(properties["Name"])
    resolve(document.get_default_version().content_json, properties.get("Parameters", {}))
    return Created(make.name(logical_id), {"AssociationId": logical_id})


def _parameter(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("Name", make.name(logical_id))
    make.call("ssm", "PutParameter", properties, Name=name)
    return Created(name, {"Type": properties["Type"], "Value": properties["Value"]})


def _repository(make: Maker, logical_id: str, properties: Properties) -> Created:
    properties.pop("EmptyOnDelete", None)
    name = properties.pop("RepositoryName", make.name(logical_id).lower())
    answer = make.call("ecr", "CreateRepository", properties, repositoryName=name)["repository"]
    return Created(name, {"Arn": answer["repositoryArn"], "RepositoryUri": answer["repositoryUri"]})


CREATORS: dict[str, Creator] = {
    "AWS::Logs::LogGroup": _log_group,
    "AWS::DynamoDB::Table": _table,
    "AWS::S3::Bucket": _bucket,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SSM::Document": _document,
    "AWS::SSM::Association": _association,
    "AWS::SSM::Parameter": _parameter,
    "AWS::ECR::Repository": _repository,
}
