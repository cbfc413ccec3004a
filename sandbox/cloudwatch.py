"""CloudWatch as AWS answers it: values of metrics, and alarms; all else stays moto's.

AWS's habits (https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/):
  - a metric is a namespace, a name and exactly its dimensions: one dimension less is another
    metric; ListMetrics shows each once;
  - values of a period are added up, periods begin at whole multiples of themselves, and the start
    of a query is rounded down to one;
  - a period without a value is not in the answer;
  - a new alarm is INSUFFICIENT_DATA, one that is put again keeps its state;
  - DescribeAlarms shows metric alarms unless AlarmTypes says more, 50 a page or MaxRecords, with
    the time of the last change of state.
The state of an alarm changes by SetAlarmState only: nothing is evaluated, no action is taken.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.cloudwatch import urls
from moto.cloudwatch.exceptions import InvalidParameterValue, ValidationError
from moto.cloudwatch.metric_data_expression_parser import parse_expression
from moto.cloudwatch.models import (
    Alarm,
    CloudWatchBackend,
    MetricDatumBase,
    Statistics,
    cloudwatch_backends,
)
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult, EmptyResult

STATISTICS = ("Sum", "Average", "Minimum", "Maximum", "SampleCount")
PAGE_SIZE = 50
MAX_PAGE_SIZE = 100
TYPES = ("MetricAlarm", "CompositeAlarm")
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - moto's times are in UTC and do not say so

Dimensions = Sequence[Mapping[str, str]]
Series = list[tuple[datetime, float]]


class SandboxCloudWatchBackend(CloudWatchBackend):
    """The metrics and alarms of one account and region."""

    _url_module = urls

    def put_metric_alarm(self, name: str, **given: Any) -> Alarm:
        """As moto, but a new alarm is INSUFFICIENT_DATA and a known one keeps its state."""
        known: Any = self.alarms.get(name)
        alarm: Any = super().put_metric_alarm(name=name, **given)
        if known is None:
            alarm.state_value = "INSUFFICIENT_DATA"
            alarm.state_transitioned_timestamp = alarm.state_updated_timestamp
            return alarm
        for field in ("reason", "reason_data", "value", "updated_timestamp"):
            setattr(alarm, f"state_{field}", getattr(known, f"state_{field}"))
        alarm.state_transitioned_timestamp = known.state_transitioned_timestamp
        alarm.history = known.history
        return alarm

    def set_alarm_state(
        self, alarm_name: str, reason: str, reason_data: str, state_value: str
    ) -> None:
        """As moto, and the time of a change is kept apart from that of a repetition."""
        known: Any = self.alarms.get(alarm_name)
        before = known.state_value if known is not None else None
        super().set_alarm_state(alarm_name, reason, reason_data, state_value)
        if state_value != before:
            known.state_transitioned_timestamp = known.state_updated_timestamp

    def get_metric_data(
        self,
        queries: list[dict[str, Any]],
        start_time: datetime,
        end_time: datetime,
        scan_by: str = "TimestampDescending",
    ) -> list[dict[str, Any]]:
        """Values of metrics, and metric math on them as far as moto has it."""
        _check_times(start_time, end_time)
        results = []
        for query in (query for query in queries if "MetricStat" in query):
            stat = query["MetricStat"]
            metric = stat["Metric"]
            series = self._series(
                (metric["Namespace"], metric["MetricName"], metric.get("Dimensions", [])),
                (start_time, end_time),
                (int(stat["Period"]), stat["Stat"], stat.get("Unit")),
            )
            series.sort(reverse=scan_by != "TimestampAscending")
            results.append(_result(query, query.get("Label") or metric["MetricName"], series))
        shown = {one["id"]: one for one in results}
        for query in (query for query in queries if "Expression" in query):
            values, times = parse_expression(query["Expression"], results)
            found = list(zip(times, values, strict=True))
            shown[query["Id"]] = _result(query, query.get("Label") or query["Id"], found)
        return [shown[query["Id"]] for query in queries if query.get("ReturnData", True)]

    def get_metric_statistics(
        self,
        namespace: str,
        metric_name: str,
        start_time: datetime,
        end_time: datetime,
        period: int,
        stats: list[str],
        dimensions: list[dict[str, str]],
        unit: str | None = None,
    ) -> list[Statistics]:
        """The same values, several statistics of each period."""
        _check_times(start_time, end_time)
        metric, window = (namespace, metric_name, dimensions or []), (start_time, end_time)
        found = []
        for moment, data in sorted(self._periods(metric, window, int(period), unit).items()):
            one = Statistics(stats, moment, data[0].unit)
            one.metric_data = data
            found.append(one)
        return found

    def get_filtered_metrics(
        self, metric_name: str, namespace: str, dimensions: list[dict[str, str]]
    ) -> list[MetricDatumBase]:
        """Each metric once, with at least the dimensions that are asked for."""
        found: dict[tuple[Any, ...], MetricDatumBase] = {}
        for datum in list(self.get_all_metrics()):
            if datum.filter(namespace, metric_name, dimensions):
                own = frozenset((one.name, one.value) for one in datum.dimensions)
                found.setdefault((datum.namespace, datum.name, own), datum)
        return list(found.values())

    def _series(
        self,
        metric: tuple[str, str, Dimensions],
        window: tuple[datetime, datetime],
        how: tuple[int, str, str | None],
    ) -> Series:
        period, stat, unit = how
        return [
            (moment, _statistic(stat, data))
            for moment, data in self._periods(metric, window, period, unit).items()
        ]

    def _periods(
        self,
        metric: tuple[str, str, Dimensions],
        window: tuple[datetime, datetime],
        period: int,
        unit: str | None,
    ) -> dict[datetime, list[MetricDatumBase]]:
        """What there is of a metric, by the beginning of its period."""
        namespace, name, dimensions = metric
        wanted = _as_set(dimensions)
        if period < 1:
            raise ValidationError("The value 0 for parameter Period is not valid.")
        start, end = _begin(_naive(window[0]), period), _naive(window[1])
        found: dict[datetime, list[MetricDatumBase]] = defaultdict(list)
        for datum in list(self.get_all_metrics()):
            if (
                datum.name == name
                and datum.namespace == namespace
                and unit in (None, datum.unit)
                and start <= _naive(datum.timestamp) < end
                and {(one.name, one.value) for one in datum.dimensions} == wanted
            ):
                found[_begin(_naive(datum.timestamp), period)].append(datum)
        return dict(found)


def install() -> None:
    """Replace moto's CloudWatch before its first use."""
    cloudwatch_backends.backend = SandboxCloudWatchBackend
    patched: Any = CloudWatchResponse
    patched.describe_alarms = _describe_alarms
    patched.put_composite_alarm = _put_composite_alarm


