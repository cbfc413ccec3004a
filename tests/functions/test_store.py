"""Locks and deployments in DynamoDB, with a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.deployment import Deployment
from bluegreen.errors import LockHeld, LockLost
from bluegreen.store import Store
from runtime import clients
from tests.functions.world import BLUE, GREEN, LEASE, START, TABLE, World, execution_arn


@pytest.fixture
def store(world: World) -> Store:
    return world.store


def take(store: Store, name: str, now: float = START) -> int:
    return store.acquire("web", name, execution_arn(name), now, store.lock("web"))


def planned(world: World, name: str = "d-1") -> Deployment:
    return Deployment.model_validate(world.plan(name)["deployment"])


def items() -> list[dict[str, Any]]:
    return clients.dynamodb().scan(TableName=TABLE)["Items"]


def test_20_the_second_start_is_refused_and_names_the_first(store: Store) -> None:
    take(store, "first")
    with pytest.raises(LockHeld) as held:
        take(store, "second", START + 100)
    assert "first" in str(held.value)
    assert execution_arn("first") in str(held.value)
    assert "500 s" in str(held.value)


def test_a_lease_that_is_over_is_left_to_recovery(store: Store) -> None:
    take(store, "first")
    with pytest.raises(LockHeld, match="recovery takes it up within minutes"):
        take(store, "second", START + LEASE + 1)


def test_two_services_do_not_wait_for_each_other(store: Store) -> None:
    take(store, "first")
    assert store.acquire("api", "other", execution_arn("other"), START, store.lock("api")) == 1


def test_the_same_execution_gets_its_lock_again_with_a_higher_number(store: Store) -> None:
    assert take(store, "first") == 1
    assert take(store, "first") == 2


def test_the_fencing_number_grows_with_every_holder_and_never_goes_back(store: Store) -> None:
    seen = []
    for name in ("a", "b", "c"):
        seen.append(take(store, name))
        store.release("web", seen[-1])
    assert seen == [1, 2, 3]


def test_a_lock_that_was_given_back_is_free_and_out_of_the_index(store: Store) -> None:
    fencing = take(store, "first")
    assert [lock.deployment_id for lock in store.held_locks()] == ["first"]
    store.release("web", fencing)
    assert store.held_locks() == []
    found = store.lock("web")
    assert found
    assert not found.held
    assert found.fencing == 1


def test_the_index_lists_just_the_locks_that_are_held(world: World) -> None:
    store = world.store
    take(store, "first")
    store.acquire("api", "other", execution_arn("other"), START, store.lock("api"))
    store.release("web", 1)
    assert [(lock.service, lock.deployment_id) for lock in store.held_locks()] == [("api", "other")]


def test_a_release_after_a_takeover_does_nothing(store: Store) -> None:
    first = take(store, "first")
    seen = store.lock("web")
    assert seen
    second = store.take_over(seen, "first", execution_arn("recovery"), START, "roll_back")
    store.release("web", first)
    found = store.lock("web")
    assert found
    assert (found.held, found.fencing, found.execution_arn) == (
        True,
        second,
        execution_arn("recovery"),
    )


def test_a_takeover_of_a_lock_that_has_changed_hands_is_refused(store: Store) -> None:
    take(store, "first")
    seen = store.lock("web")
    assert seen
    store.release("web", seen.fencing)
    take(store, "second")
    with pytest.raises(LockHeld, match="second"):
        store.take_over(seen, "first", execution_arn("recovery"), START, "roll_back")


def test_a_takeover_whose_answer_was_lost_is_found_again(store: Store) -> None:
    take(store, "first")
    seen = store.lock("web")
    assert seen
    fencing = store.take_over(seen, "first", execution_arn("recovery"), START, "roll_back")
    assert store.take_over(seen, "first", execution_arn("recovery"), START, "roll_back") == fencing


def test_what_a_lock_was_taken_for_is_kept_with_it(store: Store) -> None:
    take(store, "first")
    seen = store.lock("web")
    assert seen
    assert seen.purpose == "deploy"
    store.take_over(seen, "first", execution_arn("undo"), START, "roll_back")
    undone = store.lock("web")
    assert undone
    assert undone.purpose == "roll_back"
    store.take_over(undone, "first", execution_arn("finish"), START, "deploy")
    finished = store.lock("web")
    assert finished
    assert finished.purpose == "deploy"
    store.release("web", finished.fencing)
    fencing = take(store, "second")
    assert (store.lock("web") or finished).purpose == "deploy"
    assert fencing == finished.fencing + 1


def test_a_takeover_of_a_warm_lock_whose_holder_woke_up_is_refused(world: World) -> None:
    """Whoever takes a warm lock does not wait for its holder: then it has to sleep still."""
    plan = planned(world)
    world.store.keep_warm(plan, START + 3600)
    seen = world.lock
    world.store.prove(plan, START + 3600)
    with pytest.raises(LockHeld, match="being deployed by d-1"):
        world.store.take_over(seen, "d-1", execution_arn("undo"), START + 3601, "roll_back")
    assert (world.lock.fencing, world.lock.purpose) == (plan.fencing, "deploy")
    world.store.take_over(world.lock, "d-1", execution_arn("undo"), START + 3601, "roll_back")
    assert world.lock.execution_arn == execution_arn("undo")


def test_a_takeover_of_a_warm_lock_whose_holder_sleeps_on_is_not(world: World) -> None:
    plan = planned(world)
    world.store.keep_warm(plan, START + 3600)
    fencing = world.store.take_over(
        world.lock, "d-1", execution_arn("undo"), START + 60, "roll_back"
    )
    assert (fencing, world.lock.warm) == (plan.fencing + 1, False)


@pytest.mark.parametrize("before", ["d-0", None])
def test_when_one_is_undone_the_one_before_is_the_last_again(
    world: World, before: str | None
) -> None:
    plan = planned(world).model_copy(update={"follows": before})
    assert world.lock.changed_by == "d-1"
    world.store.release("web", plan.fencing - 1, plan)
    assert (world.lock.held, world.lock.changed_by) == (True, "d-1"), "not the holder's"
    world.store.release("web", plan.fencing, plan)
    assert (world.lock.held, world.lock.changed_by) == (False, before)


def test_which_way_a_release_goes_is_decided_once(world: World) -> None:
    store = world.store
    assert store.release_way("r-1", START) is None
    assert store.decide_release("r-1", "undo", START) == "undo"
    assert store.decide_release("r-1", "finish", START + 60) == "undo"
    assert store.release_way("r-1", START + 60) == "undo"
    assert store.release_way("r-2", START + 60) is None


def test_a_release_whose_name_is_used_again_does_not_go_by_what_was_decided_for_the_first(
    world: World,
) -> None:
    """Also when DynamoDB has not come to delete it."""
    store, long_after = world.store, START + 61 * 86_400
    store.decide_release("r-1", "undo", START)
    assert store.release_way("r-1", START + 59 * 86_400) == "undo"
    assert store.release_way("r-1", long_after) is None
    assert store.decide_release("r-1", "finish", long_after) == "finish"
    assert store.decide_release("r-1", "undo", long_after + 60) == "finish"
    assert store.release_way("r-1", long_after + 60) == "finish"


def test_who_finds_what_waits_for_a_release_is_told_so_however_long_that_takes(
    world: World,
) -> None:
    world.store.hold(planned(world), "the-release", START)
    for now in (START, START + 10 * LEASE):
        with pytest.raises(LockHeld) as held:
            take(world.store, "d-2", now)
        assert str(held.value).endswith("; it waits for its release the-release")


def test_a_proof_renews_the_lease(world: World) -> None:
    plan = planned(world)
    world.store.prove(plan, START + 100)
    assert world.lock.lease_expires_at == START + 100 + LEASE


def test_a_lock_is_held_by_the_clock_of_its_lease_even_long_after(world: World) -> None:
    """Nobody took it over: a state that comes late may go on."""
    plan = planned(world)
    world.store.prove(plan, START + 10 * LEASE)
    assert world.lock.held


def test_a_holder_that_was_fenced_off_may_not_go_on(world: World) -> None:
    plan = planned(world)
    world.store.take_over(world.lock, "d-1", execution_arn("recovery"), START, "roll_back")
    store = world.store
    for late in (store.prove, store.claim, store.keep_warm):
        with pytest.raises(LockLost, match="d-1 no longer holds the lock of service web"):
            late(plan, START)
    assert world.lock.execution_arn == execution_arn("recovery")


def test_a_holder_that_gave_its_lock_back_may_not_go_on(world: World) -> None:
    plan = planned(world)
    world.store.release("web", plan.fencing)
    with pytest.raises(LockLost):
        world.store.prove(plan, START)


def test_a_lock_that_is_kept_warm_may_be_taken_by_the_next(world: World) -> None:
    plan = planned(world)
    world.store.keep_warm(plan, START + 3600)
    assert (world.lock.warm, world.lock.lease_expires_at) == (True, START + 3600 + LEASE)
    assert take(world.store, "d-2", START + 10) == plan.fencing + 1
    assert not world.lock.warm
    with pytest.raises(LockLost):
        world.store.prove(plan, START + 20)


def test_a_warm_lock_whose_holder_goes_on_is_no_longer_for_the_next(world: World) -> None:
    plan = planned(world)
    world.store.keep_warm(plan, START + 3600)
    world.store.prove(plan, START + 3600)
    with pytest.raises(LockHeld):
        take(world.store, "d-2", START + 3601)


def test_the_last_deployment_to_change_the_service_is_remembered(world: World) -> None:
    plan = planned(world)
    world.store.release("web", plan.fencing)
    take(world.store, "refused")
    assert world.lock.changed_by == "d-1"


def test_a_deployment_is_noted_once(store: Store) -> None:
    store.open("d-1", "web", execution_arn("d-1"), "then", START)
    store.close("d-1", "refused", "no such image", START, 0)
    store.open("d-1", "web", execution_arn("d-1"), "then", START)
    found = store.read("d-1")
    assert found
    assert (found.phase, found.deployment, found.intents) == ("planning", None, [])
    assert found.outcome == "refused"


def test_the_record_of_an_earlier_execution_of_the_same_name_goes(world: World) -> None:
    """Step Functions lets a name be used again after 90 days: what that one left is not ours."""
    plan = planned(world)
    world.store.intend(plan, {BLUE: 0, GREEN: 100})
    world.store.enter(plan, "committed")
    world.store.close("d-1", "succeeded", "live", START, plan.fencing)
    world.store.open("d-1", "web", execution_arn("d-1"), "90 days later", START)
    found = world.record()
    assert (found.phase, found.deployment, found.intents) == ("planning", None, [])
    assert (found.outcome, found.reason) == (None, None)


def test_the_plan_comes_back_to_the_letter(world: World) -> None:
    plan = planned(world)
    assert world.record().deployment == plan
    assert world.record().phase == "deploying"


def test_intents_are_kept_in_order(world: World) -> None:
    first, second = {BLUE: 90, GREEN: 10}, {BLUE: 0, GREEN: 100}
    plan = planned(world)
    world.store.intend(plan, first)
    world.store.intend(plan, second)
    assert world.record().intents == [first, second]


def test_what_a_fenced_off_holder_still_notes_is_refused(world: World) -> None:
    """A function of the lost execution, past the proof of its lock, comes late."""
    plan = planned(world)
    later = plan.model_copy(update={"fencing": plan.fencing + 1})
    world.store.save_plan(later, "rolling_back")
    with pytest.raises(LockLost, match="another execution has taken deployment d-1 over"):
        world.store.intend(plan, {BLUE: 0, GREEN: 100})
    for phase in ("baking", "committed"):
        with pytest.raises(LockLost):
            world.store.enter(plan, phase)
    assert (world.record().phase, world.record().intents) == ("rolling_back", [])
    world.store.intend(later, {BLUE: 0, GREEN: 100})
    assert world.record().intents == [{BLUE: 0, GREEN: 100}]


def test_nothing_is_noted_of_a_deployment_without_a_plan(world: World) -> None:
    """Its record was replaced: whoever still has the plan of the earlier one may not go on."""
    plan = planned(world)
    world.store.open("d-1", "web", execution_arn("d-1"), "90 days later", START)
    with pytest.raises(LockLost):
        world.store.enter(plan, "committed")
    with pytest.raises(LockLost):
        world.store.intend(plan, {BLUE: 0, GREEN: 100})


@pytest.mark.parametrize("phase", ["deploying", "baking", "committed", "rolling_back"])
def test_how_far_a_deployment_has_come_is_kept_beyond_its_end(world: World, phase: Any) -> None:
    plan = planned(world)
    world.store.enter(plan, phase)
    assert world.record().phase == phase
    world.store.close("d-1", "succeeded", "live", START, plan.fencing)
    assert world.record().phase == phase


def test_how_a_deployment_ended_is_kept(world: World) -> None:
    plan = planned(world)
    assert world.store.close("d-1", "rolled_back", "exit code 1", START, plan.fencing)
    found = world.record()
    assert (found.phase, found.outcome, found.reason) == ("deploying", "rolled_back", "exit code 1")
    assert found.deployment, "the plan is still there, to undo it by hand"


def test_22_an_earlier_holder_does_not_overwrite_how_a_later_one_ended_it(world: World) -> None:
    planned(world)
    world.store.close("d-1", "rolled_back", "by hand", START, 2)
    assert not world.store.close("d-1", "succeeded", "drained", START + 9, 1)
    assert (world.record().outcome, world.record().reason) == ("rolled_back", "by hand")


def test_a_later_holder_says_how_it_ended_in_the_end(world: World) -> None:
    planned(world)
    world.store.close("d-1", "rollback_incomplete", "0 of 2 healthy", START, 1)
    assert world.store.close("d-1", "rolled_back", "all as before", START + 9, 2)
    assert world.record().outcome == "rolled_back"


def test_a_request_that_was_never_one_leaves_no_record(store: Store) -> None:
    assert not store.close("typo", "refused", "no such service", START, 0)
    assert store.read("typo") is None
    assert items() == []
