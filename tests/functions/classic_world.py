"""The small AWS of world.py and group_world.py behind a Classic Load Balancer, for both its ways.

moto's load balancer has every running instance in service, forgets the protocol towards instances,
and takes any listener and policy; its Auto Scaling attaches and registers inside the call. Here, as
in AWS, instances get into service by and by, and only with a task that answers; groups are Adding,
Added, Removing; what is there already, or is not there, is refused as AWS does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import yaml
from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import AutoScalingBackend
from moto.autoscaling.responses import AutoScalingResponse
from moto.backends import get_backend
from moto.core.responses import ActionResult, EmptyResult
from moto.elb.exceptions import DuplicateListenerError, ELBClientError
from moto.elb.models import ELBBackend, LoadBalancer
from moto.elb.responses import ELBResponse

from bluegreen.color import Color
from runtime import clients
from tests.functions.group_world import NO_CAPACITY, GroupWorld
from tests.functions.host_world import KEYS
from tests.functions.world import ACCOUNT, BLUE, GREEN, PREFIX, REGION, World

NAME, PORT = "web", 8080
PORTS = {BLUE: 18081, GREEN: 18082}
CERTIFICATE = f"arn:aws:iam::{ACCOUNT}:server-certificate/web"
STICKY, CIPHERS = "sticky", "ciphers"
# Short, for few passes of the states that wait for them.
WAITS: dict[str, Any] = {"bake": {"seconds": 20}, "drain": {"seconds": 10, "margin_seconds": 5}}
# State, reason code and description: https://docs.aws.amazon.com/elasticloadbalancing/2012-06-01/
# APIReference/API_InstanceState.html
Shown = tuple[str, str, str]
IN_SERVICE: Shown = ("InService", "N/A", "N/A")
REGISTERING: Shown = ("OutOfService", "ELB", "Instance registration is still in progress.")
LEAVING: Shown = ("InService", "N/A", "Instance deregistration currently in progress.")
FAILED: Shown = (
    "OutOfService",
    "Instance",
    "Instance has failed at least the UnhealthyThreshold number of health checks consecutively.",
)


class Listener:
    """What moto shows of one; its own takes the protocol of users for that of instances."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.load_balancer_port, self.instance_port = (
            given["LoadBalancerPort"],
            given["InstancePort"],
        )
        self.protocol = given["Protocol"]
        self.instance_protocol = given.get("InstanceProtocol") or self.protocol
        self.ssl_certificate_id = given.get("SSLCertificateId")
        self.policy_names = ["ELBSecurityPolicy-2016-08"] if self.ssl_certificate_id else []


