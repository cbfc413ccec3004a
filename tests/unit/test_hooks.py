"""Hooks: what a function is told, what its answer means, and when it is asked again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen import hooks
from bluegreen.configuration import Hook, HookPoint
from bluegreen.errors import HookFailed
from bluegreen.hooks import Answer, Moment
from tests.unit.planned import DIGEST, SECRET, planned

NOW = 2000.0
HOOK = Hook(at="idle_healthy", function="smoke-test", timeout_seconds=60, interval_seconds=10)
FIRST = Moment("idle_healthy", 0, 0)
CANARY = {"type": "canary", "percent": 10, "seconds": 60}
DATA = {"task_definition": {"arn": "arn:aws:ecs:eu-west-1:123456789012:task-definition/web:2"}}


def fresh(moment: Moment = FIRST) -> dict[str, Any]:
    return hooks.kept({}, moment, NOW)


def read(payload: Any) -> Answer:
    return hooks.read(HOOK, json.dumps(payload).encode())


# What a function is told


def test_the_document_says_what_is_deployed_and_where_to_look() -> None:
    told = hooks.document(planned(), FIRST, fresh(), DATA)
    assert {key: told[key] for key in told if key != "deployment"} == {
        "version": 1,
        "hook_id": "d-1/idle_healthy/0/0",
        "point": "idle_healthy",
        "step": 0,
        "percent": 0,
        "attempt": 1,
        "began": NOW,
        "url": "http://web.elb.amazonaws.com:8080",
        "test_url": "http://web.elb.amazonaws.com:8081",
        "task_definition": DATA["task_definition"]["arn"],
    }
    deployment = told["deployment"]
    assert deployment["id"] == "d-1"
    assert (deployment["from_color"], deployment["to_color"]) == ("blue", "green")
    assert deployment["images"]["web"].endswith(DIGEST)
    assert deployment["started_by"] == {"kind": "push", "detail": "v2", "who": ""}
    assert deployment["colors"]["green"] == {"cluster": "web", "ecs_service": "web-green"}


def test_a_deployment_that_ends_twice_asks_its_last_hooks_twice() -> None:
    """It succeeded, and was rolled back later: a function that keeps hook_ids must see two."""
    moment = Moment("after_deployment", 0, None)
    ends = [
        {**DATA, "outcome": {"outcome": word, "cause": "why"}}
        for word in ("succeeded", "rolled_back")
    ]
    ids = [hooks.document(planned(), moment, fresh(moment), data)["hook_id"] for data in ends]
    assert ids == ["d-1/after_deployment/succeeded/0", "d-1/after_deployment/rolled_back/0"]


def test_the_document_holds_no_secrets() -> None:
    deployment = planned(migration={"container": "web", "command": ["x"]})
    assert SECRET in deployment.model_dump_json()
    assert SECRET not in json.dumps(hooks.document(deployment, FIRST, fresh(), DATA))


def test_without_a_load_balancer_to_ask_there_is_no_url() -> None:
    deployment = planned().model_copy(update={"load_balancer_dns": ""})
    told = hooks.document(deployment, FIRST, fresh(), {})
    assert not {"url", "test_url", "task_definition", "hookDetails"} & set(told)


def test_after_the_end_the_document_says_how_it_ended() -> None:
    data = DATA | {"outcome": {"outcome": "rolled_back", "cause": "an alarm", "error": ""}}
    last = hooks.moment(planned(), "after_deployment", data)
    told = hooks.document(planned(), last, fresh(last), data)
    assert (told["outcome"], told["reason"], told["percent"]) == ("rolled_back", "an alarm", None)


@pytest.mark.parametrize(
    ("point", "shift", "expected"),
    [
        ("before_deployment", None, (0, 0)),
        ("idle_healthy", None, (0, 0)),
        ("before_shift", None, (0, 10)),
        ("after_shift", {"step": 0, "percent": 10}, (0, 10)),
        ("before_shift", {"step": 0, "percent": 10}, (1, 100)),
        ("after_shift", {"step": 1, "percent": 100}, (1, 100)),
        ("after_deployment", {"step": 1, "percent": 100}, (0, None)),
    ],
)
def test_the_moment_names_the_step_and_its_share(
    point: HookPoint, shift: dict[str, Any] | None, expected: tuple[int, int | None]
) -> None:
    data = {"shift": shift} if shift else {}
    found = hooks.moment(planned(strategy=CANARY), point, data)
    assert (found.step, found.percent) == expected


# What its answer means


@pytest.mark.parametrize("key", ["status", "hookStatus"])
@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "IN_PROGRESS"])
def test_our_answers_and_those_of_hooks_of_ecs_are_understood(key: str, status: Any) -> None:
    assert read({key: status}) == Answer(status, "")


def test_what_else_an_answer_may_hold() -> None:
    said = {"hookStatus": "IN_PROGRESS", "callBackDelay": 60, "hookDetails": {"job": 7}}
    assert read(said) == Answer("IN_PROGRESS", "", 60, {"job": 7})
    assert read({"status": "FAILED", "reason": "no disk"}).reason == "no disk"
    assert read({"status": "FAILED", "reason": ["a", 1]}).reason == '["a", 1]'


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"null", "it is no JSON object"),
        (b'"SUCCEEDED"', "it is no JSON object"),
        (b'"{\\"status\\": \\"SUCCEEDED\\"}"', "it is no JSON object"),
        (b"\xff\xfe\x00", "it is no JSON object"),
        (b"", "it is no JSON object"),
        (b"[" * 100_000, "it is no JSON object"),
        (b'{"status": "FAILED", "reason": "\\ud800"}', "it is no JSON object"),
        (b'{"status": "IN_PROGRESS", "hookDetails": {"a": 1e999}}', "it is no JSON object"),
        (b"{}", "it has no status"),
        (b'{"statusCode": 200, "body": "{}"}', "it has no status"),
        (b'{"status": "succeeded"}', "its status is none of the three"),
        (b'{"status": true}', "its status is none of the three"),
        (b'{"status": ["SUCCEEDED"]}', "its status is none of the three"),
        (b'{"status": "SUCCEEDED", "hookStatus": "FAILED"}', "its status is none of the three"),
        (b'{"status": "IN_PROGRESS", "callBackDelay": "60"}', "callBackDelay"),
        (b'{"status": "IN_PROGRESS", "callBackDelay": -1}', "callBackDelay"),
        (b'{"status": "IN_PROGRESS", "callBackDelay": true}', "callBackDelay"),
        (b'{"status": "IN_PROGRESS", "hookDetails": "x"}', "hookDetails is no JSON object"),
    ],
)
def test_garbage_fails_and_says_what_came_and_what_is_expected(payload: bytes, why: str) -> None:
    with pytest.raises(HookFailed) as failed:
        hooks.read(HOOK, payload)
    said = str(failed.value)
    assert said.startswith("hook smoke-test (idle_healthy) answered ")
    assert why in said
    assert 'expected {"status": "SUCCEEDED" | "FAILED" | "IN_PROGRESS"' in said
    assert len(said) < 1000


def test_details_that_would_fill_the_state_machines_data_are_refused() -> None:
    with pytest.raises(HookFailed, match="more than 8000 characters"):
        read({"status": "IN_PROGRESS", "hookDetails": {"all": "x" * 8001}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(["status", "hookStatus", "reason", "callBackDelay", "hookDetails"]),
            inner | st.sampled_from(["SUCCEEDED", "FAILED", "IN_PROGRESS"]),
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200))
def test_whatever_comes_is_an_answer_or_a_failure_that_can_be_sent_on(payload: bytes) -> None:
    try:
        answer = hooks.read(HOOK, payload)
        after = hooks.after_answer(HOOK, answer, fresh(), FIRST, NOW + 1)
    except HookFailed as failed:
        after = {"wait_seconds": 1, "reason": str(failed)}
    assert 1 <= after["wait_seconds"] <= 300
    assert len(json.dumps(after, allow_nan=False, ensure_ascii=False).encode()) < 12_000


# What becomes of it


def test_a_function_that_agrees_is_done_and_the_next_one_begins_anew() -> None:
    after = hooks.after_answer(HOOK, Answer("SUCCEEDED", "fine"), fresh(), FIRST, NOW + 5)
    assert (after["status"], after["index"], after["attempt"]) == ("waiting", 1, 0)
    assert after["results"] == [
        {
            "function": "smoke-test",
            "status": "SUCCEEDED",
            "reason": "fine",
            "attempts": 1,
            "seconds": 5.0,
        }
    ]
    done = hooks.all_done(after, NOW + 6)
    assert (done["status"], done["ended_at"]) == ("done", NOW + 6)


@pytest.mark.parametrize(
    ("reason", "shown"), [("3 of 5 pages are broken", "3 of 5 pages"), ("", "no reason given")]
)
def test_a_function_that_says_no_fails_with_its_reason(reason: str, shown: str) -> None:
    with pytest.raises(HookFailed, match=rf"smoke-test \(idle_healthy\) said FAILED: {shown}"):
        hooks.after_answer(HOOK, Answer("FAILED", reason), fresh(), FIRST, NOW)


def test_in_progress_is_asked_again_after_the_interval_with_what_it_has_left() -> None:
    answer = Answer("IN_PROGRESS", "2 of 9", details={"job": 7})
    after = hooks.after_answer(HOOK, answer, fresh(), FIRST, NOW + 1)
    assert (after["status"], after["wait_seconds"], after["due"]) == ("waiting", 10, NOW + 11)
    assert "says IN_PROGRESS: 2 of 9" in after["reason"]
    told = hooks.document(planned(), FIRST, after, DATA)
    assert (told["attempt"], told["hookDetails"], told["began"]) == (2, {"job": 7}, NOW)
    assert told["hook_id"] == hooks.document(planned(), FIRST, fresh(), DATA)["hook_id"]


def test_a_function_is_left_alone_for_as_long_as_it_wants() -> None:
    slow = HOOK.model_copy(update={"timeout_seconds": 3600})
    after = hooks.after_answer(slow, Answer("IN_PROGRESS", "", 900), fresh(), FIRST, NOW)
    assert (after["wait_seconds"], after["due"]) == (300, NOW + 900)
    assert hooks.left_alone(after, FIRST, NOW + 300)["wait_seconds"] == 300
    assert hooks.left_alone(after, FIRST, NOW + 890)["wait_seconds"] == 10


@pytest.mark.parametrize(
    ("point", "shift", "looks"),
    [
        ("before_shift", None, 300),
        ("after_shift", {"step": 0, "percent": 10}, 5),
        ("before_shift", {"step": 0, "percent": 10}, 5),
    ],
)
def test_a_colour_with_traffic_is_looked_at_while_a_function_is_left_alone(
    point: HookPoint, shift: dict[str, Any] | None, looks: int
) -> None:
    data = {"shift": shift} if shift else {}
    moment = hooks.moment(planned(strategy=CANARY, bake={"interval_seconds": 5}), point, data)
    slow = HOOK.model_copy(update={"timeout_seconds": 3600})
    after = hooks.after_answer(slow, Answer("IN_PROGRESS", "", 900), fresh(moment), moment, NOW)
    assert (after["due"], after["wait_seconds"]) == (NOW + 900, looks)


@pytest.mark.parametrize(("percent", "pause"), [(50, 100), (25, 200), (1, 300)])
def test_the_more_steps_the_more_slowly_is_asked_at_each_of_them(percent: int, pause: int) -> None:
    """All of them have to fit into the history of one execution."""
    linear = {"type": "linear", "percent": percent, "seconds": 1}
    moment = hooks.moment(planned(strategy=linear), "before_shift", {})
    long = HOOK.model_copy(update={"timeout_seconds": 7200})
    answer = Answer("IN_PROGRESS", "")
    after = hooks.after_answer(long, answer, fresh(moment), moment, NOW + 1000)
    assert (after["due"], after["wait_seconds"]) == (NOW + 1000 + pause, pause)


def test_a_function_is_asked_once_more_when_its_time_is_up_and_then_fails() -> None:
    after = hooks.after_answer(HOOK, Answer("IN_PROGRESS", "", 10**400), fresh(), FIRST, NOW + 55)
    assert (after["due"], after["wait_seconds"]) == (NOW + 60, 5)
    done = hooks.after_answer(HOOK, Answer("SUCCEEDED", ""), after, FIRST, NOW + 60)
    assert done["results"][0]["attempts"] == 2
    with pytest.raises(
        HookFailed, match=r"IN_PROGRESS after 60 s \(timeout_seconds\), asked 2 times"
    ):
        hooks.after_answer(HOOK, Answer("IN_PROGRESS", "", 1), after, FIRST, NOW + 60)


def test_a_call_that_lambda_did_not_carry_out_is_made_again_for_three_minutes() -> None:
    brief = HOOK.model_copy(update={"timeout_seconds": 1})
    after = hooks.after_no_answer(brief, "Rate exceeded", fresh(), FIRST, NOW + 179)
    assert (after["status"], after["attempt"]) == ("waiting", 1)
    with pytest.raises(HookFailed, match="could not be asked for 180 s: Rate exceeded"):
        hooks.after_no_answer(brief, "Rate exceeded", after, FIRST, NOW + 180)


def test_progress_of_another_point_or_step_is_over() -> None:
    before = hooks.after_answer(HOOK, Answer("IN_PROGRESS", ""), fresh(), FIRST, NOW)
    assert hooks.kept(before, FIRST, NOW + 9) == before
    for other in (Moment("before_shift", 0, 10), Moment("idle_healthy", 1, 0)):
        anew = hooks.kept(before, other, NOW + 9)
        assert (anew["index"], anew["attempt"], anew["since"]) == (0, 0, NOW + 9)


# Exceptions


def test_an_exception_is_shown_with_the_end_of_the_log() -> None:
    log = "START RequestId: 1 Version: 3\n" + "".join(f"line {n}\n" for n in range(20))
    log += "[ERROR] KeyError: 'url'\nEND RequestId: 1\nREPORT RequestId: 1 Duration: 1 ms\n"
    payload = b'{"errorType": "KeyError", "errorMessage": "\'url\'", "stackTrace": []}'
    said = str(hooks.crashed(HOOK, payload, log))
    assert "hook smoke-test (idle_healthy) raised KeyError: 'url'; last log lines:" in said
    assert said.endswith("line 19\n    [ERROR] KeyError: 'url'")
    assert "line 10\n" not in said
    assert "RequestId" not in said


@given(st.binary(max_size=2000), st.text(max_size=20_000))
def test_whatever_a_crash_leaves_can_be_told(payload: bytes, log: str) -> None:
    assert len(str(hooks.crashed(HOOK, payload, log)).encode()) < 25_000
