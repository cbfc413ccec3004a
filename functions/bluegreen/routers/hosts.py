"""nginx or HAProxy on every host: looked at, and switched, by commands to all hosts.

A host answers a command seconds later, so nothing here waits: a look asks and is answered at the
next pass of the state machine, and a switch goes on from pass to pass (bluegreen/host_switch.py).

The weights that hosts should have are an SSM parameter, which a host reads when it boots: after the
ECS agent has registered it, and before its proxy starts. It is written here before the hosts are
told. So a host either reads the new weights or is among the hosts that the next look shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bluegreen import host_report, host_switch
from bluegreen.color import Color
from bluegreen.configuration import HostRouter, ServiceConfiguration
from bluegreen.errors import DeploymentRefused, HostNotReady, HostNotSwitched
from bluegreen.fleet import Fleet, answer_of
from bluegreen.host_report import HostLook
from bluegreen.host_switch import GRACE_SECONDS, Switch
from bluegreen.look import LOOK_SECONDS, Asked, Look, agreed
from bluegreen.pace import wait_seconds
from bluegreen.routers import Survey
from bluegreen.traffic import Weights

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

# What was answered longer ago than this is asked again: a pass may have been repeated for long.
_OLD_SECONDS = 40
# Hosts read it when they boot (hosts/ecs_bluegreen_host.py), so the name is the same everywhere.
_PARAMETERS = "/bluegreen/hosts"
# From setting the moment to telling the hosts: one pass of the state machine.
_NEXT_PASS_SECONDS = 1
# How many weights a host is told to expect, at most: the pattern of the documents.
_MOST_EXPECTED = 10


@dataclass(frozen=True)
class Documents:
    """Names of the SSM documents."""

    report: str
    stage: str
    commit: str


class Hosts:
    """The hosts of one service.

    tasks: task definition ARN per colour, for hosts that look ports up by it; a colour without one
    keeps what the host knows.
    """

    def __init__(
        self,
        fleet: Fleet,
        ssm: SSMClient,
        documents: Documents,
        configuration: ServiceConfiguration,
        tasks: Mapping[Color, str],
    ) -> None:
        assert isinstance(configuration.router, HostRouter)
        self._fleet = fleet
        self._ssm = ssm
        self._documents = documents
        self._service = configuration.service
        self._router = configuration.router
        self._dynamic = configuration.router.container is not None
        self._tasks = {
            color: tasks.get(color, "").rsplit("/", 1)[-1] if self._dynamic else ""
            for color in Color
        }

    def look(self, asked: Asked | None, now: float) -> HostLook | Asked:
        """Ask all hosts, or read what they have answered. Asked: look again at the next pass."""
        hosts = self._fleet.hosts()
        if asked is None or now - asked.at > _OLD_SECONDS:
            ids = self._fleet.registered([host.instance_id for host in hosts])
            return Asked(self._fleet.send(self._documents.report, self._parameters(), ids), now)
        answers = {
            instance_id: host_report.readable(answer)
            for instance_id, answer in self._fleet.answers(asked.commands).items()
        }
        if now - asked.at < LOOK_SECONDS and any(
            answer_of(host, answers, asked.at, now).state == "pending" for host in hosts
        ):
            return asked
        return HostLook(hosts, answers, self._dynamic)

    def shift(
        self,
        progress: Mapping[str, Any] | None,
        expected: Sequence[Weights],
        weights: Weights,
        intend: Callable[[Weights], None],
        now: float,
    ) -> dict[str, Any]:
        """One pass of a switch of all hosts.

        progress: the ``switch`` that the last pass answered, None at the first. expected: weights
        that a host may have now, the new ones among them. intend is called right before the hosts
        are told to switch. Answers ``status`` "waiting" with ``switch``, or "shifted".

        Raises HostNotReady, when nothing was switched, or HostNotSwitched; both name the hosts.
        """
        hosts = self._fleet.hosts()
        wanted = self._switch_parameters(expected, weights)
        if progress is None:
            ids = [host.instance_id for host in hosts]
            switch = Switch("staging", int(now * 1000), ids, now, now)
            return self._stage(switch, wanted, ids, "asking", now)
        switch = Switch.of(progress)
        answers = self._fleet.answers(switch.commands)
        decision = host_switch.next_step(switch, hosts, answers, now, self._router.answer_seconds)
        match decision.step:
            case "fail" if switch.phase == "staging":
                raise HostNotReady(decision.reason)
            case "fail":
                raise HostNotSwitched(decision.reason)
            case "ask":
                return self._stage(switch, wanted, decision.hosts, decision.reason, now)
            case "set":
                at = now + _NEXT_PASS_SECONDS + self._router.lead_seconds
                ready = replace(switch, phase="set", hosts=decision.hosts, commands=[], at=at)
                return _waiting(ready, decision.reason, now, _NEXT_PASS_SECONDS)
            case "commit":
                intend(weights)
                told = replace(switch, phase="committing", hosts=decision.hosts)
                return _waiting(self._commit(told, wanted, now), decision.reason, now)
            case "done":
                spread = host_switch.spread_ms(answers)
                return {
                    "status": "shifted",
                    "generation": switch.generation,
                    "reason": f"{decision.reason}, within {spread} ms of each other",
                }
            case "wait":
                return _waiting(switch, decision.reason, now)

    def put_back(
        self, look: Look, expected: Sequence[Weights], weights: Weights, now: float
    ) -> dict[str, Any]:
        """Tell all hosts to go back to weights. Answers a ``switch`` that refused() follows.

        Hosts that agree go back together at a set moment; hosts that do not, or that are there
        already, are told to at once. One that does not answer is told as well.
        """
        found = list(look.weights().values())
        together = any(one != weights for one in found) and all(one == found[0] for one in found)
        at = now + self._router.lead_seconds if together else now
        ids = self._fleet.registered([host.instance_id for host in self._fleet.hosts()])
        switch = Switch("committing", int(now * 1000), ids, now, now, at=at)
        return asdict(self._commit(switch, self._switch_parameters(expected, weights), now))

    def refused(self, progress: Mapping[str, Any], now: float) -> str | None:
        """Which hosts did not go back and why, "" if none; None while they may still do so."""
        switch = Switch.of(progress)
        answers = self._fleet.answers(switch.commands)
        decision = host_switch.next_step(
            switch, self._fleet.hosts(), answers, now, self._router.answer_seconds
        )
        if decision.step == "wait":
            return None
        return decision.reason if decision.step == "fail" else ""

    def _stage(
        self,
        switch: Switch,
        wanted: Mapping[str, str],
        instance_ids: Sequence[str],
        reason: str,
        now: float,
    ) -> dict[str, Any]:
        parameters = {**wanted, "Generation": str(switch.generation)}
        reached = self._fleet.registered(instance_ids)
        commands = self._fleet.send(self._documents.stage, parameters, reached)
        return _waiting(
            replace(switch, commands=[*switch.commands, *commands], sent_at=now),
            f"{len(instance_ids)} hosts get ready; {reason}",
            now,
        )

    def _commit(self, switch: Switch, wanted: Mapping[str, str], now: float) -> Switch:
        """Write the parameter, then tell the hosts."""
        self._ssm.put_parameter(
            Name=f"{_PARAMETERS}/{self._service}",
            Description="Weights of the colours on the hosts; read by a host when it boots",
            Value=json.dumps(
                {
                    "generation": switch.generation,
                    "blue": int(wanted["Blue"]),
                    "green": int(wanted["Green"]),
                    "at": round(switch.at, 3),
                    "tasks": {color: task for color, task in self._tasks.items() if task},
                }
            ),
            Type="String",
            Overwrite=True,
        )
        parameters = {
            **wanted,
            "Generation": str(switch.generation),
            "At": f"{switch.at:.3f}",
            "NotAfter": f"{switch.at + GRACE_SECONDS:.3f}",
        }
        commands = self._fleet.send(self._documents.commit, parameters, switch.hosts)
        return replace(switch, commands=commands, asked_at=now, sent_at=now)

    def _parameters(self) -> dict[str, str]:
        return {
            "Service": self._service,
            "BlueTask": self._tasks[Color.BLUE],
            "GreenTask": self._tasks[Color.GREEN],
        }

    def _switch_parameters(self, expected: Sequence[Weights], weights: Weights) -> dict[str, str]:
        # The newest ones: hosts can only have been left at those.
        newest = list(dict.fromkeys([_text(one) for one in reversed([*expected, weights])]))
        return {
            **self._parameters(),
            "Blue": str(weights.get(Color.BLUE, 0)),
            "Green": str(weights.get(Color.GREEN, 0)),
            "Expected": ",".join(newest[:_MOST_EXPECTED]),
        }


def told(client: SSMClient, service: str) -> Weights:
    """The weights that all hosts of a service were told last, and read when they boot.

    Raises DeploymentRefused when nothing was deployed yet.
    """
    try:
        parameter = client.get_parameter(Name=f"{_PARAMETERS}/{service}")["Parameter"]
    except client.exceptions.ParameterNotFound as error:
        raise DeploymentRefused(f"service {service} has not been deployed yet") from error
    document = json.loads(parameter["Value"])
    return {color: int(document[color]) for color in Color}


def survey(look: HostLook, configuration: ServiceConfiguration, dns: str) -> Survey:
    """Everything that a deployment has to know of the hosts. dns: "" if there is nothing to probe.

    Raises DeploymentRefused when they are not fit for one.
    """
    assert isinstance(configuration.router, HostRouter)
    cluster = configuration.colors.blue.cluster
    if all(host.draining for host in look.hosts):
        raise DeploymentRefused(f"cluster {cluster!r} has no container instances that take tasks")
    if unfit := look.unknown() or look.not_running():
        raise DeploymentRefused(unfit)
    host_report.check(look, configuration.router, configuration.colors)
    return Survey(agreed(look.weights()), look.tasks_for, load_balancer_dns=dns)


def _text(weights: Weights) -> str:
    """``blue:green``, or ``none`` when no colour has traffic."""
    blue, green = weights.get(Color.BLUE, 0), weights.get(Color.GREEN, 0)
    return f"{blue}:{green}" if blue or green else "none"


def _waiting(switch: Switch, reason: str, now: float, pause: int | None = None) -> dict[str, Any]:
    # Before the moment that was set there is nothing to see.
    wait = pause or wait_seconds(max(1, int(switch.at - now)), now - switch.asked_at)
    return {"status": "waiting", "reason": reason, "switch": asdict(switch), "wait_seconds": wait}
