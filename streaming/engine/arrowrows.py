"""Arrow columns -> the words of rows, in one kernel call.

Converting a batch column by column in Python costs more than answering it. Here Arrow hands out the whole batch as one
C structure (the Arrow C data interface) and a kernel reads the buffers where they lie. Column types that it does not
read (dictionaries, unsigned numbers, …) and values that do not fit are left to `rows`, which also knows the words for
what is wrong.
"""

# ruff: noqa: PLR0917 -- kernels take arrays; numba knows no objects to bundle them in that load from a cache
# mypy: disable-error-code="untyped-decorator, no-any-return, return-value"
from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.cache import inner, kernel
from streaming.engine.memory import load8, load16, load32, load64, load_float32, load_float64
from streaming.engine.strings import Pool, intern
from streaming.engine.table import NULLS_PER_WORD, Column
from streaming.engine.types import Type

__all__ = ["words_of"]

Int64 = npt.NDArray[np.int64]
_NONE = -1
_INT8, _INT16, _INT32, _INT64, _BOOL, _FLOAT32, _FLOAT64, _TEXT, _LARGE_TEXT, _MICROS, _NANOS, _NULLS, _UNREAD = range(
    13
)

_INTEGERS = {pa.int8(): _INT8, pa.int16(): _INT16, pa.int32(): _INT32, pa.int64(): _INT64, pa.null(): _NULLS}
_FLOATS = {pa.float32(): _FLOAT32, pa.float64(): _FLOAT64, pa.null(): _NULLS}
_TEXTS = {pa.string(): _TEXT, pa.large_string(): _LARGE_TEXT, pa.null(): _NULLS}
_TIMES = {"ms": _INT64, "us": _MICROS, "ns": _NANOS}
# bits of a column's words; 1: a float32
_BITS = {Type.SMALLINT: 16, Type.INT: 32, Type.FLOAT: 1}


@inner
def _number(kind: int, at: int, i: int) -> int:
    if kind == 0:
        return load8(at + i)
    if kind == 1:
        return load16(at + 2 * i)
    if kind == 2:
        return load32(at + 4 * i)
    value = load64(at + 8 * i)
    if kind >= 9:  # towards 0, as Arrow casts
        size = 1_000 if kind == 9 else 1_000_000
        return -(-value // size) if value < 0 else value // size
    return value


@kernel
def _read(
    array: int, kinds: Int64, children: Int64, bits: Int64, out: Int64, out_f: Any, column: int, row: int, arena: Any,
    ends: Int64, slots: Int64, meta: Int64,
) -> tuple[int, int]:  # fmt: skip
    """Reads from `row` of `column` on; stops at (column, row) where the string pool is full, or (-1, row): unfit.

    `array` is the address of a struct ArrowArray: length, null_count, offset, n_buffers, n_children, buffers, children.
    """
    n, n_columns = len(out), len(kinds)
    all_children = load64(array + 48)
    for c in range(column, n_columns):
        kind, width = kinds[c], bits[c]
        if kind == 12:  # not wanted
            continue
        child = load64(all_children + 8 * children[c])
        offset, buffers = load64(child + 16), load64(child + 40)
        valid = load64(buffers) if kind != 11 and load64(child + 8) != 0 else 0
        data = load64(buffers + 8) if kind != 11 else 0
        text = load64(buffers + 16) if kind in (7, 8) else 0
        flag_word, flag = n_columns + c // 62, 1 << (c % 62)
        for r in range(row, n):
            i = offset + r
            if kind == 11 or (valid != 0 and not (load8(valid + (i >> 3)) >> (i & 7)) & 1):
                out[r, c] = 0
                out[r, flag_word] |= flag
            elif kind in (7, 8):
                if kind == 7:
                    begin, end = load32(data + 4 * i), load32(data + 4 * i + 4)
                else:
                    begin, end = load64(data + 8 * i), load64(data + 8 * i + 8)
                code = intern(text + begin, end - begin, arena, ends, slots, meta)
                if code < 0:
                    return c, r
                out[r, c] = code
            elif kind == 4:
                out[r, c] = (load8(data + (i >> 3)) >> (i & 7)) & 1
            elif kind == 5:
                out_f[r, c] = load_float32(data + 4 * i)
            elif kind == 6:
                real = load_float64(data + 8 * i)
                out_f[r, c] = np.float64(np.float32(real)) if width == 1 else real
            else:
                value = _number(kind, data, i)
                if width > 1 and (value >> (width - 1)) != (value >> 63):
                    return -1, r
                out[r, c] = value
        row = 0
    return n_columns, 0


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
    columns: Sequence[Column], rows: pa.Table | pa.RecordBatch, pool: Pool, unread: frozenset[int] = frozenset()
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


def _convert(layout: _Layout, kinds: Int64, batch: pa.RecordBatch, out: Int64, pool: Pool) -> bool:
    _, capsule = batch.__arrow_c_array__()
    address = _capsule(capsule, b"arrow_array")
    column, row, room = 0, 0, 1 << 10
    while True:
        column, row = _read(
            address, kinds, layout.children, layout.bits, out, out.view(np.float64), column, row, pool.arena,
            pool.ends, pool.slots, pool.meta,
        )  # fmt: skip
        if column in (_NONE, len(kinds)):
            return column != _NONE
        pool.grow(room)
        room *= 2  # one text may be longer than all before it
