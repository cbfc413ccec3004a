"""Plugins: what they are given, how they are run, and that a bad one loses nothing else."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from hosts import ecs_bluegreen_metrics as program
from tests.hosts.machine import wait_for
from tests.hosts.trees import (
    HOST_NETWORK,
    V2,
    V2_LAYOUTS,
    ListeningAgent,
    Said,
    Tree,
    ask,
    container_id,
    task,
    task_id,
)

ECS = V2_LAYOUTS[0]
PRINTS = "printf 'dice.d6\\t%s\\t1397031808\\n' 4"


def plugin(name: str = "dice", command: str = PRINTS, **more: Any) -> dict[str, Any]:
    return {"name": name, "container": "app", "command": command, "timeout_seconds": 5} | more


def look(agent: ListeningAgent, tree: Tree, *plugins: dict[str, Any]) -> Said:
    return ask(tree.environment(agent.where), plugins)


def one_container(agent: ListeningAgent, tree: Tree, **more: Any) -> None:
    """A task with one container ``app``; more: of the container, as the agent describes it."""
    described = task(1, "app")
    described["Containers"][0].update(more)
    agent.tasks = [described]
    tree.add(V2, ECS)


def environment_of(
    agent: ListeningAgent, tree: Tree, command: str = "", **more: Any
) -> dict[str, str]:
    """What a plugin is given."""
    file = tree.directory / "environment"
    # Not when it is asked for graph definitions.
    writes = f'[ -n "$MACKEREL_AGENT_PLUGIN_META" ] || env -0 >{file}'
    said = look(agent, tree, plugin(command=f"{writes}; : {command}; {PRINTS}", **more))
    assert len(said.plugins()) == 1
    pairs = (line.partition("=") for line in file.read_text().split("\0") if line)
    return {name: value for name, _, value in pairs}


def links(environment: dict[str, str], prefix: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(prefix)}


def test_values_of_a_plugin(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    command = f"{PRINTS}; echo 'dice.d20 7.5 1397031808'; echo nonsense; echo 'a b'"
    said = look(agent, tree, plugin(command=command, aggregate="average"))
    assert said.problems == []
    assert said.plugins() == [
        {
            "task": task_id(1),
            "family": "shop",
            "revision": "7",
            "container": "app",
            "plugin": "dice",
            "aggregate": "average",
            "values": [["dice.d6", 4], ["dice.d20", 7.5]],
            "graphs": None,
        }
    ]
    assert said.of("app")["g"]["memory.usage"] == 130023424


def test_link_variables_of_a_container_with_an_address(agent: ListeningAgent, tree: Tree) -> None:
    ports = [
        {"ContainerPort": 11212, "Protocol": "udp", "HostPort": 40001},
        {"ContainerPort": 11211, "Protocol": "tcp", "HostPort": 40000},
    ]
    one_container(agent, tree, Ports=ports)
    found = environment_of(agent, tree, "$MEMCACHED_PORT_9_TCP_ADDR", link="MEMCACHED")
    assert links(found, "MEMCACHED") == {
        "MEMCACHED_PORT": "tcp://172.17.0.2:9",
        "MEMCACHED_PORT_9_TCP": "tcp://172.17.0.2:9",
        "MEMCACHED_PORT_9_TCP_ADDR": "172.17.0.2",
        "MEMCACHED_PORT_9_TCP_PORT": "9",
        "MEMCACHED_PORT_9_TCP_PROTO": "tcp",
        "MEMCACHED_PORT_11211_TCP": "tcp://172.17.0.2:11211",
        "MEMCACHED_PORT_11211_TCP_ADDR": "172.17.0.2",
        "MEMCACHED_PORT_11211_TCP_PORT": "11211",
        "MEMCACHED_PORT_11211_TCP_PROTO": "tcp",
        "MEMCACHED_PORT_11212_UDP": "udp://172.17.0.2:11212",
        "MEMCACHED_PORT_11212_UDP_ADDR": "172.17.0.2",
        "MEMCACHED_PORT_11212_UDP_PORT": "11212",
        "MEMCACHED_PORT_11212_UDP_PROTO": "udp",
    }
    assert found["MACKEREL_AGENT_PLUGIN_META"] == ""


def test_link_variables_by_the_containers_name(agent: ListeningAgent, tree: Tree) -> None:
    described = task(1, "my-cache.1")
    described["Containers"][0]["Ports"] = [{"ContainerPort": 80, "HostPort": 80}]
    agent.tasks = [described]
    tree.add(V2, ECS)
    found = environment_of(agent, tree, container="my-*")
    assert links(found, "MY_CACHE_1")["MY_CACHE_1_PORT_80_TCP_ADDR"] == "172.17.0.2"


def test_link_variables_of_an_awsvpc_task(agent: ListeningAgent, tree: Tree) -> None:
    networks = [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.1.23"]}]
    one_container(agent, tree, Networks=networks, Ports=[{"ContainerPort": 80, "HostPort": 80}])
    assert environment_of(agent, tree)["APP_PORT_80_TCP"] == "tcp://10.0.1.23:80"


def test_link_variables_in_the_network_of_the_instance(agent: ListeningAgent, tree: Tree) -> None:
    described = task(1, "app")
    described["Containers"][0]["Ports"] = [{"ContainerPort": 80, "HostPort": 80}]
    agent.tasks = [described]
    tree.add(V2, ECS, network=HOST_NETWORK)
    assert environment_of(agent, tree)["APP_PORT_80_TCP"] == "tcp://127.0.0.1:80"


@pytest.mark.parametrize(
    ("host_ip", "address"),
    [
        ("", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - what Docker says of all addresses
        ("127.0.1.4", "127.0.1.4"),
    ],
)
def test_link_variables_by_the_published_port(
    agent: ListeningAgent, tree: Tree, host_ip: str, address: str
) -> None:
    """When the container's own address cannot be seen."""
    port = {"ContainerPort": 80, "HostPort": 32768, "HostIp": host_ip, "Protocol": "tcp"}
    one_container(agent, tree, Ports=[port])
    for file in tree.proc.glob("*/net/fib_trie"):
        file.unlink()
    found = environment_of(agent, tree)
    assert found["APP_PORT_80_TCP_ADDR"] == address
    assert found["APP_PORT_80_TCP_PORT"] == "32768"
    assert found["APP_PORT_80_TCP"] == f"tcp://{address}:32768"


