"""moto's ELBv2 made as strict as AWS, with targets that have a life.

Application and network load balancers share it, as they do in AWS. What only a network load
balancer's listeners, groups and actions have or refuse is in ``network``.

What moto does differently and this corrects: it keys targets by id without port and calls them all
healthy; it changes what it was given in ForwardConfig, and accepts what AWS refuses (unknown
groups on a modified listener, groups of another protocol, weights out of range, a second listener
on the same port, actions of the default rule through ModifyRule); it forgets to which load
balancers a group belongs when a listener or rule is modified.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from moto.elbv2 import urls
from moto.elbv2.exceptions import (
    DuplicateListenerError,
    ELBClientError,
    InvalidActionTypeError,
    TargetGroupNotFoundError,
    TargetNotRunning,
    ValidationError,
)
from moto.elbv2.models import (
    ALLOWED_ACTIONS,
    ELBv2Backend,
    FakeAction,
    FakeHealthStatus,
    FakeListener,
    FakeListenerRule,
    FakeLoadBalancer,
    FakeRule,
    FakeTargetGroup,
)

from sandbox.alb import network
from sandbox.alb.targets import TargetKey

if TYPE_CHECKING:
    from sandbox.alb.plane import DataPlane

MAX_WEIGHT = 999
MAX_GROUPS = 5
MAX_STICKINESS_SECONDS = 604_800


class AlbBackend(ELBv2Backend):
    """ELBv2 of one account and region, followed by ``plane`` (the same for all of them)."""

    plane: DataPlane
    _url_module = urls  # moto would look for it next to this module

    def create_load_balancer(self, *args: Any, **kwargs: Any) -> FakeLoadBalancer:
        """As moto, but the DNS name is an address that answers."""
        balancer = super().create_load_balancer(*args, **kwargs)
        balancer.dns_name = self.plane.address
        if balancer.type == "network":
            moto_arn, balancer.arn = balancer.arn, balancer.arn.replace("/app/", "/net/")
            self.load_balancers[balancer.arn] = self.load_balancers.pop(moto_arn)
            self.tagging_service.copy_tags(moto_arn, balancer.arn)
            self.tagging_service.delete_all_tags_for_resource(moto_arn)
        return balancer

    def delete_load_balancer(self, arn: str) -> None:
        super().delete_load_balancer(arn)
        self._changed()

    def create_listener(
        self,
        load_balancer_arn: str,
        protocol: str,
        port: str,
        ssl_policy: str,
        certificate: str | None,
        actions: list[dict[str, Any]],
        alpn_policy: list[str] | None = None,
        tags: list[dict[str, str]] | None = None,
    ) -> FakeListener:
        """As moto, but actions are checked and one port holds one listener."""
        balancer = self.load_balancers.get(load_balancer_arn)
        for other in balancer.listeners.values() if balancer else []:
            if int(other.port) == int(port):
                raise DuplicateListenerError
        checked = self._checked(actions, balancer, protocol)
        listener = super().create_listener(
            load_balancer_arn,
            protocol,
            port,
            ssl_policy,
            certificate,
            checked,
            alpn_policy,
            tags,
        )
        if protocol not in ("HTTPS", "TLS"):  # nothing of TLS is shown then
            listener.ssl_policy = listener.alpn_policy = None
        self._changed()
        return listener

    def modify_listener(
        self,
        arn: str,
        port: str | None = None,
        protocol: str | None = None,
        ssl_policy: str | None = None,
        certificates: list[dict[str, Any]] | None = None,
        actions: list[dict[str, Any]] | None = None,
    ) -> FakeListener:
        """As moto, but actions are checked; what is not given stays as it is."""
        listener = self.describe_listeners(None, [arn])[0]
        balancer = self.load_balancers[listener.load_balancer_arn]
        checked = self._checked(actions or [], balancer, protocol or listener.protocol)
        if balancer.type == "network":  # moto refuses its protocols
            network.modify_protocol(self, listener, protocol, certificates or [])
            protocol, certificates = None, None
        listener = super().modify_listener(
            arn, port, protocol, ssl_policy, certificates or [], checked
        )
        self._changed()
        return listener

    def delete_listener(self, listener_arn: str) -> FakeListener:
        listener = super().delete_listener(listener_arn)
        self._changed()
        return listener

    def create_rule(
        self,
        listener_arn: str,
        conditions: list[dict[str, Any]],
        priority: int,
        actions: list[dict[str, Any]],
        tags: list[dict[str, str]] | None = None,
    ) -> FakeListenerRule:
        """As moto, but actions are checked and priorities are numbers."""
        listener = self.describe_listeners(None, [listener_arn])[0]
        balancer = self.load_balancers[listener.load_balancer_arn]
        network.refuse_rules(balancer)
        checked = self._checked(actions, balancer, listener.protocol)
        rule = super().create_rule(listener_arn, conditions, int(priority), checked, tags)
        self._changed()
        return rule

    def modify_rule(
        self, rule_arn: str, conditions: list[dict[str, Any]], actions: list[dict[str, Any]]
    ) -> FakeRule:
        """As moto, but actions are checked and the default rule is refused."""
        known = self.describe_rules(None, [rule_arn])[0]
        if known.is_default:
            raise ELBClientError(
                "OperationNotPermitted", f"Default rule '{rule_arn}' cannot be modified"
            )
        listener = self.describe_listeners(None, [known.listener_arn])[0]
        balancer = self.load_balancers[listener.load_balancer_arn]
        checked = self._checked(actions, balancer, listener.protocol)
        rule = super().modify_rule(rule_arn, conditions, checked)
        self._changed()
        return rule

    def delete_rule(self, arn: str) -> None:
        super().delete_rule(arn)
        self._changed()

    def create_target_group(self, name: str, **kwargs: Any) -> FakeTargetGroup:
        """As moto, but groups of a network load balancer have its defaults and attributes."""
        protocol = kwargs.get("protocol")
        if protocol not in network.PROTOCOLS:
            return super().create_target_group(name, **kwargs)
        group = super().create_target_group(name, **network.with_defaults(kwargs))
        group.attributes = network.attributes(str(protocol))
        return group

    def modify_target_group_attributes(
        self, target_group_arn: str, attributes: dict[str, Any]
    ) -> None:
        """As moto, but a network load balancer's group refuses what it does not have."""
        group = self._group(target_group_arn)
        if group.protocol in network.PROTOCOLS:
            network.check_attributes(attributes)
        super().modify_target_group_attributes(target_group_arn, attributes)

    def register_targets(self, target_group_arn: str, instances: list[Any]) -> None:
        """Register targets by id and port; one that is registered already stays as it is."""
        group = self._group(target_group_arn)
        targets = []
        for target in instances:
            instance = self.ec2_backend.get_instance_by_id(target["Id"])
            if group.target_type == "instance" and instance is None:
                raise ELBClientError(
                    "InvalidTarget", f"The following target is not an instance: '{target['Id']}'"
                )
            if instance is not None and instance.state != "running":
                raise TargetNotRunning(instance_id=target["Id"])
            address = instance.private_ip if instance is not None else target["Id"]
            targets.append((self._key(group, target), str(address)))
        for key, address in targets:
            self.plane.register(key, address, quick=group.protocol not in network.PROTOCOLS)

    def deregister_targets(self, target_group_arn: str, instances: list[dict[str, Any]]) -> None:
        """Start draining; targets that are not registered are no error, as in AWS."""
        group = self._group(target_group_arn)
        delay = float(group.attributes["deregistration_delay.timeout_seconds"])
        for target in instances:
            self.plane.deregister(self._key(group, target), delay)

    def describe_target_health(
        self, target_group_arn: str, targets: list[dict[str, Any]]
    ) -> list[FakeHealthStatus]:
        """What the data plane believes of all targets, draining ones too, or of those named."""
        group = self._group(target_group_arn)
        known = self.plane.describe(target_group_arn)
        keys = [self._key(group, target) for target in targets] if targets else list(known)
        result = []
        for key in keys:
            _, target_id, port = key
            check_port = group.health_check_port
            if check_port == "traffic-port":
                check_port = str(port)
            state = known.get(key)
            if state is None:
                status: tuple[str, str | None, str | None] = (
                    "unused",
                    "Target.NotRegistered",
                    "Target is not registered to the target group",
                )
            else:
                status = state
            result.append(FakeHealthStatus(target_id, str(port), check_port, *status))
        return result

    def notify_terminate_instances(self, instance_ids: list[str]) -> None:
        """Drop the targets on instances that were terminated."""
        for group in self.target_groups.values():
            delay = float(group.attributes["deregistration_delay.timeout_seconds"])
            for key in self.plane.describe(group.arn):
                if key[1] in instance_ids:
                    self.plane.deregister(key, delay)

    def _group(self, arn: str) -> Any:
        group = self.target_groups.get(arn)
        if group is None:
            raise TargetGroupNotFoundError
        return group

    @staticmethod
    def _key(group: Any, target: dict[str, Any]) -> TargetKey:
        return (group.arn, target["Id"], int(target.get("Port") or group.port))

    def _checked(
        self, actions: list[dict[str, Any]], balancer: FakeLoadBalancer | None, protocol: str
    ) -> list[dict[str, Any]]:
        """Return AWS's form of the actions of a listener of ``protocol``; raises AWS's errors."""
        result = []
        is_network = balancer is not None and balancer.type == "network"
        if is_network:
            network.check_actions(actions)
        for number, action in enumerate(copy.deepcopy(actions), 1):
            if action.get("Type") not in ALLOWED_ACTIONS:
                raise InvalidActionTypeError(action.get("Type"), number)
            if action["Type"] == "forward":
                action = _forward(action, has_duration=not is_network)
            result.append(action)
        self._validate_actions([FakeAction(copy.deepcopy(action)) for action in result])
        for action in result:
            for arn, _ in forward_weights(action):
                network.check_protocols(protocol, self.target_groups[arn])
        return result

    def _changed(self) -> None:
        """Bring up to date which load balancers use a group, and wake the data plane."""
        users: dict[str, list[str]] = {arn: [] for arn in self.target_groups}
        for balancer in self.load_balancers.values():
            for listener in balancer.listeners.values():
                for rule in listener.rules.values():
                    for group in _groups_of(rule):
                        if balancer.arn not in users.setdefault(group, []):
                            users[group].append(balancer.arn)
        for arn, group in self.target_groups.items():
            group.load_balancer_arns = users[arn]
        self.plane.wake()


