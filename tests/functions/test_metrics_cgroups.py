"""From a schedule to Mackerel, for a cluster whose instances read their cgroups."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluegreen.color import Color
from containermetrics import rates
from containermetrics.sources import cgroups
from runtime import clients
from sandbox.mackerel.server import Fault
from tests.functions.metrics_world import BUCKET, DOCUMENT, KEY, MetricsWorld, entry, printed
from tests.functions.world import BLUE, GREEN

CPU = "custom.ecs.cpu.web.total"


@pytest.fixture
def tasks(metrics: MetricsWorld) -> list[str]:
    """Two tasks of blue."""
    return [metrics.add_task(BLUE).id for _ in range(2)]


def say(metrics: MetricsWorld, tasks: list[str], cpu_seconds: float, **more: Any) -> None:
    """The first two instances run a task each, which have used so much CPU so far."""
    for instance, task in zip(list(metrics.instances.values())[:2], tasks, strict=True):
        instance.says = printed(metrics.now, [entry(task, metrics.now, cpu_seconds, **more)])
    list(metrics.instances.values())[2].says = printed(metrics.now, [])


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the functions' log says of problems."""
    return [str(getattr(record, "reason", "")) for record in caplog.records]


def three_minutes(metrics: MetricsWorld, tasks: list[str]) -> list[int]:
    """Half a core each; returns the minutes."""
    minutes = []
    for number in range(3):
        say(metrics, tasks, 100 + number * 30)
        minutes.append(int(metrics.now // 60 * 60))
        metrics.minute()
    return minutes


def test_cpu_is_a_rate_and_memory_a_sum_over_the_tasks(
    metrics: MetricsWorld, tasks: list[str]
) -> None:
    minutes = three_minutes(metrics, tasks)

    # Nothing for the first minute: a counter alone says nothing.
    assert metrics.series("web-blue", CPU) == {minutes[1]: 100.0, minutes[2]: 100.0}
    assert metrics.series("web-blue", "custom.ecs.cpu_avg.web.total")[minutes[2]] == 50.0
    assert metrics.series("web-blue", "custom.ecs.memory.web.usage") == dict.fromkeys(
        minutes, 100_000_000
    )
    assert metrics.series("web-blue", "custom.ecs.containers.web.running")[minutes[2]] == 2
    assert metrics.totals("ecs.cpu.web")[minutes[2]] == 100.0


def test_both_colours_are_hosts_with_the_status_of_the_traffic(
    metrics: MetricsWorld, tasks: list[str]
) -> None:
    metrics.scale(GREEN, 1)
    metrics.add_task(GREEN)
    three_minutes(metrics, tasks)

    hosts = metrics.mackerel_hosts()

    assert {name: host["status"] for name, host in hosts.items()} == {
        "ecs-bluegreen.123456789012.eu-west-1.web.web-blue": "working",
        "ecs-bluegreen.123456789012.eu-west-1.web.web-green": "standby",
    }
    assert hosts["ecs-bluegreen.123456789012.eu-west-1.web.web-blue"]["roles"] == {"shop": ["web"]}

    metrics.set_weights({BLUE: 0, GREEN: 100})
    metrics.scale(BLUE, 0)
    metrics.minute()

    assert {name: host["status"] for name, host in metrics.mackerel_hosts().items()} == {
        "ecs-bluegreen.123456789012.eu-west-1.web.web-blue": "poweroff",
        "ecs-bluegreen.123456789012.eu-west-1.web.web-green": "working",
    }


def test_a_colour_without_tasks_says_zero(metrics: MetricsWorld, tasks: list[str]) -> None:
    minutes = three_minutes(metrics, tasks)

    running = metrics.series("web-green", "custom.ecs.service.running_tasks")
    assert running == dict.fromkeys(minutes, 0)


def test_a_status_whose_traffic_cannot_be_read_stays(
    metrics: MetricsWorld, tasks: list[str]
) -> None:
    metrics.scale(GREEN, 1)
    three_minutes(metrics, tasks)
    metrics.set_weights({BLUE: 0, GREEN: 100})
    metrics.fault("elbv2", "DescribeListeners", "denied", times=9)
    metrics.minute()

    hosts = metrics.mackerel_hosts()
    assert hosts["ecs-bluegreen.123456789012.eu-west-1.web.web-blue"]["status"] == "working"
    assert hosts["ecs-bluegreen.123456789012.eu-west-1.web.web-green"]["status"] == "standby"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"state": "Failed", "errors": "python3: not found"}, "python3: not found"),
        ({"state": "InProgress"}, "did not answer in time"),
        ({"state": "Success", "says": "Segmentation fault"}, "printed 'Segmentation fault'"),
        ({"tagged": False}, "tag ecs-bluegreen: host"),
        ({"registered": False}, "SSM does not know it"),
    ],
)
def test_one_bad_host_loses_none_of_the_others(
    metrics: MetricsWorld,
    tasks: list[str],
    caplog: pytest.LogCaptureFixture,
    fault: dict[str, Any],
    reason: str,
) -> None:
    three_minutes(metrics, tasks)
    minute = int(metrics.now // 60 * 60)
    say(metrics, tasks, 190)
    bad = next(iter(metrics.instances.values()))
    for name, value in fault.items():
        setattr(bad, name, value)
    caplog.clear()
    metrics.minute()

    assert metrics.series("web-blue", CPU)[minute] == 50.0
    assert metrics.totals("ecs.pusher_hosts_missing.web")[minute] == 1
    said = reasons(caplog)
    assert any(bad.instance_id in one and reason in one for one in said), said


def test_a_problem_that_a_host_names_is_said(
    metrics: MetricsWorld, tasks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    say(metrics, tasks, 100)
    first = next(iter(metrics.instances.values()))
    first.says = printed(
        metrics.now, [entry(tasks[0], metrics.now, 1)], problems=["container db: gone"]
    )
    metrics.minute()

    assert f"{first.instance_id}: container db: gone" in reasons(caplog)


def test_a_clock_that_is_wrong_is_said_and_does_no_harm(
    metrics: MetricsWorld, tasks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    minutes = []
    for number in range(2):
        minutes.append(int(metrics.now // 60 * 60))
        say(metrics, tasks, 100 + number * 30)
        ahead = metrics.now + 7200
        first = next(iter(metrics.instances.values()))
        first.says = printed(ahead, [entry(tasks[0], ahead, 100 + number * 30)])
        metrics.minute()

    assert metrics.series("web-blue", CPU) == {minutes[1]: 100.0}
    assert any("its clock differs by 719" in one for one in reasons(caplog))


def test_output_that_run_command_cuts_is_read_from_s3(
    metrics: MetricsWorld, tasks: list[str]
) -> None:
    say(metrics, tasks, 100)
    metrics.minute()
    minute = int(metrics.now // 60 * 60)
    say(metrics, tasks, 130)
    first = next(iter(metrics.instances.values()))
    whole = printed(metrics.now, [entry(tasks[0], metrics.now, 130)])
    first.says = whole[: len(whole) - 40] + "\n--output truncated--"
    # What the agent writes with the instance's role.
    command = f"00000000-0000-4000-8000-{len(metrics.sent) + 1:012d}"
    clients.s3().put_object(
        Bucket=BUCKET,
        Key=f"metrics/{command}/{first.instance_id}/awsrunShellScript/metrics/stdout",
        Body=whole.encode(),
    )
    metrics.minute()

    assert metrics.series("web-blue", CPU) == {minute: 100.0}
    assert metrics.sent[-1]["OutputS3BucketName"] == BUCKET
    assert metrics.sent[-1]["DocumentName"] == DOCUMENT


def test_output_that_is_cut_and_nowhere_else_loses_only_what_is_cut(
    metrics: MetricsWorld, tasks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    first = next(iter(metrics.instances.values()))
    minute = 0
    for number in range(2):
        minute = int(metrics.now // 60 * 60)
        say(metrics, tasks, 100 + number * 30)
        first.says = (
            printed(metrics.now, [entry(tasks[0], metrics.now, 100 + number * 30)], lines=2)
            + "c-half a line"
            + "--output truncated--"
        )
        metrics.minute()

    assert metrics.series("web-blue", CPU) == {minute: 100.0}
    said = "\n".join(reasons(caplog))
    assert "may the instance write there?" in said
    assert "line 3 of its output is not whole" in said


def test_a_fleet_is_asked_fifty_at_a_time_and_one_batch_that_is_lost_is_named(
    metrics: MetricsWorld, tasks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("containermetrics.sources.cgroups._INSTANCES_PER_COMMAND", 1)
    first = next(iter(metrics.instances))
    for number in range(2):
        say(metrics, tasks, 100 + number * 30)
        minute = int(metrics.now // 60 * 60)
        if number == 1:
            # The message about the first instance, which runs a task, never comes.
            metrics.lose = lambda body: first in body.get("order", {}).get("instance_ids", [])
        metrics.minute()

    assert [len(one["InstanceIds"]) for one in metrics.sent] == [1] * 6
    assert metrics.series("web-blue", CPU) == {minute: 50.0}
    assert metrics.totals("ecs.pusher_hosts_missing.web")[minute] == 1


def test_messages_that_come_twice_change_nothing(metrics: MetricsWorld, tasks: list[str]) -> None:
    metrics.times = 2
    minutes = three_minutes(metrics, tasks)

    assert metrics.series("web-blue", CPU) == {minutes[1]: 100.0, minutes[2]: 100.0}
    assert len(metrics.mackerel_hosts()) == 2


def test_a_schedule_that_comes_twice_changes_nothing(
    metrics: MetricsWorld, tasks: list[str]
) -> None:
    minutes = []
    for number in range(3):
        say(metrics, tasks, 100 + number * 30)
        minutes.append(int(metrics.now // 60 * 60))
        metrics.invoke("push_container_metrics", {})
        metrics.minute()
        metrics.now = minutes[-1] + 60 + metrics.now % 1

    assert metrics.series("web-blue", CPU) == {minutes[1]: 100.0, minutes[2]: 100.0}


def test_a_batch_that_is_late_is_put_together_with_the_others_once_it_is_there(
    metrics: MetricsWorld, tasks: list[str]
) -> None:
    three_minutes(metrics, tasks)
    say(metrics, tasks, 190)
    minute = int(metrics.now // 60 * 60)
    late: list[str] = []

    def lose(body: Any) -> bool:
        if body.get("step") == "answers" and not late:
            late.append(json.dumps(body))
            return True
        return False

    metrics.lose = lose
    metrics.minute()
    assert minute not in metrics.series("web-blue", CPU)
    metrics.now += 30
    metrics.invoke("collect_container_metrics", {"Records": [{"body": late[0]}]})
    metrics.settle()

    assert metrics.series("web-blue", CPU)[minute] == 100.0


def test_a_message_that_comes_again_after_later_minutes_loses_no_rates(
    metrics: MetricsWorld, tasks: list[str]
) -> None:
    """While they still wait for Mackerel, which has no other copy."""
    metrics.mackerel.turn_on(Fault("outage"))
    messages: dict[int, str] = {}
    said: dict[int, dict[str, str]] = {}

    def note(body: Any) -> bool:
        if body.get("step") == "answers":
            messages[body["minute"]] = json.dumps(body)
            said[body["minute"]] = {name: one.says for name, one in metrics.instances.items()}
        return False

    metrics.lose = note
    minutes = three_minutes(metrics, tasks)
    # The second minute once more, when the samples of the third one are there.
    for name, instance in metrics.instances.items():
        instance.says = said[minutes[1]][name]
    again = {"Records": [{"body": messages[minutes[1]]}]}
    metrics.invoke("collect_container_metrics", again)
    metrics.settle()
    metrics.mackerel.turn_off()
    metrics.invoke("deliver_container_metrics", {"Records": [{"body": '{"cluster": "web"}'}]})

    assert metrics.series("web-blue", CPU) == {minutes[1]: 100.0, minutes[2]: 100.0}


def test_hosts_are_not_asked_about_a_minute_that_is_long_past(
    metrics: MetricsWorld, tasks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    say(metrics, tasks, 100)
    body = {"step": "begin", "cluster": "web", "minute": int(metrics.now // 60 * 60) - 300}
    metrics.invoke("collect_container_metrics", {"Records": [{"body": json.dumps(body)}]})
    metrics.settle()

    assert metrics.sent == []
    assert "too late to ask" in reasons(caplog)


@pytest.mark.parametrize("operation", ["ListCommandInvocations", "GetCommandInvocation"])
def test_a_call_that_is_throttled_loses_one_host_at_most(
    metrics: MetricsWorld, tasks: list[str], operation: str
) -> None:
    three_minutes(metrics, tasks)
    minute = int(metrics.now // 60 * 60)
    say(metrics, tasks, 190)
    metrics.fault("ssm", operation, "throttle")
    metrics.minute()

    assert metrics.series("web-blue", CPU)[minute] in (50.0, 100.0)


NONSENSE: list[Any] = [
    5,
    None,
    [5],
    [None],
    [[]],
    [{}],
    [{"task": ["a"], "family": "f", "revision": "1", "container": "c", "at": 1, "c": {}, "g": {}}],
    [{"task": "a", "family": "f", "revision": "1", "container": None, "at": 1, "c": {}, "g": {}}],
    [{"task": "a", "family": "f", "revision": "1", "container": "c", "at": 1, "c": {}, "g": None}],
    [{"task": "a", "family": "f", "revision": "1", "container": "c", "at": "x", "c": {}, "g": {}}],
    [
        {
            "task": "a",
            "family": "f",
            "revision": "1",
            "container": "c",
            "at": 1,
            "c": {"cpu.total": "x"},
            "g": {"memory.usage": 10**400},
        }
    ],
    [
        {
            "task": "a",
            "family": "f",
            "revision": "1",
            "container": "c",
            "plugin": "p",
            "values": [["a"]],
        }
    ],
]


@pytest.mark.parametrize("number", range(len(NONSENSE)))
def test_nonsense_of_one_host_loses_nothing_of_the_others(
    metrics: MetricsWorld, tasks: list[str], number: int
) -> None:
    three_minutes(metrics, tasks)
    minute = int(metrics.now // 60 * 60)
    say(metrics, tasks, 190)
    first = next(iter(metrics.instances.values()))
    packed = base64.b85encode(zlib.compress(json.dumps(NONSENSE[number]).encode())).decode()
    first.says = f"{printed(metrics.now, []).splitlines()[0]}\n{packed}\n"
    metrics.minute()

    assert metrics.series("web-blue", CPU)[minute] == 50.0


@settings(max_examples=300)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["task", "family", "revision", "container", "at", "c", "g", "plugin", "values"]
                ),
                inner,
                max_size=9,
            )
        ),
    )
)
def test_whatever_a_host_prints_is_a_problem_or_numbers(entry_: Any) -> None:
    packed = base64.b85encode(zlib.compress(json.dumps([entry_]).encode())).decode()
    head = printed(1000.0, []).splitlines()[0]
    answer = cgroups._taken_apart("i-1", f"{head}\n{packed}\n", [], 1000.0)

    for sample in answer.samples:
        assert rates.reading(sample, sample).values.keys() <= sample.gauges.keys()
    assert answer.samples or answer.plugin_values or answer.problems


def test_plugins_are_sent_to_the_hosts_and_their_values_and_graphs_to_mackerel(
    metrics: MetricsWorld, tasks: list[str]
) -> None:
    metrics.set_metrics(
        plugins={"memcached": {"container": "cache", "command": "mackerel-plugin-memcached"}}
    )
    say(metrics, tasks, 100)
    graphs = {
        "graphs": {
            "memcached.cmd": {
                "label": "Memcached Command",
                "unit": "integer",
                "metrics": [{"name": "cmd_get", "label": "Get", "stacked": False}],
            }
        }
    }
    for instance, task in zip(list(metrics.instances.values())[:2], tasks, strict=True):
        values = {
            **entry(task, metrics.now, 0, container="cache"),
            "plugin": "memcached",
            "values": [["memcached.cmd.cmd_get", 21]],
            "graphs": graphs,
            "aggregate": "sum",
        }
        instance.says = printed(metrics.now, [values])
    minute = int(metrics.now // 60 * 60)
    metrics.minute()

    sent = metrics.sent[-1]["Parameters"]["Plugins"][0]
    assert len(sent) > 20
    assert metrics.series("web-blue", "custom.memcached.cmd.cmd_get") == {minute: 42}
    assert "custom.memcached.cmd" in metrics.graph_names()


def test_each_task_as_its_own_series_keeps_its_slot(
    metrics: MetricsWorld, tasks: list[str]
) -> None:
    metrics.set_metrics(each_task=True)
    three_minutes(metrics, tasks)
    # The task of slot 0 is replaced; the other one stays where it is.
    _, stays = sorted(tasks)
    kept = metrics.series("web-blue", "custom.ecs.cpu_task.web-1.total")
    new = metrics.add_task(BLUE).id
    for number in (3, 4):
        minute = int(metrics.now // 60 * 60)
        first, second, _ = metrics.instances.values()
        first.says = printed(metrics.now, [entry(new, metrics.now, number * 6)])
        second.says = printed(metrics.now, [entry(stays, metrics.now, 100 + number * 30)])
        metrics.minute()

    assert metrics.series("web-blue", "custom.ecs.cpu_task.web-1.total")[minute] == 50.0
    assert metrics.series("web-blue", "custom.ecs.cpu_task.web-0.total")[minute] == 10.0
    assert set(kept.values()) == {50.0}


def test_a_wrong_configuration_keeps_only_its_own_cluster_from_mackerel(
    metrics: MetricsWorld, tasks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clients.ssm().put_parameter(
        Name="/bluegreen/metrics/other", Value="cluster: other\nsorce: cgroups", Type="String"
    )
    clients.ssm().put_parameter(
        Name="/bluegreen/metrics/third",
        Value="{cluster: web, source: cgroups, mackerel: {service: shop}}",
        Type="String",
    )
    minutes = three_minutes(metrics, tasks)

    assert metrics.series("web-blue", CPU)[minutes[2]] == 100.0
    said = "\n".join(reasons(caplog))
    assert "/bluegreen/metrics/other: 3 mistake(s)" in said
    assert "/bluegreen/metrics/third: is about the cluster 'web'" in said
    assert "sorce: is not a known key" in said


def test_the_key_is_never_in_a_log(
    metrics: MetricsWorld,
    tasks: list[str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    clients.ssm().put_parameter(
        Name="/mackerel/key", Value="wrong-and-secret", Type="SecureString", Overwrite=True
    )
    three_minutes(metrics, tasks)

    said = capfd.readouterr()
    assert "wrong-and-secret" not in said.out + said.err + caplog.text
    assert any("does not accept the API key" in one for one in reasons(caplog))
    assert list(metrics.kept.backlog("web"))


@pytest.mark.parametrize("value", [None, "two words"])
def test_a_key_that_is_none_is_said_and_everything_waits_for_one(
    metrics: MetricsWorld, tasks: list[str], caplog: pytest.LogCaptureFixture, value: str | None
) -> None:
    clients.ssm().delete_parameter(Name="/mackerel/key")
    if value:
        clients.ssm().put_parameter(Name="/mackerel/key", Value=value, Type="SecureString")
    minutes = three_minutes(metrics, tasks)
    assert any("no API key in the SSM parameter /mackerel/key" in one for one in reasons(caplog))
    assert value is None or value not in caplog.text

    clients.ssm().put_parameter(
        Name="/mackerel/key", Value=KEY, Type="SecureString", Overwrite=True
    )
    metrics.forget_warm_functions()
    minutes += three_minutes(metrics, tasks)

    assert list(metrics.series("web-blue", "custom.ecs.memory.web.usage")) == minutes


@pytest.mark.parametrize("color", list(Color))
def test_a_service_that_is_gone_is_retired_after_some_time(
    metrics: MetricsWorld, color: Color
) -> None:
    metrics.set_metrics(retire_after=5)
    metrics.minute()
    assert len(metrics.mackerel_hosts()) == 2
    clients.ecs().delete_service(cluster="web", service=f"web-{color}", force=True)
    for _ in range(4):
        metrics.minute()
    assert len(metrics.mackerel_hosts()) == 2
    for _ in range(2):
        metrics.minute()

    (left,) = metrics.mackerel_hosts()
    assert left == f"ecs-bluegreen.123456789012.eu-west-1.web.web-{color.other}"
