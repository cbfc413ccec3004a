"""TellPeople: everybody is told, nobody twice, and no channel waits for another one."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from moto.core.models import botocore_stubber

from bluegreen import slack
from bluegreen.announcement import Announcement, EventDetail
from bluegreen.deployment import StartedBy
from runtime import announcements, clients
from runtime.settings import Settings
from sandbox.slack import REFUSALS, SlackFault
from tests.functions.announced import WEBHOOK, Audience, waiting
from tests.functions.world import BLUE, GREEN, START, Account, execution_arn

LOST = ReadTimeoutError(endpoint_url="https://sns.example")
UNREACHABLE = EndpointConnectionError(endpoint_url="https://sns.example")


@pytest.fixture
def audience(
    account: Account,  # noqa: ARG001 - the AWS that all of it is made in
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Audience]:
    made = Audience(monkeypatch).build()
    yield made
    made.close()


def announcement(**more: Any) -> Announcement:
    said: dict[str, Any] = {
        "kind": "failed",
        "deployment_id": "d-1",
        "service": "web",
        "at": START,
        "reason": "green: exit code 1",
        "outcome": "failed",
        "from_color": BLUE,
        "to_color": GREEN,
        "images": {"web": "web@sha256:" + "0123456789abcdef" * 4},
        "started_by": StartedBy(kind="push", detail="v2"),
        "execution_arn": execution_arn("d-1"),
        "slack": "shop",
    }
    return Announcement(**said | more)


def tell(audience: Audience, one: Announcement) -> None:
    settings = Settings(
        table="",
        lease_seconds=0,
        settle_seconds=0,
        parameter_prefix="",
        state_machine_arn="",
        host_documents=None,  # type: ignore[arg-type]
        announcements_queue=audience.queue,
    )
    announcements.tell(settings, one)


def counted(capsys: pytest.CaptureFixture[str], name: str) -> int:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    return int(sum(sum(line[name]) for line in lines if name in line))


def logged(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(str(vars(record)) for record in caplog.records)


def test_everybody_is_told_once(audience: Audience) -> None:
    tell(audience, announcement())
    audience.deliver()
    [event], [mail], [text] = audience.events(), audience.mails(), audience.texts()
    assert (event["source"], event["detail-type"]) == ("ecs-bluegreen", "Deployment Failed")
    assert event["resources"] == [execution_arn("d-1")]
    assert EventDetail.model_validate(event["detail"]).id == "d-1/failed"
    assert "slack" not in event["detail"]
    assert mail["Subject"] == "web: deployment d-1 failed"
    assert "green: exit code 1" in mail["Message"]
    assert {name: one["Value"] for name, one in mail["MessageAttributes"].items()} == {
        "service": "web",
        "kind": "failed",
    }
    assert text.startswith("*web: deployment d-1 failed*\nweb: web@sha256:0123456789ab\n")
    assert waiting(audience.queue) == []


def test_what_has_no_execution_is_told_without_a_link(audience: Audience) -> None:
    tell(
        audience, announcement(kind="superseded", reason="tag v2 is at no image", execution_arn="")
    )
    audience.deliver()
    [event], [mail], [text] = audience.events(), audience.mails(), audience.texts()
    assert event["resources"] == []
    assert EventDetail.model_validate(event["detail"]).link == ""
    assert mail["Message"].splitlines()[-1] == "tag v2 is at no image"
    assert text.splitlines()[-1] == "tag v2 is at no image"


def test_20_the_same_thing_said_again_is_told_once(audience: Audience) -> None:
    """A state that is repeated says it again; after five minutes SQS no longer knows."""
    tell(audience, announcement())
    tell(audience, announcement())
    assert len(waiting(audience.queue)) == 1
    audience.deliver()
    clients.sqs().send_message(
        QueueUrl=audience.queue,
        MessageBody=announcement(at=START + 600).body(),
        MessageGroupId="web",
        MessageDeduplicationId="later",
    )
    audience.deliver(600)
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 1, 1]
    assert waiting(audience.queue) == []


def test_another_end_of_the_same_deployment_is_told(audience: Audience) -> None:
    tell(audience, announcement(kind="succeeded"))
    tell(audience, announcement(kind="rolled_back"))
    audience.deliver()
    assert [mail["Subject"] for mail in audience.mails()] == [
        "web: deployment d-1 succeeded, green is live",
        "web: deployment d-1 was rolled back, blue is live",
    ]


def test_without_a_topic_and_slack_there_is_still_the_event(
    audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOPIC_ARN")
    tell(audience, announcement(slack=None))
    audience.deliver()
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 0, 0]
    assert waiting(audience.queue) == []


@pytest.mark.parametrize("kind", ["outage", "forbidden", "unknown", "archived", "revoked"])
def test_slack_that_refuses_is_tried_again_and_keeps_nobody_waiting(
    audience: Audience, kind: Any
) -> None:
    audience.slack.turn_on(SlackFault(kind))
    tell(audience, announcement())
    tell(audience, announcement(kind="rolled_back"))
    audience.deliver()
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [2, 2, 0]
    audience.slack.turn_off()
    for _ in range(4):
        audience.deliver(60)
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [2, 2, 2]
    assert waiting(audience.queue) == []


def test_what_comes_next_does_not_wait_for_slack(audience: Audience) -> None:
    audience.slack.turn_on(SlackFault("outage"))
    tell(audience, announcement())
    audience.deliver()
    tell(audience, announcement(kind="rolled_back"))
    audience.deliver()
    assert [len(audience.events()), len(audience.mails())] == [2, 2]


def test_two_channels_that_fail_wait_each_for_itself(audience: Audience) -> None:
    audience.slack.turn_on(SlackFault("outage", times=1))
    audience.fails("sns", "Publish", UNREACHABLE, times=99)
    tell(audience, announcement())
    for _ in range(3):
        audience.deliver(60)
    assert len(audience.texts()) == 1
    [left] = waiting(audience.queue)
    assert left.group_id == "web/topic"


def test_a_topic_that_cannot_be_reached_keeps_slack_from_nothing(audience: Audience) -> None:
    audience.fails("sns", "Publish", UNREACHABLE, times=6)
    tell(audience, announcement())
    audience.deliver()
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 0, 1]
    for _ in range(8):
        audience.deliver(200)
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 1, 1]
    assert waiting(audience.queue) == []


def test_slack_says_how_long_to_wait(audience: Audience) -> None:
    audience.slack.turn_on(SlackFault("throttle", times=1, seconds=100))
    tell(audience, announcement())
    audience.deliver()
    audience.deliver(95)
    assert audience.texts() == [], "before the time that Slack has said"
    audience.deliver(10)
    assert len(audience.texts()) == 1
    assert waiting(audience.queue) == []


def test_what_slack_may_have_got_is_not_said_again_but_counted(
    audience: Audience, capsys: pytest.CaptureFixture[str]
) -> None:
    audience.slack.turn_on(SlackFault("lost_answer", times=1))
    tell(audience, announcement())
    for _ in range(4):
        audience.deliver(200)
    assert len(audience.texts()) == 1
    assert counted(capsys, "AnnouncementsUncertain") == 1
    assert waiting(audience.queue) == []


def test_what_the_topic_may_have_got_is_not_said_again_but_counted(
    audience: Audience, capsys: pytest.CaptureFixture[str]
) -> None:
    """No attempt of the SDK's own either: people would have got the same mail three times."""
    tried: list[str] = []
    client = clients.sns()

    def lost(**_: Any) -> None:
        tried.append("sent")
        raise LOST

    client.meta.events.register_first("before-send.sns.Publish", lost)
    try:
        tell(audience, announcement())
        for _ in range(4):
            audience.deliver(200)
    finally:
        client.meta.events.unregister("before-send.sns.Publish", lost)
    assert tried == ["sent"]
    assert counted(capsys, "AnnouncementsUncertain") == 1
    assert waiting(audience.queue) == []


