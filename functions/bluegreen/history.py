"""What is kept of deployments, and how long. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from bluegreen.color import Color
from bluegreen.deployment import StartedBy

_DAY = 86_400
# Recoveries that fail come every minute. So many times of states are some 30 KB; an item of
# DynamoDB may have 400: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Limits.html
_LONGEST = 200


class StateTime(BaseModel):
    """How long an execution was in a state. entered_at: the first time, epoch seconds."""

    model_config = ConfigDict(frozen=True)

    execution: str
    state: str
    entered_at: float
    seconds: float
    visits: int


class Promotion(BaseModel):
    """Who did not want a step to be watched any longer. step: 0 is the first one."""

    model_config = ConfigDict(frozen=True)

    step: int
    by: str


@dataclass(frozen=True)
class Summary:
    """A deployment in the history. Times in epoch seconds.

    images: container → repository@digest, or as it was asked for where it was never planned.
    from_color, to_color: None until it is planned. outcome, reason, ended_at: None until it ends.
    states: in the order in which they were entered. states_missing: what of them could not be
    read, and why. approved_by: who has approved it, "" if nobody has. promoted_by: who has ended
    the watching of a step.
    """

    id: str
    service: str
    execution_arn: str
    started_at: float
    started_by: StartedBy
    images: Mapping[str, str]
    from_color: Color | None
    to_color: Color | None
    outcome: str | None
    reason: str | None
    ended_at: float | None
    states: Sequence[StateTime]
    states_missing: str
    approved_by: str
    promoted_by: Sequence[Promotion]


def merge(kept: Sequence[StateTime], seen: Sequence[StateTime]) -> list[StateTime]:
    """The states of a deployment's executions, those that were seen now in place of older ones.

    Of very many the first and the last are kept.
    """
    executions = {one.execution for one in seen}
    states = [one for one in kept if one.execution not in executions] + list(seen)
    states.sort(key=lambda one: one.entered_at)
    if len(states) <= _LONGEST:
        return states
    return states[: _LONGEST // 2] + states[-_LONGEST // 2 :]


def expires_at(now: float, days: int) -> float | None:
    """When a record that nobody needs any longer may go; None: never. now: epoch seconds."""
    return now + days * _DAY if days else None
