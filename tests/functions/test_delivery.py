"""Delivering a backlog: moto's DynamoDB on one side, the stand-in for Mackerel on the other."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import deliver_container_metrics
from containermetrics import delivery
from containermetrics.annotations import shape
from containermetrics.delivery import Delivered, deliver, is_next
from containermetrics.graphs import DEFINITIONS
from containermetrics.mackerel import Mackerel
from containermetrics.model import Annotation, Batch, HostMetrics, HostStatus, custom_identifier
from containermetrics.store import Kept, MetricsStore, Place
from runtime import clients, mackerel
from sandbox.mackerel import Fault, MackerelServer
from tests.functions.world import Account

KEY = "a-key-that-nobody-may-see"
START = 1_800_000_000  # a whole minute
HOUR, DAY = 3600, 86_400
CLUSTER = "web"
SITE = "123456789012.eu-west-1"
CPU = "custom.ecs.cpu.app.total"
_tables = itertools.count()


def host(
    service: str = "web-blue",
    status: HostStatus | None = "working",
    role: str = "shop:web",
    **values: float,
) -> HostMetrics:
    """values: metric name, with _ for dots, → value; by default one."""
    named = {name.replace("__", "."): value for name, value in values.items()} or {CPU: 1.0}
    return HostMetrics(custom_identifier(SITE, CLUSTER, service), service, role, status, named)


class Scene:
    """One cluster, whose clock moves only when told."""

    def __init__(
        self, server: MackerelServer, store: MetricsStore, table: str, cluster: str = CLUSTER
    ) -> None:
        self.server = server
        self.store = store
        self.table = table
        self.cluster = cluster
        self.now = float(START)

    def beside(self, cluster: str) -> Scene:
        """Another cluster of the same organisation, with a clock of its own."""
        return Scene(self.server, self.store, self.table, cluster)

    def client(self, key: str = KEY) -> Mackerel:
        """A client in a hurry."""
        return Mackerel(
            self.server.url,
            key,
            "1.2.3",
            timeout_seconds=10,
            attempts=2,
            pause_seconds=0.001,
            clock=lambda: self.now,
        )

    def keep(self, *hosts: HostMetrics, minute: float | None = None, **more: Any) -> None:
        at = int(self.now if minute is None else minute)
        self.store.keep(Batch(self.cluster, at // 60 * 60, hosts, **more))

    def deliver(
        self,
        client: Mackerel | None = None,
        seconds_left: Callable[[], float] = lambda: 60.0,
        retire_after: int = 3,
    ) -> Delivered:
        return deliver(
            client or self.client(), self.store, self.cluster, self.now, seconds_left, retire_after
        )

    def minute(self, *hosts: HostMetrics, **more: Any) -> Delivered:
        """A minute goes by, and its batch is delivered."""
        self.now += 60
        self.keep(*hosts, **more)
        return self.deliver()

    # What there is at Mackerel.

    def set_status(self, service: str, status: str) -> None:
        """Somebody does it by hand."""
        self.client().set_statuses([self.host(service)["id"]], status)

    def host(self, service: str = "web-blue") -> dict[str, Any]:
        """The only host of an ECS service that is not retired."""
        [found] = [
            one.shown()
            for one in self.server.organization.live_hosts()
            if one.given["customIdentifier"] == custom_identifier(SITE, CLUSTER, service)
        ]
        return found

    def values(self, service: str = "web-blue", name: str = CPU) -> dict[int, float]:
        metrics = self.server.organization.hosts[self.host(service)["id"]].metrics
        return metrics[name].values if name in metrics else {}

    def service_values(self, name: str, service: str = "shop") -> dict[int, float]:
        return self.server.organization.services[service].metrics[name].values

    def waiting(self) -> int:
        return len(list(self.store.backlog(self.cluster)))

    def is_kept_by_another_version(self, key: str) -> None:
        """Something is in the backlog that this version cannot read."""
        clients.dynamodb().put_item(
            TableName=self.table,
            Item={
                "pk": {"S": f"backlog#{self.cluster}"},
                "sk": {"S": key},
                "body": {"B": zlib.compress(b'{"new": "shape"}')},
                "version": {"S": "1"},
            },
        )


@pytest.fixture
def scene(account: Account) -> Iterator[Scene]:
    del account  # moto is on
    clients.dynamodb.cache_clear()
    table = f"metrics-{next(_tables)}"
    clients.dynamodb().create_table(
        TableName=table,
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    delivery._graphs_posted.clear()
    with MackerelServer(api_key=KEY) as server:
        made = Scene(server, MetricsStore(clients.dynamodb(), table), table)
        server.clock = server.organization.clock = lambda: made.now
        yield made
    clients.dynamodb().delete_table(TableName=table)
    clients.dynamodb.cache_clear()


# ------------------------------------------------------------------------------------------ values


def test_a_batch_is_delivered_and_forgotten(scene: Scene) -> None:
    scene.keep(
        host("web-blue", values__a=1, values__b=2.5),
        host("web-green", "standby", values__a=3),
        services={"shop": {"ecs.web.cpu": 7.0}},
    )
    scene.now += 5
    assert scene.deliver() == Delivered(sent=4)
    assert scene.values("web-blue", "values.b") == {START: 2.5}
    assert scene.values("web-green", "values.a") == {START: 3}
    assert scene.service_values("ecs.web.cpu") == {START: 7}
    assert (scene.host("web-blue")["status"], scene.host("web-green")["status"]) == (
        "working",
        "standby",
    )
    assert scene.host()["roles"] == {"shop": ["web"]}
    assert scene.waiting() == 0


def test_nothing_waiting_is_nothing_to_do(scene: Scene) -> None:
    assert scene.deliver() == Delivered()
    assert scene.server.requests() == []


def test_a_usual_minute_needs_two_requests(scene: Scene) -> None:
    hosts = [host(f"s{number}") for number in range(20)]
    services = {"shop": {"ecs.web.cpu": 1.0, "ecs.web.memory": 2.0}}
    scene.minute(*hosts, services=services)
    scene.server.forget_requests()
    assert scene.minute(*hosts, services=services).sent == 22
    assert scene.server.counts() == {
        "POST /api/v0/tsdb": 1,
        "POST /api/v0/services/<service>/tsdb": 1,
    }


@pytest.mark.parametrize("fault", ["outage", "refused", "throttle", "wrong_key"])
def test_an_hour_without_mackerel_leaves_no_gap(scene: Scene, fault: Any) -> None:
    def minute(number: int) -> Delivered:
        services = {"shop": {"ecs.web.cpu": float(number)}}
        return scene.minute(
            host("web-blue", values__n=number),
            host("web-green", "standby", values__n=-number),
            services=services,
        )

    minute(0)
    scene.server.turn_on(Fault(fault))
    for number in range(1, 61):
        delivered = minute(number)
        # The hosts' values of each minute and the services' wait, each for itself.
        assert (delivered.sent, delivered.kept, delivered.dropped_old) == (0, 2 * number, 0)
        assert delivered.oldest_seconds == pytest.approx(60 * (number - 1), abs=30)
        assert 1 <= len(delivered.problems) <= 2
        assert all("kept" in problem for problem in delivered.problems)
        assert KEY not in str(delivered.problems)
    scene.server.turn_off()
    scene.server.forget_requests()
    delivered = minute(61)

    assert (delivered.sent, delivered.kept, delivered.oldest_seconds) == (61 * 3, 0, 0)
    every = {START + 60 * (number + 1): number for number in range(62)}
    assert scene.values("web-blue", "values.n") == every
    assert scene.values("web-green", "values.n") == {at: -value for at, value in every.items()}
    assert scene.service_values("ecs.web.cpu") == every
    # The order: oldest first, newest last; and a service is posted once, not 61 times.
    for endpoint in ("POST /api/v0/tsdb", "POST /api/v0/services/<service>/tsdb"):
        times = [at for one in scene.server.requests(endpoint) for at in one.times or ()]
        assert times == sorted(times)
    assert scene.server.counts()["POST /api/v0/services/<service>/tsdb"] == 1
    assert len(scene.server.organization.hosts) == 2
    assert delivered.problems == []


def test_an_outage_in_the_middle_keeps_the_rest(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_VALUES_PER_GROUP", 2)
    for number in range(6):
        scene.keep(host(values__n=number), minute=START + 60 * number)
    scene.now = START + 300
    scene.server.turn_on(Fault("outage", endpoint="POST /api/v0/tsdb"))
    client = scene.client()

    def after_two_posts() -> float:
        if (
            len([one for one in scene.server.requests("POST /api/v0/tsdb") if one.status == 200])
            == 1
        ):
            scene.server.turn_on(Fault("outage"))
        return 60.0

    scene.server.turn_off()
    delivered = scene.deliver(client, after_two_posts)
    assert (delivered.sent, delivered.kept) == (2, 4)
    assert list(scene.values(name="values.n")) == [START, START + 60]
    scene.server.turn_off()
    assert scene.deliver().sent == 4
    assert list(scene.values(name="values.n")) == [START + 60 * number for number in range(6)]


def test_what_there_is_no_time_for_is_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_VALUES_PER_GROUP", 1)
    for number in range(5):
        scene.keep(host(values__n=number), minute=START + 60 * number)
    scene.now = START + 300
    delivered = scene.deliver(
        seconds_left=lambda: 60 - 22 * len(scene.server.requests("POST /api/v0/tsdb"))
    )
    assert (delivered.sent, delivered.kept) == (2, 3)
    assert delivered.oldest_seconds == pytest.approx(180, abs=30)
    assert delivered.problems == ["the time of this run is up; the rest is kept"]
    assert scene.deliver().sent == 3
    assert len(scene.values(name="values.n")) == 5


def test_values_older_than_a_day_are_dropped_and_counted(scene: Scene) -> None:
    scene.now = START + DAY + 600
    for number in range(20):
        scene.keep(host(values__n=number, values__m=0), minute=START + 60 * number)
    delivered = scene.deliver()
    # Up to the minute that could be too old on its way.
    assert (delivered.dropped_old, delivered.sent) == (24, 16)
    assert delivered.problems == [
        "24 values of 12 minute(s) were older than 24 h, which Mackerel does not record: dropped"
    ]
    assert scene.waiting() == 0
    assert min(scene.values(name="values.n")) == START + 720
    assert scene.server.organization.dropped_old == 0


def test_bad_values_cost_only_themselves_and_are_counted(scene: Scene) -> None:
    good = {f"custom.m.v{number}": float(number) for number in range(3000)}
    bad = {"custom.nan": math.nan, "custom." + "x" * 300: 1.0, "custom.ä": 2.0}
    scene.keep(replace(host(), values=good | bad), services={"shop": {"ecs.inf": math.inf, "a": 1}})
    delivered = scene.deliver()
    assert (delivered.sent, delivered.refused) == (3001, 4)
    assert len(delivered.problems) == 4
    assert scene.waiting() == 0


def test_a_wrong_key_is_a_clear_problem_and_loses_nothing(scene: Scene) -> None:
    scene.keep(host())
    delivered = scene.deliver(scene.client("another key".replace(" ", "-")))
    assert (delivered.sent, delivered.kept) == (0, 1)
    [problem] = delivered.problems
    assert problem.startswith("Mackerel does not accept the API key; everything is kept: ")
    assert "401 Authentication failed" in problem
    assert scene.deliver().sent == 1


def test_a_clock_that_differs_from_mackerels_is_told(scene: Scene) -> None:
    scene.keep(host())
    scene.server.clock = lambda: scene.now + 600
    delivered = scene.deliver()
    assert delivered.sent == 1
    [problem] = delivered.problems
    assert problem.startswith("Mackerel's clock is +600 s from the one here")


def test_a_day_is_counted_by_mackerels_clock(scene: Scene) -> None:
    scene.keep(host(), minute=START - DAY + 3600)
    scene.server.clock = scene.server.organization.clock = lambda: scene.now + 2 * HOUR
    client = scene.client()
    client.host("unknown")
    delivered = scene.deliver(client)
    assert (delivered.sent, delivered.dropped_old) == (0, 1)
    assert scene.server.organization.dropped_old == 0


def test_a_minute_in_the_future_waits_and_is_told(scene: Scene) -> None:
    scene.keep(host(values__n=1))
    scene.keep(host(values__n=2), minute=START + 2 * HOUR)
    delivered = scene.deliver()
    assert (delivered.sent, delivered.kept) == (1, 1)
    assert "in the future" in delivered.problems[0]
    assert scene.values(name="values.n") == {START: 1}
    scene.now += 2 * HOUR
    assert scene.deliver().sent == 1


def test_what_cannot_be_read_is_lost_and_keeps_nothing_waiting(scene: Scene) -> None:
    for kind in ("000", "services", "annotation#web-v1"):
        scene.is_kept_by_another_version(f"{START - 60:012d}#{kind}")
    scene.keep(host())
    delivered = scene.deliver()
    assert (delivered.sent, delivered.refused, delivered.kept) == (1, 3, 0)
    assert len(delivered.problems) == 3
    assert all("cannot be read, and is lost" in problem for problem in delivered.problems)


# ---------------------------------------------------------------------------- a slow Mackerel


def test_a_backlog_gets_shorter_with_each_run_however_slow_mackerel_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 s a request and 50 s a run, in small: a minute has three requests of values."""
    monkeypatch.setattr(delivery, "_VALUES_PER_GROUP", 12)
    monkeypatch.setattr("containermetrics.mackerel._VALUES_PER_REQUEST", 4)

    def keep(number: int) -> None:
        values = {f"values.n{metric}": float(number) for metric in range(12)}
        scene.keep(
            replace(host(), values=values),
            minute=START + 60 * number,
            services={"shop": {"ecs.cpu.web": float(number)}},
        )

    scene.minute(host())
    for number in range(2, 62):
        keep(number)
    waiting, number = [scene.waiting()], 62
    while waiting[-1] and number < 140:
        scene.now = START + 60 * number
        keep(number)
        scene.server.forget_requests()
        scene.deliver(seconds_left=lambda: 50 - 3 * len(scene.server.requests()))
        requests = scene.server.counts()
        assert requests["POST /api/v0/services/<service>/tsdb"] == 1
        assert sum(requests.values()) <= 50 / 3
        waiting.append(scene.waiting())
        number += 1
    assert waiting == sorted(waiting, reverse=True)
    assert len(set(waiting)) == len(waiting)
    assert waiting[-1] == 0
    every = {START + 60 * minute: minute for minute in range(2, number)}
    assert scene.values(name="values.n11") == every
    assert scene.service_values("ecs.cpu.web") == every


