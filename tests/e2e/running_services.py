"""A sandbox with three services on the same hosts and load balancer: web, api and jobs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import requests
import yaml

from tests.e2e.running import QUICK as QUICK_WEB
from tests.e2e.running import Running

# Service → port of its listener; web is the example's.
PORTS = {"web": 8080, "api": 8090, "jobs": 8100}
# Three deployments at a time are slower than one.
QUICK = {
    "health.deadline_seconds": 60,
    "probe.timeout_seconds": 20,
    "template.SettleSeconds": 2,
}
_RELEASED_SECONDS = 180.0


@dataclass
class RunningServices(Running):
    """All of them run v1 once it has started."""

    def start(self) -> None:
        super().start()
        for service in PORTS:
            if service != "web":
                self._add(service)
                self.push_to(service, "v1")
        ended = self.wait_for_release(self.start_release(dict.fromkeys(PORTS, "v1"), "first"))
        assert ended == ("SUCCEEDED", ""), ended
        self.wait_until_free()

    def push_to(self, service: str, tag: str, **how: str) -> None:
        self.control("POST", "push", {"image": f"{service}:{tag}", **how})

    def start_release(
        self,
        images: Mapping[str, str],
        name: str,
        order: str = "parallel",
        overrides: Mapping[str, Any] | None = None,
    ) -> str:
        """Start a release of these tags; returns its ARN. overrides: of some of the services."""
        changed = overrides or {}
        request = {
            "action": "release",
            "order": order,
            "services": [
                {"service": one, "images": {one: tag}, "overrides": changed.get(one, {})}
                for one, tag in images.items()
            ],
        }
        answer = self.client("stepfunctions").start_execution(
            stateMachineArn=self.about("release_state_machine_arn"),
            name=name,
            input=json.dumps(request),
        )
        return str(answer["executionArn"])

    def wait_for_release(self, arn: str) -> tuple[str, str]:
        """Its status when it has ended, and the cause if it failed."""
        ended = self.wait(arn, _RELEASED_SECONDS)
        return ended.status, ended.cause

    def lock_of(self, service: str) -> dict[str, Any]:
        return self._item(f"lock#{service}")

    def wait_until_held(self, service: str, seconds: float = 90) -> None:
        """Until a service waits for the word of its release."""
        deadline = time.monotonic() + seconds
        while "held_for" not in self.lock_of(service):
            assert time.monotonic() < deadline, self.lock_of(service)
            time.sleep(0.1)

    def wait_until_free(self, seconds: float = 90) -> None:
        """Until nobody holds the lock of any service; the schedule goes on."""
        deadline = time.monotonic() + seconds
        while any("held" in self.lock_of(service) for service in PORTS):
            assert time.monotonic() < deadline, [self.lock_of(service) for service in PORTS]
            self.sweep()
            time.sleep(1)

    @contextmanager
    def all_under_load(self) -> Iterator[None]:
        """Requests to every service; at the end none may have failed."""
        with ExitStack() as loads:
            for service in PORTS:
                loads.enter_context(self.under_load(self.url_of(service)))
            yield

    @contextmanager
    def service_configured(self, service: str, section: str, **values: Any) -> Iterator[None]:
        """A section of a service's configuration with other values for a while."""
        ssm, name = self.client("ssm"), f"/bluegreen/services/{service}"
        text = ssm.get_parameter(Name=name)["Parameter"]["Value"]
        document = yaml.safe_load(text)
        document[section] = {**document[section], **values}
        ssm.put_parameter(Name=name, Value=yaml.safe_dump(document), Overwrite=True)
        try:
            yield
        finally:
            ssm.put_parameter(Name=name, Value=text, Overwrite=True)

    def url_of(self, service: str) -> str:
        return re.sub(r":8080\b", f":{PORTS[service]}", self.url)

    def versions(self) -> dict[str, str]:
        """What answers to users of each service."""
        found = {}
        for service in PORTS:
            response = requests.get(self.url_of(service), timeout=5)
            response.raise_for_status()
            found[service] = response.headers["X-Version"]
        return found

    def state(self) -> dict[str, Any]:
        """Weights and services of all, as a release that failed has to leave them."""
        elbv2, ecs = self.client("elbv2"), self.client("ecs")
        balancer = elbv2.describe_load_balancers(Names=["web"])["LoadBalancers"][0]
        listeners = elbv2.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])
        actions = {one["Port"]: one["DefaultActions"] for one in listeners["Listeners"]}
        names = [f"{service}-{color}" for service in PORTS for color in ("blue", "green")]
        described = ecs.describe_services(cluster="web", services=names)["services"]
        return {
            "actions": {service: actions[port] for service, port in PORTS.items()},
            "services": {
                one["serviceName"]: (
                    one["taskDefinition"],
                    one["desiredCount"],
                    one["runningCount"],
                )
                for one in described
            },
        }

    def _add(self, service: str) -> None:
        """What web has, once more under another name and on other ports."""
        elbv2, ecs, ssm = self.client("elbv2"), self.client("ecs"), self.client("ssm")
        self.client("ecr").create_repository(repositoryName=service)
        groups = {color: self._target_group(service, color) for color in ("blue", "green")}
        balancer = elbv2.describe_load_balancers(Names=["web"])["LoadBalancers"][0]
        elbv2.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"],
            Protocol="HTTP",
            Port=PORTS[service],
            DefaultActions=[
                {
                    "Type": "forward",
                    "ForwardConfig": {
                        "TargetGroups": [
                            {"TargetGroupArn": groups["blue"], "Weight": 100},
                            {"TargetGroupArn": groups["green"], "Weight": 0},
                        ]
                    },
                }
            ],
        )
        revision = self._task_definition(service)
        for color, group in groups.items():
            ecs.create_service(
                cluster="web",
                serviceName=f"{service}-{color}",
                taskDefinition=revision,
                desiredCount=0,
                launchType="EC2",
                healthCheckGracePeriodSeconds=30,
                loadBalancers=[
                    {"targetGroupArn": group, "containerName": service, "containerPort": 8000}
                ],
                deploymentConfiguration={"minimumHealthyPercent": 50, "maximumPercent": 100},
                placementStrategy=[{"type": "spread", "field": "instanceId"}],
            )
        web = ssm.get_parameter(Name="/bluegreen/services/web")["Parameter"]["Value"]
        ssm.put_parameter(
            Name=f"/bluegreen/services/{service}",
            Value=yaml.safe_dump(_configuration(yaml.safe_load(web), service)),
            Type="String",
        )

    def _target_group(self, service: str, color: str) -> str:
        elbv2 = self.client("elbv2")
        like = elbv2.describe_target_groups(Names=[f"web-{color}"])["TargetGroups"][0]
        taken = (
            "HealthCheckIntervalSeconds",
            "HealthCheckPath",
            "HealthCheckProtocol",
            "HealthCheckTimeoutSeconds",
            "HealthyThresholdCount",
            "Protocol",
            "TargetType",
            "UnhealthyThresholdCount",
            "VpcId",
        )
        made = elbv2.create_target_group(
            Name=f"{service}-{color}",
            Port=_host_port(service, color),
            **{key: like[key] for key in taken},
        )
        arn = str(made["TargetGroups"][0]["TargetGroupArn"])
        elbv2.modify_target_group_attributes(
            TargetGroupArn=arn,
            Attributes=[
                {
                    "Key": "deregistration_delay.timeout_seconds",
                    "Value": str(QUICK_WEB["infrastructure.DeregistrationDelaySeconds"]),
                }
            ],
        )
        return arn

    def _task_definition(self, service: str) -> str:
        ecs = self.client("ecs")
        like = ecs.describe_task_definition(
            taskDefinition=self.ecs_service("blue")["taskDefinition"]
        )["taskDefinition"]
        [container] = like["containerDefinitions"]
        image = container["image"].replace("/web", f"/{service}")
        ports = [{"containerPort": 8000, "hostPort": _host_port(service, "blue")}]
        made = ecs.register_task_definition(
            family=service,
            networkMode="bridge",
            requiresCompatibilities=["EC2"],
            taskRoleArn=like["taskRoleArn"],
            executionRoleArn=like["executionRoleArn"],
            containerDefinitions=[
                {**container, "name": service, "image": image, "portMappings": ports}
            ],
        )
        return str(made["taskDefinition"]["taskDefinitionArn"])


def _host_port(service: str, color: str) -> int:
    return 10_000 + PORTS[service] + (1 if color == "blue" else 2)


def _configuration(web: dict[str, Any], service: str) -> dict[str, Any]:
    """The service configuration of web as that of another one."""
    [container] = web["containers"]
    return {
        **web,
        "service": service,
        "containers": [{**container, "name": service, "repository": service}],
        "router": {"type": "alb", "load_balancer": "web", "port": PORTS[service]},
        "colors": {
            color: {
                "cluster": "web",
                "ecs_service": f"{service}-{color}",
                "target_group": f"{service}-{color}",
                "host_port": {
                    "container": service,
                    "container_port": 8000,
                    "host_port": _host_port(service, color),
                },
            }
            for color in ("blue", "green")
        },
    }
