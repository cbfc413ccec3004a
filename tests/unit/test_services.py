from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from botocore.exceptions import ClientError

from bluegreen.color import Color
from bluegreen.configuration import ServiceConfiguration
from bluegreen.configuration import load as load_service
from bluegreen.errors import TrafficChanged
from containermetrics.configuration import MetricsConfiguration
from containermetrics.model import EcsService
from containermetrics.services import known

EXAMPLE = Path(__file__).parents[2] / "examples" / "shifted-ports" / "service.yaml"
CLUSTER = MetricsConfiguration.model_validate(
    {
        "cluster": "web",
        "source": "cgroups",
        "mackerel": {"service": "shop", "roles": {"batch": "b1"}},
    }
)


def service(name: str, running: int = 2, status: str = "ACTIVE") -> dict[str, Any]:
    return {"serviceName": name, "runningCount": running, "status": status}


def deployed(**changes: Any) -> ServiceConfiguration:
    return load_service(yaml.safe_dump(yaml.safe_load(EXAMPLE.read_text()) | changes), "web.yaml")


def test_the_colours_of_a_service_share_its_role_and_one_is_live() -> None:
    found = known(
        CLUSTER, [service("web-blue"), service("web-green")], [deployed()], lambda _: {Color.GREEN}
    ).services

    assert [(one.name, one.role, one.color, one.status) for one in found] == [
        ("web-blue", "web", "blue", "standby"),
        ("web-green", "web", "green", "working"),
    ]


def test_during_a_canary_both_work() -> None:
    found = known(
        CLUSTER, [service("web-blue"), service("web-green")], [deployed()], lambda _: set(Color)
    ).services

    assert [one.status for one in found] == ["working", "working"]


def test_no_tasks_is_power_off_also_when_live() -> None:
    (found,) = known(
        CLUSTER, [service("web-blue", 0)], [deployed()], lambda _: {Color.BLUE}
    ).services

    assert found.status == "poweroff"


def test_a_service_that_nobody_deploys_works_in_a_role_of_its_own() -> None:
    found = known(CLUSTER, [service("cron"), service("batch")], [], lambda _: set()).services

    assert [(one.name, one.role, one.color, one.status) for one in found] == [
        ("cron", "cron", "", "working"),
        ("batch", "b1", "", "working"),
    ]


def test_a_colour_that_cannot_be_read_leaves_the_status_and_is_said() -> None:
    refusal = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribeListeners")
    for error in (refusal, TrafficChanged("somebody else's group")):

        def live(_: ServiceConfiguration, error: Exception = error) -> set[Color]:
            raise error

        found = known(CLUSTER, [service("web-blue")], [deployed()], live)

        assert found.services[0].status is None
        assert found.problems[0].startswith("service web: its live colour is not known: ")


def test_a_service_of_another_cluster_is_not_looked_at() -> None:
    colors = yaml.safe_load(EXAMPLE.read_text())["colors"]
    for color in colors.values():
        color["cluster"] = "other"

    found = known(CLUSTER, [service("web-blue")], [deployed(colors=colors)], lambda _: 1 / 0)  # type: ignore[arg-type, return-value]

    assert found.services[0].color == ""


def test_a_service_that_was_deleted_is_gone() -> None:
    assert known(CLUSTER, [service("web", status="INACTIVE")], [], lambda _: set()).services == []


def test_what_runs_no_task_now_is_power_off_whatever_it_did_before() -> None:
    assert EcsService("web-blue", 2, "web", "blue", live=True, idle=True).status == "poweroff"
