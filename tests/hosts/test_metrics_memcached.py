"""mackerel-plugin-memcached with a real memcached."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hosts import mackerel_plugin_memcached as plugin
from tests.hosts.conftest import needs
from tests.hosts.machine import ROOT, SYSTEM_PATH, answers, end, wait_for

PROGRAM = ROOT / "hosts" / "mackerel_plugin_memcached.py"
# The keys of the official plugin, from its GraphDefinition; * are counters.
OFFICIAL = """
connections curr_connections
cmd cmd_get* cmd_set* cmd_flush* cmd_touch*
hitmiss get_hits* get_misses* delete_hits* delete_misses* incr_hits* incr_misses*
hitmiss cas_hits* cas_misses* touch_hits* touch_misses*
evictions evictions* nonzero_evictions* reclaimed*
unfetched expired_unfetched* evicted_unfetched*
rusage rusage_user* rusage_system*
bytes bytes_read* bytes_written*
cachesize limit_maxbytes bytes
items curr_items new_items*
"""
KEYS = {
    f"memcached.{graph}.{metric.rstrip('*')}": metric.endswith("*")
    for graph, *metrics in (line.split() for line in OFFICIAL.strip().splitlines())
    for metric in metrics
}


# The titles of its graphs, as it spells them.
LABELS = {
    "connections": "Connections",
    "cmd": "Command",
    "hitmiss": "Hits/Misses",
    "evictions": "Evictions",
    "unfetched": "Unfetched",
    "rusage": "Resouce Usage",
    "bytes": "Traffics",
    "cachesize": "Cache Size",
    "items": "Items",
}


class Cache:
    """A memcached on a port of 127.0.0.1, with a client."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._directory = directory
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(self.port), "-m", "8"]
        process = subprocess.Popen(command, env={"PATH": SYSTEM_PATH}, start_new_session=True)
        wait_for(lambda: answers("127.0.0.1", self.port))
        return process

    def restart(self) -> None:
        self.stop()
        self._process = self._start()

    def stop(self) -> None:
        end(self._process)

    def do(self, *commands: str) -> str:
        """Send commands as memcached's own protocol has them; the answers."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(("\r\n".join(commands) + "\r\nquit\r\n").encode())
            said = b""
            while received := connection.recv(65536):
                said += received
        return said.decode()

    def look(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the plugin."""
        return subprocess.run(
            [sys.executable, str(PROGRAM), "-host", "127.0.0.1", f"-port={self.port}", *options],
            env={"MACKEREL_PLUGIN_WORKDIR": str(self._directory), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )

    def values(self, *options: str) -> dict[str, float]:
        done = self.look(*options)
        assert (done.returncode, done.stderr) == (0, "")
        values = {}
        for line in done.stdout.splitlines():
            key, value, at = line.split("\t")
            assert abs(int(at) - time.time()) < 10
            values[key] = float(value)
        return values

    def remembered(self) -> Path:
        return self._directory / "mackerel-plugin-memcached"

    def age(self, seconds: int) -> None:
        """Let what the plugin remembers be older than it is."""
        kept = json.loads(self.remembered().read_text())
        kept["_lastTime"] -= seconds
        self.remembered().write_text(json.dumps(kept))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    needs("memcached")
    cache = Cache(tmp_path)
    try:
        yield cache
    finally:
        cache.stop()


def test_values_move_as_a_client_drives_it(cache: Cache) -> None:
    began = time.time()
    assert set(cache.values()) == {key for key, counts in KEYS.items() if not counts}
    sets = [f"set k{number} 0 0 5\r\nvalue" for number in range(30)]
    assert cache.do(*sets).count("STORED") == 30
    assert cache.do("get k1 k2 k3", "get k4", "get none", "get nothing").count("VALUE") == 4
    cache.do("delete k5", "delete none", "touch k6 10", "touch none 10", "incr none 1", "flush_all")
    cache.age(60)
    values = cache.values()
    assert set(values) == set(KEYS)
    minutes = 1 + (time.time() - began) / 60
    for key, count in {
        "cmd.cmd_set": 30,
        "cmd.cmd_get": 6,
        "hitmiss.get_hits": 4,
        "hitmiss.get_misses": 2,
        "hitmiss.delete_hits": 1,
        "hitmiss.delete_misses": 1,
        "hitmiss.incr_misses": 1,
        "hitmiss.touch_hits": 1,
        "hitmiss.touch_misses": 1,
        "cmd.cmd_touch": 2,
        "cmd.cmd_flush": 1,
        "items.new_items": 30,
        "hitmiss.cas_hits": 0,
    }.items():
        assert values[f"memcached.{key}"] == pytest.approx(count / minutes, rel=0.02), key
    assert values["memcached.cachesize.limit_maxbytes"] == 8 << 20
    assert values["memcached.bytes.bytes_written"] > 100


def test_connections(cache: Cache) -> None:
    before = cache.values()["memcached.connections.curr_connections"]
    with (
        socket.create_connection(("127.0.0.1", cache.port)),
        socket.create_connection(("127.0.0.1", cache.port)),
    ):
        wait_for(lambda: cache.values()["memcached.connections.curr_connections"] == before + 2)


def test_evictions_of_what_was_never_asked_for(cache: Cache) -> None:
    cache.values()
    value = "x" * 100_000
    for first in range(0, 200, 50):
        cache.do(*(f"set k{n} 0 3600 {len(value)}\r\n{value}" for n in range(first, first + 50)))
    cache.age(60)
    values = cache.values()
    assert values["memcached.evictions.evictions"] > 50
    assert values["memcached.evictions.nonzero_evictions"] > 50
    assert values["memcached.unfetched.evicted_unfetched"] > 50


def test_a_restart_gives_no_counters(cache: Cache) -> None:
    cache.do("set a 0 0 1\r\n1", "get a", "get a")
    cache.values()
    cache.restart()
    cache.age(60)
    values = cache.values()
    assert "memcached.cmd.cmd_get" not in values
    assert "memcached.connections.curr_connections" in values


@pytest.mark.parametrize("seconds", [601, -60])
def test_no_counters_over_a_time_that_is_no_minute(cache: Cache, seconds: int) -> None:
    cache.values()
    cache.age(seconds)
    assert set(cache.values()) == {key for key, counts in KEYS.items() if not counts}


def test_runs_that_are_too_close_share_a_state(cache: Cache) -> None:
    """As when a command came twice: no rates over a second, and the next run has a whole minute."""
    gauges = {key for key, counts in KEYS.items() if not counts}
    assert set(cache.values()) == gauges
    cache.age(60)
    cache.do("get a", "get b", "get c")
    assert cache.values()["memcached.cmd.cmd_get"] == pytest.approx(3, rel=0.05)
    kept = cache.remembered().read_text()
    cache.do("get d")
    assert set(cache.values()) == gauges
    assert cache.remembered().read_text() == kept
    cache.age(60)
    assert cache.values()["memcached.cmd.cmd_get"] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cmd_get": "x"}'])
def test_a_broken_state_file_is_a_first_run(cache: Cache, text: str) -> None:
    cache.remembered().write_text(text)
    assert set(cache.values()) == {key for key, counts in KEYS.items() if not counts}
    cache.age(60)
    assert "memcached.cmd.cmd_get" in cache.values()


def link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def somebodys(path: Path, elsewhere: Path) -> None:
    """A file of another user."""
    path.write_bytes(elsewhere.read_bytes())
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("plant", [link, pipe, somebodys])
def test_what_others_put_in_place_of_the_state_is_not_used(
    cache: Cache, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    """In a directory of everybody: neither believed, nor written to."""
    if plant is somebodys and os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("needs root, to make a file of another user")
    cache.values()
    cache.age(60)
    elsewhere = tmp_path / "elsewhere"
    cache.remembered().rename(elsewhere)
    said = elsewhere.read_text()
    plant(cache.remembered(), elsewhere)
    assert set(cache.values()) == {key for key, counts in KEYS.items() if not counts}
    assert elsewhere.read_text() == said
    status = cache.remembered().lstat()
    assert stat.S_ISREG(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())
    assert sorted(it.name for it in tmp_path.iterdir()) == [
        "elsewhere",
        "mackerel-plugin-memcached",
    ]


def test_a_state_that_cannot_be_kept_is_an_error(cache: Cache, tmp_path: Path) -> None:
    done = cache.look(f"-tempfile={tmp_path}/nowhere/state")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere" in done.stderr
    (tmp_path / "taken").mkdir()
    assert cache.look(f"-tempfile={tmp_path}/taken").returncode == 1
    assert [it.name for it in tmp_path.iterdir()] == ["taken"]


def test_no_prefix_is_the_usual_one(cache: Cache) -> None:
    assert all(key.startswith("memcached.") for key in cache.values("-metric-key-prefix", ""))
    assert cache.remembered().exists()


def test_another_prefix_and_state_file(cache: Cache, tmp_path: Path) -> None:
    values = cache.values("-metric-key-prefix", "sessions", f"--tempfile={tmp_path}/kept")
    assert all(key.startswith("sessions.") for key in values)
    assert (tmp_path / "kept").exists()
    assert not cache.remembered().exists()


def test_by_its_socket() -> None:
    needs("memcached")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = f"{directory}/cache.sock"
        process = subprocess.Popen(
            ["memcached", "-u", "root", "-s", path],
            env={"PATH": SYSTEM_PATH},
            start_new_session=True,
        )
        try:
            wait_for(lambda: Path(path).exists())
            done = subprocess.run(
                [sys.executable, str(PROGRAM), "-socket", path, f"-tempfile={directory}/state"],
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            end(process)
    assert "memcached.connections.curr_connections\t" in done.stdout


def test_graph_definitions(cache: Cache) -> None:
    done = cache.look(MACKEREL_AGENT_PLUGIN_META="1")
    first, _, rest = done.stdout.partition("\n")
    assert first == "# mackerel-agent-plugin"
    graphs = json.loads(rest)["graphs"]
    said = {f"{name}.{it['name']}" for name, graph in graphs.items() for it in graph["metrics"]}
    assert said == set(KEYS)
    labels = {name.partition(".")[2]: graph["label"] for name, graph in graphs.items()}
    assert labels == {name: f"Memcached {label}" for name, label in LABELS.items()}
    assert graphs["memcached.cachesize"] == {
        "label": "Memcached Cache Size",
        "unit": "bytes",
        "metrics": [
            {"name": "limit_maxbytes", "label": "Total", "stacked": False},
            {"name": "bytes", "label": "Used", "stacked": False},
        ],
    }
    done = cache.look("-metric-key-prefix=web-cache2x", MACKEREL_AGENT_PLUGIN_META="1")
    assert '"Web-Cache2x Items"' in done.stdout


def test_nobody_there(cache: Cache) -> None:
    cache.stop()
    done = cache.look()
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused" in done.stderr


def answering(tmp_path: Path, answer: Callable[[socket.socket], None]) -> tuple[int, str, str]:
    """Run the plugin with something that answers as told; status, output, errors."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "-host=127.0.0.1", f"-port={port}"],
            env={**os.environ, "MACKEREL_PLUGIN_WORKDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = server.accept()
        try:
            with connection, contextlib.suppress(ConnectionError):
                answer(connection)
            output, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    return process.returncode, output, errors


def until_closed(connection: socket.socket, text: bytes, pause: float = 0) -> None:
    """Say it again and again, for much longer than anybody should listen."""
    ends = time.monotonic() + 3 * plugin.ANSWER_SECONDS
    while time.monotonic() < ends:
        connection.sendall(text)
        time.sleep(pause)


def test_something_else_there(tmp_path: Path) -> None:
    status, output, errors = answering(tmp_path, lambda it: it.sendall(b"ERROR\r\n"))
    assert (status, output) == (1, "")
    assert "stats: it answered b'ERROR" in errors


def test_an_answer_without_an_end(tmp_path: Path) -> None:
    """A megabyte is read, and no more."""
    began = time.monotonic()
    status, output, errors = answering(tmp_path, lambda it: until_closed(it, b"x" * 1000))
    assert (status, output) == (1, "")
    assert "bytes without an end" in errors
    assert int(errors.split(", ")[-1].split()[0]) < 1_200_000
    assert time.monotonic() - began < plugin.ANSWER_SECONDS


def test_a_slow_answer(tmp_path: Path) -> None:
    """Something comes all the time, but it takes too long."""
    began = time.monotonic()
    status, output, errors = answering(tmp_path, lambda it: until_closed(it, b"STAT a 1\r\n", 0.2))
    assert (status, output) == (1, "")
    assert "no whole answer within 4 s" in errors
    assert plugin.ANSWER_SECONDS <= time.monotonic() - began < plugin.ANSWER_SECONDS + 3


@pytest.mark.parametrize(
    "answer", [b"SERVER_ERROR out of memory\r\n", b"STAT items:1:evicted_nonzero x\r\nEND\r\n", b""]
)
def test_without_stats_items_the_rest_is_there(tmp_path: Path, answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        assert connection.recv(100) == b"stats\r\n"
        connection.sendall(b"STAT curr_connections 7\r\nSTAT total_items 3\r\nEND\r\n")
        assert connection.recv(100) == b"stats items\r\n"
        connection.sendall(answer)

    state = tmp_path / "mackerel-plugin-memcached"
    numbers = {"new_items": 1, "nonzero_evictions": 0, "_lastTime": time.time() - 60}
    state.write_text(json.dumps(numbers))
    status, output, errors = answering(tmp_path, serve)
    values = {line.split("\t")[0]: float(line.split("\t")[1]) for line in output.splitlines()}
    assert status == 0
    assert values == {
        "memcached.connections.curr_connections": 7,
        "memcached.items.new_items": pytest.approx(2, rel=0.05),
    }
    assert errors.startswith("mackerel-plugin-memcached: ")


def test_difference_per_minute() -> None:
    before = {"a": 10.0, "_lastTime": 1000.0}
    assert plugin.per_minute({"a": 20.0, "_lastTime": 1030.0}, before, "a") == 20
    for seconds in (0, 4.9, 601, -30):
        now = {"a": 20.0, "_lastTime": 1000.0 + seconds}
        assert plugin.per_minute(now, before, "a") is None
    assert plugin.per_minute({"a": 20.0, "_lastTime": 1005.0}, before, "a") == 120
    younger = {"a": 20.0, "uptime": 5.0, "_lastTime": 1060.0}
    assert plugin.per_minute(younger, {**before, "uptime": 90.0}, "a") is None
    assert plugin.per_minute(younger, {**before, "uptime": 4.0}, "a") == 10
    assert plugin.per_minute({"a": 9.0, "_lastTime": 1060.0}, before, "a") is None
    assert plugin.per_minute({"a": 9.0, "_lastTime": 1060.0}, {}, "a") is None
