"""RollBack: pass by pass until the world matches the snapshot, whatever was done so far."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from bluegreen.deployment import parse
from bluegreen.errors import (
    AwsRefused,
    AwsUnavailable,
    DeploymentRefused,
    LockLost,
    RollBackIncomplete,
    TrafficChanged,
)
from runtime import clients
from tests.functions.site import Site
from tests.functions.world import BLUE, GREEN, START, World, execution_arn


@pytest.fixture(autouse=True)
def _both_scale(world: World) -> None:
    world.scalable(BLUE, suspended=False)
    world.scalable(GREEN, suspended=True)


def serve(site: Site, data: dict[str, Any]) -> dict[str, Any]:
    """Probes ask the site, which answers as blue."""
    site.colors = ["blue"]
    site.serve(data)
    return data


def proved(world: World, site: Site) -> dict[str, Any]:
    """All traffic on green, and CheckBake has seen it there."""
    data = serve(site, world.shifted())
    world.store.enter(parse(data), "baking")
    return data


def roll_back(world: World, data: dict[str, Any], execution: str = "d-1") -> dict[str, Any]:
    data["rollback"] = world.run("roll_back", data, execution)
    answer: dict[str, Any] = data["rollback"]
    return answer


def until_restored(world: World, data: dict[str, Any], execution: str = "d-1") -> dict[str, Any]:
    """All passes, ten seconds each; ECS obeys, and a task that is told to stop stops."""
    for _ in range(100):
        answer = roll_back(world, data, execution)
        if answer["status"] != "waiting":
            return answer
        assert isinstance(answer["wait_seconds"], int)
        ecs_obeys(world)
        world.now += 10
    raise AssertionError(f"does not end: {answer}")


def ecs_obeys(world: World) -> None:
    for color in (BLUE, GREEN):
        wanted = world.service(color)["desiredCount"]
        world.health[color] = ["healthy"] * wanted
        if wanted:
            continue
        for task in world.backend.tasks.get("web", {}).values():
            if task.group == f"service:web-{color}":
                task.last_status = task.desired_status = "STOPPED"


def everything(world: World) -> dict[str, Any]:
    services = {color: world.service(color) for color in (BLUE, GREEN)}
    return {
        "traffic": world.weights(),
        "test traffic": world.weights(world.test_listener),
        "services": {
            color: (one["taskDefinition"], one["desiredCount"]) for color, one in services.items()
        },
        "suspended": {color: world.suspended(color) for color in (BLUE, GREEN)},
    }


@pytest.mark.parametrize("left_at", ["planned", "started", "shifted"])
def test_15_everything_is_put_back_from_wherever_it_stopped(
    world: World, site: Site, left_at: str
) -> None:
    clients.elbv2().modify_listener(
        ListenerArn=world.test_listener, DefaultActions=[world.forward({BLUE: 100, GREEN: 0})]
    )
    before = everything(world)
    at = {"planned": world.plan, "started": world.started, "shifted": world.shifted}[left_at]
    data = serve(site, at())
    answer = until_restored(world, data)
    assert (answer["status"], answer["as_before"]) == ("restored", True)
    assert everything(world) == before


def test_15_a_test_listener_that_was_all_that_had_changed_is_put_back(world: World) -> None:
    """StartIdleColor got as far as the test listener, and no further."""
    clients.elbv2().modify_listener(
        ListenerArn=world.test_listener, DefaultActions=[world.forward({BLUE: 100, GREEN: 0})]
    )
    data = world.plan()
    data["task_definition"] = world.run("register_task_definition", data)
    world.fault("ecs", "UpdateService", "denied")
    with pytest.raises(AwsRefused):
        world.run("start_idle_color", data)
    assert world.weights(world.test_listener) == {BLUE: 0, GREEN: 100}
    assert until_restored(world, data)["status"] == "restored"
    assert world.weights(world.test_listener) == {BLUE: 100, GREEN: 0}


def test_15_called_again_after_the_end_it_changes_nothing(world: World, site: Site) -> None:
    data = serve(site, world.shifted())
    until_restored(world, data)
    after = everything(world)
    del data["rollback"]
    assert until_restored(world, data)["status"] == "restored"
    assert everything(world) == after


def test_15_the_traffic_goes_back_first_and_the_new_colour_stays_until_quiet(
    world: World, site: Site
) -> None:
    data = proved(world, site)
    roll_back(world, data)
    assert world.weights() == {BLUE: 100, GREEN: 0}
    assert world.service(GREEN)["desiredCount"] == 2
    roll_back(world, data)
    world.now += 49
    assert roll_back(world, data)["reason"] == "the load balancer follows, requests in flight end"
    assert world.service(GREEN)["desiredCount"] == 2
    world.now += 2
    roll_back(world, data)
    assert world.service(GREEN)["desiredCount"] == 0


def test_01_a_load_balancer_that_still_sends_to_the_new_colour_is_waited_for(
    world: World, site: Site
) -> None:
    data = proved(world, site)
    site.colors = ["green"]
    roll_back(world, data)
    world.now += 59
    assert roll_back(world, data)["proved_at"] is None
    site.colors = ["blue"]
    proved_at = world.now
    assert roll_back(world, data)["proved_at"] == proved_at
    world.now += 49
    assert roll_back(world, data)["status"] == "waiting"
    assert world.service(GREEN)["desiredCount"] == 2


def test_01_a_switch_that_was_never_seen_may_still_show_after_it_was_taken_back(
    world: World, site: Site
) -> None:
    """Blue answers because the load balancer follows neither change yet: that proves nothing
    before the time is over that a switch may take.
    """
    data = serve(site, world.shifted())
    roll_back(world, data)
    assert world.weights() == {BLUE: 100, GREEN: 0}
    roll_back(world, data)
    world.now += 59.9
    answer = roll_back(world, data)
    assert (answer["proved_at"], answer["switch_was_seen"]) == (None, False)
    assert site.asked == [], "no answer could prove it"
    world.now += 0.1
    assert roll_back(world, data)["proved_at"] == world.now
    world.now += 49
    roll_back(world, data)
    assert world.service(GREEN)["desiredCount"] == 2
    world.now += 1
    roll_back(world, data)
    assert world.service(GREEN)["desiredCount"] == 0


def test_01_a_switch_that_was_seen_is_known_to_be_over_by_the_first_answers(
    world: World, site: Site
) -> None:
    data = proved(world, site)
    roll_back(world, data)
    answer = roll_back(world, data)
    assert (answer["proved_at"], answer["switch_was_seen"]) == (world.now, True)


def test_an_old_colour_older_than_the_probe_is_proved_by_the_new_ones_silence(
    world: World, site: Site
) -> None:
    data = proved(world, site)
    site.colors = [""]
    roll_back(world, data)
    world.now += 1
    roll_back(world, data)
    world.now += 59.9
    assert roll_back(world, data)["proved_at"] is None
    world.now += 0.1
    assert roll_back(world, data)["proved_at"] == world.now


def test_01_a_new_colour_that_still_answers_is_never_taken_for_gone(
    world: World, site: Site
) -> None:
    data = proved(world, site)
    site.colors = ["green"]
    roll_back(world, data)
    roll_back(world, data)
    world.now += 60 + 899
    assert roll_back(world, data)["proved_at"] is None
    world.now += 1
    with pytest.raises(RollBackIncomplete, match="does not follow the restored weights"):
        roll_back(world, data)
    assert world.service(GREEN)["desiredCount"] == 2
    assert world.weights() == {BLUE: 100, GREEN: 0}


def test_23_the_first_pass_notes_that_it_is_being_undone(world: World, site: Site) -> None:
    """Whoever takes it up again must not take it for a deployment to be finished."""
    data = serve(site, world.shifted())
    world.store.enter(parse(data), "committed")
    roll_back(world, data)
    assert world.record().phase == "rolling_back"


def test_15_an_ill_old_colour_is_not_given_the_traffic_of_a_better_new_one(
    world: World, site: Site
) -> None:
    data = proved(world, site)
    world.health[BLUE] = ["healthy", "unhealthy"]
    assert roll_back(world, data)["reason"] == "1 of 2 targets of the old colour healthy"
    assert world.weights() == {BLUE: 0, GREEN: 100}
    world.health[GREEN] = ["unhealthy", "unhealthy"]
    roll_back(world, data)
    assert world.weights() == {BLUE: 100, GREEN: 0}


def test_15_no_better_old_colour_until_the_deadline_is_an_error(world: World, site: Site) -> None:
    data = proved(world, site)
    world.health[BLUE] = ["unhealthy", "unhealthy"]
    world.health[GREEN] = ["unhealthy", "unhealthy"]
    roll_back(world, data)
    world.now += 949
    assert roll_back(world, data)["status"] == "waiting"
    world.now += 1
    with pytest.raises(RollBackIncomplete, match="0 of 2 targets of the old colour healthy"):
        roll_back(world, data)
    assert world.weights() == {BLUE: 0, GREEN: 100}
    assert world.service(GREEN)["desiredCount"] == 2


def test_15_no_more_of_the_old_colour_than_before_has_to_do_in_the_end(
    world: World, site: Site
) -> None:
    """The new colour has scaled out, and there is no room for as many of the old one."""
    data = proved(world, site)
    world.scale(GREEN, 3)
    world.health[GREEN] = ["healthy"] * 3
    assert roll_back(world, data)["reason"] == "starting 3 tasks of the old colour"
    assert roll_back(world, data)["reason"] == "2 of 3 targets of the old colour healthy"
    world.now += 950
    roll_back(world, data)
    assert world.weights() == {BLUE: 100, GREEN: 0}
    assert until_restored(world, data)["as_before"]
    assert world.service(GREEN)["desiredCount"] == 0


def test_15_a_new_colour_that_mends_an_outage_keeps_its_traffic(world: World, site: Site) -> None:
    """No task of the old colour ran at the start: going back would cut everybody off again."""
    world.configure(strategy={"type": "canary", "percent": 10, "seconds": 60})
    world.scale(BLUE, 0)
    world.health[BLUE] = []
    data = proved(world, site)
    assert world.weights() == {BLUE: 0, GREEN: 100}, "a tenth would do for a tenth of the users"
    answer = roll_back(world, data)
    assert (answer["status"], answer["as_before"]) == ("restored", False)
    assert answer["reason"] == (
        "the old colour had no task when the deployment began, and has none now; "
        "the new colour keeps its traffic and stays up"
    )
    assert world.weights() == {BLUE: 0, GREEN: 100}
    assert world.service(GREEN)["desiredCount"] == 2
    assert (world.suspended(BLUE), world.suspended(GREEN)) == (True, False)


def test_15_an_old_colour_that_somebody_stopped_is_started_though_it_has_the_traffic(
    world: World, site: Site
) -> None:
    data = proved(world, site)
    world.set_weights({BLUE: 100, GREEN: 0})
    world.scale(BLUE, 0)
    world.health[BLUE] = []
    assert roll_back(world, data)["reason"] == "starting 2 tasks of the old colour"
    assert world.service(BLUE)["desiredCount"] == 2
    world.now += 600
    assert roll_back(world, data)["reason"] == "0 of 2 targets of the old colour healthy"
    assert world.service(GREEN)["desiredCount"] == 2, "the only colour with healthy targets"


def test_an_old_colour_that_a_deployment_has_not_touched_is_none_of_its_business(
    world: World,
) -> None:
    """Traffic was never meant to move: what fails about blue is not undone by waiting for it."""
    data = world.started()
    world.health[BLUE] = ["unhealthy", "unhealthy"]
    world.record_calls(("ecs", "UpdateService"))
    for _ in range(5):
        if roll_back(world, data)["status"] == "restored":
            break
        for task in world.backend.tasks.get("web", {}).values():
            task.last_status = task.desired_status = "STOPPED"
    assert data["rollback"]["status"] == "restored"
    assert world.calls == ["UpdateService"], "green goes back to nothing, and blue is left"


def test_12_both_scalings_are_put_back(world: World, site: Site) -> None:
    data = proved(world, site)
    assert world.suspended(BLUE)
    until_restored(world, data)
    assert (world.suspended(BLUE), world.suspended(GREEN)) == (False, True)


def test_12_scaling_that_somebody_removed_since_is_not_brought_back(
    world: World, site: Site
) -> None:
    data = proved(world, site)
    client = clients.application_autoscaling()
    client.deregister_scalable_target(
        ServiceNamespace="ecs",
        ResourceId="service/web/web-green",
        ScalableDimension="ecs:service:DesiredCount",
    )
    assert until_restored(world, data)["as_before"]
    found = client.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]
    assert [one["ResourceId"] for one in found] == ["service/web/web-blue"]
    assert not world.suspended(BLUE)


def test_15_the_old_colour_is_never_touched_by_a_deployment_that_failed(
    world: World, site: Site
) -> None:
    data = serve(site, world.shifted())
    world.record_calls(("ecs", "UpdateService"))
    until_restored(world, data)
    assert world.calls == ["UpdateService"], "one call: green goes back to nothing"


def test_05_somebody_elses_traffic_is_left_and_the_used_colour_stays_up(world: World) -> None:
    data = world.shifted()
    world.set_weights({BLUE: 60, GREEN: 40})
    answer = until_restored(world, data)
    assert (answer["status"], answer["as_before"]) == ("restored", False)
    assert world.weights() == {BLUE: 60, GREEN: 40}
    assert world.service(GREEN)["desiredCount"] == 2


def test_05_weights_changed_between_look_and_write_are_not_overwritten(
    world: World, site: Site
) -> None:
    data = serve(site, world.shifted())
    world.meanwhile("ecs", "DescribeServices", lambda: world.set_weights({BLUE: 60, GREEN: 40}))
    with contextlib.suppress(TrafficChanged):
        roll_back(world, data)
    roll_back(world, data)
    assert world.weights() == {BLUE: 60, GREEN: 40}


def test_05_a_maintenance_page_of_another_hand_is_left_and_does_not_block_the_rollback(
    world: World,
) -> None:
    """An operator replaced the forward action during the incident. That is traffic changed by
    somebody else: it stays, the rollback ends, and the service's lock is not held for ever.
    """
    data = world.started()
    page: Any = [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "503"}}]
    clients.elbv2().modify_listener(ListenerArn=world.listener, DefaultActions=page)
    answer = until_restored(world, data)
    assert (answer["status"], answer["as_before"]) == ("restored", False)
    assert world.actions()[0]["Type"] == "fixed-response"
    assert world.service(GREEN)["desiredCount"] == 0


def test_nothing_was_changed_nothing_is_restored(world: World) -> None:
    answer = world.run("roll_back", {"request": {"service": "gone"}})
    assert answer == {"status": "nothing_to_restore", "reason": "nothing was changed"}


@pytest.mark.parametrize("operation", ["DescribeListeners", "ModifyListener"])
def test_a_fault_in_the_middle_is_gone_through_again(
    world: World, site: Site, operation: str
) -> None:
    before = everything(world)
    data = serve(site, world.shifted())
    world.fault("elbv2", operation, "error500")
    with pytest.raises(AwsUnavailable):
        roll_back(world, data)
    assert until_restored(world, data)["status"] == "restored"
    assert everything(world) == before


def test_a_lost_answer_of_the_write_is_found_done(world: World, site: Site) -> None:
    data = serve(site, world.shifted())
    world.fault("elbv2", "ModifyListener", "lost_answer", times=3)
    with pytest.raises(AwsUnavailable):
        roll_back(world, data)
    assert until_restored(world, data)["as_before"]


def test_a_rollback_that_lost_its_lock_touches_nothing(world: World) -> None:
    data = world.shifted()
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    with pytest.raises(LockLost):
        roll_back(world, data)
    assert world.weights() == {BLUE: 0, GREEN: 100}


def test_services_that_do_not_come_back_are_an_error(world: World) -> None:
    data = world.started()
    roll_back(world, data)
    world.now += 901
    with pytest.raises(RollBackIncomplete, match="do not come back"):
        roll_back(world, data)


def drained(world: World, site: Site) -> dict[str, Any]:
    """A deployment that succeeded: blue ended, green live; then asked to be undone by hand."""
    data = serve(site, world.baked())
    world.scale(BLUE, 0)
    world.health[BLUE] = []
    world.store.release("web", world.lock.fencing)
    world.store.close("d-1", "succeeded", "live", world.now, 1)
    return {"request": {"action": "rollback", "deployment_id": "d-1"}, "was": data}


def by_hand(world: World, site: Site, execution: str = "undo") -> dict[str, Any]:
    asked = drained(world, site)
    data = world.run("plan_roll_back", asked, execution)
    return serve(site, data)


def test_15_by_hand_the_old_colour_is_started_in_full_before_it_gets_traffic(
    world: World, site: Site
) -> None:
    data = by_hand(world, site)
    assert roll_back(world, data, "undo")["reason"] == "starting 2 tasks of the old colour"
    assert world.service(BLUE)["desiredCount"] == 2
    assert world.weights() == {BLUE: 0, GREEN: 100}
    world.health[BLUE] = ["healthy", "initial"]
    assert roll_back(world, data, "undo")["status"] == "waiting"
    assert world.weights() == {BLUE: 0, GREEN: 100}
    world.health[BLUE] = ["healthy", "healthy"]
    roll_back(world, data, "undo")
    assert world.weights() == {BLUE: 100, GREEN: 0}
    assert until_restored(world, data, "undo")["as_before"]


def test_15_by_service_the_first_one_on_record_goes_back_by_its_snapshot_once_all_is_healthy(
    world: World, site: Site
) -> None:
    """Nothing before it is on record; its old colour has ended."""
    before = everything(world)
    drained(world, site)
    asked = {"request": {"action": "rollback", "service": "web"}}
    data = serve(site, world.run("plan_roll_back", asked, "undo"))
    assert roll_back(world, data, "undo")["reason"] == "starting 2 tasks of the old colour"
    assert (world.service(BLUE)["desiredCount"], world.weights()) == (2, {BLUE: 0, GREEN: 100})
    world.health[BLUE] = ["healthy", "initial"]
    roll_back(world, data, "undo")
    assert world.weights() == {BLUE: 0, GREEN: 100}
    world.health[BLUE] = ["healthy", "healthy"]
    assert until_restored(world, data, "undo")["as_before"]
    assert everything(world) == before
    answer = world.run("record_outcome", data, "undo")
    assert (answer["outcome"], answer["execution"]) == ("rolled_back", "succeed")
    assert (world.lock.held, world.lock.changed_by) == (False, None)
    assert world.record().outcome == "rolled_back"


def while_it_drains(world: World, site: Site, targets: list[str]) -> dict[str, Any]:
    """Green is live, and the drain has taken blue's targets out; its tasks still run."""
    proved(world, site)
    world.health[BLUE] = targets
    asked = {"request": {"action": "rollback", "deployment_id": "d-1"}}
    return serve(site, world.run("plan_roll_back", asked, "undo"))


