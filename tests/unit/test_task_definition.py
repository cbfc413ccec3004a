"""The next revision: what was asked for changes, everything else stays to the letter."""

from __future__ import annotations

import copy
from typing import Any

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.configuration import HostPort
from bluegreen.errors import DeploymentRefused
from bluegreen.task_definition import (
    DEPLOYMENT_TAG,
    belongs_to,
    images_of,
    next_revision,
    render,
)

DIGEST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/web@sha256:" + "a" * 64


def members(shape: Any) -> list[str]:
    return list(shape.members)


ECS = botocore.session.get_session().get_service_model("ecs")
OUTPUT_ONLY = set(members(ECS.shape_for("TaskDefinition"))) - set(
    members(ECS.operation_model("RegisterTaskDefinition").input_shape)
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
flags = st.booleans()
container_extras = st.dictionaries(
    st.sampled_from(["cpu", "memory", "essential", "command", "logConfiguration", "newField"]),
    json_values,
    max_size=3,
)
variables = st.dictionaries(st.sampled_from(["COLOR", "PATH", "A", "B"]), st.text(max_size=5))
tag_keys = st.sampled_from(["team", "cost", "aws:cloudformation:stack-name", DEPLOYMENT_TAG])
tags_of = st.lists(
    st.fixed_dictionaries({"key": tag_keys, "value": st.text(max_size=5)}),
    max_size=4,
    unique_by=lambda tag: tag["key"],
)


@st.composite
def containers(draw: st.DrawFn, name: str) -> dict[str, Any]:
    environment = draw(variables)
    container = {
        "name": name,
        "image": draw(st.sampled_from(["web:v1", DIGEST, "public.ecr.aws/x/sidecar:1"])),
        "portMappings": [{"containerPort": 8000, "hostPort": 18081, "protocol": "tcp"}],
        **draw(container_extras),
    }
    written: bool = draw(flags)
    if environment or written:
        container["environment"] = [{"name": key, "value": environment[key]} for key in environment]
    return container


@st.composite
def live_definitions(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(["log", "proxy", "x"]), unique=True, max_size=2))
    order = draw(st.permutations(["web", *names]))
    return {
        "family": "web",
        "containerDefinitions": [draw(containers(name)) for name in order],
        **draw(
            st.dictionaries(
                st.sampled_from(["volumes", "networkMode", "cpu", "taskRoleArn", "brandNew"]),
                json_values,
                max_size=3,
            )
        ),
        **draw(st.dictionaries(st.sampled_from(sorted(OUTPUT_ONLY)), json_values, max_size=4)),
    }


def revise(
    live: dict[str, Any], tags: list[dict[str, str]], environment: dict[str, str]
) -> dict[str, Any]:
    return next_revision(
        live,
        tags,
        deployment_id="d-2",
        images={"web": DIGEST},
        environment={"web": environment},
        host_port=HostPort(container="web", container_port=8000, host_port=18082),
    )


