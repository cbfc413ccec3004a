"""What is common to all types of resources: an API called with the properties of a resource.

The properties of a resource and the parameters of its API are mostly the same but for the case of
the first letter and for numbers written as text. ``Api.call`` takes care of that with botocore's
own models, and refuses what an API does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from botocore import xform_name
from botocore.model import ListShape, MapShape, Shape, StructureShape

from sandbox.functions import LambdaRuntime
from sandbox.stack import Created
from sandbox.world import World

Properties = dict[str, Any]


class UnknownResourceError(Exception):
    """A resource type or property that the sandbox does not have."""


class Api:
    """Calls operations of one service with the properties of a resource."""

    def __init__(self, world: World, service: str) -> None:
        self._client = world.client(service)

    def call(self, operation: str, properties: Mapping[str, Any], **more: Any) -> Any:
        """Call an operation such as ``CreateVpc``.

        ``properties`` are converted as the module says, ``more`` is passed on as it is. Raises
        UnknownResourceError for a property that the operation does not have.
        """
        shape = self._client.meta.service_model.operation_model(operation).input_shape
        parameters = {**_convert(shape, dict(properties), operation), **more}
        return getattr(self._client, xform_name(operation))(**parameters)


class Maker:
    """What the functions that make resources of one stack are given.

    ``root`` is the folder that local paths in the template are relative to.
    """

    def __init__(self, world: World, runtime: LambdaRuntime, stack_name: str, root: Path) -> None:
        self.world = world
        self.runtime = runtime
        self.root = root
        self._stack = stack_name
        self._apis: dict[str, Api] = {}

    def call(self, service: str, operation: str, properties: Properties, **more: Any) -> Any:
        """Call an operation of a service; see ``Api.call``."""
        if service not in self._apis:
            self._apis[service] = Api(self.world, service)
        return self._apis[service].call(operation, properties, **more)

    def name(self, logical_id: str) -> str:
        """The name of a resource whose template gives it none."""
        return f"{self._stack}-{logical_id}"


Creator = Callable[[Maker, str, Properties], Created]
"""Makes one resource: (maker, logical id, properties)."""


def _convert(shape: Shape, value: Any, place: str) -> Any:
    """A property in the form that an API wants.

    ``place`` is named in the UnknownResourceError for what the API does not have.
    """
    if isinstance(shape, StructureShape):
        members = {_first_lower(name): name for name in shape.members}
        result = {}
        for key, item in value.items():
            name = members.get(_first_lower(key))
            if name is None:
                raise UnknownResourceError(
                    f"{place}.{key}: the sandbox does not know this property"
                )
            result[name] = _convert(shape.members[name], item, f"{place}.{key}")
        return result
    if isinstance(shape, ListShape):
        return [_convert(shape.member, item, place) for item in value]
    if isinstance(shape, MapShape):
        return {key: _convert(shape.value, item, f"{place}.{key}") for key, item in value.items()}
    match shape.type_name:
        case "string":
            return str(value)
        case "integer" | "long":
            return int(value)
        case "float" | "double":
            return float(value)
        case "boolean":
            return value if isinstance(value, bool) else str(value).lower() == "true"
    return value


def _first_lower(name: str) -> str:
    return name[:1].lower() + name[1:]
