"""An image is resolved to its digest once, and deployed by digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bluegreen.errors import InvalidRequest
from bluegreen.image import ImageReference

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient


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
    where: dict[str, Any] = {"registryId": repository.account} if repository.account else {}
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
