#!/usr/bin/python3
"""The host side of the pattern host-proxy: which colour the proxy of this machine forwards to.

Runs on container instances as ``ecs-bluegreen-host`` (Python 3.9 or later, standard library only);
the documents beside it call it. A subcommand prints one line of JSON and exits with 0, or with 1
and ``{"error": "..."}``.

What is below ``<home>/<service>/`` (home: $ECS_BLUEGREEN_HOME, else /var/lib/ecs-bluegreen)::

    host.json              what `configure` was given
    nginx.conf             or haproxy.cfg, rendered from it; server.d/*.conf are the user's own
    generations/<N>/       what a generation says; never changed once it has this name. <N>.1, ...
                           say the same of other tasks' ports (dynamic host ports)
    current                symlink to the generation that has the traffic
    staged                 symlink to the one that was prepared last
    restored               the boot id, once `restore` has done its work since this boot: the proxy
                           does not start before
    haproxy.sock, lock

The switch is one rename(2) of ``current``. nginx looks below it at every request, so that is all.
HAProxy reads the same at its start and is told by one `set map`. So what is on disk is right at
every moment: whoever dies between two steps leaves either the old generation or the new one.

This text may not hold two opening braces in a row: SSM would take them for a parameter.
"""

from __future__ import annotations

import abc
import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

COLORS = ("blue", "green")
DEFAULT_HOME = "/var/lib/ecs-bluegreen"
INTROSPECTION = "localhost:51678"

ANSWER_SECONDS = 1.0
"""How long a task may take to answer."""
VERIFY_SECONDS = 3.0
"""How long a proxy may take to show a switch; it may be in the middle of a restart."""
LOCK_SECONDS = 20.0
READY_SECONDS = 1.0
"""So long before the moment of a switch its last preparations begin."""
PROXY_NICENESS = -10
NAP_SECONDS = 0.004
"""The last sleep before the moment: the shorter a sleep, the more exact its end."""
MAX_AHEAD_SECONDS = 300.0
REGISTER_SECONDS = 240.0
"""How long `restore` waits for the ECS agent, or for tasks; its unit starts it again then."""
WATCH_SECONDS = 1.0
CLOCK_MILLISECONDS = 5.0
"""By how much the clock may be wrong, as far as the kernel knows."""
KEEP_GENERATIONS = 8
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SLOTS = 32
"""Tasks of a colour on one host, with HAProxy and dynamic ports."""
ERROR_CHARACTERS = 900

SERVICE = "[a-z0-9][a-z0-9-]{0,39}"
GENERATION = "[0-9]{1,15}"
WEIGHT = "100|[0-9]{1,2}"
EXPECTED = "(none|[0-9]{1,3}:[0-9]{1,3})(,(none|[0-9]{1,3}:[0-9]{1,3})){0,9}"
TASK = "([A-Za-z0-9_-]{1,255}:[0-9]{1,10})?"
MOMENT = r"[0-9]{10}\.[0-9]{3}"
PORT = "[0-9]{1,5}"
ADDRESS = r"[0-9]{1,3}(\.[0-9]{1,3}){3}"
CONTAINER = "[A-Za-z0-9_-]{0,255}"
HEALTH_PATH = "/[A-Za-z0-9._~/?=+-]{0,254}"
HOME = "/[A-Za-z0-9._/-]{1,200}"

GENERATION_NAME = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?")

# `-f` looks at the file system at every request. It takes a path that is relative to the
# working directory of the workers: half of what it costs is the length of the path. One look finds
# blue when it has all traffic, two find green, which then has all buckets, and a canary's requests
# take two or three. Each `if` ends the search, and a generation holds what makes the answer right
# whichever look is the first one in it, so a rename between two looks does no harm.
NGINX_FIXED = """\
        location / {
            if (-f current/blue) {
                proxy_pass http://blue;
                break;
            }
            if (-f current/$bucket) {
                proxy_pass http://green;
                break;
            }
            if (-f current/served) {
                proxy_pass http://blue;
                break;
            }
            return 503;
        }
"""
NGINX_FIXED_UPSTREAMS = """\
    # Idle connections are closed before a task would do it (Node.js: after 5 s), and soon enough
    # for the drain of a colour to come to an end.
    upstream blue {
        server @address@:@blue_port@ max_fails=0;
        keepalive 128;
        keepalive_timeout 4s;
        keepalive_requests 100000;
    }
    upstream green {
        server @address@:@green_port@ max_fails=0;
        keepalive 128;
        keepalive_timeout 4s;
        keepalive_requests 100000;
    }
"""
# A bucket is a symlink whose name says the task: one look gives colour and port together.
NGINX_DYNAMIC = """\
        location / {
            root @folder@/current/$bucket;
            if ($task = "") {
                return 503;
            }
            proxy_pass http://$task;
        }
"""
NGINX_DYNAMIC_TASKS = """\
    map $realpath_root $task {
        "~/(?<task_address>[0-9.]+:[0-9]+)$" $task_address;
        default "";
    }
"""
NGINX = """\
# Written by `ecs-bluegreen-host configure`: give it other arguments instead of changing this.
# Directives of your own for the server go into @folder@/server.d/*.conf.
worker_processes auto;
pid @folder@/nginx.pid;
error_log stderr warn;
working_directory @folder@;

events {
    worker_connections 16384;
}

http {
    access_log off;
    client_body_temp_path @folder@/temporary/body;
    proxy_temp_path @folder@/temporary/proxy;
    fastcgi_temp_path @folder@/temporary/fastcgi;
    uwsgi_temp_path @folder@/temporary/uwsgi;
    scgi_temp_path @folder@/temporary/scgi;

    # Longer than the load balancer in front keeps an idle connection (60 s unless configured).
    keepalive_timeout 120s;
    keepalive_requests 100000;
    client_max_body_size 0;
    # Headers as long as an Application Load Balancer lets through, and as tasks may answer.
    large_client_header_buffers 8 64k;
    proxy_buffer_size 64k;
    proxy_buffers 4 64k;
    proxy_busy_buffers_size 64k;
    underscores_in_headers on;

    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $forwarded_proto;
    proxy_redirect off;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_connect_timeout 5s;
    # WebSockets and long requests stay on their colour until they end.
    proxy_send_timeout 1h;
    proxy_read_timeout 1h;
    # What was sent to a task is sent again only if it is idempotent: an idle connection to it that
    # was just closed is no error then.
    proxy_next_upstream error;

    map $http_upgrade $connection_upgrade {
        default upgrade;
        "" "";
    }
    map $http_x_forwarded_proto $forwarded_proto {
        default $http_x_forwarded_proto;
        "" $scheme;
    }
    # Each request falls into one of 100 buckets.
    split_clients "$connection.$connection_requests" $bucket {
@buckets@
    }
@targets@
    server {
        listen @bind@:@port@;
        include @folder@/server.d/*.conf;
@location@    }

    # What this process resolves, for `ecs-bluegreen-host report`.
    server {
        listen @address@:@status_port@;
        keepalive_timeout 0;
        root @folder@/current;
        location = /generation {
            if (!-f current/state.json) {
                return 500 "its working directory is gone";
            }
            return 200 "$realpath_root @digest@";
        }
        location / {
            return 404;
        }
    }
}
"""

