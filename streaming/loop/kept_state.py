"""The loop over a store that keeps its rows: stretch by stretch, each committed before the next is asked.

The store is outside of Kafka's transaction and forgets nothing, so nothing may get into it that would change the
answer to an event which is read again (see `streaming.store.openmldb.cluster`). A poll is therefore cut into
stretches: of each partition a piece from where it stands, such that no event touches another's rows. A stretch is one
transaction; after it the request rows of its events are inserted (`accept`), and only then the next stretch is asked.

    dies before the commit    its actions' rows are in, which their own requests have to see anyway: asked again, each
                              event gets the same features
    dies after the commit     up to WAVE_ROWS_MAX request rows are missing: the next start inserts the requests of the
                              last records before each partition's offset (`repair`); rows that are in stay as they are
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import structlog

from streaming.errors import Stopped, StoreUnavailable
from streaming.events.decode import Action, Actions, Record, action_columns

if TYPE_CHECKING:
    from streaming.kafka.reader import Positions
    from streaming.loop.scorer import Batch, Scorer

__all__ = ["Moved", "Patient", "Stretches", "waits"]

TAIL_RECORDS = 2000
"""How far before a partition's offset `repair` begins: WAVE_ROWS_MAX events, were each in a transaction of its own."""

T = TypeVar("T")

_log = structlog.stdlib.get_logger("streaming.loop.kept_state")


class Moved(Exception):
    """Partitions came or went while the store was awaited: what was under way was forgotten."""


def waits(first_s: float, max_s: float) -> Iterator[float]:
    """Doubling waits with jitter: many scorers must not come back to a server in step."""
    wait_s = first_s
    while True:
        yield wait_s * random.uniform(0.5, 1)
        wait_s = min(2 * wait_s, max_s)


class Patient:
    """A store that is waited for: while it is away the consumer is paused, but keeps polling to stay in its group.

    Args:
        store: raises `StoreUnavailable`, and can be called again then.

    Raises:
        StoreUnavailable: for longer than `store.give_up_after_s`.
        Moved, Stopped: every call, when partitions came or went, or the process was told to stop, meanwhile.
    """

    durable = True

    def __init__(self, store: Any, loop: Scorer) -> None:
        self._store, self._loop = store, loop
        self._away = False  # as /readyz tells, also to a call after one that `Moved` has ended
        self.sift = store.sift
        self.waves = store.waves
        self.schema = store.schema
        self.sizes = store.sizes
        self.mark, self.rollback, self.reset, self.close = store.mark, store.rollback, store.reset, store.close
        self.reload = store.reload

    def load(self) -> None:
        self._persist(self._store.load)

    def answer(self, dimensions: Mapping[str, pa.Table], actions: Actions) -> pa.Table:
        return self._persist(lambda: self._store.answer(dimensions, actions))

    def restore(self, dimensions: Mapping[str, pa.Table], actions: Actions | None) -> None:
        self._persist(lambda: self._store.restore(dimensions, actions))

    def accept(self, actions: Actions) -> None:
        self._persist(lambda: self._store.accept(actions))

    def _persist(self, call: Callable[[], T]) -> T:
        loop = self._loop
        settings = loop.config.store
        try:
            answer = call()
        except StoreUnavailable as error:
            failure = error
        else:
            self._back()
            return answer
        loop.poison.put_down()
        generation = loop.source.generation
        deadline = time.monotonic() + settings.give_up_after_s
        loop.source.pause()
        try:
            for wait_s in waits(settings.backoff_ms / 1000, settings.backoff_ms_max / 1000):
                self._away = True
                loop.health.not_ready("store", str(failure))
                _log.warning("the store is away", error=str(failure), again_in_s=round(wait_s, 2))
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"gave up after {settings.give_up_after_s:.0f} s: {failure}") from failure
                again = time.monotonic() + wait_s
                while time.monotonic() < again:
                    loop.report()
                    loop.source.keep_alive(min(0.1, wait_s))
                    if loop.stop.is_set():
                        raise Stopped(f"while the store is away: {failure}")
                    if generation != loop.source.generation:
                        raise Moved
                loop.metrics.store_retries.inc()
                loop.poison.take_up()
                try:
                    answer = call()
                    break
                except StoreUnavailable as error:
                    loop.poison.put_down()
                    failure = error
        finally:
            loop.source.resume()
        self._back()
        return answer

    def _back(self) -> None:
        if self._away:
            self._away = False
            self._loop.health.ready("store")
            _log.info("the store is back")


