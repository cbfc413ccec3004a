"""The answers of moto's ELB, where they have to be other than moto's."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.elb.responses import ELBResponse


class ClassicResponse(ELBResponse):
    """One request to a ``ClassicBackend``."""

    @property
    def elb_backend(self) -> Any:
        """The backend that ``install`` has put in moto's place."""
        return super().elb_backend

    def describe_instance_health(self) -> ActionResult:
        name = self._get_param("LoadBalancerName")
        ids = [one["InstanceId"] for one in self._get_param("Instances", [])]
        return ActionResult(
            {
                "InstanceStates": [
                    {
                        "InstanceId": instance_id,
                        "State": state,
                        "ReasonCode": reason,
                        "Description": description,
                    }
                    for instance_id, (state, reason, description) in self.elb_backend.health_of(
                        name, ids
                    )
                ]
            }
        )

    def register_instances_with_load_balancer(self) -> ActionResult:
        return self._instances(self.elb_backend.register_instances)

    def deregister_instances_from_load_balancer(self) -> ActionResult:
        return self._instances(self.elb_backend.deregister_instances)

    def set_load_balancer_policies_of_listener(self) -> ActionResult:
        self.elb_backend.set_load_balancer_policies_of_listener(
            self._get_param("LoadBalancerName"),
            int(self._get_param("LoadBalancerPort")),
            self._get_param("PolicyNames", []),
        )
        return EmptyResult()

    def _instances(self, change: Any) -> ActionResult:
        """Change who is registered; answers with those that are then."""
        ids = [one["InstanceId"] for one in self._get_param("Instances", [])]
        balancer = change(self._get_param("LoadBalancerName"), ids)
        return ActionResult({"Instances": balancer.instances})
