"""A deployment as one document: what it moves, from what, and all that is needed to undo it.

PlanDeployment makes it, the state machine carries it as ``$.deployment`` from state to state, and
DynamoDB keeps it (bluegreen/store.py), so that a deployment can be undone without its execution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bluegreen.color import Color
from bluegreen.configuration import HostRouter, ServiceConfiguration
from bluegreen.task_definition import render
from bluegreen.traffic import Weights

ServiceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
DeploymentId = Annotated[str, Field(min_length=1, max_length=80)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Overrides(_Part):
    """What a request changes besides images. environment: container → variables."""

    environment: dict[str, dict[str, str]] = Field(default_factory=dict)
    cpu: str | None = None
    memory: str | None = None


class StartedBy(_Part):
    """Who or what asked for a deployment.

    detail: the tag that was pushed, the release, the deployment to go back to. who: a person, if
    the request says so.
    """

    kind: Literal["hand", "push", "schedule", "release", "rollback"] = "hand"
    detail: str = ""
    who: str = ""

    def __str__(self) -> str:
        said = f"{self.kind} {self.detail}".strip()
        return f"{said} ({self.who})" if self.who else said


class DeployRequest(_Part):
    """Execution input that starts a deployment. images: container → tag, digest or reference.

    like: the deployment whose task definition is taken instead of the live one. dry_run: only say
    what would be done. skip_bake: shift all at once and do not watch. release: the execution of the
    release that this is a part of, which decides whether the old colour goes.
    """

    action: Literal["deploy"] = "deploy"
    service: ServiceName
    images: dict[str, str] = Field(default_factory=dict)
    overrides: Overrides = Overrides()
    like: DeploymentId | None = None
    dry_run: bool = False
    skip_bake: bool = False
    release: str | None = None
    started_by: StartedBy = StartedBy()


class RollBackRequest(_Part):
    """Execution input that undoes a deployment, or ends what another execution began.

    rollback: undo deployment_id; or, given the service, go back to what was live before: the last
    deployment is undone while its old colour is warm, else the one before (or the one named in
    ``to``) is deployed again. abort: undo a deployment that still runs. recover: take up one whose
    execution was lost. finish: drain what a release has held.
    """

    action: Literal["rollback", "abort", "recover", "finish"]
    deployment_id: DeploymentId | None = None
    service: ServiceName | None = None
    to: DeploymentId | None = None
    skip_bake: bool = False
    dry_run: bool = False
    who: str = ""

    @model_validator(mode="after")
    def _names_one_thing(self) -> RollBackRequest:
        if (self.deployment_id is None) == (self.service is None):
            raise ValueError("give deployment_id or service, one of them")
        if self.service and self.action != "rollback":
            raise ValueError(f"{self.action} needs deployment_id, not service")
        if self.to and self.service is None:
            raise ValueError("to goes with service: the deployment to go back to")
        return self


class PromoteRequest(_Part):
    """Execution input that lets a deployment go on: it approves what waits for approval, or ends
    the watching of the present step. percent: which step that has to be; 0, before the first one,
    is the approval.
    """

    action: Literal["promote"]
    deployment_id: DeploymentId
    percent: int | None = Field(default=None, ge=0, le=100)
    who: str = ""


class Location(_Part):
    """Where a forward action stands: a rule, or the default action of a listener."""

    listener_arn: str
    rule_arn: str | None = None


class Scaling(_Part):
    """SuspendedState of a service's scalable target."""

    dynamic_in: bool = False
    dynamic_out: bool = False
    scheduled: bool = False


# Fencing number of a deployment that has nothing to change, and so holds no lock.
NO_LOCK = 0

SUSPENDED = Scaling(dynamic_in=True, dynamic_out=True, scheduled=True)


class GroupSnapshot(_Part):
    """An Auto Scaling group as it was. suspended: its processes. instances: ids of those it had."""

    min_size: int
    desired_capacity: int
    suspended: list[str]
    instances: list[str]


class ServiceSnapshot(_Part):
    """An ECS service as it was. scaling is None for a service that does not scale by itself, group
    where its hosts are not its own.
    """

    task_definition: str
    desired_count: int
    running_count: int
    scaling: Scaling | None = None
    group: GroupSnapshot | None = None


class Snapshot(_Part):
    """All that RollBack puts back.

    classic_listener: where the listener of a Classic Load Balancer is made anew, what it was
    (bluegreen/routers/classic.py).
    """

    traffic: Weights
    test_traffic: Weights | None = None
    classic_listener: dict[str, Any] | None = None
    services: dict[Color, ServiceSnapshot]


