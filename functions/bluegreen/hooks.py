"""Hooks: Lambda functions of the user's that are asked before a deployment goes on. Pure: what they
are told, what their answer means, and when to ask them again.

A function gets ``document()`` as its event and answers::

    {"status": "SUCCEEDED" | "FAILED" | "IN_PROGRESS", "reason": "…"}

The answer of a lifecycle hook of ECS's own is understood as well (``hookStatus``; ``callBackDelay``
in seconds and ``hookDetails``, both with IN_PROGRESS), so that one function can serve both:
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/lambda-lifecycle-hooks.html

IN_PROGRESS is asked again after interval_seconds, or after callBackDelay, until timeout_seconds are
over. Every call is made at least once: one whose answer is lost is made again, and ``hook_id`` is
the same in all calls of one hook, by which the function knows what it has begun already. A call
that is not answered within 20 s fails the hook, for a second one beside it would do harm: what
takes longer than that has to be begun, answered IN_PROGRESS, and looked at in the next call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bluegreen import strategy
from bluegreen.color import Color
from bluegreen.configuration import Hook, HookPoint
from bluegreen.deployment import Deployment
from bluegreen.errors import HookFailed
from bluegreen.pace import LONGEST_SECONDS, wait_seconds

Status = Literal["SUCCEEDED", "FAILED", "IN_PROGRESS"]

VERSION = 1
# Calls that Lambda could not carry out are not the function's fault, however short its time is.
UNANSWERED_SECONDS = 180
# What is carried from call to call, and shown, of what a function says: a reason travels in the
# state machine's data, which holds 262,144 bytes.
_LONGEST_DETAILS = 8_000
_LONGEST_REASON = 2_000
_LONGEST_SHOWN = 300
_LOG_LINES = 10
_LOG_LINE_LENGTH = 500
# What Lambda itself writes around the lines of a function:
# https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html
_OF_LAMBDA = ("START RequestId", "END RequestId", "REPORT RequestId", "INIT_START")
_EXPECTED = '{"status": "SUCCEEDED" | "FAILED" | "IN_PROGRESS", "reason": "…"}'


@dataclass(frozen=True)
class Answer:
    """What a function has answered. delay: seconds that it wants to be left alone, if it says so.
    details: what it wants to find in its next call.
    """

    status: Status
    reason: str
    delay: int | None = None
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Moment:
    """Where in a deployment hooks are asked. step: of the strategy, 0 is the first one. percent: of
    the traffic that the new colour has, before_shift is about to get; None after the end.

    look_seconds: how often the new colour is looked at meanwhile, which has traffic. slower: how
    much sooner the pace slows down, where an execution's history has to have room for all steps.
    """

    point: HookPoint
    step: int
    percent: int | None
    look_seconds: int = LONGEST_SECONDS
    slower: int = 1


def at(configured: Sequence[Hook], point: HookPoint) -> list[Hook]:
    """The hooks of a point, in the order of the configuration."""
    return [hook for hook in configured if hook.at == point]


def moment(deployment: Deployment, point: HookPoint, data: Mapping[str, Any]) -> Moment:
    """data: ``$``. What comes before the next shift is asked while its step is the last one's."""
    shift: Mapping[str, Any] = data.get("shift", {})
    percents = strategy.steps(deployment)
    look_seconds = deployment.configuration.bake.interval_seconds
    # With each pass comes a look at the new colour: together they take twice the events and more.
    slower = 3 * len(percents)
    match point:
        case "before_deployment" | "idle_healthy":
            return Moment(point, 0, 0)
        case "before_shift" if not shift:
            return Moment(point, 0, percents[0], slower=slower)
        case "before_shift":
            step = shift["step"] + 1
            return Moment(point, step, percents[step], look_seconds, slower)
        case "after_shift":
            return Moment(point, shift["step"], shift["percent"], look_seconds, slower)
        case "after_deployment":
            return Moment(point, 0, None)


def kept(progress: Mapping[str, Any], moment: Moment, now: float) -> dict[str, Any]:
    """What earlier passes have left for this moment; that of another point or step is over.

    index: the hook that is asked. since, began: when the first one, and this one, was first asked.
    attempt: calls of this hook so far. due: when it is asked again. details: its own.
    """
    if progress.get("point") == moment.point and progress.get("step") == moment.step:
        return dict(progress)
    return {
        "point": moment.point,
        "step": moment.step,
        "index": 0,
        "since": now,
        "results": [],
        **_begun(now),
    }


