"""How hypothesis runs in this project."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples in every run, so that a red test is red for everybody; no deadline, because a
# busy machine is no defect of the code.
settings.register_profile(
    "project",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")
