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
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from streaming.errors import OffsetOutOfRange
from streaming.events.decode import Action, Record, action_columns
from streaming.loop.kept_state import Moved
from streaming.ops.log import place
from streaming.store.feature_store import restore_singly

if TYPE_CHECKING:
    from streaming.loop.scorer import Scorer
    from streaming.ops.health import Health
    from streaming.state.snapshots import Standing

__all__ = ["Rebuild"]

PROGRESS_S = 2.0  # how often it says how far it is

_log = structlog.stdlib.get_logger("streaming.loop.rebuild")


class Rebuild:
    """Brings the tables up to the positions of the assigned partitions.

    Args:
        loop: whose state it is.
        restored: what a snapshot has put into the tables; none: history only.
    """

    def __init__(self, loop: Scorer, restored: Standing | None) -> None:
        self._loop = loop
        self._restored = restored
        self._following = False  # the dimension topics are read from the beginning or from where the tables stand
        if restored is not None:
            loop.source.held.update(restored.actions)
        self._told = 0.0

    def run(self) -> None:
        """Reads what is missing; returns early, to be called again, when partitions come or go meanwhile."""
        loop, source = self._loop, self._loop.source
        loop.settle()
        loop.health.not_ready("state", "rebuilding")
        loop.metrics.rebuilds.inc()
        source.pause()
        self._told = time.monotonic()
        generation = source.generation
        with contextlib.suppress(Moved):
            if self._refused(generation):
                self._make(generation)
        # Also when what was to come has gone again: the partitions that stayed must flow.
        if not source.pending:
            loop.health.ready("state")
        source.resume()

    def _make(self, generation: int) -> None:
        """Brings the tables up to the pending partitions' positions, unless `generation` passes meanwhile."""
        loop, source, start = self._loop, self._loop.source, time.monotonic()
        loop.poison.look(source.positions)
        if self._restored is not None and not self._following:
            loop.lineages.forgotten(self._restored.actions)
        if loop.store.durable:
            rows = loop.stretches.repair(generation)
        else:
            try:
                rows = self._read(generation)
            except OffsetOutOfRange as error:
                # The log has lost what the tables lack. History may have it by now; if not, that is said.
                _log.warning("the state has a hole: history is read again", why=str(error))
                self._reload()
                rows = self._read(generation)
        loop.topics.check()
        if generation != source.generation or loop.stop.is_set() or not self._note():
            return
        source.accept()
        loop.standing = loop.stand()
        loop.poison.rebuilt()
        standing = loop.standing
        loop.poison.behind({**standing.dimensions, **standing.actions}, loop.dimensions.committed)
        _log.info(
            "state is ready",
            rows=rows,
            seconds=round(time.monotonic() - start, 2),
            partitions=[place(*p, offset) for p, offset in source.positions.items()],
        )

    def _reload(self) -> None:
        """Forgets all rows and reads the history folder again.

        Raises:
            LogNotWhole: with that, too, rows would be missing. The state is as it was.
        """
        loop, lineages = self._loop, self._loop.lineages
        with _alive(loop.health):
            lineages.read_again()
            partitions = [*loop.source.positions, *loop.dimensions.positions]
            for partition, span in loop.topics.spans(partitions).items():
                lineages.begin(partition, span)
            if loop.snapshots is not None:
                loop.snapshots.abandon()
                loop.snapshots.made_with(lineages.history.digest)
            loop.store.reload()
        self._restored, self._following = None, False

    def _note(self) -> bool:
        """Has the group note what the state is made of, where it does not know; False: that was aborted."""
        loop = self._loop
        ends = dict(loop.source.positions)
        if loop.owns_dimensions():
            ends |= {p: loop.dimensions.committed.get(p, 0) for p in loop.dimensions.positions}
        if not (unnoted := loop.lineages.unnoted(ends)):
            return True
        batch = loop.batch()
        batch.ends = unnoted
        loop.publish(batch, None)
        return loop.published()

    def _refused(self, generation: int) -> bool:
        """Learns which records are dead letters; False: told to stop, or `generation` has passed."""
        loop = self._loop
        letters = 0
        for count in loop.source.refused.update():
            letters += count
            loop.report()
            loop.source.keep_alive()
            self._tell("reading dead letters", letters=letters)
            if loop.stop.is_set() or generation != loop.source.generation:
                return False
        return True

    def _read(self, generation: int) -> int:
        """How many records it read; it ends early when told to stop, or when `generation` has passed."""
        loop, source = self._loop, self._loop.source
        ahead = [p for p in source.pending if source.held.get(p, 0) > source.positions[p]]
        if ahead:
            _log.warning(
                "the group has gone back behind the state: all of it is rebuilt",
                partitions=[place(*p, source.positions[p]) for p in ahead],
            )
            self._restored, self._following = None, False
        if self._following:
            loop.dimensions.look_again()
        else:
            self._follow()
        if any(number == 0 for _, number in source.pending):
            self._own_dimensions(generation)
        rows = 0
        while not loop.dimensions.caught_up:
            if loop.stop.is_set() or generation != source.generation:
                return rows
            rows += self._dimensions()
            self._tell("replaying dimension topics", rows=rows)
        for records, left in source.replay():
            for piece in loop.poison.cut(records, replayed=True)[0]:
                with loop.poison.hold(piece, replayed=True):
                    events, good, _ = loop.decoder.decode_all(piece, replayed=True)
                    loop.poison.at("insert")
                    if events:
                        self._insert(events, good)
            loop.report()
            rows += len(records)
            loop.metrics.replayed.inc(len(records))
            self._tell("replaying actions", rows=rows, left=left)
            if loop.stop.is_set():
                break
        return rows

    def _follow(self) -> None:
        """Begins to read the dimension topics, behind what the tables hold of them."""
        loop = self._loop
        if self._restored is None:
            if loop.snapshots is not None:
                loop.snapshots.abandon()
            loop.standing = None
            with _alive(loop.health):
                loop.store.reset()
            loop.newest.clear()
            loop.source.held.clear()
            loop.source.pending |= loop.source.positions.keys()
        loop.dimensions.restart(self._restored.dimensions if self._restored else {})
        self._following = True

    def _dimensions(self) -> int:
        """Inserts the next rows of the dimension topics and publishes their dead letters; how many it read."""
        loop = self._loop
        batch = loop.batch()
        records = loop.dimensions.poll(loop.config.batch.messages_max, 0.1)
        if loop.prepare(batch, [], records).dead:
            loop.publish(batch, None)
            loop.published()
        loop.report()
        loop.source.keep_alive()
        return len(records)

    def _own_dimensions(self, generation: int) -> None:
        """Publishes the dead letters that the former owner of partition 0 has left: its rows are in the tables here."""
        loop = self._loop
        loop.dimensions.ask_committed()
        for records in loop.dimensions.unpublished():
            published = False
            while not published and not loop.stop.is_set():
                batch = loop.prepare(loop.batch(), [], records)
                loop.store.rollback(batch.mark)
                batch.after = loop.stand()
                if batch.dead:
                    batch.ends = {(r.topic(), r.partition()): r.offset() + 1 for r in records}
                    loop.publish(batch, None)
                published = loop.published()
            loop.report()
            loop.source.keep_alive()
            if loop.stop.is_set() or generation != loop.source.generation:
                return

    def _insert(self, events: Sequence[Action], records: Sequence[Record]) -> None:
        """Inserts events that were scored already; those that were refused, or repeated a request, are so again."""
        store = self._loop.store
        mark = store.mark()
        kept, _ = store.sift(events, records)
        try:
            store.restore({}, action_columns(kept) if kept else None)
        except ValueError:
            store.rollback(mark)
            restore_singly(store, {}, events, records)

    def _tell(self, what: str, **fields: object) -> None:
        if time.monotonic() - self._told > PROGRESS_S:
            self._told = time.monotonic()
            _log.info(what, **fields)


@contextlib.contextmanager
def _alive(health: Health) -> Iterator[None]:
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
