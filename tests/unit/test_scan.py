"""Findings: what refuses, what is waited for, and that unknown is not OK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import boto3
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from moto.ecr.models import Image, ecr_backends

from bluegreen import scan
from bluegreen.configuration import ServiceConfiguration, Severity, load
from bluegreen.errors import DeploymentRefused
from bluegreen.scan import Scanned, judge

ACCOUNT, REGION = "123456789012", "eu-west-1"
URI = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/web"
EXAMPLE = Path(__file__).parents[2] / "examples" / "shifted-ports" / "service.yaml"
SINCE = 1000.0
DONE = {"imageScanCompletedAt": datetime(2026, 11, 22, tzinfo=UTC)}


def configuration(refuse: str = "HIGH", **more: Any) -> ServiceConfiguration:
    document = yaml.safe_load(EXAMPLE.read_text()) | {"scan": {"refuse": refuse, **more}}
    return load(yaml.safe_dump(document), "web.yaml")


def verdict(status: str, counts: dict[str, int] | None = None, left: float = 10.0) -> str:
    return judge(Scanned("web@sha256:1", status, "said so", counts), "HIGH", left).status


# What is decided


@pytest.mark.parametrize("status", ["COMPLETE", "ACTIVE"])
@pytest.mark.parametrize(
    ("counts", "means"),
    [
        ({}, "ok"),
        ({"HIGH": 0, "CRITICAL": 0}, "ok"),
        ({"INFORMATIONAL": 9, "LOW": 9, "MEDIUM": 9, "UNDEFINED": 9, "UNTRIAGED": 9}, "ok"),
        ({"HIGH": 1}, "refuse"),
        ({"CRITICAL": 1}, "refuse"),
    ],
)
def test_findings_of_a_severity_or_a_worse_one_refuse(
    status: str, counts: dict[str, int], means: str
) -> None:
    assert verdict(status, counts) == means


def test_the_refusal_counts_them_all_the_worst_first() -> None:
    counts = {"UNDEFINED": 2, "LOW": 3, "CRITICAL": 1}
    found = judge(Scanned("web@sha256:1", "COMPLETE", "", counts), "HIGH", 10)
    assert found.reason == (
        "web@sha256:1 has findings: 1 CRITICAL, 3 LOW, 2 UNDEFINED; "
        "scan.refuse is HIGH, so it is not deployed"
    )


@pytest.mark.parametrize("name", ["UNDEFINED", "UNTRIAGED", "whatever comes next"])
def test_what_nobody_has_rated_is_refused_by_undefined_only(name: str) -> None:
    found = Scanned("web@sha256:1", "COMPLETE", "", {name: 1})
    assert judge(found, "UNDEFINED", 10).status == "refuse"
    assert judge(found, "INFORMATIONAL", 10).status == "ok"


@given(st.sampled_from(get_args(Severity)), st.sampled_from(get_args(Severity)), st.integers(1, 9))
def test_an_order_of_severities(found: Severity, refuse: Severity, count: int) -> None:
    order = ["UNDEFINED", "INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL"]
    means = judge(Scanned("i", "COMPLETE", "", {found: count}), refuse, 10).status
    assert means == ("refuse" if order.index(found) >= order.index(refuse) else "ok")


@pytest.mark.parametrize("status", ["IN_PROGRESS", "PENDING", "NO_SCAN", "COMPLETE", "ACTIVE"])
def test_what_may_still_come_is_waited_for_until_the_deadline(status: str) -> None:
    assert verdict(status, left=0.1) == "wait"
    assert verdict(status, left=0.0) == "refuse"
    assert verdict(status, left=-5.0) == "refuse"


@pytest.mark.parametrize(
    "status",
    [
        "FAILED",
        "UNSUPPORTED_IMAGE",
        "SCAN_ELIGIBILITY_EXPIRED",
        "FINDINGS_UNAVAILABLE",
        "LIMIT_EXCEEDED",
        "IMAGE_ARCHIVED",
        "SOMETHING_NEW",
        "without a status",
    ],
)
def test_21_a_scan_that_says_nothing_refuses_at_once(status: str) -> None:
    found = judge(Scanned("web@sha256:1", status, "said so", {}), "CRITICAL", 1000)
    assert found.status == "refuse"
    assert f"the scan of web@sha256:1 says {status}: said so; " in found.reason


def test_without_a_scan_it_is_said_how_to_have_one() -> None:
    assert "turn on scan on push" in judge(Scanned("i", "NO_SCAN"), "HIGH", 0).reason


# What ECR is asked


class Registry:
    """A repository whose scans answer what the test says; answers: digest → answer or status."""

    def __init__(self) -> None:
        self.client = boto3.client("ecr", region_name=REGION)
        # A mock_aws within another one begins with what that one has.
        ecr_backends[ACCOUNT][REGION].reset()
        self.client.create_repository(repositoryName="web")
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.client.meta.events.register(
            "before-parameter-build.ecr.DescribeImageScanFindings", self._note
        )
        self.client.meta.events.register("after-call.ecr.DescribeImageScanFindings", self._answer)

    def image(self, name: str, manifest: dict[str, Any] | None = None) -> str:
        """An image whose digest is made of a hexadecimal name; returns it."""
        digest = f"sha256:{name * 64}"[:71]
        text = json.dumps(manifest or {"schemaVersion": 2, "config": {}, "layers": [], "is": name})
        repository = ecr_backends[ACCOUNT][REGION].repositories["web"]
        image = Image(ACCOUNT, name, text, "web", "type", digest=digest)
        image.last_scan = datetime(2026, 11, 22, tzinfo=UTC)
        repository.images.append(image)
        return digest

    def index(self, name: str, *entries: dict[str, Any]) -> str:
        return self.image(name, {"schemaVersion": 2, "manifests": list(entries)})

    def unscanned(self, digest: str) -> None:
        for image in ecr_backends[ACCOUNT][REGION].repositories["web"].images:
            if image.image_digest == digest:
                image.last_scan = None

    def missing(self, *digests: str, now: float = SINCE, **options: Any) -> str:
        images = {f"c{number}": f"{URI}@{one}" for number, one in enumerate(digests)}
        return scan.missing(self.client, configuration(**options), images, SINCE, now)

    def _note(self, params: dict[str, Any], **_: Any) -> None:
        self.asked.append(params["imageId"]["imageDigest"])

    def _answer(self, parsed: dict[str, Any], **_: Any) -> None:
        found = self.answers.get(self.asked[-1])
        if found is not None:
            parsed.pop("imageScanFindings", None)
            parsed.update(found)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield Registry()


def answer(status: str, **findings: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"imageScanStatus": {"status": status, "description": "as it is"}}
    return found | ({"imageScanFindings": findings} if findings else {})


def counted(status: str = "COMPLETE", **counts: int) -> dict[str, Any]:
    return answer(status, findingSeverityCounts=counts, **DONE)


def test_nothing_is_asked_without_a_scan_in_the_configuration(registry: Registry) -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    without = load(yaml.safe_dump(document), "web.yaml")
    images = {"web": f"{URI}@{registry.image('1')}", "other": "docker.io/library/a@sha256:0"}
    assert scan.missing(registry.client, without, images, SINCE, SINCE) == ""
    assert registry.asked == []


def test_an_image_without_such_findings_may_be_deployed(registry: Registry) -> None:
    digest = registry.image("1")
    registry.answers[digest] = counted(MEDIUM=3)
    assert registry.missing(digest) == ""


def test_every_image_that_must_not_is_named(registry: Registry) -> None:
    bad, worse, good = (registry.image(name) for name in "123")
    registry.answers = {bad: counted(HIGH=1), worse: counted("ACTIVE", CRITICAL=2), good: counted()}
    with pytest.raises(DeploymentRefused) as raised:
        registry.missing(bad, good, worse)
    said = str(raised.value).splitlines()
    assert [line.split(":")[0] for line in said] == ["images.c0", "images.c2"]
    assert "1 HIGH" in said[0]
    assert "2 CRITICAL" in said[1]


def test_one_that_is_scanned_is_waited_for_and_refused_after_the_deadline(
    registry: Registry,
) -> None:
    done, scanned = registry.image("1"), registry.image("2")
    registry.answers = {done: counted(), scanned: answer("IN_PROGRESS")}
    assert "has no findings yet (IN_PROGRESS); waiting for 100 s more" in registry.missing(
        done, scanned, deadline_seconds=100
    )
    with pytest.raises(DeploymentRefused, match="IN_PROGRESS"):
        registry.missing(done, scanned, now=SINCE + 100, deadline_seconds=100)


def test_a_scan_that_has_not_begun_is_waited_for_too(registry: Registry) -> None:
    digest = registry.image("1")
    registry.unscanned(digest)
    assert "has no scan; waiting" in registry.missing(digest)
    with pytest.raises(DeploymentRefused, match="turn on scan on push"):
        registry.missing(digest, now=SINCE + 300)


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        (answer("ACTIVE"), True),
        (answer("ACTIVE", findings=[]), True),
        (answer("COMPLETE"), True),
        (answer("COMPLETE", findings=[], **DONE), False),
        (answer("ACTIVE", enhancedFindings=[], **DONE), False),
        (answer("COMPLETE", findings=[{"severity": "LOW"}], **DONE), True),
        (answer("COMPLETE", findingSeverityCounts={}), False),
    ],
)
def test_findings_that_are_not_there_are_not_no_findings(
    registry: Registry, said: dict[str, Any], waits: bool
) -> None:
    digest = registry.image("1")
    registry.answers[digest] = said
    assert bool(registry.missing(digest)) is waits


def test_of_an_index_every_platform_counts_and_the_index_is_not_asked_for(
    registry: Registry,
) -> None:
    amd, arm = registry.image("a"), registry.image("b")
    attestation = {"vnd.docker.reference.type": "attestation-manifest"}
    index = registry.index(
        "1",
        {"digest": amd, "platform": {"architecture": "amd64", "os": "linux"}},
        {"digest": arm, "annotations": {"org.opencontainers.image.title": "web"}},
        {"digest": registry.image("c"), "annotations": attestation},
    )
    registry.answers = {amd: counted(), arm: counted()}
    assert registry.missing(index) == ""
    assert registry.asked == [amd, arm]
    registry.answers[arm] = counted(CRITICAL=1)
    with pytest.raises(DeploymentRefused, match=f"{arm} has findings: 1 CRITICAL"):
        registry.missing(index)


def test_an_index_of_nothing_is_refused(registry: Registry) -> None:
    with pytest.raises(DeploymentRefused, match="without the image of any platform"):
        registry.missing(registry.index("1"))


def test_an_image_that_has_gone_is_refused(registry: Registry) -> None:
    with pytest.raises(DeploymentRefused, match="not in its repository any more"):
        registry.missing("sha256:" + "9" * 64)
    with pytest.raises(DeploymentRefused, match="not in its repository any more"):
        registry.missing(registry.index("1", {"digest": "sha256:" + "9" * 64}))


@pytest.mark.parametrize(
    "image",
    [
        "docker.io/library/web@sha256:" + "1" * 64,
        f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/web@sha256:" + "1" * 64,
    ],
)
def test_what_cannot_be_asked_for_is_refused(registry: Registry, image: str) -> None:
    with pytest.raises(DeploymentRefused, match="nobody here can say"):
        scan.missing(registry.client, configuration(), {"web": image}, SINCE, SINCE)
