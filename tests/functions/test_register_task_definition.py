"""RegisterTaskDefinition: one revision a deployment, however often it is asked for."""

from __future__ import annotations

import pytest

from bluegreen.errors import AwsRefused, AwsUnavailable, LockLost
from runtime import clients
from tests.functions.world import START, World, execution_arn


def test_the_revision_is_the_live_one_with_the_new_image_and_port(world: World) -> None:
    arn = world.run("register_task_definition", world.plan())["arn"]
    answer = clients.ecs().describe_task_definition(taskDefinition=arn, include=["TAGS"])
    web = answer["taskDefinition"]["containerDefinitions"][0]
    assert arn.endswith(":2")
    assert web["image"].endswith("@" + world.digests["v2"])
    assert web["portMappings"][0]["hostPort"] == 18082
    assert web["environment"] == [{"name": "COLOR", "value": "green"}]
    assert web["logConfiguration"]["options"]["awslogs-group"] == "/ecs/web"
    assert {tag["key"]: tag["value"] for tag in answer["tags"]} == {
        "team": "shop",
        "ecs-bluegreen:deployment": "d-1",
    }


def test_overrides_of_the_request_win_over_the_configuration(world: World) -> None:
    overrides = {"environment": {"web": {"COLOR": "teal", "LOG": "debug"}}, "cpu": "512"}
    arn = world.run("register_task_definition", world.plan(overrides=overrides))["arn"]
    found = clients.ecs().describe_task_definition(taskDefinition=arn)["taskDefinition"]
    assert found["cpu"] == "512"
    assert found["containerDefinitions"][0]["environment"] == [
        {"name": "COLOR", "value": "teal"},
        {"name": "LOG", "value": "debug"},
    ]


def test_repeated_calls_make_one_revision(world: World) -> None:
    data = world.plan()
    first = world.run("register_task_definition", data)
    assert world.run("register_task_definition", data) == first
    assert len(world.revisions()) == 2


def test_a_lost_answer_makes_one_revision(world: World) -> None:
    data = world.plan()
    world.fault("ecs", "RegisterTaskDefinition", "lost_answer")
    with pytest.raises(AwsUnavailable):
        world.run("register_task_definition", data)
    found = world.run("register_task_definition", data)["arn"]
    assert world.revisions()[0] == found
    assert len(world.revisions()) == 2


def test_a_revision_that_somebody_else_registered_meanwhile_is_not_taken(world: World) -> None:
    data = world.plan()
    first = world.run("register_task_definition", data)["arn"]
    clients.ecs().register_task_definition(family="web", containerDefinitions=[])
    assert world.run("register_task_definition", data)["arn"] == first


def test_each_deployment_makes_its_own_revision(world: World) -> None:
    first = world.run("register_task_definition", world.plan("d-1"), "d-1")
    world.store.release("web", world.lock.fencing)
    second = world.run("register_task_definition", world.plan("d-2"), "d-2")
    assert first != second


def test_two_deployments_of_one_family_at_a_time_are_no_refusal(world: World) -> None:
    """ECS answers a ClientException to concurrent registrations in one family: it passes."""
    data = world.plan()
    world.fault("ecs", "RegisterTaskDefinition", "concurrent_revision")
    with pytest.raises(AwsUnavailable):
        world.run("register_task_definition", data)


def test_without_the_permission_it_is_not_tried_again(world: World) -> None:
    data = world.plan()
    world.fault("ecs", "RegisterTaskDefinition", "denied")
    with pytest.raises(AwsRefused, match="AccessDenied"):
        world.run("register_task_definition", data)
    assert len(world.revisions()) == 1


def test_a_deployment_that_was_taken_over_registers_nothing(world: World) -> None:
    data = world.plan()
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        world.run("register_task_definition", data)
    assert len(world.revisions()) == 1
