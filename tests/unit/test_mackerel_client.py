"""The client of Mackerel's API against the stand-in, over HTTP."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, Self

import pytest

from containermetrics.errors import (
    InvalidKey,
    MackerelBusy,
    MackerelError,
    MackerelRefused,
    MackerelUnavailable,
)
from containermetrics.mackerel import Mackerel, Value, fault
from sandbox.mackerel import Fault, MackerelServer

KEY = "a-key-that-nobody-may-see"
NOW = 1_800_000_000


@pytest.fixture
def server() -> Iterator[MackerelServer]:
    with MackerelServer(api_key=KEY, read_only_key="reader", clock=lambda: NOW) as running:
        yield running


def make(server: MackerelServer, key: str = KEY, **more: Any) -> Mackerel:
    """A client in a hurry."""
    fast: dict[str, Any] = {"timeout_seconds": 10, "pause_seconds": 0.01, "clock": lambda: NOW}
    return Mackerel(server.url, key, "1.2.3", **(fast | more))


@pytest.fixture
def client(server: MackerelServer) -> Mackerel:
    return make(server)


@pytest.fixture
def host(client: Mackerel) -> str:
    return client.create_host("web-blue", "c.web-blue", ["shop:web"])


def kept(server: MackerelServer, host: str) -> dict[str, dict[int, float]]:
    """What the server has of a host."""
    metrics = server.organization.hosts[host].metrics
    return {name: series.values for name, series in metrics.items()}


def some(host: str, number: int, start: int = 0) -> list[Value]:
    return [Value(f"custom.m.v{n}", NOW, n, host) for n in range(start, start + number)]


# -------------------------------------------------------------------------- calls


def test_a_host_is_made_found_changed_and_retired(server: MackerelServer, client: Mackerel) -> None:
    assert client.find_host("c/web blue") is None
    made = client.create_host("web-blue", "c/web blue", ["shop:web"])
    found = client.find_host("c/web blue")
    assert found is not None
    assert (found["id"], found["meta"]) == (made, {"agent-name": "ecs-bluegreen/1.2.3"})

    client.set_statuses([made], "poweroff")
    client.create_role("shop", "db")
    client.set_roles(made, ["shop:db"])
    changed = client.host(made) or {}
    assert (changed["status"], changed["roles"]) == ("poweroff", {"shop": ["db"]})
    client.retire_host(made)
    assert client.find_host("c/web blue") is None
    assert (client.host(made) or {})["isRetired"]
    assert client.host("unknown") is None
    assert {request.user_agent for request in server.requests()} == {"ecs-bluegreen/1.2.3"}


def test_services_and_roles_are_made(client: Mackerel) -> None:
    assert client.roles("shop") is None
    client.create_service("shop")
    client.create_role("shop", "web")
    assert client.roles("shop") == ["web"]


def test_values_of_a_service_are_posted(server: MackerelServer, client: Mackerel) -> None:
    client.create_service("shop")
    values = [Value("ecs.web.cpu", NOW, 1.5), Value("ecs.web.nan", NOW, math.nan)]
    posted = client.post_service("shop", values)
    assert (posted.sent, posted.refused) == (1, 1)
    assert server.organization.services["shop"].metrics["ecs.web.cpu"].values == {NOW: 1.5}
    with pytest.raises(MackerelRefused, match="404 Service not found") as refused:
        client.post_service("nowhere", values)
    assert refused.value.status == 404


def test_all_values_of_a_service_go_in_one_request(
    server: MackerelServer, client: Mackerel
) -> None:
    client.create_service("shop")
    values = [Value(f"ecs.m{number}", NOW, number) for number in range(7000)]
    assert client.post_service("shop", values).sent == 7000
    assert len(server.organization.services["shop"].metrics) == 7000


@pytest.mark.parametrize("seconds", [0, 1])
def test_a_service_that_was_posted_too_often_is_not_posted_again_at_once(
    server: MackerelServer, client: Mackerel, seconds: int
) -> None:
    """Also when Mackerel says when: what waits goes with the next minute's values."""
    client.create_service("shop")
    server.turn_on(Fault("throttle", seconds=seconds))
    values = [Value("ecs.web.cpu", NOW, 1.5)]
    posted = client.post_service("shop", values)
    assert (posted.sent, posted.unsent) == (0, values)
    assert isinstance(posted.error, MackerelBusy)
    assert server.counts()["POST /api/v0/services/<service>/tsdb"] == 1


def test_an_outage_of_a_services_values_is_tried_again(
    server: MackerelServer, client: Mackerel
) -> None:
    client.create_service("shop")
    server.turn_on(Fault("outage", times=1))
    assert client.post_service("shop", [Value("ecs.web.cpu", NOW, 1.5)]).error is None


