"""The workflow and its functions, and who may do what."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import zipfile

from sandbox.lambda_function import Function
from sandbox.resources.api import Creator, Maker, Properties
from sandbox.stack import Created


def _function(make: Maker, logical_id: str, properties: Properties) -> Created:
    properties.pop("Code")
    properties.pop("LocalPath", None)
    name = properties.pop("FunctionName", make.name(logical_id))
    properties["Tags"] = _tag_map(properties.get("Tags", []))
    answer = make.call(
        "lambda",
        "CreateFunction",
        properties,
        FunctionName=name,
        Code={"ZipFile": _empty_zip()},
    )
    group = properties.get("LoggingConfig", {}).get("LogGroup", f"/aws/lambda/{name}")
    if group not in make.world.backend("logs").groups:
        make.call("logs", "CreateLogGroup", {"LogGroupName": group})
    make.runtime.add(
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
            code=make.runtime.code,
            dead_letter_arn=properties.get("DeadLetterConfig", {}).get("TargetArn"),
        )
    )
    return Created(name, {"Arn": answer["FunctionArn"]})


def _event_invoke_config(make: Maker, _logical_id: str, properties: Properties) -> Created:
    make.call("lambda", "PutFunctionEventInvokeConfig", properties)
    name = properties["FunctionName"]
    known = make.runtime.functions[name]
    destination = properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    make.runtime.add(
        dataclasses.replace(
            known,
            retries=int(properties.get("MaximumRetryAttempts", known.retries)),
            dead_letter_arn=destination or known.dead_letter_arn,
        )
    )
    return Created(f"{name}|{properties['Qualifier']}")


def _event_source_mapping(make: Maker, _logical_id: str, properties: Properties) -> Created:
    properties["Tags"] = _tag_map(properties.get("Tags", []))
    answer = make.call("lambda", "CreateEventSourceMapping", properties)
    arn = (
        f"arn:aws:lambda:{make.world.region}:{make.world.account_id}"
        f":event-source-mapping:{answer['UUID']}"
    )
    return Created(answer["UUID"], {"Id": answer["UUID"], "EventSourceMappingArn": arn})


def _permission(make: Maker, logical_id: str, properties: Properties) -> Created:
    make.call("lambda", "AddPermission", properties, StatementId=logical_id)
    return Created(logical_id)


def _state_machine(make: Maker, logical_id: str, properties: Properties) -> Created:
    properties.pop("DefinitionS3Location", None)
    substitutions = properties.pop("DefinitionSubstitutions", {})
    definition = (make.root / properties.pop("LocalPath")).read_text()
    definition = re.sub(r"\$\{(\w+)\}", lambda match: str(substitutions[match[1]]), definition)
    name = properties.pop("StateMachineName", make.name(logical_id))
    kind = properties.pop("StateMachineType", "STANDARD")
    answer = make.call(
        "stepfunctions",
        "CreateStateMachine",
        properties,
        name=name,
        type=kind,
        definition=definition,
    )
    arn = answer["stateMachineArn"]
    return Created(arn, {"Arn": arn, "Name": name})


def _role(make: Maker, logical_id: str, properties: Properties) -> Created:
    policies = properties.pop("Policies", [])
    attached = properties.pop("ManagedPolicyArns", [])
    name = properties.pop("RoleName", make.name(logical_id))
    trust = json.dumps(properties.pop("AssumeRolePolicyDocument"))
    answer = make.call(
        "iam", "CreateRole", properties, RoleName=name, AssumeRolePolicyDocument=trust
    )
    for policy in policies:
        make.call(
            "iam",
            "PutRolePolicy",
            {"RoleName": name, "PolicyName": policy["PolicyName"]},
            PolicyDocument=json.dumps(policy["PolicyDocument"]),
        )
    for arn in attached:
        if ":iam::aws:policy/" not in arn:
            make.call("iam", "AttachRolePolicy", {"RoleName": name, "PolicyArn": arn})
    return Created(name, {"Arn": answer["Role"]["Arn"], "RoleId": answer["Role"]["RoleId"]})


def _managed_policy(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("ManagedPolicyName", make.name(logical_id))
    document = json.dumps(properties.pop("PolicyDocument"))
    answer = make.call("iam", "CreatePolicy", properties, PolicyName=name, PolicyDocument=document)
    return Created(answer["Policy"]["Arn"])


def _instance_profile(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("InstanceProfileName", make.name(logical_id))
    roles = properties.pop("Roles", [])
    answer = make.call("iam", "CreateInstanceProfile", properties, InstanceProfileName=name)
    for role in roles:
        make.call("iam", "AddRoleToInstanceProfile", {}, InstanceProfileName=name, RoleName=role)
    return Created(name, {"Arn": answer["InstanceProfile"]["Arn"]})


def _tag_map(tags: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}


def _empty_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("placeholder", "functions run from their folder")
    return buffer.getvalue()


CREATORS: dict[str, Creator] = {
    "AWS::Lambda::Function": _function,
    "AWS::Lambda::EventInvokeConfig": _event_invoke_config,
    "AWS::Lambda::EventSourceMapping": _event_source_mapping,
    "AWS::Lambda::Permission": _permission,
    "AWS::StepFunctions::StateMachine": _state_machine,
    "AWS::IAM::Role": _role,
    "AWS::IAM::ManagedPolicy": _managed_policy,
    "AWS::IAM::InstanceProfile": _instance_profile,
}
