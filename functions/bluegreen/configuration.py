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
# A look at least every LONGEST_SECONDS, and 25,000 events in an execution's history: three days of
# watching take less than half of them.
_LONGEST_WATCH = 259_200
# Where hooks are asked each pass takes twice as many events, and the first ones come soon.
_SHORTEST_HOOK = 3_600
Percent = Annotated[int, Field(ge=1, le=99)]
StepSeconds = Annotated[int, Field(ge=0, le=86400)]
# Tags: https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_PutImage.html
TagPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?\[\]!-]{1,300}$")]
# https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_ImageScanFinding.html
Severity = Literal["INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL", "UNDEFINED"]
# https://mackerel.io/api-docs/entry/services
MackerelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{1,62}$")]
HookPoint = Literal[
    "before_deployment", "idle_healthy", "before_shift", "after_shift", "after_deployment"
]


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
    """One shift: all of the traffic."""

    type: Literal["all_at_once"] = "all_at_once"

    @property
    def count(self) -> int:
        """How many steps there are, with the last one."""
        return 1

    @property
    def watched_seconds(self) -> int:
        """How long its steps but the last one are watched together."""
        return 0


class Canary(_Section):
    """A part of the traffic first, then the rest."""

    type: Literal["canary"]
    percent: Percent = Field(description="what the new colour gets first")
    seconds: StepSeconds = Field(default=300, description="how long that is watched")

    @property
    def count(self) -> int:
        """How many steps there are, with the last one."""
        return 2

    @property
    def watched_seconds(self) -> int:
        """How long its steps but the last one are watched together."""
        return self.seconds


class Linear(_Section):
    """The same part more at each step, until the new colour has all of it."""

    type: Literal["linear"]
    percent: Percent = Field(description="how much more the new colour gets at each step")
    seconds: StepSeconds = Field(default=60, description="how long each step is watched")

    @property
    def count(self) -> int:
        """How many steps there are, with the last one."""
        return 99 // self.percent + 1

    @property
    def watched_seconds(self) -> int:
        """How long its steps but the last one are watched together."""
        return (99 // self.percent) * self.seconds


class Step(_Section):
    percent: Percent = Field(description="what the new colour gets from this step on")
    seconds: StepSeconds = Field(description="how long this step is watched")


class OwnSteps(_Section):
    """Steps of one's own; a last one with all of the traffic follows by itself."""

    type: Literal["steps"]
    steps: Annotated[list[Step], Field(min_length=1, max_length=100)]

    @property
    def count(self) -> int:
        """How many steps there are, with the last one."""
        return len(self.steps) + 1

    @property
    def watched_seconds(self) -> int:
        """How long its steps but the last one are watched together."""
        return sum(step.seconds for step in self.steps)

    @model_validator(mode="after")
    def _grow(self) -> OwnSteps:
        percents = [step.percent for step in self.steps]
        if percents != sorted(set(percents)):
            raise ValueError(f"steps: each one needs more percent than the one before: {percents}")
        return self


class Role(_Section):
    """A role of Mackerel's."""

    service: MackerelName
    role: MackerelName


class ErrorRate(_Section):
    """Answers with 5xx of the new colour, against the old one over the same minutes."""

    percentage_points: Annotated[float, Field(ge=0, le=100)] = Field(
        default=1.0, description="how many percent more of its answers may be 5xx"
    )
    requests: Annotated[int, Field(ge=1)] = Field(
        default=20, description="fewer requests of the new colour say nothing yet"
    )


class ResponseTime(_Section):
    """Mean response time of the new colour, against the old one over the same minutes."""

    times: Annotated[float, Field(gt=1, le=100)] = Field(
        default=2.0, description="so many times as slow is too slow"
    )
    milliseconds: Annotated[int, Field(ge=0)] = Field(
        default=50, description="and slower by this much at least, or it does not matter"
    )
    requests: Annotated[int, Field(ge=1)] = Field(
        default=20, description="fewer requests of the new colour say nothing yet"
    )


class Bake(_Section):
    """Watching the new colour under traffic before the old one may go.

    What is watched is watched at every step, not only at the last one.
    """

    seconds: Annotated[int, Field(ge=0, le=86400)] = Field(
        default=60, description="how long the new colour is watched with all of the traffic"
    )
    interval_seconds: PollInterval = 5
    alarms: Annotated[list[Name], Field(max_length=100)] = Field(
        default_factory=list, description="CloudWatch alarms (metric or composite), by name"
    )
    mackerel: Role | None = Field(
        default=None, description="no alert of this role may be open in Mackerel"
    )
    errors: ErrorRate | None = Field(default=None, description="with an alb router only")
    response_time: ResponseTime | None = Field(default=None, description="with an alb router only")
    at_start: Literal["refuse", "warn"] = Field(
        default="refuse",
        description="what an alarm or alert does that is on before the deployment starts; after a "
        "warning it counts only once it has been off",
    )
    unknown_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=300, description="how long what is watched may be unreadable; then it counts as bad"
    )


