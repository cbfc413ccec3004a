from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import yaml

from containermetrics.configuration import MetricsConfiguration, load
from containermetrics.errors import InvalidMetricsConfiguration

SMALLEST: dict[str, Any] = {
    "cluster": "web",
    "source": "cgroups",
    "mackerel": {"service": "shop"},
}


def loaded(**changes: Any) -> MetricsConfiguration:
    document = {key: value for key, value in (SMALLEST | changes).items() if value is not None}
    return load(yaml.safe_dump(document), "/bluegreen/metrics/web")


def test_the_smallest_configuration() -> None:
    found = loaded()

    assert (found.each_task, found.retire_after, found.answer_seconds) == (False, 30, 20)
    assert found.plugins_parameter == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cluster": None}, "cluster: is missing"),
        ({"source": "cgroup"}, "source: Input should be 'container-insights' or 'cgroups'"),
        ({"mackerel": {"service": "-x"}}, "mackerel.service: String should match pattern"),
        ({"mackerel": {"service": "x"}}, "mackerel.service: String should match pattern"),
        (
            {"mackerel": {"service": "shop", "roles": {"web": "a b"}}},
            "mackerel.roles.web: String should match pattern",
        ),
        ({"answer_seconds": 100}, "answer_seconds: Input should be less than or equal to 45"),
        ({"plugin": {}}, "plugin: is not a known key"),
        (
            {"plugins": {"memcached": {"command": "x"}}},
            "plugins.memcached: give container or image, one of them",
        ),
        (
            {"plugins": {"memcached": {"command": "x", "image": "a", "container": "b"}}},
            "plugins.memcached: give container or image, one of them",
        ),
        (
            {"plugins": {"m": {"command": "x", "container": "b", "link": "memcached"}}},
            "plugins.m.link: String should match pattern",
        ),
        (
            {
                "source": "container-insights",
                "plugins": {"memcached": {"command": "x", "container": "b"}},
            },
            "plugins run on the instances: they need source: cgroups",
        ),
        (
            {"plugins": {f"p{n}": {"command": "x" * 1000, "container": "b"} for n in range(7)}},
            "at most 8000 can be sent to the instances",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidMetricsConfiguration) as refused:
        loaded(**changes)

    assert said in str(refused.value)
    assert str(refused.value).startswith("/bluegreen/metrics/web: 1 mistake(s)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cluster: [", "is not valid YAML"),
        ("- web", "expected a mapping with cluster, source and mackerel, got list"),
        ("", "got NoneType"),
    ],
)
def test_what_is_no_configuration_at_all(text: str, said: str) -> None:
    with pytest.raises(InvalidMetricsConfiguration, match="/bluegreen/metrics/web") as refused:
        load(text, "/bluegreen/metrics/web")

    assert said in str(refused.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(InvalidMetricsConfiguration) as refused:
        load("sorce: cgroups\neach_task: maybe", "web.yaml")

    for place in ("cluster", "source", "mackerel", "sorce", "each_task"):
        assert f"  {place}: " in str(refused.value)


def test_plugins_are_encoded_as_the_document_takes_them() -> None:
    plugin = {"container": "cache", "command": "echo '$MEMCACHED_PORT'; \"quoted\" `x`"}
    parameter = loaded(plugins={"memcached": plugin}).plugins_parameter

    (sent,) = json.loads(base64.b64decode(parameter))
    assert sent == {
        "name": "memcached",
        **plugin,
        "aggregate": "sum",
        "timeout_seconds": 5,
    }
