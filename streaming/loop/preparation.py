"""Records → rows in the tables → features → ids: all that is done to a batch before the model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from streaming.errors import BadEvent
from streaming.events.decode import Action, Actions, Record, action_columns, dimension_columns, dimension_decoders
from streaming.ops.log import place
from streaming.store.feature_store import restore_singly

if TYPE_CHECKING:
    from streaming.loop.scorer import Batch, Scorer

__all__ = ["Preparation", "places"]

_log = structlog.stdlib.get_logger("streaming.loop.preparation")

Refusals = list[tuple[Record, BadEvent]]


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
        loop: whose store and encoder are used.
    """

    def __init__(self, loop: Scorer) -> None:
        self._loop = loop
        limits = loop.config.events
        self._dimension_decoders = dimension_decoders(limits.message_bytes_max, limits.future_s_max)
        topics = loop.config.kafka.topics
        self._tables = {topics.users: "bo_user", topics.products: "bo_product", topics.comments: "bo_comment"}

    def run(self, batch: Batch, records: Sequence[Record], dimension_records: Sequence[Record]) -> None:
        """Decodes the records, inserts the rows, computes the features and encodes them; fills in the batch.

        Records that a process has died of are prepared alone, or not at all (`streaming.loop.poison.detection`).
        """
        poison = self._loop.poison
        parts: list[tuple[Sequence[Record], Sequence[Record]]] = [(records, dimension_records)]
        aside: Refusals = []
        if poison.wary:
            dimension_pieces, dimensions_aside = poison.cut(dimension_records)
            pieces, aside = poison.cut(records)
            parts = [*(((), piece) for piece in dimension_pieces), *((piece, ()) for piece in pieces)]
            aside = self._loop.owned(dimensions_aside) + aside
        done = []
        for part in parts:
            with poison.hold(*part):
                done.append(self._part(*part))
            self._loop.health.beat()
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
        loop = self._loop
        with loop.metrics.stage("decode"):
            events, good, bad = loop.decoder.decode_all(records)
            tables, rows, refused = self._decode_dimensions(dimension_records)
        done = Prepared(events, good, dead=loop.owned(refused) + bad)
        loop.step("decode")
        loop.poison.at("features")
        with loop.metrics.stage("features"):
            features = self._features(done, tables, rows)
        loop.step("features")
        loop.poison.at("encode")
        if features is not None:
            with loop.metrics.stage("encode"):
                done.ids = loop.encoder.encode(features)
            loop.step("encode")
        return done

    def _decode_dimensions(
        self, records: Sequence[Record]
    ) -> tuple[dict[str, pa.Table], dict[str, list[Record]], Refusals]:
        """Rows by table, the records that they came in, and what is wrong."""
        tables: dict[str, pa.Table] = {}
        good: dict[str, list[Record]] = {}
        refused: Refusals = []
        for topic, table in self._tables.items():
            mine = [record for record in records if record.topic() == topic]
            if mine:
                events, good[table], bad = self._dimension_decoders[table].decode_all(mine)
                refused += bad
                if events:
                    tables[table] = dimension_columns(table, events)
        return tables, good, refused

    def _features(
        self, done: Prepared, tables: Mapping[str, pa.Table], rows: Mapping[str, Sequence[Record]]
    ) -> pa.Table | None:
        """Inserts the rows and answers the requests; a row or event that the store refuses becomes a dead letter, one
        that repeats a request is left out.

        The store checks what the decoder checks, so a refusal is rare: only then the rows are inserted one by one.

        Args:
            done: its events are inserted and answered; those that are refused or repeat leave it.
            rows: the records of `tables`' rows.
        """
        store = self._loop.store
        mark = store.mark()
        came = list(zip(done.events, done.records, strict=True))
        done.events, done.records = store.sift(done.events, done.records)
        done.repeats = len(came) - len(done.events)
        done.actions = action_columns(done.events) if done.events else None
        try:
            if done.actions is not None:
                return store.answer(tables, done.actions)
            store.restore(tables, None)
        except ValueError as error:
            _log.warning("the store refuses a row: one by one", error=str(error), at=places(done.records))
        else:
            return None
        store.rollback(mark)
        refused = restore_singly(store, tables, (), ())
        done.dead += self._loop.owned([(rows[table][at], BadEvent("insert", str(why))) for table, at, why in refused])
        answers: list[pa.Table] = []
        kept = Prepared([], [])
        done.repeats = 0
        for event, record in came:
            mark = store.mark()
            if not store.sift([event], [record])[0]:
                done.repeats += 1
                continue
            try:
                answers.append(store.answer({}, action_columns([event])))
            except ValueError as error:
                store.rollback(mark)
                done.dead.append((record, BadEvent("features", str(error))))
            else:
                kept.events.append(event)
                kept.records.append(record)
        done.events, done.records = kept.events, kept.records
        done.actions = action_columns(done.events) if done.events else None
        return pa.concat_tables(answers) if answers else None


def places(records: Sequence[Record]) -> str:
    """The range of a batch's actions, for messages."""
    if not records:
        return "no actions"
    first, last = (place(r.topic(), r.partition(), r.offset()) for r in (records[0], records[-1]))
    return f"{first} … {last}"