class Gates(_Part):
    """What the state machine has to stop at: it looks at these, not at the configuration."""

    before_deployment: bool = False
    migration: bool = False
    idle_healthy: bool = False
    approval: bool = False
    before_shift: bool = False
    after_shift: bool = False
    after_deployment: bool = False

    @classmethod
    def of(cls, configuration: ServiceConfiguration) -> Gates:
        """The gates of a service configuration."""
        return cls(
            **{hook.at: True for hook in configuration.hooks},
            migration=configuration.migration is not None,
            approval=configuration.approval is not None,
        )


class Deployment(_Part):
    """A planned deployment. Times in epoch seconds.

    location, test_location, target_groups: only where a load balancer is switched.
    load_balancer_dns: what a probe asks, "" if there is nothing to ask.
    base: the task definition that the new revision is made from, "" for what is live.
    known_bad: alarms and alerts that were on before it began (bluegreen/gates.py).
    """

    id: str
    service: str
    execution_arn: str
    fencing: int
    decision: Literal["deploy", "nothing_to_do"]
    started_at: float
    configuration: ServiceConfiguration
    from_color: Color | None
    to_color: Color
    images: dict[str, str]
    overrides: Overrides
    location: Location | None
    test_location: Location | None
    load_balancer_dns: str
    target_groups: dict[Color, str]
    stickiness_seconds: int
    deregistration_seconds: int
    snapshot: Snapshot
    # The deployment that had changed the service before.
    follows: str | None
    # What follows has defaults: an execution may have begun before this version was installed.
    base: str = ""
    gates: Gates = Gates()
    skip_bake: bool = False
    release: str | None = None
    started_by: StartedBy = StartedBy()
    known_bad: list[str] = Field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON types, for the state machine and for DynamoDB."""
        return self.model_dump(mode="json")

    def rendered(self, template: str, color: Color, container: str | None = None) -> str:
        """A template of the configuration filled in for a colour ({digest}: of that container)."""
        name = container or self.configuration.containers[0].name
        return render(
            template,
            color=color,
            deployment_id=self.id,
            digest=self.images.get(name, "").partition("@")[2],
        )

    def environment(self) -> dict[str, dict[str, str]]:
        """Container → variables that the new revision gets: configuration first, then overrides.

        A variable that names the digest of an image that is not replaced stays as it is.
        """
        variables = {
            container.name: {
                name: self.rendered(value, self.to_color, container.name)
                for name, value in container.environment.items()
                if container.name in self.images or "{digest}" not in value
            }
            for container in self.configuration.containers
        }
        for name, more in self.overrides.environment.items():
            variables.setdefault(name, {}).update(more)
        return variables

    def wanted_count(self, live: Mapping[str, Any] | None) -> int:
        """Tasks to start on the idle colour: as many as the live colour runs, or should.

        live: DescribeServices of the live colour. One that has lost tasks just now is no reason to
        start its successor too small.
        """
        counts = (live["runningCount"], live["desiredCount"]) if live else (0, 0)
        return int(max(counts)) or self.configuration.health.initial_count

    @property
    def on_hosts(self) -> bool:
        """Whether proxies on the hosts are switched: many places, that come and go."""
        return isinstance(self.configuration.router, HostRouter)

    @property
    def has_hidden_switch(self) -> bool:
        """Whether a switch can be under way before the traffic shows it: hosts wait for its moment,
        and the health check of a Classic Load Balancer goes ahead of the listener.
        """
        return self.on_hosts or self.snapshot.classic_listener is not None

    @property
    def margin_seconds(self) -> int:
        """How long a load balancer may take to follow; the proxies of hosts say what they do."""
        return 0 if self.on_hosts else self.configuration.drain.margin_seconds

    @property
    def quiet_seconds(self) -> int:
        """From the proof of a switch until the old colour has no more requests in flight."""
        return max(self.margin_seconds + self.configuration.drain.seconds, self.stickiness_seconds)


def is_planned(data: Mapping[str, Any]) -> bool:
    """Whether PlanDeployment has come to a plan; before, it may wait for what hosts answer."""
    return "id" in data.get("deployment", {})


def parse(data: Mapping[str, Any]) -> Deployment:
    """The deployment in the data of an execution."""
    return Deployment.model_validate(data["deployment"])
