"""Delivering: what waits in the backlog of a cluster goes to Mackerel, the oldest first.

Values of hosts, statuses and absences, values of services, and annotations fail each for itself: a
service that was posted too often keeps no host from its values. Whatever happens, an item of the
backlog is forgotten only when all of it was taken, or refused for good and counted. Sending the
same values again overwrites them (https://mackerel.io/api-docs/entry/host-metrics#post), so two
deliveries at a time, or one that ends half-way, do no harm.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from containermetrics.annotations import annotate
from containermetrics.errors import (
    InvalidKey,
    MackerelBusy,
    MackerelRefused,
    MackerelUnavailable,
)
from containermetrics.graphs import DEFINITIONS
from containermetrics.mackerel import Mackerel, Posted, Value, only_this
from containermetrics.mackerel_hosts import Hosts, Newest
from containermetrics.model import Annotation, Batch, HostMetrics
from containermetrics.store import Kept, MetricsStore, Place, Unreadable

# Older values are taken with status 200, and not recorded; a minute is for the way there.
# https://mackerel.io/api-docs/entry/host-metrics#post
_OLDEST_SECONDS = 86_400 - 60
# So many values of hosts are sent before those that were taken are forgotten: a few requests. A run
# that ends early then has got somewhere, however slow Mackerel is.
_VALUES_PER_GROUP = 6_000
# In one request, as a service may be posted about once a minute: some 800 KB.
# https://mackerel.io/api-docs/entry/service-metrics#post
_VALUES_PER_SERVICE_POST = 8_000
_GRAPHS_SECONDS = 3600
# What the values of hosts leave for those of services: an attempt may take the client's timeout.
_RESERVE_SECONDS = 12.0
# No further values of hosts are begun with less: a slow answer takes some seconds.
_LEAST_SECONDS = 5.0
# Who has missed its last two runs keeps nobody in the line waiting.
_AWAY_SECONDS = 150
# So long values of a service may wait without a word: several clusters share it, and take turns.
_TURN_SECONDS = 600
_SKEW_SECONDS = 60
_FUTURE_SECONDS = 600
# How many hosts or names a problem names.
_NAMED = 5

# Plugins' definitions that this environment has posted: digest → when. They come with every batch;
# an environment that does not know posts them again, which changes nothing.
_graphs_posted: dict[tuple[str, str], float] = {}


@dataclass
class Delivered:
    """sent, dropped_old: values. refused: values, annotations, and items that could not be read.
    kept: what still waits in the backlog, in items; oldest_seconds: how old its oldest minute is,
    0 when nothing waits. problems: for the log.
    """

    sent: int = 0
    dropped_old: int = 0
    refused: int = 0
    kept: int = 0
    oldest_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def deliver(
    client: Mackerel,
    store: MetricsStore,
    cluster: str,
    now: float,
    seconds_left: Callable[[], float],
    retire_after: int,
) -> Delivered:
    """Send what waits for Mackerel until it is sent, Mackerel does not take it, or time is up.

    now: epoch seconds. retire_after: in so many minutes an ECS service has to be gone until its
    host is retired. Errors of AWS leave it as they are; those of Mackerel are in the answer.
    """
    return _Delivery(client, store, cluster, now, seconds_left, retire_after).run()


def look_at_the_rest(store: MetricsStore, cluster: str, now: float, delivered: Delivered) -> None:
    """Note in delivered what still waits. now: epoch seconds."""
    delivered.kept = store.waiting(cluster)
    oldest = next(store.backlog(cluster), None) if delivered.kept else None
    delivered.oldest_seconds = max(0.0, now - oldest.minute) if oldest else 0.0


def is_next(cluster: str, line: Mapping[str, Place], now: float) -> bool:
    """Whether nobody else who is there has waited longer. now: epoch seconds. Pure.

    Otherwise of two clusters that share a service the first of the minute would post it for ever.
    """
    others = [
        (place.since, name)
        for name, place in line.items()
        if name != cluster and now - place.at < _AWAY_SECONDS
    ]
    if cluster not in line:
        return not others
    return all((line[cluster].since, cluster) < other for other in others)


class _Delivery:
    def __init__(
        self,
        client: Mackerel,
        store: MetricsStore,
        cluster: str,
        now: float,
        seconds_left: Callable[[], float],
        retire_after: int,
    ) -> None:
        self._client = client
        self._store = store
        self._cluster = cluster
        self._began = (now, time.monotonic())
        self._seconds_left = seconds_left
        self._retire_after = retire_after
        self._hosts = Hosts(client, store, cluster, self._now, self._problem)
        self._newest = Newest()
        self._services: list[tuple[Kept, Batch]] = []
        self._service_values = 0
        self._annotations: list[tuple[Kept, Annotation]] = []
        self._graphs: dict[str, Mapping[str, Any]] = {}
        self._old: set[int] = set()
        self._result = Delivered()

    def _now(self) -> float:
        return self._began[0] + time.monotonic() - self._began[1]

    def _seconds_for_hosts(self) -> float:
        return self._seconds_left() - _RESERVE_SECONDS

    def run(self) -> Delivered:
        """The whole of it, step by step."""
        try:
            self._client.seconds_left = self._seconds_for_hosts
            if self._send_all_hosts():
                self._attempt(partial(self._hosts.judge, self._newest, self._retire_after))
                self._attempt(self._define_graphs)
            self._client.seconds_left = self._seconds_left
            self._send_services()
            self._attempt(self._annotate_all)
        except InvalidKey as error:
            self._problem(f"Mackerel does not accept the API key; everything is kept: {error}")
        self._summarize()
        look_at_the_rest(self._store, self._cluster, self._now(), self._result)
        return self._result

    def _attempt(self, step: Callable[[], None]) -> bool:
        """Whether Mackerel was there for a step. If not, what it was about is kept."""
        try:
            step()
        except MackerelUnavailable as error:
            self._problem(f"Mackerel is not available; the rest is kept: {error}")
            return False
        return True

    # ------------------------------------------------------------------------------------ the order

    def _groups(self) -> Iterator[list[tuple[Kept, Batch]]]:
        """The values of hosts in the backlog, some at a time. What else there is is put aside."""
        group: list[tuple[Kept, Batch]] = []
        values = 0
        for kept in self._store.backlog(self._cluster):
            item = kept.item
            if isinstance(item, Unreadable):
                self._give_up(kept, item)
            elif isinstance(item, Annotation):
                self._annotations.append((kept, item))
            elif self._too_old(kept, item) or self._too_new(kept):
                continue
            elif item.services or item.graphs:
                self._put_aside(kept, item)
            else:
                group.append((kept, item))
                values += _count(item)
                if values >= _VALUES_PER_GROUP:
                    yield group
                    group, values = [], 0
        if group:
            yield group

    def _put_aside(self, kept: Kept, batch: Batch) -> None:
        """Values of services, up to what one request may bring; and at least one minute."""
        for graph in batch.graphs:
            self._graphs[json.dumps(graph, sort_keys=True)] = graph
        self._service_values += _count(batch)
        if not self._services or self._service_values <= _VALUES_PER_SERVICE_POST:
            self._services.append((kept, batch))

    def _give_up(self, kept: Kept, item: Unreadable) -> None:
        """It will not be readable later, and the rest does not wait for it."""
        self._problem(f"{kept.key} of the backlog cannot be read, and is lost: {item.reason}")
        self._result.refused += 1
        self._store.forget(self._cluster, kept)

    def _too_old(self, kept: Kept, batch: Batch) -> bool:
        """Values that Mackerel would drop without a word are dropped here, and counted."""
        if kept.minute > self._now() + self._client.ahead - _OLDEST_SECONDS:
            return False
        self._result.dropped_old += _count(batch)
        self._old.add(kept.minute)
        self._store.forget(self._cluster, kept)
        return True

    def _too_new(self, kept: Kept) -> bool:
        """A minute from the future would keep monitors from judging the present; it waits."""
        if kept.minute <= self._now() + _FUTURE_SECONDS:
            return False
        ahead = kept.minute - self._now()
        self._problem(f"minute {kept.minute} is {ahead:.0f} s in the future: is a clock wrong?")
        return True

    # -------------------------------------------------------------------------- values of hosts

    def _send_all_hosts(self) -> bool:
        """Whether all was sent that waits, so that the newest minute is known.

        When Mackerel takes no values of hosts, the rest of the backlog is only looked through for
        values of services.
        """
        taken = True
        for group in self._groups():
            if not taken and self._service_values > _VALUES_PER_SERVICE_POST:
                return False
            if self._seconds_for_hosts() < _LEAST_SECONDS:
                if taken:
                    self._problem("the time of this run is up; the rest is kept")
                return False
            taken = taken and self._attempt(partial(self._send, group))
        return taken

    def _send(self, group: Sequence[tuple[Kept, Batch]]) -> None:
        """Send some parts of the backlog; those of which nothing is left are forgotten, also when
        this raises what ends the values of hosts for this run.
        """
        waiting: dict[tuple[str, int], HostMetrics] = {}
        newest: dict[str, tuple[HostMetrics, int]] = {}
        for kept, batch in group:
            self._look_at(kept, batch)
            for host in batch.hosts:
                waiting[host.custom_identifier, batch.minute] = host
                newest[host.custom_identifier] = host, batch.minute
        try:
            self._resolve(waiting, newest.values())
            lost = self._post(waiting)
            for identifier in lost:
                self._problem(f"Mackerel no longer knows the host of {identifier}; it is made anew")
            if lost:
                self._resolve(waiting, [newest[identifier] for identifier in lost])
                self._post(waiting)
        finally:
            for kept, batch in group:
                if not any((one.custom_identifier, batch.minute) in waiting for one in batch.hosts):
                    self._store.forget(self._cluster, kept)

    def _look_at(self, kept: Kept, batch: Batch) -> None:
        if batch.minute > self._newest.minute:
            self._newest = Newest(batch.minute)
        self._newest.hosts.update({host.custom_identifier: host for host in batch.hosts})
        # The parts of a minute are sent and forgotten in order, the first one first.
        self._newest.whole |= kept.key.endswith("#000")

    def _resolve(
        self,
        waiting: dict[tuple[str, int], HostMetrics],
        hosts: Collection[tuple[HostMetrics, int]],
    ) -> None:
        """Know the hosts at Mackerel; values of those that there cannot be no longer wait."""
        for host, minute in hosts:
            self._hosts.resolve(host, minute)
        for (identifier, minute), host in list(waiting.items()):
            if identifier in self._hosts.impossible:
                self._result.refused += len(host.values)
                del waiting[identifier, minute]

    def _post(self, waiting: dict[tuple[str, int], HostMetrics]) -> Collection[str]:
        """Post what waits, in the order of the minutes, and take from it what was taken or refused
        for good. Those of hosts that another run is making go on waiting.

        Answers the custom identifiers of hosts that Mackerel no longer knows. Raises
        MackerelUnavailable after having noted what had been taken by then.
        """
        ids = {
            (identifier, minute): host_id
            for identifier, minute in waiting
            if (host_id := self._hosts.id_of(identifier)) is not None
        }
        posted = self._client.post_values(
            [
                Value(name, place[1], value, host_id)
                for place, host_id in ids.items()
                for name, value in waiting[place].values.items()
            ]
        )
        gone = {refusal.values[0].host for refusal in posted.refusals if refusal.status == 404}
        self._note(posted, besides=gone)
        unsent = {(value.host, value.time) for value in posted.unsent}
        for place, host_id in ids.items():
            if host_id not in gone and (host_id, place[1]) not in unsent:
                del waiting[place]
        lost = self._hosts.forget_ids(gone)
        if posted.error:
            raise posted.error
        return lost

    def _note(self, posted: Posted, besides: Collection[str] = ()) -> None:
        """besides: hosts whose refusals are not for good."""
        self._result.sent += posted.sent
        named = 0
        for refusal in posted.refusals:
            if refusal.status == 404 and refusal.values[0].host in besides:
                continue
            self._result.refused += len(refusal.values)
            named += 1
            if named <= _NAMED:
                self._problem(f"{len(refusal.values)} value(s) refused: {refusal.reason}")
        if named > _NAMED:
            self._problem(f"values refused for {named - _NAMED} more reasons")

    # ------------------------------------------------------------------------ values of services

    def _send_services(self) -> None:
        """Each service once, with all that waits for it."""
        by_service: dict[str, list[Value]] = {}
        for _, batch in self._services:
            for service, values in batch.services.items():
                by_service.setdefault(service, []).extend(
                    Value(name, batch.minute, value) for name, value in values.items()
                )
        untaken = {
            (service, minute)
            for service, series in by_service.items()
            for minute in self._send_service(service, series)
        }
        for kept, batch in self._services:
            if not any((service, batch.minute) in untaken for service in batch.services):
                self._store.forget(self._cluster, kept)

    def _send_service(self, service: str, values: Sequence[Value]) -> Collection[int]:
        """Send values of a service when it is this cluster's turn. Answers the minutes that wait
        for the next time.
        """
        line = self._store.line(service)
        untaken = values
        if is_next(self._cluster, line, self._now()):
            posted = self._post_service(service, values)
            self._note(posted)
            untaken = posted.unsent
            if posted.error and not isinstance(posted.error, MackerelBusy):
                self._problem(f"Mackerel is not available; the rest is kept: {posted.error}")
                return {value.time for value in untaken}
        if untaken:
            self._wait_in_line(service, line, min(value.time for value in untaken))
        elif self._cluster in line:
            self._store.leave_line(service, self._cluster)
        return {value.time for value in untaken}

    def _post_service(self, service: str, values: Sequence[Value]) -> Posted:
        """Post values of a service, which is made when there is none; without one that cannot be
        they are refused.
        """
        try:
            try:
                return self._client.post_service(service, values)
            except MackerelRefused as error:
                if error.status != 404:
                    raise
            self._client.make_sure_of(service)
            return self._client.post_service(service, values)
        except MackerelUnavailable as error:
            return Posted(unsent=values, error=error)
        except MackerelRefused as error:
            only_this(error)
            self._result.refused += len(values)
            self._problem(f"values of the service {service} are lost: {error}")
            return Posted()

    def _wait_in_line(self, service: str, line: Mapping[str, Place], oldest: int) -> None:
        """Others post the service, too; who has waited longest posts it next."""
        now = self._now()
        since = line[self._cluster].since if self._cluster in line else now
        self._store.stand_in_line(service, self._cluster, Place(since, now))
        if now - oldest > _TURN_SECONDS:
            others = ", ".join(sorted({*line} - {self._cluster})[:_NAMED]) or "unknown"
            self._problem(
                f"values of the service {service} wait for {now - oldest:.0f} s and are kept: "
                f"Mackerel takes few posts of a service, and others post it (clusters: {others})"
            )

    # ---------------------------------------------------------------------------------- graphs

    def _define_graphs(self) -> None:
        """Our own every hour, as Mackerel forgets definitions that are not used for some; those of
        plugins when they are new, and every hour.
        """
        if self._newest.minute < 0 and not self._graphs:
            return
        now = self._now()
        due: list[Mapping[str, Any]] = []
        ours = abs(now - self._store.graphs_posted_at(self._cluster)) >= _GRAPHS_SECONDS
        if ours:
            due.extend(DEFINITIONS)
        fresh = []
        for text, graph in self._graphs.items():
            digest = (self._cluster, hashlib.sha256(text.encode()).hexdigest())
            if abs(now - _graphs_posted.get(digest, 0)) >= _GRAPHS_SECONDS:
                fresh.append(digest)
                due.append(graph)
        if not due:
            return
        for problem in self._client.define_graphs(due):
            self._problem(problem)
        if ours:
            self._store.note_graphs_posted(self._cluster, now)
        _graphs_posted.update(dict.fromkeys(fresh, now))

    # ----------------------------------------------------------------------------- annotations

    def _annotate_all(self) -> None:
        for kept, annotation in self._annotations:
            if self._annotate(annotation):
                self._store.forget(self._cluster, kept)

    def _annotate(self, annotation: Annotation) -> bool:
        """Whether an annotation needs nothing more: it is there, or refused for good."""
        try:
            return annotate(self._client, self._store, annotation, self._now()) != "busy"
        except MackerelRefused as error:
            only_this(error)
            self._problem(f"annotation of {annotation.key} refused: {error}")
            self._result.refused += 1
            return True

    # ------------------------------------------------------------------------------------- the end

    def _problem(self, text: str) -> None:
        if text not in self._result.problems:
            self._result.problems.append(text)

    def _summarize(self) -> None:
        if self._old:
            self._problem(
                f"{self._result.dropped_old} values of {len(self._old)} minute(s) were older than "
                "24 h, which Mackerel does not record: dropped"
            )
        if self._hosts.pending:
            names = ", ".join(sorted(self._hosts.pending)[:_NAMED])
            self._problem(
                f"{len(self._hosts.pending)} host(s) are being made by another run, or it has just "
                f"failed; their values wait: {names}"
            )
        if abs(self._client.ahead) > _SKEW_SECONDS:
            self._problem(
                f"Mackerel's clock is {self._client.ahead:+.0f} s from the one here; minutes may "
                "be missing or wrong"
            )


def _count(batch: Batch) -> int:
    hosts = sum(len(host.values) for host in batch.hosts)
    return hosts + sum(len(values) for values in batch.services.values())
