"""Scans of images: what a push says that a scanner finds, and when it has found it.

ECR's basic scanning gives an image IN_PROGRESS, then COMPLETE with its findings or FAILED with a
description; enhanced scanning gives ACTIVE with findings; an image that cannot be scanned is
UNSUPPORTED_IMAGE. An image that nobody scans has no scan: ScanNotFoundException
(https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImageScanFindings.html).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

Severity = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED"]
Outcome = Literal["COMPLETE", "FAILED", "ACTIVE", "UNSUPPORTED_IMAGE"]
DESCRIPTIONS: Mapping[str, str] = {
    "IN_PROGRESS": "Scan is in progress",
    "COMPLETE": "The scan was completed successfully.",
    "FAILED": "ScanFailure: the sandbox was told to fail",
    "ACTIVE": "Continuous scan is selected for image.",
    "UNSUPPORTED_IMAGE": "UnsupportedImageError: The operating system and/or package manager are "
    "not supported.",
}
HAS_FINDINGS = ("COMPLETE", "ACTIVE")


class InvalidScanError(ValueError):
    """Findings that make no sense; the message says what would."""


@dataclass(frozen=True)
class Scan:
    """What a scan of one image ends with.

    ``findings``: how many of each severity. It is IN_PROGRESS from ``began`` (of ``clock``, epoch
    seconds) for ``seconds``.
    """

    outcome: Outcome
    findings: Mapping[Severity, int]
    began: float
    seconds: float = 0.0
    clock: Callable[[], float] = time.time

    @property
    def status(self) -> str:
        """As ECR calls it."""
        return "IN_PROGRESS" if self.clock() < self.began + self.seconds else self.outcome

    def shown(self) -> dict[str, Any]:
        """imageScanStatus, and imageScanFindings where there are some."""
        status = self.status
        answer: dict[str, Any] = {
            "imageScanStatus": {"status": status, "description": DESCRIPTIONS[status]}
        }
        if status in HAS_FINDINGS:
            answer["imageScanFindings"] = self._found(enhanced=status == "ACTIVE")
        return answer

    def listed(self, *, enhanced: bool) -> list[dict[str, Any]]:
        """Every single finding, the worst first."""
        return [
            _finding(severity, number, enhanced=enhanced)
            for severity in get_args(Severity)
            for number in range(self.findings.get(severity, 0))
        ]

    def _found(self, *, enhanced: bool) -> dict[str, Any]:
        kind = "enhancedFindings" if enhanced else "findings"
        completed = datetime.fromtimestamp(self.began + self.seconds, UTC)
        return {
            "imageScanCompletedAt": completed.replace(tzinfo=None),
            "vulnerabilitySourceUpdatedAt": completed.replace(tzinfo=None),
            "findingSeverityCounts": {name: one for name, one in self.findings.items() if one},
            kind: self.listed(enhanced=enhanced),
        }


def _finding(severity: str, number: int, *, enhanced: bool) -> dict[str, Any]:
    name = f"CVE-2026-{int(hashlib.sha256(severity.encode()).hexdigest()[:3], 16) * 100 + number}"
    if enhanced:
        return {"title": f"{name} - openssl", "severity": severity, "status": "ACTIVE"}
    return {
        "name": name,
        "description": "made up by the sandbox",
        "severity": severity,
        "attributes": [
            {"key": "package_name", "value": "openssl"},
            {"key": "package_version", "value": "3.0.1"},
        ],
    }


def findings_of(text: str) -> dict[Severity, int]:
    """``CRITICAL=1,HIGH=3`` as numbers; an empty text, or ``none``, is a scan without findings.

    Raises InvalidScanError.
    """
    found: dict[Severity, int] = {}
    for part in text.split(",") if text not in ("", "none") else []:
        name, _, number = part.strip().partition("=")
        severity = next((one for one in get_args(Severity) if one == name.upper()), None)
        if severity is None or not number.isdigit():
            raise InvalidScanError(
                f"findings {part!r}: write CRITICAL=1,HIGH=3, of {', '.join(get_args(Severity))}"
            )
        found[severity] = int(number)
    return found


def outcome_of(text: str) -> Outcome:
    """An outcome by its name. Raises InvalidScanError."""
    for one in get_args(Outcome):
        if one == text.upper():
            return one  # type: ignore[no-any-return]
    raise InvalidScanError(f"scan {text!r}: one of {', '.join(get_args(Outcome))}")
