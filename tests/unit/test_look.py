"""One look at many places: do they agree, which differ, which stands for all on the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.color import Color
from bluegreen.errors import DeploymentRefused, TrafficChanged
from bluegreen.look import (
    LOOK_SECONDS,
    Asked,
    agreed,
    asked_before,
    differing,
    farthest,
    without_question,
)
from bluegreen.traffic import Weights

BLUE, GREEN = Color.BLUE, Color.GREEN
OLD: Weights = {BLUE: 100, GREEN: 0}
CANARY: Weights = {BLUE: 90, GREEN: 10}
NEW: Weights = {BLUE: 0, GREEN: 100}
FOREIGN: Weights = {BLUE: 30, GREEN: 70}
NOTHING: Weights = {BLUE: 0, GREEN: 0}


def test_hosts_that_agree_are_as_good_as_one_place() -> None:
    assert agreed({"i-1": OLD, "i-2": dict(OLD), "i-3": dict(OLD)}) == OLD


def test_a_deployment_does_not_start_from_hosts_that_disagree() -> None:
    with pytest.raises(DeploymentRefused) as refused:
        agreed({"i-1": OLD, "i-2": NEW, "i-3": OLD})
    assert str(refused.value) == (
        "the hosts do not agree on the traffic: blue 100, green 0 on 2 of them, such as i-1; "
        "blue 0, green 100 on 1 of them, such as i-2. Terminate those that are wrong, or roll back "
        "the deployment that left it so"
    )


def test_the_hosts_that_are_late_are_named() -> None:
    assert differing({"i-1": NEW, "i-2": OLD, "i-3": NEW, "i-4": OLD}, NEW, [OLD]) == ["i-2", "i-4"]
    assert differing({"i-1": NEW, "i-2": NEW}, NEW, [OLD]) == []
    assert differing({}, NEW, [OLD]) == []


def test_05_weights_of_somebody_else_are_named_with_their_place() -> None:
    with pytest.raises(TrafficChanged) as changed:
        differing({"i-1": NEW, "i-2": FOREIGN}, NEW, [CANARY, OLD])
    assert str(changed.value) == (
        "the traffic was changed by somebody else: found blue 30, green 70 on i-2, expected "
        "blue 0, green 100 or blue 90, green 10 or blue 100, green 0; it is left as it is"
    )


def test_05_a_place_that_is_never_late_has_the_wanted_weights_or_somebody_elses() -> None:
    with pytest.raises(TrafficChanged):
        differing({"the listener": OLD}, NEW, [])


@pytest.mark.parametrize(
    ("places", "stands_for_all"),
    [
        ([OLD, OLD, OLD], OLD),
        ([OLD, NEW, OLD], NEW),
        ([NEW, NEW, NEW], NEW),
        ([OLD, CANARY, NEW], CANARY),
        ([NEW, FOREIGN, OLD], FOREIGN),
        ([OLD, NOTHING, OLD], NOTHING),
        ([], OLD),
    ],
    ids=str,
)
def test_15_on_the_way_back_one_host_that_is_not_back_stands_for_all(
    places: list[Weights], stands_for_all: Weights
) -> None:
    by_host = {f"i-{number}": weights for number, weights in enumerate(places)}
    assert farthest(by_host, OLD, [CANARY, NEW]) == stands_for_all


some_weights = st.sampled_from([OLD, CANARY, NEW, FOREIGN, NOTHING])
some_places = st.dictionaries(st.sampled_from(["i-1", "i-2", "i-3", "i-4"]), some_weights)


@given(some_places)
def test_15_it_is_back_only_when_every_host_is(places: dict[str, Weights]) -> None:
    is_back = farthest(places, OLD, [CANARY, NEW]) == OLD
    assert is_back == all(weights == OLD for weights in places.values())


@given(some_places)
def test_05_no_host_hides_somebody_elses_weights_on_another_one(
    places: dict[str, Weights],
) -> None:
    found = farthest(places, OLD, [CANARY, NEW])
    foreign = any(weights in (FOREIGN, NOTHING) for weights in places.values())
    assert (found in (FOREIGN, NOTHING)) == foreign


@given(some_places, some_weights)
def test_05_every_place_has_what_is_wanted_is_late_or_stops_it(
    places: dict[str, Weights], wanted: Weights
) -> None:
    try:
        late = differing(places, wanted, [OLD])
    except TrafficChanged:
        assert any(weights not in (wanted, OLD) for weights in places.values())
    else:
        assert {place for place, weights in places.items() if weights != wanted} == set(late)
        assert all(places[place] == OLD for place in late)


def test_what_was_asked_is_carried_to_the_next_pass_beside_the_progress() -> None:
    asked = Asked(["c-1", "c-2"], 1000.0)
    waiting = asked.waiting({"since": 900.0, "status": "waiting", "wait_seconds": 300}, 1000.0)
    assert waiting == {
        "since": 900.0,
        "status": "waiting",
        "reason": "the hosts are being asked",
        "asked": {"commands": ["c-1", "c-2"], "at": 1000.0},
        "wait_seconds": 1,
    }
    assert asked_before(waiting) == asked
    assert asked_before(without_question(waiting)) is None
    assert without_question(waiting)["since"] == 900.0


def test_a_look_that_takes_long_is_asked_about_less_often_but_not_past_its_end() -> None:
    asked = Asked(["c-1"], 1000.0)
    waits = [asked.waiting({}, 1000.0 + late)["wait_seconds"] for late in (0, 1.2, 4.3, 9.5, 40)]
    assert waits == [1, 3, LOOK_SECONDS - 4, 1, 1]
