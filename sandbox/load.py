"""Traffic on a service, and an account of every request.

``Load`` drives two wrk processes that share the rate: one keeps its connections open, the other
asks for ``Connection: close`` and opens a new one for each request. A request has failed when it
was answered with anything but 2xx, when its connection could not be opened or broke, when it took
longer than TIMEOUT_SECONDS, or when it was never answered.

While connections are refused wrk opens others in a busy loop, so what it counts then are attempts,
many times as many as there would have been requests. Where that has to be expected there is
``PacedLoad``, which drives ``sandbox.paced``.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

from sandbox.settings import ROOT

SCRIPT = Path(__file__).with_name("load.lua")
# So few that at 100 requests a second none pauses for longer than the demo app lingers when it
# stops (0.3 s): behind a Network Load Balancer it has to answer on each of them once more.
CONNECTIONS = 8
TIMEOUT_SECONDS = 5
LONGEST_SECONDS = 24 * 3600
LATENCY_SECONDS = 0.002
"""How long an answer takes, roughly, which comes on top of the pause between two requests."""
PACED_SECONDS = 10.0
"""How long the last requests of ``sandbox.paced`` take, at most."""

MODES = {"keep-alive": [], "close": ["--header", "Connection: close"]}


class LoadError(Exception):
    """The load generator could not run; the message says why."""


@dataclass(frozen=True)
class Result:
    """What happened to all requests.

    ``errors`` counts failed requests by what went wrong (``connect``, ``read``, ``write``,
    ``timeout``, ``unanswered``, ``status 503``, …). ``seconds`` is how long
    requests were sent, ``rate`` how many a second; ``p50`` and
    ``p99`` (milliseconds) are those of the slower half of the clients.
    """

    total: int
    failed: int
    by_color: dict[str, int]
    errors: dict[str, int]
    rate: float
    seconds: float
    p50: float
    p99: float


@dataclass
class Load:
    """Requests to ``url`` at ``rate`` a second, from ``start`` to ``stop``.

    Start it from a thread that lives as long as the load: wrk dies with it. ``directory`` is where
    it makes its temporary directory (else in the system's).
    """

    url: str
    rate: float = 800.0
    directory: Path | None = None
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _work: Path | None = None
    _began: float = 0.0

    def start(self) -> None:
        """Begin to send. Raises LoadError when wrk is missing."""
        if shutil.which("wrk") is None:
            raise LoadError("wrk is missing: apt-get install wrk")
        self._work = Path(tempfile.mkdtemp(prefix="ecs-bluegreen-load-", dir=self.directory))
        pause = max(0.0, CONNECTIONS / (self.rate / len(MODES)) - LATENCY_SECONDS)
        self._processes = [
            subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "--"),
                    *("wrk", "--threads", "1", "--connections", str(CONNECTIONS)),
                    *("--duration", str(LONGEST_SECONDS), "--timeout", str(TIMEOUT_SECONDS)),
                    *("--script", str(SCRIPT), *options, self.url),
                    *("--", str(pause * 1000), str(self._work / "stop")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            for options in MODES.values()
        ]
        self._began = time.monotonic()

    def stop(self, grace: float = 1.0) -> Result:
        """Send nothing more, give what is under way ``grace`` seconds, and count.

        Raises LoadError when wrk gave no result.
        """
        assert self._work is not None
        (self._work / "stop").touch()
        seconds = time.monotonic() - self._began
        time.sleep(grace)
        reports = []
        try:
            for process in self._processes:
                process.send_signal(signal.SIGINT)
            for process in self._processes:
                output, _ = process.communicate(timeout=30)
                reports.append(_report(output))
        finally:
            self.kill()
        return _result(reports, seconds)

    def kill(self) -> None:
        """End it without a result; can be called again."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)


@dataclass(frozen=True)
class Request:
    """One request; times are epoch seconds, ``error`` is None when the answer was 2xx."""

    began: float
    ended: float
    error: str | None
    color: str | None


@dataclass(frozen=True)
class PacedResult(Result):
    """The same, and each of the requests; ``p50`` and ``p99`` are of those that were answered."""

    requests: tuple[Request, ...] = ()


@dataclass
class PacedLoad:
    """Requests to ``url`` at ``rate`` a second from ``start`` to ``stop``, each on a connection of
    its own, and counted once.

    Start it from a thread that lives as long as the load, as ``Load``.
    """

    url: str
    rate: float = 200.0
    _process: subprocess.Popen[str] | None = None
    _began: float = 0.0

    def start(self) -> None:
        """Begin to send."""
        command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "sandbox.paced"]
        self._process = subprocess.Popen(
            [*command, self.url, str(self.rate)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._began = time.monotonic()

    def stop(self) -> PacedResult:
        """Send nothing more, wait for what is under way, and count. Raises LoadError."""
        assert self._process is not None
        seconds = time.monotonic() - self._began
        self._process.send_signal(signal.SIGTERM)
        try:
            output, _ = self._process.communicate(timeout=PACED_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"sandbox.paced does not end: {error}") from error
        finally:
            self.kill()
        if not output:
            raise LoadError("sandbox.paced gave no result")
        return paced_result([Request(*line) for line in json.loads(output)], seconds)

    def kill(self) -> None:
        """End it without a result; can be called again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


def paced_result(requests: Sequence[Request], seconds: float) -> PacedResult:
    """An account of requests that were sent within so many seconds. Raises LoadError for none."""
    if not requests:
        raise LoadError("no request was sent")
    errors = Counter(one.error for one in requests if one.error is not None)
    took = sorted((one.ended - one.began) * 1000 for one in requests if one.error is None) or [nan]
    return PacedResult(
        total=len(requests),
        failed=errors.total(),
        by_color=dict(Counter(one.color for one in requests if one.color is not None)),
        errors=dict(errors),
        rate=len(requests) / seconds,
        seconds=seconds,
        p50=took[len(took) // 2],
        p99=took[len(took) * 99 // 100],
        requests=tuple(requests),
    )


def _report(output: str) -> dict[str, Any]:
    for line in output.splitlines():
        if line.startswith("RESULT "):
            report: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return report
    raise LoadError(f"wrk gave no result: {output.strip()}")


def _result(reports: list[dict[str, Any]], seconds: float) -> Result:
    errors: Counter[str] = Counter()
    by_color: Counter[str] = Counter()
    for report in reports:
        by_color.update(report["by_color"])
        broken = report["read"] + report["write"]
        for kind in ("connect", "read", "write", "timeout"):
            errors[kind] += report[kind]
        errors["unanswered"] += max(0, report["sent"] - report["answered"] - broken)
        for status, count in report["by_status"].items():
            if not status.startswith("2"):
                errors[f"status {status}"] += count
    total = sum(report["sent"] + report["connect"] for report in reports)
    return Result(
        total=total,
        failed=errors.total(),
        by_color=dict(by_color),
        errors={kind: count for kind, count in errors.items() if count},
        rate=total / seconds,
        seconds=seconds,
        p50=max(report["p50"] for report in reports) / 1000,
        p99=max(report["p99"] for report in reports) / 1000,
    )
