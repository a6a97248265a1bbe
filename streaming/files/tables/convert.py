"""Columns of a file -> columns of a table, value by value the same; what is not is refused.

| a column of SQL       | is made of                                                                                 |
|-----------------------|--------------------------------------------------------------------------------------------|
| string                | text, and bytes that are UTF-8; never of a number: 7 and 7.0 are one number, and two keys   |
| smallint, int, bigint | integers that fit; reals and decimals that are whole, and small enough to be exact          |
| bool                  | bools; integers that are 0 or 1                                                            |
| float, double         | reals; integers that are exact as such; decimals, as the nearest real; all stay finite      |
| timestamp             | timestamps, without a zone in UTC, floored to milliseconds; 64-bit integers as epoch ms     |
| date                  | dates                                                                                      |

Times and dates are of the years 1 to 9999. A dictionary counts as what it stands for, a column of NULLs as anything.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streaming.files.tables.errors import BadCell, shown

__all__ = ["LAST_MS", "SQL_NAMES", "as_date", "as_milliseconds", "as_text", "converted", "first"]

SQL_NAMES = {
    pa.bool_(): "bool",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.timestamp("ms"): "timestamp",
    pa.date32(): "date",
    pa.string(): "string",
}
"""The Arrow types that a table's columns have, and their names in SQL."""

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""0001-01-01 and the last millisecond of 9999."""

_EPOCH = datetime.date(1970, 1, 1)
_FIRST_DAY, _LAST_DAY = ((day - _EPOCH).days for day in (datetime.date.min, datetime.date.max))
# Up to here every whole number is one of the reals of this width, and no two become the same.
_EXACT = {16: 1 << 11, 32: 1 << 24, 64: 1 << 53}
_DIVISORS = {"us": 1_000, "ns": 1_000_000}


def converted(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The array as the type of a table's column (one of `SQL_NAMES`).

    Raises:
        BadCell: its type is none that the column is made of, or a value is not one of the column's.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), wanted)
    made: pa.Array | None
    if pa.types.is_string(wanted):
        made = as_text(array)
    elif pa.types.is_boolean(wanted):
        made = _truths(array)
    elif pa.types.is_integer(wanted):
        made = _integers(array, wanted)
    elif pa.types.is_floating(wanted):
        made = _reals(array, wanted)
    elif pa.types.is_timestamp(wanted):
        made = _times(array)
    else:
        made = as_date(array.cast(pa.date32())) if pa.types.is_date(array.type) else None
    if made is None:
        raise BadCell(f"is {array.type}, it must be {_TAKEN[SQL_NAMES[wanted]]}")
    return made


_TAKEN = {
    "string": "string (text)",
    "bool": "bool",
    "smallint": "smallint (an integer)",
    "int": "int (an integer)",
    "bigint": "bigint (an integer)",
    "float": "float (a real number)",
    "double": "double (a real number)",
    "timestamp": "timestamp (or a 64-bit integer, in epoch milliseconds)",
    "date": "date",
}


def first(array: pa.Array, wrong: Callable[[Any], bool], why: str) -> BadCell:
    """The error for the first value that is not NULL and wrong; slow, for an array in which there is one."""
    for row, value in enumerate(array.to_pylist()):
        if value is not None and wrong(value):
            return BadCell(f"{shown(value)} {why}", row)
    return BadCell(why)


def as_text(array: pa.Array) -> pa.Array | None:
    given = array.type
    if pa.types.is_fixed_size_binary(given):
        array = array.cast(pa.binary())
    elif not any(kind(given) for kind in _TEXTS):
        return None
    try:
        if given == pa.string():
            array.validate(full=True)
            return array
        return array.cast(pa.binary()).cast(pa.string()) if given != pa.large_string() else _narrowed(array)
    except pa.ArrowInvalid:
        wrong = first(array.cast(pa.large_binary()), lambda value: not _is_utf8(value), "is not UTF-8")
        if wrong.row < 0:
            raise  # more than 2 GiB
        raise wrong from None


_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


def _narrowed(array: pa.Array) -> pa.Array:
    array.validate(full=True)
    return array.cast(pa.string())


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _truths(array: pa.Array) -> pa.Array | None:
    if pa.types.is_boolean(array.type):
        return array
    if not pa.types.is_integer(array.type):
        return None
    if pc.any(pc.greater(array.cast(pa.int64(), safe=False), 1)).as_py() or pc.any(pc.less(array, 0)).as_py():
        raise first(array, lambda value: value not in (0, 1), "is no bool")
    return array.cast(pa.bool_())


def _integers(array: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    given, bits = array.type, wanted.bit_width
    if given == wanted:
        return array
    whole = array
    if pa.types.is_floating(given):
        whole = _whole(array, _EXACT[given.bit_width])
    elif not (pa.types.is_integer(given) or pa.types.is_decimal(given)):
        return None
    try:
        return whole.cast(wanted)
    except pa.ArrowInvalid:
        least, limit = -(1 << (bits - 1)), 1 << (bits - 1)
        raise first(
            whole, lambda v: not least <= v < limit or v != int(v), f"does not fit {SQL_NAMES[wanted]}"
        ) from None


def _whole(array: pa.Array, exact: int) -> pa.Array:
    values = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        good = (np.abs(values) <= exact) & (values == np.floor(values))
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        many = abs(values[row]) > exact and np.isfinite(values[row])
        why = "is beyond what a real counts exactly" if many else "is no whole number"
        raise BadCell(f"{array[row].as_py()!r} {why}", row)
    return _masked(values.astype(np.int64), array, pa.int64())


def _masked(values: npt.NDArray[Any], like: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values, NULL where `like` is."""
    mask = like.is_null().to_numpy(zero_copy_only=False) if like.null_count else None
    return pa.array(values, kind, mask=mask)


