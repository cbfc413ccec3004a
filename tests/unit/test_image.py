"""What a request may say about an image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.errors import InvalidRequest
from bluegreen.image import EcrRepository, ImageReference, parse

DIGEST = "sha256:" + "0a" * 32
URI = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/web"


@pytest.mark.parametrize(
    ("repository", "requested", "reference"),
    [
        ("web", "v2", ImageReference("web", tag="v2")),
        ("web", "2026.11.22-abc_1", ImageReference("web", tag="2026.11.22-abc_1")),
        ("web", DIGEST, ImageReference("web", digest=DIGEST)),
        ("web", "web:v2", ImageReference("web", tag="v2")),
        ("web", f"web@{DIGEST}", ImageReference("web", digest=DIGEST)),
        (URI, "v2", ImageReference(URI, tag="v2")),
        (URI, f"{URI}:v2", ImageReference(URI, tag="v2")),
        ("team/web", f"{URI}@{DIGEST}", ImageReference(URI, digest=DIGEST)),
        (
            "localhost:5000/web",
            "localhost:5000/web:v2",
            ImageReference("localhost:5000/web", tag="v2"),
        ),
    ],
)
def test_a_tag_a_digest_or_a_full_reference(
    repository: str, requested: str, reference: ImageReference
) -> None:
    assert parse("web", repository, requested) == reference


@pytest.mark.parametrize(
    "requested",
    [
        "",
        " ",
        "v2 ",
        "v2\n",
        "web:",
        "web@",
        "web@sha256:123",
        "sha256:123",
        "sha256:" + "G" * 64,
        DIGEST + "\n",
        ".v2",
        "v" * 129,
        "@" + DIGEST,
        ":v2",
    ],
)
def test_anything_else_is_refused_and_shown(requested: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse("web", "web", requested)
    assert "images.web" in str(refused.value)
    assert repr(requested) in str(refused.value)


@pytest.mark.parametrize(
    ("repository", "requested"),
    [
        ("web", "nginx:v2"),
        ("web", "attacker/web:v2"),
        ("web", f"{URI}:v2"),
        ("web", f"registry.example/web@{DIGEST}"),
        ("team/web", f"registry.example/team/web@{DIGEST}"),
        (URI, f"web@{DIGEST}"),
    ],
)
def test_another_repository_than_the_configured_one_is_refused(
    repository: str, requested: str
) -> None:
    with pytest.raises(InvalidRequest, match="the service configuration says"):
        parse("web", repository, requested)


@pytest.mark.parametrize(
    ("repository", "ecr"),
    [
        ("web", EcrRepository("web")),
        ("team/web", EcrRepository("team/web")),
        (URI, EcrRepository("team/web", "123456789012", "eu-west-1")),
        (
            "123456789012.dkr-ecr.eu-west-1.on.aws/web",
            EcrRepository("web", "123456789012", "eu-west-1"),
        ),
        ("docker.io/library/nginx", None),
        ("public.ecr.aws/nginx/nginx", None),
        ("localhost:5000/web", None),
    ],
)
def test_which_registry_a_repository_is_in(repository: str, ecr: EcrRepository | None) -> None:
    assert ImageReference(repository, tag="v2").ecr == ecr


@given(st.text(max_size=30))
def test_a_request_is_read_as_exactly_one_of_tag_and_digest_or_refused(requested: str) -> None:
    try:
        found = parse("web", "web", requested)
    except InvalidRequest:
        return
    assert (found.tag is None) != (found.digest is None)
    assert requested.endswith(found.tag or str(found.digest))
