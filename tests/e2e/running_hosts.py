"""A sandbox of the pattern host-proxy, as a test sees it: every host for itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import requests

from tests.e2e.running import Ended, Running

HOSTS = 3
# In addition to those of all patterns. A host that is silent is given up after the shortest time
# that the configuration allows.
QUICK = {
    "router.lead_seconds": 1,
    "router.answer_seconds": 5,
    "bake.seconds": 0,
}


class RunningHosts(Running):
    """Weights are what each host's own proxy says; hosts are named by the end of their address."""

    # What people and tests do

    def put_in_order(self) -> None:
        """As many hosts as at first, the live colour on each of them, nothing on the idle one."""
        self.mend()
        hosts = self.hosts()
        for host in hosts[HOSTS:]:
            self.terminate(host["instance"])
        for _ in range(HOSTS - len(hosts)):
            self.fault("host", kind="appears")
        self.wait_for(lambda: len(self.hosts()) == HOSTS)
        self.wait_for(lambda: all(host["proxy"] == "running" for host in self.hosts()))
        if not any(desired for desired, _ in self.counts().values()):
            ended = self.deploy("v1")
            assert ended.succeeded, ended.cause
        by_host = self.weights_by_host().values()
        live = next(color for weights in by_host for color, weight in weights.items() if weight)
        wanted = {live: 100, other(live): 0}
        if any(weights != wanted for weights in by_host):
            self.set_weights(wanted)
        if self.counts() != {live: (HOSTS, HOSTS), other(live): (0, 0)}:
            ecs = self.client("ecs")
            ecs.update_service(cluster="web", service=f"web-{live}", desiredCount=HOSTS)
            self.stop_idle()
        self.wait_for(lambda: set(self.colors().values()) == {live})

    def mend(self) -> None:
        """End all faults; EC2 notices of every host that has died."""
        self.control("DELETE", "faults")
        for host in self.control("GET", "state")["hosts"]:
            if host["state"] == "dead" and host["ec2"] == "running":
                self.terminate(host["instance"])

    def terminate(self, instance_id: str) -> None:
        autoscaling = self.client("autoscaling")
        for group in autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]:
            # Else the last one that the minimum allows could not go without a replacement.
            autoscaling.update_auto_scaling_group(
                AutoScalingGroupName=group["AutoScalingGroupName"], MinSize=0
            )
        autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=instance_id, ShouldDecrementDesiredCapacity=True
        )

    def set_weights(self, weights: dict[str, int], host: int | None = None) -> None:
        """Somebody else moves the traffic, on one host or on all."""
        self.fault("traffic_changed_by_others", weights=weights, host=host)

    def send_command(self, document: str, instance_id: str, parameters: dict[str, str]) -> str:
        """Send a command by one of our documents past the workflow; returns its id."""
        answer = self.client("ssm").send_command(
            DocumentName=f"ecs-bluegreen-Host{document}Document",
            InstanceIds=[instance_id],
            Parameters={name: [value] for name, value in parameters.items()},
        )
        return str(answer["Command"]["CommandId"])

    def wait_for_command(self, command_id: str, instance_id: str) -> tuple[str, dict[str, Any]]:
        """(status, what the host program has said) once a command has ended."""
        ssm = self.client("ssm")

        def answer() -> dict[str, Any]:
            return dict(ssm.get_command_invocation(CommandId=command_id, InstanceId=instance_id))

        self.wait_for(lambda: answer()["Status"] in ("Success", "Failed", "TimedOut"))
        ended = answer()
        return ended["Status"], json.loads(ended["StandardOutputContent"])

    @contextmanager
    def hosts_under_load(self, *numbers: int) -> Iterator[None]:
        """Requests to the proxies of these hosts; at the end none may have failed."""
        with ExitStack() as loads:
            for host in self.hosts():
                if host["host"] in numbers:
                    loads.enter_context(self.under_load(f"http://{host['address']}:8080/"))
            yield

    def wait_for(self, true: Any, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self.hosts()
            time.sleep(0.1)

    # The state of the world

    def hosts(self) -> list[dict[str, Any]]:
        """The hosts that have not died: address, instance, and what the proxy of each says."""
        hosts = self.control("GET", "state")["hosts"]
        return [host for host in hosts if host["state"] != "dead"]

    def numbers(self) -> list[int]:
        return [host["host"] for host in self.hosts()]

    def instance(self, number: int) -> str:
        (instance,) = (one["instance"] for one in self.hosts() if one["host"] == number)
        return str(instance)

    def wanted(self) -> dict[str, Any]:
        """What a host would read when it boots."""
        parameter = self.client("ssm").get_parameter(Name="/bluegreen/hosts/web")["Parameter"]
        said = json.loads(parameter["Value"])
        weights = {color: said[color] for color in ("blue", "green")}
        return {"generation": said["generation"], "weights": weights}

    def weights_by_host(self) -> dict[int, dict[str, int]]:
        return {host["host"]: host["weights"] for host in self.hosts()}

    def weights(self, port: int = 8080) -> dict[str, int]:  # noqa: ARG002 - it has one listener
        """The weights that all hosts agree on."""
        by_host = self.weights_by_host()
        weights = next(iter(by_host.values()))
        assert all(one == weights for one in by_host.values()), by_host
        return weights

    def colors(self, header: str = "X-Color") -> dict[int, str]:
        """Who answers on each host, "" if nobody does."""
        return {host["host"]: _asked(host["address"], header) for host in self.hosts()}

    def world(self) -> dict[str, Any]:
        """All that a rollback has to restore."""
        return {
            "weights": self.weights_by_host(),
            "colors": self.colors(),
            "services": {
                color: (one["taskDefinition"], one["desiredCount"], one["runningCount"])
                for color, one in ((c, self.ecs_service(c)) for c in ("blue", "green"))
            },
        }

    def assert_all_on(self, color: str, version: str) -> None:
        """Every host by the same generation, a task of the colour on each, the other one ended."""
        hosts = self.hosts()
        assert [host["weights"] for host in hosts] == [{color: 100, other(color): 0}] * len(hosts)
        assert len({host["generation"] for host in hosts}) == 1, hosts
        assert [_asked(host["address"], "X-Version") for host in hosts] == [version] * len(hosts)
        assert [_asked(host["address"], "X-Color") for host in hosts] == [color] * len(hosts)
        # More may be desired: the task of a host that has died waits for one in its place.
        counts = self.counts()
        assert (counts[color][1], counts[other(color)]) == (len(hosts), (0, 0)), counts
        assert self.answer()["X-Version"] == version


def _asked(address: str, header: str) -> str:
    try:
        response = requests.get(f"http://{address}:8080/", timeout=5)
    except requests.ConnectionError:
        return ""
    return response.headers.get(header, "")


def other(color: str) -> str:
    return "green" if color == "blue" else "blue"


def assert_failed(ended: Ended, error: str, *reasons: str) -> None:
    assert (ended.status, ended.error) == ("FAILED", error), ended
    for reason in reasons:
        assert reason in ended.cause, ended.cause
