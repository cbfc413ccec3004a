"""One invocation of a function: what came in, what goes out, which errors may be tried again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, TypeVar

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from bluegreen.errors import AwsRefused, AwsUnavailable
from bluegreen.store import Store
from runtime import clients
from runtime.settings import Settings

Answer = TypeVar("Answer")

# Codes that AWS documents as passing; anything that says "throttl" or answers 5xx passes too.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
_PASSING = frozenset(
    {
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ProvisionedThroughputExceededException",
        "TransactionInProgressException",
        "LimitExceededException",
        "ConcurrentUpdateException",
        # UpdateAutoScalingGroup, SuspendProcesses and ResumeProcesses, while the group is busy.
        "ScalingActivityInProgress",
        "ResourceInUse",
        # PutParameter, for another change of it that has not ended.
        "TooManyUpdates",
        # SendCommand, for a host that was registered a moment ago.
        "InvalidInstanceId",
    }
)


@lru_cache(maxsize=1)
def logger() -> Logger:
    """Made on first use: it reads the environment."""
    return Logger()


@dataclass(frozen=True)
class Invocation:
    """execution_arn, execution_name, began: the execution that invoked the function.
    data: its state (``$``). event: all that came in, for what a state adds to these two. now: epoch
    seconds, read once.
    """

    execution_arn: str
    execution_name: str
    began: str
    data: Mapping[str, Any]
    event: Mapping[str, Any]
    now: float
    settings: Settings
    store: Store

    @property
    def deployment_id(self) -> str:
        """The deployment that this execution is about: its own, unless it recovers another one."""
        recovery = self.data.get("recovery", {})
        return str(recovery.get("deployment_id", self.execution_name))


def task(function: Callable[[Invocation], dict[str, Any]]) -> Callable[[Any, Any], dict[str, Any]]:
    """A Lambda handler for a Task state whose Parameters are ``{"execution": $$.Execution,
    "data": $}``.

    AWS errors leave it as AwsUnavailable, which the state machine tries again, or AwsRefused, which
    it does not.
    """

    @wraps(function)
    def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
        settings = Settings.from_env(os.environ)
        logger().append_keys(
            state=function.__module__,
            execution=event["execution"]["Name"],
            deployment=event["data"].get("deployment", {}).get("id"),
        )
        invocation = Invocation(
            execution_arn=event["execution"]["Id"],
            execution_name=event["execution"]["Name"],
            began=event["execution"]["StartTime"],
            data=event["data"],
            event=event,
            now=time.time(),
            settings=settings,
            store=Store(clients.dynamodb(), settings.table, settings.lease_seconds),
        )
        answer = translating_aws_errors(lambda: function(invocation))
        logger().info("answered", extra={"answer": _summary(answer)})
        return answer

    return handler


def translating_aws_errors(call: Callable[[], Answer]) -> Answer:
    """Run call; an error of botocore becomes AwsUnavailable or AwsRefused, with what AWS said."""
    try:
        return call()
    except ClientError as error:
        if is_passing(error):
            raise AwsUnavailable(str(error)) from error
        raise AwsRefused(str(error)) from error
    except (BotoConnectionError, HTTPClientError) as error:
        raise AwsUnavailable(str(error)) from error
    except BotoCoreError as error:
        raise AwsRefused(str(error)) from error


def is_passing(error: ClientError) -> bool:
    """Whether the same call may succeed a little later."""
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # ECS says "Too many concurrent attempts to create a new revision" as a plain ClientException.
    concurrent = "concurrent" in error.response.get("Error", {}).get("Message", "")
    return status >= 500 or "throttl" in code.lower() or code in _PASSING or concurrent


def _summary(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What of an answer goes into the log: no configuration, no environment."""
    return {
        key: value for key, value in answer.items() if isinstance(value, (str, int, float, bool))
    }
