"""A performance log of Container Insights, and the part of CloudWatch Logs that reads it.

``event`` has the fields of AWS's example
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-reference-performance-logs-ECS.html);
with enhanced observability AWS shows none, but calls the metrics by names that begin with
``Container``, and so do the events that people read. ``PerformanceLog`` answers FilterLogEvents as
its reference says: events in order of time, 1 MB or 10,000 events a page, and now and then an empty
page with a token, which is not the end.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

from json_api import JsonApi

PAGE_BYTES = 1_000_000
PAGE_EVENTS = 10_000
EMPTY_PAGE_EVERY = 7
"""So many pages have one empty page among them."""
_OVERHEAD_BYTES = 26  # of an event, as CloudWatch Logs counts
_NUMBERS = (
    "CpuUtilized",
    "CpuReserved",
    "MemoryUtilized",
    "MemoryReserved",
    "StorageReadBytes",
    "StorageWriteBytes",
    "NetworkRxBytes",
    "NetworkRxDropped",
    "NetworkRxErrors",
    "NetworkRxPackets",
    "NetworkTxBytes",
    "NetworkTxDropped",
    "NetworkTxErrors",
    "NetworkTxPackets",
)


def event(
    minute: int, *, enhanced: bool = False, numbers: Mapping[str, float], **names: str
) -> dict[str, Any]:
    """One event about a container. minute: epoch seconds. names: ``TaskId`` and so on, which
    replace those of the example. numbers: by the standard spelling; 0 for those not given.
    """
    spelling = "Container" if enhanced else ""
    return {
        "Version": "0",
        "Type": "Container",
        "ContainerName": "sleep",
        "TaskId": "7ac4dfba69214411b4783a3b8189c9ba",
        "TaskDefinitionFamily": "sleep360",
        "TaskDefinitionRevision": "1",
        "ContainerInstanceId": "0d7650e6dec34c1a9200f72098071e8f",
        "EC2InstanceId": "i-0c470579dbcdbd2f3",
        "ClusterName": "MyCluster",
        "Image": "busybox",
        "ContainerKnownStatus": "RUNNING",
        **names,
        "Timestamp": minute * 1000,
        **{f"{spelling}{name}": numbers.get(name, 0) for name in _NUMBERS},
    }


class PerformanceLog(JsonApi):
    """The log group of one cluster, on a port of this machine. A context manager.

    pages: how many were answered.
    """

    def __init__(self, cluster: str) -> None:
        super().__init__()
        self._group = f"/aws/ecs/containerinsights/{cluster}/performance"
        self._times: list[int] = []
        self._events: list[bytes] = []
        self.pages = 0

    def write(self, messages: Iterable[tuple[int, str]]) -> None:
        """Add events: time (milliseconds) and text."""
        lines = list(zip(self._times, self._events, strict=True))
        for time, message in messages:
            shape = {
                "logStreamName": "AgentTelemetry-0d7650e6dec34c1a9200f72098071e8f",
                "timestamp": time,
                "message": message,
                "ingestionTime": time + 100_000,
                "eventId": f"{len(lines):056d}",
            }
            lines.append((time, json.dumps(shape).encode()))
        lines.sort(key=lambda line: line[0])
        self._times = [time for time, _ in lines]
        self._events = [text for _, text in lines]

    def answer(self, target: str, asked: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body for one call."""
        if target != "Logs_20140328.FilterLogEvents":
            return 400, b'{"__type": "UnknownOperationException"}'
        if asked["logGroupName"] != self._group:
            wrong = {
                "__type": "ResourceNotFoundException",
                "message": "The specified log group does not exist.",
            }
            return 400, json.dumps(wrong).encode()
        first = bisect_left(self._times, asked["startTime"])
        end = bisect_right(self._times, asked["endTime"])
        position, page = map(int, asked.get("nextToken", f"{first}/0").split("/"))
        self.pages += 1
        events = [] if page % EMPTY_PAGE_EVERY == 1 else self._page(position, end)
        position += len(events)
        more = b', "nextToken": "%d/%d"' % (position, page + 1) if position < end else b""
        return 200, b'{"events": [' + b",".join(
            events
        ) + b'], "searchedLogStreams": []' + more + b"}"

    def _page(self, start: int, end: int) -> list[bytes]:
        size = 0
        found: list[bytes] = []
        for text in self._events[start : min(end, start + PAGE_EVENTS)]:
            size += len(text) + _OVERHEAD_BYTES
            if size > PAGE_BYTES and found:
                break
            found.append(text)
        return found
