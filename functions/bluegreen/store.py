"""Deployments and locks in DynamoDB.

Three kinds of items in one table, all with the string key ``pk``:

``deployment#<id>``: the deployment document with its snapshot, written before the first change; the
    weights that it meant to write; its phase; the fencing number of whoever has it in hand; at the
    end its outcome. ``approval`` is the task token while it waits for a person, ``promoted`` the
    step that somebody does not want to be watched any longer. ``approved_by`` and ``promoted_by``
    are who said so, ``answered_in`` the executions that have tried to say yes, ``watch`` where the
    last step is that was proved. ``service`` and ``started_at`` are the keys of the index
    ``by-service``, the history; ``started_by``, ``images``, the colours and ``states`` are in it,
    too. ``expires_at`` is when DynamoDB may delete it, which it does within days; what is live, and
    what a rollback goes back to, has none.
``lock#<service>``: who may change the service. ``fencing`` grows with every holder and never goes
    back; ``lease_expires_at`` is compared with the clock (DynamoDB's TTL deletes too late to be a
    lease). ``held`` is there only while the lock is held, which makes the index ``held-locks``
    sparse: it lists just the locks that a sweep has to look at. ``warm`` says that the deployment
    is over but for stopping the old colour, which the next one may take over. ``held_for`` is
    the release on whose word it waits when all but the drain is done. ``changed_by`` is the last
    deployment that began to change the service.
``release#<ARN of its execution>``: ``way``, which way a release goes, written before anything
    follows from it, and never changed. It is gone before another execution may have that name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bluegreen.color import Color
from bluegreen.deployment import Deployment, StartedBy
from bluegreen.errors import LockHeld, LockLost
from bluegreen.history import Promotion, StateTime, Summary
from bluegreen.traffic import Weights

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Phase = Literal["planning", "deploying", "baking", "committed", "rolling_back"]
Purpose = Literal["deploy", "roll_back"]
# What a release has come to: all of it, or nothing.
Way = Literal["finish", "undo"]
WatchStatus = Literal["after_shift", "watched", "over"]

# A name may be used again after 90 days, and what was decided for one must not hold for the next:
# https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
_RELEASE_KEPT_SECONDS = 60 * 86_400

_HELD = "held"
_INDEX = "held-locks"
_HISTORY = "by-service"
_BY_HAND = StartedBy()


@dataclass(frozen=True)
class Watch:
    """Where a step is that was proved: its hooks are asked, it is watched, or that is over."""

    step: int
    status: WatchStatus


@dataclass(frozen=True)
class Record:
    """A deployment as it is kept.

    phase: how far it has come ("baking": the switch was proved, "committed": it was baked), which
    stays when it has ended. deployment is None until it is planned, outcome and ended_at (epoch
    seconds) until it has ended. approval: the task token of a request for approval that nobody has
    answered; it stays when its time was up. answered_in: ARNs of the executions that have tried to
    say yes. promoted: the step that is not to be watched any longer. approved_by: who has approved
    it, "" if nobody has. promoted_by: who has ended the watching of a step. watch: of the last step
    that was proved, None before. images: as they were asked for until it is planned. revision: ARN
    of the task definition that it registered.
    """

    id: str
    service: str
    phase: Phase
    execution_arn: str
    started_at: float
    started_by: StartedBy
    images: Mapping[str, str]
    states: Sequence[StateTime]
    deployment: Deployment | None
    intents: Sequence[Weights]
    outcome: str | None
    reason: str | None
    ended_at: float | None
    approval: str | None
    promoted: int | None
    answered_in: Sequence[str]
    approved_by: str
    promoted_by: Sequence[Promotion]
    watch: Watch | None
    revision: str | None


@dataclass(frozen=True)
class Lock:
    """A service's lock. execution_arn: the execution that holds it, or held it last. held_for: the
    execution of the release on whose word it waits.
    """

    service: str
    deployment_id: str
    execution_arn: str
    fencing: int
    held: bool
    warm: bool
    held_for: str | None
    purpose: Purpose
    lease_expires_at: float
    changed_by: str | None


class Store:
    def __init__(self, client: DynamoDBClient, table: str, lease_seconds: int) -> None:
        self._client = client
        self._table = table
        self._lease = lease_seconds

    # Deployments

    def open(
        self,
        deployment_id: str,
        service: str,
        execution_arn: str,
        began: str,
        now: float,
        *,
        started_by: StartedBy = _BY_HAND,
        images: Mapping[str, str] | None = None,
    ) -> None:
        """Note that a deployment was asked for. Nothing happens if it is there already.

        images: as they were asked for. began: when its execution did. A record of an earlier
        execution of the same name goes: Step Functions lets a name be used again after 90 days.
        """
        item = _asked_for(deployment_id, service, images or {}, started_by, now)
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.put_item(
                TableName=self._table,
                Item=item | {"execution_arn": {"S": execution_arn}, "began": {"S": began}},
                ConditionExpression="attribute_not_exists(pk) OR began <> :began",
                ExpressionAttributeValues={":began": {"S": began}},
            )

    def never_started(
        self,
        deployment_id: str,
        service: str,
        images: Mapping[str, str],
        started_by: StartedBy,
        outcome: Literal["superseded", "refused"],
        by: str,
        reason: str,
        at: float,
        expires_at: float | None = None,
    ) -> None:
        """Note a deployment that was wished for, and never begun. Nothing happens if it is there.

        by: the deployment that was begun instead, "" while that is not known, or if none was. at,
        expires_at: epoch seconds; expires_at None: never.
        """
        item = _asked_for(deployment_id, service, images, started_by, at) | {
            "execution_arn": {"S": ""},
            "ended_at": _number(at),
            "outcome": {"S": outcome},
            "reason": {"S": reason},
            "superseded_by": {"S": by},
            **({"expires_at": _epoch(expires_at)} if expires_at else {}),
        }
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.put_item(
                TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(pk)"
            )

    def history(
        self, service: str, *, since: float, until: float, limit: int | None = None
    ) -> list[Summary]:
        """The deployments of a service, the newest first (eventually consistent).

        since, until: epoch seconds, between which they were asked for. limit: of so many, all if
        None.
        """
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            IndexName=_HISTORY,
            KeyConditionExpression="service = :service AND started_at BETWEEN :since AND :until",
            ExpressionAttributeValues={
                ":service": {"S": service},
                ":since": _number(since),
                ":until": _number(until),
            },
            ScanIndexForward=False,
            PaginationConfig={"MaxItems": limit} if limit else {},
        )
        return [_summary(item) for page in pages for item in page["Items"]]

    def read(self, deployment_id: str) -> Record | None:
        """A deployment as it is kept; None when there is none of that name."""
        item = self._get(f"deployment#{deployment_id}")
        if not item:
            return None
        document = item.get("document", {}).get("S")
        return Record(
            id=deployment_id,
            service=item["service"]["S"],
            phase=_phase(item["phase"]["S"]),
            execution_arn=item["execution_arn"]["S"],
            started_at=float(item["started_at"]["N"]),
            started_by=_started_by(item),
            images=_images(item),
            states=_states(item),
            deployment=Deployment.model_validate_json(document) if document else None,
            intents=[_weights(one["S"]) for one in item.get("intents", {}).get("L", [])],
            outcome=item.get("outcome", {}).get("S"),
            reason=item.get("reason", {}).get("S"),
            ended_at=_ended_at(item),
            approval=item.get("approval", {}).get("S"),
            promoted=int(item["promoted"]["N"]) if "promoted" in item else None,
            answered_in=item.get("answered_in", {}).get("SS", []),
            approved_by=_approved_by(item),
            promoted_by=_promoted_by(item),
            watch=_watch(item),
            revision=item.get("revision", {}).get("S"),
        )

    def save_plan(self, deployment: Deployment, phase: Phase) -> None:
        """Keep the plan with its snapshot: from here on the deployment can be undone.

        Its fencing number is that of the execution that has the deployment in hand.
        """
        self._client.update_item(
            TableName=self._table,
            Key=_key(f"deployment#{deployment.id}"),
            UpdateExpression=(
                "SET document = :document, phase = :phase, fencing = :fencing, "
                "images = :images, from_color = :from, to_color = :to"
            ),
            ExpressionAttributeValues={
                ":document": {"S": json.dumps(deployment.document())},
                ":phase": {"S": phase},
                ":fencing": {"N": str(deployment.fencing)},
                ":images": {"S": json.dumps(deployment.images)},
                ":from": {"S": deployment.from_color or ""},
                ":to": {"S": deployment.to_color},
            },
        )

    def enter(self, deployment: Deployment, phase: Phase) -> None:
        """Note how far a deployment has come. Raises LockLost."""
        self._note(deployment, "SET phase = :phase", {":phase": {"S": phase}})

    def intend(self, deployment: Deployment, weights: Weights) -> None:
        """Note weights before they are written: seen later, they are known as our own.

        Raises LockLost.
        """
        self._note(
            deployment,
            "SET intents = list_append(if_not_exists(intents, :none), :one)",
            {":none": {"L": []}, ":one": {"L": [{"S": json.dumps(weights)}]}},
        )

    def note_gap(self, deployment: Deployment, gap_ms: float) -> None:
        """Note how long there was no listener, in milliseconds. Raises LockLost."""
        self._note(deployment, "SET gap_ms = :gap", {":gap": {"N": str(gap_ms)}})

    def note_revision(self, deployment: Deployment, arn: str) -> None:
        """Note the task definition that a deployment has registered. Raises LockLost."""
        self._note(deployment, "SET revision = :arn", {":arn": {"S": arn}})

    def note_watch(self, deployment: Deployment, watch: Watch) -> None:
        """Note where the last step that was proved is. Raises LockLost."""
        self._note(deployment, "SET watch = :watch", {":watch": {"S": _said_of(watch)}})

    def ask_approval(self, deployment: Deployment, token: str) -> None:
        """Keep the task token that answers a request for approval. Raises LockLost."""
        self._note(deployment, "SET approval = :token", {":token": {"S": token}})

    def note_answer(self, deployment_id: str, execution_arn: str) -> None:
        """Note which execution is about to say yes to a request for approval."""
        self._update_if(
            "attribute_exists(pk)",
            f"deployment#{deployment_id}",
            "ADD answered_in :execution",
            {":execution": {"SS": [execution_arn]}},
        )

    def note_approved(self, deployment_id: str, token: str, by: str) -> None:
        """Note who has said yes to the request with this task token, and forget the token.

        Nothing happens when the token is not there any more.
        """
        self._update_if(
            "approval = :token",
            f"deployment#{deployment_id}",
            "SET approved_by = :by REMOVE approval",
            {":token": {"S": token}, ":by": {"S": by}},
        )

    def forget_approval(self, deployment_id: str, token: str) -> None:
        """Forget the task token of a request that nobody can answer any more.

        Nothing happens when it is not there any more.
        """
        self._update_if(
            "approval = :token",
            f"deployment#{deployment_id}",
            "REMOVE approval",
            {":token": {"S": token}},
        )

    def promote(self, deployment_id: str, step: int, by: str, seen: Watch | None) -> bool:
        """Note that somebody does not want this step to be watched any longer.

        seen: where it was when that was decided; False when it is not there any more.
        """
        one = Promotion(step=step, by=by).model_dump_json()
        unchanged = "watch = :seen" if seen else "attribute_not_exists(watch)"
        done = self._update_if(
            f"attribute_exists(pk) AND {unchanged}",
            f"deployment#{deployment_id}",
            "SET promoted = :step, "
            "promoted_by = list_append(if_not_exists(promoted_by, :none), :one)",
            {
                ":step": {"N": str(step)},
                ":none": {"L": []},
                ":one": {"L": [{"S": one}]},
                **({":seen": {"S": _said_of(seen)}} if seen else {}),
            },
        )
        return done is not None

    def close(
        self,
        deployment_id: str,
        outcome: str,
        reason: str,
        now: float,
        fencing: int,
        *,
        expires_at: float | None = None,
    ) -> bool:
        """Record how a deployment ended; False when it is not for this execution to say.

        Only the latest holder has a say: a deployment that is rolled back while its old colour is
        warm does not become a success when its own execution wakes up. A request that never was a
        deployment leaves no record. expires_at: epoch seconds, None: never.
        """
        done = self._update_if(
            "attribute_exists(pk) AND (attribute_not_exists(fencing) OR fencing <= :fencing)",
            f"deployment#{deployment_id}",
            "SET outcome = :outcome, reason = :reason, ended_at = :now, fencing = :fencing"
            + (", expires_at = :expires" if expires_at else " REMOVE expires_at"),
            {
                ":outcome": {"S": outcome},
                ":reason": {"S": reason},
                ":now": _number(now),
                ":fencing": {"N": str(fencing)},
                **({":expires": _epoch(expires_at)} if expires_at else {}),
            },
        )
        return done is not None

    def note_states(
        self, deployment_id: str, fencing: int, states: Sequence[StateTime], missing: str
    ) -> None:
        """Keep the times of states of a deployment that has ended, once they are read.

        missing: what of them could not be read, and why; "" when all are there. Nothing happens
        when somebody else has the deployment in hand meanwhile.
        """
        self._update_if(
            "fencing = :fencing",
            f"deployment#{deployment_id}",
            "SET states = :states, states_missing = :missing",
            {
                ":states": {"S": json.dumps([one.model_dump() for one in states])},
                ":missing": {"S": missing},
                ":fencing": {"N": str(fencing)},
            },
        )

    def expire(self, deployment_id: str, at: float) -> None:
        """Let a record go at that time, epoch seconds. Nothing happens when there is none."""
        self._update_if(
            "attribute_exists(pk)",
            f"deployment#{deployment_id}",
            "SET expires_at = :at",
            {":at": _epoch(at)},
        )

    def keep(self, deployment_id: str) -> None:
        """Never let a record go after all. Nothing happens when there is none."""
        self._update_if("attribute_exists(pk)", f"deployment#{deployment_id}", "REMOVE expires_at")

    # Releases

    def decide_release(self, release: str, way: Way, now: float) -> Way:
        """Write down which way a release goes; the answer is the way that was written first.

        release: the ARN of its execution. now: epoch seconds.
        """
        self._update_if(
            # DynamoDB deletes late: what is past its time says nothing of this release.
            "attribute_not_exists(pk) OR expires_at <= :now",
            f"release#{release}",
            "SET way = :way, expires_at = :at",
            {":way": {"S": way}, ":now": _epoch(now), ":at": _epoch(now + _RELEASE_KEPT_SECONDS)},
        )
        return _way(self._get(f"release#{release}"))

    def release_way(self, release: str, now: float) -> Way | None:
        """Which way a release goes; None as long as that is open. now: epoch seconds."""
        item = self._get(f"release#{release}")
        if not item or int(item["expires_at"]["N"]) <= int(now):
            return None
        return _way(item)

    def _note(self, deployment: Deployment, update: str, values: Mapping[str, Any]) -> None:
        done = self._update_if(
            "fencing <= :fencing",
            f"deployment#{deployment.id}",
            update,
            {":fencing": {"N": str(deployment.fencing)}, **values},
        )
        if done is None:
            raise LockLost(f"another execution has taken deployment {deployment.id} over")

    # Locks

    def lock(self, service: str) -> Lock | None:
        item = self._get(f"lock#{service}")
        return _lock(item) if item else None

    def check_free(self, service: str, execution_arn: str, now: float) -> Lock | None:
        """The lock as it is, if this execution may acquire it; None if nobody ever did.

        Raises LockHeld, naming the holder.
        """
        lock = self.lock(service)
        if lock and lock.held and not lock.warm and lock.execution_arn != execution_arn:
            raise LockHeld(_held_by(service, lock, now))
        return lock

    def acquire(
        self,
        service: str,
        deployment_id: str,
        execution_arn: str,
        now: float,
        seen: Lock | None,
    ) -> int:
        """Take a lock that is free, or only kept warm; returns the new fencing number.

        seen: the lock as check_free() showed it before the world was looked at. Nobody may have had
        it in between, or what was seen of the world is out of date. An execution that holds it
        already gets it again, with a higher number: what an earlier attempt of its own may still
        be doing is fenced off. Raises LockHeld, naming the holder.
        """
        return self._take(
            service,
            deployment_id,
            execution_arn,
            now,
            seen,
            "deploy",
            "(attribute_not_exists(held) OR attribute_exists(warm) OR execution_arn = :execution)",
        )

    def take_over(
        self, lock: Lock, deployment_id: str, execution_arn: str, now: float, purpose: Purpose
    ) -> int:
        """Take a lock as it was last seen, whoever has it; returns the new fencing number.

        What the holder still has running must be waited for, unless the lock was warm: then its
        holder sleeps, and has to find it lost when it wakes up. Raises LockHeld if the lock has
        changed hands since it was read, or its holder has woken up, unless this execution is the
        one that took it.
        """
        condition = "attribute_exists(warm)" if lock.warm else ""
        return self._take(lock.service, deployment_id, execution_arn, now, lock, purpose, condition)

    def prove(self, deployment: Deployment, now: float) -> None:
        """Renew the lease of a lock that is still held. Raises LockLost when it is not."""
        self._update_held(
            deployment, "SET lease_expires_at = :lease REMOVE warm", now + self._lease
        )

    def claim(self, deployment: Deployment, now: float) -> None:
        """prove(), and note that this deployment is the last one to change the service."""
        self._update_held(
            deployment,
            "SET lease_expires_at = :lease, changed_by = :deployment",
            now + self._lease,
            {":deployment": {"S": deployment.id}},
        )

    def keep_warm(self, deployment: Deployment, until: float) -> None:
        """Hold the lock until then, but let the next deployment have it before."""
        self._update_held(
            deployment,
            "SET lease_expires_at = :lease, warm = :warm",
            until + self._lease,
            {":warm": {"BOOL": True}},
        )

    def hold(self, deployment: Deployment, release: str, now: float) -> None:
        """Hold the lock until a release says how its deployments end.

        release: the ARN of its execution.
        """
        self._update_held(
            deployment,
            "SET lease_expires_at = :lease, held_for = :release",
            now + self._lease,
            {":release": {"S": release}},
        )

    def release(self, service: str, fencing: int, undone: Deployment | None = None) -> None:
        """Give the lock back. Nothing happens when somebody else has taken it over meanwhile.

        undone: a deployment that has changed nothing after all; the one before, if there was one,
        is the last again.
        """
        before = undone.follows if undone else None
        forgotten = ", changed_by" if undone and before is None else ""
        self._update_if(
            "fencing = :fencing",
            f"lock#{service}",
            ("SET changed_by = :before " if before else "")
            + f"REMOVE held, warm, held_for, lease_expires_at{forgotten}",
            {
                ":fencing": {"N": str(fencing)},
                **({":before": {"S": before}} if before else {}),
            },
        )

    def held_locks(self) -> list[Lock]:
        """All locks that are held now, as the index shows them (eventually consistent)."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            IndexName=_INDEX,
            KeyConditionExpression="held = :held",
            ExpressionAttributeValues={":held": {"S": _HELD}},
        )
        return [_lock(item) for page in pages for item in page["Items"]]

    def _take(
        self,
        service: str,
        deployment_id: str,
        execution_arn: str,
        now: float,
        seen: Lock | None,
        purpose: Purpose,
        condition: str,
    ) -> int:
        values: dict[str, Any] = {
            ":held": {"S": _HELD},
            ":deployment": {"S": deployment_id},
            ":execution": {"S": execution_arn},
            ":lease": _number(now + self._lease),
            ":purpose": {"S": purpose},
            ":one": {"N": "1"},
        }
        if seen is None:
            unchanged = "attribute_not_exists(pk)"
        else:
            values[":seen"] = {"N": str(seen.fencing)}
            unchanged = "fencing = :seen" + (f" AND {condition}" if condition else "")
        taken = self._update_if(
            unchanged,
            f"lock#{service}",
            "SET held = :held, deployment_id = :deployment, execution_arn = :execution, "
            "purpose = :purpose, lease_expires_at = :lease REMOVE warm, held_for ADD fencing :one",
            values,
            "ALL_NEW",
        )
        if taken is not None:
            return int(taken["fencing"]["N"])
        holder = self.lock(service)
        # The SDK repeats a call whose answer was lost: then it was this execution after all.
        if holder and holder.held and holder.execution_arn == execution_arn:
            return holder.fencing
        raise LockHeld(_held_by(service, holder, now))

    def _update_held(
        self,
        deployment: Deployment,
        update: str,
        lease: float,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        done = self._update_if(
            "attribute_exists(held) AND fencing = :fencing",
            f"lock#{deployment.service}",
            update,
            {
                ":fencing": {"N": str(deployment.fencing)},
                ":lease": _number(lease),
                **(values or {}),
            },
        )
        if done is None:
            raise LockLost(
                f"deployment {deployment.id} no longer holds the lock of service "
                f"{deployment.service}: another execution has taken over"
            )

    def _update_if(
        self,
        condition: str,
        pk: str,
        update: str,
        values: Mapping[str, Any] | None = None,
        returning: Literal["ALL_NEW", "NONE"] = "NONE",
    ) -> Mapping[str, Any] | None:
        """UpdateItem; the attributes it returns, or None when the condition does not hold."""
        # Empty values are refused, and so have to be left out.
        more: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=_key(pk),
                UpdateExpression=update,
                ConditionExpression=condition,
                ReturnValues=returning,
                **more,
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return None
        return answer.get("Attributes", {})

    def _get(self, pk: str) -> Mapping[str, Any]:
        answer = self._client.get_item(TableName=self._table, Key=_key(pk), ConsistentRead=True)
        return answer.get("Item", {})


def _key(pk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}}


