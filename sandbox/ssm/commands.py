"""Sends commands to instances and keeps account of each: what SSM's Run Command does.

AWS's habits:
  - SendCommand is refused for an instance whose agent has not registered (InvalidInstanceId), and
    for one that was terminated; it says nothing about whether the agent still listens;
  - a command that was just sent shows no invocation for a moment;
  - it reaches the agent some 100 ms later, and its end is known some 50 ms after it: both differ
    from instance to instance;
  - an agent that is not heard of gets it later, until TimeoutSeconds are over (DeliveryTimedOut, or
    Undeliverable where SSM knew the agent to be lost); an instance that is terminated before leaves
    its invocation as it is, for ever;
  - MaxConcurrency (50) limits on how many it is at a time; after more than MaxErrors (0) errors it
    is sent to no further instance, and what is under way goes on;
  - several commands can run on one instance at a time;
  - the agent puts what a script has printed, if anything, into the bucket that the command names,
    with the instance's own permissions and before it tells the end; if it cannot, nobody hears of
    it but the agent's log.
"""

from __future__ import annotations

import logging
import queue
import random
import re
import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from moto.ssm.exceptions import InvalidDocument, SSMException

from sandbox.ssm.documents import check_content, resolve, script_of
from sandbox.ssm.model import Command, Details, Invocation, Node, Nodes, Output, Ran
from sandbox.world import World, make_client

DELIVERY_SECONDS = (0.08, 0.3)
REPORT_SECONDS = (0.02, 0.1)
INVISIBLE_SECONDS = 0.1
POLL_SECONDS = 0.02
KEPT_COMMANDS = 2000
VERB = re.compile(r"\becs-bluegreen-host\s+([a-z]+)\b")

LOG = logging.getLogger(__name__)


class InvalidInstanceId(SSMException):
    """A command for an instance that takes none."""

    def __init__(self, instance_ids: Sequence[str], account_id: str) -> None:
        super().__init__(
            "InvalidInstanceId",
            f"Instances [[{', '.join(instance_ids)}]] not in a valid state for account "
            f"{account_id}",
        )


class Watcher(Protocol):
    """Who wants to know how a command goes; called before anybody else can see it."""

    def accepted(self, command: Command) -> None:
        """No instance has it yet."""

    def executed(self, command: Command, invocation: Invocation) -> None:
        """A script has ended; ``command.executed`` counts it already."""


