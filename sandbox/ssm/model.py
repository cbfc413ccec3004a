"""What the Run Command of the sandbox keeps: commands, their invocations, and what nodes are."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from sandbox.ssm.documents import Script

ERROR_TITLE = "\n----------ERROR-------\n"
OUTPUT_CUT = "\n---Output truncated---"
ERROR_CUT = "\n---Error truncated----"
TRUNCATED = "--output truncated--"


class Details(StrEnum):
    """StatusDetails of an invocation."""

    PENDING = "Pending"
    DELAYED = "Delayed"
    IN_PROGRESS = "InProgress"
    SUCCESS = "Success"
    FAILED = "Failed"
    DELIVERY_TIMED_OUT = "DeliveryTimedOut"
    EXECUTION_TIMED_OUT = "ExecutionTimedOut"
    UNDELIVERABLE = "Undeliverable"
    TERMINATED = "Terminated"  # the command had too many errors before
    CANCELLED = "Cancelled"

    @property
    def status(self) -> str:
        """The Status that belongs to it."""
        return {
            Details.DELIVERY_TIMED_OUT: "TimedOut",
            Details.EXECUTION_TIMED_OUT: "TimedOut",
            Details.UNDELIVERABLE: "Failed",
            Details.TERMINATED: "Cancelled",
        }.get(self, str(self))

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self not in (Details.PENDING, Details.DELAYED, Details.IN_PROGRESS)


ERRORS = (Details.FAILED, Details.EXECUTION_TIMED_OUT)
"""What counts against MaxErrors."""


@dataclass(frozen=True)
class Ran:
    """How a script ended; ``code`` is its exit code, None when it took too long."""

    code: int | None
    output: str
    errors: str


class Node(Protocol):
    """An instance with an SSM agent, as Run Command sees it."""

    @property
    def instance_id(self) -> str:
        """Of EC2."""

    @property
    def address(self) -> str:
        """Its private IP address."""

    @property
    def registered_at(self) -> datetime | None:
        """Since when the agent is known to SSM; None before."""

    @property
    def pinged_at(self) -> datetime:
        """When the agent was last heard of."""

    @property
    def online(self) -> bool:
        """What SSM believes: it was heard of lately."""

    @property
    def listening(self) -> bool:
        """What is so: the agent takes commands and tells how they end."""

    @property
    def terminated(self) -> bool:
        """Whether EC2 has ended the instance."""

    def execute(self, script: Script) -> Ran | None:
        """Run a script; None when the instance ended before the script did."""


class Nodes(Protocol):
    """All instances with an agent."""

    def nodes(self) -> Sequence[Node]:
        """Those that are known to SSM."""


@dataclass
class Invocation:
    """One command on one instance."""

    instance_id: str
    step: str
    details: Details = Details.PENDING
    ran: Ran | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def response_code(self) -> int:
        """The exit code; -1 before there is one."""
        if self.ran is None:
            return -1
        return 137 if self.ran.code is None else self.ran.code

    def shown_output(self, limit: int) -> str:
        """Both outputs as ListCommandInvocations shows them, in one text."""
        if self.ran is None:
            return ""
        errors = self.error_output()
        if not errors:
            return _cut(self.ran.output, limit, OUTPUT_CUT)
        if len(self.ran.output) + len(ERROR_TITLE) + len(errors) <= limit:
            return self.ran.output + ERROR_TITLE + errors
        errors = _cut(errors, (limit - len(ERROR_TITLE)) // 2, ERROR_CUT)
        room = limit - len(ERROR_TITLE) - len(errors)
        return _cut(self.ran.output, room, OUTPUT_CUT) + ERROR_TITLE + errors

    def error_output(self) -> str:
        """What went to standard error, and what the agent says of the end."""
        if self.ran is None:
            return ""
        match self.ran.code:
            case 0:
                return self.ran.errors
            case None:
                return self.ran.errors + "failed to run commands: exit status 137"
            case code:
                return f"{self.ran.errors}failed to run commands: exit status {code}"


@dataclass(frozen=True)
class Output:
    """The bucket that gets what scripts print, and the beginning of the keys there."""

    bucket: str
    prefix: str

    def directory(self, command_id: str, instance_id: str) -> str:
        """What the keys of one invocation begin with."""
        parts = (self.prefix.strip("/"), command_id, instance_id, "awsrunShellScript")
        return "/".join(part for part in parts if part)

    def key(self, command_id: str, invocation: Invocation, name: str) -> str:
        """Where one of its outputs is; ``name`` is stdout or stderr."""
        return f"{self.directory(command_id, invocation.instance_id)}/{invocation.step}/{name}"


@dataclass
class Command:
    """One SendCommand. ``max_concurrency`` and ``max_errors`` are as they were given."""

    id: str
    document: str
    document_version: str
    verb: str | None
    script: Script
    parameters: Mapping[str, Sequence[str]]
    instance_ids: Sequence[str]
    targets: Sequence[Mapping[str, Any]]
    timeout: float
    max_concurrency: str
    max_errors: str
    comment: str
    invocations: list[Invocation]
    output: Output | None = None
    requested_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    cancelled: threading.Event = field(default_factory=threading.Event)
    executed: int = 0

    @property
    def delivery_deadline(self) -> datetime:
        """Until when the agents have to have it."""
        return self.requested_at + timedelta(seconds=self.timeout)

    @property
    def concurrency(self) -> int:
        """On how many instances it runs at a time."""
        return max(1, _share(self.max_concurrency, len(self.invocations)))

    @property
    def too_many_errors(self) -> bool:
        """Whether it is sent to no further instance: 0 stops after the first error."""
        return self.count(*ERRORS) > _share(self.max_errors, len(self.invocations))

    def count(self, *details: Details) -> int:
        """How many invocations are in one of these states."""
        return sum(invocation.details in details for invocation in self.invocations)

    @property
    def details(self) -> str:
        """StatusDetails of the command as a whole."""
        every = {invocation.details for invocation in self.invocations}
        if every <= {Details.PENDING}:
            return "Pending"
        if not all(details.final for details in every):
            return "Cancelling" if self.cancelled.is_set() else "InProgress"
        if every == {Details.SUCCESS}:
            return "Success"
        if Details.CANCELLED in every:
            return "Cancelled"
        if self.too_many_errors:
            return "Failed"
        return "Incomplete"

    @property
    def status(self) -> str:
        """Status of the command as a whole."""
        return "Failed" if self.details == "Incomplete" else self.details


def _share(text: str, total: int) -> int:
    """A number as it is given, or a percentage of ``total``."""
    return int(text[:-1]) * total // 100 if text.endswith("%") else int(text)


def beginning(text: str, limit: int) -> str:
    """What GetCommandInvocation shows of an output."""
    return text if len(text) <= limit else text[: limit - len(TRUNCATED)] + TRUNCATED


def _cut(text: str, limit: int, mark: str) -> str:
    """The beginning of a text; one that is too long says so at its end."""
    return text if len(text) <= limit else text[: max(0, limit - len(mark))] + mark
