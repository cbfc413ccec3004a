"""The performance log of Container Insights, read by boto3's client from a log on this machine."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mypy_boto3_logs import CloudWatchLogsClient

from containermetrics.errors import SourceUnavailable
from containermetrics.model import TASK, Reading, Sample, Source
from containermetrics.sources import container_insights
from containermetrics.sources.container_insights import minutes, read, sample
from performance_log import PerformanceLog, event

MINUTE = 1_623_963_900  # of AWS's example
MIB = 1024 * 1024

# As in AWS's documentation of the log.
EXAMPLE = """{
    "Version":"0", "Type":"Container", "ContainerName":"sleep",
    "TaskId":"7ac4dfba69214411b4783a3b8189c9ba",
    "TaskDefinitionFamily":"sleep360", "TaskDefinitionRevision":"1",
    "ContainerInstanceId":"0d7650e6dec34c1a9200f72098071e8f",
    "EC2InstanceId":"i-0c470579dbcdbd2f3", "ClusterName":"MyCluster", "Image":"busybox",
    "ContainerKnownStatus":"RUNNING", "Timestamp":1623963900000,
    "CpuUtilized":0.0, "CpuReserved":10.0, "MemoryUtilized":0, "MemoryReserved":10,
    "StorageReadBytes":0, "StorageWriteBytes":0,
    "NetworkRxBytes":0, "NetworkRxDropped":0, "NetworkRxErrors":0, "NetworkRxPackets":14,
    "NetworkTxBytes":0, "NetworkTxDropped":0, "NetworkTxErrors":0, "NetworkTxPackets":0
}"""


def sampled(message: str | dict[str, Any]) -> Sample:
    found = sample(message if isinstance(message, str) else json.dumps(message))
    assert isinstance(found, Sample), found
    return found


# ------------------------------------------------------------------------------------ one event


def test_the_example_of_the_documentation() -> None:
    found = sampled(EXAMPLE)
    assert found.source == Source("7ac4dfba69214411b4783a3b8189c9ba", "", "sleep360", "1", "sleep")
    assert found.at == MINUTE
    assert found.counters == {"blkio_bytes.all_read": 0, "blkio_bytes.all_write": 0}
    assert found.gauges == {
        "cpu.total": 0,
        "cpu.limit": pytest.approx(0.9765625),
        "memory.usage": 0,
        "memory.limit": 10 * MIB,
        "network.all_rx_bytes": 0,
        "network.all_rx_dropped": 0,
        "network.all_rx_errors": 0,
        "network.all_rx_packets": 14,
        "network.all_tx_bytes": 0,
        "network.all_tx_dropped": 0,
        "network.all_tx_errors": 0,
        "network.all_tx_packets": 0,
    }


@pytest.mark.parametrize("enhanced", [False, True])
def test_both_spellings_and_their_units(enhanced: bool) -> None:
    numbers = {
        "CpuUtilized": 512,
        "CpuReserved": 1024,
        "MemoryUtilized": 3,
        "MemoryReserved": 4,
        "StorageReadBytes": 4096,
        "NetworkTxBytes": 12.5,
    }
    found = sampled(event(MINUTE, enhanced=enhanced, numbers=numbers, ServiceName="web-blue"))
    assert found.source.service == "web-blue"
    assert found.gauges["cpu.total"] == 50
    assert found.gauges["cpu.limit"] == 100
    assert found.gauges["memory.usage"] == 3 * MIB
    assert found.gauges["memory.limit"] == 4 * MIB
    assert found.gauges["network.all_tx_bytes"] == 12.5
    assert found.counters["blkio_bytes.all_read"] == 4096


def test_nothing_reserved_is_no_limit() -> None:
    found = sampled(event(MINUTE, numbers={"CpuUtilized": 5}))
    assert not {"cpu.limit", "memory.limit"} & found.gauges.keys()


def test_a_task_may_be_given_by_its_arn() -> None:
    arn = "arn:aws:ecs:us-east-1:123456789012:task/main/0123abcd"
    assert sampled(event(MINUTE, numbers={}, TaskId=arn)).source.task == "0123abcd"


@pytest.mark.parametrize("wrong", [None, "12", -1, float("nan"), float("inf"), 10**400, True, []])
def test_a_field_that_is_no_number_loses_only_itself(wrong: Any) -> None:
    found = sampled({**event(MINUTE, numbers={"MemoryUtilized": 3}), "CpuUtilized": wrong})
    assert "cpu.total" not in found.gauges
    assert found.gauges["memory.usage"] == 3 * MIB


GARBAGE = [
    ("", "not JSON"),
    ("{", "not JSON"),
    ("[" * 100_000, "not JSON"),
    ("[]", "not about a container"),
    ("3", "not about a container"),
    (json.dumps({"Type": "Task", "TaskId": "a", "Timestamp": 0}), "not about a container"),
    (json.dumps({**event(MINUTE, numbers={}), "TaskId": None}), "without task or container"),
    (json.dumps({**event(MINUTE, numbers={}), "ContainerName": ""}), "without task or container"),
    (json.dumps({**event(MINUTE, numbers={}), "Timestamp": "now"}), "without time"),
    (
        json.dumps(
            {"Type": "Container", "TaskId": "a", "ContainerName": "b", "Timestamp": 0, "Cpu": 1}
        ),
        "without numbers",
    ),
]


@pytest.mark.parametrize(("message", "reason"), GARBAGE, ids=range(len(GARBAGE)))
def test_what_cannot_be_read_says_why(message: str, reason: str) -> None:
    assert sample(message) == reason


@given(st.text() | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
).map(json.dumps))  # fmt: skip
def test_whatever_stands_in_the_log_is_read_or_counted(message: str) -> None:
    assert isinstance(sample(message), Sample | str)


# -------------------------------------------------------------------------------------- minutes


def at(
    second: float, task: str = "a", container: str = "app", read_bytes: float = 0.0, **gauges: float
) -> Sample:
    """``cpu__total=1`` is the metric id cpu.total."""
    return Sample(
        Source(task, "web-blue", "web", "1", container),
        MINUTE + second,
        {"blkio_bytes.all_read": read_bytes},
        {name.replace("__", "."): value for name, value in gauges.items()},
    )


def value(found: dict[int, list[Reading]], second: int, metric_id: str) -> float | None:
    """Of the only container of a minute."""
    [one] = found[MINUTE + second]
    return one.values.get(metric_id)


def test_rates_come_from_the_minute_before() -> None:
    samples = [at(-60, read_bytes=600), at(0, read_bytes=1200), at(60, read_bytes=1200)]
    found = minutes(samples, MINUTE, MINUTE + 120)
    assert sorted(found) == [MINUTE, MINUTE + 60]
    assert value(found, 0, "blkio_bytes.all_read") == 10
    assert value(found, 60, "blkio_bytes.all_read") == 0


def test_late_events_in_any_order() -> None:
    samples = [at(60, read_bytes=1200), at(0, read_bytes=600), at(-60)]
    found = minutes(samples, MINUTE, MINUTE + 120)
    assert value(found, 0, "blkio_bytes.all_read") == 10
    assert value(found, 60, "blkio_bytes.all_read") == 10


def test_a_minute_that_is_missing_is_bridged_and_not_invented() -> None:
    found = minutes([at(-60), at(60, read_bytes=1200)], MINUTE, MINUTE + 120)
    assert sorted(found) == [MINUTE + 60]
    assert value(found, 60, "blkio_bytes.all_read") == 10


def test_a_container_that_was_started_anew_has_no_rate() -> None:
    found = minutes([at(-60, read_bytes=9000), at(0, cpu__total=1)], MINUTE, MINUTE + 60)
    assert value(found, 0, "blkio_bytes.all_read") is None
    assert value(found, 0, "cpu.total") == 1


def test_an_event_that_came_twice_counts_once_and_the_latest_holds() -> None:
    samples = [at(0, cpu__total=1), at(0, cpu__total=2), at(20, cpu__total=4), at(10, cpu__total=3)]
    found = minutes(samples, MINUTE, MINUTE + 60)
    assert value(found, 0, "cpu.total") == 4


def test_what_is_outside_the_window_is_not_told() -> None:
    samples = [at(-1), at(0), at(59.9), at(60)]
    assert sorted(minutes(samples, MINUTE, MINUTE + 60)) == [MINUTE]
    assert minutes([], MINUTE, MINUTE + 60) == {}


def network(rx: float, container: str = "app", second: int = 0) -> Sample:
    return at(
        second,
        container=container,
        cpu__total=1,
        network__all_rx_bytes=rx,
        network__all_tx_bytes=3,
    )


def told(found: list[Reading]) -> dict[str, dict[str, float]]:
    """Container → its values."""
    assert len({one.source.container for one in found}) == len(found)
    return {one.source.container: dict(one.values) for one in found}


def test_a_network_that_containers_share_is_told_once() -> None:
    """awsvpc, and Fargate: each event has the numbers of the task."""
    samples = [network(700, name) for name in ("app", "envoy")]
    found = told(minutes(samples, MINUTE, MINUTE + 60)[MINUTE])
    assert found == {
        "app": {"cpu.total": 1},
        "envoy": {"cpu.total": 1},
        TASK: {"network.all_rx_bytes": 700, "network.all_tx_bytes": 3},
    }


def test_networks_of_their_own_stay_with_the_containers() -> None:
    """bridge."""
    samples = [network(700), network(20, "envoy")]
    found = told(minutes(samples, MINUTE, MINUTE + 60)[MINUTE])
    assert found["app"]["network.all_rx_bytes"] == 700
    assert found["envoy"]["network.all_rx_bytes"] == 20
    assert TASK not in found


def test_a_quiet_minute_or_a_missing_event_does_not_change_whose_network_it_is() -> None:
    own = [
        network(0),
        network(0, "envoy"),
        network(700, second=60),
        network(20, "envoy", second=60),
    ]
    found = minutes(own, MINUTE, MINUTE + 120)
    assert TASK not in told(found[MINUTE])

    shared = [network(5), network(5, "envoy"), network(7, second=60)]
    found = minutes(shared, MINUTE, MINUTE + 120)
    assert told(found[MINUTE + 60])[TASK]["network.all_rx_bytes"] == 7


def test_a_task_with_one_container_keeps_its_network_there() -> None:
    found = told(minutes([network(5)], MINUTE, MINUTE + 60)[MINUTE])
    assert found["app"]["network.all_rx_bytes"] == 5


samples_ = st.lists(
    st.builds(
        at,
        st.integers(-120, 240),
        task=st.sampled_from("ab"),
        container=st.sampled_from(["app", "envoy"]),
        read_bytes=st.integers(0, 10_000),
        cpu__total=st.integers(0, 400),
        network__all_rx_bytes=st.integers(0, 2),
    ),
    max_size=25,
)


@given(samples_, st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_of_events_matters(
    samples: list[Sample], chance: random.Random
) -> None:
    # Of two different events at the same second the later one in the log holds: so there are none.
    samples = list({(one.source, one.at): one for one in samples}.values())
    once = minutes(samples, MINUTE, MINUTE + 180)
    again = samples * 2
    chance.shuffle(again)
    twice = minutes(again, MINUTE, MINUTE + 180)
    assert {minute: by_name(found) for minute, found in once.items()} == {
        minute: by_name(found) for minute, found in twice.items()
    }


def by_name(readings: Sequence[Reading]) -> dict[tuple[str, str], dict[str, float]]:
    found = {(one.source.task, one.source.container): dict(one.values) for one in readings}
    assert len(found) == len(readings)
    return found


# ------------------------------------------------------------------------------------- the log


@pytest.fixture
def log() -> Iterator[PerformanceLog]:
    with PerformanceLog("main") as made:
        yield made


@pytest.fixture
def logs(log: PerformanceLog) -> Iterator[CloudWatchLogsClient]:
    client = boto3.client(
        "logs",
        region_name="us-east-1",
        endpoint_url=log.url,
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    yield client
    client.close()


def written(minute: int, task: str, **numbers: float) -> tuple[int, str]:
    return minute * 1000, json.dumps(event(minute, numbers=numbers, TaskId=task))


def test_every_page_is_read_also_after_an_empty_one(
    log: PerformanceLog, logs: CloudWatchLogsClient
) -> None:
    # Some 650 bytes each: 1 MB holds fewer than 2,000.
    log.write(written(MINUTE, f"task-{number}", CpuUtilized=1) for number in range(4_000))
    found = [one.source.task for one in read(logs, "main", MINUTE, MINUTE + 60)]
    assert len(found) == len(set(found)) == 4_000
    assert log.pages >= 4


def test_the_window_is_from_start_to_before_end(
    log: PerformanceLog, logs: CloudWatchLogsClient
) -> None:
    log.write(written(MINUTE + 60 * number, f"{number}") for number in range(4))
    found = [one.source.task for one in read(logs, "main", MINUTE + 60, MINUTE + 180)]
    assert found == ["1", "2"]


def test_garbage_is_counted_and_costs_nothing_else(
    log: PerformanceLog, logs: CloudWatchLogsClient
) -> None:
    log.write((MINUTE * 1000, message) for message, _ in GARBAGE)
    log.write([written(MINUTE, "good")])
    skipped = Counter[str]()
    found = list(read(logs, "main", MINUTE, MINUTE + 60, skipped))
    assert [one.source.task for one in found] == ["good"]
    assert skipped == Counter(reason for _, reason in GARBAGE)


def test_a_cluster_without_container_insights_says_so(logs: CloudWatchLogsClient) -> None:
    with pytest.raises(SourceUnavailable, match="other has no log group /aws/ecs/container") as no:
        list(read(logs, "other", MINUTE, MINUTE + 60))
    assert "aws ecs update-cluster-settings --cluster other" in str(no.value)


def test_from_the_log_to_the_readings(log: PerformanceLog, logs: CloudWatchLogsClient) -> None:
    log.write(
        written(MINUTE + 60 * number, "a", StorageReadBytes=600 * number, CpuUtilized=256)
        for number in range(-1, 3)
    )
    samples = container_insights.read(logs, "main", MINUTE - 60, MINUTE + 120)
    found = minutes(samples, MINUTE, MINUTE + 120)
    assert sorted(found) == [MINUTE, MINUTE + 60]
    assert value(found, 60, "blkio_bytes.all_read") == 10
    assert value(found, 60, "cpu.total") == 25
