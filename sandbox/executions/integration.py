"""Service integrations: Task states that call another service and may wait for what it started.

What the service does here (developer guide of Step Functions, connect-to-resource):

- TaskScheduled and TaskStarted come before the call, TaskSubmitted after it where there is
  something to wait for, then TaskSucceeded, TaskFailed or TaskTimedOut.
- Parameters are written in PascalCase, also where the API is not; one that the integration does not
  have is refused. Answers are PascalCase too, with times in milliseconds since the epoch.
- When the state times out, the execution is stopped, or another branch or iteration fails, what
  was started is stopped.
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.model import ListShape, Shape, StructureShape
from moto.stepfunctions.parser.api import (
    HistoryEventExecutionDataDetails,
    HistoryEventType,
    TaskFailedEventDetails,
    TaskSubmittedEventDetails,
)
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent
from moto.stepfunctions.parser.asl.component.common.timeouts.timeout import EvalTimeoutError
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import (  # noqa: E501
    StateTaskService,
)
from moto.stepfunctions.parser.asl.component.state.state_props import StateProps
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

from sandbox.executions.errors import error_named
from sandbox.world import make_client

CALLER = "StepFunctions"
"""The access key under which the interpreter calls, as the operation log shows it."""

LOOK_SECONDS = 0.2
"""How often it looks whether what it waits for has ended."""

READ_SECONDS = 1000.0


class Clients:
    """Where integrations call; ``install`` of the package says it."""

    endpoint = ""

    @classmethod
    def of(cls, service: str) -> Any:
        """A client whose calls the operation log lists under ``CALLER``."""
        return make_client(service, cls.endpoint, access_key=CALLER, read_timeout=READ_SECONDS)

    @classmethod
    def unseen(cls, service: str) -> Any:
        """A client for what the service knows without a call."""
        return make_client(service, cls.endpoint)


class TaskFailed(Exception):
    """The state fails with this error and cause."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


