"""The whole sandbox: AWS APIs, the stacks, the agents and the load balancer, started and stopped.

One process can hold one sandbox, once, because moto's state is global to a process.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import yaml

from sandbox import (
    alb,
    autoscaling,
    buckets,
    clb,
    cloudwatch,
    ecs,
    executions,
    logs,
    registry,
    ssm,
)
from sandbox.autoscaling.faults import GroupFaults
from sandbox.autoscaling.managed import ManagedScaling
from sandbox.aws import CONTROL, AwsServer
from sandbox.balancers import with_balancer
from sandbox.control import Control
from sandbox.docker import DockerRuntime, Engine
from sandbox.docker.engine import check
from sandbox.ecs.instances import RESOURCES
from sandbox.events import EventBus
from sandbox.functions import LambdaRuntime
from sandbox.hosts import ec2
from sandbox.hosts.faults import HostFaults
from sandbox.hosts.fleet import Fleet
from sandbox.hosts.setup import Setup, setup_of
from sandbox.images import Images
from sandbox.insights import Insights
from sandbox.mackerel import MackerelServer
from sandbox.processes import ProcessRuntime, Runtime
from sandbox.queues import EventSources
from sandbox.resources import Resources
from sandbox.settings import (
    BUILD_DIRECTORY,
    LOG_FILE,
    MAX_HOSTS,
    PATTERNS,
    PROXIES,
    ROOT,
    RUNTIMES,
    STATE_FILE,
    SandboxError,
)
from sandbox.slack import SlackServer
from sandbox.stack import Stack, load
from sandbox.world import World

LOG = logging.getLogger(__name__)
STACK_NAME = "ecs-bluegreen"
PARAMETER_PREFIX = "/bluegreen/services"
PROGRAMS = {"haproxy": "haproxy", "setpriv": "util-linux", "nginx": "nginx-light"}
"""What the sandbox starts, and the Debian package it is in."""

HOSTS = {"shifted-ports": 2, "host-proxy": 4, "two-clusters": 2}
TASK_MEMORY = RESOURCES["MEMORY"] // 2 + 1
STACKS = ("template", "infrastructure")
METRICS = "metrics"
METRICS_PREFIX = "/bluegreen/metrics"
MACKEREL_KEY_PARAMETER = "/bluegreen/mackerel/api-key"
SLACK_PARAMETER = "/bluegreen/slack/deployments"
SLACK_WEBHOOK = "/services/T0SANDBOX/B0SANDBOX/deployments"
SOURCES = {"process": "container-insights", "docker": "cgroups"}
"""Where the metrics of containers come from: a process has no cgroup of its own."""
LONGEST_PATH = 70
ENDING = (signal.SIGINT, signal.SIGTERM)


class Sandbox:
    """A running sandbox, from ``start`` (or ``with``) to ``stop``.

    ``hosts`` is the number of container instances of a color that is live (else what suits the
    pattern), ``proxy`` what is on each of them (``nginx`` or ``haproxy``; for the pattern
    host-proxy only), ``balancer`` what is in front of them (``alb``, ``nlb`` or ``clb``; for the
    other patterns, alb unless something else is said); ``network`` the
    first three numbers of the loopback /24 that everything but the APIs listens in. ``overrides``
    change the example's service configuration by dotted path (``{"bake.seconds": 1}``); with
    ``template.`` before it a name is a parameter of template.yaml, with ``infrastructure.`` one of
    infrastructure.yaml, with ``metrics.`` a part of the metrics configuration of each cluster.
    There is one with ``metrics`` (else with the runtime docker only): without it nothing is
    collected. ``build_dir`` gets sandbox.json and the logs. Raises SandboxError.
    """

    def __init__(
        self,
        pattern: str = "shifted-ports",
        hosts: int | None = None,
        network: str = "127.0.1",
        runtime: str = "process",
        build_dir: Path = BUILD_DIRECTORY,
        overrides: Mapping[str, Any] | None = None,
        proxy: str | None = None,
        balancer: str | None = None,
        metrics: bool | None = None,
    ) -> None:
        if pattern not in PATTERNS:
            raise SandboxError(f"pattern {pattern}: the sandbox has {', '.join(PATTERNS)} so far")
        if runtime not in RUNTIMES:
            raise SandboxError(f"runtime {runtime}: the sandbox has {', '.join(RUNTIMES)} so far")
        if proxy is not None and (pattern != "host-proxy" or proxy not in PROXIES):
            raise SandboxError(
                f"proxy {proxy}: it is for the pattern host-proxy, one of {', '.join(PROXIES)}"
            )
        self._hosts = HOSTS[pattern] if hosts is None else hosts
        if not 1 <= self._hosts <= MAX_HOSTS:
            raise SandboxError(f"{hosts} hosts: 1 to {MAX_HOSTS} have room in the network")
        self._runtime = runtime
        self._host_environment: dict[str, str] = {}
        if runtime == "docker":
            check()
        self.build_dir = build_dir.resolve()
        self._network = network
        self._example = ROOT / "examples" / pattern
        text, parameters = with_balancer(
            (self._example / "service.yaml").read_text(), pattern, balancer
        )
        metrics_overrides, overrides = _parted(overrides or {})
        self._text, self._parameters = _overridden(
            text,
            {
                **_sizes(pattern, self._hosts),
                **parameters,
                **overrides,
                **({"router.type": proxy} if proxy else {}),
            },
        )
        self._configuration: dict[str, Any] = yaml.safe_load(self._text)
        self._has_metrics = runtime == "docker" if metrics is None else metrics
        self._metrics = _metrics_configuration(runtime, metrics_overrides)
        self._setup = setup_of(self._configuration)
        for program in ("haproxy", "setpriv", *([self._setup.proxy] if self._setup else [])):
            if shutil.which(program) is None:
                raise SandboxError(f"{program} is missing: apt-get install {PROGRAMS[program]}")
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def description(self) -> dict[str, Any]:
        """What sandbox.json says of the running sandbox."""
        port, test_port = self._ports
        url = f"http://{self.world.load_balancer_address}"
        return {
            "aws_endpoint": self.world.aws_endpoint,
            "region": self.world.region,
            "account_id": self.world.account_id,
            "state_machine_arn": self.outputs["StateMachineArn"],
            "release_state_machine_arn": self.outputs["ReleaseStateMachineArn"],
            "service": self._configuration["service"],
            "url": f"{url}:{port}/",
            "test_url": f"{url}:{test_port}/" if test_port else None,
            "mackerel_url": self.mackerel.url,
            "slack_url": self.slack.url,
            "network": self._network,
            "control_url": self.world.aws_endpoint + CONTROL,
            "hosts": [host.address for host in self.fleet.hosts() if host.state != "dead"],
        }

    @property
    def auto_scaling_groups(self) -> dict[str, str]:
        """The Auto Scaling group of each color; empty where the colors share their hosts."""
        colors: dict[str, dict[str, Any]] = self._configuration["colors"]
        return {
            color: slot["auto_scaling_group"]
            for color, slot in colors.items()
            if "auto_scaling_group" in slot
        }

    @property
    def mackerel_service(self) -> str:
        """Where in Mackerel the containers are, if there are metrics."""
        return str(self._metrics["mackerel"]["service"])

    @property
    def mackerel_hosts(self) -> dict[str, str]:
        """The custom identifier of each color's host in Mackerel."""
        colors: dict[str, dict[str, Any]] = self._configuration["colors"]
        site = f"{self.world.account_id}.{self.world.region}"
        return {
            color: f"ecs-bluegreen.{site}.{slot['cluster']}.{slot['ecs_service']}"
            for color, slot in colors.items()
        }

    @property
    def accepts_gap(self) -> bool:
        """Whether requests may be refused during a switch, as the service configuration says."""
        return bool(self._configuration["router"].get("accept_gap"))

    @property
    def _ports(self) -> tuple[int, int | None]:
        """The ports of the listener and, where there is one, of the test listener."""
        router = self._configuration["router"]
        if self._setup is None:
            return int(router["port"]), router.get("test_port")
        return int((router.get("load_balancer") or router)["port"]), None

    def start(self) -> None:
        """Start everything and write sandbox.json; after a failure nothing is left."""
        began = time.monotonic()
        self._check_network()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        LOG.info("ready after %.1f s", time.monotonic() - began)

    def stop(self) -> None:
        """End everything; can be called again."""
        with uninterrupted():
            if hasattr(self, "world"):
                self.world.stopping.set()
            self._cleanup.close()

    def _start(self) -> None:
        self.build_dir.mkdir(parents=True, exist_ok=True)
        self._start_log()
        work = _work_directory(self._setup)
        self._cleanup.callback(shutil.rmtree, work, ignore_errors=True)
        server = AwsServer()
        self._cleanup.callback(server.stop)
        os.environ["MOTO_PORT"] = str(server.port)
        self.world = World(
            network=self._network,
            aws_endpoint=server.endpoint,
            work_directory=work,
            log_directory=self.build_dir,
            publish=lambda event: bus.publish(event),
        )
        # All of these replace parts of moto, so they come before the first request.
        processes = ProcessRuntime(work)
        self.images = Images(self.world)
        scheduler = ecs.install(self.world, self.images, self._container_runtime(processes))
        self._cleanup.callback(scheduler.join)
        plane = alb.install(self.world, processes.launch)
        self._cleanup.callback(plane.join)
        classic = clb.install(self.world, processes.launch)
        self._cleanup.callback(classic.join)
        self.fleet = Fleet(
            self.world, processes, scheduler.instances, self._setup, self._host_environment
        )
        self._cleanup.callback(self.fleet.join)
        ec2.install(self.fleet.launched, self.fleet.terminated)
        self.scaler = autoscaling.install(self.world)
        self._cleanup.callback(self.scaler.join)
        managed = ManagedScaling(self.world, scheduler.state, scheduler.instances, self.scaler)
        managed.start()
        self._cleanup.callback(managed.join)
        host_faults = HostFaults(
            self.world, self.fleet, self.scaler, self._setup.proxy if self._setup else None
        )
        self.groups = GroupFaults(
            self.world, self.fleet, self.scaler, scheduler.instances, self._configuration["router"]
        )
        ssm.install(self.world, self.fleet).watcher = host_faults
        logs.install()
        buckets.install()
        registry.install(self.images.scan)
        cloudwatch.install()
        insights = Insights(self.world, scheduler.state)
        self.mackerel = MackerelServer().start()
        self._cleanup.callback(self.mackerel.stop)
        self.slack = SlackServer().start()
        self._cleanup.callback(self.slack.stop)
        code = work / "functions"
        shutil.copytree(ROOT / "functions", code, ignore=shutil.ignore_patterns("__pycache__"))
        functions = LambdaRuntime(self.world, code, logging.getLogger("sandbox.function").info)
        self._cleanup.callback(functions.stop)
        functions.install()
        sources = EventSources(self.world, functions, server.workflow.note)
        sources.install()
        bus = EventBus(self.world, functions)
        bus.install()
        executions.install(bus.publish, server.endpoint)
        self._create_stacks(functions, sources)
        insights.start()
        server.workflow.callers = {
            executions.CALLER,
            *(function.logical_id for function in functions.functions.values()),
        }
        control = Control(
            self.world,
            server.workflow,
            bus,
            self.images,
            plane,
            classic,
            host_faults,
            self.groups,
            self._configuration["router"],
            sources,
            insights,
            self.mackerel,
            self.slack,
        )
        server.front.routes = control.routes()
        self._write_description()

    def _container_runtime(self, processes: ProcessRuntime) -> Runtime:
        """What tasks run on; ECS closes it."""
        if self._runtime == "process":
            return processes
        self._cleanup.callback(processes.close)
        engine = Engine(self._network, self.build_dir / "docker.log")
        self._cleanup.callback(engine.stop)
        engine.start()
        self._host_environment["DOCKER_HOST"] = engine.host
        return DockerRuntime(engine)

    def _create_stacks(self, functions: LambdaRuntime, sources: EventSources) -> None:
        """Make the deployer, and while its functions start, what the service runs on."""
        service = self._configuration["service"]
        template = load(ROOT / "template.yaml")
        self.world.client("ssm").put_parameter(
            Name=MACKEREL_KEY_PARAMETER, Value=self.mackerel.api_key, Type="SecureString"
        )
        self.world.client("ssm").put_parameter(
            Name=SLACK_PARAMETER, Value=self.slack.url + SLACK_WEBHOOK, Type="SecureString"
        )
        deployer = Stack(
            STACK_NAME,
            template,
            self.world,
            {
                "MackerelUrl": self.mackerel.url,
                "SlackUrl": self.slack.url,
                **self._parameters["template"],
            },
        )
        deployer.create(Resources(self.world, functions, STACK_NAME, ROOT).create)
        self.outputs = deployer.outputs()
        with ThreadPoolExecutor(max_workers=1) as background:
            # Without metrics their queues stay empty, and nobody waits for these functions.
            idle = set() if self._has_metrics else sources.functions
            warm = background.submit(functions.warm, idle)
            parameters = self._parameters["infrastructure"]
            if self._has_metrics:
                insights = self._metrics["source"] == "container-insights"
                parameters = {
                    "ContainerInsights": "enabled" if insights else "disabled",
                    "MetricsBucket": deployer.created["MetricsBucket"].ref,
                    **parameters,
                }
            if self._setup is not None:
                parameters = {
                    "InstallDocument": deployer.created["HostInstallDocument"].ref,
                    "Proxy": self._setup.proxy,
                    "HostPorts": "dynamic" if self._setup.dynamic else "fixed",
                    **parameters,
                }
            infrastructure = Stack(
                service, load(self._example / "infrastructure.yaml"), self.world, parameters
            )
            infrastructure.create(Resources(self.world, functions, service, ROOT).create)
            self.world.client("ssm").put_parameter(
                Name=f"{PARAMETER_PREFIX}/{service}", Value=self._text, Type="String"
            )
            if self._has_metrics:
                self._put_metrics_configurations()
            warm.result()
            self.scaler.wait_until_settled()
            self.fleet.wait_until_booted()

    def _put_metrics_configurations(self) -> None:
        """One for each cluster of the service."""
        slots: Mapping[str, Mapping[str, Any]] = self._configuration["colors"]
        for cluster in sorted({slot["cluster"] for slot in slots.values()}):
            text = yaml.safe_dump({"cluster": cluster, **self._metrics}, sort_keys=False)
            self.world.client("ssm").put_parameter(
                Name=f"{METRICS_PREFIX}/{cluster}", Value=text, Type="String"
            )

    def _start_log(self) -> None:
        handler = logging.FileHandler(self.build_dir / LOG_FILE, mode="w")
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        self._cleanup.callback(handler.close)
        for name, level in (("sandbox", logging.INFO), ("moto", logging.CRITICAL)):
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            logger.setLevel(level)
            logger.propagate = False
            self._cleanup.callback(logger.removeHandler, handler)

    def _write_description(self) -> None:
        target = self.build_dir / STATE_FILE
        new = target.with_suffix(".new")
        new.write_text(json.dumps(self.description, indent=2) + "\n")
        new.rename(target)
        self._cleanup.callback(target.unlink, missing_ok=True)

    def _check_network(self) -> None:
        """Raise SandboxError when the load balancer's ports are taken, by another sandbox say."""
        address = f"{self._network}.200"
        for port in self._ports:
            if port is None:
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError as error:
                    raise SandboxError(
                        f"{address}:{port}: {error.strerror}. Another sandbox? Choose another "
                        "network: --network 127.0.2"
                    ) from error


@contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM what Ctrl-C is: a KeyboardInterrupt in the main thread.

    SIGINT is set too: a shell without job control starts background programs with it ignored.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM for a while; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sizes(pattern: str, hosts: int) -> dict[str, Any]:
    """The overrides that make so many hosts.

    With two-clusters there are none at first: a deployment launches as many as its tasks need,
    and here each task fills more than half of a host.
    """
    if pattern != "two-clusters":
        return {"infrastructure.InstanceCount": hosts}
    return {
        "health.initial_count": hosts,
        "infrastructure.MaxSize": 2 * hosts,
        "infrastructure.TaskMemory": TASK_MEMORY,
    }


def _work_directory(setup: Setup | None) -> Path:
    """A new temporary directory that everybody who has to can use, in /tmp if need be.

    The path of a UNIX socket, in it or in a host's directory, has at most 107 bytes, of which
    haproxy needs some for a temporary name. Workers of a proxy that root starts run as nobody and
    have to get through to their host's directory.
    """
    path = Path(tempfile.mkdtemp(prefix="ecs-bluegreen-"))
    socket_directory = path if setup is None else path / f"h{MAX_HOSTS}" / setup.service
    short = len(os.fsencode(socket_directory)) <= LONGEST_PATH
    is_open = all(parent.stat().st_mode & 0o001 for parent in path.parents)
    if short and (is_open or setup is None or os.geteuid() != 0):
        return path
    path.rmdir()
    return Path(tempfile.mkdtemp(prefix="ecs-bluegreen-", dir="/tmp"))


