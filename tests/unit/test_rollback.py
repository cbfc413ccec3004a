"""Undoing a deployment, one step at a time, from any state that it may have left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.color import Color
from bluegreen.rollback import Decision, Facts, next_step
from bluegreen.traffic import Weights

BLUE, GREEN = Color.BLUE, Color.GREEN
BEFORE: Weights = {BLUE: 100, GREEN: 0}
OURS: Weights = {BLUE: 0, GREEN: 100}
FOREIGN: Weights = {BLUE: 30, GREEN: 70}
DEADLINE = 900.0

SWITCHED = Facts(
    traffic=OURS,
    snapshot=BEFORE,
    ours=[OURS],
    old_wanted=2,
    old_targets=2,
    old_least=2,
    old_desired=2,
    old_healthy=2,
    new_healthy=2,
    new_weight=100,
    settled=False,
    services_restored=False,
    deadline=DEADLINE,
)
BACK = replace(SWITCHED, traffic=BEFORE, new_healthy=0, new_weight=0, settled=True)


def step(facts: Facts, now: float = 0.0) -> str:
    return next_step(facts, now).step


def test_traffic_goes_back_at_once_while_the_old_colour_is_healthy() -> None:
    assert next_step(SWITCHED, 0) == Decision(
        "restore_traffic", "traffic back to blue 100, green 0"
    )


def test_15_an_old_colour_that_was_drained_is_started_before_it_gets_traffic() -> None:
    drained = replace(SWITCHED, old_desired=0, old_healthy=0)
    assert next_step(drained, 0) == Decision("start_old", "starting 2 tasks of the old colour")


def test_15_an_old_colour_that_starts_is_waited_for() -> None:
    found = next_step(replace(SWITCHED, old_healthy=1), 0)
    assert found == Decision("wait", "1 of 2 targets of the old colour healthy")


def test_15_targets_of_an_old_colour_that_drains_are_kept() -> None:
    drains = replace(SWITCHED, old_healthy=0, old_leaving=2)
    assert next_step(drains, 0) == Decision("register_old", "2 targets of the old colour stay")


def test_15_an_old_colour_without_targets_is_started_anew() -> None:
    gone = replace(SWITCHED, old_healthy=0, old_deregistered=True)
    assert step(gone) == "stop_old"
    assert step(replace(gone, old_desired=0)) == "start_old"


@pytest.mark.parametrize("new_healthy", [0, 1, 2])
def test_15_no_traffic_is_sent_to_a_colour_without_a_healthy_target(new_healthy: int) -> None:
    without = replace(SWITCHED, old_healthy=0, new_healthy=new_healthy)
    assert step(without) == "wait"
    found = next_step(without, DEADLINE)
    assert found == Decision("fail", "0 of 2 targets of the old colour healthy")


@pytest.mark.parametrize(
    ("old_healthy", "new_healthy", "moves"),
    [
        (1, 0, True),
        (1, 1, False),
        (1, 2, False),
        (2, 1, True),
        (2, 9, True),  # all that are wanted of it
    ],
)
def test_15_traffic_goes_back_to_all_of_the_old_colour_or_to_the_better_one(
    old_healthy: int, new_healthy: int, moves: bool
) -> None:
    """Also at the deadline: going back to fewer healthy targets would make things worse."""
    facts = replace(SWITCHED, old_healthy=old_healthy, new_healthy=new_healthy)
    assert step(facts) == ("restore_traffic" if moves else "wait")
    assert step(facts, DEADLINE) == ("restore_traffic" if moves else "fail")


def test_15_an_old_colour_that_has_the_traffic_back_is_looked_at_before_the_new_one_ends() -> None:
    """Traffic is as before already; what it goes to may be stopped, or ill."""
    ill = replace(BACK, old_healthy=0, new_healthy=2)
    assert step(replace(ill, old_desired=0)) == "start_old"
    assert next_step(ill, 0) == Decision("wait", "0 of 2 targets of the old colour healthy")
    assert step(ill, DEADLINE) == "fail"
    assert step(replace(ill, services_restored=True), DEADLINE) == "fail"
    assert step(replace(ill, old_healthy=2)) == "restore_services"


def test_traffic_that_never_moved_asks_nothing_of_the_old_colour() -> None:
    """The deployment has not touched it, and its health is not what failed."""
    untouched = replace(
        BACK, old_wanted=0, old_targets=0, old_desired=0, old_healthy=0, new_healthy=2
    )
    assert step(untouched) == "restore_services"


def test_15_the_new_colour_stays_until_no_request_can_be_on_its_way_to_it() -> None:
    assert step(replace(BACK, settled=False)) == "wait"
    assert step(replace(BACK, settled=False), DEADLINE - 0.1) == "wait"


def test_15_a_load_balancer_that_never_follows_is_an_error_and_the_new_colour_stays() -> None:
    found = next_step(replace(BACK, settled=False), DEADLINE)
    assert found == Decision("fail", "the load balancer does not follow the restored weights")


def test_15_then_the_services_are_put_back() -> None:
    assert step(BACK) == "restore_services"


def test_all_as_before_is_the_end_at_any_time() -> None:
    restored = replace(BACK, services_restored=True)
    assert next_step(restored, 0) == Decision("done", "all as before: blue 100, green 0")
    assert step(restored, 10 * DEADLINE) == "done"


def test_services_that_do_not_come_back_are_an_error_at_the_deadline() -> None:
    assert step(BACK, DEADLINE) == "fail"


def test_05_weights_of_somebody_else_are_left_as_they_are() -> None:
    taken = replace(SWITCHED, traffic=FOREIGN, new_weight=70)
    found = next_step(taken, 0)
    assert found.step == "done"
    assert "changed by somebody else (blue 30, green 70)" in found.reason
    assert "stays up" in found.reason


def test_05_a_new_colour_that_somebody_else_took_out_is_stopped_once_quiet() -> None:
    taken = replace(SWITCHED, traffic={BLUE: 50, GREEN: 0}, new_weight=0)
    assert step(taken) == "wait"
    assert step(replace(taken, settled=True)) == "leave_traffic"
    assert step(replace(taken, settled=True, services_restored=True)) == "done"


def test_05_services_that_do_not_come_back_beside_foreign_weights_are_an_error_too() -> None:
    """Or the rollback would look again every second until its execution's history is full."""
    taken = replace(SWITCHED, traffic={BLUE: 50, GREEN: 0}, new_weight=0, settled=True)
    assert step(taken, DEADLINE) == "fail"


