"""PlanDeployment of what ran before, beside a push, and with what else a request may say."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from bluegreen.deployment import Deployment, parse
from bluegreen.errors import DeploymentRefused, InvalidRequest, LockHeld
from runtime import clients
from tests.functions.world import ACCOUNT, GREEN, REGION, World, execution_arn

URI = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/web"


@pytest.fixture
def two(world: World) -> World:
    """d-1 of v2 with a variable, then d-2 of v3, which is live; its execution has ended."""
    first = world.plan("d-1", overrides={"environment": {"web": {"LOG": "debug"}}})
    register(world, first, "d-1")
    end(world, "d-1")
    world.push("v3")
    world.set_weights({color: 100 if color is GREEN else 0 for color in world.groups})
    second = world.plan("d-2", images={"web": "v3"})
    register(world, second, "d-2")
    end(world, "d-2")
    return world


def register(world: World, data: dict[str, Any], name: str) -> str:
    arn: str = world.run("register_task_definition", data, name)["arn"]
    if world.record(name).revision is None:
        world.store.note_revision(parse(data), arn)
    return arn


def end(world: World, name: str, outcome: str = "succeeded", reason: str = "live") -> None:
    fencing = world.lock.fencing
    world.store.close(name, outcome, reason, world.now, fencing)
    world.store.release("web", fencing)


def test_like_takes_the_images_of_that_deployment_by_digest(two: World) -> None:
    plan = two.plan("d-3", images={}, like="d-1")["deployment"]
    assert plan["images"] == {"web": f"{URI}@{two.digests['v2']}"}
    assert plan["base"] == two.record("d-1").revision
    assert plan["decision"] == "deploy"


def test_like_takes_the_rest_of_its_task_definition_too(two: World) -> None:
    data = two.plan("d-3", images={}, like="d-1")
    revision = two.run("register_task_definition", data, "d-3")["arn"]
    found = clients.ecs().describe_task_definition(taskDefinition=revision)["taskDefinition"]
    assert {"name": "LOG", "value": "debug"} in found["containerDefinitions"][0]["environment"]


def test_like_finds_what_was_deployed_before_revisions_were_recorded(two: World) -> None:
    clients.dynamodb().update_item(
        TableName="deployments",
        Key={"pk": {"S": "deployment#d-1"}},
        UpdateExpression="REMOVE revision",
    )
    plan = two.plan("d-3", images={}, like="d-1")["deployment"]
    assert plan["images"] == {"web": f"{URI}@{two.digests['v2']}"}


def test_an_image_that_ecr_has_deleted_cannot_be_repeated(two: World) -> None:
    clients.ecr().batch_delete_image(
        repositoryName="web", imageIds=[{"imageDigest": two.digests["v2"]}]
    )
    with pytest.raises(DeploymentRefused, match=r"d-1 cannot be repeated: .* has no image"):
        two.plan("d-3", images={}, like="d-1")
    assert not two.lock.held


@pytest.mark.parametrize("like", ["d-9", "other"])
def test_like_names_a_deployment_of_the_service(two: World, like: str) -> None:
    two.store.open("other", "api", "arn", "then", two.now)
    with pytest.raises(InvalidRequest, match=f"service web has no deployment '{like}'"):
        two.plan("d-3", images={}, like=like)


def test_like_of_one_that_registered_nothing_is_refused(two: World) -> None:
    two.store.open("d-0", "web", "arn", "then", two.now)
    with pytest.raises(DeploymentRefused, match="d-0 registered no task definition"):
        two.plan("d-3", images={}, like="d-0")


def test_who_asked_and_what_is_stopped_at_is_in_the_plan(world: World) -> None:
    world.configure(approval={"timeout_seconds": 60})
    release = world.start_execution("spring")
    plan = world.plan(
        started_by={"kind": "schedule", "detail": "v2"}, skip_bake=True, release=release
    )["deployment"]
    deployment = Deployment.model_validate(plan)
    assert str(deployment.started_by) == "schedule v2"
    assert (deployment.gates.approval, deployment.gates.before_shift) == (True, False)
    assert (deployment.skip_bake, deployment.release) == (True, release)


@pytest.mark.parametrize(
    "release",
    [
        "spring",
        execution_arn("spring").replace("deployer", "another"),
        execution_arn("spring").replace(ACCOUNT, "999999999999"),
    ],
)
def test_a_release_is_an_execution_of_ours(world: World, release: str) -> None:
    world.start_execution("spring")
    with pytest.raises(InvalidRequest, match="is no execution of a release"):
        world.plan(release=release)
    assert world.store.lock("web") is None


def test_of_a_release_that_has_ended_or_never_was_nothing_begins(world: World) -> None:
    """Nobody would ever say how it ends, and its lock would be held."""
    with pytest.raises(DeploymentRefused, match="is not there: nobody would say"):
        world.plan(release=execution_arn("spring"))
    world.start_execution("spring")
    world.stop_execution("spring")
    with pytest.raises(DeploymentRefused, match=r"has ended \(ABORTED\)"):
        world.plan(release=execution_arn("spring"))
    assert world.store.lock("web") is None


@pytest.mark.parametrize("kind", ["release", "rollback"])
def test_what_only_a_release_or_a_rollback_may_say_is_refused_by_hand(
    world: World, kind: str
) -> None:
    """A rollback begins although an alarm is on."""
    asked = {"service": "web", "images": {"web": "v2"}, "started_by": {"kind": kind}}
    with pytest.raises(InvalidRequest, match=f"started_by: {kind}"):
        world.run("plan_deployment", {"request": asked})
    assert world.store.lock("web") is None


@pytest.mark.parametrize("kind", ["push", "schedule"])
def test_by_hand_what_a_push_deploys_right_now_is_waited_for(world: World, kind: str) -> None:
    world.plan("d-1", started_by={"kind": kind})
    answer = world.plan("d-2")["deployment"]
    assert answer["decision"] == "waiting"
    assert answer["wait_seconds"] > 0
    assert "d-1" in answer["reason"]
    assert world.lock.deployment_id == "d-1"


PUSH, HAND = {"kind": "push", "detail": "v2"}, {"kind": "hand"}


@pytest.mark.parametrize("outcome", ["rolled_back", "failed", "traffic_left"])
@pytest.mark.parametrize(("first", "second"), [(PUSH, HAND), (HAND, PUSH)], ids=["hand", "push"])
def test_22_what_came_to_nothing_meanwhile_is_not_repeated_by_who_waited_for_it(
    world: World, first: dict[str, str], second: dict[str, str], outcome: str
) -> None:
    world.plan("d-1", started_by=first)
    data = world.plan("d-2", started_by=second)
    assert data["deployment"]["decision"] == "waiting"
    end(world, "d-1", outcome, "3 tasks have died")
    world.now += 2
    with pytest.raises(DeploymentRefused) as refused:
        world.run("plan_deployment", data, "d-2")
    assert str(refused.value) == (
        f"deployment d-1, which was waited for, deployed the same and ended as {outcome}: "
        "3 tasks have died; start it by hand, again if need be, to deploy it nevertheless"
    )
    assert (world.lock.held, world.lock.changed_by) == (False, "d-1")
    assert world.record("d-2").deployment is None
    assert world.plan("d-3")["deployment"]["decision"] == "deploy", "by hand, as it said"


@pytest.mark.parametrize(
    "other", [{"images": {"web": "v1"}}, {"overrides": {"cpu": "256"}}], ids=str
)
def test_22_but_something_else_that_failed_meanwhile_keeps_nobody_back(
    world: World, other: dict[str, Any]
) -> None:
    world.plan("d-1", **other)
    data = world.plan("d-2", started_by=PUSH)
    end(world, "d-1", "rolled_back")
    assert world.run("plan_deployment", data, "d-2")["decision"] == "deploy"
    assert world.lock.deployment_id == "d-2"


def test_22_nor_does_what_only_had_the_lock_before_it_planned_anything(world: World) -> None:
    arn = world.start_execution("d-1")
    world.store.open("d-1", "web", arn, "then", world.now)
    world.store.acquire("web", "d-1", arn, world.now, None)
    data = world.plan("d-2")
    end(world, "d-1", "failed")
    assert world.run("plan_deployment", data, "d-2")["decision"] == "deploy"


def test_22_what_is_warm_has_not_come_to_nothing(world: World) -> None:
    """Its outcome is written when it has drained. Nothing of it is live here, as if somebody had
    moved the traffic.
    """
    first = world.plan("d-1")
    data = world.plan("d-2", started_by=PUSH)
    world.store.keep_warm(parse(first), world.now + 600)
    assert world.run("plan_deployment", data, "d-2")["decision"] == "deploy"


# Waiting for a lock, and for what comes after it


def passes(world: World, data: dict[str, Any], execution: str, seconds: float) -> None:
    """Passes of PlanDeployment that all wait, for so long."""
    until = world.now + seconds
    while world.now < until:
        data["deployment"] = world.run("plan_deployment", data, execution)
        assert data["deployment"]["decision"] == "waiting"
        world.now += data["deployment"]["wait_seconds"]


def test_the_pace_of_a_wait_for_the_lock_stays_slow_whoever_has_it(world: World) -> None:
    """An execution has 25,000 events."""
    world.plan("d-1", images={"web": "v1"}, overrides={"cpu": "256"})
    data = world.plan("d-2", started_by=PUSH)
    passes(world, data, "d-2", 1200)
    assert data["deployment"]["wait_seconds"] >= 1200 / 60 - 1
    end(world, "d-1")
    world.plan("d-3", images={"web": "v1"}, overrides={"cpu": "512"})
    data["deployment"] = world.run("plan_deployment", data, "d-2")
    assert "d-3" in data["deployment"]["reason"]
    assert data["deployment"]["wait_seconds"] >= 1200 / 60


def test_a_scan_has_all_of_its_time_after_a_wait_for_the_lock(world: World) -> None:
    world.configure(scan={"refuse": "HIGH", "deadline_seconds": 300})
    # What is gone back to needs no scan.
    world.plan("d-1", images={"web": "v1"}, started_by={"kind": "rollback"})
    data = world.plan("d-2", started_by=PUSH)
    passes(world, data, "d-2", 1200)
    end(world, "d-1")
    free_since = world.now
    passes(world, data, "d-2", 290)
    assert "has no scan; waiting for" in data["deployment"]["reason"]
    world.now = free_since + 300
    with pytest.raises(DeploymentRefused, match="has no scan, and there is no more time"):
        world.run("plan_deployment", data, "d-2")


def test_22_while_it_waits_for_its_scan_it_remembers_what_it_has_waited_for(world: World) -> None:
    """The scan is there, or not needed any more, only after the first look at the free lock."""
    world.plan("d-1")
    data = world.plan("d-2", started_by=PUSH)
    world.configure(scan={"refuse": "HIGH"})
    world.store.keep_warm(parse({"deployment": world.record().deployment}), world.now + 600)
    passes(world, data, "d-2", 10)
    assert "has no scan" in data["deployment"]["reason"]
    end(world, "d-1", "rolled_back")
    with pytest.raises(DeploymentRefused, match="d-1, which was waited for"):
        world.run("plan_deployment", data, "d-2")


def test_and_nothing_to_do_when_it_did(world: World) -> None:
    data = world.plan("d-1", started_by={"kind": "push"})
    mine = world.plan("d-2")
    arn = register(world, data, "d-1")
    clients.ecs().update_service(
        cluster="web", service="web-green", taskDefinition=arn, desiredCount=2
    )
    world.set_weights({color: 100 if color is GREEN else 0 for color in world.groups})
    world.store.release("web", world.lock.fencing)
    assert world.run("plan_deployment", mine, "d-2")["decision"] == "nothing_to_do"


@pytest.mark.parametrize("kind", ["hand", "release", "rollback"])
def test_20_by_hand_what_no_push_deploys_is_refused(world: World, kind: str) -> None:
    release = {"release": world.start_execution("spring")} if kind == "release" else {}
    world.plan("d-1", started_by={"kind": kind}, **release)
    with pytest.raises(LockHeld):
        world.plan("d-2")


@pytest.mark.parametrize(
    "request_",
    [
        {"images": {"web": "v1"}},
        {"overrides": {"cpu": "256"}},
        {"started_by": {"kind": "rollback"}},
        {"dry_run": True},
        {"dry_run": True, "started_by": {"kind": "push"}},
    ],
    ids=str,
)
def test_20_anything_else_is_refused_while_a_push_deploys(
    world: World, request_: dict[str, Any]
) -> None:
    world.plan("d-1", started_by={"kind": "push"})
    with pytest.raises(LockHeld):
        world.plan("d-2", **request_)


@pytest.mark.parametrize("kind", ["push", "schedule"])
def test_22_a_push_waits_for_whatever_else_is_deployed(world: World, kind: str) -> None:
    """It has waited for its scan without the lock, and somebody was quicker by hand."""
    world.plan("d-1", images={"web": "v1"}, overrides={"cpu": "256"})
    data = world.plan("d-2", started_by={"kind": kind})
    assert data["deployment"]["decision"] == "waiting"
    assert "d-1" in data["deployment"]["reason"]
    world.store.release("web", world.lock.fencing)
    world.now += 2
    assert world.run("plan_deployment", data, "d-2")["decision"] == "deploy"
    assert world.lock.deployment_id == "d-2"


def test_a_push_that_has_the_lock_but_no_plan_yet_is_looked_at_again(world: World) -> None:
    """Between its two writes nobody knows what it deploys."""
    arn = world.start_execution("d-1")
    world.store.open("d-1", "web", arn, "then", world.now)
    world.store.acquire("web", "d-1", arn, world.now, None)
    assert world.plan("d-2")["deployment"]["decision"] == "waiting"


@pytest.mark.parametrize("deadline", [0, 300])
def test_going_back_neither_waits_for_a_scan_nor_fails_for_it(world: World, deadline: int) -> None:
    """Nobody has scanned the image: what ran before the scan was asked for must be reached too."""
    world.configure(scan={"refuse": "LOW", "deadline_seconds": deadline})
    back = {"started_by": {"kind": "rollback", "detail": "d-0"}}
    [wait] = [one for one in dry(world) if "scan" in one] if deadline else [""]
    assert wait.startswith("wait: ") == bool(deadline)
    assert not [one for one in dry(world, **back) if "scan" in one]
    plan = world.plan("d-2", **back)["deployment"]
    assert (plan["decision"], world.lock.deployment_id) == ("deploy", "d-2")


def test_but_any_other_deployment_is_refused_without_one(world: World) -> None:
    world.configure(scan={"refuse": "LOW", "deadline_seconds": 0})
    with pytest.raises(DeploymentRefused, match="has no scan"):
        world.plan()
    assert world.store.lock("web") is None


def dry(world: World, **request: Any) -> list[str]:
    """What a dry run says would be done."""
    changes: list[str] = world.plan(dry_run=True, **request)["deployment"]["plan"]["changes"]
    return changes


def alarm(world: World, state: Literal["ALARM", "OK"]) -> None:
    world.configure(bake={"alarms": ["errors"]})
    client = clients.cloudwatch()
    client.put_metric_alarm(
        AlarmName="errors",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        MetricName="Errors",
        Namespace="web",
        Period=60,
        Statistic="Sum",
        Threshold=1,
    )
    client.set_alarm_state(AlarmName="errors", StateValue=state, StateReason="a test")


def test_an_alarm_that_is_on_before_refuses(world: World) -> None:
    alarm(world, "ALARM")
    with pytest.raises(DeploymentRefused, match=r"errors.*skip_bake"):
        world.plan()
    assert world.store.lock("web") is None
    alarm(world, "OK")
    assert world.plan()["deployment"]["known_bad"] == []


def test_or_is_remembered_where_the_configuration_only_wants_a_warning(world: World) -> None:
    alarm(world, "ALARM")
    world.configure(bake={"alarms": ["errors"], "at_start": "warn"})
    [known] = world.plan()["deployment"]["known_bad"]
    assert "errors" in known


@pytest.mark.parametrize("way", [{"skip_bake": True}, {"started_by": {"kind": "rollback"}}])
def test_going_back_or_without_a_bake_an_alarm_is_no_obstacle(
    world: World, way: dict[str, Any]
) -> None:
    alarm(world, "ALARM")
    assert world.plan(**way)["deployment"]["decision"] == "deploy"
