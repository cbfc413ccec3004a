"""ShiftTraffic and CheckBake in several steps: each one is proved, watched, and can be undone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bluegreen.errors import BakeFailed, IdleColorUnhealthy, SwitchNotProved, TrafficChanged
from bluegreen.store import Watch
from tests.functions.site import Site
from tests.functions.watched import Watched
from tests.functions.world import BLUE, GREEN, START, World

CANARY = {"type": "canary", "percent": 10, "seconds": 30}
TENTH = {BLUE: 90, GREEN: 10}
ALL = {BLUE: 0, GREEN: 100}
NONE = {BLUE: 100, GREEN: 0}


@pytest.fixture
def watched(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with Watched(world, monkeypatch) as made:
        yield made


@pytest.fixture
def data(world: World, site: Site) -> dict[str, Any]:
    """A tenth of the traffic on green, just now; both answer."""
    return canary(world, site)


def canary(world: World, site: Site, **sections: Any) -> dict[str, Any]:
    world.configure(strategy=CANARY, **sections)
    data = world.started()
    site.serve(data)
    site.colors = ["blue"] * 7 + ["green"]
    step(world, data)
    return data


def step(world: World, data: dict[str, Any]) -> dict[str, Any]:
    data["shift"] = world.run("shift_traffic", data)
    answer: dict[str, Any] = data["shift"]
    return answer


def bake(world: World, data: dict[str, Any]) -> dict[str, Any]:
    data["shift"] = world.run("check_bake", data)
    answer: dict[str, Any] = data["shift"]
    return answer


def second_step(world: World, data: dict[str, Any], site: Site) -> dict[str, Any]:
    """Prove and watch the first step to its end, and take the next one."""
    world.now += 20
    assert bake(world, data)["proved_at"] == world.now
    world.now += 30
    assert bake(world, data)["status"] == "next_step"
    site.colors = ["green"]
    return step(world, data)


def test_12_an_old_colour_that_scales_out_is_followed_before_it_loses_the_rest(
    world: World, data: dict[str, Any], site: Site
) -> None:
    world.scale(BLUE, 5)
    answer = bake(world, data)
    assert (answer["status"], answer["reason"]) == (
        "outgrown",
        "5 tasks are needed by now, green has 2",
    )
    data["idle"] = world.run("start_idle_color", data)
    assert world.service(GREEN)["desiredCount"] == 5
    assert bake(world, data)["status"] == "waiting", "three tasks are missing"
    for _ in range(3):
        world.add_task(GREEN, started_by=data["idle"]["ecs_deployment_id"])
    world.health[GREEN] = ["healthy"] * 5
    second_step(world, data, site)
    world.scale(BLUE, 9)
    assert bake(world, data)["status"] == "waiting", "it has no traffic to hand over"


def test_a_part_of_the_traffic_is_proved_and_watched_before_the_rest_follows(
    world: World, data: dict[str, Any], site: Site
) -> None:
    assert world.weights() == TENTH
    assert (data["shift"]["step"], data["shift"]["percent"]) == (0, 10)
    world.now += 19
    assert bake(world, data)["reason"] == "the switch does not show yet"
    world.now += 1
    answer = bake(world, data)
    assert (answer["proved_at"], answer["reason"]) == (START + 20, "baking for another 30 s")
    assert world.record().phase == "baking"
    world.now += 30
    answer = bake(world, data)
    assert (answer["status"], answer["step"], answer["percent"]) == ("next_step", 1, 10)
    assert world.weights() == TENTH
    site.colors = ["green"]
    answer = step(world, data)
    assert world.weights() == ALL
    assert answer["began_at"] == START
    assert (answer["shifted_at"], answer["proved_at"]) == (START + 50, None)
    answer = bake(world, data)
    assert (answer["proved_at"], answer["reason"]) == (START + 50, "baking for another 60 s")
    world.now += 60
    assert bake(world, data)["status"] == "baked"
    assert world.record().phase == "committed"
    assert world.record().intents == [TENTH, ALL]


def test_linear_steps_grow_to_all_of_the_traffic(world: World) -> None:
    world.configure(
        strategy={"type": "linear", "percent": 40, "seconds": 5}, probe=None, bake={"seconds": 0}
    )
    data = world.started()
    found = []
    for _ in range(3):
        step(world, data)
        found.append(world.weights()[GREEN])
        world.now += 20
        while bake(world, data)["status"] == "waiting":
            world.now += data["shift"]["wait_seconds"]
    assert found == [40, 80, 100]
    assert data["shift"]["status"] == "baked"
    assert world.now == START + 3 * 20 + 2 * 5


def test_without_a_bake_all_of_the_traffic_moves_at_once(world: World, site: Site) -> None:
    world.configure(strategy=CANARY, bake={"seconds": 600})
    data = world.started()
    data["deployment"]["configuration"]["bake"]["alarms"] = ["gone"]
    data["deployment"]["skip_bake"] = True
    site.serve(data)
    step(world, data)
    assert world.weights() == ALL
    assert bake(world, data)["status"] == "baked"


def test_01_a_load_balancer_that_gives_the_new_colour_nothing_is_not_believed(
    world: World, data: dict[str, Any], site: Site
) -> None:
    site.colors = ["blue"]
    world.now += 59
    assert bake(world, data)["proved_at"] is None
    assert len(site.asked) == 100, "a tenth of them would be ten"
    world.now += 1
    with pytest.raises(SwitchNotProved, match=r"blue 90, green 10, but 60 s.*green in none of 200"):
        bake(world, data)


def test_01_a_probe_that_asks_for_few_in_a_row_still_asks_until_chance_hides_no_colour(
    world: World, site: Site
) -> None:
    data = canary(world, site, probe={"consecutive": 3})
    site.colors = ["blue"] * 80 + ["green"]
    world.now += 20
    assert bake(world, data)["proved_at"] == world.now


def test_01_a_load_balancer_that_gives_the_new_colour_everything_is_not_believed(
    world: World, data: dict[str, Any], site: Site
) -> None:
    site.colors = ["green"]
    world.now += 60
    with pytest.raises(SwitchNotProved, match=r"blue in none of 100 answers$"):
        bake(world, data)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer takes a second, so a look has time for 12 of the 100 that it takes."""
    seconds = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr("bluegreen.probe.time", seconds)


