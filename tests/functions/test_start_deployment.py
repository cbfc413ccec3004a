"""StartDeployment: whatever comes, and however often, the newest push is deployed once."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from moto.ecr.models import ecr_backends
from moto.stepfunctions.models import stepfunctions_backends

import start_deployment
from bluegreen import pushes
from bluegreen.announcement import headline
from bluegreen.deployment import StartedBy
from bluegreen.errors import (
    BlueGreenError,
    InvalidConfiguration,
    TrafficChanged,
)
from bluegreen.pushes import Pushes, Wish
from runtime import clients, routers
from tests.functions.announced import announced, queue, waiting
from tests.functions.world import (
    ACCOUNT,
    BLUE,
    CONTEXT,
    DEFINITION,
    GREEN,
    MACHINE,
    PREFIX,
    REGION,
    START,
    TABLE,
    Paced,
    World,
    execution_arn,
)

EVENTS = Path(__file__).parents[2] / "events"
NOTHING: dict[str, Any] = {"started": [], "waiting": [], "superseded": [], "refused": []}


def payload(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return found


class Registry:
    """The world, with what a test of pushes does to it. Every push happens a second later."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = START - 1000

    def push(self, tag: str, at: float | None = None) -> dict[str, Any]:
        """Push another image; the event that ECR sends of it."""
        self.world.push(tag)
        return self.event(tag, at)

    def event(self, tag: str, at: float | None = None, *, dated: bool = True) -> dict[str, Any]:
        self.now = self.now + 1 if at is None else at
        digest = self.world.digests[tag]
        if dated:
            self.date(digest, self.now)
        found = payload("ecr-push")
        found["time"] = datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found["id"] = f"{tag}-{self.now}"
        found["detail"] |= {"image-tag": tag, "image-digest": digest}
        return found

    def date(self, digest: str, at: float) -> None:
        """Say when an image was pushed."""
        for image in ecr_backends[ACCOUNT][REGION].repositories["web"].images:
            if image.image_digest == digest:
                image.image_pushed_at = at

    def retag(self, tag: str, to: str) -> None:
        """Move a tag to the image that has another one."""
        ecr = clients.ecr()
        [image] = ecr.batch_get_image(repositoryName="web", imageIds=[{"imageTag": to}])["images"]
        ecr.put_image(repositoryName="web", imageManifest=image["imageManifest"], imageTag=tag)
        self.world.digests[tag] = self.world.digests[to]

    def end(self, name: str, status: str = "SUCCEEDED", error: str | None = None) -> dict[str, Any]:
        """End an execution; the event that Step Functions sends of it."""
        machine = stepfunctions_backends[ACCOUNT][REGION].describe_state_machine(MACHINE)
        for one in machine.executions:
            if one.name == name:
                one.status, one.error = status, error
                one.stop_date = one.start_date
        found = payload("execution-aborted")
        found["detail"] |= {
            "executionArn": execution_arn(name),
            "stateMachineArn": MACHINE,
            "name": name,
            "status": status,
        }
        return found

    def deploys(self, name: str, service: str = "web") -> None:
        """An execution has come as far as the lock."""
        store = self.world.store
        store.open(name, service, execution_arn(name), "then", self.world.now)
        store.acquire(service, name, execution_arn(name), self.world.now, store.lock(service))

    def comes_to_nothing(self, name: str, outcome: str = "rolled_back") -> dict[str, Any]:
        """And to no good end."""
        store, fencing = self.world.store, self.world.lock.fencing
        store.close(name, outcome, "the bake failed", self.world.now, fencing)
        store.release("web", fencing)
        return self.end(name, "FAILED")

    def done(self, name: str) -> dict[str, Any]:
        """And to its end."""
        self.world.store.close(name, "succeeded", "", self.world.now, self.world.lock.fencing)
        self.world.store.release("web", self.world.lock.fencing)
        return self.end(name)

    @property
    def item(self) -> Pushes:
        return pushes.read(clients.dynamodb(), TABLE, "web")[0]

    def history(self) -> list[tuple[str, str | None]]:
        """Deployments that are kept, the oldest first, with their outcomes."""
        found = self.world.store.history("web", since=0.0, until=2e9, limit=100)
        return [(one.id, one.outcome) for one in reversed(found)]


