"""The migration: a one-off task of the new revision, before the idle colour starts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.running import Running

LOG_GROUP = "/ecs/web"
# Ours, and that of a workflow's state whose time is up: whoever is faster.
TIME_IS_UP = ("the time of the migration is up", "Task stopped by user")


def migrating(script: str, **settings: Any) -> dict[str, Any]:
    return {"migration": {"container": "web", "command": ["sh", "-c", script], **settings}}


def tasks(sandbox: Running) -> dict[str, dict[str, Any]]:
    """ARN → task, of all that ECS knows, also what has ended."""
    ecs = sandbox.client("ecs")
    arns = [
        arn
        for status in ("RUNNING", "STOPPED")
        for page in ecs.get_paginator("list_tasks").paginate(cluster="web", desiredStatus=status)
        for arn in page["taskArns"]
    ]
    found: dict[str, dict[str, Any]] = {}
    for begin in range(0, len(arns), 100):
        described = ecs.describe_tasks(cluster="web", tasks=arns[begin : begin + 100])["tasks"]
        found |= {one["taskArn"]: one for one in described}
    return found


def new_tasks(
    sandbox: Running, before: dict[str, dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The tasks that there were not before: of no service, and of services."""
    new = [one for arn, one in tasks(sandbox).items() if arn not in before]
    alone = [one for one in new if not one["group"].startswith("service:")]
    return alone, [one for one in new if one not in alone]


def log(sandbox: Running, task: dict[str, Any]) -> list[str]:
    """What the task has written."""
    stream = f"web/web/{task['taskArn'].rpartition('/')[2]}"
    events = sandbox.client("logs").get_log_events(logGroupName=LOG_GROUP, logStreamName=stream)
    return [one["message"] for one in events["events"]]


def test_it_runs_with_the_new_image_before_the_idle_colour_starts(sandbox: Running) -> None:
    sandbox.push("migrated")
    before, old = tasks(sandbox), sandbox.live()
    new = "green" if old == "blue" else "blue"
    settings = migrating(
        "echo adding a column; env | grep -E '^(DATABASE|VERSION)=' | sort",
        environment={"DATABASE": "shop-{color}"},
    )
    with sandbox.configured(settings), sandbox.under_load():
        ended = sandbox.deploy("migrated")
        assert ended.succeeded, ended.cause
        assert sandbox.answer()["X-Version"] == "migrated"
    (migration,), started = new_tasks(sandbox, before)
    assert log(sandbox, migration) == [
        "adding a column",
        f"DATABASE=shop-{new}",
        "VERSION=migrated",
    ]
    assert migration["lastStatus"] == "STOPPED"
    assert [one["exitCode"] for one in migration["containers"]] == [0]
    assert len(started) == 2
    assert {one["group"] for one in started} == {f"service:web-{new}"}
    assert all(one["createdAt"] >= migration["stoppedAt"] for one in started)
    # It has a revision of its own, without the host port that tasks of a colour have.
    ecs = sandbox.client("ecs")
    own = ecs.describe_task_definition(taskDefinition=migration["taskDefinitionArn"])
    assert own["taskDefinition"]["containerDefinitions"][0]["portMappings"] == []
    live = sandbox.ecs_service(new)["taskDefinition"]
    assert live != migration["taskDefinitionArn"]
    assert sandbox.revisions()[-1] == live
    assert sandbox.counts() == {new: (2, 2), old: (0, 0)}


def test_one_that_fails_shifts_nothing_and_says_why(sandbox: Running) -> None:
    sandbox.push("not-migrated")
    before, world, version = tasks(sandbox), sandbox.world(), sandbox.answer()["X-Version"]
    settings = migrating("echo altering table orders; echo 'deadlock detected' >&2; exit 3")
    with sandbox.configured(settings), sandbox.under_load():
        ended = sandbox.deploy("not-migrated")
        assert (ended.status, ended.error) == ("FAILED", "MigrationFailed"), ended
        assert sandbox.answer()["X-Version"] == version
    assert "the migration (web) failed, nothing was shifted" in ended.cause
    assert "exit code 3" in ended.cause
    assert "last log lines" in ended.cause
    assert "altering table orders\n    deadlock detected" in ended.cause
    assert "StartIdleColor" not in ended.states
    assert sandbox.record(ended.name)["outcome"] == "rolled_back"
    assert sandbox.world() == world
    assert "held" not in sandbox.lock()
    # Once: it is not tried again by itself.
    (migration,), started = new_tasks(sandbox, before)
    assert [one["exitCode"] for one in migration["containers"]] == [3]
    assert started == []


def test_one_that_takes_too_long_is_stopped(sandbox: Running) -> None:
    sandbox.push("migrated-for-ever")
    before, world, version = tasks(sandbox), sandbox.world(), sandbox.answer()["X-Version"]
    settings = migrating("echo waiting for a lock; exec sleep 600", timeout_seconds=10)
    with sandbox.configured(settings), sandbox.under_load():
        ended = sandbox.deploy("migrated-for-ever")
        assert (ended.status, ended.error) == ("FAILED", "MigrationFailed"), ended
        assert sandbox.answer()["X-Version"] == version
    assert "did not end within 10 s (timeout_seconds), nothing was shifted" in ended.cause
    assert any(reason in ended.cause for reason in TIME_IS_UP)
    assert "waiting for a lock" in ended.cause
    assert "StartIdleColor" not in ended.states
    assert sandbox.record(ended.name)["outcome"] == "rolled_back"
    assert sandbox.world() == world
    (migration,), started = new_tasks(sandbox, before)
    assert migration["desiredStatus"] == "STOPPED"
    assert migration["stoppedReason"] in TIME_IS_UP
    assert started == []


@pytest.mark.parametrize("how", ["abort", "stop"])
def test_23_what_is_broken_off_leaves_no_migration_running(sandbox: Running, how: str) -> None:
    sandbox.push(f"migration-{how}")
    before, world, version = tasks(sandbox), sandbox.world(), sandbox.answer()["X-Version"]
    name = f"migration-{how}"
    with sandbox.configured(migrating("echo begun; exec sleep 600")), sandbox.under_load():
        arn = sandbox.start_execution(sandbox.request(name), name=name)
        sandbox.wait_for_state(arn, "RunMigration")
        while not [one for one in new_tasks(sandbox, before)[0] if one["lastStatus"] == "RUNNING"]:
            assert sandbox.states(arn)[-1] == "RunMigration"
        if how == "abort":
            request = {"action": "abort", "deployment_id": name, "who": "ann"}
            ended = sandbox.wait(sandbox.start_execution(request))
            assert ended.succeeded, ended.cause
        else:
            sandbox.stop_execution(arn)
            sandbox.wait_until_unlocked()
        assert sandbox.answer()["X-Version"] == version
    # From here on the next deployment may begin, with a migration of its own.
    assert "held" not in sandbox.lock()
    (migration,), started = new_tasks(sandbox, before)
    assert (migration["desiredStatus"], migration["lastStatus"]) == ("STOPPED", "STOPPED")
    assert started == []
    sandbox.wait(arn)
    assert sandbox.record(name)["outcome"] == "rolled_back"
    assert sandbox.world() == world
