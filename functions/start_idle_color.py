"""State StartIdleColor: end what is left on the idle colour, then start the new revision there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluegreen import ecs, scaling, strategy
from bluegreen.deployment import SUSPENDED, Deployment, parse
from bluegreen.errors import IdleColorUnhealthy
from bluegreen.look import Asked, asked_before, differing
from bluegreen.pace import wait_seconds
from bluegreen.routers import alb
from bluegreen.traffic import weights_for
from runtime import clients, routers
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``status`` "waiting" (for leftovers to end) or "started", then with
    ecs_deployment_id (the one to watch), desired_count and started_at.

    Asked again while it runs, it starts what is missing. Raises IdleColorUnhealthy, TrafficChanged.
    """
    deployment = parse(invocation.data)
    invocation.store.prove(deployment, invocation.now)
    slot = deployment.configuration.colors[deployment.to_color]
    elapsed = invocation.now - deployment.started_at
    revision = invocation.data["task_definition"]["arn"]
    progress = invocation.data.get("idle", {})
    router = routers.of(deployment, invocation.settings, invocation.data)
    look = router.look(asked_before(progress), invocation.now)
    if isinstance(look, Asked):
        return look.waiting(progress, invocation.now)
    # What is stopped here must not have got the traffic since the plan, but from this deployment.
    shifted = strategy.taken(deployment, invocation.data)
    differing(look.weights(), deployment.snapshot.traffic, shifted)
    service = ecs.service(clients.ecs(), slot)
    wanted = look.tasks_for(deployment.wanted_count(_live(deployment)))
    if service["taskDefinition"] == revision and service["desiredCount"] > 0:
        since = progress.get("started_at", invocation.now)
        if service["desiredCount"] < wanted:
            service = ecs.update(clients.ecs(), slot, desired_count=wanted)
            # What is started now gets the whole time to become healthy.
            since = invocation.now if shifted else since
        return _started(service, since)
    if deployment.snapshot.services[deployment.to_color].scaling:
        scaling.write(clients.application_autoscaling(), slot, SUSPENDED)
    margin = deployment.margin_seconds
    if service["desiredCount"] > 0 and elapsed < margin:
        return _waiting(elapsed, "tasks left from an earlier run may still get requests")
    still_used = look.connections(deployment.to_color)
    if still_used and elapsed < deployment.configuration.drain.seconds:
        return _waiting(elapsed, f"{still_used} connections to tasks left from an earlier run")
    if service["desiredCount"] > 0:
        ecs.update(clients.ecs(), slot, desired_count=0)
        return _waiting(elapsed, "tasks left from an earlier run are being stopped")
    if leftovers := ecs.not_stopped(ecs.tasks(clients.ecs(), slot)):
        if elapsed > deployment.configuration.health.deadline_seconds:
            raise IdleColorUnhealthy(
                f"{len(leftovers)} tasks left on {deployment.to_color} from an earlier run "
                "do not stop"
            )
        return _waiting(elapsed, f"{len(leftovers)} tasks left from an earlier run are stopping")
    _point_test_listener(deployment)
    started = ecs.update(clients.ecs(), slot, desired_count=wanted, task_definition=revision)
    return _started(started, invocation.now)


def _live(deployment: Deployment) -> Mapping[str, Any] | None:
    """The live colour's service as it is now: it may have scaled since the plan."""
    if deployment.from_color is None:
        return None
    return ecs.service(clients.ecs(), deployment.configuration.colors[deployment.from_color])


def _point_test_listener(deployment: Deployment) -> None:
    test_traffic = deployment.snapshot.test_traffic
    if deployment.test_location is None or test_traffic is None:
        return
    alb.write(
        clients.elbv2(),
        deployment.test_location,
        deployment.target_groups,
        expected=[test_traffic],
        weights=weights_for(deployment.to_color, 100),
    )


def _started(service: Mapping[str, Any], now: float) -> dict[str, Any]:
    return {
        "status": "started",
        "ecs_deployment_id": ecs.primary_deployment(service)["id"],
        "desired_count": service["desiredCount"],
        "started_at": now,
    }


def _waiting(elapsed: float, reason: str) -> dict[str, Any]:
    return {"status": "waiting", "reason": reason, "wait_seconds": wait_seconds(1, elapsed)}
