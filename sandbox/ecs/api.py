"""The ECS operations that the sandbox answers itself instead of moto.

Clusters, capacity providers, container instances, attributes and account settings stay moto's.
What neither does faithfully (task sets, StartTask) is refused instead of faked.
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ecs.exceptions import (
    ECSException,
    InvalidParameterException,
    ServiceNotFoundException,
    TaskDefinitionNotFoundException,
)
from moto.ecs.responses import EC2ContainerServiceResponse, format_attributes

from sandbox.ecs.control import Control, page
from sandbox.ecs.definitions import TaskDefinitions
from sandbox.ecs.model import Service, State, Task
from sandbox.ecs.placement import update_resources
from sandbox.ecs.shapes import definition_shape, service_shape, task_shape

MAX_SERVICES = 10
MAX_TASKS = 100
MAX_INSTANCES = 100
MAX_STATES = 10


class EcsResponse(EC2ContainerServiceResponse):
    """One request; ``install`` makes a subclass with the three parts that it works on."""

    control: Control
    definitions: TaskDefinitions
    state: State

    RESPONSE_KEY_PATH_TO_TRANSFORMER = {  # noqa: RUF012 (moto's own way to say it)
        "DescribeContainerInstancesResponse.containerInstances.ContainerInstance.attributes": (
            format_attributes
        ),
        "RegisterContainerInstanceResponse.containerInstance.attributes": format_attributes,
    }

    # ------------------------------------------------------------------------ task definitions

    def register_task_definition(self) -> ActionResult:
        given = dict(self._get_params())
        tags = given.pop("tags", None) or []
        with self.state.lock:
            definition = self.definitions.register(given)
            self.state.tags[definition["taskDefinitionArn"]] = tags
            return ActionResult({"taskDefinition": definition_shape(definition), "tags": tags})

    def describe_task_definition(self) -> ActionResult:
        with self.state.lock:
            definition = self.definitions.find(self._get_param("taskDefinition"))
            result: dict[str, Any] = {"taskDefinition": definition_shape(definition)}
            if "TAGS" in self._get_param("include", []):
                result["tags"] = self.state.tags.get(definition["taskDefinitionArn"], [])
            return ActionResult(result)

    def list_task_definitions(self) -> ActionResult:
        given = self._get_params()
        with self.state.lock:
            arns = self.definitions.arns(
                given.get("familyPrefix"),
                given.get("status") or "ACTIVE",
                given.get("sort") or "ASC",
            )
        return _listed("taskDefinitionArns", arns, given)

    def list_task_definition_families(self) -> ActionResult:
        given = self._get_params()
        with self.state.lock:
            families = self.definitions.families(
                given.get("familyPrefix") or "", given.get("status") or "ACTIVE"
            )
        return _listed("families", families, given)

    def deregister_task_definition(self) -> ActionResult:
        with self.state.lock:
            definition = self.definitions.deregister(self._get_param("taskDefinition"))
            return ActionResult({"taskDefinition": definition_shape(definition)})

    # -------------------------------------------------------------------------------- services

    def create_service(self) -> ActionResult:
        given = dict(self._get_params())
        with self.state.lock:
            cluster = self.control.cluster(given.pop("cluster", None))
            service = self.control.create_service(cluster, given)
            return ActionResult({"service": self._service(service, tags=True)})

    def update_service(self) -> ActionResult:
        given = dict(self._get_params())
        with self.state.lock:
            cluster = self.control.cluster(given.get("cluster"))
            service = self.control.update_service(cluster, given)
            return ActionResult({"service": self._service(service)})

    def delete_service(self) -> ActionResult:
        with self.state.lock:
            cluster = self.control.cluster(self._get_param("cluster"))
            service = self.control.delete_service(
                cluster, self._get_param("service"), force=bool(self._get_param("force"))
            )
            return ActionResult({"service": self._service(service)})

    def describe_services(self) -> ActionResult:
        """DescribeServices, of at most ten."""
        names = self._get_param("services", [])
        if not names:
            raise InvalidParameterException("Services cannot be empty.")
        if len(names) > MAX_SERVICES:
            raise InvalidParameterException(f"Services cannot have more than {MAX_SERVICES} ids.")
        services, failures = [], []
        with self.state.lock:
            cluster = self.control.cluster(self._get_param("cluster"))
            for name in names:
                try:
                    service = self.control.service(cluster, name)
                except ServiceNotFoundException:
                    arn = cluster.arn.replace(":cluster/", ":service/")
                    failures.append({"arn": _arn_of(name, arn), "reason": "MISSING"})
                else:
                    tags = "TAGS" in self._get_param("include", [])
                    services.append(self._service(service, tags=tags))
        return ActionResult({"services": services, "failures": failures})

    def list_services(self) -> ActionResult:
        """ListServices, ten at a time unless maxResults says more."""
        given = dict(self._get_params())
        given.setdefault("maxResults", MAX_SERVICES)
        with self.state.lock:
            cluster = self.control.cluster(given.get("cluster"))
            arns = [
                service.arn
                for service in self.state.services.values()
                if service.cluster_arn == cluster.arn
                and service.status != "INACTIVE"
                and given.get("launchType") in (None, service.settings.get("launchType"))
            ]
        return _listed("serviceArns", arns, given)

    # ----------------------------------------------------------------------------------- tasks

    def run_task(self) -> ActionResult:
        given = self._get_params()
        with self.state.lock:
            cluster = self.control.cluster(given.get("cluster"))
            tasks, failures = self.control.run_task(cluster, given)
            return ActionResult({"tasks": [task_shape(t) for t in tasks], "failures": failures})

    def stop_task(self) -> ActionResult:
        with self.state.lock:
            cluster = self.control.cluster(self._get_param("cluster"))
            task = self.control.stop_task(
                cluster, self._get_param("task"), self._get_param("reason")
            )
            return ActionResult({"task": task_shape(task)})

    def describe_tasks(self) -> ActionResult:
        """DescribeTasks, of at most a hundred."""
        references = self._get_param("tasks", [])
        if not references:
            raise InvalidParameterException("Tasks cannot be empty.")
        if len(references) > MAX_TASKS:
            raise InvalidParameterException(f"Tasks cannot have more than {MAX_TASKS} ids.")
        tasks, failures = [], []
        with self.state.lock:
            cluster = self.control.cluster(self._get_param("cluster"))
            for reference in references:
                task = self.control.task(cluster, reference)
                if task is None:
                    arn = cluster.arn.replace(":cluster/", ":task/")
                    failures.append({"arn": _arn_of(reference, arn), "reason": "MISSING"})
                    continue
                shape = task_shape(task)
                if "TAGS" not in self._get_param("include", []):
                    shape["tags"] = []
                tasks.append(shape)
        return ActionResult({"tasks": tasks, "failures": failures})

    def list_tasks(self) -> ActionResult:
        """ListTasks: those that are wanted to run unless desiredStatus says otherwise."""
        given = self._get_params()
        with self.state.lock:
            cluster = self.control.cluster(given.get("cluster"))
            if given.get("serviceName"):
                self.control.service(cluster, given["serviceName"])
            arns = [
                task.arn
                for task in self.state.tasks.values()
                if task.cluster_arn == cluster.arn and _wanted(task, given)
            ]
        return _listed("taskArns", arns, given)

    # --------------------------------------------------------------------- container instances

    def register_container_instance(self) -> ActionResult:
        """RegisterContainerInstance; ``totalResources`` counts here, which moto ignores."""
        result = super().register_container_instance()
        instance: Any = result.result["containerInstance"]
        for given in self._get_param("totalResources", []):
            for resource in (*instance.registered_resources, *instance.remaining_resources):
                if resource["name"] == given["name"]:
                    resource.update(given)
        self.state.wake.set()
        return result

    def list_container_instances(self) -> ActionResult:
        """ListContainerInstances, all but those of another status than asked for."""
        given = self._get_params()
        with self.state.lock:
            cluster = self.control.cluster(given.get("cluster"))
            arns = self.ecs_backend.list_container_instances(cluster.name, given.get("status"))
        return _listed("containerInstanceArns", arns, given)

    def update_container_instances_state(self) -> ActionResult:
        """UpdateContainerInstancesState, of at most ten: one that drains gets nothing new."""
        references = self._get_param("containerInstances", [])
        if not references:
            raise InvalidParameterException("Container instances cannot be empty.")
        if len(references) > MAX_STATES:
            raise InvalidParameterException(
                f"Container instances cannot have more than {MAX_STATES} ids."
            )
        with self.state.lock:
            cluster = self.control.cluster(self._get_param("cluster"))
            self.ecs_backend.container_instances.setdefault(cluster.name, {})
            result = super().update_container_instances_state()
        self.state.wake.set()
        return result

    def describe_container_instances(self) -> ActionResult:
        """DescribeContainerInstances, of at most a hundred, with what is really left."""
        if len(self._get_param("containerInstances", [])) > MAX_INSTANCES:
            raise InvalidParameterException("instanceIds can have at most 100 items.")
        with self.state.lock:
            cluster = self.control.cluster(self._get_param("cluster"))
            for instance in self.ecs_backend.container_instances.get(cluster.name, {}).values():
                update_resources(instance, self.state)
            self.ecs_backend.container_instances.setdefault(cluster.name, {})
            return super().describe_container_instances()

    def describe_clusters(self) -> ActionResult:
        """DescribeClusters, with real counts."""
        with self.state.lock:
            for cluster in self.ecs_backend.clusters.values():
                tasks = [t for t in self.state.tasks.values() if t.cluster_arn == cluster.arn]
                cluster.running_tasks_count = sum(t.last_status == "RUNNING" for t in tasks)
                cluster.pending_tasks_count = sum(t.last_status == "PENDING" for t in tasks)
                cluster.registered_container_instances_count = len(
                    self.ecs_backend.container_instances.get(cluster.name, {})
                )
                cluster.active_services_count = sum(
                    s.cluster_arn == cluster.arn and s.status == "ACTIVE"
                    for s in self.state.services.values()
                )
            return super().describe_clusters()

    # ------------------------------------------------------------------------------------ tags

    def list_tags_for_resource(self) -> ActionResult:
        with self.state.lock:
            return ActionResult({"tags": list(self._tags(self._get_param("resourceArn")))})

    def tag_resource(self) -> EmptyResult:
        with self.state.lock:
            tags = self._tags(self._get_param("resourceArn"))
            for tag in self._get_param("tags", []):
                tags[:] = [t for t in tags if t["key"] != tag["key"]] + [dict(tag)]
        return EmptyResult()

    def untag_resource(self) -> EmptyResult:
        with self.state.lock:
            tags = self._tags(self._get_param("resourceArn"))
            tags[:] = [t for t in tags if t["key"] not in self._get_param("tagKeys", [])]
        return EmptyResult()

    def _tags(self, arn: str) -> list[dict[str, str]]:
        """Find the tags of a resource; raises AWS's errors for one that is not there."""
        if arn in self.state.tasks:
            return self.state.tasks[arn].tags
        if arn in self.state.tags:
            return self.state.tags[arn]
        for cluster in self.ecs_backend.clusters.values():
            if cluster.arn == arn:
                return self.state.tags.setdefault(arn, list(cluster.tags or []))
        if ":task-definition/" in arn:
            raise TaskDefinitionNotFoundException
        raise InvalidParameterException(f"The specified resource was not found: {arn}")

    def _service(self, service: Service, *, tags: bool = False) -> dict[str, Any]:
        shape = service_shape(service, list(self.state.tasks_of(service)))
        if tags:
            shape["tags"] = self.state.tags.get(service.arn, [])
        return shape


