"""What it costs to read the control groups of many containers: the program of hosts/, and others.

Usage: python benchmarks/cgroup_reader.py [--containers 50] [--rounds 20]. Needs root and Docker.

Real containers of an engine of its own, each in a task of its own as ECS places them. On the same
containers, in the same run, one after the other in every round:

- ``docker stats --no-stream``, which waits for a second sample of every container, a second later;
- Docker's API, asked for one sample of each container (``one-shot``), all at the same time from a
  process that is there already: what somebody would do who keeps the samples before. Engines older
  than 25 answer at the next tick of a clock of one second
  (https://github.com/moby/moby/pull/46448);
- the whole program as the Run Command document starts it, from ``sh`` to its last line;
- its reading alone, in a process that is there already, without and with packing the output;
- plainly reading the same files, which is the limit: in such a process, and as a process.

Prints the median times and their ratios, as JSON after ``--json``; the exit status is 1 when the
program is not 50 times as fast as docker stats or takes more than 3 times the plain reading, both
in a process that is there already. As whole processes both start a Python, which takes longer than
reading: that ratio is printed too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

import checkout
from hosts import ecs_bluegreen_metrics as program
from sandbox.docker.engine import Engine
from sandbox.settings import SandboxError

DOCUMENT = checkout.ROOT / "hosts" / "documents" / "metrics.yaml"
NETWORK = "127.0.47"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FASTER_THAN_DOCKER_STATS = 50.0
TIMES_PLAIN_READING = 3.0
PLAIN = """
import os, sys
for path in sys.stdin.read().splitlines():
    file = os.open(path, os.O_RDONLY)
    os.read(file, 65536)
    os.close(file)
"""

Task = dict[str, Any]


@dataclass(frozen=True)
class Medians:
    """Milliseconds. *_process: from the start of a process to its end."""

    docker_stats: float
    docker_api: float
    program_process: float
    program: float
    program_reading: float
    plain: float
    plain_process: float
    cat_process: float

    @property
    def faster(self) -> float:
        """How many times as fast as docker stats the program is, both as processes."""
        return self.docker_stats / self.program_process

    @property
    def faster_than_api(self) -> float:
        """How many times as fast as Docker's API the program is, in a process that is there."""
        return self.docker_api / self.program

    @property
    def slower(self) -> float:
        """How many times as long as plainly reading the files the program takes, in a process that
        is there already; reading, understanding and packing.
        """
        return self.program / self.plain

    @property
    def slower_as_processes(self) -> float:
        """The same from the start of a process to its end; the plain one is a Python too."""
        return self.program_process / self.plain_process


