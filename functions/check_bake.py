"""State CheckBake: prove the switch at the load balancer, then watch the new colour."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bluegreen import gates, health, observe, probe, strategy, watch
from bluegreen.announcement import Announcement, allowed_by
from bluegreen.deployment import Deployment, parse
from bluegreen.errors import (
    BakeFailed,
    HostNotReady,
    HostNotSwitched,
    IdleColorUnhealthy,
    LockLost,
    SwitchNotProved,
    TrafficChanged,
)
from bluegreen.look import Asked, Look, asked_before, differing, some, without_question
from bluegreen.pace import wait_seconds
from bluegreen.store import Record, Watch
from bluegreen.traffic import show, weights_for
from runtime import announcements, clients, routers
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``shift`` as it goes on: ``status`` "waiting"; "proved", as long as hooks after this
    shift have to be asked, and "before_next", as long as those before the next one have to be;
    "next_step" with step one higher; "late", for hosts that have to take the same step; "outgrown",
    when those need tasks first; or "baked".

    Raises TrafficChanged, SwitchNotProved, IdleColorUnhealthy, HostNotReady, HostNotSwitched,
    BakeFailed.
    """
    deployment = parse(invocation.data)
    invocation.store.prove(deployment, invocation.now)
    now, shift = invocation.now, invocation.data["shift"]
    router = routers.of(deployment, invocation.settings, invocation.data)
    look = router.look(asked_before(shift), now)
    if isinstance(look, Asked):
        return look.waiting(shift, now)
    shift = without_question(shift)
    late = _late(deployment, look, shift)
    shift = _since(shift, "late_since", now, late)
    old_missing = observe.old_color_missing(look, deployment, invocation.data)
    ill = _check_health(deployment, look, invocation.data, shift, now)
    missing = ill or look.unknown() or old_missing
    verdict = _verdict(invocation, deployment, shift)
    shift = _since(shift, "unknown_since", now, verdict.status == "unknown")
    outgrown = observe.outgrown(clients.ecs(), deployment, look, invocation.data)
    if verdict.status == "unknown" and (outgrown or shift["proved_at"] is None):
        _check_patience(deployment, verdict, shift, now, now)
    if outgrown:
        # What is missing is about to be started: its time counts from then on.
        return {**shift, "status": "outgrown", "reason": outgrown}
    shift = _since(shift, "ill_since", now, missing)
    if late and not missing:
        reason = some([f"{one} came late" for one in late])
        return {**shift, "status": "late", "reason": reason}
    if late and now - shift["late_since"] > deployment.configuration.health.deadline_seconds:
        raise HostNotSwitched(f"{some(late)} came later and still have the old weights: {missing}")
    if missing and missing == old_missing and now >= _gives_up_at(deployment, shift, now):
        raise HostNotReady(f"not there at the deadline: {old_missing}")
    if shift["proved_at"] is None:
        shift = _prove(deployment, shift, now)
        if shift["proved_at"] is None:
            elapsed = now - shift["shifted_at"]
            wait = wait_seconds(1, _paced(deployment, elapsed), deployment.margin_seconds - elapsed)
            unknown = f"; {verdict.reason}" if verdict.status == "unknown" else ""
            reason = f"the switch does not show yet{unknown}"
            return {**shift, "status": "waiting", "reason": reason, "wait_seconds": wait}
        invocation.store.enter(deployment, "baking")
        record = _record(invocation, deployment)
        announcements.tell(
            invocation.settings,
            Announcement.about(
                deployment,
                "shifted",
                now,
                step=shift["percent"],
                details=allowed_by(record.approved_by, record.promoted_by),
            ),
        )
    return _watch(invocation, deployment, shift, missing, verdict)


