"""Weights in a list of load balancer actions: read, planned, and put back to the letter."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bluegreen.color import Color
from bluegreen.errors import DeploymentRefused, TrafficChanged
from bluegreen.traffic import (
    Weights,
    live_color,
    read_weights,
    show,
    stickiness_seconds,
    weights_for,
    with_weights,
)

BLUE, GREEN = Color.BLUE, Color.GREEN
ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/web-{}/1"
GROUPS = {color: ARN.format(color) for color in Color}

weights = st.integers(min_value=0, max_value=999)
stickiness = st.fixed_dictionaries(
    {"Enabled": st.booleans()}, optional={"DurationSeconds": st.integers(1, 604_800)}
)
other_actions = st.sampled_from(
    [
        {
            "Type": "authenticate-oidc",
            "AuthenticateOidcConfig": {
                "Issuer": "https://id.example",
                "ClientId": "web",
                "Scope": "openid",
                "UseExistingClientSecret": True,
            },
        },
        {"Type": "authenticate-cognito", "AuthenticateCognitoConfig": {"UserPoolArn": "arn"}},
        {"Type": "something-new", "SomethingNewConfig": {"Deep": [{"Down": 1}]}},
    ]
)


def as_shown(forward: dict[str, Any]) -> dict[str, Any]:
    """As DescribeListeners shows it: the short form only beside a single group of weight 1."""
    groups = forward["ForwardConfig"]["TargetGroups"]
    shown = {key: value for key, value in forward.items() if key != "TargetGroupArn"}
    if len(groups) == 1 and groups[0]["Weight"] == 1:
        shown["TargetGroupArn"] = groups[0]["TargetGroupArn"]
    return shown


@st.composite
def action_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    colors = draw(st.sampled_from([[BLUE], [GREEN], [BLUE, GREEN], [GREEN, BLUE]]))
    config: dict[str, Any] = {
        "TargetGroups": [
            {"TargetGroupArn": GROUPS[color], "Weight": draw(weights)} for color in colors
        ]
    }
    if draw(st.booleans()):
        config["TargetGroupStickinessConfig"] = draw(stickiness)
    actions = [
        *draw(st.lists(other_actions, max_size=2)),
        as_shown({"Type": "forward", "ForwardConfig": config}),
    ]
    if draw(st.booleans()):
        actions = [{**action, "Order": order} for order, action in enumerate(actions, 1)]
    return copy.deepcopy(actions)


def shown(actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [as_shown(action) if action["Type"] == "forward" else action for action in actions]


def forward(*groups: tuple[str, int], **more: Any) -> dict[str, Any]:
    tuples = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in groups]
    return {"Type": "forward", "ForwardConfig": {"TargetGroups": tuples, **more}}


@given(action_lists(), weights, weights)
def test_plan_then_inverse_is_the_start_to_the_letter(
    actions: list[dict[str, Any]], blue: int, green: int
) -> None:
    start = read_weights(actions, GROUPS)
    there = shown(with_weights(actions, GROUPS, {BLUE: blue, GREEN: green}))
    back = shown(with_weights(there, GROUPS, start))
    assert back == actions


@given(action_lists(), weights, weights)
def test_what_is_planned_is_what_is_read(
    actions: list[dict[str, Any]], blue: int, green: int
) -> None:
    planned = with_weights(actions, GROUPS, {BLUE: blue, GREEN: green})
    assert read_weights(planned, GROUPS) == {BLUE: blue, GREEN: green}


@given(action_lists(), weights, weights)
def test_all_other_actions_stickiness_and_order_are_sent_back(
    actions: list[dict[str, Any]], blue: int, green: int
) -> None:
    before = copy.deepcopy(actions)
    planned = with_weights(actions, GROUPS, {BLUE: blue, GREEN: green})
    assert actions == before, "the list that was read is changed in place"
    assert len(planned) == len(before)
    for was, now in zip(before, planned, strict=True):
        if was["Type"] != "forward":
            assert now == was
            continue
        assert now.get("Order") == was.get("Order")
        assert now["ForwardConfig"].get("TargetGroupStickinessConfig") == was["ForwardConfig"].get(
            "TargetGroupStickinessConfig"
        )


@given(action_lists())
def test_the_short_form_is_never_sent_beside_the_long_one(actions: list[dict[str, Any]]) -> None:
    for action in with_weights(actions, GROUPS, {BLUE: 0, GREEN: 100}):
        assert "TargetGroupArn" not in action


def test_the_short_form_of_an_action_is_read_as_all_traffic() -> None:
    actions = [{"Type": "forward", "TargetGroupArn": GROUPS[GREEN]}]
    assert read_weights(actions, GROUPS) == {GREEN: 1}
    assert read_weights(with_weights(actions, GROUPS, {BLUE: 100, GREEN: 0}), GROUPS) == {
        BLUE: 100,
        GREEN: 0,
    }


def test_the_secret_that_aws_never_shows_is_kept_and_not_lost() -> None:
    oidc = {"Type": "authenticate-oidc", "AuthenticateOidcConfig": {"ClientId": "web"}}
    sent = with_weights([oidc, forward((GROUPS[BLUE], 1))], GROUPS, {BLUE: 1})
    assert sent[0]["AuthenticateOidcConfig"] == {
        "ClientId": "web",
        "UseExistingClientSecret": True,
    }
    assert "UseExistingClientSecret" not in oidc["AuthenticateOidcConfig"]


def test_a_secret_that_is_there_is_sent_as_it_is() -> None:
    oidc = {"Type": "authenticate-oidc", "AuthenticateOidcConfig": {"ClientSecret": "s"}}
    sent = with_weights([oidc, forward((GROUPS[BLUE], 1))], GROUPS, {BLUE: 1})
    assert sent[0]["AuthenticateOidcConfig"] == {"ClientSecret": "s"}


@given(st.sampled_from(list(Color)), st.integers(0, 100))
def test_the_two_weights_sum_to_the_whole(color: Color, percent: int) -> None:
    planned = weights_for(color, percent)
    assert sum(planned.values()) == 100
    assert planned[color] == percent


def test_all_at_once_leaves_the_other_colour_on_the_listener_with_weight_0() -> None:
    assert weights_for(GREEN, 100) == {GREEN: 100, BLUE: 0}


@pytest.mark.parametrize(
    ("found", "live"),
    [
        ({BLUE: 100, GREEN: 0}, BLUE),
        ({BLUE: 0, GREEN: 1}, GREEN),
        ({GREEN: 1}, GREEN),
        ({BLUE: 0, GREEN: 0}, None),
        ({}, None),
    ],
)
def test_the_live_colour_is_the_one_that_gets_the_traffic(
    found: Weights, live: Color | None
) -> None:
    assert live_color(found) is live


@given(st.integers(1, 999), st.integers(1, 999))
def test_split_traffic_is_refused_and_the_shares_are_named(blue: int, green: int) -> None:
    with pytest.raises(DeploymentRefused, match=f"blue {blue}, green {green}"):
        live_color({BLUE: blue, GREEN: green})


def test_a_third_target_group_is_refused_by_its_arn() -> None:
    actions = [forward((GROUPS[BLUE], 1), (ARN.format("canary"), 0))]
    with pytest.raises(TrafficChanged, match="targetgroup/web-canary/1, which is neither"):
        read_weights(actions, GROUPS)


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        ([], "its actions: nothing"),
        ([{"Type": "fixed-response"}], "its actions: fixed-response"),
        ([{"Type": "authenticate-oidc"}, {"Type": "redirect"}], "authenticate-oidc, redirect"),
    ],
)
def test_a_listener_that_does_not_forward_is_refused(
    actions: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(TrafficChanged, match=says):
        read_weights(actions, GROUPS)


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ({}, 0),
        ({"TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 3600}}, 3600),
        ({"TargetGroupStickinessConfig": {"Enabled": False, "DurationSeconds": 3600}}, 0),
    ],
)
def test_stickiness_counts_only_when_it_is_on(config: dict[str, Any], seconds: int) -> None:
    assert stickiness_seconds([forward((GROUPS[BLUE], 1), **config)]) == seconds


@given(st.dictionaries(st.sampled_from(list(Color)), weights))
def test_weights_are_shown_for_people(found: Weights) -> None:
    assume(found)
    for color, weight in found.items():
        assert f"{color} {weight}" in show(found)
    assert show({}) == "none"