def without_what_was_asked_for(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition without the fields that revise() sets, to compare the rest."""
    rest = {
        key: copy.deepcopy(value)
        for key, value in definition.items()
        if key not in OUTPUT_ONLY and key != "tags"
    }
    for container in rest["containerDefinitions"]:
        if container["name"] == "web":
            for key in ("image", "environment"):
                container.pop(key, None)
            for mapping in container["portMappings"]:
                mapping.pop("hostPort")
    return rest


def simple(**more: Any) -> dict[str, Any]:
    return {
        "family": "web",
        "containerDefinitions": [
            {
                "name": "web",
                "image": "web:v1",
                "portMappings": [{"containerPort": 8000, "hostPort": 18081}],
            },
            {"name": "log", "image": "log:v1"},
        ],
        **more,
    }


@given(live_definitions(), tags_of, variables)
def test_everything_not_asked_for_stays_to_the_letter(
    live: dict[str, Any], tags: list[dict[str, str]], environment: dict[str, str]
) -> None:
    revision = revise(live, tags, environment)
    assert without_what_was_asked_for(revision) == without_what_was_asked_for(live)


@given(live_definitions(), tags_of, variables)
def test_what_was_asked_for_is_there(
    live: dict[str, Any], tags: list[dict[str, str]], environment: dict[str, str]
) -> None:
    revision = revise(live, tags, environment)
    web = next(one for one in revision["containerDefinitions"] if one["name"] == "web")
    was = next(one for one in live["containerDefinitions"] if one["name"] == "web")
    before = {entry["name"]: entry["value"] for entry in was.get("environment", [])}
    after = {entry["name"]: entry["value"] for entry in web.get("environment", [])}
    assert web["image"] == DIGEST
    assert web["portMappings"][0]["hostPort"] == 18082
    assert after == before | environment
    assert len(web.get("environment", [])) == len(after), "a variable is there twice"


@given(live_definitions(), tags_of, variables)
def test_the_live_definition_is_never_changed_in_place(
    live: dict[str, Any], tags: list[dict[str, str]], environment: dict[str, str]
) -> None:
    before = copy.deepcopy((live, tags, environment))
    revision = revise(live, tags, environment)
    revision["containerDefinitions"][0]["image"] = "changed"
    revision["tags"][0]["value"] = "changed"
    assert (live, tags, environment) == before


@given(live_definitions(), tags_of, variables)
def test_applying_it_to_its_own_output_is_stable(
    live: dict[str, Any], tags: list[dict[str, str]], environment: dict[str, str]
) -> None:
    once = revise(live, tags, environment)
    described = {key: value for key, value in once.items() if key != "tags"}
    assert revise(described, once["tags"], environment) == once


@given(live_definitions(), tags_of)
def test_tags_are_kept_except_those_that_only_aws_may_set(
    live: dict[str, Any], tags: list[dict[str, str]]
) -> None:
    kept = [tag for tag in tags if tag["key"] in ("team", "cost")]
    assert revise(live, tags, {})["tags"] == [*kept, {"key": DEPLOYMENT_TAG, "value": "d-2"}]


@given(live_definitions())
def test_fields_that_register_does_not_take_are_gone(live: dict[str, Any]) -> None:
    assert not OUTPUT_ONLY & set(revise(live, [], {}))


def test_the_size_of_the_task_changes_only_when_asked_for() -> None:
    revision = next_revision(
        simple(cpu="256", memory="512"), [], deployment_id="d", images={}, environment={}, cpu="512"
    )
    assert (revision["cpu"], revision["memory"]) == ("512", "512")
    revision = next_revision(
        simple(cpu="256"), [], deployment_id="d", images={}, environment={}, memory="1024"
    )
    assert (revision["cpu"], revision["memory"]) == ("256", "1024")


def test_only_the_mapping_of_the_named_container_port_moves() -> None:
    live = simple()
    live["containerDefinitions"][0]["portMappings"].append({"containerPort": 9000, "hostPort": 9})
    mappings = revise(live, [], {})["containerDefinitions"][0]["portMappings"]
    assert [one["hostPort"] for one in mappings] == [18082, 9]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"images": {"nginx": DIGEST}}, "no container 'nginx', only web, log"),
        ({"environment": {"nginx": {"A": "1"}}}, "no container 'nginx', only web, log"),
        (
            {"host_port": HostPort(container="web", container_port=80, host_port=1)},
            "no port mapping for container port 80 \\(it has: 8000\\)",
        ),
        (
            {"host_port": HostPort(container="log", container_port=80, host_port=1)},
            "no port mapping for container port 80 \\(it has: none\\)",
        ),
    ],
)
def test_what_the_live_definition_does_not_have_is_refused_by_name(
    asked: dict[str, Any], says: str
) -> None:
    request: dict[str, Any] = {"images": {}, "environment": {}, "host_port": None} | asked
    with pytest.raises(DeploymentRefused, match=says):
        next_revision(simple(), [], deployment_id="d", **request)


def test_a_secret_is_not_shadowed_by_a_plain_variable() -> None:
    live = simple()
    live["containerDefinitions"][0]["secrets"] = [{"name": "TOKEN", "valueFrom": "arn"}]
    with pytest.raises(DeploymentRefused, match="TOKEN is a secret"):
        revise(live, [], {"TOKEN": "plain"})


def test_a_revision_is_known_by_the_tag_of_its_deployment() -> None:
    tags = revise(simple(), [], {})["tags"]
    assert belongs_to(tags, "d-2")
    assert not belongs_to(tags, "d-1")
    assert not belongs_to([{"key": "name", "value": "d-2"}], "d-2")


def test_images_by_container() -> None:
    assert images_of(simple()) == {"web": "web:v1", "log": "log:v1"}


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{color}", "green"),
        ("/{color}/{deployment_id}?{digest}", "/green/d-2?sha256:1"),
        ('{"json": {color}, "other": {unknown}}', '{"json": green, "other": {unknown}}'),
        ("{}", "{}"),
        ("{color", "{color"),
    ],
)
def test_rendering_leaves_other_braces_alone(template: str, rendered: str) -> None:
    assert render(template, color="green", deployment_id="d-2", digest="sha256:1") == rendered