def _reals(array: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    given = array.type
    if given == wanted:
        return array
    if pa.types.is_decimal(given):
        array = array.cast(pa.string())  # the cast of a decimal itself is off by a bit at times
    elif pa.types.is_integer(given):
        try:
            return array.cast(wanted)
        except pa.ArrowInvalid:
            exact = _EXACT[wanted.bit_width]
            raise first(array, lambda v: abs(v) > exact, f"is not exact as {SQL_NAMES[wanted]}") from None
    elif not pa.types.is_floating(given):
        return None
    made = array.cast(wanted, safe=False) if not pa.types.is_string(array.type) else array.cast(wanted)
    lost = pc.and_(pc.is_inf(made), pc.invert(pc.is_inf(array)) if pa.types.is_floating(array.type) else True)
    if pc.any(lost).as_py():
        row = pc.index(lost, True).as_py()
        raise BadCell(f"{array[row].as_py()} does not fit {SQL_NAMES[wanted]}", row)
    return made


def _times(array: pa.Array) -> pa.Array | None:
    given = array.type
    if pa.types.is_timestamp(given):
        ticks = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        if given.unit == "s":
            ticks = np.clip(ticks, FIRST_MS, LAST_MS + 1) * 1000 if len(ticks) else ticks
        elif given.unit in _DIVISORS:
            ticks = ticks // _DIVISORS[given.unit]
        return as_milliseconds(_masked(ticks, array, pa.int64()))
    if pa.types.is_int64(given) or pa.types.is_uint64(given):
        try:
            return as_milliseconds(array.cast(pa.int64()))
        except pa.ArrowInvalid:
            raise first(array, lambda value: value > LAST_MS, "is a time beyond the year 9999") from None
    return None


def as_milliseconds(array: pa.Array) -> pa.Array:
    """Epoch ms -> timestamps.

    Raises:
        BadCell: a time outside of the years 1 to 9999.
    """
    _in_years(array, FIRST_MS, LAST_MS, "a time, in epoch ms,")
    return array.cast(pa.timestamp("ms"))


def as_date(array: pa.Array) -> pa.Array:
    """The date32 array.

    Raises:
        BadCell: a day outside of the years 1 to 9999.
    """
    _in_years(array.cast(pa.int32()), _FIRST_DAY, _LAST_DAY, "a date, in days since 1970,")
    return array


def _in_years(numbers: pa.Array, least: int, most: int, what: str) -> None:
    bounds = pc.min_max(numbers)
    if bounds["min"].is_valid and (bounds["min"].as_py() < least or bounds["max"].as_py() > most):
        raise first(numbers, lambda value: not least <= value <= most, f"is {what} outside of the years 1 to 9999")
