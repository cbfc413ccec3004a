"""The metrics of an Application Load Balancer: what its HAProxy has counted, in CloudWatch.

The clients that read them know nothing of the sandbox: GetMetricData of any AWS client.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandbox.alb.traffic import Answered, Names, Traffic, counted, metric_data, parse
from sandbox.world import World
from tests.sandbox.balancers import Balancers, Program, program, wait_until

NAMES = Names({"listener-1": "app/web/1"}, {"blue.0a": "targetgroup/blue/0a"})
MINUTE = 1_800_000_000


@pytest.fixture(scope="module")
def balancers(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Balancers]:
    number = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    started = Balancers(f"127.0.{160 + number}", tmp_path_factory.mktemp("lb"))
    started.start()
    yield started
    started.stop()


@dataclass
class Alb:
    """A load balancer, with a group and a program behind it for each color."""

    balancers: Balancers
    stack: ExitStack
    arn: str
    port: int
    listener: str
    groups: dict[str, str]
    programs: dict[str, Program]
    fixed_misses: int = 0

    def ask(self, path: str = "/", times: int = 1, *, keep: bool = True) -> list[int]:
        """The status codes of requests, on one connection or on a new one each."""
        statuses: list[int] = []
        with ExitStack() as stack:
            connection: HTTPConnection | None = None
            for _ in range(times):
                if connection is None or not keep:
                    made = HTTPConnection(self.balancers.address, self.port, timeout=5)
                    connection = stack.enter_context(closing(made))
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
        return statuses

    def forward(self, **weights: int) -> None:
        """Set the weights, and wait until they count."""
        groups = [
            {"TargetGroupArn": self.groups[color], "Weight": weight}
            for color, weight in weights.items()
        ]
        action = {"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}
        self.balancers.elbv2.modify_listener(ListenerArn=self.listener, DefaultActions=[action])

    def metric(self, name: str, color: str | None = None, stat: str = "Sum") -> float | None:
        """Of the last minutes, all together; None where there is no value."""
        dimensions = [{"Name": "LoadBalancer", "Value": self.arn.partition(":loadbalancer/")[2]}]
        if color is not None:
            group = self.groups[color].rpartition(":")[2]
            dimensions.append({"Name": "TargetGroup", "Value": group})
        metric = {"Namespace": "AWS/ApplicationELB", "MetricName": name, "Dimensions": dimensions}
        now = datetime.now(UTC)
        [result] = self.balancers.client("cloudwatch").get_metric_data(
            MetricDataQueries=[
                {"Id": "m", "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}}
            ],
            StartTime=now - timedelta(minutes=5),
            EndTime=now + timedelta(minutes=1),
        )["MetricDataResults"]
        assert result["StatusCode"] == "Complete"
        if not result["Values"]:
            return None
        return float(sum(result["Values"]) if stat == "Sum" else max(result["Values"]))


@pytest.fixture
def alb(balancers: Balancers) -> Iterator[Alb]:
    with ExitStack() as stack:
        api, name, port = balancers.elbv2, balancers.new_name(), balancers.new_port()
        arn = api.create_load_balancer(Name=name, Subnets=balancers.subnets)["LoadBalancers"][0][
            "LoadBalancerArn"
        ]
        groups, programs = {}, {}
        for color in ("blue", "green"):
            instance, address = balancers.instance()
            programs[color] = stack.enter_context(program(address))
            groups[color] = api.create_target_group(
                Name=f"{name}-{color}",
                Protocol="HTTP",
                Port=80,
                VpcId=balancers.vpc,
                HealthCheckPath="/healthz",
                HealthCheckIntervalSeconds=5,
                HealthCheckTimeoutSeconds=2,
            )["TargetGroups"][0]["TargetGroupArn"]
            target = {"Id": instance, "Port": programs[color].server_port}
            api.register_targets(TargetGroupArn=groups[color], Targets=[target])
        action = {"Type": "forward", "TargetGroupArn": groups["blue"]}
        listener = api.create_listener(
            LoadBalancerArn=arn, Protocol="HTTP", Port=port, DefaultActions=[action]
        )["Listeners"][0]["ListenerArn"]
        made = Alb(balancers, stack, arn, port, listener, groups, programs)
        stack.callback(api.delete_load_balancer, LoadBalancerArn=arn)
        made.forward(blue=1, green=0)

        def healthy(color: str) -> bool:
            health = api.describe_target_health(TargetGroupArn=groups[color])
            return [one["TargetHealth"]["State"] for one in health["TargetHealthDescriptions"]] == [
                "healthy"
            ]

        wait_until(lambda: healthy("blue") and healthy("green"))
        balancers.publish()
        yield made


def test_requests_and_answers_are_counted_by_group_and_together(alb: Alb) -> None:
    alb.ask("/", 7)
    alb.ask("/", 3, keep=False)
    assert alb.ask("/500", 2) == [500, 500]
    assert alb.ask("/404") == [404]
    assert alb.balancers.publish() == 13
    for color in (None, "blue"):
        assert alb.metric("RequestCount", color) == 13
        assert alb.metric("HTTPCode_Target_2XX_Count", color) == 10
        assert alb.metric("HTTPCode_Target_5XX_Count", color) == 2
        assert alb.metric("HTTPCode_Target_4XX_Count", color) == 1
    # Nothing is published of what was not asked.
    assert alb.metric("RequestCount", "green") is None
    assert alb.metric("HTTPCode_Target_3XX_Count") is None
    assert alb.metric("HTTPCode_ELB_5XX_Count") is None


def test_what_comes_later_is_added(alb: Alb) -> None:
    alb.ask("/", 2)
    assert alb.balancers.publish() == 2
    alb.ask("/", 3)
    assert alb.balancers.publish() == 3
    assert alb.balancers.publish() == 0
    assert alb.metric("RequestCount", "blue") == 5


def test_each_color_has_its_own_response_time(alb: Alb) -> None:
    # So much that a busy machine does not make the other one as slow.
    alb.programs["green"].slow_seconds = 1.0
    alb.ask("/", 20)
    alb.forward(blue=0, green=1)
    wait_until(lambda: _answerer(alb) == alb.programs["green"].name)
    alb.ask("/slow", 3)
    alb.balancers.publish()
    assert (alb.metric("TargetResponseTime", "green", "Maximum") or 0) >= 1.0
    assert 0 < (alb.metric("TargetResponseTime", "blue", "Average") or 0) < 1.0


def _answerer(alb: Alb) -> str:
    with closing(HTTPConnection(alb.balancers.address, alb.port, timeout=5)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


def test_what_the_load_balancer_answers_itself_is_not_the_targets(alb: Alb) -> None:
    alb.programs["blue"].shutdown()
    alb.programs["blue"].socket.close()
    assert alb.ask("/") == [502]
    alb.balancers.publish()
    assert alb.metric("HTTPCode_ELB_5XX_Count") == 1
    assert alb.metric("HTTPCode_Target_5XX_Count") is None
    assert alb.metric("RequestCount", "blue") == 1


def test_a_reload_loses_and_doubles_nothing(alb: Alb) -> None:
    stop, asked = threading.Event(), [0]

    def users() -> None:
        while not stop.is_set():
            asked[0] += len(alb.ask("/", 5))

    thread = threading.Thread(target=users)
    thread.start()
    api = alb.balancers.elbv2
    for number in range(1, 4):  # each new rule is a new process
        before = asked[0]
        fixed = {"StatusCode": "200", "ContentType": "text/plain", "MessageBody": "x"}
        api.create_rule(
            ListenerArn=alb.listener,
            Priority=number,
            Conditions=[{"Field": "path-pattern", "Values": [f"/fixed-{number}"]}],
            Actions=[{"Type": "fixed-response", "FixedResponseConfig": fixed}],
        )
        wait_until(partial(_fixed, alb, number))
        wait_until(partial(_is_above, asked, before))
    stop.set()
    thread.join()
    alb.balancers.publish()
    assert alb.metric("HTTPCode_Target_2XX_Count", "blue") == asked[0] + alb.fixed_misses
    assert alb.metric("RequestCount") == asked[0] + alb.fixed_misses


def _is_above(asked: list[int], before: int) -> bool:
    return asked[0] > before


def _fixed(alb: Alb, number: int) -> bool:
    with closing(HTTPConnection(alb.balancers.address, alb.port, timeout=5)) as connection:
        connection.request("GET", f"/fixed-{number}")
        found = connection.getresponse().read() == b"x"
    alb.fixed_misses += not found
    return found


# ------------------------------------------------------------------------------------- without AWS


def test_a_line_is_a_request() -> None:
    text = """\