def test_what_was_taken_before_an_outage_is_counted_and_not_sent_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("containermetrics.mackerel._VALUES_PER_REQUEST", 2)
    scene.minute(host())
    for number in range(2, 8):
        scene.keep(host(values__n=number), minute=START + 60 * number)
    scene.now = START + 420
    scene.server.forget_requests()
    post = scene.server.organization.take_host_values
    posts = itertools.count(1)

    def then_an_outage(values: list[dict[str, Any]]) -> None:
        post(values)
        if next(posts) == 2:
            scene.server.turn_on(Fault("outage"))

    monkeypatch.setattr(scene.server.organization, "take_host_values", then_an_outage)
    delivered = scene.deliver()
    assert (delivered.sent, delivered.kept) == (4, 2)
    scene.server.turn_off()
    assert scene.deliver().sent == 2
    assert scene.values(name="values.n") == {START + 60 * n: n for n in range(2, 8)}


def test_what_still_waits_is_not_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_VALUES_PER_GROUP", 1)
    for number in range(30):
        scene.keep(host(values__n=number), minute=START + 60 * number)
    scene.now = START + 1800
    read: list[str] = []
    backlog = scene.store.backlog

    def noted(cluster: str) -> Iterator[Kept]:
        for kept in backlog(cluster):
            read.append(kept.key)
            yield kept

    monkeypatch.setattr(scene.store, "backlog", noted)
    delivered = scene.deliver(
        seconds_left=lambda: 60 - 22 * len(scene.server.requests("POST /api/v0/tsdb"))
    )
    assert (delivered.sent, delivered.kept) == (2, 28)
    assert len(read) <= 4


