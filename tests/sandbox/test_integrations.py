"""Service integrations of Step Functions, Map states and what ends them, as AWS does it."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox.executions.api import with_own_name
from tests.sandbox.workflow_stack import CLUSTER, WorkflowStack, machine, until

RUN_TASK = "arn:aws:states:::ecs:runTask.sync"
WAIT_FOR_TOKEN = "arn:aws:states:::lambda:invoke.waitForTaskToken"
START_EXECUTION = "arn:aws:states:::states:startExecution.sync:2"
KEEPS_THE_TOKEN = (
    "import boto3\n"
    "def handler(event, context):\n"
    "    boto3.client('ssm').put_parameter(\n"
    "        Name='/token/' + event['for'], Value=event['token'], Type='String', Overwrite=True)\n"
    "    return 'nobody sees this'\n"
)
RAISES = (
    "class Broken(Exception): ...\ndef handler(event, context):\n    raise Broken('no paper')\n"
)
IGNORES_SIGTERM = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkflowStack]:
    running = WorkflowStack(tmp_path_factory.mktemp("stack"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def name() -> str:
    """A name of the test's own, for whatever it makes."""
    return f"t{next(numbers)}"


# ------------------------------------------------------------------------------ tasks of ECS


def run_task(definition: str, **more: Any) -> dict[str, Any]:
    parameters = {
        "Cluster": CLUSTER,
        "TaskDefinition": definition,
        "LaunchType": "EC2",
        **more.pop("parameters", {}),
    }
    return {"Type": "Task", "Resource": RUN_TASK, "Parameters": parameters, **more}


def override(**what: Any) -> dict[str, Any]:
    return {"Overrides": {"ContainerOverrides": [{"Name": "job", **what}]}}


def task_of(stack: WorkflowStack, family: str) -> dict[str, Any]:
    (task,) = [one for one in stack.tasks() if one["group"] == f"family:{family}"]
    return task


