"""``python benchmarks/rollback.py``: how long the way back takes, warm and cold, for clients.

Deployments in the sandbox with a pause of a few milliseconds between two requests through the load
balancer, each on a connection of its own. Of every rollback by service:

- back: from StartExecution to the first answer of the old version;
- all back: to the last answer of the new one;
- states: entered until RollBack, that one too, which is where the traffic goes back when the old
  colour is warm. Cold, the previous deployment is deployed again, and RollBack is not entered;
- failed: requests without an answer of 200 meanwhile.

Cold means that the old colour has ended, so the time is that of a deployment: the app of the
sandbox starts within a tenth of a second, and the configured times are short. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Self

import requests

from deployment import BenchmarkError, Site, sandbox

WARM_SECONDS = 600
POLL_SECONDS = 0.02
DEADLINE_SECONDS = 120.0


@dataclass
class Watch:
    """Requests to ``url``, one after the other: (moment, version or "" when it failed)."""

    url: str
    seen: list[tuple[float, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            began = time.time()
            try:
                answer = requests.get(self.url, timeout=5, headers={"Connection": "close"})
            except requests.RequestException:
                self.seen.append((began, ""))
            else:
                version = answer.headers.get("X-Version", "")
                self.seen.append((began, version if answer.ok else ""))


@dataclass(frozen=True)
class Back:
    """One rollback; times in seconds from StartExecution."""

    kind: str
    back: float
    all_back: float
    states: int
    failed: int


def roll_back(site: Site, kind: str, old: str, new: str) -> Back:
    """Roll the service back from new to old, with clients watching. Raises BenchmarkError."""
    with Watch(site.about["url"]) as watch:
        time.sleep(0.2)
        began = time.time()
        arn = site.start({"action": "rollback", "service": site.about["service"]})
        ended = site.ended(arn)
        time.sleep(0.3)
    if ended["status"] != "SUCCEEDED":
        raise BenchmarkError(f"{kind}: {ended.get('error')}: {ended.get('cause')}")
    after = [(moment - began, version) for moment, version in watch.seen if moment >= began]
    olds = [moment for moment, version in after if version == old]
    if not olds:
        raise BenchmarkError(f"{kind}: {old} never answered again")
    states = site.states(arn)
    until = states.index("RollBack") + 1 if "RollBack" in states else len(states)
    return Back(
        kind=kind,
        back=olds[0],
        all_back=max((moment for moment, version in after if version == new), default=0.0),
        states=until,
        failed=sum(version == "" for _, version in after),
    )


def measure(site: Site, rounds: int) -> list[Back]:
    """Deploy and roll back, warm and cold in turns."""
    found = []
    site.deploy("old")
    for number in range(rounds):
        for kind, warm in (("warm", WARM_SECONDS), ("cold", 0)):
            site.keep_warm(warm)
            new = f"new-{kind}-{number}"
            arn = site.start_deployment(new)
            if warm:
                site.wait_until_warm()
            else:
                site.ended(arn)
            found.append(roll_back(site, kind, "old", new))
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--network", default="127.0.50")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with sandbox(options.network) as site:
        found = measure(site, options.rounds)
    if options.json:
        print(json.dumps([vars(one) for one in found], indent=2))
        return 0
    print(f"{'':6}{'rollbacks':>10}{'back s':>18}{'all back s':>18}{'states':>8}{'failed':>8}")
    print(f"{'':6}{'':>10}{'median / max':>18}{'median / max':>18}{'max':>8}{'sum':>8}")
    for kind in ("warm", "cold"):
        of_kind = [one for one in found if one.kind == kind]
        times = [
            f"{median(seconds):.2f} / {max(seconds):.2f}"
            for seconds in ([one.back for one in of_kind], [one.all_back for one in of_kind])
        ]
        print(
            f"{kind:6}{len(of_kind):>10}{times[0]:>18}{times[1]:>18}"
            f"{max(one.states for one in of_kind):>8}{sum(one.failed for one in of_kind):>8}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
