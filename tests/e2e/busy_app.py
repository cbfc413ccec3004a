"""The demo app with something to measure: a process beside it that computes half of the time, and
memory that is held.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path

HELD_BYTES = 48 << 20
PAUSE_SECONDS = 0.05


def compute() -> None:
    """As long as it pauses; the kernel ends it with the first process of the container."""
    while True:
        until = time.process_time() + PAUSE_SECONDS
        while time.process_time() < until:
            pass
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    if os.fork() == 0:
        compute()
    held = bytearray(os.urandom(1 << 20) * (HELD_BYTES >> 20))
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.argv[1:] = []
    runpy.run_module("sandbox.app", run_name="__main__")
