"""What can be broken about hosts, now or at a moment of a switch that the workflow makes.

| kind | what it does |
|---|---|
| cannot_stage | the host program fails to stage: no space left |
| broken_configuration | its proxy configuration is damaged; the running proxy goes on |
| silent | its SSM agent does nothing any more; EC2 and ECS notice nothing |
| dies | everything on it ends and EC2 says terminated (``ec2=running``: EC2 does not notice) |
| appears | a new host boots |
| reboots | everything on it ends and it boots again, its directory as it was |
| proxy_restarts | the proxy ends and starts again |

| when | the moment |
|---|---|
| now | |
| staged | all instances have ended what a stage command told them, and nobody knows it yet |
| committing | a commit command was accepted and no instance has it yet |
| committed | the first instance has ended a commit with success, and nobody knows it yet |
"""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.aws import ControlError
from sandbox.hosts.host import Host

if TYPE_CHECKING:
    from sandbox.autoscaling.scaler import Scaler
    from sandbox.hosts.fleet import Fleet
    from sandbox.ssm.model import Command, Invocation
    from sandbox.world import World

KINDS = (
    *("cannot_stage", "broken_configuration", "silent", "dies", "appears", "reboots"),
    "proxy_restarts",
)
MOMENTS = ("now", "staged", "committing", "committed")
OF_THE_PROXY = ("cannot_stage", "broken_configuration", "proxy_restarts")
CONFIGURATIONS = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
DAMAGE = "\nthis_is_no_directive because of the fault broken_configuration\n"
NO_SPACE = """\
#!/bin/sh
if [ "$1" = stage ]; then
  echo '{"error": "stage: cannot write to the state directory: No space left on device"}'
  exit 1
fi
PATH=${PATH#*:} exec ecs-bluegreen-host "$@"
"""

LOG = logging.getLogger(__name__)


@dataclass
class HostFault:
    """One fault; ``host`` is the last part of the address, ``hits`` how often it struck."""

    kind: str
    host: int | None
    when: str = "now"
    ec2: str = "terminated"
    hits: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("when", MOMENTS), ("ec2", ("terminated", "running"))):
            if getattr(self, name) not in known:
                raise ControlError(f"host {name}={getattr(self, name)!r}: {', '.join(known)}")


class HostFaults:
    """The faults that are on or still to come; watches the commands of the workflow."""

    def __init__(self, world: World, fleet: Fleet, scaler: Scaler, proxy: str | None) -> None:
        self.fleet = fleet
        self._world = world
        self._scaler = scaler
        self._proxy = proxy
        self._lock = threading.Lock()
        self._faults: list[HostFault] = []

    def add(self, kind: str, host: int | None = None, **when: Any) -> None:
        """Turn a fault on, or have it come. Raises ControlError for one that makes no sense."""
        fault = HostFault(kind, host, **when)
        if fault.kind in OF_THE_PROXY and self._proxy is None:
            raise ControlError(f"host kind={kind}: the hosts of this pattern have no proxy")
        if fault.kind != "appears":
            self._host(fault)
        with self._lock:
            self._faults.append(fault)
        if fault.when == "now":
            self._strike(fault)

    def shown(self) -> list[dict[str, Any]]:
        """All faults since the last ``clear``."""
        with self._lock:
            return [{"name": "host", **asdict(fault)} for fault in self._faults]

    def clear(self) -> None:
        """Mend what can be mended: a host that has died stays dead."""
        with self._lock:
            self._faults.clear()
        for host in self.fleet.hosts():
            host.silent = False
            (host.machine.own_programs / "ecs-bluegreen-host").unlink(missing_ok=True)
            configuration = self._configuration(host)
            if configuration is not None and configuration.exists():
                text = configuration.read_text()
                if text.endswith(DAMAGE):
                    configuration.write_text(text.removesuffix(DAMAGE))

    # ------------------------------------------------------------- sandbox.ssm.commands.Watcher

    def accepted(self, command: Command) -> None:
        """A command was sent."""
        if command.verb == "commit":
            self._moment("committing")

    def executed(self, command: Command, invocation: Invocation) -> None:
        """An instance has done what it was told."""
        if command.verb == "stage" and command.executed == len(command.invocations):
            self._moment("staged")
        if command.verb == "commit" and invocation.ran is not None and invocation.ran.code == 0:
            self._moment("committed")

    def _moment(self, when: str) -> None:
        with self._lock:
            due = [fault for fault in self._faults if fault.when == when and not fault.hits]
            for fault in due:
                fault.hits += 1
        for fault in due:
            self._strike(fault)

    # ------------------------------------------------------------------------------ what happens

    def _strike(self, fault: HostFault) -> None:
        LOG.info("fault: host %s %s (%s)", fault.host, fault.kind, fault.when)
        fault.hits = 1
        if fault.kind == "appears":
            self._grow()
            return
        host = self._host(fault)
        match fault.kind:
            case "cannot_stage":
                program = host.machine.own_programs / "ecs-bluegreen-host"
                program.write_text(NO_SPACE)
                program.chmod(0o755)
            case "broken_configuration":
                configuration = self._configuration(host)
                assert configuration is not None
                with configuration.open("a") as text:
                    text.write(DAMAGE)
            case "silent":
                host.silent = True
            case "reboots":
                host.reboot()
            case "proxy_restarts":
                host.restart_proxy()
            case "dies":
                host.die()
                if fault.ec2 == "terminated":
                    self._terminate(host)

    def _host(self, fault: HostFault) -> Host:
        numbers = [host.number for host in self.fleet.hosts() if host.state != "dead"]
        if fault.host not in numbers:
            known = ", ".join(map(str, numbers))
            raise ControlError(f"host={fault.host!r}: which one? There is {known}")
        return self.fleet.host(fault.host)

    def _configuration(self, host: Host) -> Any:
        if self._proxy is None:
            return None
        return host.place / CONFIGURATIONS[self._proxy]

    def _terminate(self, host: Host) -> None:
        """End an instance for good: its Auto Scaling group does not replace it."""
        self._scaler.forget(host.instance_id)
        self._world.client("ec2").terminate_instances(InstanceIds=[host.instance_id])

    def _grow(self) -> None:
        """Let the Auto Scaling group, of several the largest, launch one more instance."""
        client = self._world.client("autoscaling")
        groups = client.describe_auto_scaling_groups()["AutoScalingGroups"]
        group = max(groups, key=lambda one: int(one["DesiredCapacity"]))
        wanted = group["DesiredCapacity"] + 1
        client.update_auto_scaling_group(
            AutoScalingGroupName=group["AutoScalingGroupName"],
            MaxSize=max(wanted, group["MaxSize"]),
            DesiredCapacity=wanted,
        )
