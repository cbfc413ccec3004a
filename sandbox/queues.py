"""SQS as functions see it: event source mappings, and FIFO queues as they are on AWS.

moto keeps the queues and the mappings. It calls a function while a message is sent and knows of no
failure but one; here a thread for each mapping does what Lambda's pollers do.

AWS's habits:
  - a message that was received is hidden for the queue's visibility timeout; when the function
    succeeds its messages are deleted, else they come back after that time, not before, until the
    queue's maxReceiveCount moves them to the dead-letter queue;
  - with ReportBatchItemFailures only the messages that the answer names come back; an answer that
    cannot be read, names nothing in an item or names a message of another batch fails the whole
    batch; an empty answer is a success. Without it every answer is a success;
  - at most MaximumConcurrency invocations run at a time (5 where nothing is said, with which Lambda
    begins); what is over stays in the queue, visible;
  - the messages of a group of a FIFO queue are handled in order, one batch at a time, also when the
    first of them fails; groups do not wait for each other;
  - a FIFO queue drops a message whose deduplication id, or content, it has had within 5 minutes,
    even if that one has been handled and deleted long ago;
  - a queue whose visibility timeout is shorter than the function's timeout gets no mapping.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.models import LambdaBackend
from moto.awslambda_simple.models import LambdaSimpleBackend, lambda_simple_backends
from moto.core.utils import unix_time_millis
from moto.sqs import urls
from moto.sqs.exceptions import ReceiptHandleIsInvalid
from moto.sqs.models import Queue, SQSBackend, sqs_backends

from sandbox.functions import Answer, LambdaRuntime
from sandbox.lambda_function import Function
from sandbox.world import World

DEDUPLICATION_SECONDS = 300.0
FIRST_CONCURRENCY = 5
MIN_CONCURRENCY, MAX_CONCURRENCY = 2, 1000
MAX_FIFO_BATCH = 10
PAUSE_SECONDS = 0.2
"""How late a poller sees what nobody tells it: a mapping that was changed, the sandbox's end."""
NOT_SIMULATED = (
    *("MaximumBatchingWindowInSeconds", "FilterCriteria", "ProvisionedPollerConfig"),
    *("DestinationConfig", "KMSKeyArn", "MetricsConfig", "SourceAccessConfigurations"),
)
SEQUENCE = itertools.count(188 * 10**17, 256)
"""Sequence numbers of FIFO queues have 20 digits."""

LOG = logging.getLogger(__name__)

Note = Callable[[str, str, str], None]
"""Tells the operation log of a call: (caller, service, operation)."""


class SandboxSqsBackend(SQSBackend):
    """moto's queues, safe for several threads, and with the habits above.

    Whoever changes or reads the messages of a queue holds its ``_messages_lock``, a condition that
    is notified of every change.
    """

    _url_module = urls

    def receive_message(
        self,
        queue_name: str,
        count: int,
        wait_seconds_timeout: int,
        visibility_timeout: int,
        message_attribute_names: list[str] | None = None,
    ) -> list[Any]:
        """As moto; one that waits lets others at the queue meanwhile."""
        queue = self.get_queue(queue_name)
        until = time.monotonic() + wait_seconds_timeout
        with queue._messages_lock:
            while True:
                found: list[Any] = super().receive_message(
                    queue_name, count, 0, visibility_timeout, message_attribute_names
                )
                left = until - time.monotonic()
                if found or left <= 0:
                    return found
                queue._messages_lock.wait(min(left, PAUSE_SECONDS))

    def delete_message(self, queue_name: str, receipt_handle: str) -> None:
        """As moto; in a FIFO queue the next of its group can be received."""
        queue = self.get_queue(queue_name)
        with queue._messages_lock:
            super().delete_message(queue_name, receipt_handle)
            queue._messages_lock.notify_all()

    def change_message_visibility(
        self, queue_name: str, receipt_handle: str, visibility_timeout: int
    ) -> None:
        """As moto; one that is visible again can be received at once."""
        queue = self.get_queue(queue_name)
        with queue._messages_lock:
            super().change_message_visibility(queue_name, receipt_handle, visibility_timeout)
            queue._messages_lock.notify_all()

    def purge_queue(self, queue_name: str) -> None:
        queue = self.get_queue(queue_name)
        with queue._messages_lock:
            super().purge_queue(queue_name)


