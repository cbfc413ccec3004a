"""Switching all hosts together: one look at their answers, one next step. Pure.

Staging: every host says that it can switch, and nothing has changed anywhere. Then a moment is set.
Committing: every host switches by itself at that moment on its clock. A host that EC2 says is
gone is no longer among the hosts, and holds nobody up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bluegreen.fleet import LISTED_AFTER_SECONDS, NOT_LISTED, Answer, Host, answer_of
from bluegreen.look import some

# How long after the set moment a host may still switch; it refuses later (its clock decides). So a
# command that SSM delivers late can never undo what happened since.
GRACE_SECONDS = 10
# SSM shows a result some seconds after the host has it.
_RESULT_SECONDS = 10

Phase = Literal["staging", "set", "committing"]


@dataclass(frozen=True)
class Switch:
    """A switch that is under way, as the state machine carries it.

    hosts: those that were there when it began; whoever comes later is brought in later. generation:
    grows with every switch, so that hosts can tell an old command (milliseconds since 1970 when it
    began). commands: SSM commands of this phase, the first of which was sent at asked_at, the last
    at sent_at. at: the moment for all to switch, 0 while staging. It is set one pass before hosts
    are told, so that a pass that is repeated tells them the same moment.
    """

    phase: Phase
    generation: int
    hosts: Sequence[str]
    asked_at: float
    sent_at: float
    commands: Sequence[str] = ()
    at: float = 0

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Switch:
        return cls(**document)


@dataclass(frozen=True)
class Decision:
    """hosts: "ask": those to ask again; "set": those that are ready; "commit": those to tell."""

    step: Literal["wait", "ask", "set", "commit", "done", "fail"]
    reason: str
    hosts: Sequence[str] = ()


def next_step(
    switch: Switch,
    hosts: Sequence[Host],
    answers: Mapping[str, Answer],
    now: float,
    answer_seconds: int,
) -> Decision:
    """What to do next. hosts: those that are there now. now, answer_seconds: seconds."""
    there = [host for host in hosts if host.instance_id in switch.hosts]
    match switch.phase:
        case "staging":
            by_host = {host: answer_of(host, answers, switch.sent_at, now) for host in there}
            return _staging(switch, by_host, now, answer_seconds)
        case "set":
            told = [host.instance_id for host in there]
            return Decision("commit", f"{len(told)} hosts switch at a set moment", told)
        case "committing":
            # SSM may still deliver it, until the hosts themselves refuse it.
            unlisted = {host: answers.get(host.instance_id, NOT_LISTED) for host in there}
            return _committing(switch, unlisted, now)


def _staging(
    switch: Switch, by_host: Mapping[Host, Answer], now: float, answer_seconds: int
) -> Decision:
    # Nothing of the new colour is started on a host that is being emptied. As long as it serves,
    # CheckHealth holds the switch up; after that it has no requests to lose.
    failed = {
        host: answer
        for host, answer in by_host.items()
        if answer.state == "failed" and not host.draining
    }
    if failed:
        return Decision("fail", f"{_reasons(failed)}; no traffic was moved")
    silent = _those(by_host, "silent")
    missing = {**_those(by_host, "pending"), **silent}
    if not missing:
        return Decision("set", "all hosts are ready", _ids(_those(by_host, "answered")))
    if now - switch.asked_at >= answer_seconds:
        found = _reasons(missing)
        return Decision(
            "fail", f"no answer within {answer_seconds} s: {found}; no traffic was moved"
        )
    waiting = f"{len(missing)} of {len(by_host)} hosts have not answered yet"
    if silent and now - switch.sent_at >= LISTED_AFTER_SECONDS:
        return Decision("ask", waiting, _ids(silent))
    return Decision("wait", waiting)


def _committing(switch: Switch, by_host: Mapping[Host, Answer], now: float) -> Decision:
    answered = _those(by_host, "answered")
    count = f"{len(answered)} of {len(by_host)} hosts have switched"
    failed = {**_those(by_host, "failed"), **_those(by_host, "silent")}
    if failed:
        return Decision("fail", f"{_reasons(failed)}; {count}")
    pending = _those(by_host, "pending")
    if not pending:
        return Decision("done", count)
    if now >= switch.at + GRACE_SECONDS + _RESULT_SECONDS:
        return Decision("fail", f"{_reasons(pending)}; {count}")
    return Decision("wait", count)


def spread_ms(answers: Mapping[str, Answer]) -> float:
    """Milliseconds between the first and the last host's switch, by the hosts' own clocks."""
    moments = [
        float(answer.said["switched_at"])
        for answer in answers.values()
        if answer.state == "answered" and answer.said.get("switched_at") is not None
    ]
    return round((max(moments) - min(moments)) * 1000, 1) if moments else 0.0


def _those(by_host: Mapping[Host, Answer], state: str) -> dict[Host, Answer]:
    return {host: answer for host, answer in by_host.items() if answer.state == state}


def _ids(by_host: Mapping[Host, Answer]) -> list[str]:
    return [host.instance_id for host in by_host]


def _reasons(by_host: Mapping[Host, Answer]) -> str:
    return some([f"host {host.instance_id}: {answer.reason}" for host, answer in by_host.items()])
