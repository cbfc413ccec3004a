"""PlanRelease: the whole is checked before a part of it starts."""

from __future__ import annotations

from typing import Any

import pytest

from bluegreen.deployment import DeployRequest
from bluegreen.errors import InvalidRequest
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
    assert account_state(shop) == before


def test_all_mistakes_are_named_at_once(shop: World) -> None:
    with pytest.raises(InvalidRequest) as refused:
        plan(
            shop,
            [
                {"service": "web", "images": {"nginx": "v2"}},
                {"service": "jobs", "images": {"jobs": "v2"}},
            ],
        )
    assert "service web: no container nginx" in str(refused.value)
    assert "there is no service 'jobs'" in str(refused.value)


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
