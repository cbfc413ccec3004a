"""The events of ECR: what a push sends, and what goes wrong with their delivery.

A push of an image for one platform is one ``ECR Image Action``. A multi-architecture push is one
event a platform, whose manifest has no tag (``image-tag`` is the empty text), and one for the image
index with the tag, which comes last. ECR sends on a best effort basis, and EventBridge delivers at
least once: an event can be missing, late, or come several times with the same id
(https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sandbox.world import Event, World

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
ARTIFACT_TYPES = {MANIFEST_TYPE: "application/vnd.docker.container.image.v1+json"}
"""What the manifests of a type are of, in the event; an index is of nothing."""

FaultKind = Literal["off", "late", "duplicated"]


@dataclass(frozen=True)
class Pushed:
    """One manifest that was pushed; ``tag`` is empty where it has none."""

    repository: str
    digest: str
    tag: str
    media_type: str


@dataclass(frozen=True)
class DeliveryFault:
    """What goes wrong with every event of ECR until it is turned off.

    off: none comes. late: each comes ``seconds`` after the push. duplicated: each comes ``times``
    times.
    """

    kind: FaultKind
    seconds: float = 0.0
    times: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"events kind={self.kind!r}: one of {', '.join(get_args(FaultKind))}")
        if (self.seconds > 0) != (self.kind == "late"):
            raise ValueError("late needs seconds=…, above 0, and nothing else has them")
        if (self.times > 1) != (self.kind == "duplicated"):
            raise ValueError("duplicated needs times=…, above 1, and nothing else has them")

    def shown(self) -> dict[str, Any]:
        """For ``GET /_sandbox/faults``."""
        shown: dict[str, Any] = {"name": "events", "kind": self.kind}
        if self.kind == "late":
            shown["seconds"] = self.seconds
        if self.kind == "duplicated":
            shown["times"] = self.times
        return shown


class PushEvents:
    """Sends the events of pushes, as far as no fault keeps them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._faults: dict[str, DeliveryFault] = {}

    def turn_on(self, fault: DeliveryFault) -> None:
        """Let it go wrong from now on; another one of its kind is replaced."""
        with self._lock:
            self._faults[fault.kind] = fault

    def turn_off(self) -> None:
        """All faults. What is late comes when it was to come."""
        with self._lock:
            self._faults.clear()

    def shown(self) -> list[dict[str, Any]]:
        """The faults that are on."""
        with self._lock:
            return [fault.shown() for fault in self._faults.values()]

    def send(self, pushed: Sequence[Pushed], times: int = 1) -> None:
        """Send the event of each manifest, in order, ``times`` times each."""
        with self._lock:
            faults = dict(self._faults)
        if "off" in faults:
            return
        if "duplicated" in faults:
            times *= faults["duplicated"].times
        events = [event for event in map(_event, pushed) for _ in range(times)]
        if "late" not in faults:
            self._publish(events)
            return
        threading.Thread(
            target=self._publish_late,
            args=(events, faults["late"].seconds),
            name="late-events",
            daemon=True,
        ).start()

    def _publish(self, events: Sequence[Event]) -> None:
        for event in events:
            self._world.publish(event)

    def _publish_late(self, events: Sequence[Event], seconds: float) -> None:
        if not self._world.stopping.wait(seconds):
            self._publish(events)


def _event(pushed: Pushed) -> Event:
    """With the id and the time that it keeps, however often and late it comes."""
    return {
        "id": str(uuid.uuid4()),
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "source": "aws.ecr",
        "detail-type": "ECR Image Action",
        "resources": [],
        "detail": dict(_detail(pushed)),
    }


def _detail(pushed: Pushed) -> Iterator[tuple[str, str]]:
    yield "result", "SUCCESS"
    yield "repository-name", pushed.repository
    yield "image-digest", pushed.digest
    yield "action-type", "PUSH"
    if pushed.media_type in ARTIFACT_TYPES:
        yield "artifact-media-type", ARTIFACT_TYPES[pushed.media_type]
    yield "image-tag", pushed.tag
    yield "manifest-media-type", pushed.media_type
