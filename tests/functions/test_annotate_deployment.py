from __future__ import annotations

import datetime
from typing import Any

import pytest

from bluegreen.deployment import Deployment
from runtime import clients
from sandbox.mackerel.server import Fault
from tests.functions.metrics_world import MetricsWorld
from tests.functions.world import execution_arn

STATUSES = ("SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT")


def ended(world: MetricsWorld, execution: str, status: str = "SUCCEEDED", **more: Any) -> Any:
    """What EventBridge says when an execution has ended, and all that follows."""
    detail = {
        "executionArn": execution_arn(execution),
        "name": execution,
        "status": status,
        "stopDate": int(world.now * 1000),
        "input": '{"service": "web"}',
        **more,
    }
    answer = world.invoke("annotate_deployment", {"detail": detail})
    world.minute()
    return answer


def recorded(world: MetricsWorld, outcome: str, reason: str = "", execution: str = "d-1") -> None:
    """A deployment that has ended, with its record."""
    data = world.shifted(execution)
    world.now += 90
    deployment = Deployment.model_validate(data["deployment"])
    world.store.close(execution, outcome, reason, world.now, deployment.fencing)
    world.store.release("web", deployment.fencing)


def marks(world: MetricsWorld) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.get(
        "/api/v0/graph-annotations", service="shop", **{"from": 0, "to": int(world.now) + 60}
    )["graphAnnotations"]
    return found


def test_a_deployment_is_marked_from_its_start_to_its_end(metrics: MetricsWorld) -> None:
    began = int(metrics.now)
    recorded(metrics, "succeeded")

    assert ended(metrics, "d-1") == {"annotated": "d-1"}

    (one,) = marks(metrics)
    assert (one["from"], one["to"]) == (began, began + 90)
    assert one["title"] == "web: blue → green, succeeded"
    assert (one["service"], one["roles"]) == ("shop", ["web"])
    assert f"web@{metrics.digests['v2']}" in one["description"]
    assert execution_arn("d-1") in one["description"]


def test_the_event_that_comes_twice_marks_once(metrics: MetricsWorld) -> None:
    recorded(metrics, "succeeded")
    for _ in range(3):
        ended(metrics, "d-1")

    assert len(marks(metrics)) == 1


def test_a_failure_says_why(metrics: MetricsWorld) -> None:
    recorded(metrics, "rolled_back", "IdleColorUnhealthy: exit code 3; " + "x" * 5000)
    ended(metrics, "d-1", "FAILED")

    (one,) = marks(metrics)
    assert one["title"] == "web: blue → green, rolled_back"
    assert "IdleColorUnhealthy: exit code 3" in one["description"]
    assert len(one["description"]) <= 1024


@pytest.mark.parametrize(
    "said",
    [
        {"input": '{"action": "rollback", "deployment_id": "d-1"}'},
        {
            "input": '{"action": "rollback", "service": "web"}',
            "output": '{"recovery": {"deployment_id": "d-1"}}',
        },
    ],
)
def test_a_rollback_by_hand_changes_the_annotation(
    metrics: MetricsWorld, said: dict[str, str]
) -> None:
    recorded(metrics, "succeeded")
    ended(metrics, "d-1")
    clients.dynamodb().update_item(
        TableName="deployments",
        Key={"pk": {"S": "deployment#d-1"}},
        UpdateExpression="SET outcome = :outcome",
        ExpressionAttributeValues={":outcome": {"S": "rolled_back"}},
    )
    ended(metrics, "back", **said)

    (one,) = marks(metrics)
    assert one["title"] == "web: blue → green, rolled_back"


def test_a_promotion_is_no_end(metrics: MetricsWorld) -> None:
    recorded(metrics, "succeeded")
    said = ended(metrics, "go-on", input='{"action": "promote", "deployment_id": "d-1"}')

    assert said == {"annotated": None}
    assert marks(metrics) == []


@pytest.mark.parametrize("status", STATUSES)
def test_what_never_was_a_deployment_marks_nothing(metrics: MetricsWorld, status: str) -> None:
    assert ended(metrics, "never", status) == {"annotated": None}
    metrics.plan("d-9")  # stopped by hand: its recovery will say how it ended
    assert ended(metrics, "d-9", status) == {"annotated": None}

    assert marks(metrics) == []


def test_a_cluster_without_metrics_marks_nothing(metrics: MetricsWorld) -> None:
    recorded(metrics, "succeeded")
    clients.ssm().delete_parameter(Name="/bluegreen/metrics/web")

    assert ended(metrics, "d-1") == {"annotated": None}


def test_an_annotation_waits_for_mackerel(metrics: MetricsWorld) -> None:
    recorded(metrics, "succeeded")
    metrics.mackerel.turn_on(Fault("outage"))
    ended(metrics, "d-1")
    for _ in range(3):
        metrics.minute()
    metrics.mackerel.turn_off()
    metrics.minute()

    (one,) = marks(metrics)
    when = datetime.datetime.fromtimestamp(one["to"], datetime.UTC)
    assert metrics.now - when.timestamp() > 180
