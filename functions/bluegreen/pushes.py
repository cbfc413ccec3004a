"""What pushes have asked for, a service: one item a service in the deployments table.

``push#<service>``: ``document`` is a Pushes, ``version`` grows with every write. A write says which
version it was made from, so of two at once one finds that it has to look again. The item holds the
names ``service`` and ``started_at`` only inside its document: it is no deployment, and the index of
deployments must not show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Wish(_Part):
    """A deployment that a push asks for. id: the deployment's, and its execution's name.

    images: container → ``repository@sha256:…``. tag: what was pushed. pushed_at, asked_at: epoch
    seconds. event_id: of the event that told, "" when the schedule found it. slack: the webhook of
    the service.
    """

    id: str
    images: dict[str, str]
    tag: str
    kind: Literal["push", "schedule"]
    event_id: str
    pushed_at: float
    asked_at: float
    slack: str | None = None


class Newest(_Part):
    """The newest push to a repository that was seen. Times in epoch seconds.

    pushed_at: when the tag was pushed. image_pushed_at: when the image was, which is earlier where
    a tag was moved to an image that had been there.
    """

    tag: str
    digest: str
    pushed_at: float
    image_pushed_at: float


class NeverStarted(_Part):
    """A wish that was never started, which is still to be recorded. by: the deployment that came in
    its place, "" while there is none. outcome: "refused" is what nothing came in the place of.
    """

    wish: Wish
    by: str
    reason: str
    outcome: Literal["superseded", "refused"] = "superseded"


class Pushes(_Part):
    """number: grows with every wish. waiting: the wish that is to be started next. claimed: the one
    that was started last, or is being started by somebody who may have died over it; started says
    that it has been. claimed_at: epoch seconds. newest: repository (``account/region/name``) → its
    newest push. digests: those that were ever asked for, the newest last. superseded: what was
    never started, for whatever reason, and is still to be recorded.
    """

    service: str
    number: int = 0
    waiting: Wish | None = None
    claimed: Wish | None = None
    claimed_at: float = 0.0
    started: bool = False
    newest: dict[str, Newest] = Field(default_factory=dict)
    digests: list[str] = Field(default_factory=list)
    superseded: list[NeverStarted] = Field(default_factory=list)


def read(client: DynamoDBClient, table: str, service: str) -> tuple[Pushes, int]:
    """What pushes to a service have asked for, and the version of that: 0 when there was none."""
    answer = client.get_item(TableName=table, Key=_key(service), ConsistentRead=True)
    if "Item" not in answer:
        return Pushes(service=service), 0
    item = answer["Item"]
    return Pushes.model_validate_json(item["document"]["S"]), int(item["version"]["N"])


def write(client: DynamoDBClient, table: str, pushes: Pushes, version: int) -> bool:
    """Replace the version that it was made from. False when somebody else has, meanwhile."""
    try:
        client.put_item(
            TableName=table,
            Item={
                **_key(pushes.service),
                "document": {"S": pushes.model_dump_json()},
                "version": {"N": str(version + 1)},
            },
            ConditionExpression="attribute_not_exists(pk) OR version = :version",
            ExpressionAttributeValues={":version": {"N": str(version)}},
        )
    except client.exceptions.ConditionalCheckFailedException:
        return False
    return True


def _key(service: str) -> dict[str, dict[str, str]]:
    return {"pk": {"S": f"push#{service}"}}
