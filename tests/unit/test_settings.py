"""What a function is told by its environment."""

from __future__ import annotations

import pytest

from runtime.settings import Settings, SettingsError

COMPLETE = {
    "TABLE_NAME": "deployments",
    "LEASE_SECONDS": "600",
    "SETTLE_SECONDS": "35",
    "SERVICE_PARAMETER_PREFIX": "/bluegreen/services",
}


def test_a_complete_environment() -> None:
    found = Settings.from_env(COMPLETE | {"UNRELATED": "x"})
    assert found == Settings("deployments", 600, 35, "/bluegreen/services", "")


def test_only_recovery_is_told_the_state_machine() -> None:
    assert Settings.from_env(COMPLETE | {"STATE_MACHINE_ARN": "arn"}).state_machine_arn == "arn"


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as wrong:
        Settings.from_env({"TABLE_NAME": "", "LEASE_SECONDS": "ten"})
    assert str(wrong.value) == (
        "TABLE_NAME is not set; SETTLE_SECONDS is not set; "
        "SERVICE_PARAMETER_PREFIX is not set; LEASE_SECONDS is not a number: 'ten'"
    )
