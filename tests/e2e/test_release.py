"""Three services as one release: all of them, or none."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import end
from tests.e2e.running_services import PORTS, QUICK, RunningServices

BROKEN = "sh -c 'echo no database; exit 3'"


@pytest.fixture(scope="module")
def started_shop(
    tmp_path_factory: pytest.TempPathFactory, networks: tuple[str, str], worker_id: str
) -> Iterator[RunningServices]:
    running = RunningServices(tmp_path_factory.mktemp("sandbox-shop"), networks[1], dict(QUICK))
    running.start()
    yield running
    end(running, f"{worker_id}-shop")


@pytest.fixture
def shop(started_shop: RunningServices) -> Iterator[RunningServices]:
    yield started_shop
    started_shop.wait_until_free()


def push(shop: RunningServices, tag: str, broken: str = "") -> dict[str, str]:
    """A new version of every service, one of them broken if so asked."""
    for service in PORTS:
        shop.push_to(service, tag, **({"command": BROKEN} if service == broken else {}))
    return dict.fromkeys(PORTS, tag)


@pytest.mark.parametrize("order", ["parallel", "in_order"])
def test_all_three_are_released(shop: RunningServices, order: str) -> None:
    images = push(shop, f"good-{order}")
    with shop.all_under_load():
        arn = shop.start_release(images, f"release-{order}", order)
        assert shop.wait_for_release(arn) == ("SUCCEEDED", "")
        assert shop.versions() == images
        shop.wait_until_free()
    for service in PORTS:
        newest = shop.history(service)[0]
        assert newest["outcome"] == "succeeded", newest
        assert json.loads(newest["started_by"])["kind"] == "release"
    counts = [desired for _, desired, _ in shop.state()["services"].values()]
    assert sorted(counts) == [0, 0, 0, 2, 2, 2], "every old colour is gone"


def test_when_the_third_fails_all_three_are_on_their_old_version(shop: RunningServices) -> None:
    before, versions = shop.state(), shop.versions()
    images = push(shop, "third-fails", broken="jobs")
    with shop.all_under_load():
        status, cause = shop.wait_for_release(shop.start_release(images, "release-third"))
        assert status == "FAILED"
        assert "web: rolled back" in cause
        assert "api: rolled back" in cause
        assert "jobs: rolled back" in cause
        assert "no database" in cause, "why it failed"
        assert shop.versions() == versions
    assert shop.state() == before


def test_in_order_none_is_started_after_one_that_failed(shop: RunningServices) -> None:
    before, versions = shop.state(), shop.versions()
    images = push(shop, "second-fails", broken="api")
    with shop.all_under_load():
        arn = shop.start_release(images, "release-second", "in_order")
        status, cause = shop.wait_for_release(arn)
        assert status == "FAILED"
        assert cause.splitlines()[0].startswith("web: rolled back")
        assert "jobs: not started" in cause
        assert shop.versions() == versions
    assert shop.state() == before


def test_what_is_live_already_is_fine_and_what_is_refused_takes_the_others_back(
    shop: RunningServices,
) -> None:
    before, versions = shop.state(), shop.versions()
    shop.push_to("api", "beside-refused")
    images = {**versions, "api": "beside-refused"}
    # No host has so much, which is found out when its deployment is planned.
    too_much = {"jobs": {"memory": "1000000"}}
    with shop.all_under_load():
        arn = shop.start_release(images, "release-refused", overrides=too_much)
        status, cause = shop.wait_for_release(arn)
        assert status == "FAILED"
        assert "web: nothing to do" in cause
        assert "api: rolled back" in cause
        assert "jobs: refused" in cause
        assert shop.versions() == versions
    assert shop.state() == before


def test_a_typo_in_one_tag_is_found_before_a_service_is_touched(shop: RunningServices) -> None:
    before, newest = shop.state(), [shop.history(service)[0] for service in PORTS]
    shop.push_to("api", "beside-typo")
    images = {**shop.versions(), "api": "beside-typo", "jobs": "nowhere"}
    status, cause = shop.wait_for_release(shop.start_release(images, "release-typo"))
    assert status == "FAILED"
    assert "service jobs: images.jobs: repository 'jobs' has no image 'nowhere'" in cause
    assert shop.state() == before
    assert [shop.history(service)[0] for service in PORTS] == newest, "none was started"


def test_23_a_release_that_was_stopped_leaves_all_on_their_old_version(
    shop: RunningServices,
) -> None:
    """web waits for the release, and jobs still bakes."""
    before, versions = shop.state(), shop.versions()
    images = push(shop, "release-stopped")
    with shop.service_configured("jobs", "bake", seconds=120), shop.all_under_load():
        arn = shop.start_release(images, "release-stopped")
        shop.wait_until_held("web")
        shop.stop_execution(arn)
        shop.wait_until_free(120)
        assert shop.versions() == versions
    assert shop.state() == before
    assert {shop.history(service)[0]["outcome"] for service in PORTS} == {"rolled_back"}
