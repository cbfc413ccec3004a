"""The service configurations as they are stored: one SSM parameter a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bluegreen.configuration import ServiceConfiguration, load
from bluegreen.errors import InvalidConfiguration

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


def read(client: SSMClient, prefix: str, service: str) -> ServiceConfiguration:
    """The configuration of a service. prefix: path of all of them.

    Raises InvalidConfiguration when there is none, or it is wrong.
    """
    name = f"{prefix}/{service}"
    try:
        text = client.get_parameter(Name=name)["Parameter"]["Value"]
    except client.exceptions.ParameterNotFound as error:
        raise InvalidConfiguration(
            f"there is no service {service!r}: SSM parameter {name} does not exist; "
            "store the service configuration there"
        ) from error
    return _parsed(prefix, name, text)


def configurations(client: SSMClient, prefix: str) -> tuple[list[ServiceConfiguration], list[str]]:
    """All service configurations below an SSM path, and what is wrong with the others."""
    found, problems = [], []
    for name, text in below(client, prefix):
        try:
            found.append(_parsed(prefix, name, text))
        except InvalidConfiguration as error:
            problems.append(str(error))
    return found, problems


def below(client: SSMClient, prefix: str) -> list[tuple[str, str]]:
    """Name and value of all parameters below an SSM path."""
    return [
        (parameter["Name"], parameter["Value"])
        for page in client.get_paginator("get_parameters_by_path").paginate(Path=prefix)
        for parameter in page["Parameters"]
    ]


def _parsed(prefix: str, name: str, text: str) -> ServiceConfiguration:
    configuration = load(text, f"SSM parameter {name}")
    if name != f"{prefix}/{configuration.service}":
        service = name.removeprefix(f"{prefix}/")
        raise InvalidConfiguration(
            f"SSM parameter {name}: service is {configuration.service!r}, not {service!r}"
        )
    return configuration
