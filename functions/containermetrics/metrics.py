"""The one table of metric ids: what each is, and what it becomes at Mackerel. Pure.

An id is ``<group>.<metric>``: ``cpu.total``, ``blkio_bytes.nvme0n1_read``. docs/metrics.md says
which file of the kernel, or which field of Container Insights, each of them comes from.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["counter", "gauge"]
Unit = Literal["float", "integer", "percentage", "bytes", "bytes/sec", "iops"]

PERCENT = 100.0
"""Seconds of CPU in a second → percent; one core that is always busy is 100."""

PER_MINUTE = 60.0
"""Rare events, which would be tiny numbers by the second."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, or a family of them that differ in a device, an interface, a core or a key.

    id: a regular expression that ids have to match as a whole.
    graph: the part of the name at Mackerel before the container. A graph there has one unit, so
    that ids of one group may stand in two graphs.
    scale: what a rate in a second is multiplied with, for counters.
    rank: of key metrics (CPU, memory in use, bytes moved), which are sent first; smaller is
    earlier. None for all others.
    """

    id: str
    graph: str
    unit: Unit
    kind: Kind
    scale: float = 1.0
    rank: int | None = None

    @property
    def key(self) -> bool:
        """Whether it is one of those that are sent first."""
        return self.rank is not None


# Which keys of memory.stat count events; all others are bytes. As the kernel spells them in
# https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.stat) and, with total_ for a group and
# those below it, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html. Not among them are
# pagetables and percpu, swap, swapcached, zswap, zswapped and zswpraw, anon_thp and the like.
MEMORY_STAT_EVENTS = r"(?:total_)?(?:pg|pswp|swp|zswp(?:in|out|wb)|thp_|numa_|workingset_)\w*"

# The first that an id matches is what it is.
METRICS = (
    Metric(r"cpu\.total", "cpu", "percentage", "counter", PERCENT, rank=0),
    Metric(r"memory\.usage", "memory", "bytes", "gauge", rank=1),
    Metric(r"memory\.working_set", "memory", "bytes", "gauge", rank=2),
    Metric(r"memory\.limit", "memory", "bytes", "gauge", rank=3),
    Metric(r"cpu\.limit", "cpu", "percentage", "gauge", rank=4),
    Metric(r"cpu\.(?:user|system)", "cpu", "percentage", "counter", PERCENT, rank=5),
    Metric(r"network\..+_[rt]x_bytes", "network", "bytes/sec", "counter", rank=6),
    Metric(r"blkio_bytes\..+_(?:read|write)", "blkio_bytes", "bytes/sec", "counter", rank=7),
    Metric(r"blkio_bytes\..+_(?:sync|async|discard|total)", "blkio_bytes", "bytes/sec", "counter"),
    Metric(
        r"blkio_ops\..+_(?:read|write|sync|async|discard|total)", "blkio_ops", "iops", "counter"
    ),
    Metric(r"network\..+_[rt]x_(?:packets|errors|dropped)", "network_packets", "float", "counter"),
    Metric(
        r"memory\.(?:rss|cache|peak|swap|memsw_usage|memsw_peak|memsw_limit)",
        "memory",
        "bytes",
        "gauge",
    ),
    Metric(r"cpu_core\.\d+", "cpu_core", "percentage", "counter", PERCENT),
    Metric(r"throttling\.(?:periods|throttled)", "throttling", "float", "counter", PER_MINUTE),
    Metric(r"throttling\.time", "throttling_time", "percentage", "counter", PERCENT),
    Metric(r"memory_events\.\w+", "memory_events", "float", "counter", PER_MINUTE),
    Metric(rf"memory_stat\.{MEMORY_STAT_EVENTS}", "memory_stat_rate", "float", "counter"),
    Metric(r"memory_stat\.\w+", "memory_stat", "bytes", "gauge"),
    Metric(r"processes\.(?:processes|threads|pids)", "processes", "integer", "gauge"),
)

LONGEST_PART = 63
"""Characters; what Mackerel allows for the names of services and roles."""

# A machine has some hundred different ids; a cluster of many kinds of machines a few thousand.
_REMEMBERED = 8192


@lru_cache(_REMEMBERED)
def find(metric_id: str) -> Metric | None:
    """What an id means; None for one that is not in the table."""
    return next((metric for metric in METRICS if re.fullmatch(metric.id, metric_id)), None)


@lru_cache(_REMEMBERED)
def part(text: str) -> str:
    """A part of a name at Mackerel, between two dots: what it does not allow becomes ``_``.

    A part that is very long (ECS allows 255 characters for a container's name) is cut, with a
    number that keeps it apart from others that begin alike.
    """
    clean = re.sub(r"[^A-Za-z0-9_-]", "_", text) or "_"
    if len(clean) <= LONGEST_PART:
        return clean
    # Not hash(): it has to be the same in every process.
    return f"{clean[: LONGEST_PART - 9]}_{zlib.crc32(text.encode()):08x}"
