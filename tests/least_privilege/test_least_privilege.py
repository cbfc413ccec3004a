"""What the functions really called in all end-to-end tests, against what they are allowed.

Needs a whole run of tests/e2e before it: `make test` does both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.stack import load

ROOT = Path(__file__).resolve().parents[2]

# Allowed though no function calls it here: AWS itself checks it while carrying out another call, or
# it is for what an earlier version has left.
ONLY_AWS_NEEDS_IT = {
    ("RegisterTaskDefinitionFunction", "iam:PassRole"): "RegisterTaskDefinition passes the roles",
    ("RegisterTaskDefinitionFunction", "ecs:TagResource"): "RegisterTaskDefinition with tags",
    (
        "PlanDeploymentFunction",
        "ecs:ListTaskDefinitions",
    ): "revisions of old deployments",
    (
        "PlanDeploymentFunction",
        "inspector2:ListCoverage",
    ): "DescribeImageScanFindings with enhanced scanning",
    (
        "PlanDeploymentFunction",
        "inspector2:ListFindings",
    ): "DescribeImageScanFindings with enhanced scanning",
    ("ShiftTrafficFunction", "ecs:DescribeServices"): "RegisterScalableTarget of a service",
    ("ShiftTrafficFunction", "ecs:UpdateService"): "RegisterScalableTarget of a service",
    ("AnnotateDeploymentFunction", "sqs:SendMessage"): "Lambda sends what it gave up to the queue",
}

# Called in some runs, as somebody else may be faster.
ONLY_WHO_IS_FIRST_NEEDS_IT = {
    ("ExplainMigrationFunction", "ecs:StopTask"): "Step Functions may have stopped the migration",
}


@pytest.fixture(scope="module")
def called() -> set[tuple[str, str]]:
    """(function, action) of every call in the last run of tests/e2e."""
    files = list((ROOT / "build" / "calls").glob("*.json"))
    if not files:
        pytest.fail("there is no record of what was called: run `make test`, or tests/e2e first")
    return {
        (call["function"], f"{call['service']}:{call['operation']}")
        for file in files
        for call in json.loads(file.read_text())
        if call["function"].endswith("Function")
    }


@pytest.fixture(scope="module")
def allowed() -> set[tuple[str, str]]:
    """(function, action) of every statement in the template's roles."""
    resources = load(ROOT / "template.yaml")["Resources"]
    return {
        (name, action)
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Lambda::Function"
        for action in _actions(resources, f"{name.removesuffix('Function')}FunctionRole")
    }


def test_nothing_is_called_that_is_not_allowed(
    called: set[tuple[str, str]], allowed: set[tuple[str, str]]
) -> None:
    assert called - allowed == set()


def test_nothing_is_allowed_that_is_never_called(
    called: set[tuple[str, str]], allowed: set[tuple[str, str]]
) -> None:
    never_called = allowed - called - set(ONLY_WHO_IS_FIRST_NEEDS_IT)
    assert never_called == set(ONLY_AWS_NEEDS_IT)


def _actions(resources: Any, role: str) -> Iterator[str]:
    """Of the role itself, and of what it shares with others but for logs and traces."""
    properties = resources[role]["Properties"]
    documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    documents += [
        resources[arn["Ref"]]["Properties"]["PolicyDocument"]
        for arn in properties["ManagedPolicyArns"]
        if "Ref" in arn and arn["Ref"] != "ObservabilityPolicy"
    ]
    for document in documents:
        for statement in document["Statement"]:
            actions = statement["Action"]
            yield from [actions] if isinstance(actions, str) else actions
