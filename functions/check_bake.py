"""State CheckBake: prove the switch at the load balancer, then watch the new colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluegreen import health, observe, probe, strategy
from bluegreen.deployment import Deployment, parse
from bluegreen.errors import (
    HostNotSwitched,
    IdleColorUnhealthy,
    SwitchNotProved,
    TrafficChanged,
)
from bluegreen.look import Asked, Look, asked_before, differing, some, without_question
from bluegreen.pace import wait_seconds
from bluegreen.traffic import show, weights_for
from runtime import clients, routers
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``shift`` as it goes on: ``status`` "waiting", "next_step" (with step one higher, or
    the same again for hosts that appeared meanwhile), "outgrown" (those need tasks first), or
    "baked".

    Raises TrafficChanged, SwitchNotProved, IdleColorUnhealthy, HostNotSwitched.
    """
    deployment = parse(invocation.data)
    invocation.store.prove(deployment, invocation.now)
    now, shift, bake = invocation.now, invocation.data["shift"], deployment.configuration.bake
    router = routers.of(deployment, invocation.settings, invocation.data)
    look = router.look(asked_before(shift), now)
    if isinstance(look, Asked):
        return look.waiting(shift, now)
    shift = without_question(shift)
    late = _late(deployment, look, shift)
    shift = {**shift, "late_since": shift.get("late_since", now)} if late else _in_time(shift)
    if look.tasks_for(0) > invocation.data["idle"]["desired_count"]:
        return {**shift, "status": "outgrown", "reason": "there are more hosts than tasks by now"}
    missing = _check_health(deployment, look, invocation.data, now) or look.unknown()
    if late and not missing:
        return {
            **shift,
            "status": "next_step",
            "reason": some([f"{one} came late" for one in late]),
        }
    if late and now - shift["late_since"] > deployment.configuration.health.deadline_seconds:
        raise HostNotSwitched(f"{some(late)} came later and still have the old weights: {missing}")
    proved_at = shift["proved_at"] or _prove(deployment, shift, now)
    if proved_at and not shift["proved_at"]:
        invocation.store.enter(deployment, "baking")
    going_on = {**shift, "proved_at": proved_at}
    if proved_at is None:
        return {**going_on, "status": "waiting", "reason": "the switch does not show yet"} | {
            "wait_seconds": wait_seconds(1, now - shift["shifted_at"])
        }
    left = proved_at + bake.seconds - now
    if left > 0 or missing:
        wait = wait_seconds(bake.interval_seconds, now - shift["shifted_at"], left)
        reason = missing or f"baking for another {left:.0f} s"
        return {**going_on, "status": "waiting", "reason": reason, "wait_seconds": wait}
    if shift["step"] + 1 < len(strategy.steps(deployment.configuration.strategy)):
        return {**going_on, "status": "next_step", "step": shift["step"] + 1}
    invocation.store.enter(deployment, "committed")
    return {**going_on, "status": "baked"}


def _late(deployment: Deployment, look: Look, shift: Mapping[str, Any]) -> list[str]:
    """Hosts that still have the weights of the step before: they came up while it was taken.

    Raises TrafficChanged for any other weights. A load balancer has one place, and is never late.
    """
    steps = strategy.steps(deployment.configuration.strategy)
    before = (
        weights_for(deployment.to_color, steps[shift["step"] - 1])
        if shift["step"]
        else deployment.snapshot.traffic
    )
    wanted = weights_for(deployment.to_color, shift["percent"])
    if changed := look.switched_after(shift.get("generation", 0)):
        raise TrafficChanged(
            f"{some(changed)}: switched by somebody else after this deployment had; left as it is"
        )
    return differing(look.weights(), wanted, [before] if deployment.on_hosts else [])


def _in_time(shift: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in shift.items() if key != "late_since"}


def _check_health(deployment: Deployment, look: Look, data: Mapping[str, Any], now: float) -> str:
    """What is missing now, "" if nothing. Raises IdleColorUnhealthy when that is too much."""
    configuration = deployment.configuration
    facts = observe.color_health(
        clients.ecs(), clients.logs(), look, deployment, deployment.to_color, data
    )
    if health.healthy_targets(facts.targets) == 0 and not look.unknown():
        raise IdleColorUnhealthy(
            f"{deployment.to_color}: no healthy target is left under traffic: "
            + health.what_is_missing(facts)
        )
    verdict = health.decide(
        facts,
        now=now,
        deadline=data["shift"]["shifted_at"]
        + configuration.bake.seconds
        + configuration.health.deadline_seconds,
        max_failed_tasks=configuration.health.max_failed_tasks,
    )
    if verdict.status == "failed":
        raise IdleColorUnhealthy(f"{deployment.to_color}, under traffic: {verdict.reason}")
    return "" if verdict.status == "healthy" else verdict.reason


def _prove(deployment: Deployment, shift: Mapping[str, Any], now: float) -> float | None:
    """When the load balancer was seen to follow; None while it is not.

    All traffic on the new colour: the probe has to find it, so many times in a row. A part of it,
    or no probe: the configured margin, as no answer could prove more.
    """
    configuration = deployment.configuration
    elapsed = now - shift["shifted_at"]
    if configuration.probe is None or shift["percent"] < 100:
        return now if elapsed >= deployment.margin_seconds else None
    wrong = probe.ask(
        deployment, configuration.probe, deployment.to_color, configuration.router.probe_port
    )
    if not wrong:
        return now
    if elapsed >= configuration.probe.timeout_seconds:
        raise SwitchNotProved(
            f"the weights are {show(weights_for(deployment.to_color, shift['percent']))}, but "
            f"{elapsed:.0f} s later the load balancer does not follow: {wrong}"
        )
    return None
