"""RunHooks: functions of the user's are called, and what they say decides."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from bluegreen.errors import AwsUnavailable, HookFailed, LockLost
from runtime import clients
from tests.functions.hook_functions import HookFunctions
from tests.functions.world import START, World, execution_arn

HOOKS = [
    {"at": "idle_healthy", "function": "smoke", "timeout_seconds": 60, "interval_seconds": 10},
    {"at": "before_shift", "function": "announce"},
    {"at": "idle_healthy", "function": "load", "timeout_seconds": 60, "interval_seconds": 10},
    {"at": "after_deployment", "function": "cleanup", "timeout_seconds": 60},
    {"at": "after_deployment", "function": "report"},
]
YES = {"status": "SUCCEEDED"}
ENDED = {"outcome": {"outcome": "succeeded", "error": "", "cause": "all is well"}}


@pytest.fixture
def functions(world: World) -> HookFunctions:
    made = HookFunctions().build(world)
    for name in ("smoke", "load", "announce", "cleanup", "report"):
        made.answers(name, YES)
    return made


@pytest.fixture
def data(world: World, functions: HookFunctions) -> dict[str, Any]:  # noqa: ARG001 - called by it
    world.configure(hooks=HOOKS)
    return world.plan()


def ask(world: World, data: dict[str, Any], point: str = "idle_healthy") -> dict[str, Any]:
    """One pass; its answer is kept where the state machine keeps it."""
    answer = world.run("run_hooks", data, point=point)
    data["testing" if point == "idle_healthy" else "hooks"] = answer
    world.now += answer["wait_seconds"]
    return answer


def ask_until_done(world: World, data: dict[str, Any], point: str) -> dict[str, Any]:
    for _ in range(40):
        answer = ask(world, data, point)
        if answer["status"] == "done":
            return answer
    raise AssertionError(f"not done after 40 passes: {answer}")


def test_all_hooks_of_a_point_are_asked_in_the_order_of_the_configuration(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    answer = ask_until_done(world, data, "idle_healthy")
    assert [one["function"] for one in answer["results"]] == ["smoke", "load"]
    assert {one["status"] for one in answer["results"]} == {"SUCCEEDED"}
    assert [event["hook_id"] for event in functions.events] == [
        "d-1/idle_healthy/0/0",
        "d-1/idle_healthy/0/1",
    ]
    assert answer["ended_at"] == START + 1
    assert functions.told("hook_failed") == []


def test_a_hook_that_is_done_is_not_asked_again(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    """The state machine may repeat a pass; and each pass calls one function only."""
    ask(world, data)
    assert len(functions.events) == 1
    ask_until_done(world, data, "idle_healthy")
    ask(world, data)
    assert len(functions.events) == 2


def test_every_step_asks_anew(world: World, data: dict[str, Any], functions: HookFunctions) -> None:
    ask_until_done(world, data, "before_shift")
    data["deployment"]["configuration"]["strategy"] = {"type": "canary", "percent": 10}
    data["shift"] = {"step": 0, "percent": 10}
    ask_until_done(world, data, "before_shift")
    seen = [(event["hook_id"], event["percent"]) for event in functions.events]
    assert seen == [("d-1/before_shift/0/0", 100), ("d-1/before_shift/1/0", 100)]


def test_a_hook_that_says_no_fails_the_deployment_with_its_reason(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    functions.answers("smoke", {"hookStatus": "FAILED", "reason": "3 pages are broken"})
    with pytest.raises(
        HookFailed, match=r"hook smoke \(idle_healthy\) said FAILED: 3 pages are broken"
    ):
        ask(world, data)


def test_a_hook_in_progress_is_asked_again_until_it_agrees(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    busy = {"status": "IN_PROGRESS", "reason": "2 of 9"}
    functions.answers("smoke", busy, {"status": "IN_PROGRESS", "callBackDelay": 25}, YES)
    waits = [ask(world, data)["wait_seconds"] for _ in range(3)]
    assert waits == [10, 25, 1]
    assert [event["attempt"] for event in functions.events] == [1, 2, 3]
    assert {event["hook_id"] for event in functions.events} == {"d-1/idle_healthy/0/0"}


def test_a_pass_that_comes_too_early_leaves_the_function_alone(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    functions.answers("smoke", {"status": "IN_PROGRESS"})
    ask(world, data)
    world.now -= 4
    assert ask(world, data)["wait_seconds"] == 4
    assert len(functions.events) == 1


def test_a_hook_in_progress_for_too_long_fails(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    functions.answers("smoke", {"status": "IN_PROGRESS", "reason": "2 of 9"})
    with pytest.raises(HookFailed, match=r"IN_PROGRESS after 60 s .* asked 7 times: 2 of 9"):
        ask_until_done(world, data, "idle_healthy")
    assert world.now == START + 60


def test_an_exception_fails_with_what_the_function_has_logged(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    def smoke(event: dict[str, Any]) -> Any:
        return event["no such key"]

    functions.functions["smoke"] = smoke
    functions.log = ["asking https://test"]
    with pytest.raises(HookFailed) as failed:
        ask(world, data)
    assert str(failed.value) == (
        "hook smoke (idle_healthy) raised KeyError: 'no such key'; last log lines:\n"
        "    asking https://test\n"
        "    [ERROR] KeyError: 'no such key'"
    )


@pytest.mark.parametrize("payload", [b"", b"null", b"\xff", {"statusCode": 200}, ["SUCCEEDED"]])
def test_garbage_fails_and_says_what_is_expected(
    world: World, data: dict[str, Any], functions: HookFunctions, payload: Any
) -> None:
    functions.answers("smoke", payload)
    with pytest.raises(HookFailed, match=r"smoke \(idle_healthy\) answered .* expected {"):
        ask(world, data)


def test_a_function_that_is_not_there_fails_with_its_name(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    del functions.functions["smoke"]
    with pytest.raises(HookFailed, match=r"smoke \(idle_healthy\) does not exist in this account"):
        ask(world, data)


def test_a_function_that_may_not_be_invoked_names_the_parameter_that_permits_it(
    world: World, data: dict[str, Any]
) -> None:
    world.fault("lambda_", "Invoke", "denied")
    with pytest.raises(HookFailed, match=r"smoke .* HookFunctionPattern"):
        ask(world, data)


@pytest.mark.parametrize("kind", ["throttle", "error500", "timeout"])
def test_21_a_call_that_lambda_does_not_carry_out_is_made_again_as_another_attempt(
    world: World, data: dict[str, Any], functions: HookFunctions, kind: Any
) -> None:
    world.fault("lambda_", "Invoke", kind, times=2)
    answers = [ask(world, data) for _ in range(3)]
    assert [one["status"] for one in answers] == ["waiting"] * 3
    assert "could not be asked" in answers[1]["reason"]
    assert [event["attempt"] for event in functions.events] == [3]
    assert answers[2]["index"] == 1


def test_21_lambda_that_is_away_for_too_long_fails_the_hook(
    world: World, data: dict[str, Any]
) -> None:
    world.fault("lambda_", "Invoke", "throttle", times=99)
    with pytest.raises(HookFailed, match=r"could not be asked for 180 s: .*Rate exceeded"):
        ask_until_done(world, data, "idle_healthy")


def test_a_call_that_takes_too_long_fails_and_says_how_to_write_it(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    """A second call beside the first could do harm, so there is none."""
    world.fault("lambda_", "Invoke", "lost_answer", times=9)
    with pytest.raises(HookFailed, match=r"did not answer in time, .* answered IN_PROGRESS"):
        ask(world, data)
    assert len(functions.events) == 1


def test_an_answer_that_breaks_off_is_too_late_as_well(world: World, data: dict[str, Any]) -> None:
    class Body:
        def read(self) -> bytes:
            raise ReadTimeoutError(endpoint_url="https://lambda")

    def breaks_off(parsed: dict[str, Any], **_: Any) -> None:
        parsed["Payload"] = Body()

    clients.lambda_().meta.events.register_first("after-call.lambda.Invoke", breaks_off)
    try:
        with pytest.raises(HookFailed, match="did not answer in time"):
            ask(world, data)
    finally:
        clients.lambda_().meta.events.unregister("after-call.lambda.Invoke", breaks_off)


def test_a_deployment_that_was_taken_over_asks_nobody(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        ask(world, data)
    assert functions.events == []


def test_the_lease_is_renewed_by_every_pass(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    functions.answers("smoke", {"status": "IN_PROGRESS"})
    world.now += 500
    now = world.now
    ask(world, data)
    assert world.lock.lease_expires_at == now + 600


def test_a_lock_that_cannot_be_proved_is_no_hooks_failure(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    world.fault("dynamodb", "UpdateItem", "throttle", times=9)
    with pytest.raises(AwsUnavailable):
        ask(world, data)
    assert functions.events == []


def test_a_point_without_hooks_is_done_at_once(world: World, data: dict[str, Any]) -> None:
    assert ask(world, data, "before_deployment")["status"] == "done"


# After the end


@pytest.mark.parametrize("fault", ["says no", "raises", "garbage", "missing", "away", "denied"])
def test_after_the_end_nothing_fails_it_is_told_and_the_next_hook_is_asked(
    world: World, data: dict[str, Any], functions: HookFunctions, fault: str
) -> None:
    world.store.release("web", world.lock.fencing)
    match fault:
        case "says no":
            functions.answers("cleanup", {"status": "FAILED", "reason": "no"})
        case "raises":
            functions.functions["cleanup"] = lambda event: event["no such key"]
        case "garbage":
            functions.answers("cleanup", b"\xff")
        case "missing":
            del functions.functions["cleanup"]
        case "away":
            # Every 10 s for 180 s, the first and the last one included.
            world.fault("lambda_", "Invoke", "throttle", times=19)
        case "denied":
            world.fault("lambda_", "Invoke", "denied")
    data |= ENDED
    answer = ask_until_done(world, data, "after_deployment")
    assert [one["status"] for one in answer["results"]] == ["FAILED", "SUCCEEDED"]
    [told] = functions.told("hook_failed")
    assert told["step"] == "cleanup"
    assert told["reason"].startswith("hook cleanup (after_deployment) ")
    assert told["reason"][:300] == answer["results"][0]["reason"]


def test_after_the_end_a_queue_that_is_away_fails_nothing(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    functions.answers("cleanup", {"status": "FAILED"})
    world.fault("sqs", "SendMessage", "throttle", times=9)
    data |= ENDED
    answer = ask_until_done(world, data, "after_deployment")
    assert [one["status"] for one in answer["results"]] == ["FAILED", "SUCCEEDED"]


def test_after_the_end_the_function_learns_how_it_ended(
    world: World, data: dict[str, Any], functions: HookFunctions
) -> None:
    data |= ENDED
    ask_until_done(world, data, "after_deployment")
    [cleanup, _] = functions.events
    assert (cleanup["outcome"], cleanup["reason"]) == ("succeeded", "all is well")
