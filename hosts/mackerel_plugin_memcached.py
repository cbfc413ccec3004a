#!/usr/bin/python3
"""mackerel-plugin-memcached: what memcached counts, in the plugin protocol of mackerel-agent.

Options, keys, graphs and their labels are those of the official plugin of this name, which may be
used instead: ``-host -port -socket -metric-key-prefix -tempfile``
(https://github.com/mackerelio/mackerel-agent-plugins, mackerel-plugin-memcached/lib/memcached.go).
It prints ``key<TAB>value<TAB>epoch`` lines, or the definitions of its graphs when
MACKEREL_AGENT_PLUGIN_META is set. Counters are printed per minute, as the difference to an earlier
run, which a state file remembers: nothing at the first run, after less than five seconds or more
than ten minutes, and when memcached has started anew.

The document metrics.yaml brings it to the hosts (Python 3.9 or later, standard library only).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PREFIX = "memcached"
ANSWER_SECONDS = 4.0
"""For connecting and all answers together; who runs plugins waits for five seconds by default."""
ANSWER_BYTES = 1 << 20
"""A memcached answers some 5 KB: this is something else."""
SHORTEST_SECONDS, LONGEST_SECONDS = 5, 600
"""A difference over less or more time than that says nothing about a minute."""
LAST_TIME = "_lastTime"
UPTIME = "uptime"

# (graph, its title, its unit, [(metric, its title, whether it is a counter)])
GRAPHS: Sequence[tuple[str, str, str, Sequence[tuple[str, str, bool]]]] = (
    ("connections", "Connections", "integer", [("curr_connections", "Connections", False)]),
    (
        "cmd",
        "Command",
        "integer",
        [
            ("cmd_get", "Get", True),
            ("cmd_set", "Set", True),
            ("cmd_flush", "Flush", True),
            ("cmd_touch", "Touch", True),
        ],
    ),
    (
        "hitmiss",
        "Hits/Misses",
        "integer",
        [
            ("get_hits", "Get Hits", True),
            ("get_misses", "Get Misses", True),
            ("delete_hits", "Delete Hits", True),
            ("delete_misses", "Delete Misses", True),
            ("incr_hits", "Incr Hits", True),
            ("incr_misses", "Incr Misses", True),
            ("cas_hits", "Cas Hits", True),
            ("cas_misses", "Cas Misses", True),
            ("touch_hits", "Touch Hits", True),
            ("touch_misses", "Touch Misses", True),
        ],
    ),
    (
        "evictions",
        "Evictions",
        "integer",
        [
            ("evictions", "Evictions", True),
            ("nonzero_evictions", "Nonzero Evictions", True),
            ("reclaimed", "Reclaimed", True),
        ],
    ),
    (
        "unfetched",
        "Unfetched",
        "integer",
        [
            ("expired_unfetched", "Expired unfetched", True),
            ("evicted_unfetched", "Evicted unfetched", True),
        ],
    ),
    (
        "rusage",
        "Resouce Usage",  # as the official plugin spells it
        "float",
        [("rusage_user", "User", True), ("rusage_system", "System", True)],
    ),
    (
        "bytes",
        "Traffics",
        "bytes",
        [("bytes_read", "Read", True), ("bytes_written", "Write", True)],
    ),
    (
        "cachesize",
        "Cache Size",
        "bytes",
        [("limit_maxbytes", "Total", False), ("bytes", "Used", False)],
    ),
    (
        "items",
        "Items",
        "integer",
        [("curr_items", "Current Items", False), ("new_items", "New Items", True)],
    ),
)


class Late(OSError):
    """The answer took too long."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises Late when what is done in it takes longer, whatever it waits for."""

    def late(*_: object) -> None:
        raise Late(f"no whole answer within {seconds:g} s")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def statistics(connection: socket.socket) -> dict[str, float]:
    """All numbers that memcached says, by its names; and what the plugin calls otherwise.

    https://github.com/memcached/memcached/blob/master/doc/protocol.txt
    """
    found: dict[str, float] = {}
    for name, text in _said(connection, "stats"):
        with contextlib.suppress(ValueError):
            found[name] = float(text)
    found["new_items"] = found.get("total_items", 0.0)
    try:
        found["nonzero_evictions"] = sum(
            float(text)
            for name, text in _said(connection, "stats items")
            # items:<slab class>:<what>
            if name.endswith(":evicted_nonzero")
        )
    except (OSError, ValueError) as error:
        # The rest is worth having without it.
        print(f"mackerel-plugin-memcached: {error}", file=sys.stderr)
    return found


