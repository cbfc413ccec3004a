"""What the API shows of tasks, services and deployments: AWS's documented shapes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from sandbox.ecs.model import ContainerState, Definition, Deployment, LastStatus, Service, Task
from sandbox.ecs.placement import needs_of

SERVICE_DEFAULTS: dict[str, Any] = {
    "loadBalancers": [],
    "serviceRegistries": [],
    "schedulingStrategy": "REPLICA",
    "deploymentController": {"type": "ECS"},
    "placementConstraints": [],
    "placementStrategy": [],
    "enableECSManagedTags": False,
    "propagateTags": "NONE",
    "enableExecuteCommand": False,
    "healthCheckGracePeriodSeconds": 0,
    "availabilityZoneRebalancing": "DISABLED",
}
DEPLOYMENT_CONFIGURATION: dict[str, Any] = {
    "deploymentCircuitBreaker": {"enable": False, "rollback": False},
    "maximumPercent": 200,
    "minimumHealthyPercent": 100,
    "strategy": "ROLLING",
}
SHOWN_SETTINGS = (
    *SERVICE_DEFAULTS,
    "launchType",
    "capacityProviderStrategy",
    "platformVersion",
    "networkConfiguration",
)


def definition_shape(definition: Definition) -> dict[str, Any]:
    """A task definition."""
    return copy.deepcopy(definition)


def task_shape(task: Task) -> dict[str, Any]:
    """A task."""
    needs = needs_of(task.definition)
    health = {c.health for c in task.containers if c.probe is not None}
    shape: dict[str, Any] = {
        "attachments": copy.deepcopy(task.attachments),
        "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
        "clusterArn": task.cluster_arn,
        "connectivity": "CONNECTED" if task.connected else "DISCONNECTED",
        "containers": [_container_shape(task, container) for container in task.containers],
        "cpu": str(needs.cpu),
        "desiredStatus": task.desired_status,
        "enableExecuteCommand": False,
        "group": task.group,
        "healthStatus": health.pop() if len(health) == 1 else "UNHEALTHY" if health else "UNKNOWN",
        "lastStatus": str(task.last_status),
        "launchType": task.launch_type,
        "memory": str(needs.memory),
        "overrides": {
            **{k: v for k, v in task.overrides.items() if k != "containerOverrides"},
            "containerOverrides": _container_overrides(task),
            "inferenceAcceleratorOverrides": [],
        },
        "tags": list(task.tags),
        "taskArn": task.arn,
        "taskDefinitionArn": task.definition["taskDefinitionArn"],
        "version": task.version,
        **task.times,
    }
    if task.instance is not None:
        shape["containerInstanceArn"] = task.instance.container_instance_arn
        shape["availabilityZone"] = task.instance.attributes["ecs.availability-zone"]
    if task.started_by is not None:
        shape["startedBy"] = task.started_by
    if task.stop_code is not None:
        shape |= {"stopCode": str(task.stop_code), "stoppedReason": task.stopped_reason}
    return shape


def _container_overrides(task: Task) -> list[dict[str, Any]]:
    """One for each container, also for those of which nothing is overridden."""
    given = {one["name"]: one for one in task.overrides.get("containerOverrides", [])}
    return [copy.deepcopy(given.get(c.name, {"name": c.name})) for c in task.containers]


def _container_shape(task: Task, container: ContainerState) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "containerArn": container.arn,
        "taskArn": task.arn,
        "name": container.name,
        "image": container.definition["image"],
        "lastStatus": container.status,
        "networkBindings": [{"bindIP": task.address, **binding} for binding in container.bindings],
        "networkInterfaces": [],
        "healthStatus": container.health,
        "cpu": str(container.definition.get("cpu", 0)),
    }
    if "memory" in container.definition:
        shape["memory"] = str(container.definition["memory"])
    if "memoryReservation" in container.definition:
        shape["memoryReservation"] = str(container.definition["memoryReservation"])
    if container.image_digest is not None:
        shape["imageDigest"] = container.image_digest
    if container.running is not None:
        shape["runtimeId"] = container.running.runtime_id
    if container.exit_code is not None:
        shape["exitCode"] = container.exit_code
    if container.reason is not None:
        shape["reason"] = container.reason
    for attachment in task.attachments:
        details = {d["name"]: d["value"] for d in attachment["details"]}
        shape["networkBindings"] = []
        shape["networkInterfaces"] = [
            {
                "attachmentId": attachment["id"],
                "privateIpv4Address": details["privateIPv4Address"],
            }
        ]
    return shape


def service_shape(service: Service, tasks: Sequence[Task]) -> dict[str, Any]:
    """A service; ``tasks`` are those of it that are not over."""
    configuration = service.settings.get("deploymentConfiguration") or {}
    shown = {k: service.settings[k] for k in SHOWN_SETTINGS if service.settings.get(k) is not None}
    # One or the other.
    del shown["launchType" if shown["capacityProviderStrategy"] else "capacityProviderStrategy"]
    return {
        "serviceArn": service.arn,
        "serviceName": service.name,
        "clusterArn": service.cluster_arn,
        "status": service.status,
        "desiredCount": service.desired_count,
        "runningCount": _running(tasks),
        "pendingCount": _pending(tasks),
        "taskDefinition": service.primary.definition["taskDefinitionArn"],
        "deploymentConfiguration": DEPLOYMENT_CONFIGURATION | configuration,
        "deployments": [_deployment_shape(d, tasks) for d in service.deployments],
        "events": list(service.events),
        "createdAt": service.created_at,
        "createdBy": service.arn.rsplit(":", 1)[0].replace(":ecs:", ":iam:") + ":root",
        **copy.deepcopy(SERVICE_DEFAULTS | shown),
    }


def _deployment_shape(deployment: Deployment, tasks: Sequence[Task]) -> dict[str, Any]:
    mine = [task for task in tasks if task.started_by == deployment.id]
    return {
        "id": deployment.id,
        "status": deployment.status,
        "taskDefinition": deployment.definition["taskDefinitionArn"],
        "desiredCount": deployment.desired_count,
        "pendingCount": _pending(mine),
        "runningCount": _running(mine),
        "failedTasks": deployment.failed_tasks,
        "createdAt": deployment.created_at,
        "updatedAt": deployment.updated_at,
        "rolloutState": deployment.rollout_state,
        "rolloutStateReason": deployment.rollout_reason,
        **deployment.settings,
    }


def _running(tasks: Sequence[Task]) -> int:
    """Count as ECS does: a task counts until its containers are told to stop."""
    return sum(t.last_status in (LastStatus.RUNNING, LastStatus.DEACTIVATING) for t in tasks)


def _pending(tasks: Sequence[Task]) -> int:
    return sum(t.last_status in (LastStatus.PROVISIONING, LastStatus.PENDING) for t in tasks)
