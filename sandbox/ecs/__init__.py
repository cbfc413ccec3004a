"""ECS: moto's API with a real scheduler behind it.

``install`` puts ``api.EcsResponse`` in the place of moto's operations. ``control`` is what they do,
``definitions`` keeps task definitions, ``services`` schedules services, ``tasks`` moves tasks
through their life, ``placement`` finds room on the container instances, ``instances`` is what their
agents tell, ``shapes`` is what the API shows, ``model`` what is kept.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.exceptions import ServiceException
from moto.ecs import urls
from moto.ecs.models import EC2ContainerServiceBackend, ecs_backends

from sandbox.ecs.api import EcsResponse
from sandbox.ecs.control import Control
from sandbox.ecs.definitions import TaskDefinitions
from sandbox.ecs.instances import Instances
from sandbox.ecs.model import State
from sandbox.ecs.scaling import ScalingBackend
from sandbox.ecs.services import ServiceScheduler
from sandbox.ecs.tasks import TaskRunner
from sandbox.images import Images
from sandbox.processes import Runtime
from sandbox.world import World

TICK_SECONDS = 0.1
KEPT_SECONDS = 3600.0  # that a stopped task can still be described

logger = logging.getLogger(__name__)


class Scheduler:
    """The thread that makes everything happen; it starts all containers, so it outlives them."""

    def __init__(self, world: World, state: State, runner: TaskRunner, runtime: Runtime) -> None:
        self._world = world
        self.state = state
        self._runner = runner
        self._runtime = runtime
        self.instances = Instances(world, state)
        self.services: ServiceScheduler
        self._thread = threading.Thread(target=self._run, name="ecs-scheduler", daemon=True)

    def start(self) -> None:
        """Begin to schedule."""
        self._thread.start()

    def join(self) -> None:
        """Wait until every container has ended; the world's ``stopping`` has to be set."""
        self.state.wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._world.stopping.is_set():
            self.state.wake.wait(TICK_SECONDS)
            self.state.wake.clear()
            with self.state.lock:
                self._tick()
        self._runtime.close()

    def _tick(self) -> None:
        for task in list(self.state.tasks.values()):
            before = None
            # The quick steps at once; nothing is known of tasks whose agent is not heard of.
            while task.connected and task.last_status is not before:
                before = task.last_status
                self._runner.advance(task)
            if task.stopped and time.monotonic() - task.stopped_since > KEPT_SECONDS:
                del self.state.tasks[task.arn]
        for service in list(self.state.services.values()):
            if service.status == "INACTIVE":
                continue
            try:
                self.services.reconcile(service)
            except ServiceException:
                logger.exception("cannot reconcile the service %s", service.name)
            if service.status == "DRAINING" and not any(self.state.tasks_of(service)):
                service.status = "INACTIVE"


def install(world: World, images: Images, runtime: Runtime) -> Scheduler:
    """Replace moto's ECS before its first use and start the scheduler.

    It ends after ``world.stopping`` is set and takes all containers with it; ``join`` waits.
    """
    state = State()
    definitions = TaskDefinitions(world)
    control = Control(world, state, definitions)
    runner = TaskRunner(world, state, images, runtime, lambda task: scheduler.services.failed(task))
    control.runner = runner
    scheduler = Scheduler(world, state, runner, runtime)
    scheduler.services = ServiceScheduler(state, runner, control.start_service_task)

    response: Any = type(
        "SandboxEcsResponse",
        (EcsResponse,),
        {"control": control, "definitions": definitions, "state": state},
    )
    urls.url_paths["{0}/$"] = response.dispatch

    class SandboxEcsBackend(EC2ContainerServiceBackend):
        """moto's backend, which other services of moto ask for ECS services."""

        _url_module = urls

        def describe_services(
            self, cluster_str: str, service_names_or_arns: list[str]
        ) -> tuple[list[Any], list[dict[str, str]]]:
            """Find services by name; Application Auto Scaling asks whether one exists."""
            with state.lock:
                cluster = self._get_cluster(cluster_str)
                wanted = {name.rsplit("/", 1)[-1] for name in service_names_or_arns}
                found = [
                    service
                    for service in state.services.values()
                    if service.cluster_arn == cluster.arn and service.name in wanted
                ]
            return found, []

    ecs_backends.backend = SandboxEcsBackend
    applicationautoscaling_backends.backend = ScalingBackend
    scheduler.start()
    return scheduler
