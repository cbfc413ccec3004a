"""Mackerel's API: a thin client. https://mackerel.io/api-docs/

It knows the rules of each call and which errors may be tried again, and nothing of containers.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from containermetrics.errors import (
    InvalidKey,
    MackerelBusy,
    MackerelRefused,
    MackerelUnavailable,
)

# https://mackerel.io/api-docs/entry/hosts#bulk-update-statuses, …/alerts#list
MOST_HOSTS_AT_ONCE = 30
_MOST_ALERTS_AT_ONCE = 100
# https://mackerel.io/api-docs/entry/host-metrics#post; the length is not documented: what an index
# of names usually takes.
_METRIC_NAME = re.compile(r"[a-zA-Z0-9._-]+")
_MOST_NAME = 255
_KEY = re.compile(r"[\x21-\x7e]+")
# Some 100 bytes a value: requests of a few hundred KB. Mackerel names no limit.
_VALUES_PER_REQUEST = 2_000
# How many requests may be spent on finding the values that Mackerel refuses; what is not found by
# then is refused with its neighbours.
_SEARCHES = 120
_PASSING = (408, 429, 500, 502, 503, 504)
_TOO_MANY = 429
_CONNECT_SECONDS = 3.05


class Value(NamedTuple):
    """One measured value. time: epoch seconds. host: Mackerel's id, "" for a service's value."""

    name: str
    time: int
    value: float
    host: str = ""


@dataclass(frozen=True)
class Refusal:
    """Values that Mackerel will never take, and why. status: of its answer; 0 for those that were
    not sent at all.
    """

    values: Sequence[Value]
    status: int
    reason: str


@dataclass
class Posted:
    """What became of values. unsent: those that Mackerel may take later, and error: why it did not
    now; None when there are none.
    """

    sent: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    unsent: Sequence[Value] = ()
    error: MackerelUnavailable | None = None

    @property
    def refused(self) -> int:
        """How many values were refused."""
        return sum(len(refusal.values) for refusal in self.refusals)


def only_this(error: MackerelRefused) -> None:
    """Go on after a refusal, unless it is the key's, which is about everything: raises it again."""
    if isinstance(error, InvalidKey):
        raise error


def fault(value: Value) -> str:
    """Why a value cannot be posted; "" when it can. Pure.

    Names: https://mackerel.io/api-docs/entry/host-metrics#post, and its remarks on custom metric
    names: no consecutive dots.
    """
    if not _METRIC_NAME.fullmatch(value.name) or ".." in value.name or value.name.endswith("."):
        return f"no metric name: {value.name[:80]!r}"
    if len(value.name) > _MOST_NAME:
        return f"metric name of {len(value.name)} characters: {value.name[:80]}…"
    if not math.isfinite(value.value):
        return f"{value.name} is {value.value}"
    return ""