def test_what_was_taken_before_an_outage_is_told(
    server: MackerelServer, client: Mackerel, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("containermetrics.mackerel._VALUES_PER_REQUEST", 10)
    client.seconds_left = lambda: 0 if len(server.requests("POST /api/v0/tsdb")) == 2 else 60
    values = some(host, 35)
    posted = client.post_values(values)
    assert (posted.sent, posted.unsent) == (20, values[20:])
    assert "no time left" in str(posted.error)
    assert len(kept(server, host)) == 20


def test_annotations_are_listed_made_and_changed(client: Mackerel) -> None:
    assert client.annotations("shop", NOW, NOW) == []
    client.create_service("shop")
    body = {"title": "t", "description": "d", "from": NOW, "to": NOW, "service": "shop"}
    client.annotate(body)
    [made] = client.annotations("shop", NOW - 60, NOW)
    client.change_annotation(made["id"], {**body, "title": "other"})
    assert [one["title"] for one in client.annotations("shop", NOW, NOW)] == ["other"]


def test_alerts_are_read_page_by_page(server: MackerelServer, client: Mackerel) -> None:
    for number in range(205):
        server.add_alert(id=f"a{number}", openedAt=NOW + number)
    server.add_alert(id="closed", closedAt=NOW, openedAt=NOW - 1)
    assert [one["id"] for one in client.alerts()] == [f"a{n}" for n in reversed(range(205))]
    assert len(list(client.alerts(with_closed=True))) == 206
    assert server.counts()["GET /api/v0/alerts"] == 6


def test_the_hosts_of_a_role_are_listed_whatever_their_status(client: Mackerel, host: str) -> None:
    client.create_host("db", "c.db", ["shop:db"])
    off = client.create_host("web-green", "c.web-green", ["shop:web"])
    client.set_statuses([off], "poweroff")
    assert {one["id"] for one in client.hosts("shop", "web")} == {host, off}
    assert client.hosts("unknown", "web") == []


def test_all_monitors_are_listed(server: MackerelServer, client: Mackerel) -> None:
    client.create_service("shop")
    alert = server.open_alert(service="shop")
    services = {one["id"]: one.get("service") for one in client.monitors()}
    assert services[alert["monitorId"]] == "shop"


def test_one_wrong_graph_definition_costs_no_other(
    server: MackerelServer, client: Mackerel
) -> None:
    def definition(name: str) -> dict[str, Any]:
        return {"name": name, "unit": "float", "metrics": [{"name": f"{name}.a"}]}

    problems = client.define_graphs(
        [definition("custom.a.#"), definition("b"), definition("custom.c")]
    )
    assert set(server.graph_definitions()) == {"custom.a.#", "custom.c"}
    assert len(problems) == 1
    assert problems[0].startswith("graph b: POST /graph-defs/create: 400 name is invalid")


# -------------------------------------------------------------------------- values that are bad


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Value("custom.ecs.cpu.app.total", 0, 1.5), ""),
        (Value("custom.a", 0, 0), ""),
        (Value("custom.a", 0, math.nan), "custom.a is nan"),
        (Value("custom.a", 0, -math.inf), "custom.a is -inf"),
        (Value("custom.a b", 0, 1), "no metric name: 'custom.a b'"),
        (Value("custom..a", 0, 1), "no metric name: 'custom..a'"),
        (Value("custom.a.", 0, 1), "no metric name: 'custom.a.'"),
        (Value("", 0, 1), "no metric name: ''"),
        (Value("custom.é", 0, 1), "no metric name: 'custom.é'"),
        (Value("a" * 255, 0, 1), ""),
        (Value("a" * 256, 0, 1), f"metric name of 256 characters: {'a' * 80}…"),
    ],
)
def test_bad_values_are_known_before_they_are_sent(value: Value, reason: str) -> None:
    assert fault(value) == reason


