"""Which events may be asked side by side: the cutter of micro-batches for stores that answer many requests per call.

An event writes rows and reads rows (`Access`). Answered in one call, events do not see each other's rows; so two that
touch the same rows go into different micro-batches, in their order: the later one's request is asked when the earlier
one's rows are in, and the earlier one's before the later one's rows are in. Two that write the same rows may share a
micro-batch, in which rows keep their order, but the later one does not overtake: of rows of one time, which is the last
is told by the order in which they came. Then every event is answered as if it had come alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

__all__ = ["ANY", "NONE", "Access", "Indices", "micro_batch_numbers", "split"]

ANY = object()
"""A key that stands for every row of a table."""

NONE = object()
"""A key that stands for no row of a table: the event does not touch it."""

Indices = npt.NDArray[np.int64]
"""Numbers of events in the order given, or one number for each event."""


@dataclass(frozen=True)
class Access:
    """Rows that n events write, or read: event p those of `table` whose `columns` are `keys[p]`.

    Attributes:
        keys: `ANY`, instead of n keys: each event touches any row of the table. A key may be `ANY` or `NONE`, too.
    """

    table: str
    columns: tuple[str, ...]
    keys: Sequence[Hashable] | object


def micro_batch_numbers(
    count: int, reads: Sequence[Access], writes: Sequence[Access], partitions: Sequence[Hashable] | None = None
) -> Indices:
    """For each of `count` events the number of its micro-batch, from 0: the earliest that keeps its order with those it
    touches.

    Args:
        reads, writes: of one table, with the same columns, or `ANY`; a read and a write that have no columns in common
            to tell rows apart by are taken to touch each other.
        partitions: of each event that of Kafka's, in which nothing overtakes: a micro-batch is then a piece of each
            partition, of whose records only the first may be committed. None: each event is a partition of its own.
    """
    answer = np.zeros(count, np.int64)
    # The last micro-batch in which something was written to, or read from, these rows; -1: none yet.
    written: dict[Hashable, int] = {}
    read: dict[Hashable, int] = {}
    reached: dict[Hashable, int] = {}
    # The same of rows that are written, whoever reads them.
    last: dict[Hashable, int] = {}
    pairs, orders = _pairs(reads, writes, count), _orders(reads, writes, count)
    for p in range(count):
        number = 0 if partitions is None else reached.get(partitions[p], 0)
        touched = []
        for name, read_keys, write_keys in pairs:
            mine_read = (name, read_keys[p])
            mine_written = (name, write_keys[p])
            touched.append((mine_read, mine_written))
            number = max(number, written.get(mine_read, -1) + 1, read.get(mine_written, -1) + 1)
        rows = [(name, keys[p]) for name, keys in orders if keys[p] is not NONE]
        for row in rows:
            number = max(number, last.get(row, 0))
        last.update(dict.fromkeys(rows, number))
        for mine_read, mine_written in touched:
            if mine_read[1] is not NONE:
                read[mine_read] = max(number, read.get(mine_read, -1))
            if mine_written[1] is not NONE:
                written[mine_written] = max(number, written.get(mine_written, -1))
        if partitions is not None:
            reached[partitions[p]] = number
        answer[p] = number
    return answer


def split(number_of: Indices, rows_max: int) -> list[Indices]:
    """The micro-batches as numbers of events, in order; one of more than `rows_max` is cut into pieces."""
    order = np.argsort(number_of, kind="stable")
    bounds = np.flatnonzero(np.diff(number_of[order])) + 1
    whole = np.split(order, bounds)
    return [events[at : at + rows_max] for events in whole for at in range(0, len(events), rows_max)]


def _pairs(
    reads: Sequence[Access], writes: Sequence[Access], count: int
) -> list[tuple[Hashable, Sequence[Hashable], Sequence[Hashable]]]:
    """Each way in which a read of one event can meet a write of another: (name, keys of reads, keys of writes)."""
    pairs: list[tuple[Hashable, Sequence[Hashable], Sequence[Hashable]]] = []
    for number, (mine, other) in enumerate((r, w) for r in reads for w in writes if r.table == w.table):
        if mine.columns == other.columns and _told_apart(mine.keys) and _told_apart(other.keys):
            pairs.append((number, mine.keys, other.keys))
        else:
            pairs.append((number, _any(mine, count), _any(other, count)))
    return pairs


def _orders(reads: Sequence[Access], writes: Sequence[Access], count: int) -> list[tuple[Hashable, Sequence[Hashable]]]:
    """Of each write of a table that is read: (name of these rows' keys, keys)."""
    tables = {read.table for read in reads}
    known = [((write.table, write.columns), write) for write in writes if write.table in tables]
    mixed = {name for name, write in known if not _told_apart(write.keys)}
    return [
        (name, write.keys if name not in mixed and _told_apart(write.keys) else _any(write, count))
        for name, write in known
    ]


def _told_apart(keys: Sequence[Hashable] | object) -> TypeGuard[Sequence[Hashable]]:
    return isinstance(keys, Sequence) and ANY not in keys


def _any(access: Access, count: int) -> Sequence[Hashable]:
    """Keys of accesses that cannot be told apart: `ANY` for each event that touches the table at all."""
    if isinstance(access.keys, Sequence):
        return [key if key is NONE else ANY for key in access.keys]
    return [ANY] * count
