"""Event source mappings of SQS queues do what Lambda's pollers do, with AWS's habits.

A function of the stack writes what it is given into a table and answers as the message says:
``fail`` raises, ``sleep`` takes so long, ``answer`` is what it returns; ``until`` limits all that
to the first so many times the message is received.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.small_stack import SmallStack

VISIBILITY_SECONDS = 2
HANDLER = """
import json, os, time
import boto3

table = boto3.client("dynamodb")

def handler(event, context):
    records = event["Records"]
    began = time.time()
    failed, ids = [], []
    for record in records:
        body = json.loads(record["body"])
        count = record["attributes"]["ApproximateReceiveCount"]
        first = int(count) <= body.get("until", 9)
        ids.append({"S": record["messageId"] + count})
        table.put_item(TableName=os.environ["TABLE"], Item={
            "id": ids[-1],
            "record": {"S": json.dumps(record)},
            "size": {"N": str(len(records))},
            "began": {"N": str(began)},
        })
        if first:
            time.sleep(body.get("sleep", 0))
        if first and "fail" in body:
            failed.append(record["messageId"])
    ended = time.time()
    for one in ids:
        table.update_item(TableName=os.environ["TABLE"], Key={"id": one},
            UpdateExpression="SET ended = :e", ExpressionAttributeValues={":e": {"N": str(ended)}})
    if first and "answer" in body:
        return body["answer"]
    if failed and os.environ.get("REPORTS"):
        return {"batchItemFailures": [{"itemIdentifier": one} for one in failed]}
    if failed:
        raise ValueError("as the message wants")
"""
ASYNC = """
import json, os, time
import boto3

def handler(event, context):
    time.sleep(0.5)
    boto3.client("sqs").send_message(
        QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps({"tag": "later"}))
"""


def function(name: str, queue: str, mapping: str, environment: str = "") -> str:
    return f"""
  {name}Function:
    Type: AWS::Serverless::Function
    Properties:
      Handler: handler.handler
      Role: !GetAtt Role.Arn
      Timeout: 2
      Environment: {{Variables: {{TABLE: !Ref Table{environment}}}}}
      Events:
        Messages: {{Type: SQS, Properties: {{Queue: !GetAtt {queue}.Arn, {mapping}}}}}
"""


REPORTS = "FunctionResponseTypes: [ReportBatchItemFailures]"
TEMPLATE = f"""
Transform: AWS::Serverless-2016-10-31
Globals:
  Function: {{Runtime: python3.13, CodeUri: functions/}}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          - {{Effect: Allow, Principal: {{Service: lambda.amazonaws.com}}, Action: sts:AssumeRole}}
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: seen
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{{AttributeName: id, AttributeType: S}}]
      KeySchema: [{{AttributeName: id, KeyType: HASH}}]
  DeadEnd: {{Type: AWS::SQS::Queue, Properties: {{QueueName: dead-end}}}}
  Plain:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: plain
      VisibilityTimeout: {VISIBILITY_SECONDS}
      RedrivePolicy: {{deadLetterTargetArn: !GetAtt DeadEnd.Arn, maxReceiveCount: 2}}
      Tags: [{{Key: for, Value: tests}}]
  Reporting:
    Type: AWS::SQS::Queue
    Properties: {{QueueName: reporting, VisibilityTimeout: {VISIBILITY_SECONDS}}}
  Ordered:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: ordered.fifo
      FifoQueue: true
      VisibilityTimeout: {VISIBILITY_SECONDS}
  ByContent:
    Type: AWS::SQS::Queue
    Properties: {{FifoQueue: true, ContentBasedDeduplication: true}}
  LaterFunction:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: later
      Handler: later.handler
      Role: !GetAtt Role.Arn
      Environment: {{Variables: {{QUEUE: !Ref Plain}}}}
{function("Plain", "Plain", "BatchSize: 1, ScalingConfig: {MaximumConcurrency: 2}")}
{function("Reporting", "Reporting", REPORTS, ", REPORTS: 1")}
{function("Ordered", "Ordered", "BatchSize: 1")}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallStack]:
    stack = SmallStack(tmp_path_factory.mktemp("queues"))
    try:
        stack.start(TEMPLATE, {"handler": HANDLER, "later": ASYNC})
        yield stack
    finally:
        stack.stop()


