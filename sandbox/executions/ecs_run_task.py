"""``ecs:runTask`` and ``ecs:runTask.sync``.

What the service does (developer guide of Step Functions, connect-ecs): the output of the latter is
the description of the task. A RunTask that was answered with failures is ``AmazonECS.Unknown``; a
task that did not run to its end with the exit code 0 in each essential container is
``States.TaskFailed``, and the cause is its description as JSON.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.stepfunctions.parser.asl.eval.environment import Environment

from sandbox.ecs.model import LastStatus, StopCode
from sandbox.executions.integration import (
    Clients,
    Integration,
    TaskFailed,
    look_until_ended,
    raised,
)

STARTED_BY = "AWS Step Functions"
LOG = logging.getLogger(__name__)


class RunTask(Integration):
    """A Task state that runs a task of ECS."""

    service = "ecs"
    action = "runTask"
    conditions = (None, "sync")
    fields = frozenset(
        {
            "CapacityProviderStrategy",
            "Cluster",
            "EnableECSManagedTags",
            "EnableExecuteCommand",
            "Group",
            "LaunchType",
            "NetworkConfiguration",
            "Overrides",
            "PlacementConstraints",
            "PlacementStrategy",
            "PlatformVersion",
            "PropagateTags",
            "Tags",
            "TaskDefinition",
        }
    )
    errors = "ECS"
    other_error = "AmazonECSException"

    def complete(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Name who starts the task, if its end is waited for."""
        if self.resource.condition is None:
            return parameters
        return {**parameters, "StartedBy": STARTED_BY}

    def submit(self, parameters: dict[str, Any]) -> Any:
        """Run the task."""
        answer = self.call("RunTask", parameters)
        if self.resource.condition is not None and answer["Failures"]:
            raise TaskFailed("AmazonECS.Unknown", json.dumps(answer))
        return answer

    def wait(self, env: Environment, submitted: Any) -> Any:
        """Wait until the task is STOPPED."""
        client = Clients.of(self.service)
        started = submitted["Tasks"][0]
        cluster, arn = started["ClusterArn"], started["TaskArn"]
        shape = client.meta.service_model.shape_for("Task")

        def look() -> Any | None:
            task = client.describe_tasks(cluster=cluster, tasks=[arn], include=["TAGS"])["tasks"][0]
            return raised(task, shape) if task["lastStatus"] == LastStatus.STOPPED else None

        def stop() -> None:
            try:
                client.stop_task(cluster=cluster, task=arn)
            except (ClientError, BotoCoreError):
                LOG.warning("cannot stop the task %s", arn, exc_info=True)

        task = look_until_ended(env, look, stop)
        definition = Clients.unseen(self.service).describe_task_definition(
            taskDefinition=task["TaskDefinitionArn"]
        )["taskDefinition"]
        if not succeeded(task, definition):
            raise TaskFailed("States.TaskFailed", json.dumps(task))
        return task


def succeeded(task: Mapping[str, Any], definition: Mapping[str, Any]) -> bool:
    """Whether a stopped task (PascalCase) of ``definition`` did what it was started for."""
    essential = {
        container["name"]
        for container in definition["containerDefinitions"]
        if container.get("essential", True)
    }
    return task.get("StopCode") == StopCode.ESSENTIAL_CONTAINER_EXITED and all(
        container.get("ExitCode") == 0
        for container in task["Containers"]
        if container["Name"] in essential
    )
