"""The service scheduler: makes the running tasks what the services say.

AWS's habits:
  - a rolling update keeps at least minimumHealthyPercent of the desired count healthy and never
    starts more than maximumPercent;
  - tasks on an instance that is DRAINING are replaced elsewhere, within the same bounds;
  - a task of which a target is unhealthy is replaced, but not within healthCheckGracePeriodSeconds;
  - a service whose tasks keep failing is throttled: here the next start comes 1 s after each of the
    first three failures, then 2, 4, 8 … at most 60 s after (AWS goes up to 27 minutes);
  - what happens is told in service events, newest first, the last 100.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from sandbox.ecs import model
from sandbox.ecs.model import Deployment, LastStatus, Service, State, StopCode, Task
from sandbox.ecs.placement import NoRoomError
from sandbox.ecs.tasks import TaskRunner

QUICK_FAILURES = 3
MAX_DELAY_SECONDS = 60.0
PROVEN_SECONDS = 10.0  # a task that runs for so long ends the throttling
REPEAT_SECONDS = 10.0  # the same complaint is not made more often
SEE_GUIDE = (
    "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."
)


class ServiceScheduler:
    """Reconciles services; called by the scheduler's thread only, with the state locked."""

    def __init__(
        self, state: State, runner: TaskRunner, start: Callable[[Service, Deployment], Task]
    ) -> None:
        self._state = state
        self._runner = runner
        self._start = start

    def reconcile(self, service: Service) -> None:
        """Compare one service with its tasks and do what is due."""
        now = time.monotonic()
        tasks = list(self._state.tasks_of(service))
        self._replace_unhealthy(service, tasks, now)
        healthy = {task.id for task in tasks if task.active and self._healthy(task)}
        self._stop_surplus(service, tasks, healthy)
        self._start_missing(service, tasks, now)
        self._conclude(service, list(self._state.tasks_of(service)), healthy, now)

    def failed(self, task: Task) -> None:
        """Count a task that ended without being asked to."""
        service = task.service
        if service is None:
            return
        deployment = next((d for d in service.deployments if d.id == task.started_by), None)
        if deployment is None:
            return
        if deployment.rollout_state == "IN_PROGRESS":
            deployment.failed_tasks += 1
        deployment.failures_in_a_row += 1
        deployment.start_after = time.monotonic() + restart_delay(deployment.failures_in_a_row)
        if deployment.failures_in_a_row == QUICK_FAILURES:
            service.say(f"is unable to consistently start tasks successfully. {SEE_GUIDE}")
        self._state.wake.set()

    def _healthy(self, task: Task) -> bool:
        """Whether a task counts for minimumHealthyPercent."""
        return (
            task.last_status is LastStatus.RUNNING
            and all(state == "healthy" for _, state, _ in self._runner.health(task))
            and all(c.health == "HEALTHY" for c in task.containers if c.probe is not None)
        )

    def _replace_unhealthy(self, service: Service, tasks: Sequence[Task], now: float) -> None:
        grace = float(service.settings.get("healthCheckGracePeriodSeconds") or 0)
        for task in tasks:
            if not task.active or task.last_status is not LastStatus.RUNNING:
                continue
            if any(c.essential and c.health == "UNHEALTHY" for c in task.containers):
                self._fail(task, "Task failed container health checks")
                continue
            if now - task.running_since < grace:
                continue
            for registration, state, description in self._runner.health(task):
                if state == "unhealthy":
                    arn = registration.group_arn
                    service.say(
                        f"(instance {registration.target_id}) (port {registration.port}) is "
                        f"unhealthy in (target-group {arn}) due to (reason {description})"
                    )
                    self._fail(task, f"Task failed ELB health checks in (target-group {arn})")
                    break

    def _fail(self, task: Task, reason: str) -> None:
        assert task.service is not None
        self._runner.stop(task, StopCode.SERVICE_SCHEDULER_INITIATED, reason)
        task.service.say(f"has stopped 1 running tasks: (task {task.id}).")
        self.failed(task)

    def _stop_surplus(self, service: Service, tasks: Sequence[Task], healthy: set[str]) -> None:
        """Stop what is to be replaced as far as enough stay healthy, and what is too much."""
        active = [task for task in tasks if task.active]
        staying = [t for t in active if t.started_by == service.primary.id and not _leaves(t)]
        old = [task for task in active if task not in staying]
        minimum = math.ceil(service.desired_count * _percent(service, "minimumHealthyPercent", 100))
        spare = sum(task.id in healthy for task in active) - minimum
        chosen: list[Task] = []
        for task in sorted(old, key=lambda t: t.id in healthy):
            if task.id not in healthy:
                chosen.append(task)
            elif spare > 0:
                spare -= 1
                chosen.append(task)
        surplus = len(staying) - service.desired_count
        if surplus > 0:
            chosen += _first_to_go(staying, healthy)[:surplus]
        for task in chosen:
            self._runner.stop(
                task,
                StopCode.SERVICE_SCHEDULER_INITIATED,
                f"Scaling activity initiated by (deployment {service.primary.id})",
            )
        if chosen:
            names = " ".join(f"(task {task.id})" for task in chosen)
            service.say(f"has stopped {len(chosen)} running tasks: {names}.")

    def _start_missing(self, service: Service, tasks: Sequence[Task], now: float) -> None:
        deployment = service.primary
        if service.status != "ACTIVE" or now < deployment.start_after:
            return
        active = [task for task in tasks if task.active]
        maximum = math.floor(service.desired_count * _percent(service, "maximumPercent", 200))
        missing = service.desired_count - sum(
            t.started_by == deployment.id and not _leaves(t) for t in active
        )
        room = max(maximum, 1) - len(active)
        started = []
        for _ in range(min(missing, room)):
            try:
                started.append(self._start(service, deployment))
            except NoRoomError as error:
                self._complain(
                    service,
                    "was unable to place a task because no container instance met all of its "
                    f"requirements. {error} {SEE_GUIDE}",
                    now,
                )
                break
        if started:
            names = " ".join(f"(task {task.id})" for task in started)
            service.say(f"has started {len(started)} tasks: {names}.")

    def _complain(self, service: Service, message: str, now: float) -> None:
        if now >= service.silent_until.get(message, 0):
            service.silent_until[message] = now + REPEAT_SECONDS
            service.say(message)

    def _conclude(
        self, service: Service, tasks: Sequence[Task], healthy: set[str], now: float
    ) -> None:
        """Update deployments: who is drained, what is complete, whether all is steady."""
        for old in service.deployments[1:]:
            mine = [task for task in tasks if task.started_by == old.id]
            old.desired_count = sum(task.active for task in mine)
            if not mine:
                service.deployments.remove(old)
        primary = service.primary
        primary.desired_count = service.desired_count
        mine = [task for task in tasks if task.started_by == primary.id and task.active]
        if any(now - t.running_since > PROVEN_SECONDS and t.id in healthy for t in mine):
            primary.failures_in_a_row = 0
        ready = len(mine) == service.desired_count and all(task.id in healthy for task in mine)
        if ready and len(service.deployments) == 1 and primary.rollout_state != "COMPLETED":
            primary.rollout_state = "COMPLETED"
            primary.updated_at = model.now()
            service.say(f"(deployment {primary.id}) deployment completed.")
        steady = ready and len(tasks) == len(mine)
        if steady and not service.steady:
            service.say("has reached a steady state.")
        service.steady = steady


def restart_delay(failures: int) -> float:
    """Seconds until the next start after that many failures in a row."""
    doublings = max(0, failures - QUICK_FAILURES)
    return float(min(2.0 ** min(doublings, 10), MAX_DELAY_SECONDS))


def _leaves(task: Task) -> bool:
    """Whether its instance drains, so that it has to be replaced elsewhere."""
    return task.instance is not None and task.instance.status == "DRAINING"


def _percent(service: Service, name: str, default: int) -> float:
    configuration = service.settings.get("deploymentConfiguration") or {}
    return float(configuration.get(name, default)) / 100


def _first_to_go(tasks: Sequence[Task], healthy: set[str]) -> list[Task]:
    """Order tasks for scaling in: those not healthy, then where most are, then the youngest."""
    crowd = {id(t.instance): sum(o.instance is t.instance for o in tasks) for t in tasks}
    return sorted(tasks, key=lambda t: (t.id in healthy, -crowd[id(t.instance)], -t.running_since))
