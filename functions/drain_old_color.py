"""State DrainOldColor: let the old colour finish, then end it. Never touches the traffic."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bluegreen import auto_scaling, compute, drain, ecs, handover, health
from bluegreen.announcement import Announcement, allowed_by
from bluegreen.deployment import Deployment, parse
from bluegreen.errors import DrainFailed, LockLost, TrafficChanged
from bluegreen.look import Asked, Look, asked_before, without_question
from bluegreen.pace import wait_seconds
from bluegreen.routers import listener
from bluegreen.traffic import show
from runtime import announcements, clients, routers
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``status`` "waiting" or "done", with the reason; since and warm_until carry over, and
    warm_since: since when nobody waits for anything but the end of the warm time, which is told.
    undone is true when somebody has rolled the deployment back while its old colour was warm. held
    is true when the old colour stays until the release says how it ends.

    Raises DrainFailed, an alarm and no reason to move traffic; TrafficChanged, when somebody else
    has given the old colour traffic again.
    """
    deployment = parse(invocation.data)
    now, progress = invocation.now, invocation.data.get("drain", {})
    try:
        invocation.store.prove(deployment, now)
    except LockLost:
        if "warm_until" not in progress and not _was_warm(invocation, deployment):
            raise
        since_when = {key: progress[key] for key in ("warm_since",) if key in progress}
        return {**_taken_over(invocation), **since_when}
    if over := _without_drain(invocation, deployment):
        return over
    since = progress.get("since", now)
    assert deployment.from_color
    router = routers.of(deployment, invocation.settings, invocation.data)
    look = router.look(asked_before(progress), now)
    if isinstance(look, Asked):
        return look.waiting({**progress, "since": since}, now)
    weight = look.share(deployment.from_color)
    if weight > 0:
        raise TrafficChanged(
            f"somebody else has given {deployment.from_color} traffic again (weight {weight}), "
            f"after this deployment had set {show({deployment.to_color: 100})}; it is left running"
        )
    if not progress.get("handed_over"):
        # Not before: a colour that has got traffic again keeps its scaling.
        handover.hand_over(deployment)
    # After a recovery nobody knows when the switch was proved: count from now.
    quiet_at = invocation.data.get("shift", {}).get("proved_at", since) + deployment.quiet_seconds
    if look.connections(deployment.from_color) == 0 and not look.unknown():
        # Its requests have been counted: none is left, and none comes any more.
        quiet_at = min(quiet_at, now)
    answer = {
        **without_question(progress),
        "status": "waiting",
        "since": since,
        "handed_over": True,
    }
    configuration = deployment.configuration.drain
    service = ecs.service(clients.ecs(), deployment.configuration.colors[deployment.from_color])
    warm_seconds = configuration.keep_warm_seconds if service["desiredCount"] > 0 else 0
    if now >= quiet_at and warm_seconds and "warm_until" not in progress:
        # Only a colour without requests is left to whoever comes next.
        until = now + warm_seconds
        invocation.store.keep_warm(deployment, until)
        _tell(invocation, deployment, until)
        return {
            **answer,
            "reason": "the old colour is kept warm",
            "since": until,
            "warm_since": now,
            "warm_until": until,
            "wait_seconds": warm_seconds,
        }
    decision = _next_step(deployment, look, service, since, quiet_at, now)
    reason, is_over = decision.reason, decision.step == "done"
    if is_over:
        answer = {**answer, "hosts_since": progress.get("hosts_since", now)}
        hosts_left = _end_hosts(deployment, answer["hosts_since"], now)
        reason, is_over = hosts_left or reason, not hosts_left
    pause = configuration.interval_seconds if now < quiet_at else 1
    return {
        **answer,
        "status": "done" if is_over else "waiting",
        "reason": reason,
        "wait_seconds": wait_seconds(pause, now - since, quiet_at - now),
    }


def _without_drain(invocation: Invocation, deployment: Deployment) -> dict[str, Any] | None:
    """The end of a deployment that has no old colour, or may not touch it yet."""
    if deployment.release and "recovery" not in invocation.data:
        # Another service of the release may fail yet: then this one goes back too.
        invocation.store.hold(deployment, deployment.release, invocation.now)
        reason = f"the old colour stays until {deployment.release} has ended"
        return {"status": "done", "held": True, "reason": reason}
    if deployment.from_color is None:
        handover.hand_over(deployment)
        return {"status": "done", "reason": "there was no old colour"}
    return None


