"""Classic Load Balancer: it has no weights, so groups or listeners are exchanged.

Two clusters: the new colour's Auto Scaling group is attached, its instances get InService, both
groups serve for a while, then the old one is detached and drains. Shifted ports: the listener is
deleted and made anew with the other colour's port, and requests in between are refused.
https://docs.aws.amazon.com/elasticloadbalancing/2012-06-01/APIReference/Welcome.html
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bluegreen import auto_scaling, ecs
from bluegreen.color import Color
from bluegreen.compute import Group
from bluegreen.configuration import ClbRouter, ColorSlot, ServiceConfiguration
from bluegreen.errors import DeploymentRefused, IdleColorUnhealthy, TrafficChanged
from bluegreen.look import Asked, Look, some
from bluegreen.pace import wait_seconds
from bluegreen.routers import Survey
from bluegreen.traffic import Weights, show

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_elb import ElasticLoadBalancingClient

_BOTH: Weights = dict.fromkeys(Color, 50)
# While there is no listener. Not {}: that is what RollBack takes somebody else's listener for.
_NOBODY: Weights = dict.fromkeys(Color, 0)
# States of a load balancer attached to a group; "Removing" and "Removed" are on their way out:
# https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_LoadBalancerState.html
_ATTACHED = frozenset({"Adding", "Added", "InService"})
# ``HTTP:18081/healthz``, ``TCP:18081``: https://docs.aws.amazon.com/elasticloadbalancing/
# 2012-06-01/APIReference/API_HealthCheck.html
_HEALTH_CHECK = re.compile(r"(?P<protocol>[A-Z]+):(?P<port>\d+)(?P<path>/.*)?")
_PLACE = "the load balancer"
# Lifecycle states of instances that a group gives up.
_LEAVING = ("Terminating", "Detaching", "EnteringStandby", "Standby")


class Classic:
    """What both ways of a Router (bluegreen/routers/__init__.py) on a Classic Load Balancer share.

    deadline_seconds: how long instances may take to get InService.
    """

    def __init__(
        self,
        client: ElasticLoadBalancingClient,
        groups: AutoScalingClient,
        configuration: ServiceConfiguration,
    ) -> None:
        assert isinstance(configuration.router, ClbRouter)
        self._client = client
        self._groups = groups
        self._colors = configuration.colors
        self._router = configuration.router
        self._name = configuration.router.load_balancer
        self._deadline_seconds = configuration.health.deadline_seconds

    def refused(self, progress: Mapping[str, Any], now: float) -> str:  # noqa: ARG002
        return ""


class ClassicGroups(Classic):
    """Attaches and detaches the Auto Scaling groups of two clusters."""

    def look(self, asked: Asked | None, now: float) -> ClassicGroupsLook:  # noqa: ARG002
        names = {color: self._colors[color].auto_scaling_group or "" for color in Color}
        return ClassicGroupsLook(self._client, self._groups, self._name, names)

    def shift(
        self,
        progress: Mapping[str, Any] | None,
        expected: Sequence[Weights],
        weights: Weights,
        intend: Callable[[Weights], None],
        now: float,
    ) -> dict[str, Any]:
        """One pass: attach, wait until all are InService, wait for both to serve, detach.

        Raises TrafficChanged; IdleColorUnhealthy when an instance does not get InService.
        """
        look = self.look(None, now)
        found = look.weights()[_PLACE]
        new = max(weights, key=lambda color: weights[color])
        # Once this deployment has attached, a group that is not is somebody else's doing.
        before = [] if progress else expected
        halfway = [_BOTH] if any(one.get(new.other) for one in expected) else []
        _check(found, [*before, *halfway, weights])
        switch = {"since": now, "in_service_at": None, **(progress or {})}
        if not look.is_attached(new):
            intend(_BOTH if look.is_attached(new.other) else weights)
            self._attach(new)
            return _waiting(switch, f"{new} is attached to the load balancer", now)
        if not_ready := look.not_in_service(new):
            if now - switch["since"] > self._deadline_seconds:
                raise IdleColorUnhealthy(f"{new}, at the load balancer: {not_ready}")
            return _waiting({**switch, "in_service_at": None}, not_ready, now)
        if look.is_attached(new.other):
            in_service_at = switch["in_service_at"] or now
            left = in_service_at + self._router.overlap_seconds - now
            if left > 0:
                reason = f"both colours serve for another {left:.0f} s"
                return _waiting({**switch, "in_service_at": in_service_at}, reason, now, left)
            intend(weights)
            self._detach(new.other)
            after = self.look(None, now).weights()[_PLACE]
            if after != weights:
                raise TrafficChanged(
                    f"detached {new.other}, but read {show(after)} right after: somebody else "
                    "changes the load balancer too; it is left as it is"
                )
        return {"status": "shifted"}

    def put_back(
        self,
        look: Look,
        expected: Sequence[Weights],
        weights: Weights,
        now: float,  # noqa: ARG002
    ) -> None:
        """One step: attach what had the traffic; once it serves, detach what had none."""
        assert isinstance(look, ClassicGroupsLook)
        _check(look.weights()[_PLACE], [*expected, _BOTH, weights])
        had = [color for color in Color if weights.get(color, 0) > 0]
        missing = [color for color in had if not look.is_attached(color)]
        for color in missing:
            self._attach(color)
        if missing or any(not look.in_service(color) for color in had):
            return
        for color in Color:
            if color not in had and look.is_attached(color):
                self._detach(color)

    def _attach(self, color: Color) -> None:
        self._groups.attach_load_balancers(
            AutoScalingGroupName=self._group(color), LoadBalancerNames=[self._name]
        )

    def _detach(self, color: Color) -> None:
        try:
            self._groups.detach_load_balancers(
                AutoScalingGroupName=self._group(color), LoadBalancerNames=[self._name]
            )
        except ClientError:
            # botocore repeats a call whose answer was lost; what is detached already is refused.
            if self.look(None, 0).is_attached(color):
                raise

    def _group(self, color: Color) -> str:
        name = self._colors[color].auto_scaling_group
        assert name
        return name


class _ClassicLook:
    """A Look (bluegreen/look.py) at a Classic Load Balancer; the calls are made on demand."""

    def __init__(self, client: ElasticLoadBalancingClient, name: str) -> None:
        self._client = client
        self._name = name

    @cached_property
    def _targets(self) -> list[dict[str, Any]]:
        """DescribeInstanceHealth in the shape of ``TargetHealthDescriptions``."""
        states = self._client.describe_instance_health(LoadBalancerName=self._name)
        return [
            {
                "Target": {"Id": one["InstanceId"]},
                "TargetHealth": {
                    "State": "healthy" if one["State"] == "InService" else "unhealthy",
                    "Reason": one["ReasonCode"],
                    "Description": one["Description"],
                },
            }
            for one in states["InstanceStates"]
        ]

    def switched_after(self, generation: int) -> list[str]:  # noqa: ARG002
        """A load balancer has no generations: what it does is compared."""
        return []

    def has_place_of(self, task: Mapping[str, Any]) -> bool:
        """A host that dies takes its tasks along; ECS starts others."""
        return not ecs.went_with_its_host(task)

    def unknown(self) -> str:
        """A load balancer that cannot be read is an error of the call."""
        return ""

    def connections(self, color: Color) -> None:  # noqa: ARG002 - nobody counts them
        return None


class ClassicGroupsLook(_ClassicLook):
    """groups: Auto Scaling group per colour."""

    def __init__(
        self,
        client: ElasticLoadBalancingClient,
        groups_client: AutoScalingClient,
        name: str,
        groups: Mapping[Color, str],
    ) -> None:
        super().__init__(client, name)
        self._groups_client = groups_client
        self._names = groups

    @cached_property
    def _groups(self) -> Mapping[Color, Group]:
        return {
            color: auto_scaling.read(self._groups_client, name)
            for color, name in self._names.items()
        }

    @cached_property
    def _attached(self) -> frozenset[Color]:
        return frozenset(
            color
            for color, name in self._names.items()
            for one in self._groups_client.describe_load_balancers(AutoScalingGroupName=name)[
                "LoadBalancers"
            ]
            if one.get("LoadBalancerName") == self._name and one.get("State") in _ATTACHED
        )

    def is_attached(self, color: Color) -> bool:
        return color in self._attached

    def weights(self) -> Mapping[str, Weights]:
        attached = [color for color in Color if self.is_attached(color)]
        share = 100 // len(attached) if attached else 0
        return {_PLACE: {color: share if color in attached else 0 for color in Color}}

    def share(self, color: Color) -> int:
        return self.weights()[_PLACE][color]

    def targets(self, color: Color) -> list[Mapping[str, Any]]:
        """The group's instances at the load balancer; once it is detached, all of them leave."""
        if self.is_attached(color):
            stay = self._instances(color)
            return [one for one in self._targets if one["Target"]["Id"] in stay]
        return [
            {**one, "TargetHealth": {"State": "draining"}}
            for one in self._targets
            if one["Target"]["Id"] in self._groups[color].instances
        ]

    def in_service(self, color: Color) -> bool:
        """Whether the colour can serve at all."""
        return any(one["TargetHealth"]["State"] == "healthy" for one in self.targets(color))

    def not_in_service(self, color: Color) -> str:
        """Which instances of the colour do not serve yet, and why; "" when all do."""
        states = {one["Target"]["Id"]: one["TargetHealth"] for one in self.targets(color)}
        absent = {"State": "unhealthy", "Description": "not registered yet"}
        waiting = [
            f"{instance}: {states.get(instance, absent)['Description']}"
            for instance in sorted(self._instances(color))
            if states.get(instance, absent)["State"] != "healthy"
        ]
        if not self._instances(color):
            return "its group has no instances"
        return f"{len(waiting)} instances are not InService: {some(waiting)}" if waiting else ""

    def tasks_for(self, count: int) -> int:
        """The load balancer sends to every host of a group, so each needs a task."""
        return max(count, *(group.desired_capacity for group in self._groups.values()))

    def targets_for(self, color: Color, tasks: int) -> int | None:  # noqa: ARG002
        """Each host that the group wants is a target, once it is attached; before, nobody checks
        them. Those that it has may be fewer for now, or on their way out.
        """
        return self._groups[color].desired_capacity if self.is_attached(color) else None

    def _instances(self, color: Color) -> list[str]:
        """Those that are not on their way out; one may take an hour for its lifecycle hook."""
        return [
            name
            for name, state in self._groups[color].instances.items()
            if not state.startswith(_LEAVING)
        ]


