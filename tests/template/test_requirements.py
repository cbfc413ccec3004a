from __future__ import annotations

import re
import tomllib

import pytest

from tests.template.model import ROOT

SHIPPED = ROOT / "functions" / "requirements.txt"
DEVELOPMENT = ROOT / "requirements-dev.txt"


def pins(text: str) -> dict[str, set[str]]:
    """Package → pinned versions; more than one where they differ by Python version."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([\w.]+)", text, re.MULTILINE):
        found.setdefault(name.lower(), set()).add(version)
    return found


@pytest.mark.parametrize("path", [SHIPPED, DEVELOPMENT], ids=lambda path: path.name)
def test_everything_is_pinned_with_hashes(path: object) -> None:
    text = (SHIPPED if path == SHIPPED else DEVELOPMENT).read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]

    assert entries
    for entry in entries:
        assert re.match(r"[\w.-]+(\[[^\]]*\])?==", entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("path", [SHIPPED, DEVELOPMENT], ids=lambda path: path.name)
def test_no_address_of_a_package_registry(path: object) -> None:
    text = (SHIPPED if path == SHIPPED else DEVELOPMENT).read_text()

    assert "://" not in text
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host", text)


def test_what_ships_is_what_the_project_asks_for_and_no_boto3() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[<>=~!\[ ]", one)[0].lower() for one in project["dependencies"]}
    shipped = set(pins(SHIPPED.read_text()))

    assert direct <= shipped
    assert not shipped & {"boto3", "botocore"}, "the Lambda runtime brings them"


def test_what_ships_is_what_is_tested() -> None:
    development = pins(DEVELOPMENT.read_text())

    for name, versions in pins(SHIPPED.read_text()).items():
        assert versions == development[name], name
