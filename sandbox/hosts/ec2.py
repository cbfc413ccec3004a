"""EC2: moto's instances, each a host of the sandbox from the moment it is launched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from moto.ec2 import urls
from moto.ec2.models import EC2Backend, ec2_backends
from moto.elbv2.models import elbv2_backends

if TYPE_CHECKING:
    from moto.ec2.models.instances import Instance, InstanceState, Reservation

Launched = Callable[[Any], None]
Terminated = Callable[[Sequence[str]], None]


def install(launched: Launched, terminated: Terminated) -> None:
    """Replace moto's EC2 before its first use.

    ``launched`` is told of each new instance before anybody else sees it, ``terminated`` of the
    ids of those that have ended.
    """

    class SandboxEc2Backend(EC2Backend):
        """EC2 of one account and region."""

        _url_module = urls

        def run_instances(self, *args: Any, **kwargs: Any) -> Reservation:
            reservation = super().run_instances(*args, **kwargs)
            for instance in reservation.instances:
                launched(instance)
            return reservation

        def terminate_instances(
            self, instance_ids: list[str]
        ) -> list[tuple[Instance, InstanceState]]:
            """As moto; and load balancers hear of it whoever does it (Auto Scaling too)."""
            result: list[tuple[Instance, InstanceState]] = super().terminate_instances(instance_ids)
            ids = [instance.id for instance, _ in result]
            terminated(ids)
            elbv2_backends[self.account_id][self.region_name].notify_terminate_instances(ids)
            return result

    ec2_backends.backend = SandboxEc2Backend
