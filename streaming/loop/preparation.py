"""Records → rows in the tables → features → ids: all that is done to a batch before the model sees it.

The one place where records are decoded: those that are read again to rebuild the state, too (`replay`). Records that a
process has died of are prepared alone, or not at all (`streaming.loop.poison.detection`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from streaming.app.folder import App
from streaming.app.inputs import InputDecoder
from streaming.errors import BadEvent
from streaming.events.batch import EventBatch, Refusals, joined
from streaming.events.record import Record
from streaming.loop.batch import Batch, Encoder, offset_range
from streaming.loop.poison.detection import Poison
from streaming.loop.progress import Progress
from streaming.loop.runtime import Runtime
from streaming.store.protocol import BatchStore

__all__ = ["Preparation"]

_log = structlog.stdlib.get_logger("streaming.loop.preparation")


@dataclass
class Prepared:
    """What came of records.

    Attributes:
        requests: the events to score, with their rows.
        dead: what cannot be scored or inserted, and why.
        repeats: how many events were left out, because they repeat a request.
        ids: int64 [requests, fields]; none without requests.
    """

    requests: EventBatch = field(default_factory=EventBatch)
    dead: Refusals = field(default_factory=list)
    repeats: int = 0
    ids: npt.NDArray[np.int64] | None = None


class Preparation:
    """Prepares batches.

    Args:
        app: whose events they are.
        progress: says which offsets a batch commits, and whose the dimension topics' dead letters are.
        store: takes the rows and answers the requests.
        decoder: of all input topics.
        encoder: makes ids of the features.
        poison: knows which records a process has died of.
        runtime: see `Runtime`.
    """

    def __init__(
        self,
        app: App,
        progress: Progress,
        store: BatchStore,
        decoder: InputDecoder,
        encoder: Encoder,
        poison: Poison,
        runtime: Runtime,
    ) -> None:
        self.store = store
        self._main = app.main
        self._progress, self._decoder, self._encoder, self._poison = progress, decoder, encoder, poison
        self._metrics, self._health, self._step = runtime.metrics, runtime.health, runtime.step

    def prepare(
        self, batch: Batch, records: Sequence[Record], dimension_records: Sequence[Record], *, deletes: bool = True
    ) -> Batch:
        """Decodes the records, inserts the rows, computes the features, encodes them; says what it would commit.

        Args:
            deletes: False: tombstones delete no rows. For records that are behind the tables, whose rows are rolled
                back: what has been deleted does not come back.

        Returns:
            The batch, filled in.
        """
        progress, metrics = self._progress, self._metrics
        dimension_records = progress.source.refused.drop(dimension_records)
        metrics.batch_messages.observe(len(records) + len(dimension_records))
        self._fill(batch, records, dimension_records, deletes)
        batch.commit_offsets = progress.offsets_behind(records)
        batch.state_after = progress.standing()
        for topic, count in Counter(record.topic() for record in (*dimension_records, *records)).items():
            metrics.events.labels(topic).inc(count)
        return batch

    def replay(self, records: Sequence[Record], insert: Callable[[EventBatch], None]) -> None:
        """Inserts events that were scored before.

        Args:
            records: in the order of their partitions.
            insert: called with events; suspects come alone.
        """
        for piece in self._poison.split(records, replayed=True)[0]:
            with self._poison.hold(piece, replayed=True):
                events, _ = self._decoder.decode(piece, replayed=True)
                self._poison.note_stage("insert")
                if len(events):
                    insert(events)

    def decode(self, records: Sequence[Record]) -> EventBatch:
        """Only decodes: the events."""
        decoded: list[EventBatch] = []
        for piece in self._poison.split(records)[0]:
            with self._poison.hold(piece):
                decoded.append(self._decoder.decode(piece)[0])
        return joined(decoded)

    def _fill(
        self, batch: Batch, records: Sequence[Record], dimension_records: Sequence[Record], deletes: bool
    ) -> None:
        poison = self._poison
        parts: list[tuple[Sequence[Record], Sequence[Record]]] = [(records, dimension_records)]
        aside: Refusals = []
        if poison.has_suspects:
            dimension_pieces, dimensions_aside = poison.split(dimension_records)
            pieces, aside = poison.split(records)
            parts = [*(((), piece) for piece in dimension_pieces), *((piece, ()) for piece in pieces)]
            aside = self._progress.ours_to_publish(dimensions_aside) + aside
        done = []
        for part in parts:
            with poison.hold(*part):
                done.append(self._part(*part, deletes))
            self._health.beat()
        batch.dead = aside + [refusal for part in done for refusal in part.dead]
        batch.repeats = sum(part.repeats for part in done)
        batch.events = joined([part.requests for part in done])
        ids = [part.ids for part in done if part.ids is not None]
        if ids:
            batch.ids = ids[0] if len(ids) == 1 else np.concatenate(ids)

    def _part(self, records: Sequence[Record], dimension_records: Sequence[Record], deletes: bool) -> Prepared:
        with self._metrics.stage("decode"):
            # Dimension rows first: the requests shall see them.
            events, refused = self._decoder.decode([*dimension_records, *records])
        if not deletes:
            events = events.without_deletes()
        done = Prepared(dead=self._ours(refused))
        self._step("decode")
        self._poison.note_stage("features")
        with self._metrics.stage("features"):
            features = self._features(done, events) if len(events) else None
        self._step("features")
        self._poison.note_stage("encode")
        if features is not None:
            with self._metrics.stage("encode"):
                done.ids = self._encoder.encode(features)
            self._step("encode")
        return done

    def _ours(self, refused: Refusals) -> Refusals:
        """Without those dead letters of dimension topics that are not this scorer's to publish."""
        of_dimensions = [refusal for refusal in refused if self._decoder.of_dimensions(refusal[0])]
        others = [refusal for refusal in refused if not self._decoder.of_dimensions(refusal[0])]
        return self._progress.ours_to_publish(of_dimensions) + others

    def _features(self, done: Prepared, events: EventBatch) -> pa.Table | None:
        """Inserts the rows and answers the requests; an event that the store refuses becomes a dead letter, one that
        repeats a request is left out.

        The store checks what the decoder checks, so a refusal is rare: only then the events are taken one by one.
        """
        store = self.store
        try:
            with store.attempt():
                kept = store.drop_repeats(events)
                answers = self._answer(kept)
        except ValueError as error:
            _log.warning("the store refuses a row: one by one", error=str(error), at=offset_range(events.records))
            return self._features_singly(done, events)
        done.repeats = len(events) - len(kept)
        done.requests = kept.take(kept.has(self._main))
        return answers

    def _features_singly(self, done: Prepared, events: EventBatch) -> pa.Table | None:
        """Inserts and answers events one by one; `done` gets those that the store takes."""
        store = self.store
        answers: list[pa.Table] = []
        kept: list[EventBatch] = []
        for number in range(len(events)):
            event = events.event(number)
            asks = self._main in event.rows
            try:
                with store.attempt():
                    if not len(store.drop_repeats(event)):
                        done.repeats += 1
                        continue
                    answer = self._answer(event)
            except ValueError as error:
                refusal = BadEvent("features" if asks else "insert", str(error))
                done.dead += self._ours([(events.records[number], refusal)])
                continue
            if answer is not None:
                answers.append(answer)
                kept.append(event)
        done.requests = joined(kept)
        return pa.concat_tables(answers) if answers else None

    def _answer(self, events: EventBatch) -> pa.Table | None:
        """The answers to the requests among the events; None: none of them asks."""
        if self._main in events.rows:
            return self.store.answer(events)
        self.store.restore(events)
        return None
