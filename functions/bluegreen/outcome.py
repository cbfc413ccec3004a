"""How a deployment ended: one pure function from the data of its execution to an honest word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Word = Literal[
    "succeeded",
    "held",
    "nothing_to_do",
    "rolled_back",
    "traffic_left",
    "refused",
    "failed",
    "rollback_incomplete",
]

# Two of them have to fit into the cause of an execution, 32,768 characters:
# https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html
_LONGEST_REASON = 12_000

# Raised before the first change: nothing had to be undone.
_REFUSALS = frozenset({"InvalidRequest", "InvalidConfiguration", "DeploymentRefused", "LockHeld"})


@dataclass(frozen=True)
class Outcome:
    """word: for people and history. error: name of the error, "" if there was none.
    reason: what happened, for the person on call. good: whether the execution did what it was
    started for. lock_stays: nobody else may deploy yet, as the world is not in order, or a release
    has still to say how this ends.

    "rolled_back" is what held the lock and was undone: all is as before, however little there was
    to undo (a hook that said no before anything was done). "refused" and "failed" never began.
    """

    word: Word
    error: str
    reason: str
    good: bool
    lock_stays: bool = False


def decide(data: Mapping[str, Any]) -> Outcome:
    """The outcome from ``$``: the keys that the states have left there."""
    failure = data.get("failure")
    rollback = data.get("rollback", {})
    stuck = data.get("rollback_failure")
    lost = next((one for one in (stuck, data.get("drain_failure")) if one), None)
    if lost and lost["Error"] == "LockLost":
        return Outcome(
            "failed", "LockLost", f"{reason_of(lost)}; it says how this ended", good=False
        )
    if stuck:
        why = reason_of(failure) + "\n" if failure else ""
        return Outcome(
            "rollback_incomplete",
            stuck["Error"],
            f"{why}the rollback did not end: {reason_of(stuck)}; "
            "it is taken up again by the next sweep",
            good=False,
            lock_stays=True,
        )
    if failure and rollback.get("status") in (None, "nothing_to_restore"):
        error = failure["Error"]
        return Outcome(
            "refused" if error in _REFUSALS else "failed", error, reason_of(failure), good=False
        )
    if rollback:
        word: Word = "rolled_back" if rollback.get("as_before", True) else "traffic_left"
        if failure:
            reason = f"{reason_of(failure)}\n{rollback['reason']}"
            return Outcome(word, failure["Error"], reason, good=False)
        started = data.get("recovery", {}).get("reason", "asked for")
        return Outcome(
            word,
            "" if word == "rolled_back" else "TrafficChanged",
            f"{started}; {rollback['reason']}",
            good=word == "rolled_back",
        )
    if data.get("deployment", {}).get("decision") == "nothing_to_do":
        return Outcome("nothing_to_do", "", "this is what is live already", good=True)
    return _drained(data)


def _drained(data: Mapping[str, Any]) -> Outcome:
    """When nothing went wrong before the drain."""
    drain = data.get("drain", {})
    if drain.get("held"):
        return Outcome("held", "", drain["reason"], good=True, lock_stays=True)
    if drain.get("undone"):
        return Outcome("rolled_back", "RolledBack", drain["reason"], good=False)
    if drain_failure := data.get("drain_failure"):
        if drain_failure["Error"] == "TrafficChanged":
            return Outcome("traffic_left", "TrafficChanged", reason_of(drain_failure), good=False)
        if data.get("deployment", {}).get("release") and "recovery" not in data:
            # Given back, the lock would leave it live while the rest of its release goes back.
            return Outcome(
                "held",
                drain_failure["Error"],
                "the new colour is live, but not marked for its release: "
                f"{reason_of(drain_failure)}; it ends as the release does",
                good=False,
                lock_stays=True,
            )
        return Outcome(
            "succeeded",
            drain_failure["Error"],
            f"the new colour is live, but the old one did not end: {reason_of(drain_failure)}",
            good=True,
        )
    said = ["the new colour is live", *_gap(data), *_said(drain)]
    return Outcome("succeeded", "", "; ".join(said), good=True)


def _said(answer: Mapping[str, Any]) -> list[str]:
    """What a state gave as its reason, if it came to that."""
    return [answer["reason"]] if "reason" in answer else []


def _gap(data: Mapping[str, Any]) -> list[str]:
    """How long a Classic Load Balancer had no listener, if it was made anew."""
    gap_ms = data.get("shift", {}).get("gap_ms")
    return [] if gap_ms is None else [f"there was no listener for {gap_ms:.0f} ms"]


def reason_of(failure: Mapping[str, Any]) -> str:
    """The message of a caught error. Lambda wraps it in JSON, Step Functions itself does not."""
    cause = failure.get("Cause") or ""
    try:
        message = json.loads(cause)["errorMessage"]
    except (ValueError, KeyError, TypeError):
        message = cause or failure["Error"]
    return str(message)[:_LONGEST_REASON]