# -------------------------------------------------------- services that others post, too


SERVICE_POST = "POST /api/v0/services"


def test_a_service_posted_too_often_holds_up_nothing_else(scene: Scene) -> None:
    def minute(number: int) -> Delivered:
        blue, green = ("working", "standby") if number % 2 else ("standby", "working")
        return scene.minute(
            host("web-blue", blue, values__n=number),  # type: ignore[arg-type]
            host("web-green", green, values__n=number),  # type: ignore[arg-type]
            services={"shop": {"ecs.cpu.web": float(number)}},
        )

    minute(0)
    scene.minute(host("web-blue"), host("web-green"), host("web-old"))
    scene.server.turn_on(Fault("throttle", endpoint=SERVICE_POST))
    for number in range(2, 8):
        scene.server.forget_requests()
        delivered = minute(number)
        assert (delivered.sent, delivered.kept, delivered.problems) == (2, number - 1, [])
        assert scene.server.counts()[f"{SERVICE_POST}/<service>/tsdb"] == 1
        live = "web-blue" if number % 2 else "web-green"
        assert scene.host(live)["status"] == "working"
        assert scene.values("web-blue", "values.n")[int(scene.now)] == number
    assert not [
        one for one in scene.server.organization.live_hosts() if one.given["name"] == "web-old"
    ]
    scene.server.turn_off()
    scene.server.forget_requests()
    assert minute(8).kept == 0
    assert scene.server.counts()[f"{SERVICE_POST}/<service>/tsdb"] == 1
    every = {START + 60 * (n + 1): n for n in (0, *range(2, 9))}
    assert scene.service_values("ecs.cpu.web") == every


def test_a_service_that_waits_for_long_is_told(scene: Scene) -> None:
    services = {"shop": {"ecs.cpu.web": 1.0}}
    scene.minute(services=services)
    scene.server.turn_on(Fault("throttle", endpoint=SERVICE_POST))
    problems = [scene.minute(services=services).problems for _ in range(12)]
    assert problems[:9] == [[]] * 9
    [problem] = problems[-1]
    assert problem.startswith("values of the service shop wait for ")