def _asked_for(
    deployment_id: str, service: str, images: Mapping[str, str], started_by: StartedBy, at: float
) -> dict[str, Any]:
    """What is kept of every deployment, from the moment at which it was asked for."""
    return {
        "pk": {"S": f"deployment#{deployment_id}"},
        "service": {"S": service},
        "phase": {"S": "planning"},
        "started_at": _number(at),
        "started_by": {"S": started_by.model_dump_json()},
        "images": {"S": json.dumps(dict(images))},
    }


def _number(value: float) -> dict[str, Any]:
    return {"N": f"{value:.3f}"}


def _epoch(value: float) -> dict[str, Any]:
    """A time as TTL wants it, in whole seconds.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/time-to-live-ttl-before-you-start.html
    """
    return {"N": str(int(value))}


def _phase(value: str) -> Phase:
    match value:
        case "planning" | "deploying" | "baking" | "committed" | "rolling_back":
            return value
        case _:
            raise ValueError(f"unknown phase {value!r} in the deployments table")


def _way(item: Mapping[str, Any]) -> Way:
    return "finish" if item["way"]["S"] == "finish" else "undo"


def _weights(text: str) -> Weights:
    return {Color(color): weight for color, weight in json.loads(text).items()}


def _started_by(item: Mapping[str, Any]) -> StartedBy:
    said = item.get("started_by", {}).get("S")
    return StartedBy.model_validate_json(said) if said else _BY_HAND


