"""Tables: rows of 64-bit words in one array, and indexes that chain the rows of each key, newest first.

A row's number is its place in order of insertion and never changes: "what was there before" is `row < limit`, which
is all that micro-batches, replays and rollbacks need. A row is `width` words: one per column, then the NULL flags,
62 columns to a word.

An index has an open-addressing table of keys; each key has a `head`, its newest entry, and each entry the next older
one. Newest is the greatest time, of equal times the one inserted last. A row in order of time is linked in O(1); late
rows walk from the head, and a large batch out of order is sorted first, so that each chain is walked once.

Rows whose time to live is over in every index can be freed (`expiry`): those behind them move up, in the same order.
"""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming.engine.errors import BadRow
from streaming.engine.native.kernel import Int64, Matrix, kernel
from streaming.engine.storage.index_keys import key_numbers, refill
from streaming.engine.types import NULLS_PER_WORD, Type

__all__ = ["FREE_FROM", "NO_TTL", "Column", "Index", "Table", "check_times"]

NO_TTL = (0, 0, False)
FREE_FROM = 1 << 16  # rows; smaller tables keep what is past its time to live
_SORT_FROM = 256  # rows; smaller batches out of order are cheaper to link one by one


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: as declared.
        type: its type.
        nullable: whether NULL may stand in it.
        default: the constant that stands for a missing value; None: NULL.
    """

    name: str
    type: Type
    nullable: bool = True
    default: object = None


@kernel
def _link(
    rows: Matrix, order: Int64, ids: Int64, ts_column: int, entries: Matrix, heads: Int64, first_entry: int
) -> None:
    for i in range(len(order)):
        entry = first_entry + i
        ts = rows[order[i], ts_column] if ts_column >= 0 else 0
        key = ids[i]
        entries[entry, 1] = ts
        newer, older = -1, heads[key]
        while older >= 0 and entries[older, 1] > ts:
            newer, older = older, entries[older, 0]
        entries[entry, 0] = older
        if newer < 0:
            heads[key] = entry
        else:
            entries[newer, 0] = entry


@kernel
def _merge(
    rows: Matrix,
    order: Int64,
    ids: Int64,
    ts_column: int,
    entries: Matrix,
    heads: Int64,
    cursors: Int64,
    first_row: int,
) -> None:
    # `order` runs from the newest row to the oldest: each key's chain is walked once, from where its last row went in
    # (`cursors`, -1 before)
    for i in range(len(order)):
        row = order[i]
        ts = rows[row, ts_column]
        key = ids[row - first_row]
        entries[row, 1] = ts
        newer = cursors[key]
        older = heads[key] if newer < 0 else entries[newer, 0]
        while older >= 0 and entries[older, 1] > ts:
            newer, older = older, entries[older, 0]
        entries[row, 0] = older
        if newer < 0:
            heads[key] = row
        else:
            entries[newer, 0] = row
        cursors[key] = row


@kernel
def _unlink(ids: Int64, entries: Matrix, heads: Int64, first: int, last: int) -> None:
    for entry in range(last - 1, first - 1, -1):
        key = ids[entry - first]
        newer, here = -1, heads[key]
        while here != entry:
            newer, here = here, entries[here, 0]
        if newer < 0:
            heads[key] = entries[entry, 0]
        else:
            entries[newer, 0] = entries[entry, 0]


@kernel
def _bad_time(rows: Matrix, columns: Int64, n_columns: int) -> int:
    """The first value of these columns that is NULL or negative: row * n_columns + column; -1 where there is none."""
    for i in range(len(rows)):
        for k in range(len(columns)):
            c = columns[k]
            if rows[i, c] < 0 or (rows[i, n_columns + c // NULLS_PER_WORD] >> (c % NULLS_PER_WORD)) & 1:
                return i * n_columns + c
    return -1


def check_times(
    what: str, columns: Sequence[Column], rows: Matrix, times: Sequence[int] | Int64, role: str, first: int = 0
) -> None:
    """Refuses rows, the first of which has number `first`, in which one of the columns `times` is NULL or negative."""
    if len(times):
        place = _bad_time(rows, np.asarray(times, np.int64), len(columns))
        if place >= 0:
            row, c = divmod(place, len(columns))
            raise BadRow(f"{what} row {first + row} column {columns[c].name}: {role} is NULL or negative", first + row)


def _grown(array: npt.NDArray[Any], used: int, need: int, fill: int | None = None) -> npt.NDArray[Any]:
    """A copy of `array` with room for `need` rows, doubled; what is beyond `used` is `fill` or arbitrary."""
    size = max(2 * len(array), need)
    grown = np.empty((size, *array.shape[1:]), array.dtype)
    grown[:used] = array[:used]
    if fill is not None:
        grown[used:] = fill
    return grown


def _stretch(array: npt.NDArray[Any], need: int) -> None:
    """Makes room for `need` rows in place: the system moves the pages of a large array instead of copying them."""
    size = 2 * len(array) if len(array) < 1 << 20 else len(array) + len(array) // 4
    array.resize((max(size, need), *array.shape[1:]), refcheck=False)


class Index:
    """The rows of one table by key, newest first.

    Args:
        table: whose rows.
        key: numbers of the key columns.
        ts: number of the time column; -1: newest is last inserted.
        order: int64[m], the rows in the order in which entries are to be made; None: as they were inserted.

    Attributes:
        slots: int64[2^k], the hash table: a key's number, or -1.
        keys: int64[n * (len(key) + 1)], the keys' words.
        heads: int64[n], the newest entry of each key, or -1.
        entries: int64[m, 2], (next older entry or -1, time).
        row_of: int64[m], the row of each entry; empty where entry and row are the same number.
        linked: how many entries there are.
        version: counts how often an array moved.
        ttl: (milliseconds, rows per key, whether both must be over for a row to be gone); 0: no limit.
        derived: whether a deployment made it, and so may lengthen its time to live.
    """

    def __init__(self, table: Table, key: Sequence[int], ts: int, order: Int64 | None = None) -> None:
        self.table = table
        self.key = tuple(key)
        self.ts = ts
        self.key_columns = np.array(key, np.int64)
        self.texts = np.array([table.columns[c].type == Type.STRING for c in key], np.int64)
        self.slots: Int64 = np.full(64, -1, np.int64)
        self.keys: Int64 = np.empty(32 * (len(key) + 1), np.int64)
        self.heads: Int64 = np.full(32, -1, np.int64)
        self.key_count: Int64 = np.zeros(1, np.int64)
        self.entries: Int64 = np.empty((64, 2), np.int64)
        self.row_of: Int64 = np.empty(0, np.int64) if order is None else order
        self.linked = 0
        self.version = 1
        self.ttl = NO_TTL
        self.derived = False

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.slots.nbytes + self.keys.nbytes + self.heads.nbytes + self.entries.nbytes

    def _ids(self, order: Int64) -> Int64:
        ids = np.empty(len(order), np.int64)
        done = 0
        table, probe = self.table, np.empty(len(self.key) + 1, np.int64)
        while True:
            done = key_numbers(
                table.rows,
                order,
                self.key_columns,
                self.texts,
                len(table.columns),
                self.slots,
                self.keys,
                self.key_count,
                probe,
                ids,
                done,
            )
            if done == len(order):
                return ids
            self._grow_keys()

    def _grow_keys(self) -> None:
        count, width = int(self.key_count[0]), len(self.key) + 1
        size = 2 * len(self.heads)
        self.heads = _grown(self.heads, count, size, -1)
        self.keys = _grown(self.keys, count * width, size * width)
        self.slots = np.full(2 * size, -1, np.int64)
        refill(self.slots, self.keys, count, width)
        self.version += 1

    def link(self, end: int) -> None:
        """Chains every entry before number `end` that is not chained yet."""
        first = self.linked
        if end <= first:
            return
        if end > len(self.entries):
            _stretch(self.entries, end)
            self.version += 1
        rows = self.table.rows
        if len(self.row_of):
            order = self.row_of[first:end]
            _link(rows, order, self._ids(order), self.ts, self.entries, self.heads, first)
        else:
            order = np.arange(first, end)
            ids = self._ids(order)
            times = rows[first:end, self.ts] if self.ts >= 0 else None
            if times is not None and end - first >= _SORT_FROM and bool((np.diff(times) < 0).any()):
                newest_first = first + np.argsort(times, kind="stable")[::-1]
                cursors = np.empty(len(self.heads), np.int64)  # there may be far more keys than rows here
                cursors[ids] = -1
                _merge(rows, newest_first, ids, self.ts, self.entries, self.heads, cursors, first)
            else:
                _link(rows, order, ids, self.ts, self.entries, self.heads, first)
        self.linked = end

    def unlink(self, end: int) -> None:
        """Forgets the entries from number `end` on."""
        if end < self.linked:
            _unlink(self._ids(np.arange(end, self.linked)), self.entries, self.heads, end, self.linked)
            self.linked = end


class Table:
    """A table: its columns, its rows, its indexes.

    Attributes:
        full_name: `database.name`, or `name` outside a database.
        rows: int64[capacity, width]; the first `count` are there.
        version: counts how often `rows` moved.
        required: the NOT NULL columns.
        times: the columns that indexes are ordered by.
        declared: the indexes that the script declared, in its order; `indexes` has those that deployments made, too.
        keeps: whether an index was declared that keeps its rows for ever.
        freed: how many rows have left for good, because their time to live was over.
        free_at: at how many rows the engine looks again for rows to free.
    """

    def __init__(self, database: str, name: str, columns: Sequence[Column]) -> None:
        self.database = database
        self.name = name
        self.full_name = f"{database}.{name}" if database else name
        self.columns = tuple(columns)
        self.positions = {column.name: i for i, column in enumerate(columns)}
        self.width = len(columns) + (len(columns) + NULLS_PER_WORD - 1) // NULLS_PER_WORD
        self.rows: Int64 = np.empty((64, self.width), np.int64)
        self.count = 0
        self.version = 1
        self.indexes: dict[tuple[tuple[int, ...], int], Index] = {}
        self.declared: list[tuple[tuple[int, ...], int]] = []
        self.required = [i for i, column in enumerate(columns) if not column.nullable]
        self.times: Int64 = np.empty(0, np.int64)
        self.keeps = False
        self.freed = 0
        self.free_at = FREE_FROM

    @property
    def nbytes(self) -> int:
        """Bytes allocated for rows and indexes (the strings are the pool's)."""
        return self.rows.nbytes + sum(index.nbytes for index in self.indexes.values())

    def index(self, key: Sequence[int], ts: int) -> Index:
        """The index over these columns, made now where there is none yet."""
        found = self.indexes.get((tuple(key), ts))
        if found is None:
            found = Index(self, key, ts)
            if ts >= 0:
                check_times(self.name, self.columns, self.rows[: self.count], [ts], "an indexed time")
                self.times = np.union1d(self.times, [ts]).astype(np.int64)
            found.link(self.count)
            self.indexes[tuple(key), ts] = found
        return found

    def words(self, first: int, end: int) -> Int64:
        """int64[end - first, width], the words of these rows; a view, until the next insert."""
        return self.rows[first : min(end, self.count)]

    def check(self, rows: Int64, what: str = "", first: int = 0) -> None:
        """Refuses rows that may not be in the table.

        Args:
            rows: int64[n, width], laid out as the table's.
            what, first: whose rows they are, and the number of the first in messages; by default the table's, and 0.

        Raises:
            BadRow: a NULL where none may be, or a NULL or negative indexed time.
        """
        for c in self.required:
            missing = (rows[:, len(self.columns) + c // NULLS_PER_WORD] >> (c % NULLS_PER_WORD)) & 1
            if missing.any():
                row, name = first + int(missing.argmax()), self.columns[c].name
                raise BadRow(f"{what or self.name} row {row} column {name}: NULL in a NOT NULL column", row)
        check_times(what or self.name, self.columns, rows, self.times, "an indexed time", first)

    def append(self, rows: Int64, link: bool = True) -> None:
        """Adds rows.

        Args:
            rows: int64[n, width], laid out as the table's.
            link: whether the indexes learn of them at once.

        Raises:
            BadRow: see `check`. Nothing was added then.
        """
        self.check(rows)
        first, end = self.count, self.count + len(rows)
        if end > len(self.rows):
            _stretch(self.rows, end)
            self.version += 1
        self.rows[first:end] = rows
        self.count = end
        if link:
            self.link()

    def link(self) -> None:
        """Makes every row known to every index."""
        for index in self.indexes.values():
            index.link(self.count)

    def truncate(self, count: int) -> None:
        """Forgets the rows from number `count` on."""
        if count < self.count:
            for index in self.indexes.values():
                index.unlink(count)
            self.count = count
            if not count:
                self.freed = 0
