"""From pushes to deployments: what an event says, and what follows from it. Pure.

``read`` tells the events apart. ``ask`` makes a wish of a push, or says why there is none.
``overdue`` finds the push of which no event told. ``next_step`` says what is to be done with the
wishes of a service now: start one, let it wait, or write down what has become of it.

Pushes of one tag have their order from ECR: only what the tag is at now counts. Pushes of different
tags have it from the time of their events, and within the same second from the time at which their
images were pushed. That alone would not do: it does not change when a tag is moved to an image that
has been there (https://github.com/aws/containers-roadmap/issues/214).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from bluegreen.configuration import ServiceConfiguration, describe
from bluegreen.deployment import DeploymentId, DeployRequest, Overrides, ServiceName, StartedBy
from bluegreen.ecr import TaggedImage
from bluegreen.errors import InvalidEvent
from bluegreen.image import EcrRepository, ImageReference
from bluegreen.pushes import NeverStarted, Newest, Pushes, Wish
from bluegreen.store import Lock, Record

# Of a service. What was asked for before that many others is not known any more.
_DIGESTS_KEPT = 200
# From StartExecution until DescribeExecution shows it for sure.
_SHOWN_AFTER_SECONDS = 60
# Outcomes of a deployment that is live, or changed nothing as there was nothing to change.
_STAYED = frozenset({"succeeded", "held", "nothing_to_do"})
_SHORT_DIGEST = slice(len("sha256:"), len("sha256:") + 12)

# Tags under which signatures and attestations of an image are stored, not images:
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema
_REFERRER = re.compile(r"sha256-[0-9a-f]{64}(\..+)?")
# Of images, as ECR tells it; a chart of Helm has another one, and an image index has none.
_IMAGE_TYPES = frozenset(
    {
        None,
        "",
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.oci.image.config.v1+json",
    }
)

_PUSHED = "aws.ecr", "ECR Image Action"
_ENDED = "aws.states", "Step Functions Execution Status Change"
_SCHEDULES = frozenset({("aws.events", "Scheduled Event"), ("aws.scheduler", "Scheduled Event")})
_RUNNING = "RUNNING"

Parsed = TypeVar("Parsed", bound="_Event")


@dataclass(frozen=True)
class ImagePush:
    """A tag was pushed. source: ``account/region/name`` of the repository. at: epoch seconds."""

    source: str
    tag: str
    digest: str
    at: float
    event_id: str
    kind: Literal["push", "schedule"] = "push"


@dataclass(frozen=True)
class ExecutionEnded:
    """An execution of the state machine has ended; what its input says it was about, if it does."""

    machine_arn: str
    name: str
    deployment_id: str | None
    service: str | None


@dataclass(frozen=True)
class Look:
    """Nothing happened: it is time to look for what no event told."""


@dataclass(frozen=True)
class Ignored:
    """An event as it should be, with which there is nothing to do."""

    why: str


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=False)


_Account = Annotated[str, Field(pattern=r"^[0-9]{12}$")]
_Region = Annotated[str, Field(pattern=r"^[a-z]{2,}(-[a-z]+)+-[0-9]+$")]
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
# https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreateRepository.html
_Repository = Annotated[str, Field(pattern=r"^[a-z0-9]+([._/-]+[a-z0-9]+)*$", max_length=256)]
_Tag = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,299})?$")]


class _Kind(_Event):
    source: str
    detail_type: str = Field(alias="detail-type")


class _Action(_Event):
    result: str
    action_type: str = Field(alias="action-type")


class _ActionEvent(_Event):
    detail: _Action


class _Image(_Event):
    repository_name: _Repository = Field(alias="repository-name")
    image_digest: _Digest = Field(alias="image-digest")
    image_tag: _Tag | None = Field(alias="image-tag", default=None)
    artifact_media_type: str | None = Field(alias="artifact-media-type", default=None)


class _ImageEvent(_Event):
    id: Annotated[str, Field(min_length=1, max_length=200)]
    account: _Account
    region: _Region
    time: AwareDatetime
    detail: _Image


class _Execution(_Event):
    state_machine_arn: str = Field(alias="stateMachineArn", pattern=r"^arn:")
    name: DeploymentId
    status: str
    input: str | None = None


class _ExecutionEvent(_Event):
    detail: _Execution


class _Input(_Event):
    service: ServiceName | None = None
    deployment_id: DeploymentId | None = None


def read(event: Any) -> ImagePush | ExecutionEnded | Look | Ignored:
    """What an event of one of StartDeployment's rules says.

    event: any JSON. Raises InvalidEvent with one line per mistake.
    https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html
    https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
    """
    kind = _parse(_Kind, event, "an event of EventBridge")
    match kind.source, kind.detail_type:
        case found if found == _PUSHED:
            return _read_push(event)
        case found if found == _ENDED:
            return _read_ended(event)
        case found if found in _SCHEDULES:
            return Look()
    raise InvalidEvent(
        f"an event of EventBridge: {kind.detail_type!r} of {kind.source!r} is nothing that starts "
        f"a deployment: it has to be {_PUSHED[1]!r} of {_PUSHED[0]!r}, {_ENDED[1]!r} of "
        f"{_ENDED[0]!r}, or a schedule"
    )


def concerns(configuration: ServiceConfiguration, source: str, tag: str, home: str) -> list[str]:
    """The containers of a service that a push of this tag is for; none if it triggers nothing.

    source: ``account/region/name``. home: ``account/region`` of the deployer, which is where a
    repository is that the configuration gives by its name only.
    """
    return containers_of(configuration, source, home) if triggers(configuration, tag) else []


def triggers(configuration: ServiceConfiguration, tag: str) -> bool:
    """Whether a tag that is pushed deploys the service."""
    patterns = configuration.trigger.tags if configuration.trigger else []
    return not _REFERRER.fullmatch(tag) and any(fnmatchcase(tag, one) for one in patterns)


def containers_of(configuration: ServiceConfiguration, source: str, home: str) -> list[str]:
    """The containers of a service that run images of a repository."""
    return [
        container.name
        for container in configuration.containers
        if source_of(container.repository, home) == source
    ]


def source_of(repository: str, home: str) -> str | None:
    """``account/region/name`` of a repository of the configuration; None for one that is not in ECR
    of the deployer's region, of which no event comes and nothing can be asked.
    """
    found = ImageReference(repository).ecr
    account, _, region = home.partition("/")
    if found is None or (found.region or region) != region:
        return None
    return f"{found.account or account}/{region}/{found.name}"


def repository_of(source: str) -> EcrRepository:
    """The repository of ``account/region/name``."""
    account, region, name = source.split("/", 2)
    return EcrRepository(name, account, region)


@dataclass(frozen=True)
class Answer:
    """What a push leads to. wish: "new" is to be started; "superseded" is what has been overtaken;
    "none" is what was asked for before, or is not there. reason: for people. pushes: with it.
    """

    wish: Literal["new", "superseded", "none"]
    reason: str
    pushes: Pushes


def ask(
    pushes: Pushes,
    push: ImagePush,
    image: TaggedImage | None,
    configuration: ServiceConfiguration,
    containers: Collection[str],
    now: float,
    *,
    there: bool = True,
) -> Answer:
    """Make a wish of a push. image: what its tag is at now, None when there is no such tag.

    containers: those that the push is for. there: whether what was pushed is in the repository,
    under any tag or none.
    """
    seen = pushes.newest.get(push.source)
    # A clock that is ahead must not keep later pushes out.
    at = min(push.at, now)
    images = {
        one.name: f"{one.repository}@{push.digest}"
        for one in configuration.containers
        if one.name in containers
    }
    number = pushes.number + 1
    wish = Wish(
        id=f"{pushes.service}-{push.digest[_SHORT_DIGEST]}-{number}",
        images=images,
        tag=push.tag,
        kind=push.kind,
        event_id=push.event_id,
        pushed_at=at,
        asked_at=now,
        slack=configuration.notify.slack if configuration.notify else None,
    )
    if image is None or image.digest != push.digest:
        by = image.digest if image else "no image"
        if not there:
            return Answer("none", f"{push.digest} is not there; tag {push.tag} is at {by}", pushes)
        return _overtaken(pushes, push, wish, "", f"tag {push.tag} is at {by} by now")
    if seen and seen.digest == push.digest:
        return Answer("none", f"{push.digest} was asked for already", pushes)
    mine = Newest(tag=push.tag, digest=push.digest, pushed_at=at, image_pushed_at=image.pushed_at)
    if seen and seen.tag != push.tag and _came_before(mine, seen, pushes.digests):
        reason = f"tag {seen.tag} of the same repository was pushed later"
        return _overtaken(pushes, push, wish, _deploying(pushes, images, seen.digest), reason)
    # What has not been started is lost with its wish, unless the next one brings it: but for what
    # the service does not run any more.
    known = {one.name for one in configuration.containers}
    brought = pushes.waiting.images if pushes.waiting else {}
    images = {name: image for name, image in brought.items() if name in known} | images
    wish = wish.model_copy(update={"images": images})
    replaced = [_replaced(pushes.waiting, wish)] if pushes.waiting else []
    changed = pushes.model_copy(
        update={
            "number": number,
            "waiting": wish,
            "newest": pushes.newest | {push.source: mine},
            "digests": _with(pushes.digests, push.digest),
            "superseded": [*pushes.superseded, *replaced],
        }
    )
    return Answer("new", f"tag {push.tag} was pushed", changed)


@dataclass(frozen=True)
class LiveImages:
    """What of a repository has traffic. digests: of its images. since: no image that was pushed
    before (epoch seconds) is newer than they are.
    """

    digests: frozenset[str]
    since: float


NOTHING_LIVE = LiveImages(frozenset(), float("-inf"))


def overdue(
    configuration: ServiceConfiguration,
    source: str,
    images: Sequence[TaggedImage],
    live: LiveImages,
    pushes: Pushes,
    deployed: Mapping[str, float],
) -> ImagePush | None:
    """The push to a repository that should have been deployed and was not; None if there is none.

    images: all that have a tag. deployed: digest → when it was deployed last, epoch seconds, by
    whomever and however it ended: what a person has rolled back from, or has failed, is not tried
    again.
    """
    found = [
        (image, tag)
        for image in images
        if image.artifact_type in _IMAGE_TYPES
        for tag in image.tags
        if triggers(configuration, tag)
    ]
    if not found:
        return None
    seen = pushes.newest.get(source)
    newest, tag = max(found, key=lambda one: one[0].pushed_at)
    if (
        newest.digest not in {*live.digests, *pushes.digests, *deployed}
        and newest.pushed_at >= live.since
        and (seen is None or tag == seen.tag or newest.pushed_at >= seen.pushed_at)
    ):
        return _missed(source, newest, tag, newest.pushed_at)
    for image, tag in found:
        # A tag that was moved to an image that had been there: its date says nothing.
        if (
            seen
            and tag == seen.tag
            and image.digest not in {seen.digest, *live.digests}
            and deployed.get(image.digest, 0) < seen.pushed_at
        ):
            return _missed(source, image, tag, seen.pushed_at)
    return None


Execution = Literal["none", "missing", "running", "ended"]


@dataclass(frozen=True)
class Facts:
    """What of the world decides about the wishes of a service.

    execution: of the claimed wish. error: with which it ended. planned: whether it has got as far
    as the lock, which says from then on what it is doing. lock: read after all of that. last: the
    deployment that had the lock last, read after the lock.
    """

    execution: Execution = "none"
    error: str = ""
    planned: bool = False
    lock: Lock | None = None
    last: Record | None = None


def unknown(pushes: Pushes, now: float) -> Execution:
    """What to make of it that Step Functions does not know the claimed wish's execution.

    One that was started a moment ago need not be shown yet; one that has ended goes after 90 days.
    https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html
    """
    if not pushes.started:
        return "missing"
    return "running" if now - pushes.claimed_at < _SHOWN_AFTER_SECONDS else "ended"


@dataclass(frozen=True)
class Step:
    """do: "start" the claimed wish, then write; "write"; "rest". pushes: what is to be written."""

    do: Literal["start", "write", "rest"]
    reason: str
    pushes: Pushes


def next_step(pushes: Pushes, facts: Facts, now: float) -> Step:
    """What to do with the wishes of a service, one step at a time."""
    claimed = pushes.claimed
    if claimed and not pushes.started:
        if facts.execution == "missing":
            return Step("start", f"{claimed.id} is started", _changed(pushes, started=True))
        return Step("write", f"{claimed.id} was started", _changed(pushes, started=True))
    if claimed and facts.execution == "ended" and facts.error == "LockHeld":
        return Step("write", f"{claimed.id} found the service busy", _again(pushes, claimed, now))
    if pushes.waiting is None:
        return Step("rest", "nothing waits", pushes)
    if busy := _busy(pushes, facts):
        return Step("rest", busy, pushes)
    if facts.last and (why := _taken_back(pushes.waiting, facts.last)):
        refused = NeverStarted(wish=pushes.waiting, by="", reason=why, outcome="refused")
        left = [*pushes.superseded, refused]
        return Step("write", why, _changed(pushes, waiting=None, superseded=left))
    chosen = _changed(pushes, claimed=pushes.waiting, claimed_at=now, waiting=None, started=False)
    return Step("write", f"{pushes.waiting.id} is next", chosen)


def request(pushes: Pushes, wish: Wish) -> str:
    """The execution input of a wish: the same text for the same wish, so that it starts once."""
    asked = DeployRequest(
        service=pushes.service,
        images=wish.images,
        started_by=StartedBy(kind=wish.kind, detail=wish.tag),
    )
    return json.dumps(asked.model_dump(mode="json", exclude_defaults=True) | {"action": "deploy"})


def _parse(model: type[Parsed], event: Any, what: str) -> Parsed:
    try:
        return model.model_validate(event)
    except ValidationError as error:
        raise InvalidEvent(
            f"{what}: {error.error_count()} mistake(s)\n" + "\n".join(describe(error))
        ) from error


def _read_push(event: Any) -> ImagePush | Ignored:
    what = f"an event {_PUSHED[1]!r} of ECR"
    action = _parse(_ActionEvent, event, what).detail
    if (action.result, action.action_type) != ("SUCCESS", "PUSH"):
        return Ignored(f"{action.action_type} {action.result} deploys nothing, only PUSH SUCCESS")
    pushed = _parse(_ImageEvent, event, what)
    image = pushed.detail
    if not image.image_tag:
        return Ignored("no tag: the manifest of one platform, or an image that is only pulled so")
    if image.artifact_media_type not in _IMAGE_TYPES:
        return Ignored(f"an artifact of type {image.artifact_media_type} is no image")
    return ImagePush(
        source=f"{pushed.account}/{pushed.region}/{image.repository_name}",
        tag=image.image_tag,
        digest=image.image_digest,
        at=pushed.time.timestamp(),
        event_id=pushed.id,
    )


def _read_ended(event: Any) -> ExecutionEnded | Ignored:
    execution = _parse(_ExecutionEvent, event, f"an event {_ENDED[1]!r}").detail
    if execution.status == _RUNNING:
        return Ignored("an execution that begins frees nothing")
    try:
        about = _Input.model_validate(json.loads(execution.input or "{}"))
    except (ValueError, RecursionError):
        # The input of an execution is whatever somebody gave it; this one was about no deployment.
        about = _Input()
    return ExecutionEnded(
        execution.state_machine_arn, execution.name, about.deployment_id, about.service
    )


def _came_before(mine: Newest, seen: Newest, digests: Collection[str]) -> bool:
    """Whether a push is older than the newest; within the same moment, the later arrival is newer
    unless it has arrived before.
    """
    order = (mine.pushed_at, mine.image_pushed_at)
    newest = (seen.pushed_at, seen.image_pushed_at)
    return order < newest or (order == newest and mine.digest in digests)


def _deploying(pushes: Pushes, containers: Collection[str], digest: str) -> str:
    """The id of the wish that brings a digest to one of these containers, "" if none is known: the
    latest one may be about another repository.
    """
    for wish in (pushes.waiting, pushes.claimed):
        found = _digests(wish.images) if wish else {}
        if wish and any(found.get(name) == digest for name in containers):
            return wish.id
    return ""


def _overtaken(pushes: Pushes, push: ImagePush, wish: Wish, by: str, reason: str) -> Answer:
    """A push that is not to be deployed any more; recorded once, however often it is told."""
    if push.digest in pushes.digests:
        return Answer("none", f"{reason}; {push.digest} was asked for already", pushes)
    changed = _changed(
        pushes,
        number=pushes.number + 1,
        digests=_with(pushes.digests, push.digest),
        superseded=[*pushes.superseded, NeverStarted(wish=wish, by=by, reason=reason)],
    )
    return Answer("superseded", reason, changed)


def _replaced(old: Wish, new: Wish) -> NeverStarted:
    reason = f"tag {new.tag} was pushed before this one was started: see {new.id}"
    if old.images.items() & new.images.items():
        reason = f"deployed together with tag {new.tag}, by {new.id}"
    return NeverStarted(wish=old, by=new.id, reason=reason)


def _again(pushes: Pushes, claimed: Wish, now: float) -> Pushes:
    """Somebody was quicker by hand: the wish waits under a new number, as its name is used up."""
    if pushes.waiting:
        images = claimed.images | pushes.waiting.images
        waiting = pushes.waiting.model_copy(update={"images": images})
        return _changed(pushes, claimed=None, started=False, waiting=waiting)
    number = pushes.number + 1
    name, _, _ = claimed.id.rpartition("-")
    waiting = claimed.model_copy(update={"id": f"{name}-{number}", "asked_at": now})
    return _changed(pushes, claimed=None, started=False, waiting=waiting, number=number)


def _busy(pushes: Pushes, facts: Facts) -> str:
    """Why nothing can be started now, "" if it can."""
    lock = facts.lock
    if lock and lock.held and not lock.warm:
        return f"{lock.deployment_id} is being deployed"
    if pushes.claimed and facts.execution == "running" and not facts.planned:
        return f"{pushes.claimed.id} is being planned"
    return ""


def _taken_back(wish: Wish, last: Record) -> str:
    """Why what waits would only repeat what has just come to nothing, "" if it would not.

    What was pushed after that had ended is asked for by somebody who may know of it. What has no
    outcome yet is kept warm, and stays.
    """
    planned, ended_at = last.deployment, last.ended_at
    if planned is None or ended_at is None or last.outcome in _STAYED:
        return ""
    same = _digests(wish.images).items() <= _digests(planned.images).items()
    if not same or planned.overrides != Overrides() or wish.pushed_at > ended_at:
        return ""
    return (
        f"deployment {last.id} deployed the same and ended as {last.outcome}: {last.reason}; "
        "start it by hand to deploy it nevertheless"
    )


def _digests(images: Mapping[str, str]) -> dict[str, str]:
    """Container → digest: the repository may be written in more than one way."""
    return {name: image.partition("@")[2] for name, image in images.items()}


def _missed(source: str, image: TaggedImage, tag: str, at: float) -> ImagePush:
    return ImagePush(source, tag, image.digest, at, event_id="", kind="schedule")


def _with(digests: Sequence[str], digest: str) -> list[str]:
    return [*(one for one in digests if one != digest), digest][-_DIGESTS_KEPT:]


def _changed(pushes: Pushes, **changes: Any) -> Pushes:
    return pushes.model_copy(update=changes)
