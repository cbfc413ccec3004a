"""State RollBack: one step back to the snapshot, whatever was done so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bluegreen import (
    auto_scaling,
    compute,
    drain,
    ecs,
    handover,
    health,
    migration,
    probe,
    rollback,
    scaling,
)
from bluegreen.color import Color
from bluegreen.deployment import Deployment, is_planned, parse
from bluegreen.errors import RollBackIncomplete, TrafficChanged
from bluegreen.look import Asked, Look, asked_before, farthest
from bluegreen.pace import wait_seconds
from bluegreen.routers import Router, listener
from bluegreen.store import Record
from bluegreen.traffic import Weights, show, weights_for
from runtime import clients, routers
from runtime.invocation import Invocation, task


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """Answers ``status`` "waiting", "restored" or "nothing_to_restore", with the reason.

    as_before is false when somebody else's traffic was left alone, or when nothing is there to go
    back to. since, restored_at, proved_at
    switch_was_seen and old_started carry over from pass to pass; restoring is what hosts have been
    told (told: that they ever were), and refused what became of it. Raises RollBackIncomplete,
    LockLost.
    """
    now, progress = invocation.now, invocation.data.get("rollback", {})
    record = invocation.store.read(invocation.deployment_id)
    if record is None or record.deployment is None:
        return {"status": "nothing_to_restore", "reason": "nothing was changed"}
    deployment = _in_hand(invocation, record.deployment)
    invocation.store.prove(deployment, now)
    if record.phase != "rolling_back":
        # Whoever takes this up again must not take the deployment for one to be finished.
        invocation.store.enter(deployment, "rolling_back")
    # It runs before anything is shifted.
    migrates = bool(deployment.configuration.migration and not record.intents)
    migrating = migrates and _is_migrating(deployment)
    progress = {"since": now, **progress}
    since = progress["since"]
    router = routers.of(deployment, invocation.settings, invocation.data)
    if restoring := progress.pop("restoring", None):
        refused = router.refused(restoring, now)
        if refused is None:
            return {
                **progress,
                "status": "waiting",
                "reason": "the hosts go back",
                "restoring": restoring,
                "wait_seconds": wait_seconds(max(1, int(restoring["at"] - now)), now - since),
            }
        progress["refused"] = refused
    look = router.look(asked_before(progress), now)
    if isinstance(look, Asked):
        return look.waiting(progress, now)
    return _step(deployment, record, router, look, progress, migrating, now)


def _step(
    deployment: Deployment,
    record: Record,
    router: Router,
    look: Look,
    progress: Mapping[str, Any],
    migrating: bool,
    now: float,
) -> dict[str, Any]:
    """Decide on one look, and do it."""
    world = _World(deployment, look, record.intents)
    # Hosts that were never told to switch need not say that they did not.
    unknown = look.unknown() if record.intents else ""
    told = progress.get("told", False) or not deployment.has_hidden_switch or not record.intents
    as_before = world.traffic == deployment.snapshot.traffic and not unknown and told
    since, refused = progress["since"], progress.get("refused", "")
    restored_at = progress.get("restored_at") or (now if as_before else None)
    proved_at = progress.get("proved_at")
    seen = progress.get("switch_was_seen", record.phase in ("baking", "committed"))
    if record.intents and restored_at and not proved_at:
        proved_at = _prove(deployment, restored_at, now, switch_was_seen=seen)
    quiet_at = _quiet_at(record, deployment, as_before, since, proved_at)
    decision = rollback.next_step(
        rollback.Facts(
            traffic=world.traffic,
            foreign=world.foreign,
            snapshot=deployment.snapshot.traffic,
            ours=record.intents,
            unknown=unknown,
            refused=refused,
            told=told,
            old_wanted=world.old_wanted,
            old_targets=world.old_targets,
            old_least=world.old_least,
            old_desired=world.old_desired,
            old_was_down=world.old_was_down,
            old_starting=world.old_starting,
            old_healthy=world.old_healthy,
            old_hosts_draining=world.old_hosts_draining,
            old_leaving=world.old_leaving,
            old_deregistered=world.old_deregistered and not progress.get("old_started", False),
            new_weight=world.new_weight,
            settled=quiet_at is not None and now >= quiet_at,
            services_restored=world.is_restored(),
            new_healthy=world.new_healthy,
            migrating=migrating,
            deadline=_deadline(deployment, since, restored_at, quiet_at),
        ),
        now,
    )
    reason = decision.reason
    if decision.step in ("wait", "fail"):
        reason += world.why_no_hosts(since)
    restoring = None
    match decision.step:
        case "fail":
            raise RollBackIncomplete(reason)
        case "restore_traffic":
            told = True
            restoring = router.put_back(look, record.intents, deployment.snapshot.traffic, now)
        case "keep_new":
            handover.hand_over(deployment)
        case "done" if not as_before:
            # Somebody else uses the new colour: it is theirs, with its scaling.
            world.restore_scaling()
        case _:
            world.carry_out(decision.step)
    return {
        "status": "restored" if decision.step in ("keep_new", "done") else "waiting",
        "reason": reason,
        "as_before": as_before,
        "since": since,
        "restored_at": restored_at,
        "proved_at": proved_at,
        "switch_was_seen": seen,
        "refused": refused,
        "told": told,
        "old_started": progress.get("old_started", False) or decision.step == "start_old",
        "wait_seconds": wait_seconds(1, now - since),
    } | ({"restoring": restoring} if restoring else {})


def _in_hand(invocation: Invocation, kept: Deployment) -> Deployment:
    """The deployment with the fencing number of this execution.

    ``$`` has none when the plan was lost: a function that was stopped, or whose answer was, may
    have saved it under a number that is out of date by now.
    """
    if is_planned(invocation.data):
        return parse(invocation.data)
    lock = invocation.store.lock(kept.service)
    if lock and lock.execution_arn == invocation.execution_arn:
        return kept.model_copy(update={"fencing": lock.fencing})
    return kept


def _is_migrating(deployment: Deployment) -> bool:
    """Whether something of the migration still runs, which is stopped: the execution that waits for
    it may have been taken over, and the next deployment may bring a migration of its own.
    """
    client, color = clients.ecs(), migration.color_of_hosts(deployment)
    cluster = deployment.configuration.colors[color].cluster
    live = deployment.snapshot.services[deployment.from_color or deployment.to_color]
    base = deployment.base or live.task_definition
    family = base.rsplit("/", 1)[-1].rpartition(":")[0]
    left = [
        one
        for one in ecs.not_stopped(ecs.tasks_of_family(client, cluster, family))
        if migration.is_run_by(one, deployment.id)
    ]
    for one in left:
        if one["desiredStatus"] != "STOPPED":
            reason = f"deployment {deployment.id} is rolled back"
            client.stop_task(cluster=cluster, task=one["taskArn"], reason=reason)
    return bool(left)


class _World:
    """Both colours as they are now, beside the snapshot they go back to."""

    def __init__(self, deployment: Deployment, look: Look, intents: Sequence[Weights]) -> None:
        self._deployment = deployment
        self._slots = deployment.configuration.colors
        self._before = deployment.snapshot.services
        self.foreign = False
        try:
            self.traffic = farthest(look.weights(), deployment.snapshot.traffic, intents)
        except TrafficChanged:
            # A maintenance page, or a third group: nobody's weights that we know.
            self.traffic, self.foreign = {}, True
        self.new_weight = look.share(deployment.to_color)
        self._groups = {
            color: auto_scaling.read(clients.autoscaling(), name)
            for color in Color
            if (name := self._slots[color].auto_scaling_group)
        }
        self._new = ecs.service(clients.ecs(), self._slots[deployment.to_color])
        self.new_healthy = health.healthy_targets(look.targets(deployment.to_color))
        self.old_wanted = self.old_desired = self.old_targets = self.old_healthy = 0
        self.old_leaving = self.old_least = 0
        self.old_starting = self.old_deregistered = self.old_hosts_draining = False
        self.old_was_down = False
        if deployment.from_color is None:
            return
        old = ecs.service(clients.ecs(), self._slots[deployment.from_color])
        self.old_desired = int(old["desiredCount"])
        self.old_healthy = health.healthy_targets(look.targets(deployment.from_color))
        ran = self._before[deployment.from_color].running_count
        # Traffic that comes back needs all of the old colour, and as much of it as the new one has
        # come to need. Traffic that never moved needs nothing.
        self.old_was_down = ran == 0
        if not (ran and intents):
            return
        if deployment.on_hosts:
            # A host is one target, however many tasks it has.
            new = self._new["runningCount"]
            self.old_wanted = look.tasks_for(max(ran, new))
            agree = len({show(one) for one in look.weights().values()}) == 1
            # With fixed ports each task is a target, and targets tell.
            dynamic = self._slots[deployment.from_color].host_port is None
            short = old["runningCount"] < min(self.old_wanted, new)
            self.old_starting = dynamic and agree and short
        else:
            self.old_wanted = look.tasks_for(max(ran, self.new_healthy))
        targets = look.targets_for(deployment.from_color, self.old_wanted)
        if targets is None:
            # Nobody checks the old colour now: that its tasks run has to do.
            self.old_targets, self.old_healthy = self.old_wanted, int(old["runningCount"])
        else:
            self.old_targets = targets
        # All hosts have a proxy, so that all of them need the old colour.
        self.old_least = self.old_targets if deployment.on_hosts else min(ran, self.old_targets)
        if group := self._groups.get(deployment.from_color):
            cluster = self._slots[deployment.from_color].cluster
            self.old_hosts_draining = any(
                one["status"] == "DRAINING" and one["ec2InstanceId"] in group.in_service
                for one in ecs.container_instances(clients.ecs(), cluster)
            )
        if deployment.target_groups:
            self._look_at_old_targets(look.targets(deployment.from_color), old)

    def _look_at_old_targets(
        self, targets: Sequence[Mapping[str, Any]], old: Mapping[str, Any]
    ) -> None:
        """What a drain has taken out of the target group, while the tasks still run."""
        registered = drain.still_registered(targets)
        running = self.old_desired >= self.old_wanted <= old["runningCount"]
        if not running or len(registered) >= self.old_wanted:
            return
        # An address cannot come back before its deregistration delay is over:
        # https://docs.aws.amazon.com/elasticloadbalancing/latest/application/
        # target-group-register-targets.html
        self._leaving = [
            one for one in targets if one not in registered and one["Target"]["Id"].startswith("i-")
        ]
        self.old_leaving = len(self._leaving)
        self.old_deregistered = not registered and not self._leaving

    def carry_out(self, step: rollback.Step) -> None:
        """Do what was decided about the services; nothing for any other step."""
        match step:
            case "start_old":
                self.start_old()
            case "register_old":
                self.register_old()
            case "stop_old":
                self.stop_old()
            case "restore_services" | "leave_traffic":
                self.restore()

    def is_restored(self) -> bool:
        """Whether the new colour's service and hosts, both scalings and the test listener are as
        before.
        """
        return (
            not self._service_differs()
            and not any(self._scaling_differs(color) for color in Color)
            and not self._test_traffic_is_ours()
            and not self._tasks_remain()
            and not self._hosts_differ()
        )

    def restore(self) -> None:
        """Put back what is_restored() looks at; what is as before already is not written again."""
        deployment = self._deployment
        before = self._before[deployment.to_color]
        if self._service_differs():
            ecs.update(
                clients.ecs(),
                self._slots[deployment.to_color],
                desired_count=before.desired_count,
                task_definition=before.task_definition,
            )
        self.restore_scaling()
        if self._test_traffic_is_ours() and deployment.test_location:
            listener.write(
                clients.elbv2(),
                deployment.test_location,
                deployment.target_groups,
                expected=[weights_for(deployment.to_color, 100)],
                weights=deployment.snapshot.test_traffic or {},
            )
        # Hosts go last, or their tasks would end without a SIGTERM.
        if not self._tasks_remain():
            self._restore_hosts()

    def _restore_hosts(self) -> None:
        """The new colour's group as before; it ends what this deployment has launched."""
        color, client = self._deployment.to_color, clients.autoscaling()
        before, group = self._before[color].group, self._groups.get(color)
        if before is None or group is None or not self._hosts_differ():
            return
        if before.desired_capacity == 0:
            auto_scaling.empty(client, group)
        else:
            auto_scaling.resize(
                client, group, min_size=before.min_size, desired_capacity=before.desired_capacity
            )

    def restore_scaling(self) -> None:
        """Put the scaling of both colours back, and of the groups of their hosts."""
        for color, group in self._groups.items():
            before = self._before[color].group
            if before and self._lacks_minimum(color):
                auto_scaling.resize(clients.autoscaling(), group, min_size=before.min_size)
            auto_scaling.set_suspended(clients.autoscaling(), group, self._suspended(color))
        for color in Color:
            if self._scaling_differs(color):
                scaling.write(
                    clients.application_autoscaling(),
                    self._slots[color],
                    self._before[color].scaling,
                )

    def start_old(self) -> None:
        """Bring the old colour back, as many tasks as are wanted of it, on hosts if it has none."""
        color = self._deployment.from_color
        if color is None:
            return
        before, group = self._before[color].group, self._groups.get(color)
        if before and group:
            client = clients.autoscaling()
            auto_scaling.set_suspended(client, group, {*group.suspended, *compute.FIGHTING})
            new = self._groups[self._deployment.to_color].desired_capacity
            size = max(before.desired_capacity, group.desired_capacity, min(new, group.max_size))
            auto_scaling.resize(client, group, min_size=before.min_size, desired_capacity=size)
            # No task can start on hosts that a drain has left; those that end are replaced.
            ecs.set_hosts(clients.ecs(), self._slots[color].cluster, "ACTIVE", group.in_service)
        ecs.update(
            clients.ecs(),
            self._slots[color],
            desired_count=self.old_wanted,
            task_definition=self._before[color].task_definition,
        )

    def why_no_hosts(self, since: float) -> str:
        """What Auto Scaling says of hosts of the old colour that it could not launch, to append."""
        group = self._deployment.from_color and self._groups.get(self._deployment.from_color)
        if not group or self.old_healthy >= self.old_targets:
            return ""
        failures = auto_scaling.failed_launches(clients.autoscaling(), group.name, since)
        return f"; last failed launch: {failures[0]}" if failures else ""

    def register_old(self) -> None:
        """Keep the targets that are draining: their tasks still run."""
        color = self._deployment.from_color
        if color is not None:
            groups = self._deployment.target_groups
            listener.register(clients.elbv2(), groups[color], self._leaving)

    def stop_old(self) -> None:
        """End tasks that no load balancer sends to; the next pass starts others."""
        color = self._deployment.from_color
        if color is not None:
            ecs.update(clients.ecs(), self._slots[color], desired_count=0)

    def _service_differs(self) -> bool:
        before = self._before[self._deployment.to_color]
        return (self._new["taskDefinition"], self._new["desiredCount"]) != (
            before.task_definition,
            before.desired_count,
        )

    def _tasks_remain(self) -> bool:
        """Whether tasks of a new colour that had none before have not stopped yet."""
        color = self._deployment.to_color
        return self._before[color].desired_count == 0 and bool(
            ecs.not_stopped(ecs.tasks(clients.ecs(), self._slots[color]))
        )

    def _hosts_differ(self) -> bool:
        """Whether the new colour's group has another size than before, or hosts although it had
        none.
        """
        color = self._deployment.to_color
        before, group = self._before[color].group, self._groups.get(color)
        if before is None or group is None:
            return False
        return (group.min_size, group.desired_capacity) != (
            before.min_size,
            before.desired_capacity,
        ) or bool(before.desired_capacity == 0 and group.instances)

    def _scaling_differs(self, color: Color) -> bool:
        """A scalable target that somebody has added or removed since is none of ours."""
        before = self._before[color].scaling
        now = scaling.read(clients.application_autoscaling(), self._slots[color])
        if before is not None and now is not None and now != before:
            return True
        group = self._groups.get(color)
        if group is None:
            return False
        fighting = compute.FIGHTING & group.suspended
        return fighting != self._suspended(color) or self._lacks_minimum(color)

    def _suspended(self, color: Color) -> frozenset[str]:
        """Which of the processes that would fight the group of a colour had suspended. A new colour
        that somebody has given traffic scales as the live one did.
        """
        in_use = color is self._deployment.to_color and self.foreign and self.new_weight > 0
        before = self._before[color.other if in_use else color].group
        return compute.FIGHTING & set(before.suspended if before else ())

    def _lacks_minimum(self, color: Color) -> bool:
        """Whether a drain has set the minimum of the old colour's group to 0. Any other one is
        somebody's, as is the size of a group that serves.
        """
        before, group = self._before[color].group, self._groups.get(color)
        if color is not self._deployment.from_color or before is None or group is None:
            return False
        return group.min_size == 0 < before.min_size

    def _test_traffic_is_ours(self) -> bool:
        """Whether the test listener still has our weights; somebody else's are left alone."""
        deployment = self._deployment
        if deployment.test_location is None:
            return False
        ours = weights_for(deployment.to_color, 100)
        found = listener.read_shares(
            clients.elbv2(), deployment.test_location, deployment.target_groups
        )
        return found == ours and deployment.snapshot.test_traffic != ours


