"""How it ended: an honest word for every way through the workflow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.outcome import decide, reason_of


def failure(error: str, message: str = "why") -> dict[str, str]:
    cause = json.dumps({"errorMessage": message, "errorType": error, "stackTrace": []})
    return {"Error": error, "Cause": cause}


RESTORED = {"status": "restored", "reason": "all as before: blue 100, green 0", "as_before": True}
LEFT = {"status": "restored", "reason": "changed by somebody else", "as_before": False}
NOTHING = {"status": "nothing_to_restore", "reason": "nothing was changed"}
BY_HAND = {"deployment_id": "d-1", "direction": "roll_back", "reason": "rolled back by hand"}
LOST = {"deployment_id": "d-1", "direction": "finish", "reason": "its execution arn:d-1 ended"}
DRAINED = {"status": "done", "reason": "the old colour has ended"}
RELEASED = {"decision": "deploy", "release": "arn:r-1"}
HELD = {"status": "done", "held": True, "reason": "held until the release arn:r-1 has ended"}


@pytest.mark.parametrize(
    ("data", "word", "error", "good"),
    [
        pytest.param({"drain": DRAINED}, "succeeded", "", True, id="all went well"),
        pytest.param({"drain": HELD}, "held", "", True, id="a part of a release"),
        pytest.param(
            {"deployment": RELEASED, "drain_failure": failure("AwsUnavailable")},
            "held",
            "AwsUnavailable",
            False,
            id="a part of a release that could not be marked",
        ),
        pytest.param(
            {"deployment": RELEASED, "recovery": LOST, "drain_failure": failure("DrainFailed")},
            "succeeded",
            "DrainFailed",
            True,
            id="a part of a release that was finished, and did not end",
        ),
        pytest.param(
            {"failure": failure("HookFailed"), "rollback": RESTORED},
            "rolled_back",
            "HookFailed",
            False,
            id="a hook said no",
        ),
        pytest.param(
            {"deployment": {"decision": "nothing_to_do"}}, "nothing_to_do", "", True, id="same"
        ),
        pytest.param(
            {"drain_failure": failure("DrainFailed")},
            "succeeded",
            "DrainFailed",
            True,
            id="the old colour did not end",
        ),
        pytest.param(
            {"failure": failure("IdleColorUnhealthy"), "rollback": RESTORED},
            "rolled_back",
            "IdleColorUnhealthy",
            False,
            id="22: undone",
        ),
        pytest.param(
            {"failure": failure("TrafficChanged"), "rollback": LEFT},
            "traffic_left",
            "TrafficChanged",
            False,
            id="5: traffic of somebody else",
        ),
        pytest.param(
            {"failure": failure("DeploymentRefused"), "rollback": NOTHING},
            "refused",
            "DeploymentRefused",
            False,
            id="refused",
        ),
        pytest.param(
            {"failure": failure("LockHeld"), "rollback": NOTHING},
            "refused",
            "LockHeld",
            False,
            id="20: another one runs",
        ),
        pytest.param(
            {"failure": failure("AwsRefused"), "rollback": NOTHING},
            "failed",
            "AwsRefused",
            False,
            id="AWS said no while planning",
        ),
        pytest.param(
            {"failure": failure("InvalidRequest")}, "refused", "InvalidRequest", False, id="typo"
        ),
        pytest.param(
            {"failure": failure("IdleColorUnhealthy"), "rollback_failure": failure("AwsRefused")},
            "rollback_incomplete",
            "AwsRefused",
            False,
            id="the rollback did not end",
        ),
        pytest.param(
            {"failure": failure("LockLost"), "rollback_failure": failure("LockLost")},
            "failed",
            "LockLost",
            False,
            id="undone by hand while it ran",
        ),
        pytest.param(
            {"drain_failure": failure("LockLost")},
            "failed",
            "LockLost",
            False,
            id="undone by hand while it drained",
        ),
        pytest.param(
            {"drain_failure": failure("TrafficChanged")},
            "traffic_left",
            "TrafficChanged",
            False,
            id="22: somebody put the traffic back while it drained",
        ),
        pytest.param(
            {"drain": {"status": "done", "undone": True, "reason": "it was rolled back since"}},
            "rolled_back",
            "RolledBack",
            False,
            id="22: undone by hand while it was warm",
        ),
        pytest.param(
            {"recovery": BY_HAND, "rollback": RESTORED}, "rolled_back", "", True, id="by hand"
        ),
        pytest.param(
            {"recovery": LOST, "drain": DRAINED}, "succeeded", "", True, id="23: lost, finished"
        ),
        pytest.param(
            {"recovery": LOST | {"direction": "roll_back"}, "rollback": NOTHING},
            "rolled_back",
            "",
            True,
            id="23: lost before it had a plan",
        ),
    ],
)
def test_every_end_has_its_word(data: dict[str, Any], word: str, error: str, good: bool) -> None:
    found = decide(data)
    assert (found.word, found.error, found.good) == (word, error, good)
    assert found.reason


def test_05_a_rollback_by_hand_that_left_the_traffic_fails_with_a_name() -> None:
    found = decide({"recovery": BY_HAND, "rollback": LEFT})
    assert (found.word, found.good) == ("traffic_left", False)
    assert found.error, "a failed execution without an error's name"


def test_the_lock_stays_only_with_a_world_that_is_not_in_order() -> None:
    stuck = {"failure": failure("SwitchNotProved"), "rollback_failure": failure("AwsUnavailable")}
    assert decide(stuck).lock_stays
    assert decide({"drain": HELD}).lock_stays, "the release has still to say how it ends"
    assert not decide({"rollback_failure": failure("LockLost")}).lock_stays
    for data in (
        {"drain": DRAINED},
        {"drain_failure": failure("DrainFailed")},
        {"failure": failure("X"), "rollback": RESTORED},
        {"failure": failure("LockHeld"), "rollback": NOTHING},
        {"recovery": BY_HAND, "rollback": LEFT},
    ):
        assert not decide(data).lock_stays


def test_24_the_reason_names_what_failed_and_what_became_of_it() -> None:
    data = {"failure": failure("IdleColorUnhealthy", "green: exit code 1"), "rollback": RESTORED}
    assert decide(data).reason == "green: exit code 1\nall as before: blue 100, green 0"
    data = {
        "failure": failure("IdleColorUnhealthy", "green: exit code 1"),
        "rollback_failure": failure("RollBackIncomplete", "0 of 2 healthy"),
    }
    assert decide(data).reason.startswith(
        "green: exit code 1\nthe rollback did not end: 0 of 2 healthy"
    )


def test_22_an_execution_that_lost_its_lock_claims_nothing_but_names_who_will_tell() -> None:
    message = "another execution has taken deployment d-1 over"
    for data in (
        {"drain_failure": failure("LockLost", message)},
        {"rollback_failure": failure("LockLost", message)},
        {"failure": failure("X", "x"), "rollback_failure": failure("LockLost", message)},
    ):
        found = decide(data)
        assert found.reason == f"{message}; it says how this ended"
        assert not found.lock_stays, "it is somebody else's by now"


def test_24_two_reasons_fit_into_the_cause_of_an_execution() -> None:
    """32,768 characters, or Step Functions fails in words of its own."""
    data = {
        "failure": failure("IdleColorUnhealthy", "a" * 40_000),
        "rollback_failure": failure("RollBackIncomplete", "b" * 40_000),
    }
    reason = decide(data).reason
    assert len(reason) <= 32_768
    assert reason.startswith("a" * 12_000 + "\n")
    assert "b" * 12_000 + ";" in reason
    assert reason_of({"Error": "X", "Cause": "c" * 40_000}) == "c" * 12_000


errors = st.sampled_from(["IdleColorUnhealthy", "TrafficChanged", "LockLost", "AwsRefused"])
failures = errors.map(failure)
datas = st.fixed_dictionaries(
    {},
    optional={
        "failure": failures,
        "rollback": st.sampled_from([RESTORED, LEFT, NOTHING]),
        "rollback_failure": failures,
        "drain": st.sampled_from([DRAINED, HELD]),
        "drain_failure": failures,
        "recovery": st.sampled_from([BY_HAND, LOST]),
        "deployment": st.sampled_from(
            [{"decision": "deploy"}, {"decision": "nothing_to_do"}, RELEASED]
        ),
    },
)


@given(datas)
def test_22_never_succeeded_when_something_failed_or_was_undone(data: dict[str, Any]) -> None:
    found = decide(data)
    if {"failure", "rollback", "rollback_failure"} & set(data):
        assert found.word not in ("succeeded", "nothing_to_do")
    if {"failure", "rollback_failure"} & set(data):
        assert not found.good
        assert found.error


@given(datas)
def test_a_lock_that_was_lost_is_never_kept(data: dict[str, Any]) -> None:
    found = decide(data)
    if found.error == "LockLost":
        assert not found.lock_stays
    assert found.lock_stays == (found.word in ("rollback_incomplete", "held"))


@given(datas)
def test_22_a_failed_execution_always_has_an_error_and_a_cause(data: dict[str, Any]) -> None:
    found = decide(data)
    assert found.reason
    if not found.good:
        assert found.error


@pytest.mark.parametrize(
    ("caught", "reason"),
    [
        (failure("X", "a person's words"), "a person's words"),
        ({"Error": "States.Timeout", "Cause": ""}, "States.Timeout"),
        ({"Error": "States.Timeout"}, "States.Timeout"),
        ({"Error": "Lambda.Unknown", "Cause": "The cause could not be"}, "The cause could not be"),
        ({"Error": "X", "Cause": '{"errorMessage": "cut o'}, '{"errorMessage": "cut o'),
        ({"Error": "X", "Cause": '["not", "a", "mapping"]'}, '["not", "a", "mapping"]'),
        ({"Error": "X", "Cause": '{"other": 1}'}, '{"other": 1}'),
    ],
)
def test_24_whatever_step_functions_caught_becomes_words(
    caught: dict[str, str], reason: str
) -> None:
    assert reason_of(caught) == reason
