"""CloudWatch Logs: FilterLogEvents as AWS answers it; all else stays moto's.

AWS's habits:
  - a pattern on fields of JSON events, ``{ $.Type = "Container" }``, leaves out what does not match
    and what is no JSON; moto lets everything through;
  - a page holds at most 10,000 events and 1 MB, and what was searched for it is limited too: it can
    be short or empty, and there is more as long as there is a nextToken;
  - a token that AWS has not given is refused.

Of patterns on fields there are comparisons of one field with a text or a number by ``=`` or ``!=``,
and several of them with ``&&``; others are refused. Patterns of words are moto's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from moto.logs import urls
from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException
from moto.logs.models import LogsBackend, logs_backends
from moto.logs.utils import EventMessageFilter

MAX_EVENTS = 10_000
PAGE_BYTES = 1_000_000
SEARCHED_BYTES = 4_000_000
COMPARISON = re.compile(r'\s*\$\.(\w+)\s*(!?=)\s*(?:"([^"]*)"|(-?[\w.]+))\s*')

Matches = Callable[[str], bool]


class SandboxLogsBackend(LogsBackend):
    """The logs of one account and region."""

    _url_module = urls

    def filter_log_events(
        self,
        log_group_name: str,
        log_stream_names: list[str],
        start_time: int | None,
        end_time: int | None,
        limit: int | None,
        next_token: str | None,
        filter_pattern: str | None,
        interleaved: bool,
    ) -> tuple[list[dict[str, Any]], str | None, list[dict[str, Any]]]:
        del interleaved  # AWS ignores it: events of all streams come in one order
        group = self.groups.get(log_group_name)
        if group is None:
            raise ResourceNotFoundException
        events = sorted(
            (
                (event.timestamp, event.event_id, stream.log_stream_name, event)
                for stream in list(group.streams.values())
                if not log_stream_names or stream.log_stream_name in log_stream_names
                for event in list(stream.events)
                if (start_time or 0) <= event.timestamp
                and (end_time is None or event.timestamp <= end_time)
            ),
            key=lambda one: one[:2],
        )
        found, token = _page(
            events, _after(next_token), limit or MAX_EVENTS, matcher(filter_pattern or "")
        )
        return found, token, []


def install() -> None:
    """Replace moto's logs before their first use."""
    logs_backends.backend = SandboxLogsBackend


def _after(token: str | None) -> tuple[int, int]:
    if token is None:
        return -1, -1
    match = re.fullmatch(r"(\d+)/(\d+)", token)
    if match is None:
        raise InvalidParameterException("The specified nextToken is invalid.")
    return int(match[1]), int(match[2])


def _page(
    events: list[tuple[int, int, str, Any]], after: tuple[int, int], limit: int, matches: Matches
) -> tuple[list[dict[str, Any]], str | None]:
    """One page of what matches, and the token of the next."""
    found: list[dict[str, Any]] = []
    size = searched = 0
    for moment, number, stream, event in events:
        if (moment, number) <= after:
            continue
        fits = matches(event.message)
        full = len(found) >= limit or size + len(event.message) > PAGE_BYTES
        if searched > SEARCHED_BYTES or (fits and found and full):
            return found, f"{after[0]}/{after[1]}"
        after = moment, number
        searched += len(event.message)
        if fits:
            size += len(event.message)
            found.append({**event.to_filter_dict(), "logStreamName": stream})
    return found, None


def matcher(pattern: str) -> Matches:
    """What a filter pattern lets through. Raises moto's InvalidParameterException."""
    text = pattern.strip()
    if not text.startswith("{"):
        return lambda message: bool(EventMessageFilter(text).matches(message))
    comparisons = []
    for part in text.removeprefix("{").removesuffix("}").split("&&"):
        match = COMPARISON.fullmatch(part.strip("() "))
        if match is None:
            raise InvalidParameterException(f"The sandbox does not know the filter pattern {text}")
        name, operator, quoted, bare = match.groups()
        comparisons.append((name, operator == "=", bare if quoted is None else quoted))

    def matches(message: str) -> bool:
        try:
            fields = json.loads(message)
        except ValueError:
            return False
        return isinstance(fields, dict) and all(
            name in fields and (str(fields[name]) == wanted) is equal
            for name, equal, wanted in comparisons
        )

    return matches
