"""Task definitions of the sandbox's ECS: what was given comes back to the letter."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
from moto.core.exceptions import ServiceException

from sandbox.ecs.definitions import TaskDefinitions
from sandbox.world import World

PREFIX = "arn:aws:ecs:ap-northeast-1:123456789012:task-definition/"
# The answer of DescribeTaskDefinition has these, a request of RegisterTaskDefinition does not.
ONLY_SHOWN = {
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
}
FULL: dict[str, Any] = {
    "family": "web",
    "taskRoleArn": "arn:aws:iam::123456789012:role/web",
    "executionRoleArn": "arn:aws:iam::123456789012:role/pull",
    "networkMode": "bridge",
    "volumes": [{"name": "scratch", "host": {}}],
    "placementConstraints": [{"type": "memberOf", "expression": "attribute:zone == a"}],
    "requiresCompatibilities": ["EC2"],
    "cpu": "256",
    "memory": "512",
    "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
    "containerDefinitions": [
        {
            "name": "web",
            "image": "123456789012.dkr.ecr.ap-northeast-1.amazonaws.com/web@sha256:" + "a" * 64,
            "cpu": 128,
            "memoryReservation": 64,
            "essential": True,
            "portMappings": [
                {"containerPort": 8000, "hostPort": 18081, "protocol": "tcp", "name": "http"}
            ],
            "environment": [{"name": "COLOR", "value": "blue"}, {"name": "EMPTY", "value": ""}],
            "secrets": [{"name": "KEY", "valueFrom": "/web/key"}],
            "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/scratch"}],
            "volumesFrom": [],
            "systemControls": [{"namespace": "net.core.somaxconn", "value": "1024"}],
            "linuxParameters": {"initProcessEnabled": True},
            "stopTimeout": 30,
            "dockerLabels": {"team": "shop"},
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {"awslogs-group": "/ecs/web", "awslogs-region": "ap-northeast-1"},
            },
            "healthCheck": {
                "command": ["CMD-SHELL", "true"],
                "interval": 5,
                "timeout": 2,
                "retries": 3,
                "startPeriod": 10,
            },
        },
        {
            "name": "sidecar",
            "image": "sidecar",
            "cpu": 0,
            "memory": 32,
            "essential": False,
            "portMappings": [],
            "environment": [],
            "mountPoints": [],
            "volumesFrom": [],
            "systemControls": [],
            "dependsOn": [{"containerName": "web", "condition": "START"}],
            "futureSetting": {"deep": [1, {"down": None}]},
        },
    ],
}
SMALL: dict[str, Any] = {
    "family": "small",
    "containerDefinitions": [{"name": "a", "image": "a:1", "memory": 16}],
}


@pytest.fixture
def definitions() -> TaskDefinitions:
    world = SimpleNamespace(region="ap-northeast-1", account_id="123456789012")
    return TaskDefinitions(cast("World", world))


def requested(definition: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in definition.items() if key not in ONLY_SHOWN}


def test_a_full_definition_comes_back_to_the_letter(definitions: TaskDefinitions) -> None:
    given = copy.deepcopy(FULL)
    definitions.register(given)
    assert given == FULL
    assert requested(definitions.find("web:1")) == FULL


def test_what_is_shown_can_be_registered_again_and_is_the_same(
    definitions: TaskDefinitions,
) -> None:
    first = definitions.register(SMALL)
    second = definitions.register(requested(first))
    assert requested(first) == requested(second)
    assert (first["revision"], second["revision"]) == (1, 2)


def test_defaults_are_filled_in(definitions: TaskDefinitions) -> None:
    given = copy.deepcopy(SMALL)
    given["containerDefinitions"][0]["portMappings"] = [{"containerPort": 80}]
    definition = definitions.register(given)
    assert (definition["volumes"], definition["placementConstraints"]) == ([], [])
    assert definition["containerDefinitions"] == [
        {
            "name": "a",
            "image": "a:1",
            "memory": 16,
            "cpu": 0,
            "portMappings": [{"containerPort": 80, "hostPort": 0, "protocol": "tcp"}],
            "essential": True,
            "environment": [],
            "mountPoints": [],
            "volumesFrom": [],
            "systemControls": [],
        }
    ]


def test_in_awsvpc_the_host_port_is_the_container_port(definitions: TaskDefinitions) -> None:
    given = copy.deepcopy(SMALL) | {"networkMode": "awsvpc"}
    given["containerDefinitions"][0]["portMappings"] = [{"containerPort": 80}]
    (container,) = definitions.register(given)["containerDefinitions"]
    assert container["portMappings"][0]["hostPort"] == 80
    given["containerDefinitions"][0]["portMappings"] = [{"containerPort": 80, "hostPort": 81}]
    with pytest.raises(ServiceException, match="must match"):
        definitions.register(given)


def test_a_family_alone_is_its_newest_active_revision(definitions: TaskDefinitions) -> None:
    for _ in range(3):
        definitions.register(SMALL)
    definitions.deregister("small:3")
    assert definitions.find("small")["revision"] == 2
    assert definitions.find(f"{PREFIX}small:3")["status"] == "INACTIVE"
    assert definitions.arns("small", "ACTIVE", "DESC") == [f"{PREFIX}small:2", f"{PREFIX}small:1"]
    with pytest.raises(ServiceException, match="inactive"):
        definitions.find_active("small:3")


def test_a_number_is_never_given_twice(definitions: TaskDefinitions) -> None:
    definitions.register(SMALL)
    definitions.deregister("small:1")
    assert definitions.register(SMALL)["revision"] == 2


@pytest.mark.parametrize("reference", ["other", "small:2", "small:x", f"{PREFIX}small:9"])
def test_what_is_not_there_is_an_error(definitions: TaskDefinitions, reference: str) -> None:
    definitions.register(SMALL)
    with pytest.raises(ServiceException):
        definitions.find(reference)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "no spaces"}, "Family"),
        ({"containerDefinitions": []}, "empty"),
        ({"containerDefinitions": SMALL["containerDefinitions"] * 2}, "unique"),
        ({"containerDefinitions": [{"name": "a", "image": "a:1"}]}, "memory"),
        ({"containerDefinitions": [{"name": "a", "memory": 16}]}, "image"),
        (
            {"containerDefinitions": [{**SMALL["containerDefinitions"][0], "essential": False}]},
            "essential",
        ),
    ],
)
def test_a_wrong_definition_is_refused(
    definitions: TaskDefinitions, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ServiceException, match=message):
        definitions.register(SMALL | change)
    assert definitions.families("", "ALL") == []
