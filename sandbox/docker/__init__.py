"""Containers by a real Docker engine: what ``sandbox up --runtime docker`` runs tasks with.

``engine`` starts a dockerd of the sandbox's own and takes everything of it away again, ``bridge``
is its network, ``image`` the one image there is, ``runtime`` starts the containers of tasks on it.
"""

from __future__ import annotations

from sandbox.docker.engine import Engine
from sandbox.docker.runtime import DockerRuntime

__all__ = ["DockerRuntime", "Engine"]