def _watch(
    invocation: Invocation,
    deployment: Deployment,
    shift: Mapping[str, Any],
    missing: str,
    verdict: gates.Verdict,
) -> dict[str, Any]:
    """A step that was proved: ask hooks, watch on, take the next one, or be done. missing: what the
    health of the new colour lacks. Raises BakeFailed.

    What is bad is bad while hooks are asked, too.
    """
    now, step = invocation.now, shift["step"]
    record = _record(invocation, deployment)
    ends_at = shift["proved_at"] + strategy.seconds(deployment, step)
    left, reason = ends_at - now, missing
    if record.promoted == step:
        left = 0
    elif verdict.status != "ok":
        _check_patience(deployment, verdict, shift, ends_at, now)
        reason = missing or verdict.reason
    if not _is_hooked_after(deployment, invocation.data, step):
        _note(invocation, deployment, record, Watch(step, "after_shift"))
        return {**shift, "status": "proved", "reason": "the hooks after the shift are asked"}
    if left > 0 or reason:
        _note(invocation, deployment, record, Watch(step, "watched"))
        elapsed = _paced(deployment, now - shift["shifted_at"])
        wait = wait_seconds(deployment.configuration.bake.interval_seconds, elapsed, left)
        reason = reason or f"baking for another {left:.0f} s"
        return {**shift, "status": "waiting", "reason": reason, "wait_seconds": wait}
    if step + 1 == len(strategy.steps(deployment)):
        invocation.store.enter(deployment, "committed")
        return {**shift, "status": "baked"}
    _note(invocation, deployment, record, Watch(step, "over"))
    if not _is_hooked_before(deployment, invocation.data, step + 1):
        reason = "the hooks before the next shift are asked"
        return {**shift, "status": "before_next", "reason": reason}
    return {**shift, "status": "next_step", "step": step + 1}


def _verdict(
    invocation: Invocation, deployment: Deployment, shift: Mapping[str, Any]
) -> gates.Verdict:
    """What is said by all that is watched. Raises BakeFailed when it is bad."""
    if deployment.skip_bake:
        return gates.Verdict("ok")
    verdict = gates.decide(
        watch.look(deployment, shift, invocation.settings, invocation.now),
        deployment.configuration.bake,
        color=deployment.to_color,
        known=deployment.known_bad,
        began=deployment.started_at,
    )
    if verdict.status == "bad":
        share = f"with {shift['percent']} % of the traffic on {deployment.to_color}"
        raise BakeFailed(f"{share}: {verdict.reason}")
    return verdict


def _check_patience(
    deployment: Deployment,
    verdict: gates.Verdict,
    shift: Mapping[str, Any],
    ends_at: float,
    now: float,
) -> None:
    """Raises BakeFailed when it is not known for too long whether the new colour is good."""
    allowed = deployment.configuration.bake.unknown_seconds
    gives_up_at = gates.gives_up_at(
        verdict,
        unknown_since=shift.get("unknown_since", now),
        shifted_at=shift["shifted_at"],
        ends_at=ends_at,
        unknown_seconds=allowed,
    )
    if now >= gives_up_at:
        raise BakeFailed(
            f"unknown is not OK: with {shift['percent']} % of the traffic on "
            f"{deployment.to_color}, still after {allowed} s: {verdict.reason}"
        )


def _record(invocation: Invocation, deployment: Deployment) -> Record:
    """The deployment as it is kept, which it is as long as it is in hand."""
    record = invocation.store.read(deployment.id)
    if record is None:
        raise LockLost(f"deployment {deployment.id} is not on record any more")
    return record


def _note(invocation: Invocation, deployment: Deployment, record: Record, watch: Watch) -> None:
    """Let whoever wants to promote the step know where it is."""
    if record.watch != watch:
        invocation.store.note_watch(deployment, watch)


def _is_hooked_after(deployment: Deployment, data: Mapping[str, Any], step: int) -> bool:
    """Whether the hooks after this step, if there are any, have said yes. They have when those
    before the next one were asked.
    """
    after = {"point": "after_shift", "step": step, "status": "done"}
    before = {"point": "before_shift", "step": step + 1}
    said = data.get("hooks", {}).items()
    return not deployment.gates.after_shift or after.items() <= said or before.items() <= said


