"""Step Functions, Lambda and ECS with one container instance, and nothing else.

moto's state is global to a process, so they run in one of their own: this module, as a program.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import boto3
import requests

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = "small"
REPOSITORY = "job"
LOG_GROUP = "/ecs/job"
ROLE = "arn:aws:iam::123456789012:role/any"
END_SECONDS = 30.0
Found = TypeVar("Found")


@dataclass
class WorkflowStack:
    """``directory`` is its own; ``idle_seconds``: how long a function without work is kept."""

    directory: Path
    idle_seconds: float = 60.0
    endpoint: str = ""
    clients: dict[str, Any] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with (self.directory / "output.txt").open("w") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.sandbox.workflow_stack"),
                    *(str(self.directory), str(self.idle_seconds)),
                ],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        if not self.endpoint:
            self._process.communicate()
            raise AssertionError((self.directory / "output.txt").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=20)
            assert self._process.returncode == 0

    def client(self, service: str) -> Any:
        if service not in self.clients:
            self.clients[service] = boto3.client(  # type: ignore[call-overload]
                service,
                endpoint_url=self.endpoint,
                region_name="ap-northeast-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
            )
        return self.clients[service]

    def control(self, method: str, path: str) -> Any:
        answer = requests.request(method, f"{self.endpoint}/_sandbox/{path}", json={}, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    # -------------------------------------------------------------------------- functions

    def create_function(self, name: str, code: str, **more: Any) -> str:
        """Create a function ``index.handler``; its ARN."""
        created = self.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=ROLE,
            Handler="index.handler",
            Code={"ZipFile": zipped({"index.py": code})},
            **more,
        )
        return str(created["FunctionArn"])

    def invoke(self, name: str, payload: Any) -> tuple[Any, str | None]:
        """What a function returns, and its FunctionError."""
        answer = self.client("lambda").invoke(FunctionName=name, Payload=json.dumps(payload))
        return json.loads(answer["Payload"].read()), answer.get("FunctionError")

    # ------------------------------------------------------------------------- executions

    def create_machine(self, name: str, definition: Mapping[str, Any]) -> str:
        created = self.client("stepfunctions").create_state_machine(
            name=name, roleArn=ROLE, definition=json.dumps(definition)
        )
        return str(created["stateMachineArn"])

    def begin(self, machine: str, request: Any = None, name: str | None = None) -> str:
        more = {} if name is None else {"name": name}
        started = self.client("stepfunctions").start_execution(
            stateMachineArn=machine, input=json.dumps(request or {}), **more
        )
        return str(started["executionArn"])

    def end(self, execution: str) -> dict[str, Any]:
        """Wait for the end of an execution; its description, with input and output parsed."""

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = self.describe(execution)
            return None if found["status"] == "RUNNING" else found

        found = until(ended)
        return found | {key: json.loads(found[key]) for key in ("output",) if key in found}

    def describe(self, execution: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client("stepfunctions").describe_execution(
            executionArn=execution
        )
        return found

    def run(self, name: str, state: Mapping[str, Any], request: Any = None) -> dict[str, Any]:
        """Run a state machine of this one state to its end."""
        return self.end(self.begin(self.create_machine(name, machine(state)), request))

    def stop_execution(self, execution: str) -> None:
        self.client("stepfunctions").stop_execution(executionArn=execution)

    def history(self, execution: str) -> list[dict[str, Any]]:
        answer = self.client("stepfunctions").get_execution_history(executionArn=execution)
        events: list[dict[str, Any]] = answer["events"]
        return events

    def types(self, execution: str) -> list[str]:
        return [event["type"] for event in self.history(execution)]

    # ------------------------------------------------------------------------------- tasks

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks that there have been."""
        ecs = self.client("ecs")
        # One that is stopped in between is listed twice.
        arns = {
            arn
            for status in ("RUNNING", "STOPPED")
            for arn in ecs.list_tasks(cluster=CLUSTER, desiredStatus=status)["taskArns"]
        }
        if not arns:
            return []
        found: list[dict[str, Any]] = ecs.describe_tasks(
            cluster=CLUSTER, tasks=sorted(arns), include=["TAGS"]
        )["tasks"]
        return found

    def register(self, family: str, *containers: Mapping[str, Any], **more: Any) -> str:
        """Register a task definition; each container says what differs from a plain one."""
        registered = self.client("ecs").register_task_definition(
            family=family,
            containerDefinitions=[
                {
                    "name": "job",
                    "image": f"123456789012.dkr.ecr.ap-northeast-1.amazonaws.com/{REPOSITORY}:v1",
                    "memory": 64,
                    "logConfiguration": {
                        "logDriver": "awslogs",
                        "options": {
                            "awslogs-group": LOG_GROUP,
                            "awslogs-region": "ap-northeast-1",
                            "awslogs-stream-prefix": family,
                        },
                    },
                    **container,
                }
                for container in containers or ({},)
            ],
            **more,
        )
        return str(registered["taskDefinition"]["taskDefinitionArn"])

    def log_lines(self, stream: str) -> list[str]:
        answer = self.client("logs").get_log_events(logGroupName=LOG_GROUP, logStreamName=stream)
        return [event["message"] for event in answer["events"]]


def machine(state: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A state machine of one state."""
    return {"StartAt": "Only", "States": {"Only": {"End": True, **state}}, **more}


def until(look: Callable[[], Found | None]) -> Found:
    """Look until there is something to see, or fail."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {END_SECONDS} s")


def zipped(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def main(directory: Path, idle_seconds: float) -> None:
    """Run the stack until standard input ends."""
    # moto is slow to load, and the test that imports this module does not need it.
    from sandbox import ecs, executions
    from sandbox.aws import AwsServer
    from sandbox.functions import LambdaRuntime
    from sandbox.images import Images
    from sandbox.processes import ProcessRuntime
    from sandbox.world import World

    logging.basicConfig(level=logging.WARNING)
    server = AwsServer()
    os.environ["MOTO_PORT"] = str(server.port)
    events: list[Any] = []
    world = World("127.0.0", server.endpoint, directory, directory, events.append)
    images = Images(world)
    scheduler = ecs.install(world, images, ProcessRuntime(directory))
    log = (directory / "functions.log").open("w", buffering=1)
    functions = LambdaRuntime(
        world, directory / "functions", lambda line: print(line, file=log), idle_seconds
    )
    functions.install()
    executions.install(events.append, server.endpoint)
    world.client("iam").create_role(RoleName="any", AssumeRolePolicyDocument="{}")
    world.client("ecr").create_repository(repositoryName=REPOSITORY)
    images.push(f"{REPOSITORY}:v1", "sh -c 'echo by default'")
    world.client("logs").create_log_group(logGroupName=LOG_GROUP)
    world.client("ecs").create_cluster(clusterName=CLUSTER)
    instance = world.client("ec2").run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)
    scheduler.instances.register(CLUSTER, instance["Instances"][0]["InstanceId"])
    server.workflow.callers = {executions.CALLER}
    server.front.routes = {
        ("GET", "events"): lambda _: events,
        ("GET", "operations"): lambda _: server.workflow.calls(),
    }
    sys.stdout.write(server.endpoint + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    world.stopping.set()
    functions.stop()
    scheduler.join()
    server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
