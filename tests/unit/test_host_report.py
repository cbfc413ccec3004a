"""What hosts report, as a look at the traffic: weights, targets, connections, who is unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.color import Color
from bluegreen.configuration import Colors, HostRouter
from bluegreen.errors import DeploymentRefused
from bluegreen.fleet import Answer, Host
from bluegreen.host_report import HostLook, check, readable

BLUE, GREEN = Color.BLUE, Color.GREEN
NO_TASK = "connection refused"
SILENT = Answer("silent", {}, "SSM says DeliveryTimedOut")
PENDING = Answer("pending", {}, "SSM says InProgress")
BROKEN = Answer("failed", {}, "no such file: host.json")
COLORS = Colors.model_validate(
    {
        color: {
            "cluster": "web",
            "ecs_service": f"web-{color}",
            "host_port": {"container": "web", "container_port": 8000, "host_port": port},
        }
        for color, port in (("blue", 18081), ("green", 18082))
    }
)
ROUTER = HostRouter(type="nginx", port=8080)


def report(
    blue: int = 100,
    green: int = 0,
    *,
    answering: tuple[Color, ...] = (BLUE,),
    connections: tuple[int, int] = (0, 0),
    **more: Any,
) -> Answer:
    """A host's report; blue has all traffic there and answers."""
    said = {
        "proxy": "nginx",
        "protocol": "http",
        "port": 8080,
        "ports": {"blue": [18081], "green": [18082]},
        "dynamic": False,
        "generation": 7,
        "weights": {"blue": blue, "green": green} if blue or green else {},
        "answers": {str(color): "" if color in answering else NO_TASK for color in Color},
        "connections": {"blue": connections[0], "green": connections[1]},
        "running": "",
        "restored": True,
    }
    return Answer("answered", said | more)


def look(
    *answers: Answer | None, draining: tuple[int, ...] = (), dynamic: bool = False
) -> HostLook:
    """Hosts i-1, i-2 … with these answers; None: it was not asked."""
    hosts = [Host(f"i-{number}", number in draining) for number in range(1, len(answers) + 1)]
    by_id = {
        host.instance_id: answer
        for host, answer in zip(hosts, answers, strict=True)
        if answer is not None
    }
    return HostLook(hosts, by_id, dynamic)


def states(found: HostLook, color: Color) -> dict[str, str]:
    return {one["Target"]["Id"]: one["TargetHealth"]["State"] for one in found.targets(color)}


def why(found: HostLook, color: Color) -> dict[str, str]:
    return {
        one["Target"]["Id"]: one["TargetHealth"]["Description"]
        for one in found.targets(color)
        if one["TargetHealth"]["State"] != "healthy"
    }


# Weights


def test_every_host_has_weights_of_its_own() -> None:
    found = look(report(), report(0, 100), report(0, 0))
    assert found.weights() == {
        "i-1": {BLUE: 100, GREEN: 0},
        "i-2": {BLUE: 0, GREEN: 100},
        "i-3": {BLUE: 0, GREEN: 0},
    }
    assert (found.share(BLUE), found.share(GREEN)) == (100, 100)


@pytest.mark.parametrize("answer", [SILENT, PENDING, BROKEN, None], ids=str)
def test_21_a_host_that_does_not_say_has_no_weights_and_is_unknown(answer: Answer | None) -> None:
    found = look(report(), answer)
    assert set(found.weights()) == {"i-1"}
    assert found.unknown().startswith("host i-2 does not say what it does: ")


def test_24_each_unknown_host_is_named_with_its_reason() -> None:
    assert look(report(), SILENT, BROKEN).unknown() == (
        "host i-2 does not say what it does: SSM says DeliveryTimedOut; "
        "host i-3 does not say what it does: no such file: host.json"
    )
    assert look(report(), report()).unknown() == ""


def test_14_a_host_that_is_booting_has_no_weights_before_it_has_read_them() -> None:
    """Its SSM agent is there before its proxy; that no colour has traffic is nobody's doing."""
    first_boot = report(0, 0, answering=(), running="nginx does not run", restored=False)
    reboot = report(100, 0, running="nginx does not run", restored=False)
    found = look(report(), first_boot, reboot)
    assert set(found.weights()) == {"i-1"}
    assert states(found, BLUE) == {"i-1": "healthy", "i-2": "unhealthy", "i-3": "unhealthy"}
    assert found.share(GREEN) == 0


def test_19_a_proxy_that_has_ended_counts_with_what_it_will_start_with() -> None:
    ended = report(0, 100, running="nginx does not run")
    assert look(report(), ended).weights()["i-2"] == {BLUE: 0, GREEN: 100}


# Targets


def test_a_host_is_a_healthy_target_of_each_colour_that_answers_there() -> None:
    found = look(report(answering=(BLUE, GREEN)), report())
    assert states(found, BLUE) == {"i-1": "healthy", "i-2": "healthy"}
    assert states(found, GREEN) == {"i-1": "healthy", "i-2": "unhealthy"}
    assert why(found, GREEN) == {"i-2": NO_TASK}