class RunCommand:
    """All commands that were sent."""

    def __init__(self, world: World, nodes: Nodes) -> None:
        self._world = world
        self._nodes = nodes
        self._lock = threading.Lock()
        self._commands: dict[str, Command] = {}
        self.watcher: Watcher | None = None

    # --------------------------------------------------------------------------- the operations

    def send(self, given: Mapping[str, Any]) -> Command:
        """SendCommand; raises AWS's errors."""
        document, content = self._document(given["DocumentName"], given.get("DocumentVersion"))
        parameters = given.get("Parameters") or {}
        script = script_of(content, resolve(content, parameters))
        instance_ids = list(given.get("InstanceIds") or [])
        targets = given.get("Targets") or []
        if instance_ids:
            self._check(instance_ids)
        verb = VERB.search(script.text)
        command = Command(
            id=str(uuid.uuid4()),
            document=document.name,
            document_version=document.document_version,
            verb=verb[1] if verb else None,
            script=script,
            parameters=parameters,
            instance_ids=instance_ids,
            targets=targets,
            timeout=float(given.get("TimeoutSeconds") or 3600),
            max_concurrency=given.get("MaxConcurrency") or "50",
            max_errors=given.get("MaxErrors") or "0",
            comment=given.get("Comment") or "",
            output=(
                Output(given["OutputS3BucketName"], given.get("OutputS3KeyPrefix") or "")
                if given.get("OutputS3BucketName")
                else None
            ),
            invocations=[
                Invocation(instance_id, script.step)
                for instance_id in (instance_ids or self._chosen(targets))
            ],
        )
        with self._lock:
            for old in list(self._commands)[: max(0, len(self._commands) - KEPT_COMMANDS)]:
                del self._commands[old]
            self._commands[command.id] = command
        LOG.info("command %s: %s to %d", command.id, document.name, len(command.invocations))
        if self.watcher is not None:
            self.watcher.accepted(command)
        self._start(command)
        return command

    def find(self, command_id: str) -> Command:
        """A command by its id; raises InvalidCommandId."""
        with self._lock:
            command = self._commands.get(command_id)
        if command is None:
            raise SSMException("InvalidCommandId", "")
        return command

    def all(self) -> list[Command]:
        """Every command, the newest first."""
        with self._lock:
            return list(reversed(self._commands.values()))

    @staticmethod
    def invocations(command: Command) -> list[Invocation]:
        """Those that show already."""
        age = (datetime.now(UTC) - command.requested_at).total_seconds()
        return [] if age < INVISIBLE_SECONDS else list(command.invocations)

    def cancel(self, command: Command) -> None:
        """Send it to nobody any more; what runs goes on, as far as the sandbox simulates it."""
        command.cancelled.set()

    def nodes(self) -> list[Node]:
        """The instances whose agents have registered."""
        return [node for node in self._nodes.nodes() if node.registered_at is not None]

    # ------------------------------------------------------------------------------- the checks

    def _document(self, reference: str, version: str | None) -> tuple[Any, Mapping[str, Any]]:
        """moto's document and its content; raises InvalidDocument, InvalidDocumentContent."""
        backend = self._world.backend("ssm")
        name = reference.rpartition(":document/")[2]
        wanted = None if version == "$DEFAULT" else version
        document = backend._get_documents(name).find(wanted)
        if document.document_type != "Command":
            raise InvalidDocument(f"Document {name} is of the type {document.document_type}.")
        content: Mapping[str, Any] = document.content_json
        check_content(content)
        return document, content

    def _check(self, instance_ids: Sequence[str]) -> None:
        if len(set(instance_ids)) != len(instance_ids):
            raise SSMException("DuplicateInstanceId", "")
        known = {node.instance_id for node in self.nodes() if not node.terminated}
        wrong = [instance_id for instance_id in instance_ids if instance_id not in known]
        if wrong:
            raise InvalidInstanceId(wrong, self._world.account_id)

    def _chosen(self, targets: Sequence[Mapping[str, Any]]) -> list[str]:
        """The instances that all targets name: by id, or by a tag and its values."""
        backend = self._world.backend("ec2")
        found = []
        for node in self.nodes():
            if node.terminated:
                continue
            instance = backend.get_instance_by_id(node.instance_id)
            tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
            if all(_names(target, node.instance_id, tags) for target in targets):
                found.append(node.instance_id)
        return found

    # ------------------------------------------------------------------------------- the sending

    def _start(self, command: Command) -> None:
        """Send to as many instances at a time as MaxConcurrency says."""
        waiting: queue.SimpleQueue[Invocation] = queue.SimpleQueue()
        for invocation in command.invocations:
            waiting.put(invocation)

        def work() -> None:
            while True:
                try:
                    invocation = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._invoke(command, invocation)
                except Exception:
                    LOG.exception("command %s on %s", command.id, invocation.instance_id)

        for _ in range(min(command.concurrency, len(command.invocations))):
            threading.Thread(target=work, name=f"command-{command.id[:8]}", daemon=True).start()

    def _invoke(self, command: Command, invocation: Invocation) -> None:
        node = self._deliver(command, invocation)
        if node is None:
            return
        invocation.started_at = datetime.now(UTC)
        invocation.details = Details.IN_PROGRESS
        ran = node.execute(command.script)
        if ran is None:
            return  # the instance has ended, and nobody is left to tell
        with self._lock:
            command.executed += 1
        invocation.ran = ran
        invocation.finished_at = datetime.now(UTC)
        self._upload(command, invocation, ran)
        if self.watcher is not None:
            self.watcher.executed(command, invocation)
        self._wait(random.uniform(*REPORT_SECONDS))
        while not node.listening:
            if node.terminated or self._wait(POLL_SECONDS):
                return
        match ran.code:
            case 0:
                invocation.details = Details.SUCCESS
            case None:
                invocation.details = Details.EXECUTION_TIMED_OUT
            case _:
                invocation.details = Details.FAILED

    def _upload(self, command: Command, invocation: Invocation, ran: Ran) -> None:
        if command.output is None:
            return
        bucket = command.output.bucket
        client = make_client("s3", self._world.aws_endpoint, access_key=invocation.instance_id)
        for name, text in (("stdout", ran.output), ("stderr", invocation.error_output())):
            key = command.output.key(command.id, invocation, name)
            try:
                if text:
                    client.put_object(Bucket=bucket, Key=key, Body=text.encode())
            except (ClientError, BotoCoreError) as error:
                LOG.warning("%s: s3://%s/%s: %s", invocation.instance_id, bucket, key, error)

    def _deliver(self, command: Command, invocation: Invocation) -> Node | None:
        """Wait until the agent takes the command; None when it never will."""
        node = next(n for n in self.nodes() if n.instance_id == invocation.instance_id)
        lost = not node.online
        due = self._wait(random.uniform(*DELIVERY_SECONDS))
        while not due:
            if node.terminated:
                return None
            if command.cancelled.is_set():
                invocation.details = Details.CANCELLED
                return None
            if command.too_many_errors:
                invocation.details = Details.TERMINATED
                return None
            if node.listening:
                return node
            if not node.online:
                invocation.details = Details.DELAYED
            if datetime.now(UTC) > command.delivery_deadline:
                invocation.details = Details.UNDELIVERABLE if lost else Details.DELIVERY_TIMED_OUT
                return None
            due = self._wait(POLL_SECONDS)
        return None

    def _wait(self, seconds: float) -> bool:
        """Sleep; whether the sandbox ends."""
        return self._world.stopping.wait(seconds)


def _names(target: Mapping[str, Any], instance_id: str, tags: Mapping[str, str]) -> bool:
    key, values = target["Key"], target.get("Values") or []
    if key.lower() == "instanceids":
        return instance_id in values
    kind, colon, name = key.partition(":")
    if kind == "tag" and colon:
        return tags.get(name) in values
    if key == "tag-key":
        return any(value in tags for value in values)
    raise SSMException("InvalidTarget", f"the sandbox knows tag:NAME, tag-key, InstanceIds: {key}")