@dataclass
class Classic(World):
    """shown: what DescribeInstanceHealth says of each registered instance. ill: what is to be said
    of instances that do not pass their health check.
    """

    shown: dict[str, Shown] = field(default_factory=dict)
    ill: dict[str, Shown] = field(default_factory=dict)

    # Making it

    def build(self) -> Self:
        backend: Any = "elb"
        get_backend(backend)[ACCOUNT][REGION].reset()
        return super().build()

    def _strengthen(self) -> None:
        super()._strengthen()

        def instance_health(_: Any) -> ActionResult:
            keys = ("InstanceId", "State", "ReasonCode", "Description")
            states = [
                dict(zip(keys, (one, *shown), strict=True)) for one, shown in self.shown.items()
            ]
            return ActionResult({"InstanceStates": states})

        for holder, name, method in (
            (ELBBackend, "create_load_balancer_listeners", _create_listeners),
            (ELBBackend, "delete_load_balancer_listeners", _delete_listeners),
            (ELBResponse, "set_load_balancer_policies_of_listener", _set_policies),
            (ELBResponse, "describe_instance_health", instance_health),
        ):
            self.monkeypatch.setattr(holder, name, method)

    def _network(self) -> None:
        elb = clients.elb()
        self.groups = {color: f"none-{color}" for color in Color}
        first: Any = {
            "Protocol": "HTTPS",
            "LoadBalancerPort": PORT,
            "InstanceProtocol": "HTTP",
            "InstancePort": PORTS[BLUE],
            "SSLCertificateId": CERTIFICATE,
        }
        elb.create_load_balancer(
            LoadBalancerName=NAME, Listeners=[first], Subnets=self.account.subnets
        )
        self.balancer.listeners = [Listener(first)]
        elb.create_lb_cookie_stickiness_policy(LoadBalancerName=NAME, PolicyName=STICKY)
        elb.create_load_balancer_policy(
            LoadBalancerName=NAME, PolicyName=CIPHERS, PolicyTypeName="SSLNegotiationPolicyType"
        )
        elb.set_load_balancer_policies_of_listener(
            LoadBalancerName=NAME, LoadBalancerPort=PORT, PolicyNames=[STICKY, CIPHERS]
        )
        self.check(f"HTTP:{PORTS[BLUE]}/healthz")
        elb.modify_load_balancer_attributes(
            LoadBalancerName=NAME,
            LoadBalancerAttributes={"ConnectionDraining": {"Enabled": True, "Timeout": 40}},
        )

    def _cluster(self) -> None:
        super()._cluster()
        for service in self.backend.services.values():
            service.load_balancers = []

    def configure(self, **sections: Any) -> None:
        """Without what a Classic Load Balancer does not have."""
        super().configure(**sections)
        client, name = clients.ssm(), f"{PREFIX}/web"
        document = yaml.safe_load(str(client.get_parameter(Name=name)["Parameter"].get("Value")))
        document["router"].pop("test_port", None)
        for slot in document["colors"].values():
            slot.pop("target_group", None)
        client.put_parameter(
            Name=name, Value=yaml.safe_dump(document), Type="String", Overwrite=True
        )

    # What people and other programs do

    def check(self, target: str) -> None:
        clients.elb().configure_health_check(
            LoadBalancerName=NAME,
            HealthCheck={
                "Target": target,
                "Interval": 10,
                "Timeout": 4,
                "UnhealthyThreshold": 3,
                "HealthyThreshold": 2,
            },
        )

    # Looking

    @property
    def balancer(self) -> LoadBalancer:
        """moto's load balancer."""
        backend: Any = "elb"
        found: LoadBalancer = get_backend(backend)[ACCOUNT][REGION].load_balancers[NAME]
        return found

    def described(self) -> Any:
        answer = clients.elb().describe_load_balancers(LoadBalancerNames=[NAME])
        return answer["LoadBalancerDescriptions"][0]

    def services(self) -> dict[Color, tuple[str, int]]:
        """Task definition and desired count of both colours."""
        found = {color: self.service(color) for color in Color}
        return {color: (one["taskDefinition"], one["desiredCount"]) for color, one in found.items()}


def _create_listeners(backend: Any, name: str, ports: list[dict[str, Any]]) -> None:
    """One that is there already is no error if it is the same."""
    balancer = backend.load_balancers[name]
    for given in ports:
        known = _listener(balancer, given["LoadBalancerPort"])
        if known is None:
            balancer.listeners.append(Listener(given))
        elif known.given != given:
            raise DuplicateListenerError(name, given["LoadBalancerPort"])


def _delete_listeners(backend: Any, name: str, ports: list[int]) -> None:
    """What is not there is no error."""
    balancer = backend.load_balancers[name]
    balancer.listeners = [
        one for one in balancer.listeners if int(one.load_balancer_port) not in ports
    ]


def _set_policies(response: Any) -> EmptyResult:
    balancer = response.elb_backend.load_balancers[response._get_param("LoadBalancerName")]
    listener = _listener(balancer, response._get_param("LoadBalancerPort"))
    if listener is None:
        raise ELBClientError(
            "ListenerNotFound",
            "The load balancer does not have a listener configured at the specified port.",
        )
    names = response._get_param("PolicyNames", [])
    known = {one.policy_name for one in balancer.policies}
    if unknown := [one for one in names if one not in known]:
        raise ELBClientError("PolicyNotFound", f"There is no policy with name {unknown[0]}")
    listener.policy_names = list(names)
    return EmptyResult()


