from __future__ import annotations

from typing import Any

import pytest

from tests.template.model import Template

QUEUE_ARN = {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}


def rule(template: Template, key: str) -> dict[str, Any]:
    (found,) = (one for one in template.of_type("AWS::Events::Rule").values() if key in one)
    return found


def alarms(template: Template, namespace: str) -> dict[str, Any]:
    """(metric, dimension as it is written) of the alarms on a namespace."""
    return {
        logical_id: alarm
        for logical_id, alarm in template.of_type("AWS::CloudWatch::Alarm").items()
        if alarm["Namespace"] == namespace
    }


def test_an_execution_that_ended_badly_starts_the_recovery(template: Template) -> None:
    assert rule(template, "EventPattern")["EventPattern"] == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "stateMachineArn": [{"Ref": "BlueGreenDeployment"}],
            "status": ["ABORTED", "FAILED", "TIMED_OUT"],
        },
    }


def test_a_schedule_sweeps(template: Template) -> None:
    assert rule(template, "ScheduleExpression")["ScheduleExpression"] == "rate(5 minutes)"


@pytest.mark.parametrize("key", ["EventPattern", "ScheduleExpression"])
def test_events_go_to_the_recovery_or_to_the_dead_letter_queue(
    template: Template, key: str
) -> None:
    (target,) = rule(template, key)["Targets"]

    assert target["Arn"] == {"Fn::GetAtt": ["RecoverDeploymentFunction", "Arn"]}
    assert target["DeadLetterConfig"] == {"Arn": QUEUE_ARN}


def test_what_the_recovery_cannot_handle_goes_to_the_dead_letter_queue(template: Template) -> None:
    (invoke,) = template.of_type("AWS::Lambda::EventInvokeConfig").values()

    assert invoke["FunctionName"] == {"Ref": "RecoverDeploymentFunction"}
    assert invoke["DestinationConfig"]["OnFailure"]["Destination"] == QUEUE_ARN
    (sending,) = (
        one
        for one in template.statements_of("RecoverDeploymentFunctionRole")
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
        assert (alarm["Threshold"], alarm["EvaluationPeriods"]) == (1, 1), logical_id
        # No executions, no errors: nothing to tell.
        assert alarm["TreatMissingData"] == "notBreaching", logical_id
        assert alarm["AlarmDescription"], logical_id


def test_the_topic_is_not_encrypted_with_a_key_that_cloudwatch_may_not_use(
    template: Template,
) -> None:
    assert "KmsMasterKeyId" not in template.resource("AlarmTopic")["Properties"]
