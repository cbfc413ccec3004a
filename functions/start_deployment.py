"""StartDeployment: from a push to ECR to one deployment a service.

Invoked by EventBridge with every push (``ECR Image Action``) and when a deployment has ended, and
by a schedule that looks for what no event told: ECR sends its events on a best effort basis. What
follows from what is decided in bluegreen/trigger.py and kept by bluegreen/pushes.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from bluegreen import ecr, ecs, parameters, pushes, trigger
from bluegreen.announcement import Announcement
from bluegreen.color import Color
from bluegreen.configuration import HostRouter, ServiceConfiguration
from bluegreen.deployment import StartedBy
from bluegreen.errors import AwsUnavailable, BlueGreenError, DeploymentRefused, InvalidConfiguration
from bluegreen.pushes import NeverStarted, Pushes, Wish
from bluegreen.store import Store
from bluegreen.task_definition import images_of
from bluegreen.trigger import ExecutionEnded, Facts, Ignored, ImagePush, LiveImages, Look
from runtime import announcements, clients, routers
from runtime.invocation import logger, translating_aws_errors
from runtime.settings import Settings

# How often somebody else may be quicker with the same item; and how many steps a look may take.
_ATTEMPTS = 20
# A deployment that has an image has not been started long before the image was pushed.
_CLOCK_SECONDS = 60
_HISTORY = 500
# How often there is a look at all services, and what the last one of them may take.
_LOOK_SECONDS = 300
_SPARE_MILLISECONDS = 10_000


class Context(Protocol):
    """https://docs.aws.amazon.com/lambda/latest/dg/python-context.html"""

    def get_remaining_time_in_millis(self) -> int:
        """How long this invocation may still take."""
        ...


def handler(event: Any, context: Context) -> dict[str, Any]:
    """Answers ``{"started": [deployment ids], "waiting": […], "superseded": […], "refused": […],
    "ignored": why}``.

    refused: what would only have repeated what has just come to nothing. ignored is there when the
    event leads to nothing. Raises InvalidEvent for one that is not as it should be; and, when all
    services are done, the errors of those with which it did not work.
    """
    asked = trigger.read(event)
    settings = Settings.from_env(os.environ)
    store = Store(clients.dynamodb(), settings.table, settings.lease_seconds)
    desk = _Desk(settings, store, time.time(), context)
    translating_aws_errors(lambda: _answer(desk, asked))
    answer = desk.answer()
    logger().info("answered", extra={"answer": answer})
    desk.raise_failures()
    return answer


@dataclass
class _Desk:
    """One invocation. now: epoch seconds, read once. failures: what went wrong."""

    settings: Settings
    store: Store
    now: float
    context: Context
    started: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    failures: list[BlueGreenError] = field(default_factory=list)

    @property
    def home(self) -> str:
        """``account/region`` of the deployer."""
        _, _, _, region, account, *_ = self.settings.state_machine_arn.split(":")
        return f"{account}/{region}"

    def attempt(self, service: str, work: Callable[[], None]) -> None:
        """Do the work for a service. That it fails keeps no other service from its own."""
        try:
            translating_aws_errors(work)
        except BlueGreenError as error:
            logger().exception("cannot start deployments", extra={"of": service})
            self.failures.append(type(error)(f"service {service}: {error}"))

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "started": self.started,
            "waiting": self.waiting,
            "superseded": self.superseded,
            "refused": self.refused,
        }
        nothing = not any(found.values()) and self.ignored
        return found | ({"ignored": "; ".join(self.ignored)} if nothing else {})

    def raise_failures(self) -> None:
        """Raise all as one error: AwsUnavailable, if trying again may help with any."""
        if not self.failures:
            return
        passing = [one for one in self.failures if isinstance(one, AwsUnavailable)]
        [first, *_] = passing or self.failures
        raise type(first)("\n".join(str(one) for one in self.failures))


