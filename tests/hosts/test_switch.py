"""A switch on one host: what requests see of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.hosts.conftest import needs
from tests.hosts.machine import (
    PORT,
    PORTS,
    PROGRAM,
    Machine,
    moments,
    next_generation,
    switch_arguments,
    wait_for,
)

SHARES = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() blue, green = 0, 0 end
function response(status, headers)
  local color = headers["X-Color"] or headers["x-color"] -- HAProxy writes names in lower case
  if color == "blue" then blue = blue + 1 end
  if color == "green" then green = green + 1 end
end
function done()
  local blue, green = 0, 0
  for _, thread in ipairs(threads) do
    blue, green = blue + thread:get("blue"), green + thread:get("green")
  end
  print("counted", blue, green)
end
"""


def test_first_switch(host: Machine) -> None:
    assert host.get()[0] == 503
    report = host.report()
    assert (report["generation"], report["weights"], report["switched_at"]) == (0, {}, None)
    assert report["answers"] == {"blue": "", "green": ""}

    generation = next_generation()
    arguments = switch_arguments(generation, 0, 100, "none")
    ports = {color: [port] for color, port in PORTS.items()}
    assert host.do("stage", *arguments) == {"staged": generation, "ports": ports}
    assert host.get()[0] == 503
    assert host.report()["staged"] == generation

    before = time.time()
    said = host.do("commit", *arguments, *moments())
    assert before <= said["switched_at"] <= time.time()
    assert host.get() == (200, "green")
    report = host.report()
    assert report["generation"] == said["generation"] == generation
    assert report["weights"] == said["weights"] == {"blue": 0, "green": 100}
    assert (report["switched_at"], report["staged"]) == (said["switched_at"], None)
    assert (report["running"], report["port"], report["dynamic"]) == ("", PORT, False)


def test_there_and_back_and_to_nothing(host: Machine) -> None:
    host.switch(100, 0)
    assert host.get() == (200, "blue")
    host.switch(0, 100)
    assert host.get() == (200, "green")
    host.switch(100, 0)
    assert host.get() == (200, "blue")
    host.switch(0, 0)
    assert host.get()[0] == 503
    assert host.report()["weights"] == {}


def test_switches_at_the_moment(host: Machine) -> None:
    host.switch(100, 0)
    generation = next_generation()
    at = time.time() + 0.8
    moment = ["--at", f"{at:.3f}", "--not-after", f"{at + 5:.3f}"]
    command = [sys.executable, "-I", "-S", str(PROGRAM), "commit", "--service", "web"]
    command += [*switch_arguments(generation, 0, 100, "100:0"), *moment]
    with subprocess.Popen(command, env=host.environment, stdout=subprocess.PIPE) as process:
        while time.time() < at - 0.02:
            assert host.get() == (200, "blue")
        said = json.loads(process.communicate()[0])
    assert host.get() == (200, "green")
    assert 0 <= said["late_ms"] < 20


def test_a_repeated_commit_changes_nothing(host: Machine) -> None:
    host.switch(100, 0)
    arguments = switch_arguments(next_generation(), 0, 100, "100:0")
    first = host.do("commit", *arguments, *moments())
    assert host.get() == (200, "green")
    again = host.do("commit", *arguments, *moments(-30, 10))
    assert again == {**first, "late_ms": None}


def test_the_proxy_keeps_its_colour_when_it_restarts(host: Machine) -> None:
    generation = host.switch(0, 100)
    host.kill_proxy()
    report = host.report()
    assert host.proxy in report["running"]
    assert (report["generation"], report["weights"]) == (generation, {"blue": 0, "green": 100})
    host.start_proxy()
    assert host.get() == (200, "green")
    assert host.report()["generation"] == generation


def test_a_proxy_that_restarts_in_the_middle_has_the_new_colour(host: Machine) -> None:
    host.switch(100, 0)
    generation = next_generation()
    arguments = switch_arguments(generation, 0, 100, "100:0")
    host.do("stage", *arguments)
    host.kill_proxy()
    assert "is on disk, but" in host.refused("commit", *arguments, *moments())
    host.start_proxy()
    assert host.get() == (200, "green")
    assert host.do("commit", *arguments, *moments())["generation"] == generation


def test_an_upgraded_connection_stays_on_its_colour_and_is_counted(host: Machine) -> None:
    host.switch(100, 0)
    with host.upgraded() as connection:
        wait_for(lambda: host.report()["connections"] == {"blue": 1, "green": 0})
        host.switch(0, 100)
        assert host.get() == (200, "green")
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"blue:still there?"
        assert host.report()["connections"]["blue"] == 1
    wait_for(lambda: host.report()["connections"]["blue"] == 0)


