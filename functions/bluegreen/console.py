"""Where a browser shows things of AWS."""

from __future__ import annotations


def link(execution_arn: str) -> str:
    """The page of an execution in the console of Step Functions."""
    region = execution_arn.split(":")[3]
    return (
        f"https://{region}.console.aws.amazon.com/states/home?region={region}"
        f"#/v2/executions/details/{execution_arn}"
    )