def test_every_set_of_weights_that_the_deployment_meant_to_write_is_its_own() -> None:
    canary: Weights = {BLUE: 90, GREEN: 10}
    assert step(replace(SWITCHED, traffic=canary, ours=[canary, OURS])) == "restore_traffic"
    assert step(replace(SWITCHED, traffic=canary, ours=[OURS])) == "done"


def test_the_very_first_deployment_has_no_old_colour_to_wait_for() -> None:
    nothing: Weights = {BLUE: 0, GREEN: 0}
    first = replace(
        SWITCHED, snapshot=nothing, old_wanted=0, old_targets=0, old_desired=0, old_healthy=0
    )
    assert step(first) == "restore_traffic"


# Hosts: some do not say what they do, some refuse, and all may have a switch before them

UNKNOWN = "host i-2 does not say what it does: SSM says DeliveryTimedOut"


def test_17_a_host_that_does_not_say_is_waited_for_and_named_at_the_deadline() -> None:
    silent = replace(BACK, unknown=UNKNOWN)
    assert next_step(silent, 0) == Decision("wait", UNKNOWN)
    assert next_step(silent, DEADLINE - 0.1).step == "wait"
    assert next_step(silent, DEADLINE) == Decision("fail", UNKNOWN)


def test_17_the_others_go_back_though_one_host_does_not_say() -> None:
    assert step(replace(SWITCHED, unknown=UNKNOWN)) == "restore_traffic"


def test_15_the_new_colour_is_not_stopped_while_a_host_may_still_send_to_it() -> None:
    for settled in (True, False):
        for restored in (True, False):
            silent = replace(BACK, unknown=UNKNOWN, settled=settled, services_restored=restored)
            assert step(silent) == "wait"


