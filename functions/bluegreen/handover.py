"""Scaling goes with the role: the new colour scales as the live one did."""

from __future__ import annotations

from bluegreen import auto_scaling, compute, scaling
from bluegreen.deployment import SUSPENDED, Deployment
from runtime import clients


def hand_over(deployment: Deployment) -> None:
    """What was live scaled, what is idle must stay where it is: of both services, and of the groups
    of their hosts.
    """
    snapshot = deployment.snapshot.services
    colors = deployment.configuration.colors
    client = clients.application_autoscaling()
    new = snapshot[deployment.to_color].scaling
    old = snapshot[deployment.from_color].scaling if deployment.from_color else None
    if new:
        scaling.write(client, colors[deployment.to_color], old or new)
    if old and deployment.from_color:
        scaling.write(client, colors[deployment.from_color], SUSPENDED)
    _hand_groups_over(deployment)


def _hand_groups_over(deployment: Deployment) -> None:
    """The same for the groups of the hosts; the old one may become empty from now on."""
    snapshot, colors = deployment.snapshot.services, deployment.configuration.colors
    client, old = clients.autoscaling(), deployment.from_color
    before = snapshot[old or deployment.to_color].group
    name = colors[deployment.to_color].auto_scaling_group
    if before is None or name is None:
        return
    new_group = auto_scaling.read(client, name)
    auto_scaling.resize(client, new_group, min_size=before.min_size)
    auto_scaling.set_suspended(client, new_group, before.suspended)
    if old and (old_name := colors[old].auto_scaling_group):
        old_group = auto_scaling.read(client, old_name)
        auto_scaling.resize(client, old_group, min_size=0)
        auto_scaling.set_suspended(client, old_group, {*old_group.suspended, *compute.FIGHTING})
