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
    state_machine_arn: only where executions are started ("" elsewhere). releases: what the ARNs of
    the executions of releases begin with, up to their name.
    host_documents: only where hosts are asked or switched. announcements_queue: what people are to
    be told goes there. topic: of the stack, for SNS. slack_prefix: SSM path of the webhooks,
    slack_url: what each of them begins with.
    mackerel_url, mackerel_key: Mackerel's address and the SSM parameter with the API key.
    history_days: how long a deployment is kept once another has followed it.
    """

    table: str
    lease_seconds: int
    settle_seconds: int
    parameter_prefix: str
    state_machine_arn: str
    host_documents: Documents
    announcements_queue: str = ""
    topic: str = ""
    slack_prefix: str = ""
    slack_url: str = ""
    mackerel_url: str = ""
    mackerel_key: str = ""
    history_days: int = 0
    releases: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises SettingsError that names every variable that is missing or no number."""
        required = ["TABLE_NAME", "LEASE_SECONDS", "SETTLE_SECONDS", "SERVICE_PARAMETER_PREFIX"]
        wrong = [f"{name} is not set" for name in required if not env.get(name)]
        wrong += [
            f"{name} is not a number: {env[name]!r}"
            for name in ("LEASE_SECONDS", "SETTLE_SECONDS", "HISTORY_DAYS")
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
            announcements_queue=env.get("ANNOUNCEMENTS_QUEUE_URL", ""),
            topic=env.get("TOPIC_ARN", ""),
            slack_prefix=env.get("SLACK_PARAMETER_PREFIX", ""),
            slack_url=env.get("SLACK_URL", ""),
            mackerel_url=env.get("MACKEREL_URL", ""),
            mackerel_key=env.get("MACKEREL_KEY_PARAMETER", ""),
            history_days=int(env.get("HISTORY_DAYS") or 0),
            releases=env.get("RELEASE_EXECUTIONS", ""),
        )


@dataclass(frozen=True)
class MetricsSettings:
    """What the functions that push container metrics are told.

    site: ``<account>.<region>``. table: DynamoDB table. parameter_prefix, service_prefix: SSM paths
    of the metrics and of the service configurations. The rest is only where it is used, ""
    elsewhere: the queues, the SSM document that reads cgroups and the bucket for long output,
    Mackerel's address and the SSM parameter with the API key, the deployments.
    """

    site: str
    table: str
    parameter_prefix: str
    service_prefix: str
    collect_queue: str
    deliver_queue: str
    document: str
    bucket: str
    mackerel_url: str
    mackerel_key: str
    deployments_table: str

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> MetricsSettings:
        """Raises SettingsError that names every variable that is missing."""
        required = [
            "METRICS_SITE",
            "METRICS_TABLE_NAME",
            "METRICS_PARAMETER_PREFIX",
            "SERVICE_PARAMETER_PREFIX",
        ]
        wrong = [f"{name} is not set" for name in required if not env.get(name)]
        if wrong:
            raise SettingsError("; ".join(wrong))
        return cls(
            site=env["METRICS_SITE"],
            table=env["METRICS_TABLE_NAME"],
            parameter_prefix=env["METRICS_PARAMETER_PREFIX"],
            service_prefix=env["SERVICE_PARAMETER_PREFIX"],
            collect_queue=env.get("COLLECT_QUEUE_URL", ""),
            deliver_queue=env.get("DELIVER_QUEUE_URL", ""),
            document=env.get("METRICS_DOCUMENT", ""),
            bucket=env.get("METRICS_BUCKET", ""),
            mackerel_url=env.get("MACKEREL_URL", ""),
            mackerel_key=env.get("MACKEREL_KEY_PARAMETER", ""),
            deployments_table=env.get("TABLE_NAME", ""),
        )
