"""The Mackerel hosts of a cluster's ECS services: found or made, kept up to date, retired.

https://mackerel.io/api-docs/entry/hosts. What is known of them is kept in the store, so that in a
usual minute Mackerel is asked nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from containermetrics.errors import MackerelRefused, MackerelUnavailable
from containermetrics.mackerel import MOST_HOSTS_AT_ONCE, Mackerel, only_this
from containermetrics.model import HostMetrics
from containermetrics.store import KnownHost, MetricsStore


@dataclass
class Newest:
    """The newest minute of a run: what statuses, roles and absences are judged by. hosts: by custom
    identifier. whole: its first part was seen, so that no host is missing because another run has
    sent it.
    """

    minute: int = -1
    hosts: dict[str, HostMetrics] = field(default_factory=dict)
    whole: bool = False


class Hosts:
    """clock: epoch seconds. problem: takes what has to be in the log.

    pending: custom identifiers of hosts that another run is making. impossible: of those that
    Mackerel refuses to make.
    """

    def __init__(
        self,
        client: Mackerel,
        store: MetricsStore,
        cluster: str,
        clock: Callable[[], float],
        problem: Callable[[str], None],
    ) -> None:
        self.pending: set[str] = set()
        self.impossible: set[str] = set()
        self._client = client
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._problem = problem
        self._known = store.known_hosts(cluster)

    def id_of(self, identifier: str) -> str | None:
        """Mackerel's id; None for one that is pending or impossible."""
        known = self._known.get(identifier)
        return known.id if known else None

    def resolve(self, host: HostMetrics, minute: int) -> None:
        """Know the Mackerel host of an ECS service, or why not. Of several runs one makes it.

        minute: of the values that ask for it, epoch seconds.
        """
        identifier = host.custom_identifier
        if identifier in self._known or identifier in self.pending | self.impossible:
            return
        found = self._client.find_host(identifier)
        if found is None:
            if not self._store.claim_creation(identifier, self._clock()):
                self.pending.add(identifier)
                return
            # Somebody may have made it between the look and the claim.
            found = self._client.find_host(identifier)
        known = self._create(host) if found is None else _as_known(found, host)
        if known is None:
            self.impossible.add(identifier)
        else:
            self._remember(identifier, replace(known, minute=minute))

    def forget_ids(self, ids: set[str]) -> list[str]:
        """Mackerel no longer knows some hosts, as they were retired by hand. Answers their custom
        identifiers.
        """
        lost = sorted(name for name, known in self._known.items() if known.id in ids)
        for identifier in lost:
            self._forget(identifier)
        return lost

    def judge(self, newest: Newest, retire_after: int) -> None:
        """Make roles and statuses those of the newest minute, and retire the hosts of ECS services
        that have been gone in so many minutes.
        """
        self._follow_roles(newest)
        self._follow_statuses(newest)
        self._count_absences(newest, retire_after)

    # -------------------------------------------------------------------------------------- making

    def _create(self, host: HostMetrics) -> KnownHost | None:
        """A new host; without its role when Mackerel refuses that, None when it refuses both."""
        for role in dict.fromkeys([host.role_fullname, ""]):
            roles = [role] if role else []
            try:
                made = self._client.create_host(host.name, host.custom_identifier, roles)
            except MackerelRefused as error:
                only_this(error)
                # What is wrong with a host is 400; anything else is wrong with the call, and
                # values are not to be lost for that.
                if error.status != 400:
                    raise MackerelUnavailable(str(error)) from error
                self._problem(f"host {host.custom_identifier} with roles {roles}: {error}")
            else:
                return KnownHost(made, "working", role)
        return None

    def _remember(self, identifier: str, known: KnownHost) -> None:
        self._known[identifier] = known
        self._store.remember_host(self._cluster, identifier, known)

    def _forget(self, identifier: str) -> None:
        del self._known[identifier]
        self._store.forget_host(self._cluster, identifier)

    # ------------------------------------------------------------------------------------- judging

    def _judged(self, newest: Newest) -> Iterator[tuple[str, HostMetrics, KnownHost]]:
        """Hosts of the newest minute, unless a newer one was judged before: batches may come late,
        and an old status must not replace a new one.
        """
        for identifier, host in newest.hosts.items():
            known = self._known.get(identifier)
            if known is not None and known.minute <= newest.minute:
                yield identifier, host, known

    def _follow_roles(self, newest: Newest) -> None:
        for identifier, host, known in list(self._judged(newest)):
            role = host.role_fullname
            if known.role_fullname == role:
                continue
            try:
                self._change_role(known, role)
            except MackerelRefused as error:
                only_this(error)
                self._problem(f"role {role!r} of {identifier}: {error}")
            else:
                changed = replace(known, role_fullname=role, minute=newest.minute)
                self._remember(identifier, changed)

    def _change_role(self, known: KnownHost, role_fullname: str) -> None:
        """Only our own role is replaced; those that somebody else has given stay."""
        if role_fullname:
            service, _, role = role_fullname.partition(":")
            self._client.make_sure_of(service, role)
        host = self._client.host(known.id) or {}
        roles = _roles(host) - {known.role_fullname} | {role_fullname}
        self._client.set_roles(known.id, sorted(roles - {""}))

    def _follow_statuses(self, newest: Newest) -> None:
        differing: dict[str, list[str]] = {}
        for identifier, host, known in self._judged(newest):
            if host.status is not None and host.status != known.status:
                differing.setdefault(host.status, []).append(identifier)
        for status, identifiers in differing.items():
            for start in range(0, len(identifiers), MOST_HOSTS_AT_ONCE):
                some = identifiers[start : start + MOST_HOSTS_AT_ONCE]
                self._set_statuses(some, status, newest.minute)

    def _set_statuses(self, identifiers: Sequence[str], status: str, minute: int) -> None:
        """All at once; one by one when Mackerel refuses that for one of them."""
        try:
            self._client.set_statuses([self._known[one].id for one in identifiers], status)
        except MackerelRefused as error:
            only_this(error)
            if len(identifiers) > 1:
                for one in identifiers:
                    self._set_statuses([one], status, minute)
                return
            self._problem(f"status {status} of {identifiers[0]}: {error}")
            if error.status == 404:
                # Retired by hand; the next values make it anew.
                self._forget(identifiers[0])
            return
        for one in identifiers:
            self._remember(one, replace(self._known[one], status=status, minute=minute))

    def _count_absences(self, newest: Newest, retire_after: int) -> None:
        # A minute without any host says more about who looked than about all ECS services at once,
        # and retiring cannot be undone.
        if not newest.hosts:
            return
        for identifier, known in list(self._known.items()):
            if identifier in newest.hosts:
                if known.absences and known.minute <= newest.minute:
                    there = replace(known, absences=0, minute=newest.minute)
                    self._remember(identifier, there)
            # A minute that was counted may come again, when a part of it waits or it is read anew.
            elif newest.whole and known.minute < newest.minute:
                self._count_absence(identifier, known, newest.minute, retire_after)

    def _count_absence(
        self, identifier: str, known: KnownHost, minute: int, retire_after: int
    ) -> None:
        if known.absences + 1 >= retire_after:
            self._retire(identifier, known)
        else:
            missed = replace(known, absences=known.absences + 1, minute=minute)
            self._remember(identifier, missed)

    def _retire(self, identifier: str, known: KnownHost) -> None:
        try:
            self._client.retire_host(known.id)
        except MackerelRefused as error:
            only_this(error)
            # 404: somebody has retired it by hand.
            if error.status != 404:
                self._problem(f"host {identifier} is not retired: {error}")
                return
        self._forget(identifier)


def _as_known(found: Mapping[str, Any], wanted: HostMetrics) -> KnownHost:
    """A host that is already at Mackerel; its role is ours if it has ours."""
    role = wanted.role_fullname if wanted.role_fullname in _roles(found) else ""
    return KnownHost(str(found["id"]), str(found["status"]), role)


def _roles(host: Mapping[str, Any]) -> set[str]:
    roles: Mapping[str, Sequence[str]] = host.get("roles", {})
    return {f"{service}:{role}" for service, names in roles.items() for role in names}
