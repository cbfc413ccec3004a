"""Import this first: then a benchmark finds the rest of the repository from any directory.

Benchmarks are started as programs, so that only their own directory is on Python's path; and the
project is no package that could be installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

sys.path[1:1] = [str(ROOT), str(ROOT / "functions")]
