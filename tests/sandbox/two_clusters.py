"""A running sandbox with the pattern two-clusters, and what the tests of its groups ask and do."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import requests

from tests.e2e.running import ROOT

READY_SECONDS = 90
BLUE, GREEN = "web-blue", "web-green"  # each a group, a cluster and a target group
MAX_SIZE = 6


@dataclass
class TwoClusters:
    """Both groups have no instances at first."""

    directory: Path
    network: str
    about: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "sandbox", "up", "--pattern", "two-clusters"]
        command += ["--network", self.network, "--build-dir", str(self.directory)]
        # What is pushed is deployed only when a test says so.
        command += ["--set", "trigger=null"]
        command += ["--set", "infrastructure.DeregistrationDelaySeconds=1"]
        command += ["--set", f"infrastructure.MaxSize={MAX_SIZE}", *arguments]
        with (self.directory / "output.txt").open("wb") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *command],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not (self.directory / "sandbox.json").exists():
            said = (self.directory / "output.txt").read_text()
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        self.about = json.loads((self.directory / "sandbox.json").read_text())

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(30) == 0

    def client(self, service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.about["aws_endpoint"],
            region_name=self.about["region"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    @functools.cached_property
    def scaling(self) -> Any:
        return self.client("autoscaling")

    @functools.cached_property
    def ec2(self) -> Any:
        return self.client("ec2")

    @functools.cached_property
    def ecs(self) -> Any:
        return self.client("ecs")

    @functools.cached_property
    def elbv2(self) -> Any:
        return self.client("elbv2")

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.request(method, self.about["control_url"] + path, json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def fault(self, kind: str, group: str = GREEN, **more: Any) -> None:
        body = {"name": "group", "kind": kind, "group": group, **more}
        self.control("POST", "faults", body)

    # ---------------------------------------------------------------------------------- the groups

    def group(self, name: str = GREEN) -> dict[str, Any]:
        described = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        (group,) = described["AutoScalingGroups"]
        return dict(group)

    def resize(self, desired: int, name: str = GREEN) -> None:
        """Ask for so many instances, and have no other bounds than at first."""
        self.scaling.update_auto_scaling_group(
            AutoScalingGroupName=name, MinSize=0, MaxSize=MAX_SIZE, DesiredCapacity=desired
        )

    def in_service(self, name: str = GREEN) -> list[str]:
        """The ids of the instances that serve."""
        return [
            one["InstanceId"]
            for one in self.group(name)["Instances"]
            if one["LifecycleState"] == "InService"
        ]

    def scaled(self, desired: int, name: str = GREEN) -> list[str]:
        """Ask for so many and wait until they, and no others, are there; their ids."""
        self.resize(desired, name)
        self.settle(desired, name)
        return self.in_service(name)

    def settle(self, desired: int, name: str = GREEN) -> None:
        wait_until(
            lambda: (
                len(self.in_service(name)) == len(self.group(name)["Instances"]) == desired
                and len(self.registered(name)) == desired
            )
        )

    def activities(self, name: str = GREEN) -> list[dict[str, Any]]:
        """Newest first."""
        found = self.scaling.describe_scaling_activities(AutoScalingGroupName=name)
        return list(found["Activities"])

    def registered(self, cluster: str = GREEN) -> dict[str, str]:
        """EC2 instance id → container instance ARN of what is registered with a cluster."""
        arns = self.ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
        if not arns:
            return {}
        described = self.ecs.describe_container_instances(cluster=cluster, containerInstances=arns)
        return {
            one["ec2InstanceId"]: one["containerInstanceArn"]
            for one in described["containerInstances"]
        }

    # --------------------------------------------------------------------------------- the service

    def definition(self) -> str:
        """A task definition of an image that runs; its ARN."""
        self.control("POST", "push", {"image": "web:v1"})
        given = self.ecs.describe_task_definition(taskDefinition="web")["taskDefinition"]
        (container,) = given["containerDefinitions"]
        image = container["image"].replace("latest", "v1")
        registered = self.ecs.register_task_definition(
            family="web",
            networkMode=given["networkMode"],
            containerDefinitions=[{**container, "image": image}],
        )
        return str(registered["taskDefinition"]["taskDefinitionArn"])

    def run(self, count: int, cluster: str = GREEN) -> None:
        """Have the service run so many tasks, of an image that works."""
        self.ecs.update_service(
            cluster=cluster, service="web", taskDefinition=self.definition(), desiredCount=count
        )

    def tasks(self, cluster: str = GREEN, status: str = "RUNNING") -> Sequence[dict[str, Any]]:
        """The tasks of a desired status."""
        arns = self.ecs.list_tasks(cluster=cluster, desiredStatus=status)["taskArns"]
        if not arns:
            return []
        return list(self.ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"])

    def places(self, cluster: str = GREEN) -> list[str]:
        """The container instances of the tasks that run."""
        return sorted(
            one["containerInstanceArn"]
            for one in self.tasks(cluster)
            if one["lastStatus"] == "RUNNING"
        )

    def target_group(self, name: str = GREEN) -> str:
        """The ARN of a target group."""
        (group,) = self.elbv2.describe_target_groups(Names=[name])["TargetGroups"]
        return str(group["TargetGroupArn"])

    def targets(self, arn: str) -> dict[str, str]:
        """Instance id → state in a target group."""
        described = self.elbv2.describe_target_health(TargetGroupArn=arn)
        return {
            one["Target"]["Id"]: one["TargetHealth"]["State"]
            for one in described["TargetHealthDescriptions"]
        }

    def reset(self) -> None:
        """No faults, nothing suspended, nothing protected, no tasks, no instances."""
        self.control("DELETE", "faults")
        for name in (BLUE, GREEN):
            self.ecs.update_service(cluster=name, service="web", desiredCount=0)
            self.scaling.resume_processes(AutoScalingGroupName=name)
            ids = self.in_service(name)
            if ids:
                self.scaling.set_instance_protection(
                    AutoScalingGroupName=name, InstanceIds=ids, ProtectedFromScaleIn=False
                )
            self.resize(0, name)
        for name in (BLUE, GREEN):
            self.settle(0, name)


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