class Integration(StateTaskService):
    """A Task state with the ``Resource`` of one action of one service.

    ``action`` is the API's action as in the resource, ``conditions`` the ways to wait that it has
    (None: not at all), ``fields`` the parameters that it has, ``errors`` the word before the dot of
    its errors, ``other_error`` the name for errors that the API's model does not have.
    """

    service: ClassVar[str]
    action: ClassVar[str]
    conditions: ClassVar[tuple[str | None, ...]]
    fields: ClassVar[frozenset[str]]
    errors: ClassVar[str]
    other_error: ClassVar[str]

    def from_state_props(self, state_props: StateProps) -> None:
        """Read the state; raises ValueError for what the service would refuse."""
        super().from_state_props(state_props)
        if self.resource.condition not in self.conditions:
            raise ValueError(f"The resource {self.resource.resource_arn} is not supported.")
        bindings = getattr(
            getattr(self.parargs, "template_eval_component", None), "payload_bindings", ()
        )
        for binding in bindings:
            if binding.field not in self.fields:
                raise ValueError(f'The field "{binding.field}" is not supported by Step Functions.')

    def _get_supported_parameters(self) -> set[str] | None:
        return set(self.fields) if self.resource.api_action == self.action else None

    def _get_sfn_resource(self) -> str:
        condition = self.resource.condition
        return str(self.resource.api_action) + (f".{condition}" if condition else "")

    # ------------------------------------------------------------------- what each one does

    @abstractmethod
    def submit(self, parameters: dict[str, Any]) -> Any:
        """Make the call; its answer in PascalCase."""

    @abstractmethod
    def wait(self, env: Environment, submitted: Any) -> Any:
        """Wait for the end of what was started; its description in PascalCase."""

    def complete(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters with what Step Functions adds to them."""
        return parameters

    # ------------------------------------------------------------------------ how it is run

    def _eval_parameters(self, env: Environment) -> dict[str, Any]:
        return self.complete(super()._eval_parameters(env))

    def _eval_service_task(
        self,
        env: Environment,
        resource_runtime_part: Any,  # noqa: ARG002 - there is one region
        normalised_parameters: dict[str, Any],
        state_credentials: Any,  # noqa: ARG002 - permissions are not enforced
    ) -> None:
        env.stack.append(self.submit(normalised_parameters))

    def _after_eval_execution(self, env: Environment, *args: Any, **more: Any) -> None:
        if self.resource.condition is not None:
            answer = env.stack.pop()
            self._tell_submitted(env, answer)
            env.stack.append(self.wait(env, answer))
        super()._after_eval_execution(env, *args, **more)

    def _tell_submitted(self, env: Environment, answer: Any) -> None:
        details = TaskSubmittedEventDetails(
            resource=self._get_sfn_resource(),
            resourceType=self._get_sfn_resource_type(),
            output=json.dumps(answer),
            outputDetails=HistoryEventExecutionDataDetails(truncated=False),
        )
        env.event_manager.add_event(
            context=env.event_history_context,
            event_type=HistoryEventType.TaskSubmitted,
            event_details=EventDetails(taskSubmittedEventDetails=details),
        )

    def call(self, operation: str, parameters: Mapping[str, Any]) -> Any:
        """Call ``operation`` (PascalCase) with parameters in PascalCase; its answer likewise.

        Raises TaskFailed.
        """
        client = Clients.of(self.service)
        model = client.meta.service_model.operation_model(operation)
        try:
            given = lowered(dict(parameters), model.input_shape)
            method = client.meta.method_to_api_mapping
            name = next(python for python, api in method.items() if api == operation)
            answer = getattr(client, name)(**given)
        except (ParamValidationError, UnknownFieldError) as error:
            raise TaskFailed(
                "States.Runtime",
                f"The Parameters '{json.dumps(dict(parameters))}' could not be used to start the "
                f"Task: [{error}]",
            ) from error
        except ClientError as error:
            modelled = {shape.name for shape in model.error_shapes}
            raise TaskFailed(self._name(error, modelled), _cause(error, self.errors)) from error
        except BotoCoreError as error:
            raise TaskFailed(f"{self.errors}.SdkClientException", str(error)) from error
        answer.pop("ResponseMetadata", None)
        return raised(answer, model.output_shape)

    def _name(self, error: ClientError, modelled: set[str]) -> str:
        code = error.response["Error"]["Code"]
        if code not in modelled:
            return f"{self.errors}.{self.other_error}"
        return f"{self.errors}.{code.removesuffix('Exception')}Exception"

    def _from_error(self, env: Environment, ex: Exception) -> FailureEvent:
        if not isinstance(ex, TaskFailed):
            return super()._from_error(env=env, ex=ex)
        return FailureEvent(
            env=env,
            error_name=error_named(ex.error),
            event_type=HistoryEventType.TaskFailed,
            event_details=EventDetails(
                taskFailedEventDetails=TaskFailedEventDetails(
                    error=ex.error,
                    cause=ex.cause,
                    resource=self._get_sfn_resource(),
                    resourceType=self._get_sfn_resource_type(),
                )
            ),
        )


def look_until_ended(
    env: Environment, look: Callable[[], Any | None], stop: Callable[[], None]
) -> Any:
    """Ask ``look`` again and again until it has something to say.

    A question that fails is asked again: what was started goes on all the same. When the state is
    not to run any longer, ``stop`` is called. Raises EvalTimeoutError then.
    """
    while env.is_running():
        try:
            found = look()
        except (ClientError, BotoCoreError):
            found = None
        if found is not None:
            return found
        time.sleep(LOOK_SECONDS)
    stop()
    raise EvalTimeoutError


class UnknownFieldError(Exception):
    """A parameter that the API does not have."""


def lowered(value: Any, shape: Shape) -> Any:
    """Parameters in the case that the API has; raises UnknownFieldError."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        names = {_upper(name): name for name in shape.members}
        for key in value:
            if key not in names:
                raise UnknownFieldError(f'The field "{key}" is not supported by Step Functions')
        return {names[key]: lowered(one, shape.members[names[key]]) for key, one in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [lowered(one, shape.member) for one in value]
    return value


def raised(value: Any, shape: Shape) -> Any:
    """An answer in PascalCase, with times in milliseconds."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {_upper(key): raised(one, shape.members[key]) for key, one in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [raised(one, shape.member) for one in value]
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    return value


def _upper(name: str) -> str:
    return name[:1].upper() + name[1:]


def _cause(error: ClientError, service: str) -> str:
    answer = error.response
    return (
        f"{answer['Error']['Message']} (Service: {service}; "
        f"Status Code: {answer['ResponseMetadata']['HTTPStatusCode']}; "
        f"Error Code: {answer['Error']['Code']}; "
        f"Request ID: {answer['ResponseMetadata'].get('RequestId')}; Proxy: null)"
    )
