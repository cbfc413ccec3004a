from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from random import Random

import pytest

from containermetrics.model import Annotation, Batch, HostMetrics, Reading, Sample, Source
from containermetrics.store import MetricsStore, Part, Unreadable
from runtime import clients
from tests.functions.metrics_world import MetricsWorld

SOURCE = Source("task-1", "web-blue", "web", "1", "web")


def host(number: int, values: Mapping[str, float]) -> HostMetrics:
    return HostMetrics(f"host-{number}", f"host-{number}", "shop:web", "working", values)


def batch(minute: int, hosts: int = 1, value: float = 1.0) -> Batch:
    made = [host(number, {"custom.ecs.cpu.web.total": value}) for number in range(hosts)]
    return Batch("web", minute, made, {"shop": {"ecs.cpu.web": value}}, [{"name": "custom.m"}])


def values(found: Batch | Annotation | Unreadable) -> Mapping[str, float]:
    assert isinstance(found, Batch)
    return found.hosts[0].values


def test_the_backlog_comes_oldest_first_with_all_there_was(metrics: MetricsWorld) -> None:
    store = metrics.kept
    note = Annotation("d-1", "title", "text", 100, 150, "shop", ["web"])
    for minute in (180, 60, 120):
        store.keep(batch(minute))
    store.keep_annotation("web", note)

    found = list(store.backlog("web"))

    def halves(minute: int) -> list[Batch]:
        whole = batch(minute)
        return [replace(whole, services={}, graphs=()), replace(whole, hosts=[])]

    assert [kept.item for kept in found] == [*halves(60), *halves(120), note, *halves(180)]
    assert store.waiting("web") == 7


def test_a_batch_that_no_item_can_hold_is_kept_in_parts(metrics: MetricsWorld) -> None:
    store, chance = metrics.kept, Random(1)  # noqa: S311 - numbers, no secrets
    hosts = [
        host(n, {f"custom.ecs.cpu_max.web-{m}.total": chance.random() * 1e9 for m in range(200)})
        for n in range(300)
    ]
    store.keep(Batch("web", 60, hosts))

    parts = [kept.item for kept in store.backlog("web")]

    assert len(parts) > 3
    assert [one for part in parts if isinstance(part, Batch) for one in part.hosts] == hosts
    assert largest_item() < 400_000


def test_fifty_hosts_full_of_containers_are_kept_in_parts(metrics: MetricsWorld) -> None:
    """Every number another one, as in life: repetitions would compress to nothing."""
    store, chance = metrics.kept, Random(2)  # noqa: S311 - numbers, no secrets
    readings = [
        Reading(
            Source(f"{chance.getrandbits(128):032x}", "web-blue", "web", "17", f"c{n % 5}"),
            {f"memory_stat.some_key_{m}": chance.random() * 1e8 for m in range(120)},
        )
        for n in range(50 * 40)
    ]
    said = Part("0000", readings, [], [{"graphs": {}}], ["a problem"], 3)

    store.keep_part("web", 60, said, 60.0)

    found = store.parts("web", 60)
    assert largest_item() < 400_000
    kept = {one.source: one.values for part in found for one in part.readings}
    assert len(kept) == len(readings)
    for one in readings:
        assert kept[one.source] == pytest.approx(one.values)
    assert sum(part.hosts_missing for part in found) == 3
    assert [problem for part in found for problem in part.problems] == ["a problem"]


def largest_item() -> int:
    items = clients.dynamodb().scan(TableName="metrics")["Items"]
    return max(len(item["body"]["B"]) for item in items if "body" in item)


