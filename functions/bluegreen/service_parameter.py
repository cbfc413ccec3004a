"""The SSM parameter that a service configuration is stored in."""

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
    configuration = load(text, f"SSM parameter {name}")
    if configuration.service != service:
        raise InvalidConfiguration(
            f"SSM parameter {name}: service is {configuration.service!r}, not {service!r}"
        )
    return configuration
