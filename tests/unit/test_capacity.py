"""Whether the idle colour fits, and whether both services can be driven: before any change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.capacity import Needs, needs_of, tasks_that_fit
from bluegreen.color import Color
from bluegreen.configuration import Colors
from bluegreen.errors import DeploymentRefused
from bluegreen.preflight import check_capacity, check_services

TASK = Needs(cpu=256, memory=512, ports=frozenset({18082}))


def instance(
    cpu: int = 1024,
    memory: int = 2048,
    ports: tuple[int, ...] = (22, 2375, 51678),
    status: str = "ACTIVE",
    connected: bool = True,
) -> dict[str, Any]:
    return {
        "status": status,
        "agentConnected": connected,
        "remainingResources": [
            {"name": "CPU", "type": "INTEGER", "integerValue": cpu},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": memory},
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": [str(one) for one in ports]},
        ],
    }


def test_10_a_fixed_host_port_fits_once_on_an_instance() -> None:
    assert tasks_that_fit([instance(), instance()], TASK) == 2


def test_10_an_instance_where_the_port_is_taken_has_no_room() -> None:
    assert tasks_that_fit([instance(ports=(18082,)), instance(ports=(18081,))], TASK) == 1


def test_11_cpu_and_memory_limit_what_fits() -> None:
    task = Needs(cpu=300, memory=100, ports=frozenset())
    assert tasks_that_fit([instance(cpu=1024)], task) == 3
    assert tasks_that_fit([instance(memory=250)], task) == 2
    assert tasks_that_fit([instance(cpu=299)], task) == 0


def test_11_a_draining_or_lost_instance_takes_nothing() -> None:
    assert tasks_that_fit([instance(status="DRAINING"), instance(connected=False)], TASK) == 0


def test_11_a_task_that_needs_nothing_known_fits_once() -> None:
    assert tasks_that_fit([instance(cpu=0, memory=0)], Needs(0, 0, frozenset())) == 1


def test_11_too_little_room_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        DeploymentRefused,
        match=r"2 tasks wanted, room for 1 on 1 container instances \(a task takes 256 CPU units, "
        r"512 MiB, host port 18082\)",
    ):
        check_capacity([instance()], TASK, wanted=2, leftovers=0)


def test_11_leftovers_of_the_idle_colour_make_room_when_they_end() -> None:
    check_capacity([instance(), instance(ports=(18082,))], TASK, wanted=2, leftovers=1)


def test_just_enough_room_is_enough() -> None:
    check_capacity([instance()], TASK, wanted=1, leftovers=0)


@given(st.lists(st.builds(instance, cpu=st.integers(0, 999), memory=st.integers(0, 999))))
def test_what_fits_never_takes_more_than_there_is(instances: list[dict[str, Any]]) -> None:
    needs = Needs(cpu=100, memory=150, ports=frozenset())
    fits = tasks_that_fit(instances, needs)
    resources = [one["remainingResources"] for one in instances]
    assert fits * needs.cpu <= sum(one[0]["integerValue"] for one in resources)
    assert fits * needs.memory <= sum(one[1]["integerValue"] for one in resources)


@pytest.mark.parametrize(
    ("definition", "cpu", "memory"),
    [
        ({"containerDefinitions": [{"cpu": 100, "memory": 64}, {"cpu": 28}]}, 128, 64),
        ({"containerDefinitions": [{"memory": 512, "memoryReservation": 128}]}, 0, 128),
        ({"cpu": "512", "memory": "1024", "containerDefinitions": [{"cpu": 1}]}, 512, 1024),
        # What ECS takes as a task's size besides plain numbers.
        ({"cpu": "1 vCPU", "memory": "2 GB", "containerDefinitions": []}, 1024, 2048),
        ({"cpu": ".5 vcpu", "memory": "0.5GB", "containerDefinitions": []}, 512, 512),
    ],
)
def test_needs_are_those_of_the_task_or_else_of_its_containers(
    definition: dict[str, Any], cpu: int, memory: int
) -> None:
    needs = needs_of(definition)
    assert (needs.cpu, needs.memory) == (cpu, memory)


def test_only_fixed_tcp_ports_are_needed() -> None:
    mappings = [
        {"containerPort": 80, "hostPort": 8080},
        {"containerPort": 81, "hostPort": 8081, "protocol": "tcp"},
        {"containerPort": 82, "hostPort": 8082, "protocol": "udp"},
        {"containerPort": 83, "hostPort": 0},
        {"containerPort": 84},
    ]
    needs = needs_of({"containerDefinitions": [{"portMappings": mappings}]})
    assert needs.ports == {8080, 8081}


def colors() -> Colors:
    slot = {"cluster": "web"}
    return Colors.model_validate(
        {
            one: slot | {"ecs_service": f"web-{one}", "target_group": f"web-{one}"}
            for one in ("blue", "green")
        }
    )


def service(group: str, **more: Any) -> dict[str, Any]:
    return {"loadBalancers": [{"targetGroupArn": group}], **more}


GROUPS = {Color.BLUE: "arn:blue", Color.GREEN: "arn:green"}


def test_two_ordinary_services_can_be_driven() -> None:
    controller = {"deploymentController": {"type": "ECS"}, "schedulingStrategy": "REPLICA"}
    check_services(
        colors(), {color: service(GROUPS[color], **controller) for color in Color}, GROUPS
    )
    check_services(colors(), {color: service(GROUPS[color]) for color in Color}, GROUPS)


@pytest.mark.parametrize("strategy", ["BLUE_GREEN", "LINEAR", "CANARY"])
def test_a_service_whose_listener_ecs_moves_itself_is_refused(strategy: str) -> None:
    moved = service(GROUPS[Color.BLUE], deploymentConfiguration={"strategy": strategy})
    with pytest.raises(
        DeploymentRefused, match=f"its deployment strategy is {strategy}: .*ROLLING"
    ):
        check_services(
            colors(), {Color.BLUE: moved, Color.GREEN: service(GROUPS[Color.GREEN])}, GROUPS
        )
    for usual in ({"strategy": "ROLLING"}, {"maximumPercent": 200}, {}):
        kept = {color: service(GROUPS[color], deploymentConfiguration=usual) for color in Color}
        check_services(colors(), kept, GROUPS)


def test_all_findings_about_both_services_come_at_once() -> None:
    blue = service("arn:blue", deploymentController={"type": "CODE_DEPLOY"})
    green = service("arn:blue", schedulingStrategy="DAEMON")
    with pytest.raises(DeploymentRefused) as refused:
        check_services(colors(), {Color.BLUE: blue, Color.GREEN: green}, GROUPS)
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("blue (web-blue): its deployment controller is CODE_DEPLOY")
    assert "daemon" in lines[1]
    assert lines[2].endswith("does not register its tasks in target group web-green")
