"""The loop over a store that keeps its rows: micro-batch by micro-batch, each committed before the next is asked.

The store is outside of Kafka's transaction and forgets nothing, so nothing may get into it that would change the
answer to an event which is read again (see `streaming.store.openmldb.cluster`). So no event of a micro-batch touches
another's rows: of what was read it holds those events that need no earlier one's, of each key the first. A micro-batch
is one transaction; after it the request rows of its events are inserted (`accept`). An event waits for earlier ones of
its key, not for its partition: the transaction commits the offset of the first record that is not done, and which ones
behind it are (`streaming.kafka.ahead`).

While a micro-batch is asked, scored and committed, the rows of the next go in, and the request rows of the one before.
It touches none of its rows: both could have been one, so what holds of one that dies before its commit holds of both.

    dies before the commit    its actions' rows are in, which their own requests have to see anyway: asked again, each
                              event gets the same features
    dies after the commit     up to MICRO_BATCH_ROWS_MAX request rows are missing: the next start inserts the rows of
                              the last records before each partition's offset (`catch_up`), and of those behind it
                              that are done, when it reads them; rows that are in stay as they are
    a server dies             it may have acknowledged rows that its replicas lack: once the cluster is back, the last
                              rows of all partitions are inserted before anything is asked (`_insert_again`)
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from streaming.config import Batch as BatchLimits
from streaming.errors import Rebalanced, Stopped, StoreUnavailable
from streaming.events.batch import EventBatch
from streaming.events.record import Record
from streaming.kafka.ahead import Ahead
from streaming.kafka.lineage import Lineages
from streaming.kafka.reader import Positions
from streaming.loop.batch import Batch
from streaming.loop.committing import Committing
from streaming.loop.pipeline import Pipeline
from streaming.loop.preparation import Preparation
from streaming.loop.progress import Progress
from streaming.loop.reporting import Reporting
from streaming.loop.retrying_cluster import RetryingCluster
from streaming.loop.runtime import Runtime
from streaming.store.micro_batches import Backlog
from streaming.store.openmldb.cluster import MICRO_BATCH_ROWS_MAX

__all__ = ["KeptState"]

SPAN_MAX = 3000
"""How far behind a partition's first record that is not done others may be."""

TAIL_RECORDS = SPAN_MAX + 2000
"""How far before a partition's offset `catch_up` begins: what one transaction can have passed, with as many markers as
MICRO_BATCH_ROWS_MAX transactions have; and what a server that dies may take along, a second's rows."""

DIMENSION_TAIL_RECORDS = 2000
"""The same of each partition of the dimension topics."""

HALVED_MIN = 400
"""A micro-batch of so many events is asked in two halves: while one is, the other's rows go in. Over a real cluster a
round costs 30 ms and more whatever is in it: halves of some dozens made a backlog a fifth slower."""

DRAIN_S = 2.0
"""For how long what was read is scored once the process is told to stop."""

Partition = tuple[str, int]

_log = structlog.stdlib.get_logger("streaming.loop.kept_state")


