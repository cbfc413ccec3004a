"""What the benchmark says that two groups of hosts cost, from activities made up here."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployment import Deployment, report_overlap
from overlap import PHASES, NotComparableError, Overlap, lives, overlap

ENTERED = {"CheckHealth": 4, "ShiftTraffic": 6, "DrainOldColor": 10}


def at(second: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)


def activity(description: str, start: float, end: float | None) -> dict[str, Any]:
    told = {"Description": description, "StartTime": at(start)}
    return told if end is None else {**told, "EndTime": at(end)}


def launch(name: str, start: float) -> dict[str, Any]:
    return activity(f"Launching a new EC2 instance: {name}", start, start + 1)


def termination(name: str, start: float, end: float) -> dict[str, Any]:
    return activity(f"Terminating EC2 instance: {name}", start, end)


A_DEPLOYMENT = [
    termination("i-0b", 15, 18),
    termination("i-0a", 14, 16),
    launch("i-0d", 2),
    launch("i-0c", 1),
    launch("i-0b", -50),
    launch("i-0a", -51),
    # Of the deployment before.
    termination("i-00", -40, -39),
    launch("i-00", -90),
]


def cost(
    activities: list[dict[str, Any]], entered: dict[str, float] | None = None
) -> tuple[int, dict[str, float]]:
    moments = {state: at(second) for state, second in (entered or ENTERED).items()}
    found = overlap(lives(activities), at(0), at(17), moments)
    assert found.total == pytest.approx(sum(found.by_phase.values()))
    return found.minimum, {phase: round(value, 6) for phase, value in found.by_phase.items()}


def test_every_second_of_an_instance_above_the_live_groups_size_counts_once() -> None:
    minimum, by_phase = cost(A_DEPLOYMENT)
    assert minimum == 2
    assert tuple(by_phase) == tuple(PHASES)
    # c from 1 and d from 2; until a has ended at 16 two are too many, then one until b has at 18,
    # which is after the execution has.
    assert by_phase == {
        "boot": 3 + 2,
        "health": 4,
        "switch and bake": 8,
        "drain": 8,
        "ending": 2 * 2 + 2,
    }
    whole = sum((18 - 1, 18 - 2, 16 - 0, 18 - 0))
    assert sum(by_phase.values()) == whole - 2 * 18


def test_a_host_that_died_while_it_started_is_paid_for_too() -> None:
    died = [launch("i-0e", 1), termination("i-0e", 3, 4)]
    (_, before), (_, after) = cost(A_DEPLOYMENT), cost([*died, *A_DEPLOYMENT])
    assert sum(after.values()) == sum(before.values()) + 3


def test_a_launch_that_failed_made_no_instance() -> None:
    failed = activity(
        "Launching a new EC2 instance.  Status Reason: There is none left. Launching EC2 instance "
        "failed.",
        1,
        1,
    )
    assert cost([failed, *A_DEPLOYMENT]) == cost(A_DEPLOYMENT)


def test_a_live_group_that_has_changed_its_size_has_no_minimum() -> None:
    with pytest.raises(NotComparableError, match="had 2 hosts and has 3 now"):
        cost([launch("i-0e", 3), *A_DEPLOYMENT])


def test_a_deployment_that_ended_no_host_has_no_overlap() -> None:
    with pytest.raises(NotComparableError, match="no old host was told to end"):
        cost(A_DEPLOYMENT[2:])


def test_the_report_has_each_deployment_and_the_medians() -> None:
    said: list[str] = []
    deployments = [
        Deployment(
            id=f"v{seconds}",
            wall=2.0 * seconds,
            waits=1,
            transitions=40,
            calls=Counter(),
            overlap=Overlap(2, dict.fromkeys(PHASES, float(seconds))),
        )
        for seconds in (1, 2, 6)
    ]
    report = report_overlap(deployments, said.append)
    by_phase = dict.fromkeys(PHASES, 2.0)
    assert report == {"overlap_median": {"instance_seconds_above": 10, "by_phase": by_phase}}
    assert deployments[2].as_json()["instance_seconds_above"] == 30
    rows = [line.split() for line in said]
    assert ["v6", "12.00", "s", "30.00", *["6.00"] * 5] in rows
    assert ["median", "4.00", "s", "10.00", *["2.00"] * 5] in rows


def test_colours_that_share_their_hosts_have_nothing_to_report() -> None:
    said: list[str] = []
    deployment = Deployment(id="v1", wall=2, waits=1, transitions=40, calls=Counter())
    assert report_overlap([deployment], said.append) == {}
    assert said == []
    assert "by_phase" not in deployment.as_json()
