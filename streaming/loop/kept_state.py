"""The loop over a store that keeps its rows: micro-batch by micro-batch, each committed before the next is asked.

The store is outside of Kafka's transaction and forgets nothing, so nothing may get into it that would change the
answer to an event which is read again (see `streaming.store.openmldb.cluster`). A poll is therefore cut into
micro-batches: of each partition a piece from where it stands, such that no event touches another's rows. A micro-batch
is one transaction; after it the request rows of its events are inserted (`accept`), and only then the next is asked.

    dies before the commit    its actions' rows are in, which their own requests have to see anyway: asked again, each
                              event gets the same features
    dies after the commit     up to MICRO_BATCH_ROWS_MAX request rows are missing: the next start inserts the requests
                              of the last records before each partition's offset (`catch_up`); rows that are in stay as
                              they are
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import structlog

from streaming.config import Batch as BatchLimits
from streaming.config import Store as StoreSettings
from streaming.errors import Rebalanced, Stopped, StoreUnavailable
from streaming.events.batch import EventBatch
from streaming.events.record import Record
from streaming.kafka.reader import Positions
from streaming.loop.batch import Batch
from streaming.loop.committing import Committing
from streaming.loop.pipeline import Pipeline
from streaming.loop.poison.detection import Poison
from streaming.loop.preparation import Preparation
from streaming.loop.progress import Progress
from streaming.loop.reporting import Reporting
from streaming.loop.runtime import Runtime
from streaming.loop.waiting_loop import WaitingLoop
from streaming.ops.waiting import Waiting, doubling
from streaming.store.openmldb.cluster import ClusterStore

__all__ = ["KeptState", "RetryingCluster"]

TAIL_RECORDS = 2000
"""How far before a partition's offset `catch_up` begins: MICRO_BATCH_ROWS_MAX events, each in its own transaction."""

T = TypeVar("T")

_log = structlog.stdlib.get_logger("streaming.loop.kept_state")


class RetryingCluster:
    """A cluster that is waited for: while it is away the consumer is paused, but keeps polling to stay in its group.

    Args:
        store: raises `StoreUnavailable`, and can be called again then.
        settings: `[store]`.
        loop: goes on while the store is waited for.
        poison: holds nobody responsible for a death meanwhile.
        runtime: see `Runtime`.

    Raises:
        StoreUnavailable: for longer than `store.give_up_after_s`.
        Rebalanced, Stopped: every call, when partitions came or went, or the process was told to stop, meanwhile.
    """

    def __init__(
        self, store: ClusterStore, settings: StoreSettings, loop: WaitingLoop, poison: Poison, runtime: Runtime
    ) -> None:
        self._store, self._settings, self._loop, self._poison = store, settings, loop, poison
        self._metrics, self._health, self._clock = runtime.metrics, runtime.health, runtime.clock
        self.micro_batches = store.micro_batches
        self._away = False  # as /readyz tells, also to a call after one that `Rebalanced` has ended

    def answer(self, events: EventBatch) -> pa.Table:
        return self._persist(lambda: self._store.answer(events))

    def restore(self, events: EventBatch) -> None:
        self._persist(lambda: self._store.restore(events))

    def accept(self, events: EventBatch) -> None:
        """See `ClusterStore.accept`."""
        self._persist(lambda: self._store.accept(events))

    def drop_repeats(self, events: EventBatch) -> EventBatch:
        """All of them: a cluster keeps no request ids (`streaming.store.open.open_store`)."""
        return events

    def attempt(self) -> contextlib.AbstractContextManager[None]:
        """Any block: a cluster checks all rows before it inserts one."""
        return contextlib.nullcontext()

    def _persist(self, call: Callable[[], T]) -> T:
        try:
            answer = call()
        except StoreUnavailable as error:
            self._poison.put_down()
            self._loop.pause()
            try:
                answer = self._call_again(call, error)
            finally:
                self._loop.resume()
        if self._away:
            self._away = False
            self._health.ready("store")
            _log.info("the store is back")
        return answer

    def _call_again(self, call: Callable[[], T], failure: StoreUnavailable) -> T:
        settings, loop, generation = self._settings, self._loop, self._loop.generation

        def poll(wait_s: float) -> None:
            loop.goes_round()
            loop.keep_alive(min(0.1, wait_s))
            if loop.stop.is_set():
                raise Stopped(f"while the store is away: {failure}")
            if generation != loop.generation:
                raise Rebalanced("while the store is away")

        waits = doubling(settings.backoff_ms / 1000, settings.backoff_ms_max / 1000)
        waiting = Waiting(settings.give_up_after_s, waits, clock=self._clock)
        while True:
            self._away = True
            self._health.not_ready("store", str(failure))
            _log.warning("the store is away", error=str(failure), again_in_s=round(waiting.next_s, 2))
            if waiting.is_over:
                raise StoreUnavailable(f"gave up after {settings.give_up_after_s:.0f} s: {failure}") from failure
            waiting.rest_polling(poll)
            self._metrics.store_retries.inc()
            self._poison.take_up()
            try:
                return call()
            except StoreUnavailable as error:
                self._poison.put_down()
                failure = error


