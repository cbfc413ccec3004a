"""The migration: which revision it runs, where, and what is said when it fails."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from bluegreen.color import Color
from bluegreen.deployment import Deployment
from bluegreen.errors import DeploymentRefused
from bluegreen.migration import (
    MIGRATION_TAG,
    color_of_hosts,
    own_revision,
    run_task,
    stopped_task,
    why_not_run,
)
from bluegreen.task_definition import DEPLOYMENT_TAG
from tests.unit.planned import BLUE, DIGEST, GREEN, SECRET, planned

MIGRATION = {
    "container": "web",
    "command": ["bin/migrate", "--all"],
    "environment": {"MODE": "migrate", "VERSION": "{digest} on {color}"},
    "timeout_seconds": 60,
}
TAGS = [{"key": "team", "value": "shop"}, {"key": DEPLOYMENT_TAG, "value": "d-1"}]
REVISION: dict[str, Any] = {
    "family": "web",
    "networkMode": "bridge",
    "containerDefinitions": [
        {"name": "web", "image": "web:v2", "portMappings": [{"hostPort": 18082}]},
        {"name": "proxy", "image": "nginx", "essential": True},
    ],
    "tags": TAGS,
}
AWSVPC = {
    "launchType": "FARGATE",
    "networkConfiguration": {
        "awsvpcConfiguration": {
            "subnets": ["subnet-1"],
            "securityGroups": ["sg-1"],
            "assignPublicIp": "ENABLED",
        }
    },
}
TASK = {
    "TaskArn": "arn:aws:ecs:eu-west-1:123456789012:task/web/0123456789abcdef0123456789abcdef",
    "StoppedReason": "Essential container in task exited",
    "Containers": [{"Name": "web", "ExitCode": 3, "LastStatus": "STOPPED"}],
    "Overrides": {"ContainerOverrides": [{"Environment": [{"Name": "PASSWORD", "Value": SECRET}]}]},
}


def migrating(**sections: Any) -> Deployment:
    return planned(migration=MIGRATION, **sections)


def own(revision: dict[str, Any]) -> dict[str, Any] | None:
    migration = migrating().configuration.migration
    assert migration
    return own_revision(migration, revision, "d-1")


def run(
    revision: dict[str, Any], service: dict[str, Any], deployment: Deployment | None = None
) -> dict[str, Any]:
    deployment = deployment or migrating()
    assert deployment.configuration.migration
    return run_task(deployment, deployment.configuration.migration, "web:3", revision, service)


# Its revision


def test_10_it_takes_no_host_port_which_a_warm_colour_may_have() -> None:
    before = copy.deepcopy(REVISION)
    found = own(REVISION)
    assert found
    assert all("portMappings" not in one for one in found["containerDefinitions"])
    assert before == REVISION, "the deployment's own revision keeps its ports"


def test_a_side_container_that_ends_with_it_is_no_failure() -> None:
    found = own(REVISION)
    assert found
    assert [one["essential"] for one in found["containerDefinitions"]] == [True, False]
    optional = copy.deepcopy(REVISION)
    optional["containerDefinitions"][0]["essential"] = False
    found = own(optional)
    assert found
    assert found["containerDefinitions"][0]["essential"], "it would not end with the migration"


def test_its_revision_is_not_taken_for_the_deployments() -> None:
    found = own(REVISION)
    assert found
    assert found["tags"] == [
        {"key": "team", "value": "shop"},
        {"key": MIGRATION_TAG, "value": "d-1"},
    ]


@pytest.mark.parametrize("essential", [{}, {"essential": True}])
def test_the_deployments_revision_will_do_where_there_is_nothing_to_change(
    essential: dict[str, bool],
) -> None:
    alone = {"name": "web", "image": "web:v2", "portMappings": [{"containerPort": 8000}]}
    revision = {"family": "web", "networkMode": "awsvpc", "containerDefinitions": [alone]}
    revision["containerDefinitions"] = [alone | essential]
    assert own(revision) is None


def test_a_container_that_is_not_there_refuses_the_deployment() -> None:
    with pytest.raises(DeploymentRefused, match="no container 'web', only api, proxy"):
        own({"containerDefinitions": [{"name": "api"}, {"name": "proxy"}]})


# Where and how it runs


def test_what_step_functions_is_given() -> None:
    assert run(REVISION, {"launchType": "EC2"}) == {
        "task_definition": "web:3",
        "cluster": "web",
        "launch_type": "EC2",
        "overrides": {
            "ContainerOverrides": [
                {
                    "Name": "web",
                    "Command": ["bin/migrate", "--all"],
                    "Environment": [
                        {"Name": "MODE", "Value": "migrate"},
                        {"Name": "VERSION", "Value": f"{DIGEST} on green"},
                    ],
                }
            ]
        },
        "timeout_seconds": 60,
    }


def test_in_a_vpc_it_has_the_network_of_the_service() -> None:
    found = run(REVISION | {"networkMode": "awsvpc"}, AWSVPC)
    assert found["launch_type"] == "FARGATE"
    assert found["network"] == {
        "AwsvpcConfiguration": {
            "Subnets": ["subnet-1"],
            "SecurityGroups": ["sg-1"],
            "AssignPublicIp": "ENABLED",
        }
    }
    least = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}}
    found = run(REVISION | {"networkMode": "awsvpc"}, least)
    assert found["network"]["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"


def test_a_service_without_a_network_refuses_a_task_that_needs_one() -> None:
    with pytest.raises(DeploymentRefused, match="'web-green' has no network configuration"):
        run(REVISION | {"networkMode": "awsvpc"}, {"launchType": "EC2"})


@pytest.mark.parametrize(
    ("providers", "expected"),
    [(["FARGATE", "FARGATE_SPOT"], "FARGATE"), (["own-hosts"], "EC2"), ([], "EC2")],
)
def test_capacity_providers_say_what_launches_it(providers: list[str], expected: str) -> None:
    strategy = [{"capacityProvider": name, "weight": 1} for name in providers]
    assert run(REVISION, {"capacityProviderStrategy": strategy})["launch_type"] == expected


@pytest.mark.parametrize(("live", "expected"), [(BLUE, BLUE), (None, GREEN)])
def test_with_two_clusters_it_runs_where_there_are_hosts(
    live: Color | None, expected: Color
) -> None:
    colors = {
        color: {
            "cluster": f"web-{color}",
            "ecs_service": "web",
            "target_group": f"web-{color}",
            "auto_scaling_group": f"web-{color}",
        }
        for color in ("blue", "green")
    }
    deployment = migrating(from_color=live, pattern="two-clusters", colors=colors)
    assert color_of_hosts(deployment) == expected
    assert run(REVISION, {}, deployment)["cluster"] == f"web-{expected}"


def test_where_the_colours_share_a_cluster_it_is_the_idle_one() -> None:
    assert color_of_hosts(migrating()) == GREEN


# Why it failed


def test_the_task_of_a_failure_has_the_shape_that_ecs_describes_tasks_in() -> None:
    task = stopped_task({"Error": "States.TaskFailed", "Cause": json.dumps(TASK)})
    assert task
    assert task["taskArn"] == TASK["TaskArn"]
    assert task["stoppedReason"] == "Essential container in task exited"
    assert task["containers"] == [{"name": "web", "exitCode": 3, "lastStatus": "STOPPED"}]


@pytest.mark.parametrize("cause", ["", "Rate exceeded", "[]", "{}", '"x"', "null", "{"])
def test_a_failure_without_a_task_is_told_as_it_is(cause: str) -> None:
    failure = {"Error": "ECS.AccessDeniedException", "Cause": cause}
    assert stopped_task(failure) is None
    assert why_not_run(failure).startswith("ECS.AccessDeniedException: ")


def test_a_task_that_could_not_be_placed_says_why() -> None:
    failures = [
        {"Arn": "arn:aws:ecs:eu-west-1:1:container-instance/a", "Reason": "RESOURCE:MEMORY"}
    ]
    failure = {
        "Error": "AmazonECS.Unknown",
        "Cause": json.dumps({"Failures": failures, "Tasks": []}),
    }
    assert why_not_run(failure) == (
        "AmazonECS.Unknown: RESOURCE:MEMORY, arn:aws:ecs:eu-west-1:1:container-instance/a"
    )


def test_overrides_are_never_shown_since_they_may_hold_secrets() -> None:
    without_arn = {key: value for key, value in TASK.items() if key != "TaskArn"}
    said = why_not_run({"Error": "States.TaskFailed", "Cause": json.dumps(without_arn)})
    assert SECRET not in said


@pytest.mark.parametrize("before", ["", " \n", "["])
def test_overrides_in_json_that_is_cut_are_not_shown_either(before: str) -> None:
    cause = before + json.dumps(TASK)[:-2]
    assert SECRET in cause
    said = why_not_run({"Error": "States.TaskFailed", "Cause": cause})
    assert said == "States.TaskFailed: no cause given"


def test_overrides_in_a_list_are_not_shown_either() -> None:
    cause = json.dumps([TASK])
    assert SECRET not in why_not_run({"Error": "States.TaskFailed", "Cause": cause})
