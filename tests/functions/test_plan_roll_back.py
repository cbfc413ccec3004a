"""PlanRollBack: who may undo which deployment, and when."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.backends import get_backend

from bluegreen.deployment import DeployRequest, parse
from bluegreen.errors import (
    AwsUnavailable,
    DeploymentRefused,
    InvalidRequest,
    LockHeld,
    LockLost,
)
from bluegreen.store import Way
from runtime import clients
from tests.functions.world import (
    ACCOUNT,
    BLUE,
    GREEN,
    MACHINE,
    REGION,
    SETTLE,
    START,
    World,
    execution_arn,
)


def plan(
    world: World, action: str, deployment_id: str = "d-1", execution: str = "undo"
) -> dict[str, Any]:
    request = {"action": action, "deployment_id": deployment_id}
    return world.run("plan_roll_back", {"request": request}, execution)


def end(world: World, name: str, outcome: str = "succeeded") -> None:
    fencing = world.lock.fencing
    world.store.close(name, outcome, "it ended", world.now, fencing)
    world.store.release("web", fencing)


def test_by_hand_the_last_deployment_is_undone_at_once(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    data = plan(world, "rollback")
    assert data["recovery"] == {
        "deployment_id": "d-1",
        "direction": "roll_back",
        "settle_seconds": 0,
        "reason": "rolled back by hand",
    }
    assert data["deployment"]["fencing"] == world.lock.fencing == 2
    assert (world.lock.held, world.lock.execution_arn) == (True, execution_arn("undo"))
    assert world.record().phase == "rolling_back"


def test_a_deployment_that_is_not_the_latest_is_refused_and_the_latest_is_named(
    world: World,
) -> None:
    world.plan("d-1")
    end(world, "d-1")
    world.plan("d-2")
    end(world, "d-2")
    with pytest.raises(DeploymentRefused, match="d-2 came after it; its snapshot is out of date"):
        plan(world, "rollback", "d-1")
    assert not world.lock.held


def test_by_hand_a_running_deployment_is_undone_once_what_it_still_runs_has_settled(
    world: World,
) -> None:
    world.start_execution("d-1")
    was = parse(world.plan("d-1"))
    data = plan(world, "rollback")
    assert data["recovery"]["settle_seconds"] == SETTLE
    assert data["recovery"]["direction"] == "roll_back"
    assert (world.lock.execution_arn, world.lock.purpose) == (execution_arn("undo"), "roll_back")
    assert (data["deployment"]["fencing"], world.record().phase) == (2, "rolling_back")
    with pytest.raises(LockLost):
        world.store.prove(was, START)
    with pytest.raises(LockLost):
        world.store.intend(was, {BLUE: 0, GREEN: 100})


def test_a_running_deployment_is_nothing_to_recover(world: World) -> None:
    world.start_execution("d-1")
    world.plan("d-1")
    with pytest.raises(LockHeld, match="d-1 still runs"):
        plan(world, "recover")
    assert (world.lock.deployment_id, world.lock.fencing) == ("d-1", 1)


def test_by_hand_also_while_it_drains_and_is_committed(world: World) -> None:
    world.start_execution("d-1")
    world.baked("d-1")
    data = plan(world, "rollback")
    assert (data["recovery"]["direction"], data["recovery"]["settle_seconds"]) == (
        "roll_back",
        SETTLE,
    )
    assert world.record().phase == "rolling_back"


def test_a_deployment_beside_another_running_one_is_refused(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    world.start_execution("d-2")
    world.plan("d-2")
    with pytest.raises(LockHeld, match=r"web is being changed by d-2 \(.*:d-2\)"):
        plan(world, "rollback", "d-1")
    assert (world.lock.deployment_id, world.lock.fencing) == ("d-2", 2)


def test_a_deployment_beside_a_warm_later_one_is_refused(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    world.store.keep_warm(parse(world.plan("d-2")), world.now + 3600)
    with pytest.raises(DeploymentRefused, match="d-2 came after it; its snapshot is out of date"):
        plan(world, "rollback", "d-1")
    assert (world.lock.deployment_id, world.lock.warm) == ("d-2", True)


def test_a_deployment_that_changed_nothing_is_refused_by_hand(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    world.store.open("d-2", "web", execution_arn("d-2"), "then", START)
    with pytest.raises(DeploymentRefused, match="d-2 changed nothing: there is nothing to undo"):
        plan(world, "rollback", "d-2")
    assert not world.lock.held


def test_the_very_first_deployment_is_not_undone_into_nothing(world: World) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    world.plan("d-1")
    end(world, "d-1")
    with pytest.raises(DeploymentRefused, match="nothing ran before deployment d-1"):
        plan(world, "rollback")
    assert not world.lock.held


def test_but_a_very_first_deployment_that_was_lost_is_recovered(world: World) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    world.start_execution("d-1")
    world.plan("d-1")
    world.stop_execution("d-1")
    assert plan(world, "recover")["recovery"]["direction"] == "roll_back"


@pytest.mark.parametrize("action", ["rollback", "recover"])
def test_23_a_stopped_deployment_is_taken_over_after_what_still_runs_has_settled(
    world: World, action: str
) -> None:
    world.start_execution("d-1")
    world.plan("d-1")
    world.stop_execution("d-1")
    data = plan(world, action)
    assert (data["recovery"]["settle_seconds"], data["recovery"]["direction"]) == (
        SETTLE,
        "roll_back",
    )
    assert world.lock.execution_arn == execution_arn("undo")
    assert data["deployment"]["fencing"] == 2


def test_23_a_deployment_that_was_live_and_baked_is_finished(world: World) -> None:
    world.start_execution("d-1")
    world.baked("d-1")
    world.stop_execution("d-1")
    data = plan(world, "recover")
    assert (data["recovery"]["direction"], data["recovery"]["settle_seconds"]) == ("finish", SETTLE)
    assert "drain" not in data, "it has not begun, for all that is known"
    assert (world.record().phase, world.lock.purpose) == ("committed", "deploy")
    world.start_execution("undo")
    world.stop_execution("undo")
    again = plan(world, "recover", execution="again")
    assert again["recovery"]["direction"] == "finish", "however often its recovery is lost"
    by_hand = plan(world, "rollback", execution="by hand")
    assert by_hand["recovery"]["direction"] == "roll_back"
    assert (world.record().phase, world.lock.purpose) == ("rolling_back", "roll_back")


@pytest.mark.parametrize("phase", ["deploying", "baking"])
def test_23_a_deployment_that_was_not_baked_is_undone(world: World, phase: Any) -> None:
    world.start_execution("d-1")
    data = world.shifted("d-1")
    world.store.enter(parse(data), phase)
    world.stop_execution("d-1")
    assert plan(world, "recover")["recovery"]["direction"] == "roll_back"
    assert world.record().phase == "rolling_back"


def test_23_a_success_whose_lock_was_not_given_back_is_finished(world: World) -> None:
    """Lost between close and release: the new colour is live, and nobody asked to go back."""
    world.start_execution("d-1")
    world.baked("d-1")
    world.store.close("d-1", "succeeded", "live", world.now, 1)
    world.stop_execution("d-1")
    assert plan(world, "recover")["recovery"]["direction"] == "finish"
    assert world.record().outcome == "succeeded"


def test_23_a_rollback_that_was_lost_as_it_took_the_lock_is_not_finished(world: World) -> None:
    """The lock says what it was taken for, so that the phase may come later."""
    world.baked("d-1")
    world.start_execution("undo")
    world.store.take_over(world.lock, "d-1", execution_arn("undo"), world.now, "roll_back")
    world.stop_execution("undo")
    assert world.record().phase == "committed"
    assert plan(world, "recover", execution="again")["recovery"]["direction"] == "roll_back"


def test_23_a_warm_deployment_that_was_stopped_is_finished_without_the_rest_of_its_time(
    world: World,
) -> None:
    world.start_execution("d-1")
    world.store.keep_warm(parse(world.baked("d-1")), world.now + 3600)
    world.stop_execution("d-1")
    world.now += 100
    data = plan(world, "recover")
    assert (data["recovery"]["direction"], data["recovery"]["settle_seconds"]) == ("finish", 0)
    assert data["drain"] == {"since": world.now, "warm_until": world.now}


def test_23_a_deployment_lost_before_it_had_a_plan_has_nothing_to_undo(world: World) -> None:
    world.start_execution("d-1")
    world.store.open("d-1", "web", execution_arn("d-1"), "then", START)
    world.store.acquire("web", "d-1", execution_arn("d-1"), START, world.store.lock("web"))
    world.stop_execution("d-1")
    data = plan(world, "recover")
    assert "deployment" not in data
    assert data["recovery"]["direction"] == "roll_back"


def test_a_recovery_that_comes_too_late_is_refused(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    with pytest.raises(DeploymentRefused, match="has ended: there is nothing to recover"):
        plan(world, "recover")
    assert not world.lock.held


def test_a_recovery_of_an_earlier_deployment_than_the_warm_one_is_refused(world: World) -> None:
    """Its snapshot is two deployments old: going back to it would bring a version back that
    nobody asked for.
    """
    world.plan("d-1")
    end(world, "d-1")
    warm = world.plan("d-2")
    world.store.keep_warm(parse(warm), world.now + 3600)
    with pytest.raises(DeploymentRefused):
        plan(world, "recover", "d-1")
    assert world.lock.deployment_id == "d-2"


def test_a_warm_deployment_is_undone_at_once(world: World) -> None:
    world.store.keep_warm(parse(world.plan("d-1")), world.now + 3600)
    data = plan(world, "rollback")
    assert data["recovery"]["settle_seconds"] == 0
    assert not world.lock.warm


def test_a_retry_of_the_same_execution_takes_over_once_more(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    plan(world, "rollback")
    data = plan(world, "rollback")
    assert data["deployment"]["fencing"] == world.lock.fencing
    assert world.lock.execution_arn == execution_arn("undo")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"action": "rollback", "deployment_id": "none"}, "there is no deployment 'none'"),
        ({"action": "rollback"}, "give deployment_id or service, one of them"),
        ({"action": "abort", "service": "web"}, "abort needs deployment_id, not service"),
        ({"action": "abort", "deployment_id": "d-1", "dry_run": True}, "dry_run goes with"),
        ({"action": "rollback", "deployment_id": ""}, "deployment_id: String should have at least"),
        ({"action": "rollback", "deployment_id": "d-1", "x": 1}, "x: is not a known key"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    world: World, request_: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        world.run("plan_roll_back", {"request": request_}, "undo")


def test_a_deployment_that_never_got_the_lock_never_began(world: World) -> None:
    world.store.open("d-1", "web", execution_arn("d-1"), "then", START)
    with pytest.raises(DeploymentRefused, match="never began"):
        plan(world, "rollback")


# By service: back to what was live before


def back(world: World, execution: str = "undo", **more: Any) -> dict[str, Any]:
    request = {"action": "rollback", "service": "web", **more}
    return world.run("plan_roll_back", {"request": request}, execution)


def one_after_the_other(world: World, *names: str) -> None:
    for name in names:
        world.plan(name)
        end(world, name)


def test_by_service_a_warm_deployment_is_undone_at_once(world: World) -> None:
    world.store.keep_warm(parse(world.plan("d-1")), world.now + 3600)
    recovery = back(world)["recovery"]
    assert (recovery["deployment_id"], recovery["direction"], recovery["settle_seconds"]) == (
        "d-1",
        "roll_back",
        0,
    )
    assert world.lock.execution_arn == execution_arn("undo")


def test_by_service_a_running_deployment_is_undone(world: World) -> None:
    world.start_execution("d-1")
    world.plan("d-1")
    assert back(world)["recovery"]["direction"] == "roll_back"


def test_by_service_what_is_cold_is_deployed_again(world: World) -> None:
    one_after_the_other(world, "d-1", "d-2")
    data = back(world, skip_bake=True, who="ann")
    assert data["recovery"] == {
        "direction": "redeploy",
        "settle_seconds": 0,
        "reason": "back from d-2 to d-1",
    }
    request = DeployRequest.model_validate(data["request"])
    assert (request.service, request.like, request.skip_bake) == ("web", "d-1", True)
    assert str(request.started_by) == "rollback d-1 (ann)"
    assert "deployment" not in data
    assert not world.lock.held, "PlanDeployment takes it"


def test_by_service_it_goes_back_to_the_one_that_is_named(world: World) -> None:
    one_after_the_other(world, "d-1", "d-2", "d-3")
    assert back(world, to="d-1")["request"]["like"] == "d-1"


def test_back_twice_does_not_bring_back_what_was_taken_back(world: World) -> None:
    one_after_the_other(world, "d-1", "d-2", "d-3")
    world.plan("d-4", started_by={"kind": "rollback", "detail": "d-2"})
    end(world, "d-4")
    assert back(world)["request"]["like"] == "d-1"


def go_back(world: World, name: str, to: str, *, warm: bool = False) -> None:
    """A deployment that repeats an earlier one."""
    data = world.plan(name, started_by={"kind": "rollback", "detail": to})
    if warm:
        world.store.keep_warm(parse(data), world.now + 3600)
    else:
        end(world, name)


@pytest.mark.parametrize("to", ["d-1", None])
def test_a_way_back_that_is_warm_is_no_way_to_what_it_took_back(
    world: World, to: str | None
) -> None:
    one_after_the_other(world, "d-1", "d-2", "d-3")
    go_back(world, "r-1", "d-2", warm=True)
    assert back(world, to=to)["request"]["like"] == "d-1"


def test_a_way_back_that_is_warm_is_undone_when_what_it_took_back_is_named(world: World) -> None:
    one_after_the_other(world, "d-1", "d-2", "d-3")
    go_back(world, "r-1", "d-2", warm=True)
    assert back(world, to="d-3")["recovery"]["deployment_id"] == "r-1"


def test_back_and_forth_and_back_again_leads_ever_further_back(world: World) -> None:
    one_after_the_other(world, "d-1", "d-2", "d-3")
    go_back(world, "r-1", "d-2")
    one_after_the_other(world, "d-4")
    assert back(world)["request"]["like"] == "r-1"
    go_back(world, "r-2", "r-1")
    assert back(world)["request"]["like"] == "d-1"


def test_records_that_lead_in_a_circle_lead_nowhere(world: World) -> None:
    go_back(world, "r-1", "r-2")
    go_back(world, "r-2", "r-1")
    with pytest.raises(DeploymentRefused, match="not on record"):
        back(world)


@pytest.mark.parametrize("outcome", ["rolled_back", "refused", "failed", "rollback_incomplete"])
def test_what_came_to_nothing_is_nothing_to_go_back_to(world: World, outcome: str) -> None:
    one_after_the_other(world, "d-1")
    world.plan("d-2")
    end(world, "d-2", outcome)
    one_after_the_other(world, "d-3")
    assert back(world)["request"]["like"] == "d-1"


def test_a_retry_by_service_takes_up_what_it_has_taken(world: World) -> None:
    world.store.keep_warm(parse(world.plan("d-1")), world.now + 3600)
    first, again = back(world), back(world)
    assert again["recovery"]["deployment_id"] == first["recovery"]["deployment_id"] == "d-1"
    assert again["deployment"]["fencing"] == world.lock.fencing


def test_by_service_a_named_one_that_is_what_warm_goes_back_to_is_instant(world: World) -> None:
    one_after_the_other(world, "d-1")
    world.store.keep_warm(parse(world.plan("d-2")), world.now + 3600)
    assert back(world, to="d-1")["recovery"]["direction"] == "roll_back"


def test_by_service_an_older_one_than_the_warm_one_is_deployed_again(world: World) -> None:
    one_after_the_other(world, "d-1", "d-2")
    world.store.keep_warm(parse(world.plan("d-3")), world.now + 3600)
    assert back(world, to="d-1")["recovery"]["direction"] == "redeploy"
    assert world.lock.warm


def test_by_service_with_nothing_known_it_says_what_to_do(world: World) -> None:
    with pytest.raises(DeploymentRefused, match="deploy an image by its digest"):
        back(world)


def test_by_service_the_first_one_on_record_is_undone_from_its_snapshot(world: World) -> None:
    """The service ran before it was deployed here: nothing on record could be deployed again."""
    one_after_the_other(world, "d-1")
    data = back(world)
    assert data["recovery"] == {
        "deployment_id": "d-1",
        "direction": "roll_back",
        "settle_seconds": 0,
        "reason": "rolled back by hand",
    }
    assert data["deployment"]["snapshot"]["traffic"] == {"blue": 100, "green": 0}
    assert (world.lock.execution_arn, world.lock.purpose) == (execution_arn("undo"), "roll_back")
    assert world.record().phase == "rolling_back"


def test_so_is_the_first_one_after_others_that_came_to_nothing(world: World) -> None:
    world.plan("d-0")
    end(world, "d-0", "failed")
    one_after_the_other(world, "d-1")
    assert back(world)["recovery"]["deployment_id"] == "d-1"


def test_by_service_a_dry_run_says_that_the_first_one_would_be_undone(world: World) -> None:
    one_after_the_other(world, "d-1")
    before = world.lock
    data = back(world, dry_run=True)
    assert data["recovery"]["direction"] == "dry_run"
    plan_ = data["deployment"]["plan"]
    assert (plan_["from_color"], plan_["to_color"]) == ("green", "blue")
    assert plan_["images"]["web"]["to"] == "web:v1"
    assert (world.lock, world.record().phase) == (before, "deploying")


@pytest.mark.parametrize("dry_run", [True, False])
def test_by_service_the_very_first_one_is_not_undone_into_nothing(
    world: World, dry_run: bool
) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    one_after_the_other(world, "d-1")
    with pytest.raises(DeploymentRefused, match="nothing ran before deployment d-1"):
        back(world, dry_run=dry_run)
    assert not world.lock.held


def test_an_execution_whose_name_was_used_before_has_taken_nothing(world: World) -> None:
    """Step Functions lets a name be used again after 90 days; a free lock names its last holder."""
    one_after_the_other(world, "d-1")
    plan(world, "rollback")
    end(world, "d-1", "rolled_back")
    before = world.lock
    assert (before.held, before.execution_arn) == (False, execution_arn("undo"))
    with pytest.raises(DeploymentRefused, match="has ended: there is nothing to recover"):
        plan(world, "recover")
    with pytest.raises(DeploymentRefused, match="cannot be aborted"):
        plan(world, "abort")
    assert world.lock == before


def test_by_service_what_is_live_is_nothing_to_go_back_to(world: World) -> None:
    one_after_the_other(world, "d-1", "d-2")
    with pytest.raises(DeploymentRefused, match="d-2 is what is live"):
        back(world, to="d-2")


def test_by_service_one_that_goes_back_already_is_left_alone(world: World) -> None:
    world.start_execution("d-1")
    world.plan("d-1")
    back(world)
    with pytest.raises(LockHeld, match=r"going back from d-1 already \(.*:undo\)"):
        back(world, execution="another")
    assert world.lock.execution_arn == execution_arn("undo")


# Abort


def test_abort_undoes_a_deployment_that_runs(world: World) -> None:
    world.start_execution("d-1")
    was = parse(world.plan("d-1"))
    data = plan(world, "abort")
    assert (data["recovery"]["direction"], data["recovery"]["settle_seconds"]) == (
        "roll_back",
        SETTLE,
    )
    assert data["recovery"]["reason"] == "aborted by hand"
    with pytest.raises(LockLost):
        world.store.prove(was, START)


def test_abort_of_one_that_has_ended_names_rollback(world: World) -> None:
    world.plan("d-1")
    end(world, "d-1")
    with pytest.raises(DeploymentRefused, match=r"has ended \(succeeded\).*use rollback"):
        plan(world, "abort")
    assert not world.lock.held


def test_abort_of_one_that_has_not_begun_names_its_execution(world: World) -> None:
    one_after_the_other(world, "d-1")
    world.store.open("d-2", "web", execution_arn("d-2"), "then", START)
    with pytest.raises(DeploymentRefused, match=r"stop its execution \(.*:d-2\)"):
        plan(world, "abort", "d-2")


def test_abort_of_the_very_first_one_ends_with_nothing_live_as_before(world: World) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    world.start_execution("d-1")
    world.plan("d-1")
    assert plan(world, "abort")["recovery"]["direction"] == "roll_back"


@pytest.mark.parametrize("action", ["abort", "rollback"])
def test_whoever_waits_for_approval_is_told_no(
    world: World, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto knows no task tokens: what is sent is kept, and this once no state can show it."""
    said: list[dict[str, str]] = []
    client = clients.stepfunctions()
    monkeypatch.setattr(client, "send_task_failure", lambda **answer: said.append(answer))
    world.store.ask_approval(parse(world.plan("d-1")), "token-1")
    request = {"action": action, "deployment_id": "d-1", "who": "ann"}
    world.run("plan_roll_back", {"request": request}, "undo")
    word = "aborted" if action == "abort" else "rolled back"
    assert said == [{"taskToken": "token-1", "error": "NotApproved", "cause": f"{word} by ann"}]
    assert world.record().approval is None
    assert world.lock.execution_arn == execution_arn("undo")


