"""moto's ELB made as strict as AWS, with instances that have a life.

What moto does differently and this corrects: a load balancer that does not exist is an internal
error; instances that do not exist can be registered, and every registered one is healthy; a deleted
listener takes others with it; the protocol towards the instances is forgotten; a secure listener
needs no certificate and has no policy; policies that do not exist can be set; there is no health
check unless one is configured, and any text is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from moto.acm.models import CertificateNotFound, acm_backends
from moto.elb import urls
from moto.elb.exceptions import (
    DuplicateListenerError,
    ELBClientError,
    NoActiveLoadBalancerFoundError,
)
from moto.elb.models import ELBBackend, FakeHealthCheck, FakeListener, LoadBalancer
from moto.elb.policies import OtherPolicy
from moto.iam.models import iam_backends

from sandbox.clb.instances import NOT_REGISTERED, Shown

if TYPE_CHECKING:
    from sandbox.clb.plane import DataPlane

PROTOCOLS = {"HTTP": ("HTTP", "HTTPS"), "TCP": ("TCP", "SSL")}
"""Protocols that go together, for listeners and towards instances: of requests, of connections."""

SECURE = ("HTTPS", "SSL")
DEFAULT_POLICY = "ELBSecurityPolicy-2016-08"
DEFAULT_DRAINING_SECONDS = 300
MAX_PORT = 65_535


class Listener(FakeListener):
    """A listener with a protocol of its own towards the instances."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(
            given["LoadBalancerPort"],
            given["InstancePort"],
            given["Protocol"],
            given.get("SSLCertificateId"),
        )
        self._instance_protocol = str(given.get("InstanceProtocol") or self.protocol).upper()

    @property
    def instance_protocol(self) -> str:
        """HTTP, HTTPS, TCP or SSL."""
        return self._instance_protocol

    def is_like(self, other: FakeListener) -> bool:
        """Whether creating it again changes nothing."""
        return (
            int(self.instance_port) == int(other.instance_port)
            and self.protocol == other.protocol
            and self.instance_protocol == other.instance_protocol
            and self.ssl_certificate_id == other.ssl_certificate_id
        )


