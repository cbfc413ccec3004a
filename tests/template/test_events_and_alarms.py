from __future__ import annotations

from typing import Any

import pytest

from tests.template.model import Template

QUEUE_ARN = {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}


def rule(template: Template, name: str) -> dict[str, Any]:
    found: dict[str, Any] = template.resource(name)["Properties"]
    return found


def alarms(template: Template, namespace: str) -> dict[str, Any]:
    """(metric, dimension as it is written) of the alarms on a namespace."""
    return {
        logical_id: alarm
        for logical_id, alarm in template.of_type("AWS::CloudWatch::Alarm").items()
        if alarm["Namespace"] == namespace
    }


def test_an_execution_that_ended_badly_starts_the_recovery(template: Template) -> None:
    assert rule(template, "RecoverDeploymentFunctionExecutionEnded")["EventPattern"] == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "stateMachineArn": [{"Ref": "BlueGreenDeployment"}],
            "status": ["ABORTED", "FAILED", "TIMED_OUT"],
        },
    }


def test_a_schedule_sweeps(template: Template) -> None:
    sweep = rule(template, "RecoverDeploymentFunctionSweep")

    assert sweep["ScheduleExpression"] == "rate(5 minutes)"


def test_a_deployment_that_ended_is_annotated_however_it_did(template: Template) -> None:
    assert rule(template, "AnnotateDeploymentFunctionDeploymentEnded")["EventPattern"] == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "stateMachineArn": [{"Ref": "BlueGreenDeployment"}],
            "status": ["SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT"],
        },
    }


def test_container_metrics_are_pushed_every_minute_and_a_late_minute_is_left(
    template: Template,
) -> None:
    every_minute = rule(template, "PushContainerMetricsFunctionEveryMinute")
    invoke = template.resource("PushContainerMetricsFunctionEventInvokeConfig")["Properties"]

    assert every_minute["ScheduleExpression"] == "rate(1 minute)"
    assert every_minute["Targets"][0]["RetryPolicy"]["MaximumEventAgeInSeconds"] == 60
    assert invoke["MaximumEventAgeInSeconds"] == 60
    assert invoke["MaximumRetryAttempts"] == 0


def test_messages_are_seen_again_only_after_the_function_has_ended(template: Template) -> None:
    mappings = template.of_type("AWS::Lambda::EventSourceMapping")
    queues = {}
    for mapping in mappings.values():
        queue = mapping["EventSourceArn"]["Fn::GetAtt"][0]
        queues[queue] = mapping
        function = template.functions()[mapping["FunctionName"]["Ref"]]
        visible = template.resource(queue)["Properties"]["VisibilityTimeout"]
        assert visible > function["Timeout"]
        assert mapping["BatchSize"] == 1

    assert set(queues) == {"CollectQueue", "DeliverQueue"}
    assert queues["CollectQueue"]["ScalingConfig"] == {"MaximumConcurrency": 10}
    # One message group a cluster: so one delivery of a cluster at a time.
    assert template.resource("DeliverQueue")["Properties"]["FifoQueue"] is True


def test_the_queues_of_the_pusher_are_encrypted_and_forget_old_minutes(template: Template) -> None:
    for name in ("CollectQueue", "DeliverQueue"):
        queue = template.resource(name)["Properties"]
        assert queue["SqsManagedSseEnabled"] is True
        assert queue["MessageRetentionPeriod"] <= 900


def test_the_bucket_is_private_encrypted_and_empties_itself(template: Template) -> None:
    bucket = template.resource("MetricsBucket")["Properties"]

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    (rule_,) = bucket["LifecycleConfiguration"]["Rules"]
    assert (rule_["Status"], rule_["ExpirationInDays"]) == ("Enabled", 1)


def test_every_event_goes_to_its_function_or_to_the_dead_letter_queue(template: Template) -> None:
    for logical_id, found in template.of_type("AWS::Events::Rule").items():
        (target,) = found["Targets"]
        function = target["Arn"]["Fn::GetAtt"][0]
        assert logical_id.startswith(function)
        assert target["DeadLetterConfig"] == {"Arn": QUEUE_ARN}, logical_id


