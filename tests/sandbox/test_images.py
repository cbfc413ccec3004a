"""The image registry: what a push does to tags and digests."""

from __future__ import annotations

import re
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from moto.ecr.exceptions import RepositoryNotFoundException

from sandbox.images import CannotPullError, Images, InvalidImageError
from sandbox.pushes import DeliveryFault, PushEvents
from sandbox.world import World

REGISTRY = "123456789012.dkr.ecr.ap-northeast-1.amazonaws.com"


class Registry:
    """Images in a registry with one repository, ``web``, and the events that were sent."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.repository = SimpleNamespace(name="web", images=[])
        ecr = SimpleNamespace(repositories={"web": self.repository})
        world = SimpleNamespace(
            account_id="123456789012",
            region="ap-northeast-1",
            backend=lambda _: ecr,
            publish=self.events.append,
            stopping=threading.Event(),
        )
        self.images = Images(cast("World", world))

    @property
    def tags(self) -> dict[str, list[str]]:
        return {image.image_digest: image.image_tags for image in self.repository.images}

    def pull(self, reference: str) -> tuple[str, ...]:
        return self.images.pull(f"{REGISTRY}/{reference}").command


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_the_same_content_has_the_same_digest(registry: Registry) -> None:
    first = registry.images.push("web:v1", "serve --fast")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", first)
    assert registry.images.push("web:v1", "serve --fast") == first
    assert registry.tags == {first: ["v1"]}


def test_other_content_moves_the_tag_and_the_old_image_stays(registry: Registry) -> None:
    old = registry.images.push("web:v1", "serve old")
    new = registry.images.push("web:v1", "serve new")
    assert old != new
    assert registry.tags == {old: [], new: ["v1"]}
    assert registry.pull("web:v1") == ("serve", "new")
    assert registry.pull(f"web@{old}") == ("serve", "old")


def test_a_tag_can_come_back_to_an_image(registry: Registry) -> None:
    old = registry.images.push("web:v1", "serve old")
    new = registry.images.push("web:v1", "serve new")
    assert registry.images.push("web:v1", "serve old") == old
    assert registry.tags == {old: ["v1"], new: []}


def test_each_push_sends_one_event(registry: Registry) -> None:
    digest = registry.images.push("web:v1")
    registry.images.push("web:v1")
    assert [event["detail-type"] for event in registry.events] == ["ECR Image Action"] * 2
    assert registry.events[0]["id"] != registry.events[1]["id"]
    assert registry.events[0]["detail"] == {
        "result": "SUCCESS",
        "repository-name": "web",
        "image-digest": digest,
        "action-type": "PUSH",
        "artifact-media-type": "application/vnd.docker.container.image.v1+json",
        "image-tag": "v1",
        "manifest-media-type": "application/vnd.docker.distribution.manifest.v2+json",
    }


def test_an_event_that_comes_again_is_the_same_event(registry: Registry) -> None:
    registry.images.push("web:v1", times=3)
    assert len(registry.events) == 3
    assert all(event == registry.events[0] for event in registry.events)


def test_a_push_for_two_platforms_sends_an_event_each_and_one_of_the_tag(
    registry: Registry,
) -> None:
    digest = registry.images.push("web:v1", "serve", platforms=2)
    details = [event["detail"] for event in registry.events]
    assert [detail["image-tag"] for detail in details] == ["", "", "v1"]
    assert len({detail["image-digest"] for detail in details}) == 3
    assert details[-1]["image-digest"] == digest
    assert details[-1]["manifest-media-type"] == "application/vnd.oci.image.index.v1+json"
    assert "artifact-media-type" not in details[-1]
    assert registry.tags[digest] == ["v1"]
    assert sorted(registry.tags.values()) == [[], [], ["v1"]]
    assert registry.pull("web:v1") == ("serve",)
    assert registry.pull(f"web@{details[0]['image-digest']}") == ("serve",)


def test_without_deliveries_images_still_appear(registry: Registry) -> None:
    registry.images.events.turn_on(DeliveryFault("off"))
    digest = registry.images.push("web:v1", times=2)
    assert registry.events == []
    assert registry.tags == {digest: ["v1"]}
    registry.images.events.turn_off()
    registry.images.push("web:v1")
    assert len(registry.events) == 1


def test_duplicated_deliveries_have_the_same_id(registry: Registry) -> None:
    registry.images.events.turn_on(DeliveryFault("duplicated", times=3))
    registry.images.push("web:v1", times=2)
    registry.images.push("web:v2")
    assert len({event["id"] for event in registry.events}) == 2
    assert len(registry.events) == 9


def test_late_deliveries_come_later_and_say_when_the_push_was(registry: Registry) -> None:
    came = threading.Event()
    registry.images.events = PushEvents(
        cast("World", SimpleNamespace(publish=lambda _: came.set(), stopping=threading.Event()))
    )
    registry.images.events.turn_on(DeliveryFault("late", seconds=0.2))
    began = time.monotonic()
    registry.images.push("web:v1")
    assert not came.is_set()
    assert came.wait(5)
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "lost"}, "off, late, duplicated"),
        ({"kind": "late"}, "late needs seconds"),
        ({"kind": "off", "seconds": 1}, "late needs seconds"),
        ({"kind": "duplicated", "times": 1}, "duplicated needs times"),
        ({"kind": "off", "times": 2}, "duplicated needs times"),
    ],
)
def test_a_fault_of_deliveries_that_makes_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeliveryFault(**given)


def test_a_push_to_no_repository_is_refused(registry: Registry) -> None:
    with pytest.raises(RepositoryNotFoundException):
        registry.images.push("shop:v1")
    assert registry.events == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("web",), "REPOSITORY:TAG"),
        (("web:",), "REPOSITORY:TAG"),
        ((":v1",), "REPOSITORY:TAG"),
        (("web:v1", ""), "empty"),
        (("web:v1", "serve", "never_healthy"), "give either"),
        (("web:v1", None, "haunted"), "never_healthy, crash_loop, slow_start, errors, slow"),
        (("web:v1", None, "errors"), "not a number of percent"),
        (("web:v1", None, "errors=0"), "above 0"),
        (("web:v1", None, "errors=101"), "not above 100"),
        (("web:v1", None, "slow=nan"), "not a number of seconds"),
        (("web:v1", None, "slow_start=soon"), "not a number"),
    ],
)
def test_a_push_that_makes_no_sense(
    registry: Registry, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(InvalidImageError, match=message):
        registry.images.push(*arguments)
    assert registry.events == []


@pytest.mark.parametrize(
    ("fault", "flags"),
    [
        (None, ()),
        ("never_healthy", ("--never-healthy",)),
        ("crash_loop", ("--crash",)),
        ("slow_start", ("--slow-start", "8")),
        ("slow_start=2.5", ("--slow-start", "2.5")),
        ("errors=5", ("--fail-percent", "5")),
        ("slow=0.2", ("--slow", "0.2")),
    ],
)
def test_a_fault_is_a_flag_of_the_demo_app(
    registry: Registry, fault: str | None, flags: tuple[str, ...]
) -> None:
    registry.images.push("web:v1", fault=fault)
    assert registry.pull("web:v1") == (sys.executable, "-m", "sandbox.app", *flags)


def test_a_command_is_split_as_a_shell_does(registry: Registry) -> None:
    registry.images.push("web:v1", "sh -c 'exec serve \"$PORT\"'")
    assert registry.pull("web:v1") == ("sh", "-c", 'exec serve "$PORT"')


def test_the_tag_is_the_version(registry: Registry) -> None:
    registry.images.push("web:v7", "serve")
    assert registry.images.pull(f"{REGISTRY}/web:v7").environment == {"VERSION": "v7"}


def test_without_a_tag_it_is_latest(registry: Registry) -> None:
    registry.images.push("web:latest", "serve")
    assert registry.pull("web") == ("serve",)


@pytest.mark.parametrize(
    "reference",
    [
        "web:v1",
        f"{REGISTRY}/web:v2",
        f"{REGISTRY}/shop:v1",
        f"{REGISTRY}/web@sha256:{'0' * 64}",
        "other.example/web:v1",
    ],
)
def test_what_is_not_there_cannot_be_pulled(registry: Registry, reference: str) -> None:
    registry.images.push("web:v1", "serve")
    with pytest.raises(CannotPullError, match="CannotPullContainerError"):
        registry.images.pull(reference)
