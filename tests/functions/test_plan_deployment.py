"""PlanDeployment: everything is checked and noted, nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.deployment import Deployment
from bluegreen.errors import (
    AwsUnavailable,
    DeploymentRefused,
    InvalidConfiguration,
    InvalidRequest,
    LockHeld,
)
from runtime import clients
from tests.functions.world import ACCOUNT, BLUE, GREEN, REGION, START, World

URI = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/web"


def test_the_plan_says_what_moves_from_what(world: World) -> None:
    plan = world.plan()["deployment"]
    assert (plan["decision"], plan["from_color"], plan["to_color"]) == ("deploy", "blue", "green")
    assert plan["id"] == "d-1"
    assert plan["started_at"] == START
    assert plan["snapshot"]["traffic"] == {"blue": 100, "green": 0}
    assert plan["snapshot"]["test_traffic"] == {"blue": 0, "green": 100}
    blue, green = (plan["snapshot"]["services"][color] for color in ("blue", "green"))
    assert (blue["desired_count"], blue["running_count"]) == (2, 2)
    assert (green["desired_count"], green["running_count"]) == (0, 0)
    assert blue["task_definition"].endswith("task-definition/web:1")
    assert world.record().deployment
    assert (world.lock.deployment_id, world.lock.changed_by) == ("d-1", "d-1")


def test_the_roles_alternate(world: World) -> None:
    world.set_weights({BLUE: 0, GREEN: 100})
    world.scale(GREEN, 1)
    plan = world.plan()["deployment"]
    assert (plan["from_color"], plan["to_color"]) == ("green", "blue")


def test_nothing_is_changed_by_a_plan(world: World) -> None:
    def everything() -> list[Any]:
        services = [world.service(color) for color in (BLUE, GREEN)]
        return [
            world.actions(),
            world.actions(world.test_listener),
            world.revisions(),
            *[(one["desiredCount"], one["taskDefinition"]) for one in services],
        ]

    before = everything()
    world.plan()
    assert everything() == before


def test_16_a_tag_is_resolved_to_its_digest_once(world: World) -> None:
    wanted = f"{URI}@{world.digests['v2']}"
    data = world.plan()
    assert data["deployment"]["images"] == {"web": wanted}
    world.push("v2")
    revision = world.run("register_task_definition", data)["arn"]
    found = clients.ecs().describe_task_definition(taskDefinition=revision)["taskDefinition"]
    assert found["containerDefinitions"][0]["image"] == wanted


@pytest.mark.parametrize("form", ["tag", "digest", "name:tag", "full", "full@digest"])
def test_every_form_of_an_image_becomes_the_same_reference(world: World, form: str) -> None:
    digest = world.digests["v2"]
    asked = {
        "tag": "v2",
        "digest": digest,
        "name:tag": "web:v2",
        "full": f"{URI}:v2",
        "full@digest": f"{URI}@{digest}",
    }[form]
    assert world.plan(images={"web": asked})["deployment"]["images"] == {"web": f"{URI}@{digest}"}


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        ({"service": "shop"}, InvalidConfiguration, "there is no service 'shop': SSM parameter"),
        ({"service": "Shop!"}, InvalidRequest, "service: String should match pattern"),
        ({"images": {}}, InvalidRequest, "nothing to deploy"),
        ({"images": {"web": "v9"}}, InvalidRequest, "repository 'web' has no image 'v9'"),
        (
            {"images": {"web": "sha256:" + "9" * 64}},
            InvalidRequest,
            "repository 'web' has no image 'sha256:999",
        ),
        ({"images": {"nginx": "v2"}}, InvalidRequest, r"no container nginx .*\(it has web\)"),
        ({"image": "v2"}, InvalidRequest, "image: is not a known key"),
        ({"overrides": {"environment": {"nginx": {"A": "1"}}}}, DeploymentRefused, "no container"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    world: World, request_: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        world.plan(**request_)


def test_a_request_that_is_wrong_takes_no_lock(world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.plan(images={"web": "v9"})
    assert world.store.lock("web") is None


def test_a_repository_that_does_not_exist_is_named(world: World) -> None:
    world.configure(containers=[{"name": "web", "repository": "gone"}])
    with pytest.raises(InvalidRequest, match="there is no ECR repository 'gone'"):
        world.plan()


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"router": {"load_balancer": "shop"}}, "there is no load balancer 'shop'"),
        ({"router": {"port": 9999}}, "no listener on port 9999, only on 8080, 8081"),
        ({"router": {"test_port": 9998}}, "no listener on port 9998, only on 8080, 8081"),
        ({"router": {"rule_priority": 7}}, "no rule with priority 7, only default"),
    ],
)
def test_what_the_router_names_has_to_be_there(
    world: World, sections: dict[str, Any], says: str
) -> None:
    world.configure(**sections)
    with pytest.raises(DeploymentRefused, match=says):
        world.plan()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cluster": "shop"}, "there is no ECS cluster 'shop'"),
        ({"ecs_service": "gone"}, "there is no active ECS service 'gone' on cluster 'web'"),
        ({"target_group": "gone"}, "there is no target group 'gone'"),
    ],
)
def test_what_a_colour_names_has_to_be_there(
    world: World, change: dict[str, str], says: str
) -> None:
    slot = {
        "cluster": "web",
        "ecs_service": "web-green",
        "target_group": "web-green",
        "host_port": {"container": "web", "container_port": 8000, "host_port": 18082},
    }
    world.configure(colors={"green": slot | change})
    with pytest.raises(DeploymentRefused, match=says):
        world.plan()


def test_a_service_that_was_deleted_is_no_service(world: World) -> None:
    clients.ecs().delete_service(cluster="web", service="web-green", force=True)
    with pytest.raises(DeploymentRefused, match="no active ECS service 'web-green'"):
        world.plan()


def test_04_a_target_group_on_no_listener_is_refused(world: World) -> None:
    world.configure(router={"test_port": None})
    world.set_weights({BLUE: 1})
    with pytest.raises(DeploymentRefused, match="target group of green is on no listener"):
        world.plan()


def test_04_a_target_group_on_the_test_listener_only_is_enough(world: World) -> None:
    world.set_weights({BLUE: 1})
    assert world.plan()["deployment"]["snapshot"]["traffic"] == {"blue": 1}


def test_split_traffic_is_refused(world: World) -> None:
    world.set_weights({BLUE: 90, GREEN: 10})
    with pytest.raises(DeploymentRefused, match="split between the colours"):
        world.plan()


def test_a_drain_that_would_wait_for_sticky_users_for_days_is_refused(world: World) -> None:
    sticky = {"TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 90_000}}
    actions: Any = [world.forward({BLUE: 100, GREEN: 0}, **sticky)]
    clients.elbv2().modify_listener(ListenerArn=world.listener, DefaultActions=actions)
    with pytest.raises(DeploymentRefused, match="keeps users on a colour for 90000 s"):
        world.plan()


def test_10_the_same_host_port_for_both_colours_is_refused(world: World) -> None:
    port = {"container": "web", "container_port": 8000, "host_port": 18081}
    slot = {"cluster": "web", "ecs_service": "web-green", "target_group": "web-green"}
    world.configure(colors={"green": slot | {"host_port": port}})
    with pytest.raises(InvalidConfiguration, match="two different host ports, both have 18081"):
        world.plan()


def test_11_an_idle_colour_that_does_not_fit_is_refused_before_any_change(world: World) -> None:
    world.scale(BLUE, 4)
    with pytest.raises(DeploymentRefused, match="4 tasks wanted, room for 3 on 3 container"):
        world.plan()
    assert world.record().deployment is None
    assert world.store.lock("web") is None


def test_11_fargate_brings_its_own_capacity(world: World) -> None:
    world.backend.services["web:web-green"].launch_type = "FARGATE"
    world.scale(BLUE, 4)
    assert world.plan()["deployment"]["decision"] == "deploy"


def test_the_very_first_deployment_goes_to_blue(world: World) -> None:
    world.set_weights({BLUE: 0, GREEN: 0})
    world.scale(BLUE, 0)
    plan = world.plan()["deployment"]
    assert (plan["from_color"], plan["to_color"], plan["decision"]) == (None, "blue", "deploy")


def test_what_is_live_already_is_nothing_to_do(world: World) -> None:
    world.shifted()
    world.store.release("web", world.lock.fencing)
    plan = world.plan("d-2")["deployment"]
    assert plan["decision"] == "nothing_to_do"
    assert world.record("d-2").deployment is None, "there is nothing to undo"
    assert world.lock.changed_by == "d-1"


def test_what_is_live_already_is_deployed_again_with_other_settings(world: World) -> None:
    world.shifted()
    world.store.release("web", world.lock.fencing)
    overrides = {"environment": {"web": {"LOG": "debug"}}}
    assert world.plan("d-2", overrides=overrides)["deployment"]["decision"] == "deploy"


@pytest.mark.parametrize(
    ("configured", "decision"),
    [
        ({"COLOR": "{color}"}, "nothing_to_do"),
        ({"COLOR": "{color}", "RELEASE": "{deployment_id}"}, "nothing_to_do"),
        ({"COLOR": "{color}", "LOG": "debug"}, "deploy"),
        ({"COLOR": "red"}, "deploy"),
    ],
    ids=str,
)
def test_what_is_live_already_is_deployed_again_when_the_configuration_sets_another_variable(
    world: World, configured: dict[str, str], decision: str
) -> None:
    """A variable with a placeholder has another value at every deployment: that is no change."""
    world.shifted()
    world.store.release("web", world.lock.fencing)
    world.configure(containers=[{"name": "web", "repository": "web", "environment": configured}])
    assert world.plan("d-2")["deployment"]["decision"] == decision


def test_a_variable_that_is_live_as_configured_is_nothing_to_do(world: World) -> None:
    environment = {"COLOR": "{color}", "LOG": "debug"}
    world.configure(containers=[{"name": "web", "repository": "web", "environment": environment}])
    world.shifted()
    world.store.release("web", world.lock.fencing)
    assert world.plan("d-2")["deployment"]["decision"] == "nothing_to_do"


def test_the_plan_names_the_deployment_before(world: World) -> None:
    assert world.plan("d-1")["deployment"]["follows"] is None
    world.store.release("web", world.lock.fencing)
    assert world.plan("d-2")["deployment"]["follows"] == "d-1"


def test_an_idle_colour_that_was_kept_warm_is_not_what_a_rollback_comes_back_to(
    world: World,
) -> None:
    """It was kept for a rollback of the deployment before, which this one makes impossible."""
    first = world.baked("d-1")
    assert world.service(BLUE)["desiredCount"] == 2
    world.store.keep_warm(Deployment.model_validate(first["deployment"]), world.now + 3600)
    services = world.plan("d-2", images={"web": "v1"})["deployment"]["snapshot"]["services"]
    assert services["blue"]["desired_count"] == 0
    assert services["green"]["desired_count"] == 2


def test_an_idle_colour_that_somebody_runs_is_what_a_rollback_comes_back_to(world: World) -> None:
    world.scale(GREEN, 1)
    services = world.plan()["deployment"]["snapshot"]["services"]
    assert services["green"]["desired_count"] == 1


def test_a_load_balancer_that_is_none_for_http_is_refused(world: World) -> None:
    clients.elbv2().create_load_balancer(Name="fast", Type="network", Subnets=world.account.subnets)
    world.configure(router={"load_balancer": "fast"})
    with pytest.raises(DeploymentRefused, match="'fast' is of type network, but the router alb"):
        world.plan()


def test_the_record_of_an_earlier_execution_of_the_same_name_is_not_taken_for_this_one(
    world: World,
) -> None:
    world.store.open("d-1", "web", "arn:then", "90 days ago", START)
    world.store.close("d-1", "succeeded", "live", START, 7)
    world.plan("d-1")
    assert (world.record().outcome, world.record().phase) == (None, "deploying")


def test_20_a_second_start_is_refused_and_names_the_first(world: World) -> None:
    world.plan("d-1")
    with pytest.raises(LockHeld, match="being deployed by d-1"):
        world.plan("d-2")
    assert (world.lock.deployment_id, world.lock.fencing) == ("d-1", 1)


def test_a_retry_of_the_same_execution_makes_the_same_plan(world: World) -> None:
    first = world.plan()["deployment"]
    world.now += 10
    second = world.plan()["deployment"]
    same = {"fencing": 1, "started_at": START, "follows": first["follows"]}
    assert second | same == first
    assert second["fencing"] == 2, "what the first attempt may still do is fenced off"
    assert world.record().deployment
    assert (world.lock.fencing, world.lock.held) == (2, True)


@pytest.mark.parametrize(
    ("service", "operation"),
    [("dynamodb", "UpdateItem"), ("dynamodb", "PutItem"), ("ssm", "GetParameter")],
)
def test_a_lost_answer_changes_nothing(world: World, service: str, operation: str) -> None:
    world.fault(service, operation, "lost_answer")
    assert world.plan()["deployment"]["decision"] == "deploy"
    assert world.lock.changed_by == "d-1"


def test_an_aws_that_stays_away_is_said_to_be_away(world: World) -> None:
    world.fault("elbv2", "DescribeListeners", "throttle")
    with pytest.raises(AwsUnavailable):
        world.plan()
