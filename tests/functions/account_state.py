"""Everything in the account that a deployment could change, as one value to compare."""

from __future__ import annotations

from typing import Any

from moto.backends import get_backend

from runtime import clients
from tests.functions.world import ACCOUNT, BLUE, GREEN, MACHINE, REGION, TABLE, World


def account_state(world: World) -> dict[str, Any]:
    """Items, services, tasks, revisions, balancers, targets, scaling, parameters, executions,
    images, and what people are told.
    """
    items = clients.dynamodb().scan(TableName=TABLE)["Items"]
    services = {}
    for color in (BLUE, GREEN):
        one = world.service(color)
        services[color] = {
            key: one[key] for key in ("desiredCount", "taskDefinition", "status", "deployments")
        }
    return {
        "items": sorted(items, key=lambda item: item["pk"]["S"]),
        "services": services,
        "tasks": sorted(clients.ecs().list_tasks(cluster="web")["taskArns"]),
        "revisions": world.revisions(),
        "listeners": [world.actions(), world.actions(world.test_listener)],
        "rules": [_rules(arn) for arn in (world.listener, world.test_listener)],
        "groups": [_group(arn) for arn in world.groups.values()],
        "health": {color: list(states) for color, states in world.health.items()},
        "scaling": clients.application_autoscaling().describe_scalable_targets(
            ServiceNamespace="ecs"
        )["ScalableTargets"],
        "parameters": sorted(
            clients.ssm().get_parameters_by_path(Path="/", Recursive=True)["Parameters"],
            key=lambda one: one["Name"],
        ),
        "executions": sorted(_execution(arn) for arn in _executions()),
        "images": clients.ecr().describe_images(repositoryName="web")["imageDetails"],
        "queues": {
            name: [one.body for one in found._messages]
            for name, found in get_backend("sqs")[ACCOUNT][REGION].queues.items()
        },
    }


def _rules(listener: str) -> Any:
    return clients.elbv2().describe_rules(ListenerArn=listener)["Rules"]


def _group(arn: str) -> Any:
    elbv2 = clients.elbv2()
    return (
        elbv2.describe_target_groups(TargetGroupArns=[arn])["TargetGroups"],
        elbv2.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"],
    )


def _executions() -> list[str]:
    found = clients.stepfunctions().list_executions(stateMachineArn=MACHINE)["executions"]
    return [one["executionArn"] for one in found]


def _execution(arn: str) -> tuple[str, str, str]:
    one = clients.stepfunctions().describe_execution(executionArn=arn)
    return one["name"], one["status"], one["input"]


def without_wishes(state: dict[str, Any]) -> dict[str, Any]:
    """The same without the notes that a deployment was asked for, which change nothing."""
    kept = [one for one in state["items"] if one.get("phase", {}).get("S") != "planning"]
    return {**state, "items": kept}
