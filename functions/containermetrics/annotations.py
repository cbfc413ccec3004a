"""Deployments in Mackerel's graphs: each stands there once, and as it has ended.

https://mackerel.io/api-docs/entry/graph-annotations
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from containermetrics.errors import InvalidKey, MackerelRefused
from containermetrics.mackerel import Mackerel
from containermetrics.model import Annotation
from containermetrics.store import MetricsStore

_MOST_TITLE = 250
_MOST_DESCRIPTION = 1024


def annotate(
    client: Mackerel, store: MetricsStore, annotation: Annotation, now: float
) -> Literal["written", "there", "busy"]:
    """Post an annotation, or change the one that is there. busy: another run is at it, or was and
    has died: again in a minute.

    Posting is no safe repetition at Mackerel, so the annotation is looked for first, by its key.
    Raises what the client raises.
    """
    body = shape(annotation)
    found = _find(client, annotation)
    if found is None:
        # One service of Mackerel may have it already, and another not.
        if not store.claim_creation(f"annotation.{annotation.service}.{annotation.key}", now):
            return "busy"
        # Somebody may have posted it between the look and the claim.
        found = _find(client, annotation)
    if found is None:
        _with_roles(client, body, client.annotate)
        return "written"
    if all(found.get(key) == body[key] for key in ("title", "description", "from", "to")):
        return "there"
    there = str(found["id"])
    _with_roles(client, body, lambda changed: client.change_annotation(there, changed))
    return "written"


def shape(annotation: Annotation) -> dict[str, Any]:
    """As Mackerel takes it: cut to what it takes, but always with the key in the description."""
    key, description = annotation.key, annotation.description
    if key not in _cut(description, _MOST_DESCRIPTION).split():
        description = f"{key}\n{description}"
    body: dict[str, Any] = {
        "title": _cut(annotation.title, _MOST_TITLE),
        "description": _cut(description, _MOST_DESCRIPTION),
        "from": annotation.from_,
        "to": annotation.to,
        "service": annotation.service,
    }
    if annotation.roles:
        body["roles"] = list(annotation.roles)
    return body


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _find(client: Mackerel, annotation: Annotation) -> Mapping[str, Any] | None:
    """By the deployment's id, which is a word of the description."""
    for one in client.annotations(annotation.service, annotation.from_, annotation.to):
        if annotation.key in one.get("description", "").split():
            return one
    return None


def _with_roles(
    client: Mackerel, body: dict[str, Any], send: Callable[[Mapping[str, Any]], None]
) -> None:
    """A service and roles that are missing (404) are made; a role that cannot be is left out."""
    try:
        send(body)
    except MackerelRefused as error:
        if error.status != 404:
            raise
        there = client.roles(body["service"])
        if there is None:
            client.create_service(body["service"])
        roles = [
            role
            for role in body.pop("roles", [])
            if role in (there or ()) or _make_role(client, body["service"], role)
        ]
        send({**body, "roles": roles} if roles else body)


def _make_role(client: Mackerel, service: str, role: str) -> bool:
    """Whether there is such a role now."""
    try:
        client.create_role(service, role)
    except InvalidKey:
        raise
    except MackerelRefused:
        # No name of a role; or somebody else was as quick, and the graphs of the service show it.
        return False
    return True
