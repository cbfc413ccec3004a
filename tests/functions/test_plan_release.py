"""PlanRelease: the whole is checked before a part of it starts."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.deployment import Deployment, DeployRequest
from bluegreen.errors import AwsUnavailable, InvalidRequest, LockHeld
from bluegreen.release import child_name
from runtime import clients
from tests.functions.account_state import account_state
from tests.functions.world import PREFIX, World, execution_arn


@pytest.fixture
def shop(world: World) -> World:
    """Services web and api, with configurations of their own."""
    text = clients.ssm().get_parameter(Name=f"{PREFIX}/web")["Parameter"]["Value"]
    assert text
    clients.ssm().put_parameter(
        Name=f"{PREFIX}/api", Value=text.replace("service: web", "service: api"), Type="String"
    )
    return world


def plan(world: World, services: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    request = {"action": "release", "services": services, **more}
    return world.run("plan_release", {"request": request}, "spring")


def test_every_service_gets_an_execution_of_its_own(shop: World) -> None:
    before = account_state(shop)
    answer = plan(
        shop,
        [{"service": "web", "images": {"web": "v2"}}, {"service": "api", "images": {"web": "v1"}}],
        order="in_order",
        who="ann",
    )
    assert answer["order"] == "in_order"
    names = [child_name(execution_arn("spring"), service) for service in ("web", "api")]
    assert [one["name"] for one in answer["children"]] == names
    requests = [DeployRequest.model_validate(one["input"]) for one in answer["children"]]
    assert [one.service for one in requests] == ["web", "api"]
    assert {one.release for one in requests} == {execution_arn("spring")}
    assert str(requests[0].started_by) == "release spring (ann)"
    assert [one.images for one in requests] == [
        {"web": f"web@{shop.digests['v2']}"},
        {"web": f"web@{shop.digests['v1']}"},
    ]
    assert account_state(shop) == before


def test_what_was_checked_is_deployed_although_its_tag_moves(shop: World) -> None:
    wanted = shop.digests["v2"]
    # Other than ECR, moto forgets an image without a tag.
    [image] = clients.ecr().batch_get_image(
        repositoryName="web", imageIds=[{"imageDigest": wanted}]
    )["images"]
    clients.ecr().put_image(
        repositoryName="web", imageManifest=image["imageManifest"], imageTag="kept"
    )
    release = shop.start_execution("spring")
    [child] = plan(shop, [{"service": "web", "images": {"web": "v2"}}])["children"]
    shop.push("v2")
    data = {"request": child["input"]}
    deployment = shop.run("plan_deployment", data, child["name"])
    assert deployment["images"]["web"].endswith(f"/web@{wanted}")
    assert deployment["release"] == release


def test_a_repository_is_named_as_its_service_configuration_does(shop: World) -> None:
    """By another of its names the deployment would refuse it."""
    dual_stack = "123456789012.dkr-ecr.eu-west-1.on.aws/web"
    shop.configure(containers=[{"name": "web", "repository": dual_stack}])
    shop.start_execution("spring")
    [child] = plan(shop, [{"service": "web", "images": {"web": "v2"}}])["children"]
    assert child["input"]["images"] == {"web": f"{dual_stack}@{shop.digests['v2']}"}
    shop.run("plan_deployment", {"request": child["input"]}, child["name"])


def test_what_has_no_images_of_its_own_gets_none(shop: World) -> None:
    [child] = plan(shop, [{"service": "web", "like": "d-0"}])["children"]
    assert (child["input"]["images"], child["input"]["like"]) == ({}, "d-0")


def test_all_mistakes_are_named_at_once(shop: World) -> None:
    with pytest.raises(InvalidRequest) as refused:
        plan(
            shop,
            [
                {"service": "web", "images": {"nginx": "v2", "web": "v2typo"}},
                {"service": "jobs", "images": {"jobs": "v2"}},
                {"service": "api", "images": {"web": "v3typo"}},
            ],
        )
    first, second, third, fourth = str(refused.value).splitlines()
    assert first.startswith("service web: images: no container nginx")
    assert second == "service web: images.web: repository 'web' has no image 'v2typo'"
    assert third.startswith("there is no service 'jobs'")
    assert fourth == "service api: images.web: repository 'web' has no image 'v3typo'"


def test_a_throttled_registry_is_no_mistake_of_the_request(shop: World) -> None:
    shop.fault("ecr", "DescribeImages", "throttle")
    with pytest.raises(AwsUnavailable):
        plan(shop, [{"service": "web", "images": {"web": "v2"}}])


def test_a_service_that_is_being_changed_is_named_before_another_one_is(shop: World) -> None:
    shop.plan("d-1")
    before = account_state(shop)
    both = [{"service": one, "images": {"web": "v2"}} for one in ("api", "web")]
    with pytest.raises(LockHeld, match="service web is being deployed by d-1"):
        plan(shop, both)
    with pytest.raises(InvalidRequest) as refused:
        plan(shop, [*both, {"service": "jobs", "like": "d-0"}])
    mistake, busy = str(refused.value).splitlines()
    assert mistake.startswith("there is no service 'jobs'")
    assert busy.startswith("service web is being deployed by d-1")
    assert account_state(shop) == before


def test_an_old_colour_that_is_only_kept_warm_is_in_nobodys_way(shop: World) -> None:
    data = shop.plan("d-1")
    shop.store.keep_warm(Deployment.model_validate(data["deployment"]), shop.now + 600)
    assert plan(shop, [{"service": "web", "images": {"web": "v1"}}])["children"]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"services": []}, "services: List should have at least 1 item"),
        ({"services": [{"service": "web"}]}, "services.0: nothing to deploy"),
        ({"services": [{"service": "Web!", "images": {"web": "v2"}}]}, "services.0.service"),
        ({"order": "random"}, "services: is missing"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    shop: World, request_: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        shop.run("plan_release", {"request": {"action": "release", **request_}}, "spring")
