"""What is asked of ECR. An image is resolved to its digest once, and deployed by digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bluegreen.configuration import ServiceConfiguration
from bluegreen.errors import InvalidRequest
from bluegreen.image import EcrRepository, ImageReference, parse

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

# https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImages.html
_IMAGES_PER_CALL = 1000


def resolve_all(
    client: ECRClient, configuration: ServiceConfiguration, requested: Mapping[str, str]
) -> dict[str, str]:
    """Container → ``repository URI@sha256:…`` of what a request asks for, container → image.

    Raises InvalidRequest, a mistake a line.
    """
    known = {container.name: container.repository for container in configuration.containers}
    found, mistakes = {}, []
    if unknown := sorted(set(requested) - set(known)):
        mistakes.append(
            f"images: no container {', '.join(unknown)} in the service configuration "
            f"(it has {', '.join(known)})"
        )
    for name, image in requested.items():
        if name not in known:
            continue
        try:
            parsed = parse(name, known[name], image)
            found[name] = resolve(client, name, known[name], parsed)
        except InvalidRequest as error:
            mistakes.append(str(error))
    if mistakes:
        raise InvalidRequest("\n".join(mistakes))
    return found


def resolve(client: ECRClient, container: str, configured: str, image: ImageReference) -> str:
    """``repository URI@sha256:…`` of an image that is there.

    configured: the container's repository in the service configuration. An image in another
    registry than ECR has to be given by digest: nobody here can ask for it.
    Raises InvalidRequest when repository, tag or digest do not exist.
    """
    repository = ImageReference(configured).ecr
    if repository is None:
        if image.digest is None:
            raise InvalidRequest(
                f"images.{container}: {image.repository} is not an ECR repository, "
                "so its tags cannot be resolved here; give the image by digest"
            )
        return f"{image.repository}@{image.digest}"
    elsewhere = repository.region and repository.region != client.meta.region_name
    if elsewhere and image.digest:
        return f"{image.repository}@{image.digest}"
    if elsewhere:
        raise InvalidRequest(
            f"images.{container}: {image.repository} is in {repository.region}, this deployer "
            f"works in {client.meta.region_name}; replicate the image or give it by digest"
        )
    where = registry(repository)
    what = {"imageTag": image.tag} if image.tag else {"imageDigest": str(image.digest)}
    try:
        described = client.describe_repositories(repositoryNames=[repository.name], **where)
        found = client.describe_images(repositoryName=repository.name, imageIds=[what], **where)  # type: ignore[list-item]
    except client.exceptions.RepositoryNotFoundException as error:
        raise InvalidRequest(
            f"images.{container}: there is no ECR repository {repository.name!r}"
        ) from error
    except client.exceptions.ImageNotFoundException as error:
        raise InvalidRequest(
            f"images.{container}: repository {repository.name!r} has no image "
            f"{image.tag or image.digest!r}"
        ) from error
    uri = described["repositories"][0]["repositoryUri"]
    if image.repository not in (configured, uri):
        raise InvalidRequest(
            f"images.{container}: the repository is {image.repository!r}, the service "
            f"configuration says {configured!r}, which is {uri}"
        )
    return f"{uri}@{found['imageDetails'][0]['imageDigest']}"


@dataclass(frozen=True)
class TaggedImage:
    """An image as ECR keeps it. pushed_at: epoch seconds, when the image was pushed first under any
    tag. artifact_type: what it is an image of, None for an image index.
    """

    digest: str
    tags: tuple[str, ...]
    pushed_at: float
    artifact_type: str | None = None


def tagged(client: ECRClient, repository: EcrRepository, tag: str) -> TaggedImage | None:
    """The image that a tag is at now; None when there is no such tag, or no such repository."""
    return _image(client, repository, {"imageTag": tag})


def pushed_at(client: ECRClient, repository: EcrRepository, digest: str) -> float | None:
    """When an image was pushed, epoch seconds; None when it is not there any more."""
    found = _image(client, repository, {"imageDigest": digest})
    return found.pushed_at if found else None


def tagged_images(client: ECRClient, repository: EcrRepository) -> list[TaggedImage]:
    """All images of a repository that have a tag. Raises InvalidRequest when there is none such."""
    pages = client.get_paginator("describe_images").paginate(
        repositoryName=repository.name,
        filter={"tagStatus": "TAGGED"},
        PaginationConfig={"PageSize": _IMAGES_PER_CALL},
        **registry(repository),
    )
    try:
        found = [_shaped(one) for page in pages for one in page["imageDetails"]]
    except client.exceptions.RepositoryNotFoundException as error:
        raise InvalidRequest(f"there is no ECR repository {repository.name!r}") from error
    return [one for one in found if one.tags]


def registry(repository: EcrRepository) -> dict[str, Any]:
    """The parameter that says in whose registry a repository is: in one's own, there is none."""
    return {"registryId": repository.account} if repository.account else {}


def _image(
    client: ECRClient, repository: EcrRepository, what: dict[str, str]
) -> TaggedImage | None:
    try:
        answer = client.describe_images(
            repositoryName=repository.name,
            imageIds=[what],  # type: ignore[list-item]
            **registry(repository),
        )
    except (
        client.exceptions.RepositoryNotFoundException,
        client.exceptions.ImageNotFoundException,
    ):
        return None
    return _shaped(answer["imageDetails"][0])


def _shaped(described: Mapping[str, Any]) -> TaggedImage:
    return TaggedImage(
        digest=described["imageDigest"],
        tags=tuple(described.get("imageTags") or ()),
        pushed_at=described["imagePushedAt"].timestamp(),
        artifact_type=described.get("artifactMediaType"),
    )
