"""What a command is given is checked against its document, and ends up in a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from moto.ssm.exceptions import InvalidDocumentContent

from sandbox.ssm.documents import InvalidParameters, Script, check_content, resolve, script_of

DOCUMENTS = sorted((Path(__file__).parents[2] / "hosts" / "documents").glob("*.yaml"))
NAME = {"type": "String", "allowedPattern": "^[a-z]{1,5}$"}


def document(run: Any = "echo {{Name}}", **parameters: Any) -> dict[str, Any]:
    return {
        "schemaVersion": "2.2",
        "parameters": parameters or {"Name": NAME},
        "mainSteps": [
            {
                "action": "aws:runShellScript",
                "name": "greet",
                "precondition": {"StringEquals": ["platformType", "Linux"]},
                "inputs": {"timeoutSeconds": "7", "runCommand": run},
            }
        ],
    }


def test_a_script_has_the_values_in_it() -> None:
    content = document(["set -e", "echo '{{ Name }}' {{Name}} {{More}}"], Name=NAME, More=NAME)
    check_content(content)
    values = resolve(content, {"Name": ["a"], "More": ["b"]})
    assert script_of(content, values) == Script("greet", "set -e\necho 'a' a b\n", 7)


def test_a_list_becomes_lines() -> None:
    content = document("{{ commands }}", commands={"type": "StringList"})
    values = resolve(content, {"commands": ["true", "false"]})
    assert script_of(content, values).text == "true\nfalse\n"


def test_a_default_is_taken_when_nothing_is_given() -> None:
    content = document(Name={**NAME, "default": "all"})
    assert resolve(content, {}) == {"Name": "all"}


@pytest.mark.parametrize(
    "value",
    ["", "A", "abcdef", "a b", "a;b", "a'b", 'a"b', "$(a)", "`a`", "a\n", "\na", "../a", "{{a}}"],
)
def test_what_the_pattern_does_not_match_as_a_whole_is_refused(value: str) -> None:
    with pytest.raises(InvalidParameters, match="allowedPattern"):
        resolve(document(), {"Name": [value]})


@pytest.mark.parametrize(
    ("declaration", "given", "complaint"),
    [
        (NAME, {}, "Name requires a value"),
        (NAME, {"Name": ["a"], "Other": ["b"]}, "Other is not defined"),
        (NAME, {"Name": ["a", "b"]}, "takes one value, not 2"),
        (NAME, {"Name": []}, "takes one value, not 0"),
        ({"type": "String", "allowedValues": ["on", "off"]}, {"Name": ["no"]}, "none of on, off"),
        ({"type": "String", "minChars": 2}, {"Name": ["a"]}, "shorter than 2"),
        ({"type": "String", "maxChars": 2}, {"Name": ["abc"]}, "longer than 2"),
    ],
)
def test_what_a_document_does_not_take(
    declaration: dict[str, Any], given: dict[str, list[str]], complaint: str
) -> None:
    with pytest.raises(InvalidParameters, match=complaint):
        resolve(document(Name=declaration), given)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schemaVersion": "1.2"}, 'the sandbox knows "2.2"'),
        ({"mainSteps": []}, "0 mainSteps"),
        ({"parameters": {}}, "step greet uses Name, which is no parameter"),
        ({"parameters": {"Name": {"type": "Boolean"}}}, "String and StringList"),
        ({"parameters": {"Name": {**NAME, "default": "A"}}}, "the default of parameter Name"),
        ({"parameters": {"Name": {**NAME, "pattern": "a"}}}, "does not know pattern"),
        ({"outputs": []}, "the document: the sandbox does not know outputs"),
    ],
)
def test_a_document_that_the_sandbox_could_not_run_is_refused(
    change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidDocumentContent, match=complaint):
        check_content(document() | change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"action": "aws:runPowerShellScript"}, "aws:runShellScript only"),
        ({"precondition": {"StringEquals": ["platformType", "Windows"]}}, "precondition"),
        ({"onFailure": "exit"}, "does not know onFailure"),
        ({"inputs": {"runCommand": ["a"], "workingDirectory": "/"}}, "workingDirectory"),
    ],
)
def test_a_step_that_the_sandbox_could_not_run_is_refused(
    change: dict[str, Any], complaint: str
) -> None:
    content = document()
    content["mainSteps"][0] |= change
    with pytest.raises(InvalidDocumentContent, match=complaint):
        check_content(content)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_documents_of_the_hosts_are_accepted(path: Path) -> None:
    check_content(yaml.safe_load(path.read_text()))


def test_there_are_documents_of_the_hosts() -> None:
    assert len(DOCUMENTS) == 6


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("^[A-Za-z0-9+/=]{0,8000}$", "{0,8000} makes 8000 repetitions, at most 1000"),
        ("a{1001}", "{1001} makes 1001"),
        ("a{1001,}", "{1001,} makes 1001"),
        ("((a{50}b?){30}c)*", "{30} makes 1500"),
        ("^(?=a)", "(?= is not known"),
        ("^(?!a)", "(?! is not known"),
        ("(?<=a)b", "(?<= is not known"),
        ("(?<!a)b", "(?<! is not known"),
        (r"(a)\1", r"\1 is not known"),
        ("(?P<a>b)(?P=a)", "(?P= is not known"),
        ("(?>a)", "(?> is not known"),
        ("(?x)a", "(?x is not known"),
        ("a++", "+ after a repetition"),
        ("a{2}+", "+ after a repetition"),
        ("a{,5}", "{,5} is no repetition"),
        (r"a\Z", r"\Z is not known"),
        (r"[\u0041]", r"\u is not known"),
        ("(a", "unterminated"),
    ],
)
def test_a_pattern_that_the_agent_cannot_read_is_refused(pattern: str, complaint: str) -> None:
    """Its regular expressions are Go's. It would drop the command without a word."""
    with pytest.raises(InvalidDocumentContent) as raised:
        check_content(document(Name={**NAME, "allowedPattern": pattern}))
    assert "parameter Name: the SSM agent cannot read its allowedPattern: " in str(raised.value)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    "pattern",
    [
        *("a{1000}", "(a{30}b){30}", "(a{999})(b{999})", "a{1000,}?", r"\{5000\}", "[{]5000}"),
        *("(?i)a", "(?:a)+?", "(?P<a>b)", r"[]\]a{2000}]", r"^[\w.-]+\.\d$", "[(?=a)]"),
    ],
)
def test_a_pattern_that_the_agent_can_read_is_accepted(pattern: str) -> None:
    check_content(document(Name={**NAME, "allowedPattern": pattern}))