def _groups_of(rule: FakeRule) -> list[str]:
    return [arn for action in rule.actions for arn, _ in forward_weights(action.data)]


def forward_weights(action: dict[str, Any]) -> list[tuple[str, int]]:
    """Groups and weights of an action in AWS's form; empty when it is not a forward."""
    groups = action.get("ForwardConfig", {}).get("TargetGroups", [])
    return [(group["TargetGroupArn"], int(group["Weight"])) for group in groups]


def _forward(action: dict[str, Any], *, has_duration: bool) -> dict[str, Any]:
    """Fill a forward action as AWS shows it: always with ForwardConfig, and with TargetGroupArn
    only when there is one group. ``has_duration``: whether stickiness needs one.
    """
    arn = action.pop("TargetGroupArn", None)
    config = action.setdefault("ForwardConfig", {})
    groups = config.setdefault("TargetGroups", [])
    if arn is not None and not groups:
        groups.append({"TargetGroupArn": arn})
    elif arn is not None and [group.get("TargetGroupArn") for group in groups] != [arn]:
        raise ELBClientError(
            "InvalidLoadBalancerAction",
            "You cannot specify both TargetGroupArn and a ForwardConfig with other target groups",
        )
    if not groups:
        raise ValidationError("A target group must be specified for a forward action")
    if len(groups) > MAX_GROUPS:
        raise ValidationError(
            f"The maximum number of target groups in a forward action is {MAX_GROUPS}"
        )
    if len({group.get("TargetGroupArn") for group in groups}) != len(groups):
        raise ValidationError("A target group cannot be specified more than once in an action")
    for group in groups:
        weight = group.setdefault("Weight", 1)
        if not 0 <= int(weight) <= MAX_WEIGHT:
            raise ValidationError(
                f"Target group weight '{weight}' must be between 0 and {MAX_WEIGHT} inclusive"
            )
    stickiness = config.setdefault("TargetGroupStickinessConfig", {"Enabled": False})
    seconds = stickiness.get("DurationSeconds")
    if has_duration and stickiness.get("Enabled") and not _is_duration(seconds):
        raise ValidationError("Stickiness duration must be between 1 and 604800 seconds")
    if len(groups) == 1:
        action["TargetGroupArn"] = groups[0]["TargetGroupArn"]
    return action


def _is_duration(seconds: Any) -> bool:
    return bool(seconds) and 1 <= int(seconds) <= MAX_STICKINESS_SECONDS
