"""State StartIdleColor: end what is left on the idle colour, then start the new revision there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluegreen import ecs, scaling
from bluegreen.deployment import SUSPENDED, Deployment, parse
from bluegreen.errors import IdleColorUnhealthy
from bluegreen.pace import wait_seconds
from bluegreen.routers import alb
from bluegreen.traffic import weights_for
from runtime import clients
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``status`` "waiting" (for leftovers to end) or "started", then with
    ecs_deployment_id (the one to watch), desired_count and started_at.
    """
    deployment = parse(invocation.data)
    invocation.store.prove(deployment, invocation.now)
    slot = deployment.configuration.colors[deployment.to_color]
    elapsed = invocation.now - deployment.started_at
    revision = invocation.data["task_definition"]["arn"]
    # What is stopped here must not have got the traffic since the plan.
    alb.expect(
        clients.elbv2(),
        deployment.location,
        deployment.target_groups,
        [deployment.snapshot.traffic],
    )
    service = ecs.service(clients.ecs(), slot)
    wanted = deployment.wanted_count(_live(deployment))
    if service["taskDefinition"] == revision and service["desiredCount"] > 0:
        if service["desiredCount"] < wanted:
            service = ecs.update(clients.ecs(), slot, desired_count=wanted)
        since = invocation.data.get("idle", {}).get("started_at", invocation.now)
        return _started(service, since)
    if deployment.snapshot.services[deployment.to_color].scaling:
        scaling.write(clients.application_autoscaling(), slot, SUSPENDED)
    margin = deployment.configuration.drain.margin_seconds
    if service["desiredCount"] > 0 and elapsed < margin:
        return _waiting(elapsed, "tasks left from an earlier run may still get requests")
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