def test_thousands_of_values_go_in_few_requests_and_in_their_order(
    server: MackerelServer, client: Mackerel, host: str
) -> None:
    values = [
        Value(f"custom.m.v{n % 100}", NOW - 6000 + n // 100 * 60, n, host) for n in range(5000)
    ]
    assert client.post_values(values).sent == 5000
    requests = server.requests("POST /api/v0/tsdb")
    assert [request.values for request in requests] == [2000, 2000, 1000]
    moments = [time for request in requests if request.times for time in request.times]
    assert moments == sorted(moments)
    assert sum(len(series) for series in kept(server, host).values()) == 5000


def test_bad_values_among_thousands_cost_only_themselves(
    server: MackerelServer, client: Mackerel, host: str
) -> None:
    values = some(host, 3000)
    values[1234] = values[1234]._replace(value=math.nan)
    values[5] = values[5]._replace(name="custom." + "x" * 300)
    posted = client.post_values(values)
    assert (posted.sent, posted.refused) == (2998, 2)
    assert len(kept(server, host)) == 2998
    assert server.counts()["POST /api/v0/tsdb"] == 2
    assert [refusal.status for refusal in posted.refusals] == [0, 0]


def test_a_value_that_only_mackerel_finds_wrong_is_searched_for(
    server: MackerelServer, client: Mackerel, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that is not in the documentation, as far as the client knows."""
    monkeypatch.setattr("containermetrics.mackerel._MOST_NAME", 1000)
    values = some(host, 3000)
    for place in (0, 1999, 2500):
        values[place] = values[place]._replace(name=f"custom.{'x' * 300}{place}")
    posted = client.post_values(values)
    assert (posted.sent, posted.refused) == (2997, 3)
    assert [refusal.values[0] for refusal in posted.refusals] == [
        values[0],
        values[1999],
        values[2500],
    ]
    assert all("too long" in refusal.reason for refusal in posted.refusals)
    assert len(kept(server, host)) == 2997
    assert server.counts()["POST /api/v0/tsdb"] < 80


def test_a_search_ends_when_everything_is_refused(
    server: MackerelServer, client: Mackerel, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("containermetrics.mackerel._MOST_NAME", 1000)
    values = [one._replace(name=one.name + "x" * 300) for one in some(host, 2000)]
    posted = client.post_values(values)
    assert (posted.sent, posted.refused) == (0, 2000)
    assert server.counts()["POST /api/v0/tsdb"] < 250


def test_an_unknown_host_is_told_with_all_its_values_and_costs_no_other(
    server: MackerelServer, client: Mackerel, host: str
) -> None:
    other = client.create_host("web-green", "c.web-green")
    values = [*some(host, 150), *some("unknown", 150), *some(other, 150)]
    posted = client.post_values(values)
    assert (posted.sent, posted.refused) == (300, 150)
    [refusal] = posted.refusals
    assert (refusal.status, {value.host for value in refusal.values}) == (404, {"unknown"})
    assert len(kept(server, host)) == len(kept(server, other)) == 150
    assert server.counts()["POST /api/v0/tsdb"] == 4


# -------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(("key", "status"), [("wrong", 401), ("reader", 403)])
def test_a_wrong_key_is_told_and_shown_nowhere(
    server: MackerelServer, key: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(InvalidKey, match=str(status)) as invalid:
        make(server, key).post_values(some("h", 1))
    assert invalid.value.status == status
    assert len(server.requests()) == 1
    assert KEY not in caplog.text


def test_a_key_from_a_file_with_a_line_end_works_and_one_that_is_no_key_is_not_shown(
    server: MackerelServer,
) -> None:
    assert make(server, f" {KEY}\n").find_host("c") is None
    for wrong in (f"{KEY}\n{KEY}", f"{KEY}é", " ", ""):
        with pytest.raises(InvalidKey) as invalid:
            make(server, wrong)
        assert KEY not in str(invalid.value)


def test_no_error_shows_the_key(server: MackerelServer, client: Mackerel, host: str) -> None:
    errors: list[MackerelError] = []
    for name in ("outage", "throttle", "wrong_key", "lost_answer", "refused"):
        server.turn_on(Fault(name))
        with pytest.raises(MackerelError) as error:
            client.set_statuses([host], "standby")
        errors.append(error.value)
        server.turn_off()
    for one in errors:
        assert KEY not in f"{one!r} {one.__cause__!r} {one.__context__!r} {vars(one)}"
        assert "POST /hosts/bulk-update-statuses: " in str(one)
        assert " at 0x" not in str(one)
    assert KEY not in repr(client)


@pytest.mark.parametrize("name", ["outage", "throttle"])
def test_what_passes_is_tried_again(
    server: MackerelServer, client: Mackerel, host: str, name: Any
) -> None:
    server.turn_on(Fault(name, times=3))
    assert client.post_values(some(host, 2)).sent == 2
    assert [request.status for request in server.requests("POST /api/v0/tsdb")][3:] == [200]


def test_what_does_not_pass_is_given_up(
    server: MackerelServer, client: Mackerel, host: str
) -> None:
    server.turn_on(Fault("outage"))
    assert "503 Service unavailable" in str(client.post_values(some(host, 2)).error)
    assert server.counts()["POST /api/v0/tsdb"] == 4


def test_throttling_waits_as_long_as_mackerel_says(server: MackerelServer, host: str) -> None:
    server.turn_on(Fault("throttle", seconds=1, times=1))
    began = time.monotonic()
    assert make(server).post_values(some(host, 1)).sent == 1
    assert time.monotonic() - began >= 1


def test_throttling_past_the_time_that_is_left_is_given_up_at_once(
    server: MackerelServer, host: str
) -> None:
    server.turn_on(Fault("throttle", seconds=60))
    client = make(server, seconds_left=lambda: 20)
    began = time.monotonic()
    error = str(client.post_values(some(host, 1)).error)
    assert "429 Too many requests. (again after 60 s)" in error
    assert time.monotonic() - began < 15
    assert server.counts()["POST /api/v0/tsdb"] == 1


def test_without_time_nothing_is_begun(server: MackerelServer) -> None:
    with pytest.raises(MackerelUnavailable, match="no time left"):
        make(server, seconds_left=lambda: 0).find_host("c")
    assert server.requests() == []


def test_nobody_listening_is_unavailable(client: Mackerel, server: MackerelServer) -> None:
    server.turn_on(Fault("refused"))
    with pytest.raises(MackerelUnavailable, match="refused"):
        client.find_host("c")


def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    client = Mackerel("http://mackerel.invalid", KEY, "1", pause_seconds=0.01)
    with pytest.raises(MackerelUnavailable):
        client.find_host("c")


def test_a_slow_server_is_given_up_within_the_time(
    server: MackerelServer, client: Mackerel, host: str
) -> None:
    server.turn_on(Fault("slow", seconds=30))
    client.seconds_left = lambda: 1.0
    began = time.monotonic()
    assert "timed out" in str(client.post_values(some(host, 1)).error).lower()
    assert time.monotonic() - began < 15


def test_somebody_else_on_the_port_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Mackerel(
            f"http://127.0.0.1:{listener.getsockname()[1]}",
            KEY,
            "1",
            timeout_seconds=0.2,
            attempts=2,
            pause_seconds=0.01,
        )
        with pytest.raises(MackerelUnavailable):
            client.find_host("c")


class Stranger:
    """Something on a port that is not Mackerel. seen: the headers that it was sent."""

    def __init__(self, status: int, **headers: str) -> None:
        self.seen: list[Mapping[str, str]] = []
        stranger = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stranger.seen.append(dict(self.headers))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "9")
                self.end_headers()
                self.wfile.write(b"<p>no</p>")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.parametrize("status", [200, 400, 404, 405])
def test_what_not_mackerel_has_answered_is_no_refusal(status: int) -> None:
    with Stranger(status) as stranger:
        client = Mackerel(stranger.url, KEY, "1", pause_seconds=0.01)
        with pytest.raises(MackerelUnavailable):
            client.find_host("c")


def test_the_key_does_not_follow_a_redirect() -> None:
    with Stranger(200) as elsewhere, Stranger(302, Location=elsewhere.url) as stranger:
        client = Mackerel(stranger.url, KEY, "1", pause_seconds=0.01)
        with pytest.raises(MackerelUnavailable, match="302"):
            client.find_host("c")
        assert [headers["X-Api-Key"] for headers in stranger.seen] == [KEY]
        assert elsewhere.seen == []


def test_a_lost_answer_is_asked_again_where_that_does_no_harm(
    server: MackerelServer, client: Mackerel, host: str
) -> None:
    server.turn_on(Fault("lost_answer", times=1))
    assert client.post_values(some(host, 3)).sent == 3
    assert len(kept(server, host)) == 3


def test_a_lost_answer_makes_no_second_host_and_no_second_annotation(
    server: MackerelServer, client: Mackerel
) -> None:
    server.turn_on(Fault("lost_answer", times=1))
    with pytest.raises(MackerelUnavailable):
        client.create_host("web-blue", "c.web-blue", ["shop:web"])
    assert len(server.organization.hosts) == 1
    server.turn_on(Fault("lost_answer", times=1))
    with pytest.raises(MackerelUnavailable):
        client.annotate({"title": "t", "from": NOW, "to": NOW, "service": "shop"})
    assert len(server.organization.annotations) == 1


def test_a_throttled_creation_is_tried_again(server: MackerelServer, client: Mackerel) -> None:
    server.turn_on(Fault("throttle", times=1))
    client.create_host("web-blue", "c.web-blue")
    assert len(server.organization.hosts) == 1


def test_an_unknown_role_name_says_which(client: Mackerel) -> None:
    with pytest.raises(MackerelRefused, match="400 name is invalid: '-web'") as refused:
        client.create_host("a", "c.a", ["shop:-web"])
    assert not isinstance(refused.value, InvalidKey)


@pytest.mark.parametrize("offset", [0, 0.9, -0.9, 600, -7200])
def test_the_difference_of_the_clocks_is_known(server: MackerelServer, offset: float) -> None:
    client = make(server, clock=lambda: NOW - offset)
    client.find_host("c")
    assert client.ahead == pytest.approx(0 if abs(offset) < 1 else offset, abs=1)
