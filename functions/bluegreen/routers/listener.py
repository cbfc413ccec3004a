"""Listener of an Application or Network Load Balancer: weights of the two target groups in its
forward action.

One ModifyListener or ModifyRule is atomic at the API; the load balancer follows later, with no
published bound. So a switch is written here and proved elsewhere (functions/check_bake.py). A
Network Load Balancer follows with new connections only; those that are open stay on their colour:
https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-listeners.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bluegreen import ecs
from bluegreen.color import Color
from bluegreen.configuration import AlbRouter, Colors, ColorSlot, NlbRouter
from bluegreen.deployment import Location
from bluegreen.errors import DeploymentRefused, TrafficChanged
from bluegreen.look import Asked, Look
from bluegreen.routers import Survey
from bluegreen.traffic import (
    TargetGroups,
    Weights,
    read_weights,
    shares,
    show,
    stickiness_seconds,
    with_weights,
)

if TYPE_CHECKING:
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client


@dataclass(frozen=True)
class Found:
    """The names of a router's configuration resolved to ARNs."""

    dns: str
    location: Location
    test_location: Location | None


class Listener:
    """A Router (bluegreen/routers/__init__.py) for one place of a load balancer."""

    def __init__(
        self, client: ElasticLoadBalancingv2Client, location: Location, groups: TargetGroups
    ) -> None:
        self._client = client
        self._location = location
        self._groups = groups

    def look(self, asked: Asked | None, now: float) -> ListenerLook:  # noqa: ARG002 - answers at once
        return ListenerLook(self._client, self._location, self._groups)

    def shift(
        self,
        progress: Mapping[str, Any] | None,  # noqa: ARG002 - one pass is all it takes
        expected: Sequence[Weights],
        weights: Weights,
        intend: Callable[[Weights], None],
        now: float,  # noqa: ARG002
    ) -> dict[str, Any]:
        intend(weights)
        write(self._client, self._location, self._groups, expected, weights)
        return {"status": "shifted"}

    def put_back(
        self,
        look: Look,  # noqa: ARG002 - write() looks again
        expected: Sequence[Weights],
        weights: Weights,
        now: float,  # noqa: ARG002
    ) -> None:
        write(self._client, self._location, self._groups, expected, weights)

    def refused(self, progress: Mapping[str, Any], now: float) -> str:  # noqa: ARG002
        return ""


class ListenerLook:
    """A Look (bluegreen/look.py) at one place of a load balancer; the calls are made on demand."""

    def __init__(
        self, client: ElasticLoadBalancingv2Client, location: Location, groups: TargetGroups
    ) -> None:
        self._client = client
        self._location = location
        self._groups = groups

    @cached_property
    def _actions(self) -> Sequence[Mapping[str, Any]]:
        return _actions(self._client, self._location)

    def weights(self) -> Mapping[str, Weights]:
        return {"the listener": read_weights(self._actions, self._groups)}

    def switched_after(self, generation: int) -> list[str]:  # noqa: ARG002
        """A listener has no generations: its weights are compared."""
        return []

    def share(self, color: Color) -> int:
        return shares(self._actions, self._groups).get(color, 0)

    def targets(self, color: Color) -> list[Mapping[str, Any]]:
        return targets(self._client, self._groups[color])

    def tasks_for(self, count: int) -> int:
        return count

    def targets_for(self, color: Color, tasks: int) -> int:  # noqa: ARG002
        """Each task is a target."""
        return tasks

    def has_place_of(self, task: Mapping[str, Any]) -> bool:
        """A host that dies takes its tasks along; ECS starts others."""
        return not ecs.went_with_its_host(task)

    def unknown(self) -> str:
        """A load balancer that cannot be read is an error of the call."""
        return ""

    def connections(self, color: Color) -> None:  # noqa: ARG002 - nobody counts them
        return None


# What DescribeLoadBalancers calls them.
_TYPES = {"alb": "application", "nlb": "network"}


