"""The table of docs/metrics.md says what the program does: file → metric → unit."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from containermetrics import metrics
from hosts import ecs_bluegreen_metrics as program
from tests.hosts.machine import ROOT
from tests.hosts.trees import V1, V2, files_of

TEXT = (ROOT / "docs" / "metrics.md").read_text()
NETWORK = "/proc/<pid>/net/dev"
PER_MINUTE, PER_SECOND = "a minute", "a second"
# What is read for another file's sake and gives no metric of its own.
WITHOUT_METRIC = {"cpu.cfs_period_us"}


@dataclass(frozen=True)
class Row:
    """files: of v1 and of v2; "" for none. metrics: with <placeholders>."""

    files: tuple[str, str]
    metrics: tuple[str, ...]
    unit: str


def rows() -> list[Row]:
    section = TEXT.partition("## Which file becomes which metric")[2].partition("\n## ")[0]
    found = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] not in ("v1", "---"):
            v1, v2, names, unit = cells
            found.append(Row((v1.strip("`"), v2.strip("`")), tuple(code(names)), unit))
    return found


def code(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


def general(metric: str) -> str:
    """A metric as the table names it."""
    metric = re.sub(r"^cpu_core\.\d+$", "cpu_core.<core>", metric)
    metric = re.sub(r"^(blkio_\w+)\.[\w-]+_([a-z]+)$", r"\1.<device>_\2", metric)
    metric = re.sub(r"^network\.[\w-]+_([rt]x_[a-z]+)$", r"network.<interface>_\1", metric)
    if metric == program.SWAP_LIMIT:
        return "memory.memsw_limit"  # a part of it
    if metric.startswith("memory_stat."):
        known = metrics.find(metric)
        assert known is not None
        metric = f"memory_stat.<{'event' if known.kind == 'counter' else 'key'}>"
    return metric


def read(version: int) -> set[tuple[str, str]]:
    """(file, metric as in the table) of everything that the program takes from a fixture."""
    table, fixture = ((program.V1, V1), (program.V2, V2))[version - 1]
    contents = {path.rpartition("/")[2]: text for path, text in files_of(fixture) if "{g" in path}
    counters: dict[str, float] = {}
    gauges: dict[str, float] = {}
    found: set[tuple[str, str]] = set()
    task = {"Arn": "task/1", "KnownStatus": "RUNNING"}
    container = program.Container(task, {"Name": "app", "DockerId": "0"}, awsvpc=False)
    files = [(file, parse) for _, file, parse, _ in table]
    files.append((program.PROCESSES, container.take_processes))
    files.append((program.THREADS[version], program._lines("processes.threads")))
    for file, parse in files:
        before = {**counters, **gauges}
        parse(contents[file].encode(), counters, gauges)
        new = {key for key in {**counters, **gauges} if key not in before}
        found |= {(file, general(key)) for key in new if key != program.CFS_PERIOD}
        assert new, f"{file} gives nothing"
    device = next(text for path, text in files_of(fixture) if path.endswith("net/dev"))
    traffic: dict[str, float] = {}
    program._network(device.encode(), traffic)
    return found | {(NETWORK, general(key)) for key in traffic}


@pytest.mark.parametrize("version", [1, 2])
def test_the_table_is_what_is_read(version: int) -> None:
    table = {
        (row.files[version - 1], metric)
        for row in rows()
        for metric in row.metrics
        if row.files[version - 1]
    }
    assert table == read(version)


def test_every_file_that_is_read_is_in_the_table() -> None:
    for index, files in enumerate((program.V1, program.V2)):
        named = {row.files[index] for row in rows()}
        assert {file for _, file, _, _ in files} <= named | WITHOUT_METRIC


def test_units_are_those_at_mackerel() -> None:
    for row in rows():
        for metric in row.metrics:
            example = (
                metric.replace("<core>", "0")
                .replace("<device>", "sda")
                .replace("<interface>", "eth0")
                .replace("<key>", "anon")
                .replace("<event>", "pgfault")
            )
            known = metrics.find(example)
            assert known is not None, metric
            if row.unit == PER_MINUTE:
                assert (known.kind, known.scale) == ("counter", metrics.PER_MINUTE), metric
            elif row.unit == PER_SECOND:
                assert (known.kind, known.scale, known.unit) == ("counter", 1, "float"), metric
            else:
                assert known.unit == row.unit, metric


def test_the_slides_are_covered() -> None:
    """Every file that the talk of 2015 shows."""
    slides = {
        *("cpuacct.stat", "cpuacct.usage", "cpuacct.usage_percpu", "cpu.stat", "memory.stat"),
        *("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes"),
        *("memory.failcnt", "memory.memsw.usage_in_bytes", "memory.memsw.max_usage_in_bytes"),
        *("memory.memsw.limit_in_bytes", "memory.memsw.failcnt", "tasks", "cgroup.procs"),
        *("blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"),
    }
    assert slides <= {row.files[0] for row in rows()}
