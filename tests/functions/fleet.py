"""Hosts with a proxy each, and what ECS, EC2 and SSM know of them: a stand-in with state.

A host answers as hosts/ecs_bluegreen_host.py does; what a command may be given is read from the
documents of hosts/documents. Time is the clock of the world: what was due since the last look
happens in its order when somebody looks again.
"""

from __future__ import annotations

import heapq
import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from bluegreen.color import Color

DOCUMENTS = Path(__file__).parents[2] / "hosts" / "documents"
DELIVERY_SECONDS, DELIVERY_TIMEOUT = 0.2, 30
MOST_INSTANCES = 50
# What the shell adds when a script has failed.
EXIT_STATUS = "\n----------ERROR-------\nfailed to run commands: exit status 1"


class Refused(Exception):
    """The program of a host ends with ``{"error": …}``."""


class AwsError(Exception):
    """An error that SendCommand answers: code, message."""


@dataclass
class Host:
    """A container instance as its proxy is now.

    weights: {} when no colour has traffic. answers: "" per colour whose tasks answer here.
    seen: the newest generation that it was ever told. refuses: verb → why its program fails.
    restored: it has read its weights since it booted. connections: None when they cannot be
    counted. arn, draining: as ECS has it; room: CPU units and MiB that are left. ec2: the state
    that EC2 shows. silent: its SSM agent takes no command. registered: with SSM. tagged: as the
    policy of the functions asks for. told: the verbs that it has carried out.
    """

    instance_id: str
    weights: dict[Color, int]
    proxy: dict[str, Any]
    generation: int = 1
    seen: int = 1
    switched_at: float | None = None
    answers: dict[Color, str] = field(default_factory=dict)
    connections: dict[Color, int] | None = field(default_factory=lambda: dict.fromkeys(Color, 0))
    running: str = ""
    restored: bool = True
    refuses: dict[str, str] = field(default_factory=dict)
    draining: bool = False
    room: int = 4096
    ec2: str = "running"
    silent: bool = False
    registered: bool = True
    tagged: bool = True
    told: list[str] = field(default_factory=list)

    @property
    def arn(self) -> str:
        return f"arn:aws:ecs:eu-west-1:123456789012:container-instance/web/{self.instance_id}"

    @property
    def gone(self) -> bool:
        return self.ec2 not in ("pending", "running")

    def report(self, _order: Mapping[str, str], now: float) -> dict[str, Any]:
        return {
            **self.proxy,
            "generation": self.generation,
            "weights": self.weights,
            "switched_at": self.switched_at,
            "staged": None,
            "answers": self.answers,
            "connections": self.connections,
            "running": self.running,
            "restored": self.restored,
            "clock": now,
        }

    def stage(self, order: Mapping[str, str], _now: float) -> dict[str, Any]:
        generation = int(order["Generation"])
        for color, weight in _wanted(order).items():
            if weight and self.answers[color]:
                raise Refused(f"{color} does not answer on this host: {self.answers[color]}")
        if generation <= self.generation:
            raise Refused(f"generation {generation} is not newer than {self.generation}")
        if self.running:
            raise Refused(self.running)
        self._check_weights(order)
        self.seen = max(self.seen, generation)
        return {"staged": generation, "ports": self.proxy["ports"]}

    def prepare(self, order: Mapping[str, str], now: float) -> dict[str, Any] | None:
        """A commit that has just come; its answer if it need not wait for its moment."""
        done = self._committed(order)
        if done:
            return done
        self._check_time(order, now)
        self._check_weights(order)
        return None

    def switch(self, order: Mapping[str, str], now: float) -> dict[str, Any]:
        """A commit at its moment."""
        done = self._committed(order)
        if done:
            return done
        self._check_weights(order)
        self._check_time(order, now)
        self.generation = self.seen = int(order["Generation"])
        self.weights, self.switched_at = _wanted(order), now
        return self._verified(late_ms=round((now - float(order["At"])) * 1000, 1))

    def restore(self, wanted: Mapping[str, Any], now: float) -> None:
        """What a host makes of the parameter when it boots; then its proxy starts."""
        self.restored, self.running = True, ""
        if int(wanted["generation"]) > self.generation:
            self.weights = _wanted({"Blue": str(wanted["blue"]), "Green": str(wanted["green"])})
            self.generation = self.seen = int(wanted["generation"])
            self.switched_at = now

    def _committed(self, order: Mapping[str, str]) -> dict[str, Any] | None:
        generation = int(order["Generation"])
        if self.generation > generation:
            raise Refused(f"generation {generation} is older than {self.generation}")
        return self._verified(late_ms=None) if self.generation == generation else None

    def _verified(self, late_ms: float | None) -> dict[str, Any]:
        if self.running:
            raise Refused(f"generation {self.generation} is on disk, but {self.running}")
        return {
            "generation": self.generation,
            "weights": self.weights,
            "switched_at": self.switched_at,
            "late_ms": late_ms,
        }

    def _check_weights(self, order: Mapping[str, str]) -> None:
        now = _words(self.weights)
        if now not in order["Expected"].split(","):
            raise Refused(f"the traffic is {now} (blue:green), not {order['Expected']}")

    @staticmethod
    def _check_time(order: Mapping[str, str], now: float) -> None:
        late = now - float(order["NotAfter"])
        if late > 0:
            raise Refused(f"too late by {late:.3f} s")


