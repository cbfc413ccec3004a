"""What is read back from Mackerel: gaps are found, and the picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.image import imread

from sandbox.collected import MINUTE, RUNNING_TASKS, Collected, Host, gaps
from sandbox.picture import COLORS, draw

START = 1_767_225_600  # a whole minute
CPU = "custom.ecs.cpu.web.total"
MEMORY = "custom.ecs.memory.web.usage"


def minutes(*numbers: int, value: float = 1.0) -> dict[int, float]:
    return {START + number * MINUTE: value for number in numbers}


def host(color: str, metrics: Mapping[str, Mapping[int, float]]) -> Host:
    return Host(
        f"web.web-{color}",
        f"ecs-bluegreen.123456789012.ap-northeast-1.web.web-{color}",
        "working",
        metrics,
    )


def collected(
    blue: Mapping[str, Mapping[int, float]], green: Mapping[str, Mapping[int, float]]
) -> Collected:
    return Collected({"blue": host("blue", blue), "green": host("green", green)}, [])


def handed_over(**changed: Any) -> Collected:
    """Blue works in minutes 0 to 3 and green from 3 on; a first minute has no CPU value."""
    metrics: dict[str, Any] = {
        "blue_tasks": range(7),
        "blue_cpu": range(1, 4),
        "green_tasks": range(7),
        "green_cpu": range(4, 7),
        **changed,
    }
    return collected(
        {
            RUNNING_TASKS: minutes(*metrics["blue_tasks"]),
            CPU: minutes(*metrics["blue_cpu"]),
            MEMORY: minutes(*range(4)),
        },
        {
            RUNNING_TASKS: minutes(*metrics["green_tasks"]),
            CPU: minutes(*metrics["green_cpu"]),
            MEMORY: minutes(*range(3, 7)),
        },
    )


def test_a_switch_without_a_gap() -> None:
    assert gaps(handed_over(), "web") == []


def test_a_minute_is_missing_within_a_color() -> None:
    assert gaps(handed_over(green_cpu=(4, 6)), "web") == [
        f"green: {CPU}: 1 minutes are missing",
        "CPU of web, of any color: 1 minutes are missing",
    ]


def test_a_minute_is_missing_between_the_colors() -> None:
    found = gaps(handed_over(blue_cpu=(1, 2)), "web")
    assert found == ["CPU of web, of any color: 1 minutes are missing"]


def test_the_last_minutes_are_missing() -> None:
    found = gaps(handed_over(green_cpu=(4,)), "web")
    assert found == ["CPU of web, of any color: 2 minutes are missing"]


def test_what_runs_has_to_be_told_every_minute_also_when_it_is_nothing() -> None:
    found = gaps(handed_over(blue_tasks=(0, 1, 2, 5)), "web")
    assert found == ["blue: running tasks: 3 minutes are missing"]


def test_nothing_at_all_is_a_gap() -> None:
    assert gaps(Collected({}, []), "web") == ["there are no values at all"]
    only_tasks = collected({RUNNING_TASKS: minutes(0, 1)}, {RUNNING_TASKS: minutes(0, 1)})
    assert gaps(only_tasks, "web") == ["no color has a CPU value of web"]


def test_the_tasks_of_a_container_by_slot() -> None:
    one = host(
        "blue",
        {
            "custom.ecs.cpu_task.web-0.total": minutes(0),
            "custom.ecs.cpu_task.web-10.total": minutes(1),
            "custom.ecs.cpu_task.web-0.user": minutes(2),
            "custom.ecs.cpu_task.proxy-0.total": minutes(3),
        },
    )
    assert one.of_tasks("cpu", "web", "total") == {"0": minutes(0), "10": minutes(1)}


def test_the_picture_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.png"
    seen = handed_over()
    marks = [
        {"title": "web: blue → green, succeeded", "from": START + 100, "to": START + 190},
        {"title": "web: green → blue, failed", "from": START + 130, "to": START + 131},
    ]
    draw(Collected(seen.hosts, marks), "web", path)
    pixels = (imread(path)[:, :, :3] * 255).round().astype(int)
    assert pixels.shape == (1080, 1320, 3)
    found = {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}
    for color in COLORS.values():
        assert tuple(int(color[place : place + 2], 16) for place in (1, 3, 5)) in found