def _listener(balancer: LoadBalancer, port: Any) -> Any:
    return next(
        (one for one in balancer.listeners if int(one.load_balancer_port) == int(port)), None
    )


@dataclass
class ClassicGroupWorld(Classic, GroupWorld):
    """Two clusters: blue's group is attached, a task of a fixed port on each of its two hosts.

    attached: colour → state of the load balancer at its group. busy: colours whose connections do
    not end while they are drained. max_launches: hosts that a group
    can get, None as many as it wants.
    """

    attached: dict[Color, str] = field(default_factory=lambda: {BLUE: "Added"})
    busy: set[Color] = field(default_factory=set)
    max_launches: int | None = None

    def _strengthen(self) -> None:
        super()._strengthen()
        self.monkeypatch.setattr("tests.functions.group_world.TASKS_PER_HOST", 1)

        def attach(_: Any, group_name: str, load_balancer_names: list[str]) -> None:
            color = _color(group_name)
            if load_balancer_names != [NAME]:
                raise ValidationError("Provided Load Balancers may not be valid.")
            if color not in self.attached_colors():
                self.attached[color] = "Adding"

        def detach(_: Any, group_name: str, load_balancer_names: list[str]) -> None:
            color = _color(group_name)
            if color not in self.attached_colors() or load_balancer_names != [NAME]:
                raise ValidationError(
                    "Trying to remove Load Balancers that are not part of the group"
                )
            self.attached[color] = "Removing"
            self.shown.update(dict.fromkeys(set(self.instances(color)) & set(self.shown), LEAVING))

        def describe(response: Any) -> ActionResult:
            state = self.attached.get(_color(response._get_param("AutoScalingGroupName")))
            found = [{"LoadBalancerName": NAME, "State": state}] if state else []
            return ActionResult({"LoadBalancers": found})

        for holder, name, method in (
            (AutoScalingBackend, "attach_load_balancers", attach),
            (AutoScalingBackend, "detach_load_balancers", detach),
            (AutoScalingResponse, "describe_load_balancers", describe),
        ):
            self.monkeypatch.setattr(holder, name, method)

    def configure(self, **sections: Any) -> None:
        router = {"type": "clb", "load_balancer": NAME, "port": PORT, "overlap_seconds": 30}
        super().configure(**WAITS | sections | {"router": router | sections.get("router", {})})

    # What people and other programs do

    def attach(self, color: Color) -> None:
        clients.autoscaling().attach_load_balancers(
            AutoScalingGroupName=f"web-{color}", LoadBalancerNames=[NAME]
        )

    def detach(self, color: Color) -> None:
        clients.autoscaling().detach_load_balancers(
            AutoScalingGroupName=f"web-{color}", LoadBalancerNames=[NAME]
        )

    # What Auto Scaling, ECS and the load balancer do by and by

    def goes_on(self) -> None:
        super().goes_on()
        for color in Color:
            members = self.instances(color)
            if self.attached.get(color) == "Removing" and color not in self.busy:
                for one in members:
                    self.shown.pop(one, None)
                del self.attached[color]
            elif color in self.attached_colors():
                self.attached[color] = "Added"
                for one in (one for one, state in members.items() if state == "InService"):
                    self.shown[one] = self._checked(color, one)
        there = {one for color in Color for one in self.instances(color)}
        self.shown = {one: shown for one, shown in self.shown.items() if one in there}

    def _launch(self, color: Color, group: Any) -> None:
        full = self.max_launches is not None and len(self.instances(color)) >= self.max_launches
        self.cannot_launch = {color: NO_CAPACITY} if full else {}
        super()._launch(color, group)

    def _checked(self, color: Color, instance: str) -> Shown:
        """What is said of an instance after the next health checks."""
        if instance not in self.shown:
            return REGISTERING
        if instance in self.ill:
            return self.ill[instance]
        hosts = {one.container_instance_arn: one.ec2_instance_id for one in self.hosts(color)}
        with_task = {hosts.get(task.container_instance_arn) for task in self.tasks(color)}
        return IN_SERVICE if instance in with_task else FAILED

    # Running functions

    def shifted(self, execution: str = "d-1", **request: Any) -> dict[str, Any]:
        data = self.started(execution, **request)
        assert self.until_over("shift_traffic", data, execution)["status"] == "shifted"
        return data

    # Looking

    def attached_colors(self) -> set[Color]:
        """Those whose groups are attached, or about to be."""
        return {color for color, state in self.attached.items() if state in ("Adding", "Added")}

    def serving(self) -> dict[Color, int]:
        """How many instances of each attached group requests are sent to."""
        return {
            color: sum(self.shown.get(one) == IN_SERVICE for one in self.instances(color))
            for color in self.attached_colors()
        }


