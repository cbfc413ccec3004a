"""The template as CloudFormation sees it: transformed by SAM, functions not yet resolved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "template.yaml"

Resource = dict[str, Any]
NO_VALUE = {"Ref": "AWS::NoValue"}


@dataclass(frozen=True)
class Statement:
    """One allowing statement. where: the policy it stands in, for messages."""

    where: str
    actions: list[str]
    resources: list[Any]
    condition: dict[str, Any]


@dataclass(frozen=True)
class Template:
    document: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.document["Parameters"])

    def of_type(self, kind: str) -> dict[str, Resource]:
        """Logical id → properties."""
        return {
            logical_id: resource.get("Properties", {})
            for logical_id, resource in self.document["Resources"].items()
            if resource["Type"] == kind
        }

    def resource(self, logical_id: str) -> Resource:
        return dict(self.document["Resources"][logical_id])

    def chosen(self, **parameters: str) -> Template:
        """What is made with these parameters (else the defaults): Fn::If is replaced."""
        values = {name: one.get("Default") for name, one in self.parameters.items()}
        choice = _Choice(self.document.get("Conditions", {}), {**values, **parameters})
        resources = {
            logical_id: choice.applied(resource)
            for logical_id, resource in self.document["Resources"].items()
            if choice.holds({"Condition": resource.get("Condition")})
        }
        return Template({**self.document, "Resources": resources})

    def functions(self) -> dict[str, Resource]:
        return self.of_type("AWS::Lambda::Function")

    def state_machines(self) -> dict[str, Resource]:
        return self.of_type("AWS::StepFunctions::StateMachine")

    def state_functions(self, machine: str | None = None) -> set[str]:
        """Those that are states of a workflow, or of any."""
        found: set[str] = set()
        for logical_id, properties in self.state_machines().items():
            if machine in (None, logical_id):
                statements = self.statements_of(self.role_of(properties))
                (invoking,) = (one for one in statements if "lambda:InvokeFunction" in one.actions)
                found |= {resource["Fn::GetAtt"][0] for resource in invoking.resources}
        return found

    def role_of(self, properties: Resource) -> str:
        """Logical id of the role of a function or of a state machine."""
        role = properties.get("Role") or properties["RoleArn"]
        logical_id, attribute = role["Fn::GetAtt"]
        assert attribute == "Arn"
        return str(logical_id)

    def statements(self) -> Iterator[Statement]:
        """Every statement of every role and managed policy."""
        for logical_id, role in self.of_type("AWS::IAM::Role").items():
            for policy in role.get("Policies", []):
                yield from _statements(logical_id, policy["PolicyDocument"])
        for logical_id, policy in self.of_type("AWS::IAM::ManagedPolicy").items():
            yield from _statements(logical_id, policy["PolicyDocument"])

    def statements_of(self, role: str) -> list[Statement]:
        return [statement for statement in self.statements() if statement.where == role]


@dataclass(frozen=True)
class _Choice:
    """The conditions of a template, decided by parameters."""

    conditions: dict[str, Any]
    parameters: dict[str, Any]

    def holds(self, condition: dict[str, Any]) -> bool:
        ((function, argument),) = condition.items()
        match function:
            case "Condition":
                return argument is None or self.holds(self.conditions[argument])
            case "Fn::Not":
                return not self.holds(argument[0])
            case "Fn::Equals":
                left, right = argument
                return bool(self.parameters[left["Ref"]] == right)
        raise AssertionError(function)

    def applied(self, value: Any) -> Any:
        if isinstance(value, list):
            items = [self.applied(item) for item in value]
            return [item for item in items if item != NO_VALUE]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Fn::If"}:
            condition, yes, no = value["Fn::If"]
            return self.applied(yes if self.holds({"Condition": condition}) else no)
        applied = {key: self.applied(item) for key, item in value.items()}
        return {key: item for key, item in applied.items() if item != NO_VALUE}


def _statements(where: str, document: dict[str, Any]) -> Iterator[Statement]:
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow"
        yield Statement(
            where,
            as_list(statement["Action"]),
            as_list(statement["Resource"]),
            statement.get("Condition", {}),
        )


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