def test_15_a_host_that_refused_is_told_again_and_named_at_the_deadline() -> None:
    refused = replace(SWITCHED, refused="host i-2: too late by 3 s")
    assert step(refused, DEADLINE - 0.1) == "restore_traffic"
    assert next_step(refused, DEADLINE) == Decision(
        "fail", "the traffic does not go back: host i-2: too late by 3 s"
    )
    # One that has gone back by another way (its proxy was restarted, say) has gone back.
    assert step(replace(BACK, refused="host i-2: too late by 3 s")) == "restore_services"


def test_15_hosts_that_wait_for_the_moment_of_the_switch_are_told_to_stay() -> None:
    """The weights are as before on all of them, until that moment comes."""
    pending = replace(BACK, told=False)
    assert next_step(pending, 0) == Decision(
        "restore_traffic", "traffic stays at blue 100, green 0"
    )
    for more in (
        {"unknown": UNKNOWN},
        {"old_desired": 0, "old_healthy": 0},
        {"services_restored": True},
    ):
        assert step(replace(pending, **more)) == "restore_traffic"


def test_05_foreign_weights_are_left_though_the_hosts_were_not_told() -> None:
    assert step(replace(SWITCHED, traffic=FOREIGN, new_weight=70, told=False)) == "done"


def test_17_hosts_on_which_no_colour_could_answer_are_no_reason_to_wait() -> None:
    """Three tasks are wanted; two hosts can show a healthy target."""
    crashed = replace(SWITCHED, old_wanted=3, old_targets=2, old_desired=3, old_healthy=2)
    assert step(replace(crashed, new_healthy=2)) == "restore_traffic"
    found = next_step(replace(crashed, old_healthy=1), 0)
    assert found.reason == "1 of 2 targets of the old colour healthy"


def test_15_an_old_colour_with_fewer_tasks_than_the_new_one_is_waited_for() -> None:
    """With dynamic ports a host is one healthy target, with one task of many too."""
    few = replace(SWITCHED, old_starting=True)
    found = next_step(few, DEADLINE - 0.1)
    assert found == Decision("wait", "the old colour has fewer tasks than the new one")
    assert step(few, DEADLINE) == "restore_traffic"
    assert step(replace(few, old_desired=0)) == "start_old"


def test_15_what_had_all_the_traffic_before_has_to_do_in_the_end() -> None:
    """The new colour has scaled out and taken the place that more of the old one would need."""
    grown = replace(SWITCHED, old_wanted=3, old_targets=3, old_desired=3, new_healthy=3)
    assert next_step(grown, DEADLINE - 0.1) == Decision(
        "wait", "2 of 3 targets of the old colour healthy"
    )
    assert step(grown, DEADLINE) == "restore_traffic"
    back = replace(grown, traffic=BEFORE, new_weight=0, settled=True)
    assert step(back) == "restore_services", "what takes the place ends"
    assert step(replace(grown, old_healthy=1), DEADLINE) == "fail"
    assert step(replace(grown, old_least=0), DEADLINE) == "fail"


def test_15_an_old_colour_that_was_down_and_is_gets_no_traffic() -> None:
    """The new one mends an outage; going back would be the next one."""
    down = replace(
        SWITCHED, old_was_down=True, old_wanted=0, old_targets=0, old_least=0, old_healthy=0
    )
    assert next_step(down, 0) == Decision(
        "keep_new",
        "the old colour had no task when the deployment began, and has none now; "
        "the new colour keeps its traffic and stays up",
    )
    assert step(replace(down, migrating=True)) == "wait"
    for more in ({"old_healthy": 1}, {"new_healthy": 0}, {"old_was_down": False}):
        assert step(replace(down, **more)) == "restore_traffic"
    assert step(replace(down, traffic=BEFORE, new_weight=0, settled=True)) == "restore_services"


