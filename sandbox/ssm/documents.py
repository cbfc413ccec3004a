"""Command documents: what they take, and the script that they run.

AWS's habits:
  - a parameter that the document does not declare, one that it declares without a default and that
    is missing, and a value that the allowedPattern does not match as a whole are InvalidParameters;
  - every value is a list of strings, of which a String takes exactly one;
  - ``{{ Name }}`` is replaced as text wherever it stands in the inputs of a step, quotes or not:
    what keeps a shell script safe is the allowedPattern, nothing else;
  - on the instance amazon-ssm-agent checks the allowedPattern again, with Go's regular expressions
    (RE2): it drops a command, which never answers, when it cannot read the pattern. Here such a
    document is refused.

Of the actions there is aws:runShellScript, of the schema versions 2.2, of the types of parameters
String and StringList.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moto.ssm.exceptions import InvalidDocumentContent, SSMException

from sandbox.ssm import patterns

DEFAULT_TIMEOUT_SECONDS = 3600.0
PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z0-9_:.-]+)\s*\}\}")
DOCUMENT_KEYS = {"schemaVersion", "description", "parameters", "mainSteps"}
PARAMETER_KEYS = {
    *("type", "description", "default", "allowedPattern", "allowedValues"),
    *("minChars", "maxChars", "displayType"),
}
STEP_KEYS = {"action", "name", "inputs", "precondition"}
INPUT_KEYS = {"runCommand", "timeoutSeconds"}
LINUX = {"StringEquals": ["platformType", "Linux"]}

Values = Mapping[str, str | list[str]]


class InvalidParameters(SSMException):
    """A command was given what its document does not take."""

    def __init__(self, message: str) -> None:
        super().__init__("InvalidParameters", message)


@dataclass(frozen=True)
class Script:
    """What a command runs: ``step`` is its name in the document, ``text`` is for sh."""

    step: str
    text: str
    timeout: float


def check_content(content: Mapping[str, Any]) -> None:
    """Raise InvalidDocumentContent for a command document that is wrong or not known here."""
    complaint = next(_complaints(content), None)
    if complaint is not None:
        raise InvalidDocumentContent(complaint)


def _complaints(content: Mapping[str, Any]) -> Iterator[str]:
    if content.get("schemaVersion") != "2.2":
        yield f'schemaVersion {content.get("schemaVersion")!r}: the sandbox knows "2.2"'
    yield from _unknown("the document", content, DOCUMENT_KEYS)
    parameters = content.get("parameters", {})
    for name, declared in parameters.items():
        yield from _parameter_complaints(name, declared)
    steps = content.get("mainSteps") or []
    if len(steps) != 1:
        yield f"{len(steps)} mainSteps: the sandbox knows documents with one"
    for step in steps:
        yield from _step_complaints(step, parameters)


def _parameter_complaints(name: str, declared: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown(f"parameter {name}", declared, PARAMETER_KEYS)
    if declared.get("type") not in ("String", "StringList"):
        yield f"parameter {name}: the sandbox knows the types String and StringList"
    for complaint in patterns.complaints(declared.get("allowedPattern", "")):
        yield f"parameter {name}: the SSM agent cannot read its allowedPattern: {complaint}"
        return
    if "default" in declared:
        default = declared["default"]
        problem = _problem(name, declared, default if isinstance(default, list) else [default])
        if problem is not None:
            yield f"the default of {problem}"


def _step_complaints(step: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[str]:
    name = step.get("name")
    yield from _unknown(f"step {name}", step, STEP_KEYS)
    if step.get("action") != "aws:runShellScript":
        yield f"step {name}: the sandbox knows the action aws:runShellScript only"
    if step.get("precondition", LINUX) != LINUX:
        yield f"step {name}: the sandbox knows the precondition {LINUX} only"
    yield from _unknown(f"the inputs of step {name}", step.get("inputs", {}), INPUT_KEYS)
    for used in PLACEHOLDER.findall(json.dumps(step)):
        if used not in parameters:
            yield f"step {name} uses {used}, which is no parameter"


def _unknown(place: str, given: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    for key in given:
        if key not in known:
            yield f"{place}: the sandbox does not know {key}"


def resolve(content: Mapping[str, Any], given: Mapping[str, Sequence[str]]) -> Values:
    """The value of every parameter of a document; raises InvalidParameters."""
    declared = content.get("parameters") or {}
    for name in given:
        if name not in declared:
            raise InvalidParameters(f"Parameter {name} is not defined in the document.")
    values: dict[str, str | list[str]] = {}
    for name, declaration in declared.items():
        if name not in given:
            if "default" not in declaration:
                raise InvalidParameters(f"Parameter {name} requires a value.")
            values[name] = declaration["default"]
            continue
        strings = list(given[name])
        problem = _problem(name, declaration, strings)
        if problem is not None:
            raise InvalidParameters(problem)
        values[name] = strings if declaration["type"] == "StringList" else strings[0]
    return values


def _problem(name: str, declaration: Mapping[str, Any], values: Sequence[Any]) -> str | None:
    """What is wrong with the value of a parameter."""
    if not all(isinstance(value, str) for value in values):
        return f"parameter {name} has to be text."
    if declaration["type"] == "String" and len(values) != 1:
        return f"parameter {name} of type String takes one value, not {len(values)}."
    pattern = declaration.get("allowedPattern")
    allowed = declaration.get("allowedValues")
    for value in values:
        if pattern is not None and not re.fullmatch(pattern, value):
            return f"parameter {name} does not match its allowedPattern {pattern}."
        if allowed is not None and value not in allowed:
            return f"parameter {name} is none of {', '.join(allowed)}."
        if not int(declaration.get("minChars", 0)) <= len(value):
            return f"parameter {name} is shorter than {declaration['minChars']} characters."
        if len(value) > int(declaration.get("maxChars", len(value))):
            return f"parameter {name} is longer than {declaration['maxChars']} characters."
    return None


def script_of(content: Mapping[str, Any], values: Values) -> Script:
    """What a document runs with these values."""
    (step,) = content["mainSteps"]
    inputs = {key: _filled(item, values) for key, item in step["inputs"].items()}
    lines = inputs["runCommand"]
    return Script(
        step=step["name"],
        text="\n".join(lines if isinstance(lines, list) else [lines]) + "\n",
        timeout=float(inputs.get("timeoutSeconds") or DEFAULT_TIMEOUT_SECONDS),
    )


def _filled(item: Any, values: Values) -> Any:
    """A part of the inputs with the values in it; a lone StringList becomes its strings."""
    if isinstance(item, list):
        filled: list[str] = []
        for part in item:
            text = _filled(part, values)
            filled += text if isinstance(text, list) else [text]
        return filled
    if not isinstance(item, str):
        return item
    alone = PLACEHOLDER.fullmatch(item)
    if alone and isinstance(values[alone[1]], list):
        return values[alone[1]]
    return PLACEHOLDER.sub(lambda match: _as_text(values[match[1]]), item)


def _as_text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else json.dumps(value)
