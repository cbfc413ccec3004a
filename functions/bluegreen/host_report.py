"""What the hosts report, as a look at the traffic. Pure.

A report is the JSON that ``ecs-bluegreen-host report`` prints (hosts/ecs_bluegreen_host.py):
``weights`` and ``generation`` as the running proxy says, ``answers`` per colour ("" when it answers
on this host, else what was wrong), ``connections`` per colour (null when they cannot be counted),
``running`` ("" or why not), ``restored`` (false from the host's boot until it has read its
weights), and what the proxy was configured for (``proxy``, ``protocol``, ``port``, ``ports``,
``dynamic``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bluegreen.color import Color
from bluegreen.configuration import Colors, HostRouter
from bluegreen.errors import DeploymentRefused
from bluegreen.fleet import NOT_ASKED, Answer, Host
from bluegreen.look import some
from bluegreen.traffic import Weights

_KEYS = frozenset({"generation", "weights", "answers", "connections", "running", "restored"})


@dataclass(frozen=True)
class HostLook:
    """A Look (bluegreen/look.py) at hosts with a proxy each.

    dynamic: whether ECS chooses the host ports, so that a host may have several tasks of a colour.
    """

    hosts: Sequence[Host]
    answers: Mapping[str, Answer]
    dynamic: bool

    def reports(self) -> dict[str, Mapping[str, Any]]:
        """The reports that came, by instance id, but for hosts that are as good as gone."""
        return {
            host.instance_id: answer.said
            for host in self.hosts
            if (answer := self._answer(host)).state == "answered" and self._serves(host)
        }

    def weights(self) -> Mapping[str, Weights]:
        """Weights per host that has reported and may get requests.

        A host that is booting has none: it reads them before its proxy starts, whatever it had.
        """
        return {
            instance_id: _weights(report)
            for instance_id, report in self.reports().items()
            if report["restored"]
        }

    def switched_after(self, generation: int) -> list[str]:
        """Hosts that somebody has switched after the switch of this generation."""
        return [
            instance_id
            for instance_id, report in self.reports().items()
            if int(report["generation"]) > generation
        ]

    def share(self, color: Color) -> int:
        """The largest weight of a colour on any host."""
        return max((weights[color] for weights in self.weights().values()), default=0)

    def targets(self, color: Color) -> list[Mapping[str, Any]]:
        """A target a host: healthy when the proxy runs and the colour answers there."""
        targets: list[Mapping[str, Any]] = []
        for host in filter(self._serves, self.hosts):
            wrong = self._wrong(host, color)
            health: dict[str, str] = {"State": "healthy"}
            if wrong:
                health = {"State": "unhealthy", "Reason": "Host", "Description": wrong}
            targets.append({"Target": {"Id": host.instance_id}, "TargetHealth": health})
        return targets

    def tasks_for(self, count: int) -> int:
        """One task a host; with dynamic ports at least one, and as many as the other colour has."""
        return max(count, self._active()) if self.dynamic else self._active()

    def targets_for(self, color: Color, tasks: int) -> int:  # noqa: ARG002 - a host is one target
        """Every host where a colour answers. Where none does, none could."""
        return sum(1 for host in self.hosts if any(not self._wrong(host, one) for one in Color))

    def has_place_of(self, task: Mapping[str, Any]) -> bool:
        """Whether the host of a task is there."""
        return task.get("containerInstanceArn") in {host.arn for host in self.hosts}

    def unknown(self) -> str:
        """Hosts that have not reported, with the reason of each."""
        return some(
            [
                f"host {host.instance_id} does not say what it does: {answer.reason}"
                for host in self.hosts
                if (answer := self._answer(host)).state != "answered"
            ]
        )

    def not_running(self) -> str:
        """Hosts that say that their proxy does not run, or not as it should."""
        wrong = {
            instance_id: report["running"]
            or ("" if report["restored"] else "it has not read its weights since it booted")
            for instance_id, report in self.reports().items()
        }
        return some([f"host {instance_id}: {why}" for instance_id, why in wrong.items() if why])

    def connections(self, color: Color) -> int | None:
        """Connections to a colour on all hosts; None when one of them does not say."""
        counts = [report["connections"] for report in self.reports().values()]
        if self.unknown() or None in counts:
            return None
        return sum(int(count[color]) for count in counts)

    def _active(self) -> int:
        return sum(1 for host in self.hosts if not host.draining)

    def _answer(self, host: Host) -> Answer:
        return self.answers.get(host.instance_id, NOT_ASKED)

    def _wrong(self, host: Host, color: Color) -> str:
        answer = self._answer(host)
        if answer.state != "answered":
            return f"does not say what it does: {answer.reason}"
        wrong = str(answer.said["running"] or answer.said["answers"][color])
        return f"{wrong} (the instance is draining)" if wrong and host.draining else wrong

    def _serves(self, host: Host) -> bool:
        """Whether the host may get requests, or is to; unknown counts as yes.

        A draining host gets no new tasks, and with dynamic ports ECS leaves some hosts without
        one. Where nothing answers, no request gets through, and what the proxy is set to does not
        matter until a task is there.
        """
        answer = self._answer(host)
        if answer.state != "answered" or any(not self._wrong(host, color) for color in Color):
            return True
        empty = self.dynamic and not any(answer.said["ports"].values())
        return not host.draining and not empty


def readable(answer: Answer) -> Answer:
    """An answer that is no report, from another version of the program say, is no answer."""
    if answer.state == "answered" and not answer.said.keys() >= _KEYS:
        return Answer("failed", {}, "its report lacks what this deployer reads; install it again")
    return answer


def check(look: HostLook, router: HostRouter, colors: Colors) -> None:
    """The hosts have to be what the service configuration says.

    Raises DeploymentRefused with one line per host and difference.
    """
    wanted: dict[str, Any] = {
        "proxy": router.type,
        "protocol": router.protocol,
        "port": router.port,
        "dynamic": look.dynamic,
    }
    if not look.dynamic:
        wanted["ports"] = {
            str(color): [slot.host_port.host_port]
            for color in Color
            if (slot := colors[color]).host_port
        }
    findings = [
        f"host {instance_id}: {name} is {report.get(name)!r} there, {value!r} in the service "
        "configuration; configure the host again (docs/hosts.md)"
        for instance_id, report in look.reports().items()
        for name, value in wanted.items()
        if report.get(name) != value
    ]
    if findings:
        raise DeploymentRefused(some(findings))


def _weights(report: Mapping[str, Any]) -> Weights:
    return {color: int(report["weights"].get(color, 0)) for color in Color}
