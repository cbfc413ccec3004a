"""What differs between two task definitions, and what of it may be shown."""

from __future__ import annotations

import copy
from typing import Any

from bluegreen.plan import differences

LIVE: dict[str, Any] = {
    "taskDefinitionArn": "arn:…:task-definition/web:1",
    "revision": 1,
    "family": "web",
    "cpu": "256",
    "volumes": [{"name": "data"}],
    "containerDefinitions": [
        {
            "name": "web",
            "image": "web:v1",
            "command": ["serve"],
            "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "s3cret"}],
            "portMappings": [{"containerPort": 8000, "hostPort": 18081}],
            "logConfiguration": {"logDriver": "splunk", "options": {"splunk-token": "s3cret"}},
        },
        {"name": "proxy", "image": "proxy:1"},
    ],
}


def changed() -> dict[str, Any]:
    revision = copy.deepcopy(LIVE)
    for key in ("taskDefinitionArn", "revision"):
        del revision[key]
    return revision


def test_the_same_has_no_differences() -> None:
    assert differences(LIVE, changed()) == []


def test_tags_are_not_compared() -> None:
    assert differences(LIVE, {**changed(), "tags": [{"key": "x", "value": "y"}]}) == []


def test_containers_are_found_by_name_wherever_they_stand() -> None:
    revision = changed()
    revision["containerDefinitions"].reverse()
    revision["containerDefinitions"][1]["image"] = "web@sha256:2"
    assert differences(LIVE, revision) == [
        {"path": "containerDefinitions.web.image", "before": "web:v1", "after": "web@sha256:2"}
    ]


def test_variables_are_named_and_their_values_hidden() -> None:
    revision = changed()
    container = revision["containerDefinitions"][0]
    container["environment"] = [{"name": "A", "value": "2"}, {"name": "C", "value": "s3cret"}]
    container["logConfiguration"]["options"]["splunk-token"] = "other"
    found = differences(LIVE, revision)
    prefix = "containerDefinitions.web"
    assert found == [
        {
            "path": f"{prefix}.environment.A",
            "before": "(not shown)",
            "after": "(not shown)",
        },
        {"path": f"{prefix}.environment.B", "before": "(not shown)", "after": None},
        {"path": f"{prefix}.environment.C", "before": None, "after": "(not shown)"},
        {
            "path": f"{prefix}.logConfiguration.options.splunk-token",
            "before": "(not shown)",
            "after": "(not shown)",
        },
    ]


def test_what_is_new_or_gone_is_there_once() -> None:
    revision = changed()
    del revision["cpu"]
    revision["memory"] = "512"
    revision["containerDefinitions"][0]["portMappings"][0]["hostPort"] = 18082
    assert [(one["path"], one["before"], one["after"]) for one in differences(LIVE, revision)] == [
        ("containerDefinitions.web.portMappings.8000.hostPort", 18081, 18082),
        ("cpu", "256", None),
        ("memory", None, "512"),
    ]
