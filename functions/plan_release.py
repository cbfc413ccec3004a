"""State PlanRelease: check a release as a whole, before the first of its services changes."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from bluegreen import parameters
from bluegreen.configuration import describe
from bluegreen.errors import InvalidRequest
from bluegreen.release import ReleaseRequest, child_input, child_name
from runtime import clients
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """``$.request`` is a ReleaseRequest. Answers order and ``children``: name, service and input
    of the execution of each service. Raises InvalidRequest, with all mistakes at once.
    """
    try:
        request = ReleaseRequest.model_validate(invocation.data["request"])
    except ValidationError as error:
        raise InvalidRequest("the execution input:\n" + "\n".join(describe(error))) from error
    if mistakes := _mistakes(request, invocation.settings.parameter_prefix):
        raise InvalidRequest("\n".join(mistakes))
    return {
        "order": request.order,
        "children": [
            {
                "name": child_name(invocation.execution_arn, one.service),
                "service": one.service,
                "input": child_input(one, request, invocation.execution_arn),
            }
            for one in request.services
        ],
    }


def _mistakes(request: ReleaseRequest, prefix: str) -> list[str]:
    """What the services' configurations have against it."""
    mistakes = []
    for one in request.services:
        try:
            configuration = parameters.read(clients.ssm(), prefix, one.service)
        except InvalidRequest as error:
            mistakes.append(str(error))
            continue
        known = [container.name for container in configuration.containers]
        if unknown := sorted(set(one.images) - set(known)):
            mistakes.append(
                f"service {one.service}: no container {', '.join(unknown)} in the service "
                f"configuration (it has {', '.join(known)})"
            )
    return mistakes
