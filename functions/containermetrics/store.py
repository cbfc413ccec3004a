"""What the pusher keeps between invocations, in one DynamoDB table with the keys ``pk`` and ``sk``.

| pk | sk | what |
|---|---|---|
| ``backlog#<cluster>`` | ``<minute>#<part>`` | values of hosts that Mackerel has not taken yet |
| ``backlog#<cluster>`` | ``<minute>#services`` | values of its services, and plugins' graphs |
| ``backlog#<cluster>`` | ``<minute>#annotation#<deployment>`` | an annotation that it has not |
| ``readings#<cluster>#<minute>`` | ``<batch>#<part>`` | readings until they are combined |
| ``samples#<cluster>`` | ``<instance id>`` | the last counters there, and those before |
| ``hosts#<cluster>`` | ``<custom identifier>`` | the Mackerel host of an ECS service |
| ``creation#<custom identifier>`` | ``claim`` | who may make a Mackerel host |
| ``line#<Mackerel service>`` | ``<cluster>`` | who waits to post values of that service |
| ``slots#<cluster>`` | ``<ECS service>/<container>`` | which task has which slot |
| ``cluster#<cluster>`` | ``watermark``, ``graphs``, ``delivered`` | one value each |

Values are JSON, compressed where there are many. ``expires_at`` lets DynamoDB delete what nobody
needs any more; nothing relies on when it does.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from containermetrics.model import (
    Annotation,
    Batch,
    HostMetrics,
    PluginValue,
    Reading,
    Sample,
    Source,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Made = TypeVar("Made", Annotation, HostMetrics, "KnownHost", "Place")

# An item of DynamoDB has 400 KB at most. Compressed, a value with its name takes some 10 bytes, and
# a reading of some 90 values some 500 (tests/functions/test_metrics_store.py measures it).
_VALUES_PER_PART = 8_000
_READINGS_PER_PART = 200
_DECIMALS = 6
_ATTEMPTS = 5
_KEYS_PER_GET = 100
_CLAIM_SECONDS = 60
_HOUR = 3600
_DAY = 86_400
# Values older than a day are not taken by Mackerel, and so not worth keeping.
_KEPT_SECONDS = 2 * _DAY


@dataclass(frozen=True)
class Unreadable:
    """An item that is not as this version writes it. reason: why, for the log."""

    reason: str


@dataclass(frozen=True)
class Kept:
    """Something that waits for Mackerel. key, version: by which it is forgotten, unless it was
    replaced meanwhile. minute: epoch seconds. A batch has either hosts or services.
    """

    key: str
    minute: int
    item: Batch | Annotation | Unreadable
    version: str


@dataclass(frozen=True)
class KnownHost:
    """A Mackerel host as it was left. absences: runs in a row without its ECS service. minute: of
    the values that it was judged by (epoch seconds); later ones may change it, earlier ones not.
    """

    id: str
    status: str
    role_fullname: str
    absences: int = 0
    minute: int = 0


@dataclass(frozen=True)
class Place:
    """A cluster's place in a line. since: when it came there; at: when it was last there. Both are
    epoch seconds.
    """

    since: float
    at: float


@dataclass(frozen=True)
class Part:
    """What one batch of hosts said in a minute."""

    name: str
    readings: Sequence[Reading]
    plugin_values: Sequence[PluginValue]
    graphs: Sequence[Mapping[str, Any]]
    problems: Sequence[str]
    hosts_missing: int


class MetricsStore:
    """Thin: it writes, reads and shapes. Errors of botocore leave it as they are."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    # ------------------------------------------------------------------------------- the backlog

    def keep(self, batch: Batch) -> None:
        """Put a batch into the backlog; the same cluster and minute again replaces it."""
        pk, prefix = f"backlog#{batch.cluster}", f"{batch.minute:012d}#"
        expires_at = batch.minute + _KEPT_SECONDS
        written = set()
        for number, hosts in enumerate(_parts(batch.hosts)):
            key = f"{prefix}{number:03d}"
            written.add(key)
            self._put(pk, key, {"hosts": [asdict(host) for host in hosts]}, expires_at)
        if batch.services or batch.graphs:
            key = f"{prefix}services"
            written.add(key)
            services = {"services": batch.services, "graphs": list(batch.graphs)}
            self._put(pk, key, services, expires_at)
        # It may have had more parts before, and their values are older.
        for item in self._query(pk, prefix, keys_only=True):
            key = item["sk"]["S"]
            if key not in written and "#annotation#" not in key:
                self._delete(pk, key)

    def keep_annotation(self, cluster: str, annotation: Annotation) -> None:
        """Put an annotation into the backlog of the cluster that it is about."""
        self._put(
            f"backlog#{cluster}",
            f"{annotation.to:012d}#annotation#{annotation.key}",
            asdict(annotation),
            expires_at=annotation.to + _KEPT_SECONDS,
        )

    def backlog(self, cluster: str) -> Iterator[Kept]:
        """All that waits, oldest first."""
        for item in self._query(f"backlog#{cluster}"):
            key = item["sk"]["S"]
            minute, kind = int(key.split("#")[0]), key.split("#")[1]
            version = item.get("version", {}).get("S", "")
            try:
                found = _kept(cluster, minute, kind, _body(item))
            except (TypeError, KeyError, ValueError, zlib.error) as error:
                yield Kept(key, minute, Unreadable(repr(error)), version)
            else:
                yield Kept(key, minute, found, version)

    def waiting(self, cluster: str) -> int:
        """How many items wait."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            Select="COUNT",
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"backlog#{cluster}"}},
        )
        return sum(page["Count"] for page in pages)

    def forget(self, cluster: str, kept: Kept) -> None:
        """Take something out of the backlog, unless something newer took its place."""
        try:
            self._client.delete_item(
                TableName=self._table,
                Key=_key(f"backlog#{cluster}", kept.key),
                ConditionExpression="version = :version OR attribute_not_exists(version)",
                ExpressionAttributeValues={":version": {"S": kept.version}},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    # -------------------------------------------------------------------------- Mackerel's hosts

    def known_hosts(self, cluster: str) -> dict[str, KnownHost]:
        """The Mackerel hosts of a cluster by custom identifier."""
        return {
            item["sk"]["S"]: _made(KnownHost, _body(item))
            for item in self._query(f"hosts#{cluster}")
        }

    def remember_host(self, cluster: str, custom_identifier: str, host: KnownHost) -> None:
        """Note how a host was left."""
        self._put(f"hosts#{cluster}", custom_identifier, asdict(host))

    def forget_host(self, cluster: str, custom_identifier: str) -> None:
        """A host was retired."""
        self._delete(f"hosts#{cluster}", custom_identifier)

    def claim_creation(self, custom_identifier: str, now: float) -> bool:
        """Whether the caller, and nobody else for a minute, may make this host.

        Mackerel does not make hosts atomically: two requests at a time make two.
        """
        try:
            self._client.put_item(
                TableName=self._table,
                Item={
                    **_key(f"creation#{custom_identifier}", "claim"),
                    "until": _number(now + _CLAIM_SECONDS),
                    "expires_at": _number(now + _DAY),
                },
                ConditionExpression="attribute_not_exists(pk) OR #until < :now",
                ExpressionAttributeNames={"#until": "until"},
                ExpressionAttributeValues={":now": _number(now)},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def line(self, service: str) -> dict[str, Place]:
        """Which clusters wait to post values of a Mackerel service."""
        return {
            item["sk"]["S"]: _made(Place, _body(item)) for item in self._query(f"line#{service}")
        }

    def stand_in_line(self, service: str, cluster: str, place: Place) -> None:
        """Take a place in that line, or stay in it."""
        self._put(f"line#{service}", cluster, asdict(place), expires_at=place.at + _DAY)

    def leave_line(self, service: str, cluster: str) -> None:
        """A cluster has had its turn."""
        self._delete(f"line#{service}", cluster)

    # ----------------------------------------------------------------------- samples and readings

    def samples(self, cluster: str, places: Sequence[str], minute: int) -> dict[str, list[Sample]]:
        """The last samples of each place (instance id) from before a minute, in epoch seconds.

        A place without any is not there; nor is one that DynamoDB does not give back after some
        attempts: its counters start anew.
        """
        found: dict[str, list[Sample]] = {}
        for start in range(0, len(places), _KEYS_PER_GET):
            keys = [_key(f"samples#{cluster}", place) for place in places[start:][:_KEYS_PER_GET]]
            for _ in range(_ATTEMPTS):
                answer = self._client.batch_get_item(RequestItems={self._table: {"Keys": keys}})
                for item in answer["Responses"].get(self._table, []):
                    # A minute that is looked at twice is compared with the one before both times.
                    which = "samples" if float(item["at"]["N"]) < minute else "before"
                    found[item["sk"]["S"]] = [_sample(one) for one in _body(item)[which]]
                unprocessed: Any = answer.get("UnprocessedKeys", {}).get(self._table, {})
                keys = unprocessed.get("Keys", [])
                if not keys:
                    break
        return found

    def keep_samples(
        self,
        cluster: str,
        place: str,
        samples: Sequence[Sample],
        before: Sequence[Sample],
        minute: int,
        now: float,
    ) -> None:
        """Replace the samples of a place by those of a minute, unless they are of a later one.

        before: those that ``samples`` has given for this minute.
        """
        body = {
            "samples": [_sample_body(sample) for sample in samples],
            "before": [_sample_body(sample) for sample in before],
        }
        self._put(
            f"samples#{cluster}",
            place,
            body,
            expires_at=now + _DAY,
            more={"at": _number(minute)},
            unless_after=minute,
        )

    def keep_part(self, cluster: str, minute: int, part: Part, now: float) -> None:
        """Keep what a batch of hosts said until its minute is combined; again replaces it."""
        readings = list(part.readings)
        for number in range(0, max(1, len(readings)), _READINGS_PER_PART):
            first = number == 0
            body = {
                "readings": [
                    [asdict(one.source), _rounded(one.values)]
                    for one in readings[number : number + _READINGS_PER_PART]
                ],
                "plugin_values": [asdict(one) for one in part.plugin_values] if first else [],
                "graphs": list(part.graphs) if first else [],
                "problems": list(part.problems) if first else [],
                "hosts_missing": part.hosts_missing if first else 0,
            }
            key = f"{part.name}#{number:06d}"
            self._put(f"readings#{cluster}#{minute}", key, body, now + _HOUR)

    def parts(self, cluster: str, minute: int) -> list[Part]:
        """What all batches of hosts have said about a minute so far."""
        found: dict[str, list[Part]] = {}
        for item in self._query(f"readings#{cluster}#{minute}"):
            body, name = _body(item), item["sk"]["S"].split("#")[0]
            found.setdefault(name, []).append(
                Part(
                    name,
                    [Reading(Source(**source), values) for source, values in body["readings"]],
                    [
                        PluginValue(**{**value, "source": Source(**value["source"])})
                        for value in body["plugin_values"]
                    ],
                    body["graphs"],
                    body["problems"],
                    body["hosts_missing"],
                )
            )
        return [part for parts in found.values() for part in parts]

    # ---------------------------------------------------------------------- one value per cluster

    def slots(self, cluster: str) -> dict[str, dict[str, int]]:
        """``<ecs service>/<container>`` → task id → slot number."""
        return {item["sk"]["S"]: _body(item) for item in self._query(f"slots#{cluster}")}

    def keep_slots(
        self,
        cluster: str,
        slots: Mapping[str, Mapping[str, int]],
        before: Mapping[str, Mapping[str, int]],
    ) -> None:
        """Note which task has which slot, where that has changed."""
        for key in {*slots, *before}:
            if key not in slots:
                self._delete(f"slots#{cluster}", key)
            elif slots[key] != before.get(key):
                self._put(f"slots#{cluster}", key, slots[key])

    def watermark(self, cluster: str) -> int | None:
        """The minute up to which the performance log was read; None before the first time."""
        value = self._value(cluster, "watermark")
        return None if value is None else int(value)

    def set_watermark(self, cluster: str, minute: int) -> None:
        """Note up to which minute the performance log was read."""
        self._put(f"cluster#{cluster}", "watermark", minute)

    def graphs_posted_at(self, cluster: str) -> float:
        """When the graph definitions were posted last; 0 for never."""
        return float(self._value(cluster, "graphs") or 0)

    def note_graphs_posted(self, cluster: str, now: float) -> None:
        """The graph definitions were posted."""
        self._put(f"cluster#{cluster}", "graphs", now)

    def add_delivered(self, cluster: str, counts: Mapping[str, float]) -> None:
        """Add up what deliveries came to, for the next metrics about the pusher itself."""
        names = {f"#{number}": name for number, name in enumerate(counts)}
        self._client.update_item(
            TableName=self._table,
            Key=_key(f"cluster#{cluster}", "delivered"),
            UpdateExpression="ADD " + ", ".join(f"{place} :{place[1:]}" for place in names),
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={
                f":{number}": _number(value) for number, value in enumerate(counts.values())
            },
        )

    def take_delivered(self, cluster: str) -> dict[str, float]:
        """What has been added up since it was taken last."""
        answer = self._client.delete_item(
            TableName=self._table,
            Key=_key(f"cluster#{cluster}", "delivered"),
            ReturnValues="ALL_OLD",
        )
        return {
            name: float(value["N"])
            for name, value in answer.get("Attributes", {}).items()
            if "N" in value
        }

    # ------------------------------------------------------------------------------------ DynamoDB

    def _value(self, cluster: str, name: str) -> Any:
        answer = self._client.get_item(
            TableName=self._table, Key=_key(f"cluster#{cluster}", name), ConsistentRead=True
        )
        return _body(answer["Item"]) if "Item" in answer else None

    def _put(
        self,
        pk: str,
        sk: str,
        body: Any,
        expires_at: float | None = None,
        more: Mapping[str, Any] | None = None,
        *,
        unless_after: float | None = None,
    ) -> None:
        """Write an item. unless_after: unless there is one whose ``at`` is later."""
        text = json.dumps(body, separators=(",", ":"))
        item = {
            **_key(pk, sk),
            "body": {"B": zlib.compress(text.encode())},
            "version": {"S": str(uuid.uuid4())},
            **(more or {}),
        }
        if expires_at is not None:
            item["expires_at"] = _number(int(expires_at))
        condition: dict[str, Any] = {}
        if unless_after is not None:
            condition = {
                "ConditionExpression": "attribute_not_exists(pk) OR #at <= :at",
                "ExpressionAttributeNames": {"#at": "at"},
                "ExpressionAttributeValues": {":at": _number(unless_after)},
            }
        try:
            self._client.put_item(TableName=self._table, Item=item, **condition)
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    def _delete(self, pk: str, sk: str) -> None:
        self._client.delete_item(TableName=self._table, Key=_key(pk, sk))

    def _query(
        self, pk: str, prefix: str = "", *, keys_only: bool = False
    ) -> Iterator[Mapping[str, Any]]:
        more: dict[str, Any] = {"ProjectionExpression": "pk, sk"} if keys_only else {}
        for page in self._client.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression="pk = :pk" + (" AND begins_with(sk, :prefix)" if prefix else ""),
            ExpressionAttributeValues={
                ":pk": {"S": pk},
                **({":prefix": {"S": prefix}} if prefix else {}),
            },
            **more,
        ):
            yield from page["Items"]


def _kept(cluster: str, minute: int, kind: str, body: Any) -> Batch | Annotation:
    if kind == "annotation":
        return _made(Annotation, body)
    if kind == "services":
        return Batch(cluster, minute, [], body["services"], body["graphs"])
    return Batch(cluster, minute, [_made(HostMetrics, host) for host in body["hosts"]])


def _made(kind: type[Made], body: Mapping[str, Any]) -> Made:
    """A dataclass from what was written of it, perhaps by a version that knows more fields."""
    names = {one.name for one in fields(kind)}
    return kind(**{name: value for name, value in body.items() if name in names})


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, _DECIMALS) for name, value in values.items()}


def _parts(hosts: Sequence[HostMetrics]) -> list[list[HostMetrics]]:
    parts: list[list[HostMetrics]] = [[]]
    values = 0
    for host in hosts:
        if values and values + len(host.values) > _VALUES_PER_PART:
            parts.append([])
            values = 0
        parts[-1].append(host)
        values += len(host.values)
    return parts


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _number(value: float) -> dict[str, Any]:
    return {"N": f"{value:.3f}"}


def _body(item: Mapping[str, Any]) -> Any:
    return json.loads(zlib.decompress(bytes(item["body"]["B"])))


def _sample_body(sample: Sample) -> list[Any]:
    return [asdict(sample.source), sample.at, dict(sample.counters)]


def _sample(body: Sequence[Any]) -> Sample:
    source, at, counters = body
    return Sample(Source(**source), at, counters, {})