class ClassicBackend(ELBBackend):
    """ELB of one account and region, followed by ``plane`` (the same for all of them)."""

    plane: DataPlane
    _url_module = urls  # moto would look for it next to this module

    def create_load_balancer(
        self, name: str, zones: list[str], ports: list[dict[str, Any]], *args: Any, **kwargs: Any
    ) -> LoadBalancer:
        """As moto, but the DNS name is an address that answers, and there is a health check."""
        listeners = self._checked(ports)
        balancer = super().create_load_balancer(name, zones, ports, *args, **kwargs)
        balancer.dns_name = self.plane.address
        balancer.attributes["connection_draining"]["timeout"] = DEFAULT_DRAINING_SECONDS
        balancer.listeners = []
        for listener in listeners:
            self._add(balancer, listener)
        balancer.health_check = FakeHealthCheck(
            *("5", "10", "2", "30"), f"TCP:{listeners[0].instance_port}"
        )
        self.plane.wake()
        return balancer

    def delete_load_balancer(self, load_balancer_name: str) -> None:
        """As moto; one that does not exist is no error."""
        super().delete_load_balancer(load_balancer_name)
        self.plane.pass_once()

    def get_load_balancer(self, load_balancer_name: str) -> LoadBalancer:
        """Raises LoadBalancerNotFound."""
        balancer = self.load_balancers.get(load_balancer_name)
        if balancer is None:
            raise NoActiveLoadBalancerFoundError(load_balancer_name)
        return balancer

    def describe_load_balancers(self, names: list[str]) -> list[LoadBalancer]:
        """Raises LoadBalancerNotFound for the first name that does not exist."""
        if not names:
            return list(self.load_balancers.values())
        return [self.get_load_balancer(name) for name in names]

    # ---------------------------------------------------------------------------- listeners

    def create_load_balancer_listeners(
        self, name: str, ports: list[dict[str, Any]]
    ) -> LoadBalancer | None:
        """All of them or none; one that exists already is no error if it is the same."""
        balancer = self.get_load_balancer(name)
        new = []
        for listener in self._checked(ports):
            port = listener.load_balancer_port
            known = _listener(balancer, port)
            if known is None:
                new.append(listener)
            elif not listener.is_like(known):
                raise DuplicateListenerError(name, port)
        for listener in new:
            self._add(balancer, listener)
        self.plane.wake()
        return balancer

    def delete_load_balancer_listeners(self, name: str, ports: list[str]) -> LoadBalancer | None:
        """When this returns, their ports refuse connections; what is not there is no error."""
        balancer = self.get_load_balancer(name)
        gone = {int(port) for port in ports}
        balancer.listeners = [
            listener
            for listener in balancer.listeners
            if int(listener.load_balancer_port) not in gone
        ]
        self.plane.pass_once()
        return balancer

    def set_load_balancer_policies_of_listener(
        self, load_balancer_name: str, load_balancer_port: int, policies: list[str]
    ) -> LoadBalancer:
        """Replace the policies of a listener by others that the load balancer has."""
        balancer = self.get_load_balancer(load_balancer_name)
        listener = _listener(balancer, load_balancer_port)
        if listener is None:
            raise ELBClientError(
                "ListenerNotFound",
                "The load balancer does not have a listener configured at the specified port.",
            )
        known = {policy.policy_name for policy in balancer.policies}
        for policy in policies:
            if policy not in known:
                raise ELBClientError(
                    "PolicyNotFound",
                    f"There is no policy with name {policy} for load balancer {load_balancer_name}",
                )
        listener.policy_names = list(policies)
        return balancer

    @staticmethod
    def _add(balancer: LoadBalancer, listener: Listener) -> None:
        """A secure listener gets the default policy; any other has none."""
        if listener.protocol in SECURE:
            listener.policy_names = [DEFAULT_POLICY]
            if DEFAULT_POLICY not in {policy.policy_name for policy in balancer.policies}:
                policy = OtherPolicy(DEFAULT_POLICY, "SSLNegotiationPolicyType", [])
                balancer.policies.append(policy)
        balancer.listeners.append(listener)

    def _checked(self, ports: list[dict[str, Any]]) -> list[Listener]:
        """Raises AWS's errors for listeners that cannot be."""
        listeners = [Listener(port) for port in ports]
        for listener in listeners:
            for protocol in (listener.protocol, listener.instance_protocol):
                if not any(protocol in group for group in PROTOCOLS.values()):
                    raise ELBClientError(
                        "UnsupportedProtocol", f"The protocol {protocol} is not supported."
                    )
            if not any(
                {listener.protocol, listener.instance_protocol} <= set(group)
                for group in PROTOCOLS.values()
            ):
                raise ELBClientError(
                    "ValidationError",
                    "If InstanceProtocol is specified, it must be at the same layer as Protocol",
                )
            for number in (listener.load_balancer_port, listener.instance_port):
                if not 1 <= int(number) <= MAX_PORT:
                    raise ELBClientError("ValidationError", f"Port {number} is out of range")
            if listener.protocol in SECURE:
                self._check_certificate(listener.ssl_certificate_id)
        return listeners

    def _check_certificate(self, arn: str | None) -> None:
        if not arn:
            raise ELBClientError(
                "ValidationError", "Secure Listeners need to specify a SSLCertificateId"
            )
        try:
            acm_backends[self.account_id][self.region_name].get_certificate(arn)
        except CertificateNotFound:
            if iam_backends[self.account_id][self.partition].get_certificate_by_arn(arn) is None:
                raise ELBClientError(
                    "CertificateNotFound", f"Server Certificate not found for the key: {arn}"
                ) from None

    # ---------------------------------------------------------------------------- instances

    def register_instances(
        self,
        load_balancer_name: str,
        instance_ids: Iterable[str],
        from_autoscaling: bool = False,  # noqa: ARG002 - whoever it was, it is registered
    ) -> LoadBalancer:
        """Register instances; one that is registered already stays as it is."""
        balancer = self.get_load_balancer(load_balancer_name)
        found = [(instance_id, self._address(instance_id)) for instance_id in instance_ids]
        for instance_id, address in found:
            if instance_id not in balancer.instance_sparse_ids:
                balancer.instance_sparse_ids.append(instance_id)
            self.plane.register((load_balancer_name, instance_id), address)
        return balancer

    def deregister_instances(
        self,
        load_balancer_name: str,
        instance_ids: Iterable[str],
        from_autoscaling: bool = False,  # noqa: ARG002
    ) -> LoadBalancer:
        """Begin to drain; when this returns, nothing new goes there.

        An instance that is not registered is no error.
        """
        balancer = self.get_load_balancer(load_balancer_name)
        gone = set(instance_ids)
        balancer.instance_sparse_ids = [
            instance_id for instance_id in balancer.instance_sparse_ids if instance_id not in gone
        ]
        for instance_id in gone:
            self.plane.deregister((load_balancer_name, instance_id), draining_seconds(balancer))
        self.plane.pass_once()
        return balancer

    def is_draining(self, load_balancer_name: str, instance_id: str) -> bool:
        """Whether a deregistered instance still has something to finish."""
        return self.plane.is_draining((load_balancer_name, instance_id))

    def health_of(self, name: str, instance_ids: list[str]) -> list[tuple[str, Shown]]:
        """What DescribeInstanceHealth says: of all registered instances or of those named.

        Raises InvalidInstance for an id that no instance has.
        """
        balancer = self.get_load_balancer(name)
        result = []
        for instance_id in instance_ids or balancer.instance_ids:
            instance = self._instance(instance_id)
            if instance.state != "terminated":  # such are not shown
                shown = self.plane.shown((name, instance_id)) or NOT_REGISTERED
                result.append((instance_id, shown))
        return result

    def _address(self, instance_id: str) -> str:
        instance = self._instance(instance_id)
        if instance.state not in ("pending", "running"):
            raise ELBClientError(
                "InvalidInstance", f"EC2 instance {instance_id} is in {instance.state} state"
            )
        return str(instance.private_ip)

    def _instance(self, instance_id: str) -> Any:
        instance = self.plane.find_instance(instance_id)
        if instance is None:
            raise ELBClientError("InvalidInstance", f"Could not find EC2 instance {instance_id}.")
        return instance

    # --------------------------------------------------------------------------- attributes

    def configure_health_check(
        self,
        load_balancer_name: str,
        timeout: str,
        healthy_threshold: str,
        unhealthy_threshold: str,
        interval: str,
        target: str,
    ) -> FakeHealthCheck:
        """As moto, but the target is checked; instances keep their state until checks change it."""
        self.get_load_balancer(load_balancer_name)
        parse_target(target)
        if int(timeout) >= int(interval):
            raise ELBClientError(
                "ValidationError", "HealthCheck timeout must be less than the interval"
            )
        check = super().configure_health_check(
            load_balancer_name, timeout, healthy_threshold, unhealthy_threshold, interval, target
        )
        self.plane.wake()
        return check

    def modify_load_balancer_attributes(
        self,
        load_balancer_name: str,
        cross_zone: dict[str, Any] | None = None,
        connection_settings: dict[str, Any] | None = None,
        connection_draining: dict[str, Any] | None = None,
        access_log: dict[str, Any] | None = None,
        additional_attributes: list[dict[str, str]] | None = None,
    ) -> None:
        """As moto, but draining has a timeout also when it is off."""
        self.get_load_balancer(load_balancer_name)
        if connection_draining is not None:
            connection_draining = {
                "enabled": connection_draining["Enabled"],
                "timeout": int(connection_draining.get("Timeout") or DEFAULT_DRAINING_SECONDS),
            }
        super().modify_load_balancer_attributes(
            load_balancer_name,
            cross_zone,
            connection_settings,
            connection_draining,
            access_log,
            additional_attributes,
        )
        self.plane.wake()