def _add_message(queue: Any, message: Any) -> None:
    """What moto's queues do with a message that was sent to them, or that comes to a dead end."""
    with queue._messages_lock:
        if queue.fifo_queue and not message.approximate_receive_count:
            seen: dict[str, tuple[float, Any]] = queue.__dict__.setdefault("_seen", {})
            now = time.monotonic()
            known = seen.get(message.deduplication_id)
            if known is not None and now - known[0] < DEDUPLICATION_SECONDS:
                # The sender cannot tell: it gets the answer for the first one again.
                message.id, message.sequence_number = known[1].id, known[1].sequence_number
                return
            message.sequence_number = str(next(SEQUENCE))
            seen[message.deduplication_id] = now, message
        queue._messages.append(message)
        queue._messages_lock.notify_all()


@dataclass
class Mapping:
    """One event source mapping; ``kept`` is moto's, which the API changes."""

    kept: Any
    function: Function
    queue: str
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def concurrency(self) -> int:
        """How many invocations may run at a time."""
        scaling = self.kept.scaling_config or {}
        return int(scaling.get("MaximumConcurrency") or FIRST_CONCURRENCY)

    @property
    def reports_failures(self) -> bool:
        """Whether the answer says which messages failed."""
        return "ReportBatchItemFailures" in (self.kept.function_response_types or [])