@cache
def _parameters(verb: str) -> dict[str, Any]:
    """What a document declares."""
    document = yaml.safe_load((DOCUMENTS / f"{verb}.yaml").read_text())
    return dict(document["parameters"])


def _wanted(order: Mapping[str, str]) -> dict[Color, int]:
    blue, green = int(order["Blue"]), int(order["Green"])
    assert blue + green in (0, 100)
    return {Color.BLUE: blue, Color.GREEN: green} if blue or green else {}


def _words(weights: Mapping[Color, int]) -> str:
    return f"{weights[Color.BLUE]}:{weights[Color.GREEN]}" if weights else "none"


@dataclass
class Invocation:
    """A command on one host, as ListCommandInvocations shows it."""

    instance_id: str
    details: str = "Pending"
    output: str = ""

    @property
    def status(self) -> str:
        return {"DeliveryTimedOut": "TimedOut", "Undeliverable": "Failed"}.get(
            self.details, self.details
        )


@dataclass
class Command:
    """verb: report, stage or commit."""

    id: str
    verb: str
    order: dict[str, str]
    sent_at: float
    invocations: dict[str, Invocation]


class Fleet:
    """All hosts, and the commands that were sent to them.

    names: verb → name of the SSM document. listed_after: seconds until a command that was accepted
    is listed.
    """

    def __init__(self, clock: Callable[[], float], names: Mapping[str, str]) -> None:
        self.hosts: dict[str, Host] = {}
        self.commands: dict[str, Command] = {}
        self.listed_after = 0.1
        self._clock = clock
        self._verbs = {name: verb for verb, name in names.items()}
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = itertools.count(1)

    def operations(self) -> dict[tuple[str, str], Callable[[Mapping[str, Any]], dict[str, Any]]]:
        """(service, operation) → what answers it, given the request's body."""
        return {
            ("ecs", "ListContainerInstances"): self._list_container_instances,
            ("ecs", "DescribeContainerInstances"): self._describe_container_instances,
            ("ec2", "DescribeInstances"): self._describe_instances,
            ("ssm", "DescribeInstanceInformation"): self._describe_instance_information,
            ("ssm", "SendCommand"): self._send_command,
            ("ssm", "ListCommandInvocations"): self._list_command_invocations,
        }

    def at(self, moment: float, happens: Callable[[float], None]) -> None:
        """Something that happens at a moment of the clock."""
        heapq.heappush(self._due, (moment, next(self._number), happens))

    def catch_up(self) -> None:
        """Let all happen that is due by now."""
        while self._due and self._due[0][0] <= self._clock():
            moment, _, happens = heapq.heappop(self._due)
            happens(moment)

    def sent(self, verb: str) -> list[Command]:
        return [command for command in self.commands.values() if command.verb == verb]

    # The API

    def _list_container_instances(self, _body: Mapping[str, Any]) -> dict[str, Any]:
        return {"containerInstanceArns": [host.arn for host in self.hosts.values()]}

    def _describe_container_instances(self, body: Mapping[str, Any]) -> dict[str, Any]:
        wanted = body["containerInstances"]
        assert 0 < len(wanted) <= 100
        return {
            "containerInstances": [
                {
                    "containerInstanceArn": host.arn,
                    "ec2InstanceId": host.instance_id,
                    "status": "DRAINING" if host.draining else "ACTIVE",
                    "agentConnected": True,
                    "remainingResources": [
                        {"name": "CPU", "type": "INTEGER", "integerValue": host.room},
                        {"name": "MEMORY", "type": "INTEGER", "integerValue": host.room},
                        {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22"]},
                    ],
                }
                for host in self.hosts.values()
                if host.arn in wanted
            ]
        }

    def _describe_instances(self, body: Mapping[str, Any]) -> dict[str, Any]:
        filters = {
            value: {one for name, one in body.items() if name.startswith(f"Filter.{number}.Value.")}
            for number in (1, 2)
            for value in [body[f"Filter.{number}.Name"]]
        }
        assert set(filters) == {"instance-id", "instance-state-name"}
        assert all(len(values) <= 200 for values in filters.values())
        found = [
            {"InstanceId": host.instance_id, "State": {"Name": host.ec2}}
            for host in self.hosts.values()
            if host.instance_id in filters["instance-id"]
            and host.ec2 in filters["instance-state-name"]
        ]
        return {"Reservations": [{"ReservationId": "r-1", "Instances": found}]}

    def _describe_instance_information(self, body: Mapping[str, Any]) -> dict[str, Any]:
        [wanted] = body["Filters"]
        assert wanted["Key"] == "InstanceIds"
        assert len(wanted["Values"]) <= 100
        found = [
            {"InstanceId": host.instance_id, "PingStatus": "Online"}
            for host in self.hosts.values()
            if host.registered and host.instance_id in wanted["Values"]
        ]
        return _page("InstanceInformationList", found, body)

    def _send_command(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.catch_up()
        verb, ids = self._verbs[body["DocumentName"]], body["InstanceIds"]
        given = {name: values[0] for name, values in body["Parameters"].items()}
        self._check(verb, ids, given)
        assert body["MaxConcurrency"] == body["MaxErrors"] == "100%"
        assert body["TimeoutSeconds"] == DELIVERY_TIMEOUT
        now = self._clock()
        command = Command(
            # Unlike a number also in a world that goes on where another one was kept.
            id=str(uuid.uuid4()),
            verb=verb,
            order=given,
            sent_at=now,
            invocations={one: Invocation(one) for one in ids},
        )
        self.commands[command.id] = command
        for one in ids:
            self._deliver(command, self.hosts[one], now + DELIVERY_SECONDS)
        return {"Command": {"CommandId": command.id, "Status": "Pending"}}

    def _list_command_invocations(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.catch_up()
        assert body["Details"] is True
        command = self.commands[body["CommandId"]]
        listed = self._clock() - command.sent_at >= self.listed_after
        shown = [
            {
                "CommandId": command.id,
                "InstanceId": one.instance_id,
                "Status": one.status,
                "StatusDetails": one.details,
                "CommandPlugins": [{"Name": command.verb, "Output": one.output[:2500]}],
            }
            for one in command.invocations.values()
            if listed
        ]
        return _page("CommandInvocations", shown, body)

    def _check(self, verb: str, ids: list[str], given: Mapping[str, str]) -> None:
        if not 0 < len(ids) <= MOST_INSTANCES or len(ids) != len(set(ids)):
            raise AwsError("ValidationException", "instanceIds")
        known = {one.instance_id for one in self.hosts.values() if one.registered and not one.gone}
        if not set(ids) <= known:
            raise AwsError("InvalidInstanceId", f"Instances {sorted(set(ids) - known)}")
        if not all(self.hosts[one].tagged for one in ids):
            raise AwsError("AccessDeniedException", "not authorized to perform this")
        declared = _parameters(verb)
        if not set(given) <= set(declared):
            raise AwsError("InvalidParameters", f"{sorted(set(given) - set(declared))}")
        for name, one in declared.items():
            value = given.get(name, one.get("default"))
            if value is None or not re.fullmatch(one["allowedPattern"], value):
                raise AwsError("InvalidParameters", f"{name}: {value!r}")

    # On the hosts

    def _deliver(self, command: Command, host: Host, moment: float) -> None:
        def arrives(now: float) -> None:
            if host.gone:
                # Nobody is left to tell how it ended.
                return
            if not host.silent:
                self._execute(command, host, now)
            elif now - command.sent_at >= DELIVERY_TIMEOUT:
                command.invocations[host.instance_id].details = "DeliveryTimedOut"
            else:
                self._deliver(command, host, now + 1)

        self.at(moment, arrives)

    def _execute(self, command: Command, host: Host, now: float) -> None:
        host.told.append(command.verb)
        invocation = command.invocations[host.instance_id]
        invocation.details = "InProgress"

        def at_its_moment(moment: float) -> None:
            if not host.gone:
                _run(invocation, host.switch, command.order, moment)

        if command.verb in host.refuses:
            _end(invocation, "Failed", {"error": host.refuses[command.verb]}, EXIT_STATUS)
            return
        program = {"report": host.report, "stage": host.stage, "commit": host.prepare}[command.verb]
        _run(invocation, program, command.order, now)
        if invocation.details == "InProgress":
            self.at(max(now, float(command.order["At"])), at_its_moment)


def _run(
    invocation: Invocation,
    program: Callable[[Mapping[str, str], float], dict[str, Any] | None],
    order: Mapping[str, str],
    moment: float,
) -> None:
    try:
        answer = program(order, moment)
    except Refused as refused:
        _end(invocation, "Failed", {"error": str(refused)}, EXIT_STATUS)
        return
    if answer is not None:
        _end(invocation, "Success", answer)


def _end(invocation: Invocation, details: str, said: Mapping[str, Any], more: str = "") -> None:
    invocation.details = details
    invocation.output = json.dumps(said) + "\n" + more


def answering(
    operation: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> Callable[..., tuple[SimpleNamespace, dict[str, Any]]]:
    """An operation as a hook that answers in the place of AWS, right before the call is made."""

    def hook(**event: Any) -> tuple[SimpleNamespace, dict[str, Any]]:
        body = event["params"]["body"]
        try:
            answer, status = operation(json.loads(body) if isinstance(body, bytes) else body), 200
        except AwsError as error:
            code, message = error.args
            answer, status = {"Error": {"Code": code, "Message": message}}, 400
        metadata = {"ResponseMetadata": {"HTTPStatusCode": status}}
        return SimpleNamespace(status_code=status), answer | metadata

    return hook


def _page(name: str, items: Iterable[Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """One page of a list, as every SSM list has them; 20 by default, where AWS says nothing."""
    every, start = list(items), int(body.get("NextToken") or 0)
    end = start + int(body.get("MaxResults") or 20)
    more = {"NextToken": str(end)} if end < len(every) else {}
    return {name: every[start:end], **more}
