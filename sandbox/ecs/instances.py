"""Container instances as ECS sees them: who registers, who is not heard of, who is gone.

AWS's habits:
  - an instance whose agent is not connected keeps its status and its tasks as they were last told,
    gets no new ones, and no task on it is stopped before the agent is back;
  - an agent that comes back (after a reboot) tells which containers have ended meanwhile;
  - the tasks of an instance that EC2 has terminated are STOPPED soon; the instance itself is
    deregistered a little later.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from sandbox.ecs.model import LastStatus, State, StopCode, Task
from sandbox.ecs.tasks import docker_name
from sandbox.world import World

RESOURCES = {"CPU": 2048, "MEMORY": 1953}
"""What an instance offers to tasks (CPU units and MiB): a t3.small without its agent's share."""

DEREGISTER_SECONDS = 2.0
END_SECONDS = 1.0


class Instances:
    """What the agents on the container instances tell ECS, by EC2 instance id."""

    def __init__(self, world: World, state: State) -> None:
        self._world = world
        self._state = state
        self._known: dict[str, Any] = {}

    def register(self, cluster: str, ec2_instance_id: str) -> str:
        """Register an instance, or connect one that has been there; its container instance ARN."""
        if ec2_instance_id not in self._known:
            answer = self._world.client("ecs").register_container_instance(
                cluster=cluster,
                instanceIdentityDocument=json.dumps({"instanceId": ec2_instance_id}),
                totalResources=[
                    {"name": name, "type": "INTEGER", "integerValue": amount}
                    for name, amount in RESOURCES.items()
                ],
            )
            arn = answer["containerInstance"]["containerInstanceArn"]
            instances = self._world.backend("ecs").container_instances[cluster]
            self._known[ec2_instance_id] = instances[arn.rpartition("/")[2]]
        instance = self._known[ec2_instance_id]
        with self._state.lock:
            instance.agent_connected = True
            self._state.wake.set()
        return str(instance.container_instance_arn)

    def disconnect(self, ec2_instance_id: str) -> None:
        """Nothing is heard of the agent any more; every container on the instance ends."""
        with self._state.lock:
            instance = self._known.get(ec2_instance_id)
            if instance is None:
                return
            instance.agent_connected = False
            for task in self._state.tasks_on(instance):
                for container in task.containers:
                    if container.running is not None:
                        container.running.kill()

    def terminated(self, ec2_instance_id: str) -> None:
        """EC2 has ended the instance: its tasks are over, and soon it is no instance of ours."""
        self.disconnect(ec2_instance_id)
        with self._state.lock:
            instance = self._known.pop(ec2_instance_id, None)
            if instance is None:
                return
            for task in list(self._state.tasks_on(instance)):
                self._end(task, f"Host EC2 (instance {ec2_instance_id}) terminated.")
            self._state.wake.set()
        threading.Thread(target=self._deregister, args=(instance,), daemon=True).start()

    def _deregister(self, instance: Any) -> None:
        if self._world.stopping.wait(DEREGISTER_SECONDS):
            return
        with self._state.lock:
            for cluster in self._world.backend("ecs").container_instances.values():
                cluster.pop(instance.id, None)

    def _end(self, task: Task, reason: str) -> None:
        task.stop_code = task.stop_code or StopCode.TERMINATION_NOTICE
        task.stopped_reason = task.stopped_reason or reason
        task.desired_status = "STOPPED"
        backend = self._world.backend("elbv2")
        for registration in task.registrations:
            if registration.group_arn in backend.target_groups:
                backend.deregister_targets(registration.group_arn, [registration.target])
        for container in task.containers:
            container.status = "STOPPED"
            deadline = time.monotonic() + END_SECONDS
            while container.running is not None and container.running.exit_code is None:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.005)
        task.stopped_since = time.monotonic()
        task.move(LastStatus.STOPPED, "stoppingAt", "executionStoppedAt", "stoppedAt")

    def container_instance(self, ec2_instance_id: str) -> Any | None:
        """moto's container instance of an EC2 instance; None before it has registered."""
        return self._known.get(ec2_instance_id)

    def tasks_on(self, ec2_instance_id: str) -> int:
        """How many tasks were placed on an instance and are not over."""
        with self._state.lock:
            instance = self._known.get(ec2_instance_id)
            return 0 if instance is None else len(list(self._state.tasks_on(instance)))

    def agent_tasks(self, ec2_instance_id: str) -> list[dict[str, Any]]:
        """``Tasks`` of the agent's introspection API."""
        with self._state.lock:
            instance = self._known.get(ec2_instance_id)
            if instance is None:
                return []
            return [
                _agent_task(task)
                for task in self._state.tasks.values()
                if task.instance is instance and task.last_status is not LastStatus.PROVISIONING
            ]


def _agent_task(task: Task) -> dict[str, Any]:
    """A task as the agent shows it: it hears of a stop only when the targets have drained."""
    known = "STOPPED" if task.stopped else "RUNNING" if _runs(task) else "PENDING"
    told = task.last_status in (LastStatus.STOPPING, LastStatus.DEPROVISIONING, LastStatus.STOPPED)
    return {
        "Arn": task.arn,
        "DesiredStatus": "STOPPED" if told else "RUNNING",
        "KnownStatus": known,
        "Family": task.definition["family"],
        "Version": str(task.definition["revision"]),
        "Containers": [
            {
                "DockerId": container.running.runtime_id if container.running else "",
                "DockerName": docker_name(task, container),
                "Name": container.name,
                "Ports": [
                    {
                        "ContainerPort": binding["containerPort"],
                        "Protocol": binding["protocol"],
                        "HostPort": binding["hostPort"],
                    }
                    for binding in container.bindings
                ],
                **_networks(task),
            }
            for container in task.containers
        ],
    }


def _networks(task: Task) -> dict[str, Any]:
    """``Networks``, which the agent has for a task with a network interface of its own only."""
    if task.definition.get("networkMode") != "awsvpc":
        return {}
    return {"Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": [task.address]}]}


def _runs(task: Task) -> bool:
    return task.last_status in (
        LastStatus.RUNNING,
        LastStatus.DEACTIVATING,
        LastStatus.STOPPING,
        LastStatus.DEPROVISIONING,
    )
