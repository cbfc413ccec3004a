"""Errors of AWS as the state machine sees them: passing ones are tried again, others are not."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from bluegreen.errors import AwsRefused, AwsUnavailable, LockHeld
from runtime.invocation import translating_aws_errors
from runtime.settings import SettingsError
from tests.functions.world import Fault, World


def answer(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": "why"},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]
        },
        "DescribeServices",
    )


def name_of(error: Exception) -> str:
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"]
    return type(error).__name__


def translated(error: Exception) -> Exception:
    def call() -> None:
        raise error

    with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is the question
        translating_aws_errors(call)
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        answer("ThrottlingException"),
        answer("Throttling"),
        answer("RequestThrottled"),
        answer("ProvisionedThroughputExceededException"),
        answer("RequestLimitExceeded"),
        answer("TooManyRequestsException"),
        answer("ServerException", 500),
        answer("ServiceUnavailable", 503),
        answer("ConcurrentUpdateException"),
        ReadTimeoutError(endpoint_url="https://ecs"),
        ConnectionClosedError(endpoint_url="https://ecs"),
        EndpointConnectionError(endpoint_url="https://ecs"),
    ],
    ids=name_of,
)
def test_what_passes_may_be_tried_again(error: Exception) -> None:
    found = translated(error)
    assert type(found) is AwsUnavailable
    assert str(error) in str(found)
    assert found.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        answer("AccessDeniedException"),
        answer("AccessDenied", 403),
        answer("ValidationException"),
        answer("ServiceNotFoundException"),
        ParamValidationError(report="wrong"),
        NoCredentialsError(),
    ],
    ids=name_of,
)
def test_what_aws_refuses_is_not_tried_again(error: Exception) -> None:
    found = translated(error)
    assert type(found) is AwsRefused
    assert str(error) in str(found)


def test_our_own_errors_pass_as_they_are() -> None:
    error = LockHeld("by d-1")
    assert translated(error) is error


def test_a_defect_of_ours_passes_as_it_is() -> None:
    assert isinstance(translated(KeyError("x")), KeyError)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("throttle", AwsUnavailable),
        ("error500", AwsUnavailable),
        ("timeout", AwsUnavailable),
        ("denied", AwsRefused),
    ],
)
def test_a_function_translates_what_its_calls_meet(
    world: World, kind: Fault, error: type[Exception]
) -> None:
    world.fault("ssm", "GetParameter", kind)
    with pytest.raises(error):
        world.plan()


def test_an_environment_that_is_incomplete_is_said_to_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TABLE_NAME")
    with pytest.raises(SettingsError, match="TABLE_NAME is not set"):
        world.plan()
