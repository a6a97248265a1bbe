"""How OpenMLDB's API server spells columns and values in JSON, as seen from the server.

| type      | number | deployments | queries   | tables     | in JSON                                       |
|-----------|--------|-------------|-----------|------------|-----------------------------------------------|
| bool      | 0      | bool        | Bool      | kBool      | true, false                                   |
| smallint  | 1      | int16       | Int16     | kSmallInt  | integer; 1.0 is none                          |
| int       | 2      | int32       | Int32     | kInt       | the same                                      |
| bigint    | 3      | int64       | Int64     | kBigInt    | the same, exact                               |
| float     | 4      | float       | Float     | kFloat     | number, or NaN, Infinity, -Infinity unquoted  |
| double    | 5      | double      | Double    | kDouble    | the same                                      |
| string    | 6      | string      | String    | kVarchar   | string                                        |
| date      | 7      | date        | Date      | kDate      | "2024-02-29" in, "2024-2-29" out              |
| timestamp | 8      | timestamp   | Timestamp | kTimestamp | integer, epoch ms                             |

NULL is null everywhere.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import struct
from typing import Any, NamedTuple

import pyarrow as pa

from streaming.engine.types import Type

__all__ = ["SPELLINGS", "Spelling", "Unfit", "cell", "dump", "json_rows", "parse_json", "shown"]


class Spelling(NamedTuple):
    """A type's number and names, as in the table above."""

    number: int
    deployment: str
    query: str
    table: str


SPELLINGS = {
    Type.BOOL: Spelling(0, "bool", "Bool", "kBool"),
    Type.SMALLINT: Spelling(1, "int16", "Int16", "kSmallInt"),
    Type.INT: Spelling(2, "int32", "Int32", "kInt"),
    Type.BIGINT: Spelling(3, "int64", "Int64", "kBigInt"),
    Type.FLOAT: Spelling(4, "float", "Float", "kFloat"),
    Type.DOUBLE: Spelling(5, "double", "Double", "kDouble"),
    Type.STRING: Spelling(6, "string", "String", "kVarchar"),
    Type.DATE: Spelling(7, "date", "Date", "kDate"),
    Type.TIMESTAMP: Spelling(8, "timestamp", "Timestamp", "kTimestamp"),
}

_BITS = {Type.SMALLINT: 15, Type.INT: 31, Type.BIGINT: 63, Type.TIMESTAMP: 63}
_FLOAT_MAX = 3.4028235677973366e38  # from here on a double rounds to an infinite float
_INF = re.compile(r'"(?:[^"\\]|\\.)*"|\bInf\b', re.DOTALL)


class Unfit(ValueError):
    """A JSON value is not one of its column's type."""


def parse_json(body: bytes) -> Any:
    """The JSON of a request: Infinity, NaN and their short forms may stand in it.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        if b"Inf" not in body:
            raise
    text = body.decode()
    return json.loads(_INF.sub(lambda m: "Infinity" if m[0] == "Inf" else m[0], text))


def dump(value: Any) -> bytes:
    """`value` as the server writes it: no blanks, UTF-8, numbers that are not finite unquoted."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def cell(value: Any, kind: Type) -> Any:
    """A JSON value as a value of the engine.

    Raises:
        Unfit: it is not of this type. Unlike the server, which turns it into another date, also for a date that does
            not exist.
    """
    if value is None:
        return None
    if kind == Type.BOOL:
        fits = isinstance(value, bool)
    elif kind in _BITS:
        bound = 1 << _BITS[kind]
        fits = isinstance(value, int) and not isinstance(value, bool) and -bound <= value < bound
    elif kind in (Type.FLOAT, Type.DOUBLE):
        return _real(value, kind)
    elif kind == Type.DATE:
        return _date(value)
    else:
        fits = isinstance(value, str)
    if not fits:
        raise Unfit
    return value


def shown(value: Any) -> str:
    """A refused JSON value, as the server's messages show it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isfinite(value) and abs(value) < _FLOAT_MAX:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        return f"{value:f}"
    return value if isinstance(value, str) else "unknown"


def json_rows(answer: pa.Table, finite: bool) -> list[list[Any]]:
    """Arrow columns as rows of JSON values.

    Args:
        finite: NaN and infinite numbers become null (`write_nan_and_inf_null`).
    """
    columns = []
    for column in answer.columns:
        kind = column.type
        timed = pa.types.is_timestamp(kind)
        values = (column.cast(pa.timestamp("ms")).cast(pa.int64()) if timed else column).to_pylist()
        if pa.types.is_date(kind):
            values = [None if day is None else f"{day.year}-{day.month}-{day.day}" for day in values]
        elif finite and pa.types.is_floating(kind):
            values = [value if value is not None and math.isfinite(value) else None for value in values]
        columns.append(values)
    return [list(row) for row in zip(*columns, strict=True)]


def _real(value: Any, kind: Type) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Unfit
    try:
        number = float(value)
    except OverflowError:
        raise Unfit from None
    if kind == Type.FLOAT:
        return math.copysign(math.inf, number) if abs(number) >= _FLOAT_MAX else number
    if isinstance(value, int) and int(number) != value:  # a double that would lose digits
        raise Unfit
    return number


def _date(value: Any) -> datetime.date:
    parts = value.split("-") if isinstance(value, str) else []
    if len(parts) != 3 or not all(re.fullmatch("[0-9]+", part) for part in parts):
        raise Unfit
    try:
        return datetime.date(*map(int, parts))
    except (ValueError, OverflowError):
        raise Unfit from None
