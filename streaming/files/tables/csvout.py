"""Rows -> a csv file from which LOAD DATA makes the same rows again.

A cell is quoted where it would mean something else without: '' (blank is NULL), the text that spells NULL, what has the
delimiter, a quote or a line's end in it. Times are written as OpenMLDB's batch engine does it, local with their zone:
2016-03-31T18:11:20.123+08:00.
"""

from __future__ import annotations

import re
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from streaming.files.tables.celltext import ZONE_MS
from streaming.files.tables.convert import FIRST_MS, LAST_MS
from streaming.files.tables.errors import BadFile, shown
from streaming.files.tables.options import Options

__all__ = ["write_csv"]

_ROWS = 1 << 16


def write_csv(rows: pa.Table, out: BinaryIO, options: Options) -> None:
    """Writes the rows, of the types of a table, to the end of `out`.

    Raises:
        BadFile: two columns have one name; a cell would have to be quoted, and `options.quote` is none.
    """
    names = rows.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and options.header:
        raise BadFile(f"two columns are called {twice[0]}")
    if options.header:
        out.write(_lines([_quoted(name, pa.array([name]), options) for name in names], options))
    for first in range(0, rows.num_rows, _ROWS):
        some = rows.slice(first, _ROWS)
        columns = []
        for name, column in zip(names, some.columns, strict=True):
            text = _text(pa.concat_arrays(column.chunks))
            columns.append(pc.fill_null(_quoted(name, text, options), options.null_value))
        out.write(_lines(columns, options))


def _lines(columns: list[pa.Array], options: Options) -> bytes:
    """A line per row; the bytes of an Arrow array of texts are these texts one after the other."""
    wide = pa.large_string()
    cells = [column.cast(wide) for column in columns]
    joined = pc.binary_join_element_wise(*cells, pa.scalar(options.delimiter, wide))
    lines = pc.binary_join_element_wise(joined, pa.scalar("", wide), pa.scalar("\n", wide))
    offsets, data = lines.buffers()[1:]
    if data is None:
        return b""
    ends = memoryview(offsets).cast("q")
    return bytes(memoryview(data)[ends[lines.offset] : ends[lines.offset + len(lines)]])


def _quoted(name: str, cells: pa.Array, options: Options) -> pa.Array:
    special = re.escape(f"{options.delimiter}{options.quote}")
    unlike = pc.match_substring_regex(cells, rf"^\x{{FEFF}}|^$|[\r\n{special}]")
    unlike = pc.or_(unlike, pc.equal(cells, options.null_value))
    if not pc.any(unlike).as_py():
        return cells
    quote = options.quote
    if not quote:
        cell = cells[pc.index(unlike, True).as_py()].as_py()
        raise BadFile(f"column {name}: {shown(cell)} has to be quoted, and OPTIONS(quote='') forbids it")
    doubled = pc.replace_substring(cells, quote, quote * 2)
    return pc.if_else(unlike, pc.binary_join_element_wise(quote, doubled, quote, ""), cells)


def _text(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_date(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        text = column.cast(pa.string())
        text = pc.if_else(pc.is_inf(column), pc.if_else(pc.less(column, 0), "-Infinity", "Infinity"), text)
        return pc.if_else(pc.is_nan(column), "NaN", text)
    if pa.types.is_timestamp(kind):
        return _times(column.cast(pa.timestamp("ms")).cast(pa.int64()))
    raise BadFile(f"csv has no spelling for {kind}")


def _times(numbers: pa.Array) -> pa.Array:
    """Local times; epoch ms where there is no such year."""
    there = pc.and_(pc.greater_equal(numbers, FIRST_MS), pc.less_equal(numbers, LAST_MS - ZONE_MS))
    local = pc.add(pc.if_else(there, numbers, pa.scalar(0, pa.int64())), ZONE_MS).cast(pa.timestamp("ms"))
    text = pc.binary_replace_slice(local.cast(pa.string()).cast(pa.binary()), 10, 11, b"T").cast(pa.string())
    return pc.if_else(there, pc.binary_join_element_wise(text, "+08:00", ""), numbers.cast(pa.string()))
