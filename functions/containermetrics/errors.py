"""Every error of the container metrics, in one tree.

What one cluster, host or value raises never keeps the others from being sent::

MetricsError
├── InvalidMetricsConfiguration   the metrics configuration of a cluster is wrong
├── SourceUnavailable             a cluster's numbers cannot be read; the others go on
└── MackerelError                 Mackerel did not take something
    ├── MackerelRefused           it never will: what was sent is wrong (status, message)
    │   └── InvalidKey            the API key is wrong or may not write
    └── MackerelUnavailable       it may later: overloaded, down, or not reached
        └── MackerelBusy          it was asked too often (429)
"""

from __future__ import annotations


class MetricsError(Exception):
    """Base of all errors raised on purpose; its text is what the person on call reads."""


class InvalidMetricsConfiguration(MetricsError):
    pass


class SourceUnavailable(MetricsError):
    pass


class MackerelError(MetricsError):
    pass


class MackerelRefused(MackerelError):
    """status: of the HTTP answer. message: what Mackerel said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class InvalidKey(MackerelRefused):
    pass


class MackerelUnavailable(MackerelError):
    pass


class MackerelBusy(MackerelUnavailable):
    pass