def test_a_batch_that_has_become_smaller_leaves_nothing_of_the_old_one(
    metrics: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("containermetrics.store._VALUES_PER_PART", 1)
    store = metrics.kept
    note = Annotation("d-1", "title", "text", 30, 60, "shop", [])
    store.keep(batch(60, hosts=4, value=1.0))
    store.keep_annotation("web", note)
    store.keep(replace(batch(60, hosts=2, value=2.0), services={}, graphs=[]))

    found = [kept.item for kept in store.backlog("web")]

    assert note in found
    hosts = [one for item in found if isinstance(item, Batch) for one in item.hosts]
    assert [one.values for one in hosts] == [{"custom.ecs.cpu.web.total": 2.0}] * 2
    assert len(found) == 3


def test_what_another_version_wrote_is_read_as_far_as_it_can_be(metrics: MetricsWorld) -> None:
    store = metrics.kept
    written = {
        "hosts": [{**asdict(host(0, {"a": 1.0})), "new": "field"}, asdict(host(1, {}))],
    }
    put(store, "backlog#web", "000000000060#000", written)
    put(store, "backlog#web", "000000000120#000", {"hosts": [{"name": "web"}]})
    put(store, "backlog#web", "000000000180#000", ["something"])
    put(store, "hosts#web", "host-0", {"id": "1", "status": "x", "role_fullname": "", "new": 1})

    first, second, third = (kept.item for kept in store.backlog("web"))

    assert isinstance(first, Batch)
    assert first.hosts == [host(0, {"a": 1.0}), host(1, {})]
    assert isinstance(second, Unreadable)
    assert "custom_identifier" in second.reason
    assert isinstance(third, Unreadable)
    assert store.known_hosts("web")["host-0"].id == "1"


def put(store: MetricsStore, pk: str, sk: str, body: object) -> None:
    store._put(pk, sk, body)


def test_what_deliveries_came_to_is_added_up_until_it_is_taken(metrics: MetricsWorld) -> None:
    store = metrics.kept
    store.add_delivered("web", {"sent": 3, "errors": 1})
    store.add_delivered("web", {"sent": 4})

    assert store.take_delivered("web") == {"sent": 7.0, "errors": 1.0}
    assert store.take_delivered("web") == {}


def test_slots_are_kept_where_they_changed(metrics: MetricsWorld) -> None:
    store = metrics.kept
    first = {"web-blue/web": {"a": 0, "b": 1}, "web-green/web": {"c": 0}}
    store.keep_slots("web", first, {})
    second = {"web-blue/web": {"b": 1, "d": 0}}
    store.keep_slots("web", second, first)

    assert store.slots("web") == second


def test_what_was_replaced_while_it_was_sent_stays(metrics: MetricsWorld) -> None:
    store = metrics.kept
    store.keep(batch(60, value=1.0))
    sent = list(store.backlog("web"))
    store.keep(batch(60, value=2.0))
    for one in sent:
        store.forget("web", one)

    left = list(store.backlog("web"))
    assert set(values(left[0].item).values()) == {2.0}
    for one in left:
        store.forget("web", one)
    assert list(store.backlog("web")) == []


def test_older_samples_do_not_replace_newer_ones(metrics: MetricsWorld) -> None:
    store = metrics.kept

    def sample(at: float) -> Sample:
        return Sample(SOURCE, at, {"cpu.total": at}, {"memory.usage": 1})

    first, second, again, late = sample(50.0), sample(3.0), sample(4.0), sample(60.0)
    store.keep_samples("web", "i-1", [first], [], 60, 60)
    # Its host has been started anew, and its clock with it.
    store.keep_samples("web", "i-1", [second], [first], 120, 120)
    store.keep_samples("web", "i-1", [late], [], 60, 121)

    assert list(store.samples("web", ["i-1", "i-2"], 180)) == ["i-1"]
    assert store.samples("web", ["i-1"], 180)["i-1"][0].counters == second.counters
    assert store.samples("web", ["i-1"], 180)["i-1"][0].source == SOURCE
    # The same minute once more is compared with the one before it.
    assert store.samples("web", ["i-1"], 120)["i-1"][0].counters == first.counters
    store.keep_samples("web", "i-1", [again], [first], 120, 122)
    assert store.samples("web", ["i-1"], 120)["i-1"][0].counters == first.counters
    assert store.samples("web", ["i-1"], 180)["i-1"][0].counters == again.counters


def test_samples_of_more_places_than_one_call_reads(metrics: MetricsWorld) -> None:
    store = metrics.kept
    places = [f"i-{number}" for number in range(230)]
    for place in places[::2]:
        store.keep_samples("web", place, [Sample(SOURCE, 1.0, {}, {})], [], 60, 60)

    assert sorted(store.samples("web", places, 120)) == sorted(places[::2])


def test_one_of_two_makes_a_host_until_the_claim_lapses(metrics: MetricsWorld) -> None:
    store = metrics.kept

    assert store.claim_creation("host-1", 1000.0)
    assert not store.claim_creation("host-1", 1059.0)
    assert store.claim_creation("host-2", 1059.0)
    assert store.claim_creation("host-1", 1061.0)


@pytest.mark.parametrize("cluster", ["other", "web2"])
def test_clusters_do_not_mix(metrics: MetricsWorld, cluster: str) -> None:
    store = metrics.kept
    store.keep(batch(60))
    store.set_watermark("web", 60)

    assert list(store.backlog(cluster)) == []
    assert store.watermark(cluster) is None
    assert store.watermark("web") == 60