@dataclass
class World:
    """Two colours that do what they are told, slowly; perhaps another hand on the traffic."""

    traffic: Weights
    old_desired: int
    old_healthy: int
    starts: bool
    stops: bool
    lag: float
    restored: bool
    new_healthy: int
    other_hand_at: float
    now: float = 0.0
    back_since: float | None = None
    start_called: float | None = None
    foreign: bool = False
    log: list[str] = field(default_factory=list)

    def facts(self) -> Facts:
        as_before = self.traffic == BEFORE
        if as_before and self.back_since is None:
            self.back_since = self.now
        return Facts(
            traffic=self.traffic,
            snapshot=BEFORE,
            ours=[OURS],
            old_wanted=2,
            old_targets=2,
            old_least=2,
            old_desired=self.old_desired,
            old_healthy=self.old_healthy,
            new_healthy=0 if self.restored else self.new_healthy,
            new_weight=self.traffic.get(GREEN, 0),
            settled=self.now >= (self.back_since or 0.0) + self.lag,
            services_restored=self.restored,
            deadline=(self.back_since or 0.0) + self.lag + DEADLINE if as_before else DEADLINE,
        )

    def run(self) -> str:
        while self.now < 20_000:
            self._moves()
            found = next_step(self.facts(), self.now).step
            self.log.append(found)
            match found:
                case "done" | "fail":
                    return found
                case "start_old":
                    self.old_desired, self.start_called = 2, self.now
                case "restore_traffic":
                    assert not self.foreign, "somebody else's weights are overwritten"
                    assert self.old_healthy > 0, "traffic to a colour without a healthy target"
                    assert self.old_healthy == 2 or self.old_healthy > self.new_healthy, (
                        "traffic from the better colour to the worse one"
                    )
                    self.traffic = BEFORE
                case "restore_services" | "leave_traffic":
                    assert self.traffic.get(GREEN, 0) == 0, "a colour under traffic is stopped"
                    if self.traffic == BEFORE:
                        assert self.old_healthy > 0, "the last healthy colour is stopped"
                    self.restored = self.stops
                case "wait":
                    pass
            self.now += 10
        return "never"

    def _moves(self) -> None:
        """What happens meanwhile, whatever the rollback does."""
        if self.now >= self.other_hand_at and not self.foreign:
            self.foreign, self.traffic = True, dict(FOREIGN)
        wanted = self.starts and self.old_desired == 2
        if wanted and self.now >= (self.start_called or 0.0) + 30:
            self.old_healthy = 2


@given(
    st.builds(
        World,
        traffic=st.sampled_from([BEFORE, OURS, FOREIGN, {BLUE: 50, GREEN: 0}, {BLUE: 0, GREEN: 0}]),
        old_desired=st.integers(0, 2),
        old_healthy=st.integers(0, 2),
        starts=st.booleans(),
        stops=st.booleans(),
        lag=st.sampled_from([0.0, 20.0, 300.0]),
        restored=st.booleans(),
        new_healthy=st.integers(0, 3),
        other_hand_at=st.sampled_from([0.0, 20.0, 40.0, 1e9, 1e9, 1e9]),
    )
)
def test_15_from_any_state_it_ends_and_no_step_makes_it_worse(world: World) -> None:
    start = dict(world.traffic)
    end = world.run()
    assert end in ("done", "fail"), f"{end}: …{world.log[-3:]}"
    if end == "done" and not world.foreign:
        ours = start in (BEFORE, OURS)
        assert world.traffic == (BEFORE if ours else start)
        assert world.restored or world.traffic.get(GREEN, 0) > 0


@pytest.mark.parametrize(
    "start", [BEFORE, OURS], ids=["traffic never moved", "traffic on the new colour"]
)
def test_15_a_world_that_obeys_ends_exactly_as_it_was(start: Weights) -> None:
    world = World(
        traffic=start,
        old_desired=0 if start == OURS else 2,
        old_healthy=0 if start == OURS else 2,
        starts=True,
        stops=True,
        lag=20,
        restored=False,
        new_healthy=2,
        other_hand_at=1e9,
    )
    assert world.run() == "done"
    assert (world.traffic, world.restored, world.old_healthy) == (BEFORE, True, 2)
