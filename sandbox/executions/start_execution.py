"""``states:startExecution``, ``.sync`` and ``.sync:2``.

What the service does (developer guide of Step Functions, connect-stepfunctions): the output of the
latter two is the description of the child, with its output as text or, ``.sync:2``, as JSON. A
child that did not succeed is ``States.TaskFailed``, and the cause is its description as JSON.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.asl.eval.environment import Environment

from sandbox.executions.integration import (
    Clients,
    Integration,
    TaskFailed,
    look_until_ended,
    raised,
)

LOG = logging.getLogger(__name__)


class StartExecution(Integration):
    """A Task state that starts an execution of a state machine."""

    service = "stepfunctions"
    action = "startExecution"
    conditions = (None, "sync", "sync:2")
    fields = frozenset({"Input", "Name", "StateMachineArn", "TraceHeader"})
    errors = "StepFunctions"
    other_error = "AWSStepFunctionsException"

    def submit(self, parameters: dict[str, Any]) -> Any:
        """Start the child; its input may be any JSON, or that as text."""
        given = parameters.get("Input", {})
        text = given if isinstance(given, str) else json.dumps(given)
        return self.call("StartExecution", {**parameters, "Input": text})

    def wait(self, env: Environment, submitted: Any) -> Any:
        """Wait until the child has ended."""
        client = Clients.of(self.service)
        arn = submitted["ExecutionArn"]
        shape = client.meta.service_model.operation_model("DescribeExecution").output_shape

        def look() -> Any | None:
            child = client.describe_execution(executionArn=arn)
            child.pop("ResponseMetadata")
            return None if child["status"] == ExecutionStatus.RUNNING else raised(child, shape)

        def stop() -> None:
            try:
                client.stop_execution(executionArn=arn)
            except (ClientError, BotoCoreError):
                LOG.warning("cannot stop the execution %s", arn, exc_info=True)

        child = look_until_ended(env, look, stop)
        if self.resource.condition == "sync:2":
            child |= {key: json.loads(child[key]) for key in ("Input", "Output") if key in child}
        if child["Status"] != ExecutionStatus.SUCCEEDED:
            raise TaskFailed("States.TaskFailed", json.dumps(child))
        return child