class ClassicPorts(Classic):
    """Deletes the listener and makes it anew with the port of the other colour.

    before: what DescribeLoadBalancers said of it and of the health check when the deployment was
    planned ({"Listener", "PolicyNames", "HealthCheck"}); it is what is made anew.
    """

    def __init__(
        self,
        client: ElasticLoadBalancingClient,
        groups: AutoScalingClient,
        configuration: ServiceConfiguration,
        before: Mapping[str, Any],
    ) -> None:
        super().__init__(client, groups, configuration)
        self._before = before

    def look(self, asked: Asked | None, now: float) -> ClassicPortsLook:  # noqa: ARG002
        ports = {color: _host_port(self._colors[color]) for color in Color}
        return ClassicPortsLook(self._client, self._name, self._router.port, ports)

    def shift(
        self,
        progress: Mapping[str, Any] | None,
        expected: Sequence[Weights],
        weights: Weights,
        intend: Callable[[Weights], None],
        now: float,
    ) -> dict[str, Any]:
        """Answers gap_ms too: how long there was no listener, as AWS answered the two calls.

        Instances that are InService stay so while the health check moves. Where none is, as before
        the first deployment, nobody is served anyway: the health check moves first, and has to
        pass. Raises TrafficChanged; IdleColorUnhealthy when it does not.
        """
        look = self.look(None, now)
        found, new = look.weights()[_PLACE], _live(weights)
        assert new
        _check(found, [*expected, weights])
        if found == weights:
            self._complete(look, new)
            return {"status": "shifted"}
        if not_ready := look.nobody_in_service():
            switch = {"since": now, **(progress or {})}
            if not look.is_checked(new):
                intend(weights)
                self._check_health_of(new)
            elif now - switch["since"] > self._deadline_seconds:
                raise IdleColorUnhealthy(f"{new}, at the load balancer: {not_ready}")
            return _waiting(switch, not_ready, now)
        # If this function ends in the gap, nobody else has made it.
        intend(_NOBODY)
        intend(weights)
        gap_ms = self._exchange(found, weights)
        return {"status": "shifted", "gap_ms": gap_ms}

    def put_back(
        self,
        look: Look,
        expected: Sequence[Weights],
        weights: Weights,
        now: float,  # noqa: ARG002
    ) -> None:
        """The health check goes back too: it may have gone ahead of the listener."""
        assert isinstance(look, ClassicPortsLook)
        found, live = look.weights()[_PLACE], _live(weights)
        _check(found, [*expected, weights])
        if found != weights:
            self._exchange(found, weights)
        elif live:
            self._complete(look, live)

    def _exchange(self, found: Weights, weights: Weights) -> float:
        """The listener and the health check of other weights; returns the gap in milliseconds.

        If the listener cannot be made, the one before is put back at once.
        """
        new, old = _live(weights), _live(found)
        assert new
        self._check_health_of(new)
        began = time.monotonic()
        if old:
            self._delete()
        try:
            self._create(new)
        except (ClientError, BotoCoreError):
            if old:
                # It may be there all the same: its policies were refused, or the answer was lost.
                self._delete()
                self._create(old)
                self._check_health_of(old)
            raise
        return round((time.monotonic() - began) * 1000, 1)

    def _complete(self, look: ClassicPortsLook, color: Color) -> None:
        """What a function that was lost beside the listener has left undone."""
        if not look.is_checked(color):
            self._check_health_of(color)
        if look.policies() != set(self._before["PolicyNames"]):
            self._set_policies()

    def _delete(self) -> None:
        """Without an error if there is none."""
        self._client.delete_load_balancer_listeners(
            LoadBalancerName=self._name, LoadBalancerPorts=[self._router.port]
        )

    def _create(self, color: Color) -> None:
        port = _host_port(self._colors[color])
        listener: Any = {**self._before["Listener"], "InstancePort": port}
        self._client.create_load_balancer_listeners(
            LoadBalancerName=self._name, Listeners=[listener]
        )
        if self._before["PolicyNames"]:
            self._set_policies()

    def _set_policies(self) -> None:
        self._client.set_load_balancer_policies_of_listener(
            LoadBalancerName=self._name,
            LoadBalancerPort=self._router.port,
            PolicyNames=self._before["PolicyNames"],
        )

    def _check_health_of(self, color: Color) -> None:
        before = self._before["HealthCheck"]
        target = _HEALTH_CHECK.fullmatch(before["Target"])
        assert target
        port = _host_port(self._colors[color])
        check: Any = {**before, "Target": f"{target['protocol']}:{port}{target['path'] or ''}"}
        self._client.configure_health_check(LoadBalancerName=self._name, HealthCheck=check)


