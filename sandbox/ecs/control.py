"""The control plane: what the ECS operations do to the state.

AWS's habits:
  - UpdateService with another task definition, forceNewDeployment or other settings that tasks
    inherit makes a new PRIMARY deployment; with only another desiredCount it does not;
  - a load balancer of a service has to name a container and port of the task definition, and a
    target group that is on a load balancer;
  - creating a service that exists is refused, updating one that is gone too.
"""

from __future__ import annotations

import copy
import secrets
import uuid
from typing import Any

from moto.ecs.exceptions import (
    ECSException,
    InvalidParameterException,
    ServiceNotFoundException,
)

from sandbox.ecs import providers
from sandbox.ecs.definitions import TaskDefinitions
from sandbox.ecs.model import (
    ContainerState,
    Definition,
    Deployment,
    LastStatus,
    Service,
    State,
    StopCode,
    Task,
)
from sandbox.ecs.placement import NoRoomError, choose_instance, free_port
from sandbox.ecs.tasks import TaskRunner
from sandbox.world import World

NEW_DEPLOYMENT = (
    "loadBalancers",
    "networkConfiguration",
    "capacityProviderStrategy",
    "platformVersion",
    "propagateTags",
    "enableECSManagedTags",
    "enableExecuteCommand",
)
"""What tasks get from their service: changing it replaces them."""

AWSVPC_ADDRESSES = range(100, 200)
"""The last number of the address of a task with a network interface of its own."""


