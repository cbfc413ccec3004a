"""AWS clients, each made on first use and kept for the life of the Lambda environment."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_application_autoscaling import ApplicationAutoScalingClient
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_elb import ElasticLoadBalancingClient
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_stepfunctions import SFNClient

# Short enough that a function answers, or fails and is retried, well within its timeout.
_CONFIG = Config(
    connect_timeout=3,
    read_timeout=8,
    retries={"mode": "standard", "total_max_attempts": 3},
    user_agent_extra="ecs-bluegreen",
)
_ONCE = _CONFIG.merge(Config(retries={"mode": "standard", "total_max_attempts": 1}))


@lru_cache(maxsize=1)
def application_autoscaling() -> ApplicationAutoScalingClient:
    return boto3.client("application-autoscaling", config=_CONFIG)


@lru_cache(maxsize=1)
def autoscaling() -> AutoScalingClient:
    return boto3.client("autoscaling", config=_CONFIG)


@lru_cache(maxsize=1)
def cloudwatch() -> CloudWatchClient:
    return boto3.client("cloudwatch", config=_CONFIG)


@lru_cache(maxsize=1)
def cloudwatch_once() -> CloudWatchClient:
    """Reads once, and briefly: what cannot be read is unknown, and the next look reads again."""
    return boto3.client("cloudwatch", config=_ONCE.merge(Config(connect_timeout=2, read_timeout=3)))


@lru_cache(maxsize=1)
def dynamodb() -> DynamoDBClient:
    return boto3.client("dynamodb", config=_CONFIG)


@lru_cache(maxsize=1)
def ec2() -> EC2Client:
    return boto3.client("ec2", config=_CONFIG)


@lru_cache(maxsize=1)
def ecr() -> ECRClient:
    return boto3.client("ecr", config=_CONFIG)


@lru_cache(maxsize=1)
def ecs() -> ECSClient:
    return boto3.client("ecs", config=_CONFIG)


@lru_cache(maxsize=1)
def ecs_once() -> ECSClient:
    """Never repeats a call: for RegisterTaskDefinition, which makes a revision each time."""
    return boto3.client("ecs", config=_ONCE)


@lru_cache(maxsize=1)
def elb() -> ElasticLoadBalancingClient:
    """Classic Load Balancers."""
    return boto3.client("elb", config=_CONFIG)


@lru_cache(maxsize=1)
def elbv2() -> ElasticLoadBalancingv2Client:
    return boto3.client("elbv2", config=_CONFIG)


@lru_cache(maxsize=1)
def events() -> EventBridgeClient:
    """Publishes once, and waits for it briefly: what is told next must not wait for it."""
    return boto3.client("events", config=_ONCE.merge(Config(read_timeout=5)))


@lru_cache(maxsize=1)
def lambda_() -> LambdaClient:
    """Invokes a function once: a hook that has not answered in time must not run twice."""
    return boto3.client("lambda", config=_ONCE.merge(Config(read_timeout=20)))


@lru_cache(maxsize=1)
def logs() -> CloudWatchLogsClient:
    return boto3.client("logs", config=_CONFIG)


@lru_cache(maxsize=1)
def s3() -> S3Client:
    return boto3.client("s3", config=_CONFIG)


@lru_cache(maxsize=1)
def sns() -> SNSClient:
    """Publishes once: what was told and only its answer lost must not be told twice."""
    return boto3.client("sns", config=_ONCE)


@lru_cache(maxsize=1)
def sqs() -> SQSClient:
    return boto3.client("sqs", config=_CONFIG)


@lru_cache(maxsize=1)
def sqs_briefly() -> SQSClient:
    """For what must keep nobody waiting for long."""
    return boto3.client("sqs", config=_CONFIG.merge(Config(connect_timeout=2, read_timeout=3)))


@lru_cache(maxsize=1)
def ssm() -> SSMClient:
    return boto3.client("ssm", config=_CONFIG)


@lru_cache(maxsize=1)
def ssm_briefly() -> SSMClient:
    """Reads twice, and briefly: for what is unknown without an answer."""
    config = Config(
        connect_timeout=2, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 2}
    )
    return boto3.client("ssm", config=_CONFIG.merge(config))


@lru_cache(maxsize=1)
def ssm_once() -> SSMClient:
    """Reads once: for a function that has others to look after."""
    return boto3.client("ssm", config=_ONCE)


@lru_cache(maxsize=1)
def stepfunctions() -> SFNClient:
    return boto3.client("stepfunctions", config=_CONFIG)


@lru_cache(maxsize=1)
def stepfunctions_once() -> SFNClient:
    """Asks once, and briefly: for what a state can do without, and what is answered only once."""
    return boto3.client("stepfunctions", config=_ONCE.merge(Config(read_timeout=5)))
