"""The paced client: each request is counted once, whatever becomes of it."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox.load import LoadError, PacedLoad, PacedResult, paced_result
from sandbox.paced import judged

ADDRESS = "127.0.9.199"  # where no connection of others takes a port while nobody listens
RATE = 50
FINE = b"HTTP/1.1 200 OK\r\nX-Color: blue\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def server(port: int, answer: bytes | None = FINE) -> Iterator[int]:
    """Answers every connection the same, or cuts it when there is no answer; gives its port."""
    with socket.create_server((ADDRESS, port)) as listening:
        listening.settimeout(0.02)
        ending = threading.Event()

        def serve() -> None:
            while not ending.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.recv(4096)
                    if answer is not None:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            ending.set()
            thread.join()


@contextmanager
def load_on(port: int) -> Iterator[list[PacedResult]]:
    """Load during the body; the list gets what came of it."""
    load, results = PacedLoad(f"http://{ADDRESS}:{port}/", rate=RATE), list[PacedResult]()
    load.start()
    try:
        yield results
        results.append(load.stop())
    finally:
        load.kill()


def free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as listening:
        return int(listening.getsockname()[1])


def test_requests_keep_their_pace_and_are_lost_once_each_while_nobody_listens() -> None:
    port = free_port()
    with load_on(port) as results:
        with server(port):
            time.sleep(1.5)
        closed = time.time()
        time.sleep(1)
        opened = time.time()
        with server(port):
            time.sleep(1)
    (result,) = results
    lost = [one for one in result.requests if one.error and closed <= one.began <= opened]
    assert {one.error for one in lost} == {"connect"}
    assert len(lost) == pytest.approx((opened - closed) * RATE, abs=RATE / 5)
    assert result.total == len(result.requests)
    assert result.total <= result.seconds * RATE + 1
    assert result.by_color["blue"] == result.total - result.failed
    assert result.errors == Counter(one.error for one in result.requests if one.error)


def test_a_connection_that_is_cut_was_not_answered() -> None:
    with server(0, answer=None) as port, load_on(port) as results:
        time.sleep(0.8)
    (result,) = results
    assert result.failed == result.total > 0
    assert set(result.errors) <= {"unanswered", "read"}
    assert result.by_color == {}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (FINE, (None, "blue")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (None, None)),
        (b"HTTP/1.1 503 Service Unavailable\r\nX-Color: green\r\n\r\n", ("status 503", "green")),
        (b"", ("unanswered", None)),
        (FINE[:-1], ("read", None)),
        (b"HTTP/1.1 200 OK\r\nX-Color", ("read", None)),
    ],
)
def test_an_answer_has_to_be_whole_and_fine(
    answer: bytes, found: tuple[str | None, str | None]
) -> None:
    assert judged(answer) == found


def test_no_request_is_no_result() -> None:
    with pytest.raises(LoadError, match="no request"):
        paced_result([], 1)