def _refuse(_: EcsResponse) -> ActionResult:
    raise ECSException("UnsupportedFeatureException", "The sandbox does not simulate this.")


for _name in (
    "start_task",
    "create_task_set",
    "describe_task_sets",
    "update_task_set",
    "delete_task_set",
    "update_service_primary_task_set",
    "delete_task_definitions",
):
    setattr(EcsResponse, _name, _refuse)


def _wanted(task: Task, given: dict[str, Any]) -> bool:
    service = given.get("serviceName")
    instance = given.get("containerInstance")
    return (
        task.desired_status == (given.get("desiredStatus") or "RUNNING")
        and given.get("family") in (None, task.definition["family"])
        and given.get("startedBy") in (None, task.started_by)
        and given.get("launchType") in (None, task.launch_type)
        and (service is None or task.group == f"service:{service.rsplit('/', 1)[-1]}")
        and (
            instance is None
            or (
                task.instance is not None
                and task.instance.container_instance_arn.endswith(instance.rsplit("/", 1)[-1])
            )
        )
    )


def _arn_of(reference: str, prefix: str) -> str:
    return reference if reference.startswith("arn:") else f"{prefix}/{reference}"


def _listed(name: str, items: list[str], given: dict[str, Any]) -> ActionResult:
    shown, token = page(items, given)
    return ActionResult({name: shown, "nextToken": token} if token else {name: shown})
