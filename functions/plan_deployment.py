"""State PlanDeployment: check everything, take the snapshot and the lock. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from bluegreen import capacity, ecr, ecs, preflight, scaling, traffic
from bluegreen.color import Color
from bluegreen.configuration import ServiceConfiguration, describe, load
from bluegreen.deployment import (
    NO_LOCK,
    Deployment,
    DeployRequest,
    Overrides,
    ServiceSnapshot,
    Snapshot,
)
from bluegreen.errors import (
    DeploymentRefused,
    InvalidConfiguration,
    InvalidRequest,
    TrafficChanged,
)
from bluegreen.image import parse as parse_image
from bluegreen.routers import alb
from bluegreen.store import Lock
from bluegreen.task_definition import images_of, next_revision
from runtime import clients
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """``$.request`` is a DeployRequest; the answer is a Deployment.

    Raises InvalidRequest, InvalidConfiguration, DeploymentRefused, LockHeld.
    """
    store, now = invocation.store, invocation.now
    request = _request(invocation.data["request"])
    store.open(
        invocation.execution_name,
        request.service,
        invocation.execution_arn,
        invocation.began,
        now,
    )
    configuration = _configuration(request.service, invocation.settings.parameter_prefix)
    images = _images(configuration, request.images)
    # Looking takes no lock, so that a refusal, or nothing to do, disturbs nobody.
    seen = store.check_free(request.service, invocation.execution_arn, now)
    record = store.read(invocation.execution_name)
    earlier = record.deployment if record else None
    deployment = _plan(invocation, request, configuration, images, seen, earlier)
    if deployment.decision == "deploy":
        fencing = store.acquire(
            request.service, invocation.execution_name, invocation.execution_arn, now, seen
        )
        deployment = deployment.model_copy(update={"fencing": fencing})
        store.save_plan(deployment, "deploying")
        store.claim(deployment, now)
    return deployment.document()


def _request(data: Any) -> DeployRequest:
    try:
        request = DeployRequest.model_validate(data)
    except ValidationError as error:
        raise InvalidRequest("the execution input:\n" + "\n".join(describe(error))) from error
    if not request.images and request.overrides == Overrides():
        raise InvalidRequest(
            'nothing to deploy: give images ({"container": "tag"}), overrides, or both'
        )
    return request


def _configuration(service: str, prefix: str) -> ServiceConfiguration:
    name = f"{prefix}/{service}"
    client = clients.ssm()
    try:
        text = client.get_parameter(Name=name)["Parameter"]["Value"]
    except client.exceptions.ParameterNotFound as error:
        raise InvalidConfiguration(
            f"there is no service {service!r}: SSM parameter {name} does not exist; "
            "store the service configuration there"
        ) from error
    configuration = load(text, f"SSM parameter {name}")
    if configuration.service != service:
        raise InvalidConfiguration(
            f"SSM parameter {name}: service is {configuration.service!r}, not {service!r}"
        )
    return configuration


def _images(configuration: ServiceConfiguration, requested: Mapping[str, str]) -> dict[str, str]:
    known = {container.name: container.repository for container in configuration.containers}
    if unknown := sorted(set(requested) - set(known)):
        raise InvalidRequest(
            f"images: no container {', '.join(unknown)} in the service configuration "
            f"(it has {', '.join(known)})"
        )
    return {
        name: ecr.resolve(clients.ecr(), name, known[name], parse_image(name, known[name], image))
        for name, image in requested.items()
    }


def _plan(
    invocation: Invocation,
    request: DeployRequest,
    configuration: ServiceConfiguration,
    images: dict[str, str],
    seen: Lock | None,
    earlier: Deployment | None,
) -> Deployment:
    """seen: the service's lock. earlier: the plan of an earlier attempt of the same execution,
    which has changed the lock since.
    """
    elbv2 = clients.elbv2()
    colors = configuration.colors
    groups = {color: alb.find_target_group(elbv2, colors[color]) for color in Color}
    services: dict[Color, Mapping[str, Any]] = {
        color: ecs.service(clients.ecs(), colors[color]) for color in Color
    }
    preflight.check_services(colors, services, groups)
    found = alb.find(elbv2, configuration.router)
    try:
        weights = alb.read(elbv2, found.location, groups)
        test_weights = alb.read(elbv2, found.test_location, groups) if found.test_location else None
    except TrafficChanged as error:
        raise DeploymentRefused(str(error)) from error
    alb.check_groups(weights, test_weights)
    stickiness = alb.read_stickiness(elbv2, found.location)
    preflight.check_stickiness(stickiness)
    from_color = traffic.live_color(weights)
    to_color = from_color.other if from_color else Color.BLUE
    live, tags = ecs.task_definition(
        clients.ecs(), services[from_color or to_color]["taskDefinition"]
    )
    was_warm = (
        earlier.snapshot.services[to_color].desired_count == 0
        if earlier
        else seen is not None and seen.warm
    )
    if was_warm:
        # Kept for a rollback that this deployment makes impossible: nothing to come back to.
        services[to_color] = {**services[to_color], "desiredCount": 0}
    deployment = Deployment(
        id=invocation.execution_name,
        service=request.service,
        execution_arn=invocation.execution_arn,
        fencing=NO_LOCK,
        decision=_decide(
            request, configuration, images, live, services[from_color] if from_color else None
        ),
        started_at=invocation.now,
        configuration=configuration,
        from_color=from_color,
        to_color=to_color,
        images=images,
        overrides=request.overrides,
        location=found.location,
        test_location=found.test_location,
        load_balancer_dns=found.dns,
        target_groups=groups,
        stickiness_seconds=stickiness,
        deregistration_seconds=max(
            alb.read_deregistration_delay(elbv2, arn) for arn in groups.values()
        ),
        snapshot=Snapshot(
            traffic=weights,
            test_traffic=test_weights,
            services={color: _snapshot(configuration, color, services[color]) for color in Color},
        ),
        follows=earlier.follows if earlier else seen.changed_by if seen else None,
    )
    if deployment.decision == "deploy":
        _check_capacity(deployment, services, live, tags)
    return deployment


def _decide(
    request: DeployRequest,
    configuration: ServiceConfiguration,
    images: Mapping[str, str],
    live: Mapping[str, Any],
    service: Mapping[str, Any] | None,
) -> Literal["deploy", "nothing_to_do"]:
    """nothing_to_do when just these images run live already and nothing else is asked for."""
    same = images.items() <= images_of(live).items() and bool(images)
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


def _snapshot(
    configuration: ServiceConfiguration, color: Color, service: Mapping[str, Any]
) -> ServiceSnapshot:
    return ServiceSnapshot(
        task_definition=service["taskDefinition"],
        desired_count=service["desiredCount"],
        running_count=service["runningCount"],
        scaling=scaling.read(clients.application_autoscaling(), configuration.colors[color]),
    )


def _check_capacity(
    deployment: Deployment,
    services: Mapping[Color, Mapping[str, Any]],
    live: Mapping[str, Any],
    tags: list[dict[str, str]],
) -> None:
    """For services on EC2; Fargate and managed scaling bring their own capacity."""
    slot = deployment.configuration.colors[deployment.to_color]
    idle = services[deployment.to_color]
    revision = next_revision(
        live,
        tags,
        deployment_id=deployment.id,
        images=deployment.images,
        environment=deployment.environment(),
        host_port=slot.host_port,
        cpu=deployment.overrides.cpu,
        memory=deployment.overrides.memory,
    )
    if idle.get("launchType") != "EC2" or idle.get("capacityProviderStrategy"):
        return
    preflight.check_capacity(
        ecs.container_instances(clients.ecs(), slot.cluster),
        capacity.needs_of(revision),
        wanted=deployment.wanted_count(
            services[deployment.from_color] if deployment.from_color else None
        ),
        leftovers=len(ecs.not_stopped(ecs.tasks(clients.ecs(), slot))),
    )