@pytest.mark.parametrize("status", [500, 503])
def test_what_a_failing_topic_may_have_sent_is_not_said_again_but_counted(
    audience: Audience, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    def fails(**_: Any) -> Any:
        body = {"Error": {"Code": "InternalError", "Message": "sorry"}}
        return SimpleNamespace(status_code=status), {
            **body,
            "ResponseMetadata": {"HTTPStatusCode": status},
        }

    client = clients.sns()
    client.meta.events.register_first("before-call.sns.Publish", fails)
    try:
        tell(audience, announcement())
        audience.deliver()
    finally:
        client.meta.events.unregister("before-call.sns.Publish", fails)
    audience.deliver(400)
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 0, 1]
    assert counted(capsys, "AnnouncementsUncertain") == 1
    assert waiting(audience.queue) == []


@pytest.mark.parametrize(
    "answer", [(500, "rollup_error"), (502, "Bad Gateway"), (503, "upstream reset")], ids=str
)
def test_what_a_failing_slack_may_have_posted_is_not_said_again_but_counted(
    audience: Audience,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: tuple[int, str],
) -> None:
    monkeypatch.setitem(cast("dict[str, Any]", REFUSALS), "outage", answer)
    audience.slack.turn_on(SlackFault("outage", times=1))
    tell(audience, announcement())
    for _ in range(3):
        audience.deliver(400)
    assert audience.texts() == []
    assert counted(capsys, "AnnouncementsUncertain") == 1
    assert waiting(audience.queue) == []


