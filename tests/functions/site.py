"""A real web server that answers as a colour, for probes to ask."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self


class Site:
    """colors: what X-Color says in the answers to come, the last one from then on."""

    def __init__(self) -> None:
        self.colors = ["green"]
        self.status = 200
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                color = site.colors.pop(0) if len(site.colors) > 1 else site.colors[0]
                self.send_response(site.status)
                self.send_header("X-Color", color)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's
                """Say nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def serve(self, data: dict[str, Any]) -> None:
        """Let the probes of a planned deployment ask here, on both listeners."""
        deployment = data["deployment"]
        deployment["load_balancer_dns"] = "127.0.0.1"
        deployment["configuration"]["router"] |= {"port": self.port, "test_port": self.port + 1}

    def serve_test_listener(self, data: dict[str, Any]) -> None:
        deployment = data["deployment"]
        deployment["load_balancer_dns"] = "127.0.0.1"
        deployment["configuration"]["router"] |= {"test_port": self.port}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
