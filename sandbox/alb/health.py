"""The health checks of target groups: real HTTP requests and connections, all in one thread.

An ALB's habits: GET with ``User-Agent: ELB-HealthChecker/2.0`` on a new connection each time;
any status code outside the matcher is Target.ResponseCodeMismatch with the code in the description,
no answer in time is Target.Timeout, anything else (connection refused, no HTTP) is
Target.FailedHealthChecks. An NLB knows this last reason only.

Not AWS's: intervals and timeouts are divided by a factor, because nobody wants to wait in a
sandbox; a timeout never becomes shorter than MIN_TIMEOUT_SECONDS.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandbox.alb.targets import FAILED, CheckResult, TargetKey

MIN_TIMEOUT_SECONDS = 1.0
MIN_INTERVAL_SECONDS = 0.1


@dataclass(frozen=True)
class Check:
    """How to check one target; ``interval`` and ``timeout`` in seconds, already divided.

    Without ``path`` it is enough that the target takes a connection.
    """

    address: str
    port: int
    path: str | None
    matcher: str
    interval: float
    timeout: float


class HealthChecker:
    """Checks a changing set of targets and reports each result."""

    def __init__(self, report: Callable[[TargetKey, CheckResult], None]) -> None:
        self._report = report
        self._loop = asyncio.new_event_loop()
        self._checks: dict[TargetKey, tuple[Check, asyncio.Task[None]]] = {}
        self._thread = threading.Thread(target=self._run, name="health-checks", daemon=True)
        self._thread.start()

    def follow(self, checks: Mapping[TargetKey, Check]) -> None:
        """Check exactly these targets from now on; a new or changed one is checked at once."""
        self._loop.call_soon_threadsafe(self._follow, dict(checks))

    def stop(self) -> None:
        """End all checks."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._cancel())
        self._loop.close()

    async def _cancel(self) -> None:
        tasks = [task for _, task in self._checks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, checks: dict[TargetKey, Check]) -> None:
        for key, (check, task) in list(self._checks.items()):
            if checks.get(key) != check:
                task.cancel()
                del self._checks[key]
        for key, check in checks.items():
            if key not in self._checks:
                self._checks[key] = (check, self._loop.create_task(self._repeat(key, check)))

    async def _repeat(self, key: TargetKey, check: Check) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._report(key, await check_once(check))
            await asyncio.sleep(max(0.02, started + check.interval - loop.time()))


async def check_once(check: Check) -> CheckResult:
    """Make one health check."""
    try:
        async with asyncio.timeout(check.timeout):
            if check.path is None:
                await _connect(check)
                return CheckResult(True)
            status = await _get(check)
    except TimeoutError:
        return CheckResult(False, "Target.Timeout", "Request timed out")
    except (OSError, ValueError, EOFError, asyncio.LimitOverrunError):
        return CheckResult(False, *FAILED)
    if matches(status, check.matcher):
        return CheckResult(True)
    return CheckResult(
        False,
        "Target.ResponseCodeMismatch",
        f"Health checks failed with these codes: [{status}]",
    )


async def _connect(check: Check) -> None:
    _, writer = await asyncio.open_connection(check.address, check.port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _get(check: Check) -> int:
    reader, writer = await asyncio.open_connection(check.address, check.port)
    try:
        writer.write(
            f"GET {check.path} HTTP/1.1\r\nHost: {check.address}:{check.port}\r\n"
            "User-Agent: ELB-HealthChecker/2.0\r\nAccept-Encoding: gzip, compressed\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        protocol, _, rest = (await reader.readuntil(b"\n")).decode("latin-1").partition(" ")
        if not protocol.startswith("HTTP/"):
            raise ValueError(protocol)
        return int(rest[:3])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def matches(status: int, matcher: str) -> bool:
    """Whether a status code is in a matcher such as ``200``, ``200,202`` or ``200-299``."""
    for part in matcher.split(","):
        low, _, high = part.strip().partition("-")
        if int(low) <= status <= int(high or low):
            return True
    return False
