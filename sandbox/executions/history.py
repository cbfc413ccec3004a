"""The history of an execution: it ends exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from moto.stepfunctions.parser.api import ExecutionStatus, HistoryEventType
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import (
    EventHistoryContext,
    EventManager,
)

STATUS_AT_END = {
    HistoryEventType.ExecutionSucceeded: ExecutionStatus.SUCCEEDED,
    HistoryEventType.ExecutionFailed: ExecutionStatus.FAILED,
    HistoryEventType.ExecutionAborted: ExecutionStatus.ABORTED,
    HistoryEventType.ExecutionTimedOut: ExecutionStatus.TIMED_OUT,
}


class History(EventManager):
    """The events of one execution, which nothing follows once one of them has ended it."""

    def __init__(self, on_end: Callable[[ExecutionStatus, dict[str, Any]], None]) -> None:
        super().__init__()
        self._on_end = on_end
        self._end = threading.RLock()
        self.ended = False

    def add_event(
        self,
        context: EventHistoryContext,
        event_type: HistoryEventType,
        event_details: EventDetails | None = None,
        timestamp: datetime | None = None,
        update_source_event_id: bool = True,
    ) -> int:
        """Append an event and return its id, or drop it (0) when nobody waits for it any more."""
        with self._end:
            if self.ended or getattr(context, "closed", False):
                return 0
            number: int = super().add_event(
                context, event_type, event_details, timestamp, update_source_event_id
            )
            status = STATUS_AT_END.get(event_type)
            if status is not None:
                self.ended = True
                details: Any = next(iter((event_details or {}).values()), {})
                self._on_end(status, details)
            return number
