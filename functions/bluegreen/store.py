"""Deployments and locks in DynamoDB.

Two kinds of items in one table, both with the string key ``pk``:

``deployment#<id>``: the deployment document with its snapshot, written before the first change; the
    weights that it meant to write; its phase; the fencing number of whoever has it in hand; at the
    end its outcome.
``lock#<service>``: who may change the service. ``fencing`` grows with every holder and never goes
    back; ``lease_expires_at`` is compared with the clock (DynamoDB's TTL deletes too late to be a
    lease). ``held`` is there only while the lock is held, which makes the index ``held-locks``
    sparse: it lists just the locks that a sweep has to look at. ``warm`` says that the deployment
    is over but for stopping the old colour, which the next one may take over. ``changed_by`` is the
    last deployment that began to change the service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bluegreen.color import Color
from bluegreen.deployment import Deployment
from bluegreen.errors import LockHeld, LockLost
from bluegreen.traffic import Weights

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Phase = Literal["planning", "deploying", "baking", "committed", "rolling_back"]
Purpose = Literal["deploy", "roll_back"]

_HELD = "held"
_INDEX = "held-locks"


@dataclass(frozen=True)
class Record:
    """A deployment as it is kept.

    phase: how far it has come ("baking": the switch was proved, "committed": it was baked), which
    stays when it has ended. deployment is None until it is planned, outcome until it has ended.
    """

    id: str
    service: str
    phase: Phase
    deployment: Deployment | None
    intents: Sequence[Weights]
    outcome: str | None
    reason: str | None


@dataclass(frozen=True)
class Lock:
    """A service's lock. execution_arn: the execution that holds it, or held it last."""

    service: str
    deployment_id: str
    execution_arn: str
    fencing: int
    held: bool
    warm: bool
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
        self, deployment_id: str, service: str, execution_arn: str, began: str, now: float
    ) -> None:
        """Note that a deployment was asked for. Nothing happens if it is there already.

        began: when its execution did. A record of an earlier execution of the same name goes: Step
        Functions lets a name be used again after 90 days.
        """
        try:
            self._client.put_item(
                TableName=self._table,
                Item={
                    "pk": {"S": f"deployment#{deployment_id}"},
                    "service": {"S": service},
                    "phase": {"S": "planning"},
                    "execution_arn": {"S": execution_arn},
                    "began": {"S": began},
                    "started_at": _number(now),
                },
                ConditionExpression="attribute_not_exists(pk) OR began <> :began",
                ExpressionAttributeValues={":began": {"S": began}},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

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
            deployment=Deployment.model_validate_json(document) if document else None,
            intents=[_weights(one["S"]) for one in item.get("intents", {}).get("L", [])],
            outcome=item.get("outcome", {}).get("S"),
            reason=item.get("reason", {}).get("S"),
        )

    def save_plan(self, deployment: Deployment, phase: Phase) -> None:
        """Keep the plan with its snapshot: from here on the deployment can be undone.

        Its fencing number is that of the execution that has the deployment in hand.
        """
        self._client.update_item(
            TableName=self._table,
            Key=_key(f"deployment#{deployment.id}"),
            UpdateExpression="SET document = :document, phase = :phase, fencing = :fencing",
            ExpressionAttributeValues={
                ":document": {"S": json.dumps(deployment.document())},
                ":phase": {"S": phase},
                ":fencing": {"N": str(deployment.fencing)},
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

    def close(self, deployment_id: str, outcome: str, reason: str, now: float, fencing: int) -> str:
        """Record how a deployment ended, and return the outcome that stands in the end.

        Only the latest holder has a say: a deployment that is rolled back while its old colour is
        warm does not become a success when its own execution wakes up. A request that never was a
        deployment leaves no record.
        """
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(f"deployment#{deployment_id}"),
                UpdateExpression=(
                    "SET outcome = :outcome, reason = :reason, ended_at = :now, fencing = :fencing"
                ),
                ConditionExpression=(
                    "attribute_exists(pk) AND "
                    "(attribute_not_exists(fencing) OR fencing <= :fencing)"
                ),
                ExpressionAttributeValues={
                    ":outcome": {"S": outcome},
                    ":reason": {"S": reason},
                    ":now": _number(now),
                    ":fencing": {"N": str(fencing)},
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            record = self.read(deployment_id)
            return record.outcome if record and record.outcome else outcome
        return outcome

    def _note(self, deployment: Deployment, update: str, values: Mapping[str, Any]) -> None:
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(f"deployment#{deployment.id}"),
                UpdateExpression=update,
                ConditionExpression="fencing <= :fencing",
                ExpressionAttributeValues={
                    ":fencing": {"N": str(deployment.fencing)},
                    **values,
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            raise LockLost(
                f"another execution has taken deployment {deployment.id} over"
            ) from error

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

    def release(self, service: str, fencing: int, changed_by: str | None = None) -> None:
        """Give the lock back. Nothing happens when somebody else has taken it over meanwhile.

        changed_by: the deployment before, when this one has been undone.
        """
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(f"lock#{service}"),
                UpdateExpression=("SET changed_by = :before " if changed_by else "")
                + "REMOVE held, warm, lease_expires_at",
                ConditionExpression="fencing = :fencing",
                ExpressionAttributeValues={
                    ":fencing": {"N": str(fencing)},
                    **({":before": {"S": changed_by}} if changed_by else {}),
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

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
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=_key(f"lock#{service}"),
                UpdateExpression=(
                    "SET held = :held, deployment_id = :deployment, execution_arn = :execution, "
                    "purpose = :purpose, lease_expires_at = :lease REMOVE warm ADD fencing :one"
                ),
                ConditionExpression=unchanged,
                ExpressionAttributeValues=values,
                ReturnValues="ALL_NEW",
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            holder = self.lock(service)
            # The SDK repeats a call whose answer was lost: then it was this execution after all.
            if holder and holder.held and holder.execution_arn == execution_arn:
                return holder.fencing
            raise LockHeld(_held_by(service, holder, now)) from error
        return int(answer["Attributes"]["fencing"]["N"])

    def _update_held(
        self,
        deployment: Deployment,
        update: str,
        lease: float,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(f"lock#{deployment.service}"),
                UpdateExpression=update,
                ConditionExpression="attribute_exists(held) AND fencing = :fencing",
                ExpressionAttributeValues={
                    ":fencing": {"N": str(deployment.fencing)},
                    ":lease": _number(lease),
                    **(values or {}),
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            raise LockLost(
                f"deployment {deployment.id} no longer holds the lock of service "
                f"{deployment.service}: another execution has taken over"
            ) from error

    def _get(self, pk: str) -> Mapping[str, Any]:
        answer = self._client.get_item(TableName=self._table, Key=_key(pk), ConsistentRead=True)
        return answer.get("Item", {})


def _key(pk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}}


def _number(value: float) -> dict[str, Any]:
    return {"N": f"{value:.3f}"}


def _phase(value: str) -> Phase:
    match value:
        case "planning" | "deploying" | "baking" | "committed" | "rolling_back":
            return value
        case _:
            raise ValueError(f"unknown phase {value!r} in the deployments table")


def _weights(text: str) -> Weights:
    return {Color(color): weight for color, weight in json.loads(text).items()}


def _lock(item: Mapping[str, Any]) -> Lock:
    return Lock(
        service=item["pk"]["S"].removeprefix("lock#"),
        deployment_id=item["deployment_id"]["S"],
        execution_arn=item["execution_arn"]["S"],
        fencing=int(item["fencing"]["N"]),
        held="held" in item,
        warm="warm" in item,
        purpose="roll_back" if item["purpose"]["S"] == "roll_back" else "deploy",
        lease_expires_at=float(item.get("lease_expires_at", {}).get("N", "0")),
        changed_by=item.get("changed_by", {}).get("S"),
    )


def _held_by(service: str, holder: Lock | None, now: float) -> str:
    if holder is None:
        return f"the lock of service {service} could not be taken; try again"
    left = holder.lease_expires_at - now
    lease = (
        f"its lease ends in {left:.0f} s"
        if left > 0
        else "its lease is over and recovery takes it up within minutes"
    )
    return (
        f"service {service} is being deployed by {holder.deployment_id} "
        f"({holder.execution_arn}); {lease}"
    )
