"""A sandbox of the pattern two-clusters, as a test sees it: two groups of hosts, one live."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import requests

from tests.e2e.running import Running

HOSTS = 2
MAX_SIZE = 6
QUICK = {"health.initial_count": HOSTS, "infrastructure.MaxSize": MAX_SIZE}
# Of a Classic Load Balancer.
CLASSIC = {"router.overlap_seconds": 1}
COLORS = ("blue", "green")


class RunningGroups(Running):
    """Weights are the listener's, or which groups a Classic Load Balancer has attached."""

    # What people and tests do

    def put_in_order(self) -> None:
        """A live colour on as many hosts as at first, and none of the other one."""
        self.control("DELETE", "faults", {})
        if not any(desired for desired, _ in self.counts().values()):
            ended = self.deploy("v1")
            assert ended.succeeded, ended.cause
        live = self.live()
        if self.group(live)["desired"] != HOSTS:
            self.resize(live, HOSTS)
            self.wait_for(lambda: len(self.instances(live)) == HOSTS)
        if self.counts()[live] != (HOSTS, HOSTS):
            ecs = self.client("ecs")
            ecs.update_service(cluster=f"web-{live}", service="web", desiredCount=HOSTS)
            self.wait_for(lambda: self.counts()[live] == (HOSTS, HOSTS))
        self.wait_for(lambda: requests.get(self.url, timeout=5).ok)
        idle = other(live)
        self.client("ecs").update_service(cluster=f"web-{idle}", service="web", desiredCount=0)
        self.resize(idle, 0)
        self.wait_for(lambda: not self.instances(idle))

    def resize(self, color: str, desired: int) -> None:
        """Somebody sets the desired capacity of a group."""
        self.client("autoscaling").update_auto_scaling_group(
            AutoScalingGroupName=f"web-{color}", DesiredCapacity=desired
        )

    def protect(self, color: str, *, protected: bool = True) -> None:
        """Protect all instances of a colour from scale-in, as a capacity provider does."""
        autoscaling, name = self.client("autoscaling"), f"web-{color}"

        def states() -> set[str]:
            found = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
            instances = found["AutoScalingGroups"][0]["Instances"]
            return {one["LifecycleState"] for one in instances}

        self.wait_for(lambda: states() <= {"InService"})
        if instances := self.instances(color):
            autoscaling.set_instance_protection(
                AutoScalingGroupName=name,
                InstanceIds=instances,
                ProtectedFromScaleIn=protected,
            )

    @contextmanager
    def managed_scaling(self) -> Iterator[None]:
        """For a while both services are placed by a capacity provider of their own group, which
        ECS sizes and protects.
        """
        ecs, autoscaling = self.client("ecs"), self.client("autoscaling")
        for color in COLORS:
            [group] = autoscaling.describe_auto_scaling_groups(
                AutoScalingGroupNames=[f"web-{color}"]
            )["AutoScalingGroups"]
            ecs.create_capacity_provider(
                name=f"cp-{color}",
                autoScalingGroupProvider={
                    "autoScalingGroupArn": group["AutoScalingGroupARN"],
                    "managedScaling": {"status": "ENABLED", "targetCapacity": 100},
                    "managedTerminationProtection": "ENABLED",
                },
            )
            self._place(color, [f"cp-{color}"])
        try:
            yield
        finally:
            for color in COLORS:
                self._place(color, [])
                ecs.delete_capacity_provider(capacityProvider=f"cp-{color}")

    def _place(self, color: str, providers: list[str]) -> None:
        """Place a service with capacity providers, or with none; its tasks are started anew."""
        ecs, cluster = self.client("ecs"), f"web-{color}"
        desired = self.counts()[color][0]
        self.scale(color, 0)
        self.wait_for(lambda: self.counts()[color] == (0, 0))
        if providers:
            self._associate(color, providers)
        ecs.update_service(
            cluster=cluster,
            service="web",
            capacityProviderStrategy=[{"capacityProvider": one, "weight": 1} for one in providers],
        )
        if not providers:
            self._associate(color, providers)
        # Whoever sizes the group from now on, its hosts may go.
        self.client("autoscaling").update_auto_scaling_group(
            AutoScalingGroupName=cluster, NewInstancesProtectedFromScaleIn=bool(providers)
        )
        self.protect(color, protected=bool(providers))
        self.scale(color, desired)
        self.wait_for(lambda: self.counts()[color] == (desired, desired))
        self.wait_for(lambda: self.healthy(color) == desired)

    def _associate(self, color: str, providers: list[str]) -> None:
        self.client("ecs").put_cluster_capacity_providers(
            cluster=f"web-{color}",
            capacityProviders=providers,
            defaultCapacityProviderStrategy=[],
        )

    def scale(self, color: str, desired: int) -> None:
        """Somebody, or Application Auto Scaling, wants another number of tasks."""
        self.client("ecs").update_service(
            cluster=f"web-{color}", service="web", desiredCount=desired
        )

    def wait_for(self, true: Any, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self.control("GET", "state")
            time.sleep(0.1)

    # The state of the world

    def group(self, color: str) -> dict[str, Any]:
        """An Auto Scaling group: its sizes, and what of it is suspended."""
        (group,) = self.client("autoscaling").describe_auto_scaling_groups(
            AutoScalingGroupNames=[f"web-{color}"]
        )["AutoScalingGroups"]
        return {
            "min": group["MinSize"],
            "max": group["MaxSize"],
            "desired": group["DesiredCapacity"],
            "suspended": sorted(one["ProcessName"] for one in group["SuspendedProcesses"]),
            "instances": sorted(one["InstanceId"] for one in group["Instances"]),
        }

    def instances(self, color: str) -> list[str]:
        return list(self.group(color)["instances"])

    def launched(self, instance_ids: list[str]) -> list[datetime]:
        """When EC2 launched instances."""
        reservations = self.client("ec2").describe_instances(InstanceIds=instance_ids)
        return [
            instance["LaunchTime"].astimezone(UTC)
            for reservation in reservations["Reservations"]
            for instance in reservation["Instances"]
        ]

    def healthy(self, color: str) -> int:
        """Healthy targets of a colour."""
        targets = self.client("elbv2").describe_target_health(
            TargetGroupArn=self.target_group(color)
        )["TargetHealthDescriptions"]
        return sum(one["TargetHealth"]["State"] == "healthy" for one in targets)

    def host_states(self, color: str) -> list[str]:
        """Status of each container instance of a colour's cluster."""
        ecs, cluster = self.client("ecs"), f"web-{color}"
        arns = ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
        if not arns:
            return []
        found = ecs.describe_container_instances(cluster=cluster, containerInstances=arns)
        return [one["status"] for one in found["containerInstances"]]

    def ecs_service(self, color: str) -> dict[str, Any]:
        return dict(
            self.client("ecs").describe_services(cluster=f"web-{color}", services=["web"])[
                "services"
            ][0]
        )

    def weights(self, port: int = 8080) -> dict[str, int]:
        if "clb" not in self.options:
            return super().weights(port)
        autoscaling = self.client("autoscaling")
        attached = [
            color
            for color in COLORS
            for one in autoscaling.describe_load_balancers(AutoScalingGroupName=f"web-{color}")[
                "LoadBalancers"
            ]
            if one["State"] not in ("Removing", "Removed")
        ]
        return {
            color: 100 // len(attached) if attached and color in attached else 0 for color in COLORS
        }

    def world(self) -> dict[str, Any]:
        """All that a rollback has to restore; the hosts of the live colour are the same ones."""
        live = self.live()
        return {
            "weights": self.weights(),
            "services": {
                color: (one["taskDefinition"], one["desiredCount"], one["runningCount"])
                for color, one in ((color, self.ecs_service(color)) for color in COLORS)
            },
            "live": self.group(live),
            "idle": self.group(other(live)),
        }

    def assert_all_new(self, color: str, version: str, began: datetime) -> None:
        """A colour is live, on hosts that were launched since; of the other one nothing is left."""
        idle = other(color)
        counts = self.counts()
        assert counts[idle] == (0, 0), counts
        assert counts[color][0] == counts[color][1] > 0, counts
        assert self.weights() == {color: 100, idle: 0}
        assert self.group(idle)["desired"] == self.group(idle)["min"] == 0
        assert self.instances(idle) == []
        instances = self.instances(color)
        assert len(instances) == self.group(color)["desired"] > 0
        assert min(self.launched(instances)) >= began.replace(microsecond=0)
        assert self.answer()["X-Version"] == version
        assert self.answer()["X-Color"] == color


def other(color: str) -> str:
    return "green" if color == "blue" else "blue"