@pytest.mark.usefixtures("slow")
def test_01_a_colour_that_was_not_seen_in_time_is_looked_for_on(
    world: World, data: dict[str, Any], site: Site
) -> None:
    site.colors = ["blue"] * 12 + ["green"]
    world.now += 20
    answer = bake(world, data)
    assert (answer["status"], answer["proved_at"]) == ("waiting", None)
    assert answer["seen"] == {"colors": ["blue"], "answers": 12}
    answer = bake(world, data)
    assert answer["proved_at"] == world.now, "what was seen before counts"
    assert "seen" not in answer


@pytest.mark.usefixtures("slow")
def test_01_a_colour_that_was_never_seen_is_not_proved_and_the_reason_says_why(
    world: World, data: dict[str, Any], site: Site
) -> None:
    site.colors = ["blue"]
    world.now += 20
    bake(world, data)
    world.now += 40
    with pytest.raises(SwitchNotProved) as raised:
        bake(world, data)
    assert str(raised.value).endswith(
        "green in none of 24 answers, and it takes 100 to tell that from chance: make probe.path "
        "faster, probe.timeout_seconds longer or the step bigger"
    )


@pytest.mark.usefixtures("slow")
def test_01_what_was_seen_of_one_step_is_none_of_the_next(
    world: World, data: dict[str, Any], site: Site
) -> None:
    site.colors = ["blue"] * 12
    world.now += 20
    assert bake(world, data)["seen"]["colors"] == ["blue"]
    site.colors = ["green", "blue"]
    bake(world, data)
    world.now += 30
    assert bake(world, data)["status"] == "next_step"
    assert "seen" not in step(world, data)


def test_01_the_proof_of_one_step_is_none_of_the_next(
    world: World, data: dict[str, Any], site: Site
) -> None:
    """A rollback that took the switch for seen would believe the first answers of blue."""
    second_step(world, data, site)
    assert world.record().phase == "deploying"
    site.colors = ["blue"]
    assert bake(world, data)["proved_at"] is None
    assert world.record().phase == "deploying"


def test_an_old_colour_that_does_not_know_the_probe_yet_is_seen_all_the_same(
    world: World, data: dict[str, Any], site: Site
) -> None:
    data["deployment"]["configuration"]["probe"]["value"] = "{digest}"
    digest = data["deployment"]["images"]["web"].partition("@")[2]
    site.colors = ["", digest]
    world.now += 20
    assert bake(world, data)["proved_at"] == world.now


@pytest.mark.parametrize("weights", [NONE, ALL, {BLUE: 50, GREEN: 50}], ids=str)
def test_05_other_weights_in_the_middle_stop_it_and_are_left(
    world: World, data: dict[str, Any], weights: Any
) -> None:
    world.set_weights(weights)
    with pytest.raises(TrafficChanged, match="expected blue 90, green 10; it is left as it is"):
        bake(world, data)
    assert world.weights() == weights