class KeptState:
    """A `State` whose tables are a cluster's.

    Args:
        store: the cluster.
        progress: where the loop stands.
        pipeline: scores a micro-batch.
        preparation: decodes and inserts.
        committing: publishes a micro-batch.
        reporting: is told that the loop goes round.
        runtime: see `Runtime`.
        limits: `[batch]`.
    """

    def __init__(
        self,
        store: RetryingCluster,
        progress: Progress,
        pipeline: Pipeline,
        preparation: Preparation,
        committing: Committing,
        reporting: Reporting,
        runtime: Runtime,
        *,
        limits: BatchLimits,
    ) -> None:
        self._store, self._progress, self._pipeline = store, progress, pipeline
        self._preparation, self._committing, self._reporting = preparation, committing, reporting
        self._metrics, self._stop, self._limits = runtime.metrics, runtime.stop, limits
        self._owed: list[EventBatch] = []  # committed, but their request rows are not in the store yet

    def catch_up(self, generation: int) -> int:
        """Inserts what may be missing of the pending partitions, and the dimension rows from the group's offsets on."""
        progress, source = self._progress, self._progress.source
        self._insert_owed()
        rows = 0
        if any(number == 0 for _, number in source.pending):
            progress.dimensions.follow()
            while not progress.dimensions.caught_up:
                rows += self._read_dimensions()
                if self._stop.is_set() or generation != source.generation:
                    return rows
        for records, _ in source.replay(TAIL_RECORDS):
            self._preparation.replay(records, self._store.accept)
            self._reporting.goes_round()
            rows += len(records)
            if self._stop.is_set():
                break
        return rows

    def go_round(self) -> None:
        """One poll, micro-batch by micro-batch."""
        progress, source, limits = self._progress, self._progress.source, self._limits
        self._insert_owed()
        starts = dict(source.positions)
        with self._metrics.stage("poll"):
            records = source.poll(limits.messages_max, limits.poll_ms / 1000, limits.linger_ms / 1000)
            if not records:
                starts = dict(source.positions)
            dimension_starts = dict(progress.dimensions.positions)
            dimension_records = progress.dimensions.poll(limits.messages_max) if source.positions else []
        if not records and not dimension_records:
            self._committing.pass_markers()
            self._committing.finished()
            return
        ends, generation = dict(source.positions), source.generation
        micro_batches = self._micro_batches(records) or [[]]
        for number, micro_batch in enumerate(micro_batches):
            batch = progress.batch()
            batch.starts, batch.dimension_starts = dict(starts), dimension_starts
            next_offsets = _first_offsets(micro_batches[number + 1 :])
            touched = {(record.topic(), record.partition()) for record in micro_batch}
            offsets = {partition: next_offsets.get(partition, ends[partition]) for partition in touched}
            try:
                self._preparation.prepare(batch, micro_batch, dimension_records)
                batch.commit_offsets.update(offsets)
                self._finish(batch)
                if batch.committed:
                    starts.update(offsets)
                    dimension_records, dimension_starts = [], dict(progress.dimensions.positions)
                    self._insert_owed()
            except Rebalanced:
                self._read_again(starts, dimension_starts)
                raise
            self._reporting.goes_round()
            if not batch.committed or generation != source.generation or self._stop.is_set():
                self._read_again(starts, dimension_starts)
                return

    def committed(self, batch: Batch) -> None:
        """The request rows go in before anything else is asked."""
        if len(batch.events):
            self._owed.append(batch.events)

    def given_up(self, batch: Batch) -> None:
        """Its rows stay, and count once: it finds them when it is read again."""
        self._progress.rewind(batch)

    def leave(self) -> None:
        """One try to insert what is owed; the next start does it otherwise."""
        try:
            self._insert_owed()
        except (StoreUnavailable, Rebalanced, Stopped) as error:
            _log.warning("request rows are left to the next start", error=str(error))

    def _read_again(self, starts: Positions, dimension_starts: Positions) -> None:
        """What was polled, but not committed, is read again."""
        batch = self._progress.batch()
        batch.starts, batch.dimension_starts = starts, dimension_starts
        self.given_up(batch)

    def _finish(self, batch: Batch) -> None:
        """Scores a batch and waits for its commit; it may be forgotten meanwhile."""
        self._progress.in_flight = self._pipeline.submit(batch)
        if self._progress.in_flight is not None:
            self._pipeline.finish(batch)
        elif batch.commit_offsets:
            self._committing.publish(batch, None)
        self._committing.finished()

    def _read_dimensions(self) -> int:
        """Inserts the next dimension rows and commits their offsets; how many it read."""
        progress = self._progress
        batch = progress.batch()
        records = progress.dimensions.poll(self._limits.messages_max, 0.1)
        if records:
            try:
                self._preparation.prepare(batch, [], records)
            except Rebalanced:
                self.given_up(batch)
                raise
            self._committing.publish(batch, None)
            self._committing.finished()
        self._reporting.goes_round()
        progress.source.keep_alive()
        return len(records)

    def _insert_owed(self) -> None:
        while self._owed:
            self._store.accept(self._owed[0])
            del self._owed[0]

    def _micro_batches(self, records: Sequence[Record]) -> list[list[Record]]:
        """The records in micro-batches; one that is no event goes with what came before it in its partition."""
        events = self._preparation.decode(records)
        number_of: dict[int, int] = {}
        if len(events):
            places = [(record.topic(), record.partition()) for record in events.records]
            for number, indices in enumerate(self._store.micro_batches(events, places)):
                number_of.update((id(events.records[index]), number) for index in indices.tolist())
        last_of: dict[tuple[str, int], int] = {}  # by partition
        micro_batches: dict[int, list[Record]] = {}
        for record in records:
            partition = (record.topic(), record.partition())
            last_of[partition] = number_of.get(id(record), last_of.get(partition, 0))
            micro_batches.setdefault(last_of[partition], []).append(record)
        return [micro_batches[number] for number in sorted(micro_batches)]


def _first_offsets(micro_batches: Sequence[Sequence[Record]]) -> Positions:
    """Of each partition the first offset in these micro-batches."""
    offsets: Positions = {}
    for micro_batch in micro_batches:
        for record in micro_batch:
            offsets.setdefault((record.topic(), record.partition()), record.offset())
    return offsets