def test_15_by_hand_targets_that_drain_are_kept(world: World, site: Site) -> None:
    world.target_prefix = "i-0"
    data = while_it_drains(world, site, ["draining", "draining"])
    assert roll_back(world, data, "undo")["reason"] == "2 targets of the old colour stay"
    assert world.health[BLUE] == ["initial", "initial"]
    assert world.weights() == {BLUE: 0, GREEN: 100}
    world.health[BLUE] = ["healthy", "healthy"]
    roll_back(world, data, "undo")
    assert world.weights() == {BLUE: 100, GREEN: 0}
    assert until_restored(world, data, "undo")["as_before"]


@pytest.mark.parametrize("targets", [[], ["draining", "draining"]], ids=["gone", "addresses"])
def test_15_by_hand_tasks_whose_targets_cannot_come_back_are_started_anew(
    world: World, site: Site, targets: list[str]
) -> None:
    """ECS registers a task when it starts it; an address must not come back while it drains."""
    data = while_it_drains(world, site, targets)
    roll_back(world, data, "undo")
    assert world.service(BLUE)["desiredCount"] == 0
    assert world.weights() == {BLUE: 0, GREEN: 100}
    assert roll_back(world, data, "undo")["reason"] == "starting 2 tasks of the old colour"
    world.health[BLUE] = []
    assert roll_back(world, data, "undo")["reason"] == "0 of 2 targets of the old colour healthy"
    assert world.service(BLUE)["desiredCount"] == 2
    assert until_restored(world, data, "undo")["as_before"]
    assert world.weights() == {BLUE: 100, GREEN: 0}


