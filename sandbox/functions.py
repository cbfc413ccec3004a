"""Lambda: the handlers of the template, and the functions that people create, each in processes
of its own.

A worker is a Python process that sees the function's code and environment and nothing of the
sandbox. It serves one invocation after the other; while it is busy another is started, so
concurrent invocations run side by side as in Lambda. A worker that outlives its function's timeout
is killed. Workers end when their socket closes, so none survives the sandbox, however that ends.

What a handler prints goes to its log group in moto's CloudWatch Logs, and to the sandbox's log.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda_simple.models import LambdaSimpleBackend

from sandbox.lambda_function import Function
from sandbox.user_functions import UnsupportedFunctionError, UserFunctions
from sandbox.world import World

LOG = logging.getLogger(__name__)
WORKER = Path(__file__).parent / "lambda_worker.py"
IMPORT_SECONDS = 120.0
"""A second is enough, but not on a machine that does much else."""
IDLE_SECONDS = 120.0
"""How long a worker without work is kept. Each takes some 70 MB; the tests have many sandboxes."""
RETRY_SECONDS = (1.0, 2.0)
"""Lambda waits one and two minutes before it repeats a failed asynchronous invocation."""


@dataclass(frozen=True)
class Answer:
    """What an invocation returned: a JSON text, which is an error when ``failed``."""

    payload: str
    failed: bool


class Worker:
    """One process of one function; serves one invocation at a time."""

    def __init__(self, function: Function, world: World, log: Callable[[str], None]) -> None:
        self.function = function
        self.idle_since = 0.0
        ours, theirs = socket.socketpair()
        self._log = log
        stream = f"{time.strftime('%Y/%m/%d')}/[$LATEST]{uuid.uuid4().hex}"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER), str(theirs.fileno())],
                cwd=function.code,
                env=_environment(function, world, stream),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket = ours
        self._channel = ours.makefile("rw", encoding="utf-8")
        self._logs = threading.Thread(
            target=self._follow, args=(world, stream), name="lambda-log", daemon=True
        )
        self._logs.start()
        self._receive(time.time() + IMPORT_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether the process can take another invocation."""
        return self._process.poll() is None

    def invoke(self, payload: Any) -> Answer:
        """Run the handler once; kills the worker when it exceeds the function's timeout."""
        request_id = str(uuid.uuid4())
        deadline = time.time() + self.function.timeout
        request = {
            "request_id": request_id,
            "arn": self.function.arn,
            "deadline": deadline,
            "event": payload,
        }
        try:
            self._channel.write(json.dumps(request) + "\n")
            self._channel.flush()
            answer = self._receive(deadline)
        except TimeoutError:
            self.kill()
            return _failure(
                "Sandbox.Timedout",
                f"RequestId: {request_id} Error: "
                f"Task timed out after {self.function.timeout:.2f} seconds",
            )
        except OSError:
            self.kill()
            return _failure(
                "Runtime.ExitError",
                f"RequestId: {request_id} Error: "
                f"Runtime exited with error: exit status {self._process.wait()}",
            )
        if "error" in answer:
            return Answer(json.dumps(answer["error"]), failed=True)
        return Answer(answer["payload"], failed=False)

    def kill(self) -> None:
        """End the process now and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _receive(self, deadline: float) -> dict[str, Any]:
        self._socket.settimeout(max(0.001, deadline - time.time()))
        line = self._channel.readline()
        if not line:
            raise ConnectionResetError(f"{self.function.logical_id}: the worker has ended")
        message: dict[str, Any] = json.loads(line)
        return message

    def _follow(self, world: World, stream: str) -> None:
        assert self._process.stdout is not None
        logs = world.backend("logs")
        group = self.function.log_group
        logs.create_log_stream(group, stream)
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            self._log(f"{self.function.logical_id}: {line}")
            event = {"timestamp": int(time.time() * 1000), "message": line}
            logs.put_log_events(group, stream, [event])


@dataclass
class LambdaRuntime:
    """All functions and their workers.

    ``code`` is the folder that the functions of the template run from; ``log`` gets every line that
    any prints. As Lambda does, it ends workers that have been idle for ``idle_seconds``.
    """

    world: World
    code: Path
    log: Callable[[str], None]
    idle_seconds: float = IDLE_SECONDS
    functions: dict[str, Function] = field(default_factory=dict)
    _users: UserFunctions = field(init=False)
    _idle: dict[str, list[Worker]] = field(default_factory=dict)
    _events: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Look for functions that the template does not have in moto."""
        self._users = UserFunctions(self.world)

    def install(self) -> None:
        """Make moto's Lambda run these functions."""

        def invoke(
            _backend: Any,
            function_name: str,
            _qualifier: str | None,
            body: Any,
            headers: Any,
            response_headers: dict[str, str],
        ) -> bytes:
            name = function_name.rpartition(":function:")[2].split(":")[0]
            if not self._knows(name):
                raise UnknownFunctionException(function_name)
            event = json.loads(body or "{}")
            if headers.get("X-Amz-Invocation-Type") == "Event":
                self.invoke_later(name, event)
                return b""
            answer = self.invoke(name, event)
            if answer.failed:
                response_headers["x-amz-function-error"] = "Unhandled"
            response_headers["x-amz-executed-version"] = "$LATEST"
            return answer.payload.encode()

        backend: Any = LambdaSimpleBackend
        backend.invoke = invoke

    @property
    def events_under_way(self) -> int:
        """How many asynchronous invocations have not ended yet, with what is tried again."""
        return self._events

    def add(self, function: Function) -> None:
        """Make a function known; its first worker starts with ``warm``."""
        self.functions[function.name] = function

    def warm(self, cold: Collection[str] = ()) -> None:
        """Start one worker of every function but those that stay ``cold``, and wait until all have
        imported their handler.
        """
        names = [name for name in self.functions if name not in cold]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for name, worker in zip(names, pool.map(self._start, names), strict=True):
                self._give_back(name, worker)

    def invoke(self, name: str, event: Any) -> Answer:
        """Invoke a function and wait for its answer."""
        if self.world.stopping.is_set():
            return _failure("Runtime.ExitError", "the sandbox is stopping")
        try:
            worker = self._take(self._function(name))
        except UnsupportedFunctionError as error:
            return _failure("Sandbox.Unsupported", str(error))
        except OSError as error:
            return _failure("Runtime.ExitError", str(error))
        answer = worker.invoke(event)
        self._give_back(name, worker)
        return answer

    def invoke_later(
        self, name: str, event: Any, done: Callable[[Answer], None] | None = None
    ) -> None:
        """Invoke asynchronously, as for events: repeated on failure, then to the dead-letter queue.

        ``done`` is called with the last answer. Raises KeyError for an unknown function.
        """
        function = self._function(name)

        def run() -> None:
            try:
                follow()
            finally:
                self._count(-1)

        def follow() -> None:
            answer = self.invoke(name, event)
            for attempt in range(function.retries):
                if not answer.failed or self.world.stopping.wait(RETRY_SECONDS[attempt]):
                    break
                answer = self.invoke(name, event)
            if answer.failed:
                LOG.warning("%s failed on an event: %s", name, answer.payload)
                self._bury(function, event, answer)
            if done is not None:
                done(answer)

        self._count(1)
        threading.Thread(target=run, name=f"event-{name}", daemon=True).start()

    def _count(self, change: int) -> None:
        with self._lock:
            self._events += change

    def stop(self) -> None:
        """End every worker."""
        with self._lock:
            workers = [worker for idle in self._idle.values() for worker in idle]
            self._idle.clear()
        for worker in workers:
            worker.kill()

    def _knows(self, name: str) -> bool:
        return name in self.functions or self._users.knows(name)

    def _function(self, name: str) -> Function:
        """As it is now; raises KeyError and UnsupportedFunctionError."""
        return self.functions[name] if name in self.functions else self._users.find(name)

    def _take(self, function: Function) -> Worker:
        """A worker of the function as it is now; those of its former code are ended."""
        while True:
            with self._lock:
                idle = self._idle.get(function.name)
                worker = idle.pop() if idle else None
            if worker is None:
                return Worker(function, self.world, self.log)
            if worker.function != function:
                worker.kill()
            elif worker.alive:
                return worker

    def _start(self, name: str) -> Worker:
        return Worker(self.functions[name], self.world, self.log)

    def _give_back(self, name: str, worker: Worker) -> None:
        if not worker.alive:
            return
        if self.world.stopping.is_set():
            worker.kill()
            return
        now = time.monotonic()
        with self._lock:
            worker.idle_since = now
            self._idle.setdefault(name, []).append(worker)
            over = [one for idle in self._idle.values() for one in self._too_long(idle, now)]
        for one in over:
            one.kill()

    def _too_long(self, idle: list[Worker], now: float) -> list[Worker]:
        """Take those out that have been idle too long; the one that was used last comes last."""
        count = sum(now - one.idle_since > self.idle_seconds for one in idle)
        over, idle[:] = idle[:count], idle[count:]
        return over

    def _bury(self, function: Function, event: Any, answer: Answer) -> None:
        if function.dead_letter_arn is None:
            return
        error = json.loads(answer.payload)
        send_to_queue(
            self.world,
            function.dead_letter_arn,
            json.dumps(event),
            {"ErrorCode": "200", "ErrorMessage": str(error.get("errorMessage", ""))},
        )