def _answer(desk: _Desk, asked: ImagePush | ExecutionEnded | Look | Ignored) -> None:
    match asked:
        case Ignored(why):
            desk.ignored.append(why)
        case ExecutionEnded():
            _after(desk, asked)
        case ImagePush():
            _deploy(desk, asked)
        case Look():
            _catch_up(desk)


def _deploy(desk: _Desk, push: ImagePush) -> None:
    """Start, or let wait, what a push is for."""
    found, problems = _configurations(desk)
    for problem in problems:
        # Whether the push was for it cannot be known; the schedule fails with it.
        logger().error("a service configuration is wrong", extra={"reason": problem})
    concerned = {
        one.service: (one, containers)
        for one in found
        if (containers := trigger.concerns(one, push.source, push.tag, desk.home))
    }
    if not concerned:
        desk.ignored.append(f"no service is triggered by {push.tag} of {push.source}")
    for service, (configuration, containers) in concerned.items():

        def work(
            configuration: ServiceConfiguration = configuration,
            containers: Sequence[str] = tuple(containers),
        ) -> None:
            _ask(desk, configuration, push, containers)
            _settle(desk, configuration.service)

        desk.attempt(service, work)


def _after(desk: _Desk, ended: ExecutionEnded) -> None:
    """Start what waited for an execution."""
    if ended.machine_arn != desk.settings.state_machine_arn:
        desk.ignored.append(f"{ended.machine_arn} deploys nothing of ours")
        return
    service = _service_of(desk, ended)
    if service is None:
        desk.ignored.append(f"execution {ended.name} was about no deployment that is known")
        return
    desk.attempt(service, lambda: _settle(desk, service))


def _service_of(desk: _Desk, ended: ExecutionEnded) -> str | None:
    """The service that an execution was about: a deployment's own, or one that looked after it."""
    for deployment_id in (ended.name, ended.deployment_id):
        record = desk.store.read(deployment_id) if deployment_id else None
        if record:
            return record.service
    return ended.service


