"""How long the state machine waits before the next look."""

from __future__ import annotations

import math

# A look takes about nine events of an execution's history, which holds 25,000
# (https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html). So the pace slows down
# with the time that has passed: a day of waiting takes some 630 looks, whatever the interval.
_SLOWER_AFTER = 60
# Every look renews the lock's lease (LEASE_SECONDS, 600 at least).
LONGEST_SECONDS = 300


def wait_seconds(interval: int, elapsed: float, left: float | None = None) -> int:
    """Seconds until the next look: at least 1, at most LONGEST_SECONDS.

    interval: what the configuration says. elapsed: seconds since the waiting began. left: seconds
    to a moment that is known, which is not waited past.
    """
    wait = max(interval, elapsed / _SLOWER_AFTER)
    if left is not None and left > 0:
        wait = min(wait, left)
    return max(1, min(math.ceil(wait), LONGEST_SECONDS))
