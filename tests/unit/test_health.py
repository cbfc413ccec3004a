"""Healthy, wait on, or give up: the facts of one look, and the verdict on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.health import Facts, Verdict, decide, healthy_targets, what_is_missing

DEADLINE = 600.0
NO_PORT = (
    "(service web-green) was unable to place a task because no container instance met all of its "
    "requirements. The closest matching (container-instance 1a2b) is already using a port required "
    "by your task. For more information, see the Troubleshooting section."
)


def target(state: str = "healthy", **health: str) -> dict[str, Any]:
    return {"Target": {"Id": "i-1", "Port": 18082}, "TargetHealth": {"State": state, **health}}


def task(status: str = "RUNNING", **more: str) -> dict[str, str]:
    return {"lastStatus": status, **more}


HEALTHY = Facts(
    desired=2,
    wanted_targets=2,
    deployment={"id": "ecs-svc/2", "status": "PRIMARY", "rolloutState": "IN_PROGRESS"},
    tasks=[task(), task()],
    targets=[target(), target()],
    events=[],
)


def verdict(facts: Facts, now: float = 10.0, max_failed_tasks: int = 3) -> Verdict:
    return decide(facts, now=now, deadline=DEADLINE, max_failed_tasks=max_failed_tasks)


def test_all_tasks_run_and_all_targets_are_healthy() -> None:
    assert verdict(HEALTHY) == Verdict("healthy", "2 of 2 tasks and targets healthy")


def test_a_health_that_is_reached_just_at_the_deadline_counts() -> None:
    assert verdict(HEALTHY, now=DEADLINE).status == "healthy"


# 2: an empty target group counted as healthy


def test_02_an_empty_target_group_is_not_healthy() -> None:
    found = verdict(replace(HEALTHY, targets=[]))
    assert found == Verdict("waiting", "0 of 2 targets healthy")


def test_02_an_empty_target_group_is_not_healthy_even_when_nothing_is_wanted() -> None:
    nothing = replace(HEALTHY, desired=0, wanted_targets=0, tasks=[], targets=[])
    assert verdict(nothing).status == "waiting"
    assert verdict(replace(nothing, tasks=[task()])).status == "waiting"


def test_02_fewer_healthy_targets_than_tasks_are_not_enough() -> None:
    found = verdict(replace(HEALTHY, targets=[target(), target("initial")]))
    assert found.status == "waiting"
    assert found.reason.startswith("1 of 2 targets healthy")


def test_02_one_ill_target_too_many_is_waited_for() -> None:
    three = [target(), target(), target("unhealthy", Reason="Target.Timeout")]
    assert verdict(replace(HEALTHY, targets=three)).status == "waiting"


def test_targets_on_their_way_out_are_not_waited_for() -> None:
    leaving = [target(), target(), target("draining"), target("unhealthy.draining")]
    assert verdict(replace(HEALTHY, targets=leaving)).status == "healthy"


def test_targets_on_their_way_out_do_not_count_as_healthy() -> None:
    assert verdict(replace(HEALTHY, targets=[target(), target("draining")])).status == "waiting"


@pytest.mark.parametrize("state", ["initial", "unhealthy", "unused", "unavailable", "new-state"])
def test_unknown_is_not_healthy(state: str) -> None:
    assert verdict(replace(HEALTHY, targets=[target(), target(state)])).status == "waiting"


def test_too_few_running_tasks_are_waited_for() -> None:
    few = replace(HEALTHY, tasks=[task(), task("PENDING")])
    assert verdict(few) == Verdict("waiting", "1 of 2 tasks running")


def test_a_task_that_fails_its_container_health_check_is_waited_for() -> None:
    ill = replace(HEALTHY, tasks=[task(), task(healthStatus="UNHEALTHY")])
    assert verdict(ill).reason == "1 of 2 tasks do not pass their container health check"


@pytest.mark.parametrize(
    ("has_health_check", "status", "passes"),
    [
        (True, "HEALTHY", True),
        (True, "UNKNOWN", False),
        (True, None, False),
        (True, "UNHEALTHY", False),
        (False, "HEALTHY", True),
        (False, "UNKNOWN", True),
        (False, None, True),
        (False, "UNHEALTHY", False),
    ],
)
def test_a_container_with_a_health_check_has_to_pass_it(
    has_health_check: bool, status: str | None, passes: bool
) -> None:
    """Without one ECS says UNKNOWN for ever, with one until it has an answer."""
    health = {} if status is None else {"healthStatus": status}
    facts = replace(HEALTHY, tasks=[task(), task(**health)] if passes else [task(**health)] * 2)
    if has_health_check and passes:
        facts = replace(facts, tasks=[task(**health)] * 2)
    facts = replace(facts, has_health_check=has_health_check)
    assert verdict(facts).status == ("healthy" if passes else "waiting")


# Targets that are hosts: one for several tasks, or for none


def host(state: str = "healthy", **health: str) -> dict[str, Any]:
    return {"Target": {"Id": "i-1"}, "TargetHealth": {"State": state, **health}}


def test_a_host_with_several_tasks_is_one_target() -> None:
    four_on_two = replace(HEALTHY, desired=4, tasks=[task()] * 4, targets=[host(), host()])
    assert verdict(four_on_two).status == "healthy"
    assert verdict(replace(four_on_two, targets=[host()])).reason == "1 of 2 targets healthy"
    assert verdict(replace(four_on_two, tasks=[task()] * 3)).reason == "3 of 4 tasks running"


def test_02_no_host_at_all_is_not_healthy() -> None:
    assert verdict(replace(HEALTHY, wanted_targets=0, targets=[])).status == "waiting"


def test_24_a_host_that_does_not_answer_is_named_without_a_port() -> None:
    deaf = host("unhealthy", Reason="Host", Description="connection refused")
    said = verdict(replace(HEALTHY, targets=[host(), deaf])).reason
    assert said == "1 of 2 targets healthy\n  target i-1 is unhealthy: Host connection refused"


# 3: the probe does not replace health, and health does not replace the probe


def test_03_a_probe_that_passes_does_not_make_ill_targets_healthy() -> None:
    assert verdict(replace(HEALTHY, targets=[target("unhealthy")], probe="")).status == "waiting"


def test_03_a_probe_that_fails_keeps_healthy_targets_waiting() -> None:
    found = verdict(replace(HEALTHY, probe="GET http://lb:8081/: status 503"))
    assert found == Verdict("waiting", "the probe fails: GET http://lb:8081/: status 503")


# 7: the wrong ECS deployment watched


def test_07_a_service_that_somebody_else_updated_is_given_up_though_tasks_look_fine() -> None:
    found = verdict(replace(HEALTHY, replaced_by="arn:aws:ecs:eu-west-1:1:task-definition/web:7"))
    assert found.status == "failed"
    assert "somebody else, or ECS itself, has updated the service" in found.reason
    assert "task-definition/web:7" in found.reason


def test_07_a_deployment_that_is_not_listed_yet_is_unknown_and_waited_for() -> None:
    unknown = replace(HEALTHY, deployment=None)
    assert verdict(unknown) == Verdict("waiting", "ECS does not list the deployment yet")
    assert verdict(unknown, now=DEADLINE).status == "failed"


def test_a_deployment_that_the_circuit_breaker_gave_up_is_given_up() -> None:
    broken = {"status": "PRIMARY", "rolloutState": "FAILED", "rolloutStateReason": "tasks failed"}
    found = verdict(replace(HEALTHY, deployment=broken))
    assert found == Verdict("failed", "ECS gave the deployment up: tasks failed")


# 8: slow is not broken


@pytest.mark.parametrize("now", [0.0, 599.9])
def test_08_slow_is_waited_for_until_its_own_deadline(now: float) -> None:
    slow = replace(HEALTHY, tasks=[task("PENDING"), task("PROVISIONING")], targets=[])
    assert verdict(slow, now=now).status == "waiting"


def test_08_at_the_deadline_it_is_given_up_with_what_is_missing() -> None:
    slow = replace(HEALTHY, targets=[target(), target("initial")])
    found = verdict(slow, now=DEADLINE)
    assert found.status == "failed"
    assert found.reason.startswith("not healthy at the deadline: 1 of 2 targets healthy")


def test_08_one_or_two_deaths_are_not_the_end() -> None:
    two = replace(HEALTHY, tasks=[task(), task("PENDING")], died=["one", "two"])
    assert verdict(two).status == "waiting"


def test_a_crash_loop_is_given_up_well_before_the_deadline() -> None:
    three = replace(HEALTHY, tasks=[], targets=[], died=["one", "two", "three"])
    assert verdict(three, now=20).status == "failed"
    assert verdict(three, now=20, max_failed_tasks=4).status == "waiting"


# 9: placement errors


@pytest.mark.parametrize(
    "event",
    [
        NO_PORT,
        "(service web-green) was unable to place a task because no container instance met all of "
        "its requirements. The closest matching (container-instance 1a2b) has insufficient CPU "
        "units available.",
        "(service web-green) was unable to place a task because no container instance met all of "
        "its requirements. Reason: No Container Instances were found in your capacity provider.",
        # A capacity provider scales its cluster from zero.
        "(service web-green) was unable to place a task because no container instance met all of "
        "its requirements. Reason: No Container Instances were found in your cluster. For more "
        "information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
        "(service web-green) operations are being throttled. Will try again later.",
        "(service web-green) was unable to place a task. Reason: Capacity is unavailable at this "
        "time.",
    ],
)
def test_09_a_passing_placement_error_is_waited_for(event: str) -> None:
    assert verdict(replace(HEALTHY, tasks=[task()], events=[event])).status == "waiting"


def test_09_what_keeps_a_task_from_being_placed_is_said_while_waiting() -> None:
    found = verdict(replace(HEALTHY, tasks=[task()], events=["steady", NO_PORT, "older"]))
    assert found.reason == f"1 of 2 tasks running; {NO_PORT}"


@pytest.mark.parametrize(
    "event",
    [
        "(service web-green) failed to launch a task with (error ECS was unable to assume the role "
        "'arn:aws:iam::123456789012:role/none' that was provided for this task.)",
        "(service web-green) is unable to consistently start tasks successfully.",
        "(service web-green) failed to register targets in (target-group arn:tg/1) with (error The "
        "target group 'arn:tg/1' does not exist)",
    ],
)
def test_09_a_hopeless_one_is_not_waited_for(event: str) -> None:
    found = verdict(replace(HEALTHY, tasks=[], targets=[], events=[event]))
    assert found.status == "failed"
    assert event in found.reason


# 24: nobody says why


def test_24_the_reason_holds_the_last_deaths_and_the_targets() -> None:
    died = ["first", "task 2: Essential container exited; exit code 1", "task 3; last log lines: x"]
    ill = target("unhealthy", Reason="Target.ResponseCodeMismatch", Description="codes: [500]")
    reason = verdict(replace(HEALTHY, tasks=[], targets=[ill], died=died)).reason
    assert "exit code 1" in reason
    assert "last log lines: x" in reason
    assert "first" not in reason, "only the last two are told in full"
    assert "target i-1:18082 is unhealthy: Target.ResponseCodeMismatch codes: [500]" in reason


def test_24_the_reason_code_of_each_ill_target_is_said_at_the_deadline() -> None:
    ill = target("unhealthy", Reason="Target.Timeout", Description="Request timed out")
    reason = verdict(replace(HEALTHY, targets=[target(), ill]), now=DEADLINE).reason
    assert "target i-1:18082 is unhealthy: Target.Timeout Request timed out" in reason


def test_24_a_target_without_a_reason_says_so() -> None:
    assert "is initial: no reason given" in what_is_missing(
        replace(HEALTHY, targets=[target(), target("initial")])
    )


def test_24_a_death_is_told_whatever_the_verdict_was_for() -> None:
    for broken in (
        replace(HEALTHY, replaced_by="web:7", died=["exit code 137"]),
        replace(HEALTHY, deployment={"status": "PRIMARY", "rolloutState": "FAILED"}, died=["137"]),
        replace(HEALTHY, events=["unable to assume the role"], died=["137"]),
    ):
        assert "137" in verdict(broken).reason


def numbered(count: int) -> list[dict[str, Any]]:
    return [
        {
            "Target": {"Id": f"i-{number}", "Port": 80},
            "TargetHealth": {"State": "unhealthy", "Description": "x" * 300},
        }
        for number in range(count)
    ]


def test_24_of_many_ill_targets_five_are_shown_and_the_others_counted() -> None:
    said = what_is_missing(replace(HEALTHY, targets=[target(), *numbered(9)]))
    assert said.count("is unhealthy") == 5
    assert "i-4:80" in said
    assert "i-5:80" not in said
    assert said.endswith("\n  and 4 more")
    five = what_is_missing(replace(HEALTHY, targets=numbered(5)))
    assert five.count("is unhealthy") == 5
    assert "more" not in five


def test_24_a_death_in_many_words_leaves_room_for_the_rest() -> None:
    died = ["first", "a" * 100_000, "b" * 100_000]
    reason = verdict(replace(HEALTHY, tasks=[], targets=numbered(500), died=died)).reason
    assert reason.count("a" * 3_000) == 1
    assert "a" * 3_001 not in reason
    assert "b" * 3_001 not in reason
    assert "i-0:80 is unhealthy" in reason
    assert len(reason) < 12_000


def test_healthy_targets_are_counted() -> None:
    assert healthy_targets([target(), target("draining"), target("initial"), target()]) == 2


@given(
    desired=st.integers(0, 3),
    running=st.integers(0, 4),
    states=st.lists(st.sampled_from(["healthy", "initial", "unhealthy", "draining", "unused"])),
    now=st.floats(0, 1000),
)
def test_never_healthy_without_a_healthy_target_for_each_wanted_task(
    desired: int, running: int, states: list[str], now: float
) -> None:
    facts = replace(
        HEALTHY,
        desired=desired,
        wanted_targets=desired,
        tasks=[task()] * running,
        targets=[target(one) for one in states],
    )
    found = verdict(facts, now=now)
    if found.status == "healthy":
        assert running >= max(desired, 1)
        assert states.count("healthy") >= max(desired, 1)
        assert not {"initial", "unhealthy", "unused"} & set(states)
    assert found.reason
    assert (found.status == "waiting") <= (now < DEADLINE), "waits past the deadline"