def _prove(
    deployment: Deployment, restored_at: float, now: float, switch_was_seen: bool
) -> float | None:
    """When the load balancer was seen to follow; None while it was not.

    A switch that has not shown yet when it is taken back may still show later: then an answer of
    the old colour proves nothing until the time that a switch may take is over. Where the old
    colour does not answer as the probe expects (it may be older than the probe), that the new one
    does not either has to do, after the same time.
    """
    configuration = deployment.configuration
    elapsed = now - restored_at
    # Hosts follow no switch later: they have said what they do, and refuse what comes too late.
    if configuration.probe is None or deployment.from_color is None or deployment.on_hosts:
        return now if elapsed >= deployment.margin_seconds else None
    timed_out = elapsed >= configuration.probe.timeout_seconds
    if not switch_was_seen and not timed_out:
        return None
    port = configuration.router.probe_port
    if not probe.ask(deployment, configuration.probe, deployment.from_color, port):
        return now
    if timed_out and probe.ask(deployment, configuration.probe, deployment.to_color, port):
        return now
    return None


def _deadline(
    deployment: Deployment, since: float, restored_at: float | None, quiet_at: float | None
) -> float:
    """Until when a rollback may take: for the old colour to get healthy, for the load balancer to
    follow, and for the new colour to end, each from when it could begin.
    """
    configuration = deployment.configuration
    allowed = configuration.drain.deadline_seconds
    if restored_at is None:
        return max(since + configuration.health.deadline_seconds, (quiet_at or since) + allowed)
    if quiet_at is not None:
        return max(since, quiet_at) + allowed
    may_take = configuration.probe.timeout_seconds if configuration.probe else 0
    return restored_at + may_take + allowed


def _quiet_at(
    record: Record,
    deployment: Deployment,
    as_before: bool,
    since: float,
    proved_at: float | None,
) -> float | None:
    """From when on no request can be on its way to the new colour; None: not known yet."""
    if not record.intents:
        return since
    quiet_seconds = deployment.quiet_seconds
    if not deployment.on_hosts and not deployment.target_groups:
        # Instances that a Classic Load Balancer gives up finish what they have got.
        quiet_seconds += deployment.deregistration_seconds
    if not as_before:
        return since + quiet_seconds
    return proved_at + quiet_seconds if proved_at else None