class Mackerel:
    """One organisation, by its API key. For one thread.

    base_url: https://api.mackerelio.com. version: of this project, for User-Agent.
    timeout_seconds: how long an answer may take. attempts: how often a request is sent at most.
    The second attempt follows at once, others after pause_seconds, doubled each time and with a
    random part, or when Mackerel asks for it (Retry-After).
    seconds_left: how much time there is; requests are not tried again beyond it. It may be set
    later. clock: epoch seconds.

    Every call raises InvalidKey, MackerelRefused (other 4xx: it will never do) or
    MackerelUnavailable (it may do later; also when not Mackerel has answered). Redirects are not
    followed: the key would go with them.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        version: str,
        session: requests.Session | None = None,
        *,
        timeout_seconds: float = 10.0,
        attempts: int = 4,
        pause_seconds: float = 0.5,
        seconds_left: Callable[[], float] = lambda: math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        key = api_key.strip()
        # requests would show a key that is no header value in its error.
        if not _KEY.fullmatch(key):
            raise InvalidKey(0, "the API key is empty, or has characters that no API key has")
        self.user_agent = f"ecs-bluegreen/{version}"
        self.seconds_left = seconds_left
        self.ahead = 0.0
        """How far Mackerel's clock is ahead of this one, in seconds, by its last answer."""
        self._url = base_url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._attempts = attempts
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._session = session or requests.Session()
        self._session.headers.update(
            {
                "X-Api-Key": key,
                "User-Agent": self.user_agent,
                "Content-Type": "application/json",
                "Accept": "application/json",
            }
        )
        self._adapter = HTTPAdapter()
        self._session.mount(self._url, self._adapter)

    # -------------------------------------------------------------------------------------- hosts
    # https://mackerel.io/api-docs/entry/hosts

    def find_host(self, custom_identifier: str) -> dict[str, Any] | None:
        """The host with a custom identifier, unless it is retired."""
        path = f"/hosts-by-custom-identifier/{quote(custom_identifier, safe='')}"
        found = self._found(path)
        return None if found is None else dict(found["host"])

    def host(self, host_id: str) -> dict[str, Any] | None:
        """A host by its id, retired or not."""
        found = self._found(f"/hosts/{host_id}")
        return None if found is None else dict(found["host"])

    def hosts(self, service: str, role: str) -> list[dict[str, Any]]:
        """The hosts of a role, whatever their status; none when there is no such role."""
        every = ["standby", "working", "maintenance", "poweroff"]
        found = self._found("/hosts", {"service": service, "role": role, "status": every})
        return [] if found is None else list(found["hosts"])

    def create_host(
        self, name: str, custom_identifier: str, role_fullnames: Sequence[str] = ()
    ) -> str:
        """Make a host; answers its id. Missing services and roles are made.

        It is not tried again when the answer is lost, as there might be two hosts then.
        """
        body = {
            "name": name,
            "customIdentifier": custom_identifier,
            "meta": {"agent-name": self.user_agent},
            "roleFullnames": list(role_fullnames),
        }
        return str(self._call("POST", "/hosts", body, once=True)["id"])

    def set_statuses(self, host_ids: Sequence[str], status: str) -> None:
        """standby, working, maintenance or poweroff, for 30 hosts at most; with one that is unknown
        (404) none has it.
        """
        self._call("POST", "/hosts/bulk-update-statuses", {"ids": list(host_ids), "status": status})

    def set_roles(self, host_id: str, role_fullnames: Sequence[str]) -> None:
        """A host's roles from now on; they have to exist."""
        body = {"roleFullnames": list(role_fullnames)}
        self._call("PUT", f"/hosts/{host_id}/role-fullnames", body)

    def retire_host(self, host_id: str) -> None:
        """For good."""
        self._call("POST", f"/hosts/{host_id}/retire", {})

    # ------------------------------------------------------------------------- services and roles
    # https://mackerel.io/api-docs/entry/services

    def roles(self, service: str) -> list[str] | None:
        """The roles of a service; None when there is no such service."""
        found = self._found(f"/services/{quote(service, safe='')}/roles")
        return None if found is None else [role["name"] for role in found["roles"]]

    def create_service(self, service: str) -> None:
        """Make a service."""
        self._call("POST", "/services", {"name": service, "memo": ""})

    def create_role(self, service: str, role: str) -> None:
        """Make a role of a service."""
        path = f"/services/{quote(service, safe='')}/roles"
        self._call("POST", path, {"name": role, "memo": ""})

    def make_sure_of(self, service: str, role: str = "") -> None:
        """Make a service, and a role of it, that may be missing."""
        roles = self.roles(service)
        if roles is None:
            self.create_service(service)
        if role and role not in (roles or ()):
            self.create_role(service, role)

    # ------------------------------------------------------------------------------------- values
    # https://mackerel.io/api-docs/entry/host-metrics#post, …/service-metrics#post

    def post_values(self, values: Sequence[Value]) -> Posted:
        """Values of hosts, in their order. The same host, name and minute again overwrites, so
        what was perhaps taken may be sent again.

        What was taken before Mackerel took no more is told, and so is what was not: this raises
        no MackerelUnavailable. Only what Mackerel refuses is left out: a chunk that it refuses is
        halved until what is wrong with it stands alone. An unknown host is told by status 404, with
        all its values.
        """
        return self._post("/tsdb", values, _host_value, _VALUES_PER_REQUEST, _PASSING)

    def post_service(self, service: str, values: Sequence[Value]) -> Posted:
        """Values of a service, as ``post_values``; raises MackerelRefused with status 404 when
        there is no such service.

        They go in one request, and when that is one too many (429) it is not tried again at once:
        Mackerel wants one a minute.
        """
        path = f"/services/{quote(service, safe='')}/tsdb"
        retried = [status for status in _PASSING if status != _TOO_MANY]
        posted = self._post(path, values, _service_value, max(1, len(values)), retried)
        for refusal in posted.refusals:
            if refusal.status == 404:
                raise MackerelRefused(404, refusal.reason)
        return posted

    def _post(
        self,
        path: str,
        values: Sequence[Value],
        shape: Callable[[Value], dict[str, Any]],
        at_once: int,
        retried: Collection[int],
    ) -> Posted:
        posted = Posted()
        good = []
        for value in values:
            wrong = fault(value)
            if wrong:
                posted.refusals.append(Refusal([value], 0, wrong))
            else:
                good.append(value)
        searches = _SEARCHES
        chunks: list[Sequence[Value]]
        chunks = [good[start : start + at_once] for start in range(0, len(good), at_once)]
        while chunks:
            chunk = chunks.pop(0)
            try:
                self._call("POST", path, [shape(value) for value in chunk], retried=retried)
                posted.sent += len(chunk)
            except MackerelUnavailable as error:
                posted.unsent = [value for rest in (chunk, *chunks) for value in rest]
                posted.error = error
                break
            except MackerelRefused as error:
                only_this(error)
                pieces = _pieces(chunk, error.status)
                if len(pieces) == 1 or searches <= 0:
                    posted.refusals.append(Refusal(chunk, error.status, str(error)))
                else:
                    searches -= len(pieces)
                    # At the front: the order stays.
                    chunks[:0] = pieces
        return posted

    # ------------------------------------------------------------------------------------- graphs
    # https://mackerel.io/api-docs/entry/host-metrics#post-graphdef

    def define_graphs(self, definitions: Sequence[Mapping[str, Any]]) -> list[str]:
        """Post graph definitions; answers what was wrong with each that Mackerel refuses. One that
        is wrong keeps none of the others from being taken.
        """
        try:
            self._call("POST", "/graph-defs/create", list(definitions))
        except MackerelRefused as error:
            only_this(error)
            if len(definitions) == 1:
                return [f"graph {definitions[0].get('name')}: {error}"]
            return [wrong for one in definitions for wrong in self.define_graphs([one])]
        return []

    # -------------------------------------------------------------------------------- annotations
    # https://mackerel.io/api-docs/entry/graph-annotations

    def annotations(self, service: str, start: int, end: int) -> list[dict[str, Any]]:
        """Those of a service that touch a time (epoch seconds); none when there is no service."""
        query = {"service": service, "from": start, "to": end}
        found = self._found("/graph-annotations", query)
        return [] if found is None else list(found["graphAnnotations"])

    def annotate(self, annotation: Mapping[str, Any]) -> None:
        """Post an annotation. Not tried again when the answer is lost: there might be two then."""
        self._call("POST", "/graph-annotations", dict(annotation), once=True)

    def change_annotation(self, annotation_id: str, annotation: Mapping[str, Any]) -> None:
        """Replace an annotation."""
        self._call("PUT", f"/graph-annotations/{annotation_id}", dict(annotation))

    # ------------------------------------------------------------------------------------- alerts
    # https://mackerel.io/api-docs/entry/alerts

    def alerts(self, *, with_closed: bool = False) -> Iterator[dict[str, Any]]:
        """The newest first, page by page."""
        query: dict[str, Any] = {"limit": _MOST_ALERTS_AT_ONCE}
        if with_closed:
            query["withClosed"] = "true"
        while True:
            page = self._call("GET", "/alerts", query=query)
            yield from page["alerts"]
            if not page.get("nextId"):
                return
            query["nextId"] = page["nextId"]

    # ----------------------------------------------------------------------------------- monitors
    # https://mackerel.io/api-docs/entry/monitors

    def monitors(self) -> list[dict[str, Any]]:
        """All of the organisation."""
        return list(self._call("GET", "/monitors")["monitors"])

    # ------------------------------------------------------------------------------------ one call

    def _found(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """What a GET answers; None for 404."""
        try:
            return self._call("GET", path, query=query)
        except MackerelRefused as error:
            if error.status == 404:
                return None
            raise

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        once: bool = False,
        retried: Collection[int] = _PASSING,
    ) -> Any:
        """once: not tried again when it is unknown whether the call has had its effect. retried:
        statuses after which it is tried again.
        """
        left = self.seconds_left()
        if left <= 0:
            raise MackerelUnavailable(f"{method} {path}: no time left")
        # A client is for one thread, so each request can bring its own rule for the adapter.
        self._adapter.max_retries = _Patience(
            until=time.monotonic() + left,
            total=self._attempts - 1,
            read=False if once else None,
            status_forcelist=(_TOO_MANY,) if once else retried,
            # Otherwise a 429 that says when is tried again, whatever the list says.
            respect_retry_after_header=once or _TOO_MANY in retried,
            backoff_factor=self._pause_seconds,
            backoff_jitter=self._pause_seconds,
        )
        data = None if body is None else json.dumps(body, allow_nan=False, separators=(",", ":"))
        try:
            answer = self._session.request(
                method,
                f"{self._url}/api/v0{path}",
                params=query,
                data=data,
                timeout=(min(_CONNECT_SECONDS, left), min(self._timeout_seconds, left)),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise MackerelUnavailable(f"{method} {path}: {_without_address(error)}") from error
        self._compare_clocks(answer)
        return _body(answer, f"{method} {path}")

    def _compare_clocks(self, answer: requests.Response) -> None:
        try:
            theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        except (KeyError, ValueError):
            return
        # The header has whole seconds.
        ahead = theirs + 0.5 - self._clock()
        self.ahead = 0.0 if abs(ahead) <= 1.5 else ahead


class _Patience(Retry):
    """A Retry that gives up when its next attempt would come too late. until: monotonic seconds.

    It hands the last answer back instead of raising, with what Mackerel says in it.
    """

    def __init__(self, *args: Any, until: float, **kwargs: Any) -> None:
        self._until = until
        kwargs.setdefault("allowed_methods", None)
        kwargs.setdefault("raise_on_status", False)
        super().__init__(*args, **kwargs)

    def new(self, **kwargs: Any) -> _Patience:
        return super().new(until=self._until, **kwargs)

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> _Patience:
        further = super().increment(method, url, response, error, _pool, _stacktrace)
        asked = self.get_retry_after(response) if response is not None else None
        pause = asked if asked is not None else further.get_backoff_time()
        if time.monotonic() + pause >= self._until:
            raise MaxRetryError(_pool, url or "", error)
        return further


def _pieces(values: Sequence[Value], status: int) -> list[Sequence[Value]]:
    """What a refused chunk is divided into: by hosts first, as one that is unknown (404) refuses
    all; those of one host are halved, unless it is unknown.
    """
    by_host: dict[str, list[Value]] = {}
    for value in values:
        by_host.setdefault(value.host, []).append(value)
    if len(by_host) > 1:
        return list(by_host.values())
    if len(values) == 1 or status == 404:
        return [values]
    middle = len(values) // 2
    return [values[:middle], values[middle:]]


def _host_value(value: Value) -> dict[str, Any]:
    return {"hostId": value.host, "name": value.name, "time": value.time, "value": value.value}


def _service_value(value: Value) -> dict[str, Any]:
    return {"name": value.name, "time": value.time, "value": value.value}


def _body(answer: requests.Response, call: str) -> Any:
    """The parsed body of an answer. Raises the error that it stands for."""
    if answer.status_code == 200:
        try:
            return answer.json()
        except ValueError as error:
            raise MackerelUnavailable(f"{call}: the answer is no JSON") from error
    message = _message(answer)
    said = f"{call}: {answer.status_code} {message or answer.reason}"
    if answer.status_code in (401, 403):
        raise InvalidKey(answer.status_code, said)
    if answer.status_code in _PASSING or answer.status_code >= 500 or not message:
        after = answer.headers.get("Retry-After")
        kind = MackerelBusy if answer.status_code == _TOO_MANY else MackerelUnavailable
        raise kind(f"{said} (again after {after} s)" if after else said)
    raise MackerelRefused(answer.status_code, said)


def _message(answer: requests.Response) -> str:
    """``{"error": {"message": …}}``, or ``{"error": …}`` of older calls. "" when it is neither:
    then somebody else has answered, and nothing is lost for that.
    """
    try:
        said = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(said["message"] if isinstance(said, dict) and "message" in said else said)[:500]


def _without_address(error: requests.RequestException) -> str:
    """What went wrong, without the addresses of objects that requests puts into its texts."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return re.sub(r"<[^>]*? at 0x[0-9a-f]+>(: )?", "", str(reason or error)) or type(error).__name__
