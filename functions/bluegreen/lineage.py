"""What was live before, as the records of a service's deployments tell it."""

from __future__ import annotations

from dataclasses import dataclass

from bluegreen.store import Record, Store

# A deployment that ended so is not live, and was not for long.
_CAME_TO_NOTHING = frozenset({"rolled_back", "refused", "failed", "rollback_incomplete"})


@dataclass(frozen=True)
class Lineage:
    """before: the deployment that was live before, None when it is not on record. read: all that
    say so, which have to be kept for it.
    """

    before: str | None
    read: frozenset[str]


def trace(store: Store, live: str | None) -> Lineage:
    """Look up what was live before a deployment that is live.

    One that went back itself stands for what it went back to: nobody wants to return to what was
    taken back.
    """
    read: set[str] = set()

    def find(deployment_id: str | None) -> Record | None:
        # Names may be used again, so that records could lead in a circle.
        if deployment_id is None or deployment_id in read:
            return None
        read.add(deployment_id)
        return store.read(deployment_id)

    record = find(live)
    while record and record.deployment and record.deployment.started_by.kind == "rollback":
        record = find(record.deployment.started_by.detail)
    before = find(_follows(record))
    while before and before.outcome in _CAME_TO_NOTHING:
        before = find(_follows(before))
    return Lineage(before.id if before else None, frozenset(read))


def _follows(record: Record | None) -> str | None:
    return record.deployment.follows if record and record.deployment else None