def test_a_long_request_ends_on_its_colour(host: Machine) -> None:
    host.switch(100, 0)
    with socket.create_connection((host.address, PORT), timeout=20) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        wait_for(lambda: host.report()["connections"]["blue"] == 1)
        host.switch(0, 100)
        assert host.get() == (200, "green")
        host.tasks["blue"].release.set()
        answer = b""
        while part := connection.recv(1000):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"X-Color: blue" in answer or b"x-color: blue" in answer
    # Idle connections to a task are closed after some seconds, or a drain would never end.
    wait_for(lambda: host.report()["connections"]["blue"] == 0)


def test_what_a_task_sees_of_a_request(host: Machine) -> None:
    host.switch(100, 0)
    seen = json.loads(host.ask(Host="shop.example").headers["X-Seen"])
    assert seen["host"] == "shop.example"
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("127.0.0.1", "http")
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    seen = json.loads(host.ask(**forwarded).headers["X-Seen"])
    assert seen["x-forwarded-for"] == "192.0.2.7, 127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"


def test_own_directives_of_the_user() -> None:
    needs("nginx")
    with Machine("nginx") as host:
        host.configure()
        (host.folder / "server.d" / "own.conf").write_text("location = /own { return 418; }\n")
        host.start_proxy()
        assert host.get("/own")[0] == 418


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_a_proxy_in_a_container(proxy: str) -> None:
    """Its configuration is tested where the proxy is."""
    needs(proxy)
    with Machine(proxy) as host:
        host.configure("--proxy-container", "proxy")
        host.start_task("blue")
        host.start_proxy()
        agent = host.start_agent()
        arguments = switch_arguments(next_generation(), 100, 0, "none")
        assert "no container proxy runs on this host" in host.refused("stage", *arguments)
        containers = [{"Name": "proxy", "DockerId": "3" * 64}]
        agent.tasks.append({"KnownStatus": "RUNNING", "Containers": containers})
        host.do("stage", *arguments)
        host.do("commit", *arguments, *moments())
        assert host.get() == (200, "blue")


def test_tcp() -> None:
    needs("haproxy")
    with Machine("haproxy", protocol="tcp") as host:
        host.configure()
        host.start_task("blue")
        host.start_task("green")
        host.start_proxy()
        with socket.create_connection((host.address, PORT), timeout=20) as connection:
            assert connection.recv(100) == b""
        host.switch(100, 0)
        with host.upgraded() as connection:
            host.switch(0, 100)
            assert host.get() == (200, "green")
            connection.sendall(b"x")
            assert connection.recv(100) == b"blue:x"
            assert host.report()["connections"] == {"blue": 1, "green": 0}
        host.tasks["green"].stop()
        assert "connection refused" in host.report()["answers"]["green"]
        host.start_task("green")


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_shares(proxy: str) -> None:
    needs(proxy, "nginx", "wrk")
    with Machine(proxy) as host:
        host.configure()
        host.start_fast_tasks()
        host.start_proxy()
        script = host.home / "shares.lua"
        script.write_text(SHARES)
        for green in (1, 5, 10, 25, 50, 100):
            host.switch(100 - green, green)
            counted: Counter[str] = Counter()
            while counted.total() < 20_000:
                url = f"http://{host.address}:{PORT}/"
                command = ["wrk", "-t1", "-c16", "-d1", "-s", str(script), url]
                printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                line = next(line for line in printed.splitlines() if line.startswith("counted"))
                counted.update(
                    dict(zip(("blue", "green"), map(int, line.split()[1:]), strict=True))
                )
            assert abs(100 * counted["green"] / counted.total() - green) < 1.5


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_no_request_is_lost_in_200_switches(proxy: str) -> None:
    needs(proxy, "nginx", "wrk")
    with Machine(proxy) as host:
        host.configure()
        host.start_fast_tasks()
        host.start_proxy()
        host.switch(100, 0)
        url = f"http://{host.address}:{PORT}/"
        command = ["wrk", "-t1", "-c32", "-d60", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
            for number in range(200):
                weights = ((0, 100), (100, 0))[number % 2]
                before = ("100:0", "0:100")[number % 2]
                arguments = switch_arguments(next_generation(), *weights, before)
                host.do("commit", *arguments, *moments())
            wrk.send_signal(2)
            printed = wrk.communicate()[0]
    assert "requests in" in printed
    assert "Socket errors" not in printed
    assert "Non-2xx" not in printed
