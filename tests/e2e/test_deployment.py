"""A deployment that goes well: what is live afterwards, what is left, what was lost (nothing)."""

from __future__ import annotations

from tests.e2e.running import Running

ALL_SUSPENDED = {
    "DynamicScalingInSuspended": True,
    "DynamicScalingOutSuspended": True,
    "ScheduledScalingSuspended": True,
}


def test_the_other_colour_is_live_and_the_old_one_has_ended(sandbox: Running) -> None:
    old = sandbox.live()
    before = sandbox.counts()[old]
    sandbox.push("good")
    with sandbox.under_load():
        ended = sandbox.deploy("good")
    assert ended.succeeded, ended.cause
    new = sandbox.live()
    assert new != old
    assert sandbox.weights() == {new: 100, old: 0}
    assert sandbox.answer()["X-Color"] == new
    assert sandbox.answer()["X-Version"] == "good"
    assert sandbox.counts() == {new: before, old: (0, 0)}
    assert sandbox.weights(8081)[new] == 100
    assert sandbox.record(ended.name)["outcome"] == "succeeded"
    assert "held" not in sandbox.lock()


def test_16_it_is_deployed_by_digest(sandbox: Running) -> None:
    sandbox.push("moving")
    assert sandbox.deploy("moving").succeeded
    ecs = sandbox.client("ecs")
    arn = sandbox.ecs_service(sandbox.live())["taskDefinition"]
    definition = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    image = definition["containerDefinitions"][0]["image"]
    assert "@sha256:" in image
    sandbox.push("moving", command="python -m sandbox.app --fail-percent 100")
    assert definition["containerDefinitions"][0]["image"] == image
    assert sandbox.answer()["X-Version"] == "moving"


def test_nothing_to_do_for_what_is_live(sandbox: Running) -> None:
    sandbox.push("same")
    assert sandbox.deploy("same").succeeded
    before, revisions = sandbox.world(), sandbox.revisions()
    again = sandbox.deploy("same")
    assert again.succeeded
    assert again.states[-1] == "Succeeded"
    assert "Deploy" not in again.states
    assert sandbox.record(again.name)["outcome"] == "nothing_to_do"
    assert (sandbox.world(), sandbox.revisions()) == (before, revisions)


def test_an_override_alone_is_a_deployment(sandbox: Running) -> None:
    request = {
        "action": "deploy",
        "service": "web",
        "overrides": {"environment": {"web": {"GREETING": "hello"}}},
    }
    with sandbox.under_load():
        ended = sandbox.wait(sandbox.start_execution(request))
    assert ended.succeeded, ended.cause
    arn = sandbox.ecs_service(sandbox.live())["taskDefinition"]
    described = sandbox.client("ecs").describe_task_definition(taskDefinition=arn)
    (container,) = described["taskDefinition"]["containerDefinitions"]
    assert {"name": "GREETING", "value": "hello"} in container["environment"]


def test_12_scaling_of_the_idle_colour_does_not_fight(sandbox: Running) -> None:
    before = sandbox.scaling()[sandbox.live()]
    sandbox.push("scaled")
    arn = sandbox.start_execution(sandbox.request("scaled"))
    sandbox.wait_for_state(arn, "CheckHealth")
    idle = "green" if sandbox.live() == "blue" else "blue"
    assert sandbox.scaling()[idle] == ALL_SUSPENDED
    assert sandbox.wait(arn).succeeded
    assert sandbox.scaling() == {sandbox.live(): before, _other(sandbox.live()): ALL_SUSPENDED}


def test_12_the_idle_colour_gets_as_many_tasks_as_the_live_one(sandbox: Running) -> None:
    live = sandbox.live()
    sandbox.client("ecs").update_service(cluster="web", service=f"web-{live}", desiredCount=1)
    _wait_for_count(sandbox, live, 1)
    sandbox.push("one")
    assert sandbox.deploy("one").succeeded
    assert sandbox.counts()[sandbox.live()] == (1, 1)
    sandbox.client("ecs").update_service(
        cluster="web", service=f"web-{sandbox.live()}", desiredCount=2
    )
    _wait_for_count(sandbox, sandbox.live(), 2)


def test_01_propagation_lag_of_20_seconds_loses_nothing(sandbox: Running) -> None:
    sandbox.push("lagging")
    with (
        sandbox.configured({"probe.timeout_seconds": 60}),
        sandbox.faults("propagation_lag", seconds=20),
        sandbox.under_load(),
    ):
        ended = sandbox.deploy("lagging")
    assert ended.succeeded, ended.cause
    assert sandbox.answer()["X-Version"] == "lagging"


def test_13_what_an_earlier_run_left_on_the_idle_colour_is_not_trusted(sandbox: Running) -> None:
    idle = _other(sandbox.live())
    leftover = sandbox.ecs_service(idle)["taskDefinition"]
    sandbox.client("ecs").update_service(cluster="web", service=f"web-{idle}", desiredCount=2)
    _wait_for_count(sandbox, idle, 2)
    sandbox.push("fresh")
    with sandbox.under_load():
        ended = sandbox.deploy("fresh")
    assert ended.succeeded, ended.cause
    assert sandbox.live() == idle
    assert sandbox.ecs_service(idle)["taskDefinition"] != leftover
    assert sandbox.answer()["X-Version"] == "fresh"


def _other(color: str) -> str:
    return "green" if color == "blue" else "blue"


def _wait_for_count(sandbox: Running, color: str, count: int) -> None:
    sandbox.client("ecs").get_waiter("services_stable").wait(
        cluster="web", services=[f"web-{color}"], WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    assert sandbox.counts()[color] == (count, count)