def _images(item: Mapping[str, Any]) -> dict[str, str]:
    images: dict[str, str] = json.loads(item.get("images", {}).get("S", "{}"))
    return images


def _states(item: Mapping[str, Any]) -> list[StateTime]:
    return [
        StateTime.model_validate(one) for one in json.loads(item.get("states", {}).get("S", "[]"))
    ]


def _approved_by(item: Mapping[str, Any]) -> str:
    return str(item.get("approved_by", {}).get("S", ""))


def _promoted_by(item: Mapping[str, Any]) -> list[Promotion]:
    said = item.get("promoted_by", {}).get("L", [])
    return [Promotion.model_validate_json(one["S"]) for one in said]


def _ended_at(item: Mapping[str, Any]) -> float | None:
    return float(item["ended_at"]["N"]) if "ended_at" in item else None


def _said_of(watch: Watch) -> str:
    return f"{watch.step} {watch.status}"


def _watch(item: Mapping[str, Any]) -> Watch | None:
    step, _, status = item.get("watch", {}).get("S", "").partition(" ")
    match status:
        case "after_shift" | "watched" | "over":
            return Watch(int(step), status)
        case _:
            return None


def _color(item: Mapping[str, Any], name: str) -> Color | None:
    said = item.get(name, {}).get("S")
    return Color(said) if said else None