HAPROXY = """\
# Written by `ecs-bluegreen-host configure`: give it other arguments instead of changing this.
global
    description @digest@
    stats socket @folder@/haproxy.sock mode 600 level admin
    stats timeout 30s
    # A request's or an answer's headers have to fit.
    tune.bufsize 65536
@user@
defaults
    mode @protocol@
    timeout connect 5s
    # WebSockets and long requests stay on their colour until they end.
    timeout client 1h
    timeout server 1h
    timeout tunnel 24h
@defaults@
frontend service
    bind @bind@:@port@
@frontend@    default_backend blue

@backends@"""
HAPROXY_HTTP_DEFAULTS = """\
    # Longer than the load balancer in front keeps an idle connection (60 s unless configured).
    timeout http-keep-alive 120s
    timeout http-request 60s
"""
# generation x 1000 + the share of green; above 100: no colour has traffic.
HAPROXY_HTTP = """\
    http-request set-var(txn.green) @share@
    http-request return status 503 if { var(txn.green) -m int gt 100 }
    option forwardfor
    http-request set-header X-Forwarded-Proto http unless { req.hdr(X-Forwarded-Proto) -m found }
    use_backend green if { rand(100),sub(txn.green) -m int lt 0 }
"""
HAPROXY_TCP = """\
    tcp-request content set-var(txn.green) @share@
    tcp-request content reject if { var(txn.green) -m int gt 100 }
    use_backend green if { rand(100),sub(txn.green) -m int lt 0 }
"""
NO_TRAFFIC = 999

Weights = dict[str, int]
Ports = dict[str, list[int]]


class Refused(Exception):
    """What was asked for is not done: what is wrong, where, and what would be right."""


# ------------------------------------------------------------------------------------- the host


@dataclass(frozen=True)
class Settings:
    """What `configure` was given; ``blue_port`` 0 means dynamic ports, found by the container."""

    service: str
    proxy: str
    protocol: str
    port: int
    blue_port: int
    green_port: int
    container: str
    container_port: int
    health_path: str
    address: str
    bind: str
    status_port: int
    proxy_container: str
    """Of the ECS daemon service that runs the proxy; "" when this host itself does."""

    @property
    def dynamic(self) -> bool:
        return self.blue_port == 0

    @property
    def ports(self) -> Ports:
        """The ports that never change; none when they are dynamic."""
        if self.dynamic:
            return {"blue": [], "green": []}
        return {"blue": [self.blue_port], "green": [self.green_port]}

    @property
    def digest(self) -> str:
        """Tells one configuration of the proxy from another."""
        text = json.dumps([asdict(self), NGINX, HAPROXY, HAPROXY_HTTP, HAPROXY_TCP])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class State:
    """What a generation says.

    ``weights`` is {} when no colour has traffic, else {"blue": 0..100, "green": 0..100}. ``tasks``
    holds family:revision of each colour ("" when unknown), ``ports`` where its tasks listen (0: no
    task, so that the others keep their places).
    """

    generation: int
    weights: Weights
    tasks: dict[str, str]
    ports: Ports

    @property
    def traffic(self) -> int:
        """All of it in one number: the entry of HAProxy's map."""
        return self.generation * 1000 + self.weights.get("green", NO_TRAFFIC)


