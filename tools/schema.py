"""Write service.schema.json and metrics.schema.json, which let editors check configurations, and
docs/events.schema.json, which says what our events on EventBridge hold.

Usage: PYTHONPATH=functions schema.py [--check]. With --check nothing is written and the exit status
is 1 when a file is not what the models say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from bluegreen.announcement import EventDetail
from bluegreen.configuration import ServiceConfiguration
from containermetrics.configuration import MetricsConfiguration

ROOT = Path(__file__).parent.parent
# What people write may leave out what has a default; what is sent has all of it.
SCHEMAS: dict[Path, tuple[type[BaseModel], JsonSchemaMode]] = {
    ROOT / "service.schema.json": (ServiceConfiguration, "validation"),
    ROOT / "metrics.schema.json": (MetricsConfiguration, "validation"),
    ROOT / "docs" / "events.schema.json": (EventDetail, "serialization"),
}


def main(arguments: list[str]) -> int:
    """Write the schemas, or compare them; return the exit status."""
    wrong = []
    for path, (model, mode) in SCHEMAS.items():
        wanted = json.dumps(model.model_json_schema(mode=mode), indent=2) + "\n"
        if arguments != ["--check"]:
            path.write_text(wanted)
        elif not path.exists() or path.read_text() != wanted:
            wrong.append(path.name)
    if wrong:
        print(
            f"not what the models in functions/ say: {', '.join(wrong)}.\n"
            "Write anew: PYTHONPATH=functions .venv/bin/python tools/schema.py",
            file=sys.stderr,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
