"""The router of a deployment, with this function's clients."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from bluegreen.color import Color
from bluegreen.configuration import (
    AlbRouter,
    ClbRouter,
    HostRouter,
    NlbRouter,
    ServiceConfiguration,
)
from bluegreen.deployment import Deployment, Location
from bluegreen.fleet import Fleet
from bluegreen.routers import Router, Survey, classic, listener
from bluegreen.routers.classic import ClassicGroups, ClassicPorts
from bluegreen.routers.hosts import Hosts, told
from bluegreen.routers.listener import Listener
from runtime import clients
from runtime.settings import Settings


def of(deployment: Deployment, settings: Settings, data: Mapping[str, Any]) -> Router:
    """data: ``$``, whose task_definition (if it came to that) runs on the new colour."""
    if deployment.location:
        return Listener(clients.elbv2(), deployment.location, deployment.target_groups)
    configuration = deployment.configuration
    if isinstance(configuration.router, ClbRouter):
        listener_before = deployment.snapshot.classic_listener
        if listener_before:
            return ClassicPorts(
                clients.elb(), clients.autoscaling(), configuration, listener_before
            )
        return ClassicGroups(clients.elb(), clients.autoscaling(), configuration)
    tasks = {}
    if deployment.from_color:
        before = deployment.snapshot.services[deployment.from_color]
        tasks[deployment.from_color] = before.task_definition
    if "task_definition" in data:
        tasks[deployment.to_color] = data["task_definition"]["arn"]
    return hosts(deployment.configuration, settings, tasks)


def survey(configuration: ServiceConfiguration) -> Survey:
    """How a load balancer is found before there is a deployment. Raises DeploymentRefused."""
    router = configuration.router
    if isinstance(router, ClbRouter):
        return classic.survey(clients.elb(), clients.autoscaling(), configuration)
    assert isinstance(router, AlbRouter | NlbRouter)
    return listener.survey(clients.elbv2(), router, configuration.colors)


def live(configuration: ServiceConfiguration, now: float) -> set[Color]:
    """The colours that have traffic now, for those who only look.

    Of hosts with a proxy it is what they were all told. now: epoch seconds; names of load balancers
    and target groups are looked up anew every ten minutes. Raises DeploymentRefused or
    TrafficChanged when there is no telling, and botocore's errors.
    """
    match configuration.router:
        case HostRouter():
            weights = told(clients.ssm(), configuration.service)
        case ClbRouter():
            weights = survey(configuration).traffic
        case AlbRouter() | NlbRouter():
            found, groups = _listener_of(configuration.model_dump_json(), int(now // 600))
            weights = listener.read(clients.elbv2(), found, groups)
    return {color for color, weight in weights.items() if weight}


@lru_cache(maxsize=1000)
def _listener_of(configuration_json: str, _period: int) -> tuple[Location, dict[Color, str]]:
    configuration = ServiceConfiguration.model_validate_json(configuration_json)
    router = configuration.router
    assert isinstance(router, AlbRouter | NlbRouter)
    groups = {
        color: listener.find_target_group(clients.elbv2(), configuration.colors[color])
        for color in Color
    }
    return listener.find(clients.elbv2(), router).location, groups


def hosts(
    configuration: ServiceConfiguration, settings: Settings, tasks: Mapping[Color, str]
) -> Hosts:
    """The hosts of a service of the pattern host-proxy, before there is a deployment too."""
    fleet = Fleet(clients.ecs(), clients.ec2(), clients.ssm(), configuration.colors.blue.cluster)
    return Hosts(fleet, clients.ssm(), settings.host_documents, configuration, tasks)
