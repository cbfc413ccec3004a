"""State StartIdleColor: end what is left on the idle colour, then start the new revision there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluegreen import auto_scaling, capacity, compute, ecs, scaling, strategy
from bluegreen.deployment import SUSPENDED, Deployment, parse
from bluegreen.errors import IdleColorUnhealthy
from bluegreen.look import Asked, Look, asked_before, differing
from bluegreen.pace import wait_seconds
from bluegreen.routers import listener
from bluegreen.traffic import weights_for
from runtime import clients, routers
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``status`` "waiting" (for leftovers to end, or for hosts) or "started", then with
    ecs_deployment_id (the one to watch), desired_count and started_at.

    Asked again while it runs, it starts what is missing. Raises IdleColorUnhealthy, TrafficChanged.
    """
    deployment = parse(invocation.data)
    invocation.store.prove(deployment, invocation.now)
    slot = deployment.configuration.colors[deployment.to_color]
    revision = invocation.data["task_definition"]["arn"]
    progress = invocation.data.get("idle", {})
    router = routers.of(deployment, invocation.settings, invocation.data)
    look = router.look(asked_before(progress), invocation.now)
    if isinstance(look, Asked):
        return look.waiting(progress, invocation.now)
    # What is stopped here must not have got the traffic since the plan, but from this deployment.
    shifted = strategy.taken(deployment, invocation.data)
    differing(look.weights(), deployment.snapshot.traffic, shifted)
    if deployment.on_hosts and strategy.keeps_old(deployment, invocation.data):
        _follow_hosts(deployment, look)
    service = ecs.service(clients.ecs(), slot)
    wanted = look.tasks_for(deployment.wanted_count(_live(deployment)))
    if service["taskDefinition"] == revision and service["desiredCount"] > 0:
        since = progress.get("started_at", invocation.now)
        if service["desiredCount"] < wanted:
            if coming := _bring_up_hosts(deployment, revision, wanted, progress, invocation.now):
                return coming
            service = ecs.update(clients.ecs(), slot, desired_count=wanted)
            # What is started now gets the whole time to become healthy.
            since = invocation.now if shifted else since
        return _started(service, since)
    if deployment.snapshot.services[deployment.to_color].scaling:
        scaling.write(clients.application_autoscaling(), slot, SUSPENDED)
    if leftovers := _end_leftovers(deployment, look, service, progress, invocation.now):
        return leftovers
    if coming := _bring_up_hosts(deployment, revision, wanted, progress, invocation.now):
        return coming
    _point_test_listener(deployment)
    started = ecs.update(clients.ecs(), slot, desired_count=wanted, task_definition=revision)
    return _started(started, invocation.now)


def _end_leftovers(
    deployment: Deployment,
    look: Look,
    service: Mapping[str, Any],
    progress: Mapping[str, Any],
    now: float,
) -> dict[str, Any] | None:
    """One pass towards an idle colour without tasks from an earlier run; None when there are none.

    Raises IdleColorUnhealthy.
    """
    slot = deployment.configuration.colors[deployment.to_color]
    elapsed = now - deployment.started_at
    # Hooks and a migration may have taken longer than tasks have to stop.
    since = progress.get("leftovers_since", now)
    waiting = {"leftovers_since": since}
    if service["desiredCount"] > 0 and elapsed < deployment.margin_seconds:
        reason = "tasks left from an earlier run may still get requests"
        return _waiting(now - since, reason) | waiting
    still_used = look.connections(deployment.to_color)
    if still_used and elapsed < deployment.configuration.drain.seconds:
        reason = f"{still_used} connections to tasks left from an earlier run"
        return _waiting(now - since, reason) | waiting
    if service["desiredCount"] > 0:
        ecs.update(clients.ecs(), slot, desired_count=0)
        return _waiting(0, "tasks left from an earlier run are being stopped") | {
            "leftovers_since": now
        }
    if leftovers := ecs.not_stopped(ecs.tasks(clients.ecs(), slot)):
        if now - since > deployment.configuration.health.deadline_seconds:
            raise IdleColorUnhealthy(
                f"{len(leftovers)} tasks left on {deployment.to_color} from an earlier run "
                "do not stop"
            )
        reason = f"{len(leftovers)} tasks left from an earlier run are stopping"
        return _waiting(now - since, reason) | waiting
    return None


