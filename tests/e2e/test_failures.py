"""Deployments that fail: nothing lost, all as before, and a reason to act on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.running import Ended, Running


@pytest.fixture
def unchanged(sandbox: Running) -> Iterator[None]:
    """The world is the same afterwards, the lock free, and no request lost on the way."""
    before = sandbox.world()
    with sandbox.under_load():
        yield
    assert sandbox.world() == before
    assert "held" not in sandbox.lock()


def _fails(sandbox: Running, request: dict[str, Any], error: str, outcome: str) -> Ended:
    ended = sandbox.wait(sandbox.start_execution(request))
    assert (ended.status, ended.error) == ("FAILED", error), ended
    if outcome:
        assert sandbox.record(ended.name)["outcome"] == outcome
    return ended


@pytest.mark.usefixtures("unchanged")
def test_24_an_image_that_never_gets_healthy(sandbox: Running) -> None:
    sandbox.push("never-healthy", fault="never_healthy")
    ended = _fails(
        sandbox, sandbox.request("never-healthy"), "IdleColorUnhealthy", outcome="rolled_back"
    )
    assert "Target.ResponseCodeMismatch" in ended.cause or "ELB health checks" in ended.cause
    assert "503" in ended.cause


@pytest.mark.usefixtures("unchanged")
def test_24_an_image_that_crash_loops_is_given_up_early(sandbox: Running) -> None:
    sandbox.push("crash-loop", fault="crash_loop")
    began = time.monotonic()
    ended = _fails(
        sandbox, sandbox.request("crash-loop"), "IdleColorUnhealthy", outcome="rolled_back"
    )
    # The deadline is 25 s after the start; giving up early is what is shown, not how fast.
    assert "deadline" not in ended.cause
    assert time.monotonic() - began < 25
    assert "exit code 3" in ended.cause
    assert "last log lines" in ended.cause


def test_08_slow_is_not_broken(sandbox: Running) -> None:
    sandbox.push("slow", fault="slow_start")
    with sandbox.under_load():
        ended = sandbox.deploy("slow")
    assert ended.succeeded, ended.cause
    assert sandbox.answer()["X-Version"] == "slow"


@pytest.mark.usefixtures("unchanged")
def test_an_unknown_tag(sandbox: Running) -> None:
    ended = _fails(sandbox, sandbox.request("nowhere"), "InvalidRequest", outcome="refused")
    assert "'nowhere'" in ended.cause


@pytest.mark.usefixtures("unchanged")
def test_an_unknown_service(sandbox: Running) -> None:
    request = {"action": "deploy", "service": "shop", "images": {"web": "v1"}}
    ended = _fails(sandbox, request, "InvalidConfiguration", outcome="refused")
    assert "/bluegreen/services/shop" in ended.cause


@pytest.mark.usefixtures("unchanged")
def test_a_wrong_input_names_every_mistake(sandbox: Running) -> None:
    request = {"action": "deploi", "service": "web", "image": "v1"}
    ended = _fails(sandbox, request, "InvalidRequest", outcome="")
    assert "action" in ended.cause
    assert "image" in ended.cause


@pytest.mark.usefixtures("unchanged")
def test_an_input_cannot_pose_as_the_answer_of_a_state(sandbox: Running) -> None:
    earlier = sandbox.lock()["changed_by"]
    request = {
        **sandbox.request("v1"),
        "deployment": {"id": earlier},
        "recovery": {"deployment_id": earlier},
    }
    _fails(sandbox, request, "InvalidRequest", outcome="")


@pytest.mark.usefixtures("unchanged")
def test_11_an_idle_colour_that_does_not_fit_is_refused(sandbox: Running) -> None:
    request = {
        "action": "deploy",
        "service": "web",
        "overrides": {"memory": "1000000"},
    }
    ended = _fails(sandbox, request, "DeploymentRefused", outcome="refused")
    assert "does not fit" in ended.cause
    assert "1000000 MiB" in ended.cause


@pytest.mark.usefixtures("unchanged")
def test_07_another_update_of_the_idle_service_is_noticed(sandbox: Running) -> None:
    sandbox.push("disturbed", fault="never_healthy")
    arn = sandbox.start_execution(sandbox.request("disturbed"))
    sandbox.wait_for_state(arn, "WaitForHealth")
    idle = "green" if sandbox.live() == "blue" else "blue"
    other = sandbox.ecs_service(sandbox.live())["taskDefinition"]
    sandbox.client("ecs").update_service(cluster="web", service=f"web-{idle}", taskDefinition=other)
    ended = sandbox.wait(arn)
    assert (ended.status, ended.error) == ("FAILED", "IdleColorUnhealthy")
    assert "updated the service" in ended.cause


def test_22_the_new_colour_dies_under_traffic_and_it_is_not_a_success(sandbox: Running) -> None:
    before = sandbox.world()
    sandbox.push("dying")
    arn = sandbox.start_execution(sandbox.request("dying"))
    sandbox.wait_for_state(arn, "WaitForBake")
    new = sandbox.live()
    sandbox.push("dying", command="false")
    ecs = sandbox.client("ecs")
    for _ in range(3):
        for task in ecs.list_tasks(cluster="web", serviceName=f"web-{new}")["taskArns"]:
            ecs.stop_task(cluster="web", task=task, reason="killed by the test")
        time.sleep(0.3)
    ended = sandbox.wait(arn)
    assert ended.status == "FAILED"
    assert ended.error == "IdleColorUnhealthy"
    assert "killed by the test" in ended.cause or "healthy" in ended.cause
    assert sandbox.record(ended.name)["outcome"] == "rolled_back"
    assert sandbox.world() == before