def test_15_by_hand_the_old_colour_gets_as_many_tasks_as_the_new_one_has_now(
    world: World, site: Site
) -> None:
    world.scale(GREEN, 0)
    data = by_hand(world, site)
    world.scale(GREEN, 7)
    world.health[GREEN] = ["healthy"] * 5 + ["initial", "unhealthy"]
    roll_back(world, data, "undo")
    assert world.service(BLUE)["desiredCount"] == 5


def test_15_a_rollback_by_hand_that_failed_once_still_starts_the_old_colour_in_full(
    world: World, site: Site
) -> None:
    """The first try ends as rollback_incomplete, which closes the record; the sweep tries again.
    One healthy task must not get the traffic of all.
    """
    data = by_hand(world, site)
    failure = {"Error": "RollBackIncomplete", "Cause": "0 of 2 targets healthy"}
    world.run("record_outcome", {**data, "rollback_failure": failure}, "undo")
    assert world.lock.held
    execution = world.start_execution("undo")
    assert execution == world.lock.execution_arn
    world.stop_execution("undo")
    asked = {"request": {"action": "recover", "deployment_id": "d-1"}}
    again = serve(site, world.run("plan_roll_back", asked, "recovery"))
    roll_back(world, again, "recovery")
    assert world.service(BLUE)["desiredCount"] == 2


