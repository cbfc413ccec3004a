"""A classic load balancer: one health check, no fail-open, listeners that come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox.alb.configuration import Mode
from sandbox.clb.instances import Instance, State
from tests.sandbox.balancers import Balancers, Program, ask, get, program, wait_until

BLUE, GREEN = 18081, 18082
IN_SERVICE = ("InService", "N/A", "N/A")
REGISTERING = ("OutOfService", "ELB", "Instance registration is still in progress.")
FAILED = (
    "OutOfService",
    "Instance",
    "Instance has failed at least the UnhealthyThreshold number of health checks consecutively.",
)
DEREGISTERING = ("InService", "N/A", "Instance deregistration currently in progress.")
GONE = (
    "OutOfService",
    "Instance",
    "Instance is not currently registered with the LoadBalancer.",
)


# ----------------------------------------------------------------------------- states, without AWS


def an_instance(*checks: bool) -> Instance:
    made = Instance(("web", "i-1"), "127.0.1.1")
    for passed in checks:
        made.record(passed=passed, healthy_threshold=3, unhealthy_threshold=2)
    return made


@pytest.mark.parametrize(
    ("checks", "state", "description"),
    [
        ((), State.REGISTERING, "Instance registration is still in progress."),
        ((True, True), State.REGISTERING, "Instance registration is still in progress."),
        ((True, True, False, True), State.REGISTERING, REGISTERING[2]),
        ((True, True, True), State.HEALTHY, "N/A"),
        ((False, False), State.UNHEALTHY, FAILED[2]),
        ((True, True, True, False), State.HEALTHY, "N/A"),
        ((True, True, True, False, True, False), State.HEALTHY, "N/A"),
        ((True, True, True, False, False), State.UNHEALTHY, FAILED[2]),
        (
            (False, False, True, True),
            State.UNHEALTHY,
            "Instance has not passed the configured HealthyThreshold number of health checks "
            "consecutively.",
        ),
        ((False, False, True, True, True), State.HEALTHY, "N/A"),
    ],
)
def test_states(checks: tuple[bool, ...], state: State, description: str) -> None:
    instance = an_instance(*checks)

    assert (instance.state, instance.shown[2]) == (state, description)


def test_a_draining_instance_stays_so_whatever_its_checks_say() -> None:
    instance = an_instance(True, True, True)
    instance.drain(60)
    instance.record(passed=False, healthy_threshold=2, unhealthy_threshold=1)

    assert (instance.state, instance.shown) == (State.DRAINING, DEREGISTERING)


@pytest.mark.parametrize(
    ("checks", "draining", "mode"),
    [
        ((), True, Mode.EMPTY),
        ((True, True, True), False, Mode.READY),
        ((False, False), True, Mode.DRAIN),
        ((False, False), False, Mode.EMPTY),
    ],
)
def test_what_an_instance_is_sent(checks: tuple[bool, ...], draining: bool, mode: Mode) -> None:
    assert an_instance(*checks).mode(draining=draining) is mode


# ------------------------------------------------------------------------------------ with programs


@pytest.fixture(scope="module")
def balancers(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Balancers]:
    number = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    started = Balancers(f"127.0.{160 + number}", tmp_path_factory.mktemp("lb"))
    started.start()
    yield started
    started.stop()


@dataclass
class Host:
    """An instance with a program on the port of each colour."""

    id: str
    blue: Program
    green: Program


@dataclass
class Clb:
    """A classic load balancer with one listener, for the port of blue."""

    balancers: Balancers
    stack: ExitStack
    name: str
    port: int

    @property
    def api(self) -> Any:
        return self.balancers.elb

    def host(self) -> Host:
        """An instance that is registered, not yet InService."""
        instance, address = self.balancers.instance()
        made = Host(
            instance,
            self.stack.enter_context(program(address, BLUE)),
            self.stack.enter_context(program(address, GREEN)),
        )
        self.register(made)
        return made

    def register(self, host: Host) -> list[str]:
        answer = self.api.register_instances_with_load_balancer(
            LoadBalancerName=self.name, Instances=[{"InstanceId": host.id}]
        )
        return [one["InstanceId"] for one in answer["Instances"]]

    def deregister(self, host: Host) -> list[str]:
        answer = self.api.deregister_instances_from_load_balancer(
            LoadBalancerName=self.name, Instances=[{"InstanceId": host.id}]
        )
        return [one["InstanceId"] for one in answer["Instances"]]

    def check(self, target: str, healthy: int = 2) -> None:
        self.api.configure_health_check(
            LoadBalancerName=self.name,
            HealthCheck={
                "Target": target,
                "Interval": 5,
                "Timeout": 2,
                "HealthyThreshold": healthy,
                "UnhealthyThreshold": 2,
            },
        )

    def drain(self, seconds: int | None) -> None:
        draining = {"Enabled": seconds is not None, **({"Timeout": seconds} if seconds else {})}
        self.api.modify_load_balancer_attributes(
            LoadBalancerName=self.name, LoadBalancerAttributes={"ConnectionDraining": draining}
        )

    def health(self, *hosts: Host) -> list[tuple[str, str, str]]:
        """State, reason code and description of those hosts, or of all that are registered."""
        given = {"Instances": [{"InstanceId": host.id} for host in hosts]} if hosts else {}
        found = self.api.describe_instance_health(LoadBalancerName=self.name, **given)
        return [
            (one["State"], one["ReasonCode"], one["Description"]) for one in found["InstanceStates"]
        ]

    def wait_until_in_service(self, *hosts: Host) -> None:
        wait_until(lambda: self.health(*hosts) == [IN_SERVICE] * len(hosts))
        wait_until(self.answers)

    def shown(self) -> dict[str, Any]:
        described = self.api.describe_load_balancers(LoadBalancerNames=[self.name])
        return dict(described["LoadBalancerDescriptions"][0])

    def listeners(self) -> dict[int, dict[str, Any]]:
        return {
            one["Listener"]["LoadBalancerPort"]: one for one in self.shown()["ListenerDescriptions"]
        }

    def delete_listener(self, port: int | None = None) -> None:
        self.api.delete_load_balancer_listeners(
            LoadBalancerName=self.name, LoadBalancerPorts=[port or self.port]
        )

    def create_listener(self, **changes: Any) -> None:
        self.api.create_load_balancer_listeners(
            LoadBalancerName=self.name, Listeners=[listener(self.port, **changes)]
        )

    def connect(self) -> HTTPConnection:
        made = HTTPConnection(self.balancers.address, self.port, timeout=5)
        self.stack.enter_context(closing(made))
        return made

    def get(self, path: str = "/") -> str:
        return get(self.balancers.address, self.port, path)

    def status(self) -> int:
        with closing(self.connect()) as connection:
            connection.request("GET", "/")
            return connection.getresponse().status

    def answers(self) -> bool:
        try:
            return self.status() == 200
        except OSError:
            return False

    def refuses(self) -> bool:
        try:
            self.status()
        except ConnectionRefusedError:
            return True
        return False


def listener(port: int, **changes: Any) -> dict[str, Any]:
    given = {"Protocol": "HTTP", "LoadBalancerPort": port, "InstancePort": BLUE}
    return {**given, **changes}


@pytest.fixture
def clb(balancers: Balancers, request: pytest.FixtureRequest) -> Iterator[Clb]:
    """Of HTTP, unless a test says TCP."""
    with ExitStack() as stack:
        made = Clb(balancers, stack, balancers.new_name(), balancers.new_port())
        balancers.elb.create_load_balancer(
            LoadBalancerName=made.name,
            Listeners=[listener(made.port, Protocol=getattr(request, "param", "HTTP"))],
            Subnets=balancers.subnets,
        )
        made.check(f"HTTP:{BLUE}/healthz")
        yield made
        balancers.elb.delete_load_balancer(LoadBalancerName=made.name)


def test_an_instance_is_in_service_after_so_many_checks(clb: Clb) -> None:
    clb.check(f"HTTP:{BLUE}/healthz", healthy=4)
    host = clb.host()
    began = time.monotonic()

    assert clb.health() == clb.health(host) == [REGISTERING]
    clb.wait_until_in_service(host)

    assert time.monotonic() - began > 1.2  # four checks, every half second
    assert clb.get() == host.blue.name
    assert host.blue.forwarded[-1] is not None


def test_with_no_instance_in_service_it_answers_503(clb: Clb) -> None:
    host = clb.host()
    clb.wait_until_in_service(host)

    host.blue.status = 500

    wait_until(lambda: clb.health(host) == [FAILED])
    wait_until(lambda: clb.status() == 503)
    host.blue.status = 200
    clb.wait_until_in_service(host)


def test_only_200_is_healthy(clb: Clb) -> None:
    host = clb.host()
    host.blue.status = 204

    wait_until(lambda: clb.health(host) == [FAILED])


def test_a_tcp_check_is_a_connection(clb: Clb) -> None:
    clb.check(f"TCP:{BLUE}")
    host = clb.host()
    host.blue.status = 500

    clb.wait_until_in_service(host)


@pytest.mark.parametrize("clb", ["TCP"], indirect=True)
def test_a_tcp_listener_keeps_connections_and_resets_what_has_nowhere_to_go(clb: Clb) -> None:
    clb.drain(30)
    old = clb.host()
    clb.wait_until_in_service(old)
    kept = clb.connect()
    assert ask(kept) == old.blue.name
    assert old.blue.forwarded[-1] is None

    new = clb.host()
    clb.wait_until_in_service(old, new)
    clb.deregister(old)

    assert {clb.get() for _ in range(6)} == {new.blue.name}
    assert ask(kept) == old.blue.name
    assert clb.health(old) == [DEREGISTERING]
    clb.deregister(new)
    with pytest.raises(ConnectionResetError):
        clb.get()
    kept.close()
    wait_until(lambda: clb.health(old) == [GONE])


# ---------------------------------------------------------------------------------------- draining


def test_a_deregistered_instance_finishes_what_is_in_flight(clb: Clb) -> None:
    clb.drain(30)
    old, new = clb.host(), clb.host()
    clb.wait_until_in_service(old, new)
    with ThreadPoolExecutor() as pool:
        slow = [pool.submit(clb.get, "/slow") for _ in range(2)]  # one each: the fewest in flight
        time.sleep(0.2)

        assert clb.deregister(old) == [new.id]

        assert clb.health(old) == [DEREGISTERING]
        assert clb.health() == [IN_SERVICE]
        assert {clb.get() for _ in range(5)} == {new.blue.name}
        assert {one.result() for one in slow} == {old.blue.name, new.blue.name}
    wait_until(lambda: clb.health(old) == [GONE], seconds=2)


def test_draining_ends_with_its_timeout(clb: Clb) -> None:
    clb.drain(1)
    host = clb.host()
    host.blue.slow_seconds = 2.5
    clb.wait_until_in_service(host)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(clb.get, "/slow")
        time.sleep(0.2)
        clb.deregister(host)
        assert clb.health(host) == [DEREGISTERING]
        assert wait_until(lambda: clb.health(host) == [GONE]) > 0.8
        assert slow.exception(timeout=0.5) is not None


def test_without_draining_connections_are_cut(clb: Clb) -> None:
    host = clb.host()
    clb.wait_until_in_service(host)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(clb.get, "/slow")
        time.sleep(0.2)
        clb.deregister(host)

        assert clb.health(host) == [GONE]
        assert slow.exception(timeout=0.5) is not None


def test_a_terminated_instance_is_forgotten(clb: Clb) -> None:
    host = clb.host()
    clb.wait_until_in_service(host)

    clb.balancers.ec2.terminate_instances(InstanceIds=[host.id])

    wait_until(lambda: clb.shown()["Instances"] == [])
    assert clb.health(host) == []


# --------------------------------------------------------------------------------------- listeners


def test_a_listener_goes_at_once_and_comes_after_a_moment(clb: Clb) -> None:
    host = clb.host()
    clb.wait_until_in_service(host)
    for port, server in ((GREEN, host.green), (BLUE, host.blue), (GREEN, host.green)):
        clb.delete_listener()
        assert clb.refuses()
        assert clb.listeners() == {}

        clb.create_listener(InstancePort=port)
        assert clb.listeners()[clb.port]["Listener"]["InstancePort"] == port
        assert clb.refuses()
        assert 0.1 < wait_until(clb.answers) < 2
        assert {clb.get() for _ in range(4)} == {server.name}


def test_what_is_in_flight_when_a_listener_goes_is_answered(clb: Clb) -> None:
    host = clb.host()
    clb.wait_until_in_service(host)
    kept = clb.connect()
    ask(kept)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(clb.get, "/slow")
        time.sleep(0.2)

        clb.delete_listener()

        assert clb.refuses()
        assert slow.result() == host.blue.name
    clb.create_listener(InstancePort=GREEN)
    wait_until(clb.answers)
    assert ask(kept) == host.green.name  # an open connection follows


def test_other_listeners_go_on(clb: Clb) -> None:
    host = clb.host()
    clb.wait_until_in_service(host)
    other = clb.balancers.new_port()
    clb.create_listener(LoadBalancerPort=other, InstancePort=GREEN)
    address = clb.balancers.address

    def other_answers() -> bool:
        try:
            return get(address, other) == host.green.name
        except OSError:
            return False

    wait_until(other_answers)
    clb.delete_listener()

    assert clb.refuses()
    assert all(other_answers() for _ in range(5))
    assert set(clb.listeners()) == {other}


def test_the_health_check_moves_and_nobody_leaves(clb: Clb) -> None:
    host = clb.host()
    clb.wait_until_in_service(host)

    clb.check(f"HTTP:{GREEN}/healthz")

    for _ in range(20):
        assert clb.health(host) == [IN_SERVICE]
        time.sleep(0.05)
    host.green.status = 500
    wait_until(lambda: clb.health(host) == [FAILED])


def test_the_same_listener_again_is_no_error(clb: Clb) -> None:
    before = clb.listeners()

    clb.create_listener()

    assert clb.listeners() == before
    clb.delete_listener(1)  # nor is one that is not there


def test_a_secure_listener_keeps_what_it_is_given(clb: Clb) -> None:
    certificate = clb.balancers.client("acm").request_certificate(DomainName="example.com")
    port = clb.balancers.new_port()
    secure = {
        "LoadBalancerPort": port,
        "Protocol": "HTTPS",
        "InstanceProtocol": "HTTP",
        "SSLCertificateId": certificate["CertificateArn"],
    }
    clb.create_listener(**secure)
    assert clb.listeners()[port] == {
        "Listener": {**secure, "InstancePort": BLUE},
        "PolicyNames": ["ELBSecurityPolicy-2016-08"],
    }
    clb.api.create_lb_cookie_stickiness_policy(
        LoadBalancerName=clb.name, PolicyName="sticky", CookieExpirationPeriod=60
    )

    clb.api.set_load_balancer_policies_of_listener(
        LoadBalancerName=clb.name,
        LoadBalancerPort=port,
        PolicyNames=["ELBSecurityPolicy-2016-08", "sticky"],
    )

    policies = clb.listeners()[port]["PolicyNames"]
    assert sorted(policies) == ["ELBSecurityPolicy-2016-08", "sticky"]
    clb.delete_listener(port)
    clb.create_listener(**secure)
    assert clb.listeners()[port]["PolicyNames"] == ["ELBSecurityPolicy-2016-08"]


# --------------------------------------------------------------------------------------------- API


def test_what_a_new_one_has(clb: Clb) -> None:
    name = clb.balancers.new_name()
    clb.api.create_load_balancer(
        LoadBalancerName=name,
        Listeners=[listener(clb.balancers.new_port())],
        Subnets=clb.balancers.subnets,
    )
    (shown,) = clb.api.describe_load_balancers(LoadBalancerNames=[name])["LoadBalancerDescriptions"]

    assert shown["DNSName"] == clb.balancers.address
    assert shown["HealthCheck"] == {
        "Target": f"TCP:{BLUE}",
        "Interval": 30,
        "Timeout": 5,
        "HealthyThreshold": 10,
        "UnhealthyThreshold": 2,
    }
    assert attributes(clb, name)["ConnectionDraining"] == {"Enabled": False, "Timeout": 300}
    clb.api.delete_load_balancer(LoadBalancerName=name)


def attributes(clb: Clb, name: str) -> dict[str, Any]:
    answer = clb.api.describe_load_balancer_attributes(LoadBalancerName=name)
    return dict(answer["LoadBalancerAttributes"])


def test_draining_is_shown(clb: Clb) -> None:
    clb.drain(45)

    assert attributes(clb, clb.name)["ConnectionDraining"] == {"Enabled": True, "Timeout": 45}
    assert attributes(clb, clb.name)["ConnectionSettings"] == {"IdleTimeout": 60}


def requests_for_what_is_not_there(clb: Clb) -> list[Callable[[], Any]]:
    api, name = clb.api, {"LoadBalancerName": "nobody"}
    return [
        lambda: api.describe_load_balancers(LoadBalancerNames=["nobody"]),
        lambda: api.describe_load_balancer_attributes(**name),
        lambda: api.describe_instance_health(**name),
        lambda: api.delete_load_balancer_listeners(**name, LoadBalancerPorts=[80]),
        lambda: api.create_load_balancer_listeners(**name, Listeners=[listener(80)]),
        lambda: api.set_load_balancer_policies_of_listener(
            **name, LoadBalancerPort=80, PolicyNames=[]
        ),
        lambda: api.configure_health_check(
            **name,
            HealthCheck={
                "Target": "TCP:80",
                "Interval": 5,
                "Timeout": 2,
                "HealthyThreshold": 2,
                "UnhealthyThreshold": 2,
            },
        ),
        lambda: api.register_instances_with_load_balancer(**name, Instances=[]),
    ]


def test_what_does_not_exist_is_not_found(clb: Clb) -> None:
    for ask_for in requests_for_what_is_not_there(clb):
        with pytest.raises(clb.api.exceptions.AccessPointNotFoundException) as error:
            ask_for()
        assert error.value.response["Error"] == {
            "Type": "Sender",
            "Code": "LoadBalancerNotFound",
            "Message": "There is no ACTIVE Load Balancer named 'nobody'",
        }


def an_unknown_instance(clb: Clb) -> None:
    clb.api.register_instances_with_load_balancer(
        LoadBalancerName=clb.name, Instances=[{"InstanceId": "i-0123456789abcdef0"}]
    )


def the_health_of_an_unknown_instance(clb: Clb) -> None:
    clb.api.describe_instance_health(
        LoadBalancerName=clb.name, Instances=[{"InstanceId": "i-0123456789abcdef0"}]
    )


def another_listener_on_the_port(clb: Clb) -> None:
    clb.create_listener(InstancePort=GREEN)


def no_certificate(clb: Clb) -> None:
    clb.create_listener(LoadBalancerPort=443, Protocol="HTTPS")


def an_unknown_certificate(clb: Clb) -> None:
    clb.create_listener(
        LoadBalancerPort=443,
        Protocol="HTTPS",
        SSLCertificateId="arn:aws:acm:ap-northeast-1:123456789012:certificate/nothing",
    )


def an_unknown_protocol(clb: Clb) -> None:
    clb.create_listener(LoadBalancerPort=53, Protocol="UDP")


def protocols_of_two_layers(clb: Clb) -> None:
    clb.create_listener(LoadBalancerPort=81, Protocol="TCP", InstanceProtocol="HTTP")


def policies_of_no_listener(clb: Clb) -> None:
    clb.api.set_load_balancer_policies_of_listener(
        LoadBalancerName=clb.name, LoadBalancerPort=1, PolicyNames=[]
    )


def an_unknown_policy(clb: Clb) -> None:
    clb.api.set_load_balancer_policies_of_listener(
        LoadBalancerName=clb.name, LoadBalancerPort=clb.port, PolicyNames=["nothing"]
    )


def a_check_without_a_path(clb: Clb) -> None:
    clb.check(f"HTTP:{BLUE}")


def a_check_without_a_port(clb: Clb) -> None:
    clb.check("TCP")


@pytest.mark.parametrize(
    ("ask_for", "code"),
    [
        (an_unknown_instance, "InvalidInstance"),
        (the_health_of_an_unknown_instance, "InvalidInstance"),
        (another_listener_on_the_port, "DuplicateListener"),
        (no_certificate, "ValidationError"),
        (an_unknown_certificate, "CertificateNotFound"),
        (an_unknown_protocol, "UnsupportedProtocol"),
        (protocols_of_two_layers, "ValidationError"),
        (policies_of_no_listener, "ListenerNotFound"),
        (an_unknown_policy, "PolicyNotFound"),
        (a_check_without_a_path, "ValidationError"),
        (a_check_without_a_port, "ValidationError"),
    ],
)
def test_it_refuses(clb: Clb, ask_for: Callable[[Clb], None], code: str) -> None:
    before = clb.shown()

    with pytest.raises(ClientError) as error:
        ask_for(clb)

    assert error.value.response["Error"]["Code"] == code
    assert clb.shown() == before