def test_05_the_weights_of_an_earlier_step_are_somebody_elses_by_the_next(
    world: World, data: dict[str, Any]
) -> None:
    world.now += 20
    bake(world, data)
    world.now += 30
    assert bake(world, data)["status"] == "next_step"
    world.set_weights(NONE)
    with pytest.raises(TrafficChanged):
        step(world, data)
    assert world.weights() == NONE


@pytest.mark.parametrize("steps", [1, 2])
def test_15_every_step_is_undone_to_what_was_before_the_first(
    world: World, data: dict[str, Any], site: Site, steps: int
) -> None:
    if steps == 2:
        second_step(world, data, site)
    site.colors = ["blue"]
    for _ in range(300):
        data["rollback"] = world.run("roll_back", data)
        if world.service(GREEN)["desiredCount"] == 0:
            world.health[GREEN] = []
            for task in world.backend.tasks["web"].values():
                task.last_status = "STOPPED"
        if data["rollback"]["status"] == "restored":
            break
        world.now += data["rollback"]["wait_seconds"]
    assert data["rollback"]["status"] == "restored"
    assert data["rollback"]["as_before"]
    assert world.weights() == NONE


# Hooks, promotion, what people are told


def test_after_each_shift_the_hooks_are_asked_once_it_is_proved(
    world: World, data: dict[str, Any], site: Site
) -> None:
    data["deployment"]["gates"]["after_shift"] = True
    assert bake(world, data)["status"] == "waiting"
    world.now += 20
    answer = bake(world, data)
    assert (answer["status"], answer["proved_at"]) == ("proved", world.now)
    data["hooks"] = {"point": "after_shift", "step": 0, "status": "waiting"}
    assert bake(world, data)["status"] == "proved"
    data["hooks"]["status"] = "done"
    assert bake(world, data)["reason"] == "baking for another 30 s"
    world.now += 30
    assert bake(world, data)["status"] == "next_step"
    site.colors = ["green"]
    step(world, data)
    assert bake(world, data)["status"] == "proved", "these were the hooks of the step before"


def proved_and_asked(world: World, data: dict[str, Any], point: str) -> None:
    """A tenth of the traffic is on green, and the hooks of a point say that they are busy."""
    data["deployment"]["gates"][point] = True
    world.now += 20
    if point == "after_shift":
        assert bake(world, data)["status"] == "proved"
        data["hooks"] = {"point": point, "step": 0, "status": "waiting"}
    else:
        bake(world, data)
        world.now += 30
        assert bake(world, data)["status"] == "before_next"
        data["hooks"] = {"point": point, "step": 1, "status": "waiting"}
    world.now += 60


POINTS = ["after_shift", "before_shift"]


@pytest.mark.parametrize("point", POINTS)
def test_06_an_alarm_while_hooks_are_asked_takes_the_traffic_back(
    world: World, data: dict[str, Any], watched: Watched, point: str
) -> None:
    watched.has_alarm("web-5xx")
    data["deployment"]["configuration"]["bake"]["alarms"] = ["web-5xx"]
    proved_and_asked(world, data, point)
    watched.alarm_is("ALARM")
    with pytest.raises(BakeFailed, match=r"with 10 % of the traffic on green: .*web-5xx"):
        bake(world, data)


@pytest.mark.parametrize("point", POINTS)
def test_06_a_colour_that_dies_while_hooks_are_asked_takes_the_traffic_back(
    world: World, data: dict[str, Any], point: str
) -> None:
    proved_and_asked(world, data, point)
    world.health[GREEN] = ["unhealthy", "unhealthy"]
    with pytest.raises(IdleColorUnhealthy, match="no healthy target is left under traffic"):
        bake(world, data)


@pytest.mark.parametrize("point", POINTS)
def test_21_what_cannot_be_read_while_hooks_are_asked_counts_as_bad_in_the_end(
    world: World, data: dict[str, Any], watched: Watched, point: str
) -> None:
    watched.has_alarm("web-5xx")
    data["deployment"]["configuration"]["bake"] |= {"alarms": ["web-5xx"], "unknown_seconds": 30}
    proved_and_asked(world, data, point)
    watched.alarm_is("INSUFFICIENT_DATA")
    bake(world, data)
    world.now += 600
    with pytest.raises(BakeFailed, match="unknown is not OK"):
        bake(world, data)


