"""The two fixed slots of a service."""

from __future__ import annotations

from enum import StrEnum


class Color(StrEnum):
    """A slot, never "old" or "new": the roles live and idle alternate between the colours."""

    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> Color:
        return Color.GREEN if self is Color.BLUE else Color.BLUE
