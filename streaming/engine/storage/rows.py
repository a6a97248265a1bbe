"""Rows between Python or Arrow and the engine's words, with every value checked against its column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streaming.engine.errors import BadRow
from streaming.engine.storage.arrow_rows import words_of
from streaming.engine.storage.strings import NULL, StringPool
from streaming.engine.storage.table import Column
from streaming.engine.types import ARROW, FIRST_DATE, LAST_DATE, NULLS_PER_WORD, Type, to_word

__all__ = ["encode", "schema_of", "width_of"]

Int64 = npt.NDArray[np.int64]
_MISSING = object()
_FLAGS = (1 << NULLS_PER_WORD) - 1


def encode(
    what: str, columns: Sequence[Column], rows: Any, pool: StringPool, unread: frozenset[int] = frozenset()
) -> Int64:
    """`rows`, a list of dicts or a pyarrow.Table (or RecordBatch), as a table lays them out: int64[n, width].

    A dict may leave out columns: they take their default, or NULL. An Arrow table must have every column.

    Args:
        unread: columns of text whose words nobody will read: only their type is checked.

    Raises:
        BadRow: a value of another type, a number that does not fit, an unknown or missing column.
    """
    if isinstance(rows, (pa.Table, pa.RecordBatch)):
        _check_dates(what, columns, rows)
        words = words_of(columns, rows, pool, unread)
        return _from_arrow(what, columns, rows, pool) if words is None else words
    if not isinstance(rows, (list, tuple)):
        raise BadRow(f"{what}: rows are a list of dicts or a pyarrow.Table, not a {type(rows).__name__}")
    return _from_dicts(what, columns, rows, pool, unread)


def _check_dates(what: str, columns: Sequence[Column], rows: pa.Table | pa.RecordBatch) -> None:
    """Refuses dates that OpenMLDB has none of, as its own row builder does."""
    for column in columns:
        if column.type == Type.DATE and rows.column_names.count(column.name) == 1:
            array = rows.column(column.name)
            if not pa.types.is_date(array.type) or array.null_count == len(array):
                continue
            ends = pc.min_max(array.cast(pa.date32(), safe=False).cast(pa.int32()))
            if not FIRST_DATE <= ends["min"].as_py() <= ends["max"].as_py() <= LAST_DATE:
                raise BadRow(f"{what} column {column.name}: a date that is not of the years 1900 to 9999")


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """The columns as Arrow has them."""
    return pa.schema([pa.field(column.name, ARROW[column.type], column.nullable) for column in columns])


def width_of(columns: Sequence[Column]) -> int:
    """Words of a row: one per column, and the NULL flags."""
    return len(columns) + (len(columns) + NULLS_PER_WORD - 1) // NULLS_PER_WORD


class _Columns:
    """A table's columns as `_from_dicts` needs them.

    Attributes:
        plan: of each column its name, number, type, its least and first too great whole number (or None), and whether
            its words are read.
        texts: the numbers of the columns of text that are read.
    """

    def __init__(self, columns: Sequence[Column], unread: frozenset[int]) -> None:
        self.columns = columns
        self.names = {column.name for column in columns}
        self.width = width_of(columns)
        self.plan = [
            (one.name, c, one.type, *_LIMITS.get(one.type, (None, 0)), c not in unread) for c, one in enumerate(columns)
        ]
        texts = [c for c, column in enumerate(columns) if column.type == Type.STRING and c not in unread]
        self.texts = np.array(texts, np.int64)


_LIMITS = {
    Type.SMALLINT: (-(1 << 15), 1 << 15),
    Type.INT: (-(1 << 31), 1 << 31),
    Type.BIGINT: (-(1 << 63), 1 << 63),
    Type.TIMESTAMP: (-(1 << 63), 1 << 63),
}
_known: dict[tuple[int, frozenset[int]], _Columns] = {}
_KNOWN_MAX = 256


def _columns(columns: Sequence[Column], unread: frozenset[int]) -> _Columns:
    known = _known.get((id(columns), unread))
    if known is None or known.columns is not columns:
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
        known = _known[id(columns), unread] = _Columns(columns, unread)
    return known


def _from_dicts(
    what: str, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], pool: StringPool, unread: frozenset[int]
) -> Int64:
    known, string = _columns(columns, unread), Type.STRING
    n_columns, more = len(columns), known.width - len(columns)
    words: list[int] = []
    texts: list[bytes] = []
    add = words.append
    for i, row in enumerate(rows):
        if type(row) is not dict and not isinstance(row, Mapping):
            raise BadRow(f"{what} row {i}: a {type(row).__name__} instead of a dict", i)
        found, missing = 0, 0
        for name, c, kind, least, limit, read in known.plan:
            value = row.get(name, _MISSING)
            if value is _MISSING:
                value = columns[c].default
            else:
                found += 1
            if value is None:
                missing |= 1 << c
                add(0)
            elif kind is string:
                if not isinstance(value, str):
                    raise BadRow(_wrong(what, i, columns[c], f"{value!r} ({type(value).__name__}) is not a string"), i)
                try:
                    text = value.encode()
                except UnicodeEncodeError as error:
                    raise BadRow(_wrong(what, i, columns[c], error.reason), i) from None
                if read:
                    texts.append(text)
                    add(len(text))
                else:
                    add(0)
            elif type(value) is int and least is not None and least <= value < limit:
                add(value)
            else:
                try:
                    add(to_word(kind, value))
                except (TypeError, OverflowError) as error:
                    raise BadRow(_wrong(what, i, columns[c], str(error)), i) from None
        if found != len(row):
            unknown = sorted(str(key) for key in row.keys() - known.names)
            raise BadRow(f"{what} row {i}: unknown column {unknown[0]}", i)
        for word in range(more):
            add(missing >> word * NULLS_PER_WORD & _FLAGS)
    packed = np.array(words, np.int64).reshape(-1, known.width)
    if texts:
        pool.fill(packed, known.texts, n_columns, b"".join(texts))
    return packed


def _wrong(what: str, row: int, column: Column, why: str) -> str:
    return f"{what} row {row} column {column.name}: {why}"


def _from_arrow(what: str, columns: Sequence[Column], rows: pa.Table | pa.RecordBatch, pool: StringPool) -> Int64:
    names = {column.name for column in columns}
    for name in rows.column_names:
        if name not in names:
            raise BadRow(f"{what}: unknown column {name}")
    packed = np.zeros((rows.num_rows, width_of(columns)), np.int64)
    for c, column in enumerate(columns):
        if rows.column_names.count(column.name) != 1:
            raise BadRow(f"{what}: column {column.name} is missing or there twice")
        array = rows.column(column.name)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
        if isinstance(array, pa.ChunkedArray):  # combine_chunks of some types keeps chunks
            array = pa.concat_arrays(array.chunks)
        packed[:, c] = _words(what, column, array, pool)
        if array.null_count:
            missing = array.is_null().to_numpy(zero_copy_only=False).astype(np.int64)
            packed[:, len(columns) + c // NULLS_PER_WORD] |= missing << (c % NULLS_PER_WORD)
    return packed


def _words(what: str, column: Column, array: pa.Array, pool: StringPool) -> Int64:
    kind, given = column.type, array.type
    if pa.types.is_null(given):
        return np.full(len(array), NULL, np.int64)
    fits = {
        Type.BOOL: pa.types.is_boolean(given),
        Type.SMALLINT: pa.types.is_integer(given),
        Type.INT: pa.types.is_integer(given),
        Type.BIGINT: pa.types.is_integer(given),
        Type.FLOAT: pa.types.is_floating(given) or pa.types.is_integer(given),
        Type.DOUBLE: pa.types.is_floating(given) or pa.types.is_integer(given),
        Type.TIMESTAMP: pa.types.is_timestamp(given) or pa.types.is_int64(given),
        Type.DATE: pa.types.is_date(given),
        Type.STRING: pa.types.is_string(given)
        or pa.types.is_large_string(given)
        or (pa.types.is_dictionary(given) and pa.types.is_string(given.value_type)),
    }[kind]
    if not fits:
        raise BadRow(f"{what} column {column.name}: Arrow type {given} is not a {kind}")
    if kind == Type.STRING:
        return pool.arrow_codes(array)
    try:
        if kind == Type.BOOL:
            return np.asarray(array.fill_null(False).to_numpy(zero_copy_only=False)).astype(np.int64)
        if kind in (Type.FLOAT, Type.DOUBLE):
            numbers = array.cast(ARROW[kind], safe=pa.types.is_integer(given)).fill_null(0.0).to_numpy()
            return np.asarray(numbers).astype(np.float64).view(np.int64)
        if kind == Type.TIMESTAMP and pa.types.is_timestamp(given):
            array = array.cast(pa.timestamp("ms", given.tz), safe=False)
        elif kind == Type.DATE:
            array = array.cast(pa.date32(), safe=False).cast(pa.int32())
        else:
            array = array.cast(ARROW[kind])
        return np.asarray(array.cast(pa.int64()).fill_null(0).to_numpy())
    except pa.ArrowInvalid as error:
        raise BadRow(f"{what} column {column.name}: {error}") from None