class KeptState:
    """A `State` whose tables are a cluster's.

    Args:
        store: the cluster.
        progress: where the loop stands.
        pipeline: scores a micro-batch.
        preparation: decodes and inserts.
        committing: publishes a micro-batch.
        lineages: has what is done behind the offsets noted beside them.
        reporting: is told that the loop goes round.
        runtime: see `Runtime`.
        limits: `[batch]`.

    Attributes:
        halved_min: see `HALVED_MIN`.
    """

    def __init__(
        self,
        store: RetryingCluster,
        progress: Progress,
        pipeline: Pipeline,
        preparation: Preparation,
        committing: Committing,
        lineages: Lineages,
        reporting: Reporting,
        runtime: Runtime,
        *,
        limits: BatchLimits,
    ) -> None:
        self._store, self._progress, self._pipeline = store, progress, pipeline
        self._preparation, self._committing, self._reporting = preparation, committing, reporting
        self._lineages, self._limits = lineages, limits
        self._metrics, self._stop, self._clock = runtime.metrics, runtime.stop, runtime.clock
        self.halved_min = HALVED_MIN
        self._open: dict[Partition, dict[int, Record]] = {}  # read, but not done, by offset, ascending
        self._backlog: Backlog[Record] = Backlog()  # those that are events, and wait for each other
        self._strays: list[Record] = []  # those that are none: they wait for nobody
        self._ahead: dict[Partition, Ahead] = {}  # of each partition up to where it is committed
        self._passed: set[Partition] = set()  # of which records were read that were done already
        self._next: list[Record] = []  # those of the backlog whose rows go in beside the micro-batch before
        self._generation = -1

    def catch_up(self, generation: int) -> int:
        """Inserts what may be missing of the pending partitions, and the dimension rows from shortly before the group's
        offsets on."""
        progress, source = self._progress, self._progress.source
        # From where they are committed: these offsets may be committed again, with what is noted to be done behind.
        self._read_again(self._starts() | {partition: ahead.offset for partition, ahead in self._ahead.items()})
        for partition in source.pending:
            self._set_ahead(partition, self._lineages.noted_ahead(partition, source.positions[partition]))
        self._store.insert_owed()
        rows = 0
        if any(number == 0 for _, number in source.pending):
            progress.dimensions.follow(DIMENSION_TAIL_RECORDS)
            while not progress.dimensions.caught_up:
                rows += self._read_dimensions()
                if self._stop.is_set() or generation != source.generation:
                    return rows
        for records, _ in source.replay(TAIL_RECORDS):
            self._preparation.replay(records, self._store.restore)
            self._reporting.goes_round()
            rows += len(records)
            if self._stop.is_set():
                break
        return rows

    def go_round(self) -> None:
        """Reads what comes, and scores of all that is open one micro-batch."""
        progress, source = self._progress, self._progress.source
        if self._generation != source.generation:
            self._read_again(self._starts())
            self._generation = source.generation
        if self._store.doubtful:
            self._read_again(self._starts())
            self._insert_again()
        starts, dimension_starts = self._starts(), dict(progress.dimensions.positions)
        records = self._read()
        if self._generation != source.generation:
            return
        try:
            self._take_in(self._undone(records))
        except Rebalanced:
            self._read_again(starts)
            raise
        polled = progress.dimensions.poll(self._limits.messages_max) if source.positions and not source.pending else []
        if self._open or polled or self._passed:
            self._score(starts, polled, dimension_starts)
        elif not records:
            self._store.settle()
            self._committing.pass_markers()
            self._committing.finished()
        if self._stop.is_set():
            until = self._clock.monotonic() + DRAIN_S
            while self._open and self._generation == source.generation and self._clock.monotonic() < until:
                self._score(self._starts(), [], dict(progress.dimensions.positions))

    def _insert_again(self) -> None:
        """Inserts the rows of the last records, which a server that has died may have taken along."""
        progress, source = self._progress, self._progress.source
        generation = source.generation
        _log.warning("rows may have been lost: the last ones are inserted again")
        source.pause()
        try:
            self._store.insert_owed()
            if progress.owns_dimensions():
                progress.dimensions.follow(DIMENSION_TAIL_RECORDS)
                while not progress.dimensions.caught_up and generation == source.generation and not self._stop.is_set():
                    self._read_dimensions()
            rows = 0
            for records in source.tail(TAIL_RECORDS):
                self._preparation.replay(records, self._store.restore)
                self._reporting.goes_round()
                rows += len(records)
                if self._stop.is_set():
                    break
        finally:
            source.resume()
        if generation != source.generation:
            raise Rebalanced("while rows were inserted again")  # once more, with what is assigned then
        self._store.doubtful = False
        _log.info("rows are inserted again", records=rows)

    def committed(self, batch: Batch) -> None:
        """The request rows go in before anything else is asked."""
        if len(batch.events):
            self._store.owe(batch.events)

    def given_up(self, batch: Batch) -> None:
        """Its rows stay, and count once: it finds them when it is read again."""
        self._next = []
        self._store.forget_next()
        self._open.clear()
        self._backlog.clear()
        self._strays = []
        self._progress.open = set()
        self._passed.clear()
        for partition, ahead in self._ahead.items():
            self._lineages.ahead[partition] = ahead
        self._progress.rewind(batch)

    def hold_still(self) -> None:
        """Whoever gets the partitions shall not find rows come in behind its back."""
        self._store.join()

    def leave(self) -> None:
        """One try to insert what is owed; the next start does it otherwise."""
        try:
            self._store.insert_owed()
        except (StoreUnavailable, Rebalanced, Stopped) as error:
            _log.warning("request rows are left to the next start", error=str(error))

    def _read(self) -> Sequence[Record]:
        """Polls for as many records as may be open; waits for the first only where nothing is to be done meanwhile."""
        source, limits = self._progress.source, self._limits
        room = min(limits.messages_max, SPAN_MAX) - len(self._backlog) - len(self._strays)
        for partition, first in self._starts().items():
            room = min(room, SPAN_MAX - (source.positions[partition] - first))
        if room <= 0 or (self._open and self._stop.is_set()):
            source.pause()
            source.keep_alive()
            source.resume()
            return ()
        with self._metrics.stage("poll"):
            records = source.poll(room, 0.0)
        if records or self._open or self._generation != source.generation:
            return records
        self._store.insert_owed()
        with self._metrics.stage("poll"):
            return source.poll(room, limits.poll_ms / 1000)

    def _undone(self, records: Sequence[Record]) -> list[Record]:
        """Those records that are not done. Of the others the request rows may be missing: whoever committed them has
        died, perhaps before it could insert them."""
        again = [record for record in records if self._is_done(record)]
        if again:
            self._preparation.replay(again, self._store.restore)
            self._passed |= {_partition(record) for record in again}
        return [record for record in records if not self._is_done(record)]

    def _is_done(self, record: Record) -> bool:
        ahead = self._ahead.get(_partition(record))
        return ahead is not None and ahead.has(record.offset())

    def _score(self, starts: Positions, dimension_records: Sequence[Record], dimension_starts: Positions) -> None:
        """One micro-batch of what is open, to its commit.

        Args:
            starts, dimension_starts: from where is read again if it is not committed.
        """
        micro_batch, self._next = self._micro_batches()
        self._store.insert_next(self._preparation.decode(self._next) if self._next else EventBatch())
        batch = self._progress.batch()
        batch.starts, batch.dimension_starts = starts, dimension_starts
        try:
            self._preparation.prepare(batch, micro_batch, dimension_records)
            moved = self._moved(micro_batch)
            batch.commit_offsets.update({partition: ahead.offset for partition, ahead in moved.items()})
            self._lineages.ahead |= moved
            self._finish(batch)
        except Rebalanced:
            self._read_again(starts, dimension_starts)
            raise
        self._reporting.goes_round()
        if not batch.committed:
            self._read_again(starts, dimension_starts)
            return
        for partition, ahead in moved.items():
            self._set_ahead(partition, ahead)
        self._passed.clear()
        self._give_out(micro_batch)

    def _moved(self, micro_batch: Sequence[Record]) -> dict[Partition, Ahead]:
        """Of the partitions of a micro-batch, and of those that were passed, where they stand once it is done."""
        done: dict[Partition, list[int]] = {partition: [] for partition in self._passed}
        for record in micro_batch:
            done.setdefault(_partition(record), []).append(record.offset())
        positions = self._progress.source.positions
        moved = {}
        for partition, offsets in done.items():
            mine = set(offsets)
            undone = next((offset for offset in self._open.get(partition, ()) if offset not in mine), None)
            moved[partition] = self._of(partition).moved(offsets, undone, positions[partition])
        return moved

    def _of(self, partition: Partition) -> Ahead:
        return self._ahead.get(partition) or Ahead(self._starts()[partition])

    def _set_ahead(self, partition: Partition, ahead: Ahead) -> None:
        self._ahead[partition] = self._lineages.ahead[partition] = ahead

    def _starts(self) -> Positions:
        """Of each partition the first offset that is to be read again when nothing more is committed."""
        starts = dict(self._progress.source.positions)
        for partition, records in self._open.items():
            if partition in starts:
                starts[partition] = min(starts[partition], next(iter(records)))
        return starts

    def _take_in(self, records: Sequence[Record]) -> None:
        """Records that were read are open."""
        if not records:
            return
        for record in records:
            self._open.setdefault(_partition(record), {})[record.offset()] = record
        self._progress.open = set(self._open)
        events = self._preparation.decode(records)
        # Events of one key of Kafka's keep their order, too: their scores shall.
        keys = [(*_partition(record), record.key()) for record in events.records]
        for record, footprint in zip(events.records, self._store.footprints(events, keys), strict=True):
            self._backlog.add(record, footprint)
        known = set(map(id, events.records))
        self._strays += [record for record in records if id(record) not in known]

    def _give_out(self, records: Sequence[Record]) -> None:
        """They are done."""
        for record in records:
            partition = _partition(record)
            of_partition = self._open[partition]
            del of_partition[record.offset()]
            if not of_partition:
                del self._open[partition]
        self._progress.open = set(self._open)
        self._backlog.done(records)
        self._strays = []

    def _read_again(self, starts: Positions, dimension_starts: Positions | None = None) -> None:
        """What was read, but not committed, is read again; of partitions that have gone nothing is known any more."""
        source = self._progress.source
        batch = self._progress.batch()
        batch.starts = {partition: offset for partition, offset in starts.items() if partition not in source.pending}
        if dimension_starts is not None:
            batch.dimension_starts = dimension_starts
        for partition in self._ahead.keys() - (source.positions.keys() - source.pending):
            del self._ahead[partition]
            self._lineages.ahead.pop(partition, None)
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

    def _micro_batches(self) -> tuple[list[Record], list[Record]]:
        """Of what is open the events that need no earlier one's rows, in their order, and all that is no event; and of
        the events those whose rows go in beside.
        """
        free = self._backlog.ready(MICRO_BATCH_ROWS_MAX)
        if self._pipeline.is_careful():
            return [*self._strays, *free], []
        chosen = self._next or (free[: len(free) // 2] if len(free) >= self.halved_min else free)
        taken = set(map(id, chosen))
        following = [record for record in free if id(record) not in taken]
        if len(following) < self.halved_min // 2:
            following = []
        return [*self._strays, *chosen], following


def _partition(record: Record) -> Partition:
    return record.topic(), record.partition()
