"""The router of a deployment, with this function's clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluegreen.color import Color
from bluegreen.configuration import ServiceConfiguration
from bluegreen.deployment import Deployment
from bluegreen.fleet import Fleet
from bluegreen.routers import Router
from bluegreen.routers.alb import Alb
from bluegreen.routers.hosts import Hosts
from runtime import clients
from runtime.settings import Settings


def of(deployment: Deployment, settings: Settings, data: Mapping[str, Any]) -> Router:
    """data: ``$``, whose task_definition (if it came to that) runs on the new colour."""
    if not deployment.on_hosts:
        assert deployment.location
        return Alb(clients.elbv2(), deployment.location, deployment.target_groups)
    tasks = {}
    if deployment.from_color:
        before = deployment.snapshot.services[deployment.from_color]
        tasks[deployment.from_color] = before.task_definition
    if "task_definition" in data:
        tasks[deployment.to_color] = data["task_definition"]["arn"]
    return hosts(deployment.configuration, settings, tasks)


def hosts(
    configuration: ServiceConfiguration, settings: Settings, tasks: Mapping[Color, str]
) -> Hosts:
    """The hosts of a service of the pattern host-proxy, before there is a deployment too."""
    fleet = Fleet(clients.ecs(), clients.ec2(), clients.ssm(), configuration.colors.blue.cluster)
    return Hosts(fleet, clients.ssm(), settings.host_documents, configuration, tasks)
