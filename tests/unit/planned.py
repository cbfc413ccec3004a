"""A planned deployment of examples/shifted-ports: from blue to green, image v2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bluegreen.color import Color
from bluegreen.configuration import ServiceConfiguration
from bluegreen.deployment import Deployment, Overrides, ServiceSnapshot, Snapshot, StartedBy

BLUE, GREEN = Color.BLUE, Color.GREEN
EXAMPLE = Path(__file__).parents[2] / "examples" / "shifted-ports" / "service.yaml"
DIGEST = "sha256:" + "a" * 64
IMAGE = f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/web@{DIGEST}"
SECRET = "hunter2"


def planned(*, from_color: Color | None = BLUE, **sections: Any) -> Deployment:
    """sections: of the service configuration, instead of the example's."""
    configuration = yaml.safe_load(EXAMPLE.read_text()) | sections
    service = ServiceSnapshot(task_definition="web:1", desired_count=2, running_count=2)
    return Deployment(
        id="d-1",
        service="web",
        execution_arn="arn:aws:states:eu-west-1:123456789012:execution:deployer:d-1",
        fencing=1,
        decision="deploy",
        started_at=1000.0,
        configuration=ServiceConfiguration.model_validate(configuration),
        from_color=from_color,
        to_color=GREEN,
        images={"web": IMAGE},
        overrides=Overrides(environment={"web": {"PASSWORD": SECRET}}),
        location=None,
        test_location=None,
        load_balancer_dns="web.elb.amazonaws.com",
        target_groups={},
        stickiness_seconds=0,
        deregistration_seconds=0,
        snapshot=Snapshot(traffic={BLUE: 100, GREEN: 0}, services={BLUE: service, GREEN: service}),
        follows=None,
        started_by=StartedBy(kind="push", detail="v2"),
    )