def _said(connection: socket.socket, command: str) -> list[tuple[str, str]]:
    """(name, value) of each ``STAT`` line. Raises OSError, also when it is no memcached."""
    connection.sendall(command.encode() + b"\r\n")
    answer = bytearray()
    while not (answer == b"END\r\n" or answer.endswith(b"\r\nEND\r\n")):
        received = connection.recv(65536)
        answer += received
        wrong = answer.startswith((b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR"))
        if not received or wrong or len(answer) > ANSWER_BYTES:
            start = bytes(answer[:80])
            raise OSError(f"{command}: it answered {start!r}, {len(answer)} bytes without an end")
    lines = (line.split(" ", 2) for line in answer.decode("utf-8", "replace").splitlines())
    return [(words[1], words[2]) for words in lines if words[0] == "STAT" and len(words) == 3]


def between(now: Mapping[str, float], before: Mapping[str, float]) -> float:
    """Seconds from one run to the other; not a number when nothing is known of the other."""
    return now[LAST_TIME] - before.get(LAST_TIME, float("nan"))


def per_minute(now: Mapping[str, float], before: Mapping[str, float], metric: str) -> float | None:
    """How much a counter grew in a minute; None when that cannot be said."""
    if metric not in now or metric not in before:
        return None
    seconds = between(now, before)
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        return None
    difference = now[metric] - before[metric]
    # One that started anew may have counted further already than the one before it.
    if difference < 0 or now.get(UPTIME, 0.0) < before.get(UPTIME, 0.0):
        return None
    return difference * 60 / seconds


def values(
    now: Mapping[str, float], before: Mapping[str, float], prefix: str
) -> Iterator[tuple[str, float]]:
    """(key, value) of all that can be said."""
    for graph, _, _, metrics in GRAPHS:
        for metric, _, is_counter in metrics:
            value = per_minute(now, before, metric) if is_counter else now.get(metric)
            if value is not None:
                yield f"{prefix}.{graph}.{metric}", value


def definitions(prefix: str) -> dict[str, object]:
    """The graphs, as MACKEREL_AGENT_PLUGIN_META asks for them."""
    return {
        "graphs": {
            f"{prefix}.{graph}": {
                "label": f"{_title(prefix)} {title}",
                "unit": unit,
                "metrics": [
                    {"name": metric, "label": label, "stacked": False}
                    for metric, label, _ in metrics
                ],
            }
            for graph, title, unit, metrics in GRAPHS
        }
    }


def _title(text: str) -> str:
    """The first letter of each word in capitals, as Go's strings.Title."""
    return re.sub(r"(?<!\w)\w", lambda first: first[0].upper(), text)


def remembered(path: Path) -> dict[str, float]:
    """What an earlier run has kept; nothing when there was none, or it cannot be read or trusted:
    it may be in a directory where anybody may put something of that name.
    """
    try:
        # Not blocking: it could be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return {}
            kept = json.loads(file.read(ANSWER_BYTES))
        return {str(name): float(value) for name, value in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(path: Path, now: Mapping[str, float]) -> None:
    """Keep the numbers; a run beside this one finds either these or those before.

    The file is a new one (mkstemp opens with O_EXCL and O_NOFOLLOW) and takes the place of what has
    the name: a link there is replaced, and what it points to is left alone.
    """
    descriptor, new = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(now, file)
        Path(new).replace(path)
    except OSError:
        Path(new).unlink()
        raise


def connect(options: argparse.Namespace) -> socket.socket:
    """Raises OSError."""
    if options.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(options.socket)
        return connection
    return socket.create_connection((options.host, options.port))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mackerel-plugin-memcached", allow_abbrev=False, description="memcached for Mackerel"
    )
    for name, default, meaning in (
        ("host", "localhost", "where memcached listens"),
        ("port", "11211", "and on which port"),
        ("socket", "", "its Unix socket, instead of host and port"),
        ("metric-key-prefix", PREFIX, "what the keys begin with"),
        ("tempfile", "", "the state file; else one in $MACKEREL_PLUGIN_WORKDIR"),
    ):
        parser.add_argument(f"-{name}", f"--{name}", default=default, help=meaning)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print what there is; return the exit status."""
    options = parse(arguments)
    prefix = options.metric_key_prefix or PREFIX
    if os.environ.get("MACKEREL_AGENT_PLUGIN_META"):
        print("# mackerel-agent-plugin")
        print(json.dumps(definitions(prefix)))
        return 0
    directory = os.environ.get("MACKEREL_PLUGIN_WORKDIR") or tempfile.gettempdir()
    path = Path(options.tempfile or Path(directory, f"mackerel-plugin-{prefix}"))
    try:
        with within(ANSWER_SECONDS), connect(options) as connection:
            now = statistics(connection)
        now[LAST_TIME] = time.time()
        before = remembered(path)
        # A run too soon after another prints no counters, and the next one has a whole minute.
        if not 0 <= between(now, before) < SHORTEST_SECONDS:
            remember(path, now)
    except (OSError, ValueError) as error:
        print(f"mackerel-plugin-memcached: {error}", file=sys.stderr)
        return 1
    at = int(now[LAST_TIME])
    for key, value in values(now, before, prefix):
        print(f"{key}\t{value:f}\t{at}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