def document(
    deployment: Deployment, moment: Moment, progress: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """The event of a hook's function. It holds no values of environment variables.

    ``outcome`` and ``reason`` are there after the end only, ``task_definition`` once there is one,
    ``url`` and ``test_url`` where there is a listener to ask, ``hookDetails`` when the function's
    last answer had some. ``attempt`` counts the calls, from 1; ``began`` is when the first one was
    made, epoch seconds.
    """
    # A deployment that is rolled back after its end ends once more.
    after = moment.point == "after_deployment"
    which = data["outcome"]["outcome"] if after else moment.step
    told: dict[str, Any] = {
        "version": VERSION,
        "hook_id": f"{deployment.id}/{moment.point}/{which}/{progress['index']}",
        "point": moment.point,
        "step": moment.step,
        "percent": moment.percent,
        "attempt": progress["attempt"] + 1,
        "began": progress["began"],
        "deployment": _shown(deployment),
        **_urls(deployment),
    }
    if progress.get("details") is not None:
        told["hookDetails"] = progress["details"]
    if "task_definition" in data:
        told["task_definition"] = data["task_definition"]["arn"]
    if after:
        told["outcome"] = data["outcome"]["outcome"]
        told["reason"] = data["outcome"]["cause"]
    return told


def _shown(deployment: Deployment) -> dict[str, Any]:
    colors = deployment.configuration.colors
    return {
        "id": deployment.id,
        "service": deployment.service,
        "pattern": deployment.configuration.pattern,
        "from_color": deployment.from_color,
        "to_color": deployment.to_color,
        "colors": {
            color: {"cluster": colors[color].cluster, "ecs_service": colors[color].ecs_service}
            for color in Color
        },
        "images": deployment.images,
        "started_at": deployment.started_at,
        "started_by": deployment.started_by.model_dump(),
        "release": deployment.release,
        "execution_arn": deployment.execution_arn,
    }


def _urls(deployment: Deployment) -> dict[str, str]:
    configuration = deployment.configuration
    if not deployment.load_balancer_dns:
        return {}
    base = f"{configuration.probe.scheme if configuration.probe else 'http'}://"
    base += deployment.load_balancer_dns
    urls = {"url": f"{base}:{configuration.router.probe_port}"}
    if configuration.router.test_port:
        urls["test_url"] = f"{base}:{configuration.router.test_port}"
    return urls


def read(hook: Hook, payload: bytes) -> Answer:
    """What a function has answered. Raises HookFailed when that is nothing we know."""
    said = _parsed(payload)
    if said is None:
        raise _not_understood(hook, payload, "it is no JSON object")
    words = [said[key] for key in ("status", "hookStatus") if key in said]
    if not words:
        raise _not_understood(hook, payload, "it has no status")
    status = _status(words[0])
    if status is None or words[-1] != words[0]:
        raise _not_understood(hook, payload, "its status is none of the three")
    delay, details = said.get("callBackDelay"), said.get("hookDetails")
    if delay is not None and (type(delay) is not int or delay < 0):
        raise _not_understood(hook, payload, "callBackDelay is no number of seconds")
    if details is not None and not isinstance(details, dict):
        raise _not_understood(hook, payload, "hookDetails is no JSON object")
    if len(json.dumps(details)) > _LONGEST_DETAILS:
        raise _not_understood(
            hook, payload, f"hookDetails has more than {_LONGEST_DETAILS} characters"
        )
    reason = said.get("reason")
    text = "" if reason is None else reason if isinstance(reason, str) else json.dumps(reason)
    return Answer(status, text[:_LONGEST_REASON], delay, details)


def failed(hook: Hook, why: str) -> HookFailed:
    """A hook's failure, with its function and point."""
    text = f"hook {hook.function} ({hook.at}) {why}"
    return HookFailed(text.encode(errors="replace").decode())


def crashed(hook: Hook, payload: bytes, log: str) -> HookFailed:
    """The failure of a function that raised an exception, or ended without an answer.

    payload: what Lambda says of it (errorType, errorMessage). log: the end of its log.
    """
    said = _parsed(payload) or {"errorMessage": _cut(payload)}
    parts = [str(said[key]) for key in ("errorType", "errorMessage") if said.get(key)]
    text = f"raised {': '.join(parts)[:_LONGEST_REASON] or 'an error without a name'}"
    lines = [line.rstrip() for line in log.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_OF_LAMBDA)]
    if lines:
        shown = [line[:_LOG_LINE_LENGTH] for line in lines[-_LOG_LINES:]]
        text += "; last log lines:\n    " + "\n    ".join(shown)
    return failed(hook, text)