def _bring_up_hosts(
    deployment: Deployment,
    revision: str,
    wanted: int,
    progress: Mapping[str, Any],
    now: float,
) -> dict[str, Any] | None:
    """One pass towards hosts of this deployment's own for so many tasks; None once they are there.

    Raises IdleColorUnhealthy.
    """
    color, configuration = deployment.to_color, deployment.configuration
    slot, before = configuration.colors[color], deployment.snapshot.services[color].group
    if slot.auto_scaling_group is None or before is None:
        return None
    client = clients.autoscaling()
    group = auto_scaling.read(client, slot.auto_scaling_group)
    auto_scaling.set_suspended(client, group, {*group.suspended, *compute.FIGHTING})
    since = progress.get("hosts_since", now)
    ready = {
        one["ec2InstanceId"]: one
        for one in ecs.container_instances(clients.ecs(), slot.cluster)
        if capacity.takes_tasks(one) and one["ec2InstanceId"] in group.in_service
    }
    needs = capacity.needs_of(ecs.task_definition(clients.ecs(), revision)[0])
    # A capacity provider's tasks wait for a host without having one.
    placed = ecs.not_stopped(ecs.tasks(clients.ecs(), slot))
    there = sum(1 for task in placed if task.get("containerInstanceArn"))
    decision = compute.bring_up(
        compute.Facts(
            group=group,
            stale=before.instances,
            wanted=_hosts_of_live(deployment),
            ready=ready,
            tasks=wanted,
            room=capacity.tasks_that_fit(list(ready.values()), needs) + there,
            per_host=max(
                (capacity.fit_when_empty(one, needs) for one in ready.values()), default=0
            ),
            failures=auto_scaling.failed_launches(client, group.name, since),
            deadline=since + configuration.health.deadline_seconds,
        ),
        now,
        configuration.health.max_failed_tasks,
    )
    match decision.step:
        case "ready":
            return None
        case "fail":
            raise IdleColorUnhealthy(f"{color}: {decision.reason}")
        case "empty":
            auto_scaling.empty(client, group)
        case "launch":
            auto_scaling.resize(client, group, desired_capacity=decision.size)
        case "wait":
            pass
    waiting = _waiting(now - since, decision.reason)
    return {**progress, **waiting, "hosts_since": since}


def _hosts_of_live(deployment: Deployment) -> int:
    """How many hosts the live colour has now: its successor starts with as many."""
    if deployment.from_color is None:
        return 1
    name = deployment.configuration.colors[deployment.from_color].auto_scaling_group
    assert name
    return max(1, auto_scaling.read(clients.autoscaling(), name).desired_capacity)


def _follow_hosts(deployment: Deployment, look: Look) -> None:
    """Have ECS start the old colour, which keeps a part of the traffic, on hosts that came later.

    It never gets smaller by that.
    """
    live = _live(deployment)
    if deployment.from_color is None or live is None:
        return
    wanted = look.tasks_for(live["desiredCount"])
    if live["desiredCount"] < wanted:
        slot = deployment.configuration.colors[deployment.from_color]
        ecs.update(clients.ecs(), slot, desired_count=wanted)


def _live(deployment: Deployment) -> Mapping[str, Any] | None:
    """The live colour's service as it is now: it may have scaled since the plan."""
    if deployment.from_color is None:
        return None
    return ecs.service(clients.ecs(), deployment.configuration.colors[deployment.from_color])


def _point_test_listener(deployment: Deployment) -> None:
    test_traffic = deployment.snapshot.test_traffic
    if deployment.test_location is None or test_traffic is None:
        return
    listener.write(
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
