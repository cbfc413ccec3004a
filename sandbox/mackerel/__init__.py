"""A stand-in for Mackerel: what its API documentation says, strictly, on a port of this machine.

``MackerelServer`` answers what the project calls and what its tests read back
(https://mackerel.io/api-docs/). Where the documentation is silent the stand-in refuses rather than
accepts; docs/sandbox.md lists what it simplifies.
"""

from sandbox.mackerel.rules import Refused
from sandbox.mackerel.server import Fault, MackerelServer, Request

__all__ = ["Fault", "MackerelServer", "Refused", "Request"]
