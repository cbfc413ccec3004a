"""States BeforeDeployment, TestIdleColor, BeforeShift, AfterShift and AfterDeployment: ask the
functions of the user's whether the deployment may go on.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError, HTTPClientError, ReadTimeoutError
from botocore.exceptions import ConnectionError as BotoConnectionError

from bluegreen import hooks
from bluegreen.announcement import Announcement
from bluegreen.configuration import Hook, HookPoint
from bluegreen.deployment import Deployment, parse
from bluegreen.errors import HookFailed
from runtime import announcements, clients
from runtime.invocation import Invocation, is_passing, task

# Errors of Invoke that pass besides those of every API: the function is being updated or restored.
# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
_PASSING = frozenset(
    {
        "ResourceConflictException",
        "SnapStartNotReadyException",
        "SnapStartTimeoutException",
        "CodeArtifactUserPendingException",
    }
)


class _NotAsked(Exception):
    """Lambda did not carry the call out, or its answer was lost."""


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """The event's ``point`` says which hooks. Answers ``status`` "waiting" or "done", with point,
    step, reason, ``results`` (function, status, reason, attempts and seconds of every hook that has
    said its last word), ended_at once it is done, and its progress.

    One call a pass, so that none is made again for the sake of another. Raises HookFailed. After
    the end nothing does: what fails there is told, and in the results.
    """
    deployment, point = parse(invocation.data), invocation.event["point"]
    if point != "after_deployment":
        invocation.store.prove(deployment, invocation.now)
    now = invocation.now
    moment = hooks.moment(deployment, point, invocation.data)
    progress = hooks.kept(_progress(point, invocation.data), moment, now)
    asked = hooks.at(deployment.configuration.hooks, point)
    if progress["index"] >= len(asked):
        return hooks.all_done(progress, now)
    if now < progress["due"]:
        return hooks.left_alone(progress, moment, now)
    hook = asked[progress["index"]]
    document = hooks.document(deployment, moment, progress, invocation.data)
    try:
        answer = _ask(hook, document, progress, moment, now)
    except HookFailed as failure:
        if point != "after_deployment":
            raise
        _tell(invocation, deployment, hook, str(failure))
        progress = {**progress, "attempt": document["attempt"]}
        answer = hooks.done(hook, "FAILED", str(failure), progress, now)
    return hooks.all_done(answer, now) if answer["index"] >= len(asked) else answer


def _progress(point: HookPoint, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the last pass has answered, where the state machine keeps it."""
    kept: Mapping[str, Any] = data.get("testing" if point == "idle_healthy" else "hooks", {})
    return kept


def _ask(
    hook: Hook,
    document: Mapping[str, Any],
    progress: Mapping[str, Any],
    moment: hooks.Moment,
    now: float,
) -> dict[str, Any]:
    """One call, and the progress after it. Raises HookFailed."""
    try:
        return hooks.after_answer(hook, _invoke(hook, document), progress, moment, now)
    except _NotAsked as why:
        return hooks.after_no_answer(hook, str(why), progress, moment, now)


def _invoke(hook: Hook, document: Mapping[str, Any]) -> hooks.Answer:
    """Raises HookFailed, or _NotAsked when another call may succeed."""
    try:
        answer = clients.lambda_().invoke(
            FunctionName=hook.function, Payload=json.dumps(document), LogType="Tail"
        )
        payload = answer["Payload"].read()
    except ReadTimeoutError as error:
        raise hooks.failed(
            hook,
            "did not answer in time, and may still run: what takes longer has to be begun, "
            "answered IN_PROGRESS, and looked at when it is called again",
        ) from error
    except ClientError as error:
        raise _refusal(hook, error) from error
    except (BotoConnectionError, HTTPClientError) as error:
        raise _NotAsked(str(error)) from error
    if answer.get("FunctionError"):
        log = base64.b64decode(answer.get("LogResult", "")).decode(errors="replace")
        raise hooks.crashed(hook, payload, log)
    return hooks.read(hook, payload)


def _refusal(hook: Hook, error: ClientError) -> HookFailed | _NotAsked:
    code = error.response.get("Error", {}).get("Code", "")
    if code == "ResourceNotFoundException":
        return hooks.failed(hook, f"does not exist in this account and region: {error}")
    if code.startswith("AccessDenied"):
        return hooks.failed(
            hook,
            "may not be invoked: its name has to fit the parameter HookFunctionPattern of this "
            f"stack, which permits lambda:InvokeFunction: {error}",
        )
    if is_passing(error) or code in _PASSING:
        return _NotAsked(str(error))
    return hooks.failed(hook, f"could not be invoked: {error}")


def _tell(invocation: Invocation, deployment: Deployment, hook: Hook, reason: str) -> None:
    announcement = Announcement.about(
        deployment,
        "hook_failed",
        invocation.now,
        reason=reason,
        step=hook.function,
        execution_arn=invocation.execution_arn,
    )
    announcements.tell(invocation.settings, announcement)