def test_the_next_step_is_taken_only_once_its_hooks_have_said_yes(
    world: World, data: dict[str, Any]
) -> None:
    data["deployment"]["gates"] |= {"after_shift": True, "before_shift": True}
    data["hooks"] = {"point": "before_shift", "step": 0, "status": "done"}
    world.now += 20
    assert bake(world, data)["status"] == "proved", "those were of the first shift"
    data["hooks"] = {"point": "after_shift", "step": 0, "status": "done"}
    assert bake(world, data)["status"] == "waiting"
    world.now += 30
    answer = bake(world, data)
    assert (answer["status"], answer["step"]) == ("before_next", 0)
    data["hooks"] = {"point": "before_shift", "step": 1, "status": "waiting"}
    answer = bake(world, data)
    assert (answer["status"], answer["step"]) == ("before_next", 0), "nobody is asked twice"
    data["hooks"]["status"] = "done"
    answer = bake(world, data)
    assert (answer["status"], answer["step"]) == ("next_step", 1)


def test_a_colour_that_is_ill_after_the_hooks_before_a_shift_gets_no_more_traffic(
    world: World, data: dict[str, Any]
) -> None:
    proved_and_asked(world, data, "before_shift")
    data["hooks"]["status"] = "done"
    world.health[GREEN] = ["healthy", "initial"]
    answer = bake(world, data)
    assert (answer["status"], answer["step"]) == ("waiting", 0)
    world.health[GREEN] = ["healthy", "healthy"]
    assert bake(world, data)["status"] == "next_step"


def test_the_record_says_where_the_step_is(world: World, data: dict[str, Any], site: Site) -> None:
    data["deployment"]["gates"] |= {"after_shift": True, "before_shift": True}
    assert bake(world, data)["status"] == "waiting"
    assert world.record().watch is None, "it is not proved"
    world.now += 20
    bake(world, data)
    assert world.record().watch == Watch(0, "after_shift")
    data["hooks"] = {"point": "after_shift", "step": 0, "status": "done"}
    bake(world, data)
    assert world.record().watch == Watch(0, "watched")
    world.now += 30
    assert bake(world, data)["status"] == "before_next"
    assert world.record().watch == Watch(0, "over")
    data["hooks"] = {"point": "before_shift", "step": 1, "status": "done"}
    assert bake(world, data)["status"] == "next_step"
    site.colors = ["green"]
    step(world, data)
    data["hooks"] = {"point": "after_shift", "step": 1, "status": "done"}
    bake(world, data)
    assert world.record().watch == Watch(1, "watched")


def test_a_step_that_somebody_promotes_is_not_watched_any_longer_and_the_next_one_is(
    world: World, data: dict[str, Any], site: Site
) -> None:
    world.now += 20
    assert bake(world, data)["status"] == "waiting"
    world.store.promote("d-1", 0, "somebody", world.record().watch)
    assert bake(world, data)["status"] == "next_step"
    site.colors = ["green"]
    step(world, data)
    assert bake(world, data)["reason"] == "baking for another 60 s"
    world.store.promote("d-1", 1, "somebody", world.record().watch)
    assert bake(world, data)["status"] == "baked"


def test_a_promoted_step_still_has_to_be_proved_and_healthy(
    world: World, data: dict[str, Any]
) -> None:
    world.store.promote("d-1", 0, "somebody", world.record().watch)
    assert bake(world, data)["reason"] == "the switch does not show yet"
    world.now += 20
    world.health[GREEN] = ["healthy", "initial"]
    assert bake(world, data)["reason"].startswith("1 of 2 targets healthy")


def test_people_are_told_once_of_each_step(world: World, site: Site, watched: Watched) -> None:
    data = canary(world, site)
    bake(world, data)
    assert watched.told("shifted") == [], "it is not proved"
    second_step(world, data, site)
    bake(world, data)
    bake(world, data)
    told = watched.told("shifted")
    assert [one["step"] for one in told] == ["10", "100"]


def test_a_proof_whose_answer_was_lost_is_told_once(
    world: World, site: Site, watched: Watched
) -> None:
    data = canary(world, site)
    world.now += 20
    world.run("check_bake", data)
    site.colors = ["blue", "green"]
    assert bake(world, data)["proved_at"] == world.now
    assert len(watched.told("shifted")) == 1


def test_a_day_of_small_steps_has_room_in_the_history_of_an_execution(world: World) -> None:
    """20 steps of an hour: 25,000 events are about 2,700 looks, and shifts need some of them."""
    world.configure(strategy={"type": "linear", "percent": 5, "seconds": 3600}, probe=None)
    data = world.started()
    step(world, data)
    world.now += 20
    looks = 1
    while bake(world, data)["status"] == "waiting":
        world.now += data["shift"]["wait_seconds"]
        looks += 1
    assert looks * 20 < 1000
