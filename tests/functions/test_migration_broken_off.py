"""RollBack: a migration that is still running when its deployment is taken back is stopped."""

from __future__ import annotations

from typing import Any

import pytest
from moto.ecs.models import Task

from bluegreen.color import Color
from bluegreen.deployment import parse
from bluegreen.errors import RollBackIncomplete
from bluegreen.migration import MIGRATION_TAG
from bluegreen.task_definition import DEPLOYMENT_TAG
from tests.functions.world import START, World, execution_arn


@pytest.fixture
def data(world: World) -> dict[str, Any]:
    world.configure(migration={"container": "web", "command": ["bin/migrate"]})
    data = world.plan()
    return data | {"task_definition": world.run("register_task_definition", data)}


def run(world: World, data: dict[str, Any], tag: str, deployment: str, group: str) -> Task:
    """A task with the tags of its revision, as PropagateTags says."""
    [task] = world.backend.run_task(
        cluster_str="web",
        task_definition_str=data["task_definition"]["arn"],
        count=1,
        overrides={},
        started_by="",
        tags=[{"key": tag, "value": deployment}],
        launch_type="FARGATE",
        group=group,
    )
    started: Task = task
    return started


@pytest.mark.parametrize("tag", [MIGRATION_TAG, DEPLOYMENT_TAG])
def test_23_it_is_stopped_whoever_takes_the_deployment_back(
    world: World, data: dict[str, Any], tag: str
) -> None:
    task = run(world, data, tag, "d-1", "family:web")
    deployment = parse(data)
    lock = world.store.lock(deployment.service)
    assert lock
    arn = execution_arn("undo")
    fencing = world.store.take_over(lock, deployment.id, arn, START, "roll_back")
    taken = deployment.model_copy(update={"fencing": fencing}).document()
    recovery = {"deployment_id": deployment.id, "direction": "roll_back"}
    world.run("roll_back", {"deployment": taken, "recovery": recovery}, "undo")
    assert task.desired_status == "STOPPED"
    assert task.stopped_reason == "deployment d-1 is rolled back"


def test_10_the_next_deployment_waits_until_it_has_ended(
    world: World, data: dict[str, Any]
) -> None:
    """Its own migration must not run beside this one."""
    task = run(world, data, MIGRATION_TAG, "d-1", "family:web")
    for last_status in ("RUNNING", "STOPPING", "DEPROVISIONING"):
        task.last_status = last_status
        data["rollback"] = world.run("roll_back", data)
        assert data["rollback"]["status"] == "waiting"
        world.now += 100
    assert data["rollback"]["reason"] == "the migration has not stopped yet"
    task.last_status = "STOPPED"
    assert world.run("roll_back", data)["status"] == "restored"


def test_21_a_migration_that_does_not_stop_is_told(world: World, data: dict[str, Any]) -> None:
    task = run(world, data, MIGRATION_TAG, "d-1", "family:web")
    data["rollback"] = world.run("roll_back", data)
    task.last_status = "STOPPING"
    world.now += 900
    with pytest.raises(RollBackIncomplete, match="the migration has not stopped yet"):
        world.run("roll_back", data)


def test_nobody_elses_task_is_stopped(world: World, data: dict[str, Any]) -> None:
    others = [
        run(world, data, MIGRATION_TAG, "d-2", "family:web"),
        run(world, data, "team", "d-1", "family:web"),
        run(world, data, DEPLOYMENT_TAG, "d-1", "service:web-green"),
    ]
    world.run("roll_back", data)
    assert [one.desired_status for one in others] == ["RUNNING"] * 3


def test_once_traffic_has_moved_there_is_none_to_look_for(
    world: World, data: dict[str, Any]
) -> None:
    """It runs before that, and ECS that does not answer must not keep the traffic."""
    task = run(world, data, MIGRATION_TAG, "d-1", "family:web")
    world.store.intend(parse(data), {Color.BLUE: 0, Color.GREEN: 100})
    world.run("roll_back", data)
    assert task.desired_status == "RUNNING"
