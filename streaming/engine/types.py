"""OpenMLDB's column types, and how a value of each becomes one 64-bit word.

| type               | word                                      | in rows (list[dict])   | in Arrow        |
|--------------------|-------------------------------------------|------------------------|-----------------|
| bool               | 0 or 1                                    | bool                   | bool_           |
| smallint int bigint| the number                                | int                    | int16/32/64     |
| timestamp          | epoch milliseconds                        | int, datetime          | timestamp("ms") |
| date               | days since 1970-01-01                     | datetime.date, ISO text| date32          |
| float double       | the bits of the number as a double        | float, int             | float32/64      |
| string             | its code in the string pool               | str                    | string          |

A NULL is a flag beside the word, whose value then means nothing: a row's flags stand behind its words, 62 to a word.
"""

from __future__ import annotations

import datetime
import math
import re
import struct
from enum import IntEnum

import pyarrow as pa

__all__ = ["ARROW", "NAMES", "NULLS_PER_WORD", "Type", "from_name", "is_integer", "is_number", "to_python", "to_word"]

NULLS_PER_WORD = 62


class Type(IntEnum):
    """A column type; the order of the numbers is the order of numeric promotion."""

    NULL = 0
    BOOL = 1
    SMALLINT = 2
    INT = 3
    BIGINT = 4
    FLOAT = 5
    DOUBLE = 6
    TIMESTAMP = 7
    DATE = 8
    STRING = 9

    def __str__(self) -> str:
        return NAMES[self]


NAMES = {
    Type.NULL: "null",
    Type.BOOL: "bool",
    Type.SMALLINT: "smallint",
    Type.INT: "int",
    Type.BIGINT: "bigint",
    Type.FLOAT: "float",
    Type.DOUBLE: "double",
    Type.TIMESTAMP: "timestamp",
    Type.DATE: "date",
    Type.STRING: "string",
}

# The dates that OpenMLDB has, as days since 1970: 1900-01-01 to 9999-12-31. ZERO_DATE is what it makes of a time of
# another year: not NULL, before all other dates, and without a text.
FIRST_DATE, LAST_DATE = -25_567, 2_932_896
ZERO_DATE = FIRST_DATE - 1

_ALIASES = {
    "bool": Type.BOOL,
    "smallint": Type.SMALLINT,
    "int16": Type.SMALLINT,
    "i16": Type.SMALLINT,
    "int": Type.INT,
    "integer": Type.INT,
    "int32": Type.INT,
    "i32": Type.INT,
    "bigint": Type.BIGINT,
    "int64": Type.BIGINT,
    "i64": Type.BIGINT,
    "float": Type.FLOAT,
    "float32": Type.FLOAT,
    "double": Type.DOUBLE,
    "float64": Type.DOUBLE,
    "timestamp": Type.TIMESTAMP,
    "date": Type.DATE,
    "string": Type.STRING,
    "varchar": Type.STRING,
}

ARROW = {
    Type.NULL: pa.bool_(),  # OpenMLDB types a bare NULL as bool
    Type.BOOL: pa.bool_(),
    Type.SMALLINT: pa.int16(),
    Type.INT: pa.int32(),
    Type.BIGINT: pa.int64(),
    Type.FLOAT: pa.float32(),
    Type.DOUBLE: pa.float64(),
    Type.TIMESTAMP: pa.timestamp("ms"),
    Type.DATE: pa.date32(),
    Type.STRING: pa.string(),
}

_RANGE = {Type.SMALLINT: 15, Type.INT: 31, Type.BIGINT: 63}
_EPOCH = datetime.date(1970, 1, 1)
_NAIVE_EPOCH = datetime.datetime(1970, 1, 1)
_AWARE_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)  # also 2021-1-1, as OpenMLDB's INSERT takes it


def from_name(name: str) -> Type | None:
    """The type that a script calls `name`, or None."""
    return _ALIASES.get(name.lower())


def is_integer(t: Type) -> bool:
    """Whether `t` is one of the three integer types."""
    return Type.SMALLINT <= t <= Type.BIGINT


def is_number(t: Type) -> bool:
    """Whether `t` is an integer or a floating-point type."""
    return Type.SMALLINT <= t <= Type.DOUBLE


def to_word(t: Type, value: object) -> int:
    """The word of a Python value that is not None and not a string.

    Raises:
        TypeError: the value is of another type.
        OverflowError: it does not fit.
    """
    if t == Type.BOOL:
        if isinstance(value, bool):
            return int(value)
    elif t in _RANGE:
        if isinstance(value, int) and not isinstance(value, bool):
            if not -(1 << _RANGE[t]) <= value < 1 << _RANGE[t]:
                raise OverflowError(f"{value} does not fit a {t}")
            return value
    elif t in (Type.FLOAT, Type.DOUBLE):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
            if t == Type.FLOAT and math.isfinite(number):
                number = struct.unpack("<f", struct.pack("<f", number))[0]
            return int(struct.unpack("<q", struct.pack("<d", number))[0])
    elif t == Type.TIMESTAMP:
        if isinstance(value, datetime.datetime):
            delta = value - (_NAIVE_EPOCH if value.tzinfo is None else _AWARE_EPOCH)
            return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
        if isinstance(value, int) and not isinstance(value, bool):
            if not -(1 << 63) <= value < 1 << 63:
                raise OverflowError(f"{value} does not fit a {t}")
            return value
    elif t == Type.DATE:
        if isinstance(value, str):
            parts = _DATE.fullmatch(value)
            try:
                value = datetime.date(*map(int, parts.groups())) if parts else value
            except ValueError:
                parts = None
            if parts is None:
                raise TypeError(f"{value!r} is not a date as YYYY-MM-DD")
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            days = (value - _EPOCH).days
            if days < FIRST_DATE:
                raise OverflowError(f"{value} lies before 1900")
            return days
    raise TypeError(f"{value!r} ({type(value).__name__}) is not a {t}")


def to_python(t: Type, word: int) -> object:
    """The Python value of a word that is neither NULL nor a string."""
    if t in (Type.BOOL, Type.NULL):
        return bool(word)
    if t in (Type.FLOAT, Type.DOUBLE):
        return struct.unpack("<d", struct.pack("<q", word))[0]
    if t == Type.DATE:
        return _EPOCH + datetime.timedelta(days=word)
    return word