class ClassicPortsLook(_ClassicLook):
    """port: the listener's. ports: host port per colour."""

    def __init__(
        self,
        client: ElasticLoadBalancingClient,
        name: str,
        port: int,
        ports: Mapping[Color, int],
    ) -> None:
        super().__init__(client, name)
        self._port = port
        self._colors = {host_port: color for color, host_port in ports.items()}

    @cached_property
    def _balancer(self) -> Mapping[str, Any]:
        return _describe(self._client, self._name)

    def weights(self) -> Mapping[str, Weights]:
        """Raises TrafficChanged when the listener is neither colour's."""
        listener = _listener(self._balancer, self._port)
        if listener is None:
            return {_PLACE: dict(_NOBODY)}
        instance_port = listener["Listener"]["InstancePort"]
        if instance_port not in self._colors:
            raise TrafficChanged(
                f"the listener on port {self._port} forwards to port {instance_port}, which is "
                "neither blue's nor green's"
            )
        live = self._colors[instance_port]
        return {_PLACE: {live: 100, live.other: 0}}

    def share(self, color: Color) -> int:
        listener = _listener(self._balancer, self._port)
        found = listener and self._colors.get(listener["Listener"]["InstancePort"])
        return 100 if found is color else 0

    def targets(self, color: Color) -> list[Mapping[str, Any]]:
        """Both colours have the same instances; their state is that of the port that is checked."""
        return list(self._targets) if self._checked is color else []

    def tasks_for(self, count: int) -> int:
        """The load balancer sends to every instance, so each needs a task."""
        return max(count, len(self._balancer["Instances"]))

    def targets_for(self, color: Color, tasks: int) -> int | None:  # noqa: ARG002
        """Each instance is a target, for the colour whose port is checked."""
        return len(self._balancer["Instances"]) if self._checked is color else None

    def policies(self) -> set[str]:
        """Names of those that the listener has."""
        listener = _listener(self._balancer, self._port)
        return set(listener["PolicyNames"]) if listener else set()

    def is_checked(self, color: Color) -> bool:
        """Whether the health check asks this colour."""
        return self._checked is color

    def nobody_in_service(self) -> str:
        """Why there is no instance that serves, whoever is asked; "" when there is one."""
        if any(one["TargetHealth"]["State"] == "healthy" for one in self._targets):
            return ""
        waiting = [
            f"{one['Target']['Id']}: {one['TargetHealth']['Description']}" for one in self._targets
        ]
        return f"no instance is InService: {some(waiting)}" if waiting else "it has no instances"

    @property
    def _checked(self) -> Color | None:
        target = _HEALTH_CHECK.fullmatch(self._balancer["HealthCheck"]["Target"])
        return self._colors.get(int(target["port"])) if target else None


