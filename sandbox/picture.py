"""A picture of what Mackerel has: CPU, memory and tasks of both colors across a deployment.

It shows what the graphs of a role show: the colors stacked, minute by minute, each task as a line
in the middle of its minute, deployments marked by their annotations.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox.collected import MINUTE, RUNNING_TASKS, Collected

COLORS = {"blue": "#2b6cb0", "green": "#2f855a"}
MEBIBYTE = 1 << 20
DOTS_PER_INCH = 120
STYLES = ("o-", "s--", "^:", "v-.")
MOST_ABOVE = 3
"""A limit that is further above the values than this many times is not drawn to scale."""
TITLE_SECONDS = 150
"""How much of the time axis a title needs."""


def draw(collected: Collected, container: str, path: Path) -> None:
    """Write the picture as a PNG file."""
    # Imported here, as it takes a second; and no window system is needed.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import dates
    from matplotlib import pyplot as plt

    figure, (cpu, memory, tasks) = plt.subplots(
        3, 1, sharex=True, figsize=(11, 9), height_ratios=(3, 3, 1.4), layout="constrained"
    )
    _containers(cpu, collected, container, "cpu", "total", 1)
    cpu.set_ylabel("CPU, % of a core")
    _containers(memory, collected, container, "memory", "usage", MEBIBYTE)
    memory.set_ylabel("memory, MiB")
    _limit(memory, collected, container)
    for color, host in sorted(collected.hosts.items()):
        times, values = _points(host.values(RUNNING_TASKS))
        tasks.plot(times, values, "o-", color=COLORS[color], label=color)
    tasks.set_ylabel("running tasks")
    for axes in (cpu, memory, tasks):
        _mark(axes, collected.annotations, titled=axes is cpu)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")
    tasks.yaxis.get_major_locator().set_params(integer=True)
    locator, formatter = dates.MinuteLocator(), dates.DateFormatter("%H:%M")  # type: ignore[no-untyped-call]
    tasks.xaxis.set_major_locator(locator)
    tasks.xaxis.set_major_formatter(formatter)
    tasks.set_xlabel("UTC; there is one value a minute")
    names = " and ".join(
        f"{host.name} ({host.status})" for _, host in sorted(collected.hosts.items())
    )
    figure.suptitle(f"Containers “{container}” of {names}, as Mackerel has them")
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _containers(
    axes: Any, collected: Collected, container: str, graph: str, metric: str, unit: float
) -> None:
    """The sum of each color as a bar a minute, one upon the other, and each task as a line."""
    below: dict[int, float] = {}
    for color, host in sorted(collected.hosts.items()):
        values = {
            minute: value / unit
            for minute, value in host.values(f"custom.ecs.{graph}.{container}.{metric}").items()
        }
        axes.bar(
            [_moment(minute) for minute in values],
            list(values.values()),
            bottom=[below.get(minute, 0.0) for minute in values],
            width=timedelta(seconds=MINUTE),
            align="edge",
            color=COLORS[color],
            alpha=0.25,
            label=f"{color}, sum",
        )
        below |= {minute: below.get(minute, 0.0) + value for minute, value in values.items()}
        for slot, task in host.of_tasks(graph, container, metric).items():
            times, numbers = _points({minute: value / unit for minute, value in task.items()})
            style = STYLES[int(slot) % len(STYLES)]
            axes.plot(
                times, numbers, style, color=COLORS[color], markersize=4, label=f"{color}, {slot}"
            )


def _limit(axes: Any, collected: Collected, container: str) -> None:
    """What the tasks of a color may have; said instead where it would flatten the rest."""
    limit = max(
        (
            value / MEBIBYTE
            for host in collected.hosts.values()
            for value in host.values(f"custom.ecs.memory.{container}.limit").values()
        ),
        default=0.0,
    )
    highest = axes.get_ylim()[1]
    if 0 < limit <= MOST_ABOVE * highest:
        axes.axhline(limit, color="#c53030", linestyle="--", label="limit of a color")
    elif limit:
        axes.plot([], [], color="#c53030", linestyle="--", label=f"limit: {limit:.0f} MiB (above)")


def _mark(axes: Any, annotations: list[dict[str, Any]], *, titled: bool) -> None:
    """Deployments; a title is raised where it would stand upon the one before."""
    row, free_from = 0, 0.0
    for one in annotations:
        start, end = _moment(one["from"]), _moment(max(one["to"], one["from"] + 1))
        axes.axvspan(start, end, color="#d69e2e", alpha=0.25, zorder=0)
        axes.axvline(start, color="#d69e2e", linewidth=1, zorder=0)
        if not titled:
            continue
        row = row + 1 if one["from"] < free_from else 0
        free_from = one["from"] + TITLE_SECONDS
        axes.annotate(
            one["title"],
            xy=(start, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4 + 13 * row),
            textcoords="offset points",
            fontsize="small",
            color="#975a16",
        )


def _points(values: Mapping[int, float]) -> tuple[list[datetime], list[float]]:
    """Times and values; a minute that is missing breaks the line."""
    times: list[datetime] = []
    numbers: list[float] = []
    for minute in sorted(values):
        if times and minute - MINUTE not in values:
            times.append(_moment(minute))
            numbers.append(float("nan"))
        times.append(_moment(minute + MINUTE / 2))
        numbers.append(values[minute])
    return times, numbers


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
