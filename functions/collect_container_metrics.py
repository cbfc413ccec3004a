"""CollectContainerMetrics: read what the containers of one cluster did, and keep it for Mackerel.

Container Insights is read in one go. cgroups take three steps, each started by a message: ask the
instances (``begin``), read the answers of a batch of them (``answers``, again until they are
there), and put the batches of the minute together (``combine``). No step waits itself.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import ClientError

from bluegreen import ecs, parameters
from bluegreen.fleet import Fleet
from containermetrics import graphs, messages, rates, series, services
from containermetrics.configuration import MetricsConfiguration
from containermetrics.errors import SourceUnavailable
from containermetrics.metrics import part
from containermetrics.model import Batch, EcsService, PluginValue, Reading
from containermetrics.sources import cgroups, container_insights
from containermetrics.store import MetricsStore, Part
from runtime import clients, routers
from runtime.invocation import is_passing, logger, translating_aws_errors
from runtime.observability import metrics
from runtime.settings import MetricsSettings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# The performance log is complete some 80 to 140 s after the minute; what comes later is caught by
# reading each minute once more with the next.
_SETTLED_SECONDS = 120
_OVERLAP_SECONDS = 60
# After a pause: so much at a time, the oldest first; and what Mackerel takes no more is not read.
_BLOCK_SECONDS = 180
_OLDEST_SECONDS = 86_400
# Nothing new is begun with less time left: a block of a big cluster takes some seconds.
_RESERVE_SECONDS = 25
# A host is asked about this minute, not about one that is long past.
_LATEST_SECONDS = 90
_POLL_SECONDS = 3
# From the last answers of a batch to the moment at which they are there to be combined.
_COMBINE_SECONDS = 8


@dataclass(frozen=True)
class Work:
    """One message. minute: epoch seconds, what it is about. now: epoch seconds, read once.
    seconds_left: how long the function may still run.
    """

    message: Mapping[str, Any]
    cluster: MetricsConfiguration
    minute: int
    now: float
    seconds_left: Callable[[], float]
    settings: MetricsSettings
    store: MetricsStore

    def send(self, step: str, delay: float, **more: Any) -> None:
        """Go on with this minute later."""
        messages.collect(
            clients.sqs(),
            self.settings.collect_queue,
            step,
            self.cluster.cluster,
            self.minute,
            delay,
            **more,
        )

    def deliver(self) -> None:
        """Have what was kept brought to Mackerel."""
        messages.deliver(clients.sqs(), self.settings.deliver_queue, self.cluster.cluster)


def handler(event: Mapping[str, Any], context: LambdaContext) -> None:
    """Invoked by the queue, with one message at a time."""
    settings = MetricsSettings.from_env(os.environ)
    store = MetricsStore(clients.dynamodb(), settings.table)

    def seconds_left() -> float:
        return context.get_remaining_time_in_millis() / 1000

    for record in event["Records"]:
        message = json.loads(record["body"])
        logger().append_keys(cluster=message["cluster"], step=message["step"])
        translating_aws_errors(
            lambda: _work(message, settings, store, time.time(), seconds_left)  # noqa: B023
        )


def _work(
    message: Mapping[str, Any],
    settings: MetricsSettings,
    store: MetricsStore,
    now: float,
    seconds_left: Callable[[], float],
) -> None:
    cluster = services.cluster(clients.ssm(), settings.parameter_prefix, message["cluster"])
    if cluster is None:
        logger().info("its metrics configuration was removed")
        return
    work = Work(message, cluster, int(message["minute"]), now, seconds_left, settings, store)
    match message["step"], cluster.source:
        case "begin", "container-insights":
            _read_log(work)
        case "begin", _:
            _ask(work)
        case "answers", _:
            _read_answers(work)
        case "combine", _:
            _combine(work)


# ------------------------------------------------------------------------------ Container Insights


def _read_log(work: Work) -> None:
    """Read the minutes that have settled since the last time, and the last one once more."""
    name = work.cluster.cluster
    settled = int((work.now - _SETTLED_SECONDS) // 60 * 60)
    watermark = work.store.watermark(name)
    if watermark is None:
        watermark = settled - _OVERLAP_SECONDS
    known = _services(work)
    start = max(min(watermark, settled) - _OVERLAP_SECONDS, settled - _OLDEST_SECONDS)
    while start < settled and work.seconds_left() > _RESERVE_SECONDS:
        end = min(settled, start + _BLOCK_SECONDS)
        _read_block(work, known, start, end, watermark)
        work.store.set_watermark(name, end)
        start = end
    work.deliver()


def _read_block(work: Work, known: services.Known, start: int, end: int, watermark: int) -> None:
    """Read the minutes from start to before end, of which those before watermark were read before.

    Rates of the first minute need the one before it.
    """
    name, skipped = work.cluster.cluster, Counter[str]()
    samples = container_insights.read(clients.logs(), name, start - 60, end, skipped)
    # What ECS itself says goes to Mackerel also when the log says nothing.
    found: dict[int, list[Reading]] = {end - 60: []}
    problems = list(known.problems)
    try:
        found |= container_insights.minutes(samples, start, end)
    except SourceUnavailable as error:
        problems.append(str(error))
    problems += [f"{count} events of the log: {reason}" for reason, count in skipped.items()]
    for minute, nameless in sorted(found.items()):
        readings = _placed(name, nameless)
        _keep(
            replace(work, minute=minute),
            _as_of(known.services, readings),
            readings,
            problems=problems,
            again=minute < watermark,
        )


def _placed(cluster: str, readings: Sequence[Reading]) -> list[Reading]:
    """The readings with the service of those whose events do not name it."""
    nameless = {one.source.task for one in readings if not one.source.service}
    return series.placed(readings, ecs.services_of(clients.ecs(), cluster, sorted(nameless)))


def _as_of(found: Sequence[EcsService], readings: Sequence[Reading]) -> list[EcsService]:
    """The services with the tasks that the log saw in its minute, where it saw any."""
    tasks: dict[str, set[str]] = {}
    for reading in readings:
        tasks.setdefault(reading.source.service, set()).add(reading.source.task)
    return [
        replace(
            service,
            running_tasks=len(tasks.get(service.name, ())) or service.running_tasks,
            idle=service.running_tasks == 0,
        )
        for service in found
    ]


# ------------------------------------------------------------------------------------------ cgroups


def _ask(work: Work) -> None:
    """Have the instances read their cgroups; the answers come with later messages."""
    if work.now - work.minute > 60 + _LATEST_SECONDS:
        # What they would say now is not what this minute was; the next one has come already.
        logger().warning("left out", extra={"minute": work.minute, "reason": "too late to ask"})
        return
    fleet = Fleet(clients.ecs(), clients.ec2(), clients.ssm(), work.cluster.cluster)
    orders, unreachable = cgroups.ask(
        fleet, work.settings.document, work.settings.bucket, work.cluster, work.now
    )
    until = work.now + work.cluster.answer_seconds
    combine = {
        "sizes": [len(order.instance_ids) for order in orders],
        "unreachable": unreachable,
        "at": until + _COMBINE_SECONDS,
    }
    for number, order in enumerate(orders):
        work.send(
            "answers",
            _POLL_SECONDS,
            batch=number,
            order=asdict(order),
            until=until,
            combine=combine,
        )
    delay = work.cluster.answer_seconds + _COMBINE_SECONDS if orders else 0
    work.send("combine", delay, combine=combine)


def _read_answers(work: Work) -> None:
    """Make readings of what a batch of instances answered, once all have or the time is over."""
    order = cgroups.Order(**work.message["order"])
    if work.now < work.message["until"] and _may_still_answer(order, work.now):
        more = {key: work.message[key] for key in ("batch", "order", "until", "combine")}
        work.send("answers", _POLL_SECONDS, **more)
        return
    name, store, late = work.cluster.cluster, work.store, work.now >= work.message["combine"]["at"]
    part_name = f"{work.message['batch']:04d}"
    if late and any(one.name == part_name for one in store.parts(name, work.minute)):
        # The message came again. The samples kept by now may be those of later minutes, so what it
        # would say has fewer rates than what is there; and the others may lack that.
        work.send("combine", 0, combine=work.message["combine"])
        return
    before = store.samples(name, order.instance_ids, work.minute)
    answers = cgroups.name_services(
        clients.ecs(),
        name,
        {one.source.task: one.source.service for samples in before.values() for one in samples},
        cgroups.fetch(clients.ssm(), clients.s3(), work.settings.bucket, order, work.now),
    )
    readings = []
    for answer in answers:
        last = {sample.source: sample for sample in before.get(answer.instance_id, ())}
        readings += [rates.reading(last.get(one.source), one) for one in answer.samples]
    said = Part(
        name=part_name,
        readings=readings,
        plugin_values=[value for answer in answers for value in answer.plugin_values],
        graphs=[graph for answer in answers for graph in answer.graphs],
        problems=[problem for answer in answers for problem in answer.problems],
        hosts_missing=sum(not answer.answered for answer in answers),
    )
    store.keep_part(name, work.minute, said, work.now)
    for answer in answers:
        place = answer.instance_id
        if answer.samples:
            last_of = before.get(place, ())
            store.keep_samples(name, place, answer.samples, last_of, work.minute, work.now)
    if late:
        # The others were put together without it.
        work.send("combine", 0, combine=work.message["combine"])


def _may_still_answer(order: cgroups.Order, now: float) -> bool:
    """Whether to look again; also when AWS does not say, as it may the next time."""
    try:
        return bool(cgroups.under_way(clients.ssm(), order, now))
    except ClientError as error:
        if not is_passing(error):
            raise
        return True


def _combine(work: Work) -> None:
    """Put together what the batches of the minute have said; who has not is missing, and named."""
    parts = work.store.parts(work.cluster.cluster, work.minute)
    sizes = dict(enumerate(work.message["combine"]["sizes"]))
    for one in parts:
        sizes.pop(int(one.name), None)
    unreachable = work.message["combine"]["unreachable"]
    known = _services(work)
    problems = [*known.problems, *(problem for one in parts for problem in one.problems)]
    problems += [f"{instance}: SSM does not know it as managed node" for instance in unreachable]
    problems += [f"{size} instances: not read within the minute" for size in sizes.values()]
    _keep(
        work,
        known.services,
        [reading for one in parts for reading in one.readings],
        plugin_values=[value for one in parts for value in one.plugin_values],
        problems=problems,
        definitions=[
            definition
            for one in parts
            for meta in one.graphs
            for definition in graphs.of_plugin(meta)
        ],
        hosts_missing=sum(one.hosts_missing for one in parts)
        + sum(sizes.values())
        + len(unreachable),
    )
    work.deliver()


# --------------------------------------------------------------------------------------------- both


def _services(work: Work) -> services.Known:
    deployed, problems = parameters.configurations(clients.ssm(), work.settings.service_prefix)
    known = services.known(
        work.cluster,
        ecs.services(clients.ecs(), work.cluster.cluster),
        deployed,
        lambda configuration: routers.live(configuration, work.now),
    )
    return replace(known, problems=[*problems, *known.problems])


def _keep(
    work: Work,
    found: Sequence[EcsService],
    readings: Sequence[Reading],
    *,
    plugin_values: Sequence[PluginValue] = (),
    problems: Sequence[str] = (),
    definitions: Iterable[Mapping[str, Any]] = (),
    hosts_missing: int = 0,
    again: bool = False,
) -> None:
    """Put what one minute was into the backlog. again: it was there before, and tells nothing new
    about the pusher itself.
    """
    name, place = work.cluster.cluster, work.cluster.mackerel.service
    slots = work.store.slots(name) if work.cluster.each_task else {}
    composed = series.compose(
        site=work.settings.site,
        cluster=name,
        services=found,
        readings=readings,
        plugin_values=plugin_values,
        mackerel_service=place,
        slots=slots,
        each_task=work.cluster.each_task,
    )
    if work.cluster.each_task:
        work.store.keep_slots(name, composed.slots, slots)
    said = [*problems, *composed.problems]
    for problem in said:
        logger().warning("left out", extra={"minute": work.minute, "reason": problem})
    metrics().add_metric("MetricProblems", MetricUnit.Count, len(said))
    metrics().flush_metrics()
    totals = {service: dict(values) for service, values in composed.services.items()}
    if not again:
        own = {
            "delay": work.now - work.minute,
            "left_out": composed.left_out,
            "hosts_missing": hosts_missing,
            **dict.fromkeys(("sent", "dropped", "errors"), 0),
            **work.store.take_delivered(name),
        }
        totals.setdefault(place, {}).update(
            {f"ecs.pusher_{key}.{part(name)}": float(value) for key, value in own.items()}
        )
    unique = {definition["name"]: definition for definition in definitions}
    work.store.keep(Batch(name, work.minute, composed.hosts, totals, list(unique.values())))
