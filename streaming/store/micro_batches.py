"""Which events may be asked side by side: the cutter of micro-batches for stores that answer many requests per call.

An event writes rows and reads rows (`Access`). Answered in one call, events do not see each other's rows; so two that
touch the same rows go into different waves, in their order: the later one's request is asked when the earlier one's
rows are in, and the earlier one's before the later one's rows are in. Then every event is answered as if it had come
alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Access", "cut", "levels"]

ANY = object()
"""A key that stands for every row of a table."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Access:
    """Rows that n events write, or read: event p those of `table` whose `columns` are `keys[p]`.

    Attributes:
        keys: `ANY`, instead of n keys: each event touches any row of the table.
    """

    table: str
    columns: tuple[str, ...]
    keys: Sequence[Hashable] | object


def levels(
    count: int, reads: Sequence[Access], writes: Sequence[Access], lanes: Sequence[Hashable] | None = None
) -> Places:
    """The wave of each of `count` events, from 0: the earliest that keeps its order with those it touches.

    Args:
        reads, writes: of one table, with the same columns, or `ANY`; a read and a write that have no columns in common
            to tell rows apart by are taken to touch each other.
        lanes: of each event the lane in which nothing overtakes: a wave is then a piece of each lane (the records of a
            partition, of which only the first may be committed). None: each event is a lane of its own.
    """
    answer = np.zeros(count, np.int64)
    # The last wave in which something was written to, or read from, these rows; -1: none yet.
    written: dict[Hashable, int] = {}
    read: dict[Hashable, int] = {}
    reached: dict[Hashable, int] = {}
    pairs = _pairs(reads, writes)
    for p in range(count):
        level = 0 if lanes is None else reached.get(lanes[p], 0)
        touched = []
        for name, read_keys, write_keys in pairs:
            mine_read = (name, ANY if read_keys is None else read_keys[p])
            mine_written = (name, ANY if write_keys is None else write_keys[p])
            touched.append((mine_read, mine_written))
            level = max(level, written.get(mine_read, -1) + 1, read.get(mine_written, -1) + 1)
        for mine_read, mine_written in touched:
            read[mine_read] = max(level, read.get(mine_read, -1))
            written[mine_written] = max(level, written.get(mine_written, -1))
        if lanes is not None:
            reached[lanes[p]] = level
        answer[p] = level
    return answer


def cut(level: Places, rows_max: int) -> list[Places]:
    """The waves as places of events, in order; one of more than `rows_max` is cut into pieces."""
    order = np.argsort(level, kind="stable")
    bounds = np.flatnonzero(np.diff(level[order])) + 1
    return [wave[at : at + rows_max] for wave in np.split(order, bounds) for at in range(0, len(wave), rows_max)]


def _pairs(
    reads: Sequence[Access], writes: Sequence[Access]
) -> list[tuple[Hashable, Sequence[Hashable] | None, Sequence[Hashable] | None]]:
    """Each way in which a read of one event can meet a write of another: (name, keys of reads, keys of writes).

    None for the keys: all events have the same, `ANY`.
    """
    pairs: list[tuple[Hashable, Sequence[Hashable] | None, Sequence[Hashable] | None]] = []
    for number, (mine, other) in enumerate((r, w) for r in reads for w in writes if r.table == w.table):
        if mine.columns == other.columns and isinstance(mine.keys, Sequence) and isinstance(other.keys, Sequence):
            pairs.append((number, mine.keys, other.keys))
        else:
            pairs.append((number, None, None))
    return pairs