def _put_composite_alarm(request: Any) -> ActionResult:
    if not request._get_param("AlarmRule"):
        raise ValidationError("AlarmRule is required")
    known = request.cloudwatch_backend.alarms.get(request._get_param("AlarmName"))
    if known is not None and known.rule is None:
        raise ValidationError("An alarm of another type has this name")
    request.put_metric_alarm()
    return EmptyResult()


def _describe_alarms(request: Any) -> ActionResult:
    names = request._get_param("AlarmNames", [])
    types = request._get_param("AlarmTypes", []) or TYPES[:1]
    start, action = request._get_param("AlarmNamePrefix"), request._get_param("ActionPrefix")
    if names and start:
        raise InvalidParameterValue("AlarmNames and AlarmNamePrefix exclude each other")
    state, token = request._get_param("StateValue"), request._get_param("NextToken")
    size = int(request._get_param("MaxRecords") or PAGE_SIZE)
    if not 1 <= size <= MAX_PAGE_SIZE or len(names) > MAX_PAGE_SIZE:
        raise ValidationError(f"MaxRecords and AlarmNames: 1 to {MAX_PAGE_SIZE}")
    alarms = [
        alarm
        for _, alarm in sorted(request.cloudwatch_backend.alarms.items())
        if TYPES[alarm.rule is not None] in types
        and (not names or alarm.name in names)
        and (not start or alarm.name.startswith(start))
        and (not state or alarm.state_value == state)
        and (not action or any(arn.startswith(action) for arn in alarm.alarm_actions))
        and (not token or alarm.name > token)
    ]
    page = alarms[:size]
    return ActionResult(
        {
            "MetricAlarms": [alarm for alarm in page if alarm.rule is None],
            "CompositeAlarms": [_composite(alarm) for alarm in page if alarm.rule is not None],
            "NextToken": page[-1].name if len(alarms) > size else None,
        }
    )


def _composite(alarm: Any) -> dict[str, Any]:
    return {
        "AlarmName": alarm.name,
        "AlarmArn": alarm.alarm_arn,
        "AlarmDescription": alarm.description,
        "AlarmRule": alarm.rule,
        "AlarmConfigurationUpdatedTimestamp": alarm.configuration_updated_timestamp,
        "ActionsEnabled": alarm.actions_enabled,
        "AlarmActions": alarm.alarm_actions,
        "OKActions": alarm.ok_actions,
        "InsufficientDataActions": alarm.insufficient_data_actions,
        "StateValue": alarm.state_value,
        "StateReason": alarm.state_reason,
        "StateReasonData": alarm.state_reason_data,
        "StateUpdatedTimestamp": alarm.state_updated_timestamp,
        "StateTransitionedTimestamp": alarm.state_transitioned_timestamp,
    }


def _check_times(start: datetime, end: datetime) -> None:
    if _naive(start) >= _naive(end):
        raise ValidationError("The parameter StartTime must be less than the parameter EndTime.")


def _naive(moment: datetime) -> datetime:
    """moto's times do not say that they are in UTC."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _begin(moment: datetime, period: int) -> datetime:
    """The beginning of the period that a moment is in."""
    seconds = math.floor((moment - EPOCH).total_seconds())
    return EPOCH + timedelta(seconds=seconds // period * period)


def _as_set(dimensions: Dimensions) -> set[tuple[str | None, str | None]]:
    return {(one["Name"], one["Value"]) for one in dimensions}


def _statistic(stat: str, data: Iterable[MetricDatumBase]) -> float:
    """Raises ValidationError for one that the sandbox does not have."""
    if stat not in STATISTICS:
        raise ValidationError(f"Stat {stat}: the sandbox has {', '.join(STATISTICS)}")
    statistics = Statistics([stat], EPOCH)
    statistics.metric_data = list(data)
    value: Any = statistics.get_statistics_for_type(stat)
    return float(value)


def _result(query: Mapping[str, Any], label: str, series: Series) -> dict[str, Any]:
    return {
        "id": query["Id"],
        "label": label,
        "timestamps": [moment for moment, _ in series],
        "values": [value for _, value in series],
        "status_code": "Complete",
    }
