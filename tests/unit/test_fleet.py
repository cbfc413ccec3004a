"""What ListCommandInvocations shows of a host, as its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bluegreen.fleet import NOT_ASKED, NOT_LISTED, Answer, Host, _answer, answer_of

EXIT_1 = "\n----------ERROR-------\nfailed to run commands: exit status 1"


def shown(status: str, output: str | None = None, details: str = "") -> dict[str, Any]:
    """One entry of ListCommandInvocations; output None: without its plugins."""
    plugins = {} if output is None else {"CommandPlugins": [{"Output": output}]}
    return {"InstanceId": "i-1", "Status": status, "StatusDetails": details or status, **plugins}


def test_one_line_of_json_is_the_answer() -> None:
    said = {"staged": 7, "ports": {"blue": [18081]}}
    assert _answer(shown("Success", json.dumps(said) + "\n")) == Answer("answered", said)


@pytest.mark.parametrize("status", ["Pending", "InProgress", "Delayed", "Cancelling"])
def test_what_has_not_ended_may_still_be_answered(status: str) -> None:
    assert _answer(shown(status)) == Answer("pending", {}, f"SSM says {status}")


@pytest.mark.parametrize(
    ("status", "details"), [("TimedOut", "DeliveryTimedOut"), ("Failed", "Undeliverable")]
)
def test_17_a_command_that_has_not_reached_its_host_is_no_failure_of_the_host(
    status: str, details: str
) -> None:
    assert _answer(shown(status, "", details)) == Answer("silent", {}, f"SSM says {details}")
    assert _answer(shown(status, None, details)).state == "silent"


@pytest.mark.parametrize("tail", ["", "\n", EXIT_1])
def test_24_the_error_of_our_program_is_the_reason_and_not_what_the_shell_says(tail: str) -> None:
    output = json.dumps({"error": "nginx -t: unexpected end of file"}) + tail
    found = _answer(shown("Failed", output))
    assert (found.state, found.reason) == ("failed", "nginx -t: unexpected end of file")


def test_an_error_is_a_failure_though_the_script_ended_well() -> None:
    assert _answer(shown("Success", '{"error": "too late"}')).state == "failed"


def test_an_answer_is_none_when_the_script_did_not_end_well() -> None:
    found = _answer(shown("TimedOut", '{"staged": 7}\n' + EXIT_1, "ExecutionTimedOut"))
    assert (found.state, found.reason) == ("failed", "SSM says ExecutionTimedOut")


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("sh: 2: ecs-bluegreen-host: not found" + EXIT_1, "ecs-bluegreen-host: not found"),
        ("", "SSM says Failed"),
        ("[1, 2]", "[1, 2]"),
        ("7", "7"),
        ("null", "null"),
        ('{"staged": 7', '{"staged": 7'),
    ],
)
def test_24_what_is_no_json_object_is_shown_as_it_is(output: str, reason: str) -> None:
    """The program is not installed, or something before it has failed."""
    found = _answer(shown("Failed", output))
    assert (found.state, found.said) == ("failed", {})
    assert reason in found.reason


def test_24_of_a_long_output_the_end_is_shown() -> None:
    found = _answer(shown("Failed", "x" * 5000 + " the end"))
    assert found.reason.endswith(" the end")
    assert len(found.reason) == 300


def test_21_success_without_an_answer_is_no_answer() -> None:
    assert _answer(shown("Success", "")).state == "failed"
    assert _answer(shown("Success", "ok")).state == "failed"


def test_17_what_is_not_listed_is_under_way_for_three_seconds_and_then_was_never_sent() -> None:
    host, other = Host("i-1", draining=False), Answer("answered", {"staged": 7})
    assert answer_of(host, {"i-2": other}, 1000.0, 1000.0) == NOT_LISTED
    assert answer_of(host, {}, 1000.0, 1002.9) == NOT_LISTED
    assert answer_of(host, {}, 1000.0, 1003.0) == NOT_ASKED
    assert answer_of(host, {"i-1": other}, 1000.0, 1000.0) == other
    assert "not registered" in NOT_ASKED.reason
