"""The table of metric ids, and the parts of names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containermetrics.metrics import METRICS, find, part


@pytest.mark.parametrize(
    ("metric_id", "kind", "unit", "scale", "graph"),
    [
        ("cpu.user", "counter", "percentage", 100, "cpu"),
        ("cpu.limit", "gauge", "percentage", 1, "cpu"),
        ("cpu_core.11", "counter", "percentage", 100, "cpu_core"),
        ("throttling.throttled", "counter", "float", 60, "throttling"),
        ("throttling.time", "counter", "percentage", 100, "throttling_time"),
        ("memory.working_set", "gauge", "bytes", 1, "memory"),
        ("memory.memsw_limit", "gauge", "bytes", 1, "memory"),
        ("memory_events.oom_kill", "counter", "float", 60, "memory_events"),
        ("blkio_bytes.dm-0_read", "counter", "bytes/sec", 1, "blkio_bytes"),
        ("blkio_bytes.259-0_total", "counter", "bytes/sec", 1, "blkio_bytes"),
        ("blkio_ops.nvme0n1_discard", "counter", "iops", 1, "blkio_ops"),
        ("network.eth0_rx_bytes", "counter", "bytes/sec", 1, "network"),
        ("network.eth0.100_tx_dropped", "counter", "float", 1, "network_packets"),
        ("processes.threads", "gauge", "integer", 1, "processes"),
    ],
)
def test_what_an_id_means(metric_id: str, kind: str, unit: str, scale: float, graph: str) -> None:
    metric = find(metric_id)
    assert metric is not None
    assert (metric.kind, metric.unit, metric.scale, metric.graph) == (kind, unit, scale, graph)


# Of the kernel's documentation of both versions, and of what older kernels have.
EVENTS = """
pgpgin pgpgout pgfault pgmajfault total_pgpgin total_pgmajfault pgrefill pgscan pgsteal
pgscan_kswapd pgsteal_direct pgactivate pgdeactivate pglazyfree pglazyfreed pswpin pswpout
swpin_zero zswpin zswpout zswpwb thp_fault_alloc thp_collapse_alloc numa_hint_faults
workingset_refault workingset_refault_anon workingset_nodereclaim total_workingset_activate
"""
BYTES = """
cache rss rss_huge shmem mapped_file dirty writeback swap swapcached inactive_anon active_file
unevictable hierarchical_memory_limit hierarchical_memsw_limit total_cache total_rss anon file
kernel kernel_stack pagetables sec_pagetables percpu sock vmalloc zswap zswapped file_mapped
zswpraw anon_thp file_thp shmem_thp slab slab_reclaimable hugetlb
"""


@pytest.mark.parametrize("key", EVENTS.split())
def test_keys_of_memory_stat_that_count_events_are_rates(key: str) -> None:
    metric = find(f"memory_stat.{key}")
    assert metric is not None
    assert (metric.kind, metric.graph, metric.unit) == ("counter", "memory_stat_rate", "float")


@pytest.mark.parametrize("key", BYTES.split())
def test_all_other_keys_of_memory_stat_are_bytes(key: str) -> None:
    metric = find(f"memory_stat.{key}")
    assert metric is not None
    assert (metric.kind, metric.graph, metric.unit) == ("gauge", "memory_stat", "bytes")


@pytest.mark.parametrize(
    "metric_id", ["", "cpu", "cpu.", "cpu.totals", "cpu_core.x", "network.eth0", "gpu.0"]
)
def test_what_is_not_in_the_table(metric_id: str) -> None:
    assert find(metric_id) is None


def test_the_key_metrics() -> None:
    ids = [
        "cpu.total",
        "memory.usage",
        "memory.working_set",
        "memory.limit",
        "cpu.limit",
        "cpu.user",
        "network.eth0_rx_bytes",
        "blkio_bytes.sda_write",
    ]
    ranks = [metric.rank for metric in map(find, ids) if metric is not None]
    assert ranks == list(range(8))
    others = ["memory.rss", "blkio_bytes.sda_total", "network.eth0_rx_packets", "cpu_core.0"]
    assert not any(metric.key for metric in map(find, others) if metric is not None)


def test_a_graph_has_one_unit() -> None:
    units: dict[str, set[str]] = {}
    for metric in METRICS:
        units.setdefault(metric.graph, set()).add(metric.unit)
    assert all(len(of_graph) == 1 for of_graph in units.values())


@given(st.text(max_size=300))
def test_a_part_of_a_name_is_what_mackerel_takes(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,63}", part(text))


@given(st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True))
def test_what_mackerel_takes_stays_as_it_is(text: str) -> None:
    assert part(text) == text


def test_long_names_that_begin_alike_stay_apart() -> None:
    one, other = (part("x" * 254 + end) for end in "ab")
    assert one != other
    assert re.fullmatch(r"x{54}_[0-9a-f]{8}", one)
