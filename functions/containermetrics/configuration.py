"""The metrics configuration: one YAML file a cluster whose containers Mackerel shall show.

``load`` turns its text into a MetricsConfiguration or raises one InvalidMetricsConfiguration that
names every mistake at once. It is stored as the SSM parameter ``/bluegreen/metrics/<cluster>``.
metrics.schema.json in the root of the repository is ``MetricsConfiguration.model_json_schema()``.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bluegreen.configuration import parse
from containermetrics.errors import InvalidMetricsConfiguration

# https://mackerel.io/api-docs/entry/services#create
MackerelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{1,62}$")]
Name = Annotated[str, Field(min_length=1, max_length=255)]
# The pattern of the document's parameter Plugins.
_PLUGINS_LENGTH = 8000
# From sending a command to its answer, besides what the plugins take.
_BESIDES_SECONDS = 5
LinkPrefix = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class MackerelPlace(_Section):
    """Where in Mackerel the hosts of the cluster belong."""

    service: MackerelName = Field(description="Mackerel service; made when it is missing")
    roles: dict[Name, MackerelName] = Field(
        default_factory=dict,
        description="role by ECS service; else the service of the service configuration that it is "
        "a colour of, else its own name",
    )


class Plugin(_Section):
    """A program that speaks the plugin protocol of mackerel-agent, run on the instance for each
    container that matches.
    """

    container: Name | None = Field(default=None, description="containers by name; * allowed")
    image: Name | None = Field(
        default=None, description="or by repository of the image, without registry; * allowed"
    )
    command: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="run by sh with the link variables of the container in its environment"
    )
    link: LinkPrefix | None = Field(
        default=None,
        description="what the link variables begin with; else the container's name in capitals",
    )
    aggregate: Literal["sum", "average", "maximum"] = Field(
        default="sum", description="what becomes of the values of several tasks of a service"
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=20)] = 5

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.container is None) == (self.image is None):
            raise ValueError("give container or image, one of them")
        return self


class MetricsConfiguration(_Section):
    """Everything the pusher has to know about a cluster."""

    cluster: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")] = Field(
        description="ECS cluster, by name"
    )
    source: Literal["container-insights", "cgroups"] = Field(
        description="container-insights: its performance log (EC2 and Fargate); cgroups: read on "
        "the instances by SSM Run Command"
    )
    mackerel: MackerelPlace
    each_task: bool = Field(
        default=False, description="each task as a series of its own too, by a stable slot number"
    )
    retire_after: Annotated[int, Field(ge=5, le=100_000)] = Field(
        default=30,
        description="for so many minutes an ECS service has to be gone until its host is retired",
    )
    answer_seconds: Annotated[int, Field(ge=5, le=45)] = Field(
        default=20, description="with cgroups: how long instances may take to answer"
    )
    plugins: dict[Name, Plugin] = Field(default_factory=dict)

    @property
    def plugins_parameter(self) -> str:
        """The plugins as the document hosts/documents/metrics.yaml takes them."""
        plugins = [
            {"name": name, **plugin.model_dump(exclude_none=True)}
            for name, plugin in self.plugins.items()
        ]
        return base64.b64encode(json.dumps(plugins).encode()).decode() if plugins else ""

    @model_validator(mode="after")
    def _plugins_can_be_had(self) -> Self:
        if self.plugins and self.source != "cgroups":
            raise ValueError("plugins run on the instances: they need source: cgroups")
        slowest = max((one.timeout_seconds for one in self.plugins.values()), default=0)
        if slowest + _BESIDES_SECONDS > self.answer_seconds:
            raise ValueError(
                f"answer_seconds: {self.answer_seconds} is too short for a plugin that may take "
                f"{slowest} s: at least {slowest + _BESIDES_SECONDS}, or the instance's answer is "
                "not waited for"
            )
        if len(self.plugins_parameter) > _PLUGINS_LENGTH:
            raise ValueError(
                f"plugins: {len(self.plugins_parameter)} characters when encoded, at most "
                f"{_PLUGINS_LENGTH} can be sent to the instances: shorten their commands"
            )
        return self


def load(text: str, source: str) -> MetricsConfiguration:
    """Parse and check a metrics configuration.

    text: the YAML file. source: where it came from, for the message.
    Raises InvalidMetricsConfiguration with one line per mistake: path, what is wrong, the value.
    """
    keys = "cluster, source and mackerel"
    return parse(MetricsConfiguration, text, source, keys, InvalidMetricsConfiguration)
