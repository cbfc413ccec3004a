"""Tasks whose host ports ECS chooses: found through the agent, followed without a reload."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.hosts.machine import (
    Machine,
    moments,
    next_generation,
    switch_arguments,
    wait_for,
)

TASKS = ["--blue-task", "web:5", "--green-task", "web:6"]


def shown(host: Machine) -> set[str]:
    """The colours that answer some requests."""
    return {host.get()[1] for _ in range(20)}


def test_switches_between_ports_that_ecs_chose(dynamic_host: Machine) -> None:
    host = dynamic_host
    blue, green = host.run_tasks("web:5", "blue"), host.run_tasks("web:6", "green", count=2)
    report = host.report(*TASKS)
    assert report["ports"] == {"blue": [blue[0].port], "green": [task.port for task in green]}
    assert report["answers"] == {"blue": "", "green": ""}
    assert report["dynamic"] is True

    host.switch(100, 0, *TASKS)
    assert shown(host) == {"blue"}
    host.switch(0, 100, *TASKS)
    assert shown(host) == {"green"}
    host.switch(50, 50, *TASKS)
    assert shown(host) == {"blue", "green"}
    host.kill_proxy()
    host.start_proxy()
    assert shown(host) == {"blue", "green"}


def test_all_tasks_of_a_colour_get_requests(dynamic_host: Machine) -> None:
    host = dynamic_host
    tasks = host.run_tasks("web:5", "blue", count=3)
    for number, task in enumerate(tasks):
        task.color = f"blue {number}"
    host.switch(100, 0, *TASKS)
    counted = Counter(host.get()[1] for _ in range(150))
    assert sorted(counted) == ["blue 0", "blue 1", "blue 2"]
    assert min(counted.values()) > 20


def test_follows_the_tasks(dynamic_host: Machine) -> None:
    host = dynamic_host
    assert host.agent is not None
    (first,) = host.run_tasks("web:5", "first")
    generation = host.switch(100, 0, *TASKS)
    switched_at = host.report()["switched_at"]
    host.start_watch()
    with host.upgraded() as connection:
        (second,) = host.run_tasks("web:5", "second")
        wait_for(lambda: shown(host) == {"first", "second"})
        host.agent.ends(first)
        wait_for(lambda: shown(host) == {"second"})
        connection.sendall(b"x")
        assert connection.recv(100) == b"first:x"
    report = host.report()
    assert report["ports"]["blue"] == [second.port]
    assert (report["generation"], report["switched_at"]) == (generation, switched_at)
    assert (report["weights"], report["running"]) == ({"blue": 100, "green": 0}, "")
    host.kill_proxy()
    host.start_proxy()
    assert shown(host) == {"second"}


def test_a_task_gets_requests_once_it_answers(dynamic_host: Machine) -> None:
    host = dynamic_host
    host.run_tasks("web:5", "ready")
    host.switch(100, 0, *TASKS)
    (starting,) = host.run_tasks("web:5", "starting")
    starting.health = 503
    assert "503 for /healthz" in host.report()["answers"]["blue"]
    host.start_watch()
    time.sleep(1.5)
    assert shown(host) == {"ready"}
    starting.health = 200
    wait_for(lambda: shown(host) == {"ready", "starting"})


def test_an_agent_that_is_away_is_no_news_of_the_tasks(dynamic_host: Machine) -> None:
    host = dynamic_host
    assert host.agent is not None
    host.run_tasks("web:5", "blue")
    host.run_tasks("web:6", "green")
    host.switch(100, 0, *TASKS)
    arguments = [*switch_arguments(next_generation(), 0, 100, "100:0"), *TASKS]
    host.do("stage", *arguments)
    host.agent.stop()
    host.start_watch()
    time.sleep(1.2)
    assert shown(host) == {"blue"}
    host.do("commit", *arguments, *moments())
    assert shown(host) == {"green"}
    # What was never looked at is not guessed.
    later = [*switch_arguments(next_generation(), 100, 0, "0:100"), "--blue-task", "web:7"]
    assert "does not answer /v1/tasks" in host.refused("stage", *later)
    assert host.report()["connections"] is None
    host.start_agent()


@pytest.mark.parametrize("more", [[], ["--blue-task", "web:5", "--green-task", "web:5"]])
def test_a_colour_without_a_task_here(dynamic_host: Machine, more: list[str]) -> None:
    host = dynamic_host
    host.run_tasks("web:5", "blue")
    host.switch(100, 0, *TASKS)
    said = host.refused("stage", *switch_arguments(next_generation(), 0, 100, "100:0"), *more)
    expected = "cannot be told apart" if more else "no task of this colour on this host"
    assert expected in said
    assert shown(host) == {"blue"}


def test_a_host_without_any_task_loses_nothing(dynamic_host: Machine) -> None:
    host = dynamic_host
    host.switch(0, 100, *TASKS)
    assert host.get()[0] == 503
    host.start_watch()
    host.run_tasks("web:6", "green")
    wait_for(lambda: host.get() == (200, "green"))


def test_a_reboot_brings_other_ports(dynamic_host: Machine) -> None:
    host = dynamic_host
    assert host.agent is not None
    before = host.run_tasks("web:5", "before")
    generation = host.switch(100, 0, *TASKS)
    host.kill_proxy()
    host.agent.ends(*before)
    host.run_tasks("web:5", "after")
    host.set_parameter(
        generation=generation, blue=100, green=0, at=0, tasks={"blue": "web:5", "green": "web:6"}
    )
    host.do("restore")
    host.start_proxy()
    assert shown(host) == {"after"}
