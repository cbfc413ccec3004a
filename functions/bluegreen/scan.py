"""What ECR has found about images, and whether they may be deployed with it.

Basic scanning ends with COMPLETE, enhanced scanning (Amazon Inspector) goes on for ever as ACTIVE:
https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImageScanFindings.html
ECR scans no image index, but the images of the platforms in it: all of them count, as each may run
(https://github.com/aws/containers-roadmap/issues/1683).

A finding that is UNDEFINED has been given no severity by its source, which many never are:
https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-scanning-troubleshooting.html
It is not known to be as bad as any severity, so it counts below all of them: ``refuse: UNDEFINED``
refuses every finding, and each refusal says how many of them there are besides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bluegreen import ecr
from bluegreen.configuration import ServiceConfiguration, Severity
from bluegreen.errors import DeploymentRefused
from bluegreen.image import EcrRepository, ImageReference

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_ecr.type_defs import DescribeImageScanFindingsResponseTypeDef

_ORDER: tuple[Severity, ...] = (
    "UNDEFINED",
    "INFORMATIONAL",
    "LOW",
    "MEDIUM",
    "HIGH",
    "CRITICAL",
)
_FOUND = frozenset({"COMPLETE", "ACTIVE"})
_SCANNING = frozenset({"IN_PROGRESS", "PENDING"})
_TURN_ON = (
    "turn on scan on push for its repository (aws ecr put-registry-scanning-configuration), or "
    "start one scan (aws ecr start-image-scan)"
)
_NO_SCAN = "NO_SCAN"
# What to do about the statuses with which a scan cannot have findings.
_REMEDIES: Mapping[str, str] = {
    "FAILED": "start another scan (aws ecr start-image-scan)",
    "UNSUPPORTED_IMAGE": "the scanner does not know its operating system; build it on another "
    "base, or take scan out of the service configuration",
    "SCAN_ELIGIBILITY_EXPIRED": "it is no longer scanned; push it again, or have it scanned for "
    "longer (Amazon Inspector, ECR re-scan duration)",
    "FINDINGS_UNAVAILABLE": "its findings cannot be had; have it scanned again",
    "LIMIT_EXCEEDED": "the limit of scans is reached; ask for more, or wait for a day",
    "IMAGE_ARCHIVED": "an archived image is not scanned; restore it first",
}
# What is no platform's image, but is said about one: https://docs.docker.com/build/metadata/
_ATTESTATION = "vnd.docker.reference.type"


@dataclass(frozen=True)
class Scanned:
    """What ECR says of one image. status: of its scan, "NO_SCAN" when there is none. counts:
    severity → findings; None when there are no findings yet, which is not the same as none.
    """

    image: str
    status: str
    description: str = ""
    counts: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Verdict:
    """May it be deployed? "wait": not known yet. reason: for people, "" when it may."""

    status: Literal["ok", "wait", "refuse"]
    reason: str = ""


def missing(
    client: ECRClient,
    configuration: ServiceConfiguration,
    images: Mapping[str, str],
    since: float,
    now: float,
) -> str:
    """Why the images of a deployment cannot be judged yet; "" when they may all be deployed.

    images: container → ``repository URI@sha256:…``. since: when the waiting began, now: epoch
    seconds. Raises DeploymentRefused, which names every image that must not be deployed.
    """
    if configuration.scan is None:
        return ""
    left = since + configuration.scan.deadline_seconds - now
    refused, waits = [], []
    for container, image in images.items():
        for scanned in _scans(client, container, image):
            verdict = judge(scanned, configuration.scan.refuse, left)
            if verdict.status == "refuse":
                refused.append(f"images.{container}: {verdict.reason}")
            elif verdict.status == "wait":
                waits.append(verdict.reason)
    if refused:
        raise DeploymentRefused("\n".join(refused))
    return "; ".join(waits)


def judge(scanned: Scanned, refuse: Severity, left: float) -> Verdict:
    """Whether an image may be deployed with what is known about it.

    left: seconds that its scan may still take. Unknown is not OK: what is not known by then, and
    every status that is not known here, refuses.
    """
    if scanned.status in _FOUND and scanned.counts is not None:
        return _judge_findings(scanned.image, scanned.counts, refuse)
    if scanned.status in _SCANNING | _FOUND or scanned.status == _NO_SCAN:
        said = (
            f"{scanned.image} has no scan"
            if scanned.status == _NO_SCAN
            else f"the scan of {scanned.image} has no findings yet ({scanned.status})"
        )
        if left > 0:
            return Verdict("wait", f"{said}; waiting for {left:.0f} s more")
        remedy = _TURN_ON if scanned.status == _NO_SCAN else "raise scan.deadline_seconds"
        return Verdict("refuse", f"{said}, and there is no more time; {remedy}")
    remedy = _REMEDIES.get(scanned.status, "no such status is known; look at it in ECR")
    said = f"{scanned.status}: {scanned.description}" if scanned.description else scanned.status
    return Verdict("refuse", f"the scan of {scanned.image} says {said}; {remedy}")


def _judge_findings(image: str, counts: Mapping[str, int], refuse: Severity) -> Verdict:
    lowest = _ORDER.index(refuse)
    # Enhanced scanning has words of its own for what nobody has rated.
    known: dict[Severity, int] = dict.fromkeys(_ORDER, 0)
    for name, count in counts.items():
        severity = next((one for one in _ORDER if one == name), _ORDER[0])
        known[severity] += count
    if not any(known[one] for one in _ORDER[lowest:]):
        return Verdict("ok")
    found = ", ".join(f"{known[one]} {one}" for one in reversed(_ORDER) if known[one])
    return Verdict(
        "refuse", f"{image} has findings: {found}; scan.refuse is {refuse}, so it is not deployed"
    )


def _scans(client: ECRClient, container: str, image: str) -> list[Scanned]:
    """The scans of all that an image may run: of each platform, if it is an image index."""
    uri, _, digest = image.partition("@")
    repository = ImageReference(uri).ecr
    elsewhere = repository and (repository.region or client.meta.region_name)
    if repository is None or elsewhere != client.meta.region_name:
        raise DeploymentRefused(
            f"images.{container}: {image} is not in ECR of {client.meta.region_name}, so nobody "
            "here can say what a scan has found; take scan out of the service configuration, or "
            "move the image"
        )
    return [
        _scan(client, repository, one, f"{uri}@{one}")
        for one in _platforms(client, repository, digest, image)
    ]


def _platforms(client: ECRClient, repository: EcrRepository, digest: str, image: str) -> list[str]:
    """Digests of what is scanned: the image itself, or the platforms of an index.

    https://github.com/opencontainers/image-spec/blob/main/image-index.md
    """
    answer = client.batch_get_image(
        repositoryName=repository.name,
        imageIds=[{"imageDigest": digest}],
        **ecr.registry(repository),
    )
    if not answer["images"]:
        raise DeploymentRefused(f"{image} is not in its repository any more")
    manifest = json.loads(answer["images"][0]["imageManifest"])
    if "manifests" not in manifest:
        return [digest]
    platforms = [
        one["digest"]
        for one in manifest["manifests"]
        if _ATTESTATION not in (one.get("annotations") or {})
    ]
    if not platforms:
        raise DeploymentRefused(f"{image} is an image index without the image of any platform")
    return platforms


def _scan(client: ECRClient, repository: EcrRepository, digest: str, image: str) -> Scanned:
    try:
        answer = client.describe_image_scan_findings(
            repositoryName=repository.name,
            imageId={"imageDigest": digest},
            **ecr.registry(repository),
        )
    except client.exceptions.ScanNotFoundException:
        return Scanned(image, _NO_SCAN)
    except client.exceptions.ImageNotFoundException as error:
        raise DeploymentRefused(f"{image} is not in its repository any more") from error
    status = answer.get("imageScanStatus", {})
    return Scanned(
        image,
        status.get("status", "without a status"),
        status.get("description", ""),
        _counts(answer),
    )


def _counts(answer: DescribeImageScanFindingsResponseTypeDef) -> Mapping[str, int] | None:
    """How many findings there are of each severity; None while no scan has been completed.

    The counts are of all findings, while these themselves come in pages.
    """
    found = answer.get("imageScanFindings", {})
    if "findingSeverityCounts" in found:
        return {str(name): count for name, count in found["findingSeverityCounts"].items()}
    listed = found.get("findings") or found.get("enhancedFindings")
    # Without counts, only a scan that was completed and lists nothing has found nothing.
    return {} if "imageScanCompletedAt" in found and not listed else None
