"""RecoverDeployment: what was stopped, timed out or lost is taken up again, once."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

import recover_deployment
from runtime import clients
from tests.functions.announced import announced, queue
from tests.functions.world import LEASE, MACHINE, START, World, execution_arn

SWEEP: dict[str, Any] = {"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}


def ended(name: str, status: str = "ABORTED", action: str = "deploy") -> dict[str, Any]:
    return {
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "detail": {
            "executionArn": execution_arn(name),
            "stateMachineArn": MACHINE,
            "name": name,
            "status": status,
            "input": json.dumps({"action": action, "deployment_id": "d-1"}),
        },
    }


def recover(event: dict[str, Any]) -> list[str]:
    started: list[str] = recover_deployment.handler(event, None)["started"]
    return started


def recoveries() -> list[tuple[str, dict[str, Any]]]:
    """Name and input of every recovery that was started."""
    client = clients.stepfunctions()
    found = client.list_executions(stateMachineArn=MACHINE)["executions"]
    return [
        (
            one["name"],
            json.loads(client.describe_execution(executionArn=one["executionArn"])["input"]),
        )
        for one in found
        if one["name"].startswith("recover-")
    ]


@pytest.fixture
def stopped(world: World) -> World:
    """d-1 holds the lock, and its execution was stopped."""
    world.start_execution("d-1")
    world.store.open("d-1", "web", execution_arn("d-1"), "then", START)
    world.store.acquire("web", "d-1", execution_arn("d-1"), START, world.store.lock("web"))
    world.stop_execution("d-1")
    return world


@pytest.mark.usefixtures("stopped")
def test_23_a_stopped_execution_is_recovered_by_its_event() -> None:
    assert recover(ended("d-1")) == ["d-1"]
    assert recoveries() == [("recover-1-event-d-1", {"action": "recover", "deployment_id": "d-1"})]


@pytest.mark.usefixtures("stopped")
def test_23_and_by_the_sweep_when_no_event_told() -> None:
    assert recover(SWEEP) == ["d-1"]
    assert len(recoveries()) == 1


@pytest.mark.usefixtures("stopped")
def test_23_delivered_twice_it_is_started_once() -> None:
    recover(ended("d-1"))
    recover(ended("d-1"))
    assert len(recoveries()) == 1


def test_23_two_sweeps_at_a_time_start_it_once_and_a_later_one_again(stopped: World) -> None:
    recover(SWEEP)
    recover(SWEEP)
    assert len(recoveries()) == 1
    stopped.now += 300
    recover(SWEEP)
    assert len(recoveries()) == 2, "a recovery that did not get as far as the lock is tried again"


def test_a_running_execution_is_left_alone_however_old_its_lease(world: World) -> None:
    world.start_execution("d-1")
    world.store.acquire("web", "d-1", execution_arn("d-1"), START, world.store.lock("web"))
    world.now += 100 * LEASE
    assert recover(SWEEP) == []
    assert recoveries() == []


def test_a_service_whose_lock_is_free_is_left_alone(stopped: World) -> None:
    stopped.store.release("web", stopped.lock.fencing)
    assert recover(ended("d-1")) == []
    assert recover(SWEEP) == []


@pytest.mark.usefixtures("stopped")
def test_an_event_recovers_its_own_execution_only() -> None:
    assert recover(ended("another")) == []
    assert recoveries() == []


@pytest.mark.parametrize(("waited", "started"), [(LEASE - 1, []), (LEASE + 1, ["d-1"])])
def test_an_execution_that_is_gone_has_ended_when_its_lease_has(
    world: World, waited: int, started: list[str]
) -> None:
    world.store.acquire("web", "d-1", execution_arn("d-1"), START, world.store.lock("web"))
    world.now += waited
    assert recover(SWEEP) == started


def test_a_recovery_that_failed_is_left_to_the_sweep(stopped: World) -> None:
    stopped.start_execution("recover-1-event-d-1")
    stopped.store.take_over(
        stopped.lock, "d-1", execution_arn("recover-1-event-d-1"), stopped.now, "roll_back"
    )
    stopped.stop_execution("recover-1-event-d-1")
    event = ended("recover-1-event-d-1", status="FAILED", action="recover")
    assert recover(event) == []
    assert recover(SWEEP) == ["d-1"]


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT"])
def test_23_a_recovery_that_was_stopped_is_taken_up_at_once(stopped: World, status: str) -> None:
    stopped.start_execution("recover-1-event-d-1")
    stopped.store.take_over(
        stopped.lock, "d-1", execution_arn("recover-1-event-d-1"), stopped.now, "roll_back"
    )
    stopped.stop_execution("recover-1-event-d-1")
    assert recover(ended("recover-1-event-d-1", status=status, action="recover")) == ["d-1"]
    assert sorted(name for name, _ in recoveries()) == [
        "recover-1-event-d-1",
        "recover-2-event-d-1",
    ]


@pytest.mark.usefixtures("stopped")
def test_an_event_without_the_input_is_understood() -> None:
    event = ended("d-1", status="FAILED")
    del event["detail"]["input"]
    assert recover(event) == ["d-1"]


def test_the_longest_deployment_id_still_makes_a_name(world: World) -> None:
    longest = "d" * 80
    world.start_execution(longest)
    world.store.acquire("web", longest, execution_arn(longest), START, world.store.lock("web"))
    world.stop_execution(longest)
    assert recover(SWEEP) == [longest]
    [(name, request)] = recoveries()
    assert len(name) <= 80
    assert request["deployment_id"] == longest


def test_one_lock_that_cannot_be_looked_up_does_not_keep_the_others_from_recovery(
    stopped: World,
) -> None:
    """Its execution's ARN belongs to a state machine that is gone, or that may not be asked."""
    stopped.store.acquire(
        "api", "d-0", "arn:aws:states:broken", START - 1, stopped.store.lock("api")
    )
    with contextlib.suppress(Exception):  # an alarm may follow, when the rest is done
        recover(SWEEP)
    assert [request["deployment_id"] for _, request in recoveries()] == ["d-1"]


