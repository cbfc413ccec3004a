"""The last one to leave: ends every process of the sandbox when the sandbox itself is gone.

The kernel kills a direct child when its parent dies (PR_SET_PDEATHSIG), but not the children of
that child, such as those of a shell. So this process is told what there is and what is over, one
thing a line on standard input, with a sign before it:

    +123, -123                a process group
    +/ecs/<task id>, -/…      a control group, by its path in every hierarchy
    +ebg-127-0-1, -ebg-…      a network bridge

When the input ends, however the sandbox died, it kills the groups that are left, removes the
control groups and the bridges, and then the directories given as arguments.

It is run as a file (``python -I -S guard.py DIRECTORY…``), not as a module: it has to start fast
and must not depend on anything.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import struct
import sys
import time

END_SECONDS = 5.0
"""How long what was killed may take to be gone."""
POLL_SECONDS = 0.02
HIERARCHIES = "/sys/fs/cgroup"
SIOCSIFFLAGS, SIOCBRDELBR = 0x8914, 0x89A1  # linux/sockios.h


def main() -> None:
    """Read until the sandbox is gone, then clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    known: set[str] = set()
    for line in sys.stdin:
        (known.add if line[0] == "+" else known.discard)(line[1:].strip())
    groups = [int(thing) for thing in known if thing.isdigit()]
    for group in groups:
        is_there(group, signal.SIGKILL)
    paths = [thing for thing in known if thing.startswith("/")]
    deadline = time.monotonic() + END_SECONDS
    # A group that its parent has not waited for counts as there, so this too has an end.
    while any([*map(remove_control_group, paths), *map(is_there, groups)]):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    for thing in known:
        if not thing.isdigit() and not thing.startswith("/"):
            remove_bridge(thing)
    for directory in sys.argv[1:]:
        shutil.rmtree(directory, ignore_errors=True)


def is_there(group: int, number: int = 0) -> bool:
    """Whether there was anybody in a process group to send a signal to."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def remove_control_group(path: str) -> bool:
    """Remove a control group with those below it, and the one above if it is empty.

    Returns whether something of it is left: processes that have not ended.
    """
    left = False
    for hierarchy in (HIERARCHIES, *(entry.path for entry in os.scandir(HIERARCHIES))):
        top = hierarchy + path
        if not os.path.isdir(top):  # noqa: PTH112 (pathlib would double the time to start)
            continue
        for directory, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(directory)  # noqa: PTH106
            except FileNotFoundError:
                continue
            except OSError:
                left = True
        try:
            os.rmdir(os.path.dirname(top))  # noqa: PTH106, PTH120
        except OSError:
            continue
    return left


def remove_bridge(name: str) -> None:
    """Take a network bridge down and delete it, if it is there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), 0))
            fcntl.ioctl(control, SIOCBRDELBR, name.encode() + b"\0")
        except OSError:
            return


if __name__ == "__main__":
    main()
