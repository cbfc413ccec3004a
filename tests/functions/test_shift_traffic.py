"""ShiftTraffic and the ALB router: compare, write, verify, and keep everything else."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.color import Color
from bluegreen.deployment import Location
from bluegreen.errors import AwsUnavailable, LockLost, TrafficChanged
from bluegreen.routers import listener
from runtime import clients
from tests.functions.world import BLUE, GREEN, START, World, execution_arn

OIDC: Any = {
    "Type": "authenticate-oidc",
    "Order": 1,
    "AuthenticateOidcConfig": {
        "Issuer": "https://id.example",
        "AuthorizationEndpoint": "https://id.example/a",
        "TokenEndpoint": "https://id.example/t",
        "UserInfoEndpoint": "https://id.example/u",
        "ClientId": "web",
        "ClientSecret": "secret",
    },
}


def shift(world: World, data: dict[str, Any]) -> dict[str, Any]:
    return world.run("shift_traffic", data)


def make_rule(world: World, *before: Any, **forward: Any) -> str:
    """A rule with priority 10 that gives all to blue."""
    return clients.elbv2().create_rule(
        ListenerArn=world.listener,
        Priority=10,
        Conditions=[{"Field": "path-pattern", "Values": ["/shop/*"]}],
        Actions=[*before, world.forward({BLUE: 100, GREEN: 0}, **forward) | {"Order": 2}],
    )["Rules"][0]["RuleArn"]


def rule_actions(arn: str) -> Any:
    return clients.elbv2().describe_rules(RuleArns=[arn])["Rules"][0]["Actions"]


def test_all_traffic_goes_to_the_new_colour(world: World) -> None:
    answer = shift(world, world.started())
    assert world.weights() == {BLUE: 0, GREEN: 100}
    assert answer == {
        "status": "shifted",
        "step": 0,
        "percent": 100,
        "weights": {"green": 100, "blue": 0},
        "began_at": world.now,
        "shifted_at": world.now,
        "proved_at": None,
        "wait_seconds": 1,
    }


def test_the_weights_are_noted_as_our_own_before_they_are_written(world: World) -> None:
    data = world.started()
    world.fault("elbv2", "ModifyListener", "timeout")
    with pytest.raises(AwsUnavailable):
        shift(world, data)
    assert world.record().intents[-1] == {GREEN: 100, BLUE: 0}
    assert world.weights() == {BLUE: 100, GREEN: 0}


def test_a_repeated_call_writes_nothing(world: World) -> None:
    data = world.started()
    shift(world, data)
    world.record_calls(("elbv2", "ModifyListener"))
    shift(world, data)
    assert world.calls == []
    assert world.weights() == {BLUE: 0, GREEN: 100}


def test_a_lost_answer_is_found_done(world: World) -> None:
    data = world.started()
    world.fault("elbv2", "ModifyListener", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        shift(world, data)
    assert shift(world, data)["status"] == "shifted"
    assert world.weights() == {BLUE: 0, GREEN: 100}


def test_05_weights_put_back_by_another_controller_are_not_overwritten(world: World) -> None:
    data = world.started()
    world.set_weights({BLUE: 50, GREEN: 50})
    with pytest.raises(TrafficChanged, match="found blue 50, green 50, expected blue 100, green 0"):
        shift(world, data)
    assert world.weights() == {BLUE: 50, GREEN: 50}


def test_05_weights_changed_right_after_the_write_are_seen_and_left(world: World) -> None:
    data = world.started()
    world.meanwhile("elbv2", "ModifyListener", lambda: world.set_weights({BLUE: 100, GREEN: 0}))
    with pytest.raises(TrafficChanged, match="wrote blue 0, green 100, but read blue 100, green 0"):
        shift(world, data)
    assert world.weights() == {BLUE: 100, GREEN: 0}


def test_05_a_maintenance_page_of_another_hand_is_not_overwritten(world: World) -> None:
    """A listener that no longer forwards was changed by somebody else, too."""
    data = world.started()
    page: Any = [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "503"}}]
    clients.elbv2().modify_listener(ListenerArn=world.listener, DefaultActions=page)
    with pytest.raises(TrafficChanged):
        shift(world, data)
    assert world.actions()[0]["Type"] == "fixed-response"


def test_a_deployment_that_was_taken_over_moves_nothing(world: World) -> None:
    data = world.started()
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        shift(world, data)
    assert world.weights() == {BLUE: 100, GREEN: 0}
    assert world.record().intents == []


def test_a_rule_moves_and_the_default_action_does_not(world: World) -> None:
    arn = make_rule(world)
    world.configure(router={"rule_priority": 10})
    shift(world, world.started())
    [forward] = rule_actions(arn)
    found = {
        one["TargetGroupArn"]: one["Weight"] for one in forward["ForwardConfig"]["TargetGroups"]
    }
    assert found == {world.groups[BLUE]: 0, world.groups[GREEN]: 100}
    assert world.weights() == {BLUE: 100, GREEN: 0}


def test_other_actions_stickiness_and_order_of_a_rule_are_kept(world: World) -> None:
    sticky = {"TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 300}}
    arn = make_rule(world, OIDC, **sticky)
    before = rule_actions(arn)
    world.configure(router={"rule_priority": 10})
    data = world.started()
    assert data["deployment"]["stickiness_seconds"] == 300
    shift(world, data)
    authenticate, forward = rule_actions(arn)
    expected = before[0]["AuthenticateOidcConfig"] | {"UseExistingClientSecret": True}
    expected.pop("ClientSecret", None)
    found = dict(authenticate["AuthenticateOidcConfig"])
    found.pop("ClientSecret", None)
    assert {key: found[key] for key in OIDC["AuthenticateOidcConfig"] if key in found}.items() <= (
        expected.items()
    )
    assert [authenticate["Order"], forward["Order"]] == [1, 2]
    assert forward["ForwardConfig"]["TargetGroupStickinessConfig"] == {
        "Enabled": True,
        "DurationSeconds": 300,
    }


@pytest.mark.parametrize("where", ["listener", "rule"])
def test_writing_and_writing_back_leaves_every_action_as_it_was(world: World, where: str) -> None:
    arn = make_rule(world, OIDC) if where == "rule" else None
    location = Location(listener_arn=world.listener, rule_arn=arn)

    def forward() -> Any:
        actions = rule_actions(arn) if arn else world.actions()
        return [
            {key: value for key, value in action.items() if key != "AuthenticateOidcConfig"}
            for action in actions
        ]

    before = forward()
    old, new = {BLUE: 100, GREEN: 0}, {BLUE: 0, GREEN: 100}
    listener.write(clients.elbv2(), location, world.groups, [old], new)
    assert forward() != before
    listener.write(clients.elbv2(), location, world.groups, [new], old)
    assert forward() == before


def scaling(color: Color) -> Any:
    [target] = clients.application_autoscaling().describe_scalable_targets(
        ServiceNamespace="ecs", ResourceIds=[f"service/web/web-{color}"]
    )["ScalableTargets"]
    return target["SuspendedState"]


def suspended(*, out: bool) -> dict[str, bool]:
    return {
        "DynamicScalingInSuspended": True,
        "DynamicScalingOutSuspended": out,
        "ScheduledScalingSuspended": True,
    }


def test_12_the_old_colour_does_not_scale_in_without_traffic_and_the_new_one_scales_out_only(
    world: World,
) -> None:
    """Without traffic the old colour would shrink, and it is the way back."""
    world.scalable(BLUE, suspended=False)
    world.scalable(GREEN, suspended=False)
    data = world.started()
    shift(world, data)
    assert scaling(BLUE) == suspended(out=True)
    assert scaling(GREEN) == suspended(out=False)


def test_12_an_old_colour_that_keeps_a_part_of_the_traffic_may_scale_out(world: World) -> None:
    """For hours perhaps, and with nearly all of it."""
    world.configure(strategy={"type": "linear", "percent": 40, "seconds": 86400})
    world.scalable(BLUE, suspended=False)
    world.scalable(GREEN, suspended=False)
    data = world.started()
    data["shift"] = shift(world, data)
    assert world.weights() == {BLUE: 60, GREEN: 40}
    assert [scaling(color) for color in (BLUE, GREEN)] == [suspended(out=False)] * 2
    world.scalable(BLUE, suspended=False)
    data["shift"] |= {"step": 1, "status": "next_step"}
    data["shift"] = shift(world, data)
    assert not world.suspended(BLUE), "what somebody has set since stays"
    data["shift"] |= {"step": 2, "status": "next_step"}
    shift(world, data)
    assert world.weights() == {BLUE: 0, GREEN: 100}
    assert scaling(BLUE) == suspended(out=True)
    assert scaling(GREEN) == suspended(out=False)


def test_12_it_is_kept_before_it_loses_its_traffic(world: World) -> None:
    world.scalable(BLUE, suspended=False)
    data = world.started()
    world.fault("application_autoscaling", "RegisterScalableTarget", "error500")
    with pytest.raises(AwsUnavailable):
        shift(world, data)
    assert world.weights() == {BLUE: 100, GREEN: 0}
    assert world.record().intents == []


def test_12_a_live_colour_that_was_not_to_scale_out_does_not_begin_to(world: World) -> None:
    world.scalable(BLUE, suspended=True)
    world.scalable(GREEN, suspended=True)
    shift(world, world.started())
    assert scaling(GREEN) == suspended(out=True)


def test_12_a_colour_that_does_not_scale_gets_no_scalable_target(world: World) -> None:
    world.scalable(GREEN, suspended=True)
    shift(world, world.started())
    found = clients.application_autoscaling().describe_scalable_targets(ServiceNamespace="ecs")
    assert [one["ResourceId"] for one in found["ScalableTargets"]] == ["service/web/web-green"]
    assert scaling(GREEN) == suspended(out=True)
