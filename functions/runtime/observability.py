"""CloudWatch metrics of our own, written through the log (embedded metric format)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit

NAMESPACE = "ecs-bluegreen"


@lru_cache(maxsize=1)
def metrics() -> Metrics:
    """Made on first use: it reads the environment."""
    return Metrics(namespace=NAMESPACE)


def measure(values: Mapping[str, tuple[MetricUnit, float]], **dimensions: str) -> None:
    """Write some values at once. values: name of the metric → unit, value.

    Without the dimension ``service``, that of a deployment, it is POWERTOOLS_SERVICE_NAME.
    """
    for name, said in dimensions.items():
        metrics().add_dimension(name, said)
    for name, (unit, value) in values.items():
        metrics().add_metric(name, unit, value)
    metrics().flush_metrics()


def count(name: str) -> None:
    """Count something that an alarm looks at."""
    measure({name: (MetricUnit.Count, 1)})
