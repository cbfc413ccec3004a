"""``python benchmarks/host_switch.py``: what switching by the proxy on every host costs.

Real nginx and HAProxy, set up and switched by hosts/ecs_bluegreen_host.py, under wrk with 32
kept-alive connections at full speed; the tasks answer at once. Side by side, in one run:

- errors: what clients see of switches (stage, then commit), and of reloads that do the same. Each
  one gives all the traffic to the other colour; there is one in half a second at most.
- throughput: the switchable configuration beside the plain static one, which is the same without
  the switch: as many workers, the same connections kept to the tasks. The two take turns, slice by
  slice; a ratio is the median of the ratios of neighbours. CPU is what the proxy's processes use
  for one request, so that a larger ratio is the worse one there.
- ports: dynamic host ports beside fixed ones, in the same way.
- shares: of the requests on kept-alive connections, at small and large weights.
- skew: 8 hosts of a sandbox that are switched together, through its SSM and the real documents,
  and one after the other, as soon as the host before has answered. From the first host's switch
  to the last one's, by the hosts' own account (``switched_at``).

What this is not: the load, the proxy and the tasks share the cores of one machine, so throughput is
that of all of them, and with a proxy alone on its cores the ratio would be nearer to that of the
CPU. The hosts of the sandbox share one clock, which real ones do not, and their cores, which real
ones do not either. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from deployment import BenchmarkError
from host_fleet import fleet
from host_proxies import PROXIES, Machine, Proxy, ProxyError, plain
from wrk import Load, LoadError, count_colors, load_on, slice_of_load

HOSTS = 8
SLICE_SECONDS = 1
PERIOD_SECONDS = 0.5
ERRORS = ("connect", "read", "write", "timeout", "status")
SHARES = (1, 5, 10, 25, 50, 100)
SHARE_REQUESTS = 20_000
IN_TURN_EVERY = 5
"""So many switches of the fleet together for one host after host, which takes long."""

PROGRAMS = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "wrk": "wrk",
    "setpriv": "util-linux",
}
"""What is measured, and with what; the Debian package that each is in."""

Report = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Pair:
    """A proxy and the one that it is compared with."""

    name: str
    against: str
    proxy: Proxy
    other: Proxy


@dataclass(frozen=True)
class Slice:
    """One slice of load on a proxy; ``cpu`` is in microseconds a request."""

    load: Load
    cpu: float


def measure_errors(machine: Machine, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Client errors of reloads and of switches."""
    rows = []
    for kind in PROXIES:
        reloaded = machine.proxy(kind, "reload", edit=plain(kind, "blue"))
        switched = machine.proxy(kind, "errors")
        switched.switch(100)
        configurations = [plain(kind, color)(reloaded.rendered) for color in ("green", "blue")]

        def reload(number: int, proxy: Proxy = reloaded, texts: list[str] = configurations) -> None:
            proxy.reload(texts[number % 2])

        def switch(number: int, proxy: Proxy = switched) -> None:
            proxy.switch(number % 2 * 100)

        for way, url, change in (
            ("reload", reloaded.url, reload),
            ("switch", switched.url, switch),
        ):
            say(f"errors: {kind}, {options.switches} × {way}")
            load = load_through(url, options.switches, change)
            rows.append(
                {
                    "proxy": kind,
                    "way": way,
                    "switches": options.switches,
                    "requests": load.requests,
                    **{error: load.errors[error] for error in ERRORS},
                    "per_100": round(load.errors.total() * 100 / options.switches, 1),
                }
            )
        reloaded.end()
        switched.end()
    return rows


def load_through(url: str, switches: int, change: Callable[[int], None]) -> Load:
    """Load while the traffic goes from colour to colour."""
    with load_on(url) as running:
        for number in range(switches):
            began = time.monotonic()
            change(number)
            time.sleep(max(0.0, PERIOD_SECONDS - (time.monotonic() - began)))
    assert running.load is not None
    return running.load


