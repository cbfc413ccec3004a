"""Frames of moto's interpreter: what a state, a branch or an iteration runs in.

A frame that is over records nothing any more, and neither does what runs inside it: a function that
answers after its Task has timed out, the other branches and iterations when one has failed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from moto.stepfunctions.parser.api import HistoryEventType, MapIterationEventDetails
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration import (
    inline_iteration_component,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_parallel.branch_worker import (
    BranchWorker,
)
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails


def install() -> None:
    """Put this into moto."""
    environment: Any = Environment
    environment.close_frame = _closing(environment.close_frame)
    frame_of = environment.as_inner_frame_of.__func__
    environment.as_inner_frame_of = classmethod(_knowing_the_item(frame_of))
    worker: Any = BranchWorker
    worker.stop = _silencing(worker.stop)
    iterations: Any = inline_iteration_component.InlineIterationComponent
    iterations._eval_body = _aborting_the_others(iterations._eval_body)


def silence(frame: Any) -> None:
    """Whatever a frame does from now on is not recorded."""
    frame.event_history_context.closed = True
    for inner in list(frame._frames):
        silence(inner)


def _closing(plain: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    @functools.wraps(plain)
    def close_frame(self: Any, frame: Any) -> None:
        plain(self, frame)
        silence(frame)

    return close_frame


def _knowing_the_item(plain: Callable[..., Any]) -> Callable[..., Any]:
    """``$$.Map.Item`` is there in all states of an iteration, not in the ItemSelector only."""

    @functools.wraps(plain)
    def as_inner_frame_of(cls: Any, env: Any, *args: Any, **more: Any) -> Any:
        frame = plain(cls, env, *args, **more)
        item = env.states.context_object.context_object_data.get("Map")
        if item is not None:
            frame.states.context_object.context_object_data["Map"] = item
        return frame

    return as_inner_frame_of


def _silencing(plain: Callable[..., None]) -> Callable[..., None]:
    """A branch that is stopped is silent before it notices."""

    @functools.wraps(plain)
    def stop(self: Any, *args: Any, **more: Any) -> None:
        silence(self.env)
        plain(self, *args, **more)

    return stop


def _aborting_the_others(plain: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """An iteration that fails aborts those that still run."""

    @functools.wraps(plain)
    def eval_body(self: Any, env: Any) -> None:
        try:
            plain(self, env)
        except Exception:
            for worker in list(env._frames):
                for iteration in list(worker._frames):
                    _abort(iteration)
                silence(worker)
                worker.set_ended()
            raise

    return eval_body


def _abort(iteration: Any) -> None:
    data = iteration.states.context_object.context_object_data
    if "Map" not in data or "State" not in data:
        return
    details = MapIterationEventDetails(
        name=data["State"]["Name"], index=data["Map"]["Item"]["Index"]
    )
    iteration.event_manager.add_event(
        context=iteration.event_history_context,
        event_type=HistoryEventType.MapIterationAborted,
        event_details=EventDetails(mapIterationAbortedEventDetails=details),
    )