class Host:
    """The directory of one service on this machine."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.proxy: Proxy = (
            Nginx(folder, settings) if settings.proxy == "nginx" else Haproxy(folder, settings)
        )

    @classmethod
    def of(cls, service: str) -> Host:
        folder = home() / service
        try:
            written = json.loads((folder / "host.json").read_text())
        except FileNotFoundError:
            raise Refused(
                f"{service} is not configured on this host: there is no {folder}/host.json; run the"
                " install document, or `ecs-bluegreen-host configure`"
            ) from None
        except ValueError as error:
            raise Refused(
                f"{folder}/host.json cannot be read: {error}; configure it again"
            ) from error
        try:
            return cls(folder, Settings(**written))
        except TypeError as error:
            raise Refused(
                f"{folder}/host.json is of another version of this program ({error}); run the "
                "install document again"
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time. The kernel gives the lock back when its holder dies."""
        with (self.folder / "lock").open("a") as file:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Refused(
                            f"{self.folder}/lock is held by another command for more than "
                            f"{LOCK_SECONDS:.0f} s; look for a hanging ecs-bluegreen-host"
                        ) from None
                    time.sleep(0.003)
            yield

    def directory(self, link: str) -> Path | None:
        """Where ``current`` or ``staged`` points to."""
        try:
            return self.folder / (self.folder / link).readlink()
        except FileNotFoundError:
            return None

    def current(self) -> State:
        """What is on disk for the proxy."""
        directory = self.directory("current")
        if directory is None:
            raise Refused(f"{self.folder}/current is missing; run `ecs-bluegreen-host configure`")
        return read_state(directory)

    def staged(self) -> State | None:
        """What was prepared, unless it or something newer is current."""
        directory = self.directory("staged")
        if directory is None or not directory.exists():
            return None
        state = read_state(directory)
        return state if state.generation > self.current().generation else None

    def switched_at(self) -> float | None:
        """When the current generation got the traffic; None for the one that `configure` made.

        A commit that died between the rename and writing the time has left the symlink's own.
        """
        directory = self.directory("current")
        if directory is None or read_state(directory).generation == 0:
            return None
        try:
            return float((directory / "switched_at").read_text())
        except FileNotFoundError:
            return round((self.folder / "current").lstat().st_ctime, 3)

    def generations(self) -> dict[tuple[int, int], Path]:
        """The directories by (generation, revision)."""
        found = {}
        for path in (self.folder / "generations").iterdir():
            name = GENERATION_NAME.fullmatch(path.name)
            if name:
                found[int(name[1]), int(name[2] or 0)] = path
        return found

    def prepare(self, state: State) -> Path:
        """Make the directory of a generation, or find it; it is whole and on disk then."""
        revisions = {
            r: path for (n, r), path in self.generations().items() if n == state.generation
        }
        for path in revisions.values():
            if read_state(path) == state and self.proxy.fits(path):
                return path
        revision = max(revisions, default=-1) + 1
        name = f"{state.generation}.{revision}" if revision else str(state.generation)
        path = self.folder / "generations" / name
        temporary = path.with_name(f".{name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary / "state.json", json.dumps(asdict(state)))
        self.proxy.write_generation(temporary, state)
        if revision:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(revisions[revision - 1] / "switched_at", temporary)
        sync(temporary)
        temporary.rename(path)
        sync(path.parent)
        return path

    def point(self, link: str, directory: Path) -> Callable[[], None]:
        """Get ``current`` or ``staged`` ready for another directory; the callable does it."""
        temporary = self.folder / f".{link}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(f"generations/{directory.name}")
        target = self.folder / link

        def replace() -> None:
            temporary.replace(target)

        return replace

    def stage(self, state: State) -> None:
        """Prepare a generation and note that it was."""
        self.point("staged", self.prepare(state))()
        sync(self.folder)

    def tidy(self) -> None:
        """Remove what died commands have left, and all but the newest generations."""
        keep = {self.directory("current"), self.directory("staged")}
        found = self.generations()
        keep.update(found[key] for key in sorted(found)[-KEEP_GENERATIONS:])
        for path in (self.folder / "generations").iterdir():
            if path not in keep:
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(".*"):
            if path.is_symlink():
                path.unlink()


def home() -> Path:
    """The directory of all services; it goes into configuration files, so its name is checked."""
    name = os.environ.get("ECS_BLUEGREEN_HOME", DEFAULT_HOME)
    if not re.fullmatch(HOME, name):
        raise Refused(
            f"ECS_BLUEGREEN_HOME is {name!r}: it has to be an absolute path of [A-Za-z0-9._-]"
        )
    return Path(name)


def read_state(directory: Path) -> State:
    return State(**json.loads((directory / "state.json").read_text()))


def write(path: Path, text: str) -> None:
    """Write a whole file, or nothing, so that it survives a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Have the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shown(ports: Ports) -> Ports:
    """Ports without empty places."""
    return {color: [port for port in ports[color] if port] for color in COLORS}


def fill(template: str, values: dict[str, str]) -> str:
    return re.sub("@([a-z_]+)@", lambda match: values[match[1]], template)


def words(weights: Weights) -> str:
    """Weights as `--expected` names them: "100:0", or "none"."""
    return "{blue}:{green}".format(**weights) if weights else "none"


# ------------------------------------------------------------------------------------ the proxies


@dataclass(frozen=True)
class Running:
    """What the running proxy says; ``traffic`` is None when it says nothing, ``problem`` why."""

    traffic: int | None
    problem: str


class Proxy(abc.ABC):
    """What nginx and HAProxy are asked to do, each in its own way."""

    file_name = ""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings

    @abc.abstractmethod
    def render(self, ports: Ports) -> str:
        """The configuration file."""

    @abc.abstractmethod
    def test_command(self) -> list[str]:
        """What checks the configuration file without using it."""

    @abc.abstractmethod
    def run_command(self) -> list[str]:
        """What runs the proxy in the foreground."""

    @abc.abstractmethod
    def write_generation(self, directory: Path, state: State) -> None:
        """Put into a generation's directory what the proxy reads there."""

    @abc.abstractmethod
    def fits(self, directory: Path) -> bool:
        """Whether a generation's directory was made for this proxy."""

    @abc.abstractmethod
    def running(self) -> Running:
        """What the running proxy forwards to."""

    @abc.abstractmethod
    def ready(self, state: State) -> Callable[[], None]:
        """Do all but the last step of telling the running proxy; the callable does that one."""

    @abc.abstractmethod
    def connections(self, ports: Ports) -> dict[str, int]:
        """Connections to the tasks of each colour."""

    def fault(self) -> str:
        """What is wrong with the configuration file, "" when it is as it should be."""
        command = self.test_command()
        try:
            if self.settings.proxy_container:
                command = ["docker", "exec", container_id(self.settings), *command]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except FileNotFoundError:
            return f"{command[0]} is not installed: it is not on PATH"
        except subprocess.TimeoutExpired:
            return f"{' '.join(command)} takes more than 20 s"
        except Refused as refused:
            return str(refused)
        if done.returncode != 0:
            return f"{self.folder / self.file_name} is not valid: {first_complaint(done.stderr)}"
        return ""


class Nginx(Proxy):
    """Looks at the file system at every request; there is nothing to tell it."""

    file_name = "nginx.conf"

    def render(self, ports: Ports) -> str:  # noqa: ARG002 - the ports are not in its configuration
        settings = self.settings
        values = {name: str(value) for name, value in asdict(settings).items()}
        values["folder"] = str(self.folder)
        values["digest"] = settings.digest
        values["buckets"] = "\n".join(
            [*(f"        1% {bucket};" for bucket in range(99)), "        * 99;"]
        )
        targets = NGINX_DYNAMIC_TASKS if settings.dynamic else NGINX_FIXED_UPSTREAMS
        location = NGINX_DYNAMIC if settings.dynamic else NGINX_FIXED
        values["targets"] = fill(targets, values)
        values["location"] = fill(location, values)
        return fill(NGINX, values)

    def _command(self) -> list[str]:
        return ["nginx", "-p", str(self.folder), "-c", str(self.folder / self.file_name)]

    def test_command(self) -> list[str]:
        return [*self._command(), "-t", "-q"]

    def run_command(self) -> list[str]:
        return [*self._command(), "-g", "daemon off;"]

    def write_generation(self, directory: Path, state: State) -> None:
        if self.settings.dynamic:
            self._write_buckets(directory, state)
            return
        green = state.weights.get("green", 0)
        if state.weights:
            (directory / "served").touch()
            if green == 0:
                (directory / "blue").touch()
        for bucket in range(green):
            (directory / str(bucket)).touch()

    def _write_buckets(self, directory: Path, state: State) -> None:
        """Buckets 0 to the share of green - 1 are green's, each colour's tasks take turns."""
        green = state.weights.get("green", 0)
        (directory / "none").touch()
        for color, buckets in (("green", range(green)), ("blue", range(green, 100))):
            ports = state.ports[color] if state.weights else []
            names = [f"{self.settings.address}:{port}" for port in ports if port] or ["none"]
            for name in names:
                (directory / name).touch()
            for bucket in buckets:
                (directory / str(bucket)).symlink_to(names[bucket % len(names)])

    def fits(self, directory: Path) -> bool:
        if self.settings.dynamic:
            return (directory / "0").is_symlink()
        return not (directory / "0").is_symlink() and not (directory / "traffic.map").exists()

    def running(self) -> Running:
        address = (self.settings.address, self.settings.status_port)
        try:
            status, body = http_get(address, "/generation", ANSWER_SECONDS)
        except OSError as error:
            return Running(
                None, f"nginx does not run: {reason_of(error)} at {address[0]}:{address[1]}"
            )
        said = body.strip().split(" ")
        if status != 200 or len(said) != 2:
            return Running(None, f"nginx does not say what it resolves: {status} {body[:200]!r}")
        directory = self.folder / "generations" / Path(said[0]).name
        try:
            state = read_state(directory)
        except FileNotFoundError:
            return Running(
                None, f"nginx looks at {said[0]}, not at {self.folder}/current; restart it"
            )
        return Running(state.traffic, self._outdated(said[1]))

    def _outdated(self, digest: str) -> str:
        if digest == self.settings.digest:
            return ""
        return f"nginx has another configuration than {self.folder}/nginx.conf; restart it"

    def ready(self, state: State) -> Callable[[], None]:  # noqa: ARG002 - the rename is enough
        return lambda: None

    def connections(self, ports: Ports) -> dict[str, int]:
        """Counted in the kernel's table, from this end: a connection is there once."""
        remote = {(self.settings.address, port): color for color in COLORS for port in ports[color]}
        counts = dict.fromkeys(COLORS, 0)
        for address in established():
            if address in remote:
                counts[remote[address]] += 1
        return counts


class Haproxy(Proxy):
    """Keeps its share in a map that is read at its start and changed through its socket."""

    file_name = "haproxy.cfg"

    def render(self, ports: Ports) -> str:
        settings = self.settings
        http = settings.protocol == "http"
        values = {name: str(value) for name, value in asdict(settings).items()}
        values["folder"] = str(self.folder)
        values["digest"] = settings.digest
        values["user"] = "    user haproxy\n    group haproxy\n" if may_become("haproxy") else ""
        values["defaults"] = HAPROXY_HTTP_DEFAULTS if http else ""
        values["share"] = f"str(traffic),map_str_int({self._map},{NO_TRAFFIC}),mod(1000)"
        values["frontend"] = fill(HAPROXY_HTTP if http else HAPROXY_TCP, values)
        values["backends"] = "\n".join(self._backend(color, ports[color]) for color in COLORS)
        return fill(HAPROXY, values)

    def _backend(self, color: str, ports: list[int]) -> str:
        lines = [f"backend {color}"]
        if self.settings.dynamic:
            # A task that has just ended: the next one, before anything was sent.
            lines += ["    option redispatch 1", "    retries 3"]
        for slot in range(SLOTS if self.settings.dynamic else 1):
            used = slot < len(ports) and ports[slot] > 0
            where = f"{self.settings.address}:{ports[slot] if used else 1}"
            lines.append(f"    server s{slot} {where}{'' if used else ' disabled'}")
        return "\n".join(lines) + "\n"

    def _command(self) -> list[str]:
        return ["haproxy", "-f", str(self.folder / self.file_name)]

    def test_command(self) -> list[str]:
        return [*self._command(), "-c"]

    def run_command(self) -> list[str]:
        return [*self._command(), "-W", "-db"]

    def write_generation(self, directory: Path, state: State) -> None:
        write(directory / "traffic.map", f"traffic {state.traffic}\n")
        if self.settings.dynamic:
            write(directory / self.file_name, self.render(state.ports))

    def fits(self, directory: Path) -> bool:
        if not (directory / "traffic.map").exists():
            return False
        own = directory / self.file_name
        if not self.settings.dynamic:
            return not own.exists()
        return own.exists() and own.read_text() == self.render(read_state(directory).ports)

    @property
    def _map(self) -> str:
        return f"{self.folder}/current/traffic.map"

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(str(self.folder / "haproxy.sock"))
        except OSError:
            connection.close()
            raise
        return connection

    def _ask(self, command: str) -> str:
        with self._connect() as connection:
            connection.sendall(command.encode() + b"\n")
            return read_all(connection)

    def running(self) -> Running:
        try:
            said = self._ask(f"show info;show map {self._map}")
        except OSError as error:
            return Running(
                None, f"haproxy does not run: {reason_of(error)} at {self.folder}/haproxy.sock"
            )
        entry = re.search("^0x[0-9a-f]+ traffic ([0-9]+)$", said, re.MULTILINE)
        if entry is None:
            return Running(None, f"haproxy has no entry in {self._map}; restart it")
        if not re.search(f"^(?i:description): {self.settings.digest}$", said, re.MULTILINE):
            return Running(
                int(entry[1]),
                f"haproxy has another configuration than {self.folder}/haproxy.cfg; restart it",
            )
        return Running(int(entry[1]), "")

    def ready(self, state: State) -> Callable[[], None]:
        """Tell it the ports, which changes nothing for the traffic, and open the connection."""
        if self.settings.dynamic:
            self._tell_ports(state.ports)
        connection = self._connect()
        command = f"set map {self._map} traffic {state.traffic}\n".encode()

        def apply() -> None:
            with connection:
                connection.sendall(command)
                answer = read_all(connection).strip()
            if answer:
                raise Refused(f"haproxy does not take `set map`: {answer[:200]}; restart it")

        return apply

    def _tell_ports(self, ports: Ports) -> None:
        commands = []
        for color in COLORS:
            for slot in range(SLOTS):
                server = f"{color}/s{slot}"
                port = ports[color][slot] if slot < len(ports[color]) else 0
                if port:
                    where = f"addr {self.settings.address} port {port}"
                    commands += [f"set server {server} {where}", f"set server {server} state ready"]
                else:
                    commands.append(f"set server {server} state maint")
        for start in range(0, len(commands), 16):
            self._ask(";".join(commands[start : start + 16]))

    def connections(self, ports: Ports) -> dict[str, int]:  # noqa: ARG002 - it counts itself
        said = self._ask("show stat -1 2 -1")
        lines = said.lstrip("# ").splitlines()
        names = lines[0].split(",")
        counts = dict.fromkeys(COLORS, 0)
        for line in lines[1:]:
            row = dict(zip(names, line.split(",")))
            if row.get("svname") == "BACKEND" and row["pxname"] in counts:
                counts[row["pxname"]] = int(row["scur"])
        return counts


def container_id(settings: Settings) -> str:
    """The proxy's container; the ECS agent knows it. Raises Refused when there is none."""
    for task in agent_tasks():
        for container in task.get("Containers") or []:
            if (container.get("Name"), task.get("KnownStatus")) == (
                settings.proxy_container,
                "RUNNING",
            ):
                return checked("[0-9a-f]{12,64}", str(container.get("DockerId")))
    raise Refused(f"no container {settings.proxy_container} runs on this host; look at its service")


def may_become(user: str) -> bool:
    """Whether programs that this one starts can give up root for that user."""
    if os.geteuid() != 0:
        return False
    return any(line.startswith(f"{user}:") for line in Path("/etc/passwd").read_text().splitlines())


def first_complaint(errors: str) -> str:
    """The line that says what is wrong, of what `nginx -t` or `haproxy -c` has printed."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if "[emerg]" in line or "[ALERT]" in line]
    return (telling or lines or ["it does not say why"])[0][:400]


def reason_of(error: OSError) -> str:
    if isinstance(error, socket.timeout):
        return "no answer in time"
    return (os.strerror(error.errno) if error.errno else str(error) or repr(error)).lower()


def read_all(connection: socket.socket) -> str:
    parts: list[bytes] = []
    while True:
        part = connection.recv(65536)
        if not part:
            return b"".join(parts).decode(errors="replace")
        parts.append(part)


def http_get(address: tuple[str, int], path: str, seconds: float) -> tuple[int, str]:
    """Ask a server on this machine: (status, body). Raises OSError.

    By hand, because importing an HTTP client takes longer than all that `report` does.
    """
    deadline = time.monotonic() + seconds
    with socket.create_connection(address, timeout=seconds) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
            "User-Agent: ecs-bluegreen-host\r\nConnection: close\r\n\r\n".encode()
        )
        said = b""
        while len(said) < 1_000_000:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = connection.recv(65536)
            if not part:
                break
            said += part
    head, _, body = said.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3})", head)
    if status is None:
        raise OSError("no HTTP answer")
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        body = joined_chunks(body)
    return int(status[1]), body.decode(errors="replace")


def joined_chunks(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0] or b"0", 16)
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)


def established() -> Iterator[tuple[str, int]]:
    """The remote ends of all established IPv4 connections of this network namespace.

    /proc/net/tcp gives addresses as 32-bit words of the machine's byte order; a socket of IPv6 may
    hold a connection of IPv4, as ::ffff:a.b.c.d. State 01 is ESTABLISHED.
    """
    for name, prefix in (("/proc/net/tcp", ""), ("/proc/net/tcp6", "0" * 16 + "FFFF0000")):
        with contextlib.suppress(FileNotFoundError), Path(name).open() as table:
            next(table, None)
            for line in table:
                columns = line.split(None, 4)
                address, _, port = columns[2].partition(":")
                if columns[3] == "01" and address.startswith(prefix):
                    word = struct.pack("=I", int(address[len(prefix) :], 16))
                    yield socket.inet_ntoa(word), int(port, 16)


# ------------------------------------------------------------------------------------- the tasks


def ports_of(settings: Settings, tasks: dict[str, str]) -> Ports:
    """Where the tasks of each colour listen on this host, in the order of the agent's list."""
    if not settings.dynamic:
        return settings.ports
    found: Ports = {"blue": [], "green": []}
    running = agent_tasks()
    for color in COLORS:
        for task in running:
            name = f"{task.get('Family')}:{task.get('Version')}"
            if name != tasks.get(color) or {task.get("KnownStatus"), task.get("DesiredStatus")} != {
                "RUNNING"
            }:
                continue
            found[color] += published(settings, task)
    return found


def usable_ports(host: Host, tasks: dict[str, str], before: State) -> Ports:
    """Where the tasks of each colour listen, as far as they answer; those in use keep their places.

    A task in use stays so as long as ECS wants it to run: whether it is well is ECS's to decide.
    """
    try:
        found = ports_of(host.settings, tasks)
    except Refused:
        if tasks != before.tasks:
            raise
        # The agent is being restarted, say. That is no news of the tasks.
        return before.ports
    new = {
        color: [port for port in found[color] if port not in before.ports[color]]
        for color in COLORS
    }
    answers = answers_of(host.settings, new)
    ports: Ports = {}
    for color in COLORS:
        kept = [port if port in found[color] else 0 for port in before.ports[color]]
        for port in new[color]:
            if answers[color][port] == "":
                place(kept, port)
        ports[color] = kept
        if host.settings.proxy == "haproxy" and len(kept) > SLOTS:
            raise Refused(
                f"{len(kept)} tasks of {color} on this host: haproxy has room for {SLOTS}"
            )
    return ports


def place(ports: list[int], port: int) -> None:
    """Put a port into the first free place."""
    if 0 in ports:
        ports[ports.index(0)] = port
    else:
        ports.append(port)


def published(settings: Settings, task: dict[str, Any]) -> list[int]:
    """The host ports of a task's container that get the requests."""
    return [
        port["HostPort"]
        for container in task.get("Containers") or []
        if container.get("Name") == settings.container
        for port in container.get("Ports") or []
        if port.get("ContainerPort") == settings.container_port and port.get("HostPort")
    ][:1]


def agent_tasks() -> list[dict[str, Any]]:
    """What the ECS agent says about the tasks on this instance."""
    said = introspect("/v1/tasks")
    return list(said.get("Tasks") or [])


def introspect(path: str) -> dict[str, Any]:
    """Ask the ECS agent's introspection API."""
    where = os.environ.get("ECS_INTROSPECTION", INTROSPECTION)
    name, _, port = where.partition(":")
    try:
        status, body = http_get((name, int(port)), path, 2 * ANSWER_SECONDS)
        said = json.loads(body)
    except (OSError, ValueError) as error:
        why = reason_of(error) if isinstance(error, OSError) else "its answer is no JSON"
        raise Refused(f"the ECS agent at {where} does not answer {path}: {why}") from None
    if status != 200 or not isinstance(said, dict):
        raise Refused(f"the ECS agent at {where} answers {path} with {status}")
    return said


def answers_of(settings: Settings, ports: Ports) -> dict[str, dict[int, str]]:
    """For each port of each colour "" when it answers, else what is wrong. All at once."""
    answers: dict[str, dict[int, str]] = {color: {} for color in COLORS}

    def ask(color: str, port: int) -> None:
        answers[color][port] = answer_of(settings, port)

    asking = [
        threading.Thread(target=ask, args=(color, port))
        for color in COLORS
        for port in ports[color]
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    return answers


def answer_of(settings: Settings, port: int) -> str:
    address = (settings.address, port)
    try:
        if settings.protocol == "tcp":
            socket.create_connection(address, timeout=ANSWER_SECONDS).close()
            return ""
        status, _ = http_get(address, settings.health_path, ANSWER_SECONDS)
    except OSError as error:
        return f"{reason_of(error)} at {address[0]}:{port}"
    if 200 <= status < 400:
        return ""
    return f"{status} for {settings.health_path} at {address[0]}:{port}"


def complaint(answers: dict[int, str]) -> str:
    """What is wrong with the first task of a colour that does not answer, "" when all do."""
    if not answers:
        return "no task of this colour on this host"
    return next(filter(None, answers.values()), "")


# ---------------------------------------------------------------------------------- subcommands


def configure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the proxy's configuration; the generation that has the traffic keeps it."""
    settings = Settings(**{item.name: getattr(arguments, item.name) for item in fields(Settings)})
    check_settings(settings)
    folder = home() / settings.service
    # The proxy's workers, which are somebody else, have to get through, whoever has made it.
    own = (folder / name for name in ("generations", "server.d", "temporary"))
    for directory in (home(), folder, *own):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
    host = Host(folder, settings)
    socket_path = f"{folder}/haproxy.sock"
    if settings.proxy == "haproxy" and len(socket_path) > 90:
        raise Refused(
            f"{socket_path} is too long for a socket: ECS_BLUEGREEN_HOME has to be shorter"
        )
    with host.locked():
        before = host.directory("current")
        state = read_state(before) if before else State(0, {}, dict.fromkeys(COLORS, ""), {})
        kept = state.ports if settings.dynamic and state.ports else settings.ports
        state = State(state.generation, state.weights, state.tasks, kept)
        directory = host.prepare(state)
        changed = write_if_other(
            folder / "host.json", json.dumps(asdict(settings), indent=1) + "\n"
        )
        if directory != before:
            host.point("current", directory)()
            changed = True
        changed |= write_configuration(host, state)
    return {"configured": settings.service, "changed": changed}


def check_settings(settings: Settings) -> None:
    """What cannot be said by the pattern of one argument."""
    if settings.protocol == "tcp" and settings.proxy == "nginx":
        raise Refused("--protocol tcp: nginx forwards http only here; use --proxy haproxy")
    fixed = [settings.blue_port, settings.green_port]
    by_container = [settings.container, settings.container_port]
    if not (all(fixed) and not any(by_container)) and not (all(by_container) and not any(fixed)):
        raise Refused(
            "say where the tasks are: either --blue-port and --green-port, or (dynamic host ports) "
            "--container and --container-port"
        )
    numbers = [settings.port, settings.status_port, *filter(None, fixed)]
    if not all(1 <= number <= 65535 for number in [*numbers, settings.container_port or 1]):
        raise Refused("a port is none: 1 to 65535 is right")
    if len(set(numbers)) != len(numbers):
        raise Refused(f"the ports {', '.join(map(str, numbers))} have to differ from each other")
    for name in ("address", "bind"):
        if any(int(part) > 255 for part in getattr(settings, name).split(".")):
            raise Refused(f"--{name} {getattr(settings, name)} is no IPv4 address")


def write_configuration(host: Host, state: State) -> bool:
    """Write the proxy's configuration file; whether it was another one.

    With dynamic ports HAProxy's is part of the generation, for it names the ports.
    """
    path = host.folder / host.proxy.file_name
    if host.settings.dynamic and host.settings.proxy == "haproxy":
        wanted = f"current/{path.name}"
        if path.is_symlink() and path.readlink() == Path(wanted):
            own = path.resolve()
            return write_if_other(own, host.proxy.render(state.ports))
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.symlink_to(wanted)
        temporary.replace(path)
        return True
    if path.is_symlink():
        path.unlink()
    return write_if_other(path, host.proxy.render(state.ports))


def write_if_other(path: Path, text: str) -> bool:
    if path.exists() and path.read_text() == text:
        return False
    write(path, text)
    path.chmod(0o644)
    return True


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """What this host does, as far as possible in the words of the running proxy."""
    host = Host.of(arguments.service)
    settings = host.settings
    with contextlib.suppress(FileNotFoundError):
        return report_on(host, settings, arguments)
    # A commit has just tidied up what was being read.
    return report_on(host, settings, arguments)


def report_on(host: Host, settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    # Before the state: what is read while the boot's `restore` ends may be from before it.
    restored = is_restored(host)
    current, staged = host.current(), host.staged()
    running, problem = look(host, current)
    told = (staged or current).tasks
    tasks = {color: getattr(arguments, f"{color}_task") or told[color] for color in COLORS}
    try:
        ports = ports_of(settings, tasks)
        answers = {
            color: complaint(answered) for color, answered in answers_of(settings, ports).items()
        }
        connections: dict[str, int] | None = host.proxy.connections(ports)
    except Refused as refused:
        ports, answers = {"blue": [], "green": []}, dict.fromkeys(COLORS, str(refused))
        connections = None
    except OSError:
        connections = None
    return {
        "proxy": settings.proxy,
        "protocol": settings.protocol,
        "port": settings.port,
        "ports": ports,
        "dynamic": settings.dynamic,
        "generation": running // 1000,
        "weights": weights_of(running),
        "switched_at": host.switched_at(),
        "staged": staged.generation if staged else None,
        "answers": answers,
        "connections": connections,
        "running": problem,
        "restored": restored,
        "clock": round(time.time(), 3),
    }


def look(host: Host, current: State) -> tuple[int, str]:
    """(what has the traffic, what is wrong about the proxy).

    A proxy that does not run will start with what is on disk, so that is what has the traffic.
    """
    running = host.proxy.running()
    if running.traffic is None:
        return current.traffic, running.problem
    if running.traffic != current.traffic and not running.problem:
        return running.traffic, (
            f"{host.settings.proxy} forwards by generation {running.traffic // 1000} "
            f"({words(weights_of(running.traffic))}), on disk is {current.generation} "
            f"({words(current.weights)}): a switch was cut off; switch again or restart it"
        )
    return running.traffic, running.problem


def weights_of(traffic: int) -> Weights:
    green = traffic % 1000
    return {} if green == NO_TRAFFIC else {"blue": 100 - green, "green": green}


@dataclass(frozen=True)
class Order:
    """The switch that is asked for. ``expected`` holds weights as `words` gives them."""

    generation: int
    weights: Weights
    expected: list[str]
    tasks: dict[str, str]

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Order:
        blue, green = arguments.blue, arguments.green
        if (blue, green) != (0, 0) and blue + green != 100:
            raise Refused(f"--blue {blue} --green {green}: they have to make 100, or be 0 both")
        if not arguments.generation:
            raise Refused("--generation 0 is what `configure` makes; a switch has a later one")
        return cls(
            arguments.generation,
            {"blue": blue, "green": green} if blue + green else {},
            [
                word if word == "none" else ":".join(str(int(part)) for part in word.split(":"))
                for word in arguments.expected.split(",")
            ],
            {"blue": arguments.blue_task, "green": arguments.green_task},
        )

    def state(self, host: Host) -> State:
        """What the generation will say; tasks that are not named stay what they are."""
        before = host.staged() or host.current()
        tasks = {color: self.tasks[color] or before.tasks[color] for color in COLORS}
        if not host.settings.dynamic:
            return State(self.generation, self.weights, tasks, host.settings.ports)
        if tasks["blue"] and tasks["blue"] == tasks["green"]:
            raise Refused(f"both colours are {tasks['blue']}: the tasks cannot be told apart")
        return State(self.generation, self.weights, tasks, usable_ports(host, tasks, before))

    def check_weights(self, traffic: int) -> None:
        """The weights now have to be known to whoever asks for others."""
        now = words(weights_of(traffic))
        if now not in self.expected:
            raise Refused(
                f"the traffic is {now} (blue:green), not {' or '.join(self.expected)}: it was "
                "changed by someone else, and is left as it is"
            )


def stage(arguments: argparse.Namespace) -> dict[str, Any]:
    """Find out whether this host could switch, and prepare it. Nothing changes for anybody."""
    order = Order.of(arguments)
    host = Host.of(arguments.service)
    state = order.state(host)
    unanswered = unanswered_on(host, state)
    if unanswered:
        raise Refused(unanswered)
    with host.locked():
        check_stage(host, state)
        traffic, problem = look(host, host.current())
        if problem:
            raise Refused(problem)
        order.check_weights(traffic)
        fault = host.proxy.fault() or unlike(host)
        if fault:
            raise Refused(fault)
        host.stage(state)
        host.tidy()
    return {"staged": state.generation, "ports": shown(state.ports)}


def unanswered_on(host: Host, state: State) -> str:
    """Which colour does not answer here that is to have requests, and why; "" when all do."""
    ports = ports_of(host.settings, state.tasks)
    if host.settings.dynamic and not any(ports.values()):
        # ECS may leave a host without any task: it has no requests to lose.
        return ""
    answers = answers_of(host.settings, ports)
    for color, weight in state.weights.items():
        if weight and "" not in answers[color].values():
            return f"{color} does not answer on this host: {complaint(answers[color])}"
    return ""


def check_stage(host: Host, state: State) -> None:
    """A generation is newer than all that this host has seen, or one that was staged just so."""
    seen = host.generations()
    newest = max(seen)
    if state.generation > newest[0]:
        return
    if state.generation < newest[0] or state.generation == host.current().generation:
        raise Refused(
            f"generation {state.generation} is not newer than {newest[0]}, which this host has "
            "seen: another switch has begun since"
        )
    weights = read_state(seen[newest]).weights
    if weights != state.weights:
        raise Refused(
            f"generation {state.generation} is staged with {words(weights)}, not with "
            f"{words(state.weights)}: other weights need a newer generation"
        )


def unlike(host: Host) -> str:
    """What is wrong about a configuration file that is valid but not ours, else ""."""
    path = host.folder / host.proxy.file_name
    if path.read_text() == host.proxy.render(host.current().ports):
        return ""
    return f"{path} was changed by hand; run `ecs-bluegreen-host configure` again"


def commit(arguments: argparse.Namespace) -> dict[str, Any]:
    """Give the traffic to a generation at a moment by the clock."""
    order = Order.of(arguments)
    at, not_after = arguments.at, arguments.not_after
    if at - time.time() > MAX_AHEAD_SECONDS:
        raise Refused(
            f"--at {at:.3f} is {at - time.time():.0f} s ahead: it may be {MAX_AHEAD_SECONDS:.0f} s;"
            " is the clock of this host right?"
        )
    host = Host.of(arguments.service)
    with host.locked():
        done = committed(host, order)
        if done:
            return done
        check_time(not_after)
        order.check_weights(look(host, host.current())[0])
        host.stage(order.state(host))
    # Others may work on this host until shortly before.
    sleep_until(at - READY_SECONDS)
    with host.locked():
        with prompt():
            done = committed(host, order)
            if done:
                return done
            order.check_weights(look(host, host.current())[0])
            switched_at = switch(host, order.state(host), at, not_after)
        keep_moment(host, switched_at)
        verify(host)
        host.tidy()
    return {
        "generation": order.generation,
        "weights": order.weights,
        "switched_at": switched_at,
        "late_ms": round((switched_at - at) * 1000, 1),
    }


def committed(host: Host, order: Order) -> dict[str, Any] | None:
    """The answer, when the generation has the traffic already."""
    current = host.current()
    if current.generation > order.generation:
        raise Refused(
            f"generation {order.generation} is older than {current.generation}, which has the "
            "traffic: this command comes too late"
        )
    newest = max(host.generations())[0]
    if newest > order.generation:
        raise Refused(
            f"generation {order.generation} is older than {newest}, which is staged: another "
            "switch has begun since"
        )
    if current.generation < order.generation:
        return None
    if current.weights != order.weights:
        raise Refused(
            f"generation {order.generation} has the traffic with {words(current.weights)}, not "
            f"with {words(order.weights)}: other weights need a newer generation"
        )
    # A commit may have died between the rename and telling the proxy.
    verify(host)
    return {
        "generation": current.generation,
        "weights": current.weights,
        "switched_at": host.switched_at(),
        "late_ms": None,
    }


def check_time(not_after: float | None) -> None:
    late = time.time() - (not_after or float("inf"))
    if late > 0:
        raise Refused(f"too late by {late:.3f} s: this command was good until {not_after:.3f}")


def switch(host: Host, state: State, at: float, not_after: float | None) -> float:
    """Wait for the moment, switch, and return when it was. Everything is prepared before."""
    directory = host.prepare(state)
    replace = host.point("current", directory)
    try:
        tell = host.proxy.ready(state)
    except OSError:
        # It does not run: it will read at its start what is on disk then.
        def tell() -> None:
            return None

    sleep_until(at)
    check_time(not_after)
    replace()
    with contextlib.suppress(OSError):
        tell()
    return round(time.time(), 4)


def keep_moment(host: Host, switched_at: float) -> None:
    """Make a switch last, and when it was. It is not hurried: others may share the cores."""
    sync(host.folder)
    write(host.folder / "current" / "switched_at", f"{switched_at:.4f}\n")


def sleep_until(moment: float) -> None:
    """Sleep by the wall clock, which may be set meanwhile: never for long at a time."""
    while True:
        left = moment - time.time()
        if left <= 0:
            return
        time.sleep(min(1.0, left - NAP_SECONDS) if left > NAP_SECONDS else left)


@contextlib.contextmanager
def prompt() -> Iterator[None]:
    """Go before all that computes on this machine, its tasks say, where the system lets us."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def verify(host: Host) -> None:
    """See that the running proxy has what is on disk; tell it once more if it has not."""
    current = host.current()
    deadline = time.monotonic() + VERIFY_SECONDS
    while True:
        running = host.proxy.running()
        if running.traffic == current.traffic:
            return
        if time.monotonic() > deadline:
            problem = running.problem or look(host, current)[1]
            raise Refused(f"generation {current.generation} is on disk, but {problem}")
        if running.traffic is not None:
            with contextlib.suppress(OSError):
                host.proxy.ready(current)()
        time.sleep(0.05)


def restore(arguments: argparse.Namespace) -> dict[str, Any]:
    """Take over what the deployer wants of all hosts, before the proxy has traffic.

    The deployer writes it down before it lists the hosts, and this host is listed before it reads:
    so one of the two sees the other.
    """
    host = Host.of(arguments.service)
    wait_until_registered()
    deadline = time.monotonic() + REGISTER_SECONDS
    while True:
        note = take_over(host)
        state = host.current()
        # Of a single colour the load balancer's health check finds out: without it nothing answers.
        # Where two share the requests, the one that answers would hide that the other does not.
        shared = len([weight for weight in state.weights.values() if weight]) > 1
        unanswered = unanswered_on(host, state) if shared else ""
        if not unanswered:
            return restored(host, note)
        if time.monotonic() > deadline:
            raise Refused(unanswered)
        # The step may have been taken back meanwhile, or the next one been taken.
        time.sleep(WATCH_SECONDS)


def take_over(host: Host) -> str:
    """Have on disk what the deployer wants; what is newer there stays. Returns what to note."""
    service = host.settings.service
    wanted = desired(service)
    while wanted is not None:
        order, at = wanted
        ahead = at - READY_SECONDS - time.time()
        if ahead > MAX_AHEAD_SECONDS:
            raise Refused(f"the switch is {ahead:.0f} s ahead; is the clock of this host right?")
        if ahead <= 0:
            break
        sleep_until(at - READY_SECONDS)
        # It may have been taken back meanwhile.
        wanted = desired(service)
    if wanted is None:
        refresh(host)
        return "nothing was deployed yet: what is on disk stays"
    with host.locked():
        with prompt():
            current = host.current()
            if current.generation < order.generation:
                switched_at = switch(host, order.state(host), at, None)
        if current.generation < order.generation:
            keep_moment(host, switched_at)
            host.tidy()
    refresh(host)
    if current.generation > order.generation:
        return f"generation {order.generation} is older than what is on disk"
    return ""


def watch(arguments: argparse.Namespace) -> NoReturn:
    """Keep the ports of the tasks current, as long as it runs (dynamic host ports)."""
    host = Host.of(arguments.service)
    if not host.settings.dynamic:
        raise Refused(f"the ports of {arguments.service} are fixed: there is nothing to watch")
    told = ""
    while True:
        try:
            refresh(host)
            problem = ""
        except (Refused, OSError, ValueError, KeyError, TypeError) as error:
            # Whatever the agent answers, the next look may be better.
            problem = f"{type(error).__name__}: {error}"
        if problem != told:
            print(json.dumps({"error": problem}), flush=True)
            told = problem
        time.sleep(WATCH_SECONDS)


def refresh(host: Host) -> None:
    """Have the proxy forward to the tasks that are there now; the weights stay what they are."""
    if not host.settings.dynamic:
        return
    before = host.current()
    ports = usable_ports(host, before.tasks, before)
    if ports == before.ports:
        return
    # The tasks were asked before: nobody waits for the lock that long.
    with host.locked():
        current = host.current()
        if current != before:
            return
        state = State(current.generation, current.weights, current.tasks, ports)
        host.point("current", host.prepare(state))()
        with contextlib.suppress(OSError):
            host.proxy.ready(state)()
        sync(host.folder)
        host.tidy()


def restored(host: Host, note: str) -> dict[str, Any]:
    """Let the proxy start."""
    write(host.folder / "restored", BOOT_ID.read_text())
    (host.folder / "restored").chmod(0o644)
    current = host.current()
    return {"generation": current.generation, "weights": current.weights, "note": note}


def is_restored(host: Host) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return (host.folder / "restored").read_text() == BOOT_ID.read_text()
    return False


def wait_until_registered(seconds: float = REGISTER_SECONDS) -> None:
    """Wait for the ECS agent to have registered this instance."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if introspect("/v1/metadata").get("ContainerInstanceArn"):
                return
            problem = "the ECS agent has not registered this instance yet"
        except Refused as refused:
            problem = str(refused)
        if time.monotonic() > deadline:
            raise Refused(problem)
        time.sleep(0.25)


def desired(service: str) -> tuple[Order, float] | None:
    """(what the deployer wants of all hosts, from when on), None when it never said anything."""
    name = f"/bluegreen/hosts/{service}"
    text = read_parameter(name)
    if text is None:
        return None
    try:
        said = json.loads(text)
        tasks = {color: str(said.get("tasks", {}).get(color) or "") for color in COLORS}
        arguments = argparse.Namespace(
            generation=int(said["generation"]),
            blue=int(said["blue"]),
            green=int(said["green"]),
            expected="none",
            blue_task=checked(TASK, tasks["blue"]),
            green_task=checked(TASK, tasks["green"]),
        )
        return Order.of(arguments), float(said["at"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(
            f"the SSM parameter {name} is not what the deployer writes: {error!r}"
        ) from None


def read_parameter(name: str) -> str | None:
    """The value of an SSM parameter, None when there is none. Raises Refused for anything else."""
    command = ["aws", "ssm", "get-parameter", "--name", name]
    command += ["--query", "Parameter.Value", "--output", "text"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        raise Refused("the AWS CLI is not installed: `aws` is not on PATH") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"reading the SSM parameter {name} takes more than 30 s") from None
    if done.returncode == 0:
        return done.stdout
    if "ParameterNotFound" in done.stderr:
        return None
    raise Refused(f"the SSM parameter {name} cannot be read: {done.stderr.strip()[:400]}")


def check(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say what this instance lacks."""
    missing = [
        clock_problem(),
        *said_by(wait_until_registered, 0),
        *said_by(desired, arguments.service),
    ]
    try:
        host = Host.of(arguments.service)
    except Refused as refused:
        missing.append(str(refused))
    else:
        missing += [host.proxy.fault() or unlike(host), look(host, host.current())[1]]
        missing += [unit_problem(unit) for unit in units(host.settings)]
    return {"missing": [problem[:300] for problem in missing if problem]}


def said_by(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """What a function refuses with."""
    try:
        function(*arguments)
    except Refused as refused:
        return [str(refused)]
    return []


def clock_problem() -> str:
    """What the kernel knows to be wrong with the clock, from adjtimex(2).

    Its structure begins with modes, offset, freq, maxerror, esterror (microseconds), status.
    """
    import ctypes  # slow to import, and nothing else here needs it

    timex = ctypes.create_string_buffer(512)
    state = ctypes.CDLL(None).adjtimex(timex)
    _, _, _, _, wrong, status = struct.unpack_from("=I4xqqqqi", timex)
    if state == -1 or status & 0x40:
        return "the clock is not synchronised (chronyc tracking): hosts cannot switch together"
    if wrong > CLOCK_MILLISECONDS * 1000:
        return f"the clock may be wrong by {wrong / 1000:.0f} ms (chronyc tracking)"
    return ""


def units(settings: Settings) -> list[str]:
    """The systemd units of the install document."""
    names = ["restore"]
    if not settings.proxy_container:
        names.append(settings.proxy)
    if settings.dynamic:
        names.append("watch")
    return [f"ecs-bluegreen-{name}@{settings.service}.service" for name in names]


def unit_problem(unit: str) -> str:
    try:
        done = subprocess.run(
            ["systemctl", "is-active", unit],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return f"{unit}: there is no systemd that could say whether it runs"
    state = done.stdout.strip() or "unknown"
    return "" if state == "active" else f"{unit} is {state}: see journalctl -u {unit}"


def run(arguments: argparse.Namespace) -> NoReturn:
    """Become the proxy, in the foreground, once `restore` has done its work since the boot."""
    host = Host.of(arguments.service)
    while not is_restored(host):
        time.sleep(0.1)
    command = host.proxy.run_command()
    # Before the tasks that compute on this machine: it passes their requests on, and hosts that
    # switch together are as far apart as their proxies are late. A container may not be allowed to.
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PROXY_NICENESS)
    os.execvp(command[0], command)  # noqa: S606 - what it becomes was named above


# --------------------------------------------------------------------------------- command line


class Parser(argparse.ArgumentParser):
    """Says what is wrong as everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise Refused(message)


def checked(pattern: str, text: str) -> str:
    if not re.fullmatch(pattern, text):
        raise ValueError(f"{text!r} is not {pattern}")
    return text


def pattern(expression: str, convert: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """The type of an argument: the whole of it matches, whatever a document has let through."""

    def parse(text: str) -> Any:
        try:
            return convert(checked(expression, text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="ecs-bluegreen-host", description="Which colour this host forwards to.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=Parser)

    def add(function: Callable[[argparse.Namespace], Any]) -> argparse.ArgumentParser:
        told = (function.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(
            function.__name__, help=told, description=told, allow_abbrev=False
        )
        command.set_defaults(function=function)
        command.add_argument("--service", type=pattern(SERVICE), required=True)
        return command

    add_configure(add(configure))
    for function in (report, stage, commit):
        command = add(function)
        command.add_argument(
            "--blue-task", type=pattern(TASK), default="", metavar="FAMILY:REVISION"
        )
        command.add_argument(
            "--green-task", type=pattern(TASK), default="", metavar="FAMILY:REVISION"
        )
        if function is not report:
            command.add_argument("--generation", type=pattern(GENERATION, int), required=True)
            command.add_argument("--blue", type=pattern(WEIGHT, int), required=True)
            command.add_argument("--green", type=pattern(WEIGHT, int), required=True)
            command.add_argument("--expected", type=pattern(EXPECTED), required=True)
        if function is commit:
            command.add_argument("--at", type=pattern(MOMENT, float), required=True)
            command.add_argument("--not-after", type=pattern(MOMENT, float), required=True)
    for function in (restore, watch, check, run):
        add(function)
    return top


def add_configure(command: argparse.ArgumentParser) -> None:
    port = pattern(PORT, int)
    command.add_argument("--proxy", choices=("nginx", "haproxy"), required=True)
    command.add_argument("--protocol", choices=("http", "tcp"), default="http")
    command.add_argument("--port", type=port, required=True)
    command.add_argument("--blue-port", type=port, default=0)
    command.add_argument("--green-port", type=port, default=0)
    command.add_argument("--container", type=pattern(CONTAINER), default="")
    command.add_argument("--container-port", type=port, default=0)
    command.add_argument("--health-path", type=pattern(HEALTH_PATH), default="/")
    command.add_argument("--address", type=pattern(ADDRESS), default="127.0.0.1")
    command.add_argument("--bind", type=pattern(ADDRESS), default="0.0.0.0")  # noqa: S104 - the load balancer comes from outside
    command.add_argument("--status-port", type=port, default=18080)
    command.add_argument("--proxy-container", type=pattern(CONTAINER), default="")


def answer(arguments: list[str]) -> tuple[int, dict[str, Any]]:
    """Do what the command line says: (exit status, what is printed)."""
    try:
        parsed = parser().parse_args(arguments)
        result = parsed.function(parsed)
    except Refused as refused:
        return 1, {"error": str(refused)[:ERROR_CHARACTERS]}
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return 1, {"error": f"{reason_of(error)}{where}"[:ERROR_CHARACTERS]}
    return 1 if result.get("missing") else 0, result


def main(arguments: list[str]) -> int:
    """Print the answer; return the exit status."""
    # The proxy's workers read what is written here, whoever writes it.
    os.umask(0o022)
    status, said = answer(arguments)
    print(json.dumps(said))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