def _parted(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The overrides of the metrics configuration, without the word before them, and the others."""
    start = f"{METRICS}."
    return (
        {
            path.removeprefix(start): one
            for path, one in overrides.items()
            if path.startswith(start)
        },
        {path: one for path, one in overrides.items() if not path.startswith(start)},
    )


def _metrics_configuration(runtime: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What the metrics configurations of all clusters say but for the cluster."""
    configuration: dict[str, Any] = {
        "source": SOURCES[runtime],
        "mackerel": {"service": "sandbox"},
    }
    for path, value in overrides.items():
        *parents, last = path.split(".")
        place = configuration
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
    return configuration


def _overridden(text: str, overrides: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The service configuration with the overrides, and the parameters by stack.

    Raises SandboxError for a path that the configuration does not have.
    """
    parameters: dict[str, dict[str, Any]] = {stack: {} for stack in STACKS}
    configuration: dict[str, Any] = yaml.safe_load(text)
    changed = copy.deepcopy(configuration)
    for path, value in overrides.items():
        first, _, rest = path.partition(".")
        if first in STACKS and rest:
            parameters[first][rest] = value
            continue
        *parents, last = path.split(".")
        place: Any = changed
        for name in parents:
            place = place.get(name, {}) if isinstance(place, dict) else {}
        if not isinstance(place, dict) or not place:
            raise SandboxError(f"{path}: the service configuration has no {'.'.join(parents)}")
        place[last] = value
    if changed == configuration:
        return text, parameters
    return yaml.safe_dump(changed, sort_keys=False), parameters
