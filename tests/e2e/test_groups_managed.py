"""Two clusters with capacity providers: ECS sizes the groups itself, but at no wrong moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from sandbox.autoscaling.managed import HIGH_SECONDS, LOW_SECONDS
from tests.e2e.running_groups import HOSTS, RunningGroups, other
from tests.e2e.running_hosts import assert_failed
from tests.e2e.test_groups_deployment import FIGHTING


@pytest.fixture
def managed(groups: RunningGroups) -> Iterator[RunningGroups]:
    with groups.managed_scaling():
        yield groups


def test_ecs_sizes_no_group_while_a_deployment_goes_on_and_the_live_one_afterwards(
    managed: RunningGroups,
) -> None:
    """New hosts have no tasks, and then tasks no host, for longer than ECS would leave it so."""
    old, began = managed.live(), datetime.now(UTC)
    new = other(old)
    kept = managed.instances(old)
    managed.push("managed")
    # As it was set up, before any deployment has emptied it.
    managed.client("autoscaling").resume_processes(AutoScalingGroupName=f"web-{new}")
    launched: set[str] = set()
    with managed.configured({"bake.seconds": 10}), managed.under_load():
        arn = managed.start_execution(managed.request("managed"))

        def is_baking() -> bool:
            launched.update(managed.instances(new))
            return "WaitForBake" in managed.states(arn)

        managed.wait_for(is_baking, seconds=60)
        assert managed.group(new)["suspended"] == FIGHTING
        assert managed.group(old)["suspended"] == FIGHTING
        # A task with a host of its own: AlarmHigh would launch one, and AlarmLow end one.
        managed.scale(new, HOSTS + 1)
        managed.scale(old, HOSTS - 1)
        time.sleep(3 * max(HIGH_SECONDS, LOW_SECONDS))
        assert "WaitForDrain" not in managed.states(arn)
        assert managed.group(new)["desired"] == HOSTS
        assert set(managed.instances(new)) == launched, "none has ended meanwhile"
        assert managed.counts()[new] == (HOSTS + 1, HOSTS), "it waits for the drain"
        assert managed.instances(old) == kept, "the way back keeps its hosts"
        ended = managed.wait(arn)
    assert ended.succeeded, ended.cause
    # Live by now, it is ECS's again: with the minimum of the role.
    managed.wait_for(lambda: managed.counts()[new] == (HOSTS + 1, HOSTS + 1))
    managed.assert_all_new(new, "managed", began)
    assert len(managed.instances(new)) == HOSTS + 1
    assert managed.group(new)["suspended"] == []
    assert managed.group(new)["min"] == 0
    assert managed.group(old)["suspended"] == FIGHTING
    managed.scale(new, HOSTS)
    managed.wait_for(lambda: len(managed.instances(new)) == HOSTS)


@pytest.mark.parametrize("idle_suspended", [True, False])
def test_15_stopped_while_it_bakes_both_groups_are_as_before(
    managed: RunningGroups, idle_suspended: bool
) -> None:
    """A task waits for a host: resumed too early, ECS would launch one for it."""
    idle = other(managed.live())
    autoscaling, group = managed.client("autoscaling"), f"web-{idle}"
    if idle_suspended:
        autoscaling.suspend_processes(AutoScalingGroupName=group, ScalingProcesses=FIGHTING)
    else:
        autoscaling.resume_processes(AutoScalingGroupName=group)
    before = managed.world()
    managed.push("stopped-managed")
    with managed.configured({"bake.seconds": 30}), managed.under_load():
        arn = managed.start_execution(managed.request("stopped-managed"))
        managed.wait_for_state(arn, "WaitForBake")
        managed.scale(idle, HOSTS + 1)
        managed.stop_execution(arn)
        managed.sweep()
        managed.wait_until_unlocked()
    assert managed.world() == before
    assert managed.record(arn.rsplit(":", 1)[1])["outcome"] == "rolled_back"


def test_15_hosts_that_never_get_a_task_end_and_both_groups_are_as_before(
    managed: RunningGroups,
) -> None:
    before = managed.world()
    managed.push("unregistered-managed")
    with (
        managed.configured({"health.deadline_seconds": 8}),
        managed.under_load(),
        managed.faults("group", kind="never_registers", group=f"web-{other(managed.live())}"),
    ):
        ended = managed.deploy("unregistered-managed")
    assert_failed(ended, "IdleColorUnhealthy", "1 of 2 hosts ready")
    assert managed.world() == before
    assert "held" not in managed.lock()


def test_a_provider_of_the_other_colours_group_is_refused(managed: RunningGroups) -> None:
    idle = other(managed.live())
    ecs, cluster = managed.client("ecs"), f"web-{idle}"
    wrong = f"cp-{other(idle)}"
    ecs.put_cluster_capacity_providers(
        cluster=cluster, capacityProviders=[f"cp-{idle}", wrong], defaultCapacityProviderStrategy=[]
    )
    ecs.update_service(
        cluster=cluster,
        service="web",
        capacityProviderStrategy=[{"capacityProvider": wrong, "weight": 1}],
    )
    before = managed.world()
    managed.push("mixed-up")
    ended = managed.deploy("mixed-up")
    assert_failed(ended, "DeploymentRefused", f"capacity provider {wrong}", f"web-{other(idle)}")
    assert managed.world() == before
    assert "held" not in managed.lock()
