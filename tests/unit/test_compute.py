"""The hosts of a colour: how many, whether they are there, and how they go."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.compute import Decision, Facts, Group, bring_up, take_down

DEADLINE, MAX_FAILURES = 600.0, 3
EMPTY = Group(
    name="web-green",
    min_size=0,
    max_size=6,
    desired_capacity=0,
    instances={},
    protected=frozenset(),
    suspended=frozenset(),
)


def of(*states: str, **more: Any) -> Group:
    """A group of so many instances, i-1 and on, wanted all of them."""
    instances = {f"i-{number}": state for number, state in enumerate(states, start=1)}
    there = replace(EMPTY, desired_capacity=len(states), instances=instances)
    return replace(there, **more)


TWO = of("InService", "InService")
NOTHING_YET = Facts(
    group=EMPTY,
    stale=[],
    wanted=2,
    ready=[],
    tasks=4,
    room=0,
    per_host=0,
    failures=[],
    deadline=DEADLINE,
)
ALL_THERE = replace(NOTHING_YET, group=TWO, ready=["i-1", "i-2"], room=4, per_host=2)


def decide(facts: Facts, now: float = 0.0) -> Decision:
    return bring_up(facts, now, MAX_FAILURES)


# Old hosts away


def test_13_hosts_from_before_the_deployment_end_first() -> None:
    found = decide(replace(ALL_THERE, stale=["i-1", "i-2"]))
    assert found == Decision("empty", "2 hosts from before the deployment are ending: i-1; i-2")


@pytest.mark.parametrize(
    "group",
    [
        of("Terminating", desired_capacity=0, min_size=1),
        of("Terminating", desired_capacity=1),
        of("InService", desired_capacity=0, protected=frozenset({"i-1"})),
    ],
)
def test_13_whatever_keeps_old_hosts_is_taken_away(group: Group) -> None:
    assert decide(replace(NOTHING_YET, group=group, stale=["i-1"])).step == "empty"


def test_13_old_hosts_that_nothing_keeps_any_more_are_waited_for() -> None:
    ending = of("Terminating", "Terminating:Wait", desired_capacity=0)
    facts = replace(NOTHING_YET, group=ending, stale=["i-1", "i-2"])
    found = "2 hosts from before the deployment are ending: i-1; i-2"
    assert decide(facts, DEADLINE - 1) == Decision("wait", found)
    assert decide(facts, DEADLINE) == Decision("fail", found)


def test_12_old_hosts_that_somebody_keeps_bringing_back_are_given_up_at_the_deadline() -> None:
    facts = replace(ALL_THERE, stale=["i-2"])
    assert decide(facts, DEADLINE - 1).step == "empty"
    assert decide(facts, DEADLINE) == Decision(
        "fail", "1 hosts from before the deployment are ending: i-2"
    )


def test_13_no_host_is_launched_beside_an_old_one() -> None:
    """It would be counted as one of them, and the old one would get tasks."""
    ending = of("Terminating", desired_capacity=0)
    assert decide(replace(NOTHING_YET, group=ending, stale=["i-1"])).step == "wait"


def test_old_hosts_that_have_gone_are_forgotten() -> None:
    assert decide(replace(ALL_THERE, stale=["i-8", "i-9"])) == Decision("ready", "2 hosts")


# New hosts, as many as are needed


def test_as_many_hosts_are_launched_as_the_live_colour_has() -> None:
    assert decide(NOTHING_YET) == Decision("launch", "launching 2 hosts for 4 tasks", 2)


def test_12_a_group_that_is_larger_than_needed_stays_so() -> None:
    """Shrinking it would end hosts that are new, and perhaps the ones with tasks."""
    larger = of("InService", "InService", "InService")
    facts = replace(ALL_THERE, group=larger, ready=["i-1", "i-2", "i-3"], wanted=1)
    assert decide(facts) == Decision("ready", "3 hosts")


def test_12_a_live_colour_that_has_grown_since_is_followed() -> None:
    assert decide(replace(ALL_THERE, wanted=6)) == Decision(
        "launch", "launching 6 hosts for 4 tasks", 6
    )


@pytest.mark.parametrize(
    ("tasks", "room", "per_host", "size"),
    [
        (4, 4, 2, 0),
        (5, 4, 2, 3),
        (6, 4, 2, 3),
        (7, 4, 2, 4),
        (5, 0, 9, 3),
        (5, 9, 0, 0),
    ],
)
def test_11_more_hosts_when_the_tasks_do_not_fit(
    tasks: int, room: int, per_host: int, size: int
) -> None:
    """size: 0 where the two that are there are enough."""
    found = decide(replace(ALL_THERE, tasks=tasks, room=room, per_host=per_host))
    assert (found.step, found.size) == (("launch", size) if size else ("ready", 0))


def test_11_room_is_counted_once_all_hosts_are_there_not_before() -> None:
    """What fits on a host is known from one that is registered; and half of them say nothing."""
    facts = replace(ALL_THERE, ready=["i-1"], room=2)
    assert decide(facts).step == "wait"


def test_11_a_task_that_fits_on_no_host_is_said_so_at_once() -> None:
    facts = replace(ALL_THERE, room=0, per_host=0)
    assert decide(facts) == Decision(
        "fail", "a task does not fit on an instance of group web-green"
    )


def test_11_more_than_the_maximum_is_said_with_both_numbers() -> None:
    found = Decision("fail", "group web-green would need 7 instances, but its maximum is 6")
    assert decide(replace(NOTHING_YET, wanted=7)) == found
    assert decide(replace(ALL_THERE, tasks=14, room=4)) == found
    assert decide(replace(NOTHING_YET, wanted=6)).step == "launch"


# All of them in the cluster


def test_ready_once_every_host_takes_tasks() -> None:
    assert decide(ALL_THERE) == Decision("ready", "2 hosts")
    assert decide(ALL_THERE, DEADLINE + 1).step == "ready", "late, but there"


def test_24_hosts_that_are_missing_are_named_with_what_they_do() -> None:
    group = of("InService", "InService", "Pending", "Pending:Wait", desired_capacity=5)
    found = decide(replace(ALL_THERE, group=group, ready=["i-1"]))
    assert found == Decision(
        "wait",
        "1 of 5 hosts ready; i-2 is InService but has not registered with the cluster; "
        "i-3 is Pending; i-4 is Pending:Wait",
    )


def test_24_a_host_that_never_registers_is_named_at_the_deadline() -> None:
    facts = replace(ALL_THERE, ready=["i-1"])
    assert decide(facts, DEADLINE - 1).step == "wait"
    assert decide(facts, DEADLINE) == Decision(
        "fail",
        "not all hosts are there at the deadline: 1 of 2 hosts ready; "
        "i-2 is InService but has not registered with the cluster",
    )


def test_24_many_missing_hosts_are_counted() -> None:
    facts = replace(NOTHING_YET, group=of(*["Pending"] * 6), wanted=6)
    assert decide(facts).reason.startswith("0 of 6 hosts ready; i-1 is Pending; i-2 is Pending;")
    assert decide(facts).reason.endswith(" more")


@pytest.mark.parametrize("state", ["Pending", "Pending:Wait", "Terminating", "Terminating:Wait"])
def test_14_a_host_that_is_registered_but_starts_or_ends_does_not_count(state: str) -> None:
    """A lifecycle hook may still abandon it, or it is replaced: its tasks would go with it."""
    facts = replace(ALL_THERE, group=of("InService", state))
    assert decide(facts) == Decision("wait", f"1 of 2 hosts ready; i-2 is {state}")


def test_a_registered_host_of_another_group_does_not_count() -> None:
    assert decide(replace(ALL_THERE, ready=["i-1", "i-99"])).step == "wait"


# Launches that fail

HOPELESS = [
    "The AMI ID ami-0123456789 does not exist. Launching EC2 instance failed.",
    "The security group web does not exist. Launching EC2 instance failed.",
    "The key pair web does not exist. Launching EC2 instance failed.",
    "The requested configuration is currently not supported. Please check the documentation for "
    "supported configurations. Launching EC2 instance failed.",
    "The requested Availability Zone is no longer supported. Please retry your request by not "
    "specifying an Availability Zone or choosing eu-west-1b. Launching EC2 instance failed.",
    "The requested instance type's architecture (arm64) does not match the architecture in the "
    "manifest for ami-0123456789 (x86_64). Launching EC2 instance failed.",
    "Invalid device name upload. Launching EC2 instance failed.",
    "Value (ephemeral9) for parameter virtualName is invalid. Launching EC2 instance failed.",
    "EBS block device mappings not supported for instance-store AMIs. Launching EC2 instance "
    "failed.",
    "Placement groups may not be used with instances of type 'm1.large'. Launching EC2 instance "
    "failed.",
    "You are not authorized to perform this operation. Launching EC2 instance failed.",
]
PASSING = [
    "Your requested instance type (m7g.large) is not supported in your requested Availability Zone "
    "(eu-west-1a). Please retry your request by not specifying an Availability Zone or choosing "
    "eu-west-1b, eu-west-1c. Launching EC2 instance failed.",
    "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have "
    "sufficient m7g.large capacity in the Availability Zone you requested (eu-west-1a). Our system "
    "will be working on provisioning additional capacity. Launching EC2 instance failed.",
    "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity due to "
    "your request configuration. Launching EC2 instance failed.",
    "There is no Spot capacity available that matches your request. Launching EC2 instance failed.",
    "20 instance(s) are already running. Launching EC2 instance failed.",
    "You have requested more vCPU capacity than your current vCPU limit of 32 allows for the "
    "instance bucket that the specified instance type belongs to. Launching EC2 instance failed.",
    "AMI ami-0123456789 is pending, and cannot be run. Launching EC2 instance failed.",
    "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token 4a9 was "
    "abandoned: Lifecycle Action Timed Out (activity a-1)",
]
LAUNCHING = replace(NOTHING_YET, group=replace(EMPTY, desired_capacity=2))


@pytest.mark.parametrize("said", HOPELESS)
def test_09_a_launch_that_waiting_does_not_mend_is_given_up_at_once(said: str) -> None:
    failure = f"{said} (activity a-1)"
    found = decide(replace(LAUNCHING, failures=[failure]))
    assert found == Decision("fail", f"group web-green cannot launch: {failure}")


@pytest.mark.parametrize("said", PASSING)
def test_09_a_passing_failure_to_launch_is_waited_for_and_said(said: str) -> None:
    found = decide(replace(LAUNCHING, failures=[said] * (MAX_FAILURES - 1)))
    assert found == Decision("wait", f"0 of 2 hosts ready; last failed launch: {said}")


def test_09_as_many_failures_as_are_allowed_end_it_with_the_newest() -> None:
    found = decide(replace(LAUNCHING, failures=[PASSING[0], PASSING[1], PASSING[2]]))
    assert found == Decision("fail", f"group web-green cannot launch: {PASSING[0]}")


def test_09_the_newest_failure_says_whether_there_is_hope() -> None:
    """The launch template was mended since the AMI was missing."""
    assert decide(replace(LAUNCHING, failures=[PASSING[0], HOPELESS[0]])).step == "wait"


def test_09_at_the_deadline_the_last_failed_launch_is_named() -> None:
    found = decide(replace(LAUNCHING, failures=[PASSING[0]]), DEADLINE)
    assert found.step == "fail"
    assert found.reason.endswith(f"0 of 2 hosts ready; last failed launch: {PASSING[0]}")


def test_08_failures_are_forgotten_once_the_hosts_are_there() -> None:
    assert decide(replace(ALL_THERE, failures=HOPELESS)).step == "ready"


# Repeated until it is over


@given(
    wanted=st.integers(1, 8),
    tasks=st.integers(1, 60),
    per_host=st.integers(0, 10),
    taken=st.integers(0, 5),
    max_size=st.integers(1, 12),
    old=st.integers(0, 4),
    protected=st.booleans(),
)
def test_asked_again_and_again_it_comes_to_an_end_within_the_maximum(
    wanted: int, tasks: int, per_host: int, taken: int, max_size: int, old: int, protected: bool
) -> None:
    """taken: tasks that something else takes the room of, on each host."""
    old_ids = [f"i-old-{number}" for number in range(old)]
    group = replace(
        EMPTY,
        max_size=max(max_size, old),
        desired_capacity=old,
        instances=dict.fromkeys(old_ids, "InService"),
        protected=frozenset(old_ids if protected else []),
    )
    free = per_host - taken
    enough = max(wanted, math.ceil(tasks / free)) if free > 0 else math.inf
    for _ in range(group.max_size + 2):
        fresh = [one for one in group.instances if one not in old_ids]
        facts = Facts(
            group=group,
            stale=old_ids,
            wanted=wanted,
            ready=fresh,
            tasks=tasks,
            room=len(fresh) * max(0, free),
            per_host=per_host if fresh else 0,
            failures=[],
            deadline=DEADLINE,
        )
        found = decide(facts)
        match found.step:
            case "empty":
                group = replace(EMPTY, max_size=group.max_size)
            case "launch":
                assert group.desired_capacity < found.size <= min(group.max_size, enough)
                made = dict.fromkeys((f"i-{one}" for one in range(found.size)), "InService")
                group = replace(group, desired_capacity=found.size, instances=made)
            case "ready":
                assert len(fresh) == enough
                return
            case _:
                assert found.step == "fail"
                assert per_host == 0 or enough > group.max_size
                return
    raise AssertionError(f"does not end: {group}")


# Old hosts of the colour that was live


def test_the_hosts_of_an_ended_colour_are_ended() -> None:
    assert take_down(TWO, 0, DEADLINE) == Decision("empty", "2 hosts of the old colour to end")


@pytest.mark.parametrize(
    "group",
    [
        of("InService", desired_capacity=0, protected=frozenset({"i-1"})),
        of("Terminating", desired_capacity=0, min_size=1),
        replace(EMPTY, desired_capacity=1),
    ],
)
def test_whatever_keeps_a_host_is_taken_away(group: Group) -> None:
    assert take_down(group, 0, DEADLINE).step == "empty"


def test_hosts_that_are_ending_are_waited_for_and_named_at_the_deadline() -> None:
    ending = of("Terminating", "Terminating:Wait", desired_capacity=0)
    found = "2 hosts of group web-green are ending: i-1 (Terminating); i-2 (Terminating:Wait)"
    assert take_down(ending, DEADLINE - 1, DEADLINE) == Decision("wait", found)
    assert take_down(ending, DEADLINE, DEADLINE) == Decision("fail", found)


def test_12_hosts_that_somebody_keeps_bringing_back_are_given_up_at_the_deadline() -> None:
    assert take_down(TWO, DEADLINE - 1, DEADLINE).step == "empty"
    assert take_down(TWO, DEADLINE, DEADLINE) == Decision(
        "fail", "2 hosts of group web-green are ending: i-1 (InService); i-2 (InService)"
    )


def test_a_group_without_hosts_is_done_also_after_the_deadline() -> None:
    assert take_down(EMPTY, DEADLINE + 1, DEADLINE) == Decision("ready", "its hosts have ended")