class Control:
    """What is behind the operations; every method expects the state to be locked."""

    def __init__(self, world: World, state: State, definitions: TaskDefinitions) -> None:
        self._world = world
        self._state = state
        self._definitions = definitions
        self.runner: TaskRunner  # set by install: the two need each other

    def create_service(self, cluster: Any, given: dict[str, Any]) -> Service:
        """Create a service in moto's ``cluster``."""
        name = given.get("serviceName") or ""
        if not name:
            raise InvalidParameterException("Service name cannot be empty.")
        if given.get("schedulingStrategy", "REPLICA") != "REPLICA":
            raise InvalidParameterException("the sandbox schedules REPLICA services only")
        arn = self._arn("service", cluster.name, name)
        existing = self._state.services.get(arn)
        if existing is not None and existing.status != "INACTIVE":
            raise InvalidParameterException("Creation of service was not idempotent.")
        definition = self._definitions.find_active(given.get("taskDefinition") or "")
        settings = copy.deepcopy(given) | providers.choose(cluster, given)
        self._check_load_balancers(settings, definition)
        service = Service(
            arn=arn,
            name=name,
            cluster_arn=cluster.arn,
            desired_count=int(given.get("desiredCount") or 0),
            settings=settings,
            deployments=[],
        )
        self._deploy(service, definition)
        self._state.services[arn] = service
        self._state.tags[arn] = settings.pop("tags", None) or []
        self._state.wake.set()
        return service

    def update_service(self, cluster: Any, given: dict[str, Any]) -> Service:
        """Change a service; see NEW_DEPLOYMENT for what replaces its tasks."""
        service = self.service(cluster, given.get("service") or "")
        if service.status != "ACTIVE":
            raise ECSException("ServiceNotActiveException", "Service was not ACTIVE.")
        reference = given.get("taskDefinition")
        definition = service.primary.definition
        if reference:
            definition = self._definitions.find_active(reference)
        changes = {
            key: copy.deepcopy(value)
            for key, value in given.items()
            if key not in ("cluster", "service", "taskDefinition", "forceNewDeployment")
            and key != "desiredCount"
        }
        if "capacityProviderStrategy" in changes:
            changes |= providers.choose(cluster, changes)
        settings = service.settings | changes
        self._check_load_balancers(settings, definition)
        replace = (
            bool(given.get("forceNewDeployment"))
            or definition is not service.primary.definition
            or any(settings.get(key) != service.settings.get(key) for key in NEW_DEPLOYMENT)
        )
        service.settings = settings
        if given.get("desiredCount") is not None:
            service.desired_count = int(given["desiredCount"])
        if replace:
            self._deploy(service, definition)
        service.primary.desired_count = service.desired_count
        service.steady = False
        self._state.wake.set()
        return service

    def delete_service(self, cluster: Any, name: str, *, force: bool) -> Service:
        """Delete a service: its tasks are stopped, then it is INACTIVE."""
        service = self.service(cluster, name)
        if service.desired_count > 0 and not force:
            raise InvalidParameterException(
                "The service cannot be stopped while it is scaled above 0."
            )
        service.desired_count = 0
        service.status = "DRAINING"
        self._state.wake.set()
        return service

    def service(self, cluster: Any, reference: str) -> Service:
        """Find a service by name or ARN; raises ServiceNotFoundException."""
        arn = self._arn("service", cluster.name, reference.rsplit("/", 1)[-1])
        service = self._state.services.get(arn)
        if service is None:
            raise ServiceNotFoundException
        return service

    def task(self, cluster: Any, reference: str) -> Task | None:
        """Find a task by id or ARN."""
        return self._state.tasks.get(self._arn("task", cluster.name, reference.rsplit("/", 1)[-1]))

    def stop_task(self, cluster: Any, reference: str, reason: str | None) -> Task:
        """Stop a task by hand."""
        task = self.task(cluster, reference)
        if task is None:
            raise InvalidParameterException("The referenced task was not found.")
        self.runner.stop(task, StopCode.USER_INITIATED, reason or "Task stopped by user")
        self._state.wake.set()
        return task

    def run_task(
        self, cluster: Any, given: dict[str, Any]
    ) -> tuple[list[Task], list[dict[str, str]]]:
        """Start tasks that belong to no service; returns them and the placement failures."""
        definition = self._definitions.find_active(given.get("taskDefinition") or "")
        overrides = copy.deepcopy(given.get("overrides") or {})
        _check_overrides(definition, overrides)
        settings = given | providers.choose(cluster, given)
        _check_launch(definition, settings)
        tags = copy.deepcopy(given.get("tags") or [])
        if given.get("propagateTags") == "TASK_DEFINITION":
            own = {tag["key"] for tag in tags}
            inherited = self._state.tags.get(definition["taskDefinitionArn"], [])
            tags = [dict(tag) for tag in inherited if tag["key"] not in own] + tags
        tasks: list[Task] = []
        failures: list[dict[str, str]] = []
        for _ in range(int(given.get("count") or 1)):
            try:
                task = self.start_task(
                    cluster,
                    definition,
                    group=given.get("group") or f"family:{definition['family']}",
                    settings=settings,
                )
            except NoRoomError as error:
                if not error.reasons:
                    raise InvalidParameterException(
                        "No Container Instances were found in your cluster."
                    ) from error
                failures += [
                    {"arn": arn or cluster.arn, "reason": why} for arn, why in error.reasons.items()
                ]
                continue
            task.started_by = given.get("startedBy")
            task.overrides = overrides
            task.tags = list(tags)
            tasks.append(task)
        self._state.wake.set()
        return tasks, failures

    def start_service_task(self, service: Service, deployment: Deployment) -> Task:
        """Start one more task of a deployment; raises NoRoomError."""
        cluster = self.cluster(service.cluster_arn)
        task = self.start_task(
            cluster,
            deployment.definition,
            group=f"service:{service.name}",
            settings=service.settings,
        )
        task.service = service
        task.started_by = deployment.id
        match service.settings.get("propagateTags"):
            case "SERVICE":
                task.tags = list(self._state.tags.get(service.arn, []))
            case "TASK_DEFINITION":
                arn = deployment.definition["taskDefinitionArn"]
                task.tags = list(self._state.tags.get(arn, []))
        return task

    def cluster(self, reference: str | None) -> Any:
        """Return moto's cluster; raises ClusterNotFoundException."""
        return self._world.backend("ecs")._get_cluster(reference or "default")

    def start_task(
        self, cluster: Any, definition: Definition, *, group: str, settings: dict[str, Any]
    ) -> Task:
        """Place a task and begin its life; raises NoRoomError."""
        launch_type = settings.get("launchType") or "EC2"
        awsvpc = definition.get("networkMode") == "awsvpc"
        instance = None
        if launch_type != "FARGATE":
            instances = list(
                self._world.backend("ecs").container_instances.get(cluster.name, {}).values()
            )
            constraints = [
                *definition["placementConstraints"],
                *(settings.get("placementConstraints") or []),
            ]
            instance = choose_instance(definition, instances, self._state, group, constraints)
        attachments: list[dict[str, Any]] = []
        if awsvpc:
            address = self._free_address()
            attachments = [_network_interface(address, settings)]
        else:
            assert instance is not None  # Fargate tasks are awsvpc
            ec2 = self._world.backend("ec2").get_instance_by_id(instance.ec2_instance_id)
            address = str(ec2.private_ip)
        task = Task(
            arn=self._arn("task", cluster.name, uuid.uuid4().hex),
            cluster_arn=cluster.arn,
            definition=definition,
            group=group,
            started_by=None,
            launch_type=launch_type,
            address=address,
            instance=instance,
            containers=[],
            attachments=attachments,
        )
        task.move(LastStatus.PROVISIONING, "createdAt")
        taken = (
            {p for t in self._state.tasks_on(instance) for p in t.ports()} if instance else set()
        )
        for container in definition["containerDefinitions"]:
            arn = self._arn("container", f"{cluster.name}/{task.id}", str(uuid.uuid4()))
            task.containers.append(ContainerState(container, arn, _bind(container, address, taken)))
        self._state.tasks[task.arn] = task
        return task

    def _deploy(self, service: Service, definition: Definition) -> None:
        """Make a new PRIMARY deployment; those before become ACTIVE until they are drained."""
        for deployment in service.deployments:
            deployment.status = "ACTIVE"
        strategy = "capacityProviderStrategy"
        placed_by = strategy if service.settings[strategy] else "launchType"
        inherited = (placed_by, "platformVersion", "networkConfiguration")
        deployment = Deployment(
            id=f"ecs-svc/{secrets.randbelow(9 * 10**18) + 10**18}",
            definition=definition,
            desired_count=service.desired_count,
            settings={k: service.settings[k] for k in inherited if service.settings.get(k)},
        )
        service.deployments.insert(0, deployment)
        service.steady = False

    def _check_load_balancers(self, settings: dict[str, Any], definition: Definition) -> None:
        containers = {c["name"]: c for c in definition["containerDefinitions"]}
        backend = self._world.backend("elbv2")
        for balancer in settings.get("loadBalancers") or []:
            name, port = balancer.get("containerName"), int(balancer.get("containerPort") or 0)
            if name not in containers:
                raise InvalidParameterException(
                    f"The container {name} does not exist in the task definition."
                )
            if port not in {int(m["containerPort"]) for m in containers[name]["portMappings"]}:
                raise InvalidParameterException(
                    f"The container {name} did not have a container port {port} defined."
                )
            arn = balancer.get("targetGroupArn")
            group = backend.target_groups.get(arn)
            if group is None:
                raise InvalidParameterException(
                    f"Unable to assume role and validate the specified targetGroupArn {arn}."
                )
            if not group.load_balancer_arns:
                raise InvalidParameterException(
                    f"The target group with targetGroupArn {arn} does not have an associated load "
                    "balancer."
                )
            if (group.target_type == "ip") != (definition.get("networkMode") == "awsvpc"):
                raise InvalidParameterException(
                    f"The provided target group {arn} has target type {group.target_type}, which "
                    "is incompatible with the network mode of the task definition."
                )

    def _free_address(self) -> str:
        used = {task.address for task in self._state.tasks.values() if not task.stopped}
        for number in AWSVPC_ADDRESSES:
            address = f"{self._world.network}.{number}"
            if address not in used:
                return address
        raise NoRoomError("Reason: RESOURCE:ENI.", {"": "RESOURCE:ENI"})

    def _arn(self, kind: str, cluster: str, name: str) -> str:
        return f"arn:aws:ecs:{self._world.region}:{self._world.account_id}:{kind}/{cluster}/{name}"


