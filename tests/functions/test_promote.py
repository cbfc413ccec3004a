"""Promote: a person approves, or ends the watching of a step; an answer counts once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.deployment import Deployment
from bluegreen.errors import AwsUnavailable, BlueGreenError, DeploymentRefused, InvalidRequest
from bluegreen.store import Watch
from bluegreen.traffic import weights_for
from tests.functions.hook_functions import HookFunctions
from tests.functions.waiting import Waiting, interpreting
from tests.functions.world import GREEN, START, World, execution_arn

STEPS = {"type": "steps", "steps": [{"percent": 10, "seconds": 60}, {"percent": 50, "seconds": 60}]}
numbers = itertools.count(1)


@pytest.fixture
def functions(world: World) -> HookFunctions:
    return HookFunctions().build(world)


@pytest.fixture
def data(world: World) -> dict[str, Any]:
    world.configure(approval={"timeout_seconds": 7200}, strategy=STEPS)
    return world.plan()


@pytest.fixture
def interpreter() -> Iterator[None]:
    with interpreting():
        yield


def promote(
    world: World, deployment_id: str = "d-1", who: str = "", execution: str = "", **more: Any
) -> dict[str, Any]:
    """execution: its name, given again when an attempt is repeated; else each is another one."""
    request = {"action": "promote", "deployment_id": deployment_id, "who": who, **more}
    return world.run("promote", {"request": request}, execution or f"promote-{next(numbers)}")


def ask_again(world: World, data: dict[str, Any], token: str) -> None:
    """RequestApproval is tried again, with a token of its own."""
    world.store.ask_approval(Deployment.model_validate(data["deployment"]), token)


def shift(world: World, data: dict[str, Any], percent: int) -> None:
    """The weights of a step are about to be written."""
    deployment = Deployment.model_validate(data["deployment"])
    world.store.intend(deployment, weights_for(GREEN, percent))


# Approval


@pytest.mark.usefixtures("interpreter")
def test_a_deployment_that_waits_is_approved(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    waiting = Waiting(world, functions, data)
    answer = promote(world, who="ada", execution="yes")
    assert answer == {"deployment_id": "d-1", "by": "ada", "promoted": "approval"}
    said = {"approved": True, "by": "ada", "at": START, "execution": execution_arn("yes")}
    assert waiting.ended() == ("SUCCEEDED", said)
    assert (world.record().approval, world.record().approved_by) == (None, "ada")


@pytest.mark.usefixtures("interpreter")
def test_nobody_named_it_is_the_execution_that_approved(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    waiting = Waiting(world, functions, data)
    promote(world, execution="promote-7")
    assert waiting.ended()[1]["by"] == "execution promote-7"


@pytest.mark.usefixtures("interpreter")
def test_a_second_answer_is_refused(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    Waiting(world, functions, data)
    promote(world)
    with pytest.raises(DeploymentRefused, match="its traffic has not begun to shift"):
        promote(world)


@pytest.mark.usefixtures("interpreter")
def test_20_who_says_yes_second_does_not_end_the_first_step(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    waiting = Waiting(world, functions, data)
    assert promote(world, who="ada", percent=0)["promoted"] == "approval"
    assert waiting.ended()[0] == "SUCCEEDED"
    shift(world, data, 10)
    with pytest.raises(DeploymentRefused, match="ada has approved it"):
        promote(world, who="bob", percent=0)
    assert world.record().promoted is None


@pytest.mark.usefixtures("interpreter")
def test_20_two_answers_at_a_time_count_once(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    """The second one has read the token before the first one took it away."""
    waiting = Waiting(world, functions, data)
    token = world.record().approval
    assert token
    promote(world, who="ada")
    waiting.ended()
    ask_again(world, data, token)
    with pytest.raises(DeploymentRefused, match="answered already, or its time was up"):
        promote(world, who="bob", execution="second")
    shift(world, data, 10)
    with pytest.raises(DeploymentRefused, match="answered already, or its time was up"):
        promote(world, who="bob", execution="second")
    assert world.record().promoted is None, "the second answer was not meant for the watching"
    assert world.record().approved_by == "ada"


@pytest.mark.usefixtures("interpreter")
def test_an_answer_after_the_time_is_up_is_refused_until_it_goes_on_without_one(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    """The token is still there then, and keeps nobody from promoting a step."""
    waiting = Waiting(world, functions, data, seconds=1)
    assert waiting.ended()[0] in ("TIMED_OUT", "FAILED")
    with pytest.raises(DeploymentRefused, match="its time was up"):
        promote(world)
    shift(world, data, 10)
    with pytest.raises(DeploymentRefused, match="nobody is asked"):
        promote(world, percent=0)
    assert promote(world, percent=10)["step"] == 0
    shift(world, data, 50)
    assert promote(world)["step"] == 1
    assert world.record().approved_by == ""


@pytest.mark.usefixtures("interpreter")
def test_20_a_request_that_was_made_again_is_answered_by_its_new_token(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    """Promote has read the first one, which is worth nothing any more."""
    waiting = Waiting(world, functions, data)
    token = world.record().approval
    assert token
    ask_again(world, data, "of an attempt whose answer was lost")
    world.meanwhile("dynamodb", "GetItem", lambda: ask_again(world, data, token))
    with pytest.raises(AwsUnavailable, match="made again just now"):
        promote(world, who="ada", execution="yes")
    assert world.record().approval == token, "somebody can say yes still"
    assert promote(world, who="ada", execution="yes")["promoted"] == "approval"
    assert waiting.ended()[1]["by"] == "ada"
    assert (world.record().approval, world.record().approved_by) == (None, "ada")


@pytest.mark.usefixtures("interpreter")
def test_20_a_request_that_is_made_again_after_its_answer_was_refused_waits_on(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    waiting = Waiting(world, functions, data)
    token = world.record().approval
    assert token
    ask_again(world, data, "of an attempt whose answer was lost")
    with pytest.raises(DeploymentRefused, match="answered already, or its time was up"):
        promote(world, execution="too-early")
    ask_again(world, data, token)
    assert promote(world)["promoted"] == "approval"
    assert waiting.ended()[0] == "SUCCEEDED"


def test_20_an_answer_takes_no_other_token_away_than_its_own(
    world: World, data: dict[str, Any]
) -> None:
    ask_again(world, data, "new")
    world.store.note_approved("d-1", "old", "ada")
    world.store.forget_approval("d-1", "old")
    assert (world.record().approval, world.record().approved_by) == ("new", "")


@pytest.mark.usefixtures("interpreter")
def test_an_answer_that_step_functions_does_not_take_now_can_be_given_again(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    waiting = Waiting(world, functions, data)
    world.fault("stepfunctions", "SendTaskSuccess", "throttle")
    with pytest.raises(AwsUnavailable):
        promote(world)
    assert promote(world)["promoted"] == "approval"
    assert waiting.ended()[0] == "SUCCEEDED"


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(
    "where", [("stepfunctions", "SendTaskSuccess"), ("dynamodb", "UpdateItem")]
)
@pytest.mark.parametrize("percent", [None, 0])
def test_20_an_answer_that_was_broken_off_is_still_the_approval_when_it_is_tried_again(
    world: World,
    data: dict[str, Any],
    functions: HookFunctions,
    where: tuple[str, str],
    percent: int | None,
) -> None:
    """Its effect was there, its answer was not; until it is tried again the deployment goes on."""
    waiting = Waiting(world, functions, data)
    # What is written once it is answered.
    broken_off = lambda: world.fault(*where, "lost_answer", times=3)  # noqa: E731
    if where[0] == "dynamodb":
        world.meanwhile("stepfunctions", "SendTaskSuccess", broken_off)
    else:
        world.fault(*where, "lost_answer")
    with pytest.raises(AwsUnavailable):
        promote(world, who="ada", execution="yes", percent=percent)
    assert waiting.ended()[1]["approved"] is True
    shift(world, data, 10)
    assert promote(world, who="ada", execution="yes", percent=percent)["promoted"] == "approval"
    record = world.record()
    assert (record.approval, record.approved_by, record.promoted) == (None, "ada", None)


# A step


@pytest.mark.parametrize(("percents", "step"), [([10], 0), ([10, 10], 0), ([10, 50], 1)])
def test_the_step_that_is_watched_is_promoted(
    world: World, data: dict[str, Any], percents: list[int], step: int
) -> None:
    for percent in percents:
        shift(world, data, percent)
    answer = promote(world, who="ada")
    assert (answer["promoted"], answer["step"]) == ("step", step)
    assert world.record().promoted == step
    with pytest.raises(DeploymentRefused, match=f"promoted its step {step} already"):
        promote(world)


def test_the_next_step_can_be_promoted_in_its_turn(world: World, data: dict[str, Any]) -> None:
    shift(world, data, 10)
    promote(world)
    shift(world, data, 50)
    assert promote(world)["step"] == 1


@pytest.mark.parametrize(("percents", "percent", "step"), [([10], 10, 0), ([10, 50], 50, 1)])
def test_the_step_that_is_named_is_promoted(
    world: World, data: dict[str, Any], percents: list[int], percent: int, step: int
) -> None:
    for one in percents:
        shift(world, data, one)
    assert promote(world, percent=percent)["step"] == step


@pytest.mark.parametrize("percent", [50, 100])
def test_20_a_step_that_has_passed_meanwhile_does_not_end_the_next_one(
    world: World, data: dict[str, Any], percent: int
) -> None:
    shift(world, data, 10)
    with pytest.raises(DeploymentRefused, match=f"it is at 10 %, not at {percent} %"):
        promote(world, percent=percent)
    assert world.record().promoted is None


def test_who_names_a_step_approves_nothing(world: World, data: dict[str, Any]) -> None:
    world.store.ask_approval(Deployment.model_validate(data["deployment"]), "token")
    with pytest.raises(DeploymentRefused, match="waits for approval, and is at no step of 10 %"):
        promote(world, percent=10)
    assert (world.record().approval, world.record().answered_in) == ("token", [])


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("after_shift", "the hooks after its step 0 are being asked"),
        ("over", "its step 0 is over already"),
    ],
)
def test_while_hooks_are_asked_nothing_is_watched(
    world: World, data: dict[str, Any], status: Any, why: str
) -> None:
    shift(world, data, 10)
    world.store.note_watch(Deployment.model_validate(data["deployment"]), Watch(0, status))
    with pytest.raises(DeploymentRefused, match=why):
        promote(world)
    assert world.record().promoted is None


@pytest.mark.parametrize("watch", [Watch(1, "watched"), Watch(0, "over")])
def test_what_is_watched_or_not_proved_yet_can_be_promoted(
    world: World, data: dict[str, Any], watch: Watch
) -> None:
    """The hooks of the step before have nothing to say any more."""
    shift(world, data, 10)
    shift(world, data, 50)
    world.store.note_watch(Deployment.model_validate(data["deployment"]), watch)
    assert promote(world)["step"] == 1


def test_20_a_step_that_is_over_while_it_is_promoted_is_not_said_to_be(
    world: World, data: dict[str, Any]
) -> None:
    deployment = Deployment.model_validate(data["deployment"])
    shift(world, data, 10)
    world.store.note_watch(deployment, Watch(0, "watched"))
    seen = world.record().watch
    world.store.note_watch(deployment, Watch(0, "over"))
    assert not world.store.promote("d-1", 0, "ada", seen)
    assert not world.store.promote("d-1", 0, "ada", None)
    assert world.record().promoted is None


# Nothing to promote


def test_a_deployment_that_nobody_knows(world: World) -> None:
    with pytest.raises(InvalidRequest, match="there is no deployment 'd-9'"):
        promote(world, "d-9")


@pytest.mark.usefixtures("data")
def test_a_deployment_that_has_not_begun_to_shift(world: World) -> None:
    with pytest.raises(DeploymentRefused, match="traffic has not begun to shift"):
        promote(world)


@pytest.mark.parametrize(
    ("phase", "why"), [("rolling_back", "it is being rolled back"), ("committed", "it is baked")]
)
def test_a_deployment_that_is_past_it(
    world: World, data: dict[str, Any], phase: Any, why: str
) -> None:
    shift(world, data, 10)
    world.store.enter(Deployment.model_validate(data["deployment"]), phase)
    with pytest.raises(DeploymentRefused, match=why):
        promote(world)


def test_a_deployment_that_is_still_being_planned(world: World) -> None:
    world.store.open("d-1", "web", "arn", "2026-11-22T00:00:00Z", START)
    with pytest.raises(DeploymentRefused, match="it is being planned"):
        promote(world)


def test_22_a_deployment_that_has_ended_says_how(world: World, data: dict[str, Any]) -> None:
    shift(world, data, 10)
    fencing = world.lock.fencing
    world.store.close("d-1", "rolled_back", "an alarm", world.now, fencing)
    with pytest.raises(DeploymentRefused, match="it has ended: rolled_back"):
        promote(world)
    assert world.record().promoted is None


wrong = st.dictionaries(
    st.sampled_from(["deployment_id", "who", "step", "service"]),
    st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=2),
    max_size=4,
)


def test_bad_inputs_are_refused_with_all_their_mistakes(world: World) -> None:
    """hypothesis and a fixture that is made anew for each test: one world for all inputs."""

    @given(wrong)
    def refused(request: dict[str, Any]) -> None:
        with pytest.raises(BlueGreenError) as error:
            world.run("promote", {"request": {"action": "promote"} | request}, "promote-1")
        assert isinstance(error.value, InvalidRequest)

    refused()
    with pytest.raises(
        InvalidRequest, match=r"(?s)deployment_id: is missing.*step: is not a known"
    ):
        world.run("promote", {"request": {"action": "promote", "step": 1}}, "promote-1")
