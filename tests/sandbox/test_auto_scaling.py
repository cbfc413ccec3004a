"""Auto Scaling groups: instances come and go as on AWS, also when something is broken."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from tests.e2e.running import left_over
from tests.sandbox.two_clusters import BLUE, GREEN, MAX_SIZE, TwoClusters, wait_until

MOMENT = 0.7  # in which what must not happen would have happened


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[TwoClusters]:
    number = 120 + int(worker_id.removeprefix("gw") if worker_id != "master" else 0)
    sandbox = TwoClusters(tmp_path_factory.mktemp("groups"), f"127.0.{number}")
    try:
        sandbox.start()
        yield sandbox
    finally:
        sandbox.stop()
    assert left_over(sandbox.network) == []


@pytest.fixture
def sandbox(started: TwoClusters) -> Iterator[TwoClusters]:
    yield started
    started.reset()


def refused(error: pytest.ExceptionInfo[ClientError]) -> str:
    assert error.value.response["Error"]["Code"] == "ValidationError"
    return str(error.value.response["Error"]["Message"])


# --------------------------------------------------------------------------- they come, and they go


def test_instances_come_later_and_register_later_still(sandbox: TwoClusters) -> None:
    sandbox.resize(2)
    assert sandbox.in_service() == []
    seen: list[tuple[int, int]] = []

    def settled() -> bool:
        seen.append((len(sandbox.in_service()), len(sandbox.registered())))
        return seen[-1] == (2, 2)

    wait_until(settled)
    assert all(serving >= registered for serving, registered in seen), seen
    assert (2, 0) in seen, "in service first, registered with the cluster later"
    instances = sandbox.group()["Instances"]
    assert {one["HealthStatus"] for one in instances} == {"Healthy"}
    described = sandbox.client("ec2").describe_instances(
        InstanceIds=[one["InstanceId"] for one in instances]
    )
    for reservation in described["Reservations"]:
        for one in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
            assert tags["ecs-bluegreen"] == "host", "of the launch template; the group has another"
    assert len({one["AvailabilityZone"] for one in instances}) == 2
    assert set(sandbox.registered()) == {one["InstanceId"] for one in instances}
    assert sandbox.registered(BLUE) == {}


def test_an_activity_tells_of_each_launch_and_each_termination(sandbox: TwoClusters) -> None:
    (first,) = sandbox.scaled(1)
    launch = sandbox.activities()[0]
    assert launch["Description"] == f"Launching a new EC2 instance: {first}"
    assert launch["StatusCode"] == "Successful"
    assert launch["EndTime"] > launch["StartTime"]
    assert (
        "a user request update of AutoScalingGroup constraints to min: 0, max: 6, desired: 1 "
        "changing the desired capacity from 0 to 1."
    ) in launch["Cause"]
    assert "increasing the capacity from 0 to 1." in launch["Cause"]

    (second,) = {*sandbox.scaled(2)} - {first}
    assert sandbox.activities()[0]["Description"].endswith(second), "the newest first"
    sandbox.scaled(0)
    ended = {one["Description"]: one for one in sandbox.activities()[:2]}
    assert set(ended) == {f"Terminating EC2 instance: {one}" for one in (first, second)}
    for one in ended.values():
        assert one["StatusCode"] == "Successful"
        assert "shrinking the capacity from 2 to 0." in one["Cause"]


def test_activities_come_in_pages(sandbox: TwoClusters) -> None:
    sandbox.scaled(2)
    whole = [one["ActivityId"] for one in sandbox.activities()]
    pages = sandbox.scaling.get_paginator("describe_scaling_activities").paginate(
        AutoScalingGroupName=GREEN, PaginationConfig={"PageSize": 1}
    )
    assert [one["ActivityId"] for page in pages for one in page["Activities"]] == whole
    found = sandbox.scaling.describe_scaling_activities(ActivityIds=[whole[1]])["Activities"]
    assert [one["ActivityId"] for one in found] == [whole[1]]


def test_an_instance_that_goes_takes_its_tasks_along(sandbox: TwoClusters) -> None:
    sandbox.scaled(1)
    sandbox.run(1)
    wait_until(lambda: len(sandbox.places()) == 1)
    (instance,) = sandbox.in_service()
    sandbox.resize(0)
    wait_until(lambda: sandbox.group()["Instances"] == [])
    (reservation,) = sandbox.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    assert reservation["Instances"][0]["State"]["Name"] == "terminated"
    reasons = [one["stoppedReason"] for one in sandbox.tasks(status="STOPPED")]
    assert f"Host EC2 (instance {instance}) terminated." in reasons
    wait_until(lambda: sandbox.registered() == {})
    (cluster,) = sandbox.ecs.describe_clusters(clusters=[GREEN])["clusters"]
    assert cluster["registeredContainerInstancesCount"] == 0


def test_a_new_instance_has_a_new_id_and_starts_tasks_that_are_reached(
    sandbox: TwoClusters,
) -> None:
    before = sandbox.scaled(1, BLUE)
    sandbox.scaled(0, BLUE)
    assert not {*before} & {*sandbox.scaled(1, BLUE)}
    sandbox.run(1, BLUE)
    wait_until(lambda: requests.get(sandbox.about["url"], timeout=5).ok)


def test_a_launch_takes_the_launch_template_as_it_is_then(sandbox: TwoClusters) -> None:
    (old,) = sandbox.scaled(1)
    template = sandbox.group()["LaunchTemplate"]
    number = template["LaunchTemplateId"]
    script = f"#!/bin/bash\necho ECS_CLUSTER={GREEN} >> /etc/ecs/ecs.config\n"
    sandbox.ec2.create_launch_template_version(
        LaunchTemplateId=number,
        LaunchTemplateData={
            "ImageId": "ami-12c6146b",
            "InstanceType": "t3.medium",
            "UserData": base64.b64encode(script.encode()).decode(),
        },
    )
    sandbox.scaling.update_auto_scaling_group(
        AutoScalingGroupName=GREEN,
        LaunchTemplate={"LaunchTemplateId": number, "Version": "$Latest"},
    )
    try:
        (new,) = {*sandbox.scaled(2)} - {old}
    finally:
        sandbox.scaling.update_auto_scaling_group(
            AutoScalingGroupName=GREEN,
            LaunchTemplate={"LaunchTemplateId": number, "Version": template["Version"]},
        )
    found = {one["InstanceId"]: one for one in sandbox.group()["Instances"]}
    assert found[old]["LaunchTemplate"]["Version"] == template["Version"]
    assert found[old]["InstanceType"] == "t3.small"
    assert found[new]["LaunchTemplate"]["Version"] == "2"
    assert found[new]["InstanceType"] == "t3.medium"


def test_termination_asked_for_by_id(sandbox: TwoClusters) -> None:
    one, other = sandbox.scaled(2)
    ask = sandbox.scaling.terminate_instance_in_auto_scaling_group
    answer = ask(InstanceId=one, ShouldDecrementDesiredCapacity=True)["Activity"]
    assert answer["Description"] == f"Terminating EC2 instance: {one}"
    assert answer["StatusCode"] == "InProgress"
    sandbox.settle(1)
    assert sandbox.in_service() == [other]
    ask(InstanceId=other, ShouldDecrementDesiredCapacity=False)
    wait_until(lambda: sandbox.in_service() not in ([], [other]))
    sandbox.scaling.update_auto_scaling_group(AutoScalingGroupName=GREEN, MinSize=1)
    sandbox.settle(1)
    with pytest.raises(ClientError) as error:
        ask(InstanceId=sandbox.in_service()[0], ShouldDecrementDesiredCapacity=True)
    assert "desiredSize equals minSize (1)" in refused(error)


# ---------------------------------------------------------------------------------------- its sizes


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"DesiredCapacity": MAX_SIZE + 1},
            f"Desired capacity:{MAX_SIZE + 1} must be between the specified min size:0 and max "
            f"size:{MAX_SIZE}",
        ),
        (
            {"MinSize": MAX_SIZE + 1},
            f"Max bound, {MAX_SIZE}, must be greater than or equal to min bound, {MAX_SIZE + 1}",
        ),
        (
            {"MinSize": 2, "MaxSize": 3, "DesiredCapacity": 1},
            "Desired capacity:1 must be between the specified min size:2 and max size:3",
        ),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(
    sandbox: TwoClusters, sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(ClientError) as error:
        sandbox.scaling.update_auto_scaling_group(AutoScalingGroupName=GREEN, **sizes)
    assert refused(error) == message
    group = sandbox.group()
    found = (group["MinSize"], group["MaxSize"], group["DesiredCapacity"])
    assert found == (0, MAX_SIZE, 0), "nothing of it was done"


def test_new_bounds_move_the_desired_capacity(sandbox: TwoClusters) -> None:
    update = sandbox.scaling.update_auto_scaling_group
    update(AutoScalingGroupName=GREEN, MinSize=2)
    assert sandbox.group()["DesiredCapacity"] == 2
    update(AutoScalingGroupName=GREEN, MinSize=0, MaxSize=1)
    assert sandbox.group()["DesiredCapacity"] == 1
    sandbox.settle(1)


def test_the_desired_capacity_alone_stays_within_the_bounds(sandbox: TwoClusters) -> None:
    with pytest.raises(ClientError) as error:
        sandbox.scaling.set_desired_capacity(AutoScalingGroupName=GREEN, DesiredCapacity=7)
    assert refused(error) == (
        "New SetDesiredCapacity value 7 is above max value 6 for the AutoScalingGroup."
    )
    sandbox.scaling.set_desired_capacity(AutoScalingGroupName=GREEN, DesiredCapacity=1)
    sandbox.settle(1)
    cause = sandbox.activities()[0]["Cause"]
    assert "a user request explicitly set group desired capacity changing the" in cause


# ------------------------------------------------------------------------- protection, suspension


def test_protected_instances_stay(sandbox: TwoClusters) -> None:
    one, other = sandbox.scaled(2)
    sandbox.scaling.set_instance_protection(
        AutoScalingGroupName=GREEN, InstanceIds=[one], ProtectedFromScaleIn=True
    )
    sandbox.resize(0)
    wait_until(lambda: sandbox.in_service() == [one])
    assert other not in sandbox.in_service()
    time.sleep(MOMENT)
    group = sandbox.group()
    assert (group["DesiredCapacity"], len(group["Instances"])) == (0, 1)
    told = [one for one in sandbox.activities() if one["Description"].startswith("Could not")]
    assert len(told) == 1, "once"
    assert told[0]["StatusCode"] == "Failed"
    assert told[0]["StatusMessage"] == (
        "Could not scale to desired capacity because all remaining instances are protected from "
        "scale-in."
    )


def test_new_instances_can_be_protected_from_the_beginning(sandbox: TwoClusters) -> None:
    update = sandbox.scaling.update_auto_scaling_group
    update(AutoScalingGroupName=GREEN, NewInstancesProtectedFromScaleIn=True)
    sandbox.scaled(1)
    update(AutoScalingGroupName=GREEN, NewInstancesProtectedFromScaleIn=False)
    assert [one["ProtectedFromScaleIn"] for one in sandbox.group()["Instances"]] == [True]


def test_protection_is_for_instances_of_the_group_that_serve(sandbox: TwoClusters) -> None:
    protect = sandbox.scaling.set_instance_protection
    (blue,) = sandbox.scaled(1, BLUE)
    with pytest.raises(ClientError) as error:
        protect(AutoScalingGroupName=GREEN, InstanceIds=[blue], ProtectedFromScaleIn=True)
    assert refused(error) == f"The instance {blue} is not part of Auto Scaling group {GREEN}."
    with pytest.raises(ClientError) as error:
        protect(AutoScalingGroupName=BLUE, InstanceIds=[blue] * 51, ProtectedFromScaleIn=True)
    assert "less than or equal to 50" in refused(error)
    sandbox.resize(1)
    wait_until(lambda: bool(sandbox.group()["Instances"]))
    (pending,) = sandbox.group()["Instances"]
    with pytest.raises(ClientError) as error:
        protect(
            AutoScalingGroupName=GREEN,
            InstanceIds=[pending["InstanceId"]],
            ProtectedFromScaleIn=True,
        )
    assert "is not in InService or EnteringStandby or Standby." in refused(error)
    sandbox.settle(1)


def test_what_is_suspended_does_not_happen(sandbox: TwoClusters) -> None:
    names = {"AutoScalingGroupName": GREEN}
    sandbox.scaling.suspend_processes(**names, ScalingProcesses=["Launch"])
    suspended = sandbox.group()["SuspendedProcesses"]
    assert [one["ProcessName"] for one in suspended] == ["Launch"]
    assert suspended[0]["SuspensionReason"].startswith("User suspended at ")
    sandbox.resize(1)
    time.sleep(MOMENT)
    assert sandbox.group()["Instances"] == []
    sandbox.scaling.resume_processes(**names, ScalingProcesses=["Launch"])
    sandbox.settle(1)

    sandbox.scaling.suspend_processes(**names, ScalingProcesses=["Terminate"])
    sandbox.resize(0)
    time.sleep(MOMENT)
    assert len(sandbox.in_service()) == 1
    sandbox.scaling.resume_processes(**names)
    sandbox.settle(0)
    with pytest.raises(ClientError) as error:
        sandbox.scaling.suspend_processes(**names, ScalingProcesses=["Lunch"])
    refused(error)


def test_an_instance_that_ec2_ends_is_replaced(sandbox: TwoClusters) -> None:
    (before,) = sandbox.scaled(1)
    sandbox.ec2.terminate_instances(InstanceIds=[before])
    wait_until(lambda: sandbox.in_service() not in ([], [before]))
    sandbox.settle(1)
    told = {one["Description"].rpartition(" ")[2]: one["Cause"] for one in sandbox.activities()[:2]}
    (after,) = sandbox.in_service()
    assert "in response to an EC2 health check indicating it has been terminated" in told[before]
    assert "in response to an unhealthy instance needing to be replaced." in told[after]


def test_it_is_not_replaced_while_that_is_suspended(sandbox: TwoClusters) -> None:
    (before,) = sandbox.scaled(1)
    sandbox.scaling.suspend_processes(
        AutoScalingGroupName=GREEN, ScalingProcesses=["ReplaceUnhealthy"]
    )
    sandbox.ec2.terminate_instances(InstanceIds=[before])
    time.sleep(MOMENT)
    (found,) = sandbox.group()["Instances"]
    assert (found["InstanceId"], found["HealthStatus"]) == (before, "Unhealthy")


def test_groups_that_do_not_exist(sandbox: TwoClusters) -> None:
    assert (
        sandbox.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["nobody"])[
            "AutoScalingGroups"
        ]
        == []
    )
    for call in (
        sandbox.scaling.describe_scaling_activities,
        sandbox.scaling.suspend_processes,
        sandbox.scaling.resume_processes,
        sandbox.scaling.update_auto_scaling_group,
        sandbox.scaling.describe_load_balancers,
    ):
        with pytest.raises(ClientError) as error:
            call(AutoScalingGroupName="nobody")
        assert "AutoScalingGroup name not found" in refused(error)


def test_a_group_with_instances_is_not_deleted_by_mistake(sandbox: TwoClusters) -> None:
    template = sandbox.group()["LaunchTemplate"]
    zone = sandbox.group()["VPCZoneIdentifier"]
    sandbox.scaling.create_auto_scaling_group(
        AutoScalingGroupName="other",
        MinSize=1,
        MaxSize=1,
        VPCZoneIdentifier=zone,
        LaunchTemplate={
            "LaunchTemplateId": template["LaunchTemplateId"],
            "Version": template["Version"],
        },
    )
    wait_until(lambda: len(sandbox.in_service("other")) == 1)
    (instance,) = sandbox.in_service("other")
    with pytest.raises(ClientError) as error:
        sandbox.scaling.delete_auto_scaling_group(AutoScalingGroupName="other")
    assert error.value.response["Error"]["Code"] == "ResourceInUse"
    sandbox.scaling.delete_auto_scaling_group(AutoScalingGroupName="other", ForceDelete=True)
    described = sandbox.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    assert described[0]["Instances"][0]["State"]["Name"] == "terminated"


# ----------------------------------------------------------------------- load balancers and hooks


def test_the_instances_of_a_group_are_targets_of_its_target_groups(sandbox: TwoClusters) -> None:
    arn = sandbox.target_group()
    (first,) = sandbox.scaled(1)
    names = {"AutoScalingGroupName": GREEN, "TargetGroupARNs": [arn]}
    sandbox.scaling.attach_load_balancer_target_groups(**names)
    wait_until(lambda: set(sandbox.targets(arn)) == {first})
    (second,) = {*sandbox.scaled(2)} - {first}
    assert set(sandbox.targets(arn)) == {first, second}

    sandbox.resize(1)
    wait_until(lambda: "draining" in sandbox.targets(arn).values())
    (leaving,) = (one for one, state in sandbox.targets(arn).items() if state == "draining")
    states = {one["InstanceId"]: one["LifecycleState"] for one in sandbox.group()["Instances"]}
    assert states[leaving] == "Terminating", "it drains before it ends"
    (described,) = sandbox.ec2.describe_instances(InstanceIds=[leaving])["Reservations"]
    assert described["Instances"][0]["State"]["Name"] == "running"
    sandbox.settle(1)
    sandbox.scaling.detach_load_balancer_target_groups(**names)
    wait_until(lambda: sandbox.targets(arn) == {})


def test_lifecycle_hooks_hold_an_instance(sandbox: TwoClusters) -> None:
    for name, transition in (("come", "LAUNCHING"), ("go", "TERMINATING")):
        sandbox.scaling.put_lifecycle_hook(
            AutoScalingGroupName=GREEN,
            LifecycleHookName=name,
            LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}",
            HeartbeatTimeout=60,
        )

    def state() -> list[str]:
        return [one["LifecycleState"] for one in sandbox.group()["Instances"]]

    def go_on(hook: str) -> None:
        (held,) = sandbox.group()["Instances"]
        sandbox.scaling.complete_lifecycle_action(
            AutoScalingGroupName=GREEN,
            LifecycleHookName=hook,
            InstanceId=held["InstanceId"],
            LifecycleActionResult="CONTINUE",
        )

    try:
        sandbox.resize(1)
        wait_until(lambda: state() == ["Pending:Wait"])
        time.sleep(MOMENT)
        assert state() == ["Pending:Wait"]
        go_on("come")
        sandbox.settle(1)
        sandbox.resize(0)
        wait_until(lambda: state() == ["Terminating:Wait"])
        with pytest.raises(ClientError) as error:
            go_on("come")
        assert "No active Lifecycle Action found" in refused(error)
        go_on("go")
        sandbox.settle(0)
    finally:
        for name in ("come", "go"):
            sandbox.scaling.delete_lifecycle_hook(
                AutoScalingGroupName=GREEN, LifecycleHookName=name
            )


def test_load_balancers_that_do_not_exist(sandbox: TwoClusters) -> None:
    names = {"AutoScalingGroupName": GREEN, "LoadBalancerNames": ["nobody"]}
    with pytest.raises(ClientError) as error:
        sandbox.scaling.attach_load_balancers(**names)
    assert "may not be valid" in refused(error)
    with pytest.raises(ClientError) as error:
        sandbox.scaling.detach_load_balancers(**names)
    assert "not part of the group" in refused(error)


# ------------------------------------------------------------------------------------ what ECS does


def test_tasks_move_from_an_instance_that_drains(sandbox: TwoClusters) -> None:
    sandbox.scaled(2)
    sandbox.run(2)
    wait_until(lambda: len(set(sandbox.places())) == 2)
    (left, _) = sandbox.places()
    sandbox.scaled(3)
    update = sandbox.ecs.update_container_instances_state
    update(cluster=GREEN, containerInstances=[left], status="DRAINING")
    wait_until(lambda: len(sandbox.places()) == 2 and left not in sandbox.places())
    assert len(set(sandbox.places())) == 2
    listed = sandbox.ecs.list_container_instances(cluster=GREEN, status="DRAINING")
    assert listed["containerInstanceArns"] == [left]


def test_tasks_stay_where_nobody_else_has_room(sandbox: TwoClusters) -> None:
    sandbox.scaled(1)
    sandbox.run(1)
    group = sandbox.target_group()
    wait_until(lambda: list(sandbox.targets(group).values()) == ["healthy"])
    (only,) = sandbox.places()
    update = sandbox.ecs.update_container_instances_state
    update(cluster=GREEN, containerInstances=[only], status="DRAINING")
    time.sleep(MOMENT)
    assert sandbox.places() == [only], "minimumHealthyPercent is 100"
    sandbox.ecs.update_service(cluster=GREEN, service="web", desiredCount=0)
    wait_until(lambda: sandbox.places() == [])
    with pytest.raises(ClientError) as error:
        update(cluster=GREEN, containerInstances=[only] * 11, status="DRAINING")
    assert error.value.response["Error"]["Code"] == "InvalidParameterException"


# ------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("message", [None, "You have requested more vCPU capacity than your limit"])
def test_launches_that_fail_are_tried_until_it_is_mended(
    sandbox: TwoClusters, message: str | None
) -> None:
    sandbox.fault("cannot_launch", **({"message": message} if message else {}))
    sandbox.resize(1)

    def failed() -> list[dict[str, Any]]:
        began = sandbox.group()["DesiredCapacity"]
        assert began == 1
        return [one for one in sandbox.activities() if one["StatusCode"] == "Failed"]

    before = len([one for one in sandbox.activities() if one["StatusCode"] == "Failed"])
    wait_until(lambda: len(failed()) >= before + 2)
    newest = failed()[0]
    said = message or "We currently do not have sufficient t3.small capacity"
    assert said in newest["StatusMessage"]
    assert newest["StatusMessage"].endswith(". Launching EC2 instance failed.")
    assert newest["Description"] == (
        f"Launching a new EC2 instance.  Status Reason: {newest['StatusMessage']}"
    )
    sandbox.control("DELETE", "faults")
    sandbox.settle(1)


def test_an_agent_that_never_registers(sandbox: TwoClusters) -> None:
    sandbox.fault("never_registers", count=1)
    sandbox.resize(2)
    wait_until(lambda: len(sandbox.in_service()) == 2 and len(sandbox.registered()) == 1)
    time.sleep(MOMENT)
    assert len(sandbox.registered()) == 1
    (state,) = (one for one in sandbox.control("GET", "state")["groups"] if one["group"] == GREEN)
    assert sorted(one["registered"] for one in state["instances"]) == [False, True]
    sandbox.control("DELETE", "faults")
    sandbox.settle(2)


@pytest.mark.parametrize("when", ["registered", "starting"])
def test_an_instance_dies(sandbox: TwoClusters, when: str) -> None:
    sandbox.fault("instance_dies", when=when)
    sandbox.resize(2)
    if when == "starting":
        wait_until(lambda: len(sandbox.registered()) == 2)
        time.sleep(MOMENT)
        (fault,) = sandbox.control("GET", "faults")
        assert fault["hits"] == 0
        sandbox.run(2)
    wait_until(lambda: bool(sandbox.control("GET", "faults")[0]["hits"]))
    ended = "taken out of service in response to an EC2 health check"
    wait_until(lambda: any(ended in one["Cause"] for one in sandbox.activities()[:2]))
    sandbox.settle(2)
    assert sandbox.control("GET", "faults")[0]["hits"] == 1, "one, not its replacement too"


def test_an_alarm_changes_the_size(sandbox: TwoClusters) -> None:
    sandbox.scaled(1)
    sandbox.fault("scale_out", by=2)
    assert sandbox.group()["DesiredCapacity"] == 3
    sandbox.settle(3)
    cause = sandbox.activities()[0]["Cause"]
    assert "in state ALARM triggered policy" in cause
    sandbox.fault("scale_in", by=9)
    assert sandbox.group()["DesiredCapacity"] == 0, "not below the minimum"


def test_an_alarm_does_nothing_while_alarms_are_suspended(sandbox: TwoClusters) -> None:
    sandbox.scaled(1)
    sandbox.scaling.suspend_processes(
        AutoScalingGroupName=GREEN, ScalingProcesses=["AlarmNotification"]
    )
    sandbox.fault("scale_in")
    assert sandbox.group()["DesiredCapacity"] == 1
    (fault,) = sandbox.control("GET", "faults")
    assert fault["outcome"] == "nothing: AlarmNotification is suspended"


def test_an_alarm_at_a_moment_of_the_deployment(sandbox: TwoClusters) -> None:
    sandbox.scaled(1, BLUE)
    sandbox.fault("scale_out", BLUE, when="launching")
    sandbox.fault("scale_out", BLUE, when="shifted")
    time.sleep(MOMENT)
    assert sandbox.group(BLUE)["DesiredCapacity"] == 1
    sandbox.scaled(1, GREEN)
    sandbox.settle(2, BLUE)

    weights = {BLUE: 0, GREEN: 100}
    shift = {"name": "traffic_changed_by_others", "weights": weights}
    sandbox.control("POST", "faults", shift)
    sandbox.settle(3, BLUE)
    shift["weights"] = {BLUE: 100, GREEN: 0}
    sandbox.control("POST", "faults", shift)
    time.sleep(MOMENT)
    assert sandbox.group(BLUE)["DesiredCapacity"] == 3, "each comes once"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "cannot_launch"}, "There is web-blue, web-green"),
        ({"kind": "cannot_lunch", "group": GREEN}, "cannot_launch, never_registers"),
        ({"kind": "instance_dies", "group": GREEN, "when": "now"}, "registered, starting"),
        ({"kind": "scale_in", "group": GREEN, "by": 0}, "a number from 1 on"),
    ],
)
def test_faults_that_make_no_sense(sandbox: TwoClusters, fault: dict[str, Any], said: str) -> None:
    url = sandbox.about["control_url"] + "faults"
    answer = requests.post(url, json={"name": "group", **fault}, timeout=5)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
