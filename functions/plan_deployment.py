"""State PlanDeployment: check everything, take the snapshot and the lock. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from bluegreen import (
    auto_scaling,
    capacity,
    capacity_provider,
    earlier,
    ecr,
    ecs,
    parameters,
    plan,
    preflight,
    scaling,
    scan,
    traffic,
    watch,
)
from bluegreen.announcement import Announcement
from bluegreen.color import Color
from bluegreen.compute import Group
from bluegreen.configuration import HostRouter, ServiceConfiguration, describe
from bluegreen.deployment import (
    NO_LOCK,
    Deployment,
    DeployRequest,
    Gates,
    Overrides,
    ServiceSnapshot,
    Snapshot,
)
from bluegreen.earlier import Earlier
from bluegreen.errors import DeploymentRefused, InvalidRequest, LockHeld
from bluegreen.look import Asked, asked_before
from bluegreen.pace import wait_seconds
from bluegreen.routers import Survey, hosts, listener
from bluegreen.store import Lock, Store
from bluegreen.task_definition import images_of, next_revision
from runtime import announcements, clients, executions, routers
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """``$.request`` is a DeployRequest; the answer is a Deployment, or ``decision`` "waiting" as
    long as hosts have not said what their traffic is, an image is not scanned, a push deploys the
    same images, or, for what a push asks for, another deployment runs. For a dry run
    it is ``decision`` "dry_run" with the ``plan`` (bluegreen/plan.py), and nothing is recorded.

    Raises InvalidRequest, InvalidConfiguration, DeploymentRefused, LockHeld.
    """
    store, now = invocation.store, invocation.now
    request = _request(invocation.data["request"])
    _check_who_asks(invocation, request)
    if not request.dry_run:
        store.open(
            invocation.execution_name,
            request.service,
            invocation.execution_arn,
            invocation.began,
            now,
            started_by=request.started_by,
            images=request.images,
        )
    configuration = parameters.read(
        clients.ssm(), invocation.settings.parameter_prefix, request.service
    )
    repeated = _repeated(store, request, configuration)
    images = {
        **(repeated.images if repeated else {}),
        **ecr.resolve_all(clients.ecr(), configuration, request.images),
    }
    try:
        # Looking takes no lock, so that a refusal, or nothing to do, disturbs nobody.
        seen = store.check_free(request.service, invocation.execution_arn, now)
        record = store.read(invocation.execution_name) if not request.dry_run else None
        services: dict[Color, Mapping[str, Any]] = {
            color: ecs.service(clients.ecs(), configuration.colors[color]) for color in Color
        }
        progress = _progress(invocation, seen)
        survey = _survey(invocation, configuration, services, progress)
        if isinstance(survey, Asked):
            return survey.waiting({**progress, "decision": "waiting"}, now)
        before = _Before(seen, record.deployment if record else None)
        planned = _plan(
            invocation, request, configuration, images, services, survey, before, repeated
        )
        if planned.deployment.decision == "deploy":
            _check_not_taken_back(store, planned.deployment, progress["behind"])
        missing = _missing_scan(planned.deployment, progress["since"], now)
        if request.dry_run:
            return {"decision": "dry_run", "plan": planned.document(missing)}
        if missing:
            left = {key: progress[key] for key in ("since", "seen", "behind")}
            return _waiting(left, missing, now)
        if planned.deployment.decision == "deploy":
            return _begin(invocation, planned.deployment, seen).document()
        return planned.deployment.document()
    except LockHeld as held:
        # Nobody is at hand to start what a push asks for once more.
        pushed = request.started_by.kind in ("push", "schedule")
        if request.dry_run or not (pushed or _is_being_pushed(store, request, images)):
            raise
        return _waiting(_progress_behind(invocation, store.lock(request.service)), str(held), now)


def _begin(invocation: Invocation, deployment: Deployment, seen: Lock | None) -> Deployment:
    """Take the lock and record the plan: from here on it can be undone. Raises LockHeld."""
    store, now = invocation.store, invocation.now
    fencing = store.acquire(deployment.service, deployment.id, invocation.execution_arn, now, seen)
    deployment = deployment.model_copy(update={"fencing": fencing})
    store.save_plan(deployment, "deploying")
    store.claim(deployment, now)
    announcements.tell(invocation.settings, Announcement.about(deployment, "started", now))
    return deployment


def _waiting(progress: Mapping[str, Any], reason: str, now: float) -> dict[str, Any]:
    """progress: what the next pass has to know."""
    return {
        **progress,
        "decision": "waiting",
        "reason": reason,
        "wait_seconds": wait_seconds(2, now - progress["since"]),
    }


def _is_being_pushed(store: Store, request: DeployRequest, images: Mapping[str, str]) -> bool:
    """Whether a push, or the schedule in its place, deploys just what is asked for by hand."""
    if request.started_by.kind != "hand" or request.overrides != Overrides() or not images:
        return False
    lock = store.lock(request.service)
    record = store.read(lock.deployment_id) if lock and lock.purpose == "deploy" else None
    if record is None:
        return False
    if record.deployment is None:
        # It took the lock a moment ago, and says what it deploys in the next one.
        return record.phase == "planning" and record.outcome is None
    return (
        record.deployment.started_by.kind in ("push", "schedule")
        and images.items() <= record.deployment.images.items()
    )


@dataclass(frozen=True)
class _Before:
    """What was before this attempt. lock: the service's lock as it was seen. plan: that of an
    earlier attempt of the same execution, which has changed the lock since.
    """

    lock: Lock | None
    plan: Deployment | None

    def kept_warm(self, color: Color) -> bool:
        """Whether a colour ran only for a rollback, which a new deployment makes impossible."""
        if self.plan:
            return self.plan.snapshot.services[color].desired_count == 0
        return self.lock is not None and self.lock.warm

    @property
    def changed_by(self) -> str | None:
        """The deployment that had changed the service last."""
        if self.plan:
            return self.plan.follows
        return self.lock.changed_by if self.lock else None


@dataclass(frozen=True)
class _Planned:
    """live: the task definition of what is live. revision: what would be registered, None when
    there is nothing to do. wanted: tasks to start.
    """

    deployment: Deployment
    live: Mapping[str, Any]
    revision: Mapping[str, Any] | None
    wanted: int

    def document(self, waits_for: str) -> dict[str, Any]:
        return plan.document(
            self.deployment,
            live=self.live,
            revision=self.revision,
            wanted=self.wanted,
            waits_for=waits_for,
        )


def _progress(invocation: Invocation, seen: Lock | None) -> dict[str, Any]:
    """What earlier passes have left: since when hosts, or a scan, are waited for, what the hosts
    were asked, and behind: the deployment whose lock was waited for before, None if none was.

    seen: the lock, which is free. If somebody has had it since they were asked, their answers are
    out of date; and what comes after a wait for the lock has all of its own time.
    """
    fencing = seen.fencing if seen else NO_LOCK
    before = invocation.data.get("deployment", {})
    if before.get("seen") == fencing:
        return {"behind": None, **before}
    return {"since": invocation.now, "seen": fencing, "behind": before.get("behind")}


def _progress_behind(invocation: Invocation, held: Lock | None) -> dict[str, Any]:
    """While somebody else has the lock: since when that is waited for, whoever has it, and behind
    which deployment.
    """
    before = invocation.data.get("deployment", {})
    # Whoever has seen the lock free has waited for something else.
    since = invocation.now if "seen" in before else before.get("since", invocation.now)
    return {"since": since, "behind": held.deployment_id if held else None}


def _check_not_taken_back(store: Store, deployment: Deployment, behind: str | None) -> None:
    """What was waited for may have been just this, and come to nothing: that is not to be repeated
    a moment later by itself.

    behind: the deployment that was waited for. It has no outcome while it is kept warm. Raises
    DeploymentRefused.
    """
    record = store.read(behind) if behind else None
    if record is None or record.deployment is None or record.outcome in (None, "succeeded"):
        return
    other = record.deployment
    same = deployment.images.items() <= other.images.items()
    if same and deployment.overrides == other.overrides:
        raise DeploymentRefused(
            f"deployment {record.id}, which was waited for, deployed the same and ended as "
            f"{record.outcome}: {record.reason}; start it by hand, again if need be, to deploy it "
            "nevertheless"
        )


def _missing_scan(deployment: Deployment, since: float, now: float) -> str:
    """Why the images cannot be judged by their scans yet, "" when they may be deployed.

    What a rollback leads to ran before: going back neither waits for its scan nor fails for it.
    Raises DeploymentRefused.
    """
    if deployment.decision != "deploy" or deployment.started_by.kind == "rollback":
        return ""
    return scan.missing(clients.ecr(), deployment.configuration, deployment.images, since, now)


def _survey(
    invocation: Invocation,
    configuration: ServiceConfiguration,
    services: Mapping[Color, Mapping[str, Any]],
    progress: Mapping[str, Any],
) -> Survey | Asked:
    """How the traffic is; Asked when the answer is there at the next pass only."""
    router = configuration.router
    if not isinstance(router, HostRouter):
        return routers.survey(configuration)
    tasks = {color: services[color]["taskDefinition"] for color in Color}
    hosts_router = routers.hosts(configuration, invocation.settings, tasks)
    look = hosts_router.look(asked_before(progress), invocation.now)
    if isinstance(look, Asked):
        return look
    unfit = look.unknown() or look.not_running()
    if unfit and invocation.now - progress["since"] < router.answer_seconds:
        # Ask again: they may still answer, or be booting.
        asked = hosts_router.look(None, invocation.now)
        assert isinstance(asked, Asked)
        return asked
    balancer = router.load_balancer
    dns = listener.find_dns(clients.elbv2(), balancer.name) if balancer else ""
    return hosts.survey(look, configuration, dns)


def _request(data: Any) -> DeployRequest:
    try:
        request = DeployRequest.model_validate(data)
    except ValidationError as error:
        raise InvalidRequest("the execution input:\n" + "\n".join(describe(error))) from error
    if not request.images and request.overrides == Overrides() and request.like is None:
        raise InvalidRequest(
            'nothing to deploy: give images ({"container": "tag"}), overrides, or both; '
            "or like, the deployment to repeat"
        )
    return request


def _check_who_asks(invocation: Invocation, request: DeployRequest) -> None:
    """What only a release or a rollback may ask for must come from one.

    Raises InvalidRequest; DeploymentRefused, when the release has ended.
    """
    kind, release = request.started_by.kind, request.release
    if kind == "rollback" and invocation.data.get("recovery", {}).get("direction") != "redeploy":
        raise InvalidRequest("started_by: rollback is what the action rollback says")
    if kind == "release" and release is None:
        raise InvalidRequest("started_by: release goes with release, the execution of one")
    if release is None:
        return
    releases = f"{invocation.settings.releases}:"
    if not invocation.settings.releases or not release.startswith(releases):
        raise InvalidRequest(f"release: {release!r} is no execution of a release ({releases}…)")
    if (status := executions.status(release)) != "RUNNING":
        raise DeploymentRefused(
            f"the release {release} {f'has ended ({status})' if status else 'is not there'}: "
            "nobody would say how this deployment ends"
        )


def _repeated(
    store: Store, request: DeployRequest, configuration: ServiceConfiguration
) -> Earlier | None:
    if request.like is None:
        return None
    return earlier.find(clients.ecs(), clients.ecr(), store, request.like, configuration)


def _plan(
    invocation: Invocation,
    request: DeployRequest,
    configuration: ServiceConfiguration,
    images: dict[str, str],
    services: dict[Color, Mapping[str, Any]],
    survey: Survey,
    before: _Before,
    repeated: Earlier | None,
) -> _Planned:
    preflight.check_services(configuration.colors, services, survey.target_groups)
    preflight.check_stickiness(survey.stickiness_seconds)
    from_color = traffic.live_color(survey.traffic)
    to_color = from_color.other if from_color else Color.BLUE
    live, tags = ecs.task_definition(
        clients.ecs(), services[from_color or to_color]["taskDefinition"]
    )
    groups = _groups(configuration)
    if groups:
        instances = {
            color: ecs.container_instances(clients.ecs(), configuration.colors[color].cluster)
            for color in Color
        }
        preflight.check_groups(groups, instances, services, _providers(services), from_color)
        for color in Color:
            slot = configuration.colors[color]
            preflight.check_alone(slot, ecs.other_services(clients.ecs(), slot))
    if before.kept_warm(to_color):
        services[to_color] = {**services[to_color], "desiredCount": 0}
        if groups:
            groups[to_color] = replace(groups[to_color], min_size=0, desired_capacity=0)
    deployment = Deployment(
        id=invocation.execution_name,
        service=request.service,
        execution_arn=invocation.execution_arn,
        fencing=NO_LOCK,
        decision=_decide(
            request,
            configuration,
            images,
            live,
            services[from_color] if from_color else None,
            repeated,
        ),
        started_at=invocation.now,
        configuration=configuration,
        from_color=from_color,
        to_color=to_color,
        images=images,
        overrides=request.overrides,
        location=survey.location,
        test_location=survey.test_location,
        load_balancer_dns=survey.load_balancer_dns,
        target_groups=survey.target_groups,
        stickiness_seconds=survey.stickiness_seconds,
        deregistration_seconds=survey.deregistration_seconds,
        snapshot=Snapshot(
            traffic=survey.traffic,
            test_traffic=survey.test_traffic,
            classic_listener=survey.classic_listener,
            services={
                color: _snapshot(configuration, color, services[color], groups.get(color))
                for color in Color
            },
        ),
        follows=before.changed_by,
        base=repeated.arn if repeated else "",
        gates=Gates.of(configuration),
        skip_bake=request.skip_bake,
        release=request.release,
        started_by=request.started_by,
    )
    wanted = survey.tasks_for(deployment.wanted_count(services[from_color] if from_color else None))
    if deployment.decision == "nothing_to_do":
        return _Planned(deployment, live, None, wanted)
    revision = next_revision(
        repeated.definition if repeated else live,
        repeated.tags if repeated else tags,
        deployment_id=deployment.id,
        images=deployment.images,
        environment=deployment.environment(),
        host_port=configuration.colors[to_color].host_port,
        cpu=deployment.overrides.cpu,
        memory=deployment.overrides.memory,
    )
    _check_capacity(deployment, services[to_color], revision, wanted)
    known_bad = _known_bad(invocation, deployment)
    return _Planned(deployment.model_copy(update={"known_bad": known_bad}), live, revision, wanted)


def _known_bad(invocation: Invocation, deployment: Deployment) -> list[str]:
    """Alarms and alerts that are on already, where that is no reason not to begin.

    To go back is often the answer to them. Raises DeploymentRefused.
    """
    if deployment.skip_bake:
        return []
    bad = watch.bad_at_start(deployment.configuration, invocation.settings, invocation.now)
    going_back = deployment.started_by.kind == "rollback"
    if bad and deployment.configuration.bake.at_start == "refuse" and not going_back:
        raise DeploymentRefused(
            f"on, or not to be read, before anything was changed: {', '.join(bad)}; see to it "
            "first, or deploy with skip_bake, or set bake.at_start to warn"
        )
    return bad


def _decide(
    request: DeployRequest,
    configuration: ServiceConfiguration,
    images: Mapping[str, str],
    live: Mapping[str, Any],
    service: Mapping[str, Any] | None,
    repeated: Earlier | None,
) -> Literal["deploy", "nothing_to_do"]:
    """nothing_to_do when just these images run live already and nothing else is asked for."""
    same = images.items() <= images_of(live).items() and bool(images)
    if repeated and repeated.arn != live["taskDefinitionArn"]:
        same = False
    running = service is not None and service["runningCount"] > 0
    changes = request.overrides != Overrides() or _environment_differs(configuration, live)
    return "nothing_to_do" if same and running and not changes else "deploy"


def _environment_differs(configuration: ServiceConfiguration, live: Mapping[str, Any]) -> bool:
    """Whether a variable of the service configuration has another value live.

    Those with a placeholder have another one at every deployment.
    """
    found = {
        container["name"]: {one["name"]: one["value"] for one in container.get("environment", [])}
        for container in live["containerDefinitions"]
    }
    return any(
        "{" not in value and found.get(container.name, {}).get(name) != value
        for container in configuration.containers
        for name, value in container.environment.items()
    )


def _groups(configuration: ServiceConfiguration) -> dict[Color, Group]:
    """The Auto Scaling groups of the colours' hosts; none where these are shared."""
    names = {color: configuration.colors[color].auto_scaling_group for color in Color}
    return {
        color: auto_scaling.read(clients.autoscaling(), name)
        for color, name in names.items()
        if name
    }


