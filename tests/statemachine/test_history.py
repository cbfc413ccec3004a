"""How long an execution may last, and how many events it may take: Step Functions ends it after
25,000 of them, in the middle of whatever it does.

https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bluegreen.configuration import (
    Approval,
    Bake,
    Drain,
    Health,
    Hook,
    Migration,
    Scan,
    load,
)
from bluegreen.errors import InvalidConfiguration
from bluegreen.pace import LONGEST_SECONDS, wait_seconds
from tests.statemachine.definition import DEPLOYMENT, RELEASE
from tests.statemachine.gate_scenarios import (
    BEFORE_ASKING,
    BEFORE_NEXT,
    BEFORE_YES,
    NEXT,
    gates,
)
from tests.statemachine.interpreter import Interpreter, interpreter
from tests.statemachine.scripts import BAKED, BAKING, DEPLOY_WEB, HEALTHY, SHIFTED, deploying
from tests.unit.test_configuration import EXAMPLE, HOST_PROXY, changed

MOST_EVENTS = 25_000
# A Task with its function (5), a Choice (2), a Wait (2).
LOOK = 9
# A Task and a Choice: a shift, or a look that a hook is asked after.
PASS = 7
# A hook is asked, and waited for: a Task, two Choices, a Wait.
ASK = PASS + 4
# For health, the drain and whatever is tried again: on hosts some 150 looks.
REST = 3_000
# https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
YEAR = 365 * 24 * 3600
DAY = 24 * 3600


@pytest.fixture(scope="module")
def state_machine() -> Iterator[Interpreter]:
    with interpreter(DEPLOYMENT) as started:
        yield started


def most(model: Any, field: str) -> int:
    return int(model.model_json_schema()["properties"][field]["maximum"])


def looks(interval: int, seconds: float, faster: int = 1) -> int:
    """How often is looked in so many seconds. faster: how much the pace slows down sooner."""
    passed, count = 0.0, 1
    while passed < seconds:
        passed += wait_seconds(interval, passed * faster, seconds - passed)
        count += 1
    return count


def test_what_a_look_takes(state_machine: Interpreter) -> None:
    def events(**answers: Any) -> int:
        return state_machine.run(DEPLOY_WEB, deploying(**answers)).events

    plain = events()
    assert events(CheckBake=[BAKING, BAKING, BAKED]) == plain + 2 * LOOK
    next_step = {**BAKING, "status": "next_step"}
    stepwise = events(CheckBake=[next_step, BAKED], ShiftTraffic=[SHIFTED, SHIFTED])
    assert stepwise == plain + 2 * PASS


def test_what_a_hook_takes(state_machine: Interpreter) -> None:
    def events(asked: int) -> int:
        hooks = [{**BEFORE_NEXT, "status": "before_next"}] * (asked + 1)
        script = deploying(
            PlanDeployment=[gates("before_shift")],
            CheckHealth=[HEALTHY] * 2,
            CheckBake=[*hooks, NEXT, BAKED],
            ShiftTraffic=[SHIFTED, SHIFTED],
            BeforeShift=[BEFORE_YES, *[BEFORE_ASKING] * asked, BEFORE_YES],
        )
        return state_machine.run(DEPLOY_WEB, script).events

    assert events(2) == events(0) + 2 * (ASK + PASS)


def test_an_execution_outlives_all_that_it_may_wait_for() -> None:
    """A deployment that is kept warm for a week is not timed out: looks come at the latest every
    LONGEST_SECONDS, and what is waited for without one has a limit of its own.
    """
    with_looks = MOST_EVENTS // LOOK * LONGEST_SECONDS
    without = (
        most(Approval, "timeout_seconds")
        + most(Migration, "timeout_seconds")
        + most(Drain, "keep_warm_seconds")
    )
    assert DEPLOYMENT.document["TimeoutSeconds"] > with_looks + without
    assert DEPLOYMENT.document["TimeoutSeconds"] < RELEASE.document["TimeoutSeconds"] <= YEAR


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (Health, "deadline_seconds"),
        (Hook, "timeout_seconds"),
        (Bake, "seconds"),
        (Scan, "deadline_seconds"),
        (Drain, "deadline_seconds"),
    ],
    ids=str,
)
def test_the_longest_single_wait_takes_a_quarter_of_the_history(model: Any, field: str) -> None:
    """On hosts every look takes two passes, as they are asked first: then it is half of it."""
    assert looks(1, most(model, field)) * LOOK < MOST_EVENTS / 4


def strategy(steps: int, seconds: int) -> dict[str, Any]:
    """So many steps in equal parts of the time, with the last one as bake."""
    each = [{"percent": one, "seconds": seconds // steps} for one in range(1, steps)]
    watched = {"strategy": {"type": "steps", "steps": each}} if each else {"strategy": None}
    return {**watched, "bake": {"seconds": seconds // steps, "interval_seconds": 1}}


def is_accepted(example: str, changes: dict[str, Any]) -> bool:
    try:
        load(changed(example, **changes), "service.yaml")
    except InvalidConfiguration:
        return False
    return True


@pytest.mark.parametrize("days", [1 / 24, 0.5, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 99])
@pytest.mark.parametrize(
    ("example", "passes"), [(EXAMPLE, 1), (HOST_PROXY, 2)], ids=["alb", "nginx"]
)
def test_all_steps_of_a_configuration_that_is_accepted_have_room(
    example: str, passes: int, steps: int, days: float
) -> None:
    """CheckBake's pace slows down by the number of steps, so that they share the looks; hooks
    before and after each of them say yes at once.
    """
    seconds = int(days * DAY)
    margin = Drain().margin_seconds if passes == 1 else 0
    step = (looks(1, seconds / steps, steps) + looks(1, margin, steps)) * LOOK * passes + 3 * PASS
    fits = steps * step < MOST_EVENTS - REST
    # A single step lasts a day at most.
    if seconds // steps <= DAY and is_accepted(example, strategy(steps, seconds)):
        assert fits, f"{steps * step} events"


BOTH_POINTS = ["before_shift", "after_shift"]


@pytest.mark.parametrize("points", [["before_shift"], BOTH_POINTS, BOTH_POINTS * 5], ids=len)
@pytest.mark.parametrize("asked", [1, 600, 1800, 20_000, DAY])
@pytest.mark.parametrize("watched", [0, 3600, 20_000, DAY])
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 99])
@pytest.mark.parametrize(
    ("example", "passes"), [(EXAMPLE, 1), (HOST_PROXY, 2)], ids=["alb", "nginx"]
)
def test_hooks_that_take_all_their_time_have_room(
    example: str, passes: int, steps: int, watched: int, asked: int, points: list[str]
) -> None:
    """At every step all hooks say IN_PROGRESS until the end of their time, and then yes. While they
    are asked the new colour is looked at, on hosts in two passes. asked: seconds for each hook.
    """
    hooks = [
        {"at": point, "function": "slow", "timeout_seconds": asked, "interval_seconds": 1}
        for point in points
    ]
    if not is_accepted(example, {**strategy(steps, watched), "hooks": hooks}):
        return
    look, each = LOOK * (passes - 1) + PASS, len(points) // len(set(points))
    asking = (looks(1, each * asked, 3 * steps) + each) * (look + ASK) * len(set(points))
    margin = Drain().margin_seconds if passes == 1 else 0
    watching = (looks(1, watched / steps, steps) + looks(1, margin, steps)) * LOOK * passes
    events = steps * (asking + watching + 2 * PASS)
    assert events < MOST_EVENTS - REST, f"{events} events"


@pytest.mark.parametrize("example", [EXAMPLE, HOST_PROXY], ids=["alb", "nginx"])
def test_hooks_at_every_step_of_what_is_usual_are_accepted(example: str) -> None:
    hooks = [{"at": point, "function": "check", "timeout_seconds": 600} for point in BOTH_POINTS]
    for steps in (1, 2, 5, 10):
        assert is_accepted(example, {**strategy(steps, 600 * steps), "hooks": hooks})


def test_what_is_usual_is_accepted_and_has_room() -> None:
    for minutes in (1, 5, 60):
        changes = {
            "strategy": {"type": "linear", "percent": 5, "seconds": minutes * 60},
            "bake": {"seconds": 600},
        }
        for example in (EXAMPLE, HOST_PROXY):
            assert is_accepted(example, changes)
