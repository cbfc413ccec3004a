"""The item that keeps what pushes have asked for: of two writers at once, one has to look again."""

from __future__ import annotations

from bluegreen import pushes
from bluegreen.pushes import NeverStarted, Newest, Pushes, Wish
from runtime import clients
from tests.functions.world import TABLE, World

WISH = Wish(
    id="web-0123456789ab-1",
    images={"web": "web@sha256:1"},
    tag="v1",
    kind="push",
    event_id="e-1",
    pushed_at=10.0,
    asked_at=11.0,
    slack="deployments",
)
ASKED = Pushes(
    service="web",
    number=1,
    waiting=WISH,
    newest={"1/r/web": Newest(tag="v1", digest="sha256:1", pushed_at=1.5, image_pushed_at=1.0)},
    digests=["sha256:1"],
    superseded=[NeverStarted(wish=WISH, by="", reason="why")],
)


def read() -> tuple[Pushes, int]:
    return pushes.read(clients.dynamodb(), TABLE, "web")


def write(changed: Pushes, version: int) -> bool:
    return pushes.write(clients.dynamodb(), TABLE, changed, version)


def test_a_service_that_nobody_pushed_to_has_asked_for_nothing(world: World) -> None:
    assert world.now
    assert read() == (Pushes(service="web"), 0)


def test_what_is_written_is_read_back(world: World) -> None:
    assert world.now
    assert write(ASKED, 0)
    assert read() == (ASKED, 1)
    later = ASKED.model_copy(update={"number": 2})
    assert write(later, 1)
    assert read() == (later, 2)


def test_20_of_two_that_have_read_the_same_one_writes(world: World) -> None:
    assert world.now
    assert write(ASKED, 0)
    assert not write(ASKED.model_copy(update={"number": 7}), 0)
    assert write(ASKED.model_copy(update={"number": 2}), 1)
    assert not write(ASKED.model_copy(update={"number": 3}), 1)
    assert read()[0].number == 2


def test_a_write_whose_answer_was_lost_is_found_at_the_next_look(world: World) -> None:
    world.fault("dynamodb", "PutItem", "lost_answer")
    assert not write(ASKED, 0)
    assert read() == (ASKED, 1)


def test_the_item_is_no_deployment(world: World) -> None:
    write(ASKED, 0)
    assert world.store.history("web", since=0.0, until=2e9, limit=10) == []
    assert world.store.held_locks() == []
