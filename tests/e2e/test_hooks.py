"""Hooks: what the functions of the user's are told, and what comes of what they answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.hook_functions import YES, Hooks, hook_functions
from tests.e2e.running import Running
from tests.e2e.test_watch import passes


@pytest.fixture
def hooks(sandbox: Running) -> Iterator[Hooks]:
    with hook_functions(sandbox) as made:
        yield made


def told(sandbox: Running, seconds: float = 20) -> list[str]:
    """What Slack was told once nothing more comes."""
    assert sandbox.control("POST", "settle", {"seconds": seconds})["settled"]
    return [one["text"] for one in sandbox.control("GET", "slack")]


def test_every_point_is_asked_in_order_and_told_what_goes_on(
    sandbox: Running, hooks: Hooks
) -> None:
    first = hooks.add("before_deployment", YES)
    # Asked again after a second, with what it has said itself.
    tests = hooks.add(
        "idle_healthy",
        'if event["attempt"] == 1:\n'
        '    return {"hookStatus": "IN_PROGRESS", "callBackDelay": 1, "hookDetails": {"run": 7}}\n'
        'return {"hookStatus": "SUCCEEDED"}',
        timeout_seconds=60,
        interval_seconds=60,
    )
    looks = hooks.add("idle_healthy", YES)
    before, after = hooks.add("before_shift", YES), hooks.add("after_shift", YES)
    last = hooks.add("after_deployment", YES)
    old, new = sandbox.live(), "green" if sandbox.live() == "blue" else "blue"
    sandbox.push("hooks-all")
    settings = {
        "hooks": hooks.configured,
        "strategy": {"type": "steps", "steps": [{"percent": 50, "seconds": 0}]},
        "containers": [
            {
                "name": "web",
                "repository": "web",
                "environment": {"COLOR": "{color}", "API_KEY": "not-for-hooks"},
            }
        ],
    }
    request = sandbox.request("hooks-all", started_by={"kind": "hand", "who": "ann"})
    with sandbox.configured(settings), sandbox.under_load():
        ended = sandbox.wait(sandbox.start_execution(request, name="hooks-all"))
        assert ended.succeeded, ended.cause
    heard = hooks.wait_until_heard(9)
    asked = [
        (one["function"], event["point"], event["step"], event["percent"], event["attempt"])
        for one in heard
        for event in [one["event"]]
    ]
    assert asked == [
        (first, "before_deployment", 0, 0, 1),
        (tests, "idle_healthy", 0, 0, 1),
        (tests, "idle_healthy", 0, 0, 2),
        (looks, "idle_healthy", 0, 0, 1),
        (before, "before_shift", 0, 50, 1),
        (after, "after_shift", 0, 50, 1),
        (before, "before_shift", 1, 100, 1),
        (after, "after_shift", 1, 100, 1),
        (last, "after_deployment", 0, None, 1),
    ]
    # Who answered meanwhile: the moment is the one that its name says.
    assert [one["live"] for one in heard[:5]] == [old] * 5
    assert [one["live"] for one in heard[7:]] == [new] * 2
    assert [one["test"] for one in heard[1:4]] == [new] * 3
    documents = [one["event"] for one in heard]
    live = sandbox.ecs_service(new)["taskDefinition"]
    shown = documents[0]["deployment"]
    assert (shown["id"], shown["service"]) == ("hooks-all", "web")
    assert (shown["from_color"], shown["to_color"]) == (old, new)
    assert re.search(r"/web@sha256:[0-9a-f]{64}$", shown["images"]["web"])
    assert shown["started_by"] == {"kind": "hand", "detail": "", "who": "ann"}
    assert shown["execution_arn"].endswith(":hooks-all")
    assert shown["colors"][new] == {"cluster": "web", "ecs_service": f"web-{new}"}
    assert all(one["deployment"] == shown for one in documents)
    assert [one.get("task_definition") for one in documents] == [None, *[live] * 8]
    assert [one.get("hookDetails") for one in documents[1:4]] == [None, {"run": 7}, None]
    assert documents[1]["hook_id"] == documents[2]["hook_id"]
    assert len({one["hook_id"] for one in documents}) == 8
    assert [one.get("outcome") for one in documents] == [*[None] * 8, "succeeded"]
    assert "not-for-hooks" not in json.dumps(heard)
    assert sandbox.answer()["X-Version"] == "hooks-all"
    assert sandbox.counts() == {new: (2, 2), old: (0, 0)}


def missing(hooks: Hooks, point: str) -> str:
    return hooks.named(point)


def answering(answer: str, **settings: Any) -> Callable[[Hooks, str], str]:
    def add(hooks: Hooks, point: str) -> str:
        return hooks.add(point, answer, **settings)

    return add


@pytest.mark.parametrize(
    ("point", "make", "why"),
    [
        pytest.param(
            "before_deployment",
            answering('return {"status": "FAILED", "reason": "it is Friday"}'),
            ["said FAILED: it is Friday"],
            id="failed",
        ),
        pytest.param(
            "idle_healthy",
            answering('print("cart: 500")\nraise RuntimeError("the cart is broken")'),
            ["raised RuntimeError: the cart is broken"],
            id="exception",
        ),
        pytest.param(
            "before_shift",
            answering('return "looks good to me"'),
            ['answered "looks good to me": it is no JSON object', "expected", '"SUCCEEDED"'],
            id="garbage",
        ),
        pytest.param(
            "after_shift",
            answering(
                'return {"status": "IN_PROGRESS", "reason": "still looking"}',
                timeout_seconds=2,
                interval_seconds=1,
            ),
            ["was still IN_PROGRESS after 2 s (timeout_seconds)", "still looking"],
            id="in_progress_for_ever",
        ),
        pytest.param(
            "idle_healthy",
            missing,
            ["does not exist in this account and region"],
            id="missing",
        ),
    ],
)
def test_a_hook_that_does_not_say_yes_takes_all_back(
    sandbox: Running,
    hooks: Hooks,
    point: str,
    make: Callable[[Hooks, str], str],
    why: list[str],
) -> None:
    before, version = sandbox.world(), sandbox.answer()["X-Version"]
    function = make(hooks, point)
    last = hooks.add("after_deployment", YES)
    tag = f"{function}-refuses"
    sandbox.push(tag)
    with sandbox.configured({"hooks": hooks.configured}), sandbox.under_load():
        ended = sandbox.deploy(tag)
        assert (ended.status, ended.error) == ("FAILED", "HookFailed"), ended.cause
        assert sandbox.answer()["X-Version"] == version
    assert f"hook {function} ({point}) " in ended.cause
    for words in why:
        assert words in ended.cause
    assert sandbox.record(ended.name)["outcome"] == "rolled_back"
    assert sandbox.record(ended.name)["reason"] == ended.cause
    assert sandbox.world() == before
    assert "held" not in sandbox.lock()
    # How it ended is told to those who are asked last, whoever has said no.
    calls = [one for one in hooks.wait_until_heard(1) if one["function"] == last]
    assert [(one["event"]["outcome"], one["event"]["reason"]) for one in calls] == [
        ("rolled_back", ended.cause)
    ]
    shifted = {"StartIdleColor": point != "before_deployment", "CheckBake": point == "after_shift"}
    assert {state: state in ended.states for state in shifted} == shifted


def test_a_hook_that_fails_after_the_end_changes_nothing_of_it_and_is_told(
    sandbox: Running, hooks: Hooks
) -> None:
    sandbox.push("hooks-last")
    old = sandbox.live()
    broken = hooks.add("after_deployment", 'raise RuntimeError("no ticket system")')
    absent = hooks.named("after_deployment")
    other = hooks.add("after_deployment", YES)
    sandbox.control("DELETE", "slack")
    settings = {"hooks": hooks.configured, "notify": {"slack": "deployments"}}
    with sandbox.configured(settings), sandbox.under_load():
        ended = sandbox.deploy("hooks-last")
        assert ended.succeeded, ended.cause
        assert sandbox.answer()["X-Version"] == "hooks-last"
    assert sandbox.record(ended.name)["outcome"] == "succeeded"
    assert sandbox.live() != old
    assert "held" not in sandbox.lock()
    heard = [(one["function"], one["event"]["outcome"]) for one in hooks.wait_until_heard(2)]
    assert heard == [(broken, "succeeded"), (other, "succeeded")]
    said = [text for text in told(sandbox) if "its hook" in text]
    assert [text.splitlines()[0].strip("*") for text in said] == [
        f"web: deployment {ended.name} has ended, but its hook {name} failed"
        for name in (broken, absent)
    ]
    assert "no ticket system" in said[0]
    assert "does not exist" in said[1]


def test_abort_does_not_wait_for_a_hook(sandbox: Running, hooks: Hooks) -> None:
    before, version = sandbox.world(), sandbox.answer()["X-Version"]
    hooks.add(
        "idle_healthy", 'return {"status": "IN_PROGRESS"}', timeout_seconds=600, interval_seconds=1
    )
    sandbox.push("hooks-aborted")
    with sandbox.configured({"hooks": hooks.configured}), sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request("hooks-aborted"), name="hooks-aborted")
        sandbox.wait_for_state(arn, "WaitForTests")
        request = {"action": "abort", "deployment_id": "hooks-aborted", "who": "ann"}
        ended = sandbox.wait(sandbox.start_execution(request))
        assert ended.succeeded, ended.cause
        aborted = sandbox.wait(arn)
        assert aborted.status == "FAILED"
        assert sandbox.answer()["X-Version"] == version
    assert sandbox.record("hooks-aborted")["outcome"] == "rolled_back"
    assert "aborted by ann" in sandbox.record("hooks-aborted")["reason"]
    sandbox.wait_for_world(before)
    # The last time that it came to ask, it had lost the lock: then nobody is asked.
    looked = passes(sandbox, arn, "TestIdleColor")
    assert aborted.states.count("TestIdleColor") == len(looked) + 1
    asked = looked[-1][1]["testing"]["attempt"]
    assert sandbox.control("POST", "settle", {"seconds": 20})["settled"]
    assert len(hooks.wait_until_heard(asked)) == asked
