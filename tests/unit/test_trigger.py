"""From pushes to deployments: what events say, which push is the newest, what is started when."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bluegreen import trigger
from bluegreen.configuration import ServiceConfiguration, load
from bluegreen.deployment import DeployRequest
from bluegreen.ecr import TaggedImage
from bluegreen.errors import InvalidEvent
from bluegreen.image import EcrRepository
from bluegreen.pushes import Newest, Pushes, Wish
from bluegreen.store import Lock
from bluegreen.trigger import (
    NOTHING_LIVE,
    Answer,
    ExecutionEnded,
    Facts,
    Ignored,
    ImagePush,
    LiveImages,
    Look,
)

ROOT = Path(__file__).parents[2]
HOME = "123456789012/eu-west-1"
WEB, CACHE = f"{HOME}/web", f"{HOME}/cache"
NOW = 1000.0


def event(name: str = "ecr-push", **detail: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "events" / f"{name}.json").read_text())
    found["detail"] |= {key.replace("_", "-"): value for key, value in detail.items()}
    return found


def configuration(tags: tuple[str, ...] = ("v*",), **changes: Any) -> ServiceConfiguration:
    example = yaml.safe_load((ROOT / "examples" / "shifted-ports" / "service.yaml").read_text())
    return load(yaml.safe_dump(example | {"trigger": {"tags": list(tags)}} | changes), "web.yaml")


TWO = configuration(
    containers=[{"name": "web", "repository": "web"}, {"name": "cache", "repository": "cache"}]
)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def push(tag: str, number: int, at: float, source: str = WEB) -> ImagePush:
    return ImagePush(source, tag, digest(number), at, event_id=f"e-{tag}-{number}")


def ask(pushes: Pushes, one: ImagePush, *, is_at: int | None = None, now: float = NOW) -> Answer:
    """is_at: the image that the tag is at now, if it is not the one that was pushed."""
    found = digest(is_at) if is_at else one.digest
    image = TaggedImage(found, (one.tag,), one.at)
    containers = trigger.concerns(TWO, one.source, one.tag, HOME)
    return trigger.ask(pushes, one, image, TWO, containers, now)


EMPTY = Pushes(service="web")
V1, V2 = push("v1", 1, 10.0), push("v2", 2, 20.0)


def started(pushes: Pushes) -> Pushes:
    """What waits was started."""
    return pushes.model_copy(update={"claimed": pushes.waiting, "waiting": None, "started": True})


def lock(*, held: bool = True, warm: bool = False) -> Lock:
    return Lock("web", "d-1", "arn", 1, held, warm, None, "deploy", 0.0, None)


# What events say


def test_the_event_of_a_push() -> None:
    found = trigger.read(event())
    assert found == ImagePush(
        source=WEB,
        tag="v2",
        digest="sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd1234ef56",
        at=1795340467.0,
        event_id="13cde686-328b-6117-af20-0e5566167482",
    )


def test_20_the_manifest_of_one_platform_deploys_nothing_and_the_index_does() -> None:
    assert isinstance(trigger.read(event("ecr-push-platform")), Ignored)
    assert isinstance(trigger.read(event("ecr-push-index")), ImagePush)


@pytest.mark.parametrize(
    "detail",
    [
        {"action_type": "DELETE"},
        {"result": "FAILURE"},
        {"artifact_media_type": "application/vnd.cncf.helm.config.v1+json"},
    ],
)
def test_what_is_no_push_of_an_image_is_ignored(detail: dict[str, str]) -> None:
    assert isinstance(trigger.read(event(**detail)), Ignored)


def test_an_untagged_failure_need_not_name_an_image() -> None:
    given_event = event(result="FAILURE")
    del given_event["detail"]["image-digest"]
    assert isinstance(trigger.read(given_event), Ignored)


def test_the_end_of_an_execution_says_what_it_was_about() -> None:
    found = trigger.read(event("execution-aborted"))
    assert isinstance(found, ExecutionEnded)
    assert (found.name, found.service, found.deployment_id) == ("web-v2", "web", None)


@pytest.mark.parametrize(
    "given_input", [None, "", "garbage", "[]", '{"service": 3}', "[" * 100_000, '{"service":"A"}']
)
def test_whatever_an_execution_was_given_it_has_ended(given_input: str | None) -> None:
    found = trigger.read(event("execution-aborted", input=given_input))
    assert isinstance(found, ExecutionEnded)
    assert (found.service, found.deployment_id) == (None, None)


def test_an_execution_that_begins_frees_nothing() -> None:
    assert isinstance(trigger.read(event("execution-aborted", status="RUNNING")), Ignored)


def test_the_schedule_looks() -> None:
    assert trigger.read(event("schedule")) == Look()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_digest": "sha256:0"}, "detail.image-digest: String should match pattern"),
        ({"image_tag": "a b"}, "detail.image-tag: String should match pattern"),
        ({"image_tag": 3}, "detail.image-tag: Input should be a valid string (got 3)"),
        ({"repository_name": ""}, "detail.repository-name: String should match pattern"),
        ({"result": None}, "detail.result: Input should be a valid string (got None)"),
    ],
)
def test_a_wrong_event_is_told_where_and_what(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidEvent) as raised:
        trigger.read(event(**change))
    assert "an event 'ECR Image Action' of ECR: 1 mistake(s)\n" in str(raised.value)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (None, "(top level): Input should be"),
        ([], "(top level)"),
        ({}, "source: is missing\n  detail-type: is missing"),
        ({"source": "aws.ecr", "detail-type": "ECR Image Scan"}, "'ECR Image Scan' of 'aws.ecr'"),
        ({"source": "aws.ecr", "detail-type": "ECR Image Action"}, "detail: is missing"),
        (event() | {"time": "yesterday"}, "time: "),
        (event() | {"account": "me"}, "account: "),
    ],
)
def test_and_so_is_what_is_no_event(wrong: Any, says: str) -> None:
    with pytest.raises(InvalidEvent) as raised:
        trigger.read(wrong)
    assert says in str(raised.value)


# Whom a push concerns


@pytest.mark.parametrize(
    ("repository", "concerned"),
    [
        ("web", True),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/web", True),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/web", False),
        ("210987654321.dkr.ecr.eu-west-1.amazonaws.com/web", False),
        ("docker.io/library/web", False),
        ("shop/web", False),
    ],
)
def test_a_push_concerns_who_runs_the_repository(repository: str, concerned: bool) -> None:
    one = configuration(containers=[{"name": "a", "repository": repository}])
    assert trigger.concerns(one, WEB, "v1", HOME) == (["a"] if concerned else [])


def test_a_repository_of_another_account_is_matched_by_its_own_pushes() -> None:
    uri = "210987654321.dkr.ecr.eu-west-1.amazonaws.com/web"
    one = configuration(containers=[{"name": "a", "repository": uri}])
    assert trigger.concerns(one, "210987654321/eu-west-1/web", "v1", HOME) == ["a"]
    found = trigger.repository_of("210987654321/eu-west-1/shop/web")
    assert found == EcrRepository("shop/web", "210987654321", "eu-west-1")


@pytest.mark.parametrize(
    ("tags", "tag", "fits"),
    [
        (("v*",), "v2", True),
        (("v*",), "V2", False),
        (("release-?", "v*"), "release-7", True),
        (("release-?",), "release-17", False),
        (("*",), "sha256-" + "0" * 64 + ".sig", False),
        (("*",), "sha256-" + "0" * 64, False),
    ],
)
def test_a_tag_has_to_fit_and_signatures_are_no_images(
    tags: tuple[str, ...], tag: str, fits: bool
) -> None:
    assert bool(trigger.concerns(configuration(tags), WEB, tag, HOME)) is fits


def test_without_a_trigger_no_push_concerns_a_service() -> None:
    assert trigger.concerns(configuration(trigger=None), WEB, "v1", HOME) == []


# Which push is the newest


def test_16_a_push_is_wished_for_by_digest() -> None:
    found = ask(EMPTY, V1)
    assert found.wish == "new"
    assert found.pushes.waiting == Wish(
        id="web-000000000000-1",
        images={"web": f"web@{digest(1)}"},
        tag="v1",
        kind="push",
        event_id="e-v1-1",
        pushed_at=10.0,
        asked_at=NOW,
    )


def test_several_containers_of_a_repository_get_the_image() -> None:
    two = configuration(
        containers=[{"name": "a", "repository": "web"}, {"name": "b", "repository": "web"}]
    )
    image = TaggedImage(digest(1), ("v1",), 1.0)
    found = trigger.ask(EMPTY, V1, image, two, ["a", "b"], NOW).pushes.waiting
    assert found
    assert found.images == {"a": f"web@{digest(1)}", "b": f"web@{digest(1)}"}


def test_20_the_same_push_again_is_known() -> None:
    once = ask(EMPTY, V1).pushes
    assert ask(once, V1).wish == "none"
    assert ask(once, replace(V1, event_id="another", at=11.0)).pushes == once
    assert ask(started(once), V1).wish == "none"


def test_20_two_tags_of_one_image_are_one_push() -> None:
    once = ask(EMPTY, V1).pushes
    assert ask(once, push("v1.0", 1, 10.0)).wish == "none"


def test_22_a_push_that_comes_late_is_recorded_as_superseded_once() -> None:
    newer = ask(EMPTY, V2).pushes
    late = ask(newer, V1)
    assert late.wish == "superseded"
    assert late.pushes.waiting == newer.waiting
    [one] = late.pushes.superseded
    assert (one.wish.tag, one.by) == ("v1", newer.waiting.id if newer.waiting else "")
    assert ask(late.pushes, V1).wish == "none"


def test_22_what_is_named_in_its_place_is_what_deploys_the_newer_push() -> None:
    """The latest wish may be about another repository."""
    both = ask(started(ask(EMPTY, V2).pushes), push("v7", 7, 30.0, CACHE)).pushes
    [one] = ask(both, V1).pushes.superseded
    assert one.by == "web-000000000000-1"
    [one] = ask(started(both), V1).pushes.superseded
    assert one.by == ""


def test_an_event_of_long_ago_that_comes_again_changes_nothing() -> None:
    both = ask(started(ask(EMPTY, V1).pushes), V2).pushes
    assert ask(both, V1) == Answer("none", ask(both, V1).reason, both)


def test_22_a_wish_that_is_replaced_before_it_was_started_is_superseded() -> None:
    first = ask(EMPTY, V1).pushes
    second = ask(first, V2).pushes
    assert second.waiting
    assert [(one.wish, one.by) for one in second.superseded] == [(first.waiting, second.waiting.id)]
    assert second.waiting.id.endswith("-2")


def test_one_that_was_started_is_not() -> None:
    assert ask(started(ask(EMPTY, V1).pushes), V2).pushes.superseded == []


def test_v1_pushed_again_after_v2_is_a_new_push_though_its_image_is_older() -> None:
    both = ask(started(ask(EMPTY, V1).pushes), V2).pushes
    assert ask(both, replace(V1, at=30.0)).wish == "new"


def test_a_tag_that_was_moved_back_counts_as_it_is_now() -> None:
    """Within the same second, even: ECR itself says which image the tag is at."""
    latest = ask(EMPTY, push("vX", 1, 10.0)).pushes
    moved = ask(latest, push("vX", 2, 20.0)).pushes
    assert ask(moved, push("vX", 1, 20.0)).wish == "new"


def test_16_a_tag_that_has_moved_on_leaves_its_push_behind() -> None:
    found = ask(EMPTY, push("vX", 1, 10.0), is_at=2)
    assert (found.wish, found.pushes.waiting) == ("superseded", None)
    assert digest(2) in found.reason
    assert ask(found.pushes, push("vX", 2, 11.0)).wish == "new"


def test_a_tag_that_was_deleted_leaves_it_too() -> None:
    found = trigger.ask(EMPTY, V1, None, TWO, ["web"], NOW)
    assert (found.wish, found.reason) == ("superseded", "tag v1 is at no image by now")


def test_an_image_that_is_not_there_at_all_leads_to_nothing() -> None:
    found = trigger.ask(EMPTY, V1, None, TWO, ["web"], NOW, there=False)
    assert (found.wish, found.pushes) == ("none", EMPTY)


def test_of_two_pushes_at_the_same_moment_the_later_arrival_wins() -> None:
    same = push("v2", 2, 10.0)
    first = ask(EMPTY, V1).pushes
    second = ask(first, same)
    assert second.wish == "new"
    assert ask(second.pushes, V1).wish == "none", "it had arrived before"


def test_a_clock_that_is_ahead_does_not_keep_later_pushes_out() -> None:
    ahead = ask(EMPTY, push("v1", 1, 10 * NOW)).pushes
    assert ask(ahead, push("v2", 2, NOW + 5), now=NOW + 6).wish == "new"


def test_what_is_deployed_with_the_next_one_is_said() -> None:
    both = ask(ask(EMPTY, V1).pushes, push("v7", 7, 20.0, CACHE)).pushes
    [first] = both.superseded
    assert both.waiting
    assert first.reason == f"deployed together with tag v7, by {both.waiting.id}"
    [first] = ask(ask(EMPTY, V1).pushes, V2).pushes.superseded
    assert first.reason.startswith("tag v2 was pushed before this one was started")


def test_a_container_that_the_configuration_has_lost_is_not_brought_along() -> None:
    waits = ask(EMPTY, push("v7", 7, 10.0, CACHE)).pushes
    found = trigger.ask(
        waits, V1, TaggedImage(V1.digest, ("v1",), V1.at), configuration(), ["web"], NOW
    )
    assert found.pushes.waiting
    assert found.pushes.waiting.images == {"web": f"web@{digest(1)}"}
    [lost] = found.pushes.superseded
    assert lost.reason.startswith("tag v1 was pushed before this one was started")


def test_the_other_containers_keep_what_was_not_started() -> None:
    both = ask(ask(EMPTY, V1).pushes, push("v7", 7, 20.0, CACHE)).pushes
    assert both.waiting
    assert both.waiting.images == {"web": f"web@{digest(1)}", "cache": f"cache@{digest(7)}"}
    assert ask(both, V1).wish == "none", "each repository has its own newest push"
    # What was started is live, or has failed: it is not brought again.
    alone = ask(started(ask(EMPTY, V1).pushes), push("v7", 7, 20.0, CACHE)).pushes
    assert alone.waiting
    assert alone.waiting.images == {"cache": f"cache@{digest(7)}"}


def test_the_request_is_the_same_text_each_time_and_one_the_workflow_takes() -> None:
    pushes = ask(EMPTY, V1).pushes
    assert pushes.waiting
    text = trigger.request(pushes, pushes.waiting)
    found = DeployRequest.model_validate_json(text)
    assert found.images == {"web": f"web@{digest(1)}"}
    assert (found.started_by.kind, found.started_by.detail) == ("push", "v1")
    assert text == trigger.request(
        pushes, Wish.model_validate_json(pushes.waiting.model_dump_json())
    )


@pytest.mark.parametrize("service", ["a", "a" * 40])
def test_a_deployment_id_is_short_enough_for_step_functions(service: str) -> None:
    found = ask(Pushes(service=service, number=10**9), V1).pushes.waiting
    assert found
    assert len(found.id) <= 80


# What is to be done


def test_what_waits_is_claimed_then_started_then_noted() -> None:
    waits = ask(EMPTY, V1).pushes
    claim = trigger.next_step(waits, Facts(), NOW)
    assert (claim.do, claim.pushes.claimed, claim.pushes.waiting) == ("write", waits.waiting, None)
    start = trigger.next_step(claim.pushes, Facts("missing"), NOW)
    assert (start.do, start.pushes.started) == ("start", True)
    assert trigger.next_step(start.pushes, Facts("running"), NOW).do == "rest"


def test_20_a_claim_whose_owner_died_is_started_and_one_that_got_there_is_noted() -> None:
    claimed = trigger.next_step(ask(EMPTY, V1).pushes, Facts(), NOW).pushes
    assert trigger.next_step(claimed, Facts("missing"), NOW).do == "start"
    noted = trigger.next_step(claimed, Facts("ended"), NOW)
    assert (noted.do, noted.pushes.started) == ("write", True)


@pytest.mark.parametrize(
    ("facts", "waits"),
    [
        (Facts(lock=lock()), True),
        (Facts(lock=lock(warm=True)), False),
        (Facts(lock=lock(held=False)), False),
        (Facts("running"), True),
        (Facts("running", planned=True), False),
        (Facts("running", planned=True, lock=lock()), True),
        (Facts("ended"), False),
    ],
)
def test_what_waits_waits_for_the_deployment_that_runs(facts: Facts, waits: bool) -> None:
    pushes = ask(started(ask(EMPTY, V1).pushes), V2).pushes
    assert (trigger.next_step(pushes, facts, NOW).do == "rest") is waits


def test_somebody_was_quicker_by_hand_and_the_wish_waits_under_a_new_number() -> None:
    pushes = started(ask(EMPTY, V1).pushes)
    again = trigger.next_step(pushes, Facts("ended", error="LockHeld"), NOW).pushes
    assert again.waiting
    assert (again.waiting.id, again.claimed) == ("web-000000000000-2", None)
    assert trigger.next_step(again, Facts(lock=lock()), NOW).do == "rest"


def test_unless_a_newer_one_waits_already_which_then_brings_its_images() -> None:
    pushes = started(ask(EMPTY, push("v7", 7, 5.0, CACHE)).pushes)
    pushes = ask(pushes, V1).pushes
    again = trigger.next_step(pushes, Facts("ended", error="LockHeld"), NOW).pushes
    assert again.waiting
    assert pushes.waiting
    assert again.waiting.id == pushes.waiting.id
    assert again.waiting.images == {"cache": f"cache@{digest(7)}", "web": f"web@{digest(1)}"}


@pytest.mark.parametrize("error", ["", "BakeFailed", "DeploymentRefused", "AwsUnavailable"])
def test_what_has_failed_is_not_tried_again(error: str) -> None:
    pushes = started(ask(EMPTY, V1).pushes)
    assert trigger.next_step(pushes, Facts("ended", error=error), NOW).do == "rest"


@pytest.mark.parametrize(
    ("was_started", "after", "means"),
    [(False, 0, "missing"), (False, 10**7, "missing"), (True, 1, "running"), (True, 100, "ended")],
)
def test_an_execution_that_is_not_shown(was_started: bool, after: float, means: str) -> None:
    """Not yet, or not any more: one that has run must never run again after 90 days."""
    pushes = EMPTY.model_copy(update={"started": was_started, "claimed_at": NOW})
    assert trigger.unknown(pushes, NOW + after) == means


# What no event told

IMAGES = [TaggedImage(digest(1), ("v1",), 100.0), TaggedImage(digest(2), ("v2",), 200.0)]
V1_LIVE = LiveImages(frozenset({digest(1)}), 100.0)


def overdue(
    images: list[TaggedImage] = IMAGES,
    live: LiveImages = V1_LIVE,
    pushes: Pushes = EMPTY,
    tags: tuple[str, ...] = ("v*",),
    **deployed: float,
) -> tuple[str, str] | None:
    """Tag and digest; deployed: ``d2=300`` is image 2 at 300."""
    had = {digest(int(key[1:])): value for key, value in deployed.items()}
    found = trigger.overdue(configuration(tags), WEB, images, live, pushes, had)
    return (found.tag, found.digest) if found else None


def test_the_newest_image_that_was_never_asked_for_is_overdue() -> None:
    assert overdue() == ("v2", digest(2))
    assert overdue(live=NOTHING_LIVE) == ("v2", digest(2))


@pytest.mark.parametrize(
    "facts",
    [
        {"live": LiveImages(frozenset({digest(2)}), 200.0)},
        {"live": LiveImages(frozenset({digest(3)}), 300.0)},
        {"pushes": Pushes(service="web", digests=[digest(2)])},
        {"d2": 250.0},
        {"tags": ("release-*",)},
        {"images": []},
        {"images": [replace(IMAGES[1], artifact_type="application/vnd.cncf.helm.config.v1+json")]},
    ],
    ids=["live", "older", "asked for", "deployed", "no such tag", "no image", "no image at all"],
)
def test_what_is_live_or_was_tried_or_is_older_is_not(facts: dict[str, Any]) -> None:
    assert overdue(**facts) is None


def test_16_a_live_definition_that_names_a_tag_is_as_new_as_its_registration() -> None:
    assert overdue(live=LiveImages(frozenset(), 150.0)) == ("v2", digest(2))
    assert overdue(live=LiveImages(frozenset(), 201.0)) is None


def test_a_tag_that_was_moved_to_an_older_image_is_overdue() -> None:
    newest = Newest(tag="prod", digest=digest(2), pushed_at=300.0, image_pushed_at=200.0)
    pushes = Pushes(service="web", newest={WEB: newest}, digests=[digest(1), digest(2)])
    moved = [TaggedImage(digest(1), ("prod",), 100.0), TaggedImage(digest(2), ("old",), 200.0)]
    live = LiveImages(frozenset({digest(2)}), 200.0)
    found = {"images": moved, "live": live, "pushes": pushes, "tags": ("prod",)}
    assert overdue(**found, d1=150.0) == ("prod", digest(1))  # type: ignore[arg-type]
    assert overdue(**found, d1=350.0) is None, "somebody has deployed it since"  # type: ignore[arg-type]
    missed = ImagePush(WEB, "prod", digest(1), 300.0, "", "schedule")
    assert ask(pushes, missed).wish == "new"


# All of it together


@dataclass
class Site:
    """A registry, one service's item, and executions that end when they are told to."""

    pushes: Pushes = EMPTY
    running: str = ""
    started: list[Wish] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)

    def deliver(self, one: ImagePush) -> None:
        self.pushes = ask(self.pushes, one).pushes
        self.settle()

    def end(self) -> None:
        self.running = ""
        self.settle()

    def settle(self) -> None:
        while (step := trigger.next_step(self.pushes, self._facts(), NOW)).do != "rest":
            if step.do == "start":
                assert not self.running, "two deployments at once"
                assert step.pushes.claimed
                self.started.append(step.pushes.claimed)
                self.running = step.pushes.claimed.id
            self.pushes = step.pushes
        self.superseded += [one.wish.id for one in self.pushes.superseded]
        self.pushes = self.pushes.model_copy(update={"superseded": []})

    def _facts(self) -> Facts:
        claimed = self.pushes.claimed
        if claimed is None:
            return Facts()
        if claimed.id == self.running:
            return Facts("running", planned=True, lock=lock())
        return Facts("ended" if claimed in self.started else "missing")


@given(
    st.lists(st.integers(min_value=0, max_value=5), min_size=1, max_size=25),
    st.lists(st.booleans(), min_size=25, max_size=25),
)
def test_20_22_in_any_order_and_however_often_each_push_is_deployed_once_or_superseded(
    deliveries: list[int], ends: list[bool]
) -> None:
    """The number of a push is its age: whatever comes when, the newest that came is live."""
    site = Site()
    for number, ended in zip(deliveries, ends, strict=False):
        site.deliver(push(f"v{number}", number + 1, float(number)))
        if ended:
            site.end()
    site.end()
    site.end()
    seen = {digest(number + 1) for number in deliveries}
    deployed = [one.images["web"].partition("@")[2] for one in site.started]
    assert deployed[-1] == digest(max(deliveries) + 1)
    assert len(set(deployed)) == len(deployed)
    assert deployed == sorted(deployed)
    assert len(set(site.superseded)) == len(site.superseded) == len(seen) - len(deployed)
