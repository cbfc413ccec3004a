"""Draining: wait out the requests in flight, deregister, then stop. Never in another order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bluegreen.drain import Facts, next_step, still_registered


def target(state: str) -> dict[str, Any]:
    return {"Target": {"Id": "i-1", "Port": 18081}, "TargetHealth": {"State": state}}


QUIET, DEADLINE, STOP_DEADLINE = 50.0, 950.0, 1850.0
OLD = Facts(
    quiet_at=QUIET,
    deadline=DEADLINE,
    stop_deadline=STOP_DEADLINE,
    targets=[target("healthy"), target("healthy")],
    new_healthy=2,
    desired_count=2,
    tasks=2,
)


def step(facts: Facts, now: float) -> str:
    return next_step(facts, now).step


def test_06_requests_in_flight_are_waited_for_before_anything_is_done() -> None:
    found = next_step(OLD, 20)
    assert (found.step, found.reason) == ("wait", "requests in flight may take another 30 s")


def test_06_then_the_targets_are_deregistered_while_the_tasks_still_run() -> None:
    assert step(OLD, QUIET) == "deregister"


def test_06_draining_targets_are_waited_for() -> None:
    assert step(replace(OLD, targets=[target("draining")]), 60) == "wait"
    assert step(replace(OLD, targets=[target("unhealthy.draining")]), 60) == "wait"


def test_06_only_an_empty_group_lets_the_tasks_be_stopped() -> None:
    assert step(replace(OLD, targets=[]), 60) == "stop"


def test_06_a_target_that_comes_late_is_deregistered_too() -> None:
    assert step(replace(OLD, targets=[target("draining"), target("initial")]), 60) == "deregister"


def test_stopping_tasks_are_waited_for_until_they_have_ended() -> None:
    stopping = replace(OLD, targets=[], desired_count=0)
    assert step(stopping, 70) == "wait"
    assert step(replace(stopping, tasks=0), 70) == "done"


def test_tasks_that_do_not_stop_are_an_error_at_the_deadline() -> None:
    found = next_step(replace(OLD, targets=[], desired_count=0), STOP_DEADLINE)
    assert (found.step, found.reason) == ("fail", "2 tasks of the old colour do not stop")


def test_past_the_deadline_the_rest_of_the_draining_is_left_to_ecs() -> None:
    assert step(replace(OLD, targets=[target("draining")]), DEADLINE) == "stop"
    assert step(OLD, DEADLINE) == "stop"


def test_a_colour_that_runs_nothing_has_ended_already() -> None:
    assert step(replace(OLD, targets=[], desired_count=0, tasks=0), 0) == "done"


def test_15_an_old_colour_stays_while_the_new_one_has_no_healthy_target() -> None:
    """It is the only way back: whatever it is about to do next, it waits with it."""
    for alone in (
        replace(OLD, new_healthy=0),
        replace(OLD, new_healthy=0, targets=[target("draining")]),
        replace(OLD, new_healthy=0, targets=[]),
    ):
        for now in (0.0, QUIET, DEADLINE - 0.1):
            found = next_step(alone, now)
            assert found.step == "wait"
            assert found.reason == "the new colour has no healthy target: the old one stays"


def test_15_and_at_the_deadline_it_still_stays_and_that_is_an_error() -> None:
    assert step(replace(OLD, new_healthy=0), DEADLINE) == "fail"
    assert step(replace(OLD, new_healthy=0), 10 * DEADLINE) == "fail"


def test_15_one_healthy_target_of_the_new_colour_lets_the_old_one_go() -> None:
    assert step(replace(OLD, new_healthy=1), QUIET) == "deregister"


def test_an_old_colour_that_has_ended_has_ended_however_the_new_one_is() -> None:
    assert step(replace(OLD, new_healthy=0, targets=[], desired_count=0, tasks=0), 60) == "done"


def test_a_service_without_tasks_is_still_set_to_none() -> None:
    assert step(replace(OLD, targets=[], tasks=0), 60) == "stop"


# Hosts that count connections, or do not say what they do


def test_the_connections_that_are_still_open_are_said_while_they_are_waited_for() -> None:
    found = next_step(replace(OLD, targets=[], connections=12), 20)
    assert found.reason == "12 connections in flight may take another 30 s"
    assert step(replace(OLD, targets=[], connections=0), 20) == "wait", "quiet_at says until when"


def test_connections_that_outlast_the_time_end_with_the_tasks() -> None:
    found = next_step(replace(OLD, targets=[], connections=12), QUIET)
    assert (found.step, found.reason) == (
        "stop",
        "stopping 2 tasks of the old colour; 12 connections end with them",
    )
    assert next_step(replace(OLD, targets=[], connections=0), QUIET).reason == (
        "stopping 2 tasks of the old colour"
    )


def test_21_a_host_that_may_still_send_to_the_old_colour_keeps_it_running() -> None:
    unknown = "host i-2 does not say what it does: SSM says DeliveryTimedOut"
    deaf = replace(OLD, targets=[], unknown=unknown)
    for now in (QUIET, DEADLINE - 0.1):
        found = next_step(deaf, now)
        assert (found.step, found.reason) == ("wait", unknown)
    found = next_step(deaf, DEADLINE)
    assert (found.step, found.reason) == ("fail", unknown)


def test_21_an_old_colour_that_is_stopping_does_not_wait_for_what_a_host_says() -> None:
    stopping = replace(OLD, targets=[], unknown="host i-2 …", desired_count=0)
    assert next_step(stopping, QUIET).reason == "2 tasks of the old colour are stopping"
    assert step(replace(stopping, tasks=0), QUIET) == "done"


facts = st.builds(
    Facts,
    quiet_at=st.just(QUIET),
    deadline=st.just(DEADLINE),
    stop_deadline=st.just(STOP_DEADLINE),
    targets=st.lists(
        st.sampled_from(["healthy", "initial", "unhealthy", "draining", "unused"]).map(target),
        max_size=3,
    ),
    new_healthy=st.integers(0, 2),
    desired_count=st.integers(0, 3),
    tasks=st.integers(0, 3),
    connections=st.sampled_from([None, 0, 7]),
    unknown=st.sampled_from(["", "", "host i-2 does not say what it does"]),
)
times = st.sampled_from([0.0, QUIET - 0.1, QUIET, 500.0, DEADLINE - 0.1, DEADLINE, 5000.0])


@given(facts, times)
def test_06_never_stopped_before_it_is_quiet_nor_before_all_are_out_of_the_group(
    facts: Facts, now: float
) -> None:
    if step(facts, now) == "stop":
        assert now >= QUIET
        assert not facts.targets or now >= DEADLINE


@given(facts, times)
def test_06_never_deregistered_before_it_is_quiet(facts: Facts, now: float) -> None:
    if step(facts, now) == "deregister":
        assert now >= QUIET
        assert still_registered(facts.targets)


@given(facts, times)
def test_15_nothing_is_taken_from_the_old_colour_while_the_new_one_has_no_healthy_target(
    facts: Facts, now: float
) -> None:
    if step(facts, now) in ("deregister", "stop"):
        assert facts.new_healthy > 0


@given(facts, times)
def test_21_nothing_is_taken_from_the_old_colour_while_a_host_does_not_say_what_it_does(
    facts: Facts, now: float
) -> None:
    if step(facts, now) in ("deregister", "stop"):
        assert not facts.unknown


@given(facts, times)
def test_done_only_when_nothing_is_left(facts: Facts, now: float) -> None:
    if step(facts, now) == "done":
        assert (facts.desired_count, facts.tasks) == (0, 0)


@dataclass
class OldColor:
    """A colour that does what it is told, each thing in its own time (seconds)."""

    tasks: int
    draining: float
    stopping: float
    now: float = 0.0
    desired: int = 0
    log: list[tuple[float, str]] = field(default_factory=list)
    deregistered_at: float | None = None
    stopped_at: float | None = None

    def __post_init__(self) -> None:
        self.desired = self.tasks

    def facts(self) -> Facts:
        ended = self.stopped_at is not None and self.now >= self.stopped_at + self.stopping
        gone = self.deregistered_at is not None and self.now >= self.deregistered_at + self.draining
        state = "healthy" if self.deregistered_at is None else "draining"
        return Facts(
            quiet_at=QUIET,
            deadline=DEADLINE,
            stop_deadline=STOP_DEADLINE,
            targets=[] if gone or ended else [target(state)] * self.tasks,
            new_healthy=1,
            desired_count=self.desired,
            tasks=0 if ended else self.tasks,
        )

    def drain(self) -> str:
        while self.now < 5000:
            found = next_step(self.facts(), self.now).step
            self.log.append((self.now, found))
            if found in ("done", "fail"):
                return found
            if found == "deregister":
                self.deregistered_at = self.now
            if found == "stop":
                self.desired = 0
                self.stopped_at = self.now
            self.now += 5
        return "never"


@given(st.integers(1, 5), st.floats(0, 400), st.floats(0, 100))
def test_06_an_old_colour_is_drained_in_the_one_right_order(
    tasks: int, draining: float, stopping: float
) -> None:
    old = OldColor(tasks, draining, stopping)
    assert old.drain() == "done"
    assert old.deregistered_at is not None
    assert old.stopped_at is not None
    assert old.deregistered_at >= QUIET
    assert old.stopped_at >= old.deregistered_at + draining
    assert [step for _, step in old.log].count("deregister") == 1
    assert [step for _, step in old.log].count("stop") == 1


def test_a_drain_that_outlasts_the_deadline_gets_the_time_to_stop() -> None:
    """A deregistration delay may be 3,600 s: past the deadline ECS is told to stop the tasks,
    and they then need the time to do so before anybody says that they do not.
    """
    old = OldColor(tasks=2, draining=3600, stopping=30)
    assert old.drain() == "done", old.log[-3:]
