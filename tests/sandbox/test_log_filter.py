"""FilterLogEvents lets through what a pattern says, in pages as AWS makes them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException

from sandbox.logs import SandboxLogsBackend, matcher

NOW = int(time.time() * 1000)


class Group:
    """A log group with two streams."""

    def __init__(self) -> None:
        self.backend = SandboxLogsBackend("ap-northeast-1", "123456789012")
        self.backend.create_log_group("g", {})
        for stream in ("a", "b"):
            self.backend.create_log_stream("g", stream)

    def put(self, stream: str, at: int, message: str) -> None:
        event = {"timestamp": NOW + at, "message": message}
        self.backend.put_log_events("g", stream, [event])

    def page(self, pattern: str = "", token: str | None = None, **how: Any) -> tuple[Any, Any]:
        start, end, limit = (how.get(name) for name in ("start", "end", "limit"))
        events, following, _ = self.backend.filter_log_events(
            "g", how.get("streams", []), start, end, limit, token, pattern, False
        )
        return [event["message"] for event in events], following

    def all(self, pattern: str = "", **how: Any) -> list[list[str]]:
        """Every page."""
        pages, token = [], None
        while True:
            found, token = self.page(pattern, token, **how)
            pages.append(found)
            if token is None:
                return pages


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.mark.parametrize(
    ("pattern", "message", "fits"),
    [
        ("", "anything", True),
        ("word", "a word here", True),
        ("word", "nothing", False),
        ('{ $.Type = "Container" }', '{"Type": "Container"}', True),
        ('{ $.Type = "Container" }', '{"Type": "Task"}', False),
        ('{ $.Type = "Container" }', '{"Other": "Container"}', False),
        ('{ $.Type = "Container" }', "Type Container", False),
        ('{ $.Type != "Container" }', '{"Type": "Task"}', True),
        ('{ ($.Type = "Container") && ($.ClusterName = "web") }', '{"Type": "Container"}', False),
        ("{ $.n = 5 }", '{"n": 5}', True),
    ],
)
def test_what_a_pattern_lets_through(pattern: str, message: str, fits: bool) -> None:
    assert matcher(pattern)(message) is fits


def test_a_pattern_that_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidParameterException):
        matcher("{ $.n > 5 }")


def test_events_of_all_streams_come_by_time(group: Group) -> None:
    for at, stream in enumerate("abab"):
        group.put(stream, at, f"{stream}{at}")

    assert group.all(limit=3) == [["a0", "b1", "a2"], ["b3"]]
    assert group.page(start=NOW + 1, end=NOW + 2)[0] == ["b1", "a2"]
    assert group.page(streams=["b"])[0] == ["b1", "b3"]


def test_a_page_holds_one_megabyte(group: Group) -> None:
    for at in range(5):
        group.put("a", at, str(at) * 250_000)

    assert [len(page) for page in group.all()] == [4, 1]


def test_a_page_can_be_empty_and_not_the_last(group: Group) -> None:
    for at in range(20):
        group.put("a", at, json.dumps({"Type": "Task", "filler": "x" * 250_000}))
    group.put("a", 20, json.dumps({"Type": "Container"}))

    pages = group.all('{ $.Type = "Container" }')

    assert pages[0] == []
    assert pages[-1] == ['{"Type": "Container"}']


def test_what_comes_between_two_pages_shifts_nothing(group: Group) -> None:
    for at in (1, 2, 3):
        group.put("a", at, str(at))
    first, token = group.page(limit=2)
    group.put("b", 0, "late")

    assert first == ["1", "2"]
    assert group.page(token=token)[0] == ["3"]


def test_a_token_or_a_group_that_is_not_there_is_refused(group: Group) -> None:
    with pytest.raises(InvalidParameterException):
        group.page(token="made up")
    with pytest.raises(ResourceNotFoundException):
        group.backend.filter_log_events("h", [], None, None, None, None, "", False)
