"""What a function of Lambda is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Function:
    """What runs when ``name`` is invoked.

    ``logical_id`` is its name in the template, and the access key it calls AWS with, by which the
    operation log knows it. ``dead_letter_arn`` is the SQS queue for events it failed on. ``code``
    is the folder that it runs from.
    """

    logical_id: str
    name: str
    arn: str
    handler: str
    timeout: float
    memory: int
    environment: Mapping[str, str]
    log_group: str
    code: Path
    retries: int = 2
    dead_letter_arn: str | None = None