def _providers(services: Mapping[Color, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The capacity providers of both services, by name."""
    names = {name for one in services.values() for name in capacity_provider.names_of(one)}
    return ecs.capacity_providers(clients.ecs(), names)


def _snapshot(
    configuration: ServiceConfiguration,
    color: Color,
    service: Mapping[str, Any],
    group: Group | None,
) -> ServiceSnapshot:
    return ServiceSnapshot(
        task_definition=service["taskDefinition"],
        desired_count=service["desiredCount"],
        running_count=service["runningCount"],
        scaling=scaling.read(clients.application_autoscaling(), configuration.colors[color]),
        group=auto_scaling.snapshot(group) if group else None,
    )


def _check_capacity(
    deployment: Deployment, idle: Mapping[str, Any], revision: Mapping[str, Any], wanted: int
) -> None:
    """For services on EC2 that share their hosts; Fargate, managed scaling and a colour's own group
    bring their capacity.
    """
    slot = deployment.configuration.colors[deployment.to_color]
    if slot.auto_scaling_group:
        return
    if idle.get("launchType") != "EC2" or idle.get("capacityProviderStrategy"):
        return
    preflight.check_capacity(
        ecs.container_instances(clients.ecs(), slot.cluster),
        capacity.needs_of(revision),
        wanted=wanted,
        leftovers=len(ecs.not_stopped(ecs.tasks(clients.ecs(), slot))),
    )
