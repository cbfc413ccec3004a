"""The dashboard shows what the functions measure: a graph of something else stays empty."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from aws_lambda_powertools.metrics import MetricUnit

from bluegreen.outcome import Word
from runtime.observability import count, measure, metrics
from tests.template.model import Template

SEARCH = re.compile(r"SEARCH\('\{(?P<schema>[^}]*)\} MetricName=(?P<names>.*)', '\w+', \d+\)")
# A name with anything but letters and digits has to be in double quotes:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
NAME = re.compile(r'"([^"]+)"|([A-Za-z0-9]+)')
OUTCOMES = {word.title().replace("_", "") for word in get_args(Word)}

Metric = tuple[str, frozenset[str], str]


def widgets(template: Template) -> list[dict[str, Any]]:
    (dashboard,) = template.of_type("AWS::CloudWatch::Dashboard").values()
    body: dict[str, Any] = json.loads(dashboard["DashboardBody"]["Fn::Sub"])
    return [one["properties"] for one in body["widgets"] if one["type"] == "metric"]


def searched(template: Template) -> Iterator[Metric]:
    """Namespace, dimensions and name of all that is searched for."""
    for widget in widgets(template):
        for (one,) in (line for line in widget["metrics"] if isinstance(line[0], dict)):
            found = SEARCH.fullmatch(one["expression"])
            assert found, one["expression"]
            namespace, *dimensions = map(name, found["schema"].split(","))
            for metric in re.findall(r'"(\w+)"', found["names"]):
                yield namespace, frozenset(dimensions), metric


def named(template: Template) -> Iterator[Metric]:
    """The same of what is shown of the project's own by its name."""
    for widget in widgets(template):
        for line in widget["metrics"]:
            if line[0] == "ecs-bluegreen":
                namespace, metric, dimension, value, _ = line
                assert value == "ecs-bluegreen"
                yield namespace, frozenset({dimension}), metric


def name(part: str) -> str:
    found = NAME.fullmatch(part)
    assert found, f"{part} has to be in double quotes"
    return found[1] or found[2]


def emitted(capsys: pytest.CaptureFixture[str]) -> set[Metric]:
    """What CloudWatch reads in what was printed."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    return {
        (said["Namespace"], frozenset(dimensions), one["Name"])
        for line in lines
        for said in line["_aws"]["CloudWatchMetrics"]
        for dimensions in said["Dimensions"]
        for one in said["Metrics"]
    }


def test_every_end_and_time_is_found(
    template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = (MetricUnit.Seconds, 1.0)
    measure(dict.fromkeys(OUTCOMES, (MetricUnit.Count, 1.0)), service="web")
    measure({"DeploymentSeconds": seconds}, service="web")
    measure({"StateSeconds": seconds}, service="web", state="CheckBake")

    assert set(searched(template)) == emitted(capsys)


def test_what_was_not_told_is_found(
    template: Template, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = template.functions()["TellPeopleFunction"]["Environment"]["Variables"]
    monkeypatch.setattr(metrics().provider, "service", variables["POWERTOOLS_SERVICE_NAME"])
    for one in ("AnnouncementsLost", "AnnouncementsUncertain"):
        count(one)

    assert emitted(capsys) < set(named(template))