def test_a_container_without_ports(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    said = look(agent, tree, plugin(command=f": $APP_PORT_80_TCP; {PRINTS}"))
    assert said.problems == []
    for file in tree.proc.glob("*/net/fib_trie"):
        file.unlink()
    said = look(agent, tree, plugin(command=f": $APP_PORT_80_TCP; {PRINTS}"))
    assert said.problems == [
        f"app (task {task_id(1)}): plugin dice asks for a port of a container that has no address "
        "and has not published it"
    ]


def test_which_containers_a_plugin_is_for(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app", "cache-a", "cache-b"), task(2, "cache-a"), task(3, "cache-a")]
    for index in range(3):
        tree.add(V2, ECS, 1, index)
    tree.add(V2, ECS, 2)  # that of task 3 has ended
    said = look(agent, tree, plugin(container="cache-?"))
    chosen = [(entry["task"], entry["container"]) for entry in said.plugins()]
    assert chosen == [
        (task_id(1), "cache-a"),
        (task_id(1), "cache-b"),
        (task_id(2), "cache-a"),
    ]


@pytest.mark.parametrize(
    ("image", "wanted", "fits"),
    [
        ("memcached", "memcached", True),
        ("memcached:1.6", "memcached", True),
        ("library/memcached:1.6", "memcached", True),
        ("docker.io/library/memcached", "memcached", True),
        ("localhost:5000/memcached@sha256:00", "memcached", True),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/cache:v1", "shop/*", True),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/cache:v1", "cache", False),
        ("memcached-exporter", "memcached", False),
        ("sha256:0123456789abcdef", "memcached", False),
        ("", "*", False),
    ],
)
def test_a_plugin_by_image(image: str, wanted: str, fits: bool) -> None:
    container = program.Container(task(1, "app"), task(1, "app")["Containers"][0], awsvpc=False)
    container.image = image
    assert program.chosen({"image": wanted}, container) is fits


def test_no_docker_to_ask_for_images(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    by_image = {"name": "x", "image": "memcached", "command": PRINTS}
    environment = tree.environment(agent.where, DOCKER_HOST=f"unix://{tree.directory}/none")
    said = ask(environment, [by_image, plugin()])
    assert len(said.problems) == 1
    assert "does not say what runs here" in said.problems[0]
    assert [entry["plugin"] for entry in said.plugins()] == ["dice"]


BAD = {
    "fails": ("echo oh >&2; echo dear >&2; exit 3", "ended with status 3: dear"),
    "missing": ("no-such-command-here", "ended with status 127"),
    "hangs": ("sleep 60", "did not end within 1 s"),
    "lingers": ("setsid sleep 3 & echo x 1 1; sleep 60", "did not end within 1 s"),
    "floods": ("yes", "printed more than 256 KB"),
    "zero": ("echo a\0 1 1", "cannot be started: embedded null byte"),
    "surrogate": ("echo \ud800 1 1", "cannot be started: 'utf-8' codec can't encode"),
    "silent": ("true", "printed no values"),
    "garbage": (
        "echo 'a nan 1'; echo 'b -inf 1'; echo 'c x 1'; echo 'd%e 1 1'",
        "printed nan for a; -inf for b; x for c",
    ),
}


def test_bad_plugins_lose_nothing_else(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    plugins = [
        plugin(name, command, timeout_seconds=1 if name != "floods" else 5)
        for name, (command, _) in BAD.items()
    ]
    began = time.monotonic()
    said = look(agent, tree, plugin("first"), *plugins, plugin("last"))
    assert time.monotonic() - began < 8  # all of them at the same time
    assert [entry["plugin"] for entry in said.plugins()] == ["first", "last"]
    for name, (_, problem) in BAD.items():
        found = [line for line in said.problems if f"plugin {name} {problem}" in line]
        assert found, said.problems
    assert len(said.problems) == len(BAD)
    assert said.of("app")["g"]["memory.usage"] == 130023424


def test_what_a_plugin_has_started_ends_with_it(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    file = tree.directory / "pid"
    look(agent, tree, plugin(command=f"sleep 77 & echo $! >{file}; wait", timeout_seconds=1))
    pid = int(file.read_text())
    wait_for(lambda: state(pid) == "Z")


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    "command",
    [
        "sleep 76 & echo $! >{file}; echo left 1 1",
        "sleep 76 >/dev/null 2>&1 & echo $! >{file}; echo left 1 1",
        "sleep 76 & echo $! >{file}; echo left 1 1; exit 3",
    ],
)
def test_what_a_plugin_has_left_behind_ends_too(
    agent: ListeningAgent, tree: Tree, command: str
) -> None:
    """Also when its shell has ended by itself, and without waiting for what is left."""
    one_container(agent, tree)
    file = tree.directory / "pid"
    began = time.monotonic()
    said = look(agent, tree, plugin(command=command.format(file=file), timeout_seconds=20))
    assert time.monotonic() - began < 2
    if "exit" in command:
        assert "ended with status 3" in said.problems[0]
    else:
        assert said.plugins()[0]["values"] == [["left", 1]]
    wait_for(lambda: state(int(file.read_text())) == "Z")


def test_all_that_a_plugin_has_printed_is_read(agent: ListeningAgent, tree: Tree) -> None:
    """As much as a pipe holds may be there when it ends."""
    one_container(agent, tree)
    said = look(agent, tree, plugin(command="seq -f 'key.%g 1 1' 1 10000"))
    assert said.problems == []
    assert len(said.plugins()[0]["values"]) == 10_000


def test_a_plugin_that_floods_costs_little(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    began = time.monotonic()
    command = '[ -n "$MACKEREL_AGENT_PLUGIN_META" ] || exec yes'
    said = look(agent, tree, plugin(command=command, timeout_seconds=20))
    assert time.monotonic() - began < 2
    assert "plugin dice printed more than 256 KB" in said.problems[0]


def test_a_plugin_that_closes_its_output_is_not_waited_for_longer_than_it_may(
    agent: ListeningAgent, tree: Tree
) -> None:
    one_container(agent, tree)
    silent = "echo a 1 1; exec >&- 2>&-; sleep"
    plugins = [plugin(command=f"{silent} 0.3"), plugin("stays", f"{silent} 60", timeout_seconds=1)]
    began = time.monotonic()
    said = look(agent, tree, *plugins)
    assert time.monotonic() - began < 2
    assert said.plugins()[0]["values"] == [["a", 1]]
    assert [line.partition(": ")[2] for line in said.problems] == [
        "plugin stays did not end within 1 s"
    ]


@pytest.mark.filterwarnings("ignore:subprocess .* is still running")
def test_a_plugin_that_cannot_be_killed_is_not_waited_for(
    agent: ListeningAgent, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits for a broken disk."""
    one_container(agent, tree)
    spared: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _: spared.append(group))
    began = time.monotonic()
    said = look(agent, tree, plugin("stuck", "sleep 60", timeout_seconds=1), plugin())
    assert time.monotonic() - began < 3
    monkeypatch.undo()
    for group in spared:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    assert [entry["plugin"] for entry in said.plugins()] == ["dice"]
    assert "plugin stuck did not end within 1 s" in said.problems[0]


def test_only_some_run_at_a_time(agent: ListeningAgent, tree: Tree) -> None:
    """Each has its whole time from its own start on."""
    many(agent, tree, 20)
    running = tree.directory / "running"
    running.mkdir()
    command = (
        f'[ -z "$MACKEREL_AGENT_PLUGIN_META" ] || exit 0; touch {running}/$$; '
        f"echo at.once $(ls {running} | wc -l) 1; sleep 0.75; rm {running}/$$"
    )
    said = look(agent, tree, plugin(command=command, timeout_seconds=2))
    at_once = [entry["values"][0][1] for entry in said.plugins()]
    assert len(at_once) == 20
    assert 2 < max(at_once) <= 8


def test_all_together_end_in_time(agent: ListeningAgent, tree: Tree) -> None:
    """One second after the slowest may have ended; those that were not run are named."""
    many(agent, tree, 20)
    began = time.monotonic()
    said = look(agent, tree, plugin(command="sleep 60", timeout_seconds=1))
    assert 2 < time.monotonic() - began < 4
    assert said.head["containers"] == 20
    first = f"app (task {task_id(1)}): plugin dice did not end within 1 s (and 7 more)"
    assert said.problems[0] == first
    assert {line.partition("plugin dice ")[2] for line in said.problems[1:]} == {
        "was ended before its time: others had taken too much of it (and 7 more)",
        "was not run: others had taken all the time (and 3 more)",
    }


def test_time_that_was_lost_before_is_theirs(
    agent: ListeningAgent, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow Docker must not make the whole instance late."""
    one_container(agent, tree)
    monkeypatch.setattr(program, "LATE_SECONDS", 0.5)
    monkeypatch.setattr(program, "DOCKER_SECONDS", 1)
    by_image = plugin(image="x") | {"container": ""}
    with docker({}, [], seconds=3) as engine:
        began = time.monotonic()
        hangs = plugin("hangs", "sleep 60", timeout_seconds=2)
        said = ask(tree.environment(agent.where, DOCKER_HOST=engine), [by_image, hangs])
        assert time.monotonic() - began < 3.2
    assert "does not say what runs here" in said.problems[0]
    assert "plugin hangs was ended before its time" in said.problems[1]


def many(agent: ListeningAgent, tree: Tree, count: int) -> None:
    agent.tasks = [task(number, "app") for number in range(1, count + 1)]
    for number in range(1, count + 1):
        tree.add(V2, ECS, number)


def test_containers_are_told_of_whatever_plugins_do(
    agent: ListeningAgent, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_container(agent, tree)

    def fail(*_: Any) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(program, "chosen", fail)
    said = look(agent, tree, plugin())
    assert said.of("app")["g"]["memory.usage"] == 130023424
    assert said.problems == ["the plugins have failed: RuntimeError('surprise')"]


@pytest.mark.parametrize(
    "bad",
    [{"name": 5}, {"command": ["a"]}, {"timeout_seconds": "x"}, {"link": 5}, {"container": 5}],
)
def test_a_plugin_that_is_none_loses_only_itself(
    agent: ListeningAgent, tree: Tree, bad: dict[str, Any]
) -> None:
    one_container(agent, tree)
    said = look(agent, tree, plugin("bad") | bad, plugin())
    assert [entry["plugin"] for entry in said.plugins()] == ["dice"]
    assert len(said.problems) == 1


def test_a_state_directory_that_cannot_be_made(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    home = tree.directory / "home" / ".metrics"
    home.mkdir(parents=True)
    (home / "state").write_text("")
    said = look(agent, tree, plugin())
    assert said.of("app")["g"]["memory.usage"] == 130023424
    assert "plugin dice cannot be run" in said.problems[0]


def test_good_values_beside_garbage_are_kept(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    said = look(agent, tree, plugin(command=f"echo 'a nan 1'; {PRINTS}"))
    assert said.plugins()[0]["values"] == [["dice.d6", 4]]
    assert said.problems == [f"app (task {task_id(1)}): plugin dice printed nan for a"]


def test_what_plugins_remember_is_one_containers(agent: ListeningAgent, tree: Tree) -> None:
    agent.tasks = [task(1, "app"), task(2, "app")]
    tree.add(V2, ECS, 1)
    place = tree.add(V2, ECS, 2)
    command = (
        'cd "$MACKEREL_PLUGIN_WORKDIR"; [ -z "$MACKEREL_AGENT_PLUGIN_META" ] && echo >>runs; '
        'echo "runs $(wc -l <runs) 1"'
    )
    for runs in (1, 2):
        said = look(agent, tree, plugin(command=command))
        assert [entry["values"] for entry in said.plugins()] == [[["runs", runs]]] * 2
    states = tree.directory / "home" / ".metrics" / "state"
    assert len(list(states.iterdir())) == 2
    shutil.rmtree(place)
    agent.tasks = agent.tasks[:1]
    look(agent, tree, plugin(command=command))
    assert [folder.name for folder in states.iterdir()] == [container_id(16)[:12]]


STATE = '[ -n "$MACKEREL_AGENT_PLUGIN_META" ] || echo "inode $(stat -c %i .) 1"'
"""Says which directory it has."""


def test_every_plugin_has_a_directory_of_its_own(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    names = [
        "cache a",
        "cache.a",
        "キャッシュ",
        "セッション",
        "n" * 250,
        "n" * 251,
        "..",
        "a/b",
        "a\0",
    ]
    command = f'cd "$MACKEREL_PLUGIN_WORKDIR" && {STATE}'
    said = look(agent, tree, *(plugin(name, command) for name in names))
    assert said.problems == []
    assert len({entry["values"][0][1] for entry in said.plugins()}) == len(names)
    folders = list((tree.directory / "home" / ".metrics" / "state").glob("*/*"))
    assert len(folders) == len(names)
    assert max(len(folder.name) for folder in folders) < 80


def test_what_is_kept_of_plugins_that_are_not_configured_any_more(
    agent: ListeningAgent, tree: Tree
) -> None:
    one_container(agent, tree)
    home = tree.directory / "home" / ".metrics"
    look(agent, tree, plugin("one"), plugin("two"))
    kept = [
        sorted(path.name[:3] for path in home.glob(place)) for place in ("state/*/*", "graphs/*")
    ]
    assert kept == [["one", "two"]] * 2
    for file in (home / "graphs").iterdir():
        os.utime(file, (time.time() - 300,) * 2)
    look(agent, tree, plugin("two"))
    kept = [[path.name[:3] for path in home.glob(place)] for place in ("state/*/*", "graphs/*")]
    assert kept == [["two"]] * 2
    look(agent, tree)
    assert not [path for path in home.rglob("*") if not path.is_dir()]
    assert not list(home.glob("state/*"))


GRAPHS = {"graphs": {"dice": {"label": "Dice", "unit": "integer", "metrics": [{"name": "d6"}]}}}


def test_graph_definitions(agent: ListeningAgent, tree: Tree) -> None:
    """Asked for once an hour, and said once for all containers of an instance."""
    agent.tasks = [task(1, "app"), task(2, "app")]
    tree.add(V2, ECS, 1)
    tree.add(V2, ECS, 2)
    asked = tree.directory / "asked"
    meta = f"# mackerel-agent-plugin\n{json.dumps(GRAPHS)}"
    command = (
        f"if [ -n \"$MACKEREL_AGENT_PLUGIN_META\" ]; then echo >>{asked}; echo '{meta}'; "
        f"else {PRINTS}; fi"
    )
    for times in (1, 1, 2):
        if times == 2:
            for file in (tree.directory / "home" / ".metrics" / "graphs").iterdir():
                os.utime(file, (time.time() - 3601,) * 2)
        said = look(agent, tree, plugin(command=command))
        assert said.problems == []
        assert [entry["graphs"] for entry in said.plugins()] == [GRAPHS, None]
        assert asked.read_text().count("\n") == times


def asking(asked: Path, definitions: str) -> str:
    """A plugin that prints definitions by a command, and counts how often it was asked."""
    return (
        f'if [ -n "$MACKEREL_AGENT_PLUGIN_META" ]; then echo >>{asked}; '
        f"echo '# mackerel-agent-plugin'; {definitions}; else {PRINTS}; fi"
    )


def test_a_plugin_without_graph_definitions(agent: ListeningAgent, tree: Tree) -> None:
    """It prints its values, whatever it is asked. That is remembered too."""
    one_container(agent, tree)
    asked = tree.directory / "asked"
    command = f'[ -z "$MACKEREL_AGENT_PLUGIN_META" ] || echo >>{asked}; {PRINTS}'
    for _ in range(2):
        said = look(agent, tree, plugin(command=command))
        assert (said.problems, said.plugins()[0]["graphs"]) == ([], None)
        assert asked.read_text() == "\n"


@pytest.mark.parametrize(
    ("definitions", "why"),
    [
        ("exit 3", "ended with status 3"),
        ("echo '{'", "Expecting property name"),
        ("echo '[]'", "they are no JSON object"),
        ("sleep 60", "did not end within 1 s"),
    ],
)
def test_graph_definitions_that_cannot_be_had(
    agent: ListeningAgent, tree: Tree, definitions: str, why: str
) -> None:
    """Those from before stay, and the plugin is asked again."""
    one_container(agent, tree)
    asked, works = tree.directory / "asked", tree.directory / "works"
    good = f"echo '{json.dumps(GRAPHS)}'"
    command = asking(asked, f"if [ -e {works} ]; then {good}; else {definitions}; fi")
    expected: Any = None
    for step in ("fails", "fails", "works", "fails", "fails", "works"):
        asked.write_text("")
        works.unlink(missing_ok=True)
        if step == "works":
            works.touch()
        said = look(agent, tree, plugin(command=command, timeout_seconds=1))
        expected = GRAPHS if step == "works" else expected
        (entry,) = said.plugins()
        assert (entry["values"], entry["graphs"]) == ([["dice.d6", 4]], expected)
        assert [why in line for line in said.problems] == ([True] if step == "fails" else [])
        assert asked.read_text() == "\n"
        for file in (tree.directory / "home" / ".metrics").glob("graphs/*"):
            os.utime(file, (time.time() - 3601,) * 2)


def test_graph_definitions_are_asked_for_after_the_values(
    agent: ListeningAgent, tree: Tree
) -> None:
    """In a directory of its own: some plugins keep state whatever they are asked."""
    one_container(agent, tree)
    log = tree.directory / "log"
    command = (
        f'echo "${{MACKEREL_AGENT_PLUGIN_META:-0}} begins" >>{log}; cd "$MACKEREL_PLUGIN_WORKDIR"; '
        f"[ ! -e state ] || echo state there >>{log}; touch state; sleep 0.2; "
        f'echo "${{MACKEREL_AGENT_PLUGIN_META:-0}} ends" >>{log}; {PRINTS}'
    )
    said = look(agent, tree, plugin(command=command))
    assert said.problems == []
    assert log.read_text().splitlines() == ["0 begins", "0 ends", "1 begins", "1 ends"]
    home = tree.directory / "home" / ".metrics"
    assert len(list(home.glob("state/*/*/state"))) == 1
    assert list((home / "scratch").iterdir()) == []


def test_a_plugin_that_fails_is_not_asked_for_graphs(agent: ListeningAgent, tree: Tree) -> None:
    one_container(agent, tree)
    asked = tree.directory / "asked"
    command = f'[ -z "$MACKEREL_AGENT_PLUGIN_META" ] || echo >>{asked}; exit 3'
    assert len(look(agent, tree, plugin(command=command)).problems) == 1
    assert not asked.exists()


@contextlib.contextmanager
def docker(described: dict[str, Any], listed: list[Any], *, seconds: float = 0.0) -> Iterator[str]:
    """An engine that answers this, after so many seconds; gives its DOCKER_HOST."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(seconds)
            body = listed if self.path == "/containers/json" else described.get(self.path)
            with contextlib.suppress(OSError):
                self.send_response(200 if body is not None else 404)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

        def address_string(self) -> str:
            return ""

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield "{}:{}".format(*server.server_address)
        finally:
            server.shutdown()


def test_an_image_whose_name_was_given_to_another(agent: ListeningAgent, tree: Tree) -> None:
    """Docker lists its number then, but knows how the container was started."""
    many(agent, tree, 3)
    numbers = [16, 32, 48]
    listed = [{"Id": container_id(number), "Image": f"sha256:{number:064}"} for number in numbers]
    described = {
        f"/containers/{container_id(16)}/json": {"Config": {"Image": "shop/cache:latest"}},
        f"/containers/{container_id(32)}/json": {"Config": {}},
    }
    by_image = {"name": "x", "image": "shop/cache", "command": PRINTS}
    with docker(described, [*listed, "garbage", {}]) as engine:
        said = ask(tree.environment(agent.where, DOCKER_HOST=engine), [by_image])
    assert [entry["task"] for entry in said.plugins()] == [task_id(1)]
    assert [line.partition(": ")[0] for line in said.problems] == [
        f"app (task {task_id(number)})" for number in (2, 3)
    ]
    assert all("Docker does not name its image" in line for line in said.problems)


@pytest.mark.parametrize("text", ["%", base64.b64encode(b"[").decode(), "e30=", "WzFd"])
def test_a_parameter_that_is_no_list_of_plugins(text: str) -> None:
    with pytest.raises(program.Unreadable):
        program.parse_plugins(text)


def test_the_parameter() -> None:
    plugins = [plugin()]
    text = base64.b64encode(json.dumps(plugins).encode()).decode()
    assert program.parse_plugins(text) == plugins
    assert program.parse_plugins("") == []
