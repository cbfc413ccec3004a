"""What a function is told by its environment."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from bluegreen.routers.hosts import Documents
from runtime.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]
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


def test_who_tells_people_and_asks_others_is_told_where() -> None:
    told = {
        "ANNOUNCEMENTS_QUEUE_URL": "https://sqs/announcements.fifo",
        "TOPIC_ARN": "arn:topic",
        "SLACK_PARAMETER_PREFIX": "/bluegreen/slack",
        "SLACK_URL": "https://hooks.slack.com",
        "MACKEREL_URL": "https://api.mackerelio.com",
        "MACKEREL_KEY_PARAMETER": "/bluegreen/mackerel",
        "HISTORY_DAYS": "400",
        "RELEASE_EXECUTIONS": "arn:releases",
    }
    found = Settings.from_env(COMPLETE | told)
    assert (found.announcements_queue, found.topic) == (
        "https://sqs/announcements.fifo",
        "arn:topic",
    )
    assert (found.slack_prefix, found.slack_url) == ("/bluegreen/slack", "https://hooks.slack.com")
    assert (found.mackerel_url, found.mackerel_key) == (
        "https://api.mackerelio.com",
        "/bluegreen/mackerel",
    )
    assert found.history_days == 400
    assert found.releases == "arn:releases"


@pytest.mark.parametrize("days", [{}, {"HISTORY_DAYS": ""}, {"HISTORY_DAYS": "0"}], ids=str)
def test_without_a_number_of_days_all_history_is_kept(days: dict[str, str]) -> None:
    assert Settings.from_env(COMPLETE | days).history_days == 0


@pytest.mark.parametrize("days", ["-1", "a year", "1.5", "1e3"])
def test_a_number_of_days_that_is_none_is_said(days: str) -> None:
    with pytest.raises(SettingsError, match=f"^HISTORY_DAYS is not a number: '{days}'$"):
        Settings.from_env(COMPLETE | {"HISTORY_DAYS": days})


def test_nothing_is_told_that_nobody_wants_to_know() -> None:
    sources = [
        path.read_text()
        for path in (ROOT / "functions").rglob("*.py")
        if path.name != "settings.py"
    ]
    unread = [
        one.name
        for one in fields(Settings)
        if not any(f"settings.{one.name}" in source for source in sources)
    ]
    assert unread == []


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as wrong:
        Settings.from_env({"TABLE_NAME": "", "LEASE_SECONDS": "ten"})
    assert str(wrong.value) == (
        "TABLE_NAME is not set; SETTLE_SECONDS is not set; "
        "SERVICE_PARAMETER_PREFIX is not set; LEASE_SECONDS is not a number: 'ten'"
    )