def test_a_service_gets_no_more_in_a_run_than_one_request_may_bring(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_VALUES_PER_SERVICE_POST", 5)
    for number in range(1, 6):
        values = {f"ecs.m{metric}": float(number) for metric in range(2)}
        scene.keep(minute=START + 60 * number, services={"shop": values})
    scene.now = START + 300
    sent = []
    while scene.waiting():
        scene.now += 60
        sent.append(scene.deliver().sent)
    assert sent == [4, 4, 2]
    # A minute that is too much alone goes alone.
    many = {"shop": {f"ecs.m{metric}": 0.0 for metric in range(7)}}
    assert [scene.minute(services=many).sent for _ in range(2)] == [7, 7]


def test_hosts_that_fail_keep_no_service_from_its_values(scene: Scene) -> None:
    scene.minute(host(values__n=0), services={"shop": {"ecs.cpu.web": 0.0}})
    scene.server.turn_on(Fault("outage", endpoint="POST /api/v0/tsdb"))
    for number in range(1, 5):
        delivered = scene.minute(
            host(values__n=number), services={"shop": {"ecs.cpu.web": float(number)}}
        )
        assert (delivered.sent, delivered.kept) == (1, number)
    every = {START + 60 * (number + 1): number for number in range(5)}
    assert scene.service_values("ecs.cpu.web") == every
    scene.server.turn_off()
    scene.deliver()
    assert scene.values(name="values.n") == every


@pytest.mark.parametrize("seconds", [(0, 0, 0), (0, 1, 2), (40, 20, 0)])
def test_clusters_that_share_a_service_take_turns_and_lose_nothing(
    scene: Scene, seconds: tuple[int, ...]
) -> None:
    """seconds: after the minute, at which each cluster delivers. Mackerel takes one post a minute.

    Whoever is the first in a minute would otherwise be the first in all of them.
    """
    clusters = [scene, scene.beside("api"), scene.beside("jobs")]
    behind: list[float] = []

    def run(number: int, *, more: bool = True) -> None:
        for after, one in sorted(zip(seconds, clusters, strict=True), key=lambda pair: pair[0]):
            scene.now = one.now = START + 60 * number + after
            status: HostStatus = "standby" if number % 2 else "working"
            if more:
                one.keep(
                    replace(
                        host("web-blue", status, values__n=number),
                        custom_identifier=one.cluster,
                    ),
                    services={"shop": {f"ecs.cpu.{one.cluster}": float(number)}},
                )
            delivered = one.deliver()
            assert delivered.problems == []
            behind.append(delivered.oldest_seconds)
            found = scene.server.organization.with_identifier(one.cluster)
            assert found is not None
            assert found.status == status or not more
            assert not more or found.metrics["values.n"].latest()["value"] == number

    for number in range(1, 11):
        run(number)
    posts = [one for one in scene.server.requests(SERVICE_POST) if one.status == 200]
    # Each cluster has had its turns, none of them far behind the others.
    assert 5 <= len([one for one in posts if one.path.endswith("/tsdb")]) <= 10
    assert max(behind) <= 6 * 60
    for number in range(11, 17):
        run(number, more=False)
    assert all(one.waiting() == 0 for one in clusters)
    every = {START + 60 * number: number for number in range(1, 11)}
    for one in clusters:
        assert scene.service_values(f"ecs.cpu.{one.cluster}") == every


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({}, True),
        ({"web": Place(100, 160)}, True),
        # Who has just posted, or comes later, lets the others.
        ({"api": Place(100, 160)}, False),
        ({"web": Place(90, 160), "api": Place(100, 160)}, True),
        ({"web": Place(110, 160), "api": Place(100, 160)}, False),
        # At the same moment: one of them.
        ({"web": Place(100, 160), "api": Place(100, 160)}, False),
        # It has not come back.
        ({"web": Place(110, 160), "api": Place(0, 40)}, True),
        ({"api": Place(0, 40)}, True),
    ],
)
def test_who_has_waited_longest_is_next(line: Mapping[str, Place], expected: bool) -> None:
    assert is_next("web", line, now=200) is expected


# ----------------------------------------------------------------------------------- two at a time


def test_two_overlapping_deliveries_do_no_harm(scene: Scene) -> None:
    scene.minute(host(values__n=0))
    for number in range(1, 31):
        scene.keep(host(values__n=number), minute=START + 60 + 60 * number)
    scene.now += 30 * 60
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: scene.deliver(scene.client()), range(2)))
    assert sum(result.sent for result in results) >= 30
    assert all(result.problems == [] for result in results)
    assert scene.values(name="values.n") == {START + 60 + 60 * n: n for n in range(31)}
    assert scene.waiting() == 0
    assert len(scene.server.organization.hosts) == 1


def test_two_racing_deliveries_make_each_host_once(scene: Scene) -> None:
    scene.server._creation_seconds = 0.2
    scene.keep(host("web-blue"), host("web-green", "standby"))
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: scene.deliver(scene.client()), range(3)))
    assert len(scene.server.organization.hosts) == 2
    problems = [problem for result in results for problem in result.problems]
    assert all("are being made by another run" in problem for problem in problems)
    scene.deliver()
    assert scene.values("web-blue") == scene.values("web-green") == {START: 1}
    assert scene.waiting() == 0


def test_who_loses_the_claim_leaves_the_values_in_the_backlog(scene: Scene) -> None:
    identifier = custom_identifier(SITE, CLUSTER, "web-blue")
    assert scene.store.claim_creation(identifier, scene.now)
    scene.keep(host("web-blue", values__n=1), host("web-green", values__n=1))
    delivered = scene.deliver()
    assert delivered.kept == 1
    [problem] = delivered.problems
    assert problem.startswith("1 host(s) are being made by another run")
    assert problem.endswith(identifier)
    assert scene.values("web-green", "values.n") == {START: 1}
    # The other run has died; its claim lapses.
    scene.now += 61
    assert scene.deliver().kept == 0
    assert scene.values("web-blue", "values.n") == {START: 1}
    assert len(scene.server.organization.hosts) == 2


