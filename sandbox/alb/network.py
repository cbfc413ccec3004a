"""What a network load balancer has, and what it refuses, where an application one does not.

https://docs.aws.amazon.com/elasticloadbalancing/latest/network/ (load-balancer-listeners,
load-balancer-target-groups, target-group-health-checks, edit-target-group-attributes):
  - a listener has no rules, and its only action is to forward, by weights since November 2025;
  - a group of TCP, TLS, UDP or TCP_UDP is checked by connecting unless it says HTTP, and then takes
    200 to 399;
  - a group has attributes of its own: at the end of the deregistration delay connections go on, and
    those of a target that becomes unhealthy are reset, unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moto.elbv2.exceptions import ELBClientError, ValidationError

if TYPE_CHECKING:
    from moto.elbv2.models import ELBv2Backend, FakeListener, FakeLoadBalancer, FakeTargetGroup

PROTOCOLS = ("TCP", "TLS", "UDP", "TCP_UDP")

COMPATIBLE = {
    "HTTP": ("HTTP", "HTTPS"),
    "HTTPS": ("HTTP", "HTTPS"),
    "TCP": ("TCP", "TCP_UDP"),
    "TLS": ("TCP", "TLS"),
    "UDP": ("UDP", "TCP_UDP"),
    "TCP_UDP": ("TCP_UDP",),
}
"""Protocols of groups by protocol of a listener."""

ATTRIBUTES: Mapping[str, str] = {
    "deregistration_delay.timeout_seconds": "300",
    "deregistration_delay.connection_termination.enabled": "false",
    "load_balancing.cross_zone.enabled": "use_load_balancer_configuration",
    "preserve_client_ip.enabled": "true",
    "proxy_protocol_v2.enabled": "false",
    "stickiness.enabled": "false",
    "stickiness.type": "source_ip",
    "target_group_health.dns_failover.minimum_healthy_targets.count": "1",
    "target_group_health.dns_failover.minimum_healthy_targets.percentage": "off",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": "1",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
    "target_health_state.unhealthy.connection_termination.enabled": "true",
    "target_health_state.unhealthy.draining_interval_seconds": "0",
}


def with_defaults(group: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of CreateTargetGroup with what a network load balancer takes for granted."""
    result = dict(group)
    if result.get("healthcheck_protocol") in ("HTTP", "HTTPS"):
        result["matcher"] = result.get("matcher") or {"HttpCode": "200-399"}
        result["healthcheck_path"] = result.get("healthcheck_path") or "/"
    return result


def attributes(protocol: str) -> dict[str, Any]:
    """The attributes of a new group."""
    if protocol in ("TCP", "TLS"):
        return dict(ATTRIBUTES)
    return {
        **ATTRIBUTES,
        "deregistration_delay.connection_termination.enabled": "true",
        "target_health_state.unhealthy.connection_termination.enabled": "false",
    }


def check_attributes(given: Mapping[str, Any]) -> None:
    """Raises AWS's error for an attribute that a group does not have."""
    for key in given:
        if key not in ATTRIBUTES:
            raise ValidationError(f"Target group attribute key '{key}' is not recognized")


def check_protocols(protocol: str, group: FakeTargetGroup) -> None:
    """Raises AWS's error for a group that a listener of ``protocol`` cannot forward to."""
    if group.protocol is not None and group.protocol not in COMPATIBLE[protocol]:
        raise ELBClientError(
            "IncompatibleProtocols",
            f"The listener and its associated target group '{group.arn}' have incompatible "
            f"protocols: '{protocol}' and '{group.protocol}'.",
        )


def check_actions(actions: list[dict[str, Any]]) -> None:
    """Raises AWS's error for actions that are not one forward action without a duration."""
    for action in actions:
        if action.get("Type") != "forward":
            raise ELBClientError(
                "InvalidLoadBalancerAction",
                f"You cannot specify an action of type '{action.get('Type')}' with a load balancer "
                "of type 'network'",
            )
        config = action.get("ForwardConfig", {}).get("TargetGroupStickinessConfig", {})
        if "DurationSeconds" in config:
            raise ValidationError(
                "You cannot specify a stickiness duration with a load balancer of type 'network'"
            )


def refuse_rules(balancer: FakeLoadBalancer) -> None:
    """Raises an error for a rule on a listener of a network load balancer."""
    if balancer.type == "network":
        raise ELBClientError(
            "UnsupportedProtocol", "You cannot create rules on a load balancer of type 'network'"
        )


def modify_protocol(
    backend: ELBv2Backend,
    listener: FakeListener,
    protocol: str | None,
    certificates: list[dict[str, Any]],
) -> None:
    """Give a listener another protocol and certificate; what is not given stays as it is."""
    if protocol is not None:
        backend._validate_port_and_protocol("network", listener.port, protocol)
    if (protocol or listener.protocol) == "TLS":
        for certificate in certificates:
            if not backend._certificate_exists(certificate["CertificateArn"]):
                raise ELBClientError(
                    "CertificateNotFound", f"Certificate {certificate['CertificateArn']} not found"
                )
        if not (certificates or listener.certificates):
            raise ELBClientError(
                "InvalidConfigurationRequest",
                "You must provide a list containing exactly one certificate if the listener "
                "protocol is TLS.",
            )
        if certificates:
            listener.certificates = [one["CertificateArn"] for one in certificates]
            listener.certificate = listener.certificates[0]
    listener.protocol = protocol or listener.protocol
