"""The introspection API of the ECS agent: what programs on an instance can ask it.

``GET /v1/metadata`` says who the instance is (no ContainerInstanceArn before it has registered),
``GET /v1/tasks`` what runs on it. AWS's agent listens on all addresses of the instance, port 51678.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sandbox.hosts.machine import AGENT_PORT

VERSION = "Amazon ECS Agent - v1.99.0 (*sandbox)"


class Introspection:
    """One agent's server; ``tasks`` gives what ``Tasks`` holds."""

    def __init__(
        self, address: str, cluster: str, tasks: Callable[[], list[dict[str, Any]]]
    ) -> None:
        self._tasks = tasks
        self._metadata: dict[str, Any] = {
            "Cluster": cluster,
            "ContainerInstanceArn": None,
            "Version": VERSION,
        }
        agent = self

        class Handler(BaseHTTPRequestHandler):
            """Answers GET requests."""

            def do_GET(self) -> None:
                agent.answer(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((address, AGENT_PORT), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="introspection", daemon=True
        )
        self._thread.start()

    def registered(self, container_instance_arn: str) -> None:
        """The instance is known to ECS from now on."""
        self._metadata["ContainerInstanceArn"] = container_instance_arn

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        status, body = 200, {}
        match request.path.partition("?")[0]:
            case "/v1/metadata":
                body = self._metadata
            case "/v1/tasks":
                body = {"Tasks": self._tasks()}
            case "/":
                body = {"AvailableCommands": ["/v1/metadata", "/v1/tasks"]}
            case _:
                status = 404
        text = json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def close(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
