"""Rows between Python or Arrow and the engine's words, with every value checked against its column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.errors import BadRow
from streaming.engine.strings import NULL, Pool, pack
from streaming.engine.table import NULLS_PER_WORD, Column
from streaming.engine.types import ARROW, Type, to_word

__all__ = ["Block", "encode", "pack_rows", "to_arrow"]

Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]

# Columns of rows: their words, and their NULL flags where there are any.
Block = tuple[list[Int64], list["Flags | None"]]


def encode(what: str, columns: Sequence[Column], rows: Any, pool: Pool) -> Block:
    """The words of `rows`, a list of dicts or a pyarrow.Table (or RecordBatch).

    A dict may leave out columns: they take their default, or NULL. An Arrow table must have every column.

    Raises:
        BadRow: a value of another type, a number that does not fit, an unknown or missing column.
    """
    if isinstance(rows, (pa.Table, pa.RecordBatch)):
        return _from_arrow(what, columns, rows, pool)
    if not isinstance(rows, (list, tuple)):
        raise BadRow(f"{what}: rows are a list of dicts or a pyarrow.Table, not a {type(rows).__name__}")
    return _from_dicts(what, columns, rows, pool)


def _from_dicts(what: str, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], pool: Pool) -> Block:
    names = {column.name for column in columns}
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise BadRow(f"{what} row {i}: a {type(row).__name__} instead of a dict", i)
        if not row.keys() <= names:
            unknown = sorted(str(key) for key in row.keys() - names)
            raise BadRow(f"{what} row {i}: unknown column {unknown[0]}", i)
    words: list[Int64] = []
    flags: list[Flags | None] = []
    for column in columns:
        values = [row.get(column.name, column.default) for row in rows]
        missing = np.fromiter((value is None for value in values), np.uint8, len(values))
        if column.type == Type.STRING:
            for i, value in enumerate(values):
                if value is not None and not isinstance(value, str):
                    raise BadRow(_wrong(what, i, column, f"{value!r} ({type(value).__name__}) is not a string"), i)
            try:
                words.append(pool.codes(values))
            except UnicodeEncodeError as error:
                raise BadRow(f"{what} column {column.name}: {error.reason} in a string") from None
        else:
            numbers = np.zeros(len(values), np.int64)
            for i, value in enumerate(values):
                if value is not None:
                    try:
                        numbers[i] = to_word(column.type, value)
                    except (TypeError, OverflowError) as error:
                        raise BadRow(_wrong(what, i, column, str(error)), i) from None
            words.append(numbers)
        flags.append(missing if missing.any() else None)
    return words, flags


def _wrong(what: str, row: int, column: Column, why: str) -> str:
    return f"{what} row {row} column {column.name}: {why}"


def _from_arrow(what: str, columns: Sequence[Column], rows: pa.Table | pa.RecordBatch, pool: Pool) -> Block:
    names = {column.name for column in columns}
    for name in rows.column_names:
        if name not in names:
            raise BadRow(f"{what}: unknown column {name}")
    words: list[Int64] = []
    flags: list[Flags | None] = []
    for column in columns:
        if rows.column_names.count(column.name) != 1:
            raise BadRow(f"{what}: column {column.name} is missing or there twice")
        array = rows.column(column.name)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
        if isinstance(array, pa.ChunkedArray):  # combine_chunks of some types keeps chunks
            array = pa.concat_arrays(array.chunks)
        words.append(_words(what, column, array, pool))
        flags.append(array.is_null().to_numpy(zero_copy_only=False).astype(np.uint8) if array.null_count else None)
    return words, flags


def _words(what: str, column: Column, array: pa.Array, pool: Pool) -> Int64:
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


def pack_rows(columns: Sequence[Column], width: int, block: Block) -> Int64:
    """Rows as a table lays them out: int64[n, width]."""
    words, flags = block
    rows = np.zeros((len(words[0]), width), np.int64)
    for c in range(len(columns)):
        rows[:, c] = words[c]
        missing = flags[c]
        if missing is not None:
            rows[:, len(columns) + c // NULLS_PER_WORD] |= missing.astype(np.int64) << (c % NULLS_PER_WORD)
    return rows


def to_arrow(kind: Type, words: Int64, nulls: Flags, pool: Pool) -> pa.Array:
    """A column of results."""
    if kind == Type.STRING:
        return pool.arrow(words, nulls)
    target = ARROW[kind]
    if kind in (Type.BOOL, Type.NULL):
        data = pa.py_buffer(np.packbits(words.astype(bool), bitorder="little"))
    elif kind == Type.DOUBLE:
        data = pa.py_buffer(words.copy())
    elif kind == Type.FLOAT:
        data = pa.py_buffer(words.view(np.float64).astype(np.float32))
    else:
        data = pa.py_buffer(words.astype(_NARROW.get(kind, np.int64)))
    return pa.Array.from_buffers(target, len(words), [pack(nulls), data])


_NARROW: dict[Type, Any] = {Type.SMALLINT: np.int16, Type.INT: np.int32, Type.DATE: np.int32}