def _next_step(
    deployment: Deployment,
    look: Look,
    service: Mapping[str, Any],
    since: float,
    quiet_at: float,
    now: float,
) -> drain.Decision:
    assert deployment.from_color
    slot = deployment.configuration.colors[deployment.from_color]
    # A proxy has no list of targets that tasks would have to leave first.
    targets = [] if deployment.on_hosts else look.targets(deployment.from_color)
    allowed = deployment.configuration.drain.deadline_seconds
    deadline = max(since, quiet_at) + deployment.deregistration_seconds + allowed
    decision = drain.next_step(
        drain.Facts(
            quiet_at=quiet_at,
            deadline=deadline,
            stop_deadline=deadline + allowed,
            targets=targets,
            connections=look.connections(deployment.from_color),
            unknown=look.unknown(),
            new_healthy=health.healthy_targets(look.targets(deployment.to_color)),
            desired_count=service["desiredCount"],
            tasks=len(ecs.not_stopped(ecs.tasks(clients.ecs(), slot))),
        ),
        now,
    )
    match decision.step:
        case "fail":
            raise DrainFailed(f"{deployment.from_color}: {decision.reason}")
        case "deregister":
            group = deployment.target_groups[deployment.from_color]
            listener.deregister(clients.elbv2(), group, drain.still_registered(targets))
        case "stop":
            if slot.auto_scaling_group:
                # What else runs there has to leave too: the hosts end next. Before the tasks: a
                # pass that fails in between is decided on their count again.
                hosts = auto_scaling.read(clients.autoscaling(), slot.auto_scaling_group).instances
                ecs.set_hosts(clients.ecs(), slot.cluster, "DRAINING", only=hosts)
            ecs.update(clients.ecs(), slot, desired_count=0)
        case "wait" | "done":
            pass
    return decision


def _end_hosts(deployment: Deployment, since: float, now: float) -> str:
    """What is left of the old colour's hosts, which are told to end; "" when nothing is.

    since: when its tasks had gone, epoch seconds. Raises DrainFailed.
    """
    assert deployment.from_color
    name = deployment.configuration.colors[deployment.from_color].auto_scaling_group
    if name is None:
        return ""
    group = auto_scaling.read(clients.autoscaling(), name)
    deadline = since + deployment.configuration.drain.deadline_seconds
    decision = compute.take_down(group, now, deadline)
    match decision.step:
        case "ready":
            return ""
        case "fail":
            raise DrainFailed(f"{deployment.from_color}: {decision.reason}")
        case "empty":
            auto_scaling.empty(clients.autoscaling(), group)
    return decision.reason


def _tell(invocation: Invocation, deployment: Deployment, warm_until: float) -> None:
    """The new colour is live and baked. RecordOutcome says the same at the end, told once."""
    until = datetime.fromtimestamp(warm_until, UTC).isoformat(timespec="seconds")
    record = invocation.store.read(deployment.id)
    announcement = Announcement.about(
        deployment,
        "succeeded",
        invocation.now,
        reason=f"the new colour is live; the old one is kept warm until {until}",
        outcome="succeeded",
        details=allowed_by(record.approved_by, record.promoted_by) if record else (),
        execution_arn=invocation.execution_arn,
    )
    announcements.tell(invocation.settings, announcement)


def _was_warm(invocation: Invocation, deployment: Deployment) -> bool:
    """Whether the answer that it is kept warm was lost: another deployment takes the lock of one
    that was baked only then.
    """
    lock, record = invocation.store.lock(deployment.service), invocation.store.read(deployment.id)
    others = lock is not None and lock.deployment_id != deployment.id
    return others and record is not None and record.phase == "committed"


def _taken_over(invocation: Invocation) -> dict[str, Any]:
    """Somebody else has the old colour now: the next deployment, or a rollback of this one."""
    record = invocation.store.read(invocation.deployment_id)
    if record and record.phase == "rolling_back":
        return {"status": "done", "undone": True, "reason": "it was rolled back since"}
    return {"status": "done", "reason": "the next deployment has taken the old colour over"}
