"""Logs, tables, parameters, SSM documents and image repositories."""

from __future__ import annotations

import json

from sandbox.resources.api import Creator, Maker, Properties
from sandbox.ssm.documents import resolve
from sandbox.stack import Created


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
    return Created(name, {"Arn": answer["TableDescription"]["TableArn"]})


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
    "AWS::SSM::Document": _document,
    "AWS::SSM::Association": _association,
    "AWS::SSM::Parameter": _parameter,
    "AWS::ECR::Repository": _repository,
}
