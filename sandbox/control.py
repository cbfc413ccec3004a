"""What people and tests do with a running sandbox, besides calling AWS: ``/_sandbox/…``.

| request | what it does |
|---|---|
| GET state | what runs where, who gets the traffic |
| GET operations, DELETE operations | which function called what; start the list anew |
| GET faults, POST faults, DELETE faults | which faults are on; turn one on; turn all off |
| POST sweep | run every schedule now, answer when all have ended |
| POST settle | wait until queues are empty and events handled, ``seconds`` (30) at most |
| POST insights | write the Container Insights of a ``minute`` (epoch seconds) now |
| POST push | push an image, as ``docker push`` does |
| POST traffic | publish the load balancers' metrics now, with what there is of this minute |
| GET mackerel/alerts | all alerts of Mackerel |
| POST mackerel/alerts | open one, of a ``customIdentifier``, ``service`` or ``monitor`` |
| DELETE mackerel/alerts | close one (``id``) or all |
| GET slack, DELETE slack | the messages that Slack has taken; start the list anew |
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from moto.ecr.exceptions import RepositoryNotFoundException

from sandbox.aws import ApiFault, ControlError, Interruption, Route, Workflow
from sandbox.images import FAULTS as IMAGE_FAULTS
from sandbox.images import Images, InvalidImageError, scan_of
from sandbox.mackerel import Fault, Refused
from sandbox.pushes import DeliveryFault
from sandbox.scans import InvalidScanError
from sandbox.slack import SlackFault

if TYPE_CHECKING:
    from sandbox.alb.plane import DataPlane
    from sandbox.autoscaling.faults import GroupFaults
    from sandbox.clb.plane import DataPlane as ClassicPlane
    from sandbox.events import EventBus
    from sandbox.hosts.faults import HostFaults
    from sandbox.insights import Insights
    from sandbox.mackerel import MackerelServer
    from sandbox.queues import EventSources
    from sandbox.slack import SlackServer
    from sandbox.world import World

FAULTS = (
    *("propagation_lag", "api_error", "traffic_changed_by_others", "host", "group"),
    *("mackerel", "events", "slack"),
)
SETTLE_SECONDS = 30.0


class Control:
    """The requests, as functions of their body.

    ``router`` is the router of the example's service configuration.
    """

    def __init__(
        self,
        world: World,
        workflow: Workflow,
        bus: EventBus,
        images: Images,
        plane: DataPlane,
        classic: ClassicPlane,
        hosts: HostFaults,
        groups: GroupFaults,
        router: Mapping[str, Any],
        sources: EventSources,
        insights: Insights,
        mackerel: MackerelServer,
        slack: SlackServer,
    ) -> None:
        self._world = world
        self._workflow = workflow
        self._bus = bus
        self._images = images
        self._plane = plane
        self._classic = classic
        self._hosts = hosts
        self._groups = groups
        self._router = router
        self._sources = sources
        self._insights = insights
        self._mackerel = mackerel
        self._slack = slack

    def routes(self) -> dict[tuple[str, str], Route]:
        """(method, path below ``/_sandbox/``) → what answers."""
        return {
            ("GET", "state"): self._state,
            ("GET", "operations"): lambda _: self._workflow.calls(),
            ("DELETE", "operations"): self._nothing(self._workflow.forget_calls),
            ("GET", "faults"): self._faults,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("POST", "sweep"): lambda _: self._bus.sweep(),
            ("POST", "settle"): self._settle,
            ("POST", "insights"): self._write_insights,
            ("POST", "push"): self._push,
            ("GET", "mackerel/alerts"): lambda _: self._mackerel.alerts(),
            ("POST", "mackerel/alerts"): self._open_alert,
            ("DELETE", "mackerel/alerts"): self._close_alerts,
            ("GET", "slack"): lambda _: self._slack.messages(),
            ("DELETE", "slack"): self._nothing(self._slack.forget),
            ("POST", "traffic"): self._publish_traffic,
        }

    @staticmethod
    def _nothing(action: Callable[[], None]) -> Route:
        def run(_body: dict[str, Any]) -> dict[str, Any]:
            action()
            return {}

        return run

    def _push(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            scan = scan_of(
                body.get("scan"), body.get("findings"), float(body.get("scan_seconds", 0))
            )
            digest = self._images.push(
                str(body.get("image", "")),
                body.get("command"),
                body.get("fault"),
                times=int(body.get("times", 1)),
                platforms=int(body.get("platforms", 1)),
                scan=scan,
            )
        except (InvalidImageError, InvalidScanError, RepositoryNotFoundException) as error:
            raise ControlError(str(error)) from error
        return {"image": body["image"], "digest": digest}

    def _publish_traffic(self, _body: dict[str, Any]) -> dict[str, Any]:
        return {"requests": self._plane.traffic.publish(current=True)}

    def _open_alert(self, body: dict[str, Any]) -> dict[str, Any]:
        given = dict(body)
        identifier = given.pop("customIdentifier", None)
        try:
            return self._mackerel.open_alert(custom_identifier=identifier, **given)
        except Refused as error:
            raise ControlError(str(error)) from error

    def _close_alerts(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        return self._mackerel.close_alerts(body.get("id"), body.get("reason", "closed by hand"))

    def _settle(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._sources.settle(float(body.get("seconds", SETTLE_SECONDS)))

    def _write_insights(self, body: dict[str, Any]) -> dict[str, Any]:
        if "minute" not in body:
            raise ControlError("which minute? minute=1767225600")
        return {"events": self._insights.write(int(body["minute"]))}

    # --------------------------------------------------------------------------------- faults

    def _faults(self, _body: dict[str, Any]) -> list[dict[str, Any]]:
        faults = [{"name": "api_error", **fault} for fault in self._workflow.faults()]
        if self._world.faults.propagation_lag:
            faults.append(
                {"name": "propagation_lag", "seconds": self._world.faults.propagation_lag}
            )
        mackerel = [fault.shown() for fault in self._mackerel.faults()]
        others = self._images.events.shown() + self._slack.faults()
        return faults + self._hosts.shown() + self._groups.shown() + mackerel + others

    def _clear_faults(self, _body: dict[str, Any]) -> list[dict[str, Any]]:
        self._workflow.clear()
        self._world.faults.clear()
        self._hosts.clear()
        self._groups.clear()
        self._mackerel.turn_off()
        self._images.events.turn_off()
        self._slack.turn_off()
        return []

    def _add_fault(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        given = dict(body)
        name = given.pop("name", None)
        kinds: dict[str, Callable[..., None]] = {
            "api_error": lambda **how: self._workflow.add_fault(ApiFault(**how)),
            "host": self._hosts.add,
            "group": self._groups.add,
            "mackerel": self._break_mackerel,
            "events": self._break_events,
            "slack": self._break_slack,
        }
        if name in kinds:
            kinds[name](**given)
            return self._faults({})
        match name:
            case "propagation_lag":
                self._world.faults.propagation_lag = float(given.pop("seconds"))
            case "traffic_changed_by_others":
                self._others_change_traffic(given)
            case _ if name in IMAGE_FAULTS:
                raise ControlError(
                    f"{name} belongs to an image: python -m sandbox push NAME:TAG --fault {name}"
                )
            case _:
                raise ControlError(f"no fault {name!r}: there is {', '.join(FAULTS)}")
        if given:
            raise ControlError(f"{name} has no {', '.join(given)}")
        return self._faults({})

    def _others_change_traffic(self, given: dict[str, Any]) -> None:
        """Change the weights now, or at a call of the workflow; takes what it knows of ``given``.

        Weights are by target group for a listener (or its rule), by port of the instances for one
        of a classic load balancer, by colour for proxies on hosts.
        """
        weights = given.pop("weights", None)
        before, after = given.pop("before", None), given.pop("after", None)
        if not isinstance(weights, dict) or not weights:
            raise ControlError("traffic_changed_by_others needs weights={target group: weight}")
        if self._router["type"] in ("alb", "nlb"):
            change = self._change_of_listener(weights)
        elif self._router["type"] == "clb":
            change = self._change_of_classic_listener(weights)
        else:
            change = functools.partial(
                self._hosts.fleet.change_weights, weights, given.pop("host", None)
            )
        if before is None and after is None:
            change()
        else:
            self._workflow.add_interruption(Interruption(before, after, change))

    def _change_of_listener(self, weights: Mapping[str, Any]) -> Callable[[], None]:
        client = self._world.client("elbv2")
        groups = client.describe_target_groups(Names=list(weights))["TargetGroups"]
        arns = {group["TargetGroupName"]: group["TargetGroupArn"] for group in groups}
        action = {
            "Type": "forward",
            "ForwardConfig": {
                "TargetGroups": [
                    {"TargetGroupArn": arns[name], "Weight": int(weight)}
                    for name, weight in weights.items()
                ]
            },
        }

        def change() -> None:
            listener = self._listener(client)
            priority = self._router.get("rule_priority")
            if priority is None:
                client.modify_listener(ListenerArn=listener, DefaultActions=[action])
                return
            rules = client.describe_rules(ListenerArn=listener)["Rules"]
            rule = next(rule for rule in rules if rule["Priority"] == str(priority))
            client.modify_rule(RuleArn=rule["RuleArn"], Actions=[action])

        return change

    def _change_of_classic_listener(self, weights: Mapping[str, Any]) -> Callable[[], None]:
        """The listener is made anew for the one port that has a weight."""
        ports = [int(port) for port, weight in weights.items() if int(weight)]
        if len(ports) != 1:
            raise ControlError("a classic listener sends to one port: weights={18082: 1}")
        client = self._world.client("elb")
        name = self._router["load_balancer"]

        def change() -> None:
            described = client.describe_load_balancers(LoadBalancerNames=[name])
            for one in described["LoadBalancerDescriptions"][0]["ListenerDescriptions"]:
                listener = one["Listener"]
                if listener["LoadBalancerPort"] == self._router["port"]:
                    client.delete_load_balancer_listeners(
                        LoadBalancerName=name, LoadBalancerPorts=[listener["LoadBalancerPort"]]
                    )
                    client.create_load_balancer_listeners(
                        LoadBalancerName=name, Listeners=[{**listener, "InstancePort": ports[0]}]
                    )

        return change

    def _listener(self, client: Any) -> str:
        balancers = client.describe_load_balancers(Names=[self._router["load_balancer"]])
        arn = balancers["LoadBalancers"][0]["LoadBalancerArn"]
        listeners = client.describe_listeners(LoadBalancerArn=arn)["Listeners"]
        return str(
            next(item["ListenerArn"] for item in listeners if item["Port"] == self._router["port"])
        )

    def _break_mackerel(self, kind: Any, **how: Any) -> None:
        try:
            self._mackerel.turn_on(Fault(kind, **how))
        except ValueError as error:
            raise ControlError(str(error)) from error

    def _break_events(self, kind: Any, seconds: float = 0.0, times: int = 1) -> None:
        try:
            self._images.events.turn_on(DeliveryFault(kind, float(seconds), int(times)))
        except ValueError as error:
            raise ControlError(str(error)) from error

    def _break_slack(self, kind: Any, **how: Any) -> None:
        try:
            self._slack.turn_on(SlackFault(kind, **how))
        except ValueError as error:
            raise ControlError(str(error)) from error

    # ---------------------------------------------------------------------------------- state

    def _state(self, _body: dict[str, Any]) -> dict[str, Any]:
        return {
            "listeners": self._listeners(),
            "classic": self._classic_balancers(),
            "services": self._services(),
            "hosts": self._hosts.fleet.describe(),
            "groups": self._groups.describe(),
            "targets": self._targets(),
            "executions": self._executions(),
            "queues": self._sources.waiting(),
            "faults": self._faults({}),
        }

    def _listeners(self) -> list[dict[str, Any]]:
        """Weights by target group name: what the API says, and what the data plane does."""
        names = {
            group["TargetGroupArn"]: group["TargetGroupName"]
            for group in self._world.client("elbv2").describe_target_groups()["TargetGroups"]
        }
        effective = self._plane.effective_weights()
        client = self._world.client("elbv2")
        found = []
        for balancer in client.describe_load_balancers()["LoadBalancers"]:
            for listener in client.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])[
                "Listeners"
            ]:
                for rule in client.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]:
                    arn = listener["ListenerArn"] if rule["IsDefault"] else rule["RuleArn"]
                    groups = [
                        group
                        for action in rule["Actions"]
                        for group in action.get("ForwardConfig", {}).get("TargetGroups", [])
                    ]
                    found.append(
                        {
                            "load_balancer": balancer["LoadBalancerName"],
                            "port": listener["Port"],
                            "rule": rule["Priority"],
                            "weights": {
                                names[group["TargetGroupArn"]]: group.get("Weight", 1)
                                for group in groups
                            },
                            "effective": {
                                group.rpartition(".")[0]: weight
                                for group, weight in effective.get(arn, {}).items()
                            },
                        }
                    )
        return found

    def _classic_balancers(self) -> list[dict[str, Any]]:
        """Ports of the instances by port: what the API says, and what takes connections."""
        client = self._world.client("elb")
        effective = self._classic.open_listeners()
        return [
            {
                "load_balancer": balancer["LoadBalancerName"],
                "ports": {
                    one["Listener"]["LoadBalancerPort"]: one["Listener"]["InstancePort"]
                    for one in balancer["ListenerDescriptions"]
                },
                "effective": effective.get(balancer["LoadBalancerName"], {}),
                "check": balancer["HealthCheck"]["Target"],
                "instances": client.describe_instance_health(
                    LoadBalancerName=balancer["LoadBalancerName"]
                )["InstanceStates"],
            }
            for balancer in client.describe_load_balancers()["LoadBalancerDescriptions"]
        ]

    def _services(self) -> list[dict[str, Any]]:
        client = self._world.client("ecs")
        found: list[dict[str, Any]] = []
        for cluster in client.list_clusters()["clusterArns"]:
            arns = client.list_services(cluster=cluster)["serviceArns"]
            services = (
                client.describe_services(cluster=cluster, services=arns)["services"] if arns else []
            )
            found.extend(
                {
                    "cluster": cluster.rpartition("/")[2],
                    "service": service["serviceName"],
                    "desired": service["desiredCount"],
                    "pending": service["pendingCount"],
                    "running": service["runningCount"],
                    "task_definition": service["taskDefinition"].rpartition("/")[2],
                }
                for service in services
            )
        return found

    def _targets(self) -> dict[str, list[dict[str, Any]]]:
        client = self._world.client("elbv2")
        return {
            group["TargetGroupName"]: [
                {
                    "id": item["Target"]["Id"],
                    "port": item["Target"].get("Port"),
                    **item["TargetHealth"],
                }
                for item in client.describe_target_health(TargetGroupArn=group["TargetGroupArn"])[
                    "TargetHealthDescriptions"
                ]
            ]
            for group in client.describe_target_groups()["TargetGroups"]
        }

    def _executions(self) -> list[dict[str, Any]]:
        client = self._world.client("stepfunctions")
        return [
            {"name": execution["name"], "status": execution["status"]}
            for machine in client.list_state_machines()["stateMachines"]
            for execution in client.list_executions(
                stateMachineArn=machine["stateMachineArn"], maxResults=20
            )["executions"]
        ]