def test_15_a_rollback_by_hand_lost_while_it_began_still_starts_the_old_colour_in_full(
    world: World, site: Site
) -> None:
    """Stopped after it took the lock over, before it noted its phase."""
    drained(world, site)
    world.start_execution("undo")
    world.store.take_over(world.lock, "d-1", execution_arn("undo"), world.now, "roll_back")
    world.stop_execution("undo")
    asked = {"request": {"action": "recover", "deployment_id": "d-1"}}
    data = serve(site, world.run("plan_roll_back", asked, "recovery"))
    roll_back(world, data, "recovery")
    assert world.service(BLUE)["desiredCount"] == 2


def test_15_by_hand_no_traffic_goes_to_a_colour_that_ran_nothing(world: World, site: Site) -> None:
    """The old colour had the traffic but no running task when the plan was made: going back to
    it by hand, from a healthy colour, would cut everybody off.
    """
    world.scale(BLUE, 0)
    world.health[BLUE] = []
    with pytest.raises(DeploymentRefused, match="nothing ran before"):
        by_hand(world, site)
    assert world.weights() == {BLUE: 0, GREEN: 100}


def test_23_a_plan_that_was_fenced_off_before_it_was_carried_out_is_undone_under_the_new_number(
    world: World,
) -> None:
    """Stopped in PlanDeployment: recovery takes the lock over while the function still runs and
    saves its plan a moment later. Nothing was changed, and that is what has to come out.
    """
    world.start_execution("d-1")
    world.plan("d-1")
    document = world.record().deployment
    assert document
    clients.dynamodb().update_item(
        TableName="deployments",
        Key={"pk": {"S": "deployment#d-1"}},
        UpdateExpression="REMOVE document SET phase = :planning",
        ExpressionAttributeValues={":planning": {"S": "planning"}},
    )
    world.stop_execution("d-1")
    asked = {"request": {"action": "recover", "deployment_id": "d-1"}}
    data = world.run("plan_roll_back", asked, "recovery")
    assert "deployment" not in data
    world.store.save_plan(document, "deploying")
    world.now += data["recovery"]["settle_seconds"]
    assert until_restored(world, data, "recovery")["status"] in ("restored", "nothing_to_restore")


def test_a_plan_whose_last_attempt_failed_is_undone_under_the_number_that_it_holds(
    world: World,
) -> None:
    """First attempt: plan saved, then a fault. Second attempt: the lock again, then a refusal."""
    world.plan("d-1")
    world.store.acquire("web", "d-1", execution_arn("d-1"), world.now, world.store.lock("web"))
    refused = {"Error": "AwsRefused", "Cause": "AccessDenied"}
    data = {"request": {"service": "web", "images": {"web": "v2"}}, "failure": refused}
    assert until_restored(world, data)["status"] in ("restored", "nothing_to_restore")


def test_12_scaling_that_somebody_added_since_is_left_alone(world: World, site: Site) -> None:
    client = clients.application_autoscaling()
    for color in (BLUE, GREEN):
        client.deregister_scalable_target(
            ServiceNamespace="ecs",
            ResourceId=f"service/web/web-{color}",
            ScalableDimension="ecs:service:DesiredCount",
        )
    data = serve(site, world.shifted())
    world.scalable(GREEN, suspended=True)
    assert until_restored(world, data)["as_before"]
    assert world.suspended(GREEN)
