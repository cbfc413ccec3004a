"""Image references: what a request may say, and what is deployed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bluegreen.errors import InvalidRequest

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Distribution reference grammar: https://github.com/distribution/reference (reference.go)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr\.(?P<region>[a-z0-9-]+)\.(?P<domain>[a-z.]+)/(?P<name>.+)"
)


@dataclass(frozen=True)
class ImageReference:
    """repository plus either a tag, still to be resolved, or a digest."""

    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def ecr(self) -> EcrRepository | None:
        """The ECR repository, None for one in another registry."""
        match = _ECR.fullmatch(self.repository)
        if match:
            return EcrRepository(match["name"], match["account"], match["region"])
        host = self.repository.split("/")[0]
        if "/" in self.repository and ("." in host or ":" in host):
            return None
        return EcrRepository(self.repository)


@dataclass(frozen=True)
class EcrRepository:
    """name, and account and region unless they are the deployer's own."""

    name: str
    account: str | None = None
    region: str | None = None


def parse(container: str, repository: str, requested: str) -> ImageReference:
    """Read what a request says about a container's image.

    requested: a tag (``v2``), a digest (``sha256:…``), ``repository:tag`` or ``repository@digest``.
    repository: the container's repository in the service configuration; a repository in the request
    has to be the same one.
    Raises InvalidRequest.
    """
    if _DIGEST.fullmatch(requested):
        return ImageReference(repository, digest=requested)
    if _TAG.fullmatch(requested):
        return ImageReference(repository, tag=requested)
    name, at, digest = requested.partition("@")
    tag = ""
    if not at:
        name, _, tag = requested.rpartition(":")
    if not name or not (_DIGEST.fullmatch(digest) if at else _TAG.fullmatch(tag)):
        raise InvalidRequest(
            f"images.{container}: expected a tag, a digest, repository:tag or "
            f"repository@sha256:…, got {requested!r}"
        )
    ecr = _ECR.fullmatch(name)
    # A URI is compared with the repository's own once ECR has told it (bluegreen/ecr.py).
    if repository not in (name, ecr["name"] if ecr else None):
        raise InvalidRequest(
            f"images.{container}: the repository is {name!r}, the service configuration says "
            f"{repository!r} (got {requested!r})"
        )
    return ImageReference(name, digest=digest) if at else ImageReference(name, tag=tag)
