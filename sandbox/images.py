"""The image registry: what ``docker push`` and ``docker pull`` are to ECR.

An image here is a command and an environment instead of layers. moto's ECR keeps what the API
shows (repositories, tags, digests); this module keeps what a digest runs.

AWS's habits:
  - a digest is the SHA-256 of the manifest: the same content has the same digest;
  - pushing other content under a tag moves the tag, and the old image stays, without that tag,
    and can still be pulled by its digest;
  - pushing to a repository that does not exist is refused;
  - each push sends one ``ECR Image Action`` event.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.ecr.exceptions import RepositoryNotFoundException
from moto.ecr.models import Image as EcrImage

from sandbox.world import World

PROJECT_ROOT = Path(__file__).resolve().parent.parent
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
DEMO_APP = (sys.executable, "-m", "sandbox.app")
DEFAULT_SLOW_START_SECONDS = 8.0

FAULTS = ("never_healthy", "crash_loop", "slow_start")


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
        self._lock = threading.Lock()

    def push(self, name: str, command: str | None = None, fault: str | None = None) -> str:
        """Push ``repository:tag`` and send ECR's event; returns the digest.

        ``command`` is split as a shell would (no shell runs it: use ``sh -c '…'`` for one); without
        it the image is the demo app. ``fault`` breaks the demo app: ``never_healthy``,
        ``crash_loop``, or ``slow_start`` (``slow_start=SECONDS``).
        Raises InvalidImageError, and moto's RepositoryNotFoundException (ECR's own error).
        """
        repository, colon, tag = name.partition(":")
        if not repository or not colon or not tag:
            raise InvalidImageError(f"{name!r} is not REPOSITORY:TAG")
        if command is not None and fault is not None:
            raise InvalidImageError("a fault belongs to the demo app: give either it or a command")
        arguments = (*DEMO_APP, *_flags(fault)) if command is None else tuple(shlex.split(command))
        if not arguments:
            raise InvalidImageError("the command is empty")
        environment = {"VERSION": tag}
        if command is None:
            environment["PYTHONPATH"] = str(PROJECT_ROOT)
        with self._lock:
            image = self._store(repository, tag, arguments, environment)
        self._world.publish(
            {
                "source": "aws.ecr",
                "detail-type": "ECR Image Action",
                "resources": [],
                "detail": {
                    "result": "SUCCESS",
                    "repository-name": repository,
                    "image-digest": image.digest,
                    "action-type": "PUSH",
                    "image-tag": tag,
                },
            }
        )
        return image.digest

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

    def _store(
        self, repository: str, tag: str, command: tuple[str, ...], environment: dict[str, str]
    ) -> Image:
        stored = self._repository(repository)
        if stored is None:
            raise RepositoryNotFoundException(repository, self._world.account_id)
        config = json.dumps({"Cmd": command, "Env": environment}, sort_keys=True)
        layer = "sha256:" + hashlib.sha256(config.encode()).hexdigest()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"digest": layer, "size": len(config)},
                "layers": [{"digest": layer, "size": len(config)}],
            }
        )
        digest = "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()
        for other in stored.images:
            if other.image_digest != digest:
                other.remove_tag(tag)
        same = next((i for i in stored.images if i.image_digest == digest), None)
        if same is not None:
            same.update_tag(tag)
        else:
            account = self._world.account_id
            stored.images.append(
                EcrImage(account, tag, manifest, repository, MANIFEST_TYPE, digest=digest)
            )
        image = Image(digest, command, environment)
        self._images[digest] = image
        return image


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
            try:
                seconds = float(value) if value else DEFAULT_SLOW_START_SECONDS
            except ValueError as error:
                raise InvalidImageError(f"slow_start={value}: not a number of seconds") from error
            return ("--slow-start", f"{seconds:g}")
    raise InvalidImageError(f"unknown fault {fault!r}: one of {', '.join(FAULTS)}")