def after_answer(
    hook: Hook, answer: Answer, progress: Mapping[str, Any], moment: Moment, now: float
) -> dict[str, Any]:
    """The progress after an answer: this hook is done, or waited for.

    Raises HookFailed when it said no, or has said IN_PROGRESS for longer than it may.
    """
    attempt = progress["attempt"] + 1
    deadline = progress["began"] + hook.timeout_seconds
    match answer.status:
        case "SUCCEEDED":
            return done(hook, "SUCCEEDED", answer.reason, {**progress, "attempt": attempt}, now)
        case "FAILED":
            raise failed(hook, f"said FAILED: {answer.reason or 'no reason given'}")
        case "IN_PROGRESS" if now >= deadline:
            raise failed(
                hook,
                f"was still IN_PROGRESS after {hook.timeout_seconds} s (timeout_seconds), asked "
                f"{attempt} times: {answer.reason or 'no reason given'}",
            )
        case "IN_PROGRESS":
            pause = hook.interval_seconds if answer.delay is None else answer.delay
            pause = min(pause, hook.timeout_seconds)
            said = f": {answer.reason}" if answer.reason else ""
            kept = {**progress, "attempt": attempt, "details": answer.details}
            reason = f"hook {hook.function} says IN_PROGRESS{said}"
            return _waiting(kept, reason, pause, deadline, moment, now)


def after_no_answer(
    hook: Hook, why: str, progress: Mapping[str, Any], moment: Moment, now: float
) -> dict[str, Any]:
    """The progress after a call that Lambda did not carry out, or whose answer was lost.

    Raises HookFailed when that has been so for too long.
    """
    attempt = progress["attempt"] + 1
    deadline = progress["began"] + max(hook.timeout_seconds, UNANSWERED_SECONDS)
    if now >= deadline:
        raise failed(hook, f"could not be asked for {now - progress['began']:.0f} s: {why}")
    kept = {**progress, "attempt": attempt}
    reason = f"hook {hook.function} could not be asked: {why}"
    return _waiting(kept, reason, hook.interval_seconds, deadline, moment, now)


def done(
    hook: Hook, status: Status, reason: str, progress: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """The progress with a hook that has said its last word; the next one is asked next."""
    result = {
        "function": hook.function,
        "status": status,
        "reason": reason[:_LONGEST_SHOWN],
        "attempts": progress["attempt"],
        "seconds": round(now - progress["began"], 3),
    }
    return {
        **progress,
        "index": progress["index"] + 1,
        "results": [*progress["results"], result],
        "status": "waiting",
        "reason": f"hook {hook.function} said {status}",
        "wait_seconds": 1,
        **_begun(now),
    }


def all_done(progress: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The answer when every hook has said its last word."""
    return {
        **progress,
        "status": "done",
        "reason": f"{len(progress['results'])} hooks asked",
        "wait_seconds": 1,
        "ended_at": now,
    }


def left_alone(progress: Mapping[str, Any], moment: Moment, now: float) -> dict[str, Any]:
    """The answer of a pass that comes before the hook is due again."""
    left = max(1, progress["due"] - now)
    wait = wait_seconds(moment.look_seconds, _paced(progress, moment, now), left)
    return {**progress, "wait_seconds": wait}


def _begun(now: float) -> dict[str, Any]:
    """Of a hook that has not been asked yet."""
    return {"attempt": 0, "began": now, "due": now, "details": None}


def _waiting(
    progress: Mapping[str, Any],
    reason: str,
    pause: int,
    deadline: float,
    moment: Moment,
    now: float,
) -> dict[str, Any]:
    paced = max(pause, wait_seconds(pause, _paced(progress, moment, now)))
    # At the deadline it is asked once more: it may be done by then.
    due = min(now + paced, deadline)
    waiting = {**progress, "status": "waiting", "reason": reason, "due": due}
    return left_alone(waiting, moment, now)


def _paced(progress: Mapping[str, Any], moment: Moment, now: float) -> float:
    """The time that the pace follows."""
    return (now - float(progress["since"])) * moment.slower


def _status(word: Any) -> Status | None:
    match word:
        case "SUCCEEDED" | "FAILED" | "IN_PROGRESS":
            status: Status = word
            return status
        case _:
            return None


def _not_understood(hook: Hook, payload: bytes, why: str) -> HookFailed:
    return failed(hook, f"answered {_cut(payload)}: {why}; expected {_EXPECTED}")


def _parsed(payload: bytes) -> dict[str, Any] | None:
    """A JSON object that can be passed on; None for anything else."""
    try:
        said = json.loads(payload)
        # Python reads more than others do: no numbers, halves of characters.
        json.dumps(said, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _cut(payload: bytes) -> str:
    text = payload.decode(errors="replace")
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
