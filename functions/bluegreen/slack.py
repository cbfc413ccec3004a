"""Slack: an announcement as a message to an incoming webhook.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

from __future__ import annotations

import re

import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError

from bluegreen.announcement import Announcement, details, headline
from bluegreen.errors import BlueGreenError

_PATH = re.compile(r"/services/[A-Za-z0-9/_-]{1,200}")
# What is longer does not look like a message any more, and from 40,000 characters on Slack cuts it:
# https://docs.slack.dev/reference/methods/chat.postMessage#truncating
_LONGEST = 3500
_CONNECT_SECONDS = 3
_READ_SECONDS = 8
_DEFAULT_RETRY_SECONDS = 30
_LONGEST_RETRY_SECONDS = 900
# Slack says of its other faults that some of what was asked may have been done all the same:
# https://docs.slack.dev/reference/methods/chat.postMessage#errors
_TAKES_NOTHING = "service_unavailable"
_SERVER_FAULT = 500


class SlackRefused(BlueGreenError):
    """Certainly not posted. retry_after: seconds, None if Slack does not say when it would be."""

    def __init__(self, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class SlackUnsure(BlueGreenError):
    """It may be posted or not: the answer is missing, or says as much."""


def text(announcement: Announcement) -> str:
    """The message in Slack's markup. The headline and the link stay, however long the reason is.

    Three characters are Slack's own:
    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    first, *rest = [headline(announcement), *details(announcement)]
    last = [_escaped(rest.pop())] if announcement.execution_arn else []
    top = f"*{_escaped(first)}*"
    middle = _cut("\n".join(rest), _LONGEST - len(top) - len("".join(last)))
    return "\n".join([top, middle, *last])


def post(webhook: str, origin: str, announcement: Announcement) -> None:
    """Post it, once. The webhook is the secret: it is in no error.

    origin: what it begins with, so that one that somebody has stored there leads nowhere else.
    Raises SlackRefused, SlackUnsure.
    """
    if not webhook.startswith(origin) or not _PATH.fullmatch(webhook.removeprefix(origin)):
        raise SlackRefused(f"the webhook is none of Slack's: {origin}/services/…")
    try:
        answer = requests.post(
            webhook,
            json={"text": text(announcement), "unfurl_links": False},
            timeout=(_CONNECT_SECONDS, _READ_SECONDS),
            allow_redirects=False,
        )
    except requests.RequestException as error:
        name = type(error).__name__
        if _never_sent(error):
            raise SlackRefused(f"Slack cannot be reached ({name})") from None
        raise SlackUnsure(f"Slack has not answered ({name})") from None
    if answer.status_code == requests.codes.ok:
        return
    said = f"Slack answers {answer.status_code}: {answer.text[:100]!r}"
    if answer.status_code == requests.codes.too_many_requests:
        raise SlackRefused(said, _seconds(answer.headers.get("Retry-After", "")))
    if answer.status_code >= _SERVER_FAULT and answer.text.strip() != _TAKES_NOTHING:
        raise SlackUnsure(said)
    raise SlackRefused(said)


def _never_sent(error: requests.RequestException) -> bool:
    """Whether there was no connection yet that the message could have gone out by."""
    if isinstance(error, (requests.exceptions.ConnectTimeout, requests.exceptions.SSLError)):
        return True
    [cause, *_] = [*error.args, None]
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)


def _seconds(retry_after: str) -> int:
    """How long Slack wants us to wait: https://docs.slack.dev/apis/web-api/rate-limits"""
    if not retry_after.isdecimal():
        return _DEFAULT_RETRY_SECONDS
    return min(max(int(retry_after), 1), _LONGEST_RETRY_SECONDS)


def _cut(lines: str, room: int) -> str:
    """As much of a text as there is room for once it is escaped."""
    escaped = [_escaped(character) for character in lines]
    while sum(map(len, escaped)) > room:
        escaped[-2:] = ["…"]
    return "".join(escaped)


def _escaped(said: str) -> str:
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