def send_to_queue(world: World, queue_arn: str, body: str, attributes: Mapping[str, str]) -> None:
    """Put a message with string attributes (empty ones are left out) into an SQS queue."""
    client = world.client("sqs")
    url = client.get_queue_url(QueueName=queue_arn.rpartition(":")[2])["QueueUrl"]
    client.send_message(
        QueueUrl=url,
        MessageBody=body,
        MessageAttributes={
            key: {"DataType": "String", "StringValue": value[:1024]}
            for key, value in attributes.items()
            if value
        },
    )


def _failure(kind: str, message: str) -> Answer:
    return Answer(json.dumps({"errorType": kind, "errorMessage": message}), failed=True)


def _inherited(names: Iterable[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _environment(function: Function, world: World, stream: str) -> dict[str, str]:
    """The environment that Lambda gives a function, and where the APIs are."""
    return {
        **_inherited(["PATH", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV"]),
        "TZ": ":UTC",
        "PYTHONPATH": str(function.code),
        "PYTHONUNBUFFERED": "1",
        "_HANDLER": function.handler,
        "AWS_REGION": world.region,
        "AWS_DEFAULT_REGION": world.region,
        "AWS_ACCESS_KEY_ID": function.logical_id,
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_ENDPOINT_URL": world.aws_endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        # There is no X-Ray daemon here.
        "POWERTOOLS_TRACE_DISABLED": "true",
        "AWS_XRAY_SDK_ENABLED": "false",
        **function.environment,
    }