@pytest.mark.parametrize("name", ["RecoverDeployment", "AnnotateDeployment"])
def test_what_a_function_cannot_handle_goes_to_the_dead_letter_queue(
    template: Template, name: str
) -> None:
    invoke = template.resource(f"{name}FunctionEventInvokeConfig")["Properties"]

    assert invoke["FunctionName"] == {"Ref": f"{name}Function"}
    assert invoke["DestinationConfig"]["OnFailure"]["Destination"] == QUEUE_ARN
    (sending,) = (
        one
        for one in template.statements_of(f"{name}FunctionRole")
        if "sqs:SendMessage" in one.actions
    )
    assert sending.resources == [QUEUE_ARN]


def test_only_the_own_rules_may_send_to_the_dead_letter_queue(template: Template) -> None:
    (policy,) = template.of_type("AWS::SQS::QueuePolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]

    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Resource"] == QUEUE_ARN
    senders = {arn["Fn::GetAtt"][0] for arn in statement["Condition"]["ArnEquals"]["aws:SourceArn"]}
    assert senders == set(template.of_type("AWS::Events::Rule"))


def test_the_dead_letter_queue_is_encrypted_and_keeps_messages_for_long(
    template: Template,
) -> None:
    queue = template.resource("DeadLetterQueue")["Properties"]

    assert queue["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_an_alarm_for_every_bad_end_of_an_execution(template: Template) -> None:
    found = alarms(template, "AWS/States").values()

    assert {alarm["MetricName"] for alarm in found} == {
        "ExecutionsFailed",
        "ExecutionsTimedOut",
        "ExecutionsAborted",
    }
    for alarm in found:
        assert alarm["Dimensions"] == [
            {"Name": "StateMachineArn", "Value": {"Ref": "BlueGreenDeployment"}}
        ]


def test_an_alarm_for_the_errors_of_every_function(template: Template) -> None:
    found = alarms(template, "AWS/Lambda").values()

    assert {alarm["MetricName"] for alarm in found} == {"Errors"}
    watched = [alarm["Dimensions"][0]["Value"]["Ref"] for alarm in found]
    assert sorted(watched) == sorted(template.functions())


def test_an_alarm_for_events_that_were_not_handled(template: Template) -> None:
    (alarm,) = alarms(template, "AWS/SQS").values()

    assert alarm["MetricName"] == "ApproximateNumberOfMessagesVisible"
    assert alarm["Dimensions"] == [
        {"Name": "QueueName", "Value": {"Fn::GetAtt": ["DeadLetterQueue", "QueueName"]}}
    ]


def test_every_alarm_goes_off_at_the_first_occurrence_and_tells(template: Template) -> None:
    for logical_id, alarm in template.of_type("AWS::CloudWatch::Alarm").items():
        assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}], logical_id
        assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold", logical_id
        first = 1800 if logical_id == "MetricsLateAlarm" else 1
        assert (alarm["Threshold"], alarm["EvaluationPeriods"]) == (first, 1), logical_id
        # No executions, no errors: nothing to tell.
        assert alarm["TreatMissingData"] == "notBreaching", logical_id
        assert alarm["AlarmDescription"], logical_id


def test_metrics_that_are_lost_late_or_misconfigured_ring(template: Template) -> None:
    found = alarms(template, "ecs-bluegreen").values()

    assert {alarm["MetricName"] for alarm in found} == {
        "MetricValuesDropped",
        "MetricOldestWaitingSeconds",
        "MetricConfigurationsWrong",
    }
    for alarm in found:
        assert alarm["Dimensions"] == [{"Name": "service", "Value": "ecs-bluegreen"}]


def test_the_topic_is_not_encrypted_with_a_key_that_cloudwatch_may_not_use(
    template: Template,
) -> None:
    assert "KmsMasterKeyId" not in template.resource("AlarmTopic")["Properties"]
