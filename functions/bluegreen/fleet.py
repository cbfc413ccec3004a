"""The container instances of a cluster as hosts, and what they answer to commands.

Commands go through SSM Run Command, with documents of our own (hosts/documents/). Thin: it calls,
pages and shapes; what the answers mean is decided in bluegreen/host_report.py and
bluegreen/host_switch.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from bluegreen import ecs

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ssm import SSMClient

# Limits: https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html,
# API_InstanceInformationStringFilter.html and, of EC2's filters, API_DescribeInstances.html
_INSTANCES_PER_COMMAND = 50
_INSTANCES_PER_PAGE = 50
_VALUES_PER_FILTER = 100
# What one instance can bring upon a whole command: it lacks the tag that the policy of our
# functions asks for, or its agent has gone since.
_OF_ONE_INSTANCE = frozenset({"AccessDeniedException", "InvalidInstanceId"})
# SSM's own limit on delivery, the shortest that there is. What arrives later than it is of use is
# refused by the host itself.
_DELIVERY_SECONDS = 30
# Serving, or about to: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/
# container-instance-draining.html
_IN_CLUSTER = frozenset({"ACTIVE", "DRAINING"})
_THERE: Sequence[Any] = ("pending", "running")
_ENDED = frozenset({"Success", "Failed", "Cancelled", "TimedOut"})


@dataclass(frozen=True)
class Host:
    """A container instance that EC2 says is there. arn: ECS's name for it. draining: gets no new
    tasks.
    """

    instance_id: str
    draining: bool
    arn: str = ""


@dataclass(frozen=True)
class Answer:
    """What one host made of one command.

    state: "pending" while it may still answer; "silent" when the command has not reached it;
    "answered" with the JSON object that our program printed; "failed" with a reason for people.
    """

    state: Literal["pending", "silent", "answered", "failed"]
    said: Mapping[str, Any]
    reason: str = ""


NOT_ASKED = Answer(
    "silent",
    {},
    "no command reaches it: its SSM agent is not registered, it lacks the tag "
    "ecs-bluegreen: host, or it has just appeared",
)
# SSM lists an invocation some time after the command was accepted; until then it is under way.
NOT_LISTED = Answer("pending", {}, "SSM does not list the command yet")
LISTED_AFTER_SECONDS = 3


def answer_of(host: Host, answers: Mapping[str, Answer], sent_at: float, now: float) -> Answer:
    """A host's answer to a command that was sent to all hosts. Times in epoch seconds."""
    unlisted = NOT_LISTED if now - sent_at < LISTED_AFTER_SECONDS else NOT_ASKED
    return answers.get(host.instance_id, unlisted)


class Fleet:
    """The hosts of one cluster."""

    def __init__(self, ecs_client: ECSClient, ec2: EC2Client, ssm: SSMClient, cluster: str) -> None:
        self._ecs = ecs_client
        self._ec2 = ec2
        self._ssm = ssm
        self._cluster = cluster

    def hosts(self) -> list[Host]:
        """Container instances, but for those that EC2 says are gone.

        An instance that is terminated stays in ECS, and its command pending in SSM, for a while;
        EC2 alone knows.
        """
        registered: dict[str, Host] = {}
        for instance in ecs.container_instances(self._ecs, self._cluster):
            if instance["status"] not in _IN_CLUSTER:
                continue
            host = Host(
                instance["ec2InstanceId"],
                instance["status"] == "DRAINING",
                instance["containerInstanceArn"],
            )
            # An agent that was registered anew leaves its old registration for a while.
            if host.instance_id not in registered or not host.draining:
                registered[host.instance_id] = host
        there = {
            instance["InstanceId"]
            for ids in ecs.batches(list(registered), _VALUES_PER_FILTER)
            for page in self._ec2.get_paginator("describe_instances").paginate(
                # A filter, because an id that EC2 has forgotten would be an error.
                Filters=[
                    {"Name": "instance-id", "Values": ids},
                    {"Name": "instance-state-name", "Values": _THERE},
                ]
            )
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        }
        return [host for name, host in sorted(registered.items()) if name in there]

    def registered(self, instance_ids: Sequence[str]) -> list[str]:
        """Those of the hosts that SSM knows; SendCommand would refuse all of them for one else."""
        known = {
            one["InstanceId"]
            for ids in ecs.batches(list(instance_ids), _VALUES_PER_FILTER)
            for page in self._ssm.get_paginator("describe_instance_information").paginate(
                Filters=[{"Key": "InstanceIds", "Values": ids}],
                PaginationConfig={"PageSize": _INSTANCES_PER_PAGE},
            )
            for one in page["InstanceInformationList"]
        }
        return [instance_id for instance_id in instance_ids if instance_id in known]

    def send(
        self,
        document: str,
        parameters: Mapping[str, str],
        instance_ids: Sequence[str],
        output: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Send a command to hosts; returns the ids of the commands.

        A host that cannot be sent one holds none of the others up: it just has no answer.
        output: OutputS3BucketName and OutputS3KeyPrefix, where SSM would cut what is printed.
        """
        return [
            command
            for batch in ecs.batches(instance_ids, _INSTANCES_PER_COMMAND)
            for command in self._send(document, parameters, batch, output or {})
        ]

    def _send(
        self,
        document: str,
        parameters: Mapping[str, str],
        instance_ids: Sequence[str],
        output: Mapping[str, Any],
    ) -> list[str]:
        try:
            answer = self._ssm.send_command(
                DocumentName=document,
                Parameters={name: [value] for name, value in parameters.items()},
                InstanceIds=instance_ids,
                # All at once, and none held back because another one failed.
                MaxConcurrency="100%",
                MaxErrors="100%",
                TimeoutSeconds=_DELIVERY_SECONDS,
                **output,
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in _OF_ONE_INSTANCE:
                raise
            if len(instance_ids) == 1:
                return []
            half = len(instance_ids) // 2
            return [
                *self._send(document, parameters, instance_ids[:half], output),
                *self._send(document, parameters, instance_ids[half:], output),
            ]
        return [answer["Command"]["CommandId"]]

    def answers(self, commands: Sequence[str]) -> dict[str, Answer]:
        """What the hosts have answered so far, by instance id; a later command counts more."""
        return {
            invocation["InstanceId"]: _answer(invocation)
            for command in commands
            for page in self._ssm.get_paginator("list_command_invocations").paginate(
                CommandId=command, Details=True
            )
            for invocation in page["CommandInvocations"]
        }


def _answer(invocation: Mapping[str, Any]) -> Answer:
    """One entry of ListCommandInvocations. Our program prints one line of JSON, whatever happens:
    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_CommandInvocation.html
    """
    if invocation["Status"] not in _ENDED:
        return Answer("pending", {}, f"SSM says {invocation.get('StatusDetails')}")
    plugins = invocation.get("CommandPlugins") or [{}]
    output = str(plugins[0].get("Output") or "")
    details = invocation.get("StatusDetails")
    if not output and (invocation["Status"] == "TimedOut" or details == "Undeliverable"):
        return Answer("silent", {}, f"SSM says {details}")
    try:
        said = json.loads(output.partition("\n")[0])
        error = said.get("error")
    except (ValueError, AttributeError):
        said, error = {}, output.strip()[-300:] or f"SSM says {invocation.get('StatusDetails')}"
    if invocation["Status"] == "Success" and not error:
        return Answer("answered", said)
    return Answer("failed", said, error or f"SSM says {invocation.get('StatusDetails')}")
