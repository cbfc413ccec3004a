"""The probe against a real TLS server with a certificate of its own name."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from bluegreen import probe
from bluegreen.color import Color
from bluegreen.configuration import Probe


@dataclass(frozen=True)
class Deployed:
    """As much of a deployment as a probe needs."""

    load_balancer_dns: str = "127.0.0.1"

    def rendered(self, template: str, color: Color) -> str:
        return template.replace("{color}", color)


class Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("X-Color", "green")
        self.send_header("X-Host", self.headers["Host"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, _code: int | str = "-", _size: int | str = "-") -> None:
        return


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server whose certificate says web.example, trusted, at an address that it does not name."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"],
            *["-subj", "/CN=web.example", "-addext", "subjectAltName=DNS:web.example"],
            *["-out", str(certificate), "-keyout", str(key)],
        ],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server = HTTPServer(("127.0.0.1", 0), Web)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def ask(host: str, color: Color, port: int) -> str:
    wanted = Probe(header="X-Color", value="{color}", scheme="https", host=host, consecutive=2)
    deployed: Any = Deployed()
    return probe.ask(deployed, wanted, color, port)


def test_https_expects_the_certificate_of_the_host_and_not_of_the_address(port: int) -> None:
    assert ask("web.example", Color.GREEN, port) == ""


def test_another_colour_is_named(port: int) -> None:
    assert "X-Color is 'green', not 'blue'" in ask("web.example", Color.BLUE, port)


def test_a_certificate_of_another_host_is_not_accepted(port: int) -> None:
    assert "hostname" in ask("shop.example", Color.GREEN, port).lower()
