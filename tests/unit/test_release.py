"""A release: what may be asked for, and how it is settled."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bluegreen.release import Child, Decision, ReleaseRequest, child_input, child_name, settle, way

ARN = "arn:aws:states:eu-west-1:123456789012:execution:ReleaseServices:spring"


def child(service: str, status: str = "SUCCEEDED", **more: Any) -> Child:
    return Child(name=f"spring-{service}", service=service, status=status, **more)


def held(service: str, **more: Any) -> Child:
    return child(service, outcome="held", held=True, **more)


def failed(service: str, reason: str = "an alarm") -> Child:
    return child(service, "FAILED", outcome="rolled_back", reason=reason)


def running(service: str, outcome: str = "", **more: Any) -> Child:
    """As Step Functions says, which may be out of date."""
    return child(service, "RUNNING", outcome=outcome, **more)


def next_of(*children: Child) -> Decision:
    """Where nothing was decided before."""
    return settle(children, way(children))


def test_when_all_wait_all_are_finished() -> None:
    found = next_of(held("web"), held("api"))
    assert (found.step, found.children) == ("finish", ["spring-web", "spring-api"])


def test_what_was_live_already_is_fine_and_has_nothing_to_finish() -> None:
    same = child("api", outcome="nothing_to_do")
    assert next_of(held("web"), same).children == ["spring-web"]
    assert next_of(same) == Decision("succeeded")


@pytest.mark.parametrize(
    "late",
    [
        running("api", "held", held=True),
        child("api", "", outcome="held", held=True),
        running("api", "nothing_to_do"),
        child("api", "", outcome="nothing_to_do"),
    ],
    ids=["held", "held, not there", "nothing to do", "nothing to do, not there"],
)
def test_what_is_written_down_counts_before_its_execution_is_seen_to_have_ended(
    late: Child,
) -> None:
    assert way([held("web"), late]) == "finish"


@pytest.mark.parametrize("late", [running("api"), running("api", "held")], ids=["", "held"])
def test_nothing_is_decided_for_an_execution_that_may_have_ended(late: Child) -> None:
    assert way([held("web"), late]) is None
    found = next_of(held("web"), late)
    assert (found.step, found.children, found.reason) == ("wait", (), "api still deployed")


@pytest.mark.parametrize(
    "bad",
    [
        failed("jobs"),
        running("jobs", "rolled_back"),
        child("jobs", ""),
        child("jobs", "ABORTED"),
        child("jobs", outcome="held"),
    ],
    ids=["failed", "as is written down", "not started", "stopped", "not held any longer"],
)
def test_one_that_has_failed_for_sure_decides_for_all(bad: Child) -> None:
    assert way([held("web"), running("api"), bad]) == "undo"


def test_when_one_failed_those_that_wait_go_back_together() -> None:
    found = next_of(held("web"), held("api"), failed("jobs"))
    assert (found.step, found.children) == ("undo", ["spring-web", "spring-api"])


def test_what_was_lost_with_the_traffic_on_it_goes_back_too() -> None:
    found = next_of(child("web", "ABORTED", lost=True), failed("jobs"))
    assert (found.step, found.children) == ("undo", ["spring-web"])


def test_it_has_not_succeeded_before_the_last_old_colour_is_let_go() -> None:
    gone = child("web", outcome="held", taken=True, finish="RUNNING")
    found = settle([gone, held("api", finish="RUNNING")], "finish")
    assert (found.step, found.reason) == ("wait", "api still held")
    let_go = child("api", outcome="succeeded", finish="SUCCEEDED")
    assert settle([gone, let_go], "finish").step == "succeeded"


def test_one_that_cannot_be_let_go_is_said() -> None:
    stuck = held("api", finish="FAILED", finish_reason="no permission")
    found = settle([child("web", outcome="succeeded", finish="SUCCEEDED"), stuck], "finish")
    assert found.step == "failed"
    assert found.reason.splitlines() == [
        "web: the new version is live",
        "api: the new version is live, but the old colour is held until the next sweep: "
        "no permission",
    ]


def test_what_was_decided_stands_however_it_looks_now() -> None:
    assert settle([held("web"), held("api")], "undo").step == "undo"
    back = child("web", outcome="rolled_back", reason="rolled back by ann")
    assert settle([back, held("api")], "finish").children == ["spring-api"]


@pytest.mark.parametrize(
    "going",
    [
        held("web", undo="RUNNING"),
        child("web", taken=True, undo="RUNNING"),
        child("web", "ABORTED", taken=True),
        child("web", "RUNNING"),
    ],
    ids=["not begun", "by the release", "by recovery", "its own execution"],
)
def test_it_waits_for_what_goes_back(going: Child) -> None:
    assert next_of(going, failed("jobs")).step == "wait"


def test_then_it_has_failed_with_a_line_for_each_service() -> None:
    back = child("web", outcome="rolled_back", reason="release spring", undo="SUCCEEDED")
    never = child("api", "")
    found = next_of(back, failed("jobs", "alarm errors is on"), never)
    assert found.step == "failed"
    assert found.reason.splitlines() == [
        "web: rolled back: release spring",
        "jobs: rolled back: alarm errors is on",
        "api: not started",
    ]


@pytest.mark.parametrize(
    ("stuck", "says"),
    [
        (held("web", undo="FAILED", undo_reason="the lock"), "web: NOT rolled back, please look:"),
        (
            child(
                "web", taken=True, outcome="rollback_incomplete", undo="FAILED", reason="no host"
            ),
            "web: rollback incomplete: no host",
        ),
    ],
    ids=["refused", "incomplete"],
)
def test_a_rollback_that_does_not_end_is_said(stuck: Child, says: str) -> None:
    found = next_of(stuck, failed("jobs"))
    assert found.step == "failed"
    assert says in found.reason


def test_there_is_no_way_back_once_one_is_finished() -> None:
    """Its answer was lost, and it is asked again: some have begun to end their old colour."""
    begun = child("web", outcome="held", taken=True, finish="RUNNING")
    done = child("api", outcome="succeeded", finish="SUCCEEDED")
    found = settle([begun, done, held("jobs")], "finish")
    assert (found.step, found.children) == ("finish", ["spring-jobs"])


def test_what_somebody_took_back_meanwhile_takes_the_others_with_it() -> None:
    back = child("web", outcome="rolled_back", reason="rolled back by ann")
    found = next_of(back, held("api"))
    assert (found.step, found.children) == ("undo", ["spring-api"])


@pytest.mark.parametrize("release", ["spring", "s" * 80, "s" * 79 + "t"])
@pytest.mark.parametrize("service", ["web", "a" * 40])
def test_names_fit_and_differ(release: str, service: str) -> None:
    arn = ARN.replace("spring", release)
    name = child_name(arn, service)
    assert len(f"finish-{name}") <= 80
    assert name.startswith(release[:10])
    assert name.endswith(f"-{service}")
    assert name == child_name(arn, service)
    assert name != child_name(arn + "x", service)


def test_names_of_two_releases_differ_wherever_their_hyphens_are() -> None:
    shop, shop_api = ARN.replace("spring", "shop"), ARN.replace("spring", "shop-api")
    assert child_name(shop, "api-web") != child_name(shop_api, "web")


def test_the_input_of_a_service_says_who_asked() -> None:
    request = ReleaseRequest.model_validate(
        {"services": [{"service": "web", "images": {"web": "v2"}}], "who": "ann"}
    )
    made = child_input(request.services[0], {"web": "web@sha256:1"}, request, ARN)
    assert made["images"] == {"web": "web@sha256:1"}
    assert (made["action"], made["service"], made["release"]) == ("deploy", "web", ARN)
    assert made["started_by"] == {"kind": "release", "detail": "spring", "who": "ann"}


@pytest.mark.parametrize(
    ("services", "says"),
    [
        ([], "at least 1 item"),
        ([{"service": "web"}], "nothing to deploy"),
        ([{"service": "web", "images": {"web": "v2"}}] * 2, "every service once, got web again"),
        ([{"service": "web", "images": {"web": "v2"}, "dry_run": True}], "dry_run"),
    ],
)
def test_a_wrong_release_is_refused(services: list[Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ReleaseRequest.model_validate({"services": services})
