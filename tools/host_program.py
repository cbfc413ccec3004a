"""Put the programs of the hosts into the documents that carry them (hosts/documents).

Usage: host_program.py [--check]. With --check nothing is written and the exit status is 1 when a
document carries another program. It does so compressed: a document may have 64 KB. A program stands
between a line that decompresses it and the word that ends the here-document; a document that keeps
what it has unpacked has a line ``version=`` too, which changes with its programs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOSTS = Path(__file__).parent.parent / "hosts"
INDENT = " " * 10
VERSION = re.compile(r"(?<=^ {10}version=).*$", re.MULTILINE)


@dataclass(frozen=True)
class Carrier:
    """A document. programs: the word that its here-document ends with → the program."""

    document: Path
    programs: Mapping[str, Path]


CARRIERS = (
    Carrier(HOSTS / "documents" / "install.yaml", {"PROGRAM": HOSTS / "ecs_bluegreen_host.py"}),
    Carrier(
        HOSTS / "documents" / "metrics.yaml",
        {
            "PROGRAM": HOSTS / "ecs_bluegreen_metrics.py",
            "PLUGIN": HOSTS / "mackerel_plugin_memcached.py",
        },
    ),
)


def parts(document: str, word: str) -> tuple[str, str, str]:
    """Return a document in three: what is before a program, the program as text, the rest."""
    begin = re.search(rf"^ *base64 --decode <<'{word}' \| gunzip >.*\n", document, re.MULTILINE)
    if begin is None:
        raise ValueError(f"the document has no place for {word}")
    text, end, after = document[begin.end() :].partition(f"{INDENT}{word}\n")
    if not end:
        raise ValueError(f"the document has no end of {word}")
    return document[: begin.end()], text, end + after


def carried(document: str, word: str = "PROGRAM") -> bytes:
    """Return a program that a document carries; b"" when there is none yet."""
    text = parts(document, word)[1]
    return gzip.decompress(base64.b64decode(text)) if text else b""


def with_program(document: str, program: bytes, word: str = "PROGRAM") -> str:
    """Return the document with this program in it."""
    before, _, after = parts(document, word)
    # No time and no name in it: the same program gives the same text.
    text = base64.b64encode(gzip.compress(program, mtime=0)).decode()
    lines = textwrap.indent("\n".join(textwrap.wrap(text, 88)), INDENT)
    return f"{before}{lines}\n{after}"


def up_to_date(document: str, programs: Mapping[str, bytes]) -> str:
    """Return the document with all its programs, and their version where it names one."""
    for word, program in programs.items():
        if carried(document, word) != program:
            document = with_program(document, program, word)
    digest = hashlib.sha256(b"".join(programs.values())).hexdigest()
    return VERSION.sub(digest[:12], document)


def main(arguments: list[str]) -> int:
    """Write the documents, or compare them; return the exit status."""
    status = 0
    for carrier in CARRIERS:
        document = carrier.document.read_text()
        programs = {word: path.read_bytes() for word, path in carrier.programs.items()}
        right = up_to_date(document, programs)
        if right == document:
            continue
        if arguments == ["--check"]:
            names = " and ".join(path.name for path in carrier.programs.values())
            print(
                f"{carrier.document.name} does not carry {names} as it is.\n"
                "Put it there: .venv/bin/python tools/host_program.py",
                file=sys.stderr,
            )
            status = 1
        else:
            carrier.document.write_text(right)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
