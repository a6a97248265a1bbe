"""Arrow columns -> the words of rows, in one kernel call.

Converting a batch column by column in Python costs more than answering it. Here Arrow hands out the whole batch as one
C structure (the Arrow C data interface) and a kernel reads the buffers where they lie. Column types that it does not
read (dictionaries, unsigned numbers, …) and values that do not fit are left to `rows`, which also knows the words for
what is wrong.
"""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streaming.engine.native.kernel import Bytes, Int64, Matrix, inner, kernel
from streaming.engine.native.memory import (
    address,
    load8,
    load16,
    load32,
    load64,
    load_float32,
    load_float64,
    store_float64,
)
from streaming.engine.storage.strings import StringPool, intern
from streaming.engine.storage.table import Column
from streaming.engine.types import NULLS_PER_WORD, Type

__all__ = ["words_of"]

_INT8, _INT16, _INT32, _INT64, _BOOL, _FLOAT32, _FLOAT64, _TEXT, _LARGE_TEXT, _MICROS, _NANOS, _NULLS, _UNREAD = range(
    13
)

_INTEGERS = {pa.int8(): _INT8, pa.int16(): _INT16, pa.int32(): _INT32, pa.int64(): _INT64, pa.null(): _NULLS}
_FLOATS = {pa.float32(): _FLOAT32, pa.float64(): _FLOAT64, pa.null(): _NULLS}
_TEXTS = {pa.string(): _TEXT, pa.large_string(): _LARGE_TEXT, pa.null(): _NULLS}
_TIMES = {"ms": _INT64, "us": _MICROS, "ns": _NANOS}
_SINGLE = 1  # what stands in the place of the bits of a float32
# bits of a column's words
_BITS = {Type.SMALLINT: 16, Type.INT: 32, Type.FLOAT: _SINGLE}


