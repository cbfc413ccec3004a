"""Rules, schedules, queues, topics, alarms and dashboards."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sandbox.events import check_target, next_run
from sandbox.resources.api import Creator, Maker, Properties, UnknownResourceError
from sandbox.stack import Created

QUEUE_ATTRIBUTES = {
    *("ContentBasedDeduplication", "DeduplicationScope", "DelaySeconds", "FifoQueue"),
    *("FifoThroughputLimit", "KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId"),
    *("MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds"),
    *("RedriveAllowPolicy", "RedrivePolicy", "SqsManagedSseEnabled", "VisibilityTimeout"),
}


def _rule(make: Maker, logical_id: str, properties: Properties) -> Created:
    targets = properties.pop("Targets", [])
    for target in targets:
        check_target(target["Arn"])
    if "ScheduleExpression" in properties:
        next_run(properties["ScheduleExpression"], datetime.now(UTC))
    if "EventPattern" in properties:
        properties["EventPattern"] = json.dumps(properties["EventPattern"])
    name = properties.pop("Name", make.name(logical_id))
    answer = make.call("events", "PutRule", properties, Name=name)
    make.call("events", "PutTargets", {"Rule": name, "Targets": targets})
    return Created(name, {"Arn": answer["RuleArn"]})


def _schedule(make: Maker, logical_id: str, properties: Properties) -> Created:
    check_target(properties["Target"]["Arn"])
    next_run(properties["ScheduleExpression"], datetime.now(UTC))
    name = properties.pop("Name", make.name(logical_id))
    answer = make.call("scheduler", "CreateSchedule", properties, Name=name)
    return Created(name, {"Arn": answer["ScheduleArn"]})


def _queue(make: Maker, logical_id: str, properties: Properties) -> Created:
    is_fifo = str(properties.get("FifoQueue", "false")).lower() == "true"
    name = properties.pop("QueueName", make.name(logical_id) + (".fifo" if is_fifo else ""))
    tags = {tag["Key"]: tag["Value"] for tag in properties.pop("Tags", [])}
    unknown = set(properties) - QUEUE_ATTRIBUTES
    if unknown:
        raise UnknownResourceError(
            f"{', '.join(sorted(unknown))}: the sandbox does not know this property of a queue"
        )
    attributes = {
        key: json.dumps(value) if isinstance(value, (dict, bool)) else str(value)
        for key, value in properties.items()
    }
    url = make.call("sqs", "CreateQueue", {}, QueueName=name, Attributes=attributes, tags=tags)[
        "QueueUrl"
    ]
    arn = f"arn:aws:sqs:{make.world.region}:{make.world.account_id}:{name}"
    return Created(url, {"Arn": arn, "QueueName": name, "QueueUrl": url})


def _queue_policy(make: Maker, logical_id: str, properties: Properties) -> Created:
    policy = json.dumps(properties["PolicyDocument"])
    for url in properties["Queues"]:
        make.call("sqs", "SetQueueAttributes", {}, QueueUrl=url, Attributes={"Policy": policy})
    return Created(make.name(logical_id))


def _topic(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("TopicName", make.name(logical_id))
    tags = properties.pop("Tags", [])
    subscriptions = properties.pop("Subscription", [])
    attributes = {key: _text(value) for key, value in properties.items()}
    answer = make.call("sns", "CreateTopic", {"Tags": tags}, Name=name, Attributes=attributes)
    for one in subscriptions:
        make.call("sns", "Subscribe", one, TopicArn=answer["TopicArn"])
    return Created(answer["TopicArn"], {"TopicArn": answer["TopicArn"], "TopicName": name})


def _subscription(make: Maker, _logical_id: str, properties: Properties) -> Created:
    settings = ("FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy")
    attributes = {key: _text(properties.pop(key)) for key in settings if key in properties}
    answer = make.call("sns", "Subscribe", properties, Attributes=attributes)
    return Created(answer["SubscriptionArn"])


def _text(value: object) -> str:
    """An attribute of SNS, which are all texts."""
    return json.dumps(value) if isinstance(value, (dict, list, bool)) else str(value)


def _topic_policy(make: Maker, logical_id: str, properties: Properties) -> Created:
    policy = json.dumps(properties["PolicyDocument"])
    for arn in properties["Topics"]:
        given = {"TopicArn": arn, "AttributeName": "Policy", "AttributeValue": policy}
        make.call("sns", "SetTopicAttributes", given)
    return Created(make.name(logical_id))


def _alarm(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("AlarmName", make.name(logical_id))
    make.call("cloudwatch", "PutMetricAlarm", properties, AlarmName=name)
    arn = f"arn:aws:cloudwatch:{make.world.region}:{make.world.account_id}:alarm:{name}"
    return Created(name, {"Arn": arn})


def _composite_alarm(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("AlarmName", make.name(logical_id))
    make.call("cloudwatch", "PutCompositeAlarm", properties, AlarmName=name)
    arn = f"arn:aws:cloudwatch:{make.world.region}:{make.world.account_id}:alarm:{name}"
    return Created(name, {"Arn": arn})


def _dashboard(make: Maker, logical_id: str, properties: Properties) -> Created:
    name = properties.pop("DashboardName", make.name(logical_id))
    make.call("cloudwatch", "PutDashboard", properties, DashboardName=name)
    return Created(name)


CREATORS: dict[str, Creator] = {
    "AWS::Events::Rule": _rule,
    "AWS::Scheduler::Schedule": _schedule,
    "AWS::SQS::Queue": _queue,
    "AWS::SQS::QueuePolicy": _queue_policy,
    "AWS::SNS::Topic": _topic,
    "AWS::SNS::Subscription": _subscription,
    "AWS::SNS::TopicPolicy": _topic_policy,
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::CloudWatch::CompositeAlarm": _composite_alarm,
    "AWS::CloudWatch::Dashboard": _dashboard,
}
