"""Asking through a load balancer which colour answers."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from bluegreen.color import Color
from bluegreen.configuration import Probe
from bluegreen.deployment import Deployment

# A probe must be over well within a function's timeout (30 s), however many answers it wants.
_TIMEOUT_SECONDS = 2.0
_BUDGET_SECONDS = 12.0
_MISSED_BY_CHANCE = 1e-4


class _CertificateOf(HTTPAdapter):
    """Expects the certificate of a host, whatever address the load balancer is reached at."""

    def __init__(self, host: str | None) -> None:
        self._host = host
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Send the host in TLS's server name, and look for it in the certificate."""
        super().init_poolmanager(
            *args, server_hostname=self._host, assert_hostname=self._host, **kwargs
        )


def ask(deployment: Deployment, probe: Probe, color: Color, port: int) -> str:
    """Whether so many answers in a row come from a colour, and are fine.

    Returns "" when they are, else what was wrong with the first answer that was not.
    """
    url, wanted = _url(deployment, probe, port), deployment.rendered(probe.value, color)
    began = time.monotonic()
    for number in range(probe.consecutive):
        if time.monotonic() - began > _BUDGET_SECONDS:
            return (
                f"GET {url}: {number} answers took {_BUDGET_SECONDS:.0f} s; "
                f"make the path faster or ask for fewer than {probe.consecutive} in a row"
            )
        answer = _get(url, probe)
        if isinstance(answer, str):
            return answer
        if not answer.ok:
            return f"GET {url}: status {answer.status_code}"
        found = answer.headers.get(probe.header)
        if found != wanted:
            return f"GET {url}: {probe.header} is {found!r}, not {wanted!r}"
    return ""


@dataclass(frozen=True)
class Seen:
    """Which colours have answered since a shift, in so many answers to all looks together.

    wrong: what the last look lacks; "" when both have answered.
    """

    colors: Sequence[Color] = ()
    answers: int = 0
    wrong: str = ""


def seen_before(shift: Mapping[str, Any]) -> Seen:
    """What earlier looks have seen. shift: ``$.shift``."""
    seen = shift.get("seen", {})
    colors = [Color(one) for one in seen.get("colors", [])]
    return Seen(colors, seen.get("answers", 0))


def ask_both(deployment: Deployment, probe: Probe, percent: int, port: int, before: Seen) -> Seen:
    """Whether both colours answer while each has a part of the traffic; how well is not asked.

    percent: what the new colour has. What answers otherwise is the old one, whose answers need not
    be as the probe wants them. There are so many questions that the smaller share may expect to be
    found as often as a probe asks in a row, and that chance hides it in one look of ten thousand
    at most ((1 - share) ** questions). Answers that take too long for that are asked for in the
    next look, beside what was seen before.
    """
    url, wanted = (
        _url(deployment, probe, port),
        deployment.rendered(probe.value, deployment.to_color),
    )
    share = min(percent, 100 - percent) / 100
    surely = math.log(_MISSED_BY_CHANCE) / math.log(1 - share)
    questions = math.ceil(max(probe.consecutive / share, surely))
    began = time.monotonic()
    colors, asked = list(before.colors), 0
    while len(colors) < 2 and asked < questions and time.monotonic() - began <= _BUDGET_SECONDS:
        answer = _get(url, probe)
        if isinstance(answer, str):
            return Seen(colors, before.answers + asked, answer)
        is_new = answer.headers.get(probe.header) == wanted
        color = deployment.to_color if is_new else deployment.to_color.other
        if (is_new or answer.ok) and color not in colors:
            colors.append(color)
        asked += 1
    answers = before.answers + asked
    missing = [one for one in (deployment.to_color, deployment.to_color.other) if one not in colors]
    if not missing:
        return Seen(colors, answers)
    wrong = f"GET {url}: {' and '.join(missing)} in none of {answers} answers"
    if answers < questions:
        wrong += (
            f", and it takes {questions} to tell that from chance: make probe.path faster, "
            "probe.timeout_seconds longer or the step bigger"
        )
    return Seen(colors, answers, wrong)


def _url(deployment: Deployment, probe: Probe, port: int) -> str:
    return f"{probe.scheme}://{deployment.load_balancer_dns}:{port}{probe.path}"


def _get(url: str, probe: Probe) -> requests.Response | str:
    """An answer, or why there was none.

    Every question goes over a new connection, so that none is answered from an old one's target.
    """
    headers = {"Connection": "close"} | ({"Host": probe.host} if probe.host else {})
    try:
        with requests.Session() as session:
            session.mount("https://", _CertificateOf(probe.host))
            return session.get(
                url, headers=headers, timeout=_TIMEOUT_SECONDS, allow_redirects=False
            )
    except requests.RequestException as error:
        return f"GET {url}: {error}"
