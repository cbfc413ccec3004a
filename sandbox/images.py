"""The image registry: what ``docker push`` and ``docker pull`` are to ECR.

An image here is a command and an environment instead of layers. moto's ECR keeps what the API
shows (repositories, tags, digests); this module keeps what a digest runs.

AWS's habits:
  - a digest is the SHA-256 of the manifest: the same content has the same digest;
  - pushing other content under a tag moves the tag, and the old image stays, without that tag,
    and can still be pulled by its digest;
  - a multi-architecture image is an index with a manifest for each platform: the tag is the
    index's, and the manifests have none;
  - pushing to a repository that does not exist is refused;
  - each push sends ``ECR Image Action`` events (``sandbox.pushes``).
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.ecr.exceptions import RepositoryNotFoundException
from moto.ecr.models import Image as EcrImage

from sandbox.pushes import ARTIFACT_TYPES, INDEX_TYPE, MANIFEST_TYPE, Pushed, PushEvents
from sandbox.scans import Scan, findings_of, outcome_of
from sandbox.world import World

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEMO_APP = (sys.executable, "-m", "sandbox.app")
DEFAULT_SLOW_START_SECONDS = 8.0

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x")

FAULTS = ("never_healthy", "crash_loop", "slow_start", "errors", "slow")


class InvalidImageError(ValueError):
    """A push that makes no sense; the message says what would."""


class CannotPullError(Exception):
    """The image of a container is not there; the message is what ECS puts into ``reason``."""


@dataclass(frozen=True)
class Image:
    """What a digest stands for: the program that a container of it runs by default."""

    digest: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


class Images:
    """All images of the sandbox's registry, by digest."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._images: dict[str, Image] = {}
        self._scans: dict[str, Scan] = {}
        self.events = PushEvents(world)
        self._lock = threading.Lock()

    def push(
        self,
        name: str,
        command: str | None = None,
        fault: str | None = None,
        *,
        times: int = 1,
        platforms: int = 1,
        scan: Scan | None = None,
    ) -> str:
        """Push ``repository:tag`` and send ECR's events; returns the digest that the tag has.

        ``command`` is split as a shell would (no shell runs it: use ``sh -c '…'`` for one); without
        it the image is the demo app. ``fault`` breaks the demo app: ``never_healthy``,
        ``crash_loop``, ``slow_start`` (``slow_start=SECONDS``), ``errors=PERCENT`` of answers that
        are 500, or ``slow=SECONDS`` that an answer takes longer; the last two pass health checks.
        ``times`` is how often each event comes. With several ``platforms`` it is a
        multi-architecture image. ``scan`` is what a scanner does with it, or with the manifest of
        each platform, as ECR scans no index; None: nobody scans it.
        Raises InvalidImageError, and moto's RepositoryNotFoundException (ECR's own error).
        """
        repository, colon, tag = name.partition(":")
        if not repository or not colon or not tag:
            raise InvalidImageError(f"{name!r} is not REPOSITORY:TAG")
        if command is not None and fault is not None:
            raise InvalidImageError("a fault belongs to the demo app: give either it or a command")
        if times < 1 or not 1 <= platforms <= len(PLATFORMS):
            raise InvalidImageError(f"times is 1 or more, platforms is 1 to {len(PLATFORMS)}")
        arguments = (*DEMO_APP, *_flags(fault)) if command is None else tuple(shlex.split(command))
        if not arguments:
            raise InvalidImageError("the command is empty")
        environment = {"VERSION": tag}
        if command is None:
            environment["PYTHONPATH"] = str(PROJECT_ROOT)
        with self._lock:
            stored = self._repository(repository)
            if stored is None:
                raise RepositoryNotFoundException(repository, self._world.account_id)
            manifests = _manifests(arguments, environment, platforms)
            pushed = []
            for manifest in manifests:
                own = tag if manifest is manifests[-1] else ""
                self._images[manifest.digest] = Image(manifest.digest, arguments, environment)
                self._store(stored, own, manifest)
                pushed.append(Pushed(repository, manifest.digest, own, manifest.media_type))
            if scan is not None:
                scanned = [one for one in manifests if one.media_type != INDEX_TYPE]
                self._scans.update((one.digest, scan) for one in scanned)
        self.events.send(pushed, times)
        return pushed[-1].digest

    def scan(self, digest: str) -> Scan | None:
        """What a scanner does with an image; None when nobody scans it."""
        with self._lock:
            return self._scans.get(digest)

    def pull(self, reference: str) -> Image:
        """The image of a reference ``<registry>/<repository>`` + ``@digest`` or ``:tag``.

        Raises CannotPullError with ECS's wording when the registry, repository or image is missing.
        """
        registry = f"{self._world.account_id}.dkr.ecr.{self._world.region}.amazonaws.com"
        host, slash, rest = reference.partition("/")
        missing = CannotPullError(
            "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
            f"failed to resolve ref {reference}: {reference}: not found"
        )
        if not slash or host != registry:
            raise missing
        repository, at, digest = rest.partition("@")
        if not at:
            repository, _, tag = rest.partition(":")
            digest = self._digest_of(repository, tag or "latest") or ""
        stored = self._repository(repository)
        with self._lock:
            known = stored is not None and any(i.image_digest == digest for i in stored.images)
            if not known or digest not in self._images:
                raise missing
            return self._images[digest]

    def _repository(self, name: str) -> Any | None:
        return self._world.backend("ecr").repositories.get(name)

    def _digest_of(self, repository: str, tag: str) -> str | None:
        stored = self._repository(repository)
        for image in stored.images if stored is not None else []:
            if tag in image.image_tags:
                return str(image.image_digest)
        return None

    def _store(self, stored: Any, tag: str, manifest: _Manifest) -> None:
        """Let moto's repository have a manifest, under a tag if it is not empty."""
        if tag:
            for other in stored.images:
                if other.image_digest != manifest.digest:
                    other.remove_tag(tag)
        same = next((i for i in stored.images if i.image_digest == manifest.digest), None)
        if same is None:
            same = EcrImage(
                self._world.account_id,
                tag or None,
                manifest.text,
                stored.name,
                manifest.media_type,
                digest=manifest.digest,
            )
            same.artifact_media_type = ARTIFACT_TYPES.get(manifest.media_type)
            stored.images.append(same)
        elif tag:
            same.update_tag(tag)


