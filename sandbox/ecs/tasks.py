"""The life of one task: pull, start, watch, stop.

AWS's habits:
  - an image that is not there, a secret that is missing or a log group that does not exist ends the
    task before it runs (TaskFailedToStart), with the agent's message;
  - targets are registered once, when the task gets RUNNING, and never again: one that somebody
    deregisters by hand stays deregistered;
  - a task that the scheduler stops is deregistered first and gets SIGTERM only after its
    deregistration delay is over; StopTask sends SIGTERM at once, while requests still come;
  - SIGKILL follows after the container's stopTimeout (30 s);
  - the end of an essential container ends the task; exit codes and reasons stay visible.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from moto.core.exceptions import ServiceException

from sandbox.ecs.model import (
    ContainerState,
    HealthProbe,
    LastStatus,
    Registration,
    State,
    StopCode,
    Task,
)
from sandbox.images import CannotPullError, Image, Images
from sandbox.processes import CannotStartError, ContainerSpec, LogSink, Runtime
from sandbox.world import World

DEFAULT_STOP_TIMEOUT = 30.0
MAX_KEPT_LINES = 20_000  # of one container; the older half is dropped beyond

logger = logging.getLogger(__name__)


class ResourceInitializationError(Exception):
    """Something that a task needs before its containers start is missing."""


class TaskRunner:
    """Moves tasks from one status to the next; called by the scheduler's thread only.

    ``on_end`` is told of each task when it is decided that it stops on its own account (it failed
    to start, an essential container ended).
    """

    def __init__(
        self,
        world: World,
        state: State,
        images: Images,
        runtime: Runtime,
        on_end: Callable[[Task], None],
    ) -> None:
        self._world = world
        self._state = state
        self._images = images
        self._runtime = runtime
        self._on_end = on_end

    def advance(self, task: Task) -> None:
        """Do what is due for a task; has to be called again and again."""
        match task.last_status:
            case LastStatus.PROVISIONING:
                task.move(LastStatus.PENDING, "connectivityAt")
            case LastStatus.PENDING:
                if task.active:
                    self._start(task)
                else:  # stopped before it ran
                    task.move(LastStatus.DEPROVISIONING, "stoppingAt")
            case LastStatus.RUNNING:
                self._watch(task)
            case LastStatus.DEACTIVATING:
                self._watch(task)
                if not self._draining(task):
                    self._terminate(task)
            case LastStatus.STOPPING:
                self._finish(task)
            case LastStatus.DEPROVISIONING:
                task.stopped_since = time.monotonic()
                task.move(LastStatus.STOPPED, "stoppedAt")
            case LastStatus.STOPPED:
                pass

    def stop(self, task: Task, code: StopCode, reason: str) -> None:
        """Decide that a task stops; one the service scheduler stops is drained first."""
        if not task.active:
            return
        task.desired_status = "STOPPED"
        task.stop_code, task.stopped_reason = code, reason
        task.version += 1
        if task.last_status is not LastStatus.RUNNING:
            return
        self._deregister(task)
        task.move(LastStatus.DEACTIVATING, "stoppingAt")
        task.drain_first = code is StopCode.SERVICE_SCHEDULER_INITIATED
        self._state.wake.set()

    def health(self, task: Task) -> list[tuple[Registration, str, str | None]]:
        """State and description of each target of a task; ``unused`` for one that is gone."""
        backend = self._world.backend("elbv2")
        found: list[tuple[Registration, str, str | None]] = []
        for registration in task.registrations:
            try:
                health = backend.describe_target_health(
                    registration.group_arn, [registration.target]
                )[0]
            except ServiceException:  # the target group was deleted
                found.append((registration, "unused", None))
            else:
                found.append((registration, health.status, health.description))
        return found

    def _start(self, task: Task) -> None:
        task.times.setdefault("pullStartedAt", task.times["connectivityAt"])
        try:
            pulled = [self._images.pull(c.definition["image"]) for c in task.containers]
            secrets = [self._secrets(c.definition) for c in task.containers]
        except (CannotPullError, ResourceInitializationError) as error:
            for container in task.containers:
                container.reason, container.status = str(error), "STOPPED"
            self._end(task, StopCode.TASK_FAILED_TO_START, str(error))
            return
        task.move(LastStatus.PENDING, "pullStoppedAt")
        for container, image, secret in zip(task.containers, pulled, secrets, strict=True):
            try:
                self._start_container(task, container, image, secret)
            except CannotStartError as error:
                container.reason, container.status = str(error), "STOPPED"
                self._end(task, StopCode.TASK_FAILED_TO_START, "Task failed to start")
                return
        task.running_since = time.monotonic()
        task.move(LastStatus.RUNNING, "startedAt")
        self._register(task)

    def _start_container(
        self, task: Task, container: ContainerState, image: Image, secrets: dict[str, str]
    ) -> None:
        definition = container.definition
        override = self._override(task, container.name)
        environment = {
            **image.environment,
            **_environment(definition),
            **secrets,
            **_environment(override),
        }
        command = override.get("command") or definition.get("command") or []
        entry_point = definition.get("entryPoint") or []
        ports = [int(binding["hostPort"]) for binding in container.bindings]
        spec = ContainerSpec(
            command=[*entry_point, *command] or image.command,
            environment=environment,
            host=task.address,
            port=ports[0] if ports else None,
            log=self._log_sink(task, container),
            name=docker_name(task, container),
            task=task.id,
            ports={int(b["containerPort"]): int(b["hostPort"]) for b in container.bindings},
            cpu=int(definition.get("cpu") or 0),
            memory=definition.get("memory"),
            memory_reservation=definition.get("memoryReservation"),
            labels={
                **(definition.get("dockerLabels") or {}),
                "com.amazonaws.ecs.cluster": task.cluster_arn.rpartition("/")[2],
                "com.amazonaws.ecs.container-name": container.name,
                "com.amazonaws.ecs.task-arn": task.arn,
                "com.amazonaws.ecs.task-definition-family": task.definition["family"],
                "com.amazonaws.ecs.task-definition-version": str(task.definition["revision"]),
            },
        )
        container.image_digest = image.digest
        container.running = self._runtime.start(spec)
        container.status = "RUNNING"
        check = definition.get("healthCheck")
        if check:
            container.probe = HealthProbe(time.monotonic() + float(check.get("startPeriod", 0)))

    def _register(self, task: Task) -> None:
        if task.service is None:
            return
        backend = self._world.backend("elbv2")
        for balancer in task.service.settings.get("loadBalancers", []):
            port = task.binding(balancer["containerName"], int(balancer["containerPort"]))
            arn = balancer["targetGroupArn"]
            by_ip = backend.target_groups[arn].target_type == "ip"
            target_id = task.address if by_ip else task.instance.ec2_instance_id  # type: ignore[union-attr]
            assert port is not None  # CreateService and UpdateService checked it
            registration = Registration(arn, target_id, port)
            backend.register_targets(arn, [registration.target])
            task.registrations.append(registration)
            task.service.say(f"registered 1 targets in (target-group {arn})")

    def _deregister(self, task: Task) -> None:
        if task.service is None or not task.registrations:
            return
        backend = self._world.backend("elbv2")
        task.service.say("has begun draining connections on 1 tasks.")
        for registration in task.registrations:
            if registration.group_arn in backend.target_groups:
                backend.deregister_targets(registration.group_arn, [registration.target])
            task.service.say(f"deregistered 1 targets in (target-group {registration.group_arn})")

    def _draining(self, task: Task) -> bool:
        return task.drain_first and any(state == "draining" for _, state, _ in self.health(task))

    def _watch(self, task: Task) -> None:
        """See which containers have ended, and check the health of the others."""
        for container in task.containers:
            if container.status != "RUNNING" or container.running is None:
                continue
            code = container.running.exit_code
            if code is not None:
                container.status, container.exit_code = "STOPPED", code
            elif container.probe is not None and task.active:
                _probe(container, container.probe)
        ended = [c for c in task.containers if c.essential and c.status == "STOPPED"]
        if not ended:
            return
        if task.active:
            self._end(
                task, StopCode.ESSENTIAL_CONTAINER_EXITED, "Essential container in task exited"
            )
        elif task.last_status is LastStatus.DEACTIVATING:
            self._terminate(task)

    def _end(self, task: Task, code: StopCode, reason: str) -> None:
        """Stop a task that ended by itself."""
        task.desired_status = "STOPPED"
        task.stop_code, task.stopped_reason = code, reason
        task.times.setdefault("stoppingAt", task.times["connectivityAt"])
        if task.last_status is LastStatus.RUNNING:
            self._deregister(task)
        self._terminate(task)
        self._on_end(task)

    def _terminate(self, task: Task) -> None:
        for container in task.containers:
            if container.status == "RUNNING" and container.running is not None:
                timeout = float(container.definition.get("stopTimeout", DEFAULT_STOP_TIMEOUT))
                container.running.terminate()
                container.kill_at = time.monotonic() + timeout
        task.move(LastStatus.STOPPING, "stoppingAt")

    def _finish(self, task: Task) -> None:
        for container in task.containers:
            if container.status != "RUNNING" or container.running is None:
                continue
            code = container.running.exit_code
            if code is not None:
                container.status, container.exit_code = "STOPPED", code
            elif container.kill_at is not None and container.kill_at <= time.monotonic():
                container.running.kill()
                container.kill_at = None
        if all(c.status != "RUNNING" for c in task.containers):
            for container in task.containers:
                container.status = "STOPPED"
                if container.probe is not None and container.probe.process is not None:
                    container.probe.process.kill()
            task.move(LastStatus.DEPROVISIONING, "executionStoppedAt")

    def _override(self, task: Task, name: str) -> dict[str, Any]:
        for override in task.overrides.get("containerOverrides", []):
            if override.get("name") == name:
                return dict(override)
        return {}

    def _secrets(self, definition: dict[str, Any]) -> dict[str, str]:
        """Read the secrets of a container from moto's SSM."""
        values = {}
        for secret in definition.get("secrets", []):
            source = secret["valueFrom"]
            name = re.sub(r"^arn:aws:ssm:[^:]*:[^:]*:parameter", "", source)
            parameter = self._world.backend("ssm").get_parameter(name)
            if parameter is None:
                raise ResourceInitializationError(
                    "ResourceInitializationError: unable to pull secrets or registry auth: "
                    "execution resource retrieval failed: unable to retrieve secrets from ssm: "
                    f"invalid parameters: {source}"
                )
            values[secret["name"]] = str(parameter.value)
        return values

    def _log_sink(self, task: Task, container: ContainerState) -> LogSink:
        """What the awslogs driver is to a container; other drivers keep nothing."""
        configuration = container.definition.get("logConfiguration") or {}
        if configuration.get("logDriver") != "awslogs":
            return lambda _: None
        options = configuration.get("options", {})
        group, prefix = options.get("awslogs-group", ""), options.get("awslogs-stream-prefix")
        stream = f"{prefix}/{container.name}/{task.id}" if prefix else task.id
        backend = self._world.backend("logs")
        if group not in backend.groups:
            if options.get("awslogs-create-group") != "true":
                raise CannotStartError(
                    "CannotStartContainerError: Error response from daemon: failed to create task "
                    "for container: failed to initialize logging driver: failed to create "
                    "Cloudwatch log stream: ResourceNotFoundException: The specified log group "
                    "does not exist."
                )
            backend.create_log_group(group, {})
        backend.ensure_log_stream(group, stream)

        def sink(lines: Sequence[str]) -> None:
            moment = int(time.time() * 1000)
            events = [{"timestamp": moment, "message": line} for line in lines if line]
            if not events or group not in backend.groups:
                return
            backend.put_log_events(group, stream, events)
            kept = backend.groups[group].streams[stream].events
            if len(kept) > MAX_KEPT_LINES:
                del kept[: MAX_KEPT_LINES // 2]

        return sink


def docker_name(task: Task, container: ContainerState) -> str:
    """The name that the ECS agent gives a container; the last part is random there."""
    family, revision = task.definition["family"], task.definition["revision"]
    return f"ecs-{family}-{revision}-{container.name}-{task.id[:20]}"


def _environment(definition: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item.get("value", "") for item in definition.get("environment") or []}


def _probe(container: ContainerState, probe: HealthProbe) -> None:
    """Run the container's own health check when it is due, as Docker does."""
    check = container.definition["healthCheck"]
    now = time.monotonic()
    if probe.process is None:
        if now < probe.due or container.running is None:
            return
        kind, *command = check["command"]
        if kind == "CMD-SHELL":
            command = ["/bin/sh", "-c", *command]
        probe.deadline = now + float(check.get("timeout", 5))
        try:
            probe.process = container.running.run(command)
        except CannotStartError:
            code = 1
        else:
            return
    else:
        ended = probe.process.poll()
        if ended is None and now < probe.deadline:
            return
        probe.process.kill()
        code = probe.process.wait()
        probe.process = None
    probe.due = now + float(check.get("interval", 30))
    probe.failures = probe.failures + 1 if code else 0
    if code == 0:
        container.health = "HEALTHY"
    elif probe.failures >= int(check.get("retries", 3)):
        container.health = "UNHEALTHY"
