"""Reading what bluegreen/gates.py decides on: CloudWatch alarms and metrics, Mackerel's alerts.

What cannot be read is part of the answer, with the reason: it is not OK, but no crash either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import BotoCoreError, ClientError

from bluegreen import gates
from bluegreen.color import Color
from bluegreen.configuration import Bake, Role, ServiceConfiguration
from bluegreen.deployment import Deployment
from bluegreen.errors import AwsUnavailable
from bluegreen.gates import MINUTE, Alarm, Alert, Facts, Minute
from containermetrics.errors import MackerelError
from runtime import clients, mackerel
from runtime.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

    from containermetrics.mackerel import Mackerel

# All that is asked of Mackerel in one look, with what is tried again. A function has 30 s: at worst
# alarms and metrics take 3 s each until they are given up, and a probe 14 (clients.py, probe.py).
_MACKEREL_SECONDS = 6.0
# What is shown of a reason: what was bad at the start travels in the state machine's data.
_LONGEST_REASON = 300
# name → statistic: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/
# load-balancer-cloudwatch-metrics.html. "no data" is none of them when there was nothing to count.
_METRICS = {
    "RequestCount": "Sum",
    "HTTPCode_Target_5XX_Count": "Sum",
    # A 502 of the load balancer's own is not in the former.
    "TargetConnectionErrorCount": "Sum",
    "TargetResponseTime": "Average",
}


def look(deployment: Deployment, shift: Mapping[str, Any], settings: Settings, now: float) -> Facts:
    """One look at everything that the service configuration wants watched.

    shift: with shifted_at, of this step, and began_at, of the first one. now: epoch seconds.
    """
    bake = deployment.configuration.bake
    alarms, alerts, unreadable = _alarms_and_alerts(clients.cloudwatch_once, bake, settings)
    facts = Facts(alarms, alerts, unreadable)
    if gates.wanted_requests(bake):
        try:
            return _with_answers(facts, clients.cloudwatch_once(), deployment, shift, now)
        except (ClientError, BotoCoreError, AwsUnavailable) as error:
            unreadable.append(f"requests and errors of the target groups: {error}")
    return facts


def bad_at_start(configuration: ServiceConfiguration, settings: Settings, now: float) -> list[str]:
    """The alarms and alerts that are on, or cannot be read, before a deployment begins.

    One text each that begins with its id and says what it is about: what ``known_bad`` of a
    Deployment holds when it begins all the same.
    """
    alarms, alerts, unreadable = _alarms_and_alerts(
        clients.cloudwatch, configuration.bake, settings
    )
    return gates.on(Facts(alarms, alerts, unreadable), now)


def _alarms_and_alerts(
    cloudwatch: Callable[[], CloudWatchClient], bake: Bake, settings: Settings
) -> tuple[list[Alarm], list[Alert], list[str]]:
    """Both, and what could not be read."""
    alarms: list[Alarm] = []
    alerts: list[Alert] = []
    unreadable: list[str] = []
    if bake.alarms:
        try:
            alarms = _alarms(cloudwatch(), bake.alarms)
        except (ClientError, BotoCoreError) as error:
            unreadable.append(f"CloudWatch alarms: {error}")
        else:
            missing = [one for one in bake.alarms if one not in {alarm.name for alarm in alarms}]
            unreadable += [f"alarm {name}: there is no such alarm" for name in missing]
    if bake.mackerel:
        try:
            alerts = _alerts(_connect(settings), bake.mackerel)
        except MackerelError as error:
            unreadable.append(f"Mackerel: {error}")
        except GetParameterError as error:
            where = f"the SSM parameter {settings.mackerel_key}"
            unreadable.append(f"Mackerel: no API key in {where}: {error}")
    return alarms, alerts, unreadable


def _alarms(client: CloudWatchClient, names: Sequence[str]) -> list[Alarm]:
    """DescribeAlarms of metric and composite alarms; it shows the latter only when asked to.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html
    """
    pages = client.get_paginator("describe_alarms").paginate(
        AlarmNames=list(names), AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    return [
        Alarm(
            name=one["AlarmName"],
            state=one["StateValue"],
            reason=one.get("StateReason", "no reason given")[:_LONGEST_REASON],
            # The other one changes with the reason, too.
            since=one.get("StateTransitionedTimestamp", one["StateUpdatedTimestamp"]).timestamp(),
        )
        for page in pages
        for one in [*page.get("MetricAlarms", []), *page.get("CompositeAlarms", [])]
    ]


def _connect(settings: Settings) -> Mackerel:
    began = time.monotonic()
    return mackerel.connect(
        settings.mackerel_url,
        settings.mackerel_key,
        attempts=2,
        timeout_seconds=_MACKEREL_SECONDS / 2,
        seconds_left=lambda: _MACKEREL_SECONDS - (time.monotonic() - began),
    )


def _alerts(client: Mackerel, role: Role) -> list[Alert]:
    """The open alerts of a role. Raises MackerelError."""
    found = list(client.alerts())
    if not found:
        return []
    hosts = {host["id"] for host in client.hosts(role.service, role.role)}
    monitors = {monitor["id"]: monitor for monitor in client.monitors()}
    return [
        Alert(
            alert_id=one["id"],
            status=one["status"],
            monitor=_in_words(one, monitors.get(one.get("monitorId"), {})),
            message=str(one.get("message") or "")[:_LONGEST_REASON],
            since=one["openedAt"],
        )
        for one in found
        if gates.is_of(one, monitors.get(one.get("monitorId"), {}), hosts, role)
    ]


def _in_words(alert: Mapping[str, Any], monitor: Mapping[str, Any]) -> str:
    name = monitor.get("name") or alert.get("monitorId") or "unknown"
    host = f" on host {alert['hostId']}" if "hostId" in alert else ""
    return f"{alert['type']} monitor {name!r}{host}"


def _with_answers(
    facts: Facts,
    client: CloudWatchClient,
    deployment: Deployment,
    shift: Mapping[str, Any],
    now: float,
) -> Facts:
    """The facts with what both colours have answered since the shift, and lately."""
    wanted = gates.wanted_requests(deployment.configuration.bake)
    minutes = gates.minutes_since(shift["shifted_at"], now)
    recent = minutes[-gates.RECENT_MINUTES :] if len(minutes) > gates.RECENT_MINUTES else minutes
    found = _read(client, deployment, deployment.to_color, minutes)
    facts = replace(
        facts,
        new=gates.answers(found, minutes),
        recent_new=gates.answers(found, recent),
        latest=gates.answers(found, minutes[-1:]),
    )
    if deployment.from_color is None:
        return facts
    beside = _read(client, deployment, deployment.from_color, minutes)
    old, recent_old = gates.answers(beside, minutes), gates.answers(beside, recent)
    earlier = old.requests < wanted
    if earlier:
        before = gates.minutes_before(shift["began_at"])
        beside = _read(client, deployment, deployment.from_color, before)
        bake = deployment.configuration.bake
        old = gates.answers_before(beside, shift["began_at"], len(minutes), bake)
    enough = not earlier and recent_old.requests >= wanted
    return replace(facts, old=old, earlier=earlier, recent_old=recent_old if enough else old)


def _read(
    client: CloudWatchClient, deployment: Deployment, color: Color, minutes: range
) -> dict[int, Minute]:
    """GetMetricData of a colour's target group: minutes that something was reported of.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
    Raises AwsUnavailable when a metric has no answer.
    """
    if not minutes:
        return {}
    found: dict[str, dict[int, float]] = {}
    for page in client.get_paginator("get_metric_data").paginate(
        MetricDataQueries=_queries(deployment, color),
        StartTime=datetime.fromtimestamp(min(minutes), UTC),
        EndTime=datetime.fromtimestamp(max(minutes) + MINUTE, UTC),
    ):
        for result in page["MetricDataResults"]:
            if result["StatusCode"] not in ("Complete", "PartialData"):
                raise AwsUnavailable(f"{result['Label']}: {result['StatusCode']}")
            values = zip(result["Timestamps"], result["Values"], strict=True)
            found.setdefault(result["Id"], {}).update(
                {int(moment.timestamp()): value for moment, value in values}
            )
    requests, errors, unconnected, seconds = (
        found.get(f"m{number}", {}) for number in range(len(_METRICS))
    )
    return {
        minute: Minute(
            requests=count,
            # A connection may have been tried more than once for a request.
            errors=min(count, errors.get(minute, 0) + unconnected.get(minute, 0)),
            seconds=seconds.get(minute),
        )
        for minute, count in requests.items()
    }


def _queries(deployment: Deployment, color: Color) -> list[MetricDataQueryTypeDef]:
    assert deployment.location
    dimensions = {
        # …:listener/app/<name>/<id>/<listener id>, …:targetgroup/<name>/<id>
        "LoadBalancer": "/".join(deployment.location.listener_arn.split("/")[1:4]),
        "TargetGroup": deployment.target_groups[color].rsplit(":", 1)[1],
    }
    return [
        {
            "Id": f"m{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/ApplicationELB",
                    "MetricName": name,
                    "Dimensions": [
                        {"Name": key, "Value": value} for key, value in dimensions.items()
                    ],
                },
                "Period": MINUTE,
                "Stat": statistic,
            },
        }
        for number, (name, statistic) in enumerate(_METRICS.items())
    ]
