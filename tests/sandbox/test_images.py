"""The image registry: what a push does to tags and digests."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from moto.ecr.exceptions import RepositoryNotFoundException

from sandbox.images import CannotPullError, Images, InvalidImageError
from sandbox.world import World

REGISTRY = "123456789012.dkr.ecr.ap-northeast-1.amazonaws.com"


class Registry:
    """Images in a registry with one repository, ``web``, and the events that were sent."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.repository = SimpleNamespace(images=[])
        ecr = SimpleNamespace(repositories={"web": self.repository})
        world = SimpleNamespace(
            account_id="123456789012",
            region="ap-northeast-1",
            backend=lambda _: ecr,
            publish=self.events.append,
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
    assert registry.events[0]["detail"] == {
        "result": "SUCCESS",
        "repository-name": "web",
        "image-digest": digest,
        "action-type": "PUSH",
        "image-tag": "v1",
    }


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
        (("web:v1", None, "haunted"), "never_healthy, crash_loop, slow_start"),
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