class Trigger(_Section):
    """Which pushes to the containers' ECR repositories deploy."""

    tags: Annotated[list[TagPattern], Field(min_length=1, max_length=20)] = Field(
        description="shell patterns such as v* or release-?; a tag that fits one of them deploys"
    )


class Scan(_Section):
    """What ECR has to have found about an image before it may be deployed."""

    refuse: Severity = Field(description="a finding of this severity, or a worse one, refuses")
    deadline_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=300, description="how long a scan may take; after that it counts as bad"
    )


class Hook(_Section):
    """A Lambda function of the user's that is asked before the deployment goes on."""

    at: HookPoint = Field(
        description="before_deployment: before anything is changed; idle_healthy: once the idle "
        "colour is healthy, test traffic on; before_shift, after_shift: at every step; "
        "after_deployment: after the end, which it cannot change"
    )
    function: Annotated[str, Field(pattern=r"^[A-Za-z0-9:_-]{1,170}$")] = Field(
        description="its name or ARN, with a qualifier if you like"
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=300, description="how long it may answer IN_PROGRESS"
    )
    interval_seconds: PollInterval = 10


class Migration(_Section):
    """A one-off task of the new revision, which has to succeed before the idle colour starts."""

    container: Name = Field(description="container of the task definition that runs the command")
    command: Annotated[list[str], Field(min_length=1)]
    environment: dict[EnvironmentVariable, str] = Field(default_factory=dict)
    timeout_seconds: Annotated[int, Field(ge=10, le=86400)] = 900


class Approval(_Section):
    """A person has to agree once the idle colour is healthy, before the first shift."""

    timeout_seconds: Annotated[int, Field(ge=1, le=604800)] = 3600
    on_timeout: Literal["reject", "approve"] = "reject"


class Notify(_Section):
    """Who is told besides the topic of the stack and EventBridge."""

    slack: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = Field(
        description="the incoming webhook in the SSM SecureString /bluegreen/slack/<this name>"
    )


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
    strategy: Annotated[AllAtOnce | Canary | Linear | OwnSteps, Field(discriminator="type")] = (
        AllAtOnce()
    )
    bake: Bake = Bake()
    drain: Drain = Drain()
    trigger: Trigger | None = Field(
        default=None, description="without one, a push deploys nothing by itself"
    )
    scan: Scan | None = Field(default=None, description="without one, findings are not asked for")
    hooks: Annotated[list[Hook], Field(max_length=20)] = Field(default_factory=list)
    migration: Migration | None = None
    approval: Approval | None = None
    notify: Notify | None = None

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
        self._check_what_is_watched()
        return self

    def _check_what_is_watched(self) -> None:
        """What the router cannot do must not look as if it were done."""
        if isinstance(self.router, ClbRouter) and not isinstance(self.strategy, AllAtOnce):
            raise ValueError(  # noqa: TRY004 - pydantic reports ValueError
                f"strategy {self.strategy.type}: a Classic Load Balancer has no weights, so only "
                "all_at_once is possible"
            )
        seconds = self.strategy.watched_seconds + self.bake.seconds
        at_each = ("before_shift", "after_shift")
        asked = self.strategy.count * sum(
            max(2 * hook.timeout_seconds, _SHORTEST_HOOK)
            for hook in self.hooks
            if hook.at in at_each
        )
        # Hosts are asked and answer at the next pass: a look takes two.
        longest = _LONGEST_WATCH // 3 if self.pattern == "host-proxy" else _LONGEST_WATCH
        if seconds + asked > longest:
            raise ValueError(
                f"strategy: all steps together may be watched for {longest} s at most, with "
                f"bake.seconds these take {seconds} s"
                + (
                    f", and the hooks at each of them {asked} s more: a hook counts twice its "
                    f"timeout_seconds, {_SHORTEST_HOOK} s at least"
                    if asked
                    else ""
                )
            )
        if (self.bake.errors or self.bake.response_time) and not isinstance(self.router, AlbRouter):
            raise ValueError(
                "bake.errors and bake.response_time need a router of type alb: only an "
                "Application Load Balancer counts answers for each colour"
            )

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
    """A mistake's place as keys of the file: pydantic adds the type after what has several."""
    if location[:1] in (("router",), ("strategy",)) and len(location) > 1:
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
            known = {"router": "alb, nlb, clb, nginx or haproxy"}
            types = known.get(mistake["loc"][0], "all_at_once, canary, linear or steps")
            return f"type is missing: {types}"
        case "extra_forbidden":
            return f"is not a known key{got}; see service.schema.json"
        case "value_error":
            return str(mistake["ctx"]["error"])
        case _:
            return f"{mistake['msg']}{got}"