class Queue:
    """One queue of the stack, as senders and readers of the table see it."""

    def __init__(self, stack: SmallStack, name: str) -> None:
        self.stack = stack
        self.sqs = stack.client("sqs")
        self.url = self.sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def send(self, body: dict[str, Any] | None = None, **more: Any) -> str:
        body = {"tag": uuid.uuid4().hex, **(body or {})}
        answer = self.sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps(body), **more)
        return str(answer["MessageId"])

    def send_in_group(self, group: str, body: dict[str, Any] | None = None) -> str:
        return self.send(body, MessageGroupId=group, MessageDeduplicationId=uuid.uuid4().hex)

    def seen(self, *ids: str) -> list[dict[str, Any]]:
        """What the function was given of these messages, the first first."""
        items = self.stack.client("dynamodb").scan(TableName="seen")["Items"]
        rows = [
            {
                **json.loads(item["record"]["S"]),
                "size": int(item["size"]["N"]),
                "began": float(item["began"]["N"]),
                "ended": float(item.get("ended", {"N": "0"})["N"]),
            }
            for item in items
        ]
        found = [row for row in rows if row["messageId"] in ids]
        return sorted(found, key=lambda row: float(row["began"]))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is handled meanwhile."""
        client = self.stack.client("lambda")
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        (mapping,) = client.list_event_source_mappings(
            EventSourceArn=attributes["Attributes"]["QueueArn"]
        )["EventSourceMappings"]
        client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        try:
            yield
        finally:
            client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)

    def counts(self) -> tuple[int, int, int]:
        """Messages visible, in flight, delayed."""
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        names = ("", "NotVisible", "Delayed")
        found = [int(answer["Attributes"][f"ApproximateNumberOfMessages{n}"]) for n in names]
        return found[0], found[1], found[2]


@pytest.fixture
def plain(stack: SmallStack) -> Queue:
    return Queue(stack, "plain")


@pytest.fixture
def reporting(stack: SmallStack) -> Queue:
    return Queue(stack, "reporting")


@pytest.fixture
def ordered(stack: SmallStack) -> Queue:
    return Queue(stack, "ordered.fifo")


def hidden_seconds(rows: list[dict[str, Any]]) -> float:
    """From the first time a message was received to the second time it was handled."""
    _, second = rows
    received = int(second["attributes"]["ApproximateFirstReceiveTimestamp"]) / 1000
    return float(second["began"] - received)


def times(rows: list[dict[str, Any]]) -> list[float]:
    return [row["began"] for row in rows]


def test_a_function_gets_the_message_and_what_succeeded_is_deleted(
    stack: SmallStack, plain: Queue
) -> None:
    attributes = {"colour": {"DataType": "String", "StringValue": "blue"}}
    sent = plain.send({"x": 1}, MessageAttributes=attributes)

    assert stack.settle()["settled"] is True

    (record,) = plain.seen(sent)
    assert json.loads(record["body"])["x"] == 1
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"] == "arn:aws:sqs:ap-northeast-1:123456789012:plain"
    assert record["messageAttributes"]["colour"]["stringValue"] == "blue"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert plain.counts() == (0, 0, 0)


def test_a_failed_message_comes_back_after_the_visibility_timeout_and_not_before(
    stack: SmallStack, plain: Queue
) -> None:
    sent = plain.send({"fail": True, "until": 1})
    time.sleep(0.5)
    assert plain.counts()[1] == 1, "hidden, though the function has failed"

    assert stack.settle()["settled"] is True

    assert VISIBILITY_SECONDS <= hidden_seconds(plain.seen(sent)) < VISIBILITY_SECONDS + 1


def test_what_fails_too_often_ends_in_the_dead_letter_queue(
    stack: SmallStack, plain: Queue
) -> None:
    sent = plain.send({"fail": True})

    assert stack.settle()["settled"] is True

    dead = Queue(stack, "dead-end")
    (message,) = dead.sqs.receive_message(QueueUrl=dead.url)["Messages"]
    dead.sqs.delete_message(QueueUrl=dead.url, ReceiptHandle=message["ReceiptHandle"])
    assert message["MessageId"] == sent
    assert len(plain.seen(sent)) == 2, "maxReceiveCount"


def test_a_delayed_message_comes_when_it_is_due(stack: SmallStack, plain: Queue) -> None:
    began = time.time()
    sent = plain.send(DelaySeconds=1)

    assert stack.control("POST", "settle", {"seconds": 0})["settled"] is False
    assert stack.settle()["settled"] is True

    (row,) = plain.seen(sent)
    assert 1 <= row["began"] - began < 2


def test_no_more_run_at_a_time_than_the_mapping_says(stack: SmallStack, plain: Queue) -> None:
    sent = [plain.send({"sleep": 0.6}) for _ in range(4)]
    time.sleep(0.3)
    assert plain.counts()[:2] == (2, 2), "two are handled, two wait and are not hidden"

    assert stack.settle()["settled"] is True

    rows = plain.seen(*sent)
    assert len(rows) == 4
    for row in rows:
        at_a_time = [o for o in rows if o["began"] <= row["began"] < o["ended"]]
        assert len(at_a_time) <= 2
    assert any(a["began"] < b["began"] < a["ended"] for a in rows for b in rows), "never two"


def test_only_what_the_answer_names_comes_back(stack: SmallStack, reporting: Queue) -> None:
    with reporting.paused():
        good = reporting.send()
        bad = reporting.send({"fail": True, "until": 1})

    assert stack.settle()["settled"] is True

    (row,) = reporting.seen(good)
    assert row["size"] == 2, "one batch"
    assert hidden_seconds(reporting.seen(bad)) >= VISIBILITY_SECONDS


@pytest.mark.parametrize(
    ("answer", "comes_back"),
    [
        (None, False),
        ({}, False),
        ({"batchItemFailures": []}, False),
        ({"batchItemFailures": None}, False),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, True),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, True),
        ({"batchItemFailures": [{"messageId": "x"}]}, True),
        ({"batchItemFailures": [{"itemIdentifier": "of another batch"}]}, True),
        ("no object", True),
    ],
)
def test_what_an_answer_means(
    stack: SmallStack, reporting: Queue, answer: Any, comes_back: bool
) -> None:
    sent = reporting.send({"answer": answer, "until": 1})

    assert stack.settle()["settled"] is True

    assert len(reporting.seen(sent)) == (2 if comes_back else 1)


def test_without_reporting_every_answer_is_a_success(stack: SmallStack, plain: Queue) -> None:
    sent = plain.send({"answer": {"batchItemFailures": [{"itemIdentifier": ""}]}})

    assert stack.settle()["settled"] is True

    assert len(plain.seen(sent)) == 1


def test_a_group_is_handled_in_order_one_at_a_time_and_others_beside_it(
    stack: SmallStack, ordered: Queue
) -> None:
    first = ordered.send_in_group("a", {"sleep": 0.8})
    second = ordered.send_in_group("a")
    other = ordered.send_in_group("b")

    assert stack.settle()["settled"] is True

    (one,), (two,), (beside,) = (ordered.seen(sent) for sent in (first, second, other))
    assert two["began"] >= one["ended"]
    assert beside["began"] < one["ended"]
    assert one["attributes"]["MessageGroupId"] == "a"
    assert one["attributes"]["SequenceNumber"] < two["attributes"]["SequenceNumber"]


def test_a_failure_holds_up_its_group(stack: SmallStack, ordered: Queue) -> None:
    first = ordered.send_in_group("held", {"fail": True, "until": 1})
    second = ordered.send_in_group("held")

    assert stack.settle()["settled"] is True

    (_, again), (after,) = times(ordered.seen(first)), times(ordered.seen(second))
    assert after >= again


def test_a_fifo_queue_drops_what_it_has_had_also_when_that_is_handled(
    stack: SmallStack, ordered: Queue
) -> None:
    how = {"MessageGroupId": "c", "MessageDeduplicationId": uuid.uuid4().hex}
    first = ordered.send({"n": 1}, **how)
    assert stack.settle()["settled"] is True
    again = ordered.send({"n": 2}, **{**how, "MessageGroupId": "d"})
    assert stack.settle()["settled"] is True

    assert again == first
    assert len(ordered.seen(first)) == 1


def test_content_counts_where_the_queue_says_so(stack: SmallStack) -> None:
    queue = Queue(stack, "small-ByContent.fifo")
    for _ in range(2):
        queue.send({"tag": "the same"}, MessageGroupId="a")
    queue.send(MessageGroupId="a")

    assert queue.counts() == (2, 0, 0)


def test_settling_waits_for_events_and_what_they_send(stack: SmallStack) -> None:
    began = time.time()
    stack.client("lambda").invoke(FunctionName="later", InvocationType="Event")

    assert stack.settle()["settled"] is True

    scanned = stack.client("dynamodb").scan(TableName="seen")["Items"]
    late = [one for one in scanned if '"later' in json.loads(one["record"]["S"])["body"]]
    assert [float(one["began"]["N"]) > began for one in late] == [True]


def test_settling_gives_up_and_says_what_is_left(stack: SmallStack, plain: Queue) -> None:
    plain.send({"sleep": 1})
    time.sleep(0.2)

    answer = stack.settle(0.1)

    assert answer["settled"] is False
    assert answer["queues"]["plain"] == {"visible": 0, "delayed": 0, "in_flight": 1}
    assert stack.settle()["settled"] is True


def test_a_mapping_that_is_off_leaves_its_queue_alone(stack: SmallStack, plain: Queue) -> None:
    with plain.paused():
        sent = plain.send()
        time.sleep(0.5)
        assert plain.counts() == (1, 0, 0)

    assert stack.settle()["settled"] is True
    assert len(plain.seen(sent)) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"EventSourceArn": "Short"}, "is less than Function timeout: 2 seconds"),
        ({"BatchSize": 11, "EventSourceArn": "Long.fifo"}, "batch size"),
        ({"ScalingConfig": {"MaximumConcurrency": 1001}}, "maximumConcurrency"),
        ({"MaximumBatchingWindowInSeconds": 5}, "does not simulate"),
    ],
)
def test_mappings_that_aws_or_the_sandbox_refuses(
    stack: SmallStack, given: dict[str, Any], message: str
) -> None:
    sqs = stack.client("sqs")
    sqs.create_queue(QueueName="Short", Attributes={"VisibilityTimeout": "1"})
    sqs.create_queue(QueueName="Long", Attributes={"VisibilityTimeout": "60"})
    sqs.create_queue(
        QueueName="Long.fifo", Attributes={"VisibilityTimeout": "60", "FifoQueue": "true"}
    )
    queue = given.get("EventSourceArn", "Long")
    arn = f"arn:aws:sqs:ap-northeast-1:123456789012:{queue}"

    with pytest.raises(ClientError, match=message):
        stack.client("lambda").create_event_source_mapping(
            FunctionName="small-PlainFunction", **{**given, "EventSourceArn": arn}
        )


def test_what_the_poller_does_is_in_the_operation_log_under_the_function(
    stack: SmallStack, plain: Queue
) -> None:
    plain.send()
    assert stack.settle()["settled"] is True

    called = {
        f"{call['service']}:{call['operation']}"
        for call in stack.control("GET", "operations")
        if call["function"] == "PlainFunction"
    }
    assert {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"} <= called
