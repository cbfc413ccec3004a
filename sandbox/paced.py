"""Asks a URL so many times a second, each time on a new connection, and counts each request once.

``python -m sandbox.paced URL RATE``: begins at once, sends nothing more after SIGTERM, waits for
what is under way, and prints one line: ``[[began, ended, error, color], …]`` in the order of
sending; began and ended are epoch seconds, error is null when the answer was 2xx, else what went
wrong, as ``sandbox.load`` names it; color is X-Color of the answer, or null.

The pace is kept whatever becomes of the requests: one that is refused is not asked again, and one
that hangs holds up no other. A program of its own, so that it does not wait for the sandbox's
threads.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 5.0

Line = tuple[float, float, str | None, str | None]


async def ask(host: str, port: int, path: str) -> tuple[str | None, str | None]:
    """One request; what went wrong, if anything, and the color that answered."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            try:
                reader, writer = await asyncio.open_connection(host, port)
            except OSError:
                return "connect", None
            try:
                writer.write(request.encode())
                answer = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        return "timeout", None
    except OSError:
        return "read", None
    return judged(answer)


def judged(answer: bytes) -> tuple[str | None, str | None]:
    """The same of all that came before the connection was closed."""
    if not answer:
        return "unanswered", None
    head, separator, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (o.partition(":") for o in lines)}
    if not separator or len(body) < int(headers.get("content-length", 0)):
        return "read", None
    status = first.split(" ")[1]
    return None if status.startswith("2") else f"status {status}", headers.get("x-color")


async def run(url: str, rate: float) -> list[Line]:
    """Ask until SIGTERM."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or 80
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def one() -> Line:
        began = time.time()
        error, color = await ask(host, port, parts.path or "/")
        return began, time.time(), error, color

    asked: list[asyncio.Task[Line]] = []
    began = time.monotonic()
    while not stop.is_set():
        asked.append(asyncio.create_task(one()))
        due = began + len(asked) / rate
        try:
            await asyncio.wait_for(stop.wait(), max(0.0, due - time.monotonic()))
        except TimeoutError:
            continue
    return await asyncio.gather(*asked)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1], float(sys.argv[2])))))
