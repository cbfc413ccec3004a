"""What a deployment or a rollback would do, for a dry run. Pure; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bluegreen import strategy
from bluegreen.configuration import HookPoint, ServiceConfiguration
from bluegreen.deployment import Deployment
from bluegreen.task_definition import images_of, next_revision
from bluegreen.traffic import Weights, show, weights_for

# Variables and the options of log drivers may be secrets: that they differ is said, and no more.
_HIDDEN_KEYS = frozenset({"environment", "options"})
_HIDDEN = "(not shown)"
# By these the entries of a list are the same one in two task definitions.
_NAMES = ("name", "key", "containerPort", "sourceVolume", "containerName")


def document(
    deployment: Deployment,
    *,
    live: Mapping[str, Any],
    revision: Mapping[str, Any] | None,
    wanted: int,
    waits_for: str = "",
) -> dict[str, Any]:
    """The plan of a deployment: service, from_color, to_color, images (container → from, to),
    task_definition (path, before, after of what differs), traffic (before; steps with weights and
    seconds) and changes, in their order.

    live: ``taskDefinition`` of DescribeTaskDefinition; revision: what would be registered, None
    when there is nothing to do; wanted: tasks to start; waits_for: what is not there yet.
    """
    before = images_of(live)
    after = images_of(revision) if revision else before
    names = [container.name for container in deployment.configuration.containers]
    steps = strategy.steps(deployment) if revision else []
    return {
        "service": deployment.service,
        "from_color": deployment.from_color,
        "to_color": deployment.to_color,
        "images": {
            name: {"from": before.get(name), "to": after.get(name)}
            for name in names
            if name in before or name in after
        },
        "task_definition": differences(live, revision) if revision else [],
        "traffic": {
            "before": deployment.snapshot.traffic,
            "steps": [
                {
                    "weights": weights_for(deployment.to_color, percent),
                    "seconds": strategy.seconds(deployment, number),
                }
                for number, percent in enumerate(steps)
            ],
        },
        "changes": [*_changes(deployment, str(live["family"]), steps, wanted, waits_for)]
        if revision
        else ["nothing: this is what is live already"],
    }


def undo(
    deployment: Deployment, warm_images: Mapping[str, str], intents: Sequence[Weights]
) -> dict[str, Any]:
    """The plan of a rollback that puts a snapshot back, in the shape of document().

    warm_images: container → image of what was live before. intents: the weights that were set.
    """
    old, new = deployment.from_color, deployment.to_color
    before = deployment.snapshot.services
    slots = deployment.configuration.colors
    changes = []
    if old:
        changes.append(
            f"ECS service {slots[old].ecs_service}: {before[old].running_count} tasks of "
            f"{before[old].task_definition}, if they do not run any more"
        )
    changes += [
        f"traffic: {show(deployment.snapshot.traffic)}",
        f"ECS service {slots[new].ecs_service}: desired count {before[new].desired_count}, "
        f"{before[new].task_definition}",
        "scaling, hosts and the test listener as they were before the deployment",
    ]
    return {
        "service": deployment.service,
        "from_color": new,
        "to_color": old,
        "images": {
            name: {"from": image, "to": warm_images.get(name)}
            for name, image in deployment.images.items()
        },
        "task_definition": [],
        "traffic": {
            "before": intents[-1] if intents else deployment.snapshot.traffic,
            "steps": [{"weights": deployment.snapshot.traffic, "seconds": 0}],
        },
        "changes": changes,
    }


def differences(live: Mapping[str, Any], revision: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What differs between two task definitions: ``path``, ``before`` and ``after``, None where it
    is not there. Tags are left out, and values that may be secrets are not shown.
    """
    same = next_revision(live, [], deployment_id="", images={}, environment={})
    before = dict(_leaves({key: one for key, one in same.items() if key != "tags"}))
    after = dict(_leaves({key: one for key, one in revision.items() if key != "tags"}))
    return [
        {
            "path": ".".join(path),
            "before": _shown(path, before.get(path)),
            "after": _shown(path, after.get(path)),
        }
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    ]


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value with the keys that lead to it; entries of a list by their name."""
    if isinstance(value, Mapping):
        if path[-2:-1] == ("environment",) and set(value) <= {"name", "value"}:
            yield path, value.get("value")
            return
        for key, one in value.items():
            yield from _leaves(one, (*path, key))
    elif isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        for number, one in enumerate(value):
            name = next((str(one[key]) for key in _NAMES if one.get(key)), str(number))
            yield from _leaves(one, (*path, name))
    else:
        yield path, value


def _shown(path: tuple[str, ...], value: Any) -> Any:
    return _HIDDEN if value is not None and _HIDDEN_KEYS & set(path) else value


def _changes(
    deployment: Deployment, family: str, steps: Sequence[int], wanted: int, waits_for: str
) -> Iterator[str]:
    """One sentence for every change, in the order in which they are made."""
    configuration, new = deployment.configuration, deployment.to_color
    if waits_for:
        yield f"wait: {waits_for}"
    yield "lock of the service taken, snapshot recorded"
    for one in deployment.known_bad:
        yield f"warning: {one} is on already, and counts once it has been off"
    yield from _asked(configuration, "before_deployment")
    yield f"RegisterTaskDefinition: a new revision of {family}"
    if migration := configuration.migration:
        yield (
            f"RunTask: container {migration.container} of the new revision once, as a migration, "
            f"{migration.timeout_seconds} s at most"
        )
    yield from _start(deployment, wanted)
    yield from _asked(configuration, "idle_healthy")
    if approval := configuration.approval:
        yield (
            f"a person is asked for approval, {approval.timeout_seconds} s at most, "
            f"then: {approval.on_timeout}"
        )
    for number, percent in enumerate(steps):
        yield from _asked(configuration, "before_shift")
        yield f"traffic: {show(weights_for(new, percent))} ({_where(configuration)})"
        if seconds := strategy.seconds(deployment, number):
            yield f"watched for {seconds} s: {', '.join(_watched(configuration))}"
        yield from _asked(configuration, "after_shift")
    yield from _end(deployment)
    yield from _asked(configuration, "after_deployment")


def _start(deployment: Deployment, wanted: int) -> Iterator[str]:
    """The idle colour comes up."""
    color, configuration = deployment.to_color, deployment.configuration
    slot, before = configuration.colors[color], deployment.snapshot.services[color]
    if before.scaling:
        yield f"scaling of ECS service {slot.ecs_service} suspended"
    if before.desired_count:
        yield f"ECS service {slot.ecs_service}: its {before.desired_count} tasks are ended"
    if slot.auto_scaling_group and before.group:
        old = deployment.from_color and deployment.snapshot.services[deployment.from_color].group
        size = old.desired_capacity if old else 1
        yield (
            f"Auto Scaling group {slot.auto_scaling_group}: {before.group.desired_capacity} → "
            f"{size} hosts or as many as the tasks need, all of them new"
        )
    if deployment.test_location and configuration.router.test_port:
        yield f"test listener on port {configuration.router.test_port} pointed at {color}"
    yield (
        f"UpdateService: {slot.ecs_service} on cluster {slot.cluster}: desired count "
        f"{before.desired_count} → {wanted}, the new revision"
    )


def _end(deployment: Deployment) -> Iterator[str]:
    """The old colour goes."""
    color, configuration = deployment.from_color, deployment.configuration
    if deployment.release:
        yield f"the old colour is held until release {deployment.release} has ended"
    if color is None:
        return
    slot, before = configuration.colors[color], deployment.snapshot.services[color]
    if before.scaling:
        yield f"scaling goes with the role: that of ECS service {slot.ecs_service} suspended"
    warm = configuration.drain.keep_warm_seconds
    kept = f" and is kept warm for {warm} s" if warm else ""
    yield f"the old colour finishes its requests for {deployment.quiet_seconds} s{kept}"
    if color in deployment.target_groups:
        yield f"targets of {slot.target_group} deregistered"
    yield f"UpdateService: {slot.ecs_service}: desired count {before.desired_count} → 0"
    if slot.auto_scaling_group and before.group:
        yield (
            f"Auto Scaling group {slot.auto_scaling_group}: {before.group.desired_capacity} → "
            "0 hosts"
        )


def _asked(configuration: ServiceConfiguration, point: HookPoint) -> Iterator[str]:
    for hook in configuration.hooks:
        if hook.at == point:
            yield f"function {hook.function} is asked ({point}), {hook.timeout_seconds} s at most"


def _watched(configuration: ServiceConfiguration) -> list[str]:
    """What can end a step badly."""
    bake = configuration.bake
    return [
        "health of the new colour",
        *(f"alarm {name}" for name in bake.alarms),
        *([f"Mackerel {bake.mackerel.service}:{bake.mackerel.role}"] if bake.mackerel else []),
        *(["5xx against the old colour"] if bake.errors else []),
        *(["response time against the old colour"] if bake.response_time else []),
    ]


def _where(configuration: ServiceConfiguration) -> str:
    router = configuration.router
    return f"{router.type}, port {router.port}"