def survey(
    client: ElasticLoadBalancingv2Client, router: AlbRouter | NlbRouter, colors: Colors
) -> Survey:
    """Everything that a deployment has to know of the load balancer.

    Raises DeploymentRefused when it is not there, or not fit for one.
    """
    groups = {color: find_target_group(client, colors[color]) for color in Color}
    found = find(client, router)
    try:
        weights = read(client, found.location, groups)
        test_weights = read(client, found.test_location, groups) if found.test_location else None
    except TrafficChanged as error:
        raise DeploymentRefused(str(error)) from error
    check_groups(weights, test_weights)
    return Survey(
        traffic=weights,
        tasks_for=lambda count: count,
        load_balancer_dns=found.dns,
        location=found.location,
        test_location=found.test_location,
        test_traffic=test_weights,
        target_groups=groups,
        stickiness_seconds=read_stickiness(client, found.location),
        deregistration_seconds=max(
            read_deregistration_delay(client, arn) for arn in groups.values()
        ),
    )


def find(client: ElasticLoadBalancingv2Client, router: AlbRouter | NlbRouter) -> Found:
    """Look up load balancer, listeners and rule. Raises DeploymentRefused, naming what is not."""
    balancer = _balancer(client, router.load_balancer)
    if balancer["Type"] != _TYPES[router.type]:
        raise DeploymentRefused(
            f"load balancer {router.load_balancer!r} is of type {balancer['Type']}, but the router "
            f"{router.type} needs one of type {_TYPES[router.type]}"
        )
    listeners = {
        listener["Port"]: listener["ListenerArn"]
        for page in client.get_paginator("describe_listeners").paginate(
            LoadBalancerArn=balancer["LoadBalancerArn"]
        )
        for listener in page["Listeners"]
    }
    for port in (router.port, router.test_port):
        if port is not None and port not in listeners:
            raise DeploymentRefused(
                f"load balancer {router.load_balancer!r} has no listener on port {port}, only on "
                + ", ".join(str(known) for known in sorted(listeners))
            )
    listener = listeners[router.port]
    return Found(
        dns=balancer["DNSName"],
        location=Location(
            listener_arn=listener,
            rule_arn=_rule(client, listener, router.rule_priority)
            if router.rule_priority
            else None,
        ),
        test_location=Location(listener_arn=listeners[router.test_port])
        if router.test_port
        else None,
    )


def find_dns(client: ElasticLoadBalancingv2Client, name: str) -> str:
    """DNS name of a load balancer. Raises DeploymentRefused."""
    return str(_balancer(client, name)["DNSName"])


def find_target_group(client: ElasticLoadBalancingv2Client, slot: ColorSlot) -> str:
    """ARN of a colour's target group. Raises DeploymentRefused."""
    assert slot.target_group
    try:
        groups = client.describe_target_groups(Names=[slot.target_group])["TargetGroups"]
    except client.exceptions.TargetGroupNotFoundException as error:
        raise DeploymentRefused(f"there is no target group {slot.target_group!r}") from error
    return groups[0]["TargetGroupArn"]


def read(client: ElasticLoadBalancingv2Client, location: Location, groups: TargetGroups) -> Weights:
    """The weights at a place now. Raises TrafficChanged when they are not the colours' alone."""
    return read_weights(_actions(client, location), groups)


def read_shares(
    client: ElasticLoadBalancingv2Client, location: Location, groups: TargetGroups
) -> Weights:
    """The weight of each colour at a place now, whatever else somebody has put there."""
    return shares(_actions(client, location), groups)


def read_stickiness(client: ElasticLoadBalancingv2Client, location: Location) -> int:
    """Seconds that group stickiness keeps a user on a colour."""
    return stickiness_seconds(_actions(client, location))


def write(
    client: ElasticLoadBalancingv2Client,
    location: Location,
    groups: TargetGroups,
    expected: Sequence[Weights],
    weights: Weights,
) -> None:
    """Compare, write, verify.

    expected: the weights that may be there now; weights that are there already are not written
    again. Raises TrafficChanged when others are found, before or after, and leaves those as they
    are.
    """
    # One look: what was compared is what is written from. AWS has no conditional write, so the
    # moment until the call stays open; the look afterwards is for that.
    actions = _actions(client, location)
    if _expected(actions, groups, [*expected, weights]) == weights:
        return
    changed: Any = with_weights(actions, groups, weights)
    if location.rule_arn:
        client.modify_rule(RuleArn=location.rule_arn, Actions=changed)
    else:
        client.modify_listener(ListenerArn=location.listener_arn, DefaultActions=changed)
    found = read(client, location, groups)
    if found != weights:
        raise TrafficChanged(
            f"wrote {show(weights)}, but read {show(found)} right after: "
            "somebody else changes the traffic too; it is left as it is"
        )


