"""The service configurations as they are stored: one SSM parameter a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bluegreen.configuration import ServiceConfiguration, load
from bluegreen.errors import InvalidConfiguration

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


def configurations(client: SSMClient, prefix: str) -> tuple[list[ServiceConfiguration], list[str]]:
    """All service configurations below an SSM path, and what is wrong with the others."""
    found, problems = [], []
    for name, text in below(client, prefix):
        try:
            configuration = load(text, f"SSM parameter {name}")
        except InvalidConfiguration as error:
            problems.append(str(error))
            continue
        if name == f"{prefix}/{configuration.service}":
            found.append(configuration)
        else:
            problems.append(
                f"SSM parameter {name}: service is {configuration.service!r}, so it has to be "
                f"called {prefix}/{configuration.service}"
            )
    return found, problems


def below(client: SSMClient, prefix: str) -> list[tuple[str, str]]:
    """Name and value of all parameters below an SSM path."""
    return [
        (parameter["Name"], parameter["Value"])
        for page in client.get_paginator("get_parameters_by_path").paginate(Path=prefix)
        for parameter in page["Parameters"]
    ]
