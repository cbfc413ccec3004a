"""DeliverContainerMetrics: send what waits for Mackerel, the oldest first."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

from containermetrics import services
from containermetrics.delivery import Delivered, deliver, look_at_the_rest
from containermetrics.errors import InvalidKey
from containermetrics.store import MetricsStore
from runtime import clients, mackerel
from runtime.invocation import logger, translating_aws_errors
from runtime.observability import metrics
from runtime.settings import MetricsSettings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# What is under way has to end before the function's time is over.
_RESERVE_SECONDS = 10


def handler(event: Mapping[str, Any], context: LambdaContext) -> None:
    """Invoked by the queue, for one cluster at a time (its message group).

    What Mackerel does not take now stays in the backlog: that is no error of this function, it is
    in its log and in the metrics that it writes.
    """
    settings = MetricsSettings.from_env(os.environ)
    store = MetricsStore(clients.dynamodb(), settings.table)

    def seconds_left() -> float:
        return context.get_remaining_time_in_millis() / 1000 - _RESERVE_SECONDS

    for record in event["Records"]:
        name = json.loads(record["body"])["cluster"]
        logger().append_keys(cluster=name)
        delivered = translating_aws_errors(
            lambda: _deliver(name, settings, store, time.time(), seconds_left)  # noqa: B023
        )
        _tell(delivered)


def _deliver(
    name: str,
    settings: MetricsSettings,
    store: MetricsStore,
    now: float,
    seconds_left: Callable[[], float],
) -> Delivered:
    cluster = services.cluster(clients.ssm(), settings.parameter_prefix, name)
    if cluster is None:
        logger().info("its metrics configuration was removed")
        return Delivered()
    try:
        client = mackerel.connect(settings.mackerel_url, settings.mackerel_key, clock=time.time)
    except (GetParameterError, InvalidKey) as error:
        why = f"no API key in the SSM parameter {settings.mackerel_key}; all is kept: {error}"
        delivered = Delivered(problems=[why])
        look_at_the_rest(store, name, now, delivered)
        return delivered
    delivered = deliver(client, store, name, now, seconds_left, cluster.retire_after)
    # For Mackerel with the next minute: it takes the values of a service about once a minute.
    counts = {
        "sent": delivered.sent,
        "dropped": delivered.dropped_old,
        "errors": delivered.refused,
    }
    counts = {what: count for what, count in counts.items() if count}
    if counts:
        store.add_delivered(name, counts)
    return delivered


def _tell(delivered: Delivered) -> None:
    """What came of it, in the log and in CloudWatch: Mackerel itself may be what is down."""
    for problem in delivered.problems:
        logger().error("not delivered", extra={"reason": problem})
    for name, unit, value in (
        ("MetricValuesSent", MetricUnit.Count, delivered.sent),
        ("MetricValuesDropped", MetricUnit.Count, delivered.dropped_old),
        ("MetricValuesRefused", MetricUnit.Count, delivered.refused),
        ("MetricProblems", MetricUnit.Count, len(delivered.problems)),
        ("MetricBatchesWaiting", MetricUnit.Count, delivered.kept),
        ("MetricOldestWaitingSeconds", MetricUnit.Seconds, delivered.oldest_seconds),
    ):
        metrics().add_metric(name, unit, value)
    metrics().flush_metrics()