class EventSources:
    """All event source mappings and their pollers."""

    def __init__(self, world: World, runtime: LambdaRuntime, note: Note) -> None:
        self._world = world
        self._runtime = runtime
        self._note = note
        self._mappings: dict[str, Mapping] = {}

    def install(self) -> None:
        """Replace moto's SQS and its mappings before their first use."""
        sqs_backends.backend = SandboxSqsBackend
        patched_queue: Any = Queue
        patched_queue.add_message = _add_message
        patched: Any = LambdaSimpleBackend
        original = LambdaBackend.create_event_source_mapping

        def create_event_source_mapping(backend: Any, spec: dict[str, Any]) -> Any:
            return self.add(spec, lambda: original(backend, spec))

        patched.create_event_source_mapping = create_event_source_mapping

    def add(self, spec: dict[str, Any], create: Callable[[], Any]) -> Any:
        """CreateEventSourceMapping; raises AWS's errors. ``create`` makes moto's."""
        for name in NOT_SIMULATED:
            if spec.get(name):
                raise _invalid(f"The sandbox does not simulate {name}.")
        queue = self._queue(str(spec.get("EventSourceArn", "")))
        name = str(spec.get("FunctionName", "")).rpartition(":function:")[2]
        function = self._runtime.functions.get(name)
        if function is None:
            raise LambdaClientError("ResourceNotFoundException", f"Function does not exist: {name}")
        _check(spec, queue, function)
        kept = create()
        # Else moto itself would call the function at every message.
        queue.lambda_event_source_mappings.clear()
        mapping = self._mappings[kept.uuid] = Mapping(kept, function, queue.name)
        threading.Thread(
            target=self._poll, args=(mapping,), name=f"sqs-{queue.name}", daemon=True
        ).start()
        return kept

    @property
    def functions(self) -> set[str]:
        """The names of those that a queue calls."""
        return {mapping.function.name for mapping in self._live()}

    def waiting(self) -> dict[str, dict[str, int]]:
        """What is in the queues that have a mapping, by name: visible, delayed, in flight."""
        found = {}
        for name in sorted({mapping.queue for mapping in self._live()}):
            queue = self._backend.get_queue(name)
            with queue._messages_lock:
                counts = {"visible": 0, "delayed": 0, "in_flight": 0}
                for message in queue._messages:
                    hidden = "in_flight" if not message.visible else "visible"
                    counts["delayed" if message.delayed else hidden] += 1
            found[name] = counts
        return found

    def settle(self, seconds: float) -> dict[str, Any]:
        """Wait until nothing is left to do: no message in a queue with a mapping, no invocation
        for one or for an event. ``settled`` says whether that was so in time.
        """
        until = time.monotonic() + seconds
        before = False
        while True:
            idle, queues = self._idle()
            # Twice: while it looks at one queue, what it has seen no more may go to another.
            if (idle and before) or time.monotonic() > until:
                return {"settled": idle, "queues": queues}
            before = idle
            if self._world.stopping.wait(PAUSE_SECONDS / 4):
                return {"settled": False, "queues": queues}

    def _idle(self) -> tuple[bool, dict[str, dict[str, int]]]:
        events = self._runtime.events_under_way
        queues = self.waiting()
        running = any(mapping.running for mapping in self._live())
        return not (events or running or any(map(_total, queues.values()))), queues

    @property
    def _backend(self) -> Any:
        return self._world.backend("sqs")

    def _queue(self, arn: str) -> Any:
        for queue in list(self._backend.queues.values()):
            if queue.queue_arn == arn:
                return queue
        raise _invalid(f"The sandbox maps SQS queues, and there is none with the ARN {arn}.")

    def _live(self) -> list[Mapping]:
        return [mapping for mapping in list(self._mappings.values()) if self._exists(mapping)]

    def _exists(self, mapping: Mapping) -> bool:
        functions = lambda_simple_backends[self._world.account_id][self._world.region]
        has_mapping = mapping.kept.uuid in functions._event_source_mappings
        return has_mapping and mapping.queue in self._backend.queues

    # ------------------------------------------------------------------------------- the polling

    def _poll(self, mapping: Mapping) -> None:
        while not self._world.stopping.is_set() and self._exists(mapping):
            queue = self._backend.get_queue(mapping.queue)
            try:
                batch = self._receive(mapping, queue)
            except Exception:
                LOG.exception("polling %s", mapping.queue)
                batch = []
            if batch:
                threading.Thread(
                    target=self._handle, args=(mapping, batch), name="sqs-batch", daemon=True
                ).start()
                continue
            with queue._messages_lock:
                queue._messages_lock.wait(_until_next(queue))

    def _receive(self, mapping: Mapping, queue: Any) -> Sequence[Any]:
        if not mapping.kept.enabled or mapping.running >= mapping.concurrency:
            return []
        batch: list[Any] = self._backend.receive_message(
            queue.name, mapping.kept.batch_size, 0, queue.visibility_timeout, ["All"]
        )
        if batch:
            for operation in ("GetQueueAttributes", "ReceiveMessage"):
                self._note(mapping.function.logical_id, "sqs", operation)
            with mapping.lock:
                mapping.running += 1
        return batch

    def _handle(self, mapping: Mapping, batch: Sequence[Any]) -> None:
        try:
            event = {"Records": [self._record(mapping, message) for message in batch]}
            answer = self._runtime.invoke(mapping.function.name, event)
            failed = _failed(answer, {message.id for message in batch}, mapping.reports_failures)
            if failed:
                LOG.warning("%s failed on %d messages: %s", mapping.function.name, len(failed),
                            answer.payload)  # fmt: skip
            for message in batch:
                if message.id not in failed:
                    self._delete(mapping, message)
        except Exception:
            LOG.exception("a batch of %s", mapping.queue)
        finally:
            with mapping.lock:
                mapping.running -= 1
            queue = self._backend.queues.get(mapping.queue)
            if queue is not None:
                with queue._messages_lock:
                    queue._messages_lock.notify_all()

    def _delete(self, mapping: Mapping, message: Any) -> None:
        self._note(mapping.function.logical_id, "sqs", "DeleteMessage")
        try:
            self._backend.delete_message(mapping.queue, message.receipt_handle)
        except ReceiptHandleIsInvalid:
            # It took longer than the visibility timeout, and another has moved it away meanwhile.
            LOG.warning("%s: %s cannot be deleted any more", mapping.queue, message.id)

    def _record(self, mapping: Mapping, message: Any) -> dict[str, Any]:
        """A message as Lambda shows it to a function."""
        attributes = {
            "ApproximateReceiveCount": message.approximate_receive_count,
            "SentTimestamp": message.sent_timestamp,
            "SequenceNumber": message.sequence_number,
            "MessageGroupId": message.group_id,
            "SenderId": message.sender_id,
            "MessageDeduplicationId": message.deduplication_id,
            "ApproximateFirstReceiveTimestamp": message.approximate_first_receive_timestamp,
            **message.system_attributes,
        }
        return {
            "messageId": message.id,
            "receiptHandle": message.receipt_handle,
            "body": message.body,
            "attributes": {key: str(item) for key, item in attributes.items() if item is not None},
            "messageAttributes": {
                name: {
                    "stringValue": value.get("StringValue"),
                    "stringListValues": [],
                    "binaryListValues": [],
                    "dataType": value["DataType"],
                }
                for name, value in message.message_attributes.items()
            },
            "md5OfBody": message.body_md5,
            "eventSource": "aws:sqs",
            "eventSourceARN": mapping.kept.event_source_arn,
            "awsRegion": self._world.region,
        }


