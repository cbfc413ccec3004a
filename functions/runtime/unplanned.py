"""What is told of a deployment that was never planned: its record is all that there is of it."""

from __future__ import annotations

from bluegreen import parameters
from bluegreen.announcement import Announcement, Kind
from bluegreen.errors import AwsRefused, AwsUnavailable, InvalidConfiguration
from bluegreen.store import Record
from runtime import clients
from runtime.invocation import logger, translating_aws_errors
from runtime.settings import Settings


def announcement(
    settings: Settings,
    record: Record,
    kind: Kind,
    at: float,
    *,
    reason: str,
    outcome: str,
    execution_arn: str,
    step: str = "",
) -> Announcement:
    """An announcement by the record. at: epoch seconds. execution_arn: the execution that ended."""
    return Announcement(
        kind=kind,
        deployment_id=record.id,
        service=record.service,
        at=at,
        step=step,
        reason=reason,
        outcome=outcome,
        images=dict(record.images),
        started_by=record.started_by,
        execution_arn=execution_arn,
        slack=_slack(settings, record.service),
    )


def _slack(settings: Settings, service: str) -> str | None:
    """That the configuration is wrong may be just why it was never planned."""
    try:
        notify = translating_aws_errors(
            lambda: parameters.read(clients.ssm(), settings.parameter_prefix, service)
        ).notify
    except (InvalidConfiguration, AwsRefused, AwsUnavailable) as error:
        logger().info("nobody to tell in Slack", extra={"reason": str(error)})
        return None
    return notify.slack if notify else None