@contextlib.contextmanager
def agent(tasks: list[Task]) -> Iterator[str]:
    """The introspection API of an ECS agent that runs these tasks; gives its host:port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = {"Tasks": tasks} if self.path == "/v1/tasks" else {"Cluster": "benchmark"}
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def start_containers(engine: Engine, count: int) -> list[Task]:
    """Start them, and describe them as the agent does."""
    tasks = []
    for number in range(count):
        task = secrets.token_hex(16)
        created = engine.client.create_container(
            image=engine.image,
            # Some memory, some processes, now and then some work.
            command=["sh", "-c", "while :; do head -c 100000 /dev/zero | wc -c; sleep 1; done"],
            host_config=engine.client.create_host_config(
                binds=engine.binds, cgroup_parent=engine.control_group(task)
            ),
        )
        engine.client.start(created["Id"])
        tasks.append(
            {
                "Arn": f"arn:aws:ecs:eu-west-1:123456789012:task/benchmark/{task}",
                "KnownStatus": "RUNNING",
                "Family": f"service-{number % 10}",
                "Version": "1",
                "Containers": [{"DockerId": created["Id"], "Name": "app"}],
            }
        )
    return tasks


def script() -> str:
    """What the document runs, with no plugins."""
    content = yaml.safe_load(DOCUMENT.read_text())
    lines = content["mainSteps"][0]["inputs"]["runCommand"]
    return "\n".join(lines).replace("{{" + "Plugins" + "}}", "")


def read(address: str) -> list[program.Json]:
    """Everything that is read, as the program does it."""
    problems = program.Problems()
    machine = program.Machine(program.ROOTS.split(":"), "/proc", problems)
    _, known = program.known_containers(address, problems)
    containers = program.read_all(machine, known, problems)
    entries = machine.networks(containers)
    if problems.said():
        raise SandboxError(f"not all could be read: {problems.said()}")
    return [container.entry() for container in containers] + entries


def read_and_pack(address: str) -> None:
    for _ in program.lines_of(read(address)):
        pass


def read_plainly(paths: list[str]) -> None:
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.read(file, 65536)
        os.close(file)


def lasting(path: str) -> str:
    """A file of /proc about a process, as one about the first process of its container, which is
    there as long as that.
    """
    process = Path(*Path(path).parts[:3])
    [parent] = re.findall(r"^PPid:\s+(\d+)", (process / "status").read_text(), re.MULTILINE)
    older = process.with_name(parent)
    if parent != "0" and (older / "cgroup").read_text() == (process / "cgroup").read_text():
        return lasting(path.replace(str(process), str(older), 1))
    return path


def files_read(address: str) -> list[str]:
    """The files that the program reads."""
    paths: list[str] = []
    original = program.read_file

    def recording(path: str, directory: int | None = None) -> bytes:
        data = original(path, directory)
        if directory is not None:
            path = f"{Path(f'/proc/self/fd/{directory}').readlink()}/{path}"
        paths.append(lasting(path) if path.startswith("/proc/") else path)
        return data

    program.read_file = recording
    try:
        read(address)
    finally:
        program.read_file = original
    return paths


def milliseconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return (time.perf_counter() - begin) * 1000


def measure(engine: Engine, tasks: list[Task], rounds: int, home: Path) -> tuple[Medians, int, int]:
    """(medians, files, characters of output)."""
    docker = shutil.which("docker", path=PATH)
    if docker is None:
        raise SandboxError("docker is missing, the command: apt-get install docker.io docker-cli")
    with agent(tasks) as address, ThreadPoolExecutor(len(tasks)) as pool:
        environment = {
            "PATH": PATH,
            "ECS_INTROSPECTION": address,
            "ECS_BLUEGREEN_HOME": str(home),
        }

        def run(*command: str, given: str | None = None) -> str:
            done = subprocess.run(
                command, env=environment, input=given, capture_output=True, text=True, check=True
            )
            return done.stdout

        def ask_docker() -> None:
            stats = partial(engine.client.stats, stream=False, one_shot=True)
            if len(list(pool.map(stats, containers))) != len(containers):
                raise SandboxError("Docker does not know all containers")

        containers = [task["Containers"][0]["DockerId"] for task in tasks]
        text = script()
        output = run("sh", "-c", text)  # this unpacks it
        head = json.loads(output.partition("\n")[0])
        if head["containers"] != len(tasks) or head["problems"]:
            raise SandboxError(f"the program does not see all containers: {head}")
        paths = files_read(address)
        whole = "\n".join(paths)
        stats = (docker, "-H", engine.host, "stats", "--no-stream")
        actions: Mapping[str, Callable[[], object]] = {
            "program_process": lambda: run("sh", "-c", text),
            "program": lambda: read_and_pack(address),
            "program_reading": lambda: read(address),
            "plain": lambda: read_plainly(paths),
            "plain_process": lambda: run("python3", "-I", "-S", "-c", PLAIN, given=whole),
            "cat_process": lambda: run("cat", *paths),
        }
        slow: Mapping[str, Callable[[], object]] = {
            "docker_stats": lambda: run(*stats),
            "docker_api": ask_docker,
        }
        times: dict[str, list[float]] = {name: [] for name in (*actions, *slow)}
        for number in range(rounds):
            for name, action in actions.items():
                times[name].append(milliseconds(action))
            if number % 4 == 0:
                for name, action in slow.items():
                    times[name].append(milliseconds(action))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Medians(**medians), len(paths), len(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--containers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="ecs-bluegreen-benchmark-"))
    try:
        with Engine(NETWORK) as engine:
            tasks = start_containers(engine, options.containers)
            time.sleep(2)
            medians, files, characters = measure(engine, tasks, options.rounds, home)
            docker = str(engine.client.version()["Version"])
    finally:
        shutil.rmtree(home)
    show(options, medians, files, characters, docker)
    good = medians.faster >= FASTER_THAN_DOCKER_STATS and medians.slower <= TIMES_PLAIN_READING
    return 0 if good else 1


def show(
    options: argparse.Namespace, medians: Medians, files: int, characters: int, docker: str
) -> None:
    figures: dict[str, Any] = {
        "docker_engine": docker,
        "containers": options.containers,
        "files": files,
        "output_characters": characters,
        "milliseconds": {
            name: round(getattr(medians, name), 2) for name in medians.__annotations__
        },
        "times_as_fast_as_docker_stats": round(medians.faster, 1),
        "times_as_fast_as_docker_api": round(medians.faster_than_api, 1),
        "times_plain_reading": round(medians.slower, 2),
        "times_plain_reading_as_processes": round(medians.slower_as_processes, 2),
    }
    if options.json:
        print(json.dumps(figures))
        return
    print(
        f"{options.containers} containers, {files} files, {characters} characters of output, "
        f"Docker engine {docker}"
    )
    for name, value in figures.pop("milliseconds").items():
        print(f"{name.replace('_', ' '):24} {value:10.2f} ms")
    for text, ratio, wanted in (
        ("as fast as docker stats", medians.faster, f" (at least {FASTER_THAN_DOCKER_STATS})"),
        ("as fast as docker's API", medians.faster_than_api, ""),
        ("time of plain reading", medians.slower, f" (at most {TIMES_PLAIN_READING})"),
        ("the same, as processes", medians.slower_as_processes, ""),
    ):
        print(f"{text:24} {ratio:10.2f} x{wanted}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SandboxError as error:
        sys.exit(str(error))