def _catch_up(desk: _Desk) -> None:
    """Find the pushes of which no event told, and start what waits."""
    found, problems = _configurations(desk)
    desk.failures += [InvalidConfiguration(problem) for problem in problems]
    triggered = [one for one in found if one.trigger]
    # When there is no time for all of them, the next look begins with another one.
    first = int(desk.now // _LOOK_SECONDS) % max(1, len(triggered))
    ordered = [*triggered[first:], *triggered[:first]]
    for number, one in enumerate(ordered):
        if desk.context.get_remaining_time_in_millis() < _SPARE_MILLISECONDS:
            left = [left.service for left in ordered[number:]]
            logger().warning("no time left, the next look begins elsewhere", extra={"left": left})
            break

        def work(configuration: ServiceConfiguration = one) -> None:
            _catch_up_one(desk, configuration)

        desk.attempt(one.service, work)


def _catch_up_one(desk: _Desk, configuration: ServiceConfiguration) -> None:
    service = configuration.service
    # What waits does not need to be looked at, and must not wait for what cannot be.
    _settle(desk, service)
    sources: dict[str, list[str]] = {}
    for container in configuration.containers:
        if source := trigger.source_of(container.repository, desk.home):
            sources.setdefault(source, []).append(container.name)
    definitions = _live_definitions(configuration, desk.now) if sources else []
    asked = False
    for source, containers in sources.items():
        repository = trigger.repository_of(source)
        images = ecr.tagged_images(clients.ecr(), repository)
        current, _ = pushes.read(clients.dynamodb(), desk.settings.table, service)
        live = _live_images(desk, configuration, definitions, source)
        deployed = _deployed(desk, service, images)
        missed = trigger.overdue(configuration, source, images, live, current, deployed)
        if missed:
            logger().warning("no event told of a push", extra={"push": missed})
            asked |= _ask(desk, configuration, missed, containers)
    if asked:
        _settle(desk, service)


def _configurations(desk: _Desk) -> tuple[list[ServiceConfiguration], list[str]]:
    return parameters.configurations(clients.ssm(), desk.settings.parameter_prefix)


def _live_definitions(configuration: ServiceConfiguration, now: float) -> list[dict[str, Any]]:
    """The task definitions that have traffic."""
    try:
        colors = routers.live(configuration, now)
    except DeploymentRefused:
        # Hosts were told nothing yet; with a load balancer there is something to be put right.
        if not isinstance(configuration.router, HostRouter):
            raise
        colors = set()
    client = clients.ecs()
    return [
        ecs.task_definition(client, ecs.service(client, slot)["taskDefinition"])[0]
        for slot in (configuration.colors[color] for color in Color if color in colors)
    ]


def _live_images(
    desk: _Desk,
    configuration: ServiceConfiguration,
    definitions: Sequence[Mapping[str, Any]],
    source: str,
) -> LiveImages:
    """What of a repository is live. A task definition that names a tag, as the first one may, does
    not say which image it runs: none that was pushed after it was registered.
    """
    containers = trigger.containers_of(configuration, source, desk.home)
    repository = trigger.repository_of(source)
    digests, since = set(), trigger.NOTHING_LIVE.since
    for definition in definitions:
        for container, image in images_of(definition).items():
            if container not in containers:
                continue
            digest = image.partition("@")[2]
            if digest:
                digests.add(digest)
                pushed_at = ecr.pushed_at(clients.ecr(), repository, digest)
            else:
                registered = definition.get("registeredAt")
                pushed_at = registered.timestamp() if registered else None
            # Of what is not known the date, anything is newer: it was not deployed by a push.
            since = max(since, pushed_at or since)
    return LiveImages(frozenset(digests), since)


def _deployed(desk: _Desk, service: str, images: Sequence[ecr.TaggedImage]) -> dict[str, float]:
    """Digest → when it was deployed last, of the images that could be."""
    since = min((one.pushed_at for one in images), default=desk.now) - _CLOCK_SECONDS
    summaries = desk.store.history(service, since=since, until=desk.now, limit=_HISTORY)
    return {
        image.partition("@")[2]: one.started_at
        for one in reversed(summaries)
        for image in one.images.values()
        if "@" in image
    }


def _ask(
    desk: _Desk, configuration: ServiceConfiguration, push: ImagePush, containers: Sequence[str]
) -> bool:
    """Keep what a push asks for; whether there is something new to start.

    The tag is looked at after the item was read, so that of two invocations at once the one that
    saw the older image does not come to write.
    """
    repository = trigger.repository_of(push.source)
    for _ in range(_ATTEMPTS):
        current, version = _read(desk, configuration.service)
        image = ecr.tagged(clients.ecr(), repository, push.tag)
        there = (image is not None and image.digest == push.digest) or (
            ecr.pushed_at(clients.ecr(), repository, push.digest) is not None
        )
        answer = trigger.ask(current, push, image, configuration, containers, desk.now, there=there)
        if answer.wish == "none":
            desk.ignored.append(f"service {configuration.service}: {answer.reason}")
        if answer.wish == "none" or _write(desk, answer.pushes, version):
            logger().info(answer.reason, extra={"of": configuration.service, "wish": answer.wish})
            return answer.wish == "new"
    raise _too_busy(configuration.service)


def _settle(desk: _Desk, service: str) -> None:
    """Start what waits for a service if it can be, and record what will never be."""
    for _ in range(_ATTEMPTS):
        current, version = _read(desk, service)
        step = trigger.next_step(current, _facts(desk, current), desk.now)
        if step.do == "start":
            assert current.claimed
            _start(desk, current, current.claimed)
            _write(desk, step.pushes, version)
        elif step.do == "write":
            _write(desk, step.pushes, version)
        else:
            if current.waiting:
                desk.waiting.append(current.waiting.id)
                logger().info(step.reason, extra={"of": service, "wish": current.waiting.id})
            break
    else:
        raise _too_busy(service)
    _record(desk, service)


def _facts(desk: _Desk, current: Pushes) -> Facts:
    """The lock is read after the execution: one that has been planned by then has had it. Who had
    it last is read after the lock, which is given back once the outcome is written.
    """
    claimed = _claimed(desk, current)
    lock = desk.store.lock(current.service)
    last = desk.store.read(lock.deployment_id) if lock and current.waiting else None
    return replace(claimed, lock=lock, last=last)


def _claimed(desk: _Desk, current: Pushes) -> Facts:
    """What there is to say of the claimed wish."""
    if current.claimed is None:
        return Facts()
    client = clients.stepfunctions()
    try:
        found = client.describe_execution(executionArn=_execution_arn(desk, current.claimed.id))
    except client.exceptions.ExecutionDoesNotExist:
        return Facts(trigger.unknown(current, desk.now))
    record = desk.store.read(current.claimed.id)
    return Facts(
        execution="running" if found["status"] == "RUNNING" else "ended",
        error=found.get("error", ""),
        planned=record is not None and record.deployment is not None,
    )


def _start(desk: _Desk, current: Pushes, wish: Wish) -> None:
    client = clients.stepfunctions()
    try:
        client.start_execution(
            stateMachineArn=desk.settings.state_machine_arn,
            name=wish.id,
            input=trigger.request(current, wish),
        )
    except client.exceptions.ExecutionAlreadyExists:
        return
    desk.started.append(wish.id)
    logger().info("started", extra={"of": current.service, "wish": wish.id})


def _record(desk: _Desk, service: str) -> None:
    """Write down what was never started, and have people told; repeated until it has worked."""
    for _ in range(_ATTEMPTS):
        current, version = _read(desk, service)
        if not current.superseded:
            return
        for one in current.superseded:
            _record_one(desk, service, one)
        if _write(desk, current.model_copy(update={"superseded": []}), version):
            for one in current.superseded:
                told = desk.superseded if one.outcome == "superseded" else desk.refused
                told.append(one.wish.id)
            return
    raise _too_busy(service)


def _record_one(desk: _Desk, service: str, one: NeverStarted) -> None:
    wish = one.wish
    kept = desk.settings.history_days * 86_400
    started_by = StartedBy(kind=wish.kind, detail=wish.tag)
    desk.store.never_started(
        wish.id,
        service,
        wish.images,
        started_by,
        one.outcome,
        by=one.by,
        reason=one.reason,
        at=wish.asked_at,
        expires_at=wish.asked_at + kept if kept else None,
    )
    announcements.tell(
        desk.settings,
        Announcement(
            kind="superseded" if one.outcome == "superseded" else "failed",
            step="" if one.outcome == "superseded" else one.outcome,
            deployment_id=wish.id,
            service=service,
            at=wish.asked_at,
            reason=one.reason,
            outcome=one.outcome,
            images=wish.images,
            started_by=started_by,
            # It has no execution itself.
            execution_arn=_execution_arn(desk, one.by) if one.by else "",
            slack=wish.slack,
        ),
    )


def _execution_arn(desk: _Desk, deployment_id: str) -> str:
    machine = desk.settings.state_machine_arn
    return f"{machine.replace(':stateMachine:', ':execution:', 1)}:{deployment_id}"


def _read(desk: _Desk, service: str) -> tuple[Pushes, int]:
    return pushes.read(clients.dynamodb(), desk.settings.table, service)


def _write(desk: _Desk, changed: Pushes, version: int) -> bool:
    return pushes.write(clients.dynamodb(), desk.settings.table, changed, version)


def _too_busy(service: str) -> AwsUnavailable:
    return AwsUnavailable(
        f"the pushes of service {service} were changed by others {_ATTEMPTS} times while they were "
        "looked at; the next look goes on"
    )