def survey(
    client: ElasticLoadBalancingClient,
    groups: AutoScalingClient,
    configuration: ServiceConfiguration,
) -> Survey:
    """Everything that a deployment has to know of the load balancer.

    Raises DeploymentRefused when it is not there, or not fit for one.
    """
    router = configuration.router
    assert isinstance(router, ClbRouter)
    balancer = _describe(client, router.load_balancer)
    listener = _listener(balancer, router.port)
    if listener is None:
        raise DeploymentRefused(
            f"load balancer {router.load_balancer!r} has no listener on port {router.port}"
        )
    before = None
    look: ClassicGroupsLook | ClassicPortsLook
    if configuration.pattern == "two-clusters":
        look = ClassicGroups(client, groups, configuration).look(None, 0)
    else:
        before = {
            "Listener": {key: value for key, value in listener["Listener"].items() if value},
            "PolicyNames": listener["PolicyNames"],
            "HealthCheck": balancer["HealthCheck"],
        }
        look = ClassicPorts(client, groups, configuration, before).look(None, 0)
    try:
        weights = look.weights()[_PLACE]
    except TrafficChanged as error:
        raise DeploymentRefused(str(error)) from error
    if before:
        _check_ports(balancer, configuration)
    attributes = client.describe_load_balancer_attributes(LoadBalancerName=router.load_balancer)
    draining = attributes["LoadBalancerAttributes"].get("ConnectionDraining") or {"Enabled": False}
    return Survey(
        traffic=weights,
        tasks_for=look.tasks_for,
        load_balancer_dns=balancer["DNSName"],
        classic_listener=before,
        deregistration_seconds=draining.get("Timeout", 0) if draining["Enabled"] else 0,
    )