def measure_throughput(machine: Machine, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The switchable configuration beside the plain one, at each kind of weights."""
    pairs = []
    for kind in PROXIES:
        static = machine.proxy(kind, "plain", edit=plain(kind, "blue"))
        for blue in (100, 0, 50):
            proxy = machine.proxy(kind, f"switchable-{blue}")
            proxy.switch(blue)
            pairs.append(Pair(f"{kind} {blue}:{100 - blue}", "plain", proxy, static))
    return compare(pairs, options.rounds)


def measure_ports(machine: Machine, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Dynamic host ports beside fixed ones."""
    pairs = []
    for kind in PROXIES:
        fixed, dynamic = (
            machine.proxy(kind, name, dynamic=name == "dynamic") for name in ("fixed", "dynamic")
        )
        for proxy in (fixed, dynamic):
            proxy.switch(100)
        pairs.append(Pair(f"{kind} dynamic", "fixed", dynamic, fixed))
    return compare(pairs, options.rounds)


def compare(pairs: Sequence[Pair], rounds: int) -> list[dict[str, Any]]:
    """Load on the two of each pair in turn; the first turn fills what there is to fill."""
    taken: dict[str, list[tuple[Slice, Slice]]] = {pair.name: [] for pair in pairs}
    for turn in range(rounds + 1):
        say(f"throughput: round {turn} of {rounds}")
        for pair in pairs:
            # Whoever comes second has no advantage in the end.
            if turn % 2:
                one, other = measure(pair.proxy), measure(pair.other)
            else:
                other, one = measure(pair.other), measure(pair.proxy)
            if turn:
                taken[pair.name].append((one, other))
    return [comparison(pair, taken[pair.name]) for pair in pairs]


def measure(proxy: Proxy) -> Slice:
    """One slice; an error in it is a BenchmarkError, for nothing has been switched."""
    before = proxy.cpu_seconds()
    load = slice_of_load(proxy.url, SLICE_SECONDS)
    if load.errors:
        raise BenchmarkError(f"{proxy.service}: errors without a switch: {dict(load.errors)}")
    return Slice(load, (proxy.cpu_seconds() - before) * 1e6 / load.requests)


def comparison(pair: Pair, taken: Sequence[tuple[Slice, Slice]]) -> dict[str, Any]:
    """Medians of both, and of the ratios of neighbours, with their quartiles."""
    ratios = [one.load.rate / other.load.rate for one, other in taken]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {
        "proxy": pair.name,
        "against": pair.against,
        "rate": round(median(one.load.rate for one, _ in taken)),
        "other_rate": round(median(other.load.rate for _, other in taken)),
        "ratio": round(median(ratios), 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "p99_ms": round(median(one.load.p99 for one, _ in taken), 2),
        "other_p99_ms": round(median(other.load.p99 for _, other in taken), 2),
        "cpu_us": round(median(one.cpu for one, _ in taken), 1),
        "other_cpu_us": round(median(other.cpu for _, other in taken), 1),
        "cpu_ratio": round(median(one.cpu / other.cpu for one, other in taken), 3),
    }


def measure_shares(machine: Machine, _: argparse.Namespace) -> list[dict[str, Any]]:
    """How many requests green gets, in percent."""
    rows = []
    for kind in PROXIES:
        proxy = machine.proxy(kind, "shares")
        for weight in SHARES:
            say(f"shares: {kind}, weight {weight}")
            proxy.switch(100 - weight)
            counts = count_colors(proxy.address, SHARE_REQUESTS)
            share = counts["green"] * 100 / counts.total()
            rows.append(
                {
                    "proxy": kind,
                    "weight": weight,
                    "share": round(share, 2),
                    "off_by": round(abs(share - weight), 2),
                }
            )
        proxy.end()
    return rows


def measure_skew(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds from the first host's switch to the last one's."""
    rows = []
    for kind in PROXIES:
        say(f"skew: {kind}, a sandbox with {HOSTS} hosts")
        together, in_turn = [], []
        with fleet(options.network, kind, HOSTS) as hosts:
            for number in range(1, options.fleet_switches + 1):
                together.append(hosts.switch_together())
                say(f"skew: {kind}, {number} of {options.fleet_switches}: {together[-1]:.1f} ms")
                if number % IN_TURN_EVERY == 0:
                    in_turn.append(hosts.switch_in_turn())
                    say(f"skew: {kind}, one after the other: {in_turn[-1]:.0f} ms")
        for way, spreads in (("together", together), ("one after the other", in_turn)):
            if spreads:
                rows.append(
                    {
                        "proxy": kind,
                        "way": way,
                        "switches": len(spreads),
                        "median_ms": round(median(spreads), 1),
                        "p99_ms": round(nearest_rank(spreads, 0.99), 1),
                        "max_ms": round(max(spreads), 1),
                    }
                )
    return rows


def nearest_rank(values: Sequence[float], part: float) -> float:
    """A percentile that is one of the values; of 50 values the 99th is the largest."""
    return sorted(values)[math.ceil(len(values) * part) - 1]


ON_ONE_MACHINE: dict[str, Callable[[Machine, argparse.Namespace], list[dict[str, Any]]]] = {
    "errors": measure_errors,
    "throughput": measure_throughput,
    "ports": measure_ports,
    "shares": measure_shares,
}
PARTS = (*ON_ONE_MACHINE, "skew")
TITLES = {
    "errors": "Client errors of switches under load",
    "throughput": "The switchable configuration beside the plain one",
    "ports": "Dynamic host ports beside fixed ones",
    "shares": f"Green's share of {SHARE_REQUESTS:,} requests, in percent",
    "skew": f"From the first of {HOSTS} hosts to the last",
}


def measure_all(options: argparse.Namespace, show: Callable[[str, Any], None]) -> Report:
    """Measure the parts that were asked for, and show each when it is there."""
    for name, package in PROGRAMS.items():
        if shutil.which(name) is None:
            raise BenchmarkError(f"{name} is missing: apt-get install {package}")
    report: Report = {}
    for part in options.only or PARTS:
        if part == "skew":
            report[part] = measure_skew(options)
        else:
            with Machine(f"{options.network}.1") as machine:
                report[part] = ON_ONE_MACHINE[part](machine, options)
        show(TITLES[part], report[part])
    return report


def show_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A table in a terminal, else plain lines."""
    if not rows:
        return
    cells = [[cell(value) for value in row.values()] for row in rows]
    names = [name.replace("_", " ") for name in rows[0]]
    console = Console(highlight=False)
    if console.is_terminal:
        table = Table(title=title, title_justify="left")
        for name, value in zip(names, rows[0].values(), strict=True):
            table.add_column(name, justify="left" if isinstance(value, str) else "right")
        for line in cells:
            table.add_row(*line)
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    print(f"\n{title}")
    for line in (names, *cells):
        padded = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        print("  ".join(padded).rstrip())
    sys.stdout.flush()


def cell(value: Any) -> str:
    if isinstance(value, list):
        return "–".join(cell(part) for part in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="of throughput")
    parser.add_argument("--switches", type=int, default=100, metavar="N", help="under load")
    parser.add_argument(
        "--fleet-switches", type=int, default=50, metavar="N", help="of 8 hosts together"
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="can be given repeatedly")
    parser.add_argument("--network", default="127.0.50", help="as of python -m sandbox up")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.switches, options.fleet_switches) < 1:
        parser.error("less than one says nothing")
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))

    def show(title: str, rows: Any) -> None:
        if not options.json:
            show_table(title, rows)

    try:
        report = measure_all(options, show)
    except (BenchmarkError, LoadError, ProxyError, OSError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
