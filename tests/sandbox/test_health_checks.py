"""Health checks: what they ask, and the reasons that a load balancer gives."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox.alb.health import Check, check_once, matches


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def check_of(port: int, matcher: str = "200", timeout: float = 2.0) -> Check:
    return Check("127.0.0.1", port, "/healthz", matcher, interval=1.0, timeout=timeout)


async def _checked(server: socket.socket, answer: bytes, matcher: str) -> tuple[object, bytes]:
    asked = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    port = server.getsockname()[1]
    async with await asyncio.start_server(serve, sock=server.dup()):
        result = await check_once(check_of(port, matcher))
    return (result.healthy, result.reason, result.description), asked


def checked(answer: bytes, matcher: str = "200") -> tuple[object, bytes]:
    with listening() as server:
        server.setblocking(False)
        return asyncio.run(_checked(server, answer, matcher))


def test_a_check_is_a_get_of_the_health_checker() -> None:
    result, asked = checked(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert result == (True, None, None)
    assert asked.startswith(b"GET /healthz HTTP/1.1\r\n")
    assert b"User-Agent: ELB-HealthChecker/2.0\r\n" in asked


def test_another_code_is_a_mismatch() -> None:
    result, _ = checked(b"HTTP/1.1 503 No\r\n\r\n", matcher="200,202")
    assert result == (
        False,
        "Target.ResponseCodeMismatch",
        "Health checks failed with these codes: [503]",
    )


@pytest.mark.parametrize("answer", [b"", b"220 smtp.example\r\n", b"HTTP/1.1 what\r\n\r\n"])
def test_what_is_no_http_fails(answer: bytes) -> None:
    result, _ = checked(answer)
    assert result == (False, "Target.FailedHealthChecks", "Health checks failed")


def test_a_refused_connection_fails() -> None:
    with listening() as server:
        port = server.getsockname()[1]
    assert asyncio.run(check_once(check_of(port))).reason == "Target.FailedHealthChecks"


def test_without_a_path_a_connection_is_enough() -> None:
    with listening() as server:
        check = Check("127.0.0.1", server.getsockname()[1], None, "", interval=1.0, timeout=2.0)
        assert asyncio.run(check_once(check)).healthy
    assert asyncio.run(check_once(check)).reason == "Target.FailedHealthChecks"


def test_no_answer_in_time_is_a_timeout() -> None:
    with listening() as server:
        result = asyncio.run(check_once(check_of(server.getsockname()[1], timeout=0.1)))
    assert (result.reason, result.description) == ("Target.Timeout", "Request timed out")


@pytest.mark.parametrize(
    ("matcher", "inside", "outside"),
    [
        ("200", [200], [199, 201]),
        ("200,202", [200, 202], [201, 203]),
        ("200-299", [200, 250, 299], [199, 300]),
        ("200, 300-302", [200, 300, 302], [299, 303]),
    ],
)
def test_matchers(matcher: str, inside: list[int], outside: list[int]) -> None:
    assert [code for code in (*inside, *outside) if matches(code, matcher)] == inside
