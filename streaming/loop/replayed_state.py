"""The embedded state from the log: history, the dimension topics whole, each partition up to its committed offset.

Records that are dead letters are left out (`streaming.kafka.refused_records`): their scores are not among the
published.

Only what is missing is read: a partition that comes is read from its beginning, one that comes back only from where it
was given up, and the dimension topics are read once and followed from then on. Rows of a partition that was given up
stay in the tables: they belong to keys that nobody asks for here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import structlog

from streaming.errors import OffsetOutOfRange
from streaming.events.batch import EventBatch
from streaming.kafka.lineage import Lineages
from streaming.kafka.reader import Positions
from streaming.loop.batch import Batch
from streaming.loop.committing import Committing
from streaming.loop.pipeline import Pipeline
from streaming.loop.preparation import Preparation
from streaming.loop.progress import Progress
from streaming.loop.reporting import ProgressLog, Reporting
from streaming.loop.runtime import Runtime
from streaming.ops.health import Health
from streaming.ops.log import place
from streaming.state.snapshots import Snapshots, Standing
from streaming.store.embedded import EmbeddedStore
from streaming.store.protocol import restore_good

__all__ = ["ReplayedState"]

_log = structlog.stdlib.get_logger("streaming.loop.replayed_state")


class ReplayedState:
    """A `State` whose tables are in this process.

    Args:
        store: the tables.
        progress: where the loop stands.
        pipeline: goes round.
        preparation: decodes and inserts.
        committing: publishes the dead letters of the dimension topics.
        lineages: where the log has to be read from.
        reporting: is told that the loop goes round.
        runtime: see `Runtime`.
        snapshots: where snapshots are taken; none: they are not.
        restored: what a snapshot has put into the tables; none: history only.
        messages_max: records of the dimension topics that are read at once.
        log: says how far it is.
    """

    def __init__(
        self,
        store: EmbeddedStore,
        progress: Progress,
        pipeline: Pipeline,
        preparation: Preparation,
        committing: Committing,
        lineages: Lineages,
        reporting: Reporting,
        runtime: Runtime,
        *,
        snapshots: Snapshots | None,
        restored: Standing | None,
        messages_max: int,
        log: ProgressLog,
    ) -> None:
        self._store, self._progress, self._pipeline, self._preparation = store, progress, pipeline, preparation
        self._committing, self._lineages = committing, lineages
        self._metrics, self._health, self._stop = runtime.metrics, runtime.health, runtime.stop
        self._reporting, self._snapshots, self._restored = reporting, snapshots, restored
        self._messages_max, self._progress_log = messages_max, log
        self._committed_state = restored  # the newest moment before which all is committed
        # The newest moment before which all is published, and the offsets that the group must have before it counts.
        self._published: Standing | None = None
        self._unacknowledged: Positions = {}
        self._follows_dimensions = False  # they are read from the beginning or from where the tables stand
        if restored is not None:
            progress.source.state_offsets.update(restored.actions)

    def catch_up(self, generation: int) -> int:
        if self._restored is not None and not self._follows_dimensions:
            self._lineages.check_snapshot(self._restored.actions)
        try:
            return self._read(generation)
        except OffsetOutOfRange as error:
            # The log has lost what the tables lack. History may have it by now; if not, that is said.
            _log.warning("the state has a hole: history is read again", why=str(error))
            self._reload()
            return self._read(generation)

    def go_round(self) -> None:
        if self._pipeline.is_careful() and not self._committing.finished():
            return
        if self._snapshots is not None:
            self._promote()
            self._snapshots.turn(self._committed_state)
        self._pipeline.go_round()

    def committed(self, batch: Batch) -> None:
        if self._committing.output.transactional:
            self._committed_state = batch.state_after
            return
        self._promote()
        self._unacknowledged |= batch.commit_offsets
        self._published = batch.state_after

    def _promote(self) -> None:
        """What is published becomes the committed state once the group has told that it has the offsets behind it.

        They are committed beside the loop; of a snapshot that is ahead of them nobody would know what was published.

        A partition that has gone before they were told holds this up until it is back.
        """
        if self._published is not None and self._progress.source.commits.acknowledged(self._unacknowledged):
            self._committed_state, self._published = self._published, None
            self._unacknowledged.clear()

    def given_up(self, batch: Batch) -> None:
        self._store.rollback(batch.mark)
        self._progress.rewind(batch)

    def hold_still(self) -> None:
        """Nothing goes on beside."""

    def leave(self) -> None:
        if self._snapshots is not None:
            self._snapshots.abandon()

    def _reload(self) -> None:
        """Forgets all rows and reads the history folder again.

        Raises:
            LogNotWhole: with that, too, rows would be missing. The state is as it was.
        """
        progress, lineages = self._progress, self._lineages
        with _beating(self._health):
            lineages.read_again()
            partitions = [*progress.source.positions, *progress.dimensions.positions]
            for partition, span in lineages.topics.spans(partitions).items():
                lineages.first_offset(partition, span)
            if self._snapshots is not None:
                self._snapshots.abandon()
                self._snapshots.made_with(lineages.history.digest)
            self._store.reload()
        self._restored, self._follows_dimensions = None, False

    def _read(self, generation: int) -> int:
        """How many records it read; it ends early when told to stop, or when `generation` has passed."""
        progress, source = self._progress, self._progress.source
        ahead = [p for p in source.pending if source.state_offsets.get(p, 0) > source.positions[p]]
        if ahead:
            _log.warning(
                "the group has gone back behind the state: all of it is rebuilt",
                partitions=[place(*p, source.positions[p]) for p in ahead],
            )
            self._restored, self._follows_dimensions = None, False
        if self._follows_dimensions:
            progress.dimensions.look_again()
        else:
            self._follow_dimensions()
        if any(number == 0 for _, number in source.pending):
            self._publish_former_owners_letters(generation)
        rows = 0
        while not progress.dimensions.caught_up:
            if self._stop.is_set() or generation != source.generation:
                return rows
            rows += self._read_dimensions()
            self._progress_log.tell("replaying dimension topics", rows=rows)
        for records, left in source.replay():
            self._preparation.replay(records, self._insert)
            self._reporting.goes_round()
            rows += len(records)
            self._metrics.replayed.inc(len(records))
            self._progress_log.tell("replaying events", rows=rows, left=left)
            if self._stop.is_set():
                break
        return rows

    def _follow_dimensions(self) -> None:
        """Begins to read the dimension topics, behind what the tables hold of them."""
        progress = self._progress
        if self._restored is None:
            if self._snapshots is not None:
                self._snapshots.abandon()
            self._committed_state = self._published = None
            self._unacknowledged.clear()
            with _beating(self._health):
                self._store.reset()
            progress.newest.clear()
            progress.source.state_offsets.clear()
            progress.source.pending |= progress.source.positions.keys()
        progress.dimensions.restart(self._restored.dimensions if self._restored else {})
        self._follows_dimensions = True

    def _read_dimensions(self) -> int:
        """Inserts the next rows of the dimension topics and publishes their dead letters; how many it read."""
        progress = self._progress
        batch = progress.batch()
        records = progress.dimensions.poll(self._messages_max, 0.1)
        if self._preparation.prepare(batch, [], records).dead:
            self._committing.publish(batch, None)
            self._committing.finished()
        self._reporting.goes_round()
        progress.source.keep_alive()
        return len(records)

    def _publish_former_owners_letters(self, generation: int) -> None:
        """Publishes the dead letters that the former owner of partition 0 has left: its rows are in the tables here."""
        progress, committing = self._progress, self._committing
        progress.dimensions.ask_committed()
        for records in progress.dimensions.unpublished():
            published = False
            while not published and not self._stop.is_set():
                batch = self._preparation.prepare(progress.batch(), [], records, deletes=False)
                self._store.rollback(batch.mark)
                batch.state_after = progress.standing()
                if batch.dead:
                    batch.commit_offsets = {(r.topic(), r.partition()): r.offset() + 1 for r in records}
                    committing.publish(batch, None)
                published = committing.finished()
            self._reporting.goes_round()
            progress.source.keep_alive()
            if self._stop.is_set() or generation != progress.source.generation:
                return

    def _insert(self, events: EventBatch) -> None:
        """Inserts events that were scored already; those that were refused, or repeated a request, are so again."""
        restore_good(self._store, events)


@contextlib.contextmanager
def _beating(health: Health) -> Iterator[None]:
    """Loading history takes as long as it is large: the process is alive meanwhile, though the loop stands still."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(1.0):
            health.beat()

    beating = threading.Thread(target=beat, name="loading history", daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
