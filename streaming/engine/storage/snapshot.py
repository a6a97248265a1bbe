"""Tables → Arrow record batches and back: the rows in order of insertion; indexes are made anew.

A `Capture` holds on to one moment. Rows before it never change, so it need not copy them all at once: it copies a piece
whenever it is asked, between the inserts that go on meanwhile, and the engine frees nothing until it is closed. Any
thread may make a record batch of a piece.

Batches have a column of int64 words per column of the table (see `types`), then those of the NULL flags. A string is
its number in the part STRINGS, which comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.errors import BadRow
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import Table
from streaming.engine.types import Type

__all__ = ["STRINGS", "Capture", "Piece", "Restore"]

Int64 = npt.NDArray[np.int64]

STRINGS = ""
"""The name of the part that holds the strings; every other part is a table's."""

Piece = Callable[[], pa.RecordBatch]
"""Rows that were copied out of the engine; called, they become a record batch."""

SLICE = 16_384  # rows of a piece: copying them takes less than a millisecond
LINK_ROWS = 1 << 17  # rows that indexes learn of at once: an array per call then costs nothing beside them
_TEXTS = pa.schema([pa.field("text", pa.large_binary(), nullable=False)])


class Capture:
    """The rows that all tables had at a mark. For the engine's own thread, as everything of an engine.

    Args:
        tables: all tables, by their full names; until `close` none may be dropped, and nothing may be freed.
        pool: their strings.
        counts: how many rows each had at the moment, which is never rolled back behind; what is not in it had none.
        on_close: called once, by `close`: what is captured may be freed from then on.
    """

    def __init__(
        self, tables: Sequence[Table], pool: StringPool, counts: Mapping[str, int], on_close: Callable[[], None]
    ) -> None:
        self._tables = [(table.full_name, table) for table in tables]
        self._pool, self._on_close = pool, on_close
        self._counts = {name: counts.get(name, 0) for name, _ in self._tables}
        self._schemas = {STRINGS: _TEXTS, **{name: _schema(table) for name, table in self._tables}}
        self._texts = pool.count
        self._open = True

    def schemas(self) -> dict[str, pa.Schema]:
        """The columns of each part."""
        return self._schemas

    def pieces(self) -> Iterator[tuple[str, Piece]]:
        """The strings, then each table's rows, some at a time, with the name of their part.

        The iterator is for the engine's thread, and copies no more than it must; the pieces are for any.
        """
        pool = self._pool
        for first in range(0, self._texts, SLICE):
            last = min(first + SLICE, self._texts)
            begin, end = int(pool.ends[first - 1]) if first else 0, int(pool.ends[last - 1])
            yield STRINGS, partial(_texts, begin, pool.ends[first:last].copy(), pool.arena[begin:end].copy())
        for name, table in self._tables:
            schema, count = self._schemas[name], self._counts[name]
            for first in range(0, max(count, 1), SLICE):  # an empty table has one piece: the schema says more than rows
                yield name, partial(_words, table.rows[first : min(first + SLICE, count)].copy(), schema)

    def batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The pieces as record batches."""
        for part, piece in self.pieces():
            yield part, piece()

    def close(self) -> None:
        """Lets the engine free again."""
        if self._open:
            self._open = False
            self._on_close()


class Restore:
    """Puts what a `Capture` gave into an engine with the same tables, in the same order: the strings first.

    Strings that begin with those that the engine has already, as after the same scripts, are taken over as they are;
    others are interned one by one. Indexes learn of many rows at once. `finish` when all is there.

    Args:
        tables: all tables.
        pool: their strings.
    """

    def __init__(self, tables: Sequence[Table], pool: StringPool) -> None:
        self._tables, self._pool = {table.full_name: table for table in tables}, pool
        self._ends: list[Int64] = []
        self._data: list[npt.NDArray[np.uint8]] = []
        self._used = 0
        self._count = 0
        self._code: Int64 | None = None
        """The code here of each string of the capture; none: the same."""

    def add(self, part: str, batch: pa.RecordBatch) -> None:
        """The next batch of a part.

        Raises:
            BadRow: no table of that name, other columns, or a row that the table refuses.
        """
        if part == STRINGS:
            self._add_texts(batch.column(0))
            return
        self._take_strings()
        table = self._tables.get(part)
        if table is None:
            raise BadRow(f"there is no table {part}")
        if not _same(batch.schema, _schema(table)):
            raise BadRow(f"table {part} has other columns")
        table.freed = int(batch.schema.metadata[b"freed"])
        words = np.empty((batch.num_rows, table.width), np.int64)
        for c in range(table.width):
            column = batch.column(c).to_numpy()
            if c < len(table.columns) and table.columns[c].type == Type.STRING:
                if len(column) and not 0 <= column.min() <= column.max() < self._count:
                    raise BadRow(f"table {part} column {table.columns[c].name}: a string that is not there")
                if self._code is not None:
                    column = self._code[column]
            words[:, c] = column
        table.append(words, link=False)
        if any(table.count - index.linked >= LINK_ROWS for index in table.indexes.values()):
            table.link()

    def finish(self) -> None:
        """Every row is known to every index."""
        self._take_strings()
        for table in self._tables.values():
            table.link()

    def _add_texts(self, texts: pa.Array) -> None:
        if not len(texts):
            return
        _, offset_buffer, data_buffer = texts.buffers()
        offsets = np.frombuffer(offset_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        data = np.frombuffer(data_buffer or b"", np.uint8)
        if not 0 <= offsets[0] <= offsets[-1] <= len(data) or bool((np.diff(offsets) < 0).any()):
            raise BadRow("a string that ends before it begins, or behind them all")
        self._ends.append(offsets[1:] - offsets[0] + self._used)
        self._data.append(data[offsets[0] : offsets[-1]])
        self._used += int(offsets[-1] - offsets[0])
        self._count += len(texts)

    def _take_strings(self) -> None:
        """Makes the strings that were added the pool's."""
        if not self._ends:
            return
        # With room for those that come: what is not used of it is never touched, and costs no memory.
        arena = np.empty(self._used + self._used // 4 + (1 << 16), np.uint8)
        ends = np.empty(self._count + self._count // 4 + (1 << 12), np.int64)
        np.concatenate(self._data, out=arena[: self._used])
        np.concatenate(self._ends, out=ends[: self._count])
        self._ends, self._data = [], []
        if self._pool.begins_with(arena[: self._used], ends[: self._count]):
            self._pool.replace(arena, ends, self._count, self._used)
            return
        self._pool.reserve(self._count)
        buffers = [None, pa.py_buffer(np.concatenate([[0], ends[: self._count]])), pa.py_buffer(arena[: self._used])]
        self._code = self._pool.arrow_codes(pa.Array.from_buffers(pa.large_string(), self._count, buffers))


def _texts(begin: int, ends: Int64, data: npt.NDArray[np.uint8]) -> pa.RecordBatch:
    """A piece of the strings: `ends` counts from the beginning of them all, `begin` is that of the first of these."""
    offsets = np.concatenate([[begin], ends]) - begin
    texts = pa.Array.from_buffers(pa.large_binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    return pa.RecordBatch.from_arrays([texts], schema=_TEXTS)


def _words(rows: Int64, schema: pa.Schema) -> pa.RecordBatch:
    """A piece of a table."""
    return pa.RecordBatch.from_arrays([pa.array(column) for column in np.ascontiguousarray(rows.T)], schema=schema)


def _same(one: pa.Schema, other: pa.Schema) -> bool:
    return len(one) == len(other) and all(a.equals(b, check_metadata=True) for a, b in zip(one, other, strict=True))


def _schema(table: Table) -> pa.Schema:
    """Names and types of the columns are in it only to be compared: all are words. `freed` is the table's."""
    columns = [pa.field(c.name, pa.int64(), False, {"type": str(c.type)}) for c in table.columns]
    flags = [pa.field(f"(null flags {n})", pa.int64(), False) for n in range(table.width - len(table.columns))]
    return pa.schema(columns + flags, {"freed": str(table.freed)})