@pytest.fixture
def registry(world: World) -> Registry:
    world.monkeypatch.setattr("start_deployment.time", SimpleNamespace(time=lambda: world.now))
    world.configure(trigger={"tags": ["v*"]})
    # Names are kept for ten minutes, but every test has a world of its own.
    routers._listener_of.cache_clear()
    return Registry(world)


def handled(event: Any) -> Callable[[], None]:
    """Something that happens: another invocation."""

    def happens() -> None:
        handle(event)

    return happens


def handle(event: Any) -> dict[str, Any]:
    answer = start_deployment.handler(event, CONTEXT)
    json.dumps(answer)
    return answer


def executions() -> list[tuple[str, dict[str, Any]]]:
    """Name and input of every execution, in the order of their numbers."""
    client = clients.stepfunctions()
    found = client.list_executions(stateMachineArn=MACHINE)["executions"]
    named = [
        (one["name"], client.describe_execution(executionArn=one["executionArn"])) for one in found
    ]
    return sorted(
        ((name, json.loads(one["input"])) for name, one in named),
        key=lambda one: int(one[0].rpartition("-")[2]),
    )


def names() -> list[str]:
    return [name for name, _ in executions()]


# A push


def test_16_a_push_starts_a_deployment_by_digest(registry: Registry) -> None:
    event = registry.push("v3")
    [name] = handle(event)["started"]
    assert executions() == [
        (
            name,
            {
                "action": "deploy",
                "service": "web",
                "images": {"web": f"web@{registry.world.digests['v3']}"},
                "started_by": {"kind": "push", "detail": "v3"},
            },
        )
    ]
    assert name == "web-000000000000-1"


def test_what_it_starts_the_workflow_can_plan(registry: Registry) -> None:
    handle(registry.push("v3"))
    [(name, request)] = executions()
    deployment = registry.world.run("plan_deployment", {"request": request}, name)
    assert deployment["images"]["web"].endswith(f"/web@{registry.world.digests['v3']}")
    assert deployment["started_by"] == {"kind": "push", "detail": "v3", "who": ""}


def test_20_the_same_event_three_times_is_one_deployment(registry: Registry) -> None:
    event = registry.push("v3")
    handle(event)
    assert "ignored" in handle(event)
    handle({**event, "id": "another"})
    assert len(names()) == 1


def test_20_it_stays_one_when_it_comes_again_after_its_end(registry: Registry) -> None:
    event = registry.push("v3")
    [name] = handle(event)["started"]
    registry.deploys(name)
    handle(registry.done(name))
    handle(event)
    assert names() == [name]


def test_20_a_multi_architecture_push_is_one_deployment(registry: Registry) -> None:
    event = registry.push("v3")
    platform = copy.deepcopy(event)
    platform["detail"] |= {"image-tag": "", "image-digest": "sha256:" + "a" * 64}
    assert "no tag" in handle(platform)["ignored"]
    handle(event)
    assert len(names()) == 1


@pytest.mark.parametrize(
    "change", [{"image-tag": "test"}, {"repository-name": "shop"}], ids=["tag", "repository"]
)
def test_a_push_that_concerns_no_service_is_ignored(
    registry: Registry, change: dict[str, str]
) -> None:
    event = registry.push("v3")
    event["detail"] |= change
    assert "no service is triggered" in handle(event)["ignored"]
    assert names() == []


def test_a_service_without_a_trigger_is_left_alone(registry: Registry) -> None:
    registry.world.configure(trigger=None)
    assert "ignored" in handle(registry.push("v3"))
    assert "ignored" not in handle(payload("schedule"))
    assert names() == []