class Stretches:
    """Goes round over a durable store.

    Args:
        loop: whose `store` it is.
    """

    def __init__(self, loop: Scorer) -> None:
        self._loop = loop
        self._owed: list[Actions] = []  # committed, but their request rows are not in the store yet

    def owe(self, actions: Actions) -> None:
        """These were committed: their request rows go in before anything else is asked."""
        self._owed.append(actions)

    def go_round(self) -> None:
        """One poll, stretch by stretch.

        Raises:
            Moved: partitions came or went; what was not committed is read again.
        """
        loop = self._loop
        self._pay()
        limits, starts = loop.config.batch, dict(loop.source.positions)
        with loop.metrics.stage("poll"):
            records = loop.source.poll(limits.messages_max, limits.poll_ms / 1000, limits.linger_ms / 1000)
            if not records:
                starts = dict(loop.source.positions)
            dimension_starts = dict(loop.dimensions.positions)
            dimension_records = loop.dimensions.poll(limits.messages_max) if loop.source.positions else []
        if not records and not dimension_records:
            loop.pass_markers()
            loop.published()
            return
        ends, generation = dict(loop.source.positions), loop.source.generation
        stretches = self._cut(records) or [[]]
        for number, stretch in enumerate(stretches):
            batch = loop.batch()
            batch.starts, batch.dimension_starts = dict(starts), dimension_starts
            following = _next_offsets(loop.source.topic, stretches[number + 1 :])
            touched = {(loop.source.topic, record.partition()) for record in stretch}
            behind = {partition: following.get(partition, ends[partition]) for partition in touched}
            try:
                loop.prepare(batch, stretch, dimension_records)
                batch.ends.update(behind)
                self._finish(batch)
                if batch.committed:
                    starts.update(behind)
                    dimension_records, dimension_starts = [], dict(loop.dimensions.positions)
                    self._pay()
            except Moved:
                self._leave(starts, dimension_starts)
                raise
            loop.report()
            if not batch.committed or generation != loop.source.generation or loop.stop.is_set():
                self._leave(starts, dimension_starts)
                return

    def repair(self, generation: int) -> int:
        """Inserts what may be missing of the pending partitions, and the dimension rows from the group's offsets on.

        Returns:
            How many records it read.
        """
        loop = self._loop
        self._pay()
        rows = 0
        if any(number == 0 for _, number in loop.source.pending):
            loop.dimensions.follow()
            while not loop.dimensions.caught_up:
                rows += self._dimensions()
                if loop.stop.is_set() or generation != loop.source.generation:
                    return rows
        for records, _ in loop.source.replay(TAIL_RECORDS):
            for piece in loop.poison.cut(records, replayed=True)[0]:
                with loop.poison.hold(piece, replayed=True):
                    events, _, _ = loop.decoder.decode_all(piece, replayed=True)
                    loop.poison.at("insert")
                    if events:
                        loop.store.accept(action_columns(events))
            loop.report()
            rows += len(records)
            if loop.stop.is_set():
                break
        return rows

    def settle(self) -> None:
        """Before the process ends: one try to insert what is owed; the next start does it otherwise."""
        try:
            self._pay()
        except (StoreUnavailable, Moved, Stopped) as error:
            _log.warning("request rows are left to the next start", error=str(error))

    def _leave(self, starts: Positions, dimension_starts: Positions) -> None:
        """What was polled, but not committed, is read again."""
        batch = self._loop.batch()
        batch.starts, batch.dimension_starts = starts, dimension_starts
        self._loop.undo(batch)

    def _finish(self, batch: Batch) -> None:
        """Scores a batch and waits for its commit; it may be forgotten meanwhile."""
        loop = self._loop
        loop.in_flight = loop.submit(batch)
        if loop.in_flight is not None:
            loop.finish(batch)
        elif batch.ends:
            loop.publish(batch, None)
        loop.published()

    def _dimensions(self) -> int:
        """Inserts the next dimension rows and commits their offsets; how many it read."""
        loop = self._loop
        batch = loop.batch()
        records = loop.dimensions.poll(loop.config.batch.messages_max, 0.1)
        if records:
            try:
                loop.prepare(batch, [], records)
            except Moved:
                loop.undo(batch)
                raise
            loop.publish(batch, None)
            loop.published()
        loop.report()
        loop.source.keep_alive()
        return len(records)

    def _pay(self) -> None:
        while self._owed:
            self._loop.store.accept(self._owed[0])
            del self._owed[0]

    def _cut(self, records: Sequence[Record]) -> list[list[Record]]:
        """The records in stretches; one that is no event goes with what came before it in its partition."""
        events: list[Action] = []
        good: list[Record] = []
        for piece in self._loop.poison.cut(records)[0]:
            with self._loop.poison.hold(piece):
                some, of, _ = self._loop.decoder.decode_all(piece)
            events += some
            good += of
        number_of: dict[int, int] = {}
        if events:
            waves = self._loop.store.waves(action_columns(events), [record.partition() for record in good])
            for number, wave in enumerate(waves):
                number_of.update((id(good[p]), number) for p in wave.tolist())
        reached: dict[int, int] = {}
        stretches: dict[int, list[Record]] = {}
        for record in records:
            partition = record.partition()
            reached[partition] = number_of.get(id(record), reached.get(partition, 0))
            stretches.setdefault(reached[partition], []).append(record)
        return [stretches[number] for number in sorted(stretches)]


def _next_offsets(topic: str, stretches: Sequence[Sequence[Record]]) -> Positions:
    """Of each partition the first offset in these stretches."""
    offsets: Positions = {}
    for stretch in stretches:
        for record in stretch:
            offsets.setdefault((topic, record.partition()), record.offset())
    return offsets