@inner
def _number(kind: int, at: int, i: int) -> int:
    if kind == _INT8:
        return load8(at + i)
    if kind == _INT16:
        return load16(at + 2 * i)
    if kind == _INT32:
        return load32(at + 4 * i)
    value = load64(at + 8 * i)
    if kind >= _MICROS:  # towards 0, as Arrow casts
        size = 1_000 if kind == _MICROS else 1_000_000
        return -(-value // size) if value < 0 else value // size
    return value


@kernel
def _read(
    array: int,
    kinds: Int64,
    children: Int64,
    bits: Int64,
    out: Matrix,
    state: Int64,
    arena: Bytes,
    ends: Int64,
    slots: Int64,
    meta: Int64,
) -> int:
    """Reads from column state[0], row state[1] on. Returns 1: all is read, 0: the string pool is full, -1: unfit.

    `array` is the address of a struct ArrowArray: length, null_count, offset, n_buffers, n_children, buffers, children.
    """
    n, n_columns = len(out), len(kinds)
    row = state[1]
    all_children = load64(array + 48)
    for c in range(state[0], n_columns):
        kind, width = kinds[c], bits[c]
        if kind == _UNREAD:  # not wanted
            continue
        child = load64(all_children + 8 * children[c])
        offset, buffers = load64(child + 16), load64(child + 40)
        valid = load64(buffers) if kind != _NULLS and load64(child + 8) != 0 else 0
        data = load64(buffers + 8) if kind != _NULLS else 0
        text = load64(buffers + 16) if kind >= _TEXT and kind <= _LARGE_TEXT else 0
        flag_word, flag = n_columns + c // NULLS_PER_WORD, 1 << (c % NULLS_PER_WORD)
        for r in range(row, n):
            i = offset + r
            if kind == _NULLS or (valid != 0 and not (load8(valid + (i >> 3)) >> (i & 7)) & 1):
                out[r, c] = 0
                out[r, flag_word] |= flag
            elif kind >= _TEXT and kind <= _LARGE_TEXT:
                if kind == _TEXT:
                    begin, end = load32(data + 4 * i), load32(data + 4 * i + 4)
                else:
                    begin, end = load64(data + 8 * i), load64(data + 8 * i + 8)
                code = intern(text + begin, end - begin, arena, ends, slots, meta)
                if code < 0:
                    state[0], state[1] = c, r
                    return 0
                out[r, c] = code
            elif kind == _BOOL:
                out[r, c] = (load8(data + (i >> 3)) >> (i & 7)) & 1
            elif kind == _FLOAT32:
                store_float64(address(out) + 8 * (r * out.shape[1] + c), load_float32(data + 4 * i))
            elif kind == _FLOAT64:
                real = load_float64(data + 8 * i)
                real = np.float64(np.float32(real)) if width == _SINGLE else real
                store_float64(address(out) + 8 * (r * out.shape[1] + c), real)
            else:
                value = _number(kind, data, i)
                if width > _SINGLE and (value >> (width - 1)) != (value >> 63):
                    return -1
                out[r, c] = value
        row = 0
    return 1


_capsule = ctypes.pythonapi.PyCapsule_GetPointer
_capsule.restype, _capsule.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class _Layout:
    """How the columns of one Arrow schema become words; `kinds` is None where `rows` must do it."""

    def __init__(self, columns: Sequence[Column], schema: pa.Schema) -> None:
        self.columns, self.schema = columns, schema
        self.kinds: Int64 | None = None
        names = schema.names
        if sorted(names) != sorted(column.name for column in columns):
            return
        kinds = [_kind(column.type, schema.field(column.name).type) for column in columns]
        if None not in kinds:
            self.kinds = np.array(kinds, np.int64)
            self.children = np.array([names.index(column.name) for column in columns], np.int64)
            self.bits = np.array([_BITS.get(column.type, 64) for column in columns], np.int64)


def _kind(column: Type, given: pa.DataType) -> int | None:
    if Type.SMALLINT <= column <= Type.BIGINT:
        return _INTEGERS.get(given)
    if column in (Type.FLOAT, Type.DOUBLE):
        return _FLOATS.get(given)
    if column == Type.STRING:
        return _TEXTS.get(given)
    if column == Type.TIMESTAMP:
        if pa.types.is_timestamp(given):
            return _TIMES.get(given.unit)
        return _INT64 if given == pa.int64() else None
    if column == Type.DATE:
        return _INT32 if given == pa.date32() else None
    return _BOOL if column == Type.BOOL and given == pa.bool_() else None


_layouts: dict[int, _Layout] = {}
_LAYOUTS_MAX = 256


def words_of(
    columns: Sequence[Column], rows: pa.Table | pa.RecordBatch, pool: StringPool, unread: frozenset[int] = frozenset()
) -> Int64 | None:
    """int64[n, width], the rows as a table lays them out; None where `rows` must convert them.

    Args:
        unread: columns whose words nobody reads: they stay 0.
    """
    layout = _layouts.get(id(columns))
    if layout is None or layout.columns is not columns or not layout.schema.equals(rows.schema):
        if len(_layouts) >= _LAYOUTS_MAX:
            _layouts.clear()
        layout = _layouts[id(columns)] = _Layout(columns, rows.schema)
    if layout.kinds is None:
        return None
    kinds = layout.kinds
    if unread:
        kinds = kinds.copy()
        kinds[list(unread)] = _UNREAD
    width = len(columns) + (len(columns) + NULLS_PER_WORD - 1) // NULLS_PER_WORD
    out = np.zeros((rows.num_rows, width), np.int64)
    first = 0
    for batch in [rows] if isinstance(rows, pa.RecordBatch) else rows.to_batches():
        if not _convert(layout, kinds, batch, out[first : first + batch.num_rows], pool):
            return None
        first += batch.num_rows
    return out


def _convert(layout: _Layout, kinds: Int64, batch: pa.RecordBatch, out: Matrix, pool: StringPool) -> bool:
    _, capsule = batch.__arrow_c_array__()
    array = _capsule(capsule, b"arrow_array")
    state, room = np.zeros(2, np.int64), 1 << 10
    while True:
        done = _read(
            array, kinds, layout.children, layout.bits, out, state, pool.arena, pool.ends, pool.slots, pool.meta
        )
        if done:
            return done > 0
        pool.grow(room)
        room *= 2  # one text may be longer than all before it