def test_a_channel_that_hangs_does_not_cost_the_others_their_turn(audience: Audience) -> None:
    """Lambda would end the function, and the next attempt as well: they are put back before."""

    def hangs(**_: Any) -> None:
        audience.now += 25
        raise LOST

    client = clients.events()
    client.meta.events.register_first("before-send.eventbridge.PutEvents", hangs)
    try:
        tell(audience, announcement())
        [message] = clients.sqs().receive_message(
            QueueUrl=audience.queue, AttributeNames=["All"], MessageAttributeNames=["All"]
        )["Messages"]
        before = audience.now
        assert audience.invoke(message) == {"batchItemFailures": []}
        assert audience.now == before + 25, "it hung once, for no retry of the SDK's"
        clients.sqs().delete_message(
            QueueUrl=audience.queue, ReceiptHandle=message["ReceiptHandle"]
        )
        assert [audience.mails(), audience.texts()] == [[], []]
        groups = {one.group_id for one in waiting(audience.queue)}
        assert groups == {"web/events", "web/topic", "web/slack"}
        audience.deliver(60)
    finally:
        client.meta.events.unregister("before-send.eventbridge.PutEvents", hangs)
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [0, 1, 1]
    audience.deliver(400)
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 1, 1]


def test_a_function_that_dies_while_it_tells_slack_does_not_tell_it_twice(
    audience: Audience, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = slack.post

    def dies(webhook: str, origin: str, one: Announcement) -> None:
        posted(webhook, origin, one)
        raise SystemExit  # as a Lambda whose time is up: nothing of it runs any more

    tell(audience, announcement())
    with monkeypatch.context() as dying:
        dying.setattr(slack, "post", dies)
        with pytest.raises(SystemExit):
            audience.deliver()
    assert audience.mark("d-1/failed", "slack").startswith("claimed")
    audience.deliver(200)
    audience.deliver(200)
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 1, 1]
    assert counted(capsys, "AnnouncementsUncertain") == 1
    assert audience.mark("d-1/failed", "slack") == "told", "or it is counted again"
    assert waiting(audience.queue) == []


def test_a_claim_whose_answer_was_lost_is_found_again(audience: Audience) -> None:
    """The SDK repeats it, and finds what it had written itself."""
    answered: list[str] = []
    client = clients.dynamodb()

    def lost(request: Any, **_: Any) -> None:
        if b"attribute_not_exists" in request.body and not answered:
            answered.append("lost")
            botocore_stubber("before-send", request)
            raise ReadTimeoutError(endpoint_url=request.url)

    client.meta.events.register_first("before-send.dynamodb.UpdateItem", lost)
    try:
        tell(audience, announcement())
        audience.deliver()
    finally:
        client.meta.events.unregister("before-send.dynamodb.UpdateItem", lost)
    assert answered
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 1, 1]


def test_an_event_bus_that_refuses_gets_the_event_later(
    audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = {
        "FailedEntryCount": 1,
        "Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "later"}],
    }

    def refused(**_: Any) -> Any:
        return refusal

    client = clients.events()
    with monkeypatch.context() as refusing:
        refusing.setattr(client, "put_events", refused)
        tell(audience, announcement())
        audience.deliver()
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [0, 1, 1]
    for _ in range(3):
        audience.deliver(60)
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 1, 1]


def test_a_queue_that_cannot_take_it_back_sends_all_of_it_again(audience: Audience) -> None:
    audience.slack.turn_on(SlackFault("outage", times=1))
    tell(audience, announcement())
    [message] = clients.sqs().receive_message(
        QueueUrl=audience.queue, AttributeNames=["All"], MessageAttributeNames=["All"]
    )["Messages"]
    audience.fails("sqs_briefly", "SendMessage", UNREACHABLE, times=3)
    answer = audience.invoke(message)
    assert answer == {"batchItemFailures": [{"itemIdentifier": message["MessageId"]}]}
    audience.deliver(200)
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 1, 1]


