"""Events as columns: what records became, and the rows that they are in each table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.errors import BadEvent
from streaming.events.record import Record

__all__ = ["EventBatch", "Refusals", "joined", "merged"]

Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

Refusals = list[tuple[Record, BadEvent]]
"""Records that are no events, or whose rows no table takes, each with the reason."""


def _no_times() -> Int64:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class EventBatch:
    """n events, in the order in which they count.

    Attributes:
        records: the n records that they came in.
        times: int64 [n], the events' own times, epoch ms.
        sender_ids: n names that senders gave to their requests; None: it gave none, or the event is no request.
        rows: by table, the rows that the events became, in their order; tables without rows are left out.
        events_of: by table, of each row the number of its event, 0 ≤ number < n, ascending.
        deletes: events that delete the rows of a key, ascending: of each its number, by table the column of the key,
            and the key.
    """

    records: list[Record] = field(default_factory=list)
    times: Int64 = field(default_factory=_no_times)
    sender_ids: list[str | None] = field(default_factory=list)
    rows: dict[str, pa.Table] = field(default_factory=dict)
    events_of: dict[str, Int64] = field(default_factory=dict)
    deletes: list[tuple[int, Mapping[str, str], str | int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def take(self, chosen: Flags) -> EventBatch:
        """The events that are chosen (bool [n]), with their rows."""
        if chosen.all():
            return self
        place = np.cumsum(chosen) - 1  # of an event among the chosen ones
        rows: dict[str, pa.Table] = {}
        events_of: dict[str, Int64] = {}
        for table, of in self.events_of.items():
            mine = chosen[of]
            if mine.any():
                rows[table] = self.rows[table].filter(pa.array(mine))
                events_of[table] = place[of[mine]]
        numbers = np.flatnonzero(chosen).tolist()
        return EventBatch(
            [self.records[number] for number in numbers],
            self.times[chosen],
            [self.sender_ids[number] for number in numbers],
            rows,
            events_of,
            [(int(place[number]), columns, key) for number, columns, key in self.deletes if chosen[number]],
        )

    def event(self, number: int) -> EventBatch:
        """One event alone."""
        chosen = np.zeros(len(self), np.bool_)
        chosen[number] = True
        return self.take(chosen)

    def parts(self) -> Iterator[EventBatch]:
        """The events in pieces, in order: each that deletes rows is one by itself."""
        first, numbers = 0, np.arange(len(self))
        for number, *_ in self.deletes:
            if first < number:
                yield self.take((numbers >= first) & (numbers < number))
            yield self.event(number)
            first = number + 1
        if first < len(self):
            yield self.take(numbers >= first)

    def without_deletes(self) -> EventBatch:
        """The events that delete no rows."""
        chosen = np.ones(len(self), np.bool_)
        chosen[[number for number, *_ in self.deletes]] = False
        return self.take(chosen)

    def has(self, table: str) -> Flags:
        """Which events have a row in a table, bool [n]."""
        found = np.zeros(len(self), np.bool_)
        if table in self.events_of:
            found[self.events_of[table]] = True
        return found


def merged(parts: Sequence[tuple[EventBatch, Sequence[int] | Int64]]) -> EventBatch:
    """Several batches as one.

    Args:
        parts: each batch with the places of its events in the whole, ascending; together they are 0 … n - 1.
    """
    parts = [(batch, places) for batch, places in parts if len(batch)]
    if not parts:
        return EventBatch()
    if len(parts) == 1:
        return parts[0][0]
    count = sum(len(batch) for batch, _ in parts)
    records: list[Record | None] = [None] * count
    sender_ids: list[str | None] = [None] * count
    times = np.empty(count, np.int64)
    rows: dict[str, list[pa.Table]] = {}
    events_of: dict[str, list[Int64]] = {}
    deletes: list[tuple[int, Mapping[str, str], str | int]] = []
    for batch, places in parts:
        where = np.asarray(places, np.int64)
        times[where] = batch.times
        for place, record, name in zip(where.tolist(), batch.records, batch.sender_ids, strict=True):
            records[place], sender_ids[place] = record, name
        deletes += [(int(where[number]), columns, key) for number, columns, key in batch.deletes]
        for table, of in batch.events_of.items():
            rows.setdefault(table, []).append(batch.rows[table])
            events_of.setdefault(table, []).append(where[of])
    whole_rows: dict[str, pa.Table] = {}
    whole_of: dict[str, Int64] = {}
    for table, pieces in rows.items():
        numbers = np.concatenate(events_of[table])
        order = np.argsort(numbers, kind="stable")
        table_rows = pa.concat_tables(pieces)
        whole_rows[table] = table_rows if (np.diff(numbers) >= 0).all() else table_rows.take(pa.array(order))
        whole_of[table] = numbers[order]
    deletes.sort(key=lambda deletion: deletion[0])
    return EventBatch([r for r in records if r is not None], times, sender_ids, whole_rows, whole_of, deletes)


def joined(batches: Sequence[EventBatch]) -> EventBatch:
    """Several batches, one behind the other."""
    parts: list[tuple[EventBatch, Int64]] = []
    first = 0
    for batch in batches:
        parts.append((batch, np.arange(first, first + len(batch))))
        first += len(batch)
    return merged(parts)
