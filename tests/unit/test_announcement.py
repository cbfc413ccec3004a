"""What is said of a deployment, to whom it may concern."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen import slack
from bluegreen.announcement import (
    Announcement,
    Kind,
    detail,
    detail_type,
    details,
    headline,
    subject,
)
from bluegreen.color import Color
from bluegreen.deployment import StartedBy

ARN = "arn:aws:states:eu-west-1:123456789012:execution:deployer:d-1"
LINK = (
    "https://eu-west-1.console.aws.amazon.com/states/home?region=eu-west-1"
    f"#/v2/executions/details/{ARN}"
)


def announcement(**more: Any) -> Announcement:
    said: dict[str, Any] = {
        "kind": "started",
        "deployment_id": "d-1",
        "service": "web",
        "at": 1_800_000_000.0,
        "from_color": Color.BLUE,
        "to_color": Color.GREEN,
        "images": {"web": "shop/web@sha256:" + "0123456789abcdef" * 4},
        "started_by": StartedBy(kind="hand", who="ann"),
        "execution_arn": ARN,
    }
    return Announcement(**said | more)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"kind": "started"}, "web: deployment d-1 started, blue → green"),
        (
            {"kind": "started", "from_color": None},
            "web: deployment d-1 started, nothing → green",
        ),
        ({"kind": "waiting"}, "web: deployment d-1 waits for approval, blue → green"),
        (
            {"kind": "shifted", "step": "10"},
            "web: deployment d-1: 10 % of the traffic is on green",
        ),
        ({"kind": "succeeded"}, "web: deployment d-1 succeeded, green is live"),
        ({"kind": "rolled_back"}, "web: deployment d-1 was rolled back, blue is live"),
        ({"kind": "superseded"}, "web: deployment d-1 was superseded by a newer one"),
        (
            {"kind": "hook_failed", "step": "warm-cache"},
            "web: deployment d-1 has ended, but its hook warm-cache failed",
        ),
        ({"kind": "failed", "outcome": "failed"}, "web: deployment d-1 failed"),
        (
            {"kind": "failed", "outcome": "refused"},
            "web: deployment d-1 was refused, nothing was changed",
        ),
        (
            {"kind": "failed", "outcome": "traffic_left"},
            "web: deployment d-1 ended with traffic left where it is: please look",
        ),
        (
            {"kind": "failed", "outcome": "rollback_incomplete"},
            "web: deployment d-1 failed, and is not rolled back yet: please look",
        ),
    ],
)
def test_one_line_says_it(said: dict[str, Any], line: str) -> None:
    assert headline(announcement(**said)) == line


def test_24_below_it_stand_versions_who_why_and_where_to_look() -> None:
    one = announcement(kind="failed", reason="green: exit code 1\nall as before")
    assert details(one) == [
        "web: shop/web@sha256:0123456789ab",
        "started by hand (ann)",
        "green: exit code 1",
        "all as before",
        LINK,
    ]


def test_who_is_asked_is_told_how_to_answer() -> None:
    lines = details(announcement(kind="waiting", details=["until 12:00, then it is rejected"]))
    machine = "arn:aws:states:eu-west-1:123456789012:stateMachine:deployer"
    start = f"aws stepfunctions start-execution --state-machine-arn {machine} --input"
    assert (
        f'yes: {start} \'{{"action": "promote", "deployment_id": "d-1", "percent": 0}}\'' in lines
    )
    assert f'no: {start} \'{{"action": "abort", "deployment_id": "d-1"}}\'' in lines
    assert "until 12:00, then it is rejected" in lines


def test_an_image_that_was_never_resolved_is_shown_as_it_was_asked_for() -> None:
    assert details(announcement(images={"web": "v2"}))[0] == "web: v2"


def test_the_subject_of_a_mail_is_short_and_ascii() -> None:
    assert subject(announcement()) == "web: deployment d-1 started, blue -> green"
    long = announcement(deployment_id="d" * 80, kind="failed", outcome="traffic_left")
    assert len(subject(long)) == 99


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_is_an_event_with_a_name_of_its_own(kind: Kind) -> None:
    assert headline(announcement(kind=kind))
    names = {detail_type(one) for one in get_args(Kind)}
    assert detail_type(kind) in names
    assert len(names) == len(get_args(Kind))
    assert detail_type("rolled_back") == "Deployment Rolled Back"


def test_the_key_is_the_same_for_the_same_thing_whenever_it_is_said() -> None:
    assert announcement(at=1).key == announcement(at=2, reason="other words").key == "d-1/started"
    assert announcement(kind="shifted", step="10").key == "d-1/shifted/10"


def test_the_event_has_an_id_a_link_and_no_name_of_a_webhook() -> None:
    event = json.loads(detail(announcement(slack="shop")).model_dump_json())
    assert (event["id"], event["link"], event["version"]) == ("d-1/started", LINK, "1")
    assert "slack" not in event


@given(st.text(alphabet=st.characters(codec=None), max_size=300), st.integers(0, 30))
def test_whatever_a_log_line_holds_can_be_sent(line: str, times: int) -> None:
    one = announcement(kind="failed", reason=line * times)
    body = one.body()
    assert body.isascii()
    assert body.isprintable()
    assert Announcement.model_validate_json(body) == one
    assert len(one.reason) <= 4000
    one.reason.encode()


def test_slack_gets_its_own_characters_escaped() -> None:
    text = slack.text(announcement(kind="failed", reason="<!channel> a && b > c"))
    assert "&lt;!channel&gt; a &amp;&amp; b &gt; c" in text
    assert "<!channel>" not in text


@given(st.text(alphabet="<&>ab\n", min_size=0, max_size=4000))
def test_a_message_to_slack_is_short_and_still_ends_with_the_link(reason: str) -> None:
    text = slack.text(announcement(kind="failed", reason=reason))
    assert len(text) <= 3600
    assert text.startswith("*web: deployment d-1 failed*\n")
    assert text.endswith(f"\n{LINK}")
    unescaped = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert "&" not in unescaped, "an escaped character was cut in half"


def test_a_long_reason_takes_no_answer_away() -> None:
    text = slack.text(announcement(kind="waiting", reason="x" * 4000))
    assert "yes: aws" in text
    assert "no: aws" in text
    assert "xxx…" in text
