from __future__ import annotations

import json
from typing import Any

import pytest
from moto.events.models import EventPattern

from tests.template.model import ROOT, Template

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


def test_a_release_that_ended_badly_starts_the_recovery_of_what_it_holds(
    template: Template,
) -> None:
    """One that succeeded finishes its deployments itself, before it ends."""
    assert rule(template, "RecoverDeploymentFunctionReleaseEnded")["EventPattern"] == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "stateMachineArn": [{"Ref": "ReleaseServices"}],
            "status": ["ABORTED", "FAILED", "TIMED_OUT"],
        },
    }


def test_a_schedule_sweeps(template: Template) -> None:
    sweep = rule(template, "RecoverDeploymentFunctionSweep")

    assert sweep["ScheduleExpression"] == "rate(5 minutes)"


PUSHED = {
    name: json.loads((ROOT / "events" / f"{name}.json").read_text())
    for name in ("ecr-push", "ecr-push-index", "ecr-push-platform")
}


@pytest.mark.parametrize("name", PUSHED)
def test_a_push_comes_to_the_function_that_starts_deployments(
    template: Template, name: str
) -> None:
    """Those of the platforms of an index too: they have no tag, and the function leaves them."""
    pattern = rule(template, "StartDeploymentFunctionImagePushed")["EventPattern"]

    assert EventPattern.load(json.dumps(pattern)).matches_event(PUSHED[name])


@pytest.mark.parametrize(
    "other",
    [
        {"action-type": "DELETE"},
        {"result": "FAILURE"},
    ],
    ids=str,
)
def test_what_is_no_push_starts_nothing(template: Template, other: dict[str, str]) -> None:
    pattern = rule(template, "StartDeploymentFunctionImagePushed")["EventPattern"]
    event = {**PUSHED["ecr-push"], "detail": {**PUSHED["ecr-push"]["detail"], **other}}

    assert not EventPattern.load(json.dumps(pattern)).matches_event(event)
    scan = {**PUSHED["ecr-push"], "detail-type": "ECR Image Scan"}
    assert not EventPattern.load(json.dumps(pattern)).matches_event(scan)


def test_what_has_waited_is_started_however_the_deployment_before_ended(
    template: Template,
) -> None:
    assert rule(template, "StartDeploymentFunctionDeploymentEnded")["EventPattern"] == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "stateMachineArn": [{"Ref": "BlueGreenDeployment"}],
            "status": ["SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT"],
        },
    }


def test_a_schedule_finds_pushes_that_no_event_told_of(template: Template) -> None:
    catch_up = rule(template, "StartDeploymentFunctionCatchUp")

    assert catch_up["ScheduleExpression"] == "rate(5 minutes)"


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

    assert set(queues) == {"AnnouncementsQueue", "CollectQueue", "DeliverQueue"}
    assert queues["CollectQueue"]["ScalingConfig"] == {"MaximumConcurrency": 10}
    # One message group a cluster: so one delivery of a cluster at a time. And one a service.
    for name in ("AnnouncementsQueue", "DeliverQueue"):
        assert template.resource(name)["Properties"]["FifoQueue"] is True


def test_what_is_told_is_told_in_order_and_kept_when_it_cannot_be(template: Template) -> None:
    queue = template.resource("AnnouncementsQueue")["Properties"]
    lost = template.resource("AnnouncementsDeadLetterQueue")["Properties"]
    (mapping,) = (
        one
        for one in template.of_type("AWS::Lambda::EventSourceMapping").values()
        if one["FunctionName"] == {"Ref": "TellPeopleFunction"}
    )

    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    function = template.functions()["TellPeopleFunction"]
    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {
        "Fn::GetAtt": ["AnnouncementsDeadLetterQueue", "Arn"]
    }
    # A message waits until all before it in its line were tried so often: as long as SQS can, or
    # those of a channel that is down are gone before they get there.
    tried = queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"]
    assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600 > 30 * tried
    # Of a FIFO queue it has to be one.
    assert lost["FifoQueue"] is True
    assert lost["MessageRetentionPeriod"] == 14 * 24 * 3600
    assert queue["SqsManagedSseEnabled"] is lost["SqsManagedSseEnabled"] is True


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


