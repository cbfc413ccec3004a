"""The SSM operations that the sandbox answers itself instead of moto: Run Command.

Documents, parameters and all else stay moto's; a command document that the sandbox could not run is
refused when it is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from moto.core.responses import ActionResult, EmptyResult
from moto.ssm.exceptions import InvalidDocumentContent, SSMException, ValidationException
from moto.ssm.responses import SimpleSystemManagerResponse

from sandbox.ssm.commands import RunCommand
from sandbox.ssm.documents import check_content
from sandbox.ssm.model import Command, Details, Invocation, Node, beginning

MAX_INSTANCES = 50
MAX_TARGETS = 5
MAX_COMMENT = 100
MAX_BUCKET_NAME, MAX_KEY_PREFIX = 63, 500
MIN_TIMEOUT_SECONDS = 30
OUTPUT_IN_LIST = 2_500
OUTPUT, ERRORS = 24_000, 8_000
NUMBER_OR_SHARE = r"([1-9][0-9]*|[1-9][0-9]?%|100%)"
NUMBER_OR_SHARE_OR_NONE = r"([1-9][0-9]*|0|[1-9][0-9]?%|0%|100%)"
NOT_SIMULATED = (
    *("DocumentHash", "ServiceRoleArn", "NotificationConfig", "CloudWatchOutputConfig"),
    "AlarmConfiguration",
)
FILTERS: Mapping[str, Callable[[Node], str]] = {
    "InstanceIds": lambda node: node.instance_id,
    "PingStatus": lambda node: _ping_status(node),
    "PlatformTypes": lambda _: "Linux",
    "ResourceType": lambda _: "EC2Instance",
}


class SsmResponse(SimpleSystemManagerResponse):
    """One request; ``install`` makes a subclass that knows the commands."""

    commands: RunCommand

    def _given(self) -> dict[str, Any]:
        return dict(json.loads(self.body or "{}"))

    def create_document(self) -> ActionResult:
        """As moto, but a command document has to be one that the sandbox can run."""
        if self._get_param("DocumentType") == "Command":
            is_yaml = self._get_param("DocumentFormat") == "YAML"
            text = self._get_param("Content")
            try:
                content = yaml.safe_load(text) if is_yaml else json.loads(text)
            except (ValueError, yaml.YAMLError) as error:
                raise InvalidDocumentContent(f"The content is not valid: {error}") from error
            check_content(content)
        return super().create_document()

    def send_command(self) -> ActionResult:
        given = self._given()
        _check_send(given)
        return ActionResult({"Command": _command(self.commands.send(given), self.region)})

    def list_commands(self) -> ActionResult:
        """ListCommands, the newest first."""
        given = self._given()
        _refuse_filters(given)
        command_id, instance_id = given.get("CommandId"), given.get("InstanceId")
        found = [self.commands.find(command_id)] if command_id else self.commands.all()
        if instance_id:
            found = [c for c in found if instance_id in [i.instance_id for i in c.invocations]]
        return _page("Commands", [_command(command, self.region) for command in found], given)

    def list_command_invocations(self) -> ActionResult:
        """ListCommandInvocations; what was sent this moment does not show yet."""
        given = self._given()
        _refuse_filters(given)
        command_id, instance_id = given.get("CommandId"), given.get("InstanceId")
        found = [self.commands.find(command_id)] if command_id else self.commands.all()
        shown = [
            _listed(command, invocation, self.region, details=bool(given.get("Details")))
            for command in found
            for invocation in self.commands.invocations(command)
            if instance_id in (None, invocation.instance_id)
        ]
        return _page("CommandInvocations", shown, given)

    def get_command_invocation(self) -> ActionResult:
        """GetCommandInvocation; InvocationDoesNotExist for what was sent this moment."""
        given = self._given()
        command = self.commands.find(given["CommandId"])
        for invocation in self.commands.invocations(command):
            if invocation.instance_id == given["InstanceId"]:
                if given.get("PluginName") not in (None, invocation.step):
                    raise SSMException("InvalidPluginName", "")
                return ActionResult(_got(command, invocation, self.region))
        raise SSMException("InvocationDoesNotExist", "")

    def cancel_command(self) -> EmptyResult:
        """CancelCommand, of all invocations."""
        given = self._given()
        if given.get("InstanceIds"):
            raise ValidationException("The sandbox cancels whole commands only.")
        self.commands.cancel(self.commands.find(given["CommandId"]))
        return EmptyResult()

    def describe_instance_information(self) -> ActionResult:
        """DescribeInstanceInformation of the agents that have registered."""
        given = self._given()
        wanted = [(f["key"], f["valueSet"]) for f in given.get("InstanceInformationFilterList", [])]
        wanted += [(f["Key"], f["Values"]) for f in given.get("Filters", [])]
        nodes = self.commands.nodes()
        for key, values in wanted:
            if key not in FILTERS:
                raise SSMException("InvalidFilterKey", f"the sandbox knows {', '.join(FILTERS)}")
            nodes = [node for node in nodes if FILTERS[key](node) in values]
        return _page("InstanceInformationList", [_information(node) for node in nodes], given, 10)


def _check_send(given: Mapping[str, Any]) -> None:
    """Raise ValidationException as AWS does before it looks at the document."""
    for name in NOT_SIMULATED:
        if given.get(name):
            raise ValidationException(f"The sandbox does not simulate {name}.")
    instance_ids, targets = given.get("InstanceIds") or [], given.get("Targets") or []
    _at_most("instanceIds", instance_ids, MAX_INSTANCES)
    _at_most("targets", targets, MAX_TARGETS)
    _at_most("comment", given.get("Comment") or "", MAX_COMMENT)
    _at_most("outputS3BucketName", given.get("OutputS3BucketName") or "", MAX_BUCKET_NAME)
    _at_most("outputS3KeyPrefix", given.get("OutputS3KeyPrefix") or "", MAX_KEY_PREFIX)
    if given.get("OutputS3KeyPrefix") and not given.get("OutputS3BucketName"):
        raise ValidationException("The sandbox takes OutputS3KeyPrefix with OutputS3BucketName.")
    if bool(instance_ids) == bool(targets):
        raise ValidationException("Give either InstanceIds or Targets.")
    for target in targets:
        _at_most("values", target.get("Values") or [], MAX_INSTANCES)
    timeout = given.get("TimeoutSeconds")
    if timeout is not None and int(timeout) < MIN_TIMEOUT_SECONDS:
        raise ValidationException(
            f"1 validation error detected: Value '{timeout}' at 'timeoutSeconds' failed to satisfy "
            f"constraint: Member must have value greater than or equal to {MIN_TIMEOUT_SECONDS}"
        )
    for name, pattern in (
        ("MaxConcurrency", NUMBER_OR_SHARE),
        ("MaxErrors", NUMBER_OR_SHARE_OR_NONE),
    ):
        value = given.get(name)
        if value is not None and not re.fullmatch(pattern, value):
            raise ValidationException(
                f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy "
                f"constraint: Member must satisfy regular expression pattern: {pattern}"
            )


def _at_most(name: str, value: Sequence[Any], most: int) -> None:
    if len(value) > most:
        raise ValidationException(
            f"1 validation error detected: Value at '{name}' failed to satisfy constraint: Member "
            f"must have length less than or equal to {most}"
        )


def _refuse_filters(given: Mapping[str, Any]) -> None:
    if given.get("Filters"):
        raise SSMException("InvalidFilterKey", "the sandbox has no filters here")


def _page(name: str, items: list[Any], given: Mapping[str, Any], most: int = 50) -> ActionResult:
    """One page of a list: MaxResults and NextToken as every SSM list has them."""
    token = given.get("NextToken") or "0"
    if not token.isdigit():
        raise SSMException("InvalidNextToken", "")
    size = int(given.get("MaxResults") or most)
    if not 1 <= size <= MAX_INSTANCES:
        raise ValidationException(f"MaxResults is between 1 and {MAX_INSTANCES}.")
    start, end = int(token), int(token) + size
    more = {"NextToken": str(end)} if end < len(items) else {}
    return ActionResult({name: items[start:end], **more})


def _command(command: Command, region: str) -> dict[str, Any]:
    final = [invocation for invocation in command.invocations if invocation.details.final]
    return {
        "CommandId": command.id,
        "DocumentName": command.document,
        "DocumentVersion": command.document_version,
        "Comment": command.comment,
        "ExpiresAfter": command.delivery_deadline,
        "Parameters": command.parameters,
        "InstanceIds": list(command.instance_ids),
        "Targets": list(command.targets),
        "RequestedDateTime": command.requested_at,
        "Status": command.status,
        "StatusDetails": command.details,
        "MaxConcurrency": command.max_concurrency,
        "MaxErrors": command.max_errors,
        "TargetCount": len(command.invocations),
        "CompletedCount": len(final),
        "ErrorCount": command.count(Details.FAILED, Details.EXECUTION_TIMED_OUT),
        "DeliveryTimedOutCount": command.count(Details.DELIVERY_TIMED_OUT),
        "TimeoutSeconds": int(command.timeout),
        "OutputS3Region": region,
        "OutputS3BucketName": command.output.bucket if command.output else "",
        "OutputS3KeyPrefix": command.output.prefix if command.output else "",
    }


def _urls(command: Command, invocation: Invocation, region: str) -> dict[str, str]:
    """Where the whole outputs are, also before there are any; empty without a bucket."""
    names = {"StandardOutputUrl": "stdout", "StandardErrorUrl": "stderr"}
    if command.output is None:
        return dict.fromkeys(names, "")
    place = f"https://s3.{region}.amazonaws.com/{command.output.bucket}"
    return {
        field: f"{place}/{command.output.key(command.id, invocation, name)}"
        for field, name in names.items()
    }


def _listed(
    command: Command, invocation: Invocation, region: str, *, details: bool
) -> dict[str, Any]:
    urls = _urls(command, invocation, region)
    shape = {
        "CommandId": command.id,
        "InstanceId": invocation.instance_id,
        "InstanceName": "",
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": command.document_version,
        "RequestedDateTime": command.requested_at,
        "Status": invocation.details.status,
        "StatusDetails": str(invocation.details),
        **urls,
        "CommandPlugins": [_plugin(command, invocation, urls)] if details else [],
    }
    if details and invocation.details.final:
        shape["TraceOutput"] = ""
    return shape


def _plugin(command: Command, invocation: Invocation, urls: dict[str, str]) -> dict[str, Any]:
    known = invocation.details.final
    plugin: dict[str, Any] = {
        "Name": invocation.step,
        "Status": {"Delayed": "Pending"}.get(invocation.details.status, invocation.details.status),
        "StatusDetails": str(invocation.details),
        "ResponseCode": invocation.response_code if known else -1,
        "Output": invocation.shown_output(OUTPUT_IN_LIST) if known else "",
        **urls,
    }
    if command.output is not None:
        plugin["OutputS3BucketName"] = command.output.bucket
        plugin["OutputS3KeyPrefix"] = command.output.directory(command.id, invocation.instance_id)
    if known and invocation.started_at and invocation.finished_at:
        plugin["ResponseStartDateTime"] = invocation.started_at
        plugin["ResponseFinishDateTime"] = invocation.finished_at
    return plugin


def _got(command: Command, invocation: Invocation, region: str) -> dict[str, Any]:
    known = invocation.details.final
    ran = invocation.ran if known else None
    started, finished = invocation.started_at, invocation.finished_at if known else None
    return {
        "CommandId": command.id,
        "InstanceId": invocation.instance_id,
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": command.document_version,
        "PluginName": invocation.step,
        "ResponseCode": invocation.response_code if known else -1,
        "ExecutionStartDateTime": _iso(started),
        "ExecutionElapsedTime": (
            f"PT{(finished - started).total_seconds():.3f}S" if started and finished else ""
        ),
        "ExecutionEndDateTime": _iso(finished),
        "Status": invocation.details.status,
        "StatusDetails": str(invocation.details),
        "StandardOutputContent": beginning(ran.output, OUTPUT) if ran else "",
        "StandardErrorContent": beginning(invocation.error_output(), ERRORS) if ran else "",
        **_urls(command, invocation, region),
    }


def _information(node: Node) -> dict[str, Any]:
    return {
        "InstanceId": node.instance_id,
        "PingStatus": _ping_status(node),
        "LastPingDateTime": node.pinged_at,
        "AgentVersion": "3.3.987.0",
        "IsLatestVersion": True,
        "PlatformType": "Linux",
        "PlatformName": "Amazon Linux",
        "PlatformVersion": "2023",
        "RegistrationDate": node.registered_at,
        "ResourceType": "EC2Instance",
        "IPAddress": node.address,
        "ComputerName": f"ip-{node.address.replace('.', '-')}",
        "SourceId": node.instance_id,
        "SourceType": "AWS::EC2::Instance",
    }


def _ping_status(node: Node) -> str:
    return "Online" if node.online else "ConnectionLost"


def _iso(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds") if moment else ""
