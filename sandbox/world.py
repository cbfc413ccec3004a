"""What every part of the sandbox shares: where it is, what is broken on purpose, when it ends."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.backends import get_backend

ACCOUNT_ID = "123456789012"
REGION = "ap-northeast-1"
_making = threading.Lock()

Event = dict[str, Any]


@dataclass
class Faults:
    """What is broken on purpose, besides failing API calls (``sandbox.aws`` keeps those) and
    broken images (``sandbox.images`` keeps those).

    ``propagation_lag``: seconds between an accepted ModifyListener or ModifyRule and the moment
    the data plane follows it; 0 is immediately.
    """

    propagation_lag: float = 0.0

    def clear(self) -> None:
        """Everything works again."""
        self.propagation_lag = 0.0


@dataclass(frozen=True)
class World:
    """One running sandbox, as its parts see it.

    ``network`` is the first three numbers of a loopback /24, such as ``127.0.1``. ``aws_endpoint``
    is the base URL of the AWS APIs. ``work_directory`` is a temporary directory that is removed at
    the end; ``log_directory`` stays. ``publish`` sends one event (with at least source,
    detail-type, resources and detail; the rest is filled in) through EventBridge's default bus.
    ``stopping`` is set once, when everything has to end: threads wait on it instead of sleeping.
    """

    network: str
    aws_endpoint: str
    work_directory: Path
    log_directory: Path
    publish: Callable[[Event], None]
    faults: Faults = field(default_factory=Faults)
    stopping: threading.Event = field(default_factory=threading.Event)
    account_id: str = ACCOUNT_ID
    region: str = REGION

    @property
    def load_balancer_address(self) -> str:
        """The address of the load balancer, and its DNSName: the ports are the listeners' own."""
        return f"{self.network}.200"

    def backend(self, service: str) -> Any:
        """moto's backend (its state, without HTTP) of a service, such as ``ecs`` or ``elbv2``."""
        backends: Any = get_backend(service)
        return backends[self.account_id][self.region]

    def client(self, service: str) -> Any:
        """A boto3 client of the sandbox's own: its calls belong to no function."""
        return make_client(service, self.aws_endpoint)


def make_client(
    service: str,
    endpoint: str,
    *,
    region: str = REGION,
    access_key: str = "sandbox",
    read_timeout: float = 60,
) -> Any:
    """A boto3 client for the API at ``endpoint`` that never retries: what fails shows.

    ``access_key`` is the name under which the operation log lists its calls. Asking again gives
    the same client; threads can share it.
    """
    with _making:
        return _make_client(service, endpoint, region, access_key, read_timeout)


@functools.cache
def _make_client(
    service: str, endpoint: str, region: str, access_key: str, read_timeout: float
) -> Any:
    return _session(region).client(  # type: ignore[call-overload]
        service,
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key="sandbox",
        config=Config(
            retries={"total_max_attempts": 1}, max_pool_connections=50, read_timeout=read_timeout
        ),
    )


@functools.cache
def _session(region: str) -> boto3.session.Session:
    """One session for all clients: it keeps the models of the services that it has read."""
    return boto3.session.Session(region_name=region)
