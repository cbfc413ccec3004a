"""Executions of Step Functions, as they are now."""

from __future__ import annotations

from runtime import clients


def status(execution_arn: str) -> str:
    """The status of an execution, "" when it is not there (any more).

    https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html
    """
    client = clients.stepfunctions()
    try:
        return client.describe_execution(executionArn=execution_arn)["status"]
    except client.exceptions.ExecutionDoesNotExist:
        return ""
