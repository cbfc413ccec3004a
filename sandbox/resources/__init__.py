"""How each type of CloudFormation resource is made in the sandbox: by API calls against moto.

``api`` turns properties into parameters; only what differs from it is written out in the other
modules, one for each part of AWS.

Simplifications, besides those of moto itself:
  - permissions and policies are stored and not enforced; subscriptions of queues work;
  - an SSM association is checked against its document: ``sandbox.hosts`` does what it would do.
"""

from __future__ import annotations

from sandbox.resources import containers, events, network, storage, workflow
from sandbox.resources.api import Creator, Maker, Properties, UnknownResourceError
from sandbox.stack import Created

CREATORS: dict[str, Creator] = {
    **workflow.CREATORS,
    **events.CREATORS,
    **storage.CREATORS,
    **network.CREATORS,
    **containers.CREATORS,
}


class Resources(Maker):
    """Creates the resources of one stack."""

    def create(self, logical_id: str, kind: str, properties: Properties) -> Created:
        """Create one resource. Raises UnknownResourceError for a type that is not known."""
        creator = CREATORS.get(kind)
        if creator is None:
            raise UnknownResourceError("the sandbox does not know this type of resource")
        return creator(self, logical_id, properties)