@dataclass(frozen=True)
class _Manifest:
    text: str
    media_type: str

    @property
    def digest(self) -> str:
        return _digest(self.text)


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _manifests(
    command: tuple[str, ...], environment: Mapping[str, str], platforms: int
) -> list[_Manifest]:
    """What is pushed, in order: the last one is what the tag is of."""
    found = []
    for platform in PLATFORMS[:platforms]:
        parts: dict[str, Any] = {"Cmd": command, "Env": environment}
        if platforms > 1:
            parts["Platform"] = platform
        config = json.dumps(parts, sort_keys=True)
        layer = {"digest": _digest(config), "size": len(config)}
        text = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": layer, "layers": [layer]}
        found.append(_Manifest(json.dumps(text), MANIFEST_TYPE))
    if platforms == 1:
        return found
    index = [{"mediaType": one.media_type, "digest": one.digest} for one in found]
    text = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": index}
    return [*found, _Manifest(json.dumps(text), INDEX_TYPE)]


def scan_of(outcome: str | None, findings: str | None, seconds: float) -> Scan | None:
    """The scan that a push asks for: none unless it says an outcome, findings or a time.

    Raises InvalidScanError.
    """
    if outcome is None and findings is None and not seconds:
        return None
    return Scan(
        outcome_of(outcome or "COMPLETE"), findings_of(findings or ""), time.time(), seconds
    )


def _flags(fault: str | None) -> tuple[str, ...]:
    """The flags of the demo app for a fault, such as ``slow_start=12``."""
    if fault is None:
        return ()
    name, _, value = fault.partition("=")
    match name:
        case "never_healthy":
            return ("--never-healthy",)
        case "crash_loop":
            return ("--crash",)
        case "slow_start":
            seconds = _number(name, value or f"{DEFAULT_SLOW_START_SECONDS}", "seconds")
            return ("--slow-start", f"{seconds:g}")
        case "errors":
            percent = _number(name, value, "percent")
            if not 0 < percent <= 100:
                raise InvalidImageError(f"errors={value}: above 0 and not above 100 percent")
            return ("--fail-percent", f"{percent:g}")
        case "slow":
            return ("--slow", f"{_number(name, value, 'seconds'):g}")
    raise InvalidImageError(f"unknown fault {fault!r}: one of {', '.join(FAULTS)}")


def _number(name: str, value: str, of: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise InvalidImageError(f"{name}={value}: not a number of {of}") from error
    if not 0 <= number < float("inf"):
        raise InvalidImageError(f"{name}={value}: not a number of {of}")
    return number
