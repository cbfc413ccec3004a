"""CloudWatch metrics of our own, written through the log (embedded metric format)."""

from __future__ import annotations

from functools import lru_cache

from aws_lambda_powertools import Metrics

NAMESPACE = "ecs-bluegreen"


@lru_cache(maxsize=1)
def metrics() -> Metrics:
    """Made on first use: it reads the environment."""
    return Metrics(namespace=NAMESPACE)
