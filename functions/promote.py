"""State Promote: a person lets a deployment go on."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from bluegreen import strategy
from bluegreen.configuration import describe
from bluegreen.deployment import PromoteRequest
from bluegreen.errors import AwsUnavailable, DeploymentRefused, InvalidRequest
from bluegreen.store import Record, Watch
from bluegreen.traffic import weights_for
from runtime import clients
from runtime.invocation import Invocation, task

# The newest events of an execution, in which an answer of our own is: it is seconds old.
_EVENTS = 100


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """``$.request`` is a PromoteRequest. Answers deployment_id, ``promoted`` "approval", or "step"
    with its step (0 is the first one), and by.

    It approves what waits for approval; else it ends the watching of the step that the deployment
    is at. Raises InvalidRequest, and DeploymentRefused when nothing waits, or not that step.
    """
    try:
        request = PromoteRequest.model_validate(invocation.data["request"])
    except ValidationError as error:
        raise InvalidRequest("the execution input:\n" + "\n".join(describe(error))) from error
    record = invocation.store.read(request.deployment_id)
    if record is None:
        raise InvalidRequest(f"there is no deployment {request.deployment_id!r}")
    answer = {
        "deployment_id": record.id,
        "by": request.who or f"execution {invocation.execution_name}",
    }
    if invocation.execution_arn in record.answered_in:
        # Tried again, for what it was about before, whatever the deployment does by now.
        _approve(invocation, record, answer["by"])
        return {**answer, "promoted": "approval"}
    if record.outcome:
        raise _nothing_waits(record, f"it has ended: {record.outcome}")
    # Where it goes on without an answer, the token is still there once the traffic shifts.
    if record.approval and not _begun(record):
        if request.percent:
            raise _nothing_waits(
                record, f"it waits for approval, and is at no step of {request.percent} % yet"
            )
        _approve(invocation, record, answer["by"])
        return {**answer, "promoted": "approval"}
    if request.percent == 0:
        # A second person who says yes does not mean the step that has begun since.
        said = f"{record.approved_by} has approved it" if record.approved_by else "nobody is asked"
        raise _nothing_waits(record, said)
    step = _watched_step(record, request.percent)
    if record.promoted == step:
        raise _nothing_waits(record, f"somebody has promoted its step {step} already")
    if not invocation.store.promote(record.id, step, answer["by"], record.watch):
        raise _nothing_waits(record, "it has gone on just now; look where it is, and try again")
    return {**answer, "promoted": "step", "step": step}


def _approve(invocation: Invocation, record: Record, who: str) -> None:
    """Answer the request for approval. The token goes once it is answered, not before: an attempt
    that is broken off in between must not leave a request that nobody can answer.

    Raises DeploymentRefused when it cannot be answered any more, AwsUnavailable when it has been
    made again, with another token, meanwhile.
    """
    token = record.approval
    if not (token and _say_yes(invocation, record, token, who)) and not _has_said_yes(
        invocation, record
    ):
        newest = invocation.store.read(record.id)
        if newest and newest.approval not in (None, token):
            raise AwsUnavailable("the request for approval has been made again just now")
        # What it does now is another question, which this request did not mean.
        raise _nothing_waits(
            record, "its request for approval has been answered already, or its time was up"
        )
    if token:
        invocation.store.note_approved(record.id, token, who)


def _say_yes(invocation: Invocation, record: Record, token: str, who: str) -> bool:
    """Whether Step Functions has taken the answer; False if it waits for none by this token."""
    invocation.store.note_answer(record.id, invocation.execution_arn)
    output = {
        "approved": True,
        "by": who,
        "at": invocation.now,
        "execution": invocation.execution_arn,
    }
    client = clients.stepfunctions_once()
    try:
        client.send_task_success(taskToken=token, output=json.dumps(output))
    except (
        client.exceptions.TaskTimedOut,
        client.exceptions.TaskDoesNotExist,
        client.exceptions.InvalidToken,
    ):
        return False
    return True


def _has_said_yes(invocation: Invocation, record: Record) -> bool:
    """Whether an earlier attempt of this execution has, though that it did was lost on the way."""
    history = clients.stepfunctions().get_execution_history(
        executionArn=record.execution_arn,
        includeExecutionData=True,
        maxResults=_EVENTS,
        reverseOrder=True,
    )
    outputs = [
        json.loads(event["taskSucceededEventDetails"].get("output", "null"))
        for event in history["events"]
        if "taskSucceededEventDetails" in event
    ]
    return any(
        isinstance(one, dict) and one.get("execution") == invocation.execution_arn
        for one in outputs
    )


def _begun(record: Record) -> list[int]:
    """The steps whose weights the deployment has meant to write."""
    deployment = record.deployment
    if deployment is None:
        return []
    return [
        step
        for step, share in enumerate(strategy.steps(deployment))
        if weights_for(deployment.to_color, share) in record.intents
    ]


def _watched_step(record: Record, percent: int | None) -> int:
    """The last step whose weights the deployment has meant to write. percent: what it has to be.

    Raises DeploymentRefused when nothing is watched at present.
    """
    deployment = record.deployment
    if deployment is None or record.phase == "planning":
        raise _nothing_waits(record, "it is being planned")
    if record.phase not in ("deploying", "baking"):
        raise _nothing_waits(
            record, "it is being rolled back" if record.phase == "rolling_back" else "it is baked"
        )
    percents, begun = strategy.steps(deployment), _begun(record)
    if not begun:
        raise _nothing_waits(record, "its traffic has not begun to shift, and nobody is asked yet")
    step = begun[-1]
    if percent not in (None, percents[step]):
        raise _nothing_waits(record, f"it is at {percents[step]} %, not at {percent} %")
    if record.watch == Watch(step, "after_shift"):
        raise _nothing_waits(record, f"the hooks after its step {step} are being asked")
    if record.watch == Watch(step, "over"):
        raise _nothing_waits(
            record, f"its step {step} is over already: the hooks before the next one are asked"
        )
    return step


def _nothing_waits(record: Record, why: str) -> DeploymentRefused:
    return DeploymentRefused(f"deployment {record.id}: there is nothing to promote: {why}")
