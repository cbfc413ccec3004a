"""What the demo makes of requests that were lost: in a gap that is accepted, and at other times."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sandbox.demo import Demo, Deployment, _with_gap
from sandbox.gap import Gap, Switch, gap_in, switch_of
from sandbox.load import PacedResult, Request, paced_result

SWITCH = Switch(since=10, until=12)
REFUSED = "connect"


def requests(lost: Iterable[float], error: str = REFUSED) -> list[Request]:
    """One every tenth of a second for twenty seconds, but for those lost all answered."""
    bad = {round(moment, 1) for moment in lost}
    moments = [number / 10 for number in range(200)]
    return [
        Request(one, one + 0.01, error, None)
        if one in bad
        else Request(one, one + 0.02, None, "blue")
        for one in moments
    ]


# ------------------------------------------------------------------------------ what the gap takes


def test_what_is_lost_until_somebody_is_answered_again_is_lost_in_the_gap() -> None:
    gap = gap_in(requests([10.5, 10.6, 10.7]), SWITCH)
    assert gap.lost == 3
    assert gap.milliseconds == pytest.approx(300)


def test_without_losses_there_is_no_gap() -> None:
    assert gap_in(requests([]), SWITCH) == Gap(0, None)


@pytest.mark.parametrize("outside", [9.9, 12.1, 3.0])
def test_what_is_lost_before_or_after_the_switch_is_not(outside: float) -> None:
    assert gap_in(requests([outside, 10.5]), SWITCH).lost == 1


def test_a_listener_that_has_been_back_has_one_gap_and_no_other() -> None:
    assert gap_in(requests([10.5, 10.6, 10.8]), SWITCH).lost == 2


@pytest.mark.parametrize("error", ["status 503", "timeout"])
def test_what_a_missing_listener_does_not_explain_is_not(error: str) -> None:
    assert gap_in(requests([10.5], error), SWITCH).lost == 0


def test_an_answer_that_is_bad_ends_the_gap_too() -> None:
    among = [
        Request(10.65, 10.66, "status 503", None),
        *requests([10.5, 10.6, 10.7]),
    ]
    assert gap_in(among, SWITCH).lost == 2


def test_a_request_that_was_cut_and_an_older_one_that_was_not() -> None:
    """Both were under way when the listener went; the answer does not end the gap."""
    before = [Request(10.41, 10.45, "read", None), Request(10.42, 10.44, None, "blue")]
    quiet = [one for one in requests([10.5]) if one.began != 10.4]
    assert gap_in([*before, *quiet], SWITCH).lost == 2


def test_a_gap_that_never_ended_has_no_length() -> None:
    never = [one for one in requests([11.8, 11.9]) if one.began < 12]
    assert gap_in(never, SWITCH) == Gap(2, None)


# -------------------------------------------------------------------------------- when it switched


def event(kind: str, name: str, second: float) -> dict[str, Any]:
    details = f"state{kind}EventDetails"
    return {"timestamp": datetime.fromtimestamp(second, UTC), details: {"name": name}}


HISTORY = [
    event("Entered", "CheckHealth", 8),
    event("Entered", "ShiftTraffic", 10),
    event("Exited", "ShiftTraffic", 10.5),
    event("Exited", "CheckBake", 11),
    event("Exited", "CheckBake", 12),
    event("Exited", "CheckBake", 13),
    event("Exited", "RecordOutcome", 20),
]


def test_the_switch_lasts_until_the_check_that_proved_it_has_ended() -> None:
    assert switch_of(HISTORY, 11.4) == SWITCH


def test_a_switch_that_was_not_proved_lasts_to_the_end() -> None:
    assert switch_of(HISTORY, None) == Switch(10, 20)


def test_a_deployment_that_did_not_come_so_far_has_none() -> None:
    assert switch_of(HISTORY[:1], None) is None


# ---------------------------------------------------------------------------------- what it reports


def reported(directory: Path, *lost: float, accepts_gap: bool = True) -> tuple[int, str, Any]:
    """Exit code, what was printed, demo.json; of a first deployment and one that was under load."""
    sandbox: Any = SimpleNamespace(accepts_gap=accepts_gap, build_dir=directory)
    output = io.StringIO()
    demo = Demo(sandbox, "shifted-ports", Console(file=output, width=200))
    result: PacedResult = paced_result(requests(lost), 20)
    deployments = [
        Deployment("web-v1", "web", None, "blue", "succeeded", 9.123),
        _with_gap(
            Deployment(
                "web-v2",
                "web",
                "blue",
                "green",
                "succeeded",
                8.0,
                gap_ms=123.4 if accepts_gap else None,
                switch=SWITCH if accepts_gap else None,
            ),
            result,
        ),
    ]
    demo._write(deployments, result)
    code = demo._report(deployments, result, 5, 60)
    return code, output.getvalue(), json.loads((directory / "demo.json").read_text())


def test_requests_lost_in_the_gap_are_told_and_are_no_failure(tmp_path: Path) -> None:
    code, said, report = reported(tmp_path, 10.5, 10.6)
    assert code == 0
    assert "web-v2: gap 123 ms, 200 ms for clients, 2 requests lost in it" in said
    assert "0 failed requests besides those in the gaps." in said
    first, second = report["deployments"]
    assert first == {
        "id": "web-v1",
        "service": "web",
        "from_color": None,
        "to_color": "blue",
        "outcome": "succeeded",
        "seconds": 9.12,
        "gap_ms": None,
        "gap_seen_ms": None,
        "lost_in_gap": None,
    }
    assert (second["gap_ms"], second["gap_seen_ms"], second["lost_in_gap"]) == (123.4, 200, 2)
    assert report["requests"] == {
        "total": 200,
        "failed": 2,
        "by_color": {"blue": 198, "green": 0},
        "failed_in_gaps": 2,
    }


def test_one_lost_outside_of_the_gap_is_a_failure_and_both_are_told(tmp_path: Path) -> None:
    code, said, report = reported(tmp_path, 5, 10.5, 10.6)
    assert code == 1
    assert "3 requests failed, 2 of them in a gap that is accepted: 3 connect" in said
    assert "0 failed requests" not in said
    assert report["requests"]["failed"] == 3
    assert report["requests"]["failed_in_gaps"] == 2


def test_where_no_gap_is_accepted_every_loss_is_a_failure(tmp_path: Path) -> None:
    code, said, report = reported(tmp_path, 10.5, accepts_gap=False)
    assert code == 1
    assert "1 requests failed: 1 connect" in said
    assert set(report["requests"]) == {"total", "failed", "by_color"}
    assert not any("gap" in key for one in report["deployments"] for key in one)


def test_a_load_that_was_too_small_says_nothing(tmp_path: Path) -> None:
    sandbox: Any = SimpleNamespace(accepts_gap=True, build_dir=tmp_path)
    demo = Demo(sandbox, "shifted-ports", Console(file=io.StringIO()))
    assert demo._report([], paced_result(requests([]), 20), 11, 60) == 1
