"""RegisterTaskDefinition: one revision a deployment, however often it is asked for."""

from __future__ import annotations

import copy

import pytest

from bluegreen.errors import AwsRefused, AwsUnavailable, DeploymentRefused, LockLost
from runtime import clients
from tests.functions.group_world import GroupWorld
from tests.functions.world import DEFINITION, START, World, execution_arn


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


def test_the_revision_is_noted_for_those_who_go_back_to_it(world: World) -> None:
    data = world.plan()
    arn = world.run("register_task_definition", data)["arn"]
    assert world.record().revision == arn


def test_22_the_record_says_the_revision_also_when_an_earlier_attempt_has_registered_it(
    world: World,
) -> None:
    data = world.plan()
    world.fault("dynamodb", "UpdateItem", "throttle")
    with pytest.raises(AwsUnavailable):
        world.run("register_task_definition", data)
    assert world.run("register_task_definition", data)["arn"] == world.record().revision
    assert len(world.revisions()) == 2


def test_it_is_made_from_another_deployments_revision_where_that_is_asked_for(world: World) -> None:
    """base: the task definition of the deployment that is gone back to."""
    other = copy.deepcopy(DEFINITION["containerDefinitions"])
    other[0]["memory"] = 512
    base = clients.ecs().register_task_definition(family="web", containerDefinitions=other)
    clients.ecs().register_task_definition(family="web", containerDefinitions=[])
    data = world.plan()
    data["deployment"]["base"] = base["taskDefinition"]["taskDefinitionArn"]
    arn = world.run("register_task_definition", data)["arn"]
    [web] = clients.ecs().describe_task_definition(taskDefinition=arn)["taskDefinition"][
        "containerDefinitions"
    ]
    assert web["memory"] == 512
    assert web["image"].endswith("@" + world.digests["v2"])
    assert world.run("register_task_definition", data)["arn"] == arn


# With a migration

MIGRATION = {"container": "web", "command": ["bin/migrate"], "timeout_seconds": 1200}


def test_without_a_migration_there_is_none_to_run(world: World) -> None:
    assert "migration" not in world.run("register_task_definition", world.plan())


def test_10_the_migration_runs_a_revision_of_its_own_without_the_fixed_port(world: World) -> None:
    world.configure(migration=MIGRATION)
    answer = world.run("register_task_definition", world.plan())
    own = answer["migration"]["task_definition"]
    assert world.revisions()[:2] == [answer["arn"], own], "the deployment's is the newest"
    found = clients.ecs().describe_task_definition(taskDefinition=own, include=["TAGS"])
    [web] = found["taskDefinition"]["containerDefinitions"]
    assert not web.get("portMappings")
    assert web["image"].endswith("@" + world.digests["v2"])
    assert {"key": "ecs-bluegreen:migration", "value": "d-1"} in found["tags"]
    del answer["migration"]["task_definition"]
    assert answer["migration"] == {
        "cluster": "web",
        "launch_type": "EC2",
        "overrides": {
            "ContainerOverrides": [{"Name": "web", "Command": ["bin/migrate"], "Environment": []}]
        },
        "timeout_seconds": 1200,
    }


def test_repeated_calls_make_both_revisions_once(world: World) -> None:
    world.configure(migration=MIGRATION)
    data = world.plan()
    first = world.run("register_task_definition", data)
    assert world.run("register_task_definition", data) == first
    assert len(world.revisions()) == 3


def test_a_lost_answer_makes_the_migrations_revision_once(world: World) -> None:
    world.configure(migration=MIGRATION)
    data = world.plan()
    world.fault("ecs", "RegisterTaskDefinition", "lost_answer")
    with pytest.raises(AwsUnavailable):
        world.run("register_task_definition", data)
    world.run("register_task_definition", data)
    assert len(world.revisions()) == 3


def test_the_lock_is_held_for_as_long_as_the_migration_may_take(world: World) -> None:
    world.configure(migration=MIGRATION)
    world.run("register_task_definition", world.plan())
    assert world.lock.lease_expires_at == START + 1200 + 600


def test_a_migration_in_a_container_that_is_not_there_registers_nothing(world: World) -> None:
    world.configure(migration=MIGRATION | {"container": "worker"})
    data = world.plan()
    with pytest.raises(DeploymentRefused, match="no container 'worker', only web"):
        world.run("register_task_definition", data)
    assert len(world.revisions()) == 1


def test_with_two_clusters_the_migration_runs_on_the_hosts_of_the_live_colour(
    groups: GroupWorld,
) -> None:
    groups.configure(migration=MIGRATION)
    answer = groups.run("register_task_definition", groups.plan())
    assert answer["migration"]["cluster"] == "web-blue"
