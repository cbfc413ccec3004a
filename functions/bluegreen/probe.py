"""Asking through a load balancer which colour answers."""

from __future__ import annotations

import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from bluegreen.color import Color
from bluegreen.configuration import Probe
from bluegreen.deployment import Deployment

# A probe must be over well within a function's timeout (30 s), however many answers it wants.
_TIMEOUT_SECONDS = 2.0
_BUDGET_SECONDS = 12.0


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

    Every question goes over a new connection, so that none is answered from an old one's target.
    Returns "" when they are, else what was wrong with the first answer that was not.
    """
    url = f"{probe.scheme}://{deployment.load_balancer_dns}:{port}{probe.path}"
    wanted = deployment.rendered(probe.value, color)
    headers = {"Connection": "close"} | ({"Host": probe.host} if probe.host else {})
    began = time.monotonic()
    for number in range(probe.consecutive):
        if time.monotonic() - began > _BUDGET_SECONDS:
            return (
                f"GET {url}: {number} answers took {_BUDGET_SECONDS:.0f} s; "
                f"make the path faster or ask for fewer than {probe.consecutive} in a row"
            )
        try:
            with requests.Session() as session:
                session.mount("https://", _CertificateOf(probe.host))
                answer = session.get(
                    url, headers=headers, timeout=_TIMEOUT_SECONDS, allow_redirects=False
                )
        except requests.RequestException as error:
            return f"GET {url}: {error}"
        if not answer.ok:
            return f"GET {url}: status {answer.status_code}"
        found = answer.headers.get(probe.header)
        if found != wanted:
            return f"GET {url}: {probe.header} is {found!r}, not {wanted!r}"
    return ""
