"""A release of several services: all of them, or none. What decides is pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bluegreen.deployment import (
    DeploymentId,
    DeployRequest,
    Overrides,
    ServiceName,
    StartedBy,
)
from bluegreen.store import Way

# Those of its children, with "finish-" before it, have to fit into 80 characters:
# https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
_LONGEST_NAME = 73
_MARK = 8
# All of them have to fit into the cause of an execution, 32,768 characters.
_LONGEST_REASON = 1000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReleasedService(_Part):
    """What a release deploys of one service: a DeployRequest without what the release decides."""

    service: ServiceName
    images: dict[str, str] = Field(default_factory=dict)
    overrides: Overrides = Overrides()
    like: DeploymentId | None = None
    skip_bake: bool = False

    @model_validator(mode="after")
    def _deploys_something(self) -> ReleasedService:
        if not self.images and self.overrides == Overrides() and self.like is None:
            raise ValueError("nothing to deploy: give images, overrides or like")
        return self


class ReleaseRequest(_Part):
    """Execution input of a release. order: all at a time, or one after the other as listed."""

    action: Literal["release"] = "release"
    services: Annotated[list[ReleasedService], Field(min_length=1, max_length=20)]
    order: Literal["parallel", "in_order"] = "parallel"
    who: str = ""

    @model_validator(mode="after")
    def _each_once(self) -> ReleaseRequest:
        names = [one.service for one in self.services]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"services: every service once, got {', '.join(twice)} again")
        return self


def child_name(release_arn: str, service: str) -> str:
    """The execution of one service of a release, which is its deployment's id too.

    A hash tells apart what would be the same without: names that are cut, and shop-api of web and
    shop of api-web.
    """
    mark = hashlib.sha256(f"{release_arn}/{service}".encode()).hexdigest()[:_MARK]
    release = release_arn.rpartition(":")[2]
    return f"{release[: _LONGEST_NAME - len(service) - _MARK - 2]}-{mark}-{service}"


def child_input(
    one: ReleasedService, images: dict[str, str], request: ReleaseRequest, release_arn: str
) -> dict[str, Any]:
    """The execution input of one service's deployment. images: as they were resolved."""
    return DeployRequest(
        service=one.service,
        images=images,
        overrides=one.overrides,
        like=one.like,
        skip_bake=one.skip_bake,
        release=release_arn,
        started_by=StartedBy(
            kind="release", detail=release_arn.rpartition(":")[2], who=request.who
        ),
    ).model_dump(mode="json", exclude_none=True)


@dataclass(frozen=True)
class Child:
    """One service of a release as it is now.

    status, undo, finish: status of the execution of its deployment, of that which rolls it back and
    of that which finishes it, "" while there is none; undo_reason, finish_reason: why that failed.
    outcome, reason: of the deployment, "" before there is one. held: it waits for the release.
    lost: its execution has ended, and left its service's lock behind. taken: somebody else has
    taken it over, and has not ended yet.
    """

    name: str
    service: str
    status: str
    outcome: str = ""
    reason: str = ""
    held: bool = False
    lost: bool = False
    taken: bool = False
    undo: str = ""
    undo_reason: str = ""
    finish: str = ""
    finish_reason: str = ""

    @property
    def is_good(self) -> bool:
        return self.held or self.outcome == "nothing_to_do"

    @property
    def is_open(self) -> bool:
        """Whether it may yet be held, or has been since its lock was looked at."""
        return self.status == "RUNNING" and self.outcome in ("", "held")


@dataclass(frozen=True)
class Decision:
    """children: names of those to finish, or to undo, now."""

    step: Literal["finish", "undo", "wait", "succeeded", "failed"]
    children: Sequence[str] = field(default_factory=tuple)
    reason: str = ""


def way(children: Sequence[Child]) -> Way | None:
    """Which way a release goes, if that is not decided yet; None as long as it cannot be said.

    An execution that has ended may be said to run for a moment still:
    https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html
    """
    left = [child for child in children if not child.is_good]
    if not left:
        return "finish"
    return None if all(child.is_open for child in left) else "undo"


def settle(children: Sequence[Child], decided: Way | None) -> Decision:
    """What to do next on that way. Can be asked as often as wanted."""
    match decided:
        case "finish":
            return _finish(children)
        case "undo":
            return _undo(children)
        case None:
            runs = [child.service for child in children if not child.is_good]
            return Decision("wait", reason=f"{', '.join(runs)} still deployed")


def _finish(children: Sequence[Child]) -> Decision:
    """A release has succeeded once none of its services is held any longer."""
    held = [child for child in children if child.held]
    if finish := [child.name for child in held if not child.finish]:
        return Decision("finish", finish, "the old colours are told to go")
    if waits := [child.service for child in held if child.finish == "RUNNING"]:
        return Decision("wait", reason=f"{', '.join(waits)} still held")
    if held:
        return Decision("failed", reason="\n".join(_finished(child) for child in children))
    return Decision("succeeded")


def _undo(children: Sequence[Child]) -> Decision:
    if undo := [child.name for child in children if _is_left(child) and not child.undo]:
        return Decision("undo", undo, "the services go back")
    if waits := [child.service for child in children if _goes_on(child)]:
        return Decision("wait", reason=f"{', '.join(waits)} still going back")
    return Decision("failed", reason="\n".join(_ended(child) for child in children))


def _is_left(child: Child) -> bool:
    return child.held or child.lost


def _goes_on(child: Child) -> bool:
    if child.status == "RUNNING" or child.undo == "RUNNING":
        return True
    return child.taken and child.outcome != "rollback_incomplete"


def _finished(child: Child) -> str:
    """One line: how a service of a release ended that could not be finished."""
    if not child.held:
        return f"{child.service}: the new version is live"
    return (
        f"{child.service}: the new version is live, but the old colour is held until the next "
        f"sweep: {child.finish_reason}"
    )[:_LONGEST_REASON]


def _ended(child: Child) -> str:
    """One line: how a service of a failed release ended."""
    if not child.status and not child.outcome:
        return f"{child.service}: not started"
    if _is_left(child):
        return f"{child.service}: NOT rolled back, please look: {child.undo_reason}"[
            :_LONGEST_REASON
        ]
    word = child.outcome.replace("_", " ") or "failed"
    return f"{child.service}: {word}: {child.reason}"[:_LONGEST_REASON]
