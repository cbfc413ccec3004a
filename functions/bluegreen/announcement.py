"""What people and other programs are told of a deployment, and in which words. Pure.

A state sends an Announcement to the queue (runtime/announcements.py); TellPeople makes of it an
event on EventBridge, whose ``detail`` is an EventDetail (docs/events.schema.json), a message to the
stack's SNS topic and one to Slack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, assert_never

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bluegreen.color import Color
from bluegreen.console import link
from bluegreen.deployment import Deployment, StartedBy
from bluegreen.history import Promotion

Kind = Literal[
    "started",
    "waiting",
    "shifted",
    "succeeded",
    "failed",
    "rolled_back",
    "superseded",
    "hook_failed",
]

# The source of our events on EventBridge.
SOURCE = "ecs-bluegreen"

_LONGEST_REASON = 4000
# "must be less than 100 characters long", ASCII, without control characters:
# https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
_LONGEST_SUBJECT = 99
# Neither SQS nor SNS takes them all, and none says anything to a person.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_UNSPEAKABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_SHORT_DIGEST = 12


def _speakable(text: Any) -> Any:
    """A text as it may be told: log lines in it may hold anything, and be of any length."""
    if not isinstance(text, str):
        return text
    said = _UNSPEAKABLE.sub("", text)
    return said if len(said) <= _LONGEST_REASON else said[: _LONGEST_REASON - 1] + "…"


Words = Annotated[str, BeforeValidator(_speakable)]


class _Told(BaseModel):
    """What an announcement and its event have in common."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_serialization_defaults_required=True
    )

    kind: Kind
    deployment_id: str
    service: str
    at: float = Field(description="when it happened, epoch seconds")
    step: str = Field(
        default="",
        description="what tells several of a kind apart: the percent of the traffic that has been "
        "shifted, the hook that failed, how a failed deployment ended",
    )
    reason: Words = Field(default="", description="why, for a person")
    outcome: str = Field(default="", description="how it ended, in the words of the history")
    from_color: Color | None = Field(default=None, description="what was live when it began")
    to_color: Color | None = None
    images: dict[str, str] = Field(
        default_factory=dict, description="container to repository@digest, or as it was asked for"
    )
    started_by: StartedBy = StartedBy()
    execution_arn: str = Field(
        description="the execution of Step Functions that tells; of a deployment that was never "
        "started the one in its place, empty if there is none, or it is not known"
    )
    details: list[Words] = Field(default_factory=list, description="what else there is to say")


class Announcement(_Told):
    """slack: the name of the webhook that is told, besides EventBridge and the topic."""

    slack: str | None = None

    @classmethod
    def about(
        cls,
        deployment: Deployment,
        kind: Kind,
        at: float,
        *,
        reason: str = "",
        step: str | int = "",
        outcome: str = "",
        details: Sequence[str] = (),
        execution_arn: str | None = None,
    ) -> Self:
        """An announcement of a planned deployment. at: epoch seconds.

        execution_arn: the execution that tells, if it is not the deployment's own.
        """
        notify = deployment.configuration.notify
        return cls(
            kind=kind,
            deployment_id=deployment.id,
            service=deployment.service,
            at=at,
            step=str(step),
            reason=reason,
            outcome=outcome,
            from_color=deployment.from_color,
            to_color=deployment.to_color,
            images=deployment.images,
            started_by=deployment.started_by,
            execution_arn=execution_arn or deployment.execution_arn,
            details=list(details),
            slack=notify.slack if notify else None,
        )

    @property
    def key(self) -> str:
        """What this is about: two announcements of one key are the same thing, told once."""
        return f"{self.deployment_id}/{self.kind}" + (f"/{self.step}" if self.step else "")

    def body(self) -> str:
        """As the body of a message: ASCII, which SQS takes whatever the text holds."""
        return json.dumps(self.model_dump(mode="json"))


