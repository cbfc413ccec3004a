"""A dry run says what would be done, and does none of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bluegreen.deployment import parse
from bluegreen.errors import DeploymentRefused, InvalidRequest, LockHeld
from runtime import clients
from tests.functions.account_state import account_state
from tests.functions.world import ACCOUNT, BLUE, GREEN, REGION, World

URI = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/web"


def dry(world: World, **request: Any) -> dict[str, Any]:
    answer = world.plan(dry_run=True, **request)["deployment"]
    assert answer["decision"] == "dry_run"
    plan: dict[str, Any] = answer["plan"]
    return plan


def test_it_says_what_a_deployment_would_change(world: World) -> None:
    world.scalable(GREEN, suspended=False)
    plan = dry(world)
    assert (plan["service"], plan["from_color"], plan["to_color"]) == ("web", "blue", "green")
    wanted = f"{URI}@{world.digests['v2']}"
    assert plan["images"] == {"web": {"from": "web:v1", "to": wanted}}
    assert {"path": "containerDefinitions.web.image", "before": "web:v1", "after": wanted} in plan[
        "task_definition"
    ]
    assert {
        "path": "containerDefinitions.web.portMappings.8000.hostPort",
        "before": 18081,
        "after": 18082,
    } in plan["task_definition"]
    assert plan["traffic"]["before"] == {"blue": 100, "green": 0}
    assert [step["weights"] for step in plan["traffic"]["steps"]] == [{"blue": 0, "green": 100}]
    said = "\n".join(plan["changes"])
    order = [
        "RegisterTaskDefinition: a new revision of web",
        "scaling of ECS service web-green suspended",
        "UpdateService: web-green on cluster web: desired count 0 → 2",
        "traffic: ",
        "UpdateService: web-blue: desired count 2 → 0",
    ]
    assert [said.index(one) for one in order] == sorted(said.index(one) for one in order)


def test_nothing_at_all_is_written(world: World) -> None:
    for color in (BLUE, GREEN):
        world.scalable(color, suspended=color is GREEN)
    before = account_state(world)
    dry(world, overrides={"environment": {"web": {"LOG": "debug"}}, "cpu": "256"})
    assert account_state(world) == before
    assert world.store.read("d-1") is None
    assert world.store.lock("web") is None


def test_what_it_says_is_what_the_deployment_then_does(world: World) -> None:
    plan = dry(world)
    world.started()
    definition = clients.ecs().describe_task_definition(
        taskDefinition=world.service(GREEN)["taskDefinition"]
    )["taskDefinition"]
    [container] = definition["containerDefinitions"]
    assert container["image"] == plan["images"]["web"]["to"]
    assert f"desired count 0 → {world.service(GREEN)['desiredCount']}" in "\n".join(plan["changes"])


def test_the_steps_of_the_strategy_with_their_times(world: World) -> None:
    world.configure(
        strategy={"type": "canary", "percent": 10, "seconds": 120}, bake={"seconds": 30}
    )
    assert dry(world)["traffic"]["steps"] == [
        {"weights": {"blue": 90, "green": 10}, "seconds": 120},
        {"weights": {"blue": 0, "green": 100}, "seconds": 30},
    ]


def test_everybody_who_is_asked_is_named(world: World) -> None:
    world.configure(
        hooks=[{"at": "before_deployment", "function": "ready"}],
        approval={"timeout_seconds": 60},
        migration={"container": "web", "command": ["migrate", "--password=s3cret"]},
    )
    said = "\n".join(dry(world)["changes"])
    assert "function ready is asked (before_deployment)" in said
    assert "a person is asked for approval, 60 s at most, then: reject" in said
    assert "container web of the new revision once, as a migration" in said
    assert "s3cret" not in said


def test_values_of_variables_are_not_shown(world: World) -> None:
    plan = dry(world, overrides={"environment": {"web": {"TOKEN": "s3cret"}}})
    assert {
        "path": "containerDefinitions.web.environment.TOKEN",
        "before": None,
        "after": "(not shown)",
    } in plan["task_definition"]
    assert "s3cret" not in json.dumps(plan)


def test_of_what_is_live_already_it_says_so(world: World) -> None:
    world.shifted()
    world.store.release("web", world.lock.fencing)
    answer = world.plan("d-2", dry_run=True)["deployment"]
    assert answer["plan"]["changes"] == ["nothing: this is what is live already"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"images": {"web": "v9"}}, InvalidRequest),
        ({"overrides": {"environment": {"nginx": {"A": "1"}}}}, DeploymentRefused),
    ],
    ids=["no such image", "no such container"],
)
def test_what_would_be_refused_is_refused(
    world: World, change: dict[str, Any], error: type[Exception]
) -> None:
    before = account_state(world)
    with pytest.raises(error):
        dry(world, **change)
    assert account_state(world) == before


def test_20_beside_a_running_deployment_it_is_refused_and_leaves_it_alone(world: World) -> None:
    world.plan("d-1")
    before = account_state(world)
    with pytest.raises(LockHeld, match="d-1"):
        world.plan("d-2", dry_run=True)
    assert account_state(world) == before


def test_of_a_rollback_it_says_what_goes_back(world: World) -> None:
    world.baked("d-1")
    before = account_state(world)
    request = {"action": "rollback", "service": "web", "dry_run": True}
    data = world.run("plan_roll_back", {"request": request}, "undo")
    assert account_state(world) == before
    assert data["recovery"]["direction"] == "dry_run"
    plan = data["deployment"]["plan"]
    assert (plan["from_color"], plan["to_color"]) == ("green", "blue")
    assert plan["images"]["web"]["to"] == "web:v1"
    assert plan["traffic"]["steps"] == [{"weights": {"blue": 100, "green": 0}, "seconds": 0}]
    assert "recovery" in data
    assert "deployment_id" not in data["recovery"]


def test_of_a_rollback_in_the_middle_of_a_shift_it_says_how_far_that_has_come(world: World) -> None:
    deployment = parse(world.started())
    request = {"action": "rollback", "deployment_id": "d-1", "dry_run": True}

    def before() -> Any:
        data = world.run("plan_roll_back", {"request": request}, "undo")
        return data["deployment"]["plan"]["traffic"]["before"]

    assert before() == {"blue": 100, "green": 0}
    world.store.intend(deployment, {BLUE: 90, GREEN: 10})
    assert before() == {"blue": 90, "green": 10}
