"""What a host refuses; nothing changes then, and it says what is wrong and where."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time

import pytest

from hosts import ecs_bluegreen_host as program
from tests.hosts.machine import (
    PROGRAM,
    STATUS_PORT,
    Machine,
    moments,
    next_generation,
    switch_arguments,
)

VALID = {
    "--service": "web",
    "--generation": "1763790000000",
    "--blue": "0",
    "--green": "100",
    "--expected": "100:0,none",
    "--blue-task": "web:5",
    "--green-task": "web:6",
    "--at": "1763790010.000",
    "--not-after": "1763790020.000",
}
BAD = [
    "'; reboot; '",
    "$(reboot)",
    "`reboot`",
    "../../etc",
    "0\n",
    "0 ",
    "",
    '"',
    "٣",
    "-1",
    "1e3.5",
]


@pytest.mark.parametrize(
    ("option", "bad"),
    # A task may be left out.
    [(name, bad) for name in VALID for bad in BAD if bad or not name.endswith("-task")],
)
def test_values_that_no_document_sends(
    option: str, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part for name, value in VALID.items() for part in (name, value)]
    given[given.index(option) + 1] = bad
    # With an equals sign, or argparse would take -1 for an option.
    arguments = [f"{given[n]}={given[n + 1]}" for n in range(0, len(given), 2)]
    assert program.main(["commit", *arguments]) == 1
    assert option in capsys.readouterr().out


@pytest.mark.parametrize(
    ("blue", "green"), [(50, 49), (100, 100), (0, 99)], ids=lambda weight: str(weight)
)
def test_weights_that_do_not_make_100(host: Machine, blue: int, green: int) -> None:
    arguments = switch_arguments(next_generation(), blue, green, "none")
    assert "have to make 100" in host.refused("stage", *arguments)


def test_weights_that_somebody_else_has_changed(host: Machine) -> None:
    host.switch(100, 0)
    arguments = switch_arguments(next_generation(), 0, 100, "50:50,none")
    for command in (["stage", *arguments], ["commit", *arguments, *moments()]):
        said = host.refused(*command)
        assert "the traffic is 100:0 (blue:green), not 50:50 or none" in said
    assert host.get() == (200, "blue")
    assert host.report()["staged"] is None


def test_a_colour_that_does_not_answer(host: Machine) -> None:
    host.switch(100, 0)
    arguments = switch_arguments(next_generation(), 0, 100, "100:0")
    host.tasks["green"].health = 500
    assert "green does not answer on this host: 500 for /healthz" in host.refused(
        "stage", *arguments
    )
    host.tasks["green"].stop()
    assert "green does not answer on this host: connection refused" in host.refused(
        "stage", *arguments
    )
    # The colour that gets nothing need not answer.
    host.do("stage", *switch_arguments(next_generation(), 100, 0, "100:0"))
    assert host.get() == (200, "blue")
    host.start_task("green")


def test_what_is_older(host: Machine) -> None:
    older, newer = next_generation(), next_generation()
    host.switch(100, 0)
    said = host.refused("stage", *switch_arguments(older, 0, 100, "100:0"))
    assert f"generation {older} is not newer than" in said
    said = host.refused("commit", *switch_arguments(newer, 0, 100, "100:0"), *moments())
    assert f"generation {newer} is older than" in said
    assert host.get() == (200, "blue")


def test_what_is_older_than_what_is_staged(host: Machine) -> None:
    host.switch(100, 0)
    lost, recovering = next_generation(), next_generation()
    host.do("stage", *switch_arguments(lost, 0, 100, "100:0"))
    host.do("stage", *switch_arguments(recovering, 100, 0, "100:0"))
    said = host.refused("commit", *switch_arguments(lost, 0, 100, "100:0"), *moments())
    assert f"generation {lost} is older than {recovering}, which is staged" in said
    assert host.get() == (200, "blue")


def test_the_same_generation_with_other_weights(host: Machine) -> None:
    generation = host.switch(100, 0)
    said = host.refused("commit", *switch_arguments(generation, 0, 100, "100:0"), *moments())
    assert "other weights need a newer generation" in said
    staged = next_generation()
    host.do("stage", *switch_arguments(staged, 0, 100, "100:0"))
    host.do("stage", *switch_arguments(staged, 0, 100, "100:0"))
    said = host.refused("stage", *switch_arguments(staged, 50, 50, "100:0"))
    assert "is staged with 0:100" in said
    assert host.get() == (200, "blue")


def test_what_comes_too_late(host: Machine) -> None:
    host.switch(100, 0)
    arguments = switch_arguments(next_generation(), 0, 100, "100:0")
    assert "too late by" in host.refused("commit", *arguments, *moments(-30, 10))
    assert host.get() == (200, "blue")
    assert host.weights() == "100:0"


def test_what_is_far_ahead(host: Machine) -> None:
    arguments = switch_arguments(next_generation(), 0, 100, "none")
    said = host.refused("commit", *arguments, *moments(3600))
    assert "is the clock of this host right?" in said


def test_what_waits_and_is_overtaken(host: Machine) -> None:
    """The generation and the weights are compared again when the moment has come."""
    host.switch(100, 0)
    arguments = switch_arguments(next_generation(), 0, 100, "100:0")
    refusals: list[str] = []
    waiting = threading.Thread(
        target=lambda: refusals.append(host.refused("commit", *arguments, *moments(4)))
    )
    waiting.start()
    time.sleep(0.5)
    host.switch(50, 50)
    waiting.join()
    assert "is older than" in refusals[0]
    assert host.weights() == "50:50"


def test_a_proxy_that_does_not_run(host: Machine) -> None:
    host.kill_proxy()
    said = host.refused("stage", *switch_arguments(next_generation(), 0, 100, "none"))
    assert f"{host.proxy} does not run" in said
    host.start_proxy()


def test_a_damaged_configuration(host: Machine) -> None:
    host.switch(100, 0)
    path = host.folder / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[host.proxy]
    whole = path.read_text()
    arguments = switch_arguments(next_generation(), 0, 100, "100:0")
    path.write_text(f"{whole}\nthis_is_no_directive;\n")
    said = host.refused("stage", *arguments)
    assert f"{path} is not valid:" in said
    assert "this_is_no_directive" in said
    path.write_text(f"{whole}\n# valid\n")
    assert "changed by hand" in host.refused("stage", *arguments)
    assert host.get() == (200, "blue")
    path.write_text(whole)
    host.do("stage", *arguments)


def test_another_process_behind_the_status_port() -> None:
    with Machine("nginx") as host:
        host.configure("--status-port", "18099")
        host.start_proxy()
        host.configure("--status-port", str(STATUS_PORT))
        assert "nginx does not run" in host.report()["running"]


def test_a_configuration_that_the_proxy_has_not_read(host: Machine) -> None:
    host.configure("--health-path", "/other")
    assert "has another configuration than" in host.report()["running"]
    host.kill_proxy()
    host.start_proxy()


def test_two_commands_at_once(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "LOCK_SECONDS", 0.2)
    with (host.folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        arguments = switch_arguments(next_generation(), 0, 100, "none")
        assert "is held by another command" in host.refused("stage", *arguments)


def test_a_host_that_is_not_configured() -> None:
    with Machine("nginx") as host:
        assert "web is not configured on this host" in host.refused("report")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--proxy", "nginx", "--protocol", "tcp"], "use --proxy haproxy"),
        (["--container", "web", "--container-port", "8000"], "say where the tasks are"),
        (["--blue-port", "0"], "say where the tasks are"),
        (["--blue-port", "18082"], "have to differ"),
        (["--port", "70000"], "1 to 65535"),
        (["--bind", "127.0.0.256"], "is no IPv4 address"),
        (["--health-path", "/a;b"], "argument --health-path"),
        (["--proxy", "apache"], "invalid choice"),
    ],
)
def test_a_configuration_that_makes_no_sense(arguments: list[str], reason: str) -> None:
    with Machine("nginx") as host:
        given = ["--proxy", "nginx", "--port", "8080"]
        given += ["--blue-port", "18081", "--green-port", "18082"]
        assert reason in host.refused("configure", *given, *arguments)
        assert not (host.folder / "host.json").exists()


def test_a_home_that_could_break_a_configuration() -> None:
    command = [sys.executable, "-I", "-S", str(PROGRAM), "report", "--service", "web"]
    environment = {"ECS_BLUEGREEN_HOME": "/tmp/a;b"}  # noqa: S108 - it is never made
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ECS_BLUEGREEN_HOME is '/tmp/a;b'" in done.stdout
