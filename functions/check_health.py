"""State CheckHealth: is the idle colour ready for traffic?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bluegreen import health, observe, probe
from bluegreen.deployment import parse
from bluegreen.errors import IdleColorUnhealthy
from bluegreen.look import Asked, asked_before
from bluegreen.pace import wait_seconds
from runtime import clients, routers
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``status`` "healthy", "waiting", or "outgrown" when the live colour has scaled out
    meanwhile (StartIdleColor follows it), with the reason.

    It is asked as long as the idle colour has no traffic; then CheckBake looks. Raises
    IdleColorUnhealthy when it is given up.
    """
    deployment = parse(invocation.data)
    invocation.store.prove(deployment, invocation.now)
    configuration = deployment.configuration
    started, progress = invocation.data["idle"], invocation.data.get("health", {})
    counted = _counted(invocation.data, invocation.now)
    since = counted.get("since", started["started_at"])
    router = routers.of(deployment, invocation.settings, invocation.data)
    look = router.look(asked_before(progress), invocation.now)
    if isinstance(look, Asked):
        return look.waiting({**progress, **counted}, invocation.now)
    facts = observe.color_health(
        clients.ecs(),
        clients.logs(),
        look,
        deployment,
        deployment.to_color,
        invocation.data,
    )
    # A load balancer without a healthy target fails open, and a probe would pass: targets first.
    if not health.what_is_missing(facts) and configuration.probe and configuration.router.test_port:
        answer = probe.ask(
            deployment, configuration.probe, deployment.to_color, configuration.router.test_port
        )
        facts = replace(facts, probe=answer)
    deadline = since + configuration.health.deadline_seconds
    verdict = health.decide(
        facts,
        now=invocation.now,
        deadline=deadline,
        max_failed_tasks=configuration.health.max_failed_tasks,
    )
    if verdict.status == "failed":
        raise IdleColorUnhealthy(f"{deployment.to_color}: {verdict.reason}")
    if verdict.status == "healthy" and (
        more := observe.outgrown(clients.ecs(), deployment, look, invocation.data)
    ):
        return {**counted, "status": "outgrown", "reason": more}
    return {
        **counted,
        "status": verdict.status,
        "reason": verdict.reason,
        "wait_seconds": wait_seconds(configuration.health.interval_seconds, invocation.now - since),
    }


def _counted(data: Mapping[str, Any], now: float) -> dict[str, Any]:
    """From when on the deadline counts, if not from the start: what was waited for while the colour
    was healthy (tests, a person's approval, hooks) is none of its time.

    since: the first look after that.
    """
    before = data.get("health", {})
    if before.get("status") != "healthy" and "since" not in before:
        return {}
    counted = now if before.get("status") == "healthy" else before["since"]
    # What was started later, to follow the live colour, has the whole time.
    return {"since": max(counted, data["idle"]["started_at"])}