def test_a_host_that_was_made_between_the_look_and_the_claim_is_found(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody_was_quicker(identifier: str, _now: float) -> bool:
        scene.client().create_host("web-blue", identifier)
        return True

    monkeypatch.setattr(scene.store, "claim_creation", somebody_was_quicker)
    assert scene.minute(host()).problems == []
    assert len(scene.server.organization.hosts) == 1
    assert scene.values() == {START + 60: 1}


def test_a_host_that_was_made_without_an_answer_is_found(scene: Scene) -> None:
    scene.server.turn_on(Fault("lost_answer", times=1, endpoint="POST /api/v0/hosts"))
    scene.keep(host())
    assert scene.deliver().kept == 1
    assert scene.deliver().kept == 0
    assert len(scene.server.organization.hosts) == 1


# ------------------------------------------------------------------------------------------- hosts


def test_a_host_that_somebody_else_has_made_is_used_with_its_roles(scene: Scene) -> None:
    made = scene.client().create_host(
        "by hand", custom_identifier(SITE, CLUSTER, "web-blue"), ["aa:ops"]
    )
    scene.set_status("web-blue", "maintenance")
    scene.minute(host())
    found = scene.host()
    assert (found["id"], found["status"]) == (made, "working")
    assert found["roles"] == {"aa": ["ops"], "shop": ["web"]}
    assert scene.values() == {START + 60: 1}


def test_the_status_follows_the_live_colour(scene: Scene) -> None:
    def statuses() -> tuple[str, str]:
        return scene.host("web-blue")["status"], scene.host("web-green")["status"]

    scene.minute(host("web-blue", "working"), host("web-green", "poweroff"))
    assert statuses() == ("working", "poweroff")
    scene.minute(host("web-blue", "working"), host("web-green", "standby"))
    assert statuses() == ("working", "standby")
    scene.minute(host("web-blue", "standby"), host("web-green", "working"))
    assert statuses() == ("standby", "working")
    scene.minute(host("web-blue", None), host("web-green", None))
    assert statuses() == ("standby", "working")


def test_a_status_that_does_not_change_is_not_set_again(scene: Scene) -> None:
    scene.minute(host("web-blue", "standby"))
    scene.set_status("web-blue", "maintenance")
    scene.server.forget_requests()
    scene.minute(host("web-blue", "standby"))
    assert set(scene.server.counts()) == {"POST /api/v0/tsdb"}
    assert scene.host()["status"] == "maintenance"


def test_many_statuses_change_with_few_requests(scene: Scene) -> None:
    names = [f"s{number}" for number in range(65)]
    scene.minute(*(host(name, "working") for name in names))
    gone = scene.host("s40")["id"]
    scene.client().retire_host(gone)
    scene.now += 60
    scene.server.forget_requests()
    scene.minute(*(host(name, "standby") for name in names))
    hosts = scene.server.organization.live_hosts()
    assert {one.status for one in hosts} == {"standby"}
    assert len(hosts) == 65
    assert scene.server.counts()["POST /api/v0/hosts/bulk-update-statuses"] == 3


def test_a_host_retired_by_hand_keeps_no_other_from_its_status(scene: Scene) -> None:
    """It has no values in this minute by which it would be missed before."""
    blue, green = replace(host("web-blue"), values={}), replace(host("web-green"), values={})
    scene.minute(blue, green)
    scene.client().retire_host(scene.host("web-green")["id"])
    [problem] = scene.minute(
        replace(blue, status="standby"), replace(green, status="standby")
    ).problems
    assert "404" in problem
    assert scene.host("web-blue")["status"] == "standby"
    scene.now += 60
    scene.minute(replace(blue, status="standby"), replace(green, status="standby"))
    assert scene.host("web-green")["status"] == "standby"


def test_only_the_newest_batch_says_the_status(scene: Scene) -> None:
    scene.minute(host("web-blue", "working"))
    scene.server.forget_requests()
    for minute, status in ((120, "standby"), (180, "poweroff"), (240, "standby")):
        scene.keep(host("web-blue", status), minute=START + minute)  # type: ignore[arg-type]
    scene.now = START + 240
    scene.deliver()
    assert scene.host()["status"] == "standby"
    assert scene.server.counts()["POST /api/v0/hosts/bulk-update-statuses"] == 1


def test_a_late_batch_sets_no_status_back(scene: Scene) -> None:
    scene.minute(host("web-blue", "standby"))
    scene.now += 60
    scene.minute(host("web-blue", "working"))
    scene.keep(host("web-blue", "standby", values__n=1), minute=scene.now - 60)
    assert scene.deliver().sent == 1
    assert scene.host()["status"] == "working"


def test_the_role_follows_the_configuration_and_roles_of_others_stay(scene: Scene) -> None:
    scene.minute(host(role="shop:web"))
    scene.client().create_role("shop", "by-hand")
    scene.client().set_roles(scene.host()["id"], ["shop:web", "shop:by-hand"])
    assert scene.minute(host(role="mall:front")).problems == []
    assert scene.host()["roles"] == {"mall": ["front"], "shop": ["by-hand"]}
    scene.server.forget_requests()
    scene.minute(host(role="mall:front"))
    assert set(scene.server.counts()) == {"POST /api/v0/tsdb"}


def test_a_role_that_mackerel_refuses_costs_only_itself(scene: Scene) -> None:
    delivered = scene.minute(host("web-blue", role="shop:-web"), host("web-green"))
    assert (delivered.sent, delivered.refused, delivered.kept) == (2, 0, 0)
    assert any("shop:-web" in problem for problem in delivered.problems)
    assert scene.values("web-blue") == scene.values("web-green") == {START + 60: 1}
    assert scene.host("web-blue")["roles"] == {}

    # And later: a role that became wrong.
    delivered = scene.minute(host("web-blue"), host("web-green", role="shop:x y"))
    assert delivered.sent == 2
    assert any("shop:x y" in problem for problem in delivered.problems)
    assert scene.host("web-blue")["roles"] == {"shop": ["web"]}
    assert scene.host("web-green")["roles"] == {"shop": ["web"]}


def test_a_host_that_mackerel_refuses_costs_only_itself(scene: Scene) -> None:
    nameless = replace(host("web-blue"), name="")
    delivered = scene.minute(nameless, host("web-green"))
    assert (delivered.sent, delivered.refused) == (1, 1)
    assert scene.waiting() == 0
    assert any("web-blue" in problem for problem in delivered.problems)


def test_a_host_without_a_role_gets_and_loses_one(scene: Scene) -> None:
    assert scene.minute(host(role="")).problems == []
    assert scene.host()["roles"] == {}
    scene.minute(host(role="shop:web"))
    assert scene.host()["roles"] == {"shop": ["web"]}
    assert scene.minute(host(role="")).problems == []
    assert scene.host()["roles"] == {}


def test_an_address_that_is_not_mackerels_api_loses_nothing(scene: Scene) -> None:
    """Its calls are 404 there, and 404 is also what an unknown host is."""
    scene.keep(host())
    wrong = Mackerel(f"{scene.server.url}/api/v0", KEY, "1", clock=lambda: scene.now)
    delivered = scene.deliver(wrong)
    assert (delivered.refused, delivered.kept) == (0, 1)
    assert "not available" in delivered.problems[0]
    scene.now += 120
    assert scene.deliver().sent == 1


def test_a_host_that_was_retired_by_hand_is_made_again(scene: Scene) -> None:
    scene.minute(host("web-blue", values__n=1), host("web-green", values__n=1))
    first = scene.host("web-blue")["id"]
    scene.client().retire_host(first)
    # The claim of its first creation is over.
    scene.now += 60
    delivered = scene.minute(host("web-blue", values__n=2), host("web-green", values__n=2))
    assert (delivered.sent, delivered.refused, delivered.kept) == (2, 0, 0)
    assert "no longer knows" in delivered.problems[0]
    assert scene.host("web-blue")["id"] != first
    assert scene.values("web-blue", "values.n") == {scene.now: 2}
    assert scene.minute(host("web-blue"), host("web-green")).problems == []
    assert len(scene.server.organization.hosts) == 3


def test_a_host_retired_by_hand_within_its_first_minute_loses_nothing(scene: Scene) -> None:
    scene.minute(host(values__n=1))
    scene.client().retire_host(scene.host()["id"])
    scene.keep(host(values__n=2), minute=scene.now)
    assert scene.deliver().kept == 1
    scene.now += 120
    assert scene.deliver().kept == 0
    assert scene.values(name="values.n") == {START + 60: 2}


def test_hosts_of_services_that_are_gone_are_retired_after_some_runs(scene: Scene) -> None:
    blue, green = host("web-blue"), host("web-green")
    scene.minute(blue, green)
    old = scene.host("web-green")["id"]
    scene.minute(blue)
    scene.minute(blue)
    scene.minute(blue, green)  # it was there again: counting begins anew
    scene.minute(blue)
    scene.minute(blue)
    assert scene.host("web-green")["id"] == old
    scene.minute(blue)
    assert scene.server.organization.hosts[old].retired_at
    assert scene.host("web-blue")["isRetired"] is False
    assert set(scene.store.known_hosts(CLUSTER)) == {custom_identifier(SITE, CLUSTER, "web-blue")}
    # Its values can still be read, and a service of that name gets a host of its own.
    assert scene.server.organization.hosts[old].metrics[CPU].values
    scene.minute(blue, green)
    assert scene.host("web-green")["id"] != old


def test_a_host_that_somebody_was_quicker_to_retire_is_forgotten(scene: Scene) -> None:
    scene.minute(host("web-blue"), host("web-green"))
    scene.client().retire_host(scene.host("web-green")["id"])
    problems = [scene.minute(host("web-blue")).problems for _ in range(3)]
    assert problems == [[], [], []]
    assert set(scene.store.known_hosts(CLUSTER)) == {custom_identifier(SITE, CLUSTER, "web-blue")}


def test_a_late_batch_counts_no_absence(scene: Scene) -> None:
    scene.minute(host("web-blue"))
    scene.now += 60
    scene.minute(host("web-blue"), host("web-green"))
    for _ in range(5):
        scene.keep(host("web-blue"), minute=scene.now - 60)
        assert scene.deliver(retire_after=1).sent == 1
    assert len(scene.server.organization.live_hosts()) == 2


@pytest.mark.parametrize("retire_after", [1, 5])
def test_a_minute_of_which_a_part_was_sent_before_counts_no_absence(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, retire_after: int
) -> None:
    monkeypatch.setattr("containermetrics.store._VALUES_PER_PART", 1)
    both = (host("web-blue"), host("web-green"))
    assert scene.minute(*both).sent == 2
    scene.now += 60
    scene.keep(*both)
    scene.store.forget(CLUSTER, next(iter(scene.store.backlog(CLUSTER))))
    assert scene.deliver(retire_after=retire_after).sent == 1
    assert len(scene.server.organization.live_hosts()) == 2
    assert {known.absences for known in scene.store.known_hosts(CLUSTER).values()} == {0}


def test_an_outage_retires_nobody(scene: Scene) -> None:
    scene.minute(host("web-blue"), host("web-green"))
    scene.server.turn_on(Fault("outage"))
    for _ in range(5):
        scene.minute(host("web-blue"), host("web-green"))
    for _ in range(5):
        scene.deliver()
    scene.server.turn_off()
    scene.deliver()
    assert len(scene.server.organization.live_hosts()) == 2


def test_a_minute_without_any_host_counts_no_absence(scene: Scene) -> None:
    """It says more about who looked than about all services at once."""
    scene.minute(host("web-blue"), host("web-green"))
    for _ in range(5):
        scene.minute(services={"shop": {"ecs.running_tasks.web": 0.0}})
    assert len(scene.server.organization.live_hosts()) == 2
    assert {known.absences for known in scene.store.known_hosts(CLUSTER).values()} == {0}


def test_a_minute_counts_one_absence_however_often_it_comes(scene: Scene) -> None:
    scene.minute(host("web-blue"), host("web-green"))
    scene.minute(host("web-blue"))
    for _ in range(5):
        # Read once more from the log, or delivered twice.
        scene.keep(host("web-blue"))
        scene.deliver()
    green = custom_identifier(SITE, CLUSTER, "web-green")
    assert scene.store.known_hosts(CLUSTER)[green].absences == 1
    assert len(scene.server.organization.live_hosts()) == 2


# --------------------------------------------------------------------------------- graphs, services


def test_graphs_are_defined_and_every_hour_again(scene: Scene) -> None:
    scene.minute(host())
    names = {definition["name"] for definition in DEFINITIONS}
    assert set(scene.server.graph_definitions()) == names
    for _ in range(58):
        scene.minute(host())
    assert scene.server.counts()["POST /api/v0/graph-defs/create"] == 1
    for _ in range(3):
        scene.minute(host())
    assert scene.server.counts()["POST /api/v0/graph-defs/create"] == 2


def test_graphs_of_plugins_are_defined_when_they_come(scene: Scene) -> None:
    name = "custom.memcached.cmd"
    graph = {"name": name, "unit": "integer", "metrics": [{"name": f"{name}.cmd_get"}]}
    wrong = {"name": "memcached", "unit": "integer", "metrics": []}
    scene.minute(host())
    delivered = scene.minute(host(), graphs=[graph, wrong])
    assert name in scene.server.graph_definitions()
    assert [problem for problem in delivered.problems if "graph memcached" in problem]
    before = scene.server.counts()["POST /api/v0/graph-defs/create"]
    scene.minute(host(), graphs=[graph, wrong])
    assert scene.server.counts()["POST /api/v0/graph-defs/create"] == before
    scene.minute(host(), graphs=[{**graph, "displayName": "new"}])
    assert scene.server.graph_definitions()[name]["displayName"] == "new"


def test_a_missing_service_is_made_for_its_values(scene: Scene) -> None:
    delivered = scene.minute(services={"mall": {"ecs.web.cpu": 1.0}})
    assert (delivered.sent, delivered.problems) == (1, [])
    assert scene.service_values("ecs.web.cpu", "mall") == {START + 60: 1}


def test_a_service_with_an_impossible_name_costs_only_itself(scene: Scene) -> None:
    delivered = scene.minute(host(), services={"x y": {"a": 1.0}, "shop": {"a": 2.0}})
    assert (delivered.sent, delivered.refused, delivered.kept) == (2, 1, 0)
    assert any("service x y" in problem for problem in delivered.problems)


# ----------------------------------------------------------------------------------- annotations


def annotation(key: str = "web-v2", **more: Any) -> Annotation:
    given: dict[str, Any] = {
        "key": key,
        "title": "web: blue → green, succeeded",
        "description": f"deployment {key}\nhttps://example.com/{key}",
        "from_": START,
        "to": START + 90,
        "service": "shop",
        "roles": ["web"],
    }
    return Annotation(**(given | more))


def in_graphs(scene: Scene) -> list[Mapping[str, Any]]:
    return list(scene.server.organization.annotations.values())


def test_a_deployment_is_annotated_once(scene: Scene) -> None:
    scene.minute(host())
    scene.store.keep_annotation(CLUSTER, annotation())
    scene.deliver()
    scene.store.keep_annotation(CLUSTER, annotation())
    assert scene.deliver() == Delivered()
    [found] = in_graphs(scene)
    assert (found["from"], found["to"], found["roles"]) == (START, START + 90, ["web"])
    assert "web-v2" in found["description"]


def test_another_deployment_with_a_longer_name_is_another_annotation(scene: Scene) -> None:
    scene.minute(host())
    scene.store.keep_annotation(CLUSTER, annotation("web-v21"))
    scene.deliver()
    scene.store.keep_annotation(CLUSTER, annotation("web-v2"))
    scene.deliver()
    assert len(in_graphs(scene)) == 2


def test_an_annotation_is_changed_when_the_deployment_ended_otherwise(scene: Scene) -> None:
    scene.minute(host())
    scene.store.keep_annotation(CLUSTER, annotation())
    scene.deliver()
    scene.store.keep_annotation(CLUSTER, annotation(title="web: rolled back", to=START + 200))
    scene.deliver()
    [found] = in_graphs(scene)
    assert (found["title"], found["to"]) == ("web: rolled back", START + 200)


@pytest.mark.parametrize("fault", ["lost_answer", "outage"])
def test_a_failed_annotation_is_tried_again_and_never_twice(scene: Scene, fault: Any) -> None:
    scene.minute(host())
    scene.store.keep_annotation(CLUSTER, annotation())
    endpoint = "POST /api/v0/graph-annotations"
    scene.server.turn_on(Fault(fault, endpoint=endpoint))
    assert scene.deliver().kept == 1
    scene.server.turn_off()
    scene.now += 120
    scene.deliver()
    assert len(in_graphs(scene)) == 1
    assert scene.waiting() == 0


def test_a_deployment_is_annotated_in_each_service_of_mackerel(scene: Scene) -> None:
    """Two clusters, say, whose metrics belong to two services; and within the same minute."""
    other = scene.beside("api")
    scene.minute(host())
    other.now = scene.now
    scene.store.keep_annotation(CLUSTER, annotation(roles=[]))
    other.store.keep_annotation("api", annotation(service="mall", roles=[]))
    assert scene.deliver().kept == other.deliver().kept == 0
    assert {one["service"] for one in in_graphs(scene)} == {"shop", "mall"}


def test_an_annotation_that_fails_keeps_no_values_waiting(scene: Scene) -> None:
    scene.minute(host())
    scene.store.keep_annotation(CLUSTER, annotation(to=START))
    scene.server.turn_on(Fault("outage", endpoint="POST /api/v0/graph-annotations"))
    delivered = scene.minute(host(), services={"shop": {"ecs.cpu.web": 1.0}})
    assert (delivered.sent, delivered.kept) == (2, 1)
    assert len(delivered.problems) == 1


def test_two_deliveries_at_a_time_annotate_once(scene: Scene) -> None:
    scene.minute(host())
    scene.store.keep_annotation(CLUSTER, annotation())
    slow = Fault("slow", seconds=0.2, endpoint="POST /api/v0/graph-annotations")
    scene.server.turn_on(slow)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: scene.deliver(scene.client()), range(3)))
    scene.deliver()
    assert len(in_graphs(scene)) == 1
    assert scene.waiting() == 0


