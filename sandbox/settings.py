"""What is known of a sandbox without starting one: what it can do, and where it is found.

Nothing heavy is imported here: ``python -m sandbox push`` needs this and has to be quick.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD_DIRECTORY = ROOT / "build"
PATTERNS = ("shifted-ports", "host-proxy", "two-clusters")
BALANCERS = ("alb", "nlb", "clb")
PROXIES = ("nginx", "haproxy")
RUNTIMES = ("process", "docker")
MAX_HOSTS = 99
STATE_FILE = "sandbox.json"
LOG_FILE = "sandbox.log"


class SandboxError(Exception):
    """The sandbox cannot do this; the message says why and what to do."""