def running_task(stack: WorkflowStack, family: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = [one for one in stack.tasks() if one["group"] == f"family:{family}"]
        return found[0] if found and found[0]["lastStatus"] == "RUNNING" else None

    return until(look)


def stopped_task(stack: WorkflowStack, family: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        task = task_of(stack, family)
        return task if task["lastStatus"] == "STOPPED" else None

    return until(look)


def test_a_task_runs_to_its_end_and_is_the_output(stack: WorkflowStack, name: str) -> None:
    arn = stack.register(name, tags=[{"key": "team", "value": "shop"}])
    state = run_task(
        arn,
        parameters={
            **override(
                Command=["sh", "-c", "echo migrating $TO"],
                Environment=[{"Name": "TO", "Value.$": "$.version"}],
            ),
            "PropagateTags": "TASK_DEFINITION",
        },
    )
    ended = stack.run(name, state, {"version": "v7"})

    assert ended["status"] == "SUCCEEDED"
    output = ended["output"]
    (container,) = output["Containers"]
    assert (output["LastStatus"], output["StopCode"]) == ("STOPPED", "EssentialContainerExited")
    assert (container["Name"], container["ExitCode"]) == ("job", 0)
    assert output["Group"] == f"family:{name}"
    assert output["StartedBy"] == "AWS Step Functions"
    assert output["TaskDefinitionArn"] == arn
    assert output["Tags"] == [{"Key": "team", "Value": "shop"}]
    assert 0 < output["CreatedAt"] < output["StoppedAt"]
    task = task_of(stack, name)
    assert task["taskArn"] == output["TaskArn"]
    stream = f"{name}/job/{task['taskArn'].rpartition('/')[2]}"
    assert stack.log_lines(stream) == ["migrating v7"]


def test_the_history_of_a_task(stack: WorkflowStack, name: str) -> None:
    state = run_task(stack.register(name), TimeoutSeconds=60)
    execution = stack.begin(stack.create_machine(name, machine(state)))
    stack.end(execution)

    assert stack.types(execution) == [
        "ExecutionStarted",
        "TaskStateEntered",
        "TaskScheduled",
        "TaskStarted",
        "TaskSubmitted",
        "TaskSucceeded",
        "TaskStateExited",
        "ExecutionSucceeded",
    ]
    scheduled = stack.history(execution)[2]["taskScheduledEventDetails"]
    assert (scheduled["resourceType"], scheduled["resource"]) == ("ecs", "runTask.sync")
    assert scheduled["timeoutInSeconds"] == 60
    assert json.loads(scheduled["parameters"])["StartedBy"] == "AWS Step Functions"


def test_a_task_with_another_exit_code_fails(stack: WorkflowStack, name: str) -> None:
    parameters = override(Command=["sh", "-c", "echo no such column; exit 3"])
    ended = stack.run(name, run_task(stack.register(name), parameters=parameters))

    assert (ended["status"], ended["error"]) == ("FAILED", "States.TaskFailed")
    task = json.loads(ended["cause"])
    assert task["StopCode"] == "EssentialContainerExited"
    assert task["StoppedReason"] == "Essential container in task exited"
    assert [one["ExitCode"] for one in task["Containers"]] == [3]
    assert stack.log_lines(f"{name}/job/{task['TaskArn'].rpartition('/')[2]}") == ["no such column"]


def test_a_task_that_cannot_start_fails(stack: WorkflowStack, name: str) -> None:
    image = "123456789012.dkr.ecr.ap-northeast-1.amazonaws.com/job:gone"
    ended = stack.run(name, run_task(stack.register(name, {"image": image})))

    assert ended["error"] == "States.TaskFailed"
    task = json.loads(ended["cause"])
    assert task["StopCode"] == "TaskFailedToStart"
    assert "CannotPullContainerError" in task["StoppedReason"]


def test_a_task_that_somebody_stops_fails(stack: WorkflowStack, name: str) -> None:
    parameters = override(Command=["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"])
    state = run_task(stack.register(name), parameters=parameters)
    execution = stack.begin(stack.create_machine(name, machine(state)))
    task = running_task(stack, name)
    stack.client("ecs").stop_task(cluster=CLUSTER, task=task["taskArn"], reason="enough")

    ended = stack.end(execution)
    assert ended["error"] == "States.TaskFailed"
    assert json.loads(ended["cause"])["StoppedReason"] == "enough"


def test_only_essential_containers_count(stack: WorkflowStack, name: str) -> None:
    aside = {"name": "aside", "essential": False, "command": ["sh", "-c", "exit 1"]}
    main = {"command": ["sh", "-c", "sleep 0.5"]}
    ended = stack.run(name, run_task(stack.register(name, main, aside)))

    codes = {one["Name"]: one["ExitCode"] for one in ended["output"]["Containers"]}
    assert codes == {"job": 0, "aside": 1}


def test_every_essential_container_counts(stack: WorkflowStack, name: str) -> None:
    other = {"name": "other", "command": ["sleep", "60"]}
    ended = stack.run(name, run_task(stack.register(name, {}, other)))

    codes = {one["Name"]: one["ExitCode"] for one in json.loads(ended["cause"])["Containers"]}
    assert codes == {"job": 0, "other": 143}


def test_a_task_on_fargate(stack: WorkflowStack, name: str) -> None:
    arn = stack.register(
        name,
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
    )
    vpc = {"AwsvpcConfiguration": {"Subnets": ["subnet-1"], "SecurityGroups": ["sg-1"]}}
    state = run_task(arn, parameters={"LaunchType": "FARGATE", "NetworkConfiguration": vpc})
    ended = stack.run(name, state)
    assert ended["output"]["LaunchType"] == "FARGATE"
    assert ended["output"]["Attachments"][0]["Type"] == "ElasticNetworkInterface"


@pytest.mark.parametrize(
    ("definition", "parameters", "error", "part"),
    [
        ("gone:1", {}, "ECS.ClientException", "Unable to describe task definition"),
        ("", {"Cluster": "gone"}, "ECS.ClusterNotFoundException", "Cluster not found"),
        (
            "",
            {"Overrides": {"ContainerOverrides": [{"Name": "gone"}]}},
            "ECS.InvalidParameterException",
            "Override for container named gone",
        ),
        ("", {"LaunchType": "FARGATE"}, "ECS.InvalidParameterException", "FARGATE"),
        (
            "",
            {"NetworkConfiguration": {"AwsvpcConfiguration": {"Subnets": ["subnet-1"]}}},
            "ECS.InvalidParameterException",
            "networkMode",
        ),
        ("", {"Overrides": {"Gone": 1}}, "States.Runtime", '"Gone" is not supported'),
        ("", {"LaunchType": 3}, "States.Runtime", "could not be used to start the Task"),
    ],
)
def test_what_run_task_refuses(
    stack: WorkflowStack,
    name: str,
    definition: str,
    parameters: dict[str, Any],
    error: str,
    part: str,
) -> None:
    own = stack.register(name)
    ended = stack.run(name, run_task(definition or own, parameters=parameters))
    assert ended["error"] == error
    assert part in ended["cause"]
    assert [one for one in stack.tasks() if one["group"] == f"family:{name}"] == []


@pytest.mark.parametrize(
    ("container", "reason"), [({"memory": 9999}, "MEMORY"), ({"cpu": 9999}, "CPU")]
)
def test_a_task_that_fits_nowhere(
    stack: WorkflowStack, name: str, container: dict[str, Any], reason: str
) -> None:
    ended = stack.run(name, run_task(stack.register(name, container)))

    assert ended["error"] == "AmazonECS.Unknown"
    (failure,) = json.loads(ended["cause"])["Failures"]
    assert failure["Reason"] == f"RESOURCE:{reason}"
    assert ":container-instance/" in failure["Arn"]


def test_a_task_whose_host_port_is_taken(stack: WorkflowStack, name: str) -> None:
    ports = [{"containerPort": 80, "hostPort": 18081}]
    arn = stack.register(name, {"portMappings": ports, "command": ["sleep", "60"]})
    ecs = stack.client("ecs")
    (first,) = ecs.run_task(cluster=CLUSTER, taskDefinition=arn)["tasks"]
    ended = stack.run(name, run_task(arn))
    assert ended["error"] == "AmazonECS.Unknown"
    assert json.loads(ended["cause"])["Failures"][0]["Reason"] == "RESOURCE:PORTS"

    ecs.stop_task(cluster=CLUSTER, task=first["taskArn"])
    stopped_task(stack, name)
    answer = ecs.run_task(cluster=CLUSTER, taskDefinition=arn)
    assert answer["failures"] == []
    ecs.stop_task(cluster=CLUSTER, task=answer["tasks"][0]["taskArn"])


def test_a_task_is_stopped_when_its_state_times_out(stack: WorkflowStack, name: str) -> None:
    parameters = override(Command=["sleep", "60"])
    state = run_task(
        stack.register(name), parameters=parameters, TimeoutSecondsPath="$.migration.seconds"
    )
    execution = stack.begin(
        stack.create_machine(name, machine(state)), {"migration": {"seconds": 6}}
    )
    assert stack.end(execution)["error"] == "States.Timeout"
    assert stack.types(execution)[-2:] == ["TaskTimedOut", "ExecutionFailed"]
    task = stopped_task(stack, name)
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == ("UserInitiated", 143)


def test_a_task_is_stopped_with_its_execution(stack: WorkflowStack, name: str) -> None:
    parameters = override(Command=["sleep", "60"])
    state = run_task(stack.register(name), parameters=parameters)
    execution = stack.begin(stack.create_machine(name, machine(state)))
    running_task(stack, name)
    stack.stop_execution(execution)

    assert stack.end(execution)["status"] == "ABORTED"
    assert stopped_task(stack, name)["stopCode"] == "UserInitiated"
    assert stack.types(execution)[-1] == "ExecutionAborted"


def test_a_caught_failure_of_a_task_is_described(stack: WorkflowStack, name: str) -> None:
    state = run_task(
        stack.register(name, {"command": ["sh", "-c", "exit 9"]}),
        Catch=[{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.error", "Next": "Caught"}],
    )
    definition = machine(state)
    definition["States"]["Caught"] = {"Type": "Succeed"}
    ended = stack.end(stack.begin(stack.create_machine(name, definition), {"a": 1}))
    assert ended["output"]["a"] == 1
    assert ended["output"]["error"]["Error"] == "States.TaskFailed"
    task = json.loads(ended["output"]["error"]["Cause"])
    assert task["Containers"][0]["ExitCode"] == 9


def test_a_task_by_hand(stack: WorkflowStack, name: str) -> None:
    arn = stack.register(name, {}, {"name": "aside", "essential": False})
    overrides = {
        "containerOverrides": [
            {"name": "job", "command": ["sh", "-c", "echo $A; exit 4"]}
            | {"environment": [{"name": "A", "value": "by hand"}]}
        ]
    }
    answer = stack.client("ecs").run_task(
        cluster=CLUSTER, taskDefinition=arn, overrides=overrides, startedBy="me"
    )
    (task,) = answer["tasks"]
    assert task["overrides"]["containerOverrides"][1] == {"name": "aside"}
    found = stopped_task(stack, name)
    codes = {one["name"]: one.get("exitCode") for one in found["containers"]}
    assert (codes["job"], found["startedBy"]) == (4, "me")
    assert stack.log_lines(f"{name}/job/{task['taskArn'].rpartition('/')[2]}") == ["by hand"]


def test_a_workflow_that_does_not_wait_goes_on(stack: WorkflowStack, name: str) -> None:
    state = run_task(stack.register(name, {"memory": 9999}))
    state["Resource"] = "arn:aws:states:::ecs:runTask"
    ended = stack.run(name, state)
    assert ended["status"] == "SUCCEEDED"
    assert ended["output"]["Failures"][0]["Reason"] == "RESOURCE:MEMORY"


@pytest.mark.parametrize(
    "state",
    [
        {"Resource": "arn:aws:states:::ecs:stopTask"},
        {"Resource": "arn:aws:states:::ecs:runTask.sync:2"},
        {"Resource": "arn:aws:states:::sns:publish"},
        {"Resource": RUN_TASK, "Parameters": {"Clusters": "a"}},
        {"Resource": RUN_TASK, "Parameters": {"Cluster": "a", "StartedBy": "me"}},
    ],
)
def test_a_machine_with_what_there_is_not_is_refused(
    stack: WorkflowStack, name: str, state: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as error:
        stack.create_machine(name, machine({"Type": "Task", **state}))
    assert error.value.response["Error"]["Code"] == "InvalidDefinition"


@pytest.mark.parametrize(
    ("caught", "status"), [("States.ALL", "FAILED"), ("States.Runtime", "SUCCEEDED")]
)
def test_a_path_to_nothing_has_to_be_caught_by_name(
    stack: WorkflowStack, name: str, caught: str, status: str
) -> None:
    state = run_task(
        stack.register(name),
        parameters={"Group.$": "$.gone"},
        Catch=[{"ErrorEquals": [caught], "Next": "Caught"}],
    )
    definition = machine(state)
    definition["States"]["Caught"] = {"Type": "Succeed"}
    ended = stack.end(stack.begin(stack.create_machine(name, definition)))
    assert (ended["status"], ended.get("error")) == (
        status,
        "States.Runtime" if status == "FAILED" else None,
    )


# ------------------------------------------------------------------------------- task tokens


def wait_for_token(function: str, **more: Any) -> dict[str, Any]:
    payload = {"for": function, "token.$": "$$.Task.Token", "request.$": "$"}
    return {
        "Type": "Task",
        "Resource": WAIT_FOR_TOKEN,
        "Parameters": {"FunctionName": function, "Payload": payload},
        **more,
    }


def waits(stack: WorkflowStack, name: str, request: Any = None, **more: Any) -> tuple[str, str]:
    """Start an execution that waits for a token; both."""
    stack.create_function(name, KEEPS_THE_TOKEN, Timeout=30)
    arn = stack.create_machine(name, machine(wait_for_token(name, **more)))
    execution = stack.begin(arn, request)
    until(lambda: "TaskSubmitted" in stack.types(execution))
    return execution, token_of(stack, name)


def token_of(stack: WorkflowStack, name: str) -> str:
    ssm = stack.client("ssm")

    def look() -> str | None:
        try:
            return str(ssm.get_parameter(Name=f"/token/{name}")["Parameter"]["Value"])
        except ssm.exceptions.ParameterNotFound:
            return None

    return until(look)


def refusal(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


def test_the_answer_to_a_token_is_the_output(stack: WorkflowStack, name: str) -> None:
    execution, token = waits(stack, name)
    client = stack.client("stepfunctions")
    client.send_task_heartbeat(taskToken=token)
    client.send_task_success(taskToken=token, output=json.dumps({"by": "me"}))

    assert stack.end(execution)["output"] == {"by": "me"}
    assert stack.types(execution)[2:6] == [
        "TaskScheduled",
        "TaskStarted",
        "TaskSubmitted",
        "TaskSucceeded",
    ]


def test_a_failure_by_token_fails_the_state(stack: WorkflowStack, name: str) -> None:
    execution, token = waits(stack, name)
    stack.client("stepfunctions").send_task_failure(
        taskToken=token, error="Rejected", cause="not today"
    )
    ended = stack.end(execution)
    assert (ended["error"], ended["cause"]) == ("Rejected", "not today")
    assert stack.types(execution)[-2] == "TaskFailed"


def test_a_second_answer_is_too_late(stack: WorkflowStack, name: str) -> None:
    execution, token = waits(stack, name)
    client = stack.client("stepfunctions")
    client.send_task_success(taskToken=token, output='"first"')
    assert refusal(client.send_task_failure, taskToken=token, error="Second") == "TaskTimedOut"
    assert stack.end(execution)["output"] == "first"
    assert refusal(client.send_task_success, taskToken=token, output="1") == "TaskTimedOut"
    assert refusal(client.send_task_heartbeat, taskToken=token) == "TaskTimedOut"


def test_of_many_answers_at_once_one_is_taken(stack: WorkflowStack, name: str) -> None:
    execution, token = waits(stack, name)
    client = stack.client("stepfunctions")
    taken: list[int] = []

    def answer(number: int) -> None:
        try:
            client.send_task_success(taskToken=token, output=str(number))
        except client.exceptions.TaskTimedOut:
            return
        taken.append(number)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [stack.end(execution)["output"]] == taken


def test_an_answer_after_a_stop_is_too_late(stack: WorkflowStack, name: str) -> None:
    execution, token = waits(stack, name)
    stack.stop_execution(execution)
    client = stack.client("stepfunctions")
    assert refusal(client.send_task_success, taskToken=token, output="1") == "TaskTimedOut"
    assert stack.end(execution)["status"] == "ABORTED"


def test_an_answer_after_the_timeout_is_too_late(stack: WorkflowStack, name: str) -> None:
    execution, token = waits(stack, name, {"limit": 10}, TimeoutSecondsPath="$.limit")
    ended = stack.end(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Timeout")
    client = stack.client("stepfunctions")
    assert refusal(client.send_task_success, taskToken=token, output="1") == "TaskTimedOut"


def test_what_is_no_token_or_no_json_is_refused(stack: WorkflowStack, name: str) -> None:
    execution, token = waits(stack, name)
    client = stack.client("stepfunctions")
    assert refusal(client.send_task_success, taskToken="gone", output="1") == "InvalidToken"
    assert refusal(client.send_task_failure, taskToken="gone") == "InvalidToken"
    assert refusal(client.send_task_success, taskToken=token, output="{") == "InvalidOutput"
    client.send_task_success(taskToken=token, output="1")
    assert stack.end(execution)["output"] == 1


@pytest.mark.parametrize("caught", ["States.HeartbeatTimeout", "States.Timeout"])
def test_a_missing_heartbeat(stack: WorkflowStack, name: str, caught: str) -> None:
    stack.create_function(name, KEEPS_THE_TOKEN, Timeout=30)
    state = wait_for_token(
        name,
        HeartbeatSeconds=1,
        TimeoutSeconds=60,
        Catch=[{"ErrorEquals": [caught], "Next": "Caught"}],
    )
    definition = machine(state)
    definition["States"]["Caught"] = {"Type": "Succeed"}
    ended = stack.end(stack.begin(stack.create_machine(name, definition)))
    assert ended["output"]["Error"] == "States.Timeout"


def test_heartbeats_keep_it_waiting(stack: WorkflowStack, name: str) -> None:
    execution, token = waits(stack, name, HeartbeatSeconds=4)
    client = stack.client("stepfunctions")
    pause = threading.Event()
    for _ in range(6):
        pause.wait(1)
        client.send_task_heartbeat(taskToken=token)
    client.send_task_success(taskToken=token, output="1")
    assert stack.end(execution)["status"] == "SUCCEEDED"


def test_an_answer_before_the_function_returns(stack: WorkflowStack, name: str) -> None:
    code = (
        "import boto3\n"
        "def handler(event, context):\n"
        "    boto3.client('stepfunctions').send_task_success(\n"
        "        taskToken=event['token'], output='\"early\"')\n"
    )
    stack.create_function(name, code, Timeout=30)
    ended = stack.run(name, wait_for_token(name, HeartbeatSeconds=30, TimeoutSeconds=40))
    assert ended["output"] == "early"


def test_a_function_that_raises_fails_the_state(stack: WorkflowStack, name: str) -> None:
    stack.create_function(name, RAISES)
    ended = stack.run(name, wait_for_token(name))
    assert ended["error"] == "Broken"
    assert json.loads(ended["cause"])["errorMessage"] == "no paper"


def test_a_function_that_does_not_exist(stack: WorkflowStack, name: str) -> None:
    ended = stack.run(name, wait_for_token(name))
    assert ended["error"] == "Lambda.ResourceNotFoundException"


def test_every_attempt_has_a_token_of_its_own(stack: WorkflowStack, name: str) -> None:
    execution, first = waits(
        stack,
        name,
        Retry=[{"ErrorEquals": ["Again"], "IntervalSeconds": 1, "MaxAttempts": 1}],
    )
    client = stack.client("stepfunctions")
    client.send_task_failure(taskToken=first, error="Again")
    second = until(lambda: (token := token_of(stack, name)) != first and token)
    client.send_task_success(taskToken=second, output='"second"')
    assert stack.end(execution)["output"] == "second"


def test_the_workflow_is_who_calls(stack: WorkflowStack, name: str) -> None:
    execution, token = waits(stack, name)
    stack.client("stepfunctions").send_task_success(taskToken=token, output="1")
    stack.end(execution)
    calls = {(c["function"], c["operation"]) for c in stack.control("GET", "operations")}
    assert ("StepFunctions", "InvokeFunction") in calls


# -------------------------------------------------------------------------- child executions


def child_of(arn: str, **more: Any) -> dict[str, Any]:
    parameters = {"StateMachineArn": arn, "Input.$": "$", **more.pop("parameters", {})}
    return {"Type": "Task", "Resource": START_EXECUTION, "Parameters": parameters, **more}


def execution_of(arn: str, name: str) -> str:
    return f"{arn.replace(':stateMachine:', ':execution:')}:{name}"


def test_the_output_of_a_child_is_json(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Pass"}))
    parent = stack.create_machine(name, machine(child_of(child, parameters={"Name": name})))
    execution = stack.begin(parent, {"a": [1]})
    output = stack.end(execution)["output"]

    assert (output["Status"], output["Name"]) == ("SUCCEEDED", name)
    assert (output["Input"], output["Output"]) == ({"a": [1]}, {"a": [1]})
    assert output["ExecutionArn"] == execution_of(child, name)
    assert output["StateMachineArn"] == child
    assert 0 < output["StartDate"] <= output["StopDate"]
    assert stack.types(execution)[2:6] == [
        "TaskScheduled",
        "TaskStarted",
        "TaskSubmitted",
        "TaskSucceeded",
    ]
    changes = [
        event["detail"]["status"]
        for event in stack.control("GET", "events")
        if event["detail"].get("executionArn") == output["ExecutionArn"]
    ]
    assert changes == ["RUNNING", "SUCCEEDED"]


def test_a_child_that_fails_fails_the_state(stack: WorkflowStack, name: str) -> None:
    fail = {"Type": "Fail", "Error": "Bad", "Cause": "because"}
    fail_machine = {"StartAt": "Only", "States": {"Only": fail}}
    child = stack.create_machine(f"{name}-child", fail_machine)
    ended = stack.run(name, child_of(child), {"a": 1})

    assert ended["error"] == "States.TaskFailed"
    described = json.loads(ended["cause"])
    assert (described["Status"], described["Error"], described["Cause"]) == (
        "FAILED",
        "Bad",
        "because",
    )
    assert described["Input"] == {"a": 1}


@pytest.mark.parametrize(
    ("definition", "status"),
    [
        (machine({"Type": "Wait", "Seconds": 60}, TimeoutSeconds=1), "TIMED_OUT"),
        (machine({"Type": "Wait", "Seconds": 60}), "ABORTED"),
    ],
)
def test_a_child_that_is_ended_fails_the_state(
    stack: WorkflowStack, name: str, definition: dict[str, Any], status: str
) -> None:
    child = stack.create_machine(f"{name}-child", definition)
    parent = stack.create_machine(name, machine(child_of(child, parameters={"Name": name})))
    execution = stack.begin(parent)
    until(lambda: "TaskSubmitted" in stack.types(execution))
    if status == "ABORTED":
        stack.stop_execution(execution_of(child, name))

    ended = stack.end(execution)
    assert ended["error"] == "States.TaskFailed"
    assert json.loads(ended["cause"])["Status"] == status


def test_a_child_is_stopped_with_its_parent(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Wait", "Seconds": 60}))
    parent = stack.create_machine(name, machine(child_of(child, parameters={"Name": name})))
    execution = stack.begin(parent)
    until(lambda: "TaskSubmitted" in stack.types(execution))
    stack.stop_execution(execution)

    assert stack.end(execution_of(child, name))["status"] == "ABORTED"


def test_a_child_is_stopped_when_its_state_times_out(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Wait", "Seconds": 60}))
    state = child_of(child, parameters={"Name": name}, TimeoutSeconds=1)
    assert stack.run(name, state)["error"] == "States.Timeout"
    assert stack.end(execution_of(child, name))["status"] == "ABORTED"


def test_a_child_that_runs_already_is_waited_for(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Wait", "Seconds": 6}))
    state = child_of(child, parameters={"Name": name})
    begun = stack.begin(child, {"a": 1}, name)
    ended = stack.run(name, state, {"a": 1})
    assert ended["output"]["ExecutionArn"] == begun

    again = stack.end(stack.begin(ended["stateMachineArn"], {"a": 1}))
    assert again["error"] == "StepFunctions.ExecutionAlreadyExistsException"


def test_a_child_with_another_input_is_refused(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Wait", "Seconds": 60}))
    begun = stack.begin(child, {"a": 1}, name)
    ended = stack.run(name, child_of(child, parameters={"Name": name}), {"a": 2})
    assert ended["error"] == "StepFunctions.ExecutionAlreadyExistsException"
    stack.stop_execution(begun)


def test_a_machine_that_does_not_exist(stack: WorkflowStack, name: str) -> None:
    arn = "arn:aws:states:ap-northeast-1:123456789012:stateMachine:gone"
    ended = stack.run(name, child_of(arn))
    assert ended["error"] == "StepFunctions.StateMachineDoesNotExistException"


def test_executions_are_started_one_after_the_other() -> None:
    """Else two with one name at the same moment would both look, find none, and start."""
    running: list[str] = []
    most: list[int] = []
    pause = threading.Event()

    def plain(_backend: Any, _arn: str, name: str, *_more: Any) -> None:
        running.append(name)
        most.append(len(running))
        pause.wait(0.02)
        running.remove(name)

    start = with_own_name(plain)
    backend = SimpleNamespace(_validate_name=lambda _name: None)
    threads = [threading.Thread(target=start, args=(backend, "arn", "same")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


# -------------------------------------------------------------------------------------- Map


def each(states: dict[str, Any], first: str, **more: Any) -> dict[str, Any]:
    processor = {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": first, "States": states}
    return {"Type": "Map", "ItemsPath": "$.items", "ItemProcessor": processor, **more}


def test_a_map_runs_its_items_in_order_of_the_input(stack: WorkflowStack, name: str) -> None:
    state = each(
        {
            "One": {
                "Type": "Pass",
                "Parameters": {"all.$": "$", "again.$": "$$.Map.Item.Index"},
                "End": True,
            }
        },
        "One",
        ItemSelector={
            "item.$": "$$.Map.Item.Value",
            "index.$": "$$.Map.Item.Index",
            "title.$": "$.title",
        },
        MaxConcurrencyPath="$.at_once",
        ResultPath="$.results",
    )
    request = {"items": ["a", "b", "c"], "title": "t", "at_once": 1}
    execution = stack.begin(stack.create_machine(name, machine(state)), request)
    output = stack.end(execution)["output"]
    assert output == {
        **request,
        "results": [
            {"all": {"item": item, "index": index, "title": "t"}, "again": index}
            for index, item in enumerate("abc")
        ],
    }
    types = stack.types(execution)
    assert types[1:5] == [
        "MapStateEntered",
        "MapStateStarted",
        "MapIterationStarted",
        "PassStateEntered",
    ]
    assert types.count("MapIterationSucceeded") == 3
    assert types[-3:] == ["MapStateSucceeded", "MapStateExited", "ExecutionSucceeded"]


def test_a_task_of_an_iteration_knows_its_item(stack: WorkflowStack, name: str) -> None:
    stack.create_function(name, "def handler(event, context):\n    return event\n")
    invoke = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {
            "FunctionName": name,
            "Payload": {"value.$": "$$.Map.Item.Value", "input.$": "$"},
        },
        "OutputPath": "$.Payload",
        "End": True,
    }
    ended = stack.run(name, each({"One": invoke}, "One"), {"items": [7, 8]})
    assert ended["output"] == [{"value": 7, "input": 7}, {"value": 8, "input": 8}]


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (2, 2), (0, 3)])
def test_no_more_iterations_at_once_than_wanted(
    stack: WorkflowStack, name: str, at_once: int, most: int
) -> None:
    wait = {"Type": "Wait", "Seconds": 2, "End": True}
    state = each({"One": wait}, "One", MaxConcurrency=at_once)
    execution = stack.begin(stack.create_machine(name, machine(state)), {"items": [1, 2, 3]})
    stack.end(execution)

    changes = {"MapIterationStarted": 1, "MapIterationSucceeded": -1}
    running = itertools.accumulate(changes.get(kind, 0) for kind in stack.types(execution))
    assert max(running) == most


def test_a_map_of_nothing(stack: WorkflowStack, name: str) -> None:
    state = each({"One": {"Type": "Pass", "End": True}}, "One")
    assert stack.run(name, state, {"items": []})["output"] == []


def test_an_error_caught_in_an_iteration_is_its_result(stack: WorkflowStack, name: str) -> None:
    arn = stack.create_function(name, RAISES)
    states = {
        "One": {
            "Type": "Task",
            "Resource": arn,
            "Catch": [{"ErrorEquals": ["Broken"], "ResultPath": "$.error", "Next": "Caught"}],
            "End": True,
        },
        "Caught": {"Type": "Pass", "OutputPath": "$.error.Error", "End": True},
    }
    ended = stack.run(name, each(states, "One"), {"items": [{"n": 1}, {"n": 2}]})
    assert ended["output"] == ["Broken", "Broken"]


def test_an_iteration_that_fails_aborts_the_others(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Wait", "Seconds": 60}))
    states = {
        "Which": {
            "Type": "Choice",
            "Choices": [{"Variable": "$", "StringEquals": "fails", "Next": "Fails"}],
            "Default": "Child",
        },
        "Fails": {**wait_for_token(name), "End": True},
        "Child": {
            **child_of(child, parameters={"Name.$": "$", "Input": {}}),
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Never"}],
            "End": True,
        },
        "Never": {"Type": "Pass", "End": True},
    }
    definition = machine(each(states, "Which", Catch=[{"ErrorEquals": ["Bad"], "Next": "Caught"}]))
    definition["States"]["Caught"] = {"Type": "Wait", "Seconds": 1, "End": True}
    request = {"items": [f"{name}-a", "fails", f"{name}-b"]}
    stack.create_function(name, KEEPS_THE_TOKEN, Timeout=30)
    execution = stack.begin(stack.create_machine(name, definition), request)
    until(lambda: stack.types(execution).count("TaskSubmitted") == 3)
    stack.client("stepfunctions").send_task_failure(
        taskToken=token_of(stack, name), error="Bad", cause="because"
    )

    assert stack.end(execution)["output"] == {"Error": "Bad", "Cause": "because"}
    for other in ("a", "b"):
        assert stack.end(execution_of(child, f"{name}-{other}"))["status"] == "ABORTED"
    types = stack.types(execution)
    after = types[types.index("MapIterationFailed") :]
    assert after == [
        "MapIterationFailed",
        "MapIterationAborted",
        "MapIterationAborted",
        "MapStateFailed",
        "MapStateExited",
        "WaitStateEntered",
        "WaitStateExited",
        "ExecutionSucceeded",
    ]


def test_a_timeout_in_an_iteration_fails_the_map(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Wait", "Seconds": 60}))
    state = each({"One": {**child_of(child, TimeoutSecondsPath="$.limit"), "End": True}}, "One")
    ended = stack.run(name, state, {"items": [{"limit": 1}]})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Timeout")


def test_a_map_ends_with_its_execution(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Wait", "Seconds": 60}))
    one = {**child_of(child, parameters={"Name.$": "$", "Input": {}}), "End": True}
    execution = stack.begin(
        stack.create_machine(name, machine(each({"One": one}, "One"))),
        {"items": [f"{name}-a", f"{name}-b"]},
    )
    until(lambda: stack.types(execution).count("TaskSubmitted") == 2)
    stack.stop_execution(execution)
    for other in ("a", "b"):
        assert stack.end(execution_of(child, f"{name}-{other}"))["status"] == "ABORTED"
    assert stack.types(execution)[-1] == "ExecutionAborted"


def test_an_execution_that_times_out_stops_what_it_started(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Wait", "Seconds": 60}))
    state = child_of(child, parameters={"Name": name})
    execution = stack.begin(stack.create_machine(name, machine(state, TimeoutSeconds=1)))
    assert stack.end(execution)["status"] == "TIMED_OUT"
    assert stack.end(execution_of(child, name))["status"] == "ABORTED"
    assert stack.types(execution)[-1] == "ExecutionTimedOut"


def test_a_branch_that_fails_stops_the_others(stack: WorkflowStack, name: str) -> None:
    child = stack.create_machine(f"{name}-child", machine({"Type": "Wait", "Seconds": 60}))
    branches = [
        machine(child_of(child, parameters={"Name": name})),
        machine(wait_for_token(name)),
    ]
    stack.create_function(name, KEEPS_THE_TOKEN, Timeout=30)
    definition = machine({"Type": "Parallel", "Branches": branches})
    execution = stack.begin(stack.create_machine(name, definition))
    until(lambda: stack.types(execution).count("TaskSubmitted") == 2)
    stack.client("stepfunctions").send_task_failure(taskToken=token_of(stack, name), error="Bad")
    ended = stack.end(execution)
    assert ended["error"] == "Bad"
    assert stack.end(execution_of(child, name))["status"] == "ABORTED"
