"""What a function is told by its environment."""

from __future__ import annotations

import pytest

from bluegreen.routers.hosts import Documents
from runtime.settings import Settings, SettingsError

COMPLETE = {
    "TABLE_NAME": "deployments",
    "LEASE_SECONDS": "600",
    "SETTLE_SECONDS": "35",
    "SERVICE_PARAMETER_PREFIX": "/bluegreen/services",
}


def test_a_complete_environment() -> None:
    found = Settings.from_env(COMPLETE | {"UNRELATED": "x"})
    nowhere = Documents(report="", stage="", commit="")
    assert found == Settings("deployments", 600, 35, "/bluegreen/services", "", nowhere)


def test_only_recovery_is_told_the_state_machine() -> None:
    assert Settings.from_env(COMPLETE | {"STATE_MACHINE_ARN": "arn"}).state_machine_arn == "arn"


def test_who_asks_or_switches_hosts_is_told_with_what() -> None:
    told = {
        "HOST_REPORT_DOCUMENT": "report",
        "HOST_STAGE_DOCUMENT": "stage",
        "HOST_COMMIT_DOCUMENT": "commit",
    }
    found = Settings.from_env(COMPLETE | told).host_documents
    assert found == Documents("report", "stage", "commit")


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as wrong:
        Settings.from_env({"TABLE_NAME": "", "LEASE_SECONDS": "ten"})
    assert str(wrong.value) == (
        "TABLE_NAME is not set; SETTLE_SECONDS is not set; "
        "SERVICE_PARAMETER_PREFIX is not set; LEASE_SECONDS is not a number: 'ten'"
    )
