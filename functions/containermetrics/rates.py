"""From counters to rates. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from containermetrics.metrics import find
from containermetrics.model import Reading, Sample

LONGEST_GAP_SECONDS = 600
"""A mean over more than this says little about its last minute."""

SHORTEST_GAP_SECONDS = 1
"""The kernel counts CPU in steps of up to 10 ms: over less than this a rate is mostly rounding. Two
samples are so close when a message came twice."""

LARGEST = 1e20
"""No counter of the kernel, which have 64 bits, and no rate of one gets there. A comparison with it
is false for NaN, and true for no integer that a float cannot hold.
"""

# What never goes down while a container lives: when it has, all that is counted started anew, also
# what has by now grown past its old value. Others may: memory.stat adds up over the processors.
_AGE = "cpu.total"


def reading(previous: Sample | None, sample: Sample) -> Reading:
    """What a source did since the sample before, in the units that are published.

    Gauges are there always. A counter has no value in the first sample, after it went down (the
    container was started anew) and after a gap: never zero, never the raw counter. NaN and infinity
    never are values.
    """
    values = {
        metric_id: value
        for metric_id, value in sample.gauges.items()
        if -LARGEST < value < LARGEST and find(metric_id) is not None
    }
    if previous is not None:
        values.update(_rates(previous.counters, sample.counters, sample.at - previous.at))
    return Reading(sample.source, values)


def _rates(
    before: Mapping[str, float], now: Mapping[str, float], seconds: float
) -> dict[str, float]:
    """Counter → how much in a second, times its scale."""
    # Written so that a NaN is out of bounds too.
    if not SHORTEST_GAP_SECONDS <= seconds <= LONGEST_GAP_SECONDS:
        return {}
    if now.get(_AGE, 0.0) < before.get(_AGE, 0.0):
        return {}
    rates = {}
    for metric_id, value in now.items():
        metric, old = find(metric_id), before.get(metric_id)
        if metric is None or metric.kind != "counter" or old is None:
            continue
        if 0 <= old <= value < LARGEST:
            rates[metric_id] = (value - old) / seconds * metric.scale
    return rates