def _color(group_name: str) -> Color:
    return Color(group_name.removeprefix("web-"))


@dataclass
class ClassicPortWorld(Classic):
    """Shifted ports: both colours on three instances, blue live with a task on each."""

    def _cluster(self) -> None:
        super()._cluster()
        self.scale(BLUE, 3)
        clients.elb().register_instances_with_load_balancer(
            LoadBalancerName=NAME,
            Instances=[{"InstanceId": one} for one in self.account.instances],
        )
        self.goes_on()

    def configure(self, **sections: Any) -> None:
        """With accept_gap and without a probe, unless other sections are given."""
        router = {"type": "clb", "load_balancer": NAME, "port": PORT, "accept_gap": True}
        router |= sections.get("router", {})
        super().configure(**{"probe": None} | WAITS | sections | {"router": router})

    # What people and other programs do

    def forward_to(self, port: int) -> None:
        """Somebody else makes the listener anew."""
        elb, listener = clients.elb(), self.described()["ListenerDescriptions"][0]["Listener"]
        elb.delete_load_balancer_listeners(LoadBalancerName=NAME, LoadBalancerPorts=[PORT])
        elb.create_load_balancer_listeners(
            LoadBalancerName=NAME, Listeners=[listener | {"InstancePort": port}]
        )

    # What ECS and the load balancer do by and by

    def goes_on(self) -> None:
        """Tasks that are not wanted end, and instances are checked on the port of the check."""
        wanted = {color: self.service(color)["desiredCount"] for color in Color}
        for color in Color:
            for task in self.running(color)[wanted[color] :]:
                task.last_status = task.desired_status = "STOPPED"
        port = int(self.balancer.health_check.target.split(":")[1].split("/")[0])
        answers = {PORTS[color] for color in Color if wanted[color]}
        for one in self.balancer.instance_ids:
            self.shown[one] = self.ill.get(one, IN_SERVICE if port in answers else FAILED)

    def running(self, color: Color) -> list[Any]:
        """moto's tasks of a colour that have not stopped."""
        group = "service:{1}".format(*self.place(color))
        return [
            one
            for one in self.backend.tasks.get("web", {}).values()
            if one.group == group and one.last_status != "STOPPED"
        ]

    # Running functions

    def until_over(
        self,
        state: str,
        data: dict[str, Any],
        execution: str = "d-1",
        each: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """As in group_world.py."""
        for _ in range(400):
            data[KEYS[state]] = self.run(state, data, execution)
            answer: dict[str, Any] = data[KEYS[state]]
            each()
            if answer["status"] != "waiting":
                return answer
            self.goes_on()
            self.now += answer["wait_seconds"]
        raise AssertionError(f"does not end: {answer}")

    # Looking

    def place_of_users(self) -> tuple[int | None, str]:
        """The port of the instances that the listener sends to, None without one; the check."""
        described = self.described()
        ports = [one["Listener"]["InstancePort"] for one in described["ListenerDescriptions"]]
        assert len(ports) < 2
        return next(iter(ports), None), described["HealthCheck"]["Target"]

    def front(self) -> dict[str, Any]:
        """All that a deployment may change at the load balancer."""
        described = self.described()
        return {key: described[key] for key in ("ListenerDescriptions", "HealthCheck")}
