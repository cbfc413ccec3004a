"""The service configuration: what is accepted, and what is said about what is not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bluegreen.color import Color
from bluegreen.configuration import HostRouter, ServiceConfiguration, load
from bluegreen.errors import InvalidConfiguration

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "examples" / "shifted-ports" / "service.yaml").read_text()
HOST_PROXY = (ROOT / "examples" / "host-proxy" / "service.yaml").read_text()


def changed(example: str = EXAMPLE, **changes: Any) -> str:
    """An example with other values; a key such as ``colors__blue__host_port`` is a path.

    None takes the key out.
    """
    document = copy.deepcopy(yaml.safe_load(example))
    for path, value in changes.items():
        *parents, last = path.split("__")
        where = document
        for key in parents:
            where = where[key]
        if value is None:
            del where[last]
        else:
            where[last] = value
    return yaml.safe_dump(document)


def mistakes(text: str) -> list[str]:
    with pytest.raises(InvalidConfiguration) as wrong:
        load(text, "service.yaml")
    first, *lines = str(wrong.value).splitlines()
    assert first.startswith("service.yaml")
    return lines


def test_the_example_is_a_right_one() -> None:
    found = load(EXAMPLE, "service.yaml")
    assert found.service == "web"
    assert found.colors[Color.BLUE].ecs_service == "web-blue"
    assert found.colors[Color.GREEN].ecs_service == "web-green"
    assert (found.router.port, found.router.test_port) == (8080, 8081)
    assert (found.drain.margin_seconds, found.drain.deadline_seconds) == (20, 900)


def test_every_mistake_is_named_at_once_with_path_value_and_what_would_be_right() -> None:
    text = changed(
        service="Web Shop",
        pattern="one-cluster",
        colors__blue__host_port__host_port=99999,
        colors__green__cluster=None,
        router__port="http",
        health__deadline_seconds=0,
        probe__path="no-slash",
        bake__secnds=5,
    )
    lines = mistakes(text)
    assert len(lines) == 8
    said = "\n".join(lines)
    for path, value, right in (
        ("service", "'Web Shop'", "pattern"),
        ("pattern", "'one-cluster'", "'shifted-ports'"),
        ("colors.blue.host_port.host_port", "99999", "less than or equal to 65535"),
        ("colors.green.cluster", "", "is missing"),
        ("router.port", "'http'", "valid integer"),
        ("health.deadline_seconds", "0", "greater than or equal to 5"),
        ("probe.path", "'no-slash'", "pattern"),
        ("bake.secnds", "5", "not a known key"),
    ):
        line = next(line for line in lines if line.startswith(f"  {path}: "))
        assert value in line, said
        assert right in line, said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colors__green__ecs_service": "web-blue"}, "colors: blue and green need two different E"),
        (
            {"colors__green__target_group": "web-blue"},
            "colors: blue and green need two different t",
        ),
        ({"colors__green__host_port": None}, "colors: give both colours a host_port, or neither"),
        (
            {"colors__green__host_port__host_port": 18081},
            "colors: blue and green need two different host ports, both have 18081",
        ),
        ({"router__test_port": 8080}, "router: port and test_port are both 8080"),
        ({"containers": []}, "containers: List should have at least 1 item"),
        (
            {"containers": [{"name": "web", "repository": "web"}] * 2},
            "(top level): containers: every name once, got web, web",
        ),
        (
            {"containers": [{"name": "web", "repository": "web", "environment": {"A-B": "x"}}]},
            "containers.0.environment.A-B",
        ),
        (
            {"containers": [{"name": "web", "repository": "web", "environment": {"A": 1}}]},
            "containers.0.environment.A: Input should be a valid string",
        ),
        ({"health__interval_seconds": 301}, "health.interval_seconds"),
        ({"probe__header": "X Color"}, "probe.header"),
        ({"probe__scheme": "https"}, "probe: scheme https needs a host"),
        (
            {"colors__green__target_group": None},
            "(top level): colors.green.target_group is missing: the router alb needs one for each",
        ),
        (
            {"colors__blue__target_group": None, "colors__green__target_group": None},
            "(top level): colors.blue.target_group is missing; colors.green.target_group is "
            "missing: the router alb needs one for each colour",
        ),
        (
            {"pattern": "host-proxy"},
            "(top level): pattern host-proxy needs a router of type nginx or haproxy",
        ),
        ({"router__type": "elb"}, "router: Input tag 'elb' found using 'type' does not match any"),
        ({"router__type": None}, "router: type is missing: alb, nlb, clb, nginx or haproxy"),
        ({"router": "alb"}, "router: "),
        ({"router__rule_prority": 10}, "router.rule_prority: is not a known key (got 10)"),
    ],
)
def test_what_contradicts_itself_is_named(changes: dict[str, Any], says: str) -> None:
    lines = mistakes(changed(**changes))
    assert len(lines) == 1
    assert lines[0].startswith("  " + says), lines[0]


TWO_CLUSTERS: dict[str, Any] = {
    "pattern": "two-clusters",
    "colors__green__cluster": "web-green",
    "colors__blue__auto_scaling_group": "web-blue",
    "colors__green__auto_scaling_group": "web-green",
}
NO_PORTS: dict[str, Any] = {"colors__blue__host_port": None, "colors__green__host_port": None}
CLASSIC: dict[str, Any] = {
    "colors__blue__target_group": None,
    "colors__green__target_group": None,
    "router": {"type": "clb", "load_balancer": "web", "port": 8080},
}


@pytest.mark.parametrize(
    "changes",
    [
        TWO_CLUSTERS,
        TWO_CLUSTERS | {"router__type": "nlb"},
        TWO_CLUSTERS | CLASSIC | NO_PORTS,
        {"router__type": "nlb"},
        CLASSIC | {"router": CLASSIC["router"] | {"accept_gap": True}},
    ],
    ids=str,
)
def test_what_load_balancers_and_groups_may_be_like(changes: dict[str, Any]) -> None:
    assert load(changed(**changes), "service.yaml").router.probe_port == 8080


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"pattern": "two-clusters", "colors__blue__auto_scaling_group": "web-blue"},
            "(top level): colors.green.auto_scaling_group is missing: its instances are the hosts",
        ),
        (
            TWO_CLUSTERS | {"colors__green__auto_scaling_group": "web-blue"},
            "colors: blue and green need two different Auto Scaling groups",
        ),
        (
            TWO_CLUSTERS | {"colors__green__cluster": "web"},
            "(top level): colors: two-clusters needs a cluster for each colour",
        ),
        (
            {"colors__green__auto_scaling_group": "web-green"},
            "(top level): colors: an auto_scaling_group is for two-clusters, not for shifted-ports",
        ),
        (
            TWO_CLUSTERS | {"router": CLASSIC["router"]},
            "(top level): colors: a Classic Load Balancer has no target groups",
        ),
        (
            TWO_CLUSTERS | CLASSIC,
            "(top level): colors: a host_port is not for two-clusters with a Classic Load Balancer",
        ),
        (
            TWO_CLUSTERS
            | CLASSIC
            | NO_PORTS
            | {"router": CLASSIC["router"] | {"accept_gap": True}},
            "(top level): router.accept_gap: with two-clusters there is no gap to accept",
        ),
        (
            CLASSIC | NO_PORTS,
            "(top level): colors: each colour needs a host_port for the listener",
        ),
        (
            CLASSIC,
            "(top level): router: a Classic Load Balancer cannot move a listener to another port: "
            "it is deleted and made anew, and requests in between are refused. Take an Application "
            "or Network Load Balancer (router alb or nlb), where one call switches; or the pattern "
            "two-clusters, which attaches and detaches groups; or host-proxy; or accept it: "
            "accept_gap: true",
        ),
        (
            {"router__type": "nlb", "router__rule_priority": 10},
            "router.rule_priority: is not a known key",
        ),
    ],
)
def test_what_load_balancers_and_groups_may_not_be_like(changes: dict[str, Any], says: str) -> None:
    lines = mistakes(changed(**changes))
    assert len(lines) == 1
    assert lines[0].startswith("  " + says), lines[0]


DYNAMIC = {
    "colors__blue__host_port": None,
    "colors__green__host_port": None,
    "router__container": "web",
    "router__container_port": 8000,
}


def test_the_example_of_host_proxy_is_a_right_one() -> None:
    found = load(HOST_PROXY, "service.yaml")
    assert isinstance(found.router, HostRouter)
    assert (found.pattern, found.router.type, found.router.port) == ("host-proxy", "nginx", 8080)
    assert (found.router.probe_port, found.router.test_port) == (8080, None)
    assert (found.router.lead_seconds, found.router.answer_seconds) == (10, 60)


@pytest.mark.parametrize(
    "changes",
    [
        {"router__type": "haproxy"},
        {"router__type": "haproxy", "router__protocol": "tcp"},
        DYNAMIC,
        {"router__load_balancer": None, "probe": None},
        {"router__protocol": None, "router__lead_seconds": None, "router__answer_seconds": None},
        {"router__lead_seconds": 1, "router__answer_seconds": 600},
    ],
    ids=str,
)
def test_what_hosts_may_be_like(changes: dict[str, Any]) -> None:
    found = load(changed(HOST_PROXY, **changes), "service.yaml")
    assert isinstance(found.router, HostRouter)


def test_a_probe_asks_where_users_do() -> None:
    behind = changed(HOST_PROXY, router__load_balancer={"name": "web", "port": 443})
    assert load(behind, "service.yaml").router.probe_port == 443
    assert load(EXAMPLE, "service.yaml").router.probe_port == 8080


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"pattern": "shifted-ports"},
            "(top level): a router of type nginx needs the pattern host-proxy",
        ),
        (
            {"router__protocol": "tcp"},
            "router: protocol tcp needs haproxy: nginx would have to be reloaded",
        ),
        (
            {"colors__blue__target_group": "web-blue"},
            "(top level): colors: a target_group is not for host-proxy; the load balancer before",
        ),
        (
            {"colors__green__cluster": "shop"},
            "(top level): colors: host-proxy needs both colours on the same cluster",
        ),
        (
            {"router__container": "web", "router__container_port": 8000},
            "(top level): either both colours have a host_port (fixed ports), or the router has "
            "container and container_port (dynamic ports)",
        ),
        (
            {"colors__blue__host_port": None, "colors__green__host_port": None},
            "(top level): either both colours have a host_port (fixed ports), or the router has",
        ),
        (
            {"router__container": "web"},
            "router: give container and container_port, or neither",
        ),
        (
            {"colors__green__host_port": None},
            "colors: give both colours a host_port, or neither",
        ),
        (
            {"router__load_balancer": None},
            "(top level): a probe needs router.load_balancer, through which it asks",
        ),
        ({"router__port": 0}, "router.port: Input should be greater than or equal to 1 (got 0)"),
        ({"router__port": None}, "router.port: is missing"),
        ({"router__lead_seconds": 0}, "router.lead_seconds: Input should be greater than or eq"),
        ({"router__lead_seconds": 61}, "router.lead_seconds: Input should be less than or equal"),
        ({"router__answer_seconds": 4}, "router.answer_seconds: Input should be greater than or"),
        ({"router__protocol": "udp"}, "router.protocol: Input should be 'http' or 'tcp' (got 'u"),
        ({"router__test_port": 8081}, "router.test_port: is not a known key (got 8081)"),
        ({"router__load_balancer": "web"}, "router.load_balancer: "),
        ({"router__load_balancer__port": "x"}, "router.load_balancer.port: Input should be a vali"),
        ({"router__load_balancer__rule": 1}, "router.load_balancer.rule: is not a known key"),
    ],
)
def test_what_hosts_cannot_be_like_is_named_at_its_place(
    changes: dict[str, Any], says: str
) -> None:
    lines = mistakes(changed(HOST_PROXY, **changes))
    assert len(lines) == 1, lines
    assert lines[0].startswith("  " + says), lines[0]


@pytest.mark.parametrize("service", ["web'; reboot", "$(reboot)", "../web", "web\nx", "WEB", ""])
def test_a_name_that_a_shell_could_misread_is_refused_before_anything_is_sent(
    service: str,
) -> None:
    [line] = mistakes(changed(HOST_PROXY, service=service))
    assert line.startswith("  service: String should match pattern")


@pytest.mark.parametrize(
    "environment",
    [{"KEY": ["hunter2"]}, {"A-B": "x", "KEY": {"is": "hunter2"}}, "hunter2", ["KEY=hunter2"]],
    ids=str,
)
def test_the_value_of_a_variable_is_not_shown_because_it_may_be_a_secret(environment: Any) -> None:
    text = changed(containers=[{"name": "web", "repository": "web", "environment": environment}])
    lines = mistakes(text)
    assert lines
    for line in lines:
        assert line.startswith("  containers.0.environment")
        assert "hunter2" not in line
        assert "(got" not in line


def test_a_probe_over_https_knows_whose_certificate_it_expects() -> None:
    found = load(changed(probe__scheme="https", probe__host="www.example.com"), "service.yaml")
    assert found.probe
    assert (found.probe.scheme, found.probe.host) == ("https", "www.example.com")
    plain = load(changed(probe__scheme="http"), "service.yaml")
    assert plain.probe
    assert plain.probe.host is None


def test_10_the_same_host_port_for_both_colours_is_refused_though_the_rest_is_wrong_too() -> None:
    lines = mistakes(changed(colors__green__host_port__host_port=18081, bake__seconds=-1))
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a mapping with service, pattern, containers, colors and router, got None"),
        ("- web", "got list"),
        ("web", "got str"),
        ("a: [", "is not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"^service.yaml.*{says}"):
        load(text, "service.yaml")


def test_what_may_be_left_out_has_a_default() -> None:
    short = changed(
        health=None,
        probe=None,
        strategy=None,
        bake=None,
        drain=None,
        router__test_port=None,
        colors__blue__host_port=None,
        colors__green__host_port=None,
    )
    found = load(short, "service.yaml")
    assert found.probe is None
    assert found.health.deadline_seconds == 600
    assert found.drain.keep_warm_seconds == 0


def test_editors_get_the_schema_of_these_very_models() -> None:
    schema = json.loads((ROOT / "service.schema.json").read_text())
    assert schema == ServiceConfiguration.model_json_schema()


@pytest.mark.parametrize(("timeout_seconds", "counted"), [(300, 20 * 7200), (7200, 20 * 28_800)])
def test_hooks_at_every_step_count_into_what_may_be_watched(
    timeout_seconds: int, counted: int
) -> None:
    """An execution's history has room for so many passes only."""
    points = ("before_shift", "after_shift")
    hooks = [
        {"at": point, "function": "check", "timeout_seconds": timeout_seconds} for point in points
    ]
    text = changed(
        EXAMPLE,
        strategy={"type": "linear", "percent": 5, "seconds": 7200},
        bake={"seconds": 7200},
        hooks=hooks,
    )
    with pytest.raises(InvalidConfiguration, match=f"take 144000 s, and the hooks .* {counted} s"):
        load(text, "service.yaml")