def _check(spec: dict[str, Any], queue: Any, function: Function) -> None:
    """Raise what CreateEventSourceMapping refuses."""
    if queue.visibility_timeout < function.timeout:
        raise _invalid(
            f"Queue visibility timeout: {queue.visibility_timeout} seconds is less than Function "
            f"timeout: {function.timeout:.0f} seconds"
        )
    size = int(spec.get("BatchSize") or MAX_FIFO_BATCH)
    if size > MAX_FIFO_BATCH:
        raise _invalid(
            "Maximum batch size of a FIFO queue is 10."
            if queue.fifo_queue
            else "Maximum batch window in seconds must be greater than 0 if maximum batch size is "
            "greater than 10, and the sandbox has no batch window."
        )
    concurrency = (spec.get("ScalingConfig") or {}).get("MaximumConcurrency")
    if concurrency is not None and not MIN_CONCURRENCY <= int(concurrency) <= MAX_CONCURRENCY:
        raise _invalid(
            f"Value '{concurrency}' at 'scalingConfig.maximumConcurrency' failed to satisfy "
            f"constraint: between {MIN_CONCURRENCY} and {MAX_CONCURRENCY}"
        )


def _failed(answer: Answer, ids: set[str], reports_failures: bool) -> set[str]:
    """Which messages of a batch come back."""
    if answer.failed:
        return ids
    if not reports_failures:
        return set()
    try:
        said = json.loads(answer.payload)
        items = said.get("batchItemFailures") if said else None
        failed = {item["itemIdentifier"] for item in items or []}
    except (ValueError, TypeError, KeyError, AttributeError):
        return ids
    return failed if failed <= ids else ids


def _total(counts: dict[str, int]) -> int:
    return sum(counts.values())


def _until_next(queue: Any) -> float:
    """How long until a message may be received that cannot be now, in seconds, roughly."""
    now = unix_time_millis()
    due: list[float] = [
        max(message.visible_at, message.delayed_until) - now for message in queue._messages
    ]
    return min([PAUSE_SECONDS, *(later / 1000 for later in due if later > 0)]) + 0.001


def _invalid(message: str) -> LambdaClientError:
    return LambdaClientError("InvalidParameterValueException", message)
