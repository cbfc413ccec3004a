"""What the workflow asks of ECS. Thin: it calls, pages and shapes, and decides nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from bluegreen.configuration import ColorSlot
from bluegreen.errors import DeploymentRefused

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_logs import CloudWatchLogsClient

# Limits of the API: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/
_TASKS_PER_CALL = 100
_INSTANCES_PER_CALL = 100
_STATES_PER_CALL = 10
_SERVICES_PER_CALL = 10
_PROVIDERS_PER_CALL = 10
_TASK_ID = re.compile(r"[0-9a-f-]{32,36}")
_LOG_LINES = 5
# All of a reason has to fit into the cause of an execution, 32,768 characters.
_LOG_LINE_LENGTH = 500


def service(client: ECSClient, slot: ColorSlot) -> Mapping[str, Any]:
    """DescribeServices of one colour.

    Raises DeploymentRefused when it does not exist or is not active.
    """
    try:
        answer = client.describe_services(cluster=slot.cluster, services=[slot.ecs_service])
    except client.exceptions.ClusterNotFoundException as error:
        raise DeploymentRefused(f"there is no ECS cluster {slot.cluster!r}") from error
    for one in answer["services"]:
        if one["status"] == "ACTIVE":
            return one
    raise DeploymentRefused(
        f"there is no active ECS service {slot.ecs_service!r} on cluster {slot.cluster!r}"
    )


def task_definition(client: ECSClient, arn: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """A task definition and its tags."""
    answer = client.describe_task_definition(taskDefinition=arn, include=["TAGS"])
    return dict(answer["taskDefinition"]), [
        {"key": tag["key"], "value": tag["value"]} for tag in answer.get("tags", [])
    ]


def newest_revisions(client: ECSClient, family: str) -> list[str]:
    """ARNs of the newest active revisions of a family, newest first."""
    answer = client.list_task_definitions(familyPrefix=family, sort="DESC", maxResults=10)
    return list(answer["taskDefinitionArns"])


def update(
    client: ECSClient, slot: ColorSlot, *, desired_count: int, task_definition: str | None = None
) -> Mapping[str, Any]:
    """UpdateService; the same call again changes nothing. Returns the service."""
    change: dict[str, Any] = {"desiredCount": desired_count}
    if task_definition:
        change["taskDefinition"] = task_definition
    return client.update_service(cluster=slot.cluster, service=slot.ecs_service, **change)[
        "service"
    ]


def primary_deployment(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """The deployment of a service that ECS is carrying out."""
    return next(one for one in described["deployments"] if one["status"] == "PRIMARY")


def task_arns(
    client: ECSClient, slot: ColorSlot, status: Literal["RUNNING", "STOPPED"]
) -> list[str]:
    """Tasks of a service by what ECS wants of them. A task that is still stopping is STOPPED."""
    pages = client.get_paginator("list_tasks").paginate(
        cluster=slot.cluster, serviceName=slot.ecs_service, desiredStatus=status
    )
    return [arn for page in pages for arn in page["taskArns"]]


def tasks(client: ECSClient, slot: ColorSlot) -> list[Mapping[str, Any]]:
    """DescribeTasks of everything that a service runs, is stopping, or ran within the last hour."""
    arns = [*task_arns(client, slot, "RUNNING"), *task_arns(client, slot, "STOPPED")]
    return [
        task
        for batch in batches(arns, _TASKS_PER_CALL)
        for task in client.describe_tasks(cluster=slot.cluster, tasks=batch)["tasks"]
    ]


def tasks_of_family(client: ECSClient, cluster: str, family: str) -> list[Mapping[str, Any]]:
    """DescribeTasks, with tags, of everything of a family that runs, is stopping, or ran within the
    last hour, of services or not.
    """
    both: tuple[Literal["RUNNING", "STOPPED"], ...] = ("RUNNING", "STOPPED")
    arns = [
        arn
        for status in both
        for page in client.get_paginator("list_tasks").paginate(
            cluster=cluster, family=family, desiredStatus=status
        )
        for arn in page["taskArns"]
    ]
    return [
        task
        for batch in batches(arns, _TASKS_PER_CALL)
        for task in client.describe_tasks(cluster=cluster, tasks=batch, include=["TAGS"])["tasks"]
    ]


def not_stopped(tasks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that still take a place, and perhaps requests."""
    return [task for task in tasks if task["lastStatus"] != "STOPPED"]


def container_instances(client: ECSClient, cluster: str) -> list[Mapping[str, Any]]:
    """DescribeContainerInstances of a whole cluster."""
    pages = client.get_paginator("list_container_instances").paginate(cluster=cluster)
    arns = [arn for page in pages for arn in page["containerInstanceArns"]]
    return [
        instance
        for batch in batches(arns, _INSTANCES_PER_CALL)
        for instance in client.describe_container_instances(
            cluster=cluster, containerInstances=batch
        )["containerInstances"]
    ]


def services(client: ECSClient, cluster: str) -> list[Mapping[str, Any]]:
    """DescribeServices of a whole cluster."""
    pages = client.get_paginator("list_services").paginate(cluster=cluster)
    arns = [arn for page in pages for arn in page["serviceArns"]]
    return [
        one
        for batch in batches(arns, _SERVICES_PER_CALL)
        for one in client.describe_services(cluster=cluster, services=batch)["services"]
    ]


