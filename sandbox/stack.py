"""CloudFormation for the sandbox: a template becomes resources in moto.

The templates are the ones that ship: ``template.yaml``, transformed as SAM transforms it, and
``examples/<pattern>/infrastructure.yaml``. moto's own CloudFormation is not used, because it drops
fields of several resources that matter here. Parameters, conditions, pseudo parameters and the
intrinsic functions are resolved here; ``sandbox.resources`` creates each resource by API calls.
What is not known (a function, a type, a property) is an error, never skipped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from sandbox.world import REGION, World

Template = dict[str, Any]
NO_VALUE = object()
SAM_TRANSFORM = "AWS::Serverless-2016-10-31"
CODE_FIELDS = {
    "AWS::Serverless::Function": ("Function", "CodeUri"),
    "AWS::Serverless::StateMachine": ("StateMachine", "DefinitionUri"),
}


class StackError(Exception):
    """A template that the sandbox cannot turn into resources; the message says what and where."""


@dataclass(frozen=True)
class Created:
    """A resource that exists: what ``Ref`` and ``Fn::GetAtt`` say of it."""

    ref: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


CreateResource = Callable[[str, str, dict[str, Any]], Created]
"""Creates a resource from (logical id, type, properties with every function resolved)."""


def load(path: Path) -> Template:
    """Read a template; one with SAM resources is transformed to plain CloudFormation.

    The places of code and definitions stay what they are in the file: paths relative to it.
    Raises StackError with all of SAM's complaints.
    """
    template: Template = _included(yaml_parse(path.read_text()), path.parent)
    if template.get("Transform") != SAM_TRANSFORM:
        return template
    places = _replace_local_paths(template)
    try:
        session = boto3.session.Session(region_name=REGION)
        result: Template = Translator({}, Parser(), boto_session=session).translate(template, {})
    except Exception as error:
        causes = getattr(error, "causes", [error])
        raise StackError(f"{path.name}: " + "; ".join(str(cause) for cause in causes)) from error
    for logical_id, place in places.items():
        result["Resources"][logical_id].setdefault("Metadata", {})["LocalPath"] = place
    return result


class Stack:
    """The resources of one template.

    ``parameters`` override the defaults of the template; one that has neither is an error.
    """

    def __init__(
        self, name: str, template: Template, world: World, parameters: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.template = template
        self.created: dict[str, Created] = {}
        self._world = world
        self._conditions: dict[str, bool] = {}
        self._parameters = dict(self._parameter_values(parameters))

    def create(self, create: CreateResource) -> None:
        """Create every resource whose condition holds, each after those it needs."""
        resources: dict[str, Any] = self.template["Resources"]
        wanted = {
            logical_id: resource
            for logical_id, resource in resources.items()
            if "Condition" not in resource or self._condition(resource["Condition"])
        }
        for logical_id in _ordered(wanted):
            resource = wanted[logical_id]
            properties = self.resolve(resource.get("Properties", {}))
            if "LocalPath" in resource.get("Metadata", {}):
                properties["LocalPath"] = resource["Metadata"]["LocalPath"]
            try:
                self.created[logical_id] = create(logical_id, resource["Type"], properties)
            except Exception as error:
                raise StackError(
                    f"{self.name}: {logical_id} ({resource['Type']}): {error}"
                ) from error

    def outputs(self) -> dict[str, Any]:
        """The outputs whose condition holds, by name."""
        return {
            name: self.resolve(output["Value"])
            for name, output in self.template.get("Outputs", {}).items()
            if "Condition" not in output or self._condition(output["Condition"])
        }

    def resolve(self, value: Any) -> Any:
        """A part of the template with every function replaced by what it gives."""
        if isinstance(value, dict):
            if len(value) == 1:
                name, argument = next(iter(value.items()))
                if name == "Ref" or name.startswith("Fn::"):
                    return self._function(name, argument)
                if name == "Condition" and isinstance(argument, str):
                    return self._condition(argument)
            resolved = {key: self.resolve(item) for key, item in value.items()}
            return {key: item for key, item in resolved.items() if item is not NO_VALUE}
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not NO_VALUE]
        return value

    def _function(self, name: str, argument: Any) -> Any:  # noqa: C901 - one case a function
        match name:
            case "Ref":
                return self._ref(argument)
            case "Fn::GetAtt":
                return self._attribute(argument)
            case "Fn::Sub":
                return self._substitute(argument)
            case "Fn::Join":
                separator, items = argument
                return str(separator).join(str(item) for item in self.resolve(items))
            case "Fn::Select":
                index, items = argument
                return self.resolve(items)[int(self.resolve(index))]
            case "Fn::Split":
                separator, text = argument
                return self.resolve(text).split(separator)
            case "Fn::Base64":
                return base64.b64encode(self.resolve(argument).encode()).decode()
            case "Fn::GetAZs":
                return [f"{self.resolve(argument) or self._world.region}{zone}" for zone in "acd"]
            case "Fn::FindInMap":
                table, key, field_name = self.resolve(argument)
                return self.resolve(self.template["Mappings"][table][key][field_name])
            case "Fn::If":
                condition, yes, no = argument
                return self.resolve(yes if self._condition(condition) else no)
            case "Fn::Equals":
                left, right = self.resolve(argument)
                return str(left) == str(right)
            case "Fn::Not":
                return not self.resolve(argument)[0]
            case "Fn::And":
                return all(self.resolve(argument))
            case "Fn::Or":
                return any(self.resolve(argument))
        raise StackError(f"{self.name}: the sandbox does not know {name}")

    def _ref(self, name: str) -> Any:
        pseudo = {
            "AWS::AccountId": self._world.account_id,
            "AWS::Region": self._world.region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": self.name,
            "AWS::StackId": (
                f"arn:aws:cloudformation:{self._world.region}:{self._world.account_id}"
                f":stack/{self.name}/sandbox"
            ),
            "AWS::NoValue": NO_VALUE,
        }
        if name in pseudo:
            return pseudo[name]
        if name in self._parameters:
            return self._parameters[name]
        if name in self.created:
            return self.created[name].ref
        raise StackError(f"{self.name}: Ref {name}: no such parameter or resource")

    def _attribute(self, argument: Any) -> Any:
        parts = argument.split(".", 1) if isinstance(argument, str) else argument
        logical_id, attribute = parts[0], ".".join(parts[1:])
        created = self.created.get(logical_id)
        if created is None:
            raise StackError(f"{self.name}: GetAtt {logical_id}.{attribute}: no such resource")
        if attribute not in created.attributes:
            known = ", ".join(created.attributes) or "none"
            raise StackError(
                f"{self.name}: GetAtt {logical_id}.{attribute}: the sandbox knows {known}"
            )
        return created.attributes[attribute]

    def _substitute(self, argument: Any) -> str:
        text, variables = argument if isinstance(argument, list) else (argument, {})

        def value(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in variables:
                return str(self.resolve(variables[name]))
            if "." in name:
                return str(self._attribute(name))
            return str(self._ref(name))

        return re.sub(r"\$\{([^}]+)\}", value, text)

    def _condition(self, name: Any) -> bool:
        if not isinstance(name, str):
            return bool(self.resolve(name))
        if name not in self._conditions:
            self._conditions[name] = bool(self.resolve(self.template["Conditions"][name]))
        return self._conditions[name]

    def _parameter_values(self, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        declared: dict[str, Any] = self.template.get("Parameters", {})
        unknown = set(given) - set(declared)
        if unknown:
            raise StackError(f"{self.name}: no such parameter: {', '.join(sorted(unknown))}")
        for name, declaration in declared.items():
            value = given.get(name, declaration.get("Default", NO_VALUE))
            if value is NO_VALUE:
                raise StackError(f"{self.name}: parameter {name} has no value and no default")
            kind: str = declaration["Type"]
            if kind.startswith("AWS::SSM::Parameter::Value<"):
                parameter = self._world.client("ssm").get_parameter(Name=value)
                value = parameter["Parameter"]["Value"]
                kind = kind[len("AWS::SSM::Parameter::Value<") : -1]
            if kind == "CommaDelimitedList" or kind.startswith("List<"):
                yield name, [item.strip() for item in str(value).split(",")]
            else:
                yield name, str(value)


def _included(value: Any, folder: Path) -> Any:
    """A part of a template with the files in it that AWS::Include names, relative to ``folder``."""
    if isinstance(value, list):
        return [_included(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Fn::Transform"}:
        transform = value["Fn::Transform"]
        if transform.get("Name") != "AWS::Include":
            raise StackError(f"Fn::Transform {transform.get('Name')}: the sandbox has AWS::Include")
        place = folder / transform["Parameters"]["Location"]
        try:
            return yaml_parse(place.read_text())
        except OSError as error:
            raise StackError(f"AWS::Include {place}: {error.strerror}") from error
    return {key: _included(item, folder) for key, item in value.items()}


def _replace_local_paths(template: Template) -> dict[str, str]:
    """Make the local paths of code and definitions S3 URIs, as ``sam package`` does.

    Returns logical id → local path.
    """
    places = {}
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] not in CODE_FIELDS:
            continue
        section, field_name = CODE_FIELDS[resource["Type"]]
        own = resource["Properties"].get(field_name)
        shared = template.get("Globals", {}).get(section, {}).get(field_name)
        place = own or shared
        if not isinstance(place, str):
            raise StackError(f"{logical_id}: the sandbox needs a local path as {field_name}")
        places[logical_id] = place
        resource["Properties"][field_name] = f"s3://sandbox/{logical_id}"
    for section, field_name in CODE_FIELDS.values():
        template.get("Globals", {}).get(section, {}).pop(field_name, None)
    return places


def _ordered(resources: Mapping[str, Any]) -> Iterator[str]:
    """Logical ids, each after those it refers to. Raises StackError for a circle."""
    needs = {
        logical_id: {name for name in _references(resource) if name in resources} - {logical_id}
        for logical_id, resource in resources.items()
    }
    remaining = deepcopy(needs)
    while remaining:
        ready = [logical_id for logical_id, missing in remaining.items() if not missing]
        if not ready:
            raise StackError(f"resources need each other in a circle: {', '.join(remaining)}")
        for logical_id in ready:
            del remaining[logical_id]
            yield logical_id
        for missing in remaining.values():
            missing.difference_update(ready)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key == "Ref":
            yield item
        elif key == "Fn::GetAtt":
            yield (item.split(".")[0] if isinstance(item, str) else item[0])
        elif key == "Fn::Sub":
            text = item[0] if isinstance(item, list) else item
            yield from (name.split(".")[0] for name in re.findall(r"\$\{([^!}]+)\}", text))
            yield from _references(item[1:] if isinstance(item, list) else [])
        elif key == "DependsOn":
            yield from [item] if isinstance(item, str) else item
        else:
            yield from _references(item)
