"""Scaling activities: what DescribeScalingActivities tells, in AWS's words.

One activity for each launch and each termination; ``Cause`` is a chain of sentences, each with its
time, from the request or alarm to what was done about it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

PROTECTED = (
    "Could not scale to desired capacity because all remaining instances are protected from "
    "scale-in."
)


@dataclass
class Activity:
    """One activity; it is InProgress until ``succeed``, ``fail`` or ``cancel``."""

    group: str
    description: str
    cause: str
    details: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    status: str = "InProgress"
    progress: int = 50
    message: str | None = None

    def succeed(self) -> None:
        """Ends well."""
        self._end("Successful", None)

    def fail(self, message: str) -> None:
        """Ends, and says why."""
        self._end("Failed", message)

    def cancel(self) -> None:
        """Ends because it is not wanted any more."""
        self._end("Cancelled", None)

    def _end(self, status: str, message: str | None) -> None:
        self.status, self.message, self.progress = status, message, 100
        self.ended_at = datetime.now(UTC)

    @property
    def shape(self) -> dict[str, Any]:
        """An Activity of the API."""
        known = {
            "ActivityId": self.id,
            "AutoScalingGroupName": self.group,
            "Description": self.description,
            "Cause": self.cause,
            "StartTime": self.started_at,
            "EndTime": self.ended_at,
            "StatusCode": self.status,
            "StatusMessage": self.message,
            "Progress": self.progress,
            "Details": self.details,
        }
        return {name: value for name, value in known.items() if value is not None}


def sentence(text: str) -> str:
    """One sentence of a cause."""
    return f"At {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}."


def chain(*sentences: str) -> str:
    """A cause of several sentences, those that there are."""
    return "  ".join(filter(None, sentences))


def insufficient_capacity(instance_type: str, zone: str) -> str:
    """What EC2 says when it has none left, without the last period."""
    return (
        "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not "
        f"have sufficient {instance_type} capacity in the Availability Zone you requested ({zone})."
        " Our system will be working on provisioning additional capacity"
    )
