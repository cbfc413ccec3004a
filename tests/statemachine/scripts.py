"""What the functions of a deployment answer, in one shape for all scenarios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bluegreen import outcome
from bluegreen.deployment import Gates
from tests.statemachine.interpreter import Answer, Raised, Script

DEPLOY_WEB = {"action": "deploy", "service": "web", "images": {"web": "v2"}}
ROLL_BACK = {"action": "rollback", "deployment_id": "d-0"}
RECOVER = {"action": "recover", "deployment_id": "d-0"}

PLANNED = {
    "id": "d-1",
    "service": "web",
    "decision": "deploy",
    "fencing": 1,
    "gates": Gates().model_dump(),
}
ASKED = {"asked": {"commands": ["c-1"], "at": 1000.0}, "wait_seconds": 1}
ASKING = {**ASKED, "decision": "waiting", "since": 1000.0, "reason": "the hosts are being asked"}
NOTHING_TO_DO = {**PLANNED, "decision": "nothing_to_do"}
REVISION = {"arn": "arn:aws:ecs:ap-northeast-1:123456789012:task-definition/web:2"}
LEFTOVERS = {"status": "waiting", "reason": "2 tasks left are stopping", "wait_seconds": 1}
HOSTS_ASKED = {
    "status": "waiting",
    "reason": "the hosts are being asked",
    "asked": {"commands": ["c-1"], "at": 1000.0},
    "wait_seconds": 1,
}
STARTED = {
    "status": "started",
    "ecs_deployment_id": "ecs-svc/1",
    "desired_count": 2,
    "started_at": 1000.0,
    "wait_seconds": 5,
}
NOT_YET = {"status": "waiting", "reason": "1 of 2 tasks running", "wait_seconds": 7}
HEALTHY = {"status": "healthy", "reason": "2 of 2 tasks and targets healthy", "wait_seconds": 7}
OUTGROWN = {"status": "outgrown", "reason": "the live colour has 3 tasks by now"}
STAGING = {"status": "waiting", "step": 0, "switch": {"phase": "staging"}, "wait_seconds": 2}
COMMITTING = {**STAGING, "switch": {"phase": "committing"}, "wait_seconds": 3}
SHIFTED = {"status": "shifted", "step": 0, "percent": 100, "proved_at": None, "wait_seconds": 1}
BAKING = {**SHIFTED, "status": "waiting", "proved_at": 1010.0, "wait_seconds": 4}
BAKED = {**BAKING, "status": "baked"}
# The same step again, for a host that has come meanwhile; and for one that has no task there yet.
LATE = {**BAKING, "status": "late", "reason": "i-4 came late"}
MORE_HOSTS = {**BAKING, "status": "outgrown", "reason": "3 tasks are needed by now, green has 2"}
DRAINING = {"status": "waiting", "reason": "2 targets are draining", "since": 1, "wait_seconds": 6}
DRAINED = {**DRAINING, "status": "done", "reason": "the old colour has ended"}
RESTORING = {"status": "waiting", "reason": "traffic back", "as_before": True, "wait_seconds": 3}
RESTORED = {**RESTORING, "status": "restored", "reason": "all as before"}
NOTHING_RESTORED = {"status": "nothing_to_restore", "reason": "nothing was changed"}

BEGIN = "Begin WhatIsAskedFor"
PLAN = f"{BEGIN} PlanDeployment IsThereAnythingToDo"
BRANCH = f"{PLAN} Deploy AreHooksFirst"
REGISTERED = "RegisterTaskDefinition IsThereAMigration"
REGISTER = f"{BRANCH} {REGISTERED}"
START = "StartIdleColor IsIdleColorStarted"
HEALTH = "CheckHealth IsIdleColorHealthy"
SHIFT = "ShiftTraffic IsShifted"
BAKE = "CheckBake IsBaked"
DRAIN = "DrainOldColor IsOldColorDrained"
LIVE = f"{REGISTER} {START} {HEALTH} {SHIFT} {BAKE} Baked"
UNDO = "RollBack IsRolledBack"
TAKE_OVER = f"{BEGIN} PlanRollBack Settle WhichWay"
SUCCEED = "RecordOutcome AreHooksLast HowDidItEnd Succeeded"
FAIL = "RecordOutcome AreHooksLast HowDidItEnd Failed"


def record(data: Mapping[str, Any]) -> dict[str, Any]:
    """What RecordOutcome answers: the project's own reading of what the states have left in $."""
    ended = outcome.decide(data)
    return {
        "outcome": ended.word,
        "error": ended.error,
        "cause": ended.reason,
        "execution": "succeed" if ended.good else "fail",
        "ours": True,
    }


def taken_over(direction: str, settle_seconds: int = 35) -> Callable[[Any], dict[str, Any]]:
    """PlanRollBack: its answer is the new $."""

    def answer(data: Mapping[str, Any]) -> dict[str, Any]:
        recovery = {
            "deployment_id": "d-0",
            "direction": direction,
            "settle_seconds": settle_seconds,
            "reason": "its execution ended",
        }
        return {**data, "recovery": recovery, "deployment": {**PLANNED, "id": "d-0", "fencing": 2}}

    return answer


def deploying(**answers: Sequence[Answer]) -> Script:
    """A deployment in which all goes well, but for the given functions; [] is never asked."""
    return {
        "PlanDeployment": [PLANNED],
        "RegisterTaskDefinition": [REVISION],
        "StartIdleColor": [STARTED],
        "CheckHealth": [HEALTHY],
        "ShiftTraffic": [SHIFTED],
        "CheckBake": [BAKED],
        "DrainOldColor": [DRAINED],
        "RecordOutcome": record,
        **answers,
    }


def failing(state: str, error: Raised, *passes: Answer, before: Sequence[Answer] = ()) -> Script:
    """A deployment in which a function of the try block raises, after some answers perhaps;
    passes: RollBack's answers.
    """
    broken: list[Answer] = [*before, error]
    script = dict(deploying(**{state: broken}))
    states = [name for name in script if name != "RecordOutcome"]
    for later in states[states.index(state) + 1 :]:
        del script[later]
    return {**script, "RollBack": list(passes or [RESTORED])}


@dataclass(frozen=True)
class Scenario:
    """path: the states entered. slept: seconds waited. cause: a part of it. output: of the
    execution, where it is not all that the states have answered.
    """

    name: str
    request: Any
    script: Script
    path: str
    outcome: str | None
    status: str = "SUCCEEDED"
    error: str | None = None
    cause: str = ""
    slept: list[int] = field(default_factory=list)
    output: Any = None