request listener-1 blue.0a 200 1800000001 1500
request listener-1 blue.0a 503 1800000001 -
Proxy listener-1 stopped (cumulated conns: FE: 1, BE: 0).
request listener-1 blue.0a 200 1800000001 500
request listener-1 blue.0a 503 1800000001 1000
request listener-1 blue.0a -1 1800000001 -
request listener-1 blue.0a 200 1800000002 500
"""
    assert list(parse(text)) == [
        Answered("listener-1", "blue.0a", 200, 1_800_000_001, [0.0015, 0.0005]),
        Answered("listener-1", "blue.0a", 503, 1_800_000_001, [0.001], others=1),
        Answered("listener-1", "blue.0a", 200, 1_800_000_002, [0.0005]),
    ]


def test_what_another_process_answers_is_counted_there() -> None:
    handed_over = Answered("listener-1", "listener-1.successor", 200, MINUTE, [0.001])
    gone = Answered("listener-2", "blue.0a", 200, MINUTE, [0.001])
    assert counted([handed_over, gone], NAMES) == {}


def test_nowhere_to_go_is_no_request_of_a_group() -> None:
    counts = counted([Answered("listener-1", "nowhere", 503, MINUTE, [], others=1)], NAMES)
    assert [one["MetricName"] for one in metric_data(counts, MINUTE)] == ["HTTPCode_ELB_5XX_Count"]


def test_whole_minutes_are_published_when_they_are_over(tmp_path: Path) -> None:
    kept: list[dict[str, Any]] = []
    backend = SimpleNamespace(put_metric_data=lambda _, data: kept.extend(data))
    world = cast("World", SimpleNamespace(backend=lambda _: backend))
    now = [MINUTE + 62.0]
    path = tmp_path / "1"
    traffic = Traffic(world, tmp_path, lambda: NAMES, clock=lambda: now[0])
    assert traffic.publish(current=False) == 0
    lines = [f"request listener-1 blue.0a 200 {MINUTE + at} 1000\n" for at in (0, 59, 60, 61)]
    path.write_text("".join(lines) + "request listener-1 blue.0a 200 18000")
    assert traffic.publish(current=False) == 2
    stamps = {one["Timestamp"] for one in kept}
    assert stamps == {datetime.fromtimestamp(MINUTE, UTC).replace(tzinfo=None)}
    counts = [one for one in kept if one["MetricName"] == "RequestCount"]
    assert [one["StatisticValues"]["Sum"] for one in counts] == [2, 2]
    with path.open("a") as file:
        file.write("00063 1000\n")
    kept.clear()
    now[0] += 60
    assert traffic.publish(current=False) == 3
    assert {one["Timestamp"].timestamp() - time.timezone for one in kept} == {MINUTE + 60}