def test_16_a_tag_that_has_moved_on_is_left_to_the_newer_push(registry: Registry) -> None:
    first = registry.push("vX")
    registry.retag("kept", "vX")
    second = registry.push("vX")
    assert handle(first)["started"] == []
    assert len(handle(second)["started"]) == 1
    assert [outcome for _, outcome in registry.history()] == ["superseded"]


def test_an_event_of_an_image_that_is_not_there_leads_to_nothing(registry: Registry) -> None:
    assert "is not there" in handle(payload("ecr-push"))["ignored"]
    assert registry.item == Pushes(service="web")


def test_a_tag_that_is_moved_back_is_deployed_again(registry: Registry) -> None:
    first, second = registry.push("v3"), registry.push("v4")
    for event in (first, second):
        [name] = handle(event)["started"]
        registry.deploys(name)
        handle(registry.done(name))
    registry.retag("v5", "v3")
    assert len(handle(registry.event("v5", dated=False))["started"]) == 1
    assert executions()[-1][1]["images"] == {"web": f"web@{registry.world.digests['v3']}"}


def test_one_wrong_configuration_stops_no_other_service(registry: Registry) -> None:
    put = clients.ssm().put_parameter
    put(Name=f"{PREFIX}/broken", Value="service: Broken", Type="String")
    assert len(handle(registry.push("v3"))["started"]) == 1
    with pytest.raises(InvalidConfiguration, match=f"{PREFIX}/broken"):
        handle(payload("schedule"))


# While a deployment runs


def test_22_the_newest_waits_and_those_in_between_are_superseded(registry: Registry) -> None:
    [first] = handle(registry.push("v3"))["started"]
    registry.deploys(first)
    for tag in ("v4", "v5"):
        assert handle(registry.push(tag))["started"] == []
    answer = handle(registry.push("v6"))
    assert answer["waiting"] == ["web-000000000000-4"]
    assert answer["superseded"] == ["web-000000000000-3"]
    assert names() == [first]
    assert handle(registry.done(first))["started"] == ["web-000000000000-4"]
    assert executions()[-1][1]["images"] == {"web": f"web@{registry.world.digests['v6']}"}
    kept = dict(registry.history())
    assert kept["web-000000000000-2"] == kept["web-000000000000-3"] == "superseded"
    record = registry.world.record("web-000000000000-3")
    assert "web-000000000000-4" in (record.reason or "")


def test_20_two_pushes_before_the_first_has_the_lock_do_not_race(registry: Registry) -> None:
    [first] = handle(registry.push("v3"))["started"]
    assert handle(registry.push("v4"))["waiting"] == ["web-000000000000-2"]
    assert handle(registry.end(first, "FAILED", "InvalidRequest"))["started"] == [
        "web-000000000000-2"
    ]


def test_a_deployment_by_hand_is_waited_for_too(registry: Registry) -> None:
    registry.world.start_execution("by-hand")
    registry.deploys("by-hand")
    [waiting] = handle(registry.push("v3"))["waiting"]
    assert handle(registry.done("by-hand"))["started"] == [waiting]


def test_a_warm_old_colour_is_not(registry: Registry) -> None:
    registry.deploys("by-hand")
    clients.dynamodb().update_item(
        TableName=TABLE,
        Key={"pk": {"S": "lock#web"}},
        UpdateExpression="SET warm = :yes",
        ExpressionAttributeValues={":yes": {"BOOL": True}},
    )
    assert len(handle(registry.push("v3"))["started"]) == 1


def test_what_waits_is_started_by_the_schedule_when_no_event_told_of_the_end(
    registry: Registry,
) -> None:
    registry.deploys("by-hand")
    [waiting] = handle(registry.push("v3"))["waiting"]
    registry.world.store.release("web", registry.world.lock.fencing)
    assert handle(payload("schedule"))["started"] == [waiting]


