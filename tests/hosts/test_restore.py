"""A host that boots: it takes over what the deployer wants before its proxy has traffic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from hosts import ecs_bluegreen_host as program
from tests.hosts.conftest import needs
from tests.hosts.machine import Machine, next_generation, wait_for


@pytest.fixture(params=["nginx", "haproxy"])
def booting(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A configured host with tasks and an agent; its proxy does not run yet."""
    needs(request.param)
    with Machine(request.param) as machine:
        machine.configure()
        machine.start_task("blue")
        machine.start_task("green")
        machine.start_agent()
        yield machine


def test_takes_over_what_is_wanted(booting: Machine) -> None:
    generation = next_generation()
    booting.set_parameter(
        generation=generation, blue=0, green=100, at=time.time() - 5, tasks={"blue": "web:5"}
    )
    said = booting.do("restore")
    assert (said["generation"], said["weights"]) == (generation, {"blue": 0, "green": 100})
    assert "/bluegreen/hosts/web" in (booting.home / "aws.log").read_text()
    booting.start_proxy()
    assert booting.get() == (200, "green")


def test_waits_for_a_switch_that_is_under_way(booting: Machine) -> None:
    at = time.time() + 0.8
    generation = next_generation()
    booting.set_parameter(generation=generation, blue=0, green=100, at=at, tasks={})
    booting.do("restore")
    assert time.time() >= at
    assert booting.report()["switched_at"] == pytest.approx(at, abs=0.1)


def test_reaches_a_proxy_that_runs_already(booting: Machine) -> None:
    booting.start_proxy()
    booting.set_parameter(generation=next_generation(), blue=0, green=100, at=0, tasks={})
    booting.do("restore")
    assert booting.get() == (200, "green")


def test_keeps_what_is_newer(booting: Machine) -> None:
    booting.start_proxy()
    old = next_generation()
    new = booting.switch(100, 0)
    booting.set_parameter(generation=old, blue=0, green=100, at=0, tasks={})
    said = booting.do("restore")
    assert said["generation"] == new
    assert f"generation {old} is older" in said["note"]
    assert booting.get() == (200, "blue")


def test_keeps_what_is_there_when_nothing_was_ever_wanted(booting: Machine) -> None:
    booting.start_proxy()
    generation = booting.switch(100, 0)
    booting.fail_parameter("An error occurred (ParameterNotFound) when calling GetParameter")
    assert booting.do("restore")["generation"] == generation


@pytest.mark.parametrize(
    "parameter",
    ['{"generation": 5, "blue": 50, "green": 60, "at": 0}', '{"blue": 1}', "", "[]", "none"],
)
def test_does_not_guess(booting: Machine, parameter: str) -> None:
    booting.set_parameter()
    (booting.home / "parameter").write_text(parameter)
    booting.refused("restore")
    booting.fail_parameter("An error occurred (AccessDeniedException)")
    assert "AccessDeniedException" in booting.refused("restore")
    assert not (booting.folder / "restored").exists()


def test_the_proxy_does_not_start_before(booting: Machine) -> None:
    process = booting.start(["ecs-bluegreen-host", "run", "--service", "web"])
    time.sleep(0.4)
    assert "does not run" in booting.report()["running"]
    booting.set_parameter(generation=next_generation(), blue=0, green=100, at=0, tasks={})
    booting.do("restore")
    wait_for(lambda: booting.report()["running"] == "")
    assert booting.get() == (200, "green")
    process.terminate()
    process.wait()


def test_14_a_report_of_the_moment_in_which_it_ends_shows_no_weights_from_before(
    booting: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be taken for somebody else's: a new host's state has none at all."""
    booting.set_parameter(generation=next_generation(), blue=0, green=100, at=0, tasks={})
    look = program.look

    def late(host: Any, current: Any) -> Any:
        booting.do("restore")
        return look(host, current)

    monkeypatch.setattr(program, "look", late)
    status, said = program.answer(["report", "--service", "web"])
    assert status == 0
    assert not said["restored"] or said["weights"] == {"blue": 0, "green": 100}


def test_waits_for_the_agent_to_register(booting: Machine) -> None:
    assert booting.agent is not None
    booting.agent.arn = None
    booting.set_parameter(generation=next_generation(), blue=0, green=100, at=0, tasks={})
    process = booting.start(["ecs-bluegreen-host", "restore", "--service", "web"])
    time.sleep(0.6)
    assert process.poll() is None
    assert not (booting.home / "aws.log").exists()
    booting.agent.arn = "arn:aws:ecs:eu-west-1:123456789012:container-instance/web/0a"
    assert process.wait(10) == 0


def test_14_waits_for_both_colours_where_both_have_requests(booting: Machine) -> None:
    """A host that appears during a canary: ECS starts the old colour's task a little later."""
    booting.tasks.pop("blue").stop()
    booting.set_parameter(generation=next_generation(), blue=75, green=25, at=0, tasks={})
    proxy = booting.start(["ecs-bluegreen-host", "run", "--service", "web"])
    process = booting.start(["ecs-bluegreen-host", "restore", "--service", "web"])
    wait_for(lambda: booting.report()["weights"] == {"blue": 75, "green": 25})
    read = (booting.home / "aws.log").read_text
    wait_for(lambda: read().count("/bluegreen/hosts/web") > 1)
    assert process.poll() is None
    assert not booting.report()["restored"]
    assert "does not run" in booting.report()["running"], "the load balancer sends nothing here"
    booting.start_task("blue")
    assert process.wait(10) == 0
    wait_for(lambda: booting.report()["running"] == "")
    assert {booting.get() for _ in range(60)} == {(200, "blue"), (200, "green")}
    proxy.terminate()
    proxy.wait()


@pytest.mark.parametrize("blue", [0, 100])
def test_14_does_not_wait_any_more_once_all_requests_go_to_one_colour(
    booting: Machine, blue: int
) -> None:
    """The step was taken back meanwhile, or the last one taken."""
    booting.tasks.pop("blue").stop()
    booting.set_parameter(generation=next_generation(), blue=75, green=25, at=0, tasks={})
    process = booting.start(["ecs-bluegreen-host", "restore", "--service", "web"])
    wait_for(lambda: booting.report()["weights"] == {"blue": 75, "green": 25})
    booting.set_parameter(generation=next_generation(), blue=blue, green=100 - blue, at=0, tasks={})
    assert process.wait(10) == 0
    assert booting.report()["weights"] == {"blue": blue, "green": 100 - blue}


def test_14_says_which_colour_it_waits_for_in_vain(
    booting: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "REGISTER_SECONDS", 0.0)
    booting.tasks.pop("green").stop()
    booting.set_parameter(generation=next_generation(), blue=75, green=25, at=0, tasks={})
    status, said = program.answer(["restore", "--service", "web"])
    assert (status, said["error"].split(":")[0]) == (1, "green does not answer on this host")
    assert not (booting.folder / "restored").exists()
