"""PushContainerMetrics: once a minute, start the way of each cluster's numbers to Mackerel."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import ClientError

from containermetrics import messages, services
from runtime import clients
from runtime.invocation import logger, translating_aws_errors
from runtime.observability import metrics
from runtime.settings import MetricsSettings


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Invoked by a schedule. Answers ``{"clusters": [names]}`` of those that it sent on their way.

    A cluster whose configuration is wrong is named in the log, and the others go on.
    """
    settings = MetricsSettings.from_env(os.environ)
    return translating_aws_errors(lambda: _push(settings, _minute(event)))


def _minute(event: Mapping[str, Any]) -> int:
    """The minute that the schedule is about, epoch seconds: an event may come late, and two that
    come late and early must not be about one minute and leave out another.
    """
    due = event.get("time")
    at = datetime.fromisoformat(due).timestamp() if isinstance(due, str) else time.time()
    return int(at // 60 * 60)


def _push(settings: MetricsSettings, minute: int) -> dict[str, Any]:
    found, problems = services.clusters(clients.ssm(), settings.parameter_prefix)
    for problem in problems:
        logger().error("a cluster has no metrics", extra={"reason": problem})
    if problems:
        # Else nothing: a metric that is always 0 costs the same.
        metrics().add_metric("MetricConfigurationsWrong", MetricUnit.Count, len(problems))
        metrics().flush_metrics()
    failed = []
    for one in found:
        try:
            messages.collect(clients.sqs(), settings.collect_queue, "begin", one.cluster, minute)
            # What Mackerel did not take before is sent even if this minute cannot be read.
            messages.deliver(clients.sqs(), settings.deliver_queue, one.cluster)
        except ClientError as error:
            logger().exception("a cluster is not sent on its way", extra={"cluster": one.cluster})
            failed.append(error)
    if failed:
        raise failed[0]
    return {"clusters": [one.cluster for one in found]}