def test_a_recovery_that_ends_frees_the_service_it_was_about(registry: Registry) -> None:
    registry.deploys("by-hand")
    [waiting] = handle(registry.push("v3"))["waiting"]
    registry.world.store.release("web", registry.world.lock.fencing)
    ended = registry.end("recover-1-event-by-hand")
    ended["detail"]["input"] = json.dumps({"action": "recover", "deployment_id": "by-hand"})
    assert handle(ended)["started"] == [waiting]


def test_the_end_of_another_machine_or_of_nothing_known_is_ignored(registry: Registry) -> None:
    ended = registry.end("nobody")
    del ended["detail"]["input"]
    assert "no deployment that is known" in handle(ended)["ignored"]
    ended["detail"]["stateMachineArn"] += "-of-others"
    assert "deploys nothing of ours" in handle(ended)["ignored"]


def test_22_who_found_the_service_busy_waits_again_under_a_new_number(registry: Registry) -> None:
    [first] = handle(registry.push("v3"))["started"]
    registry.deploys("by-hand")
    registry.world.store.open(first, "web", execution_arn(first), "then", START)
    again = handle(registry.end(first, "FAILED", "LockHeld"))
    assert again["waiting"] == ["web-000000000000-2"]
    assert handle(registry.done("by-hand"))["started"] == ["web-000000000000-2"]
    assert executions()[0][1] == executions()[1][1]


def test_22_what_has_failed_is_not_tried_again_by_anybody(registry: Registry) -> None:
    event = registry.push("v3")
    [first] = handle(event)["started"]
    registry.deploys(first)
    registry.world.store.release("web", registry.world.lock.fencing)
    for again in (registry.end(first, "FAILED", "BakeFailed"), event, payload("schedule")):
        handle(again)
    assert names() == [first]


@pytest.mark.parametrize("outcome", ["rolled_back", "failed", "traffic_left"])
def test_22_what_waited_for_the_same_by_hand_does_not_repeat_it_once_that_has_failed(
    registry: Registry, outcome: str
) -> None:
    url = queue(registry.world.monkeypatch)
    event = registry.push("v3")
    registry.world.plan("by-hand", images={"web": "v3"})
    [waits] = handle(event)["waiting"]
    ended = registry.comes_to_nothing("by-hand", outcome)
    assert handle(ended) == NOTHING | {"refused": [waits]}
    for again in (ended, event, payload("schedule")):
        assert handle(again)["refused"] == []
    assert names() == []
    assert dict(registry.history())[waits] == "refused"
    reason = registry.world.record(waits).reason or ""
    assert f"by-hand deployed the same and ended as {outcome}: the bake failed" in reason
    [told] = [one for one in announced(url) if one.deployment_id == waits]
    assert headline(told) == f"web: deployment {waits} was refused, nothing was changed"
    assert told.reason == reason


def test_22_an_event_that_comes_after_the_same_by_hand_has_failed_does_not_repeat_it(
    registry: Registry,
) -> None:
    event = registry.push("v3")
    registry.world.plan("by-hand", images={"web": "v3"})
    handle(registry.comes_to_nothing("by-hand"))
    assert len(handle(event)["refused"]) == 1
    assert names() == []


@pytest.mark.parametrize(
    ("by_hand", "tag"),
    [
        ({"images": {"web": "v3"}}, "v4"),
        ({"images": {"web": "v3"}, "overrides": {"environment": {"web": {"A": "b"}}}}, "v3"),
    ],
    ids=["another image", "another environment"],
)
def test_what_waited_for_something_else_is_started_however_that_has_ended(
    registry: Registry, by_hand: dict[str, Any], tag: str
) -> None:
    events = {one: registry.push(one) for one in ("v3", "v4")}
    registry.world.plan("by-hand", **by_hand)
    [waits] = handle(events[tag])["waiting"]
    assert handle(registry.comes_to_nothing("by-hand"))["started"] == [waits]


