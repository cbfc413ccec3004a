"""SSM Run Command: moto's SSM with commands that really run.

``install`` puts ``api.SsmResponse`` in the place of moto's operations. ``documents`` checks what a
command is given against its document, ``commands`` sends it to the nodes and keeps account of each,
``model`` is what is kept. A node is a container instance of ``sandbox.hosts``.
"""

from __future__ import annotations

from typing import Any

from moto.ssm import urls

from sandbox.ssm.api import SsmResponse
from sandbox.ssm.commands import RunCommand
from sandbox.ssm.model import Nodes
from sandbox.world import World


def install(world: World, nodes: Nodes) -> RunCommand:
    """Replace moto's Run Command before its first use."""
    commands = RunCommand(world, nodes)
    response: Any = type("SandboxSsmResponse", (SsmResponse,), {"commands": commands})
    urls.url_paths["{0}/$"] = response.dispatch
    return commands
