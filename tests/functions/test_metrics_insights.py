"""From a schedule to Mackerel, for a cluster whose numbers come from Container Insights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from runtime import clients
from sandbox.mackerel.server import Fault
from tests.functions.metrics_world import MetricsWorld
from tests.functions.world import BLUE

CPU = "custom.ecs.cpu.web.total"
READ = "custom.ecs.blkio_bytes.web.all_read"


@pytest.fixture
def insights(metrics: MetricsWorld) -> MetricsWorld:
    metrics.set_metrics(source="container-insights")
    return metrics


def event(task: str, cpu: float = 512, read: float = 0, **more: Any) -> Mapping[str, Any]:
    return {
        "Type": "Container",
        "ClusterName": "web",
        "TaskId": task,
        "ContainerName": "web",
        "TaskDefinitionFamily": "web",
        "TaskDefinitionRevision": "1",
        "ServiceName": "web-blue",
        "CpuUtilized": cpu,
        "MemoryUtilized": 64,
        "StorageReadBytes": read,
        **more,
    }


def write_minute(world: MetricsWorld, minute: int, **more: Any) -> None:
    """Two tasks of half a core each, that read 6 MB a minute."""
    read = (minute - 1_799_000_000) * 100_000
    world.write_insights(minute, [event(task, read=read, **more) for task in ("a", "b")])


def run(world: MetricsWorld, count: int) -> list[int]:
    """So many minutes of log, and a run of the functions at each; returns the minutes."""
    minutes = []
    for _ in range(count):
        minute = int(world.now // 60 * 60)
        minutes.append(minute)
        write_minute(world, minute)
        world.minute()
    return minutes


def test_every_minute_of_the_log_comes_to_mackerel_once_it_has_settled(
    insights: MetricsWorld,
) -> None:
    minutes = run(insights, 8)

    settled = minutes[:-3]
    assert insights.series("web-blue", CPU) == dict.fromkeys(settled, 100.0)
    # A rate needs the minute before, which the log has from the first one on.
    assert insights.series("web-blue", READ) == dict.fromkeys(settled[1:], 200_000.0)
    assert insights.series("web-blue", "custom.ecs.memory.web.usage")[settled[0]] == 128 * 2**20


def test_a_task_whose_events_come_late_is_in_the_sum_in_the_end(insights: MetricsWorld) -> None:
    run(insights, 4)
    minute = int(insights.now // 60 * 60)
    insights.write_insights(minute, [event("a")])
    for _ in range(4):
        insights.minute()
    assert insights.series("web-blue", CPU)[minute] == 50.0

    insights.write_insights(minute, [event("b")])
    insights.minute()

    assert insights.series("web-blue", CPU)[minute] == 100.0


def test_a_pause_of_the_pusher_leaves_no_gap(insights: MetricsWorld) -> None:
    minutes = run(insights, 4)
    for _ in range(25):
        minute = int(insights.now // 60 * 60)
        minutes.append(minute)
        write_minute(insights, minute)
        insights.now += 60
    minutes += run(insights, 5)

    assert list(insights.series("web-blue", CPU)) == minutes[:-3]
    assert set(insights.series("web-blue", READ).values()) == {200_000.0}


def test_an_hour_without_mackerel_leaves_no_gap(insights: MetricsWorld) -> None:
    minutes = run(insights, 4)
    insights.mackerel.turn_on(Fault("outage"))
    minutes += run(insights, 60)
    insights.mackerel.turn_off()
    before = insights.series("web-blue", CPU)
    minutes += run(insights, 2)

    assert len(before) < 5
    assert list(insights.series("web-blue", CPU)) == minutes[:-3]
    assert set(insights.series("web-blue", CPU).values()) == {100.0}
    assert list(insights.mackerel_hosts()) == [
        "ecs-bluegreen.123456789012.eu-west-1.web.web-blue",
        "ecs-bluegreen.123456789012.eu-west-1.web.web-green",
    ]
    assert [kept.key for kept in insights.kept.backlog("web") if "#services" not in kept.key] == []
    assert list(insights.totals("ecs.cpu.web")) == minutes[:-3]
    assert list(insights.kept.backlog("web")) == []


def test_what_is_older_than_a_day_is_dropped_and_counted(
    insights: MetricsWorld, caplog: pytest.LogCaptureFixture
) -> None:
    run(insights, 4)
    insights.mackerel.turn_on(Fault("outage"))
    lost = run(insights, 5)
    insights.now += 86_400
    insights.mackerel.turn_off()
    run(insights, 5)

    kept = insights.series("web-blue", CPU)
    assert not set(lost[2:]) & set(kept)
    assert max(insights.totals("ecs.pusher_dropped.web").values()) > 0
    assert any("older than 24 h" in str(getattr(one, "reason", "")) for one in caplog.records)


def test_a_cluster_without_container_insights_says_how_to_turn_it_on(
    insights: MetricsWorld, caplog: pytest.LogCaptureFixture
) -> None:
    insights.minute()

    assert any(
        "turn Container Insights on" in str(getattr(one, "reason", "")) for one in caplog.records
    )
    # What ECS says is there all the same.
    assert set(insights.series("web-blue", "custom.ecs.service.running_tasks").values()) == {2}


def test_events_that_are_not_as_they_should_be_are_counted_and_lose_nothing_else(
    insights: MetricsWorld, caplog: pytest.LogCaptureFixture
) -> None:
    minutes = []
    for _ in range(5):
        minute = int(insights.now // 60 * 60)
        minutes.append(minute)
        write_minute(insights, minute)
        insights.write_insights(minute, [event("c", TaskId=None), event("d", CpuUtilized="NaN")])
        insights.minute()

    assert insights.series("web-blue", CPU)[minutes[0]] == 100.0
    assert any("events of the log" in str(getattr(one, "reason", "")) for one in caplog.records)


def test_a_task_whose_events_do_not_name_its_service_is_looked_up(insights: MetricsWorld) -> None:
    task = insights.add_task(BLUE)
    minutes = []
    for _ in range(5):
        minutes.append(int(insights.now // 60 * 60))
        insights.write_insights(minutes[-1], [event(task.id, ServiceName=None)])
        insights.minute()

    assert insights.series("web-blue", CPU)[minutes[0]] == 50.0


def test_two_runs_at_a_time_do_no_harm(insights: MetricsWorld) -> None:
    minutes = []
    for _ in range(6):
        minutes.append(int(insights.now // 60 * 60))
        write_minute(insights, minutes[-1])
        began = insights.now
        # The schedule came twice: both messages are handed on, one after the other's begin.
        insights.invoke("push_container_metrics", {})
        insights.invoke("push_container_metrics", {})
        insights.settle()
        insights.now = began + 60

    assert insights.series("web-blue", CPU) == dict.fromkeys(minutes[:-3], 100.0)
    assert len(insights.mackerel_hosts()) == 2


def test_a_configuration_that_was_removed_stops_quietly(insights: MetricsWorld) -> None:
    run(insights, 4)
    clients.ssm().delete_parameter(Name="/bluegreen/metrics/web")

    assert insights.invoke("push_container_metrics", {}) == {"clusters": []}
