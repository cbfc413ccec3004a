"""ExplainMigration: stopped reason, exit code and the last log lines, and nothing runs on."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from moto.ecs.models import Task

from bluegreen.errors import AwsUnavailable, MigrationFailed
from runtime import clients
from tests.functions.world import BLUE, GREEN, START, World, execution_arn

SECRET = "hunter2"
MIGRATION = {"container": "web", "command": ["bin/migrate"], "environment": {"PASSWORD": SECRET}}


@pytest.fixture
def data(world: World) -> dict[str, Any]:
    world.configure(migration=MIGRATION)
    data = world.plan()
    return data | {"task_definition": world.run("register_task_definition", data)}


def migrate(world: World, data: dict[str, Any]) -> Task:
    """The migration's task as runTask starts it."""
    migration = data["task_definition"]["migration"]
    [task] = world.backend.run_task(
        cluster_str=migration["cluster"],
        task_definition_str=migration["task_definition"],
        count=1,
        overrides={"containerOverrides": [{"environment": [{"name": "P", "value": SECRET}]}]},
        started_by="AWS Step Functions",
        tags=None,
        launch_type="FARGATE",
        group="family:web",
    )
    started: Task = task
    started.containers[0].name = "web"
    return started


def capital(value: Any) -> Any:
    """As Step Functions writes what ECS answers."""
    if isinstance(value, dict):
        return {key[:1].upper() + key[1:]: capital(one) for key, one in value.items()}
    return [capital(one) for one in value] if isinstance(value, list) else value


def failure(task: Task) -> dict[str, str]:
    described = clients.ecs().describe_tasks(cluster="web", tasks=[task.task_arn])["tasks"][0]
    return {"Error": "States.TaskFailed", "Cause": json.dumps(capital(described), default=str)}


def explain(world: World, data: dict[str, Any], failed: dict[str, str]) -> str:
    with pytest.raises(MigrationFailed) as raised:
        world.run("explain_migration", data | {"migration_failure": failed})
    return str(raised.value)


def test_24_a_migration_that_failed_says_why(world: World, data: dict[str, Any]) -> None:
    task = migrate(world, data)
    task.last_status = task.desired_status = "STOPPED"
    task.stopped_reason = "Essential container in task exited"
    task.stopped_at = datetime.datetime.now(datetime.UTC)
    task.containers[0].exitCode = 3
    world.write_log(task.id, ["migrating", "column exists already"])
    said = explain(world, data, failure(task))
    assert said == (
        f"the migration (web) failed, nothing was shifted: task {task.id}: "
        "Essential container in task exited; container web, exit code 3; last log lines:\n"
        "    migrating\n"
        "    column exists already"
    )
    assert SECRET not in said


def test_a_task_that_was_never_placed_says_what_is_missing(
    world: World, data: dict[str, Any]
) -> None:
    cause = {"Failures": [{"Reason": "RESOURCE:MEMORY", "Arn": "arn:host"}], "Tasks": []}
    said = explain(world, data, {"Error": "AmazonECS.Unknown", "Cause": json.dumps(cause)})
    assert "AmazonECS.Unknown: RESOURCE:MEMORY, arn:host" in said


def test_a_refusal_of_ecs_is_told_as_it_is(world: World, data: dict[str, Any]) -> None:
    cause = "not authorized to perform: iam:PassRole"
    said = explain(world, data, {"Error": "ECS.AccessDeniedException", "Cause": cause})
    assert said.endswith("ECS.AccessDeniedException: not authorized to perform: iam:PassRole")


def test_a_migration_whose_time_is_up_is_stopped_and_says_what_it_last_did(
    world: World, data: dict[str, Any]
) -> None:
    """Step Functions stops a task when its execution is stopped, not when its time is up."""
    task = migrate(world, data)
    task.last_status = "RUNNING"
    world.write_log(task.id, ["row 10", "row 20"])
    said = explain(world, data, {"Error": "States.Timeout", "Cause": ""})
    assert "did not end within 900 s (timeout_seconds), nothing was shifted" in said
    assert "row 10\n    row 20" in said
    assert (task.desired_status, task.stopped_reason) == (
        "STOPPED",
        "the time of the migration is up",
    )


def test_a_migration_is_found_among_more_tasks_than_ecs_describes_at_once(
    world: World, data: dict[str, Any]
) -> None:
    for _ in range(120):
        world.add_task(BLUE, last_status="RUNNING")
    task = migrate(world, data)
    task.last_status = "RUNNING"
    world.write_log(task.id, ["row 10"])
    said = explain(world, data, {"Error": "States.Timeout", "Cause": ""})
    assert "row 10" in said
    assert task.desired_status == "STOPPED"


def test_a_migration_that_was_stopped_at_its_time_says_what_it_last_did(
    world: World, data: dict[str, Any]
) -> None:
    """Whoever did it: Step Functions may have been faster."""
    task = migrate(world, data)
    task.last_status, task.desired_status = "STOPPED", "STOPPED"
    task.stopped_reason = "Task stopped by user"
    task.stopped_at = datetime.datetime.now(datetime.UTC)
    world.write_log(task.id, ["row 10", "row 20"])
    said = explain(world, data, {"Error": "States.Timeout", "Cause": ""})
    assert "Task stopped by user" in said
    assert "row 10\n    row 20" in said
    assert task.stopped_reason == "Task stopped by user"


def test_nobody_elses_task_is_stopped(world: World, data: dict[str, Any]) -> None:
    others = [world.add_task(GREEN, last_status="RUNNING") for _ in range(2)]
    clients.ecs().update_service(
        cluster="web",
        service="web-green",
        taskDefinition=data["task_definition"]["migration"]["task_definition"],
    )
    others.append(world.add_task(GREEN, last_status="RUNNING"))
    by_hand = migrate(
        world,
        data
        | {
            "task_definition": {
                "migration": {"cluster": "web", "task_definition": data["task_definition"]["arn"]}
            }
        },
    )
    others.append(by_hand)
    said = explain(world, data, {"Error": "States.Timeout", "Cause": ""})
    assert "no task of it is there any more" in said
    assert {task.desired_status for task in others} == {"RUNNING"}


def test_a_migration_is_stopped_also_by_one_that_has_lost_its_lock(
    world: World, data: dict[str, Any]
) -> None:
    task = migrate(world, data)
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    explain(world, data, {"Error": "States.Timeout", "Cause": ""})
    assert task.desired_status == "STOPPED"


def test_ecs_that_is_away_is_asked_again(world: World, data: dict[str, Any]) -> None:
    world.fault("ecs", "ListTasks", "throttle")
    failed = {"Error": "States.Timeout", "Cause": ""}
    with pytest.raises(AwsUnavailable):
        world.run("explain_migration", data | {"migration_failure": failed})