def test_what_is_pushed_after_the_same_has_failed_is_asked_for_anew(registry: Registry) -> None:
    world = registry.world
    registry.push("v3")
    world.plan("by-hand", images={"web": "v3"})
    handle(registry.comes_to_nothing("by-hand"))
    world.now += 60
    registry.retag("v5", "v3")
    event = registry.event("v5", at=world.now - 1, dated=False)
    assert len(handle(event)["started"]) == 1


def test_what_waited_for_the_same_that_has_succeeded_is_left_to_the_workflow(
    registry: Registry,
) -> None:
    event = registry.push("v3")
    registry.world.plan("by-hand", images={"web": "v3"})
    [waits] = handle(event)["waiting"]
    assert handle(registry.done("by-hand"))["started"] == [waits]


def test_what_was_superseded_is_told_once_though_the_queue_is_not_there_at_first(
    registry: Registry,
) -> None:
    queue = clients.sqs().create_queue(QueueName="told.fifo", Attributes={"FifoQueue": "true"})[
        "QueueUrl"
    ]
    registry.world.monkeypatch.setenv("ANNOUNCEMENTS_QUEUE_URL", queue)
    registry.deploys("by-hand")
    handle(registry.push("v3"))
    event = registry.push("v4")
    registry.world.monkeypatch.setattr("runtime.announcements.time", Paced())
    registry.world.fault("sqs", "SendMessage", "error500")
    assert handle(event)["superseded"] == ["web-000000000000-1"]
    handle(event)
    [message] = clients.sqs().receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    told = json.loads(message["Body"])
    assert (told["kind"], told["deployment_id"]) == ("superseded", "web-000000000000-1")
    assert "web-000000000000-2" in told["reason"]
    assert told["execution_arn"] == execution_arn("web-000000000000-2"), "its own was never started"
    assert ("web-000000000000-1", "superseded") in registry.history()


def test_what_was_superseded_by_nothing_that_is_known_leads_to_no_execution(
    registry: Registry,
) -> None:
    queue = clients.sqs().create_queue(
        QueueName="told-once.fifo", Attributes={"FifoQueue": "true"}
    )["QueueUrl"]
    registry.world.monkeypatch.setenv("ANNOUNCEMENTS_QUEUE_URL", queue)
    event = registry.push("vX")
    registry.retag("kept", "vX")
    registry.push("vX")
    handle(event)
    [told] = [json.loads(message.body) for message in waiting(queue)]
    assert (told["kind"], told["execution_arn"]) == ("superseded", "")


# Two at once, and crashes in between


def test_20_a_newer_push_that_overtakes_this_one_while_it_looks_wins(registry: Registry) -> None:
    older, newer = registry.push("v3"), registry.push("v4")
    registry.world.meanwhile("ecr", "DescribeImages", handled(newer))
    answer = handle(older)
    assert [one["images"] for _, one in executions()] == [
        {"web": f"web@{registry.world.digests['v4']}"}
    ]
    assert answer["superseded"] == ["web-000000000000-2"]


def test_20_the_same_event_in_two_invocations_at_once_starts_one(registry: Registry) -> None:
    for moment in (
        ("ecr", "DescribeImages"),
        ("dynamodb", "PutItem"),
        ("stepfunctions", "DescribeExecution"),
    ):
        event = registry.push(f"v-{moment[1]}")
        before = len(names())
        registry.world.meanwhile(*moment, handled(event))
        handle(event)
        assert len(names()) == before + 1, moment
        registry.end(names()[-1])


