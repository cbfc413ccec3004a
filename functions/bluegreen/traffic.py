"""Traffic as data: what a list of load balancer actions says, and the list that says otherwise.

Pure functions over the ``Actions`` of DescribeListeners and DescribeRules
(https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Action.html).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from bluegreen.color import Color
from bluegreen.errors import DeploymentRefused, TrafficChanged

Action = Mapping[str, Any]
# Weight (0–999) per colour. A colour that the action does not name has no entry.
Weights = dict[Color, int]
TargetGroups = Mapping[Color, str]

_ALL = 100


def read_weights(actions: Sequence[Action], groups: TargetGroups) -> Weights:
    """The weights that a list of actions gives to the two colours.

    Raises TrafficChanged when there is no forward action, or when it forwards to a group that
    belongs to neither colour: then somebody else has a say in it.
    """
    forward = _forward(actions)
    colors = {arn: color for color, arn in groups.items()}
    weights: Weights = {}
    for group in _tuples(forward):
        arn = group["TargetGroupArn"]
        if arn not in colors:
            raise TrafficChanged(
                f"the listener also forwards to {arn}, which is neither blue nor green; "
                "a colour's forward action may hold the two target groups of the colours only"
            )
        weights[colors[arn]] = int(group.get("Weight", 1))
    return weights


def with_weights(
    actions: Sequence[Action], groups: TargetGroups, weights: Weights
) -> list[dict[str, Any]]:
    """The same actions with other weights: what ModifyListener and ModifyRule replace as a whole.

    Everything else (order, authentication, stickiness) is sent back as it was read. A colour
    without an entry in weights is taken out of the action, so that a snapshot can be restored to
    the letter.
    """
    changed = [_resendable(action) for action in actions]
    forward = _forward(changed)
    config = dict(forward.get("ForwardConfig") or {})
    order = [group["TargetGroupArn"] for group in _tuples(forward)]
    named = sorted(
        weights.items(),
        key=lambda item: (
            order.index(groups[item[0]]) if groups[item[0]] in order else len(order),
            item[0],
        ),
    )
    config["TargetGroups"] = [
        {"TargetGroupArn": groups[color], "Weight": weight} for color, weight in named
    ]
    # The short form beside several groups is an error, and beside one it says the same twice.
    forward.pop("TargetGroupArn", None)
    forward["ForwardConfig"] = config
    return changed


def shares(actions: Sequence[Action], groups: TargetGroups) -> Weights:
    """The weight of each colour wherever an action names it, whatever else there is."""
    colors = {arn: color for color, arn in groups.items()}
    return {
        colors[group["TargetGroupArn"]]: int(group.get("Weight", 1))
        for action in actions
        if action["Type"] == "forward"
        for group in _tuples(action)
        if group["TargetGroupArn"] in colors
    }


def live_color(weights: Weights) -> Color | None:
    """The colour that gets the traffic; None when neither does.

    Raises DeploymentRefused when both do: a deployment must start from one live colour.
    """
    live = [color for color in Color if weights.get(color, 0) > 0]
    if len(live) > 1:
        shares = ", ".join(f"{color} {weights[color]}" for color in Color)
        raise DeploymentRefused(
            f"the traffic is split between the colours ({shares}); "
            "set one weight to 0, or roll back the deployment that left it so"
        )
    return live[0] if live else None


def weights_for(color: Color, percent: int) -> Weights:
    """percent (0–100) of the traffic to color, the rest to the other one."""
    return {color: _ALL * percent // 100, color.other: _ALL - _ALL * percent // 100}


def stickiness_seconds(actions: Sequence[Action]) -> int:
    """How long the group stickiness of the forward action keeps a user on a colour; 0 if off."""
    config = _forward(actions).get("ForwardConfig") or {}
    stickiness = config.get("TargetGroupStickinessConfig") or {}
    return int(stickiness.get("DurationSeconds", 0)) if stickiness.get("Enabled") else 0


def show(weights: Weights) -> str:
    """``blue 100, green 0`` for messages."""
    return ", ".join(f"{color} {weights[color]}" for color in Color if color in weights) or "none"


def _forward(actions: Sequence[Any]) -> Any:
    for action in actions:
        if action["Type"] == "forward":
            return action
    kinds = ", ".join(action["Type"] for action in actions) or "nothing"
    raise TrafficChanged(
        f"the listener does not forward (its actions: {kinds}); "
        "it needs a forward action to the target groups of the colours"
    )


def _tuples(forward: Action) -> list[dict[str, Any]]:
    config = forward.get("ForwardConfig") or {}
    if config.get("TargetGroups"):
        return list(config["TargetGroups"])
    return [{"TargetGroupArn": forward["TargetGroupArn"]}]


def _resendable(action: Action) -> dict[str, Any]:
    """An action as it may be sent back: AWS never shows a client secret, only lets it stand."""
    sent = copy.deepcopy(dict(action))
    oidc = sent.get("AuthenticateOidcConfig")
    if oidc and "ClientSecret" not in oidc:
        oidc["UseExistingClientSecret"] = True
    return sent
