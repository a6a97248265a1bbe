"""Records → rows in the tables → features → ids: all that is done to a batch before the model sees it.

The one place where records are decoded: those that are read again to rebuild the state, too (`replay`). Records that a
process has died of are prepared alone, or not at all (`streaming.loop.poison.detection`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from streaming.errors import BadEvent
from streaming.events.decode import Action, Actions, Record, action_columns
from streaming.events.inputs import DecodedDimensions, InputDecoder, Refusals
from streaming.loop.batch import Batch, Encoder, offset_range
from streaming.loop.poison.detection import Poison
from streaming.loop.progress import Progress
from streaming.loop.runtime import Runtime
from streaming.store.protocol import BatchStore, restore_singly

__all__ = ["Preparation"]

_log = structlog.stdlib.get_logger("streaming.loop.preparation")


@dataclass
class Prepared:
    """What came of records.

    Attributes:
        events, records: the actions to score, and the records that they came in.
        actions: the same as columns; none without events.
        dead: what cannot be scored, and why.
        repeats: how many actions were left out, because they repeat a request.
        ids: int64 [events, 41]; none without events.
    """

    events: list[Action]
    records: list[Record]
    actions: Actions | None = None
    dead: Refusals = field(default_factory=list)
    repeats: int = 0
    ids: npt.NDArray[np.int64] | None = None


class Preparation:
    """Prepares batches.

    Args:
        progress: says which offsets a batch commits, and whose the dimension topics' dead letters are.
        store: takes the rows and answers the requests.
        decoder: of all input topics.
        encoder: makes ids of the features.
        poison: knows which records a process has died of.
        runtime: see `Runtime`.
    """

    def __init__(
        self,
        progress: Progress,
        store: BatchStore,
        decoder: InputDecoder,
        encoder: Encoder,
        poison: Poison,
        runtime: Runtime,
    ) -> None:
        self.store = store
        self._progress, self._decoder, self._encoder, self._poison = progress, decoder, encoder, poison
        self._metrics, self._health, self._step = runtime.metrics, runtime.health, runtime.step

    def prepare(self, batch: Batch, records: Sequence[Record], dimension_records: Sequence[Record]) -> Batch:
        """Decodes the records, inserts the rows, computes the features, encodes them; says what it would commit.

        Returns:
            The batch, filled in.
        """
        progress, metrics = self._progress, self._metrics
        dimension_records = progress.source.refused.drop(dimension_records)
        metrics.batch_messages.observe(len(records) + len(dimension_records))
        self._fill(batch, records, dimension_records)
        batch.commit_offsets = progress.offsets_behind(records)
        batch.state_after = progress.standing()
        for topic in {record.topic() for record in dimension_records}:
            metrics.events.labels(topic).inc(sum(record.topic() == topic for record in dimension_records))
        metrics.events.labels(progress.source.topic).inc(len(records))
        return batch

    def replay(self, records: Sequence[Record], insert: Callable[[Sequence[Action], Sequence[Record]], None]) -> None:
        """Inserts actions that were scored before.

        Args:
            records: of one topic.
            insert: called with events, and the records that they came in; suspects come alone.
        """
        for piece in self._poison.split(records, replayed=True)[0]:
            with self._poison.hold(piece, replayed=True):
                events, good, _ = self._decoder.actions(piece, replayed=True)
                self._poison.note_stage("insert")
                if events:
                    insert(events, good)

    def decode(self, records: Sequence[Record]) -> tuple[list[Action], list[Record]]:
        """Only decodes actions: the events, and the records that they came in."""
        events: list[Action] = []
        good: list[Record] = []
        for piece in self._poison.split(records)[0]:
            with self._poison.hold(piece):
                decoded, came_in, _ = self._decoder.actions(piece)
            events += decoded
            good += came_in
        return events, good

    def _fill(self, batch: Batch, records: Sequence[Record], dimension_records: Sequence[Record]) -> None:
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
                done.append(self._part(*part))
            self._health.beat()
        batch.dead = aside + [refusal for part in done for refusal in part.dead]
        batch.records = [record for part in done for record in part.records]
        batch.repeats = sum(part.repeats for part in done)
        scored = [part for part in done if part.actions is not None]
        if len(scored) == 1:
            batch.actions, batch.ids = scored[0].actions, scored[0].ids
        elif scored:
            batch.actions = action_columns([event for part in scored for event in part.events])
            batch.ids = np.concatenate([part.ids for part in scored if part.ids is not None])

    def _part(self, records: Sequence[Record], dimension_records: Sequence[Record]) -> Prepared:
        with self._metrics.stage("decode"):
            events, good, bad = self._decoder.actions(records)
            dimensions = self._decoder.dimensions(dimension_records)
        done = Prepared(events, good, dead=self._progress.ours_to_publish(dimensions.refused) + bad)
        self._step("decode")
        self._poison.note_stage("features")
        with self._metrics.stage("features"):
            features = self._features(done, dimensions)
        self._step("features")
        self._poison.note_stage("encode")
        if features is not None:
            with self._metrics.stage("encode"):
                done.ids = self._encoder.encode(features)
            self._step("encode")
        return done

    def _features(self, done: Prepared, dimensions: DecodedDimensions) -> pa.Table | None:
        """Inserts the rows and answers the requests; a row or event that the store refuses becomes a dead letter, one
        that repeats a request is left out.

        The store checks what the decoder checks, so a refusal is rare: only then the rows are inserted one by one.

        Args:
            done: its events are inserted and answered; those that are refused or repeat leave it.
        """
        store, events, records = self.store, done.events, done.records
        try:
            with store.attempt():
                done.events, done.records = store.drop_repeats(events, records)
                done.repeats = len(events) - len(done.events)
                done.actions = action_columns(done.events) if done.events else None
                if done.actions is not None:
                    return store.answer(dimensions.rows, done.actions)
                store.restore(dimensions.rows, None)
                return None
        except ValueError as error:
            _log.warning("the store refuses a row: one by one", error=str(error), at=offset_range(done.records))
        refused = restore_singly(store, dimensions.rows, (), ())
        done.dead += self._progress.ours_to_publish(
            [(dimensions.records[table][number], BadEvent("insert", str(why))) for table, number, why in refused]
        )
        return self._answer_singly(done, events, records)

    def _answer_singly(self, done: Prepared, events: Sequence[Action], records: Sequence[Record]) -> pa.Table | None:
        """Inserts and answers events one by one; `done` gets those that the store takes."""
        store = self.store
        answers: list[pa.Table] = []
        done.events, done.records, done.repeats = [], [], 0
        for event, record in zip(events, records, strict=True):
            try:
                with store.attempt():
                    if not store.drop_repeats([event], [record])[0]:
                        done.repeats += 1
                        continue
                    answers.append(store.answer({}, action_columns([event])))
            except ValueError as error:
                done.dead.append((record, BadEvent("features", str(error))))
            else:
                done.events.append(event)
                done.records.append(record)
        done.actions = action_columns(done.events) if done.events else None
        return pa.concat_tables(answers) if answers else None