class EventDetail(_Told):
    """``detail`` of the events that ecs-bluegreen sends to EventBridge, source ``ecs-bluegreen``.

    One thing may come as more than one event, all of them with the same id.
    """

    version: Literal["1"] = "1"
    id: str = Field(description="the same in every event about the same thing")
    link: str = Field(description="the execution in the console, empty without one")


def detail(announcement: Announcement) -> EventDetail:
    """``detail`` of the event."""
    return EventDetail(
        **announcement.model_dump(exclude={"slack"}),
        id=announcement.key,
        link=_where(announcement),
    )


def detail_type(kind: Kind) -> str:
    """``detail-type`` of the event, by which rules choose: Deployment Rolled Back."""
    return "Deployment " + kind.replace("_", " ").title()


def allowed_by(approved_by: str, promoted_by: Sequence[Promotion]) -> list[str]:
    """Who has let a deployment go on, a line each; approved_by: "" if nobody was asked."""
    promoted = [f"{one.by} ended the watching of step {one.step}" for one in promoted_by]
    return [*([f"approved by {approved_by}"] if approved_by else []), *promoted]


def headline(announcement: Announcement) -> str:
    """One line that says it."""
    return f"{announcement.service}: {_said(announcement)}"


def subject(announcement: Announcement) -> str:
    """The headline as the subject of an e-mail."""
    line = headline(announcement).replace("→", "->")
    return re.sub(r"[^\x20-\x7e]", "?", line)[:_LONGEST_SUBJECT]


def details(announcement: Announcement) -> list[str]:
    """The lines below the headline; the last one is the link, if there is one."""
    images = [f"{name}: {_short(image)}" for name, image in announcement.images.items()]
    return [
        *images,
        f"started by {announcement.started_by}",
        *(_how_to_answer(announcement) if announcement.kind == "waiting" else []),
        *announcement.reason.splitlines(),
        *announcement.details,
        *([where] if (where := _where(announcement)) else []),
    ]


def _where(announcement: Announcement) -> str:
    """The link to the execution, "" without one."""
    return link(announcement.execution_arn) if announcement.execution_arn else ""


def _said(announcement: Announcement) -> str:
    which = f"deployment {announcement.deployment_id}"
    before, after = announcement.from_color or "nothing", announcement.to_color or "nothing"
    match announcement.kind:
        case "started":
            return f"{which} started, {before} → {after}"
        case "waiting":
            return f"{which} waits for approval, {before} → {after}"
        case "shifted":
            return f"{which}: {announcement.step} % of the traffic is on {after}"
        case "succeeded":
            return f"{which} succeeded, {after} is live"
        case "rolled_back":
            return f"{which} was rolled back, {before} is live"
        case "superseded":
            return f"{which} was superseded by a newer one"
        case "hook_failed":
            return f"{which} has ended, but its hook {announcement.step} failed"
        case "failed":
            return f"{which} {_failed(announcement.outcome)}"
        case _:
            assert_never(announcement.kind)


def _failed(outcome: str) -> str:
    match outcome:
        case "refused":
            return "was refused, nothing was changed"
        case "traffic_left":
            return "ended with traffic left where it is: please look"
        case "rollback_incomplete":
            return "failed, and is not rolled back yet: please look"
        case _:
            return "failed"


def _short(image: str) -> str:
    """repository@sha256:… with a digest that a person can compare."""
    repository, at, digest = image.partition("@sha256:")
    return f"{repository}{at}{digest[:_SHORT_DIGEST]}" if at else image


def _how_to_answer(announcement: Announcement) -> list[str]:
    """The commands of the AWS CLI that say yes and no."""
    machine = announcement.execution_arn.replace(":execution:", ":stateMachine:").rpartition(":")[0]

    def command(action: str, **more: int) -> str:
        request = json.dumps(
            {"action": action, "deployment_id": announcement.deployment_id, **more}
        )
        start = f"aws stepfunctions start-execution --state-machine-arn {machine}"
        return f"{start} --input '{request}'"

    # 0 %: whoever says yes after somebody else does not end the first step.
    return [f"yes: {command('promote', percent=0)}", f"no: {command('abort')}"]