def read_deregistration_delay(client: ElasticLoadBalancingv2Client, group_arn: str) -> int:
    """Seconds that a target of a group stays ``draining``."""
    answer = client.describe_target_group_attributes(TargetGroupArn=group_arn)
    attributes = {one["Key"]: one["Value"] for one in answer["Attributes"]}
    return int(attributes["deregistration_delay.timeout_seconds"])


def targets(client: ElasticLoadBalancingv2Client, group_arn: str) -> list[Mapping[str, Any]]:
    """DescribeTargetHealth of a whole group."""
    answer = client.describe_target_health(TargetGroupArn=group_arn)
    return list(answer["TargetHealthDescriptions"])


def deregister(
    client: ElasticLoadBalancingv2Client, group_arn: str, targets: Sequence[Mapping[str, Any]]
) -> None:
    """Take targets out of a group; the load balancer lets their requests end first."""
    client.deregister_targets(TargetGroupArn=group_arn, Targets=_ids(targets))


def register(
    client: ElasticLoadBalancingv2Client, group_arn: str, targets: Sequence[Mapping[str, Any]]
) -> None:
    """Put targets into a group, again if they are draining:
    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/
    target-group-register-targets.html
    """
    client.register_targets(TargetGroupArn=group_arn, Targets=_ids(targets))


def _ids(targets: Sequence[Mapping[str, Any]]) -> list[Any]:
    """TargetDescriptions of TargetHealthDescriptions; an address outside the VPC has a zone."""
    return [target["Target"] for target in targets]


def check_groups(weights: Weights, test_weights: Weights | None) -> None:
    """Both colours' groups have to be on the listener, or on the test listener.

    A group on no listener is never health-checked: its targets stay ``unused``
    (Target.NotInUse, https://docs.aws.amazon.com/elasticloadbalancing/latest/application/
    target-group-health-checks.html). Raises DeploymentRefused.
    """
    for color in Color:
        if color not in weights and color not in (test_weights or {}):
            raise DeploymentRefused(
                f"the target group of {color} is on no listener, so its targets would never be "
                "health-checked; add it to the forward action with weight 0, or to a test listener"
            )


def _expected(
    actions: Sequence[Mapping[str, Any]], groups: TargetGroups, expected: Sequence[Weights]
) -> Weights:
    found = read_weights(actions, groups)
    if found not in expected:
        raise TrafficChanged(
            f"the traffic was changed by somebody else: found {show(found)}, expected "
            f"{' or '.join(show(one) for one in expected)}; it is left as it is"
        )
    return found


def _actions(
    client: ElasticLoadBalancingv2Client, location: Location
) -> Sequence[Mapping[str, Any]]:
    if location.rule_arn:
        return client.describe_rules(RuleArns=[location.rule_arn])["Rules"][0]["Actions"]
    listeners = client.describe_listeners(ListenerArns=[location.listener_arn])["Listeners"]
    return listeners[0]["DefaultActions"]


def _balancer(client: ElasticLoadBalancingv2Client, name: str) -> Mapping[str, Any]:
    try:
        return client.describe_load_balancers(Names=[name])["LoadBalancers"][0]
    except client.exceptions.LoadBalancerNotFoundException as error:
        raise DeploymentRefused(f"there is no load balancer {name!r}") from error


def _rule(client: ElasticLoadBalancingv2Client, listener_arn: str, priority: int) -> str:
    priorities = []
    for page in client.get_paginator("describe_rules").paginate(ListenerArn=listener_arn):
        for rule in page["Rules"]:
            if rule["Priority"] == str(priority):
                return rule["RuleArn"]
            priorities.append(rule["Priority"])
    raise DeploymentRefused(
        f"the listener has no rule with priority {priority}, only {', '.join(priorities)}"
    )
