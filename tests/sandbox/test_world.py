"""What any client can do around a deployment: pushes, scans, alarms, metrics, events, topics.

The clients know nothing of the sandbox. One stack of a test's own, with what the template of the
project has of each kind.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.balancers import wait_until
from tests.sandbox.small_stack import SmallStack

HANDLER = """
import json, os
import boto3

def handler(event, context):
    boto3.client("dynamodb").put_item(
        TableName=os.environ["TABLE"],
        Item={"id": {"S": event["detail"]["tag"]}, "event": {"S": json.dumps(event)}},
    )
"""
TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Resources:
  Seen:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: seen
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions:
        - {AttributeName: id, AttributeType: S}
        - {AttributeName: service, AttributeType: S}
        - {AttributeName: at, AttributeType: N}
        - {AttributeName: day, AttributeType: S}
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      GlobalSecondaryIndexes:
        - IndexName: by_service
          KeySchema:
            - {AttributeName: service, KeyType: HASH}
            - {AttributeName: at, KeyType: RANGE}
          Projection: {ProjectionType: ALL}
        - IndexName: by_day
          KeySchema:
            - {AttributeName: day, KeyType: HASH}
            - {AttributeName: at, KeyType: RANGE}
          Projection: {ProjectionType: INCLUDE, NonKeyAttributes: [outcome]}
      TimeToLiveSpecification: {AttributeName: expires_at, Enabled: true}
  Repository:
    Type: AWS::ECR::Repository
    Properties: {RepositoryName: web}
  Told:
    Type: AWS::SNS::Topic
    Properties:
      TopicName: told
      Subscription: [{Protocol: sqs, Endpoint: !GetAtt Inbox.Arn}]
  ToldPolicy:
    Type: AWS::SNS::TopicPolicy
    Properties:
      Topics: [!Ref Told]
      PolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Principal: {Service: events.amazonaws.com}
            Action: sns:Publish
            Resource: !Ref Told
  Inbox:
    Type: AWS::SQS::Queue
    Properties: {QueueName: inbox}
  Board:
    Type: AWS::CloudWatch::Dashboard
    Properties: {DashboardName: board, DashboardBody: !Sub '{"widgets": [], "start": "-PT3H"}'}
  Failures:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmName: failures
      Namespace: AWS/SQS
      MetricName: ApproximateNumberOfMessagesVisible
      Statistic: Maximum
      Period: 60
      EvaluationPeriods: 1
      ComparisonOperator: GreaterThanThreshold
      Threshold: 0
  Anything:
    Type: AWS::CloudWatch::CompositeAlarm
    Properties: {AlarmName: anything, AlarmRule: ALARM("failures")}
  Handler:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/
      Runtime: python3.13
      Handler: handler.handler
      Timeout: 20
      Environment: {Variables: {TABLE: !Ref Seen}}
      Events:
        Ours:
          Type: EventBridgeRule
          Properties:
            Pattern: {source: [ecs-bluegreen], detail: {service: [{exists: true}]}}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallStack]:
    started = SmallStack(tmp_path_factory.mktemp("world"))
    try:
        started.start(TEMPLATE, {"handler": HANDLER})
        yield started
    finally:
        started.stop()


def name() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


# ------------------------------------------------------------------------------------------ ECR


@pytest.fixture
def repository(stack: SmallStack) -> str:
    made = name()
    stack.client("ecr").create_repository(repositoryName=made)
    return made


def push(stack: SmallStack, image: str, **more: Any) -> str:
    return str(stack.control("POST", "push", {"image": image, **more})["digest"])


def test_images_come_in_pages_with_the_time_of_their_push(
    stack: SmallStack, repository: str
) -> None:
    began = int(time.time())
    pushed = {push(stack, f"{repository}:v{number}") for number in range(5)}
    ecr = stack.client("ecr")
    pages = list(
        ecr.get_paginator("describe_images").paginate(
            repositoryName=repository, PaginationConfig={"PageSize": 2}
        )
    )
    assert [len(page["imageDetails"]) for page in pages] == [2, 2, 1]
    details = [one for page in pages for one in page["imageDetails"]]
    assert {one["imageDigest"] for one in details} == pushed
    assert all(began <= one["imagePushedAt"].timestamp() <= time.time() for one in details)
    listed = ecr.get_paginator("list_images").paginate(
        repositoryName=repository, PaginationConfig={"PageSize": 3}
    )
    assert sorted(one["imageTag"] for page in listed for one in page["imageIds"]) == [
        f"v{number}" for number in range(5)
    ]


def test_a_tag_that_moves_leaves_an_image_without_tags(stack: SmallStack, repository: str) -> None:
    old = push(stack, f"{repository}:live", command="serve old")
    new = push(stack, f"{repository}:live", command="serve new")
    assert push(stack, f"{repository}:live", command="serve new") == new
    ecr = stack.client("ecr")

    def digests(status: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ecr.describe_images(
            repositoryName=repository, filter={"tagStatus": status}
        )["imageDetails"]
        return found

    assert [one["imageDigest"] for one in digests("TAGGED")] == [new]
    [untagged] = digests("UNTAGGED")
    assert untagged["imageDigest"] == old
    assert "imageTags" not in untagged
    assert len(digests("ANY")) == 2
    [by_tag] = ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": "live"}])[
        "imageDetails"
    ]
    assert by_tag["imageDigest"] == new
    with pytest.raises(ClientError, match="ImageNotFoundException"):
        ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": "no"}])
    with pytest.raises(ClientError, match="InvalidParameterException"):
        ecr.describe_images(
            repositoryName=repository, imageIds=[{"imageTag": "live"}], maxResults=1
        )


def test_the_index_of_a_multi_architecture_image_names_its_manifests(
    stack: SmallStack, repository: str
) -> None:
    index = push(stack, f"{repository}:v1", platforms=2)
    ecr = stack.client("ecr")
    [image] = ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": "v1"}])[
        "images"
    ]
    assert image["imageId"] == {"imageDigest": index, "imageTag": "v1"}
    assert image["imageManifestMediaType"] == "application/vnd.oci.image.index.v1+json"
    manifests = json.loads(image["imageManifest"])["manifests"]
    assert len({one["digest"] for one in manifests}) == 2
    for one in manifests:
        ids = [{"imageDigest": one["digest"]}]
        [found] = ecr.describe_images(repositoryName=repository, imageIds=ids)["imageDetails"]
        assert found["imageManifestMediaType"] == one["mediaType"]


def findings(stack: SmallStack, repository: str, digest: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = stack.client("ecr").describe_image_scan_findings(
        repositoryName=repository, imageId={"imageDigest": digest}, **more
    )
    return answer


def test_an_image_that_nobody_scans_has_no_scan(stack: SmallStack, repository: str) -> None:
    digest = push(stack, f"{repository}:v1")
    with pytest.raises(ClientError, match="ScanNotFoundException"):
        findings(stack, repository, digest)
    stack.client("ecr").start_image_scan(repositoryName=repository, imageId={"imageDigest": digest})
    answer = findings(stack, repository, digest)
    assert answer["imageScanStatus"]["status"] == "COMPLETE"
    assert answer["imageScanFindings"]["findingSeverityCounts"] == {}


def test_a_scan_finds_what_the_push_said(stack: SmallStack, repository: str) -> None:
    digest = push(stack, f"{repository}:v1", findings="CRITICAL=1,HIGH=3")
    answer = findings(stack, repository, digest)
    assert answer["imageScanStatus"]["status"] == "COMPLETE"
    assert answer["imageScanFindings"]["findingSeverityCounts"] == {"CRITICAL": 1, "HIGH": 3}
    assert [one["severity"] for one in answer["imageScanFindings"]["findings"]] == [
        "CRITICAL",
        *["HIGH"] * 3,
    ]
    first = findings(stack, repository, digest, maxResults=3)
    second = findings(stack, repository, digest, maxResults=3, nextToken=first["nextToken"])
    sizes = [len(one["imageScanFindings"]["findings"]) for one in (first, second)]
    assert (sizes, "nextToken" in second) == ([3, 1], False)


def test_a_scan_that_takes_a_while_has_no_findings_yet(stack: SmallStack, repository: str) -> None:
    digest = push(stack, f"{repository}:v1", findings="LOW=1", seconds=1)
    answer = findings(stack, repository, digest)
    assert answer["imageScanStatus"]["status"] == "IN_PROGRESS"
    assert "imageScanFindings" not in answer
    wait_until(lambda: "imageScanFindings" in findings(stack, repository, digest))


@pytest.mark.parametrize(
    ("scan", "has_findings"), [("FAILED", False), ("ACTIVE", True), ("UNSUPPORTED_IMAGE", False)]
)
def test_how_else_a_scan_ends(
    stack: SmallStack, repository: str, scan: str, *, has_findings: bool
) -> None:
    digest = push(stack, f"{repository}:v1", scan=scan, findings="HIGH=1")
    answer = findings(stack, repository, digest)
    assert answer["imageScanStatus"]["status"] == scan
    assert ("imageScanFindings" in answer) == has_findings


def test_of_a_multi_architecture_image_the_manifests_are_scanned(
    stack: SmallStack, repository: str
) -> None:
    index = push(stack, f"{repository}:v1", platforms=2, findings="HIGH=1")
    with pytest.raises(ClientError, match="ScanNotFoundException"):
        findings(stack, repository, index)
    images = stack.client("ecr").describe_images(repositoryName=repository)["imageDetails"]
    for one in images:
        if one["imageDigest"] != index:
            assert findings(stack, repository, one["imageDigest"])["imageScanFindings"]


# ----------------------------------------------------------------------------------- CloudWatch


def put_alarm(cloudwatch: Any, alarm: str, threshold: float = 0) -> None:
    cloudwatch.put_metric_alarm(
        AlarmName=alarm,
        Namespace="Test",
        MetricName="Errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        ComparisonOperator="GreaterThanThreshold",
        Threshold=threshold,
    )


def test_an_alarm_has_a_state_and_the_time_of_its_last_change(stack: SmallStack) -> None:
    cloudwatch, alarm = stack.client("cloudwatch"), name()

    def described() -> dict[str, Any]:
        [found] = cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
        return dict(found)

    put_alarm(cloudwatch, alarm)
    first = described()
    assert first["StateValue"] == "INSUFFICIENT_DATA"
    cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="5 errors")
    changed = described()
    assert (changed["StateValue"], changed["StateReason"]) == ("ALARM", "5 errors")
    assert changed["StateTransitionedTimestamp"] > first["StateTransitionedTimestamp"]
    cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="6 errors")
    again = described()
    assert again["StateTransitionedTimestamp"] == changed["StateTransitionedTimestamp"]
    assert again["StateUpdatedTimestamp"] > changed["StateUpdatedTimestamp"]
    put_alarm(cloudwatch, alarm, threshold=5)
    kept = described()
    assert (kept["StateValue"], kept["StateReason"], kept["Threshold"]) == ("ALARM", "6 errors", 5)
    assert kept["StateTransitionedTimestamp"] == changed["StateTransitionedTimestamp"]


def test_composite_alarms_are_shown_only_when_asked_for(stack: SmallStack) -> None:
    cloudwatch = stack.client("cloudwatch")
    names = [name(), name()]
    put_alarm(cloudwatch, names[0])
    cloudwatch.put_composite_alarm(AlarmName=names[1], AlarmRule=f'ALARM("{names[0]}")')
    only_metric = cloudwatch.describe_alarms(AlarmNames=names)
    assert [one["AlarmName"] for one in only_metric["MetricAlarms"]] == names[:1]
    assert only_metric["CompositeAlarms"] == []
    both = cloudwatch.describe_alarms(
        AlarmNames=names, AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    [composite] = both["CompositeAlarms"]
    assert composite["AlarmRule"] == f'ALARM("{names[0]}")'
    assert composite["StateValue"] == "INSUFFICIENT_DATA"
    cloudwatch.set_alarm_state(AlarmName=names[1], StateValue="ALARM", StateReason="both")
    [composite] = cloudwatch.describe_alarms(AlarmNames=names, AlarmTypes=["CompositeAlarm"])[
        "CompositeAlarms"
    ]
    assert composite["StateValue"] == "ALARM"
    assert composite["StateTransitionedTimestamp"] == composite["StateUpdatedTimestamp"]
    with pytest.raises(ClientError, match="another type"):
        cloudwatch.put_composite_alarm(AlarmName=names[0], AlarmRule="TRUE")


def test_alarms_come_in_pages(stack: SmallStack) -> None:
    cloudwatch, prefix = stack.client("cloudwatch"), name()
    names = [f"{prefix}-{number:02}" for number in range(7)]
    for alarm in names:
        put_alarm(cloudwatch, alarm)
    pages = list(
        cloudwatch.get_paginator("describe_alarms").paginate(
            AlarmNamePrefix=prefix, PaginationConfig={"PageSize": 3}
        )
    )
    assert [len(page["MetricAlarms"]) for page in pages] == [3, 3, 1]
    assert [one["AlarmName"] for page in pages for one in page["MetricAlarms"]] == names
    assert cloudwatch.describe_alarms(AlarmNames=["none"])["MetricAlarms"] == []


def test_a_metric_is_exactly_its_dimensions_and_a_period_adds_up(stack: SmallStack) -> None:
    cloudwatch, namespace = stack.client("cloudwatch"), name()
    minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=5)
    both = [{"Name": "LoadBalancer", "Value": "a"}, {"Name": "TargetGroup", "Value": "z"}]

    def put(value: float, at: datetime, dimensions: list[dict[str, str]]) -> None:
        datum = {"MetricName": "N", "Value": value, "Timestamp": at, "Dimensions": dimensions}
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=[datum])

    put(1, minute, both)
    put(2, minute + timedelta(seconds=59), list(reversed(both)))
    put(4, minute + timedelta(seconds=60), both)
    put(100, minute, both[:1])
    put(1000, minute, [])

    def read(dimensions: list[dict[str, str]], stat: str = "Sum", **more: Any) -> dict[str, Any]:
        metric = {"Namespace": namespace, "MetricName": "N", "Dimensions": dimensions}
        [result] = cloudwatch.get_metric_data(
            MetricDataQueries=[
                {"Id": "n", "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}}
            ],
            **{"StartTime": minute + timedelta(seconds=20), "EndTime": datetime.now(UTC), **more},
        )["MetricDataResults"]
        return dict(result)

    listed = cloudwatch.list_metrics(Namespace=namespace)["Metrics"]
    assert sorted(len(one["Dimensions"]) for one in listed) == [0, 1, 2]
    assert read(both)["Values"] == [4, 3]
    assert read(list(reversed(both)), ScanBy="TimestampAscending")["Values"] == [3, 4]
    assert read(both)["Timestamps"] == [minute + timedelta(minutes=1), minute]
    assert read(both, "Average")["Values"] == [4, 1.5]
    assert read(both[:1])["Values"] == [100]
    assert read([])["Values"] == [1000]
    assert read(both[1:])["Values"] == []
    assert read(both)["StatusCode"] == "Complete"
    assert read(both, EndTime=minute + timedelta(minutes=1))["Values"] == [3]
    with pytest.raises(ClientError, match="ValidationError"):
        read(both, EndTime=minute - timedelta(minutes=1))


# ---------------------------------------------------------------------- EventBridge, SNS and SQS


def put_events(stack: SmallStack, source: str, **detail: Any) -> None:
    answer = stack.client("events").put_events(
        Entries=[{"Source": source, "DetailType": "Deployment", "Detail": json.dumps(detail)}]
    )
    assert answer["FailedEntryCount"] == 0


class Inbox:
    """A queue that others send to."""

    def __init__(self, stack: SmallStack, **attributes: str) -> None:
        self.sqs = stack.client("sqs")
        made = name() + (".fifo" if "FifoQueue" in attributes else "")
        self.url = self.sqs.create_queue(QueueName=made, Attributes=attributes)["QueueUrl"]
        self.arn = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])[
            "Attributes"
        ]["QueueArn"]

    def bodies(self) -> list[Any]:
        """What is there after something must be there."""
        answer = self.sqs.receive_message(
            QueueUrl=self.url, WaitTimeSeconds=5, MaxNumberOfMessages=10
        )
        return [json.loads(one["Body"]) for one in answer.get("Messages", [])]


def put_rule(stack: SmallStack, pattern: dict[str, Any], **target: Any) -> None:
    events, rule = stack.client("events"), name()
    events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
    answer = events.put_targets(Rule=rule, Targets=[{"Id": "1", **target}])
    assert answer["FailedEntryCount"] == 0


def test_an_event_of_our_own_reaches_the_rules_of_the_template(stack: SmallStack) -> None:
    tag = name()
    put_events(stack, "ecs-bluegreen", service="web", tag=tag)
    stack.settle()
    item = stack.client("dynamodb").get_item(TableName="seen", Key={"id": {"S": tag}})["Item"]
    event = json.loads(item["event"]["S"])
    assert (event["source"], event["detail"]["service"]) == ("ecs-bluegreen", "web")
    assert event["account"] == "123456789012"


def test_a_rule_of_any_client_sends_to_a_queue(stack: SmallStack) -> None:
    inbox, source = Inbox(stack), name()
    put_rule(stack, {"source": [source], "detail": {"kind": ["failed"]}}, Arn=inbox.arn)
    put_events(stack, source, kind="started")
    put_events(stack, source, kind="failed")
    [event] = inbox.bodies()
    assert event["detail"] == {"kind": "failed"}


def test_a_push_reaches_a_rule_of_any_client(stack: SmallStack, repository: str) -> None:
    inbox = Inbox(stack)
    pattern = {"source": ["aws.ecr"], "detail": {"repository-name": [repository]}}
    put_rule(stack, pattern, Arn=inbox.arn)
    digest = push(stack, f"{repository}:v1", times=2)
    first, second = inbox.bodies()
    assert first == second
    assert first["detail"]["image-digest"] == digest


def test_a_rule_of_any_client_calls_a_function(stack: SmallStack) -> None:
    [function] = stack.client("lambda").list_functions()["Functions"]
    source, tag = name(), name()
    put_rule(stack, {"source": [source]}, Arn=function["FunctionArn"])
    put_events(stack, source, tag=tag)
    stack.settle()
    item = stack.client("dynamodb").get_item(TableName="seen", Key={"id": {"S": tag}})["Item"]
    assert json.loads(item["event"]["S"])["source"] == source


def test_a_rule_sends_to_a_message_group_of_a_fifo_queue(stack: SmallStack) -> None:
    inbox, source = Inbox(stack, FifoQueue="true", ContentBasedDeduplication="true"), name()
    put_rule(
        stack, {"source": [source]}, Arn=inbox.arn, SqsParameters={"MessageGroupId": "deployments"}
    )
    put_events(stack, source, kind="started")
    answer = inbox.sqs.receive_message(
        QueueUrl=inbox.url, WaitTimeSeconds=5, MessageSystemAttributeNames=["MessageGroupId"]
    )
    assert answer["Messages"][0]["Attributes"]["MessageGroupId"] == "deployments"


def test_a_rule_sends_to_a_topic_and_that_to_a_queue(stack: SmallStack) -> None:
    inbox, source, sns = Inbox(stack), name(), stack.client("sns")
    topic = sns.create_topic(Name=name())["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=inbox.arn)
    put_rule(stack, {"source": [source]}, Arn=topic)
    put_events(stack, source, kind="started")
    [notification] = inbox.bodies()
    assert notification["Type"] == "Notification"
    assert notification["TopicArn"] == topic
    assert json.loads(notification["Message"])["detail"] == {"kind": "started"}


def test_a_target_that_the_sandbox_does_not_have_is_refused(stack: SmallStack) -> None:
    arn = "arn:aws:logs:ap-northeast-1:123456789012:log-group:/aws/events/x"
    with pytest.raises(ClientError, match="Lambda, SQS, SNS, Step Functions"):
        put_rule(stack, {"source": ["x"]}, Arn=arn)


# ------------------------------------------------------------------------------------ the stack


def test_a_topic_of_the_template_reaches_its_queue_and_has_its_policy(stack: SmallStack) -> None:
    sns = stack.client("sns")
    topic = next(one for one in sns.list_topics()["Topics"] if one["TopicArn"].endswith(":told"))
    policy = sns.get_topic_attributes(**topic)["Attributes"]["Policy"]
    assert json.loads(policy)["Statement"][0]["Principal"] == {"Service": "events.amazonaws.com"}
    sns.publish(**topic, Message="web: started", Subject="web")
    sqs = stack.client("sqs")
    url = sqs.get_queue_url(QueueName="inbox")["QueueUrl"]
    [message] = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert json.loads(message["Body"])["Message"] == "web: started"


def test_the_dashboard_and_the_alarms_of_the_template_are_there(stack: SmallStack) -> None:
    cloudwatch = stack.client("cloudwatch")
    board = cloudwatch.get_dashboard(DashboardName="board")
    assert json.loads(board["DashboardBody"]) == {"widgets": [], "start": "-PT3H"}
    found = cloudwatch.describe_alarms(
        AlarmNames=["failures", "anything"], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    assert [one["AlarmName"] for one in found["MetricAlarms"]] == ["failures"]
    assert [one["AlarmRule"] for one in found["CompositeAlarms"]] == ['ALARM("failures")']


def test_the_table_expires_items_and_has_both_indexes(stack: SmallStack) -> None:
    dynamodb = stack.client("dynamodb")
    expiry = dynamodb.describe_time_to_live(TableName="seen")["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    service, day = name(), name()
    for at in (2, 1, 3):
        item = {"id": {"S": name()}, "service": {"S": service}, "at": {"N": str(at)}}
        dynamodb.put_item(
            TableName="seen",
            Item={**item, "day": {"S": day}, "outcome": {"S": "x"}, "other": {"S": "y"}},
        )

    def query(index: str, key: str, value: str) -> list[dict[str, Any]]:
        answer: dict[str, Any] = dynamodb.query(
            TableName="seen",
            IndexName=index,
            KeyConditionExpression="#key = :value AND #at BETWEEN :from AND :to",
            ExpressionAttributeNames={"#key": key, "#at": "at"},
            ExpressionAttributeValues={
                ":value": {"S": value},
                ":from": {"N": "1"},
                ":to": {"N": "2"},
            },
            ScanIndexForward=False,
        )
        found: list[dict[str, Any]] = answer["Items"]
        return found

    assert [one["at"]["N"] for one in query("by_service", "service", service)] == ["2", "1"]
    [newest, _] = query("by_day", "day", day)
    assert newest["outcome"] == {"S": "x"}
    assert "other" not in newest
