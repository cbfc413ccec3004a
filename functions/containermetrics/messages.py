"""The messages that the functions of the pusher send each other."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_GROUP_LENGTH = 128


def collect(
    client: SQSClient,
    queue: str,
    step: str,
    cluster: str,
    minute: int,
    delay: float = 0,
    **more: Any,
) -> None:
    """Have a step of collecting done. minute: epoch seconds. delay: seconds."""
    client.send_message(
        QueueUrl=queue,
        MessageBody=json.dumps({"step": step, "cluster": cluster, "minute": minute, **more}),
        DelaySeconds=int(delay),
    )


def deliver(client: SQSClient, queue: str, cluster: str) -> None:
    """Have what waits of a cluster delivered, when nobody else is at it."""
    client.send_message(
        QueueUrl=queue,
        MessageBody=json.dumps({"cluster": cluster}),
        MessageGroupId=cluster[:_GROUP_LENGTH],
        # Never a repetition of an earlier one: something new may wait.
        MessageDeduplicationId=str(uuid.uuid4()),
    )
