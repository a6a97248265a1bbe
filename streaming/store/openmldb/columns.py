"""OpenMLDB's column types and cells as its servers spell them ↔ Arrow; no value changes on the way.

| OpenMLDB  | also called                  | cell                          | Arrow           |
|-----------|------------------------------|-------------------------------|-----------------|
| bool      |                              | bool                          | bool_           |
| smallint  | int16                        | int                           | int16           |
| int       | int32                        | int                           | int32           |
| bigint    | int64                        | int                           | int64           |
| float     |                              | float                         | float32         |
| double    |                              | float                         | float64         |
| timestamp |                              | int, epoch ms                 | timestamp("ms") |
| date      |                              | "2024-1-2" or "2024-01-02"    | date32          |
| string    | varchar                      | str                           | string          |

Names in any case. A float cell is the float32's value as a double: 0.10000000149011612.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["arrow_type", "backquoted", "cells", "differences", "milliseconds", "rows_to_table", "schema_of"]

# The engine has the same table (a test compares them), but whoever imports it waits for a compiler to load.
_ARROW = {
    "bool": pa.bool_(),
    "smallint": pa.int16(),
    "int16": pa.int16(),
    "int": pa.int32(),
    "int32": pa.int32(),
    "bigint": pa.int64(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("ms"),
    "date": pa.date32(),
    "string": pa.string(),
    "varchar": pa.string(),
}


def backquoted(name: str) -> str:
    """A name as it stands in a server's SQL, also where it is a keyword, or has blanks or letters outside of ASCII."""
    return f"`{name}`"


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a server's name for a column type.

    Raises:
        ValueError: no such type.
    """
    if name.lower() not in _ARROW:
        raise ValueError(f"unknown column type {name!r}")
    return _ARROW[name.lower()]


def schema_of(columns: Sequence[tuple[str, str]]) -> pa.Schema:
    """The schema of (name, a server's type name)."""
    return pa.schema([(name, arrow_type(kind)) for name, kind in columns])


def rows_to_table(schema: pa.Schema, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """A server's rows, cells in the schema's order, None for NULL.

    Raises:
        ValueError: a cell is not of its column's type, or a row has another length.
    """
    for row in rows:
        if len(row) != len(schema):
            raise ValueError(f"a row has {len(row)} cells, the schema {len(schema)} columns")
    arrays = []
    for place, field in enumerate(schema):
        column = [row[place] for row in rows]
        if pa.types.is_date(field.type):
            column = [_date(cell) for cell in column]
        elif pa.types.is_float32(field.type):
            arrays.append(_float32(column))
            continue
        elif pa.types.is_timestamp(field.type):
            arrays.append(pa.array(column, pa.int64()).cast(field.type))
            continue
        try:
            arrays.append(pa.array(column, field.type))
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise ValueError(f"column {field.name}: {error}") from error
    return pa.Table.from_arrays(arrays, schema=schema)


def cells(rows: pa.Table) -> list[list[Any]]:
    """Arrow rows as a server takes them: timestamps as epoch ms, dates as `datetime.date`, NULL as None."""
    columns = [milliseconds(column).to_pylist() for column in rows.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def differences(expected: pa.Schema, found: pa.Schema) -> list[str]:
    """What `found` has otherwise than `expected`, in words; empty: the same names, types and order."""
    wrong = [f"{field.name} is missing" for field in expected if field.name not in found.names]
    wrong += [f"{field.name} is too much" for field in found if field.name not in expected.names]
    for field in expected:
        if field.name in found.names and found.field(field.name).type != field.type:
            wrong.append(f"{field.name} is {found.field(field.name).type}, not {field.type}")
    if not wrong and expected.names != found.names:
        wrong.append(f"the order is {', '.join(found.names)}, not {', '.join(expected.names)}")
    return wrong


def milliseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Timestamps as the integers that they are in SQL; other columns as they are."""
    return column.cast(pa.timestamp("ms")).cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


def _date(cell: Any) -> datetime.date | None:
    if cell is None:
        return None
    try:
        year, month, day = (int(part) for part in cell.split("-"))
        return datetime.date(year, month, day)
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{cell!r} is not a date as YYYY-MM-DD") from error


def _float32(column: list[Any]) -> pa.Array:
    """Exactly the float32 that a server meant, which it spells as a double."""
    valid = np.array([cell is not None for cell in column], bool)
    with np.errstate(over="ignore"):  # beyond a float32: the server would not have sent it
        values = np.array([0.0 if cell is None else cell for cell in column], np.float64).astype(np.float32)
    return pa.array(values, pa.float32(), mask=~valid)