def _listener(balancer: LoadBalancer, port: int | str) -> FakeListener | None:
    return next(
        (one for one in balancer.listeners if int(one.load_balancer_port) == int(port)), None
    )


def draining_seconds(balancer: LoadBalancer) -> float:
    """How long requests may be in flight to an instance that is deregistered; 0 is not at all."""
    draining = balancer.attributes["connection_draining"]
    return float(draining["timeout"]) if draining["enabled"] else 0.0


def parse_target(target: str) -> tuple[int, str | None]:
    """Port and path of a health check such as ``HTTP:80/ping`` or ``TCP:80`` (without a path).

    Raises AWS's errors.
    """
    match = re.fullmatch(r"(HTTP|HTTPS|TCP|SSL):(\d{1,5})(/.*)?", target)
    if match is None or not 1 <= int(match[2]) <= MAX_PORT:
        raise ELBClientError(
            "ValidationError",
            "HealthCheck Target must begin with one of HTTP, TCP, HTTPS, SSL, and specify a port",
        )
    if match[1] in ("HTTP", "HTTPS") and match[3] is None:
        raise ELBClientError(
            "ValidationError",
            f"HealthCheck {match[1]} Target must specify a port followed by a path that begins "
            "with a slash. e.g. HTTP:80/ping/this/path",
        )
    if match[1] in ("TCP", "SSL") and match[3] is not None:
        raise ELBClientError(
            "ValidationError",
            f"HealthCheck {match[1]} Target must specify only a port. e.g. TCP:80",
        )
    return int(match[2]), match[3]