def test_a_host_whose_proxy_does_not_run_is_no_healthy_target_of_any_colour() -> None:
    found = look(report(answering=(BLUE, GREEN), running="nginx does not run"))
    assert why(found, BLUE) == why(found, GREEN) == {"i-1": "nginx does not run"}
    draining = look(report(), draining=(1,))
    assert why(draining, GREEN) == {"i-1": f"{NO_TASK} (the instance is draining)"}


@pytest.mark.parametrize("answer", [SILENT, PENDING, BROKEN, None], ids=str)
def test_21_a_host_that_does_not_say_is_no_healthy_target(answer: Answer | None) -> None:
    found = look(report(), answer)
    assert states(found, BLUE) == {"i-1": "healthy", "i-2": "unhealthy"}
    assert why(found, BLUE)["i-2"].startswith("does not say what it does: ")


# Hosts that are being emptied


def test_a_draining_host_counts_as_long_as_a_colour_answers_there() -> None:
    found = look(report(answering=(BLUE, GREEN)), report(), draining=(2,))
    assert set(found.weights()) == {"i-1", "i-2"}
    assert states(found, GREEN) == {"i-1": "healthy", "i-2": "unhealthy"}
    assert found.connections(BLUE) == 0


def test_a_draining_host_on_which_nothing_answers_gets_no_requests_whatever_it_is_set_to() -> None:
    emptied = report(30, 70, answering=(), connections=(9, 9))
    found = look(report(answering=(BLUE, GREEN)), emptied, draining=(2,))
    assert set(found.weights()) == {"i-1"}
    assert states(found, GREEN) == {"i-1": "healthy"}
    assert (found.share(GREEN), found.connections(BLUE), found.unknown()) == (0, 0, "")


def test_21_a_draining_host_that_does_not_say_may_still_get_requests() -> None:
    found = look(report(), SILENT, draining=(2,))
    assert "i-2" in found.unknown()
    assert states(found, BLUE)["i-2"] == "unhealthy"


# How many


def test_fixed_ports_need_a_task_on_every_host_however_many_the_other_colour_has() -> None:
    found = look(report(), report(), SILENT, report(), draining=(4,))
    assert [found.tasks_for(count) for count in (0, 2, 9)] == [3, 3, 3]


def test_dynamic_ports_need_as_many_as_the_other_colour_has_and_one_on_every_host() -> None:
    found = look(report(), report(), SILENT, report(), draining=(4,), dynamic=True)
    assert [found.tasks_for(count) for count in (0, 2, 9)] == [3, 3, 9]


def test_17_the_way_back_does_not_wait_for_hosts_on_which_no_colour_answers() -> None:
    crashed = report(running="nginx does not run")
    found = look(report(), crashed, SILENT, report(answering=()), None, report(answering=(GREEN,)))
    assert found.targets_for(Color.BLUE, 6) == 2
    assert len(found.targets(BLUE)) == 6, "they are unhealthy all the same"


def test_a_draining_host_is_a_target_as_long_as_a_colour_answers_there() -> None:
    assert look(report(), report(), draining=(2,)).targets_for(Color.BLUE, 2) == 2
    assert look(report(), report(answering=()), draining=(2,)).targets_for(Color.BLUE, 2) == 1


def test_17_a_task_is_missing_only_when_its_host_is_there() -> None:
    found = HostLook([Host("i-1", draining=False, arn="arn:1")], {}, dynamic=False)
    assert found.has_place_of({"containerInstanceArn": "arn:1"})
    assert not found.has_place_of({"containerInstanceArn": "arn:2"})
    assert not found.has_place_of({}), "one that was never placed"


# Connections


def test_connections_are_counted_on_all_hosts() -> None:
    found = look(report(connections=(3, 1)), report(connections=(4, 0)))
    assert (found.connections(BLUE), found.connections(GREEN)) == (7, 1)


@pytest.mark.parametrize("answer", [SILENT, PENDING, BROKEN, None], ids=str)
def test_21_one_host_that_does_not_say_makes_their_number_unknown(answer: Answer | None) -> None:
    assert look(report(connections=(0, 0)), answer).connections(BLUE) is None


def test_21_connections_that_a_host_could_not_count_are_unknown() -> None:
    found = look(report(connections=(3, 1)), uncounted())
    assert found.connections(BLUE) is None
    assert found.unknown() == ""


def uncounted() -> Answer:
    return Answer("answered", {**report().said, "connections": None})


# Hosts that are not fit to be switched


def test_24_each_proxy_that_does_not_run_is_named_with_its_reason() -> None:
    found = look(report(), report(running="nginx does not run"), SILENT, report(restored=False))
    assert found.not_running() == (
        "host i-2: nginx does not run; host i-4: it has not read its weights since it booted"
    )
    assert look(report(), SILENT).not_running() == ""


# Dynamic ports: ECS leaves some hosts without a task