@pytest.mark.parametrize(
    "webhook",
    [
        "https://example.com/services/T01/B01/secret-path",
        "{slack}.example.com/services/T01/B01/secret-path",
        "{slack}@example.com/services/T01/B01/secret-path",
        "{slack}/services/../admin/secret-path",
        "{slack}/other/secret-path",
        "file:///services/secret-path",
    ],
)
def test_a_webhook_that_is_none_of_slacks_is_not_called(
    audience: Audience, webhook: str, caplog: pytest.LogCaptureFixture
) -> None:
    audience.store_webhook(webhook.replace("{slack}", audience.slack.url))
    tell(audience, announcement())
    audience.deliver()
    said = logged(caplog)
    assert "the webhook is none of Slack's" in said
    assert "secret-path" not in said
    assert [len(audience.events()), len(audience.mails()), len(audience.texts())] == [1, 1, 0]


def test_the_webhook_is_in_no_log_whatever_fails(
    audience: Audience, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken, monkeypatch.context() as elsewhere:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        elsewhere.setenv("SLACK_URL", closed)
        audience.store_webhook(closed + WEBHOOK)
        tell(audience, announcement())
        audience.deliver()
    audience.store_webhook(audience.slack.url + WEBHOOK)
    audience.slack.turn_on(SlackFault("outage", times=1))
    audience.slack.turn_on(SlackFault("lost_answer", times=1))
    for _ in range(3):
        audience.deliver(100)
    said = logged(caplog)
    assert "Slack cannot be reached (ConnectionError)" in said
    assert "Slack answers 503" in said
    assert "perhaps not told" in said
    assert WEBHOOK not in said
    assert len(audience.texts()) == 1, "a closed port has certainly not got it"


def test_a_webhook_that_is_not_there_is_named(
    audience: Audience, caplog: pytest.LogCaptureFixture
) -> None:
    tell(audience, announcement(slack="typo"))
    audience.deliver()
    assert "there is no webhook: no SSM parameter /bluegreen/slack/typo" in logged(caplog)


def test_what_is_told_is_forgotten_in_the_end(audience: Audience) -> None:
    tell(audience, announcement())
    audience.deliver()
    [item] = clients.dynamodb().scan(TableName="deployments")["Items"]
    assert int(item["expires_at"]["N"]) == int(START) + 40 * 86_400
    assert "service" not in item, "it is no deployment of the history"


def test_a_queue_that_refuses_costs_no_deployment_but_is_counted(
    audience: Audience, capsys: pytest.CaptureFixture[str]
) -> None:
    clients.sqs().delete_queue(QueueUrl=audience.queue)
    tell(audience, announcement())
    assert counted(capsys, "AnnouncementsLost") == 1
    assert audience.paced.slept == [], "it would refuse it again"


def test_a_queue_that_is_down_for_a_moment_gets_it_all_the_same(
    audience: Audience, capsys: pytest.CaptureFixture[str]
) -> None:
    audience.fails("sqs_briefly", "SendMessage", UNREACHABLE, times=7)
    tell(audience, announcement())
    assert len(waiting(audience.queue)) == 1
    assert counted(capsys, "AnnouncementsLost") == 0


def test_24_a_queue_that_is_down_for_long_costs_no_deployment_and_no_more_than_seconds(
    audience: Audience, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    audience.fails("sqs_briefly", "SendMessage", UNREACHABLE, times=999)
    tell(audience, announcement())
    assert counted(capsys, "AnnouncementsLost") == 1
    assert "d-1/failed" in logged(caplog)
    assert sum(audience.paced.slept) == 5


def test_a_queue_that_hangs_is_given_up_at_once(
    audience: Audience, capsys: pytest.CaptureFixture[str]
) -> None:
    """The SDK's three attempts have taken longer than all of it may."""

    def hang(**_: Any) -> None:
        audience.paced.slept.append(3)
        raise LOST

    client = clients.sqs_briefly()
    client.meta.events.register_first("before-send.sqs.SendMessage", hang)
    try:
        tell(audience, announcement())
    finally:
        client.meta.events.unregister("before-send.sqs.SendMessage", hang)
    assert audience.paced.slept == [3, 3, 3]
    assert counted(capsys, "AnnouncementsLost") == 1


@pytest.mark.parametrize("name", ["d-" + "x" * 78, "d 1", "d-\N{SNOWMAN}"])
def test_any_name_of_an_execution_has_an_id_for_sqs(audience: Audience, name: str) -> None:
    one = announcement(deployment_id=name, step="a-hook" * 20, kind="hook_failed")
    tell(audience, one)
    tell(audience, one)
    assert len(waiting(audience.queue)) == 1
