"""RecoverDeployment: what was stopped, timed out or lost is taken up again, once."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

import recover_deployment
from runtime import clients
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