@pytest.mark.parametrize("name", ["RecoverDeployment", "AnnotateDeployment", "StartDeployment"])
def test_what_a_function_cannot_handle_goes_to_the_dead_letter_queue(
    template: Template, name: str
) -> None:
    invoke = template.resource(f"{name}FunctionEventInvokeConfig")["Properties"]

    assert invoke["FunctionName"] == {"Ref": f"{name}Function"}
    assert invoke["DestinationConfig"]["OnFailure"]["Destination"] == QUEUE_ARN
    assert [QUEUE_ARN] in [
        one.resources
        for one in template.statements_of(f"{name}FunctionRole")
        if "sqs:SendMessage" in one.actions
    ]


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

    watched = {(one["Dimensions"][0]["Value"]["Ref"], one["MetricName"]) for one in found}
    assert watched == {
        (machine, f"Executions{end}")
        for machine in template.state_machines()
        for end in ("Failed", "TimedOut", "Aborted")
    }
    assert len(found) == len(watched)
    for alarm in found:
        assert [one["Name"] for one in alarm["Dimensions"]] == ["StateMachineArn"]


# An error is how they answer, and how the execution ends, which rings for itself: nothing waits to
# be promoted, a hook says no, a migration has failed.
ERRORS_ARE_ANSWERS = {"ExplainMigrationFunction", "PromoteFunction", "RunHooksFunction"}


def test_an_alarm_for_the_errors_of_every_function_whose_errors_are_no_answers(
    template: Template,
) -> None:
    found = alarms(template, "AWS/Lambda").values()

    assert {alarm["MetricName"] for alarm in found} == {"Errors"}
    watched = [alarm["Dimensions"][0]["Value"]["Ref"] for alarm in found]
    assert sorted(watched) == sorted(set(template.functions()) - ERRORS_ARE_ANSWERS)


def test_a_channel_that_is_down_is_tried_for_hours_and_its_waiting_may_be_ended(
    template: Template,
) -> None:
    """A message that comes before its time is put back, which counts as an attempt."""
    redrive = template.resource("AnnouncementsQueue")["Properties"]["RedrivePolicy"]
    pauses = [min(5 * 2**receive, 300) for receive in range(1, redrive["maxReceiveCount"])]

    assert sum(pauses) > 7 * 3600
    (statement,) = (
        one
        for one in template.statements_of("TellPeopleFunctionRole")
        if "sqs:ReceiveMessage" in one.actions
    )
    assert "sqs:ChangeMessageVisibility" in statement.actions


def test_an_alarm_for_what_was_not_handled_or_told(template: Template) -> None:
    found = alarms(template, "AWS/SQS").values()

    assert {alarm["MetricName"] for alarm in found} == {"ApproximateNumberOfMessagesVisible"}
    watched = [alarm["Dimensions"] for alarm in found]
    for name in ("DeadLetterQueue", "AnnouncementsDeadLetterQueue"):
        queue = {"Fn::GetAtt": [name, "QueueName"]}
        assert [{"Name": "QueueName", "Value": queue}] in watched
    assert len(watched) == 2


def test_every_alarm_goes_off_at_the_first_occurrence_and_tells(template: Template) -> None:
    for logical_id, alarm in template.of_type("AWS::CloudWatch::Alarm").items():
        assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}], logical_id
        assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold", logical_id
        first = 1800 if logical_id == "MetricsLateAlarm" else 1
        assert (alarm["Threshold"], alarm["EvaluationPeriods"]) == (first, 1), logical_id
        # No executions, no errors: nothing to tell.
        assert alarm["TreatMissingData"] == "notBreaching", logical_id
        assert alarm["AlarmDescription"], logical_id


def test_metrics_and_announcements_that_are_lost_ring(template: Template) -> None:
    found = alarms(template, "ecs-bluegreen").values()

    assert {alarm["MetricName"] for alarm in found} == {
        "MetricValuesDropped",
        "MetricOldestWaitingSeconds",
        "MetricConfigurationsWrong",
        "AnnouncementsLost",
        "AnnouncementsUncertain",
    }
    for alarm in found:
        assert alarm["Dimensions"] == [{"Name": "service", "Value": "ecs-bluegreen"}]


@pytest.mark.parametrize("name", ["AlarmTopic", "DeploymentsTopic"])
def test_topics_are_not_encrypted_with_a_key_that_aws_services_may_not_use(
    template: Template, name: str
) -> None:
    assert "KmsMasterKeyId" not in template.resource(name)["Properties"]