def _check_overrides(definition: Definition, overrides: dict[str, Any]) -> None:
    """Raise InvalidParameterException for an override of a container that there is not."""
    names = {container["name"] for container in definition["containerDefinitions"]}
    for override in overrides.get("containerOverrides", []):
        if override.get("name") not in names:
            raise InvalidParameterException(
                f"Override for container named {override.get('name')} is not a container in the "
                "TaskDefinition."
            )


def _check_launch(definition: Definition, settings: dict[str, Any]) -> None:
    if settings["launchType"] == "FARGATE" and "FARGATE" not in definition["compatibilities"]:
        raise InvalidParameterException("Task definition does not support launch_type FARGATE.")
    if settings.get("networkConfiguration") and definition.get("networkMode") != "awsvpc":
        raise InvalidParameterException(
            "Network Configuration is not valid for the given networkMode of this task definition."
        )


def _bind(container: dict[str, Any], address: str, taken: set[int]) -> list[dict[str, Any]]:
    """Give each port mapping of a container its host port."""
    bindings = []
    for mapping in container["portMappings"]:
        port = int(mapping["hostPort"]) or free_port(address, taken)
        taken.add(port)
        bindings.append(
            {
                "containerPort": int(mapping["containerPort"]),
                "hostPort": port,
                "protocol": mapping["protocol"],
            }
        )
    return bindings


def _network_interface(address: str, settings: dict[str, Any]) -> dict[str, Any]:
    configuration = (settings.get("networkConfiguration") or {}).get("awsvpcConfiguration")
    if not configuration:
        raise InvalidParameterException(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified."
        )
    return {
        "id": str(uuid.uuid4()),
        "type": "ElasticNetworkInterface",
        "status": "ATTACHED",
        "details": [
            {"name": "subnetId", "value": configuration["subnets"][0]},
            {"name": "networkInterfaceId", "value": f"eni-{secrets.token_hex(8)}"},
            {"name": "privateIPv4Address", "value": address},
        ],
    }


def page(items: list[str], given: dict[str, Any], most: int = 100) -> tuple[list[str], str | None]:
    """Cut one page of a list: ``maxResults`` and ``nextToken`` as every ECS list has them."""
    size = int(given.get("maxResults") or most)
    if not 1 <= size <= most:
        raise InvalidParameterException(f"maxResults must be between 1 and {most}")
    token = given.get("nextToken") or "0"
    if not token.isdigit():
        raise InvalidParameterException("Invalid token")
    start = int(token)
    following = start + size
    return items[start:following], str(following) if following < len(items) else None
