"""What a function is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bluegreen.routers.hosts import Documents


class SettingsError(Exception):
    """The function's environment is incomplete: the template and the code disagree."""


@dataclass(frozen=True)
class Settings:
    """table: DynamoDB table. lease_seconds: how long a lock is held without a sign of life.
    settle_seconds: wait after taking a lock over, longer than any function may run.
    parameter_prefix: SSM path of the service configurations.
    state_machine_arn: only where executions are started ("" elsewhere).
    host_documents: only where hosts are asked or switched.
    """

    table: str
    lease_seconds: int
    settle_seconds: int
    parameter_prefix: str
    state_machine_arn: str
    host_documents: Documents

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises SettingsError that names every variable that is missing or no number."""
        required = ["TABLE_NAME", "LEASE_SECONDS", "SETTLE_SECONDS", "SERVICE_PARAMETER_PREFIX"]
        wrong = [f"{name} is not set" for name in required if not env.get(name)]
        wrong += [
            f"{name} is not a number: {env[name]!r}"
            for name in ("LEASE_SECONDS", "SETTLE_SECONDS")
            if env.get(name) and not env[name].isdecimal()
        ]
        if wrong:
            raise SettingsError("; ".join(wrong))
        return cls(
            table=env["TABLE_NAME"],
            lease_seconds=int(env["LEASE_SECONDS"]),
            settle_seconds=int(env["SETTLE_SECONDS"]),
            parameter_prefix=env["SERVICE_PARAMETER_PREFIX"],
            state_machine_arn=env.get("STATE_MACHINE_ARN", ""),
            host_documents=Documents(
                report=env.get("HOST_REPORT_DOCUMENT", ""),
                stage=env.get("HOST_STAGE_DOCUMENT", ""),
                commit=env.get("HOST_COMMIT_DOCUMENT", ""),
            ),
        )
