"""Every error of ecs-bluegreen, in one tree.

The class name is what Step Functions sees as the error's name (Lambda reports ``errorType``), so it
is part of the contract with statemachine/blue_green_deployment.asl.json::

    BlueGreenError
    ├── InvalidRequest            the execution input is wrong; nothing was changed
    │   ├── InvalidConfiguration  the service configuration is wrong; nothing was changed
    │   └── InvalidEvent          an event is not what its rule lets through; nothing was started
    ├── DeploymentRefused         the world is not fit for this deployment; nothing was changed
    │   └── LockHeld              another deployment of the service is running
    ├── LockLost                  another execution has taken over; this one must not write any more
    ├── TrafficChanged            somebody else changed the traffic; it is left as it is
    ├── HookFailed                a function of the user's said no, or did not say anything useful
    ├── MigrationFailed           the one-off task before the start failed; nothing was shifted
    ├── NotApproved               a person said no, or nobody said anything in time
    ├── IdleColorUnhealthy        the new version did not become, or stay, healthy
    ├── BakeFailed                an alarm, an alert, errors or slow answers while baking
    ├── SwitchNotProved           the weights are set but the load balancer does not follow
    ├── HostNotReady              a host cannot take part in a switch, or a step; none was switched
    ├── HostNotSwitched           a host did not switch with the others; all are put back
    ├── DrainFailed               the old colour did not end; the traffic is not touched
    ├── RollBackIncomplete        the snapshot could not be restored in time
    ├── ReleaseFailed             one service of a release failed; all are on their old version
    ├── AwsRefused                AWS said no (permission, validation); trying again will not help
    └── AwsUnavailable            throttled, an AWS fault or a lost answer; trying again may help
"""

from __future__ import annotations


class BlueGreenError(Exception):
    """Base of all errors raised on purpose; its text is what the person on call reads."""


class InvalidRequest(BlueGreenError):
    pass


class InvalidConfiguration(InvalidRequest):
    pass


class InvalidEvent(InvalidRequest):
    pass


class DeploymentRefused(BlueGreenError):
    pass


class LockHeld(DeploymentRefused):
    pass


class LockLost(BlueGreenError):
    pass


class TrafficChanged(BlueGreenError):
    pass


class HookFailed(BlueGreenError):
    pass


class MigrationFailed(BlueGreenError):
    pass


class NotApproved(BlueGreenError):
    pass


class IdleColorUnhealthy(BlueGreenError):
    pass


class BakeFailed(BlueGreenError):
    pass


class SwitchNotProved(BlueGreenError):
    pass


class HostNotReady(BlueGreenError):
    pass


class HostNotSwitched(BlueGreenError):
    pass


class DrainFailed(BlueGreenError):
    pass


class RollBackIncomplete(BlueGreenError):
    pass


class ReleaseFailed(BlueGreenError):
    pass


class AwsRefused(BlueGreenError):
    pass


class AwsUnavailable(BlueGreenError):
    pass
