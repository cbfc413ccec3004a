"""ECR's API where moto answers otherwise: pages, filters, and the findings of scans.

AWS's habits:
  - DescribeImages filters by tagStatus; it and ListImages give pages of 100 or maxResults, and
    refuse nextToken and maxResults together with imageIds; an image without tags has no imageTags;
  - DescribeImageScanFindings has no scan for an image that nobody scanned, one IN_PROGRESS has no
    findings yet, and the single findings come in pages.
A scan that StartImageScan asked for finds nothing, at once.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from moto.core.responses import ActionResult
from moto.ecr.exceptions import InvalidParameterException, ScanNotFoundException
from moto.ecr.responses import ECRResponse

from sandbox.scans import HAS_FINDINGS, Scan

PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

FindScan = Callable[[str], Scan | None]
"""The scan of an image by its digest."""


def install(scan_of: FindScan) -> None:
    """Replace moto's answers before the first request."""
    patched: Any = ECRResponse

    def describe_image_scan_findings(request: Any) -> ActionResult:
        return ActionResult(_findings(request, scan_of))

    patched.describe_images = _describe_images
    patched.list_images = _list_images
    patched.describe_image_scan_findings = describe_image_scan_findings


def _describe_images(request: Any) -> ActionResult:
    ids = request._get_param("imageIds")
    if ids and (request._get_param("nextToken") or request._get_param("maxResults")):
        raise InvalidParameterException("imageIds cannot be specified with nextToken or maxResults")
    name, registry = request._get_param("repositoryName"), request._get_param("registryId")
    status = request._get_param("filter", {}).get("tagStatus", "ANY")
    images = [
        image
        for image in request.ecr_backend.describe_images(name, registry, ids)
        if status == "ANY" or bool(image.image_tags) == (status == "TAGGED")
    ]
    page, token = _page(request, images)
    return ActionResult({"imageDetails": [_shown(image) for image in page], "nextToken": token})


def _shown(image: Any) -> Any:
    """moto's image, with imageTags only where it has some."""
    shown = copy.copy(image)
    if not shown.image_tags:
        del shown.image_tags
    return shown


def _list_images(request: Any) -> ActionResult:
    name, registry = request._get_param("repositoryName"), request._get_param("registryId")
    status = request._get_param("filter", {}).get("tagStatus", "ANY")
    images = request.ecr_backend.list_images(name, registry, tag_status=status)
    ids = [
        {"imageDigest": image.image_digest, **({"imageTag": tag} if tag else {})}
        for image in images
        for tag in image.image_tags or [None]
    ]
    page, token = _page(request, ids)
    return ActionResult({"imageIds": page, "nextToken": token})


def _findings(request: Any, scan_of: FindScan) -> dict[str, Any]:
    name, registry = request._get_param("repositoryName"), request._get_param("registryId")
    asked = request._get_param("imageId")
    repository = request.ecr_backend._get_repository(name, registry)
    image = repository._get_image(asked.get("imageTag"), asked.get("imageDigest"))
    scan = scan_of(image.image_digest)
    if scan is None and image.last_scan is not None:
        scan = Scan("COMPLETE", {}, began=image.last_scan.timestamp())
    if scan is None:
        given = f"{{imageDigest:'{asked.get('imageDigest') or 'null'}', "
        given += f"imageTag:'{asked.get('imageTag') or 'null'}'}}"
        raise ScanNotFoundException(given, name, repository.registry_id)
    answer = {
        "registryId": repository.registry_id,
        "repositoryName": name,
        "imageId": {"imageDigest": image.image_digest, **asked},
        **scan.shown(),
    }
    if answer["imageScanStatus"]["status"] in HAS_FINDINGS:
        found = answer["imageScanFindings"]
        for kind in ("findings", "enhancedFindings"):
            if kind in found:
                found[kind], answer["nextToken"] = _page(request, found[kind])
    return answer


def _page(request: Any, items: Sequence[Any]) -> tuple[Sequence[Any], str | None]:
    """A page of ``items`` as the request asks for it, and the token of the next one."""
    size = int(request._get_param("maxResults") or PAGE_SIZE)
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise InvalidParameterException(f"maxResults must be between 1 and {MAX_PAGE_SIZE}")
    token = request._get_param("nextToken")
    try:
        start = json.loads(token)["after"] if token else 0
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidParameterException("nextToken is invalid") from error
    more = len(items) > start + size
    return items[start : start + size], json.dumps({"after": start + size}) if more else None
