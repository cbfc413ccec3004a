"""The service configuration: one YAML file a service, checked into the user's repository.

``load`` turns its text into a ServiceConfiguration or raises one InvalidConfiguration that names
every mistake at once. It is stored as the SSM parameter ``/bluegreen/services/<service>``.
service.schema.json in the root of the repository is ``ServiceConfiguration.model_json_schema()``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bluegreen.color import Color
from bluegreen.errors import InvalidConfiguration
from bluegreen.pace import LONGEST_SECONDS

Parsed = TypeVar("Parsed", bound=BaseModel)

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
EnvironmentVariable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
PollInterval = Annotated[int, Field(ge=1, le=LONGEST_SECONDS)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Container(_Section):
    """A container whose image a deployment replaces."""

    name: Name = Field(description="name of the container in the task definition")
    repository: Name = Field(
        description="ECR repository: its name (this account and region) or its full URI"
    )
    environment: dict[EnvironmentVariable, str] = Field(
        default_factory=dict,
        description="set at every deployment; {color}, {deployment_id} and {digest} are filled in",
    )


class HostPort(_Section):
    """A fixed port on the container instance; each colour has its own."""

    container: Name
    container_port: Port
    host_port: Port


class ColorSlot(_Section):
    """Where one colour lives."""

    cluster: Name = Field(description="ECS cluster, by name")
    ecs_service: Name = Field(description="ECS service, by name")
    target_group: Name | None = Field(
        default=None, description="target group, by name; the routers alb and nlb need it"
    )
    auto_scaling_group: Name | None = Field(
        default=None,
        description="with two-clusters: the group whose instances are the hosts, by name",
    )
    host_port: HostPort | None = Field(
        default=None,
        description="fixed host port of this colour; leave out for awsvpc, Fargate, dynamic ports",
    )


class Colors(_Section):
    blue: ColorSlot
    green: ColorSlot

    def __getitem__(self, color: Color) -> ColorSlot:
        return self.blue if color is Color.BLUE else self.green

    @model_validator(mode="after")
    def _differ(self) -> Colors:
        if (self.blue.cluster, self.blue.ecs_service) == (
            self.green.cluster,
            self.green.ecs_service,
        ):
            raise ValueError("blue and green need two different ECS services")
        if self.blue.target_group and self.blue.target_group == self.green.target_group:
            raise ValueError("blue and green need two different target groups")
        groups = self.blue.auto_scaling_group, self.green.auto_scaling_group
        if groups[0] and groups[0] == groups[1]:
            raise ValueError("blue and green need two different Auto Scaling groups")
        blue, green = self.blue.host_port, self.green.host_port
        if (blue is None) != (green is None):
            raise ValueError("give both colours a host_port, or neither")
        if blue and green and blue.host_port == green.host_port:
            raise ValueError(
                f"blue and green need two different host ports, both have {blue.host_port}"
            )
        return self


class _ListenerRouter(_Section):
    """A listener that forwards to both target groups by weight."""

    load_balancer: Name = Field(description="load balancer, by name")
    port: Port = Field(description="port of the listener that users reach")
    test_port: Port | None = Field(
        default=None,
        description="port of a test listener: it is pointed at the idle colour to probe it",
    )

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.port == self.test_port:
            raise ValueError(f"port and test_port are both {self.port}: use a listener of its own")
        return self

    @property
    def probe_port(self) -> int:
        """Where users, and the probe, reach the live colour."""
        return self.port


class AlbRouter(_ListenerRouter):
    """A listener of an Application Load Balancer, its default action or one of its rules."""

    type: Literal["alb"]
    rule_priority: Annotated[int, Field(ge=1, le=50000)] | None = Field(
        default=None, description="a rule of that listener instead of its default action"
    )


class NlbRouter(_ListenerRouter):
    """A listener of a Network Load Balancer: TCP, TLS, UDP or TCP_UDP."""

    type: Literal["nlb"]

    @property
    def rule_priority(self) -> None:
        """A Network Load Balancer has no rules."""


class ClbRouter(_Section):
    """A Classic Load Balancer, which has no weights.

    With two-clusters the Auto Scaling groups are attached and detached. With shifted-ports the
    listener is deleted and made anew, and there is none for a moment.
    """

    type: Literal["clb"]
    load_balancer: Name = Field(description="Classic Load Balancer, by name")
    port: Port = Field(description="port of the listener that users reach")
    overlap_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=10, description="with two-clusters: how long both groups stay attached"
    )
    accept_gap: bool = Field(
        default=False,
        description="with shifted-ports: requests may be refused while there is no listener",
    )

    @property
    def probe_port(self) -> int:
        """Where users, and the probe, reach the live colour."""
        return self.port

    @property
    def test_port(self) -> None:
        """Its one health check is for the live colour, so there is no way to the idle one."""


class Entrance(_Section):
    """The load balancer in front of the hosts. It is asked by the probe, and never changed."""

    name: Name = Field(description="load balancer, by name")
    port: Port = Field(description="port of the listener that users reach")


class HostRouter(_Section):
    """nginx or HAProxy on every container instance, in front of the tasks of both colours there."""

    type: Literal["nginx", "haproxy"]
    port: Port = Field(description="where the proxy listens on every instance")
    protocol: Literal["http", "tcp"] = Field(default="http", description="tcp: with haproxy only")
    container: Name | None = Field(
        default=None, description="with dynamic host ports: the container that gets the requests"
    )
    container_port: Port | None = Field(
        default=None, description="with dynamic host ports: its port, as the task definition has it"
    )
    load_balancer: Entrance | None = Field(
        default=None, description="what the probe asks through; needed for a probe only"
    )
    lead_seconds: Annotated[int, Field(ge=1, le=60)] = Field(
        default=10, description="between the command to switch and the moment at which all hosts do"
    )
    answer_seconds: Annotated[int, Field(ge=5, le=600)] = Field(
        default=60, description="how long a host may take to answer a command"
    )

    @model_validator(mode="after")
    def _can_be_had(self) -> HostRouter:
        if self.type == "nginx" and self.protocol == "tcp":
            raise ValueError("protocol tcp needs haproxy: nginx would have to be reloaded")
        if (self.container is None) != (self.container_port is None):
            raise ValueError("give container and container_port, or neither")
        return self

    @property
    def probe_port(self) -> int:
        """Where users, and the probe, reach the live colour."""
        return self.load_balancer.port if self.load_balancer else self.port

    @property
    def test_port(self) -> None:
        """A host has no test listener: every host asks the idle colour itself."""


class Health(_Section):
    """When the idle colour counts as healthy, and when to give up."""

    deadline_seconds: Annotated[int, Field(ge=5, le=86400)] = 600
    interval_seconds: PollInterval = 5
    max_failed_tasks: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="give up early once so many tasks of the deployment have died"
    )
    initial_count: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="tasks to start when nothing is live yet"
    )


class Probe(_Section):
    """An HTTP request whose answer tells which colour sent it."""

    path: Annotated[str, Field(pattern=r"^/\S*$")] = "/"
    header: Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")] = Field(
        description="response header that identifies the colour"
    )
    value: Name = Field(description="what it says; {color}, {deployment_id}, {digest} filled in")
    host: Name | None = Field(default=None, description="Host header, for a host-based rule")
    scheme: Literal["http", "https"] = "http"
    consecutive: Annotated[int, Field(ge=1, le=100)] = Field(
        default=10, description="answers in a row that prove the switch"
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=60, description="how long the switch may take to show"
    )

    @model_validator(mode="after")
    def _https_needs_a_host(self) -> Probe:
        if self.scheme == "https" and self.host is None:
            raise ValueError("scheme https needs a host: the name in the listener's certificate")
        return self


class AllAtOnce(_Section):
    type: Literal["all_at_once"] = "all_at_once"


class Bake(_Section):
    """Watching the new colour under full traffic before the old one may go."""

    seconds: Annotated[int, Field(ge=0, le=86400)] = 60
    interval_seconds: PollInterval = 5


class Drain(_Section):
    """How the old colour ends."""

    seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=30, description="time for requests in flight once no new ones arrive"
    )
    margin_seconds: Annotated[int, Field(ge=0, le=600)] = Field(
        default=20, description="time for the load balancer to follow a change of weights"
    )
    keep_warm_seconds: Annotated[int, Field(ge=0, le=604800)] = Field(
        default=0, description="keep the old colour running so long, for an instant rollback"
    )
    interval_seconds: PollInterval = 5
    deadline_seconds: Annotated[int, Field(ge=30, le=7200)] = Field(
        default=900, description="after that a drain, or a rollback, that does not end is an error"
    )


class ServiceConfiguration(_Section):
    """Everything a deployment has to know about a service."""

    service: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    pattern: Literal["two-clusters", "shifted-ports", "host-proxy"]
    containers: Annotated[list[Container], Field(min_length=1)]
    colors: Colors
    router: Annotated[AlbRouter | NlbRouter | ClbRouter | HostRouter, Field(discriminator="type")]
    health: Health = Health()
    probe: Probe | None = Field(
        default=None, description="without one, the margin of drain is waited instead of a proof"
    )
    strategy: AllAtOnce = AllAtOnce()
    bake: Bake = Bake()
    drain: Drain = Drain()

    @model_validator(mode="after")
    def _containers_differ(self) -> ServiceConfiguration:
        names = [container.name for container in self.containers]
        if len(set(names)) != len(names):
            raise ValueError(f"containers: every name once, got {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _router_fits(self) -> ServiceConfiguration:
        match self.router:
            case HostRouter():
                self._check_host_proxy(self.router)
            case _ if self.pattern == "host-proxy":
                raise ValueError("pattern host-proxy needs a router of type nginx or haproxy")
            case ClbRouter():
                self._check_classic(self.router)
            case AlbRouter() | NlbRouter():
                self._check_each(
                    "target_group", f"the router {self.router.type} needs one for each colour"
                )
        self._check_groups()
        return self

    def _check_each(self, key: str, why: str) -> None:
        missing = [color for color in Color if not getattr(self.colors[color], key)]
        if missing:
            raise ValueError(
                "; ".join(f"colors.{color}.{key} is missing" for color in missing) + f": {why}"
            )

    def _check_groups(self) -> None:
        blue, green = self.colors.blue, self.colors.green
        if self.pattern == "two-clusters":
            self._check_each("auto_scaling_group", "its instances are the hosts of the colour")
            if blue.cluster == green.cluster:
                raise ValueError("colors: two-clusters needs a cluster for each colour")
        elif blue.auto_scaling_group or green.auto_scaling_group:
            raise ValueError(
                f"colors: an auto_scaling_group is for two-clusters, not for {self.pattern}, "
                "where both colours share their hosts"
            )

    def _check_classic(self, router: ClbRouter) -> None:
        blue, green = self.colors.blue, self.colors.green
        if blue.target_group or green.target_group:
            raise ValueError("colors: a Classic Load Balancer has no target groups")
        if self.pattern == "two-clusters":
            if blue.host_port or green.host_port:
                raise ValueError(
                    "colors: a host_port is not for two-clusters with a Classic Load Balancer: its "
                    "listener has one instance port for both colours, as the task definition has it"
                )
            if router.accept_gap:
                raise ValueError("router.accept_gap: with two-clusters there is no gap to accept")
            return
        if blue.host_port is None:
            raise ValueError("colors: each colour needs a host_port for the listener")
        if not router.accept_gap:
            raise ValueError(
                "router: a Classic Load Balancer cannot move a listener to another port: it is "
                "deleted and made anew, and requests in between are refused. Take an Application "
                "or Network Load Balancer (router alb or nlb), where one call switches; or the "
                "pattern two-clusters, which attaches and detaches groups; or host-proxy; or "
                "accept it: accept_gap: true"
            )

    def _check_host_proxy(self, router: HostRouter) -> None:
        blue, green = self.colors.blue, self.colors.green
        if self.pattern != "host-proxy":
            raise ValueError(f"a router of type {router.type} needs the pattern host-proxy")
        if blue.target_group or green.target_group:
            raise ValueError(
                "colors: a target_group is not for host-proxy; the load balancer before the hosts "
                "forwards to their proxies, whichever colour is live"
            )
        if blue.cluster != green.cluster:
            raise ValueError("colors: host-proxy needs both colours on the same cluster")
        if (blue.host_port is None) == (router.container is None):
            raise ValueError(
                "either both colours have a host_port (fixed ports), or the router has container "
                "and container_port (dynamic ports)"
            )
        if self.probe and not router.load_balancer:
            raise ValueError("a probe needs router.load_balancer, through which it asks")


def load(text: str, source: str) -> ServiceConfiguration:
    """Parse and check a service configuration.

    text: the YAML file. source: where it came from, for the message.
    Raises InvalidConfiguration with one line per mistake: path, what is wrong, the value found.
    """
    keys = "service, pattern, containers, colors and router"
    return parse(ServiceConfiguration, text, source, keys, InvalidConfiguration)


def parse(
    model: type[Parsed], text: str, source: str, keys: str, refusal: type[Exception]
) -> Parsed:
    """A YAML file as a model. keys: what it has to have, for a file that is no mapping at all.

    Raises the refusal with one line per mistake.
    """
    # Imported here: not every function reads YAML.
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise refusal(f"{source} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise refusal(f"{source}: expected a mapping with {keys}, got {type(document).__name__}")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise refusal(
            f"{source}: {error.error_count()} mistake(s)\n" + "\n".join(describe(error))
        ) from error


def describe(error: ValidationError) -> list[str]:
    """One line per mistake: ``  colors.blue.host_port: what would be right (got …)``."""
    lines = []
    for mistake in error.errors():
        path = ".".join(str(part) for part in _keys(mistake["loc"])) or "(top level)"
        lines.append(f"  {path}: {_what_would_be_right(mistake)}")
    return lines


def _keys(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """A mistake's place as keys of the file: pydantic adds the router's type after ``router``."""
    if location[:1] == ("router",) and len(location) > 1:
        return (location[0], *location[2:])
    return location


def _what_would_be_right(mistake: Any) -> str:
    # Variables may be secrets, which must not get into a cause or a log.
    shown = "environment" not in mistake["loc"] and not isinstance(mistake["input"], dict | list)
    got = f" (got {mistake['input']!r})" if shown else ""
    match mistake["type"]:
        case "missing":
            return "is missing"
        case "union_tag_not_found":
            return "type is missing: alb, nlb, clb, nginx or haproxy"
        case "extra_forbidden":
            return f"is not a known key{got}; see service.schema.json"
        case "value_error":
            return str(mistake["ctx"]["error"])
        case _:
            return f"{mistake['msg']}{got}"
