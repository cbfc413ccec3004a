"""S3: moto's buckets, but for their policies.

They are kept and not enforced, like all permissions here. moto does enforce them, and without
looking at conditions: a bucket that refuses what does not come by TLS would refuse everything.
"""

from __future__ import annotations

from typing import Any

from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket


def install() -> None:
    """Let every request through from now on."""

    def get_permission(_bucket: Any, _action: str, _resource: str) -> Any:
        return PermissionResult.NEUTRAL

    patched: Any = FakeBucket
    patched.get_permission = get_permission
