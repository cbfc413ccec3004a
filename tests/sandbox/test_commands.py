"""Run Command keeps AWS's habits: whom it tells, how many at a time, and what it says of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from moto.ssm.exceptions import SSMException

from sandbox.ssm import commands
from sandbox.ssm.commands import InvalidInstanceId, RunCommand
from sandbox.ssm.documents import Script
from sandbox.ssm.model import ERROR_TITLE, Command, Details, Invocation, Ran

CONTENT = {
    "schemaVersion": "2.2",
    "mainSteps": [
        {
            "action": "aws:runShellScript",
            "name": "do",
            "inputs": {"runCommand": ["ecs-bluegreen-host stage"]},
        }
    ],
}
EVER = 3600


@dataclass
class Host:
    """``work`` is what a script does on it: it answers how it ended."""

    instance_id: str
    work: Callable[[], Ran | None] = lambda: Ran(0, "done\n", "")
    registered_at: datetime | None = field(default_factory=lambda: datetime.now(UTC))
    pinged_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    address: str = "127.0.0.1"
    online: bool = True
    listening: bool = True
    terminated: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    state: str = "running"

    def execute(self, _script: Script) -> Ran | None:
        return self.work()

    def get_tags(self) -> list[dict[str, str]]:
        return [{"key": key, "value": value} for key, value in self.tags.items()]


@dataclass
class Service:
    """Run Command and the instances that it knows."""

    hosts: list[Host] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    account_id: str = "123456789012"

    def __post_init__(self) -> None:
        self.run_command = RunCommand(self, self)  # type: ignore[arg-type]  # all it needs of a World

    def nodes(self) -> Sequence[Host]:
        return self.hosts

    def backend(self, name: str) -> Any:
        if name == "ec2":
            by_id = {host.instance_id: host for host in self.hosts}
            return SimpleNamespace(get_instance_by_id=by_id.get)
        document = SimpleNamespace(
            name="doc", document_version="1", document_type="Command", content_json=CONTENT
        )
        found = SimpleNamespace(find=lambda _version: document)
        return SimpleNamespace(_get_documents=lambda _name: found)

    def add(self, *numbers: int, **how: Any) -> list[str]:
        self.hosts += [Host(f"i-{number}", **how) for number in numbers]
        return [f"i-{number}" for number in numbers]

    def send(self, instance_ids: list[str], **more: Any) -> Command:
        return self.run_command.send(
            {"DocumentName": "doc", "InstanceIds": instance_ids, "TimeoutSeconds": EVER, **more}
        )

    def details(self, command: Command) -> list[str]:
        return [str(invocation.details) for invocation in command.invocations]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(commands, "DELIVERY_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(commands, "REPORT_SECONDS", (0.0, 0.01))
    made = Service()
    yield made
    made.stopping.set()


def wait_until(true: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def over(command: Command) -> bool:
    return all(invocation.details.final for invocation in command.invocations)


def failed() -> Ran:
    return Ran(3, '{"error": "no"}\n', "")


def test_every_instance_says_how_it_ended(service: Service) -> None:
    command = service.send([*service.add(1), *service.add(2, work=failed)], MaxErrors="100%")
    wait_until(lambda: over(command))
    good, bad = command.invocations
    assert (good.details.status, good.response_code, good.shown_output(2500)) == (
        *("Success", 0),
        "done\n",
    )
    assert (bad.details.status, bad.response_code) == ("Failed", 3)
    assert bad.shown_output(2500) == (
        f'{{"error": "no"}}\n{ERROR_TITLE}failed to run commands: exit status 3'
    )
    assert (command.status, command.details) == ("Failed", "Incomplete")


def test_nothing_is_listed_in_the_first_moment(service: Service) -> None:
    command = service.send(service.add(1))
    assert service.run_command.invocations(command) == []
    wait_until(lambda: len(service.run_command.invocations(command)) == 1)


def test_after_the_first_error_no_further_instance_is_told(service: Service) -> None:
    """MaxErrors is 0 unless something else is said: a partial switch."""
    command = service.send(service.add(1, 2, 3, work=failed), MaxConcurrency="1")
    wait_until(lambda: over(command))
    assert service.details(command) == ["Failed", "Terminated", "Terminated"]
    assert [i.details.status for i in command.invocations] == ["Failed", "Cancelled", "Cancelled"]
    assert command.status == "Failed"


@pytest.mark.parametrize(("allowed", "tried"), [("1", 2), ("50%", 3), ("100%", 4)])
def test_so_many_errors_are_allowed(service: Service, allowed: str, tried: int) -> None:
    ids = service.add(1, 2, 3, 4, work=failed)
    command = service.send(ids, MaxConcurrency="1", MaxErrors=allowed)
    wait_until(lambda: over(command))
    assert command.count(Details.FAILED) == tried


@pytest.mark.parametrize(("limit", "together"), [("1", 1), ("50%", 2), ("100%", 4), ("9", 4)])
def test_so_many_run_at_a_time(service: Service, limit: str, together: int) -> None:
    running: list[int] = []
    most = 0
    lock = threading.Lock()

    def work() -> Ran:
        nonlocal most
        with lock:
            running.append(1)
            most = max(most, len(running))
        time.sleep(0.1)
        with lock:
            running.pop()
        return Ran(0, "", "")

    command = service.send(service.add(1, 2, 3, 4, work=work), MaxConcurrency=limit)
    wait_until(lambda: over(command))
    assert most == together


def test_two_commands_run_on_one_instance_at_a_time(service: Service) -> None:
    both = threading.Barrier(2)

    def work() -> Ran:
        both.wait(5)
        return Ran(0, "", "")

    ids = service.add(1, work=work)
    sent = [service.send(ids), service.send(ids)]
    wait_until(lambda: all(map(over, sent)))
    assert [service.details(command) for command in sent] == [["Success"], ["Success"]]


def test_a_terminated_instance_leaves_its_invocation_pending_for_ever(service: Service) -> None:
    ids = service.add(1, listening=False)
    command = service.send(ids)
    service.hosts[0].terminated = True
    time.sleep(0.1)
    assert service.details(command) == ["Pending"]
    with pytest.raises(InvalidInstanceId, match="i-1"):
        service.send(ids)


def test_an_instance_that_ends_meanwhile_stays_in_progress(service: Service) -> None:
    command = service.send(service.add(1, work=lambda: None))
    wait_until(lambda: service.details(command) == ["InProgress"])
    time.sleep(0.1)
    assert service.details(command) == ["InProgress"]
    assert command.details == "InProgress"


def test_an_agent_that_comes_back_in_time_gets_its_commands(service: Service) -> None:
    command = service.send(service.add(1, listening=False, online=False))
    wait_until(lambda: service.details(command) == ["Delayed"])
    service.hosts[0].online = service.hosts[0].listening = True
    wait_until(lambda: service.details(command) == ["Success"])


@pytest.mark.parametrize(
    ("online", "details", "status"),
    [(True, "DeliveryTimedOut", "TimedOut"), (False, "Undeliverable", "Failed")],
)
def test_an_agent_that_does_not_come_back(
    service: Service, online: bool, details: str, status: str
) -> None:
    command = service.send(service.add(1, listening=False, online=online))
    command.requested_at -= timedelta(seconds=EVER)
    wait_until(lambda: over(command))
    assert service.details(command) == [details]
    assert command.invocations[0].details.status == status
    assert command.invocations[0].shown_output(2500) == ""
    assert not command.too_many_errors


def test_a_script_that_takes_too_long(service: Service) -> None:
    command = service.send(service.add(1, work=lambda: Ran(None, "half", "")))
    wait_until(lambda: over(command))
    assert service.details(command) == ["ExecutionTimedOut"]
    assert command.too_many_errors


def test_a_command_can_be_cancelled_before_it_is_delivered(service: Service) -> None:
    command = service.send(service.add(1, listening=False))
    service.run_command.cancel(command)
    wait_until(lambda: over(command))
    assert (command.status, service.details(command)) == ("Cancelled", ["Cancelled"])


def test_instances_are_chosen_by_tag(service: Service) -> None:
    service.add(1, 2, tags={"ecs-bluegreen": "host"})
    service.add(3, tags={"ecs-bluegreen": "other"})
    service.add(4, tags={"ecs-bluegreen": "host"}, terminated=True)
    service.add(5, tags={"ecs-bluegreen": "host"}, registered_at=None)
    command = service.send([], Targets=[{"Key": "tag:ecs-bluegreen", "Values": ["host"]}])
    assert [one.instance_id for one in command.invocations] == ["i-1", "i-2"]


def test_an_instance_that_has_not_registered_takes_no_command(service: Service) -> None:
    service.add(1, registered_at=None)
    for unknown in ("i-1", "i-2"):
        with pytest.raises(InvalidInstanceId, match=unknown):
            service.send([unknown])


def test_unknown_commands(service: Service) -> None:
    with pytest.raises(SSMException, match="InvalidCommandId"):
        service.run_command.find("00000000-0000-0000-0000-000000000000")


def test_who_watches_is_told_before_anybody_sees_it(service: Service) -> None:
    told: list[Any] = []

    class Watcher:
        def accepted(self, command: Command) -> None:
            told.append((command.verb, command.executed))

        def executed(self, command: Command, invocation: Invocation) -> None:
            told.append((str(invocation.details), command.executed))

    service.run_command.watcher = Watcher()
    command = service.send(service.add(1))
    wait_until(lambda: over(command))
    assert told == [("stage", 0), ("InProgress", 1)]


@pytest.mark.parametrize(
    ("ran", "shown"),
    [
        (Ran(0, "a" * 120, ""), "a" * 77 + "\n---Output truncated---"),
        (Ran(0, "out", "err"), f"out{ERROR_TITLE}err"),
        (Ran(0, "", "e" * 200), ERROR_TITLE + "e" * 15 + "\n---Error truncated----"),
    ],
)
def test_an_output_that_is_too_long_says_so(ran: Ran, shown: str) -> None:
    assert Invocation("i-1", "do", ran=ran).shown_output(100) == shown