# Stopped before the first change


@pytest.fixture
def told(world: World) -> str:
    return queue(world.monkeypatch)


def waits(world: World) -> None:
    """d-1 waits for something in PlanDeployment."""
    world.start_execution("d-1")
    world.store.open("d-1", "web", execution_arn("d-1"), "then", START, images={"web": "v2"})


@pytest.mark.parametrize(
    ("status", "says"),
    [("ABORTED", "stopped"), ("TIMED_OUT", "timed out"), ("FAILED", "failed")],
)
def test_23_what_was_stopped_before_it_changed_anything_has_ended_too(
    world: World, told: str, status: str, says: str
) -> None:
    waits(world)
    for _ in range(2):
        assert recover(ended("d-1", status)) == []
    record = world.record()
    assert record.outcome == "failed"
    assert record.reason
    assert f"{says} before anything was changed" in record.reason
    [announcement] = announced(told)
    assert (announcement.kind, announcement.deployment_id) == ("failed", "d-1")
    assert announcement.images == {"web": "v2"}


def test_what_has_succeeded_has_said_so_itself(world: World, told: str) -> None:
    waits(world)
    recover(ended("d-1", "SUCCEEDED"))
    assert (world.record().outcome, announced(told)) == (None, [])


def test_what_failed_and_said_so_is_not_told_twice(world: World, told: str) -> None:
    waits(world)
    failure = {"Error": "DeploymentRefused", "Cause": "no room"}
    data = {"request": {"service": "web"}, "failure": failure}
    data["rollback"] = world.run("roll_back", data)
    world.run("record_outcome", data)
    said = announced(told)
    assert [one.reason for one in said] == ["no room"]
    world.now += 5
    assert recover(ended("d-1", "FAILED")) == []
    assert (world.record().outcome, world.record().reason) == ("refused", "no room")
    assert announced(told) == said


def test_23_what_had_a_plan_when_it_failed_is_recovered_and_not_closed(
    world: World, told: str
) -> None:
    """Its RecordOutcome was refused until its retries were used up, so the lock is still held."""
    world.start_execution("d-1")
    world.plan("d-1")
    world.stop_execution("d-1")
    said = announced(told)
    assert recover(ended("d-1", "FAILED")) == ["d-1"]
    assert (world.record().outcome, announced(told)) == (None, said)
    # Somebody has given the lock back by hand: that nothing was changed is not said all the same.
    world.store.release("web", world.lock.fencing)
    assert recover(ended("d-1", "FAILED")) == []
    assert (world.record().outcome, announced(told)) == (None, said)


@pytest.mark.parametrize("action", ["deploy", "promote", "rollback", "recover"])
def test_an_execution_that_failed_without_a_record_of_its_own_closes_nothing(
    world: World, told: str, action: str
) -> None:
    """A dry run, and whatever is about another deployment, here the one that waits."""
    waits(world)
    recover(ended("another", "FAILED", action))
    assert world.store.read("another") is None
    assert (world.record().outcome, announced(told)) == (None, [])


def test_23_what_has_the_lock_is_recovered_instead(stopped: World, told: str) -> None:
    assert recover(ended("d-1")) == ["d-1"]
    assert (stopped.record().outcome, announced(told)) == (None, [])


def test_an_execution_that_looked_after_another_deployment_closes_nothing(
    world: World, told: str
) -> None:
    waits(world)
    recover(ended("undo"))
    world.store.open("undo", "web", execution_arn("another"), "then", START)
    recover(ended("undo"))
    assert (world.record("undo").outcome, world.record().outcome) == (None, None)
    assert announced(told) == []


# Held for a release


@pytest.fixture
def held(world: World) -> World:
    """d-1 waits for the release "spring", which runs; its own execution has ended."""
    for name in ("spring", "d-1"):
        world.start_execution(name)
    data = world.baked("d-1", release=execution_arn("spring"))
    world.run("drain_old_color", data)
    world.stop_execution("d-1")
    return world


@pytest.mark.usefixtures("held")
def test_what_waits_for_a_running_release_is_left_alone() -> None:
    assert recover(ended("d-1")) == []
    assert recover(SWEEP) == []
    assert recoveries() == []


def test_23_what_a_release_left_is_recovered_by_the_event_of_its_end(held: World) -> None:
    held.stop_execution("spring")
    assert recover(ended("spring", action="release")) == ["d-1"]
    assert [request for _, request in recoveries()] == [
        {"action": "recover", "deployment_id": "d-1"}
    ]


def test_23_what_a_release_left_is_recovered_by_the_sweep(held: World) -> None:
    held.stop_execution("spring")
    assert recover(SWEEP) == ["d-1"]


def test_what_still_runs_is_left_to_its_own_end_when_the_release_has_ended(world: World) -> None:
    for name in ("spring", "d-1"):
        world.start_execution(name)
    world.run("drain_old_color", world.baked("d-1", release=execution_arn("spring")))
    world.stop_execution("spring")
    assert recover(ended("spring", action="release")) == []
    world.stop_execution("d-1")
    assert recover(ended("d-1")) == ["d-1"]
