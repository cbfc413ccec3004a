"""The service configuration: steps, and everything that a deployment may be guarded by."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from bluegreen.configuration import load
from bluegreen.deployment import Gates
from tests.unit.test_configuration import (
    CLASSIC,
    EXAMPLE,
    HOST_PROXY,
    NO_PORTS,
    TWO_CLUSTERS,
    changed,
    mistakes,
)

GUARDS = ("strategy", "trigger", "scan", "hooks", "migration", "approval", "notify")


def plain(example: str) -> str:
    """An example without what guards it there."""
    return changed(example, **{key: None for key in GUARDS if key in yaml.safe_load(example)})


PLAIN = plain(EXAMPLE)
ON_HOSTS = plain(HOST_PROXY)
CANARY = {"type": "canary", "percent": 10}
LINEAR = {"type": "linear", "percent": 25, "seconds": 30}
FEW = [{"percent": 1, "seconds": 0}, {"percent": 50, "seconds": 60}]
OWN = {"type": "steps", "steps": FEW}
HOOK = {"at": "idle_healthy", "function": "bluegreen-hook-smoke"}
MIGRATION = {"container": "web", "command": ["python", "-m", "migrate"]}
ALARMS = ["web-latency", "Web errors (composite)"]
GAP = CLASSIC | {"router": CLASSIC["router"] | {"accept_gap": True}}


def own(*percents: int, seconds: int = 1) -> dict[str, Any]:
    return {"type": "steps", "steps": [{"percent": one, "seconds": seconds} for one in percents]}


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": {"type": "all_at_once"}},
        {"strategy": CANARY},
        {"strategy": CANARY | {"percent": 1, "seconds": 0}},
        {"strategy": CANARY | {"percent": 99, "seconds": 86400}},
        {"strategy": LINEAR},
        {"strategy": LINEAR | {"percent": 1}},
        {"strategy": OWN},
        {"strategy": own(*range(1, 100))},
        {"strategy": LINEAR, "router__type": "nlb"},
        {"bake": {"alarms": ALARMS, "at_start": "warn", "unknown_seconds": 0}},
        {"bake": {"mackerel": {"service": "Shop", "role": "web_front"}}},
        {"bake": {"errors": {}, "response_time": {}}},
        {"bake": {"errors": {"percentage_points": 0, "requests": 1}}},
        {"bake": {"errors": {"percentage_points": 0.5}}},
        {"bake": {"response_time": {"times": 1.5, "milliseconds": 0}}},
        {"trigger": {"tags": ["v*", "release-?", "[0-9]*", "latest", "[!d]*"]}},
        {"scan": {"refuse": "CRITICAL"}},
        {"scan": {"refuse": "UNDEFINED"}},
        {"scan": {"refuse": "MEDIUM", "deadline_seconds": 0}},
        {"hooks": []},
        {"hooks": [HOOK | {"at": "before_deployment"}, HOOK | {"at": "after_deployment"}]},
        {"hooks": [HOOK | {"at": "before_shift"}, HOOK | {"at": "after_shift"}, HOOK]},
        {"hooks": [HOOK | {"function": "smoke:live"}]},
        {"hooks": [HOOK | {"function": "arn:aws:lambda:eu-west-1:123456789012:function:smoke:3"}]},
        {"hooks": [HOOK | {"timeout_seconds": 86400, "interval_seconds": 300}]},
        {"migration": MIGRATION},
        {"migration": MIGRATION | {"environment": {"TARGET": "{digest}"}, "timeout_seconds": 10}},
        {"approval": {}},
        {"approval": {"timeout_seconds": 604800, "on_timeout": "approve"}},
        {"notify": {"slack": "deployments"}},
        {
            "strategy": LINEAR,
            "bake": {"alarms": ALARMS, "errors": {}, "response_time": {}},
            "trigger": {"tags": ["v*"]},
            "scan": {"refuse": "HIGH"},
            "hooks": [HOOK],
            "migration": MIGRATION,
            "approval": {},
            "notify": {"slack": "deployments"},
        },
    ],
    ids=str,
)
def test_what_a_deployment_may_be_guarded_by(changes: dict[str, Any]) -> None:
    assert load(changed(PLAIN, **changes), "service.yaml").service == "web"


@pytest.mark.parametrize(
    ("strategy", "seconds"),
    [
        ({"type": "all_at_once"}, 0),
        (CANARY, 300),
        (CANARY | {"seconds": 7}, 7),
        # 25, 50 and 75 %; what follows has all of the traffic, and is watched as bake.seconds says.
        (LINEAR, 90),
        (LINEAR | {"percent": 30}, 90),
        (LINEAR | {"percent": 1, "seconds": 10}, 990),
        (LINEAR | {"percent": 99, "seconds": 10}, 10),
        (OWN, 60),
    ],
    ids=str,
)
def test_how_long_the_steps_are_watched(strategy: dict[str, Any], seconds: int) -> None:
    found = load(changed(PLAIN, strategy=strategy), "service.yaml")
    assert found.strategy.watched_seconds == seconds


TOO_LONG = (
    "(top level): strategy: all steps together may be watched for 259200 s at most, with "
    "bake.seconds these take "
)
NOT_A_TYPE = "strategy: type is missing: all_at_once, canary, linear or steps"
MORE_EACH = "strategy: steps: each one needs more percent than the one before: "


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("canary", "strategy: "),
        ({}, NOT_A_TYPE),
        ({"percent": 10}, NOT_A_TYPE),
        ({"type": "rolling"}, "strategy: Input tag 'rolling' found using 'type' does not match"),
        ({"type": "canary"}, "strategy.percent: is missing"),
        ({"type": "linear"}, "strategy.percent: is missing"),
        ({"type": "steps"}, "strategy.steps: is missing"),
        (CANARY | {"percent": 0}, "strategy.percent: Input should be greater than or equal to 1 ("),
        (CANARY | {"percent": 100}, "strategy.percent: Input should be less than or equal to 99 ("),
        (LINEAR | {"percent": 12.5}, "strategy.percent: Input should be a valid integer"),
        (LINEAR | {"seconds": -1}, "strategy.seconds: Input should be greater than or equal to 0"),
        (CANARY | {"seconds": 86401}, "strategy.seconds: Input should be less than or equal to 8"),
        (CANARY | {"step": 10}, "strategy.step: is not a known key (got 10)"),
        ({"type": "all_at_once", "percent": 10}, "strategy.percent: is not a known key (got 10)"),
        (own(), "strategy.steps: List should have at least 1 item"),
        (own(*range(1, 102)), "strategy.steps: List should have at most 100 items"),
        (
            {"type": "steps", "steps": [{"percent": 10}]},
            "strategy.steps.0.seconds: is missing",
        ),
        (own(100), "strategy.steps.0.percent: Input should be less than or equal to 99 (got 100)"),
        (own(50, 1), MORE_EACH + "[50, 1]"),
        (own(50, 50), MORE_EACH + "[50, 50]"),
        (own(10, 60, 20, 90), MORE_EACH + "[10, 60, 20, 90]"),
        # With the 60 s of the bake.
        (LINEAR | {"seconds": 86400}, TOO_LONG + "259260 s"),
        (LINEAR | {"percent": 1, "seconds": 3600}, TOO_LONG + "356460 s"),
        (own(10, 20, 30, 40, seconds=80000), TOO_LONG + "320060 s"),
    ],
    ids=str,
)
def test_steps_that_cannot_be_taken_are_named(strategy: Any, says: str) -> None:
    lines = mistakes(changed(PLAIN, strategy=strategy))
    # Each percent above 99 is a mistake of its own.
    assert lines[0].startswith("  " + says), lines
    assert len(lines) == 1 or "at most 100" in says


def test_the_longest_watch_is_just_short_enough() -> None:
    text = changed(PLAIN, strategy=LINEAR | {"seconds": 86380}, bake={"seconds": 60})
    assert load(text, "service.yaml").bake.seconds == 60
    [line] = mistakes(changed(PLAIN, strategy=LINEAR | {"seconds": 86380}, bake={"seconds": 61}))
    assert line == "  " + TOO_LONG + "259201 s"


def _hook(**changes: Any) -> dict[str, Any]:
    return {"hooks": [HOOK | changes]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        # What is watched
        ({"bake": {"alarms": "web"}}, "bake.alarms: Input should be a valid list"),
        ({"bake": {"alarms": [""]}}, "bake.alarms.0: String should have at least 1 character"),
        ({"bake": {"alarms": ["a"] * 101}}, "bake.alarms: List should have at most 100 items"),
        ({"bake": {"mackerel": "Shop"}}, "bake.mackerel: "),
        ({"bake": {"mackerel": {"service": "Shop"}}}, "bake.mackerel.role: is missing"),
        (
            {"bake": {"mackerel": {"service": "Shop", "role": "web front"}}},
            "bake.mackerel.role: String should match pattern",
        ),
        (
            {"bake": {"mackerel": {"service": "-", "role": "web"}}},
            "bake.mackerel.service: String should match pattern",
        ),
        (
            {"bake": {"errors": {"percentage_points": -0.1}}},
            "bake.errors.percentage_points: Input should be greater than or equal to 0 (got -0.1)",
        ),
        (
            {"bake": {"errors": {"percentage_points": 101}}},
            "bake.errors.percentage_points: Input should be less than or equal to 100 (got 101)",
        ),
        ({"bake": {"errors": {"percent": 1}}}, "bake.errors.percent: is not a known key (got 1)"),
        (
            {"bake": {"errors": {"requests": 0}}},
            "bake.errors.requests: Input should be greater than or equal to 1 (got 0)",
        ),
        (
            {"bake": {"response_time": {"times": 1}}},
            "bake.response_time.times: Input should be greater than 1 (got 1)",
        ),
        (
            {"bake": {"response_time": {"milliseconds": -1}}},
            "bake.response_time.milliseconds: Input should be greater than or equal to 0 (got -1)",
        ),
        ({"bake": {"at_start": "ignore"}}, "bake.at_start: Input should be 'refuse' or 'warn' (go"),
        (
            {"bake": {"unknown_seconds": 3601}},
            "bake.unknown_seconds: Input should be less than or equal to 3600 (got 3601)",
        ),
        # What starts it, and what is asked about an image
        ({"trigger": {}}, "trigger.tags: is missing"),
        ({"trigger": {"tags": []}}, "trigger.tags: List should have at least 1 item"),
        ({"trigger": {"tags": ["*"] * 21}}, "trigger.tags: List should have at most 20 items"),
        ({"trigger": {"tags": "v*"}}, "trigger.tags: Input should be a valid list"),
        ({"trigger": {"tags": ["v*", ""]}}, "trigger.tags.1: String should match pattern"),
        ({"trigger": {"tags": ["a b"]}}, "trigger.tags.0: String should match pattern"),
        ({"trigger": {"tags": ["web:v1"]}}, "trigger.tags.0: String should match pattern"),
        ({"trigger": {"tags": ["v*"], "tag": "v*"}}, "trigger.tag: is not a known key (got 'v*')"),
        ({"scan": {}}, "scan.refuse: is missing"),
        ({"scan": {"refuse": "high"}}, "scan.refuse: Input should be 'INFORMATIONAL', 'LOW', 'ME"),
        (
            {"scan": {"refuse": "HIGH", "deadline_seconds": 3601}},
            "scan.deadline_seconds: Input should be less than or equal to 3600 (got 3601)",
        ),
        # Who is asked, and what runs first
        ({"hooks": HOOK}, "hooks: Input should be a valid list"),
        ({"hooks": [HOOK] * 21}, "hooks: List should have at most 20 items"),
        ({"hooks": [{"at": "idle_healthy"}]}, "hooks.0.function: is missing"),
        ({"hooks": [HOOK, {"function": "smoke"}]}, "hooks.1.at: is missing"),
        (
            _hook(at="after_bake"),
            "hooks.0.at: Input should be 'before_deployment', 'idle_healthy', 'before_shift', "
            "'after_shift' or 'after_deployment' (got 'after_bake')",
        ),
        (_hook(function="smoke test"), "hooks.0.function: String should match pattern"),
        (_hook(function=""), "hooks.0.function: String should match pattern"),
        (_hook(function="a" * 171), "hooks.0.function: String should match pattern"),
        (_hook(timeout_seconds=0), "hooks.0.timeout_seconds: Input should be greater than or eq"),
        (_hook(interval_seconds=301), "hooks.0.interval_seconds: Input should be less than or eq"),
        ({"migration": {"container": "web"}}, "migration.command: is missing"),
        (
            {"migration": MIGRATION | {"command": []}},
            "migration.command: List should have at least 1 item",
        ),
        (
            {"migration": MIGRATION | {"command": "migrate"}},
            "migration.command: Input should be a valid list",
        ),
        (
            {"migration": MIGRATION | {"timeout_seconds": 9}},
            "migration.timeout_seconds: Input should be greater than or equal to 10 (got 9)",
        ),
        # Who has to agree, and who is told
        (
            {"approval": {"timeout_seconds": 604801}},
            "approval.timeout_seconds: Input should be less than or equal to 604800 (got 604801)",
        ),
        (
            {"approval": {"on_timeout": "wait"}},
            "approval.on_timeout: Input should be 'reject' or 'approve' (got 'wait')",
        ),
        ({"approval": True}, "approval: "),
        ({"notify": {}}, "notify.slack: is missing"),
        (
            {"notify": {"slack": "https://hooks.slack.com/services/T0/B0/x"}},
            "notify.slack: String should match pattern",
        ),
        ({"notify": {"slack": "../mackerel"}}, "notify.slack: String should match pattern"),
    ],
    ids=str,
)
def test_what_does_not_guard_is_named_at_its_place(changes: dict[str, Any], says: str) -> None:
    lines = mistakes(changed(PLAIN, **changes))
    assert len(lines) == 1, lines
    assert lines[0].startswith("  " + says), lines[0]


def test_the_value_of_a_variable_of_the_migration_is_not_shown_either() -> None:
    text = changed(PLAIN, migration=MIGRATION | {"environment": {"PASSWORD": ["hunter2"]}})
    [line] = mistakes(text)
    assert line.startswith("  migration.environment.PASSWORD: ")
    assert "hunter2" not in line


@pytest.mark.parametrize("strategy", [CANARY, LINEAR, OWN], ids=lambda one: str(one["type"]))
@pytest.mark.parametrize(
    "router", [TWO_CLUSTERS | CLASSIC | NO_PORTS, GAP], ids=["two-clusters", "shifted-ports"]
)
def test_a_classic_load_balancer_takes_no_steps(
    strategy: dict[str, Any], router: dict[str, Any]
) -> None:
    [line] = mistakes(changed(PLAIN, **router, strategy=strategy))
    assert line == (
        f"  (top level): strategy {strategy['type']}: a Classic Load Balancer has no weights, so "
        "only all_at_once is possible"
    )


@pytest.mark.parametrize("watched", ["errors", "response_time"])
@pytest.mark.parametrize(
    ("example", "router"),
    [(PLAIN, {"router__type": "nlb"}), (PLAIN, GAP), (ON_HOSTS, {"router__type": "haproxy"})],
    ids=["nlb", "clb", "haproxy"],
)
def test_what_nobody_counts_for_each_colour_cannot_be_watched(
    example: str, router: dict[str, Any], watched: str
) -> None:
    [line] = mistakes(changed(example, **router, bake={watched: {}}))
    assert line == (
        "  (top level): bake.errors and bake.response_time need a router of type alb: only an "
        "Application Load Balancer counts answers for each colour"
    )


@pytest.mark.parametrize("router", ["nginx", "haproxy"])
@pytest.mark.parametrize("strategy", [CANARY, LINEAR, OWN], ids=lambda one: str(one["type"]))
def test_proxies_on_hosts_take_steps(router: str, strategy: dict[str, Any]) -> None:
    text = changed(ON_HOSTS, router__type=router, strategy=strategy)
    assert load(text, "service.yaml").strategy.type == strategy["type"]


def test_mistakes_of_several_kinds_are_named_at_once() -> None:
    lines = mistakes(
        changed(
            PLAIN,
            strategy=CANARY | {"percent": 100},
            bake={"errors": {"requests": 0}, "alarms": [""]},
            trigger={"tags": []},
            scan={"refuse": "severe"},
            hooks=[{"at": "never", "function": "x y"}],
            migration={"container": "web", "command": []},
            approval={"on_timeout": "maybe"},
            notify={"slack": "#deployments"},
        )
    )
    assert [line.partition(":")[0].strip() for line in lines] == [
        "strategy.percent",
        "bake.alarms.0",
        "bake.errors.requests",
        "trigger.tags",
        "scan.refuse",
        "hooks.0.at",
        "hooks.0.function",
        "migration.command",
        "approval.on_timeout",
        "notify.slack",
    ]


def test_what_is_not_asked_for_is_not_done() -> None:
    found = load(PLAIN, "service.yaml")
    assert found.strategy.type == "all_at_once"
    asked = [found.hooks, found.trigger, found.scan, found.migration, found.approval, found.notify]
    watched = [found.bake.alarms, found.bake.mackerel, found.bake.errors, found.bake.response_time]
    assert not any([*asked, *watched])
    assert Gates.of(found) == Gates()


def test_what_is_asked_for_is_stopped_at() -> None:
    hooks = [HOOK, HOOK | {"at": "after_shift"}]
    text = changed(PLAIN, hooks=hooks, migration=MIGRATION, approval={})
    assert Gates.of(load(text, "service.yaml")) == Gates(
        idle_healthy=True, after_shift=True, migration=True, approval=True
    )