def services_of(client: ECSClient, cluster: str, task_ids: Sequence[str]) -> dict[str, str]:
    """Task id → name of its service, "" for one that was started by hand. Tasks that ECS does not
    know any more are not there.
    """
    found = {}
    # One that is no id at all would be an error for all of them.
    ids = [one for one in task_ids if _TASK_ID.fullmatch(one)]
    for batch in batches(ids, _TASKS_PER_CALL):
        for task in client.describe_tasks(cluster=cluster, tasks=batch)["tasks"]:
            kind, _, name = str(task.get("group", "")).partition(":")
            found[task["taskArn"].rsplit("/", 1)[-1]] = name if kind == "service" else ""
    return found


def other_services(client: ECSClient, slot: ColorSlot) -> list[str]:
    """Names of the replica services on a colour's cluster that want tasks, but for its own."""
    return [
        one["serviceName"]
        for one in services(client, slot.cluster)
        if one["serviceName"] != slot.ecs_service
        and one["desiredCount"] > 0
        and one.get("schedulingStrategy", "REPLICA") == "REPLICA"
    ]


def capacity_providers(client: ECSClient, names: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """DescribeCapacityProviders by name; one that does not exist is left out."""
    return {
        one["name"]: one
        for batch in batches(sorted(names), _PROVIDERS_PER_CALL)
        for one in client.describe_capacity_providers(capacityProviders=batch)["capacityProviders"]
    }


def set_hosts(
    client: ECSClient,
    cluster: str,
    status: Literal["ACTIVE", "DRAINING"],
    only: Collection[str] | None = None,
) -> None:
    """Set the container instances of a cluster to a status. DRAINING: no new tasks, and those there
    leave. only: ids of EC2 instances, all by default.
    """
    others = [
        one["containerInstanceArn"]
        for one in container_instances(client, cluster)
        if one["status"] in ("ACTIVE", "DRAINING")
        and one["status"] != status
        and (only is None or one["ec2InstanceId"] in only)
    ]
    for batch in batches(others, _STATES_PER_CALL):
        client.update_container_instances_state(
            cluster=cluster, containerInstances=batch, status=status
        )


def went_with_its_host(task: Mapping[str, Any]) -> bool:
    """Whether a task has stopped because EC2 stopped or terminated the instance below it:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html
    """
    return str(task.get("stoppedReason", "")).startswith("Host EC2 (instance ")


def was_moved(task: Mapping[str, Any]) -> bool:
    """Whether ECS has stopped a task for reasons of its own, and not for what the task did: its
    host is drained or taken back, or there were to be fewer.

    stopCode: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html; reason:
    https://repost.aws/knowledge-center/ecs-task-stopped ("Service scaling event triggered"). A task
    that fails health checks is stopped by the scheduler, too, with another reason.
    """
    if task.get("stopCode") in ("SpotInterruption", "TerminationNotice"):
        return True
    return str(task.get("stoppedReason", "")).startswith("Scaling activity initiated by ")


def why_stopped(
    logs: CloudWatchLogsClient, task: Mapping[str, Any], definition: Mapping[str, Any]
) -> str:
    """One stopped task: stopped reason, exit codes, and the last lines of the container's log."""
    task_id = task["taskArn"].rsplit("/", 1)[-1]
    parts = [f"task {task_id}: {task.get('stoppedReason') or 'stopped, no reason given'}"]
    for container in task.get("containers", []):
        ended = [f"container {container['name']}"]
        if container.get("exitCode") is not None:
            ended.append(f"exit code {container['exitCode']}")
        if container.get("reason"):
            ended.append(str(container["reason"]))
        if len(ended) > 1:
            parts.append(", ".join(ended))
        tail = _log_tail(logs, container["name"], task_id, definition)
        if tail:
            parts.append("last log lines:\n    " + "\n    ".join(tail))
    return "; ".join(parts)


def _log_tail(
    logs: CloudWatchLogsClient, container: str, task_id: str, definition: Mapping[str, Any]
) -> list[str]:
    """The end of a container's awslogs stream, named <prefix>/<container>/<task id>:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
    """
    for one in definition["containerDefinitions"]:
        configuration = one.get("logConfiguration") or {}
        options = configuration.get("options") or {}
        if one["name"] != container or configuration.get("logDriver") != "awslogs":
            continue
        if "awslogs-stream-prefix" not in options:
            continue
        stream = f"{options['awslogs-stream-prefix']}/{container}/{task_id}"
        try:
            events = logs.get_log_events(
                logGroupName=options["awslogs-group"],
                logStreamName=stream,
                limit=_LOG_LINES,
                startFromHead=False,
            )["events"]
        except logs.exceptions.ResourceNotFoundException:
            # A task that never got to run has no stream; that it has none is no second failure.
            return []
        except ClientError as error:
            # The log is read to explain a failure, and must not hide it behind another one.
            return [f"(log group {options['awslogs-group']} cannot be read: {error})"]
        return [event["message"].rstrip()[:_LOG_LINE_LENGTH] for event in events]
    return []


def batches(items: Sequence[str], size: int) -> Iterator[list[str]]:
    """As many at once as an API takes."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
