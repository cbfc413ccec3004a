"""State DrainOldColor: let the old colour finish, then end it. Never touches the traffic."""

from __future__ import annotations

from typing import Any

from bluegreen import drain, ecs, scaling
from bluegreen.deployment import SUSPENDED, Deployment, parse
from bluegreen.errors import DrainFailed, LockLost
from bluegreen.pace import wait_seconds
from bluegreen.routers import alb
from runtime import clients
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``status`` "waiting" or "done", with the reason; since and warm_until carry over.

    Raises DrainFailed: an alarm, and no reason to move traffic.
    """
    deployment = parse(invocation.data)
    now, progress = invocation.now, invocation.data.get("drain", {})
    try:
        invocation.store.prove(deployment, now)
    except LockLost:
        if "warm_until" not in progress:
            raise
        return {"status": "done", "reason": "the next deployment has taken the old colour over"}
    configuration = deployment.configuration.drain
    since = progress.get("since", now)
    if "since" not in progress:
        _hand_scaling_over(deployment)
    if deployment.from_color is None:
        return {"status": "done", "reason": "there was no old colour"}
    if configuration.keep_warm_seconds and "warm_until" not in progress:
        until = now + configuration.keep_warm_seconds
        invocation.store.keep_warm(deployment, until)
        return {
            "status": "waiting",
            "reason": "the old colour is kept warm",
            "since": until,
            "warm_until": until,
            "wait_seconds": configuration.keep_warm_seconds,
        }
    # After a recovery nobody knows when the switch was proved: count from now.
    quiet_at = invocation.data.get("shift", {}).get("proved_at", since) + deployment.quiet_seconds
    slot = deployment.configuration.colors[deployment.from_color]
    service = ecs.service(clients.ecs(), slot)
    group = deployment.target_groups[deployment.from_color]
    targets = alb.targets(clients.elbv2(), group)
    weights = alb.read(clients.elbv2(), deployment.location, deployment.target_groups)
    decision = drain.next_step(
        drain.Facts(
            weight=weights.get(deployment.from_color, 0),
            quiet_at=quiet_at,
            deadline=max(since, quiet_at) + configuration.deadline_seconds,
            targets=targets,
            desired_count=service["desiredCount"],
            tasks=len(ecs.not_stopped(ecs.tasks(clients.ecs(), slot))),
        ),
        now,
    )
    match decision.step:
        case "fail":
            raise DrainFailed(f"{deployment.from_color}: {decision.reason}")
        case "deregister":
            alb.deregister(clients.elbv2(), group, drain.still_registered(targets))
        case "stop":
            ecs.update(clients.ecs(), slot, desired_count=0)
        case "wait" | "done":
            pass
    return {
        **progress,
        "status": "done" if decision.step == "done" else "waiting",
        "reason": decision.reason,
        "since": since,
        "wait_seconds": wait_seconds(
            1 if now >= quiet_at else configuration.interval_seconds, now - since, quiet_at - now
        ),
    }


def _hand_scaling_over(deployment: Deployment) -> None:
    """Scaling goes with the role: what was live scaled, what is idle must stay where it is."""
    snapshot = deployment.snapshot.services
    colors = deployment.configuration.colors
    client = clients.application_autoscaling()
    new = snapshot[deployment.to_color].scaling
    old = snapshot[deployment.from_color].scaling if deployment.from_color else None
    if new:
        scaling.write(client, colors[deployment.to_color], old or new)
    if old and deployment.from_color:
        scaling.write(client, colors[deployment.from_color], SUSPENDED)
