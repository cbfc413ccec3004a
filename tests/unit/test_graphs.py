"""Graph definitions, held to what Mackerel's API says of them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containermetrics.graphs import DEFINITIONS, of_plugin
from containermetrics.metrics import METRICS
from containermetrics.model import EcsService, Reading, Source
from containermetrics.series import compose
from sandbox.mackerel.rules import UNITS

NAME = re.compile(r"^custom(\.([-a-zA-Z0-9_]+|[*#]))+$")


def assert_mackerel_takes(definition: dict[str, Any]) -> None:
    name = definition["name"]
    assert NAME.match(name)
    assert name.count("#") <= 1
    assert definition["unit"] in UNITS
    assert definition["displayName"]
    assert definition["metrics"]
    for metric in definition["metrics"]:
        assert NAME.match(metric["name"])
        assert metric["name"].rpartition(".")[0] == name
        assert metric["name"].count("#") <= 1
        wildcards = len(re.findall(r"[*#]", metric["name"]))
        assert all(int(used) <= wildcards for used in re.findall(r"%(\d)", metric["displayName"]))
        assert isinstance(metric["isStacked"], bool)


def shown(name: str) -> dict[str, Any] | None:
    """How a metric is shown: its definition, with its graph's unit; None when in no graph."""
    for definition in DEFINITIONS:
        for metric in definition["metrics"]:
            pattern = re.escape(metric["name"]).replace(r"\#", "[^.]+").replace(r"\*", "[^.]+")
            if re.fullmatch(pattern, name):
                return {"unit": definition["unit"], **metric}
    return None


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda one: str(one["name"]))
def test_mackerel_takes_every_definition(definition: dict[str, Any]) -> None:
    assert_mackerel_takes(definition)


def test_no_graph_is_defined_twice() -> None:
    names = [definition["name"] for definition in DEFINITIONS]
    assert len(set(names)) == len(names)


EVERY_KIND = {
    "cpu.total": "percentage",
    "cpu.limit": "percentage",
    "cpu_core.3": "percentage",
    "throttling.periods": "float",
    "throttling.time": "percentage",
    "memory.usage": "bytes",
    "memory.memsw_peak": "bytes",
    "memory_stat.active_anon": "bytes",
    "memory_stat.pgfault": "float",
    "memory_events.oom": "float",
    "blkio_bytes.dm-0_read": "bytes/sec",
    "blkio_ops.dm-0_write": "iops",
    "network.eth0_rx_bytes": "bytes/sec",
    "network.eth0_rx_errors": "float",
    "processes.threads": "integer",
}


def test_every_metric_that_is_sent_is_in_a_graph_with_its_unit() -> None:
    source = Source("0123", "web", "web", "1", "app")
    composed = compose(
        "1.here",
        "main",
        [EcsService("web", 1, "web")],
        [Reading(source, dict.fromkeys(EVERY_KIND, 1.0))],
        [],
        "shop",
        {},
        each_task=True,
    )
    names = composed.hosts[0].values
    # Sum, average, maximum, and the key metrics of the task; and the two counts.
    assert len(names) == len(EVERY_KIND) * 3 + 5 + 2
    found = {name: shown(name) for name in names}
    assert [name for name, graph in found.items() if graph is None] == []
    units = {str(name.split(".")[2]): graph["unit"] for name, graph in found.items() if graph}
    for metric_id, unit in EVERY_KIND.items():
        graph = next(metric.graph for metric in METRICS if re.fullmatch(metric.id, metric_id))
        assert {units[graph], units[f"{graph}_avg"], units[f"{graph}_max"]} == {unit}


@pytest.mark.parametrize(
    ("name", "stacked"),
    [
        ("custom.ecs.cpu.app.total", True),
        # Parts of the total, and what it is held against.
        ("custom.ecs.cpu.app.user", False),
        ("custom.ecs.cpu.app.limit", False),
        ("custom.ecs.cpu_task.app-0.total", True),
        ("custom.ecs.cpu_avg.app.total", False),
        ("custom.ecs.memory.app.usage", False),
        ("custom.ecs.memory.app.limit", False),
        # The same bytes show on a disk and on the device mapper above it.
        ("custom.ecs.blkio_bytes.app.sda_read", False),
        ("custom.ecs.service.running_tasks", True),
        ("custom.ecs.containers.app.running", True),
    ],
)
def test_what_adds_up_is_stacked(name: str, stacked: bool) -> None:
    graph = shown(name)
    assert graph is not None
    assert graph["isStacked"] is stacked


MEMCACHED = {
    "graphs": {
        "memcached.cmd": {
            "label": "Memcached Command",
            "unit": "integer",
            "metrics": [
                {"name": "cmd_get", "label": "Get", "stacked": False},
                {"name": "cmd_set", "label": "Set", "stacked": True},
            ],
        },
    }
}


def test_the_definition_of_a_plugin() -> None:
    assert of_plugin(MEMCACHED) == [
        {
            "name": "custom.memcached.cmd",
            "displayName": "Memcached Command",
            "unit": "integer",
            "metrics": [
                {
                    "name": "custom.memcached.cmd.cmd_get",
                    "displayName": "Get",
                    "isStacked": False,
                },
                {"name": "custom.memcached.cmd.cmd_set", "displayName": "Set", "isStacked": True},
            ],
        }
    ]


@pytest.mark.parametrize(
    "graphs",
    [
        {"a b": {"metrics": [{"name": "x"}]}},
        {"a..b": {"metrics": [{"name": "x"}]}},
        {"": {"metrics": [{"name": "x"}]}},
        {"a": {"metrics": [{"name": "x.y z"}, {"label": "no name"}, 5]}},
        {"a.#": {"metrics": [{"name": "#"}]}},
        {"a": {"metrics": [{"name": "x.y"}]}},
        {"a": {"metrics": []}},
        {"a": None},
        # Whoever sends these would change the graphs of the containers.
        {"ecs.cpu.#": {"metrics": [{"name": "total"}]}},
        {"ecs": {"metrics": [{"name": "total"}]}},
    ],
)
def test_what_mackerel_would_refuse_is_left_out(graphs: dict[str, Any]) -> None:
    assert of_plugin({"graphs": {**graphs, **MEMCACHED["graphs"]}}) == of_plugin(MEMCACHED)


def test_an_unknown_unit_is_a_number() -> None:
    assert of_plugin({"graphs": {"a": {"unit": "furlong", "metrics": [{"name": "x"}]}}}) == [
        {
            "name": "custom.a",
            "displayName": "a",
            "unit": "float",
            "metrics": [{"name": "custom.a.x", "displayName": "x", "isStacked": False}],
        }
    ]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
names = st.text("ab.#* _-%", max_size=6)


@given(
    anything
    | st.fixed_dictionaries(
        {
            "graphs": st.dictionaries(
                names,
                anything
                | st.fixed_dictionaries(
                    {
                        "label": anything,
                        "unit": anything,
                        "metrics": st.lists(
                            anything | st.fixed_dictionaries({"name": names, "label": anything})
                        ),
                    }
                ),
            )
        }
    )
)
def test_whatever_a_plugin_prints_mackerel_takes_what_comes_of_it(meta: Any) -> None:
    for definition in of_plugin(json.loads(json.dumps(meta))):
        if not re.search(r"%\d", json.dumps(definition)):
            assert_mackerel_takes(definition)