@pytest.mark.parametrize("kind", ["denied", "lost_answer", "error500"])
@pytest.mark.parametrize(
    "where",
    [
        ("dynamodb", "PutItem"),
        ("dynamodb", "GetItem"),
        ("stepfunctions", "StartExecution"),
        ("stepfunctions", "DescribeExecution"),
        ("ecr", "DescribeImages"),
        ("ssm", "GetParametersByPath"),
    ],
    ids=lambda where: where[1],
)
@pytest.mark.parametrize("after", range(4))
def test_20_a_crash_at_any_call_is_made_good_when_the_event_comes_again(
    registry: Registry, where: tuple[str, str], kind: Any, after: int
) -> None:
    event = registry.push("v3")

    def fail() -> None:
        registry.world.fault(*where, kind, 3)

    left = [after]

    def count(**_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            fail()

    if after:
        registry.world._hook("after-call", *where, count)
    else:
        fail()
    with contextlib.suppress(BlueGreenError):
        handle(event)
    registry.world.close()
    handle(event)
    assert names() == ["web-000000000000-1"]
    assert registry.item.started
    assert registry.item.waiting is None


# What no event told


def live(registry: Registry, tag: str) -> None:
    """Blue runs the image of a tag, by digest."""
    world = registry.world
    uri = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/web@{world.digests[tag]}"
    definition = clients.ecs().register_task_definition(
        family="web",
        containerDefinitions=[DEFINITION["containerDefinitions"][0] | {"image": uri}],
    )["taskDefinition"]["taskDefinitionArn"]
    clients.ecs().update_service(cluster="web", service="web-blue", taskDefinition=definition)


def test_a_tag_moved_to_an_older_image_is_deployed_though_no_event_told(
    registry: Registry,
) -> None:
    [first] = handle(registry.push("v3"))["started"]
    registry.deploys(first)
    handle(registry.done(first))
    live(registry, "v3")
    registry.retag("v3", "v1")
    [name] = handle(payload("schedule"))["started"]
    assert executions()[-1][0] == name
    assert executions()[-1][1]["images"] == {"web": f"web@{registry.world.digests['v1']}"}


def test_the_schedule_deploys_a_push_of_which_no_event_told(registry: Registry) -> None:
    live(registry, "v2")
    registry.push("v3")
    [name] = handle(payload("schedule"))["started"]
    assert executions()[0][1]["started_by"] == {"kind": "schedule", "detail": "v3"}
    assert handle(payload("schedule"))["started"] == []
    assert "ignored" in handle(registry.event("v3")), "the event comes after all"
    assert names() == [name]


def registered(registry: Registry, at: float) -> None:
    """Say when the live task definition, which names the tag v1, was registered; moto does not."""

    def hook(parsed: dict[str, Any], **_: Any) -> None:
        parsed["taskDefinition"]["registeredAt"] = datetime.fromtimestamp(at, UTC)

    registry.world._hook("after-call", "ecs", "DescribeTaskDefinition", hook)


def test_16_what_is_live_by_a_tag_is_as_new_as_its_task_definition(registry: Registry) -> None:
    registry.push("v3", at=START - 500)
    registered(registry, START - 400)
    assert handle(payload("schedule")) == NOTHING
    registry.push("v4", at=START - 300)
    assert len(handle(payload("schedule"))["started"]) == 1


def test_22_with_no_time_for_all_the_schedule_begins_with_another_one_each_time(
    registry: Registry,
) -> None:
    """A wish waits for each of three services, and every look has time for one of them."""
    world = registry.world
    begun: list[int] = []
    for number, service in enumerate(("api", "jobs", "web")):
        text = clients.ssm().get_parameter(Name=f"{PREFIX}/web")["Parameter"]["Value"]
        assert text
        clients.ssm().put_parameter(
            Name=f"{PREFIX}/{service}",
            Value=text.replace("service: web", f"service: {service}"),
            Type="String",
            Overwrite=True,
        )
        wish = Wish(
            id=f"{service}-1",
            images={"web": f"web@{world.digests['v2']}"},
            tag="v2",
            kind="push",
            event_id=str(number),
            pushed_at=START,
            asked_at=START,
        )
        waits = Pushes(service=service, number=1, waiting=wish)
        pushes.write(clients.dynamodb(), TABLE, waits, 0)
    for _ in range(3):
        left = iter([60_000, 9_999])
        context = SimpleNamespace(get_remaining_time_in_millis=lambda left=left: next(left))
        with contextlib.suppress(BlueGreenError):  # they have no services of their own
            start_deployment.handler(payload("schedule"), context)
        begun.append(len(set(names())))
        world.now += 300
    assert begun == [1, 2, 3]


def test_the_schedule_leaves_what_is_live_alone(registry: Registry) -> None:
    registry.push("v3")
    live(registry, "v3")
    assert handle(payload("schedule")) == NOTHING


def test_it_deploys_nothing_older_than_what_is_live(registry: Registry) -> None:
    registry.push("v3")
    registry.world.push("other")
    registry.world.digests["live"] = registry.world.digests["other"]
    registry.date(registry.world.digests["other"], START)
    live(registry, "live")
    assert handle(payload("schedule")) == NOTHING


def test_nothing_live_yet_is_deployed(registry: Registry) -> None:
    registry.world.set_weights({BLUE: 0, GREEN: 0})
    registry.push("v3")
    assert len(handle(payload("schedule"))["started"]) == 1


def test_what_was_deployed_by_hand_and_rolled_back_is_not_deployed_again(
    registry: Registry,
) -> None:
    live(registry, "v2")
    registry.push("v3")
    world = registry.world
    world.now = START + 10
    world.plan("by-hand", images={"web": "v3"})
    world.store.close("by-hand", "rolled_back", "", world.now, world.lock.fencing)
    world.store.release("web", world.lock.fencing)
    assert handle(payload("schedule")) == NOTHING


def test_more_images_than_a_page_holds_are_looked_through(registry: Registry) -> None:
    registry.push("v3")
    pages: list[str] = []

    def paged(params: dict[str, Any], **_: Any) -> None:
        pages.append(params.get("nextToken", ""))

    client = clients.ecr()
    client.meta.events.register("provide-client-params.ecr.DescribeImages", paged)
    answers = [{"nextToken": "1"}, {}]

    def with_token(parsed: dict[str, Any], **_: Any) -> None:
        if answers:
            parsed.update(answers.pop(0))

    client.meta.events.register("after-call.ecr.DescribeImages", with_token)
    try:
        assert len(handle(payload("schedule"))["started"]) == 1
    finally:
        client.meta.events.unregister("provide-client-params.ecr.DescribeImages", paged)
        client.meta.events.unregister("after-call.ecr.DescribeImages", with_token)
    assert pages[:2] == ["", "1"]


def test_a_service_that_cannot_be_looked_at_stops_no_other(registry: Registry) -> None:
    """And the invocation fails with its name, after all others."""
    world = registry.world
    world.configure(
        service="shop", trigger={"tags": ["v*"]}, router={"load_balancer": "there-is-none"}
    )
    [shop] = clients.ssm().get_parameters(Names=[f"{PREFIX}/web"])["Parameters"]
    clients.ssm().put_parameter(Name=f"{PREFIX}/shop", Value=shop["Value"], Type="String")
    world.configure(trigger={"tags": ["v*"]})
    registry.push("v3")
    with pytest.raises(BlueGreenError, match=r"service shop: .*there-is-none"):
        handle(payload("schedule"))
    assert [one["service"] for _, one in executions()] == ["web"]


def test_traffic_that_nobody_knows_is_no_reason_to_deploy(registry: Registry) -> None:
    world = registry.world
    other = clients.elbv2().create_target_group(
        Name="other", Protocol="HTTP", Port=80, VpcId=world.account.vpc, TargetType="ip"
    )["TargetGroups"][0]["TargetGroupArn"]
    clients.elbv2().modify_listener(
        ListenerArn=world.listener,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": other}],
    )
    registry.push("v3")
    with pytest.raises(TrafficChanged, match="service web"):
        handle(payload("schedule"))
    assert names() == []


def test_who_started_it_is_kept(registry: Registry) -> None:
    handle(registry.push("v3"))
    [(_, request)] = executions()
    assert StartedBy.model_validate(request["started_by"]) == StartedBy(kind="push", detail="v3")
