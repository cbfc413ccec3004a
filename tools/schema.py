"""Write service.schema.json, which lets editors check a service configuration.

Usage: PYTHONPATH=functions schema.py [--check]. With --check nothing is written and the exit status
is 1 when the file is not what the models say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bluegreen.configuration import ServiceConfiguration

SCHEMA = Path(__file__).parent.parent / "service.schema.json"


def main(arguments: list[str]) -> int:
    """Write the schema, or compare it; return the exit status."""
    wanted = json.dumps(ServiceConfiguration.model_json_schema(), indent=2) + "\n"
    if arguments != ["--check"]:
        SCHEMA.write_text(wanted)
        return 0
    if SCHEMA.exists() and SCHEMA.read_text() == wanted:
        return 0
    print(
        f"{SCHEMA.name} is not what the models in functions/bluegreen/configuration.py say.\n"
        "Write it anew: PYTHONPATH=functions .venv/bin/python tools/schema.py",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