def test_an_annotation_that_was_posted_between_the_look_and_the_claim_is_found(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.minute(host())

    def somebody_was_quicker(_key: str, _now: float) -> bool:
        scene.client().annotate(shape(annotation()))
        return True

    monkeypatch.setattr(scene.store, "claim_creation", somebody_was_quicker)
    scene.store.keep_annotation(CLUSTER, annotation())
    assert scene.deliver().problems == []
    assert len(in_graphs(scene)) == 1


def test_the_role_or_service_of_an_annotation_is_made_and_left_out_if_it_cannot_be(
    scene: Scene,
) -> None:
    scene.minute(host())
    scene.store.keep_annotation(CLUSTER, annotation("a", roles=["web", "new"]))
    scene.store.keep_annotation(CLUSTER, annotation("b", roles=["no role"]))
    scene.store.keep_annotation(CLUSTER, annotation("c", service="mall"))
    assert scene.deliver().problems == []
    assert [(one["service"], one.get("roles")) for one in in_graphs(scene)] == [
        ("shop", ["web", "new"]),
        ("shop", None),
        ("mall", ["web"]),
    ]


def test_a_long_annotation_is_cut_and_keeps_its_key(scene: Scene) -> None:
    scene.minute(host())
    long = annotation(title="t" * 400, description="d " * 900 + "\nweb-v2")
    scene.store.keep_annotation(CLUSTER, long)
    scene.deliver()
    scene.store.keep_annotation(CLUSTER, long)
    assert scene.deliver().problems == []
    [found] = in_graphs(scene)
    assert (len(found["title"]), len(found["description"])) == (250, 1024)
    assert found["description"].startswith("web-v2\n")


def test_a_refused_annotation_is_counted_and_keeps_nothing_waiting(scene: Scene) -> None:
    scene.store.keep_annotation(CLUSTER, annotation(to=START - 1))
    delivered = scene.minute(host())
    assert (delivered.sent, delivered.refused) == (1, 1)
    assert any("annotation of web-v2 refused" in problem for problem in delivered.problems)
    assert scene.waiting() == 0


# ------------------------------------------------------------------------------- the function


@pytest.fixture
def invoke(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], dict[str, float]]:
    """The function for this cluster; answers what it tells CloudWatch."""
    settings = {
        "METRICS_SITE": SITE,
        "METRICS_TABLE_NAME": scene.table,
        "METRICS_PARAMETER_PREFIX": "/metrics",
        "SERVICE_PARAMETER_PREFIX": "/services",
        "MACKEREL_URL": scene.server.url,
        "MACKEREL_KEY_PARAMETER": "/mackerel/key",
        "POWERTOOLS_SERVICE_NAME": "ecs-bluegreen",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name, text in {
        "/mackerel/key": KEY,
        f"/metrics/{CLUSTER}": json.dumps(
            {"cluster": CLUSTER, "source": "container-insights", "mackerel": {"service": "shop"}}
        ),
    }.items():
        clients.ssm().put_parameter(Name=name, Value=text, Type="String", Overwrite=True)
    clock = SimpleNamespace(time=lambda: scene.now)
    monkeypatch.setattr(deliver_container_metrics, "time", clock)
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
    mackerel.keys.cache_clear()

    def call() -> dict[str, float]:
        context: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)
        capsys.readouterr()
        event = {"Records": [{"body": json.dumps({"cluster": CLUSTER})}]}
        deliver_container_metrics.handler(event, context)
        lines = capsys.readouterr().out.splitlines()
        [told] = [json.loads(line) for line in lines if "CloudWatchMetrics" in line]
        return {name: value[0] for name, value in told.items() if name.startswith("Metric")}

    return call


