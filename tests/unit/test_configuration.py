"""The service configuration: what is accepted, and what is said about what is not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bluegreen.color import Color
from bluegreen.configuration import ServiceConfiguration, load
from bluegreen.errors import InvalidConfiguration

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "examples" / "shifted-ports" / "service.yaml").read_text()


def changed(**changes: Any) -> str:
    """The example with other values; a key such as ``colors__blue__host_port`` is a path.

    None takes the key out.
    """
    document = copy.deepcopy(yaml.safe_load(EXAMPLE))
    for path, value in changes.items():
        *parents, last = path.split("__")
        where = document
        for key in parents:
            where = where[key]
        if value is None:
            del where[last]
        else:
            where[last] = value
    return yaml.safe_dump(document)


def mistakes(text: str) -> list[str]:
    with pytest.raises(InvalidConfiguration) as wrong:
        load(text, "service.yaml")
    first, *lines = str(wrong.value).splitlines()
    assert first.startswith("service.yaml")
    return lines


def test_the_example_is_a_right_one() -> None:
    found = load(EXAMPLE, "service.yaml")
    assert found.service == "web"
    assert found.colors[Color.BLUE].ecs_service == "web-blue"
    assert found.colors[Color.GREEN].ecs_service == "web-green"
    assert (found.router.port, found.router.test_port) == (8080, 8081)
    assert (found.drain.margin_seconds, found.drain.deadline_seconds) == (20, 900)


def test_every_mistake_is_named_at_once_with_path_value_and_what_would_be_right() -> None:
    text = changed(
        service="Web Shop",
        pattern="two-clusters",
        colors__blue__host_port__host_port=99999,
        colors__green__cluster=None,
        router__port="http",
        health__deadline_seconds=0,
        probe__path="no-slash",
        bake__secnds=5,
    )
    lines = mistakes(text)
    assert len(lines) == 8
    said = "\n".join(lines)
    for path, value, right in (
        ("service", "'Web Shop'", "pattern"),
        ("pattern", "'two-clusters'", "'shifted-ports'"),
        ("colors.blue.host_port.host_port", "99999", "less than or equal to 65535"),
        ("colors.green.cluster", "", "is missing"),
        ("router.port", "'http'", "valid integer"),
        ("health.deadline_seconds", "0", "greater than or equal to 5"),
        ("probe.path", "'no-slash'", "pattern"),
        ("bake.secnds", "5", "not a known key"),
    ):
        line = next(line for line in lines if line.startswith(f"  {path}: "))
        assert value in line, said
        assert right in line, said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colors__green__ecs_service": "web-blue"}, "colors: blue and green need two different E"),
        (
            {"colors__green__target_group": "web-blue"},
            "colors: blue and green need two different t",
        ),
        ({"colors__green__host_port": None}, "colors: give both colours a host_port, or neither"),
        (
            {"colors__green__host_port__host_port": 18081},
            "colors: blue and green need two different host ports, both have 18081",
        ),
        ({"router__test_port": 8080}, "router: port and test_port are both 8080"),
        ({"containers": []}, "containers: List should have at least 1 item"),
        (
            {"containers": [{"name": "web", "repository": "web"}] * 2},
            "(top level): containers: every name once, got web, web",
        ),
        (
            {"containers": [{"name": "web", "repository": "web", "environment": {"A-B": "x"}}]},
            "containers.0.environment.A-B",
        ),
        (
            {"containers": [{"name": "web", "repository": "web", "environment": {"A": 1}}]},
            "containers.0.environment.A: Input should be a valid string",
        ),
        ({"strategy": {"type": "canary"}}, "strategy.type: Input should be 'all_at_once'"),
        ({"health__interval_seconds": 301}, "health.interval_seconds"),
        ({"probe__header": "X Color"}, "probe.header"),
        ({"probe__scheme": "https"}, "probe: scheme https needs a host"),
    ],
)
def test_what_contradicts_itself_is_named(changes: dict[str, Any], says: str) -> None:
    lines = mistakes(changed(**changes))
    assert len(lines) == 1
    assert lines[0].startswith("  " + says), lines[0]


@pytest.mark.parametrize(
    "environment",
    [{"KEY": ["hunter2"]}, {"A-B": "x", "KEY": {"is": "hunter2"}}, "hunter2", ["KEY=hunter2"]],
    ids=str,
)
def test_the_value_of_a_variable_is_not_shown_because_it_may_be_a_secret(environment: Any) -> None:
    text = changed(containers=[{"name": "web", "repository": "web", "environment": environment}])
    lines = mistakes(text)
    assert lines
    for line in lines:
        assert line.startswith("  containers.0.environment")
        assert "hunter2" not in line
        assert "(got" not in line


def test_a_probe_over_https_knows_whose_certificate_it_expects() -> None:
    found = load(changed(probe__scheme="https", probe__host="www.example.com"), "service.yaml")
    assert found.probe
    assert (found.probe.scheme, found.probe.host) == ("https", "www.example.com")
    plain = load(changed(probe__scheme="http"), "service.yaml")
    assert plain.probe
    assert plain.probe.host is None


def test_10_the_same_host_port_for_both_colours_is_refused_though_the_rest_is_wrong_too() -> None:
    lines = mistakes(changed(colors__green__host_port__host_port=18081, bake__seconds=-1))
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a mapping with service, pattern, containers, colors and router, got None"),
        ("- web", "got list"),
        ("web", "got str"),
        ("a: [", "is not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"^service.yaml.*{says}"):
        load(text, "service.yaml")


def test_what_may_be_left_out_has_a_default() -> None:
    short = changed(
        health=None,
        probe=None,
        strategy=None,
        bake=None,
        drain=None,
        router__test_port=None,
        colors__blue__host_port=None,
        colors__green__host_port=None,
    )
    found = load(short, "service.yaml")
    assert found.probe is None
    assert found.health.deadline_seconds == 600
    assert found.drain.keep_warm_seconds == 0


def test_editors_get_the_schema_of_these_very_models() -> None:
    schema = json.loads((ROOT / "service.schema.json").read_text())
    assert schema == ServiceConfiguration.model_json_schema()
