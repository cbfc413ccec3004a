"""An execution that waits for approval: moto runs just that state, with its own task tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import moto.stepfunctions.parser.models  # noqa: F401 - its backend has to be known to moto
from moto.core.config import default_user_config
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

import request_approval
from runtime import clients
from tests.functions.hook_functions import HookFunctions
from tests.functions.world import ACCOUNT, MACHINE, REGION, World

END_SECONDS = 10.0


class Waiting:
    """data: ``$`` of the deployment that asks. seconds: until its time is up."""

    def __init__(
        self, world: World, functions: HookFunctions, data: dict[str, Any], seconds: int = 60
    ) -> None:
        self._world = world
        functions.functions["request-approval"] = lambda event: request_approval.handler(
            event, None
        )
        client = clients.stepfunctions()
        # The deployer's own, so that the execution is the deployment's.
        client.update_state_machine(
            stateMachineArn=MACHINE,
            definition=json.dumps(
                {
                    "StartAt": "RequestApproval",
                    "States": {
                        "RequestApproval": {
                            "Type": "Task",
                            "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
                            "Parameters": {
                                "FunctionName": "request-approval",
                                "Payload": {
                                    "token.$": "$$.Task.Token",
                                    "execution.$": "$$.Execution",
                                    "data.$": "$",
                                },
                            },
                            "TimeoutSeconds": seconds,
                            "End": True,
                        }
                    },
                }
            ),
        )
        self.arn = client.start_execution(
            stateMachineArn=MACHINE, name="d-1", input=json.dumps(data)
        )["executionArn"]
        self.until(lambda: world.record().approval is not None)

    def ended(self) -> tuple[str, Any]:
        """How the execution has ended, and its output."""
        client = clients.stepfunctions()
        self.until(lambda: client.describe_execution(executionArn=self.arn)["status"] != "RUNNING")
        found = client.describe_execution(executionArn=self.arn)
        return found["status"], json.loads(found.get("output") or "null")

    @staticmethod
    def until(there: Callable[[], bool]) -> None:
        """moto tells nobody when its interpreter has come so far."""
        end = time.monotonic() + END_SECONDS
        while not there():
            assert time.monotonic() < end, "it did not come to that"
            time.sleep(0.01)


@contextmanager
def interpreting() -> Iterator[None]:
    """moto runs state machines meanwhile."""
    before = default_user_config["stepfunctions"]
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    try:
        yield
    finally:
        stepfunctions_parser_backends[ACCOUNT][REGION].reset()
        default_user_config["stepfunctions"] = before
