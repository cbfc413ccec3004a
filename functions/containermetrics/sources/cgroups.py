"""cgroups on the instances, read by a program that SSM Run Command brings there.

hosts/documents/metrics.yaml carries the program, hosts/ecs_bluegreen_metrics.py says what it reads
and prints. This is the other end: it asks, fetches what was answered, and takes it apart. One host
that does not answer, or answers nonsense, loses none of the others.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bluegreen import ecs
from bluegreen.fleet import Fleet
from containermetrics.configuration import MetricsConfiguration
from containermetrics.model import Aggregate, PluginValue, Sample, Source

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient

STEP = "metrics"
"""The name of the step in the document; the output in S3 is filed under it."""
PREFIX = "metrics"

# https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html
_INSTANCES_PER_COMMAND = 50
# GetCommandInvocation is asked for one instance at a time, and the answers come within 50 ms each.
_AT_A_TIME = 8
_MOST_BYTES = 20_000_000
_LISTED_AFTER_SECONDS = 6
_UNDER_WAY = frozenset({"Pending", "InProgress", "Delayed", "Cancelling"})
# What amazon-ssm-agent puts behind output that it has cut (its package iohandler).
_CUT = "--output truncated--"
# A clock that is further off is said: rates do not suffer from it, as each host measures its own.
_SKEW_SECONDS = 60


@dataclass(frozen=True)
class Order:
    """What a batch of instances was told. command_ids: usually one; more when SSM refused an
    instance among them, and none for that one. asked_at: epoch seconds.
    """

    command_ids: list[str]
    instance_ids: list[str]
    asked_at: float


@dataclass(frozen=True)
class HostAnswer:
    """What one instance said. answered: whether it is of use; else problems say why not.

    The sources of samples and plugin values have no service yet, as the host does not know it.
    """

    instance_id: str
    answered: bool
    samples: Sequence[Sample] = ()
    plugin_values: Sequence[PluginValue] = ()
    graphs: Sequence[Mapping[str, Any]] = ()
    problems: Sequence[str] = field(default=())


def ask(
    fleet: Fleet, document: str, bucket: str, configuration: MetricsConfiguration, now: float
) -> tuple[list[Order], list[str]]:
    """Send the command to all instances of the cluster; returns what was sent, and who cannot be
    sent anything. bucket: where output goes that Run Command would cut. now: epoch seconds.
    """
    hosts = [host.instance_id for host in fleet.hosts()]
    registered = fleet.registered(hosts)
    parameters = {"Plugins": configuration.plugins_parameter}
    output = {"OutputS3BucketName": bucket, "OutputS3KeyPrefix": PREFIX}
    orders = [
        Order(fleet.send(document, parameters, batch, output), batch, now)
        for batch in ecs.batches(registered, _INSTANCES_PER_COMMAND)
    ]
    return orders, sorted(set(hosts) - set(registered))


def under_way(ssm: SSMClient, order: Order, now: float) -> list[str]:
    """The instances that may still answer. now: epoch seconds."""
    states = {
        invocation["InstanceId"]: str(invocation["Status"])
        for command_id in order.command_ids
        for page in ssm.get_paginator("list_command_invocations").paginate(CommandId=command_id)
        for invocation in page["CommandInvocations"]
    }
    # SSM lists an invocation some time after the command was accepted; one for an instance that it
    # refused never comes.
    unlisted = "Pending" if now - order.asked_at < _LISTED_AFTER_SECONDS else "Refused"
    return [one for one in order.instance_ids if states.get(one, unlisted) in _UNDER_WAY]


def fetch(ssm: SSMClient, s3: S3Client, bucket: str, order: Order, now: float) -> list[HostAnswer]:
    """What the instances of an order have answered. now: epoch seconds, to see their clocks by."""
    with ThreadPoolExecutor(max_workers=_AT_A_TIME) as pool:
        fetch_one = partial(_fetch_one, ssm, s3, bucket, order.command_ids, now)
        return list(pool.map(fetch_one, order.instance_ids))


def name_services(
    client: ECSClient, cluster: str, known: Mapping[str, str], answers: Sequence[HostAnswer]
) -> list[HostAnswer]:
    """The answers with the ECS service in every source. known: task id → service, of those that
    were seen before. A task that ECS does not know has none.
    """
    tasks = {
        source.task
        for answer in answers
        for source in (
            *(sample.source for sample in answer.samples),
            *(value.source for value in answer.plugin_values),
        )
    }
    unknown = sorted(tasks - set(known))
    services = {**known, **ecs.services_of(client, cluster, unknown)}

    def named(source: Source) -> Source:
        return replace(source, service=services.get(source.task, ""))

    return [
        replace(
            answer,
            samples=[replace(one, source=named(one.source)) for one in answer.samples],
            plugin_values=[replace(one, source=named(one.source)) for one in answer.plugin_values],
        )
        for answer in answers
    ]


def _fetch_one(
    ssm: SSMClient,
    s3: S3Client,
    bucket: str,
    command_ids: Sequence[str],
    now: float,
    instance_id: str,
) -> HostAnswer:
    failed = partial(HostAnswer, instance_id, answered=False)
    try:
        said = _invocation(ssm, command_ids, instance_id)
    except (ClientError, BotoCoreError) as error:
        return failed(problems=[f"{instance_id}: {error}"])
    if said is None:
        why = "no command reached it; does it have the tag ecs-bluegreen: host?"
        return failed(problems=[f"{instance_id}: {why}"])
    if said["Status"] in _UNDER_WAY:
        return failed(problems=[f"{instance_id}: did not answer in time"])
    output = said.get("StandardOutputContent", "")
    if said["Status"] != "Success":
        why = said.get("StandardErrorContent", "").strip() or output.strip()
        return failed(problems=[f"{instance_id}: {said['StatusDetails']}: {why[-300:]}"])
    problems = []
    if _is_cut(output):
        key = f"{PREFIX}/{said['CommandId']}/{instance_id}/awsrunShellScript/{STEP}/stdout"
        try:
            whole = s3.get_object(Bucket=bucket, Key=key)["Body"].read(_MOST_BYTES)
            output = whole.decode(errors="replace")
        except (ClientError, BotoCoreError) as error:
            problems.append(
                f"{instance_id}: more output than SSM gives back, and what should be at "
                f"s3://{bucket}/{key} cannot be read ({error}); may the instance write there?"
            )
    return _taken_apart(instance_id, output, problems, now)


def _invocation(
    ssm: SSMClient, command_ids: Sequence[str], instance_id: str
) -> Mapping[str, Any] | None:
    """None when none of the commands was for this instance."""
    for command_id in command_ids:
        try:
            return ssm.get_command_invocation(CommandId=command_id, InstanceId=instance_id)
        except ssm.exceptions.InvocationDoesNotExist:
            continue
    return None


def _is_cut(output: str) -> bool:
    """Whether some is missing: the agent says so, or the first line, which knows how many there
    are.
    """
    if output.endswith(_CUT):
        return True
    lines = output.splitlines()
    try:
        return bool(json.loads(lines[0])["lines"] > len(lines) - 1)
    except (IndexError, KeyError, TypeError, ValueError):
        return False


def _taken_apart(instance_id: str, output: str, problems: Sequence[str], now: float) -> HostAnswer:
    lines = output.removesuffix(_CUT).splitlines()
    found = list(problems)
    try:
        head = json.loads(lines[0])
        at = float(head["at"])
        found += [f"{instance_id}: {problem}" for problem in head.get("problems", [])]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        found.append(f"{instance_id}: printed {output[:200]!r}")
        return HostAnswer(instance_id, answered=False, problems=found)
    if abs(now - at) > _SKEW_SECONDS:
        found.append(f"{instance_id}: its clock differs by {at - now:.0f} s; is NTP running?")
    samples: list[Sample] = []
    values: list[PluginValue] = []
    graphs: list[Mapping[str, Any]] = []
    for entry in _entries(instance_id, lines[1:], found):
        try:
            source = _source(entry)
            if "plugin" in entry:
                how = _aggregate(entry.get("aggregate", "sum"))
                values += [
                    PluginValue(source, str(key), float(value), how)
                    for key, value in entry["values"]
                ]
                if isinstance(entry.get("graphs"), dict):
                    graphs.append(entry["graphs"])
            else:
                counters, gauges = _numbers(entry["c"]), _numbers(entry["g"])
                samples.append(Sample(source, float(entry["at"]), counters, gauges))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            found.append(f"{instance_id}: an entry is not as expected: {error!r}")
    return HostAnswer(instance_id, True, samples, values, graphs, found)


def _source(entry: Mapping[str, Any]) -> Source:
    """Raises KeyError, TypeError or ValueError for what no program of ours has printed."""
    parts = [entry[name] for name in ("task", "family", "revision", "container")]
    if not all(isinstance(part, str) for part in parts):
        raise TypeError(f"no names: {parts}"[:200])
    task, family, revision, container = parts
    if not task or not container:
        raise ValueError("a name is empty")
    return Source(task, "", family, revision, container)


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """Metric ids with their numbers. Raises TypeError for anything else."""
    for name, value in found.items():
        if type(value) not in (int, float):
            raise TypeError(f"{name} is {value!r}"[:200])
    return dict(found)


def _aggregate(text: str) -> Aggregate:
    match text:
        case "sum" | "average" | "maximum":
            return text
        case _:
            raise ValueError(f"aggregate {text!r}"[:200])


def _entries(
    instance_id: str, lines: Sequence[str], problems: list[str]
) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=2):
        try:
            # Bounded, as what comes from an instance may be anything.
            text = zlib.decompressobj().decompress(base64.b85decode(line), _MOST_BYTES)
            entries = json.loads(text)
        except (ValueError, zlib.error, RecursionError):
            # The last one that came through, when output was cut.
            problems.append(f"{instance_id}: line {number} of its output is not whole")
            continue
        if isinstance(entries, list):
            yield from entries
        else:
            problems.append(f"{instance_id}: line {number} of its output holds no list")
