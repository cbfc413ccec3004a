"""EventBridge: events go to the rules that match them, and schedules tick.

Rules and schedules are those of moto, so those of the template and any that a client adds. moto
matches events against patterns; what it does not do is done here: deliver to Lambda functions,
state machines, queues and topics, honour the state of a rule, keep what could not be delivered in
the target's dead-letter queue, and run schedules. A target that is nothing of that is refused, by
PutTargets too.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError
from moto.events.exceptions import ValidationException
from moto.events.models import EventsBackend, Rule

from sandbox.functions import Answer, LambdaRuntime, send_to_queue
from sandbox.world import Event, World

LOG = logging.getLogger(__name__)
SCHEDULE_POLL_SECONDS = 1.0
TARGETS = {"lambda": "Lambda", "sqs": "SQS", "sns": "SNS", "states": "Step Functions"}
CRON_FIELDS = ("minutes", "hours", "day of month", "month", "day of week", "year")
CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (1, 7), (1970, 2199))
CRON_NAMES = {
    name: str(number)
    for names in ("JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC", "SUNMONTUEWEDTHUFRISAT")
    for number, name in enumerate(re.findall("...", names), start=1)
}


class UnsupportedTargetError(ValueError):
    """A rule or schedule sends to something that the sandbox does not have."""


@dataclass(frozen=True)
class Schedule:
    """One schedule of either kind: a rule with a schedule expression, or one of the Scheduler."""

    name: str
    arn: str
    expression: str
    targets: list[dict[str, Any]]
    source: str


class EventBus:
    """The default event bus and everything that sends to it or is sent by it."""

    def __init__(self, world: World, runtime: LambdaRuntime) -> None:
        self._world = world
        self._runtime = runtime

    def install(self) -> None:
        """Deliver from now on, and let schedules tick."""

        def send_to_targets(rule: Any, event: Event, transform_input: bool = True) -> None:
            del transform_input
            if rule.state == "ENABLED" and rule.event_pattern.get_pattern():
                self._offer(rule, _completed(event, self._world))

        patched: Any = Rule
        patched.send_to_targets = send_to_targets
        put_targets = EventsBackend.put_targets

        def put_checked_targets(
            backend: Any, name: str, event_bus_arn: str | None, targets: list[dict[str, Any]]
        ) -> None:
            try:
                for target in targets:
                    check_target(target["Arn"])
            except UnsupportedTargetError as error:
                raise ValidationException(str(error)) from error
            put_targets(backend, name, event_bus_arn, targets)

        backends: Any = EventsBackend
        backends.put_targets = put_checked_targets
        threading.Thread(target=self._tick, name="schedules", daemon=True).start()

    def publish(self, event: Event) -> None:
        """Send an event of an AWS service through the default bus."""
        complete = _completed(event, self._world)
        for rule in list(
            self._world.backend("events").describe_event_bus("default").rules.values()
        ):
            rule.send_to_targets(complete)

    def sweep(self) -> list[dict[str, Any]]:
        """Run every enabled schedule now and wait until what it invoked has answered."""
        results = []
        waiting = []
        for schedule in self._schedules():
            for target in schedule.targets:
                done = threading.Event()
                result: dict[str, Any] = {"schedule": schedule.name, "target": target["Arn"]}

                def finish(
                    answer: Answer | None,
                    result: dict[str, Any] = result,
                    done: threading.Event = done,
                ) -> None:
                    if answer is not None:
                        result["failed"] = answer.failed
                        result["answer"] = json.loads(answer.payload)
                    done.set()

                self._deliver(target, self._scheduled_input(schedule, target), finish)
                results.append(result)
                waiting.append(done)
        for done in waiting:
            done.wait(timeout=120)
        return results

    def _offer(self, rule: Any, event: Event) -> None:
        if not rule.event_pattern.matches_event(event):
            return
        for target in rule.targets:
            LOG.info("event %s → rule %s", event["detail-type"], rule.name)
            try:
                payload = _input(target, event)
            except (KeyError, TypeError, ValueError) as error:
                LOG.warning("rule %s: no input for %s: %r", rule.name, target["Arn"], error)
                continue
            self._deliver(target, payload)

    def _deliver(
        self,
        target: dict[str, Any],
        payload: Any,
        done: Callable[[Answer | None], None] = lambda _answer: None,
    ) -> None:
        arn = target["Arn"]
        service = check_target(arn)
        try:
            if service == "lambda":
                self._runtime.invoke_later(arn.partition(":function:")[2], payload, done)
                return
            if service == "sqs":
                self._send_message(target, json.dumps(payload))
            elif service == "sns":
                self._world.client("sns").publish(TopicArn=arn, Message=json.dumps(payload))
            else:
                self._world.client("stepfunctions").start_execution(
                    stateMachineArn=arn, input=json.dumps(payload)
                )
        except (ClientError, KeyError) as error:
            LOG.warning("event for %s could not be delivered: %s", arn, error)
            queue = target.get("DeadLetterConfig", {}).get("Arn")
            if queue:
                attributes = {"ERROR_MESSAGE": str(error), "TARGET_ARN": arn}
                send_to_queue(self._world, queue, json.dumps(payload), attributes)
        done(None)

    def _send_message(self, target: dict[str, Any], body: str) -> None:
        """Send to a queue; to a FIFO queue in the message group of the target."""
        client = self._world.client("sqs")
        url = client.get_queue_url(QueueName=target["Arn"].rpartition(":")[2])["QueueUrl"]
        group = target.get("SqsParameters", {}).get("MessageGroupId")
        more = {"MessageGroupId": group} if group else {}
        client.send_message(QueueUrl=url, MessageBody=body, **more)

    def _schedules(self) -> Iterator[Schedule]:
        for rule in list(
            self._world.backend("events").describe_event_bus("default").rules.values()
        ):
            if rule.scheduled_expression and rule.state == "ENABLED":
                yield Schedule(
                    rule.name, rule.arn, rule.scheduled_expression, rule.targets, "aws.events"
                )
        for group in list(self._world.backend("scheduler").schedule_groups.values()):
            for item in list(group.schedules.values()):
                if item.state == "ENABLED":
                    yield Schedule(
                        item.name,
                        item.arn,
                        item.schedule_expression,
                        [item.target],
                        "aws.scheduler",
                    )

    def _tick(self) -> None:
        """Run each schedule when it is due: a rate first after one interval, as EventBridge."""
        due: dict[str, datetime] = {}
        while not self._world.stopping.wait(SCHEDULE_POLL_SECONDS):
            now = datetime.now(UTC)
            for schedule in self._schedules():
                key = f"{schedule.arn} {schedule.expression}"
                moment = due.setdefault(key, next_run(schedule.expression, now))
                if now >= moment:
                    # From when it was due, not from now: a rate does not drift.
                    following = next_run(schedule.expression, moment)
                    late = following <= now
                    due[key] = next_run(schedule.expression, now) if late else following
                    for target in schedule.targets:
                        self._deliver(target, self._scheduled_input(schedule, target))

    def _scheduled_input(self, schedule: Schedule, target: dict[str, Any]) -> Any:
        event = {
            "source": schedule.source,
            "detail-type": "Scheduled Event",
            "resources": [schedule.arn],
            "detail": {},
        }
        return _input(target, _completed(event, self._world))


def check_target(arn: str) -> str:
    """The service of a target; raises UnsupportedTargetError unless events can be sent to it."""
    parts = arn.split(":")
    if len(parts) < 6 or parts[2] not in TARGETS:
        raise UnsupportedTargetError(
            f"the sandbox sends events to {', '.join(TARGETS.values())}, not to {arn}"
        )
    return parts[2]


def next_run(expression: str, after: datetime) -> datetime:
    """When a ``rate(…)`` or ``cron(…)`` is due next after a moment (UTC, to the minute for cron).

    Raises ValueError for anything else, and for the letters L, W and # in cron.
    """
    match = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression)
    if match:
        return after + timedelta(**{f"{match[2]}s": int(match[1])})
    match = re.fullmatch(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\)", expression)
    if not match:
        raise ValueError(f"not a rate or cron expression: {expression}")
    allowed = [
        _cron_field(text, name, low, high)
        for text, name, (low, high) in zip(match.groups(), CRON_FIELDS, CRON_RANGES, strict=True)
    ]
    moment = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    for _ in range(366 * 24 * 60):
        facts = (
            moment.minute,
            moment.hour,
            moment.day,
            moment.month,
            moment.isoweekday() % 7 + 1,
            moment.year,
        )
        if all(fact in values for fact, values in zip(facts, allowed, strict=True)):
            return moment
        moment += timedelta(minutes=1)
    raise ValueError(f"not due within a year: {expression}")


def _cron_field(text: str, name: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for word in CRON_NAMES:
        text = re.sub(rf"\b{word}\b", CRON_NAMES[word], text, flags=re.IGNORECASE)
    for part in text.split(","):
        match = re.fullmatch(r"(\*|\?|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
        if not match:
            raise ValueError(f"cron: the sandbox does not know {part!r} in {name}")
        step = int(match[4] or 1)
        start = int(match[2]) if match[2] else low
        end = int(match[3]) if match[3] else (start if match[2] and not match[4] else high)
        values.update(range(start, end + 1, step))
    return values


def _completed(event: Event, world: World) -> Event:
    """An event with everything that EventBridge itself adds."""
    time = event.get("time")
    if not isinstance(time, str):
        moment = datetime.fromtimestamp(time, UTC) if time else datetime.now(UTC)
        time = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "version": "0",
        "id": event.get("id") or str(uuid.uuid4()),
        "detail-type": event["detail-type"],
        "source": event["source"],
        "account": world.account_id,
        "time": time,
        "region": world.region,
        "resources": event.get("resources", []),
        "detail": event["detail"],
    }


def _input(target: dict[str, Any], event: Event) -> Any:
    """What a target gets: its own input, a part of the event, a filled-in template, or all."""
    if "Input" in target:
        return json.loads(target["Input"])
    if "InputTransformer" in target:
        transformer = target["InputTransformer"]
        values = {
            name: _at(event, path) for name, path in transformer.get("InputPathsMap", {}).items()
        }
        values["aws.events.event"] = values["aws.events.event.json"] = event
        values["aws.events.event.ingestion-time"] = event["time"]
        return _filled(transformer["InputTemplate"], values)
    if "InputPath" in target:
        return _at(event, target["InputPath"])
    return event


def _at(event: Event, path: str) -> Any:
    """The part of an event at a path such as ``$.detail.status``; None when there is none."""
    value: Any = event
    for name in path.removeprefix("$").strip(".").split("."):
        if name:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def _filled(template: str, values: dict[str, Any]) -> Any:
    """An input template with its ``<variables>``: in a string as text, else as JSON."""

    def fill(match: re.Match[str]) -> str:
        value = values[match[1]]
        quoted = template[: match.start()].replace(r"\"", "").count('"') % 2 == 1
        if not quoted:
            return json.dumps(value)
        text = value if isinstance(value, str) else json.dumps(value)
        return json.dumps(text)[1:-1]

    return json.loads(re.sub(r"<([^<>]+)>", fill, template))
