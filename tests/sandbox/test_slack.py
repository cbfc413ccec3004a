"""The stand-in for Slack's incoming webhooks takes what Slack takes, and refuses what it refuses.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sandbox.slack import BURST, SlackFault, SlackServer

HOOK = "/services/T000/B000/secret"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slack(clock: Clock) -> Iterator[SlackServer]:
    with SlackServer(clock=clock) as running:
        yield running


def post(slack: SlackServer, body: Any, path: str = HOOK) -> tuple[int, str]:
    answer = requests.post(slack.url + path, json=body, timeout=5)
    return answer.status_code, answer.text


def section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def test_what_is_taken_is_kept_in_order(slack: SlackServer, clock: Clock) -> None:
    assert post(slack, {"text": "web: started"}) == (200, "ok")
    clock.now += 1
    assert post(slack, {"blocks": [section("*web*"), {"type": "divider"}]}) == (200, "ok")
    assert slack.messages() == [
        {"at": clock.now - 1, "webhook": HOOK, "text": "web: started"},
        {"at": clock.now, "webhook": HOOK, "blocks": [section("*web*"), {"type": "divider"}]},
    ]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "no_text"),
        ({"text": ""}, "no_text"),
        ({"text": "", "blocks": []}, "no_text"),
        ([], "invalid_payload"),
        ({"text": 5}, "invalid_payload"),
        ({"text": "x" * 40_001}, "invalid_payload"),
        ({"blocks": [section("x")] * 51}, "invalid_blocks"),
        ({"blocks": section("x")}, "invalid_blocks"),
        ({"text": "x", "blocks": [section("x" * 3_001)]}, "invalid_blocks"),
        ({"blocks": [section("")]}, "invalid_blocks"),
        ({"blocks": [{"type": "section"}]}, "invalid_blocks"),
        (
            {"blocks": [{"type": "section", "fields": [section("x")["text"]] * 11}]},
            "invalid_blocks",
        ),
        ({"blocks": [{**section("x"), "type": "header"}]}, "invalid_blocks"),
        ({"blocks": [{"type": "context", "elements": []}]}, "invalid_blocks"),
        ({"blocks": ["x"]}, "invalid_blocks"),
        ({"text": "x", "attachments": [{}] * 101}, "too_many_attachments"),
    ],
)
def test_what_slack_refuses(slack: SlackServer, body: Any, word: str) -> None:
    assert post(slack, body) == (400, word)
    assert slack.messages() == []


def test_what_is_just_short_enough_is_taken(slack: SlackServer) -> None:
    assert post(slack, {"text": "x" * 40_000, "blocks": [section("x" * 3_000)] * 50})[0] == 200


def test_only_a_post_of_json_is_a_message(slack: SlackServer) -> None:
    url = slack.url + HOOK
    assert requests.get(url, timeout=5).status_code == 400
    assert requests.post(url, data={"text": "x"}, timeout=5).text == "invalid_payload"
    headers = {"Content-Type": "application/json"}
    assert requests.post(url, data="{", headers=headers, timeout=5).text == "invalid_payload"
    assert slack.messages() == []


def test_other_paths_are_no_webhooks(slack: SlackServer) -> None:
    assert post(slack, {"text": "x"}, "/services/T000") == (404, "no_service")


def test_after_a_burst_a_webhook_takes_one_message_a_second(
    slack: SlackServer, clock: Clock
) -> None:
    def wave() -> list[int]:
        return [post(slack, {"text": "x"})[0] for _ in range(BURST + 1)]

    assert wave() == [*[200] * BURST, 429]
    answer = requests.post(slack.url + HOOK, json={"text": "x"}, timeout=5)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert post(slack, {"text": "x"}, HOOK + "2")[0] == 200
    clock.now += 2
    assert wave() == [200, 200, *[429] * (BURST - 1)]
    assert len(slack.messages()) == BURST + 3


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("outage", (503, "service_unavailable")),
        ("throttle", (429, "rate_limited")),
        ("forbidden", (403, "action_prohibited")),
        ("unknown", (404, "channel_not_found")),
        ("archived", (410, "channel_is_archived")),
        ("revoked", (404, "no_service")),
    ],
)
def test_faults_last_as_long_as_they_say(
    slack: SlackServer, kind: Any, answer: tuple[int, str]
) -> None:
    slack.turn_on(SlackFault(kind, times=1))
    assert post(slack, {"text": "x"}) == answer
    assert slack.messages() == []
    assert post(slack, {"text": "x"})[0] == 200
    slack.turn_on(SlackFault(kind))
    assert [post(slack, {"text": "x"})[0] for _ in range(2)] == [answer[0]] * 2
    assert slack.faults()[0]["kind"] == kind
    slack.turn_off()
    assert post(slack, {"text": "x"})[0] == 200


def test_a_message_whose_answer_is_lost_is_there(slack: SlackServer) -> None:
    slack.turn_on(SlackFault("lost_answer", times=1))
    with pytest.raises(requests.ConnectionError):
        post(slack, {"text": "x"})
    assert [one["text"] for one in slack.messages()] == ["x"]


def test_a_slow_answer_is_later_than_its_reader_waits(slack: SlackServer) -> None:
    slack.turn_on(SlackFault("slow", seconds=0.3))
    with pytest.raises(requests.ReadTimeout):
        requests.post(slack.url + HOOK, json={"text": "x"}, timeout=0.1)


def test_there_are_no_other_faults() -> None:
    with pytest.raises(ValueError, match="outage, throttle"):
        SlackFault("gone")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 or more"):
        SlackFault("outage", times=0)
