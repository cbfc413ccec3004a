"""How the traffic moves: the share of the new colour at each step."""

from __future__ import annotations

from bluegreen.configuration import AllAtOnce


def steps(strategy: AllAtOnce) -> list[int]:
    """Percent of the traffic that the new colour gets after each step; the last one is 100."""
    match strategy:
        case AllAtOnce():
            return [100]
