"""Put the host program into the document that installs it, hosts/documents/install.yaml.

Usage: host_program.py [--check]. With --check nothing is written and the exit status is 1 when the
document carries another program. It does so compressed: a document may have 64 KB.
"""

from __future__ import annotations

import base64
import gzip
import sys
import textwrap
from pathlib import Path

HOSTS = Path(__file__).parent.parent / "hosts"
PROGRAM = HOSTS / "ecs_bluegreen_host.py"
DOCUMENT = HOSTS / "documents" / "install.yaml"
BEGIN = "base64 --decode <<'PROGRAM' | gunzip >/usr/local/bin/.ecs-bluegreen-host\n"
END = "          PROGRAM\n"


def parts(document: str) -> tuple[str, str, str]:
    """Return a document in three: what is before the program, the program as text, the rest."""
    before, begin, rest = document.partition(BEGIN)
    text, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{DOCUMENT} has no place for the program")
    return before + begin, text, end + after


def carried(document: str) -> bytes:
    """Return the program that a document carries; b"" when there is none yet."""
    text = parts(document)[1]
    return gzip.decompress(base64.b64decode(text)) if text else b""


def with_program(document: str, program: bytes) -> str:
    """Return the document with this program in it."""
    before, _, after = parts(document)
    # No time and no name in it: the same program gives the same text.
    text = base64.b64encode(gzip.compress(program, mtime=0)).decode()
    lines = textwrap.indent("\n".join(textwrap.wrap(text, 88)), " " * 10)
    return f"{before}{lines}\n{after}"


def main(arguments: list[str]) -> int:
    """Write the document, or compare it; return the exit status."""
    document, program = DOCUMENT.read_text(), PROGRAM.read_bytes()
    if carried(document) == program:
        return 0
    if arguments == ["--check"]:
        print(
            f"{DOCUMENT.name} does not carry {PROGRAM.name} as it is.\n"
            "Put it there: .venv/bin/python tools/host_program.py",
            file=sys.stderr,
        )
        return 1
    DOCUMENT.write_text(with_program(document, program))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