def test_the_function_tells_cloudwatch_what_came_of_it(
    scene: Scene, invoke: Callable[[], dict[str, float]]
) -> None:
    nothing = {
        "MetricValuesSent": 0,
        "MetricValuesDropped": 0,
        "MetricValuesRefused": 0,
        "MetricProblems": 0,
        "MetricBatchesWaiting": 0,
        "MetricOldestWaitingSeconds": 0,
    }
    assert invoke() == nothing
    assert scene.store.take_delivered(CLUSTER) == {}

    scene.keep(host(values__a=1, values__b=2))
    scene.keep(host(values__a=1), minute=START - 2 * DAY)
    scene.is_kept_by_another_version(f"{START:012d}#annotation#a")
    told = invoke()
    assert told == nothing | {
        "MetricValuesSent": 2,
        "MetricValuesDropped": 1,
        "MetricValuesRefused": 1,
        "MetricProblems": 2,
    }
    scene.keep(host(values__a=1), minute=START + 60)
    scene.now += 60
    invoke()
    assert scene.store.take_delivered(CLUSTER) == {"sent": 3, "dropped": 1, "errors": 1}


@pytest.mark.parametrize("broken", ["key", "mackerel"])
def test_the_function_tells_how_long_the_oldest_minute_waits(
    scene: Scene, invoke: Callable[[], dict[str, float]], broken: str
) -> None:
    scene.minute(host())
    if broken == "mackerel":
        scene.server.turn_on(Fault("outage"))
    else:
        clients.ssm().delete_parameter(Name="/mackerel/key")
    scene.keep(host(), minute=scene.now - 600)
    scene.keep(host())
    told = invoke()
    assert told["MetricOldestWaitingSeconds"] == pytest.approx(600, abs=30)
    assert (told["MetricBatchesWaiting"], told["MetricProblems"]) == (2, 1)
    assert scene.store.take_delivered(CLUSTER) == {}


def test_a_cluster_whose_configuration_is_gone_is_left_alone(
    scene: Scene, invoke: Callable[[], dict[str, float]]
) -> None:
    clients.ssm().delete_parameter(Name=f"/metrics/{CLUSTER}")
    scene.keep(host())
    assert invoke()["MetricProblems"] == 0
    assert scene.server.requests() == []