def _check_ports(balancer: Mapping[str, Any], configuration: ServiceConfiguration) -> None:
    """What is made anew has to be as it was. Raises DeploymentRefused."""
    ports = {_host_port(configuration.colors[color]) for color in Color}
    target = balancer["HealthCheck"]["Target"]
    checked = _HEALTH_CHECK.fullmatch(target)
    if checked is None or int(checked["port"]) not in ports:
        raise DeploymentRefused(
            f"the health check asks {target}: it has to ask the host port of the live colour, one "
            f"of {', '.join(str(port) for port in sorted(ports))}; it goes along with the listener"
        )
    router = configuration.router
    others = [
        one["Listener"]["LoadBalancerPort"]
        for one in balancer["ListenerDescriptions"]
        if one["Listener"]["InstancePort"] in ports
        and one["Listener"]["LoadBalancerPort"] != router.port
    ]
    if others:
        raise DeploymentRefused(
            f"the listeners on ports {', '.join(str(port) for port in others)} forward to a "
            "colour's port too, and only one listener is moved: they would lose it with the old "
            "colour; let them redirect or forward elsewhere"
        )
    if any(
        one["InstancePort"] in ports and one["PolicyNames"]
        for one in balancer["BackendServerDescriptions"]
    ):
        raise DeploymentRefused(
            "the load balancer has back-end policies (proxy protocol, back-end authentication) on "
            "a colour's port, which cannot be moved to the other one without a moment in between "
            "with the wrong ones; use another kind of load balancer"
        )


def _describe(client: ElasticLoadBalancingClient, name: str) -> Mapping[str, Any]:
    """Raises DeploymentRefused when there is no such Classic Load Balancer."""
    try:
        found = client.describe_load_balancers(LoadBalancerNames=[name])
    except client.exceptions.AccessPointNotFoundException as error:
        raise DeploymentRefused(f"there is no Classic Load Balancer {name!r}") from error
    return found["LoadBalancerDescriptions"][0]


def _listener(balancer: Mapping[str, Any], port: int) -> Mapping[str, Any] | None:
    for one in balancer["ListenerDescriptions"]:
        if one["Listener"]["LoadBalancerPort"] == port:
            return dict(one)
    return None


def _host_port(slot: ColorSlot) -> int:
    assert slot.host_port
    return slot.host_port.host_port


def _live(weights: Weights) -> Color | None:
    return next((color for color, weight in weights.items() if weight), None)


def _check(found: Weights, expected: Sequence[Weights]) -> None:
    if found not in expected:
        raise TrafficChanged(
            f"the traffic was changed by somebody else: found {show(found)}, expected "
            f"{' or '.join(show(one) for one in expected)}; it is left as it is"
        )


def _waiting(
    switch: Mapping[str, Any], reason: str, now: float, left: float | None = None
) -> dict[str, Any]:
    wait = wait_seconds(1, now - switch["since"], left)
    return {"status": "waiting", "reason": reason, "switch": dict(switch), "wait_seconds": wait}
