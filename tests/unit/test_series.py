"""From readings to the values, names and statuses that Mackerel gets."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containermetrics.model import TASK, Aggregate, EcsService, PluginValue, Reading, Source
from containermetrics.series import LIMIT, Composed, Slots, compose, placed, role_name


def service(name: str = "web-blue", tasks: int = 2, **more: str | bool | None) -> EcsService:
    role = str(more.get("role", "web"))
    live = more.get("live")
    assert live is None or isinstance(live, bool)
    return EcsService(name, tasks, role, color=str(more.get("color", "")), live=live)


def source(task: str, container: str = "app", of: str = "web-blue", family: str = "web") -> Source:
    return Source(task, of, family, "7", container)


def did(task: str, container: str = "app", of: str = "web-blue", **values: float) -> Reading:
    """``cpu__total=1`` is the metric id cpu.total."""
    return Reading(
        source(task, container, of),
        {name.replace("__", "."): value for name, value in values.items()},
    )


def composed(
    readings: Sequence[Reading] = (),
    services: Sequence[EcsService] = (service(),),
    plugin_values: Sequence[PluginValue] = (),
    slots: Slots | None = None,
    each_task: bool = False,
) -> Composed:
    return compose(
        "1.here", "main", services, readings, plugin_values, "shop", slots or {}, each_task
    )


def values(of: Composed) -> dict[str, float]:
    """Of the first host."""
    return dict(of.hosts[0].values)


# ------------------------------------------------------------------------------- aggregates


def test_a_metric_is_the_sum_the_average_and_the_maximum_over_the_tasks() -> None:
    found = values(composed([did("a", cpu__total=30), did("b", cpu__total=90)]))
    assert found == {
        "custom.ecs.service.running_tasks": 2,
        "custom.ecs.containers.app.running": 2,
        "custom.ecs.cpu.app.total": 120,
        "custom.ecs.cpu_avg.app.total": 60,
        "custom.ecs.cpu_max.app.total": 90,
    }


def test_containers_of_different_names_are_different_series() -> None:
    readings = [did("a", cpu__total=30), did("a", "envoy", cpu__total=2)]
    found = values(composed(readings))
    assert found["custom.ecs.cpu.app.total"] == 30
    assert found["custom.ecs.cpu.envoy.total"] == 2
    assert found["custom.ecs.containers.envoy.running"] == 1


def test_what_only_some_tasks_have_is_averaged_over_those() -> None:
    """A limit, or a rate that the first sample of a task does not give."""
    found = values(composed([did("a", cpu__total=30, cpu__limit=50), did("b", cpu__limit=50)]))
    assert found["custom.ecs.cpu_avg.app.total"] == 30
    assert found["custom.ecs.cpu.app.limit"] == 100


def test_ids_that_share_a_group_but_no_unit_are_in_graphs_of_their_own() -> None:
    found = values(
        composed([did("a", memory_stat__anon=4096, memory_stat__pgfault=2, throttling__time=5)])
    )
    assert found["custom.ecs.memory_stat.app.anon"] == 4096
    assert found["custom.ecs.memory_stat_rate.app.pgfault"] == 2
    assert found["custom.ecs.throttling_time.app.time"] == 5


def test_the_network_of_a_task_is_no_container() -> None:
    readings = [did("a", cpu__total=1), did("a", TASK, network__eth0_rx_bytes=7)]
    found = values(composed(readings))
    assert found["custom.ecs.network.task.eth0_rx_bytes"] == 7
    assert "custom.ecs.containers.task.running" not in found


def test_a_container_may_be_called_task() -> None:
    readings = [did("a", TASK, cpu__total=1), did("a", TASK, network__eth0_rx_bytes=7)]
    found = values(composed(readings))
    assert found["custom.ecs.containers.task.running"] == 1
    assert found["custom.ecs.cpu.task.total"] == 1
    assert found["custom.ecs.network.task.eth0_rx_bytes"] == 7


def test_a_container_that_was_read_twice_counts_once() -> None:
    found = values(composed([did("a", cpu__total=30), did("a", cpu__total=31)]))
    assert found["custom.ecs.cpu.app.total"] == 31
    assert found["custom.ecs.containers.app.running"] == 1


def test_what_is_no_number_loses_only_itself() -> None:
    of = composed([did("a", cpu__total=math.nan, memory__usage=5), did("b", cpu__total=4)])
    assert values(of)["custom.ecs.cpu.app.total"] == 4
    assert values(of)["custom.ecs.memory.app.usage"] == 5
    assert of.problems == ["task a/app: no number for cpu.total"]


def test_a_sum_that_is_too_large_is_no_value() -> None:
    of = composed([did("a", memory__usage=1.7e308), did("b", memory__usage=1.7e308)])
    assert "custom.ecs.memory.app.usage" not in values(of)
    assert values(of)["custom.ecs.memory_max.app.usage"] == 1.7e308


def test_names_have_only_what_mackerel_allows() -> None:
    found = values(composed([Reading(source("a", "app:8080/é"), {"network.eth0.100_rx_bytes": 1})]))
    assert found["custom.ecs.network.app_8080__.eth0_100_rx_bytes"] == 1


def test_ids_that_are_in_no_table_are_not_sent() -> None:
    assert "custom.ecs.gpu.app.total" not in values(composed([did("a", gpu__total=1)]))


# ------------------------------------------------------------------------------------ hosts


def test_a_service_without_tasks_still_says_so() -> None:
    host = composed(services=[service(tasks=0)]).hosts[0]
    assert host.values == {"custom.ecs.service.running_tasks": 0}
    assert host.status == "poweroff"


def test_the_host_of_a_service() -> None:
    host = composed(services=[service(color="blue", live=False)]).hosts[0]
    assert host.custom_identifier == "ecs-bluegreen.1.here.main.web-blue"
    assert host.name == "main.web-blue"
    assert host.role_fullname == "shop:web"
    assert host.status == "standby"


def test_a_role_that_mackerel_would_not_take_is_changed_and_said() -> None:
    of = composed(services=[service(role="_web.front")])
    assert of.hosts[0].role_fullname == "shop:web_front"
    assert of.problems == ["web-blue: role '_web.front' is called 'web_front' at Mackerel"]


def test_a_role_that_no_name_can_be_made_of_costs_only_the_role() -> None:
    of = composed([did("a", cpu__total=1)], services=[service(role="-")])
    assert of.hosts[0].role_fullname == ""
    assert values(of)["custom.ecs.cpu.app.total"] == 1
    assert re.match("web-blue is without a role: ", of.problems[0])


@given(st.text(max_size=100))
def test_a_role_name_is_one_or_there_is_none(text: str) -> None:
    try:
        name = role_name(text)
    except ValueError:
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{1,62}", name)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{1,62}", fullmatch=True))
def test_a_good_role_name_stays(text: str) -> None:
    assert role_name(text) == text


# ------------------------------------------------------------------------- service metrics


def test_totals_of_the_cluster_and_of_each_service() -> None:
    of = composed(
        [
            did("a", cpu__total=30, memory__usage=100),
            did("a", "envoy", cpu__total=1, memory__usage=10),
            did("b", of="api", cpu__total=5, memory__usage=1),
        ],
        services=[service(tasks=1), service("api", tasks=1), service("idle", tasks=0)],
    )
    assert of.services == {
        "shop": {
            "ecs.running_tasks.main": 2,
            "ecs.cpu.main": 36,
            "ecs.memory.main": 111,
            "ecs.running_tasks.main.web-blue": 1,
            "ecs.cpu.main.web-blue": 31,
            "ecs.memory.main.web-blue": 110,
            "ecs.running_tasks.main.api": 1,
            "ecs.cpu.main.api": 5,
            "ecs.memory.main.api": 1,
            "ecs.running_tasks.main.idle": 0,
        }
    }


def test_tasks_of_no_service_are_counted_under_their_family() -> None:
    batch = [
        Reading(Source(task, "", "batch", "1", "job"), {"cpu.total": 10}) for task in ("x", "y")
    ]
    of = composed([did("a", cpu__total=30), *batch], services=[service(tasks=1)])
    assert [host.name for host in of.hosts] == ["main.web-blue"]
    assert of.services["shop"]["ecs.running_tasks.main.batch"] == 2
    assert of.services["shop"]["ecs.cpu.main.batch"] == 20
    assert of.services["shop"]["ecs.running_tasks.main"] == 3
    assert of.services["shop"]["ecs.cpu.main"] == 50
    assert of.problems == [
        "2 task(s) of family batch belong to no ECS service: they are only in the service metrics "
        "ecs.*.main.batch"
    ]


def test_a_family_does_not_take_the_place_of_a_service_of_its_name() -> None:
    stranger = Reading(Source("x", "gone", "web-blue", "1", "job"), {"cpu.total": 10})
    of = composed([did("a", cpu__total=30), stranger])
    assert of.services["shop"]["ecs.cpu.main.web-blue"] == 30
    assert of.services["shop"]["ecs.cpu.main.web-blue-tasks"] == 10


def test_a_reading_gets_its_service_by_its_task() -> None:
    stray, known = did("a", of="", cpu__total=1), did("b", of="api")
    found = placed([stray, known, did("c", of="")], {"a": "web-blue", "b": "other"})
    assert [one.source.service for one in found] == ["web-blue", "api", ""]
    assert found[0].values == {"cpu.total": 1}


# -------------------------------------------------------------------------------- plugins


def said(task: str, key: str, value: float, how: Aggregate = "sum") -> PluginValue:
    return PluginValue(source(task, "cache"), key, value, how)


@pytest.mark.parametrize(("how", "value"), [("sum", 9), ("average", 4.5), ("maximum", 7)])
def test_plugin_values_over_the_tasks(how: Aggregate, value: float) -> None:
    of = composed(
        plugin_values=[
            said("a", "memcached.cmd.get", 2, how),
            said("b", "memcached.cmd.get", 7, how),
        ]
    )
    assert values(of)["custom.memcached.cmd.get"] == value
    assert not of.problems


def test_a_plugin_value_that_came_twice_counts_once() -> None:
    of = composed(plugin_values=[said("a", "m.x", 2), said("a", "m.x", 3), said("b", "m.x", 4)])
    assert values(of)["custom.m.x"] == 7


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("m.x", math.nan),
        ("m.x", math.inf),
        ("m..x", 1),
        (".m", 1),
        ("", 1),
        ("ecs.cpu.app.total", 1),
    ],
)
def test_what_a_plugin_may_not_say_loses_only_itself(key: str, value: float) -> None:
    of = composed(
        [did("a", cpu__total=30)], plugin_values=[said("a", key, value), said("a", "m.y", 1)]
    )
    assert values(of)["custom.m.y"] == 1
    assert values(of)["custom.ecs.cpu.app.total"] == 30
    assert f"custom.{key}" not in values(of) or key == "ecs.cpu.app.total"
    assert len(of.problems) == 1
    assert re.match(f"web-blue: plugin metric {re.escape(repr(key))} is left out: ", of.problems[0])


def test_a_plugin_of_a_task_of_no_service_is_left_out_and_said() -> None:
    stray = PluginValue(source("x", "cache", of=""), "m.x", 1)
    of = composed(plugin_values=[stray, said("a", "m.x", 2)])
    assert values(of)["custom.m.x"] == 2
    assert of.problems == [
        "task x/cache belongs to no ECS service: what its plugins said is left out"
    ]


# -------------------------------------------------------------------------------- each task


def test_each_task_is_a_series_of_its_own_when_asked_for() -> None:
    readings = [did("b", cpu__total=2, cpu_core__0=1), did("a", cpu__total=1)]
    of = composed(readings, each_task=True)
    found = {name: value for name, value in values(of).items() if "_task." in name}
    # Key metrics only: the others are for the service as a whole.
    assert found == {"custom.ecs.cpu_task.app-0.total": 1, "custom.ecs.cpu_task.app-1.total": 2}
    assert of.slots == {"web-blue/app": {"a": 0, "b": 1}}
    assert not [name for name in values(composed(readings)) if "_task." in name]


def test_a_task_keeps_its_slot_and_a_new_one_gets_the_lowest_that_is_free() -> None:
    before = {"web-blue/app": {"a": 0, "b": 1, "c": 2}}
    of = composed(
        [did(task, cpu__total=1) for task in ("c", "a", "new")],
        services=[service(tasks=3)],
        slots=before,
        each_task=True,
    )
    assert of.slots == {"web-blue/app": {"a": 0, "new": 1, "c": 2}}


def test_a_task_that_did_not_answer_keeps_its_slot() -> None:
    before = {"web-blue/app": {"a": 0, "b": 1}}
    missed = composed([did("b", cpu__total=1)], slots=before, each_task=True)
    assert missed.slots == before
    none = composed(slots=before, each_task=True)
    assert none.slots == before


def test_slots_end_with_the_tasks() -> None:
    before = {"web-blue/app": {"a": 0}, "gone/app": {"x": 0}}
    of = composed(services=[service(tasks=0)], slots=before, each_task=True)
    assert of.slots == {}


def test_slots_stay_as_they_are_while_nobody_asks_for_them() -> None:
    before = {"gone/app": {"x": 0}}
    assert composed(slots=before).slots == before


task_ids = st.sets(st.sampled_from("abcdefgh"))


@given(st.lists(task_ids, min_size=1, max_size=8))
def test_slots_are_never_shared_and_never_change_hands(minutes: list[set[str]]) -> None:
    slots: Slots = {}
    for tasks in minutes:
        before = slots.get("web-blue/app", {})
        slots = composed(
            [did(task, cpu__total=1) for task in sorted(tasks)],
            services=[service(tasks=len(tasks))],
            slots=slots,
            each_task=True,
        ).slots
        now = slots.get("web-blue/app", {})
        assert tasks == set(now)
        assert len(set(now.values())) == len(now)
        assert all(now[task] == before[task] for task in tasks & set(before))
        # The lowest that are free: as many as there ever were at once are enough.
        assert all(slot < max(map(len, minutes)) for slot in now.values())


# -------------------------------------------------------------------------------- the limit


def crowd(containers: int) -> list[Reading]:
    """A task with many containers, each with 2 key metrics and 3 others."""
    return [
        did(
            "a",
            f"c{number:03d}",
            cpu__total=1,
            memory__limit=1,
            memory__rss=1,
            processes__pids=1,
            blkio_ops__sda_read=1,
        )
        for number in range(containers)
    ]


def kinds(names: Sequence[str]) -> dict[str, int]:
    """Graph → how many of its metrics are there."""
    count: dict[str, int] = {}
    for name in names:
        graph = ".".join(part for part in name.split(".")[:3] if part != "custom")
        count[graph] = count.get(graph, 0) + 1
    return count


def test_up_to_the_limit_everything_is_sent() -> None:
    # 13 containers: 1 + 13 × (1 + 5 × 3) = 209; 12: 193.
    of = composed(crowd(12))
    assert len(values(of)) == 193
    assert of.left_out == 0
    assert not of.problems


def test_above_the_limit_the_least_of_it_is_left_out_and_said() -> None:
    of = composed(crowd(13))
    assert len(values(of)) == LIMIT
    assert of.left_out == 9
    assert of.problems == [
        "web-blue: 9 of 209 metrics are left out, a Mackerel host has 200: "
        "custom.ecs.processes_max.c004.pids, custom.ecs.processes_max.c005.pids, "
        "custom.ecs.processes_max.c006.pids and 6 more"
    ]


@pytest.mark.parametrize("containers", [13, 36, 99, 150])
def test_whatever_is_left_out_is_counted(containers: int) -> None:
    of = composed(crowd(containers), plugin_values=[said("a", "plugin.p", 1)], each_task=True)
    there = kinds(list(values(of)))
    assert len(values(of)) == LIMIT
    assert of.left_out == 2 + containers * 18 - LIMIT
    assert there["ecs.service"] == 1
    assert there["ecs.containers"] == containers


def test_plugins_come_before_each_task_and_that_before_the_others() -> None:
    of = composed(crowd(20), plugin_values=[said("a", "plugin.p", 1)], each_task=True)
    there = kinds(list(values(of)))
    # 1 + 20 + 40 + 40 + 1 + 40 = 142, and 58 of the 60 other sums.
    assert there["ecs.cpu_task"] == there["ecs.memory_task"] == 20
    assert there["plugin.p"] == 1
    assert "ecs.memory_avg" not in there
    assert there["ecs.processes"] == 18

    of = composed(crowd(36), plugin_values=[said("a", "plugin.p", 1)], each_task=True)
    there = kinds(list(values(of)))
    # 1 + 36 + 72 + 72 + 1 = 182, and 18 of the 72 of the task: CPU first.
    assert there["plugin.p"] == 1
    assert there["ecs.cpu_task"] == 18
    assert "ecs.memory_task" not in there
    assert "ecs.processes" not in there

    of = composed(crowd(60), plugin_values=[said("a", "plugin.p", 1)], each_task=True)
    there = kinds(list(values(of)))
    # 1 + 60 + 120 = 181, and 19 averages of CPU.
    assert there["ecs.cpu"] == there["ecs.memory"] == 60
    assert there["ecs.cpu_avg"] == 19
    assert "plugin.p" not in there


# ---------------------------------------------------------------------------- whatever comes

metric_ids = st.sampled_from(
    ["cpu.total", "memory.usage", "memory_stat.anon", "network.eth0.1_rx_bytes", "gpu.x"]
)
readings_ = st.lists(
    st.builds(
        Reading,
        st.builds(
            Source,
            task=st.sampled_from("abcdef"),
            service=st.sampled_from(["web-blue", "api", "gone", ""]),
            family=st.text(max_size=3),
            revision=st.just("1"),
            container=st.text(max_size=4),
        ),
        st.dictionaries(metric_ids, st.integers(0, 10**9)),
    ),
    max_size=30,
    unique_by=lambda one: (one.source.task, one.source.container),
)


def as_in_a_cluster(readings: list[Reading]) -> list[Reading]:
    """A task belongs to one service and family, and its containers differ by name at Mackerel."""
    first: dict[str, Source] = {}
    found: dict[tuple[str, str], Reading] = {}
    for one in readings:
        task, container = one.source.task, one.source.container
        home = first.setdefault(task, one.source)
        moved = Source(task, home.service, home.family, "1", container)
        name = re.sub(r"[^A-Za-z0-9_-]", "_", container) or "_"
        found[task, name] = Reading(moved, one.values)
    return list(found.values())


@given(readings_.map(as_in_a_cluster), st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_readings_does_not_matter(
    readings: list[Reading], chance: random.Random, each_task: bool
) -> None:
    services = [service(), service("api", 3)]
    shuffled = list(readings)
    chance.shuffle(shuffled)
    assert composed(shuffled, services, each_task=each_task) == composed(
        readings, services, each_task=each_task
    )


@given(readings_)
def test_whatever_comes_mackerel_takes_what_is_sent(readings: list[Reading]) -> None:
    of = composed(readings, [service(), service("api", 3)], each_task=True)
    for host in of.hosts:
        assert len(host.values) <= LIMIT
        assert host.values["custom.ecs.service.running_tasks"] in (2, 3)
        for name, value in host.values.items():
            assert re.fullmatch(r"custom(\.[-a-zA-Z0-9_]+)+", name)
            assert math.isfinite(value)
    for name, value in of.services["shop"].items():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
        assert math.isfinite(value)


@given(readings_.map(as_in_a_cluster))
def test_nothing_is_counted_twice_or_lost(readings: list[Reading]) -> None:
    """The sums of all series are what was read."""
    of = composed(readings, [service(), service("api", 3)])
    for graph, metric in (("cpu", "total"), ("memory", "usage")):
        read = [(one.source.service, one.values.get(f"{graph}.{metric}", 0)) for one in readings]
        sent = sum(
            value
            for host in of.hosts
            for series, value in host.values.items()
            if re.fullmatch(rf"custom\.ecs\.{graph}\.[^.]+\.{metric}", series)
        )
        assert sent == sum(value for home, value in read if home in ("web-blue", "api"))
        assert of.services["shop"].get(f"ecs.{graph}.main", 0) == sum(value for _, value in read)
