"""A Docker engine of the sandbox's own, of which nothing is left when it ends.

dockerd runs in mount and process namespaces of its own. So the kernel itself ends all of it
(containerd, shims, proxies of ports, containers) with dockerd and undoes every mount; and dockerd
neither meets another engine's containerd nor leaves anything in /run or /etc/docker, where it sees
empty directories instead. It uses no iptables: ports are published by docker-proxy alone. Its
bridge, the containers' control groups and its directory are removed by the guard
(``sandbox.guard``), also when the sandbox is killed.

Control groups and network interfaces are those of the machine, as on a container instance.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import docker

from sandbox.docker import bridge
from sandbox.docker.image import binds, root_file_system
from sandbox.processes import Guard, start_process
from sandbox.settings import SandboxError

PROGRAMS = {"dockerd": "docker.io", "docker-proxy": "docker.io", "unshare": "util-linux"}
"""What it starts, and the Debian package it is in."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IMAGE = "ecs-bluegreen/machine:latest"
READY_SECONDS = 60.0
API_SECONDS = 60.0
POLL_SECONDS = 0.05
CONNECTIONS = 200
LONGEST_PATH = 60
"""Of the directory: dockerd's sockets in it have 46 characters more, and 107 are allowed."""
OVERLAY_ON = ("ext2/ext3", "xfs", "btrfs", "tmpfs")
"""File systems that overlay2 is used on, as ``stat`` calls them; on others vfs works."""

PRIVATE = 'for d in /run /etc/docker; do mount -t tmpfs tmpfs $d 2>&- || :; done; exec "$0" "$@"'


class Engine:
    """A running engine, from ``start`` (or ``with``) to ``stop``.

    ``network`` is the loopback network of the sandbox it belongs to, such as ``127.0.1``: there is
    one engine for each. ``log`` gets what dockerd says (else it is lost with the engine).
    ``host`` is what ``docker -H`` takes. Raises SandboxError. Start it from a thread that lives as
    long as it does.
    """

    def __init__(self, network: str = "127.0.1", log: Path | None = None) -> None:
        self._network = network
        self._log = log
        self._cleanup = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._client: Any = None
        self.bridge = bridge.name_of(network)
        self.image = IMAGE
        self.binds = binds()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start dockerd and make the image; after a failure nothing is left."""
        check()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it with every container; can be called again."""
        self._stopping = True
        self._cleanup.close()

    @property
    def running(self) -> bool:
        """Whether it can be asked: dockerd is there and nobody ends it."""
        return not self._stopping and self._process is not None and self._process.poll() is None

    @property
    def client(self) -> Any:
        """A client of it, for all threads: docker.APIClient."""
        assert self._client is not None
        return self._client

    def control_group(self, task: str) -> str:
        """The parent control group for the containers of a task, as ECS names it.

        It is removed with the engine, if nobody has done so before (``forget_control_group``).
        """
        self.guard.add(f"/ecs/{task}")
        return f"/ecs/{task}"

    def forget_control_group(self, task: str) -> None:
        """The control group of a task was removed."""
        self.guard.remove(f"/ecs/{task}")

    def _start(self) -> None:
        self._claim()
        directory = _directory()
        self.host = f"unix://{directory}/docker.sock"
        self.guard = Guard(directory)
        self._cleanup.callback(self.guard.close)
        self._cleanup.callback(lambda: self._client and self._client.close())
        self._cleanup.callback(self._kill)
        # Containers whose parent nobody has named, as a plain `docker run` makes them.
        others = f"/ecs-bluegreen/{self.bridge}"
        self.guard.add(self.bridge)
        self.guard.add(others)
        try:
            bridge.create(self.bridge, bridge.address_of(self._network))
        except OSError as error:
            raise SandboxError(f"cannot make the network bridge {self.bridge}: {error}") from error
        configuration = directory / "daemon.json"
        configuration.write_text("{}")  # not that of another engine on this machine
        options = {
            "host": self.host,
            "config-file": configuration,
            "data-root": directory / "data",
            "exec-root": directory / "exec",
            "pidfile": directory / "pid",
            "bridge": self.bridge,
            "storage-driver": _storage_driver(directory),
            "cgroup-parent": others,
            "exec-opt": "native.cgroupdriver=cgroupfs",
            "iptables": "false",
            "ip6tables": "false",
            "ip-forward": "false",
            "ip-masq": "false",
        }
        log = self._log or directory / "dockerd.log"
        with log.open("wb") as output:
            self._process = start_process(
                [
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("--", "sh", "-c", PRIVATE, "dockerd"),
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                _environment(),
                output,
            )
        self.guard.add(self._process.pid)
        self._wait_until_ready(directory / "docker.sock", log)
        self._client = docker.APIClient(
            base_url=self.host, version="auto", timeout=API_SECONDS, max_pool_size=CONNECTIONS
        )
        self._client.import_image_from_data(
            root_file_system(), *IMAGE.split(":"), changes=[f"ENV PATH={SYSTEM_PATH}"]
        )

    def _claim(self) -> None:
        """Be the only engine of this network; the kernel gives the name back when we end."""
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0ecs-bluegreen-engine-{self.bridge}")
        except OSError as error:
            claim.close()
            raise SandboxError(
                f"another Docker engine of the sandbox has the network {self._network}. Choose "
                "another network: --network 127.0.2"
            ) from error
        self._cleanup.callback(claim.close)

    def _wait_until_ready(self, place: Path, log: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if _answers(place):
                return
            time.sleep(POLL_SECONDS)
        said = log.read_text(errors="replace").strip().splitlines()
        raise SandboxError("dockerd does not start: " + "\n".join(said[-5:]))

    def _kill(self) -> None:
        """End all of it, at once: the kernel kills what is in the namespace of dockerd."""
        if self._process is None:
            return
        # dockerd first, for which unshare waits: so all of it is over, and reaped, afterwards.
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def check() -> None:
    """Raise SandboxError when an engine cannot be started here, with what to do about it."""
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=SYSTEM_PATH) is None:
            raise SandboxError(
                f"{program} is missing, which the runtime docker needs: apt-get install {package}"
            )
    if os.geteuid() != 0:
        raise SandboxError("the runtime docker needs root, as dockerd does: start it with sudo")


def _directory() -> Path:
    """A new temporary directory whose path is short enough for UNIX sockets in it."""
    path = Path(tempfile.mkdtemp(prefix="ecs-bluegreen-docker-"))
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return path
    path.rmdir()
    return Path(tempfile.mkdtemp(prefix="ecs-bluegreen-docker-", dir="/tmp"))


def _answers(place: Path) -> bool:
    """Whether dockerd answers; it takes connections a little before."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(READY_SECONDS)
        try:
            probe.connect(str(place))
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return bool(probe.recv(1))
        except OSError:
            return False


def _storage_driver(directory: Path) -> str:
    """overlay2 does not work on every file system, on that of a container above all."""
    kind = subprocess.run(
        ["stat", "--file-system", "--format", "%T", directory],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return "overlay2" if kind in OVERLAY_ON else "vfs"


def _environment() -> Mapping[str, str]:
    """Nothing of the sandbox's leaks in; a proxy that is set would be used for nothing anyway."""
    return {"PATH": SYSTEM_PATH, "HOME": "/root", "LANG": "C.UTF-8"}
