"""The last one to leave: ends every process of the sandbox when the sandbox itself is gone.

The kernel kills a direct child when its parent dies (PR_SET_PDEATHSIG), but not the children of
that child, such as those of a shell. So this process is told every process group that is started
(``+123``) and ended (``-123``), one a line on standard input. When the input ends, however the
sandbox died, it kills the groups that are left and removes the directories given as arguments.

It is run as a file (``python -I -S guard.py DIRECTORY…``), not as a module: it has to start fast
and must not depend on anything.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys


def main() -> None:
    """Read until the sandbox is gone, then clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for directory in sys.argv[1:]:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
