"""The ECS services of a cluster, as Mackerel shall know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bluegreen import parameters
from bluegreen.color import Color
from bluegreen.configuration import ServiceConfiguration
from bluegreen.errors import BlueGreenError
from containermetrics import configuration as metrics_configuration
from containermetrics.configuration import MetricsConfiguration
from containermetrics.errors import InvalidMetricsConfiguration
from containermetrics.model import EcsService

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

_DRAINING_OR_ACTIVE = frozenset({"ACTIVE", "DRAINING"})


@dataclass(frozen=True)
class Known:
    """The ECS services, and what could not be found out about some of them."""

    services: list[EcsService]
    problems: list[str]


def clusters(ssm: SSMClient, prefix: str) -> tuple[list[MetricsConfiguration], list[str]]:
    """All metrics configurations below an SSM path, and what is wrong with the others."""
    found, problems = [], []
    for name, text in parameters.below(ssm, prefix):
        try:
            configuration = metrics_configuration.load(text, name)
        except InvalidMetricsConfiguration as error:
            problems.append(str(error))
            continue
        if name == f"{prefix}/{configuration.cluster}":
            found.append(configuration)
        else:
            problems.append(
                f"{name}: is about the cluster {configuration.cluster!r}; it has to be called "
                f"{prefix}/{configuration.cluster}"
            )
    return found, problems


def cluster(ssm: SSMClient, prefix: str, name: str) -> MetricsConfiguration | None:
    """The metrics configuration of a cluster, None when there is none (any more).

    Raises InvalidMetricsConfiguration.
    """
    try:
        parameter = ssm.get_parameter(Name=f"{prefix}/{name}")["Parameter"]
    except ssm.exceptions.ParameterNotFound:
        return None
    return metrics_configuration.load(parameter["Value"], parameter["Name"])


def known(
    metrics: MetricsConfiguration,
    described: Sequence[Mapping[str, Any]],
    deployed: Sequence[ServiceConfiguration],
    live: Callable[[ServiceConfiguration], set[Color]],
) -> Known:
    """What Mackerel shall know of the services of a cluster.

    described: DescribeServices of all of them. live: the colours of a service that have traffic;
    what it raises of AWS or of ours leaves the status of that service's hosts as it is.
    """
    problems: list[str] = []
    slots: dict[str, tuple[ServiceConfiguration, Color]] = {
        one.colors[color].ecs_service: (one, color)
        for one in deployed
        for color in Color
        if one.colors[color].cluster == metrics.cluster
    }
    with_traffic: dict[str, set[Color] | None] = {}
    for one in {slot[0].service: slot[0] for slot in slots.values()}.values():
        try:
            with_traffic[one.service] = live(one)
        except (BlueGreenError, BotoCoreError, ClientError, KeyError, ValueError) as error:
            problems.append(f"service {one.service}: its live colour is not known: {error}")
            with_traffic[one.service] = None
    services = []
    for service in described:
        if service["status"] not in _DRAINING_OR_ACTIVE:
            continue
        name = str(service["serviceName"])
        slot = slots.get(name)
        traffic = with_traffic[slot[0].service] if slot else None
        services.append(
            EcsService(
                name,
                int(service["runningCount"]),
                metrics.mackerel.roles.get(name) or (slot[0].service if slot else name),
                color=slot[1] if slot else "",
                live=None if slot is None or traffic is None else slot[1] in traffic,
            )
        )
    return Known(services, problems)