def test_a_host_without_a_task_of_either_colour_holds_nobody_up() -> None:
    empty = report(answering=(), ports={"blue": [], "green": []})
    both = report(answering=(BLUE, GREEN), ports={"blue": [32768, 32769], "green": [32770]})
    found = look(both, empty, dynamic=True)
    assert states(found, GREEN) == {"i-1": "healthy"}
    assert set(found.weights()) == {"i-1"}
    assert found.targets_for(Color.BLUE, 3) == 1
    fixed = look(report(answering=(BLUE, GREEN)), report(answering=()))
    assert states(fixed, GREEN) == {"i-1": "healthy", "i-2": "unhealthy"}


def test_a_host_with_tasks_that_do_not_answer_is_ill_though_ports_are_dynamic() -> None:
    deaf = report(answering=(), ports={"blue": [32768], "green": []})
    found = look(report(answering=(BLUE, GREEN)), deaf, dynamic=True)
    assert states(found, GREEN) == {"i-1": "healthy", "i-2": "unhealthy"}


# Whatever the hosts say

answers = st.one_of(
    st.sampled_from([SILENT, PENDING, BROKEN, None]),
    st.builds(
        lambda green, answering, running, restored: report(
            100 - green, green, answering=answering, running=running, restored=restored
        ),
        st.sampled_from([0, 10, 100]),
        st.sampled_from([(), (BLUE,), (GREEN,), (BLUE, GREEN)]),
        st.sampled_from(["", "nginx does not run"]),
        st.booleans(),
    ),
)
looks = st.builds(
    lambda found, draining, dynamic: look(*found, draining=tuple(draining), dynamic=dynamic),
    st.lists(answers, max_size=5),
    st.sets(st.integers(1, 5)),
    st.booleans(),
)


@given(looks, st.sampled_from(list(Color)))
def test_21_no_host_is_forgotten_but_one_that_is_emptied(found: HostLook, color: Color) -> None:
    listed = states(found, color)
    for host in found.hosts:
        if host.instance_id not in listed:
            assert host.draining
            assert host.instance_id not in found.unknown()
    assert set(found.weights()) <= set(listed)


@given(looks, st.sampled_from(list(Color)))
def test_02_a_healthy_target_is_a_host_that_said_so(found: HostLook, color: Color) -> None:
    for instance_id, state in states(found, color).items():
        if state == "healthy":
            said = found.reports()[instance_id]
            assert (said["answers"][color], said["running"]) == ("", "")


# What a report is


@pytest.mark.parametrize(
    "missing", ["generation", "weights", "answers", "connections", "running", "restored"]
)
def test_a_report_of_another_version_of_the_program_is_no_answer(missing: str) -> None:
    said = {key: value for key, value in report().said.items() if key != missing}
    found = readable(Answer("answered", said))
    assert (found.state, found.said) == ("failed", {})
    assert "install it again" in found.reason


def test_other_answers_and_newer_reports_are_read_as_they_are() -> None:
    for answer in (SILENT, PENDING, BROKEN, report(), report(something_new=1)):
        assert readable(answer) == answer


# Hosts that are not what the service configuration says


def refusals(found: HostLook, router: HostRouter = ROUTER) -> list[str]:
    with pytest.raises(DeploymentRefused) as refused:
        check(found, router, COLORS)
    return str(refused.value).splitlines()


def test_hosts_that_are_configured_as_the_service_says_are_fit() -> None:
    check(look(report(), report(0, 100)), ROUTER, COLORS)


@pytest.mark.parametrize(
    ("differs", "says"),
    [
        ({"proxy": "haproxy"}, "proxy is 'haproxy' there, 'nginx' in the service configuration"),
        ({"protocol": "tcp"}, "protocol is 'tcp' there, 'http' in the service configuration"),
        ({"port": 80}, "port is 80 there, 8080 in the service configuration"),
        ({"dynamic": True}, "dynamic is True there, False in the service configuration"),
        (
            {"ports": {"blue": [18081], "green": [18083]}},
            "ports is {'blue': [18081], 'green': [18083]} there, "
            "{'blue': [18081], 'green': [18082]} in the service configuration",
        ),
    ],
)
def test_24_what_a_host_has_otherwise_is_said_with_both_values(
    differs: dict[str, Any], says: str
) -> None:
    assert refusals(look(report(), report(**differs))) == [
        f"host i-2: {says}; configure the host again (docs/hosts.md)"
    ]


def test_24_all_that_is_wrong_is_said_at_once_up_to_five() -> None:
    [line] = refusals(look(report(port=80, proxy="haproxy"), report(), report(port=81)))
    assert [part.split(" is ")[0] for part in line.split("; host ")] == [
        "host i-1: proxy",
        "i-1: port",
        "i-3: port",
    ]
    [line] = refusals(look(*[report(port=80)] * 60))
    assert line.count("configure the host again") == 5
    assert line.endswith("; and 55 more")


def test_with_dynamic_ports_it_does_not_matter_which_they_are_just_now() -> None:
    router = HostRouter(type="nginx", port=8080, container="web", container_port=8000)
    busy = report(dynamic=True, ports={"blue": [32768, 32769], "green": []})
    check(look(busy, dynamic=True), router, COLORS)


def test_what_a_host_that_is_emptied_is_configured_for_does_not_matter() -> None:
    check(look(report(), report(port=80, answering=()), draining=(2,)), ROUTER, COLORS)
