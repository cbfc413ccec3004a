"""Functions that people create: their code runs, as Lambda runs it."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.workflow_stack import WorkflowStack, machine, until, zipped

ECHO = "def handler(event, context):\n    return {'got': event, 'name': context.function_name}\n"
SLEEPS = "import time\ndef handler(event, context):\n    time.sleep(60)\n"
PROCESS = "import os\ndef handler(event, context):\n    return os.getpid()\n"
RAISES = (
    "class Broken(Exception): ...\n"
    "def handler(event, context):\n    raise Broken(f\"no {event['what']}\")\n"
)
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkflowStack]:
    running = WorkflowStack(tmp_path_factory.mktemp("stack"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def name() -> str:
    return f"hook-{next(numbers)}"


def test_the_code_runs_with_its_event_and_environment(stack: WorkflowStack, name: str) -> None:
    code = (
        "import os, helper\n"
        "def handler(event, context):\n"
        "    return [helper.twice(event['n']), os.environ['COLOR'], context.function_name]\n"
    )
    stack.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role="arn:aws:iam::123456789012:role/any",
        Handler="app/index.handler",
        Code={
            "ZipFile": zipped(
                {"app/index.py": code, "helper.py": "def twice(n):\n    return 2 * n\n"}
            )
        },
        Environment={"Variables": {"COLOR": "green"}},
    )
    assert stack.invoke(name, {"n": 21}) == ([42, "green", name], None)


def test_what_it_raises_is_an_unhandled_error(stack: WorkflowStack, name: str) -> None:
    stack.create_function(name, RAISES)
    payload, error = stack.invoke(name, {"what": "paper"})
    assert error == "Unhandled"
    assert (payload["errorType"], payload["errorMessage"]) == ("Broken", "no paper")
    assert "handler" in payload["stackTrace"][-1]


def test_it_has_only_the_time_that_it_was_given(stack: WorkflowStack, name: str) -> None:
    stack.create_function(name, SLEEPS, Timeout=1)
    payload, error = stack.invoke(name, {})
    assert (error, payload["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    assert payload["errorMessage"].endswith("Task timed out after 1.00 seconds")


def test_new_code_runs_with_the_next_invocation(stack: WorkflowStack, name: str) -> None:
    stack.create_function(name, ECHO)
    assert stack.invoke(name, 1)[0]["got"] == 1
    stack.client("lambda").update_function_code(
        FunctionName=name,
        ZipFile=zipped({"index.py": "def handler(event, context):\n    return 'new'\n"}),
    )
    assert stack.invoke(name, 1) == ("new", None)


def test_a_new_configuration_holds_for_the_next_invocation(stack: WorkflowStack, name: str) -> None:
    stack.create_function(name, SLEEPS, Timeout=30)
    stack.client("lambda").update_function_configuration(FunctionName=name, Timeout=1)
    assert stack.invoke(name, {})[0]["errorType"] == "Sandbox.Timedout"


def test_one_that_was_deleted_is_not_found(stack: WorkflowStack, name: str) -> None:
    stack.create_function(name, ECHO)
    assert stack.invoke(name, 1)[1] is None
    stack.client("lambda").delete_function(FunctionName=name)
    with pytest.raises(ClientError) as error:
        stack.invoke(name, 1)
    assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_what_it_prints_is_in_its_log_group(stack: WorkflowStack, name: str) -> None:
    stack.create_function(name, "def handler(event, context):\n    print('hello', event)\n")
    stack.invoke(name, 7)
    logs = stack.client("logs")

    def lines() -> list[str]:
        found = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")
        return [event["message"] for event in found["events"]]

    assert "hello 7" in until(lines)


def test_an_event_is_tried_again(stack: WorkflowStack, name: str, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    code = (
        "import pathlib\n"
        "def handler(event, context):\n"
        f"    seen = pathlib.Path({str(seen)!r})\n"
        "    first = not seen.exists()\n"
        "    seen.open('a').write('x')\n"
        "    if first:\n        raise ValueError('again')\n"
    )
    stack.create_function(name, code)
    answer = stack.client("lambda").invoke(
        FunctionName=name, InvocationType="Event", Payload=json.dumps({})
    )
    assert answer["StatusCode"] == 202
    until(lambda: seen.exists() and len(seen.read_text()) == 2)


def test_it_calls_the_sandbox_as_aws(stack: WorkflowStack, name: str) -> None:
    code = (
        "import boto3\n"
        "def handler(event, context):\n"
        "    boto3.client('ssm').put_parameter(Name='/it', Value='was here', Type='String')\n"
    )
    stack.create_function(name, code, Timeout=30)
    assert stack.invoke(name, {}) == (None, None)
    parameter = stack.client("ssm").get_parameter(Name="/it")
    assert parameter["Parameter"]["Value"] == "was here"


def test_a_process_without_work_is_kept_for_a_while_only(tmp_path: Path) -> None:
    stack = WorkflowStack(tmp_path, idle_seconds=1.0)
    stack.start()
    try:
        for name in ("seldom", "often"):
            stack.create_function(name, PROCESS)
        seldom, often = (stack.invoke(name, {})[0] for name in ("seldom", "often"))
        assert stack.invoke("often", {})[0] == often
        until(lambda: stack.invoke("often", {})[0] and not is_running(seldom))
        assert stack.invoke("often", {})[0] == often, "it was never idle for long"
        assert stack.invoke("seldom", {})[0] != seldom
    finally:
        stack.stop()


def is_running(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


@pytest.mark.parametrize("resource", ["arn", "lambda:invoke"])
def test_a_workflow_runs_it(stack: WorkflowStack, name: str, resource: str) -> None:
    arn = stack.create_function(name, ECHO)
    state: dict[str, Any] = {"Type": "Task", "Resource": arn}
    if resource != "arn":
        state = {
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke",
            "Parameters": {"FunctionName": name, "Payload.$": "$"},
            "OutputPath": "$.Payload",
        }
    ended = stack.end(stack.begin(stack.create_machine(name, machine(state)), {"a": 1}))
    assert ended["output"] == {"got": {"a": 1}, "name": name}


def test_a_runtime_that_is_not_python_is_refused(stack: WorkflowStack, name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.js", "exports.handler = async () => 1")
    stack.client("lambda").create_function(
        FunctionName=name,
        Runtime="nodejs22.x",
        Role="arn:aws:iam::123456789012:role/any",
        Handler="index.handler",
        Code={"ZipFile": buffer.getvalue()},
    )
    payload, error = stack.invoke(name, {})
    assert error == "Unhandled"
    assert "Python only" in payload["errorMessage"]