@pytest.mark.parametrize("code", ["InvalidToken", "TaskTimedOut", "AccessDeniedException"])
def test_22_who_cannot_be_told_no_does_not_keep_the_deployment_from_being_undone(
    world: World, code: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = clients.stepfunctions()

    def refuse(**_: str) -> None:
        error: Any = client.exceptions.from_code(code)
        raise error({"Error": {"Code": code, "Message": "no"}}, "SendTaskFailure")

    monkeypatch.setattr(client, "send_task_failure", refuse)
    world.store.ask_approval(parse(world.plan("d-1")), "token-1")
    answer = plan(world, "abort")
    assert answer["recovery"]["direction"] == "roll_back"
    assert world.record().approval is None
    assert ("nobody is told no" in caplog.text) == (code == "AccessDeniedException")


def test_21_step_functions_that_is_away_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = clients.stepfunctions()

    def away(**_: str) -> None:
        raise ClientError({"Error": {"Code": "ThrottlingException"}}, "SendTaskFailure")

    monkeypatch.setattr(client, "send_task_failure", away)
    world.store.ask_approval(parse(world.plan("d-1")), "token-1")
    with pytest.raises(AwsUnavailable):
        plan(world, "abort")
    assert world.record().approval == "token-1"


# Held for a release


RELEASE = execution_arn("spring")


@pytest.fixture
def held(world: World) -> World:
    """d-1 has done all but its drain, and waits for the release, which runs."""
    world.start_execution("spring")
    world.start_execution("d-1")
    data = world.baked("d-1", release=RELEASE)
    world.run("drain_old_color", data)
    world.stop_execution("d-1")
    return world


def status(name: str, word: str) -> None:
    """How an execution ended, which moto cannot be told."""
    machine = get_backend("stepfunctions")[ACCOUNT][REGION].describe_state_machine(MACHINE)
    execution = next(one for one in machine.executions if one.name == name)
    execution.status = word


def test_finish_lets_the_old_colour_go(held: World) -> None:
    held.store.decide_release(RELEASE, "finish", held.now)
    data = plan(held, "finish")
    assert (data["recovery"]["direction"], data["recovery"]["settle_seconds"]) == ("finish", 0)
    assert held.lock.held_for is None
    assert (held.lock.purpose, held.record().phase) == ("deploy", "committed")
    assert "held" not in held.run("drain_old_color", data, "undo")


@pytest.mark.parametrize("way", ["undo", None])
def test_nobody_finishes_a_part_of_a_release_that_has_not_come_to_that(
    held: World, way: Way | None
) -> None:
    if way:
        held.store.decide_release(RELEASE, way, held.now)
    with pytest.raises(LockHeld, match="waits for its release"):
        plan(held, "finish")
    assert held.lock.held_for == RELEASE


def test_finish_is_for_what_is_held_only(world: World) -> None:
    world.plan("d-1")
    with pytest.raises(DeploymentRefused, match="not held for a release"):
        plan(world, "finish")


def test_what_is_held_is_undone_at_once(held: World) -> None:
    data = plan(held, "rollback")
    assert (data["recovery"]["direction"], data["recovery"]["settle_seconds"]) == ("roll_back", 0)


def test_what_is_held_for_a_running_release_is_not_recovered(held: World) -> None:
    with pytest.raises(LockHeld, match="waits for its release"):
        plan(held, "recover")
    assert held.lock.held_for == RELEASE


@pytest.mark.parametrize("word", ["SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT"])
@pytest.mark.parametrize(
    ("way", "direction"), [("finish", "finish"), ("undo", "roll_back"), (None, "roll_back")]
)
def test_23_what_a_release_left_held_ends_as_the_release_did(
    held: World, word: str, way: Way | None, direction: str
) -> None:
    """A release that was stopped after it had begun to finish is finished, all of it."""
    if way:
        held.store.decide_release(RELEASE, way, held.now)
    status("spring", word)
    assert plan(held, "recover")["recovery"]["direction"] == direction


def test_23_what_goes_back_once_takes_the_whole_release_back(held: World) -> None:
    """Also when SettleRelease wakes up after that, in an execution that was stopped."""
    status("spring", "ABORTED")
    plan(held, "recover")
    assert held.store.decide_release(RELEASE, "finish", held.now) == "undo"


def test_23_a_finish_that_was_lost_is_finished_although_the_release_still_runs(
    held: World,
) -> None:
    held.start_execution("undo")
    held.store.decide_release(RELEASE, "finish", held.now)
    plan(held, "finish")
    held.stop_execution("undo")
    assert plan(held, "recover", execution="again")["recovery"]["direction"] == "finish"


def test_23_a_part_of_a_release_that_was_lost_before_it_was_held_goes_back(world: World) -> None:
    world.start_execution("spring")
    world.start_execution("d-1")
    world.baked("d-1", release=RELEASE)
    world.stop_execution("d-1")
    assert plan(world, "recover")["recovery"]["direction"] == "roll_back"