def _summary(item: Mapping[str, Any]) -> Summary:
    return Summary(
        id=item["pk"]["S"].removeprefix("deployment#"),
        service=item["service"]["S"],
        execution_arn=item["execution_arn"]["S"],
        started_at=float(item["started_at"]["N"]),
        started_by=_started_by(item),
        images=_images(item),
        from_color=_color(item, "from_color"),
        to_color=_color(item, "to_color"),
        outcome=item.get("outcome", {}).get("S"),
        reason=item.get("reason", {}).get("S"),
        ended_at=_ended_at(item),
        states=_states(item),
        states_missing=item.get("states_missing", {}).get("S", ""),
        approved_by=_approved_by(item),
        promoted_by=_promoted_by(item),
    )


def _lock(item: Mapping[str, Any]) -> Lock:
    return Lock(
        service=item["pk"]["S"].removeprefix("lock#"),
        deployment_id=item["deployment_id"]["S"],
        execution_arn=item["execution_arn"]["S"],
        fencing=int(item["fencing"]["N"]),
        held="held" in item,
        warm="warm" in item,
        held_for=item.get("held_for", {}).get("S"),
        purpose="roll_back" if item["purpose"]["S"] == "roll_back" else "deploy",
        lease_expires_at=float(item.get("lease_expires_at", {}).get("N", "0")),
        changed_by=item.get("changed_by", {}).get("S"),
    )


def _held_by(service: str, holder: Lock | None, now: float) -> str:
    if holder is None:
        return f"the lock of service {service} could not be taken; try again"
    return (
        f"service {service} is being deployed by {holder.deployment_id} "
        f"({holder.execution_arn}); {_until(holder, now)}"
    )


def _until(holder: Lock, now: float) -> str:
    """What ends a lock. Nobody takes it up because of its lease while its release runs."""
    if holder.held_for:
        return f"it waits for its release {holder.held_for}"
    left = holder.lease_expires_at - now
    if left > 0:
        return f"its lease ends in {left:.0f} s"
    return "its lease is over and recovery takes it up within minutes"
