"""What of a regular expression amazon-ssm-agent can read.

The agent checks values on the instance again, with Go's regexp (RE2). It drops a command, which
then never answers, when it cannot read its allowedPattern. https://pkg.go.dev/regexp/syntax
This knows what Python has and RE2 lacks, not every detail of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

MOST_REPETITIONS = 1000
"""Counts above it are refused; those of nested repetitions are multiplied."""
TOKEN = re.compile(
    r"(?P<class>\[\^?\]?(?:\\.|[^]\\])*\])|(?P<escape>\\.)|(?P<group>\((?:\?(?:P.|<.|.))?)|(?P<end>\))"
    r"|(?P<count>\{[0-9]*,?[0-9]*\}\??)|(?P<repeat>[*+?]\??)|(?P<plain>.)",
    re.DOTALL,
)
ESCAPES = "AbBdDsSwWafnrtvx"
GROUP = re.compile(r"\((\?(P<|[imsU:-]))?")


def complaints(pattern: str) -> Iterator[str]:
    """What is wrong with a regular expression of Python's as one of RE2."""
    try:
        re.compile(pattern)
    except re.error as error:
        yield str(error)
        return
    tokens = [(str(found.lastgroup), found[0]) for found in TOKEN.finditer(pattern)]
    yield from _unknown(tokens)
    yield from _too_often(tokens)


def _unknown(tokens: Sequence[tuple[str, str]]) -> Iterator[str]:
    before = ""
    for kind, text in tokens:
        if kind in ("class", "escape"):
            for escape in re.findall(r"\\(.)", text, re.DOTALL):
                if escape.isalnum() and escape not in ESCAPES:
                    yield f"\\{escape} is not known"
        elif kind == "group" and not GROUP.fullmatch(text):
            yield f"{text} is not known"
        elif kind in ("count", "repeat") and before in ("count", "repeat"):
            yield f"{text} after a repetition is not known"
        elif text.startswith(("{,", "{}")):
            yield f"{text} is no repetition"
        before = kind


def _too_often(tokens: Sequence[tuple[str, str]]) -> Iterator[str]:
    # Of each open group, how often something in it may be repeated; and of the item just read.
    open_groups, last = [1], 1
    for kind, text in tokens:
        if kind == "group":
            open_groups.append(1)
        elif kind == "end":
            last = open_groups.pop()
            open_groups[-1] = max(open_groups[-1], last)
        elif kind == "count":
            last *= max(int(count) for count in re.findall("[0-9]+", text) or ["1"])
            open_groups[-1] = max(open_groups[-1], last)
            if last > MOST_REPETITIONS:
                yield f"{text} makes {last} repetitions, at most {MOST_REPETITIONS} are possible"
        elif kind != "repeat":
            last = 1
