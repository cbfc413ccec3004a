"""SettleRelease: all or nothing, seen in what it starts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from moto.backends import get_backend

from bluegreen.color import Color
from bluegreen.errors import AwsUnavailable
from runtime import clients
from tests.functions.site import Site
from tests.functions.world import (
    ACCOUNT,
    BLUE,
    GREEN,
    MACHINE,
    REGION,
    START,
    World,
    execution_arn,
)

RELEASE = execution_arn("spring")


@pytest.fixture
def children(world: World) -> list[dict[str, Any]]:
    """web and api wait for the release; jobs was refused. All executions have ended."""
    world.start_execution("spring")
    for number, service in enumerate(("web", "api"), 1):
        hold(world, service, number)
    world.store.open("spring-jobs", "jobs", execution_arn("spring-jobs"), "then", world.now)
    world.start_execution("spring-jobs")
    ended("spring-jobs", "FAILED")
    world.store.close("spring-jobs", "refused", "it does not fit", world.now, 0)
    return [
        {"name": f"spring-{service}", "service": service, "input": {}}
        for service in ("web", "api", "jobs")
    ]


def hold(world: World, service: str, number: int) -> None:
    """A deployment of a service that has done all but its drain."""
    name = f"spring-{service}"
    arn = world.start_execution(name)
    world.store.open(name, service, arn, "then", world.now + number)
    world.store.acquire(service, name, arn, world.now, None)
    clients.dynamodb().update_item(
        TableName="deployments",
        Key={"pk": {"S": f"lock#{service}"}},
        UpdateExpression="SET held_for = :release",
        ExpressionAttributeValues={":release": {"S": RELEASE}},
    )
    world.store.close(name, "held", "the old colour stays", world.now, 1)
    ended(name, "SUCCEEDED")


def ended(name: str, status: str) -> None:
    """How an execution ended, which moto cannot be told."""
    machine = get_backend("stepfunctions")[ACCOUNT][REGION].describe_state_machine(MACHINE)
    next(one for one in machine.executions if one.name == name).status = status


def forget(name: str) -> None:
    """As if an execution was not there, or is not yet."""
    machine = get_backend("stepfunctions")[ACCOUNT][REGION].describe_state_machine(MACHINE)
    machine.executions = [one for one in machine.executions if one.name != name]


def settle(
    world: World, children: list[dict[str, Any]], settled: dict[str, Any] | None = None
) -> dict[str, Any]:
    data: dict[str, Any] = {"release": {"order": "parallel", "children": children}}
    return world.run("settle_release", data | ({"settled": settled} if settled else {}), "spring")


def started() -> dict[str, dict[str, Any]]:
    """Name → input of what was started besides the deployments and the release themselves."""
    client = clients.stepfunctions()
    return {
        one["name"]: json.loads(
            client.describe_execution(executionArn=one["executionArn"])["input"]
        )
        for one in client.list_executions(stateMachineArn=MACHINE)["executions"]
        if not one["name"].startswith("spring")
    }


def finish(world: World, service: str) -> None:
    """What the execution that was started to finish it does first."""
    name, lock = f"spring-{service}", world.store.lock(service)
    assert lock
    world.store.take_over(lock, name, execution_arn(f"finish-{name}"), world.now, "deploy")


def test_when_all_are_held_all_are_finished(world: World, children: list[dict[str, Any]]) -> None:
    answer = settle(world, children[:2])
    assert answer["status"] == "waiting"
    assert world.store.release_way(RELEASE, world.now) == "finish"
    assert answer["services"]["web"] == {
        "deployment_id": "spring-web",
        "outcome": "held",
        "reason": "the old colour stays",
    }
    assert started() == {
        "finish-spring-web": {"action": "finish", "deployment_id": "spring-web"},
        "finish-spring-api": {"action": "finish", "deployment_id": "spring-api"},
    }
    finish(world, "web")
    answer = settle(world, children[:2], answer)
    assert (answer["status"], answer["reason"]) == ("waiting", "api still held")
    finish(world, "api")
    assert settle(world, children[:2], answer)["status"] == "succeeded"


def test_an_old_colour_that_could_not_be_let_go_is_said(
    world: World, children: list[dict[str, Any]]
) -> None:
    settle(world, children[:2])
    finish(world, "web")
    ended("finish-spring-api", "FAILED")
    answer = settle(world, children[:2])
    assert answer["status"] == "failed"
    assert "api: the new version is live, but the old colour is held" in answer["cause"]


def test_nothing_is_decided_while_one_is_said_to_run(
    world: World, children: list[dict[str, Any]]
) -> None:
    """Its deployment has just ended, or goes on after the release has lost sight of it."""
    world.start_execution("spring-mail")
    world.store.open("spring-mail", "mail", execution_arn("spring-mail"), "then", world.now)
    mail = {"name": "spring-mail", "service": "mail", "input": {}}
    answer = settle(world, [*children[:2], mail])
    assert (answer["status"], answer["reason"]) == ("waiting", "mail still deployed")
    assert answer["wait_seconds"] >= 1
    assert world.store.release_way(RELEASE, world.now) is None
    assert started() == {}
    world.store.close("spring-mail", "nothing_to_do", "live already", world.now, 0)
    assert settle(world, [*children[:2], mail], answer)["status"] == "waiting"
    assert set(started()) == {"finish-spring-web", "finish-spring-api"}


def test_one_that_ended_badly_while_it_was_said_to_run_takes_the_others_back(
    world: World, children: list[dict[str, Any]]
) -> None:
    world.start_execution("spring-mail")
    mail = {"name": "spring-mail", "service": "mail", "input": {}}
    assert settle(world, [*children[:2], mail])["reason"] == "mail still deployed"
    ended("spring-mail", "ABORTED")
    settle(world, [*children[:2], mail])
    assert set(started()) == {"undo-spring-web", "undo-spring-api"}


def test_what_recovery_has_decided_is_done_while_one_still_runs(
    world: World, children: list[dict[str, Any]]
) -> None:
    world.start_execution("spring-mail")
    mail = {"name": "spring-mail", "service": "mail", "input": {}}
    world.store.decide_release(RELEASE, "undo", world.now)
    settle(world, [*children[:2], mail])
    assert set(started()) == {"undo-spring-web", "undo-spring-api"}


@pytest.mark.parametrize("status", ["RUNNING", "not there"])
def test_what_waits_for_the_release_does_so_whatever_its_execution_is_said_to_do(
    world: World, children: list[dict[str, Any]], status: str
) -> None:
    """DescribeExecution is eventually consistent, and this cannot be taken back."""
    if status == "RUNNING":
        ended("spring-api", "RUNNING")
    else:
        forget("spring-api")
    settle(world, children[:2])
    assert world.store.release_way(RELEASE, world.now) == "finish"
    assert set(started()) == {"finish-spring-web", "finish-spring-api"}


def test_the_record_of_an_earlier_release_of_that_name_says_nothing(
    world: World, children: list[dict[str, Any]]
) -> None:
    """This time its deployment was not even started."""
    long_ago = START - 91 * 86_400
    world.store.open("spring-mail", "mail", execution_arn("spring-mail"), "then", long_ago)
    world.store.close("spring-mail", "nothing_to_do", "live already", long_ago, 0)
    mail = {"name": "spring-mail", "service": "mail", "input": {}}
    answer = settle(world, [*children[:2], mail])
    assert answer["services"]["mail"]["outcome"] == "not started"
    assert set(started()) == {"undo-spring-web", "undo-spring-api"}


def test_one_that_could_not_be_marked_for_its_release_goes_back_with_it(
    world: World, site: Site
) -> None:
    """It is live and baked, and DynamoDB was down when it was to be held."""
    world.start_execution("spring")
    world.start_execution("spring-web")
    data = world.baked("spring-web", release=RELEASE)
    world.fault("dynamodb", "UpdateItem", "throttle")
    with pytest.raises(AwsUnavailable):
        world.run("drain_old_color", data, "spring-web")
    data["drain_failure"] = {"Error": "AwsUnavailable", "Cause": "throttled"}
    assert world.run("record_outcome", data, "spring-web")["execution"] == "fail"
    assert world.weights() == {BLUE: 0, GREEN: 100}
    ended("spring-web", "FAILED")
    web = {"name": "spring-web", "service": "web", "input": {}}
    assert settle(world, [web])["status"] == "waiting"
    assert world.store.release_way(RELEASE, world.now) == "undo"
    undo = {"request": started()["undo-spring-web"]}
    until_back(world, site, undo, "undo-spring-web")
    ended("undo-spring-web", "SUCCEEDED")
    assert world.weights() == {BLUE: 100, GREEN: 0}
    assert not world.lock.held
    answer = settle(world, [web])
    assert (answer["status"], answer["services"]["web"]["outcome"]) == ("failed", "rolled_back")


def until_back(world: World, site: Site, request: dict[str, Any], execution: str) -> None:
    """All states of a rollback."""
    data = world.run("plan_roll_back", request, execution)
    site.colors = ["blue"]
    site.serve(data)
    data["rollback"] = world.run("roll_back", data, execution)
    while data["rollback"]["status"] == "waiting":
        world.health = {
            color: ["healthy"] * world.service(color)["desiredCount"] for color in (BLUE, GREEN)
        }
        for task in world.backend.tasks["web"].values():
            if not world.health[Color(task.group.removeprefix("service:web-"))]:
                task.last_status = task.desired_status = "STOPPED"
        world.now += 10
        assert world.now < START + 1000, data["rollback"]
        data["rollback"] = world.run("roll_back", data, execution)
    world.run("record_outcome", data, execution)


def test_what_is_decided_stays_so(world: World, children: list[dict[str, Any]]) -> None:
    """Another hand has taken one back after it had begun to finish."""
    settle(world, children[:2])
    finish(world, "web")
    lock = world.store.lock("api")
    assert lock
    world.store.take_over(lock, "spring-api", execution_arn("by-hand"), world.now, "roll_back")
    world.store.close("spring-api", "rolled_back", "by ann", world.now, lock.fencing + 1)
    settle(world, children[:2])
    assert set(started()) == {"finish-spring-web", "finish-spring-api"}


def test_a_release_that_recovery_has_begun_to_take_back_goes_back(
    world: World, children: list[dict[str, Any]]
) -> None:
    world.store.decide_release(RELEASE, "undo", world.now)
    assert settle(world, children[:2])["status"] == "waiting"
    assert set(started()) == {"undo-spring-web", "undo-spring-api"}


def test_a_deployment_of_that_name_that_is_no_part_of_it_is_left_alone(
    world: World, children: list[dict[str, Any]]
) -> None:
    """Somebody has started it by hand, under the name that the release would have given it."""
    world.store.release("web", 1)
    world.start_execution("spring-mail")
    plan = world.plan("spring-mail")["deployment"]
    assert plan["release"] is None
    ended("spring-mail", "ABORTED")
    mail = {"name": "spring-mail", "service": "web", "input": {}}
    answer = settle(world, [mail, children[2]])
    assert (answer["status"], started()) == ("failed", {})


def test_when_one_failed_the_others_go_back_and_it_waits_for_them(
    world: World, children: list[dict[str, Any]]
) -> None:
    answer = settle(world, children)
    assert answer["status"] == "waiting"
    rollback = {"action": "rollback", "who": "release spring"}
    assert started() == {
        "undo-spring-web": {**rollback, "deployment_id": "spring-web"},
        "undo-spring-api": {**rollback, "deployment_id": "spring-api"},
    }
    world.now += 5
    again = settle(world, children, answer)
    assert (again["status"], again["since"]) == ("waiting", answer["since"])
    assert len(started()) == 2, "once each"


def test_then_it_has_failed_with_the_reason_of_each(
    world: World, children: list[dict[str, Any]]
) -> None:
    settle(world, children)
    for service in ("web", "api"):
        undo(world, service)
    answer = settle(world, children)
    assert (answer["status"], answer["error"]) == ("failed", "ReleaseFailed")
    assert answer["cause"].splitlines() == [
        "web: rolled back: all as before",
        "api: rolled back: all as before",
        "jobs: refused: it does not fit",
    ]


def undo(world: World, service: str) -> None:
    """What the rollback that was started does."""
    name, arn = f"spring-{service}", execution_arn(f"undo-spring-{service}")
    lock = world.store.lock(service)
    assert lock
    fencing = world.store.take_over(lock, name, arn, world.now, "roll_back")
    world.store.close(name, "rolled_back", "all as before", world.now, fencing)
    world.store.release(service, fencing)
    ended(f"undo-{name}", "SUCCEEDED")


def test_a_rollback_that_was_refused_is_said(world: World, children: list[dict[str, Any]]) -> None:
    settle(world, children)
    undo(world, "api")
    ended("undo-spring-web", "FAILED")
    answer = settle(world, children)
    assert answer["status"] == "failed"
    assert "web: NOT rolled back, please look" in answer["cause"]


def test_23_what_was_lost_goes_back_and_what_recovery_has_is_waited_for(
    world: World, children: list[dict[str, Any]]
) -> None:
    """web was stopped in its bake; recovery has taken it up, or the release does."""
    lock = world.store.lock("web")
    assert lock
    own, recovery = execution_arn("spring-web"), execution_arn("recover-web")
    fencing = world.store.take_over(lock, "spring-web", own, world.now, "deploy")
    ended("spring-web", "ABORTED")
    assert settle(world, [children[0]])["status"] == "waiting"
    assert set(started()) == {"undo-spring-web"}
    ended("undo-spring-web", "FAILED")
    lock = world.store.lock("web")
    assert lock
    assert lock.fencing == fencing
    world.store.take_over(lock, "spring-web", recovery, world.now, "roll_back")
    clients.dynamodb().update_item(
        TableName="deployments",
        Key={"pk": {"S": "deployment#spring-web"}},
        UpdateExpression="REMOVE outcome, reason",
    )
    assert settle(world, [children[0]])["status"] == "waiting", "it still goes back"


def test_what_was_never_started_is_named(world: World, children: list[dict[str, Any]]) -> None:
    late = {"name": "spring-mail", "service": "mail", "input": {}}
    for service in ("web", "api"):
        settle(world, [*children, late])
        undo(world, service)
    answer = settle(world, [*children, late])
    assert "mail: not started" in answer["cause"]
    assert answer["services"]["mail"]["outcome"] == "not started"


def test_a_fault_in_the_middle_of_finishing_turns_nothing_back(
    world: World, children: list[dict[str, Any]]
) -> None:
    """The first one is finished, and has taken its lock over, when the state is repeated."""
    world.store.decide_release(RELEASE, "finish", world.now)
    client = clients.stepfunctions()
    client.start_execution(stateMachineArn=MACHINE, name="finish-spring-web", input="{}")
    lock = world.store.lock("web")
    assert lock
    finish = execution_arn("finish-spring-web")
    world.store.take_over(lock, "spring-web", finish, world.now, "deploy")
    world.fault("stepfunctions", "StartExecution", "error500")
    with pytest.raises(AwsUnavailable):
        settle(world, children[:2])
    answer = settle(world, children[:2])
    assert answer["status"] == "waiting"
    assert set(started()) == {"finish-spring-web", "finish-spring-api"}


def test_a_lost_answer_starts_it_once(world: World, children: list[dict[str, Any]]) -> None:
    world.fault("stepfunctions", "StartExecution", "lost_answer")
    assert settle(world, children[:2])["status"] == "waiting"
    assert len(started()) == 2
