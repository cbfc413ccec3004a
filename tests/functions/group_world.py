"""The small AWS of world.py with the pattern two-clusters: each colour has a cluster and an Auto
Scaling group of its own, blue live with two tasks on two hosts.

moto's Auto Scaling launches and ends instances inside the call, and checks little. Here, as in AWS,
both happen later (``goes_on``), protection and suspended processes are obeyed, and activities tell
what became of each launch.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup
from moto.autoscaling.responses import AutoScalingResponse
from moto.backends import get_backend
from moto.core.responses import ActionResult
from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import EC2ContainerServiceBackend

from bluegreen.color import Color
from runtime import clients
from tests.functions.host_world import KEYS
from tests.functions.world import ACCOUNT, BLUE, DEFINITION, REGION, World

# Fewer than AWS's hundred, so that a second page is read too.
ACTIVITIES_PER_PAGE = 2
PROTECTIONS_PER_CALL = 50
STATES_PER_CALL = 10
TASKS_PER_HOST = 4
NO_CAPACITY = (
    "We currently do not have sufficient t3.small capacity in the Availability Zone you requested "
    "(eu-west-1a). Launching EC2 instance failed."
)
NO_IMAGE = "The AMI ID ami-12345678 does not exist. Launching EC2 instance failed."
LEAVING = ("Terminating", "Terminating:Wait")


def group_name(color: Color) -> str:
    return f"web-{color}"


@dataclass
class GroupWorld(World):
    """cannot_launch: group → why its launches fail. stays: groups whose terminating hook nobody
    completes. silent: how many of the next instances never register. lost: ids of those.
    activities: group → newest first.
    """

    cannot_launch: dict[Color, str] = field(default_factory=dict)
    stays: set[Color] = field(default_factory=set)
    silent: int = 0
    lost: set[str] = field(default_factory=set)
    activities: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    # Making it

    def build(self) -> Self:
        backend: Any = "autoscaling"
        get_backend(backend)[ACCOUNT][REGION].reset()
        super().build()
        self.health = {color: ["healthy"] * len(self.tasks(color)) for color in Color}
        return self

    def _strengthen(self) -> None:
        super()._strengthen()

        def later(group: Any, capacity: int | None) -> None:
            group.desired_capacity = group.min_size if capacity is None else capacity

        def list_activities(response: Any) -> ActionResult:
            found = self.activities.get(response._get_param("AutoScalingGroupName"), [])
            start = int(response._get_param("NextToken") or 0)
            end = start + ACTIVITIES_PER_PAGE
            more = {"NextToken": str(end)} if end < len(found) else {}
            return ActionResult({"Activities": found[start:end]} | more)

        set_states = EC2ContainerServiceBackend.update_container_instances_state

        def at_most_ten(backend: Any, cluster: str, hosts: list[str], status: str) -> Any:
            if len(hosts) > STATES_PER_CALL:
                raise InvalidParameterException("instanceIds can have at most 10 items.")
            return set_states(backend, cluster, hosts, status)

        for holder, name, method in (
            (EC2ContainerServiceBackend, "update_container_instances_state", at_most_ten),
            (FakeAutoScalingGroup, "set_desired_capacity", later),
            (FakeAutoScalingGroup, "update", _update),
            (AutoScalingBackend, "set_instance_protection", _protect),
            (AutoScalingResponse, "describe_scaling_activities", list_activities),
        ):
            self.monkeypatch.setattr(holder, name, method)

    def _cluster(self) -> None:
        ecs, scaling = clients.ecs(), clients.autoscaling()
        definition = copy.deepcopy(DEFINITION)
        container = definition["containerDefinitions"][0]
        container["cpu"], container["portMappings"][0]["hostPort"] = 256, 0
        first = ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
        scaling.create_launch_configuration(
            LaunchConfigurationName="web", ImageId="ami-12345678", InstanceType="t3.small"
        )
        for color in Color:
            cluster, service = self.place(color)
            ecs.create_cluster(clusterName=cluster)
            ecs.create_service(
                cluster=cluster,
                serviceName=service,
                taskDefinition=first,
                desiredCount=0,
                launchType="EC2",
                loadBalancers=[{"targetGroupArn": self.groups[color], "containerPort": 8000}],
            )
            scaling.create_auto_scaling_group(
                AutoScalingGroupName=group_name(color),
                LaunchConfigurationName="web",
                VPCZoneIdentifier=self.account.subnets[0],
                MinSize=0,
                MaxSize=6,
                Tags=[{"Key": "ecs-bluegreen", "Value": "group", "PropagateAtLaunch": False}],
            )
        self.resize(BLUE, 2)
        self.scale(BLUE, 2)
        for _ in range(3):
            self.goes_on()

    def configure(self, **sections: Any) -> None:
        """With the pattern two-clusters and no probe, unless other sections are given."""
        colors = {
            str(color): {
                "cluster": self.place(color)[0],
                "ecs_service": self.place(color)[1],
                "auto_scaling_group": group_name(color),
                "target_group": f"web-{color}",
            }
            for color in Color
        }
        super().configure(**{"pattern": "two-clusters", "colors": colors, "probe": None} | sections)

    def place(self, color: Color) -> tuple[str, str]:
        return f"web-{color}", "web"

    # What people and other programs do

    def resize(self, color: Color, desired: int, **more: Any) -> None:
        """A scaling policy or a person sets a group's sizes; more: MinSize, MaxSize."""
        clients.autoscaling().update_auto_scaling_group(
            AutoScalingGroupName=group_name(color), DesiredCapacity=desired, **more
        )

    def suspend(self, color: Color, *processes: Any) -> None:
        clients.autoscaling().suspend_processes(
            AutoScalingGroupName=group_name(color), ScalingProcesses=processes
        )

    def resume(self, color: Color, *processes: Any) -> None:
        clients.autoscaling().resume_processes(
            AutoScalingGroupName=group_name(color), ScalingProcesses=processes
        )

    def alarm(self, color: Color, desired: int) -> None:
        """What a scaling policy does when its alarm goes off, unless it is not told of it."""
        if "AlarmNotification" not in self.suspended_processes(color):
            self.resize(color, desired)

    def provide(self, color: Color, *names: str) -> None:
        """Place a service with capacity providers; moto keeps a launch type only."""
        service = self.backend.services[":".join(self.place(color))]
        service.launch_type = None
        service.capacity_provider_strategy = [
            {"capacityProvider": name, "weight": 1, "base": 0} for name in names
        ]

    def add_provider(self, name: str, color: Color, *, managed: bool = True) -> None:
        """A capacity provider of a colour's group."""
        clients.ecs().create_capacity_provider(
            name=name,
            autoScalingGroupProvider={
                "autoScalingGroupArn": self._group(color).arn,
                "managedScaling": {"status": "ENABLED" if managed else "DISABLED"},
            },
        )

    def managed(self) -> None:
        """Both services have a capacity provider of their own group, with managed scaling."""
        for color in Color:
            self.add_provider(f"cp-{color}", color)
            self.provide(color, f"cp-{color}")

    def protect(self, color: Color) -> None:
        """All instances that a group has now are protected from scale-in."""
        for one in self._group(color).instance_states:
            one.protected_from_scale_in = True

    # What Auto Scaling and ECS do by and by

    def goes_on(self) -> None:
        """A round of both: what had begun is over, and what is wanted now begins."""
        for color in Color:
            self._scale_group(color)
            self.hosts_register(color)
            self._run_tasks(color)

    def _scale_group(self, color: Color) -> None:
        group = self._group(color)
        for one in list(group.instance_states):
            if one.lifecycle_state == "Pending":
                one.lifecycle_state = "InService"
            elif one.lifecycle_state in LEAVING and color not in self.stays:
                self._ends(color, one)
            elif one.lifecycle_state in LEAVING:
                one.lifecycle_state = "Terminating:Wait"
        staying = [one for one in group.instance_states if one.lifecycle_state not in LEAVING]
        suspended = self.suspended_processes(color)
        if "Launch" not in suspended:
            for _ in range(group.desired_capacity - len(staying)):
                self._launch(color, group)
        if "Terminate" not in suspended:
            free = [one for one in staying if not one.protected_from_scale_in]
            for one in free[: max(0, len(staying) - group.desired_capacity)]:
                one.lifecycle_state = "Terminating"

    def _launch(self, color: Color, group: Any) -> None:
        if why := self.cannot_launch.get(color):
            text = f"Launching a new EC2 instance.  Status Reason: {why}"
            self.note(color, text, "Failed", StatusMessage=why)
            return
        group.replace_autoscaling_group_instances(1, {})
        made = group.instance_states[-1]
        made.lifecycle_state = "Pending"
        self.note(color, f"Launching a new EC2 instance: {made.instance_id}", "Successful")
        if self.silent:
            self.silent -= 1
            self.lost.add(made.instance_id)

    def note(self, color: Color, description: str, status: str, **more: str) -> None:
        """A scaling activity that began, and ended so, just now."""
        past = self.activities.setdefault(group_name(color), [])
        past.insert(
            0,
            {
                "ActivityId": f"a-{len(past) + 1}",
                "AutoScalingGroupName": group_name(color),
                "Description": description,
                "Cause": "a difference between desired and actual capacity",
                "StartTime": datetime.datetime.fromtimestamp(self.now, datetime.UTC),
                "StatusCode": status,
            }
            | more,
        )

    def _ends(self, color: Color, state: Any) -> None:
        """EC2 terminates an instance: its tasks stop, and ECS forgets the host."""
        self._group(color).instance_states.remove(state)
        clients.ec2().terminate_instances(InstanceIds=[state.instance_id])
        for host in self.hosts(color):
            if host.ec2_instance_id != state.instance_id:
                continue
            for task in self.tasks(color):
                if task.container_instance_arn == host.container_instance_arn:
                    self._stops(task)
            del self._registered(color)[host.id]

    def hosts_register(self, color: Color) -> None:
        """The agents on the instances that are in service join the colour's cluster."""
        known = {host.ec2_instance_id for host in self.hosts(color)} | self.lost
        for instance_id, state in self.instances(color).items():
            if state != "InService" or instance_id in known:
                continue
            host = self.backend.register_container_instance(self.place(color)[0], instance_id)
            for resources in (host.registered_resources, host.remaining_resources):
                resources[0]["integerValue"] = 256 * TASKS_PER_HOST

    def _run_tasks(self, color: Color) -> None:
        """As many tasks as the service wants, where there is room; a target for each."""
        service = self.service(color)
        running = self.tasks(color)
        for task in running[service["desiredCount"] :]:
            self._stops(task)
        if "draining" in self.health.get(color, []):
            self.health[color] = []
        for _ in range(service["desiredCount"] - len(running)):
            host = next((one for one in self.hosts(color) if _has_room(one)), None)
            if host is None:
                break
            self.health[color] = ["healthy"] * (len(self.tasks(color)) + 1)
            host.remaining_resources[0]["integerValue"] -= 256
            self.add_task(
                color,
                started_by=service["deployments"][0]["id"],
                container_instance_arn=host.container_instance_arn,
                last_status="RUNNING",
            )
        if not self.tasks(color):
            self.health[color] = []

    def _stops(self, task: Any) -> None:
        task.last_status = task.desired_status = "STOPPED"
        for color in Color:
            for host in self.hosts(color):
                if host.container_instance_arn == task.container_instance_arn:
                    host.remaining_resources[0]["integerValue"] += 256

    # Running functions

    def until_over(
        self,
        state: str,
        data: dict[str, Any],
        execution: str = "d-1",
        each: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Passes of a state until it does not wait any more, the world going on in between.

        each: what is looked at, or happens, after each pass.
        """
        for _ in range(400):
            data[KEYS[state]] = self.run(state, data, execution)
            answer: dict[str, Any] = data[KEYS[state]]
            each()
            if answer["status"] != "waiting":
                return answer
            self.goes_on()
            self.now += answer["wait_seconds"]
        raise AssertionError(f"does not end: {answer}")

    def registered(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        """After RegisterTaskDefinition."""
        data = self.plan(execution, **request)
        data["task_definition"] = self.run("register_task_definition", data, execution)
        return data

    def started(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        data = self.registered(execution, **request)
        assert self.until_over("start_idle_color", data, execution)["status"] == "started"
        self.goes_on()
        return data

    def live_on_green(self) -> dict[str, Any]:
        """After a whole deployment: its old hosts have ended, and its lock is free."""
        data = self.baked()
        assert self.until_over("drain_old_color", data)["status"] == "done"
        self.run("record_outcome", data)
        return data

    # Looking

    def _group(self, color: Color) -> Any:
        backend: Any = "autoscaling"
        return get_backend(backend)[ACCOUNT][REGION].autoscaling_groups[group_name(color)]

    def _registered(self, color: Color) -> dict[str, Any]:
        found: dict[str, Any] = self.backend.container_instances.get(self.place(color)[0], {})
        return found

    def instances(self, color: Color) -> dict[str, str]:
        """Id → lifecycle state of all instances in a colour's group."""
        return {one.instance_id: one.lifecycle_state for one in self._group(color).instance_states}

    def hosts(self, color: Color) -> list[Any]:
        """moto's container instances in a colour's cluster."""
        return list(self._registered(color).values())

    def tasks(self, color: Color) -> list[Any]:
        """moto's tasks of a colour that have not stopped."""
        tasks = self.backend.tasks.get(self.place(color)[0], {}).values()
        return [one for one in tasks if one.last_status != "STOPPED"]

    def sizes(self, color: Color) -> tuple[int, int]:
        """A group's minimum and desired capacity."""
        group = self._group(color)
        return group.min_size, group.desired_capacity

    def suspended_processes(self, color: Color) -> set[str]:
        return {one["ProcessName"] for one in self._group(color).suspended_processes}


def _update(
    group: Any,
    *,
    desired_capacity: int | None,
    max_size: int | None,
    min_size: int | None,
    **_: Any,
) -> None:
    """Sizes have to fit together; nothing is launched or ended yet."""
    low = group.min_size if min_size is None else min_size
    high = group.max_size if max_size is None else max_size
    kept = min(max(group.desired_capacity, low), high)
    desired = kept if desired_capacity is None else desired_capacity
    if not low <= desired <= high:
        raise ValidationError(
            f"Desired capacity:{desired} must be between the specified min size:{low} and max "
            f"size:{high}"
        )
    group.min_size, group.max_size, group.desired_capacity = low, high, desired


def _protect(backend: Any, group_name: str, instance_ids: list[str], protected: bool) -> None:
    if len(instance_ids) > PROTECTIONS_PER_CALL:
        raise ValidationError("Member must have length less than or equal to 50")
    known = {one.instance_id: one for one in backend.autoscaling_groups[group_name].instance_states}
    for instance_id in instance_ids:
        if known[instance_id].lifecycle_state not in ("InService", "EnteringStandby", "Standby"):
            raise ValidationError(
                f"The instance {instance_id} is not in InService or EnteringStandby or Standby."
            )
    for instance_id in instance_ids:
        known[instance_id].protected_from_scale_in = protected


def _has_room(host: Any) -> bool:
    left: int = host.remaining_resources[0]["integerValue"]
    return left >= 256 and host.status == "ACTIVE" and host.agent_connected
