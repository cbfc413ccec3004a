"""State PlanRelease: check a release as a whole, before the first of its services changes."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from bluegreen import ecr, parameters
from bluegreen.configuration import describe
from bluegreen.errors import InvalidRequest, LockHeld
from bluegreen.release import ReleasedService, ReleaseRequest, child_input, child_name
from runtime import clients
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """``$.request`` is a ReleaseRequest. Answers order and ``children``: name, service and input
    of the execution of each service, with its images by digest.

    Raises InvalidRequest, with all mistakes at once; LockHeld, when there are none, but a service
    is being changed.
    """
    try:
        request = ReleaseRequest.model_validate(invocation.data["request"])
    except ValidationError as error:
        raise InvalidRequest("the execution input:\n" + "\n".join(describe(error))) from error
    release, children = invocation.execution_arn, []
    mistakes, busy = [], []
    for one in request.services:
        try:
            invocation.store.check_free(one.service, release, invocation.now)
        except LockHeld as held:
            busy.append(str(held))
        try:
            images = _resolved(one, invocation.settings.parameter_prefix)
        except InvalidRequest as error:
            mistakes.append(str(error))
            continue
        children.append(
            {
                "name": child_name(release, one.service),
                "service": one.service,
                "input": child_input(one, images, request, release),
            }
        )
    if mistakes:
        raise InvalidRequest("\n".join([*mistakes, *busy]))
    if busy:
        raise LockHeld("\n".join(busy))
    return {"order": request.order, "children": children}


def _resolved(one: ReleasedService, prefix: str) -> dict[str, str]:
    """Container → ``repository@sha256:…``, so that a tag that moves does not split a release.

    Raises InvalidRequest, a mistake a line.
    """
    configuration = parameters.read(clients.ssm(), prefix, one.service)
    try:
        found = ecr.resolve_all(clients.ecr(), configuration, one.images)
    except InvalidRequest as error:
        lines = str(error).splitlines()
        raise InvalidRequest(
            "\n".join(f"service {one.service}: {line}" for line in lines)
        ) from error
    # The repository in the words of the service configuration, which knows no other name of it.
    return {
        container.name: f"{container.repository}@{found[container.name].rpartition('@')[2]}"
        for container in configuration.containers
        if container.name in found
    }
