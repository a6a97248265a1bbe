"""What the loop says of itself: that it goes round, lag, sizes, readiness, and what it has published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import structlog

from streaming.events.record import reason
from streaming.kafka.topics import Topics, TopicsQuestion
from streaming.loop.batch import Batch
from streaming.loop.progress import Progress
from streaming.loop.runtime import Runtime
from streaming.ops.clock import SYSTEM_CLOCK, Clock
from streaming.ops.log import place

if TYPE_CHECKING:
    from streaming.model.triton import Scores

__all__ = ["REPORT_S", "ProgressLog", "Reporting"]

REPORT_S = 1.0  # how often lag, sizes and readiness are brought up to date
PROGRESS_S = 2.0  # how often long work says how far it is

_log = structlog.stdlib.get_logger("streaming.loop.reporting")


class Reporting:
    """Metrics and health of the loop.

    Args:
        progress: whose lag and assignment it tells.
        topics: asked now and then whether they are still the same.
        sizes: of the store's tables.
        runtime: see `Runtime`.
        latency_from: `metrics.latency_from`: `event`, or the time when its record was written.
        every_s: how often lag, sizes and readiness are brought up to date.

    Attributes:
        reported: when they were, by the clock.
    """

    def __init__(
        self,
        progress: Progress,
        topics: Topics,
        sizes: Callable[[], Mapping[str, tuple[int, int]]],
        runtime: Runtime,
        latency_from: str,
        every_s: float = REPORT_S,
    ) -> None:
        self.reported = 0.0
        self._progress, self._topics, self._sizes = progress, topics, sizes
        self._metrics, self._health, self._clock = runtime.metrics, runtime.health, runtime.clock
        self._latency_from, self._every_s = latency_from, every_s
        self._question: TopicsQuestion | None = None
        self._newest_at: dict[tuple[str, int], int] = {}  # the offset of the newest
        # Asked when it is scraped, so that it always says what /readyz does.
        runtime.metrics.ready.set_function(lambda: not runtime.health.missing())

    def goes_round(self) -> None:
        """Says that the loop does; every `every_s` seconds lag, sizes and readiness.

        Raises:
            LogNotWhole: a topic was made anew, deleted, or got partitions.
        """
        self._health.beat()
        if self._clock.monotonic() - self.reported < self._every_s:
            return
        self.reported = self._clock.monotonic()
        if self._question is None or self._question.is_answered():  # also while nothing comes
            self._question = self._topics.ask()
        source = self._progress.source
        if unknown := source.unknown():
            self._health.not_ready("assignment", f"Kafka is asked where {unknown} start; the other partitions flow")
        elif source.joined:
            self._health.ready("assignment")
            if not source.positions:
                self._health.ready("state")  # more scorers than partitions: this one waits for its turn
        else:
            self._health.not_ready("assignment", "waiting for the group")
        self._metrics.set_lag(source.lag())
        self._metrics.set_sizes(self._sizes())

    def published(self, batch: Batch, scores: Scores | None) -> None:
        """Counts a batch whose transaction is committed."""
        metrics = self._metrics
        for record, error in batch.dead:
            metrics.dead_letters.labels(record.topic(), reason(error)).inc()
            _log.warning(
                "dead letter",
                at=place(record.topic(), record.partition(), record.offset()),
                reason=reason(error),
                error=str(error)[:500],
            )
        metrics.repeats.inc(batch.repeats)
        if not len(batch.events) or scores is None:
            return
        metrics.scores.inc(len(batch.events))
        metrics.set_version(scores.version)
        if self._latency_from == "event":
            since = batch.events.times
        else:
            since = np.array([record.timestamp()[1] for record in batch.events.records], np.int64)
            since = since[since >= 0]  # a record may have no time
        metrics.latency.observe(np.maximum(int(self._clock.wall() * 1000) - since, 0) / 1000)
        late, newest_of = 0, self._progress.newest
        places: dict[tuple[str, int], list[int]] = {}
        for number, record in enumerate(batch.events.records):
            places.setdefault((record.topic(), record.partition()), []).append(number)
        for partition, numbers in places.items():
            # A cluster's scores do not come in the order of the log: who stands before the newest there is not late.
            offsets = np.array([batch.events.records[number].offset() for number in numbers])
            order = np.argsort(offsets)
            times, offsets = batch.events.times[numbers][order], offsets[order]
            newest = newest_of.get(partition, 0)
            known = np.where(offsets > (self._newest_at.get(partition, -1) if newest else -1), newest, 0)
            before = np.maximum.accumulate(np.concatenate([[0], times]))[:-1]
            late += int((times < np.maximum(before, known)).sum())
            if times.max() >= newest:
                newest_of[partition] = int(times.max())
                self._newest_at[partition] = int(offsets[times.argmax()])
        metrics.late.inc(late)


class ProgressLog:
    """Lines of long work, every `PROGRESS_S` at most.

    Args:
        clock: counts them.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock, self._told = clock, 0.0

    def begin(self) -> None:
        """The work begins now."""
        self._told = self._clock.monotonic()

    def tell(self, what: str, **fields: object) -> None:
        """Logs how far it is, if the last line is old enough."""
        if self._clock.monotonic() - self._told > PROGRESS_S:
            self._told = self._clock.monotonic()
            _log.info(what, **fields)
