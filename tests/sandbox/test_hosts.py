"""Container instances with a proxy: they boot, are told things, break and come back as on AWS.

Weights are set here as the deployer sets them: by the documents of the template.
"""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from tests.e2e.running import ROOT, left_over

READY_SECONDS = 90
CLUSTER = "web"
BLUE, GREEN = "100:0", "0:100"


@dataclass
class Sandbox:
    """Two hosts, one task of blue and one of green on each."""

    directory: Path
    network: str
    about: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "sandbox", "up", "--pattern", "host-proxy", "--hosts", "2"]
        command += ["--network", self.network, "--build-dir", str(self.directory)]
        # What is pushed is deployed only when a test says so.
        command += ["--set", "trigger=null"]
        command += ["--set", "infrastructure.DeregistrationDelaySeconds=1"]
        with (self.directory / "output.txt").open("wb") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *command],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not (self.directory / "sandbox.json").exists():
            said = (self.directory / "output.txt").read_text()
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        self.about = json.loads((self.directory / "sandbox.json").read_text())

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(30) == 0

    def client(self, service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.about["aws_endpoint"],
            region_name=self.about["region"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    @functools.cached_property
    def ssm(self) -> Any:
        return self.client("ssm")

    @functools.cached_property
    def ecs(self) -> Any:
        return self.client("ecs")

    @property
    def url(self) -> str:
        return str(self.about["url"])

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.request(method, self.about["control_url"] + path, json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def fault(self, kind: str, **more: Any) -> None:
        self.control("POST", "faults", {"name": "host", "kind": kind, **more})

    def hosts(self) -> list[dict[str, Any]]:
        """Those that live."""
        return [one for one in self.control("GET", "state")["hosts"] if one["state"] != "dead"]

    def host(self, number: int) -> dict[str, Any]:
        return next(one for one in self.control("GET", "state")["hosts"] if one["host"] == number)

    def document(self, verb: str) -> str:
        names = [
            one["Name"]
            for one in self.ssm.list_documents(MaxResults=50)["DocumentIdentifiers"]
            if f"Host{verb.capitalize()}Document" in one["Name"]
        ]
        return str(names[0])

    def send(self, verb: str, **parameters: str) -> str:
        """Send a document to all hosts that live; the id of the command."""
        given = {"Service": "web", **parameters}
        return str(
            self.ssm.send_command(
                DocumentName=self.document(verb),
                InstanceIds=[one["instance"] for one in self.hosts()],
                Parameters={name: [value] for name, value in given.items()},
                MaxConcurrency="100%",
                MaxErrors="100%",
                TimeoutSeconds=30,
            )["Command"]["CommandId"]
        )

    def answers(self, command: str, wanted: int) -> dict[str, tuple[str, dict[str, Any]]]:
        """Status and first line by instance, when so many have ended."""
        deadline = time.monotonic() + 20
        while True:
            listed = self.ssm.list_command_invocations(CommandId=command, Details=True)
            ended = [
                one
                for one in listed["CommandInvocations"]
                if one["Status"] not in ("Pending", "InProgress", "Delayed")
            ]
            if len(ended) == wanted:
                break
            assert time.monotonic() < deadline, listed
            time.sleep(0.05)
        return {
            one["InstanceId"]: (
                one["Status"],
                json.loads(one["CommandPlugins"][0]["Output"].partition("\n")[0]),
            )
            for one in ended
        }

    def switch(self, weights: str, *, answered: int | None = None) -> None:
        """Give all hosts these weights; ``answered`` of them tell of it."""
        now = time.time()
        blue, green = weights.split(":")
        command = self.send(
            "commit",
            Generation=str(int(now * 1000)),
            Blue=blue,
            Green=green,
            Expected=f"none,{BLUE},{GREEN}",
            At=f"{now:.3f}",
            NotAfter=f"{now + 10:.3f}",
        )
        answers = self.answers(command, answered or len(self.hosts()))
        assert {status for status, _ in answers.values()} == {"Success"}, answers

    def colors(self) -> set[str]:
        """Who answers through the load balancer."""
        found: set[str] = set()
        for _ in range(8):
            answer = requests.get(self.url, timeout=5)
            found.add(answer.headers.get("X-Color") or str(answer.status_code))
        return found

    def running(self, color: str) -> int:
        described = self.ecs.describe_services(cluster=CLUSTER, services=[f"web-{color}"])
        return int(described["services"][0]["runningCount"])

    def targets(self) -> dict[str, str]:
        elbv2 = self.client("elbv2")
        (group,) = elbv2.describe_target_groups(Names=["web"])["TargetGroups"]
        return {
            one["Target"]["Id"]: one["TargetHealth"]["State"]
            for one in elbv2.describe_target_health(TargetGroupArn=group["TargetGroupArn"])[
                "TargetHealthDescriptions"
            ]
        }

    def start_tasks(self) -> None:
        """A task of each colour on every host."""
        self.control("POST", "push", {"image": "web:v1"})
        repository = self.client("ecr").describe_repositories(repositoryNames=["web"])
        image = repository["repositories"][0]["repositoryUri"] + ":v1"
        for color, port in (("blue", 18081), ("green", 18082)):
            definition = self.ecs.register_task_definition(
                family=f"web-{color}",
                containerDefinitions=[
                    {
                        "name": "web",
                        "image": image,
                        "memory": 128,
                        "environment": [{"name": "COLOR", "value": color}],
                        "portMappings": [{"containerPort": 8000, "hostPort": port}],
                    }
                ],
            )["taskDefinition"]["taskDefinitionArn"]
            self.ecs.update_service(
                cluster=CLUSTER, service=f"web-{color}", taskDefinition=definition, desiredCount=2
            )
        self.wait_until_served()

    def wait_until_served(self) -> None:
        """Until each live host has its tasks and a proxy that answers."""
        wait_until(lambda: {one["state"] for one in self.hosts()} == {"running"})
        wait_until(lambda: all(self.running(color) == 2 for color in ("blue", "green")))
        for one in self.hosts():
            for port in (18081, 18082):
                wait_until(functools.partial(answers, f"http://{one['address']}:{port}/"))


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.ConnectionError:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Sandbox]:
    number = 40 + int(worker_id.removeprefix("gw") if worker_id != "master" else 0)
    sandbox = Sandbox(tmp_path_factory.mktemp("hosts"), f"127.0.{number}")
    try:
        sandbox.start()
        assert sandbox.colors() == {"503"}
        sandbox.start_tasks()
        yield sandbox
    finally:
        sandbox.stop()
    assert left_over(sandbox.network) == []


@pytest.fixture
def sandbox(started: Sandbox) -> Iterator[Sandbox]:
    """All on blue, nothing broken."""
    started.wait_until_served()
    started.switch(BLUE)
    wait_until(lambda: set(started.targets().values()) == {"healthy"})
    yield started
    started.control("DELETE", "faults")


def test_a_command_to_all_hosts_moves_the_traffic(sandbox: Sandbox) -> None:
    assert sandbox.colors() == {"blue"}
    sandbox.control("DELETE", "operations")
    sandbox.switch(GREEN)
    assert sandbox.colors() == {"green"}
    for host in sandbox.hosts():
        assert (host["ec2"], host["proxy"]) == ("running", "running")
        assert host["weights"] == {"blue": 0, "green": 100}
    assert sandbox.control("GET", "operations") == []  # calls of hosts are none of the workflow


def test_hosts_are_known_to_every_service(sandbox: Sandbox) -> None:
    ids = {one["instance"] for one in sandbox.hosts()}
    arns = sandbox.ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"]
    described = sandbox.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=arns)
    assert {one["ec2InstanceId"] for one in described["containerInstances"]} == ids
    information = sandbox.ssm.describe_instance_information()["InstanceInformationList"]
    assert ids <= {one["InstanceId"] for one in information if one["PingStatus"] == "Online"}
    assert set(sandbox.targets()) == ids
    ec2 = sandbox.client("ec2")
    for reservation in ec2.describe_instances(InstanceIds=list(ids))["Reservations"]:
        for instance in reservation["Instances"]:
            assert {"Key": "ecs-bluegreen", "Value": "host"} in instance["Tags"]
    for one in sandbox.hosts():
        agent = f"http://{one['address']}:51678/v1"
        metadata = requests.get(f"{agent}/metadata", timeout=5).json()
        assert metadata["ContainerInstanceArn"] in arns
        tasks = requests.get(f"{agent}/tasks", timeout=5).json()["Tasks"]
        ports = {
            port["HostPort"]
            for task in tasks
            if task["KnownStatus"] == "RUNNING"
            for container in task["Containers"]
            for port in container["Ports"]
        }
        assert ports == {18081, 18082}


def test_a_proxy_that_restarts_and_a_host_that_reboots_keep_their_colour(sandbox: Sandbox) -> None:
    sandbox.switch(GREEN)
    number = sandbox.hosts()[0]["host"]
    for kind in ("proxy_restarts", "reboots"):
        sandbox.fault(kind, host=number)
        time.sleep(0.3)
        sandbox.wait_until_served()
        assert sandbox.host(number)["weights"] == {"blue": 0, "green": 100}
        assert set(sandbox.targets().values()) <= {"healthy", "unhealthy"}
        wait_until(lambda: set(sandbox.targets().values()) == {"healthy"})
        assert sandbox.colors() == {"green"}


def test_a_silent_agent_is_told_later(sandbox: Sandbox) -> None:
    host = sandbox.hosts()[1]
    sandbox.fault("silent", host=host["host"])
    command = sandbox.send("report")
    answered = sandbox.answers(command, 1)
    assert host["instance"] not in answered
    assert sandbox.host(host["host"])["ec2"] == "running"
    assert sandbox.colors() == {"blue"}
    sandbox.control("DELETE", "faults")
    assert host["instance"] in sandbox.answers(command, 2)


@pytest.mark.parametrize("kind", ["cannot_stage", "broken_configuration"])
def test_a_host_that_cannot_stage_says_why(sandbox: Sandbox, kind: str) -> None:
    host = sandbox.hosts()[0]
    sandbox.fault(kind, host=host["host"])

    def stage() -> dict[str, tuple[str, dict[str, Any]]]:
        parameters = {"Blue": "0", "Green": "100", "Expected": BLUE}
        command = sandbox.send("stage", Generation=str(int(time.time() * 1000)), **parameters)
        return sandbox.answers(command, 2)

    answered = stage()
    status, said = answered.pop(host["instance"])
    assert status == "Failed"
    assert said["error"]
    assert [status for status, _ in answered.values()] == ["Success"]
    assert sandbox.colors() == {"blue"}
    sandbox.control("DELETE", "faults")
    assert {status for status, _ in stage().values()} == {"Success"}


def test_a_host_dies_and_another_appears(sandbox: Sandbox) -> None:
    """At the moment when the others are told: the command to it is never answered."""
    dying = sandbox.hosts()[0]
    sandbox.fault("dies", host=dying["host"], when="committing")
    sandbox.switch(GREEN, answered=1)
    assert sandbox.host(dying["host"])["ec2"] == "terminated"
    wait_until(lambda: dying["instance"] not in sandbox.targets())
    assert sandbox.colors() == {"green"}
    stopped = sandbox.ecs.list_tasks(cluster=CLUSTER, desiredStatus="STOPPED")["taskArns"]
    described = sandbox.ecs.describe_tasks(cluster=CLUSTER, tasks=stopped)["tasks"]
    reason = f"Host EC2 (instance {dying['instance']}) terminated."
    assert [one["stoppedReason"] for one in described].count(reason) == 2
    with pytest.raises(sandbox.ssm.exceptions.InvalidInstanceId):
        sandbox.ssm.send_command(
            DocumentName=sandbox.document("report"),
            InstanceIds=[dying["instance"]],
            Parameters={"Service": ["web"]},
        )
    arns = sandbox.ecs.list_container_instances
    wait_until(lambda: len(arns(cluster=CLUSTER)["containerInstanceArns"]) == 1)

    now = time.time()
    wanted = {"generation": int(now * 1000), "blue": 0, "green": 100, "at": now, "tasks": {}}
    sandbox.ssm.put_parameter(
        Name="/bluegreen/hosts/web", Value=json.dumps(wanted), Type="String", Overwrite=True
    )
    sandbox.fault("appears")
    wait_until(lambda: len(sandbox.hosts()) == 2)
    sandbox.wait_until_served()
    for host in sandbox.hosts():
        assert host["weights"] == {"blue": 0, "green": 100}
    wait_until(lambda: set(sandbox.targets().values()) == {"healthy"})
    assert len(sandbox.targets()) == 2


def test_a_host_that_dies_unnoticed(sandbox: Sandbox) -> None:
    """EC2 calls it running: ECS keeps its tasks, and only the load balancer finds out."""
    host = sandbox.hosts()[0]
    sandbox.fault("dies", host=host["host"], ec2="running")
    wait_until(lambda: sandbox.targets()[host["instance"]] == "unhealthy")
    assert sandbox.colors() == {"blue"}
    assert [sandbox.running(color) for color in ("blue", "green")] == [2, 2]
    arns = sandbox.ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"]
    described = sandbox.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=arns)
    connected = {
        one["ec2InstanceId"]: one["agentConnected"] for one in described["containerInstances"]
    }
    assert connected[host["instance"]] is False
    # The Auto Scaling group replaces what somebody terminates.
    sandbox.client("ec2").terminate_instances(InstanceIds=[host["instance"]])
    wait_until(lambda: len(sandbox.hosts()) == 2)
    sandbox.wait_until_served()


def test_somebody_else_changes_the_weights_of_one_host(sandbox: Sandbox) -> None:
    first, second = sandbox.hosts()
    change = {"weights": {"blue": 0, "green": 100}, "host": first["host"]}
    sandbox.control("POST", "faults", {"name": "traffic_changed_by_others", **change})
    assert sandbox.host(first["host"])["weights"] == {"blue": 0, "green": 100}
    assert sandbox.host(second["host"])["weights"] == {"blue": 100, "green": 0}
    wait_until(lambda: sandbox.colors() == {"blue", "green"})