def _is_hooked_before(deployment: Deployment, data: Mapping[str, Any], step: int) -> bool:
    """Whether the hooks before this step, if there are any, have said yes."""
    done = {"point": "before_shift", "step": step, "status": "done"}
    return not deployment.gates.before_shift or done.items() <= data.get("hooks", {}).items()


def _paced(deployment: Deployment, elapsed: float) -> float:
    """The time that the pace of the looks follows: each of several steps has its share of those
    that an execution's history has room for.
    """
    return elapsed * len(strategy.steps(deployment))


def _since(shift: Mapping[str, Any], key: str, now: float, lasts: object) -> dict[str, Any]:
    """The shift with the moment since which something lasts, without it when it does not."""
    rest = {name: value for name, value in shift.items() if name != key}
    return {**rest, key: shift.get(key, now)} if lasts else rest


def _late(deployment: Deployment, look: Look, shift: Mapping[str, Any]) -> list[str]:
    """Hosts that still have the weights of before: they came up while the step was taken.

    Raises TrafficChanged for any other weights. A load balancer has one place, and is never late.
    """
    if changed := look.switched_after(shift.get("generation", 0)):
        raise TrafficChanged(
            f"{some(changed)}: switched by somebody else after this deployment had; left as it is"
        )
    wanted = weights_for(deployment.to_color, shift["percent"])
    before = strategy.before(deployment, shift["step"]) if deployment.on_hosts else []
    return differing(look.weights(), wanted, before)


def _check_health(
    deployment: Deployment,
    look: Look,
    data: Mapping[str, Any],
    shift: Mapping[str, Any],
    now: float,
) -> str:
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
        deadline=_gives_up_at(deployment, shift, now),
        max_failed_tasks=configuration.health.max_failed_tasks,
    )
    if verdict.status == "failed":
        raise IdleColorUnhealthy(f"{deployment.to_color}, under traffic: {verdict.reason}")
    return "" if verdict.status == "healthy" else verdict.reason


def _gives_up_at(deployment: Deployment, shift: Mapping[str, Any], now: float) -> float:
    """Until when what is missing since ``ill_since`` is waited for.

    A load balancer keeps requests from targets that do not answer, so what is missing of a colour
    has the rest of the step as well: looks at a long one are minutes apart, and two tasks that are
    started one after the other must not be taken for one that never answers. A host's proxy sends
    its requests to nobody else. Hosts that came late have a deadline of their own, which says so.
    """
    if "late_since" in shift:
        return math.inf
    since = shift.get("ill_since", now)
    if not deployment.on_hosts:
        since = max(since, shift["shifted_at"] + strategy.seconds(deployment, shift["step"]))
    return float(since + deployment.configuration.health.deadline_seconds)


def _prove(deployment: Deployment, shift: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The shift with ``proved_at`` once the load balancer was seen to follow, until then with what
    was ``seen`` of a part.

    All traffic on the new colour: the probe has to find it, so many times in a row. A part of it:
    both colours have to answer after the configured margin, as answers cannot tell one part from
    another. No probe: the margin alone. Raises SwitchNotProved.
    """
    configuration, percent = deployment.configuration, shift["percent"]
    probing, port = configuration.probe, configuration.router.probe_port
    elapsed = now - shift["shifted_at"]
    rest = {name: value for name, value in shift.items() if name != "seen"}
    if (probing is None or percent < 100) and elapsed < deployment.margin_seconds:
        return {**shift}
    if probing is None:
        return {**rest, "proved_at": now}
    if percent < 100:
        seen = probe.ask_both(deployment, probing, percent, port, probe.seen_before(shift))
        wrong = seen.wrong
        unproved = {**rest, "seen": {"colors": list(seen.colors), "answers": seen.answers}}
    else:
        wrong = probe.ask(deployment, probing, deployment.to_color, port)
        unproved = rest
    if wrong and elapsed >= max(probing.timeout_seconds, deployment.margin_seconds):
        raise SwitchNotProved(
            f"the weights are {show(weights_for(deployment.to_color, percent))}, but "
            f"{elapsed:.0f} s later the load balancer does not follow: {wrong}"
        )
    return unproved if wrong else {**rest, "proved_at": now}
