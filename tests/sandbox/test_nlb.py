"""A network load balancer: connections, not requests, and what its API has and refuses."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.balancers import Balancers, Program, ask, get, program, wait_until

REGISTERED = {"deregistration_delay.timeout_seconds": "1"}
CHECK = {
    "HealthCheckProtocol": "HTTP",
    "HealthCheckPath": "/healthz",
    "HealthCheckIntervalSeconds": 5,
    "HealthCheckTimeoutSeconds": 2,
    "HealthyThresholdCount": 2,
    "UnhealthyThresholdCount": 2,
}


@pytest.fixture(scope="module")
def balancers(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Balancers]:
    number = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    started = Balancers(f"127.0.{140 + number}", _short(tmp_path_factory))
    started.start()
    yield started
    started.stop()


def _short(factory: pytest.TempPathFactory) -> Path:
    """A directory; the path of a socket in it has to be short."""
    return factory.mktemp("lb")


@dataclass
class Nlb:
    """A network load balancer with one TCP listener, and programs behind it."""

    balancers: Balancers
    stack: ExitStack
    arn: str = ""
    listener: str = ""
    port: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    @property
    def api(self) -> Any:
        return self.balancers.elbv2

    def group(self, attributes: dict[str, str] | None = None, **more: Any) -> str:
        given = {"Protocol": "TCP", "Port": 80, "TargetType": "ip", **CHECK, **more}
        arn: str = self.api.create_target_group(
            Name=self.balancers.new_name(), VpcId=self.balancers.vpc, **given
        )["TargetGroups"][0]["TargetGroupArn"]
        self.set(arn, attributes or REGISTERED)
        return arn

    def set(self, group: str, attributes: dict[str, str]) -> None:
        self.api.modify_target_group_attributes(
            TargetGroupArn=group,
            Attributes=[{"Key": key, "Value": value} for key, value in attributes.items()],
        )

    def listen(self, weights: dict[str, int]) -> None:
        self.port = self.balancers.new_port()
        made = self.api.create_listener(
            LoadBalancerArn=self.arn,
            Protocol="TCP",
            Port=self.port,
            DefaultActions=forward(weights),
        )
        self.listener = made["Listeners"][0]["ListenerArn"]

    def shift(self, weights: dict[str, int]) -> dict[str, Any]:
        answer = self.api.modify_listener(
            ListenerArn=self.listener, DefaultActions=forward(weights)
        )
        return dict(answer["Listeners"][0])

    def target(self, group: str) -> Program:
        """A program that is registered with the group, not yet healthy."""
        made = self.stack.enter_context(program(f"{self.balancers.network}.{next(self.numbers)}"))
        self.api.register_targets(TargetGroupArn=group, Targets=[where(made)])
        return made

    def health(self, group: str) -> list[dict[str, str]]:
        found = self.api.describe_target_health(TargetGroupArn=group)
        return [one["TargetHealth"] for one in found["TargetHealthDescriptions"]]

    def wait_until_healthy(self, group: str) -> None:
        wait_until(lambda: [one["State"] for one in self.health(group)] == ["healthy"])

    def connect(self) -> HTTPConnection:
        made = HTTPConnection(self.balancers.address, self.port, timeout=5)
        self.stack.enter_context(closing(made))
        return made

    def get(self) -> str:
        return get(self.balancers.address, self.port)

    def wait_until_answering(self, *servers: Program) -> None:
        names = {server.name for server in servers}
        wait_until(lambda: self.get() in names)


def where(server: Program) -> dict[str, Any]:
    host, port = server.server_address[:2]
    return {"Id": host, "Port": port}


def forward(weights: dict[str, int]) -> list[dict[str, Any]]:
    groups = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]
    return [{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}]


@pytest.fixture
def nlb(balancers: Balancers) -> Iterator[Nlb]:
    with ExitStack() as stack:
        made = Nlb(balancers, stack)
        made.arn = balancers.elbv2.create_load_balancer(
            Name=balancers.new_name(), Type="network", Subnets=balancers.subnets
        )["LoadBalancers"][0]["LoadBalancerArn"]
        yield made
        balancers.elbv2.delete_load_balancer(LoadBalancerArn=made.arn)


@dataclass
class Colors:
    """Two groups with one healthy program each, all traffic to blue."""

    blue: str
    green: str
    on_blue: Program
    on_green: Program


@pytest.fixture
def colors(nlb: Nlb) -> Colors:
    blue, green = nlb.group(), nlb.group()
    nlb.listen({blue: 100, green: 0})
    made = Colors(blue, green, nlb.target(blue), nlb.target(green))
    for group in (blue, green):
        nlb.wait_until_healthy(group)
    nlb.wait_until_answering(made.on_blue)
    return made


# ------------------------------------------------------------------------------------ connections


def test_new_connections_follow_the_weights_and_open_ones_stay(nlb: Nlb, colors: Colors) -> None:
    kept = nlb.connect()
    assert ask(kept) == colors.on_blue.name

    nlb.shift({colors.blue: 0, colors.green: 100})
    nlb.wait_until_answering(colors.on_green)

    assert {nlb.get() for _ in range(10)} == {colors.on_green.name}
    assert [ask(kept) for _ in range(3)] == [colors.on_blue.name] * 3


def test_connections_are_shared_by_weight(nlb: Nlb, colors: Colors) -> None:
    nlb.shift({colors.blue: 1, colors.green: 3})
    nlb.wait_until_answering(colors.on_green)

    counts = Counter(nlb.get() for _ in range(200))

    assert 20 < counts[colors.on_blue.name] < 85


def test_targets_see_no_header_of_a_proxy(nlb: Nlb, colors: Colors) -> None:
    nlb.get()

    assert colors.on_blue.forwarded[-1] is None


def test_a_draining_target_gets_nothing_new_and_keeps_what_it_has(nlb: Nlb, colors: Colors) -> None:
    kept = nlb.connect()
    ask(kept)
    nlb.shift({colors.blue: 0, colors.green: 100})
    nlb.wait_until_answering(colors.on_green)

    nlb.api.deregister_targets(TargetGroupArn=colors.blue, Targets=[where(colors.on_blue)])

    assert nlb.health(colors.blue) == [
        {
            "State": "draining",
            "Reason": "Target.DeregistrationInProgress",
            "Description": "Target deregistration is in progress",
        }
    ]
    wait_until(lambda: nlb.health(colors.blue) == [])
    time.sleep(0.2)
    assert ask(kept) == colors.on_blue.name


def test_connections_end_with_the_delay_where_the_group_says_so(nlb: Nlb, colors: Colors) -> None:
    nlb.set(colors.blue, {"deregistration_delay.connection_termination.enabled": "true"})
    kept = nlb.connect()
    ask(kept)

    nlb.api.deregister_targets(TargetGroupArn=colors.blue, Targets=[where(colors.on_blue)])
    assert ask(kept) == colors.on_blue.name
    wait_until(lambda: nlb.health(colors.blue) == [])

    wait_until(lambda: _has_ended(kept))


def test_connections_of_a_target_that_becomes_unhealthy_end(nlb: Nlb, colors: Colors) -> None:
    other = nlb.target(colors.blue)
    wait_until(lambda: {one["State"] for one in nlb.health(colors.blue)} == {"healthy"})
    kept = nlb.connect()
    broken = next(one for one in (other, colors.on_blue) if one.name == ask(kept))

    broken.status = 500
    wait_until(lambda: "unhealthy" in [one["State"] for one in nlb.health(colors.blue)])

    wait_until(lambda: _has_ended(kept))
    assert {nlb.get() for _ in range(6)} == {({other, colors.on_blue} - {broken}).pop().name}


def test_with_no_healthy_target_it_fails_open_and_connections_stay(
    nlb: Nlb, colors: Colors
) -> None:
    kept = nlb.connect()
    ask(kept)

    colors.on_blue.status = 500
    wait_until(lambda: nlb.health(colors.blue)[0]["State"] == "unhealthy")
    time.sleep(0.2)

    assert nlb.health(colors.blue) == [
        {
            "State": "unhealthy",
            "Reason": "Target.FailedHealthChecks",
            "Description": "Health checks failed",
        }
    ]
    assert ask(kept) == nlb.get() == colors.on_blue.name


def test_without_a_target_a_connection_is_reset(nlb: Nlb) -> None:
    nlb.listen({nlb.group(): 1})

    def is_reset() -> bool:
        try:
            nlb.get()
        except ConnectionResetError:
            return True
        except OSError:
            return False
        return False

    wait_until(is_reset)
    assert all(is_reset() for _ in range(5))


def _has_ended(connection: HTTPConnection) -> bool:
    connection.auto_open = 0
    try:
        ask(connection)
    except (OSError, HTTPException):
        return True
    return False


# ---------------------------------------------------------------------------------- health checks


def test_a_new_target_has_to_pass_the_threshold(nlb: Nlb) -> None:
    group = nlb.group(HealthyThresholdCount=4)
    nlb.listen({group: 1})
    nlb.target(group)
    began = time.monotonic()

    wait_until(lambda: nlb.health(group)[0]["State"] == "initial")
    nlb.wait_until_healthy(group)

    assert time.monotonic() - began > 1.2  # four checks, every half second


def test_a_tcp_check_needs_no_http(nlb: Nlb) -> None:
    group = nlb.group(HealthCheckProtocol="TCP", HealthCheckPath="/")
    nlb.listen({group: 1})
    target = nlb.target(group)
    target.status = 500

    nlb.wait_until_healthy(group)
    target.end()
    wait_until(lambda: nlb.health(group)[0]["State"] == "unhealthy")
    assert nlb.health(group)[0]["Reason"] == "Target.FailedHealthChecks"


def test_an_http_check_takes_what_is_no_error(nlb: Nlb) -> None:
    group = nlb.group()
    nlb.listen({group: 1})
    nlb.target(group).status = 302

    nlb.wait_until_healthy(group)
    (shown,) = nlb.api.describe_target_groups(TargetGroupArns=[group])["TargetGroups"]
    assert shown["Matcher"] == {"HttpCode": "200-399"}


def test_a_group_on_no_listener_is_unused(nlb: Nlb) -> None:
    group = nlb.group()
    nlb.target(group)

    wait_until(lambda: nlb.health(group)[0]["State"] == "unused")
    assert nlb.health(group)[0]["Reason"] == "Target.NotInUse"


# -------------------------------------------------------------------------------------------- API


def test_it_is_named_as_one(nlb: Nlb, colors: Colors) -> None:
    (shown,) = nlb.api.describe_load_balancers(LoadBalancerArns=[nlb.arn])["LoadBalancers"]

    assert ":loadbalancer/net/" in shown["LoadBalancerArn"]
    assert shown["Type"] == "network"
    assert shown["DNSName"] == nlb.balancers.address
    assert ":listener/net/" in nlb.listener
    (group,) = nlb.api.describe_target_groups(TargetGroupArns=[colors.blue])["TargetGroups"]
    assert group["LoadBalancerArns"] == [nlb.arn]


def test_a_group_has_the_attributes_of_one(nlb: Nlb) -> None:
    group = nlb.group()
    shown = nlb.api.describe_target_group_attributes(TargetGroupArn=group)["Attributes"]
    attributes = {one["Key"]: one["Value"] for one in shown}

    assert attributes["deregistration_delay.connection_termination.enabled"] == "false"
    assert attributes["target_health_state.unhealthy.connection_termination.enabled"] == "true"
    assert attributes["preserve_client_ip.enabled"] == "true"
    assert "slow_start.duration_seconds" not in attributes


def test_what_is_not_given_stays(nlb: Nlb, colors: Colors) -> None:
    certificate = nlb.balancers.client("acm").request_certificate(DomainName="example.com")
    port = nlb.balancers.new_port()
    made = nlb.api.create_listener(
        LoadBalancerArn=nlb.arn,
        Protocol="TLS",
        Port=port,
        SslPolicy="ELBSecurityPolicy-TLS13-1-2-2021-06",
        Certificates=[{"CertificateArn": certificate["CertificateArn"]}],
        AlpnPolicy=["HTTP2Preferred"],
        DefaultActions=forward({colors.blue: 100, colors.green: 0}),
    )["Listeners"][0]

    changed = nlb.api.modify_listener(
        ListenerArn=made["ListenerArn"],
        DefaultActions=forward({colors.blue: 0, colors.green: 100}),
    )["Listeners"][0]

    assert {**changed, "DefaultActions": None} == {**made, "DefaultActions": None}
    assert changed["Protocol"] == "TLS"
    assert changed["AlpnPolicy"] == ["HTTP2Preferred"]
    assert changed["Certificates"] == [{"CertificateArn": certificate["CertificateArn"]}]
    groups = changed["DefaultActions"][0]["ForwardConfig"]["TargetGroups"]
    assert [group["Weight"] for group in groups] == [0, 100]
    again = nlb.api.modify_listener(ListenerArn=made["ListenerArn"], Protocol="TLS")["Listeners"]
    assert again == [changed]


def test_the_protocol_of_a_listener_can_change(nlb: Nlb, colors: Colors) -> None:
    with pytest.raises(ClientError) as error:
        nlb.api.modify_listener(ListenerArn=nlb.listener, Protocol="TLS")
    assert error.value.response["Error"]["Code"] == "InvalidConfigurationRequest"
    with pytest.raises(ClientError) as error:
        nlb.api.modify_listener(ListenerArn=nlb.listener, Protocol="HTTP")
    assert error.value.response["Error"]["Code"] == "ValidationError"
    assert nlb.get() == colors.on_blue.name


def a_rule(nlb: Nlb, group: str) -> None:
    nlb.api.create_rule(
        ListenerArn=nlb.listener,
        Priority=1,
        Conditions=[{"Field": "path-pattern", "Values": ["/*"]}],
        Actions=forward({group: 1}),
    )


def a_fixed_response(nlb: Nlb, _group: str) -> None:
    nlb.api.modify_listener(
        ListenerArn=nlb.listener,
        DefaultActions=[
            {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "503"}},
        ],
    )


def a_sticky_duration(nlb: Nlb, group: str) -> None:
    (action,) = forward({group: 1})
    action["ForwardConfig"]["TargetGroupStickinessConfig"] = {
        "Enabled": True,
        "DurationSeconds": 60,
    }
    nlb.api.modify_listener(ListenerArn=nlb.listener, DefaultActions=[action])


def a_cookie(nlb: Nlb, group: str) -> None:
    nlb.set(group, {"stickiness.enabled": "true", "stickiness.type": "lb_cookie"})


def an_algorithm(nlb: Nlb, group: str) -> None:
    nlb.set(group, {"load_balancing.algorithm.type": "round_robin"})


def an_http_group(nlb: Nlb, _group: str) -> None:
    other = nlb.api.create_target_group(
        Name=nlb.balancers.new_name(), Protocol="HTTP", Port=80, VpcId=nlb.balancers.vpc
    )["TargetGroups"][0]["TargetGroupArn"]
    nlb.shift({other: 1})


def a_weight_too_large(nlb: Nlb, group: str) -> None:
    nlb.shift({group: 1000})


def a_second_listener_on_the_port(nlb: Nlb, group: str) -> None:
    nlb.api.create_listener(
        LoadBalancerArn=nlb.arn, Protocol="TCP", Port=nlb.port, DefaultActions=forward({group: 1})
    )


@pytest.mark.parametrize(
    ("ask_for", "code"),
    [
        (a_rule, "UnsupportedProtocol"),
        (a_fixed_response, "InvalidLoadBalancerAction"),
        (a_sticky_duration, "ValidationError"),
        (a_cookie, "InvalidConfigurationRequest"),
        (an_algorithm, "ValidationError"),
        (an_http_group, "IncompatibleProtocols"),
        (a_weight_too_large, "ValidationError"),
        (a_second_listener_on_the_port, "DuplicateListener"),
    ],
)
def test_it_refuses(
    nlb: Nlb, colors: Colors, ask_for: Callable[[Nlb, str], None], code: str
) -> None:
    before = nlb.api.describe_listeners(ListenerArns=[nlb.listener])["Listeners"]

    with pytest.raises(ClientError) as error:
        ask_for(nlb, colors.blue)

    assert error.value.response["Error"]["Code"] == code
    assert nlb.api.describe_listeners(ListenerArns=[nlb.listener])["Listeners"] == before
    assert nlb.get() == colors.on_blue.name
