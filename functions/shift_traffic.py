"""State ShiftTraffic: write the weights of one step."""

from __future__ import annotations

from typing import Any

from bluegreen import auto_scaling, compute, scaling, strategy
from bluegreen.deployment import SUSPENDED, Deployment, parse
from bluegreen.traffic import Weights, weights_for
from runtime import clients, routers
from runtime.invocation import Invocation, task

# What CheckBake has found of a step stays when the step is taken again, by hosts that were late.
_WATCHED = ("shifted_at", "proved_at", "unknown_since")


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """``$.shift.step`` is the step to take, 0 when it is not there yet. Answers the new ``shift``:
    ``status`` "shifted" with step, percent, weights, shifted_at, began_at (of the first step),
    proved_at (None: CheckBake proves it), or "waiting" with the ``switch`` that is under way.

    A step taken already is taken again by hosts that were late. Raises TrafficChanged when the
    weights are not those that this deployment left, HostNotReady, HostNotSwitched.
    """
    deployment = parse(invocation.data)
    invocation.store.prove(deployment, invocation.now)
    steps = strategy.steps(deployment)
    progress = invocation.data.get("shift", {})
    step = progress.get("step", 0)
    weights = weights_for(deployment.to_color, steps[step])
    again = progress.get("percent") == steps[step]
    if "switch" not in progress and not again:
        _begin(invocation, deployment, step)
    answer = routers.of(deployment, invocation.settings, invocation.data).shift(
        progress.get("switch"),
        _expected(deployment, step),
        weights,
        lambda intended: invocation.store.intend(deployment, intended),
        invocation.now,
    )
    if "gap_ms" in answer:
        invocation.store.note_gap(deployment, answer["gap_ms"])
    if answer["status"] == "waiting":
        return {**progress, "step": step, **answer}
    fresh = {"shifted_at": invocation.now, "proved_at": None}
    kept = {key: progress[key] for key in _WATCHED if key in progress}
    return {
        **answer,
        "step": step,
        "percent": steps[step],
        "weights": weights,
        "began_at": progress.get("began_at", invocation.now),
        **(kept if again else fresh),
        "wait_seconds": 1,
    }


def _begin(invocation: Invocation, deployment: Deployment, step: int) -> None:
    """What comes before the weights of a step, besides the compare."""
    steps = strategy.steps(deployment)
    if step == 0 or steps[step] == 100:
        _keep_what_is_there(deployment, steps[step])
    if step > 0:
        # A rollback must not take the proof of the step before for one of this step.
        invocation.store.enter(deployment, "deploying")


def _expected(deployment: Deployment, step: int) -> list[Weights]:
    """The weights that may be there now. A host that took no tasks for a while may have missed more
    than one step; a load balancer has one place, and none to miss.
    """
    before = strategy.before(deployment, step)
    return before if deployment.on_hosts else before[-1:]


def _keep_what_is_there(deployment: Deployment, percent: int) -> None:
    """Autoscaling must not take the way back: without traffic the old colour would scale in.

    The new one may scale out from now on, as the live colour did; and so may the old one as long as
    it keeps a part of the traffic, unless its hosts are a group of its own: alarms would make that
    smaller, too. percent: what the new one gets.
    """
    if deployment.from_color is None:
        return
    colors, before = deployment.configuration.colors, deployment.snapshot.services
    live, hosts = before[deployment.from_color].scaling, before[deployment.from_color].group
    if live:
        only_out = SUSPENDED.model_copy(update={"dynamic_out": live.dynamic_out})
        old = only_out if percent < 100 and not hosts else SUSPENDED
        scaling.write(clients.application_autoscaling(), colors[deployment.from_color], old)
        if before[deployment.to_color].scaling:
            scaling.write(clients.application_autoscaling(), colors[deployment.to_color], only_out)
    name = colors[deployment.from_color].auto_scaling_group
    if hosts and name:
        group = auto_scaling.read(clients.autoscaling(), name)
        auto_scaling.set_suspended(
            clients.autoscaling(), group, {*group.suspended, *compute.FIGHTING}
        )
